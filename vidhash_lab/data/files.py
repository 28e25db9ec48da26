"""Files that are damaged, and files that are written: what all readers and writers here share."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import h5py

PathLike = str | os.PathLike


class DataError(ValueError):
    """A data file does not hold what it should; the message names file, key or row."""


@contextlib.contextmanager
def refusing_damage(path: PathLike, what: str = "not an HDF5 file") -> Iterator[None]:
    """Turn whatever a reader raises at a damaged file into a `DataError` that names the file."""
    try:
        yield
    except DataError:
        raise
    except Exception as error:  # h5py and scipy raise nearly anything
        problem = f"{type(error).__name__}: {error}"
        raise DataError(f"{path}: {what}, damaged or cut short ({problem}).") from error


def has_key(path: PathLike, key: str) -> bool:
    """Tell whether the HDF5 file at `path` holds `key`."""
    with refusing_damage(path), h5py.File(path) as file:
        return key in file


@contextlib.contextmanager
def written_whole(path: PathLike) -> Iterator[Path]:
    """Give a temporary name beside `path` to write to, and rename it if all went well.

    What an error leaves unfinished is removed. The folder is made where there is none. Two
    processes that write the same file use two names.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
