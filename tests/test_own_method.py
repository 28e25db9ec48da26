"""A method in a user's own file, as CONTRIBUTING tells it: nothing in the package is changed."""

import re
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from vidhash_lab import ConMHConfig, DataError, encode, fit, load, open_dataset, save, score
from vidhash_lab.models.hasher import VideoHasher

ROOT = Path(__file__).parents[1]
METHOD, USE = re.findall(r"```python\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(), re.S)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder of the user's, with the method of CONTRIBUTING in it, as the current one."""
    (tmp_path / "mine.py").write_text(METHOD)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    sys.modules.pop("mine", None)


def test_the_code_of_contributing_runs(folder):
    found = {}
    exec(USE, found)
    table, model = found["table"], found["model"]
    assert list(table["status"]) == ["done", "done"] and table["mAP@20"].notna().all()
    assert type(model).__name__ == "Mine" and model.config.bits == 64


def test_it_resumes_bit_for_bit(folder):
    from mine import Mine

    train, recipe = open_dataset("digit-stories-mini").train, {"epochs": 4, "batch_size": 64}

    def new():
        return Mine.for_dataset(train, bits=16)

    class Stop(Exception):
        pass

    def stop(row):
        if row["epoch"] == 2:
            raise Stop

    whole, again = new(), new()
    fit(whole, train, **recipe)
    with pytest.raises(Stop):
        fit(new(), train, **recipe, checkpoint="mine.pt", on_epoch=stop)
    history = fit(again, train, **recipe, checkpoint="mine.pt")
    assert history.column("epoch") == [1, 2, 3, 4]
    assert torch.equal(whole.binary.weight, again.binary.weight)
    loaded = load("mine.pt", method=Mine)
    assert (encode(loaded, train) == encode(whole, train)).all()


def test_a_file_does_not_say_what_is_imported(folder):
    from mine import Mine

    data = open_dataset("digit-stories-mini")
    fit(Mine.for_dataset(data, bits=16), data.train, epochs=1, checkpoint="mine.pt")
    with pytest.raises(DataError, match="of method 'Mine', which is not one of"):
        load("mine.pt")

    class Other(Mine):
        pass

    with pytest.raises(DataError, match=r"of method 'Mine', not of '.*Other'"):
        load("mine.pt", method=Other)
    with pytest.raises(DataError, match=r"another run \(method was Mine, now .*Other\)"):
        fit(Other.for_dataset(data, bits=16), data.train, epochs=1, checkpoint="mine.pt")


def test_what_a_method_leaves_out_is_named():
    class Empty(VideoHasher):
        pass

    model = Empty(ConMHConfig())
    for name, arguments in {"sample": [None] * 3, "losses": [{}], "encode": [None]}.items():
        with pytest.raises(NotImplementedError, match="Empty"):
            getattr(model, name)(*arguments)


def test_sizes_of_a_config_may_be_anything(tmp_path):
    @dataclass(frozen=True)
    class Config:
        bits: int = 8
        num_frames: int = 6
        feature_dim: int = 8
        hidden_dim: int | None = None
        seed: int = 20_240_101

    class Odd(VideoHasher):
        pass

    Odd.Config = Config
    save(Odd(Config()), tmp_path / "odd.pt")
    assert load(tmp_path / "odd.pt", method=Odd).config == Config()


def test_a_baseline_is_fitted_like_any_method():
    from vidhash_lab import ITQ

    data = open_dataset("digit-stories-mini")
    model, by_hand = ITQ.for_dataset(data, bits=16), ITQ.for_dataset(data, bits=16)
    history = fit(model, data.train, seed=3, checkpoint=None)
    by_hand.prepare(data.train, 3)
    assert len(history) == 0 and history.seconds == history.prepare_seconds > 0
    assert score(model, data).map_at == score(by_hand, data).map_at
