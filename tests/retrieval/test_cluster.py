"""Work on a cluster: the same results, to the last bit, also where a worker is killed.

One cluster of two worker processes serves the file. A worker kills itself in the middle of its
second task, which is sure to hit; files that are made once tell all workers how many there were.
"""

import importlib
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from vidhash_lab import HammingIndex, ShardedIndex, encode, evaluate, open_dataset, score
from vidhash_lab.data import DataError, FeatureSet
from vidhash_lab.models.baselines import LSH
from vidhash_lab.models.conmh import ConMH
from vidhash_lab.retrieval import cluster, codes
from vidhash_lab.videos import extraction
from vidhash_lab.videos.backbones import Backbone
from vidhash_lab.videos.extraction import extract
from vidhash_lab.videos.writing import write_video

dask = pytest.importorskip("dask")
pytest.importorskip("distributed")
pytestmark = pytest.mark.skipif(os.name != "posix", reason="kills processes")

README = Path(__file__).parents[2] / "README.md"
PATIENT = {  # a loaded machine is slow, not broken
    "distributed.comm.timeouts.connect": "300s",
    "distributed.comm.timeouts.tcp": "300s",
    "distributed.deploy.lost-worker-timeout": "300s",
    "distributed.scheduler.worker-ttl": None,
}


@pytest.fixture(scope="module")
def two_workers():
    from distributed import Client, LocalCluster

    paths = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    size = {"n_workers": 2, "threads_per_worker": 1, "memory_limit": "8GB"}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as dask starts its workers: sums are then the same
    with (
        dask.config.set(PATIENT),
        LocalCluster(**size, dashboard_address=":0", env=paths) as workers,
        Client(workers, timeout="300s", set_as_default=False) as client,
    ):
        yield client
    torch.set_num_threads(threads)


@pytest.fixture
def client(two_workers):
    """Wait until a worker that the test before has killed is there again."""
    two_workers.wait_for_workers(2, timeout=300)
    return two_workers


@pytest.fixture(scope="module")
def small_cluster():
    """Start a cluster of no processes, whose worker has too little memory for anything."""
    from distributed import Client, LocalCluster

    size = {"n_workers": 1, "processes": False, "memory_limit": "300MB"}
    with LocalCluster(**size, dashboard_address=":0") as workers:
        with Client(workers, set_as_default=False) as client:
            yield client


def killed_in_the_second_task(monkeypatch, module, name, folder):
    """Replace a function that tasks call by one that kills the second worker process to call it.

    It is made here and refers to the true one by name, so that it travels whole.
    """
    where = module.__name__

    def deadly(*given, **named):
        for number in range(2):
            try:
                (folder / str(number)).touch(exist_ok=False)
            except FileExistsError:
                continue
            if number == 1:
                os.kill(os.getpid(), signal.SIGKILL)
            break
        return getattr(importlib.import_module(where), name)(*given, **named)

    folder.mkdir()
    monkeypatch.setattr(module, name, deadly)
    return lambda: (folder / "1").exists()


def random_sets(queries=100, items=700, width=2, labels=70, seed=0):
    """Codes and labels, many of them tied: the blocks of the tests below cut all of them."""
    rng = np.random.default_rng(seed)
    found = [rng.integers(0, 256, (n, width), dtype=np.uint8) for n in (queries, items)]
    return *found, *(rng.random((n, labels)) < 1.5 / labels for n in (queries, items))


def assert_same(ours, theirs):
    """Compare two evaluations to the last bit."""
    assert ours.protocol == theirs.protocol and ours.map_at == theirs.map_at
    for k, scores in theirs.average_precision.items():
        assert np.array_equal(ours.average_precision[k], scores)
    for name in ("relevant", "ranks", "precision", "recall", "histograms"):
        assert np.array_equal(getattr(ours, name), getattr(theirs, name)), name
    for name, curve in vars(theirs.radius).items():
        assert np.array_equal(getattr(ours.radius, name), curve), name


@pytest.fixture
def small_blocks(monkeypatch):
    """Cut into blocks of 200 items, and a few queries."""
    monkeypatch.setattr(cluster, "BLOCK_BYTES", 200 * 24)


# ---- evaluation ----------------------------------------------------------------------------------


@pytest.mark.parametrize("ties", ["expected", "best", "worst"])
def test_an_evaluation_is_that_of_one_process(client, small_blocks, ties):
    sets = random_sets()
    for options in ({"k": (1, 50, 700)}, {"denominator": "relevant", "k": 20}):
        ours = evaluate(*sets, ties=ties, **options, client=client)
        assert_same(ours, evaluate(*sets, ties=ties, **options))


def test_no_query_finds_itself_in_any_block(client, small_blocks):
    query_codes, _, query_labels, _ = random_sets()
    sets = query_codes, query_codes, query_labels, query_labels
    ours = evaluate(*sets, exclude_self=True, client=client)
    assert_same(ours, evaluate(*sets, exclude_self=True))
    assert ours.histograms[0].sum() == 100 * 99


def test_ties_that_need_an_order_say_why_they_cannot(client, random_features):
    with pytest.raises(ValueError, match=r'"stable" needs .* in one order, and a worker sees a'):
        evaluate(*random_sets(), ties="stable", client=client)
    data = open_dataset(random_features())
    with pytest.raises(ValueError, match=r"without client="):
        score(LSH.for_dataset(data, bits=16), data, ties="stable", client=client)


def test_an_evaluation_outlives_a_worker(client, small_blocks, monkeypatch, tmp_path):
    was_killed = killed_in_the_second_task(monkeypatch, cluster, "_count_block", tmp_path / "kill")
    ours = evaluate(*random_sets(), client=client)
    assert was_killed()
    assert_same(ours, evaluate(*random_sets()))


# ---- encoding ------------------------------------------------------------------------------------


def test_codes_are_those_of_one_process(client, random_features):
    data = open_dataset(random_features(shape=(203, 6, 24)))
    sizes = {"hidden_dim": 16, "depth": 1, "heads": 2, "decoder_dim": 16}
    for model in (ConMH.for_dataset(data, bits=64, **sizes), LSH.for_dataset(data, 64)):
        model.prepare(data.train).train()
        expected = encode(model, data.train, batch_size=10)
        assert np.array_equal(encode(model, data.train, batch_size=10, client=client), expected)
        assert model.training  # and is where it was
        block = encode(model, data.train[50:99], batch_size=10, client=client)
        assert np.array_equal(block, expected[50:99])


def counting_model(data, folder):
    """Make a model that leaves a file wherever it is unpickled; of a class that travels whole."""

    class Counted(LSH):
        def __setstate__(self, state):
            super().__setstate__(state)
            with open(folder / str(os.getpid()), "a") as file:
                file.write(".")

    return Counted.for_dataset(data, 16).prepare(data.train)


def test_each_worker_keeps_its_model(client, random_features, tmp_path):
    data = open_dataset(random_features(shape=(400, 4, 6)))
    model = counting_model(data, tmp_path)
    before = encode(model, data.train, batch_size=4)
    (tmp_path / str(os.getpid())).unlink(missing_ok=True)  # copies that were made here
    assert np.array_equal(encode(model, data.train, batch_size=4, client=client), before)
    loads = [path.read_text() for path in tmp_path.glob("[0-9]*") if path.name != str(os.getpid())]
    # Of 25 tasks; on its way from a worker to the next, a model is copied too.
    assert 1 <= len(loads) and sum(map(len, loads)) <= 10, loads


def test_an_encoding_outlives_a_worker(client, random_features, monkeypatch, tmp_path):
    data = open_dataset(random_features(shape=(203, 6, 24)))
    model = LSH.for_dataset(data, 32).prepare(data.train)
    was_killed = killed_in_the_second_task(monkeypatch, codes, "_encode_block", tmp_path / "kill")
    ours = encode(model, data.train, batch_size=10, client=client)
    assert was_killed()
    assert np.array_equal(ours, encode(model, data.train, batch_size=10))


@pytest.mark.parametrize("options", [{}, {"labels": "fine_labels", "ties": "best", "k": 7}])
def test_a_score_is_that_of_one_process(client, random_features, options):
    path = random_features(shape=(90, 4, 6))
    with h5py.File(path, "a") as file:
        file["fine_labels"] = np.eye(9, dtype=bool)[np.arange(90) % 9]
    data = open_dataset(path)
    model = LSH.for_dataset(data, 16).prepare(data.train)
    assert_same(score(model, data, client=client, **options), score(model, data, **options))


def test_an_error_of_a_task_is_the_callers(client, random_features):
    path = random_features(shape=(60, 4, 6))
    with h5py.File(path, "a") as file:
        file["feats"][33] = np.nan
    data = open_dataset(path)
    with pytest.raises(DataError, match=r"features\.h5, row 33"):
        encode(LSH.for_dataset(data, 16), data.train, batch_size=10, client=client)


# ---- search --------------------------------------------------------------------------------------


def assert_equal_to_one_index(index, database, queries, counts=(1, 7, 600)):
    one = HammingIndex(database)
    for k in counts:
        for ours, theirs in zip(index.search(queries, k), one.search(queries, k)):
            assert ours.dtype == theirs.dtype and np.array_equal(ours, theirs)


@pytest.mark.parametrize("width", [1, 2, 9])
def test_a_sharded_index_finds_what_one_finds(client, width):
    queries, database, *_ = random_sets(40, 1001, width)
    index = ShardedIndex(database, client)
    assert len(index) == 1001
    assert_equal_to_one_index(index, database, queries, (1, 7, 600, 1001))


def test_blocks_of_queries(client, monkeypatch):
    queries, database, *_ = random_sets()
    index = ShardedIndex(database[::-1], client)
    monkeypatch.setattr(cluster, "BLOCK_BYTES", 12 * 7 * 2 * 30)
    assert_equal_to_one_index(index, database[::-1], queries, (7,))


def test_codes_in_files_that_shards_cut(client, tmp_path):
    queries, database, *_ = random_sets()
    paths = [tmp_path / f"{number}.npy" for number in range(4)]
    for path, part in zip(paths, np.split(database, [5, 90, 600])):
        np.save(path, part)
    assert_equal_to_one_index(ShardedIndex(paths, client), database, queries)
    assert_equal_to_one_index(ShardedIndex(paths[2], client), database[90:600], queries, (7,))


def test_what_is_no_file_of_codes_is_refused_by_name(client, tmp_path):
    np.save(tmp_path / "good.npy", random_sets()[0])
    np.save(tmp_path / "wide.npy", random_sets(width=3)[0])
    np.save(tmp_path / "float.npy", np.zeros((5, 2)))
    (tmp_path / "text.npy").write_text("these are words")
    for name, why in {
        "wide.npy": "codes have 3 bytes, those of .*good.npy 2",
        "float.npy": r"packed bits, .* not float64 \(5, 2\)",
        "text.npy": "not an .npy file of codes",
    }.items():
        with pytest.raises(DataError, match=rf"{name}: .*{why}"):
            ShardedIndex([tmp_path / "good.npy", tmp_path / name], client)
    with pytest.raises(FileNotFoundError, match=r"none\.npy: no such file"):
        ShardedIndex(tmp_path / "none.npy", client)


def test_what_is_wrong_with_a_query(client):
    queries, database, *_ = random_sets()
    index = ShardedIndex(database, client)
    with pytest.raises(ValueError, match="query codes have 1 bytes, the index 2"):
        index.search(queries[:, :1], 5)
    for k in (0, 701):
        with pytest.raises(ValueError, match=rf"k={k} must lie in 1\.\.700"):
            index.search(queries, k)


def test_a_search_outlives_a_worker_and_its_shard(client, monkeypatch, tmp_path):
    queries, database, *_ = random_sets()
    np.save(tmp_path / "codes.npy", database)
    indices = [ShardedIndex(given, client) for given in (database, tmp_path / "codes.npy")]
    was_killed = killed_in_the_second_task(monkeypatch, cluster, "_search", tmp_path / "kill")
    assert_equal_to_one_index(indices[0], database, queries)
    assert was_killed()
    assert_equal_to_one_index(indices[1], database, queries)


# ---- extraction ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp("films"), np.random.default_rng(0)
    for number in range(11):
        frames = rng.integers(0, 256, (6, 4, 4), dtype=np.uint8).repeat(8, 1).repeat(8, 2)
        write_video(folder / f"{number % 2}" / f"{number:02d}.mp4", frames, 6)
    (folder / "0" / "00.mp4").write_text("words")  # a shard of its own below: one without a video
    return folder


def row_means():
    """Make a backbone that describes a frame alike in every batch, as no network does to a bit."""
    return Backbone(lambda x: x.mean((1, 3)).unflatten(1, (8, -1)).mean(2), "means", 32, grey=True)


OPTIONS = {"num_frames": 3, "backbone": row_means(), "labels": "folders", "thumbnails": 8}


def assert_same_rows(report, whole):
    ours, theirs = FeatureSet(report.paths), FeatureSet(whole)
    assert np.array_equal(ours.features[:], theirs.features[:])
    assert np.array_equal(ours.thumbnails[:], theirs.thumbnails[:])
    assert np.array_equal(ours.labels, theirs.labels)
    assert np.array_equal(ours.video_ids, theirs.video_ids)
    for name in {*theirs.attributes, *ours.attributes}:
        assert np.array_equal(ours.attributes[name], theirs.attributes[name]), name


def test_shards_of_an_extraction_are_the_whole_and_it_goes_on(client, films, tmp_path):
    alone = extract(films, tmp_path / "whole.h5", **OPTIONS)
    report = extract(films, tmp_path / "shards.h5", **OPTIONS, client=client)
    assert_same_rows(report, tmp_path / "whole.h5")
    assert (report.videos, report.skipped) == (alone.videos, alone.skipped) == (10, alone.skipped)
    assert alone.paths == [tmp_path / "whole.h5"]
    assert str(report.path) == str(tmp_path / "shards-*-of-8.h5")
    assert [path.name for path in report.paths] == [f"shards-{n}-of-8.h5" for n in range(1, 8)]
    before = [path.stat().st_mtime_ns for path in report.paths]
    again = extract(films, tmp_path / "shards.h5", **OPTIONS, client=client)
    assert [path.stat().st_mtime_ns for path in again.paths] == before
    assert str(again) == str(report)


def test_the_number_of_shards_is_that_of_the_first_run(client, films, tmp_path):
    (tmp_path / "a-1-of-3.h5.parts").mkdir()
    report = extract(films, tmp_path / "a.h5", 3, "digits", client=client)
    assert [path.name for path in report.paths] == [f"a-{n}-of-3.h5" for n in range(3)]
    extract(films, tmp_path / "whole.h5", 3, "digits")
    ours, theirs = (
        FeatureSet(paths).features[:] for paths in (report.paths, tmp_path / "whole.h5")
    )
    assert np.allclose(ours, theirs, rtol=1e-2, atol=1e-3)
    (tmp_path / "a-0-of-4.h5").touch()
    with pytest.raises(DataError, match=r"a\.h5: begun in 3 shards and 4 shards"):
        extract(films, tmp_path / "a.h5", **OPTIONS, client=client)


def test_what_cannot_be_a_run_of_shards_is_refused(client, films, tmp_path):
    (tmp_path / "there.h5").touch()
    with pytest.raises(DataError, match=r"there\.h5: there, from a run without client="):
        extract(films, tmp_path / "there.h5", **OPTIONS, client=client)
    with pytest.raises(ValueError, match=r"shard=\(0, 2\) and client=: .* one of both"):
        extract(films, tmp_path / "a.h5", **OPTIONS, shard=(0, 2), client=client)
    (tmp_path / "broken").mkdir()
    for number in range(3):
        (tmp_path / "broken" / f"{number}.mp4").write_text("words")
    with pytest.raises(DataError, match=r"no video of two frames.*0\.mp4: not a video file"):
        extract(tmp_path / "broken", tmp_path / "b.h5", 3, "digits", client=client)


def test_an_extraction_outlives_a_worker_and_keeps_its_parts(client, films, monkeypatch, tmp_path):
    """A worker writes a part and is killed; who takes over reads each of its videos once."""
    folder, where = tmp_path / "log", extraction.__name__

    def deadly(*given, **named):
        module = importlib.import_module(where)
        read, add = module._read_file, module.Parts.add

        def reading(file, *rest):
            with open(folder / file.id.replace("/", "-"), "a") as log:
                log.write("read ")
            return read(file, *rest)

        def adding(parts, rows):
            add(parts, rows)
            try:
                (folder / "killed").touch(exist_ok=False)
            except FileExistsError:
                return
            names = (row.file.id.replace("/", "-") for row in rows)
            (folder / "kept").write_text("\n".join(names))
            os.kill(os.getpid(), signal.SIGKILL)

        module._read_file, module.Parts.add = reading, adding
        module.SAVE_VIDEOS = module.FRAMES_AT_ONCE = 1
        try:
            return module._extract_files(*given, **named)
        finally:
            module._read_file, module.Parts.add = read, add
            module.SAVE_VIDEOS, module.FRAMES_AT_ONCE = 256, 128

    folder.mkdir()
    monkeypatch.setattr(extraction, "_extract_files", deadly)
    report = extract(films, tmp_path / "shards.h5", **OPTIONS, client=client)
    monkeypatch.undo()
    extract(films, tmp_path / "whole.h5", **OPTIONS)
    assert_same_rows(report, tmp_path / "whole.h5")
    kept = (folder / "kept").read_text().split("\n")
    assert [(folder / name).read_text() for name in kept] == ["read "] * len(kept)


def test_the_readmes_array_of_tasks_makes_one_set(films, tmp_path, monkeypatch):
    """Each task knows its number from the environment alone."""
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(), re.S)
    (code,) = [code for code in blocks if "SLURM_ARRAY_TASK_ID" in code]
    assert code.count(", 8\n") == 1 and code.count("torchvision:resnet50") == 1
    code = code.replace(", 8\n", ", 2\n").replace("torchvision:resnet50", "digits")
    (tmp_path / "films").symlink_to(films)
    monkeypatch.chdir(tmp_path)
    for number in range(2):
        monkeypatch.setenv("SLURM_ARRAY_TASK_ID", str(number))
        exec(code, {})
    extract("films", "whole.h5", backbone="digits")
    shards, whole = FeatureSet([f"films-{n}.h5" for n in range(2)]), FeatureSet("whole.h5")
    assert np.allclose(shards.features[:], whole.features[:], rtol=1e-2, atol=1e-3)
    assert np.array_equal(shards.video_ids, whole.video_ids)


# ---- what is refused before it begins ------------------------------------------------------------


def test_too_little_memory_is_said_with_numbers(
    small_cluster, random_features, films, tmp_path, monkeypatch
):
    monkeypatch.setattr(cluster, "WAIT", 0.1)  # dask may have paused the worker for its memory
    data = open_dataset(random_features())
    model = LSH.for_dataset(data, 16)
    calls = {
        "encode": lambda: encode(model, data.train, client=small_cluster),
        "evaluate": lambda: evaluate(*random_sets(), client=small_cluster),
        "ShardedIndex": lambda: ShardedIndex(random_sets()[0], small_cluster),
        "extract": lambda: extract(films, tmp_path / "a.h5", **OPTIONS, client=small_cluster),
    }
    for what, call in calls.items():
        with pytest.raises(MemoryError, match=rf"{what} needs about .* MB .* 80% of its 300 MB"):
            call()
    assert not [*tmp_path.glob("a*.h5")]


def test_a_database_that_does_not_fit_is_said_before_it_travels(client, monkeypatch):
    monkeypatch.setattr(cluster, "submit", None)
    codes = np.broadcast_to(np.uint8(0), (10**9, 8))  # 8 GB that are not there
    with pytest.raises(MemoryError, match=r"ShardedIndex needs about 24,\d+ MB"):
        ShardedIndex(codes, client)


def test_a_cluster_without_workers_is_an_error(monkeypatch):
    from distributed import Client, LocalCluster

    monkeypatch.setattr(cluster, "WAIT", 0.1)
    with LocalCluster(n_workers=0, processes=False, dashboard_address=":0") as nobody:
        with Client(nobody, set_as_default=False) as client:
            with pytest.raises(RuntimeError, match=r"had no worker within 0\.1 s"):
                evaluate(*random_sets(), client=client)


def test_what_is_no_client_is_refused():
    with pytest.raises(TypeError, match=r"must be a distributed\.Client.* not 'tcp://here:8786'"):
        evaluate(*random_sets(), client="tcp://here:8786")


def test_without_dask_the_package_imports_and_says_what_to_install():
    code = """
        import sys
        sys.modules["dask"] = sys.modules["distributed"] = None  # importing them raises
        import numpy as np
        import vidhash_lab
        codes = np.zeros((9, 2), np.uint8)
        try:
            vidhash_lab.ShardedIndex(codes, object())
        except ImportError as error:
            print(error)
        print(vidhash_lab.HammingIndex(codes).search(codes[:1], 1)[1])
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "pip install 'vidhash-lab[cluster]'" in done.stdout and "[[0]]" in done.stdout


def test_after_an_error_nothing_goes_on(client):
    def tasks():
        for number in range(100):
            yield number, cluster.submit(client, lambda n: 1 / (3 - n), number)

    with pytest.raises(ZeroDivisionError):
        dict(cluster.completed(client, tasks(), 2))
    ends = time.monotonic() + 60  # cancelling is a message: the scheduler may not have read it yet
    while any(client.processing().values()) and time.monotonic() < ends:
        time.sleep(0.05)
    assert not any(client.processing().values())
