"""The real commands on what is damaged, odd or hostile: a list of it and exit code 2, or a result that counts it."""

import gzip
import json
import shutil
import struct

import numpy as np
import pytest
from PIL import Image
from support.pictures import png_header

CONFIG = """
from jaxclf.config import Config
from jaxclf.datasets import Idx, ImageFolder
from jaxclf.models import Mlp
from jaxclf.optimizers import Sgd


def get_config():
    return Config(
        dataset={dataset},
        model=Mlp(features=(5,), classes=3),
        optimizer=Sgd(learning_rate=0.1),
        epochs=1,
        batch_size=8,
        remainder="pad",
    )
"""
DATASETS = {
    "digits": 'Idx("digits")',
    "pictures": 'ImageFolder("pictures", (8, 8), train_fraction=0.6, test_fraction=0.2)',
}


@pytest.fixture
def train(tmp_path, command):
    """Train by a config in an empty directory; the run is beside it."""
    for name, dataset in DATASETS.items():
        (tmp_path / f"{name}.py").write_text(CONFIG.format(dataset=dataset))
    place = {"cwd": tmp_path, "XDG_CACHE_HOME": str(tmp_path / "cache")}
    return lambda name, *flags: command("-m", "jaxclf", "train", f"{name}.py", *flags, **place)


def lines_of(done):
    """What a mistake of the user's prints: its text and its list."""
    assert done.returncode == 2, done
    assert "Traceback" not in done.stderr
    first, *items = done.stderr.splitlines()
    return first, items


BAD_PICTURES = {
    "corrupt.png": "broken",
    "truncated.jpg": "truncated",
    "empty.png": "the file is empty",
    "bomb.png": "10000 x 9000 pixels, more than 80,000,000",
    "text.jpg": "cannot identify",
    "notes.txt": "convert it to PNG or JPEG",
    "loop.png": "broken link",
    "ünicode.txt": "the file is empty",
}


@pytest.fixture
def pictures(tmp_path, random):
    """29 good pictures in three classes, one of them alone in its class, an empty class, and every kind of bad file."""
    root = tmp_path / "pictures"
    for i in range(28):
        folder = root / ("ä" if i % 2 else "b")
        folder.mkdir(parents=True, exist_ok=True)
        size = (1, 1) if i == 4 else (int(random.integers(1, 30)), 9)
        Image.fromarray(random.integers(0, 256, (*size, 3), np.uint8)).save(folder / f"☺{i}.png")
    for name in ("one", "none"):
        (root / name).mkdir()
    Image.new("L", (5, 5)).save(root / "one/mislabelled.jpg", "png")
    noise = Image.fromarray(random.integers(0, 256, (60, 60, 3), np.uint8))
    for name in ("corrupt.png", "truncated.jpg"):
        noise.save(root / "b" / name)
        content = (root / "b" / name).read_bytes()
        half = len(content) // 2
        (root / "b" / name).write_bytes(content[:half] + (b"" if "truncated" in name else b"\0" * half))
    (root / "b/empty.png").touch()
    (root / "b/bomb.png").write_bytes(png_header(10_000, 9_000))
    (root / "b/text.jpg").write_text("not a picture")
    (root / "b/notes.txt").write_text("of the one who collected them")
    (root / "ä/loop.png").symlink_to("loop.png")
    (root / "ä/circle").symlink_to(root)
    (root / "ä/ünicode.txt").touch()
    return root


def test_bad_pictures_are_all_listed_or_left_out_and_counted(train, pictures, tmp_path):
    refused = train("pictures")
    assert refused.returncode == 2
    assert "8 files in" in refused.stderr
    for name, reason in BAD_PICTURES.items():
        (line,) = (line for line in refused.stderr.splitlines() if f"/{name}: " in line)
        assert reason in line
    assert not (tmp_path / "runs").exists()
    done = train("pictures", "--dataset.unreadable", "skip")
    assert done.returncode == 0, done.stderr
    assert "left out, with fewer than 1 images: none (0)" in done.stdout
    summary = json.loads((tmp_path / "runs/pictures/summary.json").read_text())
    assert summary["files_left_out"] == len(BAD_PICTURES)
    assert summary["test"]["examples"] == 6  # three of fourteen each; that of the class of one is trained with
    shutil.rmtree(pictures / "b")
    shutil.rmtree(pictures / "one")
    alone = train("pictures", "--dataset.unreadable", "skip", "--workdir", "alone")
    assert alone.returncode == 2
    assert alone.stderr.splitlines()[-1] == "error: the dataset has one class, 'ä'; expected at least two"


def idx(array):
    return b"\0\0\x08" + bytes([array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


IMAGES = np.arange(24 * 4 * 4, dtype=np.uint16).astype(np.uint8).reshape(24, 4, 4)
LABELS = np.arange(24, dtype=np.uint8) % 3
GOOD = {
    f"{part}-{kind}-ubyte": idx(array)
    for part in ("train", "t10k")
    for kind, array in (("images-idx3", IMAGES), ("labels-idx1", LABELS))
}


@pytest.fixture
def digits(tmp_path):
    (tmp_path / "digits").mkdir()
    for name, content in GOOD.items():
        (tmp_path / "digits" / name).write_bytes(content)
    return tmp_path / "digits"


@pytest.mark.parametrize(
    ("name", "content", "answer"),
    [
        ("train-images-idx3-ubyte", b"\0\0\x0d\x03" + idx(IMAGES)[4:], "not an IDX file of unsigned bytes"),
        ("train-images-idx3-ubyte", idx(IMAGES)[:-1], "holds 383 bytes where its header says 384"),
        ("train-images-idx3-ubyte", idx(IMAGES) + b"\0", "holds more bytes where its header says 384"),
        ("train-images-idx3-ubyte", b"", "not an IDX file of unsigned bytes: it starts with 0x"),
        ("train-images-idx3-ubyte", gzip.compress(idx(IMAGES))[:-9], "download it again"),
        ("train-images-idx3-ubyte", idx(IMAGES)[:4] + b"\xff" * 12 + b"\0" * 9, "holds fewer bytes where its header"),
        ("t10k-labels-idx1-ubyte", idx(LABELS[:-1]), "has shape [23]; expected"),
        ("t10k-labels-idx1-ubyte", idx(LABELS + 9), "the model has 3 logits and the dataset 12 classes"),
    ],
    ids=["type", "short", "trailing bytes", "empty", "gzip", "terabytes", "counts", "labels out of range"],
)
def test_damaged_digits_are_refused(train, digits, tmp_path, name, content, answer):
    (digits / name).write_bytes(content)
    text, items = lines_of(train("digits"))
    assert answer in text
    assert not items
    assert not (tmp_path / "runs").exists()


def test_checkpoints_of_other_networks_and_data_are_refused_and_configs_run_nothing(train, digits, tmp_path, command):
    assert train("digits").returncode == 0
    run = tmp_path / "runs/digits"
    (run / "summary.json").unlink()
    text, items = lines_of(train("digits", "--resume", "force", "--model.features", "6"))
    assert "of another network or optimizer" in text
    assert any("float32[16, 5]" in item and "float32[16, 6]" in item for item in items)
    (digits / "t10k-labels-idx1-ubyte").write_bytes(idx(LABELS + 1))
    text, items = lines_of(train("digits", "--resume", "force", "--model.classes", "4"))
    assert text == "error: the data is not what this run began with; put it back, or name another --workdir:"
    assert [item.split(":")[0].strip() for item in items] == ["class_names"]

    config = json.loads((run / "config.json").read_text())
    for hostile in ("os.system", "subprocess.Popen", "digits.Anything", "jaxclf.cli.train.run"):
        (run / "config.json").write_text(json.dumps(config | {"model": {"class": hostile, "args": f"touch {run}/x"}}))
        text, _ = lines_of(command("-m", "jaxclf", "eval", run, cwd=tmp_path))
        assert hostile in text
    assert not (run / "x").exists()
