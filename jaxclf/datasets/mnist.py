"""MNIST, which is part of the package. Y. LeCun, C. Cortes, C. J. C. Burges, "The MNIST database" (1998)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from jaxclf.datasets.idx import make_splits, read_idx
from jaxclf.types import Splits

# SHA-256 of the decompressed files, which are the published ones.
SHA256 = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}


@dataclass(frozen=True)
class Mnist:
    """70,000 handwritten digits in ten classes, 28x28, grayscale: 60,000 for training and 10,000 for testing."""

    validation: int = 5_000
    """Number of the first training images to hold out: 55,000 / 5,000 / 10,000, or 60,000 / 0 / 10,000 with 0."""

    def load(self) -> Splits:
        """Read the bundled files and check each against its published SHA-256.

        Returns:
            The splits: images [n, 28, 28, 1], uint8.
        """
        return make_splits(self._read("train"), self._read("t10k"), self.validation)

    def _read(self, part: str) -> tuple[np.ndarray, np.ndarray]:
        images, labels = (
            read_idx(Path(__file__).with_name(f"{name}.gz"), SHA256[name])
            for name in (f"{part}-images-idx3-ubyte", f"{part}-labels-idx1-ubyte")
        )
        return images[..., np.newaxis], labels
