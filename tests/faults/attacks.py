"""Attacks on what the kit writes: kills, full disks, damage, vanishing files. What came of each.

A *piece* is something that the kit makes and keeps. `PIECES` names the functions that take a folder
for the inputs and one for what is kept, and return `make()`, which makes the piece, or goes on with
it, or reads what is kept -> a digest of the result.

A victim that is killed runs in a forked child, so that an attack costs no import; all compute in
one thread, since the parent's threads do not follow a child, and another number rounds otherwise.
`test_faults.py` runs a share of the attacks, `long.py` all.
"""

import hashlib
import os
import resource
import shutil
import signal
import tempfile
import threading
import time
import warnings
from contextlib import ExitStack, contextmanager
from pathlib import Path
from unittest.mock import patch

import faiss
import h5py
import nbformat
import numpy as np
import torch
from nbformat.v4 import new_code_cell, new_notebook
from tqdm.auto import tqdm

from vidhash_lab import ConMH, DataError, FeatureSet, fit, load, open_dataset, save
from vidhash_lab.data.files import check_seal
from vidhash_lab.runs import save_arrays, sweep, sweeps
from vidhash_lab.runs.runs import environment, write_run
from vidhash_lab.structures import find_structures
from vidhash_lab.videos import extraction
from vidhash_lab.videos.backbones import open_backbone
from vidhash_lab.videos.parts import Parts
from vidhash_lab.videos.writing import write_video

SMALL = {"hidden_dim": 16, "depth": 1, "heads": 2, "decoder_dim": 12}
RECIPE = {"epochs": 12, "batch_size": 16, "learning_rate": 1e-3, "precision": "32-true"}
STORIES = {"train": 3, "database": 2, "query": 2, "num_frames": 6}
NOBODY = 65534


@contextmanager
def one_thread():
    """Compute in one thread, here and in children."""
    before = torch.get_num_threads(), faiss.omp_get_max_threads()
    torch.set_num_threads(1)
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        faiss.omp_set_num_threads(before[1])


def start(function, *arguments):
    """Run a function in a fork -> its process id."""
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
    return child


def in_child(function, *arguments, kill_after=None):
    """Run a function in a fork -> its exit status; `kill_after` seconds it is killed (-9)."""
    child = start(function, *arguments)
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


def outcome(read, expected):
    """Read something damaged -> "same", "refused" (`DataError`), or what else came of it."""
    try:
        with warnings.catch_warnings(action="ignore"):  # of what is made anew
            return "same" if read() == expected else "SILENTLY OTHER"
    except DataError:
        return "refused"
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def digest(*arrays):
    """Digest arrays and tensors."""
    return hashlib.sha256(b"".join(np.asarray(each).tobytes() for each in arrays)).hexdigest()


def left_behind(folder):
    """List what an ended process has left of its unfinished files."""
    return [str(path) for path in folder.rglob(".*") if path.suffix[1:].isdecimal()]


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
    torch.manual_seed(0)
    model = ConMH.for_dataset(train_set, bits=16, **SMALL)
    fit(model, train_set, **RECIPE, checkpoint=checkpoint)
    return digest(*model.state_dict().values())


def weights_of(checkpoint):
    """Digest the weights of a checkpoint."""
    return digest(*load(checkpoint).state_dict().values())


def killed_training(data, checkpoint, expected, seconds, rng):
    """Kill a training at a random moment, twice, let it end -> what came of it."""
    for path in checkpoint.parent.glob(f"*{checkpoint.name}*"):
        path.unlink()
    for _ in range(2):
        in_child(train, data, checkpoint, kill_after=rng.uniform(0, seconds))
    if in_child(train, data, checkpoint) != 0:
        return "did not go on"
    if left := left_behind(checkpoint.parent):
        return f"left behind: {left}"
    return outcome(lambda: weights_of(checkpoint), expected)


def full_disk_in_training(data, checkpoint, expected, size):
    """Leave files `size` bytes of room after two epochs, then more -> what came of it."""
    checkpoint.unlink(missing_ok=True)
    with ExitStack() as disk:

        def fill(row):
            if row["epoch"] == 2:
                disk.enter_context(disk_full_after(size))

        train_set = FeatureSet(data)
        torch.manual_seed(0)
        model = ConMH.for_dataset(train_set, bits=16, **SMALL)
        try:
            fit(model, train_set, **RECIPE, checkpoint=checkpoint, on_epoch=fill)
            return "went on without a checkpoint"
        except (OSError, RuntimeError):  # torch wraps what its file raises
            pass
    if left := left_behind(checkpoint.parent):
        return f"left behind: {left}"
    if in_child(train, data, checkpoint) != 0:
        return "did not go on"
    return outcome(lambda: weights_of(checkpoint), expected)


# ---- extraction ----------------------------------------------------------------------------------


def films(folder, count=10):
    """Write some small films -> their folder."""
    folder = Path(folder) / "films"
    if not folder.exists():
        folder.mkdir()
        rng = np.random.default_rng(0)
        for number in range(count):
            frames = rng.integers(0, 256, (12, 8, 8), dtype=np.uint8).repeat(4, 1).repeat(4, 2)
            write_video(folder / f"{number}.mp4", frames, rate=6)
    return folder


def extract(folder, out, backbone="digits"):
    """Extract the films, a part for every two of them -> report."""
    with patch.multiple(extraction, SAVE_VIDEOS=2, FRAMES_AT_ONCE=1):
        return extraction.extract(folder, out, 4, backbone, thumbnails=8)


def extract_shards(folder, outs):
    """Extract the films in as many shards as there are names, one after the other."""
    with patch.multiple(extraction, SAVE_VIDEOS=2, FRAMES_AT_ONCE=1):
        for number, out in enumerate(outs):
            shard = number, len(outs)
            extraction.extract(folder, out, 4, "digits", thumbnails=8, shard=shard)


def rows_of(*outs):
    """Digest feature files as one: names, features, thumbnails, times."""
    keys, found = ("feats", "thumbnails", "frame_times"), []
    for out in outs:
        with h5py.File(out) as file:
            names = file["video_ids"].asstr()[:].astype("U10")
            found.append([names, *(file[key][:] for key in keys)])
    return digest(*(np.concatenate(arrays) for arrays in zip(*found)))


def killed_extraction(folder, outs, expected, seconds, rng):
    """Kill an extraction in shards at a random moment, twice, let it end -> what came of it."""
    for out in outs:
        out.unlink(missing_ok=True)
    for _ in range(2):
        in_child(extract_shards, folder, outs, kill_after=rng.uniform(0, seconds))
    if in_child(extract_shards, folder, outs) != 0:
        return "did not go on"
    if any(out.with_name(out.name + ".parts").exists() for out in outs):
        return "parts left behind"
    return outcome(lambda: rows_of(*outs), expected)


def vanished_output(films, out, expected, rng):
    """Remove all of an extraction's output at a random film, let it end -> what came of it."""
    backbone, last = open_backbone("digits", "cpu"), int(rng.integers(10))
    read = extraction.read_clip

    def remove(path, *rest):
        if path.name == f"{last}.mp4":
            shutil.rmtree(out.parent)
        return read(path, *rest)

    try:
        with patch.object(extraction, "read_clip", remove):
            report = extract(films, out, backbone)
        if report.videos != len(FeatureSet(out)):
            return "the report tells of videos that are not there"
    except OSError:
        pass
    extract(films, out, backbone)
    return outcome(lambda: rows_of(out), expected)


def unreadable_film(films, expected, rng):
    """Take a film's permission away and give it back, with a user who is not root."""
    backbone = open_backbone("digits", "cpu")
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o777)
        folder = Path(folder)
        shutil.copytree(films, folder / "films")
        for path in (folder / "films").glob("*"):
            path.chmod(0o644)
        (folder / "films").chmod(0o755)  # whatever the umask here is
        film = folder / "films" / f"{rng.integers(10)}.mp4"

        def as_nobody(unread):
            if os.geteuid() == 0:
                os.seteuid(NOBODY)
            assert extract(folder / "films", folder / "out.h5", backbone).unread.keys() == unread

        film.chmod(0)
        if in_child(as_nobody, {film.name}) != 0:
            return "was not told"
        film.chmod(0o644)
        if in_child(as_nobody, set()) != 0:
            return "did not go on"
        return outcome(lambda: rows_of(folder / "out.h5"), expected)


# ---- pieces that are kept and read back ----------------------------------------------------------


def model(inputs, kept):
    """Save a model, where there is none, and load it."""

    def make():
        if not (kept / "model.pt").exists():
            torch.manual_seed(0)
            save(ConMH(ConMH.Config(bits=16, num_frames=10, feature_dim=12, **SMALL)), path)
        return weights_of(path)

    path = kept / "model.pt"
    return make


def training(inputs, kept):
    """Train, or read the checkpoint of the finished run."""
    data = training_set(inputs)
    return lambda: train(data, kept / "run.pt")


def stories(inputs, kept, **options):
    """Build the built-in data set, very small, or read it."""

    def make():
        data = open_dataset("digit-stories", kept, **STORIES, **options)
        arrays = [data.train.views[:]] if options else []
        for part in (data.train, data.database, data.query):
            arrays += [part.rows(np.arange(len(part))), part.thumbnails[:], part.fine_labels]
        return digest(*arrays)

    return make


def views(inputs, kept):
    """Build views of the built-in data set, or read them."""
    return stories(inputs, kept, num_views=2)


def structures(inputs, kept):
    """Find anchors and neighbours, or read them."""
    data = training_set(inputs)

    def make():
        with patch("os.access", lambda *_: False), environment({"VIDHASH_LAB_CACHE": str(kept)}):
            found = find_structures(FeatureSet(data), 8)
        return digest(found.anchors, found.nearest)

    return make


def extracted(inputs, kept):
    """Extract films, or go on."""
    folder, backbone = films(inputs, 5), open_backbone("digits", "cpu")

    def make():
        report = extract(folder, kept / "out.h5", backbone)
        assert (report.videos, report.unread) == (5, {})
        return rows_of(kept / "out.h5")

    return make


def parts(inputs, kept):
    """Go on with an extraction that was stopped before its parts were put together."""
    make = extracted(inputs, kept)
    with patch.object(Parts, "assemble", side_effect=KeyboardInterrupt):
        try:
            make()
        except KeyboardInterrupt:
            return make


def runs(inputs, kept):
    """Run two points of a grid, or read them; no kernel is started, it would take seconds."""
    cells = [new_code_cell("number = 3", metadata={"tags": ["parameters"]})]
    kernel = {"kernelspec": {"name": "python3", "display_name": "", "language": "python"}}
    nbformat.write(new_notebook(cells=cells, metadata=kernel), inputs / "toy.ipynb")

    def run_notebook(notebook, folder, parameters, progress_bar):
        codes = np.random.default_rng(parameters["number"]).integers(0, 256, 512, np.uint8)
        with environment({"VIDHASH_LAB_RUN": str(folder)}):
            save_arrays("codes", codes=codes)
        write_run(folder, {"parameters": parameters, "metrics": {"mean": float(codes.mean())}})

    def make():
        with patch.object(sweeps.runs, "run_notebook", run_notebook):
            table = sweep(inputs / "toy.ipynb", {"number": [1, 2]}, kept)
        if (table["status"] == "failed").any():
            raise OSError(table["error"].tolist())
        codes = [np.load(Path(folder) / "codes.npz")["codes"] for folder in table["folder"]]
        return digest(table["mean"], *codes)

    return make


PIECES = {
    "a model": model,
    "a checkpoint of training": training,
    "digit stories": stories,
    "views": views,
    "structures": structures,
    "parts of an extraction": parts,
    "runs of a sweep": runs,
}
CACHES = {"digit stories": stories, "views": views, "structures": structures, "runs": runs}
WRITERS = CACHES | {"an extraction": extracted}


# ---- damage --------------------------------------------------------------------------------------


def flipped(data, rng):
    """Flip one random bit of some bytes -> bytes."""
    data = bytearray(data)
    data[rng.integers(len(data))] ^= 1 << int(rng.integers(8))
    return bytes(data)


def holed(data, rng):
    """Zero 512 bytes, a sector, from a random place on -> bytes."""
    start = int(rng.integers(len(data)))
    hole = bytes(min(512, len(data) - start))
    return data[:start] + hole + data[start + len(hole) :]


def cut(data, rng):
    """Cut some bytes short -> bytes."""
    return data[: rng.integers(len(data))]


DAMAGES = {"flipped bits": flipped, "holes": holed, "cut ends": cut}


def damaged(piece, damage, times, rng):
    """Damage a file of a piece, read the piece, put all back -> what came of it, each time."""
    with _folders() as (inputs, kept):
        make = piece(inputs, kept)
        if piece is not parts:
            make()
        saved = {path: path.read_bytes() for path in kept.rglob("*") if path.is_file()}
        expected, names = make(), [path for path, data in saved.items() if data and _is_read(path)]
        for _ in range(times):
            shutil.rmtree(kept)
            for path, data in saved.items():
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(data)
            path = names[rng.integers(len(names))]
            path.write_bytes(damage(saved[path], rng))
            yield outcome(make, expected)


def _is_read(path):
    """Tell whether a file is one that is read back: no lock, no copy of a notebook, no card."""
    own = not path.name.startswith(".") and not path.name.endswith(".card.json")
    return own and path.suffix in (".pt", ".h5", ".npz", ".json")


def full_disk(piece, times):
    """Make a piece with room for files of every so many bytes, then with more -> what came of it.

    Sizes are spread over those of the largest file.
    """
    with _folders() as (inputs, kept):
        make = piece(inputs, kept)
        expected = make()
        whole = {p.name: p.stat().st_size for p in kept.rglob("*") if p.is_file()}
        for size in np.linspace(0, max(whole.values()) - 1, times).astype(int):
            shutil.rmtree(kept)
            kept.mkdir()
            try:
                with disk_full_after(int(size)), warnings.catch_warnings(action="ignore"):
                    make()
                yield f"no error with {size} bytes"
                continue
            except (OSError, RuntimeError):  # RuntimeError: what h5py makes of some
                pass
            half = [p for p in kept.rglob("[!.]*") if p.is_file() and not _is_whole(p, whole)]
            left = left_behind(kept)
            yield f"left: {half} {left}" if half or left else outcome(make, expected)


def _is_whole(path, whole):
    try:
        check_seal(path)
        return True
    except DataError:
        return path.stat().st_size == whole.get(path.name)


def two_builders(piece, times, rng):
    """Let two processes make a piece at once and kill one of them -> what came of it, each time."""
    with _folders() as (inputs, kept):
        make = piece(inputs, kept)
        seconds, expected = took(make), make()

        def build(delay):
            time.sleep(delay)
            assert make() == expected

        for _ in range(times):
            shutil.rmtree(kept)
            kept.mkdir()
            first, second = (start(build, rng.uniform(0, seconds)) for _ in range(2))
            time.sleep(rng.uniform(0, 2 * seconds))
            os.kill(first, signal.SIGKILL)
            os.waitpid(first, 0)
            if os.waitstatus_to_exitcode(os.waitpid(second, 0)[1]) != 0:
                yield "the other one failed"
            elif in_child(build, 0) != 0:
                yield "the next one failed"
            else:
                yield outcome(make, expected)


@contextmanager
def _folders():
    with tempfile.TemporaryDirectory() as folder:
        inputs, kept = Path(folder) / "inputs", Path(folder) / "kept"
        inputs.mkdir()
        kept.mkdir()
        yield inputs, kept
