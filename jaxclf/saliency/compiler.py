"""How the programs of saliency methods are compiled."""

from __future__ import annotations

import os
import platform
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
from jax.core import Tracer

Options = tuple[tuple[str, Any], ...]
# Convolutions by oneDNN, and no fusions by YNN that would keep them from it: on a CPU, integrated gradients of a small
# network take 0.57 times as long with jax 0.12, and as long as before with 0.10 (docs/log.md).
ONEDNN: Options = (("xla_cpu_experimental_onednn_custom_call", True), ("xla_cpu_experimental_ynn_fusion_type", ""))


def compiler_options(*arguments: Any) -> Options:
    """XLA's options for a program with these arguments.

    None for one that becomes part of another, which JAX refuses, and none against flags of the user's own.
    """
    leaves = [*jax.tree.leaves(arguments), jnp.zeros(())]  # inside jit what is made is traced too
    flags = os.environ.get("XLA_FLAGS", "")
    if any(isinstance(leaf, Tracer) for leaf in leaves) or any(name in flags for name, _ in ONEDNN):
        return ()
    return _accepted() if jax.default_backend() == "cpu" else ()


@cache
def _accepted() -> Options:
    """The options, where this JAX has them and they were measured to help."""
    if jax.__version_info__ < (0, 12) or platform.machine() not in ("x86_64", "AMD64"):
        return ()
    try:
        jax.jit(lambda x: x, compiler_options=dict(ONEDNN)).lower(0.0).compile()
    except jax.errors.JaxRuntimeError:  # they are experimental, and may go
        return ()
    return ONEDNN
