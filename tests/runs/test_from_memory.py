"""What a reader writes from memory passes when it is right, and is told where it is wrong."""

import math

import pytest
import torch
import torch.nn.functional as F

from vidhash_lab.losses import debiased_contrastive, quadruplet
from vidhash_lab.models.hasher import binarise
from vidhash_lab.runs.from_memory import check_debiased, check_quadruplet, check_sign


def by_detach(x):
    """The usual way to write it: the value of the sign, the gradient of a hard tanh."""
    soft = x.clamp(-1, 1)
    return soft + (torch.where(x > 0, 1.0, -1.0) - soft).detach()


def debiased(view1, view2, t, tau):
    views = F.normalize(torch.cat([view1, view2]), dim=1)
    n, total = len(views) - 2, 0
    for row in range(len(views)):
        partner = (row + len(view1)) % len(views)
        s = (views @ views[row] / t).exp()
        others = [c for c in range(len(views)) if c not in (row, partner)]
        negatives = (s[others].sum() - tau * n * s[partner]) / (1 - tau)
        negatives = torch.clamp(negatives, min=n * math.exp(-1 / t))
        total = total - torch.log(s[partner] / (s[partner] + negatives))
    return total / len(views)


def test_the_packages_own_and_other_right_ways_pass():
    for seed in range(3):
        check_sign(binarise, seed)
        check_sign(by_detach, seed)
        check_debiased(debiased_contrastive, seed)
        check_debiased(debiased, seed)
        check_quadruplet(quadruplet, seed)


@pytest.mark.parametrize(
    "check, wrong, says",
    [
        (check_sign, torch.sign, "both signs: the gradient"),
        (check_sign, lambda x: x + (torch.where(x > 0, 1.0, -1.0) - x).detach(), "the gradient"),
        (check_sign, lambda x: binarise(x + 1e-9), "zero, which becomes -1"),
        (check_debiased, lambda a, b, t, tau: debiased(a, b, t, 0), "tau_plus 0.1"),
        (check_debiased, lambda a, b, t, tau: debiased(a, b, 0.5, tau), "a low temperature"),
        (check_debiased, lambda a, b, t, tau: a.sum(1), "one number"),
        (check_quadruplet, lambda h, s, d1, d2: quadruplet(h, s, d2, d1), "drawn at random"),
        (check_quadruplet, lambda *c: quadruplet(*c) + 1, "expected"),
    ],
)
def test_wrong_ones_are_told_where(check, wrong, says):
    with pytest.raises(AssertionError, match=says):
        check(wrong)


def test_forgetting_the_clamp_is_seen():
    def unclamped(a, b, t, tau):
        views = F.normalize(torch.cat([a, b]), dim=1)
        s = (views @ views.T / t).exp()
        own = torch.arange(len(a)).repeat(2)
        positive = (F.normalize(a, dim=1) * F.normalize(b, dim=1)).sum(1).div(t).exp().repeat(2)
        negatives = s.masked_fill(own[:, None] == own, 0).sum(1)
        debiased = (negatives - tau * (len(views) - 2) * positive) / (1 - tau)
        return -torch.log(positive / (positive + debiased)).mean()

    with pytest.raises(AssertionError, match="clamped from below"):
        check_debiased(unclamped)
