"""A trained network as files that need no jaxclf: a program in StableHLO, its weights, and what the two mean.

The weights are an argument of the program, by their names in the file of weights. So they are kept once, where
constants would be in the program and again in its gradient; others can be put in their place, and trained.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jax import export
from safetensors.numpy import save

from jaxclf.errors import UserError, require
from jaxclf.io.files import partial_name, sync
from jaxclf.training.step import predict
from jaxclf.types import Variables

PLATFORMS = ("cpu", "cuda", "tpu")
PROGRAM, WEIGHTS, CONFIG, METADATA, CARD, DIGESTS = FILES = (
    "model.stablehlo", "weights.safetensors", "config.json", "metadata.json", "README.md", "SHA256SUMS",
)  # fmt: skip
LOCATIONS = "jax_traceback_in_locations_limit"  # frames behind an operation whose files and lines a program names


def named_weights(variables: Variables) -> dict[str, np.ndarray]:
    """The arrays of a model by their paths, such as `params/conv1/kernel`."""
    flat = flatten_dict(jax.device_get(variables), sep="/")
    return {name: np.asarray(array, order="C") for name, array in flat.items()}


def lower(model: nn.Module, weights: Mapping[str, np.ndarray], image_shape: Sequence[int]) -> bytes:
    """A model as a program (weights, images) -> logits [b, classes], which `jax.export.deserialize` reads.

    It is one for all PLATFORMS and any number of images, float32 [b, h, w, c] in [0, 1], and is differentiable once.
    Products are those of float32 on every platform, where JAX would take fewer digits on some. Raises UserError for a
    model that has no such program.
    """

    def network(weights, images):
        return predict(model, unflatten_dict(weights, sep="/"), images)

    shapes = {name: jax.ShapeDtypeStruct(array.shape, array.dtype) for name, array in weights.items()}
    images = jax.ShapeDtypeStruct((*export.symbolic_shape("b"), *image_shape), np.float32)
    try:
        with jax.default_matmul_precision("float32"), without_locations():
            exported = export.export(jax.jit(network), platforms=PLATFORMS)(shapes, images)
            return bytes(exported.serialize(vjp_order=1))
    except (jax.errors.InconclusiveDimensionOperation, NotImplementedError, TypeError, ValueError) as error:
        raise UserError(
            f"{type(model).__name__} cannot be exported: {str(error).partition(chr(10))[0]}\n"
            f"expected one program for any batch size b, which {', '.join(PLATFORMS)} can run and differentiate"
        ) from error


def signature(program: bytes) -> dict[str, Any]:
    """What a program says of itself: platforms, version of jax.export's convention, what it takes and gives."""
    exported = export.deserialize(bytearray(program))
    *_, images = exported.in_avals  # behind the weights
    (logits,) = exported.out_avals
    return {
        "platforms": exported.platforms,
        "calling_convention_version": exported.calling_convention_version,
        "images": str(images),
        "logits": str(logits),
    }


@contextmanager
def without_locations() -> Iterator[None]:
    """Inside the block, programs do not name the files they come from: those are paths of the author's machine."""
    limit = getattr(jax.config, LOCATIONS)
    jax.config.update(LOCATIONS, 0)
    try:
        yield
    finally:
        jax.config.update(LOCATIONS, limit)


def to_safetensors(weights: Mapping[str, np.ndarray]) -> bytes:
    """The weights as a safetensors file."""
    return save(dict(weights))


def digests(files: Mapping[str, bytes]) -> bytes:
    """The SHA-256 of files, as `sha256sum -c` reads them."""
    return "".join(f"{hashlib.sha256(content).hexdigest()}  {name}\n" for name, content in files.items()).encode()


def check_place(path: Path) -> None:
    """Raise UserError unless an export can be written to a path: nothing is there, or only an earlier export."""
    require(not path.exists() or path.is_dir(), f"{path} is a file; name a directory with --output")
    found = {entry.name for entry in path.iterdir()} if path.exists() else set()
    require(
        found in (set(), set(FILES)), f"{path} is neither empty nor an export; name another directory with --output"
    )
    # A shell would stay in the directory that is replaced, and see nothing.
    require(path.resolve() != Path.cwd(), f"{path.resolve()} is the current directory; name another with --output")


def write(path: Path, files: Mapping[str, bytes]) -> None:
    """Write files to a directory that is there whole or not at all, in the place of an earlier one."""
    path = path.resolve()  # or a link would be replaced, and not what it leads to
    partial, replaced = partial_name(path), partial_name(path)
    try:
        partial.mkdir(parents=True)
        for name, content in files.items():
            (partial / name).write_bytes(content)
            sync(partial / name)
        if path.exists():
            path.rename(replaced)
        partial.rename(path)
        sync(path.parent)
    finally:
        if replaced.exists() and not path.exists():
            replaced.rename(path)
        for left in (partial, replaced):
            shutil.rmtree(left, ignore_errors=True)
