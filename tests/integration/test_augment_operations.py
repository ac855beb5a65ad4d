"""Single operations are torchvision's, and several of a policy cost one of each kind.

The results are in tests/fixtures/torchvision_operations.npz, whose script says how they are made.
"""

from pathlib import Path

import jax
import jax.extend
import jax.numpy as jnp
import numpy as np
import pytest

from jaxclf.augment import CenterCrop, RandAugment, TrivialAugment
from jaxclf.augment.color import adjust_color, shift_hue
from jaxclf.augment.policies import OPERATIONS, WIDE, Operation, apply_operations, get_strengths
from jaxclf.augment.resample import resize_crop

FIXTURE = Path(__file__).parents[1] / "fixtures/torchvision_operations.npz"
NAMES = {name.replace("_", ""): i for i, name in enumerate(OPERATIONS)}
apply = jax.jit(apply_operations, static_argnums=(2, 3))


def read_results():
    """The pictures, and what torchvision makes of them, by name."""
    with np.load(FIXTURE) as file:
        arrays = dict(file)
    results, start = {}, 0
    for name, shape in zip(arrays["names"].tolist(), arrays["shapes"].tolist(), strict=True):
        dtype = np.dtype(np.uint16 if name.endswith(" float") else np.uint8)
        size = int(np.prod(shape)) * dtype.itemsize
        array = np.frombuffer(arrays["content"][start : start + size].tobytes(), dtype).reshape(shape)
        results[name] = array / 65535 if dtype == np.uint16 else array
        start += size
    return arrays["small"], arrays["large"], results


SMALL, LARGE, RESULTS = read_results()
PICTURES = {"": SMALL, "float": SMALL / np.float32(255), "gray": SMALL[..., :1], "large": LARGE}
POLICIES = [name for name in RESULTS if "Augment" in name]


def assert_within_a_level(found, expected):
    """Integers differ by at most 1, floats by at most 1/255."""
    assert found.shape == expected.shape
    bound = 1 if found.dtype == np.uint8 else 1 / 255 + 1e-6
    np.testing.assert_allclose(np.asarray(found, np.float64), np.asarray(expected, np.float64), atol=bound, rtol=0)


def draw(name, index=9, sign=1, bins=31):
    return Operation(jnp.array(NAMES[name.lower()]), jnp.float32(index / (bins - 1)), jnp.float32(sign))


@pytest.mark.parametrize("name", POLICIES)
def test_an_operation_of_a_policy_is_that_of_torchvision(name):
    policy, operation, index, sign, interpolation, *kind = name.split()
    image = PICTURES["".join(kind)]
    strengths = get_strengths(image.shape) if policy == "RandAugment" else WIDE
    found = apply(image, [draw(operation, int(index), int(sign))], strengths, interpolation)
    assert_within_a_level(found, RESULTS[name])


COLORS = {
    "brightness": lambda image, factor: adjust_color(image, brightness=factor),
    "contrast": lambda image, factor: adjust_color(image, contrast=factor),
    "saturation": lambda image, factor: adjust_color(image, saturation=factor),
    "hue": shift_hue,
}


@pytest.mark.parametrize("name", [name for name in RESULTS if name.split()[0] in COLORS])
def test_colors_are_those_of_torchvision(name):
    kind, value, *floats = name.split()
    found = COLORS[kind](jnp.asarray(SMALL / np.float32(255) if floats else SMALL), float(value))
    assert_within_a_level(found, RESULTS[name])
    if floats:
        np.testing.assert_allclose(found, RESULTS[name], atol=2e-5)


@pytest.mark.parametrize("name", [name for name in RESULTS if name.startswith("crop")])
def test_a_resized_crop_is_that_of_torchvision(name):
    *numbers, size = (int(part) for part in name.split()[1:6])
    image = jnp.asarray(SMALL / np.float32(255) if name.endswith("float") else SMALL)
    found = resize_crop(image, jnp.array(numbers), (size, size))
    assert_within_a_level(found, RESULTS[name])
    if name.endswith("float"):
        np.testing.assert_allclose(found, RESULTS[name], atol=2e-5)


@pytest.mark.parametrize("name", [name for name in RESULTS if name.startswith("resize")])
def test_resizing_in_evaluation_is_that_of_torchvision_with_antialiasing(name):
    side, floats = int(name.split()[1]), name.endswith("float")
    expected = RESULTS[name] if floats else RESULTS[name] / 255
    left = round((expected.shape[1] - side) / 2)
    image = jnp.asarray(SMALL)[None]
    found = CenterCrop(side, resize=side)(image / 255 if floats else image)[0]
    np.testing.assert_allclose(found, expected[:, left : left + side], atol=2e-5 if floats else 1.01 / 255)


def test_two_warps_are_one():
    first, second = draw("translatex", 29), draw("rotate", 29)
    image = np.zeros((41, 41, 1), np.float32)
    image[18:23, 14:19] = 1
    both = apply(image, [first, second], get_strengths((41, 41, 1)), "bilinear")
    after = apply(image, [first], get_strengths((41, 41, 1)), "bilinear")
    after = apply(after, [second], get_strengths((41, 41, 1)), "bilinear")
    assert np.abs(both - after).max() < 0.05 < np.abs(both - image).max()


@pytest.mark.parametrize("names", [("posterize", "equalize"), ("equalize", "posterize"), ("solarize", "autocontrast")])
def test_two_tables_are_one_after_the_other(names):
    strengths, drawn = get_strengths(LARGE.shape), [draw(name, 15) for name in names]
    one_by_one = apply(apply(LARGE, drawn[:1], strengths, "nearest"), drawn[1:], strengths, "nearest")
    np.testing.assert_array_equal(apply(LARGE, drawn, strengths, "nearest"), one_by_one)


@pytest.mark.parametrize("names", [("rotate", "equalize"), ("color", "posterize"), ("solarize", "sharpness")])
def test_operations_of_different_kinds_have_an_order_of_their_own(names):
    strengths, drawn = get_strengths(LARGE.shape), [draw(name, 15) for name in names]
    one_by_one = apply(apply(LARGE, drawn[:1], strengths, "nearest"), drawn[1:], strengths, "nearest")
    for order in (drawn, drawn[::-1]):
        np.testing.assert_array_equal(apply(LARGE, order, strengths, "nearest"), one_by_one)


def list_primitives(jaxpr):
    """The names of the operations of a program, also of those inside loops and branches."""
    for equation in jaxpr.eqns:
        yield equation.primitive.name
        for inner in jax.extend.core.jaxprs_in_params(equation.params):
            yield from list_primitives(inner)


@pytest.mark.parametrize("policy", [RandAugment(), RandAugment(operations=5), TrivialAugment()], ids=repr)
def test_a_policy_costs_one_warp_and_one_table_for_every_draw(policy):
    keys, images = jax.random.split(jax.random.key(0), 2), np.stack([SMALL] * 2)
    names = list(list_primitives(jax.make_jaxpr(jax.vmap(policy))(keys, images).jaxpr))
    # The stages are the branches of one conditional. If it depended on the image, vmap would have removed it.
    assert names.count("cond") == 1
    tables = getattr(policy, "operations", 1)
    assert names.count("gather") == 1 + 1 + 2 * tables  # pixels, levels; small ones to combine and equalize tables


def test_rand_augment_draws_every_operation():
    images = np.broadcast_to(LARGE, (400, *LARGE.shape))
    changed = jax.jit(jax.vmap(RandAugment(operations=1)))(jax.random.split(jax.random.key(0), 400), images)
    assert len({image.tobytes() for image in np.asarray(changed)}) == 14 + 9  # nine have a direction; identity is one
