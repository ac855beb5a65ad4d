"""An image with the masks of its parts, and the same image with any set of them left out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, UInt8
from PIL import Image
from scipy.ndimage import binary_dilation

from jaxclf.datasets.cartoons import VERSION
from jaxclf.datasets.cartoons.characters import CHARACTERS, Character
from jaxclf.datasets.cartoons.looks import CANVAS, SIDE
from jaxclf.datasets.cartoons.scene import Scene, sample_scene
from jaxclf.datasets.cartoons.scenery import draw_background

FIRST = 10_000  # number of the first image of a character; smaller ones are those of the Cartoons dataset
OTHER_BACKGROUNDS = 100_000  # added to the seeds of other backgrounds

Picture = UInt8[np.ndarray, "h w 3"]


@dataclass(frozen=True, eq=False)
class PartsImage:
    """An image of a character and where its parts are."""

    label: int
    """Index of the character among those of its dataset."""
    number: int
    """Number of the image among those of the character."""
    parts: tuple[str, ...]
    """Names of the visible parts in drawing order. Only these are ever left out."""
    pixels: Picture
    masks: Bool[np.ndarray, "parts h w"]
    """The pixels of each part. Masks are disjoint: a pixel belongs to the part in front."""
    clutter: Bool[np.ndarray, "h w"]
    """The pixels of what is in front of the character, which covers parts."""
    scene: Scene

    @property
    def outside(self) -> Bool[np.ndarray, "h w"]:
        """The pixels that belong to no part."""
        return np.logical_not(self.masks.any(axis=0))

    def draw_subsets(self) -> UInt8[np.ndarray, "subsets h w 3"]:
        """Draw the image with every subset of its parts. Subset s has part i if bit i of s is set."""
        sets = range(2 ** len(self.parts))
        return np.stack(
            [self._draw(name for i, name in enumerate(self.parts) if not subset >> i & 1) for subset in sets]
        )

    def draw_without_clutter(self) -> Picture:
        """Draw the image without what is in front of the character."""
        return np.asarray(self.scene.draw(clutter=False))

    def draw_on_backgrounds(self, backgrounds: Sequence[Image.Image]) -> UInt8[np.ndarray, "n h w 3"]:
        """Draw the image on other backgrounds, canvases 192x192."""
        return np.stack([np.asarray(self.scene.draw(background=background)) for background in backgrounds])

    def _draw(self, without: Iterable[str]) -> Picture:
        return np.asarray(self.scene.draw(set(without)))


def sample_parts_images(count: int, characters: Sequence[Character] = CHARACTERS) -> list[PartsImage]:
    """Return images that are in no split of the characters' dataset, the same ones in every call.

    Args:
        count: Number of images: one of each character, then a second one of each, and so on.
        characters: The characters.

    Returns:
        The images.
    """
    return [make_parts_image(i % len(characters), i // len(characters), characters) for i in range(count)]


def make_parts_image(label: int, number: int, characters: Sequence[Character] = CHARACTERS) -> PartsImage:
    """Return an image of a character with the masks of its visible parts."""
    random = np.random.default_rng([VERSION, label, FIRST + number])
    scene = sample_scene(characters[label], random)
    whole = np.asarray(scene.draw_canvas())
    masks = np.stack([_find_changes(whole, np.asarray(scene.draw_canvas([part]))) for part in scene.parts])
    # Parts without a pixel of their own are left out, and then do not cover others.
    visible = [i for i, mask in enumerate(_separate_masks(masks)) if mask.any()]
    clutter = _find_changes(whole, np.asarray(scene.draw_canvas(clutter=False)))
    return PartsImage(
        label,
        number,
        tuple(scene.parts[i] for i in visible),
        np.asarray(scene.draw()),
        _separate_masks(masks[visible]),
        clutter,
        scene,
    )


def draw_backgrounds(count: int, seed: int) -> list[Image.Image]:
    """Return random backgrounds, the same ones in every call."""
    return [draw_background(np.random.default_rng([VERSION, OTHER_BACKGROUNDS + seed, i])) for i in range(count)]


def _find_changes(whole: np.ndarray, other: np.ndarray) -> Bool[np.ndarray, "h w"]:
    """Return the pixels of the image of which at least half differ between two canvases."""
    scale = CANVAS // SIDE
    changed = (whole != other).any(axis=-1).reshape(SIDE, scale, SIDE, scale)
    return changed.mean(axis=(1, 3)) >= 0.5


def _separate_masks(masks: Bool[np.ndarray, "parts h w"]) -> Bool[np.ndarray, "parts h w"]:
    """Grow masks, in drawing order, by a pixel, over which light may blur a part, and make them disjoint."""
    grown = binary_dilation(masks, np.ones((1, 3, 3), bool))
    free, separate = np.ones(masks.shape[1:], bool), np.zeros_like(masks)
    for i in reversed(range(len(masks))):
        separate[i] = grown[i] & free
        free &= ~grown[i]
    return separate
