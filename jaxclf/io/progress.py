"""Progress of long work: a bar on a terminal, elsewhere one line, both on standard error."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from rich.console import Console
from rich.markup import escape
from rich.progress import track

T = TypeVar("T")


def shown(items: Iterable[T], total: int, description: str) -> Iterator[T]:
    """The items, with their progress shown while they are taken."""
    console = Console(file=sys.stderr)
    if not console.is_terminal:
        print(f"{description} ({total:,})", file=sys.stderr)
    yield from track(
        items, escape(description), total, console=console, transient=True, disable=not console.is_terminal
    )


@contextmanager
def working(description: str) -> Iterator[None]:
    """Something moves on a terminal while the block, whose steps are not counted, is at work."""
    console = Console(file=sys.stderr)
    if not console.is_terminal:
        yield
        return
    with console.status(escape(description)):
        yield
