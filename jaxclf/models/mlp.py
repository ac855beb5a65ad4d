"""Fully connected networks, the linear classifier among them."""

from __future__ import annotations

import flax.linen as nn
from jaxtyping import Float, Num

from jaxclf.models.layers import Dropout, Dtype, Flatten, check_dropout, check_sizes, dense
from jaxclf.types import Array, unit_range


class Mlp(nn.Module):
    """Dense layers with ReLU between them. With no hidden layers it is the linear (softmax) classifier."""

    features: tuple[int, ...]
    """Width of each hidden layer."""
    classes: int
    """Number of logits."""
    dropout: float = 0.0
    """Share of each hidden layer that is dropped in training."""
    dtype: Dtype = "float32"
    """What activations are computed in; parameters and logits are float32."""

    def __post_init__(self):
        check_sizes(classes=self.classes, **{f"features[{i}]": width for i, width in enumerate(self.features)})
        check_dropout(self.dropout)
        super().__post_init__()

    @nn.compact
    def __call__(self, images: Num[Array, "b ..."], train: bool = False) -> Float[Array, "b classes"]:
        """Logits of images [b, h, w, c] or [b, h·w·c], integers in 0..255 or floats in [0, 1]."""
        x = Flatten(name="flatten")(unit_range(images))
        for i, width in enumerate(self.features, start=1):
            x = nn.relu(dense(width, self.dtype, f"dense{i}")(x))
            if self.dropout:
                x = Dropout(self.dropout, name=f"dropout{i}")(x, train)
        return dense(self.classes, "float32", "logits")(x)
