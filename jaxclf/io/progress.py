"""Progress of long work on standard error: a bar in a terminal, one line elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from rich.console import Console
from rich.markup import escape
from rich.progress import track

T = TypeVar("T")


def track_progress(items: Iterable[T], total: int, description: str) -> Iterator[T]:
    """Yield the items, with a progress bar in a terminal."""
    console = Console(file=sys.stderr)
    if not console.is_terminal:
        print(f"{description} ({total:,})", file=sys.stderr)
    yield from track(
        items, escape(description), total, console=console, transient=True, disable=not console.is_terminal
    )


@contextmanager
def show_status(description: str) -> Iterator[None]:
    """Show a spinner in a terminal while the block runs."""
    console = Console(file=sys.stderr)
    if not console.is_terminal:
        yield
        return
    with console.status(escape(description)):
        yield
