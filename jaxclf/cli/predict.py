"""`jaxclf predict`: predict the classes of image files."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from jaxclf import saliency
from jaxclf.cli.load_run import choose_output, load_run
from jaxclf.cli.options import PredictOptions
from jaxclf.datasets.folders import to_printable
from jaxclf.errors import UserError, require
from jaxclf.figures.overlay import overlay_map
from jaxclf.inference.explain import find_error, select_baseline
from jaxclf.inference.files import FoundImages, find_images
from jaxclf.inference.predict import Prediction, UnreadableImage, predict_files
from jaxclf.inference.preprocess import Preprocessor
from jaxclf.inference.trained_model import TrainedModel
from jaxclf.io.files import atomic_write, choose_name, replace_non_finite
from jaxclf.io.progress import track_progress
from jaxclf.saliency.names import METHODS, check_name

SOME_FAILED = 4  # exit code if some images could not be predicted; the others were


def run(options: PredictOptions) -> int:
    """Run `jaxclf predict`; return the exit code."""
    require(options.explain is not None or options.output is None, "--output is for drawings; add --explain METHOD")
    draw = None
    if options.explain is not None:
        check_name(options.explain)
        draw = OverlayWriter(choose_output(options, options.output, "predictions"), options.explain)
    found = find_named_images(options.paths)
    run = load_run(options)
    classes = len(run.class_names)
    require(1 <= options.top <= classes, f"top={options.top}: expected 1 to {classes}, the number of classes")
    preprocess = Preprocessor(run.image_shape, options.invert, options.center, run.resizing)
    method = None if options.explain is None else _make_method(options.explain, run)
    predictions = predict_files(run, found.files, preprocess, method)
    unread = _write_predictions(predictions, len(found.files), run, options, draw)
    return SOME_FAILED if found.missing or unread else 0


def find_named_images(arguments: Sequence[str]) -> FoundImages:
    """Return the images that arguments name; print what was not found, and raise UserError if nothing was."""
    found = find_images(arguments)
    if not found.files:
        raise UserError("no images found; name image files, folders or patterns that match them", found.missing)
    for line in found.missing:
        print(line, file=sys.stderr)
    if found.left_out:
        print(f"files in folders that are not images by their suffix, left out: {found.left_out:,}", file=sys.stderr)
    return found


def _make_method(name: str, run: TrainedModel) -> saliency.Method:
    """Return the saliency method of a name, with its defaults; raise UserError if it does not suit the network."""
    method = METHODS[name]()
    reason = find_error(run, method)
    if reason is not None:
        raise UserError(f"{name}: {reason}") from reason
    select_baseline(run, method)  # training images that are missing are an error before the first row
    return method


def _write_predictions(
    predictions: Iterator[Prediction | UnreadableImage],
    total: int,
    run: TrainedModel,
    options: PredictOptions,
    draw: OverlayWriter | None,
) -> int:
    """Write a row for each prediction as it comes; return the number of images that could not be read."""
    write = _open_writer(options)
    unread, inverted = 0, 0
    # No progress bar if the rows go to the terminal too.
    for one in predictions if sys.stdout.isatty() else track_progress(predictions, total, "predicting images"):
        if isinstance(one, UnreadableImage):
            print(f"{to_printable(one.path)}: {one.reason}", file=sys.stderr)
            unread += 1
            continue
        inverted += one.prepared.inverted
        drawn = {"overlay": str(draw(one))} if draw else {}
        write(_make_row(one, run.class_names, options.top) | drawn)
    if inverted and options.invert == "auto":
        print(f"inverted, since dark on light: {inverted:,} of {total:,} (--invert no turns this off)", file=sys.stderr)
    if unread:
        print(f"not predicted: {unread:,} of {total:,}", file=sys.stderr)
    return unread


def _list_columns(top: int) -> list[tuple[str, str]]:
    """Return the names of the label and confidence columns, by rank; those of the first have no number."""
    return [("label", "confidence"), *((f"label_{n}", f"confidence_{n}") for n in range(2, top + 1))]


def _make_row(prediction: Prediction, class_names: Sequence[str], top: int) -> dict[str, str | float]:
    """Return a prediction by column."""
    best = np.argsort(-prediction.probabilities, stable=True)
    row: dict[str, str | float] = {"path": prediction.path}
    for (label, confidence), i in zip(_list_columns(top), best, strict=False):
        row[label], row[confidence] = class_names[int(i)], float(prediction.probabilities[i])
    return row


def _open_writer(options: PredictOptions) -> Callable[[dict[str, str | float]], None]:
    """Write the header to standard output; return a function that writes a row."""
    out = sys.stdout  # bound once: a progress bar redirects sys.stdout to standard error
    if isinstance(out, io.TextIOWrapper):
        out.reconfigure(encoding="utf-8", errors="surrogateescape")  # file names may be any bytes
    if options.format == "jsonl":
        return lambda row: print(json.dumps(replace_non_finite(row), allow_nan=False), file=out, flush=True)
    names = [name for pair in _list_columns(options.top) for name in pair]
    table = csv.DictWriter(out, ["path", *names, *(["overlay"] if options.explain else [])], lineterminator="\n")
    table.writeheader()

    def write(row: dict[str, str | float]) -> None:
        table.writerow({name: f"{x:.6f}" if isinstance(x, float) else x for name, x in row.items()})
        out.flush()

    return write


class OverlayWriter:
    """Writes overlays to a directory as `<image>-<method>.png`; images of the same name are numbered."""

    def __init__(self, directory: Path, method: str):
        self.directory, self.method = directory, method
        self._names: set[str] = set()

    def __call__(self, prediction: Prediction) -> Path:
        """Draw the saliency map of a prediction; return the path of the file."""
        assert prediction.values is not None
        name = choose_name(f"{Path(prediction.path).stem}-{self.method}", self._names)
        self.directory.mkdir(parents=True, exist_ok=True)
        path = self.directory / f"{name}.png"
        with atomic_write(path) as partial:
            Image.fromarray(overlay_map(prediction.prepared.image, prediction.values)).save(partial)
        return path
