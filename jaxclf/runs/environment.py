"""The environment of a run: versions, devices, flags, git revision."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import jax

PACKAGES = (
    "jaxclf", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "tensorflow", "tensorflow-cpu",
    "tensorflow-datasets", "tensorboardX", "tyro",
)  # fmt: skip


def describe_environment() -> dict[str, Any]:
    """Return what environment.json holds: versions, devices, flags, git revision."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu_count": os.cpu_count(),
        "versions": get_versions(),
        "processes": jax.process_count(),
        "devices": [str(device) for device in jax.devices()],
        "device_kind": jax.devices()[0].device_kind,
        "flags": {name: os.environ[name] for name in ("XLA_FLAGS", "JAX_PLATFORMS") if name in os.environ},
        "git_revision": get_git_revision(),
        "command": sys.argv,
        "directory": str(Path.cwd()),
    }


def get_versions() -> dict[str, str]:
    """Return the versions of installed packages that results may depend on."""
    return {name: found for name in PACKAGES if (found := get_version(name))}


def get_version(package: str) -> str | None:
    """Return the version of a package, or None."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def get_git_revision() -> str | None:
    """Return the git revision of this checkout, followed by `+` if files have changed; None without one."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(Path(__file__).parent), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", Path(__file__).name)  # it may be installed inside another project's checkout
        return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return None
