"""Annotations: an event table that is edited by hand, kept in an append-only log of JSON lines that survives a crash
(see `evlib.signals.logs`)."""

import hashlib
import zlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..signals.clock import distance_to_own
from ..signals.errors import DataError, OptionError, UnitError, require_instance, require_int, require_known
from ..signals.events import Events, write_events
from ..signals.logs import AppendOnlyLog
from ..signals.paths import sha256_of
from ..signals.recording import Recording

FORMAT = 1
# The fields of each kind of line, besides "op", its name, and "at", the time of writing.
FIELDS = {
    "open": {"format", "names", "sampling_rate_hz", "n_samples", "fingerprint"},
    "suggest": {"id", "time_s", "type", "score", "offered"},
    "add": {"id", "time_s", "type"},
    "review": {"id", "start_s", "stop_s"},
    "move": {"id", "time_s"},
    "relabel": {"id", "type"},
    "delete": {"id"},
    "accept": {"id"},
    "reject": {"id"},
    "undo": set(),
    "redo": set(),
    "save": {"sha256"},
}
# Fields that logs of earlier versions lack.
OPTIONAL = {"fingerprint"}
# Names of lines in logs of earlier versions.
RENAMED = {"propose": "suggest"}
# A suggestion within this of a decided annotation of its type, in seconds, is the same event.
SAME_EVENT_S = 0.01
# The labels are not complete within this of an undecided suggestion, in seconds.
UNDECIDED_S = 0.05
# A fingerprint holds this many blocks of this many samples, spread over the recording.
BLOCKS, BLOCK_SAMPLES = 64, 1024


def fingerprint(recording: Recording) -> str:
    """Hash of shape, rate and samples, in single precision; of a long recording only blocks spread over it are read.

    >>> silence = Recording(np.zeros((4000, 2)), 2000)
    >>> fingerprint(silence) == fingerprint(Recording(np.zeros((4000, 2), np.float32), 2000))
    True
    >>> fingerprint(silence) == fingerprint(Recording(np.ones((4000, 2)), 2000))
    False
    """
    shape = recording.n_samples, recording.n_channels
    digest = hashlib.sha256(repr((*shape, float(recording.sampling_rate_hz))).encode())
    starts = np.linspace(0, max(0, shape[0] - BLOCK_SAMPLES), BLOCKS).astype(int)
    for start in np.unique(starts):
        block = recording.read(start, min(start + BLOCK_SAMPLES, shape[0])) + np.float32(0)  # one zero, not two
        digest.update(np.where(np.isnan(block), np.float32(np.nan), block).tobytes())
    return digest.hexdigest()


@dataclass(frozen=True)
class Annotation:
    """One row: ``status`` is "suggested", "accepted", "rejected" or "added"; ``score`` is None where there is none."""

    id: int
    time_s: float
    type: str
    status: str
    score: float | None = None

    @property
    def is_event(self) -> bool:
        """Whether it counts as an event."""
        return self.status in ("accepted", "added")


@dataclass(frozen=True)
class ReviewedSpan:
    """A stretch [start_s, stop_s) in which every event is annotated."""

    id: int
    start_s: float
    stop_s: float


@dataclass(frozen=True)
class Edit:
    """The row before and after an edit; None where there was or is none."""

    op: str
    before: Any  # Annotation, ReviewedSpan or None
    after: Any

    @property
    def row(self) -> Any:
        """The row after the edit, or the one that it deleted."""
        return self.after or self.before


class AnnotationLog:
    """Annotations of one recording, kept in a file of JSON lines that the first edit begins.

    Parameters
    ----------
    path : the log; read if it exists
    recording : the Recording; needed for a new log only
    names : event names; needed for a new log only

    Raises
    ------
    OptionError : a new log without recording or names, or names other than those of the log
    UnitError : a recording of another rate or length than the log's
    DataError : a recording of the same length with other samples
    DataError : the file is no log, or a line of it (not the last) is damaged

    Examples
    --------
    >>> import tempfile
    >>> recording = Recording(np.zeros((20000, 1)), 2000)
    >>> log = AnnotationLog(tempfile.mkdtemp() + "/annotations.jsonl", recording, names=["clap"])
    >>> clap = log.add(1.5, "clap")
    >>> log.move(clap, 1.25).after.time_s
    1.25
    >>> _ = log.undo()
    >>> log.events().onset_s
    array([1.5])
    >>> len(AnnotationLog(log.path))
    1
    """

    def __init__(self, path: str | Path, recording: Recording | None = None, names=None):
        self.names: tuple = ()
        self._state: dict = {}
        # Edits that can be undone, from the floor on, and those that were undone.
        self._done: list[Edit] = []
        self._undone: list[Edit] = []
        self._next_id, self._floor, self._offered = 0, 0, None
        # The recording's fingerprint, None in logs that lack it; hashes of the tables that were saved.
        self._fingerprint: str | None = None
        self._saved: set[str] = set()
        self._file = AppendOnlyLog(path)
        self.path = self._file.path
        for number, line in enumerate(self._file.lines, start=1):
            self._replay(f"{self.path}, line {number}", line, number == 1)
        if not self.names:
            if recording is None or names is None:
                raise OptionError(
                    f"{self.path} is a new log: it needs the recording and the names of its events (or another path?)"
                )
            size: dict = {"sampling_rate_hz": recording.sampling_rate_hz, "n_samples": recording.n_samples}
            size["fingerprint"] = fingerprint(recording)
            names = names if isinstance(names, str) else list(names)
            self._commit("open", wait=True, format=FORMAT, names=names, **size)
        if names is not None and tuple(names) != self.names:
            raise OptionError(
                f"{self.path} annotates {', '.join(self.names)}; got the names {', '.join(names)} (another log?)"
            )
        own = self.sampling_rate_hz, self.n_samples
        if recording is not None and (recording.sampling_rate_hz, recording.n_samples) != own:
            raise UnitError(
                f"{self.path} annotates {self.n_samples} samples at {self.sampling_rate_hz:g} Hz; the recording has "
                f"{recording.n_samples} at {recording.sampling_rate_hz:g} Hz (another recording?)"
            )
        if recording is not None and self._fingerprint not in (None, fingerprint(recording)):
            raise DataError(
                f"{self.path} annotates a recording of this length with other samples (another recording, or this one "
                'filtered?); if the times are the same, take "fingerprint" out of its first line'
            )

    def __repr__(self):
        return f"AnnotationLog({self.path.name}: {len(self)} annotations, {len(self.suggestions())} undecided)"

    def __len__(self):
        return len(self.rows())

    def __contains__(self, id):
        return isinstance(self._state.get(id), Annotation)

    def __getitem__(self, id) -> Annotation:
        if id not in self:
            raise OptionError(f"there is no annotation {id!r} (deleted, or undone?)")
        return self._state[id]

    @property
    def duration_s(self) -> float:
        """The length of the recording in seconds."""
        return self.n_samples / self.sampling_rate_hz

    def rows(self) -> list[Annotation]:
        """All annotations, sorted by time."""
        return sorted((r for r in self._state.values() if isinstance(r, Annotation)), key=lambda r: (r.time_s, r.id))

    def suggestions(self) -> list[Annotation]:
        """Undecided annotations, the least certain first: those without a score, then scores near 0.5."""
        undecided = (row for row in self.rows() if row.status == "suggested")
        return sorted(undecided, key=lambda row: -1.0 if row.score is None else abs(row.score - 0.5))

    @property
    def reviewed_s(self) -> np.ndarray:
        """(k, 2) seconds: the reviewed spans in whole samples, sorted and merged."""
        spans = [(span.start_s, span.stop_s) for span in self._state.values() if isinstance(span, ReviewedSpan)]
        table = Events.from_seconds([], [], self.sampling_rate_hz, complete_spans_s=spans)
        return np.asarray(table.complete_spans_s)

    def events(self) -> Events:
        """Accepted and added events; complete in the reviewed spans, except around undecided suggestions."""
        rows = [row for row in self.rows() if row.is_event]
        onset_s, type = [row.time_s for row in rows], [row.type for row in rows]
        undecided_s = np.array([row.time_s for row in self.rows() if row.status == "suggested"])
        # What lies between the surroundings of two undecided suggestions, within each span.
        free = np.r_[-np.inf, undecided_s + UNDECIDED_S], np.r_[undecided_s - UNDECIDED_S, np.inf]
        spans = self.reviewed_s
        start, stop = np.maximum(spans[:, :1], free[0]), np.minimum(spans[:, 1:], free[1])
        complete = np.stack([start, stop], axis=-1)[stop > start]
        return Events.from_seconds(onset_s, type, self.sampling_rate_hz, self.names, complete_spans_s=complete)

    def save(self, path: str | Path) -> None:
        """Write :meth:`events` as an event table; a file is replaced only once the new one is whole.

        Raises
        ------
        OptionError : the file is there, and is not as :meth:`save` of this log left it
        """
        path = Path(path)
        if path.exists() and sha256_of(path) not in self._saved:
            raise OptionError(
                f"{path} is there and was not saved from {self.path}, or was changed since (labels of another origin?);"
                " choose another path, or move it away"
            )
        write_events(self.events(), path)
        if (sha256 := sha256_of(path)) not in self._saved:
            self._commit("save", sha256=sha256)

    def counts(self) -> dict:
        """Dict of kind of edit to the number of such edits; what was undone does not count."""
        ops = [edit.op for edit in self._done]
        return {op: ops.count(op) for op in dict.fromkeys(ops)}

    # Each method below writes one line, unless it would change nothing.

    def add(self, time_s: float, type: str) -> int:
        """A new event; returns its id."""
        return self._commit("add", id=self._next_id, time_s=time_s, type=type).row.id

    def move(self, id: int, time_s: float) -> Edit:
        """Another time."""
        return self._commit("move", id=id, time_s=time_s)

    def relabel(self, id: int, type: str) -> Edit:
        """Another type."""
        return self._commit("relabel", id=id, type=type)

    def delete(self, id: int) -> Edit:
        """Remove an annotation."""
        return self._commit("delete", id=id)

    def accept(self, id: int) -> Edit:
        """A suggestion is an event."""
        return self._commit("accept", id=id)

    def reject(self, id: int) -> Edit:
        """A suggestion is no event."""
        return self._commit("reject", id=id)

    def review(self, start_s: float, stop_s: float) -> Edit:
        """State that every event from ``start_s`` to ``stop_s`` is annotated."""
        return self._commit("review", id=self._next_id, start_s=start_s, stop_s=stop_s)

    def suggest(self, events: Events, wait: bool = False) -> int:
        """Replace the undecided suggestions by ``events`` of a detector; returns how many there are.

        Events close to a decided annotation of their type are left out, and the same table again changes nothing.
        Edits from before cannot be undone afterwards. With ``wait`` the line is written together with the next edit.
        """
        require_instance(Events, suggestions=events)
        events = events.with_names(self.names)
        offered = zlib.crc32(b"".join(c.tobytes() for c in (events.onset_s, events.type, events.score)))
        if offered == self._offered:
            return 0
        decided = [row for row in self.rows() if row.status != "suggested"]
        time_s, type = (np.array([getattr(row, name) for row in decided]) for name in ("time_s", "type"))
        distance_s = distance_to_own(events.onset_s, np.array(self.names)[events.type], time_s, type)
        events = events[distance_s > SAME_EVENT_S]
        score = [None if np.isnan(value) else float(value) for value in events.score]
        columns = {"time_s": events.onset_s.tolist(), "type": events.type_names, "score": score}
        self._commit("suggest", wait, id=self._next_id, offered=offered, **columns)
        return len(events)

    def undo(self) -> Edit | None:
        """Undo the last edit and return it, before and after exchanged; None where there is none."""
        return self._commit("undo") if len(self._done) > self._floor else None

    def redo(self) -> Edit | None:
        """Repeat the edit that was undone last and return it; None where there is none."""
        return self._commit("redo") if self._undone else None

    def _commit(self, op, wait=False, **values):
        """Check an edit, write its line (with ``wait`` before that of the next edit), then apply it."""
        edit = self._plan(op, values)
        if isinstance(edit, Edit) and edit.before == edit.after:
            return edit
        self._file.append({"op": op, **values}, wait)
        return self._apply(op, edit)

    def _plan(self, op, values):
        """The edit of a line, or an error; nothing has changed yet."""
        if op == "open":
            names, n_samples = values["names"], values["n_samples"]
            require_int(0, n_samples=n_samples)
            if not names or not all(isinstance(name, str) for name in names):
                raise OptionError(f"names must be texts, at least one; got {names!r}")
            return Events.empty(names, values["sampling_rate_hz"]), int(n_samples), values.get("fingerprint")
        if op == "save":
            return str(values["sha256"])
        if op in ("undo", "redo"):
            edits = self._done[self._floor :] if op == "undo" else self._undone
            if not edits:
                raise OptionError(f"there is nothing to {op}")
            last = edits[-1]
            return last if op == "redo" else Edit(last.op, last.after, last.before)
        if op in ("add", "review", "suggest") and values["id"] != self._next_id:
            raise OptionError(f"the next id is {self._next_id}, got {values['id']!r}")
        if op == "suggest":
            columns = zip(*(values[name] for name in ("time_s", "type", "score")), strict=True)
            return values["offered"], [
                Annotation(k, *self._checked(time_s, type), "suggested", None if score is None else float(score))
                for k, (time_s, type, score) in enumerate(columns, start=self._next_id)
            ]
        if op == "add":
            checked = self._checked(values["time_s"], values["type"])
            return Edit(op, None, Annotation(values["id"], *checked, "added"))
        if op == "review":
            start_s, stop_s = (float(np.clip(values[name], 0, self.duration_s)) for name in ("start_s", "stop_s"))
            if not start_s < stop_s:
                raise UnitError(
                    f"a reviewed span must begin before it ends, within {self.duration_s:g} s; got "
                    f"{values['start_s']!r} to {values['stop_s']!r} (samples, or begin and end exchanged?)"
                )
            return Edit(op, None, ReviewedSpan(values["id"], start_s, stop_s))
        row = self[values["id"]]
        if op == "delete":
            return Edit(op, row, None)
        if op in ("accept", "reject"):
            if row.status == "added":
                raise OptionError(f"annotation {row.id} was added by hand, not suggested: delete it where it is wrong")
            return Edit(op, row, replace(row, status=f"{op}ed"))
        if row.status == "rejected":
            raise OptionError(f"annotation {row.id} was rejected: accept it first, or undo")
        status = "accepted" if row.status == "suggested" else row.status
        time_s, type = self._checked(values.get("time_s", row.time_s), values.get("type", row.type))
        return Edit(op, row, replace(row, time_s=time_s, type=type, status=status))

    def _apply(self, op, edit):
        """Change the state as planned."""
        if op == "open":
            table, self.n_samples, self._fingerprint = edit
            self.names, self.sampling_rate_hz = table.names, table.sampling_rate_hz
        elif op == "save":
            self._saved.add(edit)
        elif op == "suggest":
            self._offered, rows = edit
            self._state = {id: row for id, row in self._state.items() if getattr(row, "status", None) != "suggested"}
            self._state |= {row.id: row for row in rows}
            self._next_id += len(rows)
            self._floor, self._undone = len(self._done), []
        else:
            if op == "undo":
                self._undone.append(self._done.pop())
            else:
                self._done.append(edit)
                self._undone = self._undone[:-1] if op == "redo" else []
            self._next_id += op in ("add", "review")
            self._state.pop(edit.row.id, None)
            if edit.after is not None:
                self._state[edit.after.id] = edit.after
        return edit

    def _checked(self, time_s, type):
        """A time and the name of a type, refused where they do not fit this recording."""
        # A time belongs to its nearest sample: the first one begins half a sample before 0 s.
        is_number = isinstance(time_s, (int, float, np.number))
        if not (is_number and -0.5 <= time_s * self.sampling_rate_hz < self.n_samples - 0.5):
            raise UnitError(
                f"time_s must be seconds in [0, {self.duration_s:g}), got {time_s!r} (samples, or milliseconds?)"
            )
        require_known([type], self.names)
        return float(time_s), str(type)

    def _replay(self, where, line, is_first):
        """Apply a line of the file; ``where`` names it in errors."""
        op = line.get("op")
        op = RENAMED.get(op, op) if isinstance(op, str) else "(no text)"
        values = {name: value for name, value in line.items() if name not in ("op", "at")}
        if op not in FIELDS:
            raise DataError(
                f"{where}: unknown operation {op!r}; known are {', '.join(FIELDS)} (no annotation log, or a newer one?)"
            )
        if set(values) | OPTIONAL & FIELDS[op] != FIELDS[op]:
            raise DataError(f"{where}: {op!r} must have the fields {sorted(FIELDS[op])}, it has {sorted(values)}")
        if (op == "open") != is_first:
            raise DataError(f"{where}: a log begins with 'open', once (two logs joined?)")
        if op == "open" and values["format"] != FORMAT:
            raise DataError(
                f"{where}: the log has format {values['format']!r}; this version of evlib reads format {FORMAT}"
            )
        try:
            self._apply(op, self._plan(op, values))
        except Exception as error:  # values edited by hand may be anything
            raise DataError(f"{where}: {op!r} cannot be done here: {error}") from error
