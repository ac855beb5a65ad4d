"""The contract of a saliency method, and what is the same for all of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int, Key, Num, UInt32

from jaxclf.errors import require
from jaxclf.saliency.attribution import Attribution
from jaxclf.saliency.batching import map_batch
from jaxclf.saliency.compiler import Options, compiler_options, require_hashable, with_exact_products
from jaxclf.saliency.query import DEFAULT_ROWS, Query, Score
from jaxclf.types import Array, unit_range


class Method(ABC):
    """Says what a score owes to each pixel. A subclass is a frozen dataclass that answers one question: `explain`."""

    score: Any
    max_rows: Any
    sampled: Any = False
    """Whether it draws, and so needs a key."""
    references: Any = False
    """Whether its baseline is [k, ...] references for all examples rather than one for each."""
    every_class: Any = False
    """Whether it explains the scores of all classes."""
    host: Any = False
    """Whether it works on the host, and so neither under jit nor inside a wrapper."""

    @abstractmethod
    def explain(self, query: Query) -> Attribution:
        """Answer for the examples of a query, pure: values [b, heads, ...], score, delta, evaluations [b, heads]."""

    def __call__(
        self,
        model: Any,
        variables: Any,
        images: Num[Array, "b ..."],
        targets: Int[Array, ...] | int | None = None,
        *,
        key: Key[Array, ...] | UInt32[Array, ...] | None = None,
        baseline: Num[Array, ...] | float | None = None,
    ) -> Attribution:
        """Explain scores of a model at images.

        Args:
            model: A Linen module, applied as `model.apply(variables, images, train=False)`, or a callable
                (variables, images) -> logits [b, classes]. Hashable: it is static under jit.
            variables: What the model is applied with. Other weights do not compile anew.
            images: [b, ...], integers in 0..255 (explained as images / 255) or floats in [0, 1].
            targets: [b] classes, one class for all, or None for the predicted class.
            key: One random key (folded with the row number) or [b], one an example. Methods that draw need it.
            baseline: Where a score is nothing, in [0, 1] units: None is zeros; a number, an image, or [b, ...].
                For expected gradients [k, ...] references. Methods without a baseline leave it unused.

        Raises UserError for shapes that do not fit, for a model that is not hashable, and where a method that draws
        has no key.
        """
        require_hashable(method=self, model=model)
        program = _program(compiler_options(model, variables, images, targets, key, baseline))
        return program(self, model, variables, images, targets, key, baseline)


@dataclass(frozen=True, kw_only=True)
class BaseMethod(Method):
    """A method with its own choice of score."""

    score: Score = "logit"
    """What is explained: the target's logit, its probability, its logarithm, or the logit minus the largest other."""
    max_rows: int | None = None
    """Most rows in one model call; changes values by rounding only. None: the batch, and small batches a few times."""


class Wrapper(Method):
    """A method about another one, its field `method`, whose score, rows and kind of baseline it takes over."""

    method: Any

    @property
    def score(self) -> Score:
        """That of the wrapped method."""
        return self.method.score

    @property
    def max_rows(self) -> int | None:
        """Those of the wrapped method."""
        return self.method.max_rows

    @property
    def sampled(self) -> bool:
        """Whether the wrapped method draws."""
        return self.method.sampled

    @property
    def references(self) -> bool:
        """Whether the wrapped method takes references."""
        return self.method.references

    @property
    def every_class(self) -> bool:
        """Whether the wrapped method explains all classes."""
        return self.method.every_class


def _explain(
    method: Method,
    model: Any,
    variables: Any,
    images: Num[Array, "b ..."],
    targets: Int[Array, ...] | None,
    key: Any,
    baseline: Num[Array, ...] | None,
) -> Attribution:
    """What a call of a method compiles."""
    return ask(lambda query, _: method.explain(query), method, model, variables, images, targets, key, baseline)


class Terms(NamedTuple):
    """How a model is asked, as a method says it: what needs no method gives these in the place of one."""

    score: Score
    max_rows: int | None
    sampled: bool = False
    references: bool = False
    every_class: bool = False


def ask(
    question: Callable[[Query, Any], Any],
    terms: Method | Terms,
    model: Any,
    variables: Any,
    images: Num[Array, "b ..."],
    targets: Int[Array, ...] | int | None,
    key: Any = None,
    baseline: Num[Array, ...] | float | None = None,
    given: Any = None,
) -> Any:
    """What a question answers for a batch, asked of a few examples at a time; see `Method.__call__`.

    It takes a query and what is `given` of its examples, a tree of arrays [b, ...]. Its answer is a tree of
    [b, heads, ...], which loses the axis of heads where it is about one class.
    """
    require(terms.max_rows is None or terms.max_rows >= 1, f"max_rows={terms.max_rows}: expected at least 1")
    require(key is not None or not terms.sampled, f"{type(terms).__name__} draws at random: give it a key")
    images = jnp.asarray(unit_range(images))
    b, shape = images.shape[0], images.shape
    if targets is not None:
        targets = jnp.asarray(targets)
        require(targets.shape in ((), (b,)), f"targets of shape {list(targets.shape)}: expected [{b}] or one class")
        require(jnp.issubdtype(targets.dtype, jnp.integer), f"targets are {targets.dtype}: expected integers")
        targets = jnp.broadcast_to(targets, (b,))
    keys = None if key is None else example_keys(key, b)
    baseline = _baseline(terms, baseline, images)
    rows = terms.max_rows or max(b, DEFAULT_ROWS)

    def some(examples):
        images, targets, keys, own, given = examples
        query = Query(
            model, variables, images, targets, terms.every_class, terms.score, keys,
            baseline if terms.references else own, rows,
        )  # fmt: skip
        return question(query, given)

    examples = (images, targets, keys, None if terms.references else jnp.broadcast_to(baseline, shape), given)
    answer = map_batch(some, examples, rows)
    return answer if terms.every_class else jax.tree.map(lambda x: x.squeeze(1), answer)


def example_keys(key: Any, b: int) -> Key[Array, " b"]:
    """A key for each of b examples: as given, or one key folded with the row number."""
    if not jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        key = jax.random.wrap_key_data(key)
    require(key.shape in ((), (b,)), f"keys of shape {list(key.shape)}: expected one, or [{b}]")
    return key if key.shape else jax.vmap(partial(jax.random.fold_in, key))(jnp.arange(b))


def _baseline(terms: Method | Terms, baseline: Any, images: Float[Array, "b ..."]) -> Float[Array, ...]:
    """The baseline in the units of the images, [1 or b, ...], or [k, ...] references."""
    baseline = jnp.asarray(0.0 if baseline is None else baseline)
    if baseline.ndim:
        baseline = unit_range(baseline)
    baseline = baseline.astype(images.dtype)
    shape = images.shape
    if baseline.ndim < images.ndim:
        fits = baseline.shape in ((), shape[1:])
        baseline = jnp.broadcast_to(baseline, (1, *shape[1:])) if fits else baseline
    else:
        fits = baseline.shape[1:] == shape[1:] and (terms.references or baseline.shape[0] in (1, shape[0]))
    require(fits, f"a baseline of shape {list(baseline.shape)}: expected a number, {list(shape[1:])} or {list(shape)}")
    return baseline


@cache
def _program(options: Options) -> Any:
    return jax.jit(with_exact_products(_explain), static_argnums=(0, 1), compiler_options=dict(options) or None)
