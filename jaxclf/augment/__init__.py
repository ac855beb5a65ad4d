"""Augmentations: frozen dataclasses called as `augmentation(key, image) -> image`, on the device."""

from jaxclf.augment.base import Augmentation, augment_batch
from jaxclf.augment.cutout import Cutout
from jaxclf.augment.geometric import Flip, Rotate, Shift
from jaxclf.augment.mixup import Mixup

__all__ = ["Augmentation", "Cutout", "Flip", "Mixup", "Rotate", "Shift", "augment_batch"]
