"""Files are written whole or not at all, and leave nothing behind."""

import os
import subprocess
import sys

import pytest

from vidhash_lab.data.files import written_whole


def test_what_an_error_leaves_is_removed(tmp_path):
    path = tmp_path / "new" / "file.txt"
    with written_whole(path) as new:
        new.write_text("old")
    with pytest.raises(KeyError), written_whole(path) as new:
        new.write_text("half")
        raise KeyError
    assert path.read_text() == "old" and list(path.parent.iterdir()) == [path]


def test_what_a_killed_process_left_goes_at_the_next_write_and_no_other(tmp_path):
    path = tmp_path / "file[1].txt"
    dead = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], stdout=-1)
    left = tmp_path / f".{path.name}.{int(dead.stdout)}"
    living = tmp_path / f".{path.name}.{os.getppid()}"
    others = [tmp_path / ".file[1].txt.backup", tmp_path / f".file1.txt.{int(dead.stdout)}"]
    for each in (left, living, *others):
        each.write_text("")
    with written_whole(path) as new:
        new.write_text("whole")
    assert not left.exists() and all(each.exists() for each in (living, *others))
