"""Which operations of 24 networks have a rule in the methods that change them, and what the page says of it."""

import json
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.components import ATTENTION_METHODS
from support.components import MODELS as SMALL_MODELS
from support.coverage import METHODS, count_coverage
from support.coverage_models import KERAS, MODELS
from support.frameworks import CHEAPEST, find_import_error, run_python
from support.networks import draw_variables, raise_biases
from support.saliency import replace_layers

from jaxclf import saliency
from jaxclf.errors import UserError
from jaxclf.saliency.methods.grad_cam import ActivationMap

ROOT = Path(__file__).parents[2]
# Functions with a curve, quotients and products of values that depend on the image: FullGrad is not complete there.
CURVED = {
    "div", "dot_general", "erf", "erfc", "exp", "expm1", "integer_pow", "log1p", "logistic", "mul", "rsqrt", "sqrt",
    "square", "tanh",
}  # fmt: skip
PIECEWISE_LINEAR = {
    "Mlp", "Cnn", "SimpsonsCnn", "MaxoutCnn", "ResNet 50", "EfficientNetLite 0", "Flax MNIST CNN",
    "Flax ImageNet ResNet-50", "NNX CNN", "Haiku ResNet-50", "Keras DenseNet121", "Keras ResNet50V2",
}  # fmt: skip


def check(name, counts):
    missing = counts["missing"]
    assert all(missing[method] == {} for method in METHODS if method != "FullGrad"), name
    assert set(missing["FullGrad"]) <= (set() if name in PIECEWISE_LINEAR else CURVED), name
    assert counts["equations"] >= 7, name


@pytest.mark.parametrize("name", [name for name in MODELS if name not in KERAS])
def test_every_operation_has_a_rule(name):
    framework = name.split()[0].lower()
    if framework in ("equinox", "haiku") and (error := find_import_error(framework)):
        pytest.skip(f"{framework} cannot be imported: {error}")
    check(name, count_coverage(*MODELS[name]()))


def test_every_operation_of_keras_has_a_rule():
    if error := find_import_error("keras"):
        pytest.skip(f"keras cannot be imported: {error}")
    done = run_python("-m", "support.coverage", *KERAS)
    assert done.returncode == 0, done.stderr
    for name, counts in json.loads(done.stdout.splitlines()[-1]).items():
        check(name, counts)


def name_reason(model, method):
    """What the error says of a method that does not support a model, or None."""
    if method in ATTENTION_METHODS:
        return "this model has no attention"
    if type(model).__name__ == "Mlp" and (
        isinstance(method, ActivationMap | saliency.Conductance) or "GradCam" in type(method).__name__
    ):
        return "no layer has an output"
    if type(method).__name__ in ("GuidedBackprop", "Deconvnet", "GuidedGradCam") and name_of(model) in NO_RELU:
        return "this model has no ReLU"
    return None


def name_of(model):
    return type(model).__name__


NO_RELU = {"ConvNext", "WhitenedCnn"}
OTHERS = {name_of(model): model for model in SMALL_MODELS if name_of(model) not in ("Cnn", "Vit")}


@pytest.mark.parametrize("model", OTHERS.values(), ids=name_of)
def test_every_method_gives_finite_values_or_a_reason(model):
    """`Cnn` and `Vit` are swept in test_saliency.py and test_saliency_on_vit.py."""
    images = np.random.default_rng(0).random((2, 16, 16, 3), np.float32)
    variables = raise_biases(draw_variables(model, images.shape))
    keys = jax.random.split(jax.random.key(0), 2)
    for method in [*CHEAPEST.values(), *ATTENTION_METHODS[::2]]:
        method = replace_layers(method, relu=False)  # rectified maps may be zero everywhere
        if reason := name_reason(model, method):
            with pytest.raises(UserError, match=reason):
                method(model, variables, images, key=keys)
            continue
        a = method(model, variables, images, key=keys)
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(a)), method
        assert np.abs(a.values).max() > 0, method


def test_operations_without_a_rule_are_counted():
    def model(variables, images):
        hidden = jax.nn.relu(jax.lax.cumprod(images.reshape(images.shape[0], -1), axis=1))
        return jnp.sort(hidden @ variables, axis=1) + jax.lax.cumlogsumexp(hidden, axis=1)[:, :3]

    counts = count_coverage(model, jax.ShapeDtypeStruct((4, 3), jnp.float32), (1, 2, 2, 1))
    assert counts["missing"]["Lrp"] == counts["missing"]["DeepLift"] == {"cumprod": 1, "sort": 1, "cumlogsumexp": 1}
    assert counts["missing"]["Balanced"] == {"cumprod": 1, "cumlogsumexp": 1}
    assert {"cumprod", "cumlogsumexp"} <= set(counts["missing"]["FullGrad"])
    assert (counts["equations"], counts["relus"]) == (8, 1)


def test_the_page_lists_every_model():
    page = (ROOT / "docs/saliency.md").read_text(encoding="utf-8")
    rows = [re.split(r" *\| *", row)[1:-1] for row in page.partition("| model | equations |")[2].splitlines()[2:]]
    rows = rows[: len(MODELS)]
    assert [row[0] for row in rows] == list(MODELS)
    for row in rows:
        assert row[2:5] == ["100 %"] * 3
        assert row[5] in ("100 %", "no ReLU")
        assert (row[6] == "100 %") == (row[0] in PIECEWISE_LINEAR)
