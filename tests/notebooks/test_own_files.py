"""Every notebook runs on data of others: no thumbnails, no stories, T, D and C of their own."""

from pathlib import Path

import h5py
import nbformat
import numpy as np
import pytest
import yaml

from vidhash_lab.runs.runs import read_run, run_notebook

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
SMOKE = yaml.safe_load((NOTEBOOKS / "smoke.yaml").read_text())
FROM_FILMS = "08_your_own_videos"
NEEDS_NO_LABELS = ["00_start_here", "01_data", "11_losses_by_hand"]
NEEDS_NO_LABELS += ["12_reproduce_a_paper", "13_find_the_cheat"]
T, D, C = 10, 24, 4


@pytest.fixture(scope="session")
def write(tmp_path_factory):
    """Return a function that writes videos of C kinds, each kind a path of its own."""
    generator = np.random.default_rng(0)
    kinds = generator.standard_normal((C, T, D)).astype("f4")

    def write(path, N, labelled=True):
        kind = np.arange(N) % C
        path.parent.mkdir(parents=True, exist_ok=True)
        with h5py.File(path, "w") as file:
            noise = generator.standard_normal((N, T, D)).astype("f4")
            file["feats"] = kinds[kind] + 0.7 * noise
            if labelled:
                file["labels"] = np.eye(C, dtype=bool)[kind]
        return path

    return write


@pytest.fixture(scope="session")
def own(tmp_path_factory, write):
    """Data sets of one's own: {kind: path}."""
    folder = tmp_path_factory.mktemp("own")
    for name, N in {"train": 220, "database": 120, "query": 30}.items():
        write(folder / "three" / f"{name}.h5", N)
    return {
        "three files": folder / "three",
        "one file": write(folder / "one.h5", 220),
        "no labels": write(folder / "bare.h5", 220, labelled=False),
    }


def shown(output):
    """All texts that an executed notebook shows, one after the other."""
    outputs = [o for c in nbformat.read(output, as_version=4).cells for o in c.get("outputs", [])]
    texts = [o.get("data", {}).get("text/plain", "") + o.get("text", "") for o in outputs]
    return "\n".join(texts)


def run(name, folder, **changes):
    path = NOTEBOOKS / f"{name}.ipynb"
    output = run_notebook(path, folder, SMOKE[name] | changes, progress_bar=False)
    assert read_run(folder)["metrics"]
    assert "nan%" not in shown(output)
    return output


@pytest.mark.parametrize("kind", ["three files", "one file"])
@pytest.mark.parametrize("name", [name for name in SMOKE if name != FROM_FILMS])
def test_runs_on_features_of_ones_own(tmp_path, own, name, kind):
    output = run(name, tmp_path / "run", dataset=str(own[kind]))
    texts = [c.source for c in nbformat.read(output, as_version=4).cells]
    readings = [text for text in texts if "stand for themselves" in text]
    assert all("`dataset`" in text for text in readings)


@pytest.mark.parametrize("name", NEEDS_NO_LABELS)
def test_runs_without_labels_where_they_are_optional(tmp_path, own, name):
    run(name, tmp_path / "run", dataset=str(own["no labels"]))


def test_runs_on_films_of_ones_own_without_labels(tmp_path):
    from vidhash_lab.videos.writing import write_video

    generator = np.random.default_rng(0)
    for number in range(24):
        frames = generator.integers(0, 256, (12, 6, 8), np.uint8).repeat(8, 1).repeat(8, 2)
        write_video(tmp_path / "films" / f"{number:02d}.mp4", frames, rate=4)
    videos, place = str(tmp_path / "films"), str(tmp_path / "work")
    run(FROM_FILMS, tmp_path / "run", videos=videos, place=place, labels=None)
