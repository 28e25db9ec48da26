"""Attacks on what the kit writes: kills, full disks, flipped bits. Each says what came of it.

A victim runs in a forked child, so that an attack costs no import; it computes in one thread, since
the parent's threads do not follow it. `test_faults.py` runs a share of them, `long.py` all.
"""

import hashlib
import os
import resource
import signal
import threading
import time
import warnings
from contextlib import ExitStack, contextmanager
from pathlib import Path

import h5py
import numpy as np
import torch
from tqdm.auto import tqdm

from vidhash_lab import ConMH, DataError, FeatureSet, fit, load, save
from vidhash_lab.videos import extraction
from vidhash_lab.videos.writing import write_video

SMALL = {"hidden_dim": 16, "depth": 1, "heads": 2, "decoder_dim": 12}
RECIPE = {"epochs": 12, "batch_size": 16, "learning_rate": 1e-3, "precision": "32-true"}


def in_child(function, *arguments, kill_after=None):
    """Run a function in a fork -> its exit status; `kill_after` seconds it is killed (-9)."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # progress bars
            # Theirs is shared by all forks: one that is killed holding it would stop the others.
            tqdm.set_lock(threading.RLock())
            torch.set_num_threads(1)
            warnings.simplefilter("ignore")
            function(*arguments)
            status = 0
        finally:
            os._exit(status)
    if kill_after is not None:
        time.sleep(kill_after)
        os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def took(function, *arguments):
    """Run a function in a fork to its end -> seconds."""
    started = time.perf_counter()
    assert in_child(function, *arguments) == 0
    return time.perf_counter() - started


@contextmanager
def disk_full_after(size):
    """Let every file that is written end in an OSError after `size` bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def flipped(data, rng):
    """Flip one random bit of some bytes -> bytes."""
    data = bytearray(data)
    data[rng.integers(len(data))] ^= 1 << int(rng.integers(8))
    return bytes(data)


def outcome(read, expected):
    """Read something damaged -> "same", "refused" (`DataError`), or what else came of it."""
    try:
        return "same" if read() == expected else "SILENTLY OTHER"
    except DataError:
        return "refused"
    except Exception as error:
        return f"{type(error).__name__}: {error}"


# ---- training ------------------------------------------------------------------------------------


def training_set(folder):
    """Write 64 random videos -> path."""
    path = Path(folder) / "train.h5"
    with h5py.File(path, "w") as file:
        file["feats"] = np.random.default_rng(0).standard_normal((64, 10, 12)).astype("f4")
    return path


def train(data, checkpoint):
    """Train from the beginning or from `checkpoint`, which holds the result at the end."""
    train_set = FeatureSet(data)
    fit(ConMH.for_dataset(train_set, bits=16, **SMALL), train_set, **RECIPE, checkpoint=checkpoint)


def weights_of(checkpoint):
    """Digest the weights of a checkpoint."""
    state = load(checkpoint).state_dict()
    return hashlib.sha256(b"".join(w.numpy().tobytes() for w in state.values())).hexdigest()


def killed_training(data, checkpoint, expected, seconds, rng):
    """Kill a training at a random moment, twice, let it end -> what came of it."""
    for path in checkpoint.parent.glob(f"*{checkpoint.name}*"):
        path.unlink()
    for _ in range(2):
        in_child(train, data, checkpoint, kill_after=rng.uniform(0, seconds))
    if in_child(train, data, checkpoint) != 0:
        return "did not go on"
    left = [path for path in checkpoint.parent.glob(f".{checkpoint.name}.*")]
    if left:
        return f"left behind: {left}"
    return outcome(lambda: weights_of(checkpoint), expected)


def full_disk_in_training(data, checkpoint, size, expected):
    """Leave files `size` bytes of room after two epochs, then more -> what came of it."""
    checkpoint.unlink(missing_ok=True)
    with ExitStack() as disk:
        disk.callback(torch.set_num_threads, torch.get_num_threads())
        torch.set_num_threads(1)  # as the children do: another number rounds otherwise

        def fill(row):
            if row["epoch"] == 2:
                disk.enter_context(disk_full_after(size))

        train_set = FeatureSet(data)
        model = ConMH.for_dataset(train_set, bits=16, **SMALL)
        try:
            fit(model, train_set, **RECIPE, checkpoint=checkpoint, on_epoch=fill)
            return "went on without a checkpoint"
        except (OSError, RuntimeError):  # torch wraps what its file raises
            pass
    left = list(checkpoint.parent.glob(f".{checkpoint.name}.*"))
    if left:
        return f"left behind: {left}"
    if in_child(train, data, checkpoint) != 0:
        return "did not go on"
    return outcome(lambda: weights_of(checkpoint), expected)


# ---- extraction ----------------------------------------------------------------------------------


def films(folder, count=10):
    """Write some small films -> their folder."""
    folder = Path(folder) / "films"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(count):
        frames = rng.integers(0, 256, (12, 8, 8), dtype=np.uint8).repeat(4, 1).repeat(4, 2)
        write_video(folder / f"{number}.mp4", frames, rate=6)
    return folder


def extract(folder, out):
    """Extract the films, a part for every two of them."""
    extraction.SAVE_VIDEOS = 2
    extraction.FRAMES_AT_ONCE = 1
    extraction.extract(folder, out, 4, "digits", thumbnails=8)


def rows_of(out):
    """Digest a feature file: names, features, thumbnails, times."""
    with h5py.File(out) as file:
        parts = [file["video_ids"].asstr()[:].astype("U").tobytes()]
        parts += [file[key][:].tobytes() for key in ("feats", "thumbnails", "frame_times")]
    return hashlib.sha256(b"".join(parts)).hexdigest()


def killed_extraction(folder, out, expected, seconds, rng):
    """Kill an extraction at a random moment, twice, let it end -> what came of it."""
    out.unlink(missing_ok=True)
    for _ in range(2):
        in_child(extract, folder, out, kill_after=rng.uniform(0, seconds))
    if in_child(extract, folder, out) != 0:
        return "did not go on"
    if out.with_name(out.name + ".parts").exists():
        return "parts left behind"
    return outcome(lambda: rows_of(out), expected)


# ---- files that are read back --------------------------------------------------------------------


def flipped_checkpoint(folder, rng):
    """Flip a bit of a checkpoint -> what came of it."""
    path = Path(folder) / "model.pt"
    config = ConMH.Config(bits=16, num_frames=10, feature_dim=12, **SMALL)
    torch.manual_seed(0)
    save(ConMH(config), path)
    expected = weights_of(path)
    path.write_bytes(flipped(path.read_bytes(), rng))
    return outcome(lambda: weights_of(path), expected)


FLIPS = {"checkpoint": flipped_checkpoint}
