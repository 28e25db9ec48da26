"""Widgets for JupyterLab: controls left, picture right, a status line below.

A widget is blank on GitHub and in HTML, so notebooks show its static picture first.
"""

import base64
import html
import io
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import ipywidgets
import numpy as np
import torch
from IPython.display import HTML
from matplotlib.figure import Figure

from vidhash_lab import plots
from vidhash_lab.data.features import FeatureSet, VideoDataset
from vidhash_lab.models.chain import CHAIN
from vidhash_lab.models.conmh import ConMHConfig, draw_masks
from vidhash_lab.models.mcmsh import MCMSH
from vidhash_lab.retrieval import hamming
from vidhash_lab.retrieval.metrics import Evaluation
from vidhash_lab.retrieval.search import HammingIndex, retrieve

GATE_NAMES = {"L-RD, long range": "lrd", "M-RD, middle": "mrd", "S-RD, short": "srd"}
SLIDER = {"style": {"description_width": "100px"}, "continuous_update": False}


def panel(
    draw: Callable[..., tuple[Figure, str]], **controls: ipywidgets.ValueWidget
) -> ipywidgets.VBox:
    """Lay out controls beside the picture that `draw(**values) -> (Figure, status)` makes.

    The status stands below the picture, and is read out in its place to those who cannot see it.

    >>> import ipywidgets
    >>> from vidhash_lab.plots import bars
    >>> def draw(score):
    ...     return bars({"ITQ": score}, xlabel="mAP@20"), f"ITQ reaches {score}"
    ...
    >>> box = panel(draw, score=ipywidgets.FloatSlider(0.4, min=0, max=1))
    """
    layout = ipywidgets.Layout(
        flex="1 1 0%", min_width="0", max_width="820px", align_self="flex-start"
    )
    picture = ipywidgets.HTML(layout=layout)  # an Image widget has no text of its own
    status = ipywidgets.Label()

    def update(_=None):
        status.value = "drawing …"
        try:
            figure, text = draw(**{name: control.value for name, control in controls.items()})
            figure.savefig(png := io.BytesIO(), format="png", bbox_inches="tight")
            picture.value, status.value = _described(png.getvalue(), text), text
        except Exception as error:  # a widget's callback has no cell to show a traceback in
            status.value = f"{type(error).__name__}: {error}"

    for control in controls.values():
        control.observe(update, "value")
    update()
    left = ipywidgets.VBox(list(controls.values()), layout=ipywidgets.Layout(flex="0 0 300px"))
    return ipywidgets.VBox([ipywidgets.HBox([left, picture]), status])


def _described(png, text):
    """Write a picture as HTML that tells `text` to those who cannot see it."""
    data = base64.b64encode(png).decode()
    return (
        f'<img alt="{html.escape(text)}" style="max-width:100%" src="data:image/png;base64,{data}">'
    )


def query_browser(
    dataset: VideoDataset, index: HammingIndex, query_codes: np.ndarray, k: int = 10
) -> ipywidgets.VBox:
    """Choose a query of `query_codes` (Q, K/8), see its k nearest, right and wrong ones marked.

    >>> from vidhash_lab import LSH, encode, open_dataset
    >>> data = open_dataset("digit-stories-mini")
    >>> model = LSH.for_dataset(data, bits=16).prepare(data.train, seed=0)
    >>> index = HammingIndex(encode(model, data.database))
    >>> box = query_browser(data, index, encode(model, data.query), k=3)
    """

    def draw(query, k):
        distances, found, relevant = retrieve(dataset, index, query_codes, query, k)
        figure = plots.query_results(
            dataset.query.pictures(query)[0], dataset.database.pictures(found), distances, relevant,
            bits=8 * query_codes.shape[1],
        )  # fmt: skip
        text = f"{k} results, distances {distances[0]} to {distances[-1]}"
        if relevant is not None:
            text = f"{relevant.sum()} of {k} results share its category"
        return figure, f"query {query}: {text}"

    last, most = len(dataset.query) - 1, min(max(k, 20), len(index) - dataset.self_query)
    return panel(draw, query=_slider("query", 0, last), k=_slider("k", min(k, most), most, 1))


def radius_slider(
    dataset: VideoDataset, result: Evaluation, query_codes: np.ndarray, database_codes: np.ndarray
) -> ipywidgets.VBox:
    """Choose a radius and a query: a point on the `Evaluation`'s curve, and what it finds there.

    >>> from vidhash_lab import LSH, encode, open_dataset, score
    >>> data = open_dataset("digit-stories-mini")
    >>> model = LSH.for_dataset(data, bits=16).prepare(data.train, seed=0)
    >>> codes = encode(model, data.query), encode(model, data.database)
    >>> box = radius_slider(data, score(codes, data), *codes)
    """

    def draw(radius, query):
        away = hamming.distances(query_codes[[query]], database_codes)[0]  # (N,)
        wanted = hamming.is_relevant(dataset.query.labels[query], dataset.database.labels)  # (N,)
        found = away.argsort(kind="stable")[: (away <= radius).sum()]
        relevant = wanted[found]
        figure = plots.within_radius(
            result.radius, radius, dataset.query.pictures(query)[0],
            dataset.database.pictures(found[:8]), away[found], relevant,
        )  # fmt: skip
        text = f"query {query}, radius {radius}: {len(found)} found, {relevant.sum()} relevant; "
        missed = wanted.sum() - relevant.sum()
        return figure, text + f"{missed} of {wanted.sum()} relevant are missed"

    radius = _slider("radius", result.bits // 8, result.bits // 2)
    return panel(draw, radius=radius, query=_slider("query", 0, len(dataset.query) - 1))


def playable(
    paths: Sequence[str | Path], captions: Sequence[str], size: int = 96, num_frames: int = 25
) -> HTML:
    """Show video files side by side as films to be played, of `size` pixels and `num_frames`.

    >>> from vidhash_lab.videos.writing import write_video
    >>> write_video("film.mp4", np.zeros((10, 48, 64, 3), np.uint8))
    >>> "film of zeros" in playable(["film.mp4"], ["A film of zeros"], num_frames=5).data
    True
    """
    from vidhash_lab.videos.decoding import read_clip  # needs av; the other widgets do not
    from vidhash_lab.videos.pictures import Shape
    from vidhash_lab.videos.writing import write_video

    films = []
    with tempfile.TemporaryDirectory() as folder:
        for path, caption in zip(paths, captions):
            clip, small = read_clip(path, num_frames, Shape(size)), Path(folder) / "small.mp4"
            write_video(small, clip.frames, rate=5, crf="32")
            data = base64.b64encode(small.read_bytes()).decode()
            films.append(
                f'<figure style="display:inline-block;margin:4px"><video controls loop muted '
                f'width="150" src="data:video/mp4;base64,{data}"></video>'
                f"<figcaption>{html.escape(str(caption))}</figcaption></figure>"
            )
    return HTML("".join(films))


def mask_slider(frames: np.ndarray, seed: int = 0) -> ipywidgets.VBox:
    """Choose a mask ratio, see which frames of a video (T, h, w) the two views of ConMH show.

    >>> box = mask_slider(np.zeros((10, 16, 16)))
    """
    T = len(frames)

    def draw(hidden, order):
        config = ConMHConfig(num_frames=T, mask_ratio=hidden / T)
        masked = draw_masks(1, config, torch.Generator().manual_seed(seed + order))[:, 0]
        shared = int((~masked).all(0).sum())
        seen = f"each view sees {config.num_visible} of {T} frames, {shared} frames are in both"
        return plots.masked_views(frames, masked), f"mask ratio {hidden / T:.2f}: {seen}"

    hidden = _slider("hidden frames", T // 2, T - 1, 1)
    return panel(draw, hidden=hidden, order=_slider("random order", 0, 9))


def gate_browser(model: MCMSH, feature_set: FeatureSet) -> ipywidgets.VBox:
    """Choose a video and a place, see how far MCMSH's gates open there over time and channels.

    >>> from vidhash_lab import MCMSH, open_dataset
    >>> data = open_dataset("digit-stories-mini")
    >>> model = MCMSH.for_dataset(data, bits=16, hidden_dim=16, num_anchors=20)
    >>> box = gate_browser(model, data.query)
    """
    places = {"token mixer": "token_mixer.", "channel mixer": "channel_mixer.", "at the end": ""}

    def draw(video, place):
        with torch.inference_mode():
            openings = model.eval().mc_mlp.gate_openings(feature_set.rows(video))
        keys = {name: places[place] + gate for name, gate in GATE_NAMES.items()}
        chosen = {name: openings[key][0].numpy() for name, key in keys.items() if key in openings}
        span = np.concatenate([opening.ravel() for opening in chosen.values()])
        text = f"video {video}, {place}: gates open from {span.min():.2f} to {span.max():.2f}"
        return plots.gates(feature_set.pictures(video)[0], chosen), text

    # No dropdown: JupyterLab takes its arrow keys and goes to the next cell.
    place = ipywidgets.SelectionSlider(options=list(places), description="place", **SLIDER)
    return panel(draw, video=_slider("video", 0, len(feature_set) - 1), place=place)


def order_guesser(model: CHAIN, feature_set: FeatureSet) -> ipywidgets.VBox:
    """Shuffle the frames of a clip, see in which order CHAIN puts them.

    >>> from vidhash_lab import CHAIN, open_dataset
    >>> data = open_dataset("digit-stories-mini")
    >>> box = order_guesser(CHAIN.for_dataset(data, bits=16, hidden_dim=16, depth=1), data.query)
    """
    T, M = model.config.num_frames, model.config.clip_frames
    places = (torch.arange(M) * T + T // 2) // M  # the middle frame of every segment

    def draw(video, shuffle):
        order = torch.randperm(M, generator=torch.Generator().manual_seed(shuffle))
        with torch.inference_mode():
            shuffled = feature_set.rows(video)[:, places[order]]
            guess = model.eval().order_logits(shuffled)[0].softmax(1) @ torch.arange(float(M))
        pictures = feature_set.pictures(video)[0][places]
        rows = pictures[order], pictures[order[guess.argsort()]], pictures
        right = int((guess.argsort() == order.argsort()).sum())
        text = f"video {video}: {right} of {M} frames back in their place, chance is 1"
        return plots.film_strips(rows, ["shuffled", "as guessed", "as it was"]), text

    video = _slider("video", 0, len(feature_set) - 1)
    return panel(draw, video=video, shuffle=_slider("shuffle", 0, 9))


def _slider(description, value, highest, lowest=0):
    return ipywidgets.IntSlider(value, lowest, highest, description=description, **SLIDER)
