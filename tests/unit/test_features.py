"""Classifiers on features: folds, linear probes, nearest neighbors, and features on disk."""

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import log_softmax

from jaxclf.errors import UserError
from jaxclf.inference.features.cache import FeatureCache
from jaxclf.inference.features.folds import draw_folds
from jaxclf.inference.features.neighbors import find_neighbors
from jaxclf.inference.features.probe import TOLERANCE, fit_probes
from jaxclf.inference.features.selection import (
    PENALTIES,
    Labeled,
    Validation,
    check_nested,
    cross_validate,
    estimate_nested,
)
from jaxclf.inference.features.study import choose_neighbors, study_features, vote


def draw_data(random, n=90, width=8, classes=3, spread=1.0):
    """Features of classes that overlap."""
    labels = np.arange(n) % classes
    centers = random.normal(size=(classes, width))
    features = centers[labels] + spread * random.normal(size=(n, width))
    return Labeled(np.float32(features), labels, classes)


@pytest.mark.parametrize(("n", "width"), [(90, 8), (30, 50)])
def test_probes_minimize_the_loss(n, width, random):
    """Against scipy, in float64, for each penalty and subset."""
    data = draw_data(random, n, width)
    penalties = np.float32([1e-3, 0.1])
    used = random.random((2, n)) < 0.7
    probes = fit_probes(data.features, data.labels, 3, penalties, used)
    assert probes.gradient_norms.max() <= 2 * TOLERANCE

    def loss(flat, penalty, rows):
        kernel, bias = flat[: 3 * width].reshape(width, 3), flat[3 * width :]
        x, targets = np.float64(data.features[rows]), np.eye(3)[data.labels[rows]]
        logs = log_softmax(x @ kernel + bias, axis=1)
        error = (np.exp(logs) - targets) / len(x)
        gradient = np.concatenate([(x.T @ error + penalty * kernel).ravel(), error.sum(axis=0)])
        return -(targets * logs).sum() / len(x) + penalty / 2 * (kernel**2).sum(), gradient

    for i, (penalty, rows) in enumerate(zip(penalties, used, strict=True)):
        ours = np.concatenate([probes.kernels[i].ravel(), probes.biases[i]])
        best = minimize(loss, np.zeros(3 * width + 3), (penalty, rows), jac=True, tol=1e-10)
        assert loss(ours, penalty, rows)[0] == pytest.approx(best.fun, abs=1e-5)
        kernel = best.x[: 3 * width].reshape(width, 3)
        # Where the penalty is lowest, the loss is flat: a gradient of 1e-4 leaves the kernel 0.1 away at most.
        np.testing.assert_allclose(probes.kernels[i], kernel, atol=TOLERANCE / penalty)


def test_probes_do_not_depend_on_those_beside_them(random):
    data = draw_data(random)
    used = random.random((70, 90)) < 0.8  # more than are fitted together
    penalties = np.float32(np.logspace(-4, 0, 70))
    together = fit_probes(data.features, data.labels, 3, penalties, used)
    for i in (0, 40, 69):
        alone = fit_probes(data.features, data.labels, 3, penalties[i : i + 1], used[i : i + 1])
        np.testing.assert_allclose(together.kernels[i], alone.kernels[0], atol=1e-2 * np.abs(alone.kernels).max())


def test_features_that_are_moved_or_rotated_give_the_same_predictions(random):
    data = draw_data(random)
    rotation, _ = np.linalg.qr(random.normal(size=(8, 8)))
    moved = np.float32(data.features @ rotation + 3)
    used, penalties = np.ones((1, 90), bool), np.float32([1e-2])
    a = fit_probes(data.features, data.labels, 3, penalties, used).compute_logits(data.features)
    b = fit_probes(moved, data.labels, 3, penalties, used).compute_logits(moved)
    a, b = (logits - logits.mean(axis=2, keepdims=True) for logits in (a, b))
    np.testing.assert_allclose(a, b, atol=0.02)


def test_folds_are_even_and_drawn_by_the_seed(random):
    labels = random.integers(0, 4, 203)
    folds = draw_folds(labels, 5, 0)
    sizes = np.stack([np.bincount(folds[labels == label], minlength=5) for label in range(4)])
    assert np.ptp(sizes, axis=1).max() <= 1
    assert np.ptp(sizes.sum(axis=0)) <= 1
    np.testing.assert_array_equal(folds, draw_folds(labels, 5, 0))
    assert (folds != draw_folds(labels, 5, 1)).any()
    with pytest.raises(UserError, match="folds=5: expected 2 to 3, the number of images of the smallest class"):
        draw_folds(np.array([0] * 9 + [1] * 3), 5, 0)


def test_cross_validation_predicts_what_was_not_fitted(random):
    """Labels that are noise are predicted at chance, though probes with as many features fit them perfectly."""
    data = Labeled(np.float32(random.normal(size=(200, 300))), np.arange(200) % 2, 2)
    every = np.ones((1, 200), bool)
    fitted = fit_probes(data.features, data.labels, 2, PENALTIES[:1], every).compute_logits(data.features)[0]
    assert (fitted.argmax(axis=1) == data.labels).all()
    validation = cross_validate(data, draw_folds(data.labels, 5, 0))
    assert validation.accuracies.shape == validation.losses.shape == PENALTIES.shape
    assert abs(validation.accuracies - 0.5).max() < 4 * 0.5 / 200**0.5
    assert validation.losses.min() > 0.65  # of chance it is 0.693
    assert abs(estimate_nested(data, 4, 0).mean() - 0.5) < 4 * 0.5 / 200**0.5


def test_nested_folds_take_classes_with_as_many_images_as_folds(random):
    data = Labeled(random.normal(size=(9, 2)).astype(np.float32), np.repeat(np.arange(3), 3), 3)
    check_nested(data.labels, 3)
    assert estimate_nested(data, 3, 0).shape == (3,)


def test_the_penalty_has_the_lowest_loss():
    losses = np.linspace(2, 1, len(PENALTIES))
    losses[5] = 0.5
    assert Validation(losses, np.zeros_like(losses)).penalty == PENALTIES[5]


def test_neighbors_are_those_of_every_cosine(random):
    known, asked = random.normal(size=(50, 6)), random.normal(size=(1030, 6))
    found, cosines = find_neighbors(np.float32(known), np.float32(asked), 4)
    exact = (asked / np.linalg.norm(asked, axis=1)[:, None]) @ (known / np.linalg.norm(known, axis=1)[:, None]).T
    np.testing.assert_array_equal(found, np.argsort(-exact, axis=1)[:, :4])
    np.testing.assert_allclose(cosines, np.take_along_axis(exact, found, axis=1), atol=1e-6)


def test_votes_that_are_equal_go_to_the_nearest():
    train = Labeled(np.zeros((4, 1), np.float32), np.array([0, 1, 1, 2]), 3)
    assert vote(train, np.array([[3, 0], [0, 3], [0, 1], [0, 1]])).tolist() == [2, 0, 0, 0]
    assert vote(train, np.array([[0, 1, 2]])).tolist() == [1]


def test_the_number_of_neighbors_is_chosen_without_the_example_itself(random):
    data = draw_data(random, spread=3.0)
    assert (
        choose_neighbors(data, np.ones(90, bool)) > 1
    )  # one neighbor would be right for every example, if it were itself


def test_a_study_learns_separable_classes(random):
    data = draw_data(random, n=120, spread=0.2)
    train, test = (Labeled(data.features[i::2], data.labels[i::2], 3) for i in (0, 1))
    study = study_features(train, test, folds=3, seeds=2)
    assert [each.test for each in study.seeds] == [1, 1]
    assert study.nested.tolist() == study.neighbors_nested.tolist() == [1, 1, 1]
    assert study.neighbors_test == 1
    assert list(study.curve) == [1, 2, 5, 10]
    assert study.curve[10].shape == (2,)


def test_rows_are_kept_by_digest_whatever_an_interrupted_process_left(tmp_path, random):
    features, digests = np.float32(random.normal(size=(5, 3))), [f"{i:064x}" for i in range(5)]
    cache = FeatureCache(tmp_path, 3)
    cache.append(digests[:2], features[:2])
    cache.append(digests[2:4], features[2:4])
    np.testing.assert_array_equal(FeatureCache(tmp_path, 3).read([digests[3], digests[0]]), features[[3, 0]])
    with cache.rows.open("ab") as rows:
        rows.write(b"part of a row")
    with cache.digests.open("a") as lines:
        lines.write(digests[4][:10])
    again = FeatureCache(tmp_path, 3)
    assert list(again.places) == digests[:4]
    again.append(digests[4:], features[4:])
    np.testing.assert_array_equal(FeatureCache(tmp_path, 3).read(digests), features)
