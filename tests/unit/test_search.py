"""Settings: grids have every combination, samples are reproducible and distributed over their range."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxclf.benchmark.grid import Range, expand_grid, parse_fields, sample_settings
from jaxclf.errors import UserError

RATE = "optimizer.learning_rate"


def test_a_grid_has_every_combination():
    fields = parse_fields(["epochs=1,2", f"{RATE}=1e-3,3e-3", "model.features=16 36"])
    assert list(fields) == ["epochs", "model.features", RATE]
    settings = expand_grid(fields)
    assert len(settings) == 4
    assert {(setting["epochs"], setting[RATE]) for setting in settings} == {
        ("1", "1e-3"), ("1", "3e-3"), ("2", "1e-3"), ("2", "3e-3"),
    }  # fmt: skip
    assert {setting["model.features"] for setting in settings} == {"16 36"}


def test_no_fields_are_one_setting():
    assert expand_grid(parse_fields([])) == [{}]


def test_hyphens_in_field_names_are_accepted():
    assert parse_fields(["optimizer.learning-rate=1"]) == {RATE: ("1",)}


@pytest.mark.parametrize(
    ("word", "message"),
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
def test_invalid_settings_are_refused(word, message):
    with pytest.raises(UserError, match=message):
        parse_fields([word])


def test_a_field_set_twice_is_refused():
    with pytest.raises(UserError, match="epochs is set twice"):
        parse_fields(["epochs=1", "epochs=2"])


def test_a_grid_refuses_ranges_and_sampling_needs_fields():
    with pytest.raises(UserError, match="add --sample N"):
        expand_grid(parse_fields([f"{RATE}=log:1e-4:1e-1"]))
    with pytest.raises(UserError, match="add --set"):
        sample_settings({}, 3, ())
    with pytest.raises(UserError, match="--sample 0"):
        sample_settings(parse_fields(["epochs=1,2"]), 0, ())


def test_samples_are_reproducible_and_larger_ones_extend_smaller_ones():
    fields = parse_fields([f"{RATE}=log:1e-4:1e-1", "epochs=1,2,3"])
    assert sample_settings(fields, 10, ()) == sample_settings(fields, 10, ())
    assert sample_settings(fields, 20, ())[:10] == sample_settings(fields, 10, ())


def test_orders_of_magnitude_are_equally_likely():
    drawn = np.array(
        [float(setting[RATE]) for setting in sample_settings(parse_fields([f"{RATE}=log:1e-4:1e-1"]), 600, ())]
    )
    shares = np.sort(np.log10(drawn) + 4) / 3
    assert np.abs(shares - np.linspace(0, 1, len(shares))).max() < 1.63 / math.sqrt(len(shares))  # Kolmogorov, 1 %


def test_fields_are_sampled_independently():
    settings = sample_settings(parse_fields(["a=linear:0:1", "b=linear:0:1"]), 600, ())
    a, b = np.array([[float(setting[name]) for name in ("a", "b")] for setting in settings]).T
    assert abs(np.corrcoef(a, b)[0, 1]) < 4 / math.sqrt(600)


def test_every_value_of_a_list_is_sampled_once():
    settings = sample_settings(parse_fields(["epochs=1,2,3"]), 60, ())
    assert sorted(setting["epochs"] for setting in settings) == ["1", "2", "3"]


def test_integer_fields_get_integers():
    settings = sample_settings(parse_fields(["model.features=log:16:512"]), 50, {"model.features"})
    drawn = [int(setting["model.features"]) for setting in settings]
    assert min(drawn) >= 16
    assert max(drawn) <= 512
    assert len(set(drawn)) > 30


@given(st.floats(1e-6, 1e3), st.floats(1.001, 1e6), st.floats(0, 1), st.sampled_from(["log", "linear"]))
def test_samples_are_within_their_range(low, factor, fraction, scale):
    high = low * factor
    assert low <= Range(scale, low, high).interpolate(fraction) <= high
