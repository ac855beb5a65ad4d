"""Saliency methods applied to the images of a split in batches, with metrics on request."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float, Int, Num

from jaxclf import saliency
from jaxclf.errors import UserError, require
from jaxclf.inference.trained_model import TrainedModel
from jaxclf.io.npz import open_npz_writer
from jaxclf.io.progress import track_progress
from jaxclf.random import make_example_keys
from jaxclf.training.devices import Devices
from jaxclf.training.user_code import explain_out_of_memory
from jaxclf.types import Split, Variables

MAX_MAPS = 10  # images whose maps are kept for figures
BASELINE_IMAGES = 20  # training images in the baseline distribution of expected gradients
MEASURED = (
    "gini", "entropy", "completeness", "insertion", "deletion", "infidelity", "sensitivity_max",
    "srg", "irof", "saco", "single_deletion",
)  # fmt: skip
MAX_EVALUATIONS = 100  # of methods whose sensitivity is measured, which costs ten times as much as the method


class DeviceBatch(NamedTuple):
    """A batch on the devices, padded with its last image to a multiple of their number."""

    images: jax.Array
    predictions: jax.Array
    keys: jax.Array
    rows: int
    """The number of rows without padding."""


class BatchResult(NamedTuple):
    """The attributions of one method for consecutive images, as NumPy arrays."""

    method: str
    start: int
    """The position of the first image."""
    predictions: Int[np.ndarray, " b"]
    attribution: saliency.Attribution
    measures: dict[str, Float[np.ndarray, " b"]]
    seconds: float
    """The duration of the method call, without the measures."""


@dataclass(frozen=True, eq=False)
class Explainer:
    """Saliency methods by name, and the run whose predictions they explain."""

    run: TrainedModel
    methods: dict[str, saliency.Method]
    devices: Devices
    measured: bool = False
    """Compute metrics of every attribution."""

    @cached_property
    def variables(self) -> Variables:
        """The variables of the model on every device."""
        return jax.device_put(self.run.variables, self.devices.replicated)

    @cached_property
    def baselines(self) -> dict[str, jax.Array | None]:
        """The baseline of each method."""
        return {name: select_baseline(self.run, method, self.devices) for name, method in self.methods.items()}

    def compute_batch_size(self, images: int) -> int:
        """Return the batch size for a number of images, a multiple of the number of devices."""
        size = min(images, self.run.eval_batch_size, saliency.DEFAULT_MAX_ROWS)
        return -(-size // self.devices.mesh.size) * self.devices.mesh.size

    def count_calls(self, images: int) -> int:
        """Return the number of results of `explain_batches` for a number of images."""
        return -(-images // self.compute_batch_size(images)) * len(self.methods)

    def explain_batches(self, split: Split, indices: Int[np.ndarray, " n"]) -> Iterator[BatchResult]:
        """Explain the predicted classes of images with each method.

        Random numbers depend on the seed of the run and the index of the image; the batch size affects rounding only.

        Args:
            split: The split.
            indices: The indices of its images to explain.

        Yields:
            The results of each method for each batch.
        """
        size = self.compute_batch_size(len(indices))
        cheap = {}
        for start in range(0, len(indices), size):
            batch = self._load_batch(split, indices[start : start + size], size)
            for name in self.methods:
                attribution, seconds = self._run_method(name, batch)
                # Decided by the first batch, so that all images have the same measures: the evaluations of adaptive
                # methods differ between images.
                cheap.setdefault(name, bool(attribution.evaluations.max() <= MAX_EVALUATIONS))
                measures = self._measure(name, batch, attribution, cheap[name]) if self.measured else {}
                parts = (np.asarray(batch.predictions), attribution, measures)
                parts = jax.tree.map(lambda x, rows=batch.rows: x[:rows], parts)
                yield BatchResult(name, start, *parts, seconds=seconds)

    def _load_batch(self, split: Split, indices: Int[np.ndarray, " n"], size: int) -> DeviceBatch:
        images = split.images[indices]
        predictions = self.run.predict(images).argmax(axis=1)
        images = self.run.transform(images)
        keys = make_example_keys(self.run.config.seed, indices)
        padded = np.minimum(np.arange(size), len(indices) - 1)
        arrays = (images[padded], predictions[padded], keys[padded])
        return DeviceBatch(*jax.device_put(arrays, self.devices.sharded), rows=len(indices))

    def _run_method(self, name: str, batch: DeviceBatch) -> tuple[saliency.Attribution, float]:
        """Return the attributions of a batch with its padding, as NumPy arrays, and the seconds they took."""
        began = time.perf_counter()
        inputs = (self.run.model, self.variables, batch.images, batch.predictions)
        with explain_out_of_memory(f"the maps of {name}", f"limit the images in a model call: --{name}.max-rows 8"):
            attribution = jax.device_get(self.methods[name](*inputs, key=batch.keys, baseline=self.baselines[name]))
        return attribution, time.perf_counter() - began

    def _measure(
        self, name: str, batch: DeviceBatch, attribution: saliency.Attribution, cheap: bool
    ) -> dict[str, Float[np.ndarray, " b"]]:
        """Compute metrics of the attributions of the predicted classes."""
        method = self.methods[name]
        if isinstance(method, saliency.AllClasses):
            method, attribution = method.method, select_classes(attribution, np.asarray(batch.predictions))
        a = jax.device_put(attribution, self.devices.sharded)
        inputs, targets = (self.run.model, self.variables, batch.images), batch.predictions
        # The channels of a layer are not those of the images.
        like_images = a.values.shape[-1] == batch.images.shape[-1]
        values = a.values if like_images else a.values.sum(axis=-1, keepdims=True)
        values = jax.image.resize(values, (*batch.images.shape[:3], values.shape[3]), "bilinear")
        pixels = a._replace(values=values)
        key = jax.device_put(saliency.make_metric_keys(batch.keys), self.devices.sharded)
        options = {"key": key, "targets": targets, "score": method.score, "max_rows": method.max_rows}
        calls: dict[str, Callable[[], Any]] = {
            name: partial(measure, *inputs, pixels if measure.perturbs else a, **options)
            for name, measure in saliency.MEASURES.items()
            if name in MEASURED
        }
        if a.delta is not None:
            calls["completeness"] = partial(saliency.completeness, a)
        if cheap and not method.host:
            calls["sensitivity_max"] = partial(
                saliency.sensitivity_max, method, *inputs,
                key=batch.keys, targets=targets, baseline=self.baselines[name],
            )  # fmt: skip
        # One after the other: overlapping programs on several virtual CPU devices can deadlock.
        return {name: jax.device_get(calls[name]()) for name in MEASURED if name in calls}


def select_baseline(run: TrainedModel, method: saliency.Method, devices: Devices | None = None) -> jax.Array | None:
    """Return the baseline of a method for a run.

    Args:
        run: The run, whose training images are loaded if they are needed.
        method: The saliency method.
        devices: The devices that hold the baseline; by default all.

    Returns:
        Training images [k, h, w, c] as the network sees them, the same in every call, for a method with a baseline
        distribution; None for others.
    """
    if not method.references:
        return None
    train = run.splits.train
    images = train.images[train.sample_indices(BASELINE_IMAGES)]
    return jax.device_put(run.transform(images), (devices or Devices.all()).replicated)


def select_classes(attribution: saliency.Attribution, classes: Int[np.ndarray, " b"]) -> saliency.Attribution:
    """Select one class per example from an attribution of all classes, as NumPy arrays."""
    return jax.tree.map(lambda x: x[np.arange(len(classes)), classes], attribution)


@dataclass
class MethodResults:
    """The results of one method for a split that are kept in memory."""

    seconds: float = 0.0
    """The duration of its calls, compilation included."""
    evaluations: list[np.ndarray] = field(default_factory=list)
    measures: dict[str, list[np.ndarray]] = field(default_factory=dict)
    maps: list[np.ndarray] = field(default_factory=list)
    """Values of the first images, for their predicted classes."""

    def add(self, result: BatchResult, every_class: bool) -> None:
        """Add the results for another batch."""
        a = select_classes(result.attribution, result.predictions) if every_class else result.attribution
        self.seconds += result.seconds
        self.evaluations.append(np.asarray(a.evaluations))
        for name, values in result.measures.items():
            self.measures.setdefault(name, []).append(values)
        self.maps.extend(a.values[: MAX_MAPS - len(self.maps)])


class Explanation(NamedTuple):
    """The predictions for a split, and the results of each method."""

    predictions: Int[np.ndarray, " n"]
    results: dict[str, MethodResults]


def explain_split(explainer: Explainer, split: Split, indices: Int[np.ndarray, " n"], path: Path) -> Explanation:
    """Explain images of a split and write the attributions to a .npz file as they are computed.

    Args:
        explainer: The run and the methods.
        split: The split.
        indices: The indices of its images to explain.
        path: The file, with arrays such as `gradient.values` for each method.

    Returns:
        Predictions, and the results without most attributions.
    """
    results = {name: MethodResults() for name in explainer.methods}
    predictions = np.empty(len(indices), np.int32)
    what = f"images to explain: {len(indices):,}, methods: {len(results)}; calls"
    with open_npz_writer(path, len(indices)) as append:
        append({"indices": indices, "labels": split.labels[indices]})
        batches = explainer.explain_batches(split, indices)
        for result in track_progress(batches, explainer.count_calls(len(indices)), what):
            parts = result.attribution._asdict()
            append({f"{result.method}.{part}": x for part, x in parts.items() if x is not None})
            results[result.method].add(result, explainer.methods[result.method].every_class)
            predictions[result.start : result.start + len(result.predictions)] = result.predictions
        append({"predictions": predictions})
    return Explanation(predictions, results)


def find_error(run: TrainedModel, method: saliency.Method) -> UserError | None:
    """Return the error that a method raises for the network of a run, or None. Only traced, unless it runs on the host.

    Args:
        run: The run.
        method: The saliency method.
    """
    if method.references and run.config.dataset is None and run.given_splits is None:
        return UserError("the method takes training images as its baseline, and pretrained weights have none")
    images, key = jax.ShapeDtypeStruct((1, *run.input_shape), np.uint8), jax.random.key(0)
    try:
        if method.host:
            method(run.model, run.variables, np.zeros(images.shape, images.dtype), key=key)
        else:
            a = jax.eval_shape(
                lambda variables, images: method(run.model, variables, images, key=key), run.variables, images
            )
            shape = list(a.values.shape)
            require(len(shape) == a.score.ndim + 3, f"values of shape {shape} have no height and width to be drawn")
    except UserError as error:
        return error
    return None


def compute_class_gradients(
    run: TrainedModel, images: Num[np.ndarray, "n h w c"], classes: Sequence[int]
) -> Float[np.ndarray, "n maps h w c"]:
    """Compute the gradients of class probabilities with respect to the pixels.

    Args:
        run: The run.
        images: The images.
        classes: The classes.

    Returns:
        The gradient of the largest probability, and of the probability of each class, [n, 1 + classes, h, w, c].
    """
    method = saliency.Gradient(score="probability")
    targets = (None, *classes)
    gradients = [jax.device_get(method(run.model, run.variables, images, target).values) for target in targets]
    return np.stack(gradients, axis=1)
