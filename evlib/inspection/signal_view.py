"""The canvas of the event browser and the annotator: channels over time, events as marks.

Wheel, drag and keys move the view at once in the front end; the kernel answers with at most ``BINS`` bins a channel.
"""

from os.path import commonprefix
from pathlib import Path

import anywidget
import numpy as np
import traitlets

from ..signals.recording import Recording
from ..signals.text import one_line
from .plots import draw_signal, plain
from .view import Overview, View, check_part
from .widget import blank_figure, synced

# Bins per channel that are sent: about the width of a canvas in pixels.
BINS = 1200
# The closest view.
LEAST_SAMPLES = 16
# More marks than this have thin lines and no names in the figure.
MANY_MARKS = 120
# Log odds at the edge of the lane of scores.
MOST_LOG_ODDS = 10
HERE = Path(__file__).parent
ROWS = [{"name": "reference", "kinds": ["reference"]}, {"name": "estimated", "kinds": ["estimated"]}]
# The size of a mark's shape in the figure.
SHAPE_POINTS = 6


class SignalView(anywidget.AnyWidget):
    """Channels below each other over time, with events as marks.

    Mouse: the wheel zooms; shift and wheel, or dragging, moves; a click on a mark selects it; the strip at the bottom
    leads anywhere in the recording. Keys: those of `evlib.inspection.keys.SIGNAL_KEYS`; any other key arrives in
    ``pressed``. The colours are those of the page.

    Parameters
    ----------
    recording : Recording, in memory or on disk
    highpass_hz : show the signal without slower parts
    view_s : seconds to show at first
    progress : show a bar while the recording is read once, for its overview
    **traits : any of those below

    Attributes
    ----------
    view : (t0_s, t1_s); setting it moves there, `show` does so with a check
    marks : list of dicts ``id`` (int), ``time_s``, ``label``, ``colour``, ``shape`` (a marker of matplotlib: "o", "v",
        "^", "s", "D" or "X"), ``kind`` (a row of ``rows`` shows it; "suggestion" is dashed), and where known ``score``,
        ``note`` (what became of it), ``short`` (instead of the label where there is little room) and ``weight`` (2
        stands out among many)
    selected : id of a mark, or -1
    editable : whether marks can be dragged
    clicked : {"time_s", "channel" (index, -1 outside of the channels), "shift"}, new with each click on empty signal
    dragged : {"id", "time_s", "shift"}, new after a mark was dragged; the mark stays there until ``marks`` is set
    pressed : {"key", "shift"}, new with each key that is not the view's own
    cursor_s : where the cursor is that keys move; None before
    channels, units, half, gain : labels; half the height of a lane is ``half / gain`` units
    rows : list of {"name", "kinds"}: the rows of marks above the signal
    scores : list of dicts ``time_s``, ``value`` (log odds), ``colour``, ``label``: stems below the signal
    score_label : beside the stems; the lane is there while this is not empty
    legend : list of (label, colour, shape); landmarks : list of (time_s, colour, shape) in the strip; message : text
        above the signal
    spans : list of (start_s, stop_s, colour): the background of the signal there; "" hatches it

    Raises
    ------
    UnitError, OptionError : a filter or a part of the recording that cannot be shown
    """

    _esm = HERE / "signal_view.js"
    _css = HERE / "widget.css"

    view = synced(traitlets.Tuple(traitlets.Float(), traitlets.Float(), default_value=(0.0, 1.0)))
    marks = synced(traitlets.List())
    selected = synced(traitlets.Int(-1))
    editable = synced(traitlets.Bool(False))
    clicked = synced(traitlets.Dict())
    dragged = synced(traitlets.Dict())
    pressed = synced(traitlets.Dict())
    cursor_s = synced(traitlets.Float(None, allow_none=True))
    channels = synced(traitlets.List(traitlets.Unicode()))
    units = synced(traitlets.List(traitlets.Unicode()))
    half = synced(traitlets.List(traitlets.Float()))
    gain = synced(traitlets.Float(1.0))
    rows = synced(traitlets.List(ROWS))
    scores = synced(traitlets.List())
    score_label = synced(traitlets.Unicode(""))
    legend = synced(traitlets.List())
    landmarks = synced(traitlets.List())
    spans = synced(traitlets.List())
    message = synced(traitlets.Unicode(""))
    height = synced(traitlets.Int(420))
    duration_s = synced(traitlets.Float(1.0))
    least_s = synced(traitlets.Float(0.01))
    # What the kernel sends: float32 (2, C, bins), lows and highs; time of the first bin, seconds a bin, number of bins.
    data = synced(traitlets.Bytes(b""))
    grid = synced(traitlets.Tuple((0.0, 1.0, 0)))

    def __init__(
        self,
        recording: Recording,
        highpass_hz: float | None = None,
        view_s: float = 10.0,
        progress: bool = False,
        **traits,
    ):
        self.recording = recording
        self.overview = Overview(recording, highpass_hz)
        self.overview.build(progress)
        n = recording.n_channels
        own: dict = {
            "channels": list(map(one_line, recording.channels or ())),
            "units": list(map(one_line, recording.units)),
        }
        own |= {"duration_s": recording.duration_s, "height": 150 + min(62, max(34, 380 // n)) * n}
        own["least_s"] = min(LEAST_SAMPLES / recording.sampling_rate_hz, recording.duration_s)
        super().__init__(**own | traits, half=self.overview.scale().tolist())
        if "view" not in traits:
            self.view = self._clamped(0.0, view_s)
        self._refresh()

    def show(self, t0_s: float, t1_s: float) -> None:
        """Show the part from ``t0_s`` to ``t1_s``; at the ends of the recording the view stops."""
        check_part(t0_s, t1_s, self.duration_s)
        with self.hold_sync():
            self.view = self._clamped(float(t0_s), float(t1_s))

    def center(self, time_s: float) -> None:
        """Move a time to the middle; the view stays as long as it is."""
        half = (self.view[1] - self.view[0]) / 2
        self.show(time_s - half, time_s + half)

    def set_highpass(self, highpass_hz: float | None, progress: bool = False) -> None:
        """Show the signal without parts slower than this; None for the signal as it is."""
        overview = Overview(self.recording, highpass_hz)
        overview.build(progress)
        self.overview = overview
        with self.hold_sync():
            self.half = overview.scale().tolist()
            self._refresh()

    def window(self) -> View:
        """The signal in view."""
        start_s, stop_s = self.view
        return self.overview.view(start_s, stop_s, BINS)

    def figure(self):
        """What is in view, as a matplotlib Figure: rows of marks, the signal, and scores where there are some."""
        n, with_scores = len(self.channels), bool(self.scores)
        figure = blank_figure(11, 1.8 + 0.62 * n + 1.1 * with_scores)
        ratios = [max(0.35 * len(self.rows), 0.2), 0.62 * n] + [1.0] * with_scores
        axes = figure.subplots(len(ratios), 1, sharex=True, height_ratios=ratios, squeeze=False)[:, 0]
        marks = [mark for mark in self.marks if self.view[0] <= mark["time_s"] <= self.view[1]]
        for k, row in enumerate(self.rows):
            self._draw_row(axes[0], k, [mark for mark in marks if mark["kind"] in row["kinds"]])
        axes[0].set(yticks=range(len(self.rows)), yticklabels=[row["name"] for row in self.rows])
        axes[0].set_ylim(len(self.rows) - 0.5, -0.5)
        draw_signal(axes[1], self.window(), np.array(self.half) / self.gain, self.channels, self.units)
        for start_s, stop_s, colour in self.spans:
            style = {"color": colour} if colour else {"facecolor": "none", "edgecolor": "0.6", "hatch": "//"}
            axes[1].axvspan(start_s, stop_s, zorder=0, linewidth=0, **style)
        for mark in marks if len(marks) <= MANY_MARKS else [mark for mark in marks if mark["id"] == self.selected]:
            strong = mark["id"] == self.selected
            style = {"linewidth": 1.6, "alpha": 0.9} if strong else {"linewidth": 0.8, "alpha": 0.4}
            axes[1].axvline(mark["time_s"], color=mark["colour"], **style)
        if with_scores:
            time_s, value, colour = (np.array([stem[k] for stem in self.scores]) for k in ("time_s", "value", "colour"))
            value = np.clip(value, -MOST_LOG_ODDS, MOST_LOG_ODDS)
            axes[2].vlines(time_s, 0, value, colour, linewidth=1)
            axes[2].scatter(time_s, value, 16, np.where(value >= 0, colour, "white"), edgecolors=colour)
            axes[2].axhline(0, color="0.5", linewidth=0.8)
            axes[2].set(ylim=(-1.15 * MOST_LOG_ODDS, 1.15 * MOST_LOG_ODDS), ylabel="log odds over\nthreshold")
        for ax in axes:
            ax.ticklabel_format(axis="x", useOffset=False)
            ax.spines[["top", "right"]].set_visible(False)
        axes[-1].set(xlabel="time (s)", xlim=self.view)
        for label, colour, shape in self.legend:
            axes[0].plot([], [], shape, color=colour, label=plain(label))
        if self.legend:
            figure.legend(loc="outside upper right", ncols=len(self.legend), frameon=False, fontsize="small")
        figure.suptitle(plain(self.message, 90) or " ", fontsize="medium", x=0.01, ha="left")
        return figure

    def _draw_row(self, ax, row, marks):
        """The marks of one row, with their names where there is room before the next mark."""
        # About the width of a letter, in seconds.
        letter_s = (self.view[1] - self.view[0]) / 125
        marks = sorted(marks, key=lambda mark: mark["time_s"])
        ends = [*(mark["time_s"] for mark in marks[1:]), np.inf]
        for mark, end in zip(marks, ends, strict=False):
            strong = mark["id"] == self.selected
            width = 4.5 if strong else 2 if len(marks) <= MANY_MARKS else mark.get("weight", 1)
            dashes = "--" if mark["kind"] == "suggestion" else "-"
            ax.vlines(mark["time_s"], row - 0.4, row + 0.4, mark["colour"], linewidth=width, linestyle=dashes)
            if len(marks) <= MANY_MARKS or mark.get("weight", 1) > 1:
                ax.plot(mark["time_s"], row, mark["shape"], color=mark["colour"], markersize=SHAPE_POINTS)
            room = (end - mark["time_s"]) / letter_s - 1.5
            names = [plain(mark[key], 28) for key in ("label", "short") if key in mark]
            name = names[0] if strong else next((name for name in names if len(name) < room), None)
            if name:
                place = {"x": mark["time_s"] + 0.9 * letter_s, "y": row, "va": "center", "size": 8, "clip_on": True}
                white = {"facecolor": "white", "edgecolor": "none", "pad": 1}
                style = {"weight": "bold", "bbox": white, "zorder": 4} if strong else {}
                ax.text(**place, s=name, **style)

    def _clamped(self, t0_s, t1_s):
        width = min(max(t1_s - t0_s, self.least_s), self.duration_s)
        start = min(max((t0_s + t1_s - width) / 2, 0.0), self.duration_s - width)
        return start, start + width

    @traitlets.validate("view")
    def _view_within(self, change):
        return self._clamped(*change["value"])

    @traitlets.observe("view")
    def _view_changed(self, _):
        if self.data:
            self._refresh()

    def _refresh(self):
        window = self.window()
        rate = window.sampling_rate_hz
        with self.hold_sync():
            self.grid = (window.first / rate, window.step / rate, window.n_bins)
            self.data = np.stack([window.low, window.high]).astype("<f4").tobytes()


def prefix_length(names) -> int:
    """Letters that all names begin with, without digits: where there is little room, marks leave them out.

    >>> prefix_length(["event_01", "event_02"]), prefix_length(["event_01"])
    (6, 0)
    """
    return len(commonprefix(list(names)).rstrip("0123456789")) if len(names) > 1 else 0
