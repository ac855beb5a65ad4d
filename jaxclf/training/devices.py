"""The devices of a run, and the only code that compiles steps: for one device or many."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Integer, PyTree

from jaxclf.errors import UserError
from jaxclf.training.resident import Input, Resident, has_room, put_on_devices
from jaxclf.training.state import StepSums, TrainState, check_variables, create_state
from jaxclf.training.step import eval_step, sum_statistics, train_steps
from jaxclf.training.step_config import StepConfig
from jaxclf.types import Batch, Logits, Split, Variables
from jaxclf.xla.compilation import FastFunction, compile_fast
from jaxclf.xla.convolutions import rewrite_convolutions

Parallel = Literal["jit", "pmap"]
AXIS = "data"


@dataclass(frozen=True)
class Devices:
    """The devices of a run, as one data-parallel axis, and how steps are compiled for them."""

    mesh: Mesh
    parallel: Parallel = "jit"
    input: Input = "auto"

    @classmethod
    def all(cls, parallel: Parallel = "jit", input: Input = "auto") -> Devices:
        """Return all devices of JAX, including those of other processes of the run."""
        if parallel == "pmap" and jax.process_count() > 1:
            raise UserError(
                f"--parallel pmap is for the devices of one process, and this run has {jax.process_count()}; "
                "leave it out: jit gives the same numbers"
            )
        if parallel == "pmap" and input == "device":
            raise UserError("--input device is for --parallel jit; leave one of them out")
        return cls(jax.make_mesh((jax.device_count(),), (AXIS,), axis_types=(AxisType.Auto,)), parallel, input)

    @property
    def replicated(self) -> NamedSharding:
        """The sharding of state: a copy on every device."""
        return NamedSharding(self.mesh, PartitionSpec())

    @property
    def sharded(self) -> NamedSharding:
        """The sharding of a batch: rows split over the devices."""
        return NamedSharding(self.mesh, PartitionSpec(AXIS))

    @property
    def sharded_steps(self) -> NamedSharding:
        """The sharding of the batches of several steps."""
        return NamedSharding(self.mesh, PartitionSpec(None, AXIS))

    def get_local_rows(self, batch_size: int) -> Integer[np.ndarray, " rows"]:
        """Return the positions in a batch of the rows that the devices of this process hold, in mesh order."""
        here = [device.process_index == jax.process_index() for device in self.mesh.devices.flat]
        return np.flatnonzero(np.repeat(here, batch_size // self.mesh.size))

    def replicate(self, tree: PyTree) -> PyTree:
        """Copy arrays, the same in every process, to every device."""
        return jax.make_array_from_process_local_data(self.replicated, jax.tree.map(np.asarray, tree))

    def keep_images(self, split: Split) -> Resident | None:
        """Copy a training split to every device if it should be there, or return None."""
        wanted = self.input == "device" or (self.input == "auto" and self.parallel == "jit" and has_room(split))
        return put_on_devices(split, self.replicated) if wanted else None

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
        if init is not None:
            check_variables(step_config, batch, init)
            init = self.replicate(jax.device_get(init))
        # Run once, so compiling it well costs more than it saves: 4.4 s against 1.2 s for the 242,062-parameter CNN.
        options = {"xla_backend_optimization_level": 0} if jax.default_backend() == "cpu" else None
        create = jax.jit(
            partial(create_state, step_config, batch), out_shardings=self.replicated, compiler_options=options
        )
        return create(init)

    def compile_zeros(self, stats: StepSums) -> Callable[[], StepSums]:
        """Compile zero-initialized sums shaped like these: a program costs less than a transfer to every device."""
        zeros = partial(jax.tree.map, jnp.zeros_like, jax.eval_shape(lambda: stats))
        return self._wait_on_cpu(jax.jit(zeros, out_shardings=self.replicated).lower().compile())

    def compile_train_step(
        self,
        step_config: StepConfig,
        state: TrainState,
        batch: Batch,
        together: int = 1,
        resident: Resident | None = None,
    ) -> Callable[[TrainState, Batch, int], TrainState]:
        """Compile the training step ahead of time.

        Args:
            step_config: What the step does.
            state: The state, or its shapes.
            batch: The shapes of one batch.
            together: Batches of one execution.
            resident: The images that batches have the indices of, or None.

        Returns:
            A function of the state (donated), this process's rows of some batches [together, b, ...], and how many of
            these batches to train on; it returns the new state.
        """
        if resident is not None:
            batch = Batch(jax.ShapeDtypeStruct(batch.mask.shape, np.int32), (), batch.mask)
        batches = _stack_shapes(batch, together)
        if self.parallel == "pmap":
            return self._compile_pmap(step_config, state, batches)
        if jax.default_backend() != "cpu":
            return self._compile_static(step_config, state, batch, together, resident)
        compiled = self._compile_steps(partial(train_steps, step_config), (state, batches, resident, np.int32(1)))

        def run(state: TrainState, batches: Batch, count: int) -> TrainState:
            return compiled(state, self.assemble(batches, self.sharded_steps), resident, np.int32(count))

        return self._wait_on_cpu(run)

    def _compile_static(
        self, step_config: StepConfig, state: TrainState, batch: Batch, together: int, resident: Resident | None
    ) -> Callable[[TrainState, Batch, int], TrainState]:
        """Compile `together` steps and, when they are needed, single ones.

        An accelerator waits for the host after each iteration of a loop whose length is not known.
        """

        @cache
        def compile_count(count: int) -> Callable:
            steps = partial(train_steps, step_config, count=count)
            return self._compile_steps(steps, (state_shapes, _stack_shapes(batch, count), resident))

        def run(state: TrainState, batches: Batch, count: int) -> TrainState:
            if count == together:
                return compile_count(together)(state, self.assemble(batches, self.sharded_steps), resident)
            for i in range(count):
                one = jax.tree.map(lambda x, i=i: x[i : i + 1], batches)
                state = compile_count(1)(state, self.assemble(one, self.sharded_steps), resident)
            return state

        state_shapes = jax.eval_shape(lambda: state)
        compile_count(together)
        return run

    def _compile_steps(self, steps: Callable, arguments: tuple[Any, ...]) -> Callable:
        """Compile steps of the state, batches and what is on every device."""
        others = (self.replicated,) * (len(arguments) - 2)
        shardings = self.replicated, self.sharded_steps, *others
        return compile_fast(steps, arguments, in_shardings=shardings, out_shardings=self.replicated, donate_argnums=0)

    def _compile_pmap(self, step_config: StepConfig, state: TrainState, batches: Batch):
        steps = jax.pmap(
            rewrite_convolutions(partial(train_steps, step_config, axis=AXIS)),
            axis_name=AXIS,
            in_axes=(None, 1, None, None),
            out_axes=None,
            donate_argnums=0,
            devices=list(self.mesh.devices.flat),
        )

        def fold(leaf):
            shape = (len(leaf), self.mesh.size, leaf.shape[1] // self.mesh.size, *leaf.shape[2:])
            return leaf.reshape(shape) if hasattr(leaf, "reshape") else jax.ShapeDtypeStruct(shape, leaf.dtype)

        compiled = steps.lower(state, jax.tree.map(fold, batches), None, np.int32(1)).compile()
        return self._wait_on_cpu(
            lambda state, batches, count: compiled(state, jax.tree.map(fold, batches), None, np.int32(count))
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


def _stack_shapes(batch: Batch, steps: int) -> Batch:
    """Return the shapes of the batches of several steps."""
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct((steps, *x.shape), x.dtype), batch)
