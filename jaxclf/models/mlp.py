"""Fully connected networks, including the linear classifier."""

from __future__ import annotations

import flax.linen as nn
from jaxtyping import Float, Num

from jaxclf.models.dropout import Dropout, check_dropout
from jaxclf.models.dtypes import Dtype, get_parameter_dtype
from jaxclf.models.layers import Flatten, check_sizes, make_dense
from jaxclf.types import Array, to_unit_range


class Mlp(nn.Module):
    """Dense layers with ReLU and dropout. Without hidden layers it is a linear (softmax) classifier."""

    features: tuple[int, ...]
    """Units of each hidden layer."""
    classes: int
    """Number of classes."""
    dropout: float = 0.0
    """Dropout rate after each hidden layer."""
    dtype: Dtype = "float32"
    """Type of the activations. Parameters and logits are float32, or float64 if the activations are."""

    def __post_init__(self):
        check_sizes(classes=self.classes, **{f"features[{i}]": width for i, width in enumerate(self.features)})
        check_dropout(self.dropout)
        super().__post_init__()

    @property
    def layer_groups(self) -> tuple[tuple[str, ...], ...]:
        """The layers from the input to the head, by the names of their modules."""
        return (*((f"dense{i}",) for i in range(1, len(self.features) + 1)), ("logits",))

    @nn.compact
    def __call__(self, images: Num[Array, "b ..."], train: bool = False) -> Float[Array, "b classes"]:
        """Compute logits.

        Args:
            images: Images [b, h, w, c] or [b, h·w·c]: integers from 0 to 255, or floats in [0, 1].
            train: Apply dropout; this needs the random stream "dropout".

        Returns:
            Logits [b, classes], float32.
        """
        x = Flatten(name="flatten")(to_unit_range(images, get_parameter_dtype(self.dtype)))
        for i, width in enumerate(self.features, start=1):
            x = nn.relu(make_dense(width, self.dtype, f"dense{i}")(x))
            if self.dropout:
                x = Dropout(self.dropout, name=f"dropout{i}")(x, train)
        return make_dense(self.classes, get_parameter_dtype(self.dtype), "logits")(x)
