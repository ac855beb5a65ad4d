"""One network in Flax Linen, Flax NNX, Equinox, Haiku and Keras, with the same weights: convolution, batch
normalization, ReLU, max pooling, dropout and a dense layer."""

import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from support.components import METHODS
from support.networks import draw_variables

from jaxclf import saliency

MODULES = {"nnx": "flax.nnx", "equinox": "equinox", "haiku": "haiku", "keras": "keras"}
SHAPE, FEATURES, CLASSES = (3, 8, 8, 1), 3, 4
IMAGES = np.random.default_rng(0).random(SHAPE, np.float32)


def run_python(*arguments, backend="jax"):
    """Python in a process of its own, where Keras can choose its backend, and the tests' helpers can be imported."""
    path = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"KERAS_BACKEND": backend, "PYTHONPATH": path}
    return subprocess.run([sys.executable, *map(str, arguments)], env=environment, capture_output=True, text=True)


@cache
def find_import_error(framework):
    """The last line of what is said where a framework is missing, or does not work with the installed jax."""
    done = run_python("-c", f"import {MODULES[framework]}")
    return done.stderr.strip().splitlines()[-1] if done.returncode else None


class LinenNet(nn.Module):
    @nn.compact
    def __call__(self, x, train=False):
        x = nn.Conv(FEATURES, (3, 3), name="conv")(x)
        x = nn.relu(nn.BatchNorm(not train, name="norm")(x))
        x = nn.max_pool(x, (2, 2), (2, 2)).reshape(x.shape[0], -1)
        return nn.Dense(CLASSES, name="dense")(nn.Dropout(0.5, deterministic=not train)(x))


def make_linen():
    variables = draw_variables(LinenNet(), SHAPE)
    params = variables["params"]
    norm = params["norm"] | {"bias": np.abs(params["norm"]["bias"])}  # few ReLUs are dead, whatever the seed
    return LinenNet(), variables | {"params": params | {"norm": norm}}


def get_weights():
    """The weights by layer, then by name, with `mean` and `var` of the normalization."""
    variables = make_linen()[1]
    return {name: leaves | variables["batch_stats"].get(name, {}) for name, leaves in variables["params"].items()}


def make_nnx():
    from flax import nnx

    class Net(nnx.Module):
        def __init__(self, rngs):
            self.conv = nnx.Conv(1, FEATURES, (3, 3), rngs=rngs)
            self.norm = nnx.BatchNorm(FEATURES, rngs=rngs)
            self.dropout = nnx.Dropout(0.5, rngs=rngs)
            self.dense = nnx.Linear(FEATURES * 16, CLASSES, rngs=rngs)

        def __call__(self, x):
            x = nnx.relu(self.norm(self.conv(x)))
            return self.dense(self.dropout(nnx.max_pool(x, (2, 2), (2, 2)).reshape(x.shape[0], -1)))

    net = Net(nnx.Rngs(0))
    for layer, leaves in get_weights().items():
        for name, value in leaves.items():
            getattr(getattr(net, layer), name)[...] = jnp.asarray(value)
    return saliency.adapt_nnx(net)


def make_equinox():
    import equinox as eqx

    class Net(eqx.Module):
        conv: eqx.nn.Conv2d
        norm: eqx.nn.BatchNorm
        pool: eqx.nn.MaxPool2d
        dropout: eqx.nn.Dropout
        dense: eqx.nn.Linear

        def __call__(self, x, state):
            x, state = self.norm(self.conv(x), state)
            x = self.pool(jax.nn.relu(x)).transpose(1, 2, 0)
            return self.dense(self.dropout(x.reshape(-1))), state

    def make(key):
        return Net(
            eqx.nn.Conv2d(1, FEATURES, 3, padding=1, key=key),
            eqx.nn.BatchNorm(FEATURES, "batch", mode="ema"),
            eqx.nn.MaxPool2d(2, 2),
            eqx.nn.Dropout(0.5),
            eqx.nn.Linear(FEATURES * 16, CLASSES, key=key),
        )

    net, state = eqx.nn.make_with_state(make)(jax.random.key(0))
    weights = jax.tree.map(jnp.asarray, get_weights())
    net = eqx.tree_at(
        lambda net: (net.conv.weight, net.conv.bias, net.norm.weight, net.norm.bias, net.dense.weight, net.dense.bias),
        net,
        (
            weights["conv"]["kernel"].transpose(3, 2, 0, 1), weights["conv"]["bias"][:, None, None],
            weights["norm"]["scale"], weights["norm"]["bias"], weights["dense"]["kernel"].T, weights["dense"]["bias"],
        ),
    )  # fmt: skip
    state = state.set(net.norm.ema_state_index, (weights["norm"]["mean"], weights["norm"]["var"]))
    state = state.set(net.norm.ema_first_time_index, jnp.asarray(False))

    def apply(pair, images):
        return jax.vmap(lambda x: pair[0](x, pair[1])[0])(images.transpose(0, 3, 1, 2))

    return saliency.adapt_equinox((net, state), apply)


def make_haiku():
    import haiku as hk

    def net(x, is_training=False):
        x = hk.Conv2D(FEATURES, 3, name="conv")(x)
        x = hk.BatchNorm(True, True, 0.9, name="norm")(x, is_training)
        x = hk.max_pool(jax.nn.relu(x), (2, 2, 1), (2, 2, 1), "SAME").reshape(x.shape[0], -1)
        return hk.Linear(CLASSES, name="dense")(x)

    transformed = hk.transform_with_state(net)
    params, state = transformed.init(jax.random.key(0), IMAGES, is_training=True)
    weights = get_weights()
    ours = {"w": "kernel", "b": "bias", "scale": "scale", "offset": "bias"}
    params = {
        layer: {name: weights[layer][ours[name]].reshape(leaf.shape) for name, leaf in leaves.items()}
        for layer, leaves in params.items()
    }
    for name, statistic in (("norm/~/mean_ema", "mean"), ("norm/~/var_ema", "var")):
        state[name]["average"] = weights["norm"][statistic].reshape(1, 1, 1, -1)
    return saliency.adapt_haiku(transformed, params, state)


def make_keras():
    import keras

    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input(SHAPE[1:]),
            layers.Conv2D(FEATURES, 3, padding="same", name="conv"),
            layers.BatchNormalization(epsilon=1e-5, name="norm"),
            layers.ReLU(),
            layers.MaxPooling2D(2),
            layers.Flatten(),
            layers.Dropout(0.5),
            layers.Dense(CLASSES, name="dense"),
        ]
    )
    order = {"conv": ("kernel", "bias"), "norm": ("scale", "bias", "mean", "var"), "dense": ("kernel", "bias")}
    weights = get_weights()
    for layer, names in order.items():
        model.get_layer(layer).set_weights([weights[layer][name] for name in names])
    return saliency.adapt_keras(model)


def get_single(method):
    """The method for one class."""
    return method.method if isinstance(method, saliency.AllClasses) else method


# The first setting of each method, the cheapest, and of each wrapper.
CHEAPEST = {type(method).__name__: method for method in reversed([*map(get_single, METHODS)])}


def explain_all(model, variables, names):
    """The values of methods by name."""
    key = jax.random.key(1)
    return {name: np.asarray(CHEAPEST[name](model, variables, IMAGES, 1, key=key).values) for name in names}


if __name__ == "__main__":  # Keras chooses its backend when it is imported, so it needs a process of its own
    file, *names = sys.argv[1:]
    np.savez(file, **explain_all(*make_keras(), names))
