"""Explaining a run: what is written is what the methods say, whatever the batches and the devices."""

import json
import shutil

import jax
import numpy as np
import pytest
from support.arrays import read_arrays
from support.cli import explain

from jaxclf import load, saliency
from jaxclf.config_io import to_json
from jaxclf.inference.explain import Explainer
from jaxclf.random import make_key
from jaxclf.training.devices import Devices

PICTURES = {"explanations.png", "gradient_study.png"}


def keys_of(run, indices):
    root = make_key(run.config.seed, "saliency")
    return jax.numpy.stack([jax.random.fold_in(root, i) for i in indices])


@pytest.fixture(scope="module")
def explained(command, linear_run, tmp_path_factory):
    """The first three test images explained by the real command, and what that printed."""
    directory = shutil.copytree(linear_run[0], tmp_path_factory.mktemp("explained") / "run")
    done = command("-m", "jaxclf", "explain", directory, "--limit", 3, "--smooth-grad.samples", 4)
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
    written, run = read_arrays(directory / "explanations.npz"), load(directory)
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
    many, few = (read_arrays(directory / "explanations.npz") for directory in (run_directory, explained[0]))
    for name, values in many.items():
        np.testing.assert_allclose(values[:3], few[name], atol=1e-5, err_msg=name)
    run = load(run_directory)
    a = saliency.Gradient()(run.model, run.variables, run.splits.test.images[:150])
    np.testing.assert_allclose(many["gradient.values"], a.values, atol=1e-5)
    assert many["indices"].tolist() == list(range(150))


def test_colour_pictures_and_class_activation_maps(colour_run, capsys):
    assert explain([str(colour_run), "--limit", "0", "--integrated-gradients.steps", "3"]) == 0
    written = read_arrays(colour_run / "explanations.npz")
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
    written, run = read_arrays(colour_run / "explanations.npz"), load(colour_run)
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
        "srg": saliency.srg(run.model, run.variables, images, a),
        "single_deletion": saliency.single_deletion(run.model, run.variables, images, a),
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
    (answer,) = explainer.explain_batches(run.splits.test, np.arange(4))
    references = run.splits.train.images[run.splits.train.sample_indices(20)]
    a = saliency.ExpectedGradients(samples=3)(
        run.model, run.variables, run.splits.test.images[:4], key=keys_of(run, range(4)), baseline=references
    )
    np.testing.assert_allclose(answer.attribution.values, a.values, atol=1e-5)
