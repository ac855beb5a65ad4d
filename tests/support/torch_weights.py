"""Weights of PyTorch by the names and in the layouts of our models.

A table has, for each variable of a model by its path ("params/block1/norm1/scale"), the name of PyTorch's tensor and a
function that converts it. Gradients by the weights are converted in the same way.
"""

from pathlib import Path

import numpy as np
from flax.traverse_util import unflatten_dict

FIXTURES = Path(__file__).parents[1] / "fixtures"


def map_conv(path, name, use_bias=True):
    """Rows of a convolution: OIHW to HWIO. A depthwise kernel (c, 1, h, w) becomes (h, w, 1, c)."""
    rows = {f"params/{path}/kernel": (f"{name}.weight", lambda weight: weight.transpose(2, 3, 1, 0))}
    return rows | map_array(f"{path}/bias", f"{name}.bias") if use_bias else rows


def map_dense(path, name):
    """Rows of a dense layer; a 1 x 1 convolution in PyTorch can be one too."""
    kernel = (f"{name}.weight", lambda weight: weight.reshape(weight.shape[:2]).T)
    return {f"params/{path}/kernel": kernel} | map_array(f"{path}/bias", f"{name}.bias")


def map_norm(path, name):
    """Rows of a normalization."""
    return map_array(f"{path}/scale", f"{name}.weight") | map_array(f"{path}/bias", f"{name}.bias")


def map_batch_norm(path, name):
    """Rows of a batch normalization. PyTorch's count of batches has no counterpart."""
    statistics = {f"batch_stats/{path}/{ours}": (f"{name}.running_{ours}", np.asarray) for ours in ("mean", "var")}
    return map_norm(path, name) | statistics


def map_array(path, name, shape=None):
    """The row of a parameter that keeps its layout, or has only other axes."""
    return {f"params/{path}": (name, lambda weight: weight if shape is None else weight.reshape(shape))}


def convert_weights(table, weights):
    """Convert tensors by name to variables; every tensor must be used."""
    left = {name for name in weights if not name.endswith("num_batches_tracked")} - {name for name, _ in table.values()}
    assert not left, f"unused tensors: {sorted(left)}"
    return unflatten_dict({path: convert(weights[name]) for path, (name, convert) in table.items()}, sep="/")


def read_fixture(name):
    """Read arrays by name; those that are named with slashes are grouped by the first part."""
    groups = {}
    with np.load(FIXTURES / f"{name}.npz") as arrays:
        for path, array in arrays.items():
            group, _, rest = path.partition("/")
            if rest:
                groups.setdefault(group, {})[rest] = np.float64(array)
            else:
                groups[group] = np.float64(array)
    return groups


def assert_close(found, expected, tolerance=1e-9):
    """Compare arrays, relative to the largest value."""
    assert found.shape == expected.shape
    error, largest = np.abs(found - expected).max(), np.abs(expected).max()
    assert error <= tolerance * largest, f"differs by {error:.2g}, largest {largest:.2g}"
