"""Losses as pure functions of tensors; each returns one scalar, without its weight.

B videos in a batch, D feature width, K bits.
"""

import math

import torch
import torch.nn.functional as F


def masked_reconstruction(predicted, frames, hidden):
    """Mean squared error of hidden frames, summed over two views stacked in the batch.

    predicted (2B, M, D) are the M hidden frames of B videos as guessed under view 1, then under
    view 2; frames (B, T, D) the videos; hidden (2B, M) the places of the hidden frames. Both views
    hide M frames, so the sum of their means is twice the mean of all.
    ConMH (AAAI 2023), reconstruction term.
    """
    return 2 * _MeanSquare.apply(predicted, frames, hidden)


class _MeanSquare(torch.autograd.Function):
    """Mean square of `frames` at `hidden` places minus `predicted`, in one float32 tensor.

    Hidden frames are the largest tensors of a training step, and on a CPU fresh memory costs more
    than the arithmetic: plain autograd would make five of them.
    """

    @staticmethod
    def forward(ctx, predicted, frames, hidden):
        video = torch.arange(len(frames), device=frames.device).repeat(2)[:, None]
        difference = frames[video, hidden].float().sub_(predicted)
        ctx.difference, ctx.dtype = difference, predicted.dtype
        return torch.linalg.vector_norm(difference).square() / difference.numel()

    @staticmethod
    def backward(ctx, gradient):
        difference, ctx.difference = ctx.difference, None  # used up, as autograd's own buffers
        return difference.mul_(-2 * gradient / difference.numel()).to(ctx.dtype), None, None


def debiased_contrastive(view1, view2, temperature, tau_plus):
    """Debiased contrastive loss of two views (B, K) of the same videos.

    With n = 2B - 2 negatives and similarities s = exp(cosine / temperature),
    N_g = max((sum s_neg - tau_plus n s_pos) / (1 - tau_plus), n exp(-1 / temperature)) and
    loss = mean -log(s_pos / (s_pos + N_g)): `tau_plus` is the probability that a "negative" is of
    the same class after all. Under bfloat16 autocast the product of the views is bfloat16, the
    rest float32. Chuang et al., Debiased Contrastive Learning, NeurIPS 2020, eq. 8.
    """
    view1, view2 = F.normalize(view1.float(), dim=1), F.normalize(view2.float(), dim=1)
    views = torch.cat([view1, view2])  # (2B, K)
    negatives = len(views) - 2
    similarity = torch.exp(views @ views.T / temperature)
    video = torch.arange(len(view1), device=views.device).repeat(2)
    own = video[:, None] == video[None]  # a view with itself and with its partner
    negative_sum = similarity.masked_fill(own, 0).sum(1)
    positive = torch.exp((view1 * view2).sum(1) / temperature).repeat(2)
    debiased = (negative_sum - tau_plus * negatives * positive) / (1 - tau_plus)
    debiased = debiased.clamp(min=negatives * math.exp(-1 / temperature))
    return -torch.log(positive / (positive + debiased)).mean()
