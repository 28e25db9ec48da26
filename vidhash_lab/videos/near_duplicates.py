"""Near-duplicates: how far a copy of a video lies from it in bits, and how far another video.

Copies are made for real: re-encoded, resized, cropped, with a bar, faster, slower, cut, as files;
then they pass through decoder, backbone and model as any file does. N videos, K bits.
"""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from vidhash_lab.data.features import FeatureSet
from vidhash_lab.data.files import DataError
from vidhash_lab.retrieval import hamming
from vidhash_lab.retrieval.codes import encode
from vidhash_lab.videos.backbones import Backbone
from vidhash_lab.videos.extraction import extract
from vidhash_lab.videos.pictures import BrokenVideo
from vidhash_lab.videos.writing import VARIANTS, write_variants


@dataclass(frozen=True, eq=False)
class NearDuplicates:
    """Hamming distances (N,) of each kind of copy to its original, {how: distances}.

    `unrelated` (N (N - 1) / 2,) are those of different originals, `found` the share of copies
    nearest to their own. `features` is the file of all, each original followed by its copies.

    >>> from pathlib import Path
    >>> copies = {"darker": np.array([1, 4])}
    >>> found = NearDuplicates(64, copies, np.array([30]), {"darker": 1.0}, Path("features.h5"))
    >>> found.distances["darker"].mean().item()
    2.5
    """

    bits: int
    distances: dict[str, np.ndarray]
    unrelated: np.ndarray
    found: dict[str, float]
    features: Path

    def hashed_by(self, model: torch.nn.Module) -> "NearDuplicates":
        """Compare the same copies by the codes of another model, without making them anew.

        `model` is fitted, on the same backbone: ValueError where its T and D are others.

        >>> near_duplicates(model, films, backbone, "copies").hashed_by(other)  # doctest: +SKIP
        """
        return _hash_and_compare(model, self.features)

    def __str__(self):
        head = f"{'Hamming distance':26s}{'median':>7s}{'least':>7s}{'most':>7s}{'found':>7s}"
        rows = [self._row(how, values) for how, values in self.distances.items()]
        last = self._row("another video", self.unrelated)
        videos = len(next(iter(self.distances.values())))
        return "\n".join([head, *rows, last, f"of {self.bits} bits, {videos} videos"])

    def _row(self, how, values):
        found = f"{self.found[how]:7.0%}" if how in self.found else ""
        return f"{how:26s}{np.median(values):7.0f}{values.min():7d}{values.max():7d}{found}"


def near_duplicates(
    model: torch.nn.Module,
    videos: Sequence[str | Path],
    backbone: str | Path | Backbone | Callable,
    folder: str | Path,
) -> NearDuplicates:
    """Make copies of some short video files, hash all of them, compare each with its original.

    `model` is fitted; of `videos`, two or more, a few dozen are enough; `backbone` is what the
    model was trained on; `folder`, empty or new, is for the copies and for `features.h5`. Raises
    ValueError for fewer videos or a folder in use, `DataError` for a video that is broken.

    >>> near_duplicates(model, films, backbone, "copies").distances  # doctest: +SKIP
    """
    folder, videos = Path(folder), [Path(video) for video in videos]
    if len(videos) < 2 or (folder.exists() and any(folder.iterdir())):
        raise ValueError(f"needs two videos or more ({len(videos)}) and an empty folder ({folder})")
    for number, video in enumerate(videos):
        films = folder / "films" / f"{number:05d}"
        films.mkdir(parents=True)
        shutil.copy(video, films / f"0{video.suffix}")
        try:
            copies = write_variants(video, films)
        except BrokenVideo as error:
            raise DataError(f"{video}: {error}") from error
        for place, copy in enumerate(copies.values(), 1):
            copy.rename(films / f"{place}.mp4")  # sorted names keep the order of `VARIANTS`
    features = folder / "features.h5"
    report = extract(folder / "films", features, model.config.num_frames, backbone)
    if report.skipped or report.unread:
        raise ValueError(f"not every video can be used: {report}")
    return _hash_and_compare(model, features)


def _hash_and_compare(model, features):
    """Hash the file of originals, each followed by its copies, and compare."""
    codes = encode(model, FeatureSet(features))
    return _compare(codes.reshape(-1, 1 + len(VARIANTS), codes.shape[1]), features)


def _compare(codes, features):
    """Compare codes (N, 1 + copies, K/8), the originals first."""
    originals, distances, found = codes[:, 0], {}, {}
    same = np.eye(len(originals), dtype=bool)
    for copy, how in enumerate(VARIANTS, 1):
        every = hamming.distances(codes[:, copy], originals)  # (N, N)
        own, others = every[same], np.where(same, every.max() + 1, every).min(1)
        distances[how], found[how] = own, float((own < others).mean())
    unrelated = hamming.distances(originals, originals)[np.triu_indices(len(originals), 1)]
    return NearDuplicates(8 * codes.shape[2], distances, unrelated, found, features)
