"""`jaxclf import`: import a weight file of another library as a bundle."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jaxclf.cli.options import ImportOptions
from jaxclf.inference.bundle import CERTIFICATE, check_free, write_bundle
from jaxclf.inference.import_weights import import_file
from jaxclf.models.summary import count_parameters


def run(options: ImportOptions) -> int:
    """Run `jaxclf import`; return the exit code."""
    check_free(options.workdir)
    names = None if options.class_names is None else options.class_names.read_text(encoding="utf-8").splitlines()
    bundle = import_file(options.source, options.model, names)
    write_bundle(options.workdir, bundle)
    _print_certificate(bundle.certificate)
    parameters = count_parameters(bundle.variables["params"])
    print(f"{parameters:,} parameters, {len(bundle.class_names):,} classes")
    print(f"wrote {options.workdir}, with {CERTIFICATE}")
    return 0


def _print_certificate(certificate: Mapping[str, Any]) -> None:
    """Print what was read, and how much of it was used."""
    source, ignored = certificate["source"], certificate["tensors_ignored"]
    print(f"{source['file']}: SHA-256 {source['sha256']}")
    print(
        f"{certificate['network']} by the names of {certificate['layout']}: {certificate['tensors_used']:,} tensors "
        f"used, {len(ignored):,} without counterpart left out"
    )
    for line in certificate["adapted"]:
        print(line)
