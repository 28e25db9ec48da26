"""Hash centres: codes of clusters, all of them far apart, and the nearer the more alike two are.

S5VH (AAAI 2025) draws each video's code to the centre of its cluster. The centres start as rows of
a Hadamard matrix and are improved by two measured ends: the least Hamming distance between two of
them, and the correlation of their inner products with the similarity of the clusters.

Different from the released code, on purpose. There, l_p-box ADMM inverts thousands of matrices for
each centre in turn, and judges by signed differences of cosines, of which too near and too far
cancel. Here one bit after another is flipped, for as long as that raises, over all pairs,

    correlation(inner products, similarities) - bits by which pairs are nearer than the margin

A bit of distance costs more than any correlation repays. The margin is Gilbert's and Varshamov's:
a distance at which as many codes are known to exist. `benchmarks/hash_centres.py` measures both
ends, beside those of the start and of random codes.

K bits, C clusters, W width of a cluster's feature centre, P pairs of clusters in both orders.
"""

import numpy as np

LEAST_GAIN = 1e-6  # of correlation, for which a bit is still flipped


def semantic_centres(features: np.ndarray, bits: int, seed: int = 0) -> np.ndarray:
    """Find the hash centres of clusters with feature centres (C, W) -> (C, K) float32, -1 or +1.

    >>> features = np.random.default_rng(0).standard_normal((6, 10))
    >>> centres = semantic_centres(features, bits=16)
    >>> centres.shape, both_ends(centres, similarities(features))[0]  # least distance of two
    ((6, 16), 6)
    """
    codes = hadamard_codes(len(features), bits, seed).astype(np.float64)
    return flip_bits(codes, similarities(features), margin(len(features), bits)).astype(np.float32)


def similarities(features: np.ndarray) -> np.ndarray:
    """Cosines of feature centres (C, W), seen from their mean -> (C, C).

    >>> similarities([[1.0, 0.0], [-1.0, 0.0]]).round(3).tolist()
    [[1.0, -1.0], [-1.0, 1.0]]
    """
    centred = np.asarray(features, np.float64) - np.mean(features, axis=0, dtype=np.float64)
    centred /= np.linalg.norm(centred, axis=1, keepdims=True).clip(1e-12)
    return centred @ centred.T


def hadamard_codes(count: int, bits: int, seed: int = 0) -> np.ndarray:
    """Take codes (count, K) from a Hadamard matrix, all or half of their bits apart.

    Rows come first, then their negatives, then the same with the signs of all columns drawn anew,
    for as many codes as are asked for. Where K is no power of two, columns of the next larger
    matrix are left out.

    >>> hadamard_codes(3, bits=4).tolist()
    [[1, 1, 1, 1], [1, -1, 1, -1], [1, 1, -1, -1]]
    """
    from scipy.linalg import hadamard  # imported where it is used: it takes a while

    rows = hadamard(1 << (bits - 1).bit_length())[:, :bits]
    rows = np.concatenate([rows, -rows])
    generator = np.random.default_rng(seed)
    others = [rows * generator.choice([-1, 1], bits) for _ in range((count - 1) // len(rows))]
    return np.concatenate([rows, *others])[:count]


def margin(count: int, bits: int) -> int:
    """Largest distance at which so many codes of K bits exist for certain (Gilbert, Varshamov).

    They exist at distance d where count times the codes nearer than d to one is at most 2^K.

    >>> margin(100, bits=64)
    23
    """
    from scipy.stats import binom

    return int(binom.ppf(1 / count, bits, 0.5))


def flip_bits(codes: np.ndarray, similarity: np.ndarray, least_distance: int) -> np.ndarray:
    """Flip bits of codes (C, K), centre after centre, until no flip raises the objective.

    The correlation of P products g with similarities s of mean 0 and length 1 is
    sum(s g) / root(sum(g^2) - sum(g)^2 / P), so three sums tell what every flip would make of it.

    >>> similarity = similarities(np.random.default_rng(0).standard_normal((40, 10)))
    >>> start = hadamard_codes(40, bits=16).astype(float)
    >>> ends = [both_ends(codes, similarity) for codes in (start, flip_bits(start, similarity, 3))]
    >>> [(least, round(correlation, 1)) for least, correlation in ends]
    [(4, 0.0), (3, 0.9)]
    """
    codes, largest = codes.copy(), codes.shape[1] - 2 * least_distance  # the product at the margin
    products, s = codes @ codes.T, _standardised(similarity)
    np.fill_diagonal(products, 0)
    pairs = max(1, products.size - len(products))
    sums = np.array([products.sum(), (products**2).sum(), (s * products).sum()])
    flipped = True
    while flipped:
        flipped = False
        for centre in range(len(codes)):
            while True:
                now = products[centre][:, None]
                after = now - 2 * codes * codes[centre]  # (C, K): with each of its bits flipped
                after[centre] = 0
                too_near = (after - largest).clip(0).sum(0) - (now - largest).clip(0).sum()
                change = np.stack([after.sum(0), (after**2).sum(0), s[centre] @ after])
                change -= np.stack([now.sum(), (now**2).sum(), s[centre] @ now[:, 0]])[:, None]
                possible = sums[:, None] + 2 * change  # pairs are counted in both orders
                gain = _correlation(possible, pairs) - _correlation(sums, pairs) - too_near / 2
                best = gain.argmax()
                if gain[best] < LEAST_GAIN:
                    break
                products[centre] = products[:, centre] = after[:, best]
                codes[centre, best] *= -1
                sums, flipped = possible[:, best], True
    return codes


def _standardised(similarity):
    """Bring similarities (C, C) of different clusters to mean 0 and length 1, zeros between."""
    s, others = np.array(similarity, np.float64), ~np.eye(len(similarity), dtype=bool)
    s -= s[others].mean() if others.any() else 0
    s *= others
    return s / np.linalg.norm(s).clip(1e-12)


def _correlation(sums, pairs):
    total, squares, shared = sums
    return shared / np.sqrt(np.maximum(squares - total**2 / pairs, 1.0))  # 1: all products alike


def both_ends(codes: np.ndarray, similarity: np.ndarray) -> tuple[int, float]:
    """Least Hamming distance of codes (C, K), and correlation with similarities (C, C).

    >>> codes = np.array([[1, 1, 1, 1], [1, 1, 1, -1], [-1, -1, 1, 1]])
    >>> least, correlation = both_ends(codes, codes @ codes.T)
    >>> least, round(correlation, 2)
    (1, 1.0)
    """
    pairs = np.triu_indices(len(codes), 1)
    products = (codes.astype(np.float64) @ codes.T)[pairs]
    least = int(codes.shape[1] - products.max()) // 2
    return least, float(np.corrcoef(products, similarity[pairs])[0, 1])
