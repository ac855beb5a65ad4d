"""The page of demo.py: its answers are those of predict.py, and in a browser they follow what is drawn."""

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

from jaxclf import load, saliency
from jaxclf.cli.one_picture import TOP, answer, enlarged, fitting
from jaxclf.inference.preprocess import Preparation
from jaxclf.saliency.names import METHODS

needs_gradio = pytest.mark.skipif(
    importlib.util.find_spec("gradio") is None, reason="gradio is not installed: pip install 'jaxclf[demo]'"
)
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
GREY = Preparation((28, 28, 1), center=True)


@pytest.fixture(scope="module")
def linear(linear_run):
    return load(linear_run[0])


def drawn(digit, path, paper=255):
    """A digit of MNIST as somebody draws it: large, somewhere on a sheet, dark on light or light on dark."""
    sheet = np.full((280, 280), paper, np.uint8)
    large = np.asarray(Image.fromarray(digit.squeeze()).resize((190, 190)))
    sheet[70:260, 20:210] = 255 - large if paper else large
    Image.fromarray(sheet).save(path)
    return path


# Answers


@pytest.mark.parametrize("paper", [255, 0])
def test_a_drawn_digit_is_answered_as_predict_answers_it(linear_run, linear, mnist, paper, tmp_path, capsys):
    files = [drawn(digit, tmp_path / f"{i}.png", paper) for i, digit in enumerate(mnist.test.images[:5])]
    arguments = ["--center", "--top", str(TOP), "--format", "jsonl", "--explain", "smooth-grad", "--output", tmp_path]
    assert predict(list(map(str, [linear_run[0], *files[:1], *arguments]))) == 0
    expected = json.loads(capsys.readouterr().out)
    found = answer(linear, GREY, files[0], saliency.SmoothGrad())
    places = ["", *(f"_{n}" for n in range(2, TOP + 1))]
    assert list(found.top) == [expected[f"label{place}"] for place in places]
    assert list(found.top.values()) == pytest.approx([expected[f"confidence{place}"] for place in places], abs=1e-6)
    np.testing.assert_array_equal(found.overlay, np.asarray(Image.open(expected["overlay"])))
    assert found.inverted == bool(paper)
    answers = [answer(linear, GREY, file, saliency.Gradient()) for file in files]
    assert [next(iter(one.top)) for one in answers] == list(map(str, mnist.test.labels[:5]))


def test_the_likeliest_classes_come_first_and_are_what_the_network_says_of_what_is_seen(linear, mnist, tmp_path):
    for i, digit in enumerate(mnist.test.images[:10]):
        found = answer(linear, GREY, drawn(digit, tmp_path / f"{i}.png"), saliency.Gradient())
        (probabilities,) = linear.predict(found.seen[np.newaxis, ::10, ::10, :1])
        assert list(found.top.values()) == pytest.approx(np.sort(probabilities)[::-1][:TOP], abs=1e-6)
        assert 0.9 < sum(found.top.values()) <= 1 + 1e-6
        assert found.target == probabilities.argmax()


def test_the_class_decides_what_is_explained_and_nothing_else(linear, mnist, tmp_path):
    file = drawn(mnist.test.images[0], tmp_path / "7.png")
    predicted = answer(linear, GREY, file, saliency.Gradient())
    maps = [answer(linear, GREY, file, saliency.Gradient(), target) for target in range(10)]
    assert len({one.overlay.tobytes() for one in maps}) == 10
    assert [one.target for one in maps] == list(range(10))
    np.testing.assert_array_equal(maps[predicted.target].overlay, predicted.overlay)
    assert all(one.top == predicted.top for one in maps)


def test_what_cannot_be_answered_is_said(linear, tmp_path):
    Image.new("RGBA", (280, 280)).save(tmp_path / "blank.png")
    (tmp_path / "bad.png").write_text("no picture")
    method = saliency.Gradient()
    assert "nothing on it is lighter than its border" in answer(linear, GREY, tmp_path / "blank.png", method)
    assert "cannot identify image file" in answer(linear, GREY, tmp_path / "bad.png", method)
    as_it_is = answer(linear, Preparation((28, 28, 1)), tmp_path / "blank.png", method)
    assert len(as_it_is.top) == TOP


def test_pictures_in_colour_are_answered(colour_run):
    run, preparation = load(colour_run), Preparation((12, 12, 3))
    for name in ("red", "blue"):
        file = colour_run.parent / f"pictures/{name}/3.png"
        found = answer(run, preparation, file, saliency.Occlusion(), run.class_names.index(name))
        assert next(iter(found.top)) == name
        assert sum(found.top.values()) == pytest.approx(1)
        np.testing.assert_array_equal(found.seen, enlarged(np.asarray(Image.open(file))))
        assert found.overlay.shape == found.seen.shape == (288, 288, 3)


def test_methods_that_fit_keep_their_order(linear, colour_run):
    names = ("lrp", "grad-cam", "gradient")
    assert [name for name, _ in fitting(linear, names)] == ["lrp", "gradient"]
    assert dict(fitting(load(colour_run), names)) == {name: METHODS[name]() for name in names}


# The command


@pytest.mark.parametrize(
    ("arguments", "answer"),
    [
        (["--port", "0"], "port=0: expected 1 to 65535"),
        (["--port", "80000"], "port=80000: expected 1 to 65535"),
        (["--prot", "80"], "did you mean --port?"),
    ],
)
def test_a_mistake_is_answered(arguments, answer, capsys):
    assert demo(["run", *arguments]) == 2
    assert answer in capsys.readouterr().err


def test_a_port_that_is_taken_is_said(capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert demo(["run", "--port", str(port)]) == 2
    assert f"port={port}: Address already in use; name another with --port" in capsys.readouterr().err


def test_without_gradio_its_installation_is_named(monkeypatch, capsys):
    for name in ("GRADIO_ANALYTICS_ENABLED", "GRADIO_TEMP_DIR"):
        monkeypatch.setenv(name, "")  # the command sets them, and that is undone
    monkeypatch.setitem(sys.modules, "gradio", None)
    assert demo(["run", "--port", str(free_port())]) == 2
    assert "demo.py needs gradio: pip install 'jaxclf[demo]'" in capsys.readouterr().err


def free_port():
    """A port that nothing listens at."""
    with socket.create_server(("127.0.0.1", 0)) as unused:
        return unused.getsockname()[1]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "needed"),
    [
        (("-c", "import jaxclf"), set()),
        (("train.py", "configs/mnist_linear.py", "--help"), set()),
        pytest.param(("-c", "import jaxclf.cli.demo, jaxclf.cli.demo_page"), {"gradio"}, marks=needs_gradio),
    ],
)
def test_what_is_not_needed_is_not_imported(words, needed, command):
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
    """The page of the linear classifier in a browser. It asks no other server, and Ctrl-C ends it quietly."""
    port = free_port()
    with start("-m", "jaxclf", "demo", linear_run[0], "--port", port) as server:
        assert server.stdout.readline() == f"http://127.0.0.1:{port} shows {linear_run[0]}; Ctrl-C ends it\n"
        browser = Chromium(tmp_path / "profile")
        browser.open(f"http://127.0.0.1:{port}", 1300, 900)
        yield browser
        browser.close()
        server.send_signal(2)
        output, errors = server.communicate(timeout=60)
    assert (server.returncode, output) == (0, "")
    said, _, more = errors.partition("\n")
    assert said == f"saliency methods to try on the network ({len(METHODS)})"
    assert not more or more.endswith("ClientDisconnect\n"), more  # of a request that the closing browser left
    assert browser.errors == []
    assert {urlsplit(address).netloc for address in browser.requests} == {f"127.0.0.1:{port}"}


@needs_gradio
@needs_chromium
@pytest.mark.slow
def test_the_prediction_follows_what_is_drawn_and_dropped(page, mnist, tmp_path):
    page.wait(f"!!document.querySelector('canvas') && !{TEXT}.includes('select the draw tool')")
    left, top, width, height = page.value(BOX)
    x, y = left + width / 2, top + height / 2 - 90
    page.stroke([(x, y + 5 * i) for i in range(36)])
    page.wait(f"{LABEL} == '1'")
    page.stroke([(x - 4 * i, y + i) for i in range(20)])
    page.wait(f"{LABEL} == '7' && {TEXT}.includes('what 7 owes to the pixels')")
    page.value("document.querySelector('[data-testid=number-input]').select()")
    page.ask("Input.insertText", text="3")
    page.wait(f"{LABEL} == '7' && {TEXT}.includes('what 3 owes to the pixels')")
    page.value("[...document.querySelectorAll('[role=tab]')].at(-1).click()")
    page.wait(f"!!{FILES}")
    (tmp_path / "bad.png").write_text("no picture")
    page.drop(FILES, tmp_path / "bad.png")
    page.wait(f"!{LABEL} && {TEXT}.includes('cannot identify image file')")
    page.value("document.querySelector('[aria-label=\"Remove Image\"]').click()")
    page.wait(f"!!{FILES}")
    Image.fromarray(mnist.test.images[1].squeeze()).save(tmp_path / "2.png")
    page.drop(FILES, tmp_path / "2.png")
    page.wait(f"{LABEL} == '2' && {TEXT}.includes('what 2 owes to the pixels')")
