"""Labels of one's own N videos in C categories: the folders they lie in, or lines of a CSV file."""

import csv
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from vidhash_lab.data.files import DataError

COLUMNS = ("video", "label")


def read_video_labels(which: str | Path, video_ids: Iterable[str]) -> tuple[np.ndarray, list[str]]:
    """Label videos, named by their paths within a folder -> (N, C) bool, C category names.

    `which` is "folders", the first of a path; or a CSV file of columns `video` and `label`, a line
    a label. Without a label, a row is zeros. `DataError` names file and row.

    >>> labels, names = read_video_labels("folders", ["calm/0.mp4", "wild/0.mp4", "calm/1.mp4"])
    >>> labels.tolist(), names
    ([[True, False], [False, True], [True, False]], ['calm', 'wild'])
    """
    video_ids = list(video_ids)
    if str(which) == "folders":
        pairs = [(id, id.split("/")[0]) for id in video_ids if "/" in id]
        if not pairs:
            raise DataError('labels="folders": no video lies in a folder of its category.')
    else:
        pairs = _read_csv(Path(which), set(video_ids))
    names = sorted({label for _, label in pairs})
    rows, columns = ({name: n for n, name in enumerate(order)} for order in (video_ids, names))
    labels = np.zeros((len(video_ids), len(names)), bool)
    for video, label in pairs:
        labels[rows[video], columns[label]] = True
    return labels, names


def _read_csv(path, known):
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such label file; or say labels='folders'.")
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, strict=True)
            if not set(COLUMNS) <= set(reader.fieldnames or ()):
                wanted = "expected a first line with `video` and `label`"
                raise DataError(f"{path}, row 1: the columns are {reader.fieldnames}; {wanted}.")
            pairs = [_pair(line, f"{path}, row {reader.line_num}", known) for line in reader]
    except (csv.Error, UnicodeDecodeError) as error:
        row = f", row {reader.reader.line_num}" if isinstance(error, csv.Error) else ""
        raise DataError(f"{path}{row}: no CSV file in UTF-8 ({error}).") from error
    if not pairs:
        raise DataError(f"{path}: has no rows below its first line.")
    return pairs


def _pair(line, where, known):
    video, label = ((line[column] or "").strip() for column in COLUMNS)
    if not video or not label:
        raise DataError(f"{where}: `{'label' if video else 'video'}` is empty.")
    if "\0" in label:
        raise DataError(f"{where}: the label holds a zero character.")
    video = video.replace("\\", "/").removeprefix("./")
    if video not in known:
        hint = f"Write paths as they are within it, for example {min(known)!r}"
        raise DataError(f"{where}: no video {video!r} in the folder. {hint}.")
    return video, label
