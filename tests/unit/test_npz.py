"""Files of arrays that are written as they are computed."""

import numpy as np
import pytest
from support.arrays import read_arrays

from jaxclf.io.npz import open_npz_writer


def test_arrays_grow_side_by_side_and_are_read_as_any_npz(tmp_path, random):
    expected = {
        "a.values": random.normal(size=(7, 3, 2)).astype(np.float32),
        "b": np.arange(7),
        "c": np.asfortranarray(random.normal(size=(7, 4))),
    }
    with open_npz_writer(tmp_path / "x.npz", 7) as append:
        for start, stop in ((0, 1), (1, 4), (4, 7)):
            append({name: array[start:stop] for name, array in expected.items()})
    assert [path.name for path in tmp_path.iterdir()] == ["x.npz"]
    found = read_arrays(tmp_path / "x.npz")
    assert set(found) == set(expected)
    for name, array in expected.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)


def test_a_file_that_is_not_finished_leaves_the_old_one_alone(tmp_path):
    np.savez(tmp_path / "x.npz", old=np.arange(3))
    with pytest.raises(RuntimeError), open_npz_writer(tmp_path / "x.npz", 2) as append:
        append({"new": np.arange(1)})
        raise RuntimeError
    assert [path.name for path in tmp_path.iterdir()] == ["x.npz"]
    assert set(read_arrays(tmp_path / "x.npz")) == {"old"}
