"""Ask a trained run about drawings and pictures in a browser: `python demo.py runs/mnist_cnn`."""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from tempfile import TemporaryDirectory
from threading import Event

from jaxclf.cli.explain import FEW
from jaxclf.cli.load_run import load_run
from jaxclf.cli.one_picture import fitting
from jaxclf.cli.options import DemoOptions
from jaxclf.errors import UserError, require
from jaxclf.inference.trained_model import TrainedModel
from jaxclf.io.progress import shown
from jaxclf.saliency.names import METHODS

HOST = "127.0.0.1"  # this machine and no other


def run(options: DemoOptions) -> int:
    """Load the run, and serve its page until Ctrl-C."""
    check_port(options.port)
    with TemporaryDirectory(prefix="jaxclf-demo-") as directory:
        # gradio reads both when it is imported: it reports to nobody, and what is drawn goes with this process.
        os.environ |= {"GRADIO_ANALYTICS_ENABLED": "False", "GRADIO_TEMP_DIR": directory}
        check_gradio()
        serve(load_run(options), options.port)
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
        import jaxclf.cli.demo_page  # noqa: F401 - the only file that knows gradio, an extra
    except ModuleNotFoundError as error:
        raise UserError("jaxclf demo needs gradio: pip install 'jaxclf[demo]'") from error


def serve(run: TrainedModel, port: int) -> None:
    """Serve the page of a run until Ctrl-C."""
    from jaxclf.cli.demo_page import opened

    names = (*FEW, *(name for name in METHODS if name not in FEW))
    methods = dict(fitting(run, shown(names, len(names), "saliency methods to try on the network")))
    page = opened(run, methods, HOST, port)
    print(f"http://{HOST}:{port} shows {run.directory.path}; Ctrl-C ends it", flush=True)
    with suppress(KeyboardInterrupt):
        Event().wait()
    page.close(verbose=False)
