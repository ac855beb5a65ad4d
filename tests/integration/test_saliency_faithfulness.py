"""Measures of an attribution against its model: closed forms on linear models, and the contract all of them share."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse.linalg
from support.networks import raise_biases
from support.saliency import traced_rows

from jaxclf import saliency
from jaxclf.errors import UserError
from jaxclf.models import Cnn
from jaxclf.saliency import (
    Attribution,
    deletion,
    faithfulness_correlation,
    infidelity,
    insertion,
    irof,
    road,
    saco,
    sensitivity_n,
    single_deletion,
    srg,
)
from jaxclf.saliency.metrics.faithfulness import _draw_subset
from jaxclf.saliency.metrics.road import impute

B, CLASSES = 5, 4
MODEL = Cnn(features=(2,), dense=(), classes=CLASSES)
IMAGES = np.random.default_rng(0).integers(0, 256, (B, 6, 6, 1), np.uint8)
KEY = jax.random.key(3)
KEYS = jax.random.split(KEY, B)

# Each as (model, variables, images, a, keys, max_rows=…) -> a tree of arrays.
MEASURES = {
    "infidelity": lambda *args, **rows: infidelity(*args[:4], key=args[4], samples=4, **rows),
    "noisy infidelity": lambda *args, **rows: infidelity(
        *args[:4], key=args[4], samples=4, noise=0.1, normalize=True, **rows
    ),
    "sensitivity_n": lambda *args, **rows: sensitivity_n(*args[:4], key=args[4], samples=5, n=9, **rows),
    "faithfulness_correlation": lambda *args, **rows: faithfulness_correlation(
        *args[:4], key=args[4], samples=5, n=9, **rows
    ),
    "srg": lambda *args, **rows: srg(*args[:4], steps=4, **rows),
    "irof": lambda *args, **rows: irof(*args[:4], cells=2, **rows),
    "single_deletion": lambda *args, **rows: single_deletion(*args[:4], cells=2, **rows),
    "saco": lambda *args, **rows: saco(*args[:4], groups=3, **rows),
    "insertion": lambda *args, **rows: insertion(*args[:4], steps=4, **rows),
    "deletion": lambda *args, **rows: deletion(*args[:4], steps=4, **rows),
    "road": lambda *args, **rows: road(*args[:4], key=args[4], percentages=(10, 40, 90), **rows),
}


def linear(variables, images):
    return images.reshape(len(images), -1) @ variables["w"] + variables["b"]


def of(values):
    """An attribution of one class with these values."""
    return Attribution(np.asarray(values, np.float32), np.ones(len(values)), None, None, np.ones(len(values)))


@pytest.fixture(scope="module")
def variables():
    shaped = MODEL.init(jax.random.key(0), IMAGES)
    return raise_biases(jax.tree.map(lambda x: x + 0.3 * jax.random.normal(jax.random.key(1), x.shape), shaped))


@pytest.fixture(scope="module")
def a(variables):
    return saliency.IntegratedGradients(steps=2, rule="left")(MODEL, variables, IMAGES)


@pytest.fixture
def plane(random):
    """A linear model of 12 numbers, three images, and the baseline 0.25: contributions of class 1 are exact."""
    variables = {"w": random.normal(size=(12, 2)).astype(np.float32), "b": np.float32([[0.5, -1]])}
    images = random.random((3, 12)).astype(np.float32)
    return variables, images, (images - 0.25) * variables["w"][None, :, 1]


@pytest.mark.parametrize("measure", MEASURES.values(), ids=MEASURES)
def test_rows_are_bounded_neighbours_do_not_matter_and_new_weights_do_not_compile(measure, variables, a):
    whole = measure(MODEL, variables, IMAGES, a, KEYS)
    assert all(leaf.shape[0] == B and np.isfinite(leaf).all() for leaf in jax.tree.leaves(whole))
    with traced_rows() as rows:
        few = measure(MODEL, variables, IMAGES, a, KEYS, max_rows=3)
    assert 0 < max(rows) <= 3
    same = partial(np.testing.assert_allclose, atol=2e-6, rtol=1e-5)
    jax.tree.map(same, few, whole)
    # Reversed, beside one far from all others, and as floats.
    images = (IMAGES / np.float32(255))[::-1].copy()
    images[0] = 1e4
    beside = measure(MODEL, variables, images, jax.tree.map(lambda x: x[::-1], a), KEYS[::-1])
    jax.tree.map(lambda x, y: same(x[:0:-1], y[:-1]), beside, whole)
    with traced_rows() as rows:
        measure(MODEL, jax.tree.map(lambda x: 2 * x, variables), IMAGES, a, KEYS)
    assert rows == []


def test_infidelity_of_taking_everything_away_is_the_gap_squared(variables, a):
    assert np.abs(a.delta).max() > 0.01
    found = infidelity(MODEL, variables, IMAGES, a, key=KEY, samples=3, share=1.0)
    np.testing.assert_allclose(found, a.delta**2, rtol=1e-4)


def test_what_is_exact_has_no_infidelity(plane):
    """Contributions, of pixels that are taken; slopes, of noise."""
    variables, images, contributions = plane
    slopes = np.broadcast_to(variables["w"][None, :, 1], images.shape)
    ask = partial(infidelity, linear, variables, images, key=KEY, samples=5, targets=1)
    np.testing.assert_allclose(ask(of(contributions), baseline=0.25), 0, atol=1e-10)
    np.testing.assert_allclose(ask(of(slopes), noise=0.3), 0, atol=1e-10)


def test_the_infidelity_of_saying_nothing_is_what_the_score_loses(plane):
    """Its mean and standard error follow from the weights."""
    variables, images, contributions = plane
    samples, share, noise = 4000, 0.3, 0.2
    ask = partial(infidelity, linear, variables, images, of(np.zeros((3, 12))), key=KEY, samples=samples, targets=1)
    taken = ask(share=share, baseline=0.25)
    expected = share * (1 - share) * (contributions**2).sum(axis=1) + (share * contributions.sum(axis=1)) ** 2
    # A sum of 12 is nearly normal: its square spreads by no more than twice its mean.
    np.testing.assert_array_less(np.abs(taken - expected), 4 * 2 * expected / samples**0.5)
    expected = noise**2 * (variables["w"][:, 1] ** 2).sum()
    np.testing.assert_array_less(np.abs(ask(noise=noise) - expected), 4 * 2**0.5 * expected / samples**0.5)


def test_normalized_infidelity_knows_no_scale(variables, a):
    ask = partial(infidelity, MODEL, variables, IMAGES, key=KEY, samples=6)
    once = ask(a, normalize=True)
    assert np.all(once < ask(a))
    for scale in (100, 1e-30):
        np.testing.assert_allclose(ask(a._replace(values=a.values * scale), normalize=True), once, rtol=1e-4)
    zeros = a._replace(values=0 * a.values)
    np.testing.assert_array_equal(ask(zeros, normalize=True), ask(zeros))


def test_sensitivity_n_is_one_where_the_values_are_right_but_for_a_factor(plane):
    variables, images, contributions = plane
    ask = partial(sensitivity_n, linear, variables, images, key=KEY, samples=30, targets=1, baseline=0.25)
    for n in (None, 1, 5):
        np.testing.assert_allclose(ask(of(contributions * 7), n=n), 1, atol=1e-5)
    np.testing.assert_allclose(ask(of(-contributions), n=3), -1, atol=1e-5)


def test_sensitivity_n_of_what_does_not_vary_is_zero(plane):
    variables, images, contributions = plane
    ask = partial(sensitivity_n, linear, variables, images, key=KEY, samples=30, targets=1, baseline=0.25)
    np.testing.assert_array_equal(ask(of(0 * contributions), n=3), 0)
    np.testing.assert_array_equal(ask(of(np.full((3, 12), 0.1)), n=3), 0)
    np.testing.assert_array_equal(ask(of(contributions), n=12), 0)


def test_sensitivity_1_is_the_correlation_over_pixels(plane, random):
    """Of values that have nothing to do with the model, within four standard errors."""
    variables, images, contributions = plane
    values, samples = random.normal(size=(3, 12)), 3000
    found = sensitivity_n(
        linear, variables, images, of(values), key=KEY, n=1, samples=samples, targets=1, baseline=0.25
    )
    expected = [np.corrcoef(*pair)[0, 1] for pair in zip(values, contributions, strict=True)]
    np.testing.assert_allclose(found, expected, atol=4 / samples**0.5)


@pytest.mark.parametrize(("size", "count"), [(1, 1), (7, 7), (784, 156), (50176, 3)])
def test_subsets_have_their_size_and_all_elements_are_equally_likely(size, count):
    draws = 2000 if size < 1000 else 20
    subsets = jax.vmap(lambda key: _draw_subset(key, size, count))(jax.random.split(KEY, draws))
    np.testing.assert_array_equal(subsets.sum(axis=1), count)
    share, counts = count / size, subsets.sum(axis=0)
    excess = ((counts - draws * share) ** 2 / (draws * share * (1 - share) + 1e-9)).mean()
    assert abs(excess - (share < 1)) < 4 * (2 / size) ** 0.5 + 0.1


def test_the_features_of_faithfulness_correlation_are_numbers_and_those_of_sensitivity_n_are_pixels(random):
    """In gray images they are the same; in color images only numbers can be removed one by one."""
    images = random.random((3, 2, 3, 3)).astype(np.float32)
    variables = {"w": random.normal(size=(18, 2)).astype(np.float32), "b": np.zeros((1, 2), np.float32)}
    contributions = images * variables["w"][:, 0].reshape(2, 3, 3)
    ask = partial(faithfulness_correlation, linear, variables, images, key=KEY, samples=40, targets=0, n=5)
    np.testing.assert_allclose(ask(of(contributions)), 1, atol=1e-5)
    assert np.all(ask(of(np.broadcast_to(contributions.mean(axis=3, keepdims=True), images.shape))) < 0.99)
    sums = of(contributions.sum(axis=3, keepdims=True))
    np.testing.assert_allclose(ask(sums), ask(of(np.broadcast_to(sums.values / 3, images.shape))), atol=1e-5)
    gray = [
        measure(linear, variables, images.reshape(3, 18), of(contributions.reshape(3, 18) + 0.1), key=KEY, samples=20)
        for measure in (faithfulness_correlation, sensitivity_n)
    ]
    np.testing.assert_allclose(*gray, atol=1e-6)
    with pytest.raises(UserError, match="n=19: expected 1 to 18"):
        ask(of(contributions), n=19)


def walk(contributions, values, steps):
    """What the largest values at each step add up to, and the areas under that: [b, steps + 1] and [b]."""
    b, n = contributions.shape
    order = np.argsort(-values, axis=1, kind="stable")
    sums = np.cumsum(np.take_along_axis(contributions, order, axis=1), axis=1)
    counts = np.round(np.linspace(0, n, steps + 1)).astype(int)
    curve = np.concatenate([np.zeros((b, 1)), sums], axis=1)[:, counts]
    return curve, np.trapezoid(curve, counts / n, axis=1)


@pytest.mark.parametrize("steps", [1, 5, 12, 30])
def test_insertion_and_deletion_on_a_linear_model(plane, random, steps):
    """In closed form, whatever the ranking, also where steps take unequal numbers of pixels, or none."""
    variables, images, contributions = plane
    values = random.integers(-2, 3, (3, 12))  # with ties
    logits = linear(variables, images)[:, 1]
    curve, area = walk(contributions, values, steps)
    options = {"steps": steps, "targets": 1, "baseline": 0.25, "score": "logit"}
    gone = deletion(linear, variables, images, of(values), **options)
    np.testing.assert_allclose(gone.curve, logits[:, None] - curve, atol=1e-5)
    np.testing.assert_allclose(gone.auc, logits - area, atol=1e-5)
    come = insertion(linear, variables, images, of(values), **options)
    empty = logits - contributions.sum(axis=1)
    np.testing.assert_allclose(come.curve, empty[:, None] + curve, atol=1e-5)
    np.testing.assert_allclose(come.auc, empty + area, atol=1e-5)


def test_the_right_order_has_the_largest_insertion_and_the_smallest_deletion(plane, random):
    variables, images, contributions = plane
    options = {"steps": 12, "targets": 1, "baseline": 0.25, "score": "logit"}

    def areas(values):
        return [measure(linear, variables, images, of(values), **options).auc for measure in (insertion, deletion)]

    best, other = areas(contributions), areas(random.normal(size=(3, 12)))
    assert np.all(best[0] > other[0])
    assert np.all(best[1] < other[1])


def test_the_probability_of_the_predicted_class_is_what_is_followed(variables, a):
    probabilities = jax.nn.softmax(MODEL.apply(variables, IMAGES)).max(axis=1)
    for measure, place in ((deletion, 0), (insertion, -1)):
        np.testing.assert_allclose(measure(MODEL, variables, IMAGES, a).curve[:, place], probabilities, rtol=1e-5)
    np.testing.assert_allclose(
        road(MODEL, variables, IMAGES, a, key=KEY, percentages=(0,)).auc, probabilities, rtol=1e-5
    )


def test_channels_of_a_pixel_go_together_by_their_sum(random):
    """Two pixels of three channels: a map of one channel with the same sums ranks them alike."""
    variables = {"w": random.normal(size=(6, 2)).astype(np.float32), "b": np.zeros((1, 2), np.float32)}
    images = random.random((1, 1, 2, 3)).astype(np.float32)
    values = np.array([[[[9, -9, 1], [0, 0, 2]]]])
    ask = partial(deletion, linear, variables, images, targets=0, steps=2, score="logit")
    contributions = (images.reshape(2, 3) * variables["w"][:, 0].reshape(2, 3)).sum(axis=1)
    expected = [contributions.sum(), contributions[0], 0]
    np.testing.assert_allclose(ask(of(values)).curve[0], expected, atol=1e-5)
    np.testing.assert_allclose(ask(of(values.sum(axis=3, keepdims=True))).curve[0], expected, atol=1e-5)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_class_activation_map_of_flat_images_is_of_their_pixels(random, channels):
    variables = {"w": random.normal(size=(16 * channels, 2)).astype(np.float32), "b": np.zeros((1, 2), np.float32)}
    images = random.random((2, 4, 4, channels)).astype(np.float32)
    a = of(random.normal(size=(2, 4, 4, 1)))
    for measure in (insertion, partial(road, key=KEY, percentages=(30, 60))):
        whole = measure(linear, variables, images, a)
        np.testing.assert_allclose(measure(linear, variables, images.reshape(2, -1), a).curve, whole.curve, atol=1e-6)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.95])
def test_guessed_pixels_solve_the_equations_of_their_neighbours(random, share):
    """Against SciPy's solver, on the system written out; what is not gone stays as it was, bit for bit."""
    images = random.random((4, 9, 7, 3)).astype(np.float32)
    gone = random.random((4, 9, 7)) < share
    gone[:, 0, 0] = False
    found = np.asarray(impute(images, gone))
    np.testing.assert_array_equal(found[~gone], images[~gone])
    for image, hole, guessed in zip(images, gone, found, strict=True):
        np.testing.assert_allclose(guessed, solved(image, hole), atol=2e-5)


def solved(image, hole):
    places = {place: i for i, place in enumerate(zip(*np.nonzero(hole), strict=True))}
    system, right = np.zeros((len(places), len(places))), np.zeros((len(places), image.shape[2]))
    for (y, x), i in places.items():
        for dy, dx in np.ndindex(3, 3):
            other = (y + dy - 1, x + dx - 1)
            if (dy, dx) == (1, 1) or not (0 <= other[0] < hole.shape[0] and 0 <= other[1] < hole.shape[1]):
                continue
            weight = 1 / 6 if 1 in (dy, dx) else 1 / 12
            system[i, i] += weight
            if other in places:
                system[i, places[other]] -= weight
            else:
                right[i] += weight * image[other]
    result = image.astype(np.float64)
    result[hole] = scipy.linalg.solve(system, right, assume_a="pos")
    return result


def test_a_hole_in_a_plane_is_filled_with_the_plane_and_nothing_with_zeros():
    """Inside the image the guess is linear, so it is exact for what is linear."""
    y, x = np.mgrid[:8, :8]
    plane = (0.1 * x + 0.05 * y)[None, :, :, None].astype(np.float32)
    gone = np.zeros((1, 8, 8), bool)
    gone[:, 2:6, 3:7] = True
    np.testing.assert_allclose(impute(plane, gone), plane, atol=1e-5)
    np.testing.assert_array_equal(impute(plane, np.ones((1, 8, 8), bool)), 0)


def test_road_scores_the_guessed_images(random):
    variables = {"w": random.normal(size=(36, 2)).astype(np.float32), "b": np.zeros((1, 2), np.float32)}
    images = random.random((3, 6, 6, 1)).astype(np.float32)
    values = random.normal(size=(3, 6, 6, 1))
    order = np.argsort(np.argsort(-values.reshape(3, -1), axis=1), axis=1).reshape(3, 6, 6)
    expected = np.stack([linear(variables, impute(images, order < count))[:, 0] for count in (4, 18)], axis=1)
    ask = partial(road, linear, variables, images, of(values), key=KEY, percentages=(11, 50), targets=0, score="logit")
    quiet = ask(noise=0.0)
    np.testing.assert_allclose(quiet.curve, expected, atol=1e-4)
    np.testing.assert_allclose(quiet.auc, quiet.curve.mean(axis=1), rtol=1e-6)
    # The noise is on the guessed pixels alone: its share of the score is a sum of as many normal numbers.
    loud = ask(noise=100.0).curve - quiet.curve
    for column, count in zip(loud.T, (4, 18), strict=True):
        spread = 100 * np.sqrt((np.where(order < count, variables["w"][:, 0].reshape(1, 6, 6), 0) ** 2).sum((1, 2)))
        assert np.all((np.abs(column) > 0) & (np.abs(column) < 4 * spread))


def test_what_does_not_fit_is_named(variables, a):
    everything = saliency.all_classes(saliency.Gradient())(MODEL, variables, IMAGES)
    small = saliency.GradCam()(MODEL, variables, IMAGES)
    for wrong in (everything, small, jax.tree.map(lambda x: x[:2], a)):
        with pytest.raises(UserError, match=r"values of shape .* expected those of one class"):
            deletion(MODEL, variables, IMAGES, wrong)
    ask = partial(sensitivity_n, MODEL, variables, IMAGES, a, key=KEY)
    with pytest.raises(UserError, match="n=37: expected 1 to 36"):
        ask(n=37)
    with pytest.raises(UserError, match="samples=1"):
        ask(samples=1)
    with pytest.raises(UserError, match="share=0"):
        infidelity(MODEL, variables, IMAGES, a, key=KEY, samples=1, share=0.0)
    with pytest.raises(UserError, match="steps=0"):
        insertion(MODEL, variables, IMAGES, a, steps=0)
    with pytest.raises(UserError, match="max_rows=0"):
        insertion(MODEL, variables, IMAGES, a, max_rows=0)
    with pytest.raises(UserError, match="expected 0 to 100"):
        road(MODEL, variables, IMAGES, a, key=KEY, percentages=(101,))
    with pytest.raises(UserError, match=r"expected \[b, h, w, c\]"):
        road(linear, {"w": jnp.ones((7, 2)), "b": 0}, jnp.ones((2, 7)), of(np.ones((2, 7))), key=KEY)
