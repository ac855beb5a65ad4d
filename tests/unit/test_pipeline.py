"""Batch k of a run is a pure function of (seed, k), and nothing is left out or seen twice."""

import signal
import threading
import traceback

import numpy as np
import pytest

from jaxclf.errors import UserError
from jaxclf.training.pipeline import AT_ONCE, count_steps_per_epoch, read_eval_batches, read_train_batches
from jaxclf.types import Split

N = 23
SPLIT = Split(np.arange(N, dtype=np.uint8).reshape(N, 1, 1, 1), np.arange(N, dtype=np.int32), ("x",) * N)


def feed(start=0, stop=12, batch_size=5, remainder="pad", seed=0, split=SPLIT):
    return list(
        read_train_batches(split, batch_size=batch_size, remainder=remainder, seed=seed, start=start, stop=stop)
    )


def seen(batches):
    return np.concatenate([batch.labels[batch.mask] for batch in batches])


@pytest.mark.parametrize("start", [1, 4, 5, 9])
def test_a_run_that_starts_later_sees_the_same_batches(start):
    for whole, late in zip(feed()[start:], feed(start=start), strict=True):
        for a, b in zip(whole, late, strict=True):
            np.testing.assert_array_equal(a, b)


def test_images_and_labels_stay_together():
    for batch in feed():
        np.testing.assert_array_equal(batch.images[:, 0, 0, 0], batch.labels)
        assert batch.images.dtype == np.uint8


@pytest.mark.parametrize("batch_size", [1, 5, 23, 30])
def test_padding_shows_every_example_once_an_epoch(batch_size):
    steps = count_steps_per_epoch(N, batch_size, "pad")
    epochs = feed(stop=3 * steps, batch_size=batch_size)
    for epoch in range(3):
        assert sorted(seen(epochs[epoch * steps : (epoch + 1) * steps])) == list(range(N))


def test_dropping_leaves_out_the_rest_and_repeats_nothing():
    epoch = feed(stop=4, remainder="drop")
    assert all(batch.mask.all() for batch in epoch)
    assert len(set(seen(epoch).tolist())) == 20


def test_epochs_and_seeds_have_orders_of_their_own():
    first, second, other = seen(feed(0, 5)), seen(feed(5, 10)), seen(feed(0, 5, seed=1))
    for order in (second, other, np.arange(N)):
        assert (first != order).any()


def test_where_an_example_comes_is_uniform():
    # 2,000 epochs: how often each example comes first has a chi-square with N - 1 degrees of freedom.
    first = [batch.labels[0] for batch in feed(stop=2_000, batch_size=N)]
    counts = np.bincount(first, minlength=N)
    chi_square = np.sum((counts - len(first) / N) ** 2 / (len(first) / N))
    assert chi_square < (N - 1) + 5 * np.sqrt(2 * (N - 1))


@pytest.mark.parametrize("batch_size", [1, 7, 23, 100])
def test_evaluation_sees_every_example_once_in_order(batch_size):
    batches = list(read_eval_batches(SPLIT, batch_size))
    np.testing.assert_array_equal(seen(batches), np.arange(N))
    assert {batch.images.shape for batch in batches} == {(batch_size, 1, 1, 1)}


def test_evaluation_reads_ahead_a_little_and_no_more_once_it_is_left():
    read = []

    class Source:
        shape = SPLIT.images.shape

        def __getitem__(self, indices):
            read.append(indices[0])
            return SPLIT.images[indices]

    batches = read_eval_batches(Split(Source(), SPLIT.labels, SPLIT.class_names), 1)
    assert next(batches).labels == [0]
    batches.close()
    assert sorted(read) == list(range(len(read)))
    assert len(read) <= AT_ONCE + 1


@pytest.mark.parametrize(("remainder", "steps"), [("pad", 430), ("drop", 429)])
def test_documented_steps_of_an_epoch(remainder, steps):
    assert count_steps_per_epoch(55_000, 128, remainder) == steps


def test_a_batch_larger_than_the_data_names_the_fix():
    with pytest.raises(UserError, match=r"batch_size=24 is more than the 23 training images.*remainder"):
        count_steps_per_epoch(N, 24, "drop")


def test_images_may_be_read_on_demand():
    class Source:
        shape = SPLIT.images.shape

        def __getitem__(self, indices):
            return SPLIT.images[indices]

    demanded = Split(Source(), SPLIT.labels, SPLIT.class_names)
    for a, b in zip(feed(split=demanded), feed(), strict=True):
        np.testing.assert_array_equal(a.images, b.images)


def test_mapped_files_are_not_copied(tmp_path):
    images = np.lib.format.open_memmap(tmp_path / "images.npy", "w+", np.uint8, (100, 1, 1, 1))
    images[:] = np.arange(100).reshape(-1, 1, 1, 1)
    split = Split(images, np.arange(100, dtype=np.int32), ("x",) * 100)
    batches = read_train_batches(split, batch_size=1, remainder="drop", seed=0, start=0, stop=100)
    first = next(batches)
    np.testing.assert_array_equal(first.images[:, 0, 0, 0], first.labels)
    images[:] = 255  # is seen by the batches that have not been read ahead
    assert [batch.images.item() for batch in batches][-1] == 255


def test_a_few_batches_are_those_of_the_whole_epoch():
    """They are read without a copy of all images."""
    for a, b in zip(feed(stop=1), feed(), strict=False):
        np.testing.assert_array_equal(a.images, b.images)
        np.testing.assert_array_equal(a.labels, b.labels)


class Interrupting:
    """Images whose reading, in a thread of TensorFlow, is met by a Ctrl-C."""

    shape = SPLIT.images.shape

    def __getitem__(self, indices):
        if threading.current_thread() is not threading.main_thread():
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
        return SPLIT.images[indices]


INTERRUPTED = Split(Interrupting(), SPLIT.labels, SPLIT.class_names)


def test_ctrl_c_is_answered_outside_tensorflow():
    with pytest.raises(KeyboardInterrupt) as interrupt:
        feed(stop=1, split=INTERRUPTED)
    assert not [frame for frame in traceback.extract_tb(interrupt.tb) if "tensorflow" in frame.filename]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_handler_of_the_user_is_left_alone():
    came = []
    before = signal.signal(signal.SIGINT, lambda *_: came.append(True))
    try:
        assert len(feed(stop=1, split=INTERRUPTED)) == 1
    finally:
        signal.signal(signal.SIGINT, before)
    assert came
