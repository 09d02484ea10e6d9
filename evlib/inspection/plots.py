"""One function per kind of figure: data and ``ax=None`` in, axes out. No function here runs a model.

Times on axes are seconds, timing errors milliseconds, colours of event types the same in every figure.
Long signals are drawn as the least and greatest value per pixel column (`minmax`), so that no spike is lost
and an hour draws as fast as a second.
"""

import numpy as np

from ..signals.errors import OptionError, ShapeError, require_rate

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
    labels = [
        f"{name}\n±{h:.2g} {unit}".rstrip() for name, h, unit in zip(recording.channels, half, units, strict=True)
    ]
    ax.set(
        yticks=lane, yticklabels=labels, xlabel="time (s)", ylim=(lane[-1] - 1.2, 1.2), xlim=(first / rate, stop / rate)
    )
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
    ax.set(
        yticks=np.arange(len(names)),
        yticklabels=names,
        ylim=(len(names) - 0.4, -0.6),
        xlabel="time (s)",
        ylabel="event type",
    )
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
    time_ms = 1e3 * (start_s + np.arange(length) / require_rate(sampling_rate_hz))
    if axes is None:
        columns = int(np.ceil(np.sqrt(n_types)))
        rows = -(-n_types // columns)
        size = (2.3 * columns, 1.9 * rows + 0.4)
        figure, grid = plt.subplots(
            rows, columns, figsize=size, sharex=True, sharey=True, squeeze=False, layout="constrained"
        )
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
        ax.set_yticks(
            lane, channels if channels is not None else [f"ch {c}" for c in range(n_channels)], fontsize="x-small"
        )
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
        ax.hist(
            np.clip(error_ms, -limit, limit),
            edges,
            histtype="step",
            color=f"C{k}",
            linewidth=1.5,
            label=f"{label}{numbers}",
        )
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
            raise ShapeError(
                f"precision and recall of {label!r} differ in length: {np.shape(precision)}, {np.shape(recall)}"
            )
        order = np.argsort(recall, kind="stable")
        ax.plot(np.asarray(recall)[order], np.asarray(precision)[order], color=f"C{k}", label=label)
        if points and label in points:
            ax.plot(points[label][1], points[label][0], "o", color=f"C{k}", markersize=7)
    ax.set(
        xlabel="recall (share of the events that were found)", ylabel="precision (share of detections that are true)"
    )
    ax.set(xlim=(0, 1.02), ylim=(0, 1.02))
    ax.legend(fontsize="small", loc="lower left")
    return ax


def plot_reliability(calibrations, ax=None):
    """Observed share of hits over stated probability, a line per detector; on the diagonal scores mean what they say.

    ``calibrations``: dict of label to what :meth:`Comparison.calibration` gives. Markers grow with the number of
    estimates.
    """
    ax = _axes(ax)
    ax.plot([0, 1], [0, 1], color="0.6", linestyle="--", linewidth=1, label="as stated")
    for k, (label, result) in enumerate(calibrations.items()):
        full = np.flatnonzero(result["n"])
        stated, observed, n = (np.asarray(result[name])[full] for name in ("stated", "observed", "n"))
        ax.plot(stated, observed, color=f"C{k}", linewidth=1)
        ax.scatter(
            stated, observed, s=12 + 20 * np.log10(1 + n), color=f"C{k}", label=f"{label} (ECE {result['ece']:.3f})"
        )
    ax.set(
        xlabel="stated probability",
        ylabel="observed share of hits",
        xlim=(-0.02, 1.02),
        ylim=(-0.02, 1.05),
        aspect="equal",
    )
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
        _, axes = plt.subplots(
            n_axes, 1, figsize=(9, 2.2 * n_axes + 2), sharex=True, height_ratios=ratios, layout="constrained"
        )
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
    outcomes : pandas table with the columns ``outcome`` (hit, miss, false_alarm), ``time_s`` and ``type``,
        as ``Comparison.table`` gives it
    n_examples : how many at most, spread evenly over the recording
    window_s : length of each piece, seconds
    highpass_hz : as for `plot_recording`

    Returns
    -------
    array of as many axes as there are examples
    """
    import matplotlib.pyplot as plt

    need_columns("outcomes", outcomes, "outcome", "time_s", "type")
    kinds = [outcomes[outcomes["outcome"] == kind] for kind in ("miss", "false_alarm")]
    wanted = min(len(kinds[0]), max(n_examples - len(kinds[1]), -(-n_examples // 2)))
    rows = [_spread(kinds[0], wanted), _spread(kinds[1], n_examples - wanted)]
    rows = [row for table in rows for row in table.itertuples()]
    if axes is None:
        columns = min(3, max(len(rows), 1))
        height = -(-max(len(rows), 1) // columns)
        _, grid = plt.subplots(
            height, columns, figsize=(3 * columns, 2.2 * height), squeeze=False, layout="constrained"
        )
        for ax in grid.flat[len(rows) :]:
            ax.set_axis_off()
        axes = grid.flat[: len(rows)]
        if not rows:
            grid[0, 0].text(0.5, 0.5, "no errors", ha="center", va="center")
    axes = np.asarray(axes, dtype=object).ravel()[: len(rows)]
    length_s = recording.duration_s
    for ax, row in zip(axes, rows, strict=True):
        begin = np.clip(row.time_s - window_s / 2, 0, max(length_s - window_s, 0))
        plot_recording(recording, None, begin, min(begin + window_s, length_s), ax, highpass_hz=highpass_hz)
        ax.axvline(row.time_s, color=OUTCOME_COLOURS[row.outcome], linewidth=1.5)
        ax.set_title(
            f"{row.outcome.replace('_', ' ')}: {row.type}", fontsize="small", color=OUTCOME_COLOURS[row.outcome]
        )
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
        ax.vlines(
            onset_s,
            0,
            1,
            transform=ax.get_xaxis_transform(),
            color=colours[k],
            linestyle="--",
            linewidth=1.2,
            label=label,
        )
    if 0 < len(present) <= MAX_LEGEND_TYPES:
        _legend_right(ax)


def _legend_right(ax):
    ax.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize="small", frameon=False)


def _spread(table, n):
    """``n`` rows of a table, evenly spread."""
    return table.iloc[np.linspace(0, len(table) - 1, min(n, len(table))).astype(int)] if len(table) else table


# --- Figures of templates: what a model has learned of each type, channel by channel.


def visualize_learned_templates(model, save_path=None, sampling_rate_hz=2000.0, names=None, channels=None):
    """The templates of a model with their delays, one panel per type, the channels stacked.

    Parameters
    ----------
    model : EventSpecificClassifier or EventTemplateBank
    save_path : write a picture there; its ending says of what kind
    sampling_rate_hz : of the signal that the model was made for
    names, channels : labels; default: type 0, 1, ... and F0, F1, ...

    Returns
    -------
    matplotlib figure

    Raises
    ------
    OptionError : a model without templates

    Examples
    --------
    >>> import evlib
    >>> figure = visualize_learned_templates(evlib.EventTemplateBank(num_events=2, num_features=3))
    >>> len([ax for ax in figure.axes if ax.get_visible()])
    2
    """
    bank = getattr(model, "template_bank", model)
    if not hasattr(bank, "apply_delays"):
        raise OptionError(
            f"a {type(model).__name__} has no templates: give an EventSpecificClassifier or an EventTemplateBank"
        )
    templates = bank.apply_delays().detach().cpu().numpy()
    channels = channels or [f"F{c}" for c in range(bank.num_features)]
    start_s = -(bank.max_delay_samples + bank.before) / sampling_rate_hz
    axes = plot_templates(templates, sampling_rate_hz, names, channels=channels, start_s=start_s)
    figure = np.atleast_1d(axes)[0].figure
    if save_path is not None:
        figure.savefig(save_path, dpi=120)
    return figure


# --- Figures for looking into a detector: thresholds, templates and single events, delays, timing.


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
    ticks = [
        t for t in (0, 1, 2, 3, 5, 10, 20, 50, 100, 1000, 10_000, 100_000) if t <= 1.3 * top and (t <= 100 or top > 300)
    ]
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
        ax.axhspan(
            *(list(table.index).index(chosen) + np.array([-0.5, 0.5])), color="tab:blue", alpha=0.12, linewidth=0
        )
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
    ax.legend(
        fontsize="small", ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1.0), handletextpad=0.1, columnspacing=0.8
    )
    return ax


def plot_aligned_events(
    snippets,
    template,
    sampling_rate_hz,
    before,
    channels=None,
    truth=None,
    delays=None,
    half=None,
    label="template",
    ax=None,
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
                time_ms,
                template[:, c] / half + lane[c],
                color="0.05" if len(snippets) else colour,
                linewidth=1.2,
                label=name,
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
        raise ShapeError(
            f"similarity must be ({len(names)}, {len(names)}) for {len(names)} names, got {similarity.shape}"
        )
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
    """Signed timing errors of groups (types, channels): every event a dot, box from quartile to quartile, median as a
    line.

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
    """Which kind comes next, and after how long: the median time from each kind (rows) to the next other kind
    (columns).

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
    """Histograms of times between events, seconds; ``interval_s`` is a dict of label (reference, estimated) to
    array."""
    ax = _axes(ax)
    everything = np.concatenate([*interval_s.values(), np.zeros(0)])
    low, high = np.quantile(everything, [0, 0.99]) if len(everything) else (0.0, 1.0)
    margin = max(0.05 * (high - low), 1e-3)
    edges = np.linspace(max(low - margin, 0), high + margin, bins + 1)
    for k, (label, values) in enumerate(interval_s.items()):
        numbers = f"median {1e3 * np.median(values):.1f} ms, n = {len(values)}" if len(values) else "none"
        style = (
            {"histtype": "stepfilled", "color": "0.8"}
            if k == 0
            else {"histtype": "step", "color": f"C{k - 1}", "linewidth": 1.6}
        )
        ax.hist(np.clip(values, None, edges[-1]), edges, label=f"{label}: {numbers}", **style)
    ax.set(xlabel="time to the next other kind (s)", ylabel="events", xlim=(edges[0], edges[-1]))
    ax.legend(fontsize="small", loc="lower center", bbox_to_anchor=(0.5, 1.0))
    return ax


# --- Figures of pretraining: windows beside their reconstructions, latent spaces, probes over labels.


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
    time_ms = 1e3 * np.arange(time) / require_rate(sampling_rate_hz)
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
    table : pandas table with the columns method, labels_per_type and accuracy, as
        `evlib.studies.probing.compare_probes` gives
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
    """A line per method over labels per type, with its interval. A frozen encoder (``probe, ...``) is dotted, in the
    colour of the same encoder fine-tuned (``frames, ...``).

    Parameters
    ----------
    summary : pandas table with the columns labels_per_type (0: all), method, mean, low, high, as
        `evlib.studies.label_budgets.summarise` gives, of one signal-to-noise ratio
    value : what the mean is of
    legend : draw one on the right
    order : names of methods in the order of colours and markers, to keep them from figure to figure; default: as they
        come
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


# --- The picture of a signal view: rows of event marks, the channels, the candidates of a detector, above each othe


MANY_MARKS = 120
TRACE = "#4b5a69"


def plot_view(view, channels, units, half, marks=(), rows=(), scores=(), legend=(), title="", selected=-1):
    """Draw what a `evlib.inspection.signal_view.SignalView` shows.

    Parameters
    ----------
    view : evlib.inspection.view.View
    channels, units, half : a name, a unit and half the height of a lane for each channel
    marks, rows, scores, legend, selected : as the attributes of a SignalView

    Returns
    -------
    matplotlib Figure, made without pyplot
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 1.8 + 0.62 * len(channels) + 1.1 * bool(len(scores))), layout="constrained")
    ratios = [max(0.35 * len(rows), 0.2), 0.62 * len(channels)] + [1.0] * bool(len(scores))
    axes = figure.subplots(len(ratios), 1, sharex=True, height_ratios=ratios, squeeze=False)[:, 0]
    start_s = view.start_s
    stop_s = start_s[-1] + view.step / view.sampling_rate_hz
    _draw_marks(axes[0], marks, rows, selected, start_s[0], stop_s)
    _draw_channels(axes[1], view, channels, units, half)
    for mark in marks if len(marks) <= MANY_MARKS else [mark for mark in marks if mark["id"] == selected]:
        strong = mark["id"] == selected
        axes[1].axvline(
            mark["time_s"], color=mark["colour"], linewidth=1.6 if strong else 0.8, alpha=0.9 if strong else 0.4
        )
    if len(scores):
        _draw_scores(axes[2], scores)
    axes[-1].set(xlabel="time (s)", xlim=(start_s[0], stop_s))
    for ax in axes:
        ax.ticklabel_format(axis="x", useOffset=False)
        ax.spines[["top", "right"]].set_visible(False)
    if legend:
        from matplotlib.patches import Patch

        handles = [Patch(color=colour, label=label) for label, colour in legend]
        figure.legend(handles=handles, loc="outside upper right", ncols=len(handles), frameon=False, fontsize="small")
    if title:
        figure.suptitle(title, fontsize="medium", x=0.01, ha="left")
    return figure


def _draw_marks(ax, marks, rows, selected, start_s, stop_s):
    """One row of ticks and names for each table of events."""
    row_of = [next((k for k, row in enumerate(rows) if mark["kind"] in row["kinds"]), 0) for mark in marks]
    letter_s = (stop_s - start_s) / 125
    for row in range(max(len(rows), 1)):
        own = sorted((mark for mark, k in zip(marks, row_of, strict=True) if k == row), key=lambda mark: mark["time_s"])
        time_s = [mark["time_s"] for mark in own]
        colours = [mark["colour"] for mark in own]
        widths = [
            4.5 if mark["id"] == selected else 2 if len(own) <= MANY_MARKS else mark.get("weight", 1) for mark in own
        ]
        dashes = ["--" if mark["kind"] == "proposal" else "-" for mark in own]
        ax.vlines(time_s, row - 0.4, row + 0.4, colours, linewidth=widths, linestyle=dashes)
        _name_marks(ax, own, row, selected, letter_s)
    ax.set(yticks=range(len(rows)), yticklabels=[row["name"] for row in rows], ylim=(len(rows) - 0.5, -0.5))
    ax.tick_params(axis="x", bottom=False)


def _name_marks(ax, marks, row, selected, letter_s):
    """The name of each mark of one row, in short where it is tight; where there is no room at all, of errors only."""
    gap_s = np.median(np.diff([mark["time_s"] for mark in marks])) if len(marks) > 1 else np.inf
    brief, tight = gap_s < 8 * letter_s, gap_s < 2.5 * letter_s
    taken = next(
        ((m["time_s"], m["time_s"] + (len(m["label"]) + 1.5) * letter_s) for m in marks if m["id"] == selected), (0, 0)
    )
    for mark, following in zip(marks, [*marks[1:], None], strict=True):
        strong = mark["id"] == selected
        words = mark.get("short", mark["label"]) if brief and not strong else mark["label"]
        stop = mark["time_s"] + (len(words) + 0.5) * letter_s
        room = following is None or following["time_s"] > stop
        wanted = not tight or mark.get("weight", 1) > 1
        if strong or (wanted and room and not (mark["time_s"] < taken[1] and stop > taken[0])):
            style = {"weight": "bold", "bbox": {"facecolor": "white", "edgecolor": "none", "pad": 1}} if strong else {}
            ax.text(
                mark["time_s"] + 0.4 * letter_s,
                row,
                words,
                color=mark["colour"],
                va="center",
                size=8,
                clip_on=True,
                **style,
            )


def _draw_channels(ax, view, channels, units, half):
    lane = -2.0 * np.arange(len(channels))
    middle = (
        np.nan_to_num(np.nanmean((view.low + view.high) / 2, axis=1))
        if np.isfinite(view.low).any()
        else np.zeros(len(lane))
    )
    scale = np.asarray(half)[:, None]
    low, high = ((values - middle[:, None]) / scale + lane[:, None] for values in (view.low, view.high))
    if view.step == 1:
        ax.plot(view.start_s, low.T, color=TRACE, linewidth=0.7)
    else:
        # Lows and highs in turn: a band that also joins neighbours.
        ax.plot(
            np.repeat(view.start_s, 2), np.stack([low, high], 2).reshape(len(lane), -1).T, color=TRACE, linewidth=0.5
        )
    labels = [f"{name}\n±{h:.2g} {unit}".rstrip() for name, h, unit in zip(channels, half, units, strict=True)]
    ax.set(yticks=lane, yticklabels=labels, ylim=(lane[-1] - 1.2, 1.2))
    ax.tick_params(axis="y", labelsize="small")


def _draw_scores(ax, scores, limit=10):
    time_s = [stem["time_s"] for stem in scores]
    value = np.clip([stem["value"] for stem in scores], -limit, limit)
    colour = [stem["colour"] for stem in scores]
    ax.vlines(time_s, 0, value, colour, linewidth=1)
    ax.scatter(
        time_s, value, 16, [c if v >= 0 else "white" for c, v in zip(colour, value, strict=True)], edgecolors=colour
    )
    ax.axhline(0, color="0.5", linewidth=0.8)
    ax.set(ylim=(-1.15 * limit, 1.15 * limit), ylabel="log odds over\nthreshold")


# --- Figures of annotations: what is decided, what is not, and what fine-tuning changed.


# How an annotation is drawn: an event (accepted or added by hand), undecided, rejected.
ANNOTATION_COLOURS = {"event": "#1a7f37", "undecided": "#d9730d", "rejected": "#8c8c8c"}
CHANGE_COLOURS = {"gained": "#1f6fd0", "lost": "#c62828", "moved": "#7b3fa0"}
REVIEWED_COLOUR = "#e3f3e6"
MAX_LABELS = 40


def annotation_state(annotation):
    """How an annotation is drawn: "event", "undecided" or "rejected"."""
    return "event" if annotation.is_event else "undecided" if annotation.status == "proposed" else "rejected"


def plot_annotations(
    recording, annotations, reviewed_s=(), start_s=0.0, stop_s=None, ax=None, highpass_hz=None, selected=-1
):
    """Channels stacked over time with a line at every annotation; complete (reviewed) spans have a green ground.

    Parameters
    ----------
    recording : Recording
    annotations : list of Annotation, as :meth:`AnnotationLog.rows` gives it
    reviewed_s : (k, 2) seconds
    start_s, stop_s : the part to show, seconds; all without them
    highpass_hz : as for `plot_recording`
    selected : id of an annotation to draw bold

    Returns
    -------
    axes
    """
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    ax = plot_recording(recording, None, start_s, stop_s, ax, highpass_hz=highpass_hz)
    left, right = ax.get_xlim()
    for start, stop in reviewed_s:
        if start < right and stop > left:
            ax.axvspan(max(start, left), min(stop, right), color=REVIEWED_COLOUR, zorder=0)
    shown = [row for row in annotations if left <= row.time_s < right]
    free = {}
    for row in shown:
        kind = annotation_state(row)
        colour, bold = ANNOTATION_COLOURS[kind], row.id == selected
        ax.axvline(
            row.time_s,
            color=colour,
            linestyle="-" if kind == "event" else "--",
            linewidth=2.5 if bold else 1.2,
            zorder=3,
        )
        if len(shown) > MAX_LABELS:
            continue
        # Labels that would overlap climb to the next row.
        width = 0.012 * len(row.type) * (right - left)
        level = next(k for k in range(len(shown) + 1) if free.get(k, left - 1) <= row.time_s)
        free[level] = row.time_s + width
        words = row.type if row.score is None or kind == "event" else f"{row.type} {row.score:.2f}"
        place = (row.time_s, 1 + 0.045 * level)
        style = {"fontsize": "small", "color": colour, "weight": "bold" if bold else "normal"}
        ax.annotate(words, place, (2, 3), xycoords=ax.get_xaxis_transform(), textcoords="offset points", **style)
    lines = {"event": "-", "undecided": "--", "rejected": "--"}
    handles = [
        Line2D([], [], color=ANNOTATION_COLOURS[kind], linestyle=style, label=kind) for kind, style in lines.items()
    ]
    handles.append(Patch(color=REVIEWED_COLOUR, label="complete"))
    ax.legend(
        handles=handles, loc="upper center", bbox_to_anchor=(0.5, -0.11), ncols=4, fontsize="small", frameon=False
    )
    return ax
