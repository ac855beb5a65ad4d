"""What every saliency method gives back."""

from __future__ import annotations

from typing import Any, NamedTuple


class Attribution(NamedTuple):
    """What a score owes to each pixel, in raw units; b examples. From `all_classes`, a class axis follows the batch."""

    values: Any
    """Like the images (float32 for integer ones), channels kept; class-activation maps are [b, h, w, 1]."""
    score: Any
    """[b] the score explained, at the images."""
    delta: Any
    """[b] the completeness gap, sum(values) - (score - score at the baseline); None where it has no meaning."""
    stderr: Any
    """Like `values`: the standard error of a sampled method; None otherwise."""
    evaluations: Any
    """[b] rows sent through the model for each example, forward or forward and backward, endpoints included."""
