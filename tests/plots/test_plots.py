"""Figures: the right pictures in the right places, nothing cut off at the edges."""

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from vidhash_lab import METHODS, evaluate, plots
from vidhash_lab.checkpoints import History
from vidhash_lab.hash_centres import hadamard_codes
from vidhash_lab.retrieval.code_space import bit_use, pair_distances

GENERATOR = np.random.default_rng(0)
FRAMES = GENERATOR.integers(0, 200, (25, 32, 32), dtype=np.uint8)
MASKED = np.zeros((2, 25), bool)
MASKED[0, :12] = MASKED[1, 13:] = True
CODES = GENERATOR.integers(0, 256, (30, 2), dtype=np.uint8)
LABELS = np.eye(3, dtype=bool)[np.arange(30) % 3]
RESULT = evaluate(CODES[:8], CODES, LABELS[:8], LABELS, k=(5,))
TASKS = {"one": [("tcp://a", 0, 1)], "two": [("tcp://b", 0, 0.5), ("tcp://a", 0.2, 1.5)]}


def pixels(figure):
    """Draw the figure -> (h, w, 3)."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3]


def images(figure):
    return [axis.images[0].get_array() for axis in figure.axes if axis.images]


def shows(drawn, frame):
    """Whether a frame was drawn, up to the coarser grey levels of film strips."""
    return np.abs(drawn.astype(int) - frame).max() < 32


def history(epochs=4):
    return History(
        {
            "epoch": e,
            "reconstruction": 1 / e,
            "loss": 2 / e,
            "seconds": 1.0,
            "threads": 2,
            "videos_per_second": 9,
        }
        for e in range(1, epochs + 1)
    )


def every_figure():
    colour = np.repeat(FRAMES[..., None], 3, axis=3)
    results = np.stack([FRAMES] * 10)
    yield plots.film_strip(FRAMES, "a title")
    yield plots.film_strip(colour)
    yield plots.cuts(FRAMES[:9], np.arange(9) + 0.5, np.arange(90) / 10, np.ones(90), [3.0, 7.0])
    yield plots.masked_views(FRAMES, MASKED)
    yield plots.masked_views(FRAMES, MASKED, ["one", "two"])
    yield plots.reconstruction(FRAMES, MASKED[0], FRAMES)
    yield plots.query_results(FRAMES, results, range(10), [True, False] * 5, 64)
    yield plots.film_strips(results[:3], ["a", "b", "c"], ["red", "blue", "black"])
    yield plots.gates(FRAMES, {"one": GENERATOR.random((25, 8)), "two": GENERATOR.random((25, 8))})
    yield plots.scenes(FRAMES, {"found": [0] * 25, "true": range(25)})
    yield plots.variants(("x", {"a": [0.1, 0.2]}), ("y", {"a": [1, 2]}), note="n")
    yield plots.spreads(("x", {"a": [0, 0, 1]}), ("y", {"a": [1, 2]}), note="n", share_x=True)
    yield plots.ablation({"a": [0.1, 0.2], "b": [0.3]}, {"a": 0.4}, xlabel="mAP", source="paper")
    yield plots.training_curves({"one": history(), "other": history()})
    yield plots.mean_curves([0.1, 0.5], {"ConMH": [[0.1, 0.2], [0.3, 0.4]]}, xlabel="x", ylabel="y")
    yield plots.mean_curves(
        [1], {"a": [[0.1]]}, xlabel="x", ylabel="y", references={"b": 0.2}, note="n"
    )
    yield plots.code_rows(GENERATOR.integers(0, 256, (5, 8), dtype=np.uint8))
    yield plots.bars({"a": 1.0, "b": 1000.0}, xlabel="ms", logarithmic=True, note="on two cores")
    yield plots.precision_recall({"16": {"a": RESULT, "b": RESULT}, "32": {"a": RESULT}})
    yield plots.radius_curves({"a": RESULT})
    yield plots.bands({"a": (0.1, 0.2, 0.4, [0.15, 0.3]), "b": (0, 0.5, 1)}, xlabel="AP", note="n")
    yield plots.within_radius(RESULT.radius, 2, FRAMES, results, range(10), [True, False] * 5)
    yield plots.within_radius(RESULT.radius, 0, FRAMES, results[:0], [], [])
    points, lit = GENERATOR.random((50, 2)), {"one": np.arange(50) < 9, "two": np.arange(50) > 30}
    yield plots.code_maps({"a": points, "b": points, "c": points}, lit, {n: "note" for n in "abc"})
    yield plots.bit_balance({"a": bit_use(CODES), "b": bit_use(CODES)})
    yield plots.distance_histograms({"a": pair_distances(CODES, LABELS)}, note="n")
    centres, alike = hadamard_codes(20, 16), np.eye(20)
    yield plots.hash_centres({"a": centres, "b": -centres}, alike, {"a": "one", "b": "two"})
    yield plots.hash_centres({"a": centres}, alike)
    curves = {"measured": ([1, 10, 100], [2, 30, 400]), "computed": ([1, 100], [1, 100])}
    yield plots.growth(("N", "ms", curves), ("N", "MB", curves), dashed=["computed"], linear=["MB"])
    searched = {"a": ([1, 2], [0.8, 1.0], [1, 2]), "b": ([1, 2], [0.1, 0.2], [1, 2])}
    yield plots.recall_for_time(searched, 90.0, xlabel="milliseconds", note="n")
    yield plots.memory_over_time({"a": ([0, 1], [2, 3])}, ylabel="MB", levels={"file": 5}, note="n")
    yield plots.tasks_over_time(TASKS, killed={"two": ("tcp://b", 0.7)})
    yield plots.needs({"GB": {"a": 1e-3, "b": 2e6}, "hours": {"a": 0.5, "b": 1e5}}, note="n")
    yield plots.messages(points[:6], {t: (-GENERATOR.random((6, 6)),) * 2 for t in "abcd"})
    line, colours = np.arange(9), [plots.BLUE] * 4
    yield plots.structures(line, line[1:5], [line[:5]] * 4, list("abcd"), colours, range(4))
    yield plots.gate_templates({"one": GENERATOR.random((3, 25, 8))}, 1)


@pytest.mark.parametrize("figure", list(every_figure()))
def test_every_figure_fits_the_page_and_its_canvas(figure):
    assert isinstance(figure, Figure) and figure.get_size_inches()[0] <= 10
    drawn = pixels(figure)
    assert drawn.std() > 0
    renderer = figure.canvas.get_renderer()
    for axis in figure.axes:
        for text in (axis.title, axis.xaxis.label, axis.yaxis.label):
            box = text.get_window_extent(renderer)
            assert not text.get_text() or (box.y0 >= -1 and box.y1 <= drawn.shape[0] + 1)


def test_a_film_strip_holds_every_frame_in_order():
    (strip,) = images(plots.film_strip(FRAMES))
    assert strip.shape == (32, 25 * 33 - 1)
    for number, frame in enumerate(FRAMES):
        assert shows(strip[:, number * 33 : number * 33 + 32], frame)


def test_views_paint_the_hidden_frames_out_and_leave_the_video_alone():
    before = FRAMES.copy()
    video, view1, _ = images(plots.masked_views(FRAMES, MASKED))
    assert shows(video[:, :32], FRAMES[0])
    assert np.unique(view1[:, :32]).size == 1
    assert shows(view1[:, -32:], FRAMES[-1])
    assert np.array_equal(FRAMES, before)


def test_reconstruction_shows_guesses_where_frames_were_hidden():
    guesses = 200 - FRAMES
    _, visible, guessed = images(plots.reconstruction(FRAMES, MASKED[0], guesses))
    assert shows(guessed[:, :32], guesses[0]) and np.unique(visible[:, :32]).size == 1
    assert shows(visible[:, -32:], FRAMES[-1]) and np.unique(guessed[:, -32:]).size == 1


def test_right_and_wrong_results_differ_in_sign_and_colour():
    figure = plots.query_results(FRAMES, FRAMES[None][[0, 0]], [3, 11], [True, False], 64)
    first, second = (axis.texts[0] for axis in figure.axes[1:])
    assert (first.get_text(), second.get_text()) == ("✓  3 / 64", "✗  11 / 64")
    assert first.get_color() != second.get_color()


def test_results_of_videos_without_labels_have_no_sign():
    figure = plots.query_results(FRAMES, FRAMES[None][[0, 0]], [3, 11], None, 64)
    assert [axis.texts[0].get_text() for axis in figure.axes[1:]] == ["3 / 64", "11 / 64"]
    assert {axis.texts[0].get_color() for axis in figure.axes[1:]} == {plots.GREY}


def test_codes_draw_plus_one_dark():
    (drawn,) = images(plots.code_rows(np.array([[0b10000001]], np.uint8)))
    assert drawn[0].tolist() == [0, 1, 1, 1, 1, 1, 1, 0]


def test_more_curves_than_colours_are_all_drawn_and_all_look_different():
    names = [f"method {n}" for n in range(9)]
    figure = plots.training_curves({name: history() for name in names})
    lines = figure.axes[0].lines
    assert len({(line.get_color(), line.get_linestyle()) for line in lines}) == len(names)
    figure = plots.mean_curves([0, 1], {n: [[0.1], [0.2]] for n in names}, xlabel="x", ylabel="y")
    looks = {(drawn[0].get_color(), drawn[0].get_marker()) for drawn in figure.axes[0].containers}
    assert len(looks) == len(names)


def test_a_method_has_one_colour_in_every_figure_and_no_other_method_has_it():
    colours = {name: plots.method_colour(name) for name in METHODS}
    assert len(set(colours.values())) == len(METHODS) and plots.INK not in colours.values()
    for name, colour in colours.items():
        labels = ["another", f"{name}, 16 bits", METHODS[name].__name__, "chance"]
        own = {label: RESULT for label in labels}
        lines = plots.radius_curves(own).axes[0].lines[: len(labels)]
        drawn = [line.get_color() for line in lines]
        assert drawn[1] == drawn[2] == colour and colour not in (drawn[0], drawn[3])
        assert len({(line.get_color(), line.get_linestyle()) for line in lines}) == len(labels)
        bars = plots.bars({name: 1.0, "other": 2.0}, xlabel="x").axes[0].patches
        assert [to_rgb(bar.get_facecolor()[:3]) for bar in bars] == [
            to_rgb(each) for each in (colour, plots.INK)
        ]


def test_a_spread_goes_no_further_than_its_values():
    (axis,) = plots.spreads(("bits", {"half the size": [0, 0, 0, 9]})).axes
    (ends,) = axis.containers[0][2][0].get_segments()
    np.testing.assert_allclose(ends[:, 0], np.quantile([0, 0, 0, 9], (0.25, 0.75)))
    assert axis.lines[0].get_xdata().tolist() == [0]


def test_no_bar_begins_at_the_edge_of_a_logarithmic_axis():
    (axis,) = plots.bars({"a": 1.0, "b": 1000.0}, xlabel="ms", logarithmic=True).axes
    assert not axis.patches
    assert axis.collections[0].get_offsets().tolist() == [[1, 0], [1000, 1]]


def test_mean_curves_show_mean_deviation_and_every_seed():
    runs = np.array([[0.1, 0.3], [0.5, 0.9]])
    figure = plots.mean_curves([0.25, 0.5], {"ConMH": runs}, xlabel="mask ratio", ylabel="mAP@20")
    axis = figure.axes[0]
    np.testing.assert_allclose(axis.lines[0].get_ydata(), [0.2, 0.7])
    assert len(axis.collections[0].get_offsets()) == 4
    bar = axis.containers[0][2][0].get_segments()[0]
    np.testing.assert_allclose(bar[:, 1], 0.2 + np.array([-1, 1]) * runs[0].std(ddof=1))


def test_gates_show_time_along_the_strip_and_channels_sorted():
    opening = np.zeros((25, 3))
    opening[:, 1], opening[4, 0] = 1, 0.5  # channel 1 is open, channel 0 at frame 4 by half
    strip, drawn = images(plots.gates(FRAMES, {"gate": opening}))
    assert strip.shape == (32, 25 * 33 - 1)
    np.testing.assert_array_equal(drawn, opening.T[[2, 0, 1]])


def test_an_ablation_shows_published_values_only_where_there_are_some():
    figure = plots.ablation({"a": [0.1], "b": [0.3]}, {"b": 0.4}, xlabel="x")
    ours, theirs = figure.axes
    assert [text.get_text() for text in theirs.texts] == ["0.400"]
    assert theirs.lines[0].get_ydata() == [1]
    assert [label.get_text() for label in ours.get_yticklabels()] == ["a", "b"]


def test_the_two_scales_of_an_ablation_have_one_span():
    runs = {"a": [0.1, 0.15], "b": [0.5]}
    figure = plots.ablation(runs, {"a": 0.24, "b": 0.25}, xlabel="x")
    (low, high), (left, right) = (axis.get_xlim() for axis in figure.axes)
    assert high - low == pytest.approx(right - left) and low < 0.1 < 0.5 < high
    assert (left + right) / 2 == pytest.approx(0.245, abs=0.01)


def test_scenes_have_one_colour_each():
    _, bar = images(plots.scenes(FRAMES, {"found": [0] * 5 + [1] * 20}))
    assert bar.shape == (1, 25, 3)
    assert (bar[0, :5] == bar[0, 0]).all() and (bar[0, 5:] == bar[0, 5]).all()
    assert (bar[0, 0] != bar[0, 5]).any()


def test_a_band_shows_what_ties_leave_open():
    drawn = plots.precision_recall({"": {"a": RESULT, "b": RESULT}}, shaded=["b"]).axes[0]
    (band,) = drawn.collections
    assert band.get_facecolor()[0, :3].tolist() == list(to_rgb(drawn.lines[1].get_color()))
    vertices, recall = band.get_paths()[0].vertices, np.linspace(0, 1, 200)
    for ties in ("worst", "best"):
        bound = evaluate(CODES[:8], CODES, LABELS[:8], LABELS, k=(5,), ties=ties)
        wanted = np.column_stack([recall, bound.precision_at(recall)])
        assert all(np.isclose(vertices, point).all(axis=1).any() for point in wanted)
    np.testing.assert_array_equal(drawn.lines[0].get_xdata(), RESULT.recall)


def test_curves_of_different_protocols_cannot_share_a_figure():
    other = evaluate(CODES[:9], CODES, LABELS[:9], LABELS, k=(5,))
    with pytest.raises(ValueError, match=r"different protocols.*8 queries.*9 queries"):
        plots.precision_recall({"": {"a": RESULT, "b": other}})
    narrow = evaluate(CODES[:8, :1], CODES[:, :1], LABELS[:8], LABELS, k=(5,))
    note = plots.precision_recall({"8": {"a": narrow}, "16": {"a": RESULT}})._supxlabel.get_text()
    assert "8 queries -> 30 items, ties expected" in note


def test_groups_are_named_where_they_are_dense_and_never_over_each_other():
    crowd, stray = GENERATOR.normal(5, 0.1, (20, 2)), [[-9.0, 9.0], [-9.0, -9.0], [9.0, -9.0]]
    points = np.vstack([crowd, stray, crowd + 0.01, GENERATOR.normal(-5, 0.1, (20, 2))])
    rows = np.arange(len(points))
    groups = {"one": rows < 23, "over it": (rows >= 23) & (rows < 43), "away": rows >= 43}
    groups["nobody"] = rows < 0
    axis = plots.code_maps({"a": points}, groups, columns=1).axes[0]
    places = {text.get_text(): text.xy for text in axis.texts}
    assert set(places) == {"one", "away"}
    np.testing.assert_allclose([*places["one"], *places["away"]], [5, 5, -5, -5], atol=0.5)


def test_more_groups_than_can_be_told_apart_are_refused():
    groups = {str(number): np.zeros(4, bool) for number in range(7)}
    with pytest.raises(ValueError, match="7 groups; 6 can be told apart"):
        plots.code_maps({"a": np.zeros((4, 2))}, groups)


def test_hash_centres_count_each_pair_once_and_show_it_over_its_similarity():
    codes = np.array([[1, 1, 1, 1], [1, 1, 1, -1], [-1, -1, -1, -1]])  # 1, 4 and 3 bits apart
    similarity = np.array([[1, 0.5, -0.9], [0.5, 1, -0.4], [-0.9, -0.4, 1]])
    bars, cloud = plots.hash_centres({"a": codes}, similarity).axes
    (steps,) = bars.patches
    assert np.allclose(steps.get_data().values, np.array([0, 1, 0, 1, 1]) / 3)
    assert np.allclose(cloud.collections[0].get_offsets(), [[0.5, 2], [-0.9, -4], [-0.4, -2]])


def test_what_is_computed_is_dashed_and_what_is_measured_has_points():
    curves = {"measured": ([1, 10], [2, 30]), "computed": ([1, 10], [3, 4])}
    (axis,) = plots.growth(("N", "ms", curves), dashed=["computed"]).axes
    assert [line.get_linestyle() for line in axis.lines] == ["-", "--"]
    assert [line.get_marker() for line in axis.lines] == ["o", "None"]
    assert axis.lines[1].get_ydata().tolist() == [3, 4]
    assert (axis.get_xscale(), axis.get_yscale()) == ("log", "log")
    (axis,) = plots.growth(("N", "share", curves), linear=["share"]).axes
    assert (axis.get_xscale(), axis.get_yscale()) == ("log", "linear")


def test_every_number_of_probes_stands_at_its_point():
    figure = plots.recall_for_time({"a": ([1, 2], [0.8, 1.0], [4, 16])}, 90.0, xlabel="ms")
    (axis,) = figure.axes
    assert [(text.get_text(), text.xy) for text in axis.texts] == [("4", (1, 0.8)), ("16", (2, 1))]


def test_a_killed_worker_is_crossed_where_it_worked():
    one, two = plots.tasks_over_time(TASKS, killed={"two": ("tcp://b", 0.7)}).axes
    assert not one.lines and two.lines[0].get_marker() == "x"
    assert (two.lines[0].get_xdata()[0], two.lines[0].get_ydata()[0]) == (0.7, 1)
    bars = [(bar.get_x(), bar.get_width(), round(bar.get_y() + 0.275)) for bar in two.patches]
    assert bars == [(0, 0.5, 1), (0.2, 1.3, 0)]


def test_needs_have_their_numbers_within_the_picture():
    figure = plots.needs({"GB": {"a": 1e-3, "b": 2e6}, "hours": {"a": 0, "b": 1e5}})
    pixels(figure)
    for axis, numbers in zip(figure.axes, (["0.001", "2,000,000"], ["0", "100,000"])):
        assert [text.get_text() for text in axis.texts] == numbers
        right = axis.get_window_extent().x1
        assert all(text.get_window_extent().x1 <= right + 2 for text in axis.texts)
