"""A share of the attacks, which runs in a minute: none may end in a silent difference."""

import importlib.util
import os
from pathlib import Path

import numpy as np
import pytest

spec = importlib.util.spec_from_file_location("attacks", Path(__file__).with_name("attacks.py"))
attacks = importlib.util.module_from_spec(spec)
spec.loader.exec_module(attacks)

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


@pytest.fixture(autouse=True)
def one_thread():
    with attacks.one_thread():
        yield


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def test_killed_trainings_go_on_bit_for_bit(tmp_path, rng):
    data, checkpoint = attacks.training_set(tmp_path), tmp_path / "run.pt"
    seconds = attacks.took(attacks.train, data, checkpoint)
    expected = attacks.weights_of(checkpoint)
    for _ in range(3):
        assert attacks.killed_training(data, checkpoint, expected, seconds, rng) == "same"


@pytest.mark.parametrize("shards", [1, 3])
def test_killed_extractions_lose_and_double_nothing(tmp_path, rng, shards):
    folder, outs = attacks.films(tmp_path), [tmp_path / f"out-{i}.h5" for i in range(shards)]
    attacks.extract(folder, tmp_path / "whole.h5")
    expected = attacks.rows_of(tmp_path / "whole.h5")
    seconds = attacks.took(attacks.extract_shards, folder, outs)
    for _ in range(3):
        assert attacks.killed_extraction(folder, outs, expected, seconds, rng) == "same"


def test_a_full_disk_ends_a_training_that_can_go_on(tmp_path):
    data, checkpoint = attacks.training_set(tmp_path), tmp_path / "run.pt"
    attacks.took(attacks.train, data, checkpoint)
    expected, whole = attacks.weights_of(checkpoint), checkpoint.stat().st_size
    for size in np.linspace(0, whole - 1, 4).astype(int):
        found = attacks.full_disk_in_training(data, checkpoint, expected, int(size))
        assert found == "same", (size, found)


@pytest.mark.parametrize("name", attacks.WRITERS)
def test_a_full_disk_is_an_error_and_with_room_it_goes_on(name):
    assert set(attacks.full_disk(attacks.WRITERS[name], 5)) == {"same"}


@pytest.mark.parametrize("name", attacks.PIECES)
def test_damage_is_refused_or_mended(name, rng):
    for damage, times in zip(attacks.DAMAGES.values(), (12, 3, 3)):
        found = set(attacks.damaged(attacks.PIECES[name], damage, times, rng))
        assert found <= {"same", "refused"}


def test_damaged_checkpoints_are_refused(rng):
    found = [*attacks.damaged(attacks.model, attacks.flipped, 60, rng)]
    assert found.count("refused") > 40


@pytest.mark.parametrize("name", attacks.CACHES)
def test_two_processes_make_a_cache_and_one_is_killed(name, rng):
    assert set(attacks.two_builders(attacks.CACHES[name], 2, rng)) == {"same"}


def test_output_that_vanishes_is_an_error_and_made_again(tmp_path, rng):
    films, out = attacks.films(tmp_path), tmp_path / "out" / "out.h5"
    attacks.extract(films, out)
    expected = attacks.rows_of(out)
    for _ in range(5):
        assert attacks.vanished_output(films, out, expected, rng) == "same"


def test_a_film_without_permission_is_read_once_it_has_it(tmp_path, rng):
    films, out = attacks.films(tmp_path), tmp_path / "out.h5"
    attacks.extract(films, out)
    assert attacks.unreadable_film(films, attacks.rows_of(out), rng) == "same"
