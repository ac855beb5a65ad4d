"""The training loop."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from functools import cached_property, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict
from jaxtyping import PyTree

from jaxclf.config import Config
from jaxclf.config_io import find_differences
from jaxclf.errors import Interrupted, NonFiniteError, UserError, require
from jaxclf.optimizers.groups import Assignments, AssignsGroups
from jaxclf.training.callbacks import Callback, Checkpointer, EarlyStopping
from jaxclf.training.checkpoint import Checkpoints, Saved
from jaxclf.training.devices import Devices
from jaxclf.training.evaluation import Evaluation, evaluate, get_batch_shape, get_eval_batch_size
from jaxclf.training.interval_log import IntervalLogger
from jaxclf.training.pipeline import count_steps_per_epoch, group_steps, import_tensorflow, read_train_batches
from jaxclf.training.progress import Progress
from jaxclf.training.resident import Resident
from jaxclf.training.run_ahead import RunAheadLimit
from jaxclf.training.state import TrainState, are_finite, create_state, get_variables, restore_state, summarize
from jaxclf.training.statistics import check_statistics, compute_precise_statistics
from jaxclf.training.step_config import build_step_config
from jaxclf.training.user_code import explain_out_of_memory, explain_tracing_errors
from jaxclf.training.writers import Histogram, Record, select_scalars
from jaxclf.types import Batch, Split, Splits, Variables

LESS_MEMORY = "lower --batch-size, or compute a batch in parts with --gradient-accumulation"  # for error messages


class Trainer:
    """Trains the network of a config on some splits. `fit` is the loop; what surrounds it are callbacks."""

    def __init__(
        self,
        config: Config,
        splits: Splits,
        devices: Devices | None = None,
        checkpoints: Checkpoints | None = None,
        callbacks: Sequence[Callback] = (),
        init: Variables | None = None,
    ):
        """Prepare a run.

        Args:
            config: What is trained, on what, and how.
            splits: The images and labels.
            devices: What the steps are compiled for; by default every device, with jit.
            checkpoints: Where checkpoints are saved, and restored from; None: nothing is kept.
            callbacks: Called after those every run has: logging and early stopping; checkpoints come last.
            init: Variables to start from instead of the initializers of the model.

        Raises:
            UserError: If the batch size does not suit the devices, or `patience` is set without a validation split.
        """
        self.config, self.splits, self.devices = config, splits, devices or Devices.all()
        self.checkpoints: Checkpoints | None = None
        self.init = init
        self.resident: Resident | None = None
        """The training images on the devices, if they are kept there."""
        self.devices.check_batch_size(config.batch_size, config.gradient_accumulation)
        require(
            not config.patience or splits.validation is not None,
            f"patience={config.patience} stops by validation, and this dataset has no validation split",
        )
        self.steps_per_epoch = count_steps_per_epoch(len(splits.train), config.batch_size, config.remainder)
        self.total_steps = self.steps_per_epoch * config.epochs
        self.steps_per_execution = min(config.steps_per_execution, self.steps_per_epoch)  # it ends with its epoch
        self.step_config = build_step_config(config, self.total_steps, splits.train)
        self.progress = Progress()
        self.history: list[dict[str, Any]] = []
        """The rows of metrics that this process has recorded, as in metrics.jsonl."""
        self.stop_training = False
        """Set by callbacks: no further epoch is trained."""
        self.interrupted = 0
        """Set by callbacks: the signal to save and stop by, or 0."""
        self.compile_seconds = 0.0
        self.callbacks: list[Callback] = [IntervalLogger()]
        self.callbacks += [EarlyStopping(config.patience)] if config.patience else []
        self.callbacks += callbacks
        if checkpoints is not None:
            self.keep_checkpoints(checkpoints)

    def fit(self) -> TrainState:
        """Train from the newest checkpoint, or from the start, to the last epoch or until a callback stops training.

        Returns:
            The final state, on the devices.

        Raises:
            Interrupted: When a callback has set `interrupted`.
            NonFiniteError: When the loss or a parameter is not finite and `non_finite` is "abort", or "rollback" and
                the state to go back to is not finite either.
        """
        self.notify("on_train_begin")
        self.start()
        if self.resumed is not None:  # its files are not changed before an execution is known to fit into memory
            self.try_steps(self.steps_per_execution)
        self.restore()
        self.notify("on_ready")
        if self.interrupted:
            raise Interrupted(self.interrupted, self.progress.steps_done)
        feed, run_ahead = self.read_batches(self.progress.steps_done, self.total_steps), RunAheadLimit()
        while self.progress.epochs_done < self.config.epochs and not self.stop_training:
            try:
                self.notify("on_epoch_begin")
                run_ahead.reset()
                for steps in self.list_executions():
                    self.notify("on_step_begin", steps)
                    batches = self.wait_for_batches(feed)
                    with explain_out_of_memory("a training step", LESS_MEMORY):
                        self.state = self.train_step(self.state, batches, len(steps))
                        self.progress.steps_done = steps.stop
                        run_ahead.wait(self.state.step)
                        self.notify("on_step_end", steps)
                    self.raise_if_interrupted()
                self.measure_statistics()
                self.notify("on_steps_end")
            except NonFiniteError as error:
                if self.config.non_finite != "rollback":
                    raise
                self.roll_back(error)
                feed = self.read_batches(self.progress.steps_done, self.total_steps)
                continue
            self.evaluate_epoch()
            self.state = self.state.replace(epoch_stats=self.zero_sums())
            self.progress.end_epoch(evaluated=self.splits.validation is not None)
            self.notify("on_epoch_end")
        self.notify("on_train_end")
        return self.state

    def start(self) -> TrainState:
        """Compile the training step and initialize the state, which is returned."""
        config, began = self.config, time.perf_counter()
        batch = get_batch_shape(self.splits.train, config.batch_size)
        memory = explain_out_of_memory("the initial state", "use a smaller network, or --optimizer.momentum 0")
        with ThreadPoolExecutor(1) as other, memory, explain_tracing_errors(config.model):
            other.submit(import_tensorflow)  # its import takes as long as the compilation
            self.state = self._initialize_state()
            with explain_out_of_memory("the training images", "keep them on the host: --input host"):
                self.resident = self.devices.keep_images(self.splits.train)
            check_statistics(config, self.step_config, get_variables(self.state), batch)
            self.train_step = self.devices.compile_train_step(
                self.step_config, self.state, batch, self.steps_per_execution, self.resident
            )
            self.zero_sums = self.devices.compile_zeros(self.state.interval_stats)  # those of an epoch as well
            schedule = config.optimizer.learning_rates(self.total_steps, config.epochs)
            # The rates of all steps, ahead: computed while training, each would wait for the device.
            steps = jnp.arange(self.total_steps)
            self.learning_rates = np.asarray(jax.vmap(lambda step: jnp.float32(schedule(step)))(steps))
            self.compile_seconds = time.perf_counter() - began
        return self.state

    def try_steps(self, count: int) -> float:
        """Do some steps of one execution from the initial state; return their mean loss."""
        with explain_out_of_memory("a training step", LESS_MEMORY):
            self.state = self.train_step(self.state, next(self.read_batches(0, count)), count)
            return float(self.state.epoch_stats.loss["sum"] / self.state.epoch_stats.loss["count"])

    def restore(self) -> None:
        """Restore the checkpoint the run resumes from, and what was noted with it, if there is one."""
        if self.checkpoints is None or self.resumed is None:
            return
        data = self._describe_data()
        changed = find_differences({name: self.resumed.notes[name] for name in data}, data)
        if changed:
            raise UserError(
                "the data is not what this run began with; put it back, or name another --workdir:", changed
            )
        self.progress = Progress.from_notes(self.resumed.notes)
        self.state = restore_state(self.checkpoints, self.resumed, self.state)

    def roll_back(self, error: NonFiniteError) -> None:
        """Go back to the newest checkpoint, or the initial state, and skip the steps up to that of the error.

        Steps keep their numbers and batches, so an interrupted run comes to the same end.

        Raises:
            NonFiniteError: The error, if the parameters to go back to are not finite: variables that are given.
        """
        self.state = self._initialize_state()
        self.notify("on_rollback")
        if not jax.jit(are_finite)(self.state.params):
            raise error
        print(f"{error}\nrolled back to the last checkpoint; continuing after step {error.step:,}", file=sys.stderr)
        self.progress.steps_done, self.progress.interval_seconds = error.step, 0.0
        self.state = self.state.replace(step=self.devices.replicate(np.int32(error.step)))

    def measure_statistics(self) -> None:
        """Compute the precise statistics of batch normalization, if weights are evaluated with them."""
        if self.state.precise is None:
            return
        with explain_out_of_memory("the statistics of batch normalization", LESS_MEMORY):
            self.state = compute_precise_statistics(
                self.config, self.devices, self.sum_statistics, self.splits.train, self.state
            )

    def evaluate_epoch(self) -> None:
        """Evaluate after an epoch and record the metrics of all splits together: an interrupted one records nothing."""
        progress, splits = self.progress, dict(self.splits.items())
        more = {"train_full": splits["train"]} if self.config.evaluate_train else {}
        values = {"train": summarize(self.step_config, self.state.epoch_stats)}
        for name, split in (more | {self.curve_split: splits[self.curve_split]}).items():
            if split is not None:
                values[name] = self.evaluate(split).values
        progress.images_left_out += self.images_per_epoch - self.state.epoch_stats.images
        for name, metrics in values.items():
            progress.latest[name] = select_scalars(metrics)
            shown = progress.latest[name] | (_build_histograms(self.state) if name == "train" else {})
            self.record(Record(progress.steps_done, progress.epochs_done + 1, name, "epoch", shown))

    def evaluate(self, split: Split, keep_logits: bool = False) -> Evaluation:
        """Compute loss and metrics of a split, with the EMA of the parameters if there is one.

        Raises:
            Interrupted: When a callback sets `interrupted` between two batches.
        """

        def check_between_batches() -> None:
            self.notify("on_batch_evaluated")
            self.raise_if_interrupted()

        return evaluate(
            self.step_config, self.devices, self.eval_step, get_variables(self.state), split,
            self.eval_batch_size, keep_logits, check_between_batches,
        )  # fmt: skip

    def keep_checkpoints(self, checkpoints: Checkpoints) -> None:
        """Save checkpoints, after all other callbacks, and resume from the newest one."""
        self.checkpoints = checkpoints
        self.callbacks.append(Checkpointer(checkpoints, self.config.checkpoint_every))

    def add_callbacks(self, *callbacks: Callback) -> None:
        """Add callbacks that are called before all others."""
        self.callbacks[:0] = callbacks

    def record(self, record: Record) -> None:
        """Add a record to the history and pass it to the callbacks."""
        row = record.to_row()
        if row is not None:
            self.history.append(row)
        self.notify("on_record", record)

    def notify(self, hook: str, *arguments: Any) -> None:
        """Call a hook of every callback, in their order."""
        for callback in self.callbacks:
            getattr(callback, hook)(self, *arguments)

    def raise_if_interrupted(self) -> None:
        """Let callbacks save, then raise Interrupted, if a callback has asked for it."""
        if self.interrupted:
            self.notify("on_interrupt")
            raise Interrupted(self.interrupted, self.progress.steps_done)

    def close(self) -> None:
        """Close the callbacks, the last one first."""
        for callback in reversed(self.callbacks):
            callback.close()

    def read_batches(self, start: int, stop: int) -> Iterator[Batch]:
        """Return the batches of steps `start` to `stop`, excluded, as many together as an execution takes."""
        config = self.config
        return read_train_batches(
            self.splits.train, batch_size=config.batch_size, remainder=config.remainder,
            seed=config.seed, start=start, stop=stop,
            rows=self.devices.get_local_rows(config.batch_size), together=self.steps_per_execution,
            only_indices=self.resident is not None,
        )  # fmt: skip

    def wait_for_batches(self, feed: Iterator[Batch]) -> Batch:
        """Return the next batches; the wait counts if the device has nothing left to do meanwhile."""
        began = time.perf_counter()
        batches = next(feed)
        if self.state.step.is_ready():
            self.progress.data_wait_seconds += time.perf_counter() - began
        return batches

    def list_executions(self) -> list[range]:
        """Return the steps that are left of the epoch, in groups of one execution."""
        done, steps = self.progress.steps_done, self.steps_per_epoch
        return group_steps(done, self.last_step_of_epoch, steps, self.steps_per_execution)

    @property
    def last_step_of_epoch(self) -> int:
        """Optimizer updates done at the end of the epoch."""
        return (self.progress.epochs_done + 1) * self.steps_per_epoch

    @property
    def images_per_epoch(self) -> int:
        """Training images of an epoch, each counted once."""
        return min(self.steps_per_epoch * self.config.batch_size, len(self.splits.train))

    @property
    def curve_split(self) -> str:
        """The split evaluated after each epoch: validation, or test where there is none."""
        return "test" if self.splits.validation is None else "validation"

    @property
    def stopped_early(self) -> bool:
        """Whether training ended before the last epoch of the config."""
        return self.stop_training and self.progress.epochs_done < self.config.epochs

    @cached_property
    def resumed(self) -> Saved | None:
        """The checkpoint the run resumes from; None at its beginning."""
        return self.checkpoints.find_newest() if self.checkpoints else None

    @cached_property
    def assignments(self) -> Assignments:
        """What the optimizer does with each parameter; empty if it cannot tell."""
        optimizer, model = self.config.optimizer, self.config.model
        if not isinstance(optimizer, AssignsGroups):
            return {}
        state = jax.eval_shape(partial(create_state, self.step_config, get_batch_shape(self.splits.train, 1)))
        return optimizer.assign_groups(state.params, model)

    @cached_property
    def eval_batch_size(self) -> int:
        """Images that are evaluated together, at most."""
        return get_eval_batch_size(self.config, self.splits.train.image_shape)

    @cached_property
    def eval_step(self) -> Callable:
        """The compiled evaluation step."""
        return self.devices.compile_eval_step(self.step_config)

    @cached_property
    def sum_statistics(self) -> Callable:
        """The compiled sums of batch normalization."""
        batch = get_batch_shape(self.splits.train, self.config.batch_size)
        return self.devices.compile_statistics(self.step_config, get_variables(self.state), batch)

    @property
    def metrics(self) -> dict[str, float]:
        """Metrics that the best checkpoint is chosen by: of validation, at the end of an epoch; otherwise none."""
        evaluated = self.progress.steps_done == self.progress.epochs_done * self.steps_per_epoch
        return self.progress.latest["validation"] if evaluated and self.splits.validation is not None else {}

    @property
    def notes(self) -> dict[str, Any]:
        """What a checkpoint notes beside the state, as JSON data."""
        rows = self.resumed.notes["rows"] if self.resumed else 0
        return self._describe_data() | asdict(self.progress) | {"rows": rows + len(self.history)}

    def _describe_data(self) -> dict[str, Any]:
        """Return what identifies the data: a run resumes on no other."""
        train = self.splits.train
        return {
            "image_shape": list(train.image_shape),
            "class_names": list(train.class_names),
            "examples": {name: 0 if split is None else len(split) for name, split in self.splits.items()},
        }

    def _initialize_state(self) -> TrainState:
        batch = get_batch_shape(self.splits.train, self.config.batch_size)
        return self.devices.create_state(self.step_config, batch, self.init)


def _build_histograms(state: TrainState) -> dict[str, Histogram]:
    """Return the distribution of the values of each parameter, by its name."""
    flat: dict[str, PyTree] = flatten_dict(jax.device_get(state.params), sep="/")
    return {f"parameters/{name}": Histogram(values) for name, values in flat.items()}
