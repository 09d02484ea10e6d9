"""The annotator: look at what was detected, correct it, fine-tune, and see what changed."""

from collections import Counter
from html import escape
from pathlib import Path

import ipywidgets as w
import numpy as np

from ..detection.detector import Detector
from ..scoring.refractory import find_violations
from ..signals.errors import OptionError, require_instance
from ..signals.events import Events
from ..signals.recording import Recording
from ..signals.text import one_line
from .annotate import SAME_EVENT_S, EventDiff, fine_tune, refine_onset, suggest
from .annotations import Annotation, AnnotationLog, Edit
from .keys import ACTIONS, key_help
from .signal_view import SignalView, prefix_length
from .widget import LABEL, NO_NAME, WRAP, Widget, html_table, named

# How an annotation is drawn: an event (accepted or added by hand), undecided, rejected; and what fine-tuning changed.
# Colours as of outcomes: visible on white and on black, and each with a shape (a marker of matplotlib).
ANNOTATION_COLOURS = {"event": "#009e73", "undecided": "#d55e00", "rejected": "#6b6b6b"}
CHANGE_COLOURS = {"gained": "#009e73", "lost": "#d55e00", "moved": "#9b4fb5"}
SHAPES = {"event": "o", "undecided": "D", "rejected": "X", "gained": "^", "lost": "v", "moved": "s"}
# The mark of each status and of each change; those of weight 2 stand out among many.
MARKS = {
    "accepted": {"kind": "reference", "colour": ANNOTATION_COLOURS["event"], "shape": "o", "weight": 1},
    "suggested": {"kind": "suggestion", "colour": ANNOTATION_COLOURS["undecided"], "shape": "D", "weight": 2},
    "rejected": {"kind": "suggestion", "colour": ANNOTATION_COLOURS["rejected"], "shape": "X", "weight": 1},
}
MARKS |= {
    change: {"kind": "estimated", "colour": colour, "shape": SHAPES[change], "weight": 2}
    for change, colour in CHANGE_COLOURS.items()
}
MARKS["added"] = MARKS["accepted"]
REVIEWED_COLOUR = "#009e7333"
# Ids of marks of fine-tuned detections begin here.
CHANGE_ID = 1 << 30
# Marks of undecided annotations in the strip.
MAX_LANDMARKS = 1500
# Option of the list of types, (label, value): the detector chooses.
BEST = ("(best match)", NO_NAME)
# The onset is searched around a click: this share of the view, within these bounds in seconds.
CLICK_SHARE, LEAST_REACH_S, MOST_REACH_S = 0.006, 0.004, 0.05
ROWS = [{"name": "events", "kinds": ["reference"]}, {"name": "suggestions", "kinds": ["suggestion"]}]
CHANGE_ROW = {"name": "fine-tuned", "kinds": ["estimated"]}
STYLES = {"accept": "success", "reject": "danger", "save_events": "primary", "fine_tune": "warning"}
HINT = '<div class="evlib-hint">click: add · drag: move · with shift: exactly there</div>'


class Annotator(Widget):
    """Annotate a recording: a click adds an event, dragging moves it, suggestions are accepted or rejected.

    Every edit is on disk at once; opening the same log again continues where you stopped.
    The first edit makes the file: looking leaves none.

    Parameters
    ----------
    recording : Recording
    detector : suggests events and refines onset times; fine-tuning replaces it
    suggestions : Events to decide about; default for a new log: those of the detector
    log : path of the log, see :class:`~evlib.inspection.annotations.AnnotationLog`
    names : names of events; default: those of the detector or of the suggestions
    refractory_s : the least time between events of one type; default: the detector's, or 2 s
    events_path : where the table of events is saved; default: the log's name with the ending .tsv
    highpass_hz, view_s, progress : as for :class:`~evlib.inspection.signal_view.SignalView`

    Attributes
    ----------
    annotations : the log; its methods edit it too
    changes : EventDiff, what fine-tuning changed; None before

    Raises
    ------
    OptionError : no names of events given or known, or names other than those of the log or of the detector
    UnitError, ShapeError : the log belongs to another recording, or the detector cannot read this one

    Examples
    --------
    >>> import tempfile
    >>> recording = Recording(np.zeros((20000, 1)), 2000)
    >>> annotator = Annotator(recording, names=["clap"], log=tempfile.mkdtemp() + "/log.jsonl")
    >>> annotator.add(1.5, "clap").time_s
    1.5
    >>> _ = annotator.undo()
    >>> len(annotator.annotations)
    0
    """

    def __init__(
        self,
        recording: Recording,
        detector: Detector | None = None,
        suggestions: Events | None = None,
        log: str | Path = "annotations.jsonl",
        *,
        names=None,
        refractory_s=None,
        events_path: str | Path | None = None,
        highpass_hz: float | None = None,
        view_s: float = 4.0,
        progress: bool = False,
    ):
        super().__init__()
        require_instance(Recording, recording=recording)
        if detector is not None:
            require_instance(Detector, detector=detector)
        self.recording, self.detector = recording, detector
        self.annotations = self._open(log, suggestions, names)
        if refractory_s is None:
            periods = {} if detector is None else detector.refractory_s
            least_s = min(periods.values(), default=2.0)
            refractory_s = {name: periods.get(name, least_s) for name in self.annotations.names}
        self.refractory_s = refractory_s
        self.events_path = Path(events_path) if events_path else self.annotations.path.with_suffix(".tsv")
        self._prefix = prefix_length(self.annotations.names)
        # What fine-tuning changed, as (time_s, type, "gained", "lost" or "moved"), and which of it is selected.
        self.changes: EventDiff | None = None
        self._changed: list = []
        self._change = -1
        # Start, stop and width of the part whose marks the front end has.
        self._sent = (0.0, -1.0, 0.0)
        self.signal = SignalView(recording, highpass_hz, view_s, progress, editable=True, rows=ROWS)
        self.signal.layout.margin = "4px 0"
        self.signal.legend = _legend(ANNOTATION_COLOURS)
        self.children = self._controls()
        for name, act in {"clicked": self._clicked, "dragged": self._dragged, "pressed": self._pressed}.items():
            self.signal.observe(lambda change, act=act: self.attempt(act, change["new"]), name)
        self.signal.observe(lambda _: self._draw_marks(), "view")
        self.signal.observe(lambda _: self._describe(), "selected")
        self._refresh()
        if self.annotations.suggestions():
            self.next()

    def _open(self, path, suggestions, names):
        """The log, with suggestions to decide about."""
        detector, is_new = self.detector, not Path(path).exists()
        if names is None and is_new:
            names = next((source.names for source in (detector, suggestions) if source is not None), None)
        if detector is not None:
            detector.accept(self.recording)
            missing = [name for name in detector.names if names is not None and name not in names]
            if missing:
                raise OptionError(f"names lacks {', '.join(missing)}, which the detector finds; got {', '.join(names)}")
        log = AnnotationLog(path, self.recording, names)
        if suggestions is None and detector is not None and is_new:
            suggestions = suggest(detector, self.recording)
        if suggestions is not None:
            log.suggest(suggestions, wait=True)
        return log

    def _controls(self):
        """Everything above and below the signal; each button calls the method of its name."""
        aided = self.detector is not None
        types = [BEST] * aided + named(self.annotations.names)
        self.kind = w.Dropdown(options=types, description="type", style=LABEL, layout=w.Layout(width="180px"))
        self.refining = w.Checkbox(aided, description="move to the onset", indent=False, layout=w.Layout(width="150px"))
        self.status, self.report = w.HTML(), w.HTML()
        self.buttons = {}
        for name, (caption, key, what) in ACTIONS.items():
            options = {"tooltip": f"{what} (key {key})" if key else what, "button_style": STYLES.get(name, "")}
            self.buttons[name] = self.button(caption, lambda name=name: getattr(self, name)(), **options)
        rows = {
            "suggestions": ["previous", "next", "accept", "reject", "accept_in_view"],
            "events": [self.kind, self.refining, "add_here", "move_here", "relabel", "delete", "undo", "redo"],
            "result": ["review", "save_events", "fine_tune", "next_change"],
        }
        boxes = []
        for title, parts in rows.items():
            children = [self.buttons[part] if isinstance(part, str) else part for part in parts]
            boxes.append(w.HBox([w.Label(title, layout=w.Layout(width="80px")), *children], layout=WRAP))
        hint = w.HTML(HINT + key_help("annotator"))
        return [self.status, *boxes, self.signal, self.message, self.report, hint]

    # ---- What buttons, keys and the mouse do

    def select(self, id: int) -> Annotation:
        """Select an annotation and show it; returns it."""
        row = self.annotations[id]
        self._show(row.time_s)
        self.signal.selected = id
        return row

    def next(self) -> Annotation | None:
        """Go to the next suggestion, the least certain first, and return it; None where all are decided."""
        return self._step(1)

    def previous(self) -> Annotation | None:
        """Go to the suggestion before."""
        return self._step(-1)

    def _step(self, step):
        ids = [row.id for row in self.annotations.suggestions()]
        if not ids:
            self.say("Every suggestion is decided.")
            return None
        here = ids.index(self.signal.selected) + step if self.signal.selected in ids else 0
        return self.select(ids[here % len(ids)])

    def accept(self) -> Edit:
        """The selected suggestion is an event; then go to the next one."""
        return self._decide(self.annotations.accept)

    def reject(self) -> Edit:
        """The selected suggestion is no event; then go to the next one."""
        return self._decide(self.annotations.reject)

    def _decide(self, how):
        id, order = self._selected().id, [row.id for row in self.annotations.suggestions()]
        edit = how(id)
        self._done(f"{edit.after.status.capitalize()} {one_line(edit.after.type)} at {edit.after.time_s:.4f} s.")
        if id in order and len(order) > 1:
            self.select(order[(order.index(id) + 1) % len(order)])
        return edit

    def accept_in_view(self) -> int:
        """Accept every suggestion in view; returns their number."""
        rows = self._undecided_in_view()
        for row in rows:
            self.annotations.accept(row.id)
        self._done(f"Accepted the {len(rows)} suggestions in view.")
        return len(rows)

    def add(self, time_s: float, type: str | None = None, exact: bool = False) -> Annotation:
        """An event at a time; returns its row.

        With ``type`` None the detector chooses the type. The time moves to the best onset in reach, unless ``exact`` or
        "move to the onset" is off. A suggestion or rejected annotation there is accepted instead.
        """
        score, exact = None, exact or not self.refining.value
        if type is None or not exact:
            best_s, type, score = self._refined(time_s, type)
            time_s = time_s if exact else best_s
        log, same = self.annotations, self._at(time_s, type)
        if any(row.is_event for row in same):
            raise OptionError(f"{type} at {same[0].time_s:.4f} s is there already (drag it to move it)")
        id = log.accept(same[0].id).row.id if same else log.add(time_s, type)
        doubt = " The detector sees no event here." if score is not None and score < 0 else ""
        self._done(f"{one_line(type)} at {log[id].time_s:.4f} s was {log[id].status}.{doubt}", id)
        return log[id]

    def move(self, id: int, time_s: float, exact: bool = False) -> Annotation:
        """Another time for an annotation, moved to the best onset in reach as by :meth:`add`; returns its row."""
        time_s = float(np.clip(time_s, 0, (self.recording.n_samples - 1) / self.recording.sampling_rate_hz))
        if not exact and self.refining.value:
            time_s = self._refined(time_s, self.annotations[id].type)[0]
        edit = self.annotations.move(id, time_s)
        by_ms = 1e3 * (edit.after.time_s - edit.before.time_s)
        self._done(f"Moved {one_line(edit.after.type)} by {by_ms:+.2f} ms to {edit.after.time_s:.4f} s.", id)
        return edit.after

    def add_here(self, exact: bool = False) -> Annotation:
        """An event of the type chosen in the list at the cursor of the signal, as by :meth:`add`; returns its row."""
        return self.add(self._cursor(), self._type(), exact)

    def move_here(self, exact: bool = False) -> Annotation:
        """Move the selected annotation to the cursor of the signal, as by :meth:`move`; returns its row."""
        return self.move(self._selected().id, self._cursor(), exact)

    def relabel(self, type: str | None = None) -> Annotation:
        """Give the selected annotation another type, by default the one chosen in the list; returns its row."""
        row, type = self._selected(), self._type() if type is None else type
        edit = self.annotations.relabel(row.id, self._refined(row.time_s)[1] if type is None else type)
        self._done(f"{one_line(row.type)} at {row.time_s:.4f} s is {one_line(edit.after.type)} now.")
        return edit.after

    def delete(self) -> None:
        """Remove the selected annotation; a suggestion is rejected, so that it is not suggested again."""
        row = self._selected()
        if row.status == "suggested":
            self.reject()
            return
        self.annotations.delete(row.id)
        self._done(f"Deleted {one_line(row.type)} at {row.time_s:.4f} s.")

    def undo(self) -> Edit | None:
        """Undo the last edit and return it, before and after exchanged; None where there is none."""
        return self._travelled(self.annotations.undo(), "undo", "Undone")

    def redo(self) -> Edit | None:
        """Repeat the edit that was undone and return it; None where there is none."""
        return self._travelled(self.annotations.redo(), "redo", "Done again")

    def _travelled(self, edit, how, done):
        """Show an edit that was undone or repeated."""
        if edit is None:
            self.say(f"There is nothing to {how}.")
        elif edit.op == "review":
            self._done(f"{done}: {edit.row.start_s:.2f} s to {edit.row.stop_s:.2f} s is complete.")
        else:
            self._show(edit.row.time_s)
            words = f"{done}: {edit.op} {one_line(edit.row.type)} at {edit.row.time_s:.4f} s."
            self._done(words, -1 if edit.after is None else edit.after.id)
        return edit

    def review(self) -> Edit:
        """State that every event in view is annotated; refused while suggestions in view are undecided."""
        start_s, stop_s = self.signal.view
        if n := len(self._undecided_in_view()):
            raise OptionError(
                f"{n} suggestions from {start_s:.2f} s to {stop_s:.2f} s are undecided: accept or reject them first"
            )
        edit = self.annotations.review(start_s, stop_s)
        self._done(f"{edit.after.start_s:.2f} s to {edit.after.stop_s:.2f} s is complete.")
        return edit

    def save_events(self, path: str | Path | None = None) -> Path:
        """Write the table of events to ``path``, by default ``events_path``; returns the path.

        A table that was not saved from this log is refused, see
        :meth:`~evlib.inspection.annotations.AnnotationLog.save`.
        """
        path = self.events_path if path is None else Path(path)
        self.annotations.save(path)
        self.say(f"Saved {len(self.annotations.events())} events to {path}.")
        return path

    def fine_tune(self, method: str | None = None, **options) -> EventDiff:
        """Train again on the corrected labels, detect again, and show what changed.

        The new detector replaces the old one, and its suggestions replace the undecided ones. Without an old one,
        everything is gained.

        Parameters
        ----------
        method, **options : as for :func:`~evlib.inspection.annotate.fine_tune`

        Raises
        ------
        DataError : there are no labels to learn from
        """
        log, button = self.annotations, self.buttons["fine_tune"]
        button.disabled, button.description = True, "fine-tuning …"
        self.say("Fine-tuning: learning from the corrected labels, then detecting again.")
        options = {"refractory_s": self.refractory_s} | options
        try:
            self.detector, self.changes = fine_tune(self.recording, log, self.detector, method, **options)
        finally:
            button.disabled, button.description = False, ACTIONS["fine_tune"][0]
        changed = {kind: getattr(self.changes, kind) for kind in CHANGE_COLOURS}
        columns = ((e.onset_s.tolist(), e.type_names, [kind] * len(e)) for kind, e in changed.items())
        self._changed, self._change = sorted(row for part in columns for row in zip(*part, strict=True)), -1
        chosen = self.kind.value
        self.kind.options = [BEST, *named(log.names)]
        self.kind.value = chosen
        self.signal.rows = [*ROWS, CHANGE_ROW]
        self.signal.legend = _legend(ANNOTATION_COLOURS | CHANGE_COLOURS)
        self._done(f"Fine-tuned: {self.changes}.")
        counts = np.column_stack([events.counts() for events in [*changed.values(), self.changes.kept]])
        table = [(name, *row) for name, row in zip(log.names, counts, strict=True) if row[:-1].any()]
        self.report.value = html_table(["type", *CHANGE_COLOURS, "kept"], table)
        if forgotten := self.changes.forgotten:
            names = escape(", ".join(map(one_line, forgotten[:8]))) + " …" * (len(forgotten) > 8)
            warning = f"Not found any more, because they have no label: {names}"
            self.report.value += f'<div class="evlib-warning">{warning}</div>'
        return self.changes

    def next_change(self) -> tuple[float, str, str]:
        """Go to the next event that fine-tuning gained, lost or moved; the first follows the last."""
        if not self._changed:
            raise OptionError(
                "nothing has changed: fine-tune first" if self.changes is None else "fine-tuning changed nothing"
            )
        self._change = (self._change + 1) % len(self._changed)
        time_s, type, kind = row = self._changed[self._change]
        self.signal.center(time_s)
        # Where the new detector suggests the event, it can be decided at once.
        same = self._at(time_s, type)
        self.signal.selected = same[0].id if same else CHANGE_ID + self._change
        number = f"{self._change + 1} of {len(self._changed)}"
        self.say(f"{kind.capitalize()} ({number}): {one_line(type)} at {time_s:.4f} s.")
        return row

    def figure(self):
        """The signal in view with its annotations, as a matplotlib Figure."""
        return self.signal.figure()

    # ---- From the front end

    def _clicked(self, click):
        self.add(click["time_s"], self._type(), exact=bool(click.get("shift")))

    def _dragged(self, drag):
        try:
            if drag["id"] >= CHANGE_ID:
                raise OptionError("this is a detection, not an annotation: click beside it to add an event")
            self.move(drag["id"], drag["time_s"], exact=bool(drag.get("shift")))
        finally:
            self._draw_marks(again=True)

    def _pressed(self, press):
        key = "Delete" if press["key"] == "Backspace" else press["key"]
        for name, (_, own, _) in ACTIONS.items():
            if own and own.lower() == key.lower():
                exactly = {"exact": True} if press.get("shift") and name in ("add_here", "move_here") else {}
                getattr(self, name)(**exactly)

    # ---- The state that is shown

    def _selected(self):
        if self.signal.selected not in self.annotations:
            raise OptionError("select an annotation first: click on its mark, or go to the next suggestion")
        return self.annotations[self.signal.selected]

    def _cursor(self):
        if self.signal.cursor_s is None:
            raise OptionError("put the cursor somewhere first: in the signal, shift with the left or right arrow key")
        return self.signal.cursor_s

    def _type(self):
        return None if self.kind.value is NO_NAME else self.kind.value

    def _undecided_in_view(self):
        start, stop = self.signal.view
        return [row for row in self.annotations.suggestions() if start <= row.time_s < stop]

    def _at(self, time_s, type):
        """The annotations that are one event with this."""
        rows = self.annotations.rows()
        return [row for row in rows if row.type == type and abs(row.time_s - time_s) < SAME_EVENT_S]

    def _refined(self, time_s, type=None):
        """The best onset near a time: (time_s, type, score); a type that the detector does not know stays there,
        without a score."""
        if self.detector is None and type is None:
            raise OptionError("without a detector the type of this event is unknown: choose one")
        if self.detector is None or (type is not None and type not in self.detector.names):
            return time_s, type, None
        start, stop = self.signal.view
        reach_s = float(np.clip(CLICK_SHARE * (stop - start), LEAST_REACH_S, MOST_REACH_S))
        return refine_onset(self.detector, self.recording, time_s, type, reach_s)

    def _show(self, time_s):
        start, stop = self.signal.view
        margin = 0.1 * (stop - start)
        if not start + margin <= time_s <= stop - margin:
            self.signal.center(time_s)

    def _done(self, words, selected=None):
        """After an edit: say what was done, select an annotation, and bring everything up to date."""
        self.say(words)
        if selected is not None:
            self.signal.selected = selected
        self._refresh()

    def _refresh(self):
        log, undecided = self.annotations, self.annotations.suggestions()
        every = max(1, -(-len(undecided) // MAX_LANDMARKS))
        landmarks = [(row.time_s, ANNOTATION_COLOURS["undecided"], SHAPES["undecided"]) for row in undecided[::every]]
        changed = ((time_s, CHANGE_COLOURS[kind], SHAPES[kind]) for time_s, _, kind in self._changed[:MAX_LANDMARKS])
        self.signal.landmarks = [*landmarks, *changed]
        self.signal.spans = [(*span, REVIEWED_COLOUR) for span in log.reviewed_s.tolist()]
        n = Counter(row.status for row in log.rows())
        reviewed_s = float(np.diff(log.reviewed_s).sum())
        scale, unit = (1, "s") if log.duration_s < 300 else (60, "min")
        parts = [
            f"◆ <b>{len(undecided)} undecided</b>",
            f"● <b>events: {n['accepted'] + n['added']}</b> ({n['accepted']} accepted, {n['added']} added)",
            f"✕ {n['rejected']} rejected",
            f"{reviewed_s / scale:.1f} of {log.duration_s / scale:.1f} {unit} complete",
        ]
        if violations := len(find_violations(log.events(), self.refractory_s)[0]):
            words = f"{violations} pairs closer than the refractory period"
            parts.append(f'<b class="evlib-warning">{words}</b>')
        self.status.value = " · ".join(parts)
        self._draw_marks(again=True)
        self._describe()

    def _draw_marks(self, again=False):
        """Send the marks in view and beside it: a log may hold many thousands."""
        start, stop = self.signal.view
        width = stop - start
        if not again and self._sent[0] <= start and stop <= self._sent[1] and self._sent[2] <= 4 * width:
            return
        first, last = start - width, stop + width
        self._sent = (first, last, width)
        marks = [(row.id, row.time_s, row.type, row.status, row.score) for row in self.annotations.rows()]
        marks += [(CHANGE_ID + k, *row, None) for k, row in enumerate(self._changed)]
        shown = [
            {"id": id, "time_s": time_s, "label": one_line(type), "short": one_line(type[self._prefix :])}
            | {"note": note, "score": score, **MARKS[note]}
            for id, time_s, type, note, score in marks
            if first <= time_s <= last
        ]
        if again and shown == self.signal.marks:
            self.signal.marks = []  # a dragged mark goes back to its place only when marks are sent again
        self.signal.marks = shown

    def _describe(self):
        """The selected annotation in words, above the signal."""
        row = self.annotations[self.signal.selected] if self.signal.selected in self.annotations else None
        score = "" if row is None or row.score is None else f", probability {row.score:.2f}"
        self.signal.message = "" if row is None else f"{one_line(row.type)} at {row.time_s:.4f} s, {row.status}{score}"


def _legend(colours):
    """Names, colours and shapes for the legend of the signal."""
    return [(name, colour, SHAPES[name]) for name, colour in colours.items()]
