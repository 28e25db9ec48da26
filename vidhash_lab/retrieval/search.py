"""Search: the exact nearest codes of a database, and the nearest frames by features."""

import numpy as np
import torch

from vidhash_lab.data.features import FeatureSet, VideoDataset
from vidhash_lab.retrieval.hamming import check_codes, is_relevant


class HammingIndex:
    """Exact nearest neighbours among packed codes (N, K/8) uint8; `len(index)` is N."""

    def __init__(self, codes: np.ndarray):
        import faiss  # slow to import, and only an index needs it

        codes = np.ascontiguousarray(check_codes("database", codes))
        self._index = faiss.IndexBinaryFlat(8 * codes.shape[1])
        # Counting instead of a heap: quicker, and a tie keeps the items that come first.
        self._index.use_heap = False
        self._index.add(codes)

    def __len__(self) -> int:
        return self._index.ntotal

    def search(self, query_codes: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Find the k nearest of (Q, K/8) codes -> distances (Q, k) int32, indices (Q, k) int64.

        By distance, then place in the database. ValueError for k outside 1..N or another width.
        """
        query_codes, width = check_codes("query", query_codes), self._index.code_size
        if query_codes.shape[1] != width:
            raise ValueError(f"query codes have {query_codes.shape[1]} bytes, the index {width}")
        if not 1 <= k <= len(self):
            raise ValueError(f"k={k} must lie in 1..{len(self)}, the number of items in the index")
        return self._index.search(np.ascontiguousarray(query_codes), k)


def retrieve(
    dataset: VideoDataset, index: HammingIndex, query_codes: np.ndarray, query: int, k: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Search the k nearest of one query -> distances (k,), indices (k,), relevant (k,) bool.

    `query_codes` (Q, K/8) are those of all queries; without labels, `relevant` is None.
    """
    distances, found = (array[0] for array in index.search(query_codes[[query]], k))
    if dataset.query.labels is None or dataset.database.labels is None:
        return distances, found, None
    relevant = is_relevant(dataset.query.labels[query], dataset.database.labels[found])
    return distances, found, relevant


def nearest_frames(
    features: torch.Tensor | np.ndarray, feature_set: FeatureSet, videos: int = 500
) -> np.ndarray:
    """Show features (M, D) as the nearest frame of the first `videos` -> (M, h, w[, 3]) uint8."""
    import faiss

    rows = np.arange(min(videos, len(feature_set)))
    index = faiss.IndexFlatL2(feature_set.feature_dim)
    index.add(feature_set.rows(rows).flatten(0, 1).numpy())
    _, found = index.search(torch.as_tensor(features).float().numpy(), 1)
    video, frame = np.divmod(found[:, 0], feature_set.num_frames)
    return feature_set.pictures(video)[np.arange(len(video)), frame]
