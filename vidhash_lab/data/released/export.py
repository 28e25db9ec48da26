"""A data set written as the files of a published one, which the authors' code reads."""

from contextlib import ExitStack
from pathlib import Path

import numpy as np
from tqdm.auto import tqdm

from vidhash_lab.data.cards import card_paths, write_card
from vidhash_lab.data.features import VideoDataset
from vidhash_lab.data.files import DataError, PathLike, new_hdf5, written_whole
from vidhash_lab.data.released.sets import PUBLISHED_SETS

MADE = ("backbone", "frames", "weights", "output")  # what a file says about how it was made


def export(dataset: VideoDataset, folder: PathLike, layout: str = "fcvid") -> list[Path]:
    """Write a `VideoDataset` as the files of a published data set -> their paths.

    Features are contiguous float32 `feats` (N, T, D), labels uint8 in `.mat` files of version 5;
    several files of one set share its videos in order. Files get their final names, in place of
    older ones, when all are written; then a card, `LAYOUT.card.md` and `.json`, says what they
    hold. Thumbnails, views and fine labels are left out. Raises ValueError for a layout that is not
    in `PUBLISHED_SETS`, and `DataError` where labels that it needs are missing, where it has one
    file for two sets and the data set has two (FCVID: query and database; UCF101, HMDB51: database
    and training set), and for fewer videos than files.

    >>> from vidhash_lab import open_dataset
    >>> data = open_dataset("digit-stories-mini")
    >>> [path.name for path in export(data, "mini", "activitynet")][:2]
    ['train_feats.h5', 'test_feats.h5']
    """
    from scipy.io import savemat  # here: opening a feature file needs no scipy

    if layout not in PUBLISHED_SETS:
        raise ValueError(f"no layout {layout!r}, only {', '.join(PUBLISHED_SETS)}")
    folder, parts = Path(folder), PUBLISHED_SETS[layout].parts
    sources = {part: _one_source(dataset, layout, part, roles) for part, roles in parts.items()}
    for part, source in sources.items():
        there = [file for file in part.labels if (folder / file).exists()]
        if source.labels is None and there:
            raise DataError(
                f"{folder / there[0]}: already there, but {source.paths[0]} has no labels to put "
                "in its place. Remove it, or export to another folder."
            )
    videos, written = sum(map(len, sources.values())), []
    with ExitStack() as stack, tqdm(total=videos, unit="video", desc="export") as bar:
        for part, source in sources.items():
            shares = np.array_split(np.arange(len(source)), len(part.feats))
            for file, share in zip(part.feats, shares):
                _write_feats(stack.enter_context(written_whole(folder / file)), source, share, bar)
                written.append(folder / file)
            if source.labels is None:
                continue
            for file, share in zip(part.labels, shares):
                labels = {part.key: source.labels[share].astype(np.uint8)}
                temporary = stack.enter_context(written_whole(folder / file))
                savemat(temporary, labels, appendmat=False, do_compression=True)
                written.append(folder / file)
    _write_card(dataset, folder, layout, sources)
    return [*written, *card_paths(folder / layout)]


def _write_card(dataset, folder, layout, sources):
    facts = {"data set": dataset.name, "fingerprint": dataset.fingerprint()}
    facts |= {"layout": PUBLISHED_SETS[layout].title}
    for part, source in sources.items():
        made = {name: str(value) for name, value in source.attributes.items() if name in MADE}
        labels = {} if source.labels is None else {"categories": source.labels.shape[1]}
        shape = {"videos": len(source), "frames": source.num_frames, "width": source.feature_dim}
        facts[", ".join(part.feats)] = shape | labels | made
    write_card(folder / layout, f"{dataset.name} as {PUBLISHED_SETS[layout].title}", facts)


def _one_source(dataset, layout, part, roles):
    """Return the feature set of a part, which must be the same in all roles that the part has."""
    first, *others = roles
    source = getattr(dataset, first)
    if any(getattr(dataset, role) is not source for role in others):
        raise DataError(
            f"{dataset.name}: in the layout {layout!r} {' and '.join(roles)} are one file, "
            f"{part.feats[0]}, but here sets of their own, as in 'activitynet' and 'yfcc'."
        )
    if part.labels and part.labels_needed and source.labels is None:
        need = f"the layout {layout!r} needs them for {part.labels[0]}"
        raise DataError(f"{source.paths[0]}: has no labels; {need}.")
    if len(source) < len(part.feats):
        files = f"{len(part.feats)} files that the layout {layout!r} has of them"
        raise DataError(f"{source.paths[0]}: {len(source)} videos are too few for the {files}.")
    return source


def _write_feats(path, source, share, bar):
    with new_hdf5(path) as file:
        shape = len(share), source.num_frames, source.feature_dim
        feats = file.create_dataset("feats", shape, "f4")
        for start in range(0, len(share), 256):
            frames = source.rows(share[start : start + 256]).numpy()
            feats[start : start + len(frames)] = frames
            bar.update(len(frames))
