"""One function per kind of figure: data and ``ax=None`` in, axes out. No function here runs a model.

Times on axes are seconds, timing errors milliseconds, colours of event types the same in every figure.
Long signals are drawn as the least and greatest value per pixel column (`minmax`), so that no spike is lost
and an hour draws as fast as a second.
"""

import numpy as np

from .errors import OptionError, ShapeError
from .timebase import check_rate

MAX_LEGEND_TYPES = 16
OUTCOME_COLOURS = {"hit": "tab:green", "miss": "tab:red", "false_alarm": "tab:orange"}


def minmax(signal, bins):
    """Least and greatest value in each of ``bins`` blocks of nearly equal length.

    Parameters
    ----------
    signal : (n,) or (n, C) array, n > 0
    bins : how many blocks; at most n are made

    Returns
    -------
    start : (bins,) integers, the first sample of each block
    low, high : (bins,) or (bins, C)

    >>> minmax(np.array([3, 1, 2, 5]), 2)
    (array([0, 2]), array([1, 2]), array([3, 5]))
    """
    signal = np.asarray(signal)
    if signal.ndim not in (1, 2) or len(signal) == 0:
        raise ShapeError(f"signal must be (n,) or (n, channels) with n > 0, got {signal.shape}")
    if bins < 1:
        raise OptionError(f"bins must be at least 1, got {bins}")
    bins = min(int(bins), len(signal))
    start = np.arange(bins) * len(signal) // bins
    return start, np.minimum.reduceat(signal, start), np.maximum.reduceat(signal, start)


def type_colours(n_types):
    """(n_types, 4) colours; dark ones first, so that few types are told apart most easily."""
    from matplotlib import colormaps

    tab20 = colormaps["tab20"].colors
    order = [*tab20[::2], *tab20[1::2]]
    return np.array([(*order[k % len(order)], 1.0) for k in range(n_types)])


def plot_recording(recording, events=None, start_s=0.0, stop_s=None, ax=None, bins=1500, highpass_hz=None):
    """Channels stacked over time, with a dashed line at each event in the colour of its type.

    Parameters
    ----------
    recording : Recording
    events : Events, marked where given
    start_s, stop_s : the part to show, seconds; all without them
    bins : more samples than twice this are drawn as least and greatest value per block
    highpass_hz : leave out what is slower, such as a sway that hides the events

    Returns
    -------
    axes; the label of a channel says what half the distance to the next channel is worth
    """
    ax = _axes(ax)
    rate, first, stop = _sample_range(recording, start_s, stop_s)
    signal = recording.read(first, stop)
    if highpass_hz is not None:
        from scipy.signal import butter, sosfiltfilt

        filter = butter(2, highpass_hz, "highpass", fs=rate, output="sos")
        signal = sosfiltfilt(filter, signal, axis=0, padlen=min(99, len(signal) - 1))
    signal = signal - np.nanmedian(signal, axis=0)
    units = recording.units
    # Channels of one unit share a scale; 99.9 % of the values stay in their own lane.
    half = np.maximum(np.nanquantile(np.abs(signal), 0.999, axis=0), np.finfo(np.float32).tiny)
    half = np.array([max(h for h, other in zip(half, units, strict=True) if other == unit) for unit in units])
    lane = -2.0 * np.arange(signal.shape[1])
    lines = signal / half + lane
    if len(lines) <= 2 * bins:
        ax.plot((first + np.arange(len(lines))) / rate, lines, color="0.25", linewidth=0.7)
    else:
        block, low, high = minmax(lines, bins)
        for c in range(lines.shape[1]):
            ax.fill_between((first + block) / rate, low[:, c], high[:, c], color="0.25", linewidth=0.3)
    labels = [f"{name}\n±{h:.2g} {unit}".rstrip() for name, h, unit in zip(recording.channels, half, units, strict=True)]
    ax.set(yticks=lane, yticklabels=labels, xlabel="time (s)", ylim=(lane[-1] - 1.2, 1.2), xlim=(first / rate, stop / rate))
    if events is not None:
        _mark_events(ax, events, first / rate, stop / rate)
    return ax


def plot_events_raster(events, start_s=0.0, stop_s=None, ax=None):
    """One row per event type, one tick per event; several tables beside each other in each row.

    ``events`` is one Events, or a dict of label to Events with the same names (reference and estimate, say).
    """
    ax = _axes(ax)
    tables = events if isinstance(events, dict) else {None: events}
    names = next(iter(tables.values())).names
    height = 0.8 / len(tables)
    for k, (label, table) in enumerate(tables.items()):
        table = table.with_names(names)
        shown = table[(table.onset_s >= start_s) & (table.onset_s < (np.inf if stop_s is None else stop_s))]
        colour = type_colours(len(names))[shown.type] if label is None else f"C{k}"
        top = shown.type - 0.4 + k * height
        ax.vlines(shown.onset_s, top, top + 0.9 * height, color=colour, linewidth=1.8, label=label)
    ax.set(yticks=np.arange(len(names)), yticklabels=names, ylim=(len(names) - 0.4, -0.6), xlabel="time (s)", ylabel="event type")
    ax.set_xlim(start_s, stop_s)
    if len(tables) > 1:
        _legend_right(ax)
    return ax


def plot_templates(templates, sampling_rate_hz, names=None, truth=None, channels=None, start_s=0.0, unit="", axes=None):
    """A grid of small axes, one per event type, the channels stacked.

    Parameters
    ----------
    templates : (E, C, L) array
    sampling_rate_hz : its rate
    names, channels : labels of the E types and C channels
    truth : (E, C, L) array drawn in grey behind, such as the templates that a simulation used
    start_s : time of the first sample relative to the onset, seconds
    unit : unit of the templates, for the scale in the corner label
    axes : E axes to draw in

    Returns
    -------
    (E,) array of axes
    """
    import matplotlib.pyplot as plt

    templates = np.asarray(templates)
    if templates.ndim != 3:
        raise ShapeError(f"templates must be (types, channels, samples), got {templates.shape}")
    if truth is not None and np.shape(truth) != templates.shape:
        raise ShapeError(f"truth must have the shape of templates, {templates.shape}, got {np.shape(truth)}")
    n_types, n_channels, length = templates.shape
    time_ms = 1e3 * (start_s + np.arange(length) / check_rate(sampling_rate_hz))
    if axes is None:
        columns = int(np.ceil(np.sqrt(n_types)))
        rows = -(-n_types // columns)
        size = (2.3 * columns, 1.9 * rows + 0.4)
        figure, grid = plt.subplots(rows, columns, figsize=size, sharex=True, sharey=True, squeeze=False, layout="constrained")
        for ax in grid.flat[n_types:]:
            ax.set_visible(False)
        axes = grid.flat[:n_types]
        figure.supxlabel("time after the onset (ms)", fontsize="medium")
    axes = np.atleast_1d(np.asarray(axes, dtype=object)).ravel()
    if len(axes) != n_types:
        raise ShapeError(f"axes must be one per type, {n_types}, got {len(axes)}")
    # One scale for all, so that types can be compared.
    half = max(np.abs(templates).max(), 0 if truth is None else np.abs(truth).max(), np.finfo(np.float32).tiny)
    lane = -1.2 * np.arange(n_channels)
    for k, ax in enumerate(axes):
        if truth is not None:
            ax.plot(time_ms, truth[k].T / half + lane, color="0.75", linewidth=2.5)
        for c in range(n_channels):
            ax.plot(time_ms, templates[k, c] / half + lane[c], color=f"C{c}", linewidth=1)
        ax.axvline(0, color="0.5", linewidth=0.6, linestyle=":")
        ax.set_title(names[k] if names is not None else f"type {k}", fontsize="small")
        ax.set_yticks(lane, channels if channels is not None else [f"ch {c}" for c in range(n_channels)], fontsize="x-small")
    for ax in axes:
        if ax.get_subplotspec() is None or ax.get_subplotspec().is_last_row():
            ax.set_xlabel(f"1 lane = {1.2 * half:.2g} {unit}".rstrip(), fontsize="x-small")
    return axes


def plot_timing_errors(error_s, tolerance_s=0.005, ax=None, bins=61):
    """Histogram of signed timing errors (estimated minus reference) in ms, with bias and RMSE in the legend.

    ``error_s`` is an array of errors in seconds, or a dict of label to array.
    """
    ax = _axes(ax)
    groups = error_s if isinstance(error_s, dict) else {"events": error_s}
    groups = {label: 1e3 * np.asarray(values, dtype=float) for label, values in groups.items()}
    # The histogram spans what is there, so that 0.1 ms of scatter is seen inside a tolerance of 5 ms.
    spread = max((np.quantile(np.abs(e), 0.995) for e in groups.values() if len(e)), default=0.0)
    limit = min(1e3 * tolerance_s, max(1.2 * spread, 1e-3))
    edges = np.linspace(-limit, limit, bins + 1)
    for k, (label, error_ms) in enumerate(groups.items()):
        numbers = ", no events"
        if len(error_ms):
            numbers = f": median {np.median(error_ms):+.2f} ms, RMSE {np.sqrt(np.mean(error_ms**2)):.2f} ms, n = {len(error_ms)}"
        ax.hist(np.clip(error_ms, -limit, limit), edges, histtype="step", color=f"C{k}", linewidth=1.5, label=f"{label}{numbers}")
    ax.axvline(0, color="0.5", linewidth=0.6, linestyle=":")
    ax.set(xlabel="timing error (ms), late is positive", ylabel="events", xlim=(-limit, limit))
    ax.set_ylim(0, 1.1 * ax.get_ylim()[1])
    ax.legend(fontsize="small", loc="lower center", bbox_to_anchor=(0.5, 1.0))
    return ax


def plot_f1_bars(table, tolerance_s=0.005, ax=None):
    """Mean F1 per method, a dot for every row (seed).

    ``table`` is a pandas table with the columns ``method`` and ``f1``, and ``condition`` where bars are grouped.
    """
    ax = _axes(ax)
    need_columns("table", table, "method", "f1")
    grouped = "condition" in table
    methods = list(dict.fromkeys(table["method"]))
    conditions = list(dict.fromkeys(table["condition"])) if grouped else [None]
    width = 0.8 / len(conditions)
    for k, condition in enumerate(conditions):
        rows = table[table["condition"] == condition] if grouped else table
        means = rows.groupby("method")["f1"].mean().reindex(methods)
        offset = (k - (len(conditions) - 1) / 2) * width
        bars = ax.bar(np.arange(len(methods)) + offset, means, 0.95 * width, color=f"C{k}", alpha=0.75, label=condition)
        ax.bar_label(bars, fmt="%.3f", fontsize="small", padding=4)
        position = [methods.index(method) + offset for method in rows["method"]]
        ax.plot(position, rows["f1"], "o", color="0.2", markersize=3)
    # A little air above 1 for the numbers.
    ax.set(ylabel=f"F1 at ±{1e3 * tolerance_s:g} ms", ylim=(0, 1.09), yticks=np.linspace(0, 1, 6))
    ax.set_xticks(np.arange(len(methods)), methods)
    if grouped:
        _legend_right(ax)
    return ax


def plot_precision_recall(curves, points=None, ax=None):
    """Precision over recall, one curve per label.

    Parameters
    ----------
    curves : dict of label to (precision, recall), arrays of equal length
    points : dict of label to (precision, recall) at the threshold in use
    """
    ax = _axes(ax)
    for k, (label, (precision, recall)) in enumerate(curves.items()):
        if np.shape(precision) != np.shape(recall):
            raise ShapeError(f"precision and recall of {label!r} differ in length: {np.shape(precision)}, {np.shape(recall)}")
        order = np.argsort(recall, kind="stable")
        ax.plot(np.asarray(recall)[order], np.asarray(precision)[order], color=f"C{k}", label=label)
        if points and label in points:
            ax.plot(points[label][1], points[label][0], "o", color=f"C{k}", markersize=7)
    ax.set(xlabel="recall (share of the events that were found)", ylabel="precision (share of detections that are true)")
    ax.set(xlim=(0, 1.02), ylim=(0, 1.02))
    ax.legend(fontsize="small", loc="lower left")
    return ax


def plot_reliability(calibrations, ax=None):
    """Observed share of hits over stated probability, a line per detector; on the diagonal scores mean what they say.

    ``calibrations``: dict of label to what :meth:`Comparison.calibration` gives. Markers grow with the number of estimates.
    """
    ax = _axes(ax)
    ax.plot([0, 1], [0, 1], color="0.6", linestyle="--", linewidth=1, label="as stated")
    for k, (label, result) in enumerate(calibrations.items()):
        full = np.flatnonzero(result["n"])
        stated, observed, n = (np.asarray(result[name])[full] for name in ("stated", "observed", "n"))
        ax.plot(stated, observed, color=f"C{k}", linewidth=1)
        ax.scatter(stated, observed, s=12 + 20 * np.log10(1 + n), color=f"C{k}", label=f"{label} (ECE {result['ece']:.3f})")
    ax.set(xlabel="stated probability", ylabel="observed share of hits", xlim=(-0.02, 1.02), ylim=(-0.02, 1.05), aspect="equal")
    _legend_right(ax)
    return ax


def plot_learning_curves(history, x="epoch", y=("train_loss", "val_loss"), ax=None, unit=""):
    """Losses over training; ``history`` is a pandas table such as Lightning's ``metrics.csv`` (gaps are skipped)."""
    ax = _axes(ax)
    shown = [column for column in y if column in history]
    if not shown:
        raise OptionError(f"history has none of the columns {tuple(y)}; it has {list(history.columns)}")
    for column in shown:
        rows = history[[x, column]].dropna()
        ax.plot(rows[x], rows[column], label=column.replace("_", " "), marker="." if len(rows) < 50 else None)
    ax.set(xlabel=x, ylabel=f"loss ({unit})" if unit else "loss")
    ax.legend(fontsize="small")
    return ax


def plot_detection_example(
    recording, reference, estimated, scores=None, frame_s=None, start_s=0.0, stop_s=None, axes=None, highpass_hz=None
):
    """Signal, reference beside estimate, and (where given) the scores over time, above each other.

    Parameters
    ----------
    recording : Recording
    reference, estimated : Events with the same names
    scores : (n_frames, E) score of each type per frame; needs ``frame_s``, the seconds from one frame to the next
    start_s, stop_s : the part to show, seconds
    axes : two axes, three with scores
    highpass_hz : as for `plot_recording`

    Returns
    -------
    (2,) or (3,) array of axes
    """
    import matplotlib.pyplot as plt

    n_axes = 2 if scores is None else 3
    if scores is not None and frame_s is None:
        raise OptionError("scores need frame_s, the seconds from one frame to the next")
    if axes is None:
        ratios = [3, 3, 2][:n_axes]
        _, axes = plt.subplots(n_axes, 1, figsize=(9, 2.2 * n_axes + 2), sharex=True, height_ratios=ratios, layout="constrained")
    axes = np.asarray(axes, dtype=object)
    if axes.shape != (n_axes,):
        raise ShapeError(f"this figure needs {n_axes} axes, got {axes.shape}")
    rate, first, stop = _sample_range(recording, start_s, stop_s)
    plot_recording(recording, None, start_s, stop_s, axes[0], highpass_hz=highpass_hz)
    plot_events_raster({"reference": reference, "estimated": estimated}, first / rate, stop / rate, axes[1])
    if scores is not None:
        scores = np.asarray(scores)
        a, b = int(first / rate / frame_s), int(np.ceil(stop / rate / frame_s))
        extent = (a * frame_s, min(b, len(scores)) * frame_s, scores.shape[1] - 0.5, -0.5)
        image = axes[2].imshow(scores[a:b].T, aspect="auto", extent=extent, cmap="magma", interpolation="nearest")
        axes[2].set(yticks=np.arange(scores.shape[1]), yticklabels=reference.names, ylabel="event type")
        axes[2].figure.colorbar(image, ax=axes[2], label="score", pad=0.01)
    for ax in axes[:-1]:
        ax.set_xlabel("")
    for ax in axes[1:]:
        ax.tick_params(axis="y", labelsize="x-small")
    axes[-1].set(xlabel="time (s)", xlim=(first / rate, stop / rate))
    return axes


def plot_error_gallery(recording, outcomes, n_examples=9, window_s=0.1, axes=None, highpass_hz=None):
    """Small pieces of signal around misses and false alarms, half of each where there are enough.

    Parameters
    ----------
    recording : Recording
    outcomes : pandas table with the columns ``outcome`` (hit, miss, false_alarm), ``onset_s`` and ``type``,
        as ``Comparison.to_frame`` gives it
    n_examples : how many at most, spread evenly over the recording
    window_s : length of each piece, seconds
    highpass_hz : as for `plot_recording`

    Returns
    -------
    array of as many axes as there are examples
    """
    import matplotlib.pyplot as plt

    need_columns("outcomes", outcomes, "outcome", "onset_s", "type")
    kinds = [outcomes[outcomes["outcome"] == kind] for kind in ("miss", "false_alarm")]
    wanted = min(len(kinds[0]), max(n_examples - len(kinds[1]), -(-n_examples // 2)))
    rows = [_spread(kinds[0], wanted), _spread(kinds[1], n_examples - wanted)]
    rows = [row for table in rows for row in table.itertuples()]
    if axes is None:
        columns = min(3, max(len(rows), 1))
        height = -(-max(len(rows), 1) // columns)
        _, grid = plt.subplots(height, columns, figsize=(3 * columns, 2.2 * height), squeeze=False, layout="constrained")
        for ax in grid.flat[len(rows) :]:
            ax.set_axis_off()
        axes = grid.flat[: len(rows)]
        if not rows:
            grid[0, 0].text(0.5, 0.5, "no errors", ha="center", va="center")
    axes = np.asarray(axes, dtype=object).ravel()[: len(rows)]
    length_s = recording.duration_s
    for ax, row in zip(axes, rows, strict=True):
        begin = np.clip(row.onset_s - window_s / 2, 0, max(length_s - window_s, 0))
        plot_recording(recording, None, begin, min(begin + window_s, length_s), ax, highpass_hz=highpass_hz)
        ax.axvline(row.onset_s, color=OUTCOME_COLOURS[row.outcome], linewidth=1.5)
        ax.set_title(f"{row.outcome.replace('_', ' ')}: {row.type}", fontsize="small", color=OUTCOME_COLOURS[row.outcome])
        ax.set_yticks([])
        ax.set_ylabel("channels", fontsize="small")
        ax.tick_params(labelsize="x-small")
        ax.locator_params(axis="x", nbins=4)
        ax.ticklabel_format(axis="x", useOffset=False)
        ax.set_xlabel("time (s)", fontsize="small")
    return axes


def need_columns(name, table, *columns):
    """Refuse a pandas table without these columns."""
    if missing := set(columns) - set(table.columns):
        raise OptionError(f"{name} lacks the column {' and '.join(sorted(missing))}; it has {list(table.columns)}")


def _axes(ax):
    if ax is not None:
        return ax
    import matplotlib.pyplot as plt

    return plt.subplots(layout="constrained")[1]


def _sample_range(recording, start_s, stop_s):
    """Rate, first sample and one past the last of a part of a recording."""
    rate, n = recording.sampling_rate_hz, recording.n_samples
    first = int(round(start_s * rate))
    stop = n if stop_s is None else min(int(round(stop_s * rate)), n)
    if not 0 <= first < stop:
        raise OptionError(f"nothing to show from {start_s} s to {stop_s} s: the recording lasts {n / rate:g} s")
    return rate, first, stop


def _mark_events(ax, events, start_s, stop_s):
    """A dashed line per event in the colour of its type, with a legend while there are few types."""
    shown = events[(events.onset_s >= start_s) & (events.onset_s < stop_s)]
    present = np.unique(shown.type)
    colours = type_colours(len(events.names))
    for k in present:
        label = events.names[k] if len(present) <= MAX_LEGEND_TYPES else None
        onset_s = shown.onset_s[shown.type == k]
        ax.vlines(onset_s, 0, 1, transform=ax.get_xaxis_transform(), color=colours[k], linestyle="--", linewidth=1.2, label=label)
    if 0 < len(present) <= MAX_LEGEND_TYPES:
        _legend_right(ax)


def _legend_right(ax):
    ax.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize="small", frameon=False)


def _spread(table, n):
    """``n`` rows of a table, evenly spread."""
    return table.iloc[np.linspace(0, len(table) - 1, min(n, len(table))).astype(int)] if len(table) else table
