"""Compare the time to an accuracy: a fast config of jaxclf and a known fast recipe in PyTorch, in turn.

    python benchmarks/time_to_accuracy.py mnist --seeds 10 --torch-python ~/torch/bin/python
    python benchmarks/time_to_accuracy.py cifar10 --data data/cifar10 --seeds 3 --torch-python ~/torch/bin/python

Seconds are of the steps, without imports, compilation, whitening and evaluation; those of jaxclf include the decoding
of images in the first epoch. With --epochs and --torch-epochs the same is repeated for shorter trainings: a curve of
accuracy against seconds. PyTorch is installed in a separate environment; without --torch-python only jaxclf is timed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

ROOT = Path(__file__).parent.parent
COLUMNS = {"accuracy": "test accuracy", "accuracy_tta": "with test-time augmentation"}


def run_jaxclf(options: argparse.Namespace, epochs: int | None, seed: int) -> dict[str, float]:
    """Train with train.py; return the seconds and the test accuracy, of cifar10 also with test-time augmentation."""
    with tempfile.TemporaryDirectory() as folder:
        config = f"configs/{options.task}_fast.py"
        more = [
            *("--compilation-cache", "off"),
            *(["--dataset.root", str(options.data)] if options.data else []),
            *(["--epochs", str(epochs)] if epochs else []),
        ]
        run([sys.executable, "train.py", config, "--seed", str(seed), "--workdir", folder, *more])
        summary = json.loads((Path(folder) / "summary.json").read_text())
        result = {"seconds": summary["train_seconds"], "accuracy": summary["test"]["accuracy"]}
        if options.task == "mnist":
            return result
        run([sys.executable, "eval.py", folder, "--tta", "shifts"])
        return result | {"accuracy_tta": json.loads((Path(folder) / "evaluation.json").read_text())["accuracy"]}


def run_torch(options: argparse.Namespace, script: str, *arguments: object) -> dict[str, float]:
    """Train a recipe in PyTorch; return what its script prints."""
    return json.loads(run([str(options.torch_python), str(ROOT / "benchmarks" / script), *map(str, arguments)]))


def run(command: list[str]) -> str:
    """Run a command, and return its output."""
    return subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout


def list_contenders(options: argparse.Namespace) -> dict[str, Callable[[int], dict[str, float]]]:
    """Return what is trained, by name; each takes a seed."""
    contenders: dict[str, Callable[[int], dict[str, float]]] = {
        f"jaxclf{f', {epochs} epochs' if epochs else ''}": partial(run_jaxclf, options, epochs)
        for epochs in options.epochs or [None]
    }
    if not options.torch_python:
        print("no --torch-python: only jaxclf is timed")
    elif options.task == "mnist":
        for layout in ("contiguous", "channels_last"):
            contenders[f"PyTorch, {layout}"] = partial(run_torch, options, "time_to_99_torch.py", layout)
    else:
        for epochs in options.torch_epochs:
            size = ("--epochs", epochs, "--width", options.torch_width)
            name = f"airbench94 of width {options.torch_width}, {epochs} epochs"
            contenders[name] = partial(run_torch, options, "airbench_torch.py", options.data, *size)
    return contenders


def main() -> None:
    """Run all contenders in turn, seed by seed, and print means and medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=("mnist", "cifar10"))
    parser.add_argument(
        "--data",
        type=lambda path: Path(path).absolute(),
        help="folder of cifar10, with train/<class>/<image> and test/<class>/<image>",
    )
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds: 0, 1, 2, …")
    parser.add_argument("--epochs", type=int, nargs="+", help="epochs of jaxclf; by default those of the config")
    parser.add_argument("--torch-epochs", type=int, nargs="+", default=[8], help="epochs of airbench94, for cifar10")
    parser.add_argument("--torch-width", type=float, default=0.5, help="multiplier of the channels of airbench94")
    parser.add_argument(
        "--torch-python",
        type=lambda path: Path(path).expanduser().absolute(),
        help="Python interpreter with torch, and Pillow for cifar10",
    )
    options = parser.parse_args()
    if options.task == "cifar10" and options.data is None:
        parser.error("cifar10 needs --data")
    contenders = list_contenders(options)
    results: dict[str, list[dict[str, float]]] = {name: [] for name in contenders}
    for seed in range(options.seeds):
        for name, contender in contenders.items():
            results[name].append(contender(seed))
            print(f"seed {seed}: {name} {results[name][-1]}", file=sys.stderr, flush=True)
    columns = [name for name in COLUMNS if name in results[next(iter(results))][0]]
    print(f"| | {' | '.join(COLUMNS[name] for name in columns)} | seconds | n |")
    print("|" + "---|" * (len(columns) + 3))
    for name, runs in results.items():
        cells = [describe([each[column] for each in runs]) for column in columns]
        seconds = [each["seconds"] for each in runs]
        cells.append(f"{statistics.median(seconds):.2f} ({min(seconds):.2f} to {max(seconds):.2f})")
        print(f"| {name} | {' | '.join(cells)} | {len(runs)} |")


def describe(accuracies: list[float]) -> str:
    """Return a mean with its standard deviation."""
    spread = f" ± {100 * statistics.stdev(accuracies):.2f}" if len(accuracies) > 1 else ""
    return f"{100 * statistics.mean(accuracies):.2f}{spread} %"


if __name__ == "__main__":
    main()
