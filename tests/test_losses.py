"""Losses against slow loops written from the formulas."""

import math

import pytest
import torch

from vidhash_lab.losses import (
    cluster,
    component_voting,
    debiased_contrastive,
    frame_order,
    masked_reconstruction,
    nt_xent,
    quadruplet,
    quantisation,
    scene_contrast,
    similarity,
)


def slow_debiased_contrastive(view1, view2, temperature, tau_plus):
    """Loop over every view, from Chuang et al., equations 7 and 8."""
    views = [*view1, *view2]
    B = len(view1)
    total = 0.0
    for i, anchor in enumerate(views):
        partner = (i + B) % (2 * B)

        def s(other, anchor=anchor):
            cosine = (anchor @ other) / (anchor.norm() * other.norm())
            return math.exp(cosine / temperature)

        positive = s(views[partner])
        negatives = [s(other) for j, other in enumerate(views) if j not in (i, partner)]
        n = len(negatives)
        debiased = (sum(negatives) - tau_plus * n * positive) / (1 - tau_plus)
        debiased = max(debiased, n * math.exp(-1 / temperature))
        total += -math.log(positive / (positive + debiased))
    return total / len(views)


@pytest.mark.parametrize(
    "temperature, tau_plus", [(0.5, 0.1), (0.07, 0.05), (1.0, 0.0), (0.5, 0.9)]
)
def test_debiased_contrastive_is_its_formula(generator, temperature, tau_plus):
    view1, view2 = torch.randn(2, 7, 16, generator=generator).double()
    expected = slow_debiased_contrastive(view1, view2, temperature, tau_plus)
    got = debiased_contrastive(view1, view2, temperature, tau_plus)
    assert got.item() == pytest.approx(expected, rel=1e-5)
    swapped = debiased_contrastive(view2, view1, temperature, tau_plus)
    assert swapped.item() == pytest.approx(expected, rel=1e-5)


def test_component_voting_is_its_formula(generator):
    codes = torch.randn(5, 16, generator=generator)
    centres = torch.nn.functional.normalize(torch.randn(9, 16, generator=generator), dim=1)
    centres[3] = centres[1]  # two videos of one cluster
    loose = 0.1 + torch.rand(9, generator=generator)
    total = 0.0
    for video, code in enumerate(codes):
        logits = [float(code @ c / code.norm() / w) for c, w in zip(centres, loose)]
        total += math.log(sum(math.exp(logit) for logit in logits)) - logits[video]
    got = component_voting(codes, centres, loose).item()
    assert got == pytest.approx(total / 5, rel=1e-5)


def test_debiased_contrastive_falls_as_views_agree(generator):
    view1, noise = torch.randn(2, 8, 16, generator=generator)
    losses = [debiased_contrastive(view1, view1 + s * noise, 0.5, 0.1) for s in (0, 0.5, 2.0)]
    assert losses[0] < losses[1] < losses[2]


def test_debiased_contrastive_has_a_finite_gradient_for_equal_codes():
    view = torch.ones(4, 8, requires_grad=True)
    debiased_contrastive(view, view, 0.5, 0.1).backward()
    assert view.grad.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_masked_reconstruction_is_its_formula(generator, dtype):
    frames = torch.randn(3, 7, 4, generator=generator)
    predicted = torch.randn(6, 2, 4, generator=generator).to(dtype).requires_grad_()
    hidden = torch.tensor([[0, 3], [1, 2], [5, 6], [2, 4], [0, 6], [3, 5]])
    expected = 0.0
    for view in range(2):
        errors = [
            (frames[video, place] - predicted[3 * view + video, i].float()).square().tolist()
            for video in range(3)
            for i, place in enumerate(hidden[3 * view + video])
        ]
        expected += sum(map(sum, errors)) / sum(map(len, errors))
    loss = masked_reconstruction(predicted, frames, hidden)
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_masked_reconstruction_has_the_gradient_of_a_mean_squared_error(generator):
    frames = torch.randn(3, 7, 4, generator=generator)
    predicted = torch.randn(6, 2, 4, generator=generator).requires_grad_()
    hidden = torch.randint(7, (6, 2), generator=generator)
    (ours,) = torch.autograd.grad(3 * masked_reconstruction(predicted, frames, hidden), predicted)
    truth = frames.repeat(2, 1, 1)[torch.arange(6)[:, None], hidden]
    plain = 3 * 2 * torch.nn.functional.mse_loss(predicted, truth)
    torch.testing.assert_close(ours, torch.autograd.grad(plain, predicted)[0])


def test_the_losses_of_mcmsh_are_their_formulas(generator):
    B, T, H, K = 5, 4, 6, 8
    hidden, target = torch.randn(B, T, H, generator=generator), torch.randn(B, H)
    h, s, d1, d2 = torch.tanh(torch.randn(4, B, K, generator=generator))
    label = torch.tensor([1.0, -1, 1, 1, -1])
    clustered = paired = quantised = hinged = 0.0
    for b in range(B):
        for j in range(H):
            clustered += (sum(hidden[b, t, j] for t in range(T)) / T - target[b, j]) ** 2 / (B * H)
        paired += (label[b] - sum(h[b, k] * s[b, k] for k in range(K)) / K) ** 2 / B
        quantised += sum((h[b, k] - (1 if h[b, k] >= 0 else -1)) ** 2 for k in range(K)) / (B * K)
        near, far = ((h[b] - s[b]) ** 2).sum(), ((h[b] - d1[b]) ** 2).sum()
        apart = ((d1[b] - d2[b]) ** 2).sum()
        hinged += (max(0, K / 4 + near - far) + max(0, K / 64 + near - apart)) / B
    assert cluster(hidden, target).item() == pytest.approx(float(clustered), rel=1e-5)
    assert similarity(h, s, label).item() == pytest.approx(float(paired), rel=1e-5)
    assert quantisation(h).item() == pytest.approx(float(quantised), rel=1e-5)
    assert quadruplet(h, s, d1, d2).item() == pytest.approx(float(hinged), rel=1e-5)


def test_nt_xent_is_its_formula(generator):
    codes1, codes2 = torch.randn(2, 5, 8, generator=generator)
    every, total = [*codes1, *codes2], 0.0
    for i, one in enumerate(every):
        scores = [math.exp(torch.cosine_similarity(one, other, dim=0) / 0.5) for other in every]
        partner = scores[(i + 5) % 10]
        total += -math.log(partner / (sum(scores) - scores[i])) / 10
    assert nt_xent(codes1, codes2, 0.5).item() == pytest.approx(total, rel=1e-5)
    swapped = nt_xent(codes2, codes1, 0.5)
    assert swapped.item() == pytest.approx(total, rel=1e-5)


def test_frame_order_is_its_formula_and_chance_is_log_m(generator):
    logits = torch.randn(3, 4, 4, generator=generator)
    places = torch.rand(3, 4, generator=generator).argsort(1)
    total = 0.0
    for b in range(3):
        for frame in range(4):
            row = logits[b, frame].exp()
            total += -math.log(row[places[b, frame]] / row.sum()) / 12
    assert frame_order(logits, places).item() == pytest.approx(total, rel=1e-5)
    assert frame_order(torch.zeros(3, 4, 4), places).item() == pytest.approx(math.log(4))


def test_scene_contrast_is_its_formula(generator):
    states = torch.randn(3, 6, 8, generator=generator)
    scenes = torch.tensor([[0, 0, 1, 1, 2, 2], [0, 0, 0, 0, 0, 0], [0, 1, 1, 1, 1, 1]])
    total = 0.0
    for clip in (0, 2):  # the other has one scene
        unit = [state / state.norm() for state in states[clip]]
        prototypes = []
        for scene in range(int(scenes[clip].max()) + 1):
            mean = sum(u for u, own in zip(unit, scenes[clip]) if own == scene)
            prototypes.append(mean / mean.norm())
        for u, own in zip(unit, scenes[clip]):
            scores = [math.exp(u @ p / 0.2) for p in prototypes]
            total += -math.log(scores[own] / sum(scores)) / 12
    got = scene_contrast(states.requires_grad_(), scenes, 0.2)
    assert got.item() == pytest.approx(total, rel=1e-4)
    got.backward()
    assert states.grad.isfinite().all() and (states.grad[1] == 0).all()
    assert scene_contrast(states, torch.zeros(3, 6, dtype=torch.int64), 0.2) == 0
