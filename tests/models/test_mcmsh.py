"""MCMSH: golden vectors of the released code, gates, partners, corruption, ablations."""

import copy
import hashlib
import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from vidhash_lab import FeatureSet, encode, fit, load, load_released, losses, save
from vidhash_lab.models.mcmsh import GATES, MCMLP, MCMSH, TABLE_1, TABLE_2, MCMSHConfig

TINY = {"bits": 16, "num_frames": 10, "feature_dim": 12, "hidden_dim": 32, "num_anchors": 24}


@pytest.fixture
def released(golden):
    arrays = np.load(golden("mcmsh.npz"))
    return {name: torch.from_numpy(np.asarray(value)) for name, value in arrays.items()}


def test_reproduces_the_released_implementation(golden, released):
    model = load_released("mcmsh", golden("mcmsh.pth"), alpha=float(released["alpha"]))
    with torch.no_grad():
        hidden = model.mc_mlp(released["frames"])
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
    # Zeros of grouped convolutions and poolings, which are done as products, come on top.
    assert counter.get_total_flops() / 128 / 2e9 == pytest.approx(0.0488, abs=1e-4)
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


class Transcription(nn.Module):
    """MC-MLP as the paper draws it, with torch's own layers, on the weights of an `MCMLP`."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def gate(self, gate, kind, x):  # (B, n, c)
        x = gate.fc1(x)
        if kind == "lrd":
            seen = x.mean(1)
        else:
            seen = x.transpose(1, 2)
            seen = F.adaptive_avg_pool1d(seen, x.shape[1] // 3) if kind == "mrd" else seen
        opening = gate.bn2(gate.deconv(F.relu(gate.bn1(gate.conv(seen))))).sigmoid()
        if kind == "lrd":
            return gate.fc2(x * opening[:, None])
        opening = F.adaptive_avg_pool1d(opening, x.shape[1]) if kind == "mrd" else opening
        return gate.fc2(x * opening.transpose(1, 2))

    def gated(self, place, x):
        return sum(self.gate(getattr(place, kind), kind, x) for kind in place.names)

    def forward(self, frames):
        net = self.network
        x = F.relu(net.preproj(frames))
        mixed = net.token_mixer.mlp(x.transpose(1, 2))
        x = x + self.gated(net.token_mixer, mixed).transpose(1, 2)
        x = x + self.gated(net.channel_mixer, net.channel_mixer.mlp(x))
        return self.gated(net, x)


@settings(max_examples=40)
@given(
    T=st.integers(4, 30),
    H=st.integers(16, 80),
    B=st.integers(2, 5),
    gates=st.sampled_from(["L", "M", "S", "LMS"]),
    training=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_equals_a_plain_transcription_at_every_shape(T, H, B, gates, training, seed):
    """States, every gradient and the running statistics, in float64."""
    assume(H % (H // 16) == 0)
    torch.manual_seed(seed)
    network = MCMLP(T, 7, H, gates, dropout=0.0).double().train(training)
    for name, parameter in network.named_parameters():
        if name.endswith("conv.weight"):  # the initial weights hardly open a gate to one side
            nn.init.normal_(parameter)
    plain = Transcription(copy.deepcopy(network))
    frames, direction = torch.randn(B, T, 7).double(), torch.randn(B, T, H).double()
    got, expected = network(frames), plain(frames)
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-7)
    (got * direction).sum().backward()
    (expected * direction).sum().backward()
    for ours, theirs in zip(network.parameters(), plain.parameters()):
        scale = max(1.0, theirs.grad.abs().max())
        torch.testing.assert_close(ours.grad / scale, theirs.grad / scale, rtol=1e-5, atol=1e-7)
    for ours, theirs in zip(network.buffers(), plain.network.buffers()):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("T, H", [(4, 16), (7, 31), (5, 32)])
def test_gradients_are_finite_where_one_channel_is_left(random_features, T, H):
    """Views of stride 0 into a batch norm of one channel once gave gradients of 1e11 to 1e27."""
    train = FeatureSet(random_features(shape=(96, T, 12)))
    config = MCMSHConfig(bits=16, num_frames=T, feature_dim=12, hidden_dim=H, num_anchors=24)
    model = MCMSH(config).prepare(train)
    batch = model.sample(train, torch.arange(24), torch.Generator().manual_seed(0))
    sum(model.losses(batch).values()).backward()
    assert max(p.grad.norm() for p in model.parameters()) < 100


def test_videos_of_a_tuple_go_through_the_network_one_after_the_other(train, generator):
    model, batch = a_batch(train, generator, dropout=0.0)
    network = copy.deepcopy(model.mc_mlp).train()
    model.train().losses(batch)
    for videos in batch["videos"]:
        network(videos)
    for ours, theirs in zip(model.mc_mlp.buffers(), network.buffers()):
        torch.testing.assert_close(ours, theirs)


def test_gate_openings_are_named_and_between_0_and_1():
    torch.manual_seed(0)  # some weights leave a bottleneck so narrow all zero
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


def test_a_sample_has_five_videos_and_only_two_are_corrupted(train, generator):
    model, batch = a_batch(train, generator)
    assert batch["videos"].shape == (5, 24, 10, 12)
    assert batch["targets"].shape == (2, 24, 32)
    untouched = train.rows(torch.arange(24))
    same = (batch["videos"][0] == untouched).all(-1).float().mean()
    assert 0.75 < same < 0.95  # 15% are corrupted, of which a tenth stays
    everything = train.rows(range(96))
    for drawn in batch["videos"][2:]:
        assert all((everything == video).all(-1).all(-1).any() for video in drawn)
    torch.testing.assert_close(batch["targets"][0], model.targets[:24])


def test_partners_have_their_label(train, generator):
    model, batch = a_batch(train, generator, corruption=1e-9)
    everything = train.rows(range(96))
    partner = [int((everything == v).all(-1).all(-1).nonzero()[0]) for v in batch["videos"][1]]
    tags = model.graph.tags(np.arange(24))[np.arange(24), partner]
    np.testing.assert_array_equal(tags == 1, batch["label"].numpy() == 1)


@pytest.mark.parametrize("variant", TABLE_2)
def test_a_structure_that_is_not_preserved_costs_nothing(train, generator, variant):
    model, batch = a_batch(train, generator, **TABLE_2[variant])
    terms = model.losses(batch)
    off = {name.removesuffix("_weight") for name in TABLE_2[variant]}
    assert set(terms) == {"cluster", "similarity", "quantisation", "quadruplet"} - off
    assert len(batch["videos"]) == (2 if "quadruplet" in off else 5)


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
    with pytest.raises(ValueError, match="multiple of 16"):
        MCMSHConfig(hidden_dim=15)
    with pytest.raises(ValueError, match="num_frames is 3"):
        MCMSHConfig(num_frames=3)


def test_a_batch_of_one_video_is_refused(train):
    with pytest.raises(ValueError, match="two videos or more"):
        fit(MCMSH(MCMSHConfig(**TINY)), train, epochs=1, batch_size=1)
