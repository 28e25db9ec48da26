"""Published numbers: what is in the file, and that it is asked for rightly."""

import pytest

from vidhash_lab.literature import published
from vidhash_lab.models.mcmsh import TABLE_1, TABLE_2


def test_every_row_has_a_source_and_a_number():
    rows = published()
    assert len(rows) > 500
    assert all(row.source and row.method and row.metric for row in rows)
    maps = [row for row in rows if row.metric.startswith("mAP")]
    assert all(0 < row.value < 1 for row in maps)


def test_finds_the_number_of_a_paper():
    (row,) = published(method="MCMSH", variant="MC-MLP", bits=64, metric="mAP@20")
    assert row.value == 0.335 and row.dataset == "FCVID" and "Table 1" in row.source


def test_the_ablations_of_mcmsh_have_the_names_of_its_tables():
    for table, variants in (("Table 1", TABLE_1), ("Table 2", TABLE_2)):
        rows = [row for row in published(method="MCMSH", bits=64) if table in row.source]
        assert {row.variant or "all three" for row in rows} == set(variants)


def test_an_unknown_field_is_refused_and_nothing_found_is_an_empty_list():
    with pytest.raises(TypeError, match="no such field: metod"):
        published(metod="ConMH")
    assert published(method="ConMH", bits=8) == []
