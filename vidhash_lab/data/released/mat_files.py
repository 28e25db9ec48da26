"""Label matrices of `.mat` files, of both generations.

Up to version 7.2 MATLAB wrote a format of its own, which scipy reads; version 7.3 is HDF5, with
every array transposed, since MATLAB counts columns first. Both keep a sparse matrix as its columns.
"""

import h5py
import numpy as np
import scipy.io
import scipy.sparse

from vidhash_lab.data.released.mat_check import check_mat_5
from vidhash_lab.data.rows import DataError

NUMERIC = {"double", "single", "logical", "sparse"}
NUMERIC |= {f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)}
MOST_ENTRIES = 1 << 30  # a damaged header can ask for any size; this is 1 GB of labels


def read_mat_labels(path, key="labels", videos=None):
    """Read a multi-hot label matrix of a `.mat` file -> (N, C) bool.

    Args:
        key: name of the matrix in the file.
        videos: how many rows there must be, where that is known.

    Raises FileNotFoundError, and `DataError` that names file and key, for what is no such matrix.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such label file. Check the folder and the name.")
    try:
        return _read_hdf5(path, key, videos) if h5py.is_hdf5(path) else _read_5(path, key, videos)
    except DataError:
        raise
    except Exception as error:  # of a damaged file the two readers raise nearly anything
        raise DataError(
            f"{path}: `{key}` cannot be read: no .mat file, damaged or cut short "
            f"({type(error).__name__}: {error}). Fetch it again."
        ) from error


def _read_5(path, key, videos):
    kinds = {name: (shape, kind) for name, shape, kind in scipy.io.whosmat(path)}
    if key not in kinds:
        raise _no_key(path, key, kinds)
    shape, kind = kinds[key]
    if kind not in NUMERIC:
        raise DataError(f"{path}: `{key}` is a MATLAB {kind}; expected 0 and 1, (N, C).")
    _check_shape(path, key, shape, videos)
    if scipy.io.matlab.matfile_version(path)[0] == 1:  # of version 5; 0 is version 4
        check_mat_5(path, key)
    matrix = scipy.io.loadmat(path, variable_names=[key])[key]
    return _checked(path, key, matrix, shape)


def _read_hdf5(path, key, videos):
    with h5py.File(path) as file:
        if key not in file:
            raise _no_key(path, key, (name for name in file if not name.startswith("#")))
        node = file[key]
        if "MATLAB_sparse" in node.attrs:
            shape = int(node.attrs["MATLAB_sparse"]), len(node["jc"]) - 1
            _check_shape(path, key, shape, videos)
            matrix = _sparse(node, shape)
        elif not isinstance(node, h5py.Dataset) or node.dtype.kind not in "biuf":
            raise DataError(f"{path}: `{key}` is no matrix of numbers; expected 0 and 1, (N, C).")
        else:
            shape = node.shape[::-1]
            _check_shape(path, key, shape, videos)
            matrix = node[()].T
    return _checked(path, key, matrix, shape)


def _sparse(node, shape):
    """Put a sparse matrix together from its values, their rows, and where each column begins."""
    begins = node["jc"][()].astype(np.int64)
    # MATLAB leaves both out where every value is 0.
    values, rows = (node[part][()] if part in node else np.zeros(0) for part in ("data", "ir"))
    return scipy.sparse.csc_array((values, rows.astype(np.int64), begins), shape)


def _checked(path, key, matrix, shape):
    """Return what was read as (N, C) bool, if it has that shape and is all 0 and 1."""
    if scipy.sparse.issparse(matrix):
        if matrix.format != "coo":  # of version 4; checked already
            matrix.check_format(full_check=True)  # else a row that is not there ends the process
        matrix = matrix.toarray()
    if matrix.shape != shape:
        raise DataError(f"{path}: `{key}` should be {shape} by its header, but is {matrix.shape}.")
    wrong = (matrix != 0) & (matrix != 1)
    if wrong.any():
        row, column = np.argwhere(wrong)[0]
        raise DataError(
            f"{path}: `{key}` is {matrix[row, column]} in row {row}, column {column}; labels are "
            f"multi-hot, 0 or 1 ({wrong.sum()} values are neither)."
        )
    return np.ascontiguousarray(matrix, dtype=bool)


def _check_shape(path, key, shape, videos):
    if len(shape) != 2 or 0 in shape or shape[0] * shape[1] > MOST_ENTRIES:
        raise DataError(f"{path}: `{key}` has shape {shape}; expected a label matrix (N, C).")
    if videos is not None and shape[0] != videos:
        turned = " It lies the other way round: transpose it." if shape[1] == videos else ""
        raise DataError(
            f"{path}: `{key}` is {shape}; expected one row for each of the {videos} videos, "
            f"({videos}, C).{turned}"
        )


def _no_key(path, key, found):
    names = sorted(found)
    return DataError(f"{path}: no matrix `{key}`; found {names}. Rename it, or check the file.")
