"""Cells of a benchmark: training runs in subprocesses, several at a time, on this machine or on Ray."""

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

from jaxclf.config_io import find_differences
from jaxclf.errors import UserError
from jaxclf.io.files import read_json, write_json
from jaxclf.runs.directory import RunDirectory

State = Literal["finished", "failed", "waiting"]
POLL_INTERVAL = 0.05  # seconds
TERMINATION_TIMEOUT = 20.0  # seconds from SIGTERM to SIGKILL


@dataclass(frozen=True)
class Cell:
    """One training run of a benchmark. Its fields are plain values, so that it can be sent to another machine."""

    variant: str
    """Name of the config and its setting."""
    seed: int
    arguments: tuple[str, ...]
    """Command-line arguments of `jaxclf train`, seed and run directory included."""
    config: Any
    """The resulting config, as JSON."""
    path: Path
    """Run directory."""
    cwd: Path
    """Working directory of the run, which relative paths in the config refer to."""

    @property
    def directory(self) -> RunDirectory:
        """The files of the run."""
        return RunDirectory(self.path)

    @property
    def output(self) -> Path:
        """File with the output of the run."""
        return self.path / "output.txt"

    @property
    def failure(self) -> Path:
        """File with the error of a failed run."""
        return self.path / "failure.json"

    @property
    def state(self) -> State:
        """State according to the files of the run. Results and failures of another config do not count."""
        if self.directory.summary.exists() and not self.directory.find_differences(self.config):
            return "finished"
        if self.failure.exists() and not find_differences(read_json(self.failure)["config"], self.config):
            return "failed"
        return "waiting"

    @property
    def error(self) -> str:
        """Error message of a failed run."""
        return read_json(self.failure)["error"]

    def check(self) -> None:
        """Raise UserError if the directory holds a run of another config."""
        if self.directory.config.exists():
            changed = self.directory.find_differences(self.config)
            if changed:
                raise UserError(
                    f"{self.path} holds a run of another config; name another --out, or undo the difference:", changed
                )


def run_locally(cells: Sequence[Cell], jobs: int, lock: int) -> Generator[Cell, None, None]:
    """Run cells on this machine, `jobs` at a time, and yield each when it ends.

    Args:
        cells: The cells to run.
        jobs: Number of subprocesses at a time.
        lock: File descriptor that the subprocesses inherit, so that the lock of the benchmark outlives it with them.

    Yields:
        Each cell, after its result or failure is written. Closing the generator stops the runs in progress.
    """
    waiting, running = deque(cells), dict[subprocess.Popen, Cell]()
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                cell = waiting.popleft()
                running[_start(cell, (lock,))] = cell
            for process in [process for process in running if process.poll() is not None]:
                cell = running.pop(process)
                record_outcome(cell, process.returncode)
                yield cell
            time.sleep(POLL_INTERVAL)
    finally:
        _stop(list(running))


def run_on_ray(cells: Sequence[Cell], jobs: int, address: str) -> Generator[Cell, None, None]:
    """Run cells as tasks of a Ray cluster with a shared file system, and yield each when it ends.

    Args:
        cells: The cells to run.
        jobs: Number of tasks at a time on one machine; each reserves that part of its CPUs and GPUs.
        address: Address of the cluster; `local` starts one on this machine.

    Yields:
        Each cell, after its result or failure is written. Closing the generator stops the runs in progress.

    Raises:
        UserError: If Ray is not installed.
    """
    try:
        import ray  # pyright: ignore[reportMissingImports] - an extra
        from ray.exceptions import RayError  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise UserError("--ray needs Ray: pip install 'jaxclf[ray]'") from error
    handler = signal.getsignal(signal.SIGTERM)
    ray.init(address, include_dashboard=False if address == "local" else None, log_to_driver=False, logging_level=40)
    signal.signal(signal.SIGTERM, handler)  # ray.init installs a handler of its own
    machines = [machine["Resources"] for machine in ray.nodes() if machine["Alive"]]
    cpus, gpus = (max(machine.get(name, 0) for machine in machines) for name in ("CPU", "GPU"))
    task = ray.remote(num_cpus=max(cpus // jobs, 1), num_gpus=share_gpus(gpus, jobs), max_retries=0)(_run_one)
    running = {task.remote(cell): cell for cell in cells}
    try:
        while running:
            (done,), _ = ray.wait(list(running), num_returns=1)
            try:
                ray.get(done)
            except RayError as error:
                _record_failure(running[done], str(error).strip().splitlines()[-1])
            yield running.pop(done)
    finally:
        for each in running:
            ray.cancel(each)
        ray.wait(list(running), num_returns=len(running), timeout=TERMINATION_TIMEOUT)
        ray.shutdown()


def share_gpus(gpus: float, jobs: int) -> float:
    """Return how many GPUs each task reserves.

    Args:
        gpus: Number of GPUs of a machine.
        jobs: Number of tasks at a time on it.

    Returns:
        A whole number or, with more tasks than GPUs, the part of one GPU: a task of Ray has no parts of several. Ray
        rounds to four digits, so the part is rounded down to them.
    """
    if gpus >= jobs or not gpus:
        return gpus // jobs
    tasks = -(-jobs // gpus)  # on each GPU
    return 10_000 // tasks / 10_000


def _run_one(cell: Cell) -> None:
    """Run one cell and wait for it."""
    process = _start(cell)
    try:
        while process.poll() is None:  # not process.wait(): Ray could not cancel it
            time.sleep(POLL_INTERVAL)
        record_outcome(cell, process.returncode)
    finally:
        _stop([process])


def _start(cell: Cell, inherited_files: Sequence[int] = ()) -> subprocess.Popen:
    """Start or resume the run of a cell in a subprocess that inherits some file descriptors."""
    cell.path.mkdir(parents=True, exist_ok=True)
    cell.failure.unlink(missing_ok=True)
    with cell.output.open("w", encoding="utf-8") as output:
        print(f"$ jaxclf train {shlex.join(cell.arguments)}", file=output, flush=True)
        # Programs of other cells are not read: the tables have compilation times.
        # In its own session the run does not receive the Ctrl-C; the benchmark passes it on.
        return subprocess.Popen(
            [sys.executable, "-m", "jaxclf", "train", *cell.arguments, "--compilation-cache", "off"],
            stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
            cwd=cell.cwd, start_new_session=True, pass_fds=inherited_files,
        )  # fmt: skip


def _stop(processes: Sequence[subprocess.Popen]) -> None:
    """Terminate processes and wait for them; kill those that take too long, and all of them on Ctrl-C."""
    for process in processes:
        process.terminate()
    until = time.monotonic() + TERMINATION_TIMEOUT
    try:
        for process in processes:
            process.wait(max(0.0, until - time.monotonic()))
    except (subprocess.TimeoutExpired, KeyboardInterrupt):
        for process in processes:
            process.kill()


def record_outcome(cell: Cell, returncode: int) -> None:
    """Record a failure if the run of a cell ended without a result."""
    if returncode == 0 and cell.state == "finished":
        return
    if returncode < 0:
        _record_failure(cell, f"killed by {signal.Signals(-returncode).name}")
    else:
        _record_failure(cell, find_error_line(cell.output.read_text(encoding="utf-8", errors="replace"), returncode))


def _record_failure(cell: Cell, error: str) -> None:
    """Write the error of a failed run, which is then repeated only with `--retry`."""
    write_json(cell.failure, {"config": cell.config, "error": error})


def find_error_line(output: str, returncode: int) -> str:
    """Return the exit code and the last line of the output that begins with "error: ", or else its last line."""
    lines = [line.strip() for line in output.splitlines()[1:] if line.strip()]
    errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    return f"exit code {returncode}: {[*lines, *errors][-1] if lines else 'no output'}"
