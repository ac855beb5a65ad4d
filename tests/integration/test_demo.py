"""The demo: it predicts as `jaxclf predict` does, and its page follows what is drawn in a browser."""

import importlib.util
import json
import socket
import sys
from urllib.parse import urlsplit

import numpy as np
import pytest
from PIL import Image
from support.chromium import CHROMIUM, Chromium
from support.cli import demo, predict
from support.processes import find_free_port

from jaxclf import load, saliency
from jaxclf.cli.demo_prediction import TOP, enlarge, predict_image, select_methods
from jaxclf.inference.preprocess import Preprocessor
from jaxclf.saliency.names import METHODS

needs_gradio = pytest.mark.skipif(
    importlib.util.find_spec("gradio") is None, reason="gradio is not installed: pip install 'jaxclf[demo]'"
)
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
GREY = Preprocessor((28, 28, 1), center=True)


@pytest.fixture(scope="module")
def linear(linear_run):
    return load(linear_run[0])


def drawn(digit, path, paper=255):
    """Write a digit of MNIST as drawn by a user: large, off-center, dark on light or light on dark."""
    sheet = np.full((280, 280), paper, np.uint8)
    large = np.asarray(Image.fromarray(digit.squeeze()).resize((190, 190)))
    sheet[70:260, 20:210] = 255 - large if paper else large
    Image.fromarray(sheet).save(path)
    return path


# Predictions


@pytest.mark.parametrize("paper", [255, 0])
def test_predictions_of_drawn_digits_equal_those_of_predict(linear_run, linear, mnist, paper, tmp_path, capsys):
    files = [drawn(digit, tmp_path / f"{i}.png", paper) for i, digit in enumerate(mnist.test.images[:5])]
    arguments = ["--center", "--top", str(TOP), "--format", "jsonl", "--explain", "smooth-grad", "--output", tmp_path]
    assert predict(list(map(str, [linear_run[0], *files[:1], *arguments]))) == 0
    expected = json.loads(capsys.readouterr().out)
    found = predict_image(linear, GREY, files[0], saliency.SmoothGrad())
    places = ["", *(f"_{n}" for n in range(2, TOP + 1))]
    assert list(found.top) == [expected[f"label{place}"] for place in places]
    assert list(found.top.values()) == pytest.approx([expected[f"confidence{place}"] for place in places], abs=1e-6)
    np.testing.assert_array_equal(found.overlay, np.asarray(Image.open(expected["overlay"])))
    assert found.inverted == bool(paper)
    predictions = [predict_image(linear, GREY, file, saliency.Gradient()) for file in files]
    assert [next(iter(one.top)) for one in predictions] == list(map(str, mnist.test.labels[:5]))


def test_the_most_probable_classes_come_first_and_match_the_network_input(linear, mnist, tmp_path):
    for i, digit in enumerate(mnist.test.images[:10]):
        found = predict_image(linear, GREY, drawn(digit, tmp_path / f"{i}.png"), saliency.Gradient())
        (probabilities,) = linear.predict(found.network_input[np.newaxis, ::10, ::10, :1])
        assert list(found.top.values()) == pytest.approx(np.sort(probabilities)[::-1][:TOP], abs=1e-6)
        assert 0.9 < sum(found.top.values()) <= 1 + 1e-6
        assert found.target == probabilities.argmax()


def test_the_target_changes_only_the_attribution(linear, mnist, tmp_path):
    file = drawn(mnist.test.images[0], tmp_path / "7.png")
    predicted = predict_image(linear, GREY, file, saliency.Gradient())
    maps = [predict_image(linear, GREY, file, saliency.Gradient(), target) for target in range(10)]
    assert len({one.overlay.tobytes() for one in maps}) == 10
    assert [one.target for one in maps] == list(range(10))
    np.testing.assert_array_equal(maps[predicted.target].overlay, predicted.overlay)
    assert all(one.top == predicted.top for one in maps)


def test_an_unusable_image_returns_the_reason(linear, tmp_path):
    Image.new("RGBA", (280, 280)).save(tmp_path / "blank.png")
    (tmp_path / "bad.png").write_text("no picture")
    method = saliency.Gradient()
    assert "nothing in it is lighter than its border" in predict_image(linear, GREY, tmp_path / "blank.png", method)
    assert "cannot identify image file" in predict_image(linear, GREY, tmp_path / "bad.png", method)
    as_it_is = predict_image(linear, Preprocessor((28, 28, 1)), tmp_path / "blank.png", method)
    assert len(as_it_is.top) == TOP


def test_color_images_are_predicted(colour_run):
    run, preparation = load(colour_run), Preprocessor((12, 12, 3))
    for name in ("red", "blue"):
        file = colour_run.parent / f"pictures/{name}/3.png"
        found = predict_image(run, preparation, file, saliency.Occlusion(), run.class_names.index(name))
        assert next(iter(found.top)) == name
        assert sum(found.top.values()) == pytest.approx(1)
        np.testing.assert_array_equal(found.network_input, enlarge(np.asarray(Image.open(file))))
        assert found.overlay.shape == found.network_input.shape == (288, 288, 3)


def test_supported_methods_keep_their_order(linear, colour_run):
    names = ("lrp", "grad-cam", "gradient")
    assert [name for name, _ in select_methods(linear, names)] == ["lrp", "gradient"]
    assert dict(select_methods(load(colour_run), names)) == {name: METHODS[name]() for name in names}


# The command


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--port", "0"], "port=0: expected 1 to 65535"),
        (["--port", "80000"], "port=80000: expected 1 to 65535"),
        (["--prot", "80"], "did you mean --port?"),
    ],
)
def test_user_errors_of_demo(arguments, message, capsys):
    assert demo(["run", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_a_port_in_use_is_refused(capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert demo(["run", "--port", str(port)]) == 2
    assert f"port={port}: Address already in use; name another with --port" in capsys.readouterr().err


def test_without_gradio_the_error_names_the_extra(monkeypatch, capsys):
    for name in ("GRADIO_ANALYTICS_ENABLED", "GRADIO_TEMP_DIR"):
        monkeypatch.setenv(name, "")  # the command sets them, and that is undone
    monkeypatch.setitem(sys.modules, "gradio", None)
    assert demo(["run", "--port", str(find_free_port())]) == 2
    assert "jaxclf demo needs gradio: pip install 'jaxclf[demo]'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "needed"),
    [
        (("-c", "import jaxclf"), set()),
        (("train.py", "configs/mnist_linear.py", "--help"), set()),
        pytest.param(("-c", "import jaxclf.cli.demo, jaxclf.cli.demo_page"), {"gradio"}, marks=needs_gradio),
    ],
)
def test_optional_modules_are_imported_only_when_needed(words, needed, command):
    done = command("-X", "importtime", *words)
    assert done.returncode == 0, done.stderr
    imported = {line.rpartition("|")[2].strip().split(".")[0] for line in done.stderr.splitlines()}
    assert imported & {"gradio", "tensorflow", "matplotlib"} == needed


# In a browser

TEXT = "document.body.innerText"
LABEL = "document.querySelector('[data-testid=label-output-value]')?.innerText"
FILES = "[...document.querySelectorAll('[data-testid=file-upload]')][1]"  # the first is the sheet's
BOX = "(({x, y, width, height}) => [x, y, width, height])(document.querySelector('canvas').getBoundingClientRect())"


@pytest.fixture
def page(linear_run, start, tmp_path):
    """The page of the linear classifier in a browser. It sends no request to other servers, and Ctrl-C ends it."""
    port = find_free_port()
    with start("-m", "jaxclf", "demo", linear_run[0], "--port", port) as server:
        assert server.stdout.readline() == f"serving {linear_run[0]} at http://127.0.0.1:{port}; press Ctrl-C to stop\n"
        browser = Chromium(tmp_path / "profile")
        browser.open(f"http://127.0.0.1:{port}", 1300, 900)
        yield browser
        browser.close()
        server.send_signal(2)
        output, errors = server.communicate(timeout=60)
    assert (server.returncode, output) == (0, "")
    line, _, more = errors.partition("\n")
    assert line == f"saliency methods to check ({len(METHODS)})"
    assert not more or more.endswith("ClientDisconnect\n"), more  # of a request that the closing browser left
    assert browser.errors == []
    assert {urlsplit(address).netloc for address in browser.requests} == {f"127.0.0.1:{port}"}


@needs_gradio
@needs_chromium
def test_the_prediction_follows_drawings_and_uploads(page, mnist, tmp_path):
    page.wait(f"!!document.querySelector('canvas') && !{TEXT}.includes('select the draw tool')")
    left, top, width, height = page.value(BOX)
    x, y = left + width / 2, top + height / 2 - 90
    page.stroke([(x, y + 5 * i) for i in range(36)])
    page.wait(f"{LABEL} == '1'")
    page.stroke([(x - 4 * i, y + i) for i in range(20)])
    page.wait(f"{LABEL} == '7' && {TEXT}.includes('attribution for class 7')")
    page.value("document.querySelector('[data-testid=number-input]').select()")
    page.ask("Input.insertText", text="3")
    page.wait(f"{LABEL} == '7' && {TEXT}.includes('attribution for class 3')")
    page.value("[...document.querySelectorAll('[role=tab]')].at(-1).click()")
    page.wait(f"!!{FILES}")
    (tmp_path / "bad.png").write_text("no picture")
    page.drop(FILES, tmp_path / "bad.png")
    page.wait(f"!{LABEL} && {TEXT}.includes('cannot identify image file')")
    page.value("document.querySelector('[aria-label=\"Remove Image\"]').click()")
    page.wait(f"!!{FILES}")
    Image.fromarray(mnist.test.images[1].squeeze()).save(tmp_path / "2.png")
    page.drop(FILES, tmp_path / "2.png")
    page.wait(f"{LABEL} == '2' && {TEXT}.includes('attribution for class 2')")
