"""The field's five published data sets, in the files that their authors hand out.

Features are HDF5, labels `.mat` files. Names, keys and counts are those that the released code
reads and its logs print. This kit downloads nothing: fetch the files from where `offered` says.
"""

import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vidhash_lab.data.features import FeatureSet, VideoDataset
from vidhash_lab.data.files import PathLike
from vidhash_lab.data.labels import check_columns
from vidhash_lab.data.released.mat_files import read_mat_labels
from vidhash_lab.data.rows import Paths, Rows


@dataclass(frozen=True)
class Part:
    """Files of one set of videos: features, their count N, label files in the same order.

    >>> Part(("fcv_train_feats.h5",), videos=45_585).videos
    45585
    """

    feats: tuple[str, ...]
    videos: int
    labels: tuple[str, ...] = ()
    key: str = "labels"
    labels_needed: bool = True


@dataclass(frozen=True)
class PublishedSet:
    """A published data set. Where two of its sets are the same part, they open as one object.

    >>> fcvid = PUBLISHED_SETS["fcvid"]
    >>> fcvid.num_frames, fcvid.feature_dim, fcvid.query is fcvid.database
    (25, 4096, True)
    """

    title: str
    train: Part
    database: Part
    query: Part
    num_frames: int  # T
    feature_dim: int  # D
    categories: int  # C
    offered: str  # where the authors' repositories say the files are; not checked for being alive
    trap: str  # what makes its numbers mean something else than one would think

    @property
    def parts(self) -> dict[Part, list[str]]:
        """The parts without repetition, each with the roles it has: {part: ["database", …]}."""
        parts = {}
        for role in ("train", "database", "query"):
            parts.setdefault(getattr(self, role), []).append(role)
        return parts

    @property
    def summary(self) -> dict[str, str]:
        """The set in a table's row: {column: text}; GB are those of all features, float32."""
        sets = (f"{' and '.join(roles)} {part.videos:,}" for part, roles in self.parts.items())
        videos = sum(part.videos for part in self.parts)
        return {
            "sets of videos": "; ".join(sets),
            "T × D": f"{self.num_frames} × {self.feature_dim}",
            "C": str(self.categories),
            "GB": f"{videos * self.num_frames * self.feature_dim * 4 / 1e9:.1f}",
            "trap": self.trap,
        }

    @property
    def files(self) -> list[str]:
        """The names of all files that the set needs."""
        labels = [name for part in self.parts if part.labels_needed for name in part.labels]
        return [name for part in self.parts for name in part.feats] + labels


_FCVID_TEST = Part(("fcv_test_feats.h5",), 45_600, ("fcv_test_labels.mat",))
_UCF_TRAIN = Part(("ucf_train_feats.h5",), 9_537, ("ucf_train_labels.mat",))
_HMDB_TRAIN = Part(("hmdb_train_feats.h5",), 3_570, ("hmdb_train_labels.mat",))

PUBLISHED_SETS = {
    "fcvid": PublishedSet(
        "FCVID",
        Part(("fcv_train_feats.h5",), 45_585, ("fcv_train_labels.mat",), labels_needed=False),
        _FCVID_TEST,
        _FCVID_TEST,  # every test video queries the whole test set, itself included
        num_frames=25, feature_dim=4096, categories=239,
        offered="https://pan.baidu.com/s/1v0qo4PtiZgFB9iLmj3sJIg?pwd=0000",
        trap="every query finds itself; some logs use 4,000 queries only",
    ),
    "activitynet": PublishedSet(
        "ActivityNet",
        Part(("train_feats.h5",), 9_722),
        Part(("test_feats.h5",), 3_758, ("re_label.mat",), "re_label"),
        Part(("query_feats.h5",), 1_000, ("q_label.mat",), "q_label"),
        num_frames=30, feature_dim=2048, categories=200,
        offered="https://pan.baidu.com/s/1cDJ0-6T2-AOeLgp5rBihfA?pwd=0000 or "
        "https://cloud.tsinghua.edu.cn/d/5406c5fede254b2dadf6/",
        trap="labels are called `re_label` and `q_label`; ResNet features",
    ),
    "yfcc": PublishedSet(
        "YFCC",
        Part(tuple(f"yfcc_train_feats_{n}.h5" for n in range(1, 10)), 409_788),
        Part(tuple(f"yfcc_test_feats_{n}.h5" for n in (1, 2)), 101_256,
             tuple(f"yfcc_test_labels_{n}.mat" for n in (1, 2))),
        Part(("query1000_feats.h5",), 1_000, ("query1000_labels.mat",)),
        num_frames=25, feature_dim=4096, categories=80,
        offered="https://pan.baidu.com/s/1jpqcRRFdiemGvlPpukxJ6Q?pwd=0000, labels also "
        "https://cloud.tsinghua.edu.cn/d/056678341d2b46949cfd/",
        trap="labels once had 81 columns, queries 80; queries may be in the database",
    ),
    "ucf101": PublishedSet(
        "UCF101", _UCF_TRAIN, _UCF_TRAIN,
        Part(("ucf_test_feats.h5",), 3_783, ("ucf_test_labels.mat",)),
        25, 4096, 101, "https://pan.baidu.com/s/1c2NMC0Y8R3zn4ionzKUP4g?pwd=0000",
        trap="what is searched was learned from",
    ),
    "hmdb51": PublishedSet(
        "HMDB51", _HMDB_TRAIN, _HMDB_TRAIN,
        Part(("hmdb_test_feats.h5",), 1_530, ("hmdb_test_labels.mat",)),
        25, 4096, 51, "https://pan.baidu.com/s/1su2STM7b2mg-jBfsN5iRIQ?pwd=0000",
        trap="what is searched was learned from; 3,570 videos, so seeds matter",
    ),
}  # fmt: skip


def open_published(
    name: str, root: PathLike | None, in_memory: bool = False, views: Paths | None = None
) -> VideoDataset:
    """Open one of `PUBLISHED_SETS` from the folder `root` with its released files -> VideoDataset.

    `views` are HDF5 files of the training videos' augmented views (CHAIN's). A count that is not
    the published one is a warning, so that a subset opens too; files that contradict each other
    are a `DataError`. FileNotFoundError lists what is missing and who offers it.

    >>> open_published("fcvid", "no such folder")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    FileNotFoundError: no such folder: no such folder; expected FCVID is fcv_train_feats.h5, ...
    """
    published = PUBLISHED_SETS[name]
    folder, opened = _folder_of(published, name, root), {}
    for part, roles in published.parts.items():
        paths = [folder / file for file in part.feats]
        labels = read_part_labels(part, folder, Rows(paths, "feats").counts)
        part_views = views if "train" in roles else None
        opened[part] = FeatureSet(paths, labels=labels, views=part_views, in_memory=in_memory)
    files = {part: folder / (part.labels or part.feats)[0] for part in opened}
    check_columns((files[part], part.key, opened[part].labels) for part in opened)
    differing = [line for part in opened for line in differences(published, part, opened[part])]
    if differing:
        found = f"not the published {published.title}: {'; '.join(differing)}"
        warnings.warn(f"{folder}: {found}. Papers measured on the published set.", stacklevel=3)
    sets = (opened[part] for part in (published.train, published.database, published.query))
    return VideoDataset(name, *sets)


def read_part_labels(part: Part, folder: Path, counts: Iterable[int]) -> np.ndarray | None:
    """Read the labels of a part's files, which hold `counts` videos -> (N, C) bool, or None.

    >>> import scipy.io
    >>> scipy.io.savemat("labels.mat", {"labels": np.eye(3)})
    >>> read_part_labels(Part((), 3, ("labels.mat",)), Path("."), [3]).shape
    (3, 3)
    """
    paths = [folder / file for file in part.labels]
    if not paths or not (part.labels_needed or all(path.is_file() for path in paths)):
        return None
    read = [read_mat_labels(path, part.key, count) for path, count in zip(paths, counts)]
    hint = " One upload of YFCC's had 81: its authors replaced it by one of 80."
    check_columns(((path, part.key, labels) for path, labels in zip(paths, read)), hint)
    return np.concatenate(read)


def differences(published: PublishedSet, part: Part, feature_set: FeatureSet) -> list[str]:
    """List in words where an opened part differs from the published counts.

    >>> from vidhash_lab import open_dataset
    >>> fcvid, mini = PUBLISHED_SETS["fcvid"], open_dataset("digit-stories-mini")
    >>> differences(fcvid, fcvid.train, mini.train)[0]
    'fcv_train_feats.h5: 600 videos, published are 45585'
    """
    pairs = [
        (len(feature_set), "videos", part.videos),
        (feature_set.num_frames, "frames a video (T)", published.num_frames),
        (feature_set.feature_dim, "features a frame (D)", published.feature_dim),
    ]
    if feature_set.labels is not None:
        pairs.append((feature_set.labels.shape[1], "categories (C)", published.categories))
    names = part.feats[0] + (f" … {part.feats[-1]}" if len(part.feats) > 1 else "")
    return [f"{names}: {n} {what}, published are {known}" for n, what, known in pairs if n != known]


def _folder_of(published, name, root):
    folder = Path(root or "")
    missing = [file for file in published.files if not (folder / file).is_file()]
    if root is None:
        problem = f"{name!r} needs root=, the folder where its released files lie:"
    elif not folder.is_dir():
        problem = f"{folder}: no such folder; expected"
    elif missing:
        found = sorted(path.name for path in folder.iterdir())
        listed = found if len(found) <= 20 else [*found[:20], f"… {len(found)} in all"]
        problem = f"{folder}: {', '.join(missing)} missing; found {listed};"
    else:
        return folder
    raise FileNotFoundError(
        f"{problem} {published.title} is {', '.join(published.files)}. Its authors offer it at "
        f"{published.offered}"
    )
