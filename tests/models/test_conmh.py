"""ConMH: golden vectors of the released code, shapes, masks, gradients."""

import numpy as np
import pytest
import torch

from vidhash_lab.checkpoints import load_released
from vidhash_lab.losses import debiased_contrastive, masked_reconstruction
from vidhash_lab.models.conmh import SIZES, ConMH, ConMHConfig, draw_masks, split_places

TINY = ConMHConfig(
    bits=16, num_frames=10, feature_dim=12, hidden_dim=16, depth=1, heads=2, decoder_dim=12
)


class Memory:
    """The least a model needs of a training set."""

    def __init__(self, frames):
        self.frames = frames

    def rows(self, indices):
        return self.frames[indices]


def batch(config=TINY, count=6):
    generator = torch.Generator().manual_seed(1)
    frames = torch.randn(count, config.num_frames, config.feature_dim, generator=generator)
    model = ConMH(config)
    return model, model.sample(Memory(frames), torch.arange(count), generator)


@pytest.mark.parametrize("name", ["conmh_mini", "conmh_small"])
def test_reproduces_the_released_implementation(golden, name):
    expected = {
        key: torch.from_numpy(np.asarray(value)) if value.dtype.kind != "U" else str(value)
        for key, value in np.load(golden(f"{name}.npz")).items()
    }
    model = load_released(
        "conmh", golden(f"{name}.pth"), num_frames=expected["frames"].shape[1]
    ).eval()
    assert model.config.depth == SIZES[expected["transformer_type"]]["depth"]
    masked = torch.stack([expected["masked1"], expected["masked2"]])
    ratio = masked[0, 0].float().mean()
    assert model.config.num_visible == (1 - ratio) * model.config.num_frames
    with torch.no_grad():
        codes, reconstruction, hidden = model.two_views(expected["frames"], masked)
        contrast = debiased_contrastive(
            *codes.mean(1).chunk(2), float(expected["temperature"]), float(expected["tau_plus"])
        )
        places = torch.arange(masked.shape[2]).expand(masked.shape[1:])
        all_codes = model.frame_codes(expected["frames"], places)
        code = model.encode(expected["frames"])
    close = {"rtol": 1e-5, "atol": 1e-5}
    for view, (got, got_codes) in enumerate(zip(reconstruction.chunk(2), codes.chunk(2)), 1):
        torch.testing.assert_close(got, expected[f"reconstruction{view}"], **close)
        torch.testing.assert_close(got_codes, expected[f"frame_codes{view}"])
    torch.testing.assert_close(contrast, expected["contrastive_loss"], **close)
    torch.testing.assert_close(
        masked_reconstruction(reconstruction, expected["frames"], hidden),
        expected["reconstruction_loss"],
        **close,
    )
    torch.testing.assert_close(all_codes, expected["inference_frame_codes"])
    decided = expected["code"] != 0  # the released code leaves a tie as 0, ours says +1
    torch.testing.assert_close(code[decided], expected["code"][decided])
    assert (code[~decided] == 1).all()


@pytest.mark.parametrize("ratio", [0.1, 0.25, 0.5, 0.75, 0.9])
@pytest.mark.parametrize("num_frames", [10, 25])
def test_views_hide_what_the_ratio_says_and_overlap_as_little_as_they_can(ratio, num_frames):
    config = ConMHConfig(num_frames=num_frames, mask_ratio=ratio)
    masked = draw_masks(200, config, torch.Generator().manual_seed(0))
    V = num_frames - int(ratio * num_frames)
    assert ((~masked).sum(2) == V).all()
    seen_twice = (~masked).all(0).sum(1)
    assert (seen_twice == max(0, 2 * V - num_frames)).all()
    shown = (~masked).float().mean((0, 1))  # every frame equally often, within 5 deviations
    assert (shown - V / num_frames).abs().max() < 5 * 0.5 / 400**0.5


def test_places_stay_in_the_order_of_time():
    masked = torch.tensor([[True, False, True, False, False]])
    visible, hidden = split_places(masked, 3)
    assert visible.tolist() == [[1, 3, 4]] and hidden.tolist() == [[0, 2]]


@pytest.mark.parametrize("size", SIZES)
def test_published_sizes(size):
    with torch.device("meta"):
        model = ConMH(ConMHConfig.sized(size, bits=16))
    assert len(model.encoder.blocks) == SIZES[size]["depth"]
    assert len(model.decoder.blocks) == 2 and model.mask_token.shape == (1, 1, 192)


def test_small_has_the_parameters_of_the_released_model():
    with torch.device("meta"):
        model = ConMH(ConMHConfig())
    assert len(model.state_dict()) == 198
    assert round(sum(p.numel() for p in model.parameters()) / 1e6, 2) == 12.25
    assert model.encoder.blocks[0].attn.proj.weight.shape == (256, 252)


def test_every_weight_learns():
    model, drawn = batch()
    sum(model.losses(drawn).values()).backward()
    idle = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert idle == []
    assert all(p.grad.isfinite().all() for p in model.parameters())


def test_hidden_frames_do_not_reach_the_codes():
    model, drawn = batch()
    codes, _, _ = model.two_views(drawn["frames"], drawn["masked"])
    spoilt = drawn["frames"].masked_fill(drawn["masked"][0][..., None], 99.0)
    spoilt_codes, _, _ = model.two_views(spoilt, drawn["masked"])
    B = len(spoilt)
    torch.testing.assert_close(spoilt_codes[:B], codes[:B])
    assert not torch.equal(spoilt_codes[B:], codes[B:])


def test_contrastive_weight_weighs_one_term_only():
    model, drawn = batch()
    other = ConMH(ConMHConfig(**{**vars(TINY), "contrastive_weight": 0.2}))
    other.load_state_dict(model.state_dict())
    ours, theirs = model.losses(drawn), other.losses(drawn)
    torch.testing.assert_close(theirs["contrastive"], 0.2 * ours["contrastive"])
    torch.testing.assert_close(theirs["reconstruction"], ours["reconstruction"])


def test_codes_are_plus_and_minus_one():
    model, drawn = batch()
    code = model.eval().encode(drawn["frames"])
    assert code.shape == (6, 16) and set(code.unique().tolist()) <= {-1.0, 1.0}


@pytest.mark.parametrize("ratio", [0.0, 0.05, 1.0])
def test_a_ratio_that_leaves_nothing_to_see_or_to_guess_is_refused(ratio):
    with pytest.raises(ValueError, match="mask_ratio"):
        ConMHConfig(num_frames=10, mask_ratio=ratio)


def test_the_seed_decides_the_initial_weights_and_leaves_the_global_generator_alone():
    shape = type("Shape", (), {"num_frames": 10, "feature_dim": 12})
    small = {"hidden_dim": 16, "depth": 1, "heads": 2, "decoder_dim": 12}
    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    first, again, other = (ConMH.for_dataset(shape, 16, seed=s, **small) for s in (0, 0, 1))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(first.binary.weight, again.binary.weight)
    assert not torch.equal(first.binary.weight, other.binary.weight)
