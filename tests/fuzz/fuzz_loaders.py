"""Read thousands of damaged feature and label files: each opens or is refused with a clear error.

    python tests/fuzz/fuzz_loaders.py 5000 --seed 0

Every case starts from good files, an HDF5 file of the kit's own or a published layout with its
.mat files, and changes keys, shapes, types, values, lengths or single bits. What is left goes
through `FeatureSet`, `open_dataset`, `read_mat_labels` and the report. Outcomes: opened; refused
(`DataError`, FileNotFoundError); failed (any other exception, or a report that broke down), with
the seed of the case: `--seed SEED 1` repeats it. Cases run in worker processes, so that one whose
process dies inside the HDF5 library is counted and named too.
"""

import argparse
import multiprocessing
import resource
import sys
import tempfile
import threading
import traceback
import warnings
from collections import Counter
from pathlib import Path

import h5py
import numpy as np
import scipy.io
import scipy.sparse
from tqdm.auto import tqdm

from vidhash_lab.data import DataError, FeatureSet, open_dataset
from vidhash_lab.data.released.mat_files import read_mat_labels
from vidhash_lab.data.released.sets import PUBLISHED_SETS
from vidhash_lab.data.report import report

VIDEOS, T, D, C = 12, 3, 5, 4
TYPES = ["u1", "f8", "f4", "i4"]
SECONDS, MEMORY = 20, 24 << 30  # that a case, a worker process may take


def feats_file(draw, path, dtype, labels, views):
    """Write a good feature file in one of the storages."""
    storages = [{}, {"chunks": (5, T, D)}, {"chunks": (4, T, D), "compression": "gzip"}]
    storages.append({"chunks": (4, T, D), "compression": "gzip", "fletcher32": True})
    with h5py.File(path, "w", libver=str(draw.choice(["earliest", "latest"]))) as file:
        data = draw.standard_normal((VIDEOS, T, D)).astype(dtype)
        file.create_dataset("feats", data=data, **storages[draw.integers(4)])
        if labels:
            file["labels"] = np.eye(C, dtype="u1")[draw.integers(0, C, VIDEOS)]
        if views:
            file["views"] = np.ones((VIDEOS, 2, T, D), data.dtype)


def labels_file(draw, path, key):
    """Write a good .mat file of one of the generations."""
    labels = np.eye(C)[draw.integers(0, C, VIDEOS)]
    kind = draw.integers(5)
    if kind < 4:
        matrix = scipy.sparse.csc_array(labels) if kind == 3 else labels.astype(draw.choice(TYPES))
        options = [{}, {"do_compression": True}, {"format": "4"}, {}][kind]
        return scipy.io.savemat(path, {key: matrix}, appendmat=False, **options)
    with h5py.File(path, "w", userblock_size=512) as file:
        if draw.random() < 0.5:
            file[key] = labels.T
            return None
        matrix = scipy.sparse.csc_array(labels)
        file.create_group(key).attrs["MATLAB_sparse"] = np.uint64(VIDEOS)
        for name, part in [("jc", matrix.indptr), ("ir", matrix.indices), ("data", matrix.data)]:
            file[f"{key}/{name}"] = part
    return None


def layout(draw, folder):
    """Write one of the layouts into a folder -> what `open_dataset` takes, and its root."""
    name = str(draw.choice(["own", "file", *PUBLISHED_SETS]))
    options = str(draw.choice(["f2", "f4"])), draw.random() < 0.5, draw.random() < 0.3
    if name == "file":
        feats_file(draw, folder / "features.h5", *options)
        return folder / "features.h5", None
    if name == "own":
        for part in ("train", "database", "query"):
            feats_file(draw, folder / f"{part}.h5", *options)
        return folder, None
    for part in PUBLISHED_SETS[name].parts:
        for file in part.feats:
            feats_file(draw, folder / file, options[0], False, options[2])
        for file in part.labels:
            labels_file(draw, folder / file, part.key)
    return name, folder


def damage_bytes(draw, path):
    """Flip bits, cut, blank, insert or overwrite bytes of a file."""
    data = bytearray(path.read_bytes())
    near = draw.choice([64, 512, 2048, len(data)])  # headers matter more than rows
    place = int(draw.integers(min(near, len(data))))
    kind = draw.integers(6)
    if kind < 2:
        for place in draw.integers(0, min(near, len(data)), draw.choice([1, 2, 5, 40])):
            data[place] ^= 1 << int(draw.integers(8))
    elif kind == 2:
        del data[place:]
    elif kind == 3:
        data[place : place + 16] = bytes(min(16, len(data) - place))
    elif kind == 4:
        data[place:place] = draw.bytes(draw.choice([1, 8, 64]))
    else:
        data[place : place + 8] = b"\xff" * min(8, len(data) - place)
    path.write_bytes(data)


def odd_value(draw):
    """Draw something that may stand where an array is expected."""
    shape = tuple(draw.integers(0, 15, draw.integers(0, 6)))
    types = ["f2", "f4", "f8", "c16", "i4", "u1", "?", "S3", ">f4", "<i8"]
    plain = draw.integers(0, 3, shape).astype(draw.choice(types))
    odd = ["text", np.array(["a", "b"], "S"), np.float32(3), np.full((VIDEOS, C), 2.5)]
    odd += [np.full((VIDEOS, C), np.nan), np.zeros((C, VIDEOS)), np.ones((VIDEOS + 1, C))]
    odd += [np.full((VIDEOS, T, D), value, "f4") for value in (np.nan, np.inf, 0, 3e38)]
    return plain if draw.random() < 0.5 else odd[draw.integers(len(odd))]


def damage_hdf5(draw, path):
    """Take away, rename, replace or redirect a key of an HDF5 file."""
    with h5py.File(path, "a") as file:
        key, kind = str(draw.choice(list(file))), draw.integers(8)
        old = file.pop(key, None)
        if kind == 1:
            file[key.upper()] = old
        elif kind == 2:
            file.create_group(key).attrs["MATLAB_sparse"] = draw.integers(-3, 99)
        elif kind == 3:
            file[key] = h5py.SoftLink("/nowhere")
        elif kind == 4:
            file[key] = h5py.ExternalLink("nowhere.h5", "feats")
        elif kind == 5:
            shape = tuple(int(n) for n in draw.choice([3, 12, 1 << 20, 1 << 40], 3))
            file.create_dataset(key, shape[: draw.integers(1, 4)], "f4", chunks=True)
        elif kind == 6:
            file.create_dataset(key, (VIDEOS, T, D), "f4", external=[("rows", 0, 720)])
        elif kind == 7:
            file[key] = odd_value(draw)


def damage(draw, path):
    """Damage one file in one of the ways that its format has."""
    if draw.random() < 0.5:
        damage_bytes(draw, path)
    elif h5py.is_hdf5(path):
        damage_hdf5(draw, path)
    else:
        key = scipy.io.whosmat(path)[0][0]
        values = [odd_value(draw), {"a": 1}, np.array([1, "a"], object), scipy.sparse.eye_array(9)]
        value = values[draw.choice(4, p=[0.7, 0.1, 0.1, 0.1])]
        scipy.io.savemat(path, {draw.choice([key, "other"]): value}, appendmat=False)


def case(seed, folder):
    """Damage the files of one layout by a seed, and read them every way -> outcome, error."""
    draw, folder = np.random.default_rng(seed), Path(folder)
    name, root = layout(draw, folder)
    files = sorted(folder.iterdir())
    for place in draw.choice(len(files), min(len(files), draw.integers(1, 3)), replace=False):
        damage(draw, files[place])
    outcomes = [reading(_read_all, name, root)]
    for path in files:
        if path.suffix == ".h5":
            outcomes.append(reading(lambda path=path: FeatureSet(path).rows([0])))
        else:
            outcomes += [reading(read_mat_labels, path, key) for key in ("labels", "re_label")]
    well = reading(report, root or name, _no_surprise)
    failed = [outcome for outcome in [*outcomes, well] if outcome not in ("opened", "refused")]
    return failed[0] if failed else outcomes[0]


def _read_all(name, root):
    dataset = open_dataset(name, root=root)
    dataset.validate()
    for part in (dataset.train, dataset.database, dataset.query):
        part.rows([len(part) - 1, 0])


def _no_surprise(line):
    """Raise if the report met an exception that is no documented error."""
    if "WRONG" in line and line.split()[1].endswith("Error:"):
        raise AssertionError(line)


def reading(action, *arguments):
    """Run an action -> "opened", "refused" or the traceback of what should not happen."""
    try:
        action(*arguments)
    except (DataError, FileNotFoundError):
        return "refused"
    except Exception:
        return traceback.format_exc()
    return "opened"


def work(seeds, connection):
    """Send (seed, outcome) of each case to the parent process."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    warnings.simplefilter("ignore")
    np.seterr(all="ignore")
    tqdm.set_lock(threading.RLock())  # ours is shared: one killed holding it would stop us
    for seed in seeds:
        with tempfile.TemporaryDirectory() as folder:
            connection.send((seed, case(seed, folder)))


def run(seeds):
    """Yield (seed, outcome) of every case; a process that dies or hangs is an outcome too."""
    seeds, processes = list(seeds), multiprocessing.get_context("fork")
    while seeds:
        ours, theirs = processes.Pipe(duplex=False)
        worker = processes.Process(target=work, args=(seeds, theirs))
        worker.start()
        theirs.close()
        try:
            while seeds and ours.poll(SECONDS):
                yield ours.recv()
                seeds.pop(0)
            died = "took too long"
        except EOFError:
            worker.join()
            died = f"process died, exit code {worker.exitcode}"
        worker.kill()
        worker.join()
        if seeds:
            yield seeds.pop(0), died


def main():
    """Print how many cases opened, were refused and failed, and the seeds of those that failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cases", type=int)
    parser.add_argument("--seed", type=int, default=0, help="of the first case")
    arguments = parser.parse_args()
    counts = Counter()
    for seed, outcome in run(range(arguments.seed, arguments.seed + arguments.cases)):
        kind = outcome if outcome in ("opened", "refused") else "failed"
        counts[kind] += 1
        if kind == "failed":
            print(f"seed {seed}: {outcome}")
    print(dict(counts))
    return counts["failed"] > 0


if __name__ == "__main__":
    sys.exit(main())
