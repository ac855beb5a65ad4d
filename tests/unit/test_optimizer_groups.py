"""Groups of parameters: what is frozen, at which rate and with which decay each one is trained."""

import csv

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from support.components import MODELS
from support.networks import Declared

from jaxclf.errors import UserError
from jaxclf.models import Cnn
from jaxclf.models.calling import initialize_model
from jaxclf.optimizers import Adam, AdamW, Lamb, Lion, Muon, Sgd
from jaxclf.optimizers.groups import assign_layers, list_parameters, match_path, summarize_groups, write_assignments

MODEL = Cnn(features=(2, 3), dense=(4,), classes=3)
IMAGES = jax.ShapeDtypeStruct((1, 8, 8, 1), jnp.uint8)
FROZEN = ("conv*", "dense1/bias")


def get_shapes(model):
    """Shapes of the parameters of a model."""
    _, variables = jax.eval_shape(
        lambda key: initialize_model(model, key, jnp.zeros(IMAGES.shape, jnp.uint8)), jax.random.key(0)
    )
    return variables["params"]


def draw(seed=0):
    """Values of the parameters, or of their gradients."""
    random = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: jnp.float32(random.normal(size=leaf.shape)), get_shapes(MODEL))


def move(optimizer, params, gradients):
    """The changes of the parameters in one step, and the state of the optimizer."""
    transformation = optimizer.build(10, model=MODEL)
    updates, state = transformation.update(gradients, transformation.init(params), params)
    return updates, state


@pytest.mark.parametrize(
    ("path", "pattern", "matches"),
    [
        ("stage1_block2/conv1/kernel", "stage*", True),
        ("stage1_block2/conv1/kernel", "stage1_block2", True),
        ("stage1_block2/conv1/kernel", "stage1_block", False),
        ("stage1_block2/conv1/kernel", "conv1", False),
        ("stage1_block2/conv1/kernel", "*/conv1", True),
        ("stage1_block2/conv1/kernel", "*/bias", False),
        ("stem/kernel", "stem/kernel", True),
    ],
)
def test_a_pattern_matches_whole_names_from_the_top(path, pattern, matches):
    assert match_path(path, pattern) == matches


@pytest.mark.parametrize("model", MODELS, ids=repr)
def test_models_declare_their_layers_and_the_last_one_is_the_head(model):
    paths = [each.path for each in list_parameters(get_shapes(model))]
    layers = assign_layers(model.layer_groups, paths)
    assert sorted(set(layers.values())) == list(range(len(model.layer_groups)))
    assert {path for path in paths if layers[path] == len(model.layer_groups) - 1} == {"logits/bias", "logits/kernel"}


@pytest.mark.parametrize("make", [Sgd, AdamW, Lion, Lamb, Muon])
def test_frozen_parameters_keep_every_bit_and_have_no_state(make):
    params = jax.tree.map(lambda x: x.at[..., 0].set(-0.0), draw())
    updates, state = jax.jit(lambda: move(make(learning_rate=0.1, weight_decay=0.1, freeze=FROZEN), params, draw(1)))()
    after = jax.tree.map(np.asarray, optax.apply_updates(params, updates))
    for (path, before), (_, x) in zip(*map(jax.tree_util.tree_leaves_with_path, (params, after)), strict=True):
        frozen = path[0].key.startswith("conv") or [key.key for key in path] == ["dense1", "bias"]
        assert (np.asarray(before).tobytes() == x.tobytes()) == frozen
    kept = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(state)]
    assert not any("conv" in path or "['dense1']['bias']" in path for path in kept)
    assert make is Sgd or any("['dense1']['kernel']" in path for path in kept)


@pytest.mark.parametrize("make", [Sgd, AdamW, Lion])
def test_frozen_parameters_do_not_change_what_the_others_get(make):
    params, gradients = draw(), draw(1)
    whole, _ = move(make(learning_rate=0.1), params, gradients)
    part, _ = move(make(learning_rate=0.1, freeze=FROZEN), params, gradients)
    np.testing.assert_array_equal(part["dense1"]["kernel"], whole["dense1"]["kernel"])
    np.testing.assert_array_equal(part["logits"]["bias"], whole["logits"]["bias"])


@pytest.mark.parametrize("make", [Sgd, AdamW, Lion, Lamb])
def test_rates_multiply_the_steps_of_a_layer(make):
    params, gradients = draw(), draw(1)
    plain, _ = move(make(learning_rate=0.1, weight_decay=0.1), params, gradients)
    rated, _ = move(make(learning_rate=0.1, weight_decay=0.1, layer_decay=0.5, head_rate=4.0), params, gradients)
    for name, rate in {"conv1": 1 / 8, "conv2": 1 / 4, "dense1": 1 / 2, "logits": 4.0}.items():
        jax.tree.map(lambda x, y, rate=rate: np.testing.assert_array_equal(x, rate * y), rated[name], plain[name])


def test_clipping_is_by_the_norm_of_what_is_trained():
    params, gradients = draw(), draw(1)
    updates, _ = move(Sgd(learning_rate=1.0, clip_norm=0.1, freeze=("conv*", "dense1")), params, gradients)
    assert float(optax.tree.norm(updates["logits"])) == pytest.approx(0.1)


def test_only_kernels_decay_unless_all_do():
    params = draw()
    zeros = jax.tree.map(jnp.zeros_like, params)
    for decay, factors in (("kernels", {"kernel": -0.05, "bias": 0.0}), ("all", {"kernel": -0.05, "bias": -0.05})):
        updates, _ = move(AdamW(learning_rate=0.1, weight_decay=0.5, decay=decay), params, zeros)
        for name, factor in factors.items():
            np.testing.assert_allclose(updates["conv1"][name], factor * params["conv1"][name], rtol=1e-6)


def test_without_groups_the_state_is_that_of_optax():
    params = draw()
    for ours, theirs in (
        (Sgd(learning_rate=0.1, momentum=0.9), optax.sgd(optax.constant_schedule(0.1), 0.9)),
        (Sgd(learning_rate=0.1), optax.sgd(optax.constant_schedule(0.1))),
    ):
        structures = [jax.tree.structure(each.init(params)) for each in (ours.build(10), theirs)]
        assert structures[0] == structures[1]  # so that runs of earlier versions resume


def test_adam_is_that_of_optax_to_the_bit():
    params, gradients = draw(), draw(1)
    theirs = optax.adamw(optax.constant_schedule(0.1), 0.7, 0.9, 1e-7, weight_decay=0.1)
    expected = theirs.update(gradients, theirs.init(params), params)
    found = move(Adam(learning_rate=0.1, beta1=0.7, beta2=0.9, epsilon=1e-7, weight_decay=0.1), params, gradients)
    jax.tree.map(np.testing.assert_array_equal, found, expected)


def test_the_table_lists_every_parameter(tmp_path):
    optimizer = AdamW(learning_rate=0.1, weight_decay=0.05, freeze=("conv1",), layer_decay=0.5, head_rate=10.0)
    assignments = optimizer.assign_groups(get_shapes(MODEL), MODEL)
    write_assignments(tmp_path / "parameters.csv", assignments)
    with (tmp_path / "parameters.csv").open(newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["path", "shape", "group", "rate", "decay"]
    assert rows == [
        ["conv1/bias", "2", "frozen", "0.0", "0.0"],
        ["conv1/kernel", "3x3x1x2", "frozen", "0.0", "0.0"],
        ["conv2/bias", "3", "layer_1_no_decay", "0.25", "0.0"],
        ["conv2/kernel", "3x3x2x3", "layer_1_decay", "0.25", "0.05"],
        ["dense1/bias", "4", "layer_2_no_decay", "0.5", "0.0"],
        ["dense1/kernel", "12x4", "layer_2_decay", "0.5", "0.05"],
        ["logits/bias", "3", "head_no_decay", "10.0", "0.0"],
        ["logits/kernel", "4x3", "head_decay", "10.0", "0.05"],
    ]
    assert summarize_groups(assignments)[::2] == [
        "frozen: 20 parameters, not trained",
        "layer_1_decay: 54 parameters, rate x 0.25, weight decay 0.05",
        "layer_2_decay: 48 parameters, rate x 0.5, weight decay 0.05",
        "head_decay: 12 parameters, rate x 10, weight decay 0.05",
    ]


def test_muon_trains_hidden_kernels():
    groups = Muon(learning_rate=0.1, adamw_rate=0.5).assign_groups(get_shapes(MODEL), MODEL)
    assert {path: (each.group, each.rate) for path, each in groups.items() if path.endswith("kernel")} == {
        "conv1/kernel": ("adamw_decay", 0.5),
        "conv2/kernel": ("muon_decay", 1.0),
        "dense1/kernel": ("muon_decay", 1.0),
        "logits/kernel": ("adamw_decay", 0.5),
    }
    assert groups["conv2/bias"].group == "adamw_no_decay"
    depthwise = {"block": {"kernel": jnp.zeros((3, 3, 1, 8))}, "stem": {}, "logits": {"kernel": jnp.zeros((8, 2))}}
    groups = Muon(learning_rate=0.1).assign_groups(depthwise, Declared(("stem", "block", "logits")))
    assert groups["block/kernel"].group == "adamw_decay"


@pytest.mark.parametrize(
    ("optimizer", "model", "message"),
    [
        (
            AdamW(learning_rate=0.1, freeze=("conv1", "stem")),
            MODEL,
            "freeze='stem' matches no parameter; .* conv1, conv2",
        ),
        (AdamW(learning_rate=0.1, freeze=("*",)), MODEL, "leaves no parameter to train"),
        (AdamW(learning_rate=0.1, layer_decay=0.5), None, "layer_decay, head_rate and Muon need the layers"),
        (AdamW(learning_rate=0.1, head_rate=2.0), None, "layer_decay, head_rate and Muon need the layers"),
        (Muon(learning_rate=0.1), None, "layer_decay, head_rate and Muon need the layers"),
        (AdamW(learning_rate=0.1, freeze=("*/kernel",)), MODEL, "weight_decay=0.01 is for parameters named kernel"),
    ],
)
def test_groups_that_do_not_fit_the_model_are_refused(optimizer, model, message):
    with pytest.raises(UserError, match=message):
        optimizer.build(10, model=model).init(draw())


def test_a_parameter_in_no_layer_is_named():
    with pytest.raises(UserError, match="layer_groups") as caught:
        assign_layers((("conv1",), ("logits",)), ["conv1/kernel", "conv11/kernel", "logits/kernel"])
    assert caught.value.items == ["conv11/kernel"]
