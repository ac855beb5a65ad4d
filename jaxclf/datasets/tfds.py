"""Datasets prepared by TensorFlow Datasets, read without TensorFlow. https://www.tensorflow.org/datasets"""

from __future__ import annotations

import json
import math
import os
import re
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from jaxclf.datasets.tfrecord import EncodedImages, Record, read_tfrecords, wrap_errors
from jaxclf.errors import UserError, require, suggest_names
from jaxclf.io.files import Json
from jaxclf.types import Split, Splits

# Types of TFDS, which is imported on first use.
Builder: TypeAlias = Any  # tfds.core.DatasetBuilder
Info: TypeAlias = Any  # tfds.core.DatasetInfo

MEMORY_LIMIT = 2 << 30  # bytes of decoded images
NAME = re.compile(r"(\w+)(/[\w.+-]+)?(:[\d.*]+)?")  # no namespace: TFDS would download code for it
PARTS = {"train": ("train",), "validation": ("validation", "valid", "val"), "test": ("test",)}


def _import_tfds() -> Any:
    """Import tensorflow_datasets on first use; it imports TensorFlow only to prepare a dataset."""
    import tensorflow_datasets

    return tensorflow_datasets


@dataclass(frozen=True)
class Tfds:
    """An image-classification dataset that TensorFlow Datasets has prepared on disk.

    Files in the format array_record are read by index; TFRecord files are decoded into memory. Both are read once for
    the labels. A validation or test split without labels (-1) is left out.
    """

    name: str
    """Name, with configuration and version if there are several: `mnist`, `cifar10:3.0.2`."""
    data_dir: str | None = None
    """Directory of prepared datasets; by default, TFDS_DATA_DIR or ~/tensorflow_datasets."""
    download: bool = False
    """Download and prepare the dataset if it is missing."""
    image_size: tuple[int, int] | None = None
    """Height and width to resize to; required if images vary in size."""
    validation: int = 0
    """Number of training images to hold out, always the same ones, if the dataset has no validation split."""

    def load(self) -> Splits:
        """Read the labels, and the images if they are in TFRecord files.

        Returns:
            The splits: images [n, h, w, c], uint8.

        Raises:
            UserError: If the dataset is not prepared, is damaged, or is no image classification.
        """
        builder = self._find() or self._prepare()
        info = builder.info
        parse, stored_shape, class_names = _make_parser(info)
        shape = self._choose_image_shape(stored_shape)
        sizes = {name: split.num_examples for name, split in info.splits.items() if split.num_examples}
        names = {part: name for part, choices in PARTS.items() for name in choices if name in sizes}
        require("train" in names, f"{self.name} has no images to train with; its splits: {', '.join(sizes) or 'none'}")
        by_index = _is_indexed(info)
        if not by_index:
            _require_memory(info.full_name, sum(sizes[name] for name in names.values()), shape)
        splits = {}
        for part, (name, rows) in self._split_rows(names, sizes).items():
            title, records = f"of the split {name} of {info.full_name}", _read_records(builder, name, by_index)
            images = EncodedImages(title, records, rows, parse, shape, resize=self.image_size is not None)
            labels = images.read_labels()
            if part == "train" or labels.max() >= 0:
                splits[part] = Split(images if by_index else images[:], labels, class_names)
        return Splits(splits["train"], splits.get("validation"), splits.get("test"))

    @property
    def _directory(self) -> Path:
        return Path(self.data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets").expanduser().absolute()

    def _find(self) -> Builder | None:
        """Return TFDS's reader of the prepared files, made from their metadata alone, or None if there are none."""
        core, match = _import_tfds().core, NAME.fullmatch(self.name)
        if match is None:
            raise UserError(
                f"{self.name!r} is not the name of a dataset: expected a name such as mnist or cifar10:3.0.2"
            )
        with wrap_errors(f"cannot read {self.name} in {self._directory}"):
            directory = self._directory / match[1]
            for path in (*directory.glob("*/features.json"), *directory.glob("*/*/features.json")):
                json.loads(path.read_text(encoding="utf-8"), object_hook=_refuse_foreign_code)
            try:
                return core.read_only_builder.builder_from_files(self.name, data_dir=str(self._directory))
            except core.DatasetNotFoundError:
                return None

    def _prepare(self) -> Builder:
        """Download and prepare the dataset with TFDS; raise UserError if that fails or is not enabled."""
        tfds, directory = _import_tfds(), str(self._directory)
        base, known = re.split("[/:]", self.name)[0], tfds.list_builders(with_community_datasets=False)
        if base not in known:
            near = suggest_names(base, known)
            raise UserError(f"{directory} has no dataset {base!r}, nor does TFDS know that name{near}")
        if not self.download:
            raise UserError(
                f"{self.name} is not prepared in {directory}. Prepare it with\n"
                f"  tfds build {self.name} --data_dir {shlex.quote(directory)} --file_format array_record\n"
                "or download it with --dataset.download"
            )
        with wrap_errors(f"cannot prepare {self.name} in {directory}", fix=""):
            file_format = "array_record" if find_spec("array_record") else "tfrecord"
            tfds.builder(self.name, data_dir=directory).download_and_prepare(file_format=file_format)
        return self._find()

    def _choose_image_shape(self, stored: tuple[int | None, ...]) -> tuple[int, int, int]:
        """Return height, width and channels of the images, of which the stored ones may be unknown."""
        height, width = self.image_size or stored[:2]
        if height is None or width is None:
            raise UserError(f"the images of {self.name} vary in size; resize them with --dataset.image-size 224 224")
        require(min(height, width) > 0, f"image_size={self.image_size}: expected a height and a width of 1 or more")
        return height, width, stored[2] or 3

    def _split_rows(self, names: dict[str, str], sizes: dict[str, int]) -> dict[str, tuple[str, np.ndarray]]:
        """Return the TFDS split of each part and the rows [n] to use of it."""
        parts = {part: (name, np.arange(sizes[name])) for part, name in names.items()}
        if self.validation:
            require("validation" not in names, f"{self.name} has its own validation split: leave validation at 0")
            name, most = names["train"], sizes[names["train"]] - 1
            require(0 < self.validation <= most, f"validation={self.validation}: expected 0 to {most} of the images")
            # Not the first ones: if TFDS does not shuffle the dataset, they may all be of one class.
            shuffled = np.random.default_rng(0).permutation(sizes[name])
            parts["validation"] = name, np.sort(shuffled[: self.validation])
            parts["train"] = name, np.sort(shuffled[self.validation :])
        return parts


def _make_parser(info: Info) -> tuple[Callable[[Record], tuple[bytes, int]], tuple[int | None, ...], tuple[str, ...]]:
    """Return a function from a record to its encoded image and label, the stored image shape, and the class names."""
    tfds = _import_tfds()
    image, label = _find_features(info)
    wanted = tfds.features.FeaturesDict({key: info.features[key] for key in (image, label)})
    encoded = {image: tfds.decode.SkipDecoding()}

    def parse(record: Record) -> tuple[bytes, int]:
        example = wanted.deserialize_example_np(record, decoders=encoded)
        return example[image], example[label]

    return parse, wanted[image].shape, tuple(wanted[label].names)


def _find_features(info: Info) -> tuple[str, str]:
    """Return the names of the image and label features; raise UserError unless there is one of each."""
    tfds = _import_tfds()
    features = dict(sorted(info.features.items())) if isinstance(info.features, tfds.features.FeaturesDict) else {}
    images = [key for key, feature in features.items() if type(feature) is tfds.features.Image]
    images = [key for key in images if len(features[key].shape) == 3 and features[key].np_dtype == np.uint8]
    labels = [key for key, feature in features.items() if type(feature) is tfds.features.ClassLabel]
    supervised = info.supervised_keys or ()
    images, labels = ([key for key in keys if key in supervised] or keys for keys in (images, labels))
    if len(images) == len(labels) == 1 and features[labels[0]].num_classes:
        return images[0], labels[0]
    found = ", ".join(f"{key} ({type(feature).__name__})" for key, feature in features.items()) or info.features
    raise UserError(f"{info.full_name} has {found}: expected one Image with 8 bits per channel and one ClassLabel")


def _is_indexed(info: Info) -> bool:
    """Return True for array_record files, which are read by index, and False for TFRecord files."""
    formats = {file_format.value for file_format in info.available_file_formats()}
    found = ", ".join(sorted(formats))
    require(
        "array_record" in formats or formats == {"tfrecord"},
        f"{info.full_name} is prepared as {found}: expected array_record or tfrecord; prepare it again",
    )
    return "array_record" in formats


def _require_memory(name: str, count: int, shape: tuple[int, int, int]) -> None:
    """Raise UserError if images [count, *shape] take more memory than the limit."""
    size, images = count * math.prod(shape), f"{count} images of {'x'.join(map(str, shape))}"
    require(
        size <= MEMORY_LIMIT,
        f"{name}: {images} take {size:,} bytes of memory, the limit is {MEMORY_LIMIT:,}; "
        "prepare it with --file_format array_record, or make --dataset.image-size smaller",
    )


def _read_records(builder: Builder, name: str, by_index: bool) -> Sequence[Record]:
    """Return the serialized examples of a split, which stay on disk until they are used."""
    with wrap_errors(f"cannot read the split {name} of {builder.info.full_name}"):
        if by_index:
            raw = _import_tfds().decode.DeserializeMethod.RAW_BYTES
            return builder.as_data_source(name, deserialize_method=raw)
        split = builder.info.splits[name]
        records = [record for path in split.filepaths for record in read_tfrecords(Path(path))]
        require(len(records) == split.num_examples, f"{len(records)} examples, expected {split.num_examples}")
        return records


def _refuse_foreign_code(part: dict[str, Json]) -> dict[str, Json]:
    """Return a part of a features.json; raise UserError if it names a class outside TFDS, which TFDS would import."""
    for key in ("type", "pythonClassName", "python_class_name"):
        if isinstance(name := part.get(key), str) and not name.startswith("tensorflow_datasets."):
            raise UserError(f"features.json names code outside TFDS, {name!r}")
    return part
