"""What is affine in the image is computed once: where a model is split, and that values do not change."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import ClosedJaxpr
from support.networks import draw_variables

from jaxclf import saliency
from jaxclf.models import Cnn, Mlp, ResNet, Vit
from jaxclf.saliency.affine import split_affine
from jaxclf.saliency.methods.guided_backprop import apply_guided_relu
from jaxclf.saliency.methods.integrated_gradients import compute_quadrature
from jaxclf.saliency.methods.relu import replace_relus
from jaxclf.saliency.query import Query, bind_variables
from jaxclf.xla.interpreter import find_subjaxprs

IMAGES = np.random.default_rng(0).random((3, 8, 8, 3), np.float32)
NETWORKS = {
    "linear": (Mlp((), 4), [(3, 4)]),
    "mlp": (Mlp((7, 5), 4), [(3, 7)]),
    "5 x 5 x 3 convolution": (Cnn((2,), (5,), 4, kernel_size=5), [(3, 8, 8, 2)]),
    "3 x 3 x 3 convolution": (Cnn((2,), (5,), 4), [IMAGES.shape]),  # 27 multiplications an output: not worth it
    "BatchNorm": (ResNet((1, 1), 4, width=4), [(3, 4, 4, 4)]),
    "patches": (Vit(patch=4, width=8, depth=1, heads=2, classes=4, image_size=(8, 8)), [(3, 2, 2, 8)]),
    "bfloat16": (Cnn((2,), (5,), 4, kernel_size=5, dtype="bfloat16"), [IMAGES.shape]),  # conversions round
}


@pytest.fixture(params=NETWORKS)
def network(request):
    model, shapes = NETWORKS[request.param]
    return model, draw_variables(model, IMAGES.shape), shapes


def test_a_model_is_its_rest_after_an_affine_prefix(network, random):
    model, variables, shapes = network
    function = bind_variables(model, variables)
    split = split_affine(function, jnp.asarray(IMAGES))
    other, t = random.random(IMAGES.shape, np.float32), 0.3

    @jax.jit
    def compute(first, last):
        start, end, between = map(split.prefix, (first, last, first + t * (last - first)))
        return start, end, between, split.rest(start), function(first)

    start, end, between, logits, expected = compute(IMAGES, other)
    assert [x.shape for x in start] == shapes
    np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-6)
    for x, y, z in zip(start, end, between, strict=True):
        np.testing.assert_allclose(z, x + t * (y - x), rtol=1e-4, atol=1e-5)


def integrate_directly(function, images, baseline, targets, steps):
    """Integrated gradients with the whole model at each step."""
    gradient = jax.jit(jax.grad(lambda x: function(x)[np.arange(len(x)), targets].sum()))
    nodes, weights = compute_quadrature("gauss_legendre", steps)
    way = images - baseline
    return way * sum(w * gradient(baseline + np.float32(t) * way) for t, w in zip(nodes, weights, strict=True))


def test_integrated_gradients_are_those_of_the_whole_model(network, random):
    model, variables, _ = network
    baseline = random.random(IMAGES.shape, np.float32)
    a = saliency.IntegratedGradients(steps=3)(model, variables, IMAGES, 1, baseline=baseline)
    expected = integrate_directly(bind_variables(model, variables), IMAGES, baseline, 1, 3)
    rounding = 1e-6 if getattr(model, "dtype", "float32") == "float32" else 1e-2
    np.testing.assert_allclose(a.values, expected, atol=rounding * np.abs(expected).max(), rtol=0)
    np.testing.assert_array_equal(a.evaluations, 5)


class Branches(nn.Module):
    """A long affine part: normalization, padding, branches, mean pooling, BatchNorm, a class token, and the image."""

    @nn.compact
    def __call__(self, x, train=False):
        x = (x - 0.5) / 0.2
        wide = nn.Conv(3, (5, 5))(jnp.pad(x, ((0, 0), (2, 0), (0, 1), (0, 0)), constant_values=0.1)[:, 2:, :8])
        y = jnp.concatenate([nn.avg_pool(wide, (2, 2), (2, 2)), nn.Conv(2, (4, 4), strides=2)(x)], axis=-1)
        y = nn.BatchNorm(use_running_average=True)(nn.Conv(4, (3, 3))(y)).reshape(len(x), 16, 4)
        token = jnp.broadcast_to(self.param("token", nn.initializers.ones, (1, 1, 4)), (len(x), 1, 4))
        y = nn.tanh(jnp.concatenate([token, y], axis=1) @ self.param("mix", nn.initializers.ones, (4, 4)))
        return nn.Dense(4)(jnp.concatenate([y.reshape(len(x), -1), (x**2).reshape(len(x), -1)], axis=1))


def test_branches_meet_and_the_image_itself_can_be_used_too():
    variables = draw_variables(Branches(), IMAGES.shape)
    function = bind_variables(Branches(), variables)
    shapes = {x.shape for x in split_affine(function, jnp.asarray(IMAGES)).prefix(IMAGES)}
    assert shapes == {(3, 17, 4), IMAGES.shape}
    a = saliency.IntegratedGradients(steps=3)(Branches(), variables, IMAGES, 2)
    expected = integrate_directly(function, IMAGES, 0 * IMAGES, 2, 3)
    # In float64 both are within 4e-6 of the largest value; the tanh enlarges rounding.
    np.testing.assert_allclose(a.values, expected, atol=4e-6 * np.abs(expected).max(), rtol=0)


def count_multiplications(jaxpr):
    """Those of the matrix products in the loops of a program, for one iteration each."""
    total = 0
    for eqn in jaxpr.eqns:
        if eqn.primitive.name == "dot_general":
            contracted = eqn.params["dimension_numbers"][0][0]
            total += eqn.outvars[0].aval.size * np.prod([eqn.invars[0].aval.shape[axis] for axis in contracted])
        bodies = [body.jaxpr if isinstance(body, ClosedJaxpr) else body for body in find_subjaxprs(eqn)]
        total += sum(map(count_multiplications, bodies))
    return int(total)


@pytest.mark.parametrize("classes", [1, 4])
def test_a_step_does_not_compute_the_first_layer(classes):
    model, b, steps = Mlp((20, 6), 4), 3, 5
    variables = draw_variables(model, IMAGES.shape)
    method = saliency.IntegratedGradients(steps=steps, score="probability")
    call = partial(saliency.all_classes(method) if classes > 1 else method, model, targets=1)
    program = jax.make_jaxpr(call)(variables, IMAGES).jaxpr
    first, others, ends = 192 * 20, 20 * 6 + 6 * 4, 2
    expected = b * ((ends + classes) * first + (ends + steps * (1 + classes)) * others)
    assert count_multiplications(program) == expected


def test_what_a_method_rewrites_is_split_after_it_is_rewritten(random):
    """Guided ReLUs are no part of an affine prefix, and their gradients are what is summed."""
    model = Mlp((7, 5), 4)
    variables, images = draw_variables(model, IMAGES.shape), jnp.asarray(IMAGES)
    query = Query(model, variables, images, jnp.ones(3, int), False, "logit", None, 0 * images, 256)
    query = query.replace(rewrite=partial(replace_relus, relu=apply_guided_relu))
    a = saliency.IntegratedGradients(steps=3).explain(query)
    expected = integrate_directly(query.compute_logits, images, 0 * images, 1, 3)
    np.testing.assert_allclose(a.values[:, 0], expected, atol=1e-6 * np.abs(expected).max(), rtol=0)
    plain = integrate_directly(bind_variables(model, variables), IMAGES, 0 * IMAGES, 1, 3)
    assert np.abs(plain - expected).max() > 0.1 * np.abs(plain).max()


def test_of_many_classes_no_frontier_is_kept_that_is_much_larger_than_the_image():
    model = Cnn((13,), (), 4, kernel_size=5)
    variables, images = draw_variables(model, IMAGES.shape), jnp.asarray(IMAGES)
    query = Query(model, variables, images, None, True, "logit", None, 0 * images, 12)
    assert query.split().prefix(images)[0].shape == (3, 8, 8, 13)
    assert query.replace(max_rows=11).split().prefix(images)[0] is images
    assert query.replace(max_rows=3, every_class=False).split().prefix(images)[0].shape == (3, 8, 8, 13)


def step(variables, images):
    jax.debug.callback(lambda x: CALLS.append(x.shape), images)
    return jax.nn.relu(images.reshape(3, -1) @ variables)


CALLS = []


def test_what_a_model_does_beside_its_output_is_done_at_every_step(random):
    CALLS.clear()
    variables = random.normal(size=(192, 4)).astype(np.float32)
    saliency.IntegratedGradients(steps=4, max_rows=3)(step, variables, IMAGES)
    jax.effects_barrier()
    assert len(CALLS) >= 4 + 2
