"""Figures show the images they are given, in their places, under the right titles and in the right frames."""

import numpy as np
import PIL.Image
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.colors import to_hex, to_rgb

from jaxclf.figures import (
    RIGHT,
    WRONG,
    PredictedImages,
    plot_confusion_matrix,
    plot_curve_and_mistake,
    plot_explanation_grid,
    plot_explanation_strip,
    plot_gradient_study,
    plot_image_flow,
    plot_image_grid,
    plot_learning_rate_curve,
    plot_one_hot,
    plot_prediction_grid,
    plot_seen_and_unseen,
    plot_training_curves,
    plot_weights,
    save,
    tile,
)
from jaxclf.figures.text import find_font, print_note, shorten_names

NAMES = ("ant", "bee", "cat")
LABELS = np.array([0, 1, 2, 0, 1])
PREDICTIONS = np.array([0, 2, 2, 1, 1])


@pytest.fixture
def images(random):
    return random.integers(0, 256, (5, 4, 3, 1), np.uint8)


@pytest.fixture
def predictions(images):
    return plot_prediction_grid(images, LABELS, PREDICTIONS, NAMES, "Some")


def shown(figure):
    return [axis for axis in figure.axes if axis.images]


def frames(figure):
    return [{to_hex(spine.get_edgecolor()) for spine in axis.spines.values()} for axis in shown(figure)]


@pytest.mark.parametrize("n", [1, 2, 5])
@pytest.mark.parametrize("channels", [1, 3])
def test_each_image_is_shown_once_in_order(random, n, channels):
    images = random.integers(0, 256, (n, 4, 3, channels), np.uint8)
    figure = plot_image_grid(images, title="Some")
    for axis, image in zip(shown(figure), images, strict=True):
        (drawn,) = axis.images
        np.testing.assert_array_equal(drawn.get_array(), image.squeeze())
    assert not any(axis.axison for axis in figure.axes[n:])
    assert figure.get_suptitle() == "Some"


@pytest.mark.parametrize(("dtype", "highest"), [(np.uint8, 255), (np.int32, 255), (np.float32, 1)])
def test_grey_runs_from_black_to_white_over_the_whole_range(dtype, highest):
    (axis,) = shown(plot_image_grid(np.full((1, 2, 2, 1), highest // 2, dtype)))
    assert axis.images[0].get_cmap().name == "gray"
    assert axis.images[0].get_clim() == (0, highest)


def test_titles_and_frames_say_what_is_right_and_what_is_wrong(predictions):
    titles = [axis.get_title() for axis in shown(predictions)]
    assert titles == ["ant", "cat,\ntrue bee", "cat", "bee,\ntrue ant", "bee"]
    assert frames(predictions) == [{RIGHT}, {WRONG}, {RIGHT}, {WRONG}, {RIGHT}]


def test_a_frame_once_red_is_not_red_in_the_next_figure(images, predictions):
    assert {WRONG} in frames(predictions)
    assert frames(plot_prediction_grid(images, LABELS, LABELS, NAMES)) == [{RIGHT}] * 5
    assert all(frame.isdisjoint({RIGHT, WRONG}) for frame in frames(plot_image_grid(images)))


@pytest.mark.parametrize("label", range(3))
def test_a_one_hot_vector_is_beside_its_image(images, label):
    left, right = plot_one_hot(images[0], label, NAMES).axes
    np.testing.assert_array_equal(left.images[0].get_array(), images[0, ..., 0])
    one_hot = [int(i == label) for i in range(3)]
    assert [bar.get_height() for bar in right.patches] == one_hot
    assert (left.get_title(), right.get_title()) == (NAMES[label], str(one_hot))
    assert tuple(text.get_text() for text in right.get_xticklabels()) == NAMES


@settings(deadline=None)
@given(n=st.integers(1, 17), size=st.tuples(*[st.integers(1, 3)] * 3), gap=st.integers(0, 2))
def test_the_tiles_cut_out_again_are_the_images(n, size, gap):
    h, w, c = size
    images = np.arange(1, n * h * w * c + 1, dtype=np.uint16).reshape(n, h, w, c)
    picture = tile(images, gap)
    assert picture.dtype == images.dtype
    padded = np.pad(picture, ((0, gap), (0, gap), (0, 0)))
    rows, columns = padded.shape[0] // (h + gap), padded.shape[1] // (w + gap)
    assert (columns - 1) ** 2 < n <= columns**2 and rows == -(-n // columns)
    tiles = padded.reshape(rows, h + gap, columns, w + gap, c).swapaxes(1, 2)[:, :, :h, :w]
    np.testing.assert_array_equal(tiles.reshape(-1, h, w, c)[:n], images)
    # All else is black.
    assert np.count_nonzero(picture) == images.size


def test_a_saved_figure_is_a_png_with_the_frames_in_it(images, tmp_path):
    path = save(plot_prediction_grid(images, LABELS, LABELS, NAMES), tmp_path / "a.png")
    assert list(tmp_path.iterdir()) == [path]
    with PIL.Image.open(path) as image:
        assert image.format == "PNG"
        colours = np.unique(np.asarray(image.convert("RGB")).reshape(-1, 3), axis=0).tolist()
    assert [round(255 * value) for value in to_rgb(RIGHT)] in colours
    assert [round(255 * value) for value in to_rgb(WRONG)] not in colours


def test_a_figure_that_cannot_be_saved_leaves_the_old_file_alone(predictions, tmp_path):
    path = tmp_path / "a.unknown"
    path.write_text("old")
    with pytest.raises(ValueError, match="unknown"):
        save(predictions, path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_seen_and_unseen_stand_side_by_side(images):
    wrong = np.roll(LABELS, 1)
    figure = plot_seen_and_unseen(
        PredictedImages(images, LABELS, LABELS), PredictedImages(images, LABELS, wrong), NAMES, ("seen", "unseen")
    )
    left, right = figure.subfigs
    assert (left.get_suptitle(), right.get_suptitle()) == ("seen", "unseen")
    assert frames(left) == [{RIGHT}] * 5
    assert frames(right) == [{RIGHT if a == b else WRONG} for a, b in zip(LABELS, wrong, strict=True)]


@pytest.fixture
def study(images, random):
    """Of five images: max grad, then the gradients of two of three classes, of very different sizes."""
    gradients = random.normal(size=(5, 3, 4, 3, 2)) * np.array([1e-6, 1.0, 1e-3])[None, :, None, None, None]
    return gradients, plot_gradient_study(images, LABELS, PREDICTIONS, gradients, [0, 2], NAMES)


def test_a_study_shows_every_gradient_in_its_place(images, study):
    gradients, figure = study
    axes = np.array(figure.axes).reshape(5, 4)
    for row, image, of_image in zip(axes, images, gradients, strict=True):
        np.testing.assert_array_equal(row[0].images[0].get_array(), image[..., 0])
        for axis, values in zip(row[1:], of_image, strict=True):
            np.testing.assert_allclose(axis.images[0].get_array(), values.sum(axis=-1))
    assert [axis.get_title() for axis in axes[0]] == ["image", "max grad", "ant", "cat"]
    assert [row[0].get_ylabel() for row in axes] == ["ant", "bee", "cat", "ant", "bee"]


def test_classes_of_a_study_share_a_scale_a_row_centred_at_zero(study):
    gradients, figure = study
    for row, of_image in zip(np.array(figure.axes).reshape(5, 4), gradients.sum(axis=-1), strict=True):
        limits = [axis.images[0].get_clim() for axis in row[1:]]
        assert all(-low == high for low, high in limits)
        assert limits[1] == limits[2] != limits[0]
        assert limits[0][1] == pytest.approx(np.percentile(np.abs(of_image[0]), 99))
        assert limits[1][1] == pytest.approx(np.percentile(np.abs(of_image[1:]), 99))
        assert float(row[-1].get_ylabel().removeprefix("±")) == pytest.approx(limits[1][1], rel=0.05)


def test_the_class_found_is_framed_in_a_study(study):
    """In the five rows: ant found rightly, cat wrongly, cat rightly, bee, which is not shown, and bee again."""
    found = [[RIGHT], [None, WRONG], [None, RIGHT], [], []]
    axes = np.array(study[1].axes).reshape(5, 4)
    for row, colors in zip(axes, found, strict=True):
        edges = [{to_hex(spine.get_edgecolor()) for spine in axis.spines.values()} for axis in row[2:]]
        for edge, color in zip(edges, [*colors, None, None], strict=False):
            assert edge == {color or "#000000"}


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([[-1.0, 0.5], [0.0, 0.0]], (-1, 1)),
        ([[0.0, 0.0], [0.0, 0.0]], (-1, 1)),
        ([[-3.0, -3.0], [-3.0, -3.0]], (-3, 3)),
        ([[3.0, 3.0], [3.0, 3.0]], (-3, 3)),
        ([[0.0, 2.0], [0.0, 0.0]], (-2, 2)),
        ([[2.0, 2.0], [2.5, 3.0]], (1, 3)),
    ],
    ids=["signed", "zeros", "constant below", "constant above", "not negative", "above zero"],
)
def test_white_is_zero_or_the_least_value_above_it(images, values, expected):
    figure = plot_explanation_grid(images[:1], LABELS[:1], LABELS[:1], {"a": np.array(values)[None, ..., None]}, NAMES)
    (drawn,) = figure.axes[1].images
    assert drawn.get_clim() == pytest.approx(expected, rel=0.05)
    assert np.isfinite(drawn.norm(drawn.get_array())).all()


def test_colours_end_before_a_single_large_value(images):
    values = np.ones((1, 30, 30, 1)) * np.where(np.arange(30) % 2, 1, -1)[None, :, None, None]
    values[0, 0, 0] = 1_000
    figure = plot_explanation_grid(images[:1], LABELS[:1], LABELS[:1], {"a": values}, NAMES)
    assert figure.axes[1].images[0].get_clim() == (-1, 1)


def test_a_grid_of_explanations_has_a_column_a_method_and_enlarges_small_maps(images, random):
    maps = {"gradient": random.normal(size=(5, 4, 3, 3)), "grad-cam-plus-plus": random.normal(size=(5, 2, 2, 1))}
    figure = plot_explanation_grid(images, LABELS, PREDICTIONS, maps, NAMES)
    axes = np.array(figure.axes).reshape(5, 3)
    assert [axis.get_title() for axis in axes[0]] == ["image", "gradient", "grad-cam-\nplus-plus"]
    assert [row[0].get_ylabel() for row in axes] == ["ant", "cat,\ntrue bee", "cat", "bee,\ntrue ant", "bee"]
    for i, row in enumerate(axes):
        np.testing.assert_allclose(row[1].images[0].get_array(), maps["gradient"][i].sum(axis=-1))
        np.testing.assert_array_equal(row[2].images[0].get_array(), maps["grad-cam-plus-plus"][i, ..., 0])
        assert {tuple(axis.images[0].get_extent()) for axis in row} == {(-0.5, 2.5, 3.5, -0.5)}
        assert [axis.images[0].get_interpolation() for axis in row[1:]] == ["nearest", "bilinear"]
    assert frames(figure)[::3] == [{RIGHT}, {WRONG}, {RIGHT}, {WRONG}, {RIGHT}]


def test_a_strip_has_each_map_under_its_image(images, random):
    maps = random.normal(size=(5, 4, 3, 1))
    figure = plot_explanation_strip(images, maps, "gradient")
    above, below = np.array(figure.axes).reshape(2, 5)
    for i in range(5):
        np.testing.assert_array_equal(above[i].images[0].get_array(), images[i, ..., 0])
        np.testing.assert_array_equal(below[i].images[0].get_array(), maps[i, ..., 0])
    assert figure.get_suptitle() == "gradient"


def test_a_learning_rate_curve_shows_every_loss_and_marks_two_rates():
    rates, losses = np.geomspace(1e-4, 1, 9), np.array([2.0, 2.1, 1.9, 1.5, 1.0, 0.9, 1.1, 4.0, 9.0])
    figure = plot_learning_rate_curve(rates, losses, losses + 0.1, {"steep": 0.01, "high": 0.1}, "Some $title")
    (axis,) = figure.axes
    points, line, *marks = axis.lines
    for drawn, expected in ((points, losses), (line, losses + 0.1)):
        np.testing.assert_array_equal(drawn.get_xdata(), rates)
        np.testing.assert_array_equal(drawn.get_ydata(), expected)
    assert [mark.get_xdata()[0] for mark in marks] == [0.01, 0.1]
    assert [text.get_text() for text in axis.get_legend().get_texts()][2:] == ["steep: 0.01", "high: 0.1"]
    assert (axis.get_xscale(), axis.get_title()) == ("log", "Some $title")
    assert axis.get_ylim()[1] < 4  # what diverges leaves the picture


ROWS = [
    {"epoch": 0.5, "split": "train", "period": "interval", "loss": 2.0, "accuracy": 0.4},
    {"epoch": 1.0, "split": "train", "period": "interval", "loss": None, "accuracy": 0.5},
    {"epoch": 1, "split": "train", "period": "epoch", "loss": 1.5, "accuracy": 0.45},
    {"epoch": 1, "split": "validation", "period": "epoch", "loss": 1.0, "accuracy": 0.6},
    {"epoch": 2, "split": "validation", "period": "epoch", "loss": 0.5},
    {"epoch": 2, "split": "test", "period": "epoch", "loss": 0.7, "accuracy": 0.8},
]


def curves_of(axis):
    return {line.get_label(): list(zip(line.get_xdata(), line.get_ydata(), strict=True)) for line in axis.lines}


def test_curves_show_every_number_there_is_of_each_split():
    accuracy, loss = plot_training_curves(ROWS, "Some").axes
    assert (accuracy.get_ylabel(), loss.get_ylabel(), loss.get_xlabel()) == ("accuracy", "loss", "epoch")
    assert curves_of(accuracy) == {
        "training, running": [(0.5, 0.4), (1.0, 0.5)], "validation": [(1, 0.6)], "test": [(2, 0.8)],
    }  # fmt: skip
    assert curves_of(loss) == {
        "training, running": [(0.5, 2.0)],
        "validation": [(1, 1.0), (2, 0.5)],
        "test": [(2, 0.7)],
    }
    styles = [(to_hex(line.get_color()), line.get_marker()) for line in accuracy.lines]
    assert len(set(styles)) == len(styles)
    assert [text.get_text() for text in accuracy.get_legend().get_texts()] == list(curves_of(accuracy))
    assert not any(axis.lines for axis in plot_training_curves([]).axes)


def test_the_curve_stands_beside_the_mistake_with_both_labels(images):
    figure = plot_curve_and_mistake(ROWS, images[1], "cat", "bee")
    left, right = figure.axes
    assert "validation" in curves_of(left)
    np.testing.assert_array_equal(right.images[0].get_array(), images[1, ..., 0])
    assert right.get_title() == "predicted cat,\ntrue bee"
    assert frames(figure) == [{WRONG}]


def test_a_confusion_has_each_count_in_its_square_and_rows_that_are_true():
    matrix = np.array([[8, 2, 0], [0, 0, 0], [1, 0, 1_999]])
    (axis,) = plot_confusion_matrix(matrix, NAMES, "Some").axes
    texts = {(int(text.get_position()[1]), int(text.get_position()[0])): text.get_text() for text in axis.texts}
    assert texts == {(0, 0): "8", (0, 1): "2", (2, 0): "1", (2, 2): "1,999"}
    shades = np.asarray(axis.images[0].get_array())
    assert shades[0, 0] == pytest.approx(0.8)
    assert (shades[[0, 2], [1, 0]] < 0).all()
    assert shades[0, 1] == shades.min()
    assert (axis.get_ylabel(), axis.get_xlabel()) == ("true", "predicted")
    assert [label.get_text() for label in axis.get_yticklabels()] == list(NAMES)


def test_a_confusion_of_many_classes_has_no_counts():
    (axis,) = plot_confusion_matrix(np.eye(30, dtype=int), [f"class {i}" for i in range(30)]).axes
    assert not axis.texts


def test_weights_are_an_image_a_class_on_one_scale_centred_at_zero(random):
    weights = random.normal(size=(28, 27, 2, 10))
    figure = plot_weights(weights, [str(i) for i in range(10)])
    assert "10 classes, [28, 27] each" in figure.get_suptitle()
    assert len(shown(figure)) == 10
    for i, axis in enumerate(shown(figure)):
        np.testing.assert_allclose(axis.images[0].get_array(), weights[..., i].sum(axis=2))
        assert axis.get_title() == str(i)
    ((low, high),) = {axis.images[0].get_clim() for axis in shown(figure)}
    assert -low == high > 0


def test_the_flow_shows_each_filter_and_each_map_of_each_convolution(images, random):
    filters = {"conv1": random.normal(size=(5, 5, 1, 16)), "conv2": random.normal(size=(5, 5, 16, 70))}
    maps = {"conv1": random.normal(size=(28, 28, 16)), "conv2": random.normal(size=(14, 14, 70))}
    figure = plot_image_flow(images[0], filters, maps)
    first, *rest = shown(figure)
    np.testing.assert_array_equal(first.images[0].get_array(), images[0, ..., 0])
    stacks = (filters["conv1"][:, :, 0], maps["conv1"], filters["conv2"][:, :, 0, :64], maps["conv2"][..., :64])
    for axis, stack in zip(rest, stacks, strict=True):
        size, columns = stack.shape[0], round(stack.shape[2] ** 0.5)
        grid = axis.images[0].get_array()
        gap = (len(grid) - columns * size) // (columns - 1)
        for i in range(stack.shape[2]):
            y, x = i // columns * (size + gap), i % columns * (size + gap)
            np.testing.assert_array_equal(grid[y : y + size, x : x + size], stack[..., i])
        assert grid.mask.sum() == grid.size - stack.size  # what is between the maps is not drawn
        low, high = axis.images[0].get_clim()
        assert -low == high


def test_long_names_are_shortened_in_the_middle(images):
    name = "first" + 200 * "x" + "last"
    assert shorten_names([name, "dog"]) == ["firstxxxxxx…xxxxxxxlast", "dog"]
    figure = plot_prediction_grid(images[:2], np.array([0, 1]), np.array([1, 1]), [name, "dog"])
    assert [axis.get_title() for axis in shown(figure)] == ["dog,\ntrue firstxxxxxx…xxxxxxxlast", "dog"]


def test_names_are_drawn_in_a_font_that_has_their_characters(images, tmp_path, capsys):
    """Case F18: matplotlib's own STIX has one that DejaVu lacks; none here has one of a plane that nobody uses."""
    print_note.cache_clear()
    named, unnamed = "a\u1d81", "b\U000e0fff"
    assert find_font("\u1d81") is not None
    assert find_font("\U000e0fff") is None
    figure = plot_prediction_grid(images[:2], np.array([0, 1]), np.array([0, 1]), [named, unnamed])
    for i in range(2):
        save(figure, tmp_path / f"{i}.png")  # warnings are errors
    first, second = shown(figure)
    assert find_font("\u1d81") in first.title.get_fontfamily()
    assert first.get_title() == named
    assert second.get_title() == "b\N{REPLACEMENT CHARACTER}"
    assert capsys.readouterr().err.count("no installed font has all characters") == 1
