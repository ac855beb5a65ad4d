"""Stop, kill, starve and damage runs of the real command, as long as you like.

`PYTHONPATH=tests python tests/endurance/soak.py --events 100` starts it.
Each run is begun, cut short again and again by chance, and gone on with until it ends. It must end with the bytes of
the run to which nothing happened. Prints a line an event, and a table; the last result is in docs/fault-tolerance.md.
"""

import argparse
import shutil
import signal
import subprocess
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
from conftest import start_python
from support.noise_run import ARGUMENTS, CONFIG, assert_same, steps

SECONDS = 6.0  # within which a run is cut short, from its start or from its first line of the log


class Soak:
    """Runs of one config in one folder."""

    def __init__(self, folder: Path, seed: int):
        self.folder, self.random, self.count, self.runs = folder, np.random.default_rng(seed), Counter[str](), 0
        (folder / "noise.py").write_text(CONFIG)
        self.wait(self.start(folder / "whole"), 300, (0,))

    def start(self, run: Path, **what: str) -> subprocess.Popen:
        """The command, begun or gone on with."""
        return start_python("-u", *ARGUMENTS, "--workdir", run, cwd=self.folder, RUN=str(run), **what)

    def wait(self, process: subprocess.Popen, seconds: float, codes: tuple[int, ...]) -> int | None:
        """The exit code, which is one of `codes`; None where it does not end in time."""
        try:
            _, errors = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            return None
        assert process.returncode in codes, (process.returncode, errors)
        if process.returncode == 2:  # Orbax's other threads may add to it
            assert any(line.startswith("error: ") for line in errors.splitlines()), errors
        elif process.returncode == -signal.SIGINT and errors.startswith("Traceback"):  # Python's own, of its imports
            assert "in <module>" in errors and errors.endswith("KeyboardInterrupt\n"), errors
        else:
            assert "Traceback" not in errors, errors
        return process.returncode

    def stopped(self, run: Path, number: signal.Signals) -> str:
        """Sent a signal at a random moment."""
        process = self.start(run, PAUSE="0.4")
        if self.random.random() < 0.8:
            next((line for line in process.stdout if line.startswith("step")), None)
        if self.wait(process, self.random.uniform(0, SECONDS), (0,)) is None:
            process.send_signal(number)
            allowed = (-9,) if number == signal.SIGKILL else (0, 128 + number, -number)
            assert self.wait(process, 120, allowed) is not None
        return number.name

    def starved(self, run: Path) -> str:
        """No file can grow longer than a random length."""
        process = self.start(run, LIMIT=str(int(10 ** self.random.uniform(1.5, 5))))
        assert self.wait(process, 120, (0, 2)) is not None
        return "full disk"

    def flipped(self, run: Path) -> str:
        """A bit of the newest checkpoint, where there is one before it."""
        saved = sorted((run / "checkpoints").glob("[0-9]*"), key=lambda path: int(path.name))
        files = sorted(path for path in saved[-1].rglob("*") if path.is_file()) if len(saved) > 1 else []
        files = [path for path in files if path.stat().st_size]
        if not files:
            return "nothing to damage"
        path = files[self.random.integers(len(files))]
        content = bytearray(path.read_bytes())
        content[self.random.integers(len(content))] ^= 1 << self.random.integers(8)
        path.write_bytes(content)
        assert steps(run) == int(saved[-2].name)
        return "bit"

    def event(self, run: Path) -> str:
        """Something happens."""
        chance = self.random.random()
        if chance < 0.45:
            return self.stopped(run, signal.SIGKILL)
        if chance < 0.75:
            return self.stopped(run, signal.SIGTERM if chance < 0.6 else signal.SIGINT)
        return self.starved(run) if chance < 0.9 else self.flipped(run)

    def run(self, events: int) -> None:
        """Runs one after the other until so much has happened."""
        began = time.monotonic()
        while sum(self.count.values()) < events:
            run = self.folder / "run"
            while not (run / "summary.json").exists():
                before = steps(run)
                what = self.event(run)
                after = steps(run)
                assert after >= before or what == "bit", (what, before, after)
                self.count[what] += 1
                print(f"{time.monotonic() - began:7.0f} s  {what}: step {before} to {after}", flush=True)
            assert_same(run, self.folder / "whole")
            self.runs += 1
            shutil.rmtree(run)
        for what, count in sorted(self.count.items()):
            print(f"{count:5d}  {what}")
        print(f"{self.runs:5d}  runs, each with the bytes of the whole one")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        Soak(Path(folder), options.seed).run(options.events)
