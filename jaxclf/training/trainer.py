"""The Python loops: fit and evaluate. They dispatch steps and write what comes back, nothing else."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict

from jaxclf.config import Config
from jaxclf.config_io import differences
from jaxclf.errors import UserError, require
from jaxclf.training.checkpoint import Checkpoints, Saved
from jaxclf.training.devices import Devices
from jaxclf.training.distributed import main_process_first
from jaxclf.training.evaluation import Evaluation, batch_shape, evaluate
from jaxclf.training.interval_log import IntervalLog, NonFiniteError
from jaxclf.training.pipeline import executions, steps_per_epoch, tensorflow, train_batches
from jaxclf.training.profiling import Profiler
from jaxclf.training.progress import Progress
from jaxclf.training.recipe import balanced, recipe_of
from jaxclf.training.step import Recipe, TrainState, all_finite, summarize, variables_of
from jaxclf.training.writers import Histogram, Record, Writer, scalars
from jaxclf.types import Batch, Split, Splits


class Stopped(Exception):  # noqa: N818 - it is no error
    """Training was asked to stop by a signal, and what it has done is saved."""

    def __init__(self, signal: int):
        super().__init__(f"stopped by signal {signal}")
        self.signal = signal


@dataclass
class Trainer:
    """One run: its parts, and `fit`, which puts them to work."""

    config: Config
    splits: Splits
    devices: Devices
    checkpoints: Checkpoints | None = None  # none: nothing is kept
    write: Writer = lambda record: None
    rows: Callable[[], int] = lambda: 0  # how many of the records are written as rows of metrics.jsonl
    on_step: Callable[[int, int], None] = lambda step, epoch: None
    stop: Callable[[], int] = lambda: 0  # the signal to save and stop by, or 0; asked between executions
    profiler: Profiler | None = None
    progress: Progress = field(default_factory=Progress)
    compile_seconds: float = 0.0

    def __post_init__(self):
        self.devices.check_batch_size(self.config.batch_size, self.config.gradient_accumulation)
        require(
            not self.config.patience or self.splits.validation is not None,
            f"patience={self.config.patience} stops by validation, and this dataset holds no images out for it",
        )
        self.total_steps = self.steps_per_epoch * self.config.epochs  # optimiser updates of a run that is not stopped

    @cached_property
    def steps_per_epoch(self) -> int:
        """Optimiser updates of an epoch."""
        return steps_per_epoch(len(self.splits.train), self.config.batch_size, self.config.remainder)

    @property
    def images_per_epoch(self) -> int:
        """Training images of an epoch, each counted once."""
        return min(self.steps_per_epoch * self.config.batch_size, len(self.splits.train))

    @property
    def curve_split(self) -> str:
        """What the curves show beside training: validation, or test where there is none."""
        return "test" if self.splits.validation is None else "validation"

    @cached_property
    def data(self) -> dict[str, Any]:
        """What a checkpoint notes of the data: a run goes on, and is evaluated, on no other."""
        train = self.splits.train
        examples = {name: 0 if split is None else len(split) for name, split in self.splits.items()}
        return {
            "image_shape": list(train.image_shape),
            "class_names": list(train.class_names),
            "examples": examples,
        }

    @cached_property
    def resumed(self) -> Saved | None:
        """The checkpoint the run goes on from; None at its beginning."""
        return self.checkpoints.newest() if self.checkpoints else None

    @cached_property
    def recipe(self) -> Recipe:
        """What a step does."""
        weights = balanced(self.splits.train) if self.config.class_weights == "balanced" else ()
        return replace(recipe_of(self.config, self.total_steps), class_weights=weights)

    @cached_property
    def eval_step(self) -> Callable:
        """The compiled eval step."""
        return self.devices.compile_eval_step(self.recipe)

    def fit(self) -> TrainState:
        """Train from the newest checkpoint, or from nothing, to the last epoch or until patience ends.

        Raises Stopped when asked to stop, NonFiniteError when numbers are no longer finite.
        """
        state = self.restore(self.start())
        self.check_stop()
        feed = self.batches(self.progress.steps_done, self.total_steps)
        while self.progress.epochs_done < self.config.epochs and not self.stopped_early:
            try:
                state = self.fit_epoch(state, feed)
            except NonFiniteError as error:
                if self.config.non_finite != "rollback":
                    raise
                print(f"{error}\ngoing back to the last checkpoint, and on behind step {error.step:,}", file=sys.stderr)
                state = self.roll_back(error.step)
                feed = self.batches(self.progress.steps_done, self.total_steps)
                continue
            try:
                self.evaluate_epoch(state)
            except Stopped:
                self.save(state)
                raise
            state = state.replace(epoch_stats=self.zeros())
            self.progress.end_epoch(evaluated=self.splits.validation is not None)
            self.save(state)
        return state

    def roll_back(self, step: int) -> TrainState:
        """The state of the newest checkpoint, or the initial one, at a later step: what lies between is left out."""
        state = self.devices.create_state(self.recipe, batch_shape(self.splits.train, self.config.batch_size))
        if self.checkpoints is not None:
            with main_process_first():  # which gives them their names
                self.checkpoints.wait()
                saved = self.checkpoints.newest()
            state = self.checkpoints.restore(saved, state) if saved else state
        self.progress.steps_done, self.progress.interval_seconds = step, 0.0
        return state.replace(step=self.devices.replicate(np.int32(step)))

    @property
    def stopped_early(self) -> bool:
        """Whether validation has not become better for as long as the config's patience."""
        return 0 < self.config.patience <= self.progress.epochs_done - self.progress.best_epoch

    def start(self) -> TrainState:
        """The state at step 0, with the train step compiled."""
        config, began = self.config, time.perf_counter()
        batch = batch_shape(self.splits.train, config.batch_size)
        with ThreadPoolExecutor(1) as other:
            other.submit(tensorflow)  # its import takes as long as the compilation
            state = self.devices.create_state(self.recipe, batch)
            self.train_step = self.devices.compile_train_step(self.recipe, state, batch, config.steps_per_execution)
            self.zeros = self.devices.compile_zeros(state.interval_stats)  # of an epoch as well
            schedule = config.optimizer.learning_rates(self.total_steps)
            # Of every step, ahead: computed while training, each would wait for the device.
            self.learning_rates = np.asarray(
                jax.vmap(lambda step: jnp.float32(schedule(step)))(jnp.arange(self.total_steps))
            )
            self.compile_seconds = time.perf_counter() - began
        return state

    def restore(self, state: TrainState) -> TrainState:
        """The state of the newest checkpoint, and what was noted with it; or the state as it is."""
        if self.resumed is None or self.checkpoints is None:
            return state
        notes = self.resumed.notes
        changed = differences({name: notes[name] for name in self.data}, self.data)
        if changed:
            raise UserError(
                "the data is not what this run began with; put it back, or name another --workdir:", changed
            )
        self.progress = Progress.noted(notes)
        return self.checkpoints.restore(self.resumed, state)

    def fit_epoch(self, state: TrainState, feed: Iterator[Batch]) -> TrainState:
        """The steps that are left of an epoch, whose batches `feed` has next, logging as they go."""
        progress = self.progress
        last, log_every = (progress.epochs_done + 1) * self.steps_per_epoch, self.config.log_every
        began = time.perf_counter() - progress.interval_seconds
        seconds = progress.train_seconds - progress.interval_seconds
        log = IntervalLog(
            self.recipe, self.steps_per_epoch, self.learning_rates, self.write, began, progress.data_wait_seconds
        )
        groups = executions(progress.steps_done, last, self.steps_per_epoch, self.config.steps_per_execution)
        try:
            with closing(log):
                for steps in groups:
                    state = self.execute(steps, state, self.next_batches(feed, state))
                    progress.steps_done = steps.stop
                    self.on_step(progress.steps_done, progress.epochs_done)
                    if passes(steps, log_every) or progress.steps_done == last:
                        log.add(progress.steps_done, state.interval_stats, progress.data_wait_seconds)
                        state = state.replace(interval_stats=self.zeros())
                    log.write_all_but(1)
                    stopping = self.stop()
                    if stopping or (progress.steps_done < last and passes(steps, self.config.checkpoint_every)):
                        log.write_all_but(0)
                        self.check_finite(state, log)
                        progress.interval_seconds = time.perf_counter() - log.finished
                        progress.train_seconds = seconds + time.perf_counter() - began
                        self.save(state)
                    if stopping:
                        raise Stopped(stopping)
                log.write_all_but(0)
            self.check_finite(state, log)
        finally:
            progress.train_seconds = seconds + log.finished - began
        progress.interval_seconds = 0.0
        return state

    def execute(self, steps: range, state: TrainState, batches: Batch) -> TrainState:
        """One call of the train step."""
        if self.profiler is None:
            return self.train_step(state, batches, len(steps))
        self.profiler.before(steps, state)
        state = self.train_step(state, batches, len(steps))
        self.profiler.after(steps, state)
        return state

    def next_batches(self, feed: Iterator[Batch], state: TrainState) -> Batch:
        """What the next execution takes; the wait for it counts where the device has nothing left to do meanwhile."""
        began = time.perf_counter()
        batches = next(feed)
        if state.step.is_ready():
            self.progress.data_wait_seconds += time.perf_counter() - began
        return batches

    def batches(self, first: int, last: int) -> Iterator[Batch]:
        """The batches of steps `first` to `last`, excluded, as many together as an execution takes."""
        config = self.config
        return train_batches(
            self.splits.train, batch_size=config.batch_size, remainder=config.remainder,
            seed=config.seed, start=first, stop=last, rows=self.devices.rows(config.batch_size),
            together=config.steps_per_execution,
        )  # fmt: skip

    def evaluate_epoch(self, state: TrainState) -> None:
        """Evaluate after an epoch: the curve's split and, where asked for, the whole training set; then report.

        Raises Stopped, and has reported nothing, when asked to stop.
        """
        progress, splits = self.progress, dict(self.splits.items())
        more = {"train_full": splits["train"]} if self.config.evaluate_train else {}
        values = {"train": summarize(self.recipe, state.epoch_stats)}
        for name, split in (more | {self.curve_split: splits[self.curve_split]}).items():
            if split is not None:
                values[name] = self.evaluate(state, split).values
        progress.images_left_out += self.images_per_epoch - int(state.epoch_stats["loss"]["count"])
        for name, found in values.items():
            progress.latest[name] = scalars(found)
            shown = progress.latest[name] | (histograms(state) if name == "train" else {})
            self.write(Record(progress.steps_done, progress.epochs_done + 1, name, "epoch", shown))

    def evaluate(self, state: TrainState, split: Split, keep_logits: bool = False) -> Evaluation:
        """Loss and metrics of a split, with the running mean of the parameters where there is one."""
        return evaluate(
            self.recipe, self.devices, self.eval_step, variables_of(state), split, self.config.eval_batch_size,
            keep_logits, between=self.check_stop,
        )  # fmt: skip

    def check_stop(self) -> None:
        """Raise Stopped when asked to stop."""
        if stopping := self.stop():
            raise Stopped(stopping)

    def save(self, state: TrainState) -> None:
        """Checkpoint. Only validation may choose the best: without it, and within an epoch, nothing is chosen."""
        if self.checkpoints is None:
            return
        evaluated = self.progress.steps_done == self.progress.epochs_done * self.steps_per_epoch
        metrics = self.progress.latest["validation"] if evaluated and self.splits.validation is not None else {}
        notes = self.data | asdict(self.progress) | {"rows": self.rows()}
        self.checkpoints.save(self.progress.steps_done, state, metrics, notes)

    def check_finite(self, state: TrainState, log: IntervalLog) -> None:
        """Raise NonFiniteError, with the interval so far written, unless all parameters are numbers.

        The loss shows what a step did to them only in the next one.
        """
        if jax.jit(all_finite)(state.params):
            return
        if int(state.interval_stats["loss"]["count"]):
            log.add(self.progress.steps_done, state.interval_stats, self.progress.data_wait_seconds)
            log.write_all_but(0)
        raise NonFiniteError(
            self.progress.steps_done, math.nan, math.nan, float(self.learning_rates[self.progress.steps_done - 1])
        )


def histograms(state: TrainState) -> dict[str, Histogram]:
    """How the values of each parameter are spread, by its name."""
    flat: dict[str, Any] = flatten_dict(jax.device_get(state.params), sep="/")
    return {f"parameters/{name}": Histogram(values) for name, values in flat.items()}


def passes(steps: range, every: int) -> bool:
    """Whether one of some steps is an `every`-th; 0 is never."""
    return every > 0 and steps.stop // every > steps.start // every
