"""The event browser: the signal, what was labelled, what was detected, and a way from each doubtful event to the next.

The candidates of a detector are searched in tiles of a few seconds when they are first looked at. A tile reads enough
of its neighbours that its candidates are those of a search through the whole recording.
"""

from functools import lru_cache
from html import escape

import ipywidgets as w
import numpy as np
import traitlets
from scipy.special import expit

from ..detection.detector import Detector, detect
from ..scoring.comparison import OUTCOMES, event_table, rows_of_kind
from ..signals.errors import OptionError, UnitError, require_instance, require_known
from ..signals.events import Events
from ..signals.recording import Recording
from ..signals.text import one_line
from ..templates.pursue import Candidates
from .keys import BROWSER_KEYS, key_help
from .plots import OUTCOME_COLOURS, OUTCOME_SHAPES
from .signal_view import ROWS, SignalView, prefix_length
from .widget import LABEL, WRAP, Widget, html_facts, named

# Length of a tile in seconds, and how many are kept.
TILE_S, MAX_TILES = 10.0, 64
# Seconds of candidates on either side that a context network reads: as far as rhythm reaches.
CONTEXT_S = 10.0
# Where there are more marks than this, one of each outcome is shown in each of this many parts of the view.
MANY_MARKS, THIN_BINS = 300, 400
# Scores of candidates are shown in views of at most this many seconds.
MAX_SCORES_S = 20.0
HIGHPASS_HZ = (0.5, 1, 2, 5, 10, 20, 50, 100)
STEM_COLOUR = "#7a68b5"
COLOURS, SHAPES = OUTCOME_COLOURS | {"not_judged": "#6b6b6b"}, OUTCOME_SHAPES | {"not_judged": "s"}
# The shapes as characters.
SIGNS = {"hit": "●", "miss": "▼", "false_alarm": "✕", "not_judged": "■"}
BUTTON_STYLES = {"hit": "success", "miss": "danger", "false_alarm": "warning", "not_judged": "info"}


class CandidateTrace:
    """Candidates of ``detector`` in any part of ``recording``; the latest parts are kept.

    The context network of a detector reads ten seconds on either side of the part: its log odds may differ a little
    from those of a search through the whole recording, the candidates do not.

    Raises
    ------
    UnitError, ShapeError : a recording that the detector cannot read
    """

    def __init__(self, detector: Detector, recording: Recording):
        recording = detector.accept(recording)
        self.detector, self.recording = detector, recording
        # Tiles begin where a network that reads the signal would begin anew.
        unit = detector.grid_samples
        self._samples = -(-int(TILE_S * recording.sampling_rate_hz) // unit) * unit
        self._tile = lru_cache(MAX_TILES)(self._search)

    def between(self, start_s: float, stop_s: float):
        """Candidates from ``start_s`` to ``stop_s``: times in seconds, types, log odds minus thresholds, each (n,)."""
        rate, detector = self.recording.sampling_rate_hz, self.detector
        context_s = 0.0 if detector.network is None else CONTEXT_S
        first = int(max(start_s - context_s, 0.0) * rate) // self._samples
        last = int(min(stop_s + context_s, self.recording.duration_s) * rate - 1) // self._samples
        found = Candidates.concatenate([self._tile(k) for k in range(first, max(first, last) + 1)])
        rise = detector.log_odds(found) - np.asarray(detector.thresholds)[found.type]
        time_s = found.time / rate
        inside = (time_s >= start_s) & (time_s <= stop_s)
        return time_s[inside], found.type[inside], rise[inside]

    def _search(self, k):
        """Candidates of one tile."""
        start, stop = k * self._samples, min((k + 1) * self._samples, self.recording.n_samples)
        return self.detector.candidates(self.recording, start, stop)


class EventBrowser(Widget):
    """Signal, reference and estimated events coloured by outcome, and jumps to the events that need a look.

    Parameters
    ----------
    recording : Recording, in memory or on disk
    reference, estimated : Events; with one table alone there are no outcomes
    detector : Detector; its candidates are drawn as stems (log odds minus threshold), it detects where ``estimated`` is
        missing, and its thresholds and refractory periods define what is uncertain and what is too close
    tolerance_s : seconds between a reference event and its estimate, at most
    refractory_s : the rule that events may break: seconds, or a dict name -> seconds; default: the detector's
    highpass_hz : show the signal without slower parts (the detector sees all of it)
    view_s : seconds to show at first
    progress : show bars while the recording is read, and searched

    Attributes
    ----------
    table : pandas table of all events, as `evlib.scoring.comparison.event_table` gives it
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
        recording: Recording,
        reference: Events | None = None,
        estimated: Events | None = None,
        detector: Detector | None = None,
        tolerance_s: float = 0.005,
        refractory_s=None,
        highpass_hz: float | None = None,
        view_s: float = 10.0,
        progress: bool = False,
    ):
        super().__init__()
        require_instance(Recording, recording=recording)
        self._trace = None if detector is None else CandidateTrace(detector, recording)
        if detector is not None and estimated is None:
            estimated = detect(detector, recording, progress=progress)
        given = {"reference": reference, "estimated": estimated}
        tables = {name: events for name, events in given.items() if events is not None}
        if not tables:
            raise OptionError("there is nothing to browse: pass reference, estimated, or a detector that finds events")
        require_instance(Events, "", **tables)
        for name, events in tables.items():
            if len(events) and not 0 <= events.onset_s.max() <= recording.duration_s:
                raise UnitError(
                    f"{name} has an event at {events.onset_s.max():g} s, the recording lasts "
                    f"{recording.duration_s:g} s (another recording, or samples for seconds?)"
                )
        self.recording, self.tolerance_s = recording, tolerance_s
        self.names = tuple(dict.fromkeys(name for events in tables.values() for name in events.names))
        self._rule, threshold = _rules(detector, self.names, refractory_s)
        self.table = event_table(reference, estimated, tolerance_s, self._rule, threshold)
        self._time_s, self._score = (self.table[name].to_numpy() for name in ("time_s", "score"))
        self._outcome, self._type = (self.table[name].to_numpy().astype(str) for name in ("outcome", "type"))
        self._times = self.table[["reference_s", "estimated_s"]].to_numpy()
        self._prefix = prefix_length(self.names)
        self._shown = np.ones(len(self.table), dtype=bool)
        self._doubt = -1  # how far the walk over the least certain events has come
        rows = [row for row in ROWS if row["name"] in tables]
        self.signal = SignalView(recording, highpass_hz, view_s, progress, layout=w.Layout(width="100%"), rows=rows)
        if self._trace is not None:
            self.signal.height += 74
        self.children = self._controls()
        first = self._time_s[0] if len(self.table) else 0.0
        start = float(np.clip(first - 0.1 * view_s, 0, max(recording.duration_s - view_s, 0)))
        self.signal.show(start, start + view_s)
        self.signal.observe(lambda _: self._draw_marks(), "view")
        self.signal.observe(self._mark_chosen, "selected")
        self.signal.observe(self._key_pressed, "pressed")
        self._filter_changed()

    # ---- What buttons and keys do

    def next(self, kind: str = "event"):
        """Go to the next event of a kind; returns its row of ``table``, or None where there is no further one.

        ``kind`` is "event", "error" (miss or false alarm), "least_certain" (score closest to the threshold first),
        "refractory" (too close to the one before) or "disagreement" (right time, other type). Only events that the
        filters show count. The search begins at the current event, or at the edge of the view when that is elsewhere.
        """
        return self._step(kind, 1)

    def previous(self, kind: str = "event"):
        """As `next`, backwards."""
        return self._step(kind, -1)

    def go_to(self, row: int):
        """Move one row of ``table`` into the middle of the view; returns the row."""
        if not 0 <= row < len(self.table):
            raise OptionError(f"row must be one of the {len(self.table)} rows of the table, got {row}")
        self.current = int(row)
        with self.signal.hold_sync():
            self.signal.center(self._time_s[row])
            self._describe()
            # Each row has two ids: an even one for the reference, an odd one for the estimate.
            self.signal.selected = 2 * int(row) + int(np.isnan(self._times[row, 0]))
            self._draw_marks()
        return self.table.iloc[row]

    def filter(self, types=None, outcomes=None, score=(0.0, 1.0)) -> None:
        """Show only events of these types and outcomes, with a score in this range (those without a score stay).

        ``None`` stands for all. Marks, jumps and counts follow.
        """
        types = self.names if types is None else _chosen("types", types, self.names)
        outcomes = OUTCOMES if outcomes is None else _chosen("outcomes", outcomes, OUTCOMES)
        low, high = score
        if not 0 <= low <= high <= 1:
            raise OptionError(f"score must be a range of probabilities (low, high) within 0 and 1, got {score!r}")
        self._types.value = tuple(types) if len(types) < len(self.names) else ()
        self._range.value = (low, high)
        for outcome, button in self._outcomes.items():
            button.value = outcome in outcomes

    @property
    def shown(self):
        """The rows of ``table`` that pass the filters."""
        return self.table[self._shown]

    def count(self, kind: str) -> int:
        """How many of the events shown are of a kind."""
        return len(rows_of_kind(self.table, kind, self._shown))

    def figure(self):
        """The signal in view with its events, as a matplotlib Figure."""
        return self.signal.figure()

    def _step(self, kind, direction):
        rows = rows_of_kind(self.table, kind, self._shown)
        words, by_doubt = kind.replace("_", " "), kind == "least_certain"
        if by_doubt:
            at = self._doubt + direction
        else:
            here = self._position(direction)
            at = int(np.searchsorted(rows, here, "right") if direction > 0 else np.searchsorted(rows, here) - 1)
        if not 0 <= at < len(rows):
            side = "other" if by_doubt else "later" if direction > 0 else "earlier"
            no_rule = kind == "refractory" and self._rule is None
            why = f"; there are {len(rows)}" if len(rows) else " (and no rule was given)" if no_rule else " at all"
            self.signal.message = f"no {side} {words}{why}"
            return None
        found = self.go_to(rows[at])
        self._doubt = at if by_doubt else -1
        self.signal.message = f"{words} {at + 1} of {len(rows)}: {self.signal.message}"
        return found

    def _position(self, direction):
        """Row to search from: the current one while it is in view, else between two rows, at the edge of the view."""
        start, stop = self.signal.view
        if self.current >= 0 and start <= self._time_s[self.current] <= stop:
            return self.current
        return float(np.searchsorted(self._time_s, start if direction > 0 else stop)) - 0.5

    def _mark_chosen(self, change):
        row = change["new"] // 2
        if change["new"] >= 0 and row != self.current and row < len(self.table):
            self.current, self._doubt = row, -1
            self._describe()

    def _key_pressed(self, change):
        key = change["new"].get("key", "")
        if key.lower() in BROWSER_KEYS:
            self._step(BROWSER_KEYS[key.lower()], 1 if key.islower() else -1)

    # ---- What is drawn

    def _draw_marks(self):
        """Marks and scores of the view."""
        start, stop = self.signal.view
        first, last = np.searchsorted(self._time_s, [start - self.tolerance_s, stop + self.tolerance_s])
        rows = np.arange(first, last)[self._shown[first:last]]
        if len(rows) > MANY_MARKS:
            rows = self._thinned(rows, start, stop)
        marks = []
        for row in rows:
            type, outcome, score = self._type[row], self._outcome[row], self._score[row]
            common = {"label": one_line(type), "short": one_line(type[self._prefix :])}
            common |= {"colour": COLOURS[outcome], "shape": SHAPES[outcome]}
            common |= {"score": None if np.isnan(score) else round(float(score), 6), "note": outcome.replace("_", " ")}
            common["weight"] = 2 if outcome in ("miss", "false_alarm") else 1
            for k, kind in enumerate(("reference", "estimated")):
                if not np.isnan(time_s := self._times[row, k]):
                    marks.append({"id": 2 * int(row) + k, "time_s": float(time_s), "kind": kind, **common})
        with self.signal.hold_sync():
            self.signal.marks = marks
            self.signal.scores, self.signal.score_label = self._stems(start, stop)

    def _thinned(self, rows, start, stop):
        """One row of each outcome in each part of the view, and the current one."""
        part = ((self._time_s[rows] - start) / (stop - start) * THIN_BINS).astype(int)
        outcome = np.unique(self._outcome[rows], return_inverse=True)[1]
        _, first = np.unique(part * len(OUTCOMES) + outcome, return_index=True)
        return np.union1d(rows[first], rows[rows == self.current])

    def _stems(self, start, stop):
        """Scores of the candidates in view, and their label."""
        if self._trace is None:
            return [], ""
        if stop - start > MAX_SCORES_S:
            return [], "zoom in\nfor scores"
        names, chosen = self._trace.detector.names, set(self._types.value or self.names)
        stems = [
            {"time_s": float(t), "value": float(v), "colour": STEM_COLOUR, "label": one_line(names[k])}
            for t, k, v in zip(*self._trace.between(start, stop), strict=True)
            if names[k] in chosen
        ]
        return stems, "log odds\nover\nthreshold"

    def _describe(self):
        """The current event in words, above the signal and below it."""
        row = self.table.iloc[self.current]
        outcome = row["outcome"].replace("_", " ")
        self.signal.message = f"{one_line(row['type'])}, {outcome}, {row['time_s']:.4f} s"
        facts = {"event": f"{self.current + 1} of {len(self.table)}", "type": row["type"]}
        facts["outcome"] = f"{SIGNS[row['outcome']]} {outcome}"
        numbers = {
            "reference": ("reference_s", "{:.5f} s"),
            "estimated": ("estimated_s", "{:.5f} s"),
            "error": ("dt_ms", "{:+.3f} ms"),
            "score": ("score", "{:.4f}"),
            "too close, gap": ("gap_s", "{:.4f} s"),
        }
        for name, (column, form) in numbers.items():
            if not np.isnan(row[column]):
                facts[name] = form.format(row[column])
        if row["other"]:
            facts["other table says"] = row["other"]
        self._line.value = html_facts(facts)

    # ---- Buttons and filters

    def _controls(self):
        """Everything above and below the signal."""
        self._line = w.HTML('<div class="evlib-hint">no event chosen yet: press a button, or click on a mark</div>')
        self._next, pairs = {}, []
        for key, kind in BROWSER_KEYS.items():
            words = kind.replace("_", " ")
            narrow = {"tooltip": f"previous {words} ({key.upper()})", "layout": w.Layout(width="32px")}
            back = self.button("‹", lambda kind=kind: self.previous(kind), **narrow)
            self._next[kind] = self.button("", lambda kind=kind: self.next(kind), tooltip=f"next {words} ({key})")
            pairs.append(w.HBox([back, self._next[kind]], layout=w.Layout(margin="0 6px 0 0")))
        about = {"rows": 4, "style": LABEL, "layout": w.Layout(width="260px")}
        self._types = w.SelectMultiple(options=named(self.names), description="types (none: all)", **about)
        look = {"value": True, "tooltip": "show or hide", "layout": w.Layout(width="auto")}
        present = [outcome for outcome in OUTCOMES if (self._outcome == outcome).any()]
        self._outcomes = {name: w.ToggleButton(button_style=BUTTON_STYLES[name], **look) for name in present}
        steps = {"min": 0, "max": 1, "step": 0.01, "readout_format": ".2f"}
        self._range = w.FloatRangeSlider(value=(0, 1), description="score", style=LABEL, **steps)
        now = self.signal.overview.highpass_hz
        options = sorted(f for f in {*HIGHPASS_HZ, now or 1} if f < self.recording.sampling_rate_hz / 2)
        options = [("as recorded", 0), *((f"over {f:g} Hz", f) for f in options)]
        look = {"style": LABEL, "layout": w.Layout(width="200px")}
        self._highpass = w.Dropdown(options=options, value=now or 0, description="signal", **look)
        for button in self._outcomes.values():
            button.add_class("evlib-outcome")
        for control in (self._types, self._range, *self._outcomes.values()):
            control.observe(self._filter_changed, "value")
        self._highpass.observe(lambda change: self.attempt(self.signal.set_highpass, change["new"] or None), "value")
        right = [w.HBox(list(self._outcomes.values()), layout=WRAP), w.HBox([self._range, self._highpass], layout=WRAP)]
        filters = w.HBox([self._types, w.VBox(right)], layout=WRAP)
        jumps, help = w.HBox(pairs, layout=WRAP), w.HTML(key_help("browser"))
        return [w.HTML(self._summary()), jumps, filters, self.signal, self.message, self._line, help]

    def _filter_changed(self, _=None):
        low, high = self._range.value
        self._shown = np.isin(self._outcome, [name for name, button in self._outcomes.items() if button.value])
        self._shown &= np.isnan(self._score) | ((self._score >= low) & (self._score <= high))
        self._shown &= np.isin(self._type, list(self._types.value or self.names))
        self._doubt = -1
        counts = {outcome: int((self._shown & (self._outcome == outcome)).sum()) for outcome in self._outcomes}
        captions = {outcome: f"{outcome.replace('_', ' ')} {n}" for outcome, n in counts.items()}
        for outcome, button in self._outcomes.items():
            button.description = f"{SIGNS[outcome]} {captions[outcome]}"
        for kind, button in self._next.items():
            count = self.count(kind)
            button.description, button.disabled = f"next {kind.replace('_', ' ')}", count == 0
            if kind not in ("event", "least_certain"):
                button.description += f" ({count})"
        # The strip shows errors; all events where nothing is judged.
        error = rows_of_kind(self.table, "error", self._shown)
        rows = error if len(error) else np.flatnonzero(self._shown)
        rows = self._thinned(rows, 0.0, self.recording.duration_s)
        with self.signal.hold_sync():
            self.signal.legend = [(captions[name], COLOURS[name], SHAPES[name]) for name in counts]
            outcomes = ((row, self._outcome[row]) for row in rows)
            self.signal.landmarks = [(float(self._time_s[row]), COLOURS[what], SHAPES[what]) for row, what in outcomes]
            self._draw_marks()

    def _summary(self):
        recording = self.recording
        hits, misses, alarms = ((self._outcome == name).sum() for name in ("hit", "miss", "false_alarm"))
        minutes, seconds = divmod(recording.duration_s, 60)
        words = f"<div><b>{escape(one_line(recording.name)) or 'recording'}</b>: {minutes:.0f} min {seconds:.0f} s, "
        words += f"{recording.n_channels} channels at {recording.sampling_rate_hz:g} Hz, {len(self.table)} events"
        if hits + misses + alarms:
            f1 = 2 * hits / (2 * hits + misses + alarms)
            found = f"{hits} of {hits + misses} found, {alarms} false alarms"
            words += f"; at ±{1e3 * self.tolerance_s:g} ms: {found}, F1 {f1:.3f}"
        return words + "</div>"


def _rules(detector, names, refractory_s):
    """Refractory periods and thresholds (probabilities); a type that the detector does not know has no rule."""
    if detector is None:
        return refractory_s, 0.5
    probability = expit(np.clip(np.asarray(detector.thresholds, dtype=float), -30, 30))
    threshold = {name: p for name, p in zip(detector.names, probability, strict=True) if name in names}
    if refractory_s is None:
        refractory_s = {name: detector.refractory_s.get(name) for name in names}
    return refractory_s, {name: threshold.get(name, 0.5) for name in names}


def _chosen(what, values, known):
    """A list of known names; one name may stand alone."""
    values = [values] if isinstance(values, str) else list(values)
    if not values:
        raise OptionError(f"{what} is empty, nothing would be shown; None stands for all")
    require_known(values, known, what=what[:-1])
    return values
