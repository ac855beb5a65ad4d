"""Malicious and damaged weight files: nothing in a file is run, and memory is bounded before it is used."""

import io
import pickle
import struct
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save
from support.weight_files import (
    FORMATS,
    VALUES,
    integer,
    load,
    make_legacy,
    make_zip,
    mapping,
    numbers,
    read,
    read_or_refuse,
    refuse,
    storage,
    string,
    tensor,
)

from jaxclf.pretrained.readers import unpickling

FIXTURES = Path(__file__).parents[1] / "fixtures"


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
