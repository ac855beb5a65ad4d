"""Sampled methods with a tolerance: each example stops when its own standard errors are small enough."""

import dataclasses
from functools import cache

import jax
import numpy as np
import pytest
from support.networks import draw_variables
from support.saliency import limited

from jaxclf import saliency
from jaxclf.errors import UserError
from jaxclf.models import Mlp

MODEL = Mlp((20,), 4)
SCALES = np.float32([0.01, 0.1, 0.3, 0.5, 0.7, 0.9, 1]).reshape(7, 1, 1, 1)
IMAGES = np.random.default_rng(0).random((7, 6, 6, 1), np.float32) * SCALES
KEYS = jax.random.split(jax.random.key(1), 7)
METHODS = {
    "rise": saliency.Rise(samples=120, grid=3),
    "rise, all classes": saliency.all_classes(saliency.Rise(samples=100, grid=3, score="probability")),
    "smooth": saliency.SmoothGrad(samples=120, noise_scale="absolute"),
    "smooth, in pairs": saliency.SmoothGrad(samples=90, noise_scale="absolute", antithetic=True),
    "squared": saliency.SmoothGradSquared(samples=120, noise_scale="absolute"),
    "variance": saliency.VarGrad(samples=120, noise_scale="absolute"),
    "expected": saliency.ExpectedGradients(samples=120),
}


@pytest.fixture(params=METHODS)
def method(request):
    return limit(METHODS[request.param])


@cache
def limit(method):
    """The method with a tolerance that about half of the maps meet with 48 samples."""
    if method.every_class:
        return saliency.all_classes(limit(method.method))
    errors = np.sort(measure(explain(dataclasses.replace(method, samples=48))))
    # Between two errors: at one of them rounding would decide.
    return dataclasses.replace(method, tolerance=float(errors[3:5].mean()))


@cache
def explain(method, rows=tuple(range(7))):
    rows, references = np.array(rows), np.random.default_rng(2).random((5, 6, 6, 1), np.float32)
    variables = draw_variables(MODEL, IMAGES.shape)
    return method(MODEL, variables, IMAGES[rows], key=KEYS[rows], baseline=references if method.references else None)


def measure(a):
    """The largest standard error of each map relative to its largest absolute value."""
    axes = tuple(range(a.score.ndim, a.values.ndim))
    return np.asarray(a.stderr.max(axes) / np.abs(a.values).max(axes))


def get_settings(method):
    return method.method if method.every_class else method


def test_standard_errors_are_within_the_tolerance_or_all_samples_are_taken(method):
    a, settings = explain(method), get_settings(method)
    most = settings.samples + 1 + (5 if method.references else 0)
    assert ((measure(a) <= settings.tolerance) | (np.asarray(a.evaluations) == most)).all()
    assert a.evaluations.max() <= most
    assert a.evaluations.min() < a.evaluations.max()


@pytest.mark.parametrize("rows", [(3,), (6, 0, 4)], ids=str)
def test_an_example_stops_where_it_would_alone(method, rows):
    whole, part = explain(method), explain(method, rows)
    np.testing.assert_array_equal(part.evaluations, whole.evaluations[np.array(rows)])
    few = explain(limited(method, 4))  # as many rows in one call, which makes groups and parts of the batch
    np.testing.assert_array_equal(few.evaluations, whole.evaluations)
    for a, expected in ((part, jax.tree.map(lambda x: x[np.array(rows)], whole)), (few, whole)):
        for x, y in ((a.values, expected.values), (a.stderr, expected.stderr)):
            np.testing.assert_allclose(x, y, atol=1e-5 * np.abs(y).max(), rtol=0)


@pytest.mark.parametrize("name", ["rise", "smooth", "smooth, in pairs", "squared", "variance"])
def test_values_are_those_of_as_many_samples(name):
    method = limit(METHODS[name])
    a = explain(method)
    for row in (0, 4, 6):
        taken = int(a.evaluations[row]) - 1
        fixed = explain(dataclasses.replace(method, samples=taken, tolerance=None), (row,))
        for x, y in ((a.values[row], fixed.values[0]), (a.stderr[row], fixed.stderr[0])):
            np.testing.assert_allclose(x, y, atol=2e-6 * np.abs(fixed.values).max(), rtol=0)


def test_expected_gradients_that_stop_early_have_places_on_the_whole_path():
    """Of x^2 on the way from 0 they are x^2; the first of 10,000 places in order would be near 0."""
    method = saliency.ExpectedGradients(samples=10_000, tolerance=0.02)
    images = np.ones((20, 1), np.float32)
    a = method(lambda _, images: images**2, {}, images, key=jax.random.key(0))
    assert a.evaluations.max() < 3_000
    np.testing.assert_allclose(a.values, 1, atol=4 * 0.02)


def test_a_method_with_a_tolerance_in_one_with_a_tolerance():
    inner = saliency.ExpectedGradients(samples=18, tolerance=0.12)
    a = explain(saliency.SmoothGrad(inner, samples=3, tolerance=1e-9))
    assert np.isfinite(a.values).all()
    assert (a.evaluations >= 3 * (16 + 6) + 1).all()
    assert (a.evaluations <= 3 * (18 + 6) + 1).all()


def test_a_map_of_zeros_is_done_at_once():
    a = saliency.SmoothGrad(samples=100, tolerance=0.1)(lambda _, images: 0 * images, {}, IMAGES[:, :, 0, 0], key=KEYS)
    np.testing.assert_array_equal(a.values, 0)
    np.testing.assert_array_equal(a.evaluations, 17)


@pytest.mark.parametrize("kind", [saliency.Rise, saliency.VarGrad, saliency.ExpectedGradients])
def test_a_tolerance_is_positive(kind):
    with pytest.raises(UserError, match="expected more than 0, or None"):
        kind(tolerance=0.0)
