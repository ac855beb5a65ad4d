"""Images with the Shapley values of their parts for a network, and the scores of maps for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float, Int

from jaxclf.datasets.cartoons.characters import Character
from jaxclf.datasets.parts import PartsImage
from jaxclf.saliency.parts.funnybirds import FUNNYBIRDS, Lookalikes, find_lookalikes, score_funnybirds
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
        """Score maps that have the right sums: what each of s1 to s8 compares with, and the Shapley values."""
        pairs = list(zip(self.images, self.truths, strict=True))
        rows = np.array([list(score_truth(*pair).values()) for pair in pairs])
        maps = [
            [
                sum_over_parts(image, draw_part_values(image, compute_shapley(truth.logits[:, target]), truth.clutter))
                for (image, truth), target in zip(pairs, targets.tolist(), strict=True)
            ]
            for targets in self.targets
        ]
        return self._add_funnybirds(rows, [maps[0], *maps[2:]])

    def _add_funnybirds(self, rows: Scores, summed: Sequence[Sequence]) -> Scores:
        """Return scores with those of FunnyBirds, if the characters share parts."""
        if not self.is_mixed:
            return rows
        maps = list(zip(*summed, strict=True))
        return np.concatenate([rows, score_funnybirds(self.images, self.truths, maps, self.characters)], axis=1)
