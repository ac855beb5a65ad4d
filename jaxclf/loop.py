"""The Python loops: fit and evaluate. They dispatch steps and write what comes back, nothing else."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxclf.checkpoint import Checkpoints, score
from jaxclf.config import Config, differences
from jaxclf.devices import Devices
from jaxclf.evaluation import batch_shape, evaluate
from jaxclf.pipeline import executions, steps_per_epoch, tensorflow, train_batches
from jaxclf.profiling import Profiler
from jaxclf.step import Recipe, TrainState, summarize, variables_of
from jaxclf.types import Batch, Split, Splits, UserError, require
from jaxclf.writers import Record, Writer

# What a checkpoint notes beside the state, so that a resumed run is the same run.
NOTED = ("train_seconds", "data_wait_seconds", "latest", "epochs_done", "best_score", "best_epoch")
NORM_EVERY = 20  # most steps from one whose gradient's norm is taken to the next


class NonFiniteError(Exception):
    """The loss of training is no longer a number."""


class Interval(NamedTuple):
    """The steps since the last log line, once the device has done them."""

    step: int
    images: int  # padding apart
    values: dict[str, Any]
    finished: float  # seconds, of time.perf_counter
    data_wait: float  # seconds the loop has waited for batches since the run began


@dataclass
class Trainer:
    """One run: its parts, and `fit`, which puts them to work."""

    config: Config
    splits: Splits
    devices: Devices
    checkpoints: Checkpoints | None = None  # none: nothing is kept
    write: Writer = lambda record: None
    on_step: Callable[[int, int], None] = lambda step, epoch: None
    profiler: Profiler | None = None
    train_seconds: float = 0.0  # of steps alone, those before a resume included
    data_wait_seconds: float = 0.0  # of those, how long the loop waited for batches
    compile_seconds: float = 0.0
    latest: dict[str, dict[str, float]] = field(default_factory=dict)  # by split, of the last epoch
    epochs_done: int = 0
    best_score: float | None = None  # of validation
    best_epoch: int = 0  # epochs done when it was reached

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
    def steps_done(self) -> int:
        """Optimiser updates of the epochs done."""
        return self.epochs_done * self.steps_per_epoch

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
    def recipe(self) -> Recipe:
        """What a step does."""
        weights = balanced(self.splits.train) if self.config.class_weights == "balanced" else ()
        return replace(recipe_of(self.config, self.total_steps), class_weights=weights)

    @cached_property
    def eval_step(self) -> Callable:
        """The compiled eval step."""
        return self.devices.compile_eval_step(self.recipe)

    def fit(self) -> TrainState:
        """Train from the newest checkpoint, or from nothing, to the last epoch or until patience ends."""
        state = self.restore(self.start())
        feed = self.batches(self.steps_done, self.total_steps)
        while self.epochs_done < self.config.epochs and not self.stopped_early:
            state = self.fit_epoch(state, self.epochs_done, feed)
            self.evaluate_epoch(state, self.epochs_done)
            state = state.replace(epoch_stats=self.zero(state.epoch_stats))
            self.epochs_done += 1
            self.note_best()
            self.save(state)
        return state

    @property
    def stopped_early(self) -> bool:
        """Whether validation has not become better for as long as the config's patience."""
        return 0 < self.config.patience <= self.epochs_done - self.best_epoch

    def note_best(self) -> None:
        """Keep the best validation so far and when it was reached; equal is not better."""
        if self.splits.validation is None:
            return
        reached = score(self.latest["validation"])
        if self.best_score is None or reached > self.best_score:
            self.best_score, self.best_epoch = reached, self.epochs_done

    def start(self) -> TrainState:
        """The state at step 0, with the train step compiled."""
        config, began = self.config, time.perf_counter()
        batch = batch_shape(self.splits.train, config.batch_size)
        with ThreadPoolExecutor(1) as other:
            other.submit(tensorflow)  # its import takes as long as the compilation
            state = self.devices.create_state(self.recipe, batch)
            self.train_step = self.devices.compile_train_step(self.recipe, state, batch, config.steps_per_execution)
            schedule = config.optimizer.learning_rates(self.total_steps)
            # Of every step, ahead: computed while training, each would wait for the device.
            self.learning_rates = np.asarray(
                jax.vmap(lambda step: jnp.float32(schedule(step)))(jnp.arange(self.total_steps))
            )
            self.compile_seconds = time.perf_counter() - began
        return state

    def restore(self, state: TrainState) -> TrainState:
        """The state of the newest checkpoint, and what was noted with it; or the state as it is."""
        if self.checkpoints is None or not self.checkpoints.saved:
            return state
        step = self.checkpoints.find("last").step
        notes = self.checkpoints.notes(step)
        changed = differences({name: notes[name] for name in self.data}, self.data)
        if changed:
            raise UserError(
                "the data is not what this run began with; put it back, or name another --workdir:", changed
            )
        for name in NOTED:
            setattr(self, name, notes[name])
        return self.checkpoints.restore(step, state)

    def fit_epoch(self, state: TrainState, epoch: int, feed: Iterator[Batch]) -> TrainState:
        """The steps of an epoch, whose batches `feed` has next, logging as they go."""
        first, last = epoch * self.steps_per_epoch, (epoch + 1) * self.steps_per_epoch
        began = Interval(first, 0, {}, time.perf_counter(), self.data_wait_seconds)
        previous, pending = began, deque[Future[Interval]]()
        with ThreadPoolExecutor(1) as fetcher:
            groups = executions(first, last, self.steps_per_epoch, self.config.steps_per_execution)
            for steps, batches in zip(groups, self.waited_for(feed), strict=False):  # nothing is taken behind the last
                step = steps.stop
                state = self.execute(steps, state, batches)
                self.on_step(step, epoch)
                if step // self.config.log_every > steps.start // self.config.log_every or step == last:
                    pending.append(fetcher.submit(self.fetch, step, state.interval_stats, self.data_wait_seconds))
                    state = state.replace(interval_stats=self.zero(state.interval_stats))
                # Fetched aside and written one interval late, so that logging never stalls the device.
                while len(pending) > (step < last):
                    previous = self.log(pending.popleft().result(), previous)
        self.train_seconds += previous.finished - began.finished
        self.latest["train"] = self.report("train", epoch, summarize(self.recipe, state.epoch_stats))
        return state

    def execute(self, steps: range, state: TrainState, batches: Batch) -> TrainState:
        """One call of the train step."""
        if self.profiler is None:
            return self.train_step(state, batches, len(steps))
        self.profiler.before(steps, state)
        state = self.train_step(state, batches, len(steps))
        self.profiler.after(steps, state)
        return state

    def fetch(self, step: int, stats: Any, data_wait: float) -> Interval:
        """The values of an interval, when the device has them."""
        images = int(stats["loss"]["count"])
        return Interval(step, images, summarize(self.recipe, stats), time.perf_counter(), data_wait)

    def waited_for(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """The batches; how long they were waited for is added up."""
        batches = iter(batches)
        while True:
            began = time.perf_counter()
            batch = next(batches, None)
            self.data_wait_seconds += time.perf_counter() - began
            if batch is None:
                return
            yield batch

    def batches(self, first: int, last: int) -> Iterator[Batch]:
        """The batches of steps `first` to `last`, excluded, as many together as an execution takes."""
        config = self.config
        return train_batches(
            self.splits.train, batch_size=config.batch_size, remainder=config.remainder,
            seed=config.seed, start=first, stop=last, rows=self.devices.rows(config.batch_size),
            together=config.steps_per_execution,
        )  # fmt: skip

    def log(self, interval: Interval, previous: Interval) -> Interval:
        """Write an interval, and give it back; raises NonFiniteError when its loss is not a number."""
        values = scalars(interval.values) | {
            "learning_rate": float(self.learning_rates[interval.step - 1]),
            "images_per_second": interval.images / (interval.finished - previous.finished),
            "data_wait_seconds": interval.data_wait - previous.data_wait,
        }
        self.write(Record(interval.step, interval.step / self.steps_per_epoch, "train", "interval", values))
        if not math.isfinite(values["loss"]):
            raise NonFiniteError(
                f"training is no longer finite at step {interval.step}: loss {values['loss']}, gradient norm "
                f"{values.get('gradient_norm', math.nan):.4g}, learning rate {values['learning_rate']:.4g}\n"
                "try a lower --optimizer.learning-rate, or --optimizer.clip-norm 1"
            )
        return interval

    def evaluate_epoch(self, state: TrainState, epoch: int) -> None:
        """Evaluate after an epoch: the curve's split and, where asked for, the whole training set."""
        splits = dict(self.splits.items())
        shown = {"train_full": splits["train"]} if self.config.evaluate_train else {}
        for name, split in (shown | {self.curve_split: splits[self.curve_split]}).items():
            if split is not None:
                self.latest[name] = self.report(name, epoch, self.evaluate(state, split))

    def evaluate(self, state: TrainState, split: Split) -> dict[str, float]:
        """Loss and metrics of a split, with the running mean of the parameters where there is one."""
        batch_size = self.config.eval_batch_size
        return evaluate(self.recipe, self.devices, self.eval_step, variables_of(state), split, batch_size).values

    def report(self, split: str, epoch: int, values: dict[str, float]) -> dict[str, float]:
        """Write the values of a split after an epoch, those that are numbers, and give them back."""
        values = scalars(values)
        self.write(Record((epoch + 1) * self.steps_per_epoch, epoch + 1, split, "epoch", values))
        return values

    def save(self, state: TrainState) -> None:
        """Checkpoint after an epoch. Only validation may choose the best: without it nothing is chosen."""
        if self.checkpoints is None:
            return
        metrics = {} if self.splits.validation is None else self.latest["validation"]
        notes = self.data | {name: getattr(self, name) for name in NOTED}
        self.checkpoints.save(self.steps_done, state, metrics, notes)

    def zero(self, stats: Any) -> Any:
        """Stats of nothing, shaped and placed like these."""
        return self.devices.replicate(jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), stats))


def scalars(values: dict[str, Any]) -> dict[str, float]:
    """The values that are numbers. A metric may give arrays too, which have no place in a line."""
    return {name: float(value) for name, value in values.items() if np.ndim(value) == 0}


def recipe_of(config: Config, total_steps: int) -> Recipe:
    """What a step of a config does."""
    return Recipe(
        model=config.model,
        loss=config.loss,
        metrics=config.metrics,
        transformation=config.optimizer.build(total_steps),
        augment=config.augment,
        mixup=config.mixup,
        ema_decay=config.ema_decay,
        gradient_accumulation=config.gradient_accumulation,
        norm_every=min(config.log_every, NORM_EVERY),
        seed=config.seed,
    )


def balanced(split: Split) -> tuple[float, ...]:
    """Weights by which every class adds as much to the gradient as any other; their mean over images is 1."""
    counts = np.bincount(split.labels, minlength=len(split.class_names))
    present = np.count_nonzero(counts)
    return tuple(len(split) / (present * max(int(count), 1)) for count in counts)
