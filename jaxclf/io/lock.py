"""One process at a time in a directory. The system lets go of the lock of a process that ends, however it ends."""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from jaxclf.errors import UserError

NAME = ".lock"


def check_free(directory: Path, who: str, instead: str) -> None:
    """Raise UserError where another process holds a directory; makes nothing."""
    if (directory / NAME).exists():
        with locked(directory, who, instead):
            pass


@contextmanager
def locked(directory: Path, who: str, instead: str) -> Iterator[int]:
    """Hold a directory, which is made where it is not there; gives the open lock, which other processes may keep too.

    Raises UserError, with its process and host, where another holds it. `who` is what the directory is held for, and
    `instead` what the user can do about it.
    """
    directory.mkdir(parents=True, exist_ok=True)
    lock = os.open(directory / NAME, os.O_RDWR | os.O_CREAT)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.read(lock, 1_000).decode(errors="replace").strip()
            raise UserError(f"{who} is at work in {directory} ({holder}); {instead}") from error
        os.ftruncate(lock, 0)
        os.write(lock, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
        yield lock
    finally:
        os.close(lock)
