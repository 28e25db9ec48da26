"""A look at a `.mat` file of version 5 before scipy reads it.

scipy 1.17 ends the process at a type number that is none, and at a sparse matrix whose indices
lead outside it; found with tests/fuzz/fuzz_loaders.py. Here they are a ValueError.

An element of the file is a type, a size in bytes, and that many bytes, padded to eight; four bytes
and fewer lie in one word with both. A matrix is an element of elements: flags, dimensions, name,
values; a sparse one has the rows and where each column begins before its values.
"""

import struct
import zlib

import numpy as np

NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8"}
NUMBERS |= {13: "u8"}
MATRIX, COMPRESSED, SPARSE = 14, 15, 5
MOST_BYTES = 8 << 30  # that a compressed matrix may unfold to


def check_mat_5(path, key):
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
