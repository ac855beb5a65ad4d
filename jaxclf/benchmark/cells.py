"""Cells of a benchmark: runs of `train.py`, each in a process of its own, some at a time, here or on Ray."""

from __future__ import annotations

import shlex
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from jaxclf.config_io import differences
from jaxclf.errors import UserError
from jaxclf.io.files import read_json, write_json
from jaxclf.runs.directory import RunDirectory

State = Literal["finished", "failed", "waiting"]
POLL = 0.05  # seconds between two looks at the processes
PATIENCE = 20.0  # seconds a process that is asked to end may take


@dataclass(frozen=True)
class Cell:
    """One run of `train.py`. Plain values: a cell may travel to another machine."""

    row: str
    """What the cell is one seed of: the config and what is set."""
    seed: int
    arguments: tuple[str, ...]
    """Of `train.py`, those of the seed and the directory too."""
    config: Any
    """What they make of the config, as JSON."""
    path: Path
    """Of the run directory."""
    cwd: Path
    """Where `train.py` runs: paths in a config are relative to it."""

    @property
    def directory(self) -> RunDirectory:
        """The files of the run."""
        return RunDirectory(self.path)

    @property
    def output(self) -> Path:
        """What `train.py` prints."""
        return self.path / "output.txt"

    @property
    def failure(self) -> Path:
        """What is known of a run that ended without a result."""
        return self.path / "failure.json"

    @property
    def state(self) -> State:
        """What the run's own files say. A failure of another config is none of this one's."""
        if self.directory.summary.exists() and not differences(read_json(self.directory.config), self.config):
            return "finished"
        if self.failure.exists() and not differences(read_json(self.failure)["config"], self.config):
            return "failed"
        return "waiting"

    @property
    def error(self) -> str:
        """What a run that failed died of."""
        return read_json(self.failure)["error"]

    def check(self) -> None:
        """Raise UserError where the directory holds a run of another config."""
        if self.directory.config.exists():
            changed = differences(read_json(self.directory.config), self.config)
            if changed:
                raise UserError(
                    f"{self.path} holds a run of another config; name another --out, or undo the difference:", changed
                )


def start(cell: Cell, keep_open: Sequence[int] = ()) -> subprocess.Popen:
    """Start the run of a cell, or go on with it. It holds the given files open for as long as it lives."""
    cell.path.mkdir(parents=True, exist_ok=True)
    cell.failure.unlink(missing_ok=True)
    with cell.output.open("w", encoding="utf-8") as output:
        print(f"$ python train.py {shlex.join(cell.arguments)}", file=output, flush=True)
        # In a session of its own a Ctrl-C reaches the benchmark alone, which passes it on.
        return subprocess.Popen(
            [sys.executable, "-m", "jaxclf", "train", *cell.arguments],
            stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
            cwd=cell.cwd, start_new_session=True, pass_fds=keep_open,
        )  # fmt: skip


def finish(cell: Cell, returncode: int) -> None:
    """Note a failure, if the run of a cell ended without a result."""
    if returncode == 0 and cell.state == "finished":
        return
    if returncode < 0:
        note_failure(cell, f"killed by {signal.Signals(-returncode).name}")
    else:
        note_failure(cell, error_line(cell.output.read_text(encoding="utf-8", errors="replace"), returncode))


def note_failure(cell: Cell, error: str) -> None:
    """Write down what the run of a cell died of, so that it is tried again only when asked for."""
    write_json(cell.failure, {"config": cell.config, "error": error})


def error_line(output: str, returncode: int) -> str:
    """The last line of what was printed that says it is an error, or else the last one."""
    lines = [line.strip() for line in output.splitlines()[1:] if line.strip()]
    errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    return f"exit code {returncode}: {[*lines, *errors][-1] if lines else 'it printed nothing'}"


def stop(processes: Sequence[subprocess.Popen]) -> None:
    """Ask processes to end and wait for them; kill those that take too long, or all on a Ctrl-C."""
    for process in processes:
        process.terminate()
    until = time.monotonic() + PATIENCE
    try:
        for process in processes:
            process.wait(max(0.0, until - time.monotonic()))
    except (subprocess.TimeoutExpired, KeyboardInterrupt):
        for process in processes:
            process.kill()


def run_here(cells: Sequence[Cell], jobs: int, lock: int) -> Generator[Cell, None, None]:
    """Run cells, `jobs` at a time; gives each back when it has ended. Closed early, it stops those that run."""
    waiting, running = deque(cells), dict[subprocess.Popen, Cell]()
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                cell = waiting.popleft()
                running[start(cell, (lock,))] = cell
            for process in [process for process in running if process.poll() is not None]:
                cell = running.pop(process)
                finish(cell, process.returncode)
                yield cell
            time.sleep(POLL)
    finally:
        stop(list(running))


def run_one(cell: Cell) -> None:
    """Run one cell to its end."""
    process = start(cell)
    try:
        while process.poll() is None:  # rather than wait(), which Ray cannot interrupt
            time.sleep(POLL)
        finish(cell, process.returncode)
    finally:
        stop([process])


def run_on_ray(cells: Sequence[Cell], jobs: int, address: str) -> Generator[Cell, None, None]:
    """As `run_here`, as tasks of a Ray cluster that sees the same files; `jobs` at a time share a machine of it.

    The address `local` is a cluster of this machine alone, begun for these cells.
    """
    try:
        import ray  # pyright: ignore[reportMissingImports] - an extra
        from ray.exceptions import RayError  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise UserError("--ray needs Ray: pip install 'jaxclf[ray]'") from error
    answer = signal.getsignal(signal.SIGTERM)
    ray.init(address, include_dashboard=False if address == "local" else None, log_to_driver=False, logging_level=40)
    signal.signal(signal.SIGTERM, answer)  # Ray has put its own in place
    machines = [machine["Resources"] for machine in ray.nodes() if machine["Alive"]]
    share = {name: max(machine.get(name, 0) for machine in machines) // jobs for name in ("CPU", "GPU")}
    task = ray.remote(num_cpus=max(share["CPU"], 1), num_gpus=share["GPU"], max_retries=0)(run_one)
    running = {task.remote(cell): cell for cell in cells}
    try:
        while running:
            (done,), _ = ray.wait(list(running), num_returns=1)
            try:
                ray.get(done)
            except RayError as error:
                note_failure(running[done], str(error).strip().splitlines()[-1])
            yield running.pop(done)
    finally:
        for each in running:
            ray.cancel(each)
        ray.wait(list(running), num_returns=len(running), timeout=PATIENCE)
        ray.shutdown()
