"""Figures for looking into a detector: thresholds, templates and single events, delays, timing.

One function per kind of figure, data and ``ax=None`` in, axes out, as in `plots`. Signal is whitened: its unit is the
standard deviation of the noise.
"""

import numpy as np

from .errors import OptionError, ShapeError
from .plots import _axes, need_columns

TRUTH = {"color": "0.55", "linewidth": 2.6, "alpha": 0.6}
LANE = 2.2
# Log odds beyond these are certain enough for a picture.
SHOWN_LOG_ODDS = (-12.0, 20.0)


def plot_candidate_scores(log_odds, is_event, threshold, ax=None, bins=48):
    """How far apart the scores of true events and of other candidates are, and where the threshold lies.

    Parameters
    ----------
    log_odds : (n,) log odds of the candidates of one type
    is_event : (n,) booleans, which of them are true
    threshold : log odds at which a candidate is kept
    """
    ax = _axes(ax)
    log_odds, is_event = np.asarray(log_odds, dtype=float), np.asarray(is_event, dtype=bool)
    if log_odds.shape != is_event.shape:
        raise ShapeError(f"log_odds and is_event must have one shape, got {log_odds.shape} and {is_event.shape}")
    shown = np.clip(log_odds, *SHOWN_LOG_ODDS)
    low, high = (min(shown.min(), threshold), max(shown.max(), threshold)) if len(shown) else (-1.0, 1.0)
    edges = np.linspace(low - 0.5, high + 0.5, bins + 1)
    parts = {"other candidates": ("tab:orange", ~is_event), "true events": ("tab:green", is_event)}
    for label, (colour, rows) in parts.items():
        ax.hist(shown[rows], edges, color=colour, alpha=0.6, label=f"{label} ({rows.sum()})")
    p = 1 / (1 + np.exp(-np.clip(threshold, -500, 500)))
    ax.axvline(threshold, color="0.15", linewidth=1.6, label=f"threshold: p = {p:.3g}")
    ax.axvspan(threshold, edges[-1], color="0.5", alpha=0.08, linewidth=0, label="kept")
    ax.set_yscale("symlog", linthresh=3)
    top = max(3, *(h.get_height() for h in ax.patches), 3)
    ax.set_ylim(0, top * 1.3)
    ticks = [t for t in (0, 1, 2, 3, 5, 10, 20, 50, 100, 1000, 10_000, 100_000) if t <= 1.3 * top and (t <= 100 or top > 300)]
    ax.set_yticks(ticks, [str(t) for t in ticks])
    ax.minorticks_off()
    ax.set(xlabel="log odds that a candidate is an event", ylabel="candidates", xlim=(edges[0], edges[-1]))
    ax.legend(fontsize="small", ncols=2, loc="lower center", bbox_to_anchor=(0.5, 1.0), columnspacing=1.0)
    return ax


def plot_scores_by_type(table, chosen=None, tolerance_s=0.005, ax=None):
    """Precision, recall and F1 of every type, one row each; ``table`` is ``Comparison.per_type()``.

    ``chosen`` names a type to set off.
    """
    ax = _axes(ax)
    need_columns("table", table, "precision", "recall", "f1")
    rows = np.arange(len(table))
    if chosen is not None:
        ax.axhspan(*(list(table.index).index(chosen) + np.array([-0.5, 0.5])), color="tab:blue", alpha=0.12, linewidth=0)
    ax.hlines(rows, table["precision"], table["recall"], color="0.75", linewidth=1)
    for column, marker, colour, size in (
        ("precision", "<", "tab:blue", 5),
        ("recall", ">", "tab:purple", 5),
        ("f1", "o", "0.15", 4),
    ):
        label = "F1" if column == "f1" else column
        ax.plot(table[column], rows, marker, color=colour, markersize=size, label=label, clip_on=False)
    least = np.nanmin(table[["precision", "recall", "f1"]].to_numpy(float), initial=1.0)
    ax.set(yticks=rows, yticklabels=table.index, ylim=(len(table) - 0.5, -0.5), xlabel=f"at ±{1e3 * tolerance_s:g} ms")
    ax.set_xlim(max(0.0, min(0.9, np.floor(20 * least - 0.5) / 20)), 1.01)
    ax.tick_params(axis="y", labelsize="small")
    ax.grid(axis="x", color="0.9", linewidth=0.8)
    ax.legend(fontsize="small", ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1.0), handletextpad=0.1, columnspacing=0.8)
    return ax


def plot_aligned_events(
    snippets, template, sampling_rate_hz, before, channels=None, truth=None, delays=None, half=None, label="template", ax=None
):
    """Single events laid over each other and over their template, the channels stacked.

    Parameters
    ----------
    snippets : (N, L, C), N may be 0
    template : (L, C), or None
    before : samples ahead of the onset
    truth : (L, C), a true template, in grey behind
    delays : ChannelDelays, marked in the lane of each channel, relative to the onset that the template has
    half : half the height of a lane; default: that which holds the template
    """
    ax = _axes(ax)
    known = [np.asarray(wave) for wave in (template, truth) if wave is not None]
    snippets = np.asarray(snippets)
    if not known and len(snippets) == 0:
        raise OptionError("there is nothing to draw: neither events nor a template")
    length, n_channels = (known[0] if known else snippets[0]).shape
    if any(wave.shape != (length, n_channels) for wave in [*known, *snippets[:1]]):
        raise ShapeError(f"snippets, template and truth must agree in samples and channels, got {snippets.shape}")
    time_ms = 1e3 * (np.arange(length) - before) / sampling_rate_hz
    if half is None:
        half = max(np.abs(wave).max() for wave in known) if known else np.quantile(np.abs(snippets), 0.999)
        half = max(half, 2.0)
    lane = -LANE * np.arange(n_channels)
    for c in range(n_channels):
        colour = f"C{c}"
        # NaN between events: one line for all of them, which is far faster to draw.
        if len(snippets):
            gap = np.full((len(snippets), 1), np.nan)
            x = np.concatenate([np.broadcast_to(time_ms, (len(snippets), length)), gap], axis=1).ravel()
            y = np.concatenate([snippets[:, :, c], gap], axis=1).ravel()
            ax.plot(x, y / half + lane[c], color=colour, linewidth=0.5, alpha=max(0.12, min(0.5, 6 / len(snippets))))
        if truth is not None:
            ax.plot(time_ms, truth[:, c] / half + lane[c], **TRUTH, label="truth" if c == 0 else None)
        if template is not None:
            name = label if c == 0 else None
            ax.plot(
                time_ms, template[:, c] / half + lane[c], color="0.05" if len(snippets) else colour, linewidth=1.2, label=name
            )
    ax.axvline(0, color="0.4", linewidth=0.9, linestyle=":")
    if delays is not None:
        at = 1e3 * (delays.common_s + delays.delay_s - before / sampling_rate_hz)
        ax.plot(at, lane - 0.95, "^", color="tab:red", markersize=6, label="channel onset", clip_on=False)
    names = channels if channels is not None else [f"ch{c + 1}" for c in range(n_channels)]
    ax.set_yticks(lane, names)
    ax.set(xlabel="time after the onset (ms)", xlim=time_ms[[0, -1]], ylim=(lane[-1] - 1.3, 1.3))
    # How high a lane is, beside the first one.
    ax.plot([1.012] * 2, [-1, 1], color="0.3", linewidth=1.5, transform=ax.get_yaxis_transform(), clip_on=False)
    ax.text(1.03, 0, f"±{half:.2g}\nSD", transform=ax.get_yaxis_transform(), fontsize="small", va="center", color="0.3")
    if ax.get_legend_handles_labels()[0]:
        ax.legend(fontsize="small", ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    return ax


def plot_channel_delays(delays, channels=None, truth=None, ax=None):
    """When each channel gets an event, relative to the common onset, with 95 % intervals; both are ChannelDelays."""
    ax = _axes(ax)
    rows = np.arange(len(delays.delay_s))
    names = channels if channels is not None else [f"ch{c + 1}" for c in rows]
    if truth is not None:
        ax.plot(1e3 * truth.delay_s, rows, "D", color="0.6", markersize=9, label="truth")
    middle = 1e3 * delays.delay_s
    reach = np.abs(1e3 * np.stack([delays.low_s, delays.high_s]) - middle)
    interval = reach if np.isfinite(reach).any() else None
    label = f"{delays.n_events} events, 95 %" if interval is not None else "template"
    ax.errorbar(middle, rows, xerr=interval, fmt="none", ecolor="0.2", capsize=4, linewidth=1.6, label=label)
    ax.scatter(middle, rows, c=[f"C{c}" for c in rows], s=34, zorder=3)
    ax.axvline(0, color="0.4", linewidth=0.9, linestyle=":")
    ax.set(yticks=rows, yticklabels=names, ylim=(len(rows) - 0.5, -0.5), xlabel="delay (ms)")
    ax.grid(axis="x", color="0.9", linewidth=0.8)
    ax.legend(fontsize="small", ncols=2, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    return ax


def plot_similarity(similarity, names, chosen=None, ax=None):
    """How alike the kinds are, (E, E): 1 is the same shape; ``chosen`` names a kind to set off."""
    ax = _axes(ax)
    similarity = np.asarray(similarity)
    if similarity.shape != (len(names), len(names)):
        raise ShapeError(f"similarity must be ({len(names)}, {len(names)}) for {len(names)} names, got {similarity.shape}")
    image = ax.imshow(similarity, vmin=0, vmax=1, cmap="viridis")
    ax.figure.colorbar(image, ax=ax, label="similarity of templates", shrink=0.8, pad=0.02)
    ticks = np.arange(len(names))
    ax.set_xticks(ticks, names, rotation=90)
    ax.set_yticks(ticks, names)
    ax.tick_params(labelsize="small" if len(names) <= 10 else "x-small")
    if chosen is not None:
        ax.axhspan(*(list(names).index(chosen) + np.array([-0.5, 0.5])), fill=False, edgecolor="tab:red", linewidth=2)
    return ax


def plot_error_groups(error_s, ax=None, tolerance_s=None, colours=None):
    """Signed timing errors of groups (types, channels): every event a dot, box from quartile to quartile, median as a line.

    Parameters
    ----------
    error_s : dict of label to errors in seconds
    tolerance_s : the axis reaches no further than this
    """
    ax = _axes(ax)
    groups = {label: 1e3 * (e := np.asarray(values, dtype=float))[np.isfinite(e)] for label, values in error_s.items()}
    rows = np.arange(len(groups))
    everything = np.concatenate([*groups.values(), np.zeros(0)])
    limit = 1.25 * np.quantile(np.abs(everything), 0.98) if len(everything) else 1.0
    limit = max(limit if tolerance_s is None else min(limit, 1e3 * tolerance_s), 1e-3)
    # The scatter of dots is decoration: the same in every drawing.
    rng = np.random.default_rng(0)
    for row, error_ms in enumerate(groups.values()):
        colour = f"C{row % 10}" if colours is None else colours[row]
        ax.plot(
            np.clip(error_ms, -limit, limit),
            row + rng.uniform(-0.3, 0.3, len(error_ms)),
            ".",
            color=colour,
            markersize=3,
            alpha=0.5,
        )
        if len(error_ms):
            low, middle, high = np.quantile(error_ms, [0.25, 0.5, 0.75])
            ax.barh(row, high - low, 0.62, low, facecolor="none", edgecolor="0.15", linewidth=1.1, zorder=3)
            ax.vlines(middle, row - 0.31, row + 0.31, color="0.05", linewidth=2.2, zorder=4)
            text = f"{middle:+.3f}"
        else:
            text = "none"
        ax.text(1.01, row, text, transform=ax.get_yaxis_transform(), fontsize="small", va="center")
    ax.axvline(0, color="0.4", linewidth=0.9, linestyle=":")
    ax.set(yticks=rows, yticklabels=groups.keys(), ylim=(len(rows) - 0.4, -0.6), xlim=(-limit, limit))
    ax.set(xlabel="timing error (ms); right: median")
    ax.tick_params(axis="y", labelsize="small")
    return ax


def plot_time_to_next(before, after, interval_s, names, chosen=None, ax=None):
    """Which kind comes next, and after how long: the median time from each kind (rows) to the next other kind (columns).

    The number in a field is how often that happened; ``chosen`` names a kind to set off.
    """
    ax = _axes(ax)
    n = len(names)
    median, count = np.full((n, n), np.nan), np.zeros((n, n), dtype=int)
    for a, b in {*zip(before, after, strict=True)}:
        here = interval_s[(before == a) & (after == b)]
        median[a, b], count[a, b] = np.median(here), len(here)
    image = ax.imshow(median, cmap="viridis_r")
    ax.figure.colorbar(image, ax=ax, label="median time to the next other kind (s)", shrink=0.8, pad=0.02)
    middle = 0.5 * (np.nanmin(median) + np.nanmax(median)) if len(interval_s) else 0
    for a, b in zip(*np.nonzero(count), strict=True):
        colour = "white" if median[a, b] > middle else "black"
        ax.text(b, a, count[a, b], ha="center", va="center", fontsize="x-small" if n > 10 else "small", color=colour)
    ticks = np.arange(n)
    ax.set_xticks(ticks, names, rotation=90)
    ax.set_yticks(ticks, names)
    ax.tick_params(labelsize="small" if n <= 10 else "x-small")
    ax.set(xlabel="next other kind", ylabel="kind")
    if chosen is not None:
        ax.axhspan(*(list(names).index(chosen) + np.array([-0.5, 0.5])), fill=False, edgecolor="tab:red", linewidth=2)
    return ax


def plot_intervals(interval_s, ax=None, bins=50):
    """Histograms of times between events, seconds; ``interval_s`` is a dict of label (reference, estimated) to array."""
    ax = _axes(ax)
    everything = np.concatenate([*interval_s.values(), np.zeros(0)])
    low, high = np.quantile(everything, [0, 0.99]) if len(everything) else (0.0, 1.0)
    margin = max(0.05 * (high - low), 1e-3)
    edges = np.linspace(max(low - margin, 0), high + margin, bins + 1)
    for k, (label, values) in enumerate(interval_s.items()):
        numbers = f"median {1e3 * np.median(values):.1f} ms, n = {len(values)}" if len(values) else "none"
        style = (
            {"histtype": "stepfilled", "color": "0.8"} if k == 0 else {"histtype": "step", "color": f"C{k - 1}", "linewidth": 1.6}
        )
        ax.hist(np.clip(values, None, edges[-1]), edges, label=f"{label}: {numbers}", **style)
    ax.set(xlabel="time to the next other kind (s)", ylabel="events", xlim=(edges[0], edges[-1]))
    ax.legend(fontsize="small", loc="lower center", bbox_to_anchor=(0.5, 1.0))
    return ax
