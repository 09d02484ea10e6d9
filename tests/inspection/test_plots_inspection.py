"""Figures for looking into a detector: what is drawn is what was passed in, with units and legends."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from evlib.inspection.plots import (
    plot_aligned_events,
    plot_candidate_scores,
    plot_channel_delays,
    plot_error_groups,
    plot_intervals,
    plot_scores_by_type,
    plot_similarity,
    plot_time_to_next,
)
from evlib.signals.errors import OptionError, ShapeError
from evlib.templates.waveforms import channel_delays


@pytest.fixture(autouse=True)
def _no_figure_stays_open():
    yield
    plt.close("all")


def legend(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def test_candidates_are_counted_on_their_side_of_the_threshold():
    ax = plot_candidate_scores([-3.0, -2.0, 4.0, 99.0], [False, False, True, True], threshold=0.0)
    assert legend(ax)[:2] == ["other candidates (2)", "true events (2)"] and "p = 0.5" in legend(ax)[2]
    assert sum(bar.get_height() for bar in ax.patches if hasattr(bar, "get_height")) >= 4
    assert ax.get_xlim()[1] < 25
    assert "log odds" in ax.get_xlabel()
    with pytest.raises(ShapeError, match="one shape"):
        plot_candidate_scores([1.0], [True, False], 0.0)
    plot_candidate_scores([], [], 0.0).figure.draw_without_rendering()


def test_scores_of_every_type():
    table = pd.DataFrame(
        {"precision": [0.9, np.nan], "recall": [0.8, 0.3], "f1": [0.85, np.nan]}, index=["heel", "toe"]
    )
    ax = plot_scores_by_type(table, "toe", 0.002)
    assert [label.get_text() for label in ax.get_yticklabels()] == ["heel", "toe"]
    assert ax.get_xlim()[0] <= 0.3 and "±2 ms" in ax.get_xlabel()
    with pytest.raises(OptionError, match="lacks the column f1"):
        plot_scores_by_type(table[["precision", "recall"]])


def test_events_lie_over_their_template(rng):
    template = np.sin(np.arange(50) / 4)[:, None] * [1.0, 0.5]
    snippets = template + 0.1 * rng.standard_normal((7, 50, 2))
    delays = channel_delays(snippets, 1000.0)
    ax = plot_aligned_events(snippets, template, 1000.0, 10, ("x", "y"), template, delays, half=2.0)
    assert legend(ax) == ["truth", "template", "channel onset"]
    assert ax.get_xlim() == (-10, 39) and "(ms)" in ax.get_xlabel()
    lines = [line for line in ax.lines if len(line.get_xdata()) == 7 * 51]
    assert len(lines) == 2
    assert np.allclose(lines[0].get_ydata().reshape(7, 51)[:, :50] * 2.0, snippets[:, :, 0])
    with pytest.raises(ShapeError, match="agree"):
        plot_aligned_events(snippets, template[:20], 1000.0, 10)
    with pytest.raises(OptionError, match="nothing to draw"):
        plot_aligned_events(snippets[:0], None, 1000.0, 10)


def test_delays_have_intervals_in_milliseconds(rng):
    wave = np.exp(-0.5 * ((np.arange(60) - np.array([[20], [26]])) / 3) ** 2).T
    delays = channel_delays(wave + 0.05 * rng.standard_normal((9, 60, 2)), 2000.0)
    ax = plot_channel_delays(delays, ("x", "y"), truth=delays)
    dots = ax.collections[-1].get_offsets()
    assert np.allclose(dots[:, 0], 1e3 * delays.delay_s) and dots[1, 0] - dots[0, 0] == pytest.approx(3, abs=0.3)
    assert legend(ax) == ["truth", "9 events, 95 %"]
    assert legend(plot_channel_delays(channel_delays(wave[None], 2000.0))) == ["template"]


def test_similarity_is_a_square():
    ax = plot_similarity(np.eye(3), ("a", "b", "c"), "b")
    assert np.array_equal(ax.images[0].get_array(), np.eye(3))
    with pytest.raises(ShapeError, match="for 2 names"):
        plot_similarity(np.eye(3), ("a", "b"))


def test_errors_in_groups_with_their_median():
    ax = plot_error_groups({"heel": [0.001, 0.002, np.nan, 0.003], "toe": []}, tolerance_s=0.005)
    texts = [text.get_text() for text in ax.texts]
    assert texts == ["+2.000", "none"]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["heel", "toe"]
    assert ax.get_xlim()[1] <= 5
    plot_error_groups({}).figure.draw_without_rendering()


def test_time_to_the_next_kind_is_counted():
    before, after, interval = np.array([0, 0, 1]), np.array([1, 1, 0]), np.array([0.2, 0.4, 0.1])
    ax = plot_time_to_next(before, after, interval, ("a", "b"), "a")
    shown = ax.images[0].get_array().filled(np.nan)
    assert shown[0, 1] == pytest.approx(0.3) and shown[1, 0] == 0.1 and np.isnan(shown[0, 0])
    assert {text.get_text() for text in ax.texts} == {"2", "1"}
    plot_time_to_next(before[:0], after[:0], interval[:0], ("a", "b")).figure.draw_without_rendering()


def test_intervals_beside_each_other():
    ax = plot_intervals({"reference": np.array([0.1, 0.2, 0.3]), "estimated": np.zeros(0)})
    assert legend(ax) == ["reference: median 200.0 ms, n = 3", "estimated: none"]
    assert "(s)" in ax.get_xlabel()
