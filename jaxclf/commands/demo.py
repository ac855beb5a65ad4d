"""Ask a trained run about drawings and pictures in a browser: `python demo.py runs/mnist_cnn`."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from tempfile import TemporaryDirectory
from threading import Event

from jaxclf.commands.cli import command, parse
from jaxclf.commands.explain import FEW
from jaxclf.commands.one_picture import fitting
from jaxclf.commands.saved_run import RunOptions
from jaxclf.launch import alone
from jaxclf.progress import shown
from jaxclf.run import Run
from jaxclf.saliency.names import METHODS
from jaxclf.types import UserError, require

HOST = "127.0.0.1"  # this machine and no other


@dataclass(frozen=True, kw_only=True)
class DemoOptions(RunOptions):
    """Serve a page, to this machine alone, where a run says what is drawn or dropped there; Ctrl-C ends it."""

    port: int = 7860
    """The page is at http://127.0.0.1 and this port."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    return command(demonstrate, argv, interrupted="interrupted")


def demonstrate(argv: list[str]) -> int:
    """Load the run, and serve its page until Ctrl-C."""
    options = parse(DemoOptions, argv, prog="demo.py")
    alone("demo.py")
    check_port(options.port)
    with TemporaryDirectory(prefix="jaxclf-demo-") as directory:
        # gradio reads both when it is imported: it reports to nobody, and what is drawn goes with this process.
        os.environ |= {"GRADIO_ANALYTICS_ENABLED": "False", "GRADIO_TEMP_DIR": directory}
        check_gradio()
        serve(options.load(), options.port)
    return 0


def check_port(port: int) -> None:
    """Raise UserError for a port that cannot be served at."""
    require(1 <= port <= 65_535, f"port={port}: expected 1 to 65535")
    with socket.socket() as tried:
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a page that has just ended is not in the way
        try:
            tried.bind((HOST, port))
        except OSError as error:
            raise UserError(f"port={port}: {error.strerror}; name another with --port") from error


def check_gradio() -> None:
    """Raise UserError where gradio is not installed."""
    try:
        import jaxclf.commands.page  # noqa: F401 - the only file that knows gradio, an extra
    except ModuleNotFoundError as error:
        raise UserError("demo.py needs gradio: pip install 'jaxclf[demo]'") from error


def serve(run: Run, port: int) -> None:
    """Serve the page of a run until Ctrl-C."""
    from jaxclf.commands.page import opened

    names = (*FEW, *(name for name in METHODS if name not in FEW))
    methods = dict(fitting(run, shown(names, len(names), "saliency methods to try on the network")))
    page = opened(run, methods, HOST, port)
    print(f"http://{HOST}:{port} shows {run.directory.path}; Ctrl-C ends it", flush=True)
    with suppress(KeyboardInterrupt):
        Event().wait()
    page.close(verbose=False)


if __name__ == "__main__":
    sys.exit(main())
