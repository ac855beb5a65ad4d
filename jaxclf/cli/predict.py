"""Predict the classes of pictures in files: `python predict.py runs/mnist_cnn digits/*.png`."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from jaxclf import saliency
from jaxclf.cli.load_run import load_run
from jaxclf.cli.options import PredictOptions
from jaxclf.datasets.scan import printable
from jaxclf.errors import UserError, require
from jaxclf.inference.explain import refusal
from jaxclf.inference.files import Named, find_pictures
from jaxclf.inference.predict import Predicted, Unread, predict_files
from jaxclf.inference.preprocess import Preparation
from jaxclf.inference.trained_model import TrainedModel
from jaxclf.io.files import finite, whole
from jaxclf.io.progress import shown
from jaxclf.reporting.figures.overlay import overlay
from jaxclf.saliency.names import METHODS, check_name

SOME_FAILED = 4  # the exit code where some pictures could not be predicted; the others were


def run(options: PredictOptions) -> int:
    """Find the pictures, load the run, write a row for each picture; what goes wrong is said on standard error."""
    check_drawing(options)
    named = found(options.paths)
    run = load_run(options)
    classes = len(run.class_names)
    require(1 <= options.top <= classes, f"top={options.top}: expected 1 to {classes}, the number of classes")
    preparation = Preparation(run.image_shape, options.invert, options.center)
    method = fitting_method(options.explain, run)
    answers = predict_files(run, named.files, preparation, method)
    unread = write_answers(answers, len(named.files), run, options)
    return SOME_FAILED if named.missing or unread else 0


def check_drawing(options: PredictOptions) -> None:
    """Raise UserError for a method that does not exist, and for a place of drawings without one."""
    name = options.explain
    require(name is not None or options.output is None, "--output is for drawings; add --explain METHOD")
    if name is not None:
        check_name(name)


def fitting_method(name: str | None, run: TrainedModel) -> saliency.Method | None:
    """The method of that name with its defaults; raises UserError where it does not fit the network."""
    if name is None:
        return None
    method = METHODS[name]()
    reason = refusal(run, method)
    if reason is not None:
        raise UserError(f"{name}: {reason}") from reason
    return method


def found(words: Sequence[str]) -> Named:
    """The pictures that words name; what leads to none is said, and is a UserError where nothing leads to any."""
    named = find_pictures(words)
    if not named.files:
        raise UserError("no pictures to predict: name files, folders or patterns that match them", named.missing)
    for line in named.missing:
        print(line, file=sys.stderr)
    if named.left_out:
        print(f"files in folders whose names do not end as a picture's, left out: {named.left_out:,}", file=sys.stderr)
    return named


def write_answers(answers: Iterator[Predicted | Unread], total: int, run: TrainedModel, options: PredictOptions) -> int:
    """Write a row for each prediction as it comes; returns how many pictures could not be read."""
    write = row_writer(options)
    draw = Drawings(options.output or options.run / "predictions", options.explain) if options.explain else None
    unread, inverted = 0, 0
    # A bar among the rows of a terminal would be in their way.
    for answer in answers if sys.stdout.isatty() else shown(answers, total, "pictures to predict"):
        if isinstance(answer, Unread):
            print(f"{printable(answer.path)}: {answer.reason}", file=sys.stderr)
            unread += 1
            continue
        inverted += answer.prepared.inverted
        drawn = {"overlay": str(draw(answer))} if draw else {}
        write(row_of(answer, run.class_names, options.top) | drawn)
    if inverted and options.invert == "auto":
        print(f"dark on light, so inverted: {inverted:,} of {total:,} (--invert no leaves them)", file=sys.stderr)
    if unread:
        print(f"not predicted: {unread:,} of {total:,}", file=sys.stderr)
    return unread


def columns(top: int) -> list[tuple[str, str]]:
    """The names of the columns of the label and the confidence of each place: those of the first have no number."""
    return [("label", "confidence"), *((f"label_{n}", f"confidence_{n}") for n in range(2, top + 1))]


def row_of(answer: Predicted, class_names: Sequence[str], top: int) -> dict[str, Any]:
    """What is written of a prediction, by column."""
    best = np.argsort(-answer.probabilities, stable=True)
    row: dict[str, Any] = {"path": answer.path}
    for (label, confidence), i in zip(columns(top), best, strict=False):
        row |= {label: class_names[i], confidence: float(answer.probabilities[i])}
    return row


def row_writer(options: PredictOptions) -> Callable[[dict[str, Any]], None]:
    """What writes a row on standard output, as UTF-8 with the bytes of file names as they are; writes the header."""
    out = sys.stdout  # asked for once: while a bar is shown, it leads to standard error
    if isinstance(out, io.TextIOWrapper):
        out.reconfigure(encoding="utf-8", errors="surrogateescape")
    if options.format == "jsonl":
        return lambda row: print(json.dumps(finite(row), allow_nan=False), file=out, flush=True)
    names = [name for pair in columns(options.top) for name in pair]
    table = csv.DictWriter(out, ["path", *names, *(["overlay"] if options.explain else [])], lineterminator="\n")
    table.writeheader()

    def write(row: dict[str, Any]) -> None:
        table.writerow({name: f"{x:.6f}" if isinstance(x, float) else x for name, x in row.items()})
        out.flush()

    return write


class Drawings:
    """Overlays in a directory, `<picture>-<method>.png`; pictures of one name get numbers."""

    def __init__(self, directory: Path, method: str):
        self.directory, self.method = directory, method
        self._names: Counter[str] = Counter()

    def __call__(self, answer: Predicted) -> Path:
        """Draw one, and return where."""
        assert answer.values is not None
        name = f"{Path(answer.path).stem}-{self.method}"
        self._names[name] += 1
        number = f"-{self._names[name]}" if self._names[name] > 1 else ""
        self.directory.mkdir(parents=True, exist_ok=True)
        path = self.directory / f"{name}{number}.png"
        with whole(path) as partial:
            Image.fromarray(overlay(answer.prepared.image, answer.values)).save(partial)
        return path
