"""`EfficientNetLite` in timm and in the package efficientnet_lite_pytorch."""

from __future__ import annotations

from collections.abc import Iterator

from jaxclf.models import EfficientNetLite
from jaxclf.pretrained.tables import Row, map_conv_norm, map_dense


def map_timm_efficientnet_lite(model: EfficientNetLite) -> dict[str, Row]:
    """Return the table of an EfficientNet of timm, where blocks without expansion have other names."""
    table = map_conv_norm("stem", "conv_stem", "bn1")
    for path, i, j, expansion in _iterate_blocks(model):
        parts = {"expand": "conv_pw", "depthwise": "conv_dw", "project": "conv_pwl"}
        if expansion == 1:
            parts = {"depthwise": "conv_dw", "project": "conv_pw"}
        for k, (part, conv) in enumerate(parts.items(), start=1):
            table |= map_conv_norm(f"{path}/{part}", f"blocks.{i}.{j}.{conv}", f"blocks.{i}.{j}.bn{k}")
    table |= map_conv_norm("top", "conv_head", "bn2")
    return table | map_dense("logits", "classifier") if model.classes else table


def map_efficientnet_lite_pytorch(model: EfficientNetLite) -> dict[str, Row]:
    """Return the table of the package efficientnet_lite_pytorch, where all blocks are numbered together."""
    table = map_conv_norm("stem", "_conv_stem", "_bn0")
    for number, (path, _, _, expansion) in enumerate(_iterate_blocks(model)):
        parts = {"expand": "_bn0"} if expansion > 1 else {}
        for part, norm in (parts | {"depthwise": "_bn1", "project": "_bn2"}).items():
            theirs = f"_blocks.{number}"
            table |= map_conv_norm(f"{path}/{part}", f"{theirs}._{part}_conv", f"{theirs}.{norm}")
    table |= map_conv_norm("top", "_conv_head", "_bn1")
    return table | map_dense("logits", "_fc") if model.classes else table


def _iterate_blocks(model: EfficientNetLite) -> Iterator[tuple[str, int, int, int]]:
    """Yield the path of each block, its stage and its place in it, from 0, and its expansion."""
    for i, (depth, expansion) in enumerate(zip(model.depths, model.expansions, strict=True)):
        for j in range(depth):
            yield f"stage{i + 1}_block{j + 1}", i, j, expansion
