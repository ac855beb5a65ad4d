"""The page of `jaxclf benchmark-saliency`: scores of the methods, the networks, and maps beside the truth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxclf.datasets.cartoons.looks import SIDE
from jaxclf.datasets.parts import PartsImage
from jaxclf.reporting.report.page import render, write_page
from jaxclf.reporting.report.pictures import encode_image, encode_map
from jaxclf.saliency.parts.results import BASELINES, TRUTH, ScoredRun
from jaxclf.saliency.parts.scores import LOWER_IS_BETTER

SECTIONS = {"scores": "Scores", "methods": "Choosing a method", "networks": "Networks", "maps": "Maps"}


def write_parts_page(
    path: Path, summary: Mapping[str, Any], runs: Sequence[ScoredRun], images: Sequence[PartsImage]
) -> Path:
    """Write the page of a benchmark of saliency methods.

    Args:
        path: The HTML file.
        summary: What parts.json holds.
        runs: The results of the runs. Maps are those of the first.
        images: The images.

    Returns:
        The path.
    """
    first = runs[0]
    shown = len(first.methods[TRUTH].maps)
    values = {
        "title": "Saliency methods compared with Shapley values of parts",
        "sections": SECTIONS.items(),
        "pixelated": True,
        "summary": summary,
        "baselines": BASELINES,
        "lower": LOWER_IS_BETTER,
        "best": {score: of["best"] for score, of in summary["differences"].items() if of},
        "shown_run": first.name,
        "pictures": [encode_image(image.pixels, SIDE) for image in images[:shown]],
        "names": first.characters[:shown],
        "maps": {
            name: [encode_map(values[..., None], SIDE) for values in first.methods[name].maps]
            for name in summary["methods"]
        },
    }
    return write_page(path, render("parts.html", values))
