"""BTH: bidirectional transformer hashing, the baseline that the later papers compare with.

One transformer layer reads a corrupted video, binary frame codes restore its frames, and the codes
of neighbours are drawn together, towards anchors of a latent space that a first stage has learned.

Paper: Li et al., Self-Supervised Video Hashing via Bidirectional Transformers, CVPR 2021.
Module names and layer shapes are those of the released checkpoints, without two embeddings that
the released code holds and never uses. Different from it, on purpose: reconstruction is of the
clean frames (there masking overwrites the array, so that the target is the corrupted input);
sign(0) is +1; the first stage sees single videos (the released one draws pairs from a graph that
only its result makes possible). For anchors and partners see `vidhash_lab.structures`.

B videos in a batch, T frames per video, D feature width, H hidden width, K bits.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn
from tqdm.auto import tqdm

from vidhash_lab.losses import cluster, similarity
from vidhash_lab.models.blocks import attend, corrupt_, position_table
from vidhash_lab.models.hasher import WHOLE, VideoHasher, binarise, sign
from vidhash_lab.structures import draw_pairs, find_structures

POSITIONS = 512  # rows of the released position table
LATENT_BATCH, LATENT_RATE = 256, 3e-4  # of the first stage, as released


@dataclass(frozen=True)
class BTHConfig:
    """Sizes and loss weights; the defaults are those of FCVID."""

    bits: int = 64
    num_frames: int = 25
    feature_dim: int = 4096
    hidden_dim: int = 256
    dropout: float = 0.1
    num_anchors: int = 2000
    latent_epochs: int = 56  # of the first stage, by reconstruction alone
    corruption: float = 0.15  # share of frames that are corrupted
    reconstruction_weight: float = 0.92
    similarity_weight: float = 0.08
    cluster_weight: float = 0.8

    def __post_init__(self):
        if self.num_frames > POSITIONS:
            raise ValueError(f"num_frames is {self.num_frames}; BTH has {POSITIONS} positions.")


class Norm(nn.Module):
    """Layer norm that divides by (unbiased standard deviation + 1e-6), not by a root."""

    def __init__(self, dim):
        super().__init__()
        self.a_2 = nn.Parameter(torch.ones(dim))
        self.b_2 = nn.Parameter(torch.zeros(dim))

    def forward(self, x):
        deviation, mean = torch.std_mean(x, dim=-1, keepdim=True)
        return self.a_2 * (x - mean) / (deviation + 1e-6) + self.b_2


class Sublayer(nn.Module):
    """Add what a layer makes of the normed input, thinned by dropout."""

    def __init__(self, dim, dropout):
        super().__init__()
        self.norm = Norm(dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x, layer):
        return x + self.dropout(layer(self.norm(x)))


class Attention(nn.Module):
    """Self-attention of one head on (B, T, H), with dropout on its weights."""

    def __init__(self, dim, dropout):
        super().__init__()
        self.linear_layers = nn.ModuleList(nn.Linear(dim, dim) for _ in range(3))
        self.output_linear = nn.Linear(dim, dim)
        self.dropout = dropout

    def forward(self, x):
        query, key, value = (layer(x)[:, None] for layer in self.linear_layers)  # (B, 1, T, H)
        mixed = attend(query, key, value, self.dropout if self.training else 0.0)
        return self.output_linear(mixed[:, 0])


class FeedForward(nn.Module):
    """Linear, GELU by its tanh approximation, linear, four times as wide inside."""

    def __init__(self, dim, dropout):
        super().__init__()
        self.w_1 = nn.Linear(dim, 4 * dim)
        self.w_2 = nn.Linear(4 * dim, dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x):
        return self.w_2(self.dropout(F.gelu(self.w_1(x), approximate="tanh")))


class Layer(nn.Module):
    """Pre-norm transformer layer on (B, T, H), with a dropout at its end."""

    def __init__(self, dim, dropout):
        super().__init__()
        self.attention = Attention(dim, dropout)
        self.feed_forward = FeedForward(dim, dropout)
        self.input_sublayer = Sublayer(dim, dropout)
        self.output_sublayer = Sublayer(dim, dropout)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x):
        x = self.input_sublayer(x, self.attention)
        return self.dropout(self.output_sublayer(x, self.feed_forward))


class Embedding(nn.Module):
    """Frames (B, T, D) -> (B, T, H), positions added."""

    def __init__(self, feature_dim, dim, dropout):
        super().__init__()
        self.frame_map = nn.Linear(feature_dim, dim)
        self.position = nn.Module()
        self.position.register_buffer("pe", position_table(POSITIONS, dim)[None])
        self.dropout = nn.Dropout(dropout)

    def forward(self, frames):
        return self.dropout(self.frame_map(frames) + self.position.pe[:, : frames.shape[1]])


class BTH(VideoHasher):
    """The whole method: encoder, frame codes, reconstruction, pairs and anchors.

    >>> from vidhash_lab import open_dataset
    >>> train = open_dataset("digit-stories-mini").train
    >>> model = BTH.for_dataset(train, bits=16, hidden_dim=16, num_anchors=20, latent_epochs=1)
    >>> batch = model.prepare(train).sample(train, torch.arange(8), torch.Generator())
    >>> list(model.losses(batch))
    ['reconstruction', 'similarity', 'cluster']
    """

    Config = BTHConfig

    def __init__(self, config):
        super().__init__(config)
        c = config
        self.bert = nn.Module()
        self.bert.embedding = Embedding(c.feature_dim, c.hidden_dim, c.dropout)
        self.bert.transformer_blocks = nn.ModuleList([Layer(c.hidden_dim, c.dropout)])
        self.restore = nn.Linear(c.bits, c.feature_dim)
        self.binary = nn.Linear(c.hidden_dim, c.bits)
        self.graph = self.targets = None  # what `prepare` finds

    def prepare(self, train, seed=0):
        """Learn a latent space, find anchors and neighbours in it, or read those that were kept."""
        c = self.config
        recipe = f"BTH {c.bits} {c.hidden_dim} {c.dropout} {c.corruption} {c.latent_epochs}"
        with torch.random.fork_rng():  # training is the same whether they were kept or not
            latent = {"points": lambda train: self._latent_means(train, seed), "recipe": recipe}
            structures = find_structures(train, c.num_anchors, seed, **latent)
        self.saved_seconds = structures.saved_seconds
        self.graph, self.targets = structures.graph(), structures.nearest_anchors()
        return self

    def _latent_means(self, train, seed):
        """First stage: train another model to reconstruct, average its states -> (N, H) float32."""
        device, generator = self.binary.weight.device, torch.Generator().manual_seed(seed)
        torch.manual_seed(seed)  # of initial weights and dropout; `prepare` puts it back
        first = type(self)(self.config).to(device).train()
        optimizer = torch.optim.Adam(first.parameters(), LATENT_RATE, fused=True)
        for epoch in tqdm(range(self.config.latent_epochs), desc="latent space", unit="epoch"):
            decay = max(0.9 ** (epoch // 20), 1 / 3)  # of the released recipe
            optimizer.param_groups[0]["lr"] = decay * LATENT_RATE
            for indices in torch.randperm(len(train), generator=generator).split(LATENT_BATCH):
                clean = train.rows(indices)
                noisy = corrupt_(clean.clone(), self.config.corruption, generator)
                codes, _ = first.frame_codes(noisy.to(device))
                loss = F.mse_loss(first.restore(codes), clean.to(device))
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        first.eval()
        with torch.inference_mode():
            means = [first.states(x.to(device)).mean(1).cpu() for _, x in train.batches()]
        return torch.cat(means).numpy()

    def sample(self, train, indices, generator, share=WHOLE):
        """Draw a partner for each video (B,) -> clean and noisy (2, B, T, D), label, targets."""
        partner, label = draw_pairs(self.graph, indices, generator)
        videos = torch.stack([indices, partner])
        mine = videos[:, share]
        clean = train.rows(mine.flatten()).unflatten(0, mine.shape)
        noisy = clean.clone()
        corrupt_(noisy, self.config.corruption, generator, train, videos, share)
        targets = self.targets[mine]
        return {"clean": clean, "noisy": noisy, "label": label[share], "targets": targets}

    def losses(self, batch):
        c, clean = self.config, batch["clean"].flatten(0, 1)
        frame_codes, states = self.frame_codes(batch["noisy"].flatten(0, 1))
        codes1, codes2 = frame_codes.float().mean(1).chunk(2)
        restored = F.mse_loss(self.restore(frame_codes).float(), clean)
        anchored = 2 * cluster(states, batch["targets"].flatten(0, 1))  # a sum of two means
        return {
            "reconstruction": c.reconstruction_weight * restored,
            "similarity": c.similarity_weight * similarity(codes1, codes2, batch["label"]),
            "cluster": c.cluster_weight * anchored,
        }

    def states(self, frames):
        """Hidden states of frames (B, T, D) -> (B, T, H)."""
        x = self.bert.embedding(frames)
        for layer in self.bert.transformer_blocks:
            x = layer(x)
        return x

    def frame_codes(self, frames):
        """Hash frames (B, T, D) -> codes (B, T, K) in {-1, +1} and hidden states (B, T, H)."""
        states = self.states(frames)
        return binarise(self.binary(states)), states

    def encode(self, frames):
        return sign(self.frame_codes(frames)[0].mean(1))

    @classmethod
    def from_released(cls, state, num_frames=25):
        """Build the model from a released state dict, sizes read off it; T is not in the file."""
        bits, hidden_dim = state["binary.weight"].shape
        unused = ("bert.embedding.token.weight", "bert.embedding.segment.weight")
        feature_dim = state["restore.weight"].shape[0]
        model = cls(BTHConfig(bits, num_frames, feature_dim, hidden_dim))
        model.load_state_dict({key: value for key, value in state.items() if key not in unused})
        return model
