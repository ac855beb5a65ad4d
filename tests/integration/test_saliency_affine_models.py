"""Integrated gradients with the split of the model are those without it, for every model and inside wrappers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.components import MODELS
from support.networks import draw_variables

from jaxclf import saliency
from jaxclf.models import ConvNext
from jaxclf.saliency import affine, query

SHAPES = {"Vit": (3, 12, 12, 3)}
PRECISE = [model for model in MODELS if getattr(model, "dtype", "float32") == "float32"]


def explain(method, model, images):
    variables = draw_variables(model, images.shape)
    keys = jax.random.split(jax.random.key(1), len(images))
    # Without `Method.__call__`, whose compiled programs would be found again.
    asked = query.Query(model, variables, images, None, False, method.score, keys, 0.3 + 0 * images, 8)
    if method.every_class:
        asked = asked.replace(every_class=True)
    return jax.jit(lambda images: method.explain(asked.replace(images=images)))(images)


def compare(method, model, images, monkeypatch):
    """The values with the split, and those without."""
    with_split = explain(method, model, images)
    monkeypatch.setattr(
        query.Query, "split", lambda q: affine.AffineSplit(lambda x: (x,), lambda values: q.compute_logits(*values))
    )
    whole = explain(method, model, images)
    monkeypatch.undo()
    for name in ("values", "score", "delta"):
        x, y = getattr(with_split, name), getattr(whole, name)
        if x is not None:
            scale = np.abs(whole.score if name == "delta" else y).max()
            # Rounding: 0.1e-6 to 0.9e-6 for twelve draws of each model, and 2.9e-6 for one in which the LayerNorm of
            # ConvNext, over four channels, divides by a small deviation.
            tolerance = 1e-5 if isinstance(model, ConvNext) else 2e-6
            np.testing.assert_allclose(x, y, atol=tolerance * max(scale, 1e-3), rtol=0, err_msg=name)


@pytest.mark.parametrize("model", PRECISE, ids=lambda model: f"{type(model).__name__} {getattr(model, 'features', '')}")
def test_values_are_those_without_the_split(model, monkeypatch, random):
    images = jnp.asarray(random.random(SHAPES.get(type(model).__name__, (3, 16, 16, 3)), np.float32))
    monkeypatch.setattr(affine, "MIN_WORK", 1)  # thin convolutions are split off too
    function = query.bind_variables(model, draw_variables(model, images.shape))
    assert all(x.shape != images.shape for x in affine.split_affine(function, images).prefix(images))
    compare(saliency.IntegratedGradients(steps=3, score="margin"), model, images, monkeypatch)


@pytest.mark.parametrize(
    "method",
    [
        saliency.SmoothGrad(saliency.IntegratedGradients(steps=3), samples=5),
        saliency.VarGrad(saliency.IntegratedGradients(steps=2), samples=4, antithetic=True),
        saliency.all_classes(saliency.IntegratedGradients(steps=3, rule="trapezoid", score="log_probability")),
        saliency.all_classes(saliency.SmoothGrad(saliency.IntegratedGradients(steps=2), samples=3)),
    ],
    ids=str,
)
def test_values_inside_wrappers_are_those_without_the_split(method, monkeypatch, random):
    images = jnp.asarray(random.random((3, 16, 16, 3), np.float32))
    compare(method, PRECISE[1], images, monkeypatch)
