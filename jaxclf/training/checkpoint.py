"""Checkpoints of a run, and which of them are kept. No other file uses Orbax.

`<step>/` holds what Orbax writes, in `state/`, and a manifest. It gets its name when both are complete.
"""

from __future__ import annotations

import errno
import logging
import math
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax

from jaxclf.config_io import find_differences
from jaxclf.errors import UserError
from jaxclf.io.files import sync
from jaxclf.io.manifest import MANIFEST, DamagedError, check_files, read_manifest, write_manifest
from jaxclf.training.distributed import is_main_process

KEEP = 2  # newest checkpoints, besides the best one
STATE = "state"  # what Orbax writes, within a checkpoint
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES)  # errors that prevent writing


@dataclass(frozen=True)
class Saved:
    """One checkpoint: its step, its validation metrics, and the notes of the run."""

    step: int
    metrics: dict[str, float | None]
    notes: dict[str, Any]
    tree: dict[str, str]
    """Dtype and shape of each array, by its path in the state."""


def score(metrics: Mapping[str, Any]) -> float:
    """Return the score of validation metrics: accuracy or, if it is not measured, the negative loss.

    It is minus infinity for a loss that is not finite, which is None in a manifest.
    """
    if "accuracy" in metrics:
        return metrics["accuracy"]
    loss = metrics["loss"]
    return -math.inf if loss is None or not math.isfinite(loss) else -loss


def describe_arrays(tree: Any) -> dict[str, str]:
    """Return dtype and shape of each array of a tree by path: `{".params['logits']['bias']": "float32[10]"}`."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path): f"{leaf.dtype}{list(leaf.shape)}" for path, leaf in leaves}


def choose_best(saved: list[Saved]) -> Saved | None:
    """Return the best checkpoint by validation, the latest of equals; None without validation."""
    scored = [each for each in saved if each.metrics]
    return max(scored, key=lambda each: (score(each.metrics), each.step), default=None)


def read_saved(path: Path, verify: bool = False) -> Saved:
    """Read the manifest of a checkpoint and, with `verify`, check all its files.

    Raises:
        DamagedError: If they are not as they were written.
    """
    content = read_manifest(path)
    if verify:
        check_files(path, content)
    return Saved(content["step"], content["metrics"], content["notes"], content["tree"])


def remove(directory: Path) -> None:
    """Remove an incomplete checkpoint. Other threads of Orbax keep writing for a moment after one has failed."""
    for _ in range(20):
        shutil.rmtree(directory, ignore_errors=True)
        time.sleep(0.05)
        if not directory.exists():
            return


def _describe_cause(error: Exception) -> str:
    """Return the message of the operating system that an error of Orbax quotes, or its first line."""
    text = str(error)
    known = next((os.strerror(code) for code in FULL if os.strerror(code) in text), None)
    return known or f"{type(error).__name__}: {text.splitlines()[0] if text else ''}"


class Checkpoints:
    """The checkpoints in a directory: the newest two, and the best one by validation.

    The best has the highest accuracy or, if that is not among the metrics, the lowest loss.
    """

    def __init__(self, directory: Path, writing: bool = False, about: dict[str, Any] | None = None):
        """Open the directory. All processes of a run open, save and restore together.

        Args:
            directory: The directory of the checkpoints.
            writing: Whether this is the run itself, which removes what an interrupted save has left.
            about: JSON data for every manifest.
        """
        logging.getLogger("absl").setLevel(logging.CRITICAL)  # its errors are raised as well
        self.directory, self.about = directory.absolute(), about or {}
        self._thread = ThreadPoolExecutor(1)
        self._writing: Future[None] | None = None
        if writing and is_main_process():
            self._clear()

    def _clear(self) -> None:
        """Finish or remove what a process left that was killed while saving or removing a checkpoint."""
        for left in sorted(self.directory.glob(".*.partial")) + sorted(self.directory.glob(".*.replaced")):
            whole = self.directory / left.stem.removeprefix(".")
            if (left / MANIFEST).exists() and not whole.exists():
                left.rename(whole)
            else:
                shutil.rmtree(left)
        for path in self._list_paths():
            if not (path / MANIFEST).exists():
                shutil.rmtree(path)

    def _list_paths(self) -> list[Path]:
        """Return the directories of the checkpoints, by step."""
        found = self.directory.iterdir() if self.directory.is_dir() else ()
        return sorted((path for path in found if path.name.isdecimal()), key=lambda path: int(path.name))

    @property
    def saved(self) -> list[Saved]:
        """The checkpoints with a readable manifest, by step."""
        found = []
        for path in self._list_paths():
            with suppress(DamagedError):
                found.append(read_saved(path))
        return found

    @property
    def best(self) -> Saved | None:
        """The best checkpoint by validation, the latest of equals; None without validation."""
        return choose_best(self.saved)

    def save(self, step: int, state: Any, metrics: dict[str, float], notes: dict[str, Any]) -> None:
        """Save a checkpoint in the background. One of the same step is replaced.

        Args:
            step: Optimizer updates done.
            state: The state, on the devices.
            metrics: Validation metrics, or empty.
            notes: JSON data.

        Raises:
            UserError: If the previous checkpoint could not be written.
        """
        import orbax.checkpoint.experimental.v1 as ocp

        self.wait()
        partial = self.directory / f".{step}.partial"
        if is_main_process() and partial.exists():
            shutil.rmtree(partial)
        content = {"step": step, "metrics": metrics, "notes": notes, "tree": describe_arrays(state), **self.about}
        with self._report_failures(step, partial):
            # The next training step reuses this state's memory: Orbax has copied it when this returns.
            response = ocp.save_async(str(partial / STATE), state)
        self._writing = self._thread.submit(self._commit, step, partial, content, response.result)

    def _commit(self, step: int, partial: Path, content: dict[str, Any], written: Callable[[], None]) -> None:
        """Once the arrays are written: write the manifest, rename the directory, and remove old checkpoints."""
        with self._report_failures(step, partial):
            written()
            if not is_main_process():
                return
            write_manifest(partial, content)
            final = self.directory / str(step)
            replaced = self.directory / f".{step}.replaced"
            if final.exists():
                final.rename(replaced)
            partial.rename(final)
            sync(self.directory)
            if replaced.exists():
                shutil.rmtree(replaced)
            self._retain(step)

    def _retain(self, step: int) -> None:
        """Remove all but the best and the newest two, and those after `step`, which a rollback has left."""
        past = [each for each in self.saved if each.step <= step]
        kept = {each.step for each in (*past[-KEEP:], choose_best(past)) if each}
        for path in self._list_paths():
            if int(path.name) not in kept:
                (path / MANIFEST).unlink(missing_ok=True)  # first: a directory without manifest is no checkpoint
                shutil.rmtree(path)

    @contextmanager
    def _report_failures(self, step: int, partial: Path) -> Iterator[None]:
        """Turn errors of Orbax, which are of many types, into a UserError; remove the incomplete checkpoint."""
        try:
            yield
        except Exception as error:
            remove(partial)
            left = [str(each.step) for each in self.saved]
            raise UserError(
                f"the checkpoint of step {step} could not be written to {self.directory}: {_describe_cause(error)}; "
                + (f"saved checkpoints: {', '.join(left)}" if left else "no checkpoint is saved")
            ) from error

    def find(self, which: str) -> Saved:
        """Return a checkpoint whose files are verified.

        Args:
            which: "last" (the newest undamaged one), "best" or a step.

        Raises:
            UserError: If there is no such checkpoint, or it is damaged.
        """
        newest = self.find_newest() if which == "last" else None
        if newest is not None:
            return newest
        if not self._list_paths():
            raise UserError(f"no checkpoint in {self.directory}; train first")
        saved = self.saved
        named = (
            choose_best(saved) if which == "best" else next((each for each in saved if str(each.step) == which), None)
        )
        if named is not None:
            return read_saved(self.directory / str(named.step), verify=True)
        if which == "best":
            raise UserError("no best checkpoint: this run has no validation split; use last")
        steps = ", ".join(str(each.step) for each in saved)
        raise UserError(f"no checkpoint {which!r} in {self.directory}; expected last, best or one of the steps {steps}")

    def find_newest(self) -> Saved | None:
        """Return the newest undamaged checkpoint; None if there is none at all. Damaged ones are reported.

        Raises:
            UserError: If all are damaged.
        """
        items: list[str] = []
        for path in reversed(self._list_paths()):
            try:
                found = read_saved(path, verify=True)
            except DamagedError as error:
                items += [f"{path.name}/{item}" for item in error.items]
                continue
            if items and is_main_process():
                print(f"skipping damaged checkpoints in {self.directory}:", *items, sep="\n  ", file=sys.stderr)
            return found
        if items:
            raise UserError(f"all checkpoints in {self.directory} are damaged; train again in another --workdir", items)
        return None

    def restore(self, saved: Saved, like: Any) -> Any:
        """Restore the state of a checkpoint with the structure, shapes, dtypes and shardings of `like`."""
        import orbax.checkpoint.experimental.v1 as ocp

        def abstract(leaf):
            return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding)

        changed = find_differences(saved.tree, describe_arrays(like))
        if changed:
            raise UserError(
                f"the checkpoint of step {saved.step} in {self.directory} is of another network or optimizer; "
                "its arrays -> expected arrays:",
                changed,
            )
        path = self.directory / str(saved.step) / STATE
        return ocp.load(str(path), jax.tree.map(abstract, like))

    def wait(self) -> None:
        """Wait for the checkpoint being written; raise UserError if that fails."""
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()

    def close(self) -> None:
        """Wait for the checkpoint being written, and stop the thread."""
        try:
            self.wait()
        finally:
            self._thread.shutdown()
