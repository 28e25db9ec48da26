"""A folder of videos becomes a feature file: decoded, described by a backbone, written in parts.

A stopped run goes on where it was. What is no usable video, be it a file, a folder or a pipe, is
skipped, and the report says why; a file that the system did not give (no permission, no memory), or
that vanished or changed while it was read, is tried again by the next run.

T rows of features a video, each of a frame, or of frames of a clip; S pixels a side, C channels,
D features, V views, N videos.
"""

import errno
import hashlib
import os
import stat
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING

import h5py
import numpy as np
import torch
from tqdm.auto import tqdm

from vidhash_lab.data.augmentation import augment_clips
from vidhash_lab.data.cards import write_card
from vidhash_lab.data.files import DataError
from vidhash_lab.videos.backbones import FRAMES_AT_ONCE, Backbone, open_backbone, travelling
from vidhash_lab.videos.decoding import Sampling, read_clip
from vidhash_lab.videos.labels import read_video_labels
from vidhash_lab.videos.parts import Parts, Row, VideoFile, locked
from vidhash_lab.videos.pictures import BrokenVideo, shrink
from vidhash_lab.videos.shards import ExtractionReport, on_cluster, share
from vidhash_lab.videos.shots import find_shots

if TYPE_CHECKING:
    from distributed import Client

ENDINGS = frozenset(
    ".3gp .avi .flv .gif .m2ts .m4v .mkv .mov .mp4 .mpeg .mpg .mts .mxf .ogv .ts .vob .webm .wmv"
    .split()
)  # fmt: skip
SAVE_SECONDS, SAVE_VIDEOS = 10, 256  # a part is written after either
SAMPLES = ("uniform", "shots")
ACTIVATIONS = 8  # times the frames that a backbone sees at once: of a ResNet-50, about
MOST_UNREAD = 3  # files in a row that the system does not give: then it is not the files


def extract(
    folder: str | Path,
    out: str | Path,
    num_frames: int = 25,
    backbone: str | Path | Backbone | Callable = "torchvision:resnet50",
    labels: str | Path | None = None,
    *,
    sample: str = "uniform",
    thumbnails: int = 64,
    num_views: int = 0,
    seed: int = 0,
    device: str = "auto",
    shard: tuple[int, int] | None = None,
    retry_skipped: bool = False,
    client: "Client | None" = None,
) -> ExtractionReport:
    """Describe every video below `folder` by T rows of D features: writes the HDF5 file `out`.

    It holds `feats` (N, T, D) float16, `thumbnails` uint8, `frame_times` (N, T) and `seconds` (N,),
    `video_ids` (paths within the folder, sorted), `labels`, `views`, and what was skipped and why.
    Run again, it reads only files that are new or changed, and leaves out those that are gone. A
    card beside it, `out.h5.card.md` and `.json`, says on a page what it holds and how it was made.

    Args:
        num_frames: T. The video's time is cut into T equal stretches; a backbone of frames
            describes the middle of each, one of clips W frames of each (or of R together).
        sample: "uniform", or "shots": every shot has its share of the stretches, by its length, and
            none goes beyond its shot; `shots` (N, T) tells which. That decodes each video whole.
        backbone: see `vidhash_lab.videos.backbones`, or a `Backbone`; it runs on `device`.
        labels: "folders", a CSV file with columns `video` and `label`, or None.
        thumbnails: pixels a side of the stored pictures, at most what the backbone sees.
        num_views: V augmented renderings of each video, for CHAIN; `seed` is theirs.
        shard: (i, n), the i-th of n equal parts of the sorted list alone, i from 0 on: each into
            its own file, by processes that need not know of each other. `FeatureSet` takes the
            files of all as one set.
        retry_skipped: also read files again that an earlier run has skipped.
        client: a `distributed.Client`, whose workers see the same files. Shards are their tasks,
            written to `out-0-of-8.h5` and so on, which `FeatureSet(report.paths)` opens as one set,
            equal but for the last bit: a network's sums depend on which videos share a batch.

    Raises `DataError`, ValueError and FileNotFoundError for what concerns the whole run, before it
    begins, `DataError` when no file is a video, and OSError when the system does not give several
    files in a row; run again then, nothing is lost.

    >>> from vidhash_lab.videos.writing import write_video
    >>> write_video("films/dark.mp4", np.zeros((8, 32, 32, 3), np.uint8))
    >>> mean_colours = Backbone(lambda frames: frames.mean((2, 3)), "mean colours")
    >>> extract("films", "films.h5", num_frames=4, backbone=mean_colours).videos
    1
    """
    _check_arguments(num_frames, thumbnails, num_views, sample)
    folder, out = Path(folder), Path(out)
    files = list_videos(folder)
    mine = share(len(files), shard)
    label_rows, category_names = None, []
    if labels is not None:
        label_rows, category_names = read_video_labels(labels, [file.id for file in files])
    opened = open_backbone(backbone, device)
    settings = _settings(opened, num_frames, sample, thumbnails, num_views, seed)
    rest = settings, category_names, folder, retry_skipped
    if client is not None:
        read_bytes = ACTIVATIONS * FRAMES_AT_ONCE * 12 * opened.frame_size**2
        which = travelling(backbone, opened)
        task = partial(_extract_files, backbone=which, device=device, rest=rest)
        report = on_cluster(client, task, out, files, label_rows, shard, read_bytes)
    else:
        rows = None if label_rows is None else label_rows[mine]
        report = _extract_files(out, files[mine], rows, opened, device, rest)
    if not report.videos:
        first = "; ".join(f"{id}: {why}" for id, why in list(report.without.items())[:3])
        raise DataError(f"{folder}: no video of two frames or more. First: {first}")
    return report


def _extract_files(out, files, label_rows, backbone, device, rest):
    """Extract files into `out`, and write its card -> report; without any video, no `out`."""
    settings, category_names, folder, retry_skipped = rest
    backbone = open_backbone(backbone, device)
    asked = [settings[key] for key in ("num_frames", "sample", "thumbnails", "views", "seed")]
    if _settings(backbone, *asked) != settings:
        raise DataError(f"backbone: a worker finds {backbone.name}, not {settings['backbone']}.")
    with locked(out) as unwritable:
        parts = Parts(out, settings, unwritable)
        unread = _read_missing(files, parts, backbone, settings, retry_skipped)
        attributes = _attributes(backbone, settings, category_names)
        skipped = parts.assemble(files, attributes, label_rows)
    videos = len(files) - len(skipped | unread)
    skipped = {id: why for id, why in skipped.items() if id not in unread}
    report = ExtractionReport(out, videos, skipped, unread, [out] if videos else [])
    if videos and not unwritable:
        _write_data_card(report, folder, attributes)
    return report


def _settings(backbone, num_frames, sample, thumbnails, num_views, seed):
    """Name all that rows depend on: a run goes on with a file of the same settings only."""
    if num_frames % backbone.rows:
        rows = f"{backbone.rows} rows that the backbone gives for a clip"
        raise ValueError(f"num_frames={num_frames} must be a multiple of the {rows}")
    shape = backbone.shape
    return dict(backbone.about) | {
        "backbone": backbone.name,
        "frame_size": shape.size,
        "resize": shape.resize or shape.size,
        "squeeze": shape.squeeze,
        "interpolation": shape.interpolation,
        "grey": shape.grey,
        "window": backbone.window,
        "rows": backbone.rows,
        "num_frames": int(num_frames),
        "sample": sample,
        "thumbnails": min(int(thumbnails), backbone.frame_size),
        "views": int(num_views),  # named so in the files that earlier versions have written
        "seed": seed if num_views else None,
    }


def _check_arguments(num_frames, thumbnails, num_views, sample):
    least = {"num_frames": (num_frames, 1), "thumbnails": (thumbnails, 1)}
    for name, (value, first) in (least | {"num_views": (num_views, 0)}).items():
        if not isinstance(value, Integral) or value < first:
            raise ValueError(f"{name}={value!r} must be a whole number from {first} on")
    if sample not in SAMPLES:
        raise ValueError(f"sample={sample!r} must be one of {', '.join(SAMPLES)}")


def list_videos(folder: Path) -> list[VideoFile]:
    """List what ends as video files do below a folder, sorted; what is hidden is left out.

    >>> Path("holiday").mkdir()
    >>> for name in ("one.mp4", "notes.txt"):
    ...     Path("holiday", name).touch()
    ...
    >>> [file.id for file in list_videos(Path("holiday"))]
    ['one.mp4']
    """
    if not folder.is_dir():
        hint = " It is a file: give the folder that it lies in." if folder.is_file() else ""
        raise FileNotFoundError(f"{folder}: no such folder of videos.{hint}")
    files = {}
    for path in _walk(folder):
        if path.suffix.lower() in ENDINGS:
            # Names that are no UTF-8 are written with escapes.
            id = path.relative_to(folder).as_posix().encode("utf-8", "backslashreplace").decode()
            if id in files:
                raise DataError(f"{folder}: two files have the name {id!r}. Rename one of them.")
            files[id] = VideoFile(id, path, *_state(path))
    if not files:
        raise DataError(f"{folder}: no file ends in {', '.join(sorted(ENDINGS))}.")
    return [files[id] for id in sorted(files)]


def _state(path):
    """Return the bytes and the time of a file, which tell whether it changed; zeros of no file."""
    try:
        about = path.stat()
    except FileNotFoundError:
        return 0, 0
    except OSError:
        if path.is_symlink():  # in a circle, or to where nothing may be read
            return 0, 0
        raise
    return (about.st_size, about.st_mtime_ns) if stat.S_ISREG(about.st_mode) else (0, 0)


def _walk(folder):
    """Yield all paths that are not hidden; a folder that cannot be read is an error."""

    def fail(error):
        raise error

    for inside, folders, names in os.walk(folder, onerror=fail):
        folders[:] = [name for name in folders if not name.startswith(".")]
        names = [*folders, *(name for name in names if not name.startswith("."))]
        yield from (Path(inside, name) for name in names)


def _attributes(backbone, settings, category_names):
    """Say in a file of features how they were made."""
    stretch = "shown time, none beyond its shot" if settings["sample"] == "shots" else "shown time"
    what = f"{settings['num_frames']} frames, the middles"
    if backbone.window > 1:
        clips = settings["num_frames"] // backbone.rows
        what = f"{clips} clips of {backbone.window} frames, which lie in the middles"
    frames = f"{what} of equal stretches of the {stretch}; {backbone.shape}"
    attributes = dict(backbone.about) | {"backbone": backbone.name, "frames": frames}
    return attributes | ({"category_names": category_names} if category_names else {})


def _write_data_card(report, folder, attributes):
    with h5py.File(report.path) as file:
        seconds, shape = file["seconds"][:], file["feats"].shape
        labels = file["labels"][:] if "labels" in file else None
    facts = {"videos": shape[0], "rows of a video": shape[1], "features": shape[2]}
    facts |= {"seconds in all": float(seconds.sum()), "median seconds": float(np.median(seconds))}
    facts |= {"folder": str(folder), "skipped files": len(report.skipped)}
    names = attributes.get("category_names", [])
    facts["how it was made"] = attributes | {"category_names": len(names)}
    if labels is not None:
        facts["videos of a category"] = dict(zip(names, labels.sum(0).tolist()))
        facts["videos of a category"] |= {"(none)": int((~labels.any(1)).sum())}
    facts |= {"skipped": report.skipped, "to be read again": report.unread}
    write_card(report.path, f"Features of {folder.name}", facts)


def _read_missing(files, parts, backbone, settings, retry_skipped):
    """Describe the files that have no rows, save these in parts -> {id: why} of those unread."""
    missing = parts.missing(files, retry_skipped)
    unread = _read(missing, len(files) - len(missing), parts, backbone, settings)
    lost = [file.id for file in parts.missing(files) if file.id not in unread]
    if lost:
        raise OSError(
            f"{parts.folder}: rows of {len(lost)} videos, {lost[0]} among them, were written and "
            "then removed by something else. Run again: they are read anew."
        )
    return unread


def _read(missing, done, parts, backbone, settings):
    if missing:
        parts.make_folder()  # an output that cannot be written is found before any work
    rows, saved, unread = [], time.monotonic(), {}
    progress = tqdm(total=done + len(missing), initial=done, desc="videos", unit=" videos")
    clips = _in_threads(lambda file: _read_file(file, backbone, settings), missing)
    try:
        with progress:
            for described in _describe(_given(clips, unread), backbone, settings):
                rows += described
                progress.update(len(described))
                if len(rows) >= SAVE_VIDEOS or time.monotonic() - saved > SAVE_SECONDS:
                    parts.add(rows)
                    rows, saved = [], time.monotonic()
    finally:  # an interrupt loses nothing that is described
        if rows:
            parts.add(rows)
    return unread


def _given(clips, unread):
    """Yield what was read, note in `unread` what was not, and fail after several of these."""
    in_a_row = 0
    for clip in clips:
        if not isinstance(clip, _Unread):
            in_a_row = 0
            yield clip
            continue
        unread[clip.file.id] = clip.reason
        # A file that changed says nothing about the others, unless all of them are gone.
        in_a_row += not (isinstance(clip, _Changed) and any(clip.file.folder.glob("*")))
        if in_a_row == MOST_UNREAD:
            last = "; ".join(f"{id}: {why}" for id, why in list(unread.items())[-MOST_UNREAD:])
            problem = f"{MOST_UNREAD} files in a row could not be read: {last}"
            raise OSError(f"{problem}. Nothing is lost: once they can be, run again.")


def _in_threads(function, items):
    """Yield function(item) in order, computed by as many threads as there are cores, ahead."""
    workers, items = os.cpu_count() or 1, iter(items)
    pool = ThreadPoolExecutor(workers, "decoding")
    try:
        ahead = deque(pool.submit(function, item) for item in islice(items, 4 * workers))
        while ahead:
            yield ahead.popleft().result()
            ahead.extend(pool.submit(function, item) for item in islice(items, 1))
    finally:
        pool.shutdown(cancel_futures=True)


class _Unread(Row):
    """A file that the system did not give, which says nothing about the file."""


class _Changed(_Unread):
    """A file that is gone or another one than it was when the run began."""


def _read_file(file, backbone, settings):
    """Read a file as it was listed -> what `_read_now` gives, `_Unread` or `_Changed`."""
    read = _read_now(file, backbone, settings)
    try:
        if _state(file.path) == (file.size, file.modified):
            return read
    except OSError as error:
        return _Unread(file, reason=error.strerror or str(error))
    why = read.reason if isinstance(read, _Unread) else "changed while it was read"
    return _Changed(file, reason=why)


def _read_now(file, backbone, settings):
    """Read a file -> (file, clip, arrays of its rows), a row that says why not, or `_Unread`."""
    try:
        cuts = find_shots(file.path).cuts if settings["sample"] == "shots" else ()
        frames = settings["num_frames"] // backbone.rows * backbone.window
        clip = read_clip(file.path, Sampling(frames, backbone.window, cuts), backbone.shape)
        each = backbone.window // backbone.rows  # frames of a row, the middle one is shown
        thumbnails = shrink(clip.frames[each // 2 :: each], settings["thumbnails"])
        times = clip.times.reshape(-1, each)
        shots = np.searchsorted(cuts, times[:, 0], "right").astype(np.int32)
        return (
            file,
            clip,
            {
                "thumbnails": thumbnails,
                "frame_times": times.mean(1),
                "seconds": np.float32(clip.seconds),
            }
            | ({"shots": shots} if settings["sample"] == "shots" else {}),
        )
    except BrokenVideo as error:
        return Row(file, reason=str(error))
    except IsADirectoryError:
        return Row(file, reason="a folder, not a file")
    except (OSError, MemoryError) as error:
        is_lost = getattr(error, "errno", None) in (errno.ENOENT, errno.ELOOP)
        if is_lost and file.path.is_symlink():
            return Row(file, reason="a link that leads nowhere")
        why = getattr(error, "strerror", None) or f"{type(error).__name__} {error}"
        return _Unread(file, reason=why)
    except Exception as error:  # whatever one file raises, the others go on
        return Row(file, reason=f"{type(error).__name__}: {error}")


def _describe(clips, backbone, settings):
    waiting = []
    for clip in clips:
        if isinstance(clip, Row):
            yield [clip]
            continue
        waiting.append(clip)
        if len(waiting) * len(clip[1].frames) >= FRAMES_AT_ONCE:  # all have as many
            yield _rows(waiting, backbone, settings)
            waiting = []
    if waiting:
        yield _rows(waiting, backbone, settings)


def _rows(clips, backbone, settings):
    features = backbone(np.concatenate([clip.frames for _, clip, _ in clips]))
    features = features.reshape(len(clips), settings["num_frames"], -1)
    rows = []
    for (file, clip, about), feats in zip(clips, features):
        with np.errstate(over="ignore"):  # what is too large is refused below
            arrays = {"feats": feats.astype(np.float16)} | about
        if settings["views"]:
            arrays["views"] = _views(file, clip.frames, backbone, settings)
        finite = all(np.isfinite(arrays[key]).all() for key in ("feats", "views") if key in arrays)
        why = "" if finite else "its features are not finite, or too large for float16"
        rows.append(Row(file, arrays if finite else None, why))
    return rows


def _views(file, frames, backbone, settings):
    """Augment frames V times and describe it -> (V, T, D); the draws depend on its name alone."""
    clip = torch.from_numpy(frames).permute(0, 3, 1, 2)[None] / 255  # (1, T, C, S, S)
    views = []
    for view in range(settings["views"]):
        digest = hashlib.sha256(f"{settings['seed']} {file.id} {view}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:4], "little"))
        augmented = augment_clips(clip, generator)[0].mul(255).round().byte()
        views.append(backbone(augmented.permute(0, 2, 3, 1).contiguous().numpy()))
    return np.stack(views).astype(np.float16)
