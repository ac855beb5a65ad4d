"""Weights in several safetensors files, the shards, listed by an index in JSON."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np

from jaxclf.errors import UserError, require
from jaxclf.pretrained.readers.buffers import map_file, shorten
from jaxclf.pretrained.readers.safetensors import is_safetensors, read_safetensors

LIMIT = 2**26  # bytes of an index
EXPECTED = "expected an index of safetensors shards, with the file name of each tensor as `weight_map`"


def read_shards(path: Path, content: memoryview) -> tuple[dict[str, np.ndarray], str]:
    """Read all shards of an index.

    Args:
        path: The index file.
        content: Its bytes.

    Returns:
        The arrays by name, and the SHA-256 of the lines that `sha256sum` prints for the index and the shards by name.

    Raises:
        UserError: If the index is not valid, or a shard is missing or has other tensors than the index says.
    """
    weights = _read_map(content)
    arrays, files = {}, [(path.name, content)]
    for shard in sorted(set(weights.values())):
        files.append((shard, _map_shard(path.parent / shard)))
        found = read_safetensors(path.parent / shard, files[-1][1])
        listed = {name for name, file in weights.items() if file == shard}
        if different := sorted(listed ^ found.keys()):
            problem = "does not have" if different[0] in listed else "has, against the index,"
            raise UserError(f"the shard {shard} {problem} {shorten(different[0])}; download the shards and index again")
        arrays |= found
    lines = [f"{hashlib.sha256(data).hexdigest()}  {name}\n" for name, data in files]
    return arrays, hashlib.sha256("".join(lines).encode()).hexdigest()


def _read_map(content: memoryview) -> dict[str, str]:
    """Return the file name of each tensor."""
    require(len(content) <= LIMIT, f"it has {len(content)} bytes, an index at most {LIMIT}\n{EXPECTED}")
    try:
        weights = json.loads(bytes(content))["weight_map"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(f"it is JSON or starts like it, but not an index\n{EXPECTED}") from error
    require(isinstance(weights, dict) and bool(weights), f"its weight_map is empty or no object\n{EXPECTED}")
    for name in weights.values():
        require(
            isinstance(name, str)
            and name.isprintable()
            and not set(name) & set("/\\:")
            and name not in ("", ".", ".."),
            f"its weight_map names the shard {shorten(str(name))}\n"
            "expected plain names of files in the folder of the index",
        )
    return weights


def _map_shard(path: Path) -> memoryview:
    require(path.is_file() and path.stat().st_size > 0, f"the shard {path.name} is missing; download it again")
    content = map_file(path)
    require(is_safetensors(content), f"the shard {path.name} is not safetensors\n{EXPECTED}")
    return content
