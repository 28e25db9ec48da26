"""MC-MLP: an MLP-Mixer whose mixing is weighed by gates of long, middle and short range.

The encoder of MCMSH (ACM MM 2022). A gate mixes over its axis n, sees the result at its range,
opens by 0 to 1 for each value, and mixes over n once more; the gates of a place are summed. What it
sees is a mean, thirds or all of what it mixed, so it says which `rows` make them of x.

B videos in a batch, P clips of each, T frames per clip, D feature width, H hidden width; a gate
sees (n, B, P, c) and reduces c by r. n comes first and c last, so that mixing over n and reducing c
are one large matrix product each. Clips lie beside channels since batch norm keeps them apart: the
released code sends the clips of a training step through the network one after the other.
"""

import torch
import torch.nn.functional as F
from torch import nn

from vidhash_lab.models.blocks import Mlp

TOKEN_REDUCTION, CHANNEL_REDUCTION = 4, 16  # r in the token mixer, and everywhere else


class ClipNorm(nn.BatchNorm1d):
    """Batch norm of (..., P, c) over all but clips and channels, as if clip came after clip."""

    def forward(self, x):
        clips, channels = x.shape[-2:]
        if not self.training:
            return super().forward(x.flatten(0, -2)).view(x.shape)
        mean, variance = torch.zeros(2, clips * channels, device=x.device).unbind()
        weight, bias = (each.expand(clips, -1).flatten() for each in (self.weight, self.bias))
        rows = x.reshape(-1, clips * channels)
        # Momentum 1 leaves the statistics of these clips, to be folded in: the last counts most.
        out = F.batch_norm(rows, mean, variance, weight, bias, True, 1.0, self.eps)
        kept = 1 - self.momentum
        shares = [self.momentum * kept**later for later in reversed(range(clips))]
        shares = torch.tensor(shares, device=x.device)
        self.running_mean.addmv_(mean.view(clips, -1).t(), shares, beta=kept**clips)
        self.running_var.addmv_(variance.view(clips, -1).t(), shares, beta=kept**clips)
        self.num_batches_tracked += clips
        return out.view(x.shape)


class LongRange(nn.Module):
    """Open for mixed (n, B, P, c) by its mean over n, alike for all n."""

    folds = True  # one opening for all n: the mixing after it may as well come before it

    def __init__(self, n, c, reduction):
        super().__init__()
        self.fc1 = nn.Conv1d(n, n, 1)
        self.fc2 = nn.Conv1d(n, n, 1)
        reduced = max(1, c // reduction)
        self.build(c, reduced, groups=reduced if reduction == CHANNEL_REDUCTION else 1)
        self.bn1 = ClipNorm(reduced)
        self.bn2 = ClipNorm(c)

    def build(self, c, reduced, groups):
        """Make the layers that reduce the channels and restore them."""
        self.conv = nn.Linear(c, reduced, bias=False)
        self.deconv = nn.Linear(reduced, c, bias=False)
        nn.init.normal_(self.conv.weight, std=0.001)
        nn.init.normal_(self.deconv.weight, std=0.001)

    def rows(self):
        """Matrices that make of (x, 1) what is weighed and what is seen: (n, n + 1), (1, n + 1)."""
        first = affine(self.fc1)
        return [self.fc2.weight[:, :, 0] @ first, first.mean(0, keepdim=True)]

    def forward(self, x):
        """How far the gate opens for the mean over n, (1, B, P, c) -> (1, B, P, c), 0 to 1."""
        x = F.relu(self.bn1(self.conv(x)))
        return torch.sigmoid(self.bn2(self.deconv(x)))


class ShortRange(LongRange):
    """Open for mixed (n, B, P, c) by convolutions of width 3 along n."""

    folds = False

    def build(self, c, reduced, groups):
        """Make the layers that reduce the channels and restore them."""
        self.conv = nn.Conv1d(c, reduced, 3, padding=1, groups=groups, bias=False)
        self.deconv = nn.Conv1d(reduced, c, 3, padding=1, groups=groups, bias=False)
        nn.init.kaiming_normal_(self.conv.weight, mode="fan_out")
        nn.init.xavier_normal_(self.deconv.weight)

    def rows(self):
        """The matrix that makes of (x, 1) what is both weighed and seen: (n, n + 1)."""
        return [affine(self.fc1)]

    def forward(self, x):
        """How far the gate opens for mixed (n, B, P, c) -> (n, B, P, c) from 0 to 1.

        A convolution is one matrix product with what is shifted by -1, 0 and 1 along n: the few
        reduced channels are shifted, after the first product and before the second.
        """
        x = F.linear(x, dense(self.conv).flatten(0, 1))  # (n, B, P, 3 c / r)
        before, here, after = x.chunk(3, dim=-1)
        # A sum with what lies apart in memory takes four times as long as a copy and a sum.
        x = here.contiguous() + shift(before, 1) + shift(after, -1)
        x = F.relu(self.bn1(x))
        x = torch.cat([shift(x, 1), x, shift(x, -1)], dim=-1)  # (n, B, P, 3 c / r)
        x = F.linear(x, dense(self.deconv).transpose(0, 1).flatten(1))
        return torch.sigmoid(self.bn2(x))


class MiddleRange(ShortRange):
    """`ShortRange` on a third of the resolution along n."""

    def __init__(self, n, c, reduction):
        super().__init__(n, c, reduction)
        self.register_buffer("shrink", pooling(n, n // 3), persistent=False)
        self.register_buffer("grow", pooling(n // 3, n), persistent=False)

    def rows(self):
        """Matrices that make what is weighed and what is seen: (n, n + 1), (n // 3, n + 1)."""
        first = affine(self.fc1)
        return [first, self.shrink @ first]

    def forward(self, x):
        """How far the gate opens for thirds (n // 3, B, P, c) -> (n, B, P, c) from 0 to 1."""
        coarse = super().forward(x)
        return (self.grow @ coarse.flatten(1)).unflatten(1, x.shape[1:])


def affine(conv):
    """Weights of a convolution of width 1 and beside them its bias -> (out, in + 1)."""
    return torch.cat([conv.weight[:, :, 0], conv.bias[:, None]], dim=1)


def shift(x, steps):
    """Move (n, ...) by one step up (1) or down (-1) along n; a zero comes in."""
    ends = (0, 0) * (x.ndim - 1)
    return F.pad(x[:-1], (*ends, 1, 0)) if steps == 1 else F.pad(x[1:], (*ends, 0, 1))


def dense(layer):
    """Weights of a grouped convolution of width 3 with all the zeros -> (3, out, in).

    For so few channels a product with the zeros is several times as fast as the convolution.
    """
    weight = layer.weight.unflatten(0, (layer.groups, -1)).permute(1, 2, 3, 0)
    return weight.diag_embed().permute(2, 3, 0, 4, 1).flatten(3).flatten(1, 2)


def pooling(n, m):
    """Matrix (m, n) that averages n values to m, as adaptive average pooling does."""
    return F.adaptive_avg_pool1d(torch.eye(n), m).T


GATES = {"L": ("lrd", LongRange), "M": ("mrd", MiddleRange), "S": ("srd", ShortRange)}


class Gated(nn.Module):
    """Something with up to three gates, whose sum `gated` gives."""

    def __init__(self, gates, n, c, reduction):
        super().__init__()
        self.names = [GATES[letter][0] for letter in gates]
        for letter in gates:
            name, kind = GATES[letter]
            self.add_module(name, kind(n, c, reduction))

    def gated(self, x):
        """Mix (n, B, P, c), weigh by each gate's opening, mix, sum; without gates, x itself.

        One product gives all that gates weigh and see, one mixes what they let through and sums;
        a row of ones beside x carries the biases. Weights are laid out by columns, since their
        gradient is then the fast one of two products.
        """
        if not self.names:
            return x
        gates = [getattr(self, name) for name in self.names]
        rows = [gate.rows() for gate in gates]
        flat = [matrix for own in rows for matrix in own]
        weight = torch.cat([matrix.t() for matrix in flat], dim=1).t()
        ones = torch.ones_like(x[:1])
        seen = weight @ torch.cat([x, ones]).flatten(1)
        seen = iter(seen.view(-1, *x.shape[1:]).split([len(matrix) for matrix in flat]))
        weights = [sum(gate.fc2.bias for gate in gates)[:, None]]
        weighed, folded = [ones], x.new_zeros(())
        for gate, own in zip(gates, rows):
            value, *view = [next(seen) for _ in own]
            through = value * gate(*view or [value])
            if gate.folds:
                folded = through.flatten(1)
            else:
                weights.append(gate.fc2.weight[:, :, 0])
                weighed.append(through)
        mixed = torch.addmm(folded, torch.cat(weights, dim=1), torch.cat(weighed).flatten(1))
        return mixed.view(x.shape)


class _Turn(torch.autograd.Function):
    """Swap the first and the last axis of (n, B, P, c) in memory, in two steps.

    One copy takes four times as long, and autograd would make several.
    """

    @staticmethod
    def forward(ctx, x):
        n, *clips, c = x.shape
        rows = x.reshape(n, -1, c).permute(1, 2, 0).contiguous()  # (B P, c, n)
        return rows.transpose(0, 1).contiguous().view(c, *clips, n)

    @staticmethod
    def backward(ctx, gradient):
        return _Turn.forward(ctx, gradient)


class TokenMixer(Gated):
    """Mix (T, B, P, H) over time."""

    def __init__(self, num_frames, dim, gates, dropout):
        super().__init__(gates, dim, num_frames, TOKEN_REDUCTION)
        self.mlp = Mlp(num_frames, 2, dropout)

    def forward(self, x):
        mixed = self.mlp(_Turn.apply(x))  # (H, B, P, T)
        return x + _Turn.apply(self.gated(mixed))


class ChannelMixer(Gated):
    """Mix (T, B, P, H) over channels."""

    def __init__(self, num_frames, dim, gates, dropout):
        super().__init__(gates, num_frames, dim, CHANNEL_REDUCTION)
        self.mlp = Mlp(dim, 2, dropout)

    def forward(self, x):
        return x + self.gated(self.mlp(x))


class MCMLP(Gated):
    """Clips (P, B, T, D) -> hidden states (P, B, T, H): embed, mix time, mix channels, gate."""

    def __init__(self, num_frames, feature_dim, dim, gates, dropout):
        super().__init__(gates, num_frames, dim, CHANNEL_REDUCTION)
        self.preproj = nn.Linear(feature_dim, dim)
        self.token_mixer = TokenMixer(num_frames, dim, gates, dropout)
        self.channel_mixer = ChannelMixer(num_frames, dim, gates, dropout)

    def forward(self, clips):
        x = F.relu(self.preproj(clips)).transpose(0, 2).contiguous()  # (T, B, P, H)
        return self.gated(self.channel_mixer(self.token_mixer(x))).transpose(0, 2)

    def gate_openings(self, frames):
        """How far every gate opens for videos (B, T, D) -> {name: (B, T, H) from 0 to 1}.

        Names are "token_mixer.lrd", "channel_mixer.srd", …, and "lrd", "mrd", "srd" at the end.
        """
        found, hooks = {}, []
        for name, gate in self.named_modules():
            if isinstance(gate, LongRange):

                def note(gate, mixed, opening, name=name):
                    # n are the channels in the token mixer: (n, B, c) -> (B, T, H)
                    order = (1, 2, 0) if name.startswith("token") else (1, 0, 2)
                    found[name] = opening[:, :, 0].permute(order)

                hooks.append(gate.register_forward_hook(note))
        try:
            shape = self(frames[None])[0].shape
        finally:
            for hook in hooks:
                hook.remove()
        return {name: each.expand(shape) for name, each in found.items()}
