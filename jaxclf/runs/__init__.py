"""The run directory and the signals that stop a run."""
