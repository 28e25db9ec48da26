"""Cards: what they say beside features, exported sets and models, and the licence that stays."""

import json

import pytest

from vidhash_lab import ConMH, fit, open_dataset, save, score
from vidhash_lab.checkpoints import load
from vidhash_lab.data import DataError
from vidhash_lab.data.cards import card_paths, read_card, write_card
from vidhash_lab.data.released.export import export
from vidhash_lab.data.report import report


def test_a_card_holds_the_same_for_people_and_programs(tmp_path):
    facts = {"videos": 3, "mean": [0.5, 0.25], "skipped": {"a/*b*.mp4": "<cut> short", "c": "`d`"}}
    write_card(tmp_path / "out.h5", "Features of films", facts)
    page, raw = card_paths(tmp_path / "out.h5")
    assert (page.name, raw.name) == ("out.h5.card.md", "out.h5.card.json")
    known = json.loads(raw.read_text())
    assert known["skipped"] == facts["skipped"] and known["file"] == "out.h5"
    text = page.read_text()
    assert text.startswith("# Features of films\n\n- **file**: out.h5\n")
    assert "- **mean**: 0.5, 0.25\n" in text and "\n## skipped\n" in text
    assert "- **a/\\*b\\*.mp4**: &lt;cut> short\n- **c**: 'd'\n" in text  # text, no Markdown


def test_a_long_list_is_cut_on_the_page_alone(tmp_path):
    write_card(tmp_path / "out.h5", "a", {"skipped": {f"{n}.mp4": "broken" for n in range(50)}})
    page, raw = card_paths(tmp_path / "out.h5")
    assert len(read_card(raw)["skipped"]) == 50
    assert "19.mp4" in page.read_text() and "… and 30 more" in page.read_text()
    assert "20.mp4" not in page.read_text()


def test_the_licence_is_the_users_and_stays(tmp_path):
    write_card(tmp_path / "out.h5", "a", {})
    page, raw = card_paths(tmp_path / "out.h5")
    assert "**licence**: not stated" in page.read_text()
    raw.write_text(json.dumps(read_card(raw) | {"licence": "CC BY 4.0"}))
    write_card(tmp_path / "out.h5", "a", {"videos": 4})
    assert read_card(raw)["licence"] == "CC BY 4.0" and "CC BY 4.0" in page.read_text()
    for damage in ("{", "[]"):
        raw.write_text(damage)
        with pytest.raises(DataError, match=r"out\.h5\.card\.json: .*Remove it"):
            read_card(raw)
        write_card(tmp_path / "out.h5", "a", {})
        assert "not stated" in read_card(raw)["licence"]


def test_a_model_says_how_it_was_trained_and_judged(random_features, tmp_path):
    data = open_dataset(random_features(shape=(40, 5, 8), labels=3))
    model = ConMH.for_dataset(data, bits=16, hidden_dim=16, depth=1, heads=2, decoder_dim=16)
    history = fit(model, data.train, epochs=2, batch_size=8, learning_rate=1e-3, seed=7)
    result = score(model, data, k=5)
    save(model, tmp_path / "mine.pt", history=history, evaluation=result)
    known = read_card(tmp_path / "mine.pt.card.json")
    assert known["config"]["hidden_dim"] == 16 and known["method"] == "conmh"
    assert known["recipe"]["data"] == data.train.fingerprint()
    assert known["recipe"]["seed"] == 7 and known["recipe"]["learning_rate"] == 1e-3
    assert known["training"]["epochs"] == 2
    assert known["history"]["epoch 2"]["loss"] == history[-1]["loss"]
    assert known["measured"] == {"mAP@5": result.map_at[5], "protocol": result.protocol}
    assert load(tmp_path / "mine.pt").config == model.config
    save(model, tmp_path / "alone.pt")
    assert "recipe" not in read_card(tmp_path / "alone.pt.card.json")
    assert read_card(tmp_path / "alone.pt.card.json")["measured"] == {"mAP": "not told"}


def test_an_exported_set_says_what_it_is(random_features, tmp_path):
    data = open_dataset(random_features(shape=(40, 5, 8), labels=3))
    export(data, tmp_path / "released", "fcvid")
    known = read_card(tmp_path / "released/fcvid.card.json")
    assert known["fingerprint"] == data.fingerprint() and known["layout"] == "FCVID"
    files = [value for name, value in known.items() if name.endswith(".h5")]
    assert [file["videos"] for file in files] == [40, 40] and files[1]["categories"] == 3


def test_the_report_shows_the_cards_of_a_folder(random_features, tmp_path):
    path = random_features(shape=(40, 5, 8), labels=3)
    write_card(path, "Features of films", {"skipped": {"a.mp4": "cut short"}})
    lines = []
    assert report(path, say=lines.append)
    assert any("a.mp4" in line and "cut short" in line for line in lines)
    write_card(tmp_path / "models/mine.pt", "ConMH, 16 bits", {"method": "conmh"})
    lines = []
    assert report(tmp_path / "models", say=lines.append)  # models alone are no fault
    assert any("ConMH, 16 bits" in line for line in lines)
    (tmp_path / "models/mine.pt.card.json").write_text("{")
    assert not report(tmp_path / "models", say=lines.append)
    assert any("WRONG" in line and "mine.pt.card.json" in line for line in lines)


def test_features_and_a_model_of_one_name_have_cards_of_their_own(tmp_path):
    for name in ("films.h5", "films.pt"):
        write_card(tmp_path / name, name, {})
    titles = [read_card(card_paths(tmp_path / f"films.{end}")[1])["title"] for end in ("h5", "pt")]
    assert titles == ["films.h5", "films.pt"]
