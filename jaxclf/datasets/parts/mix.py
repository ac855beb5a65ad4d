"""PartsMix: characters put together from interchangeable parts, the design of FunnyBirds."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

from jaxclf.datasets.cartoons import VERSION, DrawnDataset
from jaxclf.datasets.cartoons.characters import Character

SLOTS = {
    "body": ("stripes", "robe", "suit", "cape"),
    "mouth": ("smile", "split_mouth", "fangs", "grille"),
    "eyes": ("round_eyes", "sunglasses", "slit_eyes", "lamp_eyes"),
    "nose": ("ball_nose", "carrot", "beak", "moustache"),
    "hat": ("crown", "top_hat", "cone", "toque"),
}
"""The parts of each slot, in drawing order."""
FIXED = "round_head"  # the same for all characters, and never left out
CLASSES = 50
IMAGES = 120  # of each character


@cache
def make_mixed_characters() -> tuple[Character, ...]:
    """Return 50 of the 1,024 combinations of one part for each slot, the same ones in every call.

    Any two differ in at least two slots, so no single part tells two characters apart.
    """
    chosen: list[np.ndarray] = []
    for number in np.random.default_rng(VERSION).permutation(4 ** len(SLOTS)).tolist():
        digits = number // 4 ** np.arange(len(SLOTS)) % 4
        if len(chosen) < CLASSES and all((digits != other).sum() >= 2 for other in chosen):
            chosen.append(digits)
    characters = []
    for digits in sorted(tuple(digits.tolist()) for digits in chosen):
        body, *others = (parts[digit] for parts, digit in zip(SLOTS.values(), digits, strict=True))
        name = "mix_" + "".join(map(str, digits))
        characters.append(Character(name, IMAGES, "person", body, " ".join((FIXED, *others)), FIXED))
    return tuple(characters)


@dataclass(frozen=True)
class PartsMix(DrawnDataset):
    """6,000 RGB images, 64x64, of 50 characters that share their parts: 75 % train, 5 % validation, 20 % test.

    A character is one of the 1,024 combinations of a body, a mouth, eyes, a nose and a hat, the design of FunnyBirds:
    R. Hesse, S. Schaub-Meyer, S. Roth, "FunnyBirds: a synthetic vision dataset for a part-based analysis of explainable
    AI methods" (2023), arXiv:2308.06248. They are drawn on first use.
    """

    without: float = 0.5
    """Fraction of the training images that lose a random number of parts, from none to all."""

    folder = f"parts_mix-{VERSION}"

    @property
    def characters(self) -> tuple[Character, ...]:
        """The fifty characters."""
        return make_mixed_characters()
