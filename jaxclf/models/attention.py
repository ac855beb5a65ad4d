"""Self-attention of vision transformers."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen.initializers import Initializer
from jaxtyping import Float

from jaxclf.models.dtypes import Dtype, get_parameter_dtype
from jaxclf.models.residual import apply_dropout, make_layer_norm
from jaxclf.types import Array


class Attention(nn.Module):
    """Multi-head self-attention, in which every token attends to all tokens of its image.

    A. Vaswani et al., "Attention Is All You Need" (2017), arXiv:1706.03762; normalized queries and keys: M. Dehghani et
    al., "Scaling Vision Transformers to 22 Billion Parameters" (2023), arXiv:2302.05442.
    """

    heads: int
    """Number of heads. It divides the width."""
    kernel_init: Initializer
    """Initializer of the kernels."""
    qk_norm: bool = False
    """Normalize the queries and keys of each head."""
    attention_dropout: float = 0.0
    """Dropout rate of the attention weights."""
    dropout: float = 0.0
    """Dropout rate of the result."""
    dtype: Dtype = "float32"
    """Type of the activations. The softmax is float32, or float64 if they are."""

    @nn.compact
    def __call__(self, x: Float[Array, "b n c"], train: bool) -> Float[Array, "b n c"]:
        """Mix tokens.

        Args:
            x: Tokens [b, n, c].
            train: Apply dropout; this needs the random stream "dropout".
        """
        query, key, value = (self._split_into_heads(x, name) for name in ("query", "key", "value"))
        if self.qk_norm:
            query = make_layer_norm(self.dtype, "query_norm")(query)
            key = make_layer_norm(self.dtype, "key_norm")(key)
        kept = get_parameter_dtype(self.dtype)
        scaled = query * query.shape[-1] ** -0.5
        scores = jnp.einsum("bqhd,bkhd->bhqk", scaled, key, preferred_element_type=kept)
        weights = jax.nn.softmax(scores).astype(self.dtype)
        weights = apply_dropout(weights, self.attention_dropout, "weights_dropout", train)
        mixed = jnp.einsum("bhqk,bkhd->bqhd", weights, value)
        out = nn.DenseGeneral(
            x.shape[-1], (-2, -1), dtype=self.dtype, param_dtype=kept, kernel_init=self.kernel_init, name="out"
        )(mixed)
        return apply_dropout(out, self.dropout, "out_dropout", train)

    def _split_into_heads(self, x: Float[Array, "b n c"], name: str) -> Float[Array, "b n heads size"]:
        shape = (self.heads, x.shape[-1] // self.heads)
        kept = get_parameter_dtype(self.dtype)
        return nn.DenseGeneral(shape, dtype=self.dtype, param_dtype=kept, kernel_init=self.kernel_init, name=name)(x)
