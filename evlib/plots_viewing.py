"""The picture of a signal view: rows of event marks, the channels, the candidates of a detector, above each other."""

import numpy as np

MANY_MARKS = 120
TRACE = "#4b5a69"


def plot_view(view, channels, units, half, marks=(), rows=(), scores=(), legend=(), title="", selected=-1):
    """Draw what a `evlib.widgets.signal_view.SignalView` shows.

    Parameters
    ----------
    view : evlib.viewing.View
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
        axes[1].axvline(mark["time_s"], color=mark["colour"], linewidth=1.6 if strong else 0.8, alpha=0.9 if strong else 0.4)
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
        widths = [4.5 if mark["id"] == selected else 2 if len(own) <= MANY_MARKS else mark.get("weight", 1) for mark in own]
        dashes = ["--" if mark["kind"] == "proposal" else "-" for mark in own]
        ax.vlines(time_s, row - 0.4, row + 0.4, colours, linewidth=widths, linestyle=dashes)
        _name_marks(ax, own, row, selected, letter_s)
    ax.set(yticks=range(len(rows)), yticklabels=[row["name"] for row in rows], ylim=(len(rows) - 0.5, -0.5))
    ax.tick_params(axis="x", bottom=False)


def _name_marks(ax, marks, row, selected, letter_s):
    """The name of each mark of one row, in short where it is tight; where there is no room at all, of errors only."""
    gap_s = np.median(np.diff([mark["time_s"] for mark in marks])) if len(marks) > 1 else np.inf
    brief, tight = gap_s < 8 * letter_s, gap_s < 2.5 * letter_s
    taken = next(((m["time_s"], m["time_s"] + (len(m["label"]) + 1.5) * letter_s) for m in marks if m["id"] == selected), (0, 0))
    for mark, following in zip(marks, [*marks[1:], None], strict=True):
        strong = mark["id"] == selected
        words = mark.get("short", mark["label"]) if brief and not strong else mark["label"]
        stop = mark["time_s"] + (len(words) + 0.5) * letter_s
        room = following is None or following["time_s"] > stop
        wanted = not tight or mark.get("weight", 1) > 1
        if strong or (wanted and room and not (mark["time_s"] < taken[1] and stop > taken[0])):
            style = {"weight": "bold", "bbox": {"facecolor": "white", "edgecolor": "none", "pad": 1}} if strong else {}
            ax.text(mark["time_s"] + 0.4 * letter_s, row, words, color=mark["colour"], va="center", size=8, clip_on=True, **style)


def _draw_channels(ax, view, channels, units, half):
    lane = -2.0 * np.arange(len(channels))
    middle = np.nan_to_num(np.nanmean((view.low + view.high) / 2, axis=1)) if np.isfinite(view.low).any() else np.zeros(len(lane))
    scale = np.asarray(half)[:, None]
    low, high = ((values - middle[:, None]) / scale + lane[:, None] for values in (view.low, view.high))
    if view.step == 1:
        ax.plot(view.start_s, low.T, color=TRACE, linewidth=0.7)
    else:
        # Lows and highs in turn: a band that also joins neighbours.
        ax.plot(np.repeat(view.start_s, 2), np.stack([low, high], 2).reshape(len(lane), -1).T, color=TRACE, linewidth=0.5)
    labels = [f"{name}\n±{h:.2g} {unit}".rstrip() for name, h, unit in zip(channels, half, units, strict=True)]
    ax.set(yticks=lane, yticklabels=labels, ylim=(lane[-1] - 1.2, 1.2))
    ax.tick_params(axis="y", labelsize="small")


def _draw_scores(ax, scores, limit=10):
    time_s = [stem["time_s"] for stem in scores]
    value = np.clip([stem["value"] for stem in scores], -limit, limit)
    colour = [stem["colour"] for stem in scores]
    ax.vlines(time_s, 0, value, colour, linewidth=1)
    ax.scatter(time_s, value, 16, [c if v >= 0 else "white" for c, v in zip(colour, value, strict=True)], edgecolors=colour)
    ax.axhline(0, color="0.5", linewidth=0.8)
    ax.set(ylim=(-1.15 * limit, 1.15 * limit), ylabel="log odds over\nthreshold")
