"""Affinity propagation in many small sets at once: the scenes of every video of a batch.

B videos of M frames; similarity s(i, k) says how well frame k would stand for frame i. A round of
messages (Frey and Dueck, Clustering by Passing Messages Between Data Points, Science 2007) is

    rival(i, k) <- max of total(i, k') over k' other than k
    support(k)  <- s(k, k) - rival(k, k) + sum of max(0, s(i, k) - rival(i, k)) over i other than k
    total(i, k) <- min(s(i, k) + min(0, support(k)), rival(i, k) + support(k))
    total(k, k) <- rival(k, k) + support(k)

where rival and total move only the share 1 - damping of the way to their new values. The paper's
responsibility is s - rival, its availability total - s; frame k is an exemplar while total(k, k) >
rival(k, k). The rest is scikit-learn's, but for two things: of frames that stand for each other
equally well the earlier wins (see TIE; there, noise decides), and a video that has not converged is
one scene.
"""

import warnings

import numpy as np
import torch
from numba import njit

STEADY = 15  # rounds with the same exemplars after which a video has converged

# The similarities to frame k are lowered by TIE * sqrt(k) of the largest magnitude: less than
# float32 resolves, far more than float64's rounding. With square roots, hardly two sets of frames
# are lowered by the same sum.
TIE = 1e-9


class NotConverged(UserWarning):
    """Some videos were made one scene; `videos` lists their indices in the batch.

    >>> NotConverged([2], batch=8, iterations=200).videos
    [2]
    """

    def __init__(self, videos: list[int], batch: int, iterations: int):
        super().__init__(
            f"affinity propagation has not converged after {iterations} iterations for "
            f"{len(videos)} of {batch} videos: each is one scene. More damping (towards 1) or "
            "more iterations may help"
        )
        self.videos = videos


def affinity_propagation(
    similarities: torch.Tensor,
    damping: float = 0.5,
    iterations: int = 200,
    preference: float | torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Find scenes by similarities (B, M, M) -> exemplars (B, M) bool, labels (B, M) int64.

    `exemplars` marks the one frame that stands for each of S scenes, `labels` numbers the scenes
    0..S-1 in the order of these frames. A video that has not converged, of which `NotConverged`
    warns, is one scene, its exemplar the frame of the highest summed similarity. Equally similar
    frames are one scene too, unless the preference is higher still: then each is its own.
    Computed in float64 on the CPU, without gradient; no video depends on the others.

    `damping`, at least 0.5 and less than 1, is the share of the old message that is kept in each
    of at most `iterations` rounds. `preference` replaces the diagonal, the higher, the more scenes:
    one number, or one a video (B,); None is the median of each matrix. ValueError for a wrong
    shape, damping or preference, and for similarities that are not finite.

    >>> from torch import tensor
    >>> places = tensor([0.0, 0.1, 0.3, 5.0, 5.1])  # five frames of one video
    >>> exemplars, scenes = affinity_propagation(-(places[:, None] - places).square()[None])
    >>> scenes.tolist(), exemplars[0].tolist()
    ([[0, 0, 0, 1, 1]], [False, True, False, True, False])
    """
    device = similarities.device
    similarities = _with_preference(similarities, damping, preference)
    preference, frames = similarities[:, 0, 0].clone(), similarities.shape[1]
    diagonal = torch.eye(frames, dtype=torch.bool)
    lowest = similarities.masked_fill(diagonal, torch.inf).amin((1, 2))
    alike = lowest >= similarities.masked_fill(diagonal, -torch.inf).amax((1, 2))

    loss = TIE * torch.arange(frames, dtype=torch.float64).sqrt()
    similarities -= similarities.abs().amax((1, 2), keepdim=True) * loss
    exemplars = (alike & (preference > lowest))[:, None].repeat(1, frames)
    # In one thread: a parallel loop would reset torch's threads.
    by_candidate, found = similarities.mT.contiguous().numpy(), exemplars.numpy()  # a view
    for video in np.flatnonzero(~alike):
        found[video] &= exchange(by_candidate[video], damping, iterations, found[video])
    lost = ~(alike | exemplars.any(1))
    if lost.any():
        videos = lost.nonzero()[:, 0].tolist()
        warnings.warn(NotConverged(videos, len(lost), iterations), stacklevel=2)
    return tuple(found.to(device) for found in _scenes(similarities, exemplars))


def _with_preference(similarities, damping, preference):
    """Check the arguments -> similarities in float64, a copy with the preference as diagonal."""
    if similarities.ndim != 3 or not similarities.shape[1] == similarities.shape[2] > 0:
        raise ValueError(f"similarities must be (B, M, M), not {tuple(similarities.shape)}")
    if not 0.5 <= damping < 1:
        raise ValueError(f"damping must be at least 0.5 and less than 1, not {damping}")
    similarities = similarities.detach().to("cpu", torch.float64, copy=True)
    odd = ~similarities.sum((1, 2)).isfinite()
    if odd.any():
        raise ValueError(f"similarities of video {int(odd.nonzero()[0])} are NaN or infinite")
    if preference is None:
        flat = similarities.flatten(1)
        middle = {(flat.shape[1] + 1) // 2, flat.shape[1] // 2 + 1}  # one rank or two
        preference = sum(flat.kthvalue(rank).values for rank in middle) / len(middle)
    preference = torch.as_tensor(preference).detach().to(similarities)
    if preference.shape not in ((), similarities.shape[:1]) or not preference.isfinite().all():
        wanted = f"finite, one number or one for each video ({len(similarities)},)"
        raise ValueError(f"preference must be {wanted}, not {tuple(preference.shape)} or NaN")
    similarities.diagonal(dim1=1, dim2=2).copy_(preference[..., None])
    return similarities


# The fast mathematics lets sums run in vector registers.
@njit(fastmath={"nnan", "nsz", "reassoc"}, nogil=True, cache=True)
def exchange(similarity, damping, iterations, exemplars):
    """Exchange messages of one video (M, M), by candidate; fill in `exemplars` -> converged?"""
    total, rival = similarity.copy(), similarity.copy()
    first, second = np.empty(len(total)), np.empty(len(total))  # of each frame's candidates
    frames, step, steady = len(total), 1 - damping, 0
    for iteration in range(iterations):
        first[:], second[:] = -np.inf, -np.inf
        for k in range(frames):
            for i in range(frames):
                second[i] = max(second[i], min(first[i], total[k, i]))
                first[i] = max(first[i], total[k, i])
        changed, count = False, 0
        for k in range(frames):
            support = 0.0
            for i in range(frames):
                other = second[i] if total[k, i] == first[i] else first[i]
                rival[k, i] += step * (other - rival[k, i])
                support += max(0.0, similarity[k, i] - rival[k, i])
            support += min(0.0, similarity[k, k] - rival[k, k])
            own = total[k, k] + step * (rival[k, k] + support - total[k, k])
            for i in range(frames):
                update = min(similarity[k, i] + min(0.0, support), rival[k, i] + support)
                total[k, i] += step * (update - total[k, i])
            total[k, k] = own
            changed |= exemplars[k] != (own > rival[k, k])
            exemplars[k] = own > rival[k, k]
            count += exemplars[k]
        steady = 1 if changed else steady + 1
        if iteration >= STEADY and steady >= STEADY and count:
            return True
    return False


def _scenes(similarities, exemplars):
    """Choose anew within each exemplar's scene, then join frames to them -> exemplars, labels."""
    scene = _nearest(similarities, exemplars)
    together = scene[:, :, None] == scene[:, None]
    inner = (similarities * together).sum(1, keepdim=True)  # of a frame's scene to that frame
    chosen = inner.where(together, -torch.inf).argmax(2)
    exemplars = torch.zeros_like(exemplars).scatter(1, chosen, True)
    return exemplars, (exemplars.cumsum(1) - 1).gather(1, _nearest(similarities, exemplars))


def _nearest(similarities, exemplars):
    """Return the exemplar of each frame (B, M) int64; frame 0 where there is none."""
    nearest = similarities.where(exemplars[:, None], -torch.inf).argmax(2)
    return torch.arange(nearest.shape[1]).where(exemplars, nearest)
