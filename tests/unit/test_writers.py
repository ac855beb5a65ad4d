"""Writers: what is written is read back, and a run that goes on supersedes what came after its checkpoint."""

import io
import json
import resource
import struct
from types import SimpleNamespace

import numpy as np
import PIL.Image
import pytest
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.proto.graph_pb2 import GraphDef
from tensorboardX.proto.plugin_hparams_pb2 import HParamsPluginData

from jaxclf.io.formatting import format_value
from jaxclf.models import Cnn
from jaxclf.models.graph import trace_graph
from jaxclf.training.progress_bar import ProgressBar
from jaxclf.training.writers import (
    Graph,
    Histogram,
    HyperParameters,
    Image,
    Jsonl,
    Record,
    RunInfo,
    TensorBoard,
    Text,
)

PIXELS = np.random.default_rng(0).integers(0, 256, (5, 4, 3), np.uint8)


def record(step, split="train", period="interval", epoch=0.5, **values):
    return Record(step, epoch, split, period, values)


def open_writer(writer, directory, rows=(), step=0):
    """A writer of a run that resumes from a step."""
    writer.open(RunInfo(directory, {"epochs": 3}, rows), step)
    return writer


def rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def events(directory):
    """The events of a directory. A record is the length of its data, a checksum, the data, and a checksum."""
    for path in sorted(directory.iterdir()):
        content = path.read_bytes()
        while content:
            (length,) = struct.unpack("<Q", content[:8])
            yield Event.FromString(content[12 : 12 + length])
            content = content[16 + length :]


def select_scalars(directory):
    """By tag and step."""
    values = [(value, event.step) for event in events(directory) for value in event.summary.value]
    return {(value.tag, step): value.simple_value for value, step in values if not value.HasField("image")}


def pictures(directory):
    values = {value.tag: value.image for event in events(directory) for value in event.summary.value}
    return {tag: PIL.Image.open(io.BytesIO(values[tag].encoded_image_string)) for tag in ("inputs", "grey")}


@pytest.fixture
def path(tmp_path):
    """The rows of steps 1 to 4."""
    path = tmp_path / "metrics.jsonl"
    jsonl = open_writer(Jsonl(), tmp_path)
    for step in range(1, 5):
        jsonl(record(step, loss=1 / step, note='"\n\u2028'))
    return path


def test_rows_are_read_back(path):
    where = {"epoch": 0.5, "split": "train", "period": "interval", "note": '"\n\u2028'}
    assert rows(path) == [{"step": step, "loss": 1 / step} | where for step in range(1, 5)]


@pytest.mark.parametrize("step", range(6))
def test_going_on_cuts_what_came_later(path, step):
    before = rows(path)
    open_writer(Jsonl(), path.parent, before[:step])
    assert rows(path) == before[:step]
    assert list(path.parent.iterdir()) == [path]


def test_a_run_that_was_stopped_anywhere_goes_on_with_whole_rows(path):
    before, content = rows(path), path.read_bytes()
    for stop in range(0, len(content), 7):
        path.write_bytes(content[:stop])
        open_writer(Jsonl(), path.parent, before)(record(5, loss=0.0))
        *kept, last = rows(path)
        assert kept == before[: content[:stop].count(b"\n")]
        assert last["step"] == 5


def test_pictures_are_no_rows(tmp_path):
    jsonl = open_writer(Jsonl(), tmp_path)
    jsonl(record(1, inputs=Image(PIXELS)))
    jsonl(record(2, inputs=Image(PIXELS), loss=0.5))
    (row,) = rows(tmp_path / "metrics.jsonl")
    assert (row["step"], row["loss"], "inputs" in row) == (2, 0.5, False)


@pytest.fixture
def board(tmp_path):
    tensorboard = open_writer(TensorBoard(), tmp_path)
    tensorboard(record(0, period="epoch", inputs=Image(PIXELS), grey=Image(PIXELS[..., :1])))
    tensorboard(record(10, loss=0.5, accuracy=0.75))
    tensorboard(record(20, period="epoch", loss=0.625, accuracy=0.5, note="no number"))
    tensorboard(record(20, "validation", "epoch", loss=0.25, accuracy=0.875))
    tensorboard.close()
    return tmp_path / "tensorboard"


def test_curves_share_their_tags_and_running_means_have_their_own(board):
    assert select_scalars(board / "train") == {
        ("loss", 10): 0.5,
        ("accuracy", 10): 0.75,
        ("epoch_loss", 20): 0.625,
        ("epoch_accuracy", 20): 0.5,
    }
    assert select_scalars(board / "validation") == {("loss", 20): 0.25, ("accuracy", 20): 0.875}


def test_pictures_are_read_back(board):
    found = pictures(board / "train")
    np.testing.assert_array_equal(np.asarray(found["inputs"]), PIXELS)
    np.testing.assert_array_equal(np.asarray(found["grey"].convert("L")), PIXELS[..., 0])


def test_going_on_supersedes_what_came_later(board):
    tensorboard = open_writer(TensorBoard(), board.parent, step=10)
    tensorboard(record(15, loss=0.375))
    tensorboard.close()
    # TensorBoard forgets what it has from the step of a start on.
    starts = [e.step for e in events(board / "train") if e.session_log.status == SessionLog.START]
    assert starts == [1, 11]
    curves = select_scalars(board / "train")
    assert (curves["loss", 10], curves["loss", 15]) == (0.5, 0.375)


@pytest.fixture
def no_terminal(monkeypatch):
    """Rich takes no output for a terminal, whatever the suite runs in."""
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)


def test_without_a_terminal_a_line_for_each_interval_and_epoch(no_terminal, capsys):
    splits = SimpleNamespace(validation=1, test=1)
    trainer = SimpleNamespace(
        config=SimpleNamespace(epochs=12), total_steps=10_000, resumed=None, splits=splits, stopped_early=False,
        progress=SimpleNamespace(epochs_done=1),
    )  # fmt: skip
    bar = ProgressBar()
    bar.on_train_begin(trainer)
    bar.on_step_end(trainer, range(1_233, 1_234))
    values = {"loss": 0.12345, "accuracy": 0.97513, "learning_rate": 0.001, "images_per_second": 12_345.6}
    bar.on_record(trainer, record(1_234, epoch=1.5, **values))
    bar.on_record(trainer, record(2_000, "validation", "epoch", 2.0, loss=2.0, accuracy=1.0))
    bar.on_record(trainer, record(2_000, "validation", "epoch", 2.0, inputs=Image(PIXELS)))
    bar.on_train_end(trainer)
    bar.close()
    assert capsys.readouterr().out.splitlines() == [
        "step 1,234/10,000  epoch 1.50  loss 0.1235  accuracy 97.51%  learning_rate 0.001  12,346 images/s",
        "epoch 2/12  validation  loss 2  accuracy 100.00%",
    ]


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("top_5_accuracy", 0.98765, "top_5_accuracy 98.77%"),
        ("images_per_second", 1234567.8, "1,234,568 images/s"),
        ("data_wait_seconds", 1.234, "data wait 1.23 s"),
        ("loss", 0.000123456, "loss 0.0001235"),
        ("loss", float("nan"), "loss nan"),
        ("checkpoint", "last", "checkpoint last"),
    ],
)
def test_values_are_shown_for_people(name, value, shown):
    assert format_value(name, value) == shown


def values_of(directory):
    """What a directory's summaries hold, by tag."""
    return {value.tag: value for event in events(directory) for value in event.summary.value}


def test_texts_and_histograms_are_read_back(tmp_path, random):
    numbers = random.normal(size=(50, 3)).astype(np.float32)
    tensorboard = open_writer(TensorBoard(), tmp_path)
    tensorboard(record(7, table=Text("| a | b |"), weights=Histogram(np.append(numbers, [np.nan, np.inf]))))
    tensorboard(record(8, weights=Histogram(np.zeros(0, np.float32))))
    tensorboard.close()
    found = {
        value.tag: value
        for event in events(tmp_path / "tensorboard/train")
        if event.step == 7
        for value in event.summary.value
    }
    assert found["table/text_summary"].tensor.string_val == [b"| a | b |"]
    histogram = found["weights"].histo
    assert (histogram.num, sum(histogram.bucket)) == (150, 150)
    assert histogram.sum == pytest.approx(numbers.sum(), rel=1e-5)
    below = [np.sum(numbers < limit) for limit in histogram.bucket_limit[:-1]]
    np.testing.assert_array_equal(np.cumsum(histogram.bucket)[:-1], below)


def test_the_graph_is_read_back_with_names_shapes_and_what_flows(tmp_path):
    nodes = trace_graph(Cnn(features=(4,), dense=(), classes=3), (8, 8, 1))
    tensorboard = open_writer(TensorBoard(), tmp_path)
    tensorboard(record(0, graph=Graph(nodes)))
    tensorboard.close()
    (definition,) = (
        GraphDef.FromString(event.graph_def) for event in events(tmp_path / "tensorboard/train") if event.graph_def
    )
    for node, found in zip(nodes, definition.node, strict=True):
        assert (node.name, node.operation, node.inputs) == (found.name, found.op, tuple(found.input))
        (shape,) = found.attr["_output_shapes"].list.shape
        assert node.shape == tuple(dim.size for dim in shape.dim)


def test_what_was_chosen_stands_beside_what_came_of_it(tmp_path):
    chosen = {"epochs": 3, "optimizer.class": "Adam", "ema": None, "flag": True}
    tensorboard = open_writer(TensorBoard(), tmp_path)
    tensorboard(record(9, "", choices=HyperParameters(chosen, {"test_accuracy": 0.75})))
    tensorboard.close()
    (file,) = (tmp_path / "tensorboard").iterdir()
    assert file.is_file()
    found = values_of(tmp_path / "tensorboard")
    assert found["test_accuracy"].simple_value == 0.75
    start = HParamsPluginData.FromString(found["_hparams_/session_start_info"].metadata.plugin_data.content)
    given = start.session_start_info.hparams
    assert (given["epochs"].number_value, given["optimizer.class"].string_value, given["flag"].bool_value) == (
        3,
        "Adam",
        True,
    )


def test_a_disk_that_is_full_is_an_error_of_the_writer(tmp_path):
    tensorboard = open_writer(TensorBoard(), tmp_path)
    tensorboard(record(1, loss=0.5))
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, limit[1]))
    try:
        with pytest.raises(OSError, match="too large"):
            tensorboard.flush()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    tensorboard.close()
