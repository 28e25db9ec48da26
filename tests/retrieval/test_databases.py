"""Codes in a Parquet file: what was put in comes out, and SQL finds what `HammingIndex` finds."""

import json
import sys

import numpy as np
import pytest

from vidhash_lab.data.catalog import open_dataset
from vidhash_lab.data.files import DataError
from vidhash_lab.models.baselines import ITQ
from vidhash_lab.retrieval.codes import encode
from vidhash_lab.retrieval.databases import export_codes, from_words, search_statement, to_words
from vidhash_lab.retrieval.search import HammingIndex

WIDTHS = [1, 2, 7, 8, 9, 16, 33]  # bytes: below, at and above one word and two


@pytest.fixture
def duckdb():
    return pytest.importorskip("duckdb", reason="duckdb is not installed: pip install duckdb")


def random_codes(count, width, seed=0, distinct=256):
    return np.random.default_rng(seed).integers(0, distinct, (count, width), dtype=np.uint8)


@pytest.mark.parametrize("width", WIDTHS)
def test_words_hold_the_codes_and_nothing_else(width):
    codes = random_codes(50, width)
    words = to_words(codes)
    assert words.dtype == np.uint64 and words.shape == (50, -(-width // 8))
    for row, code in zip(words, codes):
        text = "".join(f"{word:016x}" for word in row)
        assert text == code.tobytes().hex().ljust(16 * len(row), "0")
    back = from_words(words, 8 * width)
    assert back.dtype == np.uint8 and np.array_equal(back, codes)


def test_the_first_bit_is_the_highest_and_words_may_be_stored_in_either_order():
    codes = np.packbits(np.eye(72, dtype=bool)[[0, 63, 64, 71]], axis=1)
    words = [[2**63, 0], [1, 0], [0, 2**63], [0, 2**56]]
    assert to_words(codes).tolist() == words
    assert np.array_equal(from_words(np.array(words, ">u8"), 72), codes)
    assert np.array_equal(to_words(np.asfortranarray(codes)), np.array(words, np.uint64))


def test_words_of_other_sizes_are_refused():
    for shape, bits in (((3, 1), 72), ((3, 2), 64), ((3,), 64), ((3, 1), 12), ((3, 0), 0)):
        with pytest.raises(ValueError, match=rf"words are .*; expected .* K = {bits} bits"):
            from_words(np.zeros(shape, np.uint64), bits)


@pytest.mark.parametrize("width", WIDTHS)
def test_what_was_exported_comes_back(duckdb, tmp_path, width):
    codes, path = random_codes(300, width), tmp_path / "it's a file.parquet"
    export_codes(path, codes)
    assert [each.name for each in tmp_path.iterdir()] == [path.name]
    table = duckdb.read_parquet(str(path))
    columns = table.fetchnumpy()
    words = np.stack([columns[f"code_{number}"] for number in range(-(-width // 8))], axis=1)
    assert np.array_equal(from_words(words, 8 * width), codes)
    assert columns["id"].tolist() == list(range(300)) and len(columns) == 1 + words.shape[1]
    assert [str(kind) for kind in table.types] == ["BIGINT"] + ["UBIGINT"] * words.shape[1]


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("distinct", [2, 256], ids=["ties", "random"])
def test_one_statement_finds_what_the_index_finds(duckdb, tmp_path, width, distinct):
    codes, path = random_codes(400, width, distinct=distinct), tmp_path / "codes.parquet"
    queries = [*random_codes(3, width, 1), np.full(width, 255, np.uint8), ~codes[7], codes[7]]
    export_codes(path, codes)
    for k in (1, 50, 400):
        distances, ids = HammingIndex(codes).search(np.array(queries), k)
        for row, query in enumerate(queries):
            found = duckdb.sql(search_statement(path, query, k)).fetchall()
            assert found == list(zip(ids[row].tolist(), distances[row].tolist()))


def test_the_signed_words_that_postgresql_wants_are_the_same_bits(duckdb, tmp_path):
    codes, path = random_codes(100, 8), tmp_path / "codes.parquet"
    export_codes(path, codes)
    signed = duckdb.sql(f"SELECT code_0::BIT::BIGINT FROM '{path}' ORDER BY id").fetchall()
    assert [word for (word,) in signed] == to_words(codes).view(np.int64)[:, 0].tolist()


def test_ids_and_labels_are_rows(duckdb, tmp_path):
    path, names = tmp_path / "codes.parquet", ["a film.mp4", "b'film.mp4", "film ü.mp4"]
    labels = np.array([[1, 0, 1], [0, 0, 0], [0, 1, 0]])
    export_codes(path, random_codes(3, 2), names, labels)
    rows = duckdb.sql(f"SELECT id, labels FROM '{path}'").fetchall()
    assert rows == [(names[0], [0, 2]), (names[1], []), (names[2], [1])]
    export_codes(path, random_codes(3, 2), [9, 7, 8], labels, categories=["x", "y", "it's"])
    rows = duckdb.sql(f"SELECT id, labels FROM '{path}'").fetchall()
    assert rows == [(9, ["x", "it's"]), (7, []), (8, ["y"])]


@pytest.mark.parametrize("labelled", [0, 1, 2], ids=["none", "the last", "the last two"])
@pytest.mark.parametrize("categories", [None, ["x", "y"]], ids=["numbers", "names"])
def test_labels_that_come_late_are_kept(duckdb, tmp_path, labelled, categories):
    labels = np.zeros((3000, 2), bool)
    labels[len(labels) - labelled :, 1] = True
    export_codes(
        tmp_path / "codes.parquet", random_codes(3000, 2), labels=labels, categories=categories
    )
    table = duckdb.read_parquet(str(tmp_path / "codes.parquet"))
    assert str(table.types[-1]) == ("INTEGER[]" if categories is None else "VARCHAR[]")
    found = [row[-1] for row in table.fetchall()]
    assert found == [[]] * (3000 - labelled) + [[1] if categories is None else ["y"]] * labelled


def metadata(duckdb, path):
    rows = duckdb.sql(f"SELECT key, value FROM parquet_kv_metadata('{path}')").fetchall()
    return {key.decode(): value.decode() for key, value in rows}


def test_the_file_says_what_its_codes_are_of(duckdb, tmp_path, random_features):
    dataset = open_dataset(random_features())
    models = [ITQ.for_dataset(dataset, bits=8).prepare(dataset.train, seed) for seed in (0, 1)]
    path, facts = tmp_path / "codes.parquet", []
    for model in models:
        codes = encode(model, dataset.database)
        of = {"model": model, "dataset": dataset, "protocol": "64 queries -> 64, ü 'self' excluded"}
        export_codes(path, codes, labels=dataset.database.labels, **of)
        facts.append(metadata(duckdb, path))
    assert set(facts[0]) == {"bits", "model", "dataset", "protocol"} and facts[0]["bits"] == "8"
    assert facts[0]["protocol"] == of["protocol"]
    known = {"name": dataset.name, "fingerprint": dataset.fingerprint()}
    assert json.loads(facts[0]["dataset"]) == known
    one, other = (json.loads(fact["model"]) for fact in facts)
    assert (one["method"], one["config"]["bits"]) == ("ITQ", 8)
    assert one.pop("weights") != other.pop("weights") and one == other
    export_codes(path, codes)
    assert metadata(duckdb, path) == {"bits": "8"}


def test_what_does_not_fit_is_refused_and_the_old_file_stays(duckdb, tmp_path):
    path, codes, labels = tmp_path / "codes.parquet", random_codes(3, 2), np.eye(3)
    export_codes(path, codes)
    before = path.read_bytes()
    for arguments, error, message in [
        ((codes.astype(int),), ValueError, "the codes must be packed bits"),
        ((codes, [1, 2]), ValueError, r"ids are int64 \(2,\); expected .* each of 3 codes"),
        ((codes, [1.0, 2.0, 3.0]), ValueError, "ids are float64"),
        ((codes, ["a", "b", "a"]), ValueError, "id a stands 2 times"),
        ((codes, None, labels[:2]), ValueError, r"labels are \(2, 3\)"),
        ((codes, None, labels[:, 0]), ValueError, r"labels are \(3,\)"),
        ((codes, None, 2 * labels), DataError, "row 0, column 0: `labels` is 2"),
    ]:
        with pytest.raises(error, match=message):
            export_codes(path, *arguments)
    with pytest.raises(ValueError, match="2 categories for labels of 3 columns"):
        export_codes(path, codes, labels=labels, categories=["x", "y"])
    with pytest.raises(OSError):
        export_codes(path / "below" / "codes.parquet", codes)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_without_duckdb_one_is_told_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "duckdb", None)
    with pytest.raises(ModuleNotFoundError, match="pip install duckdb"):
        export_codes(tmp_path / "codes.parquet", random_codes(3, 2))
    assert not list(tmp_path.iterdir())
