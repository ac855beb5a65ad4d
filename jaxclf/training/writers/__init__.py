"""Writers: where the records of a run go."""

from jaxclf.training.writers.base import RunInfo, Writer
from jaxclf.training.writers.jsonl import Jsonl
from jaxclf.training.writers.mlflow_writer import Mlflow
from jaxclf.training.writers.record import (
    Artifact,
    Graph,
    Histogram,
    HyperParameters,
    Image,
    Record,
    Text,
    select_scalars,
)
from jaxclf.training.writers.tensorboard import TensorBoard
from jaxclf.training.writers.wandb_writer import Wandb

WRITERS: tuple[type[Writer], ...] = (Jsonl, TensorBoard, Mlflow, Wandb)

__all__ = [
    "WRITERS",
    "Artifact",
    "Graph",
    "Histogram",
    "HyperParameters",
    "Image",
    "Jsonl",
    "Mlflow",
    "Record",
    "RunInfo",
    "TensorBoard",
    "Text",
    "Wandb",
    "Writer",
    "select_scalars",
]
