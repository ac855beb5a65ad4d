"""The command `jaxclf`: it parses options, runs a command, and turns user errors into a few lines and an exit code.

Commands are imported when they are run, so that help and mistakes are answered without importing JAX.
"""

from __future__ import annotations

import atexit
import contextlib
import difflib
import gc
import io
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar

import tyro

from jaxclf import __version__
from jaxclf.cli import options
from jaxclf.cli.huge_pages import use_huge_pages
from jaxclf.errors import NonFiniteError, UserError
from jaxclf.io.files import write_text

T = TypeVar("T")
LISTED = 20  # items of a list to print
COMMANDS = {
    "train": "train the network of a config and evaluate it",
    "eval": "evaluate a run: accuracy, confusion matrix, predictions, figures, report",
    "explain": "saliency maps of a run's predictions",
    "predict": "classify image files with a run",
    "export": "export a run as StableHLO and safetensors",
    "demo": "classify drawings and images in the browser",
    "benchmark": "train configs x settings x seeds and tabulate the results",
    "benchmark-saliency": "compare saliency methods with Shapley values of the parts of images",
    "data": "show the shapes, classes and images of a config's dataset",
    "report": "write the page of a run, or compare runs on one page",
    "import": "import the weights of a published network as a bundle",
    "probe": "classify a folder by features of pretrained weights",
    "finetune": "train pretrained weights on a folder",
    "audit": "find label errors, near-duplicates and outliers of a folder",
    "models": "list the published networks, with parameters and FLOPs",
}
OPTIONS = {
    "eval": options.EvalOptions,
    "explain": options.ExplainOptions,
    "predict": options.PredictOptions,
    "export": options.ExportOptions,
    "demo": options.DemoOptions,
    "benchmark": options.BenchmarkOptions,
    "benchmark-saliency": options.BenchmarkSaliencyOptions,
    "data": options.DataOptions,
    "report": options.ReportOptions,
    "import": options.ImportOptions,
    "probe": options.ProbeOptions,
    "finetune": options.FinetuneOptions,
    "audit": options.AuditOptions,
    "models": options.ModelsOptions,
}
MODULES = {
    "import": "import_weights",
    "benchmark-saliency": "benchmark_saliency",
}  # commands whose modules have other names
FLAGS = {"fields": "set", "imports": "import"}  # fields of options whose flags have other names
INTERRUPTED = {  # what Ctrl-C is answered with
    "train": "interrupted; the same command resumes from the last checkpoint",
    "finetune": "interrupted; the same command resumes from the last checkpoint",
    "benchmark": "interrupted; the same command runs what is not finished",
    "benchmark-saliency": "interrupted; the same command runs what is not finished",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        argv: The name of a command and its arguments; by default those of the process.

    Returns:
        The exit code: 0 done, 2 user error, 3 non-finite training, 4 some runs or images failed, 130 SIGINT,
        141 closed output, 143 SIGTERM.
    """
    name, *arguments = list(sys.argv[1:] if argv is None else argv) or ["--help"]
    if name in COMMANDS and not {"-h", "--help"} & set(arguments):
        use_huge_pages()
    prepare_streams()
    atexit.register(gc.freeze)  # or Python looks for garbage once more before it exits: 1 s with TensorFlow imported
    code = answer_errors(name, arguments)
    if code and "jax" in sys.modules:
        from jaxclf.training.distributed import exit_process

        exit_process(code)
    return code


def prepare_streams() -> None:
    """Replace standard streams that are closed, and print characters that an encoding lacks as escapes."""
    for name in ("stdin", "stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed, as services and cron may leave them
            setattr(sys, name, open(os.devnull, "r" if name == "stdin" else "w"))  # noqa: PTH123, SIM115
        elif name != "stdin" and isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def answer_errors(name: str, arguments: list[str]) -> int:
    """Run a command and print what went wrong; return the exit code."""
    try:
        return run_command(name, arguments)
    except (BrokenPipeError, SystemExit) as error:
        # rich turns a closed pipe into a SystemExit.
        if not isinstance(error.__context__ or error, BrokenPipeError):
            raise
        sys.stdout = open(os.devnull, "w")  # noqa: PTH123, SIM115 - or the flush at exit complains again
        return 141
    except (UserError, NonFiniteError, OSError) as error:
        if "--debug" in arguments:
            raise
        print(f"{name_process()}error: {describe_error(error)}", file=sys.stderr)
        print_items(getattr(error, "items", ()))
        return 3 if isinstance(error, NonFiniteError) else 2
    except KeyboardInterrupt:
        print(INTERRUPTED.get(name, "interrupted"), file=sys.stderr)
        return 130


def run_command(name: str, arguments: list[str]) -> int:
    """Parse the options of a command, import it and run it; return the exit code."""
    if name in ("-h", "--help"):
        width = max(map(len, COMMANDS))
        print("usage: jaxclf COMMAND …\n\nImage classification in JAX and Flax.\n")
        print("\n".join(f"  {command:<{width}}  {what}" for command, what in COMMANDS.items()))
        print("\njaxclf COMMAND --help lists the options of a command; jaxclf --version prints the version.")
        return 0
    if name == "--version":
        print(__version__)
        return 0
    if name not in COMMANDS:
        close = difflib.get_close_matches(name, COMMANDS, n=1)
        hint = f"did you mean {close[0]}?" if close else f"expected one of {', '.join(COMMANDS)}"
        raise UserError(f"unknown command {name!r}; {hint}\nsee jaxclf --help")
    try:
        parsed = parse_options(name, arguments)
        if name != "train":
            from jaxclf.training.distributed import require_single_process

            require_single_process(f"jaxclf {name}")
        return import_module(f"jaxclf.cli.{MODULES.get(name, name)}").run(parsed)
    except (RuntimeError, AssertionError):
        require_platform()
        raise


def require_platform() -> None:
    """Raise UserError if JAX cannot start with the devices that JAX_PLATFORMS names."""
    platforms = os.environ.get("JAX_PLATFORMS")
    if not platforms:
        return
    import jax

    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:
        raise UserError(
            f"JAX_PLATFORMS={platforms}: JAX finds no such device here\n"
            "unset JAX_PLATFORMS to use what is there, or install support for it, such as pip install 'jaxclf[cuda]'"
        ) from error


def parse_options(name: str, arguments: list[str]) -> Any:
    """Parse the options of a command. Those of some commands depend on a config or on methods, which are imported."""
    if name == "train":
        if not arguments or arguments[0] in ("-h", "--help"):
            print("usage: jaxclf train CONFIG [--workdir DIR] [--optimizer.learning-rate 3e-4 …]\n")
            print("CONFIG is a Python file with get_config(), or the name of a built-in config.")
            print("jaxclf train CONFIG --help lists every field of that config, with its type, default and meaning.")
            raise SystemExit(0 if arguments else 2)
        return import_module("jaxclf.cli.train_options").parse_train(arguments)
    cls = OPTIONS[name]
    dataset: tuple[str, ...] = ()
    if name in ("eval", "explain", "data", "report", "probe", "audit", "finetune"):
        arguments, dataset = take_dataset_options(arguments)
    takes_methods = name in ("explain", "benchmark-saliency")
    if takes_methods and ("--methods" in arguments or not {"-h", "--help"} & set(arguments)):
        module = import_module("jaxclf.cli.explain_options")
        parsed = parse(module.WITH_FIELDS[cls], arguments, f"jaxclf {name}", suggest=module.suggest_option)
    else:
        parsed = parse(cls, arguments, prog=f"jaxclf {name}")
    return replace(parsed, dataset=dataset) if dataset else parsed


def take_dataset_options(arguments: list[str]) -> tuple[list[str], tuple[str, ...]]:
    """Return the arguments without options such as `--dataset.root DIR`, and those: the run says what they can be."""
    rest, taken, taking = [], [], False
    for argument in arguments:
        if argument.startswith("--"):
            taking = argument.startswith("--dataset.")
        (taken if taking else rest).append(argument)
    return rest, tuple(taken)


def parse(
    cls: type[T],
    arguments: list[str],
    prog: str,
    default: T | None = None,
    suggest: Callable[[str, Any], str] | None = None,
) -> T:
    """Parse the options of a dataclass from the command line.

    Args:
        cls: The dataclass.
        arguments: The words of the command line.
        prog: The command, as help and errors name it.
        default: The options if no argument is given.
        suggest: Maps an unknown argument and the options to a hint; by default, similar names of fields.

    Raises:
        UserError: For an argument that is not understood.
    """
    given: dict[str, Any] = {} if default is None else {"default": default}
    printed = io.StringIO()
    try:
        with contextlib.redirect_stderr(printed):
            parsed, unknown = tyro.cli(
                cls,
                args=arguments,
                prog=prog,
                return_unknown_args=True,
                config=(tyro.conf.AvoidSubcommands,),
                **given,
            )
    except SystemExit as stop:
        if stop.code in (0, None):
            raise
        raise UserError(f"{read_first_message(printed.getvalue())}\nsee {prog} --help") from None
    if unknown:
        hint = (suggest or suggest_field)(unknown[0], parsed)
        raise UserError(f"unknown argument {unknown[0]}{hint}\nsee {prog} --help")
    return parsed


def suggest_field(argument: str, parsed: Any) -> str:
    """Suggest the field of some options that an unknown argument most resembles."""
    flags = [FLAGS.get(field.name, field.name.replace("_", "-")) for field in fields(parsed)]
    close = difflib.get_close_matches(argument.lstrip("-").partition("=")[0], flags, n=1)
    return f"; did you mean --{close[0]}?" if close else ""


def read_first_message(text: str) -> str:
    """Return the first message of tyro's box of errors, on one line."""
    rows = [row.strip("│ ") for row in text.splitlines() if not row.startswith(("╭", "╰"))]
    head = rows[: next((i for i, row in enumerate(rows) if set(row) == {"─"}), len(rows))]
    return " ".join(head) or text.strip()


def name_process() -> str:
    """Return what the errors of one process of several begin with."""
    if "jax" not in sys.modules:
        return ""
    from jaxclf.training.distributed import process_prefix

    return process_prefix()


def describe_error(error: Exception) -> str:
    """Return the text of an error; one of the operating system names its file."""
    if isinstance(error, OSError) and error.filename:
        return f"{error.strerror}: {error.filename}"
    return str(error)


def print_items(items: Sequence[str]) -> None:
    """Print a list to standard error; one longer than a screen is cut there and written to a file."""
    for item in items[:LISTED]:
        print(f"  {item}", file=sys.stderr)
    if len(items) > LISTED:
        complete = Path(tempfile.mkdtemp(prefix="jaxclf-")) / "list.txt"
        write_text(complete, "\n".join(items) + "\n")
        print(f"  … {len(items):,} in all, listed in {complete}", file=sys.stderr)
