"""Initializers of kernels: their spread follows from the shape."""

import jax
import numpy as np
import pytest

from jaxclf.errors import UserError
from jaxclf.models import Normal, VarianceScaling, Vit

SHAPE = (3, 3, 40, 90)
FANS = {"fan_in": 9 * 40, "fan_out": 9 * 90, "fan_avg": 9 * 65}


@pytest.mark.parametrize("mode", FANS)
@pytest.mark.parametrize("distribution", ["uniform", "normal", "truncated_normal"])
def test_the_variance_is_the_scale_over_the_fan(mode, distribution):
    kernel = VarianceScaling(2.0, mode, distribution)(jax.random.key(0), SHAPE)
    assert np.var(kernel) == pytest.approx(2 / FANS[mode], rel=0.05)
    assert abs(np.mean(kernel)) < 4 * np.sqrt(2 / FANS[mode] / kernel.size)


def test_a_model_draws_its_kernels_with_its_initializer():
    model = Vit(patch=4, width=64, depth=1, heads=2, classes=3, image_size=(8, 8), kernel_init=Normal(0.3))
    variables = jax.jit(model.init)(jax.random.key(0), np.zeros((1, 8, 8, 3), np.uint8))
    kernels = [leaf for path, leaf in jax.tree.leaves_with_path(variables) if path[-1].key == "kernel"]
    for kernel in kernels:
        assert np.std(kernel) == pytest.approx(0.3, abs=4 * 0.3 / np.sqrt(2 * kernel.size))
    assert np.std(variables["params"]["positions"]) == pytest.approx(0.02, rel=0.2)


@pytest.mark.parametrize("call", [lambda: Normal(-1.0), lambda: VarianceScaling(0.0)])
def test_wrong_scales_are_named(call):
    with pytest.raises(UserError, match=r"(stddev=-1.0|scale=0.0): expected"):
        call()
