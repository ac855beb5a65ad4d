"""Directories that one process at a time works in."""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from filelock import lock_descriptor

from jaxclf.errors import UserError

NAME = ".lock"
POLL_INTERVAL = 0.2  # seconds


def check_free(directory: Path, user: str, fix: str) -> None:
    """Raise UserError if another process has locked a directory. Nothing is created."""
    if (directory / NAME).exists():
        with lock_directory(directory, user, fix):
            pass


@contextmanager
def wait_for_directory(directory: Path, message: str) -> Iterator[None]:
    """Lock a directory, which is created if it does not exist, while the block runs; wait until it is free.

    Args:
        directory: The directory to lock.
        message: What is printed if another process holds the lock.
    """
    waiting = False
    while True:
        with ExitStack() as held:
            try:
                held.enter_context(lock_directory(directory, "another process", "wait for it to end"))
            except UserError:
                if not waiting:
                    print(message, file=sys.stderr)
                waiting = True
                time.sleep(POLL_INTERVAL)
                continue
            yield
            return


@contextmanager
def lock_directory(directory: Path, user: str, fix: str) -> Iterator[int]:
    """Lock a directory, which is created if it does not exist, while the block runs.

    The operating system releases the lock when its last holder ends, however it ends: no lock is ever stale.

    Args:
        directory: The directory to lock.
        user: What uses the directory, for the error message.
        fix: What the user can do if it is locked, for the error message.

    Yields:
        The file descriptor of the lock. A child process that inherits it holds the lock too.

    Raises:
        UserError: If another process holds the lock; the message names the process and its host.
    """
    directory.mkdir(parents=True, exist_ok=True)
    lock = os.open(directory / NAME, os.O_RDWR | os.O_CREAT)
    try:
        # The holder is written behind the first byte, which Windows locks against reading.
        if not lock_descriptor(lock, blocking=False):
            os.lseek(lock, 1, os.SEEK_SET)
            holder = os.read(lock, 1_000).decode(errors="replace").strip()
            raise UserError(f"{directory} is in use by {user} ({holder}); {fix}")
        os.ftruncate(lock, 0)
        os.write(lock, f"\nprocess {os.getpid()} on {socket.gethostname()}\n".encode())
        yield lock
    finally:
        os.close(lock)  # without unlocking first, which would also end the hold of child processes
