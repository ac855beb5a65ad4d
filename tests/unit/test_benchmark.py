"""Results of a benchmark from the files of runs: statistics computed by hand, and the choice by validation."""

import csv
import io
import json

import pytest

from jaxclf.benchmark.cells import Cell, find_error_line, record_outcome, share_gpus
from jaxclf.benchmark.results import (
    TEST,
    VALIDATION,
    build_cell_table,
    build_choice_table,
    build_comparison_table,
    build_result_table,
    choose_best,
    read_result,
    read_results,
)
from jaxclf.errors import UserError
from jaxclf.reporting.tables import to_csv, to_markdown

CONFIG = {"class": "jaxclf.config.Config", "epochs": 1}
ACCURACIES = {"low": (0.90, 0.91, 0.95), "high": (0.92, 0.93, 0.94)}


@pytest.fixture
def cells(tmp_path):
    """Cells of two variants and three seeds, none of them run."""
    return [
        Cell(row, seed, ("tiny.py",), CONFIG, tmp_path / row / f"seed_{seed}", tmp_path)
        for row in ACCURACIES
        for seed in range(3)
    ]


def write_run(cell, validation, test, speeds=(1.0, 100.0, 300.0)):
    """Write the files of a finished run, as `jaxclf train` does."""
    cell.path.mkdir(parents=True)
    seconds = {"compile_seconds": 1.5, "train_seconds": 2.0 + cell.seed, "wall_seconds": 10.0}
    split = {"validation": validation, "test": test}
    cell.directory.summary.write_text(json.dumps(split | seconds))
    cell.directory.config.write_text(json.dumps(CONFIG))
    rows = [{"period": "interval", "images_per_second": speed} for speed in speeds] + [{"period": "epoch", "loss": 1.0}]
    cell.directory.metrics.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def finished(cells):
    """The same cells, finished. The best one by validation is the worst by test."""
    for cell in cells:
        accuracy = ACCURACIES[cell.variant][cell.seed]
        write_run(cell, {"accuracy": accuracy, "loss": 1 - accuracy}, {"accuracy": 1 - accuracy, "loss": accuracy})
    return cells


def numbers(table):
    return list(csv.DictReader(io.StringIO(to_csv(table))))


def test_the_first_interval_is_excluded_as_warm_up(finished):
    result = read_result(finished[0])
    assert result.speeds == (100.0, 300.0)
    assert result.seconds == {"compile seconds": 1.5, "training seconds": 2.0, "wall seconds": 10.0}


def test_the_cell_table_has_one_row_per_cell(finished):
    rows = numbers(build_cell_table(finished, read_results(finished), VALIDATION + TEST))
    assert [(row["config_and_settings"], row["seed"]) for row in rows] == [
        (name, str(seed)) for name in ACCURACIES for seed in range(3)
    ]
    assert float(rows[1]["validation_accuracy"]) == 0.91
    assert float(rows[1]["test_loss"]) == 0.91
    assert float(rows[1]["images_per_second_p50"]) == 200.0
    assert {row["state"] for row in rows} == {"finished"}


def test_the_result_table_has_mean_standard_deviation_and_interval(finished):
    table = build_result_table(read_results(finished), VALIDATION + TEST)
    low, high = numbers(table)
    assert (low["config_and_settings"], low["n"]) == ("low", "3")
    assert float(high["validation_accuracy_mean"]) == pytest.approx(0.93)
    assert float(high["validation_accuracy_std"]) == pytest.approx(0.01)
    assert float(high["validation_accuracy_high"]) == pytest.approx(0.93 + 4.303 * 0.01 / 3**0.5, abs=1e-5)
    assert float(high["training_seconds"]) == 3.0
    assert "| 93.00 ± 1.00 % [90.52, 95.48] |" in to_markdown(table)


def test_percentiles_of_speed_are_over_the_intervals_of_all_seeds(cells):
    for cell in cells:
        write_run(cell, None, {"accuracy": 0.5, "loss": 1.0}, [0.0, *(cell.seed * 10.0 + i for i in range(1, 8))])
    low, _ = numbers(build_result_table(read_results(cells), TEST))
    assert float(low["images_per_second_p50"]) == 14.0
    assert float(low["images_per_second_p95"]) == 26.0


def test_a_run_too_short_for_two_intervals_has_no_speed(cells):
    write_run(cells[0], None, {"accuracy": 0.5, "loss": 1.0}, [5.0])
    (row,) = numbers(build_cell_table(cells[:1], read_results(cells[:1]), TEST))
    assert "images_per_second_p50" not in row


def test_without_validation_there_are_no_validation_columns(cells):
    for cell in cells:
        write_run(cell, None, {"accuracy": 0.5, "loss": None})
    table = build_result_table(read_results(cells), VALIDATION + TEST)
    assert not [name for name in table.columns if "validation" in name]
    assert {row["test_loss_mean"] for row in numbers(table)} == {"nan"}


def test_a_comparison_is_paired_by_seed(finished):
    (row,) = numbers(build_comparison_table(read_results(finished), "high", "low", TEST))
    assert (row["difference"], row["n"]) == ("high - low", "3")
    # By hand: -0.02, -0.02 and 0.01.
    assert float(row["test_accuracy_mean"]) == pytest.approx(-0.01)
    assert float(row["test_accuracy_std"]) == pytest.approx(0.03 / 3**0.5)
    assert float(row["test_accuracy_low"]) == pytest.approx(-0.01 - 4.303 * 0.01, abs=1e-5)


def test_a_comparison_uses_the_seeds_that_both_have(finished):
    finished[1].directory.summary.unlink()
    (row,) = numbers(build_comparison_table(read_results(finished), "high", "low", TEST))
    assert row["n"] == "2"
    assert float(row["test_accuracy_mean"]) == pytest.approx(-0.005)


def test_a_comparison_without_common_seeds_is_empty(cells):
    assert numbers(build_comparison_table(read_results(cells), "high", "low", TEST)) == [
        {"difference": "high - low", "n": "0"}
    ]


def test_the_best_is_chosen_by_validation_and_not_by_test(finished):
    results = read_results(finished)
    assert choose_best(finished, results) == "high"
    (row,) = numbers(build_choice_table(results, "high"))
    assert float(row["test_accuracy_mean"]) == pytest.approx(0.07)
    for cell in finished:  # without test results the choice is the same
        summary = json.loads(cell.directory.summary.read_text())
        cell.directory.summary.write_text(json.dumps(summary | {"test": None}))
    assert choose_best(finished, read_results(finished)) == "high"


def test_without_accuracy_the_lowest_loss_is_best(cells):
    for cell in cells:
        write_run(cell, {"loss": 1.0 if cell.variant == "high" else 0.5}, None)
    assert choose_best(cells, read_results(cells)) == "low"


def test_a_row_with_a_missing_seed_is_not_chosen(finished):
    finished[-1].directory.summary.unlink()
    assert choose_best(finished, read_results(finished)) == "low"
    finished[0].directory.summary.unlink()
    assert choose_best(finished, read_results(finished)) is None


def test_the_state_of_a_cell_depends_on_the_files_of_its_run(finished, cells):
    cell = finished[0]
    assert cell.state == "finished"
    cell.check()
    cell.directory.config.write_text(json.dumps(CONFIG | {"epochs": 2}))
    assert cell.state == "waiting"
    with pytest.raises(UserError, match="another config") as refused:
        cell.check()
    assert refused.value.items == ["epochs: 2 -> 1"]


def test_a_failure_counts_only_for_the_config_that_failed(cells):
    cell = cells[0]
    cell.path.mkdir(parents=True)
    cell.output.write_text("$ jaxclf train\nTraceback\nValueError: bad\n")
    record_outcome(cell, 1)
    assert (cell.state, cell.error) == ("failed", "exit code 1: ValueError: bad")
    (row,) = numbers(build_cell_table([cell], read_results([cell]), TEST))
    assert row["state"] == "failed: exit code 1: ValueError: bad"
    cell.failure.write_text(json.dumps({"config": CONFIG | {"epochs": 2}, "error": "x"}))
    assert cell.state == "waiting"


@pytest.mark.parametrize(
    ("output", "line"),
    [
        ("$ train\nerror: no longer finite\ntry a lower rate\n", "exit code 3: no longer finite"),
        ("$ train\nstep 1\nKeyError: 'x'\n\n", "exit code 3: KeyError: 'x'"),
        ("$ train\n", "exit code 3: no output"),
    ],
)
def test_find_error_line(output, line):
    assert find_error_line(output, 3) == line


def test_damaged_files_are_reported(finished):
    finished[0].directory.metrics.write_text("{")
    with pytest.raises(UserError, match=r"metrics\.jsonl is damaged"):
        read_results(finished)


@pytest.mark.parametrize(
    ("gpus", "jobs", "share"),
    [(0.0, 2, 0.0), (1.0, 1, 1.0), (8.0, 3, 2.0), (1.0, 2, 0.5), (2.0, 3, 0.5), (1.0, 6, 0.1666), (4.0, 12, 0.3333)],
)
def test_tasks_of_ray_share_gpus(gpus, jobs, share):
    assert share_gpus(gpus, jobs) == share
