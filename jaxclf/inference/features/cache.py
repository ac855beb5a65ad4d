"""Features on disk, by the digest of the image file: computed once, in one pass that can be interrupted."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float

from jaxclf.config_io import to_json
from jaxclf.errors import require
from jaxclf.inference.trained_model import TrainedModel
from jaxclf.io.files import get_cache_directory, hash_json, sync
from jaxclf.io.lock import lock_directory
from jaxclf.io.progress import track_progress
from jaxclf.pretrained.initial import hash_variables
from jaxclf.types import Splits

AT_ONCE = 64  # images whose features are computed together, at most
DIGEST = 65  # bytes of a line with a digest


class FeatureCache:
    """Rows of features in a file, and the digest of each image in another. Rows are only ever appended."""

    def __init__(self, directory: Path, width: int):
        """Open a directory, which is created if it is missing.

        Args:
            directory: The directory.
            width: Number of features of an image.
        """
        directory.mkdir(parents=True, exist_ok=True)
        self.width, self.rows, self.digests = width, directory / "features.f32", directory / "digests.txt"
        self.rows.touch()
        self.digests.touch()
        # An interrupted process may have left a part of a row, or rows without digests.
        count = min(self.rows.stat().st_size // (4 * width), self.digests.stat().st_size // DIGEST)
        os.truncate(self.rows, count * 4 * width)
        os.truncate(self.digests, count * DIGEST)
        self.places = {digest: i for i, digest in enumerate(self.digests.read_text(encoding="ascii").split())}

    def append(self, digests: Sequence[str], features: Float[np.ndarray, "n c"]) -> None:
        """Append the features of images."""
        with self.rows.open("ab") as rows:
            rows.write(np.ascontiguousarray(features, "<f4").data)
        sync(self.rows)  # before the digests, which say that the rows are whole
        with self.digests.open("a", encoding="ascii", newline="\n") as lines:
            lines.writelines(f"{digest}\n" for digest in digests)
        self.places |= {digest: len(self.places) + i for i, digest in enumerate(digests)}

    def read(self, digests: Sequence[str]) -> Float[np.ndarray, "n c"]:
        """Return the features of images; only these rows are read."""
        mapped = np.memmap(self.rows, "<f4", "r", shape=(len(self.places), self.width))
        return np.asarray(mapped[[self.places[digest] for digest in digests]], np.float32)


def compute_split_features(run: TrainedModel, splits: Splits) -> dict[str, Float[np.ndarray, "n c"]]:
    """Compute the features of images, or read those that were computed before.

    Args:
        run: The network and how images are prepared for it.
        splits: The images. Features are kept for those that have a record of each file.

    Returns:
        The features of each split by its name, in the order of its images.

    Raises:
        UserError: If features are not finite.
    """
    if splits.files:
        features = _read_or_compute(run, splits)
    else:
        parts = {name: split for name, split in splits.items() if split is not None}
        features = {name: run.features(split.images[np.arange(len(split))]) for name, split in parts.items()}
    for name, of_split in features.items():
        wrong = int((~np.isfinite(of_split)).any(axis=1).sum())
        require(wrong == 0, f"the features of {wrong:,} {name} images are not finite: are these the right weights?")
    return features


def _read_or_compute(run: TrainedModel, splits: Splits) -> dict[str, Float[np.ndarray, "n c"]]:
    """Return the features of each split; those that are not in the cache are computed and kept."""
    width = run.features(np.zeros((0, *run.image_shape), np.uint8)).shape[1]
    directory = get_cache_directory() / "features" / _hash_network(run)[:32]
    names = [name for name, split in splits.items() if split is not None]
    digests = {name: [file.digest for file in splits.files if file.split == name] for name in names}
    with lock_directory(directory, "another process that computes features", fix=None):
        cache = FeatureCache(directory, width)
        missing = {
            digest: (name, i)
            for name, of_split in digests.items()
            for i, digest in enumerate(of_split)
            if digest not in cache.places
        }
        size = min(run.eval_batch_size, AT_ONCE)
        batches = [list(missing.items())[i : i + size] for i in range(0, len(missing), size)]
        for batch in track_progress(batches, len(batches), "computing features of images, batches") if batches else ():
            images = np.zeros((size, *run.image_shape), np.uint8)  # always of this shape: compiled once
            for name in names:
                places = [(row, i) for row, (_, (of, i)) in enumerate(batch) if of == name]
                if places:
                    rows, indices = map(list, zip(*places, strict=True))
                    images[rows] = splits[name].images[np.array(indices)]
            cache.append([digest for digest, _ in batch], run.features(images)[: len(batch)])
        return {name: cache.read(of_split) for name, of_split in digests.items()}


def _hash_network(run: TrainedModel) -> str:
    """Return the digest of everything that features depend on besides the image file."""
    about = {
        "weights": hash_variables(run.variables),
        "model": to_json(run.model),
        "transform": to_json(run.config.evaluation_transform),
        "image_shape": list(run.image_shape),
        "resizing": to_json(run.resizing),
    }
    return hash_json(about)
