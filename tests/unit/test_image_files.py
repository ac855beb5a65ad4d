"""Image files: every format and mode is read, and what cannot be read is listed."""

import os
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFile
from support.components import RESIZINGS
from support.pictures import png, write

from jaxclf.datasets import ImageFolder, pillow
from jaxclf.datasets import decoding as pictures
from jaxclf.datasets.decoding import find_fault, read_image
from jaxclf.datasets.folders import find_files, list_subfolders
from jaxclf.datasets.resizing import Resizing, compute_crop
from jaxclf.datasets.scan import Verdict, scan_files
from jaxclf.errors import UserError
from jaxclf.io.files import get_cache_directory

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
    "rgb.tiff": (COLOUR, {"compression": "tiff_lzw"}, RED),
    "cmyk.tif": (COLOUR.convert("CMYK"), {}, RED),
    "sixteen.tif": (SIXTEEN, {}, (80, 80, 80)),
    "pages.tif": (COLOUR, {"save_all": True, "append_images": [GREY.convert("RGB")]}, RED),
    "rgb.ppm": (COLOUR, {}, RED),
    "grey.pgm": (GREY, {}, (80, 80, 80)),
    "bits.pbm": (GREY.convert("1", dither=Image.Dither.NONE), {}, (0, 0, 0)),
    "rgb.avif": (COLOUR, {"quality": 95}, RED),
    "two.mpo": (COLOUR, {"format": "MPO", "save_all": True, "append_images": [GREY.convert("RGB")]}, RED),
    "wrong.jpg": (COLOUR, {"format": "PNG"}, RED),
    "none": (COLOUR, {"format": "JPEG", "quality": 95}, RED),
    "name.dat": (COLOUR, {"format": "WEBP", "lossless": True}, RED),
}


def scan(root):
    """The verdict on each file of each class."""
    return scan_files(root, [path for folder in list_subfolders(root) for path in sorted(find_files(folder))])


def faults(root):
    """A line for each file that cannot be read, as errors list them."""
    return [f"{path}: {verdict.fault}" for path, verdict in scan(root).items() if verdict.fault]


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


def test_files_are_read_by_their_content_in_folders_too(tmp_path):
    (tmp_path / "a").mkdir()
    for name, (image, options, _) in FILES.items():
        image.save(tmp_path / "a" / name, **options)
    assert len(ImageFolder(str(tmp_path), train_fraction=1.0).load().train) == len(FILES)


@pytest.mark.parametrize("name", ["rgb.jpg", "rgb.tiff", "rgb.ppm", "rgb.avif", "two.mpo", "palette.gif", "rgb.webp"])
def test_damaged_files_of_every_format_have_a_verdict(tmp_path, name):
    """Bytes changed at random or cut off: an image or a fault, never another exception."""
    image, options, _ = FILES[name]
    image.save(tmp_path / name, **options)
    content = (tmp_path / name).read_bytes()
    random = np.random.default_rng(0)
    for i in range(40):
        damaged = bytearray(content)
        for place in random.integers(0, len(content), random.integers(1, 8)):
            damaged[place] = random.integers(256)
        path = tmp_path / f"{i}{name}"
        path.write_bytes(damaged[: random.integers(1, len(content) + 1)] if i % 2 else damaged)
        with pillow.collect_warnings():
            fault = find_fault(path)
        assert fault is None or (fault and "\n" not in fault)


def test_floating_point_pixels_and_heif_are_refused_with_advice(tmp_path):
    Image.fromarray(np.zeros((4, 4), np.float32)).save(tmp_path / "x.tif")
    assert "convert it to 8 or 16 bits" in find_fault(tmp_path / "x.tif")
    (tmp_path / "x.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(100))
    if "HEIF" not in pillow.FORMATS:
        assert "pip install 'jaxclf[heic]'" in find_fault(tmp_path / "x.heic")


@pytest.fixture
def with_broken_exif(tmp_path):
    """Good JPEGs whose EXIF data points beyond its end: Pillow warns of them."""
    (tmp_path / "root/a").mkdir(parents=True)
    tag = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x0e\x01\x02\0\xff\0\0\0\xf0\xff\0\0\0\0\0\0"
    for i in range(5):
        Image.new("RGB", (8, 8), (i, 0, 0)).save(tmp_path / f"root/a/{i}.jpg", exif=tag)
    return tmp_path / "root"


@pytest.mark.parametrize("action", ["error", "ignore", "always"])
def test_verdicts_do_not_depend_on_the_filters_of_warnings(with_broken_exif, action):
    """Case F14: one line for five files."""
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter(action)
        splits = ImageFolder(str(with_broken_exif), train_fraction=1.0, keep_mib=0).load()
        assert splits.train.images[:].shape == (5, 64, 64, 3)
    assert shown == []
    (line,) = splits.remarks
    assert line.startswith(f"{with_broken_exif / 'a/0.jpg'} and 4 more: Tag data larger than file")
    assert ImageFolder(str(with_broken_exif), train_fraction=1.0).load().remarks == splits.remarks  # from the cache


def test_verdicts_under_other_settings_of_pillow_are_not_taken(tmp_path, monkeypatch):
    root = write(tmp_path / "x", {"a": 1})
    COLOUR.resize((200, 200)).save(root / "a/whole.jpg")
    (root / "a/cut.jpg").write_bytes((root / "a/whole.jpg").read_bytes()[:-200])
    assert len(faults(root)) == 1
    with monkeypatch.context() as patch:
        patch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
        assert faults(root) == []
    assert len(faults(root)) == 1


BAD = {
    "truncated.jpg": "truncated",
    "empty.png": "the file is empty",
    "text.jpg": "cannot identify",
    "notes.txt": "convert it to PNG or JPEG",
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
    assert list(error.value.items) == faults(damaged)
    message = f"{damaged / 'b/text.jpg'}: cannot identify image file; "  # case F20: not "... file 'it'"
    assert sum(line.startswith(message) for line in error.value.items) == 1


def test_a_second_scan_decodes_only_what_changed(damaged, monkeypatch):
    first = scan(damaged)
    read = []

    def note(path):
        read.append(path.name)
        return Verdict(None, "0"), True

    monkeypatch.setattr("jaxclf.datasets.scan._check_file", note)
    (damaged / "b/nowhere.png").unlink()  # where a link leads is looked up every time
    assert {path: verdict for path, verdict in first.items() if path.name != "nowhere.png"} == scan(damaged)
    assert not read
    (damaged / "a/empty.png").write_bytes(png(9))
    assert scan(damaged)[damaged / "a/empty.png"] == Verdict(None, "0")
    assert read == ["empty.png"]


def test_without_a_home_directory_nothing_is_cached(damaged, monkeypatch):
    """Case F19: a user without a name, in a container."""
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.delenv("HOME")
    monkeypatch.setattr("pwd.getpwuid", {}.__getitem__)
    with pytest.raises(UserError, match="no cache directory"):
        get_cache_directory()
    assert len(faults(damaged)) > 5


@pytest.mark.parametrize("content", ["{", "[]", '{"x": 1}', '{"/x.png": [0, 0]}', "null"])
def test_a_damaged_cache_is_not_believed(damaged, content):
    first = scan(damaged)
    for file in (Path(os.environ["XDG_CACHE_HOME"]) / "jaxclf/scans").glob("*.json"):
        file.write_text(content)
    assert scan(damaged) == first


def test_what_the_system_refuses_once_is_tried_again(tmp_path, monkeypatch):
    root = write(tmp_path / "x", {"a": 2})

    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    with monkeypatch.context() as patch:
        patch.setattr("jaxclf.datasets.scan.find_fault", refuse)
        assert [line.rpartition(": ")[2] for line in faults(root)] == ["Permission denied"] * 2
    assert faults(root) == []


def test_damaged_exif_is_no_damage_to_the_picture(tmp_path):
    COLOUR.save(tmp_path / "x.png", exif=b"Exif\0\0garbage")
    assert read_image(tmp_path / "x.png", (2, 2))[0, 0].tolist() == list(RED)


def test_a_clear_grey_of_16_bits_becomes_white(tmp_path):
    Image.fromarray(np.array([[0, 257]], np.uint16)).save(tmp_path / "x.png", transparency=0)
    assert read_image(tmp_path / "x.png", (1, 2))[0, :, 0].tolist() == [255, 1]


def test_what_is_not_there_names_page_layout_and_place(tmp_path, damaged):
    with pytest.raises(UserError) as error:
        ImageFolder(str(tmp_path / "nowhere"), page="https://example.org/pictures").load()
    for words in ("https://example.org/pictures", "<root>/<class>/<image>", str(tmp_path / "nowhere")):
        assert words in str(error.value)
    with pytest.raises(UserError, match=r"no class in .* has 100 readable images") as error:
        ImageFolder(str(damaged), min_images=100, unreadable="skip").load()
    assert len(error.value.items) == len(BAD)


@pytest.mark.parametrize("target", [(224, 224), (260, 260), (30, 20), (7, 64)])
def test_crops_lie_within_the_image_and_have_the_aspect_ratio(target):
    """Rounding gave a box that began before the first pixel: 500 x 333 pixels for 224 x 224, for example."""
    for width in range(1, 700, 7):
        for height in range(1, 700, 11):
            left, top, right, bottom = compute_crop((width, height), target)
            assert 0 <= left < right <= width
            assert 0 <= top < bottom <= height
            assert (right - left) * target[1] == pytest.approx((bottom - top) * target[0])
            assert left == pytest.approx(width - right, abs=1e-9)
            assert top == pytest.approx(height - bottom, abs=1e-9)
            assert right - left == width or bottom - top == height


@pytest.mark.parametrize("resizing", RESIZINGS, ids=repr)
def test_images_have_the_size_and_keep_one_color(resizing):
    resized = resizing(Image.new("RGB", (50, 21), RED), (30, 20))
    assert resized.size == (20, 30)
    assert (np.asarray(resized) == RED).all()


def test_a_crop_is_the_middle_of_the_image(tmp_path):
    image = Image.new("RGB", (90, 30), "lime")
    image.paste("red", (30, 0, 60, 30))
    image.save(tmp_path / "x.png")
    pixels = read_image(tmp_path / "x.png", (10, 10), Resizing(crop_to_aspect_ratio=True))
    assert (pixels[:, 1:-1] == (255, 0, 0)).all()  # the outer columns are antialiased with their neighbors
    assert (read_image(tmp_path / "x.png", (10, 10))[:, 0] == (0, 255, 0)).all()
