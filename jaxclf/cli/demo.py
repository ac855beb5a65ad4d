"""Classify drawings and images in the browser: `jaxclf demo runs/mnist_cnn`."""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from tempfile import TemporaryDirectory
from threading import Event

from jaxclf.cli.demo_prediction import select_methods
from jaxclf.cli.explain import DEFAULT_METHODS
from jaxclf.cli.load_run import load_run
from jaxclf.cli.options import DemoOptions
from jaxclf.errors import UserError, require
from jaxclf.inference.trained_model import TrainedModel
from jaxclf.io.progress import track_progress
from jaxclf.saliency.names import METHODS

HOST = "127.0.0.1"  # reachable from this machine only


def run(options: DemoOptions) -> int:
    """Load the run and serve its page until Ctrl-C; return the exit code."""
    _check_port(options.port)
    with TemporaryDirectory(prefix="jaxclf-demo-") as directory:
        # gradio reads both at its import: no telemetry, and uploads are deleted when the process ends.
        os.environ |= {"GRADIO_ANALYTICS_ENABLED": "False", "GRADIO_TEMP_DIR": directory}
        _check_gradio()
        _serve(load_run(options), options.port)
    return 0


def _check_port(port: int) -> None:
    """Raise UserError if the page cannot be served at a port."""
    require(1 <= port <= 65_535, f"port={port}: expected 1 to 65535")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # allow the port of a demo that has just ended
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise UserError(f"port={port}: {error.strerror}; name another with --port") from error


def _check_gradio() -> None:
    """Raise UserError if gradio is not installed."""
    try:
        import jaxclf.cli.demo_page  # noqa: F401 - the only module that imports gradio, an extra
    except ModuleNotFoundError as error:
        raise UserError("jaxclf demo needs gradio: pip install 'jaxclf[demo]'") from error


def _serve(run: TrainedModel, port: int) -> None:
    """Serve the page of a run until Ctrl-C."""
    from jaxclf.cli.demo_page import launch_page

    names = (*DEFAULT_METHODS, *(name for name in METHODS if name not in DEFAULT_METHODS))
    methods = dict(select_methods(run, track_progress(names, len(names), "saliency methods to check")))
    page = launch_page(run, methods, HOST, port)
    print(f"serving {run.directory.path} at http://{HOST}:{port}; press Ctrl-C to stop", flush=True)
    with suppress(KeyboardInterrupt):
        Event().wait()
    page.close(verbose=False)
