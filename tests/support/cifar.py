"""Small archives in the format of CIFAR-10 and CIFAR-100."""

import hashlib
import io
import tarfile

import numpy as np

from jaxclf.datasets.cifar import CIFAR10, PIXELS


def make_small(release, random, images=7):
    """A release of few images of noise, and the content of its files."""
    classes = (10,) if release is CIFAR10 else (20, 100)
    contents = {}
    for file in (*release.train, *release.test):
        labels = [random.integers(0, most, (images, 1), np.uint8) for most in classes]
        rows = np.concatenate([*labels, random.integers(0, 256, (images, PIXELS), np.uint8)], axis=1)
        contents[file.name] = rows.tobytes()
    files = (
        tuple(file._replace(images=images, sha256=hash_content(contents[file.name])) for file in files)
        for files in (release.train, release.test)
    )
    train, test = files
    return release._replace(sha256="", train=train, test=test), contents


def write_archive(release, contents, path):
    """Write the archive, files in another order than they are read in; return the release with its SHA-256."""
    with tarfile.open(path, "w:gz") as archive:
        for name, content in [("readme.html", b"<html>"), *reversed(contents.items())]:
            member = tarfile.TarInfo(f"{release.folder}/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return release._replace(sha256=hash_content(path.read_bytes()))


def write_folder(contents, folder):
    """Write the unpacked files."""
    folder.mkdir(parents=True)
    for name, content in contents.items():
        (folder / name).write_bytes(content)


def hash_content(content):
    return hashlib.sha256(content).hexdigest()
