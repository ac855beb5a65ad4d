"""What every saliency method promises: the contract of the family, swept over all of them."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.components import CHEAPEST, METHODS, inner
from support.saliency import limited, traced_rows

from jaxclf import saliency
from jaxclf.errors import UserError
from jaxclf.models import Cnn

B, CLASSES = 5, 4
MODEL = Cnn(features=(2, 3), dense=(6,), classes=CLASSES, kernel_size=3)
IMAGES = np.random.default_rng(0).integers(0, 256, (B, 8, 8, 1), np.uint8)
UNIT = IMAGES / np.float32(255)
KEYS = jax.random.split(jax.random.key(3), B)
WITH_DELTA = (
    "GradientTimesInput", "IntegratedGradients", "ExpectedGradients", "BlurIntegratedGradients",
    "GuidedIntegratedGradients", "FullGrad", "DeepLift", "Lrp", "ShapleySampling", "Conductance",
)  # fmt: skip


@pytest.fixture(params=METHODS, ids=str)
def method(request):
    return request.param


class Unhashable:
    __hash__ = None

    def __call__(self, variables, images):
        return MODEL.apply(variables, images)


@pytest.fixture(scope="session")
def variables():
    # Biases that are not zero, as training leaves them.
    shaped = MODEL.init(jax.random.key(0), IMAGES)
    return jax.tree.map(lambda x: x + 0.1 * jax.random.normal(jax.random.key(1), x.shape), shaped)


def close(a, explain, variables):
    """An attribution agrees to rounding with that of the variables: to 1e-5 of the largest value; a gap, of the score.

    Where sums cancel, such as denominators of LRP, rounding is a larger share of what is left: allowed is four times
    what nudged variables change. Of LRP and DeepLIFT of 400 networks, 0.7 times was the most between jit and no jit.
    """
    b = explain(variables)
    assert [x is None for x in a] == [y is None for y in b]
    for name, x, y in zip(a._fields, a, b, strict=True):
        if x is not None:
            atol = 1e-5 * float(np.abs(b.score if name == "delta" else y).max())
            if not np.allclose(x, y, atol=atol, rtol=0):
                others = (getattr(explain(nudge(variables, seed)), name) for seed in range(8))
                atol += 4 * max(float(np.abs(other - y).max()) for other in others)
            np.testing.assert_allclose(x, y, atol=atol, rtol=0, err_msg=name)


def nudge(variables, seed):
    """Variables changed by up to 2^-22 of each, as much as rounding does."""
    random = np.random.default_rng(seed)
    return jax.tree.map(lambda x: x * (1 + 2**-22 * random.uniform(-1, 1, x.shape).astype(np.float32)), variables)


def test_shapes_and_finite_numbers(method, variables):
    a = method(MODEL, variables, IMAGES, key=KEYS)
    heads = (CLASSES,) if method.every_class else ()
    assert a.score.shape == a.evaluations.shape == (B, *heads)
    assert a.values.shape[: 1 + len(heads)] == (B, *heads)
    assert a.values.dtype == a.score.dtype == jnp.float32
    assert a.evaluations.dtype == jnp.int32
    assert (a.delta is not None) == (type(inner(method)).__name__ in WITH_DELTA and not is_noisy(method))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(a))


def is_noisy(method):
    return any(name in type(method).__name__ for name in ("SmoothGrad", "VarGrad")) or (
        hasattr(method, "method") and is_noisy(method.method)
    )


def test_the_score_is_that_of_the_clean_image(method, variables):
    logits = MODEL.apply(variables, IMAGES)
    largest = np.sort(logits, axis=1)[:, ::-1]
    other = np.where(logits == largest[:, :1], largest[:, 1:2], largest[:, :1])
    scores = {
        "logit": logits,
        "probability": jax.nn.softmax(logits),
        "log_probability": jax.nn.log_softmax(logits),
        "margin": logits - other,
    }[method.score]
    expected = scores if method.every_class else scores[np.arange(B), logits.argmax(axis=1)]
    np.testing.assert_allclose(method(MODEL, variables, IMAGES, key=KEYS).score, expected, atol=1e-5)


def test_jit_gives_the_same_of_bytes_and_in_unit_range_and_new_weights_do_not_compile_anew(method, variables):
    explain = partial(method, MODEL, images=IMAGES, key=KEYS)
    if method.host:
        with pytest.raises(UserError, match="works on the host"):
            jax.jit(method, static_argnums=0)(MODEL, variables, IMAGES, key=KEYS)
        close(method(MODEL, variables, UNIT, key=KEYS), explain, variables)
        return
    close(jitted(method)(MODEL, variables, UNIT, key=KEYS), explain, variables)
    with traced_rows() as rows:
        jitted(method)(MODEL, jax.tree.map(lambda x: 2 * x, variables), UNIT, key=KEYS)
        method(MODEL, jax.tree.map(lambda x: 2 * x, variables), IMAGES, key=KEYS)
    assert rows == []


@cache
def jitted(method):
    """The method inside jit, where it goes there: compiled once for all tests that ask about the same."""
    return method if method.host else jax.jit(method, static_argnums=0)


def test_max_rows_bounds_every_model_call_and_changes_rounding_only(method, variables):
    """Two rows at a time, of which the last is alone: there are five images."""
    with traced_rows() as seen:
        few = limited(method, 2)(MODEL, variables, IMAGES, key=KEYS)
    assert 0 < max(seen) <= 2
    close(few, partial(method, MODEL, images=IMAGES, key=KEYS), variables)


def test_an_example_does_not_depend_on_its_neighbours(method, variables):
    """Permuted, alone, or beside others that are not finite: with a key an example, the answer is the same."""

    def pick(rows, variables):
        return jax.tree.map(lambda x: x[rows], method(MODEL, variables, IMAGES, key=KEYS))

    order, alone = np.array([3, 0, 4, 1, 2]), slice(2, 3)
    close(method(MODEL, variables, IMAGES[order], key=KEYS[order]), partial(pick, order), variables)
    close(method(MODEL, variables, IMAGES[alone], key=KEYS[alone]), partial(pick, alone), variables)
    beside = UNIT.copy()
    beside[:2] = np.nan
    if method.host:
        with pytest.raises(UserError, match=r"2 of 5 images have pixels that are NaN .* 0, 1, counted"):
            method(MODEL, variables, beside, key=KEYS)
        return
    found = jax.tree.map(lambda x: x[alone], jitted(method)(MODEL, variables, beside, key=KEYS))
    close(found, partial(pick, alone), variables)


def test_each_class_of_all_is_that_class_alone(method, variables):
    if method.every_class:
        single, every = method.method, method
    else:
        single, every = method, saliency.all_classes(method)
    if method.host:
        with pytest.raises(UserError, match="works on the host"):
            every(MODEL, variables, IMAGES, key=KEYS)
        return
    together = every(MODEL, variables, IMAGES, key=KEYS)

    def explain(target, variables):
        a = single(MODEL, variables, IMAGES, target, key=KEYS)
        return a._replace(evaluations=together.evaluations[:, target])

    for target in (0, CLASSES - 1):
        close(jax.tree.map(lambda x, target=target: x[:, target], together), partial(explain, target), variables)


def test_targets_are_the_predicted_class_one_class_or_one_an_example(method, variables):
    if method.every_class:
        pytest.skip("it has no targets")
    explain = partial(method, MODEL, images=IMAGES, key=KEYS)
    predicted = np.argmax(MODEL.apply(variables, IMAGES), axis=1)
    close(explain(variables), partial(explain, targets=predicted), variables)
    close(explain(variables, targets=1), partial(explain, targets=np.full(B, 1)), variables)
    close(explain(variables, targets=[1, 0, 3, 2, 1]), partial(explain, targets=np.array([1, 0, 3, 2, 1])), variables)


@pytest.mark.parametrize("method", CHEAPEST.values(), ids=lambda method: type(method).__name__)
def test_images_need_not_be_square(method, variables):
    """Height and width exchanged, in the images and in the weights, are exchanged in the values."""
    wide = np.random.default_rng(0).random((B, 8, 12, 1), np.float32)
    shapes = jax.eval_shape(MODEL.init, jax.random.key(0), wide)
    random = np.random.default_rng(1)
    across = jax.tree.map(lambda leaf: 0.4 * random.standard_normal(leaf.shape, np.float32), shapes)
    down = jax.tree.map(np.copy, across)
    for name in ("conv1", "conv2"):
        down["params"][name]["kernel"] = across["params"][name]["kernel"].swapaxes(0, 1)
    kernel = across["params"]["dense1"]["kernel"].reshape(2, 3, 3, -1)
    down["params"]["dense1"]["kernel"] = kernel.swapaxes(0, 1).reshape(18, -1)
    a = method(MODEL, across, wide, key=KEYS)
    b = method(MODEL, down, wide.swapaxes(1, 2), key=KEYS)
    np.testing.assert_allclose(a.score, b.score, rtol=1e-4)
    assert a.values.shape == b.values.swapaxes(1, 2).shape
    assert np.isfinite(a.values).all()
    if not method.sampled and not method.host:  # the draws for a pixel, and segments, are others
        np.testing.assert_allclose(a.values, b.values.swapaxes(1, 2), atol=1e-4 * np.abs(a.values).max())


def test_devices_share_the_batch(method, variables):
    mesh = jax.make_mesh((4,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    rows = jax.NamedSharding(mesh, jax.P("data"))
    images, keys = (jax.device_put(x[:4], rows) for x in (IMAGES, KEYS))

    def one(variables):
        return jax.tree.map(lambda x: x[:4], method(MODEL, variables, IMAGES, key=KEYS))

    close(method(MODEL, variables, images, key=keys), one, variables)


def test_what_does_not_fit_is_named(method, variables):
    with pytest.raises(UserError, match=r"baseline of shape \[7\]"):
        method(MODEL, variables, IMAGES, key=KEYS, baseline=np.zeros(7, np.float32))
    with pytest.raises(UserError, match=r"targets of shape \[2\]"):
        method(MODEL, variables, IMAGES, np.zeros(2, int), key=KEYS)
    with pytest.raises(UserError, match="max_rows=0"):
        limited(method, 0)(MODEL, variables, IMAGES, key=KEYS)
    with pytest.raises(UserError, match="not hashable"):
        method(Unhashable(), variables, IMAGES, key=KEYS)
    if method.sampled:
        with pytest.raises(UserError, match="pass key="):
            method(MODEL, variables, IMAGES)
