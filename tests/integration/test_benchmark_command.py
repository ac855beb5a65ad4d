"""The command `jaxclf benchmark` and the runs it starts, on a dataset of 64 tiny images."""

import csv
import json
import re
import shlex
import signal
import sys
import time
from pathlib import Path

import pytest
from support.cli import benchmark as main
from support.pictures import write

from jaxclf.cli.app import parse_options
from jaxclf.cli.benchmark import plan
from jaxclf.errors import UserError

ROOT = Path(__file__).parents[2]
STRIPES = """
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from jaxclf.types import Split, Splits


@dataclass(frozen=True)
class Stripes:
    validation: int = 16

    def load(self):
        while Path("hold").exists():
            time.sleep(0.1)
        random = np.random.default_rng(0)
        labels = np.arange(80, dtype=np.int32) % 2
        images = random.integers(0, 150, (80, 4, 4, 1), np.uint8)
        images[labels == 1, ::2] += 60
        n = self.validation

        def part(first, last):
            return Split(images[first:last], labels[first:last], ("plain", "striped"))

        return Splits(part(0, 48), part(48, 48 + n) if n else None, part(64, 80))
"""
TINY = """
from stripes import Stripes

from jaxclf.config import Config
from jaxclf.models import Mlp
from jaxclf.optimizers import Sgd


def get_config():
    return Config(Stripes(), Mlp(features=(), classes=2), Sgd(learning_rate=0.5), epochs=2, batch_size=8, log_every=2)
"""
RATE = "optimizer.learning_rate"
SCRIPT = ("-m", "jaxclf", "benchmark", "tiny.py", "--import", "stripes")
GRID = ("--set", f"{RATE}=0.5,1e-2", "model.classes=2,3", "--jobs", 2)
ROW = f"tiny,model.classes=2,{RATE}"


def place_of(folder):
    """Write the dataset and the config to a folder."""
    (folder / "stripes.py").write_text(STRIPES)
    (folder / "tiny.py").write_text(TINY)
    return folder


def rows_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def grid(command, tmp_path_factory):
    """A benchmark of two rates by two networks, one of which does not fit the data: folder, process and cells."""
    place = place_of(tmp_path_factory.mktemp("grid"))
    done = command(*SCRIPT, *GRID, cwd=place)
    return place, done, rows_of(place / "runs/benchmark/cells.csv")


@pytest.fixture
def there(grid, monkeypatch):
    """The output of the benchmark; the test runs in its folder."""
    stand(grid[0], monkeypatch)
    return grid[0] / "runs/benchmark"


def stand(place, monkeypatch):
    """Change to a folder and import its modules and no others, as a process started there does."""
    monkeypatch.chdir(place)
    monkeypatch.syspath_prepend(str(place))
    for name in ("stripes", "tiny"):
        monkeypatch.delitem(sys.modules, name, raising=False)


def again(*arguments):
    """Run the command in this process."""
    return main(["tiny.py", "--import", "stripes", *map(str, arguments)])


def plan_of(arguments):
    """Return the variants of a command line."""
    return plan(parse_options("benchmark", arguments))


def printed_at(out):
    """Return the time when each run was last started."""
    return {path.parent.parent.name: path.stat().st_mtime_ns for path in out.glob("*/seed_0/output.txt")}


def test_a_failed_cell_does_not_stop_the_others(grid):
    _, done, rows = grid
    assert done.returncode == 4, done.stderr
    wrong = "failed: exit code 2: the model has 3 logits and the dataset 2 classes; add --model.classes 2"
    assert {row["config_and_settings"]: row["state"] for row in rows} == {
        f"tiny,model.classes={classes},{RATE}={rate}": state
        for classes, state in ((2, "finished"), (3, wrong))
        for rate in ("0.5", "0.01")
    }
    assert f"{ROW}=0.5 seed 0 finished" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_table_has_the_results_of_the_runs(grid, there):
    found = [row for row in grid[2] if row["state"] == "finished"]
    assert len(found) == 2
    for row in found:
        run = there / row["config_and_settings"] / f"seed_{row['seed']}"
        summary = json.loads((run / "summary.json").read_text())
        assert float(row["test_accuracy"]) == summary["test"]["accuracy"]
        assert float(row["validation_loss"]) == summary["validation"]["loss"]
        assert float(row["wall_seconds"]) == summary["wall_seconds"]


def test_tables_are_printed_and_written_in_three_formats(grid, there):
    again(*GRID)
    rows = {row["config_and_settings"]: row for row in rows_of(there / "results.csv")}
    assert sorted(row["n"] for row in rows.values()) == ["0", "0", "1", "1"]
    accuracy = 100 * float(rows[f"{ROW}=0.5"]["test_accuracy_mean"])
    for text in (grid[1].stdout, (there / "results.md").read_text()):
        assert re.search(rf"{re.escape(ROW)}=0\.5[ |]+1[ |].*{accuracy:.2f} %", text)
    latex = (there / "results.tex").read_text()
    assert r"tiny,model.classes=2,optimizer.learning\_rate=0.5 & 1 & " in latex
    assert latex.count(r"\begin{tabular}") == latex.count(r"\bottomrule") == 2


def test_finished_and_failed_cells_are_not_run_again(there, capsys):
    before = printed_at(there)
    assert again(*GRID) == 4
    assert "4 cells, 0 to run" in capsys.readouterr().err
    assert printed_at(there) == before


def test_retry_runs_failed_cells_again(there, capsys):
    before = printed_at(there)
    assert again(*GRID, "--retry") == 4
    assert "4 cells, 2 to run" in capsys.readouterr().err
    assert {name for name, at in printed_at(there).items() if at != before[name]} == {
        f"tiny,model.classes=3,{RATE}={rate}" for rate in ("0.5", "0.01")
    }


def test_more_seeds_extend_fewer(there, capsys):
    assert again("--seeds", 2, "--set", f"{RATE}=0.5", "model.classes=2") == 0
    assert "2 cells, 1 to run" in capsys.readouterr().err
    (row,) = rows_of(there / "results.csv")
    losses = [float(cell["test_loss"]) for cell in rows_of(there / "cells.csv")]
    assert losses[0] != losses[1]
    assert (row["n"], float(row["test_loss_mean"])) == ("2", pytest.approx(sum(losses) / 2))
    assert json.loads((there / f"{ROW}=0.5/seed_1/config.json").read_text())["seed"] == 1


def test_a_search_shows_test_results_of_the_chosen_row_only(there, capsys):
    assert again("--set", f"{RATE}=0.5,0.01", "model.classes=2", "--choose") == 0
    assert "test" not in capsys.readouterr().out.partition("chosen by validation")[0]
    for name in ("cells", "results"):
        rows = rows_of(there / f"{name}.csv")
        assert not [column for column in rows[0] if "test" in column]
    (chosen,) = rows_of(there / "chosen.csv")
    means = {row["config_and_settings"]: float(row["validation_accuracy_mean"]) for row in rows}
    assert chosen["chosen_by_validation"] == max(means, key=means.__getitem__)
    assert 0 <= float(chosen["test_accuracy_mean"]) <= 1


def test_a_setting_is_chosen_by_cross_validation(tmp_path, monkeypatch, capsys):
    write(tmp_path / "pictures/train", {"a": 6, "b": 6})
    write(tmp_path / "pictures/test", {"a": 2, "b": 2})
    text = TINY.replace("Stripes()", 'ImageFolder("pictures", (4, 4))').replace("batch_size=8", "batch_size=4")
    (tmp_path / "folder.py").write_text(text.replace("stripes import Stripes", "jaxclf.datasets import ImageFolder"))
    monkeypatch.chdir(tmp_path)
    options = ["--folds", "2", "--seeds", "2", "--choose", "--set", f"{RATE}=0.1,0.2", "--jobs", "2"]
    assert main(["folder.py", *options]) == 0
    printed = capsys.readouterr().out
    assert "Chosen" in printed
    held_out = []
    for seed in range(2):
        rows = rows_of(tmp_path / f"runs/benchmark/folder,{RATE}=0.1/seed_{seed}/splits.csv")
        held_out.append({row["path"] for row in rows if row["split"] == "validation"})
        assert sum(row["split"] == "test" for row in rows) == 4
    assert (len(held_out[0]), len(held_out[1]), len(held_out[0] | held_out[1])) == (6, 6, 12)


def test_rows_are_compared_by_name(grid, there):
    assert again("--set", f"{RATE}=0.01,0.5", "model.classes=2", "--compare", f"{ROW}=0.5", f"{ROW}=0.01") == 0
    (row,) = rows_of(there / "comparison.csv")
    losses = {cell["config_and_settings"]: float(cell["test_loss"] or "nan") for cell in grid[2]}
    assert row["n"] == "1"
    assert float(row["test_loss_mean"]) == pytest.approx(losses[f"{ROW}=0.5"] - losses[f"{ROW}=0.01"])
    assert not (there / "chosen.csv").exists()  # that of the search before


def test_a_run_of_another_config_is_not_overwritten(there, capsys):
    config = there / f"{ROW}=0.5/seed_0/config.json"
    kept = config.read_text()
    config.write_text(kept.replace('"epochs": 2', '"epochs": 3'))
    try:
        assert again(*GRID) == 2
        assert "name another --out" in (printed := capsys.readouterr().err)
        assert printed.splitlines()[-1] == "  epochs: 3 -> 2"
    finally:
        config.write_text(kept)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--seeds", "0"], "--seeds 0: expected at least 1"),
        (["--jobs", "0"], "--jobs 0: expected at least 1"),
        (["--set", "optimizer.lr=1"], "did you mean optimizer.learning-rate?"),
        (["--set", "optimizer.learning_rat=1"], "did you mean optimizer.learning-rate?"),
        (["--set", "metrics.0.k=1"], "it is set in the config file"),
        (["--set", "epochs=x"], "--epochs: invalid literal"),
        (["--set", "epochs=1,0"], "epochs=0: expected at least 1"),
        (["--set", "optimizer.nesterov=perhaps"], "expected True or False"),
        (["--set", f"{RATE}=log:1e-4:1"], "add --sample N"),
        (["--set", "epochs=1", "--set", "epochs=2"], "epochs is set twice"),
        (["--sample", "2"], "add --set"),
        (["--choose", "--set", "dataset.validation=0"], "add --set dataset.validation=5000"),
        (["--compare", "tiny", "tin"], "no such row; did you mean tiny?"),
        (["--lr-range", "--seeds", "2"], "it runs no cells"),
        (["--lr-range", "--jobs", "2", "--retry"], "it runs no cells; remove --jobs, --retry"),
        (["--lr-range", "--ray"], "it runs no cells; remove --ray"),
        (["--lr-range", "1", "0.1"], "the lower one first"),
        (["--ray", "a", "b"], "expected one address"),
        (["--chose"], "did you mean --choose?"),
        (["--folds", "1"], "--folds 1: expected at least 2"),
        (["--folds", "2", "--seeds", "3"], "--seeds 3: expected a multiple of --folds 2"),
        (["--folds", "2", "--seeds", "2"], "is for image folders, and the dataset of tiny is a Stripes"),
    ],
)
def test_a_user_error_is_raised_before_anything_starts(arguments, message, tmp_path, monkeypatch, capsys):
    stand(place_of(tmp_path), monkeypatch)
    assert again(*arguments) == 2
    printed = capsys.readouterr().err
    assert message in printed
    assert len(printed.splitlines()) <= 5
    assert not list(tmp_path.glob("runs/benchmark/*/*"))


def test_a_missing_config_is_refused(capsys):
    assert main([]) == 2
    assert "no config is named" in capsys.readouterr().err
    assert main(["mnist_linear", "nowhere.py"]) == 2
    assert "no config at" in capsys.readouterr().err
    with pytest.raises(UserError):
        main(["--debug"])


def test_different_configs_of_the_same_name_are_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "configs/mnist_linear.py").read_text()
    (tmp_path / "mnist_linear.py").write_text(text.replace("epochs=5", "epochs=4"))
    assert main(["mnist_linear.py", str(ROOT / "configs/mnist_linear.py")]) == 2
    assert "two configs are named mnist_linear" in capsys.readouterr().err


def test_values_are_parsed_as_on_the_command_line_and_equal_ones_are_one_row(tmp_path, monkeypatch):
    stand(place_of(tmp_path), monkeypatch)
    words = ["evaluate_train=True", "optimizer.nesterov=False", "optimizer.clip_norm=None,1", "model.features=16 8"]
    rows = plan_of(["tiny.py", "tiny.py", "--import", "stripes", "--set", *words, f"{RATE}=1e-3,0.001"])
    by_norm = {row.config.optimizer.clip_norm: row for row in rows.values()}
    assert by_norm.keys() == {None, 1.0}
    assert len(rows) == 2
    config = by_norm[1.0].config
    assert (config.evaluate_train, config.optimizer.nesterov, config.optimizer.learning_rate) == (True, False, 1e-3)
    assert config.model.features == (16, 8)
    assert by_norm[1.0].name == (
        "tiny,evaluate_train=True,model.features=16+8,optimizer.clip_norm=1.0,"
        "optimizer.learning_rate=0.001,optimizer.nesterov=False"
    )


def test_a_random_search_samples_integers_for_integer_fields(tmp_path, monkeypatch):
    stand(place_of(tmp_path), monkeypatch)
    fields = [f"{RATE}=log:1e-3:1e-1", "batch_size=log:4:32"]
    rows = plan_of(["tiny.py", "--import", "stripes", "--sample", "5", "--set", *fields])
    assert len(rows) == 5
    assert len({row.config.optimizer.learning_rate for row in rows.values()}) == 5
    assert all(isinstance(row.config.batch_size, int) for row in rows.values())


def test_the_commands_in_the_docs_parse(monkeypatch):
    monkeypatch.chdir(ROOT)
    blocks = re.findall(r"```sh\n(.*?)```", (ROOT / "docs/benchmarks.md").read_text(), re.S)
    commands = [shlex.split(line) for line in "".join(blocks).replace("\\\n", " ").splitlines()]
    benchmarks = [arguments for name, script, *arguments in commands if (name, script) == ("jaxclf", "benchmark")]
    assert len(benchmarks) >= 6
    assert len(benchmarks) + sum(name == "pip" for name, *_ in commands) == len(commands)
    for arguments in benchmarks:
        assert plan_of(arguments)


def wait_for(path, process):
    """Wait until the running benchmark has written a file."""
    until = time.monotonic() + 200
    while not path.exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until
        time.sleep(0.1)


def test_an_interrupted_benchmark_stops_its_runs_and_resumes_them(command, start, tmp_path):
    place = place_of(tmp_path)
    arguments = (*SCRIPT, "--set", "epochs=40")
    run = place / "runs/benchmark/tiny,epochs=40/seed_0"
    for number, code, step in ((signal.SIGINT, 130, 60), (signal.SIGTERM, 143, 120)):  # six steps an epoch
        with start(*arguments, cwd=place) as process:
            wait_for(run / f"checkpoints/{step}", process)
            process.send_signal(number)
            _, errors = process.communicate(timeout=60)
        assert process.returncode == code
        assert "Traceback" not in errors
        assert not (run / "summary.json").exists()
        assert not (run / "failure.json").exists()
    done = command(*arguments, cwd=place)  # the lock is free: nothing of the others is left
    assert done.returncode == 0, done.stderr
    (step,) = re.findall(r"resuming from step (\d+)", (run / "output.txt").read_text())
    assert int(step) >= 114
    assert json.loads((run / "summary.json").read_text())["epochs"] == 40


def test_runs_that_outlive_a_killed_benchmark_are_not_started_twice(command, start, tmp_path):
    place = place_of(tmp_path)
    (place / "hold").touch()
    with start(*SCRIPT, cwd=place) as process:
        wait_for(place / "runs/benchmark/tiny/seed_0/output.txt", process)
        process.kill()
    refused = command(*SCRIPT, cwd=place)
    (place / "hold").unlink()
    assert refused.returncode == 2
    assert "is in use by another benchmark, or by runs that a killed one has left (process " in refused.stderr
    until = time.monotonic() + 200
    while (done := command(*SCRIPT, cwd=place)).returncode == 2:
        assert time.monotonic() < until
    assert done.returncode == 0, done.stderr
    assert "1 cells, 0 to run" in done.stderr


def test_a_killed_cell_has_failed(command, start, tmp_path):
    place = place_of(tmp_path)
    (place / "stripes.py").write_text(STRIPES.replace("time.sleep(0.1)", "import os; os.kill(os.getpid(), 9)"))
    (place / "hold").touch()
    done = command(*SCRIPT, cwd=place)
    assert done.returncode == 4
    assert "tiny seed 0 failed: killed by SIGKILL" in done.stderr
    (place / "hold").unlink()
    assert command(*SCRIPT, cwd=place).returncode == 4
    assert command(*SCRIPT, "--retry", cwd=place).returncode == 0


def test_a_range_test_plots_its_curve(command, tmp_path):
    place = place_of(tmp_path)
    done = command(*SCRIPT, "--lr-range", "1e-4", "1e3", "--set", "batch_size=4", cwd=place)
    assert (done.returncode, done.stderr) == (0, "")
    out = place / "runs/benchmark/tiny,batch_size=4"
    rows = rows_of(out / "lr_range.csv")
    assert float(rows[0]["learning_rate"]) == pytest.approx(1e-4)
    (diverged,) = re.findall(r"a tenth of where it diverges (\S+)", done.stdout)
    assert float(diverged) == pytest.approx(float(rows[-1]["learning_rate"]) / 10, rel=0.05)
    assert (out / "lr_range.png").stat().st_size > 10_000


def test_ray_gives_the_same_results_in_the_same_files(command, grid, tmp_path):
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'jaxclf[ray]'")
    place = place_of(tmp_path)
    done = command(*SCRIPT, "--set", f"{RATE}=0.5", "model.classes=2,3", "--jobs", 2, "--ray", cwd=place)
    assert done.returncode == 4, done.stderr
    assert "Traceback" not in done.stderr
    same = ("config_and_settings", "seed", "state", "validation_loss", "test_accuracy")
    on_ray = [[row[name] for name in same] for row in rows_of(place / "runs/benchmark/cells.csv")]
    assert on_ray == [[row[name] for name in same] for row in grid[2] if row["config_and_settings"].endswith("=0.5")]


def test_without_ray_the_error_names_the_extra(there, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "ray", None)
    assert again("--set", f"{RATE}=0.25", "--ray") == 2
    assert "pip install 'jaxclf[ray]'" in capsys.readouterr().err
