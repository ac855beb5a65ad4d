"""How the programs of saliency methods are compiled."""

from __future__ import annotations

import inspect
import os
import platform
from collections.abc import Callable
from functools import cache, wraps
from typing import Any, ParamSpec, TypeVar

import jax
import jax.numpy as jnp
from jax.core import Tracer

from jaxclf.errors import UserError
from jaxclf.saliency.methods.primitives import CURVES
from jaxclf.saliency.query import model_function
from jaxclf.xla.interpreter import mentions

Parameters = ParamSpec("Parameters")
Answer = TypeVar("Answer")
Options = tuple[tuple[str, Any], ...]
# Convolutions by oneDNN, and no fusions by YNN that would keep them from it: on a CPU, integrated gradients of a small
# network take 0.57 times as long with jax 0.12, and as long as before with 0.10 (docs/log.md).
ONEDNN: Options = (("xla_cpu_experimental_onednn_custom_call", True), ("xla_cpu_experimental_ynn_fusion_type", ""))


def compiled(*static: str) -> Callable[[Callable[Parameters, Answer]], Callable[Parameters, Answer]]:
    """`jax.jit` with these arguments static; raises UserError for one of them that is not hashable."""

    def decorate(function: Callable[Parameters, Answer]) -> Callable[Parameters, Answer]:
        signature = inspect.signature(function)
        program = jax.jit(with_exact_products(function), static_argnames=static)

        @wraps(function)
        def call(*arguments: Parameters.args, **options: Parameters.kwargs) -> Answer:
            given = signature.bind(*arguments, **options).arguments
            require_hashable(**{name: given[name] for name in static if name in given})
            return program(*arguments, **options)

        return call

    return decorate


def with_exact_products(function: Callable[Parameters, Answer]) -> Callable[Parameters, Answer]:
    """The same function, its products of float32 numbers with all their digits, unless the user has chosen others.

    By default GPUs keep 11 bits of a factor and TPUs 8; what should add up to a score then misses it by as much.
    """

    @wraps(function)
    def call(*arguments: Parameters.args, **options: Parameters.kwargs) -> Answer:
        chosen = jax.config.jax_default_matmul_precision  # pyright: ignore[reportAttributeAccessIssue]
        with jax.default_matmul_precision(chosen or "float32"):
            return function(*arguments, **options)

    return call


def require_hashable(**arguments: Any) -> None:
    """Raises UserError that names the first of these arguments that is not hashable, as static ones must be."""
    for name, value in arguments.items():
        try:
            hash(value)
        except TypeError:
            raise UserError(
                f"{name} is of type {type(value).__name__}, which is not hashable, and it is static under jit; "
                "give a function, a frozen dataclass or a tuple, without lists or arrays in it"
            ) from None


def compiler_options(model: Any, variables: Any, images: Any, *others: Any) -> Options:
    """XLA's options for a program that asks a model.

    None for one that becomes part of another, which JAX refuses, and none against flags of the user's own.
    """
    leaves = [*jax.tree.leaves((variables, images, others)), jnp.zeros(())]  # inside jit what is made is traced too
    flags = os.environ.get("XLA_FLAGS", "")
    if any(isinstance(leaf, Tracer) for leaf in leaves) or any(name in flags for name, _ in ONEDNN):
        return ()
    if jax.default_backend() != "cpu" or not _accepted():
        return ()
    shapes, tree = jax.tree.flatten(
        jax.tree.map(lambda x: jax.ShapeDtypeStruct(jnp.shape(x), x.dtype), (variables, images))
    )
    return ONEDNN if _is_plain(model, tree, tuple(shapes)) else ()


@cache
def _is_plain(model: Any, tree: Any, shapes: tuple[jax.ShapeDtypeStruct, ...]) -> bool:
    """Whether a model is made of products, sums and maxima alone, as ReLU networks are.

    With these options jax 0.12 miscompiles x * sigmoid(x) behind a convolution: gradients come out wrong by half.
    """
    variables, images = jax.tree.unflatten(tree, shapes)
    program = jax.make_jaxpr(lambda variables, images: model_function(model, variables)(images))(variables, images)
    return not any(mentions(eqn, name) for eqn in program.eqns for name in CURVES)


@cache
def _accepted() -> bool:
    """Whether this JAX has the options, and they were measured to help."""
    if jax.__version_info__ < (0, 12) or platform.machine() not in ("x86_64", "AMD64"):
        return False
    try:
        jax.jit(lambda x: x, compiler_options=dict(ONEDNN)).lower(0.0).compile()
    except jax.errors.JaxRuntimeError:  # they are experimental, and may go
        return False
    return True
