"""The devices of a run, and the only code that compiles steps: for one device or many."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Integer, PyTree

from jaxclf.errors import UserError
from jaxclf.training.step import Recipe, Stats, TrainState, create_state, eval_step, train_steps
from jaxclf.types import Batch, Logits, Variables
from jaxclf.xla.convolutions import FastConvolutions, fast_convolutions

Parallel = Literal["jit", "pmap"]
AXIS = "data"


@dataclass(frozen=True)
class Devices:
    """The devices a run uses, as one data-parallel axis, and how steps are compiled for them."""

    mesh: Mesh
    parallel: Parallel = "jit"

    @classmethod
    def all(cls, parallel: Parallel = "jit") -> Devices:
        """Every device JAX sees, those of other processes of the run included."""
        if parallel == "pmap" and jax.process_count() > 1:
            raise UserError(
                f"--parallel pmap is for the devices of one process, and this run has {jax.process_count()}; "
                "leave it out: jit gives the same numbers"
            )
        return cls(jax.make_mesh((jax.device_count(),), (AXIS,), axis_types=(AxisType.Auto,)), parallel)

    @property
    def replicated(self) -> NamedSharding:
        """Where state lives: whole, on every device."""
        return NamedSharding(self.mesh, PartitionSpec())

    @property
    def sharded(self) -> NamedSharding:
        """Where a batch lives: rows spread over the devices."""
        return NamedSharding(self.mesh, PartitionSpec(AXIS))

    def rows(self, batch_size: int) -> Integer[np.ndarray, " rows"]:
        """The places in a batch of the rows that this process's devices hold, in the order of the mesh."""
        here = [device.process_index == jax.process_index() for device in self.mesh.devices.flat]
        return np.flatnonzero(np.repeat(here, batch_size // self.mesh.size))

    def replicate(self, tree: PyTree) -> PyTree:
        """Arrays that are the same in every process, as arrays on every device."""
        return jax.make_array_from_process_local_data(self.replicated, jax.tree.map(np.asarray, tree))

    def assemble(self, batch: Batch, sharding: NamedSharding) -> Batch:
        """The whole batch, of which each process gives its own rows; with one process it is whole already."""
        if jax.process_count() == 1:
            return batch
        return jax.make_array_from_process_local_data(sharding, batch)

    def check_batch_size(self, batch_size: int, gradient_accumulation: int = 1) -> None:
        """Raise UserError unless every device and every part of a batch gets as many rows."""
        share = self.mesh.size * gradient_accumulation
        if batch_size % share:
            near = max(batch_size // share, 1) * share
            processes = f" of {jax.process_count()} processes" if jax.process_count() > 1 else ""
            raise UserError(
                f"batch_size={batch_size} does not divide into {self.mesh.size} devices{processes} x "
                f"{gradient_accumulation} gradient_accumulation parts; try {near} or {near + share}"
            )

    def create_state(self, recipe: Recipe, batch: Batch) -> TrainState:
        """The state at step 0, on every device."""
        # Run once, so compiling it well costs more than it saves: 4.4 s against 1.2 s for the 242,062-parameter CNN.
        options = {"xla_backend_optimization_level": 0} if jax.default_backend() == "cpu" else None
        return jax.jit(partial(create_state, recipe, batch), out_shardings=self.replicated, compiler_options=options)()

    def compile_zeros(self, stats: Stats) -> Callable[[], Stats]:
        """Stats of nothing, shaped like these, on every device: a program costs less than to put them there."""
        zeros = partial(jax.tree.map, jnp.zeros_like, jax.eval_shape(lambda: stats))
        return self._one_at_a_time(jax.jit(zeros, out_shardings=self.replicated).lower().compile())

    def compile_train_step(
        self, recipe: Recipe, state: TrainState, batch: Batch, together: int = 1
    ) -> Callable[[TrainState, Batch, int], TrainState]:
        """The train step, compiled ahead of time for batches like this one.

        It takes the state (donated), this process's rows of some batches `together`, [together, b, ...], and how many
        of them count.
        """
        batches = jax.tree.map(lambda x: jax.ShapeDtypeStruct((together, *x.shape), x.dtype), batch)
        if self.parallel == "pmap":
            return self._compile_pmap(recipe, state, batches)
        sharding = NamedSharding(self.mesh, PartitionSpec(None, AXIS))
        compiled = compile_fast(
            partial(train_steps, recipe),
            (state, batches, np.int32(together)),
            in_shardings=(self.replicated, sharding, self.replicated),
            out_shardings=self.replicated,
            donate_argnums=0,
        )
        return self._one_at_a_time(
            lambda state, batches, count: compiled(state, self.assemble(batches, sharding), np.int32(count))
        )

    def _compile_pmap(self, recipe: Recipe, state: TrainState, batches: Batch):
        steps = jax.pmap(
            fast_convolutions(partial(train_steps, recipe, axis=AXIS)),
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
        return self._one_at_a_time(
            lambda state, batches, count: compiled(state, jax.tree.map(fold, batches), np.int32(count))
        )

    def compile_eval_step(self, recipe: Recipe) -> Callable[[Variables, Stats, Batch], tuple[Stats, Logits]]:
        """The eval step; it takes variables, stats so far and this process's rows of a batch.

        The logits are those of the whole batch, in every process.
        """
        compiled = {}  # by the shape of a batch: that of a small split is smaller

        def step(*arguments):
            shape = arguments[-1].images.shape
            if shape not in compiled:
                compiled[shape] = compile_fast(
                    partial(eval_step, recipe),
                    arguments,
                    in_shardings=(self.replicated, self.replicated, self.sharded),
                    out_shardings=self.replicated,
                )
            return compiled[shape](*arguments)

        return self._one_at_a_time(
            lambda variables, stats, batch: step(variables, stats, self.assemble(batch, self.sharded))
        )

    def _one_at_a_time(self, step: Callable) -> Callable:
        """The step, waited for on several virtual CPU devices.

        Their threads are shared: programs that overlap can leave too few to meet in a collective, which waits for ever.
        """
        if jax.default_backend() != "cpu" or self.mesh.size == 1:
            return step
        return lambda *arguments: jax.block_until_ready(step(*arguments))


def keep_compiled(directory: Path | None) -> None:
    """Keep compiled programs in a directory, where one is given, for this process and others.

    They are run as they are read: it should be one that nobody else can write to.
    """
    if directory is not None:
        jax.config.update("jax_compilation_cache_dir", str(directory.absolute()))
        # All of them: a hundred small ones take as long as the step.
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
        jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def compile_fast(function: Callable, arguments: tuple[Any, ...], **options: Any) -> Callable:
    """A function compiled for arguments like these, or of these shapes, with its convolutions as they are fastest.

    `options` are those of `jax.jit`.
    """
    fast = FastConvolutions()
    return jax.jit(partial(fast.run, function), **options).lower(*arguments).compile(fast.compiler_options)
