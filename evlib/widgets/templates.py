"""Look at what a detector has learned of each kind of event, and at the single events that it is the mean of."""

import ipywidgets as w
import numpy as np

from ..aligned import read_snippets, subtract_template
from ..ambiguity import look_alikes
from ..delays import channel_delays
from ..detection import detect
from ..errors import OptionError, ShapeError, UnitError
from ..events import Events
from ..plots_inspection import plot_aligned_events, plot_channel_delays, plot_similarity
from .controls import LABEL, OneType, Stepper, blank_figure

# Delays come from so many events of a kind at most, evenly spread: more change nothing that one can see.
MOST_EVENTS = 200
SHOWN_EVENTS = 30


class TemplateView(OneType):
    """Templates per type and channel, single events over them, what these leave over, delays, and which kinds look alike.

    Signal is whitened: its unit is the standard deviation of the noise, and so a good residual looks like noise of 1.

    Parameters
    ----------
    detector : Detector
    recording : Recording to take single events from
    events : Events in it, labelled or detected; default: what the detector finds
    truth : a Detector or TemplateBank with the true templates, such as that of :func:`evlib.oracle_detector`

    Raises
    ------
    OptionError, ShapeError, UnitError : events without a recording, a truth of other kinds or channels, and what
        the detector refuses

    Examples
    --------
    >>> import evlib
    >>> recording, reference = evlib.make_recording(duration_s=20.0, templates=evlib.make_templates(2), seed=0)
    >>> detector = evlib.fit([(recording, reference)], method="matched_filter", progress=False)
    >>> view = TemplateView(detector, recording, reference)
    >>> view.step(+1).name
    'event_01'
    """

    def __init__(self, detector, recording=None, events=None, truth=None):
        self.detector, self.recording = detector, recording
        if events is not None and recording is None:
            raise OptionError("events need the recording that they are in: TemplateView(detector, recording, events)")
        if recording is not None:
            detector.check(recording)
            events = detect(detector, recording) if events is None else events
            if not isinstance(events, Events):
                raise OptionError(f"events must be Events, got {type(events).__name__} (evlib.read_events reads a file)")
            events = events.at_rate(detector.sampling_rate_hz).with_names(detector.names)
            if len(events) and events.sample.max() >= recording.n_samples:
                raise UnitError(
                    f"an event is at {events.onset_s.max():g} s, but the recording lasts {recording.duration_s:g} s "
                    "(the events of another recording?)"
                )
        self.events = events
        self.truth = None if truth is None else _on_window(getattr(truth, "bank", truth), detector.bank)
        self.pairs = look_alikes(detector.bank)
        self._snippets, self._delays = {}, {}
        self.types = Stepper(detector.names, "type")
        most = 0 if events is None else int(max(events.counts().max(initial=0), 1))
        self.shown = w.IntSlider(
            min(SHOWN_EVENTS, most),
            0,
            min(most, MOST_EVENTS),
            description="single events shown",
            style=LABEL,
            layout=w.Layout(width="360px"),
        )
        self.shown.layout.display = None if most else "none"
        super().__init__([w.HBox([self.types, self.shown], layout=w.Layout(flex_flow="row wrap"))])
        self.types.list.observe(lambda change: self.draw(), "value")
        self.shown.observe(lambda change: self.draw(), "value")
        self.draw()

    def step(self, by=1):
        """Look at the next type, or with -1 at the one before."""
        self.types.step(by)
        return self

    @property
    def snippets(self):
        """(N, L, C) whitened single events of the type in view, evenly spread over the recording, at most 200."""
        if self.type not in self._snippets:
            bank = self.detector.bank
            time = np.zeros(0) if self.events is None else self.events.time_samples[self.events.type == self.type]
            time = time[np.unique(np.linspace(0, len(time) - 1, min(len(time), MOST_EVENTS)).astype(int))] if len(time) else time
            if len(time):
                pieces = read_snippets(self.detector.whitener, self.recording, time, bank.before, bank.length)
            else:
                pieces = np.zeros((0, *bank.templates.shape[1:]), np.float32)
            self._snippets[self.type] = pieces
        return self._snippets[self.type]

    @property
    def delays(self):
        """ChannelDelays of the type in view: of its single events where there are some, else of the template."""
        if self.type not in self._delays:
            pieces = self.snippets if len(self.snippets) else self.detector.bank.templates[self.type][None]
            self._delays[self.type] = channel_delays(pieces, self.detector.sampling_rate_hz)
        return self._delays[self.type]

    def figure(self):
        """Single events with the template, what they leave over, delays of the channels, similarity of the kinds."""
        figure = blank_figure(11.5, 5.2)
        bank, rate, channels = self.detector.bank, self.detector.sampling_rate_hz, self.detector.channels or None
        template, pieces = bank.templates[self.type], self.snippets
        few = pieces[np.linspace(0, len(pieces) - 1, min(self.shown.value, len(pieces))).astype(int)] if len(pieces) else pieces
        true = None if self.truth is None else self.truth[self.type]
        with_events = len(pieces) > 0
        left, *middle, delays, right = figure.subplots(1, 3 + with_events, width_ratios=[1.25, *[1.1] * with_events, 0.75, 1.15])
        half = max(2.0, float(np.abs(template).max()))
        plot_aligned_events(few, template, rate, bank.before, channels, true, self.delays, half, ax=left)
        left.set_title(f"{self.name}: SNR {bank.norm[self.type]:.1f}, {len(few)} of {len(pieces)} events", y=1.09)
        if with_events:
            rest = subtract_template(pieces, template)
            shown = subtract_template(few, template)
            plot_aligned_events(shown, rest.mean(axis=0), rate, bank.before, channels, half=half, label="mean", ax=middle[0])
            middle[0].set_title(f"left over: SD {rest.std():.2f} (noise: 1)", y=1.09)
        true_delays = None if true is None else channel_delays(true[None], rate)
        plot_channel_delays(self.delays, channels, true_delays, delays)
        delays.set_title("delay of each channel", y=1.09)
        plot_similarity(bank.similarity(), bank.names, self.name, right)
        return figure

    def draw(self):
        """Draw the type in view, and warn where it looks like another."""
        warnings = [str(pair) for pair in self.pairs if pair.name == self.name]
        self.say("; ".join(warnings) or "No other kind looks like this one.", warning=bool(warnings))
        super().draw()


def _on_window(truth, bank):
    """True templates (E, L, C) cut to the window of the bank, in its order of names."""
    if not hasattr(truth, "templates") or not hasattr(truth, "before"):
        raise OptionError(f"truth must be a Detector or a TemplateBank with the true templates, got {type(truth).__name__}")
    if not set(bank.names) <= set(truth.names):
        raise OptionError(f"truth knows {', '.join(truth.names)}, the detector {', '.join(bank.names)}")
    if truth.templates.shape[2] != bank.templates.shape[2]:
        raise ShapeError(f"truth has {truth.templates.shape[2]} channels, the detector {bank.templates.shape[2]}")
    rows = [truth.names.index(name) for name in bank.names]
    reach = bank.length + truth.length
    padded = np.pad(truth.templates[rows], ((0, 0), (reach, reach), (0, 0)))
    start = reach + truth.before - bank.before
    return padded[:, start : start + bank.length]
