"""The code map: all videos of a set as points in the browser, to hover over, to click, to colour.

Points, codes and film strips are sent to the browser once, as bytes: only choosing a query asks the
kernel. The map is blank on GitHub and in HTML, so notebooks show a static picture first.
"""

import io
from pathlib import Path

import anywidget
import numpy as np
import traitlets
from PIL import Image

from vidhash_lab.data.features import FeatureSet
from vidhash_lab.plots.style import COLOURS
from vidhash_lab.retrieval.hamming import check_codes, is_relevant
from vidhash_lab.retrieval.search import HammingIndex

STRIP_WIDTH, STRIP_HEIGHT = 320, 24  # pixels; square frames: 13 of them
QUALITY = 50  # of JPEG, 1 to 95: smaller here, and written faster, than WebP and PNG
MOST_FRAMES = 40_000  # in all strips together: under 10 MB to send
HINT = "Click a point, or choose one by the arrow keys and Enter: its nearest codes are searched."


class CodeMap(anywidget.AnyWidget):
    """Videos as points: hover for the film strip, click to see the k nearest codes.

    positions (N, 2) are any projection, say a UMAP; `feature_set` holds the same N videos, codes
    (N, K/8) are packed. Colours stand for a category (of a video's first label), a story (fine
    label) or one bit; without labels for a bit alone. ValueError for what does not fit together.

    Set `query`, `colour_by`, `bit` and `category` from browser or kernel, None for no choice.
    `nearest` answers: {query, videos, distances, relevant}; relevant is None without labels.

    >>> from vidhash_lab import open_dataset
    >>> from vidhash_lab.retrieval.codes import pack
    >>> videos = open_dataset("digit-stories-mini").query
    >>> generator = np.random.default_rng(0)
    >>> codes = pack(generator.choice([-1, 1], (len(videos), 16)))
    >>> map_of_codes = CodeMap(generator.random((len(videos), 2)), videos, codes, k=5)
    >>> map_of_codes.query = 3
    """

    _esm = Path(__file__).with_suffix(".js").read_text()
    _css = Path(__file__).with_suffix(".css").read_text()
    data = traitlets.Dict().tag(sync=True)  # what never changes: see `browser_data`
    colour_by = traitlets.Unicode().tag(sync=True)  # one of `data["colourings"]`
    bit = traitlets.Int(0).tag(sync=True)
    category = traitlets.Int(None, allow_none=True).tag(sync=True)
    query = traitlets.Int(None, allow_none=True).tag(sync=True)
    nearest = traitlets.Dict().tag(sync=True)
    status = traitlets.Unicode(HINT).tag(sync=True)

    def __init__(
        self, positions: np.ndarray, feature_set: FeatureSet, codes: np.ndarray, *, k: int = 10
    ):
        codes = check_codes("map", codes)
        positions = check_positions(positions, len(codes), len(feature_set))
        if k < 1:
            raise ValueError(f"k={k} must be 1 or more")
        data = browser_data(positions, feature_set, codes)
        data["k"] = min(k, len(codes) - 1)
        self._index, self._codes, self._labels = HammingIndex(codes), codes, feature_set.labels
        super().__init__(data=data, colour_by=data["colourings"][0])

    def __repr__(self):
        return f"CodeMap({len(self._codes)} videos, {8 * self._codes.shape[1]} bits)"

    @traitlets.validate("query", "category", "bit", "colour_by")
    def _check_choice(self, proposal):
        name, value = proposal["trait"].name, proposal["value"]
        choices = {
            "query": range(len(self._codes)),
            "category": range(len(self.data["category_names"])),
            "bit": range(8 * self._codes.shape[1]),
            "colour_by": self.data["colourings"],
        }[name]
        if value is not None and value not in choices:
            raise traitlets.TraitError(f"{name} {value!r} is not in {choices}")
        return value

    @traitlets.observe("query")
    def _search(self, _):
        with self.hold_sync():
            if self.query is None:
                self.nearest, self.status = {}, HINT
                return
            found = nearest_videos(self._index, self._codes, self.query, self.data["k"])
            self.nearest, self.status = answer(self.query, *found, self._labels)


def check_positions(positions, num_codes, num_videos):
    """Return positions as (N, 2) float32; ValueError says what does not fit.

    >>> check_positions([[0, 1], [2, 3]], num_codes=2, num_videos=2).dtype
    dtype('float32')
    """
    positions = np.asarray(positions, np.float32)
    if positions.ndim != 2 or positions.shape[1] != 2:
        raise ValueError(f"positions must be (N, 2), a point for each video, not {positions.shape}")
    if not len(positions) == num_codes == num_videos:
        counts = f"{len(positions)} positions, {num_codes} codes and {num_videos} videos"
        raise ValueError(f"{counts}: each video needs one position and one code")
    if num_codes < 2:
        raise ValueError("a map needs two videos or more")
    wrong = np.flatnonzero(~np.isfinite(positions).all(1))
    if len(wrong):
        raise ValueError(
            f"positions of {len(wrong)} videos are NaN or infinite, first video {wrong[0]}. UMAP "
            "gives NaN to points that it leaves out: leave those videos out too."
        )
    return positions


def browser_data(positions, feature_set, codes):
    """Gather what the browser needs to draw, arrays as little-endian bytes.

    >>> from vidhash_lab import open_dataset
    >>> videos = open_dataset("digit-stories-mini").query
    >>> data = browser_data(np.zeros((60, 2), "f4"), videos, np.zeros((60, 2), np.uint8))
    >>> "positions" in data
    True
    """
    labels = {"category": feature_set.labels, "story": feature_set.fine_labels}
    categories, stories = (first_labels(each, len(codes)) for each in labels.values())
    strips, ends = strip_jpegs(feature_set)
    return {
        "positions": positions.astype("<f4").tobytes(),
        "codes": codes.tobytes(),
        "bits": 8 * codes.shape[1],
        "categories": categories.astype("<i4").tobytes(),
        "stories": stories.astype("<i4").tobytes(),
        "story_ranks": story_ranks(categories, stories).astype("<i4").tobytes(),
        "strips": strips,
        "strip_ends": ends.astype("<u4").tobytes(),
        "palette": list(COLOURS),
        "colourings": [name for name in labels if labels[name] is not None] + ["bit"],
        "category_names": label_names(feature_set, "category", labels["category"]),
        "story_names": label_names(feature_set, "story", labels["story"]),
    }


def strip_jpegs(feature_set):
    """Shrink videos to film strips -> their JPEGs one after the other, and where each ends (N,).

    >>> from vidhash_lab import open_dataset
    >>> jpegs, ends = strip_jpegs(open_dataset("digit-stories-mini").query)
    >>> len(ends), len(jpegs) - int(ends[-1])
    (60, 0)
    """
    N, T = len(feature_set), feature_set.num_frames
    h, w = feature_set.pictures(0).shape[2:4]
    width = max(1, round(STRIP_HEIGHT * w / h))
    count = int(np.clip(STRIP_WIDTH // width, 1, max(1, min(T, MOST_FRAMES // N))))
    chosen = ((np.arange(count) + 0.5) * T / count).astype(int)  # the middle of every part
    strips = []
    for rows in np.split(np.arange(N), range(100, N, 100)):
        for frames in feature_set.pictures(rows)[:, chosen]:
            strip = Image.fromarray(np.hstack(frames))
            strip = strip.resize((count * width, STRIP_HEIGHT), Image.Resampling.BILINEAR)
            pixels = np.array(strip)
            pixels[:, width - 1 :: width] = 255  # a gap between frames
            jpeg = io.BytesIO()
            Image.fromarray(pixels).save(jpeg, "JPEG", quality=QUALITY, optimize=True)
            strips.append(jpeg.getvalue())
    return b"".join(strips), np.cumsum([len(strip) for strip in strips])


def first_labels(labels, N):
    """Find each video's first label of a multi-hot (N, C) -> (N,), -1 where there is none.

    >>> first_labels(np.array([[0, 1], [0, 0], [1, 1]]), 3).tolist()
    [1, -1, 0]
    """
    if labels is None:
        return np.full(N, -1)
    return np.where(labels.any(1), labels.argmax(1), -1)


def story_ranks(categories, stories):
    """Number the stories within their category from 0: both (N,) -> (N,), -1 for no story.

    >>> story_ranks(np.array([0, 0, 1]), np.array([4, 5, 6])).tolist()
    [0, 1, 0]
    """
    ranks = np.full(len(stories), -1)
    for category in np.unique(categories):
        members = np.flatnonzero((categories == category) & (stories >= 0))
        ranks[members] = np.unique(stories[members], return_inverse=True)[1]
    return ranks


def label_names(feature_set, kind, labels):
    """List the names of categories or stories: the file's own, `category_names`, else numbers.

    >>> from vidhash_lab import open_dataset
    >>> videos = open_dataset("digit-stories-mini").query
    >>> len(label_names(videos, "category", videos.labels))
    20
    """
    count = 0 if labels is None else labels.shape[1]
    names = feature_set.attributes.get(f"{kind}_names", ())
    if len(names) == count:
        return [str(name) for name in names]
    return [f"{kind} {number}" for number in range(count)]


def nearest_videos(index, codes, query, k):
    """Search the k nearest of one of an index's own codes, itself left out -> distances, videos.

    >>> from vidhash_lab import HammingIndex
    >>> codes = np.array([[0], [1], [255]], np.uint8)
    >>> distances, videos = nearest_videos(HammingIndex(codes), codes, query=0, k=2)
    >>> distances.tolist(), videos.tolist()
    ([1, 8], [1, 2])
    """
    distances, videos = index.search(codes[[query]], min(k + 1, len(index)))
    others = videos != query  # among many equal codes, itself need not be found
    return distances[others][:k], videos[others][:k]


def answer(query, distances, videos, labels):
    """Describe the videos found -> `nearest` for the browser, and the status line.

    >>> nearest, status = answer(0, np.array([1, 8]), np.array([1, 2]), labels=None)
    >>> status
    'video 0: 2 nearest, distances 1 to 8'
    """
    nearest = {"query": query, "videos": videos.tolist(), "distances": distances.tolist()}
    nearest["relevant"], text = None, f"{len(videos)} nearest"
    if labels is not None:
        relevant = is_relevant(labels[query], labels[videos])
        nearest["relevant"] = relevant.tolist()
        text = f"{relevant.sum()} of {text} share its category"
    return nearest, f"video {query}: {text}, distances {distances[0]} to {distances[-1]}"
