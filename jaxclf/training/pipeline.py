"""tf.data feeds training by address: batch k is a pure function of (seed, k), so there is no iterator to save.

Images stay as they are stored (uint8) until they are on the device. TensorFlow never sees an accelerator.
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

import numpy as np
from jaxtyping import Integer

from jaxclf.errors import UserError
from jaxclf.types import Batch, Remainder, Split

AT_ONCE = 4  # batches made side by side
Rows = Integer[np.ndarray, " rows"]


@cache
def tensorflow() -> Any:
    """TensorFlow, imported on first use (seconds) and kept off every accelerator."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")  # its banner ignores the log level
    with _garbage_kept():  # a sixth of the import would go into looking for some (docs/log.md)
        import tensorflow as tf

    tf.config.set_visible_devices([], "GPU")
    tf.config.set_visible_devices([], "TPU")
    return tf


@contextmanager
def _garbage_kept() -> Iterator[None]:
    """Inside the block nothing is looked for that only refers to itself."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


def steps_per_epoch(examples: int, batch_size: int, remainder: Remainder) -> int:
    """Batches of an epoch, the short one at its end dropped or padded."""
    steps = examples // batch_size if remainder == "drop" else -(-examples // batch_size)
    if steps == 0:
        raise UserError(
            f"batch_size={batch_size} is more than the {examples} training images; "
            "make it smaller, or set remainder to pad"
        )
    return steps


def executions(start: int, stop: int, steps: int, together: int) -> list[range]:
    """The steps `start` to `stop` (excluded) in groups of `together`, shorter ones at the ends of epochs of `steps`."""
    found = []
    while start < stop:
        end = min(start - start % steps + steps, stop)
        found += [range(first, min(first + together, end)) for first in range(start, end, together)]
        start = end
    return found


def train_batches(
    split: Split,
    *,
    batch_size: int,
    remainder: Remainder,
    seed: int,
    start: int,
    stop: int,
    rows: Rows | None = None,
    together: int | None = None,
) -> Iterator[Batch]:
    """The batches of steps `start` to `stop` (excluded) of a run, every epoch in an order of its own.

    Each has `batch_size` rows; those beyond the end of an epoch are padding. `rows` are the places in the batch of
    those to read, where the others are read elsewhere: by default all of them. With `together` the batches of each of
    `executions` come as one, [together, rows, ...]; behind its last one that is repeated.
    """
    tf = tensorflow()
    examples, steps = len(split), steps_per_epoch(len(split), batch_size, remainder)
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

    firsts = np.array([some[0] for some in executions(start, stop, steps, together or 1)], np.int64)
    batches = _fetch(tf.data.Dataset.from_tensor_slices(firsts), order, split)
    if together is None:
        return batches
    return (Batch(*(x.reshape(together, len(places), *x.shape[1:]) for x in joined)) for joined in batches)


def eval_batches(split: Split, batch_size: int, rows: Rows | None = None) -> Iterator[Batch]:
    """Every example once, in order; the last batch is padded to `batch_size` rows. `rows` as in `train_batches`.

    Nothing is shuffled, so it needs no TensorFlow: eval.py starts seconds earlier.
    """
    places = np.arange(batch_size) if rows is None else rows

    def batch(step: int) -> Batch:
        positions = step * batch_size + places
        indices = np.minimum(positions, len(split) - 1)
        return Batch(split.images[indices], split.labels[indices], positions < len(split))

    return _ahead(batch, steps_per_epoch(len(split), batch_size, "pad"))


def _ahead(make: Callable[[int], Batch], steps: int) -> Iterator[Batch]:
    """The batches of steps 0, 1, ... in order, the next ones made by threads meanwhile."""
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


def _fetch(steps: Any, order: Callable, split: Split) -> Iterator[Batch]:
    """The batches of steps, ahead of their use. `order` gives the indices and the mask of a step."""
    tf = tensorflow()
    failures: list[Exception] = []
    gather = _gather(split, failures)

    @tf.autograph.experimental.do_not_convert
    def batch(step):
        indices, mask = order(step)
        return *gather(indices), mask

    options = tf.data.Options()
    options.autotune.enabled = False  # its thread sleeps up to a minute, and the end of a feed waits for it
    batches = steps.map(batch, num_parallel_calls=AT_ONCE, deterministic=True).prefetch(2).with_options(options)
    return _uninterrupted(map(Batch._make, batches.as_numpy_iterator()), failures)


def _uninterrupted(batches: Iterator[Batch], failures: list[Exception]) -> Iterator[Batch]:
    """The same batches; Ctrl-C is answered between them: inside TensorFlow it can end in a crash (docs/log.md).

    An error of the image source is raised as it was, not as what TensorFlow makes of it.
    """
    while True:
        with _interrupt_held():
            batch = next(batches, None)
        if failures:
            raise failures[0]
        if batch is None:
            return
        yield batch


@contextmanager
def _interrupt_held() -> Iterator[None]:
    """Raise the KeyboardInterrupt of a Ctrl-C that comes inside the block at its end."""
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


def _gather(split: Split, failures: list[Exception]) -> Callable[[Any], tuple[Any, Any]]:
    """Images and labels by index: of an array within TensorFlow, twice as fast, of other sources through Python."""
    tf = tensorflow()
    if isinstance(split.images, np.ndarray):
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
