"""The suite runs strictly: four virtual CPU devices, checked shapes, no silent broadcasting of ranks."""

import os
from importlib.metadata import version

# Compiling, not running, is what tests spend their time on.
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=4 --xla_backend_optimization_level=0"
if version("jaxlib").startswith("0.10."):  # its older way to compile fusions takes a third of the time; 0.12 has none
    os.environ["XLA_FLAGS"] += " --xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["JAX_ENABLE_COMPILATION_CACHE"] = "false"  # commands keep programs, unless JAX's cache is switched off
os.environ["JAX_TRACEBACK_IN_LOCATIONS_LIMIT"] = "0"  # which lines of Python an operation comes from

import gc
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from contextlib import nullcontext
from pathlib import Path

TESTS = Path(__file__).parent
ROOT = TESTS.parent

# A shell that starts the suite in the background has Ctrl-C ignored, by the commands under test too.
signal.signal(signal.SIGINT, signal.default_int_handler)

# What is kept between runs is not the user's, and goes with the process that began; those it starts share it. Lanes
# that run one after the other share what TEST_CACHE names: drawn images and compiled programs.
if "PYTEST_XDIST_WORKER" not in os.environ:
    _cache = tempfile.TemporaryDirectory()
    os.environ["XDG_CACHE_HOME"] = os.environ.get("TEST_CACHE", _cache.name)

from jaxtyping import install_import_hook

# Interpreters of traced programs and their rules are called for every equation and have no shapes in their signatures.
# A package's own name would add all its modules.
UNCHECKED = re.compile(r"jaxclf/xla/|.*(_rules|/primitives|/__init__)\.py$")
files = [path.relative_to(ROOT).as_posix() for path in (ROOT / "jaxclf").rglob("*.py")]
checked = [name[:-3].replace("/", ".") for name in files if not UNCHECKED.match(name)]
install_import_hook([*checked, "jaxclf.datasets.cartoons"], "beartype.beartype")

import jax
import numpy as np
import pytest
from PIL import Image
from support.forked import Forker
from support.seeds import shift_seeds

from jaxclf.datasets import Mnist
from jaxclf.types import Split, Splits

LANES = ("unit", "integration", "endurance")
COLOUR_CONFIG = """
from jaxclf.config import Config
from jaxclf.datasets import ImageFolder
from jaxclf.models import Cnn
from jaxclf.optimizers import Adam


def get_config():
    return Config(
        dataset=ImageFolder({root!r}, (12, 12), train_fraction=0.5, test_fraction=0.4),
        model=Cnn(features=(3,), dense=(), classes=2),
        optimizer=Adam(learning_rate=0.01),
        epochs=5,
        batch_size=8,
        eval_batch_size=6,
    )
"""

jax.config.update("jax_numpy_rank_promotion", "raise")
# Tracing makes many objects and few cycles: collecting as often as Python does takes a tenth of a test's time.
gc.freeze()
gc.set_threshold(200_000, 20, 100)


def pytest_addoption(parser):
    parser.addoption("--seed-offset", type=int, default=0, help="added to the seeds of NumPy and JAX that tests name")


def pytest_configure(config):
    """Run the unit lane where neither a marker nor a path is given."""
    if not config.option.markexpr and config.args_source is config.ArgsSource.TESTPATHS:
        config.option.markexpr = "unit"
    if config.option.markexpr == "unit" and config.option.dist == "loadfile":
        config.option.dist = "worksteal"  # files of the other lanes share runs, and stay on one worker
    if config.option.seed_offset:
        shift_seeds(config.option.seed_offset)


def pytest_ignore_collect(collection_path, config):
    """Do not import the other lanes where one is chosen: it takes seven seconds."""
    chosen = config.option.markexpr
    others = collection_path.parent == TESTS and collection_path.name in set(LANES) - {chosen}
    return True if chosen in LANES and others else None


def pytest_collection_modifyitems(items):
    """Mark each test by its folder: unit, integration or endurance."""
    for item in items:
        item.add_marker(item.path.relative_to(TESTS).parts[0])


@pytest.fixture(scope="module", autouse=True)
def programs_of_one_file():
    """Let go of what a file compiled: a program takes memory maps, and Linux gives a process 65,530 of them."""
    yield
    jax.clear_caches()


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
    env = environment_of_commands() | environment
    words = [sys.executable, *map(str, arguments)]
    return subprocess.Popen(words, cwd=cwd, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def environment_of_commands():
    """The user's environment, with a compilation cache that is shared by the commands of a worker."""
    env = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    if version("jaxlib").startswith("0.10."):  # 0.12 cannot write all programs: "std::bad_alloc"
        worker = os.environ.get("PYTEST_XDIST_WORKER", "alone")
        env["JAX_ENABLE_COMPILATION_CACHE"] = "true"
        env["JAX_COMPILATION_CACHE_DIR"] = f"{os.environ['XDG_CACHE_HOME']}/compiled_{worker}"
        env["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
        env["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"
    return env


@pytest.fixture(scope="session")
def start():
    """Start a command, and go on: forked from a process with its imports, unless it is to be a fresh one."""
    with Forker(environment_of_commands()) if sys.platform == "linux" else nullcontext() as forker:

        def start(*arguments, cwd=ROOT, fresh=False, **environment):
            words, env = list(map(str, arguments)), environment_of_commands() | environment
            if fresh or forker is None or not forker.can(words, env):
                return start_python(*arguments, cwd=cwd, **environment)
            return forker.start(words, str(cwd), env)

        yield start


@pytest.fixture(scope="session")
def command(start):
    """Run a command to its end."""

    def run(*arguments, **options):
        with start(*arguments, **options) as process:
            output, errors = process.communicate(timeout=500)
        return subprocess.CompletedProcess(arguments, process.returncode, output, errors)

    return run


@pytest.fixture(scope="session")
def linear_run(command, tmp_path_factory):
    """The linear classifier after one epoch of the real command, and what that printed."""
    workdir = tmp_path_factory.mktemp("runs") / "linear"
    done = command("train.py", "configs/mnist_linear.py", "--epochs", 1, "--workdir", workdir, fresh=True)
    assert done.returncode == 0, done.stderr
    files = sorted(workdir.rglob("*"))
    yield workdir, done
    assert sorted(workdir.rglob("*")) == files  # it is everybody's


@pytest.fixture
def run_directory(linear_run, tmp_path):
    """The linear classifier, to write into."""
    return shutil.copytree(linear_run[0], tmp_path / "run", ignore=shutil.ignore_patterns("*.py"))


@pytest.fixture(scope="session")
def colour_run(tmp_path_factory):
    """A small CNN after five epochs on red and blue pictures in two folders: it knows all of them."""
    from support.cli import train  # it brings TensorFlow, which few files need

    place, random = tmp_path_factory.mktemp("colour"), np.random.default_rng(0)
    for channel, name in ((0, "red"), (2, "blue")):
        (place / "pictures" / name).mkdir(parents=True)
        for i in range(20):
            pixels = random.integers(0, 100, (12, 12, 3), np.uint8)
            pixels[..., channel] += 120
            Image.fromarray(pixels).save(place / f"pictures/{name}/{i}.png")
    (place / "colour.py").write_text(COLOUR_CONFIG.format(root=str(place / "pictures")))
    assert train([str(place / "colour.py"), "--workdir", str(place / "run")]) == 0
    return place / "run"


@pytest.fixture
def random() -> np.random.Generator:
    return np.random.default_rng(0)
