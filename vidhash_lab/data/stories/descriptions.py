"""The same videos, described by another network: what is a finding's share of the features?

The network of the built-in data set was taught with the labels of digits. A data set with other
features of the same thumbnails tells what these labels are worth.

N frames, B videos, T frames a video, D features a frame.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from vidhash_lab.data.features import FeatureSet, VideoDataset
from vidhash_lab.data.files import DataError, new_hdf5
from vidhash_lab.data.stories.network import DigitNetwork, one_thread

BATCH, PART = 50, 125  # videos read at a time; frames described at a time, which fit the cache


@one_thread()
@torch.no_grad()
def untrained_network(feature_set: FeatureSet, seed: int = 0, videos: int = 40) -> DigitNetwork:
    """Make the network of the built-in data set as it is before its training: it knows no digit.

    Its normalisations have the statistics of the first `videos` thumbnails, as in its first step;
    without them, features would hardly depend on a frame.

    >>> from vidhash_lab import open_dataset
    >>> network = untrained_network(open_dataset("digit-stories-mini").train, videos=4)
    >>> network.features(torch.zeros(2, 32, 32)).shape
    torch.Size([2, 128])
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = DigitNetwork(partial(nn.BatchNorm2d, momentum=1.0))
    thumbnails = feature_set.thumbnails[np.arange(min(videos, len(feature_set)))]
    network.train().features(torch.from_numpy(thumbnails).flatten(0, 1) / 255)
    return network.eval()


@one_thread()
@torch.no_grad()
def describe_again(
    dataset: VideoDataset, describe: Callable[[Tensor], Tensor], folder: str | Path
) -> Path:
    """Write the data set with other features of its thumbnails -> the folder, to be opened by path.

    `describe` maps frames (N, h, w) in [0, 1] to features (N, D); they are written with a standard
    deviation of 1 over the training videos, as those of the built-in data set are. Labels go along,
    thumbnails do not. DataError where a set has no thumbnails.

    >>> from vidhash_lab import open_dataset
    >>> Path("again").mkdir()
    >>> data = open_dataset("digit-stories-mini")
    >>> folder = describe_again(data, lambda frames: frames.flatten(1)[:, ::64], "again")
    >>> open_dataset(folder).feature_dim
    16
    """
    folder, scale = Path(folder), None
    for name in ("train", "database", "query"):
        part = getattr(dataset, name)
        if part.thumbnails is None:
            raise DataError(f"{part.paths[0]}: has no `thumbnails` that could be described again.")
        videos = torch.arange(len(part)).split(BATCH)
        described = torch.cat(
            [_features(part.thumbnails[rows.numpy()], describe) for rows in videos]
        )
        scale = scale or described.std()
        with new_hdf5(folder / f"{name}.h5") as file:
            file["feats"] = (described / scale).half().numpy()
            for key in ("labels", "fine_labels"):
                if (labels := getattr(part, key)) is not None:
                    file[key] = labels
    return folder


def _features(thumbnails, describe):
    """Describe videos (B, T, h, w) of 8 bits -> (B, T, D)."""
    frames = torch.from_numpy(thumbnails) / 255
    parts = [describe(part) for part in frames.flatten(0, 1).split(PART)]
    return torch.cat(parts).unflatten(0, frames.shape[:2])
