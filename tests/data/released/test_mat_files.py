"""Labels of .mat files come back as written, from both generations; odd files are refused."""

import struct

import h5py
import numpy as np
import pytest
import scipy.io
import scipy.sparse

from vidhash_lab.data import DataError
from vidhash_lab.data.released.mat_files import read_mat_labels

LABELS = np.random.default_rng(0).random((7, 4)) < 0.4


def write_hdf5(path, matrix, key="labels"):
    """Write as MATLAB 7.3 does: transposed, behind a block of its own, sparse by columns."""
    with h5py.File(path, "w", userblock_size=512) as file:
        if not scipy.sparse.issparse(matrix):
            file[key] = np.asarray(matrix).T
            return
        matrix = matrix.tocsc()
        file.create_group(key).attrs["MATLAB_sparse"] = np.uint64(matrix.shape[0])
        file[f"{key}/jc"] = matrix.indptr.astype("u8")
        if matrix.nnz:
            file[f"{key}/ir"], file[f"{key}/data"] = matrix.indices.astype("u8"), matrix.data


def write_5(path, matrix, key="labels"):
    scipy.io.savemat(path, {key: matrix, "other": 3})


def write_compressed(path, matrix, key="labels"):
    scipy.io.savemat(path, {key: matrix}, do_compression=True)


def write_4(path, matrix, key="labels"):
    scipy.io.savemat(path, {key: matrix}, format="4")


WRITERS = [write_5, write_compressed, write_4, write_hdf5]


@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize("dtype", ["u1", "f8"])
@pytest.mark.parametrize("sparse", [False, True])
def test_labels_come_back_as_written(tmp_path, write, dtype, sparse):
    path, matrix = tmp_path / "labels.mat", LABELS.astype(dtype)
    write(path, scipy.sparse.csc_array(matrix.astype("f8")) if sparse else matrix)
    read = read_mat_labels(path, videos=7)
    assert read.dtype == bool and np.array_equal(read, LABELS)


@pytest.mark.parametrize("write", WRITERS)
def test_a_sparse_matrix_of_zeros(tmp_path, write):
    write(tmp_path / "zeros.mat", scipy.sparse.csc_array((5, 3), dtype="f8"))
    assert np.array_equal(read_mat_labels(tmp_path / "zeros.mat"), np.zeros((5, 3), bool))


@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize(
    "matrix, key, videos, says",
    [
        (LABELS.astype("u1"), "re_label", None, r"no matrix `labels`; found \[.*'re_label'"),
        (
            LABELS.astype("f8") * [1, 1, 1, 0.5],
            "labels",
            None,
            r"row \d, column 3: `labels` is 0\.5",
        ),
        (np.diag([1.0, np.nan]), "labels", None, "row 1, column 1: `labels` is nan"),
        (LABELS.astype("u1"), "labels", 8, r"is \(7, 4\); expected one row for each of the 8"),
        (LABELS.T.astype("u1"), "labels", 7, "other way round: transpose it"),
    ],
)
def test_what_is_no_label_matrix(tmp_path, write, matrix, key, videos, says):
    write(tmp_path / "odd.mat", matrix, key)
    with pytest.raises(DataError, match=says) as error:
        read_mat_labels(tmp_path / "odd.mat", videos=videos)
    assert str(tmp_path / "odd.mat") in str(error.value) and "`labels`" in str(error.value)


@pytest.mark.parametrize(
    "matrix, says",
    [
        ("text", "is a MATLAB char"),
        ({"a": 1}, "is a MATLAB struct"),
        (np.zeros((2, 3, 4)), r"shape \(2, 3, 4\)"),
        (np.zeros((0, 4)), r"shape \(0, 4\)"),
    ],
)
def test_other_kinds_of_matlab_values(tmp_path, matrix, says):
    write_5(tmp_path / "odd.mat", matrix)
    with pytest.raises(DataError, match=says):
        read_mat_labels(tmp_path / "odd.mat")


def test_hdf5_that_is_no_matrix(tmp_path):
    with h5py.File(tmp_path / "odd.mat", "w") as file:
        file.create_group("labels")
        file["huge"] = h5py.Empty("f8")
        file.create_dataset("large", (1 << 20, 1 << 20), "u1", chunks=True)
        file["linked"] = h5py.ExternalLink("other.mat", "labels")
        file.create_group("sparse").attrs["MATLAB_sparse"] = 3
        file["sparse/jc"] = h5py.ExternalLink("other.mat", "jc")
    problems = {"labels": "no matrix", "huge": "huge", "large": "has shape"}
    problems |= {"linked": "`linked` is a link", "sparse": "`jc` is a link"}
    for key, says in problems.items():
        with pytest.raises(DataError, match=says):
            read_mat_labels(tmp_path / "odd.mat", key)


@pytest.mark.parametrize("write", [write_5, write_hdf5])
def test_a_sparse_matrix_with_rows_that_are_not_there(tmp_path, write):
    matrix = scipy.sparse.csc_array(LABELS.astype("f8"))
    matrix.indices[3] = 1 << 30  # unchecked, scipy writes there: the process would end
    write(tmp_path / "odd.mat", matrix)
    with pytest.raises(DataError, match=r"odd\.mat: `labels` cannot be read"):
        read_mat_labels(tmp_path / "odd.mat")


def damaged(path, old, new):
    """Replace bytes that must be there exactly once."""
    data = path.read_bytes()
    assert data.count(old) == 1
    path.write_bytes(data.replace(old, new))


def test_what_would_end_the_process_in_scipy(tmp_path):
    path, name = tmp_path / "odd.mat", b"labels\0\0"
    write_5(path, LABELS.astype("u1"))
    damaged(path, name + bytes([2, 0, 0, 0]), name + bytes([0, 0, 0, 0]))
    with pytest.raises(DataError, match=r"odd\.mat: `labels` .*no type has the number 0"):
        read_mat_labels(path)
    matrix = scipy.sparse.csc_array(LABELS.astype("f8"))
    begins = matrix.indptr.astype("i4").tobytes()
    for wrong in (
        begins[:4] + b"\x40\x40\x40\x40" + begins[8:],
        bytes(len(begins))[:-4] + b"\xff" * 4,
    ):
        write_5(path, matrix)
        damaged(path, begins, wrong)
        with pytest.raises(DataError, match=r"odd\.mat: `labels` .*indices lead outside"):
            read_mat_labels(path)


def test_files_of_the_other_byte_order(tmp_path):
    """A file as a big-endian machine wrote it: header, flags, dimensions, name, doubles."""
    values = LABELS.T.astype(">f8").tobytes()
    body = struct.pack(">IIII", 6, 8, 6, 0) + struct.pack(">IIii", 5, 8, *LABELS.shape)
    body += struct.pack(">II", 1, 6) + b"labels\0\0" + struct.pack(">II", 9, len(values)) + values
    header = b"MATLAB 5.0 MAT-file".ljust(124) + struct.pack(">H", 0x0100) + b"MI"
    path = tmp_path / "big.mat"
    path.write_bytes(header + struct.pack(">II", 14, len(body)) + body)
    assert np.array_equal(read_mat_labels(path), LABELS)


@pytest.mark.parametrize("write", WRITERS)
def test_a_file_cut_short_or_of_another_kind(tmp_path, write):
    path = tmp_path / "short.mat"
    write(path, LABELS.astype("f8"))
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(DataError, match=r"short\.mat"):
        read_mat_labels(path)
    path.write_text("These are no labels, but a sentence that somebody saved.\n" * 9)
    with pytest.raises(DataError, match=r"short\.mat"):
        read_mat_labels(path)
    with pytest.raises(FileNotFoundError, match=r"nowhere\.mat"):
        read_mat_labels(tmp_path / "nowhere.mat")
