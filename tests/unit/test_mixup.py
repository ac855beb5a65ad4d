"""Mixup and CutMix: the same key mixes an example with its partner in the same way, wherever in a batch it is."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.stats import beta
from jax.sharding import NamedSharding, PartitionSpec
from support.components import AUGMENTATIONS, MIXERS

from jaxclf.augment import Augmentation, CutMix, LabeledImage, Mixer, Mixup, MixupOrCutMix, mix_batch

IMAGES = jnp.asarray(np.random.default_rng(0).integers(1, 256, (6, 9, 7, 3), np.uint8))
LABELS = jax.nn.one_hot(jnp.arange(6) % 4, 4)
KEY = jax.random.key(0)
mix = jax.jit(mix_batch, static_argnums=0)


def mix_rows(mixer, rows=range(6), images=IMAGES, labels=LABELS):
    """Rows mixed, each with the row after it."""
    rows = jnp.array(rows)
    partners = (rows + 1) % 6
    mine, others = (LabeledImage(images[chosen], labels[chosen]) for chosen in (rows, partners))
    return mix(mixer, KEY, rows, mine, others)


def draw_weights(mixer, n=4000):
    """The weights of n examples: white images whose partners are black."""
    white, black, labels = jnp.ones((n, 1, 1, 1)), jnp.zeros((n, 1, 1, 1)), jnp.ones((n, 1))
    return np.asarray(
        mix(mixer, KEY, jnp.arange(n), LabeledImage(white, labels), LabeledImage(black, labels)).image
    ).ravel()


@pytest.fixture(params=MIXERS, ids=repr)
def mixer(request):
    return request.param


@pytest.mark.parametrize("mixer", [Mixup(), Mixup(alpha=8.0)], ids=repr)
def test_mixup_is_linear_in_images_and_labels(mixer):
    images, labels = mix_rows(mixer)
    assert (images.dtype, labels.dtype) == (jnp.float32, jnp.float32)
    weights = np.asarray(labels)[np.arange(6), np.arange(6) % 4]
    assert ((weights >= 0) & (weights <= 1)).all()
    both = np.asarray(IMAGES, np.float32) / 255
    expected = [
        w * mine + (1 - w) * partner for w, mine, partner in zip(weights, both, np.roll(both, -1, 0), strict=True)
    ]
    np.testing.assert_allclose(images, expected, atol=1e-6)
    np.testing.assert_allclose(labels.sum(1), 1, atol=1e-6)


def test_mixing_takes_integers_and_floats_for_the_same_image(mixer):
    in_floats = mix_rows(mixer, images=IMAGES.astype(jnp.float32) / 255)
    np.testing.assert_allclose(mix_rows(mixer)[0], in_floats[0], atol=1e-6)


def test_mixing_of_a_row_depends_on_its_position_and_partner_alone(mixer):
    for whole, part in zip(mix_rows(mixer), mix_rows(mixer, rows=[4, 1]), strict=True):
        np.testing.assert_allclose(part, whole[jnp.array([4, 1])], atol=1e-6)


def test_mixing_is_the_same_on_many_devices(mixer):
    mesh = jax.make_mesh((4,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    rows = NamedSharding(mesh, PartitionSpec("data"))
    arguments = jnp.arange(4), *(LabeledImage(IMAGES[i : i + 4], LABELS[i : i + 4]) for i in (0, 1))
    spread = jax.jit(partial(mix_batch, mixer), in_shardings=(None, *[rows] * 3), out_shardings=rows)
    for one, many in zip(mix_batch(mixer, KEY, *arguments), spread(KEY, *arguments), strict=True):
        np.testing.assert_allclose(one, many, atol=1e-6)
    assert "all-" not in spread.lower(KEY, *arguments).compile().as_text()


@pytest.mark.parametrize("alpha", [0.05, 0.2, 1.0, 8.0])
def test_mixup_draws_its_weights_from_beta(alpha):
    weights = draw_weights(Mixup(alpha))
    assert weights.min() >= 0 and weights.max() <= 1
    edges = np.array([0, 0.01, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99, 1])
    shares = np.histogram(weights, edges)[0] / len(weights)
    # Four standard deviations of a share of 4000 draws.
    np.testing.assert_allclose(shares, np.diff(beta.cdf(edges, alpha, alpha)), atol=0.032)


def test_mixup_with_extreme_alphas_keeps_one_of_two_or_means_both():
    sides = draw_weights(Mixup(1e-6))
    assert set(sides) == {0, 1} and abs(sides.mean() - 0.5) < 0.04
    np.testing.assert_allclose(draw_weights(Mixup(1e6)), 0.5, atol=0.01)


def test_a_mixer_is_no_augmentation_of_one_image(mixer):
    assert isinstance(mixer, Mixer)
    assert all(isinstance(augmentation, Augmentation) for augmentation in AUGMENTATIONS)
    assert not isinstance(mixer, Augmentation)


def test_cutmix_pastes_a_rectangle_and_weighs_labels_by_its_area():
    n = 300
    mine, partner = jnp.zeros((n, 9, 12, 1)), jnp.ones((n, 9, 12, 1))
    labels = jax.nn.one_hot(jnp.zeros(n, int), 2), jax.nn.one_hot(jnp.ones(n, int), 2)
    pairs = LabeledImage(mine, labels[0]), LabeledImage(partner, labels[1])
    images, mixed_labels = mix(CutMix(), KEY, jnp.arange(n), *pairs)
    pasted = np.asarray(images) == 1
    np.testing.assert_allclose(mixed_labels[:, 1], pasted.mean((1, 2, 3)), atol=1e-6)
    heights, widths = pasted.any((2, 3)).sum(1), pasted.any((1, 3)).sum(1)
    np.testing.assert_array_equal(heights * widths, pasted.sum((1, 2, 3)))
    assert pasted.any(0).all() and len(np.unique(pasted.sum((1, 2, 3)))) > 20


def test_mixup_or_cutmix_takes_each_for_its_share():
    white, black, labels = jnp.ones((600, 8, 8, 1)), jnp.zeros((600, 8, 8, 1)), jnp.ones((600, 1))
    mixer = MixupOrCutMix(cutmix_probability=0.3)
    examples = LabeledImage(white, labels), LabeledImage(black, labels)
    images = np.asarray(mix(mixer, KEY, jnp.arange(600), *examples).image)
    mixup = (images == images[:, :1, :1]).all((1, 2, 3)) & (images[:, 0, 0, 0] > 0) & (images[:, 0, 0, 0] < 1)
    assert abs(mixup.mean() - 0.7) < 0.08  # four standard deviations, and CutMix that pastes nothing
