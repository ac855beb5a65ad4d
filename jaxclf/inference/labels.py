"""Images of class folders with the labels of a network that was trained on other data."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from jaxclf.errors import UserError
from jaxclf.pretrained.classes import read_imagenet_classes
from jaxclf.types import Split, Splits


def relabel_splits(splits: Splits, class_names: Sequence[str]) -> Splits:
    """Return splits with the classes of a network.

    Args:
        splits: Images in folders that have the names of classes, or their WordNet ids if the classes are ImageNet's.
            Case and underscores do not matter.
        class_names: The classes of the network.

    Returns:
        The splits; without a test split, the training images are in it.

    Raises:
        UserError: If a folder is no class of the network.
    """
    imagenet, places = read_imagenet_classes(), {_simplify(name): i for i, name in enumerate(class_names)}
    if tuple(class_names) == tuple(each.name for each in imagenet):
        places |= {each.wordnet_id: i for i, each in enumerate(imagenet)}
    places |= {name: i for i, name in enumerate(class_names)}  # in ImageNet Cardigan is a dog, cardigan a garment
    found = [places.get(name, places.get(_simplify(name))) for name in splits.train.class_names]
    unknown = [name for name, place in zip(splits.train.class_names, found, strict=True) if place is None]
    if unknown:
        items = [f"{name}{_suggest(name, class_names)}" for name in unknown]
        raise UserError(f"folders that are no class of the network, by name or WordNet id: {len(unknown):,}", items)
    labels = np.array(found, np.int32)

    def relabel(split: Split | None) -> Split | None:
        return split and replace(split, labels=labels[split.labels], class_names=tuple(class_names))

    train, test = relabel(splits.train), relabel(splits.test)
    assert train is not None
    return replace(splits, train=train, validation=relabel(splits.validation), test=test or train)


def _simplify(name: str) -> str:
    return name.replace("_", " ").casefold()


def _suggest(name: str, class_names: Sequence[str]) -> str:
    """Return the most similar class, as text for a list."""
    close = difflib.get_close_matches(_simplify(name), class_names, n=1)
    return f", did you mean {close[0]}?" if close else ""
