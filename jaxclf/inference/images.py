"""Images in the forms a user has them, as arrays of a network."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Num
from PIL import Image

from jaxclf.datasets.decoding import to_upright_rgb
from jaxclf.errors import UserError
from jaxclf.inference.preprocess import Preprocessor
from jaxclf.inference.trained_model import TrainedModel
from jaxclf.types import Array, Split

Source = str | Path | Image.Image
Images = Array | Source | Sequence[Source]


def read_images(model: TrainedModel, images: Images) -> Num[np.ndarray, "n h w c"]:
    """Return images as one array.

    Args:
        model: The model whose image size they get.
        images: An array, which is returned as it is; or image files and PIL images, prepared as in training.

    Raises:
        UserError: If a file is missing, or an image cannot be decoded.
    """
    if isinstance(images, Array):
        return np.asarray(images)
    sources = [images] if isinstance(images, Source) else list(images)
    return prepare_images(Preprocessor(model.image_shape, resizing=model.resizing), sources)


def prepare_images(prepare: Preprocessor, sources: Sequence[Source]) -> Num[np.ndarray, "n h w c"]:
    """Return image files and PIL images as one array.

    Args:
        prepare: Reads a file.
        sources: The files and PIL images.

    Raises:
        UserError: If a file is missing, or an image cannot be decoded.
    """
    arrays = []
    for source in sources:
        prepared = prepare.try_read(_encode(source) if isinstance(source, Image.Image) else Path(source))
        if isinstance(prepared, str):
            raise UserError(f"{source}: {prepared}")
        arrays.append(prepared.image)
    return np.stack(arrays) if arrays else np.zeros((0, *prepare.image_shape), np.uint8)


def read_split(model: TrainedModel, files: Sequence[str]) -> Split:
    """Return image files as a split. Their labels are unknown: they get those that the model predicts."""
    images = read_images(model, files)
    return Split(images, model.predict(images).argmax(axis=1), model.class_names)


def _encode(image: Image.Image) -> io.BytesIO:
    """Encode a PIL image without loss, so that it is read as a file is; raise UserError if it has no such pixels."""
    file = io.BytesIO()
    try:
        # As files are, and before PNG loses the orientation or refuses the mode.
        to_upright_rgb(image).save(file, "PNG")
    except Exception as error:  # decoders raise exceptions of many types on damaged files
        raise UserError(f"{image}: {error}") from error
    file.seek(0)
    return file
