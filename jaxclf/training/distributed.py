"""The processes of a run: one or, brought together by JAX before any of them touches a device, several."""

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

# What JAX reads of SLURM; a batch script and an interactive shell lack some of it.
SLURM = ("SLURM_JOB_ID", "SLURM_STEP_NODELIST", "SLURM_NTASKS", "SLURM_PROCID", "SLURM_LOCALID")
INDEXED_JOB = ("KUBERNETES_SERVICE_HOST", "JOB_COMPLETION_INDEX")
AUTO = "auto"
GRACE = 5.0  # seconds the others have to fail for the same reason, before process 0, which holds them together, ends


@dataclass(frozen=True)
class Processes:
    """The processes that train together. Without any of these, those that SLURM or Kubernetes started are found."""

    coordinator: str | None = None
    """HOST:PORT where process 0 listens for the others; or auto, and JAX looks for any cluster it knows."""
    num_processes: int | None = None
    """How many processes train together; 1 alone, whatever the cluster."""
    process_id: int | None = None
    """Which of them this is, from 0."""

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


def slurm_tasks() -> int:
    """Tasks of the SLURM step this process is one of; 1 outside of any."""
    if any(name not in os.environ for name in SLURM):
        return 1
    # An interactive shell keeps the allocation's number, of which it is only one.
    return int(os.environ.get("SLURM_STEP_NUM_TASKS", os.environ["SLURM_NTASKS"]))


def require_single_process(command: str) -> None:
    """Raise UserError where SLURM started several tasks of a command that runs in one process."""
    tasks = slurm_tasks()
    require(tasks == 1, f"{command} runs in one process and SLURM started {tasks}; start it by srun --ntasks=1")


def initialize(processes: Processes) -> None:
    """Bring the processes of a run together, where there are several, as long as no device has been touched.

    From then on only process 0 prints. Raises UserError where JAX finds no cluster or not all it needs of one.
    """
    arguments = _initialize_arguments(processes)
    if arguments is None:
        return
    # JAX would keep SIGTERM for itself, to be asked about: the process should end by it, as one alone does.
    jax.config.update("jax_enable_preemption_service", False)
    try:
        jax.distributed.initialize(**arguments)
    except Exception as error:  # JAX's, Kubernetes' and the resolver's are of many kinds
        raise UserError(
            f"the processes do not come together: {error}\n--num-processes 1 trains alone; see docs/scaling.md"
        ) from error
    sys.excepthook = _exit_with_traceback
    count, here = jax.device_count(), jax.local_device_count()
    print(f"{jax.process_count()} processes, {count} devices, {here} of them here", flush=True)
    if not is_main_process():
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # libraries print too
    barrier()


def _initialize_arguments(processes: Processes) -> dict[str, Any] | None:
    """What JAX is told; nothing where it finds out itself, and None where there is one process."""
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
    if processes.coordinator or slurm_tasks() > 1 or all(name in os.environ for name in INDEXED_JOB):
        print("waiting for the other processes of the cluster", flush=True)
        return {}
    return None


def is_main_process() -> bool:
    """Whether this is process 0: it alone writes and prints."""
    return jax.process_index() == 0


@contextmanager
def main_process_first() -> Iterator[None]:
    """The block in process 0, then in the others, for which what the first one prepared is there."""
    several = jax.process_count() > 1
    if several and not is_main_process():
        barrier()
    yield
    if several and is_main_process():
        barrier()


def barrier() -> None:
    """Wait until every process has come here.

    CPUs that first compute together must all come within 30 s; from then on they wait as long as it takes. So this is
    done once before there is a reason to be late: with a device of each process, as Orbax waits, and with all.
    """
    sync_global_devices("meet")
    jax.block_until_ready(_global_maximum(1.0))


def _global_maximum(value: float) -> jax.Array:
    """The largest of the values of all processes, as a computation of all devices."""
    mesh = jax.make_mesh((jax.device_count(),), ("all",), axis_types=(AxisType.Auto,))
    values = np.full(jax.local_device_count(), value, np.float32)
    sharded = jax.make_array_from_process_local_data(NamedSharding(mesh, PartitionSpec("all")), values)
    return jax.jit(jnp.max, out_shardings=NamedSharding(mesh, PartitionSpec()))(sharded)


def share_signal(wanted: Callable[[], int]) -> Callable[[], int]:
    """What a process of the run wants, or 0; all must ask at the same times, and get the same answer.

    With several it is that of the time before: so no process waits for what its devices are doing.
    """
    if jax.process_count() == 1:
        return wanted
    before: list[jax.Array] = []

    def asked() -> int:
        before.append(_global_maximum(wanted()))
        if jax.default_backend() == "cpu":
            before[-1].block_until_ready()  # programs that overlap may wait for one another for ever
        return int(before.pop(0)) if len(before) > 1 else 0

    return asked


def all_processes_agree(number: int) -> bool:
    """Whether every process says the same number."""
    return jax.process_count() == 1 or len(np.unique(process_allgather(np.int32(number)))) == 1


def process_prefix() -> str:
    """What a process of several begins its errors with; nothing where there is one."""
    return f"process {jax.process_index()}: " if jax.distributed.is_initialized() else ""


def exit_process(code: int) -> None:
    """End a process that failed, where it is one of several: an ordinary end waits for those that wait for it."""
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
            f"{process_prefix()}where this is about a connection, another process has ended: see what it said",
            file=sys.stderr,
        )
    exit_process(1)
