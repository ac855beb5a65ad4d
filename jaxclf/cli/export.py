"""Export the network of a run for use without jaxclf, in JAX or PyTorch: `jaxclf export runs/mnist_cnn`."""

from __future__ import annotations

from typing import Any, Literal

from jaxclf.cli.load_run import choose_output, load_run
from jaxclf.cli.options import ExportOptions
from jaxclf.config_io import to_json
from jaxclf.inference.bundle import read_layout
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
from jaxclf.pretrained.networks import find_network, match_network
from jaxclf.pretrained.revert import choose_layout, revert_weights
from jaxclf.pretrained.source_network import format_constructor
from jaxclf.pretrained.writer import to_safetensors
from jaxclf.reporting.model_card import (
    collect_results,
    describe_preprocessing,
    format_model_card,
    format_preparation,
)
from jaxclf.runs.environment import get_versions

FOLDERS = {"jaxclf": "export", "torch": "export_torch"}
"""The folder in the run that each format is written to."""


def run(options: ExportOptions) -> int:
    """Load the run, export its network and print the sizes of the files; return the exit code."""
    output = choose_output(options, options.output, FOLDERS[options.format])
    check_output(output, options.format)
    run = load_run(options)
    build = build_files if options.format == "jaxclf" else build_torch_files
    files = build(run, options.weights if run.config.ema_decay else "raw")
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


def build_torch_files(run: TrainedModel, weights: Literal["ema", "raw"]) -> dict[str, bytes]:
    """Return the contents of the files that are exported for PyTorch by name.

    Args:
        run: The trained model.
        weights: Which of its parameters it was loaded with; noted in the metadata.

    Raises:
        UserError: If no library of PyTorch has the network.
    """
    layout = choose_layout(run.model, read_layout(run.directory.path))
    tensors = revert_weights(run.model, flatten_weights(run.variables), layout)
    metadata = _describe_model(run, weights) | _describe_module(run, layout)
    files = {
        WEIGHTS: to_safetensors(tensors),
        METADATA: format_json(metadata).encode(),
        CARD: format_model_card(metadata, to_json(run.config), "torch_card.md").encode(),
    }
    return files | {DIGESTS: compute_digests(files)}


def _describe_module(run: TrainedModel, layout: str) -> dict[str, Any]:
    """Return the part of `metadata.json` that describes the module of PyTorch and what it is given."""
    published, model, (height, width, channels) = match_network(run.model), to_json(run.model), run.input_shape
    # The modules that have names take images of three channels.
    named = find_network(published) if published is not None and channels == 3 else None
    return {
        "library": layout,
        "constructor": named and format_constructor(layout, named, len(run.class_names)),
        "model": model,
        "normalize": model["normalize"] and {name: model["normalize"][name] for name in ("mean", "std")},
        "evaluation_transform": to_json(run.config.evaluation_transform),
        "input_shape": [channels, height, width],
        "images": f"float32[b,{channels},{height},{width}]",
        "logits": f"float32[b,{len(run.class_names)}]",
    }


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
