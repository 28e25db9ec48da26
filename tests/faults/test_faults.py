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


def test_killed_trainings_go_on_bit_for_bit(tmp_path):
    data, checkpoint = attacks.training_set(tmp_path), tmp_path / "run.pt"
    seconds = attacks.took(attacks.train, data, checkpoint)
    expected, rng = attacks.weights_of(checkpoint), np.random.default_rng(0)
    for _ in range(6):
        assert attacks.killed_training(data, checkpoint, expected, seconds, rng) == "same"


def test_killed_extractions_lose_and_double_nothing(tmp_path):
    folder, out = attacks.films(tmp_path), tmp_path / "out.h5"
    seconds = attacks.took(attacks.extract, folder, out)
    expected, rng = attacks.rows_of(out), np.random.default_rng(0)
    for _ in range(6):
        assert attacks.killed_extraction(folder, out, expected, seconds, rng) == "same"


def test_a_full_disk_ends_a_training_that_can_go_on(tmp_path):
    data, checkpoint = attacks.training_set(tmp_path), tmp_path / "run.pt"
    attacks.took(attacks.train, data, checkpoint)
    expected, whole = attacks.weights_of(checkpoint), checkpoint.stat().st_size
    for size in np.linspace(0, whole - 1, 8).astype(int):
        found = attacks.full_disk_in_training(data, checkpoint, int(size), expected)
        assert found == "same", (size, found)


def test_flipped_bits_of_checkpoints(tmp_path):
    rng = np.random.default_rng(0)
    found = [attacks.flipped_checkpoint(tmp_path, rng) for _ in range(60)]
    assert set(found) <= {"same", "refused"} and found.count("refused") > 20, found
