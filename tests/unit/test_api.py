"""The Python API without a run directory: fit, evaluate, predict, explain and callbacks."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from support.configs import SMALL

import jaxclf
from jaxclf import saliency
from jaxclf.errors import UserError
from jaxclf.models import Mlp


@pytest.fixture(scope="module")
def run(digits):
    return jaxclf.fit(SMALL, splits=digits)


def test_evaluate_agrees_with_the_summary_and_with_arrays(run, digits):
    test = run.evaluate("test")
    assert test == pytest.approx({name: run.summary["test"][name] for name in ("loss", "accuracy")}, rel=1e-6)
    assert run.evaluate(digits.test.images, digits.test.labels, batch_size=7) == pytest.approx(test, rel=1e-5)
    assert jaxclf.evaluate(run) == test
    right = np.mean(run.predict(digits.test.images).argmax(axis=1) == digits.test.labels)
    assert right == pytest.approx(test["accuracy"])


def test_predict_takes_arrays_files_and_pil_images(run, digits, tmp_path):
    images = digits.test.images[:3]
    expected = run.predict(images)
    assert expected.shape == (3, 10)
    np.testing.assert_allclose(run.predict(images / np.float32(255)), expected, rtol=1e-6)
    pictures = [Image.fromarray(image[..., 0]) for image in images]
    paths = [tmp_path / f"{i}.png" for i in range(3)]
    for picture, path in zip(pictures, paths, strict=True):
        picture.save(path)
    for given in (pictures, paths, list(map(str, paths))):
        np.testing.assert_array_equal(run.predict(given), expected)
    np.testing.assert_allclose(run.predict(paths[0]), expected[:1], rtol=1e-5)
    with pytest.raises(UserError, match=r"missing\.png"):
        run.predict(tmp_path / "missing.png")


def test_pil_images_are_prepared_as_files_are(run, random, tmp_path):
    photograph = Image.fromarray(random.integers(0, 256, (30, 40, 3), np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned
    photograph.save(tmp_path / "turned.jpg", exif=exif)
    photograph.save(tmp_path / "turned.png", exif=exif)
    for mode in ("CMYK", "YCbCr", "LAB", "RGBA", "I;16"):
        photograph.convert("L" if mode == "I;16" else "RGB").convert(mode).save(tmp_path / f"{mode[0]}.tif")
    for path in tmp_path.iterdir():
        with Image.open(path) as image:
            np.testing.assert_array_equal(run.predict(image), run.predict(path), err_msg=path.name)
    hsv = photograph.convert("HSV")
    np.testing.assert_array_equal(run.predict(hsv), run.predict(hsv.convert("RGB")))


def test_pil_images_that_cannot_be_read_are_refused(run, tmp_path):
    with pytest.raises(UserError, match=r"mode=F size=4x4 .*convert it to 8 or 16 bits"):
        run.predict(Image.new("F", (4, 4)))
    Image.new("RGB", (40, 40)).save(tmp_path / "x.png")
    content = (tmp_path / "x.png").read_bytes()
    (tmp_path / "x.png").write_bytes(content[: len(content) // 2])
    with Image.open(tmp_path / "x.png") as image, pytest.raises(UserError, match="truncated"):
        run.predict(image)


def test_features_do_not_depend_on_the_batch(run, digits):
    images = digits.test.images[: run.eval_batch_size + 1]
    features = run.features(images)
    np.testing.assert_allclose(features[-2:], run.features(images[-2:]), rtol=1e-6)
    assert run.features(images[:0]).shape == (0, features.shape[1])
    kernel, bias = (np.asarray(run.variables["params"]["logits"][name]) for name in ("kernel", "bias"))
    np.testing.assert_array_equal((features @ kernel + bias).argmax(axis=1), run.predict(images).argmax(axis=1))


def test_explain_is_the_method(run, digits):
    images = digits.test.images[:2]
    found = run.explain(saliency.IntegratedGradients(steps=4), images, targets=3)
    expected = saliency.IntegratedGradients(steps=4)(run.model, run.variables, images, 3)
    np.testing.assert_array_equal(found.values, expected.values)
    assert run.explain(saliency.SmoothGrad(samples=2), images).values.shape == (2, 28, 28, 1)  # it needs a key
    assert run.explain(saliency.ExpectedGradients(samples=2), images).values.shape == (2, 28, 28, 1)  # and references


def test_arrays_of_another_shape_are_refused(run, digits):
    images, labels = digits.test.images[:2, :14], digits.test.labels[:2]
    for call in (
        lambda: run.predict(images),
        lambda: run.features(images),
        lambda: run.evaluate(images, labels),
        lambda: run.explain(saliency.Gradient(), images),
    ):
        with pytest.raises(UserError, match=r"images of shape \[2, 14, 28, 1\]: expected \[b, 28, 28, 1\]"):
            call()


def test_callbacks_see_the_run_and_may_stop_it(digits):
    class StopAfterOneEpoch(jaxclf.Callback):
        def on_epoch_end(self, trainer):
            self.accuracy = trainer.progress.latest["validation"]["accuracy"]
            trainer.stop_training = True

    callback = StopAfterOneEpoch()
    run = jaxclf.fit(SMALL, splits=digits, callbacks=[callback])
    assert run.summary["epochs"] == 1
    assert callback.accuracy == run.summary["validation"]["accuracy"]


def test_a_model_of_other_classes_is_refused(digits):
    with pytest.raises(UserError, match=r"the model has 3 logits and the dataset 10 classes"):
        jaxclf.fit(replace(SMALL, model=Mlp(features=(), classes=3)), splits=digits)
