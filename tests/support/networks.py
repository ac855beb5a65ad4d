"""A small network of two blocks, for tests of saliency methods that need a layer by name."""

from functools import cache

import flax.linen as nn
import jax
import numpy as np

B, CLASSES = 3, 4
SHAPE = (B, 6, 6, 1)
IMAGES = np.random.default_rng(0).random(SHAPE, np.float32)


class Relu(nn.Module):
    def __call__(self, x):
        return nn.relu(x)


class Block(nn.Module):
    features: int

    @nn.compact
    def __call__(self, x):
        return Relu(name="relu")(nn.Conv(self.features, (3, 3), name="conv")(x))


WRAPS = {"none": Block, "remat": nn.remat(Block), "jit": nn.jit(Block)}


class Net(nn.Module):
    """Two blocks and a head; `wrap` is a transformation of the blocks' class."""

    head: str = "tanh"
    wrap: str = "none"
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x, train=False):
        block = WRAPS[self.wrap]
        x = block(2, name="first")(x.astype(self.dtype))
        x = block(5, name="second")(nn.max_pool(x, (2, 2), (2, 2)))
        if self.head == "mean":
            x = x.mean(axis=(1, 2))
        if self.head == "tanh":
            x = nn.tanh(x)
        return nn.Dense(CLASSES, name="logits")(x.reshape(x.shape[0], -1))


@cache
def draw_variables(model, shape=SHAPE, seed=0):
    """Variables with biases that are not zero, as training leaves them, and positive variances. Nothing is compiled."""
    shapes = jax.eval_shape(model.init, jax.random.key(0), jax.ShapeDtypeStruct(shape, np.float32))
    random = np.random.default_rng(seed)
    variables = jax.tree.map(lambda leaf: 0.4 * random.standard_normal(leaf.shape, np.float32), shapes)
    return {name: jax.tree.map(np.abs, tree) if name == "batch_stats" else tree for name, tree in variables.items()}


def raise_biases(variables, amount=1.0):
    """Variables with larger biases, so that hardly any ReLU is off everywhere."""
    return jax.tree.map_with_path(lambda path, leaf: leaf + amount * (path[-1].key == "bias"), variables)


def activation(model, variables, images, block="second", layer="relu"):
    """What a layer of a block puts out, by Flax's own means."""
    _, state = model.apply(variables, images, capture_intermediates=True)
    return np.asarray(state["intermediates"][block][layer]["__call__"][0])


class Declared(nn.Module):
    """A model that only declares its layers."""

    layers: tuple[str, ...]

    @property
    def layer_groups(self):
        return tuple((name,) for name in self.layers)
