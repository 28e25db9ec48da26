"""S5VH: selective state spaces that read a video in both directions, and hash centres for its code.

Views, masks, decoder and two of the losses are ConMH's; attention gives way to two selective scans,
forwards and backwards in time. The training set's clusters have hash centres, and a code is drawn
to its video's: by a soft label, which starts as the video's own cluster and, after a warm-up,
learns a little from the model's own guess every epoch.

Paper: Wang et al., Efficient Self-Supervised Video Hashing with Selective State Spaces, AAAI 2025.
Module names and layer shapes are those of the released checkpoints, which hold one thing more that
the released code never calls (a guess of which frames matter).

As in the released code, though the paper says otherwise or nothing: both directions of a block are
one scan (`shared_directions`; there the second is overwritten by the first); steps begin near 0.7,
as Xavier's weights overwrite Mamba's own start between 0.001 and 0.1, so that a state forgets
within some frames (notebook 10); the guess that a soft label learns from is of all frames, without
the layer norm that codes have.

Different from it, on purpose: hash centres are those of the clusters and stay
(`centres="semantic"`, as the paper means it; there they are computed and then not used: "learned"
is what its numbers were measured with); videos that stochastic depth drops from a block are not
computed; a video code's sign(0) is +1. For the clusters see `vidhash_lab.structures`, for their
centres `vidhash_lab.hash_centres`.

B videos in a batch, T frames per video, V of them visible, M = T - V hidden, D feature width,
H hidden width, E = 2H inner width, S size of a state, K bits, C clusters, N training videos.
"""

from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from vidhash_lab.data.files import DataError
from vidhash_lab.hash_centres import semantic_centres
from vidhash_lab.losses import centre_alignment, debiased_contrastive, masked_reconstruction
from vidhash_lab.models.conmh import ConMH, ConMHConfig
from vidhash_lab.models.hasher import binarise
from vidhash_lab.models.selective_scan import causal_convolution, gated_scan
from vidhash_lab.structures import NEAREST, find_structures, video_means

SIZES = {"mini": {"depth": 1}, "small": {"depth": 6}, "base": {"depth": 12}}  # published: small
STATE, TAPS = 16, 4  # S, and the frames that the convolution of a scan sees


@dataclass(frozen=True)
class S5VHConfig:
    """Sizes and loss weights; the defaults are those of FCVID."""

    bits: int = 64
    num_frames: int = 25
    feature_dim: int = 4096
    hidden_dim: int = 256
    depth: int = 6
    decoder_dim: int = 192
    decoder_depth: int = 1
    drop_path: float = 0.5  # how often training skips the last block; the first, never
    shared_directions: bool = True  # one scan for both directions of time
    mask_ratio: float = 0.75  # share of frames that a view hides
    contrastive_weight: float = 2.5
    temperature: float = 0.5
    tau_plus: float = 0.1  # probability that a negative is of the same class
    alignment_weight: float = 0.01
    alignment_temperature: float = 0.5
    centres: str = "semantic"  # or "learned"
    num_clusters: int = 450
    cluster_dim: int = 512  # principal components in which clusters are found
    warm_up_epochs: int = 50  # before soft labels move
    smoothing: float = 0.01  # share of a soft label that is the model's guess, each epoch

    num_visible = ConMHConfig.num_visible

    def __post_init__(self):
        ConMHConfig.__post_init__(self)  # the mask ratio
        if self.centres not in ("semantic", "learned"):
            raise ValueError(f'centres are "semantic" or "learned", not {self.centres!r}')
        if self.num_clusters < NEAREST:
            raise ValueError(f"num_clusters is {self.num_clusters}; at least {NEAREST} needed")
        if not 0 <= self.drop_path < 1:
            raise ValueError(f"drop_path is {self.drop_path}; expected at least 0, less than 1")

    @classmethod
    def sized(cls, size, **changes):
        """Return a config of a published size: "mini", "small" or "base"."""
        return cls(**SIZES[size] | changes)


class Scan(nn.Module):
    """Mamba's layer: a gated selective scan over (B, T, H), forwards in time."""

    def __init__(self, dim):
        super().__init__()
        inner, self.rank = 2 * dim, -(-dim // 16)
        self.in_proj = nn.Linear(dim, 2 * inner, bias=False)
        self.conv1d = nn.Conv1d(inner, inner, TAPS, groups=inner)
        self.x_proj = nn.Linear(inner, self.rank + 2 * STATE, bias=False)
        self.dt_proj = nn.Linear(self.rank, inner)
        self.A_log = nn.Parameter(torch.arange(1.0, STATE + 1).log().repeat(inner, 1))  # (E, S)
        self.D = nn.Parameter(torch.ones(inner))
        self.out_proj = nn.Linear(inner, dim, bias=False)

    def forward(self, x):
        u, gate = self.in_proj(x).chunk(2, dim=-1)  # (B, T, E) each
        u = causal_convolution(u, self.conv1d.weight[:, 0].T, self.conv1d.bias)
        rank, write, read = self.x_proj(u).split((self.rank, STATE, STATE), dim=-1)
        A, pace = -self.A_log.exp(), self.dt_proj(rank)
        return self.out_proj(gated_scan(u, pace, A, write, read, self.D, gate))


class Block(nn.Module):
    """Add scans of (B, T, H) in both directions of time, each of its own norm."""

    def __init__(self, dim, drop_path, shared_directions):
        super().__init__()
        self.drop_path = drop_path
        self.norm1, self.norm2 = nn.LayerNorm(dim, eps=1e-6), nn.LayerNorm(dim, eps=1e-6)
        self.mamba1 = Scan(dim)
        self.mamba2 = self.mamba1 if shared_directions else Scan(dim)

    def forward(self, x):
        if not self.training or not self.drop_path:
            return x + self.both_ways(x)
        kept = torch.where(torch.rand(len(x), device=x.device) >= self.drop_path)[0]
        added = self.both_ways(x[kept]) / (1 - self.drop_path)
        return x.index_add(0, kept, added.to(x.dtype))

    def both_ways(self, x):
        """Scan forwards and backwards -> their sum (B, T, H)."""
        return self.mamba1(self.norm1(x)) + self.mamba2(self.norm2(x.flip(1))).flip(1)


class S5VH(ConMH):
    """The whole method: ConMH's views and losses, scans in place of attention, hash centres.

    >>> from vidhash_lab import open_dataset
    >>> train = open_dataset("digit-stories-mini").train
    >>> sizes = {"hidden_dim": 16, "depth": 1, "num_clusters": 20, "cluster_dim": 8}
    >>> model = S5VH.for_dataset(train, bits=16, **sizes)
    >>> batch = model.prepare(train).sample(train, torch.arange(8), torch.Generator())
    >>> list(model.losses(batch))
    ['reconstruction', 'contrastive', 'alignment']
    """

    Config = S5VHConfig

    def __init__(self, config):
        super().__init__(config)
        self.classifier = nn.Linear(config.bits, config.num_clusters, bias=False)  # hash centres
        self.classifier.weight.requires_grad_(config.centres == "learned")
        # One row a training video, as many as `prepare` finds; they are part of a checkpoint.
        self.register_buffer("soft_labels", torch.zeros(0, config.num_clusters))
        self.smooths = False  # whether the warm-up is over

    def encoder_blocks(self):
        """Make the encoder's blocks; the later, the more often one is skipped in training."""
        c = self.config
        rates = np.linspace(0, c.drop_path, c.depth)
        return (Block(c.hidden_dim, rate, c.shared_directions) for rate in rates)

    def decoder_blocks(self):
        """Make the decoder's blocks."""
        c = self.config
        rates = np.linspace(0, c.drop_path, c.decoder_depth)
        return (Block(c.decoder_dim, rate, c.shared_directions) for rate in rates)

    def prepare(self, train, seed=0):
        """Find the training set's clusters, their hash centres, and each video's first label."""
        c = self.config
        if len(train) < c.num_clusters:
            raise DataError(
                f"{train} has {len(train)} videos, too few for {c.num_clusters} clusters. Choose "
                f"num_clusters of at most {len(train)}, better a tenth of that."
            )
        structures = find_structures(
            train,
            c.num_clusters,
            seed,
            points=partial(principal_means, dim=c.cluster_dim),
            recipe=f"{c.cluster_dim} principal components of mean features",
        )
        self.saved_seconds = structures.saved_seconds
        clusters = torch.from_numpy(structures.nearest[:, 0]).long()
        self.soft_labels = F.one_hot(clusters, c.num_clusters).float().to(self.device)
        if c.centres == "semantic":
            centres = semantic_centres(structures.anchors, c.bits, seed)
            with torch.no_grad():
                self.classifier.weight.copy_(torch.from_numpy(centres))
        return self

    def on_epoch(self, epoch):
        """Let soft labels move once the warm-up is over."""
        self.smooths = epoch >= self.config.warm_up_epochs

    def sample(self, train, indices, generator):
        """Read videos (B,) and draw two masks, as ConMH does, and say which videos they are."""
        return super().sample(train, indices, generator) | {"videos": indices}

    def losses(self, batch):
        """Return the weighted terms of a batch; after the warm-up, move its soft labels first."""
        c, frames, videos = self.config, batch["frames"], batch["videos"]
        codes, guesses, hidden = self.two_views(frames, batch["masked"])
        codes = codes.float().mean(1)  # (2B, V, K) -> (2B, K)
        if self.smooths and self.training:
            guess = self.guess_clusters(frames).softmax(1)
            self.soft_labels[videos] = smooth(self.soft_labels[videos], guess, c.smoothing)
        centres, labels = self.classifier.weight, self.soft_labels[videos]
        alignment = centre_alignment(codes, centres, labels, c.alignment_temperature)
        contrast = debiased_contrastive(*codes.chunk(2), c.temperature, c.tau_plus)
        return {
            "reconstruction": masked_reconstruction(guesses, frames, hidden),
            "contrastive": c.contrastive_weight * contrast,
            "alignment": c.alignment_weight * alignment,
        }

    @torch.no_grad()
    def guess_clusters(self, frames):
        """Logits of the clusters of videos (B, T, D), all frames visible -> (B, C)."""
        places = torch.arange(frames.shape[1], device=frames.device).expand(frames.shape[:2])
        codes = binarise(self.binary(self.encoder(frames, places)))  # without `ln`, as released
        return self.classifier(codes.mean(1)).float()

    def load_state_dict(self, state_dict, *args, **kwargs):
        """Load a state; N is no field of the config, so there are as many soft labels as it has."""
        if "soft_labels" in state_dict:
            rows = len(state_dict["soft_labels"])
            self.soft_labels = self.soft_labels.new_zeros(rows, self.config.num_clusters)
        return super().load_state_dict(state_dict, *args, **kwargs)

    @classmethod
    def from_released(cls, state, num_frames=25):
        """Build the model from a released state dict, sizes read off its shapes; T is not there.

        Nor are the soft labels: what comes back encodes, and trains on from fresh ones. Its centres
        are "learned".
        """
        own = {k: v for k, v in state.items() if not k.startswith("get_token_probs.")}
        blocks = [
            {int(key.split(".")[2]) for key in own if key.startswith(f"{part}.blocks.")}
            for part in ("encoder", "decoder")
        ]
        one, other = (own[f"encoder.blocks.0.{way}.in_proj.weight"] for way in ("mamba1", "mamba2"))
        bits, hidden_dim = own["binary.weight"].shape
        config = S5VHConfig(
            bits=bits,
            num_frames=num_frames,
            feature_dim=own["encoder.patch_embed.weight"].shape[1],
            hidden_dim=hidden_dim,
            depth=len(blocks[0]),
            decoder_depth=len(blocks[1]),
            decoder_dim=own["encoder_to_decoder.weight"].shape[0],
            shared_directions=torch.equal(one, other),
            centres="learned",
            num_clusters=len(own["classifier.weight"]),
        )
        model = cls(config)
        model.load_state_dict(own | {"soft_labels": model.soft_labels})
        return model


def smooth(labels, guess, share):
    """Move soft labels (B, C) to a guess (B, C) by a share of the way."""
    return (1 - share) * labels + share * guess


def principal_means(train, dim):
    """Mean features of each video in their first principal components -> (N, dim at most)."""
    from sklearn.decomposition import PCA  # scikit-learn takes a second to import

    means = video_means(train)
    pca = PCA(min(dim, *means.shape), svd_solver="full" if len(means) < 1024 else "covariance_eigh")
    return np.ascontiguousarray(pca.fit_transform(means), np.float32)
