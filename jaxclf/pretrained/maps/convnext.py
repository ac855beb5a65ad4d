"""`ConvNext` in timm and in torchvision."""

from __future__ import annotations

from jaxclf.models import ConvNext
from jaxclf.pretrained.tables import Row, map_array, map_conv, map_dense, map_norm

LARGE = 96  # features of the first stage of T, the smallest network of torchvision


def is_large(model: ConvNext) -> bool:
    """Return whether a network has the features of T or more. The MLPs of smaller ones are convolutions in timm."""
    return model.features[0] >= LARGE


def map_timm_convnext(model: ConvNext) -> dict[str, Row]:
    """Return the table of a ConvNeXt of timm."""
    table = map_conv("stem/conv", "stem.0") | map_norm("stem/norm", "stem.1")
    for i, depth in enumerate(model.depths):
        if i:
            ours, theirs = f"stage{i + 1}_downsample", f"stages.{i}.downsample"
            table |= map_norm(f"{ours}/norm", f"{theirs}.0") | map_conv(f"{ours}/conv", f"{theirs}.1")
        for j in range(depth):
            ours, theirs = f"stage{i + 1}_block{j + 1}", f"stages.{i}.blocks.{j}"
            table |= map_conv(f"{ours}/conv", f"{theirs}.conv_dw") | map_norm(f"{ours}/norm", f"{theirs}.norm")
            for k in (1, 2):
                table |= map_dense(f"{ours}/mlp/dense{k}", f"{theirs}.mlp.fc{k}", is_convolution=not is_large(model))
            if model.layer_scale is not None:
                table |= map_array(f"{ours}/scale/scale", f"{theirs}.gamma")
    table |= map_norm("norm", "head.norm")
    return table | map_dense("logits", "head.fc") if model.classes else table


def map_torchvision_convnext(model: ConvNext) -> dict[str, Row]:
    """Return the table of a ConvNeXt of torchvision, where stages and downsampling are numbered together."""
    table = map_conv("stem/conv", "features.0.0") | map_norm("stem/norm", "features.0.1")
    for i, depth in enumerate(model.depths):
        if i:
            ours, theirs = f"stage{i + 1}_downsample", f"features.{2 * i}"
            table |= map_norm(f"{ours}/norm", f"{theirs}.0") | map_conv(f"{ours}/conv", f"{theirs}.1")
        for j in range(depth):
            ours, theirs = f"stage{i + 1}_block{j + 1}", f"features.{2 * i + 1}.{j}"
            table |= map_conv(f"{ours}/conv", f"{theirs}.block.0") | map_norm(f"{ours}/norm", f"{theirs}.block.2")
            table |= map_dense(f"{ours}/mlp/dense1", f"{theirs}.block.3")
            table |= map_dense(f"{ours}/mlp/dense2", f"{theirs}.block.5")
            table |= map_array(f"{ours}/scale/scale", f"{theirs}.layer_scale", (-1,), (-1, 1, 1))
    table |= map_norm("norm", "classifier.0")
    return table | map_dense("logits", "classifier.2") if model.classes else table
