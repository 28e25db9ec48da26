"""Losses as pure functions of tensors; each returns one scalar, without its weight.

Where several processes train, contrastive terms meet the videos of all (`everyones`); the others
are means over the videos of a share.

B videos, T frames each, M of a clip or hidden, D feature width, H hidden width, K bits.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from vidhash_lab.processes import everyones


def masked_reconstruction(predicted: Tensor, frames: Tensor, hidden: Tensor) -> Tensor:
    """Mean squared error of hidden frames, summed over two views stacked in the batch.

    predicted (2B, M, D) are guesses for the places hidden (2B, M) of frames (B, T, D), view 1
    first. The sum of the means is twice the mean of all. ConMH (AAAI 2023), reconstruction term.

    >>> frames = torch.zeros(1, 4, 2)  # of one video
    >>> hidden = torch.tensor([[0, 1], [2, 3]])  # in its two views
    >>> masked_reconstruction(torch.ones(2, 2, 2), frames, hidden).item()
    2.0
    """
    video = torch.arange(len(frames), device=frames.device).repeat(2)[:, None]
    return 2 * F.mse_loss(predicted.float(), frames[video, hidden].float())


def debiased_contrastive(
    view1: Tensor, view2: Tensor, temperature: float, tau_plus: float
) -> Tensor:
    """Debiased contrastive loss of two views (B, K) of the same videos.

    With n = 2B - 2 negatives and similarities s = exp(cosine / temperature),
    N_g = max((sum s_neg - tau_plus n s_pos) / (1 - tau_plus), n exp(-1 / temperature)) and
    loss = mean -log(s_pos / (s_pos + N_g)): a "negative" is of the same class with probability
    `tau_plus`. Chuang et al., Debiased Contrastive Learning, NeurIPS 2020, eq. 8.

    >>> views = torch.eye(4)
    >>> agree = debiased_contrastive(views, views, temperature=0.5, tau_plus=0.1)
    >>> bool(agree < debiased_contrastive(views, views.roll(1, 0), temperature=0.5, tau_plus=0.1))
    True
    """
    view1, view2 = (F.normalize(everyones(view).float(), dim=1) for view in (view1, view2))
    views = torch.cat([view1, view2])  # (2B, K)
    negatives = len(views) - 2
    scores = torch.exp(views @ views.T / temperature)
    video = torch.arange(len(view1), device=views.device).repeat(2)
    own = video[:, None] == video[None]  # a view with itself and with its partner
    negative_sum = scores.masked_fill(own, 0).sum(1)
    positive = torch.exp((view1 * view2).sum(1) / temperature).repeat(2)
    debiased = (negative_sum - tau_plus * negatives * positive) / (1 - tau_plus)
    debiased = debiased.clamp(min=negatives * math.exp(-1 / temperature))
    return -torch.log(positive / (positive + debiased)).mean()


def centre_alignment(codes: Tensor, centres: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """Cross-entropy of soft labels (B, C) and of which hash centre (C, K) a code is nearest to.

    codes (2B, K) are two views' mean frame codes, view 1's videos first; logits are inner products
    over K temperature; a mean over videos and views.
    S5VH (AAAI 2025), hash centre alignment.

    >>> centres = torch.tensor([[1.0, 1.0], [-1.0, 1.0]])
    >>> loss = centre_alignment(centres.repeat(2, 1), centres, torch.eye(2), temperature=0.5)
    >>> round(loss.item(), 3)
    0.127
    """
    logits = F.linear(codes.float(), centres) / (codes.shape[1] * temperature)
    return F.cross_entropy(logits, labels.repeat(2, 1))


def component_voting(codes: Tensor, centres: Tensor, concentrations: Tensor) -> Tensor:
    """Cross-entropy of mean codes (B, K) to the centres of their own clusters, among others.

    centres (S, K) are of length 1; the first B are those of the batch, in its order, so that a
    cluster of two videos stands there twice; the rest are of no video in the batch. The logit of
    a centre is the cosine divided by the centre's concentration (S,), large where a cluster is
    loose. AutoSSVH (CVPR 2025), component voting.

    >>> centres = torch.eye(3)
    >>> round(component_voting(centres[:2], centres, torch.full((3,), 0.1)).item(), 5)
    9e-05
    """
    logits = F.normalize(codes.float(), dim=1) @ centres.T / concentrations
    return F.cross_entropy(logits, torch.arange(len(codes), device=codes.device))


def cluster(states: Tensor, target: Tensor) -> Tensor:
    """MCMSH's and BTH's mean squared distance of mean states (B, T, H) to anchors (B, H).

    >>> cluster(torch.zeros(2, 5, 3), torch.ones(2, 3)).item()
    1.0
    """
    return F.mse_loss(states.mean(1, dtype=torch.float32), target)


def similarity(codes1: Tensor, codes2: Tensor, label: Tensor) -> Tensor:
    """MCMSH's and BTH's mean of (y - <h1, h2> / K)^2 over codes (B, K); y (B,) is +1 or -1.

    >>> codes = torch.ones(2, 8)
    >>> similarity(codes, codes, torch.tensor([1.0, -1.0])).item()  # (0 + 4) / 2
    2.0
    """
    agreement = (codes1 * codes2).mean(1)
    return F.mse_loss(agreement, label)


def quantisation(codes: Tensor) -> Tensor:
    """Mean squared distance of relaxed codes (B, K) to their signs, without a gradient.

    In MCMSH's code, not in its paper. There the sign passes its gradient straight through, which
    cancels the other half: the term moves nothing, and so it is here. With the sign as a constant,
    similarity alone fell from mAP@20 0.16 to 0.01 on the digit stories, quadruplets from 0.40.

    >>> quantisation(torch.tensor([[0.5, -1.0]])).item()
    0.125
    """
    return F.mse_loss(codes, torch.where(codes >= 0, 1.0, -1.0)).detach()


def quadruplet(codes: Tensor, similar: Tensor, dissimilar1: Tensor, dissimilar2: Tensor) -> Tensor:
    """Mean hinge loss of relaxed codes (B, K) of four: h, s like it, d1 and d2 unlike it.

    relu(K/4 + |h - s|^2 - |h - d1|^2) + relu(K/64 + |h - s|^2 - |d1 - d2|^2): s is to be nearer
    than d1, and than d1 and d2 are to each other. MCMSH (ACM MM 2022), structure of quadruplets.

    >>> h = torch.tensor([[1.0, 1.0, 1.0, 1.0]])
    >>> quadruplet(h, h, -h, h * torch.tensor([1.0, 1.0, -1.0, -1.0])).item()
    0.0
    >>> quadruplet(h, -h, h, h).item()
    33.0625
    """
    bits = codes.shape[1]
    near, far, apart = (
        (a - b).square().sum(1)
        for a, b in ((codes, similar), (codes, dissimilar1), (dissimilar1, dissimilar2))
    )
    return (F.relu(bits / 4 + near - far) + F.relu(bits / 64 + near - apart)).mean()


def nt_xent(codes1: Tensor, codes2: Tensor, temperature: float) -> Tensor:
    """Normalised temperature-scaled cross-entropy of two clips' codes (B, K) of the same videos.

    Chen et al., SimCLR, ICML 2020; CHAIN (ACM MM 2023), contrastive task, by cosine similarity.

    >>> codes = torch.eye(3)
    >>> round(nt_xent(codes, codes, temperature=0.1).item(), 4)
    0.0002
    """
    codes1, codes2 = everyones(codes1), everyones(codes2)
    codes = F.normalize(torch.cat([codes1, codes2]).float(), dim=1)
    logits = codes @ codes.T / temperature
    itself = torch.eye(len(codes), dtype=torch.bool, device=codes.device)
    partner = torch.arange(len(codes), device=codes.device).roll(len(codes1))
    return F.cross_entropy(logits.masked_fill(itself, -torch.inf), partner)


def frame_order(logits: Tensor, places: Tensor) -> Tensor:
    """Cross-entropy of guessed places (B, M, M) to the true ones (B, M); CHAIN, frame order.

    >>> places = torch.tensor([[2, 0, 1]])
    >>> round(frame_order(10 * torch.eye(3)[places], places).item(), 4)
    0.0001
    """
    return F.cross_entropy(logits.float().flatten(0, 1), places.flatten())


def scene_contrast(states: Tensor, scenes: Tensor, temperature: float) -> Tensor:
    """Contrast of frames (B, M, H) with the prototypes of their clip's scenes, numbered (B, M).

    A softmax of cosine similarities to means of normalised states; a mean over clips of two scenes
    or more, or 0. CHAIN, scene change regularisation; Li et al., ICLR 2021.

    >>> states = torch.eye(2)[[0, 0, 1, 1]][None]  # four frames, two scenes
    >>> round(scene_contrast(states, torch.tensor([[0, 0, 1, 1]]), temperature=0.1).item(), 5)
    5e-05
    >>> scene_contrast(states, torch.zeros(1, 4, dtype=torch.long), temperature=0.1).item()
    0.0
    """
    states = F.normalize(states.float(), dim=2)
    count = scenes.amax(1) + 1
    member = F.one_hot(scenes, int(count.max())).to(states)  # (B, M, S)
    prototypes = F.normalize(member.mT @ states, dim=2)  # (B, S, H)
    logits = states @ prototypes.mT / temperature
    logits = logits.masked_fill(~member.any(1, keepdim=True), -torch.inf)
    each = F.cross_entropy(logits.mT, scenes, reduction="none").mean(1)
    each, several = everyones(each), everyones(count > 1)
    return (each * several).sum() / several.sum().clamp(min=1)
