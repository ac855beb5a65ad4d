"""Exclusive locks on directories."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import lock_descriptor

from jaxclf.errors import UserError

NAME = ".lock"


def check_free(directory: Path, user: str, fix: str) -> None:
    """Raise UserError if another process has locked a directory. Nothing is created."""
    if (directory / NAME).exists():
        with lock_directory(directory, user, fix):
            pass


@contextmanager
def lock_directory(directory: Path, user: str, fix: str | None) -> Iterator[int]:
    """Lock a directory, which is created if it does not exist, while the block runs.

    The operating system releases the lock when its last holder ends, however it ends: no lock is ever stale.

    Args:
        directory: The directory to lock.
        user: What uses the directory, for the error message.
        fix: What the user can do if it is locked, for the error message; None: wait until it is free.

    Yields:
        The file descriptor of the lock. A child process that inherits it holds the lock too.

    Raises:
        UserError: If another process holds the lock and there is a fix; the message names the process and its host.
    """
    directory.mkdir(parents=True, exist_ok=True)
    lock = os.open(directory / NAME, os.O_RDWR | os.O_CREAT)
    try:
        # The holder is written behind the first byte, which Windows locks against reading.
        if not lock_descriptor(lock, blocking=False):
            os.lseek(lock, 1, os.SEEK_SET)
            holder = os.read(lock, 1_000).decode(errors="replace").strip()
            if fix is not None:
                raise UserError(f"{directory} is in use by {user} ({holder}); {fix}")
            print(f"waiting for {user} ({holder})", file=sys.stderr)
            lock_descriptor(lock)
            os.lseek(lock, 0, os.SEEK_SET)
        os.ftruncate(lock, 0)
        os.write(lock, f"\nprocess {os.getpid()} on {socket.gethostname()}\n".encode())
        yield lock
    finally:
        os.close(lock)  # without unlocking first, which would also end the hold of child processes
