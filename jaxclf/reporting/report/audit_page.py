"""The results of `jaxclf audit`: their summary, the table of findings, and the page with pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxclf.inference.features.audit import ODDS, Audit, DuplicatePair
from jaxclf.io.formatting import format_number
from jaxclf.reporting.report.examples import LARGE_SIDE
from jaxclf.reporting.report.findings import summarize_data
from jaxclf.reporting.report.page import render, write_page
from jaxclf.reporting.report.pictures import encode_image
from jaxclf.types import FileRecord, Splits

SHOWN = 24  # findings of each kind on the page and in the summary
SECTIONS = {"labels": "Label errors", "duplicates": "Near-duplicates", "outliers": "Outliers", "data": "Data"}


def sort_pairs(audit: Audit, files: Sequence[FileRecord]) -> list[DuplicatePair]:
    """Return the pairs of near-duplicates, those of different splits first, then those of different labels."""

    def get_priority(pair: DuplicatePair) -> tuple[bool, bool]:
        first, second = files[pair.first], files[pair.second]
        return first.split == second.split, first.label == second.label

    return sorted(audit.duplicates, key=get_priority)


def summarize_audit(audit: Audit, files: Sequence[FileRecord], labels: np.ndarray) -> dict[str, Any]:
    """Return counts of what was found and the first files of each kind, as JSON data.

    Args:
        audit: The audit.
        files: The file of each image.
        labels: Its label.
    """
    pairs = sort_pairs(audit, files)
    both = [(files[pair.first], files[pair.second]) for pair in pairs]
    predictions = audit.labels.probabilities.argmax(axis=1)
    return {
        "predicted_labels": float((predictions == labels).mean()),
        "penalty": audit.labels.penalty,
        "label_errors": {
            "count": audit.error_count,
            "odds": ODDS,
            "first": [files[i].path for i in _select_errors(audit)],
        },
        "duplicates": {
            "pairs": len(pairs),
            "images": len({i for pair in pairs for i in (pair.first, pair.second)}),
            "identical": sum(pair.identical for pair in pairs),
            "across_splits": sum(a.split != b.split for a, b in both),
            "different_labels": sum(a.label != b.label for a, b in both),
            "first": [[a.path, b.path] for a, b in both[:SHOWN]],
        },
        "outliers": {"first": [files[i].path for i in audit.outlier_order[:SHOWN]]},
    }


def list_findings(summary: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Return rows of a kind of finding, its number and the first file, from the data of `summarize_audit`."""
    pairs = summary["duplicates"]
    return [
        ("likely label errors", format_number(summary["label_errors"]["count"]), _get_first(summary["label_errors"])),
        ("pairs of near-duplicates", format_number(pairs["pairs"]), " and ".join(next(iter(pairs["first"]), ()))),
        ("- of identical files", format_number(pairs["identical"]), ""),
        ("- of different splits", format_number(pairs["across_splits"]), ""),
        ("- of different labels", format_number(pairs["different_labels"]), ""),
        ("most distant outlier", "", _get_first(summary["outliers"])),
    ]


def _get_first(found: Mapping[str, Any]) -> str:
    """Return the first file of a kind of finding; empty if there is none."""
    return next(iter(found["first"]), "")


def write_audit_page(
    path: Path, summary: Mapping[str, Any], audit: Audit, splits: Splits, files: Sequence[FileRecord]
) -> Path:
    """Write the page of an audit.

    Args:
        path: The HTML file.
        summary: What summary.json holds.
        audit: The audit.
        splits: The images that were audited.
        files: The file of each image.

    Returns:
        The path.
    """
    errors, outliers = _select_errors(audit), audit.outlier_order[:SHOWN].tolist()
    pairs = sort_pairs(audit, files)[:SHOWN]
    indices = sorted({*errors, *outliers, *(i for pair in pairs for i in (pair.first, pair.second))})
    pictures = _encode_images(splits, files, indices)
    shown = {i: _describe_image(audit, files[i], i, splits.train.class_names) | {"src": pictures[i]} for i in indices}
    values = {
        "title": Path(summary["folder"]).resolve().name,
        "sections": SECTIONS.items(),
        "pixelated": False,
        "summary": summary,
        "errors": [shown[i] for i in errors],
        "pairs": [(pair, shown[pair.first], shown[pair.second]) for pair in pairs],
        "outliers": [shown[i] for i in outliers],
        "class_names": splits.train.class_names,
        "data": summarize_data(splits),
    }
    return write_page(path, render("audit.html", values))


def _select_errors(audit: Audit) -> list[int]:
    """Return the first images of which another class is more probable than the label."""
    return [i for i in audit.label_order[:SHOWN].tolist() if audit.log_odds[i] < 0]


def _describe_image(audit: Audit, file: FileRecord, i: int, names: Sequence[str]) -> dict[str, Any]:
    """Return the file of an image, its label and predicted class with their probabilities, and its outlier score."""
    probabilities = audit.labels.probabilities[i]
    predicted = int(probabilities.argmax())
    return {
        "file": file.path,
        "split": file.split,
        "predicted": names[predicted],
        "true": file.label,
        "confidence": float(probabilities[predicted]),
        "true_confidence": float(probabilities[names.index(file.label)]),
        "score": float(audit.outlier_scores[i]),
    }


def _encode_images(splits: Splits, files: Sequence[FileRecord], indices: Sequence[int]) -> dict[int, str]:
    """Return images by their indices as data URIs. Files are in the order of the splits and of their images."""
    starts: dict[str, int] = {}
    for i, file in enumerate(files):
        starts.setdefault(file.split, i)
    encoded = {}
    for split, start in starts.items():
        chosen = [i for i in indices if files[i].split == split]
        images = splits[split].images[np.array(chosen) - start] if chosen else ()
        encoded |= {i: encode_image(image, LARGE_SIDE) for i, image in zip(chosen, images, strict=True)}
    return encoded
