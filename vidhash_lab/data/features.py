"""Feature sets: rows of HDF5 files, read as they are asked for.

A feature file holds `feats` (N, T, D) in float16 or float32 and, where they are known,
`labels` (N, C) and `fine_labels` (N, C'), multi-hot, and `thumbnails` (N, T, h, w[, 3]) uint8.
Several files in a row can be one set (YFCC's training set comes in nine). Nothing is read whole
unless `in_memory=True` asks for it: a data set of 168 GB trains in the memory of its batches.

N videos in a set, T frames per video, D feature width, B videos in a batch, C categories.
"""

import warnings
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import torch

from vidhash_lab.data.rows import DataError, Rows, has_key, prefetch

FLOATS = (np.dtype("float16"), np.dtype("float32"))


class FeatureSet:
    """The videos of one set: features (N, T, D) that stay on disk, labels, thumbnails.

    Args:
        paths: one HDF5 file, or several that follow each other.
        labels: (N, C) multi-hot, where they lie elsewhere; else the files' own `labels`.
        in_memory: read all features now, in the type they are stored in.

    Raises FileNotFoundError and `DataError` for whatever does not fit.
    """

    def __init__(self, paths, *, labels=None, in_memory=False):
        paths = [paths] if isinstance(paths, (str, Path)) else list(paths)
        self.features = Rows(paths, "feats", rank=3, in_memory=in_memory)
        self.paths = self.features.paths
        if self.features.dtype not in FLOATS:
            raise DataError(
                f"{self.paths[0]}: `feats` is {self.features.dtype}; features are float16 or "
                "float32. Convert them, for example with feats.astype('float32')."
            )
        with h5py.File(self.paths[0]) as file:
            self.attributes = dict(file.attrs)
        self.labels = self._read_labels("labels") if labels is None else self._fit(labels, "labels")
        self.fine_labels = self._read_labels("fine_labels")
        self.thumbnails = self._rows_if_there("thumbnails", rank=(4, 5))

    def __len__(self):
        return len(self.features)

    def __repr__(self):
        return f"FeatureSet({len(self)} videos, T {self.num_frames}, D {self.feature_dim})"

    @property
    def num_frames(self):
        """T, frames per video."""
        return self.features.shape[1]

    @property
    def feature_dim(self):
        """D, width of a frame's features."""
        return self.features.shape[2]

    def rows(self, indices):
        """Read videos (B,) -> (B, T, D) float32. NaN or infinite values are a `DataError`."""
        indices = np.atleast_1d(np.asarray(indices))
        frames = torch.from_numpy(self.features[indices]).float()
        if not np.isfinite(frames.numpy().sum()):  # one cheap pass; look closer only if odd
            bad = ~torch.isfinite(frames).flatten(1).all(1)
            if bad.any():
                self._refuse(indices[bad.numpy()])
        return frames

    def pictures(self, indices):
        """Draw videos (B,) -> (B, T, h, w[, 3]) uint8: their thumbnails, where there are any.

        Else each frame is 16 x 16 grey cells, its features in order, averaged where D > 256.
        """
        if self.thumbnails is not None:
            return self.thumbnails[np.atleast_1d(indices)]
        cells = torch.nn.functional.adaptive_avg_pool1d(self.rows(indices), 256)
        cells = (cells - cells.amin((1, 2), True)) / (cells.std((1, 2), keepdim=True) + 1e-9)
        return (cells * 64).clamp(0, 255).byte().unflatten(2, (16, 16)).numpy()

    def batches(self, batch_size=256):
        """Yield (indices, frames) over the whole set in order, read one batch ahead."""
        blocks = torch.arange(len(self)).split(batch_size)
        return prefetch((indices, self.rows(indices)) for indices in blocks)

    def validate(self):
        """Read everything once: non-finite values are a `DataError`, all-zero videos a warning."""
        zeros, bad = [], []
        for start in range(0, len(self), 256):
            frames = torch.from_numpy(self.features[start : start + 256]).flatten(1)
            bad.append(start + torch.where(~torch.isfinite(frames).all(1))[0])
            zeros.append(start + torch.where((frames == 0).all(1))[0])
        zeros, bad = torch.cat(zeros), torch.cat(bad)
        if len(bad):
            self._refuse(bad.numpy())
        if len(zeros):
            warnings.warn(
                f"{len(zeros)} of {len(self)} videos are all zero, first "
                f"{self.features.where(int(zeros[0]))}: were their frames read?",
                stacklevel=2,
            )

    def _refuse(self, bad):
        first = "; ".join(self.features.where(int(index)) for index in bad[:5])
        raise DataError(
            f"`feats` has NaN or infinite values in {len(bad)} of the videos read, first: {first}. "
            "Extract these videos again or leave them out; `dataset.validate()` counts them all."
        )

    def _rows_if_there(self, key, rank):
        there = [path for path in self.paths if has_key(path, key)]
        if there and there != self.paths:
            missing = next(path for path in self.paths if path not in there)
            raise DataError(f"{missing}: has no `{key}`, but {there[0]} has. Add it, or remove it.")
        rows = Rows(self.paths, key, rank) if there else None
        if rows is not None and not np.array_equal(rows.starts, self.features.starts):
            part = int(np.flatnonzero(rows.starts != self.features.starts)[0]) - 1
            raise DataError(
                f"{self.paths[part]}: `{key}` has {np.diff(rows.starts)[part]} rows, `feats` has "
                f"{np.diff(self.features.starts)[part]}. Each video needs one row in both."
            )
        return rows

    def _read_labels(self, key):
        rows = self._rows_if_there(key, rank=2)
        return None if rows is None else self._fit(rows[:], key)

    def _fit(self, labels, key):
        labels = np.asarray(labels)
        if labels.ndim != 2 or len(labels) != len(self):
            raise DataError(
                f"`{key}` of {self.paths[0]} are {labels.shape}; expected one multi-hot row for "
                f"each of the {len(self)} videos: ({len(self)}, C)."
            )
        return labels.astype(bool)


@dataclass(frozen=True)
class VideoDataset:
    """A training set to learn from, a database to search, and the queries that search it."""

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
        columns = {s.labels.shape[1] for s in (self.database, self.query) if s.labels is not None}
        if len(columns) > 1:
            raise DataError(
                f"{self.name}: database and query labels have {sorted(columns)} columns; "
                "the same category must be the same column in both."
            )

    @property
    def num_frames(self):
        """T, frames per video."""
        return self.train.num_frames

    @property
    def feature_dim(self):
        """D, width of a frame's features."""
        return self.train.feature_dim

    @property
    def self_query(self):
        """Whether the query set is the database, so that every query finds itself."""
        return self.query is self.database

    def validate(self):
        """Read every set once; see `FeatureSet.validate`."""
        for feature_set in {id(s): s for s in (self.train, self.database, self.query)}.values():
            feature_set.validate()
