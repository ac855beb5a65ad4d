"""Compilation of functions with their convolutions rewritten, and with the options that suit them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax

from jaxclf.xla.convolutions import FastConvolutions


class FastFunction:
    """A function that is compiled, with `compile_fast`, for each shape and type of its last argument it meets."""

    def __init__(self, function: Callable, **options: Any):
        """Take a function, and options of `jax.jit`."""
        self.function, self.options = function, options
        self._compiled: dict[Any, Callable] = {}

    def __call__(self, *arguments: Any) -> Any:
        """Call the function, which is compiled first if the last argument has a new shape."""
        shapes = tuple((leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(arguments[-1]))
        if shapes not in self._compiled:
            self._compiled[shapes] = compile_fast(self.function, arguments, **self.options)
        return self._compiled[shapes](*arguments)


def compile_fast(function: Callable, arguments: tuple[Any, ...], **options: Any) -> Callable:
    """A function compiled for arguments like these, or of these shapes, with its convolutions as they are fastest.

    `options` are those of `jax.jit`.
    """
    fast = FastConvolutions()
    return jax.jit(partial(fast.run, function), **options).lower(*arguments).compile(fast.compiler_options)
