"""Batch normalization that does not depend on how a batch is computed."""

from __future__ import annotations

from functools import partial
from typing import cast

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
from flax.linen.initializers import Initializer
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import Float, PyTree

from jaxclf.errors import require
from jaxclf.models.dtypes import Dtype, get_parameter_dtype
from jaxclf.models.examples import get_examples
from jaxclf.types import Array, Variables, promote_float
from jaxclf.xla.sums import sum_positions

SUMS = "batch_sums"
"""The collection of the sums that training calls give."""


class BatchSums(flax.struct.PyTreeNode):
    """Sums over the examples of a batch. They are added over parts and devices, and divided once.

    Fields are trees: JAX also builds it from shapes and shardings.
    """

    count: PyTree
    """Number of values, a scalar."""
    shifted: PyTree
    """Sum of the differences from the running mean [c]: small numbers, so that little is lost to rounding."""
    squares: PyTree
    """Sum of the squared differences from the mean of the group [c]."""
    momentum: float = flax.struct.field(pytree_node=False)

    def update(
        self, statistics: dict[str, Float[Array, " c"]], momentum: float | None = None
    ) -> dict[str, Float[Array, " c"]]:
        """Return the running mean and variance after a step."""
        momentum = self.momentum if momentum is None else momentum
        count = jnp.maximum(self.count, 1)
        batch = {"mean": statistics["mean"] + self.shifted / count, "var": self.squares / count}
        return {
            name: momentum * old + (1 - momentum) * batch[name].astype(old.dtype) for name, old in statistics.items()
        }


class BatchNorm(nn.Module):
    """Batch normalization over groups of examples.

    In training, each group of `group` consecutive positions of the batch is normalized with its own mean and biased
    variance. Groups are never split over devices or accumulation steps, and padding is not counted, so the result does
    not depend on them. The module leaves its running statistics unchanged: it returns sums in the collection
    "batch_sums", from which `update_statistics` computes one update for each step of the optimizer. In training mode
    gradients can be differentiated again, but `jax.jvp` cannot be applied to the module itself.

    S. Ioffe, C. Szegedy, "Batch Normalization" (2015), arXiv:1502.03167; groups: E. Hoffer et al., "Train longer,
    generalize better" (2017), arXiv:1705.08741.
    """

    group: int | None = None
    """Examples that are normalized together; None: the whole batch."""
    momentum: float = 0.9
    """Weight of the earlier running statistics in an update."""
    epsilon: float = 1e-5
    """Added to the variance."""
    dtype: Dtype = "float32"
    """Type of the result."""
    scale_init: Initializer = nn.initializers.ones
    """Initializer of the scale."""

    @nn.compact
    def __call__(self, x: Float[Array, "b ... c"], train: bool) -> Float[Array, "b ... c"]:
        """Normalize each channel.

        Args:
            x: Activations.
            train: Normalize with the statistics of the groups, instead of the running ones.

        Raises:
            UserError: If the examples of a group are not computed together.
        """
        channels, kept = x.shape[-1:], get_parameter_dtype(self.dtype)
        mean = self.variable("batch_stats", "mean", jnp.zeros, channels, kept).value
        var = self.variable("batch_stats", "var", jnp.ones, channels, kept).value
        scale = self.param("scale", self.scale_init, channels, kept)
        bias = self.param("bias", nn.initializers.zeros, channels, kept)
        statistics = get_examples().statistics
        if statistics == "batch" or (train and statistics == "mode"):
            y = self._normalize_groups(self._split_groups(x), mean, scale, bias)
        else:
            multiplier = jax.lax.rsqrt(var + self.epsilon) * scale
            y = (x - _expand(mean, x.ndim)) * _expand(multiplier, x.ndim) + _expand(bias, x.ndim)
        return y.reshape(x.shape).astype(self.dtype)

    def _split_groups(self, x: Float[Array, "b ... c"]) -> Float[Array, "groups rows n c"]:
        rows, consecutive = x.shape[0], get_examples().consecutive
        require(
            self.group is not None or consecutive is None,
            "batch_norm_group=None normalizes over the whole batch, which gradient_accumulation and pmap split; set "
            "--model.batch-norm-group to a divisor of the examples that are computed together, such as 16",
        )
        size = self.group or rows
        require(
            rows % size == 0 and (consecutive or size) % size == 0,
            f"batch_norm_group={size} does not divide the {rows} examples that are computed together "
            "(batch_size over gradient_accumulation and, with pmap, over the devices)",
        )
        return x.reshape(rows // size, size, -1, x.shape[-1])

    def _normalize_groups(
        self,
        groups: Float[Array, "g r n c"],
        shift: Float[Array, " c"],
        scale: Float[Array, " c"],
        bias: Float[Array, " c"],
    ) -> Float[Array, "g r n c"]:
        """Normalize each group with its own statistics; add to the collection of sums."""
        mask = get_examples().mask
        x = promote_float(groups)
        weights = jnp.ones(groups.shape[:2], x.dtype) if mask is None else mask.astype(x.dtype)
        weights = weights.reshape(*groups.shape[:2], 1, 1)
        count = weights.sum((1, 2), keepdims=True) * groups.shape[2]
        found = _standardize(x, scale, bias, weights, count, _expand(shift, 4), self.epsilon)
        y, shifted, squares = cast(tuple[Array, Array, Array], found)
        sums = BatchSums(count.sum(), shifted.sum((0, 1, 2)), squares.sum((0, 1, 2)), self.momentum)
        self.sow(
            SUMS, "sums", jax.lax.stop_gradient(sums),
            init_fn=lambda: jax.tree.map(jnp.zeros_like, sums), reduce_fn=lambda a, b: jax.tree.map(jnp.add, a, b),
        )  # fmt: skip
        return y


@partial(jax.custom_vjp, nondiff_argnums=(6,))
def _standardize(
    x: Float[Array, "g r n c"],
    scale: Float[Array, " c"],
    bias: Float[Array, " c"],
    weights: Float[Array, "g r 1 1"],
    count: Float[Array, "g 1 1 1"],
    start: Float[Array, "1 1 1 c"],
    epsilon: float,
) -> tuple[Float[Array, "g r n c"], Float[Array, "g 1 1 c"], Float[Array, "g 1 1 c"]]:
    """Normalize groups, scale and shift. The sums of (x - start) and (x - mean)², returned too, have no gradients."""
    return _standardize_forward(x, scale, bias, weights, count, start, epsilon)[0]


def _standardize_forward(x, scale, bias, weights, count, start, epsilon):
    divisor = jnp.maximum(count, 1)
    (shifted,) = sum_positions(lambda x: (weights * (x - start),), x)
    mean = start + shifted / divisor
    (squares,) = sum_positions(lambda x: (weights * (x - mean) ** 2,), x)
    inverse = jax.lax.rsqrt(squares / divisor + epsilon)
    y = (x - mean) * (inverse * _expand(scale, 4)) + _expand(bias, 4)
    return (y, shifted, squares), (x, scale, mean, inverse, weights / divisor)


def _standardize_backward(epsilon, residuals, cotangents):
    # The mean and the variance depend on x too: their shares of the gradient are the two sums.
    x, scale, mean, inverse, shares = residuals
    g, *_ = cotangents
    by_bias, by_scale = sum_positions(lambda x, g: (g, g * ((x - mean) * inverse)), x, g)
    by_x = inverse * _expand(scale, 4) * (g - shares * (by_bias + (x - mean) * (inverse * by_scale)))
    return by_x, by_scale.sum((0, 1, 2)), by_bias.sum((0, 1, 2)), None, None, None


_standardize.defvjp(_standardize_forward, _standardize_backward)


def _expand(values: Float[Array, " c"], ndim: int) -> Float[Array, "... c"]:
    return values.reshape((1,) * (ndim - 1) + values.shape)


def update_statistics(model_state: Variables, sums: Variables, momentum: float | None = None) -> Variables:
    """Return the collections of a model with the running statistics after a step.

    Args:
        model_state: The collections before the step.
        sums: The collection of sums of all examples of the step.
        momentum: Weight of the earlier statistics; by default that of each layer.
    """
    statistics = cast(dict[tuple[str, ...], Array], flatten_dict(model_state.get("batch_stats", {})))
    for path, total in cast(dict[tuple[str, ...], BatchSums], flatten_dict(sums)).items():
        names = [(*path[:-1], name) for name in ("mean", "var")]
        updated = total.update({name[-1]: statistics[name] for name in names}, momentum)
        statistics |= {name: updated[name[-1]] for name in names}
    return model_state | ({"batch_stats": unflatten_dict(statistics)} if statistics else {})
