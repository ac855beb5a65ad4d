"""Export: the exported network computes the same values as the run, in a process without jaxclf."""

import json
import re
import subprocess
from dataclasses import replace
from functools import partial
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import unflatten_dict
from jax import export
from PIL import Image
from safetensors.numpy import load_file
from support.cli import export as export_main

from jaxclf import load, saliency
from jaxclf.cli.export import build_files
from jaxclf.config_io import from_json, read_config
from jaxclf.errors import UserError
from jaxclf.inference.export import (
    FILES,
    FORMATS,
    PLATFORMS,
    check_output,
    compute_digests,
    flatten_weights,
    lower,
    write,
)
from jaxclf.inference.preprocess import Preprocessor
from jaxclf.reporting.model_card import collect_results
from jaxclf.training.step import compute_logits

ROOT = Path(__file__).parents[2]
CONFIGS = [*sorted(path.stem for path in (ROOT / "configs").glob("mnist_*.py")), "simpsons_cnn"]
BATCHES = (1, 3, 17)
WITHOUT_JAXCLF = """
import sys

class Refusal:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("jaxclf", "flax", "optax", "tensorflow", "orbax"):
            raise ImportError(name)

sys.meta_path.insert(0, Refusal())
try:
    import jaxclf
except ImportError:
    pass
else:
    raise SystemExit("jaxclf can be imported")
code, given, found = sys.argv[1:]
exec(code, card := {})
import json
import jax
import numpy as np
results = {}
for name, images in np.load(given).items():
    results[name] = jax.jit(card["network"].call)(card["weights"], images)
    results[f"{name}_gradients"] = jax.jit(jax.grad(card["highest"]))(images)
shapes = [list(card[name].shape) for name in ("logits", "gradients")]
np.savez(found, **results)
print(json.dumps([*shapes, card["predictions"]]))
"""


class ByBatch(nn.Module):
    """A model whose function depends on the batch size."""

    classes: int

    @nn.compact
    def __call__(self, images, train=False):
        x = images.reshape(images.shape[0], -1)
        return nn.Dense(self.classes)(x if images.shape[0] < 8 else -x)


class Searching(nn.Module):
    """A model that cannot be differentiated."""

    @nn.compact
    def __call__(self, images, train=False):
        x = nn.Dense(2)(images.reshape(images.shape[0], -1))
        return jax.lax.while_loop(lambda x: jnp.all(x < 100), lambda x: 2 * x, x)


def gradients_of(network, images):
    """Return the gradients of the highest logit of each image with respect to its pixels."""
    return jax.jit(jax.grad(lambda images: network(images).max(axis=1).sum()))(images)


def some_weights(model, shape, random):
    """Return random weights by name; variances are positive."""
    variables = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, *shape)))
    weights = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(variables):
        name, drawn = "/".join(key.key for key in path), random.normal(0, 0.05, leaf.shape)
        weights[name] = np.float32(0.1 + abs(drawn) if name.endswith("var") else drawn)
    return weights


def images_of(shape, random):
    return {f"of_{b}": random.random((b, *shape), np.float32) for b in BATCHES}


def saved(directory, name):
    return json.loads((directory / name).read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def exported(command, linear_run, tmp_path_factory):
    """The linear classifier, exported by the real command, and the process."""
    output = tmp_path_factory.mktemp("exports") / "linear"
    done = command("-m", "jaxclf", "export", linear_run[0], "--output", output)
    assert (done.returncode, done.stderr) == (0, "")
    return output, done


@pytest.fixture(scope="module")
def exported_colour(colour_run, tmp_path_factory):
    output = tmp_path_factory.mktemp("exports") / "colour"
    assert export_main([str(colour_run), "--output", str(output)]) == 0
    return output


@pytest.mark.parametrize("which", ["linear", "colour"])
def test_logits_and_input_gradients_without_jaxclf_equal_those_of_the_run(
    which, command, exported, linear_run, exported_colour, colour_run, random, tmp_path
):
    path, directory = {"linear": (linear_run[0], exported[0]), "colour": (colour_run, exported_colour)}[which]
    run = load(path)
    given = images_of(run.image_shape, random)
    np.savez(tmp_path / "given.npz", **given)
    (code,) = re.findall(r"```python\n(.*?)```", (directory / "README.md").read_text(), re.S)
    words = ["-c", WITHOUT_JAXCLF, code, tmp_path / "given.npz", tmp_path / "found.npz"]
    done = command(*words, cwd=directory, JAX_ENABLE_COMPILATION_CACHE="false")  # etils reads it with TensorFlow's help
    assert (done.returncode, done.stderr) == (0, "")
    classes = len(run.class_names)
    logits, gradients, names = json.loads(done.stdout)
    assert (logits, gradients) == ([3, classes], [3, *run.image_shape])
    assert set(names) <= set(run.class_names)
    with np.load(tmp_path / "found.npz") as found:
        for name, images in given.items():
            network = jax.jit(partial(compute_logits, run.model, run.variables))
            np.testing.assert_allclose(found[name], network(images), atol=1e-5)
            np.testing.assert_allclose(found[f"{name}_gradients"], gradients_of(network, images), atol=1e-5)


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """Image files of all kinds that the preparation tells apart."""
    folder, random = tmp_path_factory.mktemp("photographs"), np.random.default_rng(0)
    noise = Image.fromarray(random.integers(0, 256, (211, 307, 3), np.uint8)).resize((640, 480))
    exif = Image.Exif()
    exif[0x0112] = 6
    noise.save(folder / "large.jpg", quality=90, exif=exif)
    noise.resize((31, 17)).save(folder / "small.jpg", quality=90)
    noise.convert("L").save(folder / "gray.png")
    noise.quantize(16).save(folder / "palette.png", transparency=3)
    noise.convert("CMYK").save(folder / "cmyk.jpg")
    alpha = Image.fromarray(random.integers(0, 256, (480, 640), np.uint8))
    noise.putalpha(alpha)
    noise.save(folder / "alpha.png")
    Image.fromarray(random.integers(0, 65_536, (50, 40), np.uint16)).save(folder / "sixteen.png", transparency=257)
    Image.new("L", (40, 40), 250).save(folder / "light.png")
    return sorted(folder.iterdir())


@pytest.mark.parametrize("which", ["linear", "colour"])
def test_the_function_of_the_export_gives_the_pixels_of_training(
    which, exported, linear_run, exported_colour, colour_run, photographs
):
    """Case F17."""
    path, directory = {"linear": (linear_run[0], exported[0]), "colour": (colour_run, exported_colour)}[which]
    code = (directory / "prepare.py").read_text()
    assert "jaxclf" not in code
    exec(code, module := {})
    shape = load(path).image_shape
    for file in photographs:
        expected = Preprocessor(shape)(file).image
        np.testing.assert_array_equal(module["prepare"](file), expected.astype(np.float32) / 255, strict=True)
    described = saved(directory, "metadata.json")["preprocessing"]
    assert described["size"] == list(shape[:2])
    assert described["channels"] == ("RGB" if which == "colour" else "grayscale")


@pytest.mark.parametrize("name", CONFIGS)
def test_every_config_has_one_program_for_all_platforms_and_batch_sizes(name, random):
    config = read_config(f"configs/{name}.py")
    shape = (28, 28, 1) if name.startswith("mnist") else (64, 64, 3)
    weights = some_weights(config.model, shape, random)
    program = lower(config.model, weights, shape)
    assert not re.search(rb"/site-packages|/jaxclf|\.py", program)  # paths of this machine
    network = export.deserialize(bytearray(program))
    assert (network.platforms, network.nr_devices, network.has_vjp()) == (PLATFORMS, 1, True)
    text = network.mlir_module() + network.vjp().mlir_module()
    assert set(re.findall(r"custom_call @(\w+)", text)) <= {"shape_assertion"}
    products = re.findall(r"stablehlo\.(?:dot_general|convolution|dynamic_conv)\b.*", text)
    assert products
    assert all("HIGHEST" in product for product in products)
    images = random.random((3, *shape), np.float32)
    lowered = jax.jit(partial(network.call, weights))
    live = jax.jit(partial(compute_logits, config.model, unflatten_dict(weights, sep="/")))
    for given in (images, images[:1]):
        np.testing.assert_allclose(lowered(given), live(given), atol=1e-5)
    np.testing.assert_allclose(gradients_of(lowered, images), gradients_of(live, images), atol=1e-5)


def test_exports_are_reproducible_and_ignore_precision_settings(exported, linear_run):
    directory, _ = exported
    with jax.default_matmul_precision("bfloat16"), jax.numpy_rank_promotion("allow"):
        files = build_files(load(linear_run[0]), "raw")
    assert files == {name: (directory / name).read_bytes() for name in FILES}  # and the same every time


def test_weights_follow_the_safetensors_format(exported_colour, colour_run, random):
    run = load(colour_run)
    content = (exported_colour / "weights.safetensors").read_bytes()
    size = int.from_bytes(content[:8], "little")
    header, data = json.loads(content[8 : 8 + size]), content[8 + size :]
    weights = flatten_weights(run.variables)
    assert set(header) == set(weights) == set(load_file(exported_colour / "weights.safetensors"))
    assert sum(array.nbytes for array in weights.values()) == len(data)
    for name, array in weights.items():
        first, last = header[name]["data_offsets"]
        assert (header[name]["dtype"], header[name]["shape"]) == ("F32", list(array.shape))
        assert data[first:last] == array.tobytes()
    config = from_json(saved(exported_colour, "config.json"))
    images = random.random((2, *run.image_shape), np.float32)
    variables = unflatten_dict(load_file(exported_colour / "weights.safetensors"), sep="/")
    np.testing.assert_array_equal(config.model.apply(variables, images), run.model.apply(run.variables, images))


def test_saliency_accepts_the_program_as_a_model(exported_colour, colour_run, random):
    run = load(colour_run)
    network = export.deserialize(bytearray((exported_colour / "model.stablehlo").read_bytes()))
    weights = load_file(exported_colour / "weights.safetensors")
    images = random.random((3, *run.image_shape), np.float32)
    found = saliency.Gradient()(network.call, weights, images)
    expected = saliency.Gradient()(run.model, run.variables, images)
    np.testing.assert_allclose(found.values, expected.values, atol=1e-5)


def test_sha256sum_verifies_the_checksums(exported, tmp_path):
    directory, _ = exported
    assert {path.name for path in directory.iterdir()} == set(FILES)
    check = ("sha256sum", "-c", "--strict", "SHA256SUMS")
    done = subprocess.run(check, cwd=directory, capture_output=True, text=True)
    assert (done.returncode, done.stdout.count(": OK")) == (0, len(FILES) - 1)
    write(tmp_path / "copy", {path.name: path.read_bytes() for path in directory.iterdir()})
    weights = bytearray((tmp_path / "copy/weights.safetensors").read_bytes())
    weights[-1] ^= 1
    (tmp_path / "copy/weights.safetensors").write_bytes(weights)
    done = subprocess.run(check, cwd=tmp_path / "copy", capture_output=True, text=True)
    assert (done.returncode, "weights.safetensors: FAILED" in done.stdout) == (1, True)


def test_the_card_and_the_metadata_contain_the_results(exported, linear_run):
    directory, done = exported
    summary = saved(linear_run[0], "summary.json")
    card, metadata = (directory / "README.md").read_text(), saved(directory, "metadata.json")
    test = summary["test"]
    assert f"| test | {test['loss']:.4g} | {test['accuracy']:.2%} | {test['mistakes']} | 10,000 |" in card
    assert f"| train | {summary['train_full']['loss']:.4g} |" in card
    assert "Not measured with these weights: validation." in card
    assert "7,850 parameters, trained for 937 steps" in card
    assert "| optimizer.learning_rate | 0.003 |" in card
    assert (metadata["results"]["test"], metadata["class_names"]) == (test, [*"0123456789"])
    assert (metadata["images"], metadata["logits"]) == ("float32[b,28,28,1]", "float32[b,10]")
    for name in FILES:
        assert f"wrote {directory / name}: {(directory / name).stat().st_size:,} bytes" in done.stdout


def test_only_results_of_the_exported_weights_are_reported(run_directory):
    run = load(run_directory)
    averaged = replace(run, config=replace(run.config, ema_decay=0.9))
    assert set(collect_results(run, "raw")) == {"train", "test"}
    assert set(collect_results(averaged, "ema")) == {"train", "test"}
    assert collect_results(averaged, "raw") == collect_results(replace(run, step=5), "raw") == {}
    summary = saved(run_directory, "summary.json")
    best = {"step": 5, "accuracy": 0.5, "loss": 2.0}
    (run_directory / "summary.json").write_text(json.dumps(summary | {"best": best}))
    assert collect_results(replace(run, step=5), "raw") == {"validation": {"accuracy": 0.5, "loss": 2.0}}
    evaluation = {"step": 5, "split": "train", "weights": "ema", "examples": 9, "loss": None, "confusion_matrix": [[9]]}
    by_class = dict.fromkeys(run.class_names, 0.25) | {"9": None}
    (run_directory / "evaluation.json").write_text(json.dumps(evaluation | {"per_class_accuracy": by_class}))
    assert set(collect_results(replace(run, step=5), "raw")) == {"validation", "train"}
    assert set(collect_results(replace(averaged, step=5), "raw")) == set()
    assert set(collect_results(run, "raw")) == {"train", "test"}
    card = build_files(replace(run, step=5), "raw")["README.md"].decode()
    assert "| train | 9 | none |  |" in card
    assert re.search(r"\| class \| train accuracy \|.*\| 8 \| 25\.00% \|\n\| 9 \| none \|", card, re.S)
    for name in ("summary.json", "evaluation.json"):
        (run_directory / name).unlink()
    card = build_files(run, "raw")["README.md"].decode()
    assert "Not measured with these weights: train, validation, test." in card
    assert "%" not in card


@pytest.mark.parametrize(
    ("model", "reason"),
    [(ByBatch(classes=2), r"Symbolic dimension comparison .* is inconclusive"), (Searching(), "Reverse-mode")],
)
def test_a_model_that_cannot_be_lowered_is_refused_with_the_reason(model, reason):
    weights = {"params/Dense_0/kernel": np.ones((4, 2), np.float32), "params/Dense_0/bias": np.ones(2, np.float32)}
    with pytest.raises(
        UserError, match=rf"^{type(model).__name__} cannot be exported: .*{reason}.*\nexpected a program"
    ):
        lower(model, weights, (2, 2, 1))


def test_an_export_is_written_atomically(tmp_path, monkeypatch):
    old, new = (dict.fromkeys(map(str, FILES), text) for text in (b"old", b"new"))
    place = tmp_path / "a/place"
    with pytest.raises(OSError, match="missing"):
        write(place, {"fine": b"", "missing/file": b""})
    assert list(place.parent.iterdir()) == []
    write(place, old)
    with pytest.raises(OSError, match="missing"):
        write(place, new | {"missing/file": b""})
    rename = Path.rename

    def fails_for_the_new(path, target):
        if target == place and (path / "README.md").read_bytes() == b"new":
            raise OSError("no more names")
        return rename(path, target)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "rename", fails_for_the_new)
        with pytest.raises(OSError, match="no more names"):
            write(place, new)
    assert [path.name for path in place.parent.iterdir()] == ["place"]
    assert {path.read_bytes() for path in place.iterdir()} == {b"old"}
    link = tmp_path / "link"
    link.symlink_to(place)
    write(link, new)
    assert link.is_symlink()
    assert {path.name: path.read_bytes() for path in place.iterdir()} == new
    assert compute_digests({}) == b""


def test_only_an_earlier_export_is_replaced(tmp_path, monkeypatch):
    check_output(tmp_path / "new")
    check_output(tmp_path)
    (tmp_path / "README.md").write_text("mine")
    expected = "is neither empty nor an export with --format jaxclf; name another directory with --output"
    with pytest.raises(UserError, match=expected):
        check_output(tmp_path)
    with pytest.raises(UserError, match="is a file; name a directory with --output"):
        check_output(tmp_path / "README.md")
    write(tmp_path / "export", dict.fromkeys(FILES, b""))
    check_output(tmp_path / "export")
    with pytest.raises(UserError, match="is neither empty nor an export with --format torch"):
        check_output(tmp_path / "export", "torch")
    write(tmp_path / "torch", dict.fromkeys(FORMATS["torch"], b""))
    check_output(tmp_path / "torch", "torch")
    with pytest.raises(UserError, match="is neither empty nor an export with --format jaxclf"):
        check_output(tmp_path / "torch")
    with monkeypatch.context() as patched, pytest.raises(UserError, match="is the current directory"):
        patched.chdir(tmp_path / "export")
        check_output(Path())
    (tmp_path / "export/notes.txt").write_text("mine")
    with pytest.raises(UserError, match="is neither empty nor an export"):
        check_output(tmp_path / "export")


def test_the_default_output_is_in_the_run_and_is_replaced(run_directory, capsys):
    assert export_main([str(run_directory)]) == 0
    first = (run_directory / "export/README.md").stat().st_ino
    assert export_main([str(run_directory)]) == 0
    assert (run_directory / "export/README.md").stat().st_ino != first
    assert f"wrote {run_directory}/export/model.stablehlo: " in capsys.readouterr().out
    assert [path.name for path in run_directory.glob(".export*")] == []
    assert load(run_directory).step == 937


def test_user_errors_of_export(run_directory, tmp_path, capsys):
    for arguments, message in (
        ([str(tmp_path)], "has no config.json"),
        ([str(run_directory), "--outputs", "x"], "did you mean --output?"),
        ([str(run_directory), "--checkpoint", "5"], "expected last, best or one of the steps 937"),
        ([str(run_directory), "--output", str(run_directory)], "is neither empty nor an export"),
        (
            [str(run_directory), "--format", "torch"],
            "has no counterpart in a library of PyTorch; expected one of ResNet",
        ),
    ):
        assert export_main(arguments) == 2
        assert message in capsys.readouterr().err
    assert list(run_directory.glob("export*")) == []


def test_exporting_needs_no_tensorflow(command, linear_run, tmp_path):
    code = (
        "import sys; from jaxclf.cli.app import main; "
        "code = main(['export', *sys.argv[1:]]); print(code, 'tensorflow' in sys.modules)"
    )
    done = command("-c", code, linear_run[0], "--output", tmp_path / "export")
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "0 False"), done
