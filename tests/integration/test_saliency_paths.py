"""Integrated gradients along other ways: blurred images, and the way of small gradients. Laws, and PAIR's numbers."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from jaxclf import saliency
from jaxclf.errors import UserError
from jaxclf.saliency import BlurIntegratedGradients, GuidedIntegratedGradients
from jaxclf.saliency.methods.blur_integrated_gradients import blur
from jaxclf.saliency.methods.guided_integrated_gradients import find_smallest

DOTS = np.zeros((1, 5, 5, 1), np.float32)
DOTS[0, 1, 1], DOTS[0, 2, 2] = 0.7, 1


def sines(_, images):
    """The sum of the pixels' sines: every pixel is by itself."""
    return jnp.sin(images).reshape(len(images), -1).sum(axis=1, keepdims=True)


def smooth(weights, images):
    """Three classes of a network without kinks."""
    return jnp.tanh(jnp.einsum("b...,...k->bk", images, weights, precision="highest"))


@pytest.mark.parametrize("sigma", [0.1, 0.3, 1.0, 2.5, 10.0])
def test_blur_is_that_of_scipy(random, sigma):
    """With zeros around the image, height and width each, channels apart; SciPy cuts the Gaussian at 4 by default."""
    images = random.uniform(size=(2, 6, 9, 3)).astype(np.float32)
    sides = (0, sigma, sigma, 0)
    expected = gaussian_filter(images.astype(np.float64), sides, mode="constant", truncate=9)
    np.testing.assert_allclose(blur(images, jnp.float32(sigma), 10.0), expected, atol=1e-6)
    peer = gaussian_filter(images.astype(np.float64), sides, mode="constant")
    np.testing.assert_allclose(blur(images, jnp.float32(sigma), 10.0), peer, atol=2e-4)


def test_blur_of_flat_images_is_along_their_one_axis(random):
    images = random.uniform(size=(2, 9)).astype(np.float32)
    expected = gaussian_filter(images.astype(np.float64), (0, 2.0), mode="constant", truncate=9)
    np.testing.assert_allclose(blur(images, jnp.float32(2.0), 2.0), expected, atol=1e-6)


def test_blur_ig_of_the_sine_is_its_change_in_each_pixel():
    """PAIR saliency, core/blur_ig_test.py: there to two decimals after 4,000 steps, here to five after 30."""
    start = gaussian_filter(DOTS.astype(np.float64), (0, 10, 10, 0), mode="constant", truncate=9)
    expected = np.sin(DOTS) - np.sin(start)
    errors = [
        np.abs(BlurIntegratedGradients(steps=steps, max_sigma=10.0)(sines, {}, DOTS).values - expected).max()
        for steps in (4, 8, 30)
    ]
    assert errors[0] > 10 * errors[1]
    assert errors[1] > 10 * errors[2]
    assert errors[2] < 1e-5


def test_blur_ig_is_complete_as_steps_grow(random):
    images = random.uniform(size=(3, 8, 8, 2)).astype(np.float32)
    weights = random.normal(size=(8, 8, 2, 3)).astype(np.float32) / 4
    deltas = [
        np.abs(saliency.all_classes(BlurIntegratedGradients(steps))(smooth, weights, images).delta).max()
        for steps in (5, 10, 40)
    ]
    assert deltas[0] > 5 * deltas[1]
    assert deltas[1] > 5 * deltas[2]
    assert deltas[2] < 1e-5


def test_blur_ig_does_not_depend_on_how_many_go_at_once(random):
    """A peer weighs a whole batch of steps by the width of one of them: its sums were 1.522, 1.109 and 0.451."""
    images = random.uniform(size=(3, 8, 8, 1)).astype(np.float32)
    weights = random.normal(size=(8, 8, 1, 3)).astype(np.float32) / 4
    alone = BlurIntegratedGradients(steps=20, max_rows=1)(smooth, weights, images, 1)
    for rows in (10, 100):
        together = BlurIntegratedGradients(steps=20, max_rows=rows)(smooth, weights, images, 1)
        np.testing.assert_allclose(together.values, alone.values, atol=1e-6)


def test_blur_ig_of_nothing_is_nothing():
    a = BlurIntegratedGradients(steps=5)(sines, {}, np.zeros((1, 6, 6, 1), np.float32))
    assert not a.values.any()
    assert a.evaluations == 5 + 2


def weighted_sum(_, x):
    """2a + b, beside a class that is nothing."""
    return jnp.stack([2 * x[:, 0] + x[:, 1], 0 * x[:, 0]], axis=1)


def squares(_, x):
    """2a^2 + b^2: the pixels are apart, and every way gives the same."""
    return (2 * x[:, 0] ** 2 + x[:, 1] ** 2)[:, None]


def square_of_sum(_, x):
    """(2a + b)^2: the way matters."""
    return ((2 * x[:, 0] + x[:, 1]) ** 2)[:, None]


GUIDED = partial(GuidedIntegratedGradients, fraction=0.1)
FAR = np.array([[3.0, 3.0]], np.float32)


@pytest.mark.parametrize(("baseline", "expected"), [([-1.0, -3.0], [22, 8]), (None, [20, 5])])
def test_guided_ig_of_a_linear_model_is_exact(baseline, expected):
    """PAIR saliency, core/guided_ig_test.py."""
    baseline = None if baseline is None else np.array(baseline, np.float32)
    method = GUIDED(steps=10, max_dist=0.5)
    a = method(weighted_sum, {}, np.array([[10.0, 5.0]], np.float32), baseline=baseline)
    np.testing.assert_allclose(a.values[0], expected, rtol=1e-5)
    np.testing.assert_allclose(a.delta, 0, atol=1e-5)


@pytest.mark.parametrize(
    ("model", "images", "baseline", "fields", "expected"),
    [
        (squares, FAR, 0 * FAR, {"max_dist": 0.4}, [18, 9]),
        (squares, 0 * FAR, FAR, {"max_dist": 0.4}, [-18, -9]),
        (square_of_sum, FAR, 0 * FAR, {"max_dist": 0.0}, [54, 27]),
        (square_of_sum, FAR, 0 * FAR, {"max_dist": 0.5, "fraction": 1.0}, [54, 27]),
        (square_of_sum, FAR, 0 * FAR, {"max_dist": 1.0}, [72, 9]),
    ],
)
def test_guided_ig_has_the_numbers_of_a_peer(model, images, baseline, fields, expected):
    """PAIR saliency, core/guided_ig_test.py: to one per cent after 1,000 steps, and the error falls as steps grow."""
    errors = [
        np.abs(GUIDED(steps=steps, **fields)(model, {}, images, baseline=baseline).values[0] / np.array(expected) - 1)
        for steps in (100, 1000)
    ]
    assert (errors[1] < 0.01).all()
    assert (errors[1] < errors[0] / 5).all()


def test_guided_ig_lies_between_the_straight_line_and_the_free_way():
    """PAIR saliency, core/guided_ig_test.py."""
    a = GUIDED(steps=1000, max_dist=0.2)(square_of_sum, {}, FAR)
    assert 55 < a.values[0, 0] < 71
    assert 10 < a.values[0, 1] < 26
    assert np.abs(a.delta) < 0.1
    assert a.evaluations == 1000 + 2


def guided_alone(gradient, image, baseline, steps, fraction, max_dist):
    """Algorithm 1 of the paper for one image, pixel by pixel in float64."""
    way = image - baseline
    done, values = np.zeros_like(image), np.zeros_like(image)
    for number in range(1, steps + 1):
        slope, target = gradient(baseline + done * way), number / steps
        low, high = max(target - max_dist, 0), min(target + max_dist, 1)
        before, done = done, np.maximum(done, low)
        while (gap := (target - done) @ np.abs(way)) > 1e-9:
            free = (done < high) & (way != 0)
            size = np.where(free, np.abs(slope), np.inf)
            chosen = free & (size <= np.quantile(size, fraction, method="lower"))
            room = (np.abs(way) * (high - done))[chosen].sum()
            done = np.where(chosen, done + min(1, gap / room) * (high - done), done)
            done = np.where(chosen & (gap >= room), high, done)
        values += (done - before) * way * slope
    return values


@pytest.mark.parametrize(("fraction", "max_dist"), [(0.25, 0.02), (0.1, 0.3), (0.0, 1.0)])
def test_guided_ig_follows_the_algorithm_for_each_example_and_class(random, fraction, max_dist):
    """Of the float64 loop; three of twelve pixels are at the baseline, and do not move."""
    images = random.uniform(size=(4, 12)).astype(np.float32)
    weights = random.normal(size=(12, 3)).astype(np.float32) / 4  # where the tangent is not flat to rounding
    images[:, :3] = 0.5
    method = GuidedIntegratedGradients(8, fraction, max_dist, max_rows=8)
    a = saliency.all_classes(method)(smooth, weights, images, baseline=0.5)
    for i, c in np.ndindex(4, 3):
        column = weights[:, c].astype(np.float64)
        expected = guided_alone(
            lambda x, column=column: column / np.cosh(column @ x) ** 2,
            images[i].astype(np.float64), np.full(12, 0.5), 8, fraction, max_dist,
        )  # fmt: skip
        np.testing.assert_allclose(a.values[i, c], expected, atol=1e-5 * np.abs(expected).max())
    assert (a.evaluations == 3 * 8 + 2).all()


def test_guided_ig_where_all_gradients_are_equal_moves_all_pixels_alike():
    """Ties go together: half of the pixels are asked for, and all of them answer."""
    images = np.array([[0.2, 0.8, 0.5, 0.1]], np.float32)
    a = GuidedIntegratedGradients(10, fraction=0.5)(square_of_all, {}, images)
    straight = saliency.IntegratedGradients(10, rule="left")(square_of_all, {}, images)
    np.testing.assert_allclose(a.values, straight.values, rtol=1e-5)


def square_of_all(_, x):
    """A square of the sum: at every image all pixels have one gradient."""
    return (x.sum(axis=1, keepdims=True)) ** 2


def test_guided_ig_at_the_baseline_is_nothing_and_ends_where_gradients_are_no_numbers():
    images = np.array([[0.5, 0.5], [0.5, 0.0]], np.float32)
    still = GuidedIntegratedGradients(5)(weighted_sum, {}, images, baseline=images)
    assert not still.values.any()
    root = GuidedIntegratedGradients(5)(lambda _, x: jnp.sqrt(x - 1).sum(axis=1)[:, None], {}, images)
    assert np.isnan(root.values).any()


@pytest.mark.parametrize(
    ("method", "fields", "words"),
    [
        (BlurIntegratedGradients, {"steps": 0}, "steps=0: expected at least 1"),
        (BlurIntegratedGradients, {"max_sigma": 0.1}, "max_sigma=0.1: expected more than 0.15"),
        (GuidedIntegratedGradients, {"steps": 0}, "steps=0: expected at least 1"),
        (GuidedIntegratedGradients, {"fraction": 1.5}, "fraction=1.5: expected 0 to 1"),
        (GuidedIntegratedGradients, {"max_dist": -0.1}, "max_dist=-0.1: expected 0 to 1"),
    ],
)
def test_ways_that_lead_nowhere_are_refused(method, fields, words):
    with pytest.raises(UserError, match=words):
        method(**fields)


@pytest.mark.parametrize("dtype", ["float16", "float32", "bfloat16"])
def test_a_value_is_found_at_its_place_of_the_sorted_array(random, dtype):
    tiny = float(jnp.finfo(dtype).smallest_subnormal)
    values = jnp.asarray([*random.exponential(size=20), 0, 0, tiny, 1, 1, 1, np.inf, np.inf, np.nan], dtype)
    values = random.permutation(values)
    found = jax.vmap(find_smallest, (None, 0))(jnp.asarray(values), jnp.arange(len(values)))
    np.testing.assert_array_equal(found.astype("float32"), np.sort(values.astype("float32")))


@pytest.mark.parametrize("jacobian", [jax.jacfwd, jax.jacrev])
def test_guided_ig_can_be_differentiated_through_its_loop(jacobian):
    """Values of a square at a multiple of an image are multiples, squared, and Euler's theorem holds."""
    method = GuidedIntegratedGradients(20, fraction=0.4, max_dist=0.1)
    images = np.array([[0.5, 0.9, 0.3]], np.float32)

    def values(x):
        return method(square_of_sum, {}, x).values[0]

    np.testing.assert_allclose(jacobian(values)(images)[:, 0] @ images[0], 2 * values(images), rtol=1e-4)
