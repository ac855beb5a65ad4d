"""Cartoon characters with a vision transformer of 467,826 parameters: patches of 8 x 8 pixels, width 96, depth 4.

94.03 ± 0.10 % test accuracy, test loss 0.194, after 60 epochs (n = 3 seeds); 446 s of training on two cores of an AMD
EPYC, with other work running. Used to compare saliency methods, see docs/saliency.md.

    python train.py configs/cartoons_vit.py
"""

from jaxclf.augment import Flip, RandomCrop
from jaxclf.config import Config
from jaxclf.datasets import Cartoons
from jaxclf.models import Normalize, Vit
from jaxclf.optimizers import AdamW, WarmupCosine


def get_config() -> Config:
    return Config(
        dataset=Cartoons(),
        model=Vit(
            patch=8,
            width=96,
            depth=4,
            heads=3,
            classes=18,
            image_size=(64, 64),
            pool="mean",
            position_embedding="sin_cos",
            normalize=Normalize(mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25)),
        ),
        optimizer=AdamW(learning_rate=2e-3, weight_decay=0.05, schedule=WarmupCosine(warmup=0.1)),
        augment=(RandomCrop(64, padding=6), Flip()),
        epochs=60,
        batch_size=64,
    )
