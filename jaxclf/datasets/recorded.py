"""Files in the splits that a run has recorded: by content, so that renamed and moved files keep theirs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence, Set
from pathlib import Path

from jaxclf.errors import UserError
from jaxclf.types import FileRecord


def restore_splits(
    files: Mapping[Path, FileRecord], records: Sequence[FileRecord], drawn: Set[Path], exact: bool
) -> tuple[dict[Path, FileRecord], tuple[str, ...]]:
    """Put files into the splits they had in training.

    Args:
        files: The files that are there, in the splits they have now.
        records: The files of the run, in the splits they had in training.
        drawn: Files whose split was drawn; the record replaces it. The others are where their author has put them, and
            none of them may have been trained on, unless it was in both splits then.
        exact: Whether the data must be that of the run: nothing missing or changed. New files are left out.

    Returns:
        The files in their splits, in the order of the records, new ones last; and a remark if they differ.

    Raises:
        UserError: If files are missing or changed, or would be tested after they were trained on.
    """
    matches = _match(files, records)
    new = [path for path in files if path not in matches and files[path].split]
    recorded_paths = {record.path for record in records}
    changed = [path for path in new if files[path].path in recorded_paths]
    relabeled = [path for path, i in matches.items() if records[i].label != files[path].label]
    found = {records[i].path for i in matches.values()} | {files[path].path for path in changed}
    missing = [record.path for record in records if record.path not in found]
    counts = (len(new) - len(changed), len(missing), len(changed) + len(relabeled))
    difference = "{:,} files are new, {:,} missing and {:,} changed since training".format(*counts)
    if exact and (missing or changed or relabeled):
        lines = [f"{path}: missing" for path in missing]
        lines += [f"{files[path].path}: changed" for path in changed]
        lines += [f"{files[path].path}: now of class {files[path].label}" for path in relabeled]
        raise UserError(f"the data is not what this run began with: {difference}; put it back:", lines)
    _refuse_trained([file for path, file in files.items() if path not in drawn], records)
    order = sorted(files, key=lambda path: (matches.get(path, len(records)), path))
    kept = {path: files[path] for path in order if path in matches or not exact}
    for path in drawn & kept.keys() & matches.keys():
        kept[path] = kept[path]._replace(split=records[matches[path]].split)
    return kept, (difference,) if any(counts) else ()


def _match(files: Mapping[Path, FileRecord], records: Sequence[FileRecord]) -> dict[Path, int]:
    """Return the index of the record of each file with the same content; of several, the one of the same path."""
    left: dict[str, dict[int, str]] = defaultdict(dict)
    for i, record in enumerate(records):
        left[record.digest][i] = record.path
    matches: dict[Path, int] = {}
    for same_path in (True, False):
        for path, file in files.items():
            candidates = left.get(file.digest, {})
            found = next((i for i, name in candidates.items() if name == file.path or not same_path), None)
            if path not in matches and found is not None:
                matches[path] = found
                del candidates[found]
    return matches


def _refuse_trained(files: Sequence[FileRecord], records: Sequence[FileRecord]) -> None:
    """Raise UserError if a file that was trained on is in another split, unless it was in both before."""
    held_out = {(record.digest, record.split) for record in records if record.split != "train"}
    trained = {record.digest for record in records if record.split == "train"}
    faults = [
        f"{file.path}: trained on, and now in {file.split}"
        for file in files
        if file.split not in ("train", "") and file.digest in trained and (file.digest, file.split) not in held_out
    ]
    if faults:
        raise UserError(f"{len(faults):,} images the run was trained on would be held out:", faults)
