"""Search: the exact nearest codes of a database, and the nearest frames by features."""

import faiss
import numpy as np
import torch

from vidhash_lab.retrieval.hamming import check_codes


class HammingIndex:
    """Exact nearest neighbours among packed codes (N, K/8) uint8; `len(index)` is N."""

    def __init__(self, codes):
        codes = np.ascontiguousarray(check_codes("database", codes))
        self._index = faiss.IndexBinaryFlat(8 * codes.shape[1])
        # Counting instead of a heap: quicker, and a tie keeps the items that come first.
        self._index.use_heap = False
        self._index.add(codes)

    def __len__(self):
        return self._index.ntotal

    def search(self, query_codes, k):
        """Find the k nearest of (Q, K/8) codes -> distances (Q, k) int32, indices (Q, k) int64.

        Sorted by distance, then by place in the database. ValueError for k outside 1..N and for
        codes of another width.
        """
        query_codes = check_codes("query", query_codes)
        if query_codes.shape[1] != self._index.code_size:
            raise ValueError(
                f"query codes have {query_codes.shape[1]} bytes, the index {self._index.code_size}"
            )
        if not 1 <= k <= len(self):
            raise ValueError(f"k={k} must lie in 1..{len(self)}, the number of items in the index")
        return self._index.search(np.ascontiguousarray(query_codes), k)


def retrieve(dataset, index, query_codes, query, count):
    """Search one query of a data set -> database rows (R,), distances (R,), relevant (R,) bool.

    `index` is a `HammingIndex` of the database, `query_codes` (Q, K/8); a result is relevant when
    it shares a label with the query.
    """
    distances, found = (array[0] for array in index.search(query_codes[query : query + 1], count))
    relevant = (dataset.database.labels[found] & dataset.query.labels[query]).any(1)
    return found, distances, relevant


def nearest_frames(features, feature_set, videos=500):
    """Find the frames of the first `videos` of a set that lie nearest to features (M, D).

    Returns their pictures (M, h, w[, 3]): a way to look at features, which are none.
    """
    rows = np.arange(min(videos, len(feature_set)))
    index = faiss.IndexFlatL2(feature_set.feature_dim)
    index.add(feature_set.rows(rows).flatten(0, 1).numpy())
    _, found = index.search(torch.as_tensor(features).float().numpy(), 1)
    video, frame = np.divmod(found[:, 0], feature_set.num_frames)
    return feature_set.pictures(video)[np.arange(len(video)), frame]
