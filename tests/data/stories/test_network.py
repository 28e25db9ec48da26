"""How the network of the digit stories is made: the script that trains it, and its name."""

import importlib.util
from pathlib import Path

import h5py
import pytest
import torch

from vidhash_lab.data.stories.digit_stories import DigitStoriesConfig, open_or_build
from vidhash_lab.data.stories.handwriting import handwriting_pools
from vidhash_lab.videos.backbones import open_backbone

SCRIPT = Path(__file__).parents[3] / "tools" / "train_digit_network.py"


@pytest.fixture(scope="module")
def tool():
    """Import the script."""
    spec = importlib.util.spec_from_file_location("train_digit_network", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_folded_network_answers_as_the_trained_one(tool, generator):
    draw_frames = tool.frames_of(handwriting_pools()["network"], generator)
    trained = tool.train(draw_frames, steps=2, batch_size=8)
    frames, digits = draw_frames(20)
    assert frames.shape == (20, 32, 32) and digits.shape == (20,)
    folded = tool.fold(trained, frames)
    with torch.no_grad():
        assert torch.allclose(folded(frames), trained(frames), atol=1e-4)
        assert torch.isclose(folded.features(frames).std(), torch.tensor(1.0), atol=1e-4)


def test_built_in_and_own_files_give_the_backbone_the_same_name(tmp_path):
    folder = open_or_build(DigitStoriesConfig(train=1, database=1, query=1), tmp_path)
    with h5py.File(folder / "train.h5") as file:
        assert file.attrs["backbone"] == open_backbone("digits").name
