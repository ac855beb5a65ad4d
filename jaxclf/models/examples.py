"""The examples that a call of a model computes: what layers need to know of them beside their activations."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Literal

from jaxtyping import Int

from jaxclf.types import Array, Mask


@dataclass(frozen=True)
class Examples:
    """The rows of a batch that a call of a model computes, which can be some rows of a larger batch."""

    positions: Int[Array, " b"] | None = None
    """The position of each row in the whole batch. Dropout masks are keyed by it. None: 0, 1, 2, …"""
    mask: Mask | None = None
    """Rows that are not padding; None: all."""
    consecutive: int | None = None
    """The rows are runs of this many consecutive positions; None: the rows are the whole batch."""
    statistics: Literal["mode", "batch", "running"] = "mode"
    """What batch normalization uses: statistics of the batch in training and running ones otherwise, or always one."""


_examples: ContextVar[Examples] = ContextVar("examples", default=Examples())  # noqa: B039 - it is frozen


@contextmanager
def use_examples(examples: Examples) -> Iterator[None]:
    """Set the examples for the layers of models that are applied in this context.

    A device, or a part of an accumulated gradient, has only some rows of a batch. With their positions, layers draw the
    dropout masks of the whole batch.
    """
    token = _examples.set(examples)
    try:
        yield
    finally:
        _examples.reset(token)


def get_examples() -> Examples:
    """Return the examples of the context. Without one they are a whole batch without padding."""
    return _examples.get()
