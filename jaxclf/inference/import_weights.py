"""Import of weight files: from a file of another library to a bundle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxclf.errors import UserError, require
from jaxclf.inference.bundle import Bundle, write_bundle
from jaxclf.io.files import get_cache_directory
from jaxclf.pretrained.classes import read_imagenet_classes
from jaxclf.pretrained.convert import convert_weights
from jaxclf.pretrained.networks import Network, find_network
from jaxclf.pretrained.packages import PACKAGES, find_weights
from jaxclf.pretrained.readers import WeightFile, read_weights

HEADS = ("fc", "head", "head.fc", "classifier", "classifier.2", "_fc")  # last layers by their names in other libraries


def build_bundle(
    weights: WeightFile, source: Mapping[str, Any], network_name: str, class_names: Sequence[str] | None = None
) -> Bundle:
    """Build a bundle from the content of a weight file.

    Args:
        weights: What was read.
        source: What is known of the file besides its digest, such as its name and license, for the certificate.
        network_name: The network it belongs to, one of `NETWORKS`, such as "resnet50".
        class_names: A name for each logit; by default those of ImageNet if there are 1,000, otherwise numbers.

    Raises:
        UserError: If the tensors are not those of the network.
    """
    network = find_network(network_name)
    classes = _count_classes(weights.arrays)
    model = network.make_model(classes)
    converted = convert_weights(model, (network.side, network.side, 3), weights.arrays)
    certificate = {
        "source": {**source, "sha256": weights.sha256},
        "network": network_name,
        "layout": converted.layout,
        "tensors_used": len(converted.used),
        "tensors_ignored": list(converted.ignored),
        "adapted": list(converted.adapted),
        "preprocessing": _describe_preprocessing(network),
    }
    names = _choose_class_names(classes, class_names)
    return Bundle(model, converted.variables, names, network.side, network.resize, network.interpolation, certificate)


def locate_run(path: Path) -> Path:
    """Return the directory of a run, or of the bundle that a name such as "lite0" stands for.

    A directory of that name wins. Otherwise the installed package is imported into the cache of the user when it is
    used for the first time.

    Raises:
        UserError: If the package is not installed, or has other weights than those that are known.
    """
    name = str(path)
    if path.exists() or name not in PACKAGES:
        return path
    package = PACKAGES[name]
    bundle_path = get_cache_directory() / "weights" / f"{name}-{package.sha256[:16]}"
    if not bundle_path.exists():
        weights, source = read_package(name)
        try:
            write_bundle(bundle_path, build_bundle(weights, source, package.network))
        except (OSError, UserError):
            if not bundle_path.exists():  # another process may have written the same in the meantime
                raise
    return bundle_path


def read_package(name: str) -> tuple[WeightFile, dict[str, Any]]:
    """Return the weights of an installed package, and what is known of them.

    Raises:
        UserError: If the package is not installed, or has other weights than those that are known.
    """
    package, file = PACKAGES[name], find_weights(name)
    weights = read_weights(file)
    require(
        weights.sha256 == package.sha256,
        f"the weights of {package.distribution} have SHA-256 {weights.sha256}, expected {package.sha256}; to use them "
        f"all the same, name the file: jaxclf import {file} --model {package.network} --workdir DIR",
    )
    return weights, {"file": file.name, "package": package.distribution, "license": package.license}


def _count_classes(arrays: Mapping[str, np.ndarray]) -> int:
    """Return the number of classes of a network: the length of the bias of its last layer."""
    for head in (*(f"{name}.bias" for name in HEADS), "params/logits/bias"):
        if head in arrays and arrays[head].ndim == 1:
            return len(arrays[head])
    raise UserError(f"the weights have no last layer; expected one of {', '.join(f'{name}.bias' for name in HEADS)}")


def _choose_class_names(classes: int, given: Sequence[str] | None) -> tuple[str, ...]:
    """Return a name for each logit."""
    if given is not None:
        require(len(given) == classes, f"{len(given):,} class names for {classes:,} logits: expected one for each")
        require(len(set(given)) == classes, "some class names are equal; expected different ones")
        return tuple(given)
    imagenet = read_imagenet_classes()
    return tuple(each.name for each in imagenet) if classes == len(imagenet) else tuple(map(str, range(classes)))


def _describe_preprocessing(network: Network) -> dict[str, Any]:
    """Return how images are prepared, for the certificate."""
    return {
        "resize": network.resize,
        "crop": network.side,
        "interpolation": network.interpolation,
        "mean": list(network.normalize.mean),
        "std": list(network.normalize.std),
    }
