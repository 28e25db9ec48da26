"""MCMSH: golden vectors of the released code, gates, partners, corruption, ablations."""

import hashlib
import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from vidhash_lab import FeatureSet, encode, fit, load, load_released, losses, save
from vidhash_lab.models.mc_mlp import (
    CHANNEL_REDUCTION,
    GATES,
    TOKEN_REDUCTION,
    ClipNorm,
    Gated,
    MiddleRange,
    ShortRange,
)
from vidhash_lab.models.mcmsh import MCMSH, TABLE_1, TABLE_2, MCMSHConfig

TINY = {"bits": 16, "num_frames": 10, "feature_dim": 12, "hidden_dim": 32, "num_anchors": 24}


@pytest.fixture
def released(golden):
    arrays = np.load(golden("mcmsh.npz"))
    return {name: torch.from_numpy(np.asarray(value)) for name, value in arrays.items()}


def test_reproduces_the_released_implementation(golden, released):
    model = load_released("mcmsh", golden("mcmsh.pth"), alpha=float(released["alpha"]))
    with torch.no_grad():
        hidden = model.mc_mlp(released["frames"][None])[0]
        close = {"rtol": 1e-5, "atol": 1e-5}
        torch.testing.assert_close(hidden, released["hidden"], **close)
        torch.testing.assert_close(model.relax(hidden), released["relaxed_code"], **close)
        torch.testing.assert_close(model.encode(released["frames"]), released["code"])


def test_reproduces_the_released_losses(released):
    r = released
    got = {
        "cluster_loss": losses.cluster(r["hidden1"], r["target1"])
        + losses.cluster(r["hidden2"], r["target2"]),
        "similarity_loss": losses.similarity(r["h1"], r["h2"], r["pair_label"]),
        "quantization_loss": losses.quantisation(r["h1"]) + losses.quantisation(r["h2"]),
        "quadruplet_loss": losses.quadruplet(
            r["h1"], r["similar"], r["dissimilar1"], r["dissimilar2"]
        ),
    }
    for name, value in got.items():
        torch.testing.assert_close(value, r[name], rtol=1e-5, atol=1e-5)


def test_alpha_is_assumed_aloud_and_kept(golden, tmp_path):
    with pytest.warns(UserWarning, match=r"assuming sqrt\(56\) = 7\.48"):
        model = load_released("mcmsh", golden("mcmsh.pth"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = load_released("mcmsh", golden("mcmsh.pth"), alpha=3)
    assert model.alpha == 3
    save(model, tmp_path / "model.pt")
    assert load(tmp_path / "model.pt").alpha == 3
    model.on_epoch(8)
    assert model.alpha == 3 and model.state_dict()["alpha"] == 3  # sqrt(8 + 1)
    model.on_epoch(1)
    assert model.alpha == pytest.approx(2**0.5)


def test_has_the_parameters_and_multiply_adds_of_the_poster():
    assert sum(p.numel() for p in MCMSH(MCMSHConfig()).parameters()) == 1_761_397
    with torch.device("meta"):
        model = MCMSH(MCMSHConfig()).eval()
        frames = torch.empty(128, 25, 4096)
    with FlopCounterMode(display=False) as counter:
        model.encode(frames)
    # The long-range gates' two mixings are one; zeros of grouped convolutions come on top.
    assert counter.get_total_flops() / 128 / 2e9 == pytest.approx(0.0471, abs=1e-4)
    assert multiply_adds(model) / 1e9 == pytest.approx(0.046, abs=5e-4)


def multiply_adds(model):
    """Count weights times the places they are used at, with convolutions as the paper has them."""
    T, H = model.config.num_frames, model.config.hidden_dim
    total = T * (model.mc_mlp.preproj.weight.numel() + model.binary.weight.numel())
    total += H * sum(model.mc_mlp.token_mixer.mlp.get_submodule(n).weight.numel() for n in FCS)
    total += T * sum(model.mc_mlp.channel_mixer.mlp.get_submodule(n).weight.numel() for n in FCS)
    for name, gate in model.mc_mlp.named_modules():
        if name.endswith("rd"):
            n, c = (H, T) if name.startswith("token") else (T, H)
            places = {"lrd": 1, "mrd": n // 3, "srd": n}[name[-3:]]
            total += c * (gate.fc1.weight.numel() + gate.fc2.weight.numel())
            total += places * (gate.conv.weight.numel() + gate.deconv.weight.numel())
    return total


FCS = ("fc1", "fc2")


def opening(gate, mixed):
    """How far a gate opens for mixed (B, c, n), as the paper has it: convolutions and pooling."""
    if isinstance(gate, MiddleRange):
        mixed = F.adaptive_avg_pool1d(mixed, mixed.shape[2] // 3)
    if isinstance(gate, ShortRange):
        conv, deconv = gate.conv, gate.deconv
        mixed = F.conv1d(mixed, conv.weight, padding=1, groups=conv.groups)
        mixed = torch.relu(mixed / (1 + 1e-5) ** 0.5)  # batch norm in its initial state
        mixed = F.conv1d(mixed, deconv.weight, padding=1, groups=deconv.groups)
    else:
        reduced = torch.relu(gate.conv(mixed.mean(2)) / (1 + 1e-5) ** 0.5)
        mixed = gate.deconv(reduced)[:, :, None]
    out = torch.sigmoid(mixed / (1 + 1e-5) ** 0.5)
    return F.adaptive_avg_pool1d(out, gate.fc1.out_channels) if type(gate) is MiddleRange else out


@pytest.mark.parametrize("gates", ["L", "M", "S", "LMS"])
@pytest.mark.parametrize("reduction, c", [(TOKEN_REDUCTION, 10), (CHANNEL_REDUCTION, 64)])
def test_gates_mix_weigh_mix_and_sum(gates, reduction, c):
    """Few large products must equal the definition, one gate after the other."""
    torch.manual_seed(0)
    module = Gated(gates, 12, c, reduction).double().eval()
    for parameter in module.parameters():
        if parameter.ndim > 1:  # initial weights hardly open a gate to one side
            torch.nn.init.normal_(parameter)
    x = torch.randn(12, 5, 1, c, dtype=torch.float64)
    videos, expected = x[:, :, 0].transpose(0, 1), 0  # (B, n, c)
    for gate in (getattr(module, name) for name in module.names):
        mixed = gate.fc1(videos)
        weighed = mixed * opening(gate, mixed.transpose(1, 2)).transpose(1, 2)
        expected = expected + gate.fc2(weighed)
    got = module.gated(x)[:, :, 0].transpose(0, 1)
    torch.testing.assert_close(got, expected)


def test_batch_norm_treats_clips_as_if_one_came_after_the_other():
    together, apart = ClipNorm(6).train(), torch.nn.BatchNorm1d(6).train()
    x = torch.randn(4, 7, 5, 6) * torch.arange(1.0, 6)[:, None]  # (n, B, P, c)
    got = together(x)
    for clip in range(5):
        own = apart(x[:, :, clip].reshape(-1, 6)).view(4, 7, 6)
        torch.testing.assert_close(got[:, :, clip], own)
    for name, value in apart.state_dict().items():
        torch.testing.assert_close(together.state_dict()[name], value)
    alone = x[:, :, 0].flatten(0, 1)
    torch.testing.assert_close(together.eval()(alone), apart.eval()(alone))


def test_the_network_treats_clips_as_if_one_came_after_the_other():
    torch.manual_seed(0)
    together = MCMSH(MCMSHConfig(**TINY, dropout=0.0)).train()
    apart = MCMSH(MCMSHConfig(**TINY, dropout=0.0)).train()
    apart.load_state_dict(together.state_dict())
    clips = torch.randn(3, 6, 10, 12)
    got = together.mc_mlp(clips)
    one_by_one = torch.stack([apart.mc_mlp(clip[None])[0] for clip in clips])
    torch.testing.assert_close(got, one_by_one, rtol=1e-4, atol=1e-5)
    for ours, theirs in zip(together.state_dict().values(), apart.state_dict().values()):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_gate_openings_are_named_and_between_0_and_1():
    model = MCMSH(MCMSHConfig(**TINY)).eval()
    openings = model.mc_mlp.gate_openings(torch.randn(3, 10, 12))
    places = ("token_mixer.", "channel_mixer.", "")
    assert set(openings) == {place + name for place in places for name, _ in GATES.values()}
    for name, opening in openings.items():
        assert opening.shape == (3, 10, 32) and 0 <= opening.min() <= opening.max() <= 1
        own_axis = 2 if name.startswith("token") else 1  # n: channels, or time
        if name.endswith("lrd"):  # one gate for all of it
            assert torch.equal(opening, opening.narrow(own_axis, 0, 1).expand_as(opening))
        else:
            assert opening.std(own_axis).max() > 0


@pytest.fixture
def train(random_features):
    return FeatureSet(random_features(shape=(96, 10, 12)))


def a_batch(train, generator, count=24, **changes):
    model = MCMSH(MCMSHConfig(**TINY | changes)).prepare(train)
    return model, model.sample(train, torch.arange(count), generator)


def test_a_sample_has_five_clips_and_only_two_are_corrupted(train, generator):
    model, batch = a_batch(train, generator)
    assert batch["clips"].shape == (5, 24, 10, 12)
    assert batch["targets"].shape == (2, 24, 32)
    untouched = train.rows(torch.arange(24))
    same = (batch["clips"][0] == untouched).all(-1).float().mean()
    assert 0.75 < same < 0.95  # 15% are corrupted, of which a tenth stays
    everything = train.rows(range(96))
    for clip in batch["clips"][2:]:
        assert all((everything == video).all(-1).all(-1).any() for video in clip)
    torch.testing.assert_close(batch["targets"][0], model.targets[:24])


def test_partners_have_their_label(train, generator):
    model, batch = a_batch(train, generator, corruption=1e-9)
    everything = train.rows(range(96))
    partner = [int((everything == v).all(-1).all(-1).nonzero()[0]) for v in batch["clips"][1]]
    tags = model.graph.tags(np.arange(24))[np.arange(24), partner]
    np.testing.assert_array_equal(tags == 1, batch["label"].numpy() == 1)


@pytest.mark.parametrize("variant", TABLE_2)
def test_a_structure_that_is_not_preserved_costs_nothing(train, generator, variant):
    model, batch = a_batch(train, generator, **TABLE_2[variant])
    terms = model.losses(batch)
    off = {name.removesuffix("_weight") for name in TABLE_2[variant]}
    assert set(terms) == {"cluster", "similarity", "quantisation", "quadruplet"} - off
    assert len(batch["clips"]) == (2 if "quadruplet" in off else 5)


@pytest.mark.parametrize("variant", TABLE_1)
def test_every_module_of_table_1_trains(train, variant):
    model = MCMSH(MCMSHConfig(**TINY, gates=TABLE_1[variant]))
    before = {name: value.clone() for name, value in model.named_parameters()}
    history = fit(model, train, epochs=6, batch_size=24, learning_rate=1e-3, precision="32-true")
    assert history[-1]["loss"] < history[0]["loss"]
    assert all(not torch.equal(before[name], p) for name, p in model.named_parameters())
    assert encode(model, train).shape == (96, 2)


def test_training_leaves_the_features_as_they_were(random_features):
    path = random_features(shape=(96, 10, 12))
    before = hashlib.sha256(path.read_bytes()).digest()
    train = FeatureSet(path, in_memory=True)
    untouched = train.rows(range(96)).clone()
    fit(MCMSH(MCMSHConfig(**TINY)), train, epochs=2, batch_size=24)
    assert torch.equal(train.rows(range(96)), untouched)
    assert hashlib.sha256(path.read_bytes()).digest() == before


def test_the_same_seed_gives_the_same_model(train):
    def trained(seed):
        torch.manual_seed(0)
        model = MCMSH(MCMSHConfig(**TINY))
        fit(model, train, epochs=2, batch_size=24, learning_rate=1e-3, seed=seed)
        return model

    first, again, other = trained(3), trained(3), trained(4)
    np.testing.assert_array_equal(encode(first, train), encode(again, train))
    assert torch.equal(first.binary.weight, again.binary.weight)
    assert not torch.equal(first.binary.weight, other.binary.weight)


def test_quantisation_moves_nothing_as_in_the_released_code():
    codes = torch.tensor([[0.5, -0.25]], requires_grad=True)
    through = codes + (torch.tensor([[1.0, -1.0]]) - codes).detach()  # straight through
    released = (codes - through).square().mean()
    released.backward()
    assert (codes.grad == 0).all()
    ours = losses.quantisation(codes)
    torch.testing.assert_close(ours, released.detach())
    assert not ours.requires_grad


def test_odd_configs_are_refused():
    with pytest.raises(ValueError, match="letters of"):
        MCMSHConfig(gates="LX")
    with pytest.raises(ValueError, match="multiple of 16"):
        MCMSHConfig(hidden_dim=100)
    with pytest.raises(ValueError, match="num_frames is 3"):
        MCMSHConfig(num_frames=3)
