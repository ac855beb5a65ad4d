"""`Vit` in timm."""

from __future__ import annotations

import numpy as np

from jaxclf.models import Vit
from jaxclf.pretrained.tables import Row, map_array, map_conv, map_dense, map_norm


def map_timm_vit(model: Vit) -> dict[str, Row]:
    """Return the table of a VisionTransformer of timm."""
    table = map_array("positions", "pos_embed", (-1, model.width), (1, -1, model.width))
    table |= map_conv("patch_embedding", "patch_embed.proj")
    if model.pool == "class_token":
        table |= map_array("class_token", "cls_token", (-1,), (1, 1, -1))
    for i in range(model.depth):
        ours, theirs = f"block{i + 1}", f"blocks.{i}"
        for j in (1, 2):
            table |= map_norm(f"{ours}/norm{j}", f"{theirs}.norm{j}")
            table |= map_dense(f"{ours}/mlp/dense{j}", f"{theirs}.mlp.fc{j}")
            if model.layer_scale is not None:
                table |= map_array(f"{ours}/scale{j}/scale", f"{theirs}.ls{j}.gamma")
        table |= _map_attention(f"{ours}/attention", f"{theirs}.attn", model)
    table |= map_norm("norm", "norm")
    return table | map_dense("logits", "head") if model.classes else table


def _map_attention(path: str, source: str, model: Vit) -> dict[str, Row]:
    """Return the rows of attention. Queries, keys and values are one dense layer in timm."""
    table = map_dense(f"{path}/out", f"{source}.proj")
    for i, part in enumerate(("query", "key", "value")):
        for ours, theirs in (("kernel", "weight"), ("bias", "bias")):
            table[f"params/{path}/{part}/{ours}"] = Row(
                f"{source}.qkv.{theirs}", lambda array, i=i: np.split(array, 3)[i].T, np.transpose
            )
    if model.qk_norm:
        table |= map_norm(f"{path}/query_norm", f"{source}.q_norm") | map_norm(f"{path}/key_norm", f"{source}.k_norm")
    return table
