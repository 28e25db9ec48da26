"""AutoSSVH: golden vectors of the released code, the adversary, votes, what goes on training."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vidhash_lab import AutoSSVH, AutoSSVHConfig, FeatureSet, fit, load, load_released, save
from vidhash_lab.losses import component_voting, debiased_contrastive, masked_reconstruction
from vidhash_lab.models.autossvh import (
    Components,
    choose,
    concentrate,
    find_components,
    reversed_choice,
)

SIZES = {"bits": 16, "hidden_dim": 16, "depth": 1, "heads": 2, "decoder_dim": 12}
TINY = SIZES | {"num_frames": 10, "feature_dim": 12, "num_clusters": (4, 8), "warm_up_epochs": 0}
CLOSE = {"rtol": 1e-5, "atol": 1e-5}


@pytest.fixture
def train(random_features):
    return FeatureSet(random_features())


@pytest.fixture
def released(golden):
    """The released model, told that its sampler is of use, and what the released code computes."""
    vectors = np.load(golden("autossvh_mini.npz"))
    model = load_released("autossvh", golden("autossvh_mini.pth"), config=AutoSSVHConfig())
    return model, {name: torch.from_numpy(np.asarray(value)) for name, value in vectors.items()}


def voted(train, epoch=0, **changes):
    """A model that has voted, and a batch of it."""
    model = AutoSSVH(AutoSSVHConfig(**TINY | changes)).prepare(train)
    model.on_epoch(epoch)
    return model, model.sample(train, torch.arange(24), torch.Generator().manual_seed(1))


# ---- the released implementation -----------------------------------------------------------------


@torch.no_grad()
def test_reproduces_views_codes_and_losses(released):
    model, expected = released
    masked = torch.stack([expected["masked1"], expected["masked2"]])
    codes, guesses, hidden = model.two_views(expected["frames"], masked)
    for view, (guess, code) in enumerate(zip(guesses.chunk(2), codes.chunk(2)), 1):
        torch.testing.assert_close(guess, expected[f"reconstruction{view}"], **CLOSE)
        torch.testing.assert_close(code, expected[f"frame_codes{view}"])
    losses = {
        "reconstruction_loss": masked_reconstruction(guesses, expected["frames"], hidden),
        "contrastive_loss": debiased_contrastive(*codes.mean(1).chunk(2), 0.5, 0.1),
    }
    for name, loss in losses.items():
        assert loss.item() == pytest.approx(expected[name].item(), rel=1e-5)


@torch.no_grad()
def test_reproduces_importances(released):
    model, expected = released
    everywhere = model.all_places(expected["frames"])
    embedded = model.encoder.embed(expected["frames"], everywhere)
    torch.testing.assert_close(embedded, expected["embedded"], **CLOSE)
    importances = model.importances(expected["frames"])
    torch.testing.assert_close(importances, expected["importance_scores"].squeeze(2), **CLOSE)


def test_reproduces_the_voting(released, generator):
    _, expected = released
    votes = []
    for count in (6, 4):
        names = (f"{name}_{count}" for name in ("assignment", "prototypes", "concentration"))
        components = Components(*(expected[name] for name in names))
        votes.append(components.draw(expected["video_index"], generator))
    batch = {f"centres {n}": centres for n, (centres, _) in enumerate(votes)}
    batch |= {f"concentrations {n}": loose for n, (_, loose) in enumerate(votes)}
    views = [expected[f"frame_codes{view}"].mean(1) for view in (1, 2)]
    for view, codes in enumerate(views, 1):
        got = torch.stack([component_voting(codes, *vote) for vote in votes]).mean()
        assert got.item() == pytest.approx(expected[f"voting_loss{view}"].item(), rel=1e-5)
    both = (expected["voting_loss1"] + expected["voting_loss2"]) / 2
    two = AutoSSVH(AutoSSVHConfig(**TINY))  # of two granularities
    assert two.voting(views, batch).item() == pytest.approx(both.item(), rel=1e-5)


def test_reproduces_the_reversed_gradient(released):
    _, expected = released
    shares = torch.zeros_like(expected["reversal_chosen"]).requires_grad_()
    frames = expected["reversal_frames"].clone().requires_grad_()
    chosen = reversed_choice(expected["reversal_chosen"] == 0, shares)
    assert torch.equal(chosen, expected["reversal_chosen"])
    (frames * chosen[..., None]).backward(expected["reversal_gradient_in"])
    torch.testing.assert_close(shares.grad, expected["reversal_gradient_chosen"], **CLOSE)
    torch.testing.assert_close(frames.grad, expected["reversal_gradient_frames"], **CLOSE)


@pytest.mark.parametrize("sampler", ["learned", "random"])
def test_released_weights_go_on_training(golden, random_features, sampler):
    config = AutoSSVHConfig(sampler=sampler, num_clusters=(4, 8), warm_up_epochs=1)
    model = load_released("autossvh", golden("autossvh_mini.pth"), config=config)
    before = model.sampler.score.weight.clone()
    train = FeatureSet(random_features(shape=(40, 10, 24)))
    history = fit(model, train, epochs=3, batch_size=20, learning_rate=1e-3, device="cpu")
    assert history[0]["voting"] == 0 and history[1]["voting"] > 0
    assert history[2]["reconstruction"] < history[0]["reconstruction"]
    assert torch.equal(model.sampler.score.weight, before) == (sampler == "random")


# ---- the sampler ---------------------------------------------------------------------------------


def slow_choice(importances, noise, num_visible):
    """Choose one view's frames (B, T) in loops -> hidden places, shares."""
    noisy = [[i + n for i, n in zip(*rows)] for rows in zip(importances, noise)]
    values = [value for row in noisy for value in row]
    mean = sum(values) / len(values)
    deviation = math.sqrt(sum((v - mean) ** 2 for v in values) / (len(values) - 1))
    masked, shares = [], []
    for row in noisy:
        powers = [math.exp((value - mean) / deviation / 0.5) for value in row]
        shares.append([power / sum(powers) for power in powers])
        highest = sorted(range(len(row)), key=lambda place: -row[place])[:num_visible]
        masked.append([place not in highest for place in range(len(row))])
    return masked, shares


@settings(max_examples=40)
@given(st.integers(1, 6), st.integers(2, 30), st.integers(0, 2**31), st.data())
def test_choice_is_its_definition(videos, num_frames, seed, data):
    num_visible = data.draw(st.integers(1, num_frames - 1))
    draws = torch.Generator().manual_seed(seed)
    importances = torch.rand(videos, num_frames, generator=draws)
    noise = 3 * torch.randn(2, videos, num_frames, generator=draws)
    masked, shares = choose(importances, noise, num_visible)
    for view in range(2):
        expected = slow_choice(importances.tolist(), noise[view].tolist(), num_visible)
        assert masked[view].tolist() == expected[0]
        torch.testing.assert_close(shares[view], torch.tensor(expected[1]), **CLOSE)


def test_without_noise_the_most_important_frames_are_chosen(train):
    model = AutoSSVH(AutoSSVHConfig(**TINY))
    importances = model.importances(train.rows(range(8)))
    assert importances.shape == (8, 10) and ((0 < importances) & (importances < 1)).all()
    masked, _ = choose(importances, torch.zeros(2, 8, 10), 3)
    for row, hidden in zip(importances, masked[0]):
        assert row[~hidden].min() > row[hidden].max()


def test_chosen_views_are_hashed_and_guessed_as_given_ones(train):
    model, batch = voted(train)
    masked, _ = choose(model.importances(batch["frames"]), batch["noise"], model.config.num_visible)
    assert ((~masked).sum(2) == model.config.num_visible).all() and (masked[0] != masked[1]).any()
    for got, expected in zip(
        model.hardest_views(batch["frames"], batch["noise"]),
        model.two_views(batch["frames"], masked),
    ):
        torch.testing.assert_close(got, expected)


def test_the_sampler_learns_against_the_losses(train, monkeypatch):
    model, batch = voted(train)

    def gradients():
        model.zero_grad()
        sum(model.losses(batch).values()).backward()
        return [weight.grad.clone() for weight in model.sampler.parameters()]

    reversed_gradients = gradients()

    def straight(masked, shares):
        return (~masked).to(shares) + (shares - shares.detach())

    monkeypatch.setattr("vidhash_lab.models.autossvh.reversed_choice", straight)
    for ours, straight_through in zip(reversed_gradients, gradients()):
        torch.testing.assert_close(ours, -straight_through)
        assert ours.any()


@pytest.mark.parametrize("sampler", ["learned", "random"])
def test_every_weight_learns(train, sampler):
    model, batch = voted(train, sampler=sampler)
    sum(model.losses(batch).values()).backward()
    idle = {n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()}
    of_the_sampler = {n for n, _ in model.named_parameters() if n.startswith("sampler.")}
    assert idle == (set() if sampler == "learned" else of_the_sampler)
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


def test_nobody_taught_a_random_sampler(train):
    model = AutoSSVH(AutoSSVHConfig(**TINY | {"sampler": "random"}))
    with pytest.raises(ValueError, match="nothing taught it what to look for"):
        model.importances(train.rows(range(2)))


@pytest.mark.parametrize("sampler", ["learned", "random"])
def test_the_generator_draws_everything(train, sampler):
    model, batch = voted(train, sampler=sampler)
    before = torch.random.get_rng_state()
    again = model.sample(train, torch.arange(24), torch.Generator().manual_seed(1))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert batch.keys() == again.keys()
    assert all(torch.equal(batch[name], again[name]) for name in batch)


# ---- the vote ------------------------------------------------------------------------------------


def slow_concentrations(distances, assignment, num_clusters):
    """Measure clusters in a loop, percentiles by numpy."""
    clusters = [[d for d, c in zip(distances, assignment) if c == k] for k in range(num_clusters)]
    loose = [
        sum(c) / len(c) / math.log(len(c) + 10) if len(c) > 1 and sum(c) else None for c in clusters
    ]
    known = [value for value in loose if value is not None]
    if not known:
        return np.full(num_clusters, 0.2)
    filled = np.array([max(known) if value is None else value for value in loose])
    filled = filled.clip(np.percentile(filled, 10), np.percentile(filled, 90))
    return 0.2 * filled / filled.mean()


@settings(max_examples=60)
@given(st.integers(1, 12), st.integers(1, 60), st.integers(0, 2**31), st.booleans())
def test_concentrations_are_their_definition(num_clusters, videos, seed, any_spread):
    draws = torch.Generator().manual_seed(seed)
    assignment = torch.randint(num_clusters, (videos,), generator=draws)
    distances = (0.1 + torch.rand(videos, generator=draws)) * any_spread
    got = concentrate(distances, assignment, num_clusters)
    expected = slow_concentrations(distances.tolist(), assignment.tolist(), num_clusters)
    np.testing.assert_allclose(got.numpy(), expected, rtol=1e-5)


@settings(max_examples=60)
@given(st.integers(1, 20), st.integers(1, 30), st.integers(0, 2**31))
def test_a_batch_sees_its_own_centres_and_as_many_others(num_clusters, count, seed):
    draws = torch.Generator().manual_seed(seed)
    numbers = torch.arange(float(num_clusters))
    assignment = torch.randint(num_clusters, (40,), generator=draws)
    components = Components(assignment, numbers[:, None], 10 * numbers)
    videos = torch.randperm(40, generator=draws)[:count]
    centres, concentrations = components.draw(videos, draws)
    own, others = centres[:count, 0].long(), centres[count:, 0].long().tolist()
    assert torch.equal(own, assignment[videos])
    free = set(range(num_clusters)) - set(own.tolist())
    assert set(others) <= free and len(others) == len(set(others)) == min(count, len(free))
    assert torch.equal(concentrations, 10 * centres[:, 0])


def test_clusters_are_found_again_and_each_video_is_in_the_nearest(generator):
    groups = torch.eye(4, 16)[torch.arange(80) % 4]
    codes = groups + 0.05 * torch.randn(80, 16, generator=generator)
    found, again = (find_components(codes, 4, seed=3) for _ in range(2))
    assert torch.equal(found.assignment, again.assignment)
    assert torch.equal(found.centres, again.centres)
    assert all(len(found.assignment[n::4].unique()) == 1 for n in range(4))
    torch.testing.assert_close(found.centres.norm(dim=1), torch.ones(4))
    nearest = (codes @ found.centres.T).argmax(1)
    assert torch.equal(nearest, found.assignment)


@pytest.mark.filterwarnings("error")
def test_codes_that_are_all_the_same_still_vote(generator):
    components = find_components(torch.ones(12, 8), 5, seed=0)
    torch.testing.assert_close(components.concentrations, torch.full((5,), 0.2))
    codes = torch.ones(4, 8, requires_grad=True)
    component_voting(codes, *components.draw(torch.arange(4), generator)).backward()
    assert codes.grad.isfinite().all()


def test_votes_begin_after_the_warm_up(train):
    model, batch = voted(train, epoch=1, warm_up_epochs=2)
    assert model.losses(batch)["voting"] == 0 and model.components == []
    model, batch = voted(train, epoch=2, warm_up_epochs=2)
    assert [len(each.centres) for each in model.components] == [4, 8]
    assert model.losses(batch)["voting"] > 0
    weights = {each: voted(train, voting_weight=each) for each in (0.01, 0.5)}
    weights[0.5][0].load_state_dict(weights[0.01][0].state_dict())
    terms = {each: model.losses(weights[0.01][1]) for each, (model, _) in weights.items()}
    torch.testing.assert_close(terms[0.5]["voting"], 50 * terms[0.01]["voting"])
    model, batch = voted(train, voting_weight=0)
    assert list(model.losses(batch)) == ["reconstruction", "contrastive"]


# ---- what does not fit ---------------------------------------------------------------------------


def test_more_clusters_than_videos_are_refused_before_training(train):
    model = AutoSSVH.for_dataset(train, **SIZES)
    with pytest.raises(ValueError, match=r"1000 clusters of 64 training videos.*voting_weight=0"):
        fit(model, train, epochs=1)
    without = AutoSSVH.for_dataset(train, **SIZES, voting_weight=0)
    assert len(fit(without, train, epochs=1, device="cpu")) == 1
    as_many = AutoSSVH.for_dataset(train, **SIZES, num_clusters=(64,), warm_up_epochs=0)
    assert fit(as_many, train, epochs=1, device="cpu")[0]["voting"] > 0


def test_a_vote_without_videos_is_refused():
    with pytest.raises(ValueError, match="prepare"):
        AutoSSVH(AutoSSVHConfig(**TINY)).on_epoch(0)


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"sampler": "best"}, "'best'"),
        ({"num_clusters": ()}, "num_clusters"),
        ({"num_clusters": (4, 0)}, "num_clusters"),
        ({"num_frames": 1}, "mask_ratio"),
    ],
)
def test_odd_configs_are_refused(changes, said):
    with pytest.raises(ValueError, match=said):
        AutoSSVHConfig(**TINY | changes)


@settings(max_examples=15)
@given(st.integers(2, 9), st.integers(1, 6), st.integers(1, 12), st.sampled_from([8, 16]))
def test_every_shape_trains(num_frames, videos, feature_dim, bits):
    shape = {"num_frames": num_frames, "feature_dim": feature_dim, "bits": bits}
    model = AutoSSVH(AutoSSVHConfig(**TINY | shape | {"num_clusters": (1, videos)}))
    frames = torch.randn(videos, num_frames, feature_dim)

    class Memory:
        def __len__(self):
            return videos

        def rows(self, indices):
            return frames[indices]

        def batches(self):
            return [(torch.arange(videos), frames)]

    model.prepare(Memory()).on_epoch(0)
    batch = model.sample(Memory(), torch.arange(videos), torch.Generator().manual_seed(0))
    sum(model.losses(batch).values()).backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())
    assert model.encode(frames).shape == (videos, bits)


def test_a_model_is_saved_and_loaded_whole(train, tmp_path):
    model = AutoSSVH(AutoSSVHConfig(**TINY)).eval()
    torch.nn.init.normal_(model.positions)
    save(model, tmp_path / "model.pt")
    loaded = load(tmp_path / "model.pt")
    assert loaded.config == model.config
    frames = train.rows(range(6))
    assert torch.equal(loaded.importances(frames), model.importances(frames))
    assert torch.equal(loaded.encode(frames), model.encode(frames))
    assert torch.equal(loaded.positions, model.positions)
