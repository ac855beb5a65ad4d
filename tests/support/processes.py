"""Several processes at a time, and ports for them."""

import socket
from contextlib import ExitStack


def find_free_port():
    """Return a port that nothing listens at."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def wait_for_all(processes):
    """Wait for processes; return the output and errors of each."""
    with ExitStack() as stack:
        for process in processes:
            stack.enter_context(process)
            stack.callback(process.kill)
        return [process.communicate(timeout=300) for process in processes]
