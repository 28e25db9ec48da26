"""Feature sets: rows of HDF5 files, read as they are asked for.

A feature file holds `feats` (N, T, D) in float16 or float32 and, where they are known, `labels`
(N, C) and `fine_labels` (N, C'), multi-hot, `thumbnails` (N, T, h, w[, 3]) uint8, `video_ids` (N,)
text, and `views` (N, V, T, D), the features of V augmented renderings of each. Several files in a
row can be one set, as YFCC's nine. Nothing is read whole unless `in_memory=True` asks for it. A set
pickles to its paths and options, and opens its files where it arrives.

N videos in a set, T frames per video, D feature width, B videos in a batch, C categories, V views.
"""

import hashlib
import math
import warnings
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import h5py
import numpy as np
import torch
from numpy.typing import ArrayLike
from tqdm.auto import tqdm

from vidhash_lab.data.files import DataError, has_key, refusing_damage
from vidhash_lab.data.labels import check_columns, multi_hot, one_hot
from vidhash_lab.data.rows import Paths, Rows

SAMPLED_VIDEOS, SAMPLED_BYTES = 1024, 8 << 20  # at most, of features and of views: a fingerprint


class FeatureSet:
    """The videos of one set: features (N, T, D) that stay on disk, labels, thumbnails, views.

    Args:
        paths: one HDF5 file, or several that follow each other.
        labels: an array (N, C), multi-hot, in place of the files' own `labels`.
        classes: how many, where `labels` are numbers 0 to classes - 1, (N,) or (N, 1).
        views: HDF5 file or files that hold the `views`, in place of the files' own.
        in_memory: read all features and views now, in the type they are stored in.

    `feature_set[a:b]` is a set of these videos alone, over the same open files. Pickled, a set of
    either kind is paths and options (and `labels` that were given), no open file and no row of it.
    Raises FileNotFoundError, and `DataError` for whatever does not fit.

    >>> with h5py.File("films.h5", "w") as file:
    ...     file["feats"] = np.zeros((4, 25, 128), "float32")
    ...
    >>> films = FeatureSet("films.h5", labels=[[1, 0], [1, 0], [0, 1], [0, 1]])
    >>> len(films), films.num_frames, films.feature_dim, len(films[1:3])
    (4, 25, 128, 2)
    """

    def __init__(
        self,
        paths: Paths,
        *,
        labels: ArrayLike | None = None,
        classes: int | None = None,
        views: Paths | None = None,
        in_memory: bool = False,
    ):
        self._open(paths, labels, classes, views, in_memory)

    def _open(self, paths, labels, classes, views, in_memory, block=None, whole=None):
        """Open the files, or a block (a, b) of their rows, for features that are `whole` if known.

        What pickling needs stays in `_options`; labels that were given are those of the block.
        """
        self.features = Rows(paths, "feats", in_memory, block)
        self.paths = self.features.paths
        if whole not in (None, self.features.whole):
            raise DataError(
                f"{self.paths[0]}: `feats` are (N, T, D) = {self.features.whole} here, but were "
                f"{whole} where this set comes from. Let all processes see the same files."
            )
        self._options = {"in_memory": in_memory, "block": block, "classes": classes}
        self._given = {"labels": labels is not None, "views": views is not None}
        with refusing_damage(self.paths[0]), h5py.File(self.paths[0]) as file:
            self.attributes = dict(file.attrs)
        self.labels = self._labels("labels", labels, classes)
        self.fine_labels = self._labels("fine_labels")
        self.thumbnails = self._own_rows("thumbnails")
        self.views = self._open_views(views, in_memory)

    def __getstate__(self):
        given = self._given
        return self._options | {
            "paths": [path.absolute() for path in self.paths],
            "views": [path.absolute() for path in self.views.paths] if given["views"] else None,
            "labels": self.labels if given["labels"] else None,
            "classes": None if given["labels"] else self._options["classes"],
            "whole": self.features.whole,
        }

    def __setstate__(self, state):
        self._open(**state)

    def __getitem__(self, block: slice) -> "FeatureSet":
        if not isinstance(block, slice) or block.step not in (None, 1):
            raise TypeError(f"[{block}]: a block of videos is [a:b]; `rows` reads any of them")
        start, stop, _ = block.indices(len(self))
        if start >= stop:
            raise ValueError(f"[{block.start}:{block.stop}] of {self}: no video is in it")
        part = object.__new__(type(self))
        part.__dict__ |= self.__dict__
        for name in ("features", "thumbnails", "views"):
            if (rows := getattr(self, name)) is not None:
                setattr(part, name, rows.block(start, stop))
        for name in ("labels", "fine_labels"):
            if (rows := getattr(self, name)) is not None:
                setattr(part, name, rows[start:stop])
        first = part.features.first
        part._options = self._options | {"block": (first, first + len(part))}
        return part

    def __len__(self):
        return len(self.features)

    def __repr__(self):
        return f"FeatureSet({len(self)} videos, T {self.num_frames}, D {self.feature_dim})"

    @property
    def num_frames(self) -> int:
        """T, frames per video."""
        return self.features.shape[1]

    @property
    def feature_dim(self) -> int:
        """D, width of a frame's features."""
        return self.features.shape[2]

    @property
    def num_views(self) -> int:
        """V, views of each video; 0 where there are none."""
        return 0 if self.views is None else self.views.shape[1]

    @property
    def video_ids(self) -> np.ndarray | None:
        """Names of the videos, (N,) text, or None where a file has none.

        >>> with h5py.File("films.h5", "w") as file:
        ...     file["feats"] = np.zeros((2, 5, 3), "float32")
        ...     file["video_ids"] = ["calm.mp4", "wild.mp4"]
        ...
        >>> FeatureSet("films.h5").video_ids.tolist()
        ['calm.mp4', 'wild.mp4']
        """
        if not all(has_key(path, "video_ids") for path in self.paths):
            return None
        rows, names = self._own_rows("video_ids"), []
        for row, name in enumerate(rows[:]):
            try:
                names.append(name.decode())
            except UnicodeDecodeError as error:
                raise DataError(f"{rows.where(row)}: `video_ids` is {name}, no UTF-8.") from error
        return np.array(names)

    def rows(self, indices: ArrayLike) -> torch.Tensor:
        """Read videos (B,) -> (B, T, D) float32. NaN or infinite values are a `DataError`.

        >>> from vidhash_lab import open_dataset
        >>> open_dataset("digit-stories-mini").train.rows([3, 1]).shape
        torch.Size([2, 25, 128])
        """
        return _finite(self.features, np.atleast_1d(indices))

    def frames(self, indices: ArrayLike, places: ArrayLike) -> torch.Tensor:
        """Read a frame of each of some videos, at places (B,) -> (B, D) float32, or `DataError`.

        >>> from vidhash_lab import open_dataset
        >>> open_dataset("digit-stories-mini").train.frames([3, 1], places=[0, 24]).shape
        torch.Size([2, 128])
        """
        return _finite(self.features, np.atleast_1d(indices), np.atleast_1d(places))

    def view_rows(self, indices: ArrayLike, view: ArrayLike) -> torch.Tensor:
        """Read a view (B,), or one for all, of videos (B,) -> (B, T, D) float32, or `DataError`.

        >>> with h5py.File("films.h5", "w") as file:
        ...     file["feats"] = np.zeros((4, 5, 3), "float32")
        ...     file["views"] = np.ones((4, 2, 5, 3), "float32")  # two of each video
        ...
        >>> FeatureSet("films.h5").view_rows([0, 3], view=[1, 0]).shape
        torch.Size([2, 5, 3])
        """
        if self.views is None:
            raise DataError(f"{self.paths[0]}: has no `views`; `num_views` tells whether it has.")
        return _finite(self.views, *np.broadcast_arrays(np.atleast_1d(indices), view))

    def pictures(self, indices: ArrayLike) -> np.ndarray:
        """Draw videos (B,) -> (B, T, h, w[, 3]) uint8: thumbnails, or features as 16 x 16 cells.

        >>> from vidhash_lab import open_dataset
        >>> open_dataset("digit-stories-mini").train.pictures([3, 1]).shape
        (2, 25, 32, 32)
        """
        if self.thumbnails is not None:
            return self.thumbnails[np.atleast_1d(indices)]
        cells = torch.nn.functional.adaptive_avg_pool1d(self.rows(indices), 256)
        cells = (cells - cells.amin((1, 2), True)) / (cells.std((1, 2), keepdim=True) + 1e-9)
        return (cells * 64).clamp(0, 255).byte().unflatten(2, (16, 16)).numpy()

    def batches(self, batch_size: int = 256) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Yield (indices, frames) over the whole set in order, read one batch ahead.

        >>> from vidhash_lab import open_dataset
        >>> videos = open_dataset("digit-stories-mini").database  # 300
        >>> [tuple(frames.shape) for indices, frames in videos.batches(batch_size=200)]
        [(200, 25, 128), (100, 25, 128)]
        """
        blocks = torch.arange(len(self)).split(batch_size)
        return prefetch((indices, self.rows(indices)) for indices in blocks)

    def fingerprint(self) -> str:
        """Tell features and views, by samples, from any others but copies -> 16 hex digits.

        >>> from vidhash_lab import open_dataset
        >>> data = open_dataset("digit-stories-mini")
        >>> data.train.fingerprint() == data.query.fingerprint()
        False
        """
        digest = hashlib.sha256()
        for rows in (self.features, self.views):
            if rows is None:
                continue
            digest.update(f"{rows.key} {rows.shape} {rows.dtype}".encode())
            size = math.prod(rows.shape) * rows.dtype.itemsize
            sampled = SAMPLED_BYTES * len(rows) * rows.shape[1] // size  # frames, or views
            count = min(len(rows), SAMPLED_VIDEOS, max(1, sampled))
            indices = np.linspace(0, len(rows) - 1, count).astype(int)
            columns = np.arange(count) % rows.shape[1]
            read = rows[:] if size <= SAMPLED_BYTES else rows[indices, columns]
            digest.update(read.tobytes())
        return digest.hexdigest()[:16]

    def validate(self) -> None:
        """Read everything once: non-finite values are a `DataError`, all-zero videos a warning."""
        for view in [None, *range(self.num_views)]:
            rows = self.features if view is None else self.views
            bad, zeros = odd_videos(rows, view)
            if len(bad):
                _refuse(rows, bad)
            if len(zeros):
                found = f"{len(zeros)} of {len(rows)} videos are all zero in `{rows.key}`"
                where = f"first {rows.where(zeros[0])}: were their frames read?"
                warnings.warn(f"{found}, {where}", stacklevel=2)

    def _open_views(self, paths, in_memory):
        if paths:
            views = Rows(paths, "views", in_memory, self._options["block"])
        else:
            views = self._own_rows("views", in_memory)
        if views is None:
            return None
        N, _, T, D = views.whole
        if (N, T, D) != self.features.whole:
            raise DataError(
                f"{views.paths[0]}: `views` are (N, V, T, D) = {views.whole}, but `feats` of "
                f"{self.paths[0]} (N, T, D) = {self.features.whole}. Make both from the same "
                "videos, frames and backbone."
            )
        return views

    def _own_rows(self, key, in_memory=False):
        """Open a key of the files themselves, which must have it all or none, row by row."""
        there = [path for path in self.paths if has_key(path, key)]
        if not there:
            return None
        if missing := [path for path in self.paths if path not in there]:
            raise DataError(f"{missing[0]}: has no `{key}`, but {there[0]} has. Add or remove it.")
        rows = Rows(self.paths, key, in_memory, self._options["block"])
        for path, count, videos in zip(self.paths, rows.counts, self.features.counts):
            if count != videos:
                found = f"`{key}` has {count} rows, `feats` has {videos}"
                raise DataError(f"{path}: {found}. Each video needs one row in both.")
        return rows

    def _labels(self, key, given=None, classes=None):
        """Return the labels given, else those of the files -> (N, C) bool; None without any."""
        rows = self._own_rows(key) if given is None else np.asarray(given)
        if rows is None:
            return None

        def where(row):
            return rows.where(row) if given is None else f"row {row}"

        labels = rows[:] if classes is None else one_hot(rows[:], classes, key, where)
        if labels.ndim != 2 or len(labels) != len(self):
            wanted = f"one multi-hot row for each of the {len(self)} videos, ({len(self)}, C)"
            raise DataError(f"`{key}` of {self.paths[0]} are {labels.shape}; expected {wanted}.")
        return multi_hot(labels, key, where)


def prefetch(iterable: Iterable, depth: int = 2) -> Iterator:
    """Yield the items of an iterable, drawn by one background thread up to `depth` ahead.

    Torch uses one core there: a second team of workers costs a training a quarter of its speed.

    >>> list(prefetch(number**2 for number in range(4)))
    [0, 1, 4, 9]
    """
    iterator, end = iter(iterable), object()
    with ThreadPoolExecutor(1, initializer=torch.set_num_threads, initargs=(1,)) as executor:
        ahead = deque(executor.submit(next, iterator, end) for _ in range(depth))
        while (item := ahead.popleft().result()) is not end:
            ahead.append(executor.submit(next, iterator, end))
            yield item


def _finite(rows, indices, *view):
    """Read rows, or one view of each, as a float32 tensor, or raise if they are not finite."""
    frames = torch.from_numpy(rows[indices, *view]).float()
    if not np.isfinite(frames.numpy().sum()):  # one cheap pass; look closer only where it fails
        bad = ~torch.isfinite(frames).flatten(1).all(1)
        if bad.any():
            _refuse(rows, indices[bad.numpy()])
    return frames


def odd_videos(
    rows: Rows, view: int | None = None, title: str | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Read everything -> videos with non-finite values, all-zero ones; a `title` shows a bar.

    >>> with h5py.File("films.h5", "w") as file:
    ...     file["feats"] = np.stack([np.full((5, 3), value, "f4") for value in (1, np.nan, 0)])
    ...
    >>> broken, empty = odd_videos(FeatureSet("films.h5").features)
    >>> broken.tolist(), empty.tolist()
    ([1], [2])
    """
    zeros, bad = [], []
    blocks = np.split(np.arange(len(rows)), range(256, len(rows), 256))
    for indices in tqdm(blocks, desc=title, disable=title is None, leave=False):
        frames = torch.from_numpy(rows[indices] if view is None else rows[indices, view]).flatten(1)
        bad.append(indices[~torch.isfinite(frames).all(1).numpy()])
        zeros.append(indices[(frames == 0).all(1).numpy()])
    return np.concatenate(bad), np.concatenate(zeros)


def _refuse(rows, bad):
    first = "; ".join(rows.where(index) for index in bad[:5])
    raise DataError(
        f"`{rows.key}` has NaN or infinite values in {len(bad)} of the videos read, first: {first}."
        " Extract these again or leave them out; `dataset.validate()` counts them all."
    )


@dataclass(frozen=True)
class VideoDataset:
    """A training set to learn from, a database to search, and the queries that search it.

    >>> from vidhash_lab import open_dataset
    >>> data = open_dataset("digit-stories-mini")
    >>> len(data.train), len(data.database), len(data.query)
    (600, 300, 60)
    """

    name: str
    train: FeatureSet
    database: FeatureSet
    query: FeatureSet

    def __post_init__(self):
        for other in (self.database, self.query):
            ours, theirs = self.train.features.shape[1:], other.features.shape[1:]
            if ours != theirs:
                raise DataError(
                    f"{other.paths[0]}: videos are (T, D) = {theirs}, those of "
                    f"{self.train.paths[0]} are {ours}. Extract all sets the same way."
                )
        check_columns((s.paths[0], "labels", s.labels) for s in (self.database, self.query))

    @property
    def num_frames(self) -> int:
        """T, frames per video."""
        return self.train.num_frames

    @property
    def feature_dim(self) -> int:
        """D, width of a frame's features."""
        return self.train.feature_dim

    @property
    def self_query(self) -> bool:
        """Whether the query set is the database, so that every query finds itself."""
        return self.query is self.database

    def fingerprint(self) -> str:
        """Tell this data set from any other by features, views and labels of all -> 16 digits.

        >>> from vidhash_lab import open_dataset
        >>> len(open_dataset("digit-stories-mini").fingerprint())
        16
        """
        digest = hashlib.sha256()
        for part in (self.train, self.database, self.query):
            labels = b"" if part.labels is None else np.packbits(part.labels).tobytes()
            digest.update(part.fingerprint().encode() + labels)
        return digest.hexdigest()[:16]

    def validate(self) -> None:
        """Read every set once; see `FeatureSet.validate`."""
        for feature_set in dict.fromkeys((self.train, self.database, self.query)):
            feature_set.validate()
