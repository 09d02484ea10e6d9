"""Choose thresholds and refractory periods by what they do on development data."""

from dataclasses import replace

import ipywidgets as w
import numpy as np

from ..detection.detector import detect
from ..scoring.comparison import Comparison
from ..scoring.refractory import find_violations
from ..scoring.statistics import median_per_type, timing_statistics
from ..scoring.thresholds import ThresholdSweep
from ..signals.errors import DataError, OptionError, ShapeError, UnitError, log_odds_of, require_tolerance
from ..signals.events import Events
from ..signals.refractory import Refractory
from ..templates.waveforms import (
    channel_delays,
    channel_times,
    inter_event_intervals,
    read_snippets,
    similar_templates,
    subtract_template,
)
from .plots import (
    plot_aligned_events,
    plot_candidate_scores,
    plot_channel_delays,
    plot_error_groups,
    plot_intervals,
    plot_precision_recall,
    plot_scores_by_type,
    plot_similarity,
    plot_time_to_next,
    plot_timing_errors,
    type_colours,
)
from .widget import LABEL, OneType, Pictured, Stepper, blank_figure, html_table

# Steps of the threshold slider, even in log odds: 0.5, 0.52, ... 0.9997.
SLIDER_LOG_ODDS = np.arange(-100, 101) / 10.0
TOLERANCES_MS = (0.25, 0.5, 1, 2, 2.5, 5, 10, 20, 25, 50, 100, 150, 200)
WIDE = w.Layout(width="360px")


class ThresholdExplorer(OneType):
    """Thresholds and refractory periods per type, with precision, recall, F1 and false alarms per hour, live.

    A detector does not change: :meth:`apply` (or its button) makes a copy with the choice, which is ``detector`` from
    then on; :meth:`reset` goes back to the one that the widget was made with.

    Parameters
    ----------
    detector : Detector
    recording, reference : development data; thresholds that are chosen on test data are worth nothing there
    tolerance_s : seconds, inclusive

    Raises
    ------
    OptionError, UnitError, ShapeError, DataError : a recording or events that do not fit the detector

    Examples
    --------
    >>> import evlib
    >>> recording, reference = evlib.make_recording(duration_s=20.0, templates=evlib.signals.synthetic.make_templates(2), seed=0)
    >>> detector = evlib.fit([(recording, reference)], method="matched_filter", progress=False)
    >>> explorer = ThresholdExplorer(detector, recording, reference)
    >>> explorer.set(threshold=0.999).comparison.recall <= 1
    True
    >>> explorer.apply() is explorer.detector
    True
    """

    def __init__(self, detector, recording, reference, tolerance_s=0.005):
        if not isinstance(reference, Events):
            raise OptionError(
                f"reference must be Events, got {type(reference).__name__} (evlib.read_events reads a file)"
            )
        self.detector, self.tolerance_s = detector, require_tolerance(tolerance_s)
        self.tuning = ThresholdSweep(detector, recording, reference)
        self._fitted = detector
        self._moving = False
        longest = max([*detector.refractory_s.values(), 0.05])
        self.types = Stepper(detector.names, "type")
        options = [
            (f"{1 / (1 + np.exp(-x)):.3g}" if x < 3.9 else f"{1 / (1 + np.exp(-x)):.5f}", x) for x in SLIDER_LOG_ODDS
        ]
        self.threshold = w.SelectionSlider(
            options=options, description="threshold (probability)", style=LABEL, layout=WIDE
        )
        self.refractory = w.FloatSlider(
            0, min=0, max=2 * longest, step=longest / 200, description="refractory period (s)", style=LABEL, layout=WIDE
        )
        tolerances = sorted({*TOLERANCES_MS, round(1e3 * self.tolerance_s, 6)})
        self.tolerance = w.SelectionSlider(
            options=[(f"{t:g}", t) for t in tolerances], description="tolerance (ms)", style=LABEL, layout=WIDE
        )
        self.numbers = w.HTML()
        names = {
            "best F1": self.best,
            "same for all types": self.for_all,
            "reset": self.reset,
            "apply to the detector": self.apply,
        }
        buttons = [w.Button(description=name, layout=w.Layout(width="auto")) for name in names]
        wrap = w.Layout(flex_flow="row wrap")
        super().__init__(
            [
                w.HBox([self.types, *buttons], layout=wrap),
                w.HBox([self.threshold, self.refractory, self.tolerance], layout=wrap),
                self.numbers,
            ]
        )
        for button, act in zip(buttons, names.values(), strict=True):
            self.on_click(button, act)
        self.types.list.observe(self._type_chosen, "value")
        self.threshold.observe(self._threshold_moved, "value")
        self.refractory.observe(self._refractory_moved, "value")
        self.tolerance.observe(self._tolerance_moved, "value")
        self.reset()

    # ---- what buttons and sliders do
    # ----------------------------------------------------------------------------------

    def set(self, threshold=None, refractory_s=None, tolerance_s=None):
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
        self.thresholds[self.type] = self.tuning.best_threshold(self.type, self.refractory_s, self.tolerance_s)
        return self._update()

    def for_all(self):
        """Give all types the threshold and the refractory period of the type in view."""
        self.thresholds[:] = self.thresholds[self.type]
        self.refractory_s = dict.fromkeys(self.refractory_s, self.refractory_s[self.name])
        return self._update()

    def reset(self):
        """Back to the detector that the widget was made with."""
        self.detector = self._fitted
        self.thresholds, self.refractory_s = self.detector.thresholds.copy(), dict(self.detector.refractory_s)
        return self._update()

    def apply(self):
        """A copy of the detector with these thresholds and refractory periods, ``detector`` from now on; its metadata
        says that they were chosen by hand."""
        report = self.comparison
        chosen = {"development_f1": float(report.f1), "tolerance_s": float(self.tolerance_s)}
        self.detector = replace(
            self._fitted,
            thresholds=self.thresholds.copy(),
            refractory_s=dict(self.refractory_s),
            metadata=self._fitted.metadata | {"chosen_by_hand": chosen},
        )
        self.say(
            f"The detector now has these thresholds and refractory periods: F1 {report.f1:.3f} on the development data."
        )
        return self.detector

    # ---- state
    # --------------------------------------------------------------------------------------------------------

    @property
    def is_applied(self):
        """Whether the detector has the thresholds and refractory periods that are seen here."""
        same = np.array_equal(self.thresholds, self.detector.thresholds)
        return same and self.refractory_s == self.detector.refractory_s

    def figure(self):
        """Precision over recall, scores of candidates, and all types, side by side."""
        figure = blank_figure(10.5, 4.4)
        axes = figure.subplots(1, 3, width_ratios=[1, 1.15, 1])
        _, precision, recall = self.tuning.curve(self.type, self.refractory_s, self.tolerance_s)
        table = self._table
        point = table.loc[self.name, ["precision", "recall"]].to_list()
        # From the highest threshold to the lowest: where recall stands still, precision falls.
        plot_precision_recall({self.name: (precision[::-1], recall[::-1])}, {self.name: point}, axes[0])
        axes[0].set(xlabel="recall", ylabel="precision", title="dot: the present threshold")
        # The corner that matters, not always the whole square.
        left = _corner(recall[precision + recall >= np.nanmax(precision + recall) - 0.3], point[1])
        bottom = _corner(precision[recall >= left], point[0])
        axes[0].set(xlim=(left, 1.005 + 0.02 * (1 - left)), ylim=(bottom, 1.005 + 0.02 * (1 - bottom)))
        log_odds = self.tuning.log_odds[self.tuning.candidates.type == self.type]
        is_event = self.tuning.is_event(self.type, self.tolerance_s)
        plot_candidate_scores(log_odds, is_event, self.thresholds[self.type], axes[1])
        axes[1].set_title(f"{self.name}, refractory period {self.refractory_s[self.name]:.3g} s", y=1.15)
        plot_scores_by_type(table, self.name, self.tolerance_s, axes[2])
        return figure

    def _update(self):
        self.comparison = self.tuning.compare(self.thresholds, self.refractory_s, self.tolerance_s)
        self._table = self.comparison.per_type()
        return self._show()

    def _show(self):
        self._moving = True  # the sliders follow; what is set exactly stays exact
        try:
            nearest = np.abs(SLIDER_LOG_ODDS - self.thresholds[self.type]).argmin()
            self.threshold.value = SLIDER_LOG_ODDS[nearest]
            period = self.refractory_s[self.name]
            self.refractory.max = max(self.refractory.max, period)
            self.refractory.value = period
            tolerances = np.array([value for _, value in self.tolerance.options])
            self.tolerance.value = tolerances[np.abs(tolerances - 1e3 * self.tolerance_s).argmin()]
        finally:
            self._moving = False
        self._report()
        self.draw()
        return self

    def _report(self):
        report, table = self.comparison, self._table
        one, hours = table.loc[self.name], report.hours
        rows = [
            [self.name, one.tp, one.fn, one.fp, one.precision, one.recall, one.f1, one.fp / hours],
            [
                "all types",
                report.tp,
                report.fn,
                report.fp,
                report.precision,
                report.recall,
                report.f1,
                report.fp / hours,
            ],
        ]
        rows = [
            [*(str(int(v)) if k in (1, 2, 3) else v for k, v in enumerate(row[:4]))]
            + [f"{v:.3f}" for v in row[4:7]]
            + [f"{row[7]:.3g}"]
            for row in rows
        ]
        header = ["", "hits", "missed", "false alarms", "precision", "recall", "F1", "false alarms / h"]
        self.numbers.value = html_table(header, rows)
        broken = find_violations(self.tuning.reference, self.refractory_s)[0]
        broken = int((self.tuning.reference.type[broken[:, 0]] == self.type).sum())
        if broken:
            self.say(
                f"{broken} reference events of {self.name} come sooner than its refractory period allows", warning=True
            )
        else:
            self.say("" if self.is_applied else "The detector does not have this choice yet.")

    def _type_chosen(self, change):
        self._show()

    def _threshold_moved(self, change):
        if not self._moving:
            self.thresholds[self.type] = float(change["new"])
            self._update()

    def _refractory_moved(self, change):
        if not self._moving:
            self.refractory_s[self.name] = float(change["new"])
            self._update()

    def _tolerance_moved(self, change):
        if not self._moving:
            self.tolerance_s = change["new"] / 1e3
            self._update()


def _corner(values, point):
    """Where an axis begins that shows values up to 1 and the point."""
    least = np.nanmin([*values, point, 0.95])
    return float(max(0.0, np.floor(20 * least - 0.5) / 20))


# --- Look at what a detector has learned of each kind of event, and at the single events that it is the mean of.


# Delays come from so many events of a kind at most, evenly spread: more change nothing that one can see.
MOST_EVENTS = 200
SHOWN_EVENTS = 30


class TemplateView(OneType):
    """Templates per type and channel, single events over them, what these leave over, delays, and which kinds look
    alike.

    Signal is whitened: its unit is the standard deviation of the noise, and so a good residual looks like noise of 1.

    Parameters
    ----------
    detector : Detector
    recording : Recording to take single events from
    events : Events in it, labelled or detected; default: what the detector finds
    truth : a Detector or TemplateBank with the true templates, such as that of
        :func:`evlib.detection.oracle.oracle_detector`

    Raises
    ------
    OptionError, ShapeError, UnitError : events without a recording, a truth of other kinds or channels, and what
        the detector refuses

    Examples
    --------
    >>> import evlib
    >>> recording, reference = evlib.make_recording(duration_s=20.0, templates=evlib.signals.synthetic.make_templates(2), seed=0)
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
                raise OptionError(
                    f"events must be Events, got {type(events).__name__} (evlib.read_events reads a file)"
                )
            events = events.at_rate(detector.sampling_rate_hz).with_names(detector.names)
            if len(events) and events.sample.max() >= recording.n_samples:
                raise UnitError(
                    f"an event is at {events.onset_s.max():g} s, but the recording lasts {recording.duration_s:g} s "
                    "(the events of another recording?)"
                )
        self.events = events
        self.truth = None if truth is None else _on_window(getattr(truth, "bank", truth), detector.bank)
        self.pairs = similar_templates(detector.bank)
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
            time = (
                time[np.unique(np.linspace(0, len(time) - 1, min(len(time), MOST_EVENTS)).astype(int))]
                if len(time)
                else time
            )
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
        few = (
            pieces[np.linspace(0, len(pieces) - 1, min(self.shown.value, len(pieces))).astype(int)]
            if len(pieces)
            else pieces
        )
        true = None if self.truth is None else self.truth[self.type]
        with_events = len(pieces) > 0
        left, *middle, delays, right = figure.subplots(
            1, 3 + with_events, width_ratios=[1.25, *[1.1] * with_events, 0.75, 1.15]
        )
        half = max(2.0, float(np.abs(template).max()))
        plot_aligned_events(few, template, rate, bank.before, channels, true, self.delays, half, ax=left)
        left.set_title(f"{self.name}: SNR {bank.norm[self.type]:.1f}, {len(few)} of {len(pieces)} events", y=1.09)
        if with_events:
            rest = subtract_template(pieces, template)
            shown = subtract_template(few, template)
            plot_aligned_events(
                shown, rest.mean(axis=0), rate, bank.before, channels, half=half, label="mean", ax=middle[0]
            )
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


# --- Look at when detections come: too early or too late, by type and by channel, and how kinds follow each other.


ALL = "all types"
VIEWS = ("errors", "between kinds")
# Samples to either side of a detection in which a single channel may date it.
REACH = 8


class TimingView(Pictured):
    """Signed timing errors of the hits, with and without each type's bias; and times from each kind to the next other
    kind.

    Parameters
    ----------
    comparison : Comparison, from :func:`evlib.compare`
    detector, recording : where both are given, each channel dates each hit by itself too

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

    def __init__(self, comparison, detector=None, recording=None):
        if not isinstance(comparison, Comparison):
            raise OptionError(
                f"comparison must come from evlib.compare(reference, estimated), got {type(comparison).__name__}"
            )
        if comparison.tp == 0:
            raise DataError("the comparison has no hits: there is no timing to look at (is the tolerance too small?)")
        if (detector is None) != (recording is None):
            raise OptionError("to date hits by single channels, give both detector and recording")
        self.comparison, self.names = comparison, comparison.reference.names
        self.type = comparison.reference.type[comparison.pairs[:, 0]]
        self._bias = median_per_type(comparison.dt_s, self.type, len(self.names))
        self.channels, self.channel_error_s = (), None
        if detector is not None:
            self._date_by_channels(detector, recording)
        self.types = Stepper([ALL, *self.names], "type")
        self.view = w.ToggleButtons(options=VIEWS, style={"button_width": "auto"})
        self.without_bias = w.Checkbox(
            False, description="without the bias of each type", indent=False, layout=w.Layout(width="auto")
        )
        self.numbers = w.HTML()
        super().__init__(
            [w.HBox([self.types, self.view, self.without_bias], layout=w.Layout(flex_flow="row wrap")), self.numbers]
        )
        for control in (self.types.list, self.view, self.without_bias):
            control.observe(lambda change: self.draw(), "value")
        self.draw()

    def set(self, view=None, type=None, without_bias=None):
        """Choose what is seen: "errors" or "between kinds"; a type or "all types"; with or without the bias."""
        if view is not None:
            if view not in VIEWS:
                raise OptionError(f"view must be one of {', '.join(VIEWS)}, got {view!r}")
            self.view.value = view
        if type is not None:
            if type not in self.types.list.options:
                raise OptionError(f"type must be one of {', '.join(self.types.list.options)}, got {type!r}")
            self.types.list.value = type
        if without_bias is not None:
            self.without_bias.value = bool(without_bias)
        return self

    def errors(self, type=None):
        """(n,) signed errors of the hits in seconds, late is positive: of one type, of the type in view, or of all."""
        rows = self._rows(self.types.value if type is None else type)
        error_s = self.comparison.dt_s - self._bias[self.type] if self.without_bias.value else self.comparison.dt_s
        return error_s[rows]

    def figure(self):
        """The chosen view as a matplotlib Figure."""
        return self._errors_figure() if self.view.value == "errors" else self._kinds_figure()

    def draw(self):
        """Draw the chosen view and its numbers."""
        rows = []
        for name in dict.fromkeys([self.types.value, ALL]):
            numbers = timing_statistics(self.errors(name))
            shown = (f"{numbers[key]:.3f}" for key in ("mad_ms", "rmse_ms", "p95_ms"))
            rows.append([name, len(self.errors(name)), f"{numbers['bias_ms']:+.3f}", *shown])
        self.numbers.value = html_table(["", "hits", "bias (ms)", "MAD (ms)", "RMSE (ms)", "95 % within (ms)"], rows)
        super().draw()

    def _rows(self, name):
        return slice(None) if name == ALL else self.type == self.names.index(name)

    def _errors_figure(self):
        tolerance_s, name = self.comparison.tolerance_s, self.types.value
        with_channels = self.channel_error_s is not None
        height = max(4.2, 0.27 * max(len(self.names), len(self.channels)) + 1.2)
        figure = blank_figure(11, height)
        left, *right = figure.subplots(1, 2 + with_channels, width_ratios=[1.15, *[1] * (1 + with_channels)])
        what = ", without bias" if self.without_bias.value else ""
        plot_timing_errors({name: self.errors()}, tolerance_s, left)
        left.set_title(f"hits of {name}{what}", y=1.07)
        groups = {kind: self.errors(kind) for kind in self.names}
        plot_error_groups(groups, right[0], tolerance_s, type_colours(len(self.names)))
        right[0].set_title(f"by type{what}")
        if with_channels:
            rows = self._rows(name)
            shift = self._bias[self.type[rows]] if self.without_bias.value else 0.0
            groups = {channel: self.channel_error_s[rows, c] - shift for c, channel in enumerate(self.channels)}
            plot_error_groups(groups, right[1], tolerance_s)
            right[1].set_title(f"each channel alone{what}")
        return figure

    def _kinds_figure(self):
        figure = blank_figure(11, 5.2)
        left, right = figure.subplots(1, 2, width_ratios=[1.1, 1])
        name = self.types.value
        tables = {"reference": self.comparison.reference, "estimated": self.comparison.estimated}
        found = {label: inter_event_intervals(table) for label, table in tables.items()}
        plot_time_to_next(*found["reference"], self.names, None if name == ALL else name, left)
        left.set_title("reference: how often, and after how long")
        before = {label: parts[0] for label, parts in found.items()}
        keep = {label: slice(None) if name == ALL else rows == self.names.index(name) for label, rows in before.items()}
        plot_intervals({label: parts[2][keep[label]] for label, parts in found.items()}, right)
        right.set_title(f"from {'each kind' if name == ALL else name} to the next other kind", y=1.12)
        return figure

    def _date_by_channels(self, detector, recording):
        detector.check(recording)
        hits = self.comparison.estimated[self.comparison.pairs[:, 1]].at_rate(detector.sampling_rate_hz)
        order = np.argsort(self.comparison.pairs[:, 1], kind="stable")
        kinds = np.array([detector.names.index(name) for name in hits.type_names])
        bank = detector.bank
        pieces = read_snippets(
            detector.whitener, recording, hits.time_samples, bank.before + REACH, bank.length + 2 * REACH
        )
        offset_s = channel_times(bank, pieces, kinds) / detector.sampling_rate_hz
        self.channels = detector.channels or tuple(f"ch{c + 1}" for c in range(offset_s.shape[1]))
        self.channel_error_s = np.empty_like(offset_s)
        self.channel_error_s[order] = offset_s
        self.channel_error_s += self.comparison.dt_s[:, None]
