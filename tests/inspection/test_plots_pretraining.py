"""Figures of pretraining: what is drawn is what came in, with units, and types in the colours of every other figure."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure

from evlib.inspection import plots
from evlib.inspection.plots import type_colours
from evlib.signals.errors import OptionError, ShapeError


@pytest.fixture(autouse=True)
def _no_figure_is_left_open():
    yield
    plt.close("all")


def test_windows(rng):
    windows = rng.normal(size=(3, 200, 2))
    axes = plots.plot_windows(windows, 2000.0, over=0.5 * windows, titles=list("abc"), channels=list("xy"))
    assert [ax.get_title() for ax in axes] == list("abc")
    assert axes[0].figure.get_supxlabel() == "time in the window (ms)"
    assert "SD of noise" in axes[0].get_ylabel()
    assert [tick.get_text() for tick in axes[0].get_yticklabels()] == ["x", "y"]
    signal, over = axes[1].lines[1], axes[1].lines[3]  # the second channel of the second window
    assert signal.get_xdata()[[0, -1]] == pytest.approx([0, 99.5])
    assert np.corrcoef(signal.get_ydata(), windows[1, :, 1])[0, 1] == pytest.approx(1)
    assert over.get_ydata() + 2 == pytest.approx(0.5 * (signal.get_ydata() + 2))
    assert [text.get_text() for text in axes[-1].get_legend().get_texts()] == ["signal", "reconstruction"]


def test_windows_alone_and_in_given_axes(rng):
    (ax,) = Figure().subplots(1, 1, squeeze=False)[0]
    (same,) = plots.plot_windows(rng.normal(size=(1, 50, 2)), 100.0, axes=ax)
    assert same is ax and len(ax.lines) == 2 and ax.get_legend() is None


def test_windows_that_do_not_fit_are_refused(rng):
    windows = rng.normal(size=(3, 50, 2))
    with pytest.raises(ShapeError, match="windows, time, channels"):
        plots.plot_windows(windows[0], 100.0)
    with pytest.raises(ShapeError, match="without an empty axis"):
        plots.plot_windows(windows[:0], 100.0)
    with pytest.raises(ShapeError, match="shape of windows"):
        plots.plot_windows(windows, 100.0, over=windows[:, :20])
    with pytest.raises(ShapeError, match="titles must be one per window, 3"):
        plots.plot_windows(windows, 100.0, titles=["a"])
    with pytest.raises(ShapeError, match="axes must be one per window, 3"):
        plots.plot_windows(windows, 100.0, axes=[Figure().subplots()])


def test_latent(rng):
    points, names = rng.normal(size=(30, 2)), tuple("abcd")
    type = np.arange(30) % 3
    ax = plots.plot_latent(points, type, names)
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["a", "b", "c"]
    assert np.array_equal(ax.lines[1].get_xydata(), points[type == 1])
    assert to_rgba(ax.lines[1].get_color()) == pytest.approx(type_colours(4)[1])
    with pytest.raises(ShapeError, match=r"\(N, 2\)"):
        plots.plot_latent(rng.normal(size=(30, 3)), type, names)
    with pytest.raises(ShapeError, match=r"type \(N,\)"):
        plots.plot_latent(points, type[:4], names)


def test_probes():
    rows = [("pca", 1, 0.2), ("pca", 1, 0.4), ("pca", 5, 0.8), ("encoder", 1, 0.1), ("encoder", 5, 0.5)]
    table = pd.DataFrame(rows, columns=["method", "labels_per_type", "accuracy"])
    ax = plots.plot_probes(table, chance=0.0625)
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["pca", "encoder", "chance"]
    assert ax.lines[0].get_xydata().tolist() == [[1, pytest.approx(0.3)], [5, 0.8]]
    assert ax.collections[0].get_paths()[0].vertices[:, 1].min() == 0.2
    assert ax.lines[2].get_ydata()[0] == 0.0625
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["1", "5"]
    with pytest.raises(OptionError, match="lacks the column accuracy"):
        plots.plot_probes(table.drop(columns="accuracy"))


def test_active_units():
    ax = plots.plot_active_units([0.0, 0.5, 0.02, 0.005])
    assert [bar.get_height() for bar in ax.patches] == [0.5, 0.02, 0.005, 1e-6]
    assert ax.get_title().startswith("2 of 4 dimensions")
    assert plots.plot_active_units([0.5, 0.02], threshold=0.1).get_title().startswith("1 of 2")
    with pytest.raises(ShapeError, match="not negative"):
        plots.plot_active_units([-1.0, 1.0])
    with pytest.raises(ShapeError, match=r"shape \(2, 2\)"):
        plots.plot_active_units(np.ones((2, 2)))
