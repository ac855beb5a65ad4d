"""CIFAR-10 with a small vision transformer. PLACEHOLDER

    python train.py configs/cifar10_vit.py --dataset.root DIR
"""

from jaxclf.augment import Flip, RandomCrop
from jaxclf.config import Config
from jaxclf.datasets import ImageFolder
from jaxclf.models import Normalize, Vit
from jaxclf.optimizers import AdamW, WarmupCosine


def get_config() -> Config:
    return Config(
        dataset=ImageFolder("data/cifar10", (32, 32)),
        model=Vit(
            patch=4,
            width=96,
            depth=4,
            heads=3,
            classes=10,
            image_size=(32, 32),
            pool="mean",
            normalize=Normalize(mean=(0.491, 0.482, 0.447), std=(0.247, 0.243, 0.262)),
        ),
        optimizer=AdamW(learning_rate=1e-3, weight_decay=0.05, schedule=WarmupCosine(warmup=0.1)),
        augment=(RandomCrop(32, padding=4), Flip()),
        epochs=12,
        batch_size=128,
    )
