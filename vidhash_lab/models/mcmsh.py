"""MCMSH: an MLP-Mixer with gates of long, middle and short range, and three preserved structures.

A video's frames are mixed over time and over channels; after each mixing three gates weigh what
came out by what they see of it: all of it, a third of its resolution, its neighbourhood. The code
keeps what `vidhash_lab.structures` knows of the training set: which anchor a video is nearest to,
which videos are similar, and that those at middle distance are farther.

Paper: Hao et al., Unsupervised Video Hashing with Multi-granularity Contextualization and
Multi-structure Preservation, ACM MM 2022. The network itself is in `mc_mlp.py`.
Module names and layer shapes are those of the released checkpoints. Different from the released
code, on purpose: `alpha` is part of the state and saved; frames are corrupted on copies; the second
dissimilar video is never similar to the first where that can be helped (there: drawn once more);
no anchor is lost, and their PCA is sorted.

B videos in a batch, T frames per video, D feature width, H hidden width, K bits.
"""

import math
import warnings
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from vidhash_lab import losses
from vidhash_lab.models.blocks import VideoHasher, corrupt_, sign
from vidhash_lab.models.mc_mlp import CHANNEL_REDUCTION, GATES, MCMLP, TOKEN_REDUCTION
from vidhash_lab.structures import draw_pairs, find_structures

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
        if not set(self.gates) <= set(GATES) or len(set(self.gates)) < len(self.gates):
            raise ValueError(f'gates are letters of "LMS", each at most once, not {self.gates!r}')
        if self.num_frames < TOKEN_REDUCTION:
            raise ValueError(f"num_frames is {self.num_frames}; at least {TOKEN_REDUCTION} needed")
        if self.hidden_dim % (groups := max(1, self.hidden_dim // CHANNEL_REDUCTION)):
            raise ValueError(
                f"hidden_dim {self.hidden_dim} does not divide into {groups} groups; "
                f"take a multiple of {CHANNEL_REDUCTION}."
            )


class MCMSH(VideoHasher):
    """The whole method: MC-MLP, hash layer, four losses on a video and its neighbours."""

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
        self.graph = structures.graph()
        self.targets = structures.nearest_anchors(self.config.hidden_dim)
        return self

    def on_epoch(self, epoch):
        """Make tanh steeper: alpha = sqrt(epoch + 1)."""
        self.alpha.fill_(math.sqrt(epoch + 1))

    def sample(self, train, indices, generator):
        """Draw partners of videos (B,) and read all -> clips (5, B, T, D), label (B,), targets.

        Clips are the video and its partner, both corrupted, then, where the quadruplet loss asks
        for them, a similar and two dissimilar ones. The partner is similar (label +1) half of the
        time, else dissimilar (-1); targets (2, B, H) are the anchors of video and partner.
        """
        partner, label = draw_pairs(self.graph, indices, generator)
        videos = [indices, partner]
        if self.config.quadruplet_weight:
            similar = self.graph.similar(indices, generator)
            far = self.graph.dissimilar(indices, generator)
            videos += [similar, far, self.graph.dissimilar(indices, generator, unlike=far)]
        clips = train.rows(torch.cat(videos)).unflatten(0, (len(videos), -1))
        corrupt_(clips[:2], self.config.corruption, generator)
        targets = self.targets[torch.stack(videos[:2])]
        return {"clips": clips, "label": label, "targets": targets}

    def losses(self, batch):
        """Return the weighted terms of a batch of `sample`; a term of weight 0 is left out."""
        c = self.config
        hidden = self.mc_mlp(batch["clips"])
        codes = self.relax(hidden)
        terms = {
            "cluster": lambda: sum(map(losses.cluster, hidden[:2], batch["targets"])),
            "similarity": lambda: losses.similarity(*codes[:2], batch["label"]),
            "quantisation": lambda: losses.quantisation(codes[0]) + losses.quantisation(codes[1]),
            "quadruplet": lambda: losses.quadruplet(codes[0], *codes[2:]),
        }
        weights = {name: getattr(c, f"{name}_weight") for name in terms}
        return {name: weights[name] * term() for name, term in terms.items() if weights[name]}

    def relax(self, hidden):
        """Relaxed codes of hidden states: (..., T, H) -> (..., K) in (-1, 1)."""
        weight, bias = self.alpha * self.binary.weight, self.alpha * self.binary.bias
        return torch.tanh(F.linear(hidden, weight, bias).float()).mean(-2)

    def encode(self, frames):
        """Hash videos (B, T, D) -> (B, K) in {-1, +1}."""
        return sign(self.relax(self.mc_mlp(frames[None])[0]))

    @classmethod
    def from_released(cls, state, alpha=None):
        """Build the model from a released state dict, sizes and gates read off it.

        `alpha` is not in the file. None assumes the one of the released recipe's last epoch,
        sqrt(56) = 7.48, and warns that it did; a code's bits depend on it where frames disagree.
        """
        if alpha is None:
            alpha = math.sqrt(RELEASED_EPOCHS)
            warnings.warn(
                f"released MCMSH files do not hold alpha: assuming sqrt({RELEASED_EPOCHS}) = "
                f"{alpha:.2f}, that of the recipe's last epoch. Pass alpha=… if you know better.",
                stacklevel=3,
            )
        bits, hidden_dim = state["binary.weight"].shape
        config = MCMSHConfig(
            bits=bits,
            num_frames=state["mc_mlp.token_mixer.mlp.fc1.weight"].shape[1],
            feature_dim=state["mc_mlp.preproj.weight"].shape[1],
            hidden_dim=hidden_dim,
            gates="".join(
                k for k, (name, _) in GATES.items() if f"mc_mlp.{name}.fc1.bias" in state
            ),
        )
        model = cls(config)
        model.load_state_dict({**state, "alpha": torch.tensor(float(alpha))})
        return model
