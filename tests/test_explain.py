"""Explaining a run: what is written is what the methods say, whatever the batches and the devices."""

import json
import re
import shlex
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from jaxclf import load, saliency
from jaxclf.commands.cli import parse
from jaxclf.commands.explain import ExplainOptions, chosen_images, fitting_methods, method_names
from jaxclf.commands.explain import main as explain
from jaxclf.commands.train import main as train
from jaxclf.config import to_json
from jaxclf.devices import Devices
from jaxclf.explanation import Explainer
from jaxclf.npz import growing_npz
from jaxclf.saliency.names import METHODS
from jaxclf.types import Split, stream

PAGE = Path(__file__).parent.parent / "docs/saliency.md"
PICTURES = {"explanations.png", "gradient_study.png"}
COLOUR_CONFIG = """
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
        eval_batch_size=6,
    )
"""


def arrays(path):
    with np.load(path, allow_pickle=False) as file:
        return dict(file)


@pytest.fixture
def run_directory(linear_run, tmp_path):
    """The linear classifier, to write into."""
    return shutil.copytree(linear_run[0], tmp_path / "run", ignore=shutil.ignore_patterns("*.py"))


@pytest.fixture(scope="module")
def colour_run(tmp_path_factory):
    """A small CNN after an epoch on red and blue pictures in two folders."""
    place, random = tmp_path_factory.mktemp("colour"), np.random.default_rng(0)
    for channel, name in ((0, "red"), (2, "blue")):
        (place / "pictures" / name).mkdir(parents=True)
        for i in range(20):
            pixels = random.integers(0, 100, (12, 12, 3), np.uint8)
            pixels[..., channel] += 120
            Image.fromarray(pixels).save(place / f"pictures/{name}/{i}.png")
    (place / "colour.py").write_text(COLOUR_CONFIG.format(root=str(place / "pictures")))
    assert train([str(place / "colour.py"), "--workdir", str(place / "run")]) == 0
    return place / "run"


def keys_of(run, indices):
    root = stream(run.config.seed, "saliency")
    return jax.numpy.stack([jax.random.fold_in(root, i) for i in indices])


@pytest.fixture(scope="module")
def explained(command, linear_run, tmp_path_factory):
    """The first three test images explained by the real command, and what that printed."""
    directory = shutil.copytree(linear_run[0], tmp_path_factory.mktemp("explained") / "run")
    done = command("explain.py", directory, "--limit", 3, "--smooth-grad.samples", 4)
    assert done.returncode == 0, done.stderr
    return directory, done


def test_what_is_printed(explained):
    directory, done = explained
    assert done.stderr == "images to explain: 3, methods: 3; calls (3)\n"
    assert done.stdout.splitlines()[0].split() == ["method", "evaluations", "seconds"]
    assert done.stdout.splitlines()[2].split()[:2] == ["integrated-gradients", "52"]
    for name in ("explanations.npz", "explanations.json", *PICTURES):
        assert f"wrote {directory / name}" in done.stdout


def test_what_is_written_is_what_the_methods_say(explained):
    directory, _ = explained
    written, run = arrays(directory / "explanations.npz"), load(directory)
    images = run.splits.test.images[:3]
    np.testing.assert_array_equal(written["indices"], [0, 1, 2])
    np.testing.assert_array_equal(written["labels"], run.splits.test.labels[:3])
    np.testing.assert_array_equal(written["predictions"], run.predict(images).argmax(axis=1))
    expected = {"indices", "labels", "predictions"}
    for name, method in {
        "gradient": saliency.Gradient(),
        "integrated-gradients": saliency.IntegratedGradients(),
        "smooth-grad": saliency.SmoothGrad(samples=4),
    }.items():
        a = method(run.model, run.variables, images, key=keys_of(run, range(3)))
        for part, values in a._asdict().items():
            if values is not None:
                expected.add(f"{name}.{part}")
                np.testing.assert_allclose(written[f"{name}.{part}"], values, atol=1e-5, err_msg=f"{name}.{part}")
    assert set(written) == expected


def test_the_report_says_what_was_asked(explained):
    report = json.loads((explained[0] / "explanations.json").read_text())
    assert (report["examples"], report["split"], report["step"]) == (3, "test", 937)
    assert report["methods"]["smooth-grad"]["method"] == to_json(saliency.SmoothGrad(samples=4))
    assert {name: row["evaluations"] for name, row in report["methods"].items()} == {
        "gradient": 1, "integrated-gradients": 52, "smooth-grad": 5,
    }  # fmt: skip


def test_batches_devices_and_limit_change_rounding_only(explained, run_directory):
    """150 images on four devices, in two batches of which one is padded; and the first 3 on one device."""
    arguments = ("--limit", "150", "--methods", "gradient", "smooth-grad", "--smooth-grad.samples", "4")
    assert explain([str(run_directory), *arguments]) == 0
    many, few = (arrays(directory / "explanations.npz") for directory in (run_directory, explained[0]))
    for name, values in many.items():
        np.testing.assert_allclose(values[:3], few[name], atol=1e-5, err_msg=name)
    run = load(run_directory)
    a = saliency.Gradient()(run.model, run.variables, run.splits.test.images[:150])
    np.testing.assert_allclose(many["gradient.values"], a.values, atol=1e-5)
    assert many["indices"].tolist() == list(range(150))


def test_colour_pictures_and_class_activation_maps(colour_run, capsys):
    assert explain([str(colour_run), "--limit", "0", "--integrated-gradients.steps", "3"]) == 0
    written = arrays(colour_run / "explanations.npz")
    assert written["indices"].tolist() == list(range(16))
    assert written["gradient.values"].shape == (16, 12, 12, 3)
    assert written["grad-cam.values"].shape == (16, 6, 6, 1)
    pictures = {path.name for path in colour_run.glob("*.png")}
    assert pictures == PICTURES
    strips = {path.name for path in (colour_run / "explanations").iterdir()}
    assert strips == {"gradient.png", "integrated-gradients.png", "smooth-grad.png", "grad-cam.png"}
    assert "grad-cam" in capsys.readouterr().out


def test_pictures_of_an_earlier_call_go(colour_run):
    for name in ("grad-cam", "gradient"):
        assert explain([str(colour_run), "--limit", "2", "--methods", name]) == 0
    assert [path.name for path in (colour_run / "explanations").iterdir()] == ["gradient.png"]


def test_all_classes_and_measures(colour_run, capsys):
    names = ("gradient-times-input", "grad-cam")
    arguments = ("--limit", "5", "--methods", *names, "--all-classes", "--measures")
    assert explain([str(colour_run), *arguments]) == 0
    written, run = arrays(colour_run / "explanations.npz"), load(colour_run)
    assert written["gradient-times-input.values"].shape == (5, 2, 12, 12, 3)
    assert written["grad-cam.values"].shape == (5, 2, 6, 6, 1)
    images = run.splits.test.images[written["indices"]]
    every = saliency.all_classes(saliency.GradCam())(run.model, run.variables, images)
    np.testing.assert_allclose(written["grad-cam.values"], every.values, atol=1e-5)
    rows = json.loads((colour_run / "explanations.json").read_text())["methods"]
    assert set(rows["gradient-times-input"]["measures"]) - set(rows["grad-cam"]["measures"]) == {"completeness"}
    a = saliency.GradientTimesInput()(run.model, run.variables, images)
    near = {"rel": 1e-3, "abs": 1e-6}
    keys = keys_of(run, written["indices"])
    measured = {
        "completeness": saliency.completeness(a),
        "entropy": saliency.entropy(a),
        "insertion": saliency.insertion(run.model, run.variables, images, a).auc,
        "deletion": saliency.deletion(run.model, run.variables, images, a).auc,
        "sensitivity_max": saliency.sensitivity_max(
            saliency.GradientTimesInput(), run.model, run.variables, images, key=keys
        ),
    }
    for name, values in measured.items():
        found, values = rows["gradient-times-input"]["measures"][name], np.asarray(values, np.float64)
        assert found["n"] == 5
        assert found["mean"] == pytest.approx(values.mean(), **near), name
        assert found["stderr"] == pytest.approx(values.std(ddof=1) / 5**0.5, **near), name
    assert "±" in capsys.readouterr().out


def test_what_is_asked_too_often_is_not_asked_again(colour_run):
    arguments = ("--limit", "1", "--measures", "--methods", "gradient", "occlusion")
    arguments += ("--occlusion.window", "1", "--occlusion.stride", "1")
    assert explain([str(colour_run), *arguments]) == 0
    rows = json.loads((colour_run / "explanations.json").read_text())["methods"]
    assert rows["occlusion"]["evaluations"] == 12 * 12 + 1
    assert "sensitivity_max" not in rows["occlusion"]["measures"]
    assert rows["gradient"]["measures"]["sensitivity_max"]["stderr"] is None


def test_expected_gradients_begin_at_training_images(colour_run):
    run = load(colour_run)
    explainer = Explainer(run, {"expected-gradients": saliency.ExpectedGradients(samples=3)}, Devices.all())
    (answer,) = explainer.answers(run.splits.test, np.arange(4))
    references = run.splits.train.images[run.splits.train.some(20)]
    a = saliency.ExpectedGradients(samples=3)(
        run.model, run.variables, run.splits.test.images[:4], key=keys_of(run, range(4)), baseline=references
    )
    np.testing.assert_allclose(answer.attribution.values, a.values, atol=1e-5)


def parsed(*arguments):
    return parse(ExplainOptions, ["run", *arguments], prog="explain.py")


def test_every_method_has_a_name_and_its_fields_are_flags():
    exported = {cls for cls in vars(saliency).values() if isinstance(cls, type) and issubclass(cls, saliency.Method)}
    assert set(METHODS.values()) == exported - {saliency.Method, saliency.AllClasses}
    assert {"gradient", "gradient-times-input", "grad-cam-plus-plus"} <= set(METHODS)
    options = parsed("--methods", "smooth-grad", "--smooth-grad.method.score", "margin", "--smooth-grad.samples", "3")
    assert options.fields.smooth_grad == saliency.SmoothGrad(saliency.Gradient(score="margin"), samples=3)


def test_of_all_methods_those_that_do_not_fit_are_left_out_and_said(linear_run, capsys):
    options = parsed("--methods", "all")
    fitting = fitting_methods(options, method_names(options), load(linear_run[0]))
    said = capsys.readouterr().err
    assert {"gradient", "occlusion"} <= set(fitting)
    assert {"grad-cam", "score-cam"}.isdisjoint(fitting)
    assert "grad-cam left out: no layer puts out [b, h, w, c]" in said
    assert set(METHODS) == set(fitting) | {line.split()[0] for line in said.splitlines()}
    few = parsed()
    assert set(fitting_methods(few, method_names(few), load(linear_run[0]))) == {
        "gradient", "integrated-gradients", "smooth-grad",
    }  # fmt: skip
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("arguments", "answer"),
    [
        (["--methods", "integrated-gradient"], "did you mean integrated-gradients?"),
        (["--methods", "zzz"], "the methods are blur-integrated-gradients, "),
        (["--integrated-gradients.step", "3"], "did you mean --integrated-gradients.steps?"),
        (["--integrated-gradients.steps", "x"], "--integrated-gradients.steps: invalid literal"),
        (["--integrated-gradients.steps", "0"], "steps=0: expected at least 1"),
        (["--metods", "gradient"], "did you mean --methods?"),
        (["--rise.grid", "3"], "a field of rise is given"),
        (["--methods", "grad-cam", "--grad-cam.layer", "conv7"], "grad-cam: no layer 'conv7': the layers are flatten"),
        (["--methods", "grad-cam"], "grad-cam: no layer puts out [b, h, w, c]"),
        (["--limit", "-1"], "limit=-1: expected"),
        (["--split", "validation"], "no split 'validation'; it has train, test"),
    ],
)
def test_a_mistake_is_answered_in_a_few_lines(linear_run, arguments, answer, capsys):
    before = set(linear_run[0].iterdir())
    assert explain([str(linear_run[0]), *arguments]) == 2
    printed = capsys.readouterr().err
    assert answer in printed
    assert len(printed.splitlines()) <= 5
    assert set(linear_run[0].iterdir()) == before


def test_no_run_is_named(tmp_path, capsys):
    assert explain([str(tmp_path / "none")]) == 2
    assert "has no config.json" in capsys.readouterr().err


def test_ctrl_c_leaves_nothing_behind(start, run_directory):
    before = {path.name for path in run_directory.iterdir()}
    with start("explain.py", run_directory, "--limit", 0, "--methods", "rise") as process:
        assert process.stderr.readline().startswith("images to explain: 10,000")
        process.send_signal(2)
        _, errors = process.communicate(timeout=120)
    assert (process.returncode, errors) == (130, "interrupted\n")
    assert {path.name for path in run_directory.iterdir()} == before


def test_help_lists_the_fields_of_the_methods_without_tensorflow(command):
    done = command("-X", "importtime", "explain.py", "--help", COLUMNS="200")
    assert done.returncode == 0
    for text in ("--integrated-gradients.steps INT", "(default: 50)", "--smooth-grad.method.score", "--all-classes"):
        assert text in done.stdout
    imported = {line.rpartition("|")[2].strip().split(".")[0] for line in done.stderr.splitlines()}
    assert imported & {"tensorflow", "matplotlib", "orbax", "tensorboardX", "skimage"} == set()


@pytest.fixture
def as_the_page_says(colour_run, tmp_path, monkeypatch):
    """The page, in a directory where the run it speaks of is a small one."""
    shutil.copytree(colour_run, tmp_path / "runs/mnist_cnn")
    monkeypatch.chdir(tmp_path)
    return PAGE.read_text()


def test_the_page_shows_every_method():
    for name, cls in METHODS.items():
        assert f"**`{cls.__name__}(" in PAGE.read_text()
        assert f"![{name}](saliency/{name}.png)" in PAGE.read_text()
        assert (PAGE.parent / f"saliency/{name}.png").stat().st_size < 60_000


@pytest.mark.slow
def test_the_python_of_the_page_runs(as_the_page_says):
    blocks = re.findall(r"```python\n(.*?)```", as_the_page_says, re.S)
    assert len(blocks) >= 4
    exec("".join(blocks), {})


@pytest.mark.slow
def test_the_commands_of_the_page_run(as_the_page_says):
    blocks = "".join(re.findall(r"```sh\n(.*?)```", as_the_page_says, re.S)).replace("\\\n", " ")
    commands = [shlex.split(line, comments=True) for line in blocks.splitlines()]
    assert len(commands) >= 5
    for python, script, *arguments in commands:
        assert (python, script) == ("python", "explain.py")
        assert explain(arguments) == 0


def test_images_that_come_class_by_class_are_chosen_from_all_classes():
    images, names = np.zeros((50, 2, 2, 1), np.uint8), ("a", "b")
    mixed, in_order = (Split(images, labels, names) for labels in (np.arange(50) % 2, np.arange(50) // 25))
    np.testing.assert_array_equal(chosen_images(mixed, 7), np.arange(7))
    few, more = chosen_images(in_order, 7), chosen_images(in_order, 20)
    assert set(in_order.labels[few]) == {0, 1}
    assert set(few) < set(more)
    for split in (mixed, in_order):
        np.testing.assert_array_equal(chosen_images(split, 0), np.arange(50))
        assert len(chosen_images(split, 99)) == 50


def test_arrays_grow_side_by_side_and_are_read_as_any_npz(tmp_path, random):
    expected = {
        "a.values": random.normal(size=(7, 3, 2)).astype(np.float32),
        "b": np.arange(7),
        "c": np.asfortranarray(random.normal(size=(7, 4))),
    }
    with growing_npz(tmp_path / "x.npz", 7) as append:
        for start, stop in ((0, 1), (1, 4), (4, 7)):
            append({name: array[start:stop] for name, array in expected.items()})
    assert [path.name for path in tmp_path.iterdir()] == ["x.npz"]
    found = arrays(tmp_path / "x.npz")
    assert set(found) == set(expected)
    for name, array in expected.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)


def test_a_file_that_is_not_finished_leaves_the_old_one_alone(tmp_path):
    np.savez(tmp_path / "x.npz", old=np.arange(3))
    with pytest.raises(RuntimeError), growing_npz(tmp_path / "x.npz", 2) as append:
        append({"new": np.arange(1)})
        raise RuntimeError
    assert [path.name for path in tmp_path.iterdir()] == ["x.npz"]
    assert set(arrays(tmp_path / "x.npz")) == {"old"}
