"""The canvas that the browser and the annotator stand on: channels over time, events as marks.

Wheel, drag and keys move the view at once in the front end; the kernel answers with at most ``BINS`` bins a channel.
"""

from pathlib import Path

import anywidget
import numpy as np
import traitlets

from ..signals.errors import OptionError
from .view import Overview

BINS = 1200
LEAST_SAMPLES = 16
HERE = Path(__file__).parent
ROWS = [{"name": "reference", "kinds": ["reference"]}, {"name": "estimated", "kinds": ["estimated", "proposal"]}]


class SignalView(anywidget.AnyWidget):
    """Channels stacked over time, with events as marks.

    With the mouse: wheel zooms, shift and wheel or dragging moves, a click on a mark selects it, the strip below leads
    anywhere in the recording. With the keys: left and right, page up and down, home and end move, + and - zoom, up and
    down scale the signal; any other key arrives in ``pressed``.

    Parameters
    ----------
    recording : Recording, in memory or on disk
    highpass_hz : show the signal without what is slower
    view_s : seconds to show at first
    progress : show a bar while the recording is read once, for its overview
    **traits : any of those below

    Attributes
    ----------
    view : (t0_s, t1_s); setting it moves there, `show` does so with a check
    marks : list of dicts ``id`` (int), ``time_s``, ``label``, ``colour``, ``kind`` ("reference", "estimated",
        "proposal"), and where known ``score``, ``note`` (told of the mark under the pointer), ``short`` (in place of
        the label where it is tight) and ``weight`` (2 stands out among many)
    selected : id of a mark, or -1
    editable : may marks be dragged?
    clicked : {"time_s", "channel" (index, -1 outside of the channels), "shift"}, new with each click on empty signal
    dragged : {"id", "time_s", "shift"}, new after a mark was dragged; the mark stays there until ``marks`` is set
    pressed : {"key"}, new with each key that is not the view's own
    channels, units, half, gain : labels; half the height of a lane is worth ``half / gain`` units
    rows : list of {"name", "kinds"}: the rows of marks above the signal
    scores : list of dicts ``time_s``, ``value`` (log odds), ``colour``, ``label``: stems below the signal
    score_label : beside the stems; the lane is there while this is not empty
    legend : list of (label, colour); landmarks : list of (time_s, colour) in the strip; message : words above the
        signal
    spans : list of (start_s, stop_s, colour): the ground of the signal there

    Raises
    ------
    UnitError, OptionError : a filter or a part of the recording that cannot be shown
    """

    _esm = HERE / "signal_view.js"
    _css = HERE / "signal_view.css"

    view = traitlets.Tuple(traitlets.Float(), traitlets.Float(), default_value=(0.0, 1.0)).tag(sync=True)
    marks = traitlets.List().tag(sync=True)
    selected = traitlets.Int(-1).tag(sync=True)
    editable = traitlets.Bool(False).tag(sync=True)
    clicked = traitlets.Dict().tag(sync=True)
    dragged = traitlets.Dict().tag(sync=True)
    pressed = traitlets.Dict().tag(sync=True)
    channels = traitlets.List(traitlets.Unicode()).tag(sync=True)
    units = traitlets.List(traitlets.Unicode()).tag(sync=True)
    half = traitlets.List(traitlets.Float()).tag(sync=True)
    gain = traitlets.Float(1.0).tag(sync=True)
    rows = traitlets.List(ROWS).tag(sync=True)
    scores = traitlets.List().tag(sync=True)
    score_label = traitlets.Unicode("").tag(sync=True)
    legend = traitlets.List().tag(sync=True)
    landmarks = traitlets.List().tag(sync=True)
    spans = traitlets.List().tag(sync=True)
    message = traitlets.Unicode("").tag(sync=True)
    height = traitlets.Int(420).tag(sync=True)
    duration_s = traitlets.Float(1.0).tag(sync=True)
    least_s = traitlets.Float(0.01).tag(sync=True)
    # What the kernel sends: float32 (2, C, bins), lows and highs; the time of the first bin, from bin to bin, bins.
    data = traitlets.Bytes(b"").tag(sync=True)
    grid = traitlets.Tuple((0.0, 1.0, 0)).tag(sync=True)

    def __init__(self, recording, highpass_hz=None, view_s=10.0, progress=False, **traits):
        self.recording = recording
        self.overview = Overview(recording, highpass_hz)
        self.overview.build(progress)
        least_s = min(LEAST_SAMPLES / recording.sampling_rate_hz, recording.duration_s)
        traits = {"height": 150 + min(62, max(34, 380 // recording.n_channels)) * recording.n_channels} | traits
        super().__init__(
            channels=list(recording.channels),
            units=list(recording.units),
            half=self.overview.scale().tolist(),
            duration_s=recording.duration_s,
            least_s=least_s,
            **traits,
        )
        if "view" not in traits:
            self.view = self._clamped(0.0, view_s)
        self._refresh()

    def show(self, t0_s, t1_s):
        """Show the part from ``t0_s`` to ``t1_s``; at the ends of the recording the view stops."""
        if not (np.isfinite([t0_s, t1_s]).all() and t0_s < t1_s and t0_s < self.duration_s and t1_s > 0):
            raise OptionError(
                f"nothing to show from {t0_s} s to {t1_s} s: the recording lasts {self.duration_s:g} s (were "
                "samples passed?)"
            )
        with self.hold_sync():
            self.view = self._clamped(float(t0_s), float(t1_s))

    def center(self, time_s):
        """Show the surroundings of a time, as much of them as now."""
        half = (self.view[1] - self.view[0]) / 2
        self.show(time_s - half, time_s + half)

    def set_highpass(self, highpass_hz, progress=False):
        """Show the signal without what is slower than this; None for the signal as it is."""
        overview = Overview(self.recording, highpass_hz)
        overview.build(progress)
        self.overview = overview
        with self.hold_sync():
            self.half = overview.scale().tolist()
            self._refresh()

    def window(self):
        """What is shown now, an `evlib.inspection.view.View`."""
        return self.overview.view(*self.view, bins=BINS)

    def _clamped(self, t0_s, t1_s):
        width = min(max(t1_s - t0_s, self.least_s), self.duration_s)
        start = min(max((t0_s + t1_s - width) / 2, 0.0), self.duration_s - width)
        return start, start + width

    @traitlets.validate("view")
    def _view_within(self, proposal):
        return self._clamped(*proposal["value"])

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
