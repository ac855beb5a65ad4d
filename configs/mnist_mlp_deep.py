"""Three hidden layers of 512 units with dropout, random shifts and a one-cycle learning rate.

99.04 ± 0.05 % test accuracy (n = 3 seeds); 49 s of training, 62 s in total, on two cores of a Xeon with
AVX-512. Hyperparameters were chosen by validation (docs/log.md).

    python train.py configs/mnist_mlp_deep.py
"""

from jaxclf.augment import Shift
from jaxclf.config import Config
from jaxclf.datasets import Mnist
from jaxclf.models import Mlp
from jaxclf.optimizers import Adam, OneCycle


def get_config() -> Config:
    return Config(
        dataset=Mnist(validation=5_000),
        model=Mlp(features=(512, 512, 512), classes=10, dropout=0.1),
        optimizer=Adam(learning_rate=1e-3, schedule=OneCycle()),
        augment=(Shift(pixels=2),),
        epochs=20,
        batch_size=128,
        steps_per_execution=20,
    )
