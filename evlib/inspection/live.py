"""A live session to look at: the signal of the last seconds, its events and gaps, and how far it is behind real time.

The session runs in a thread of its own, the pictures are drawn in another one. Kept are the samples in view and a few
numbers of each picture, however long the session.
"""

import collections
import threading
import time
from dataclasses import replace

import ipywidgets as w
import numpy as np

from ..live.session import Session
from ..signals.errors import OptionError, require_instance, require_positive
from ..signals.events import Events
from ..signals.recording import Recording
from . import plots
from .view import Overview
from .widget import PAGE_DPI, WRAP, Pictured, blank_figure, html_facts

# Pixel columns of the signal, and seconds of lag that are shown: at most, and at first.
BINS, LAG_S, SHORT_S = 1200, 300.0, 30.0
# Of the time at most one part in so many is spent on drawing: detection goes first.
DRAW_SHARE = 3
GAP = {"color": "#d55e00", "alpha": 0.15, "linewidth": 0}
EDGE = {"color": "0.2", "linestyle": ":", "linewidth": 1.4}


class LiveView(Pictured):
    """The last seconds of a `Session`: signal, events, gaps and lag, drawn again and again until the session ends.

    What is told in words stands above the picture; an alarm when samples come late, and the error that ended the
    session, are a message.

    Parameters
    ----------
    session : Session that has not run yet; the widget takes its ``watch``
    view_s : seconds to show; events are seen where it is more than the time that they wait
    refresh_s : seconds from picture to picture, more where drawing is slow
    highpass_hz : show the signal without slower parts (the detector sees all of it)

    Attributes
    ----------
    error : the exception that ended the session, or None

    Raises
    ------
    OptionError, UnitError : no Session, times that are not positive, a filter that the rate does not allow

    Examples
    --------
    >>> import evlib, tempfile
    >>> from evlib.live.sources import Replay
    >>> recording, reference = evlib.make_recording(duration_s=30.0, seed=1)
    >>> detector = evlib.fit([(recording, reference)], method="matched_filter", progress=False)
    >>> view = LiveView(Session(detector, Replay(recording), tempfile.mkdtemp()))
    >>> view.start().wait(), view.state
    (True, 'ended')
    """

    def __init__(
        self, session: Session, view_s: float = 30.0, refresh_s: float = 1.0, highpass_hz: float | None = None
    ):
        super().__init__()
        require_instance(Session, session=session)
        require_positive(view_s=view_s, refresh_s=refresh_s)
        self.session, self.view_s, self.refresh_s, self.highpass_hz = session, view_s, refresh_s, highpass_hz
        self.error: Exception | None = None
        self._rate, self._names = session.stream.detector.sampling_rate_hz, session.stream.detector.names
        self._overview(np.zeros((session.stream.n_channels,) * 2))  # refuses a filter that cannot be
        self._blocks: collections.deque = collections.deque()  # (first sample, samples), those in view
        self._lags: collections.deque = collections.deque(maxlen=round(LAG_S / refresh_s) + 1)  # (when, lag)
        self._lost, self._over, self._drawing = 0, threading.Event(), threading.RLock()
        self._runner = threading.Thread(target=self._run, daemon=True)
        self._drawer = threading.Thread(target=self._draw_on, daemon=True)
        self.facts = w.HTML()
        self.buttons = {"start": self.button("start", self.start), "stop": self.button("stop", self.stop)}
        self.build(w.HBox([*self.buttons.values(), self.facts], layout=WRAP))
        session.watch = self._take
        self.draw()

    # ---- What buttons do

    def start(self):
        """Run the session in a thread, and draw until it ends; returns the widget."""
        if self.state != "ready":
            raise OptionError("this session has run; a new Session with the same folder goes on where it stopped")
        self._runner.start()
        self._drawer.start()
        self.draw()
        return self

    def stop(self) -> None:
        """End the session soon; the signal has not ended."""
        self.session.stop()

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until the session has ended and the last picture is drawn; False where that takes longer."""
        self._drawer.join(timeout_s)
        return self._over.is_set() and not self._drawer.is_alive()

    @property
    def state(self) -> str:
        """How the session stands: "ready", "running", "stopped", "ended" (the signal has) or "failed"."""
        if not self._over.is_set():
            return "ready" if self._runner.ident is None else "running"
        return "failed" if self.error else "ended" if self.session.ended else "stopped"

    # ---- Threads

    def _run(self):
        try:
            self.session.run()
        except Exception as error:  # whatever it is: a thread would lose it
            self.error = error
        finally:
            self._over.set()

    def _draw_on(self):
        took_s = 0.0
        while not self._over.wait(max(self.refresh_s, (DRAW_SHARE - 1) * took_s)):
            began = time.monotonic()
            self.draw()
            took_s = time.monotonic() - began
        self.draw()

    def _take(self, start, block):
        """Keep what is in view; called by the session with each block."""
        block = np.array(block, np.float32)
        self._lost += int(np.isnan(block).all(axis=1).sum())
        self._blocks.append((start, block))
        while self._blocks[0][0] + len(self._blocks[0][1]) <= start + len(block) - self.view_s * self._rate:
            self._blocks.popleft()

    # ---- What is shown

    def draw(self) -> None:
        """Draw how it stands now."""
        with self._drawing:
            self._status = self.session.status()
            if self.state == "running":
                self._lags.append((time.monotonic(), self._status["lag_s"]))
            lost = self._status["counts"].get("lost", self._lost)
            shown = {"signal": f"{self._status['signal_s']:.1f} s", "decided up to": f"{self._decided_s:.1f} s"}
            shown |= {"events": self._status["events"], "behind real time": f"{self._status['lag_s']:.1f} s"}
            shown |= {"samples lost": lost, "not yet delivered": f"{sum(self._status['undelivered_bytes'])} bytes"}
            self.facts.value = html_facts({"state": self.state} | shown)
            self.buttons["start"].disabled = self.state != "ready"
            self.buttons["stop"].disabled = self.state != "running"
            self._say_state()
            super().draw()

    def _say_state(self):
        if self.error:
            self.say(f"the session failed: {type(self.error).__name__}: {self.error}", warning=True)
        elif self.state == "running" and self.session.late:
            self.say(f"samples come more than {self.session.lag_alarm_s:g} s behind real time", warning=True)
        else:
            on = "stopped: a new Session with the same folder goes on here"
            self.say({"stopped": on, "ended": "the signal has ended"}.get(self.state, ""))

    def figure(self):
        """Events by type, the signal with gaps, and the lag, below each other."""
        stop_s = max(self._status["signal_s"], self.view_s)
        start_s = stop_s - self.view_s
        heights = [np.clip(0.17 * len(self._names), 0.6, 3), np.clip(0.5 * self.session.stream.n_channels, 1.2, 5), 0.9]
        figure = blank_figure(self.page_px / PAGE_DPI, sum(heights) + 1.3)
        top, middle, bottom = figure.subplots(3, 1, height_ratios=heights)
        events = self._events(start_s)
        plots.plot_events_raster(events, start_s, stop_s, top)
        self._draw_signal(middle)
        colours = plots.type_colours(len(self._names))[events.type]
        style = {"linewidth": 0.8, "alpha": 0.6, "zorder": 0, "transform": middle.get_xaxis_transform()}
        middle.vlines(events.onset_s, 0, 1, colours, **style)
        for ax in (top, middle):
            for gap in self._gaps():
                ax.axvspan(*gap, **GAP)
            ax.axvline(self._decided_s, **EDGE)
            ax.ticklabel_format(axis="x", useOffset=False)
        top.set(xlabel="", ylabel="", xticklabels=[], xlim=(start_s, stop_s))
        middle.set(xlabel="time (s)", xlim=(start_s, stop_s))
        self._name_edge(top, start_s)
        when = np.array([when for when, _ in self._lags])
        lags = [lag for _, lag in self._lags]
        plots.plot_lag(when - (when[-1] if len(when) else 0.0), lags, self.session.lag_alarm_s, bottom)
        bottom.set_xlim(min(when[0] - when[-1], -SHORT_S) if len(when) else -SHORT_S, 0)
        for ax in (top, middle, bottom):
            ax.spines[["top", "right"]].set_visible(False)
        return figure

    def describe(self):
        """The picture in words."""
        signal_s, lag_s = self._status["signal_s"], self._status["lag_s"]
        start_s = max(signal_s - self.view_s, 0.0)
        gaps = ", ".join(f"{max(first, start_s):.1f} to {last:.1f} s" for first, last in self._gaps() if last > start_s)
        return (
            f"signal from {start_s:.1f} to {signal_s:.1f} s in {self.session.stream.n_channels} channels, with "
            f"{len(self._events(start_s))} events, decided up to {self._decided_s:.1f} s; gaps: {gaps or 'none'}; "
            f"{lag_s:.1f} s behind real time, the alarm is at {self.session.lag_alarm_s:g} s"
        )

    @property
    def _decided_s(self):
        return self.session.stream.decided_samples / self._rate

    def _events(self, start_s):
        """The events from ``start_s`` on."""
        lines = [line for line in self.session.recent.copy() if line["onset"] >= start_s]
        onset_s, types = [line["onset"] for line in lines], [line["trial_type"] for line in lines]
        return Events.from_seconds(onset_s, types, self._rate, self._names)

    def _gaps(self):
        """(first, last) seconds of spans in which nothing could be seen."""
        found = [(first / self._rate, last / self._rate) for first, last in list(self.session.stream.unseen)]
        return [*self.session.gaps.copy(), *found]

    def _overview(self, signal):
        channels, units = self.session.channels or None, self.session.units or ""
        return Overview(Recording(signal, self._rate, channels, units), self.highpass_hz)

    def _draw_signal(self, ax):
        blocks = list(self._blocks)
        if sum(len(block) for _, block in blocks) < self.session.stream.n_channels:  # nothing yet
            ax.set_yticks([])
            return
        signal = np.concatenate([block for _, block in blocks])
        overview = self._overview(signal)
        view = overview.view(0.0, len(signal) / self._rate, BINS)
        recording = overview.recording
        view = replace(view, first=view.first + blocks[0][0])
        plots.draw_signal(ax, view, overview.scale(), recording.channels, recording.units)

    def _name_edge(self, ax, start_s):
        """Words at the line up to which events are decided, which may lie before the view."""
        seen, late = self._decided_s >= start_s, self._decided_s > start_s + 0.7 * self.view_s
        words = "decided up to here" if seen else f"◂ decided up to {self._decided_s:.1f} s"
        place = {"ha": "right" if late else "left", "va": "bottom", "fontsize": "small"}
        ax.text(max(self._decided_s, start_s), 1.01, words, transform=ax.get_xaxis_transform(), **place)
