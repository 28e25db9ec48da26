"""A folder in shards: whose files are whose, and shards as tasks of a cluster.

The i-th of n shards is the i-th of n equal stretches of the folder's sorted list, in a file of its
own. Shards need no lock between them, and their files in a row are one `FeatureSet`.
"""

import glob
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vidhash_lab.data.files import DataError
from vidhash_lab.retrieval import cluster
from vidhash_lab.videos.parts import VideoFile

if TYPE_CHECKING:
    from distributed import Client

SHARDS = 4  # a worker, so that one that is quicker does more


@dataclass(frozen=True)
class ExtractionReport:
    """What became of the folder; `unread` were not given by the system, or changed meanwhile.

    `paths` are the files that hold the rows: `path` itself, or several in a row.

    >>> print(ExtractionReport(Path("films.h5"), 3, {"one.mp4": "cut short"}))
    films.h5: 3 videos, 1 files skipped
      one.mp4: cut short
    """

    path: Path
    videos: int
    skipped: dict[str, str]
    unread: dict[str, str] = field(default_factory=dict)
    paths: list[Path] = field(default_factory=list)

    @property
    def without(self) -> dict[str, str]:
        """Why files have no rows, {id: reason}."""
        return self.skipped | self.unread

    def __str__(self):
        lines = [f"{self.path}: {self.videos} videos, {len(self.skipped)} files skipped"]
        lines += [f"  {video}: {why}" for video, why in self.skipped.items()]
        if self.unread:
            lines += [f"{len(self.unread)} files could not be read; run again for them"]
            lines += [f"  {video}: {why}" for video, why in self.unread.items()]
        return "\n".join(lines)


def share(count: int, shard: tuple[int, int] | None) -> slice:
    """Return the slice of a list of `count` files that a shard (i, n) reads; all for None.

    >>> share(10, (1, 4))
    slice(2, 5, None)
    """
    number, shards = (0, 1) if shard is None else shard
    if not 0 <= number < shards <= count:
        there = f"{shards} parts of {count} files"
        raise ValueError(f"shard={shard} must be (i, n), i from 0 to n - 1; there are {there}")
    return slice(number * count // shards, (number + 1) * count // shards)


def on_cluster(
    client: "Client",
    extract_files: Callable[[Path, list[VideoFile], np.ndarray | None], ExtractionReport],
    out: Path,
    files: list[VideoFile],
    label_rows: np.ndarray | None,
    shard: tuple[int, int] | None,
    read_bytes: int,
) -> ExtractionReport:
    """Extract all shards of a folder, each a task -> one report of all.

    A task whose worker dies goes on where it was, from the parts that are written. `read_bytes` are
    what a worker needs beside its libraries.
    """
    if shard is not None:
        raise ValueError(f"shard={shard} and client=: a client runs all shards; give one of both")
    workers = len(cluster.check_cluster(client, "extract", 0, kept_bytes=read_bytes))
    paths = _shard_paths(out.absolute(), min(len(files), SHARDS * workers))

    def tasks():
        for number, path in enumerate(paths):
            mine = share(len(files), (number, len(paths)))
            rows = None if label_rows is None else label_rows[mine]
            given = extract_files, path, [file.absolute() for file in files[mine]], rows
            yield number, cluster.submit(client, _extract_alone, *given)

    found = dict(cluster.completed(client, tasks(), workers))
    reports = [found[number] for number in range(len(paths))]
    skipped, unread = {}, {}
    for report in reports:
        skipped |= report.skipped
        unread |= report.unread
    videos, names = sum(report.videos for report in reports), _pattern(out, "*", len(paths))
    written = [path for report in reports for path in report.paths]
    return ExtractionReport(out.with_name(names), videos, skipped, unread, written)


def _extract_alone(extract_files, *given):
    with cluster.ALONE:  # it decodes on all cores as it is
        return extract_files(*given)


def _pattern(out, number, count):
    return f"{out.stem}-{number}-of-{count}{out.suffix}"


def _shard_paths(out, count):
    """Name the files of shards: as many as an earlier run has begun, else `count`."""
    if out.exists():
        raise DataError(f"{out}: there, from a run without client=. Go on so, or name another.")
    begun = out.parent.glob(glob.escape(out.stem) + f"-*-of-*{glob.escape(out.suffix)}*")
    named = re.compile(rf"{re.escape(out.stem)}-\d+-of-(\d+){re.escape(out.suffix)}(\.parts)?")
    counts = {int(match[1]) for path in begun if (match := named.fullmatch(path.name))}
    if len(counts) > 1:
        several = " and ".join(f"{number} shards" for number in sorted(counts))
        raise DataError(f"{out}: begun in {several}. Remove the files of one kind.")
    (count,) = counts or {count}
    return [
        out.with_name(_pattern(out, f"{n:0{len(str(count - 1))}}", count)) for n in range(count)
    ]
