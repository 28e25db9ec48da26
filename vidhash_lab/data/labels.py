"""Label matrices: checked for being multi-hot, or made of class numbers.

N videos, C categories.
"""

from collections.abc import Callable

import numpy as np

from vidhash_lab.data.files import DataError


def multi_hot(labels: np.ndarray, key: str, where: Callable[[int], str]) -> np.ndarray:
    """Return labels (N, C) as bool, if all are 0 or 1; else raise `DataError`.

    `where` names the file and the row in it of one video, for the message.
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
    """Make labels (N, classes) bool of class numbers 0 to classes - 1, (N,) or (N, 1)."""
    if numbers.size != len(numbers):
        raise DataError(f"{where(0)}: `{key}` are {numbers.shape}; expected one class number each.")
    labels = numbers.reshape(-1, 1) == np.arange(classes)
    if not labels.any(1).all():
        row = int(labels.any(1).argmin())
        raise DataError(
            f"{where(row)}: `{key}` is {numbers.flat[row]}; class numbers are 0 to {classes - 1}."
        )
    return labels
