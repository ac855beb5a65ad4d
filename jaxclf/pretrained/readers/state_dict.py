"""The state dict in what a PyTorch file holds: which entry it is, and the names of its tensors."""

from __future__ import annotations

from collections.abc import Iterator

from jaxclf.errors import UserError, require
from jaxclf.pretrained.readers.buffers import shorten
from jaxclf.pretrained.readers.tensors import Tensor

KEYS = ("state_dict", "model", "model_state_dict")  # not the averages of training, which are another model
PREFIX = "module."  # of DataParallel
DEPTH = 32  # of nested dicts
TENSORS = 100_000
NAME = 500  # characters of a name
SAVE = "save the state dict alone: torch.save(model.state_dict(), path)"


def select_state_dict(value: object) -> dict[str, Tensor]:
    """Return the tensors of the state dict in a value, by name.

    It is the dict under one of `KEYS` or else the value itself. Names of nested dicts are joined by dots.

    Args:
        value: What was pickled.

    Raises:
        UserError: If there is no state dict or more than one, or if it holds anything but tensors.
    """
    if not isinstance(value, dict):
        raise UserError(f"it holds a {type(value).__name__}, expected a dict of tensors\n{SAVE}")
    chosen = [key for key in KEYS if isinstance(value.get(key), dict)]
    require(len(chosen) <= 1, f"it holds several state dicts: {', '.join(chosen)}\n{SAVE}")
    tensors: dict[str, Tensor] = {}
    for name, tensor in _walk(value[chosen[0]] if chosen else value, "", DEPTH, set()):
        require(name not in tensors, f"it holds two tensors with the name {shorten(name)}\n{SAVE}")
        tensors[name] = tensor
        require(len(tensors) <= TENSORS, f"it holds more than {TENSORS} tensors\n{SAVE}")
    require(bool(tensors), f"it holds no tensors\n{SAVE}")
    if all(name.startswith(PREFIX) for name in tensors):
        return {name.removeprefix(PREFIX): tensor for name, tensor in tensors.items()}
    return tensors


def _walk(entries: dict[object, object], prefix: str, depth: int, seen: set[int]) -> Iterator[tuple[str, Tensor]]:
    # A few dicts that share each other have more entries than could ever be read.
    require(depth > 0 and id(entries) not in seen, f"its dicts are nested {DEPTH} deep, or one is there twice\n{SAVE}")
    seen.add(id(entries))
    for key, value in entries.items():
        name = f"{prefix}{key}" if isinstance(key, str) and len(key) <= NAME else ""
        require(
            0 < len(name) <= NAME and name.isprintable(),
            f"the name {shorten(str(key))} of an entry is not a string of 1 to {NAME} printable characters\n{SAVE}",
        )
        if isinstance(value, Tensor):
            yield name, value
        elif isinstance(value, dict):
            yield from _walk(value, f"{name}.", depth - 1, seen)
        else:
            raise UserError(f"its entry {shorten(name)} is not a tensor but of type {type(value).__name__}\n{SAVE}")
