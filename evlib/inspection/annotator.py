"""What the annotator shows besides the signal: marks for the canvas, and numbers as HTML."""

from html import escape
from os.path import commonprefix
from pathlib import Path

import ipywidgets
import numpy as np

from ..signals.errors import EvlibError, OptionError
from .annotate import SAME_EVENT_S, AnnotationSession
from .plots import ANNOTATION_COLOURS, CHANGE_COLOURS, REVIEWED_COLOUR, annotation_state, plot_annotations
from .signal_view import SignalView
from .widget import StaticTwin

# Marks of fine-tuned detections have ids from here on.
CHANGE_ID = 1 << 30
MAX_ROWS = 20


def annotation_marks(rows, changed, start_s, stop_s, prefix=0):
    """Marks of annotations, and of ``changed`` (time_s, name, "gained" | "lost" | "moved"), from ``start_s`` to
    ``stop_s``.

    Without their first ``prefix`` letters names are told apart where they have little room.
    """
    marks = []
    for row in rows:
        if start_s <= row.time_s <= stop_s:
            mark = {
                "id": row.id,
                "time_s": row.time_s,
                "label": row.type,
                "colour": ANNOTATION_COLOURS[annotation_state(row)],
            }
            kind = "reference" if row.is_event else "proposal"
            weight = 2 if row.status == "proposed" else 1
            marks.append(mark | {"kind": kind, "score": row.score, "note": row.status, "weight": weight})
    for k, (time_s, name, kind) in enumerate(changed):
        if start_s <= time_s <= stop_s:
            mark = {"id": CHANGE_ID + k, "time_s": float(time_s), "label": name, "colour": CHANGE_COLOURS[kind]}
            marks.append(mark | {"kind": "estimated", "score": None, "note": kind, "weight": 2})
    return [mark | {"short": mark["label"][prefix:]} for mark in marks]


def status_line(session):
    """How far the work has come."""
    log = session.log
    number = {status: 0 for status in ("proposed", "accepted", "added", "rejected")}
    for row in log.rows():
        number[row.status] += 1
    reviewed_s = float(np.diff(log.reviewed_s).sum())
    n_events = number["accepted"] + number["added"]
    parts = [
        f"<b style='color:{ANNOTATION_COLOURS['undecided']}'>{number['proposed']} undecided</b>",
        f"<b style='color:{ANNOTATION_COLOURS['event']}'>{n_events} event{'s' * (n_events != 1)}</b>"
        f" ({number['accepted']} accepted, {number['added']} added)",
        f"{number['rejected']} rejected",
        f"{_duration(reviewed_s, log.duration_s)} complete",
    ]
    if reviewed_s:
        parts.append(f"{log.edits_per_minute:.1f} edits per minute of it")
    violations = session.violations()
    if violations:
        parts.append(
            f"<b style='color:{CHANGE_COLOURS['lost']}'>{violations} pairs closer than the refractory period</b>"
        )
    return " · ".join(parts)


def _duration(part_s, all_s):
    return f"{part_s:.1f} of {all_s:.1f} s" if all_s < 300 else f"{part_s / 60:.1f} of {all_s / 60:.1f} min"


def changes_table(changes, unlearnable=()):
    """What fine-tuning changed, one row for each kind of event that it changed most."""
    table = changes.to_frame()
    table["changed"] = table["gained"] + table["lost"] + table["moved"]
    shown = table[table["changed"] > 0].nlargest(MAX_ROWS, "changed", keep="first")
    style = "padding:1px 14px 1px 0;text-align:right"
    head = "".join(
        f"<th style='{style};color:{CHANGE_COLOURS.get(name, '#222')}'>{name}</th>" for name in table.columns[:4]
    )
    rows = "".join(
        f"<tr><td style='{style};text-align:left'>{escape(str(name))}</td>"
        + "".join(f"<td style='{style}'>{row[column]}</td>" for column in table.columns[:4])
        + "</tr>"
        for name, row in shown.iterrows()
    )
    left = len(table[table["changed"] > 0]) - len(shown)
    more = f"<br>and {left} more kinds" if left else ""
    warning = ""
    if unlearnable:
        names = escape(", ".join(unlearnable[:8])) + (" …" if len(unlearnable) > 8 else "")
        warning = f"<br><span style='color:{CHANGE_COLOURS['lost']}'>Without a label, and so not found any more: {names}</span>"
    body = f"<table style='border-collapse:collapse'><tr><th style='{style};text-align:left'>kind</th>{head}</tr>{rows}</table>"
    return f"<div style='line-height:1.5'>Fine-tuned: {escape(str(changes))}{warning}{body if len(shown) else ''}{more}</div>"


# --- The annotator: look at what was detected, correct it, fine-tune, and see what changed.


BEST = "best match"
# A click is good to a few of the pixels that a view is wide, within these bounds in seconds.
CLICK_SHARE, LEAST_REACH_S, MOST_REACH_S = 0.006, 0.004, 0.05
MAX_LANDMARKS = 1500
ROWS = [{"name": "events", "kinds": ["reference"]}, {"name": "proposals", "kinds": ["proposal"]}]
CHANGE_ROW = {"name": "fine-tuned", "kinds": ["estimated"]}
# Method: caption, key, what it does.
ACTIONS = {
    "previous": ("◂ previous", "p", "the proposal before"),
    "next": ("next ▸", "n", "the next proposal, the least certain first"),
    "accept": ("✓ accept", "a", "it is an event; then the next proposal"),
    "reject": ("✗ reject", "x", "it is none; then the next proposal"),
    "accept_in_view": ("accept all in view", "", "every proposal in view is an event"),
    "relabel": ("relabel", "l", "give the selected annotation the kind chosen in the list"),
    "delete": ("delete", "Delete", "take the selected annotation away"),
    "undo": ("undo", "u", "take the last edit back"),
    "redo": ("redo", "y", "do again what was undone"),
    "review": (
        "view is complete",
        "r",
        "every event in view is annotated: fine-tuning learns from what is not there, too",
    ),
    "save_events": ("save", "s", "write the table of events"),
    "fine_tune": ("fine-tune now", "", "train anew on the corrected labels and see what changes"),
    "next_change": ("next change ▸", "c", "the next event that fine-tuning gained, lost or moved"),
}
STYLES = {"accept": "success", "reject": "danger", "save_events": "primary", "fine_tune": "warning"}
HINT = "click: add · drag: move · with shift: just there · keys: " + ", ".join(
    f"<b>{key}</b> {caption.strip('◂▸✓✗ ')}" for caption, key, _ in ACTIONS.values() if key
)


class Annotator(StaticTwin):
    """Annotate a recording: a click adds an event, dragging moves it, proposals are accepted or rejected.

    Every edit is in the log at once; opening it again goes on where it was left. ``session`` holds what is behind the
    buttons, an :class:`~evlib.inspection.annotate.AnnotationSession`.

    Parameters
    ----------
    recording, detector, proposals, log : as for :class:`~evlib.inspection.annotate.AnnotationSession`
    events_path : where the table of events is saved; default: the log's name with the ending .tsv
    highpass_hz, view_s, progress : as for :class:`SignalView`
    **options : ``names``, ``training`` and ``refractory_s`` of the session

    Raises
    ------
    OptionError : nothing says what the events are called, or the names are not those of the log
    UnitError : the log belongs to another recording

    Examples
    --------
    >>> import tempfile, evlib
    >>> recording = evlib.Recording(np.zeros((20000, 1)), 2000)
    >>> annotator = Annotator(recording, names=["clap"], log=tempfile.mkdtemp() + "/log.jsonl")
    >>> annotator.add(1.5, "clap").time_s
    1.5
    >>> _ = annotator.undo()
    >>> len(annotator.annotations)
    0
    """

    def __init__(
        self,
        recording,
        detector=None,
        proposals=None,
        log="annotations.jsonl",
        *,
        events_path=None,
        highpass_hz=None,
        view_s=4.0,
        progress=False,
        **options,
    ):
        self.session = AnnotationSession(recording, detector, proposals, log, **options)
        self.annotations, self.recording = self.session.log, recording
        self.events_path = Path(events_path) if events_path else self.annotations.path.with_suffix(".tsv")
        self._prefix = (
            len(commonprefix(self.annotations.names).rstrip("0123456789")) if len(self.annotations.names) > 1 else 0
        )
        self.changes, self._changed, self._covered = None, [], (0.0, -1.0, 0.0)
        self.signal = SignalView(recording, highpass_hz, view_s, progress, editable=True, rows=ROWS)
        self.signal.layout.margin = "4px 0"
        self.signal.legend = [(kind, ANNOTATION_COLOURS[kind]) for kind in ANNOTATION_COLOURS]
        super().__init__(self._controls())
        for name, act in {"clicked": self._clicked, "dragged": self._dragged, "pressed": self._pressed}.items():
            self.signal.observe(lambda change, act=act: self._guard(act, change["new"]), name)
        self.signal.observe(lambda _: self._draw_marks(), "view")
        self.signal.observe(lambda _: self._describe(), "selected")
        self._refresh()
        if self.annotations.proposals():
            self.next()

    def _controls(self):
        """Everything above and below the signal; each button calls the method of its name."""
        layout, detector = ipywidgets.Layout, self.session.detector
        kinds = [BEST] * (detector is not None) + list(self.annotations.names)
        self.kind = ipywidgets.Dropdown(
            options=kinds, description="kind", layout=layout(width="180px"), style={"description_width": "34px"}
        )
        self.snapping = ipywidgets.Checkbox(
            detector is not None, description="snap to onsets", indent=False, layout=layout(width="130px")
        )
        self.status, self.said, self.report = (ipywidgets.HTML() for _ in range(3))
        self.buttons = {}
        for name, (caption, key, what) in ACTIONS.items():
            options = {"tooltip": f"{what} (key {key})" if key else what, "button_style": STYLES.get(name, "")}
            self.buttons[name] = ipywidgets.Button(description=caption, layout=layout(width="auto"), **options)
            self.buttons[name].on_click(lambda _, name=name: self._guard(getattr(self, name)))
        rows = [
            ("proposals", "previous next accept reject accept_in_view", []),
            ("events", "relabel delete undo redo", [self.kind, self.snapping]),
            ("result", "review save_events fine_tune next_change", []),
        ]
        boxes = []
        for title, names, before in rows:
            children = [
                ipywidgets.Label(title, layout=layout(width="66px")),
                *before,
                *(self.buttons[n] for n in names.split()),
            ]
            boxes.append(ipywidgets.HBox(children, layout=layout(flex_flow="row wrap", align_items="center")))
        hint = ipywidgets.HTML(f"<div style='color:#6b6b6b;line-height:1.4'>{HINT}</div>")
        return [self.status, *boxes, self.signal, self.said, self.report, hint]

    # What buttons, keys and the mouse do.

    def select(self, id):
        """Select an annotation and show it; returns it."""
        row = self.annotations[id]
        self._show(row.time_s)
        self.signal.selected = id
        return row

    def next(self):
        """Go to the next proposal, the least certain first; returns it, or None where all are decided."""
        return self._step(1)

    def previous(self):
        """Go to the proposal before."""
        return self._step(-1)

    def _step(self, step):
        ids = [row.id for row in self.annotations.proposals()]
        if not ids:
            self._say("Every proposal is decided.")
            return None
        here = ids.index(self.signal.selected) + step if self.signal.selected in ids else 0
        return self.select(ids[here % len(ids)])

    def accept(self):
        """The selected proposal is an event; then go to the next one."""
        return self._decide("accept")

    def reject(self):
        """The selected proposal is no event; then go to the next one."""
        return self._decide("reject")

    def _decide(self, how):
        id, order = self._selected().id, [row.id for row in self.annotations.proposals()]
        edit = getattr(self.annotations, how)(id)
        self._say(f"{how.capitalize()}ed {edit.after.type} at {edit.after.time_s:.4f} s.")
        if id in order and len(order) > 1:
            self.select(order[(order.index(id) + 1) % len(order)])
        self._refresh()
        return edit

    def accept_in_view(self):
        """Accept every proposal in view; returns how many there were."""
        start, stop = self.signal.view
        ids = [row.id for row in self.annotations.proposals() if start <= row.time_s < stop]
        for id in ids:
            self.annotations.accept(id)
        self._say(f"Accepted the {len(ids)} proposals in view.")
        self._refresh()
        return len(ids)

    def add(self, time_s, type=None, exact=False):
        """An event at a time, see :meth:`AnnotationSession.add`; returns its row."""
        row, score = self.session.add(time_s, type, exact or not self.snapping.value, self._reach_s())
        doubt = " The detector sees no event here." if score is not None and score < 0 else ""
        self._say(f"{row.type} at {row.time_s:.4f} s was {row.status}.{doubt}")
        self.signal.selected = row.id
        self._refresh()
        return row

    def move(self, id, time_s, exact=False):
        """Another time for an annotation, see :meth:`AnnotationSession.move`; returns its row."""
        edit = self.session.move(id, time_s, exact or not self.snapping.value, self._reach_s())
        by_ms = 1e3 * (edit.after.time_s - edit.before.time_s)
        self._say(f"Moved {edit.after.type} by {by_ms:+.2f} ms to {edit.after.time_s:.4f} s.")
        self.signal.selected = id
        self._refresh()
        return edit.after

    def relabel(self, type=None):
        """Give the selected annotation another kind, without ``type`` the one chosen in the list; returns its row."""
        type = self._kind() if type is None else type
        edit = self.session.relabel(self._selected().id, type)
        self._say(f"{edit.before.type} at {edit.after.time_s:.4f} s is {edit.after.type} now.")
        self._refresh()
        return edit.after

    def delete(self):
        """Take the selected annotation away; a proposal is rejected."""
        row = self._selected()
        if row.status == "proposed":
            self.reject()
            return
        self.session.delete(row.id)
        self._say(f"Deleted {row.type} at {row.time_s:.4f} s.")
        self._refresh()

    def undo(self):
        """Take the last edit back; returns it, or None."""
        return self._travel("undo", "Took back")

    def redo(self):
        """Do again what was undone; returns it, or None."""
        return self._travel("redo", "Did again")

    def _travel(self, how, done):
        edit = getattr(self.annotations, how)()
        if edit is None:
            self._say(f"There is nothing to {how}.")
            return None
        row = edit.after or edit.before
        if edit.op == "review":
            self._say(f"{done}: {row.start_s:.2f} s to {row.stop_s:.2f} s is complete.")
        else:
            self._say(f"{done}: {edit.op} {row.type} at {row.time_s:.4f} s.")
            now = edit.before if how == "undo" else edit.after
            self._show((now or row).time_s)
            self.signal.selected = -1 if now is None else now.id
        self._refresh()
        return edit

    def review(self):
        """Every event in view is annotated."""
        edit = self.session.review(*self.signal.view)
        self._say(f"{edit.after.start_s:.2f} s to {edit.after.stop_s:.2f} s is complete.")
        self._refresh()
        return edit

    def save_events(self, path=None):
        """Write the table of events to ``events_path``, or to ``path``; returns where."""
        path = self.events_path if path is None else Path(path)
        self.annotations.save(path)
        self._say(f"Saved {len(self.annotations.events())} events to {path}.")
        return path

    def fine_tune(self, method=None, **options):
        """Train anew on the corrected labels and show what changed, see :meth:`AnnotationSession.fine_tune`."""
        button, caption = self.buttons["fine_tune"], ACTIONS["fine_tune"][0]
        button.disabled, button.description = True, "fine-tuning …"
        self._say("Fine-tuning: learning from the corrected labels, then detecting again.")
        unlearnable = self.session.unlearnable(method)
        try:
            self.changes = self.session.fine_tune(method, **options)
        finally:
            button.disabled, button.description = False, caption
        parts = {
            "gained": self.changes.gained,
            "lost": self.changes.lost,
            "moved": self.changes.after[self.changes.moved],
        }
        rows = [(t, name, kind) for kind, e in parts.items() for t, name in zip(e.onset_s, e.type_names, strict=True)]
        self._changed, self._change = sorted(rows), -1
        self.kind.options = list(dict.fromkeys([BEST, *self.kind.options]))
        self.signal.rows = [*ROWS, CHANGE_ROW]
        self.signal.legend = [*ANNOTATION_COLOURS.items(), *CHANGE_COLOURS.items()]
        self._say(f"Fine-tuned: {self.changes}.")
        self.report.value = changes_table(self.changes, unlearnable)
        self._refresh()
        return self.changes

    def next_change(self):
        """Go to the next event that fine-tuning gained, lost or moved, and after the last to the first."""
        if not self._changed:
            raise OptionError(
                "nothing has changed: fine-tune first" if self.changes is None else "fine-tuning changed nothing"
            )
        self._change = (self._change + 1) % len(self._changed)
        row = self._changed[self._change]
        self.signal.center(row[0])
        # Where the new detector proposes it, it can be decided at once.
        same = (r.id for r in self.annotations.rows() if r.type == row[1] and abs(r.time_s - row[0]) < SAME_EVENT_S)
        self.signal.selected = next(same, CHANGE_ID + self._change)
        self._say(f"{row[2].capitalize()} ({self._change + 1} of {len(self._changed)}): {row[1]} at {row[0]:.4f} s.")
        return row

    # From the front end.

    def _clicked(self, click):
        self.add(click["time_s"], self._kind(), exact=bool(click.get("shift")))

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
            if own == key:
                getattr(self, name)()

    def _guard(self, act, *arguments):
        """Do what was asked for; what cannot be done is said, and nothing else happens."""
        try:
            act(*arguments)
        except (EvlibError, OSError) as error:
            self._say(str(error), wrong=True)

    # What is shown.

    def _selected(self):
        if self.signal.selected not in self.annotations:
            raise OptionError("select an annotation first: click on its mark, or go to the next proposal")
        return self.annotations[self.signal.selected]

    def _kind(self):
        return None if self.kind.value == BEST else self.kind.value

    def _reach_s(self):
        start, stop = self.signal.view
        return float(np.clip(CLICK_SHARE * (stop - start), LEAST_REACH_S, MOST_REACH_S))

    def _show(self, time_s):
        start, stop = self.signal.view
        margin = 0.1 * (stop - start)
        if not start + margin <= time_s <= stop - margin:
            self.signal.center(time_s)

    def _say(self, words, wrong=False):
        self.said.value = f'<span style="color:{"#c62828" if wrong else "#1a7f37"}">{escape(words)}</span>'

    def _refresh(self):
        undecided = self.annotations.proposals()
        every = max(1, -(-len(undecided) // MAX_LANDMARKS))
        marks = [(row.time_s, ANNOTATION_COLOURS["undecided"]) for row in undecided[::every]]
        self.signal.landmarks = marks + [(row[0], CHANGE_COLOURS[row[2]]) for row in self._changed[:MAX_LANDMARKS]]
        self.signal.spans = [(*span, REVIEWED_COLOUR) for span in self.annotations.reviewed_s.tolist()]
        self.status.value = status_line(self.session)
        self._draw_marks(again=True)
        self._describe()

    def _draw_marks(self, again=False):
        """Send the marks in view and beside it: a log may hold many thousands."""
        start, stop = self.signal.view
        width = stop - start
        if not again and self._covered[0] <= start and stop <= self._covered[1] and self._covered[2] <= 4 * width:
            return
        self._covered = (start - width, stop + width, width)
        marks = annotation_marks(self.annotations.rows(), self._changed, start - width, stop + width, self._prefix)
        if again and marks == self.signal.marks:
            self.signal.marks = []  # a mark that was dragged goes back only when it is told so
        self.signal.marks = marks

    def _describe(self):
        """The selected annotation in words, above the signal."""
        row = self.annotations[self.signal.selected] if self.signal.selected in self.annotations else None
        score = "" if row is None or row.score is None else f", probability {row.score:.2f}"
        self.signal.message = "" if row is None else f"{row.type} at {row.time_s:.4f} s, {row.status}{score}"

    def figure(self):
        """The view with its annotations, as a matplotlib Figure."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=(11, 1.6 + 0.6 * self.recording.n_channels), layout="constrained")
        view = (self.annotations.reviewed_s, *self.signal.view, figure.add_subplot())
        plot_annotations(
            self.recording, self.annotations.rows(), *view, self.signal.overview.highpass_hz, self.signal.selected
        )
        return figure
