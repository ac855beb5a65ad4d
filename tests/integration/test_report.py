"""The report: what it says of known arrays, what it does with hostile names, and what a browser makes of it."""

import base64
import io
import json
import shutil
import tracemalloc
from html.parser import HTMLParser

import jax
import numpy as np
import pytest
from PIL import Image
from scipy.sparse import csr_array
from support.chromium import CHROMIUM, Chromium
from support.cli import report as compare

import jaxclf
from jaxclf.config import Config
from jaxclf.datasets import Mnist
from jaxclf.errors import UserError
from jaxclf.figures.curves import Series
from jaxclf.inference.trained_model import TrainedModel
from jaxclf.models import Mlp
from jaxclf.optimizers import Sgd
from jaxclf.reporting.report import EvaluatedSplit, write_comparison, write_report
from jaxclf.reporting.report.charts import MAX_POINTS, decimate_points, draw_chart
from jaxclf.reporting.report.confusions import describe_confusions
from jaxclf.reporting.report.examples import PER_CELL, collect_examples, select_examples
from jaxclf.reporting.report.findings import (
    find_confused_pairs,
    find_worst_mistakes,
    measure_classes,
    scale_temperature,
    summarize_data,
)
from jaxclf.reporting.report.pictures import SHADES, encode_image, encode_map
from jaxclf.reporting.report.run_page import SECTIONS
from jaxclf.runs.directory import read_metrics
from jaxclf.types import Split, Splits

HOSTILE = (
    "<script>alert(1)</script>",
    "\"'><img src=x onerror=alert(2)>",
    "</script><script>alert(3)</script>",
    "{{ 7 * 7 }} & {% raw %}",
    "no text: \udcff",
)
LIMIT = 5_000_000


class Page(HTMLParser):
    """Elements of a page by tag, each with its attributes, and its text."""

    def __init__(self, path):
        super().__init__()
        self.tags, self.text = [], ""
        if path is not None:
            self.feed(path.read_text(encoding="utf-8"))

    @classmethod
    def of_text(cls, text):
        page = cls(None)
        page.feed(str(text))
        return page

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data

    def of(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


def logits_of(run, split):
    return np.log(np.maximum(run.predict(split.images[:]), 1e-30))


def reported(directory, name="test"):
    """The report of a trained run."""
    run = jaxclf.load(directory)
    splits = run.splits
    validation = None if splits.validation is None else logits_of(run, splits.validation)
    evaluated = EvaluatedSplit(splits, name, logits_of(run, splits[name]), validation)
    return write_report(run, read_metrics(run.directory), evaluated), evaluated


@pytest.fixture(scope="module")
def linear(linear_run, tmp_path_factory):
    """The report of the linear classifier, and what it is of."""
    return reported(shutil.copytree(linear_run[0], tmp_path_factory.mktemp("report") / "linear"))


@pytest.fixture(scope="module")
def colour(colour_run, tmp_path_factory):
    """The report of the small CNN on colour pictures, which has validation images."""
    return reported(shutil.copytree(colour_run, tmp_path_factory.mktemp("report") / "colour"))


def made_up(random, path, names, n, side=8, skipped=()):
    """A run that was not trained, of images and labels that are noise, and what is found in them."""
    images = random.integers(0, 256, (n, side, side, 3), np.uint8)
    split = Split(images, random.integers(0, len(names), n).astype(np.int32), names)
    model = Mlp(features=(), classes=len(names))
    variables = model.init(jax.random.key(0), images[:1])
    run = TrainedModel(
        Config(Mnist(), model, Sgd(0.1), epochs=1, batch_size=8),
        0,
        names,
        split.image_shape,
        variables,
        path,
    )
    logits = (
        random.normal(size=(n, len(names))).astype(np.float32) + 2 * np.eye(len(names), dtype=np.float32)[split.labels]
    )
    return run, EvaluatedSplit(Splits(split, None, split, ("a remark",), skipped), "test", logits)


def test_the_page_says_what_was_found(linear):
    path, evaluated = linear
    page, right = Page(path), int(np.sum(evaluated.predictions == evaluated.split.labels))
    assert f"{right / 10_000:.2%}" in page.text
    assert f"{10_000 - right:,}" in page.text
    assert {attributes.get("id") for attributes in page.of("section")} == set(SECTIONS)
    assert "No temperature scaling: there are no validation images" in page.text
    assert [figure["aria-label"] for figure in page.of("figure")] == ["accuracy", "loss", "before scaling"]
    assert len(page.of("svg")) == 3
    curves = [group["data-series"] for group in page.of("g") if "data-series" in group]
    assert curves == ["0", "1", "2"] * 2  # running, on training images, on test images: in both charts
    assert path.stat().st_size < LIMIT


def test_every_cell_and_class_is_there(linear):
    path, evaluated = linear
    buttons = [attributes for attributes in Page(path).of("button") if "data-cell" in attributes]
    counts = {attributes["data-cell"]: int(attributes["data-n"]) for attributes in buttons}
    assert counts == {f"{i},{j}": int(n) for (i, j), n in np.ndenumerate(evaluated.matrix.toarray()) if n}


def test_forty_mistakes_with_their_saliency(linear):
    pictures = [attributes["src"] for attributes in Page(linear[0]).of("img")]
    methods = 2  # a linear classifier has no layer for a class-activation map
    assert len(pictures) == 40 * 2 + 8 * (1 + methods)
    assert all(source.startswith("data:image/webp;base64,") for source in pictures)


def test_a_temperature_is_fitted_on_validation_and_judged_on_test(colour):
    path, evaluated = colour
    found = scale_temperature(evaluated)
    assert found.n == len(evaluated.splits.validation)
    assert f"T = {found.temperature:.4g}" in Page(path).text
    on_validation = EvaluatedSplit(
        evaluated.splits, "validation", evaluated.validation_logits, evaluated.validation_logits
    )
    assert scale_temperature(on_validation) is None


def test_a_network_with_convolutions_has_a_class_activation_map(colour):
    enlarged = [image["src"] for image in Page(colour[0]).of("img") if image.get("class") == "smooth"]
    maps = [pixels_of(source, "RGBA") for source in enlarged]  # no other method has maps smaller than the images
    assert len(maps) == 8
    assert any(image[..., 3].any() for image in maps)


def test_nothing_is_taken_from_elsewhere(linear, colour):
    for path, _ in (linear, colour):
        page = Page(path)
        sources = [attributes[name] for _, attributes in page.tags for name in ("src", "href") if name in attributes]
        assert all(source.startswith(("data:", "#")) for source in sources)
        policy = [attributes["content"] for attributes in page.of("meta") if "http-equiv" in attributes]
        assert policy == [
            "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
        ]  # fmt: skip


def test_hostile_names_are_text(random, tmp_path):
    skipped = tuple(f"<b>{i}</b>.png: it is empty" for i in range(25))
    run, evaluated = made_up(random, tmp_path, HOSTILE, 60, skipped=skipped)
    page = Page(write_report(run, [], evaluated))
    assert len(page.of("script")) == 4  # three of data, one that reads them
    assert all("onerror" not in attributes for attributes in page.of("img"))
    assert all(name in page.text for name in HOSTILE[:2])
    assert "{{ 7 * 7 }}" in page.text
    assert r"no text: \udcff" in page.text
    assert "<b>19</b>.png" in page.text
    assert "<b>20</b>.png" not in page.text
    assert "… 5 more" in page.text
    assert "a remark" in page.text


def test_many_classes_of_noise_still_fit(random, tmp_path):
    names = tuple(f"a class with a long name {i}" for i in range(100))
    run, evaluated = made_up(random, tmp_path, names, 10_000, side=64)
    path = write_report(run, [], evaluated)
    print(f"{path.stat().st_size:,} bytes")
    assert 1_000_000 < path.stat().st_size < LIMIT
    assert '"src": "data:' in path.read_text()  # some examples had room


def test_with_too_many_classes_there_is_no_matrix(random, tmp_path):
    run, evaluated = made_up(random, tmp_path, tuple(map(str, range(300))), 500)
    page = Page(write_report(run, [], evaluated))
    assert "300 classes are too many" in page.text
    assert len([1 for attributes in page.of("button") if "data-cell" in attributes]) == 10  # the pairs most confused


@pytest.mark.parametrize("right", [True, False])
def test_all_right_or_all_wrong_is_a_report_too(right, random, tmp_path):
    run, evaluated = made_up(random, tmp_path, ("a", "b"), 30)
    labels = evaluated.split.labels if right else 1 - evaluated.split.labels
    sure = EvaluatedSplit(evaluated.splits, "test", 100.0 * np.eye(2)[labels])
    text = Page(write_report(run, [], sure)).text
    assert ("There are no mistakes in 30 images." in text) == right


def test_classes_computed_by_hand():
    matrix = csr_array([[8, 2, 0], [1, 9, 0], [0, 0, 0]])
    a, b, none = measure_classes(matrix, ("a", "b", "none"))
    assert (a.precision.value, a.recall.value, a.support) == (8 / 9, 0.8, 10)
    assert a.f1.value == pytest.approx(2 * (8 / 9) * 0.8 / (8 / 9 + 0.8))
    assert b.precision.value == 9 / 11
    assert (none.precision.value, none.recall.value, none.f1.value, none.support) == (None, None, None, 0)
    assert find_confused_pairs(matrix) == [(0, 1, 2, 0.2), (1, 0, 1, 0.1)]


def test_memory_does_not_grow_with_the_square_of_classes(random, tmp_path):
    _, evaluated = made_up(random, tmp_path, tuple(map(str, range(5_000))), 50)  # a dense matrix takes 200 MB
    tracemalloc.start()
    described = describe_confusions(evaluated)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 50e6
    assert (described["accuracy"].n, len(described["classes"]), described["cells"]) == (50, 5_000, [])


def test_intervals_of_f1_hold_the_true_one_as_often_as_they_say(random):
    chances = np.array([[0.4, 0.1], [0.05, 0.45]])  # of [true, found]
    true = 2 * 0.4 / (2 * 0.4 + 0.1 + 0.05)
    drawn = random.multinomial(200, chances.ravel(), size=4_000).reshape(-1, 2, 2)
    intervals = [measure_classes(csr_array(matrix), ("a", "b"))[0].f1 for matrix in drawn]
    assert np.mean([f1.low <= true <= f1.high for f1 in intervals]) == pytest.approx(0.95, abs=0.015)


def test_the_worst_mistake_expected_the_truth_least(random, tmp_path):
    _, evaluated = made_up(random, tmp_path, ("a", "b", "c"), 200)
    found = find_worst_mistakes(evaluated, 10)
    wrong = np.flatnonzero(evaluated.predictions != evaluated.split.labels)
    expected = evaluated.probabilities[np.arange(200), evaluated.split.labels]
    np.testing.assert_array_equal(found, wrong[np.argsort(expected[wrong], kind="stable")][:10])


def test_examples_are_mistakes_first_and_few_of_a_cell(random, tmp_path):
    _, evaluated = made_up(random, tmp_path, ("a", "b", "c"), 300)
    indices = select_examples(evaluated)
    right = evaluated.predictions[indices] == evaluated.split.labels[indices]
    assert np.all(np.diff(right.astype(int)) >= 0)
    cells = list(zip(evaluated.split.labels[indices], evaluated.predictions[indices], strict=True))
    pairs = list(zip(evaluated.split.labels, evaluated.predictions, strict=True))
    assert all(cells.count(cell) == min(PER_CELL, pairs.count(cell)) for cell in set(pairs))
    assert len(set(cells[:6])) == 6  # one of each kind of mistake before a second


@pytest.mark.parametrize("room", [-5, 0, 700, 5_000, 100_000])
def test_examples_take_no_more_room_than_there_is(room, random, tmp_path):
    _, evaluated = made_up(random, tmp_path, ("a", "b", "c"), 50)
    assert len(json.dumps(collect_examples(evaluated, room))) <= max(room, 0) + 200  # the names of the cells


def test_the_data_card_counts(random, tmp_path):
    _, evaluated = made_up(random, tmp_path, ("a", "b"), 40, skipped=("one: empty",))
    card = summarize_data(evaluated.splits)
    assert card["sizes"] == {"train": 40, "test": 40}
    assert [sum(counts["train"] for _, counts in card["classes"]), card["skipped_count"]] == [40, 1]


def test_a_chart_has_every_curve_and_text_is_escaped():
    points = [(float(i), i / 1_000) for i in range(1_000)]
    thinned = decimate_points(points)
    assert (len(thinned), thinned[0], thinned[-1]) == (MAX_POINTS, points[0], points[-1])
    series = [Series(HOSTILE[0], points, {}), Series("none", [], {}), Series("one", [(1.0, 0.5)], {})]
    (drawn,) = draw_chart("a title", "accuracy", series)
    page = Page.of_text(drawn.svg)
    groups = [group["data-series"] for group in page.of("g") if "data-series" in group]
    assert groups == ["0", "1", "2"]
    assert page.of("script") == []
    assert HOSTILE[0] in page.text
    assert {"accuracy", "epoch", "one"} <= set(page.text.split())
    assert draw_chart("nothing", "accuracy", [Series("a", [], {})]) == []


def test_charts_are_the_same_twice_and_share_no_ids():
    first, again = (
        draw_chart("", "loss", [Series("a", [(1.0, 0.5), (2.0, value)], {})])[0].svg for value in (0.4, 0.4)
    )
    assert first == again
    ids = [attributes["id"] for _, attributes in Page.of_text(first).tags if "id" in attributes]
    assert all(f"#{name}" in first for name in ids)  # what nothing refers to has none
    assert "#000000" not in first


def pixels_of(uri, mode):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))).convert(mode))


def test_pictures_are_what_they_show(random):
    grey = random.integers(0, 256, (9, 7, 1), np.uint8)
    np.testing.assert_array_equal(pixels_of(encode_image(grey, 64), "L"), grey[..., 0])
    np.testing.assert_array_equal(pixels_of(encode_image(grey / 255, 64), "L"), grey[..., 0])
    assert pixels_of(encode_image(np.zeros((200, 100, 3), np.uint8), 64), "RGB").shape == (64, 32, 3)


def test_a_layer_is_red_where_a_map_raises_and_blue_where_it_lowers():
    layer = pixels_of(encode_map(np.array([[[1.0], [-1.0], [0.0]]]), 64), "RGBA")[0].astype(int)
    assert layer[0, 0] > layer[0, 2]
    assert layer[1, 2] > layer[1, 0]
    np.testing.assert_array_equal(layer[:, 3], [255 // SHADES * SHADES, 255 // SHADES * SHADES, 0])


@pytest.fixture(scope="module")
def compared(linear, colour, tmp_path_factory):
    """The page that compares the two."""
    output = tmp_path_factory.mktemp("comparison") / "comparison.html"
    runs = [str(path.parent) for path, _ in (linear, colour)]
    assert compare([*runs, "--output", str(output)]) == 0
    return output


def test_a_comparison_shows_what_differs(compared, linear):
    page = Page(compared)
    assert "dataset.class" in page.text
    assert "ema_decay" not in page.text  # which is the same in both
    accuracy = np.mean(linear[1].predictions == linear[1].split.labels)
    assert f"{accuracy:.2%}" in page.text
    assert len([1 for attributes in page.of("g") if attributes.get("data-series") == "0"]) == 4


def test_runs_of_the_same_name_go_by_their_paths(linear_run, tmp_path):
    runs = [shutil.copytree(linear_run[0], tmp_path / place / "run") for place in "ab"]
    page = Page(write_comparison(tmp_path / "comparison.html", {run: [] for run in runs}))
    assert all(str(run) in page.text for run in runs)
    assert "The runs have the same config." in page.text


def test_a_comparison_needs_finished_runs(run_directory, tmp_path):
    (run_directory / "summary.json").unlink()
    with pytest.raises(UserError, match="is not finished"):
        write_comparison(tmp_path / "comparison.html", {run_directory: []})
    with pytest.raises(UserError, match="no run at"):
        write_comparison(tmp_path / "comparison.html", {tmp_path / "nowhere": []})


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    if CHROMIUM is None:
        pytest.skip("NOT TESTED IN A BROWSER: there is no chromium, chromium-browser or google-chrome on the PATH")
    opened = Chromium(tmp_path_factory.mktemp("profile"))
    yield opened
    opened.close()


def test_the_report_in_a_browser(browser, linear):
    browser.open(linear[0])
    assert browser.value("document.querySelectorAll('#examples img').length") > 0
    browser.click(".matrix [data-cell='3,3']")
    assert browser.value("document.querySelector('#examples h3').textContent").startswith("3, correct:")
    assert browser.value("document.querySelectorAll('#examples img').length") == PER_CELL
    assert browser.value("[...document.querySelectorAll('#examples img')].every(image => image.naturalWidth === 28)")
    browser.press("ArrowRight")
    browser.press("Enter")
    assert browser.value("document.activeElement.dataset.cell").startswith("3,")
    browser.point(".whisker")
    assert "95 % interval" in browser.value("document.getElementById('tip').textContent")
    browser.click(".sortable thead th:nth-child(4) button")
    recalls = browser.value("[...document.querySelectorAll('.sortable tbody tr')].map(row => row.cells[3].textContent)")
    assert recalls == sorted(recalls, key=lambda text: -float(text.rstrip("%")))
    assert (browser.complaints, browser.requests) == ([], [])


def test_the_theme_is_that_of_the_system_until_it_is_switched(browser, linear):
    for scheme, lightest in (("light", True), ("dark", False)):
        browser.open(linear[0], scheme=scheme)
        assert (browser.screenshot()[-1, 2].mean() > 128) == lightest
        browser.click("#theme")
        assert (browser.screenshot()[-1, 2].mean() > 128) != lightest
    assert (browser.complaints, browser.requests) == ([], [])


def test_pages_are_as_wide_as_a_phone(browser, linear, colour, compared):
    for path in (linear[0], colour[0], compared):
        browser.open(path, width=360, height=740)
        assert browser.value("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
        assert (browser.complaints, browser.requests) == ([], [])


def test_hostile_names_in_a_browser(browser, random, tmp_path):
    run, evaluated = made_up(random, tmp_path, HOSTILE, 60)
    browser.open(write_report(run, [], evaluated))
    assert browser.value("document.querySelector('tbody th').textContent").startswith("accuracy")
    assert browser.value("document.querySelectorAll('.matrix tbody th')[1].textContent") == HOSTILE[1]
    browser.click(".pairs button")
    assert browser.value("document.querySelectorAll('#examples img[onerror]').length") == 0
    assert (browser.complaints, browser.requests) == ([], [])


def test_the_comparison_in_a_browser(browser, compared):
    browser.open(compared)
    hidden = "document.querySelectorAll('.curve[hidden]').length"
    assert browser.value(hidden) == 0
    browser.click(".legend button")
    assert browser.value(hidden) == 4
    assert browser.value("document.querySelector('.legend button').getAttribute('aria-pressed')") == "false"
    browser.click(".legend button")
    assert browser.value(hidden) == 0
    assert (browser.complaints, browser.requests) == ([], [])
