"""What several methods share: the transformer block, positions, binary codes, the common shape.

B videos in a batch, T frames per video, H hidden width, K bits.
"""

import torch
import torch.nn.functional as F
from torch import nn


class VideoHasher(nn.Module):
    """What `fit`, `encode` and `load` rely on. A method is one subclass, in one file.

    It must offer `sample`, `losses` and `encode`; `prepare` and `on_epoch` where it needs them.
    """

    Config = None  # the method's config dataclass

    def __init__(self, config):
        super().__init__()
        self.config = config

    @classmethod
    def for_dataset(cls, dataset, bits=64, seed=0, **changes):
        """Build the model for a data set's T and D with initial weights drawn from `seed`."""
        config = cls.Config(
            bits=bits, num_frames=dataset.num_frames, feature_dim=dataset.feature_dim, **changes
        )
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return cls(config)

    def check_fits(self, feature_set):
        """Raise ValueError unless a feature set has the T and D that the model was built for."""
        built_for = self.config.num_frames, self.config.feature_dim
        given = feature_set.num_frames, feature_set.feature_dim
        if built_for != given:
            raise ValueError(
                f"{type(self).__name__} was built for videos of (T, D) = {built_for}, "
                f"{feature_set} has {given}. `{type(self).__name__}.for_dataset` builds one to fit."
            )

    def prepare(self, train, seed=0):
        """Learn what the method must know of the training set before the first epoch -> self."""
        return self

    def on_epoch(self, epoch):
        """Set what depends on the epoch (0, 1, …), before it begins."""

    def sample(self, train, indices, generator):
        """Read videos (B,) of `train` and draw their augmentation -> batch: dict of tensors."""
        raise TypeError(f"{type(self).__name__} does not say how to sample a batch")

    def losses(self, batch):
        """Return {term: weighted scalar}; their sum is the objective."""
        raise TypeError(f"{type(self).__name__} has no losses")

    def encode(self, frames):
        """Hash videos (B, T, D) -> (B, K) in {-1, +1}."""
        raise TypeError(f"{type(self).__name__} does not say how to encode")


class Attention(nn.Module):
    """Multi-head self-attention on (B, T, H), with biases on queries and values, none on keys.

    A head is `dim // heads` wide, also where that does not divide: 256 // 6 = 42, so six heads
    run at 252 channels. Released ConMH weights have these shapes.
    """

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


def attend(query, key, value):
    """Scaled dot-product attention (B, heads, T, width), in float32 on a CPU.

    There, torch's bfloat16 kernel needs five to eight times as long backward for clips of some
    tens of frames; it took two thirds of a training step.
    """
    if query.device.type == "cpu":
        query, key, value = query.float(), key.float(), value.float()
    with torch.autocast(query.device.type, enabled=False):
        return F.scaled_dot_product_attention(query, key, value)


class Mlp(nn.Module):
    """Linear, GELU, linear, four times as wide inside."""

    def __init__(self, dim):
        super().__init__()
        self.fc1 = nn.Linear(dim, 4 * dim)
        self.fc2 = nn.Linear(4 * dim, dim)

    def forward(self, x):
        return self.fc2(F.gelu(self.fc1(x)))


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


class _Binarise(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return torch.where(x > 0, 1.0, -1.0).to(x.dtype)

    @staticmethod
    def backward(ctx, gradient):
        (x,) = ctx.saved_tensors
        return gradient * (x.abs() < 1)


def binarise(x):
    """Frame codes: +1 where x > 0, else -1; the gradient of a hard tanh, 1 inside (-1, 1).

    0 gives -1, as the released code rounds it; the video code's `sign` puts 0 at +1.
    """
    return _Binarise.apply(x)


def sign(x):
    """Video codes in {-1, +1}; sign(0) is +1, where the released code leaves a third value."""
    return torch.where(x >= 0, 1.0, -1.0)
