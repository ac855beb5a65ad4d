"""The tour runs from its first cell to its last, and is kept with what it showed."""

import json
import re
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


def exercises(notebook):
    """Parameters and test accuracy in percent of the wide and the deep network, as the table of the tour has them."""
    text = "".join("".join(output.get("text", "")) for cell in notebook["cells"] for output in cell.get("outputs", ()))
    rows = re.findall(r"^(wide|deep) +([\d,]+) +[\d.]+% +([\d.]+)%", text, re.M)
    return {name: (parameters, float(accuracy)) for name, parameters, accuracy in rows}


def assert_both_have_learnt(notebook):
    found = exercises(notebook)
    assert (found["wide"][0], found["deep"][0]) == ("1,192,510", "932,362")
    assert found["wide"][1] > 97.5
    assert found["deep"][1] > 98.5  # after 5 of 20 epochs


def test_it_is_kept_with_its_pictures():
    notebook = json.loads(NOTEBOOK.read_text())
    assert sum(pictures(notebook)) >= 12
    assert NOTEBOOK.stat().st_size < 2_000_000
    assert_both_have_learnt(notebook)


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
    assert_both_have_learnt(notebook)
