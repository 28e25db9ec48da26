"""Data sets by name: where their files lie, and what their query and database sets are.

`CATALOG` maps a name to the function that opens it.
"""

import os
from dataclasses import replace
from functools import partial
from pathlib import Path

from vidhash_lab.data.features import FeatureSet, VideoDataset
from vidhash_lab.data.files import DataError, PathLike
from vidhash_lab.data.released.sets import PUBLISHED_SETS, open_published
from vidhash_lab.data.stories import digit_stories
from vidhash_lab.data.stories.views import open_or_build_views

OWN_FILES = ("train.h5", "database.h5", "query.h5")


def cache_folder() -> Path:
    """Return the folder for built data sets: VIDHASH_LAB_CACHE, else in the user's cache.

    >>> cache_folder() == Path(os.environ.get("VIDHASH_LAB_CACHE", cache_folder()))
    True
    """
    base = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    return Path(os.environ.get("VIDHASH_LAB_CACHE") or base / "vidhash-lab")


def open_digit_stories(
    root: PathLike | None, in_memory: bool = False, num_views: int = 0, **sizes
) -> VideoDataset:
    """Open the built-in data set, building it first (about 20 s, 200 MB) where it is not cached.

    `root` is the cache folder, None = `cache_folder()`. `num_views` counts augmented views of the
    training videos, 4 for CHAIN, 12 s and 25 MB each; `sizes` are fields of `DigitStoriesConfig`.

    >>> len(open_digit_stories(None, train=600, database=300, query=60).database)
    300
    """
    if num_views < 0 or num_views != int(num_views):
        raise ValueError(f"num_views={num_views}: expected a number of views, or 0 for none")
    config = digit_stories.DigitStoriesConfig(**sizes)
    folder = digit_stories.open_or_build(config, Path(root) if root else cache_folder())
    views = open_or_build_views(config, folder, num_views) if num_views else None
    return _open_folder("digit-stories", folder, in_memory, views)


def open_digit_stories_mini(root: PathLike | None, **options) -> VideoDataset:
    """Open a small edition of the digit stories, for tests and first tries: 2 s to build.

    >>> data = open_digit_stories_mini(None, in_memory=True)
    >>> data.name, len(data.query)
    ('digit-stories-mini', 60)
    """
    sizes = {"train": 600, "database": 300, "query": 60}
    return replace(open_digit_stories(root, **sizes | options), name="digit-stories-mini")


CATALOG = {name: partial(open_published, name) for name in PUBLISHED_SETS}
CATALOG |= {"digit-stories": open_digit_stories, "digit-stories-mini": open_digit_stories_mini}


def open_dataset(name_or_path: PathLike, root: PathLike | None = None, **options) -> VideoDataset:
    """Open a data set by its name in `CATALOG`, or one's own HDF5 file or folder.

    A folder holds `train.h5`, `database.h5` and `query.h5`. A single file is all three at once:
    every video is learned from and queries the others (`self_query`). `root` is the folder of a
    published data set, or the cache of the built-in one. All take `in_memory`; the built-in ones
    `num_views` and sizes, see `open_digit_stories`; the others `views`, the HDF5 file of the
    training videos' views where these lie elsewhere; one's own `classes`, see `FeatureSet`.
    Raises FileNotFoundError or `DataError`, naming file, key or row.

    >>> data = open_dataset("digit-stories-mini")
    >>> len(data.train), data.num_frames, data.feature_dim
    (600, 25, 128)
    """
    if name_or_path in CATALOG:
        return CATALOG[name_or_path](root, **options)
    path = Path(root or "") / name_or_path
    if path.is_dir():
        return _open_folder(path.name, path, **options)
    if not path.is_file():
        names = f"no data set name ({', '.join(sorted(CATALOG))})"
        raise FileNotFoundError(f"{name_or_path!r} is {names} and no file or folder at {path}.")
    everything = FeatureSet(path, **options)
    return VideoDataset(path.stem, everything, everything, everything)


def _open_folder(name, folder, in_memory=False, views=None, classes=None):
    missing = [name for name in OWN_FILES if not (folder / name).is_file()]
    if missing:
        found = sorted(path.name for path in folder.iterdir())
        raise DataError(f"{folder}: {', '.join(missing)} missing; found {found}.")
    options = {"in_memory": in_memory, "classes": classes}
    train = FeatureSet(folder / "train.h5", views=views, **options)
    others = (FeatureSet(folder / part, **options) for part in OWN_FILES[1:])
    return VideoDataset(name, train, *others)
