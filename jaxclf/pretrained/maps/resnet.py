"""`ResNet` in torchvision. The ResNets of timm have the same names."""

from __future__ import annotations

from functools import partial

from jaxclf.models import ResNet
from jaxclf.pretrained.tables import Row, map_conv_norm, map_dense


def map_torchvision_resnet(model: ResNet) -> dict[str, Row]:
    """Return the table of a ResNet of torchvision."""
    map_pair = partial(map_conv_norm, has_statistics=model.norm == "batch")
    table, bottleneck = map_pair("stem", "conv1", "bn1"), model.block == "bottleneck"
    for i, depth in enumerate(model.depths):
        for j in range(depth):
            ours, theirs = f"stage{i + 1}_block{j + 1}", f"layer{i + 1}.{j}"
            for k in range(1, 4 if bottleneck else 3):
                table |= map_pair(f"{ours}/conv{k}", f"{theirs}.conv{k}", f"{theirs}.bn{k}")
            if j == 0 and (i > 0 or bottleneck):
                table |= map_pair(f"{ours}/shortcut", f"{theirs}.downsample.0", f"{theirs}.downsample.1")
    return table | map_dense("logits", "fc") if model.classes else table
