"""CIFAR-10 with a residual network of 310,266 parameters: four stages of one block, 8 epochs.

80.01 ± 0.31 % test accuracy on CIFAR-10 as JPEG of quality 75 (n = 3 seeds); 16 minutes of training on two cores of an
AMD EPYC, from the speed of one epoch. The original images, which are not compressed, give another accuracy.

The folder has `train/<class>/<image>` and `test/<class>/<image>`. The official archive in binary form is read by the
dataset `Cifar10` instead.

    python train.py configs/cifar10_resnet.py --dataset.root data/cifar10
"""

from jaxclf.augment import Flip, RandomCrop
from jaxclf.config import Config
from jaxclf.datasets import ImageFolder
from jaxclf.models import Normalize, ResNet
from jaxclf.optimizers import OneCycle, Sgd


def get_config() -> Config:
    return Config(
        dataset=ImageFolder("data/cifar10", (32, 32)),
        model=ResNet(
            depths=(1, 1, 1, 1),
            width=16,
            stem="cifar",
            classes=10,
            batch_norm_group=32,
            normalize=Normalize(mean=(0.491, 0.482, 0.447), std=(0.247, 0.243, 0.262)),
        ),
        optimizer=Sgd(
            learning_rate=0.2, momentum=0.9, nesterov=True, weight_decay=5e-4, schedule=OneCycle(peak_at=0.25)
        ),
        augment=(RandomCrop(32, padding=4), Flip()),
        epochs=8,
        batch_size=128,
    )
