"""How much maps change nearby: on linear and quadratic scores in closed form, on networks against dense derivatives."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.networks import raise_biases
from support.saliency import traced_rows

from jaxclf import saliency
from jaxclf.errors import UserError
from jaxclf.models import Cnn, Mlp
from jaxclf.saliency import local_lipschitz, sensitivity_max

B, N = 4, 9
MODEL = Mlp(features=(6,), classes=3)
KEY = jax.random.key(5)
KEYS = jax.random.split(KEY, B)
MEASURES = {
    "sensitivity_max": sensitivity_max,
    "sampled": local_lipschitz,
    "exact": partial(local_lipschitz, exact=True, iterations=5),
}


def quadratic(variables, images):
    """x'Ax / 2 as the first of two logits: its gradient is Ax."""
    x = images.reshape(len(images), -1)
    return jnp.stack([jnp.sum(x @ variables["a"] * x, axis=1) / 2, jnp.zeros(len(x))], axis=1)


def linear(variables, images):
    return images.reshape(len(images), -1) @ variables["w"]


@pytest.fixture
def bowl(random):
    """A symmetric matrix, and images."""
    a = random.normal(size=(N, N)).astype(np.float32)
    return a + a.T, random.random((B, 3, 3, 1)).astype(np.float32)


@pytest.fixture(scope="module")
def variables():
    shaped = MODEL.init(jax.random.key(0), np.zeros((1, 3, 3, 1), np.uint8))
    return raise_biases(jax.tree.map(lambda x: x + jax.random.normal(jax.random.key(1), x.shape), shaped), 3.0)


def test_the_map_of_a_linear_score_does_not_move(random):
    variables = {"w": random.normal(size=(N, 2)).astype(np.float32)}
    images = random.random((B, N)).astype(np.float32)
    for measure in MEASURES.values():
        np.testing.assert_allclose(measure(saliency.Gradient(), linear, variables, images, key=KEY), 0, atol=1e-6)


def test_the_exact_constant_of_a_quadratic_score_bounds_every_sample(bowl):
    a, images = bowl
    norm = np.linalg.norm(a, 2)
    ask = partial(local_lipschitz, saliency.Gradient(), quadratic, {"a": a}, images, key=KEY, targets=0)
    np.testing.assert_allclose(ask(exact=True), norm, rtol=1e-4)
    least = np.abs(np.linalg.eigvalsh(a)).min()
    for samples in (1, 20):
        found = ask(samples=samples)
        assert np.all((found >= least * (1 - 1e-4)) & (found <= norm * (1 + 1e-4)))


def test_where_all_directions_are_alike_one_sample_is_exact(bowl):
    """The gradient is 3 x: every step is three times as long in the map, within three times the ball."""
    _, images = bowl
    variables, method, radius = {"a": 3 * np.eye(N, dtype=np.float32)}, saliency.Gradient(), 0.05
    ask = {"key": KEY, "targets": 0, "radius": radius, "samples": 1}
    np.testing.assert_allclose(local_lipschitz(method, quadratic, variables, images, **ask), 3, rtol=1e-4)
    moved = sensitivity_max(method, quadratic, variables, images, **ask) * np.sqrt((images**2).sum((1, 2, 3)))
    assert np.all((0.1 * radius * N**0.5 < moved) & (moved < radius * N**0.5))
    # Uniform in the ball: over many samples of one dimension the largest step is nearly its radius.
    one = sensitivity_max(
        method, quadratic, {"a": np.eye(1, dtype=np.float32)}, np.ones((B, 1), np.float32), **ask | {"samples": 200}
    )
    assert np.all((0.9 * radius < one) & (one <= radius * (1 + 1e-5)))


def test_more_samples_find_no_less(variables, bowl):
    for measure in (sensitivity_max, local_lipschitz):
        ask = partial(measure, saliency.Gradient(score="probability"), MODEL, variables, bowl[1], key=KEY)
        few, more, most = (np.asarray(ask(samples=samples)) for samples in (1, 4, 16))
        assert np.all((few <= more * (1 + 1e-4)) & (more <= most * (1 + 1e-4)))
        assert np.any(few < most)


METHODS = [
    saliency.Gradient(score="probability"),
    saliency.IntegratedGradients(steps=3, score="log_probability", max_rows=5),
    saliency.SmoothGrad(saliency.Gradient(score="probability"), samples=2, noise_scale="absolute"),
]


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_the_exact_constant_is_the_norm_of_the_dense_derivative(method, variables, bowl):
    """Of any method, its own draws held fixed; for the gradient that is the Hessian."""
    _, images = bowl
    targets = np.argmax(MODEL.apply(variables, images), axis=1)

    def one(image, target, key):
        return method(MODEL, variables, image[None], target[None], key=key[None]).values.ravel()

    derivative = jax.jit(jax.jacrev(one))
    dense = [derivative(*example) for example in zip(images, targets, KEYS, strict=True)]
    expected = [np.linalg.norm(matrix.reshape(N, N), 2) for matrix in dense]
    found = local_lipschitz(method, MODEL, variables, images, key=KEYS, exact=True)
    np.testing.assert_allclose(found, expected, rtol=1e-3)


def test_convolutions_have_a_constant_too(random):
    model, images = Cnn(features=(3,), dense=(4,), classes=3), random.random((2, 4, 4, 1)).astype(np.float32)
    variables = model.init(jax.random.key(2), images)

    def probability(image):
        return jax.nn.softmax(model.apply(variables, image[None]))[0].max()

    hessian = jax.jit(jax.hessian(probability))
    expected = [np.linalg.norm(hessian(image).reshape(16, 16), 2) for image in images]
    method = saliency.Gradient(score="probability")
    found = local_lipschitz(method, model, variables, images, key=KEY, exact=True)
    np.testing.assert_allclose(found, expected, rtol=1e-3)


@pytest.mark.parametrize("measure", MEASURES.values(), ids=MEASURES)
def test_a_map_of_zeros_is_at_rest(measure, bowl):
    zeros = {"w": np.zeros((N, 2), np.float32)}
    np.testing.assert_array_equal(measure(saliency.Gradient(), linear, zeros, bowl[1], key=KEY), 0)


def test_the_change_of_a_map_of_zeros_is_taken_as_it_is():
    """At the top of a parabola the gradient is 0, and nearby it is the step."""
    found = sensitivity_max(
        saliency.Gradient(), quadratic, {"a": np.eye(2, dtype=np.float32)}, np.zeros((B, 2), np.float32),
        key=KEY, targets=0, samples=50,
    )  # fmt: skip
    assert np.all((found > 0.02) & (found <= 0.02 * 2**0.5))


def test_what_the_method_draws_itself_it_draws_alike(variables, bowl):
    """Nearly the same image has nearly the same map, though with other noise it has another."""
    method = saliency.SmoothGrad(saliency.Gradient(score="probability"), samples=2, noise=1.0)
    still = sensitivity_max(method, MODEL, variables, bowl[1], key=KEY, radius=1e-6, samples=3)
    np.testing.assert_array_less(still, 1e-3)
    other = method(MODEL, variables, bowl[1], key=jax.random.key(6))
    once = method(MODEL, variables, bowl[1], key=KEY)
    assert np.all(np.abs(other.values - once.values).max((1, 2, 3)) > 1e-2 * np.abs(once.values).max((1, 2, 3)))


@pytest.mark.parametrize("measure", MEASURES.values(), ids=MEASURES)
def test_rows_are_bounded_neighbours_do_not_matter_and_new_weights_do_not_compile(measure, variables, bowl):
    images = (bowl[1] * 255).astype(np.uint8)
    wide = saliency.IntegratedGradients(steps=2, score="probability")
    narrow = saliency.IntegratedGradients(steps=2, score="probability", max_rows=3)
    whole = measure(wide, MODEL, variables, images, key=KEYS)
    assert whole.shape == (B,)
    assert np.all(whole > 0)
    with traced_rows() as rows:
        few = measure(narrow, MODEL, variables, images, key=KEYS)
    assert 0 < max(rows) <= 3
    np.testing.assert_allclose(few, whole, rtol=1e-3)
    beside = (images / np.float32(255))[::-1].copy()
    beside[0] = 1e4
    np.testing.assert_allclose(measure(wide, MODEL, variables, beside, key=KEYS[::-1])[1:], whole[:-1][::-1], rtol=1e-3)
    with traced_rows() as rows:
        measure(wide, MODEL, jax.tree.map(lambda x: 2 * x, variables), images, key=KEYS)
    assert rows == []


def test_every_class_is_measured_as_if_alone(variables, bowl):
    method = saliency.Gradient(score="probability")
    for measure in (sensitivity_max, local_lipschitz):
        together = measure(saliency.all_classes(method), MODEL, variables, bowl[1], key=KEY)
        assert together.shape == (B, 3)
        alone = measure(method, MODEL, variables, bowl[1], key=KEY, targets=2)
        np.testing.assert_allclose(together[:, 2], alone, rtol=1e-3)


def test_what_does_not_fit_is_named(variables, bowl):
    ask = partial(local_lipschitz, saliency.Gradient(), MODEL, variables, bowl[1], key=KEY)
    with pytest.raises(UserError, match="radius=0"):
        ask(radius=0.0)
    with pytest.raises(UserError, match="samples=0"):
        ask(samples=0)
    with pytest.raises(UserError, match="iterations=0"):
        ask(exact=True, iterations=0)
    with pytest.raises(UserError, match="the exact constant is for one class"):
        local_lipschitz(saliency.all_classes(saliency.Gradient()), MODEL, variables, bowl[1], key=KEY, exact=True)
