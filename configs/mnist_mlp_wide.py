"""One hidden layer of 1,500 units: 1,192,510 parameters, Adam 0.001, five epochs.

98.05 ± 0.21 % test accuracy (n = 3 seeds); 11 s of training, 30 s in total, on two cores of a Xeon with
AVX-512.

    python train.py configs/mnist_mlp_wide.py
"""

from jaxclf.config import Config
from jaxclf.datasets import Mnist
from jaxclf.models import Mlp
from jaxclf.optimizers import Adam


def get_config() -> Config:
    return Config(
        dataset=Mnist(validation=5_000),
        model=Mlp(features=(1500,), classes=10),
        optimizer=Adam(learning_rate=1e-3),
        epochs=5,
        batch_size=64,
        steps_per_execution=20,
        evaluate_train=True,
    )
