"""Run another library in a subprocess with its own interpreter, and time its calls interleaved."""

import contextlib
import json
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

Timed = Callable[[], float]
"""Does something once, and returns how long it took."""
Ask = Callable[[Any], Any]
"""Sends a request, and returns the reply."""
PAUSE = 0.3
"""Seconds in which the threads of the one before stop waiting for work: OpenMP's keep a core busy for 0.2 s."""


@contextlib.contextmanager
def start_peer(python: str, script: str, *arguments: str) -> Iterator[Ask]:
    """Start a script of this folder that replies to each request, a line of JSON, with another line."""
    command = [python, str(Path(__file__).with_name(script)), *arguments]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin and process.stdout
    requests, replies = process.stdin, process.stdout

    def ask(request: Any) -> Any:
        print(json.dumps(request), file=requests, flush=True)
        return json.loads(replies.readline())

    try:
        yield ask
    finally:
        requests.close()
        process.wait()


def measure(contenders: Mapping[str, Timed], repeats: int) -> dict[str, float]:
    """Return the median of calls in turn, each after a pause and a call that is not counted."""
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(repeats):
        for name, call in contenders.items():
            time.sleep(PAUSE)
            call()
            times[name].append(call())
    return {name: statistics.median(each) for name, each in times.items()}
