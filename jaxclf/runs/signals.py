"""SIGINT and SIGTERM: a run saves and stops at the first, and ends at the second."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from jaxclf.training.callbacks import Callback
from jaxclf.training.distributed import share_signal

if TYPE_CHECKING:
    from jaxclf.training.trainer import Trainer

SHOW_CURSOR = "\x1b[?25h"  # a progress bar hides it


@contextmanager
def handle_sigterm() -> Iterator[None]:
    """Let SIGTERM end the block as Ctrl-C does, with exit code 143."""
    came = []

    def interrupt(*_: object) -> None:
        came.append(True)
        raise KeyboardInterrupt  # Ray would change the exit code of a SystemExit

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    except KeyboardInterrupt:
        if came:
            sys.exit(143)
        raise
    finally:
        signal.signal(signal.SIGTERM, before)


class StopOnSignal(Callback):
    """Interrupts training when SIGINT or SIGTERM arrives inside its block; a second one ends the process at once.

    A thread receives them: Python's own handlers wait until the call of the main thread returns, and that may be a
    compilation, or a read that hangs.
    """

    def __init__(self):
        self.signal = 0  # its number
        self._poll = share_signal(lambda: self.signal)

    def on_ready(self, trainer: Trainer) -> None:
        """Look for a signal before the first step."""
        trainer.interrupted = self._poll()

    def on_step_end(self, trainer: Trainer, steps: range) -> None:
        """Look for a signal between two executions."""
        trainer.interrupted = self._poll()

    def on_batch_evaluated(self, trainer: Trainer) -> None:
        """Look for a signal between two batches of an evaluation."""
        trainer.interrupted = self._poll()

    def __enter__(self) -> StopOnSignal:
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
        self._told.close()  # ends the thread

    def _listen(self) -> None:
        with self._heard:
            while heard := self._heard.recv(1):
                number = heard[0]
                if number not in self._before:
                    continue
                if self.signal:
                    if sys.stdout.isatty():
                        os.write(1, SHOW_CURSOR.encode())
                    os._exit(128 + number)
                self.signal = number
                # Not `print`: the main thread may hold its lock while it waits for this signal.
                name = signal.Signals(number).name
                os.write(2, f"{name}: saving a checkpoint, then exiting; Ctrl-C again to force quit\n".encode())
