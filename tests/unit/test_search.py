"""Settings: grids hold every combination, draws are reproducible and spread over their range."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxclf.benchmark.grid import Range, draw, grid, read_fields
from jaxclf.errors import UserError

RATE = "optimizer.learning_rate"


def test_a_grid_is_every_combination_by_field():
    fields = read_fields(["epochs=1,2", f"{RATE}=1e-3,3e-3", "model.features=16 36"])
    assert list(fields) == ["epochs", "model.features", RATE]
    settings = grid(fields)
    assert len(settings) == 4
    assert {(setting["epochs"], setting[RATE]) for setting in settings} == {
        ("1", "1e-3"), ("1", "3e-3"), ("2", "1e-3"), ("2", "3e-3"),
    }  # fmt: skip
    assert {setting["model.features"] for setting in settings} == {"16 36"}


def test_nothing_set_is_one_setting():
    assert grid(read_fields([])) == [{}]


def test_hyphens_are_those_of_the_command_line():
    assert read_fields(["optimizer.learning-rate=1"]) == {RATE: ("1",)}


@pytest.mark.parametrize(
    ("word", "answer"),
    [
        ("epochs", "expected field=value"),
        ("=3", "expected field=value"),
        ("epochs=", "expected field=value"),
        ("epochs=1,,2", "expected field=value"),
        ("seed=1", "add --seeds N"),
        (f"{RATE}=log:0:1", "expected log:low:high with 0 < low < high"),
        (f"{RATE}=log:2:1", "expected log:low:high"),
        (f"{RATE}=linear:1:1", "expected linear:low:high"),
        (f"{RATE}=log:a:1", "are not two numbers"),
        (f"{RATE}=linear:nan:1", "expected linear:low:high"),
    ],
)
def test_what_is_no_setting_is_refused(word, answer):
    with pytest.raises(UserError, match=answer):
        read_fields([word])


def test_a_field_set_twice_is_refused():
    with pytest.raises(UserError, match="epochs is set twice"):
        read_fields(["epochs=1", "epochs=2"])


def test_a_grid_has_no_ranges_and_a_draw_needs_fields():
    with pytest.raises(UserError, match="add --sample N"):
        grid(read_fields([f"{RATE}=log:1e-4:1e-1"]))
    with pytest.raises(UserError, match="add --set"):
        draw({}, 3, ())
    with pytest.raises(UserError, match="--sample 0"):
        draw(read_fields(["epochs=1,2"]), 0, ())


def test_draws_are_the_same_every_time_and_more_go_on_from_fewer():
    fields = read_fields([f"{RATE}=log:1e-4:1e-1", "epochs=1,2,3"])
    assert draw(fields, 10, ()) == draw(fields, 10, ())
    assert draw(fields, 20, ())[:10] == draw(fields, 10, ())


def test_orders_of_magnitude_are_equally_likely():
    drawn = np.array([float(setting[RATE]) for setting in draw(read_fields([f"{RATE}=log:1e-4:1e-1"]), 600, ())])
    shares = np.sort(np.log10(drawn) + 4) / 3
    assert np.abs(shares - np.linspace(0, 1, len(shares))).max() < 1.63 / math.sqrt(len(shares))  # Kolmogorov, 1 %


def test_fields_are_drawn_independently():
    settings = draw(read_fields(["a=linear:0:1", "b=linear:0:1"]), 600, ())
    a, b = np.array([[float(setting[name]) for name in ("a", "b")] for setting in settings]).T
    assert abs(np.corrcoef(a, b)[0, 1]) < 4 / math.sqrt(600)


def test_every_value_of_a_list_is_drawn_and_none_twice():
    settings = draw(read_fields(["epochs=1,2,3"]), 60, ())
    assert sorted(setting["epochs"] for setting in settings) == ["1", "2", "3"]


def test_whole_numbers_are_whole():
    settings = draw(read_fields(["model.features=log:16:512"]), 50, {"model.features"})
    drawn = [int(setting["model.features"]) for setting in settings]
    assert min(drawn) >= 16
    assert max(drawn) <= 512
    assert len(set(drawn)) > 30


@given(st.floats(1e-6, 1e3), st.floats(1.001, 1e6), st.floats(0, 1), st.sampled_from(["log", "linear"]))
def test_what_is_drawn_is_within_its_range(low, factor, share, scale):
    high = low * factor
    assert low <= Range(scale, low, high).at(share) <= high
