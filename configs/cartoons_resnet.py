"""Cartoon characters with a residual network of 309,858 parameters: four stages of one block, 12 epochs.

00.00 % test accuracy (n = 1 seed).

    python train.py configs/cartoons_resnet.py
"""

from jaxclf.augment import Flip, RandomCrop
from jaxclf.config import Config
from jaxclf.datasets import Cartoons
from jaxclf.models import Normalize, ResNet
from jaxclf.optimizers import OneCycle, Sgd


def get_config() -> Config:
    return Config(
        dataset=Cartoons(),
        model=ResNet(
            depths=(1, 1, 1, 1),
            width=16,
            stem="cifar",
            classes=18,
            batch_norm_group=32,
            normalize=Normalize(mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25)),
        ),
        optimizer=Sgd(
            learning_rate=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4, schedule=OneCycle(peak_at=0.25)
        ),
        augment=(RandomCrop(64, padding=6), Flip()),
        epochs=12,
        batch_size=64,
    )
