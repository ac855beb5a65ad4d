"""Ten characters of The Simpsons in images of 28 x 28 pixels: a residual network of 310,266 parameters, 30 epochs.

91.60 ± 0.46 % test accuracy on 2,000 images, trained on 8,000 (n = 3 seeds); 7 minutes of training on two cores of an
AMD EPYC, from the speed of two epochs. The folder has `train/<character>/<image>` and `test/<character>/<image>`.

    python train.py configs/simpsons28.py --dataset.root data/simpsons28
"""

from jaxclf.augment import Flip, RandomCrop
from jaxclf.config import Config
from jaxclf.datasets import ImageFolder
from jaxclf.models import Normalize, ResNet
from jaxclf.optimizers import OneCycle, Sgd


def get_config() -> Config:
    return Config(
        dataset=ImageFolder("data/simpsons28", (28, 28)),
        model=ResNet(
            depths=(1, 1, 1, 1),
            width=16,
            stem="cifar",
            classes=10,
            batch_norm_group=32,
            normalize=Normalize(mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25)),
        ),
        optimizer=Sgd(
            learning_rate=0.2, momentum=0.9, nesterov=True, weight_decay=5e-4, schedule=OneCycle(peak_at=0.25)
        ),
        augment=(RandomCrop(28, padding=3, mode="edge"), Flip()),
        epochs=30,
        batch_size=64,
    )
