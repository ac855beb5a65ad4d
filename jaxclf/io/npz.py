"""Writer of .npz files whose arrays are computed a few rows at a time, in constant memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from zipfile import ZipFile

import numpy as np

from jaxclf.io.files import atomic_write


@contextmanager
def open_npz_writer(path: Path, rows: int) -> Iterator[Callable[[Mapping[str, np.ndarray]], None]]:
    """Yield a function that appends rows to arrays; they are in the .npz file once the block ends without an error.

    Args:
        path: The file, which `np.load` reads. It is written atomically.
        rows: The number of rows of every array in the end.

    Yields:
        A function that takes the next rows [n, ...] of each array, by name.
    """
    # A zip file is written one entry after the other but the arrays grow together: each has its own file until the
    # end. Not np.lib.format.open_memmap: a full disk would kill the process (SIGBUS), and mapped pages count as memory.
    with atomic_write(path) as partial, TemporaryDirectory(prefix=f".{path.stem}.", dir=path.parent) as directory:
        files = {}
        with ExitStack() as opened:

            def append(arrays: Mapping[str, np.ndarray]) -> None:
                for name, array in arrays.items():
                    array = np.ascontiguousarray(array)
                    if name not in files:
                        files[name] = opened.enter_context((Path(directory) / f"{name}.npy").open("wb"))
                        header = np.lib.format.header_data_from_array_1_0(array)
                        np.lib.format.write_array_header_1_0(files[name], header | {"shape": (rows, *array.shape[1:])})
                    files[name].write(array.data)

            yield append
        with ZipFile(partial, "w") as archive:
            for name in files:
                archive.write(Path(directory) / f"{name}.npy", f"{name}.npy")
