"""A CNN with 242,062 parameters on MNIST, one epoch.

98.12 ± 0.05 % test accuracy, test loss 0.0604, after 430 steps (n = 3 seeds); 10 s of training, 20 s in total,
on two cores of a Xeon with AVX-512.

    python train.py configs/mnist_cnn.py
"""

from jaxclf.config import Config
from jaxclf.datasets import Mnist
from jaxclf.models import Cnn
from jaxclf.optimizers import Adam


def get_config() -> Config:
    return Config(
        dataset=Mnist(validation=5_000),
        model=Cnn(features=(16, 36), kernel_size=5, dense=(128,), classes=10),
        optimizer=Adam(learning_rate=1e-3),
        epochs=1,
        batch_size=128,
        steps_per_execution=10,
        remainder="pad",
    )
