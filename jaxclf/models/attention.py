"""Self-attention of vision transformers."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen.initializers import Initializer
from jaxtyping import Float

from jaxclf.models.dtypes import Dtype, get_parameter_dtype
from jaxclf.models.layers import make_dense
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
        kept, shape = get_parameter_dtype(self.dtype), (*x.shape[:2], self.heads, x.shape[-1] // self.heads)
        query, key, value = (
            make_dense(x.shape[-1], self.dtype, name, kernel_init=self.kernel_init)(x).reshape(shape)
            for name in ("query", "key", "value")
        )
        if self.qk_norm:
            query, key = self._normalize(query, "query_norm"), self._normalize(key, "key_norm")
        scaled = query * shape[-1] ** -0.5
        scores = jnp.einsum("bqhd,bkhd->bhqk", scaled, key, preferred_element_type=kept)
        weights = jax.nn.softmax(scores).astype(self.dtype)
        weights = apply_dropout(weights, self.attention_dropout, "weights_dropout", train)
        mixed = jnp.einsum("bhqk,bkhd->bqhd", weights, value).reshape(x.shape)
        out = make_dense(x.shape[-1], self.dtype, "out", kernel_init=self.kernel_init)(mixed)
        return apply_dropout(out, self.dropout, "out_dropout", train)

    def _normalize(self, x: Float[Array, "b n heads size"], name: str) -> Float[Array, "b n heads size"]:
        # No module puts out four axes: class activation maps would take such a layer for an image.
        rows = x.reshape(x.shape[0], -1, x.shape[-1])
        return make_layer_norm(self.dtype, name)(rows).reshape(x.shape)
