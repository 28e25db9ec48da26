"""Layers that several methods share: the transformer block, positions, corruption of frames.

B videos in a batch, T frames per video, D feature width, H hidden width, K bits.
"""

import math

import torch
import torch.nn.functional as F
from torch import nn


class Attention(nn.Module):
    """Self-attention on (B, T, H), no bias on keys; heads are `dim // heads` wide, as released."""

    def __init__(self, dim, heads):
        super().__init__()
        self.heads, inner = heads, dim // heads * heads
        self.qkv = nn.Linear(dim, 3 * inner, bias=False)
        self.q_bias = nn.Parameter(torch.zeros(inner))
        self.v_bias = nn.Parameter(torch.zeros(inner))
        self.proj = nn.Linear(inner, dim)

    def forward(self, x):
        bias = torch.cat([self.q_bias, torch.zeros_like(self.q_bias), self.v_bias])
        qkv = F.linear(x, self.qkv.weight, bias)
        query, key, value = qkv.unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = attend(query, key, value)  # (B, heads, T, head width)
        return self.proj(mixed.transpose(1, 2).flatten(2))


def attend(query, key, value, dropout=0.0):
    """Scaled dot-product attention (B, heads, T, width), in float32 on a CPU.

    There, torch's bfloat16 kernel needs five to eight times as long backward for short clips.
    """
    if query.device.type != "cpu":
        return F.scaled_dot_product_attention(query, key, value, dropout_p=dropout)
    with torch.autocast("cpu", enabled=False):
        query, key, value = query.float(), key.float(), value.float()
        return F.scaled_dot_product_attention(query, key, value, dropout_p=dropout)


class Dropout(nn.Dropout):
    """`nn.Dropout`; on a CPU, 1/2 is drawn as signs of random bytes: 1 ns a value, not 18."""

    def forward(self, x):
        if not self.training or self.p != 0.5 or x.device.type != "cpu":
            return super().forward(x)
        words = torch.empty(-(-x.numel() // 8), dtype=torch.int64).random_(-(2**63), None)
        kept = words.view(torch.int8)[: x.numel()].view(x.shape) >= 0
        return x * kept.to(x.dtype).mul_(2)


class Mlp(nn.Module):
    """Linear, GELU, linear, `expansion` times as wide inside; dropout after the last two."""

    def __init__(self, dim, expansion=4, dropout=0.0):
        super().__init__()
        self.fc1 = nn.Linear(dim, expansion * dim)
        self.fc2 = nn.Linear(expansion * dim, dim)
        self.dropout = Dropout(dropout)

    def forward(self, x):
        return self.dropout(self.fc2(self.dropout(F.gelu(self.fc1(x)))))


class Block(nn.Module):
    """Pre-norm transformer block on (B, T, H)."""

    def __init__(self, dim, heads):
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attn = Attention(dim, heads)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = Mlp(dim)

    def forward(self, x):
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


def position_table(num_frames, dim):
    """Fixed sinusoidal positions (T, H): sine on even channels, cosine on odd ones, base 10000."""
    channel = torch.arange(dim, dtype=torch.float64)
    rate = 10000 ** (-2 * (channel // 2) / dim)
    angle = torch.arange(num_frames, dtype=torch.float64)[:, None] * rate
    return torch.where(channel % 2 == 0, angle.sin(), angle.cos()).float()


def xavier_linears(module):
    """Initialise every linear layer inside `module`: Xavier uniform weights, zero biases."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def corrupt_(frames, probability, generator, train=None, videos=None, share=slice(None)):
    """Corrupt frames (..., T, D) in place, each with `probability` -> the same frames.

    Of the corrupted, 80% become zero, 10% another frame of those handed in, and 10% stay. Hand in a
    copy: the released MCMSH and BTH corrupt their training set itself, more in every epoch.

    Where the frames are only a `share` of those of `videos` (V, B), what is drawn is drawn for all,
    and other frames, which may be of another share, are read from `train`, one by one.
    """
    flat, T = frames.flatten(0, -2), frames.shape[-2]  # (all frames, D), a view
    shape = frames.shape[:-1] if videos is None else (*videos.shape, T)
    draw = torch.rand(shape, generator=generator) / probability  # below 1: corrupted
    moved = (draw >= 0.8) & (draw < 0.9)
    others = torch.zeros(shape, dtype=torch.long)
    others[moved] = torch.randint(draw.numel(), (int(moved.sum()),), generator=generator)
    draw, moved, others = (x[..., share, :].flatten() for x in (draw, moved, others))
    others = others[moved]
    if len(flat) == math.prod(shape):
        flat[moved] = flat[others]
    else:
        flat[moved] = train.frames(videos.flatten()[others // T], others % T)
    flat[draw < 0.8] = 0
    return frames
