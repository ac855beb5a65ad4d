"""Measures against Quantus 0.6.0, on the arrays that tests/fixtures/write_quantus_measures.py stored; and its mistakes.

Not compared: `relative_stability` in full, since Quantus divides by 1e-6 where an image or a map is 0, and gives NaN if
any perturbed image has another class, where the paper leaves these images out.
"""

from functools import partial
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from jax import random as jax_random

from jaxclf import saliency
from jaxclf.saliency import Attribution
from jaxclf.saliency.metrics.randomization import _compute_complexity
from jaxclf.saliency.metrics.similarity import compute_norm
from jaxclf.saliency.metrics.stability import _compute_change

KEY = jax_random.key(0)
CELLS, K = 3, 7  # as in the script


def network(variables, images):
    x = images.reshape(len(images), -1)
    return jnp.tanh(x @ variables["w1"] + variables["b1"][None]) @ variables["w2"] + variables["b2"][None]


def of(values):
    """An attribution of gray images with these values."""
    values = np.asarray(values, np.float32)[..., None]
    return Attribution(values, np.ones(len(values)), None, None, np.ones(len(values)))


@pytest.fixture(scope="module")
def stored():
    with np.load(Path(__file__).parents[1] / "fixtures/quantus_measures.npz") as file:
        return dict(file)


@pytest.fixture(scope="module")
def given(stored):
    """The model, its variables and the images."""
    return network, {name: stored[name] for name in ("w1", "b1", "w2", "b2")}, stored["images"][..., None]


def test_the_network_and_the_maps_are_those_of_the_script(stored, given):
    a = saliency.GradientTimesInput()(*given)
    np.testing.assert_array_equal(np.argmax(network(*given[1:]), axis=1), stored["targets"])
    np.testing.assert_allclose(a.values[..., 0], stored["maps"], atol=1e-5)


def test_localization(stored):
    mask, values = stored["mask"], stored["values"]
    np.testing.assert_allclose(saliency.relevance_mass_accuracy(of(np.abs(values)), mask), stored["mass"], rtol=1e-5)
    np.testing.assert_allclose(saliency.relevance_rank_accuracy(of(values), mask), stored["rank"], rtol=1e-5)
    np.testing.assert_allclose(saliency.top_k_intersection(of(values), mask, k=K), stored["top_k"], rtol=1e-5)
    np.testing.assert_allclose(saliency.localization_auc(of(values), mask), stored["auc"], rtol=1e-5)


def test_the_mass_of_signed_values_has_no_bounds_in_quantus(stored):
    """It divides by a sum that can be near 0 or negative; a share is between 0 and 1."""
    assert stored["signed_mass"].min() < -18
    shares = saliency.relevance_mass_accuracy(of(stored["values"]), stored["mask"])
    assert np.all((shares >= 0) & (shares <= 1))


def test_pixel_flipping_in_both_orders(stored, given):
    """Quantus stores the scores without that of the image."""
    options = {"steps": 36, "baseline": 0.25}
    gain = saliency.srg(*given, of(stored["values"]), **options)
    for name, sign in (("most_first", 1), ("least_first", -1)):
        curve = saliency.deletion(*given, of(sign * stored["values"]), **options).curve
        np.testing.assert_allclose(curve[:, 1:], stored[name], atol=1e-5)
    difference = (stored["least_first"] - stored["most_first"])[:, :-1]
    np.testing.assert_allclose(gain, difference.sum(axis=1) / 36, atol=1e-5)


def test_faithfulness_correlation(stored, given):
    """Both are means over random subsets: 20,000 in Quantus, and fewer here."""
    samples = 2000
    found = saliency.faithfulness_correlation(*given, of(stored["maps"]), key=KEY, n=K, samples=samples, baseline=0.25)
    expected = stored["correlation"]
    np.testing.assert_array_less(np.abs(found - expected), 4 * (1 - expected**2) * (1 / samples + 1 / 20_000) ** 0.5)


def test_irof_is_the_area_of_the_paper_and_that_of_quantus_is_not(stored, given):
    """Quantus leaves out the first point, and returns cells - area, so that 1 is a score that never changes."""
    found = saliency.irof(*given, of(stored["maps"]), cells=CELLS, baseline=0.25)
    n = CELLS**2
    order = np.argsort([-stored["maps"][:, stored["segments"] == cell].mean(axis=1) for cell in range(n)], axis=0)
    first_gone = np.where((stored["segments"] == order[0][:, None, None])[..., None], 0.25, given[2])
    scores = [np.exp(network(given[1], x)) for x in (given[2], first_gone)]
    begin, second = (s[np.arange(4), stored["targets"]] / s.sum(axis=1) for s in scores)
    np.testing.assert_allclose(found, 1 - ((1 + second / begin) / 2 + n - stored["irof"]) / n, atol=1e-5)


def test_the_ratios_of_relative_stability(stored, given):
    """On images and maps without small numbers, for one perturbed image."""
    model, variables, images = given
    moved = stored["moved"][..., None]
    explain = partial(saliency.GradientTimesInput(), model, variables, targets=stored["targets"])
    first, second = (np.asarray(explain(x).values[:, None]) for x in (images, moved))
    size = np.abs(first).max(axis=(1, 2, 3, 4))
    large = np.abs(first).min(axis=(1, 2, 3, 4)) >= 0.01 * size
    assert large.any()
    change = _compute_change(second, first)[:, 0]

    def hide(x):
        return (x.reshape(4, -1) @ variables["w1"] + variables["b1"])[:, None]

    denominators = {
        "ris": _compute_change(moved[:, None], images[:, None]),
        "ros": compute_norm((network(variables, images) - network(variables, moved))[:, None]),
        "rrs": _compute_change(hide(moved), hide(images)),
    }
    for name, denominator in denominators.items():
        np.testing.assert_allclose((change / denominator[:, 0])[large], stored[name][large], rtol=1e-3, err_msg=name)


def test_random_logit_with_two_classes(stored, given):
    found = saliency.random_logit(saliency.GradientTimesInput(), *given, key=KEY)
    np.testing.assert_allclose(found.rank_correlation, stored["random_logit"], atol=1e-4)


def test_the_rise_of_complexity(stored):
    """From maps of both networks: the weights that torch draws are not ours."""
    trained, random = (
        np.asarray(_compute_complexity(stored[name][:, None], 100))[:, 0] for name in ("maps", "random_maps")
    )
    np.testing.assert_allclose((random - trained) / trained, stored["efficient"], atol=1e-5)
