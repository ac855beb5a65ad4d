"""Base classes of saliency methods, and `map_over_batch`, which passes a batch of examples to them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int, Key, Num, PyTree, UInt32

from jaxclf.errors import require
from jaxclf.saliency.checks import (
    convert_targets,
    require_classes,
    require_finite,
    require_hashable,
    warn_of_probabilities,
)
from jaxclf.saliency.compiler import CompilerOptions, select_compiler_options, use_full_precision
from jaxclf.saliency.features import Features, make_features
from jaxclf.saliency.query import DEFAULT_MAX_ROWS, Attribution, Model, Query, Score
from jaxclf.types import Array, to_unit_range

Targets = Int[Array, "..."] | Sequence[int] | int | None
"""Classes to explain: [b], as an array or a list, one for all examples, or None for the predicted ones."""
Keys = Key[Array, "..."] | UInt32[Array, "..."]
"""One random key or [b], typed or as uint32 data."""


class Method(ABC):
    """A method that attributes a class score to the input pixels. A subclass is a frozen dataclass with `explain`."""

    # Fields in some subclasses and properties in others, which no narrower annotation admits.
    score: Any
    max_rows: Any
    sampled: Any = False
    """True if the method is random and needs a key."""
    references: Any = False
    """True if the baseline is a distribution: images [k, ...] shared by all examples, not one image per example."""
    removes_features: Any = False
    """True if the method removes parts of the image, which can be given as `features`."""
    every_class: Any = False
    """True if the scores of all classes are explained."""
    gradient_based: Any = True
    """False if the method does not depend on gradients of the model, so that they cannot be balanced."""
    host: Any = False
    """True if the method runs on the host, and so neither under jit nor inside a wrapper."""

    @abstractmethod
    def explain(self, query: Query) -> Attribution:
        """Explain the examples of a query. Pure and traceable.

        Args:
            query: Examples, the scores to explain and the model.

        Returns:
            Values [b, targets, ...]; score, delta and evaluations [b, targets].
        """

    def __call__(
        self,
        model: Model,
        variables: PyTree,
        images: Num[Array, "b ..."],
        targets: Targets = None,
        *,
        key: Keys | None = None,
        baseline: Num[Array, ...] | float | None = None,
        features: Int[Array, ...] | None = None,
    ) -> Attribution:
        """Explain scores of a model at images.

        Args:
            model: A Linen module, applied as in evaluation, or a callable
                (variables, images) -> logits [b, classes]. Hashable: it is static under jit.
            variables: The variables of the model. Other values of the same shapes do not recompile.
            images: [b, ...], integers in 0..255 (explained as images / 255) or floats in [0, 1].
            targets: Classes [b], an array or a list, one class for all examples, or None for the predicted classes.
            key: One random key, which is folded with the row number, or one per example [b]. Required by methods that
                sample.
            baseline: The input without information, in [0, 1]: a number, an image [...] or images [b, ...]; None:
                zeros. For expected gradients a baseline distribution [k, ...]. Ignored by methods without a baseline.
            features: For methods that remove parts of the image: the region of each pixel, as integers [h, w] or
                [b, h, w] ([n] or [b, n] for flat images), such as those of `segment_images`. Under jit a constant.

        Returns:
            The attribution. Its values are shaped like the images; those of class activation maps and of attention are
            [b, h, w, 1], and those of a layer are shaped like its output.

        Raises:
            UserError: If shapes do not fit, an image has pixels that are NaN or infinite, a target is not a class of
                the model, the model is not hashable, or a method that samples gets no key. Under jit, such images and
                targets that are not classes give NaN instead.
        """
        require_hashable(method=self, model=model)
        require_finite(images)
        targets = convert_targets(targets)
        if targets is not None:
            require_classes(model, variables, images, targets)
        require(features is None or self.removes_features, f"{self} removes no features: call it without features=")
        regions = None if features is None else make_features(features, images)
        explain = _compile_explain(select_compiler_options(model, variables, images, targets, key, baseline))
        a = explain(self, model, variables, images, targets, key, baseline, regions)
        warn_of_probabilities(model, variables, images, a.score, self.score)
        return a


@dataclass(frozen=True, kw_only=True)
class BaseMethod(Method):
    """A method that chooses its own score."""

    score: Score = "logit"
    """The explained score: the target's logit, probability, log probability, or logit minus the largest other logit."""
    max_rows: int | None = None
    """Largest number of images per model call; affects values by rounding only. None: the batch size, at least 256."""


class Wrapper(Method):
    """A method based on another one, its field `method`, with the score, rows and kind of baseline of that one."""

    method: Method

    @property
    def score(self) -> Score:
        """The score of the wrapped method."""
        return self.method.score

    @property
    def max_rows(self) -> int | None:
        """The largest number of images per model call."""
        return self.method.max_rows

    @property
    def sampled(self) -> bool:
        """True if the wrapped method needs a key."""
        return self.method.sampled

    @property
    def references(self) -> bool:
        """True if the wrapped method has a baseline distribution."""
        return self.method.references

    @property
    def gradient_based(self) -> bool:
        """True if the wrapped method depends on gradients of the model."""
        return self.method.gradient_based

    @property
    def removes_features(self) -> bool:
        """True if the wrapped method removes features."""
        return self.method.removes_features

    @property
    def every_class(self) -> bool:
        """True if the wrapped method explains all classes."""
        return self.method.every_class


@cache
def _compile_explain(options: CompilerOptions) -> Callable[..., Attribution]:
    return jax.jit(use_full_precision(_explain), static_argnums=(0, 1), compiler_options=dict(options) or None)


def _explain(
    method: Method,
    model: Model,
    variables: PyTree,
    images: Num[Array, "b ..."],
    targets: Int[Array, ...] | None,
    key: Keys | None,
    baseline: Num[Array, ...] | None,
    features: Features | None,
) -> Attribution:
    def explain(query, features):
        return method.explain(query.replace(features=features))

    a = map_over_batch(explain, method, model, variables, images, targets, key, baseline, extras=features)
    # A target that is not a class has the score NaN. The gradient of that score is zero, which would be misread.
    known = ~jnp.isnan(a.score).reshape(a.score.shape + (1,) * (a.values.ndim - a.score.ndim))
    return a._replace(values=jnp.where(known, a.values, jnp.nan))


class ScoreSpec(NamedTuple):
    """The attributes of a method that `map_over_batch` reads, for metrics that have no method."""

    score: Score
    max_rows: int | None
    sampled: bool = False
    references: bool = False
    every_class: bool = False


def map_over_batch(
    function: Callable[[Query, PyTree], PyTree],
    spec: Method | ScoreSpec,
    model: Model,
    variables: PyTree,
    images: Num[Array, "b ..."],
    targets: Targets,
    key: Keys | None = None,
    baseline: Num[Array, ...] | float | None = None,
    extras: PyTree[Array] = None,
) -> PyTree:
    """Apply a function of a query to a batch, at most `max_rows` examples at a time.

    Args:
        function: Maps a query, and the `extras` of its examples, to a tree of arrays [b, targets, ...].
        spec: A method, or the same attributes of a metric.
        model: As in `Method.__call__`, like the following arguments.
        variables: The variables of the model.
        images: Images [b, ...].
        targets: Classes to explain.
        key: One random key or [b].
        baseline: The baseline of the examples.
        extras: A tree of arrays [b, ...].

    Returns:
        The outputs of the function for the whole batch, without the targets axis if one class is explained.
    """
    require(spec.max_rows is None or spec.max_rows >= 1, f"max_rows={spec.max_rows}: expected at least 1")
    require(key is not None or not spec.sampled, f"{type(spec).__name__} draws random samples: pass key=")
    images = jnp.asarray(to_unit_range(images))
    b, shape = images.shape[0], images.shape
    if targets is not None:
        targets = jnp.asarray(targets)
        require(targets.shape in ((), (b,)), f"targets of shape {list(targets.shape)}: expected [{b}] or one class")
        require(jnp.issubdtype(targets.dtype, jnp.integer), f"targets are {targets.dtype}: expected integers")
        targets = jnp.broadcast_to(targets, (b,))
    keys = None if key is None else expand_keys(key, b)
    baseline = _prepare_baseline(spec, baseline, images)
    rows = spec.max_rows or max(b, DEFAULT_MAX_ROWS)

    def apply(examples):
        images, targets, keys, own_baseline, extras = examples
        query = Query(
            model, variables, images, targets, spec.every_class, spec.score, keys,
            baseline if spec.references else own_baseline, rows,
        )  # fmt: skip
        return function(query, extras)

    own_baseline = None if spec.references else jnp.broadcast_to(baseline, shape)
    outputs = _map_chunks(apply, (images, targets, keys, own_baseline, extras), rows)
    return outputs if spec.every_class else jax.tree.map(lambda x: x.squeeze(1), outputs)


def _map_chunks(function: Callable[[PyTree], PyTree], examples: PyTree[Array], size: int) -> PyTree:
    """Apply a function to a tree of arrays [b, ...], at most `size` examples at a time."""
    b = jax.tree.leaves(examples)[0].shape[0]
    chunks = b // size
    if b <= size:
        return function(examples)
    # A chunk has every chunks-th example, so that each device has examples of every chunk and none have to move.
    whole = jax.tree.map(lambda x: x[: chunks * size].reshape(size, chunks, *x.shape[1:]).swapaxes(0, 1), examples)
    done = jax.lax.map(function, whole)
    done = jax.tree.map(lambda x: x.swapaxes(0, 1).reshape(chunks * size, *x.shape[2:]), done)
    if chunks * size == b:
        return done
    rest = function(jax.tree.map(lambda x: x[chunks * size :], examples))
    return jax.tree.map(lambda x, y: jnp.concatenate([x, y]), done, rest)


def expand_keys(key: Keys, b: int) -> Key[Array, " b"]:
    """Return one key per example: the given ones, or one key folded with the row number."""
    if not jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        key = jax.random.wrap_key_data(jnp.asarray(key))
    require(key.shape in ((), (b,)), f"keys of shape {list(key.shape)}: expected one, or [{b}]")
    return key if key.shape else jax.vmap(partial(jax.random.fold_in, key))(jnp.arange(b))


def _prepare_baseline(
    spec: Method | ScoreSpec, baseline: Num[Array, ...] | float | None, images: Float[Array, "b ..."]
) -> Float[Array, ...]:
    """Return the baseline in the units of the images, [1 or b, ...], or a baseline distribution [k, ...]."""
    baseline = jnp.asarray(0.0 if baseline is None else baseline)
    if baseline.ndim:
        baseline = to_unit_range(baseline)
    baseline = baseline.astype(images.dtype)
    shape = images.shape
    if baseline.ndim < images.ndim:
        fits = baseline.shape in ((), shape[1:])
        baseline = jnp.broadcast_to(baseline, (1, *shape[1:])) if fits else baseline
    else:
        fits = baseline.shape[1:] == shape[1:] and (spec.references or baseline.shape[0] in (1, shape[0]))
    require(fits, f"a baseline of shape {list(baseline.shape)}: expected a number, {list(shape[1:])} or {list(shape)}")
    return baseline
