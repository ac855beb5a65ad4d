"""Metrics: any split of the data into batches agrees, and padding counts for nothing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.components import METRICS

from jaxclf.metrics import Accuracy, Confusion, TopK

N, CLASSES = 101, 7
RANDOM = np.random.default_rng(0)
# Rounded, so that logits tie; labels at random, so that there are mistakes of every kind.
LOGITS = jnp.asarray(np.round(RANDOM.normal(size=(N, CLASSES)), 1), jnp.float32)
LABELS = jnp.asarray(RANDOM.integers(0, CLASSES, N), jnp.int32)


@pytest.fixture(params=METRICS, ids=repr)
def metric(request):
    return request.param


def in_batches(metric, size):
    """Added up over padded batches, the padding filled with what would be right answers."""
    total = None
    for start in range(0, N, size):
        rows = np.arange(start, start + size)
        mask, rows = jnp.asarray(rows < N), np.minimum(rows, N - 1)
        logits = jnp.where(mask[:, None], LOGITS[rows], 9 * jax.nn.one_hot(LABELS[rows], CLASSES))
        stats = metric.stats(logits, LABELS[rows], mask)
        total = stats if total is None else jax.tree.map(jnp.add, total, stats)
    return metric.compute(total)


@pytest.mark.parametrize("size", [1, 7, 32, 100, 128])
def test_any_batch_size_gives_the_same(metric, size):
    whole = metric.compute(metric.stats(LOGITS, LABELS, jnp.ones(N, bool)))
    jax.tree.map(np.testing.assert_array_equal, in_batches(metric, size), whole)


def test_accuracy_and_top_k_against_numpy():
    order = np.argsort(-np.asarray(LOGITS), axis=1, kind="stable")
    hits = order == np.asarray(LABELS)[:, None]
    everything = jnp.ones(N, bool)
    accuracy = Accuracy().compute(Accuracy().stats(LOGITS, LABELS, everything))
    assert accuracy == {"accuracy": np.count_nonzero(hits[:, 0]) / N}
    top = TopK(k=2).compute(TopK(k=2).stats(LOGITS, LABELS, everything))
    assert top == {"top_2_accuracy": np.count_nonzero(hits[:, :2]) / N}


def test_confusion_against_a_count_by_hand():
    counts = np.zeros((CLASSES, CLASSES), int)
    for label, found in zip(LABELS, np.argmax(LOGITS, axis=1), strict=True):
        counts[label, found] += 1
    values = Confusion().compute(Confusion().stats(LOGITS, LABELS, jnp.ones(N, bool)))
    np.testing.assert_array_equal(values["confusion_matrix"], counts)
    np.testing.assert_allclose(values["per_class_accuracy"], np.diag(counts) / counts.sum(axis=1))


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int64])
def test_any_integer_labels_count_alike(metric, dtype):
    logits = np.asarray(jax.nn.one_hot(jnp.arange(27), 27))
    stats = metric.stats(logits, np.arange(27, dtype=dtype), np.ones(27, bool))
    expected = metric.stats(logits, np.arange(27, dtype=np.int32), np.ones(27, bool))
    jax.tree.map(np.testing.assert_array_equal, stats, expected)


def test_a_class_without_examples_has_no_accuracy():
    stats = Confusion().stats(LOGITS[:1], jnp.array([3]), jnp.ones(1, bool))
    assert np.isnan(Confusion().compute(stats)["per_class_accuracy"][[0, 1, 2, 4, 5, 6]]).all()


def test_soft_labels_count_as_their_largest(metric):
    everything = jnp.ones(N, bool)
    soft = 0.6 * jax.nn.one_hot(LABELS, CLASSES) + 0.4 / CLASSES
    jax.tree.map(
        np.testing.assert_array_equal,
        metric.stats(LOGITS, soft, everything),
        metric.stats(LOGITS, LABELS, everything),
    )


@settings(deadline=None)
@given(label=st.integers(0, 2), bad=st.sampled_from([np.nan, np.inf]), place=st.integers(0, 2))
def test_logits_that_are_not_finite_are_never_right(label, bad, place):
    logits = jnp.zeros((1, 3)).at[0, place].set(bad)
    assert int(Accuracy().stats(logits, jnp.array([label]), jnp.ones(1, bool))["sum"]) == 0


def test_nothing_has_no_accuracy():
    assert np.isnan(Accuracy().compute(Accuracy().stats(LOGITS, LABELS, jnp.zeros(N, bool)))["accuracy"])
