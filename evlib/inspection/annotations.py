"""A journal: an append-only file of JSON lines that survives a crash.

A line counts once it is on disk, line break and all. A crash can tear only the last one: it never counted, and is cut
off with a warning when the journal is read again.
"""

import json
import os
import warnings
import zlib
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from ..signals.clock import distance_to_nearest
from ..signals.errors import DataError, EvlibError, OptionError, UnitError
from ..signals.events import Events, write_events


class Journal:
    """Lines of JSON objects in a file, read when it is opened; ``lines`` holds what was there then.

    >>> import tempfile
    >>> journal = Journal(tempfile.mkdtemp() + "/journal.jsonl")
    >>> journal.append({"op": "add", "time_s": 1.5})
    >>> [line["time_s"] for line in Journal(journal.path).lines]
    [1.5]
    """

    def __init__(self, path):
        self.path = Path(path)
        self.lines, self._size = [], 0
        if self.path.exists():
            content = self._repaired(self.path.read_bytes())
            self._size = len(content)
            self.lines = [self._parsed(number, line) for number, line in enumerate(content.splitlines(), start=1)]

    def append(self, line):
        """Write one line, with the time of writing under "at"; it is on disk when this returns."""
        content = json.dumps({name: _plain(value) for name, value in line.items()} | {"at": _now()}).encode() + b"\n"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("ab") as file:
            if file.tell() != self._size:
                raise DataError(f"{self.path} was changed by another program since it was read; open it again")
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        self._size += len(content)

    def _repaired(self, content):
        """The content with its last line whole: cut off where it was torn, ended where an editor left out the line
        break."""
        whole, rest = content[: content.rfind(b"\n") + 1], content[content.rfind(b"\n") + 1 :]
        if not rest:
            return content
        if _is_object(rest):
            whole = content + b"\n"
        else:
            warnings.warn(
                f"{self.path}: the last line is torn and left out (a crash while it was written?)", stacklevel=4
            )
        with self.path.open("r+b") as file:
            file.truncate(len(whole))
            file.seek(min(len(content), len(whole)))
            file.write(whole[file.tell() :])
        return whole

    def _parsed(self, number, line):
        try:
            values = json.loads(line)
        except ValueError:
            values = None
        if not isinstance(values, dict):
            raise DataError(f"{self.path}, line {number}: no object of JSON (edited by hand, or another kind of file?)")
        return values


def _is_object(line):
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False


def _plain(value):
    """NumPy's numbers as Python's, which JSON knows."""
    return value.item() if isinstance(value, np.generic) else value


def _now():
    return datetime.now(UTC).isoformat(timespec="milliseconds")


# --- Annotations: an event table that is edited by hand, over an append-only log on disk.


FORMAT = 1
# What each kind of line says, besides its name and when it was written.
FIELDS = {
    "open": {"format", "names", "sampling_rate_hz", "n_samples"},
    "propose": {"id", "time_s", "type", "score", "offered"},
    "add": {"id", "time_s", "type"},
    "review": {"id", "start_s", "stop_s"},
    "move": {"id", "time_s"},
    "relabel": {"id", "type"},
    "delete": {"id"},
    "accept": {"id"},
    "reject": {"id"},
    "undo": set(),
    "redo": set(),
}
# A new proposal this close to an annotation of its type that was decided is the same event.
SAME_EVENT_S = 0.01
# Nothing is known this far around a proposal that is undecided.
UNDECIDED_S = 0.05


@dataclass(frozen=True)
class Annotation:
    """One row: ``status`` is "proposed", "accepted", "rejected" or "added"; ``score`` is None where nothing scored
    it."""

    id: int
    time_s: float
    type: str
    status: str
    score: float | None = None

    @property
    def is_event(self):
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
    """What an edit replaced and by what; None stands for nothing."""

    op: str
    before: Annotation | ReviewedSpan | None
    after: Annotation | ReviewedSpan | None

    @property
    def id(self):
        """The annotation or span it is about."""
        return (self.after or self.before).id


class AnnotationLog:
    """Annotations of one recording, kept in a file of JSON lines.

    Parameters
    ----------
    path : the log; it is read where it exists, and begun otherwise
    recording : Recording that is annotated; may be left out for a log that exists
    names : event names; may be left out for a log that exists

    Raises
    ------
    OptionError : a new log without recording or names, or names other than those of the log
    UnitError : a recording of another rate or length than the log's
    DataError : the file is no log, or a line of it (not the last) is damaged

    Examples
    --------
    >>> import tempfile, evlib
    >>> recording = evlib.Recording(np.zeros((20000, 1)), 2000)
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

    def __init__(self, path, recording=None, names=None):
        self.names, self._state, self._done, self._undone = None, {}, [], []
        self._next_id, self._floor, self._offered = 0, 0, None
        self.journal = Journal(path)
        for number, line in enumerate(self.journal.lines, start=1):
            self._replay(number, line)
        if self.names is None:
            if recording is None or names is None:
                raise OptionError(
                    f"{self.path} is a new log: it needs the recording and the names of its events (or another path?)"
                )
            size = {"sampling_rate_hz": recording.sampling_rate_hz, "n_samples": recording.n_samples}
            self._commit("open", format=FORMAT, names=names if isinstance(names, str) else list(names), **size)
        self._check_fits(recording, names)

    def _check_fits(self, recording, names):
        if names is not None and tuple(names) != self.names:
            raise OptionError(
                f"{self.path} annotates {', '.join(self.names)}; got the names {', '.join(names)} (another log?)"
            )
        if recording is not None and (recording.sampling_rate_hz, recording.n_samples) != (
            self.sampling_rate_hz,
            self.n_samples,
        ):
            raise UnitError(
                f"{self.path} annotates {self.n_samples} samples at {self.sampling_rate_hz:g} Hz; the recording has "
                f"{recording.n_samples} at {recording.sampling_rate_hz:g} Hz (another recording?)"
            )

    @property
    def path(self):
        """The file of the log."""
        return self.journal.path

    def __repr__(self):
        return f"AnnotationLog({self.path.name}: {len(self)} annotations, {len(self.proposals())} undecided)"

    def __len__(self):
        return sum(isinstance(row, Annotation) for row in self._state.values())

    def __contains__(self, id):
        return isinstance(self._state.get(id), Annotation)

    def __getitem__(self, id) -> Annotation:
        if id not in self:
            raise OptionError(f"there is no annotation {id!r} (deleted, or undone?)")
        return self._state[id]

    @property
    def duration_s(self):
        """The length of the recording in seconds."""
        return self.n_samples / self.sampling_rate_hz

    def rows(self):
        """All annotations, sorted by time."""
        return sorted((r for r in self._state.values() if isinstance(r, Annotation)), key=lambda r: (r.time_s, r.id))

    def proposals(self):
        """What is undecided, the least certain first: scores near 0.5, and first of all those without a score."""
        return sorted(
            (row for row in self.rows() if row.status == "proposed"),
            key=lambda row: -1.0 if row.score is None else abs(row.score - 0.5),
        )

    @property
    def reviewed_s(self):
        """(k, 2) seconds: the reviewed spans, sorted and merged."""
        spans = sorted((s.start_s, s.stop_s) for s in self._state.values() if isinstance(s, ReviewedSpan))
        merged = []
        for start, stop in spans:
            if merged and start <= merged[-1][1]:
                merged[-1][1] = max(stop, merged[-1][1])
            else:
                merged.append([start, stop])
        return np.array(merged, dtype=np.float64).reshape(-1, 2)

    def events(self) -> Events:
        """The events that were accepted or added; complete in the reviewed spans, but not around what is undecided."""
        rows = self.rows()
        spans = _without(self.reviewed_s, [row.time_s for row in rows if row.status == "proposed"], UNDECIDED_S)
        onset_s, type = [row.time_s for row in rows if row.is_event], [row.type for row in rows if row.is_event]
        return Events.from_seconds(onset_s, type, self.sampling_rate_hz, self.names, complete_spans_s=spans)

    def save(self, path):
        """Write :meth:`events` as an event table; the file is replaced only once it is whole."""
        write_events(self.events(), path)

    def counts(self):
        """Dict of kind of edit to how many are in force (what was undone does not count)."""
        ops = [edit.op for edit in self._done]
        return {op: ops.count(op) for op in dict.fromkeys(ops)}

    @property
    def edits_per_minute(self):
        """Edits in force in the reviewed signal, per minute of it; NaN where nothing was reviewed.

        Accepting is an edit too: what one minute of signal costs the annotator.
        """
        spans = self.reviewed_s
        minutes = (spans[:, 1] - spans[:, 0]).sum() / 60
        times = np.array([(e.after or e.before).time_s for e in self._done if e.op != "review"])
        inside = (times[:, None] >= spans[:, 0]) & (times[:, None] < spans[:, 1])
        return float(inside.sum() / minutes) if minutes else float("nan")

    # Each method below writes one line, except where it would change nothing. Those about one annotation or span return
    # the Edit.

    def add(self, time_s, type) -> int:
        """A new event; returns its id."""
        return self._commit("add", id=self._next_id, time_s=time_s, type=type).id

    def move(self, id, time_s) -> Edit:
        """Another time."""
        return self._commit("move", id=id, time_s=time_s)

    def relabel(self, id, type) -> Edit:
        """Another kind of event."""
        return self._commit("relabel", id=id, type=type)

    def delete(self, id) -> Edit:
        """Take an annotation away."""
        return self._commit("delete", id=id)

    def accept(self, id) -> Edit:
        """A proposal is an event."""
        return self._commit("accept", id=id)

    def reject(self, id) -> Edit:
        """A proposal is no event."""
        return self._commit("reject", id=id)

    def review(self, start_s, stop_s) -> Edit:
        """Every event from ``start_s`` to ``stop_s`` is annotated now."""
        return self._commit("review", id=self._next_id, start_s=start_s, stop_s=stop_s)

    def propose(self, events) -> int:
        """Proposals of a detector take the place of those still undecided; returns how many.

        What is near a decided annotation of its type is not proposed again, and the same table twice changes nothing.
        Undo does not reach behind new proposals.
        """
        if not isinstance(events, Events):
            raise OptionError(f"proposals must be Events, got {type(events).__name__}")
        events = events.with_names(self.names)
        offered = zlib.crc32(b"".join(np.ascontiguousarray(c) for c in (events.onset_s, events.type, events.score)))
        if offered == self._offered:
            return 0
        decided, is_new = [row for row in self.rows() if row.status != "proposed"], np.ones(len(events), dtype=bool)
        for k, name in enumerate(self.names):
            time_s = np.array([row.time_s for row in decided if row.type == name])
            is_new[events.type == k] = distance_to_nearest(events.onset_s[events.type == k], time_s) > SAME_EVENT_S
        events = events[is_new]
        score = [None if np.isnan(value) else float(value) for value in events.score]
        columns = {"time_s": events.onset_s.tolist(), "type": events.type_names, "score": score}
        self._commit("propose", id=self._next_id, offered=offered, **columns)
        return len(events)

    def undo(self):
        """Take the last edit back; returns it, or None where there is none."""
        if len(self._done) == self._floor:
            return None
        edit = self._done[-1]
        self._commit("undo")
        return edit

    def redo(self):
        """Do again what was undone last; returns the edit, or None where there is none."""
        return self._commit("redo") if self._undone else None

    def _commit(self, op, **values):
        """Check an edit, write its line, then let it count."""
        edit = self._plan(op, **values)
        if isinstance(edit, Edit) and edit.before == edit.after:
            return edit
        self.journal.append({"op": op, **values})
        return self._apply(op, edit)

    def _plan(self, op, **values):
        """What a line asks for, or an error; nothing has changed yet."""
        if op == "open":
            return Events.empty(values["names"], values["sampling_rate_hz"]), int(values["n_samples"])
        if op in ("undo", "redo"):
            edits = self._done[self._floor :] if op == "undo" else self._undone
            if not edits:
                raise OptionError(f"there is nothing to {op}")
            return edits[-1] if op == "redo" else Edit("undo", edits[-1].after, edits[-1].before)
        if op in ("add", "review", "propose") and values["id"] != self._next_id:
            raise OptionError(f"the next id is {self._next_id}, got {values['id']!r}")
        if op == "propose":
            columns = (values[name] for name in ("time_s", "type", "score"))
            rows = [(self._time(time_s), self._type(type), score) for time_s, type, score in zip(*columns, strict=True)]
            return values["offered"], [
                Annotation(k, time_s, type, "proposed", None if score is None else float(score))
                for k, (time_s, type, score) in enumerate(rows, start=self._next_id)
            ]
        if op == "add":
            return Edit(
                op, None, Annotation(values["id"], self._time(values["time_s"]), self._type(values["type"]), "added")
            )
        if op == "review":
            start_s, stop_s = (float(np.clip(values[name], 0, self.duration_s)) for name in ("start_s", "stop_s"))
            if not start_s < stop_s:
                raise UnitError(
                    f"a reviewed span must begin before it ends, inside of {self.duration_s:g} s; got "
                    f"{values['start_s']!r} to {values['stop_s']!r} (samples, or begin and end exchanged?)"
                )
            return Edit(op, None, ReviewedSpan(values["id"], start_s, stop_s))
        return Edit(op, self[values["id"]], self._changed(op, self[values["id"]], values))

    def _changed(self, op, row, values):
        """An annotation after an edit."""
        if op == "delete":
            return None
        if op in ("accept", "reject"):
            if row.status == "added":
                raise OptionError(f"annotation {row.id} was added by hand, not proposed: delete it where it is wrong")
            return replace(row, status=f"{op}ed")
        if row.status == "rejected":
            raise OptionError(f"annotation {row.id} was rejected: accept it first, or undo")
        status = "accepted" if row.status == "proposed" else row.status
        change = {"time_s": self._time(values["time_s"])} if op == "move" else {"type": self._type(values["type"])}
        return replace(row, status=status, **change)

    def _apply(self, op, edit):
        """Let a planned edit count."""
        if op == "open":
            table, self.n_samples = edit
            self.names, self.sampling_rate_hz = table.names, table.sampling_rate_hz
            return None
        if op == "propose":
            self._offered, rows = edit
            self._state = {id: row for id, row in self._state.items() if getattr(row, "status", None) != "proposed"}
            self._state |= {row.id: row for row in rows}
            self._next_id += len(rows)
            self._floor, self._undone = len(self._done), []
            return edit
        if op == "undo":
            self._undone.append(self._done.pop())
        else:
            self._done.append(edit)
            self._undone = self._undone[:-1] if op == "redo" else []
        self._next_id += op in ("add", "review")
        if edit.after is None:
            del self._state[edit.id]
        else:
            self._state[edit.id] = edit.after
        return edit

    def _time(self, time_s):
        # A time belongs to its nearest sample: the first one reaches half a sample ahead of 0 s.
        if not (
            isinstance(time_s, (int, float, np.number))
            and -0.5 <= time_s * self.sampling_rate_hz < self.n_samples - 0.5
        ):
            raise UnitError(
                f"time_s must be seconds in [0, {self.duration_s:g}), got {time_s!r} (samples, or milliseconds?)"
            )
        return float(time_s)

    def _type(self, name):
        if name not in self.names:
            raise OptionError(f"unknown event name {name!r}; this log knows {', '.join(self.names)} (a spelling slip?)")
        return str(name)

    def _replay(self, number, line):
        where, op = f"{self.path}, line {number}", line.get("op")
        values = {name: value for name, value in line.items() if name not in ("op", "at")}
        if op not in FIELDS:
            raise DataError(
                f"{where}: unknown operation {op!r}; known are {', '.join(FIELDS)} (no annotation log, or a newer one?)"
            )
        if set(values) != FIELDS[op]:
            raise DataError(f"{where}: {op!r} must have the fields {sorted(FIELDS[op])}, it has {sorted(values)}")
        if (op == "open") != (number == 1):
            raise DataError(f"{where}: a log begins with 'open', once (two logs joined?)")
        if op == "open" and values["format"] != FORMAT:
            raise DataError(
                f"{where}: the log has format {values['format']!r}; this version of evlib reads format {FORMAT}"
            )
        try:
            self._apply(op, self._plan(op, **values))
        except (EvlibError, TypeError, ValueError) as error:
            raise DataError(f"{where}: {op!r} cannot be done here: {error}") from error


def _without(spans, times, reach):
    """Spans (k, 2) without what lies within ``reach`` of any of the times, which are sorted."""
    times = np.asarray(times, dtype=np.float64)
    free = np.r_[-np.inf, times + reach], np.r_[times - reach, np.inf]
    start, stop = np.maximum(spans[:, :1], free[0]), np.minimum(spans[:, 1:], free[1])
    return np.stack([start, stop], axis=-1)[stop > start]
