"""The scores of FunnyBirds, for characters that share their parts.

R. Hesse, S. Schaub-Meyer, S. Roth, "FunnyBirds: a synthetic vision dataset for a part-based analysis of explainable AI
methods" (2023), arXiv:2308.06248. Differences from the published code:

- A constant map has the rank correlation 0 and is not left out.
- The threshold of important parts is relative to the sum of absolute values, and is chosen on the other half of the
  images instead of on the images that are scored.
- Every score has a standard error.
- Images are trained with one label, not with all classes that their remaining parts allow.
- Masks of parts are disjoint. Those of FunnyBirds are dilated by 5 x 5 pixels, and overlap.
- What is in front of a character counts as one object for `d` and the background independence.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from jaxclf.datasets.cartoons.characters import Character
from jaxclf.datasets.parts import PartsImage
from jaxclf.saliency.parts.games import list_members
from jaxclf.saliency.parts.maps import AttributedImage
from jaxclf.saliency.parts.scores import average_defined, correlate_ranks
from jaxclf.saliency.parts.truth import Truth

FUNNYBIRDS: dict[str, str] = {
    "csdc": "largest share of important parts in a smallest set of parts that only this character has",
    "pc": "the network predicts the same class for the important parts alone",
    "dc": "the network predicts another class without the important parts",
    "d": "share of irrelevant parts and clutter that are not important",
    "sd": "(1 + s1) / 2",
    "ts": "two parts of another character get more in its map than in that of a third character, and the reverse",
}
"""Scores by name, with their meaning."""
THRESHOLDS = np.linspace(0.01, 0.5, 80)  # share of a map's absolute values above which a part is important
IRRELEVANT = 0.05  # largest share of the logit that is lost without an irrelevant part


class Lookalikes(NamedTuple):
    """Two other characters that each have two of an image's parts, not the same ones."""

    first: int
    second: int
    first_parts: Bool[np.ndarray, " parts"]
    second_parts: Bool[np.ndarray, " parts"]


def find_lookalikes(image: PartsImage, characters: Sequence[Character]) -> Lookalikes | None:
    """Find two other characters that share two parts each with an image, not the same ones.

    Args:
        image: The image.
        characters: All characters.

    Returns:
        The first two, or None if there are none.
    """
    shared = {
        label: np.isin(image.parts, get_parts(character))
        for label, character in enumerate(characters)
        if label != image.label
    }
    pairs = [(label, parts) for label, parts in shared.items() if parts.sum() == 2]
    for i, (first, first_parts) in enumerate(pairs):
        for second, second_parts in pairs[i + 1 :]:
            if not (first_parts & second_parts).any():
                return Lookalikes(first, second, first_parts, second_parts)
    return None


def get_parts(character: Character) -> list[str]:
    """Return the names of all features of a character."""
    return [*character.body.split(), *character.head.split()]


def find_sufficient_sets(image: PartsImage, characters: Sequence[Character]) -> Bool[np.ndarray, "sets parts"]:
    """Return the smallest sets of visible parts that no other character has, none of which contains another."""
    others = [get_parts(character) for label, character in enumerate(characters) if label != image.label]
    shared = np.array([np.isin(image.parts, other) for other in others])
    found: list[np.ndarray] = []
    members = list_members(len(image.parts))
    for subset in members[np.argsort(members.sum(axis=1), kind="stable")]:
        is_own = not (shared | ~subset).all(axis=1).any()
        if is_own and not any((subset | ~smaller).all() for smaller in found):
            found.append(subset)
    return np.array(found, bool).reshape(-1, len(image.parts))


def score_thresholds(
    image: PartsImage, values: AttributedImage, truth: Truth, sufficient: Bool[np.ndarray, "sets parts"]
) -> Float[np.ndarray, "4 thresholds"]:
    """Compute the scores that depend on a threshold.

    Args:
        image: The image.
        values: Its map, summed over parts.
        truth: The truth.
        sufficient: The smallest sets of parts that only this character has.

    Returns:
        csdc, pc, dc and d for every threshold; NaN where one is not defined for the image.
    """
    total = values.total or 1.0
    important = values.parts / total > THRESHOLDS[:, None]
    bits = np.array([_to_bits(row) for row in important])
    everything = len(truth.logits) - 1
    predicted = truth.logits.argmax(axis=1)
    csdc = ((important[:, None] & sufficient).sum(axis=2) / sufficient.sum(axis=1)).max(axis=1, initial=0)
    least = IRRELEVANT * abs(truth.logits[everything, image.label])
    irrelevant, marked = truth.drops < least, important
    if values.clutter is not None:
        irrelevant = np.append(irrelevant, truth.clutter < least)
        marked = np.column_stack([important, values.clutter / total > THRESHOLDS])
    d = 1 - (marked & irrelevant).sum(axis=1) / irrelevant.sum() if irrelevant.any() else np.full(len(bits), np.nan)
    return np.array(
        [
            csdc if len(sufficient) else np.full(len(bits), np.nan),
            predicted[bits] == predicted[everything],
            predicted[everything & ~bits] != predicted[everything],
            d,
        ],
        float,
    )


def choose_thresholds(scores: Float[np.ndarray, "images 4 thresholds"]) -> Float[np.ndarray, "images 4"]:
    """Return the scores of each image at the threshold that is best on the half of the images that it is not in."""
    chosen = np.empty(scores.shape[:2])
    for half in (0, 1):
        csdc, pc, dc, d = np.nan_to_num(average_defined(scores[1 - half :: 2]))
        best = int(((csdc + pc + dc) / 3 + d).argmax())
        chosen[half::2] = scores[half::2, :, best]
    return chosen


def score_lookalikes(
    first: AttributedImage, second: AttributedImage, truth: Truth, lookalikes: Lookalikes | None
) -> float:
    """Compute the score ts.

    Args:
        first: The map of the first lookalike, summed over parts.
        second: That of the second.
        truth: The truth.
        lookalikes: The lookalikes.

    Returns:
        The share of two comparisons that are right: the parts of each lookalike get more in its own map. NaN if there
        are no lookalikes, or if the network does not distinguish their parts.
    """
    if lookalikes is None:
        return float("nan")
    everything = len(truth.logits) - 1
    pairs = ((lookalikes.first, lookalikes.first_parts), (lookalikes.second, lookalikes.second_parts))
    wins = []
    for (label, own), (_, others), of_own, of_other in (
        (pairs[0], pairs[1], first, second),
        (pairs[1], pairs[0], second, first),
    ):
        left = [truth.logits[everything & ~_to_bits(parts), label] for parts in (own, others)]
        if left[0] >= left[1]:  # the logit depends more on the parts of the other character
            return float("nan")
        shares = [values.parts[own].sum() / (values.total or 1.0) for values in (of_own, of_other)]
        wins.append(shares[0] > shares[1])
    return float(np.mean(wins))


def _to_bits(parts: Bool[np.ndarray, " parts"]) -> int:
    return int(parts @ (1 << np.arange(len(parts))))


def score_funnybirds(
    images: Sequence[PartsImage],
    truths: Sequence[Truth],
    maps: Sequence[Sequence[AttributedImage]],
    sufficient: Sequence[Bool[np.ndarray, "_ _"]],
    lookalikes: Sequence[Lookalikes | None],
) -> Float[np.ndarray, "images scores"]:
    """Score the maps of a method for images of characters that share their parts.

    Args:
        images: The images.
        truths: Their truth.
        maps: For each image its maps for its own character and for the two lookalikes, summed over parts.
        sufficient: For each image the result of `find_sufficient_sets`.
        lookalikes: For each image the result of `find_lookalikes`.

    Returns:
        The scores of `FUNNYBIRDS`; NaN where one is not defined for an image, whatever the map.
    """
    thresholds, rest = [], []
    for image, truth, (own, first, second), sets, pair in zip(
        images, truths, maps, sufficient, lookalikes, strict=True
    ):
        thresholds.append(score_thresholds(image, own, truth, sets))
        sd = (1 + correlate_ranks(own.parts, truth.drops)) / 2
        rest.append((sd, score_lookalikes(first, second, truth, pair)))
    return np.column_stack([choose_thresholds(np.array(thresholds)), rest])
