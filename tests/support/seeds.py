"""Other seeds for the tests. `python -m support.seeds OFFSET MODULE …` runs a module with them."""

import runpy
import sys
from pathlib import Path

import jax
import numpy as np

TESTS = Path(__file__).parents[1]


def shift_seeds(offset):
    """Add an offset to the seeds that tests call NumPy and JAX with; those of jaxclf itself stay."""
    np.random.default_rng = _shift(np.random.default_rng, offset)
    jax.random.key = _shift(jax.random.key, offset)


def _shift(function, offset):
    def call(seed=None, *arguments, **options):
        by_test = Path(sys._getframe(1).f_code.co_filename).is_relative_to(TESTS)
        return function(seed + offset if by_test and isinstance(seed, int) else seed, *arguments, **options)

    return call


if __name__ == "__main__":
    shift_seeds(int(sys.argv[1]))
    sys.argv[:] = sys.argv[2:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
