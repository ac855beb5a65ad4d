"""Training: the step, its devices, the data pipeline, checkpoints and the loop."""
