"""The suite runs strictly: four virtual CPU devices, checked shapes, no silent broadcasting of ranks."""

import os

# Compiling, not running, is what tests spend their time on.
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=4 --xla_backend_optimization_level=0"
os.environ["JAX_PLATFORMS"] = "cpu"

import subprocess
import sys
import tempfile
from pathlib import Path

# What is kept between runs is not the user's; it goes with the process.
_cache = tempfile.TemporaryDirectory()
os.environ["XDG_CACHE_HOME"] = _cache.name

from jaxtyping import install_import_hook

install_import_hook("jaxclf", "beartype.beartype")

import jax
import numpy as np
import pytest

from jaxclf.datasets import Mnist
from jaxclf.types import Split, Splits

ROOT = Path(__file__).parent.parent

jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture(scope="session")
def mnist() -> Splits:
    """The real data, read once."""
    return Mnist().load()


@pytest.fixture(scope="session")
def digits(mnist: Splits) -> Splits:
    """A few real digits: 203 to train, 53 to validate, 101 to test; the sizes are prime to every batch size."""

    def few(split: Split, n: int) -> Split:
        return Split(split.images[:n], split.labels[:n], split.class_names)

    return Splits(few(mnist.train, 203), few(mnist.validation, 53), few(mnist.test, 101))


def start_python(*arguments, cwd=ROOT, **environment):
    """Start a Python file or module as a user does: a fresh process, one device, warnings shown."""
    env = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"} | environment
    words = [sys.executable, *map(str, arguments)]
    return subprocess.Popen(words, cwd=cwd, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.fixture(scope="session")
def start():
    """Start a command, and go on."""
    return start_python


@pytest.fixture(scope="session")
def command():
    """Run a command to its end."""

    def run(*arguments, **options):
        with start_python(*arguments, **options) as process:
            output, errors = process.communicate(timeout=500)
        return subprocess.CompletedProcess(arguments, process.returncode, output, errors)

    return run


@pytest.fixture(scope="session")
def linear_run(command, tmp_path_factory):
    """The linear classifier after one epoch of the real command, and what that printed."""
    workdir = tmp_path_factory.mktemp("runs") / "linear"
    done = command("train.py", "configs/mnist_linear.py", "--epochs", 1, "--workdir", workdir)
    assert done.returncode == 0, done.stderr
    return workdir, done


@pytest.fixture
def random() -> np.random.Generator:
    return np.random.default_rng(0)
