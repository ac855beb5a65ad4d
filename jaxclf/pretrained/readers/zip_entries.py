"""Entries of a zip file that are stored without compression, in place. https://pkware.cachefly.net/webdocs/APPNOTE"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass

from jaxclf.errors import UserError, require
from jaxclf.pretrained.readers.buffers import shorten

END = struct.Struct("<4s4H2IH")  # of the directory of the archive, which is at the end of the file
END_64 = struct.Struct("<4sQ2H2I4Q")
LOCATOR_64 = struct.Struct("<4sIQI")
HEADER = struct.Struct("<4s6H3I5H2I")  # of an entry in the directory
LOCAL_HEADER = struct.Struct("<4s5H3I2H")  # of an entry before its data
COMMENT = 2**16  # the most bytes after the end record
ENTRIES = 100_000
ENCRYPTED = 1
DAMAGED = "its zip directory is damaged or does not fit the file; download it again"


@dataclass(frozen=True)
class Entry:
    """An entry as the directory describes it."""

    start: int
    """Position of the local header."""
    size: int
    stored_size: int
    method: int
    """Compression; 0 for none."""
    flags: int


def read_directory(content: memoryview) -> dict[str, Entry]:
    """Return the entries of a zip file by name.

    Args:
        content: The bytes of the file.

    Raises:
        UserError: If the directory is damaged.
    """
    count, size, position = _find_directory(content)
    require(count <= ENTRIES, f"its zip directory has {count} entries, at most {ENTRIES} are expected")
    stop = position + size
    require(stop <= len(content), DAMAGED)
    entries = {}
    for _ in range(count):
        name, entry, position = _read_header(content, position)
        require(position <= stop, DAMAGED)
        require(name not in entries, f"its zip directory has {shorten(name)} twice; download it again")
        entries[name] = entry
    return entries


def map_entries(content: memoryview, entries: Mapping[str, Entry]) -> dict[str, memoryview]:
    """Return the data of all entries, in place.

    Args:
        content: The bytes of the file.
        entries: The entries of its directory.

    Raises:
        UserError: If an entry is compressed or encrypted, lies outside the file, or overlaps another one.
    """
    # Their checksums are not verified: PyTorch can write files without them, and does not look at them either.
    data, free = {}, 0
    for name, entry in sorted(entries.items(), key=lambda item: item[1].start):
        require(
            entry.method == 0 and entry.size == entry.stored_size and not entry.flags & ENCRYPTED,
            f"its entry {shorten(name)} is compressed or encrypted; PyTorch does neither\n"
            "load the file with PyTorch and save it again by torch.save(model.state_dict(), path)",
        )
        start = _skip_local_header(content, entry.start, name)
        require(free <= entry.start and start + entry.size <= len(content), DAMAGED)
        free = start + entry.size
        data[name] = content[start:free]
    return data


def _read_record(layout: struct.Struct, content: memoryview, position: int, signature: bytes) -> tuple:
    require(0 <= position <= len(content) - layout.size, DAMAGED)
    fields = layout.unpack_from(content, position)
    require(fields[0] == signature, DAMAGED)
    return fields


def _find_directory(content: memoryview) -> tuple[int, int, int]:
    """Return the number of entries, and size and position of the directory."""
    before = max(0, len(content) - COMMENT - END.size)
    position = before + bytes(content[before:]).rfind(b"PK\5\6")
    _, _, _, _, count, size, start, comment = _read_record(END, content, position, b"PK\5\6")
    require(position + END.size + comment == len(content), DAMAGED)
    if count == 2**16 - 1 or size == 2**32 - 1 or start == 2**32 - 1:
        _, _, position, _ = _read_record(LOCATOR_64, content, position - LOCATOR_64.size, b"PK\6\7")
        count, size, start = _read_record(END_64, content, position, b"PK\6\6")[7:]
    return count, size, start


def _read_header(content: memoryview, position: int) -> tuple[str, Entry, int]:
    """Return the name and entry of a header in the directory, and the position of the next header."""
    fields = _read_record(HEADER, content, position, b"PK\1\2")
    flags, method, stored_size, size = fields[3], fields[4], fields[8], fields[9]
    name_size, extra_size, comment_size, start = fields[10], fields[11], fields[12], fields[16]
    position += HEADER.size
    name = bytes(content[position : position + name_size]).decode("utf-8", "replace")
    position += name_size
    extra = bytes(content[position : position + extra_size])
    size, stored_size, start = _read_wide([size, stored_size, start], extra)
    return name, Entry(start, size, stored_size, method, flags), position + extra_size + comment_size


def _read_wide(values: list[int], extra: bytes) -> list[int]:
    """Return values with those that need more than 32 bits taken from the zip64 field."""
    position = 0
    while position + 4 <= len(extra):
        kind, size = struct.unpack_from("<2H", extra, position)
        if kind == 1:
            wide = (value for (value,) in struct.iter_unpack("<Q", extra[position + 4 :][: size // 8 * 8]))
            return [next(wide, value) if value == 2**32 - 1 else value for value in values]
        position += 4 + size
    return values


def _skip_local_header(content: memoryview, position: int, name: str) -> int:
    """Return the position of the data of an entry."""
    fields = _read_record(LOCAL_HEADER, content, position, b"PK\3\4")
    name_size, extra_size = fields[9:]
    position += LOCAL_HEADER.size
    found = bytes(content[position : position + name_size]).decode("utf-8", "replace")
    if found != name:
        raise UserError(DAMAGED)
    return position + name_size + extra_size
