"""Where commands keep compiled programs: with the user's settings, and never where somebody else could write."""

import os
import stat
from pathlib import Path

import jax
import pytest

from jaxclf.xla import program_cache
from jaxclf.xla.program_cache import keep_programs

SETTINGS = (
    "jax_enable_compilation_cache",
    "jax_compilation_cache_dir",
    "jax_compilation_cache_max_size",
    "jax_persistent_cache_min_compile_time_secs",
    "jax_persistent_cache_min_entry_size_bytes",
)


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A user's cache directory, JAX's settings as they are by default, and a JAX that can write its programs."""
    before = {name: getattr(jax.config, name) for name in SETTINGS}
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(program_cache, "is_onednn_faster", lambda: False)
    jax.config.update("jax_enable_compilation_cache", True)
    jax.config.update("jax_compilation_cache_dir", None)
    yield tmp_path
    for name, value in before.items():
        jax.config.update(name, value)


def get_directory():
    return jax.config.jax_compilation_cache_dir


def test_programs_are_kept_in_a_private_directory_of_limited_size(home):
    keep_programs("auto")
    (directory,) = (home / "jaxclf/programs").iterdir()
    assert get_directory() == str(directory)
    assert jax.config.jax_compilation_cache_max_size == 2**30
    for path in (directory, directory.parent):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
    keep_programs("auto")  # JAX's setting, which now names it, stays
    assert get_directory() == str(directory)


def test_another_processor_has_other_programs(home, monkeypatch):
    keep_programs("auto")
    first = get_directory()
    jax.config.update("jax_compilation_cache_dir", None)
    monkeypatch.setattr(program_cache, "_describe_processor", lambda: "another one")
    keep_programs("auto")
    assert get_directory() not in (first, None)


def test_settings_of_the_user_win(home):
    keep_programs("off")
    assert get_directory() is None
    jax.config.update("jax_enable_compilation_cache", False)
    keep_programs("auto")
    assert get_directory() is None and not jax.config.jax_enable_compilation_cache
    jax.config.update("jax_enable_compilation_cache", True)
    jax.config.update("jax_compilation_cache_dir", "/mine")
    keep_programs("auto")
    assert get_directory() == "/mine"
    keep_programs(str(home / "named"))
    assert get_directory() == str(home / "named")
    assert not any(home.iterdir())


@pytest.mark.parametrize("is_parent", [True, False])
@pytest.mark.parametrize("mode", [0o720, 0o702])
def test_no_programs_where_others_can_write(home, is_parent, mode):
    keep_programs("auto")
    directory = Path(get_directory())
    jax.config.update("jax_compilation_cache_dir", None)
    (directory.parent if is_parent else directory).chmod(mode)
    keep_programs("auto")
    assert get_directory() is None


def test_no_programs_in_the_place_of_another_user(home, monkeypatch):
    monkeypatch.setattr(os, "getuid", lambda: home.stat().st_uid + 1)
    keep_programs("auto")
    assert get_directory() is None and not any(home.iterdir())


def test_no_programs_behind_a_link(home):
    (home / "elsewhere").mkdir(mode=0o700)
    (home / "jaxclf").mkdir()
    (home / "jaxclf/programs").symlink_to(home / "elsewhere")
    keep_programs("auto")
    assert get_directory() is None and not any((home / "elsewhere").iterdir())


def test_no_programs_that_jax_cannot_write(home, monkeypatch):
    monkeypatch.setattr(program_cache, "is_onednn_faster", lambda: True)
    keep_programs("auto")
    assert get_directory() is None
