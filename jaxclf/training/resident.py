"""Training images that stay on the devices, where each step gathers its batch by the indices of the input pipeline."""

from __future__ import annotations

from math import prod
from typing import Any, Literal, NamedTuple

import jax
import numpy as np
from jax.sharding import NamedSharding

from jaxclf.io.progress import show_status
from jaxclf.types import Batch, Split

Input = Literal["auto", "host", "device"]
"""Where training images are kept; auto: on accelerators that have enough memory, on the host otherwise."""
SHARE = 0.25
"""Largest share of a device's memory that the images may take if nobody asked for it."""
CHUNK = 1024
"""Images that are read together."""


class Resident(NamedTuple):
    """The examples of a split, on every device."""

    images: Any  # [n, h, w, c]
    labels: Any  # [n], or [n, classes]
    weights: Any = None  # [n] loss weights; None: all are 1


def has_room(split: Split) -> bool:
    """Return True if all devices are accelerators with room for the images: SHARE of the memory, at most."""
    first = split.images[:1]
    size = len(split) * prod(first.shape) * first.dtype.itemsize
    memory = [(device.memory_stats() or {}).get("bytes_limit", 0) for device in jax.local_devices()]
    return jax.default_backend() != "cpu" and size <= SHARE * min(memory)


def put_on_devices(split: Split, sharding: NamedSharding) -> Resident:
    """Read all examples of a split, and copy them to every device."""
    with show_status(f"reading {len(split):,} images"):
        images = np.empty((len(split), *split.image_shape), split.images[:1].dtype)
        for start in range(0, len(split), CHUNK):
            images[start : start + CHUNK] = split.images[np.arange(start, min(start + CHUNK, len(split)))]
        return jax.tree.map(
            lambda x: jax.make_array_from_process_local_data(sharding, x),
            Resident(images, split.labels, split.sample_weight),
        )


def gather_batch(resident: Resident, batch: Batch) -> Batch:
    """Return a batch of examples for one that has their indices [b] as its images."""

    def gather(x: jax.Array) -> jax.Array:
        return x.at[batch.images].get(mode="promise_in_bounds")

    examples = jax.tree.map(gather, resident)
    return Batch(examples.images, examples.labels, batch.mask, examples.weights)
