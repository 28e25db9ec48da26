"""ConMH: contrastive masked autoencoder hashing, in one stage.

Two random views of a video each show a few frames. The hidden frames are reconstructed from the
binary codes of the visible ones, and the codes of the two views are drawn together.

Paper: Wang et al., Contrastive Masked Autoencoders for Self-Supervised Video Hashing, AAAI 2023.
Module names and layer shapes are those of the released checkpoints. Different from the released
code, on purpose: both views run in one pass and only visible frames are embedded (the same
numbers, less work); a video code's sign(0) is +1; the mask token's initial values are of deviation
0.02 and not clipped at one deviation (one vector of 192 numbers, learned from the first step on).

B videos, T frames each, V visible, M = T - V hidden, D feature width, H hidden width, K bits.
"""

from dataclasses import dataclass

import torch
from torch import nn

from vidhash_lab.losses import debiased_contrastive, masked_reconstruction
from vidhash_lab.models.blocks import Block, position_table, xavier_linears
from vidhash_lab.models.hasher import WHOLE, VideoHasher, binarise, sign

SIZES = {
    "mini": {"depth": 1, "heads": 1},
    "small": {"depth": 12, "heads": 6},  # the published one
    "base": {"depth": 12, "heads": 12},
    "large": {"depth": 24, "heads": 16},
}


@dataclass(frozen=True)
class ConMHConfig:
    """Sizes and loss weights; the defaults are those of FCVID."""

    bits: int = 64
    num_frames: int = 25
    feature_dim: int = 4096
    hidden_dim: int = 256
    depth: int = 12
    heads: int = 6
    decoder_dim: int = 192
    decoder_depth: int = 2
    decoder_heads: int = 3
    mask_ratio: float = 0.75  # share of frames that a view hides
    contrastive_weight: float = 1.0  # the paper's a
    temperature: float = 0.5
    tau_plus: float = 0.1  # probability that a negative is of the same class

    def __post_init__(self):
        if not 1 <= self.num_visible < self.num_frames:
            raise ValueError(
                f"mask_ratio {self.mask_ratio} of {self.num_frames} frames leaves "
                f"{self.num_visible} visible; at least 1 must be visible and 1 hidden."
            )

    @classmethod
    def sized(cls, size, **changes):
        """Return a config of a published size: "mini", "small", "base" or "large"."""
        return cls(**SIZES[size] | changes)

    @property
    def num_visible(self):
        """V, the frames that a view shows."""
        return self.num_frames - int(self.mask_ratio * self.num_frames)


class Encoder(nn.Module):
    """Visible frames and their places in time -> their states (B, V, H)."""

    def __init__(self, num_frames, feature_dim, dim, blocks):
        super().__init__()
        self.patch_embed = nn.Linear(feature_dim, dim)
        self.register_buffer("positions", position_table(num_frames, dim), persistent=False)
        self.blocks = nn.Sequential(*blocks)
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.head = nn.Linear(dim, dim)

    def forward(self, frames, places):
        return self.states(self.embed(frames, places))

    def embed(self, frames, places):
        """Embed frames (B, V, D) that stand at `places` (B, V) in time -> (B, V, H)."""
        return self.patch_embed(frames) + self.positions[places]

    def states(self, embedded):
        """Let embedded frames (B, V, H) look at each other -> (B, V, H)."""
        return self.head(self.norm(self.blocks(embedded)))


class Decoder(nn.Module):
    """Tokens of visible, then hidden frames -> features of the hidden ones (B, M, D)."""

    def __init__(self, feature_dim, dim, blocks):
        super().__init__()
        self.blocks = nn.Sequential(*blocks)
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.head = nn.Linear(dim, feature_dim)

    def forward(self, tokens, num_hidden):
        return self.head(self.norm(self.blocks(tokens)[:, -num_hidden:]))


class ConMH(VideoHasher):
    """The whole method: two masked views, encoder, hash layer, decoder, two losses.

    >>> from vidhash_lab import open_dataset
    >>> train = open_dataset("digit-stories-mini").train
    >>> model = ConMH.for_dataset(train, bits=16, hidden_dim=16, depth=1, heads=2, decoder_dim=16)
    >>> batch = model.prepare(train).sample(train, torch.arange(8), torch.Generator())
    >>> list(model.losses(batch))
    ['reconstruction', 'contrastive']
    """

    Config = ConMHConfig

    def __init__(self, config):
        super().__init__(config)
        c = config
        self.encoder = Encoder(c.num_frames, c.feature_dim, c.hidden_dim, self.encoder_blocks())
        self.binary = nn.Linear(c.hidden_dim, c.bits)
        self.ln = nn.LayerNorm(c.bits)
        self.encoder_to_decoder = nn.Linear(c.bits, c.decoder_dim, bias=False)
        table = position_table(c.num_frames, c.decoder_dim)
        self.register_buffer("positions", table, persistent=False)
        self.mask_token = nn.Parameter(torch.empty(1, 1, c.decoder_dim))
        self.decoder = Decoder(c.feature_dim, c.decoder_dim, self.decoder_blocks())
        xavier_linears(self.encoder)
        xavier_linears(self.decoder)
        nn.init.trunc_normal_(self.mask_token, std=0.02)

    def encoder_blocks(self):
        """Make the encoder's blocks, one after the other; S5VH has others."""
        return (Block(self.config.hidden_dim, self.config.heads) for _ in range(self.config.depth))

    def decoder_blocks(self):
        """Make the decoder's blocks."""
        c = self.config
        return (Block(c.decoder_dim, c.decoder_heads) for _ in range(c.decoder_depth))

    def sample(self, train, indices, generator, share=WHOLE):
        """Read videos (B,), draw two masks -> frames (B, T, D), masked (2, B, T), True = hidden."""
        masked = draw_masks(len(indices), self.config, generator)
        return {"frames": train.rows(indices[share]), "masked": masked[:, share]}

    def losses(self, batch):
        frames, masked = batch["frames"], batch["masked"]
        codes, guesses, hidden = self.two_views(frames, masked)
        view1, view2 = codes.float().mean(1).chunk(2)  # (2B, V, K) -> two of (B, K)
        contrast = debiased_contrastive(view1, view2, self.config.temperature, self.config.tau_plus)
        return {
            "reconstruction": masked_reconstruction(guesses, frames, hidden),
            "contrastive": self.config.contrastive_weight * contrast,
        }

    def two_views(self, frames, masked):
        """Encode and decode both views in one pass, view 1's videos first.

        frames (B, T, D), masked (2, B, T) -> codes (2B, V, K), guesses (2B, M, D), places (2B, M).
        """
        visible, hidden = split_places(masked.flatten(0, 1), self.config.num_visible)
        video = torch.arange(len(frames), device=frames.device).repeat(2)[:, None]
        codes = self.frame_codes(frames[video, visible], visible)
        return codes, self.reconstruct(codes, visible, hidden), hidden

    def frame_codes(self, frames, places):
        """Hash frames (B, V, D) that stand at `places` (B, V) in time -> (B, V, K) in {-1, +1}."""
        return self.hashed(self.encoder(frames, places))

    def hashed(self, states):
        """Hash layer: states (B, V, H) -> frame codes (B, V, K) in {-1, +1}."""
        return binarise(self.ln(self.binary(states)))

    def reconstruct(self, codes, visible, hidden):
        """Guess the frames at places `hidden` (B, M) from codes at `visible` -> (B, M, D)."""
        seen = self.encoder_to_decoder(codes) + self.positions[visible]
        unseen = self.mask_token + self.positions[hidden]
        return self.decoder(torch.cat([seen, unseen], dim=1), hidden.shape[1])

    def encode(self, frames):
        """Hash videos (B, T, D) with all frames visible -> (B, K) in {-1, +1}."""
        return sign(self.mean_codes(frames))

    def mean_codes(self, frames):
        """Average the frame codes of videos (B, T, D), all frames visible -> (B, K)."""
        return self.frame_codes(frames, self.all_places(frames)).mean(1)

    def all_places(self, frames):
        """List the places of all frames of videos (B, T, D) -> (B, T)."""
        return torch.arange(frames.shape[1], device=frames.device).expand(frames.shape[:2])

    @classmethod
    def from_released(cls, state, num_frames=25, size=None):
        """Build the model from a released state dict, sizes read off its shapes.

        `num_frames` and `size` (the heads) are not in the file; None takes "small" for depth 12.
        """
        model = cls(ConMHConfig(num_frames=num_frames, **released_sizes(state, size)))
        model.load_state_dict(state)
        return model


def draw_masks(count, config, generator):
    """Draw two views for each of `count` videos -> masked (2, B, T), True = hidden."""
    T, V = config.num_frames, config.num_visible
    order = torch.rand(count, T, generator=generator).argsort(1)
    masked = torch.ones(2, count, T, dtype=torch.bool)
    masked[0].scatter_(1, order[:, :V], False)
    masked[1].scatter_(1, order[:, T - V :], False)
    return masked


def split_places(masked, num_visible):
    """Mask (B, T), True = hidden -> places of visible (B, V) and hidden frames (B, M), in time."""
    places = masked.byte().argsort(dim=1, stable=True)
    return places[:, :num_visible], places[:, num_visible:]


def released_sizes(state, size=None):
    """Read a config's sizes off the shapes of a released state dict; see `ConMH.from_released`."""
    depth = 1 + max(int(key.split(".")[2]) for key in state if key.startswith("encoder.blocks"))
    size = size or {1: "mini", 24: "large"}.get(depth, "small")
    bits, hidden_dim = state["binary.weight"].shape
    return {
        "bits": bits,
        "feature_dim": state["encoder.patch_embed.weight"].shape[1],
        "hidden_dim": hidden_dim,
        "depth": depth,
        "heads": SIZES[size]["heads"],
    }
