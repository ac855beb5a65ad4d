"""Recomputed activations: the same gradients, with less memory."""

from functools import partial

import jax
import numpy as np
import pytest
from support.networks import draw_variables
from support.steps import assert_same

from jaxclf.models import ConvNext, EfficientNetLite, ResNet, Vit
from jaxclf.models.batch_norm import SUMS
from jaxclf.xla.compilation import compile_fast

MODELS = [
    Vit(patch=4, width=8, depth=3, heads=2, classes=3, image_size=(16, 16), attention_dropout=0.2, drop_path=0.3),
    ConvNext(depths=(3,), features=(4,), classes=3, kernel_size=3, layer_scale=0.5, drop_path=0.3),
    ResNet(depths=(5,), width=4, classes=3, stem="cifar", drop_path=0.3),
    EfficientNetLite(
        depths=(3,), features=(4,), classes=3, kernel_sizes=(3,), strides=(1,), expansions=(2,), stem_features=4,
        top_features=4, drop_path=0.3,
    ),
]  # fmt: skip
IMAGES = np.random.default_rng(0).integers(0, 256, (8, 16, 16, 1), np.uint8)


def compute_gradient(model, variables, key):
    def score(variables):
        logits, sums = model.apply(variables, IMAGES, train=True, rngs={"dropout": key}, mutable=[SUMS])
        return (logits**2).mean(), sums

    return jax.grad(score, has_aux=True)(variables)


@pytest.mark.parametrize("model", MODELS, ids=lambda model: type(model).__name__)
def test_remat_gives_equal_gradients_with_less_memory(model):
    arguments = draw_variables(model, IMAGES.shape), jax.random.key(0)
    kept, computed = (
        compile_fast(partial(compute_gradient, model.clone(remat=remat)), arguments) for remat in (False, True)
    )
    assert_same(kept(*arguments), computed(*arguments), atol=1e-5)
    sizes = [program.memory_analysis().temp_size_in_bytes for program in (kept, computed)]
    assert sizes[1] < 0.7 * sizes[0], sizes
