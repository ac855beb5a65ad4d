"""Loading the run that the command line names."""

from __future__ import annotations

from jaxclf.cli.options import RunOptions
from jaxclf.inference.trained_model import TrainedModel
from jaxclf.training.devices import keep_compiled


def load_run(options: RunOptions) -> TrainedModel:
    """Set up the compilation cache and load the run and checkpoint of the options."""
    keep_compiled(options.compilation_cache)
    return TrainedModel.load(options.run, options.checkpoint, options.weights, options.imports)
