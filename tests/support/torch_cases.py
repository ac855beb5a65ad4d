"""What small networks of PyTorch computed, from tests/fixtures/draw_torch.py."""

from pathlib import Path

import numpy as np

FIXTURES = Path(__file__).parents[1] / "fixtures"


def read_fixture(name):
    """Read arrays by name; those that are named with slashes are grouped by the first part."""
    groups = {}
    with np.load(FIXTURES / f"{name}.npz") as arrays:
        for path, array in arrays.items():
            group, _, rest = path.partition("/")
            if rest:
                groups.setdefault(group, {})[rest] = np.float64(array)
            else:
                groups[group] = np.float64(array)
    return groups


def assert_close(found, expected, tolerance=1e-9):
    """Compare arrays, relative to the largest value."""
    assert found.shape == expected.shape
    error, largest = np.abs(found - expected).max(), np.abs(expected).max()
    assert error <= tolerance * largest, f"differs by {error:.2g}, largest {largest:.2g}"
