"""Weight files: arrays are exact, and all other content is refused by name."""

import hashlib
import json
import pickle
import struct
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save
from support.arrays import read_arrays
from support.weight_files import (
    DATA,
    FORMATS,
    VALUES,
    integer,
    load,
    make_legacy,
    make_safetensors,
    make_zip,
    mapping,
    read,
    refuse,
    storage,
    string,
    tensor,
)

from jaxclf.errors import UserError
from jaxclf.pretrained.readers import read_weights

FIXTURES = Path(__file__).parents[1] / "fixtures"


@pytest.mark.parametrize("file", ["torch_zip.pth", "torch_legacy.pth"])
def test_arrays_are_those_that_pytorch_wrote(file):
    weights = read_weights(FIXTURES / file)
    expected = read_arrays(FIXTURES / "torch_files.npz")
    assert weights.arrays.keys() == expected.keys()
    for name, array in weights.arrays.items():
        assert array.dtype == (ml_dtypes.bfloat16 if name == "bfloat16" else expected[name].dtype)
        assert (array.flags.writeable, array.flags.aligned, array.dtype.isnative) == (False, True, True)
        np.testing.assert_array_equal(array.astype(expected[name].dtype), expected[name], strict=True)
    assert np.shares_memory(weights.arrays["table"], weights.arrays["transposed"])
    assert weights.sha256 == hashlib.sha256((FIXTURES / file).read_bytes()).hexdigest()


def test_a_zip_of_a_big_endian_computer_is_swapped():
    arrays = read(make_zip(mapping(x=tensor()), VALUES.byteswap().tobytes(), byteorder="big")).arrays
    np.testing.assert_array_equal(arrays["x"], VALUES, strict=True)
    refuse(make_zip(mapping(x=tensor()), byteorder="middle"), "byte order")
    refuse(make_legacy(mapping(x=tensor()), system={"little_endian": False}), "big-endian")


def test_arrays_of_safetensors_are_exact(random):
    arrays = {"a.b": random.normal(size=(2, 3)), "c": np.arange(3), "d": np.float16(random.normal(size=(0, 4)))}
    found = read(save(arrays)).arrays
    assert found.keys() == arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array, strict=True)
        assert not found[name].flags.writeable


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [("BF16", ml_dtypes.bfloat16), ("F8_E4M3", ml_dtypes.float8_e4m3fn), ("F8_E5M2", ml_dtypes.float8_e5m2)],
)
@pytest.mark.parametrize("header", [{}, {"__metadata__": {"padding": "xy"}}])  # one of them is not aligned
def test_types_that_numpy_does_not_have_are_read_from_safetensors(kind, dtype, header):
    values = VALUES.astype(dtype).reshape(2, 3)
    array = read(make_safetensors(kind, [2, 3], values.tobytes(), **header)).arrays["x"]
    np.testing.assert_array_equal(array, values, strict=True)
    assert array.flags.aligned


@pytest.mark.parametrize("size", [123, 128])  # 123 is the code of a brace, with which JSON starts
def test_safetensors_are_recognized_whatever_the_size_of_the_header(size):
    content = make_safetensors("F32", [6], DATA)
    header = content[8 : -VALUES.nbytes].ljust(size)
    np.testing.assert_array_equal(read(struct.pack("<Q", size) + header + DATA).arrays["x"], VALUES)


def write_shards(directory, **changes):
    """Two shards with a tensor each, and an index; `changes` are entries of its map."""
    for name in "ab":
        (directory / f"{name}.safetensors").write_bytes(save({name: VALUES}))
    names = {"a": "a.safetensors", "b": "b.safetensors"} | changes
    path = directory / "model.safetensors.index.json"
    path.write_text(json.dumps({"metadata": {}, "weight_map": names}))
    return path


def test_shards_are_read_together_and_have_one_digest(tmp_path):
    path = write_shards(tmp_path)
    weights = read_weights(path)
    assert weights.arrays.keys() == {"a", "b"}
    files = [path, tmp_path / "a.safetensors", tmp_path / "b.safetensors"]
    lines = [f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.name}\n" for file in files]
    assert weights.sha256 == hashlib.sha256("".join(lines).encode()).hexdigest()


@pytest.mark.parametrize(
    "name", ["../a.safetensors", "/a.safetensors", "x\\a.safetensors", "..", 3, ["a"], "a\n", "c:a"]
)
def test_shards_are_files_beside_their_index(tmp_path, name):
    with pytest.raises(UserError, match="plain names"):
        read_weights(write_shards(tmp_path, b=name))


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"c": "c.safetensors"}, "c.safetensors is missing"),
        ({"c": "b.safetensors"}, "b.safetensors does not have c"),
        ({"b": "a.safetensors"}, "a.safetensors does not have b"),
        ({"c": "model.safetensors.index.json"}, "is not safetensors"),
    ],
)
def test_an_index_and_its_shards_must_agree(tmp_path, changes, match):
    with pytest.raises(UserError, match=match):
        read_weights(write_shards(tmp_path, **changes))


def test_a_shard_has_no_tensors_that_the_index_does_not_list(tmp_path):
    path = write_shards(tmp_path)
    (tmp_path / "a.safetensors").write_bytes(save({"a": VALUES, "z": VALUES}))
    with pytest.raises(UserError, match="has, against the index, z"):
        read_weights(path)


@pytest.mark.parametrize(
    "state",
    [
        mapping(x=tensor(), y=tensor()),
        mapping(**{"module.x": tensor(), "module.y": tensor()}),
        *(mapping(**{key: mapping(x=tensor(), y=tensor()), "epoch": integer(3)}) for key in ("state_dict", "model")),
        mapping(model_state_dict=mapping(x=tensor(), y=tensor()), model_ema=mapping(z=tensor()), best=tensor()),
        load("collections", "OrderedDict") + b")R(" + string("x") + tensor() + string("y") + tensor() + b"u}b",
        load("collections", "OrderedDict")
        + b"](]("
        + string("x")
        + tensor()
        + b"e]("
        + string("y")
        + tensor()
        + b"ee\x85R",
    ],
    ids=["plain", "data parallel", "state_dict", "model", "with averages", "ordered dict", "of Python 2"],
)
@FORMATS
def test_the_state_dict_is_found(make, state):
    arrays = read(make(state)).arrays
    assert list(arrays) == ["x", "y"]
    np.testing.assert_array_equal(arrays["y"], VALUES, strict=True)


@pytest.mark.parametrize(
    ("state", "match"),
    [
        (mapping(model=mapping(x=tensor()), state_dict=mapping(x=tensor())), "several state dicts: state_dict, model"),
        (mapping(x=tensor(), epoch=integer(3)), "entry epoch is not a tensor but of type int"),
        (mapping(model=mapping(x=tensor(), lr=b"N")), "entry lr is not a tensor"),
        (mapping(a=mapping(x=tensor(), y=storage())), "entry a.y is not a tensor but of type Storage"),
        (mapping(a=mapping(x=tensor()), **{"a.x": tensor()}), "two tensors with the name a.x"),
        (b"}" + integer(1) + tensor() + b"s", "the name 1 of an entry"),
        (mapping(**{"x\n": tensor()}), "the name 'x.*' of an entry"),
        (mapping(model=b"}", x=tensor()), "no tensors"),
        (b"}", "no tensors"),
        (b"]" + tensor() + b"a", "a list, expected a dict"),
        (tensor(), "a Tensor, expected a dict"),
    ],
)
def test_anything_but_one_state_dict_is_refused(state, match):
    refuse(make_zip(state), match)


def test_names_of_nested_dicts_are_joined():
    state = mapping(a=mapping(b=mapping(x=tensor()), y=tensor()), z=tensor())
    assert list(read(make_zip(state)).arrays) == ["a.b.x", "a.y", "z"]


def test_views_are_taken_by_offset_and_strides():
    array = read(make_zip(mapping(x=tensor(offset=1, shape=(2, 2), strides=(1, 3))))).arrays["x"]
    np.testing.assert_array_equal(array, VALUES[[[1, 4], [2, 5]]])


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"", "empty"),
        (b"\x89HDF\r\n\x1a\n", "HDF5"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS"),
        (b"<!DOCTYPE html>", "HTML"),
        (pickle.dumps({"x": 1}), "a pickle, but not of PyTorch"),
        (bytes(257) + b"ustar" + bytes(300), "a tar file, .* before 2017"),
        (make_zip(b"}", **{"code/x.py": b""}), "TorchScript"),
        (b"{}", "not an index"),
        (b"[" * 10**5, "unknown format"),
        (b'{"weight_map":' + b"[" * 10**5, "not an index"),
        (make_safetensors("C64", [3], DATA), "x has type C64, which is not supported"),
        (make_safetensors("F32", [7], DATA), "damaged"),
        (make_safetensors("F32", [2**62, 2**62], DATA), "damaged"),
        (make_safetensors("F32", [0, 2**62], b""), "does not fit"),
        (make_safetensors("F32", [6], DATA)[:-1], "damaged"),
        (save({}), "no tensors"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_other_files_are_named(content, match):
    refuse(content, match)


def test_paths_without_a_weight_file_say_what_to_give(tmp_path):
    with pytest.raises(UserError, match="No such file"):
        read_weights(tmp_path / "missing.pth")
    with pytest.raises(UserError, match="directory without weight files"):
        read_weights(str(tmp_path))
    write_shards(tmp_path)
    with pytest.raises(UserError, match=r"such as model.safetensors.index.json$"):
        read_weights(tmp_path)
