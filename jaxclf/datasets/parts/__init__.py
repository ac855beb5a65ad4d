"""Images of cartoon characters whose parts can be left out one by one: ground truth for saliency maps."""

from jaxclf.datasets.parts.image import PartsImage, draw_backgrounds, sample_parts_images

__all__ = ["PartsImage", "draw_backgrounds", "sample_parts_images"]
