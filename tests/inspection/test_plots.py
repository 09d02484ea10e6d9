"""Figures: axes come back with units on them, what is drawn is what came in, and what does not fit is refused."""

from itertools import combinations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure

from evlib.detection.clocks import ClockLag
from evlib.detection.drift import TemplateDrift
from evlib.inspection import plots
from evlib.signals.errors import OptionError, ShapeError
from evlib.signals.events import Events
from evlib.signals.joined import Clock
from evlib.signals.recording import Recording
from evlib.templates.waveforms import channel_delays

RATE_HZ = 2000.0
NAMES = tuple("abcd")


@pytest.fixture(autouse=True)
def _no_figure_is_left_open():
    yield
    plt.close("all")


@pytest.fixture
def recording(rng):
    signal = rng.normal(size=(8000, 3)).astype(np.float32)
    signal[5000, 1] = 50.0
    return Recording(signal, RATE_HZ, channels=("x", "y", "z"), units="mV")


@pytest.fixture
def events():
    return Events.from_seconds([0.5, 1.0, 2.0, 3.0], ["a", "b", "a", "d"], RATE_HZ, NAMES)


def legend(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def row_names(ax):
    return [tick.get_text() for tick in ax.get_yticklabels()]


# Red-green blindness, as Machado, Oliveira and Fernandes (2009) simulate it on linear RGB.
EYES = {
    "normal": np.eye(3),
    "deutan": [[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]],
    "protan": [[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]],
}


@pytest.mark.parametrize("eye", EYES)
def test_eleven_methods_have_eleven_colours_for_every_eye(eye):
    starts = [f"{kind}, {pretext}" for kind in ("frames", "probe") for pretext in plots.PRETEXT_COLOURS]
    colours = plots.method_colours(["matched filter", "self-trained filter", "frames", *starts])
    assert len(colours) == 11
    linear = np.array([to_rgba(colour)[:3] for colour in colours.values()]) ** 2.2
    seen = np.clip(linear @ np.transpose(EYES[eye]), 0, 1)
    # CIELAB, where a distance of 2 is just seen when two colours touch.
    xyz = seen @ [[0.412, 0.213, 0.019], [0.358, 0.715, 0.119], [0.180, 0.072, 0.950]] / [0.950, 1.0, 1.089]
    x, y, z = np.cbrt(xyz).T
    lab = np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)]).T
    assert min(np.linalg.norm(a - b) for a, b in combinations(lab, 2)) > 20


def test_a_method_and_a_type_keep_their_colour():
    alone = plots.method_colours(["network"])["network"]
    beside = plots.method_colours(["mine", "network", "yours"])
    assert beside["network"] == alone and len(set(beside.values())) == 3
    assert len(np.unique(plots.type_colours(16), axis=0)) == 16


@pytest.mark.parametrize("bins", [100, 8001])
def test_recording(recording, events, bins):
    ax = Figure().subplots()
    assert plots.plot_recording(recording, events, ax=ax, bins=bins) is ax
    assert ax.get_xlabel() == "time (s)"
    assert [label.split("\n")[0] for label in row_names(ax)] == ["x", "y", "z"]
    # One unit, one scale.
    assert all(label.endswith("mV") for label in row_names(ax)) and len({r.split("\n")[1] for r in row_names(ax)}) == 1
    assert legend(ax) == ["a", "b", "d"]
    marked = [segment[0, 0] for lines in ax.collections if lines.get_label() == "a" for segment in lines.get_segments()]
    assert marked == [0.5, 2.0]
    # The one sample that stands out is there, however few bins there are.
    assert max(line.get_ydata().max() for line in ax.lines) > 5


@pytest.mark.parametrize("bins", [50, 3000])
def test_what_is_missing_is_hatched(bins):
    signal = np.random.default_rng(0).normal(size=(2000, 2))
    signal[500:900, 1] = np.nan
    ax = plots.plot_recording(Recording(signal, 1000.0), bins=bins)
    (hole,) = [part for part in ax.collections if part.get_hatch()]
    (path,) = hole.get_paths()
    assert path.vertices[:, 0].min() == pytest.approx(0.5, abs=0.05)
    assert path.vertices[:, 0].max() == pytest.approx(0.9, abs=0.05)
    assert path.vertices[:, 1].max() < -1, "in the lane of the second channel"


def test_recording_shows_the_part_that_was_asked_for(recording, events):
    ax = plots.plot_recording(recording, events, start_s=0.9, stop_s=1.5)
    assert ax.get_xlim() == pytest.approx((0.9, 1.5)) and legend(ax) == ["b"]
    with pytest.raises(OptionError, match="recording lasts 4 s"):
        plots.plot_recording(recording, start_s=4.0)
    with pytest.raises(OptionError, match="nothing to show from 2 s to 1 s"):
        plots.plot_recording(recording, start_s=2, stop_s=1)


def test_highpass_removes_the_sway_and_keeps_the_rest():
    time_s = np.arange(8000) / RATE_HZ
    sway, tone = 100 * np.sin(2 * np.pi * 0.5 * time_s), np.sin(2 * np.pi * 200 * time_s)
    one = Recording((sway + tone)[:, None], RATE_HZ)
    line = plots.plot_recording(one, ax=Figure().subplots(), bins=8001, highpass_hz=20).lines[0].get_ydata()
    assert np.corrcoef(line[500:-500], tone[500:-500])[0, 1] > 0.99


def test_raster(events):
    ax = plots.plot_events_raster(events)
    assert ax.get_xlabel() == "time (s)" and ax.get_ylabel() == "event type" and row_names(ax) == list(NAMES)
    (ticks,) = ax.collections
    shown = [(segment[0, 0], round(segment[:, 1].mean())) for segment in ticks.get_segments()]
    assert shown == [(0.5, 0), (1, 1), (2, 0), (3, 3)]
    ax = plots.plot_events_raster({"reference": events, "estimated": events.shift(2)}, start_s=1.5, stop_s=2.5)
    assert legend(ax) == ["reference", "estimated"]
    assert [len(ticks.get_segments()) for ticks in ax.collections] == [1, 1]


def test_error_gallery(recording, events):
    from evlib.scoring.comparison import compare

    axes = plots.plot_error_gallery(recording, compare(events, events[:3].shift(100), tolerance_s=0.005).table())
    assert [ax.get_title().split(":")[0] for ax in axes] == ["miss"] * 4 + ["false alarm"] * 3
    outcomes = pd.DataFrame(
        {
            "outcome": ["hit", "miss", "miss", "false_alarm", "false_alarm", "false_alarm"],
            "time_s": [0.1, 0.0, 3.99, 1.0, 2.0, 3.0],
            "type": list("aabbcc"),
        }
    )
    axes = plots.plot_error_gallery(recording, outcomes, n_examples=4)
    assert [ax.get_title() for ax in axes] == ["miss: a", "miss: b", "false alarm: b", "false alarm: c"]
    assert axes[0].get_xlim() == pytest.approx((0, 0.1)) and axes[1].get_xlim() == pytest.approx((3.9, 4.0))
    assert axes[0].get_xlabel() == "time (s)"
    assert len(plots.plot_error_gallery(recording, outcomes)) == 5
    assert len(plots.plot_error_gallery(recording, outcomes[:1])) == 0
    with pytest.raises(OptionError, match="lacks the column type"):
        plots.plot_error_gallery(recording, outcomes.drop(columns="type"))


def test_templates(rng):
    templates = rng.normal(size=(5, 3, 80))
    options = {"truth": templates, "channels": list("xyz"), "start_s": -0.01, "unit": "mV"}
    axes = plots.plot_templates(templates, RATE_HZ, list("abcde"), **options)
    assert [ax.get_title() for ax in axes] == list("abcde") and row_names(axes[0]) == list("xyz")
    assert axes[0].lines[0].get_xdata()[[0, -1]] == pytest.approx([-10, 29.5])
    assert axes[0].figure.get_supxlabel() == "time after the onset (ms)" and axes[-1].get_xlabel().endswith("mV")
    assert len(plots.plot_templates(templates[:1], RATE_HZ, axes=[Figure().subplots()])) == 1
    with pytest.raises(ShapeError, match="types, channels, samples"):
        plots.plot_templates(templates[0], RATE_HZ)
    with pytest.raises(ShapeError, match="shape of templates"):
        plots.plot_templates(templates, RATE_HZ, truth=templates[:, :2])
    with pytest.raises(ShapeError, match="one per type, 5"):
        plots.plot_templates(templates, RATE_HZ, axes=[Figure().subplots()])


def test_windows(rng):
    windows = rng.normal(size=(3, 200, 2))
    axes = plots.plot_windows(windows, 2000.0, over=0.5 * windows, titles=list("abc"), channels=list("xy"))
    assert [ax.get_title() for ax in axes] == list("abc") and row_names(axes[0]) == ["x", "y"]
    assert axes[0].figure.get_supxlabel() == "time in the window (ms)" and "SD of noise" in axes[0].get_ylabel()
    signal, over = axes[1].lines[1], axes[1].lines[3]  # the second channel of the second window
    assert signal.get_xdata()[[0, -1]] == pytest.approx([0, 99.5])
    assert np.corrcoef(signal.get_ydata(), windows[1, :, 1])[0, 1] == pytest.approx(1)
    assert over.get_ydata() + plots.LANE == pytest.approx(0.5 * (signal.get_ydata() + plots.LANE))
    assert legend(axes[-1]) == ["signal", "reconstruction"]
    (ax,) = Figure().subplots(1, 1, squeeze=False)[0]
    (same,) = plots.plot_windows(windows[:1], 100.0, axes=ax)
    assert same is ax and len(ax.lines) == 2 and ax.get_legend() is None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"windows": np.zeros((50, 2))}, "windows, time, channels"),
        ({"windows": np.zeros((0, 50, 2))}, "without an empty axis"),
        ({"over": np.zeros((3, 20, 2))}, "shape of windows"),
        ({"titles": ["a"]}, "titles must be one per window, 3"),
        ({"axes": [Figure().subplots()]}, "axes must be one per window, 3"),
    ],
)
def test_windows_that_do_not_fit_are_refused(change, words):
    with pytest.raises(ShapeError, match=words):
        plots.plot_windows(**{"windows": np.zeros((3, 50, 2)), "sampling_rate_hz": 100.0} | change)


def test_events_lie_over_their_template(rng):
    template = np.sin(np.arange(50) / 4)[:, None] * [1.0, 0.5]
    snippets = template + 0.1 * rng.standard_normal((7, 50, 2))
    delays = channel_delays(snippets, 1000.0)
    ax = plots.plot_aligned_events(snippets, template, 1000.0, 10, ("x", "y"), template, delays, half=2.0)
    assert legend(ax) == ["truth", "template", "channel onset"]
    assert ax.get_xlim() == (-10, 39) and "(ms)" in ax.get_xlabel()
    lines = [line for line in ax.lines if len(line.get_xdata()) == 7 * 51]
    assert len(lines) == 2
    assert np.allclose(lines[0].get_ydata().reshape(7, 51)[:, :50] * 2.0, snippets[:, :, 0])
    with pytest.raises(ShapeError, match="agree"):
        plots.plot_aligned_events(snippets, template[:20], 1000.0, 10)
    assert len(plots.plot_aligned_events(snippets[:0], template, 1000.0, 10).get_yticklabels()) == 2


def test_delays_have_intervals_in_milliseconds(rng):
    wave = np.exp(-0.5 * ((np.arange(60) - np.array([[20], [26]])) / 3) ** 2).T
    delays = channel_delays(wave + 0.05 * rng.standard_normal((9, 60, 2)), 2000.0)
    ax = plots.plot_channel_delays(delays, ("x", "y"), truth=delays)
    dots = ax.collections[-1].get_offsets()
    assert np.allclose(dots[:, 0], 1e3 * delays.delay_s) and dots[1, 0] - dots[0, 0] == pytest.approx(3, abs=0.3)
    assert legend(ax) == ["truth", "9 events, 95 %"]
    assert legend(plots.plot_channel_delays(channel_delays(wave[None], 2000.0))) == ["template"]


def test_similarity_is_a_square():
    ax = plots.plot_similarity(np.eye(3), ("a", "b", "c"), "b")
    assert np.array_equal(ax.collections[0].get_array(), np.eye(3)) and row_names(ax) == ["a", "b", "c"]


def test_timing_errors_are_in_milliseconds_and_all_counted():
    error_s = np.array([-1e-3, 1e-3, 3e-3, 4e-3])
    ax = plots.plot_timing_errors({"network": error_s, "filter": []})
    assert "(ms)" in ax.get_xlabel() and ax.get_ylabel() == "events"
    assert legend(ax) == ["network: median +2.00 ms, RMSE 2.60 ms, n = 4", "filter, no events"]
    assert ax.patches[0].get_path().vertices[:, 1].max() == 1
    # Errors beyond the tolerance are counted in the last bar.
    ax = plots.plot_timing_errors(np.array([0.02, 0.021]), tolerance_s=0.005)
    assert ax.patches[0].get_path().vertices[:, 1].max() == 2


def test_precision_recall():
    curve = (np.array([0.5, 1.0, 0.8]), np.array([1.0, 0.1, 0.6]))
    ax = plots.plot_precision_recall({"network": curve}, points={"network": (0.8, 0.6)})
    assert ax.get_xlabel().startswith("recall") and ax.get_ylabel().startswith("precision")
    assert ax.lines[0].get_xydata().tolist() == [[0.1, 1.0], [0.6, 0.8], [1.0, 0.5]]
    assert ax.lines[1].get_xydata().tolist() == [[0.6, 0.8]]


def test_reliability_shows_full_bins_only_and_names_the_error():
    result = {"stated": [0.1, np.nan, 0.9], "observed": [0.0, np.nan, 1.0], "n": np.array([5, 0, 50]), "ece": 0.1}
    ax = plots.plot_reliability({"network": result})
    assert ax.lines[1].get_xydata().tolist() == [[0.1, 0.0], [0.9, 1.0]]
    assert "network (ECE 0.100)" in legend(ax) and ax.get_xlabel() and ax.get_ylabel()


def test_candidates_are_counted_on_their_side_of_the_threshold():
    ax = plots.plot_candidate_scores([-3.0, -2.0, 4.0, 99.0], [False, False, True, True], threshold=0.0)
    assert legend(ax)[:2] == ["other candidates (2)", "true events (2)"] and "p = 0.5" in legend(ax)[2]
    assert ax.get_xlim()[1] < 25 and "log odds" in ax.get_xlabel()
    assert legend(plots.plot_candidate_scores([], [], 0.0))[0] == "other candidates (0)"


def test_scores_of_every_type():
    columns = {"precision": [0.9, np.nan], "recall": [0.8, 0.3], "f1": [0.85, np.nan]}
    table = pd.DataFrame(columns, index=["heel", "toe"])
    ax = plots.plot_scores_by_type(table, "toe", 0.002)
    assert row_names(ax) == ["heel", "toe"] and ax.get_xlim()[0] <= 0.3 and "±2 ms" in ax.get_xlabel()


def test_errors_in_groups_with_their_median():
    ax = plots.plot_error_groups({"heel": [0.001, 0.002, np.nan, 0.003], "toe": []}, tolerance_s=0.005)
    assert [text.get_text() for text in ax.texts] == ["+2.000", "none"]
    assert row_names(ax) == ["heel", "toe"] and ax.get_xlim()[1] <= 5


def test_times_to_the_next_type_are_medians_with_their_number():
    before, after, interval = np.array([0, 0, 1]), np.array([1, 1, 0]), np.array([0.2, 0.4, 0.1])
    ax = plots.plot_time_to_next(before, after, interval, ("a", "b"), "a")
    shown = ax.collections[0].get_array().filled(np.nan)
    assert shown[0, 1] == pytest.approx(0.3) and shown[1, 0] == 0.1 and np.isnan(shown[0, 0])
    assert {text.get_text() for text in ax.texts} == {"2", "1"}


def test_intervals_beside_each_other():
    ax = plots.plot_intervals({"reference": np.array([0.1, 0.2, 0.3]), "estimated": np.zeros(0)})
    assert legend(ax) == ["reference: median 200.0 ms, n = 3", "estimated: none"] and "(s)" in ax.get_xlabel()


def test_learning_curves_skip_gaps():
    gaps = {"train_loss": [2, np.nan, 1, np.nan], "val_loss": [np.nan, 3, np.nan, 2]}
    history = pd.DataFrame({"epoch": [0, 0, 1, 1]} | gaps)
    ax = plots.plot_learning_curves(history)
    assert [line.get_ydata().tolist() for line in ax.lines] == [[2, 1], [3, 2]]
    assert legend(ax) == ["train loss", "val loss"]
    with pytest.raises(OptionError, match="none of the columns"):
        plots.plot_learning_curves(history, y=("loss",))


def test_latent(rng):
    points, type = rng.normal(size=(30, 2)), np.arange(30) % 3
    ax = plots.plot_latent(points, type, NAMES)
    assert legend(ax) == ["a", "b", "c"] and np.array_equal(ax.lines[1].get_xydata(), points[type == 1])
    assert to_rgba(ax.lines[1].get_color()) == pytest.approx(plots.type_colours(4)[1])
    for wrong in ((rng.normal(size=(30, 3)), type), (points, type[:4])):
        with pytest.raises(ShapeError, match=r"points must be \(N, 2\) and type \(N,\)"):
            plots.plot_latent(*wrong, NAMES)


def test_probes():
    rows = [("pca", 1, 0.2), ("pca", 1, 0.4), ("pca", 5, 0.8), ("encoder", 1, 0.1), ("encoder", 5, 0.5)]
    table = pd.DataFrame(rows, columns=["method", "labels_per_type", "accuracy"])
    ax = plots.plot_probes(table, chance=0.0625)
    assert legend(ax) == ["pca", "encoder", "chance"]
    assert ax.lines[0].get_xydata().tolist() == [[1, pytest.approx(0.3)], [5, 0.8]]
    assert ax.collections[0].get_paths()[0].vertices[:, 1].min() == pytest.approx(0.2)
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["1", "5"]
    with pytest.raises(OptionError, match="lacks the column accuracy"):
        plots.plot_probes(table.drop(columns="accuracy"))


def test_active_units():
    ax = plots.plot_active_units([0.0, 0.5, 0.02, 0.005])
    assert [bar.get_height() for bar in ax.patches] == [0.5, 0.02, 0.005, 1e-6]
    assert ax.get_title().startswith("2 of 4 dimensions")
    for variance, words in (([-1.0, 1.0], "not negative"), (np.ones((2, 2)), r"shape \(2, 2\)")):
        with pytest.raises(ShapeError, match=words):
            plots.plot_active_units(variance)


def test_problems_lie_in_the_lane_of_their_channel():
    spans = {"gap": np.array([[1.0, 4.0, 1.0]]), "clipped": np.zeros((0, 3))}
    noise = np.array([1.0, 5.0]), np.array([[1.0, np.nan], [0.25, 1.0]])
    ax = plots.plot_problems(spans, ("x", "y"), 10.0, noise)
    box = [c for c in ax.collections if len(c.get_paths())][0].get_paths()[0].get_extents()
    assert (box.x0, box.x1) == (1.0, 4.0) and -1.5 < box.y0 < -1 < box.y1 < -0.5
    assert legend(ax) == ["gap (1)", "clipped (0)", "noise beside training (lane: x10)"]
    assert ax.lines[2].get_ydata() == pytest.approx([0.0, np.log10(0.5)])
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["x", "y"]


def test_lag_and_drift_have_axes_of_their_own():
    time_s = np.array([0.0, 10.0])
    lag, drift = ClockLag((1,), time_s, 0.01 * time_s), TemplateDrift(time_s, np.array([0.0, 0.4]))
    ax = plots.plot_problems({"gap": np.zeros((0, 3))}, ("x", "y"), 10.0, lag=lag, drift=drift)
    of_lag, of_drift = (other for other in ax.figure.axes if other is not ax)
    assert of_lag.get_ylabel() == "lag of the second clock (s)"
    assert of_drift.lines[0].get_ydata() == pytest.approx([0, 40])
    assert of_lag.spines["right"].get_position() != of_drift.spines["right"].get_position()


def test_clocks_are_drawn_with_their_uncertainty():
    """The line is the lag in ms, the band is narrowest where the clock was estimated, and an unsure clock has none."""
    rng = np.random.default_rng(0)
    common = np.linspace(20.0, 60.0, 30)
    clocks = {"load": Clock.from_markers(common, Clock(0.3, 1e-3).at(common) + rng.normal(0, 1e-2, 30))}
    ax = plots.plot_clocks(clocks | {"told": Clock(-0.1)}, 100.0)
    load, told = ax.lines
    assert load.get_ydata()[[0, -1]] == pytest.approx([300.0, 400.0], abs=20.0)
    assert told.get_ydata() == pytest.approx(-100.0)
    corners = ax.collections[0].get_paths()[0].vertices
    width = {x: np.ptp(corners[np.isclose(corners[:, 0], x, atol=0.3), 1]) for x in (0.0, 40.2, 100.0)}
    assert 0 < width[40.2] < 0.5 * min(width[0.0], width[100.0])
    assert ax.get_ylabel() == "late (ms)" and f"load: {clocks['load']}" == ax.get_legend().get_texts()[0].get_text()
