"""Random weights of our models by the names and in the layouts of other libraries."""

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict

from jaxclf.pretrained.convert import MAPS


def draw_variables(model, random, shape):
    """Random variables of a model by path."""
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, *shape), np.uint8))
    return {path: np.float32(random.normal(size=leaf.shape)) for path, leaf in flatten_dict(shapes, sep="/").items()}


def to_source(model, layout, flat):
    """The tensors of a library that variables by path come from."""
    arrays, parts = {}, {}
    for path, row in MAPS[type(model)][layout](model).items():
        array = flat[path]
        if row.source.endswith(".weight") and path.endswith("kernel"):
            array = array.transpose(3, 2, 0, 1) if array.ndim == 4 else array.T
        parts.setdefault(row.source, []).append(array)
    for name, group in parts.items():
        arrays[name] = np.ascontiguousarray(np.concatenate(group))  # safetensors writes the memory as it is
        if name.endswith("running_mean"):
            arrays[name.replace("running_mean", "num_batches_tracked")] = np.array(7)
    return arrays
