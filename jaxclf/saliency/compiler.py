"""Compilation of saliency methods and metrics: static arguments, precision and XLA options."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import cache, partial, wraps
from typing import Any, ParamSpec, TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from jaxclf.saliency.checks import (
    compute_logits,
    convert_targets,
    is_inside_program,
    require_classes,
    require_finite,
    require_hashable,
)
from jaxclf.saliency.methods.primitives import UNARY
from jaxclf.saliency.query import Model
from jaxclf.types import Array
from jaxclf.xla.interpreter import has_primitive
from jaxclf.xla.options import CompilerOptions, is_onednn_faster, select_options

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


def compile_with_static(*names: str) -> Callable[[Callable[Parameters, Result]], Callable[Parameters, Result]]:
    """Return a decorator for `jax.jit` with static arguments; raise UserError if one of them is not hashable."""

    def decorate(function: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
        signature = inspect.signature(function)
        program = jax.jit(use_full_precision(function), static_argnames=names)

        @wraps(function)
        def call(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
            bound = signature.bind(*args, **kwargs)
            given = bound.arguments
            require_hashable(**{name: given[name] for name in names if name in given})
            require_finite(given["images"])
            if given.get("targets") is not None:
                given["targets"] = convert_targets(given["targets"])
                require_classes(given["model"], given["variables"], given["images"], given["targets"])
            return program(*bound.args, **bound.kwargs)

        return call

    return decorate


def use_full_precision(function: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
    """Compute the float32 products of a function in full precision, unless the user has set a precision."""

    # By default GPUs keep 11 bits of a factor and TPUs 8; values that should sum to a score then miss it by as much.
    @wraps(function)
    def call(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
        chosen = jax.config.jax_default_matmul_precision  # pyright: ignore[reportAttributeAccessIssue]
        with jax.default_matmul_precision(chosen or "float32"):
            return function(*args, **kwargs)

    return call


def select_compiler_options(model: Model, variables: PyTree, images: Array, *others: Any) -> CompilerOptions:
    """Return XLA options for the program of a method: none under jit, or where the user has set the same flags."""
    if is_inside_program(variables, images, others) or not is_onednn_faster():
        return ()
    shapes, tree = jax.tree.flatten(
        jax.tree.map(lambda x: jax.ShapeDtypeStruct(jnp.shape(x), x.dtype), (variables, images))
    )
    return select_options(onednn=True) if _is_piecewise_linear(model, tree, tuple(shapes)) else ()


@cache
def _is_piecewise_linear(model: Model, tree: Any, shapes: tuple[jax.ShapeDtypeStruct, ...]) -> bool:
    """Return True if a model has no curved activations, as ReLU networks."""
    # With these options jax 0.12 miscompiles x * sigmoid(x) behind a convolution: gradients are wrong by half.
    variables, images = jax.tree.unflatten(tree, shapes)
    program = jax.make_jaxpr(partial(compute_logits, model))(variables, images)
    return not any(has_primitive(eqn, name) for eqn in program.eqns for name in UNARY)
