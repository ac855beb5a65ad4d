"""`jaxclf import`: import a weight file of another library as a bundle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from jaxclf.augment import CenterCrop
from jaxclf.cli.options import ImportOptions
from jaxclf.cli.predict import find_named_images
from jaxclf.errors import UserError
from jaxclf.inference.bundle import CERTIFICATE, Bundle, check_empty, write_bundle
from jaxclf.inference.certificate import TYPES, compare_with_library, compare_with_reference
from jaxclf.inference.images import prepare_images
from jaxclf.inference.import_weights import build_bundle, read_package
from jaxclf.inference.preprocess import Preprocessor
from jaxclf.models.summary import count_parameters
from jaxclf.pretrained.packages import PACKAGES
from jaxclf.pretrained.readers import read_weights


def run(options: ImportOptions) -> int:
    """Run `jaxclf import`; return the exit code."""
    check_empty(options.workdir)
    names = None if options.class_names is None else _read_class_names(options.class_names)
    package = None if options.source.exists() else PACKAGES.get(str(options.source))
    model = options.model or (package and package.network)
    if model is None:
        raise UserError("name the network of the weights with --model, such as resnet50")
    if package is None:
        weights, source = read_weights(options.source), {"file": options.source.name}
    else:
        weights, source = read_package(str(options.source))
    bundle = build_bundle(weights, source, model, names)
    if options.compare:
        comparison = compare_with_library(bundle, weights.arrays, _read_images(options.compare, bundle))
    else:
        comparison = compare_with_reference(bundle)
    bundle = replace(bundle, certificate={**bundle.certificate, "comparison": comparison})
    write_bundle(options.workdir, bundle)
    _print_certificate(bundle.certificate)
    parameters = count_parameters(bundle.variables["params"])
    print(f"{parameters:,} parameters, {len(bundle.class_names):,} classes")
    print(f"wrote {options.workdir}, with {CERTIFICATE}")
    return 0


def _read_class_names(path: Path) -> list[str]:
    """Return the lines of a text file; raise UserError if it is not UTF-8."""
    try:
        return path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeError as error:
        raise UserError(f"cannot read {path}: {error}; save it in UTF-8") from error


def _read_images(arguments: Sequence[str], bundle: Bundle) -> np.ndarray:
    """Return image files as the network of a bundle sees them, integers [n, side, side, 3]."""
    prepare = Preprocessor((bundle.resize, bundle.resize, 3), resizing=bundle.resizing)
    return np.asarray(CenterCrop(bundle.side)(prepare_images(prepare, find_named_images(arguments).files)))


def _print_certificate(certificate: Mapping[str, Any]) -> None:
    """Print what was read, how much of it was used, and how far the network is from its source."""
    source, ignored, comparison = certificate["source"], certificate["tensors_ignored"], certificate["comparison"]
    print(f"{source['file']}: SHA-256 {source['sha256']}")
    print(
        f"{certificate['network']} by the names of {certificate['layout']}: {certificate['tensors_used']:,} tensors "
        f"used, {len(ignored):,} without counterpart left out"
    )
    for line in certificate["adapted"]:
        print(line)
    if comparison is None:
        print("not compared with its source: name images with --compare, where PyTorch is installed")
        return
    print(f"compared with {comparison['with']} on {comparison['images']:,} images, relative to the largest value:")
    for dtype in TYPES:
        found = comparison[dtype]
        print(
            f"  {dtype}: logits {found['logits']:.1e}, gradients by the pixels {found['gradients']:.1e}, most probable "
            f"class equal for {found['top1_equal']:,} of {comparison['images']:,}"
        )
