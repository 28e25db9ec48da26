"""What several methods share: dropout, corruption of frames."""

import pytest
import torch

from vidhash_lab.models.blocks import Dropout, corrupt_


@pytest.mark.parametrize("probability", [0.5, 0.3])
def test_dropout_drops_and_scales(probability):
    x = torch.ones(100_001, requires_grad=True)
    dropout = Dropout(probability)
    out = dropout(x)
    torch.testing.assert_close(out.detach().unique(), torch.tensor([0, 1 / (1 - probability)]))
    assert abs((out == 0).float().mean() - probability) < 0.006
    out.sum().backward()
    torch.testing.assert_close(x.grad, out.detach())
    assert dropout(x).ne(out).any()
    assert dropout.eval()(x) is x


def test_values_that_share_a_random_word_drop_on_their_own():
    kept = (Dropout(0.5)(torch.ones(400_000)) > 0).float()
    for values in (kept.view(-1, 8).T, kept.view(8, -1)):
        correlation = torch.corrcoef(values) - torch.eye(8)
        assert values.mean(1).sub(0.5).abs().max() < 0.01
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
