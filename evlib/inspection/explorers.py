"""Three widgets that look into a detector: its thresholds, its templates, and the timing of its events."""

from dataclasses import replace

import ipywidgets as w
import numpy as np
from scipy.special import expit

from ..detection.detector import Detector, detect
from ..scoring.comparison import Comparison
from ..scoring.refractory import find_violations
from ..scoring.statistics import median_per_type, timing_statistics
from ..scoring.thresholds import ThresholdSweep
from ..signals.errors import (
    DataError,
    OptionError,
    ShapeError,
    UnitError,
    log_odds_of,
    require_choice,
    require_instance,
    require_known,
    require_tolerance,
)
from ..signals.events import Events
from ..signals.recording import Recording
from ..signals.refractory import Refractory
from ..signals.text import one_line
from ..templates.waveforms import (
    channel_delays,
    channel_times,
    inter_event_intervals,
    read_snippets,
    similar_templates,
    subtract_template,
)
from . import plots
from .widget import LABEL, NO_NAME, WRAP, OneType, Pictured, Stepper, html_table, named

# Steps of the threshold slider, even in log odds: probabilities from 0.00005 to 0.99995.
SLIDER_LOG_ODDS = np.arange(-100, 101) / 10.0
TOLERANCES_MS = (0.25, 0.5, 1, 2, 2.5, 5, 10, 20, 25, 50, 100, 150, 200)
SLIDER = {"style": LABEL, "layout": w.Layout(width="360px")}
# Single events of a type that are read, evenly spread (more change no figure visibly), and that are shown at first.
MOST_EVENTS, SHOWN_EVENTS = 200, 30
# What the timing view shows, and what stands for the type that is chosen there (None stands for all types).
VIEWS, CHOSEN = ("errors", "between types"), object()
# Samples on either side of a detection in which a single channel may find its onset.
REACH = 8


class ThresholdExplorer(OneType):
    """Thresholds and refractory periods per type, with precision, recall, F1 and false alarms per hour, live.

    :meth:`apply` (or its button) puts the choice into ``detector``, a new Detector: the one that was passed in stays as
    it is. :meth:`reset` goes back to that one.

    Parameters
    ----------
    detector : Detector
    recording, reference : development data; thresholds that are chosen on test data overstate what they reach there
    tolerance_s : seconds, inclusive

    Raises
    ------
    OptionError, UnitError, ShapeError, DataError : a recording or events that do not fit the detector

    Examples
    --------
    >>> import evlib
    >>> from evlib.signals.synthetic import make_templates
    >>> recording, reference = evlib.make_recording(duration_s=20.0, templates=make_templates(2), seed=0)
    >>> detector = evlib.fit([(recording, reference)], method="matched_filter", progress=False)
    >>> explorer = ThresholdExplorer(detector, recording, reference)
    >>> chosen = explorer.set(threshold=0.999).apply()
    >>> bool(chosen.thresholds[0] > detector.thresholds[0]), chosen is explorer.detector
    (True, True)
    """

    def __init__(self, detector: Detector, recording: Recording, reference: Events, tolerance_s: float = 0.005):
        super().__init__()
        require_instance(Detector, detector=detector)
        require_instance(Recording, recording=recording)
        require_instance(Events, reference=reference)
        self.detector = self._given = detector
        self.tolerance_s = require_tolerance(tolerance_s)
        self.sweep = ThresholdSweep(detector, recording, reference)
        self._following = False
        probability = expit(SLIDER_LOG_ODDS)
        options = [
            (f"{p:.3g}" if p < 0.98 else f"{p:.5f}", x) for p, x in zip(probability, SLIDER_LOG_ODDS, strict=True)
        ]
        self.types = Stepper(named(detector.names), "type")
        self.threshold = w.SelectionSlider(options=options, description="threshold (probability)", **SLIDER)
        longest = max([*detector.refractory_s.values(), 0.05])
        limits = {"min": 0, "max": 2 * longest, "step": longest / 200}
        self.refractory = w.FloatSlider(0, **limits, description="refractory period (s)", **SLIDER)
        tolerances = sorted({*TOLERANCES_MS, round(1e3 * self.tolerance_s, 6)})
        options = [(f"{t:g}", t) for t in tolerances]
        self.tolerance = w.SelectionSlider(options=options, description="tolerance (ms)", **SLIDER)
        self.numbers = w.HTML()
        actions = {"best F1": self.best, "same for all types": self.for_all, "reset": self.reset}
        actions["apply to the detector"] = self.apply
        self.buttons = {caption: self.button(caption, act) for caption, act in actions.items()}
        sliders = w.HBox([self.threshold, self.refractory, self.tolerance], layout=WRAP)
        self.build(w.HBox([self.types, *self.buttons.values()], layout=WRAP), sliders, self.numbers)
        self.types.list.observe(lambda _: self._show(), "value")
        for slider in (self.threshold, self.refractory, self.tolerance):
            slider.observe(lambda change, slider=slider: self._moved(slider, change["new"]), "value")
        self.reset()

    def set(self, threshold: float | None = None, refractory_s: float | None = None, tolerance_s: float | None = None):
        """Set the threshold (a probability) and refractory period of the type in view, and the tolerance of all."""
        if threshold is not None:
            self.thresholds[self.type] = log_odds_of(threshold, "threshold")
        if refractory_s is not None:
            Refractory(refractory_s, (self.name,))  # checks the value
            if np.ndim(refractory_s):
                raise OptionError(f"refractory_s is the period of {self.name} in seconds, got {refractory_s!r}")
            self.refractory_s[self.name] = float(refractory_s)
        if tolerance_s is not None:
            self.tolerance_s = require_tolerance(tolerance_s)
            if self.tolerance_s == 0:
                raise UnitError("a tolerance of 0 s matches nothing; give seconds, such as 0.005")
        return self._update()

    def best(self):
        """The threshold with the best F1 of the type in view."""
        self.thresholds[self.type] = self.sweep.best_threshold(self.type, self.refractory_s, self.tolerance_s)
        return self._update()

    def for_all(self):
        """Give all types the threshold and the refractory period of the type in view."""
        self.thresholds[:] = self.thresholds[self.type]
        self.refractory_s = dict.fromkeys(self.refractory_s, self.refractory_s[self.name])
        return self._update()

    def reset(self):
        """Back to the detector that the widget was made with."""
        self.detector = self._given
        self.thresholds, self.refractory_s = self.detector.thresholds.copy(), dict(self.detector.refractory_s)
        return self._update()

    def apply(self) -> Detector:
        """A detector with the chosen thresholds and refractory periods, recorded in its metadata; now ``detector``."""
        f1 = float(self.comparison.f1)
        chosen = {"chosen_by_hand": {"development_f1": f1, "tolerance_s": float(self.tolerance_s)}}
        self.detector = replace(
            self._given,
            thresholds=self.thresholds.copy(),
            refractory_s=dict(self.refractory_s),
            metadata=self._given.metadata | chosen,
        )
        self.say(f"explorer.detector has these thresholds and refractory periods: F1 {f1:.3f} on the development data.")
        return self.detector

    @property
    def is_applied(self) -> bool:
        """Whether ``detector`` has the thresholds and refractory periods that are seen here."""
        same = np.array_equal(self.thresholds, self.detector.thresholds)
        return same and self.refractory_s == self.detector.refractory_s

    def figure(self):
        """Precision over recall, scores of candidates, and all types, side by side."""
        figure, (left, middle, right) = self.panels([1, 1.15, 1], 4.4)
        _, precision, recall = self.sweep.curve(self.type, self.refractory_s, self.tolerance_s)
        table = self.comparison.per_type()
        point = table.loc[self.name, ["precision", "recall"]].to_list()
        # From the highest threshold to the lowest: where recall stands still, precision falls.
        plots.plot_precision_recall({self.name: (precision[::-1], recall[::-1])}, {self.name: point}, left)
        left.set(xlabel="recall", ylabel="precision", title="dot: the present threshold")
        # The corner that matters instead of the whole square.
        low_recall = plots.lowest_tick([*recall[precision + recall >= np.nanmax(precision + recall) - 0.3], point[1]])
        low_precision = plots.lowest_tick([*precision[recall >= low_recall], point[0]])
        left.set(xlim=(low_recall, 1.01), ylim=(low_precision, 1.01))
        log_odds = self.sweep.log_odds[self.sweep.candidates.type == self.type]
        is_event = self.sweep.is_event(self.type, self.tolerance_s)
        plots.plot_candidate_scores(log_odds, is_event, self.thresholds[self.type], middle)
        middle.set_title(
            f"{plots.plain(self.name, 28)}, refractory period {self.refractory_s[self.name]:.3g} s", y=1.15
        )
        plots.plot_scores_by_type(table, self.name, self.tolerance_s, right)
        return figure

    def describe(self):
        """The picture in words."""
        return (
            f"{one_line(self.name)}: precision over recall, scores of its candidates around the threshold "
            f"{self.threshold.label}, and precision, recall and F1 of all types; the numbers stand above"
        )

    def _update(self):
        self.comparison = self.sweep.compare(self.thresholds, self.refractory_s, self.tolerance_s)
        return self._show()

    def _show(self):
        """Move the sliders to the nearest step, without changing what was set exactly; then show numbers and figure."""
        self._following = True
        try:
            for slider, value in (
                (self.threshold, self.thresholds[self.type]),
                (self.tolerance, 1e3 * self.tolerance_s),
            ):
                steps = np.array([step for _, step in slider.options])
                slider.value = steps[np.abs(steps - value).argmin()]
            period = self.refractory_s[self.name]
            self.refractory.max = max(self.refractory.max, period)
            self.refractory.value = period
        finally:
            self._following = False
        report = self.comparison
        one = report.per_type().loc[self.name]
        rows = [
            [name, int(r.tp), int(r.fn), int(r.fp), *(f"{v:.3f}" for v in (r.precision, r.recall, r.f1))]
            + [f"{r.fp / report.hours:.3g}"]
            for name, r in ((self.name, one), ("(all types)", report))
        ]
        header = ["", "hits", "missed", "false alarms", "precision", "recall", "F1", "false alarms / h"]
        self.numbers.value = html_table(header, rows)
        broken = find_violations(self.sweep.reference, self.refractory_s)[0]
        n_broken = int((self.sweep.reference.type[broken[:, 0]] == self.type).sum())
        if n_broken:
            words = f"{n_broken} reference events of {one_line(self.name)} come sooner than its refractory period"
            self.say(words, warning=True)
        else:
            self.say("" if self.is_applied else "The detector does not have this choice yet.")
        self.draw()
        return self

    def _moved(self, slider, value):
        if self._following:
            return
        if slider is self.threshold:
            self.thresholds[self.type] = float(value)
        elif slider is self.refractory:
            self.refractory_s[self.name] = float(value)
        else:
            self.tolerance_s = value / 1e3
        self._update()


class TemplateView(OneType):
    """Templates per type and channel, single events over them, the residual, delays, and similar types.

    The signal is whitened: its unit is the standard deviation of the noise, and a good residual has a standard
    deviation of 1.

    Parameters
    ----------
    detector : Detector
    recording : Recording to take single events from
    events : Events in it, labelled or detected; default: those that the detector finds
    truth : a Detector or TemplateBank with the true templates, such as that of
        :func:`evlib.detection.oracle.oracle_detector`

    Raises
    ------
    OptionError, ShapeError, UnitError : events without a recording, a truth of other types or channels, and what
        the detector refuses

    Examples
    --------
    >>> import evlib
    >>> from evlib.signals.synthetic import make_templates
    >>> recording, reference = evlib.make_recording(duration_s=20.0, templates=make_templates(2), seed=0)
    >>> detector = evlib.fit([(recording, reference)], method="matched_filter", progress=False)
    >>> view = TemplateView(detector, recording, reference)
    >>> view.step(+1).name
    'event_01'
    """

    def __init__(
        self, detector: Detector, recording: Recording | None = None, events: Events | None = None, truth=None
    ):
        super().__init__()
        self.detector, self.recording = detector, recording
        if events is not None and recording is None:
            raise OptionError("events need the recording that they are in: TemplateView(detector, recording, events)")
        if recording is not None:
            self.recording = recording = detector.accept(recording)
            events = detect(detector, recording) if events is None else events
            require_instance(Events, events=events)
            events = events.at_rate(detector.sampling_rate_hz).with_names(detector.names)
            if len(events) and events.sample.max() >= recording.n_samples:
                raise UnitError(
                    f"an event is at {events.onset_s.max():g} s, but the recording lasts {recording.duration_s:g} s "
                    "(the events of another recording?)"
                )
        self.events = events
        self.truth = None if truth is None else _on_window(getattr(truth, "bank", truth), detector.bank)
        self.pairs = similar_templates(detector.bank)
        self._snippets: dict = {}
        self._delays: dict = {}
        self.types = Stepper(named(detector.names), "type")
        most = 0 if events is None else int(max(events.counts().max(initial=0), 1))
        limits = {"min": 0, "max": min(most, MOST_EVENTS)}
        self.shown = w.IntSlider(min(SHOWN_EVENTS, most), **limits, description="single events shown", **SLIDER)
        self.shown.layout.display = None if most else "none"
        self.build(w.HBox([self.types, self.shown], layout=WRAP))
        for control in (self.types.list, self.shown):
            control.observe(lambda _: self.draw(), "value")
        self.draw()

    def step(self, by: int = 1):
        """Look at the next type, or with -1 at the one before."""
        self.types.step(by)
        return self

    @property
    def snippets(self) -> np.ndarray:
        """(N, L, C) whitened single events of the type in view, evenly spread over the recording, at most 200."""
        if self.type not in self._snippets:
            bank = self.detector.bank
            pieces = np.zeros((0, *bank.templates.shape[1:]), np.float32)
            if self.recording is not None and self.events is not None and self.events.counts()[self.type]:
                time = _spread(self.events.time_samples[self.events.type == self.type], MOST_EVENTS)
                pieces = read_snippets(self.detector.whitener, self.recording, time, bank.before, bank.length)
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
        """Single events with the template, the residual, delays of the channels, similarity of the types."""
        bank, rate, channels = self.detector.bank, self.detector.sampling_rate_hz, self.detector.channels or None
        template, pieces = bank.templates[self.type], self.snippets
        few = _spread(pieces, self.shown.value)
        true = None if self.truth is None else self.truth[self.type]
        n_middle = int(len(pieces) > 0)
        ratios = [1.25, *[1.1] * n_middle, 0.75, 1.15]
        figure, (left, *middle, delays, right) = self.panels(ratios, 5.2)
        half = max(2.0, float(np.abs(template).max()))
        plots.plot_aligned_events(few, template, rate, bank.before, channels, true, self.delays, half, ax=left)
        left.set_title(
            f"{plots.plain(self.name, 28)}: SNR {bank.norm[self.type]:.1f}, {len(few)} of {len(pieces)} events", y=1.09
        )
        for ax in middle:
            rest, shown = subtract_template(pieces, template), subtract_template(few, template)
            mean = {"half": half, "label": "mean", "ax": ax}
            plots.plot_aligned_events(shown, rest.mean(axis=0), rate, bank.before, channels, **mean)
            ax.set_title(f"residual: SD {rest.std():.2f} (noise: 1)", y=1.09)
        true_delays = None if true is None else channel_delays(true[None], rate)
        plots.plot_channel_delays(self.delays, channels, true_delays, delays)
        delays.set_title("delay of each channel", y=1.09)
        plots.plot_similarity(bank.similarity(), bank.names, self.name, right)
        return figure

    def draw(self) -> None:
        """Draw the type in view, and warn where another type is similar."""
        warnings = [str(pair) for pair in self.pairs if pair.name == self.name]
        self.say("; ".join(warnings) or "No other type is similar to this one.", warning=bool(warnings))
        super().draw()

    def describe(self):
        """The picture in words."""
        delay_ms = ", ".join(f"{ms:+.1f}" for ms in 1e3 * self.delays.delay_s)
        return (
            f"{one_line(self.name)}: {len(self.snippets)} single events over their template, signal-to-noise ratio "
            f"{self.detector.bank.norm[self.type]:.1f}; delays of the channels {delay_ms} ms; similarity of all types"
        )


def _spread(rows, n):
    """At most ``n`` rows, evenly spread."""
    return rows[np.unique(np.linspace(0, len(rows) - 1, min(n, len(rows))).astype(int))]


def _on_window(truth, bank):
    """True templates (E, L, C) cut to the window of the bank, in its order of names."""
    if not hasattr(truth, "templates") or not hasattr(truth, "before"):
        raise OptionError(
            f"truth must be a Detector or a TemplateBank with the true templates, got {type(truth).__name__}"
        )
    if not set(bank.names) <= set(truth.names):
        raise OptionError(f"truth knows {', '.join(truth.names)}, the detector {', '.join(bank.names)}")
    if truth.templates.shape[2] != bank.templates.shape[2]:
        raise ShapeError(f"truth has {truth.templates.shape[2]} channels, the detector {bank.templates.shape[2]}")
    rows = [truth.names.index(name) for name in bank.names]
    reach = bank.length + truth.length
    padded = np.pad(truth.templates[rows], ((0, 0), (reach, reach), (0, 0)))
    start = reach + truth.before - bank.before
    return padded[:, start : start + bank.length]


class TimingView(Pictured):
    """Signed timing errors of the hits, with and without the bias of each type; times from type to type.

    Parameters
    ----------
    comparison : Comparison, from :func:`evlib.compare`
    detector, recording : with both, the onset of each hit is measured in each channel alone, too

    Raises
    ------
    OptionError, DataError : no Comparison, a comparison without hits

    Examples
    --------
    >>> import evlib
    >>> names = ("heel", "toe")
    >>> reference = evlib.Events.from_seconds([1.0, 1.5, 2.0], ["heel", "toe", "heel"], 2000)
    >>> estimated = evlib.Events.from_seconds([1.001, 1.502, 2.001], ["heel", "toe", "heel"], 2000)
    >>> view = TimingView(evlib.compare(reference, estimated))
    >>> (1e3 * view.errors()).round(3)
    array([1., 2., 1.])
    >>> (1e3 * abs(view.set(without_bias=True).errors())).round(3)
    array([0., 0., 0.])
    """

    def __init__(self, comparison: Comparison, detector: Detector | None = None, recording: Recording | None = None):
        super().__init__()
        require_instance(Comparison, "evlib.compare(reference, estimated) makes one", comparison=comparison)
        if comparison.tp == 0:
            raise DataError("the comparison has no hits: there is no timing to look at (is the tolerance too small?)")
        if (detector is None) != (recording is None):
            raise OptionError("to measure hits in single channels, give both detector and recording")
        self.comparison, self.names = comparison, comparison.reference.names
        self.type = comparison.reference.type[comparison.pairs[:, 0]]
        self._bias = median_per_type(comparison.dt_s, self.type, len(self.names))
        self.channels, self.channel_error_s = (), None
        if detector is not None:
            self._measure_channels(detector, recording)
        self.types = Stepper([("(all types)", NO_NAME), *named(self.names)], "type")
        self.view = w.ToggleButtons(options=VIEWS, style={"button_width": "auto"})
        words = "without the bias of each type"
        self.without_bias = w.Checkbox(False, description=words, indent=False, layout=w.Layout(width="auto"))
        self.numbers = w.HTML()
        self.build(w.HBox([self.types, self.view, self.without_bias], layout=WRAP), self.numbers)
        for control in (self.types.list, self.view, self.without_bias):
            control.observe(lambda _: self.draw(), "value")
        self.draw()

    def set(self, view: str | None = None, type=CHOSEN, without_bias: bool | None = None):
        """Choose what is shown: "errors" or "between types"; a type, or None for all; with or without the bias."""
        if view is not None:
            require_choice(VIEWS, view=view)
            self.view.value = view
        if type is not CHOSEN:
            require_known([] if type is None else [type], self.names)
            self.types.list.value = NO_NAME if type is None else type
        if without_bias is not None:
            self.without_bias.value = bool(without_bias)
        return self

    def errors(self, type=CHOSEN) -> np.ndarray:
        """(n,) signed errors of the hits in seconds, late is positive: of the type in view or another; None: of all."""
        return self._unbiased(self.comparison.dt_s)[self._rows(self.types.value if type is CHOSEN else type)]

    def figure(self):
        """The chosen view as a matplotlib Figure."""
        return self._errors_figure() if self.view.value == "errors" else self._types_figure()

    def draw(self) -> None:
        """Draw the chosen view and its numbers."""
        rows = []
        for name in dict.fromkeys([self.types.value, None]):
            numbers = timing_statistics(self.errors(name))
            shown = (f"{numbers[key]:.3f}" for key in ("mad_ms", "rmse_ms", "p95_ms"))
            label = "(all types)" if name is None else name
            rows.append([label, len(self.errors(name)), f"{numbers['bias_ms']:+.3f}", *shown])
        self.numbers.value = html_table(["", "hits", "bias (ms)", "MAD (ms)", "RMSE (ms)", "95 % within (ms)"], rows)
        super().draw()

    def describe(self):
        """The picture in words."""
        of = "all types" if self.types.value is None else one_line(self.types.value)
        shown = "timing errors of each type" if self.view.value == "errors" else "times from type to type"
        return f"{of}: {shown}; the numbers stand above"

    def _rows(self, name):
        return slice(None) if name is None else self.type == self.names.index(name)

    def _unbiased(self, error_s):
        """Errors (hits, ...) without the bias of their type, if that is chosen."""
        shift = self._bias[self.type] if self.without_bias.value else np.zeros(len(self.type))
        return (error_s.T - shift).T

    def _errors_figure(self):
        tolerance_s, name = self.comparison.tolerance_s, self.types.value
        n_right = 1 + (self.channel_error_s is not None)
        height = min(max(4.2, 0.27 * max(len(self.names), len(self.channels)) + 1.2), 12.0)
        figure, (left, *right) = self.panels([1.15, *[1] * n_right], height)
        what = ", without bias" if self.without_bias.value else ""
        of = "all types" if name is None else name
        plots.plot_timing_errors({of: self.errors()}, tolerance_s, left)
        left.set_title(f"hits of {plots.plain(of, 28)}{what}", y=1.07)
        plots.plot_error_groups(
            {k: self.errors(k) for k in self.names}, right[0], tolerance_s, plots.type_colours(len(self.names))
        )
        right[0].set_title(f"by type{what}")
        for ax in right[1:]:
            errors = self._unbiased(self.channel_error_s)[self._rows(name)]
            plots.plot_error_groups(dict(zip(self.channels, errors.T, strict=True)), ax, tolerance_s)
            ax.set_title(f"each channel alone{what}")
        return figure

    def _types_figure(self):
        figure, (left, right) = self.panels([1.1, 1], 5.2)
        name, of_all = self.types.value, self.types.value is None
        tables = {"reference": self.comparison.reference, "estimated": self.comparison.estimated}
        found = {label: inter_event_intervals(table) for label, table in tables.items()}
        plots.plot_time_to_next(*found["reference"], self.names, name, left)
        left.set_title("reference: how often, and after how long")
        own = {k: t[slice(None) if of_all else a == self.names.index(name)] for k, (a, _, t) in found.items()}
        plots.plot_intervals(own, right)
        right.set_title(f"from {'each type' if of_all else plots.plain(name, 28)} to the next other type", y=1.12)
        return figure

    def _measure_channels(self, detector, recording):
        """Errors (hits, C) of the onset that each channel alone gives; NaN where it is too weak."""
        recording = detector.accept(recording)
        rows = self.comparison.pairs[:, 1]
        hits = self.comparison.estimated[rows].at_rate(detector.sampling_rate_hz)
        order = np.argsort(rows, kind="stable")
        types = np.array([detector.names.index(name) for name in hits.type_names])
        bank = detector.bank
        window = bank.before + REACH, bank.length + 2 * REACH
        pieces = read_snippets(detector.whitener, recording, hits.time_samples, *window)
        offset_s = channel_times(bank, pieces, types) / detector.sampling_rate_hz
        self.channels = detector.channels or tuple(f"ch{c + 1}" for c in range(offset_s.shape[1]))
        self.channel_error_s = np.empty_like(offset_s)
        self.channel_error_s[order] = offset_s
        self.channel_error_s += self.comparison.dt_s[:, None]
