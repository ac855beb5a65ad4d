"""The Parts benchmark: images with parts left out, exact Shapley values, and scores of saliency maps."""

from itertools import permutations

import numpy as np
import pytest
from PIL import Image

from jaxclf.datasets.cartoons.characters import CHARACTERS
from jaxclf.datasets.parts import draw_backgrounds, sample_parts_images
from jaxclf.datasets.parts.image import FIRST
from jaxclf.saliency.parts.games import (
    compute_additive_share,
    compute_drops,
    compute_gains,
    compute_interactions,
    compute_shapley,
    list_members,
)
from jaxclf.saliency.parts.maps import REFERENCES, draw_part_values, occlude_parts, sum_over_parts
from jaxclf.saliency.parts.results import compute_kendall_tau
from jaxclf.saliency.parts.scores import SCORES, correlate_ranks, score_attribution, score_truth
from jaxclf.saliency.parts.truth import Truth, compute_truth

IMAGES = sample_parts_images(18)


def make_truth(image, seed):
    """A truth whose numbers are random."""
    random = np.random.default_rng(seed)
    n = len(image.parts)
    drops, gains, shapley, contrast = random.normal(size=(4, n))
    return Truth(
        np.zeros((2**n, 2)),
        0,
        drops,
        gains,
        shapley,
        np.zeros((n, n)),
        contrast,
        1.0,
        float(random.normal()),
        0.5,
        True,
    )


def predict_brightness(images):
    """A network that is linear in the pixels: its logits are means of the channels."""
    return images.astype(np.float64).mean(axis=(1, 2)) / 255


@pytest.mark.parametrize("image", IMAGES[:6], ids=lambda image: image.parts[1])
def test_a_part_that_is_left_out_changes_its_own_pixels_alone(image):
    subsets = image.draw_subsets()
    np.testing.assert_array_equal(subsets[-1], image.pixels)
    canvas = np.asarray(image.scene.draw_canvas())
    for i, part in enumerate(image.parts):
        changed = (canvas != np.asarray(image.scene.draw_canvas([part]))).any(axis=-1)
        touched = changed.reshape(64, 3, 64, 3).any(axis=(1, 3))
        around = np.zeros((64, 64), bool)
        for y, x in np.argwhere(touched):  # blur reaches two pixels at most
            around[max(y - 4, 0) : y + 5, max(x - 4, 0) : x + 5] = True
        without = subsets[len(subsets) - 1 - 2**i]
        assert (without != image.pixels).any(axis=-1)[image.masks[i]].mean() > 0.4
        np.testing.assert_array_equal(without[~around], image.pixels[~around])


@pytest.mark.parametrize("image", IMAGES, ids=lambda image: image.parts[1])
def test_masks_are_disjoint_and_not_empty(image):
    assert image.masks.sum(axis=0).max() == 1
    assert image.masks.any(axis=(1, 2)).all()
    assert len(image.parts) == len(image.masks) >= 3


def test_images_are_the_same_in_every_call_and_no_images_of_the_dataset():
    again = sample_parts_images(2)
    for first, second in zip(IMAGES, again, strict=False):
        np.testing.assert_array_equal(first.pixels, second.pixels)
    assert [image.label for image in sample_parts_images(20)] == [*range(18), 0, 1]
    assert max(character.images for character in CHARACTERS) < FIRST  # the numbers of the dataset's images are smaller


def test_another_background_leaves_the_character_as_it_is():
    image = next(image for image in IMAGES if image.scene.lighting.blur is None)
    backgrounds = [draw_backgrounds(1, 0)[0], Image.new("RGB", (192, 192))]  # the second one is none, black
    canvases = [np.asarray(image.scene.draw_canvas(background=each)) for each in backgrounds]
    same = (canvases[0] == canvases[1]).all(axis=-1).reshape(64, 3, 64, 3).all(axis=(1, 3))
    first, second = image.draw_on_backgrounds(backgrounds)
    assert same.mean() > 0.2
    np.testing.assert_array_equal(first[same], second[same])
    assert (first != second).any(axis=-1)[~same].mean() > 0.9


def test_without_clutter_only_its_pixels_change():
    images = [image for image in IMAGES if image.scene.lighting.blur is None and image.clutter.any()]
    for image in images:
        canvases = [np.asarray(image.scene.draw_canvas(clutter=clutter)) for clutter in (True, False)]
        covered = (canvases[0] != canvases[1]).any(axis=-1).reshape(64, 3, 64, 3).any(axis=(1, 3))
        changed = (image.draw_without_clutter() != image.pixels).any(axis=-1)
        assert changed[image.clutter].any()
        assert not changed[~covered].any()
    assert images


def test_shapley_values_are_means_over_all_orders():
    game = np.random.default_rng(0).normal(size=16)
    expected = np.zeros(4)
    for order in permutations(range(4)):
        present = 0
        for i in order:
            expected[i] += game[present | 1 << i] - game[present]
            present |= 1 << i
    np.testing.assert_allclose(compute_shapley(game), expected / 24, rtol=1e-12)
    assert compute_shapley(game).sum() == pytest.approx(game[-1] - game[0])


def test_in_an_additive_game_every_worth_is_the_same():
    worth = np.array([0.5, -2.0, 3.0, 0.0])
    game = 7 + list_members(4) @ worth
    for compute in (compute_shapley, compute_drops, compute_gains):
        np.testing.assert_allclose(compute(game), worth, atol=1e-12)
    np.testing.assert_allclose(compute_interactions(game), 0, atol=1e-12)
    assert compute_additive_share(game) == pytest.approx(1)


def test_players_that_only_count_together_interact():
    members = list_members(3)
    game = (members[:, 0] & members[:, 1]).astype(float)  # worth 1 if the first two are there
    np.testing.assert_allclose(compute_shapley(game), [0.5, 0.5, 0])
    np.testing.assert_allclose(compute_interactions(game), [[0, 1, 0], [1, 0, 0], [0, 0, 0]])
    parity = (-1.0) ** members.sum(axis=1)
    assert compute_additive_share(parity) == pytest.approx(0)


def test_the_truth_of_a_linear_network_is_the_difference_of_two_images():
    image = IMAGES[0]
    assert image.label == 0  # red
    truth = compute_truth(image, predict_brightness, draw_backgrounds(3, 0))
    without = [np.asarray(image.scene.draw([part])) for part in image.parts]
    changes = predict_brightness(image.pixels[None]) - predict_brightness(np.stack(without))
    np.testing.assert_allclose(truth.drops, changes[:, 0], atol=1e-12)
    whole, empty = (predict_brightness(images[None])[0] for images in (image.pixels, image.draw_subsets()[0]))
    assert truth.shapley.sum() == pytest.approx(whole[0] - empty[0])
    assert truth.contrast.sum() == pytest.approx((whole - whole[truth.rival])[0] - (empty - empty[truth.rival])[0])
    assert truth.rival == 1 + whole[1:].argmax()
    others = predict_brightness(image.draw_on_backgrounds(draw_backgrounds(3, 0)))[:, 0]
    assert truth.background == pytest.approx(np.abs(others - whole[0]).mean())


@pytest.mark.parametrize("image", IMAGES, ids=lambda image: image.parts[1])
def test_the_truth_painted_in_has_the_best_scores(image):
    scores = score_truth(image, make_truth(image, seed=image.label))
    best = {name: 0.0 if name in ("s3", "s4_regret", "s6") else 1.0 for name in SCORES}
    assert {name: value for name, value in scores.items() if not np.isnan(value)} == pytest.approx(
        {name: best[name] for name, value in scores.items() if not np.isnan(value)}, abs=1e-12
    )


def test_noise_scores_chance():
    rows = []
    for seed in range(12):
        for image in IMAGES:
            own, rival = (sum_over_parts(image, REFERENCES["random"](image, 2 * seed + i)) for i in (0, 1))
            rows.append(score_attribution(own, rival, make_truth(image, [seed, image.label])))
    for name, chance in {"s1": 0, "s2": 0, "s5": 0.5, "s7": 0, "s8": 0}.items():
        values = np.array([row[name] for row in rows])
        values = values[~np.isnan(values)]
        assert abs(values.mean() - chance) < 4 * values.std() / np.sqrt(len(values))


def test_a_constant_map_scores_zero_and_is_not_left_out():
    """FunnyBirds leaves out images whose rank correlation is NaN."""
    image = IMAGES[2]
    nothing = sum_over_parts(image, np.zeros((64, 64)))
    scores = score_attribution(nothing, nothing, make_truth(image, 0))
    assert (scores["s1"], scores["s2"], scores["s7"]) == (0, 0, 0)
    assert scores["s4"] == pytest.approx(1 / len(image.parts))
    assert scores["s5"] == pytest.approx(0.5)


def test_a_map_that_is_not_finite_is_scored_like_zeros():
    image, truth = IMAGES[2], make_truth(IMAGES[2], 0)
    zeros, wrong = (sum_over_parts(image, np.full((64, 64), value)) for value in (0.0, np.nan))
    assert score_attribution(wrong, wrong, truth) == pytest.approx(score_attribution(zeros, zeros, truth))


def test_scores_are_not_defined_if_the_parts_change_nothing():
    image = IMAGES[0]
    truth = compute_truth(image, lambda images: np.ones((len(images), 3)), draw_backgrounds(2, 0))
    noise = sum_over_parts(image, REFERENCES["random"](image, 0))
    scores = score_attribution(noise, noise, truth)
    assert all(np.isnan(scores[name]) for name in SCORES if name != "s6")


def test_no_threshold_is_relative_to_the_sum_of_a_map():
    """In FunnyBirds every part of a map with a negative sum is important."""
    image, truth = IMAGES[0], make_truth(IMAGES[0], 0)
    right = draw_part_values(image, truth.shapley, truth.clutter)
    shifted = right.copy()
    shifted[image.outside & ~image.clutter] -= 1000
    nothing = sum_over_parts(image, np.zeros((64, 64)))
    first, second = (score_attribution(sum_over_parts(image, each), nothing, truth) for each in (right, shifted))
    for name in ("s1", "s2", "s3", "s4", "s5", "s7", "s8"):
        assert first[name] == pytest.approx(second[name], nan_ok=True)
    assert second["s6"] > first["s6"]


def test_scores_of_ranks_do_not_depend_on_the_scale_of_a_map():
    image, truth = IMAGES[3], make_truth(IMAGES[3], 1)
    values = REFERENCES["edges"](image, 0) * REFERENCES["random"](image, 0)
    first, second = (
        score_attribution(sum_over_parts(image, k * values), sum_over_parts(image, k * values * 0.5), truth)
        for k in (1, 1e-6)
    )
    for name in ("s1", "s2", "s4", "s5", "s6", "s7", "s8"):
        assert first[name] == pytest.approx(second[name], rel=1e-9, nan_ok=True)


def test_occlusion_by_part_is_exact_for_a_linear_network():
    image = IMAGES[4]
    own, other = occlude_parts(image, predict_brightness, (0, 2))
    means = image.pixels.astype(float)[..., [0, 2]] / 255 / 64**2
    for values, channel in ((own, 0), (other, 1)):
        expected = [means[..., channel][mask].sum() for mask in image.masks]
        np.testing.assert_allclose(sum_over_parts(image, values).parts, expected, rtol=1e-10)


def test_small_maps_are_resized():
    image = IMAGES[0]
    np.testing.assert_allclose(
        sum_over_parts(image, np.full((8, 8), 2.0, np.float32)).parts, 2 * image.masks.sum(axis=(1, 2))
    )


def test_rank_correlation_by_hand():
    assert correlate_ranks(np.array([1.0, 2, 3]), np.array([10.0, 100, 1000])) == pytest.approx(1)
    assert correlate_ranks(np.array([1.0, 2, 3]), np.array([3.0, 2, 1])) == pytest.approx(-1)
    assert np.isnan(correlate_ranks(np.array([1.0, 2, 3]), np.ones(3)))


def test_kendall_tau_equals_that_of_scipy():
    from scipy.stats import kendalltau

    random = np.random.default_rng(0)
    first, second = random.integers(0, 5, (2, 12)).astype(float)
    assert compute_kendall_tau(first, second) == pytest.approx(kendalltau(first, second).statistic)
    assert compute_kendall_tau(first, np.ones(12)) is None
