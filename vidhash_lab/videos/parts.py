"""A feature file in the making: parts beside it, each written whole, and their assembly.

While `out.h5` is made, `out.h5.parts/` holds small HDF5 files of the same form, and what they hold
is what is done. A part is written under another name and renamed, so a process may be killed at
any moment: what is there is whole. At the end the rows of parts and of an older `out.h5` become the
new `out.h5` by one more renaming; until then the disk holds both.

N videos in a file, T frames.
"""

import json
import shutil
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import compress, groupby
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
def locked(out: Path) -> Iterator[None]:
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

    def __init__(self, out: Path, settings: dict):
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

    def finished(self) -> dict[str, Place]:
        """Locate the latest row of every video that was read or skipped -> {id: Place}."""
        places = {}
        for path in self._files():
            with h5py.File(path) as file:
                marks = zip(*(_read(file, key) for key in IDENTITY))
                for row, (video, size, modified) in enumerate(marks):
                    places[video] = Place(path, row, int(size), int(modified))
                for video, size, modified, reason in zip(*(_read(file, key) for key in SKIPPED)):
                    places[video] = Place(path, -1, int(size), int(modified), reason)
        return places

    def missing(self, files: list[VideoFile]) -> list[VideoFile]:
        """Return the files that were never read or skipped, or have changed since."""
        places = self.finished()
        done = {(id, place.size, place.modified) for id, place in places.items()}
        return [file for file in files if (file.id, file.size, file.modified) not in done]

    def add(self, rows: list[Row]) -> None:
        """Write rows as one more part."""
        numbers = [int(path.stem.split("-")[1]) for path in self.folder.glob("part-*.h5")]
        path = self.folder / f"part-{max(numbers, default=0) + 1:08d}.h5"
        good = [row for row in rows if row.arrays is not None]
        with written_whole(path) as new, h5py.File(new, "w") as file:
            file.attrs["extraction"] = self._settings
            skipped = [row for row in rows if row.arrays is None]
            _write_identity(file, [row.file for row in good], skipped)
            for key in good[0].arrays if good else ():
                file[key] = np.stack([row.arrays[key] for row in good])

    def assemble(
        self, files: list[VideoFile], attributes: dict, labels: np.ndarray | None = None
    ) -> dict[str, str]:
        """Make `out` of the rows of these files, in this order -> {id: reason} of those skipped.

        The parts are removed. An older `out` stays as it is where the new one would be the same
        and where no file has a row.
        """
        finished = self.finished()
        places = [finished[file.id] for file in files]
        good = [place.row >= 0 for place in places]
        skipped = [Row(f, reason=p.reason) for f, p in zip(files, places) if p.row < 0]
        labels = None if labels is None else labels[good]
        same = not self.folder.exists() and self._is_up_to_date(files, attributes, labels)
        if any(good) and not same:
            self.folder.mkdir(exist_ok=True)
            whole = self.folder / "whole.h5"
            with h5py.File(whole, "w") as file:
                file.attrs.update({"extraction": self._settings} | attributes)
                _write_identity(file, list(compress(files, good)), skipped)
                _copy_rows(file, list(compress(places, good)))
                if labels is not None:
                    file["labels"] = labels
            whole.replace(self.out)
        shutil.rmtree(self.folder, ignore_errors=True)
        return {row.file.id: row.reason for row in skipped}

    def _is_up_to_date(self, files, attributes, labels):
        with h5py.File(self.out) as file:
            ids = {*_read(file, "video_ids"), *_read(file, "skipped_ids")}
            if ids != {video.id for video in files} or ("labels" in file) != (labels is not None):
                return False
            return labels is None or (
                np.array_equal(file["labels"], labels)
                and list(file.attrs["category_names"]) == list(attributes["category_names"])
            )


def _is_readable(path):
    try:
        with h5py.File(path) as file:
            return "extraction" in file.attrs and all(key in file for key in (*IDENTITY, *SKIPPED))
    except OSError:
        return False


def _write_identity(file, files, skipped):
    """Write which files have rows, which were skipped (rows without arrays), and why."""
    for keys, own in ((IDENTITY, files), (SKIPPED, [row.file for row in skipped])):
        _write_text(file, keys[0], [each.id for each in own])
        file[keys[1]] = np.array([each.size for each in own], np.int64)
        file[keys[2]] = np.array([each.modified for each in own], np.int64)
    _write_text(file, SKIPPED[3], [row.reason for row in skipped])


def _write_text(file, key, texts):
    file.create_dataset(key, data=texts, dtype=h5py.string_dtype(), shape=(len(texts),))


def _read(file, key):
    values = file[key]
    return values.asstr()[:] if h5py.check_string_dtype(values.dtype) else values[:]


def _copy_rows(file, places):
    """Copy rows from where they lie into `file`, in runs that follow each other in one source."""

    def source_and_shift(number):
        return places[number].path, places[number].row - number

    for (path, shift), run in groupby(range(len(places)), source_and_shift):
        run = list(run)
        with h5py.File(path) as source:
            for key in sorted(source.keys() - {*IDENTITY, *SKIPPED, "labels"}):
                rows = source[key]
                if key not in file:
                    file.create_dataset(key, (len(places), *rows.shape[1:]), rows.dtype)
                for start in range(run[0], run[-1] + 1, BLOCK):
                    stop = min(start + BLOCK, run[-1] + 1)
                    file[key][start:stop] = rows[start + shift : stop + shift]
