"""One function per kind of figure: data and ``ax=None`` in, axes out. No function here runs a model.

Times on axes are seconds, timing errors and templates milliseconds. A type of event has the same colour in every figure
(`type_colours`), and so has a method (`method_colours`). Long signals are drawn as the least and greatest value per
pixel column (`evlib.inspection.view`), so that no spike is lost and an hour draws as fast as a second.
"""

from collections.abc import Iterable

import numpy as np
from scipy.special import expit

from ..signals.errors import OptionError, ShapeError, require_rate
from ..signals.events import Events
from ..signals.recording import Recording
from ..signals.text import one_line
from .view import Overview, View, check_part

# A legend of more types than this hides the signal.
MAX_LEGEND_TYPES = 16
# Okabe and Ito's green and vermilion, and a violet: apart for colour-blind eyes, and visible on white and on black.
# Each outcome has a shape too, a marker of matplotlib.
OUTCOME_COLOURS = {"hit": "#009e73", "miss": "#d55e00", "false_alarm": "#9b4fb5"}
OUTCOME_SHAPES = {"hit": "o", "miss": "v", "false_alarm": "X"}
SIGNAL_COLOUR = "#4b5a69"
# From channel to channel; the values of a channel mostly stay within -1 and 1 of its own line.
LANE = 2.2
TRUTH = {"color": "0.6", "linewidth": 2.6, "alpha": 0.6}
ZERO_LINE = {"color": "0.45", "linewidth": 0.8, "linestyle": ":"}
# Log odds beyond these are certain enough for a picture.
SHOWN_LOG_ODDS = (-12.0, 20.0)
# Letters of a name beside an axis, and how many rows have a name.
MOST_LETTERS, MOST_ROWS = 28, 60
# Methods stand side by side over this share of the way to the next number of labels.
DODGE = 0.3

# A method has one colour in all figures; hues are far apart for colour-blind eyes too.
METHOD_COLOURS = {
    "oracle": "#000000",
    "averaged snippets": "#a6a6a6",
    "matched filter": "#612508",
    "self-trained filter": "#d4d010",
    "network": "#008fa6",
    "discovery + network": "#e7298a",
    "frames": "#787878",
    "taught frames": "#1a1a1a",
}
# A network that starts from a pretext has the hue of the pretext: full when fine-tuned ("frames"), pale when frozen
# ("probe"), dark when the self-trained filter teaches it ("taught frames").
PRETEXT_COLOURS = {
    "autoencoder": ("#1410cb", "#6170f2", "#07055a"),
    "variational": ("#c66c10", "#f2d386", "#5f3407"),
    "contrastive": ("#2f9457", "#90e8c8", "#123a22"),
    "masked": ("#672f77", "#ed8eec", "#2c1433"),
}
for _pretext, _shades in PRETEXT_COLOURS.items():
    _names = (f"{kind}, {_pretext}" for kind in ("frames", "probe", "taught frames"))
    METHOD_COLOURS |= dict(zip(_names, _shades, strict=True))
# For methods that the table does not name.
SPARE_COLOURS = ("#0072b2", "#d55e00", "#00966c", "#9b3fa5", "#e0b000", "#56b4e9", "#8c5a2b", "#332288", "#5f5f5f")


def type_colours(n_types: int) -> np.ndarray:
    """(n_types, 4) colours; dark ones first, so that few types are easy to tell apart."""
    from matplotlib import colormaps

    tab20 = colormaps["tab20"](np.arange(20))
    return np.concatenate([tab20[::2], tab20[1::2]])[np.arange(n_types) % 20]


def method_colours(methods: Iterable[str]) -> dict:
    """The colour of each method: that of ``METHOD_COLOURS``, else a spare one that none of the others has.

    >>> method_colours(["matched filter", "mine"])
    {'matched filter': '#612508', 'mine': '#0072b2'}
    """
    methods = list(dict.fromkeys(methods))
    used = {METHOD_COLOURS.get(name) for name in methods}
    spare = [colour for colour in SPARE_COLOURS if colour not in used] or SPARE_COLOURS
    unknown = [name for name in methods if name not in METHOD_COLOURS]
    chosen = {name: spare[k % len(spare)] for k, name in enumerate(unknown)}
    return {name: METHOD_COLOURS.get(name) or chosen[name] for name in methods}


# ---- Parts of several figures


def plain(name, most: int = 60) -> str:
    r"""A name out of a file, as matplotlib shows it letter by letter: no formula, and not hidden from a legend.

    >>> plain("$x_{$")
    '\\$x_{\\$'
    """
    words = one_line(name, most).strip("\N{FIRST STRONG ISOLATE}\N{POP DIRECTIONAL ISOLATE}").replace("$", r"\$")
    return "\N{ZERO WIDTH SPACE}" + words if words.startswith("_") else words


def need_columns(name, table, *columns):
    """Refuse a pandas table without these columns."""
    if missing := set(columns) - set(table.columns):
        raise OptionError(f"{name} lacks the column {' and '.join(sorted(missing))}; it has {list(table.columns)}")


def _axes(ax):
    """The axes given, or those of a new figure."""
    if ax is not None:
        return ax
    import matplotlib.pyplot as plt

    return plt.subplots(layout="constrained")[1]


def _grid(n, columns, size, axes=None, what="panel", **options):
    """(n,) axes: those given, or a new grid of ``columns`` with panels of ``size`` inches."""
    import matplotlib.pyplot as plt

    if axes is None:
        rows = max(-(-n // columns), 1)
        size = (size[0] * columns + 0.3, size[1] * rows + 0.4)
        _, grid = plt.subplots(rows, columns, figsize=size, squeeze=False, layout="constrained", **options)
        for ax in grid.flat[n:]:
            ax.set_axis_off()
        return grid.flat[:n]
    axes = np.atleast_1d(np.asarray(axes, dtype=object)).ravel()
    if len(axes) != n:
        raise ShapeError(f"axes must be one per {what}, {n}, got {len(axes)}")
    return axes


def _legend_right(ax):
    ax.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize="small", frameon=False)


def _legend_above(ax, ncols=1):
    ax.legend(fontsize="small", ncols=ncols, loc="lower center", bbox_to_anchor=(0.5, 1.0), columnspacing=1.0)


def _stack(ax, time, waves, half, **style):
    """Draw waves (L, C) with the channels below each other, ``half`` from a line to the edge of its lane."""
    return ax.plot(time, waves / half - LANE * np.arange(np.shape(waves)[1]), **style)


def _label_stack(ax, n_channels, names=None, half=None, units=None):
    """Names of the channels at their lines; with ``half`` also what a lane is worth."""
    names = [f"ch{c + 1}" for c in range(n_channels)] if names is None else names
    names = [plain(name, MOST_LETTERS) for name in names]
    if half is not None:
        names = [f"{name}\n±{h:.2g} {plain(unit)}".rstrip() for name, h, unit in zip(names, half, units, strict=True)]
    lines = -LANE * np.arange(n_channels)
    ax.set(yticks=lines, yticklabels=names, ylim=(lines[-1] - 1.3, 1.3))


def _label_rows(ax, names):
    """One row per name, the first at the top; of very many, only some are named."""
    names = [plain(name, MOST_LETTERS) for name in names]
    some = slice(None, None, -(-len(names) // MOST_ROWS) or 1)
    ax.set(yticks=range(len(names))[some], yticklabels=names[some], ylim=(len(names) - 0.4, -0.6))


def _square(ax, values, names, chosen, what, **options):
    """A square of colours, types by types."""
    import pandas as pd
    import seaborn as sns

    # Seaborn names as many rows and columns as there is room for.
    shown = [plain(name, MOST_LETTERS) for name in names]
    table = pd.DataFrame(np.asarray(values), shown, shown)
    sns.heatmap(table, square=True, cbar_kws={"label": what, "shrink": 0.8, "pad": 0.02}, ax=ax, **options)
    ax.tick_params(labelsize="small" if len(names) <= 10 else "x-small")
    if chosen is not None:
        row = list(names).index(chosen)
        ax.axhspan(row, row + 1, fill=False, edgecolor="tab:red", linewidth=2)


def _histograms(ax, groups, labels, edges):
    """Outlines of histograms over each other; values beyond the edges are counted in the first or last bar."""
    for values, label in zip(groups, labels, strict=True):
        ax.hist(np.clip(values, edges[0], edges[-1]), edges, histtype="step", linewidth=1.5, label=label)
    _legend_above(ax)


def lowest_tick(values):
    """Where an axis of shares begins that shows values up to 1: never above 0.9."""
    return float(np.clip(np.floor(20 * np.nanmin([*values, 1.0]) - 0.5) / 20, 0.0, 0.9))


def draw_signal(ax, view: View, half, channels, units) -> None:
    """Channels of a `View` below each other; half a lane is worth ``half`` (C,)."""
    middle = (view.low + view.high) / 2
    with np.errstate(invalid="ignore"):
        middle = np.nansum(middle, axis=1) / np.maximum(np.isfinite(middle).sum(axis=1), 1)
    # Lows and highs in turn: one line that fills the band of a bin and joins it to its neighbours.
    pairs = np.stack([view.low, view.high], axis=2) if view.step > 1 else view.low[:, :, None]
    waves = pairs.reshape(len(middle), -1).T - middle
    time = np.repeat(view.start_s, pairs.shape[2])
    _stack(ax, time, waves, np.asarray(half), color=SIGNAL_COLOUR, linewidth=0.6)
    # Hatched where nothing was measured.
    for channel, values in enumerate(view.low):
        missing = np.isnan(values)
        if missing.any():
            missing[1:] |= missing[:-1]  # up to the beginning of the next bin
            low, high = -LANE * channel - 1, -LANE * channel + 1
            style = {"facecolor": "none", "edgecolor": "0.6", "hatch": "////", "linewidth": 0.0}
            ax.fill_between(view.start_s, low, high, where=missing, **style)
    _label_stack(ax, len(channels), channels, half, units)


# ---- Recordings and events


def plot_recording(
    recording: Recording,
    events: Events | None = None,
    start_s: float = 0.0,
    stop_s: float | None = None,
    ax=None,
    bins: int = 3000,
    highpass_hz: float | None = None,
):
    """Channels below each other over time, with a dashed line at each event in the colour of its type.

    Parameters
    ----------
    recording : Recording
    events : Events to mark
    start_s, stop_s : the part to show, seconds; default: all
    bins : more samples than this are drawn as least and greatest value per bin
    highpass_hz : remove slower parts, such as a sway that hides the events

    Returns
    -------
    axes; the label of a channel says what half the distance to the next channel is worth

    Raises
    ------
    OptionError : a part that holds no sample
    """
    ax = _axes(ax)
    rate = recording.sampling_rate_hz
    stop_s = recording.duration_s if stop_s is None else min(stop_s, recording.duration_s)
    check_part(start_s, stop_s, recording.duration_s)
    start_s = max(start_s, 0.0)
    overview = Overview(recording, highpass_hz)
    half = overview.scale(int(start_s * rate), int(np.ceil(stop_s * rate)))
    draw_signal(ax, overview.view(start_s, stop_s, bins), half, recording.channels, recording.units)
    ax.set(xlabel="time (s)", xlim=(start_s, stop_s))
    if events is None:
        return ax
    shown = events[(events.onset_s >= start_s) & (events.onset_s < stop_s)]
    present, colours = np.unique(shown.type), type_colours(len(events.names))
    few = 0 < len(present) <= MAX_LEGEND_TYPES
    for k in present:
        style = {"color": colours[k], "linestyle": "--", "linewidth": 1.2}
        style["label"] = plain(events.names[k]) if few else None
        ax.vlines(shown.onset_s[shown.type == k], 0, 1, transform=ax.get_xaxis_transform(), **style)
    if few:
        _legend_right(ax)
    return ax


def plot_events_raster(events: Events | dict, start_s: float = 0.0, stop_s: float | None = None, ax=None):
    """One row per event type, one tick per event; several tables beside each other in each row.

    ``events`` is one Events, or a dict of label to Events with the same names (reference and estimate, say).
    """
    ax = _axes(ax)
    tables = events if isinstance(events, dict) else {None: events}
    names = next(iter(tables.values())).names
    height = 0.8 / len(tables)
    for k, (given, table) in enumerate(tables.items()):
        table = table.with_names(names)
        shown = table[(table.onset_s >= start_s) & (table.onset_s < (np.inf if stop_s is None else stop_s))]
        colour = type_colours(len(names))[shown.type] if given is None else f"C{k}"
        top, label = shown.type - 0.4 + k * height, given and plain(given)
        ax.vlines(shown.onset_s, top, top + 0.9 * height, color=colour, linewidth=1.8, label=label)
    _label_rows(ax, names)
    ax.set(xlabel="time (s)", ylabel="event type")
    ax.set_xlim(start_s, stop_s)
    if len(tables) > 1:
        _legend_right(ax)
    return ax


def plot_error_gallery(
    recording: Recording, outcomes, n_examples: int = 9, window_s: float = 0.1, axes=None, highpass_hz=None
):
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
    need_columns("outcomes", outcomes, "outcome", "time_s", "type")
    misses, alarms = (outcomes[outcomes["outcome"] == kind] for kind in ("miss", "false_alarm"))
    wanted = min(len(misses), max(n_examples - len(alarms), -(-n_examples // 2)))
    parts = ((misses, wanted), (alarms, n_examples - wanted))
    spread = (t.iloc[np.linspace(0, len(t) - 1, min(n, len(t))).astype(int)] for t, n in parts if len(t))
    rows = [row for table in spread for row in table.itertuples()]
    if axes is not None:
        axes = np.ravel(axes)[: len(rows)]
    axes = _grid(len(rows), min(3, max(len(rows), 1)), (3, 2), axes, "example")
    for ax, row in zip(axes, rows, strict=True):
        begin = np.clip(row.time_s - window_s / 2, 0, max(recording.duration_s - window_s, 0))
        plot_recording(recording, None, begin, begin + window_s, ax, highpass_hz=highpass_hz)
        colour, shape = OUTCOME_COLOURS[row.outcome], OUTCOME_SHAPES[row.outcome]
        ax.axvline(row.time_s, color=colour, linewidth=1.5)
        ax.plot(row.time_s, 0.97, shape, color=colour, transform=ax.get_xaxis_transform(), clip_on=False)
        ax.set_title(f"{row.outcome.replace('_', ' ')}: {plain(row.type)}", fontsize="small")
        ax.set_yticks([])
        ax.set_ylabel("channels", fontsize="small")
        ax.tick_params(labelsize="x-small")
        ax.locator_params(axis="x", nbins=4)
        ax.ticklabel_format(axis="x", useOffset=False)
    return axes


def plot_lag(before_s, lag_s, alarm_s: float, ax=None):
    """Seconds behind real time (n,) over seconds before now (n,), with the level of the alarm."""
    ax = _axes(ax)
    late = np.asarray(lag_s) > alarm_s
    ax.plot(before_s, lag_s, color=SIGNAL_COLOUR, linewidth=1.2)
    ax.fill_between(before_s, alarm_s, lag_s, where=late, color=OUTCOME_COLOURS["miss"], alpha=0.4, linewidth=0)
    ax.axhline(alarm_s, color=OUTCOME_COLOURS["miss"], linestyle="--", linewidth=1)
    place = {"transform": ax.get_yaxis_transform(), "va": "bottom", "fontsize": "small"}
    ax.text(0.005, alarm_s, "alarm", color=OUTCOME_COLOURS["miss"], **place)
    ax.set(xlabel="seconds before now", ylabel="behind real\ntime (s)", ylim=(0, 1.4 * max([alarm_s, *lag_s])))
    return ax


def plot_problems(spans: dict, channels, duration_s: float, noise: tuple | None = None, lag=None, drift=None, ax=None):
    """What is wrong with a recording, on its time axis: a lane for each channel.

    Parameters
    ----------
    spans : kind -> (k, 3) first and last second and number of the channel, from `evlib.signals.validate.problem_spans`
    channels, duration_s : of the recording
    noise : moments (m,) and power of the noise (m, C) beside that of training, from ``detector.whitener.noise_levels``;
        drawn as a line, a lane is a factor of ten in amplitude, its middle is the level of training
    lag : a ClockLag (`evlib.detection.clocks.clock_lag`): its lag is drawn on an axis on the right
    drift : a TemplateDrift (`evlib.detection.drift.template_drift`): how far events are from the templates, on an axis
        on the right
    """
    ax = _axes(ax)
    kinds = dict(zip(("gap", "clipped"), ("0.65", OUTCOME_COLOURS["miss"]), strict=True))
    for kind, own in spans.items():
        colour = kinds.get(kind, OUTCOME_COLOURS["false_alarm"])
        for channel in range(len(channels)):
            rows = own[own[:, 2] == channel]
            bars = np.column_stack([rows[:, 0], rows[:, 1] - rows[:, 0]])
            # Short ones are widened to what the eye can see.
            bars[:, 1] = np.maximum(bars[:, 1], duration_s / 2000)
            ax.broken_barh(bars, (-channel - 0.45, 0.9), color=colour, linewidth=0)
        ax.plot([], [], "s", color=colour, label=f"{kind} ({len(own)})")
    if noise is not None:
        time_s, power = noise
        height = np.clip(0.5 * np.log10(np.maximum(power, 1e-12)), -0.45, 0.45)
        for channel in range(len(channels)):
            ax.plot(time_s, height[:, channel] - channel, color=SIGNAL_COLOUR, linewidth=1.2)
        ax.plot([], [], color=SIGNAL_COLOUR, label="noise beside training (lane: x10)")
    on_the_right = [] if lag is None else [("hit", "--", lag.lag_s, lag.time_s, "lag of the second clock (s)")]
    if drift is not None:
        label = "events beside templates (% of energy)"
        on_the_right.append(("false_alarm", "-", 100 * drift.share, drift.time_s, label))
    for k, (outcome, line, value, time_s, label) in enumerate(on_the_right):
        other = ax.twinx()
        other.spines["right"].set_position(("axes", 1 + 0.18 * k))
        other.plot(time_s, value, line, color=OUTCOME_COLOURS[outcome], marker="o" if outcome != "hit" else None)
        other.set_ylabel(label, color=OUTCOME_COLOURS[outcome])
    ax.set_yticks(-np.arange(len(channels)), [plain(name, MOST_LETTERS) for name in channels])
    ax.set(xlabel="time (s)", xlim=(0, duration_s), ylim=(-len(channels) + 0.5, 0.5))
    _legend_above(ax, 3)
    return ax


def plot_clocks(clocks: dict, duration_s: float, ax=None):
    """By how much clocks of streams are late over a recording, each with the band in which it lies with 95 %.

    Parameters
    ----------
    clocks : name -> Clock (`evlib.signals.joined`), from `evlib.detection.clocks.stream_clocks` or markers
    duration_s : of the recording
    """
    ax = _axes(ax)
    time_s = np.linspace(0, duration_s, 200)
    for k, (name, clock) in enumerate(clocks.items()):
        lag_ms, sd_ms = 1e3 * (clock.at(time_s) - time_s), 1e3 * clock.sd_at(time_s)
        ax.plot(time_s, lag_ms, color=f"C{k}", label=plain(f"{name}: {clock}", 2 * MOST_LETTERS))
        ax.fill_between(time_s, lag_ms - 1.96 * sd_ms, lag_ms + 1.96 * sd_ms, color=f"C{k}", alpha=0.3, linewidth=0)
    ax.set(xlabel="time on the common clock (s)", ylabel="late (ms)", xlim=(0, duration_s))
    _legend_above(ax, 1)
    return ax


# ---- Templates and windows


def plot_templates(
    templates, sampling_rate_hz: float, names=None, truth=None, channels=None, start_s=0.0, unit="", axes=None
):
    """One small panel per event type, the channels below each other, all on one scale.

    Parameters
    ----------
    templates : (E, C, L) array
    sampling_rate_hz : its rate
    names, channels : labels of the E types and C channels
    truth : (E, C, L) array drawn in grey behind, such as the templates that a simulation used
    start_s : time of the first sample relative to the onset, seconds
    unit : unit of the templates, for the scale below the panels
    axes : E axes to draw in

    Returns
    -------
    (E,) array of axes
    """
    templates = np.asarray(templates)
    if templates.ndim != 3:
        raise ShapeError(f"templates must be (types, channels, samples), got {templates.shape}")
    if truth is not None and np.shape(truth) != templates.shape:
        raise ShapeError(f"truth must have the shape of templates, {templates.shape}, got {np.shape(truth)}")
    n_types, n_channels, length = templates.shape
    time_ms = 1e3 * (start_s + np.arange(length) / require_rate(sampling_rate_hz))
    new, columns = axes is None, int(np.ceil(np.sqrt(n_types)))
    axes = _grid(n_types, columns, (2.3, 1.9), axes, "type", sharex=True, sharey=True)
    if new:
        axes[0].figure.supxlabel("time after the onset (ms)", fontsize="medium")
    # Templates of different channels rarely peak at one time: their lanes may overlap.
    half = 0.6 * max(np.abs(templates).max(), 0 if truth is None else np.abs(truth).max(), np.finfo(np.float32).tiny)
    for k, ax in enumerate(axes):
        if truth is not None:
            _stack(ax, time_ms, truth[k].T, half, **TRUTH)
        for c, line in enumerate(_stack(ax, time_ms, templates[k].T, half, linewidth=1)):
            line.set_color(f"C{c}")
        ax.axvline(0, **ZERO_LINE)
        _label_stack(ax, n_channels, channels)
        ax.set_ylim(-LANE * (n_channels - 1) - 1.7, 1.7)  # the highest peak is 1 / 0.6 from its line
        ax.tick_params(axis="y", labelsize="x-small")
        ax.set_title(plain(names[k]) if names is not None else f"type {k}", fontsize="small")
        if ax.get_subplotspec() is None or ax.get_subplotspec().is_last_row():
            ax.set_xlabel(f"1 lane = {LANE * half:.2g} {unit}".rstrip(), fontsize="x-small")
    return axes


def visualize_learned_templates(model, save_path=None, sampling_rate_hz=2000.0, names=None, channels=None):
    """The templates of a model with their delays, one panel per type, the channels below each other.

    Parameters
    ----------
    model : EventSpecificClassifier or EventTemplateBank
    save_path : write a picture there; its ending sets the format
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
    >>> len([ax for ax in figure.axes if ax.axison])
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
    figure = plot_templates(templates, sampling_rate_hz, names, channels=channels, start_s=start_s)[0].figure
    if save_path is not None:
        figure.savefig(save_path, dpi=120)
    return figure


def plot_windows(
    windows,
    sampling_rate_hz: float,
    over=None,
    titles=None,
    channels=None,
    labels=("signal", "reconstruction"),
    axes=None,
):
    """Windows side by side on one scale, channels below each other, with a second array drawn over them where given.

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
    (N,) array of axes
    """
    windows = np.asarray(windows)
    if windows.ndim != 3 or windows.size == 0:
        raise ShapeError(f"windows must be (windows, time, channels) without an empty axis, got {windows.shape}")
    if over is not None and np.shape(over) != windows.shape:
        raise ShapeError(f"over must have the shape of windows, {windows.shape}, got {np.shape(over)}")
    if titles is not None and len(titles) != len(windows):
        raise ShapeError(f"titles must be one per window, {len(windows)}, got {len(titles)}")
    n, length, n_channels = windows.shape
    new, time_ms = axes is None, 1e3 * np.arange(length) / require_rate(sampling_rate_hz)
    axes = _grid(n, n, (max(1.9, 4 / n), 0.55 * n_channels + 0.5), axes, "window", sharex=True, sharey=True)
    if new:
        axes[0].figure.supxlabel("time in the window (ms)", fontsize="small")
    # 99.8 % of the values stay in their own lane.
    half = max(np.quantile(np.abs(windows), 0.998), np.finfo(np.float32).tiny)
    for k, ax in enumerate(axes):
        lines = [_stack(ax, time_ms, windows[k], half, color="0.25" if over is None else "0.65", linewidth=0.8)[0]]
        if over is not None:
            lines += _stack(ax, time_ms, np.asarray(over)[k], half, color="C3", linewidth=1.3)[:1]
        _label_stack(ax, n_channels, channels)
        ax.set_xlim(time_ms[0], time_ms[-1])
        ax.tick_params(labelsize="x-small")
        if titles is not None:
            ax.set_title(titles[k], fontsize="small")
    axes[0].set_ylabel(f"channel (lane: ±{half:.2g} SD of noise)", fontsize="small")
    if over is not None:
        for line, label in zip(lines, labels, strict=True):
            line.set_label(label)
        _legend_right(axes[-1])
    return axes


def plot_aligned_events(
    snippets,
    template,
    sampling_rate_hz: float,
    before: int,
    channels=None,
    truth=None,
    delays=None,
    half: float | None = None,
    label: str = "template",
    ax=None,
):
    """Single events drawn over each other and over their template, the channels below each other.

    Parameters
    ----------
    snippets : (N, L, C), N may be 0
    template : (L, C)
    before : samples ahead of the onset
    truth : (L, C), a true template, in grey behind
    delays : ChannelDelays, marked in the lane of each channel, relative to the onset of the template
    half : half the height of a lane; default: the greatest value of the template, at least 2
    """
    ax = _axes(ax)
    snippets, template = np.asarray(snippets), np.asarray(template)
    if {wave.shape for wave in (*snippets[:1], template, *([] if truth is None else [truth]))} != {template.shape}:
        raise ShapeError(f"snippets, template and truth must agree in samples and channels, got {snippets.shape}")
    length, n_channels = template.shape
    time_ms = 1e3 * (np.arange(length) - before) / sampling_rate_hz
    half = max(np.abs(template).max(), 2.0) if half is None else half
    if n := len(snippets):
        # NaN between events: one line for all events of a channel, which is far faster to draw.
        waves = np.pad(snippets.astype(float), ((0, 0), (0, 1), (0, 0)), constant_values=np.nan)
        time = np.tile(np.append(time_ms, np.nan), n)
        style = {"linewidth": 0.5, "alpha": max(0.12, min(0.5, 6 / n))}
        for c, line in enumerate(_stack(ax, time, waves.reshape(-1, n_channels), half, **style)):
            line.set_color(f"C{c}")
    if truth is not None:
        _stack(ax, time_ms, truth, half, **TRUTH)[0].set_label("truth")
    _stack(ax, time_ms, template, half, color="0.05", linewidth=1.2)[0].set_label(label)
    ax.axvline(0, **ZERO_LINE)
    if delays is not None:
        at = 1e3 * (delays.common_s + delays.delay_s - before / sampling_rate_hz)
        y = -LANE * np.arange(n_channels) - 0.95
        ax.plot(at, y, "^", color="tab:red", markersize=6, label="channel onset", clip_on=False)
    _label_stack(ax, n_channels, channels)
    ax.set(xlabel="time after the onset (ms)", xlim=time_ms[[0, -1]])
    # How high a lane is, beside the first one.
    beside = ax.get_yaxis_transform()
    ax.plot([1.012] * 2, [-1, 1], color="0.3", linewidth=1.5, transform=beside, clip_on=False)
    ax.text(1.03, 0, f"±{half:.2g}\nSD", transform=beside, fontsize="small", va="center", color="0.3")
    _legend_above(ax, 3)
    return ax


def plot_channel_delays(delays, channels=None, truth=None, ax=None):
    """When each channel gets an event, relative to the common onset, with 95 % intervals; both are ChannelDelays."""
    ax = _axes(ax)
    rows = np.arange(len(delays.delay_s))
    if truth is not None:
        ax.plot(1e3 * truth.delay_s, rows, "D", color="0.6", markersize=9, label="truth")
    middle = 1e3 * delays.delay_s
    reach = np.abs(1e3 * np.stack([delays.low_s, delays.high_s]) - middle)
    interval = reach if np.isfinite(reach).any() else None
    label = f"{delays.n_events} events, 95 %" if interval is not None else "template"
    ax.errorbar(middle, rows, xerr=interval, fmt="none", ecolor="0.2", capsize=4, linewidth=1.6, label=label)
    ax.scatter(middle, rows, c=[f"C{c}" for c in rows], s=34, zorder=3)
    ax.axvline(0, **ZERO_LINE)
    _label_rows(ax, channels if channels is not None else [f"ch{c + 1}" for c in rows])
    ax.set_xlabel("delay (ms)")
    ax.grid(axis="x", color="0.9", linewidth=0.8)
    _legend_above(ax, 2)
    return ax


def plot_similarity(similarity, names, chosen: str | None = None, ax=None):
    """How similar the templates of the types are, (E, E): 1 is the same shape; ``chosen`` names a type to set off."""
    ax = _axes(ax)
    _square(ax, similarity, names, chosen, "similarity of templates", vmin=0, vmax=1, cmap="viridis")
    return ax


# ---- Scores and errors


def plot_timing_errors(error_s, tolerance_s: float = 0.005, ax=None, bins: int = 61):
    """Histogram of signed timing errors (estimated minus reference) in ms, with median and RMSE in the legend.

    ``error_s`` is an array of errors in seconds, or a dict of label to array. Errors beyond the tolerance are counted
    in the first or last bar.
    """
    ax = _axes(ax)
    groups = error_s if isinstance(error_s, dict) else {"events": error_s}
    groups = {label: 1e3 * np.asarray(values, dtype=float) for label, values in groups.items()}
    # The histogram spans the errors that there are, so that 0.1 ms of scatter is seen inside a tolerance of 5 ms.
    spread = max((np.quantile(np.abs(e), 0.995) for e in groups.values() if len(e)), default=0.0)
    limit = min(1e3 * tolerance_s, max(1.2 * spread, 1e-3))
    edges = np.linspace(-limit, limit, bins + 1)
    labels = [
        f"{plain(label)}: median {np.median(e):+.2f} ms, RMSE {np.sqrt(np.mean(e**2)):.2f} ms, n = {len(e)}"
        if len(e)
        else f"{plain(label)}, no events"
        for label, e in groups.items()
    ]
    _histograms(ax, groups.values(), labels, edges)
    ax.axvline(0, **ZERO_LINE)
    ax.set(xlabel="timing error (ms), late is positive", ylabel="events", xlim=(-limit, limit))
    return ax


def plot_precision_recall(curves: dict, points: dict | None = None, ax=None):
    """Precision over recall, one curve per label.

    Parameters
    ----------
    curves : dict of label to (precision, recall), arrays of equal length
    points : dict of label to (precision, recall) at the threshold in use
    """
    ax = _axes(ax)
    for k, (label, (precision, recall)) in enumerate(curves.items()):
        order = np.argsort(recall, kind="stable")
        ax.plot(np.asarray(recall)[order], np.asarray(precision)[order], color=f"C{k}", label=plain(label))
        if points and label in points:
            ax.plot(points[label][1], points[label][0], "o", color=f"C{k}", markersize=7)
    ax.set(xlabel="recall (share of events that were found)", ylabel="precision (share of detections that are true)")
    ax.set(xlim=(0, 1.02), ylim=(0, 1.02))
    ax.legend(fontsize="small", loc="lower left")
    return ax


def plot_reliability(calibrations: dict, ax=None):
    """Observed share of hits over stated probability, a line per detector; on the diagonal a score is a probability.

    ``calibrations``: dict of label to the result of :meth:`Comparison.calibration`. Markers grow with the number of
    estimates.
    """
    ax = _axes(ax)
    ax.plot([0, 1], [0, 1], color="0.6", linestyle="--", linewidth=1, label="as stated")
    for k, (label, result) in enumerate(calibrations.items()):
        full = np.flatnonzero(result["n"])
        stated, observed, n = (np.asarray(result[name])[full] for name in ("stated", "observed", "n"))
        ax.plot(stated, observed, color=f"C{k}", linewidth=1)
        size = 12 + 20 * np.log10(1 + n)
        ax.scatter(stated, observed, s=size, color=f"C{k}", label=f"{plain(label)} (ECE {result['ece']:.3f})")
    ax.set(xlabel="stated probability", ylabel="observed share of hits", aspect="equal")
    ax.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.05))
    _legend_right(ax)
    return ax


def plot_candidate_scores(log_odds, is_event, threshold: float, ax=None, bins: int = 48):
    """Scores of true events and of other candidates of one type, and the threshold between them.

    Parameters
    ----------
    log_odds : (n,) log odds of the candidates
    is_event : (n,) booleans, which of them are true
    threshold : log odds from which a candidate is kept
    """
    ax = _axes(ax)
    log_odds, is_event = np.asarray(log_odds, dtype=float), np.asarray(is_event, dtype=bool)
    shown = np.clip(log_odds, *SHOWN_LOG_ODDS)
    low, high = (min(shown.min(), threshold), max(shown.max(), threshold)) if len(shown) else (-1.0, 1.0)
    edges = np.linspace(low - 0.5, high + 0.5, bins + 1)
    other = {"color": "0.6", "edgecolor": "0.35", "alpha": 0.6}
    true = {"facecolor": "none", "edgecolor": OUTCOME_COLOURS["hit"], "hatch": "////", "linewidth": 1.2}
    for label, rows, style in (("other candidates", ~is_event, other), ("true events", is_event, true)):
        ax.hist(shown[rows], edges, label=f"{label} ({rows.sum()})", **style)
    top = max(bar.get_height() for bar in ax.patches)
    p = expit(threshold)
    ax.axvline(threshold, color="0.15", linewidth=1.6, label=f"threshold: p = {p:.3g}")
    ax.axvspan(threshold, edges[-1], color="0.5", alpha=0.08, linewidth=0, label="kept")
    # Linear up to 3 candidates, then logarithmic: single errors are seen beside thousands of events.
    ax.set_yscale("symlog", linthresh=3)
    ax.yaxis.set_major_formatter("{x:g}")
    ax.set(xlabel="log odds that a candidate is an event", ylabel="candidates", xlim=(edges[0], edges[-1]))
    ax.set_ylim(0, 1.3 * max(3, top))
    _legend_above(ax, 2)
    return ax


def plot_scores_by_type(table, chosen: str | None = None, tolerance_s: float = 0.005, ax=None):
    """Precision, recall and F1 of every type, one row each; ``table`` is ``Comparison.per_type()``.

    ``chosen`` names a type to set off.
    """
    ax = _axes(ax)
    rows = np.arange(len(table))
    if chosen is not None:
        row = list(table.index).index(chosen)
        ax.axhspan(row - 0.5, row + 0.5, color="tab:blue", alpha=0.12, linewidth=0)
    ax.hlines(rows, table["precision"], table["recall"], color="0.75", linewidth=1)
    for column, marker, colour in (("precision", "<", "tab:blue"), ("recall", ">", "tab:purple"), ("f1", "o", "0.15")):
        label = column.replace("f1", "F1")
        ax.plot(table[column], rows, marker, color=colour, markersize=5, label=label, clip_on=False)
    _label_rows(ax, table.index)
    ax.set_xlabel(f"at ±{1e3 * tolerance_s:g} ms")
    ax.set_xlim(lowest_tick(table[["precision", "recall", "f1"]].to_numpy(float).ravel()), 1.01)
    ax.tick_params(axis="y", labelsize="small")
    ax.grid(axis="x", color="0.9", linewidth=0.8)
    _legend_above(ax, 3)
    return ax


def plot_error_groups(error_s: dict, ax=None, tolerance_s: float | None = None, colours=None):
    """Signed timing errors of groups (types, channels): a dot for every event, a box from quartile to quartile.

    Parameters
    ----------
    error_s : dict of label to errors in seconds; NaN is left out
    tolerance_s : the axis ends here at the latest
    colours : a colour for each group
    """
    ax = _axes(ax)
    groups = {label: 1e3 * np.asarray(values, dtype=float) for label, values in error_s.items()}
    groups = {label: error[np.isfinite(error)] for label, error in groups.items()}
    everything = np.concatenate([*groups.values(), np.zeros(0)])
    limit = 1.25 * np.quantile(np.abs(everything), 0.98) if len(everything) else 1.0
    limit = max(limit if tolerance_s is None else min(limit, 1e3 * tolerance_s), 1e-3)
    # The vertical scatter of dots is decoration: the same in every drawing.
    rng = np.random.default_rng(0)
    for row, error in enumerate(groups.values()):
        colour = f"C{row % 10}" if colours is None else colours[row]
        y = row + rng.uniform(-0.3, 0.3, len(error))
        ax.plot(np.clip(error, -limit, limit), y, ".", color=colour, markersize=3, alpha=0.5)
        if len(error):
            low, middle, high = np.quantile(error, [0.25, 0.5, 0.75])
            ax.barh(row, high - low, 0.62, low, facecolor="none", edgecolor="0.15", linewidth=1.1, zorder=3)
            ax.vlines(middle, row - 0.31, row + 0.31, color="0.05", linewidth=2.2, zorder=4)
        words = f"{middle:+.3f}" if len(error) else "none"
        ax.text(1.01, row, words, transform=ax.get_yaxis_transform(), fontsize="small", va="center")
    ax.axvline(0, **ZERO_LINE)
    _label_rows(ax, groups)
    ax.set(xlabel="timing error (ms); right: median", xlim=(-limit, limit))
    ax.tick_params(axis="y", labelsize="small")
    return ax


def plot_time_to_next(before, after, interval_s, names, chosen: str | None = None, ax=None):
    """Which type follows which, and after how long: the median time from each type (rows) to the next other type.

    Parameters
    ----------
    before, after : (n,) types as integers into ``names``
    interval_s : (n,) seconds between them
    chosen : name of a type to set off

    The number in a field is how often that happened; of very many types there are no numbers.
    """
    import pandas as pd

    ax = _axes(ax)
    every = range(len(names))
    intervals = pd.DataFrame({"s": interval_s}).groupby([before, after])["s"]
    median, count = (table.unstack().reindex(every, columns=every) for table in (intervals.median(), intervals.size()))
    annot = count if len(names) <= MOST_ROWS / 2 else False
    style = {"annot": annot, "fmt": ".0f", "annot_kws": {"size": "x-small" if len(names) > 10 else "small"}}
    _square(ax, median, names, chosen, "median time to the next other type (s)", cmap="viridis_r", **style)
    ax.set(xlabel="next other type", ylabel="type")
    return ax


def plot_intervals(interval_s: dict, ax=None, bins: int = 50):
    """Histograms of times between events; ``interval_s`` is a dict of label (reference, estimated) to seconds."""
    ax = _axes(ax)
    everything = np.concatenate([*interval_s.values(), np.zeros(0)])
    low, high = np.quantile(everything, [0, 0.99]) if len(everything) else (0.0, 1.0)
    margin = max(0.05 * (high - low), 1e-3)
    edges = np.linspace(max(low - margin, 0), high + margin, bins + 1)
    labels = [
        f"{plain(label)}: median {1e3 * np.median(t):.1f} ms, n = {len(t)}" if len(t) else f"{plain(label)}: none"
        for label, t in interval_s.items()
    ]
    _histograms(ax, interval_s.values(), labels, edges)
    ax.set(xlabel="time to the next other type (s)", ylabel="events", xlim=(edges[0], edges[-1]))
    return ax


# ---- Training and pretraining


def plot_learning_curves(history, x: str = "epoch", y=("train_loss", "val_loss"), ax=None, unit: str = ""):
    """Losses over training; ``history`` is a pandas table such as Lightning's ``metrics.csv`` (gaps are skipped)."""
    ax = _axes(ax)
    shown = [column for column in y if column in history]
    if not shown:
        raise OptionError(f"history has none of the columns {tuple(y)}; it has {list(history.columns)}")
    for column in shown:
        rows = history[[x, column]].dropna()
        ax.plot(rows[x], rows[column], label=column.replace("_", " "), marker="." if len(rows) < 50 else None)
    ax.set(xlabel=x, ylabel=f"loss ({unit})" if unit else "loss")
    ax.xaxis.get_major_locator().set_params(integer=True)  # epochs and steps are counted
    ax.legend(fontsize="small")
    return ax


def plot_latent(points, type, names, ax=None, axis_labels=("first component", "second component")):
    """Points of a latent space in two dimensions, each in the colour of its type.

    ``points`` (N, 2), ``type`` (N,) integers into ``names``.
    """
    ax = _axes(ax)
    points, type = np.asarray(points), np.asarray(type)
    if points.ndim != 2 or points.shape[1] != 2 or type.shape != (len(points),):
        raise ShapeError(f"points must be (N, 2) and type (N,), got {points.shape} and {type.shape}")
    colours = type_colours(len(names))
    for k in np.unique(type):
        style = {"color": colours[k], "markersize": 3.5, "markeredgewidth": 0, "alpha": 0.8}
        ax.plot(*points[type == k].T, "o", label=plain(names[k]), **style)
    ax.set(xlabel=axis_labels[0], ylabel=axis_labels[1], xticks=[], yticks=[])
    _legend_right(ax)
    return ax


def plot_probes(table, chance: float | None = None, ax=None):
    """Accuracy over labels per type, a line per method through the means, a band from the least to the greatest.

    Parameters
    ----------
    table : pandas table with the columns method, labels_per_type and accuracy, as
        `evlib.studies.probing.probe_encoder` gives
    chance : accuracy of a guess, drawn as a dashed line
    """
    import seaborn as sns

    ax = _axes(ax)
    need_columns("table", table, "method", "labels_per_type", "accuracy")
    look = {"style": "method", "markers": True, "dashes": False, "palette": method_colours(table["method"])}
    columns = {"x": "labels_per_type", "y": "accuracy", "hue": "method"}
    sns.lineplot(table, **columns, **look, errorbar=("pi", 100), ax=ax)
    if chance is not None:
        ax.axhline(chance, color="0.4", linestyle="--", linewidth=1, label="chance")
    ticks = sorted(set(table["labels_per_type"]))
    ax.set(xscale="log", xlabel="labelled events per type", ylabel="accuracy (share of events)", ylim=(0, 1.03))
    ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    ax.minorticks_off()
    _legend_right(ax)
    return ax


def plot_active_units(variance, threshold: float = 0.01, ax=None):
    """Variance of each latent dimension's mean over windows, greatest first; below ``threshold`` it holds nothing."""
    ax = _axes(ax)
    variance = np.sort(np.asarray(variance, dtype=float))[::-1]
    if variance.ndim != 1 or len(variance) == 0 or variance[-1] < 0:
        raise ShapeError(f"variance must be (dimensions,) and not negative, got shape {variance.shape}")
    active = variance > threshold
    ax.bar(range(len(variance)), np.maximum(variance, 1e-6), color=np.where(active, "C0", "0.75"), width=0.9)
    ax.axhline(threshold, color="0.4", linestyle="--", linewidth=1)
    ax.set(yscale="log", xlabel="latent dimension, sorted", ylabel="variance over windows", ylim=(1e-6, 10))
    ax.set_title(f"{active.sum()} of {len(variance)} dimensions vary (more than {threshold:g})")
    return ax


def plot_label_budgets(summary, ax=None, value: str = "F1 at ±5 ms", legend: bool = True, order=()):
    """A line per method over labels per type, with its interval, in the colour of `method_colours`.

    A frozen encoder (``probe, ...``) is dotted and paler than the same encoder fine-tuned (``frames, ...``).

    Parameters
    ----------
    summary : pandas table with the columns labels_per_type (0: all), method, mean, low, high, as
        `evlib.studies.label_budgets.summarise` gives, of one signal-to-noise ratio
    value : what the mean is of
    legend : draw one on the right
    order : names of methods in their order from left to right and of markers, to keep both from figure to figure;
        default: as they come in the table
    """
    ax = _axes(ax)
    need_columns("summary", summary, "labels_per_type", "method", "mean", "low", "high")
    budgets = sorted(summary["labels_per_type"].unique(), key=lambda n: n or np.inf)
    order = list(dict.fromkeys([*order, *summary["method"]]))
    colours = method_colours(order)
    for method, rows in summary.groupby("method", sort=False):
        x = rows["labels_per_type"].map(budgets.index).to_numpy()
        if method == "oracle":
            ends = np.r_[x[0] - 0.5, x, x[-1] + 0.5]
            ax.plot(ends, np.pad(rows["mean"], 1, "edge"), "k--", linewidth=1, label="oracle (knows the templates)")
            continue
        k = order.index(method)
        # Side by side, so that no interval hides another.
        x = x + (k / max(len(order) - 1, 1) - 0.5) * DODGE
        bars = [rows["mean"] - rows["low"], rows["high"] - rows["mean"]]
        style = {"marker": "os^DvPX<>*hd"[k % 12], "color": colours[method], "markersize": 5, "linewidth": 1.4}
        line = ":" if method.startswith("probe, ") else "-"
        ax.errorbar(x, rows["mean"], bars, linestyle=line, elinewidth=1, label=method, **style)
    ax.set_xticks(range(len(budgets)), ["all" if budget == 0 else f"{budget:g}" for budget in budgets])
    ax.set(xlabel="labelled events per type", ylabel=value, xlim=(-0.5, len(budgets) - 0.5))
    if legend:
        _legend_right(ax)
    return ax
