"""Arrays in one .npz file, written a few rows at a time: memory does not grow with their length."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from zipfile import ZipFile

import numpy as np

from jaxclf.io.files import whole


@contextmanager
def growing_npz(path: Path, rows: int) -> Iterator[Callable[[Mapping[str, np.ndarray]], None]]:
    """A function that takes the next rows of some arrays, by name; after the block they are in the file at `path`.

    Each array must have had `rows` rows by then. `np.load` reads the file. It appears whole, or not at all.
    """
    # A zip takes one entry at a time and arrays grow side by side, so each has a file of its own until the end.
    with whole(path) as partial, TemporaryDirectory(prefix=f".{path.stem}.", dir=path.parent) as directory:
        files = {}
        with ExitStack() as opened:

            def append(arrays: Mapping[str, np.ndarray]) -> None:
                for name, array in arrays.items():
                    if name not in files:
                        files[name] = opened.enter_context((Path(directory) / f"{name}.npy").open("wb"))
                        _write_header(files[name], array, rows)
                    files[name].write(np.ascontiguousarray(array).data)

            yield append
        with ZipFile(partial, "w") as archive:
            for name in files:
                archive.write(Path(directory) / f"{name}.npy", f"{name}.npy")


def _write_header(file, array: np.ndarray, rows: int) -> None:
    """What stands before the numbers of an array of so many rows, each like those of `array`."""
    header = np.lib.format.header_data_from_array_1_0(np.ascontiguousarray(array[:1]))
    np.lib.format.write_array_header_1_0(file, header | {"shape": (rows, *array.shape[1:])})
