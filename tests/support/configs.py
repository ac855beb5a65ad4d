"""Configs of short runs on digits."""

from jaxclf.augment import Flip, Mixup, Shift
from jaxclf.config import Config
from jaxclf.datasets import Mnist
from jaxclf.models import Mlp
from jaxclf.optimizers import Adam, OneCycle, Sgd

# An optimizer, an average and an augmentation with state of their own.
FULL = Config(
    dataset=Mnist(),
    model=Mlp(features=(12,), classes=10, dropout=0.2),
    optimizer=Adam(learning_rate=0.01, schedule=OneCycle()),
    epochs=3,
    batch_size=16,
    augment=(Shift(1), Flip()),
    mixup=Mixup(),
    class_weights="balanced",
    remainder="pad",
    ema_decay=0.9,
    evaluate_train=True,
    log_every=5,
)
SMALL = Config(
    dataset=Mnist(),
    model=Mlp(features=(8,), classes=10),
    optimizer=Adam(learning_rate=0.01),
    epochs=1,
    batch_size=16,
    log_every=5,
)
MLP = Config(
    dataset=Mnist(),
    model=Mlp(features=(12,), classes=10, dropout=0.2),
    optimizer=Sgd(learning_rate=0.1, momentum=0.9),
    epochs=2,
    batch_size=16,
    augment=(Shift(1), Flip()),
    remainder="pad",
    evaluate_train=True,
    eval_batch_size=40,
    log_every=5,
)
