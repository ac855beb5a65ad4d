"""The tour runs from its first cell to its last, and is kept with what it showed."""

import json
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).parent.parent / "notebooks/tour.ipynb"


def pictures(notebook):
    """How many pictures each cell shows."""
    return [
        sum("image/png" in output.get("data", {}) for output in cell.get("outputs", ())) for cell in notebook["cells"]
    ]


def test_it_is_kept_with_its_pictures():
    notebook = json.loads(NOTEBOOK.read_text())
    assert sum(pictures(notebook)) >= 12
    assert NOTEBOOK.stat().st_size < 2_000_000
    text = json.dumps([output.get("text", "") for cell in notebook["cells"] for output in cell.get("outputs", ())])
    assert "wide   1,192,510" in text


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_it_runs(tmp_path, monkeypatch):
    monkeypatch.delenv("XLA_FLAGS")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    kept = pictures(notebook)
    NotebookClient(
        notebook, timeout=800, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    assert pictures(notebook) == kept
