"""A feature file in the making: parts beside it, each written whole, and their assembly.

While `out.h5` is made, `out.h5.parts/` holds small HDF5 files of the same form, and what they hold
is what is done. A part is written under another name and renamed, so a process may be killed at
any moment: what is there is whole. At the end the rows of parts and of an older `out.h5` become the
new `out.h5` by one more renaming; until then the disk holds both.

N videos in a file, T frames, S videos that were skipped.
"""

import json
import shutil
import warnings
from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
from filelock import FileLock, Timeout

from vidhash_lab.data.files import DataError, written_whole

IDENTITY = ("video_ids", "sizes", "modified")  # of a file: its path, bytes, time in nanoseconds
SKIPPED = ("skipped_ids", "skipped_sizes", "skipped_modified", "skipped_reasons")
BLOCK = 256  # rows copied at a time


@dataclass(frozen=True)
class VideoFile:
    """A file of the folder as it was when the run began; `id` is its path within the folder."""

    id: str
    path: Path
    size: int
    modified: int


@dataclass(frozen=True)
class Row:
    """What became of a video: its arrays, or the reason why there are none."""

    file: VideoFile
    arrays: Mapping[str, np.ndarray] | None = None
    reason: str = ""


@dataclass(frozen=True)
class Place:
    """Where the row of a video lies, for a file of this size and time; `row` -1 if skipped."""

    path: Path
    row: int
    size: int
    modified: int
    reason: str = ""


@contextmanager
def locked(out):
    """Let one process at a time write `out`; a second one gets a `DataError` at once."""
    out.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(out.with_name(f".{out.name}.lock"))  # freed by the system when a process dies
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise DataError(
            f"{out}: another run is writing it. Wait for that run, or give another name."
        ) from None
    try:
        yield
    finally:
        lock.release()


class Parts:
    """The rows of `out` so far: those of its parts, and those of an older `out` itself."""

    def __init__(self, out, settings):
        self.out, self.folder = out, out.with_name(out.name + ".parts")
        self._settings = json.dumps(settings, sort_keys=True)
        for path in self._files():
            self._check_settings(path)

    def _files(self):
        older = [self.out] if self.out.exists() else []
        return older + sorted(self.folder.glob("part-*.h5"))

    def _check_settings(self, path):
        if path != self.out and not _is_readable(path):
            warnings.warn(f"{path} is damaged: its videos are read again", stacklevel=4)
            path.unlink()
            return
        try:
            with h5py.File(path) as file:
                theirs = json.loads(file.attrs["extraction"])
        except (OSError, KeyError, ValueError) as error:
            raise DataError(
                f"{self.out}: there, and not written by `extract`. Choose another name."
            ) from error
        ours = json.loads(self._settings)
        differ = [
            f"{name} {theirs.get(name)!r}, now {ours.get(name)!r}"
            for name in sorted({*theirs, *ours})
            if theirs.get(name) != ours.get(name)
        ]
        if differ:
            raise DataError(
                f"{self.out}: was begun with {'; '.join(differ)}. Go on with the same, choose "
                f"another name, or remove {path.name if path == self.out else self.folder}."
            )

    def finished(self):
        """Tell of every video that was looked at where its latest row is -> {id: Place}."""
        places = {}
        for path in self._files():
            with h5py.File(path) as file:
                ids, *marks = (_read(file, key) for key in IDENTITY)
                for row, (video, size, modified) in enumerate(zip(ids, *marks)):
                    places[video] = Place(path, row, int(size), int(modified))
                for video, size, modified, reason in zip(*(_read(file, key) for key in SKIPPED)):
                    places[video] = Place(path, -1, int(size), int(modified), reason)
        return places

    def add(self, rows):
        """Write rows as one more part."""
        numbers = [int(path.stem.split("-")[1]) for path in self.folder.glob("part-*.h5")]
        path = self.folder / f"part-{max(numbers, default=0) + 1:08d}.h5"
        good = [row for row in rows if row.arrays is not None]
        bad = [row for row in rows if row.arrays is None]
        with written_whole(path) as new, h5py.File(new, "w") as file:
            file.attrs["extraction"] = self._settings
            _write_identity(file, [row.file for row in good], [(r.file, r.reason) for r in bad])
            for key in good[0].arrays if good else ():
                file[key] = np.stack([row.arrays[key] for row in good])

    def assemble(self, files, attributes, labels=None):
        """Make `out` of the rows of these files, in this order, and remove the parts.

        An older `out` that would come out the same is left as it is.
        """
        places = self.finished()
        good = [file for file in files if places[file.id].row >= 0]
        bad = [(file, places[file.id].reason) for file in files if places[file.id].row < 0]
        if labels is not None:
            labels = labels[[places[file.id].row >= 0 for file in files]]
        if not self.folder.exists() and self._is_up_to_date(files, attributes, labels):
            return
        self.folder.mkdir(exist_ok=True)
        whole = self.folder / "whole.h5"
        with h5py.File(whole, "w") as file:
            file.attrs.update({"extraction": self._settings} | attributes)
            _write_identity(file, good, bad)
            _copy_rows(file, [places[video.id] for video in good])
            if labels is not None:
                file["labels"] = labels
        whole.replace(self.out)
        self.remove()

    def _is_up_to_date(self, files, attributes, labels):
        with h5py.File(self.out) as file:
            ids = {*_read(file, "video_ids"), *_read(file, "skipped_ids")}
            if ids != {video.id for video in files} or ("labels" in file) != (labels is not None):
                return False
            ours = list(attributes.get("category_names", ()))
            return labels is None or (
                np.array_equal(file["labels"], labels)
                and list(file.attrs["category_names"]) == ours
            )

    def remove(self):
        """Remove the parts."""
        shutil.rmtree(self.folder, ignore_errors=True)


def _is_readable(path):
    try:
        with h5py.File(path) as file:
            return "extraction" in file.attrs and all(key in file for key in (*IDENTITY, *SKIPPED))
    except OSError:
        return False


def _write_identity(file, good, bad):
    text = h5py.string_dtype()
    file.create_dataset("video_ids", data=[f.id for f in good], dtype=text, shape=(len(good),))
    file["sizes"] = np.array([f.size for f in good], np.int64)
    file["modified"] = np.array([f.modified for f in good], np.int64)
    file.create_dataset("skipped_ids", data=[f.id for f, _ in bad], dtype=text, shape=(len(bad),))
    file["skipped_sizes"] = np.array([f.size for f, _ in bad], np.int64)
    file["skipped_modified"] = np.array([f.modified for f, _ in bad], np.int64)
    reasons = [reason for _, reason in bad]
    file.create_dataset("skipped_reasons", data=reasons, dtype=text, shape=(len(bad),))


def _read(file, key):
    values = file[key]
    return values.asstr()[:] if h5py.check_string_dtype(values.dtype) else values[:]


def _copy_rows(file, places):
    """Copy rows from where they lie into `file`, in runs that follow each other in one source."""
    start = 0
    while start < len(places):
        path, first = places[start].path, places[start].row
        length = 1
        while (
            length < BLOCK
            and start + length < len(places)
            and places[start + length].path == path
            and places[start + length].row == first + length
        ):
            length += 1
        with h5py.File(path) as source:
            for key in source:
                if key in (*IDENTITY, *SKIPPED, "labels"):
                    continue
                rows = source[key]
                if key not in file:
                    file.create_dataset(key, (len(places), *rows.shape[1:]), rows.dtype)
                file[key][start : start + length] = rows[first : first + length]
        start += length
