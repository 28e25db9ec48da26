"""Files are written whole or not at all, and leave nothing behind; damage is told from trouble."""

import errno
import os
import subprocess
import sys

import h5py
import numpy as np
import pytest

from vidhash_lab.data.files import (
    DataError,
    check_seal,
    new_hdf5,
    refusing_damage,
    seal,
    unfinished,
    written_whole,
)


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
    begin, dead = unfinished(path), int(dead.stdout)
    left, folder = tmp_path / f"{begin}{dead}", tmp_path / f"{begin}x.{dead}"
    folder.mkdir()
    names = [f"{begin}{os.getppid()}", f"{begin}backup", f".file1{begin[8:]}{dead}"]
    names += [f".{path.name}.another-machine.{dead}"]
    for each in (left, folder / "part", *(tmp_path / name for name in names)):
        each.write_text("")
    with written_whole(path) as new:
        new.write_text("whole")
    assert {each.name for each in tmp_path.iterdir()} == {path.name, *names}


@pytest.fixture
def sealed(tmp_path):
    path = tmp_path / "sealed.h5"
    with written_whole(path, sealed=True) as new, h5py.File(new, "w") as file:
        file["feats"] = np.arange(300_000, dtype="f4")
    return path


def test_a_sealed_file_is_an_hdf5_file(sealed):
    check_seal(sealed)
    with h5py.File(sealed) as file:
        mapped = np.memmap(sealed, "f4", "r", file["feats"].id.get_offset(), file["feats"].shape)
        assert np.array_equal(mapped, np.arange(300_000)) and np.array_equal(mapped, file["feats"])


def test_every_flipped_bit_is_noticed(sealed):
    whole = sealed.read_bytes()
    for place in [0, len(whole) // 2, len(whole) - 33, *range(len(whole) - 32, len(whole))]:
        damaged = bytearray(whole)
        damaged[place] ^= 4
        sealed.write_bytes(damaged)
        with pytest.raises(DataError, match=r"sealed\.h5: (damaged|has no checksum)"):
            check_seal(sealed)


@pytest.mark.parametrize("size", [0, 5, 31, 32, 1 << 20, -1])
def test_a_file_cut_short_has_no_checksum(sealed, size):
    sealed.write_bytes(sealed.read_bytes()[:size])
    with pytest.raises(DataError, match="has no checksum"):
        check_seal(sealed)


def test_an_empty_file_can_be_sealed(tmp_path):
    (tmp_path / "empty").touch()
    seal(tmp_path / "empty")
    check_seal(tmp_path / "empty")


SYSTEM = [OSError(getattr(errno, name), name) for name in ("EIO", "EACCES", "EMFILE", "ENOSPC")]


@pytest.mark.parametrize("error", [MemoryError(), *SYSTEM])
def test_troubles_of_the_system_are_no_damage(error):
    with pytest.raises(type(error)) as raised, refusing_damage("file.h5"):
        raise error
    assert raised.value is error


@pytest.mark.parametrize("error", [OSError("no HDF5"), OSError(errno.EINVAL, "seek"), KeyError()])
def test_what_a_reader_says_is_damage(error):
    with pytest.raises(DataError, match=r"file\.h5: .*damaged"), refusing_damage("file.h5"):
        raise error


FULL_DISK = """
import resource, sys
import h5py, numpy as np
from vidhash_lab.data.files import new_hdf5

def write(size):
    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, most))
    try:
        with new_hdf5(sys.argv[1]) as file:
            file["a"] = np.arange(5000.0)
            file.create_dataset("b", (9, 1000), "f4")[::2] = 1
            file.create_dataset("c", data=["text"] * 200, dtype=h5py.string_dtype())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))

for size in range(0, 70_000, 7_000):
    try:
        write(size)
        sys.exit(f"no error at {size}")
    except OSError as error:
        assert error.errno == 27, error
write(1_000_000)
with h5py.File(sys.argv[1]) as file:
    assert file["a"][-1] == 4999 and file["b"][8, 999] == 1 and len(file["c"]) == 200
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs a limit of file sizes")
def test_a_full_disk_is_an_error_and_the_process_lives(tmp_path):
    script = [sys.executable, "-c", FULL_DISK, str(tmp_path / "new.h5")]
    done = subprocess.run(script, capture_output=True, text=True)
    assert done.returncode == 0 and not done.stderr, done.stderr


def test_new_files_can_be_mapped(tmp_path):
    with new_hdf5(tmp_path / "new.h5") as file:
        file["feats"] = np.arange(6000, dtype="f2").reshape(10, 20, 30)
    with h5py.File(tmp_path / "new.h5") as file:
        feats = file["feats"]
        assert feats.chunks is None and feats.id.get_offset() % 8 == 0
        assert np.array_equal(feats, np.arange(6000, dtype="f2").reshape(10, 20, 30))
