"""Print the messages of a dataset."""

from __future__ import annotations

import sys

from jaxclf.cli.app import print_items
from jaxclf.types import Splits


def print_remarks(splits: Splits) -> None:
    """Print the remarks of a dataset, and list the files it skipped on standard error."""
    for remark in splits.remarks:
        print(remark)
    if splits.skipped:
        print(f"files left out: {len(splits.skipped):,}", file=sys.stderr)
        print_items(splits.skipped)
