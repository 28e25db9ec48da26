"""Label matrices of `.mat` files, of both generations.

Up to version 7.2 MATLAB wrote a format of its own, which scipy reads; version 7.3 is HDF5, with
every array transposed. Both keep a sparse matrix as its columns.
"""

import struct
import zlib
from pathlib import Path

import h5py
import numpy as np

from vidhash_lab.data.files import DataError, own, refusing_damage
from vidhash_lab.data.labels import multi_hot

NUMERIC = {"double", "single", "logical", "sparse"}
NUMERIC |= {f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)}
MOST_ENTRIES = 1 << 30  # a damaged header can ask for any size; this is 1 GB of labels


def read_mat_labels(path: Path, key: str = "labels", videos: int | None = None) -> np.ndarray:
    """Read a multi-hot label matrix of a `.mat` file -> (N, C) bool.

    `key` names the matrix, `videos` is the N that it must have, where that is known. Raises
    FileNotFoundError, and `DataError` that names file and key, for what is no such matrix.

    >>> import numpy as np, scipy.io
    >>> scipy.io.savemat("labels.mat", {"labels": np.eye(3)})
    >>> read_mat_labels(Path("labels.mat"), videos=3).shape
    (3, 3)
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such label file. Check the folder and the name.")
    with refusing_damage(path, f"`{key}` cannot be read, fetch the file again: no .mat file"):
        matrix = (_read_hdf5 if h5py.is_hdf5(path) else _read_matlab_5)(path, key, videos)
        if not isinstance(matrix, np.ndarray):  # of scipy.sparse
            if matrix.format != "coo":  # of version 4; checked already
                matrix.check_format(full_check=True)  # else a row not there ends the process
            matrix = matrix.toarray()
        return multi_hot(matrix, key, lambda row: f"{path}, row {row}")


def _read_matlab_5(path, key, videos):
    """Read a matrix of version 7.2 or older, dense or sparse."""
    import scipy.io  # here and below: opening a feature file needs no scipy

    kinds = {name: (shape, kind) for name, shape, kind in scipy.io.whosmat(path)}
    _check_key(path, key, kinds)
    shape, kind = kinds[key]
    if kind not in NUMERIC:
        raise DataError(f"{path}: `{key}` is a MATLAB {kind}; expected 0 and 1, (N, C).")
    _check_shape(path, key, shape, videos)
    if scipy.io.matlab.matfile_version(path)[0] == 1:  # of version 5; 0 is version 4
        _check_elements(path, key)
    matrix = scipy.io.loadmat(path, variable_names=[key])[key]
    if matrix.shape != shape:
        raise DataError(f"{path}: `{key}` should be {shape} by its header, but is {matrix.shape}.")
    return matrix


def _read_hdf5(path, key, videos):
    """Read a matrix of version 7.3, dense or sparse."""
    import scipy.sparse

    with h5py.File(path) as file:
        _check_key(path, key, (name for name in file if not name.startswith("#")))
        node = own(file, key)
        if "MATLAB_sparse" in node.attrs:  # its values, their rows, and where each column begins
            shape = int(node.attrs["MATLAB_sparse"]), len(own(node, "jc")) - 1
            _check_shape(path, key, shape, videos)
            # MATLAB leaves values and rows out where every value is 0.
            parts = [own(node, name) for name in ("data", "ir", "jc")]
            values, rows, begins = (np.zeros(0) if part is None else part[()] for part in parts)
            indices = rows.astype(np.int64), begins.astype(np.int64)
            return scipy.sparse.csc_array((values, *indices), shape)
        if not isinstance(node, h5py.Dataset) or node.dtype.kind not in "biuf":
            raise DataError(f"{path}: `{key}` is no matrix of numbers; expected 0 and 1, (N, C).")
        _check_shape(path, key, node.shape[::-1], videos)
        return node[()].T


def _check_shape(path, key, shape, videos):
    if len(shape) != 2 or 0 in shape or shape[0] * shape[1] > MOST_ENTRIES:
        raise DataError(f"{path}: `{key}` has shape {shape}; expected a label matrix (N, C).")
    if videos is not None and shape[0] != videos:
        turned = " It lies the other way round: transpose it." if shape[1] == videos else ""
        wanted = f"expected one row for each of the {videos} videos, ({videos}, C)"
        raise DataError(f"{path}: `{key}` is {shape}; {wanted}.{turned}")


def _check_key(path, key, found):
    names = sorted(found)
    if key not in names:
        raise DataError(f"{path}: no matrix `{key}`; found {names}. Rename it, or check the file.")


# scipy 1.17 ends the process at an unknown type number, and at a sparse matrix whose indices lead
# outside it; found with tests/fuzz/fuzz_loaders.py. Here they are a ValueError.
# An element of the file is a type, a size in bytes, and that many bytes, padded to eight; four
# bytes and fewer lie in one word with both. A matrix is an element of elements: flags, dimensions,
# name, values; a sparse one has the rows and where each column begins before its values.
NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8"}
NUMBERS |= {13: "u8"}
MATRIX, COMPRESSED, SPARSE = 14, 15, 5
MOST_BYTES = 8 << 30  # that a compressed matrix may unfold to


def _check_elements(path, key):
    """Raise ValueError where the matrix `key` of a file of version 5 would mislead scipy."""
    data = memoryview(path.read_bytes())
    order = "<" if data[126:128] == b"IM" else ">"
    for kind, body in _elements(data[128:], order):
        if kind == COMPRESSED:
            unfolded = zlib.decompressobj().decompress(body, MOST_BYTES)
            kind, body = next(_elements(memoryview(unfolded), order), (0, b""))
        if kind != MATRIX:
            raise ValueError(f"an element of type {kind} where a matrix should be")
        flags, dimensions, name, *values = _elements(body, order)
        if bytes(name[1]) == key.encode():
            values = [_numbers(element, order) for element in values]
            if struct.unpack_from(order + "I", flags[1])[0] & 255 == SPARSE:
                _check_sparse(_numbers(dimensions, order), *values)


def _elements(data, order):
    """Yield type and bytes of each element."""
    place = 0
    while place + 8 <= len(data):
        kind, size = struct.unpack_from(order + "II", data, place)
        start = place + 8
        if kind >> 16:  # both in one word
            kind, size, start = kind & 0xFFFF, kind >> 16, place + 4
        if start + size > len(data):
            raise ValueError("an element is longer than what holds it")
        yield kind, data[start : start + size]
        place = start + size + (0 if kind == COMPRESSED else -(start + size) % 8)


def _numbers(element, order):
    kind, data = element
    if kind not in NUMBERS:
        raise ValueError(f"no type has the number {kind}")
    return np.frombuffer(data, order + NUMBERS[kind])


def _check_sparse(shape, rows, begins, values, *imaginary):
    begins = begins[: shape[1] + 1].astype(np.int64)
    count = begins[-1] if len(begins) else -1
    fits = len(begins) == shape[1] + 1 and begins[0] == 0 and (np.diff(begins) >= 0).all()
    fits = fits and count <= min(len(rows), len(values))
    if not fits or ((rows[:count] < 0) | (rows[:count] >= shape[0])).any():
        raise ValueError("a sparse matrix whose indices lead outside it")
