"""Images of drawn characters whose parts can be left out one by one: ground truth for saliency maps."""

from jaxclf.datasets.parts.image import PartsImage, draw_backgrounds, sample_parts_images
from jaxclf.datasets.parts.mix import PartsMix, make_mixed_characters

__all__ = ["PartsImage", "PartsMix", "draw_backgrounds", "make_mixed_characters", "sample_parts_images"]
