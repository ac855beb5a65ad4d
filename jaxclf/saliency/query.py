"""Input and output of a saliency method: `Query`, examples with scores and gradients, and `Attribution`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int, Num, PyTree

from jaxclf.errors import UserError
from jaxclf.figures.attribution import plot_attribution
from jaxclf.models.calling import get_mode
from jaxclf.saliency.affine import AffineSplit, Frontier, split_affine
from jaxclf.saliency.batching import map_over
from jaxclf.saliency.pixels import infer_image_shape
from jaxclf.types import Array, Logits
from jaxclf.xla.convolutions import rewrite_convolutions

if TYPE_CHECKING:
    from jaxclf.figures.axes import Figure

Model = nn.Module | Callable[[PyTree, Array], Logits]
"""A Linen module, applied as in evaluation, or a callable of variables and images."""
Score = Literal["logit", "probability", "log_probability", "margin"]
Scores = Float[Array, "b targets"]
"""The explained scores of each example: the one of its target, or those of all classes."""
MAX_GROWTH = 4
"""Largest ratio of the sizes of a frontier and the images if many classes are explained."""
DEFAULT_MAX_ROWS = 256
"""Images per model call where `max_rows` is None and the batch is smaller: enough to be fast, and little memory."""


class Attribution(NamedTuple):
    """The result of a saliency method for b examples.

    With `all_classes` a class axis follows the batch axis of every field.
    """

    values: Array
    """Attributions in units of the score, shaped like the images (float32 for integer images), with channels. Class
    activation maps and maps of attention are [b, h, w, 1]; values of a layer are shaped like its output."""
    score: Array
    """[b] the explained score at the images."""
    delta: Array | None
    """[b] the convergence delta, sum(values) - (score - score at the baseline); None for methods without
    completeness."""
    stderr: Array | None
    """Standard errors of `values` for methods that sample; None for others."""
    evaluations: Array
    """[b] the number of images that the model evaluated per example, forward or forward and backward, with the
    endpoints of a path."""

    def plot(self, images: Num[Array, "b ..."]) -> Figure:
        """Plot the images beside their maps, one row per image, and with one class per image the maps over them.

        Args:
            images: The explained images [b, h, w, c], gray or color, or flat squares [b, n].

        Returns:
            A matplotlib figure, which notebooks show; `figure.savefig(path)` writes it. Red raises the score, blue
            lowers it; at the right are the values of the last colors. Channels are summed.

        Raises:
            UserError: If the images are not those of the attribution, not gray or color, or flat and not square, and
                for values of a layer without height and width.
        """
        shape = infer_image_shape(images.shape[1:])
        places = self.values.shape[self.score.ndim :]
        fits = len(places) == 3 or places == images.shape[1:]
        if shape is None or shape[2] not in (1, 3) or len(images) != len(self.values) or not fits:
            raise UserError(
                f"images of shape {list(images.shape)} for values of shape {list(self.values.shape)}: expected the "
                "explained images [b, h, w, c] with 1 or 3 channels, or [b, n] of squares, and values with such axes"
            )
        values, scores = jax.device_get((self.values, self.score))
        scores = scores.reshape(len(scores), -1)
        values = values.reshape(*scores.shape, *(places if len(places) == 3 else shape))
        single = self.score.ndim == 1
        rows = [f"score\n{score:.3g}" if single else "" for score in scores[:, 0]]
        columns = ["map"] if single else [f"class {i}" for i in range(scores.shape[1])]
        return plot_attribution(np.asarray(images).reshape(-1, *shape), values, rows, columns)


@dataclass(frozen=True, eq=False)
class Query:
    """Examples, the scores to explain and the model. The axis `targets` has one score, or those of all classes."""

    model: Model
    variables: PyTree
    images: Float[Array, "b ..."]
    """In [0, 1]."""
    targets: Int[Array, " b"] | None
    """The classes to explain; None with `every_class`, and for predicted classes that are not resolved yet."""
    every_class: bool
    """True if the scores of all classes are explained."""
    score: Score
    keys: Any
    """Random keys [b], one per example; None if no key is given."""
    baseline: Float[Array, ...]
    """Shaped like the images, or a baseline distribution [k, ...] for expected gradients."""
    max_rows: int
    """The largest number of images in one model call."""
    features: Any = None
    """The `Features` that methods remove as a whole; None if none are given."""
    rewrite: Callable[[Callable], Callable] = lambda function: function
    """A transformation of the model function, such as one that changes the gradients of ReLUs."""

    def replace(self, **changes: Any) -> Query:
        """Return a copy with some fields changed."""
        return replace(self, **changes)

    @property
    def points_per_call(self) -> int:
        """The number of points, such as steps of a path, that fit into one model call for each example."""
        return max(1, self.max_rows // self.images.shape[0])

    def compute_logits(self, images: Float[Array, "b ..."]) -> Logits:
        """Return the logits of images."""
        return check_logits(self.rewrite(bind_variables(self.model, self.variables))(images), images)

    def compute_scores(self, images: Float[Array, "b ..."]) -> Scores:
        """Return the explained scores at images, once targets are resolved."""
        return self.score_logits(rewrite_convolutions(self.compute_logits)(images))

    def score_logits(self, logits: Logits) -> Scores:
        """Return the explained scores of logits, once targets are resolved."""
        return select_scores(self.score, logits, self.targets)

    def compute_gradients(self, images: Float[Array, "b ..."]) -> Float[Array, "b targets ..."]:
        """Return the gradients of the scores with respect to images, once targets are resolved."""
        return self.differentiate(lambda images: (self.compute_logits(images), None), images)[2]

    def split(self) -> AffineSplit:
        """Return the model, rewritten, as its part that is affine in the images and the rest.

        The gradients that are summed for the frontier have a row for each example and target. If these are more rows
        than one model call has, the frontier may have at most four times as many elements as the images.
        """
        split = split_affine(self.compute_logits, self.images)
        frontier = jax.eval_shape(split.prefix, self.images)
        many = self.every_class and jax.eval_shape(split.rest, frontier).size > self.max_rows
        if many and sum(x.size for x in frontier) > MAX_GROWTH * self.images.size:
            return AffineSplit(lambda images: (images,), lambda values: self.compute_logits(*values))
        return split

    def pull_back(self, pull: Callable[[Frontier], tuple[Array]], gradients: Frontier) -> Float[Array, "b targets ..."]:
        """Apply the transpose of an affine function of the images to gradients of each target.

        Args:
            pull: The vector-Jacobian product of the function, as `jax.vjp` returns it.
            gradients: A tree of arrays [b, targets, ...] for the outputs of the function.

        Returns:
            Gradients [b, targets, ...] with respect to the images.
        """

        def pull_targets(gradients):
            by_target = jax.tree.map(lambda x: jnp.moveaxis(x, 1, 0), gradients)
            return jnp.moveaxis(map_over(lambda g: pull(g)[0], by_target, self.points_per_call), 0, 1)

        return rewrite_convolutions(pull_targets)(gradients)

    def resolve_targets(self, logits: Logits | None = None) -> tuple[Query, Scores]:
        """Return the query with predicted classes in place of missing targets, and the scores at its images.

        Args:
            logits: The logits at the images, if they are known.
        """
        logits = self.compute_logits(self.images) if logits is None else logits
        query = self._set_targets(logits)
        return query, query.score_logits(logits)

    def resolve_with_gradients(self) -> tuple[Query, Scores, Float[Array, "b targets ..."]]:
        """Return the result of `resolve_targets` and the gradients, from one forward and one backward pass."""
        return self.differentiate(lambda images: (self.compute_logits(images), None), self.images)[:3]

    def differentiate(
        self,
        function: Callable[[PyTree], tuple[Logits, PyTree]],
        point: PyTree[Array],
        summarize: Callable[[PyTree, PyTree], PyTree] = lambda gradients, _: gradients,
    ) -> tuple[Query, Scores, PyTree, PyTree]:
        """Differentiate the scores with respect to a point, in one forward and one backward pass.

        Args:
            function: Maps the point to logits and auxiliary output.
            point: A tree of arrays [b, ...].
            summarize: Maps the gradients of one target, shaped like the point, and the auxiliary output to a tree of
                arrays [b, ...]. So the gradients of all targets are not in memory at the same time.

        Returns:
            The query with targets, the scores, the summaries [b, targets, ...], and the auxiliary output.
        """

        def compute(point):
            logits, pull, auxiliary = jax.vjp(function, point, has_aux=True)
            targets = self._set_targets(logits).targets
            scores, pull_scores = jax.vjp(lambda logits: select_scores(self.score, logits, targets), logits)
            summaries = pull_per_target(
                lambda cotangents: summarize(pull(*pull_scores(cotangents))[0], auxiliary), scores, self.points_per_call
            )
            return scores, summaries, auxiliary, targets

        scores, summaries, auxiliary, targets = rewrite_convolutions(compute)(point)
        return self.replace(targets=targets), scores, summaries, auxiliary

    def _set_targets(self, logits: Logits) -> Query:
        if self.every_class or self.targets is not None:
            return self
        return self.replace(targets=jnp.argmax(logits, axis=1))


def bind_variables(model: Model, variables: PyTree) -> Callable[[Array], Logits]:
    """Return a model as a function of images."""
    if isinstance(model, nn.Module):
        return lambda images: model.apply(variables, images, **get_mode(model, False))  # pyright: ignore[reportReturnType]
    return lambda images: model(variables, images)


def check_logits(logits: Any, images: Float[Array, "b ..."]) -> Logits:
    """Return the logits of images; raise UserError unless they are [b, classes]."""
    if logits.ndim != 2 or logits.shape[0] != images.shape[0]:
        raise UserError(f"the model gives {list(logits.shape)} for {images.shape[0]} images: expected [b, classes]")
    return logits


def select_scores(kind: Score, logits: Logits, targets: Int[Array, " b"] | None) -> Scores:
    """Return the score of each example's target, or the scores of all classes if targets is None.

    The margin is a logit minus the largest other logit. A target outside the classes has the score NaN.
    """
    scores = logits.astype(jnp.float32)
    if kind == "probability":
        scores = jax.nn.softmax(scores)
    elif kind == "log_probability":
        scores = jax.nn.log_softmax(scores)
    elif kind == "margin":
        scores = scores - _select_largest_other(scores)
    if targets is None:
        return scores
    classes = scores.shape[1]
    # A negative index would count from the end.
    known = jnp.where(targets < 0, classes, targets)[:, None]
    return jnp.take_along_axis(scores, known, axis=1, mode="fill", fill_value=jnp.nan)


def _select_largest_other(logits: Logits) -> Logits:
    # Gathered, not reduced: the gradient of a maximum is split between equal logits.
    first = jnp.argmax(logits, axis=1, keepdims=True)
    is_first = jnp.arange(logits.shape[1])[None, :] == first
    second = jnp.argmax(jnp.where(is_first, -jnp.inf, logits), axis=1, keepdims=True)
    return jnp.take_along_axis(logits, jnp.where(is_first, second, first), axis=1)


def pull_per_target(pull: Callable[[Scores], PyTree], scores: Scores, targets_per_call: int) -> PyTree:
    """Apply a vector-Jacobian product of the scores to each target: a tree of arrays [b, targets, ...].

    Examples do not depend on one another, so one product serves the whole batch.
    """
    targets = scores.shape[1]
    if targets == 1:
        return jax.tree.map(lambda x: x[:, None], pull(jnp.ones_like(scores)))
    one_hot = jnp.broadcast_to(jnp.eye(targets, dtype=scores.dtype)[:, None, :], (targets, *scores.shape))
    # A few targets at a time: with all of them the arrays leave the cache, and a CNN takes a quarter longer.
    return jax.tree.map(lambda x: jnp.moveaxis(x, 0, 1), map_over(pull, one_hot, targets_per_call))


def make_attribution(
    query: Query,
    values: Float[Array, "b targets ..."],
    score: Scores,
    evaluations: int | Int[Array, " b"],
    stderr: Float[Array, "b targets ..."] | None = None,
) -> Attribution:
    """Return an attribution without a delta. `evaluations` are counted per example."""
    count = jnp.broadcast_to(jnp.asarray(evaluations, jnp.int32), query.images.shape[:1])
    return Attribution(values, score, None, stderr, jnp.broadcast_to(count[:, None], score.shape))


def make_complete_attribution(
    query: Query,
    values: Float[Array, "b targets ..."],
    score: Scores,
    baseline_score: Scores | float,
    evaluations: int | Int[Array, " b"],
    stderr: Float[Array, "b targets ..."] | None = None,
) -> Attribution:
    """Return an attribution with its convergence delta."""
    delta = values.sum(axis=tuple(range(2, values.ndim))) - (score - baseline_score)
    return make_attribution(query, values, score, evaluations, stderr)._replace(delta=delta)
