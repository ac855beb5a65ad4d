"""Profile every command of jaxclf from start to exit: imports, compilation, all other work, exit.

    python benchmarks/command_profile.py configs/mnist_cnn.py --repeats 3

The config is trained first, for a run that the other commands read. Compilation is XLA's, without the tracing of
programs, and imports are those of the main thread. What other threads compile while the main thread works
counts as compilation only. Commands use huge pages from their start. With `--folder` there are also probe, audit, a
finetuning of one epoch, and a prediction by pretrained weights, which imports them when it is run first. `demo`,
`benchmark` and `benchmark-saliency` are left out: they run until they are stopped, or as long as their arguments say.
"""

from __future__ import annotations

import argparse
import builtins
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from PIL import Image

from jaxclf.cli.huge_pages import SETTINGS, VARIABLE

COLUMNS = ("total", "imports", "compilation", "other work", "exit")


def measure_child(output: Path, arguments: list[str]) -> int:
    """Run a command in this process, write what it spent on imports and compilation, and return its exit code."""
    spent, depth, plain_import = {"imports": 0.0, "compilation": 0.0}, [0], builtins.__import__

    def timed_import(*args, **options):
        if depth[0] or threading.current_thread() is not threading.main_thread():
            return plain_import(*args, **options)
        depth[0], began = 1, time.perf_counter()
        try:
            return plain_import(*args, **options)
        finally:
            depth[0] = 0
            spent["imports"] += time.perf_counter() - began

    builtins.__import__ = timed_import
    from jax import monitoring

    from jaxclf.cli.app import main as run_jaxclf

    def record(event: str, seconds: float, **_: object) -> None:
        if event == "/jax/core/compile/backend_compile_duration":
            spent["compilation"] += seconds

    monitoring.register_event_duration_secs_listener(record)
    code = run_jaxclf(arguments)
    output.write_text(json.dumps({**spent, "finished": time.time()}))
    return code


def profile_command(arguments: list[str], cache: Path) -> dict[str, float]:
    """Run a command in a child process, and return its seconds by column."""
    output = cache / "profile.json"
    child = [sys.executable, __file__, "--child", str(output), *arguments]
    began = time.time()
    environment = os.environ | {"XDG_CACHE_HOME": str(cache), VARIABLE: SETTINGS}
    subprocess.run(child, env=environment, check=True, capture_output=True)
    ended = time.time()
    spent = json.loads(output.read_text())
    total, exit_seconds = ended - began, ended - spent["finished"]
    other = total - exit_seconds - spent["imports"] - spent["compilation"]
    return dict(zip(COLUMNS, (total, spent["imports"], spent["compilation"], other, exit_seconds), strict=True))


def list_commands(options: argparse.Namespace, folder: Path) -> dict[str, list[str]]:
    """Return the commands by name. The first trains the run that others read."""
    run, picture = str(folder / "run"), str(folder / "picture.png")
    commands = {
        "train": ["train", options.config, "--workdir", run],
        "eval": ["eval", run],
        "predict, one image": ["predict", run, picture],
        "explain, ten images": ["explain", run],
        "report": ["report", run],
        "export": ["export", run],
        "data": ["data", options.config],
        "models": ["models"],
    }
    if options.folder:
        photograph = str(next(options.folder.rglob("*.jpg")))
        commands |= {"predict, lite0": ["predict", "lite0", photograph]}
        for name, more in {"probe": [], "audit": [], "finetune": ["--epochs", "1"]}.items():
            commands[name] = [name, str(options.folder), "--bundle", "lite0", "--workdir", str(folder / name), *more]
    chosen = options.commands and {"train", *options.commands}
    return {name: command for name, command in commands.items() if not chosen or command[0] in chosen}


def main() -> None:
    """Run every command without and with cached programs, several times, and print medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", help="config to train")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each command")
    parser.add_argument("--folder", type=Path, help="folder of photographs by class, for probe, audit and lite0")
    parser.add_argument("--commands", nargs="+", help="first words of the commands besides train; all by default")
    options = parser.parse_args()
    rows: dict[str, list[dict[str, float]]] = {}
    for repeat in range(options.repeats):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            Image.new("L", (28, 28)).save(folder / "picture.png")
            for command, arguments in list_commands(options, folder).items():
                for programs in ("first run", "with cached programs"):
                    # What a command writes would be resumed, or refused.
                    shutil.rmtree(folder / ("run" if command == "train" else command), ignore_errors=True)
                    rows.setdefault(f"{command}; {programs}", []).append(profile_command(arguments, folder))
                print(f"{repeat + 1} of {options.repeats}: {command}", file=sys.stderr, flush=True)
    print(f"| seconds | {' | '.join(COLUMNS)} |\n|{'---|' * (len(COLUMNS) + 1)}")
    for command, runs in rows.items():
        print(f"| {command} | {' | '.join(f'{statistics.median(run[c] for run in runs):.1f}' for c in COLUMNS)} |")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        sys.exit(measure_child(Path(sys.argv[2]), sys.argv[3:]))
    main()
