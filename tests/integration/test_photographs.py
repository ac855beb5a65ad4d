"""Runs whose images change their size: crops in training, an evaluation transform everywhere else."""

import json
from dataclasses import replace

import flax.linen as nn
import jax
import numpy as np
import pytest
from jax import export
from PIL import Image
from support.cli import evaluate, explain, look, predict
from support.cli import export as export_run
from support.steps import STEP_CONFIG, assert_same, fit, make_devices

import jaxclf
from jaxclf import saliency
from jaxclf.augment import (
    CenterCrop,
    ColorJitter,
    CutMix,
    Flip,
    MixupOrCutMix,
    RandAugment,
    RandomCrop,
    RandomErasing,
    RandomResizedCrop,
)
from jaxclf.config import Config
from jaxclf.datasets import Arrays, ImageFolder
from jaxclf.errors import UserError
from jaxclf.inference.export import PROGRAM, flatten_weights
from jaxclf.models import Cnn, Mlp, Normalize, ResNet
from jaxclf.optimizers import Adam, AdamW
from jaxclf.training.state import summarize
from jaxclf.types import Batch

RESNET = ResNet(depths=(1,), width=2, classes=2, stem="cifar")
CROP = CenterCrop(8, resize=9)
CONFIG_FILE = """
from jaxclf.augment import CenterCrop, Flip, RandAugment, RandomResizedCrop
from jaxclf.config import Config
from jaxclf.datasets import ImageFolder
from jaxclf.models import Cnn
from jaxclf.optimizers import Adam


def get_config():
    return Config(
        dataset=ImageFolder({root!r}, (12, 12), train_fraction=0.5, test_fraction=0.4),
        model=Cnn(features=(3,), dense=(), classes=2),
        optimizer=Adam(learning_rate=0.01),
        epochs=1,
        batch_size=8,
        augment=(RandomResizedCrop(8), Flip(), RandAugment()),
        evaluation_transform=CenterCrop(8, resize=9),
    )
"""


class Undeclared(nn.Module):
    """A network that does not declare its layers."""

    @nn.compact
    def __call__(self, images):
        return nn.Dense(2)(images.mean((1, 2)))


@pytest.fixture(scope="module")
def config(colour_run):
    """A network of a fixed input size, 8x8, on pictures of 12x12."""
    return Config(
        dataset=ImageFolder(str(colour_run.parent / "pictures"), (12, 12), train_fraction=0.5, test_fraction=0.4),
        model=Cnn(features=(3,), dense=(4,), classes=2),
        optimizer=Adam(learning_rate=0.01),
        epochs=2,
        batch_size=8,
        augment=(RandomResizedCrop(8), Flip(), RandAugment(), RandomErasing()),
        mixup=MixupOrCutMix(),
        evaluation_transform=CROP,
    )


@pytest.fixture(scope="module")
def run(config, tmp_path_factory):
    return jaxclf.fit(config, workdir=tmp_path_factory.mktemp("photographs") / "run")


def test_a_network_sees_crops_everywhere(run):
    test = run.splits["test"]
    images = test.images[:]
    seen = CROP(images)
    assert run.variables["params"]["dense1"]["kernel"].shape[0] == 4 * 4 * 3  # of 8x8 pooled once
    expected = jax.nn.softmax(run.model.apply(run.variables, seen))
    np.testing.assert_allclose(run.predict(images), expected, atol=1e-6)
    accuracy = np.mean(np.argmax(expected, 1) == test.labels)
    assert run.evaluate("test")["accuracy"] == pytest.approx(accuracy)
    method = saliency.Gradient()
    maps = run.explain(method, images[:3])
    assert maps.values.shape == (3, 8, 8, 3)
    np.testing.assert_allclose(maps.values, method(run.model, run.variables, seen[:3]).values, atol=1e-6)
    assert run.explain(saliency.ExpectedGradients(samples=2), images[:1]).values.shape == (1, 8, 8, 3)


def test_the_transform_is_part_of_an_exported_program(run, tmp_path):
    assert export_run([run.path, "--output", tmp_path / "export"]) == 0
    program = export.deserialize(bytearray((tmp_path / "export" / PROGRAM).read_bytes()))
    images = run.splits["test"].images[:5]
    logits = jax.jit(program.call)(flatten_weights(run.variables), np.float32(images / 255))
    np.testing.assert_allclose(jax.nn.softmax(logits), run.predict(images), atol=1e-5)


def test_commands_take_images_of_the_size_of_the_dataset(run, tmp_path, capsys):
    root = run.config.dataset.root
    pictures = [f"{root}/red/0.png", f"{root}/blue/1.png"]
    assert predict([run.path, *pictures, "--explain", "gradient", "--output", tmp_path / "drawn"]) == 0
    with Image.open(tmp_path / "drawn/0-gradient.png") as overlay:
        assert overlay.size == (280, 280)
    assert explain([run.path, "--limit", 3, "--methods", "gradient", "--output", tmp_path / "explained"]) == 0
    with np.load(tmp_path / "explained/explanations.npz") as file:
        assert file["gradient.values"].shape == (3, 8, 8, 3)


@pytest.mark.parametrize("tta", ["flip", "shifts"])
def test_test_time_augmentation_averages_logits(run, tta, tmp_path, capsys):
    assert evaluate([run.path, "--tta", tta, "--output", tmp_path]) == 0
    written = json.loads((tmp_path / "evaluation.json").read_text())
    test = run.splits["test"]
    seen = np.asarray(CROP(test.images[:]))

    def mean_both(images):
        return (run.model.apply(run.variables, images) + run.model.apply(run.variables, images[:, :, ::-1])) / 2

    logits = mean_both(seen)
    if tta == "shifts":
        padded = np.pad(seen, ((0, 0), (1, 1), (1, 1), (0, 0)), "reflect")
        logits = (2 * logits + mean_both(padded[:, :8, :8]) + mean_both(padded[:, 2:, 2:])) / 4
    assert written["tta"] == tta
    assert written["loss"] == pytest.approx(float(run.config.loss(logits, test.labels).mean()), abs=1e-5)


def test_a_sheet_of_augmented_images_is_drawn(colour_run, tmp_path, capsys):
    (tmp_path / "photographs.py").write_text(CONFIG_FILE.format(root=str(colour_run.parent / "pictures")))
    assert look([tmp_path / "photographs.py", "--augmented", "--output", tmp_path / "figures"]) == 0
    with Image.open(tmp_path / "figures/augmented.png") as sheet:
        assert sheet.width > sheet.height > 500
    assert look([colour_run.parent / "colour.py", "--augmented", "--output", tmp_path]) == 2
    assert "has no augmentations to draw" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"augment": (RandomCrop(13),)}, r"13x13 pixels does not fit into images \[12, 12, 3\]: lower size to 12"),
        ({"evaluation_transform": CenterCrop(14)}, r"14x14 pixels does not fit into images \[12, 12, 3\]"),
        ({"evaluation_transform": None}, r"add evaluation_transform=CenterCrop\(8\)"),
        (
            {"evaluation_transform": CenterCrop(7), "model": Mlp((), 2)},
            r"Mlp is built .* augmented to \[8, 8, 3\]",
        ),
        ({"model": RESNET.clone(batch_norm_group=3)}, "batch_norm_group=3 does not divide the 8 examples"),
        (
            {"model": RESNET.clone(normalize=Normalize((0.5,), (0.2,)))},
            "images have 3 channels, but normalize has 1 mean",
        ),
        (
            {"model": RESNET, "optimizer": AdamW(0.01, freeze=("stem", "block9"))},
            "freeze='block9' matches no parameter; .* stem",
        ),
        ({"model": Undeclared(), "optimizer": AdamW(0.01, layer_decay=0.7)}, "layer_decay.* Undeclared declares none"),
    ],
)
def test_what_does_not_fit_is_refused_before_training(config, changes, message, tmp_path):
    with pytest.raises(UserError, match=message):
        jaxclf.fit(replace(config, **changes), workdir=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_colors_of_gray_images_are_refused_before_training(tmp_path):
    random = np.random.default_rng(0)
    dataset = Arrays(random.integers(0, 256, (40, 8, 8), np.uint8), np.arange(40) % 2, test=0.2)
    config = Config(dataset, Mlp((), 2), Adam(0.01), epochs=1, batch_size=8)
    with pytest.raises(UserError, match="3 channels, and these have 1: set saturation=0 and hue=0"):
        jaxclf.fit(replace(config, augment=(ColorJitter(saturation=0.2),)), workdir=tmp_path / "run")
    assert not (tmp_path / "run/checkpoints").exists()


def make_batches(count=3):
    random = np.random.default_rng(0)
    mask = np.ones(16, bool)
    return [
        Batch(random.integers(0, 256, (16, 12, 14, 3), np.uint8), random.integers(0, 10, 16).astype(np.int32), mask)
        for _ in range(count)
    ]


@pytest.mark.parametrize("mixer", [CutMix(), MixupOrCutMix()], ids=repr)
def test_changed_sizes_are_those_of_one_device_on_many_and_in_parts(mixer):
    augment = RandomResizedCrop(10), RandomCrop(8, padding=1), RandAugment(), RandomErasing()
    step_config = replace(STEP_CONFIG, augment=augment, mixup=mixer, evaluation_transform=CROP)
    alone = fit(step_config, make_batches())
    for count, parallel, parts in [(4, "jit", 1), (4, "pmap", 1), (1, "jit", 4), (4, "pmap", 2)]:
        found = fit(replace(step_config, gradient_accumulation=parts), make_batches(), make_devices(count, parallel))
        assert_same(found.params, alone.params)
        assert_same(summarize(step_config, found.epoch_stats), summarize(step_config, alone.epoch_stats))
