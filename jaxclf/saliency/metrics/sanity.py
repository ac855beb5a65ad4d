"""Sanity checks of a method: does it look at the weights, and is it untouched by what the model does not see?

`targets`, `key` and `baseline` are as the method takes them; the class is that of the model as it was trained. What the
method draws itself it draws alike each time. A method about all classes is checked for each, and [b] becomes
[b, classes].
"""

from __future__ import annotations

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Float

from jaxclf.errors import UserError, require
from jaxclf.saliency.base import Method, ask
from jaxclf.saliency.compiler import compiled
from jaxclf.saliency.metrics.faithfulness import Baseline, Images, Keys, Targets
from jaxclf.saliency.metrics.robustness import OF_MEASURE
from jaxclf.saliency.metrics.similarity import rank_correlation, relative_distance, structural_similarity
from jaxclf.saliency.pixels import grid
from jaxclf.saliency.taps import traced
from jaxclf.types import Array, Variables, unit_range

Path = tuple[str, ...]
"""Names of modules from the outside in."""


class Randomization(NamedTuple):
    """How like the map of the trained model the maps are as layer after layer loses what it learned."""

    layers: Any
    """Names of the layers that have parameters, the output first; at each of them, those before it are random too."""
    rank_correlation: Any
    """[layers, b] Spearman's, of all values; 0 where a map is constant."""
    ssim: Any
    """[layers, b] structural similarity, of the sums over channels, each map divided by its largest absolute value."""


def parameter_randomization(
    method: Method,
    model: Any,
    variables: Variables,
    images: Images,
    *,
    key: Any,
    targets: Targets = None,
    baseline: Baseline = None,
) -> Randomization:
    """The cascading test: from the output down, layer after layer gets parameters as `model.init` makes them.

    A method that explains the model must give other maps. `key` is one key: all examples see the same random weights.
    Other collections, such as running means, stay. Raises UserError for a callable that is no Linen module.

    J. Adebayo et al., "Sanity checks for saliency maps" (2018), arXiv:1810.03292.
    """
    if not isinstance(model, nn.Module):
        raise UserError(f"{type(model).__name__} is no Linen module: there is nothing to initialise its layers anew")
    layers = parameter_layers(model, variables, images[:1])
    names = tuple("/".join(layer) or type(model).__name__ for layer in layers)
    return Randomization(names, *_cascade(method, model, layers, variables, images, key, targets, baseline))


@compiled("method", "model", "layers")
def _cascade(
    method: Method,
    model: nn.Module,
    layers: tuple[Path, ...],
    variables: Variables,
    images: Images,
    key: Any,
    targets: Targets,
    baseline: Baseline,
) -> tuple[Float[Array, "layers b ..."], Float[Array, "layers b ..."]]:
    if not jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        key = jax.random.wrap_key_data(key)
    require(key.shape == (), f"keys of shape {list(key.shape)}: expected one, for the weights that all examples see")
    own = jax.random.fold_in(key, jnp.int32(OF_MEASURE))
    fresh = model.init(own, jnp.asarray(unit_range(images))[:1], train=False)["params"]

    def question(query, _):
        query, _ = query.settled()
        trained = method.explain(query).values

        def at(stage):
            params = with_fresh(variables["params"], fresh, layers, stage)
            values = method.explain(query.replace(variables={**variables, "params": params})).values
            return _similarities(values, trained)

        similarities = jax.lax.map(at, jnp.arange(len(layers)))
        return jax.tree.map(lambda x: jnp.moveaxis(x, 0, -1), similarities)

    similarities = ask(question, method, model, variables, images, targets, key, baseline)
    return jax.tree.map(lambda x: jnp.moveaxis(x, -1, 0), similarities)


def _similarities(
    x: Float[Array, "b heads ..."], y: Float[Array, "b heads ..."]
) -> tuple[Float[Array, "b heads"], Float[Array, "b heads"]]:
    """Rank correlation and structural similarity."""
    maps = x.shape[:2]
    ranks = rank_correlation(x.reshape(*maps, -1), y.reshape(*maps, -1))
    shape = grid(x.shape[2:]) or (x.shape[2:] if x.ndim > 3 else (*x.shape[2:], 1))
    x, y = (values.reshape(*maps, *shape).sum(axis=-1) for values in (x, y))
    return ranks, structural_similarity(x, y)


def parameter_layers(model: nn.Module, variables: Variables, images: Images) -> tuple[Path, ...]:
    """The modules that have parameters of their own, the one that ends last first."""
    ended: list[Path] = []

    def note(call, arguments, options, context):
        output = call(*arguments, **options)
        ended.append(context.module.path)
        return output

    with nn.intercept_methods(note):
        traced(lambda images: model.apply(variables, unit_range(images), train=False), images)
    called = tuple(dict.fromkeys(reversed(ended)))
    leaves, _ = jax.tree_util.tree_flatten_with_path(variables["params"])
    owners = {_owner(path, called) for path, _ in leaves}
    return tuple(path for path in called if path in owners)


def _owner(path: Any, layers: tuple[Path, ...]) -> Path:
    """The innermost of the layers a parameter is in."""
    names = tuple(entry.key for entry in path)
    return max((layer for layer in layers if names[: len(layer)] == layer), key=len)


def with_fresh(params: Any, fresh: Any, layers: tuple[Path, ...], stage: Any) -> Any:
    """The parameters with those of layers 0 to `stage` taken from the fresh ones, the others as they are."""

    def choose(path, old, new):
        return jnp.where(layers.index(_owner(path, layers)) <= stage, new, old)

    return jax.tree_util.tree_map_with_path(choose, params, fresh)


@compiled("method", "model", "shift")
def input_invariance(
    method: Method,
    model: Any,
    variables: Variables,
    images: Images,
    *,
    shift: float = -1.0,
    key: Keys | None = None,
    targets: Targets = None,
    baseline: Baseline = None,
) -> Float[Array, "b ..."]:
    """How far the map moves, relative to its length, when images are shifted and the model takes that back, [b].

    To every number of the images `shift` is added, in [0, 1] units, and the second model subtracts it first: that is
    what a first bias less its weights times the shift does, and exact for padded convolutions too. What is seen and
    what is said of it are the same, so 0 is right. The baseline stays where it is. For a map of zeros it is the change
    itself.

    P.-J. Kindermans et al., "The (un)reliability of saliency methods" (2017), arXiv:1711.00867.
    """

    def question(query, _):
        query, _ = query.settled()
        there = method.explain(query).values
        moved = query.replace(model=_taking_back(query.model, shift), images=query.images + shift)
        return relative_distance(method.explain(moved).values, there)

    return ask(question, method, model, variables, images, targets, key, baseline)


def _taking_back(model: Any, shift: float) -> Any:
    """The model, subtracting the shift from what it is given."""
    if isinstance(model, nn.Module):
        return _TakingBack(model, shift)
    return lambda variables, images: model(variables, images - shift)


class _TakingBack(nn.Module):
    """A module that stands aside: the model keeps its variables, and its layers their names."""

    model: nn.Module
    shift: float

    @nn.nowrap
    def apply(self, variables: Variables, images: Float[Array, "b ..."], **options: Any) -> Any:
        return self.model.apply(variables, images - self.shift, **options)
