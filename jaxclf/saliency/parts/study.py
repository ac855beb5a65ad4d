"""Images with the Shapley values of their parts for a network, and the scores of maps for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from jaxclf.datasets.cartoons.characters import Character
from jaxclf.datasets.parts import PartsImage
from jaxclf.saliency.parts.funnybirds import (
    FUNNYBIRDS,
    Lookalikes,
    find_lookalikes,
    find_sufficient_sets,
    score_funnybirds,
)
from jaxclf.saliency.parts.games import compute_shapley
from jaxclf.saliency.parts.maps import Map, draw_part_values, sum_over_parts
from jaxclf.saliency.parts.scores import SCORES, score_attribution, score_truth
from jaxclf.saliency.parts.truth import Truth

Scores = Float[np.ndarray, "images _"]
"""NaN where a score is not defined for an image, whatever the map."""


@dataclass(frozen=True, eq=False)
class PartsStudy:
    """Images and their truth for one network."""

    characters: tuple[Character, ...]
    """The classes of the network."""
    images: list[PartsImage]
    truths: list[Truth]

    @property
    def is_mixed(self) -> bool:
        """True if the characters share their parts, as the scores of FunnyBirds require."""
        return all(character.fixed for character in self.characters)

    @property
    def scores(self) -> dict[str, str]:
        """The scores by name, with their meaning."""
        return SCORES | (FUNNYBIRDS if self.is_mixed else {})

    @cached_property
    def lookalikes(self) -> list[Lookalikes | None]:
        """Two characters that share parts with each image, if the characters share any."""
        return [find_lookalikes(image, self.characters) for image in self.images] if self.is_mixed else []

    @cached_property
    def sufficient_sets(self) -> list[np.ndarray]:
        """The smallest sets of parts [sets, parts] that only the character of an image has, if characters share any."""
        return [find_sufficient_sets(image, self.characters) for image in self.images] if self.is_mixed else []

    @property
    def targets(self) -> list[Int[np.ndarray, " images"]]:
        """The classes to explain: one for each image, in each of several maps.

        The image's own character, the class with the largest other logit, and the lookalikes, if the characters share
        parts; its own again where there are none.
        """
        own = np.array([image.label for image in self.images])
        targets = [own, np.array([truth.rival for truth in self.truths])]
        for place in (0, 1) if self.is_mixed else ():
            pairs = zip(own.tolist(), self.lookalikes, strict=True)
            targets.append(np.array([label if found is None else found[place] for label, found in pairs]))
        return targets

    def score_maps(self, maps: Sequence[Sequence[Map]]) -> Scores:
        """Score the maps of a method.

        Args:
            maps: The maps of all images for each of the `targets`.

        Returns:
            The scores of each image.
        """
        summed = [
            [sum_over_parts(image, values) for image, values in zip(self.images, of_target, strict=True)]
            for of_target in maps
        ]
        rows = [
            list(score_attribution(own, rival, truth).values())
            for own, rival, truth in zip(*summed[:2], self.truths, strict=True)
        ]
        return self._add_funnybirds(np.array(rows), [summed[0], *summed[2:]])

    def score_truths(self) -> Scores:
        """Score maps with the right sums.

        Returns:
            For s1 to s8 and sd the scores of maps of the numbers that each compares with, and for the other scores of
            FunnyBirds those of maps of the Shapley values.
        """
        pairs = list(zip(self.images, self.truths, strict=True))
        rows = np.array([list(score_truth(*pair).values()) for pair in pairs])
        maps = [
            [
                sum_over_parts(image, draw_part_values(image, compute_shapley(truth.logits[:, target])))
                for (image, truth), target in zip(pairs, targets.tolist(), strict=True)
            ]
            for targets in self.targets
        ]
        scores = self._add_funnybirds(rows, [maps[0], *maps[2:]])
        if self.is_mixed:
            names = list(self.scores)
            scores[:, names.index("sd")] = (1 + scores[:, names.index("s1")]) / 2
        return scores

    def describe_truths(self) -> list[dict[str, Any]]:
        """Return the truth of each image as JSON data: its character, its parts, and numbers for them."""
        names = ("drops", "gains", "shapley", "interactions", "additive_share", "clutter", "background", "correct")
        return [
            {
                "character": self.characters[image.label].name,
                "parts": list(image.parts),
                "rival": self.characters[truth.rival].name,
                **{name: np.asarray(getattr(truth, name)).tolist() for name in names},
            }
            for image, truth in zip(self.images, self.truths, strict=True)
        ]

    def _add_funnybirds(self, rows: Scores, summed: Sequence[Sequence]) -> Scores:
        """Return scores with those of FunnyBirds, if the characters share parts."""
        if not self.is_mixed:
            return rows
        maps = list(zip(*summed, strict=True))
        added = score_funnybirds(self.images, self.truths, maps, self.sufficient_sets, self.lookalikes)
        return np.concatenate([rows, added], axis=1)
