"""Summarize the trace of a run that was trained with --profile: which operations took the time of the devices.

    python benchmarks/summarize_trace.py runs/mnist_cnn --top 15

Operations of GPUs are counted if there are some, otherwise those of the CPU.
"""

import argparse
import collections
import gzip
import json
from pathlib import Path


def main() -> None:
    """Print the operations by their total time."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="directory of a run")
    parser.add_argument("--top", type=int, default=15, help="operations to print")
    options = parser.parse_args()
    files = sorted(options.run.glob("profile/**/*.trace.json.gz"))
    if not files:
        raise SystemExit(f"{options.run} has no trace; train it with --profile START:STOP")
    with gzip.open(files[-1]) as file:
        events = json.load(file)["traceEvents"]
    processes = {event["pid"]: event["args"]["name"] for event in events if event.get("name") == "process_name"}
    devices = {pid for pid, name in processes.items() if name.startswith("/device:")} or set(processes)
    # Only events of operations name a program; those of Python's functions and of waiting do not.
    timed = [event for event in events if event.get("pid") in devices and "hlo_module" in event.get("args", {})]
    seconds, counts = collections.Counter(), collections.Counter()
    for event in timed:
        seconds[event["name"]] += event["dur"] / 1e6
        counts[event["name"]] += 1
    print(f"{len(timed):,} operations, {sum(seconds.values()):.4f} s\n")
    print("| operation | calls | ms | of the time |\n|---|---|---|---|")
    for name, total in seconds.most_common(options.top):
        share = total / sum(seconds.values())
        print(f"| {name} | {counts[name]} | {total * 1e3:.2f} | {share:.1%} |")


if __name__ == "__main__":
    main()
