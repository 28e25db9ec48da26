"""The code map without a browser: what is sent, what the kernel answers, what it refuses."""

import io

import numpy as np
import pytest
import traitlets
from PIL import Image

from vidhash_lab.data import FeatureSet, open_dataset
from vidhash_lab.retrieval.search import HammingIndex
from vidhash_lab.widgets.code_map import (
    HINT,
    STRIP_HEIGHT,
    CodeMap,
    first_labels,
    label_names,
    nearest_videos,
    story_ranks,
    strip_jpegs,
)


@pytest.fixture(scope="module")
def database():
    return open_dataset("digit-stories-mini").database


@pytest.fixture(scope="module")
def codes(database):
    """Codes of 16 bits: of 300 videos, many lie at equal distances."""
    return np.random.default_rng(0).integers(0, 256, (len(database), 2), dtype=np.uint8)


@pytest.fixture(scope="module")
def positions(database):
    return np.random.default_rng(1).normal(size=(len(database), 2))


def unlabelled(random_features, N=30):
    return FeatureSet(random_features(shape=(N, 6, 8), labels=0))


def test_a_query_is_answered_with_its_nearest_codes(database, codes, positions):
    shown = CodeMap(positions, database, codes)
    assert shown.nearest == {} and shown.status == HINT
    bits = np.unpackbits(codes, axis=1).astype(int)
    for query in (0, 17, len(codes) - 1):
        shown.query = query
        distances = np.abs(bits - bits[query]).sum(1)
        order = [i for i in np.argsort(distances, kind="stable") if i != query][:10]
        relevant = (database.labels[order] & database.labels[query]).any(1)
        assert shown.nearest == {
            "query": query,
            "videos": order,
            "distances": distances[order].tolist(),
            "relevant": relevant.tolist(),
        }
        assert shown.status == (
            f"video {query}: {relevant.sum()} of 10 nearest share its category, "
            f"distances {distances[order[0]]} to {distances[order[-1]]}"
        )
    shown.query = None
    assert shown.nearest == {} and shown.status == HINT


def test_a_query_among_equal_codes_is_left_out_wherever_it_stands():
    codes = np.zeros((8, 2), np.uint8)
    for query in range(8):
        distances, found = nearest_videos(HammingIndex(codes), codes, query, 3)
        assert len(found) == 3 and query not in found and not distances.any()


def test_query_and_answer_reach_the_browser_in_one_message(database, codes, positions):
    """Else the browser lights new neighbours under an old status line, or the other way round."""
    shown, sent = CodeMap(positions, database, codes), []
    shown.send_state = lambda key=None: sent.append({key} if isinstance(key, str) else set(key))
    shown.query = 3
    assert {"nearest", "status"} in [keys - {"query"} for keys in sent]


def test_the_browser_gets_the_arrays_back_bit_for_bit(database, codes, positions):
    data = CodeMap(positions, database, codes).data
    assert np.array_equal(
        np.frombuffer(data["positions"], "<f4").reshape(-1, 2), positions.astype(np.float32)
    )
    assert data["codes"] == codes.tobytes() and data["bits"] == 16
    assert np.array_equal(np.frombuffer(data["categories"], "<i4"), database.labels.argmax(1))
    assert np.array_equal(np.frombuffer(data["stories"], "<i4"), database.fine_labels.argmax(1))
    assert data["colourings"] == ["category", "story", "bit"]
    assert data["category_names"] == list(database.attributes["category_names"])


@pytest.mark.parametrize("colour", [False, True])
def test_every_film_strip_is_a_picture_of_its_video(colour):
    """A stand-in set of wide frames, each of one brightness of its own."""

    class Wide:
        num_frames = 20
        brightness = np.add.outer(np.arange(7) * 20, np.arange(20) * 6).astype(np.uint8)

        def __len__(self):
            return 7

        def pictures(self, rows):
            frames = self.brightness[np.atleast_1d(rows), :, None, None]
            frames = np.broadcast_to(frames, (*frames.shape[:2], 30, 60))
            return np.stack([frames] * 3, -1) if colour else frames

    strips, ends = strip_jpegs(Wide())
    assert ends[-1] == len(strips)
    for video, (start, end) in enumerate(zip([0, *ends], ends)):
        picture = np.asarray(Image.open(io.BytesIO(strips[start:end])).convert("L"), float)
        assert picture.shape[0] == STRIP_HEIGHT and picture.shape[1] == 6 * 48
        middles = picture[12, 24::48]
        expected = Wide.brightness[video, [1, 5, 8, 11, 15, 18]]
        assert np.abs(middles - expected).max() < 8


def test_strips_of_two_thousand_videos_would_stay_small(database):
    strips, ends = strip_jpegs(database)
    assert len(strips) / len(ends) * 2000 < 10e6
    first = Image.open(io.BytesIO(strips[: ends[0]]))
    assert first.size == (13 * 24, 24)


def test_stories_are_counted_within_their_category():
    categories = np.array([0, 0, 0, 1, 1, 1, 0, -1])
    stories = np.array([4, 5, 4, 9, 2, -1, 7, 3])
    assert story_ranks(categories, stories).tolist() == [0, 1, 0, 1, 0, -1, 2, 0]


def test_a_video_of_several_labels_is_drawn_as_its_first():
    labels = np.array([[0, 1, 1], [0, 0, 0], [1, 0, 0]], bool)
    assert first_labels(labels, 3).tolist() == [1, -1, 0]
    assert first_labels(None, 2).tolist() == [-1, -1]


def test_labels_without_names_are_numbered(database):
    class Nameless:
        attributes = {"story_names": ["one name too few"]}  # noqa: RUF012

    assert label_names(Nameless, "story", np.zeros((3, 2))) == ["story 0", "story 1"]
    assert label_names(Nameless, "category", None) == []
    assert label_names(database, "story", database.fine_labels)[0] == "1→8→3"


def test_a_set_without_labels_is_coloured_by_bit(random_features):
    videos = unlabelled(random_features)
    assert videos.labels is None
    codes = np.arange(30, dtype=np.uint8)[:, None]
    shown = CodeMap(np.zeros((30, 2)), videos, codes)
    assert shown.data["colourings"] == ["bit"] and shown.colour_by == "bit"
    shown.query = 0
    assert shown.nearest["relevant"] is None
    assert shown.status == "video 0: 10 nearest, distances 1 to 2"


def test_a_small_set_shows_what_it_has(random_features):
    shown = CodeMap(np.eye(4)[:, :2], unlabelled(random_features, 4), np.eye(4, dtype=np.uint8))
    shown.query = 2
    assert sorted(shown.nearest["videos"]) == [0, 1, 3]


@pytest.mark.parametrize(
    "trait, wrong",
    [("query", 300), ("query", -1), ("bit", 16), ("category", 20), ("colour_by", "mood")],
)
def test_what_does_not_exist_is_refused(database, codes, positions, trait, wrong):
    shown = CodeMap(positions, database, codes)
    before = getattr(shown, trait)
    with pytest.raises(traitlets.TraitError, match=str(wrong)):
        setattr(shown, trait, wrong)
    assert getattr(shown, trait) == before


def test_what_does_not_fit_together_is_refused(database, codes, positions):
    with pytest.raises(ValueError, match="299 positions, 300 codes and 300 videos"):
        CodeMap(positions[:-1], database, codes)
    with pytest.raises(ValueError, match="300 positions, 5 codes"):
        CodeMap(positions, database, codes[:5])
    with pytest.raises(ValueError, match="must be packed bits"):
        CodeMap(positions, database, codes.astype(float))
    with pytest.raises(ValueError, match=r"not \(300, 3\)"):
        CodeMap(np.zeros((300, 3)), database, codes)
    with pytest.raises(ValueError, match="k=0"):
        CodeMap(positions, database, codes, k=0)
    broken = positions.copy()
    broken[[7, 9], 0] = np.nan
    with pytest.raises(ValueError, match="of 2 videos are NaN or infinite, first video 7"):
        CodeMap(broken, database, codes)


def test_a_notebook_keeps_no_bytes_of_it(database, codes, positions):
    shown = CodeMap(positions, database, codes)
    assert repr(shown) == "CodeMap(300 videos, 16 bits)"
    assert len(str(shown._repr_mimebundle_())) < 1000
