"""Files that are damaged, and files that are written: what all readers and writers here share."""

import contextlib
import glob
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

    What an error leaves unfinished is removed, and what a killed process left of the same file. The
    folder is made where there is none. Two processes that write the same file use two names.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    for left in path.parent.glob(f".{glob.escape(path.name)}.*"):
        if left.suffix[1:].isdecimal() and not _is_running(int(left.suffix[1:])):
            left.unlink(missing_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _is_running(process):
    if os.name != "posix":  # elsewhere there is no harmless signal to ask with
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's
        pass
    return True
