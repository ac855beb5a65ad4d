"""What a method is asked: examples, the scores to explain, and the model as one function of images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Float, Int

from jaxclf.errors import UserError
from jaxclf.saliency.attribution import Attribution
from jaxclf.saliency.batching import map_over
from jaxclf.types import Array, Logits
from jaxclf.xla.convolutions import fast_convolutions

Score = Literal["logit", "probability", "log_probability", "margin"]
Scores = Float[Array, "b heads"]
"""The explained scores of each example: that of its target, or one a class."""
DEFAULT_ROWS = 256
"""Rows in a model call where nothing is said and the batch is smaller: enough to be fast, too few to need memory."""


def model_function(model: Any, variables: Any) -> Callable[[Array], Logits]:
    """A Linen module, or a callable of variables and images, as one function of images."""
    if isinstance(model, nn.Module):
        return lambda images: model.apply(variables, images, train=False)  # pyright: ignore[reportReturnType]
    return lambda images: model(variables, images)


def scores_of(kind: Score, logits: Logits, targets: Int[Array, " b"] | None) -> Scores:
    """The score of each example's target, or of every class where there are no targets.

    The margin is a logit minus the largest of the others. A target that is no class has NaN for its score.
    """
    scores = logits.astype(jnp.float32)
    if kind == "probability":
        scores = jax.nn.softmax(scores)
    elif kind == "log_probability":
        scores = jax.nn.log_softmax(scores)
    elif kind == "margin":
        scores = scores - _largest_other(scores)
    if targets is None:
        return scores
    classes = scores.shape[1]
    known = jnp.where(targets < 0, classes, targets)[:, None]
    return jnp.take_along_axis(scores, known, axis=1, mode="fill", fill_value=jnp.nan)


def _largest_other(logits: Logits) -> Logits:
    # Gathered, not reduced: the gradient of a maximum is split between equal logits.
    first = jnp.argmax(logits, axis=1, keepdims=True)
    is_first = jnp.arange(logits.shape[1])[None, :] == first
    second = jnp.argmax(jnp.where(is_first, -jnp.inf, logits), axis=1, keepdims=True)
    return jnp.take_along_axis(logits, jnp.where(is_first, second, first), axis=1)


@dataclass(frozen=True, eq=False)
class Query:
    """Some examples and what is asked about them. Heads are the explained scores of an example: one, or one a class."""

    model: Any
    """A Linen module, or a callable (variables, images) -> logits."""
    variables: Any
    images: Float[Array, "b ..."]
    """In [0, 1] units."""
    targets: Int[Array, " b"] | None
    """Which class is explained; None asks for the predicted one, until `settled`, or for every class."""
    every_class: bool
    score: Score
    keys: Any
    """[b] random keys, one an example; None where none are given."""
    baseline: Float[Array, ...]
    """Like the images; for expected gradients [k, ...] references."""
    max_rows: int
    """Rows in one model call."""
    rewrite: Callable[[Callable], Callable] = lambda function: function
    """What a method makes of the model, such as one with other gradients."""

    def replace(self, **changes: Any) -> Query:
        """The same question with some fields changed."""
        return replace(self, **changes)

    @property
    def points_at_once(self) -> int:
        """How many points an example `max_rows` allows at once."""
        return max(1, self.max_rows // self.images.shape[0])

    def logits(self, images: Float[Array, "b ..."]) -> Logits:
        """Logits [b, classes]."""
        return checked(self.rewrite(model_function(self.model, self.variables))(images), images)

    def scores(self, images: Float[Array, "b ..."]) -> Scores:
        """The explained scores [b, heads] of a settled query, at these images."""
        return scores_of(self.score, self.logits(images), self.targets)

    def settled(self) -> tuple[Query, Scores]:
        """The query with predicted classes as targets where none are given, and the scores at its images."""
        return self.settled_by(self.logits(self.images))

    def settled_by(self, logits: Logits) -> tuple[Query, Scores]:
        """`settled`, where the logits are known."""
        query = self._with_targets(logits)
        return query, scores_of(self.score, logits, query.targets)

    def _with_targets(self, logits: Logits) -> Query:
        if self.every_class or self.targets is not None:
            return self
        return self.replace(targets=jnp.argmax(logits, axis=1))

    def settled_with_gradients(self) -> tuple[Query, Scores, Float[Array, "b heads ..."]]:
        """`settled`, and the gradients of the scores by the images, from one pass forward and one backward."""
        return self.differentiate(lambda images: (self.logits(images), None), self.images)[:3]

    def gradients(self, images: Float[Array, "b ..."]) -> Float[Array, "b heads ..."]:
        """Gradients of the scores of a settled query by the images."""
        return self.differentiate(lambda images: (self.logits(images), None), images)[2]

    def differentiate(
        self, function: Callable[[Any], tuple[Logits, Any]], point: Any
    ) -> tuple[Query, Scores, Any, Any]:
        """`settled` by the logits `function` gives, the gradients [b, heads, ...] by its point, and what else it gives.

        The point is a tree of arrays [b, ...]. It is one pass forward and one backward.
        """

        def both(point):
            logits, pull, rest = jax.vjp(function, point, has_aux=True)
            targets = self._with_targets(logits).targets
            scores, pull_scores = jax.vjp(lambda logits: scores_of(self.score, logits, targets), logits)
            gradients = pull_heads(lambda heads: pull(*pull_scores(heads))[0], scores, self.points_at_once)
            return scores, gradients, rest, targets

        scores, gradients, rest, targets = fast_convolutions(both)(point)
        return self.replace(targets=targets), scores, gradients, rest


def checked(logits: Any, images: Float[Array, "b ..."]) -> Logits:
    """The logits of images; raises UserError where they are not [b, classes]."""
    if logits.ndim != 2 or logits.shape[0] != images.shape[0]:
        raise UserError(f"the model gives {list(logits.shape)} for {images.shape[0]} images: expected [b, classes]")
    return logits


def pull_heads(pull: Callable[[Scores], Any], scores: Scores, at_once: int) -> Any:
    """What `pull`, a vector-Jacobian product of the scores, gives for each head: a tree of arrays [b, heads, ...].

    Examples do not depend on one another, so one product serves them all. Of the heads, `at_once` are together: the
    arrays of all of them would leave the cache, and a convolutional network take a quarter longer (docs/log.md).
    """
    heads = scores.shape[1]
    if heads == 1:
        return jax.tree.map(lambda x: x[:, None], pull(jnp.ones_like(scores)))
    one_hot = jnp.broadcast_to(jnp.eye(heads, dtype=scores.dtype)[:, None, :], (heads, *scores.shape))
    return jax.tree.map(lambda x: jnp.moveaxis(x, 0, 1), map_over(pull, one_hot, at_once))


def complete(
    query: Query,
    values: Float[Array, "b heads ..."],
    score: Scores,
    baseline_score: Scores | float,
    evaluations: int | Int[Array, " b"],
    stderr: Float[Array, "b heads ..."] | None = None,
) -> Attribution:
    """An attribution with its completeness gap."""
    gap = values.sum(axis=tuple(range(2, values.ndim))) - (score - baseline_score)
    return attribution(query, values, score, evaluations, stderr)._replace(delta=gap)


def attribution(
    query: Query,
    values: Float[Array, "b heads ..."],
    score: Scores,
    evaluations: int | Int[Array, " b"],
    stderr: Float[Array, "b heads ..."] | None = None,
) -> Attribution:
    """An attribution without one. `evaluations` are those of each example."""
    count = jnp.broadcast_to(jnp.asarray(evaluations, jnp.int32), query.images.shape[:1])
    return Attribution(values, score, None, stderr, jnp.broadcast_to(count[:, None], score.shape))
