"""Commands in other terminals: encodings, closed streams, a platform that is not there."""

import subprocess
import sys

import pytest
from conftest import environment_of_commands


def run(*words, prefix="", stdin=None, without=(), **environment):
    """Run a command line in a shell, in a fresh process."""
    env = {name: value for name, value in environment_of_commands().items() if name not in without} | environment
    line = f'"{sys.executable}" -m jaxclf "$@" {prefix}'
    return subprocess.run(["bash", "-c", line, "-", *map(str, words)], env=env, capture_output=True, input=stdin)


@pytest.mark.parametrize("name", ["cuda", "nonsense"])
def test_a_platform_that_is_not_there_is_named(linear_run, name):
    """Case F11."""
    done = run("eval", linear_run[0], JAX_PLATFORMS=name)
    assert done.returncode == 2
    assert done.stderr.decode().splitlines() == [
        f"error: JAX_PLATFORMS={name}: JAX finds no such device here",
        "unset JAX_PLATFORMS to use what is there, or install support for it, such as pip install 'jaxclf[cuda]'",
    ]


def test_characters_an_encoding_lacks_are_escaped(colour_run):
    """Case F12. The usage line has an ellipsis, and the class is not ASCII."""
    done = run("--help", PYTHONIOENCODING="ascii")
    assert done.returncode == 0
    assert b"usage: jaxclf COMMAND \\u2026" in done.stdout
    other = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = run("data", colour_run.parent / "colour.py", **other)
    assert done.returncode == 0, done.stderr


def test_a_split_is_the_same_in_every_locale(tmp_path, colour_run):
    """Case F12. The file that a split is drawn from is named in UTF-8."""
    pictures = colour_run.parent / "pictures"
    (tmp_path / "pictures").mkdir()
    for old, new in (("red", "猫"), ("blue", "blé")):
        (tmp_path / "pictures" / new).symlink_to(pictures / old)
    code = (
        "import sys; from jaxclf.datasets import ImageFolder; "
        "train = ImageFolder(sys.argv[1], train_fraction=0.5).load().train; "
        "print(ascii((train.class_names, [path.name for path in train.images.paths])))"
    )

    def split(**environment):
        env = environment_of_commands() | environment
        done = subprocess.run([sys.executable, "-c", code, tmp_path / "pictures"], env=env, capture_output=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert split(LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0") == split()


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-"])
def test_closed_streams_are_empty(colour_run, closed):
    """Case F13. Messages to a closed stream do not appear among the rows of the other one."""
    picture = colour_run.parent / "pictures/red/0.png"
    done = run("predict", colour_run, picture, *(["-"] if closed == "<&-" else ["missing.png"]), prefix=closed)
    assert done.returncode == (0 if closed == "<&-" else 4), done.stderr
    assert b"Traceback" not in done.stderr
    if closed != ">&-":
        assert done.stdout.decode().splitlines()[0].startswith("path,label,confidence")
