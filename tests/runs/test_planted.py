"""The planted sheets: each has its one fault, the checker finds it, the control is clean."""

import pytest

from vidhash_lab import open_dataset
from vidhash_lab.retrieval.sheets import check_protocol
from vidhash_lab.runs.planted import honest_sheet, planted_sheets

SIZES = {"hidden_dim": 16, "depth": 1, "heads": 2}


@pytest.mark.parametrize("num_views", [0, 2])
def test_every_sheet_has_its_one_fault_and_the_checker_finds_it(num_views):
    data = open_dataset("digit-stories-mini", num_views=num_views)
    sheets, answers = planted_sheets(data, bits=16, epochs=1, sizes=SIZES, seed=3)
    assert list(sheets) == list("ABCDEF") and len(set(answers.values())) == 6
    for letter, sheet in sheets.items():
        assert [f.fault for f in check_protocol(sheet)] == [answers[letter]], letter
    assert check_protocol(honest_sheet(data, bits=16)) == []


def test_the_order_is_the_seeds_and_labels_are_needed(random_features):
    data = open_dataset("digit-stories-mini")
    orders = [planted_sheets(data, bits=16, epochs=1, sizes=SIZES, seed=s)[1] for s in (0, 0, 1)]
    assert orders[0] == orders[1] != orders[2]
    with pytest.raises(ValueError, match="without labels there is no result"):
        planted_sheets(open_dataset(random_features(labels=0)))
