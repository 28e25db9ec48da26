"""Label matrices (N, C) of N videos: checked for being multi-hot, or made of class numbers."""

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from vidhash_lab.data.files import DataError


def check_columns(matrices: Iterable[tuple[Path, str, np.ndarray | None]], hint: str = "") -> None:
    """Refuse label matrices, each (file, key, (N, C) or None), unless their C are the same.

    >>> check_columns([(Path("a.h5"), "labels", np.eye(3)), (Path("b.h5"), "labels", np.eye(3))])
    """
    known = [(path, key, labels.shape[1]) for path, key, labels in matrices if labels is not None]
    for path, key, columns in known:
        first, its_key, wanted = known[0]
        if columns != wanted:
            raise DataError(
                f"{path}: `{key}` has {columns} columns, but `{its_key}` of {first.name} has "
                f"{wanted}; the same category must be the same column in both.{hint}"
            )


def multi_hot(labels: np.ndarray, key: str, where: Callable[[int], str]) -> np.ndarray:
    """Return labels (N, C) as bool, or raise `DataError`; `where` names a row for the message.

    >>> multi_hot(np.array([[1, 0], [1, 1]]), "labels", lambda row: f"row {row}").tolist()
    [[True, False], [True, True]]
    """
    wrong = (labels != 0) & (labels != 1)
    if wrong.any():
        row, column = np.argwhere(wrong)[0]
        raise DataError(
            f"{where(row)}, column {column}: `{key}` is {labels[row, column]}; labels are "
            f"multi-hot, 0 or 1 ({wrong.sum()} values are neither). Where -1 stands for no, write "
            "labels > 0; a column of class numbers in your own HDF5 file is read by classes=C."
        )
    return np.ascontiguousarray(labels, dtype=bool)


def one_hot(numbers: np.ndarray, classes: int, key: str, where: Callable[[int], str]) -> np.ndarray:
    """Make labels (N, classes) bool of class numbers 0 to classes - 1, (N,) or (N, 1).

    >>> one_hot(np.array([2, 0]), 3, "labels", lambda row: f"row {row}").tolist()
    [[False, False, True], [True, False, False]]
    """
    if numbers.size != len(numbers):
        raise DataError(f"{where(0)}: `{key}` are {numbers.shape}; expected one class number each.")
    labels = numbers.reshape(-1, 1) == np.arange(classes)
    if not labels.any(1).all():
        row = int(labels.any(1).argmin())
        wanted = f"class numbers are 0 to {classes - 1}"
        raise DataError(f"{where(row)}: `{key}` is {numbers.flat[row]}; {wanted}.")
    return labels
