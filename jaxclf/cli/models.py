"""`jaxclf models`: list the published networks that models give by name."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.progress import track

from jaxclf.cli.options import ModelsOptions
from jaxclf.models import ConvNext, EfficientNetLite, ResNet, Vit, summarize
from jaxclf.reporting.tables import print_rows

FAMILIES: tuple[Any, ...] = (ResNet, Vit, ConvNext, EfficientNetLite)


def run(options: ModelsOptions) -> int:
    """Run `jaxclf models`; return the exit code."""
    networks = [(family, name, side) for family in FAMILIES for name, side in family.names.items()]
    rows = []
    for family, name, side in track(networks, "computing shapes", console=Console(stderr=True), transient=True):
        summary = summarize(family.named(name, classes=options.classes), (side, side, 3))
        call = f"{family.__name__}.named({name!r}, classes={options.classes})".replace("'", '"')
        rows.append((call, f"{summary.trainable:,}", f"{summary.forward_flops / 1e9:.2f}", f"{side} x {side}"))
    print_rows(("model", "parameters", "GFLOPs", "image"), rows)
    return 0
