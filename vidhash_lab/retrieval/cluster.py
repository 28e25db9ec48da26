"""Work on a cluster of dask: tasks that outlive their workers, counts by blocks, a sharded index.

`client` is a `distributed.Client`. A task names all that it needs, or the scheduler keeps it until
the result is forgotten: when a worker dies, dask gives its tasks to others, and only time is lost.
Few tasks are under way at a time, so memory follows the size of a block, not that of the data.

N codes of the database, Q queries, S shards, K bits; codes are packed (N, K/8) uint8 in the order
of numpy.packbits.
"""

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import torch

from vidhash_lab.data.files import DataError, PathLike, refusing_damage
from vidhash_lab.retrieval import hamming
from vidhash_lab.retrieval.search import HammingIndex, check_count

if TYPE_CHECKING:
    from distributed import Client, Future

LIBRARIES = 700 << 20  # bytes of a worker once torch, numba and faiss are imported; 650 MB measured
USABLE = 0.8  # of a worker's memory: above it dask gives the worker no more tasks
WAIT = 60  # seconds for a first worker
BLOCK_BYTES, BLOCK_PAIRS = 16 << 20, 1 << 31  # of items, or of counts; of a task: some seconds
ALONE = threading.Lock()  # held by what uses a whole worker
Label = TypeVar("Label")


def check_cluster(client: "Client", what: str, task_bytes: int, kept_bytes: int = 0) -> list[int]:
    """Count the threads of each worker, once all have the memory that `what` needs.

    That is `kept_bytes` once and `task_bytes` a thread, beside the libraries and what dask holds.
    ImportError without dask, TypeError for what is no client, RuntimeError without any worker, and
    MemoryError, with the numbers, for a worker that is too small.

    >>> from distributed import Client
    >>> with Client(processes=False, threads_per_worker=2, dashboard_address=None) as client:
    ...     check_cluster(client, "a search", task_bytes=1000)
    ...
    [2]
    """
    try:
        from distributed import Client
    except ImportError as error:
        message = "client= needs dask, which is not here: pip install 'vidhash-lab[cluster]'"
        raise ImportError(message) from error
    if not isinstance(client, Client) or client.asynchronous:
        raise TypeError(f"client must be a distributed.Client, not asynchronous, not {client!r}")
    needs = what, task_bytes, kept_bytes
    _threads_of_workers(client, *needs)  # at once: dask pauses a worker that is too full, and waits
    try:
        client.wait_for_workers(1, timeout=WAIT)
    except TimeoutError as error:
        message = f"{client} had no worker within {WAIT} s. Start some; `client.wait_for_workers`"
        raise RuntimeError(f"{message} waits for them as long as it takes.") from error
    return _threads_of_workers(client, *needs)


def _threads_of_workers(client, what, task_bytes, kept_bytes):
    """List the threads of the workers that are there, MemoryError for one that is too small."""
    workers = client.scheduler_info(n_workers=-1)["workers"]
    for address, worker in workers.items():
        limit, held = worker["memory_limit"], worker["metrics"].get("managed_bytes", 0)
        needed = LIBRARIES + held + kept_bytes + task_bytes * worker["nthreads"]
        if limit and needed > USABLE * limit:
            raise MemoryError(
                f"{what} needs about {needed / 1e6:,.0f} MB on the worker {address} "
                f"({LIBRARIES / 1e6:,.0f} MB of them for libraries, {held / 1e6:,.0f} MB are held "
                f"by other tasks), and {USABLE:.0%} of its {limit / 1e6:,.0f} MB can be used. Give "
                "workers more memory (`memory_limit`), or fewer threads each."
            )
    return [worker["nthreads"] for worker in workers.values()]


def submit(client: "Client", function: Callable, *given: object) -> "Future":
    """Make a task of its own; what it is given stays with the scheduler while it may be needed.

    >>> from distributed import Client
    >>> with Client(processes=False, dashboard_address=None) as client:
    ...     submit(client, pow, 2, 10).result()
    ...
    1024
    """
    import dask

    # dask warns of large tasks; these are so large on purpose: scattered data die with a worker.
    with dask.config.set({"distributed.admin.large-graph-warning-threshold": "1 TB"}):
        return client.submit(function, *given, pure=False)


def completed(
    client: "Client", tasks: Iterable[tuple[Label, "Future"]], ahead: int
) -> Iterator[tuple[Label, object]]:
    """Draw tasks, `ahead` of them at a time, and yield (label, result) as they end.

    >>> from distributed import Client
    >>> with Client(processes=False, dashboard_address=None) as client:
    ...     tasks = ((number, submit(client, pow, number, 2)) for number in range(3))
    ...     found = sorted(completed(client, tasks, ahead=2))
    ...
    >>> found
    [(0, 0), (1, 1), (2, 4)]
    """
    from distributed import as_completed

    tasks, running, ended = iter(tasks), {}, as_completed(loop=client.loop)

    def begin(count):
        for label, future in islice(tasks, count):
            running[future.key] = label, future
            ended.add(future)

    try:
        begin(ahead)
        for future in ended:
            result = future.result()
            label, _ = running.pop(future.key)
            begin(1)
            yield label, result
    finally:  # after an error or an interrupt, nothing goes on in vain
        client.cancel([future for _, future in running.values()])


@contextmanager
def whole_worker() -> Iterator[int]:
    """Compute alone on this worker, in as many threads as dask gives it, and yield their number.

    The simplest of numba's ways to use threads ends the process at a second caller.
    """
    from distributed import get_worker

    with ALONE:
        before, threads = torch.get_num_threads(), get_worker().state.nthreads
        torch.set_num_threads(threads)
        try:
            yield threads
        finally:
            torch.set_num_threads(before)


def _slices(length, step):
    return [slice(start, min(start + step, length)) for start in range(0, length, step)]


# ---- evaluation: counts of blocks of queries x blocks of items -----------------------------------


def count_distances(
    client: "Client",
    query_codes: np.ndarray,
    codes: np.ndarray,
    query_labels: np.ndarray,
    labels: np.ndarray,
    own_item: np.ndarray,
    bits: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Do what `hamming.count_distances` does, on workers: words (Q, …), (N, …) -> two (Q, K+1).

    Counts of blocks are added up: whatever the cut, the sum is the same.

    >>> from distributed import Client
    >>> from vidhash_lab.retrieval.hamming import checked_words
    >>> codes, labels = np.array([[0], [255]], np.uint8), np.eye(2, dtype=bool)
    >>> with Client(processes=False, n_workers=1, dashboard_address=None) as client:
    ...     total, relevant = count_distances(client, *checked_words(codes, codes, labels, labels))
    ...
    >>> total.tolist()
    [[1, 0, 0, 0, 0, 0, 0, 0, 1], [1, 0, 0, 0, 0, 0, 0, 0, 1]]
    """
    threads = sum(check_cluster(client, "evaluate", task_bytes=6 * BLOCK_BYTES))
    item_rows = max(1, BLOCK_BYTES // (codes[:1].nbytes + labels[:1].nbytes))
    most = min(BLOCK_BYTES // (8 * (bits + 1)), BLOCK_PAIRS // min(item_rows, len(codes)))
    query_rows = max(1, min(most, len(query_codes) // (4 * threads)))

    def tasks():  # all queries meet a block of items before the next block is sent
        for items in _slices(len(codes), item_rows):
            block = submit(client, _together, codes[items], labels[items])
            for rows in _slices(len(query_codes), query_rows):
                queries = query_codes[rows], query_labels[rows], own_item[rows] - items.start
                yield rows, submit(client, _count_block, *queries, block, bits)

    counts = np.zeros((2, len(query_codes), bits + 1), np.int32)
    for rows, found in completed(client, tasks(), 2 * threads):
        counts[:, rows] += found
    return counts[0], counts[1]


def _together(*arrays):
    return arrays


def _count_block(query_codes, query_labels, own_item, items, bits):
    """Count one block -> (2, B, K+1) int32; arrays that came as read-only would compile anew."""
    arrays = query_codes, items[0], query_labels, items[1], own_item
    with whole_worker():
        own = (np.require(array, requirements="CW") for array in arrays)
        return np.stack(hamming.count_distances(*own, bits))


# ---- search: shards that workers hold ------------------------------------------------------------


class ShardedIndex:
    """Nearest neighbours among codes (N, K/8) in shards that workers hold; `len(index)` is N.

    Exact: distances and ids are those of a `HammingIndex` of all codes, ties included. `codes` are
    an array, or .npy files, one or several that follow each other, which every worker can open. A
    shard whose worker dies is built anew by another: from its file, or from the array, of which
    the scheduler keeps a copy. Workers hold the shards as long as the index lives.

    Raises ValueError, `DataError` and FileNotFoundError for codes that do not fit, and what
    `check_cluster` raises; each worker needs room for its shard, and for that of another.

    >>> from distributed import Client
    >>> codes = np.array([[0], [1], [255]], np.uint8)
    >>> with Client(processes=False, n_workers=1, dashboard_address=None) as client:
    ...     distances, ids = ShardedIndex(codes, client).search(codes[:1], k=2)
    ...
    >>> ids.tolist()
    [[0, 1]]
    """

    def __init__(self, codes: np.ndarray | PathLike | Sequence[PathLike], client: "Client"):
        parts = _open_parts(codes)
        self._client, self._width = client, parts[0][1].shape[1]
        self._length = sum(len(part) for _, part in parts)
        rows = -(-self._length // len(check_cluster(client, "ShardedIndex", 0)))
        check_cluster(client, "ShardedIndex", 0, 3 * rows * (self._width + 8))  # 8: of an id
        self._shards = [
            (shard.start, submit(client, _build, _cut(parts, shard)))
            for shard in _slices(self._length, rows)
        ]
        for _, shard in self._shards:
            if error := shard.exception():  # waits until it is built
                raise error

    def __len__(self) -> int:
        return self._length

    def search(self, query_codes: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Find the k nearest of (Q, K/8) codes -> distances (Q, k) int32, ids (Q, k) int64.

        By distance, then id. ValueError for k outside 1..N or another width.

        >>> from distributed import Client
        >>> codes = np.array([[0], [1], [255]], np.uint8)
        >>> with Client(processes=False, n_workers=1, dashboard_address=None) as client:
        ...     distances, ids = ShardedIndex(codes, client).search(codes[:1], k=2)
        ...
        >>> distances.tolist()
        [[0, 1]]
        """
        query_codes = hamming.check_codes("query", query_codes)
        if query_codes.shape[1] != self._width:
            given = f"query codes have {query_codes.shape[1]} bytes, the index {self._width}"
            raise ValueError(given)
        check_count(k, len(self))

        def tasks():
            step = max(1, BLOCK_BYTES // (12 * k * len(self._shards)))  # 12: a distance and an id
            for rows in _slices(len(query_codes), step):
                given = query_codes[rows], k
                found = [
                    submit(self._client, _search, shard, first, *given)
                    for first, shard in self._shards
                ]
                yield rows, submit(self._client, _merge, found, k)

        distances = np.empty((len(query_codes), k), np.int32)
        ids = np.empty((len(query_codes), k), np.int64)
        for rows, found in completed(self._client, tasks(), 2):
            distances[rows], ids[rows] = found
        return distances, ids


def _open_parts(codes):
    """Open an array or .npy files -> (path or None, codes) of each; nothing is read yet."""
    if isinstance(codes, np.ndarray):
        return [(None, hamming.check_codes("database", codes))]
    paths = [codes] if isinstance(codes, PathLike) else codes
    parts = [(Path(path).absolute(), _open_codes(path)) for path in paths]
    if not parts:
        raise ValueError("no file of codes is named, and an index needs one or more")
    first, width = parts[0][0], parts[0][1].shape[1]
    for path, part in parts:
        if part.shape[1] != width:
            widths = f"{part.shape[1]} bytes, those of {first} {width}"
            raise DataError(f"{path}: codes have {widths}. Files of one index must agree.")
    return parts


def _cut(parts, shard):
    """Cut the codes of a shard out of the parts -> arrays, or (path, start, stop) of files."""
    first, pieces = 0, []
    for path, part in parts:
        start, stop = (min(max(n - first, 0), len(part)) for n in (shard.start, shard.stop))
        if start < stop:
            pieces.append(part[start:stop] if path is None else (path, start, stop))
        first += len(part)
    return pieces


def _open_codes(path):
    """Open an .npy file of codes, which stays on disk; it is refused by its name."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: no such file of codes here.")
    with refusing_damage(path, "not an .npy file of codes"):
        codes = np.load(path, mmap_mode="r")
    try:
        return hamming.check_codes("database", codes)
    except ValueError as error:
        raise DataError(f"{path}: {error}") from error


def _build(pieces):
    """Index the codes of a shard: arrays, or (path, start, stop) of files."""
    arrays = []
    for piece in pieces:
        if isinstance(piece, tuple):
            path, start, stop = piece
            piece = _open_codes(path)[start:stop]
            if len(piece) != stop - start:
                problem = f"a worker finds {start + len(piece)} codes, and {stop} or more were here"
                raise DataError(f"{path}: {problem}. Let all processes see the same files.")
        arrays.append(piece)
    return HammingIndex(arrays[0] if len(arrays) == 1 else np.concatenate(arrays))


def _search(shard, first, query_codes, k):
    """Search a shard -> distances (B, k) and ids (B, k), or as many as it has."""
    import faiss

    with whole_worker() as threads:
        faiss.omp_set_num_threads(threads)
        distances, ids = shard.search(query_codes, min(k, len(shard)))
    return distances, ids + first


def _merge(found, k):
    """Merge what shards found, in the order of their ids, by distance, then id -> the first k."""
    distances, ids = (np.concatenate(arrays, axis=1) for arrays in zip(*found))
    order = np.argsort(distances, axis=1, kind="stable")[:, :k]
    return tuple(np.take_along_axis(array, order, axis=1) for array in (distances, ids))
