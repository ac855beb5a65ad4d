"""Compare the peak memory of networks for photographs: jaxclf, and PyTorch with timm. Needs Linux.

    python benchmarks/peak_memory.py --torch-python ~/torch/bin/python

Each row of `networks.py` runs in a process of its own. Memory is the largest resident memory during three calls after
the first, without what was resident after the imports: parameters, images, temporary arrays and compiled programs, but
not the memory of compilation. Both libraries use huge pages. PyTorch's tensors have channels last.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
from pathlib import Path

Request = tuple[str, int, int, str]
"""Name of a row, images of a batch, side of an image, and what is computed."""


def read_status(field: str) -> float:
    """Return a field of the process's status in MB."""
    found = re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    return int(found[1]) * 1024 / 1e6


def measure_child(library: str, request: Request) -> float:
    """Return the memory that a row takes in this process, in MB."""
    if library == "jaxclf":
        from networks import WORKS, jax, prepare

        jax.devices()
        build = lambda: prepare(WORKS[request[0]])[0]  # noqa: E731
    else:
        import networks_torch

        build = lambda: networks_torch.build(request[0], "channels last", *request[1:])  # noqa: E731
    imported = read_status("VmRSS")
    call = build()
    call()
    Path("/proc/self/clear_refs").write_text("5")  # the largest resident memory is measured from here
    for _ in range(3):
        call()
    return read_status("VmHWM") - imported


def measure(python: str, library: str, request: Request) -> float:
    """Return what `measure_child` returns in a new process."""
    from jaxclf.cli.huge_pages import SETTINGS, VARIABLE

    command = [python, __file__, "--child", library, json.dumps(request)]
    environment = os.environ | {VARIABLE: SETTINGS}
    return float(subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout)


def main() -> None:
    """Measure all rows, and print a table."""
    from networks import WORKS

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--works", nargs="*", default=list(WORKS), help="names of rows of networks.py; all by default")
    parser.add_argument("--torch-python", help="Python interpreter with torch and timm")
    options = parser.parse_args()
    print("| MB | batch | jaxclf | PyTorch | jaxclf / PyTorch |\n|---|---|---|---|---|")
    for name in options.works:
        work = WORKS[name]
        request = (name, work.batch, work.side, work.kind)
        ours = measure(sys.executable, "jaxclf", request)
        theirs = measure(options.torch_python, "torch", request) if options.torch_python else None
        cells = ["", ""] if theirs is None else [f"{theirs:,.0f}", f"{ours / theirs:.2f}"]
        print(f"| {name} | {work.batch} | {ours:,.0f} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        print(measure_child(sys.argv[2], json.loads(sys.argv[3])))
    else:
        main()
