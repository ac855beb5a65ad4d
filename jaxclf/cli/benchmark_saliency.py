"""Score saliency methods by parts of images: `jaxclf benchmark-saliency runs/cartoons_cnn --output runs/parts`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import jaxclf
from jaxclf.benchmark.parts import find_characters, score_run
from jaxclf.cli.explain_options import BenchmarkMethodOptions, leave_out_unsupported, select_methods
from jaxclf.datasets.parts import sample_parts_images
from jaxclf.errors import require
from jaxclf.io.files import write_json, write_rows
from jaxclf.reporting.report.parts_page import write_parts_page
from jaxclf.reporting.tables import print_rows
from jaxclf.saliency.parts.results import ScoredRun, summarize_runs
from jaxclf.xla.program_cache import keep_programs


def run(options: BenchmarkMethodOptions) -> int:
    """Score methods on the runs and write the results; return the exit code."""
    require(bool(options.runs), "no run is named; expected some, such as runs/cartoons_cnn")
    require(options.images >= 4, f"--images {options.images}: expected at least 4, to compare halves of them")
    methods = select_methods(options.methods, options.fields)
    keep_programs(options.compilation_cache)
    runs = [jaxclf.load(path, imports=options.imports) for path in options.runs]
    characters = find_characters(runs[0])
    require(
        all(find_characters(each) == characters for each in runs), "the runs have different classes; score them apart"
    )
    # Seeds of a config have the same network, and finding out what supports it traces every method.
    networks = {each.model: each for each in runs}
    supported = {model: leave_out_unsupported(methods, each, options.methods) for model, each in networks.items()}
    images = sample_parts_images(options.images, characters)
    scored = [
        score_run(trained, name, supported[trained.model], images, options.output / "cells" / name)
        for trained, name in zip(runs, _name_runs(options.runs), strict=True)
    ]
    summary = summarize_runs(scored)
    write_json(options.output / "parts.json", summary)
    write_rows(
        options.output / "parts.csv", ("run", "method", "image", "character", *summary["scores"]), _list_scores(scored)
    )
    write_parts_page(options.output / "parts.html", summary, scored, images)
    rows = [(name, *map(_format_score, scores.values())) for name, scores in summary["methods"].items()]
    print_rows(("method", *summary["scores"]), rows)
    for file in ("parts.json", "parts.csv", "parts.html"):
        print(f"wrote {options.output / file}")
    return 0


def _name_runs(paths: Sequence[Path]) -> list[str]:
    """Return the name of each run: that of its directory, with those above it as far as names are the same."""
    resolved = [path.resolve() for path in paths]
    require(len(set(resolved)) == len(resolved), "a run is named twice")
    length = 1
    while len({path.parts[-length:] for path in resolved}) < len(resolved):
        length += 1
    return ["-".join(path.parts[-length:]) for path in resolved]


def _list_scores(scored: Sequence[ScoredRun]) -> Iterator[tuple[Any, ...]]:
    """Yield the scores of each run, method and image; empty where a score is not defined."""
    for of_run in scored:
        for method, result in of_run.methods.items():
            for image, (character, row) in enumerate(zip(of_run.characters, result.scores.tolist(), strict=True)):
                yield of_run.name, method, image, character, *("" if np.isnan(x) else f"{x:.6f}" for x in row)


def _format_score(score: dict[str, Any]) -> str:
    """Format a mean with its standard error, as far as they are defined."""
    numbers = (score["mean"], score["stderr"])
    return " ± ".join(f"{round(x, 6):.{digits}g}" for x, digits in zip(numbers, (3, 2), strict=True) if x is not None)
