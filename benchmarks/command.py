"""Time whole commands from start to exit: `train.py` and a Keras 3 script that does the same, interleaved.

jaxclf runs without cached programs, as the script does, and a second time with those of its first run.

    python benchmarks/command.py --repeats 5 --keras-python ~/keras/bin/python

Keras is installed in a separate environment; without --keras-python only jaxclf is timed.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent


def time_command(command: list[str], environment: dict[str, str]) -> float:
    """Return the wall time of a command, which must succeed, in seconds."""
    began = time.perf_counter()
    subprocess.run(command, env=os.environ | environment, cwd=ROOT, check=True, capture_output=True)
    return time.perf_counter() - began


def main() -> None:
    """Run the commands in turn, several times, and print medians and ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3, help="runs of each command")
    parser.add_argument("--config", default="mnist_cnn", help="config to train with jaxclf")
    parser.add_argument("--keras-python", help="Python interpreter with keras, jax and tensorflow")
    options = parser.parse_args()
    peer = [options.keras_python, "benchmarks/keras_mnist_cnn.py"]
    peers = {f"Keras 3 / {backend}": {"KERAS_BACKEND": backend} for backend in ("jax", "tensorflow")}
    if not options.keras_python:
        print("no --keras-python: only jaxclf is timed")
        peers = {}
    times: dict[str, list[float]] = {name: [] for name in ("jaxclf", "jaxclf, programs kept", *peers)}
    with tempfile.TemporaryDirectory() as folder:
        caches = {"jaxclf": "off", "jaxclf, programs kept": f"{folder}/programs"}
        commands = {
            name: [sys.executable, "train.py", options.config, "--compilation-cache", cache, "--workdir"]
            for name, cache in caches.items()
        }
        time_command([*commands["jaxclf, programs kept"], f"{folder}/first"], {})
        for i in range(options.repeats):
            for name, command in commands.items():
                times[name].append(time_command([*command, f"{folder}/{name} {i}"], {}))
            for name, environment in peers.items():
                times[name].append(time_command(peer, environment))
            print("  ".join(f"{name} {runs[-1]:.1f} s" for name, runs in times.items()), flush=True)
    jaxclf_median = statistics.median(times["jaxclf"])
    for name, runs in times.items():
        median = statistics.median(runs)
        print(f"{name:<22} median {median:5.1f} s of {len(runs)}, {median / jaxclf_median:.2f} times jaxclf")


if __name__ == "__main__":
    main()
