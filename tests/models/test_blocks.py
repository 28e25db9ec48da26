"""What several methods share: dropout, corruption of frames."""

import pytest
import torch

from vidhash_lab.models.blocks import Dropout, corrupt_


def test_dropout_drops_and_scales():
    x = torch.ones(200_000, requires_grad=True)
    dropout = Dropout(0.25)
    out = dropout(x)
    torch.testing.assert_close(out.detach().unique(), torch.tensor([0, 256 / 192]))
    assert abs((out == 0).float().mean() - 0.25) < 0.005
    assert abs(out.mean() - 1) < 0.01
    out.sum().backward()
    torch.testing.assert_close(x.grad, out.detach())
    assert dropout(x).ne(out).any()
    assert dropout.eval()(x) is x and Dropout(0.0)(x) is x


@pytest.mark.parametrize("probability", [0.5, 0.25, 0.125, 26 / 256])
def test_values_that_share_random_bytes_drop_on_their_own(probability):
    """Neighbours share a word, and values an eighth (a quarter, a half) apart a byte."""
    kept = (Dropout(probability)(torch.ones(400_000)) > 0).float()
    assert abs(kept.mean() - 1 + probability) < 0.005
    for values in (kept.view(-1, 8).T, kept.view(8, -1)):
        correlation = torch.corrcoef(values) - torch.eye(8)
        assert values.mean(1).sub(1 - probability).abs().max() < 0.01
        assert correlation.abs().max() < 0.025


def test_corruption_has_its_shares(generator):
    frames = torch.randn(200, 50, 4, generator=generator)
    clean = frames.clone()
    assert corrupt_(frames, 0.15, generator) is frames
    zeroed = (frames == 0).all(-1)
    replaced = (frames != clean).any(-1) & ~zeroed
    assert abs(zeroed.float().mean() - 0.12) < 0.01
    assert abs(replaced.float().mean() - 0.015) < 0.004
    others = {tuple(frame) for frame in clean.flatten(0, 1).tolist()}
    assert all(tuple(frame) in others for frame in frames[replaced].tolist())


def test_everything_is_corrupted_where_that_is_asked_for(generator):
    frames = torch.randn(50, 20, 3, generator=generator)
    assert (corrupt_(frames, 1.0, generator) == 0).all(-1).float().mean() > 0.7
