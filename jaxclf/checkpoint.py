"""Checkpoints of a run. The only file that knows Orbax."""

from __future__ import annotations

import logging
import shutil
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax

from jaxclf.types import UserError

KEEP = 2  # the newest checkpoints, beside the best


@dataclass(frozen=True)
class Saved:
    """One checkpoint: its step, and the validation metrics it can be chosen by."""

    step: int
    metrics: dict[str, float]


def score(metrics: dict[str, float]) -> float:
    """What the best checkpoint has most of: accuracy or, where that is not measured, the least loss."""
    return metrics["accuracy"] if "accuracy" in metrics else -metrics["loss"]


def shapes(tree: Any) -> Counter[tuple[int, ...]]:
    """The shapes of the arrays of a tree, and how often each is there."""
    return Counter(tuple(leaf.shape) for leaf in jax.tree.leaves(tree))


class Checkpoints:
    """The checkpoints under a directory: the newest two, and the best by validation where there is any.

    The best has the highest accuracy or, where that is not among the metrics, the lowest loss.
    """

    def __init__(self, directory: Path, writing: bool = False):
        """Open the directory. `writing` is for the run itself: what an interrupted save left is removed.

        Every process of a run opens, saves and restores together; of arrays that are the same in all, one writes.
        """
        import orbax.checkpoint.experimental.v1 as ocp

        logging.getLogger("absl").setLevel(logging.ERROR)
        self.directory = directory.absolute()
        keep = ocp.training.preservation_policies
        for leftover in self.directory.glob("*.orbax-checkpoint-tmp*") if writing and jax.process_index() == 0 else ():
            shutil.rmtree(leftover)  # Orbax's own way is a thread that complains when the program ends early
        # Typed Any: the annotations of this young API do not fit one another.
        checkpointer: Any = ocp.training.Checkpointer
        self._orbax: Any = checkpointer(
            self.directory,
            save_decision_policy=ocp.training.save_decision_policies.FixedIntervalPolicy(1),
            preservation_policy=keep.AnyPreservationPolicy(
                [
                    keep.LatestN(KEEP),
                    keep.BestN(get_metric_fn=score, n=1, keep_checkpoints_without_metrics=False),
                ]
            ),
        )

    @property
    def saved(self) -> list[Saved]:
        """What is there, by step."""
        return [Saved(each.step, dict(each.metrics or {})) for each in self._orbax.checkpoints]

    def notes(self, step: int) -> dict[str, Any]:
        """What was noted with the checkpoint of a step."""
        return dict(self._orbax.checkpointables_metadata(step).custom_metadata or {})

    def save(self, step: int, state: Any, metrics: dict[str, float], notes: dict[str, Any]) -> None:
        """Write the state and notes (JSON) in the background. `metrics` are those of validation, or empty."""
        # The train step is given this state's memory next: Orbax has copied it when this returns.
        self._orbax.save_async(step, state, metrics=metrics or None, custom_metadata=notes)

    @property
    def best(self) -> Saved | None:
        """The best by validation, the latest of equals; None where nothing was validated."""
        scored = [each for each in self.saved if each.metrics]
        return max(scored, key=lambda each: (score(each.metrics), each.step), default=None)

    def find(self, which: str) -> Saved:
        """The checkpoint named `last`, `best` or by its step; raises UserError where there is none."""
        saved = self.saved
        if not saved:
            raise UserError(f"no checkpoint under {self.directory}; train first")
        if which == "last":
            return saved[-1]
        if which == "best":
            if self.best is None:
                raise UserError("no best checkpoint: this run had no validation images to choose by; use last")
            return self.best
        for each in saved:
            if str(each.step) == which:
                return each
        steps = ", ".join(str(each.step) for each in saved)
        raise UserError(f"no checkpoint {which!r} under {self.directory}; there are last, best and the steps {steps}")

    def restore(self, step: int, like: Any) -> Any:
        """The state saved at a step. `like` has its structure, shapes, dtypes and shardings."""

        def abstract(leaf):
            return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding)

        saved = self._orbax.checkpointables_metadata(step).metadata["state"]
        if shapes(saved) != shapes(like):
            raise UserError(
                f"the checkpoint of step {step} under {self.directory} is of another network: it has arrays of "
                f"shapes {sorted(shapes(saved) - shapes(like))} where {sorted(shapes(like) - shapes(saved))} belong"
            )
        try:
            return self._orbax.load(step, jax.tree.map(abstract, like))
        except Exception as error:  # Orbax's errors for damage are of many kinds
            steps = ", ".join(str(each.step) for each in self.saved)
            raise UserError(
                f"the checkpoint of step {step} under {self.directory} is damaged ({type(error).__name__}); "
                f"there are the steps {steps}"
            ) from error

    def wait(self) -> None:
        """Wait for what is being written."""
        self._orbax.wait()

    def close(self) -> None:
        """Wait for what is being written, and let go of the directory."""
        self._orbax.close()
