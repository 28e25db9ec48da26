"""BTH: golden vectors of the released code, its two stages, clean targets."""

import numpy as np
import pytest
import torch

from vidhash_lab import FeatureSet, encode, fit, load_released
from vidhash_lab.models.bth import BTH, BTHConfig
from vidhash_lab.models.hasher import sign

TINY = {"bits": 16, "num_frames": 10, "feature_dim": 12, "hidden_dim": 16}
OWN = ("hidden_dim", "num_anchors", "latent_epochs")
TINY |= {"num_anchors": 24, "latent_epochs": 2}


def test_reproduces_the_released_implementation(golden):
    expected = {n: torch.from_numpy(v) for n, v in np.load(golden("bth.npz")).items()}
    model = load_released("bth", golden("bth.pth"), num_frames=10)
    with torch.no_grad():
        frame_codes, hidden = model.frame_codes(expected["frames"])
        reconstruction, code = model.restore(frame_codes), model.encode(expected["frames"])
    close = {"rtol": 1e-5, "atol": 1e-5}
    torch.testing.assert_close(hidden, expected["hidden"], **close)
    torch.testing.assert_close(frame_codes, expected["frame_codes"])
    torch.testing.assert_close(reconstruction, expected["reconstruction"], **close)
    # With an even T the released code leaves zeros; here they are +1.
    assert (expected["code"] == 0).any()
    torch.testing.assert_close(code, sign(expected["code"]))


@pytest.fixture
def train(random_features):
    return FeatureSet(random_features(shape=(96, 10, 12)))


def test_losses_are_their_formulas(train, generator):
    model = BTH(BTHConfig(**TINY)).prepare(train).eval()
    batch = model.sample(train, torch.arange(24), generator)
    with torch.no_grad():
        terms = model.losses(batch)
        restored, neighbour, anchored = 0.0, 0.0, 0.0
        codes, hidden = zip(*(model.frame_codes(noisy) for noisy in batch["noisy"]))
        for clip in range(2):
            difference = model.restore(codes[clip]) - batch["clean"][clip]
            restored += difference.square().mean() / 2
            states = hidden[clip].mean(1) - batch["targets"][clip]
            anchored += states.square().mean()
        for video in range(24):
            agreement = (codes[0][video].mean(0) @ codes[1][video].mean(0)) / 16
            neighbour += (batch["label"][video] - agreement) ** 2 / 24
    torch.testing.assert_close(terms["reconstruction"], 0.92 * restored, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(terms["similarity"], 0.08 * neighbour, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(terms["cluster"], 0.8 * anchored, rtol=1e-5, atol=1e-6)


def test_reconstructs_the_clean_frames(train, generator):
    batch = BTH(BTHConfig(**TINY)).prepare(train).sample(train, torch.arange(24), generator)
    torch.testing.assert_close(batch["clean"][0], train.rows(torch.arange(24)))
    zeroed = (batch["noisy"] == 0).all(-1)
    assert zeroed.any() and not (batch["clean"] == 0).all(-1).any()


def test_one_call_prepares_both_stages_and_keeps_what_it_found(train, monkeypatch):
    model = BTH(BTHConfig(**TINY))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.prepare(train)
    assert model.targets.shape == (96, 16) and len(model.graph) == 96
    for name, value in model.state_dict().items():  # the first stage trains another model
        assert torch.equal(value, before[name])
    monkeypatch.setattr(BTH, "_latent_means", None)  # must not be asked for again
    again = BTH(BTHConfig(**TINY)).prepare(train)
    assert torch.equal(again.targets, model.targets)


def test_kept_structures_change_nothing_of_a_training(train):
    """The first run learns the latent space, the second reads it: the same weights come out."""

    def trained():
        model = BTH.for_dataset(train, 16, **{k: TINY[k] for k in TINY if k in OWN})
        fit(model, train, epochs=1, batch_size=24, seed=3, precision="32-true")
        return model.state_dict()

    cold, warm = trained(), trained()
    assert len(list(train.paths[0].parent.glob("structures/*.h5"))) == 1
    for name, value in cold.items():
        assert torch.equal(value, warm[name]), name


def test_the_latent_space_is_that_of_its_seed(train):
    models = [BTH(BTHConfig(**TINY)) for _ in range(2)]  # of other weights: they do not matter
    means = [model._latent_means(train, 5) for model in models]
    np.testing.assert_array_equal(*means)


def test_trains_and_gives_gradients_to_all_weights(train):
    torch.manual_seed(0)
    model = BTH(BTHConfig(**TINY))
    history = fit(model, train, epochs=3, batch_size=24, learning_rate=1e-3, precision="32-true")
    assert history[2]["loss"] < history[0]["loss"]
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())
    assert encode(model, train).shape == (96, 2)


def test_more_frames_than_positions_are_refused():
    with pytest.raises(ValueError, match="512 positions"):
        BTHConfig(num_frames=513)
