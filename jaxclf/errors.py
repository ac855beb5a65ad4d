"""Exceptions: user errors, and training that diverges or is interrupted."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence


class UserError(Exception):
    """An error that the user can fix. Its message names the value, what was expected, and the fix.

    Args:
        message: The message.
        items: A list that belongs to the message, such as the paths of all damaged files.
    """

    def __init__(self, message: str, items: Sequence[str] = ()):
        super().__init__(message)
        self.items = items


def require(condition: bool, message: str) -> None:
    """Raise UserError with a message unless a condition holds."""
    if not condition:
        raise UserError(message)


def suggest_names(name: str, names: Iterable[str], limit: int = 1) -> str:
    """Return text for the error about an unknown name, with the most similar names; empty if there are none."""
    near = difflib.get_close_matches(name, list(names), n=limit)
    return f"; did you mean {' or '.join(near)}?" if near else ""


class NonFiniteError(Exception):
    """Loss or gradients became NaN or infinite during training."""

    def __init__(self, step: int, loss: float, gradient_norm: float, learning_rate: float):
        super().__init__(
            f"training is no longer finite at step {step}: loss {loss}, gradient norm {gradient_norm:.4g}, "
            f"learning rate {learning_rate:.4g}\ntry a lower --optimizer.learning-rate, or --optimizer.clip-norm 1"
        )
        self.step = step


class Interrupted(Exception):  # noqa: N818 - it is not an error
    """Training was interrupted by a signal; its state is saved if the run keeps checkpoints."""

    def __init__(self, signal: int, step: int):
        super().__init__(f"interrupted by signal {signal} at step {step:,}")
        self.signal, self.step = signal, step
