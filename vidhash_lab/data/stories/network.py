"""The tiny network that describes the frames of the built-in data set.

It plays the part of an ImageNet network: trained once (`tools/train_digit_network.py`), on other
pictures, to tell ten digits apart under clutter. Its last hidden layer describes a frame by 128
numbers, never negative and mostly zero. B videos, T frames a video, N frames in a row, D = 128
features.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

FRAME_SIZE = 32  # pixels a side
FEATURE_DIM = 128
WEIGHTS = Path(__file__).with_name("digit_network.safetensors")
BACKBONE = "digits, 128 ReLU activations, standard deviation 1"  # what feature files call it


class DigitNetwork(nn.Module):
    """Three convolutions, a hidden layer (the features) and ten logits; `norm` is for training.

    >>> DigitNetwork()(torch.zeros(2, 32, 32)).shape
    torch.Size([2, 10])
    """

    def __init__(self, norm: type[nn.Module] = nn.Identity):
        super().__init__()
        layers = []
        for inputs, outputs in ((1, 24), (24, 48), (48, 64)):
            layers += [nn.Conv2d(inputs, outputs, 3, padding=1), norm(outputs)]
            layers += [nn.MaxPool2d(2), nn.ReLU()]  # in either order the same; this one is cheaper
        self.convolutions = nn.Sequential(*layers).to(memory_format=torch.channels_last)
        self.hidden = nn.Linear(64 * (FRAME_SIZE // 8) ** 2, FEATURE_DIM)
        self.head = nn.Linear(FEATURE_DIM, 10)

    def features(self, frames: Tensor) -> Tensor:
        """Describe (N, 32, 32) frames in [0, 1] by their hidden activations -> (N, D), >= 0.

        >>> DigitNetwork().features(torch.zeros(2, 32, 32)).shape
        torch.Size([2, 128])
        """
        return F.relu(self.hidden(self.convolutions(frames.unsqueeze(1)).flatten(1)))

    def forward(self, frames: Tensor) -> Tensor:
        """Score the ten digits: (N, 32, 32) frames -> (N, 10) logits."""
        return self.head(F.dropout(self.features(frames), 0.5, self.training))


@cache
def shipped_network() -> DigitNetwork:
    """Load the network that comes with the package (float16 on disk, float32 here), once."""
    network = DigitNetwork()
    network.load_state_dict(load_file(WEIGHTS))  # copied into float32 parameters
    return network.eval().requires_grad_(False)


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch use one thread, also as a decorator: the same last bit on any number of cores.

    >>> with one_thread():
    ...     torch.get_num_threads()
    ...
    1
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@one_thread()
@torch.no_grad()
def digit_features(frames: Tensor) -> Tensor:
    """Describe (B, T, 32, 32) frames in [0, 1] -> (B, T, D) float32, standard deviation 1.

    >>> digit_features(torch.zeros(1, 5, 32, 32)).shape
    torch.Size([1, 5, 128])
    """
    # Parts of this size stay in the processor's cache.
    parts = [shipped_network().features(part) for part in frames.flatten(0, 1).split(125)]
    return torch.cat(parts).unflatten(0, frames.shape[:2])
