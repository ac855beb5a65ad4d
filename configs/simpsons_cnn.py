"""The Simpsons study: a folder of images of characters, 70 epochs. Not measured, because it needs the download.

Unpack the archive from the page below to data/simpsons_dataset. The 18 characters of the study have at least 350
images each. If your copy has another number of them, set --model.classes.

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
