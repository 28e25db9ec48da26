"""S5VH: golden vectors of the released code, both directions, soft labels, hash centres."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from vidhash_lab import DataError, FeatureSet, encode, fit, load, load_released, save
from vidhash_lab.losses import centre_alignment, debiased_contrastive, masked_reconstruction
from vidhash_lab.models.s5vh import S5VH, SIZES, Block, S5VHConfig, Scan, smooth
from vidhash_lab.models.selective_scan import causal_convolution

OWN = {"hidden_dim": 20, "depth": 2, "decoder_dim": 12, "num_clusters": 8, "cluster_dim": 6}
TINY = OWN | {"bits": 16, "num_frames": 10, "feature_dim": 12}
RECIPE = {"epochs": 4, "batch_size": 16, "learning_rate": 1e-3, "precision": "32-true"}
CLOSE = {"rtol": 1e-5, "atol": 1e-5}


@pytest.fixture
def train(random_features):
    return FeatureSet(random_features())


def prepared(train, seed=0, **changes):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return S5VH(S5VHConfig(**TINY | changes)).prepare(train)


@pytest.fixture(params=["s5vh_mini", "s5vh_small"])
def released(request, golden):
    """A model with released weights, and what the released code computes from them."""
    arrays = np.load(golden(f"{request.param}.npz")).items()
    expected = {key: torch.from_numpy(np.asarray(value)) for key, value in arrays}
    model = load_released("s5vh", golden(f"{request.param}.pth"), num_frames=10)
    assert model.config.depth == SIZES[request.param.removeprefix("s5vh_")]["depth"]
    expected["masked"] = torch.stack([expected["masked1"], expected["masked2"]])
    return model, expected


def test_reproduces_the_released_forward_pass(released):
    model, expected = released
    with torch.no_grad():
        codes, guesses, _ = model.two_views(expected["frames"], expected["masked"])
        places = torch.arange(10).expand(5, 10)
        all_codes = model.frame_codes(expected["frames"], places)
        code = model.encode(expected["frames"])
        logits = model.guess_clusters(expected["frames"])
    for view, (got, got_codes) in enumerate(zip(guesses.chunk(2), codes.chunk(2)), 1):
        torch.testing.assert_close(got, expected[f"reconstruction{view}"], **CLOSE)
        torch.testing.assert_close(got_codes, expected[f"frame_codes{view}"])
        of_clusters = model.classifier(got_codes.mean(1))
        torch.testing.assert_close(of_clusters, expected[f"cluster_logits{view}"], **CLOSE)
    torch.testing.assert_close(all_codes, expected["inference_frame_codes"])
    decided = expected["code"] != 0  # the released code leaves a tie as 0, ours says +1
    torch.testing.assert_close(code[decided], expected["code"][decided])
    assert (code[~decided] == 1).all()
    torch.testing.assert_close(logits, expected["label_logits"], **CLOSE)
    found = smooth(expected["soft_labels"], logits.softmax(1), float(expected["smoothing_alpha"]))
    torch.testing.assert_close(found, expected["new_soft_labels"], **CLOSE)


@pytest.mark.parametrize("epoch", [0, 60])
def test_reproduces_the_released_losses_and_gradients(released, epoch):
    model, expected = released
    weights = {
        "contrastive_weight": float(expected["alpha"]),
        "alignment_weight": float(expected["a_cluster"]),
        "alignment_temperature": float(expected["temperature_cluster"]),
        "smoothing": float(expected["smoothing_alpha"]),
        "temperature": float(expected["temperature"]),
        "tau_plus": float(expected["tau_plus"]),
    }
    model.config = S5VHConfig(**vars(model.config) | weights)
    for block in model.encoder.blocks:
        block.drop_path = 0  # the released numbers are of evaluation mode, in which labels stay
    model.soft_labels = expected["soft_labels"].clone()
    model.train().on_epoch(epoch)
    terms = model.losses(
        {"frames": expected["frames"], "masked": expected["masked"], "videos": torch.arange(5)}
    )
    torch.testing.assert_close(
        terms["contrastive"].double(), 2.5 * expected["contrastive_loss"], **CLOSE
    )
    torch.testing.assert_close(
        terms["reconstruction"].double(), expected["reconstruction_loss"], **CLOSE
    )
    alignment = terms["alignment"].double() / weights["alignment_weight"]
    torch.testing.assert_close(alignment, expected[f"cluster_loss_epoch_{epoch}"], **CLOSE)
    total = sum(terms.values())
    torch.testing.assert_close(total.double(), expected[f"total_loss_epoch_{epoch}"], **CLOSE)
    kept = "soft_labels" if epoch == 0 else "new_soft_labels"
    torch.testing.assert_close(model.soft_labels, expected[kept], **CLOSE)
    if epoch == 60:  # of which the released gradients are
        total.backward()
        scan = model.encoder.blocks[0].mamba1
        torch.testing.assert_close(scan.in_proj.weight.grad, expected["grad_in_proj"], **CLOSE)
        torch.testing.assert_close(scan.A_log.grad, expected["grad_A_log"], **CLOSE)
        found = model.classifier.weight.grad
        torch.testing.assert_close(found, expected["grad_classifier"], **CLOSE)


def test_released_files_of_two_scans_keep_both(tmp_path):
    model = S5VH(S5VHConfig(**TINY, centres="learned", shared_directions=False)).eval()
    state = model.state_dict()
    state.pop("soft_labels")
    state["get_token_probs.0.weight"] = torch.ones(3, 3)
    torch.save({"model_state_dict": state}, tmp_path / "two.pth")
    loaded = load_released("s5vh", tmp_path / "two.pth", num_frames=10)
    assert not loaded.config.shared_directions and loaded.config.num_clusters == 8
    frames = torch.randn(4, 10, 12)
    torch.testing.assert_close(loaded.encode(frames), model.encode(frames))


# ---- the layers ----------------------------------------------------------------------------------


def plain_layer(scan, x):
    """Mamba's layer, frame after frame, every step of it from the paper's formulas."""
    outputs, seen = [], []
    state = x.new_zeros(len(x), *scan.A_log.shape)
    for frame in x.unbind(1):
        u, gate = (frame @ scan.in_proj.weight.T).chunk(2, 1)
        seen.append(u)
        taps = scan.conv1d.weight[:, 0]
        mixed = scan.conv1d.bias + sum(
            taps[:, 3 - ago] * seen[-1 - ago] for ago in range(min(4, len(seen)))
        )
        u = mixed * torch.sigmoid(mixed)
        rank, write, read = scan.x_proj(u).split([scan.rank, 16, 16], 1)
        step = torch.log1p(torch.exp(scan.dt_proj(rank)))
        kept = torch.exp(step[..., None] * -torch.exp(scan.A_log))
        state = kept * state + step[..., None] * write[:, None] * u[..., None]
        y = (state * read[:, None]).sum(2) + scan.D * u
        outputs.append((y * gate * torch.sigmoid(gate)) @ scan.out_proj.weight.T)
    return torch.stack(outputs, 1)


@settings(max_examples=10)
@given(frames=st.integers(1, 40), dim=st.integers(1, 35), seed=st.integers(0, 2**31))
def test_a_layer_is_its_formula_frame_by_frame(frames, dim, seed):
    torch.manual_seed(seed)
    scan, x = Scan(dim), torch.randn(3, frames, dim)
    with torch.no_grad():
        expected = plain_layer(scan.double(), x.double())
        found = scan.float()(x)
    torch.testing.assert_close(found.double(), expected, **CLOSE)


def test_the_convolution_is_that_of_torch():
    conv, u = Scan(5).conv1d, torch.randn(2, 7, 10)
    expected = F.silu(conv(F.pad(u.transpose(1, 2), (3, 0))).transpose(1, 2))
    torch.testing.assert_close(causal_convolution(u, conv.weight[:, 0].T, conv.bias), expected)


@pytest.mark.parametrize("shared", [True, False])
def test_a_block_reads_both_ways(shared):
    block = Block(12, 0.0, shared)
    x = torch.randn(2, 6, 12)
    forwards = block.mamba1(block.norm1(x))
    backwards = block.mamba2(block.norm2(x.flip(1))).flip(1)
    torch.testing.assert_close(block(x), x + forwards + backwards)
    assert (block.mamba1 is block.mamba2) == shared
    assert len({id(p) for p in block.parameters()}) == (13 if shared else 22)


def test_stochastic_depth_skips_videos_at_its_rate_and_keeps_the_mean():
    torch.manual_seed(0)
    block, x = Block(8, 0.25, True).train(), torch.randn(1, 5, 8).expand(4000, 5, 8)
    with torch.no_grad():
        added = block(x) - x
        alone = block.eval()(x[:1]) - x[:1]
    skipped = (added == 0).flatten(1).all(1)
    assert abs(skipped.float().mean() - 0.25) < 5 * (0.25 * 0.75 / 4000) ** 0.5
    torch.testing.assert_close(added[~skipped][0], alone[0] / 0.75, **CLOSE)


def test_a_batch_of_which_all_videos_are_skipped():
    block, x = Block(8, 0.999999, True).train(), torch.randn(2, 5, 8, requires_grad=True)
    assert torch.equal(block(x), x)


@pytest.mark.parametrize("size", SIZES)
def test_published_sizes(size):
    with torch.device("meta"):
        model = S5VH(S5VHConfig.sized(size))
    rates = [block.drop_path for block in model.encoder.blocks]
    assert len(rates) == SIZES[size]["depth"] and rates[0] == 0 and len(model.decoder.blocks) == 1
    assert len(rates) == 1 or rates[-1] == 0.5


# ---- clusters, labels, losses --------------------------------------------------------------------


def test_alignment_is_its_formula(generator):
    codes = torch.randn(6, 16, generator=generator)
    centres = torch.randn(4, 16, generator=generator)
    labels = torch.rand(3, 4, generator=generator)
    labels /= labels.sum(1, keepdim=True)
    expected = 0.0
    for view in range(2):
        for video in range(3):
            logits = centres @ codes[3 * view + video] / (16 * 0.5)
            log_share = logits - torch.log(torch.exp(logits).sum())
            expected -= 0.5 * (labels[video] * log_share).sum() / 3
    torch.testing.assert_close(centre_alignment(codes, centres, labels, 0.5), expected)


def test_losses_are_those_of_their_parts(train, generator):
    model = prepared(train).eval()
    batch = model.sample(train, torch.arange(12, 24), generator)
    terms = model.losses(batch)
    codes, guesses, hidden = model.two_views(batch["frames"], batch["masked"])
    codes, labels = codes.mean(1), model.soft_labels[12:24]
    contrast = debiased_contrastive(*codes.chunk(2), 0.5, 0.1)
    alignment = centre_alignment(codes, model.classifier.weight, labels, 0.5)
    restored = masked_reconstruction(guesses, batch["frames"], hidden)
    torch.testing.assert_close(terms["contrastive"], 2.5 * contrast)
    torch.testing.assert_close(terms["alignment"], 0.01 * alignment)
    torch.testing.assert_close(terms["reconstruction"], restored)


def test_prepare_finds_clusters_and_semantic_centres(train):
    model = prepared(train)
    assert model.soft_labels.shape == (64, 8) and (model.soft_labels.sum(1) == 1).all()
    assert model.soft_labels.any(0).all() and set(model.soft_labels.unique().tolist()) == {0, 1}
    centres = model.classifier.weight
    assert set(centres.unique().tolist()) == {-1.0, 1.0} and not centres.requires_grad
    again = prepared(train)
    assert torch.equal(again.soft_labels, model.soft_labels)
    assert torch.equal(again.classifier.weight, centres)


def test_learned_centres_start_as_a_linear_layer_and_learn(train):
    model = prepared(train, centres="learned", drop_path=0.0)
    before = model.classifier.weight.detach().clone()
    assert model.classifier.weight.requires_grad and before.abs().max() < 1
    fit(model, train, **RECIPE | {"epochs": 1})
    assert not torch.equal(model.classifier.weight, before)


@pytest.mark.parametrize("centres", ["semantic", "learned"])
@pytest.mark.parametrize("shared", [True, False])
def test_every_weight_learns(train, generator, centres, shared):
    model = prepared(train, centres=centres, shared_directions=shared, drop_path=0.0)
    sum(model.losses(model.sample(train, torch.arange(16), generator)).values()).backward()
    learning = [(n, p.grad) for n, p in model.named_parameters() if p.requires_grad]
    assert [n for n, gradient in learning if gradient is None or not gradient.any()] == []
    assert all(gradient.isfinite().all() for _, gradient in learning)


def test_labels_move_after_the_warm_up_in_training_alone(train, generator):
    model = prepared(train, warm_up_epochs=2, smoothing=0.25, drop_path=0.0)
    batch = model.sample(train, torch.tensor([3, 5, 9]), generator)
    first = model.soft_labels.clone()
    model.train().on_epoch(1)
    model.losses(batch)
    assert torch.equal(model.soft_labels, first)
    model.eval().on_epoch(2)
    model.losses(batch)
    assert torch.equal(model.soft_labels, first)
    model.train()
    guess = model.guess_clusters(batch["frames"]).softmax(1)
    model.losses(batch)
    torch.testing.assert_close(model.soft_labels[[3, 5, 9]], 0.75 * first[[3, 5, 9]] + guess / 4)
    moved = (model.soft_labels != first).any(1).nonzero()[:, 0]
    assert moved.tolist() == [3, 5, 9]
    torch.testing.assert_close(model.soft_labels.sum(1), torch.ones(64))


# ---- training and checkpoints --------------------------------------------------------------------


@pytest.mark.parametrize("centres", ["semantic", "learned"])
def test_an_interrupted_run_resumes_bit_for_bit_with_its_soft_labels(train, tmp_path, centres):
    changes = {"warm_up_epochs": 1, "smoothing": 0.3, "centres": centres}

    class Stop(Exception):
        pass

    def stop(row):
        if row["epoch"] == 2:
            raise Stop

    def new(seed=0):
        return S5VH.for_dataset(train, 16, seed=seed, **OWN, **changes)

    whole, resumed, path = new(), new(seed=5), tmp_path / "run.pt"
    history = fit(whole, train, **RECIPE)
    with pytest.raises(Stop):
        fit(new(), train, **RECIPE, checkpoint=path, on_epoch=stop)
    halfway = load(path)
    assert halfway.soft_labels.shape == (64, 8) and halfway.soft_labels.max() < 1
    again = fit(resumed, train, **RECIPE, checkpoint=path)
    assert history.column("loss") == again.column("loss")
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name
    assert not torch.equal(whole.soft_labels, halfway.soft_labels)


def test_trains_saves_and_loads(train, tmp_path):
    model = S5VH.for_dataset(train, 16, **OWN)
    history = fit(model, train, **RECIPE | {"epochs": 8})
    assert history[-1]["loss"] < history[0]["loss"]
    assert {"reconstruction", "contrastive", "alignment"} < set(history[0])
    save(model, tmp_path / "s5vh.pt")
    loaded = load(tmp_path / "s5vh.pt")
    assert torch.equal(loaded.soft_labels, model.soft_labels)
    assert (encode(loaded, train) == encode(model, train)).all()


def test_trains_in_bfloat16(train):
    model = S5VH.for_dataset(train, 16, **OWN, warm_up_epochs=1)
    history = fit(model, train, **RECIPE | {"precision": "bf16-mixed"})
    assert history[-1]["loss"] < history[0]["loss"]
    assert all(tensor.dtype == torch.float32 for tensor in model.state_dict().values())


@settings(max_examples=8)
@given(
    frames=st.integers(2, 40),
    dim=st.integers(2, 40),
    bits=st.integers(1, 16).map(lambda eighth: 8 * eighth),
    depth=st.integers(1, 2),
    shared=st.booleans(),
)
def test_codes_of_any_shape(frames, dim, bits, depth, shared):
    config = S5VHConfig(
        bits=bits,
        num_frames=frames,
        feature_dim=5,
        hidden_dim=dim,
        depth=depth,
        decoder_dim=dim,
        shared_directions=shared,
        mask_ratio=0.5,
        num_clusters=5,
    )
    model = S5VH(config).eval()
    code = model.encode(torch.randn(3, frames, 5))
    assert code.shape == (3, bits) and set(code.unique().tolist()) <= {-1.0, 1.0}


# ---- what does not fit ---------------------------------------------------------------------------


def test_fewer_videos_than_clusters(train):
    with pytest.raises(DataError, match=r"64 videos, too few for 65 clusters.*num_clusters"):
        prepared(train, num_clusters=65)


def test_as_many_clusters_as_videos(train):
    assert torch.equal(prepared(train, num_clusters=64).soft_labels.sum(0), torch.ones(64))


def test_identical_videos(tmp_path, random_features):
    import h5py

    path = random_features("same.h5")
    with h5py.File(path, "r+") as file:
        file["feats"][:] = file["feats"][:1]
    with pytest.raises(DataError, match="nearly identical"):
        prepared(FeatureSet(path))


@pytest.mark.parametrize(
    "odd, message",
    [
        ({"num_frames": 1}, "mask_ratio 0.75 of 1 frames"),
        ({"num_clusters": 4}, "num_clusters is 4"),
        ({"centres": "random"}, "'random'"),
        ({"mask_ratio": 1.0}, "mask_ratio"),
        ({"drop_path": 1.0}, "drop_path is 1.0"),
    ],
)
def test_configs_that_cannot_be(odd, message):
    with pytest.raises(ValueError, match=message):
        S5VHConfig(**odd)


@pytest.mark.parametrize("change", [{"num_clusters": 9}, {"hidden_dim": 24}, {"depth": 1}])
def test_a_checkpoint_of_another_size_is_refused(train, tmp_path, change):
    path = tmp_path / "run.pt"
    recipe = RECIPE | {"epochs": 1}
    fit(S5VH.for_dataset(train, 16, **OWN), train, **recipe, checkpoint=path)
    with pytest.raises(DataError, match="is of another run"):
        fit(S5VH.for_dataset(train, 16, **OWN | change), train, **recipe, checkpoint=path)
    state = torch.load(path, weights_only=True)
    name = next(iter(change))
    state["config"] = state["config"].replace(f'"{name}": {OWN[name]}', f'"{name}": {change[name]}')
    torch.save(state, path)
    with pytest.raises(DataError, match="damaged checkpoint"):
        load(path)


def test_the_paths_of_other_released_methods_are_refused(tmp_path):
    torch.save({"model_state_dict": {"binary.weight": torch.ones(8, 4)}}, tmp_path / "odd.pth")
    with pytest.raises(DataError, match="not weights of the released s5vh"):
        load_released("s5vh", tmp_path / "odd.pth")
