"""One list of components per family: tests sweep over these, and every exported component appears in one."""

import os
from pathlib import Path

import numpy as np

from jaxclf import datasets, saliency
from jaxclf.augment import (
    CenterCrop,
    ColorJitter,
    CutMix,
    Cutout,
    Flip,
    Mixup,
    MixupOrCutMix,
    RandAugment,
    RandomCrop,
    RandomErasing,
    RandomResizedCrop,
    Rotate,
    Shift,
    TrivialAugment,
)
from jaxclf.datasets import Arrays, Cartoons, Cifar10, Cifar100, Idx, ImageFolder, Mnist, PartsMix, Resizing, Tfds
from jaxclf.losses import CrossEntropy
from jaxclf.metrics import Accuracy, Confusion, TopK
from jaxclf.models import (
    IMAGENET,
    Cnn,
    ConvNext,
    EfficientNetLite,
    MaxoutCnn,
    Mlp,
    Normal,
    ResNet,
    SimpsonsCnn,
    VarianceScaling,
    Vit,
    WhitenedCnn,
)
from jaxclf.optimizers import Adam, AdamW, Constant, Lamb, Lion, Muon, OneCycle, Sgd, WarmupCosine, WarmupLinear

AUGMENTATIONS = [
    Shift(1),
    Shift(3),
    Flip(),
    Flip(1.0),
    Rotate(),
    Rotate(180.0),
    Cutout(4),
    Cutout(20),
    RandomCrop(5),
    RandomCrop(8, padding=2, mode="reflect"),
    RandomResizedCrop(6),
    ColorJitter(0.4, 0.4, 0.4, 0.1),
    RandomErasing(),
    RandAugment(),
    TrivialAugment(interpolation="bilinear"),
]
MIXERS = [Mixup(), Mixup(alpha=8.0), CutMix(), MixupOrCutMix()]
EVALUATION_TRANSFORMS = [CenterCrop(5), CenterCrop(4, resize=6)]
LOSSES = [CrossEntropy(), CrossEntropy(label_smoothing=0.1)]
METRICS = [Accuracy(), TopK(k=2), Confusion()]
MODELS = [
    Mlp(features=(), classes=10),
    Mlp(features=(7, 5), classes=3, dropout=0.5),
    Cnn(features=(2, 3), dense=(5,), classes=4, dropout=0.5),
    Cnn(features=(2,), dense=(), classes=4, kernel_size=5, strides=2, padding="VALID"),
    Cnn(features=(2,), dense=(4,), classes=4, dtype="bfloat16"),
    SimpsonsCnn(features=(2, 3), dense=(4,), classes=4),
    MaxoutCnn(features=(2, 3), kernel_sizes=(3, 1), blocks=(2, 2), dense=(5,), classes=4, dropout=0.5),
    Vit(patch=4, width=8, depth=2, heads=2, classes=3, image_size=(12, 12), dropout=0.2, attention_dropout=0.5),
    Vit(
        patch=4, width=8, depth=2, heads=2, classes=3, image_size=(16, 12), pool="mean", position_embedding="sin_cos",
        qk_norm=True, layer_scale=0.5, drop_path=0.5, dtype="bfloat16", remat=True,
    ),
    ConvNext(depths=(1, 2), features=(4, 6), classes=3, kernel_size=3, layer_scale=0.5, drop_path=0.5),
    ResNet(depths=(1, 2), width=4, classes=3, drop_path=0.5),
    ResNet(
        depths=(1,), width=2, classes=3, block="bottleneck", stem="cifar", norm="group", dtype="bfloat16",
        remat=True,
    ),
    EfficientNetLite(
        depths=(1, 2), features=(4, 6), classes=3, kernel_sizes=(3, 5), strides=(1, 2), expansions=(1, 2),
        stem_features=4, top_features=8, dropout=0.2, drop_path=0.5,
    ),
    WhitenedCnn(features=(13, 3), pools=(2, 1), classes=3),
]  # fmt: skip
NORMALIZATIONS = [IMAGENET]
INITIALIZERS = [Normal(), VarianceScaling()]
OPTIMIZERS = [
    Sgd(learning_rate=0.1),
    Sgd(learning_rate=0.05, momentum=0.9),
    Sgd(learning_rate=0.05, momentum=0.9, nesterov=True, clip_norm=1.0),
    Adam(learning_rate=0.3, schedule=WarmupCosine(warmup=0.1)),
    Sgd(learning_rate=0.05, momentum=0.9, weight_decay=1e-2, layer_decay=0.8),
    Adam(learning_rate=0.3, weight_decay=1e-3, schedule=OneCycle()),
    AdamW(learning_rate=0.3, head_rate=0.5, schedule=WarmupCosine(warmup=10.0, unit="steps")),
    Lion(learning_rate=0.1, schedule=OneCycle()),
    Lamb(learning_rate=0.1, schedule=OneCycle()),
    Muon(learning_rate=0.5, schedule=OneCycle()),
]
SCHEDULES = [
    Constant(),
    WarmupCosine(warmup=0.1, final=0.2),
    WarmupCosine(warmup=0.0),
    OneCycle(),
    WarmupLinear(warmup=0.1, final=0.2),
    WarmupLinear(warmup=0.0),
]
METHODS = [
    saliency.Gradient(),
    saliency.GradientTimesInput(score="margin"),
    saliency.IntegratedGradients(steps=5, score="log_probability"),
    saliency.IntegratedGradients(rule="adaptive", tolerance=0.03, max_steps=100),
    saliency.all_classes(saliency.IntegratedGradients(steps=3, score="probability")),
    saliency.IntegratedGradients(steps=3, layer="conv1"),
    saliency.Conductance(steps=3),
    saliency.all_classes(saliency.Conductance("dense1", steps=2, score="margin")),
    saliency.ExpectedGradients(samples=4),
    saliency.SmoothGrad(samples=3),
    saliency.SmoothGradSquared(
        saliency.IntegratedGradients(steps=2), samples=4, noise_scale="absolute", antithetic=True
    ),
    saliency.VarGrad(saliency.Gradient(score="margin"), samples=4),
    saliency.all_classes(saliency.VarGrad(saliency.ExpectedGradients(samples=2), samples=4, antithetic=True)),
    saliency.GradCam(),
    saliency.GradCam("conv1", relu=False, upsample="bilinear", score="margin"),
    saliency.all_classes(saliency.GradCamPlusPlus("conv2")),
    saliency.HiResCam("conv2", relu=False, upsample="nearest"),
    saliency.LayerCam("pool1", score="probability"),
    saliency.ScoreCam(),
    saliency.all_classes(saliency.ScoreCam("conv1", upsample="bilinear")),
    saliency.Occlusion(window=3, stride=2),
    saliency.all_classes(saliency.Occlusion(window=(3, 8), stride=(3, 5), aggregate="mean", score="margin")),
    saliency.Rise(samples=4, grid=3),
    saliency.ShapleySampling(samples=2, grid=2),
    saliency.all_classes(saliency.ShapleySampling(samples=3, grid=3, score="probability")),
    saliency.BlurIntegratedGradients(steps=4, max_sigma=6.0),
    saliency.GuidedIntegratedGradients(steps=4, score="probability"),
    saliency.all_classes(saliency.GuidedIntegratedGradients(steps=3, fraction=0.1, max_dist=0.3)),
    saliency.GuidedBackprop(),
    saliency.all_classes(saliency.Deconvnet(score="margin")),
    saliency.GuidedGradCam("conv1", relu=False, score="probability"),
    saliency.all_classes(saliency.FullGrad(score="margin")),
    saliency.DeepLift(score="margin"),
    saliency.DeepLift(layer="conv2"),
    saliency.all_classes(saliency.DeepLift(score="log_probability")),
    saliency.Lrp(epsilon=1e-3),
    saliency.Lrp("gamma", score="margin"),
    saliency.all_classes(saliency.Lrp("alpha_beta", alpha=1.5, beta=0.5, score="probability")),
    saliency.Balanced(saliency.GradientTimesInput(score="margin")),
    saliency.all_classes(saliency.Balanced(saliency.FullGrad(score="margin"))),
    saliency.Xrai(steps=3, scales=(20.0, 50.0), side=48),
]
# Methods for transformers, which need attention.
ATTENTION_METHODS = [
    saliency.AttentionRollout(),
    saliency.AttentionRollout("mean", score="probability"),
    saliency.GenericAttention(),
    saliency.all_classes(saliency.GenericAttention("mean", score="margin")),
    saliency.LeGrad(),
    saliency.all_classes(saliency.LeGrad(score="log_probability")),
]


def inner(method):
    """The method inside all wrappers."""
    return inner(method.method) if hasattr(method, "method") else method


# The first setting of each method that is not of all classes.
CHEAPEST = {type(inner(method)): method for method in reversed(METHODS) if not method.every_class}
FOLDER = Path(os.environ["XDG_CACHE_HOME"]) / f"datasets_{os.getpid()}" / "folder"  # of this worker alone
RANDOM = np.random.default_rng(1)
RESIZINGS = [Resizing(), Resizing(crop_to_aspect_ratio=True), Resizing(interpolation="bicubic")]
DATASETS = [
    Arrays(RANDOM.integers(0, 256, (50, 3, 4), np.uint8), RANDOM.integers(0, 3, 50), validation=0.2, test=0.1),
    Mnist(),
    Mnist(validation=0),
    Idx(str(Path(datasets.__file__).parent), validation=100),
    ImageFolder(str(FOLDER), image_size=(12, 9), train_fraction=0.6, test_fraction=0.2),
    Cartoons(),
    PartsMix(),
    Cifar10(str(FOLDER.with_name("cifar")), validation=3),
    Cifar100(str(FOLDER.with_name("cifar")), validation=0),
    Tfds("digits", data_dir=str(FOLDER.with_name("tfds"))),
]
