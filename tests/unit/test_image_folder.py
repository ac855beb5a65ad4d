"""Folders of pictures: every format and mode is read, what is not is listed, and the split is by class."""

import io
import os
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from jaxclf.datasets import ImageFolder
from jaxclf.datasets import decoding as pictures
from jaxclf.datasets.decoding import read_image
from jaxclf.datasets.scan import scan
from jaxclf.errors import UserError
from jaxclf.io.files import get_cache_directory
from jaxclf.training.pipeline import read_eval_batches, read_train_batches

RED, HEIGHT, WIDTH = (200, 30, 60), 6, 10
COLOUR = Image.new("RGB", (WIDTH, HEIGHT), RED)
GREY = Image.new("L", (WIDTH, HEIGHT), 80)
SIXTEEN = Image.fromarray(np.full((HEIGHT, WIDTH), 80 * 257, np.uint16))
FILES = {
    "rgb.jpg": (COLOUR, {"quality": 95}, RED),
    "grey.jpeg": (GREY, {"quality": 95}, (80, 80, 80)),
    "cmyk.jpg": (COLOUR.convert("CMYK"), {"quality": 95}, RED),
    "rgb.png": (COLOUR, {}, RED),
    "grey.png": (GREY, {}, (80, 80, 80)),
    "bits.png": (GREY.convert("1", dither=Image.Dither.NONE), {}, (0, 0, 0)),
    "palette.png": (COLOUR.convert("P", palette=Image.Palette.ADAPTIVE), {}, RED),
    "sixteen.png": (SIXTEEN, {}, (80, 80, 80)),
    "opaque.png": (COLOUR.convert("RGBA"), {}, RED),
    "clear.png": (Image.new("RGBA", (WIDTH, HEIGHT), (*RED, 0)), {}, (255, 255, 255)),
    "half.png": (Image.new("LA", (WIDTH, HEIGHT), (0, 128)), {}, (127, 127, 127)),
    "rgb.webp": (COLOUR, {"lossless": True}, RED),
    "rgb.bmp": (COLOUR, {}, RED),
    "palette.gif": (COLOUR, {}, RED),
    "moving.gif": (COLOUR, {"save_all": True, "append_images": [GREY.convert("RGB")]}, RED),
    "CAPITALS.PNG": (COLOUR, {}, RED),
}


def png(value, size=(4, 4)):
    content = io.BytesIO()
    Image.new("RGB", size, (value, value, value)).save(content, "png")
    return content.getvalue()


def write(root, counts):
    """Pictures, each of a grey of its own, in classes of the given sizes."""
    value = 0
    for name, count in counts.items():
        (root / name).mkdir(parents=True)
        for i in range(count):
            (root / name / f"{i:03d}.png").write_bytes(png(value := value + 1))
    return root


def seen(split):
    """The greys of a split, which say which pictures it has."""
    return split.images[:][:, 0, 0, 0].tolist() if split else []


@pytest.mark.parametrize("name", FILES)
def test_every_format_and_mode(tmp_path, name):
    image, options, expected = FILES[name]
    image.save(tmp_path / name, **options)
    pixels = read_image(tmp_path / name, (5, 7))
    assert (pixels.shape, pixels.dtype) == ((5, 7, 3), np.uint8)
    assert np.abs(pixels.astype(int) - expected).max() <= 4  # JPEG's


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_honoured(tmp_path, orientation):
    upright = Image.fromarray(np.arange(24, dtype=np.uint8).reshape(4, 6) * 10).convert("RGB")
    # How the camera was held, and so how the upright picture was turned when it was stored.
    stored = {
        1: lambda x: x, 2: np.fliplr, 3: lambda x: np.rot90(x, 2), 4: np.flipud, 5: lambda x: x.swapaxes(0, 1),
        6: np.rot90, 7: lambda x: np.rot90(x.swapaxes(0, 1), 2), 8: lambda x: np.rot90(x, -1),
    }  # fmt: skip
    exif = Image.Exif()
    exif[0x0112] = orientation
    pixels = np.ascontiguousarray(stored[orientation](np.asarray(upright)))
    Image.fromarray(pixels).save(tmp_path / "x.png", exif=exif)
    np.testing.assert_array_equal(read_image(tmp_path / "x.png", (4, 6)), np.asarray(upright))


def test_resizing_agrees_with_pillow_and_averages_large_pictures(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "x.png")
    whole = read_image(tmp_path / "x.png", (1, 1))[0, 0]
    assert np.abs(whole - noise.mean((0, 1))).max() < 16
    np.testing.assert_array_equal(read_image(tmp_path / "x.png", (64, 64)), noise)


BAD = {
    "truncated.jpg": "truncated",
    "empty.png": "the file is empty",
    "text.jpg": "cannot identify",
    "notes.txt": "not an image by its suffix",
    "nowhere.png": "broken link",
    "postscript.png": "cannot identify",
    "huge.png": "pixels, more than",
}


@pytest.fixture
def damaged(tmp_path, monkeypatch):
    """Three good pictures in two classes, and one of each kind of bad file."""
    monkeypatch.setattr(pictures, "PIXEL_LIMIT", 10_000)
    root = write(tmp_path / "root", {"a": 2, "b": 1})
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 60, 3), np.uint8))
    noise.save(root / "a/truncated.jpg")
    content = (root / "a/truncated.jpg").read_bytes()
    (root / "a/truncated.jpg").write_bytes(content[: len(content) // 2])
    (root / "a/empty.png").touch()
    (root / "b/text.jpg").write_text("not a picture")
    (root / "b/notes.txt").write_text("of the one who collected them")
    (root / "b/nowhere.png").symlink_to("gone.png")
    (root / "b/postscript.png").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    (root / "b/huge.png").write_bytes(png(1, size=(101, 100)))
    (root / "a/.DS_Store").touch()
    (root / "a/Thumbs.db").touch()
    return root


def test_every_unreadable_file_is_listed_with_its_reason(damaged):
    splits = ImageFolder(str(damaged), train_fraction=1.0, unreadable="skip").load()
    assert len(splits.train) == 3
    assert len(splits.skipped) == len(BAD)
    for name, reason in BAD.items():
        (line,) = (line for line in splits.skipped if name in line)
        assert reason in line
        assert line.count(name) == 1


def test_unreadable_files_are_an_error_that_lists_them_unless_they_are_to_be_left_out(damaged):
    with pytest.raises(UserError, match=r"7 files in .* unreadable='skip'") as error:
        ImageFolder(str(damaged)).load()
    assert list(error.value.items) == list(scan(damaged).skipped)
    assert f"{damaged / 'b/text.jpg'}: cannot identify image file" in error.value.items  # case F20: not "... file 'it'"


def test_a_second_scan_decodes_only_what_changed(damaged, monkeypatch):
    first = scan(damaged)
    read = []

    def note(path):
        read.append(path.name)
        return None, True

    monkeypatch.setattr("jaxclf.datasets.scan._check_file", note)
    (damaged / "b/nowhere.png").unlink()  # where a link leads is looked up every time
    assert scan(damaged).classes == first.classes
    assert not read
    (damaged / "a/empty.png").write_bytes(png(9))
    assert len(scan(damaged).classes["a"]) == 3
    assert read == ["empty.png"]


def test_without_a_home_directory_nothing_is_cached(damaged, monkeypatch):
    """Case F19: a user without a name, in a container."""
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.delenv("HOME")
    monkeypatch.setattr("pwd.getpwuid", {}.__getitem__)
    with pytest.raises(UserError, match="no cache directory"):
        get_cache_directory()
    assert len(scan(damaged).skipped) > 5


@pytest.mark.parametrize("content", ["{", "[]", '{"x": 1}', '{"/x.png": [0, 0]}', "null"])
def test_a_damaged_cache_is_not_believed(damaged, content):
    first = scan(damaged)
    for file in (Path(os.environ["XDG_CACHE_HOME"]) / "jaxclf/scans").glob("*.json"):
        file.write_text(content)
    assert scan(damaged) == first


@pytest.mark.parametrize(("train", "test"), [(0.95, 0.0), (0.75, 0.2), (1.0, 0.0), (0.5, 0.5)])
def test_the_split_is_by_class_and_loses_nothing(tmp_path, train, test):
    counts = {"few": 1, "some": 20, "many": 83}
    splits = ImageFolder(str(write(tmp_path / "x", counts)), train_fraction=train, test_fraction=test).load()
    assert splits.train.class_names == ("few", "many", "some")
    parts = [splits.train, splits.validation, splits.test]
    assert sorted(value for part in parts for value in seen(part)) == list(range(1, 105))
    for label, name in enumerate(splits.train.class_names):
        for part, share in zip(parts, (train, 1 - train - test, test), strict=True):
            found = 0 if part is None else int(np.sum(part.labels == label))
            assert abs(found - share * counts[name]) <= 1


def test_the_split_follows_from_the_seed_and_images_from_labels(tmp_path):
    root = str(write(tmp_path / "x", {"a": 30, "b": 30}))
    first, again, other = (ImageFolder(root, train_fraction=0.5, seed=seed).load().train for seed in (0, 0, 1))
    assert seen(first) == seen(again) != seen(other)
    assert all((value > 30) == label for value, label in zip(seen(first), first.labels, strict=True))


def test_a_subset_is_of_training_alone(tmp_path):
    root = str(write(tmp_path / "x", {"a": 100, "b": 50, "c": 2}))
    whole, part = (ImageFolder(root, train_fraction=0.8, subset=subset).load() for subset in (1.0, 0.1))
    assert set(seen(part.train)) < set(seen(whole.train))
    assert np.bincount(part.train.labels).tolist() == [8, 4, 1]
    assert seen(part.validation) == seen(whole.validation)


def test_small_classes_are_left_out_and_named(tmp_path):
    splits = ImageFolder(str(write(tmp_path / "x", {"a": 3, "b": 9, "c": 0})), min_images=4).load()
    assert splits.train.class_names == ("b",)
    assert splits.remarks == ("left out, with fewer than 4 images: a (3), c (0)",)


@pytest.mark.parametrize("around", ["", "simpsons_dataset", "archive/simpsons_dataset"])
def test_folders_around_the_classes_are_seen_through(tmp_path, around):
    write(tmp_path / "simpsons_dataset" / around, {"homer": 2, "lisa": 2})
    splits = ImageFolder(str(tmp_path / "simpsons_dataset")).load()
    assert splits.train.class_names == ("homer", "lisa")


def test_folders_of_operating_systems_are_ignored(tmp_path):
    """Case F16: macOS writes a second tree into its archives."""
    write(tmp_path / "zip/fruit", {"apple": 2, "pear": 2})
    (tmp_path / "zip/__MACOSX/fruit/apple").mkdir(parents=True)
    (tmp_path / "zip/__MACOSX/fruit/apple/._000.png").write_bytes(b"x")
    assert ImageFolder(str(tmp_path / "zip")).load().train.class_names == ("apple", "pear")


def test_the_copy_inside_the_archive_is_not_a_class(tmp_path):
    root = tmp_path / "simpsons_dataset"
    write(root, {"homer": 2, "lisa": 2})
    write(root / "simpsons_dataset", {"homer": 2, "lisa": 2})
    assert ImageFolder(str(root)).load().train.class_names == ("homer", "lisa")


@pytest.mark.parametrize(
    ("counts", "names"),
    [
        ({"only": 3, "only/thumbs": 2}, ("only",)),
        ({"pets/kittens": 3, "dog": 2}, ("dog", "pets")),
        ({"pets/pets/kittens": 3, "pets/pets/dog": 2}, ("dog", "kittens")),
    ],
)
def test_a_class_with_folders_in_it_is_no_wrapper(tmp_path, counts, names):
    root = tmp_path / "pets"
    for name, count in counts.items():
        (root / name).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            (root / name / f"{i}.png").write_bytes(png(i))
    splits = ImageFolder(str(root), train_fraction=1.0).load()
    assert splits.train.class_names == names
    assert len(splits.train) == sum(counts.values())


def test_a_picture_less_moves_few_others(tmp_path):
    root = write(tmp_path / "x", {"a": 100, "b": 100})
    before = ImageFolder(str(root), train_fraction=0.8).load()
    (root / "a/050.png").unlink()
    after = ImageFolder(str(root), train_fraction=0.8).load()
    assert len(set(seen(after.train)) & set(seen(before.validation))) <= 1
    (root / "0").mkdir()  # a class more leaves the others alone
    (root / "0/x.png").write_bytes(png(255))
    assert set(seen(ImageFolder(str(root), train_fraction=0.8).load().train)) == {*seen(after.train), 255}


def test_what_the_system_refuses_once_is_tried_again(tmp_path, monkeypatch):
    root = write(tmp_path / "x", {"a": 2})

    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    with monkeypatch.context() as patch:
        patch.setattr("jaxclf.datasets.scan.find_fault", refuse)
        assert [line.rpartition(": ")[2] for line in scan(root).skipped] == ["Permission denied"] * 2
    assert scan(root).skipped == ()


def test_damaged_exif_is_no_damage_to_the_picture(tmp_path):
    COLOUR.save(tmp_path / "x.png", exif=b"Exif\0\0garbage")
    assert read_image(tmp_path / "x.png", (2, 2))[0, 0].tolist() == list(RED)


def test_a_clear_grey_of_16_bits_becomes_white(tmp_path):
    Image.fromarray(np.array([[0, 257]], np.uint16)).save(tmp_path / "x.png", transparency=0)
    assert read_image(tmp_path / "x.png", (1, 2))[0, :, 0].tolist() == [255, 1]


def test_names_that_are_no_text_are_made_text(tmp_path):
    folder = os.fsencode(tmp_path) + b"/x/caf\xe9"
    os.makedirs(folder)  # noqa: PTH103
    Path(os.fsdecode(folder + b"/1.png")).write_bytes(png(1))
    Path(os.fsdecode(folder + b"/\xe9.txt")).write_text("")
    splits = ImageFolder(str(tmp_path / "x"), unreadable="skip").load()
    assert splits.train.class_names == ("caf\N{REPLACEMENT CHARACTER}",)
    for text in (*splits.train.class_names, *splits.skipped):
        text.encode()


def test_two_folders_whose_names_print_alike_stay_two_classes(tmp_path):
    """Case F6: names in Latin-1, as archives from Windows have."""
    for i, name in enumerate((b"p\xeache", b"p\xe8che", b"pomme")):
        folder = os.fsencode(tmp_path) + b"/" + name
        os.mkdir(folder)  # noqa: PTH102
        Path(os.fsdecode(folder + b"/1.png")).write_bytes(png(i))
    splits = ImageFolder(str(tmp_path), train_fraction=1.0).load()
    assert splits.train.class_names == ("pomme", r"p\xe8che", r"p\xeache")
    assert np.bincount(splits.train.labels).tolist() == [1, 1, 1]


def test_what_is_not_there_names_page_layout_and_place(tmp_path, damaged):
    with pytest.raises(UserError) as error:
        ImageFolder(str(tmp_path / "nowhere"), page="https://example.org/pictures").load()
    for words in ("https://example.org/pictures", "<root>/<class>/<image>", str(tmp_path / "nowhere")):
        assert words in str(error.value)
    with pytest.raises(UserError, match=r"no class in .* has 100 readable images") as error:
        ImageFolder(str(damaged), min_images=100, unreadable="skip").load()
    assert len(error.value.items) == len(BAD)


@pytest.mark.parametrize(
    "fields",
    [
        {"image_size": (0, 4)},
        {"min_images": 0},
        {"train_fraction": 0.0},
        {"subset": 1.5},
        {"train_fraction": 0.9, "test_fraction": 0.2},
        {"seed": -1},
    ],
)
def test_fields_out_of_range_are_refused(fields):
    with pytest.raises(UserError, match="expected"):
        ImageFolder("x", **fields)


@pytest.mark.parametrize("keep_mib", [0, 1])
def test_kept_or_decoded_again_the_images_are_the_same(tmp_path, keep_mib):
    root = write(tmp_path / "x", {"a": 5, "b": 6})
    split = ImageFolder(str(root), image_size=(4, 4), train_fraction=1.0, keep_mib=keep_mib).load().train
    for _ in range(2):
        np.testing.assert_array_equal(split.images[:][:, 0, 0, 0], np.arange(1, 12))
        np.testing.assert_array_equal(split.images[np.array([7, 2, 7])][:, 0, 0, 0], [8, 3, 8])
    batches = read_train_batches(split, batch_size=4, remainder="pad", seed=0, start=0, stop=6)
    for batch in batches:
        assert ((batch.images[:, 0, 0, 0] > 5) == batch.labels).all()
    (root / "a/000.png").unlink()
    if keep_mib:
        assert next(read_eval_batches(split, 4)).images[0, 0, 0, 0] == 1
    else:
        with pytest.raises(UserError, match=r"000\.png was readable before and is not now"):
            list(read_eval_batches(split, 4))


names = st.text(st.characters(exclude_categories=("Cs", "Cc"), exclude_characters="/\0"), min_size=1, max_size=12)
trees = st.dictionaries(
    names.filter(lambda name: name not in (".", "..") and len(name.encode()) < 100),
    st.lists(st.sampled_from(["picture", "text", "empty", "folder", "link", "circle", "file"]), max_size=5),
    max_size=5,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(trees)
def test_odd_folders_are_read_or_refused(tree):
    with tempfile.TemporaryDirectory() as directory:
        root, good = Path(directory, "root"), 0
        root.mkdir()
        for name, entries in tree.items():
            folder = root / name
            try:
                folder.mkdir()
            except OSError:
                continue  # the system refuses the name, or has it already
            for i, entry in enumerate(entries):
                path = folder / f"{i}.png"
                if entry == "picture":
                    path.write_bytes(png(i))
                elif entry == "folder":
                    (folder / f"ü{i}").mkdir()
                    (folder / f"ü{i}" / "x.png").write_bytes(png(i))
                elif entry == "link":
                    path.symlink_to(folder / "0.png")
                elif entry == "circle":
                    (folder / f"circle{i}").symlink_to(root)
                elif entry == "file":
                    (root / f"file{i}").touch()
                else:
                    path.write_text("x" if entry == "text" else "")
            good += entries.count("picture") * (not name.startswith("."))
        try:
            splits = ImageFolder(str(root), image_size=(4, 4), unreadable="skip").load()
        except UserError as error:
            assert "expected <root>/<class>/<image>" in str(error)
            assert good == 0
            return
        if splits.skipped:
            with pytest.raises(UserError, match="could not be decoded; fix or delete them"):
                ImageFolder(str(root), image_size=(4, 4)).load()
        parts = [split for _, split in splits.items() if split is not None]
        assert sum(map(len, parts)) >= good
        for split in parts:
            assert split.images[:].shape == (len(split), 4, 4, 3)
