"""How far the host runs ahead of the devices."""

from __future__ import annotations

import time

import jax

from jaxclf.types import Array

LEAD_SECONDS = 1.0
"""Work that may be waiting on the devices, in seconds."""


class RunAheadLimit:
    """Keeps the host at most about a second ahead of the devices.

    JAX starts up to 32 executions before the first has ended. A signal is answered when all of them have ended, which
    takes longer than a scheduler waits if one takes a second, and their batches are in memory. Waiting for the devices
    about once a second has no measurable cost (docs/log.md).
    """

    def __init__(self):
        self._group = 1  # executions between two waits
        self.reset()

    def reset(self) -> None:
        """Begin anew after other work. What is known about the speed of executions stays."""
        self._count, self._began = 0, time.perf_counter()

    def wait(self, output: Array) -> None:
        """Wait for an output of the execution just started, if the host could be too far ahead."""
        self._count += 1
        if self._count < self._group:
            return
        jax.block_until_ready(output)
        seconds = max(time.perf_counter() - self._began, 1e-6)
        self._group = max(1, min(2 * self._group, int(self._group * LEAD_SECONDS / seconds)))
        self.reset()
