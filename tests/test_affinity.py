"""Affinity propagation against scikit-learn, one video at a time."""

import warnings

import numpy as np
import pytest
import torch
from sklearn.cluster import AffinityPropagation
from sklearn.exceptions import ConvergenceWarning

from vidhash_lab import open_dataset
from vidhash_lab.affinity import TIE, NotConverged, affinity_propagation


def minus_squared_distances(frames):
    return -(frames[:, :, None] - frames[:, None]).double().square().sum(3)


@pytest.fixture(scope="module")
def similarities():
    """Return a function kind -> (B, M, M); all but "random" are symmetric and full of ties."""
    generator = torch.Generator().manual_seed(0)
    frames = open_dataset("digit-stories-mini").train.rows(range(64))
    kinds = {
        "random": torch.rand(64, 14, 14, generator=generator).double(),
        "even": minus_squared_distances(torch.randn(64, 12, 5, generator=generator)),
        "grid": minus_squared_distances(torch.randint(4, (64, 9, 2), generator=generator)),
        "frames": minus_squared_distances(frames),
        "some frames": minus_squared_distances(frames[:, ::2]),
    }
    return lambda kind: kinds[kind].clone()


def scikit_learn(similarities, damping=0.5, iterations=200, preference=None, broken_ties=True):
    """One video (M, M) -> exemplars (M,) bool and labels (M,); None if it has not converged."""
    matrix = similarities.numpy().copy()
    preference = np.median(matrix) if preference is None else preference
    np.fill_diagonal(matrix, preference)
    loss = broken_ties * TIE * np.abs(matrix).max() * np.sqrt(np.arange(len(matrix)))
    model = AffinityPropagation(
        damping=damping,
        max_iter=iterations,
        preference=preference - loss,
        affinity="precomputed",
        random_state=0,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        try:
            model.fit(matrix - loss)
        except ConvergenceWarning:
            return None
    return np.isin(np.arange(len(matrix)), model.cluster_centers_indices_), model.labels_


def ours(similarities, *arguments, **options):
    """Exemplars, labels, and the places of the videos that did not converge."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        exemplars, labels = affinity_propagation(similarities, *arguments, **options)
    assert [warning.category for warning in caught] in ([], [NotConverged])
    return exemplars, labels, caught[0].message.videos if caught else []


def check(similarities, preferences, damping, iterations, **options):
    """Compare every video of a batch, and which of them did not converge -> their number."""
    options = {"damping": damping, "iterations": iterations, **options}
    given = None if preferences[0] is None else torch.stack(preferences)
    batch = dict(damping=damping, iterations=iterations, preference=given)
    exemplars, labels, lost = ours(similarities, **batch)
    for video, (matrix, preference) in enumerate(zip(similarities, preferences)):
        number = None if preference is None else preference.item()
        expected = scikit_learn(matrix, preference=number, **options)
        assert (video in lost) == (expected is None)
        if expected is not None:
            assert exemplars[video].tolist() == expected[0].tolist()
            assert labels[video].tolist() == expected[1].tolist()
    return len(lost)


@pytest.mark.parametrize("kind", ["random", "even", "grid", "frames", "some frames"])
@pytest.mark.parametrize("damping, iterations", [(0.5, 200), (0.5, 20), (0.75, 100), (0.9, 200)])
def test_every_video_is_as_scikit_learn_has_it(similarities, kind, damping, iterations):
    batch = similarities(kind)
    lost = check(batch, [None] * len(batch), damping, iterations)
    assert lost < len(batch) or iterations == 20


@pytest.mark.parametrize("kind", ["random", "frames"])
@pytest.mark.parametrize("quantile", [0.0, 0.2, 0.9])
def test_other_preferences_are_as_scikit_learn_has_them(similarities, kind, quantile):
    batch = similarities(kind)
    lost = check(batch, list(batch.flatten(1).quantile(quantile, dim=1)), 0.6, 200)
    assert lost < len(batch)


def test_without_ties_nothing_need_be_broken(similarities):
    batch = similarities("random")
    lost = check(batch, [None] * len(batch), 0.7, 200, broken_ties=False)
    assert lost < len(batch) / 4


def test_a_number_is_the_preference_of_every_video(similarities):
    batch = similarities("random")
    by_number, by_video = (
        ours(batch, preference=preference) for preference in (0.4, torch.full((64,), 0.4))
    )
    assert by_number[2] == by_video[2]
    torch.testing.assert_close(by_number[:2], by_video[:2])


def test_a_video_does_not_depend_on_the_others(similarities):
    batch = torch.cat([similarities("random"), similarities("even").repeat(1, 2, 2)[:, 5:19, 5:19]])
    exemplars, labels, lost = ours(batch, iterations=60)
    assert 0 < len(lost) < len(batch)
    alone = [ours(video[None], iterations=60) for video in batch]
    assert torch.equal(exemplars, torch.cat([video[0] for video in alone]))
    assert torch.equal(labels, torch.cat([video[1] for video in alone]))


def test_scenes_are_numbered_by_the_time_of_their_exemplars(similarities):
    exemplars, labels, _ = ours(similarities("frames"))
    for mask, scene in zip(exemplars, labels):
        assert scene[mask].tolist() == list(range(int(mask.sum())))


def test_the_scenes_of_a_plain_video_are_found():
    frames = torch.tensor([0.0, 0.1, 0.3, 9.0, 9.1, 9.2, 9.5, 4.0, 4.1])[None, :, None]
    exemplars, labels, _ = ours(minus_squared_distances(frames))
    assert labels.tolist() == [[0, 0, 0, 1, 1, 1, 1, 2, 2]]
    assert exemplars[0].nonzero()[:, 0].tolist() == [1, 5, 7]  # of frames 7 and 8 the earlier


def test_a_video_that_does_not_converge_is_one_scene_and_is_named(similarities):
    batch = similarities("random")
    exemplars, labels, lost = ours(batch, 0.5, 100)
    assert 0 < len(lost) < len(batch)
    assert (labels[lost] == 0).all() and (exemplars[lost].sum(1) == 1).all()
    batch.diagonal(dim1=1, dim2=2).zero_()
    assert exemplars[lost].int().argmax(1).tolist() == batch[lost].sum(1).argmax(1).tolist()
    with pytest.warns(NotConverged, match=f"{len(lost)} of 64 videos.*[Mm]ore damping"):
        affinity_propagation(similarities("random"), 0.5, 100)
    assert len(ours(batch, 0.5, 15)[2]) == len(batch)  # too few to see that it is steady


@pytest.mark.parametrize("value", [0.0, 1.0, -3.0])
@pytest.mark.parametrize("frames", [1, 2, 3, 12])
def test_identical_frames_are_one_scene(value, frames):
    exemplars, labels, lost = ours(torch.full((3, frames, frames), value))
    assert labels.tolist() == [[0] * frames] * 3 and lost == []
    assert exemplars.tolist() == [[True] + [False] * (frames - 1)] * 3


def test_equal_similarities_below_the_preference_are_a_scene_each(similarities):
    batch = similarities("frames")[:3]
    batch[1] = -1.0
    exemplars, labels, _ = ours(batch, preference=-0.5)
    assert exemplars[1].all() and labels[1].tolist() == list(range(25))
    assert (labels[[0, 2]] == ours(batch[[0, 2]], preference=-0.5)[1]).all()


def test_two_frames_are_two_scenes_unless_they_are_equal():
    frames = torch.tensor([[[0.0], [1.0]], [[2.0], [2.0]]])
    exemplars, labels, _ = ours(minus_squared_distances(frames))
    assert labels.tolist() == [[0, 1], [0, 0]]
    assert exemplars.tolist() == [[True, True], [True, False]]
    assert ours(minus_squared_distances(frames), preference=-5)[1].tolist() == [[0, 0], [0, 0]]


def test_a_repeated_frame_belongs_to_the_scene_of_its_twin():
    frames = torch.tensor([0.0, 5.0, 0.0, 5.0, 0.0, 5.5])[None, :, None]
    exemplars, labels, _ = ours(minus_squared_distances(frames))
    assert labels.tolist() == [[0, 1, 0, 1, 0, 1]]
    assert exemplars[0].nonzero()[:, 0].tolist() == [0, 1]


def test_an_empty_batch_has_no_scenes():
    exemplars, labels = affinity_propagation(torch.zeros(0, 5, 5))
    assert exemplars.shape == labels.shape == (0, 5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_other_dtypes_are_computed_in_float64_and_left_alone(similarities, dtype):
    batch = similarities("random").to(dtype).requires_grad_()
    before = batch.detach().clone()
    exemplars, labels, lost = ours(batch)
    assert exemplars.dtype == torch.bool and labels.dtype == torch.int64
    assert torch.equal(batch.detach(), before)
    expected = ours(before.double())
    assert torch.equal(labels, expected[1]) and lost == expected[2]


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_a_similarity_that_is_no_number_names_its_video(similarities, value):
    batch = similarities("random")
    batch[5, 2, 3] = value
    with pytest.raises(ValueError, match="video 5 "):
        affinity_propagation(batch)


def test_wrong_arguments_say_what_is_wrong(similarities):
    batch = similarities("random")
    for wrong in (batch[0], batch[:, :3], torch.zeros(2, 0, 0)):
        with pytest.raises(ValueError, match=r"\(B, M, M\)"):
            affinity_propagation(wrong)
    for damping in (0.4, 1.0):
        with pytest.raises(ValueError, match="damping"):
            affinity_propagation(batch, damping)
    for preference in (torch.zeros(3), torch.nan):
        with pytest.raises(ValueError, match=r"preference.*\(64,\)"):
            affinity_propagation(batch, preference=preference)
