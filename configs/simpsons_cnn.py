"""The Simpsons study: a folder of character pictures, 70 epochs. Not measured here: it needs the download.

The folder is the archive of the page below, unpacked to data/simpsons_dataset; 350 pictures a character leave the 18
of the study. Where your copy leaves another number, add --model.classes.

    python train.py configs/simpsons_cnn.py
"""

from jaxclf.config import Config
from jaxclf.datasets import ImageFolder
from jaxclf.models import SimpsonsCnn
from jaxclf.optimizers import Adam

PAGE = "https://www.kaggle.com/datasets/alexattia/the-simpsons-characters-dataset"


def get_config() -> Config:
    return Config(
        dataset=ImageFolder("data/simpsons_dataset", min_images=350, train_fraction=0.95, page=PAGE),
        model=SimpsonsCnn(classes=18, dropout=0.4),
        optimizer=Adam(learning_rate=1e-3),
        epochs=70,
        batch_size=64,
    )
