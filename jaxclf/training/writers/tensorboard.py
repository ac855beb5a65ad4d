"""Metrics, images, histograms and the graph as TensorBoard's event files.

tensorboardX's file format and summaries are used, but not its writer: that one writes on a thread, which cannot raise
an error when the disk is full, and names files by the second.
"""

# The classes of protocol buffers are made when they are imported.
# pyright: reportAttributeAccessIssue=false
from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxclf.io.files import replace_non_finite
from jaxclf.training.writers.base import RunInfo
from jaxclf.training.writers.record import Graph, Histogram, HyperParameters, Image, Record, Text

if TYPE_CHECKING:
    from tensorboardX.event_file_writer import EventsWriter

FLUSH_SECONDS = 10.0  # between two writes to the disk
BINS = 30  # of a histogram


@dataclass
class TensorBoard:
    """Writes `tensorboard/` in the run directory: event files, a directory for each split."""

    def open(self, run: RunInfo, step: int) -> None:
        """Start new files, in which what was written after `step` is superseded."""
        self._directory, self._step = run.directory / "tensorboard", step
        self._files: dict[str, EventsWriter] = {}
        self._flushed = time.monotonic()

    def __call__(self, record: Record) -> None:
        """Write all values but strings and artifacts.

        The running means of an epoch have tags of their own; hyperparameters belong to no split.
        """
        running = record.split == "train" and record.period == "epoch"
        found = []
        for name, value in record.values.items():
            if isinstance(value, Graph):
                self._write(record.split, record.step, graph_def=_serialize_graph(value))
            elif isinstance(value, HyperParameters):
                for summary in _summarize_hyper_parameters(value):
                    self._write("", record.step, summary=summary)
            else:
                found += _summarize_value(f"epoch_{name}" if running and _is_number(value) else name, value)
        if found:
            from tensorboardX.proto.summary_pb2 import Summary

            self._write(record.split, record.step, summary=Summary(value=found))
        if time.monotonic() - self._flushed > FLUSH_SECONDS:
            self.flush()

    def _write(self, split: str, step: int, **content: Any) -> None:
        from tensorboardX.proto.event_pb2 import Event

        self._open(split).write_event(Event(step=step, wall_time=time.time(), **content))

    def _open(self, split: str) -> EventsWriter:
        if split not in self._files:
            from tensorboardX.event_file_writer import EventsWriter
            from tensorboardX.proto.event_pb2 import Event, SessionLog

            folder = self._directory / split
            folder.mkdir(parents=True, exist_ok=True)
            # The default name has a resolution of a second: a run that resumes within it would overwrite its curves.
            self._files[split] = file = EventsWriter(str(folder / "events"), f".{time.time_ns()}")
            file.write_event(Event(step=self._step + 1, session_log=SessionLog(status=SessionLog.START)))
        return self._files[split]

    def flush(self) -> None:
        """Write what is buffered; raise OSError if the disk is full."""
        for file in self._files.values():
            file.flush()
        self._flushed = time.monotonic()

    def close(self) -> None:
        """Write what is buffered, and close the files."""
        for file in self._files.values():
            file.close()
        self._files.clear()


def _is_number(value: Any) -> bool:
    """Return whether a value is drawn as a curve."""
    return isinstance(value, int | float)


def _summarize_value(tag: str, value: Any) -> Iterator[Any]:
    """Yield the values of TensorBoard's summary of one value; none for strings and numbers that are not finite."""
    from tensorboardX import summary
    from tensorboardX.proto.summary_pb2 import Summary

    if isinstance(value, Image):
        yield from summary.image(tag, value.pixels, dataformats="HWC").value
    elif isinstance(value, Text):
        yield from summary.text(tag, value.markdown).value
    elif isinstance(value, Histogram):
        yield from _build_histogram(tag, value.values).value
    elif _is_number(value) and replace_non_finite(value) is not None:
        yield Summary.Value(tag=tag, simple_value=value)


def _build_histogram(tag: str, values: np.ndarray) -> Any:
    """Return the summary of finite numbers in bins of equal width."""
    from tensorboardX import summary

    values = values[np.isfinite(values)].astype(np.float64)
    counts, edges = np.histogram(values, BINS)
    low, high = (values.min(), values.max()) if values.size else (0.0, 0.0)
    # Bins are closed above; the one below the first tells where that begins.
    limits, filled = edges.tolist(), [0, *counts.tolist()]
    return summary.histogram_raw(tag, low, high, values.size, values.sum(), values @ values, limits, filled)


def _serialize_graph(graph: Graph) -> bytes:
    """Return a graph in TensorBoard's format, in which names with slashes are nested."""
    from tensorboardX.proto.attr_value_pb2 import AttrValue
    from tensorboardX.proto.graph_pb2 import GraphDef
    from tensorboardX.proto.node_def_pb2 import NodeDef
    from tensorboardX.proto.tensor_shape_pb2 import TensorShapeProto

    nodes = []
    for node in graph.nodes:
        shape = TensorShapeProto(dim=[TensorShapeProto.Dim(size=size) for size in node.shape])
        shapes = AttrValue(list=AttrValue.ListValue(shape=[shape]))
        nodes.append(NodeDef(name=node.name, op=node.operation, input=node.inputs, attr={"_output_shapes": shapes}))
    return GraphDef(node=nodes).SerializeToString()


def _summarize_hyper_parameters(values: HyperParameters) -> list[Any]:
    """Return the summaries of a config, and its results as scalars beside them."""
    from tensorboardX import summary

    plain: Mapping[str, Any] = {
        name: value if isinstance(value, bool | int | float | str) else str(value)
        for name, value in values.chosen.items()
    }
    return [
        *summary.hparams(plain, dict(values.results)),
        *(summary.scalar(name, value) for name, value in values.results.items()),
    ]
