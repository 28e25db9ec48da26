"""Files that are damaged, and files that are written: what all readers and writers here share."""

import contextlib
import errno
import glob
import io
import os
import platform
import shutil
import zlib
from collections.abc import Iterator
from pathlib import Path

import h5py

from vidhash_lab.data.virtual import is_whole

PathLike = str | os.PathLike
SEAL = b"\nvidhash-lab seal crc32 "  # ends a file that the kit reads back; 8 hex digits follow
SEAL_BYTES = len(SEAL) + 8
BLOCK_BYTES = 1 << 20  # read at once for a checksum
SAID_OF_DAMAGE = {None, errno.EINVAL, errno.EOVERFLOW}  # other numbers are the system's troubles


class DataError(ValueError):
    """A data file does not hold what it should; the message names file, key or row."""


@contextlib.contextmanager
def refusing_damage(path: PathLike, what: str = "not an HDF5 file") -> Iterator[None]:
    """Turn what a reader raises at damage, not at the system's trouble, into a `DataError`.

    >>> with refusing_damage("films.h5"):
    ...     raise KeyError("feats")
    Traceback (most recent call last):
    vidhash_lab.data.files.DataError: films.h5: not an HDF5 file, damaged or cut short ...
    """
    try:
        yield
    except (DataError, MemoryError):
        raise
    except Exception as error:  # h5py and scipy raise nearly anything
        if isinstance(error, OSError) and error.errno not in SAID_OF_DAMAGE:
            raise
        problem = f"{type(error).__name__}: {error}"
        raise DataError(f"{path}: {what}, damaged or cut short ({problem}).") from error


def has_key(path: PathLike, key: str) -> bool:
    """Tell whether the HDF5 file at `path` holds `key`, be it a link that leads nowhere.

    >>> with h5py.File("films.h5", "w") as file:
    ...     file["feats"] = [0.0]
    ...
    >>> has_key("films.h5", "feats"), has_key("films.h5", "labels")
    (True, False)
    """
    with refusing_damage(path), h5py.File(path) as file:
        return file.id.links.exists(key.encode())


def own(group: h5py.Group, key: str) -> h5py.Group | h5py.Dataset | None:
    """Return what an HDF5 file itself holds as `key`, or None; links are a `DataError`.

    Of virtual data sets, those pass whose rows all lie in the same file.

    >>> with h5py.File("films.h5", "w") as file:
    ...     file["feats"] = [0.0]
    ...     own(file, "feats").shape, own(file, "labels")
    ...
    ((1,), None)
    """
    links, name = group.id.links, key.encode()
    if not links.exists(name):
        return None
    linked = links.get_info(name).type != h5py.h5l.TYPE_HARD
    node = None if linked else group[key]
    if linked or (isinstance(node, h5py.Dataset) and not is_whole(node)):
        raise DataError(
            f"{group.file.filename}: `{key}` is a link, a virtual data set, or one with external "
            "storage, so parts of it may be missing. Copy its values into this file."
        )
    return node


@contextlib.contextmanager
def written_whole(path: PathLike, sealed: bool = False) -> Iterator[Path]:
    """Give a temporary name beside `path` to write to; seal it if asked to, rename it if whole.

    >>> with written_whole("notes.txt") as temporary:
    ...     length = temporary.write_text("whole or not at all")
    ...
    >>> Path("notes.txt").read_text()
    'whole or not at all'
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_unfinished(path)
    temporary = path.with_name(f"{unfinished(path)}{os.getpid()}")
    try:
        yield temporary
        if sealed:
            seal(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


class _Patient(io.FileIO):
    """A file that takes everything that is written, and keeps the first error for later."""

    error = None

    def write(self, data):
        left = memoryview(data).cast("B")
        try:
            while self.error is None and left:
                left = left[super().write(left) :]
        except BaseException as error:  # also an interrupt, at this of all moments
            self.error = error
        return len(data)

    def truncate(self, size=None):
        try:
            return super().truncate(size)
        except OSError as error:
            self.error = self.error or error
            return size


@contextlib.contextmanager
def new_hdf5(path: PathLike) -> Iterator[h5py.File]:
    """Give a new HDF5 file to write; what its disk says, "full" above all, is raised at the end.

    HDF5 must not meet an error of the disk: it leaves data sets that are half closed, and ends the
    process (a segmentation fault) when the next file is closed, whichever that is.

    >>> with new_hdf5("films.h5") as file:
    ...     file["feats"] = [1.0, 2.0]
    ...
    >>> has_key("films.h5", "feats")
    True
    """
    with _Patient(path, "w+") as disk:
        try:
            with h5py.File(disk, "w") as file:
                yield file
        finally:
            if disk.error is not None:
                raise disk.error


def unfinished(path: Path) -> str:
    """Begin the temporary name of a file or folder; the number of its process ends it.

    The machine is named: on a disk that several share, a number alone says nothing of another's.

    >>> unfinished(Path("films.h5")) in Path(f"{unfinished(Path('films.h5'))}1").name
    True
    """
    return f".{path.name}.{platform.node()}."


def remove_unfinished(path: Path) -> None:
    """Remove what killed processes of this machine left of a file or folder.

    >>> remove_unfinished(Path("films.h5"))  # nothing was left: nothing happens
    """
    for left in path.parent.glob(f"{glob.escape(unfinished(path))}*"):
        if left.suffix[1:].isdecimal() and not _is_running(int(left.suffix[1:])):
            if left.is_dir():
                shutil.rmtree(left, ignore_errors=True)
            else:
                left.unlink(missing_ok=True)


def seal(path: PathLike) -> None:
    """Append its checksum to a finished file of the kit's own: 32 bytes that HDF5 does not mind.

    >>> size = Path("notes.txt").write_text("what was written")
    >>> seal("notes.txt")
    >>> Path("notes.txt").stat().st_size - size
    32
    """
    with open(path, "r+b") as file:
        file.write(SEAL + b"%08x" % _checksum(file, os.path.getsize(path)))


def check_seal(path: PathLike) -> None:
    """Read a sealed file whole; raise `DataError` if it is not what was sealed, or not sealed.

    >>> size = Path("notes.txt").write_text("what was written")
    >>> seal("notes.txt")
    >>> check_seal("notes.txt")
    """
    with open(path, "rb") as file:
        found = _checksum(file, os.path.getsize(path) - SEAL_BYTES)
        end = file.read()
    if not end.startswith(SEAL):
        raise DataError(f"{path}: has no checksum: cut short, or written by something else.")
    if end != SEAL + b"%08x" % found:
        raise DataError(f"{path}: damaged: its checksum is another one.")


def _checksum(file, size):
    checksum = 0
    for start in range(0, size, BLOCK_BYTES):
        checksum = zlib.crc32(file.read(min(BLOCK_BYTES, size - start)), checksum)
    return checksum


def _is_running(process):
    if os.name != "posix":  # elsewhere there is no harmless signal to ask with
        return True
    try:
        os.kill(process, 0)
    except OSError as error:
        return isinstance(error, PermissionError)  # another user's
    return True
