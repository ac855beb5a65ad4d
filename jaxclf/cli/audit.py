"""`jaxclf audit photographs --bundle lite0 --workdir runs/audit`: find faults of a folder by features of a network."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from jaxclf.cli.load_run import load_folder
from jaxclf.cli.options import AuditOptions
from jaxclf.inference.features.audit import Audit, check_settings, inspect_features, join_splits
from jaxclf.inference.features.cache import compute_split_features
from jaxclf.inference.features.selection import Labeled
from jaxclf.io.files import write_json, write_rows
from jaxclf.io.progress import show_status
from jaxclf.reporting.report.audit_page import list_findings, sort_pairs, summarize_audit, write_audit_page
from jaxclf.reporting.tables import print_rows
from jaxclf.types import FileRecord

IMAGE_COLUMNS = (
    "file",
    "split",
    "label",
    "prediction",
    "self_confidence",
    "log_odds",
    "label_rank",
    "outlier_score",
    "outlier_rank",
    "nearest",
    "similarity",
)
PAIR_COLUMNS = (
    "first",
    "second",
    "similarity",
    "identical",
    "first_split",
    "second_split",
    "across_splits",
    "first_label",
    "second_label",
)


def run(options: AuditOptions) -> int:
    """Run `jaxclf audit`; return the exit code."""
    began = time.perf_counter()
    network, splits = load_folder(options)
    labels, files = join_splits(splits)
    check_settings(labels, options.folds, options.neighbors, options.similarity)
    of_splits = compute_split_features(network, splits)
    computed = time.perf_counter()
    features, names = np.concatenate(list(of_splits.values())), splits.train.class_names
    with show_status("comparing images"):
        data = Labeled(features, labels, len(names))
        audit = inspect_features(data, files, options.folds, options.neighbors, options.similarity)
    summary = {
        "bundle": str(options.bundle),
        "folder": options.folder,
        "folds": options.folds,
        "neighbors": options.neighbors,
        "similarity": options.similarity,
        "images": {name: len(of_split) for name, of_split in of_splits.items()},
        **summarize_audit(audit, files, labels),
        "features": features.shape[1],
        "feature_seconds": computed - began,
        "wall_seconds": time.perf_counter() - began,
    }
    print_rows(("found", "number", "first"), list_findings(summary))
    options.workdir.mkdir(parents=True, exist_ok=True)
    write_json(options.workdir / "summary.json", summary)
    write_rows(options.workdir / "audit.csv", IMAGE_COLUMNS, _list_images(audit, files, labels, names))
    write_rows(options.workdir / "duplicates.csv", PAIR_COLUMNS, _list_pairs(audit, files))
    with show_status("writing the page"):
        write_audit_page(options.workdir / "audit.html", summary, audit, splits, files)
    for path in sorted(options.workdir.iterdir()):
        print(f"wrote {path}")
    return 0


def _list_images(
    audit: Audit, files: Sequence[FileRecord], labels: np.ndarray, names: Sequence[str]
) -> Iterator[tuple[Any, ...]]:
    """Yield the row of each image; ranks are from 1."""
    probabilities = audit.labels.probabilities
    label_ranks, outlier_ranks = (np.argsort(order) + 1 for order in (audit.label_order, audit.outlier_order))
    for i, file in enumerate(files):
        yield (
            *(file.path, file.split, file.label),
            names[probabilities[i].argmax()],
            *(f"{value:.6f}" for value in (probabilities[i, labels[i]], audit.log_odds[i])),
            label_ranks[i],
            f"{audit.outlier_scores[i]:.6f}",
            outlier_ranks[i],
            files[audit.nearest[i]].path,
            f"{audit.similarities[i]:.6f}",
        )


def _list_pairs(audit: Audit, files: Sequence[FileRecord]) -> Iterator[tuple[Any, ...]]:
    """Yield the row of each pair of near-duplicates, those of different splits first."""
    for pair in sort_pairs(audit, files):
        first, second = files[pair.first], files[pair.second]
        yield (
            *(first.path, second.path),
            f"{pair.similarity:.6f}",
            str(pair.identical).lower(),
            *(first.split, second.split, str(first.split != second.split).lower()),
            *(first.label, second.label),
        )
