"""Weight files: arrays are exact, all other content is refused by name, and nothing in a file is run."""

import hashlib
import io
import json
import pickle
import struct
import tempfile
import tracemalloc
import zipfile
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save
from support.arrays import read_arrays

from jaxclf.errors import UserError
from jaxclf.pretrained.readers import read_weights, unpickling
from jaxclf.pretrained.readers.legacy import MAGIC

FIXTURES = Path(__file__).parents[1] / "fixtures"
VALUES = np.arange(6, dtype=np.float32)
DATA = VALUES.tobytes()


def string(text):
    return b"X" + struct.pack("<I", len(text)) + text.encode()


def integer(value):
    return pickle.dumps(value, 2)[2:-1]


def numbers(*values):
    return b"(" + b"".join(map(integer, values)) + b"t"


def load(module, name):
    return f"c{module}\n{name}\n".encode()


def storage(kind="FloatStorage", key="0", size=6):
    return b"(" + string("storage") + load("torch", kind) + string(key) + string("cpu") + integer(size) + b"tQ"


def tensor(source=None, offset=0, shape=(6,), strides=(1,)):
    """The pickled call that rebuilds a tensor, without the fields that do not matter."""
    arguments = (source or storage()) + integer(offset) + numbers(*shape) + numbers(*strides)
    return load("torch._utils", "_rebuild_tensor_v2") + b"(" + arguments + b"\x89NtR"


def mapping(**items):
    """A pickled dict of pickled values."""
    return b"}(" + b"".join(string(key) + value for key, value in items.items()) + b"u"


def make_zip(state, data=DATA, **entries):
    """A PyTorch file in the zip format with one storage."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in {"data.pkl": b"\x80\2" + state + b".", "data/0": data, **entries}.items():
            archive.writestr(f"archive/{name}", content)
    return file.getvalue()


def make_legacy(state, data=DATA, count=6, system=None):
    """A PyTorch file in the legacy format with one storage."""
    header = [pickle.dumps(value, 2) for value in (MAGIC, 1001, system or {"little_endian": True})]
    return b"".join([*header, b"\x80\2" + state + b".", pickle.dumps(["0"], 2), struct.pack("<q", count), data])


def make_safetensors(kind, shape, data, **more):
    header = json.dumps({"x": {"dtype": kind, "shape": shape, "data_offsets": [0, len(data)]}, **more}).encode()
    return struct.pack("<Q", len(header)) + header + data


def read(content):
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "some-weights"
        path.write_bytes(content)
        return read_weights(path)


def read_or_refuse(content):
    """The copied arrays, or None where the file was refused by its name in a few lines."""
    try:
        return {name: array.copy() for name, array in read(content).arrays.items()}
    except UserError as error:
        assert "some-weights" in str(error)
        assert len(str(error)) < 1000
        return None


def refuse(content, match):
    with pytest.raises(UserError, match=match):
        read(content)


FORMATS = pytest.mark.parametrize("make", [make_zip, make_legacy], ids=["zip", "legacy"])


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


def call(module, name, argument):
    return load(module, name) + string(argument) + b"\x85R"


def call_by_stack(module, name, argument):
    return b"\x80\4" + string(module) + string(name) + b"\x93" + string(argument) + b"\x85R"


def call_by_instance(module, name, argument):
    return b"(" + string(argument) + f"i{module}\n{name}\n".encode()


def call_by_object(module, name, argument):
    return b"(" + load(module, name) + string(argument) + b"o"


@pytest.mark.parametrize("way", [call, call_by_stack, call_by_instance, call_by_object])
@pytest.mark.parametrize(
    ("module", "name", "argument"),
    [
        ("os", "mkdir", "{}"),
        ("os", "system", "mkdir {}"),
        ("builtins", "eval", "__import__('os').mkdir('{}')"),
    ],
)
def test_a_program_in_a_file_is_not_run(tmp_path, way, module, name, argument):
    mark = tmp_path / "mark"
    program = way(module, name, argument.format(mark))
    pickle.loads(b"\x80\2" + program + b".")
    mark.rmdir()  # so it is a program, for Python
    pickles = [program, mapping(x=tensor(), y=program), program + b"0" + mapping(x=tensor())]
    legacy = make_legacy(mapping(x=tensor()))
    middles = [legacy.replace(pickle.dumps(old, 2), b"\x80\2" + program + b".") for old in (1001, ["0"])]
    match = f"{module}.{name} is not allowed" if way in (call, call_by_stack, call_by_object) else "INST is not allowed"
    for content in [*map(make_zip, pickles), *map(make_legacy, pickles), *middles]:
        assert program in content
        refuse(content, match)
        assert not mark.exists()


@pytest.mark.parametrize(
    ("state", "match"),
    [
        (b"c__main__\nA\n}" + string("x") + integer(1) + b"sb", "__main__.A is not allowed"),
        (load("torch", "FloatStorage") + b"}b", "setting attributes of StorageType is not allowed"),
        (b"}}b", "setting attributes of dict is not allowed"),
        (tensor() + b"}b", "setting attributes of Tensor is not allowed"),
        (load("torch", "FloatStorage") + b")R", "calling StorageType is not allowed"),
        (load("torch", "FloatStorage") + b")\x81", "NEWOBJ is not allowed"),
        (load("torch", "os.system") + string("x") + b"\x85R", "torch.os.system is not allowed"),
        (b"\x82\1", "EXT1 is not allowed"),
        (b"Px\n", "PERSID is not allowed"),
        (b"(" + string("module") + load("torch", "Size") + string("x") + b"NtQ", "refers to something"),
        (integer(3) + b"Q", "refers to something"),
        (mapping(x=tensor(storage("QInt8Storage"))), r"quantized tensors \(torch.QInt8Storage\)"),
        (load("torch._utils", "_rebuild_qtensor"), "quantized tensors"),
        (load("torch._utils", "_rebuild_sparse_tensor"), "sparse tensors"),
        (mapping(x=tensor(storage("ComplexFloatStorage"))), "complex tensors"),
        (
            load("torch._utils", "_rebuild_tensor_v3") + b"(NNNNNN" + load("torch", "float8_e5m2") + b"tR",
            "of float8_e5m2",
        ),
        (load("a" * 10**6, "b"), "a{100}[.]{3} is not allowed"),
    ],
)
@FORMATS
def test_what_is_not_a_plain_tensor_is_refused_by_its_name(make, state, match):
    refuse(make(state), match)


@pytest.mark.parametrize(
    ("match", "source", "options"),
    [
        ("storage 0", storage(size=7), {}),
        ("storage 0", storage(size=2**42), {}),
        ("not a storage", storage(size=-1), {}),
        ("storage 0", storage(kind="DoubleStorage"), {}),
        ("needs more than the 6", None, {"shape": (7,)}),
        ("needs more than the 6", None, {"shape": (2**42,), "strides": (0,)}),
        ("more or fewer strides", None, {"shape": (2**62, 2**62)}),
        ("does not fit", None, {"shape": (0, 2**62), "strides": (1, 1)}),
        ("needs more than the 6", None, {"shape": (3, 3), "strides": (1, 1)}),
        ("needs more than the 6", None, {"shape": (2, 3), "strides": (4, 1)}),
        ("needs more than the 6", None, {"offset": 1}),
        ("is negative", None, {"offset": -1, "shape": (1,)}),
        ("is negative", None, {"offset": 5, "strides": (-1,)}),
        ("more or fewer strides", None, {"shape": (2, 3)}),
        ("more than 64 axes", None, {"shape": (1,) * 65, "strides": (1,) * 65}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
@FORMATS
def test_sizes_are_checked_before_memory_is_used(make, match, source, options):
    content = make(mapping(x=tensor(source, **options)))
    tracemalloc.start()
    refuse(content, match)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**22


def test_a_storage_of_the_legacy_format_has_the_size_that_its_tensors_say():
    refuse(make_legacy(mapping(x=tensor()), count=5), "storage 0 has 5 elements, not 6")


def test_views_are_taken_by_offset_and_strides():
    array = read(make_zip(mapping(x=tensor(offset=1, shape=(2, 2), strides=(1, 3))))).arrays["x"]
    np.testing.assert_array_equal(array, VALUES[[[1, 4], [2, 5]]])


def nest(start, step, depth=5_000):
    return start + step * depth


@pytest.mark.parametrize(
    ("state", "match"),
    [
        (nest(b")", b"\x85"), "a tuple, expected"),
        (b"]" * 5_000 + b"a" * 4_999, "a list, expected"),
        (b"}" + nest(b")", b"\x85") + b"Ns", "a dict key of type tuple is not allowed"),
        ((b"}" + string("a")) * 1000 + b"}" + b"s" * 1000, "nested 32 deep"),
        (b"}q\0" + string("a") + b"h\0s", "one is there twice"),
        (b"]q\0h\0a", "a list, expected"),
        (
            b"}q\0"
            + b"".join(
                b"}" + b"".join(string(k) + b"h" + bytes([i]) + b"s" for k in "ab") + b"q" + bytes([i + 1])
                for i in range(30)
            ),
            "one is there twice",
        ),
        (integer(2**81), "integer of more than 80 bits"),
        (b"}" + integer(2**70) + b"Ns", "a dict key of type int"),
        (b"Np" + b"9" * 4000 + b"\n", "damaged"),
        (b"N" * 1001, "more than 1000 instructions"),
    ],
    ids=[
        "tuples",
        "lists",
        "key",
        "dicts",
        "cycle",
        "list cycle",
        "doubling",
        "integer",
        "long key",
        "memo",
        "instructions",
    ],
)
def test_what_grows_within_a_pickle_is_bounded(monkeypatch, request, state, match):
    if "instructions" in request.node.name:
        monkeypatch.setattr(unpickling, "INSTRUCTIONS", 1000)
    refuse(make_zip(state), match)


def test_a_list_becomes_one_ordered_dict():  # many of a long one would take the square of its size
    pairs = b"](](" + string("x") + tensor() + b"eeq\0"
    first = load("collections", "OrderedDict") + pairs + b"\x85R"
    assert list(read(make_zip(mapping(a=first))).arrays) == ["a.x"]
    second = load("collections", "OrderedDict") + b"h\0\x85R"
    refuse(make_zip(mapping(a=first, b=second)), "OrderedDict made of other things than pairs")


def patch_directory(content, name, **changes):
    """Change fields of an entry in the directory of a zip file."""
    start = content.rindex(b"PK\1\2", 0, content.rindex(name))
    fields = list(struct.unpack_from("<4s6H3I5H2I", content, start))
    for key, value in changes.items():
        fields[{"flags": 3, "method": 4, "stored": 8, "size": 9, "start": 16}[key]] = value
    return content[:start] + struct.pack("<4s6H3I5H2I", *fields) + content[start + 46 :]


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"size": 2**31}, "compressed or encrypted"),
        ({"stored": 2**31, "size": 2**31}, "does not fit the file"),
        ({"stored": 28, "size": 28}, "has 28 bytes where the pickle says 24"),
        ({"start": 0}, "does not fit the file"),
        ({"start": 2**32 - 1}, "does not fit the file"),
        ({"flags": 1}, "encrypted"),
        ({"method": 8}, "compressed"),
    ],
)
def test_a_zip_directory_that_lies_is_refused(changes, match):
    refuse(patch_directory(make_zip(mapping(x=tensor())), b"archive/data/0", **changes), match)


def test_entries_that_overlap_are_refused():
    content = make_zip(mapping(x=tensor()), more="x")
    refuse(patch_directory(content, b"archive/data/0", stored=60, size=60), "does not fit the file")


def test_a_compressed_archive_is_refused_before_it_is_expanded():
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(2**26))
    tracemalloc.start()
    refuse(file.getvalue(), "is compressed")
    assert tracemalloc.get_traced_memory()[1] < 2**22
    tracemalloc.stop()


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


SMALL = [
    (FIXTURES / "torch_zip.pth").read_bytes(),
    (FIXTURES / "torch_legacy.pth").read_bytes(),
    make_zip(mapping(x=tensor())),
    make_legacy(mapping(x=tensor())),
    save({"x": VALUES, "y": VALUES.astype(np.int64)}),
]


@settings(deadline=None, max_examples=60)
@given(content=st.sampled_from(SMALL), data=st.data())
def test_a_truncated_file_is_refused(content, data):
    assert read_or_refuse(content[: data.draw(st.integers(0, len(content) - 1))]) is None


@settings(deadline=None, max_examples=60)
@given(content=st.sampled_from(SMALL), data=st.data(), flip=st.integers(1, 255))
def test_a_changed_byte_gives_arrays_or_an_error(content, data, flip):
    changed = bytearray(content)
    changed[data.draw(st.integers(0, len(content) - 1))] ^= flip
    read_or_refuse(bytes(changed))


@settings(deadline=None)
@given(start=st.sampled_from([b"PK\3\4", SMALL[1][:20], b"\x80\2", b"\x10" + bytes(7) + b"{", b"{"]), rest=st.binary())
@example(start=b"PK\3\4", rest=b"PK\5\6" + b"\xff" * 16 + bytes(2))
def test_random_bytes_after_a_magic_number_are_refused(start, rest):
    assert read_or_refuse(start + rest) is None


PIECES = [bytes([code]) for code in range(256)] + [
    storage(), tensor(), mapping(x=tensor()), string("x"), load("collections", "OrderedDict"), integer(2**62),
    b"h\0", b"q\0", load("torch._utils", "_rebuild_tensor_v2"), load("torch", "LongStorage"), load("torch", "float32"),
    numbers(2, 3),
]  # fmt: skip


@settings(deadline=None, max_examples=60)
@given(pieces=st.lists(st.sampled_from(PIECES), max_size=30), make=st.sampled_from([make_zip, make_legacy]))
def test_random_pickles_give_arrays_or_an_error(pieces, make):
    read_or_refuse(make(b"".join(pieces)))


@settings(deadline=None, max_examples=40)
@given(
    entries=st.dictionaries(
        st.sampled_from(["data.pkl", "data/0", "byteorder", "version", "data/"]) | st.text("ab/.", max_size=5),
        st.binary(),
    )
)
def test_random_entries_of_a_zip_give_arrays_or_an_error(entries):
    read_or_refuse(make_zip(mapping(x=tensor()), **entries))
