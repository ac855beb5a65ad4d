"""Agreement of a map with a mask: closed forms, chance, bounds, and what the measures do not depend on."""

from functools import partial

import jax
import numpy as np
import pytest

from jaxclf.errors import UserError
from jaxclf.saliency import (
    Attribution,
    localization_auc,
    pointing_game,
    relevance_mass_accuracy,
    relevance_rank_accuracy,
    top_k_intersection,
)

MEASURES = {
    "pointing_game": pointing_game,
    "mass": relevance_mass_accuracy,
    "rank": relevance_rank_accuracy,
    "top_k": partial(top_k_intersection, k=4),
    "auc": localization_auc,
}


def of(values):
    """An attribution with these values."""
    values = np.asarray(values, np.float32)
    ones = np.ones(len(values))
    return Attribution(values, ones, None, None, ones)


@pytest.fixture
def mask(random):
    """Objects of 6 of 30 pixels."""
    pixels = np.broadcast_to(np.arange(30) < 6, (300, 30))
    return random.permuted(pixels, axis=1).reshape(300, 5, 6)


@pytest.mark.parametrize("measure", MEASURES.values(), ids=MEASURES)
def test_the_mask_itself_scores_one_its_complement_zero_and_noise_chance(measure, mask, random):
    np.testing.assert_allclose(measure(of(mask[..., None]), mask), 1, rtol=1e-6)
    np.testing.assert_allclose(measure(of(1 - mask[..., None]), mask), 0, atol=1e-6)
    chance = 0.5 if measure is localization_auc else 0.2
    noise = measure(of(random.normal(size=(300, 5, 6, 2))), mask)
    assert np.all((noise >= 0) & (noise <= 1))
    assert abs(noise.mean() - chance) < 4 * noise.std() / 300**0.5
    np.testing.assert_allclose(measure(of(np.full((300, 5, 6, 1), -2.5)), mask), chance, rtol=1e-5)


@pytest.mark.parametrize("measure", MEASURES.values(), ids=MEASURES)
def test_the_scale_and_other_images_do_not_matter_and_an_empty_mask_has_a_finite_score(measure, mask, random):
    values, mask = random.normal(size=(4, 5, 6, 1)).astype(np.float32), mask[:4]
    found = measure(of(values), mask)
    for scale in (7, 1e-35, 1e35):
        np.testing.assert_allclose(measure(of(values * scale), mask), found, rtol=1e-5)
    alone = jax.jit(measure)(of(values[2:3]), mask[2:3])
    np.testing.assert_allclose(alone, found[2:3], rtol=1e-6)
    np.testing.assert_allclose(measure(of(values), np.zeros_like(mask)), 0.5 if measure is localization_auc else 0)
    np.testing.assert_allclose(measure(of(values), np.ones_like(mask)), 0.5 if measure is localization_auc else 1)


def test_by_hand():
    """The values 5, 3, 3, 1 and -4, the object in the second and the last pixel."""
    values, mask = [[5, 3, 3, 1, -4]], np.array([[0, 1, 0, 0, 1]], np.uint8)
    np.testing.assert_allclose(relevance_mass_accuracy(of(values), mask), 3 / 12)
    np.testing.assert_allclose(relevance_rank_accuracy(of(values), mask), 0.5 / 2)  # one of two tied pixels
    np.testing.assert_allclose(top_k_intersection(of(values), mask, k=3), 1 / 3)
    np.testing.assert_allclose(localization_auc(of(values), mask), 1.5 / 6)


def test_auc_counts_pairs(random):
    """Against its definition, with ties, in images of 256 by 256 pixels."""
    values = random.integers(0, 50, (2, 256, 256, 1))
    mask = random.random((2, 256, 256)) < np.array([0.3, 0.001])[:, None, None]
    for found, a, m in zip(localization_auc(of(values), mask), values[..., 0], mask, strict=True):
        inside, outside = (np.bincount(a[place], minlength=50) for place in (m, ~m))
        below = np.cumsum(outside) - outside
        expected = np.sum(inside * (below + outside / 2)) / (inside.sum() * outside.sum())
        np.testing.assert_allclose(found, expected, atol=1e-6)


def test_what_does_not_fit_is_named():
    a = of(np.zeros((1, 2, 2, 3)))
    for measure in MEASURES.values():
        with pytest.raises(UserError, match=r"a mask of shape \[1, 2, 2, 3\]"):
            measure(a, np.ones((1, 2, 2, 3), bool))
    with pytest.raises(UserError, match="k=5: expected 1 to 4"):
        top_k_intersection(a, np.ones((1, 2, 2), bool), k=5)
