"""`Pretrained`: the component of a config that says which weights a network starts from."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Literal

import jax
import numpy as np
from flax.traverse_util import flatten_dict

from jaxclf.errors import require
from jaxclf.pretrained.packages import PACKAGES
from jaxclf.types import Variables


@dataclass(frozen=True)
class Pretrained:
    """Initial weights. With their digest in the config, a run stays a function of its config."""

    source: str
    """A weight file, the directory of a run or a bundle, or the name of a package of weights, such as "lite0"."""
    sha256: str = ""
    """Digest of the weights: of the file, or for a directory of all variables. For a package of weights it may be left
    out, and is then the known one."""
    head: Literal["keep", "new", "probe"] = "keep"
    """The last layer. keep: that of the weights; new: initialized, for other classes; probe: fitted to the features of
    the training images before training, with a penalty chosen by cross-validation. A. Kumar et al., "Fine-Tuning can
    Distort Pretrained Features and Underperform Out-of-Distribution" (2022), arXiv:2202.10054."""

    def __post_init__(self):
        if not self.sha256 and self.source in PACKAGES:
            object.__setattr__(self, "sha256", PACKAGES[self.source].sha256)
        require(
            not self.sha256 or re.fullmatch("[0-9a-f]{64}", self.sha256) is not None,
            f"sha256={self.sha256!r}: expected 64 hexadecimal digits in lower case",
        )


def hash_variables(variables: Variables) -> str:
    """Return the SHA-256 of variables: of their paths, types, shapes and values."""
    digest = hashlib.sha256()
    for path, array in sorted(flatten_dict(jax.device_get(variables), sep="/").items()):
        digest.update(f"{path} {array.dtype} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
