"""What the commands that use a trained run have in common: which run, and which of its weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from jaxclf.commands.cli import CompilationCache, Flag, Imports
from jaxclf.devices import keep_compiled
from jaxclf.run import Run, load


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """The options of each of these commands; its own are added by inheritance."""

    run: Annotated[Path, tyro.conf.Positional]
    """Directory of the run."""
    checkpoint: str = "last"
    """Which weights: last, best (by validation accuracy) or a step."""
    weights: Literal["ema", "raw"] = "ema"
    """The running mean of the parameters, where the run keeps one, or the parameters themselves."""
    compilation_cache: CompilationCache = None
    imports: Imports = ()
    """Modules of your own that the config's classes are in."""
    debug: Flag = False
    """Show the traceback of a mistake."""

    def load(self) -> Run:
        """The run; its programs are kept where the user asked for that."""
        keep_compiled(self.compilation_cache)
        return load(self.run, self.checkpoint, self.weights, self.imports)
