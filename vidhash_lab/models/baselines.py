"""Classical baselines on pooled features: random hyperplanes, PCA sign, iterative quantisation.

They have no training loop: `prepare` is all their training, streaming over the set.

LSH: Charikar, Similarity Estimation Techniques from Rounding Algorithms, STOC 2002.
PCAH: Wang et al., AnnoSearch, CVPR 2006. ITQ: Gong and Lazebnik, Iterative Quantization, CVPR 2011.

N videos, T frames per video, D feature width, F pooled width, K bits.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from vidhash_lab.models.hasher import VideoHasher, sign

ROUNDS = 50  # ITQ's alternations; the paper's number
EXACT = 8192  # pooled dimensions up to which PCA is exact: F x F doubles are half a gigabyte then
POOLED = {"mean": 1, "thirds": 3, "time": None}  # rows of a pooled video; None for all T frames


@dataclass(frozen=True)
class BaselineConfig:
    """Sizes, and what is done with the frames of a video before they are projected.

    `pooling` is "mean", over time (F = D); "thirds", the means of a video's three thirds in a row
    (F = 3 D); "time", all frames in a row (F = T D). The last two know when something was shown.
    """

    bits: int = 64
    num_frames: int = 25
    feature_dim: int = 4096
    pooling: str = "mean"

    def __post_init__(self):
        if self.pooling not in POOLED:
            raise ValueError(f"pooling is one of {', '.join(POOLED)}, not {self.pooling!r}")
        if self.num_frames < self.pooled_frames:
            raise ValueError(f"{self.num_frames} frames have no thirds; pool them by the mean")

    @property
    def pooled_dim(self):
        """F, width of a pooled video."""
        return self.feature_dim * self.pooled_frames

    @property
    def pooled_frames(self):
        """How many rows of D features a pooled video has."""
        return POOLED[self.pooling] or self.num_frames


class LSH(VideoHasher):
    """Random hyperplanes through the mean of the training videos.

    >>> from vidhash_lab import encode, open_dataset
    >>> data = open_dataset("digit-stories-mini")
    >>> encode(LSH.for_dataset(data, bits=16).prepare(data.train), data.query).shape
    (60, 2)
    """

    Config = BaselineConfig

    def __init__(self, config):
        super().__init__(config)
        self.register_buffer("mean", torch.zeros(config.pooled_dim))
        self.register_buffer("projection", torch.zeros(config.pooled_dim, config.bits))

    def prepare(self, train, seed=0):
        """Take the mean of the training videos and draw the hyperplanes."""
        total = sum(self.pool(frames).double().sum(0) for _, frames in train.batches())
        self.mean = (total / len(train)).float()
        generator = torch.Generator().manual_seed(seed)
        self.projection = torch.randn(self.projection.shape, generator=generator)
        return self

    def pool(self, frames):
        """Pool videos (B, T, D) -> (B, F)."""
        if self.config.pooling == "time":
            return frames.flatten(1)
        parts = frames.tensor_split(POOLED[self.config.pooling], dim=1)
        return torch.cat([part.mean(1) for part in parts], dim=1)

    def project(self, frames):
        """Real values whose signs are the bits: (B, T, D) -> (B, K)."""
        return (self.pool(frames) - self.mean) @ self.projection

    def encode(self, frames):
        return sign(self.project(frames))


class PCAH(LSH):
    """Signs of the first K principal components.

    >>> from vidhash_lab import encode, open_dataset
    >>> data = open_dataset("digit-stories-mini")
    >>> encode(PCAH.for_dataset(data, bits=16).prepare(data.train), data.query).shape
    (60, 2)
    """

    def prepare(self, train, seed=0):
        """Find the components in one pass (`seed` draws nothing here).

        They are exact up to `EXACT` pooled dimensions; beyond, incremental PCA comes near them.
        """
        self._check_enough(len(train))
        batches = (self.pool(frames) for _, frames in train.batches(max(512, self.config.bits)))
        find = exact_pca if self.config.pooled_dim <= EXACT else incremental_pca
        self.mean, self.projection = find(batches, self.config.bits)
        return self

    def _check_enough(self, videos):
        """Raise ValueError where there are fewer principal components than bits."""
        bits, dim, name = self.config.bits, self.config.pooled_dim, type(self).__name__
        if bits <= min(dim, videos):
            return
        hint = f"fewer bits, at most {min(dim, videos)}"
        over_time = self.config.num_frames * self.config.feature_dim
        if self.config.pooling == "mean" and bits <= min(over_time, videos):
            hint += f', or pooling="time", which has {over_time} dimensions'
        raise ValueError(
            f"{name} takes one principal component a bit: {bits} bits need as many videos (there "
            f"are {videos}) and pooled dimensions ({dim}). Take {hint}."
        )


def exact_pca(batches: Iterable[Tensor], count: int) -> tuple[Tensor, Tensor]:
    """Find the first principal components of rows (N, F) -> mean (F,), components (F, count).

    Rows come in batches of float32 and are read once; F x F doubles are held. As in scikit-learn,
    the largest entry of a component is positive.
    """
    from scipy.linalg import eigh
    from scipy.sparse.linalg import eigsh

    total = products = shift = None
    rows = 0
    for batch in batches:
        if shift is None:  # near the mean, so that little is lost when it is taken off
            shift = batch.mean(0)
            products = torch.zeros(batch.shape[1], batch.shape[1], dtype=torch.float64)
            total = torch.zeros(batch.shape[1], dtype=torch.float64)
        batch = batch - shift
        products += batch.T @ batch
        total += batch.double().sum(0)
        rows += len(batch)
    mean, width = total / rows, len(total)
    covariance = (products / rows - torch.outer(mean, mean)).numpy()
    if 8 * count < width:  # Lanczos, to machine precision: five times as fast at 4,096
        _, found = eigsh(covariance, count, which="LA", v0=np.ones(width))
    else:
        _, found = eigh(covariance, subset_by_index=[width - count, width - 1])
    components = torch.from_numpy(found[:, ::-1].copy())  # the largest variance first
    largest = components.gather(0, components.abs().argmax(0, keepdim=True))
    return (shift + mean).float(), (components * largest.sign()).float()


def incremental_pca(batches: Iterable[Tensor], count: int) -> tuple[Tensor, Tensor]:
    """Find about the same as `exact_pca`, in memory for a batch and the components only."""
    from sklearn.decomposition import IncrementalPCA  # scikit-learn takes a second to import

    pca = IncrementalPCA(count)
    for batch in batches:
        pca.partial_fit(batch.numpy())
    mean = torch.from_numpy(np.asarray(pca.mean_, np.float32))
    return mean, torch.from_numpy(np.ascontiguousarray(pca.components_.T, np.float32))


class ITQ(PCAH):
    """PCA, rotated so that the signs lose as little as possible.

    >>> from vidhash_lab import encode, open_dataset
    >>> data = open_dataset("digit-stories-mini")
    >>> encode(ITQ.for_dataset(data, bits=16).prepare(data.train), data.query).shape
    (60, 2)
    """

    def prepare(self, train, seed=0):
        """Find the components, then alternate codes and rotation from a random rotation."""
        super().prepare(train)
        projected = torch.cat([self.project(frames) for _, frames in train.batches()])  # (N, K)
        generator = torch.Generator().manual_seed(seed)
        rotation, _ = torch.linalg.qr(torch.randn(2 * [self.config.bits], generator=generator))
        for _ in range(ROUNDS):
            left, _, right = torch.linalg.svd(projected.T @ sign(projected @ rotation))
            rotation = left @ right
        self.projection = self.projection @ rotation
        return self
