"""Overfitting one percent of the Simpsons images. Not measured, because it needs the download.

python train.py configs/simpsons_overfit.py
python eval.py runs/simpsons_overfit --split validation
"""

from simpsons_cnn import PAGE

from jaxclf.config import Config
from jaxclf.datasets import ImageFolder
from jaxclf.models import SimpsonsCnn
from jaxclf.optimizers import Adam


def get_config() -> Config:
    return Config(
        dataset=ImageFolder("data/simpsons_dataset", min_images=350, subset=0.01, page=PAGE),
        model=SimpsonsCnn(classes=18, dropout=0.0),
        optimizer=Adam(learning_rate=1e-3),
        epochs=60,
        batch_size=32,
        remainder="pad",
        evaluate_train=True,
        log_every=10,
    )
