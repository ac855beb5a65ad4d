"""SIGINT and SIGTERM: what has nothing to save ends by the first; a run is asked to stop, and ends by the second."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

SHOW_CURSOR = "\x1b[?25h"  # a progress bar hides it


@contextmanager
def terminable() -> Iterator[None]:
    """Let SIGTERM end the block as Ctrl-C does, with an exit code of its own."""
    came = []

    def interrupt(*_: object) -> None:
        came.append(True)
        raise KeyboardInterrupt  # Ray would change the code of a SystemExit

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    except KeyboardInterrupt:
        if came:
            sys.exit(143)
        raise
    finally:
        signal.signal(signal.SIGTERM, before)


class StopSignals:
    """Notes a signal inside its block, which looks where it can save and stop. A second one ends the process at once.

    A thread hears of them: Python's own handlers wait until what the main thread calls has returned.
    """

    def __init__(self):
        self.came = 0  # the number of the signal

    def __enter__(self) -> StopSignals:
        self._heard, self._told = socket.socketpair()
        self._told.setblocking(False)
        self._before = {each: signal.signal(each, lambda *_: None) for each in (signal.SIGINT, signal.SIGTERM)}
        signal.set_wakeup_fd(self._told.fileno(), warn_on_full_buffer=False)
        threading.Thread(target=self._listen, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        signal.set_wakeup_fd(-1)
        for each, handler in self._before.items():
            signal.signal(each, handler)
        self._told.close()  # which ends the thread

    def _listen(self) -> None:
        with self._heard:
            while heard := self._heard.recv(1):
                number = heard[0]
                if number not in self._before:
                    continue
                if self.came:
                    if sys.stdout.isatty():
                        os.write(1, SHOW_CURSOR.encode())
                    os._exit(128 + number)
                self.came = number
                # Not printed: the main thread may be inside a print, and wait for this one to see the signal.
                name = signal.Signals(number).name
                os.write(2, f"{name}: stopping where it can be saved; once more ends at once\n".encode())
