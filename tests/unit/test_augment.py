"""Augmentations: the same key gives the same image, of the same kind, wherever in a batch it is."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec
from support.components import AUGMENTATIONS, EVALUATION_TRANSFORMS

from jaxclf.augment import (
    CenterCrop,
    ColorJitter,
    CutMix,
    Cutout,
    Flip,
    Mixup,
    MixupOrCutMix,
    RandAugment,
    RandomCrop,
    RandomErasing,
    RandomResizedCrop,
    Rotate,
    Shift,
    TrivialAugment,
    augment_batch,
    compute_output_shape,
    make_views,
)
from jaxclf.augment.geometric import rotate
from jaxclf.errors import UserError

IMAGES = jnp.asarray(np.random.default_rng(0).integers(1, 256, (6, 9, 7, 3), np.uint8))
KEY = jax.random.key(0)
augment = jax.jit(augment_batch, static_argnums=0)


def varied(augmentation, image, n=500):
    """One image, changed n times."""
    same = jnp.broadcast_to(jnp.asarray(image), (n, *image.shape))
    return np.asarray(augment((augmentation,), KEY, jnp.arange(n), same))


@pytest.fixture(params=AUGMENTATIONS, ids=repr)
def augmentation(request):
    return request.param


@pytest.mark.parametrize("dtype", [jnp.uint8, jnp.float32])
def test_shape_is_as_declared_and_dtype_is_kept(augmentation, dtype):
    image = jax.eval_shape(augmentation, KEY, IMAGES[0].astype(dtype))
    assert (image.shape, image.dtype) == (compute_output_shape((augmentation,), IMAGES.shape[1:]), dtype)


def test_shapes_are_composed():
    some = RandomCrop(8, padding=1), Flip(), RandomResizedCrop(5)
    assert compute_output_shape(some, (9, 7, 3)) == (5, 5, 3)
    assert jax.eval_shape(partial(augment_batch, some), KEY, jnp.arange(6), IMAGES).shape == (6, 5, 5, 3)


def test_a_size_that_is_not_declared_is_an_error():
    class Half:
        def __call__(self, key, image):
            return image[::2, ::2]

    with pytest.raises(UserError, match=r"Half returns an image \[5, 4, 3\] where \[9, 7, 3\] is declared"):
        augment_batch((Half(),), KEY, jnp.arange(6), IMAGES)


def test_an_image_depends_on_its_key_and_position_alone(augmentation):
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


def test_an_image_is_the_same_on_one_device_and_on_many():
    some = RandomCrop(8, padding=2), RandomResizedCrop(6), RandAugment(), RandomErasing(1.0)
    mesh = jax.make_mesh((4,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    rows = NamedSharding(mesh, PartitionSpec("data"))
    whole = augment(some, KEY, jnp.arange(4), IMAGES[:4])
    spread = jax.jit(lambda *arguments: augment_batch(some, *arguments), in_shardings=(None, rows, rows))
    np.testing.assert_array_equal(whole, spread(KEY, jnp.arange(4), IMAGES[:4]))


def test_random_crop_is_anywhere_alike():
    image = np.arange(30, dtype=np.uint8).reshape(5, 6, 1)
    crops = varied(RandomCrop(3), image, 600)
    assert {tuple(crop.ravel()) for crop in crops} == {
        tuple(image[y : y + 3, x : x + 3].ravel()) for y in range(3) for x in range(4)
    }
    counts = np.unique(crops[:, 0, 0, 0], return_counts=True)[1]
    assert ((counts - 50) ** 2 / 50).sum() < 24.7  # chi-square at 1 %, 11 degrees of freedom


@pytest.mark.parametrize("mode", ["constant", "edge", "reflect"])
def test_random_crop_pads_as_numpy_does(mode):
    image = np.random.default_rng(0).integers(1, 256, (4, 4, 1), np.uint8)
    padded = np.pad(image, ((2, 2), (2, 2), (0, 0)), mode)
    expected = {padded[y : y + 6, x : x + 6].tobytes() for y in range(3) for x in range(3)}
    assert {crop.tobytes() for crop in varied(RandomCrop(6, 2, mode), image, 100)} == expected


def find_boxes(images):
    """Height and width of what is marked in each image."""
    return np.stack([images.any((2, 3)).sum(1), images.any((1, 3)).sum(1)], 1)


def test_random_erasing_draws_boxes_of_its_areas_and_ratios():
    white = np.full((40, 50, 1), 255, np.uint8)
    erased = varied(RandomErasing(0.7, scale=(0.1, 0.3), ratio=(0.5, 2.0)), white, 1000) != 255
    sizes = find_boxes(erased)
    some = sizes.all(1)
    assert abs(some.mean() - 0.7) < 0.06  # four standard deviations of the mean of 1000
    areas, ratios = sizes[some].prod(1) / 2000, sizes[some, 0] / sizes[some, 1]
    assert (erased[some].sum((1, 2, 3)) == sizes[some].prod(1)).all()
    # Sides are rounded: by half a pixel of at most 17 x 35.
    assert 0.087 < areas.min() < 0.11 and 0.29 < areas.max() < 0.313
    assert 0.46 < ratios.min() < 0.55 and 1.8 < ratios.max() < 2.15
    assert abs(np.log(ratios).mean()) < 0.08  # standard deviation 0.4 over 700 draws; fours of it, and rounding


def test_random_erasing_fills_with_its_value():
    for dtype, value in ((np.uint8, 128), (np.float32, 0.5)):
        erased = varied(RandomErasing(1.0, value=0.5), np.ones((8, 8, 3), dtype), 50)
        assert set(np.unique(erased)) == {1, value}


def test_random_resized_crop_takes_parts_of_its_areas_and_ratios():
    y, x = np.mgrid[:48, :64].astype(np.float32)
    image = np.stack([y, x, 0 * x], -1) / 64
    crops = 64 * varied(RandomResizedCrop(32, scale=(0.2, 0.8), ratio=(0.8, 1.25)), image)
    # Slopes where nothing is continued beyond the outermost centers.
    height, width = (32 * (crops[:, 16, 16, i] - crops[:, 15, 15, i]) for i in (0, 1))
    areas, ratios = height * width / (48 * 64), width / height
    # Sides are rounded: by half a pixel of at most 44 x 56.
    assert 0.19 < areas.min() < 0.22 and 0.75 < areas.max() < 0.817
    assert 0.77 < ratios.min() < 0.84 and 1.2 < ratios.max() < 1.3
    assert abs(np.log(ratios).mean()) < 0.03
    starts = crops[:, 15:17, 15:17, :2].mean((1, 2)) - np.stack([height, width], 1) / 2 + 0.5
    assert (starts > -0.01).all() and (starts + np.stack([height, width], 1) < [48.01, 64.01]).all()


def test_random_resized_crop_of_a_long_image_is_its_center_where_no_part_fits():
    image = np.broadcast_to(np.arange(60, dtype=np.float32)[None, :, None] / 60, (10, 60, 1))
    crops = 60 * varied(RandomResizedCrop(20, scale=(1.0, 1.0)), image, 5)
    assert (crops == crops[:1]).all()
    np.testing.assert_allclose(crops[0, 0, :, 0].mean(), 29.5, atol=1)  # from 23.5 to 36.5: 10 x 13 pixels
    np.testing.assert_allclose(np.diff(crops[0, 0, 2:18, 0]), 13 / 20, atol=1e-4)


def test_color_jitter_draws_factors_evenly():
    gray = np.full((2, 2, 1), 0.4, np.float32)
    factors = varied(ColorJitter(brightness=0.5), gray)[:, 0, 0, 0] / 0.4
    assert np.abs(np.sort(factors) - np.linspace(0.5, 1.5, 500)).max() < 0.073  # Kolmogorov-Smirnov at 1 %


def test_color_jitter_of_nothing_changes_nothing():
    np.testing.assert_array_equal(augment((ColorJitter(),), KEY, jnp.arange(6), IMAGES), IMAGES)


@pytest.mark.parametrize(
    ("component", "value"),
    [
        (Flip, -0.1), (Flip, 1.1), (Rotate, -1.0), (Rotate, 181.0), (Cutout, -1), (Mixup, 0.0), (Mixup, -1.0),
        (CutMix, 0.0), (RandomCrop, 0), (RandomResizedCrop, 0), (ColorJitter, -0.1), (RandomErasing, 1.5),
        (RandAugment, 0), (TrivialAugment, 1), (CenterCrop, 0),
    ],
)  # fmt: skip
def test_a_value_out_of_range_is_refused(component, value):
    with pytest.raises(UserError, match=f"{value}: expected"):
        component(value)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RandomResizedCrop(8, scale=(0.5, 0.1)), "scale=.*: expected a low and a high value"),
        (lambda: RandomErasing(ratio=(0.0, 1.0)), "ratio=.*: expected a low and a high value"),
        (lambda: RandomErasing(value=2.0), "value=2.0: expected 0 to 1"),
        (lambda: ColorJitter(hue=0.6), "hue=0.6: expected 0 to 0.5"),
        (lambda: RandAugment(magnitude=31), "magnitude=31: expected 0 to 30"),
        (lambda: MixupOrCutMix(cutmix_probability=2.0), "cutmix_probability=2.0: expected 0 to 1"),
        (lambda: CenterCrop(8, resize=7), "resize=7: expected at least the size of the crop, 8"),
    ],
)
def test_fields_that_do_not_fit_are_refused(make, message):
    with pytest.raises(UserError, match=message):
        make()


@pytest.mark.parametrize("crop", [RandomCrop(10), RandomCrop(12, padding=2), CenterCrop(8), CenterCrop(9)], ids=repr)
def test_an_image_smaller_than_the_crop_is_refused(crop):
    with pytest.raises(UserError, match=r"does not fit into images \[9, 7, 3\]: lower size to"):
        crop.output_shape((9, 7, 3))


@pytest.mark.parametrize(
    ("augmentation", "channels"),
    [(ColorJitter(saturation=0.1), 1), (ColorJitter(hue=0.1), 1), (ColorJitter(contrast=0.1), 2), (RandAugment(), 4)],
)
def test_other_numbers_of_channels_are_refused(augmentation, channels):
    with pytest.raises(UserError, match=f"and these have {channels}"):
        jax.eval_shape(augmentation, KEY, jnp.zeros((8, 8, channels)))


@pytest.fixture(params=EVALUATION_TRANSFORMS, ids=repr)
def transform(request):
    return request.param


def test_evaluation_transforms_declare_their_shape(transform):
    assert transform(IMAGES).shape[1:] == transform.output_shape(IMAGES.shape[1:])


def test_evaluation_transforms_take_integers_and_floats_for_the_same_image(transform):
    integers = np.asarray(transform(IMAGES), np.float32)
    floats = transform(IMAGES / 255)
    np.testing.assert_allclose(integers / (1 if transform.resize else 255), floats, atol=1e-6)


def test_center_crop_keeps_the_middle():
    np.testing.assert_array_equal(CenterCrop(5)(IMAGES), IMAGES[:, 2:7, 1:6])


def test_views_are_mirrored_and_shifted():
    image = jnp.asarray(np.arange(1, 26, dtype=np.uint8).reshape(1, 5, 5, 1))
    views = make_views("shifts", image)
    assert sum(weight for weight, _ in views) == 1
    assert [weight for weight, _ in views] == [0.25, 0.25, 0.125, 0.125, 0.125, 0.125]
    plain, _, down, _, up, mirrored = (np.asarray(view)[0, ..., 0] for _, view in views)
    np.testing.assert_array_equal(plain, image[0, ..., 0])
    np.testing.assert_array_equal(down[1:, 1:], plain[:-1, :-1])
    np.testing.assert_array_equal(up[:-1, :-1], plain[1:, 1:])
    np.testing.assert_array_equal(up[-1], [*plain[-2, 1:], plain[-2, -2]])  # reflected
    np.testing.assert_array_equal(mirrored, up[:, ::-1])
    np.testing.assert_array_equal(make_views("flip", image)[1][1], image[:, :, ::-1])
