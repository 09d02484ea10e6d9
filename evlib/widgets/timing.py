"""Look at when detections come: too early or too late, by type and by channel, and how kinds follow each other."""

import ipywidgets as w
import numpy as np

from ..aligned import read_snippets
from ..delays import channel_times, time_to_next_kind
from ..errors import DataError, OptionError
from ..metrics import Comparison
from ..plots import plot_timing_errors, type_colours
from ..plots_inspection import plot_error_groups, plot_intervals, plot_time_to_next
from ..scores import median_per_type, timing_statistics
from .controls import Pictured, Stepper, blank_figure, html_table

ALL = "all types"
VIEWS = ("errors", "between kinds")
# Samples to either side of a detection in which a single channel may date it.
REACH = 8


class TimingView(Pictured):
    """Signed timing errors of the hits, with and without each type's bias; and times from each kind to the next other kind.

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
            raise OptionError(f"comparison must come from evlib.compare(reference, estimated), got {type(comparison).__name__}")
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
        found = {label: time_to_next_kind(table) for label, table in tables.items()}
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
        pieces = read_snippets(detector.whitener, recording, hits.time_samples, bank.before + REACH, bank.length + 2 * REACH)
        offset_s = channel_times(bank, pieces, kinds) / detector.sampling_rate_hz
        self.channels = detector.channels or tuple(f"ch{c + 1}" for c in range(offset_s.shape[1]))
        self.channel_error_s = np.empty_like(offset_s)
        self.channel_error_s[order] = offset_s
        self.channel_error_s += self.comparison.dt_s[:, None]
