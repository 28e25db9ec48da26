"""Labels of one's own videos: folders and CSV files; errors name file and row."""

import random

import numpy as np
import pytest

from vidhash_lab.data import DataError
from vidhash_lab.videos.labels import read_video_labels

IDS = ["cats/a.mp4", "cats/b.mp4", "dogs/big/c.mp4", "d.mp4"]


def test_folders():
    labels, names = read_video_labels("folders", IDS)
    assert names == ["cats", "dogs"]
    assert np.array_equal(labels, np.array([[1, 0], [1, 0], [0, 1], [0, 0]], bool))
    with pytest.raises(DataError, match="no video lies in a folder"):
        read_video_labels("folders", ["a.mp4"])


def test_a_csv_file_with_several_labels_a_video(tmp_path):
    path = tmp_path / "labels.csv"
    path.write_text(
        '\ufeffvideo,when,label\ncats/a.mp4,1,"sweet, small"\ncats\\a.mp4,2,cat\n./d.mp4,3,cat\n',
        encoding="utf-8",
    )
    labels, names = read_video_labels(path, IDS)
    assert names == ["cat", "sweet, small"]
    assert np.array_equal(labels, np.array([[1, 1], [0, 0], [0, 0], [1, 0]], bool))


@pytest.mark.parametrize(
    "text, says",
    [
        ("", r"row 1: the columns are None; expected"),
        ("file,label\na,b\n", r"row 1: the columns are \['file', 'label'\]"),
        ("video,label\n", "has no rows"),
        ("video,label\nd.mp4,x\n,x\n", "row 3: `video` is empty"),
        ("video,label\nd.mp4\n", "row 2: `label` is empty"),
        ("video,label\nd.mp4,x\ne.mp4,x\n", r"row 3: no video 'e\.mp4'.*'cats/a\.mp4'"),
        ('video,label\n"d.mp4"x,x\n', "row 2: no CSV file"),
        (b"video,label\nd.mp4,\xff\n", "no CSV file in UTF-8"),
        ("video,label\nd.mp4,x\0\n", "row 2: .* zero character"),
    ],
)
def test_errors_name_file_and_row(tmp_path, text, says):
    path = tmp_path / "labels.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(DataError, match=says) as error:
        read_video_labels(path, IDS)
    assert str(path) in str(error.value)
    with pytest.raises(FileNotFoundError, match=r"nowhere\.csv"):
        read_video_labels(tmp_path / "nowhere.csv", IDS)


def test_damaged_csv_files_are_read_or_refused(tmp_path):
    path, chance = tmp_path / "labels.csv", random.Random(0)
    whole = ("video,label\n" + "".join(f'{id},"x{n}"\n' for n, id in enumerate(IDS))).encode()
    for _ in range(500):
        data = bytearray(whole)
        data[chance.randrange(len(data))] = chance.randrange(256)
        path.write_bytes(data[: chance.choice([len(data), chance.randrange(len(data))])])
        try:
            labels, names = read_video_labels(path, IDS)
        except DataError:
            continue
        assert labels.shape == (4, len(names)) and labels.any()
