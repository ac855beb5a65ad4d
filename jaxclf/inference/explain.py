"""Saliency methods asked about the images of a split, a batch at a time, and what is kept of their answers."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxclf import saliency
from jaxclf.errors import UserError
from jaxclf.inference.trained_model import TrainedModel
from jaxclf.io.npz import growing_npz
from jaxclf.io.progress import shown
from jaxclf.random import stream
from jaxclf.saliency.metrics.robustness import OF_MEASURE
from jaxclf.saliency.query import DEFAULT_ROWS
from jaxclf.saliency.sampling import sample_keys
from jaxclf.training.devices import Devices
from jaxclf.types import Split

DRAWN = 10  # images whose maps are kept for pictures
REFERENCES = 20  # training images that are the baselines of expected gradients
CHANGES = 30  # random changes of an image behind its infidelity
AFFORDABLE = 100  # most evaluations of a method that is asked ten times more, for its sensitivity


class Asked(NamedTuple):
    """A batch on the devices, padded to a number that divides into them by its last image."""

    images: Any
    predictions: Any
    keys: Any
    rows: int  # that are no padding


class Answer(NamedTuple):
    """What a method says of some consecutive images, as NumPy arrays."""

    method: str
    start: int  # the first of them
    predictions: np.ndarray
    attribution: saliency.Attribution
    measures: dict[str, np.ndarray]  # [b] each
    seconds: float  # of the call; the measures are not in it


@dataclass(frozen=True, eq=False)
class Explainer:
    """Methods by name, and the run they are asked about."""

    run: TrainedModel
    methods: dict[str, saliency.Method]
    devices: Devices
    measured: bool = False
    """Whether every answer is measured."""

    @cached_property
    def variables(self) -> Any:
        """The weights, on every device."""
        return jax.device_put(self.run.variables, self.devices.replicated)

    @cached_property
    def references(self) -> Any:
        """Some training images, the same every time, for methods whose baseline is many images."""
        train = self.run.splits.train
        return jax.device_put(train.images[train.some(REFERENCES)], self.devices.replicated)

    def batch_size(self, images: int) -> int:
        """How many of so many images are asked about together: a number that divides into the devices."""
        size = min(images, self.run.config.eval_batch_size, DEFAULT_ROWS)
        return -(-size // self.devices.mesh.size) * self.devices.mesh.size

    def calls(self, images: int) -> int:
        """How many answers there are about so many images."""
        return -(-images // self.batch_size(images)) * len(self.methods)

    def answers(self, split: Split, indices: np.ndarray) -> Iterator[Answer]:
        """What each method says, batch by batch, of the images at these indices, about their predicted classes.

        What is drawn depends on the seed of the run and the index of the image: batches change rounding only.
        """
        size = self.batch_size(len(indices))
        cheap = {}
        for start in range(0, len(indices), size):
            batch = self._batch(split, indices[start : start + size], size)
            for name, method in self.methods.items():
                attribution, seconds = self._ask(method, batch)
                # The first batch decides for all: adaptive methods take more for some images than for others.
                cheap.setdefault(name, bool(attribution.evaluations.max() <= AFFORDABLE))
                measures = self._measures(method, batch, attribution, cheap[name]) if self.measured else {}
                parts = (np.asarray(batch.predictions), attribution, measures)
                yield Answer(name, start, *jax.tree.map(lambda x, rows=batch.rows: x[:rows], parts), seconds=seconds)

    def _batch(self, split: Split, indices: np.ndarray, size: int) -> Asked:
        images = split.images[indices]
        predictions = self.run.predict(images).argmax(axis=1)
        root = stream(self.run.config.seed, "saliency")
        keys = jax.vmap(partial(jax.random.fold_in, root))(indices)
        padded = np.minimum(np.arange(size), len(indices) - 1)
        arrays = (images[padded], predictions[padded], keys[padded])
        return Asked(*jax.device_put(arrays, self.devices.sharded), rows=len(indices))

    def _ask(self, method: saliency.Method, batch: Asked) -> tuple[saliency.Attribution, float]:
        """What a method says of a batch, padding included, as NumPy arrays, and the seconds it took."""
        began = time.perf_counter()
        asked = (self.run.model, self.variables, batch.images, batch.predictions)
        attribution = jax.device_get(method(*asked, key=batch.keys, baseline=self.baseline(method)))
        return attribution, time.perf_counter() - began

    def baseline(self, method: saliency.Method) -> Any:
        """What a method that compares with many images compares with; None for others."""
        return self.references if method.references else None

    def _measures(
        self, method: saliency.Method, batch: Asked, attribution: saliency.Attribution, cheap: bool
    ) -> dict[str, np.ndarray]:
        """What is measured, [b] each, of what a method says of the predicted classes."""
        if isinstance(method, saliency.AllClasses):
            method, attribution = method.method, of_classes(attribution, np.asarray(batch.predictions))
        a = jax.device_put(attribution, self.devices.sharded)
        calls: dict[str, Callable[[], Any]] = {
            "gini": partial(saliency.gini, a),
            "entropy": partial(saliency.entropy, a),
        }
        if a.delta is not None:
            calls["completeness"] = partial(saliency.completeness, a)
        asked, targets = (self.run.model, self.variables, batch.images), batch.predictions
        pixels = a._replace(values=jax.image.resize(a.values, (*batch.images.shape[:3], a.values.shape[3]), "bilinear"))
        options = {"targets": targets, "max_rows": method.max_rows}
        calls["insertion"] = lambda: saliency.insertion(*asked, pixels, **options).auc
        calls["deletion"] = lambda: saliency.deletion(*asked, pixels, **options).auc
        key = jax.device_put(sample_keys(batch.keys, jnp.int32(OF_MEASURE)), self.devices.sharded)
        calls["infidelity"] = partial(
            saliency.infidelity, *asked, pixels, key=key, samples=CHANGES, normalize=True, score=method.score, **options
        )
        if cheap and not method.host:
            calls["sensitivity_max"] = partial(
                saliency.sensitivity_max, method, *asked,
                key=batch.keys, targets=targets, baseline=self.baseline(method),
            )  # fmt: skip
        # One after the other: on several virtual CPU devices programs that overlap can wait for each other for ever.
        return {name: jax.device_get(call()) for name, call in calls.items()}


def of_classes(attribution: saliency.Attribution, classes: np.ndarray) -> saliency.Attribution:
    """Of an attribution of all classes, as NumPy arrays, that of one class for each example."""
    return jax.tree.map(lambda x: x[np.arange(len(classes)), classes], attribution)


@dataclass
class Findings:
    """What is kept of the answers of one method."""

    seconds: float = 0.0
    """Of its calls, compilation included."""
    evaluations: list[np.ndarray] = field(default_factory=list)
    measures: dict[str, list[np.ndarray]] = field(default_factory=dict)
    maps: list[np.ndarray] = field(default_factory=list)
    """Values of the first images, for their predicted classes."""

    def add(self, answer: Answer, every_class: bool) -> None:
        """Keep what is needed of another answer."""
        a = of_classes(answer.attribution, answer.predictions) if every_class else answer.attribution
        self.seconds += answer.seconds
        self.evaluations.append(a.evaluations)
        for name, values in answer.measures.items():
            self.measures.setdefault(name, []).append(values)
        self.maps.extend(a.values[: DRAWN - len(self.maps)])


class Explanation(NamedTuple):
    """What the methods said of a split."""

    predictions: np.ndarray
    findings: dict[str, Findings]


def explain(explainer: Explainer, split: Split, indices: np.ndarray, path: Path) -> Explanation:
    """Ask about the images at these indices of a split; the answers go into a .npz file as they come."""
    findings = {name: Findings() for name in explainer.methods}
    predictions = np.empty(len(indices), np.int32)
    what = f"images to explain: {len(indices):,}, methods: {len(findings)}; calls"
    with growing_npz(path, len(indices)) as append:
        append({"indices": indices, "labels": split.labels[indices]})
        for answer in shown(explainer.answers(split, indices), explainer.calls(len(indices)), what):
            parts = answer.attribution._asdict()
            append({f"{answer.method}.{part}": x for part, x in parts.items() if x is not None})
            findings[answer.method].add(answer, explainer.methods[answer.method].every_class)
            predictions[answer.start : answer.start + len(answer.predictions)] = answer.predictions
        append({"predictions": predictions})
    return Explanation(predictions, findings)


def refusal(run: TrainedModel, method: saliency.Method) -> UserError | None:
    """Why a method does not fit the network of a run, or cannot work here; None where it does."""
    images, key = jax.ShapeDtypeStruct((1, *run.image_shape), np.uint8), jax.random.key(0)
    try:
        if method.host:
            method(run.model, run.variables, np.zeros(images.shape, images.dtype), key=key)
        else:
            jax.eval_shape(
                lambda variables, images: method(run.model, variables, images, key=key), run.variables, images
            )
    except UserError as error:
        return error
    return None


def class_gradients(run: TrainedModel, images: np.ndarray, classes: Sequence[int]) -> np.ndarray:
    """Gradients of the highest probability and of those of some classes, by the pixels: [n, 1 + classes, h, w, c]."""
    method = saliency.Gradient(score="probability")
    targets = (None, *classes)
    gradients = [jax.device_get(method(run.model, run.variables, images, target).values) for target in targets]
    return np.stack(gradients, axis=1)
