"""The model card of an exported network: usage, results, training and limitations."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from jaxclf.config_io import flatten
from jaxclf.datasets import Resizing
from jaxclf.inference.preprocess import PAPER
from jaxclf.inference.trained_model import TrainedModel
from jaxclf.io.files import read_json
from jaxclf.io.formatting import format_metric
from jaxclf.reporting.report.page import render
from jaxclf.reporting.stats import Estimate
from jaxclf.reporting.tables import Table, Value, to_markdown

NOT_MEASURED = ("step", "split", "weights", "confusion_matrix")  # fields of evaluation.json that are no results
SPLITS = {"train_full": "train", "validation": "validation", "test": "test"}  # by their names in summary.json


def collect_results(run: TrainedModel, weights: str) -> dict[str, dict[str, Any]]:
    """Collect the results in a run directory that were measured with the loaded weights.

    Args:
        run: The trained model.
        weights: Which of its parameters it was loaded with, "ema" or "raw".

    Returns:
        Metrics by split. Results of other weights, other steps or other images than those of the config are left out,
        and so are those with test-time augmentation.
    """
    evaluated = "ema" if run.config.ema_decay else "raw"  # in training
    summary, evaluation = (
        read_json(path) if path.exists() else {}
        for path in (run.directory.summary, run.directory.path / "evaluation.json")
    )
    results: dict[str, dict[str, Any]] = {}
    best = summary.get("best")
    if weights == evaluated and summary.get("steps") == run.step:
        results = {name: dict(summary[split]) for split, name in SPLITS.items() if summary.get(split)}
    elif weights == evaluated and best and best["step"] == run.step:
        results = {"validation": {name: value for name, value in best.items() if name != "step"}}
    same_weights = evaluation.get("weights") == weights or not run.config.ema_decay
    as_in_training = not (evaluation.get("tta") or evaluation.get("dataset"))
    if evaluation.get("step") == run.step and same_weights and as_in_training:
        found = {name: value for name, value in evaluation.items() if name not in NOT_MEASURED}
        results.setdefault(evaluation["split"], {}).update(found)
    return results


def format_model_card(
    metadata: Mapping[str, Any],
    config: Mapping[str, Any],
    template: Literal["model_card.md", "torch_card.md"] = "model_card.md",
) -> str:
    """Format the model card of an export.

    Args:
        metadata: The content of its metadata.json.
        config: The config of the run as JSON data.
        template: The card of an export for JAX, or of one for PyTorch.

    Returns:
        The card as Markdown.
    """
    fields = [
        {"field": name, "value": json.dumps(value, ensure_ascii=False)} for name, value in flatten(config).items()
    ]
    values = dict(metadata) | {
        "is_bundle": config["dataset"] is None,
        "network": config["model"]["class"].rpartition(".")[2],
        "names": json.dumps(metadata["class_names"], ensure_ascii=False),
        "average": " (exponential moving average)" if metadata["weights"] == "ema" else "",
        "training": to_markdown(Table("training", "All fields of the config:", fields, _format_cell)),
        "missing": [split for split in SPLITS.values() if split not in metadata["results"]],
    }
    tables = _tabulate_results(metadata["results"], metadata["class_names"])
    return render(template, values | tables).decode()


def describe_preprocessing(image_shape: Sequence[int], resizing: Resizing) -> dict[str, Any]:
    """Return how image files become images of the network, for metadata.json."""
    height, width, channels = image_shape
    return {
        "size": [height, width],
        "aspect_ratio": "cropped from the center" if resizing.crop_to_aspect_ratio else "not kept",
        "channels": "RGB" if channels == 3 else "grayscale" if channels == 1 else channels,
        "range": [0, 1],
        "interpolation": f"{resizing.interpolation} (Pillow, with antialiasing)",
        "jpeg": f"decoded at the smallest of 1/1, 1/2, 1/4 and 1/8 with sides of at least {2 * max(height, width)}",
        "orientation": "upright by EXIF",
        "transparent": "white",
        "sixteen_bits": "divided by 257",
        **({"dark_on_light": "inverted"} if channels == 1 else {}),
    }


def format_preparation(image_shape: Sequence[int], resizing: Resizing) -> str:
    """Format the Python file that prepares image files for a network, without jaxclf."""
    values = {"image_shape": image_shape, "resizing": resizing, "paper": PAPER}
    return render("prepare.py.txt", values).decode()


def _tabulate_results(results: Mapping[str, Mapping[str, Any]], class_names: Sequence[str]) -> dict[str, str]:
    """Return the results by split and by class as Markdown tables; a table without rows is empty."""
    rows = [
        {"split": split} | {name: value for name, value in results[split].items() if _is_number(value)}
        for split in SPLITS.values()
        if split in results
    ]
    by_class = {
        f"{split} accuracy": of_split["per_class_accuracy"]
        for split, of_split in results.items()
        if "per_class_accuracy" in of_split
    }
    classes = [{"class": name} | {column: found[name] for column, found in by_class.items()} for name in class_names]
    return {
        "rows": to_markdown(Table("results", "Measured with these weights:", rows, _format_cell)) if rows else "",
        "classes": to_markdown(Table("classes", "By class:", classes, _format_cell)) if by_class else "",
    }


def _is_number(value: Any) -> bool:
    """Return whether a result is a single number; None stands for NaN."""
    return value is None or isinstance(value, int | float)


def _format_cell(column: str, value: Value) -> str:
    """Format a result: accuracies in percent, counts with thousands separators."""
    assert not isinstance(value, Estimate)  # a run has single numbers
    return "none" if value is None else format_metric(column, value)
