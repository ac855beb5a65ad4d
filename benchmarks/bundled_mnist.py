"""Read the bundled MNIST files without jaxclf; needs only NumPy."""

import gzip
from pathlib import Path

import numpy as np

DATA = Path(__file__).parent.parent / "jaxclf" / "datasets"


def read(part: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the images [n, 28, 28, 1], uint8, and labels [n] of `train` or `t10k`."""
    images, labels = (
        np.frombuffer(gzip.decompress((DATA / f"{part}-{kind}-ubyte.gz").read_bytes()), np.uint8, offset=offset)
        for kind, offset in (("images-idx3", 16), ("labels-idx1", 8))
    )
    return images.reshape(-1, 28, 28, 1), labels
