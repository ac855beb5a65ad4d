"""The input pipeline of tf.data. Batch k is a pure function of (seed, k), so there is no iterator to save.

Images stay as they are stored (uint8) until they are on the device. TensorFlow never uses an accelerator.
"""

from __future__ import annotations

import gc
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from typing import Any

import jax
import numpy as np
from jaxtyping import Integer

from jaxclf.errors import UserError
from jaxclf.types import Batch, Remainder, Split

AT_ONCE = 4  # batches prepared in parallel
Rows = Integer[np.ndarray, " rows"]


@cache
def import_tensorflow() -> Any:
    """Import TensorFlow on first use, which takes seconds, and hide all accelerators from it."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")  # its banner ignores the log level
    with _disable_gc():  # garbage collection would take a sixth of the import (docs/log.md)
        import tensorflow as tf

    tf.config.set_visible_devices([], "GPU")
    tf.config.set_visible_devices([], "TPU")
    return tf


@contextmanager
def _disable_gc() -> Iterator[None]:
    """Disable garbage collection inside the block."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


def count_steps_per_epoch(examples: int, batch_size: int, remainder: Remainder) -> int:
    """Return the number of batches of an epoch; the last partial one is dropped or padded."""
    steps = examples // batch_size if remainder == "drop" else -(-examples // batch_size)
    if steps == 0:
        raise UserError(
            f"batch_size={batch_size} is more than the {examples} training images; "
            "make it smaller, or set remainder to pad"
        )
    return steps


def group_steps(start: int, stop: int, steps: int, together: int) -> list[range]:
    """Return the steps `start` to `stop` (excluded) in groups of `together`; a group ends with its epoch of `steps`."""
    found = []
    while start < stop:
        end = min(start - start % steps + steps, stop)
        found += [range(first, min(first + together, end)) for first in range(start, end, together)]
        start = end
    return found


def read_train_batches(
    split: Split,
    *,
    batch_size: int,
    remainder: Remainder,
    seed: int,
    start: int,
    stop: int,
    rows: Rows | None = None,
    together: int | None = None,
    only_indices: bool = False,
) -> Iterator[Batch]:
    """Yield the batches of some steps of a run. Every epoch has an order of its own.

    Args:
        split: The training images.
        batch_size: Rows of a batch; those beyond the end of an epoch are padding.
        remainder: "drop" or "pad" the last partial batch of an epoch.
        seed: The seed of the order.
        start: The first step.
        stop: The last step, excluded.
        rows: Positions in the batch of the rows to read, where other processes read the others; by default all.
        together: Yield the batches of each group of `group_steps` as one, [together, rows, ...]. A shorter group
            repeats its last batch.
        only_indices: Yield the indices of the examples in the split in place of their images, and no labels.
    """
    tf = import_tensorflow()
    examples, steps = len(split), count_steps_per_epoch(len(split), batch_size, remainder)
    places = tf.constant(np.arange(batch_size) if rows is None else rows, tf.int64)

    def order(step):
        epoch = step // steps
        step_of_epoch = tf.minimum(step % steps + tf.range(together or 1, dtype=tf.int64), steps - 1)
        positions = tf.reshape(step_of_epoch[:, None] * batch_size + places, [-1])
        # index_shuffle gives neighbouring seeds like orders, so the seed is mixed first (docs/log.md). A batch stays
        # within its epoch, so one seed serves it: TF 2.21 mis-pads a vector of seeds.
        mixed = tf.random.stateless_uniform(
            [2], [tf.constant(seed, tf.int64), epoch], None, None, tf.int64, alg="philox"
        )
        indices = tf.random.experimental.index_shuffle(tf.minimum(positions, examples - 1), mixed, examples - 1)
        return indices, positions < examples

    firsts = np.array([some[0] for some in group_steps(start, stop, steps, together or 1)], np.int64)
    worth_copying = 2 * (stop - start) * batch_size >= examples
    batches = _fetch(tf.data.Dataset.from_tensor_slices(firsts), order, None if only_indices else split, worth_copying)
    if together is None:
        return batches
    return (jax.tree.map(lambda x: x.reshape(together, len(places), *x.shape[1:]), joined) for joined in batches)


def read_eval_batches(split: Split, batch_size: int, rows: Rows | None = None) -> Iterator[Batch]:
    """Yield every example once, in order; the last batch is padded to `batch_size` rows.

    Nothing is shuffled, so TensorFlow is not needed: evaluation starts seconds earlier. `rows` as in
    `read_train_batches`.
    """
    places = np.arange(batch_size) if rows is None else rows

    def batch(step: int) -> Batch:
        positions = step * batch_size + places
        indices = np.minimum(positions, len(split) - 1)
        return Batch(split.images[indices], split.labels[indices], positions < len(split))

    return _prefetch(batch, count_steps_per_epoch(len(split), batch_size, "pad"))


def _prefetch(make: Callable[[int], Batch], steps: int) -> Iterator[Batch]:
    """Yield the batches of steps 0, 1, ... in order; threads prepare the next ones meanwhile."""
    pool, pending = ThreadPoolExecutor(AT_ONCE), deque[Future[Batch]]()
    try:
        for step in range(steps):
            pending.append(pool.submit(make, step))
            if len(pending) > AT_ONCE:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _fetch(steps: Any, order: Callable, split: Split | None, worth_copying: bool) -> Iterator[Batch]:
    """Yield the batches of steps, fetched ahead.

    Args:
        steps: A dataset of steps.
        order: Gives the indices and the mask of a step.
        split: What they are the indices of, or None to yield the indices.
        worth_copying: Whether the steps read about as many images as TensorFlow would copy.
    """
    tf = import_tensorflow()
    failures: list[Exception] = []
    gather = (
        (lambda indices: (tf.cast(indices, tf.int32), ())) if split is None else _gather(split, failures, worth_copying)
    )
    weights = () if split is None or split.sample_weight is None else (tf.constant(split.sample_weight),)

    @tf.autograph.experimental.do_not_convert
    def batch(step):
        indices, mask = order(step)
        return *gather(indices), mask, *(tf.gather(each, indices) for each in weights)

    options = tf.data.Options()
    options.autotune.enabled = False  # its thread sleeps up to a minute, and the end of a feed waits for it
    batches = steps.map(batch, num_parallel_calls=AT_ONCE, deterministic=True).prefetch(2).with_options(options)
    return _defer_interrupts((Batch(*arrays) for arrays in batches.as_numpy_iterator()), failures)


def _defer_interrupts(batches: Iterator[Batch], failures: list[Exception]) -> Iterator[Batch]:
    """Yield the same batches, and let Ctrl-C through between them: inside TensorFlow it can crash (docs/log.md).

    An error of the image source is raised as it was, not as TensorFlow reports it.
    """
    while True:
        with _hold_interrupt():
            batch = next(batches, None)
        if failures:
            raise failures[0]
        if batch is None:
            return
        yield batch


@contextmanager
def _hold_interrupt() -> Iterator[None]:
    """Raise the KeyboardInterrupt of a Ctrl-C inside the block at its end."""
    in_main_thread = threading.current_thread() is threading.main_thread()
    if not in_main_thread or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield  # nothing would be raised here
        return
    came = []
    signal.signal(signal.SIGINT, lambda *_: came.append(True))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if came:
        raise KeyboardInterrupt


def _gather(split: Split, failures: list[Exception], worth_copying: bool) -> Callable[[Any], tuple[Any, Any]]:
    """Return a function that gathers images and labels: arrays within TensorFlow, twice as fast, others in Python.

    TensorFlow copies arrays, so a few images of an array, and memory-mapped files, which may be larger than the memory,
    are read in Python.
    """
    tf = import_tensorflow()
    if worth_copying and isinstance(split.images, np.ndarray) and not isinstance(split.images, np.memmap):
        images, labels = tf.constant(split.images), tf.constant(split.labels)
        return lambda indices: (tf.gather(images, indices), tf.gather(labels, indices))
    dtypes = [split.images[:1].dtype, split.labels.dtype]

    def read(indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        try:
            return split.images[indices], split.labels[indices]
        except Exception as error:  # raised outside: TensorFlow would print pages about it
            failures.append(error)
            return np.zeros((len(indices), *split.images.shape[1:]), dtypes[0]), split.labels[indices]

    return lambda indices: tuple(tf.numpy_function(read, [indices], dtypes, stateful=False))
