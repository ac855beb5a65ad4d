"""The model card of an exported network: what it is, how it is called, and what was measured of it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from jaxclf.config_io import flatten
from jaxclf.inference.trained_model import TrainedModel
from jaxclf.io.files import read_json
from jaxclf.reporting.tables import Table, Value, to_markdown

OTHERS = ("step", "split", "weights", "confusion_matrix")  # what evaluation.json holds beside what was measured
SPLITS = {"train_full": "train", "validation": "validation", "test": "test"}  # by their names in summary.json
CARD = """\
# {name}

`{network}`: an image in, a logit for each of {classes} classes out. {parameters:,} parameters, {weights} after
{step:,} steps of training. The classes, in the order of the logits: `{names}`.

## Use

Python with `pip install "jax>={jax}" flatbuffers safetensors`, in this directory:

```python
import json
from pathlib import Path

import jax
import numpy as np
from jax import export
from safetensors.numpy import load_file

network = export.deserialize(Path("model.stablehlo").read_bytes())
weights = load_file("weights.safetensors")
class_names = json.loads(Path("metadata.json").read_text(encoding="utf-8"))["class_names"]

images = np.zeros(({three}), np.float32)  # yours: {images} in [0, 1], any b
logits = jax.jit(network.call)(weights, images)  # {logits}
found = [class_names[label] for label in logits.argmax(axis=1)]


def highest(images):
    return network.call(weights, images).max(axis=1).sum()


gradients = jax.jit(jax.grad(highest))(images)  # {images}, of the highest logit in each pixel
```

Pixels from 0 to 255 are divided by 255 first. Probabilities are `jax.nn.softmax(logits)`. Without `jax.jit` a gradient
takes longer: it is computed in the weights too. `sha256sum -c SHA256SUMS` says whether the files are as they were.

## Results

{results}
## Training

{training}
## Files

| file | what it is |
|---|---|
| `model.stablehlo` | the program (weights, images) → logits and its gradient, in StableHLO for {platforms} |
| `weights.safetensors` | the weights by name: `params/…` are trained |
| `config.json` | the config of the run, as jaxclf reads it |
| `metadata.json` | what is said here, for programs: classes, shapes, versions, results |
| `SHA256SUMS` | checksums |

## Limits

- It names one of its classes for every image, whatever that shows; a high probability is no proof.
- Images must be prepared as for its training: of this size, in this range. What it makes of others is not measured.
- The program can be differentiated once and in reverse, in images and weights. It knows no second derivative, no
  `jax.jvp` and no `jax.vmap`: give a larger batch.
- jax.export promises that versions of JAX up to six months newer than {jax} read the program; an older one may not. The
  weights and the config need no such promise.
- Products of float32 numbers are computed in float32 on every platform. The results are of the machine that evaluated
  the run; on the other platforms the program was not tried.
"""


def measured(run: TrainedModel, weights: str) -> dict[str, dict[str, Any]]:
    """What was measured of just these weights (`ema` or `raw`), by split; what was measured of others is left out."""
    evaluated = "ema" if run.config.ema_decay else "raw"  # by training
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
    if evaluation.get("step") == run.step and (evaluation["weights"] == weights or not run.config.ema_decay):
        found = {name: value for name, value in evaluation.items() if name not in OTHERS}
        results.setdefault(evaluation["split"], {}).update(found)
    return results


def model_card(metadata: Mapping[str, Any], config: Any) -> str:
    """The card in Markdown, of an export's metadata and config (JSON)."""
    about = dict(metadata) | {
        "network": config["model"]["class"].rpartition(".")[2],
        "classes": len(metadata["class_names"]),
        "names": json.dumps(metadata["class_names"], ensure_ascii=False),
        "weights": {"ema": "their running mean", "raw": "as they are"}[metadata["weights"]],
        "three": ", ".join(map(str, (3, *metadata["image_shape"]))),
        "platforms": ", ".join(metadata["platforms"]),
        "results": described_results(metadata["results"], metadata["class_names"]),
        "training": to_markdown(training_table(config)),
        "jax": metadata["versions"]["jax"],
    }
    return CARD.format_map(about)


def training_table(config: Any) -> Table:
    """A row a field of the config."""
    rows = [{"field": name, "value": json.dumps(value, ensure_ascii=False)} for name, value in flatten(config).items()]
    return Table("training", "Every field of its config:", rows, shown)


def described_results(results: Mapping[str, Mapping[str, Any]], class_names: Sequence[str]) -> str:
    """What was measured, in tables by split and by class, and what was not."""
    rows = [
        {"split": split} | {name: value for name, value in results[split].items() if is_number(value)}
        for split in SPLITS.values()
        if split in results
    ]
    by_class = {
        f"{split} accuracy": found["per_class_accuracy"]
        for split, found in results.items()
        if "per_class_accuracy" in found
    }
    classes = [{"class": name} | {column: found[name] for column, found in by_class.items()} for name in class_names]
    missing = [split for split in SPLITS.values() if split not in results]
    parts = [to_markdown(Table("results", "Measured with these weights:", rows, shown))] if rows else []
    parts += [to_markdown(Table("classes", "By class:", classes, shown))] if by_class else []
    parts += [f"Not measured with these weights: {', '.join(missing)}.\n"] if missing else []
    return "\n".join(parts)


def is_number(value: Any) -> bool:
    """Whether a measured value is one number; null is one that JSON does not have."""
    return value is None or isinstance(value, int | float)


def shown(column: str, value: Value) -> str:
    """A value for people: shares as percent, counts with commas."""
    if isinstance(value, str):
        return value
    if value is None:
        return "none"
    if column.endswith("accuracy"):
        return f"{value:.2%}"
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"
