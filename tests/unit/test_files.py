"""Files are written whole or not at all; what cannot be read is an error that names the file."""

import errno
import os
import tempfile
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxclf.cli.app import describe_error
from jaxclf.errors import UserError
from jaxclf.io.files import atomic_write, choose_name, read_json, write_json, write_text
from jaxclf.io.lock import check_free, lock_directory

LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
JSON = st.recursive(LEAVES, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=5)
DAMAGED = [b"", b'{"a": 1', b'"\xff"', b"\0", b"[" * 100_000]


@pytest.fixture
def path(tmp_path):
    write_text(tmp_path / "name.txt", "old")
    return tmp_path / "name.txt"


def test_the_new_content_appears_when_the_block_ends(path):
    with atomic_write(path) as partial:
        partial.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert list(path.parent.iterdir()) == [path]


# An interruption from the keyboard is no Exception.
@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_error_leaves_the_old_content_and_nothing_else(path, error):
    with pytest.raises(error), atomic_write(path) as partial:
        partial.write_text("new")
        raise error
    assert path.read_text() == "old"
    assert list(path.parent.iterdir()) == [path]


def test_what_json_cannot_hold_leaves_the_old_content(path):
    with pytest.raises(TypeError):
        write_json(path, {"a": object()})
    assert path.read_text() == "old"


@settings(deadline=None, max_examples=50)
@given(data=JSON)
def test_json_round_trip(data):
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "data.json"
        write_json(path, data)
        assert read_json(path) == data


def test_numbers_that_json_does_not_have_become_null(path):
    write_json(path, {"a": [float("inf"), float("-inf"), float("nan"), 1.5]})
    assert read_json(path) == {"a": [None, None, None, 1.5]}


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"there is no /.*/missing\.json"):
        read_json(tmp_path / "missing.json")


@pytest.mark.parametrize("content", DAMAGED, ids=lambda content: repr(content[:9]))
def test_a_damaged_file_is_named(path, content):
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"/name\.txt is not readable as JSON"):
        read_json(path)


def test_a_directory_is_locked_until_its_block_ends(tmp_path):
    directory, words = tmp_path / "a/b", ("a test", "wait")
    check_free(directory, *words)
    assert not (tmp_path / "a").exists()
    message = rf"a/b is in use by a test \(process {os.getpid()} on .+\); wait$"
    with pytest.raises(KeyError), lock_directory(directory, *words):
        for _ in range(2):
            with pytest.raises(UserError, match=message):
                check_free(directory, *words)
        with pytest.raises(UserError, match=message), lock_directory(directory, *words):
            pass
        raise KeyError
    check_free(directory, *words)
    with lock_directory(directory, *words):
        pass
    assert [path.name for path in directory.iterdir()] == [".lock"]


def test_without_a_fix_a_locked_directory_is_waited_for(tmp_path, capsys):
    entered = threading.Event()

    def work():
        with lock_directory(tmp_path, "a test", None):
            entered.set()

    waiting = threading.Thread(target=work)
    with lock_directory(tmp_path, "a test", "wait"):
        waiting.start()
        while "waiting for a test (process " not in capsys.readouterr().err:
            assert not entered.wait(0.02)
    waiting.join(10)
    assert entered.is_set()
    assert (tmp_path / ".lock").read_bytes().startswith(b"\nprocess ")


def test_a_full_disk_is_an_error_that_names_the_file(tmp_path):
    """Case F20."""

    def write():
        with atomic_write(tmp_path / "evaluation.json"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(OSError, match="No space left") as error:
        write()
    assert describe_error(error.value) == f"No space left on device: {tmp_path / 'evaluation.json'}"
    assert list(tmp_path.iterdir()) == []


def test_names_are_numbered_until_they_are_free():
    taken = set()
    assert [choose_name(name, taken) for name in ("a", "a-2", "a", "A", "b")] == ["a", "a-2", "a-3", "A-4", "b"]
