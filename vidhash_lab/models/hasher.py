"""What every method offers: the contract that `fit`, `score`, `save` and `load` rely on.

A method is one subclass of `VideoHasher` in one file, ours or yours; `chain.py` is the example.
Signs, and how a gradient passes through one, stand here too, since every method ends in them.

B videos in a batch, T frames per video, D feature width, K bits.
"""

from typing import Self

import torch
from torch import Tensor, nn

WHOLE = slice(None)  # the share of the only process


class VideoHasher(nn.Module):
    """A method: what it draws from the data, what it minimises, how it hashes.

    `prepare` and `on_epoch` only where it needs them. Without weights, `prepare` learns all.
    """

    Config = None  # a frozen dataclass with bits, num_frames, feature_dim …; kept as JSON
    saved_seconds = 0.0  # that `prepare` spared by reading what an earlier run had kept

    def __init__(self, config):
        super().__init__()
        if config.bits < 8 or config.bits % 8:
            raise ValueError(f"bits is {config.bits}; expected a multiple of 8, which fills bytes.")
        self.config = config

    def prepare(self, train, seed: int = 0) -> Self:
        """Learn what the method must know of the training set before the first epoch."""
        return self

    def on_epoch(self, epoch: int) -> None:
        """Set what depends on the epoch, before it begins; the first is 0.

        A training that goes on calls it with the same weights as one that was never interrupted:
        what follows from them need not be saved. Where it takes videos, `prepare` keeps `train`.
        """

    def sample(
        self, train, indices: Tensor, generator: torch.Generator, share: slice = WHOLE
    ) -> dict[str, Tensor]:
        """Read videos (B,) and augment them, drawing from `generator` alone -> batch for `losses`.

        A background thread calls it, up to two batches ahead of the training. A method that trains
        on several processes takes `share`: it draws for all videos and reads those of its share.
        """
        raise NotImplementedError(f"{type(self).__name__} does not say how it samples a batch.")

    def losses(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Compute {term: weighted scalar}; the sum of the terms is the objective.

        A term is a mean over videos, or meets the videos of all processes by `everyones`.
        """
        raise NotImplementedError(f"{type(self).__name__} has no losses.")

    def encode(self, frames: Tensor) -> Tensor:
        """Hash videos (B, T, D) -> (B, K) in {-1, +1}."""
        raise NotImplementedError(f"{type(self).__name__} does not say how it encodes videos.")

    # ---- the same for all methods ----------------------------------------------------------------

    @classmethod
    def for_dataset(cls, dataset, bits: int = 64, seed: int = 0, **changes) -> Self:
        """Build the model for a data set's T and D, weights by `seed`, config by `changes`."""
        sizes = {"num_frames": dataset.num_frames, "feature_dim": dataset.feature_dim}
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return cls(cls.Config(bits=bits, **sizes, **changes))

    @property
    def device(self) -> torch.device:
        """Where weights and buffers are; the CPU for a model that has none."""
        tensors = (*self.parameters(), *self.buffers())
        return tensors[0].device if tensors else torch.device("cpu")

    def check_fits(self, feature_set) -> None:
        """Raise ValueError unless a feature set has the T and D that the model was built for."""
        built_for = self.config.num_frames, self.config.feature_dim
        given = feature_set.num_frames, feature_set.feature_dim
        if built_for != given:
            raise ValueError(
                f"{type(self).__name__} was built for videos of (T, D) = {built_for}, "
                f"{feature_set} has {given}. `{type(self).__name__}.for_dataset` builds one to fit."
            )

    @staticmethod
    def warm_up() -> None:
        """Call MKL's vector functions once, in one thread; `fit` and `encode` do so first.

        Two threads that make a function's first call at once may get a kernel of lower accuracy
        (5e-5): the same seed gave other codes in one process of twelve.
        """
        one = torch.ones(1)
        for name in ("tanh", "exp", "log", "sqrt", "sin", "cos", "erf"):
            getattr(torch, name)(one)


def sign(x: Tensor) -> Tensor:
    """Binarise video codes to {-1, +1}; sign(0) is +1, where the released code leaves 0."""
    return torch.where(x >= 0, 1.0, -1.0)


def binarise(x: Tensor) -> Tensor:
    """Binarise frame codes: +1 where x > 0, else -1, as released; its gradient is a hard tanh's."""
    return _Binarise.apply(x)


class _Binarise(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return torch.where(x > 0, 1.0, -1.0).to(x.dtype)

    @staticmethod
    def backward(ctx, gradient):
        (x,) = ctx.saved_tensors
        return gradient * (x.abs() < 1)
