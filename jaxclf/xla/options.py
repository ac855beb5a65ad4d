"""XLA's options for convolutions and recomputation on CPUs, the versions they help, and the switch for all of it."""

from __future__ import annotations

import os
import platform
from functools import cache

import jax

SWITCH = "JAXCLF_FAST_CONVOLUTIONS"
CompilerOptions = tuple[tuple[str, bool | str], ...]
"""Names and values, hashable."""
# YNN's fusions would keep convolutions from faster code: XLA's own, or that of oneDNN.
WITHOUT_YNN: CompilerOptions = (("xla_cpu_experimental_ynn_fusion_type", ""),)
WITH_ONEDNN: CompilerOptions = (("xla_cpu_experimental_onednn_custom_call", True), *WITHOUT_YNN)
# XLA removes barriers on CPUs before it merges equal operations, and jax.checkpoint would save no memory.
WITH_RECOMPUTATION: CompilerOptions = (("xla_disable_hlo_passes", "cse_barrier_expander"),)


def disable_fast_convolutions() -> None:
    """Leave convolutions and compiler options as they are, in this process and those that it starts.

    Programs that are compiled already do not change, so call this first. It sets the environment variable
    `JAXCLF_FAST_CONVOLUTIONS=0`.
    """
    os.environ[SWITCH] = "0"


def has_fast_convolutions() -> bool:
    """Return True if convolutions are rewritten: on CPUs, unless the user has switched it off."""
    return jax.default_backend() == "cpu" and os.environ.get(SWITCH) != "0"


def is_onednn_faster() -> bool:
    """Return True if oneDNN's convolutions were measured to be faster than XLA's own with this version of JAX."""
    # With jax 0.12 convolutions take half the time, and integrated gradients of a small network 0.57 of it; with 0.10
    # both take as long as without oneDNN (docs/log.md).
    return jax.__version_info__ >= (0, 12) and platform.machine() in ("x86_64", "AMD64")


def select_options(onednn: bool) -> CompilerOptions:
    """Return XLA's options for a program with convolutions.

    Args:
        onednn: False for programs that oneDNN would miscompile.

    Returns:
        The options; none if fast convolutions are off, if this XLA lacks an option, or if XLA_FLAGS sets one.
    """
    return keep_usable(WITH_ONEDNN if onednn and is_onednn_faster() else WITHOUT_YNN)


def keep_usable(options: CompilerOptions) -> CompilerOptions:
    """Return options, or none if fast convolutions are off, if this XLA lacks one, or if XLA_FLAGS sets one."""
    flags = os.environ.get("XLA_FLAGS", "")
    usable = has_fast_convolutions() and not any(name in flags for name, _ in options)
    return options if usable and is_supported(options) else ()


@cache
def is_supported(options: CompilerOptions) -> bool:
    """Return True if this version of XLA has the options, which are experimental and can be removed."""
    try:
        jax.jit(lambda x: x, compiler_options=dict(options)).lower(0.0).compile()
    except jax.errors.JaxRuntimeError:
        return False
    return True
