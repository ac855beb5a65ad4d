"""Small pictures in folders."""

import io
import struct
import zlib

from PIL import Image


def png(value, size=(4, 4)):
    content = io.BytesIO()
    Image.new("RGB", size, (value, value, value)).save(content, "png")
    return content.getvalue()


def png_header(width, height):
    """A PNG file of that size, by its header; its pixels are not there."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def write(root, counts, value=0):
    """Pictures, each of a grey of its own behind `value`, in classes of the given sizes."""
    for name, count in counts.items():
        (root / name).mkdir(parents=True)
        for i in range(count):
            (root / name / f"{i:03d}.png").write_bytes(png(value := value + 1))
    return root
