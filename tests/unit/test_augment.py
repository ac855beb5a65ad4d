"""Augmentations: the same key gives the same image, of the same kind, wherever in a batch it is. Mixing likewise."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.stats import beta
from jax.sharding import NamedSharding, PartitionSpec
from support.components import AUGMENTATIONS, MIXERS

from jaxclf.augment import Augmentation, Cutout, Flip, Mixup, Rotate, Shift, augment_batch
from jaxclf.augment.geometric import rotate
from jaxclf.errors import UserError

IMAGES = jnp.asarray(np.random.default_rng(0).integers(1, 256, (6, 9, 7, 3), np.uint8))
LABELS = jax.nn.one_hot(jnp.arange(6) % 4, 4)
KEY = jax.random.key(0)
augment = jax.jit(augment_batch, static_argnums=0)


def varied(augmentation, image, n=500):
    """One image, changed n times."""
    same = jnp.broadcast_to(jnp.asarray(image), (n, *image.shape))
    return np.asarray(augment((augmentation,), KEY, jnp.arange(n), same))


def mixed(mixer, rows=range(6), images=IMAGES, labels=LABELS):
    """Rows mixed, each with the row after it."""
    rows = jnp.array(rows)
    partners = (rows + 1) % 6
    return jax.jit(mixer.mix)(KEY, rows, images[rows], labels[rows], images[partners], labels[partners])


def drawn_weights(mixer, n=4000):
    """The weights of n examples: white images whose partners are black."""
    white, black, labels = jnp.ones((n, 1, 1, 1)), jnp.zeros((n, 1, 1, 1)), jnp.ones((n, 1))
    return np.asarray(jax.jit(mixer.mix)(KEY, jnp.arange(n), white, labels, black, labels)[0]).ravel()


@pytest.fixture(params=AUGMENTATIONS, ids=repr)
def augmentation(request):
    return request.param


@pytest.fixture(params=MIXERS, ids=repr)
def mixer(request):
    return request.param


@pytest.mark.parametrize("dtype", [jnp.uint8, jnp.float32])
def test_shape_and_dtype_are_kept(augmentation, dtype):
    image = augmentation(KEY, IMAGES[0].astype(dtype))
    assert (image.shape, image.dtype) == (IMAGES[0].shape, dtype)


def test_the_same_key_gives_the_same_image(augmentation):
    np.testing.assert_array_equal(augmentation(KEY, IMAGES[0]), augmentation(KEY, IMAGES[0]))


def test_an_image_does_not_depend_on_its_neighbours(augmentation):
    whole = augment((augmentation,), KEY, jnp.arange(6), IMAGES)
    part = augment((augmentation,), KEY, jnp.array([4, 1]), IMAGES[jnp.array([4, 1])])
    np.testing.assert_array_equal(part, whole[jnp.array([4, 1])])


def test_positions_and_places_in_the_list_have_randomness_of_their_own():
    same = jnp.broadcast_to(IMAGES[0], (30, 9, 7, 3))
    once = np.asarray(augment((Shift(2),), KEY, jnp.arange(30), same))
    assert len({image.tobytes() for image in once}) > 10
    twice = np.asarray(augment((Shift(2), Shift(2)), KEY, jnp.arange(30), same))
    assert (once != twice).any()


def test_shift_moves_by_whole_pixels_up_to_its_limit():
    image = np.zeros((9, 9, 1), np.uint8)
    image[4, 4] = 255
    places = {tuple(np.argwhere(one[..., 0])[0] - 4) for one in varied(Shift(2), image)}
    assert places == {(y, x) for y in range(-2, 3) for x in range(-2, 3)}


def test_no_augmentation_changes_nothing():
    assert augment_batch((), KEY, jnp.arange(6), IMAGES) is IMAGES


def test_flip_mirrors_left_and_right_and_is_its_own_inverse():
    mirrored = Flip(1.0)(KEY, IMAGES[0])
    np.testing.assert_array_equal(mirrored, np.fliplr(IMAGES[0]))
    np.testing.assert_array_equal(Flip(1.0)(KEY, mirrored), IMAGES[0])
    np.testing.assert_array_equal(Flip(0.0)(KEY, IMAGES[0]), IMAGES[0])


@pytest.mark.parametrize("probability", [0.2, 0.5])
def test_flip_mirrors_its_share_of_the_images(probability):
    mirrored = (varied(Flip(probability), IMAGES[0], 1000) == np.fliplr(IMAGES[0])).all((1, 2, 3))
    assert abs(mirrored.mean() - probability) < 0.06  # four standard deviations of the mean of 1000


@pytest.mark.parametrize("dtype", [jnp.uint8, jnp.float32])
def test_rotate_by_no_angle_changes_nothing(dtype):
    images = IMAGES.astype(dtype)
    np.testing.assert_array_equal(augment((Rotate(0.0),), KEY, jnp.arange(6), images), images)


@pytest.mark.parametrize(("degrees", "quarters"), [(90.0, 1), (180.0, 2), (-90.0, 3)])
@pytest.mark.parametrize("side", [6, 7])
def test_rotate_by_right_angles_moves_whole_pixels(degrees, quarters, side):
    image = IMAGES[0, :side, :side]
    np.testing.assert_array_equal(rotate(image, degrees), np.rot90(image, quarters))
    in_floats = rotate(image / 255, degrees)
    np.testing.assert_allclose(in_floats, np.rot90(image / 255, quarters), atol=1e-5)


def test_rotate_draws_angles_evenly_up_to_its_limit():
    image = np.zeros((41, 41, 1), np.float32)
    image[20, 40] = 1
    y, x = np.mgrid[20:-21:-1, -20:21]
    weights = varied(Rotate(30.0), image)[..., 0]
    angles = np.degrees(np.arctan2((weights * y).sum((1, 2)), (weights * x).sum((1, 2))))
    assert np.abs(angles).max() < 31
    assert np.abs(np.sort(angles) - np.linspace(-30, 30, 500)).max() < 60 * 0.073  # Kolmogorov-Smirnov at 1 %


def test_rotate_rounds_and_lets_black_in():
    white = np.full((9, 9, 1), 255, np.uint8)
    turned = np.asarray(rotate(jnp.asarray(white), 45.0))[..., 0]
    exact = np.asarray(rotate(jnp.asarray(white, jnp.float32), 45.0))[..., 0]
    assert (turned[[0, 0, -1, -1], [0, -1, 0, -1]] == 0).all() and (turned[3:6, 3:6] == 255).all()
    np.testing.assert_array_equal(turned, np.rint(exact))
    assert (turned > exact).any()


def test_cutout_blacks_a_square_and_leaves_the_rest():
    image = np.asarray(IMAGES[0, :7, :7])
    rows, columns = set(), set()
    for one in varied(Cutout(4), image):
        cut = (one == 0).all(-1)
        inside = np.ix_(cut.any(1), cut.any(0))
        assert cut[inside].all() and 2 <= min(cut[inside].shape) <= max(cut[inside].shape) <= 4
        np.testing.assert_array_equal(one[~cut], image[~cut])
        rows.add(tuple(np.flatnonzero(cut.any(1))))
        columns.add(tuple(np.flatnonzero(cut.any(0))))
    expected = {tuple(range(max(centre - 2, 0), min(centre + 2, 7))) for centre in range(7)}
    assert rows == columns == expected


def test_cutout_of_one_pixel_is_anywhere_alike():
    counts = (varied(Cutout(1), np.ones((4, 5, 1), np.uint8), 2000) == 0).sum((0, 3))
    assert counts.sum() == 2000
    assert ((counts - 100) ** 2 / 100).sum() < 36.2  # chi-square at 1 %, 19 degrees of freedom


def test_cutout_of_nothing_and_of_everything():
    np.testing.assert_array_equal(Cutout(0)(KEY, IMAGES[0]), IMAGES[0])
    assert not Cutout(20)(KEY, IMAGES[0]).any()


def test_mixup_is_linear_in_images_and_labels(mixer):
    images, labels = mixed(mixer)
    assert (images.dtype, labels.dtype) == (jnp.float32, jnp.float32)
    weights = np.asarray(labels)[np.arange(6), np.arange(6) % 4]
    assert ((weights >= 0) & (weights <= 1)).all()
    both = np.asarray(IMAGES, np.float32) / 255
    expected = [
        w * mine + (1 - w) * partner for w, mine, partner in zip(weights, both, np.roll(both, -1, 0), strict=True)
    ]
    np.testing.assert_allclose(images, expected, atol=1e-6)
    np.testing.assert_allclose(labels.sum(1), 1, atol=1e-6)


def test_mixup_takes_integers_and_floats_for_the_same_image(mixer):
    in_floats = mixed(mixer, images=IMAGES.astype(jnp.float32) / 255)
    np.testing.assert_allclose(mixed(mixer)[0], in_floats[0], atol=1e-6)


def test_mixup_of_a_row_depends_on_its_position_and_partner_alone(mixer):
    for whole, part in zip(mixed(mixer), mixed(mixer, rows=[4, 1]), strict=True):
        np.testing.assert_allclose(part, whole[jnp.array([4, 1])], atol=1e-6)


def test_mixup_is_the_same_on_many_devices(mixer):
    mesh = jax.make_mesh((4,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    rows = NamedSharding(mesh, PartitionSpec("data"))
    arguments = jnp.arange(4), IMAGES[:4], LABELS[:4], IMAGES[1:5], LABELS[1:5]
    spread = jax.jit(mixer.mix, in_shardings=(None, *[rows] * 5), out_shardings=rows)
    for one, many in zip(mixer.mix(KEY, *arguments), spread(KEY, *arguments), strict=True):
        np.testing.assert_allclose(one, many, atol=1e-6)
    assert "all-" not in spread.lower(KEY, *arguments).compile().as_text()


@pytest.mark.parametrize("alpha", [0.05, 0.2, 1.0, 8.0])
def test_mixup_draws_its_weights_from_beta(alpha):
    weights = drawn_weights(Mixup(alpha))
    assert weights.min() >= 0 and weights.max() <= 1
    edges = np.array([0, 0.01, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99, 1])
    shares = np.histogram(weights, edges)[0] / len(weights)
    # Four standard deviations of a share of 4000 draws.
    np.testing.assert_allclose(shares, np.diff(beta.cdf(edges, alpha, alpha)), atol=0.032)


def test_mixup_with_extreme_alphas_keeps_one_of_two_or_means_both():
    sides = drawn_weights(Mixup(1e-6))
    assert set(sides) == {0, 1} and abs(sides.mean() - 0.5) < 0.04
    np.testing.assert_allclose(drawn_weights(Mixup(1e6)), 0.5, atol=0.01)


def test_mixup_is_no_augmentation_of_one_image(mixer):
    assert all(isinstance(augmentation, Augmentation) for augmentation in AUGMENTATIONS)
    assert not isinstance(mixer, Augmentation)


@pytest.mark.parametrize(
    ("component", "value"),
    [(Flip, -0.1), (Flip, 1.1), (Rotate, -1.0), (Rotate, 181.0), (Cutout, -1), (Mixup, 0.0), (Mixup, -1.0)],
)
def test_a_value_out_of_range_is_refused(component, value):
    with pytest.raises(UserError, match=f"{value}: expected"):
        component(value)
