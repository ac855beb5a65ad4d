"""Compiled programs kept between commands, in JAX's persistent compilation cache."""

from __future__ import annotations

import os
import platform
from hashlib import sha256
from pathlib import Path

import jax

from jaxclf.io.files import get_cache_directory
from jaxclf.xla.options import has_fast_convolutions, is_onednn_faster

AUTO, OFF = "auto", "off"
MAX_BYTES = 2**30
"""Size of the user's cache, beyond which programs that were not used for longest are removed."""


def keep_programs(place: str) -> None:
    """Read and write compiled programs, which are executed as they are read.

    Args:
        place: A directory; or "off"; or "auto": a directory of the user's cache, if JAX's own settings neither name one
            nor switch its cache off, and if nobody else can write there.
    """
    if place == OFF:
        return
    directory = _make_user_directory() if place == AUTO else Path(place).absolute()
    if directory is None:
        return
    jax.config.update("jax_enable_compilation_cache", True)
    jax.config.update("jax_compilation_cache_dir", str(directory))
    jax.config.update("jax_compilation_cache_max_size", MAX_BYTES if place == AUTO else -1)
    # Small programs too: a hundred of them take as long to compile as the step.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def _make_user_directory() -> Path | None:
    """Return the directory for programs of this processor, or None if there should be none."""
    settings = jax.config.values
    if settings["jax_compilation_cache_dir"] or not settings["jax_enable_compilation_cache"]:
        return None
    # JAX cannot write programs with oneDNN's convolutions.
    if os.name != "posix" or (has_fast_convolutions() and is_onednn_faster()):
        return None
    root = get_cache_directory()
    # Under sudo, for example, the home directory is that of another user.
    existing = next(path for path in (root, *root.parents) if path.exists())
    if existing.stat().st_uid != os.getuid() or not os.access(existing, os.W_OK):
        return None
    # JAX's keys have the program as JAX lowers it, the version of jaxlib, and XLA's options, so another version of
    # either compiles anew. That they have the processor's features is not documented.
    directory = root / "programs" / sha256(_describe_processor().encode()).hexdigest()[:16]
    for path in (directory.parent, directory):
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = path.lstat()
        if status.st_uid != os.getuid() or status.st_mode & 0o022 or not path.is_dir():
            return None
    return directory


def _describe_processor() -> str:
    """Return the name of the processor's architecture, and its features where Linux lists them."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    features = (line for line in lines if line.startswith(("flags", "Features", "model name")))
    return "\n".join([platform.machine(), platform.processor(), *sorted(set(features))])
