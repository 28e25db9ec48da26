"""Views of the digit stories: each training video several times, every time augmented anew.

A *view* is what the frozen network says about one augmented rendering of a video; CHAIN draws two
of them a step. Only the training set has views: database and queries are encoded as they are. They
lie beside its file, `views` (N, V, T, D) in float16, built when first asked for.
"""

import warnings
from pathlib import Path

import h5py
import torch
from tqdm.auto import tqdm

from vidhash_lab.data import augmentation
from vidhash_lab.data.files import DataError, check_seal, new_hdf5, written_whole
from vidhash_lab.data.stories.digit_stories import CHUNK, DigitStoriesConfig, seeded_generator
from vidhash_lab.data.stories.network import FEATURE_DIM, digit_features, one_thread

VIEWS_VERSION = 1  # raise it when views come out otherwise: older ones are then built again


def open_or_build_views(config: DigitStoriesConfig, folder: Path, num_views: int) -> Path:
    """Return the file of `num_views` views of the training videos, built if missing or damaged.

    >>> from vidhash_lab.data.stories.digit_stories import open_or_build
    >>> config = DigitStoriesConfig(train=50, database=50, query=50)
    >>> open_or_build_views(config, open_or_build(config, Path("cache")), num_views=1).name
    'train_views_1.h5'
    """
    if num_views < 1:
        raise ValueError(f"num_views={num_views}: as many views of each video, 1 or more")
    path = folder / f"train_views_{num_views}.h5"
    if is_complete(path, config, num_views):
        return path
    if path.exists():
        warnings.warn(f"the views in {path} are damaged or old: building them again", stacklevel=2)
    with written_whole(path, sealed=True) as new:
        build_views(config, path.with_name("train.h5"), new, num_views)
    return path


def is_complete(path: Path, config: DigitStoriesConfig, num_views: int) -> bool:
    """Tell whether the file holds these views as they were built, and of this version.

    >>> is_complete(Path("no_views.h5"), DigitStoriesConfig(), 2)
    False
    """
    try:
        check_seal(path)
        with h5py.File(path) as file:
            views, version = file["views"], file.attrs["views_version"]
            shape = config.train, num_views, config.num_frames, FEATURE_DIM
            return version == VIEWS_VERSION and views.shape == shape
    except (DataError, FileNotFoundError):
        return False


@one_thread()
def build_views(config: DigitStoriesConfig, source: Path, path: Path, num_views: int) -> None:
    """Describe augmented thumbnails of `source` in the file `path`; each view has its own draws.

    >>> from vidhash_lab.data.stories.digit_stories import open_or_build
    >>> config = DigitStoriesConfig(train=50, database=50, query=50)
    >>> folder = open_or_build(config, Path("cache"))
    >>> build_views(config, folder / "train.h5", Path("views.h5"), num_views=1)
    >>> h5py.File("views.h5")["views"].shape
    (50, 1, 25, 128)
    """
    shape = config.train, num_views, config.num_frames, FEATURE_DIM
    generators = [seeded_generator(config, f"train view {view}") for view in range(num_views)]
    with (
        h5py.File(source) as videos,
        new_hdf5(path) as file,
        tqdm(total=config.train, desc=f"building {num_views} views", unit=" videos") as progress,
    ):
        file.attrs["views_version"] = VIEWS_VERSION
        file.attrs.update({key: videos.attrs[key] for key in ("config", "backbone")})
        file.attrs["augmentation"] = (
            f"one draw per view: crop of {augmentation.CROP_AREA} of the area, stretched by "
            f"{augmentation.CROP_RATIO}, brightness times {augmentation.BRIGHTNESS}"
        )
        views = file.create_dataset("views", shape, "float16")
        for start in range(0, config.train, CHUNK):
            rows = slice(start, min(start + CHUNK, config.train))
            clips = torch.from_numpy(videos["thumbnails"][rows])[:, :, None] / 255
            for view, generator in enumerate(generators):
                frames = augmentation.augment_clips(clips, generator)[:, :, 0]
                views[rows, view] = digit_features(frames).half()
            progress.update(len(clips))
