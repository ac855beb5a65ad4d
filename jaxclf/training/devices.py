"""The devices of a run, and the only code that compiles steps: for one device or many."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Integer, PyTree

from jaxclf.errors import UserError
from jaxclf.training.state import StepSums, TrainState, create_state, set_variables
from jaxclf.training.step import eval_step, sum_statistics, train_steps
from jaxclf.training.step_config import StepConfig
from jaxclf.types import Batch, Logits, Variables
from jaxclf.xla.convolutions import FastConvolutions, rewrite_convolutions

Parallel = Literal["jit", "pmap"]
AXIS = "data"


@dataclass(frozen=True)
class Devices:
    """The devices of a run, as one data-parallel axis, and how steps are compiled for them."""

    mesh: Mesh
    parallel: Parallel = "jit"

    @classmethod
    def all(cls, parallel: Parallel = "jit") -> Devices:
        """Return all devices of JAX, including those of other processes of the run."""
        if parallel == "pmap" and jax.process_count() > 1:
            raise UserError(
                f"--parallel pmap is for the devices of one process, and this run has {jax.process_count()}; "
                "leave it out: jit gives the same numbers"
            )
        return cls(jax.make_mesh((jax.device_count(),), (AXIS,), axis_types=(AxisType.Auto,)), parallel)

    @property
    def replicated(self) -> NamedSharding:
        """The sharding of state: a copy on every device."""
        return NamedSharding(self.mesh, PartitionSpec())

    @property
    def sharded(self) -> NamedSharding:
        """The sharding of a batch: rows split over the devices."""
        return NamedSharding(self.mesh, PartitionSpec(AXIS))

    def get_local_rows(self, batch_size: int) -> Integer[np.ndarray, " rows"]:
        """Return the positions in a batch of the rows that the devices of this process hold, in mesh order."""
        here = [device.process_index == jax.process_index() for device in self.mesh.devices.flat]
        return np.flatnonzero(np.repeat(here, batch_size // self.mesh.size))

    def replicate(self, tree: PyTree) -> PyTree:
        """Copy arrays, the same in every process, to every device."""
        return jax.make_array_from_process_local_data(self.replicated, jax.tree.map(np.asarray, tree))

    def assemble(self, batch: Batch, sharding: NamedSharding) -> Batch:
        """Assemble a batch, of which each process gives its own rows."""
        if jax.process_count() == 1:
            return batch
        return jax.make_array_from_process_local_data(sharding, batch)

    def check_batch_size(self, batch_size: int, gradient_accumulation: int = 1) -> None:
        """Raise UserError unless the batch size is divisible by the devices and the accumulation parts."""
        share = self.mesh.size * gradient_accumulation
        if batch_size % share:
            near = max(batch_size // share, 1) * share
            processes = f" of {jax.process_count()} processes" if jax.process_count() > 1 else ""
            raise UserError(
                f"batch_size={batch_size} does not divide into {self.mesh.size} devices{processes} x "
                f"{gradient_accumulation} gradient_accumulation parts; try {near} or {near + share}"
            )

    def create_state(self, step_config: StepConfig, batch: Batch, init: Variables | None = None) -> TrainState:
        """Return the state at step 0, on every device, with the variables `init` if they are given."""
        # Run once, so compiling it well costs more than it saves: 4.4 s against 1.2 s for the 242,062-parameter CNN.
        options = {"xla_backend_optimization_level": 0} if jax.default_backend() == "cpu" else None
        create = jax.jit(
            partial(create_state, step_config, batch), out_shardings=self.replicated, compiler_options=options
        )
        state = create()
        return state if init is None else self.replicate(set_variables(step_config, state, jax.device_get(init)))

    def compile_zeros(self, stats: StepSums) -> Callable[[], StepSums]:
        """Compile zero-initialized sums shaped like these: a program costs less than a transfer to every device."""
        zeros = partial(jax.tree.map, jnp.zeros_like, jax.eval_shape(lambda: stats))
        return self._wait_on_cpu(jax.jit(zeros, out_shardings=self.replicated).lower().compile())

    def compile_train_step(
        self, step_config: StepConfig, state: TrainState, batch: Batch, together: int = 1
    ) -> Callable[[TrainState, Batch, int], TrainState]:
        """Compile the training step ahead of time.

        Args:
            step_config: What the step does.
            state: The state, or its shapes.
            batch: The shapes of one batch.
            together: Batches of one execution.

        Returns:
            A function of the state (donated), this process's rows of some batches [together, b, ...], and how many of
            these batches to train on; it returns the new state.
        """
        batches = jax.tree.map(lambda x: jax.ShapeDtypeStruct((together, *x.shape), x.dtype), batch)
        if self.parallel == "pmap":
            return self._compile_pmap(step_config, state, batches)
        sharding = NamedSharding(self.mesh, PartitionSpec(None, AXIS))
        compiled = compile_fast(
            partial(train_steps, step_config),
            (state, batches, np.int32(together)),
            in_shardings=(self.replicated, sharding, self.replicated),
            out_shardings=self.replicated,
            donate_argnums=0,
        )
        return self._wait_on_cpu(
            lambda state, batches, count: compiled(state, self.assemble(batches, sharding), np.int32(count))
        )

    def _compile_pmap(self, step_config: StepConfig, state: TrainState, batches: Batch):
        steps = jax.pmap(
            rewrite_convolutions(partial(train_steps, step_config, axis=AXIS)),
            axis_name=AXIS,
            in_axes=(None, 1, None),
            out_axes=None,
            donate_argnums=0,
            devices=list(self.mesh.devices.flat),
        )

        def fold(leaf):
            shape = (len(leaf), self.mesh.size, leaf.shape[1] // self.mesh.size, *leaf.shape[2:])
            return leaf.reshape(shape) if hasattr(leaf, "reshape") else jax.ShapeDtypeStruct(shape, leaf.dtype)

        compiled = steps.lower(state, jax.tree.map(fold, batches), np.int32(1)).compile()
        return self._wait_on_cpu(
            lambda state, batches, count: compiled(state, jax.tree.map(fold, batches), np.int32(count))
        )

    def compile_eval_step(
        self, step_config: StepConfig
    ) -> Callable[[Variables, StepSums, Batch], tuple[StepSums, Logits]]:
        """Compile the evaluation step for every batch shape it meets.

        Returns:
            A function of variables, earlier sums and this process's rows of a batch; it returns the new sums and the
            logits of the whole batch, in every process.
        """
        step = FastFunction(  # a small split has smaller batches
            partial(eval_step, step_config),
            in_shardings=(self.replicated, self.replicated, self.sharded),
            out_shardings=self.replicated,
        )
        return self._wait_on_cpu(
            lambda variables, stats, batch: step(variables, stats, self.assemble(batch, self.sharded))
        )

    def compile_statistics(
        self, step_config: StepConfig, variables: Variables, batch: Batch
    ) -> Callable[[Variables, Batch], Variables]:
        """Compile the sums that precise statistics of batch normalization are computed from.

        Args:
            step_config: The model.
            variables: Its variables, or their shapes.
            batch: The shapes of one batch.

        Returns:
            A function of variables and this process's rows of a batch; it returns the sums of the whole batch.
        """
        compiled = compile_fast(
            partial(sum_statistics, step_config),
            (variables, batch),
            in_shardings=(self.replicated, self.sharded),
            out_shardings=self.replicated,
        )
        return self._wait_on_cpu(lambda variables, batch: compiled(variables, self.assemble(batch, self.sharded)))

    def _wait_on_cpu(self, step: Callable) -> Callable:
        """Wait for each call of the step on several virtual CPU devices.

        Their threads are shared: programs that overlap can leave too few for a collective, which then waits forever.
        """
        if jax.default_backend() != "cpu" or self.mesh.size == 1:
            return step
        return lambda *arguments: jax.block_until_ready(step(*arguments))


class FastFunction:
    """A function that is compiled, with `compile_fast`, for each shape and type of its last argument it meets."""

    def __init__(self, function: Callable, **options: Any):
        """Take a function, and options of `jax.jit`."""
        self.function, self.options = function, options
        self._compiled: dict[Any, Callable] = {}

    def __call__(self, *arguments: Any) -> Any:
        """Call the function, which is compiled first if the last argument has a new shape."""
        shapes = tuple((leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(arguments[-1]))
        if shapes not in self._compiled:
            self._compiled[shapes] = compile_fast(self.function, arguments, **self.options)
        return self._compiled[shapes](*arguments)


def compile_fast(function: Callable, arguments: tuple[Any, ...], **options: Any) -> Callable:
    """A function compiled for arguments like these, or of these shapes, with its convolutions as they are fastest.

    `options` are those of `jax.jit`.
    """
    fast = FastConvolutions()
    return jax.jit(partial(fast.run, function), **options).lower(*arguments).compile(fast.compiler_options)
