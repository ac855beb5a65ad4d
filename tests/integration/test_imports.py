"""Commands and libraries that start without the heavy libraries, each in a process of its own."""

import subprocess
import sys

from support.tfds import pairs, write_tfds


def test_help_lists_every_field_without_tensorflow(command):
    done = command("-X", "importtime", "train.py", "configs/mnist_cnn.py", "--help", COLUMNS="200")
    assert done.returncode == 0
    for text in (
        "--workdir",
        "--optimizer.learning-rate FLOAT",
        "(default: 0.001)",
        "--model.features",
        "16 36",
    ):
        assert text in done.stdout
    imported = {line.rpartition("|")[2].strip().split(".")[0] for line in done.stderr.splitlines()}
    assert imported & {"tensorflow", "matplotlib", "orbax", "tensorboardX"} == set()
    assert "jax" in imported


def test_help_without_a_config(command):
    done = command("train.py", "--help")
    assert done.returncode == 0
    assert "CONFIG" in done.stdout


def test_a_component_of_another_family_is_named(command):
    # In a process without the tests' own type checks, which would be first.
    code = (
        "from dataclasses import replace; from jaxclf.augment import Shift; from jaxclf.config_io import read_config\n"
        "from jaxclf.errors import UserError\n"
        "for field in ('dataset', 'model', 'optimizer', 'metrics'):\n"
        "    try: replace(read_config('mnist_cnn'), **{field: (Shift(1),) if field == 'metrics' else Shift(1)})\n"
        "    except UserError as error: print(error)"
    )
    printed = command("-c", code).stdout.splitlines()
    assert printed == [
        f"{field} has Shift(pixels=1), which is not a {family}"
        for field, family in zip(
            ("dataset", "model", "optimizer", "metrics"), ("Dataset", "Module", "Optimizer", "Metric"), strict=True
        )
    ]


def test_reading_a_config_leaves_heavy_libraries_alone():
    code = (
        "import sys; from jaxclf.config_io import read_config; read_config('mnist_cnn');"
        "print([m for m in ('tensorflow', 'orbax', 'matplotlib', 'tensorboardX') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"


def test_tfds_are_read_without_tensorflow(digits, tmp_path, command):
    code = """if True:
        import sys
        from jaxclf.datasets.tfds import Tfds
        for directory in sys.argv[1:]:
            print(Tfds("digits", data_dir=directory).load().test.images[:].mean())
        assert "tensorflow" not in sys.modules"""
    write_tfds(tmp_path, {"train": pairs(digits.train, 20), "test": pairs(digits.test, 20)})
    done = command("-W", "error", "-c", code, tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(set(done.stdout.split())) == 1
