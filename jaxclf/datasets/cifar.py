"""CIFAR-10 and CIFAR-100. A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images" (2009)."""

from __future__ import annotations

import hashlib
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
from jaxtyping import UInt8

from jaxclf.datasets.idx import make_splits
from jaxclf.errors import UserError, require
from jaxclf.types import Splits

ADDRESS = "https://www.cs.toronto.edu/~kriz"
SIDE = 32
PIXELS = 3 * SIDE * SIDE  # bytes of an image

Examples: TypeAlias = tuple[UInt8[np.ndarray, "_ 32 32 3"], UInt8[np.ndarray, " _"]]
"""Images and their labels."""

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
FINE_CLASSES = """
apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can castle
caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin elephant flatfish
forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree motorcycle
mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain plate poppy porcupine
possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper snail snake spider squirrel streetcar
sunflower sweet_pepper table tank telephone television tiger tractor train trout tulip turtle wardrobe whale
willow_tree wolf woman worm
"""
COARSE_CLASSES = """
aquatic_mammals fish flowers food_containers fruit_and_vegetables household_electrical_devices household_furniture
insects large_carnivores large_man-made_outdoor_things large_natural_outdoor_scenes large_omnivores_and_herbivores
medium_mammals non-insect_invertebrates people reptiles small_mammals trees vehicles_1 vehicles_2
"""


class BinaryFile(NamedTuple):
    """A file of images, each the bytes of its labels and then its pixels by channel, row and column."""

    name: str
    images: int
    sha256: str


class Release(NamedTuple):
    """A published archive."""

    archive: str
    sha256: str
    folder: str
    """Directory in the archive."""
    train: tuple[BinaryFile, ...]
    test: tuple[BinaryFile, ...]
    label_bytes: int
    pickled: tuple[str, str]
    """The archive of the Python version, and the directory in it."""

    @property
    def source(self) -> str:
        """The archive and its address, for error messages."""
        return f"{self.archive} from {ADDRESS}/{self.archive}"


# The digests of the archives are those of TensorFlow Datasets; those of the unpacked files, of torchvision for Ruby.
CIFAR10 = Release(
    archive="cifar-10-binary.tar.gz",
    sha256="c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
    folder="cifar-10-batches-bin",
    train=(
        BinaryFile("data_batch_1.bin", 10_000, "cee916563c9f80d84e3cc88e17fdc0941787f1244f00a67874d45b261883ada5"),
        BinaryFile("data_batch_2.bin", 10_000, "a591ca11fa1708a91ee40f54b3da4784ccd871ecf2137de63f51ada8b3fa57ed"),
        BinaryFile("data_batch_3.bin", 10_000, "bbe8596564c0f86427f876058170b84dac6670ddf06d79402899d93ceea26f67"),
        BinaryFile("data_batch_4.bin", 10_000, "014e562d6e23c72197cc727519169a60359f5eccd8945ad5a09d710285ff4e48"),
        BinaryFile("data_batch_5.bin", 10_000, "755304fc0b379caeae8c14f0dac912fbc7d6cd469eb67a1029a08a39453a9add"),
    ),
    test=(BinaryFile("test_batch.bin", 10_000, "8e2eb146ae340b09e24670f29cabc6326dba54da8789dab6768acf480273f65b"),),
    label_bytes=1,
    pickled=("cifar-10-python.tar.gz", "cifar-10-batches-py"),
)
CIFAR100 = Release(
    archive="cifar-100-binary.tar.gz",
    sha256="58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec",
    folder="cifar-100-binary",
    train=(BinaryFile("train.bin", 50_000, "f31298fc616915fa142368359df1c4ca2ae984d6915ca468b998a5ec6aeebf29"),),
    test=(BinaryFile("test.bin", 10_000, "d8b1e6b7b3bee4020055f0699b111f60b1af1e262aeb93a0b659061746f8224a"),),
    label_bytes=2,
    pickled=("cifar-100-python.tar.gz", "cifar-100-python"),
)


@dataclass(frozen=True)
class Cifar10:
    """60,000 color photographs in ten classes, 32x32: 50,000 for training and 10,000 for testing."""

    root: str
    """The archive `cifar-10-binary.tar.gz`, or a directory that holds it or its unpacked files."""
    validation: int = 5_000
    """Number of the first training images to hold out: 45,000 / 5,000 / 10,000, or 50,000 / 0 / 10,000 with 0."""

    def load(self) -> Splits:
        """Read the published files and check their SHA-256.

        Returns:
            The splits: images [n, 32, 32, 3], uint8.

        Raises:
            UserError: If the files are not there, are damaged, or are those of the Python version.
        """
        return make_splits(*read_release(self.root, CIFAR10, label=0), self.validation, CLASSES)


@dataclass(frozen=True)
class Cifar100:
    """60,000 color photographs in 100 classes of 20 groups, 32x32: 50,000 for training and 10,000 for testing."""

    root: str
    """The archive `cifar-100-binary.tar.gz`, or a directory that holds it or its unpacked files."""
    validation: int = 5_000
    """Number of the first training images to hold out: 45,000 / 5,000 / 10,000, or 50,000 / 0 / 10,000 with 0."""
    labels: Literal["fine", "coarse"] = "fine"
    """The 100 classes, or the 20 groups of five classes."""

    def load(self) -> Splits:
        """Read the published files and check their SHA-256.

        Returns:
            The splits: images [n, 32, 32, 3], uint8.

        Raises:
            UserError: If the files are not there, are damaged, or are those of the Python version.
        """
        label, names = (1, FINE_CLASSES) if self.labels == "fine" else (0, COARSE_CLASSES)
        return make_splits(*read_release(self.root, CIFAR100, label), self.validation, tuple(names.split()))


def read_release(root: str, release: Release, label: int) -> tuple[Examples, Examples]:
    """Read the images and labels of training and of testing.

    Args:
        root: The archive, or a directory that holds it or its files.
        release: What was published.
        label: Which of the label bytes to return.

    Returns:
        Images and labels of the training files, and of the test files.

    Raises:
        UserError: If the files are not there, are damaged, or are those of the Python version.
    """
    source = _find_source(Path(root).expanduser(), release)
    read = _read_folder if source.is_dir() else _read_archive
    examples = {name: _decode(content, release.label_bytes, label) for name, content in read(source, release)}

    def join(files: tuple[BinaryFile, ...]) -> Examples:
        images, labels = zip(*(examples.pop(file.name) for file in files), strict=True)
        return np.concatenate(images), np.concatenate(labels)

    return join(release.train), join(release.test)


def _find_source(root: Path, release: Release) -> Path:
    """Return the archive, or the directory of its files."""
    if root.is_file() and root.name not in release.pickled:
        return root
    first, archive = release.train[0].name, root / release.archive
    for place in (root, root / release.folder):
        if (place / first).is_file():
            return place
    if archive.is_file():
        return archive
    if any(root.name == name or (root / name).exists() for name in release.pickled):
        raise UserError(
            f"{root} is the Python version, which is made of pickles, and those can run any code; expected the binary "
            f"version: download {release.source}"
        )
    raise UserError(
        f"no {release.archive} at {root.absolute()}, nor {first} there or in {release.folder}; "
        f"download {release.source}"
    )


def _read_archive(path: Path, release: Release) -> Iterator[tuple[str, bytes]]:
    """Yield the names and contents of the files in the archive, which is read only if it is the published one."""
    with path.open("rb") as file:
        require(
            hashlib.file_digest(file, "sha256").hexdigest() == release.sha256,
            f"{path} is not the published archive: its SHA-256 is not {release.sha256}; download {release.source}",
        )
    names = {f"{release.folder}/{file.name}": file.name for file in (*release.train, *release.test)}
    with tarfile.open(path, "r:gz") as archive:
        for member in archive:
            if member.name in names and (content := archive.extractfile(member)) is not None:
                yield names[member.name], content.read()


def _read_folder(path: Path, release: Release) -> Iterator[tuple[str, bytes]]:
    """Yield the names and contents of the unpacked files, each read only if it has the published size."""
    for file in (*release.train, *release.test):
        place, size = path / file.name, file.images * (release.label_bytes + PIXELS)
        require(place.is_file(), f"there is no {place}; unpack {release.source} again")
        found = place.stat().st_size
        require(found == size, f"{place} has {found:,} bytes, expected {size:,}; unpack {release.source} again")
        content = place.read_bytes()
        require(
            hashlib.sha256(content).hexdigest() == file.sha256,
            f"{place} is damaged: its SHA-256 is not {file.sha256}; unpack {release.source} again",
        )
        yield file.name, content


def _decode(content: bytes, label_bytes: int, label: int) -> Examples:
    """Return images and labels of the bytes of a file."""
    rows = np.frombuffer(content, np.uint8).reshape(-1, label_bytes + PIXELS)
    images = rows[:, label_bytes:].reshape(-1, 3, SIDE, SIDE).transpose(0, 2, 3, 1)
    return np.ascontiguousarray(images), rows[:, label].copy()
