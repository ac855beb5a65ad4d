"""Relative stability, and tests with random parameters or classes: definitions, and what they do not depend on."""

from dataclasses import dataclass
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from support.saliency import traced_rows

from jaxclf import saliency
from jaxclf.errors import UserError
from jaxclf.models import Cnn
from jaxclf.saliency import (
    GradientTimesInput,
    SmoothGrad,
    efficient_randomization,
    parameter_randomization,
    random_logit,
    relative_stability,
)
from jaxclf.saliency.base import BaseMethod
from jaxclf.saliency.metrics.sanity import initialize_parameters
from jaxclf.saliency.query import make_attribution
from jaxclf.saliency.sampling import fold_sample_keys, make_metric_keys

B, RADIUS = 4, 0.05
MODEL = Cnn(features=(3,), dense=(8,), classes=3)
IMAGES = np.random.default_rng(0).uniform(0.3, 1, (B, 8, 8, 1)).astype(np.float32)
KEY = jax.random.key(3)
KEYS = jax.random.split(KEY, B)
RELATIVE = {
    "input": {},
    "output": {"relative_to": "output"},
    "representation": {"relative_to": "representation", "layer": "conv1"},
}
MEASURES = {
    **{name: partial(relative_stability, samples=3, radius=RADIUS, **options) for name, options in RELATIVE.items()},
    "random_logit": random_logit,
}


class Twice(nn.Module):
    """A network that calls one layer twice."""

    @nn.compact
    def __call__(self, x, train=False):
        dense = nn.Dense(64, name="dense")
        return nn.Dense(3)(dense(dense(x.reshape(B, -1))))


@dataclass(frozen=True)
class Scaled(BaseMethod):
    """Another method's map, multiplied by a number."""

    factor: float = 1.0

    def explain(self, query):
        a = GradientTimesInput().explain(query)
        return a._replace(values=self.factor * a.values)


@dataclass(frozen=True)
class Picture(BaseMethod):
    """A picture of the image that knows nothing of the model."""

    power: int = 1

    def explain(self, query):
        query, score = query.resolve_targets()
        return make_attribution(query, query.images[:, None] ** self.power, score, 1)


@pytest.fixture(scope="module")
def variables():
    shaped = MODEL.init(jax.random.key(0), IMAGES)
    return jax.tree.map(lambda x: x + 0.2 * jax.random.normal(jax.random.key(1), x.shape), shaped)


def relative_norm(new, old, floor=0.01):
    size = np.maximum(np.abs(old), floor * np.abs(old).max(axis=tuple(range(1, old.ndim)), keepdims=True))
    return np.linalg.norm(((new - old) / size).reshape(len(old), -1), axis=1)


def test_the_definition(variables):
    """The largest of the ratios over the images nearby with the same class, written out with NumPy."""
    targets = np.argmax(MODEL.apply(variables, IMAGES), axis=1)
    explain = partial(GradientTimesInput(), MODEL, variables)
    clean = np.asarray(explain(IMAGES, targets).values)
    logits, layers = MODEL.apply(variables, IMAGES, capture_intermediates=True)
    layer = np.asarray(layers["intermediates"]["conv1"]["__call__"][0])
    ratios = {name: [] for name in RELATIVE}
    for j in range(20):
        keys = fold_sample_keys(make_metric_keys(KEYS), jnp.int32(j))
        step = jax.vmap(lambda key: jax.random.uniform(key, (8, 8, 1), minval=-0.3, maxval=0.3))(keys)
        moved = np.asarray(IMAGES + step)
        changed, layers = MODEL.apply(variables, moved, capture_intermediates=True)
        change = relative_norm(np.asarray(explain(moved, targets).values), clean)
        change[np.argmax(changed, axis=1) != targets] = np.nan
        output = np.linalg.norm(changed - logits, axis=1)
        ratios["input"].append(change / relative_norm(moved, IMAGES))
        ratios["output"].append(change / output)
        ratios["representation"].append(
            change / relative_norm(np.asarray(layers["intermediates"]["conv1"]["__call__"][0]), layer)
        )
    for name, options in RELATIVE.items():
        found = relative_stability(
            GradientTimesInput(), MODEL, variables, IMAGES, key=KEYS, radius=0.3, samples=20, **options
        )
        np.testing.assert_allclose(found, np.nanmax(ratios[name], axis=0), rtol=2e-3, err_msg=name)


def test_images_of_another_class_are_left_out():
    """The class is that of the first pixel: about half of the images nearby have another one, or all of them."""

    def read_pixel(variables, images):
        return jnp.stack([images[:, 0, 0, 0], jnp.full(len(images), 0.5)], axis=1)

    gray, ratios = np.full_like(IMAGES, 0.5), []
    for j in range(30):
        keys = fold_sample_keys(make_metric_keys(KEYS), jnp.int32(j))
        step = np.asarray(jax.vmap(lambda key: jax.random.uniform(key, (8, 8, 1), minval=-0.3, maxval=0.3))(keys))
        ratio = relative_norm((gray + step) ** 2, gray**2) / relative_norm(gray + step, gray)
        ratios.append(np.where(step[:, 0, 0, 0] < 0, np.nan, ratio))
    found = relative_stability(Picture(power=2), read_pixel, {}, gray, key=KEYS, radius=0.3, samples=30)
    np.testing.assert_allclose(found, np.nanmax(ratios, axis=0), rtol=1e-4)

    def notice(variables, images):
        same = jnp.all(images == 0.5, axis=(1, 2, 3))
        return jnp.stack([jnp.zeros(len(images)), jnp.where(same, -1.0, 1.0)], axis=1)

    assert np.isnan(relative_stability(Picture(), notice, {}, gray, key=KEY)).all()


def test_a_picture_of_the_image_changes_as_the_image_does(variables):
    np.testing.assert_allclose(relative_stability(Picture(), MODEL, variables, IMAGES, key=KEY), 1, rtol=1e-5)


def test_the_scale_of_the_map_does_not_matter(variables):
    for name, measure in MEASURES.items():
        once = measure(Scaled(factor=1.0), MODEL, variables, IMAGES, key=KEYS)
        for factor in (-7.0, 1e-20):
            again = measure(Scaled(factor=factor), MODEL, variables, IMAGES, key=KEYS)
            jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-5, err_msg=name), again, once)


@pytest.mark.parametrize("measure", MEASURES.values(), ids=MEASURES)
def test_rows_are_bounded_and_neighbors_do_not_matter(measure, variables):
    whole = measure(GradientTimesInput(), MODEL, variables, IMAGES, key=KEYS)
    assert all(leaf.shape == (B,) and np.isfinite(leaf).all() for leaf in jax.tree.leaves(whole))
    with traced_rows() as rows:
        few = measure(GradientTimesInput(max_rows=3), MODEL, variables, IMAGES, key=KEYS)
    assert max(rows) <= 3
    reverse = measure(GradientTimesInput(), MODEL, variables, IMAGES[::-1].copy(), key=KEYS[::-1])
    same = partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-5)
    jax.tree.map(same, few, whole)
    jax.tree.map(lambda x, y: same(x[::-1], y), reverse, whole)


def test_another_class_has_another_map_or_the_method_ignores_the_class(variables):
    picture = random_logit(Picture(), MODEL, variables, IMAGES, key=KEY)
    np.testing.assert_allclose(picture.rank_correlation, 1, rtol=1e-6)
    np.testing.assert_allclose(picture.ssim, 1, rtol=1e-5)
    found = random_logit(GradientTimesInput(), MODEL, variables, IMAGES, key=KEYS, targets=1).rank_correlation
    maps = {c: GradientTimesInput()(MODEL, variables, IMAGES, c).values.reshape(B, -1) for c in range(3)}
    for i, correlation in enumerate(found):
        possible = [scipy.stats.spearmanr(maps[1][i], maps[c][i]).statistic for c in (0, 2)]
        assert np.isclose(possible, correlation, atol=1e-5).any()


def test_all_other_classes_are_drawn():
    """The map of class c is its number times a ramp and its own noise: each of them is seen."""
    values = jax.random.normal(jax.random.key(5), (4, 16))
    model = lambda variables, images: images.reshape(len(images), -1) @ values.T  # noqa: E731
    images = np.ones((200, 4, 4, 1), np.float32)
    found = random_logit(saliency.Gradient(), model, {}, images, key=KEY, targets=2).rank_correlation
    expected = {round(scipy.stats.spearmanr(values[2], values[c]).statistic, 4) for c in (0, 1, 3)}
    assert {round(float(x), 4) for x in found} == expected


def test_complexity_rises_when_a_model_with_simple_maps_becomes_random(variables):
    """Its definition, with NumPy's histogram."""
    found = efficient_randomization(GradientTimesInput(), MODEL, variables, IMAGES, key=KEY, bins=20)
    random = {"params": initialize_parameters(MODEL, IMAGES, KEY)}
    targets = np.argmax(MODEL.apply(variables, IMAGES), axis=1)
    complexity = [
        [scipy.stats.entropy(np.histogram(a, bins=20)[0]) for a in np.asarray(maps)]
        for maps in (GradientTimesInput()(MODEL, v, IMAGES, targets).values for v in (variables, random))
    ]
    np.testing.assert_allclose(found, (np.array(complexity[1]) - complexity[0]) / complexity[0], atol=0.02)
    # A map that does not depend on the model does not become more complex.
    np.testing.assert_array_equal(efficient_randomization(Picture(), MODEL, variables, IMAGES, key=KEY), 0)


def test_the_smooth_randomization_test_is_that_of_smoothgrad(variables):
    """The maps of both models are means over the same noisy images."""
    noisy = SmoothGrad(GradientTimesInput(), samples=6, noise=0.1)
    found = parameter_randomization(noisy, MODEL, variables, IMAGES, key=KEY)
    keys = jax.vmap(partial(jax.random.fold_in, KEY))(jnp.arange(B))
    targets = np.argmax(MODEL.apply(variables, IMAGES), axis=1)
    random = {"params": initialize_parameters(MODEL, IMAGES, KEY)}
    spread = 0.1 * (IMAGES.max(axis=(1, 2, 3)) - IMAGES.min(axis=(1, 2, 3)))[:, None, None, None]

    def smooth(variables):
        total = 0
        for j in range(6):
            noise = jax.vmap(lambda key: jax.random.normal(key, (8, 8, 1)))(fold_sample_keys(keys, jnp.int32(j)))
            total += GradientTimesInput()(MODEL, variables, IMAGES + spread * noise, targets).values
        return total / 6

    for x, y, correlation in zip(smooth(variables), smooth(random), found.rank_correlation[-1], strict=True):
        np.testing.assert_allclose(correlation, scipy.stats.spearmanr(x.ravel(), y.ravel()).statistic, atol=1e-3)


def test_what_does_not_fit_is_named(variables):
    ask = partial(relative_stability, GradientTimesInput(), MODEL, variables, IMAGES, key=KEY)
    with pytest.raises(UserError, match=r"no layer 'conv7'; did you mean conv1\?: choose one of conv1"):
        ask(relative_to="representation", layer="conv7")
    with pytest.raises(UserError, match="layer 'dense' is called 2 times: expected once"):
        relative_stability(
            GradientTimesInput(), Twice(), Twice().init(KEY, IMAGES), IMAGES, key=KEY,
            relative_to="representation", layer="dense",
        )  # fmt: skip
    with pytest.raises(UserError, match="need each other"):
        ask(layer="conv1")
    with pytest.raises(UserError, match="radius=0"):
        ask(radius=0.0)
    with pytest.raises(UserError, match="not a Linen module, so its layers are unknown"):
        relative_stability(
            Picture(), lambda v, x: x.reshape(B, -1), {}, IMAGES, key=KEY, relative_to="representation", layer="a"
        )
    with pytest.raises(UserError, match="not a Linen module"):
        efficient_randomization(Picture(), lambda v, x: x.reshape(B, -1), {}, IMAGES, key=KEY)
    with pytest.raises(UserError, match="for one class"):
        random_logit(saliency.all_classes(saliency.Gradient()), MODEL, variables, IMAGES, key=KEY)
    with pytest.raises(UserError, match="expected one, as all examples share"):
        efficient_randomization(GradientTimesInput(), MODEL, variables, IMAGES, key=KEYS)
