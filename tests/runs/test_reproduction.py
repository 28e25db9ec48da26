"""Published tables, measured again on small files in the released layouts."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from vidhash_lab import ConMH, DataError, encode, open_dataset, published, unpack
from vidhash_lab.data.released.sets import PUBLISHED_SETS
from vidhash_lab.runs.reproduction import (
    ALL,
    TABLES,
    Setting,
    about,
    as_table,
    is_other_data,
    reproduce,
    rows_of,
    stand_in,
)

pytestmark = pytest.mark.filterwarnings("ignore:.*not the published", "ignore:.*hold alpha")

SMALL = {"hidden_dim": 16, "depth": 1, "heads": 2, "decoder_dim": 12}
CHANGES = {
    "ConMH": SMALL,
    "MCMSH": {"hidden_dim": 16, "num_anchors": 12},
    "BTH": {"hidden_dim": 16, "num_anchors": 12, "latent_epochs": 1},
    "S5VH": {"hidden_dim": 16, "depth": 1, "decoder_dim": 12}
    | {"num_clusters": 8, "cluster_dim": 4, "warm_up_epochs": 0},
    "AutoSSVH": SMALL | {"num_clusters": (4,), "warm_up_epochs": 0},
}


@pytest.fixture
def root(write_published):
    """All five published sets, enough videos for every K, in one folder."""
    for name in PUBLISHED_SETS:
        folder = write_published(name, videos=104, shape=(6, 8))
    return folder.parent


def by_hand(query_codes, codes, query_labels, labels, k):
    """AP@k as the released scripts have it: sort by distance, walk down, divide by k."""
    total = 0
    for code, label in zip(unpack(query_codes).astype(int), query_labels):
        order = np.argsort((code != unpack(codes)).sum(1), kind="stable")[:k]
        hits = 0
        for rank, item in enumerate(order, 1):
            if (labels[item] & label).any():
                hits += 1
                total += hits / rank / k
    return total / len(query_codes)


def test_every_published_number_stands_in_one_table():
    listed = [row for table in TABLES for row in rows_of(table)]
    assert sorted(map(str, listed)) == sorted(map(str, published()))
    assert all(rows_of(f"{method}, all") == published(method=method) for method in ALL)
    assert rows_of("CHAIN, all") == [] and "no published number" in about("CHAIN, all")
    assert about("MCMSH, Table 3") == "MCMSH, Table 3, published numbers: 5, from MCMSH poster"
    with pytest.raises(ValueError, match="no table 'ConMH, Table 9'; there are 'ConMH, README'"):
        rows_of("ConMH, Table 9")


@pytest.mark.parametrize("table", [*TABLES, "BTH, all"])
def test_every_row_is_measured_or_says_why_not(root, table):
    rows = rows_of(table)
    measured = reproduce(rows, Setting(root=root, epochs=1, changes=CHANGES))
    assert [one.row for one in measured] == rows and len(as_table(measured)) == len(rows)
    for one in measured:
        reason = one.remark.removeprefix("not measured: ")
        assert one.remark and (one.ours is not None or reason != one.remark)
        if one.ours is None:
            assert "no published recipe" in reason or "is no method of this kit" in reason
    ours = {one.row.method for one in measured if one.ours is not None}
    assert ours == set() if table in ("WSCH, README", "BTH, issue 2") else ours


def test_tables_of_the_kits_own_papers_are_measured_whole(root):
    for table in ("ConMH, README", "MCMSH, Table 1", "MCMSH, Table 2", "BTH, results"):
        rows = rows_of(table)
        for one in reproduce(rows, Setting(root=root, epochs=1, changes=CHANGES)):
            assert 0 <= one.ties[0] <= one.ours <= one.ties[1] <= 1, one
            assert one.difference == one.ours - one.row.value
            assert "trained 1 of" in one.remark and "other sizes, seed 0" in one.remark
            assert (one.alone is None) == (one.row.dataset != "FCVID")


@pytest.fixture
def weights(root, tmp_path):
    """Released files of an untrained ConMH, as the authors wrap them."""
    models = {}
    for title, short, name in (("FCVID", "fcv", "fcvid"), ("YFCC", "yfcc", "yfcc")):
        data = open_dataset(name, root / name)
        model = ConMH.for_dataset(data, bits=16, hidden_dim=16, depth=1, heads=1)
        path = tmp_path / "weights" / "ConMH" / f"{short}_16.pth"
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save({"model_state_dict": model.state_dict()}, path)
        models[title] = model, data
    return models


@pytest.mark.parametrize("title", ["FCVID", "YFCC"])
def test_released_weights_are_judged_as_the_released_scripts_do(root, weights, tmp_path, title):
    model, data = weights[title]
    rows = published(method="ConMH", dataset=title, bits=16)
    setting = Setting(root=root, weights=tmp_path / "weights", epochs=1, changes=CHANGES)
    found = [one for one in reproduce(rows, setting) if one.ours is not None]
    sets = encode(model, data.query), encode(model, data.database)
    for one in found:
        k = int(one.row.metric.removeprefix("mAP@"))
        expected = by_hand(*sets, data.query.labels, data.database.labels, k)
        assert one.ours == pytest.approx(expected) and "released weights ConMH/" in one.remark
    assert len(found) == 6


def test_a_protocol_with_the_first_queries_only(root, weights, tmp_path):
    model, data = weights["FCVID"]
    row = published(method="ConMH", dataset="FCVID", bits=16, metric="mAP@5")[0]
    row = replace(row, source="log (first 3 test videos as queries)")
    (one,) = reproduce([row], Setting(root=root, weights=tmp_path / "weights"))
    codes = encode(model, data.database)
    labels = data.database.labels
    assert one.ours == pytest.approx(by_hand(codes[:3], codes, labels[:3], labels, 5))
    assert one.alone is None


def test_a_training_that_was_kept_is_not_done_again(root, tmp_path):
    rows = published(method="ConMH", dataset="ActivityNet", bits=16, metric="mAP@5")[:1]
    setting = Setting(root=root, kept=tmp_path / "kept", epochs=1, changes=CHANGES)
    (first,) = reproduce(rows, setting)
    file = tmp_path / "kept" / "ConMH" / "activitynet_16.pt"
    written = file.stat().st_mtime_ns
    (second,) = reproduce(rows, setting)
    assert second == first and file.stat().st_mtime_ns == written


def test_missing_files_and_too_few_videos_are_remarks_with_their_reasons(write_published):
    (nothing,) = reproduce(published(method="BTH", metric="mAP@10"), Setting())
    assert nothing.ours is nothing.difference is None
    assert "not measured: 'fcvid' needs root=" in nothing.remark
    root = write_published("fcvid", videos=8, shape=(6, 8))  # the folder itself, too
    setting = Setting(root=root, epochs=1, changes={"ConMH": SMALL})
    rows = published(method="ConMH", dataset="FCVID", bits=16)
    by_metric = {one.row.metric: one for one in reproduce(rows, setting)}
    assert by_metric["mAP@5"].ours is not None
    assert by_metric["mAP@20"].remark == "not measured: a query can find 7 videos"


def test_s5vh_on_fcvid_has_the_recipe_of_its_logs(write_published):
    root = write_published("fcvid", videos=8, shape=(6, 8))
    setting = Setting(root=root, epochs=1, changes={"S5VH": CHANGES["S5VH"] | {"num_clusters": 5}})
    rows = published(method="S5VH", dataset="FCVID", bits=16, metric="mAP@5")
    for one in reproduce(rows, setting):
        assert "recipe of its logs" in one.remark and one.ours is not None
    setting = replace(setting, root=write_published("ucf101", videos=3, shape=(6, 8)))
    rows = published(method="S5VH", dataset="UCF101", bits=16, metric="mAP@5")
    assert {one.remark for one in reproduce(rows, setting)} == {
        "not measured: a query can find 3 videos, fewer than any K of the table"
    }


def test_costs_are_those_of_the_papers_own_sizes():
    measured = {
        (m.row.method, m.row.metric): m for m in reproduce(rows_of("MCMSH, Table 3"), Setting())
    }
    assert measured["MCMSH", "params_M"].ours == 1.761397
    assert round(measured["MCMSH", "flops_G"].ours, 2) == 0.05
    assert round(measured["BTH", "flops_G"].ours, 2) == 0.05
    assert measured["BTH", "encode_ms"].ours > 0


def test_any_data_set_stands_in_for_the_released_files(random_features, tmp_path):
    data = open_dataset(random_features(shape=(24, 6, 8)))
    for name in PUBLISHED_SETS:
        stand_in(data, name, tmp_path)
        opened = open_dataset(name, tmp_path / name)
        assert len(opened.database) == 24 and is_other_data(opened)
    bare = open_dataset(random_features("bare.h5", labels=0))
    with pytest.raises(DataError, match=r"bare\.h5: has no labels"):
        stand_in(bare, "yfcc", tmp_path / "bare")
