"""MCMSH: an MLP-Mixer with gates of long, middle and short range, and three preserved structures.

MC-MLP, the encoder, mixes a video's frames over time and over channels. A gate mixes its axis by a
linear map, multiplies what it mixed by openings between 0 and 1, and mixes again. It opens by what
it sees: the mean of all (long range), neighbours pooled in threes (middle) or neighbours (short);
the gates of all three kinds are summed. The code preserves what `vidhash_lab.structures` knows of
the training set: a video's nearest anchor, which videos are similar, and which are farther.

Paper: Hao et al., Unsupervised Video Hashing with Multi-granularity Contextualization and
Multi-structure Preservation, ACM MM 2022. Module names and layer shapes are those of the released
checkpoints. Different from the released code, on purpose: `alpha` is part of the state and saved
(there it is lost, and evaluation has another one than training had); frames are corrupted on copies
(there in the training set itself); see `vidhash_lab.structures` for the anchors and the partners.

B videos in a batch, T frames per video, D feature width, H hidden width, K bits. A gate mixes over
n of x (n, B, c) and reduces c by r: n = H and c = T in the token mixer, n = T and c = H elsewhere.
"""

import math
import warnings
from contextlib import ExitStack
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vidhash_lab.losses import cluster, quadruplet, quantisation, similarity
from vidhash_lab.models.blocks import Mlp, corrupt_
from vidhash_lab.models.hasher import WHOLE, VideoHasher, sign
from vidhash_lab.processes import BatchNorm
from vidhash_lab.structures import draw_pairs, find_structures

TOKEN_REDUCTION, CHANNEL_REDUCTION = 4, 16  # r in the token mixer, and everywhere else
RELEASED_EPOCHS = 56

# The poster's ablations: which gates there are, and which structures are preserved.
TABLE_1 = {
    "MLP-Mixer, no gates": "",
    "MLP-Mixer + L-RD": "L",
    "MLP-Mixer + M-RD": "M",
    "MLP-Mixer + S-RD": "S",
    "MC-MLP": "LMS",
}
TABLE_2 = {
    # Codes do not enter the cluster loss: the hash layer stays as it was drawn.
    "cluster only": {"similarity_weight": 0, "quadruplet_weight": 0},
    "similarity only": {"cluster_weight": 0, "quadruplet_weight": 0},
    "quadruplet only": {"cluster_weight": 0, "similarity_weight": 0},
    "0.8 cluster + 0.1 similarity": {"quadruplet_weight": 0},
    "0.8 cluster + 0.01 quadruplet": {"similarity_weight": 0},
    "0.1 similarity + 0.01 quadruplet": {"cluster_weight": 0},
    "all three": {},
}


@dataclass(frozen=True)
class MCMSHConfig:
    """Sizes, gates and loss weights; the defaults are those of FCVID."""

    bits: int = 64
    num_frames: int = 25
    feature_dim: int = 4096
    hidden_dim: int = 256
    gates: str = "LMS"  # of long, middle and short range; "" is a plain MLP-Mixer
    dropout: float = 0.5
    num_anchors: int = 2000
    corruption: float = 0.15  # share of frames that are corrupted
    cluster_weight: float = 0.8
    similarity_weight: float = 0.1
    quantisation_weight: float = 0.01
    quadruplet_weight: float = 0.01

    def __post_init__(self):
        if not set(self.gates) <= set("LMS") or len(set(self.gates)) < len(self.gates):
            raise ValueError(f'gates are letters of "LMS", each at most once, not {self.gates!r}')
        if self.num_frames < TOKEN_REDUCTION:
            raise ValueError(f"num_frames is {self.num_frames}; at least {TOKEN_REDUCTION} needed")
        groups = self.hidden_dim // CHANNEL_REDUCTION
        if groups < 1 or self.hidden_dim % groups:
            raise ValueError(
                f"hidden_dim {self.hidden_dim} does not divide into groups of {CHANNEL_REDUCTION}: "
                f"take a multiple of {CHANNEL_REDUCTION}."
            )


class Gate(nn.Module):
    """Mix x (n, B, c) over n, open, weigh, and mix over n once more.

    A kind of gate says what it looks at, how it reduces and restores channels, how it spreads.
    """

    def __init__(self, n, c, reduction):
        super().__init__()
        self.fc1 = nn.Conv1d(n, n, 1)
        self.fc2 = nn.Conv1d(n, n, 1)
        self.conv, self.deconv = self.layers(c, c // reduction, reduction)
        self.bn1 = BatchNorm(c // reduction)
        self.bn2 = BatchNorm(c)

    def forward(self, x):
        mixed = mix(x, self.fc1)
        return mix(mixed * self.opening(mixed), self.fc2)

    def opening(self, mixed):
        """How far the gate opens, 0 to 1: mixed (n, B, c) -> (n, B, c), or (1, B, c) for all n."""
        reduced = F.relu(normalise(along(self.look(mixed), self.conv), self.bn1))
        return self.spread(torch.sigmoid(normalise(along(reduced, self.deconv), self.bn2)))

    def look(self, mixed):
        """What of mixed (n, B, c) the gate sees."""
        return mixed

    def spread(self, opening):
        """Lay openings for what was seen over all n."""
        return opening


class LongRange(Gate):
    """See the mean over n, and open alike for all n."""

    def layers(self, c, reduced, reduction):
        conv, deconv = nn.Linear(c, reduced, bias=False), nn.Linear(reduced, c, bias=False)
        nn.init.normal_(conv.weight, std=0.001)
        nn.init.normal_(deconv.weight, std=0.001)
        return conv, deconv

    def look(self, mixed):
        """The mean over n, (1, B, c)."""
        return mixed.mean(0, keepdim=True)


class ShortRange(Gate):
    """See a value and its two neighbours along n."""

    def layers(self, c, reduced, reduction):
        # As released: grouped everywhere but in the token mixer.
        groups = reduced if reduction == CHANNEL_REDUCTION else 1
        options = {"kernel_size": 3, "padding": 1, "groups": groups, "bias": False}
        conv, deconv = nn.Conv1d(c, reduced, **options), nn.Conv1d(reduced, c, **options)
        nn.init.kaiming_normal_(conv.weight, mode="fan_out")
        nn.init.xavier_normal_(deconv.weight)
        return conv, deconv


class MiddleRange(ShortRange):
    """See as `ShortRange` does, at a third of the resolution along n."""

    def __init__(self, n, c, reduction):
        super().__init__(n, c, reduction)
        self.register_buffer("shrink", averages(n, n // 3), persistent=False)
        self.register_buffer("grow", averages(n // 3, n), persistent=False)

    def look(self, mixed):
        """Averages of three neighbours or so, (n // 3, B, c)."""
        return (self.shrink @ mixed.flatten(1)).unflatten(1, mixed.shape[1:])

    def spread(self, opening):
        """Averages of the openings back to n, (n, B, c)."""
        return (self.grow @ opening.flatten(1)).unflatten(1, opening.shape[1:])


GATES = {"L": ("lrd", LongRange), "M": ("mrd", MiddleRange), "S": ("srd", ShortRange)}


# ---- n comes first, so that mixing over it and reducing c are one large product each. Forward and
# ---- backward, that is 2.5 to 2.9 times as fast as torch's layers: benchmarks/mcmsh_training.py.


def mix(x, layer):
    """Mix x (n, B, c) over n by a convolution of width 1: one product for all B and c, 2.5x."""
    return torch.addmm(layer.bias[:, None], layer.weight[:, :, 0], x.flatten(1)).view(x.shape)


def along(x, layer):
    """Apply a linear layer, or a convolution of width 3 along n: (n, B, c) -> (n, B, c').

    This is one product over all groups, zeros included, beside two shifts of its narrower side.
    """
    if isinstance(layer, nn.Linear):
        return layer(x)
    taps = dense(layer)  # (3, c', c)
    if len(taps[0]) > x.shape[2]:
        x = torch.cat([shift(x, 1), x, shift(x, -1)], dim=2)  # (n, B, 3 c)
        return F.linear(x, taps.transpose(0, 1).flatten(1))
    before, here, after = F.linear(x, taps.flatten(0, 1)).chunk(3, dim=2)
    return shift(before, 1) + here + shift(after, -1)


def shift(x, steps):
    """Move (n, ...) by one step up (1) or down (-1) along n; a zero comes in."""
    ends = (0, 0) * (x.ndim - 1)
    return F.pad(x[:-1], (*ends, 1, 0)) if steps == 1 else F.pad(x[1:], (*ends, 0, 1))


def dense(layer):
    """Weights (c', c / groups, 3) of a grouped convolution with all the zeros -> (3, c', c)."""
    weight = layer.weight.unflatten(0, (layer.groups, -1)).permute(1, 2, 3, 0)  # groups last
    return weight.diag_embed().permute(2, 3, 0, 4, 1).flatten(3).flatten(1, 2)


def averages(n, m):
    """The matrix (m, n) that averages n values to m, as adaptive average pooling does."""
    return F.adaptive_avg_pool1d(torch.eye(n), m).T.contiguous()


def normalise(x, norm):
    """Batch norm of (n, B, c) over n and B."""
    return norm(x.flatten(0, 1)).view(x.shape)


class Gated(nn.Module):
    """A part of the network with up to three gates, whose sum `gated` gives."""

    def __init__(self, gates, n, c, reduction):
        super().__init__()
        self.names = [GATES[letter][0] for letter in gates]
        for letter in gates:
            name, kind = GATES[letter]
            self.add_module(name, kind(n, c, reduction))

    def gated(self, x):
        """Sum what the gates make of x (n, B, c); without gates, x itself."""
        return sum(getattr(self, name)(x) for name in self.names) if self.names else x


class TokenMixer(Gated):
    """Mix (T, B, H) over time."""

    def __init__(self, num_frames, dim, gates, dropout):
        super().__init__(gates, dim, num_frames, TOKEN_REDUCTION)
        self.mlp = Mlp(num_frames, 2, dropout)

    def forward(self, x):
        mixed = self.mlp(x.transpose(0, 2).contiguous())  # (H, B, T)
        return x + self.gated(mixed).transpose(0, 2)


class ChannelMixer(Gated):
    """Mix (T, B, H) over channels."""

    def __init__(self, num_frames, dim, gates, dropout):
        super().__init__(gates, num_frames, dim, CHANNEL_REDUCTION)
        self.mlp = Mlp(dim, 2, dropout)

    def forward(self, x):
        return x + self.gated(self.mlp(x))


class MCMLP(Gated):
    """Videos (B, T, D) -> hidden states (B, T, H): embed, mix time, mix channels, gate."""

    def __init__(self, num_frames, feature_dim, dim, gates, dropout):
        super().__init__(gates, num_frames, dim, CHANNEL_REDUCTION)
        self.preproj = nn.Linear(feature_dim, dim)
        self.token_mixer = TokenMixer(num_frames, dim, gates, dropout)
        self.channel_mixer = ChannelMixer(num_frames, dim, gates, dropout)

    def forward(self, frames):
        x = F.relu(self.preproj(frames)).transpose(0, 1).contiguous()  # (T, B, H)
        return self.gated(self.channel_mixer(self.token_mixer(x))).transpose(0, 1)

    def gate_openings(self, frames: Tensor) -> dict[str, Tensor]:
        """How far gates open for videos (B, T, D), in evaluation mode -> {name: (B, T, H), 0 to 1}.

        Names are "token_mixer.lrd", "channel_mixer.srd", …, and "lrd", "mrd", "srd" at the end.
        """
        gates = {gate: name for name, gate in self.named_modules() if isinstance(gate, Gate)}
        found = {}

        def note(gate, inputs):
            # n are the channels in the token mixer: (n, B, c) -> (B, T, H)
            order = (1, 2, 0) if gates[gate].startswith("token") else (1, 0, 2)
            opening = gate.opening(mix(*inputs, gate.fc1))
            found[gates[gate]] = opening.expand(inputs[0].shape).permute(order)

        with ExitStack() as hooks:  # a hook is removed at its end
            for gate in gates:
                hooks.enter_context(gate.register_forward_pre_hook(note))
            self(frames)
        return found


class MCMSH(VideoHasher):
    """The whole method: MC-MLP, hash layer, four losses on a video and its neighbours.

    >>> from vidhash_lab import open_dataset
    >>> train = open_dataset("digit-stories-mini").train
    >>> model = MCMSH.for_dataset(train, bits=16, hidden_dim=16, num_anchors=20)
    >>> batch = model.prepare(train).sample(train, torch.arange(8), torch.Generator())
    >>> list(model.losses(batch))
    ['cluster', 'similarity', 'quantisation', 'quadruplet']
    """

    Config = MCMSHConfig

    def __init__(self, config):
        super().__init__(config)
        c = config
        self.mc_mlp = MCMLP(c.num_frames, c.feature_dim, c.hidden_dim, c.gates, c.dropout)
        self.binary = nn.Linear(config.hidden_dim, config.bits)
        self.register_buffer("alpha", torch.ones(()))  # slope of tanh, steeper every epoch
        self.graph = self.targets = None  # what `prepare` finds

    def prepare(self, train, seed=0):
        """Find anchors and neighbours of the training set, or read those that were kept."""
        structures = find_structures(train, self.config.num_anchors, seed)
        self.saved_seconds = structures.saved_seconds
        self.graph = structures.graph()
        self.targets = structures.nearest_anchors(self.config.hidden_dim)
        return self

    def on_epoch(self, epoch):
        """Make tanh steeper: alpha = sqrt(epoch + 1)."""
        self.alpha.fill_(math.sqrt(epoch + 1))

    def sample(self, train, indices, generator, share=WHOLE):
        """Draw partners of videos (B,) and read all -> videos (2 or 5, B, T, D), label, targets.

        They are the video and its partner, both corrupted, then, for the quadruplet loss, a similar
        and two dissimilar ones. The partner is similar (label +1) half of the time, else dissimilar
        (-1); targets (2, B, H) are the anchors of video and partner.
        """
        if len(indices) < 2:
            raise ValueError("batch_size is 1: MCMSH's batch norms need two videos or more.")
        partner, label = draw_pairs(self.graph, indices, generator)
        drawn = [indices, partner]
        if self.config.quadruplet_weight:
            similar = self.graph.similar(indices, generator)
            far = self.graph.dissimilar(indices, generator)
            drawn += [similar, far, self.graph.dissimilar(indices, generator, unlike=far)]
        drawn = torch.stack(drawn)
        mine = drawn[:, share]
        videos = train.rows(mine.flatten()).unflatten(0, mine.shape)
        corrupt_(videos[:2], self.config.corruption, generator, train, drawn[:2], share)
        return {"videos": videos, "label": label[share], "targets": self.targets[mine[:2]]}

    def losses(self, batch):
        """Compute the weighted terms; each of the 2 or 5 batches has statistics of its own."""
        c = self.config
        states = [self.mc_mlp(videos) for videos in batch["videos"]]
        codes = [self.relax(each) for each in states]
        terms = {
            "cluster": lambda: sum(map(cluster, states[:2], batch["targets"])),
            "similarity": lambda: similarity(*codes[:2], batch["label"]),
            "quantisation": lambda: quantisation(codes[0]) + quantisation(codes[1]),
            "quadruplet": lambda: quadruplet(codes[0], *codes[2:]),
        }
        weights = {name: getattr(c, f"{name}_weight") for name in terms}
        return {name: weights[name] * term() for name, term in terms.items() if weights[name]}

    def relax(self, states):
        """Relaxed codes of hidden states: (B, T, H) -> (B, K) in (-1, 1)."""
        weight, bias = self.alpha * self.binary.weight, self.alpha * self.binary.bias
        return torch.tanh(F.linear(states, weight, bias).float()).mean(1)

    def encode(self, frames):
        return sign(self.relax(self.mc_mlp(frames)))

    @classmethod
    def from_released(cls, state, alpha=None):
        """Build the model from a released state dict, sizes and gates read off it.

        `alpha` is not in the file: None assumes, with a warning, that of the recipe's last epoch.
        """
        if alpha is None:
            alpha = math.sqrt(RELEASED_EPOCHS)
            assumed = f"sqrt({RELEASED_EPOCHS}) = {alpha:.2f}, that of the recipe's last epoch"
            message = f"released MCMSH files do not hold alpha: assuming {assumed}. Else pass it."
            warnings.warn(message, stacklevel=3)
        bits, hidden_dim = state["binary.weight"].shape
        num_frames = state["mc_mlp.token_mixer.mlp.fc1.weight"].shape[1]
        feature_dim = state["mc_mlp.preproj.weight"].shape[1]
        gates = "".join(k for k, (name, _) in GATES.items() if f"mc_mlp.{name}.fc1.bias" in state)
        model = cls(MCMSHConfig(bits, num_frames, feature_dim, hidden_dim, gates))
        model.load_state_dict({**state, "alpha": torch.tensor(float(alpha))})
        return model
