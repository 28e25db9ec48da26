"""The cache tells what it holds and frees that, and never what is somebody else's."""

import pytest

from vidhash_lab import open_dataset
from vidhash_lab.data.cache import cache_contents, clean_cache


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("VIDHASH_LAB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def fill(path, count):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes(count))


def test_the_cache_lists_and_frees_what_the_kit_keeps_and_nothing_else(own_cache):
    assert cache_contents() == [] and clean_cache() == 0
    fill(own_cache / "structures" / "train-0.h5", 100)
    fill(own_cache / "runs" / "a" / "metrics.json", 20)
    fill(own_cache / "digit-stories-0123456789ab" / "train.h5", 3)
    theirs = [own_cache / "thesis" / "draft.tex", own_cache / "digit-stories-mine" / "train.h5"]
    for path in [*theirs, own_cache / "runs.txt"]:
        fill(path, 1)
    held = {each.name: each.bytes for each in cache_contents()}
    assert held == {"structures": 100, "runs": 20, "digit-stories-0123456789ab": 3}
    assert all(each.kind and str(each.bytes // 10**6) in str(each) for each in cache_contents())

    with pytest.raises(ValueError, match=r"no entry run, thesis; it holds .*runs"):
        clean_cache("runs", "run", "thesis")
    assert len(cache_contents()) == 3
    assert clean_cache("runs", "runs") == 20
    assert clean_cache() == 103 and cache_contents() == []
    assert all(path.exists() for path in [*theirs, own_cache / "runs.txt"])


def test_what_a_data_set_builds_is_listed_and_built_again_after_it_was_freed(own_cache):
    sizes = {"train": 3, "database": 2, "query": 1}
    before = open_dataset("digit-stories", **sizes).train.rows([0, 1, 2])
    (entry,) = cache_contents()
    assert clean_cache(entry.name) == entry.bytes > 1000
    assert (open_dataset("digit-stories", **sizes).train.rows([0, 1, 2]) == before).all()
