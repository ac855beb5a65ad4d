"""Where a run's numbers go. A writer is called with one `Record`; adding one changes nothing else."""

from jaxclf.training.writers.console import Console, show
from jaxclf.training.writers.jsonl import Jsonl
from jaxclf.training.writers.record import Graph, Histogram, HyperParameters, Image, Record, Text, Writer, scalars
from jaxclf.training.writers.tensorboard import TensorBoard

__all__ = [
    "Console",
    "Graph",
    "Histogram",
    "HyperParameters",
    "Image",
    "Jsonl",
    "Record",
    "TensorBoard",
    "Text",
    "Writer",
    "scalars",
    "show",
]
