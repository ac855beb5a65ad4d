"""A linear classifier on the cartoon characters, as a baseline.

39.17 ± 0.47 % test accuracy, test loss 2.114, after 2,100 steps (n = 3 seeds); 14 s of training, 31 s in total,
on two cores of a Xeon with AVX-512.

    python train.py configs/cartoons_linear.py
"""

from jaxclf.config import Config
from jaxclf.datasets import Cartoons
from jaxclf.models import Mlp
from jaxclf.optimizers import Adam


def get_config() -> Config:
    return Config(
        dataset=Cartoons(),
        model=Mlp(features=(), classes=18),
        optimizer=Adam(learning_rate=1e-4),
        epochs=30,
        batch_size=64,
        log_every=50,
    )
