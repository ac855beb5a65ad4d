"""The options of `train`: those of a run, and every field of its config."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass, field, is_dataclass
from pathlib import PurePath
from typing import Annotated, Any, Literal

import tyro

from jaxclf.cli.app import parse
from jaxclf.cli.options import CompilationCache, Flag, Imports
from jaxclf.config import Config
from jaxclf.config_io import flatten, from_json, import_modules, read_config, to_json
from jaxclf.errors import UserError
from jaxclf.training.devices import Parallel
from jaxclf.training.distributed import Processes
from jaxclf.training.resident import Input

# Fields of the config that hold components: which ones is set in the config file.
COMPONENTS = ("augment", "metrics", "mixup", "evaluation_transform", "init")


@dataclass(frozen=True)
class TrainOptions:
    """Train the network of a config and evaluate it. Started again on the same directory, the run resumes."""

    config: Annotated[Config, tyro.conf.arg(name="")]
    workdir: str | None = None
    """Directory of the run; without it, runs/ and the name of the config."""
    parallel: Parallel = "jit"
    """Compile the step with jit over a mesh of all devices, or with pmap. Results are the same. Under pmap, batch
    normalization needs batch_norm_group; flax.linen.BatchNorm has the statistics of each device."""
    input: Input = "auto"
    """Where training images are kept: on the host, or on every device (jit only), so that no step waits for images;
    auto: on accelerators if they take at most a quarter of the memory. Everything else is the same."""
    processes: Annotated[Processes, tyro.conf.arg(name="")] = field(default_factory=Processes)
    imports: Imports = ()
    """Your own modules that define classes of the config."""
    resume: Literal["auto", "force"] = "auto"
    """auto: refuse to resume with a changed config; force: resume with it anyway."""
    writers: tuple[str, ...] = ("jsonl", "tensorboard")
    """Where metrics go: jsonl (always), tensorboard, mlflow, wandb, or the class name of your own writer."""
    profile: Annotated[str | None, tyro.conf.arg(metavar="START:STOP")] = None
    """Trace these steps into profile/ of the run, for TensorBoard or ui.perfetto.dev."""
    compilation_cache: CompilationCache = "auto"
    fast_convolutions: bool = True
    """Rewrite convolutions into the forms that XLA compiles best on CPUs; --no-fast-convolutions leaves them as is."""
    print_config: Flag = False
    """Print the config as JSON and exit."""
    dry_run: Flag = False
    """Print shapes, parameters and their optimizer groups, FLOPs and steps, run one step, and exit. Writes nothing."""
    debug: Flag = False
    """Show the traceback of a user error."""
    name: tyro.conf.Suppress[str] = ""


def parse_train(argv: list[str]) -> TrainOptions:
    """Parse a config, named first, and the options after it.

    Raises:
        UserError: If the config cannot be read, or an option is not understood.
    """
    if argv[0].startswith("-"):
        raise UserError(f"the first argument is {argv[0]}; expected a config, such as configs/mnist_cnn.py")
    name = re.sub(r"\.py$", "", PurePath(argv[0].replace("\\", "/")).name)
    defaults = TrainOptions(read_config(argv[0]), name=name)
    options = parse(TrainOptions, argv[1:], prog=f"jaxclf train {argv[0]}", default=defaults, suggest=suggest_flag)
    import_modules(options.imports)
    from_json(to_json(options.config), options.imports)  # refuse a run whose config could not be read again
    return options


def suggest_flag(argument: str, options: TrainOptions) -> str:
    """Suggest the flag that an unknown argument most resembles; return text to append to an error message."""
    wanted = argument.lstrip("-").partition("=")[0].replace("-", "_")
    if wanted == "set":
        return "; each field has an option of its own, such as --epochs 1"
    if (parent := wanted.partition(".")[0]) in COMPONENTS:
        return _list_flags(parent, options.config)
    components = [value for value in vars(options).values() if is_dataclass(value)]
    names = [name for each in components for name in flatten(to_json(each)) if name.rpartition(".")[2] != "class"]
    names += [name for name, value in vars(options).items() if value not in components and name != "name"]
    return find_similar(wanted, names)


def _list_flags(name: str, config: Config) -> str:
    """Return the flags of the components in a field of the config, as text to append to an error message."""
    known = [each for each in flatten(to_json(config)) if each.startswith(f"{name}.") and not each.endswith(".class")]
    if not known:
        return "; it is set in the config file"
    return f"; the flags of {name} are " + ", ".join(f"--{each}".replace("_", "-") for each in known)


def find_similar(wanted: str, names: list[str]) -> str:
    """Suggest one of some names: by initials (`lr`), by the last part of a dotted name, or by spelling."""
    aliases = {alias: name for name in names for alias in (get_initials(name), name.rpartition(".")[2], name)}
    word = next((word for word in (wanted.rpartition(".")[2], wanted) if word in aliases), None)
    close: list[Any] = [word] if word else difflib.get_close_matches(wanted, aliases, n=1)
    return f"; did you mean --{aliases[close[0]].replace('_', '-')}?" if close else ""


def get_initials(name: str) -> str:
    """Return the initials of a field: `lr` for `optimizer.learning_rate`."""
    return "".join(word[0] for word in name.rpartition(".")[2].split("_"))
