"""Images in the forms a user has them, as arrays of a network."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Num
from PIL import Image

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
        UserError: If a file is missing or cannot be decoded.
    """
    if isinstance(images, Array):
        return np.asarray(images)
    sources = [images] if isinstance(images, Source) else list(images)
    prepare = Preprocessor(model.image_shape, resizing=model.resizing)
    arrays = []
    for source in sources:
        prepared = prepare.try_read(_encode(source) if isinstance(source, Image.Image) else Path(source))
        if isinstance(prepared, str):
            raise UserError(f"{source}: {prepared}")
        arrays.append(prepared.image)
    return np.stack(arrays) if arrays else np.zeros((0, *model.image_shape), np.uint8)


def read_split(model: TrainedModel, files: Sequence[str]) -> Split:
    """Return image files as a split. Their labels are unknown: they get those that the model predicts."""
    images = read_images(model, files)
    return Split(images, model.predict(images).argmax(axis=1), model.class_names)


def _encode(image: Image.Image) -> io.BytesIO:
    """Encode a PIL image without loss, so that it is read as a file is."""
    file = io.BytesIO()
    image.save(file, "PNG")
    file.seek(0)
    return file
