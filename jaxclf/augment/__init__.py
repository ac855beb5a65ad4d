"""Augmentations: frozen dataclasses called as `augmentation(key, image) -> image`, on the device."""

from jaxclf.augment.base import Augmentation, Resizing, augment_batch, compute_output_shape
from jaxclf.augment.color import ColorJitter
from jaxclf.augment.crops import RandomCrop, RandomResizedCrop
from jaxclf.augment.cutout import Cutout
from jaxclf.augment.erasing import RandomErasing
from jaxclf.augment.evaluation import CenterCrop, TestTime, compute_input_shape, make_views, transform_images
from jaxclf.augment.geometric import Flip, Rotate, Shift
from jaxclf.augment.mixup import CutMix, LabeledImage, Mixer, Mixup, MixupOrCutMix, mix_batch
from jaxclf.augment.policies import RandAugment, TrivialAugment

__all__ = [
    "Augmentation",
    "CenterCrop",
    "ColorJitter",
    "CutMix",
    "Cutout",
    "Flip",
    "LabeledImage",
    "Mixer",
    "Mixup",
    "MixupOrCutMix",
    "RandAugment",
    "RandomCrop",
    "RandomErasing",
    "RandomResizedCrop",
    "Resizing",
    "Rotate",
    "Shift",
    "TestTime",
    "TrivialAugment",
    "augment_batch",
    "compute_input_shape",
    "compute_output_shape",
    "make_views",
    "mix_batch",
    "transform_images",
]
