"""The 1,000 classes of ImageNet in the order of the logits of published networks, which is that of WordNet ids."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import NamedTuple


class ImageNetClass(NamedTuple):
    """A class of ImageNet."""

    wordnet_id: str
    """Its synset, such as "n01440764"."""
    name: str


@cache
def read_imagenet_classes() -> tuple[ImageNetClass, ...]:
    """Return the classes in the order of the logits."""
    text = files("jaxclf.pretrained").joinpath("imagenet_classes.txt").read_text(encoding="utf-8")
    return tuple(ImageNetClass(*line.split(" ", 1)) for line in text.splitlines())
