"""The built-in data set: what it holds, that it is repeatable, and that its cache heals itself."""

import json
import os
import subprocess
import sys
from dataclasses import replace

import h5py
import numpy as np
import pytest
import torch

from vidhash_lab.data.stories import digit_stories
from vidhash_lab.data.stories.digit_stories import (
    SPLITS,
    DigitStoriesConfig,
    draw_script,
    open_or_build,
    render,
    render_scene,
    split_script,
    stories,
)
from vidhash_lab.data.stories.handwriting import handwriting, handwriting_pools
from vidhash_lab.data.stories.network import digit_features, shipped_network

TINY = DigitStoriesConfig(train=60, database=20, query=10, seed=3)


def read(folder, split):
    with h5py.File(folder / f"{split}.h5") as file:
        return {name: file[name][:] for name in file}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return open_or_build(TINY, tmp_path_factory.mktemp("digits"))


def same_arrays(one, other):
    return all(
        np.array_equal(array, read(other, split)[name])
        for split in SPLITS
        for name, array in read(one, split).items()
    )


# ---- what the files hold -----------------------------------------------------------------------


@pytest.mark.parametrize("split", SPLITS)
def test_layout(folder, split):
    N, T = getattr(TINY, split), 25
    arrays = read(folder, split)
    assert {name: (array.shape, str(array.dtype)) for name, array in arrays.items()} == {
        "feats": ((N, T, 128), "float16"),
        "labels": ((N, 20), "bool"),
        "fine_labels": ((N, 40), "bool"),
        "thumbnails": ((N, T, 32, 32), "uint8"),
        "shots": ((N, T), "int8"),
        "distractors": ((N, T), "bool"),
    }
    with h5py.File(folder / f"{split}.h5") as file:
        assert file["feats"].chunks is None and file["feats"].compression is None
        assert json.loads(file.attrs["config"])["seed"] == TINY.seed
        assert {"backbone", "frames"} <= set(file.attrs)


def test_stories_come_with_their_reverse():
    table = stories(TINY)
    assert table.shape == (40, 3)
    assert torch.equal(table[0::2], table[1::2].flip(1))
    assert len({frozenset(story) for story in table.tolist()}) == 20
    assert all(len(set(story)) == 3 for story in table.tolist())
    assert not torch.equal(table, stories(replace(TINY, seed=4)))


def test_names_and_labels_tell_the_same_story(folder):
    arrays = read(folder, "database")
    story = split_script(TINY, "database")[0]
    assert np.array_equal(arrays["fine_labels"].argmax(1), story)
    assert np.array_equal(arrays["labels"].argmax(1), story // 2)
    assert (arrays["labels"].sum(1) == 1).all() and (arrays["fine_labels"].sum(1) == 1).all()
    with h5py.File(folder / "database.h5") as file:
        names, categories = file.attrs["story_names"], file.attrs["category_names"]
    first, middle, last = stories(TINY)[7].tolist()
    assert names[7] == f"{first}→{middle}→{last}" and names[6] == f"{last}→{middle}→{first}"
    assert set(categories[3].split("·")) == set(names[7].split("→"))


def test_every_split_is_balanced():
    for count, per_story in ((40, 1), (80, 2)):
        story, _ = split_script(replace(TINY, database=count), "database")
        assert (story.bincount(minlength=40) == per_story).all()
    story, _ = split_script(replace(TINY, database=20), "database")
    assert ((story // 2).bincount(minlength=20) == 1).all()  # categories come before directions


def test_frames_show_the_story_except_for_distractors():
    config = DigitStoriesConfig(train=1000)
    story, script = split_script(config, "train")
    shown = handwriting()[1][script.handwriting]
    expected = stories(config)[story].gather(1, script.shots)
    assert torch.equal(shown != expected, script.distractors)
    assert abs(script.distractors.float().mean() - 0.2) < 0.02
    lengths = torch.nn.functional.one_hot(script.shots, 3).sum(1)
    assert (script.shots.diff(dim=1) >= 0).all() and lengths.min() >= 2
    assert abs(lengths.float().mean(0) - 25 / 3).max() < 0.3


def test_pools_are_disjoint_and_frozen():
    pools = handwriting_pools()
    assert sorted(torch.cat(list(pools.values())).tolist()) == list(range(1797))
    assert [len(pool) for pool in pools.values()] == [600, 600, 597]
    # The shipped weights have seen this very pool; another order would leak it into the data.
    assert pools["network"][:5].tolist() == [362, 1568, 1440, 1761, 815]
    for split, pool in (("train", "train"), ("database", "test"), ("query", "test")):
        _, script = split_script(TINY, split)
        assert torch.isin(script.handwriting, pools[pool]).all()


def test_few_frames_are_refused():
    with pytest.raises(ValueError, match="6 frames"):
        DigitStoriesConfig(num_frames=5)
    _, script = split_script(DigitStoriesConfig(query=50, num_frames=6), "query")
    assert (script.shots == torch.tensor([0, 0, 1, 1, 2, 2])).all()


# ---- pictures and features ---------------------------------------------------------------------


def test_a_script_renders_in_any_size():
    _, script = split_script(TINY, "query")
    scene, large = render_scene(script), render_scene(script, 64)
    assert scene.shape == (10, 25, 32, 32) and large.shape == (10, 25, 64, 64)
    assert 0 <= scene.min() and scene.max() <= 1
    halved = torch.nn.functional.avg_pool2d(large, 2)
    assert (halved - scene).abs().mean() < 0.03


def test_a_digit_stands_where_the_script_says():
    generator = torch.Generator().manual_seed(0)
    config = replace(TINY, background=0.0, rotation=0.0, place=0.3)
    digits = torch.zeros(200, 1, dtype=torch.long)  # zeros are round: their middle is their centre
    script = draw_script(digits, 1, handwriting_pools()["test"], config, generator)
    scene = render_scene(script)[:, 0]
    axis = (torch.arange(32) + 0.5) / 16 - 1
    mass = scene.sum((1, 2))
    middle = torch.stack([(scene.sum(1) @ axis) / mass, (scene.sum(2) @ axis) / mass], 1)
    assert (middle - script.place[:, 0]).abs().mean() < 0.05


def test_features_are_those_of_the_thumbnails(folder):
    arrays = read(folder, "query")
    features = digit_features(torch.from_numpy(arrays["thumbnails"]) / 255)
    assert features.shape == (10, 25, 128) and features.dtype == torch.float32
    assert not features.is_inference() and not features.requires_grad  # fit to learn from
    assert np.allclose(features, arrays["feats"], rtol=2e-3, atol=2e-3)
    assert features.min() == 0 and 0.1 < (features > 0).float().mean() < 0.4
    assert 0.8 < features.std() < 1.2


def test_the_network_reads_unseen_digits():
    script = split_script(replace(TINY, query=20), "query")[1]
    frames = render(script, TINY, torch.Generator().manual_seed(0))
    predicted = shipped_network().head(digit_features(frames)).argmax(2)
    assert (predicted == handwriting()[1][script.handwriting]).float().mean() > 0.85


# ---- repeatability and the cache ---------------------------------------------------------------


def test_the_same_config_gives_the_same_files(folder, tmp_path):
    state, threads = torch.random.get_rng_state(), torch.get_num_threads()
    assert same_arrays(folder, open_or_build(TINY, tmp_path))
    assert torch.equal(state, torch.random.get_rng_state()) and threads == torch.get_num_threads()
    other = open_or_build(replace(TINY, seed=4), tmp_path)
    assert other.parent == tmp_path and not same_arrays(folder, other)


def test_the_size_of_one_split_leaves_the_others_alone():
    _, script = split_script(TINY, "query")
    _, again = split_script(replace(TINY, train=1000, database=7), "query")
    assert torch.equal(script.place, again.place)


def test_a_finished_set_is_not_built_again(folder, monkeypatch):
    monkeypatch.setattr(digit_stories, "build", None)
    assert open_or_build(TINY, folder.parent) == folder


def cut_in_half(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def drop_a_row(path):
    with h5py.File(path, "a") as file:
        labels = file["labels"][1:]
        del file["labels"]
        file["labels"] = labels


def zero_half_of_the_features(path):
    with h5py.File(path) as file:
        start, size = file["feats"].id.get_offset(), file["feats"].nbytes
    with open(path, "r+b") as file:
        file.seek(start + size // 2)
        file.write(bytes(size // 2))


def empty(path):
    path.write_bytes(b"")


@pytest.mark.parametrize(
    "damage",
    [lambda path: path.unlink(), cut_in_half, drop_a_row, empty, zero_half_of_the_features],
)
def test_a_damaged_set_is_built_again(folder, tmp_path, damage):
    config = replace(TINY, train=10, database=10)
    built = open_or_build(config, tmp_path)
    damage(built / "database.h5")
    with pytest.warns(UserWarning, match="damaged"):
        assert open_or_build(config, tmp_path) == built
    feats = read(built, "database")["feats"]
    assert len(feats) == 10 and feats.any((1, 2)).all()
    assert [path.name for path in tmp_path.iterdir()] == [built.name]


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_an_interrupted_build_leaves_nothing(tmp_path, monkeypatch, error):
    calls = []

    def interrupt(frames):
        calls.append(frames)
        if len(calls) == 2:
            raise error
        return digit_features(frames)

    monkeypatch.setattr(digit_stories.network, "digit_features", interrupt)
    with pytest.raises(error):
        open_or_build(TINY, tmp_path)
    assert len(calls) == 2 and list(tmp_path.iterdir()) == []


def test_another_process_that_finishes_first_wins(tmp_path, monkeypatch):
    config, build = replace(TINY, train=10, database=10), digit_stories.build

    def build_but_too_late(config, folder):
        build(config, folder)
        monkeypatch.setattr(digit_stories, "build", build)
        (open_or_build(config, tmp_path) / "mark").touch()

    monkeypatch.setattr(digit_stories, "build", build_but_too_late)
    folder = open_or_build(config, tmp_path)
    assert (folder / "mark").exists() and list(tmp_path.iterdir()) == [folder]


def test_two_processes_may_build_at_once(folder, tmp_path):
    program = (
        "import sys\n"
        "from pathlib import Path\n"
        "from vidhash_lab.data.stories.digit_stories import *\n"
        f"print(open_or_build({TINY}, Path(sys.argv[1])))\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    options["env"] = os.environ | {"OMP_NUM_THREADS": "1"}
    both = [subprocess.Popen(command, **options) for _ in range(2)]
    printed = [process.communicate(timeout=60)[0].strip() for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert printed == [str(tmp_path / folder.name)] * 2
    assert list(tmp_path.iterdir()) == [tmp_path / folder.name]
    assert same_arrays(folder, tmp_path / folder.name)  # on one thread as on two
