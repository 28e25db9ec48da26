"""Rows of HDF5 files: random access that stays on disk.

Rows of a contiguous, uncompressed data set are copied out of a memory map; others come through
sorted block reads, so that no block is decompressed twice a batch. Either reader takes a tuple:
rows (B,), or rows (B,) and the columns (B,) of them -> (B, ...).
"""

import copy
import math
import mmap
from collections.abc import Iterable
from pathlib import Path

import h5py
import numpy as np

from vidhash_lab.data.files import DataError, PathLike, own, refusing_damage

RELEASE_BYTES = 16 << 20  # copied out of a map before its pages are given back
BLOCK_BYTES = 8 << 20  # read at once of a chunked or compressed file
MOST_COMPRESSED = 4096  # times: no compression makes features smaller by so much
SHAPES = {  # of each key: how many axes its array may have, and which they are
    "feats": ((3,), "(N, T, D)"),
    "views": ((4,), "(N, V, T, D)"),
    "thumbnails": ((4, 5), "(N, T, h, w) or (N, T, h, w, 3)"),
    "labels": ((1, 2), "(N, C)"),  # (N,): class numbers
    "fine_labels": ((2,), "(N, C)"),
    "video_ids": ((1,), "(N,)"),
}
Paths = PathLike | Iterable[PathLike]


def mapped_rows(path, dataset):
    """Read rows of a contiguous, uncompressed HDF5 data set: copies out of a memory map.

    >>> with h5py.File("films.h5", "w") as file:
    ...     file["feats"] = np.arange(6.0).reshape(3, 2)
    ...
    >>> with h5py.File("films.h5") as file:
    ...     read = mapped_rows("films.h5", file["feats"])
    ...
    >>> read([np.array([2, 0])]).tolist()
    [[4.0, 5.0], [0.0, 1.0]]
    """
    mapped = np.memmap(path, dataset.dtype, "r", dataset.id.get_offset(), dataset.shape)
    array = np.asarray(mapped)

    def read(index):
        source = array.reshape(-1, *array.shape[len(index) :])
        places = np.ravel_multi_index(index, array.shape[: len(index)])
        out = np.empty((len(places), *source.shape[1:]), source.dtype)
        step = max(1, RELEASE_BYTES // max(1, source[0].nbytes))
        for start in range(0, len(places), step):
            piece = slice(start, start + step)
            # Rows are checked already: "clip" spares numpy a buffer for `out`.
            np.take(source, places[piece], axis=0, out=out[piece], mode="clip")
            if hasattr(mmap, "MADV_DONTNEED"):
                # Pages stay in the system's cache, but count no longer as this process's memory.
                # Around a row the system maps far more than is read, so this cannot wait.
                mapped.base.madvise(mmap.MADV_DONTNEED)
        return out

    return read


def block_rows(path, dataset):
    """Read rows of a chunked or compressed HDF5 data set: each touched block once, in order.

    >>> with h5py.File("films.h5", "w") as file:
    ...     data = np.arange(6.0).reshape(3, 2)
    ...     read = block_rows("films.h5", file.create_dataset("feats", data=data, chunks=(2, 2)))
    ...     read([np.array([2, 0])]).tolist()
    ...
    [[4.0, 5.0], [0.0, 1.0]]
    """
    chunk, columns, *_ = dataset.chunks or (1, 1)
    row_bytes = max(1, dataset.dtype.itemsize * math.prod(dataset.shape[1:]))
    sizes = chunk * max(1, BLOCK_BYTES // (row_bytes * chunk)), columns

    def read(index):
        blocks = np.stack([wanted // size for wanted, size in zip(index, sizes)])
        order = np.lexsort(blocks[::-1])
        cuts = np.flatnonzero(np.diff(blocks[:, order]).any(0)) + 1
        out = np.empty((len(order), *dataset.shape[len(index) :]), dataset.dtype)
        for places in np.split(order, cuts) if len(order) else []:
            inside = [wanted[places] for wanted in index]
            bounds = tuple(slice(i.min(), i.max() + 1) for i in inside)
            what = f"`{dataset.name[1:]}`, row {bounds[0].start} and after it"
            with refusing_damage(path, what):
                block = dataset[bounds]  # the data set keeps its file open
            out[places] = block[tuple(i - i.min() for i in inside)]
        return out

    return read


class Rows:
    """One key, of `SHAPES`, of several HDF5 files as an array (N, ...) that reads what is indexed.

    `rows[indices]` takes an integer, a slice or integers (B,) and gives numpy rows (B, ...);
    `rows[indices, columns]` gives one column of each row. Of a `block` (a, b), these are the files'
    rows a to b - 1, while `whole` is the shape (N, ...) of all. Files that do not fit are a
    `DataError`.

    >>> with h5py.File("films.h5", "w") as file:
    ...     file["feats"] = np.arange(24.0, dtype="f4").reshape(4, 3, 2)
    ...
    >>> rows = Rows("films.h5", "feats")
    >>> rows.shape, rows[[2, 0]].shape, rows[1, 2].tolist()
    ((4, 3, 2), (2, 3, 2), [10.0, 11.0])
    """

    def __init__(
        self,
        paths: Paths,
        key: str,
        in_memory: bool = False,
        block: tuple[int, int] | None = None,
    ):
        paths = [paths] if isinstance(paths, PathLike) else paths
        self.paths, self.key = [Path(path) for path in paths], key
        datasets = [_open(path, key) for path in self.paths]
        for path, dataset in zip(self.paths, datasets):
            pair = datasets[0], dataset
            ours, theirs = (f"rows {each.shape[1:]} of {each.dtype}" for each in pair)
            if theirs != ours:
                raise DataError(
                    f"{path}: `{key}` has {theirs}, but {self.paths[0]} has {ours}. Files of one "
                    "set must agree: open them as sets of their own, or convert one."
                )
        self.dtype = datasets[0].dtype
        self.counts = [len(dataset) for dataset in datasets]
        self._starts = np.cumsum([0, *self.counts])
        self.whole = (sum(self.counts), *datasets[0].shape[1:])
        self.first, stop = block or (0, self.whole[0])
        self.shape = (stop - self.first, *self.whole[1:])
        self._readers = [_reader(path, dataset) for path, dataset in zip(self.paths, datasets)]
        self._whole = None
        if in_memory:
            self._whole = self[:]

    def __len__(self):
        return self.shape[0]

    def __getitem__(self, index):
        rows, *columns = index if isinstance(index, tuple) else (index,)
        if isinstance(rows, slice):
            rows = np.arange(*rows.indices(len(self)))
        index = [self._check(wanted, axis) for axis, wanted in enumerate([rows, *columns])]
        index = tuple(np.broadcast_arrays(*index))
        if index[0].ndim == 0:
            return self[tuple(wanted[None] for wanted in index)][0]
        if self._whole is not None:
            return self._whole[index]
        index = index[0] + self.first, *index[1:]
        if len(self._readers) == 1:
            return self._readers[0](index)
        out = np.empty((len(index[0]), *self.shape[len(index) :]), self.dtype)
        part_of = np.searchsorted(self._starts, index[0], side="right") - 1
        for part in np.unique(part_of):
            places = np.flatnonzero(part_of == part)
            rows, *columns = (wanted[places] for wanted in index)
            out[places] = self._readers[part]((rows - self._starts[part], *columns))
        return out

    def block(self, start: int, stop: int) -> "Rows":
        """Give rows `start` to `stop` - 1 as an array of their own, over the same open files."""
        part = copy.copy(self)
        part.first, part.shape = self.first + start, (stop - start, *self.whole[1:])
        if self._whole is not None:
            part._whole = self._whole[start:stop]
        return part

    def _check(self, wanted, axis):
        wanted, name = np.asarray(wanted), ("row", "column")[axis]
        if wanted.size and wanted.dtype.kind not in "iu":
            raise TypeError(f"{name}s are asked for by integers, not by {wanted.dtype}")
        last, where = self.shape[axis] - 1, f"{self.paths[0]}: `{self.key}`"
        wrong = wanted[(wanted < 0) | (wanted > last)]
        if wrong.size:
            raise IndexError(f"{where}, {name} {wrong[0]}; {name}s are 0 to {last}")
        return wanted.astype(np.int64)

    def where(self, index: int) -> str:
        """Name the file and the row in it of one index, for messages."""
        index = index + self.first
        part = int(np.searchsorted(self._starts, index, side="right") - 1)
        return f"{self.paths[part]}, row {index - self._starts[part]}"


def _open(path, key):
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such feature file. Check the folder and the name.")
    with refusing_damage(path):
        file = h5py.File(path)
        dataset, what = own(file, key), f"{path}: `{key}`"
        if not isinstance(dataset, h5py.Dataset):
            problem = f"no data set `{key}`; found {sorted(file)}"
            raise DataError(f"{path}: {problem}. Rename the key, or is this no feature file?")
        ranks, wanted = SHAPES[key]
        if dataset.ndim not in ranks:
            raise DataError(f"{what} has shape {dataset.shape}; expected {wanted}.")
        if 0 in dataset.shape:
            raise DataError(f"{what} has shape {dataset.shape}: nothing in it to read.")
        # Only names may be text: strings of a damaged file can keep HDF5 reading for ever.
        is_text = h5py.check_string_dtype(dataset.dtype) is not None
        if not (is_text if key == "video_ids" else dataset.dtype.kind in "fiub"):
            wanted = "text" if key == "video_ids" else "numbers"
            raise DataError(f"{what} is of {dataset.dtype}; expected {wanted}.")
        if key in ("feats", "views") and dataset.dtype not in ("float16", "float32"):
            wanted = f"features are float16 or float32. Convert them: {key}.astype('float32')"
            raise DataError(f"{what} is {dataset.dtype}; {wanted}.")
        size, there = math.prod(dataset.shape) * dataset.dtype.itemsize, path.stat().st_size
        if size > MOST_COMPRESSED * there:
            raise DataError(
                f"{what} has shape {dataset.shape}, {size / 1e9:.1f} GB, in a file of "
                f"{there / 1e6:.1f} MB: damaged, or rows that were never written."
            )
        return dataset


def _reader(path, dataset):
    with refusing_damage(path):
        if dataset.fletcher32:  # HDF5 2.0 ends the process at a block too short for its checksum
            sizes = []
            dataset.id.chunk_iter(lambda block: sizes.append(block.size))
            if min(sizes, default=4) < 4:
                raise DataError(f"{path}: `{dataset.name[1:]}` has an empty block: damaged.")
        plain = dataset.chunks is None and dataset.id.get_offset() is not None
        mappable = plain and dataset.dtype.kind in "fiu"
        return (mapped_rows if mappable else block_rows)(path, dataset)
