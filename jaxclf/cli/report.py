"""`jaxclf report`: the page of a run, or a page that compares runs."""

from __future__ import annotations

from pathlib import Path

from jaxclf.cli.eval import evaluate_run
from jaxclf.cli.load_run import load_run_with_data
from jaxclf.cli.options import DataRunOptions, ReportOptions
from jaxclf.errors import require
from jaxclf.io.files import read_json
from jaxclf.io.progress import show_status
from jaxclf.reporting.report import write_comparison, write_report
from jaxclf.runs.directory import RunDirectory, read_metrics


def run(options: ReportOptions) -> int:
    """Write the page of one run, or the comparison of several; return the exit code."""
    require(bool(options.runs), "no run is named; expected one or more, such as jaxclf report runs/mnist_cnn")
    print(f"wrote {_compare_runs(options) if len(options.runs) > 1 else _report_run(options)}")
    return 0


def _compare_runs(options: ReportOptions) -> Path:
    """Write the comparison of runs from their files and return its path."""
    require(
        not options.dataset,
        f"{' '.join(options.dataset)}: a comparison of several runs reads no images; name one run for its report",
    )
    runs = {path: read_metrics(RunDirectory(path)) for path in options.runs}
    path = _get_page_path(options.output or Path(), "comparison.html")
    path.parent.mkdir(parents=True, exist_ok=True)
    return write_comparison(path, runs)


def _report_run(options: ReportOptions) -> Path:
    """Write the page of a run and return its path.

    It shows the split, checkpoint and weights of the evaluation.json beside the page. Without one it shows what the
    report of training does: the last checkpoint, on the test images or, where there are none, the validation images.
    """
    (directory,) = options.runs
    path = _get_page_path(options.output or directory, "report.html")
    results = path.parent / "evaluation.json"
    evaluation = read_json(results) if results.exists() else {}
    require(
        not evaluation or (RunDirectory(directory).checkpoints / str(evaluation["step"])).is_dir(),
        f"{results} is of step {evaluation.get('step')}, and {directory} has no such checkpoint; run jaxclf eval again",
    )
    loaded, _ = load_run_with_data(
        DataRunOptions(
            run=directory,
            output=path.parent,
            dataset=options.dataset,
            checkpoint=str(evaluation.get("step", "last")),
            weights=evaluation.get("weights", "ema"),
            compilation_cache=options.compilation_cache,
            imports=options.imports,
        )
    )
    split = evaluation.get("split") or ("validation" if loaded.splits.test is None else "test")
    weights, tta = evaluation.get("weights", "ema"), evaluation.get("tta")
    _, evaluated = evaluate_run(loaded, split, weights, tta=tta)
    with show_status("writing the report"):
        return write_report(loaded, read_metrics(loaded.directory), evaluated, path)


def _get_page_path(output: Path, name: str) -> Path:
    """Return the file of a page for `--output`, which is a directory or an HTML file."""
    return output if output.suffix == ".html" else output / name
