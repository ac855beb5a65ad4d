"""Commands in other terminals: encodings, closed streams, a platform that is not there."""

import subprocess
import sys

import pytest
from conftest import COLOUR_CONFIG, environment_of_commands

NOT_UTF8 = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


def run(*words, redirection="", **environment):
    """Run a command in a shell, in a fresh process."""
    line = f'"{sys.executable}" -m jaxclf "$@" {redirection}'
    env = environment_of_commands() | environment
    return subprocess.run(["bash", "-c", line, "-", *map(str, words)], env=env, capture_output=True)


@pytest.fixture
def pictures(tmp_path, colour_run):
    """A folder of classes whose names are not ASCII."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for old, new in (("red", "猫"), ("blue", "blé")):
        (folder / new).symlink_to(colour_run.parent / "pictures" / old)
    return folder


@pytest.mark.parametrize("name", ["cuda", "nonsense"])
def test_a_platform_that_is_not_there_is_named(linear_run, name):
    """Case F11."""
    done = run("eval", linear_run[0], JAX_PLATFORMS=name)
    assert done.returncode == 2
    assert done.stderr.decode().splitlines() == [
        f"error: JAX_PLATFORMS={name}: JAX finds no such device here",
        "unset JAX_PLATFORMS to use what is there, or install support for it, such as pip install 'jaxclf[cuda]'",
    ]


def test_characters_an_encoding_lacks_are_escaped(pictures):
    """Case F12: the ellipsis of the usage line, and names of classes."""
    done = run("--help", PYTHONIOENCODING="ascii")
    assert done.returncode == 0
    assert b"usage: jaxclf COMMAND \\u2026" in done.stdout
    config = pictures.parent / "colour.py"
    config.write_text(COLOUR_CONFIG.format(root=str(pictures)), encoding="utf-8")
    done = run("data", config, **NOT_UTF8)
    assert done.returncode == 0, done.stderr
    assert b"\\u732b" in done.stdout
    done = run("train", config, "--workdir", pictures.parent / "run", **NOT_UTF8)
    assert done.returncode == 0, done.stderr
    assert b"classes: 0 bl\\xe9, 1 \\u732b" in done.stdout


def test_a_split_is_the_same_in_every_locale(pictures):
    """Case F12: names are encoded in UTF-8 for the digest that orders the files."""
    code = (
        "import sys; from jaxclf.datasets import ImageFolder; "
        "train = ImageFolder(sys.argv[1], train_fraction=0.5).load().train; "
        "print(ascii((train.class_names, [path.name for path in train.images.paths])))"
    )

    def split(**environment):
        env = environment_of_commands() | environment
        done = subprocess.run([sys.executable, "-c", code, pictures], env=env, capture_output=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert split(**NOT_UTF8) == split()


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-"])
def test_closed_streams_are_empty(colour_run, closed):
    """Case F13. Messages to a closed stream do not appear among the rows of the other one."""
    picture = colour_run.parent / "pictures/red/0.png"
    done = run("predict", colour_run, picture, *(["-"] if closed == "<&-" else ["missing.png"]), redirection=closed)
    assert done.returncode == (0 if closed == "<&-" else 4), done.stderr
    assert b"Traceback" not in done.stderr
    if closed != ">&-":
        assert done.stdout.decode().splitlines()[0].startswith("path,label,confidence")
