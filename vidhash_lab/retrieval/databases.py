"""A door to databases: codes as a Parquet file, and the same search as one SQL statement.

A video is a row: `id`; its code as 64-bit words `code_0`, `code_1`, …, unsigned; `labels`, a list
of category numbers or names, where there are labels. Word w holds the bits 64w to 64w + 63 of the
code in their order (that of numpy.packbits), the first as the highest: in hexadecimal a word reads
as the code's bytes do, on every machine. Zeros fill the low bits of the last word where K is not a
multiple of 64. The metadata are `bits` (K) and, as far as they were told, `model` and `dataset`, in
JSON with a digest of the weights and of the data, and `protocol`.

Hamming distance counts the bits of an exclusive or. `search_statement` writes it for DuckDB, which
the tests compare with `HammingIndex`. For ClickHouse (untested) and PostgreSQL (tried once by hand,
with version 15) it is as follows; of more than 64 bits, add up the counts of all words:

    SELECT id, bitCount(bitXor(code_0, toUInt64('9223372036854775809'))) AS distance
    FROM file('codes.parquet', 'Parquet') ORDER BY distance, id LIMIT 10       -- ClickHouse

    SELECT id, bit_count((code_0 # '-9223372036854775807'::bigint)::bit(64)) AS distance
    FROM codes ORDER BY distance, id LIMIT 10                                  -- PostgreSQL, 14 on

PostgreSQL's `bigint` is signed: from 2^63 on a word is ours less 2^64, the same bits. A query's
word is so in Python: `to_words(codes).view(np.int64)[0, 0]`. DuckDB writes all words so as CSV,
which PostgreSQL's COPY reads:

    COPY (SELECT id, code_0::BIT::BIGINT AS code_0 FROM 'codes.parquet') TO 'codes.csv'

N videos, C categories, K bits; codes are packed (N, K/8) uint8 in the order of numpy.packbits.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict

import numpy as np
from numpy.typing import ArrayLike
from torch import nn

from vidhash_lab.data.features import VideoDataset
from vidhash_lab.data.files import PathLike, written_whole
from vidhash_lab.data.labels import multi_hot
from vidhash_lab.retrieval.hamming import check_codes

WORD_BYTES = 8


def to_words(codes: np.ndarray) -> np.ndarray:
    """Join packed codes (N, K/8) uint8 to words -> (N, ceil(K/64)) uint64, zeros at the end.

    >>> to_words(np.array([[1, 0], [0, 255]], np.uint8)).shape
    (2, 1)
    """
    codes = check_codes("the", codes)
    padded = np.pad(codes, ((0, 0), (0, -codes.shape[1] % WORD_BYTES)))
    return np.ascontiguousarray(padded).view(">u8").astype(np.uint64)


def from_words(words: np.ndarray, bits: int) -> np.ndarray:
    """Part words (N, ceil(K/64)) uint64 into packed codes of K = `bits` -> (N, K/8) uint8.

    >>> codes = np.array([[1, 0], [0, 255]], np.uint8)
    >>> from_words(to_words(codes), bits=16).tolist()
    [[1, 0], [0, 255]]
    """
    words = np.asarray(words)
    if bits < 8 or bits % 8 or words.ndim != 2 or words.shape[1] != -(-bits // 64):
        raise ValueError(f"words are {words.shape}; expected (N, ceil(K/64)) for K = {bits} bits")
    codes = words.astype(">u8").view(np.uint8).reshape(len(words), -1)
    return np.ascontiguousarray(codes[:, : bits // 8])


def export_codes(
    path: PathLike,
    codes: np.ndarray,
    ids: ArrayLike | None = None,
    labels: np.ndarray | None = None,
    *,
    categories: Sequence[str] | None = None,
    model: nn.Module | None = None,
    dataset: VideoDataset | None = None,
    protocol: str | None = None,
) -> None:
    """Write packed codes (N, K/8) as a Parquet file, a video a row, for databases.

    `ids` (N,) are whole numbers or text, each once; without any, 0 to N - 1, those of a
    `HammingIndex`. `labels` (N, C) are multi-hot, and `categories` their C names. Of the model and
    the data set that the codes are of, the metadata says what tells them from others. The file
    appears whole or not at all. ModuleNotFoundError where duckdb is missing, which writes it.

    >>> export_codes("codes.parquet", np.array([[129], [3]], np.uint8), ids=["a", "b"])
    >>> import duckdb
    >>> duckdb.sql("SELECT id FROM 'codes.parquet' ORDER BY id").fetchall()
    [('a',), ('b',)]
    """
    duckdb, codes = _duckdb(), check_codes("the", codes)
    columns = {"id": _checked_ids(ids, len(codes))}
    columns |= {f"code_{number}": word for number, word in enumerate(to_words(codes).T)}
    chosen = "*"
    if labels is not None:
        columns["labels"] = _listed(labels, categories, len(codes))
        kind = "INTEGER[]" if categories is None else "VARCHAR[]"
        chosen = f"* REPLACE (labels::{kind} AS labels)"
    facts = _facts(codes, model, dataset, protocol).items()
    metadata = ", ".join(f"{name}: {_quoted(fact)}" for name, fact in facts)
    import pandas as pd  # slow to import, like duckdb

    with written_whole(path) as new, duckdb.connect() as connection:
        connection.execute(
            f"SET pandas_analyze_sample = {len(codes)}"
        )  # not only 1,000, which may lack labels
        connection.register("videos", pd.DataFrame(columns))
        # A temporary file of its own would lie beside ours.
        how = f"FORMAT parquet, USE_TMP_FILE false, KV_METADATA {{{metadata}}}"
        connection.execute(f"COPY (SELECT {chosen} FROM videos) TO {_quoted(new)} ({how})")


def search_statement(path: PathLike, query_code: np.ndarray, k: int) -> str:
    """Write the search of the k nearest of one code (K/8,) as DuckDB's SQL: id, distance.

    `duckdb.sql(search_statement("codes.parquet", code, k=10))` gives what `HammingIndex` gives, in
    its order. The file's codes must have K bits, too.

    >>> search_statement("codes.parquet", np.array([129], np.uint8), k=3).split(" FROM ")[0]
    'SELECT id, bit_count(xor(code_0, 9295429630892703744::UBIGINT))::INTEGER AS distance'
    """
    (words,) = to_words(np.asarray(query_code)[None])
    counts = " + ".join(  # as integers: in older versions a sum above 127 overflows
        f"bit_count(xor(code_{number}, {word}::UBIGINT))::INTEGER"
        for number, word in enumerate(words)
    )
    found = f"SELECT id, {counts} AS distance FROM read_parquet({_quoted(path)})"
    return f"{found} ORDER BY distance, id LIMIT {int(k)}"


def _duckdb():
    try:
        import duckdb
    except ImportError as error:
        needed = "Parquet files are written by duckdb, which is not installed: pip install duckdb"
        raise ModuleNotFoundError(needed) from error
    return duckdb


def _quoted(text):
    return "'" + str(text).replace("'", "''") + "'"


def _checked_ids(ids, count):
    """Return ids (N,), or numbers in place of None; ValueError unless each is one of its own."""
    ids = np.arange(count) if ids is None else np.asarray(list(ids))
    if ids.shape != (count,) or ids.dtype.kind not in "iuU":
        wanted = f"a whole number or a text for each of {count} codes"
        raise ValueError(f"ids are {ids.dtype} {ids.shape}; expected {wanted}")
    known, times = np.unique(ids, return_counts=True)
    if (times > 1).any():
        twice = known[times > 1][0]
        raise ValueError(f"id {twice} stands {times.max()} times; each video needs one of its own")
    return ids


def _listed(labels, categories, count):
    """List the categories of each video: labels (N, C) -> N lists of numbers, or of names."""
    labels = np.asarray(labels)
    if labels.ndim != 2 or len(labels) != count:
        raise ValueError(f"labels are {labels.shape}; expected a multi-hot row for {count} codes")
    labels = multi_hot(labels, "labels", lambda row: f"row {row}")
    names = np.arange(labels.shape[1]) if categories is None else np.array(categories, object)
    if names.shape != labels.shape[1:]:
        raise ValueError(f"{len(names)} categories for labels of {labels.shape[1]} columns")
    return [names[row].tolist() for row in labels]


def _facts(codes, model, dataset, protocol):
    """Say what the codes are of -> {name: text}, JSON where it is more than a word."""
    facts = {"bits": str(8 * codes.shape[1])}
    if model is not None:
        weights = hashlib.sha256()
        for name, value in model.state_dict().items():
            weights.update(name.encode() + value.cpu().numpy().tobytes())
        known = {"method": type(model).__qualname__, "config": asdict(model.config)}
        facts["model"] = json.dumps(known | {"weights": weights.hexdigest()[:16]})
    if dataset is not None:
        known = {"name": dataset.name, "fingerprint": dataset.fingerprint()}
        facts["dataset"] = json.dumps(known)
    if protocol is not None:
        facts["protocol"] = protocol
    return facts
