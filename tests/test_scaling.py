"""Several processes train as one does: each reads its share of every batch, and the numbers are the same."""

import numpy as np
import pytest

from jaxclf.devices import Devices
from jaxclf.pipeline import eval_batches, train_batches
from jaxclf.types import Batch, Split

N = 23
SPLIT = Split(np.arange(N, dtype=np.uint8).reshape(N, 1, 1, 1), np.arange(N, dtype=np.int32), ("x",) * N)
SHARES = (np.array([0, 1, 6, 7]), np.array([2, 3, 4, 5, 8, 9]))  # of a batch of ten


def training(rows=None):
    return train_batches(SPLIT, batch_size=10, remainder="pad", seed=0, start=0, stop=6, rows=rows)


def evaluation(rows=None):
    return eval_batches(SPLIT, 10, rows)


@pytest.mark.parametrize("feed", [training, evaluation])
def test_shares_put_together_are_the_batch(feed):
    for whole, *parts in zip(feed(), *map(feed, SHARES), strict=True):
        together = Batch(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))
        places = np.argsort(np.concatenate(SHARES))
        for a, b in zip(whole, together, strict=True):
            np.testing.assert_array_equal(a, b[places])


def test_one_process_holds_every_row():
    np.testing.assert_array_equal(Devices.all().rows(12), np.arange(12))
