import numpy as np
import pytest

from jaxclf.training import run_ahead
from jaxclf.training.run_ahead import RunAheadLimit

OUTPUT = np.zeros(1)


class Devices:
    """Do executions one after the other, each in some seconds, on a clock that only they move."""

    def __init__(self, monkeypatch):
        self.now, self.ends, self.waits = 0.0, [], 0
        monkeypatch.setattr(run_ahead.time, "perf_counter", lambda: self.now)
        monkeypatch.setattr(run_ahead.jax, "block_until_ready", self.finish)

    def start(self, seconds):
        self.ends.append(max([self.now, *self.ends[-1:]]) + seconds)

    def finish(self, _):
        self.waits += 1
        self.now = max(self.now, self.ends[-1])

    @property
    def lead(self):
        """Seconds of work that are not done."""
        return max(0.0, self.ends[-1] - self.now)


@pytest.mark.parametrize(("seconds", "longest"), [(3.0, 0.0), (0.3, 1.0), (0.001, 1.0), (1e-7, 1.0)])
def test_the_host_is_at_most_a_second_ahead(monkeypatch, seconds, longest):
    devices, limit = Devices(monkeypatch), RunAheadLimit()
    for _ in range(5000):
        devices.start(seconds)
        limit.wait(OUTPUT)
        assert devices.lead <= longest
    assert devices.waits <= 20 + 1.6 * devices.now


def test_what_becomes_slower_is_waited_for_more_often(monkeypatch):
    devices, limit = Devices(monkeypatch), RunAheadLimit()
    leads = []
    for seconds in [0.01] * 1000 + [0.5] * 1000:
        devices.start(seconds)
        limit.wait(OUTPUT)
        leads.append(devices.lead)
    assert max(leads[:1000]) <= 1.0
    assert max(leads[1200:]) <= 1.0


def test_other_work_between_executions_does_not_count(monkeypatch):
    devices, limit = Devices(monkeypatch), RunAheadLimit()
    for _ in range(200):  # epochs of 100 executions, each with a long evaluation at its end
        limit.reset()
        for _ in range(100):
            devices.start(0.001)
            limit.wait(OUTPUT)
        devices.finish(OUTPUT)
        devices.now += 60
    assert devices.waits < 2 * 200 + 20
