"""What several methods share: the transformer block, positions, binary codes, the common shape.

B videos in a batch, T frames per video, D feature width, H hidden width, K bits.
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

    @property
    def device(self):
        """Where weights and buffers are; what has none is on the CPU."""
        tensors = (*self.parameters(), *self.buffers())
        return tensors[0].device if tensors else torch.device("cpu")

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


def attend(query, key, value, dropout=0.0):
    """Scaled dot-product attention (B, heads, T, width), in float32 on a CPU.

    There, torch's bfloat16 kernel needs five to eight times as long backward for clips of some
    tens of frames; it took two thirds of a training step.
    """
    if query.device.type != "cpu":
        return F.scaled_dot_product_attention(query, key, value, dropout_p=dropout)
    with torch.autocast("cpu", enabled=False):
        query, key, value = query.float(), key.float(), value.float()
        return F.scaled_dot_product_attention(query, key, value, dropout_p=dropout)


class Dropout(nn.Module):
    """Set values to zero with `probability`, rounded to 1/256, and scale up the others.

    On a CPU torch's own draws one number a value, with one core: a sixth of MCMSH's step. Here
    bytes are drawn and cut into as few bits a value as the probability needs: one for a half.
    """

    def __init__(self, probability):
        super().__init__()
        threshold = round(256 * probability)
        self.bits = next(bits for bits in (1, 2, 4, 8) if threshold % (256 >> bits) == 0)
        self.threshold = threshold >> (8 - self.bits)  # of 2 ** bits

    def forward(self, x):
        values = 2**self.bits
        if not self.training or self.threshold == 0:
            return x
        if x.device.type != "cpu":
            return F.dropout(x, self.threshold / values)
        words = torch.empty(-(-x.numel() * self.bits // 64), dtype=torch.int64)
        places = torch.arange(0, 8, self.bits, dtype=torch.uint8)[:, None]
        drawn = words.random_(-(2**63), None).view(torch.uint8) >> places
        kept = drawn.bitwise_and_(values - 1).flatten()[: x.numel()].ge_(self.threshold)
        scale = values / (values - self.threshold)
        # A whole scale goes on the bytes, where it costs a fraction.
        kept = kept.mul_(int(scale)) if scale.is_integer() else kept.to(x.dtype).mul_(scale)
        return x * kept.view(x.shape).to(x.dtype)


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


def corrupt_(frames, probability, generator):
    """Corrupt frames (..., T, D) in place, each with `probability` -> the same frames.

    Hand in a copy, as `rows` gives one. Of the corrupted, 80% become zero, 10% another frame and
    10% stay. The other frame is one of those handed in, which are a random draw of the set: that
    spares reading a video for a frame.
    The released MCMSH and BTH corrupt their training set itself, a little more every epoch.
    """
    flat = frames.flatten(0, -2)  # (all frames, D), a view
    draw = torch.rand(len(flat), generator=generator) / probability  # below 1: corrupted
    replaced = torch.where((draw >= 0.8) & (draw < 0.9))[0]
    others = torch.randint(len(flat), replaced.shape, generator=generator)
    flat[replaced] = flat[others]
    flat[torch.where(draw < 0.8)[0]] = 0
    return frames


# MKL finds out at a vector function's first call which kernel suits the processor. When two threads
# make that call at once, one of them may run a kernel of lower accuracy (an error of 5e-5), and the
# same seed gives other codes in one process of twelve. So one thread makes the first calls.
for _function in (torch.tanh, torch.exp, torch.log, torch.sqrt, torch.sin, torch.cos, torch.erf):
    _function(torch.ones(1))
