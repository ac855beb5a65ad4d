"""The run that the options of a command name."""

from __future__ import annotations

from jaxclf.cli.options import RunOptions
from jaxclf.inference.trained_model import TrainedModel, load
from jaxclf.training.devices import keep_compiled


def load_run(options: RunOptions) -> TrainedModel:
    """Load the run and checkpoint that the options name, after setting up the compilation cache."""
    keep_compiled(options.compilation_cache)
    return load(options.run, options.checkpoint, options.weights, options.imports)
