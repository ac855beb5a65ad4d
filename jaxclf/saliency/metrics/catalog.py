"""The measures of an attribution that need nothing but the model, the images and the attribution, by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from jaxtyping import Float, PyTree

from jaxclf.saliency.base import Keys
from jaxclf.saliency.metrics.curves import Curve, deletion, insertion, srg
from jaxclf.saliency.metrics.faithfulness import (
    Baseline,
    Images,
    Targets,
    faithfulness_correlation,
    infidelity,
    sensitivity_n,
)
from jaxclf.saliency.metrics.measures import entropy, gini
from jaxclf.saliency.metrics.regions import irof, saco, single_deletion
from jaxclf.saliency.metrics.road import road
from jaxclf.saliency.query import Attribution, Model, Score
from jaxclf.types import Array


@dataclass(frozen=True)
class Measure:
    """A measure with the calling form that all share: `measure(model, variables, images, a, key=key)` -> [b]."""

    function: Callable[..., Array | Curve]
    """The measure: of an attribution, or of model, variables, images and attribution."""
    higher_is_better: bool
    options: tuple[tuple[str, Any], ...] = ()
    """Arguments that are the same in every call."""

    @property
    def perturbs(self) -> bool:
        """True if the model evaluates changed images; the attribution then needs one value per pixel or number."""
        return "model" in inspect.signature(self.function).parameters

    def __call__(
        self,
        model: Model,
        variables: PyTree,
        images: Images,
        a: Attribution,
        *,
        key: Keys,
        targets: Targets = None,
        baseline: Baseline = None,
        score: Score = "logit",
        max_rows: int | None = None,
    ) -> Float[Array, " b"]:
        """Measure an attribution.

        Args:
            model: As in `Method.__call__`.
            variables: The variables of the model.
            images: Images [b, ...].
            a: Their attribution.
            key: One random key or [b], for measures that sample.
            targets: The explained classes; None: the predicted ones.
            baseline: Replaces the pixels that are removed.
            score: The explained score, for measures that compare the values with changes of it. Others measure the
                probability.
            max_rows: Largest number of images per model call.

        Returns:
            [b] the measure of each example.

        Raises:
            UserError: If shapes do not fit.
        """
        if not self.perturbs:
            return self.function(a)  # pyright: ignore[reportReturnType]
        given = {"key": key, "targets": targets, "baseline": baseline, "score": score, "max_rows": max_rows}
        accepted = inspect.signature(self.function).parameters
        options = {name: value for name, value in given.items() if name in accepted} | dict(self.options)
        result = self.function(model, variables, images, a, **options)
        return result.auc if isinstance(result, Curve) else result


PROBABILITY = (("score", "probability"),)

MEASURES: dict[str, Measure] = {
    "gini": Measure(gini, higher_is_better=True),
    "entropy": Measure(entropy, higher_is_better=False),
    "insertion": Measure(insertion, higher_is_better=True, options=PROBABILITY),
    "deletion": Measure(deletion, higher_is_better=False, options=PROBABILITY),
    "srg": Measure(srg, higher_is_better=True, options=PROBABILITY),
    "road": Measure(road, higher_is_better=False, options=PROBABILITY),
    "irof": Measure(irof, higher_is_better=True, options=PROBABILITY),
    "saco": Measure(saco, higher_is_better=True, options=PROBABILITY),
    "single_deletion": Measure(single_deletion, higher_is_better=True),
    "infidelity": Measure(infidelity, higher_is_better=False, options=(("samples", 30), ("normalize", True))),
    "sensitivity_n": Measure(sensitivity_n, higher_is_better=True),
    "faithfulness_correlation": Measure(faithfulness_correlation, higher_is_better=True),
}
"""The measures by name. Not in it are those that need a mask, a completeness gap, or the method itself."""
