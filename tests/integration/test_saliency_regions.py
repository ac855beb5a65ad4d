"""Measures that remove groups of pixels: the best map on a linear model, chance, scale, and their definitions."""

from functools import partial
from itertools import permutations

import jax
import numpy as np
import pytest
import scipy.stats

from jaxclf import saliency
from jaxclf.errors import UserError
from jaxclf.saliency import MEASURES, Attribution, deletion, irof, saco, single_deletion, srg

N = 300  # random maps


def linear(variables, images):
    return images.reshape(len(images), -1) @ variables["w"] + 20


def of(values):
    """An attribution of one class with these values."""
    return Attribution(np.asarray(values, np.float32), np.ones(len(values)), None, None, np.ones(len(values)))


def make_plane(random, count, side, channels=1):
    """A linear model, images, and the exact contributions of their numbers, from the baseline 0.25."""
    shape = (count, side, side, channels)
    variables = {"w": random.normal(size=(side * side * channels, 2)).astype(np.float32)}
    images = random.random(shape).astype(np.float32)
    return variables, images, (images - 0.25) * variables["w"][:, 1].reshape(shape[1:])


def measure_all(variables, images, a):
    """All measures of this file for cells or groups that are single pixels of 2 x 2 images."""
    options = {"targets": 1, "baseline": 0.25, "score": "logit"}
    return {
        "srg": srg(linear, variables, images, a, steps=4, **options),
        "irof": irof(linear, variables, images, a, cells=2, **options),
        "single_deletion": single_deletion(linear, variables, images, a, cells=2, **options),
        "saco": saco(linear, variables, images, a, groups=4, **options),
    }


def test_contributions_are_the_best_of_all_orders(random):
    variables, images, contributions = make_plane(random, 3, 2)
    best = measure_all(variables, images, of(contributions))
    np.testing.assert_allclose(best["single_deletion"], 1, rtol=1e-6)
    np.testing.assert_allclose(best["saco"], 1, rtol=1e-6)
    for order in permutations(range(4)):
        values = np.broadcast_to(np.reshape(order, (1, 2, 2, 1)), images.shape)
        for name, found in measure_all(variables, images, of(values)).items():
            assert np.all(found <= best[name] + 1e-5), name
    # The opposite order is as bad as it can be.
    worst = measure_all(variables, images, of(-contributions))
    for name in ("srg", "single_deletion", "saco"):
        np.testing.assert_allclose(worst[name], -best[name], rtol=1e-4)


def test_random_maps_score_chance(random):
    """0, or for the area over a curve half the share that is lost in the end; within four standard errors."""
    variables, images, contributions = make_plane(random, 1, 2)
    many = np.repeat(images, N, axis=0)
    found = measure_all(variables, many, of(random.normal(size=many.shape)))
    lost = contributions.sum() / linear(variables, images)[0, 1]
    for name, values in found.items():
        expected = lost / 2 if name == "irof" else 0
        assert abs(values.mean() - expected) < 4 * values.std() / N**0.5, name


def test_the_scale_does_not_matter_and_a_constant_map_has_no_order(random):
    variables, images, contributions = make_plane(random, 3, 2)
    values = random.normal(size=contributions.shape).astype(np.float32)
    once = measure_all(variables, images, of(values))
    for scale in (7, 1e-35, 1e35):
        for name, found in measure_all(variables, images, of(values * scale)).items():
            np.testing.assert_allclose(found, once[name], rtol=1e-4, err_msg=name)
    constant = measure_all(variables, images, of(np.full_like(values, 0.3)))
    for name in ("srg", "single_deletion", "saco"):
        np.testing.assert_array_equal(constant[name], 0)


def test_srg_is_the_difference_of_two_deletion_areas(random):
    variables, images, _ = make_plane(random, 3, 5)
    values = random.normal(size=images.shape)
    for steps in (2, 7, 25, 40):
        options = {"steps": steps, "baseline": 0.25}
        least, most = (deletion(linear, variables, images, of(v), **options).auc for v in (-values, values))
        np.testing.assert_allclose(srg(linear, variables, images, of(values), **options), least - most, atol=1e-5)


@pytest.mark.parametrize("flat", [False, True])
def test_cells_are_those_of_a_grid_also_where_sides_are_not_divisible(random, flat):
    """Written out for 3 x 3 cells of 7 x 7 pixels with three channels."""
    variables, images, _ = make_plane(random, 2, 7, 3)
    values = random.normal(size=images.shape).astype(np.float32)
    sides = [slice(0, 3), slice(3, 5), slice(5, 7)]
    cells = [(rows, columns) for rows in sides for columns in sides]
    sums = np.stack([values[:, r, c].sum(axis=(1, 2, 3)) for r, c in cells], axis=1)
    means = sums / [(r.stop - r.start) * (c.stop - c.start) for r, c in cells]

    def score_without(image, removed):
        image = image.copy()
        for r, c in removed:
            image[r, c] = 0.25
        return linear(variables, image[None])[0, 1]

    shaped = (images.reshape(2, -1), values.reshape(2, -1)) if flat else (images, values)
    options = {"targets": 1, "baseline": 0.25, "cells": 3, "score": "logit"}
    correlations = single_deletion(linear, variables, shaped[0], of(shaped[1]), **options)
    areas = irof(linear, variables, shaped[0], of(shaped[1]), **options)
    for i, image in enumerate(images):
        losses = [-score_without(image, [cell]) for cell in cells]
        np.testing.assert_allclose(correlations[i], scipy.stats.spearmanr(sums[i], losses).statistic, atol=1e-5)
        order = np.argsort(-means[i])
        curve = [score_without(image, [cells[j] for j in order[:count]]) for count in range(10)]
        np.testing.assert_allclose(areas[i], 1 - np.trapezoid(curve, dx=1 / 9) / curve[0], atol=1e-5)


def test_saco_is_the_sum_over_pairs(random):
    """Algorithm 1 of the paper, written out, with 25 pixels in 4 groups."""
    variables, images, _ = make_plane(random, 3, 5)
    values = random.normal(size=images.shape).astype(np.float32)
    found = saco(linear, variables, images, of(values), groups=4, targets=1, baseline=0.25)

    def probability(image):
        return jax.nn.softmax(linear(variables, image[None]))[0, 1]

    for image, a, coefficient in zip(images, values, found, strict=True):
        order = np.argsort(-a.ravel())
        groups = [order[np.arange(25) * 4 // 25 == g] for g in range(4)]
        sums, losses = [a.ravel()[group].sum() for group in groups], []
        for group in groups:
            changed = image.ravel().copy()
            changed[group] = 0.25
            losses.append(probability(image) - probability(changed.reshape(image.shape)))
        total = size = 0
        for i in range(4):
            for j in range(i + 1, 4):
                weight = sums[i] - sums[j] if losses[i] >= losses[j] else sums[j] - sums[i]
                total, size = total + weight, size + abs(weight)
        np.testing.assert_allclose(coefficient, total / size, atol=1e-4)


def test_what_does_not_fit_is_named(random):
    variables, images, _ = make_plane(random, 2, 5)
    a = of(images)
    with pytest.raises(UserError, match="cells=6: expected 2 to 5"):
        irof(linear, variables, images, a, cells=6)
    with pytest.raises(UserError, match="groups=1: expected 2 to 25"):
        saco(linear, variables, images, a, groups=1)
    with pytest.raises(UserError, match="steps=1: expected at least 2"):
        srg(linear, variables, images, a, steps=1)
    with pytest.raises(UserError, match=r"expected \[b, h, w, c\]"):
        single_deletion(linear, {"w": np.ones((7, 2))}, np.ones((2, 7)), of(np.ones((2, 7))))


def test_every_measure_of_the_catalog_has_one_calling_form_and_ranks_the_truth_above_its_opposite(random):
    """On a linear model, where contributions are exact."""
    variables, images, contributions = make_plane(random, 3, 8)
    ask = {"key": jax.random.key(1), "targets": 1, "baseline": 0.25, "max_rows": 16}
    for name, measure in MEASURES.items():
        assert getattr(saliency, name) is measure.function
        truth, opposite = (measure(linear, variables, images, of(v), **ask) for v in (contributions, -contributions))
        assert truth.shape == (3,)
        if name in ("gini", "entropy", "road", "infidelity"):  # infidelity fits the scale, road imputes
            assert np.isfinite(truth).all()
        else:
            better = truth > opposite if measure.higher_is_better else truth < opposite
            assert np.all(better), name


def test_the_score_of_the_catalog_is_used_where_values_have_its_units(random):
    variables, images, contributions = make_plane(random, 3, 5)
    ask = partial(MEASURES["infidelity"], linear, variables, images, of(contributions), key=jax.random.key(1))
    assert np.all(ask(targets=1, baseline=0.25) < 1e-4)
    assert np.all(ask(targets=1, baseline=0.25, score="probability") > 1e-4)
