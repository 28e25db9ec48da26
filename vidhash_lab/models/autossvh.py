"""AutoSSVH: an adversary chooses the frames that ConMH sees, and clusters of codes are voted for.

A sampler gives every frame an importance and chooses what two views show. Its gradient is
reversed: it looks for the views that make hashing hardest. From a warm-up on, the codes of all
training videos are clustered once an epoch, at several granularities, and each code is drawn to
the centre of its cluster in each of them.

Paper: Lian et al., AutoSSVH: Exploring Automated Frame Sampling for Efficient Self-Supervised
Video Hashing, CVPR 2025. Encoder, hash layer, decoder and the first two losses are ConMH's; the
decoder's positions are learned.

Different from the released code, on purpose:

- The sampler is used. There a random mask is always passed, so that it is never called nor taught:
  that is `sampler="random"`. Chosen frames are decoded at their own places in time (there at the
  first V), and V is ConMH's (there one less where the ratio does not divide T).
- The weights have names of their own, without a temperature that nothing reads.
- A cluster whose codes are all the same is taken for as loose as the loosest, as one of a single
  video is (there it divides by zero).
- The vote of an epoch is not saved: it follows from the weights before the epoch and the seed, so
  that a resumed training holds it again.

The Gaussian noise, of deviation 10 against importances between 0 and 1, is the released one. It
leaves little to the importances: a frame of importance 1 among frames of importance 0 is shown in
55 of 100 draws, where chance is 52 (V 13, T 25). With deviation 1 it is 76, with 0 it is 85.

B videos in a batch, T frames per video, V of them visible, M = T - V hidden, D feature width,
H hidden width, K bits, N training videos, C clusters, S centres that a batch is compared with.
"""

from dataclasses import dataclass, replace

import torch
from torch import nn

from vidhash_lab.losses import component_voting, debiased_contrastive, masked_reconstruction
from vidhash_lab.models.blocks import xavier_linears
from vidhash_lab.models.conmh import ConMH, ConMHConfig, released_sizes, split_places

ROUNDS, ATTEMPTS = 20, 5  # of k-means: the best of five, as released
MEAN_CONCENTRATION = 0.2
SHARPNESS = 0.5  # temperature of the softmax over the frames of a video
RELEASED_NAMES = {  # there: here
    "encoder.sample_net.importance_score.importance_score.": "sampler.mlp.",
    "encoder.sample_net.importance_score.norm.": "sampler.norm.",
    "encoder.sample_net.importance_score.transf.0.": "sampler.score.",
    "pos_embed": "positions",
}


@dataclass(frozen=True)
class AutoSSVHConfig(ConMHConfig):
    """ConMH's sizes and loss weights, and those of sampler and voting; defaults are FCVID's."""

    sampler: str = "learned"  # or "random", as ConMH draws its masks
    noise: float = 10.0  # deviation of the Gaussian noise on importances
    voting_weight: float = 0.01
    num_clusters: tuple[int, ...] = (250, 500, 1000)  # one vote each
    warm_up_epochs: int = 100  # before the first vote

    def __post_init__(self):
        super().__post_init__()
        object.__setattr__(self, "num_clusters", tuple(self.num_clusters))  # JSON has lists
        if self.sampler not in ("learned", "random"):
            raise ValueError(f'sampler is "learned" or "random", not {self.sampler!r}')
        if not self.num_clusters or min(self.num_clusters) < 1:
            raise ValueError(
                f"num_clusters is {self.num_clusters}; expected one number or more, each 1 or "
                "more. voting_weight=0 switches voting off."
            )


class Sampler(nn.Module):
    """Embedded frames (B, T, H) -> their importances (B, T) in (0, 1)."""

    def __init__(self, dim):
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(dim, dim), nn.GELU(), nn.Linear(dim, dim))
        self.norm = nn.LayerNorm(dim)
        self.score = nn.Linear(dim, 1)

    def forward(self, embedded):
        return self.score(embedded + self.norm(self.mlp(embedded))).sigmoid().squeeze(2)


@dataclass(frozen=True)
class Components:
    """The clusters of one granularity, on the CPU, where batches are drawn."""

    assignment: torch.Tensor  # (N,) the cluster of each training video
    centres: torch.Tensor  # (C, K) of length 1
    concentrations: torch.Tensor  # (C,)

    def draw(self, videos, generator):
        """Draw what videos (B,) are compared with -> centres (S, K), concentrations (S,).

        First the videos' own centres, then at most as many that are of none of them.
        """
        own = self.assignment[videos]
        order = torch.randperm(len(self.centres), generator=generator)
        others = order[~torch.isin(order, own)][: len(own)]
        drawn = torch.cat([own, others])
        return self.centres[drawn], self.concentrations[drawn]


class AutoSSVH(ConMH):
    """The whole method: sampler, two views, encoder, hash layer, decoder, three losses.

    >>> from vidhash_lab import open_dataset
    >>> train = open_dataset("digit-stories-mini").train
    >>> sizes = {"hidden_dim": 16, "depth": 1, "heads": 2, "num_clusters": [10]}
    >>> model = AutoSSVH.for_dataset(train, bits=16, **sizes)
    >>> batch = model.prepare(train).sample(train, torch.arange(8), torch.Generator())
    >>> list(model.losses(batch))
    ['reconstruction', 'contrastive', 'voting']
    """

    Config = AutoSSVHConfig

    def __init__(self, config):
        super().__init__(config)
        self.positions = nn.Parameter(torch.zeros(config.num_frames, config.decoder_dim))
        self.sampler = Sampler(config.hidden_dim)  # idle, as released, where views are random
        xavier_linears(self.sampler)
        self.train_set, self.seed = None, 0
        self.components = []  # one a granularity, of the epoch that runs

    def prepare(self, train, seed=0):
        """Keep hold of the training set, whose codes are to be clustered, and of the seed."""
        most = max(self.config.num_clusters)
        if self.config.voting_weight and most > len(train):
            raise ValueError(
                f"num_clusters asks for {most} clusters of {len(train)} training videos; a cluster "
                "needs a video. Choose smaller num_clusters, or voting_weight=0."
            )
        self.train_set, self.seed = train, seed
        return self

    def on_epoch(self, epoch):
        """Vote: cluster the codes of all training videos, from the end of the warm-up on."""
        self.components = []
        if not self.config.voting_weight or epoch < self.config.warm_up_epochs:
            return
        if self.train_set is None:
            raise ValueError("there are no videos to vote: call prepare(train) before on_epoch.")
        with torch.no_grad():
            codes = torch.cat(
                [self.mean_codes(x.to(self.device)).cpu() for _, x in self.train_set.batches()]
            )
        self.components = [
            find_components(codes, count, self.seed + vote)
            for vote, count in enumerate(self.config.num_clusters)
        ]

    def sample(self, train, indices, generator):
        """Read videos (B,) and draw what chooses their frames -> frames (B, T, D) and, learned,
        noise (2, B, T) on the importances, else masks (2, B, T).

        Where there is a vote, also centres (S, K) and concentrations (S,) of each granularity.
        """
        if self.config.sampler == "random":
            batch = super().sample(train, indices, generator)
        else:
            shape = 2, len(indices), self.config.num_frames
            gumbel = -torch.empty(shape).exponential_(generator=generator).log()
            gaussian = self.config.noise * torch.randn(shape, generator=generator)
            batch = {"frames": train.rows(indices), "noise": gumbel + gaussian}
        for vote, components in enumerate(self.components):
            drawn = components.draw(indices, generator)
            batch[f"centres {vote}"], batch[f"concentrations {vote}"] = drawn
        return batch

    def losses(self, batch):
        """Return the weighted terms of a batch of `sample`; voting is 0 during the warm-up."""
        c, frames = self.config, batch["frames"]
        if c.sampler == "random":
            codes, guesses, hidden = self.two_views(frames, batch["masked"])
        else:
            codes, guesses, hidden = self.hardest_views(frames, batch["noise"])
        views = codes.float().mean(1).chunk(2)  # (2B, V, K) -> two of (B, K)
        terms = {
            "reconstruction": masked_reconstruction(guesses, frames, hidden),
            "contrastive": c.contrastive_weight
            * debiased_contrastive(*views, c.temperature, c.tau_plus),
        }
        if c.voting_weight:
            terms["voting"] = c.voting_weight * self.voting(views, batch)
        return terms

    def voting(self, views, batch):
        """Average the component voting of two views (B, K) over views and granularities."""
        if "centres 0" not in batch:
            return views[0].new_zeros(())
        votes = [
            component_voting(view, batch[f"centres {vote}"], batch[f"concentrations {vote}"])
            for vote in range(len(self.config.num_clusters))
            for view in views
        ]
        return torch.stack(votes).mean()

    def hardest_views(self, frames, noise):
        """Encode and decode two views that the sampler chooses, as `two_views` does for given ones.

        frames (B, T, D), noise (2, B, T) -> frame codes (2B, V, K), guesses (2B, M, D) for the
        hidden frames, and the places of those (2B, M).
        """
        embedded = self.encoder.embed(frames, self.all_places(frames))
        masked, shares = choose(self.sampler(embedded), noise, self.config.num_visible)
        visible, hidden = split_places(masked.flatten(0, 1), self.config.num_visible)
        chosen = reversed_choice(masked, shares).flatten(0, 1).gather(1, visible)
        video = torch.arange(len(frames), device=frames.device).repeat(2)[:, None]
        seen = embedded[video, visible] * chosen[..., None]  # (2B, V, H)
        codes = self.hashed(self.encoder.states(seen))
        return codes, self.reconstruct(codes, visible, hidden), hidden

    def importances(self, frames):
        """Tell what the sampler looks for: videos (B, T, D) -> importances (B, T) in (0, 1)."""
        if self.config.sampler == "random":
            raise ValueError('this model has sampler="random": nothing taught it what to look for.')
        return self.sampler(self.encoder.embed(frames, self.all_places(frames)))

    @classmethod
    def from_released(cls, state, size=None, config=None):
        """Build the model from a released state dict, sizes and T read off its shapes.

        For `size` see `ConMH.from_released`. What is not in the file, how training goes on, is that
        of `config`. None is FCVID's with random masks, as the released training was: the file's
        sampler has learned nothing.
        """
        unused = "encoder.sample_net.temperature"
        own = {released_name(key): value for key, value in state.items() if key != unused}
        own["positions"] = own["positions"].squeeze(0)  # (1, T, width) there
        sizes = released_sizes(own, size) | {"num_frames": len(own["positions"])}
        model = cls(replace(config or AutoSSVHConfig(sampler="random"), **sizes))
        model.load_state_dict(own)
        return model


def choose(importances, noise, num_visible):
    """Choose V frames a view by noisy importances -> masked (2, B, T) True = hidden, shares.

    importances (B, T), noise (2, B, T). Shares (2, B, T) are a softmax over the frames, after the
    noisy importances of a view are brought to mean 0 and deviation 1 over its whole batch; the V
    highest are chosen.
    """
    noisy = importances.float() + noise
    deviation, mean = torch.std_mean(noisy, dim=(1, 2), keepdim=True)
    shares = ((noisy - mean) / deviation / SHARPNESS).softmax(2)
    chosen = noisy.topk(num_visible, dim=2).indices
    masked = torch.ones_like(noisy, dtype=torch.bool).scatter(2, chosen, False)
    return masked, shares


def reversed_choice(masked, shares):
    """1 where a frame is chosen, else 0 (…, T); the gradient goes to `shares` with its sign turned.

    What lowers the losses through a frame's weight lowers its share, and raises it where the
    losses rise: the sampler learns against the rest of the model.
    """
    return (~masked).to(shares) + (shares.detach() - shares)


def find_components(codes, num_clusters, seed):
    """Cluster the mean codes (N, K) of all videos, brought to length 1, by k-means."""
    import faiss  # imported where it is used: it takes a while

    points = nn.functional.normalize(codes, dim=1)
    kmeans = faiss.Kmeans(
        points.shape[1], num_clusters, niter=ROUNDS, nredo=ATTEMPTS, seed=seed,
        min_points_per_centroid=1, max_points_per_centroid=len(points),
    )  # fmt: skip
    kmeans.train(points.numpy())
    centres = torch.from_numpy(kmeans.centroids)
    assignment = torch.from_numpy(kmeans.assign(points.numpy())[1]).long()
    distances = (points - centres[assignment]).norm(dim=1)
    concentrations = concentrate(distances, assignment, num_clusters)
    return Components(assignment, nn.functional.normalize(centres, dim=1), concentrations)


def concentrate(distances, assignment, num_clusters):
    """Measure how loose clusters are, by the distances (N,) of videos to their centres -> (C,).

    The mean distance divided by log(members + 10), clipped to the 10th and 90th percentile of all
    clusters, and scaled to the mean 0.2. Clusters of one point are as loose as the loosest.
    """
    members = torch.bincount(assignment, minlength=num_clusters)
    total = torch.bincount(assignment, distances, num_clusters)
    loose = total / members.clamp(min=1) / (members + 10).log()
    of_one_point = (members <= 1) | (loose < 1e-6)
    if of_one_point.all():
        return torch.full_like(loose, MEAN_CONCENTRATION)
    loose[of_one_point] = loose[~of_one_point].max()
    low, high = loose.quantile(loose.new_tensor([0.1, 0.9]))
    loose = loose.clamp(low, high)
    return MEAN_CONCENTRATION * loose / loose.mean()


def released_name(key):
    """Name a released weight as it is called here."""
    for there, here in RELEASED_NAMES.items():
        if key.startswith(there):
            return here + key.removeprefix(there)
    return key
