"""ResNet-50 on a folder of photographs in 1,000 classes, such as ImageNet: the usual recipe of 90 epochs. Not measured.

The folder has `train/<class>` and `val/<class>`. For another number of classes set --model.classes. Batch
normalization is over groups of 32 images, so the batch can be split over up to 8 devices or into 8 parts
(--gradient-accumulation) without changing the result.

    python train.py configs/imagefolder_resnet50.py --dataset.root data/imagenet
"""

from jaxclf.augment import CenterCrop, Flip, RandomResizedCrop
from jaxclf.config import Config
from jaxclf.datasets import ImageFolder
from jaxclf.losses import CrossEntropy
from jaxclf.metrics import Accuracy, TopK
from jaxclf.models import IMAGENET, ResNet
from jaxclf.optimizers import Sgd, WarmupCosine


def get_config() -> Config:
    return Config(
        dataset=ImageFolder("data/imagenet", (256, 256)),
        model=ResNet.named(50, classes=1000, batch_norm_group=32, normalize=IMAGENET),
        optimizer=Sgd(
            learning_rate=0.1,
            momentum=0.9,
            nesterov=True,
            weight_decay=1e-4,
            schedule=WarmupCosine(warmup=5.0, unit="epochs"),
        ),
        loss=CrossEntropy(label_smoothing=0.1),
        metrics=(Accuracy(), TopK(5)),
        augment=(RandomResizedCrop(224), Flip()),
        evaluation_transform=CenterCrop(224),
        epochs=90,
        batch_size=256,
    )
