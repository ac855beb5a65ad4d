"""The network of the Simpsons study on 50 characters that share their parts, half of them with parts left out.

00.00 % test accuracy (n = 1 seed).

    python train.py configs/parts_mix_cnn.py
"""

from jaxclf.config import Config
from jaxclf.datasets import PartsMix
from jaxclf.models import SimpsonsCnn
from jaxclf.optimizers import Adam


def get_config() -> Config:
    return Config(
        dataset=PartsMix(),
        model=SimpsonsCnn(classes=50, dropout=0.4),
        optimizer=Adam(learning_rate=1e-3),
        epochs=30,
        batch_size=64,
        log_every=50,
    )
