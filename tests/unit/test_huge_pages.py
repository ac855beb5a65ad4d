"""Commands start again with huge pages only where that helps, and only their own processes."""

import os
import sys
from pathlib import Path

import pytest

from jaxclf.cli import huge_pages
from jaxclf.cli.huge_pages import SETTINGS, use_huge_pages


class Started(Exception):  # noqa: N818
    """What the process would have become."""


@pytest.fixture
def start(monkeypatch, tmp_path):
    """What a process of some words becomes, or None if it stays."""

    def execve(path, words, environment):
        raise Started(words, environment["GLIBC_TUNABLES"])

    def run(*words, script=None, policy="always [madvise] never", tunables=None, libc="glibc 2.36"):
        (tmp_path / "enabled").write_text(policy)
        monkeypatch.setattr(huge_pages, "POLICY", tmp_path / "enabled")
        monkeypatch.setattr(os, "confstr", lambda name: libc, raising=False)
        monkeypatch.setattr(os, "execve", execve)
        monkeypatch.setattr(sys, "orig_argv", ["python", *words])
        monkeypatch.setattr(sys, "argv", [script, *words[2:]] if script else [*words])
        if tunables is None:
            monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
        else:
            monkeypatch.setenv("GLIBC_TUNABLES", tunables)
        try:
            use_huge_pages()
        except Started as started:
            return started.args
        return None

    return run


MODULE = ("-m", "jaxclf", "eval", "run")


def test_a_command_starts_again_with_its_words(start):
    for words in (("train.py", "mnist_cnn", "--epochs", "2"), ("/usr/bin/jaxclf", "eval", "run"), ("jaxclf",)):
        assert start(*words) == ([sys.executable, *words], SETTINGS)
    assert start(*MODULE, script="/jaxclf/__main__.py") == ([sys.executable, *MODULE], SETTINGS)


def test_settings_of_the_user_win(start):
    assert start("train.py", tunables="glibc.malloc.hugetlb=0") is None
    assert start("train.py", tunables="glibc.malloc.hugetlb=1") is None
    _, tunables = start("train.py", tunables="glibc.malloc.arena_max=4")
    assert tunables == f"glibc.malloc.arena_max=4:{SETTINGS}"


def test_nothing_starts_where_it_would_not_help(start, monkeypatch):
    for policy in ("[always] madvise never", "always madvise [never]", ""):
        assert start("train.py", policy=policy) is None
    for libc in ("glibc 2.34", "musl 1.2", "", None):
        assert start("train.py", libc=libc) is None
    monkeypatch.setattr(huge_pages, "POLICY", Path("/no/such/file"))
    monkeypatch.setattr(sys, "orig_argv", ["python", "train.py"])
    monkeypatch.setattr(sys, "argv", ["train.py"])
    use_huge_pages()


def test_a_command_that_cannot_start_again_goes_on(start, monkeypatch):
    def refuse(*_):
        raise PermissionError

    assert start("train.py") is not None
    monkeypatch.setattr(os, "execve", refuse)
    use_huge_pages()


@pytest.mark.parametrize(
    "words, argv",
    [
        (["notebook.py"], ["notebook.py"]),
        (["/usr/bin/ipython"], ["train.py"]),
        (["-m", "pytest", "tests"], ["/pytest/__main__.py", "tests"]),
        (["-m", "pdb", "train.py", "mnist_cnn"], ["train.py", "mnist_cnn"]),
        (["forked.py", "17"], ["train.py", "mnist_cnn"]),
    ],
)
def test_processes_of_other_programs_stay(start, monkeypatch, words, argv):
    assert start("train.py") is not None
    monkeypatch.setattr(sys, "orig_argv", ["python", *words])
    monkeypatch.setattr(sys, "argv", argv)
    use_huge_pages()
