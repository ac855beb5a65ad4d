"""A run's numbers, pictures and graph as TensorBoard's event files. The only file that knows tensorboardX.

Its file format and summaries are used, and not its writer: that writes on a thread of its own, which cannot say that a
disk is full, and names files by the second.
"""

# The classes of protocol buffers are made when they are imported.
# pyright: reportAttributeAccessIssue=false
from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxclf.io.files import finite
from jaxclf.training.writers.record import Graph, Histogram, HyperParameters, Image, Record, Text

FLUSH_SECONDS = 10.0  # how old what is on the disk may be
BINS = 30  # of a histogram


class TensorBoard:
    """Event files, a directory a split. What was written after `step` is superseded."""

    def __init__(self, directory: Path, step: int):
        self.directory, self.step = directory, step
        self._files: dict[str, Any] = {}
        self._flushed = time.monotonic()

    def __call__(self, record: Record) -> None:
        """Write all values but words. Running means of an epoch have tags of their own; a run's hyper-parameters
        belong to no split.
        """
        running = record.split == "train" and record.period == "epoch"
        found = []
        for name, value in record.values.items():
            if isinstance(value, Graph):
                self._write(record.split, record.step, graph_def=graph_definition(value))
            elif isinstance(value, HyperParameters):
                for summary in hyper_parameters(value):
                    self._write("", record.step, summary=summary)
            else:
                found += summarized(f"epoch_{name}" if running and is_number(value) else name, value)
        if found:
            from tensorboardX.proto.summary_pb2 import Summary

            self._write(record.split, record.step, summary=Summary(value=found))
        if time.monotonic() - self._flushed > FLUSH_SECONDS:
            self.flush()

    def _write(self, split: str, step: int, **content: Any) -> None:
        from tensorboardX.proto.event_pb2 import Event

        self._open(split).write_event(Event(step=step, wall_time=time.time(), **content))

    def _open(self, split: str) -> Any:
        if split not in self._files:
            from tensorboardX.event_file_writer import EventsWriter
            from tensorboardX.proto.event_pb2 import Event, SessionLog

            folder = self.directory / split
            folder.mkdir(parents=True, exist_ok=True)
            # By itself the name has the second alone, and a run that goes on within it would write over its curves.
            self._files[split] = file = EventsWriter(str(folder / "events"), f".{time.time_ns()}")
            file.write_event(Event(step=self.step + 1, session_log=SessionLog(status=SessionLog.START)))
        return self._files[split]

    def flush(self) -> None:
        """Write out what is buffered; raises OSError where the disk takes no more."""
        for file in self._files.values():
            file.flush()
        self._flushed = time.monotonic()

    def close(self) -> None:
        """Write out what is buffered, and close the files."""
        for file in self._files.values():
            file.close()
        self._files.clear()


def is_number(value: Any) -> bool:
    """Whether a value is drawn as a curve."""
    return isinstance(value, int | float)


def summarized(tag: str, value: Any) -> Iterator[Any]:
    """The values of TensorBoard's summary of one value; none of words and of what is no number."""
    from tensorboardX import summary
    from tensorboardX.proto.summary_pb2 import Summary

    if isinstance(value, Image):
        yield from summary.image(tag, value.pixels, dataformats="HWC").value
    elif isinstance(value, Text):
        yield from summary.text(tag, value.markdown).value
    elif isinstance(value, Histogram):
        yield from histogram(tag, value.values).value
    elif is_number(value) and finite(value) is not None:
        yield Summary.Value(tag=tag, simple_value=value)


def histogram(tag: str, values: np.ndarray) -> Any:
    """The summary of how finite numbers are spread, in bins of one width."""
    from tensorboardX import summary

    values = values[np.isfinite(values)].astype(np.float64)
    counts, edges = np.histogram(values, BINS)
    low, high = (values.min(), values.max()) if values.size else (0.0, 0.0)
    # Bins are closed above; the one below the first tells where that begins.
    limits, filled = edges.tolist(), [0, *counts.tolist()]
    return summary.histogram_raw(tag, low, high, values.size, values.sum(), values @ values, limits, filled)


def graph_definition(graph: Graph) -> bytes:
    """A graph in TensorBoard's form, in which names joined by slashes are nested."""
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


def hyper_parameters(values: HyperParameters) -> list[Any]:
    """The summaries of what a run was made with, and of its results as scalars beside them."""
    from tensorboardX import summary

    plain: Mapping[str, Any] = {
        name: value if isinstance(value, bool | int | float | str) else str(value)
        for name, value in values.chosen.items()
    }
    return [
        *summary.hparams(plain, dict(values.results)),
        *(summary.scalar(name, value) for name, value in values.results.items()),
    ]
