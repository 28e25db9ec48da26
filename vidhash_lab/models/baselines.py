"""Classical baselines on pooled features: random hyperplanes, PCA sign, iterative quantisation.

They have no training loop: `prepare` is all their training, streaming over the set.

LSH: Charikar, Similarity Estimation Techniques from Rounding Algorithms, STOC 2002.
PCAH: Wang et al., AnnoSearch, CVPR 2006. ITQ: Gong and Lazebnik, Iterative Quantization, CVPR 2011.

N videos, T frames per video, D feature width, F pooled width, K bits.
"""

from dataclasses import dataclass

import numpy as np
import torch

from vidhash_lab.models.hasher import VideoHasher, sign

ROUNDS = 50  # ITQ's alternations; the paper's number


@dataclass(frozen=True)
class BaselineConfig:
    """`pooling` is "mean", over time (F = D), or "time", all frames in a row (F = T D)."""

    bits: int = 64
    num_frames: int = 25
    feature_dim: int = 4096
    pooling: str = "mean"

    def __post_init__(self):
        if self.pooling not in ("mean", "time"):
            raise ValueError(f'pooling is "mean" or "time", not {self.pooling!r}')

    @property
    def pooled_dim(self):
        """F, width of a pooled video."""
        return self.feature_dim * (self.num_frames if self.pooling == "time" else 1)


class LSH(VideoHasher):
    """Random hyperplanes through the mean of the training videos."""

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
        return frames.mean(1) if self.config.pooling == "mean" else frames.flatten(1)

    def project(self, frames):
        """Real values whose signs are the bits: (B, T, D) -> (B, K)."""
        return (self.pool(frames) - self.mean) @ self.projection

    def encode(self, frames):
        return sign(self.project(frames))


class PCAH(LSH):
    """Signs of the first K principal components."""

    def prepare(self, train, seed=0):
        """Find the components in one pass (incremental PCA; `seed` draws nothing here)."""
        bits, dim = self.config.bits, self.config.pooled_dim
        if bits > min(dim, len(train)):
            there = f"as many videos (there are {len(train)}) and pooled dimensions ({dim})"
            need = f"takes one principal component a bit: {bits} bits need {there}"
            raise ValueError(f"{type(self).__name__} {need}.")
        from sklearn.decomposition import IncrementalPCA  # scikit-learn takes a second to import

        pca = IncrementalPCA(bits)
        for _, frames in train.batches(max(512, bits)):
            pca.partial_fit(self.pool(frames).numpy())
        self.mean = torch.from_numpy(np.asarray(pca.mean_, np.float32))
        self.projection = torch.from_numpy(np.ascontiguousarray(pca.components_.T, np.float32))
        return self


class ITQ(PCAH):
    """PCA, rotated so that the signs lose as little as possible."""

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
