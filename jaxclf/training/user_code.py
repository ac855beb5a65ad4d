"""Errors in networks, metrics, losses and augmentations of the user's own, and memory that does not suffice."""

from __future__ import annotations

import linecache
import re
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from traceback import walk_tb
from types import FrameType
from typing import Any

import flax.linen as nn
import jax

import jaxclf
from jaxclf.augment import Augmentation
from jaxclf.errors import UserError
from jaxclf.losses import Loss
from jaxclf.metrics import Metric

LIBRARIES = [Path(sysconfig.get_path(name)) for name in ("stdlib", "purelib", "platlib")]
PACKAGE = Path(jaxclf.__file__).parent
EXPECTED = {  # by protocol; a module has the methods of a loss as well, and comes first
    nn.Module: "__call__(images [b, h, w, c], train=False) -> logits [b, classes]; with layers such as "
    "Dropout(deterministic=not train) and BatchNorm(use_running_average=not train)",
    Metric: "stats(logits [b, classes], labels [b] or [b, classes], mask [b]) -> arrays that are summed over batches",
    Augmentation: "__call__(key, image [h, w, c]) -> an image of the same dtype, and of the same shape "
    "unless output_shape(shape) -> shape declares another one",
    Loss: "__call__(logits [b, classes], labels [b] or [b, classes]) -> the loss of each example [b]",
}
MESSAGE_LINES = 4  # of the error of a library that are shown
OUT_OF_MEMORY = re.compile(r"RESOURCE_EXHAUSTED|out of memory|bad_alloc", re.IGNORECASE)
SIZE = re.compile(r"(\d[\d.,]* ?(?:[KMGT]i?B|bytes))")


@contextmanager
def explain_tracing_errors(model: nn.Module) -> Iterator[None]:
    """Turn errors of the user's own code, while it is traced, into a UserError that shows its line.

    Args:
        model: The network that is traced. If it is the user's own, errors in calling it are explained too.

    Raises:
        UserError: With the error, the user's line and what was expected.
    """
    try:
        yield
    except (UserError, jax.errors.JaxRuntimeError, MemoryError):
        raise
    except Exception as error:
        frames = [(frame, line) for frame, line in walk_tb(error.__traceback__) if _is_users(frame)]
        if not frames and type(model).__module__.partition(".")[0] == "jaxclf":
            raise
        lines = [line for line in str(error).splitlines() if line.strip()]
        text = "\n".join(lines[:MESSAGE_LINES])
        owner: Any = model
        place = ""
        if frames:
            frame, number = frames[-1]
            file, function = frame.f_code.co_filename, frame.f_code.co_name
            place = f"\n  {file}, line {number}, in {function}: {linecache.getline(file, number).strip()}"
            owner = next((each for frame, _ in reversed(frames) if (each := _find_component(frame)) is not None), model)
        raise UserError(
            f"{type(owner).__name__} failed while it was traced: {type(error).__name__}: {text}{place}\n"
            f"expected {_describe_protocol(owner)}"
        ) from error


def _is_users(frame: FrameType) -> bool:
    """Return whether the code of a frame is neither of a library nor of jaxclf."""
    file = Path(frame.f_code.co_filename)
    return file.is_file() and not any(file.is_relative_to(place) for place in (*LIBRARIES, PACKAGE))


def _find_component(frame: FrameType) -> Any:
    """Return the component whose method runs in a frame; None if there is none."""
    owner = frame.f_locals.get("self")
    return owner if isinstance(owner, tuple(EXPECTED)) else None


def _describe_protocol(owner: Any) -> str:
    return next(text for protocol, text in EXPECTED.items() if isinstance(owner, protocol))


@contextmanager
def explain_out_of_memory(phase: str, fix: str) -> Iterator[None]:
    """Turn a lack of memory into a UserError.

    Args:
        phase: What was being done, for the message.
        fix: What the user can do.
    """
    try:
        yield
    except (jax.errors.JaxRuntimeError, MemoryError) as error:
        if not isinstance(error, MemoryError) and not OUT_OF_MEMORY.search(str(error)):
            raise
        size = SIZE.search(str(error))
        needed = f", which asked for {size[1]} at once" if size else ""
        raise UserError(f"out of memory in {phase}{needed}; {fix}") from error
