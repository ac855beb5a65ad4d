"""Compare the time to 99 % accuracy on MNIST: configs/mnist_fast.py and a known fast recipe in PyTorch, interleaved.

    python benchmarks/time_to_99.py --seeds 10 --torch-python ~/torch/bin/python

Seconds are of the steps of one epoch, without imports, compilation and evaluation. PyTorch is installed in a separate
environment; without --torch-python only jaxclf is timed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent


def run_jaxclf(seed: int) -> tuple[float, float]:
    """Train with train.py; return the seconds of training and the test accuracy."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "train.py", "configs/mnist_fast.py", "--seed", str(seed), "--workdir", folder]
        subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
        summary = json.loads((Path(folder) / "summary.json").read_text())
    return summary["train_seconds"], summary["test"]["accuracy"]


def run_torch(python: str, layout: str, seed: int) -> tuple[float, float]:
    """Train the recipe in PyTorch; return the seconds of training and the test accuracy."""
    command = [python, str(ROOT / "benchmarks/time_to_99_torch.py"), str(seed), layout]
    result = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return result["seconds"], result["accuracy"]


def main() -> None:
    """Run all contenders in turn, seed by seed, and print means and medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10, help="number of seeds: 0, 1, 2, …")
    parser.add_argument("--torch-python", help="Python interpreter with torch")
    options = parser.parse_args()
    contenders = {"jaxclf": run_jaxclf}
    if options.torch_python:
        for layout in ("contiguous", "channels_last"):
            contenders[f"PyTorch, {layout}"] = lambda seed, layout=layout: run_torch(options.torch_python, layout, seed)
    else:
        print("no --torch-python: only jaxclf is timed")
    results: dict[str, list[tuple[float, float]]] = {name: [] for name in contenders}
    for seed in range(options.seeds):
        for name, contender in contenders.items():
            results[name].append(contender(seed))
            seconds, accuracy = results[name][-1]
            print(f"seed {seed}: {name} {seconds:.2f} s, {accuracy:.2%}", flush=True)
    for name, runs in results.items():
        seconds, accuracies = zip(*runs, strict=True)
        spread = f" ± {statistics.stdev(accuracies):.2%}" if len(runs) > 1 else ""
        print(
            f"{name:<24} {statistics.mean(accuracies):.2%}{spread}, {statistics.median(seconds):.2f} s median "
            f"({min(seconds):.2f} to {max(seconds):.2f}), n = {len(runs)}"
        )


if __name__ == "__main__":
    main()
