"""What a detector sees in the part of a recording that is being looked at: candidates and by how much they pass.

The recording is searched in tiles of a few seconds when they are first looked at. A tile sees enough of its neighbours
that its candidates are those of a search through the whole recording.
"""

from functools import cache
from html import escape
from os.path import commonprefix

import ipywidgets as w
import numpy as np
import traitlets

from ..detection.detector import detect
from ..scoring.comparison import OUTCOMES, event_table, rows_of_kind
from ..signals.errors import OptionError, UnitError
from ..templates.pursue import Candidates
from .plots import OUTCOME_COLOURS, plot_view
from .signal_view import SignalView
from .widget import StaticTwin

TILE_S = 10.0
MAX_TILES = 64
# Seconds of candidates on either side that a context network reads: as far as rhythm reaches.
CONTEXT_S = 10.0


class CandidateTrace:
    """Candidates of ``detector`` in any part of ``recording``, kept for as long as the part is near.

    The context network of a detector reads ten seconds on either side of the part: its log odds may differ a little
    from those of a search through the whole recording, the candidates do not.

    Raises
    ------
    UnitError, ShapeError : a recording that the detector cannot read
    """

    def __init__(self, detector, recording):
        detector.check(recording)
        self.detector, self.recording = detector, recording
        # Tiles begin where a network that reads the signal would begin anew.
        unit = detector.grid_samples
        self._samples = -(-int(TILE_S * recording.sampling_rate_hz) // unit) * unit
        self._tiles, self._last = {}, (None, None, None)

    def between(self, start_s, stop_s):
        """Candidates from ``start_s`` to ``stop_s``: times (n,) in seconds, types (n,), log odds over their thresholds
        (n,)."""
        rate, detector = self.recording.sampling_rate_hz, self.detector
        context_s = 0.0 if detector.network is None else CONTEXT_S
        first = int(max(start_s - context_s, 0.0) * rate) // self._samples
        last = int(min(stop_s + context_s, self.recording.duration_s) * rate - 1) // self._samples
        if self._last[0] != (first, last):
            found = Candidates.concatenate([self._tile(k) for k in range(first, max(first, last) + 1)])
            self._last = (first, last), found, detector.log_odds(found)
        _, found, log_odds = self._last
        rise = log_odds - np.asarray(detector.thresholds)[found.type]
        time_s = found.time / rate
        inside = (time_s >= start_s) & (time_s <= stop_s)
        return time_s[inside], found.type[inside], rise[inside]

    def _tile(self, k):
        if k not in self._tiles:
            while len(self._tiles) >= MAX_TILES:
                self._tiles.pop(next(iter(self._tiles)))
            stop = min((k + 1) * self._samples, self.recording.n_samples)
            self._tiles[k] = self.detector.candidates(self.recording, k * self._samples, stop)
        return self._tiles[k]


# --- Browse a recording: the signal, what was labelled, what was detected, and a way from each doubtful event to th


KEYS = {"n": "event", "e": "error", "u": "least_certain", "r": "refractory", "d": "disagreement"}
HELP = (
    "keys in the signal: n next event, e next error, u next least certain, r next refractory violation, d next "
    "disagreement "
    "(with shift: the one before); arrows move and scale, + and − zoom, home and end"
)
# More marks than these are thinned out to one of each outcome in each of so many parts of the view.
MANY_MARKS, THIN_BINS = 300, 400
MAX_SCORES_S = 20.0
HIGHPASS_HZ = (0.5, 1, 2, 5, 10, 20, 50, 100)
STEM_COLOUR = "#5b4a8a"


class EventBrowser(StaticTwin):
    """Signal, reference and estimated events coloured by outcome, and jumps to what is worth a look.

    Parameters
    ----------
    recording : Recording, in memory or on disk
    reference, estimated : Events; with one table alone there are no outcomes
    detector : Detector; its candidates are drawn as stems (log odds over the threshold), it detects where ``estimated``
        is missing, and its thresholds and refractory periods say what is uncertain and what is too close
    tolerance_s : seconds within which an estimate answers a reference event, inclusive
    refractory_s : the rule that events may break: seconds, or a dict name -> seconds; default the detector's
    highpass_hz : show the signal without what is slower (the detector sees all of it)
    view_s : seconds to show at first
    progress : show bars while the recording is read, and searched

    Attributes
    ----------
    table : pandas table of all events, as `evlib.scoring.comparison.Comparison.table` gives it
    current : row of the table that is looked at, or -1
    signal : the `SignalView`; ``signal.show(t0_s, t1_s)`` goes anywhere

    Raises
    ------
    OptionError : nothing to browse, an unknown type or outcome, no event name in common
    UnitError : events beyond the end of the recording, a recording that the detector cannot read
    """

    current = traitlets.Int(-1)

    def __init__(
        self,
        recording,
        reference=None,
        estimated=None,
        detector=None,
        tolerance_s=0.005,
        refractory_s=None,
        highpass_hz=None,
        view_s=10.0,
        progress=False,
    ):
        self._trace = None if detector is None else CandidateTrace(detector, recording)
        if detector is not None and estimated is None:
            estimated = detect(detector, recording, progress=progress)
        if reference is None and estimated is None:
            raise OptionError("there is nothing to browse: pass reference, estimated, or a detector that finds events")
        _check_times(recording, reference=reference, estimated=estimated)
        self.recording, self.tolerance_s = recording, tolerance_s
        self.names = tuple(dict.fromkeys([*getattr(reference, "names", ()), *getattr(estimated, "names", ())]))
        rule, threshold = _rules(detector, self.names, refractory_s)
        self.table = event_table(reference, estimated, tolerance_s, rule, threshold)
        self._rule = rule
        self._columns = {name: self.table[name].to_numpy() for name in ("time_s", "outcome", "type", "score")}
        self._outcome = np.array([OUTCOMES.index(outcome) for outcome in self._columns["outcome"]], dtype=np.int64)
        self._prefix = len(commonprefix(self.names).rstrip("0123456789")) if len(self.names) > 1 else 0
        self._detector_names = () if detector is None else detector.names
        self._shown = np.ones(len(self.table), dtype=bool)
        self._doubt = -1  # how far the walk over the least certain events has come
        self.signal = SignalView(recording, highpass_hz, view_s, progress, layout=w.Layout(width="100%"))
        self.signal.rows = _mark_rows(reference, estimated)
        if self._trace is not None:
            self.signal.height += 74
        self._build_controls()
        super().__init__([self._title, self._navigation, self._filters, self.signal, self._line, self._help])
        first = self._columns["time_s"][0] if len(self.table) else 0.0
        start = float(np.clip(first - 0.1 * view_s, 0, max(recording.duration_s - view_s, 0)))
        self.signal.show(start, start + view_s)
        self.signal.observe(self._view_changed, "view")
        self.signal.observe(self._mark_chosen, "selected")
        self.signal.observe(self._key_pressed, "pressed")
        self._filter_changed()

    # ---- what is looked at ------------------------------------------------------------------------------------------

    def next(self, kind="event"):
        """Go to the next event of a kind; returns its row of ``table``, or None where there is no further one.

        ``kind`` is "event", "error" (miss or false alarm), "least_certain" (score closest to the threshold first),
        "refractory" (too close to the one before) or "disagreement" (right time, other type). Only events that the
        filters show count. The search begins at the current event, or at the edge of the view when that is elsewhere.
        """
        return self._step(kind, 1)

    def previous(self, kind="event"):
        """As `next`, backwards."""
        return self._step(kind, -1)

    def go_to(self, row):
        """Look at one row of ``table``: it comes into the middle of the view."""
        if not 0 <= row < len(self.table):
            raise OptionError(f"row must be one of the {len(self.table)} rows of the table, got {row}")
        self.current = int(row)
        with self.signal.hold_sync():
            self.signal.center(self._columns["time_s"][row])
            self._describe()
            self.signal.selected = self._mark_id(row)
            self._mark_view()
        return self.table.iloc[row]

    def filter(self, types=None, outcomes=None, score=(0.0, 1.0)):
        """Show only events of these types and outcomes, with a score in this range (those without a score stay).

        ``None`` stands for all. Marks, jumps and counts follow.
        """
        types = self.names if types is None else _chosen("types", types, self.names)
        outcomes = OUTCOMES if outcomes is None else _chosen("outcomes", outcomes, OUTCOMES)
        low, high = score
        if not 0 <= low <= high <= 1:
            raise OptionError(f"score must be a range of probabilities (low, high) within 0 and 1, got {score!r}")
        self._quiet = True
        self._types.value = tuple(types) if len(types) < len(self.names) else ()
        self._score.value = (low, high)
        for outcome, button in self._outcomes.items():
            button.value = outcome in outcomes
        self._quiet = False
        self._filter_changed()

    @property
    def shown(self):
        """The rows of ``table`` that pass the filters."""
        return self.table[self._shown]

    def count(self, kind):
        """How many of the events shown are of a kind."""
        return len(rows_of_kind(self.table, kind, self._shown))

    def figure(self):
        """The present view as a matplotlib Figure."""
        signal = self.signal
        half = np.array(signal.half) / signal.gain
        parts = {name: getattr(signal, name) for name in ("marks", "rows", "scores", "legend", "selected")}
        return plot_view(signal.window(), signal.channels, signal.units, half, title=signal.message, **parts)

    # ---- moving -----------------------------------------------------------------------------------------------------

    def _step(self, kind, direction):
        rows = rows_of_kind(self.table, kind, self._shown)
        words = kind.replace("_", " ")
        if kind == "least_certain":
            at = self._doubt + direction
        else:
            here = self._position(direction)
            at = int(np.searchsorted(rows, here, "right") if direction > 0 else np.searchsorted(rows, here) - 1)
        if not 0 <= at < len(rows):
            side = ("later" if direction > 0 else "earlier") if kind != "least_certain" else "other"
            none = (
                ""
                if len(rows)
                else " (and no rule was given)"
                if kind == "refractory" and self._rule is None
                else " at all"
            )
            self.signal.message = f"no {side} {words}{none or f'; there are {len(rows)}'}"
            return None
        found = self.go_to(rows[at])
        self._doubt = at if kind == "least_certain" else -1
        self.signal.message = f"{words} {at + 1} of {len(rows)}: {self.signal.message}"
        return found

    def _position(self, direction):
        """Row to search from: the current one while it is in view, else between two rows, where the view begins (or
        ends)."""
        start, stop = self.signal.view
        if self.current >= 0 and start <= self._columns["time_s"][self.current] <= stop:
            return self.current
        return float(np.searchsorted(self._columns["time_s"], start if direction > 0 else stop)) - 0.5

    def _view_changed(self, _):
        with self.signal.hold_sync():
            self._mark_view()

    def _mark_chosen(self, change):
        row = change["new"] // 2
        if change["new"] >= 0 and row != self.current and row < len(self.table):
            self.current, self._doubt = row, -1
            self._describe()

    def _key_pressed(self, change):
        key = change["new"].get("key", "")
        if key.lower() in KEYS:
            self._step(KEYS[key.lower()], 1 if key.islower() else -1)

    # ---- what is drawn ----------------------------------------------------------------------------------------------

    def _mark_id(self, row):
        """Each row has two ids: an even one in the row of the reference, an odd one in that of the estimates."""
        return 2 * int(row) + int(np.isnan(self.table["reference_s"].to_numpy()[row]))

    def _mark_view(self):
        start, stop = self.signal.view
        time_s = self._columns["time_s"]
        reach = self.tolerance_s
        first, last = np.searchsorted(time_s, [start - reach, stop + reach])
        rows = np.arange(first, last)[self._shown[first:last]]
        if len(rows) > MANY_MARKS:
            rows = self._thinned(rows, start, stop)
        self.signal.marks = [mark for row in rows for mark in self._marks_of(row)]
        self.signal.scores, self.signal.score_label = self._stems(start, stop)

    def _thinned(self, rows, start, stop):
        """One row of each outcome in each part of the view, and the current one."""
        part = ((self._columns["time_s"][rows] - start) / (stop - start) * THIN_BINS).astype(int)
        _, first = np.unique(part * len(OUTCOMES) + self._outcome[rows], return_index=True)
        keep = np.zeros(len(rows), dtype=bool)
        keep[first] = True
        return rows[keep | (rows == self.current)]

    def _marks_of(self, row):
        event = {name: values[row] for name, values in self._columns.items()}
        score = None if np.isnan(event["score"]) else round(float(event["score"]), 6)
        common = {
            "label": event["type"],
            "short": event["type"][self._prefix :],
            "colour": _colours()[event["outcome"]],
            "score": score,
        }
        common["note"] = event["outcome"].replace("_", " ")
        common["weight"] = 2 if event["outcome"] in ("miss", "false_alarm") else 1
        for k, kind in enumerate(("reference", "estimated")):
            at = self._times[row, k]
            if at == at:
                yield {"id": 2 * int(row) + k, "time_s": float(at), "kind": kind, **common}

    def _stems(self, start, stop):
        if self._trace is None:
            return [], ""
        if stop - start > MAX_SCORES_S:
            return [], "zoom in\nfor scores"
        chosen = set(self._chosen_types())
        stems = [
            {"time_s": float(t), "value": float(v), "colour": STEM_COLOUR, "label": self._detector_names[k]}
            for t, k, v in zip(*self._trace.between(start, stop), strict=True)
            if self._detector_names[k] in chosen
        ]
        return stems, "log odds\nover\nthreshold"

    def _describe(self):
        """The current event in words, above the signal and below it."""
        row = self.table.iloc[self.current]
        outcome = row["outcome"].replace("_", " ")
        self.signal.message = f"{row['type']}, {outcome}, {row['time_s']:.4f} s"
        cells = {
            "event": f"{self.current + 1} of {len(self.table)}",
            "type": escape(row["type"]),
            "outcome": f'<b style="color:{_colours()[row["outcome"]]}">{outcome}</b>',
            "reference": _number(row["reference_s"], "{:.5f} s"),
            "estimated": _number(row["estimated_s"], "{:.5f} s"),
            "error": _number(row["dt_ms"], "{:+.3f} ms"),
            "score": _number(row["score"], "{:.4f}"),
            "other table says": escape(row["other"]) or "–",
            "too close, gap": _number(row["gap_s"], "{:.4f} s"),
        }
        style = 'style="padding:1px 14px 1px 2px;text-align:left;white-space:nowrap;color:{}"'
        head = "".join(f"<th {style.format('#666;font-weight:normal')}>{name}</th>" for name in cells)
        body = "".join(f"<td {style.format('inherit')}>{value}</td>" for value in cells.values())
        self._line.value = f'<table style="line-height:1.3"><tr>{head}</tr><tr>{body}</tr></table>'

    # ---- buttons and filters ----------------------------------------------------------------------------------------

    def _build_controls(self):
        self._times = self.table[["reference_s", "estimated_s"]].to_numpy()
        self._quiet = False
        self._title = w.HTML(self._summary())
        self._line = w.HTML('<span style="color:#666">no event chosen yet: press a button, or click on a mark</span>')
        self._help = w.HTML(f'<div style="color:#666;font-size:12px;line-height:1.4">{HELP}</div>')
        self._next, pairs = {}, []
        for key, kind in KEYS.items():
            words = kind.replace("_", " ")
            back = w.Button(description="‹", tooltip=f"previous {words} ({key.upper()})", layout=w.Layout(width="30px"))
            ahead = w.Button(tooltip=f"next {words} ({key})", layout=w.Layout(width="auto"))
            back.on_click(lambda _, kind=kind: self.previous(kind))
            ahead.on_click(lambda _, kind=kind: self.next(kind))
            self._next[kind] = ahead
            pairs.append(w.HBox([back, ahead], layout=w.Layout(margin="0 6px 0 0")))
        self._navigation = w.HBox(pairs, layout=w.Layout(flex_flow="row wrap"))
        self._types = w.SelectMultiple(
            options=self.names, rows=4, layout=w.Layout(width="150px"), tooltip="none chosen: all types"
        )
        present = [outcome for k, outcome in enumerate(OUTCOMES) if (self._outcome == k).any()]
        self._outcomes = {outcome: self._outcome_button(outcome) for outcome in present}
        self._score = w.FloatRangeSlider(
            value=(0, 1), min=0, max=1, step=0.01, readout_format=".2f", description="score"
        )
        options = sorted(
            {*HIGHPASS_HZ, *([self.signal.overview.highpass_hz] if self.signal.overview.highpass_hz else [])}
        )
        options = [(f"over {f:g} Hz", f) for f in options if f < self.recording.sampling_rate_hz / 2]
        self._highpass = w.Dropdown(
            options=[("as recorded", None), *options], value=self.signal.overview.highpass_hz, description="signal"
        )
        for control in (self._types, self._score, *self._outcomes.values()):
            control.observe(self._filter_changed, "value")
        self._highpass.observe(lambda change: self.signal.set_highpass(change["new"]), "value")
        rows = [w.HBox(list(self._outcomes.values())), w.HBox([self._score, self._highpass])]
        label = w.HTML(
            '<div style="color:#666;line-height:1.4">types<br>(none: all)</div>', layout=w.Layout(margin="0 6px 0 0")
        )
        self._filters = w.HBox([label, self._types, w.VBox(rows, layout=w.Layout(margin="0 0 0 14px"))])

    def _outcome_button(self, outcome):
        style = {"hit": "success", "miss": "danger", "false_alarm": "warning", "not_judged": "info"}[outcome]
        return w.ToggleButton(
            value=True, icon="check", tooltip="show or hide", button_style=style, layout=w.Layout(width="auto")
        )

    def _chosen_types(self):
        return self._types.value or self.names

    def _filter_changed(self, _=None):
        if self._quiet:
            return
        outcomes = [outcome for outcome, button in self._outcomes.items() if button.value]
        low, high = self._score.value
        score = self._columns["score"]
        self._shown = np.isin(self._outcome, [OUTCOMES.index(outcome) for outcome in outcomes])
        self._shown &= np.isnan(score) | ((score >= low) & (score <= high))
        if self._types.value:
            self._shown &= np.isin(self._columns["type"].astype(str), list(self._types.value))
        self._doubt = -1
        counts = {
            outcome: int((self._shown & (self._outcome == OUTCOMES.index(outcome))).sum()) for outcome in self._outcomes
        }
        for outcome, button in self._outcomes.items():
            button.icon = "check" if button.value else "times"
            button.description = f"{outcome.replace('_', ' ')} {counts[outcome]}"
        for kind, button in self._next.items():
            count = self.count(kind)
            button.description, button.disabled = f"next {kind.replace('_', ' ')}", count == 0
            if kind not in ("event", "least_certain"):
                button.description += f" ({count})"
        with self.signal.hold_sync():
            self.signal.legend = [(f"{name.replace('_', ' ')} {counts[name]}", _colours()[name]) for name in counts]
            self.signal.landmarks = self._landmarks()
            self._mark_view()

    def _landmarks(self):
        """Errors (or all events, where nothing is judged), for the strip of the whole recording."""
        error = rows_of_kind(self.table, "error", self._shown)
        rows = error if len(error) else np.flatnonzero(self._shown)
        rows = self._thinned(rows, 0.0, self.recording.duration_s) if len(rows) else rows
        return [(float(self._columns["time_s"][row]), _colours()[self._columns["outcome"][row]]) for row in rows]

    def _summary(self):
        recording = self.recording
        hits, misses, alarms = ((self._outcome == k).sum() for k in range(3))
        minutes, seconds = divmod(recording.duration_s, 60)
        words = f'<div style="line-height:1.4"><b>{escape(recording.name) or "recording"}</b>: {minutes:.0f} min {seconds:.0f} s, '
        words += f"{recording.n_channels} channels at {recording.sampling_rate_hz:g} Hz, {len(self.table)} events"
        if hits + misses + alarms:
            f1 = 2 * hits / (2 * hits + misses + alarms)
            found = f"{hits} of {hits + misses} found, {alarms} false alarms"
            words += f"; at ±{1e3 * self.tolerance_s:g} ms: {found}, F1 {f1:.3f}"
        return words + "</div>"


@cache
def _colours():
    """Outcome -> colour that both a browser and matplotlib read."""
    from matplotlib.colors import to_hex

    return {outcome: to_hex(OUTCOME_COLOURS.get(outcome, "tab:blue")) for outcome in OUTCOMES}


def _rules(detector, names, refractory_s):
    """Refractory periods and thresholds as the review takes them; a type that the detector does not know has no
    rule."""
    if detector is None:
        return refractory_s, 0.5
    probability = 1 / (1 + np.exp(-np.clip(np.asarray(detector.thresholds, dtype=float), -30, 30)))
    threshold = {name: p for name, p in zip(detector.names, probability, strict=True) if name in names}
    if refractory_s is None:
        refractory_s = {"default": None, **{name: s for name, s in detector.refractory_s.items() if name in names}}
    return refractory_s, {"default": 0.5, **threshold}


def _mark_rows(reference, estimated):
    rows = [("reference", reference, ["reference"]), ("estimated", estimated, ["estimated", "proposal"])]
    return [{"name": name, "kinds": kinds} for name, events, kinds in rows if events is not None]


def _check_times(recording, **tables):
    for name, events in tables.items():
        if events is not None and len(events) and not 0 <= events.onset_s.max() <= recording.duration_s:
            raise UnitError(
                f"{name} has an event at {events.onset_s.max():g} s, the recording lasts {recording.duration_s:g} s "
                "(another recording, or samples for seconds?)"
            )


def _chosen(what, values, known):
    values = [values] if isinstance(values, str) else list(values)
    if not values:
        raise OptionError(f"{what} is empty, nothing would be shown; None stands for all")
    unknown = [value for value in values if value not in known]
    if unknown:
        raise OptionError(
            f"{what} has the unknown {', '.join(map(repr, unknown))}; known: {', '.join(known)} (a spelling slip?)"
        )
    return values


def _number(value, form):
    return "–" if np.isnan(value) else form.format(value)
