"""What a folder of features and labels holds, file by file, and whether it can be worked with.

Each file is examined by itself, so that one bad file hides no other; then the whole is opened.
"""

import warnings
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np

from vidhash_lab.data.cards import card_paths, read_card, render_card
from vidhash_lab.data.catalog import OWN_FILES, open_dataset
from vidhash_lab.data.features import FeatureSet, odd_videos
from vidhash_lab.data.released.mat_files import read_mat_labels
from vidhash_lab.data.released.sets import PUBLISHED_SETS, differences


class FolderReport:
    """Lines about one data set: what is there, what to know (!), what is wrong (WRONG).

    >>> lines = FolderReport("films", print)
    <BLANKLINE>
    films
    >>> lines.note("two rows are all zeros")
      ! two rows are all zeros
    >>> lines.verdict("can be worked with")
      => films: can be worked with.
    True
    """

    def __init__(self, title, say):
        self.title, self._say, self.errors = title, say, 0
        say(f"\n{title}")

    def line(self, text):
        self._say(f"  {text}")

    def note(self, text):
        """Say what one should know, though the data set can be worked with."""
        self.line(f"! {text}")

    def wrong(self, error):
        """Say what must be mended: text or an exception."""
        self.errors += 1
        self._say(f"  WRONG {error}")

    def attempt(self, action, *arguments, **options):
        """Return what an action returns; if it raises, say so and return None."""
        try:
            return action(*arguments, **options)
        except Exception as error:  # a damaged file may raise anything; the next file still counts
            known = isinstance(error, (ValueError, OSError))
            self.wrong(error if known else f"{type(error).__name__}: {error}")

    def verdict(self, good):
        """Say in a line how the data set stands, `good` if nothing is wrong -> whether it is so."""
        bad = f"cannot be worked with as it is; things that are wrong: {self.errors}"
        self.line(f"=> {self.title}: {bad if self.errors else good}.")
        return not self.errors


def report(path: str | Path, say: Callable[[str], None] = print) -> bool:
    """Examine a data set, or a folder of such, reading all of it once -> whether all is well.

    >>> with h5py.File("films.h5", "w") as file:
    ...     file["feats"] = np.ones((4, 25, 128), "float32")
    ...
    >>> report("films.h5", say=lambda line: None)
    True
    """
    path = Path(path)
    try:
        folders = [path] if _kinds(path) else []
        if not folders and path.is_dir():
            folders = [f for f in sorted(path.iterdir()) if f.is_dir() and _kinds(f)]
        cards = [card_paths(path)[1]] if path.is_file() else sorted(path.glob("*.card.json"))
        cards = [card for card in cards if card.is_file()]
    except OSError as error:  # a folder that may not be read
        say(f"{path}: {error}")
        return False
    if not folders and not cards:
        say(_nothing_at(path))
        return False
    well = [_examine(folder, kind, say) for folder in folders for kind in _kinds(folder)]
    return all(well + [_show_card(card, say) for card in cards])


def _show_card(path, say):
    """Print the card of a file of features or of a model -> whether it can be read."""
    lines = FolderReport(path.name, say)
    facts = lines.attempt(read_card, path)
    for line in render_card(facts or {}).splitlines():
        if line:
            lines.line(line)
    return facts is not None


def _kinds(path):
    """Name what lies at a path: names of published sets, "folder" or "file" of the kit's own."""
    if path.is_file():
        return ["file"]
    names = {entry.name for entry in path.iterdir()} if path.is_dir() else set()
    found = [name for name, published in PUBLISHED_SETS.items() if names & set(published.files)]
    return [*found, "folder"] if names & set(OWN_FILES) else found


def _nothing_at(path):
    if not path.exists():
        return f"{path}: no such file or folder."
    found = sorted(entry.name for entry in path.iterdir())
    known = "\n".join(f"  {p.title}: {', '.join(p.files)}" for p in PUBLISHED_SETS.values())
    return (
        f"{path}: no data set that this kit knows; found {found[:20]}. It knows\n{known}\n"
        f"  one's own: {', '.join(OWN_FILES)}, or a single HDF5 file with `feats` (N, T, D)"
    )


def _examine(path, kind, say):
    if kind in PUBLISHED_SETS:
        title = f"{PUBLISHED_SETS[kind].title} in {path}"
        return _examine_published(path, kind, FolderReport(title, say))
    lines = FolderReport(str(path), say)
    for file in [path] if kind == "file" else [path / name for name in OWN_FILES]:
        feature_set = lines.attempt(_examine_feats, file, lines)
        if feature_set is not None and feature_set.labels is not None:
            lines.line(f"{file.name}: {_label_facts(feature_set.labels)}")
    _open_whole(lines, path)
    return lines.verdict("can be worked with")


def _examine_published(folder, name, lines):
    published, dataset, good = PUBLISHED_SETS[name], None, "as published"
    if all([_examine_part(folder, part, lines) for part in published.parts]):
        dataset = _open_whole(lines, name, folder)  # else opening would repeat what was said
    if dataset is not None:
        for part, roles in published.parts.items():
            for line in differences(published, part, getattr(dataset, roles[0])):
                good = "can be worked with, but is not the published set"
                lines.note(line)
    if any(not (folder / file).is_file() for file in published.files):
        lines.line(f"the authors offer it at {published.offered}")
    return lines.verdict(good)


def _examine_part(folder, part, lines):
    read = [lines.attempt(_examine_feats, folder / file, lines) for file in part.feats]
    for file, videos in zip(part.labels, read.copy()):
        if not part.labels_needed and not (folder / file).exists():
            lines.line(f"{file}: not there, and not needed")
            continue
        known = None if videos is None else len(videos)
        labels = lines.attempt(read_mat_labels, folder / file, part.key, known)
        if labels is not None:
            lines.line(f"{file}: `{part.key}`, {_label_facts(labels)}")
        read.append(labels)
    return all(each is not None for each in read)


def _open_whole(lines, name, root=None):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # other counts than the published ones are noted one by one
        dataset = lines.attempt(open_dataset, name, root=root)
    if dataset is not None:
        facts = []
        if dataset.self_query:
            facts.append("query is database (self-query: every video finds itself)")
        if dataset.database is dataset.train:
            facts.append("database is training set")
        lines.line("; ".join(facts) or "training set, database and query are sets of their own")
    return dataset


def _examine_feats(path, lines):
    """Say what a feature file holds, reading all of it -> `FeatureSet`."""
    feature_set = FeatureSet(path)
    rows = feature_set.features
    with h5py.File(path) as file:
        chunks, compression = file["feats"].chunks, file["feats"].compression
    storage = f"chunks {chunks}" if chunks else "contiguous"
    storage += f", {compression}" if compression else ""
    lines.line(
        f"{path.name}: {len(rows)} videos, T x D {rows.shape[1]} x {rows.shape[2]}, {rows.dtype}, "
        f"{storage}, {path.stat().st_size / 1e9:.3g} GB"
    )
    for view in [None, *range(feature_set.num_views)]:
        read, what = (rows, "`feats`") if view is None else (feature_set.views, f"view {view}")
        bad, zeros = odd_videos(read, view, title=f"{path.name}, {what}")
        for indices, kind, say in [
            (bad, "have NaN or infinite values.", lines.wrong),
            (zeros, "are all zero: were their frames read?", lines.note),
        ]:
            if len(indices):
                first = ", ".join(map(str, indices[:5]))
                say(f"{path}: {what}: {len(indices)} videos {kind} First rows: {first}")
    return feature_set


def _label_facts(labels):
    N, C = labels.shape
    empty, without = np.flatnonzero(~labels.any(0)), np.flatnonzero(~labels.any(1))
    return (
        f"labels of {N} videos, {C} columns, {len(empty)} categories empty{_first(empty)}, "
        f"{len(without)} videos without one{_first(without)}"
    )


def _first(indices):
    listed = ", ".join([*map(str, indices[:5]), "…"][: len(indices)])
    return f" ({listed})" if listed else ""
