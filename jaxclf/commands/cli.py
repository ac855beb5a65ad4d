"""The command line: typed options by tyro, and mistakes answered in a few lines with an exit code."""

from __future__ import annotations

import atexit
import contextlib
import difflib
import gc
import io
import os
import re
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, is_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import tyro

from jaxclf.config import Config, flatten, from_json, import_modules, read_config, to_json
from jaxclf.devices import Parallel
from jaxclf.files import write_text
from jaxclf.interval_log import NonFiniteError
from jaxclf.launch import Processes, leave, who
from jaxclf.types import Splits, UserError

T = TypeVar("T")
LISTED = 20  # entries of a list that are printed
COMPONENTS = ("augment", "metrics", "mixup")  # fields of the config that take components, or none: no flags fit them
Flag = Annotated[bool, tyro.conf.FlagCreatePairsOff]
CompilationCache = Annotated[
    Path | None,
    tyro.conf.arg(
        metavar="DIR", help="Keep compiled programs in this directory, and take from it those that are there."
    ),
]
Imports = Annotated[tuple[str, ...], tyro.conf.arg(name="import", metavar="MODULE …")]


@dataclass(frozen=True)
class TrainOptions:
    """Train the network of a config and evaluate it. Started again on the same directory, it goes on."""

    config: Annotated[Config, tyro.conf.arg(name="")]
    workdir: str | None = None
    """Directory of the run; without one, runs/ and the config's name."""
    parallel: Parallel = "jit"
    """What compiles the step for the devices present. The numbers are the same (batch statistics apart)."""
    processes: Annotated[Processes, tyro.conf.arg(name="")] = field(default_factory=Processes)
    imports: Imports = ()
    """Modules of your own that the config's classes are in."""
    resume: Literal["auto", "force"] = "auto"
    """Whether a run goes on whose config was another one: auto refuses, with the difference."""
    profile: Annotated[str | None, tyro.conf.arg(metavar="START:STOP")] = None
    """Trace these steps of the run, for TensorBoard or ui.perfetto.dev; written to the run's profile/."""
    compilation_cache: CompilationCache = None
    print_config: Flag = False
    """Print the config as JSON, and stop."""
    dry_run: Flag = False
    """Print shapes, parameters, FLOPs and steps, try one step, and stop. Writes nothing."""
    debug: Flag = False
    """Show the traceback of a mistake."""


def command(
    body: Callable[[list[str]], int],
    argv: Sequence[str] | None,
    interrupted: str = "interrupted; started again, training goes on from its last checkpoint",
) -> int:
    """Run an entry point; returns its exit code. `interrupted` is what Ctrl-C is answered with.

    0 is done, 2 a mistake of the user's, 3 training that is not finite, 130 Ctrl-C, 141 a closed pipe.
    """
    atexit.register(gc.freeze)  # or Python looks through all objects again before it ends: a second, with TensorFlow's
    code = answer(body, list(sys.argv[1:] if argv is None else argv), interrupted)
    if code:
        leave(code)
    return code


def answer(body: Callable[[list[str]], int], arguments: list[str], interrupted: str) -> int:
    """Run the body of an entry point, and say what went wrong; returns the exit code."""
    try:
        return body(arguments)
    except (BrokenPipeError, SystemExit) as error:
        # rich makes a closed pipe a SystemExit.
        if not isinstance(error.__context__ or error, BrokenPipeError):
            raise
        sys.stdout = open(os.devnull, "w")  # noqa: PTH123, SIM115 - or the flush at exit complains again
        return 141
    except (UserError, NonFiniteError, OSError) as error:
        if "--debug" in arguments:
            raise
        print(f"{who()}error: {in_words(error)}", file=sys.stderr)
        print_items(getattr(error, "items", ()))
        return 3 if isinstance(error, NonFiniteError) else 2
    except KeyboardInterrupt:
        print(interrupted, file=sys.stderr)
        return 130


def in_words(error: Exception) -> str:
    """The text of an error; what the system refuses names its file."""
    if isinstance(error, OSError) and error.filename:
        return f"{error.strerror}: {error.filename}"
    return str(error)


def print_items(items: Sequence[str]) -> None:
    """A list on standard error; one longer than a screenful is cut there and written whole to a file."""
    for item in items[:LISTED]:
        print(f"  {item}", file=sys.stderr)
    if len(items) > LISTED:
        complete = Path(tempfile.mkdtemp(prefix="jaxclf-")) / "list.txt"
        write_text(complete, "\n".join(items) + "\n")
        print(f"  … {len(items):,} in all, listed in {complete}", file=sys.stderr)


def print_remarks(splits: Splits) -> None:
    """What the user should know of a dataset; files that could not be used are listed on standard error."""
    for remark in splits.remarks:
        print(remark)
    if splits.skipped:
        print(f"files left out: {len(splits.skipped):,}", file=sys.stderr)
        print_items(splits.skipped)


def parse_train(argv: list[str]) -> tuple[str, TrainOptions]:
    """The config named first and the options behind it; returns the config's name with them."""
    if not argv or argv[0] in ("-h", "--help"):
        print("usage: train.py CONFIG [--workdir DIR] [--optimizer.learning-rate 3e-4 …]\n")
        print("CONFIG is a Python file with get_config(), or the name of one that comes with jaxclf.")
        print("train.py CONFIG --help lists every field of that config, with its type, default and meaning.")
        raise SystemExit(0 if argv else 2)
    if argv[0].startswith("-"):
        raise UserError(f"the first argument is {argv[0]}; expected a config, such as configs/mnist_cnn.py")
    config = read_config(argv[0])
    options = parse(TrainOptions, argv[1:], prog=f"train.py {argv[0]}", default=TrainOptions(config))
    import_modules(options.imports)
    from_json(to_json(options.config), options.imports)  # a run whose config could not be read again is not begun
    return re.sub(r"\.py$", "", argv[0].replace("\\", "/").rpartition("/")[2]), options


def parse(cls: type[T], argv: list[str], prog: str, default: T | None = None) -> T:
    """Options of a dataclass from the command line; raises UserError at what is not understood."""
    given: dict[str, Any] = {} if default is None else {"default": default}
    printed = io.StringIO()
    try:
        with contextlib.redirect_stderr(printed):
            options, unknown = tyro.cli(
                cls,
                args=argv,
                prog=prog,
                return_unknown_args=True,
                config=(tyro.conf.AvoidSubcommands,),
                **given,
            )
    except SystemExit as stop:
        if stop.code in (0, None):
            raise
        raise UserError(f"{unboxed(printed.getvalue())}\nsee {prog} --help") from None
    if unknown:
        raise UserError(f"unknown argument {unknown[0]}{nearest(unknown[0], options)}\nsee {prog} --help")
    return options


def unboxed(text: str) -> str:
    """What tyro says in the first part of its box, on one line."""
    rows = [row.strip("│ ") for row in text.splitlines() if not row.startswith(("╭", "╰"))]
    head = rows[: next((i for i, row in enumerate(rows) if set(row) == {"─"}), len(rows))]
    return " ".join(head) or text.strip()


def nearest(argument: str, options: Any) -> str:
    """The flag most like an unknown one."""
    components = [value for value in vars(options).values() if is_dataclass(value)]
    fields = [name for component in components for name in flatten(to_json(component))]
    no_flags = ("run", "paths", "imports")
    own = [name for name, value in vars(options).items() if value not in components and name not in no_flags]
    names = [*(name for name in fields if name.rpartition(".")[2] != "class"), *own, "import"]
    flags = {alias: name for name in names for alias in (initials(name), name.rpartition(".")[2], name)}
    wanted = argument.lstrip("-").partition("=")[0].replace("-", "_")
    if wanted.partition(".")[0] in COMPONENTS and isinstance(options, TrainOptions):
        return "; it is set in the config file"
    for word in (wanted.rpartition(".")[2], wanted):
        if word in flags:
            return f"; did you mean --{flags[word].replace('_', '-')}?"
    close = difflib.get_close_matches(wanted, flags, n=1)
    return f"; did you mean --{flags[close[0]].replace('_', '-')}?" if close else ""


def initials(name: str) -> str:
    """The short name people try: `lr` for `optimizer.learning_rate`."""
    return "".join(word[0] for word in name.rpartition(".")[2].split("_"))
