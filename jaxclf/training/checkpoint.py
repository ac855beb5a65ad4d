"""Checkpoints of a run, and which of them are kept. The only file that knows Orbax.

`<step>/` has what Orbax writes, in `state/`, and a manifest. It takes its name when both are whole.
"""

from __future__ import annotations

import errno
import logging
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax

from jaxclf.config_io import differences
from jaxclf.errors import UserError
from jaxclf.io.files import sync
from jaxclf.io.manifest import MANIFEST, DamagedError, check_files, read_manifest, write_manifest
from jaxclf.training.distributed import is_main_process

KEEP = 2  # the newest checkpoints, beside the best
STATE = "state"  # what Orbax writes, within a checkpoint
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES)  # what keeps a file from being written


@dataclass(frozen=True)
class Saved:
    """One checkpoint: its step, the validation metrics it can be chosen by, and what was noted with it."""

    step: int
    metrics: dict[str, float]
    notes: dict[str, Any]
    tree: dict[str, str]
    """Type and shape of each array, by its place in the state."""


def score(metrics: dict[str, float]) -> float:
    """What the best checkpoint has most of: accuracy or, where that is not measured, the least loss."""
    return metrics["accuracy"] if "accuracy" in metrics else -metrics["loss"]


def described(tree: Any) -> dict[str, str]:
    """Type and shape of each array of a tree, by its place: `{".params['logits']['bias']": "float32[10]"}`."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path): f"{leaf.dtype}{list(leaf.shape)}" for path, leaf in leaves}


def best_of(saved: list[Saved]) -> Saved | None:
    """The best by validation, the latest of equals; None where nothing was validated."""
    scored = [each for each in saved if each.metrics]
    return max(scored, key=lambda each: (score(each.metrics), each.step), default=None)


def read(path: Path, verify: bool = False) -> Saved:
    """What a checkpoint says of itself; raises DamagedError unless its manifest is as it was written.

    With `verify` all its files must be, too.
    """
    content = read_manifest(path)
    if verify:
        check_files(path, content)
    return Saved(content["step"], content["metrics"], content["notes"], content["tree"])


def remove(directory: Path) -> None:
    """Remove what could not be written. Other threads of Orbax write on for a moment after the one that failed."""
    for _ in range(20):
        shutil.rmtree(directory, ignore_errors=True)
        time.sleep(0.05)
        if not directory.exists():
            return


def reason(error: Exception) -> str:
    """What the system says of an error, where Orbax quotes it between other things; or its first line."""
    text = str(error)
    known = next((os.strerror(code) for code in FULL if os.strerror(code) in text), None)
    return known or f"{type(error).__name__}: {text.splitlines()[0] if text else ''}"


class Checkpoints:
    """The checkpoints under a directory: the newest two, and the best by validation where there is any.

    The best has the highest accuracy or, where that is not among the metrics, the lowest loss.
    """

    def __init__(self, directory: Path, writing: bool = False, about: dict[str, Any] | None = None):
        """Open the directory. `writing` is for the run itself: what an interrupted save left is removed.

        Every process of a run opens, saves and restores together, and writes a share of each array.
        `about` (JSON) is put into every manifest.
        """
        logging.getLogger("absl").setLevel(logging.CRITICAL)  # errors are raised too
        self.directory, self.about = directory.absolute(), about or {}
        self._thread = ThreadPoolExecutor(1)
        self._writing: Future[None] | None = None
        if writing and is_main_process():
            self._clear()

    def _clear(self) -> None:
        """Finish or remove what was left by a process that ended while it saved or removed."""
        for left in sorted(self.directory.glob(".*.partial")) + sorted(self.directory.glob(".*.replaced")):
            whole = self.directory / left.stem.removeprefix(".")
            if (left / MANIFEST).exists() and not whole.exists():
                left.rename(whole)
            else:
                shutil.rmtree(left)
        for path in self._paths():
            if not (path / MANIFEST).exists():
                shutil.rmtree(path)

    def _paths(self) -> list[Path]:
        """The directories of checkpoints, by step."""
        found = self.directory.iterdir() if self.directory.is_dir() else ()
        return sorted((path for path in found if path.name.isdecimal()), key=lambda path: int(path.name))

    @property
    def saved(self) -> list[Saved]:
        """What is there, by step, as far as manifests can be read."""
        found = []
        for path in self._paths():
            with suppress(DamagedError):
                found.append(read(path))
        return found

    @property
    def best(self) -> Saved | None:
        """The best by validation, the latest of equals; None where nothing was validated."""
        return best_of(self.saved)

    def save(self, step: int, state: Any, metrics: dict[str, float], notes: dict[str, Any]) -> None:
        """Write the state and notes (JSON) in the background. `metrics` are those of validation, or empty.

        A checkpoint of the same step is replaced. Raises UserError where the one before could not be written.
        """
        import orbax.checkpoint.experimental.v1 as ocp

        self.wait()
        partial = self.directory / f".{step}.partial"
        if is_main_process() and partial.exists():
            shutil.rmtree(partial)
        content = {"step": step, "metrics": metrics, "notes": notes, "tree": described(state), **self.about}
        with self._explained(step, partial):
            # The train step is given this state's memory next: Orbax has copied it when this returns.
            response = ocp.save_async(str(partial / STATE), state)
        self._writing = self._thread.submit(self._commit, step, partial, content, response.result)

    def _commit(self, step: int, partial: Path, content: dict[str, Any], written: Callable[[], None]) -> None:
        """Once the arrays are written: note what the files are, give them their name, and remove what is not kept."""
        with self._explained(step, partial):
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
        """Remove all but the best and the newest two; what is newer than `step` was gone back behind."""
        past = [each for each in self.saved if each.step <= step]
        kept = {each.step for each in (*past[-KEEP:], best_of(past)) if each}
        for path in self._paths():
            if int(path.name) not in kept:
                (path / MANIFEST).unlink(missing_ok=True)  # first: what has none does not count
                shutil.rmtree(path)

    @contextmanager
    def _explained(self, step: int, partial: Path) -> Iterator[None]:
        """Remove what could not be written, and say what is there; Orbax's errors are of many kinds."""
        try:
            yield
        except Exception as error:
            remove(partial)
            left = [str(each.step) for each in self.saved]
            raise UserError(
                f"the checkpoint of step {step} could not be written under {self.directory}: {reason(error)}; "
                + (f"there are the steps {', '.join(left)}" if left else "there is none")
            ) from error

    def find(self, which: str) -> Saved:
        """The checkpoint named `last`, `best` or by its step, once its files are found to be as they were written.

        Where they are not, `last` is the newest that is (`newest`), and the others raise UserError.
        """
        newest = self.newest() if which == "last" else None
        if newest is not None:
            return newest
        if not self._paths():
            raise UserError(f"no checkpoint under {self.directory}; train first")
        saved = self.saved
        named = best_of(saved) if which == "best" else next((each for each in saved if str(each.step) == which), None)
        if named is not None:
            return read(self.directory / str(named.step), verify=True)
        if which == "best":
            raise UserError("no best checkpoint: this run had no validation images to choose by; use last")
        steps = ", ".join(str(each.step) for each in saved)
        raise UserError(f"no checkpoint {which!r} under {self.directory}; there are last, best and the steps {steps}")

    def newest(self) -> Saved | None:
        """The newest checkpoint whose files are as they were written; None where there is none at all.

        Damaged ones are named. Raises UserError where all are.
        """
        items: list[str] = []
        for path in reversed(self._paths()):
            try:
                found = read(path, verify=True)
            except DamagedError as error:
                items += [f"{path.name}/{item}" for item in error.items]
                continue
            if items:
                print(
                    f"damaged checkpoints under {self.directory} are passed over:", *items, sep="\n  ", file=sys.stderr
                )
            return found
        if items:
            raise UserError(f"no checkpoint under {self.directory} is whole; train anew in another --workdir", items)
        return None

    def restore(self, saved: Saved, like: Any) -> Any:
        """The state of a checkpoint that `find` gave. `like` has its structure, shapes, dtypes and shardings."""
        import orbax.checkpoint.experimental.v1 as ocp

        def abstract(leaf):
            return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding)

        changed = differences(saved.tree, described(like))
        if changed:
            raise UserError(
                f"the checkpoint of step {saved.step} under {self.directory} is of another network or optimizer; "
                "its arrays, and those that belong:",
                changed,
            )
        path = self.directory / str(saved.step) / STATE
        return ocp.load(str(path), jax.tree.map(abstract, like))

    def wait(self) -> None:
        """Wait for what is being written; raises UserError where that fails."""
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()

    def close(self) -> None:
        """Wait for what is being written, and let go of the directory."""
        try:
            self.wait()
        finally:
            self._thread.shutdown()
