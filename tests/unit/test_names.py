"""Functions are named by verbs, or by the quantity they return."""

from pathlib import Path

import pytest
from support.names import find_misnamed

PACKAGE = Path(__file__).parents[2] / "jaxclf"


@pytest.mark.parametrize(
    "family", sorted(path for path in PACKAGE.iterdir() if path.name != "__pycache__"), ids=lambda p: p.stem
)
def test_functions_are_verbs(family):
    files = [family] * (family.suffix == ".py") or sorted(family.rglob("*.py"))
    assert [name for file in files for name in find_misnamed(file)] == []
