"""CIFAR-10 with a vision transformer of 453,226 parameters: patches of 4 x 4 pixels, width 96, depth 4, 8 epochs.

65.54 % test accuracy on CIFAR-10 as JPEG of quality 75 (n = 1 seed); 19 minutes of training on two cores of an AMD
EPYC, from the speed of the first 50 steps. A residual network has 80 % in less time (`cifar10_resnet`): without
convolutions the locality of images has to be learned.

The folder has `train/<class>/<image>` and `test/<class>/<image>`.

    python train.py configs/cifar10_vit.py --dataset.root data/cifar10
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
            position_embedding="sin_cos",
            normalize=Normalize(mean=(0.491, 0.482, 0.447), std=(0.247, 0.243, 0.262)),
        ),
        optimizer=AdamW(learning_rate=2e-3, weight_decay=0.05, schedule=WarmupCosine(warmup=0.1)),
        augment=(RandomCrop(32, padding=4), Flip()),
        epochs=8,
        batch_size=128,
    )
