"""The handwriting of the built-in data set: scikit-learn's digits, in three pools.

E. Alpaydin, C. Kaynak, "Optical Recognition of Handwritten Digits", UCI, 1998.
"""

from functools import cache

import torch
from torch import Tensor


@cache
def handwriting() -> tuple[Tensor, Tensor]:
    """Return scikit-learn's digits: (1797, 8, 8) pictures in [0, 1] and (1797,) digits 0 to 9."""
    from sklearn.datasets import load_digits  # scikit-learn takes a second to import

    digits = load_digits()
    return torch.from_numpy(digits.images).float() / 16, torch.from_numpy(digits.target)


@cache
def handwriting_pools() -> dict[str, Tensor]:
    """Divide the handwriting, always alike, into "network" (600), "train" (600), "test" (597)."""
    order = torch.randperm(1797, generator=torch.Generator().manual_seed(0))
    return dict(zip(("network", "train", "test"), order.split(600)))


def choose_handwriting(digits: Tensor, pool: Tensor, generator: torch.Generator) -> Tensor:
    """Pick a random picture of the pool for each digit, of any shape -> rows of `handwriting()`.

    >>> digits, pool = torch.tensor([3, 7, 1]), handwriting_pools()["test"]
    >>> rows = choose_handwriting(digits, pool, torch.Generator().manual_seed(0))
    >>> handwriting()[1][rows].tolist()
    [3, 7, 1]
    """
    classes = handwriting()[1][pool]
    by_class = pool[classes.argsort(stable=True)]
    counts = classes.bincount(minlength=10)
    first = counts.cumsum(0) - counts
    pick = torch.randint(2**40, digits.shape, generator=generator) % counts[digits]
    return by_class[first[digits] + pick]
