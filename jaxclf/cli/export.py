"""Export a trained run: `python export.py runs/mnist_cnn`."""

from __future__ import annotations

from typing import Any, Literal

from jaxclf.cli.load_run import load_run
from jaxclf.cli.options import ExportOptions
from jaxclf.config_io import to_json
from jaxclf.inference.export import (
    CARD,
    CONFIG,
    DIGESTS,
    METADATA,
    PROGRAM,
    WEIGHTS,
    check_place,
    digests,
    lower,
    named_weights,
    signature,
    to_safetensors,
    write,
)
from jaxclf.inference.trained_model import TrainedModel
from jaxclf.io.files import json_text
from jaxclf.models.summary import count
from jaxclf.reporting.model_card import measured, model_card
from jaxclf.runs.environment import versions


def run(options: ExportOptions) -> int:
    """Load the run, lower its network, write what makes an export, and print the sizes."""
    output = options.output or options.run / "export"
    check_place(output)
    run = load_run(options)
    files = export_files(run, options.weights if run.config.ema_decay else "raw")
    write(output, files)
    print(f"step {run.step:,}, {count(run.variables):,} parameters")
    for name, content in files.items():
        print(f"wrote {output / name}: {len(content):,} bytes")
    return 0


def export_files(run: TrainedModel, weights: Literal["ema", "raw"]) -> dict[str, bytes]:
    """The files of an export by name; raises UserError where the network has no program for all platforms."""
    named = named_weights(run.variables)
    program = lower(run.model, named, run.image_shape)
    metadata, config = describe(run, weights) | signature(program), to_json(run.config)
    files = {
        PROGRAM: program,
        WEIGHTS: to_safetensors(named),
        CONFIG: json_text(config).encode(),
        METADATA: json_text(metadata).encode(),
        CARD: model_card(metadata, config).encode(errors="replace"),  # a class may be named by bytes that are no text
    }
    return files | {DIGESTS: digests(files)}


def describe(run: TrainedModel, weights: Literal["ema", "raw"]) -> dict[str, Any]:
    """What `metadata.json` holds beside the signature: what the network is, and what was measured of it."""
    return {
        "name": run.directory.path.resolve().name,
        "step": run.step,
        "weights": weights,
        "parameters": count(run.variables),
        "image_shape": run.image_shape,
        "image_range": [0, 1],
        "class_names": run.class_names,
        "versions": versions(),
        "results": measured(run, weights),
    }
