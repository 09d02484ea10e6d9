"""Figures: axes come back, units are on them, what is drawn is what came in, and nothing is lost by decimation."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure

from evlib.inspection import plots
from evlib.signals.errors import OptionError, ShapeError
from evlib.signals.events import Events
from evlib.signals.recording import Recording

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


@given(n=st.integers(1, 60), bins=st.integers(1, 80), channels=st.integers(0, 3), seed=st.integers(0, 99))
def test_minmax_equals_brute_force(n, bins, channels, seed):
    signal = np.random.default_rng(seed).normal(size=(n, channels) if channels else n)
    start, low, high = plots.minmax(signal, bins)
    assert len(start) == min(n, bins) and start[0] == 0
    stop = np.r_[start[1:], n]
    assert np.ptp(stop - start) <= 1  # blocks of nearly equal length
    assert np.array_equal(low, [signal[a:b].min(axis=0) for a, b in zip(start, stop, strict=True)])
    assert np.array_equal(high, [signal[a:b].max(axis=0) for a, b in zip(start, stop, strict=True)])


def test_minmax_refuses_what_it_cannot_use():
    with pytest.raises(ShapeError, match="n > 0"):
        plots.minmax(np.zeros((0, 2)), 5)
    with pytest.raises(ShapeError, match=r"\(n, channels\)"):
        plots.minmax(np.zeros((2, 2, 2)), 5)
    with pytest.raises(OptionError, match="at least 1"):
        plots.minmax(np.zeros(5), 0)


def test_sixteen_types_have_sixteen_colours():
    assert len(np.unique(plots.type_colours(16), axis=0)) == 16


@pytest.mark.parametrize("bins", [100, 8000])
def test_recording(recording, events, bins):
    ax = Figure().subplots()
    assert plots.plot_recording(recording, events, ax=ax, bins=bins) is ax
    assert ax.get_xlabel() == "time (s)"
    labels = [tick.get_text() for tick in ax.get_yticklabels()]
    assert [label.split("\n")[0] for label in labels] == ["x", "y", "z"]
    assert all(label.endswith("mV") for label in labels)
    assert len({label.split("\n")[1] for label in labels}) == 1  # one unit, one scale
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["a", "b", "d"]
    marked = [segment[0, 0] for lines in ax.collections if lines.get_label() == "a" for segment in lines.get_segments()]
    assert marked == [0.5, 2.0]
    # The one sample that stands out is there, however few bins there are.
    if bins == 100:
        top = max(path.vertices[:, 1].max() for lines in ax.collections[:3] for path in lines.get_paths())
    else:
        top = max(line.get_ydata().max() for line in ax.lines)
    assert top > 5


def test_recording_shows_the_part_that_was_asked_for(recording, events):
    ax = plots.plot_recording(recording, events, start_s=0.9, stop_s=1.5)
    assert ax.get_xlim() == pytest.approx((0.9, 1.5))
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["b"]
    with pytest.raises(OptionError, match="recording lasts 4 s"):
        plots.plot_recording(recording, start_s=4.0)
    with pytest.raises(OptionError, match="nothing to show from 2 s to 1 s"):
        plots.plot_recording(recording, start_s=2, stop_s=1)


def test_highpass_takes_the_sway_out_and_leaves_the_rest():
    time_s = np.arange(8000) / RATE_HZ
    sway, tone = 100 * np.sin(2 * np.pi * 0.5 * time_s), np.sin(2 * np.pi * 200 * time_s)
    one = Recording((sway + tone)[:, None], RATE_HZ)
    line = plots.plot_recording(one, ax=Figure().subplots(), bins=8000, highpass_hz=20).lines[0].get_ydata()
    assert np.corrcoef(line[500:-500], tone[500:-500])[0, 1] > 0.99


def test_raster(events):
    ax = plots.plot_events_raster(events)
    assert ax.get_xlabel() == "time (s)" and ax.get_ylabel() == "event type"
    assert [tick.get_text() for tick in ax.get_yticklabels()] == list(NAMES)
    (ticks,) = ax.collections
    assert [(segment[0, 0], round(segment[:, 1].mean())) for segment in ticks.get_segments()] == [
        (0.5, 0),
        (1, 1),
        (2, 0),
        (3, 3),
    ]
    ax = plots.plot_events_raster({"reference": events, "estimated": events.shift(2)}, start_s=1.5, stop_s=2.5)
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["reference", "estimated"]
    assert [len(ticks.get_segments()) for ticks in ax.collections] == [1, 1]


def test_templates(rng):
    templates = rng.normal(size=(5, 3, 80))
    axes = plots.plot_templates(
        templates, RATE_HZ, list("abcde"), truth=templates, channels=list("xyz"), start_s=-0.01, unit="mV"
    )
    assert [ax.get_title() for ax in axes] == list("abcde")
    assert axes[0].lines[0].get_xdata()[[0, -1]] == pytest.approx([-10, 29.5])
    assert axes[0].figure.get_supxlabel() == "time after the onset (ms)"
    assert axes[-1].get_xlabel().endswith("mV")
    assert len(plots.plot_templates(templates[:1], RATE_HZ, axes=[Figure().subplots()])) == 1
    with pytest.raises(ShapeError, match="types, channels, samples"):
        plots.plot_templates(templates[0], RATE_HZ)
    with pytest.raises(ShapeError, match="shape of templates"):
        plots.plot_templates(templates, RATE_HZ, truth=templates[:, :2])
    with pytest.raises(ShapeError, match="one per type, 5"):
        plots.plot_templates(templates, RATE_HZ, axes=[Figure().subplots()])


def test_timing_errors_are_in_milliseconds_and_all_counted():
    error_s = np.array([-1e-3, 1e-3, 3e-3, 4e-3])
    ax = plots.plot_timing_errors({"network": error_s, "filter": []})
    assert "(ms)" in ax.get_xlabel() and ax.get_ylabel() == "events"
    texts = [text.get_text() for text in ax.get_legend().get_texts()]
    assert any("network: median +2.00 ms, RMSE 2.60 ms, n = 4" in text for text in texts)
    assert any("filter, no events" in text for text in texts)
    counts, _, _ = Figure().subplots().hist(1e3 * error_s, np.linspace(-5, 5, 62))
    heights = ax.patches[0].get_path().vertices[:, 1]
    assert heights.max() == counts.max() == 1
    # Errors beyond the tolerance stand in the last bar rather than nowhere.
    ax = plots.plot_timing_errors(np.array([0.02, 0.021]), tolerance_s=0.005)
    assert ax.patches[0].get_path().vertices[:, 1].max() == 2


def test_f1_bars():
    table = pd.DataFrame({"method": ["network"] * 2 + ["filter"] * 2, "f1": [0.8, 0.9, 0.5, 0.6], "seed": [0, 1, 0, 1]})
    ax = plots.plot_f1_bars(table, tolerance_s=0.0025)
    assert ax.get_ylabel() == "F1 at ±2.5 ms"
    assert sorted(bar.get_height() for bar in ax.patches) == pytest.approx([0.55, 0.85])
    ax = plots.plot_f1_bars(table.assign(condition=["SNR 6", "SNR 12"] * 2))
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["SNR 6", "SNR 12"]
    assert sorted(bar.get_height() for bars in ax.containers for bar in bars) == [0.5, 0.6, 0.8, 0.9]
    with pytest.raises(OptionError, match="lacks the column f1"):
        plots.plot_f1_bars(table.drop(columns="f1"))


def test_precision_recall():
    curve = (np.array([0.5, 1.0, 0.8]), np.array([1.0, 0.1, 0.6]))
    ax = plots.plot_precision_recall({"network": curve}, points={"network": (0.8, 0.6)})
    assert ax.get_xlabel().startswith("recall") and ax.get_ylabel().startswith("precision")
    assert np.array_equal(ax.lines[0].get_xdata(), [0.1, 0.6, 1.0])
    assert np.array_equal(ax.lines[0].get_ydata(), [1.0, 0.8, 0.5])
    assert ax.lines[1].get_xydata().tolist() == [[0.6, 0.8]]
    with pytest.raises(ShapeError, match="'network' differ in length"):
        plots.plot_precision_recall({"network": ([1.0], [1.0, 0.5])})


def test_learning_curves_skip_gaps():
    history = pd.DataFrame(
        {"epoch": [0, 0, 1, 1], "train_loss": [2, np.nan, 1, np.nan], "val_loss": [np.nan, 3, np.nan, 2]}
    )
    ax = plots.plot_learning_curves(history)
    assert [line.get_ydata().tolist() for line in ax.lines] == [[2, 1], [3, 2]]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["train loss", "val loss"]
    with pytest.raises(OptionError, match="none of the columns"):
        plots.plot_learning_curves(history, y=("loss",))


def test_detection_example(recording, events, rng):
    scores = rng.random((800, 4))
    axes = plots.plot_detection_example(recording, events, events, scores, frame_s=0.005, start_s=1.0, stop_s=3.0)
    assert len(axes) == 3 and axes[-1].get_xlabel() == "time (s)"
    assert all(ax.get_xlim() == pytest.approx((1.0, 3.0)) for ax in axes)
    (image,) = axes[2].images
    assert np.array_equal(image.get_array(), scores[200:600].T)
    assert image.get_extent()[:2] == pytest.approx((1.0, 3.0))
    assert len(plots.plot_detection_example(recording, events, events)) == 2
    with pytest.raises(OptionError, match="scores need frame_s"):
        plots.plot_detection_example(recording, events, events, scores)
    with pytest.raises(ShapeError, match="needs 2 axes"):
        plots.plot_detection_example(recording, events, events, axes=[Figure().subplots()])


def test_error_gallery_takes_a_comparison(recording, events):
    from evlib.scoring.comparison import compare

    late = events[:3].shift(100)
    axes = plots.plot_error_gallery(recording, compare(events, late, tolerance_s=0.005).table())
    assert [ax.get_title().split(":")[0] for ax in axes] == ["miss"] * 4 + ["false alarm"] * 3


def test_error_gallery(recording):
    outcomes = pd.DataFrame(
        {
            "outcome": ["hit", "miss", "miss", "false_alarm", "false_alarm", "false_alarm"],
            "time_s": [0.1, 0.0, 3.99, 1.0, 2.0, 3.0],
            "type": list("aabbcc"),
        }
    )
    axes = plots.plot_error_gallery(recording, outcomes, n_examples=4)
    assert [ax.get_title() for ax in axes] == ["miss: a", "miss: b", "false alarm: b", "false alarm: c"]
    assert all(ax.get_xlabel() == "time (s)" for ax in axes)
    assert axes[0].get_xlim() == pytest.approx((0, 0.1)) and axes[1].get_xlim() == pytest.approx((3.9, 4.0))
    assert len(plots.plot_error_gallery(recording, outcomes)) == 5
    assert len(plots.plot_error_gallery(recording, outcomes[:1])) == 0
    with pytest.raises(OptionError, match="lacks the column type"):
        plots.plot_error_gallery(recording, outcomes.drop(columns="type"))


def test_reliability_shows_full_bins_only_and_names_the_error():
    result = {"stated": [0.1, np.nan, 0.9], "observed": [0.0, np.nan, 1.0], "n": np.array([5, 0, 50]), "ece": 0.1}
    ax = plots.plot_reliability({"network": result})
    (_, line) = ax.lines
    assert line.get_xdata().tolist() == [0.1, 0.9] and line.get_ydata().tolist() == [0.0, 1.0]
    assert "network (ECE 0.100)" in [text.get_text() for text in ax.get_legend().get_texts()]
    assert ax.get_xlabel() and ax.get_ylabel()
