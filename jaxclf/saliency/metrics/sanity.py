"""Sanity checks of a method: randomized parameters have to change its maps, a shift of the input must not.

`targets`, `key` and `baseline` are as in `Method.__call__`; the explained class is that of the trained model. A method
that samples uses the same random numbers for each map. With `all_classes`, [b] becomes [b, classes].
"""

from __future__ import annotations

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Float, Int, PyTree

from jaxclf.errors import require
from jaxclf.models.calling import get_mode, initialize_model
from jaxclf.models.taps import intercept_outputs, trace_shapes
from jaxclf.saliency.base import Keys, Method, map_over_batch
from jaxclf.saliency.compiler import compile_with_static
from jaxclf.saliency.metrics.faithfulness import Baseline, Images, Targets
from jaxclf.saliency.metrics.similarity import compute_rank_correlation, compute_relative_distance, compute_ssim
from jaxclf.saliency.pixels import infer_image_shape
from jaxclf.saliency.query import Model
from jaxclf.saliency.sampling import METRIC_SAMPLE
from jaxclf.saliency.taps import require_module
from jaxclf.types import Array, Variables, to_unit_range

Path = tuple[str, ...]
"""Names of nested modules, the outermost first."""


class Randomization(NamedTuple):
    """Similarity of the maps of the trained model and of the model with more and more random layers."""

    layers: tuple[str, ...]
    """Names of the layers with parameters, the output first. In each row, the layers up to this one are random."""
    rank_correlation: Float[Array, "layers b ..."]
    """Spearman's correlation of all values; 0 where a map is constant."""
    ssim: Float[Array, "layers b ..."]
    """Structural similarity of the sums over channels, each map divided by its largest absolute value."""


def parameter_randomization(
    method: Method,
    model: Model,
    variables: Variables,
    images: Images,
    *,
    key: Keys,
    targets: Targets = None,
    baseline: Baseline = None,
) -> Randomization:
    """Compute the cascading randomization test: from the output down, one layer after the other is initialized again.

    The maps of a method that explains the model must change. Other collections, such as running means, stay.

    J. Adebayo et al., "Sanity checks for saliency maps" (2018), arXiv:1810.03292.

    Args:
        method: The saliency method.
        model: A Linen module.
        variables: The variables of the model.
        images: Images [b, ...].
        key: One random key, since all examples share the random parameters.
        targets: The explained classes.
        baseline: The baseline of the method.

    Returns:
        The similarities to the maps of the trained model, layer by layer.

    Raises:
        UserError: If the model is not a Linen module, or shapes do not fit.
    """
    model = require_module(model)
    layers = find_parameter_layers(model, variables, images[:1])
    names = tuple("/".join(layer) or type(model).__name__ for layer in layers)
    return Randomization(names, *_compare_maps(method, model, layers, variables, images, key, targets, baseline))


@compile_with_static("method", "model", "layers")
def _compare_maps(
    method: Method,
    model: nn.Module,
    layers: tuple[Path, ...],
    variables: Variables,
    images: Images,
    key: Keys,
    targets: Targets,
    baseline: Baseline,
) -> tuple[Float[Array, "layers b ..."], Float[Array, "layers b ..."]]:
    random = initialize_parameters(model, images, key)

    def measure(query, _):
        query, _ = query.resolve_targets()
        trained = method.explain(query).values

        def compare(stage):
            params = replace_layers(variables["params"], random, layers, stage)
            values = method.explain(query.replace(variables={**variables, "params": params})).values
            return compute_similarities(values, trained)

        similarities = jax.lax.map(compare, jnp.arange(len(layers)))
        return jax.tree.map(lambda x: jnp.moveaxis(x, 0, -1), similarities)

    similarities = map_over_batch(measure, method, model, variables, images, targets, key, baseline)
    return jax.tree.map(lambda x: jnp.moveaxis(x, -1, 0), similarities)


def initialize_parameters(model: nn.Module, images: Images, key: Keys) -> PyTree[Array]:
    """Return random parameters of the model, which all examples share. `key` must be one key."""
    if not jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        key = jax.random.wrap_key_data(jnp.asarray(key))
    require(key.shape == (), f"keys of shape {list(key.shape)}: expected one, as all examples share the parameters")
    init_key = jax.random.fold_in(key, jnp.int32(METRIC_SAMPLE))
    return initialize_model(model, init_key, jnp.asarray(to_unit_range(images))[:1])[1]["params"]


def compute_similarities(
    x: Float[Array, "b targets ..."], y: Float[Array, "b targets ..."]
) -> tuple[Float[Array, "b targets"], Float[Array, "b targets"]]:
    """Return rank correlation and structural similarity."""
    maps = x.shape[:2]
    ranks = compute_rank_correlation(x.reshape(*maps, -1), y.reshape(*maps, -1))
    shape = infer_image_shape(x.shape[2:]) or (x.shape[2:] if x.ndim > 3 else (*x.shape[2:], 1))
    x, y = (values.reshape(*maps, *shape).sum(axis=-1) for values in (x, y))
    return ranks, compute_ssim(x, y)


def find_parameter_layers(model: nn.Module, variables: Variables, images: Images) -> tuple[Path, ...]:
    """Return the modules with parameters of their own, in reverse order of their last call."""
    ended: list[Path] = []

    def record(module: nn.Module, method: str, output: Any) -> Any:
        ended.append(module.path)
        return output

    with intercept_outputs(record):
        trace_shapes(lambda images: model.apply(variables, to_unit_range(images), **get_mode(model, False)), images)
    called = tuple(dict.fromkeys(reversed(ended)))
    leaves, _ = jax.tree_util.tree_flatten_with_path(variables["params"])
    owners = {_find_owner(path, called) for path, _ in leaves}
    return tuple(path for path in called if path in owners)


def _find_owner(path: tuple[Any, ...], layers: tuple[Path, ...]) -> Path:
    """Return the innermost layer that contains a parameter."""
    names = tuple(entry.key for entry in path)
    return max((layer for layer in layers if names[: len(layer)] == layer), key=len)


def replace_layers(
    params: PyTree[Array], random: PyTree[Array], layers: tuple[Path, ...], stage: Int[Array, ""] | int
) -> PyTree[Array]:
    """Return the parameters with those of layers 0 to `stage` replaced by random ones."""

    def choose(path, old, new):
        return jnp.where(layers.index(_find_owner(path, layers)) <= stage, new, old)

    return jax.tree_util.tree_map_with_path(choose, params, random)


@compile_with_static("method", "model", "shift")
def input_invariance(
    method: Method,
    model: Model,
    variables: PyTree,
    images: Images,
    *,
    shift: float = -1.0,
    key: Keys | None = None,
    targets: Targets = None,
    baseline: Baseline = None,
) -> Float[Array, "b ..."]:
    """Compute the relative change of the map when images are shifted and the model subtracts the shift first.

    Both models see and compute the same. The paper moves the shift into the first bias; subtracting it is equivalent,
    and exact for padded convolutions too. The baseline is not shifted.

    P.-J. Kindermans et al., "The (un)reliability of saliency methods" (2017), arXiv:1711.00867.

    Args:
        method: The saliency method.
        model: As in `Method.__call__`.
        variables: The variables of the model.
        images: Images [b, ...].
        shift: Added to every number of the images, in [0, 1] units.
        key: One random key or [b], for methods that sample.
        targets: The explained classes.
        baseline: The baseline of the method.

    Returns:
        [b] changes divided by the norm of the map, or the changes themselves for a map of zeros; 0 is best.

    Raises:
        UserError: If shapes do not fit.
    """

    def measure(query, _):
        query, _ = query.resolve_targets()
        values = method.explain(query).values
        shifted = query.replace(model=_subtract_shift(query.model, shift), images=query.images + shift)
        return compute_relative_distance(method.explain(shifted).values, values)

    return map_over_batch(measure, method, model, variables, images, targets, key, baseline)


def _subtract_shift(model: Model, shift: float) -> Model:
    """Return a model that subtracts the shift from its input."""
    if isinstance(model, nn.Module):
        return _ShiftedModel(model, shift)
    return lambda variables, images: model(variables, images - shift)


class _ShiftedModel(nn.Module):
    """A module that only forwards `apply`, so that the model keeps its variables and its layers their names."""

    model: nn.Module
    shift: float

    @nn.nowrap
    def apply(self, variables: PyTree, images: Float[Array, "b ..."], **options: Any) -> Any:
        """Apply the model to images without the shift."""
        return self.model.apply(variables, images - self.shift, **get_mode(self.model, False), **options)
