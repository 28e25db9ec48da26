"""A feature file in the making: parts beside it, each written whole, and their assembly.

While `out.h5` is made, `out.h5.parts/` holds small HDF5 files of the same form, and what they hold
is what is done. A part is renamed when it is whole; its checksum tells whether it was damaged
later. At the end the rows of parts and of an older `out.h5` become the new one by one more
renaming; until then the disk holds both.
"""

import json
import os
import shutil
import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from itertools import compress, groupby
from pathlib import Path

import h5py
import numpy as np
from filelock import FileLock, Timeout

from vidhash_lab.data.files import (
    DataError,
    check_seal,
    new_hdf5,
    refusing_damage,
    written_whole,
)

IDENTITY = ("video_ids", "sizes", "modified")  # of a file: its path, bytes, time in nanoseconds
SKIPPED = ("skipped_ids", "skipped_sizes", "skipped_modified", "skipped_reasons")
BLOCK = 256  # rows copied at a time


@dataclass(frozen=True)
class VideoFile:
    """A file of the folder as it was when the run began; `id` is its path within the folder.

    >>> VideoFile("calm/0.mp4", Path("films/calm/0.mp4"), size=1000, modified=0).id
    'calm/0.mp4'
    """

    id: str
    path: Path
    size: int
    modified: int

    @property
    def identity(self) -> tuple[str, int, int]:
        """What tells a file from others and from its own earlier states."""
        return self.id, self.size, self.modified

    @property
    def folder(self) -> Path:
        """The folder within which `id` is the path."""
        return self.path.parents[self.id.count("/")]

    def absolute(self) -> "VideoFile":
        """The same file for a process that works in another folder."""
        return replace(self, path=self.path.absolute())


@dataclass(frozen=True)
class Row:
    """What became of a video: its arrays, or the reason why there are none.

    >>> file = VideoFile("0.mp4", Path("films/0.mp4"), size=1000, modified=5)
    >>> Row(file, reason="cut short").arrays is None
    True
    """

    file: VideoFile
    arrays: Mapping[str, np.ndarray] | None = None
    reason: str = ""


@contextmanager
def locked(out: Path) -> Iterator[str]:
    """Let one process at a time write `out`; yield why it is not writable, "" where it is.

    >>> with locked(Path("films.h5")) as unwritable:
    ...     unwritable
    ...
    ''
    """
    lock, why = out.with_name(f".{out.name}.lock"), ""
    with ExitStack() as stack:
        try:
            out.parent.mkdir(parents=True, exist_ok=True)
            stack.enter_context(FileLock(lock).acquire(timeout=0))  # freed when a process dies
        except OSError as error:
            if isinstance(error, Timeout) and lock.exists():
                message = "another run is writing it. Wait for that run, or give another name."
                raise DataError(f"{out}: {message}") from None
            why = f"{out}: cannot be written ({error.strerror or error})."
            if not os.path.isfile(out):
                raise DataError(why) from error
        yield why


class Parts:
    """The rows of `out` so far: those of its parts, and those of an older `out` itself.

    >>> file = VideoFile("0.mp4", Path("films/0.mp4"), size=1000, modified=5)
    >>> parts = Parts(Path("films.h5"), {"num_frames": 2})
    >>> parts.make_folder()
    >>> parts.add([Row(file, {"feats": np.zeros((2, 3), "float16")})])
    >>> parts.assemble([file], {"backbone": "mean colours"}), Path("films.h5").is_file()
    ({}, True)
    """

    def __init__(self, out: Path, settings: dict, unwritable: str = ""):
        self.out, self.folder = out, out.with_name(out.name + ".parts")
        self._unwritable = unwritable
        self._settings = json.dumps(settings, sort_keys=True)
        for path in self._files():
            try:
                if path != out:
                    check_seal(path)
            except DataError as error:
                self.make_folder()  # nothing is removed where nothing may be written
                warnings.warn(f"{error} Its videos are read again.", stacklevel=3)
                path.unlink()
            else:
                self._check_settings(path, settings)

    def _files(self):
        older = [self.out] if self.out.exists() else []
        return older + sorted(self.folder.glob("part-*.h5"))

    def _check_settings(self, path, ours):
        try:
            with refusing_damage(path), h5py.File(path) as file:
                theirs = json.loads(file.attrs["extraction"])
        except (DataError, IsADirectoryError) as error:
            message = "there, and not written by `extract`. Choose another name."
            raise DataError(f"{self.out}: {message}") from error
        both = {name: (theirs.get(name), ours.get(name)) for name in sorted({*theirs, *ours})}
        differ = [f"{name} {old!r}, now {new!r}" for name, (old, new) in both.items() if old != new]
        if differ:
            raise DataError(
                f"{self.out}: was begun with {'; '.join(differ)}. Go on with the same, choose "
                f"another name, or remove {path.name if path == self.out else self.folder}."
            )

    def _finished(self):
        """Locate what was read or skipped -> {identity: (file, row, "") or (file, -1, reason)}."""
        places = {}
        for path in self._files():
            with h5py.File(path) as file:
                for row, identity in enumerate(zip(*(_read(file, key) for key in IDENTITY))):
                    places[identity] = path, row, ""
                for *identity, reason in zip(*(_read(file, key) for key in SKIPPED)):
                    places[tuple(identity)] = path, -1, reason
        return places

    def missing(self, files: list[VideoFile], retry_skipped: bool = False) -> list[VideoFile]:
        """Return the files never read, changed since, or, with `retry_skipped`, skipped."""
        places = self._finished().items()
        finished = {identity for identity, (_, row, _) in places if row >= 0 or not retry_skipped}
        return [file for file in files if file.identity not in finished]

    def make_folder(self) -> None:
        """Make the folder of parts, or raise `DataError` where nothing can be written."""
        if self._unwritable:
            raise DataError(self._unwritable)
        try:
            self.folder.mkdir(exist_ok=True)
        except OSError as error:
            raise DataError(f"{self.out}: cannot be written ({error.strerror}).") from error

    def add(self, rows: list[Row]) -> None:
        """Write rows as one more part."""
        numbers = [int(path.stem.split("-")[1]) for path in self.folder.glob("part-*.h5")]
        path = self.folder / f"part-{max(numbers, default=0) + 1:08d}.h5"
        good = [row for row in rows if row.arrays is not None]
        skipped = {row.file: row.reason for row in rows if row.arrays is None}
        with written_whole(path, sealed=True) as new, new_hdf5(new) as file:
            file.attrs["extraction"] = self._settings
            _write_identity(file, [row.file for row in good], skipped)
            for key in good[0].arrays if good else ():
                file[key] = np.stack([row.arrays[key] for row in good])

    def assemble(
        self, files: list[VideoFile], attributes: dict, labels: np.ndarray | None = None
    ) -> dict[str, str]:
        """Make `out` of the rows of these files, in this order -> {id: reason} of those skipped.

        An older `out` stays where the new one would be the same or no file has a row.
        """
        finished = self._finished()
        known = [file.identity in finished for file in files]
        files = list(compress(files, known))
        labels = None if labels is None else labels[known]
        places = [finished[file.identity] for file in files]
        good = [row >= 0 for _, row, _ in places]
        skipped = {file: why for file, (_, row, why) in zip(files, places) if row < 0}
        labels = None if labels is None else labels[good]
        same = not self.folder.exists() and self._is_up_to_date(files, attributes, labels)
        if any(good) and not same:
            self.make_folder()
            with written_whole(self.out) as whole, new_hdf5(whole) as file:
                file.attrs.update({"extraction": self._settings} | attributes)
                _write_identity(file, list(compress(files, good)), skipped)
                _copy_rows(file, list(compress(places, good)))
                if labels is not None:
                    file["labels"] = labels
        if not self._unwritable:
            shutil.rmtree(self.folder, ignore_errors=True)
        return {file.id: reason for file, reason in skipped.items()}

    def _is_up_to_date(self, files, attributes, labels):
        with h5py.File(self.out) as file:
            ids = {*_read(file, "video_ids"), *_read(file, "skipped_ids")}
            written = file["labels"][:] if "labels" in file else None
            names = [list(each.get("category_names", ())) for each in (file.attrs, attributes)]
        same_labels = np.array_equal(written, labels) and names[0] == names[1]
        return same_labels and ids == {video.id for video in files}


def _write_identity(file, files, skipped):
    for keys, own in ((IDENTITY, files), (SKIPPED, skipped)):
        _write_text(file, keys[0], [each.id for each in own])
        file[keys[1]] = np.array([each.size for each in own], np.int64)
        file[keys[2]] = np.array([each.modified for each in own], np.int64)
    _write_text(file, SKIPPED[3], list(skipped.values()))


def _write_text(file, key, texts):
    file.create_dataset(key, data=texts, dtype=h5py.string_dtype(), shape=(len(texts),))


def _read(file, key):
    values = file[key]
    return values.asstr()[:] if h5py.check_string_dtype(values.dtype) else values[:]


def _copy_rows(file, places):
    """Copy rows from where they lie into `file`, in runs that follow each other in one source."""

    def source_and_shift(number):
        path, row, _ = places[number]
        return path, row - number

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
