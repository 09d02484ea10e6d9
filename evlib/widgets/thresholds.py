"""Choose thresholds and refractory periods by what they do on development data."""

import ipywidgets as w
import numpy as np

from ..errors import OptionError, UnitError
from ..events import Events
from ..matching import check_tolerance
from ..options import log_odds_of
from ..plots import plot_precision_recall
from ..plots_inspection import plot_candidate_scores, plot_scores_by_type
from ..refractory import find_violations, refractory_samples
from ..tuning import Tuning
from .controls import LABEL, OneType, Stepper, blank_figure, html_table

# Steps of the threshold slider, even in log odds: 0.5, 0.52, ... 0.9997.
SLIDER_LOG_ODDS = np.arange(-100, 101) / 10.0
TOLERANCES_MS = (0.25, 0.5, 1, 2, 2.5, 5, 10, 20, 25, 50, 100, 150, 200)
WIDE = w.Layout(width="360px")


class ThresholdExplorer(OneType):
    """Thresholds and refractory periods per type, with precision, recall, F1 and false alarms per hour, live.

    The detector is not touched until :meth:`apply` (or its button) writes the choice into it; :meth:`reset` goes back to
    what the detector had when the widget was made.

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
    >>> recording, reference = evlib.make_recording(duration_s=20.0, templates=evlib.make_templates(2), seed=0)
    >>> detector = evlib.fit([(recording, reference)], method="matched_filter", progress=False)
    >>> explorer = ThresholdExplorer(detector, recording, reference)
    >>> explorer.set(threshold=0.999).comparison.recall <= 1
    True
    >>> explorer.apply() is detector
    True
    """

    def __init__(self, detector, recording, reference, tolerance_s=0.005):
        if not isinstance(reference, Events):
            raise OptionError(f"reference must be Events, got {type(reference).__name__} (evlib.read_events reads a file)")
        self.detector, self.tolerance_s = detector, check_tolerance(tolerance_s)
        self.tuning = Tuning(detector, recording, reference)
        self._fitted = detector.thresholds.copy(), dict(detector.refractory_s)
        self._moving = False
        longest = max([*detector.refractory_s.values(), 0.05])
        self.types = Stepper(detector.names, "type")
        options = [(f"{1 / (1 + np.exp(-x)):.3g}" if x < 3.9 else f"{1 / (1 + np.exp(-x)):.5f}", x) for x in SLIDER_LOG_ODDS]
        self.threshold = w.SelectionSlider(options=options, description="threshold (probability)", style=LABEL, layout=WIDE)
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

    # ---- what buttons and sliders do ----------------------------------------------------------------------------------

    def set(self, threshold=None, refractory_s=None, tolerance_s=None):
        """Set the threshold (a probability) and refractory period of the type in view, and the tolerance of all."""
        if threshold is not None:
            self.thresholds[self.type] = log_odds_of(threshold, "threshold")
        if refractory_s is not None:
            refractory_samples(refractory_s, (self.name,), self.detector.sampling_rate_hz)
            if np.ndim(refractory_s):
                raise OptionError(f"refractory_s is the period of {self.name} in seconds, got {refractory_s!r}")
            self.refractory_s[self.name] = float(refractory_s)
        if tolerance_s is not None:
            self.tolerance_s = check_tolerance(tolerance_s)
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
        """Back to what the detector had when the widget was made; the detector too, if it was changed."""
        self.thresholds, self.refractory_s = self._fitted[0].copy(), dict(self._fitted[1])
        self.detector.thresholds, self.detector.refractory_s = self._fitted[0].copy(), dict(self._fitted[1])
        self.detector.card.pop("chosen_by_hand", None)
        return self._update()

    def apply(self):
        """Write thresholds and refractory periods into the detector, in place, and say so in its card; returns it."""
        self.detector.thresholds, self.detector.refractory_s = self.thresholds.copy(), dict(self.refractory_s)
        report = self.comparison
        self.detector.card["chosen_by_hand"] = {"development_f1": float(report.f1), "tolerance_s": float(self.tolerance_s)}
        self.say(f"The detector now has these thresholds and refractory periods: F1 {report.f1:.3f} on the development data.")
        return self.detector

    # ---- state --------------------------------------------------------------------------------------------------------

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
            ["all types", report.tp, report.fn, report.fp, report.precision, report.recall, report.f1, report.fp / hours],
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
            self.say(f"{broken} reference events of {self.name} come sooner than its refractory period allows", warning=True)
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
