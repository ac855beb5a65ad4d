"""Export the network of a run to StableHLO and safetensors: `jaxclf export runs/mnist_cnn`."""

from __future__ import annotations

from typing import Any, Literal

from jaxclf.cli.load_run import choose_output, load_run
from jaxclf.cli.options import ExportOptions
from jaxclf.config_io import to_json
from jaxclf.inference.export import (
    CARD,
    CONFIG,
    DIGESTS,
    METADATA,
    PREPARE,
    PROGRAM,
    WEIGHTS,
    check_output,
    compute_digests,
    describe_program,
    flatten_weights,
    lower,
    write,
)
from jaxclf.inference.trained_model import TrainedModel
from jaxclf.io.files import format_json
from jaxclf.models.summary import count_parameters
from jaxclf.pretrained.writer import to_safetensors
from jaxclf.reporting.model_card import (
    collect_results,
    describe_preprocessing,
    format_model_card,
    format_preparation,
)
from jaxclf.runs.environment import get_versions


def run(options: ExportOptions) -> int:
    """Load the run, export its network and print the sizes of the files; return the exit code."""
    output = choose_output(options, options.output, "export")
    check_output(output)
    run = load_run(options)
    files = build_files(run, options.weights if run.config.ema_decay else "raw")
    write(output, files)
    print(f"step {run.step:,}, {count_parameters(run.variables):,} parameters")
    for name, content in files.items():
        print(f"wrote {output / name}: {len(content):,} bytes")
    return 0


def build_files(run: TrainedModel, weights: Literal["ema", "raw"]) -> dict[str, bytes]:
    """Return the contents of the exported files by name.

    Args:
        run: The trained model.
        weights: Which of its parameters it was loaded with; noted in the metadata.

    Raises:
        UserError: If the network cannot be lowered for all platforms.
    """
    flat = flatten_weights(run.variables)
    program = lower(run.model, flat, run.image_shape, run.config.evaluation_transform)
    metadata, config = _describe_model(run, weights) | describe_program(program), to_json(run.config)
    files = {
        PROGRAM: program,
        WEIGHTS: to_safetensors(flat),
        CONFIG: format_json(config).encode(),
        METADATA: format_json(metadata).encode(),
        CARD: format_model_card(metadata, config).encode(),
        PREPARE: format_preparation(run.image_shape, run.resizing).encode(),
    }
    return files | {DIGESTS: compute_digests(files)}


def _describe_model(run: TrainedModel, weights: Literal["ema", "raw"]) -> dict[str, Any]:
    """Return the part of `metadata.json` that describes the network and its results."""
    return {
        "name": run.directory.path.resolve().name,
        "step": run.step,
        "weights": weights,
        "parameters": count_parameters(run.variables),
        "image_shape": run.image_shape,
        "image_range": [0, 1],
        "preprocessing": describe_preprocessing(run.image_shape, run.resizing),
        "class_names": run.class_names,
        "versions": get_versions(),
        "results": collect_results(run, weights),
    }
