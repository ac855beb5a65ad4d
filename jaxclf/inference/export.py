"""Export of a trained network to files that can be used without jaxclf: StableHLO, safetensors and metadata.

The format "jaxclf" has a program, and weights by our names; "torch" has weights by the names of a library of PyTorch.

The weights are arguments of the program, not constants: they are stored once instead of in the program and again in its
gradient, and they can be replaced or trained further.
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

from jaxclf.augment import CenterCrop
from jaxclf.errors import UserError, require
from jaxclf.io.files import make_partial_path, sync
from jaxclf.training.step import compute_logits
from jaxclf.types import Variables

PLATFORMS = ("cpu", "cuda", "tpu")
PROGRAM, WEIGHTS, CONFIG, METADATA, CARD, PREPARE, DIGESTS = FILES = (
    "model.stablehlo", "weights.safetensors", "config.json", "metadata.json", "README.md", "prepare.py", "SHA256SUMS",
)  # fmt: skip
FORMATS: Mapping[str, tuple[str, ...]] = {"jaxclf": FILES, "torch": (WEIGHTS, METADATA, CARD, DIGESTS)}
"""The files of each format."""
LOCATIONS = "jax_traceback_in_locations_limit"  # number of stack frames that a program records for each operation


def flatten_weights(variables: Variables) -> dict[str, np.ndarray]:
    """Return the arrays of a model by path, such as `params/conv1/kernel`."""
    flat = flatten_dict(jax.device_get(variables), sep="/")
    return {name: np.asarray(array, order="C") for name, array in flat.items()}


def lower(
    model: nn.Module,
    weights: Mapping[str, np.ndarray],
    image_shape: Sequence[int],
    transform: CenterCrop | None = None,
) -> bytes:
    """Lower a model to a serialized program `(weights, images) -> logits`.

    The program runs on all PLATFORMS, takes any number of images and can be differentiated once. Matrix products and
    convolutions have float32 precision on every platform, also where JAX uses less by default.

    Args:
        model: The network.
        weights: Its arrays by path, from `flatten_weights`.
        image_shape: Height, width and channels. Images are float32 [b, h, w, c] in [0, 1].
        transform: The evaluation transform, which becomes part of the program.

    Returns:
        The bytes to pass to `jax.export.deserialize`; logits are [b, classes].

    Raises:
        UserError: If the model cannot be lowered for a symbolic batch size, or not be differentiated.
    """

    def network(weights, images):
        return compute_logits(model, unflatten_dict(weights, sep="/"), images, transform)

    shapes = {name: jax.ShapeDtypeStruct(array.shape, array.dtype) for name, array in weights.items()}
    images = jax.ShapeDtypeStruct((*export.symbolic_shape("b"), *image_shape), np.float32)
    try:
        with jax.default_matmul_precision("float32"), omit_locations():
            exported = export.export(jax.jit(network), platforms=PLATFORMS)(shapes, images)
            return bytes(exported.serialize(vjp_order=1))
    except (jax.errors.InconclusiveDimensionOperation, NotImplementedError, TypeError, ValueError) as error:
        raise UserError(
            f"{type(model).__name__} cannot be exported: {str(error).partition(chr(10))[0]}\n"
            f"expected a program for any batch size b that can be run and differentiated on {', '.join(PLATFORMS)}"
        ) from error


def describe_program(program: bytes) -> dict[str, Any]:
    """Return the platforms, the calling-convention version and the types of images and logits of a program."""
    exported = export.deserialize(bytearray(program))
    *_, images = exported.in_avals  # weights come first
    (logits,) = exported.out_avals
    return {
        "platforms": exported.platforms,
        "calling_convention_version": exported.calling_convention_version,
        "images": str(images),
        "logits": str(logits),
    }


@contextmanager
def omit_locations() -> Iterator[None]:
    """Omit source locations, which contain paths of this machine, from programs that are lowered in the block."""
    limit = getattr(jax.config, LOCATIONS)
    jax.config.update(LOCATIONS, 0)
    try:
        yield
    finally:
        jax.config.update(LOCATIONS, limit)


def compute_digests(files: Mapping[str, bytes]) -> bytes:
    """Compute the SHA-256 digests of files, in the format of `sha256sum`."""
    return "".join(f"{hashlib.sha256(content).hexdigest()}  {name}\n" for name, content in files.items()).encode()


def check_output(path: Path, format: str = "jaxclf") -> None:
    """Raise UserError unless a path is free, an empty directory or an earlier export in the same format."""
    require(not path.exists() or path.is_dir(), f"{path} is a file; name a directory with --output")
    found = {entry.name for entry in path.iterdir()} if path.exists() else set()
    require(
        found in (set(), set(FORMATS[format]), set(FORMATS[format]) - {PREPARE}),
        f"{path} is neither empty nor an export with --format {format}; name another directory with --output",
    )
    # The directory is replaced: a shell in it would be left in a deleted directory.
    require(path.resolve() != Path.cwd(), f"{path.resolve()} is the current directory; name another with --output")


def write(path: Path, files: Mapping[str, bytes]) -> None:
    """Write files to a directory atomically, replacing an earlier export."""
    path = path.resolve()  # replace the target of a symbolic link, not the link
    partial, replaced = make_partial_path(path), make_partial_path(path)
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
