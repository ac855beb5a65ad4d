"""Pillow's decoders: which formats are read, and warnings collected for each file.

Filters of `warnings` belong to the whole process, and changing them is not safe while other threads decode. So Pillow's
modules warn through `_Warnings`, and what it collects depends on the file alone, whatever the filters say.
"""

from __future__ import annotations

import importlib
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import PIL
from PIL import Image, ImageFile, PngImagePlugin

# Only these decoders are tried: others of Pillow start programs, or read formats that hold no photographs.
PLUGINS = ("Avif", "Bmp", "Gif", "Jpeg", "Mpo", "Png", "Ppm", "Tiff", "WebP")
SUFFIXES = {
    ".avif", ".bmp", ".gif", ".heic", ".heif", ".jfif", ".jpe", ".jpeg", ".jpg", ".mpo", ".pbm", ".pgm", ".png", ".pnm",
    ".ppm", ".tif", ".tiff", ".webp",
}  # fmt: skip
_collected = threading.local()


class _Warnings:
    """The module `warnings` as Pillow's modules see it."""

    def warn(self, message: Any, category: Any = None, stacklevel: int = 1, **options: Any) -> None:
        """Collect a warning where `collect_warnings` is entered in this thread; otherwise warn."""
        found = getattr(_collected, "messages", None)
        if found is None:
            warnings.warn(message, category, stacklevel + 1, **options)
        else:
            found.append(" ".join(str(message).split()))

    def __getattr__(self, name: str) -> Any:
        return getattr(warnings, name)


@contextmanager
def collect_warnings() -> Iterator[list[str]]:
    """Collect the warnings of Pillow in this thread. Inside another such block, they are collected by that one."""
    outer = getattr(_collected, "messages", None)
    if outer is not None:
        yield outer
        return
    _collected.messages = []
    try:
        yield _collected.messages
    finally:
        _collected.messages = None


def _prepare_decoders() -> tuple[str, ...]:
    """Import the decoders, let their modules warn through `_Warnings`, and return the formats."""
    modules = [Image, ImageFile, *(importlib.import_module(f"PIL.{name}ImagePlugin") for name in PLUGINS)]
    for module in modules:
        if vars(module).get("warnings") is warnings:
            vars(module)["warnings"] = _Warnings()
    formats = [name.upper() for name in PLUGINS]
    with suppress(ImportError):  # the extra `heic`
        importlib.import_module("pillow_heif").register_heif_opener()
        formats.append("HEIF")
    # AVIF needs a library that Pillow may lack; MPO files are opened by the decoder of JPEG.
    return tuple(name for name in formats if name in Image.OPEN)


FORMATS = _prepare_decoders()


def describe_decoders() -> str:
    """Return what a verdict on a file depends on besides the file: versions, decoders and settings of Pillow."""
    settings = (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES, PngImagePlugin.MAX_TEXT_CHUNK)
    return f"{PIL.__version__} {FORMATS} {settings}"
