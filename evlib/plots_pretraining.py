"""Figures of pretraining: windows beside their reconstructions, latent spaces, probes over labels.

As in `evlib.plots`: data and axes in, axes out, no function runs a model.
"""

import numpy as np

from .errors import ShapeError
from .plots import _axes, _legend_right, need_columns, type_colours
from .timebase import check_rate

# Methods of one budget stand side by side over this share of the way to the next.
DODGE = 0.3


def plot_windows(
    windows, sampling_rate_hz, over=None, titles=None, channels=None, labels=("signal", "reconstruction"), axes=None
):
    """Windows side by side, channels stacked, with a second array drawn over them where given.

    Parameters
    ----------
    windows : (N, time, C) array of whitened signal, in standard deviations of its noise
    sampling_rate_hz : its rate
    over : (N, time, C) array, drawn in colour over grey windows
    titles : N texts
    channels : names of the C channels
    labels : what the windows and what is drawn over them is called
    axes : N axes to draw in

    Returns
    -------
    (N,) array of axes, all with one scale
    """
    import matplotlib.pyplot as plt

    windows = np.asarray(windows)
    if windows.ndim != 3 or windows.size == 0:
        raise ShapeError(f"windows must be (windows, time, channels) without an empty axis, got {windows.shape}")
    if over is not None and np.shape(over) != windows.shape:
        raise ShapeError(f"over must have the shape of windows, {windows.shape}, got {np.shape(over)}")
    if titles is not None and len(titles) != len(windows):
        raise ShapeError(f"titles must be one per window, {len(windows)}, got {len(titles)}")
    n, time, n_channels = windows.shape
    if axes is None:
        size = (max(4, 1.9 * n + 0.8), 0.55 * n_channels + 1)
        figure, grid = plt.subplots(1, n, figsize=size, sharex=True, sharey=True, squeeze=False, layout="constrained")
        axes = grid[0]
        figure.supxlabel("time in the window (ms)", fontsize="small")
    axes = np.atleast_1d(np.asarray(axes, dtype=object)).ravel()
    if len(axes) != n:
        raise ShapeError(f"axes must be one per window, {n}, got {len(axes)}")
    time_ms = 1e3 * np.arange(time) / check_rate(sampling_rate_hz)
    # One scale for all; 99.8 % of the values stay in their own lane.
    half = max(np.quantile(np.abs(windows), 0.998), np.finfo(np.float32).tiny)
    lane = -2.0 * np.arange(n_channels)
    names = channels if channels is not None else [f"ch {c}" for c in range(n_channels)]
    for k, ax in enumerate(axes):
        grey = ax.plot(time_ms, windows[k] / half + lane, color="0.65" if over is not None else "0.25", linewidth=0.8)
        if over is not None:
            colour = ax.plot(time_ms, np.asarray(over)[k] / half + lane, color="C3", linewidth=1.3)
        ax.set(yticks=lane, yticklabels=names, ylim=(lane[-1] - 1.3, 1.3), xlim=(time_ms[0], time_ms[-1]))
        ax.tick_params(labelsize="x-small")
        if titles is not None:
            ax.set_title(titles[k], fontsize="small")
    axes[0].set_ylabel(f"channel (lane: ±{half:.2g} SD of noise)", fontsize="small")
    if over is not None:
        axes[-1].legend(
            [grey[0], colour[0]], labels, loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize="small", frameon=False
        )
    return axes


def plot_latent(points, type, names, ax=None, axis_labels=("first component", "second component")):
    """Points of a latent space in two dimensions, each in the colour of its type.

    ``points`` (N, 2), ``type`` (N,) integers into ``names``; types are coloured as in every other figure.
    """
    ax = _axes(ax)
    points, type = np.asarray(points), np.asarray(type)
    if points.ndim != 2 or points.shape[1] != 2 or type.shape != (len(points),):
        raise ShapeError(f"points must be (N, 2) and type (N,), got {points.shape} and {type.shape}")
    colours = type_colours(len(names))
    for k in np.unique(type):
        rows = points[type == k]
        ax.plot(*rows.T, "o", color=colours[k], markersize=3.5, markeredgewidth=0, alpha=0.8, label=names[k])
    ax.set(xlabel=axis_labels[0], ylabel=axis_labels[1], xticks=[], yticks=[])
    _legend_right(ax)
    return ax


def plot_probes(table, chance=None, ax=None):
    """Accuracy over labels per kind, a line per method through the means, a band from the least to the greatest.

    Parameters
    ----------
    table : pandas table with the columns method, labels_per_type and accuracy, as `evlib.probing.compare_probes` gives
    chance : accuracy of a guess, drawn as a dashed line
    """
    ax = _axes(ax)
    need_columns("table", table, "method", "labels_per_type", "accuracy")
    for k, (method, rows) in enumerate(table.groupby("method", sort=False)):
        spread = rows.groupby("labels_per_type")["accuracy"].agg(["mean", "min", "max"])
        ax.plot(spread.index, spread["mean"], "osD^vPX"[k % 7] + "-", color=f"C{k}", markersize=5, label=method)
        ax.fill_between(spread.index, spread["min"], spread["max"], color=f"C{k}", alpha=0.2, linewidth=0)
    if chance is not None:
        ax.axhline(chance, color="0.4", linestyle="--", linewidth=1, label="chance")
    ticks = sorted(set(table["labels_per_type"]))
    ax.set(xscale="log", xlabel="labelled events per kind", ylabel="share of events told rightly", ylim=(0, 1.03))
    ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    ax.minorticks_off()
    _legend_right(ax)
    return ax


def plot_active_units(variance, threshold=0.01, ax=None):
    """Variance of each latent dimension's mean over windows, greatest first; below ``threshold`` it tells nothing."""
    ax = _axes(ax)
    variance = np.sort(np.asarray(variance, dtype=float))[::-1]
    if variance.ndim != 1 or len(variance) == 0 or variance[-1] < 0:
        raise ShapeError(f"variance must be (dimensions,) and not negative, got shape {variance.shape}")
    active = int((variance > threshold).sum())
    shown = np.maximum(variance, 1e-6)
    colours = np.where(variance > threshold, "C0", "0.75")
    ax.bar(np.arange(len(shown)), shown, color=colours, width=0.9)
    ax.axhline(threshold, color="0.4", linestyle="--", linewidth=1)
    ax.set(yscale="log", xlabel="latent dimension, sorted", ylabel="variance over windows", ylim=(1e-6, 10))
    ax.set_title(f"{active} of {len(variance)} dimensions vary (more than {threshold:g})")
    return ax


def _fine_tuned(method):
    """The method that fine-tunes the encoder that this one keeps frozen."""
    return method.replace("probe, ", "frames, ")


def plot_label_budgets(summary, ax=None, value="F1 at ±5 ms", legend=True, order=()):
    """A line per method over labels per type, with its interval. A frozen encoder (``probe, ...``) is dotted, in the colour of
    the same encoder fine-tuned (``frames, ...``).

    Parameters
    ----------
    summary : pandas table with the columns labels_per_type (0: all), method, mean, low, high, as
        `evlib.label_budgets.summarise` gives, of one signal-to-noise ratio
    value : what the mean is of
    legend : draw one on the right
    order : names of methods in the order of colours and markers, to keep them from figure to figure; default: as they come
    """
    ax = _axes(ax)
    need_columns("summary", summary, "labels_per_type", "method", "mean", "low", "high")
    budgets = sorted(summary["labels_per_type"].unique(), key=lambda n: n or np.inf)
    place = {budget: k for k, budget in enumerate(budgets)}
    order = list(dict.fromkeys([*order, *summary["method"]]))
    colours = list(dict.fromkeys(map(_fine_tuned, order)))
    for method, rows in summary.groupby("method", sort=False):
        k = order.index(method)
        x = rows["labels_per_type"].map(place).to_numpy()
        if method == "oracle":
            ax.plot(x, rows["mean"], "k--", linewidth=1, label="oracle (knows the templates)")
            continue
        c = colours.index(_fine_tuned(method))
        style = {
            "marker": "os^DvPX<>*hd"[c % 12],
            "color": f"C{c % 10}",
            "linestyle": ":" if method.startswith("probe, ") else "-",
        }
        # Side by side, so that no interval hides another.
        beside = x + (k / max(len(order) - 1, 1) - 0.5) * DODGE
        bars = [rows["mean"] - rows["low"], rows["high"] - rows["mean"]]
        ax.errorbar(beside, rows["mean"], bars, markersize=5, linewidth=1.4, elinewidth=1, label=method, **style)
    ax.set_xticks(range(len(budgets)), ["all" if budget == 0 else f"{budget:g}" for budget in budgets])
    ax.set(xlabel="labelled events per type", ylabel=value)
    if legend:
        _legend_right(ax)
    return ax
