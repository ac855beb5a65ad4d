"""Huge pages for the large arrays of a command, on Linux.

XLA's CPU backend allocates the temporary memory of a program anew in every call. In pages of 4 KiB the kernel takes
longer to provide it than many a network needs to compute in it (docs/log.md).
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path

VARIABLE, TUNABLE = "GLIBC_TUNABLES", "glibc.malloc.hugetlb"
# Arrays of less than 32 MiB are not mapped one by one, and their memory is used again.
SETTINGS = f"{TUNABLE}=1:glibc.malloc.mmap_threshold=33554432:glibc.malloc.trim_threshold=1073741824"
POLICY = Path("/sys/kernel/mm/transparent_hugepage/enabled")
SINCE = (2, 35)
"""Version of glibc whose malloc can ask for huge pages."""
PROGRAMS = ("train.py", "eval.py", "jaxclf")


def use_huge_pages() -> None:
    """Start the process of a command again, with settings that glibc reads only at the start.

    Nothing happens where they would not help, where the user has set TUNABLE, and in processes of other programs
    that call a command.
    """
    tunables = os.environ.get(VARIABLE, "")
    if TUNABLE not in tunables and _is_command() and _is_useful():
        environment = os.environ | {VARIABLE: ":".join(filter(None, [tunables, SETTINGS]))}
        with suppress(OSError):  # where no process may be started, the command goes on as it is
            os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)


def _is_command() -> bool:
    """Return True if this process was started as a command of jaxclf, and not by a notebook, a test or a debugger."""
    script, *arguments = sys.argv
    as_script = Path(script).name in PROGRAMS and sys.orig_argv[1:] == [script, *arguments]
    return as_script or sys.orig_argv[1:] == ["-m", "jaxclf", *arguments]


def _is_useful() -> bool:
    """Return True if the kernel gives huge pages to programs that ask for them, and malloc can ask."""
    try:
        name, _, version = (os.confstr("CS_GNU_LIBC_VERSION") or "").partition(" ")
        is_recent = name == "glibc" and tuple(map(int, version.split(".")[:2])) >= SINCE
        return is_recent and "[madvise]" in POLICY.read_text()
    except (AttributeError, ValueError, OSError):  # no Linux, or no glibc
        return False
