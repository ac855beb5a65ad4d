"""Errors of the user, and of training that diverges."""

from __future__ import annotations

from collections.abc import Sequence


class UserError(Exception):
    """A mistake the user can mend. Its text names the value, what was expected, and the fix.

    `items` is a list that belongs to it, such as all damaged files.
    """

    def __init__(self, message: str, items: Sequence[str] = ()):
        super().__init__(message)
        self.items = items


def require(condition: bool, message: str) -> None:
    """Raise UserError with the message unless the condition holds."""
    if not condition:
        raise UserError(message)


class NonFiniteError(Exception):
    """Training has come to numbers that are not finite."""

    def __init__(self, step: int, loss: float, gradient_norm: float, learning_rate: float):
        super().__init__(
            f"training is no longer finite at step {step}: loss {loss}, gradient norm {gradient_norm:.4g}, "
            f"learning rate {learning_rate:.4g}\ntry a lower --optimizer.learning-rate, or --optimizer.clip-norm 1"
        )
        self.step = step
