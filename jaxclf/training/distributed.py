"""The processes of a run: one, or several that JAX connects before any of them uses a device."""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.multihost_utils import process_allgather, sync_global_devices
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from jaxclf.errors import UserError, require

# Variables that JAX reads under SLURM; a batch script and an interactive shell lack some of them.
SLURM = ("SLURM_JOB_ID", "SLURM_STEP_NODELIST", "SLURM_NTASKS", "SLURM_PROCID", "SLURM_LOCALID")
INDEXED_JOB = ("KUBERNETES_SERVICE_HOST", "JOB_COMPLETION_INDEX")
AUTO = "auto"
GRACE = 5.0  # seconds the other processes have to report the same error before process 0, the coordinator, exits


@dataclass(frozen=True)
class Processes:
    """The processes that train together. By default those that SLURM or Kubernetes has started."""

    coordinator: str | None = None
    """HOST:PORT of process 0, or auto: any cluster that JAX detects."""
    num_processes: int | None = None
    """Number of processes; 1 ignores the cluster."""
    process_id: int | None = None
    """Index of this process, from 0."""

    def __post_init__(self):
        given = (self.coordinator, self.num_processes, self.process_id)
        if self.num_processes == 1 or given in ((None, None, None), (AUTO, None, None)):
            return
        require(
            None not in given,
            f"--coordinator {self.coordinator} --num-processes {self.num_processes} --process-id {self.process_id}: "
            "give all three, or none; docs/scaling.md has examples",
        )
        require(
            bool(re.fullmatch(r".+:\d+", str(self.coordinator))),
            f"coordinator={self.coordinator}: expected HOST:PORT of process 0, or auto",
        )
        count, this = self.num_processes or 0, self.process_id or 0
        require(count > 0, f"num_processes={count}: expected at least 1")
        require(0 <= this < count, f"process_id={this}: expected 0 to {count - 1}")


def count_slurm_tasks() -> int:
    """Return the number of tasks of this SLURM step; 1 outside of SLURM."""
    if any(name not in os.environ for name in SLURM):
        return 1
    # An interactive shell inherits the number of tasks of the allocation, but is only one of them.
    return int(os.environ.get("SLURM_STEP_NUM_TASKS", os.environ["SLURM_NTASKS"]))


def require_single_process(command: str) -> None:
    """Raise UserError if SLURM started several tasks of a command that runs in one process."""
    tasks = count_slurm_tasks()
    require(tasks == 1, f"{command} runs in one process and SLURM started {tasks}; start it by srun --ntasks=1")


def initialize(processes: Processes) -> None:
    """Connect the processes of a run, if there are several. From then on only process 0 prints.

    Must be called before any device is used.

    Raises:
        UserError: If JAX finds no cluster or cannot connect to it.
    """
    arguments = _initialize_arguments(processes)
    if arguments is None:
        return
    # JAX would catch SIGTERM for its own polling: the process should stop by it, as a single process does.
    jax.config.update("jax_enable_preemption_service", False)
    try:
        jax.distributed.initialize(**arguments)
    except Exception as error:  # JAX's, Kubernetes' and the resolver's are of many kinds
        raise UserError(
            f"jax.distributed could not be initialized: {error}\n--num-processes 1 trains alone; see docs/scaling.md"
        ) from error
    sys.excepthook = _exit_with_traceback
    count, here = jax.device_count(), jax.local_device_count()
    print(f"{jax.process_count()} processes, {count} devices, {here} of them here", flush=True)
    if not is_main_process():
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # libraries print too
    barrier()


def _initialize_arguments(processes: Processes) -> dict[str, Any] | None:
    """Return the arguments for JAX: none if it detects the cluster, and None for a single process."""
    if processes.num_processes == 1:
        return None
    if processes.coordinator not in (None, AUTO):
        this = f"process {processes.process_id} of {processes.num_processes}"
        print(f"{this} waits for the others at {processes.coordinator}", flush=True)
        return {
            "coordinator_address": processes.coordinator,
            "num_processes": processes.num_processes,
            "process_id": processes.process_id,
            "cluster_detection_method": "deactivate",
        }
    if processes.coordinator or count_slurm_tasks() > 1 or all(name in os.environ for name in INDEXED_JOB):
        print("waiting for the other processes of the cluster", flush=True)
        return {}
    return None


def is_main_process() -> bool:
    """Return whether this is process 0, which alone writes and prints."""
    return jax.process_index() == 0


@contextmanager
def main_process_first() -> Iterator[None]:
    """Run the block in process 0 first, then in the others, which find what it has prepared."""
    several = jax.process_count() > 1
    if several and not is_main_process():
        barrier()
    yield
    if several and is_main_process():
        barrier()


def barrier() -> None:
    """Wait until every process has called this.

    On CPUs the first collective of a set of devices must be joined within 30 s; later ones wait as long as it takes. So
    the first ones happen here, before any process can be late: with one device of each process, as Orbax uses, and with
    all devices.
    """
    sync_global_devices("meet")
    jax.block_until_ready(_reduce_maximum(1.0))


def _reduce_maximum(value: float) -> jax.Array:
    """Return the maximum of a value over all processes, computed on all devices."""
    mesh = jax.make_mesh((jax.device_count(),), ("all",), axis_types=(AxisType.Auto,))
    values = np.full(jax.local_device_count(), value, np.float32)
    sharded = jax.make_array_from_process_local_data(NamedSharding(mesh, PartitionSpec("all")), values)
    return jax.jit(jnp.max, out_shardings=NamedSharding(mesh, PartitionSpec()))(sharded)


def share_signal(wanted: Callable[[], int]) -> Callable[[], int]:
    """Return a function that gives the signal of any process, or 0; all must call it at the same times.

    With several processes it returns the result of the call before, so that none waits for its devices.
    JAX's `reached_preemption_sync_point` does the same for SIGTERM alone, and needs a service that takes the signal
    from the process.
    """
    if jax.process_count() == 1:
        return wanted
    before: list[jax.Array] = []

    def asked() -> int:
        before.append(_reduce_maximum(wanted()))
        if jax.default_backend() == "cpu":
            before[-1].block_until_ready()  # programs that overlap may deadlock
        return int(before.pop(0)) if len(before) > 1 else 0

    return asked


def all_processes_agree(number: int) -> bool:
    """Return whether a number is the same in every process."""
    return jax.process_count() == 1 or len(np.unique(process_allgather(np.int32(number)))) == 1


def process_prefix() -> str:
    """Return what errors of one of several processes begin with; empty for a single process."""
    return f"process {jax.process_index()}: " if jax.distributed.is_initialized() else ""


def exit_process(code: int) -> None:
    """Exit at once if this is one of several processes: a normal exit would wait for processes that wait for it."""
    if not jax.distributed.is_initialized():
        return
    sys.stdout.flush()
    sys.stderr.flush()
    if is_main_process():
        time.sleep(GRACE)
    os._exit(code)


def _exit_with_traceback(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    sys.__excepthook__(kind, error, trace)
    if isinstance(error, jax.errors.JaxRuntimeError):
        print(
            f"{process_prefix()}if this is about a connection, another process has ended: see its output",
            file=sys.stderr,
        )
    exit_process(1)
