"""Search: the nearest codes of a database, exact or in the nearest lists, and nearest frames.

N codes of the database, Q queries, M codes that are added, L lists, K bits; codes are packed
(N, K/8) uint8 in the order of numpy.packbits.
"""

import h5py
import numpy as np
import torch
from numpy.typing import ArrayLike

from vidhash_lab.data.features import FeatureSet, VideoDataset
from vidhash_lab.data.files import (
    DataError,
    PathLike,
    check_seal,
    new_hdf5,
    own,
    refusing_damage,
    written_whole,
)
from vidhash_lab.retrieval.hamming import check_codes, is_relevant

CODES_A_LIST = 39  # that k-means needs at least, in faiss's judgement, to place a centre
INDEX_VERSION = 1  # raise it when the files of `save` become others


class HammingIndex:
    """Nearest neighbours among packed codes (N, K/8) uint8; `len(index)` is N.

    Exact; or approximate, with `lists` and `probes`: each code lies in the list of its nearest
    centre, centres come from k-means of these first codes, and a query sees the `probes` lists
    nearest to it. What that loses depends on the codes, little where they cluster and much where
    they do not: `recall` measures it, and `index.probes = 16` changes it.

    An id is the number of a code in the order of adding, from 0. It stays when others are removed,
    and is not given twice.

    >>> index = HammingIndex(np.array([[0], [1], [255]], np.uint8))
    >>> distances, ids = index.search(np.array([[3]], np.uint8), k=2)
    >>> distances.tolist(), ids.tolist()
    ([[1, 2]], [[1, 0]])
    """

    def __init__(self, codes: np.ndarray, *, lists: int | None = None, probes: int | None = None):
        codes = np.ascontiguousarray(check_codes("database", codes))
        _check_lists(len(codes), lists, probes)
        self._index = _empty_index(codes.shape[1], lists)
        self._ids, self._next_id = np.empty(0, np.int64), 0  # those in the index, ascending
        if lists is not None:
            self._index.train(codes)
            self.probes = probes
        self.add(codes)

    def __len__(self) -> int:
        return self._index.ntotal

    @property
    def lists(self) -> int | None:
        """L, or None where the search is exact.

        >>> HammingIndex(np.zeros((4, 8), np.uint8)).lists
        """
        return getattr(self._index, "nlist", None)

    @property
    def probes(self) -> int | None:
        """How many lists a query sees, or None where the search is exact.

        >>> codes = np.random.default_rng(0).integers(0, 256, (1000, 8), dtype=np.uint8)
        >>> HammingIndex(codes, lists=16, probes=4).probes
        4
        """
        return getattr(self._index, "nprobe", None)

    @probes.setter
    def probes(self, probes: int) -> None:
        if self.lists is None:
            raise ValueError("an exact index has no lists to probe; build it with lists and probes")
        _check_probes(self.lists, probes)
        self._index.nprobe = int(probes)

    def add(self, codes: np.ndarray) -> np.ndarray:
        """Add codes (M, K/8) -> their ids (M,) int64.

        The centres of the lists stay where they are: `recall` tells when to build the index anew.

        >>> index = HammingIndex(np.array([[0], [1]], np.uint8))
        >>> index.add(np.array([[255]], np.uint8)).tolist()
        [2]
        """
        codes = self._checked("added", codes)
        ids = np.arange(self._next_id, self._next_id + len(codes))
        if self.lists is None:
            self._index.add(codes)
        else:
            self._index.add_with_ids(codes, ids)
        self._ids, self._next_id = np.append(self._ids, ids), self._next_id + len(codes)
        return ids

    def remove(self, ids: ArrayLike) -> None:
        """Remove codes by their ids (M,); ValueError, and nothing removed, if one is not there.

        >>> index = HammingIndex(np.array([[0], [1], [255]], np.uint8))
        >>> index.remove([1])
        >>> index.search(np.array([[1]], np.uint8), k=2)[1].tolist()
        [[0, 2]]
        """
        ids = np.unique(np.asarray(ids))
        if ids.size and ids.dtype.kind not in "iu":
            raise ValueError(f"ids are whole numbers, not {ids.dtype}")
        ids = ids.astype(np.int64)
        if (missing := ~np.isin(ids, self._ids)).any():
            raise ValueError(f"ids {ids[missing][:5]} are not in the index: no code to remove")
        places = np.searchsorted(self._ids, ids)
        self._index.remove_ids(places if self.lists is None else ids)
        self._ids = np.delete(self._ids, places)

    def search(self, query_codes: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Find the k nearest of (Q, K/8) codes -> distances (Q, k) int32, ids (Q, k) int64.

        By distance, then id. A query whose lists hold fewer than k codes sees more of them.
        ValueError for k outside 1..N or another width.

        >>> index = HammingIndex(np.array([[0], [1], [255]], np.uint8))
        >>> distances, ids = index.search(np.array([[0], [255]], np.uint8), k=2)
        >>> distances.tolist(), ids.tolist()
        ([[0, 1], [0, 7]], [[0, 1], [2, 1]])
        """
        query_codes = self._checked("query", query_codes)
        check_count(k, len(self))
        if self.lists is None:
            distances, places = self._index.search(query_codes, k)
            return distances, self._ids[places]
        return self._search_lists(query_codes, k, self.probes)

    def within(
        self, query_codes: np.ndarray, radius: int
    ) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Find all within a Hamming radius of (Q, K/8) codes -> distances and ids, Q arrays each.

        By distance, then id; of an approximate index, those in the lists that a query sees.
        ValueError for a radius outside 0..K or another width.

        >>> index = HammingIndex(np.array([[0], [1], [255]], np.uint8))
        >>> distances, ids = index.within(np.array([[0]], np.uint8), radius=1)
        >>> ids[0].tolist()
        [0, 1]
        """
        query_codes, bits = self._checked("query", query_codes), 8 * self._index.code_size
        if not 0 <= radius <= bits:
            raise ValueError(f"radius={radius} must lie in 0..{bits}, the number of bits")
        # What faiss finds lies below its threshold, not at it.
        limits, distances, found = self._index.range_search(query_codes, int(radius) + 1)
        distances, limits = distances.astype(np.int32), limits.astype(np.int64)
        ids = self._ids[found] if self.lists is None else found
        query = np.repeat(np.arange(len(query_codes)), np.diff(limits))
        order = np.lexsort((ids, distances, query))
        return tuple(np.split(array[order], limits[1:-1]) for array in (distances, ids))

    def recall(self, query_codes: np.ndarray, k: int) -> float:
        """Measure the share of the k nearest of (Q, K/8) codes that `search` finds, 0 to 1.

        By distance, as ties make ids arbitrary: what is as near as the true k-th counts as found.
        The truth comes from all lists, at the cost of an exact search.

        >>> codes = np.random.default_rng(0).integers(0, 256, (1000, 8), dtype=np.uint8)
        >>> HammingIndex(codes, lists=16, probes=16).recall(codes[:10], k=5)  # all lists are seen
        1.0
        """
        distances, _ = self.search(query_codes, k)
        if self.lists is None:
            return 1.0
        true, _ = self._search_lists(self._checked("query", query_codes), k, self.lists)
        return float((distances <= true[:, -1:]).mean())

    def save(self, path: PathLike) -> None:
        """Write the index to the HDF5 file `path`, whole or not at all, ended by a checksum.

        >>> HammingIndex(np.array([[0], [1]], np.uint8)).save("films.index")
        """
        facts, kept = self.__getstate__()
        with written_whole(path, sealed=True) as new, new_hdf5(new) as file:
            file.attrs.update({"hamming_index": INDEX_VERSION} | facts)
            for name, array in kept.items():
                file[name] = array

    @classmethod
    def load(cls, path: PathLike) -> "HammingIndex":
        """Read what `save` wrote: the same answers, and ids go on as they would have.

        Raises FileNotFoundError, and `DataError` for damage and for files of another kind.

        >>> HammingIndex(np.array([[0], [1]], np.uint8)).save("films.index")
        >>> len(HammingIndex.load("films.index"))
        2
        """
        check_seal(path)
        with refusing_damage(path), h5py.File(path) as file:
            if file.attrs.get("hamming_index") != INDEX_VERSION:
                raise DataError(f"{path}: holds no index that this version of the kit has saved.")
            facts = {name: int(file.attrs[name]) for name in ("bits", "next_id", "probes")}
            names = ["codes", "ids"] + (["centres", "sizes"] if facts["probes"] else [])
            kept = {name: own(file, name)[:] for name in names}
        _check_kept(path, facts, **kept)
        index = cls.__new__(cls)
        index.__setstate__((facts, kept))
        return index

    def __getstate__(self):
        kept = {"ids": self._ids}
        if self.lists is None:
            kept["codes"] = _codes_of(self._index)
        else:
            kept["ids"], kept["codes"], kept["sizes"] = _contents_of_lists(self._index)
            kept["centres"] = _codes_of(self._index.quantizer)
        bits, probes = 8 * self._index.code_size, self.probes or 0
        return {"bits": bits, "next_id": self._next_id, "probes": probes}, kept

    def __setstate__(self, state):
        facts, kept = state
        lists = len(kept["centres"]) if facts["probes"] else None
        self._index = _empty_index(facts["bits"] // 8, lists)
        self._ids, self._next_id = np.sort(kept["ids"]), facts["next_id"]
        if lists is None:
            self._index.add(np.ascontiguousarray(kept["codes"]))
        else:
            self.probes = facts["probes"]
            _fill_lists(self._index, **kept)

    def __sizeof__(self) -> int:
        """Bytes of codes and ids: dask weighs them before it moves an index."""
        return len(self) * (self._index.code_size + 8)

    def _checked(self, name, codes):
        codes, width = check_codes(name, codes), self._index.code_size
        if codes.shape[1] != width:
            raise ValueError(f"{name} codes have {codes.shape[1]} bytes, the index {width}")
        return np.ascontiguousarray(codes)

    def _search_lists(self, query_codes, k, probes):
        import faiss

        nearest = faiss.SearchParametersIVF(nprobe=probes)
        distances, ids = self._index.search(query_codes, k, params=nearest)
        if len(short := np.flatnonzero(ids[:, -1] < 0)):  # -1: these lists hold fewer than k codes
            more = min(2 * probes, self.lists)
            distances[short], ids[short] = self._search_lists(query_codes[short], k, more)
        order = np.lexsort((ids, distances))
        return tuple(np.take_along_axis(array, order, axis=1) for array in (distances, ids))


def check_count(k: int, items: int) -> None:
    """Raise ValueError unless k lies in 1..`items`.

    >>> check_count(3, items=10)
    """
    if not 1 <= k <= items:
        raise ValueError(f"k={k} must lie in 1..{items}, the number of items to find")


def _check_lists(count, lists, probes):
    if (lists is None) != (probes is None):
        raise ValueError("an approximate index needs both lists and probes, an exact one neither")
    if lists is None:
        return
    if lists < 1:
        raise ValueError(f"lists={lists} must be 1 or more")
    _check_probes(lists, probes)
    if count < CODES_A_LIST * lists:
        needed = f"{CODES_A_LIST * lists} codes or more, {CODES_A_LIST} a list, and has {count}"
        raise ValueError(f"lists={lists} needs {needed}; an exact index needs no lists")


def _check_probes(lists, probes):
    if not 1 <= probes <= lists:
        raise ValueError(f"probes={probes} must lie in 1..{lists}, the number of lists")


def _empty_index(width, lists):
    """Make an index of codes of `width` bytes, with as many lists, or exact for None."""
    import faiss  # slow to import, and only an index needs it

    flat = faiss.IndexBinaryFlat(8 * width)
    # Counting instead of a heap: quicker, and a tie keeps the items that come first.
    flat.use_heap = False
    return flat if lists is None else faiss.IndexBinaryIVF(flat, 8 * width, lists)


def _codes_of(flat):
    import faiss

    codes = faiss.vector_to_array(faiss.downcast_IndexBinary(flat).xb)
    return codes.reshape(-1, flat.code_size)


def _contents_of_lists(index):
    """Copy what lies in the lists, in its order -> ids (N,), codes (N, K/8), sizes (L,)."""
    from faiss.contrib.inspect_tools import get_invlist

    lists = [get_invlist(index.invlists, number) for number in range(index.nlist)]
    ids, codes = (np.concatenate(parts) for parts in zip(*lists))
    return ids, codes, np.array([len(ids) for ids, _ in lists])


def _fill_lists(index, ids, codes, sizes, centres):
    """Put codes into the lists that they lay in, in their order: ties are then cut alike."""
    import faiss

    index.quantizer.add(centres)
    index.is_trained, ends = True, np.cumsum(sizes)[:-1]
    for number, (its_ids, its_codes) in enumerate(zip(np.split(ids, ends), np.split(codes, ends))):
        if len(its_ids):
            pointers = faiss.swig_ptr(its_ids), faiss.swig_ptr(its_codes)
            index.invlists.add_entries(number, len(its_ids), *pointers)
    index.ntotal = len(ids)


def _check_kept(path, facts, codes, ids, centres=None, sizes=None):
    """Refuse a file whose parts do not fit each other: faiss itself would read past their ends."""
    shape = len(ids), facts["bits"] // 8
    if facts["bits"] % 8 or codes.shape != shape or codes.dtype != np.uint8:
        found = f"`codes` are {codes.dtype} {codes.shape}"
        raise DataError(f"{path}: {found}, not {shape[0]} codes of {facts['bits']} bits.")
    fits = ids.dtype == np.int64 and len(np.unique(ids)) == len(ids)
    fits = fits and (not len(ids) or (ids.min() >= 0 and ids.max() < facts["next_id"]))
    if sizes is not None:
        fits = fits and centres.dtype == np.uint8 and centres.shape == (len(sizes), shape[1])
        fits = fits and sizes.min() >= 0 and sizes.sum() == len(ids)
        fits = fits and facts["probes"] <= len(sizes)
    if not fits:
        raise DataError(f"{path}: its `ids` or lists do not fit its codes. Save the index anew.")


def retrieve(
    dataset: VideoDataset, index: HammingIndex, query_codes: np.ndarray, query: int, k: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Search the k nearest of one query -> distances (k,), indices (k,), relevant (k,) bool.

    `query_codes` (Q, K/8) are those of all queries; without labels, `relevant` is None. Where the
    query set is the database (`self_query`), a video does not find itself. ValueError for more
    than there is to find.

    >>> from vidhash_lab import LSH, encode, open_dataset
    >>> data = open_dataset("digit-stories-mini")
    >>> model = LSH.for_dataset(data, bits=16).prepare(data.train, seed=0)
    >>> index = HammingIndex(encode(model, data.database))
    >>> distances, found, relevant = retrieve(data, index, encode(model, data.query), query=0, k=5)
    >>> found.shape, relevant.dtype
    ((5,), dtype('bool'))
    """
    check_count(k, len(index) - dataset.self_query)
    nearest = index.search(query_codes[[query]], k + dataset.self_query)
    distances, found = (array[0] for array in nearest)
    if dataset.self_query:
        others = np.flatnonzero(found != query)[:k]  # among many at distance 0 it may be missing
        distances, found = distances[others], found[others]
    if dataset.query.labels is None or dataset.database.labels is None:
        return distances, found, None
    relevant = is_relevant(dataset.query.labels[query], dataset.database.labels[found])
    return distances, found, relevant


def nearest_frames(
    features: torch.Tensor | np.ndarray, feature_set: FeatureSet, videos: int = 500
) -> np.ndarray:
    """Show features (M, D) as the nearest frame of the first `videos` -> (M, h, w[, 3]) uint8.

    >>> from vidhash_lab import open_dataset
    >>> videos = open_dataset("digit-stories-mini").query
    >>> nearest_frames(videos.rows([0])[0, :3], videos, videos=20).shape
    (3, 32, 32)
    """
    import faiss

    rows = np.arange(min(videos, len(feature_set)))
    index = faiss.IndexFlatL2(feature_set.feature_dim)
    index.add(feature_set.rows(rows).flatten(0, 1).numpy())
    _, found = index.search(torch.as_tensor(features).float().numpy(), 1)
    video, frame = np.divmod(found[:, 0], feature_set.num_frames)
    return feature_set.pictures(video)[np.arange(len(video)), frame]
