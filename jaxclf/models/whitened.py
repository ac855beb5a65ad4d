"""A convolutional network for small photographs whose first layer whitens patches of the training images."""

from __future__ import annotations

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Float, Key, Num

from jaxclf.errors import require
from jaxclf.models.batch_norm import BatchNorm
from jaxclf.models.dtypes import Dtype, get_parameter_dtype
from jaxclf.models.layers import MaxPool, check_sizes, make_conv, make_dense
from jaxclf.models.normalize import Normalize, prepare_images
from jaxclf.types import Array, Variables

EPSILON = 5e-4  # added to mean squares along the axes of patches, so that noise is not amplified without bound
LECUN_NORMAL = nn.initializers.lecun_normal()


class WhitenedCnn(nn.Module):
    """Whitened patches, stages of convolution, pooling, batch normalization and GELU, a global maximum, a linear layer.

    The convolution `whiten` is computed before training, so that the matrix of the mean products of its outputs over
    patches of the training images is nearly the identity. GELU is applied to the outputs and their negatives. Set
    `freeze=("whiten",)` in the optimizer to keep this layer. The other convolutions are initialized to the identity
    for as many channels as they have filters.
    K. Jordan, "94% on CIFAR-10 in 3.29 Seconds on a Single GPU" (2024), arXiv:2404.00498.
    """

    features: tuple[int, ...]
    """Number of filters of the 3 x 3 convolution of each stage."""
    pools: tuple[int, ...]
    """Window and stride of the max-pooling of each stage, in positions (1: none)."""
    classes: int
    """Number of classes."""
    patch: int = 2
    """Side of the patches, in pixels. There is one at each pixel."""
    normalize: Normalize | None = None
    """Standardization of the images (None: images in [0, 1] as they are)."""
    batch_norm_group: int | None = None
    """Examples that are normalized together; None: the whole batch."""
    dtype: Dtype = "float32"
    """Type of the activations. Parameters and logits are float32, or float64 if the activations are."""

    def __post_init__(self):
        require(
            len(self.features) == len(self.pools),
            f"features has {len(self.features)} stages and pools {len(self.pools)}: expected the same number",
        )
        check_sizes(classes=self.classes, patch=self.patch, batch_norm_group=self.batch_norm_group or 1)
        for name in ("features", "pools"):
            check_sizes(**{f"{name}[{i}]": size for i, size in enumerate(getattr(self, name))})
        super().__post_init__()

    @property
    def layer_groups(self) -> tuple[tuple[str, ...], ...]:
        """The layers from the input to the head, by the names of their modules."""
        return (("whiten",), *((f"conv{i}", f"norm{i}") for i in range(1, len(self.features) + 1)), ("logits",))

    @nn.compact
    def __call__(self, images: Num[Array, "b ..."], train: bool = False) -> Float[Array, "b classes"]:
        """Compute logits.

        Args:
            images: Images [b, h, w, c] or [b, h·w·c]: integers from 0 to 255, or floats in [0, 1].
            train: Normalize with the statistics of the batch.

        Returns:
            Logits [b, classes], float32.

        Raises:
            UserError: If the images have another shape, or are too small for the stages.
        """
        x = prepare_images(images, self.normalize, self.dtype)
        numbers = self.patch**2 * x.shape[-1]
        x = make_conv(numbers, self.patch, 1, "SAME", self.dtype, "whiten", use_bias=False)(x)
        x = nn.gelu(jnp.concatenate([x, -x], axis=-1), approximate=False)
        for i, (filters, pool) in enumerate(zip(self.features, self.pools, strict=True), start=1):
            conv = make_conv(
                filters, 3, 1, "SAME", self.dtype, f"conv{i}", use_bias=False, kernel_init=draw_partial_identity
            )
            x = conv(x)
            x = MaxPool(pool, name=f"pool{i}")(x) if pool > 1 else x
            require(min(x.shape[1:3]) > 0, f"feature map is empty after pool{i}; use fewer stages or smaller pools")
            x = BatchNorm(self.batch_norm_group, dtype=self.dtype, name=f"norm{i}")(x, train)
            x = nn.gelu(x, approximate=False)
        return make_dense(self.classes, get_parameter_dtype(self.dtype), "logits")(find_maxima(x))

    def initialize_from_images(self, variables: Variables, images: Num[Array, "b h w c"]) -> Variables:
        """Return variables whose first layer whitens the patches of some images.

        Args:
            variables: The variables of the model.
            images: Training images [n, h, w, c]: integers from 0 to 255, or floats in [0, 1].
        """
        old = variables["params"]["whiten"]["kernel"]
        numbers = math.prod(old.shape[:3])
        squares, count = np.zeros((numbers, numbers)), 0
        # One image at a time: all patches together take much memory.
        for image in np.asarray(prepare_images(images, self.normalize, self.dtype)):
            windows = np.lib.stride_tricks.sliding_window_view(image, (self.patch, self.patch), axis=(0, 1))
            patches = np.moveaxis(windows, 2, -1).reshape(-1, numbers).astype(np.float64)
            squares, count = squares + patches.T @ patches, count + len(patches)
        mean_squares, axes = np.linalg.eigh(squares / count)
        kernel = jnp.asarray(axes / np.sqrt(mean_squares + EPSILON), old.dtype).reshape(old.shape)
        return variables | {"params": variables["params"] | {"whiten": {"kernel": kernel}}}


def find_maxima(x: Float[Array, "b h w c"]) -> Float[Array, "b c"]:
    """Return the maximum of each channel over all positions.

    Halves are compared with each other. The gradient of `x.max` compares recomputed values with their maximum for
    equality: where XLA rounds the two differently, it divides 0 by 0.
    """
    x = x.reshape(x.shape[0], -1, x.shape[-1])
    while (half := x.shape[1] // 2) > 0:
        x = jnp.concatenate([jnp.maximum(x[:, :half], x[:, half : 2 * half]), x[:, 2 * half :]], axis=1)
    return x[:, 0]


def draw_partial_identity(
    key: Key[jax.Array, ""], shape: tuple[int, int, int, int], dtype: DTypeLike = "float32"
) -> Float[Array, "h w c filters"]:
    """Draw the kernel of a convolution: each channel has a filter that returns it; other filters are random.

    S. Zagoruyko, N. Komodakis, "DiracNets" (2017), arXiv:1706.00388.
    """
    height, width, channels, filters = shape
    same = jnp.zeros(shape, dtype).at[height // 2, width // 2].set(jnp.eye(channels, filters, dtype=dtype))
    return jnp.where(jnp.arange(filters)[None, None, None] < channels, same, LECUN_NORMAL(key, shape, dtype))
