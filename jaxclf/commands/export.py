"""Export a trained run: `python export.py runs/mnist_cnn`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from jaxclf.artifact import (
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
from jaxclf.commands.cli import command, parse
from jaxclf.commands.saved_run import RunOptions
from jaxclf.config import to_json
from jaxclf.files import json_text
from jaxclf.launch import alone
from jaxclf.model_card import measured, model_card
from jaxclf.models.summary import count
from jaxclf.run import Run, versions


@dataclass(frozen=True, kw_only=True)
class ExportOptions(RunOptions):
    """Write the network of a run as files that need no jaxclf: program, weights, config, checksums and a model card."""

    output: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """Where to: a new directory, an empty one, or that of an earlier export. Without one, export/ in the run."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    return command(export_run, argv, interrupted="interrupted")


def export_run(argv: list[str]) -> int:
    """Load the run, lower its network, write what makes an export, and print the sizes."""
    options = parse(ExportOptions, argv, prog="export.py")
    alone("export.py")
    output = options.output or options.run / "export"
    check_place(output)
    run = options.load()
    files = export_files(run, options.weights if run.config.ema_decay else "raw")
    write(output, files)
    print(f"step {run.step:,}, {count(run.variables):,} parameters")
    for name, content in files.items():
        print(f"wrote {output / name}: {len(content):,} bytes")
    return 0


def export_files(run: Run, weights: Literal["ema", "raw"]) -> dict[str, bytes]:
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


def describe(run: Run, weights: Literal["ema", "raw"]) -> dict[str, Any]:
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


if __name__ == "__main__":
    sys.exit(main())
