"""CHAIN: contrast of two augmented clips, with the order of frames and the change of scenes.

Two clips of a video, each a frame from every segment of it, are hashed and their codes drawn
together (global). A second task asks for the order of a clip's shuffled frames (local, time), a
third draws frames to the prototype of their scene and away from the others (local, space).

Paper: Wei et al., CHAIN: Exploring Global-Local Spatio-Temporal Information for Improved
Self-Supervised Video Hashing, ACM MM 2023. No code was released; what its poster leaves open is
decided here: positions are the frames' true places in the video; codes are means of binary frame
codes, without a projection head; one of the two clips is shuffled; scenes are found on hidden
states, in which prototypes are means; a clip of one scene has no scene loss. Spatial augmentation
happens before the backbone: a data set carries `views` of its training videos, of which each step
draws two. Where it has none, clips differ in time alone, and a warning says so once.

B videos in a batch, T frames per video, M frames per clip, D feature width, H hidden width, K bits.
"""

import warnings
from dataclasses import dataclass

import torch
from torch import nn

from vidhash_lab.affinity import NotConverged, affinity_propagation
from vidhash_lab.losses import frame_order, nt_xent, scene_contrast
from vidhash_lab.models.blocks import Block, position_table, xavier_linears
from vidhash_lab.models.hasher import WHOLE, VideoHasher, binarise, sign


@dataclass(frozen=True)
class CHAINConfig:
    """Sizes, temperatures and the weight of each task; a weight of 0 switches its task off."""

    bits: int = 64
    num_frames: int = 25
    feature_dim: int = 4096
    hidden_dim: int = 256
    depth: int = 2
    heads: int = 4
    clip_frames: int = 12  # M
    temperature: float = 0.5
    scene_temperature: float = 0.2
    contrastive_weight: float = 1.0
    order_weight: float = 0.5
    scene_weight: float = 0.2

    def __post_init__(self):
        if not 1 <= self.clip_frames <= self.num_frames:
            wanted = f"a clip has at least 1 frame and at most the video's {self.num_frames}"
            raise ValueError(f"clip_frames is {self.clip_frames}; {wanted}.")


class CHAIN(VideoHasher):
    """The whole method: segment sampling, encoder, hash layer, three tasks.

    >>> from vidhash_lab import open_dataset
    >>> train = open_dataset("digit-stories-mini").train
    >>> model = CHAIN.for_dataset(train, bits=16, hidden_dim=16, depth=1, heads=2)
    >>> batch = model.prepare(train).sample(train, torch.arange(8), torch.Generator())
    >>> list(model.losses(batch))
    ['contrastive', 'order', 'scene']
    """

    Config = CHAINConfig

    @classmethod
    def for_dataset(cls, dataset, bits: int = 64, seed: int = 0, **changes) -> "CHAIN":
        """Build the model as every method is; a clip has no more frames than a video."""
        most = min(cls.Config.clip_frames, dataset.num_frames)
        return super().for_dataset(dataset, bits, seed, **{"clip_frames": most} | changes)

    def __init__(self, config):
        super().__init__(config)
        c = config
        self.embed = nn.Linear(c.feature_dim, c.hidden_dim)
        table = position_table(c.num_frames, c.hidden_dim)
        self.register_buffer("positions", table, persistent=False)
        self.blocks = nn.Sequential(*(Block(c.hidden_dim, c.heads) for _ in range(c.depth)))
        self.norm = nn.LayerNorm(c.hidden_dim, eps=1e-6)
        self.binary = nn.Linear(c.hidden_dim, c.bits)
        self.order = nn.Linear(c.hidden_dim, c.clip_frames)
        self.warned = False
        xavier_linears(self)

    def sample(self, train, indices, generator, share=WHOLE):
        """Draw two clips of videos (B,) -> frames (2, B, M, D), places (2, B, M), order (B, M).

        `order` shuffles the first clip: its entry i is the place in it of the i-th shuffled frame.
        """
        c, count = self.config, len(indices)
        places = self.draw_places(count, generator)[:, share]
        videos = torch.stack(self.two_renderings(train, indices, generator, share))
        order = torch.rand(count, c.clip_frames, generator=generator).argsort(1)[share]
        clips = videos.gather(2, places[..., None].expand(*places.shape, videos.shape[-1]))
        return {"frames": clips, "places": places, "order": order}

    def draw_places(self, count, generator):
        """Draw which frames the two clips of each video show -> places (2, count, M), rising.

        Clips that are to differ otherwise differ here: `super().draw_places(…)[:1].repeat(2, 1, 1)`
        shows the same frames in both.
        """
        c = self.config
        places = segment_sample(2 * count, c.num_frames, c.clip_frames, generator)
        return places.unflatten(0, (2, count))

    def two_renderings(self, train, indices, generator, share):
        """Read videos (B,) in two renderings, each (B, T, D): two views where there are two.

        `[train.rows(indices[share])] * 2` would show both clips the video as it is.
        """
        views = train.num_views
        if views >= 2:
            first, second = torch.rand(len(indices), views, generator=generator).argsort(1).T[:2]
            return [train.view_rows(indices[share], view[share]) for view in (first, second)]
        if not self.warned:
            self.warned = True
            needed = "two are needed for spatial augmentation: clips differ in time alone"
            warnings.warn(f"{train} has {views} views, and {needed}.", stacklevel=2)
        return [train.rows(indices[share])] * 2

    def losses(self, batch):
        """Return the weighted terms of a batch of `sample`; a task of weight 0 is left out."""
        c, frames, terms = self.config, batch["frames"], {}
        if c.contrastive_weight or c.scene_weight:
            states = self.states(frames.flatten(0, 1), batch["places"].flatten(0, 1))
        if c.contrastive_weight:
            clip1, clip2 = binarise(self.binary(states)).float().mean(1).chunk(2)
            terms["contrastive"] = c.contrastive_weight * nt_xent(clip1, clip2, c.temperature)
        if c.order_weight:
            order = batch["order"]
            shuffled = frames[0].gather(1, order[..., None].expand_as(frames[0]))
            terms["order"] = c.order_weight * frame_order(self.order_logits(shuffled), order)
        if c.scene_weight:
            contrast = scene_contrast(states, self.group(states.detach()), c.scene_temperature)
            terms["scene"] = c.scene_weight * contrast
        return terms

    def states(self, frames, places=None):
        """Hidden states of frames (B, M, D) at places (B, M), or at none -> (B, M, H)."""
        x = self.embed(frames)
        if places is not None:
            x = x + self.positions[places]
        return self.norm(self.blocks(x))

    def order_logits(self, frames):
        """Guess which place each of a clip's frames (B, M, D) has among them -> (B, M, M)."""
        return self.order(self.states(frames))

    def scenes(self, frames):
        """Find the scenes of videos (B, T, D) -> their numbers (B, T), 0, 1, … in time."""
        return self.group(self.states(frames, self._all_places(frames)))

    def group(self, states):
        """Number the scenes of clips' states (B, M, H), 0, 1, … -> (B, M) int64.

        A clustering other than affinity propagation goes here, in a subclass.
        """
        return find_scenes(states)

    def encode(self, frames):
        return sign(binarise(self.binary(self.states(frames, self._all_places(frames)))).mean(1))

    def _all_places(self, frames):
        return torch.arange(frames.shape[1], device=frames.device).expand(frames.shape[:2])


def segment_sample(count, num_frames, clip_frames, generator):
    """Cut T frames into M segments, as equal as can be, draw one of each -> rising (count, M)."""
    borders = torch.arange(clip_frames + 1) * num_frames // clip_frames
    length = borders.diff()
    draw = torch.rand(count, clip_frames, generator=generator)
    return borders[:-1] + (draw * length).long()


def find_scenes(states):
    """Cluster each clip's states (B, M, H) -> scene numbers (B, M); not converged: one scene."""
    states = states.detach().float()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotConverged)
        return affinity_propagation(-torch.cdist(states, states).square())[1]
