"""Released and damaged checkpoints: what fits is loaded, everything else is refused by name."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch

from vidhash_lab import DataError, load_released
from vidhash_lab.checkpoints import load, save
from vidhash_lab.models import AutoSSVH, AutoSSVHConfig, ConMH, ConMHConfig
from vidhash_lab.models.autossvh import RELEASED_NAMES

SCRIPT = Path(__file__).with_name("fuzz") / "fuzz_checkpoints.py"
SHAPE = {"num_frames": 6, "feature_dim": 8, "hidden_dim": 16, "bits": 8}


@pytest.fixture
def conmh():
    torch.manual_seed(0)
    return ConMH(ConMHConfig(**SHAPE, depth=1, heads=1, decoder_dim=192)).eval()


@pytest.fixture
def autossvh():
    torch.manual_seed(0)
    model = AutoSSVH(AutoSSVHConfig(**SHAPE, depth=1, heads=1, decoder_dim=192)).eval()
    torch.nn.init.normal_(model.positions)
    return model


def as_released(autossvh):
    """The weights of an AutoSSVH under their released names."""
    state = {"encoder.sample_net.temperature": torch.full((1, 1, 1, 1), 0.1)}
    for key, value in autossvh.state_dict().items():
        names = [t + key.removeprefix(h) for t, h in RELEASED_NAMES.items() if key.startswith(h)]
        state[names[0] if names else key] = value[None] if key == "positions" else value
    return state


def written(state, path, **options):
    torch.save(state, path, **options)
    return path


@pytest.mark.parametrize(
    "wrap",
    [
        lambda weights: weights,
        lambda weights: {"model_state_dict": weights},
        lambda weights: {"model_state_dict": weights, "epoch": 3, "optimizer_state_dict": {"a": 1}},
        lambda weights: {f"module.{key}": value for key, value in weights.items()},
    ],
)
@pytest.mark.parametrize("new_format", [True, False])
def test_every_wrapping_of_released_weights_loads(conmh, tmp_path, wrap, new_format):
    path = tmp_path / "conmh.pth"
    torch.save(wrap(conmh.state_dict()), path, _use_new_zipfile_serialization=new_format)
    model = load_released("conmh", path, num_frames=6, size="mini")
    frames = torch.randn(4, 6, 8)
    torch.testing.assert_close(model.encode(frames), conmh.encode(frames))


def test_autossvh_is_loaded_whole_and_brings_its_number_of_frames(autossvh, conmh, tmp_path):
    path = written({"model_state_dict": as_released(autossvh)}, tmp_path / "fcv_8.pth")
    model = load_released("autossvh", path)
    assert model.config.num_frames == 6 and model.config.heads == 1
    assert model.config.sampler == "random"  # as it was trained
    theirs = autossvh.state_dict()
    assert all(torch.equal(value, theirs[key]) for key, value in model.state_dict().items())
    with pytest.raises(DataError, match=r"fcv_8\.pth: not weights of the released conmh.*pos_emb"):
        load_released("conmh", path)
    conmhs = written({"model_state_dict": conmh.state_dict()}, tmp_path / "conmh.pth")
    with pytest.raises(DataError, match=r"not weights of the released autossvh.*positions"):
        load_released("autossvh", conmhs)


def test_an_autossvh_of_another_decoder_is_refused(tmp_path):
    other = AutoSSVH(AutoSSVHConfig(**SHAPE, depth=1, heads=1, decoder_dim=96))
    with pytest.raises(DataError, match=r"odd\.pth: not weights of the released autossvh.*size"):
        load_released("autossvh", written(as_released(other), tmp_path / "odd.pth"))


def test_missing_and_left_over_keys_are_listed(conmh, tmp_path):
    weights = conmh.state_dict()
    weights.pop("ln.bias")
    path = written(weights | {"classifier.weight": torch.ones(2)}, tmp_path / "odd.pth")
    with pytest.raises(DataError) as refused:
        load_released("conmh", path, num_frames=6)
    assert "ln.bias" in str(refused.value) and "classifier.weight" in str(refused.value)


def test_complex_weights_are_refused(conmh, tmp_path):
    weights = conmh.state_dict()
    odd = weights | {"ln.bias": weights["ln.bias"].to(torch.complex64)}
    with pytest.raises(DataError, match=r"odd\.pth: `ln\.bias` is torch\.complex64; expected real"):
        load_released("conmh", written(odd, tmp_path / "odd.pth"), num_frames=6)
    save(conmh, tmp_path / "own.pt")
    state = torch.load(tmp_path / "own.pt", weights_only=True) | {"model": odd}
    with pytest.raises(DataError, match="complex64"):
        load(written(state, tmp_path / "own.pt"))


def test_damaged_checkpoints_load_or_are_refused(tmp_path):
    """A quick share of tests/fuzz/fuzz_checkpoints.py: other exceptions fail, with their seed."""
    spec = importlib.util.spec_from_file_location("fuzz_checkpoints", SCRIPT)
    fuzz = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(fuzz)
    with pytest.warns(UserWarning, match="released MCMSH files do not hold alpha"):
        outcomes = [fuzz.one_case(seed, tmp_path) for seed in range(120)]
    assert {"loaded", "refused"} == set(outcomes)


def test_a_flipped_bit_never_loads_other_weights(tmp_path):
    path = tmp_path / "model.pt"
    save(ConMH(ConMHConfig(bits=8, num_frames=6, feature_dim=8, hidden_dim=16, depth=1)), path)
    whole, weights = path.read_bytes(), load(path).state_dict()
    rng = np.random.default_rng(0)
    refused = 0
    for place in rng.integers(len(whole), size=150):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << rng.integers(8)
        path.write_bytes(damaged)
        try:
            found = load(path).state_dict()
        except DataError:
            refused += 1
        else:  # the bit was in the padding between two parts
            assert all(torch.equal(weights[key], found[key]) for key in weights)
    assert refused > 75


def test_a_hole_is_found(tmp_path):
    path = tmp_path / "model.pt"
    save(ConMH(ConMHConfig(bits=8, num_frames=6, feature_dim=8, hidden_dim=64, depth=1)), path)
    damaged = bytearray(path.read_bytes())
    middle = len(damaged) // 2
    damaged[middle : middle + 512] = bytes(512)
    path.write_bytes(damaged)
    with pytest.raises(DataError, match="checksum"):
        load(path)


def test_a_config_that_asks_for_a_giant_is_refused(tmp_path):
    path = tmp_path / "model.pt"
    save(ConMH(ConMHConfig(bits=8, num_frames=6, feature_dim=8, hidden_dim=16, depth=1)), path)
    state = torch.load(path, weights_only=True)
    state["config"] = state["config"].replace('"depth": 1,', '"depth": 50000000,')
    torch.save(state, path)
    with pytest.raises(DataError, match="depth is 50000000"):
        load(path)
