"""Annotations: any edits and undos give what a plain list of states gives, in memory and when the log is read again."""

import json
import os
import shutil
import sys
import threading
from contextlib import nullcontext

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evlib.inspection.annotations import UNDECIDED_S, AnnotationLog
from evlib.signals.errors import DataError, OptionError, UnitError
from evlib.signals.events import Events, read_events, write_events
from evlib.signals.files import read_recording
from evlib.signals.recording import Recording

RATE, NAMES = 2000.0, ("bell", "clap")
RECORDING = Recording(np.zeros((40_000, 2), np.float32), RATE)
TIMES = st.integers(0, 39_999).map(lambda sample: sample / RATE)
SUGGESTED = Events.from_seconds(
    [1.0, 2.0, 3.0, 4.0], ["bell", "clap", "bell", "clap"], RATE, NAMES, score=[0.9, 0.55, 0.2, np.nan]
)

TABLES = (SUGGESTED, SUGGESTED.shift(15))


@pytest.fixture(autouse=True)
def _quick_disk(monkeypatch, request):
    """The disk need not spin for every line of a property test."""
    if "durable" not in request.node.name:
        monkeypatch.setattr(os, "fsync", lambda number: None)


@pytest.fixture
def log(tmp_path):
    return AnnotationLog(tmp_path / "log.jsonl", RECORDING, NAMES)


def state(log):
    """All that an annotator sees."""
    return log.rows(), log.suggestions(), log.reviewed_s.tolist(), log.counts(), log.events().onset_s.tolist()


class Model:
    """What a log promises, as plainly as possible: every state there was, in a list. A row is [time_s, type,
    status]."""

    def __init__(self):
        self.states, self.now, self.first, self.next_id, self.offered = [({}, [])], 0, 0, 0, None

    def edit(self, op, id=None, **values):
        rows, spans = self.states[self.now]
        rows, spans = {k: list(row) for k, row in rows.items()}, list(spans)
        if op in ("add", "review"):
            id, self.next_id = self.next_id, self.next_id + 1
        if op == "add":
            rows[id] = [values["time_s"], values["type"], "added"]
        elif op == "review":
            spans.append((values["start_s"], values["stop_s"]))
        elif op == "delete":
            del rows[id]
        elif op in ("accept", "reject"):
            rows[id][2] = op + "ed"
        else:
            rows[id][0 if op == "move" else 1] = next(iter(values.values()))
            rows[id][2] = "accepted" if rows[id][2] == "suggested" else rows[id][2]
        if (rows, spans) != self.states[self.now]:
            self.states[self.now + 1 :] = [(rows, spans)]
            self.now += 1

    def suggest(self, events):
        if self.offered is events:
            return
        self.offered = events
        rows, spans = self.states[self.now]
        rows = {k: row for k, row in rows.items() if row[2] != "suggested"}
        for time_s, type in zip(events.onset_s, events.type_names, strict=True):
            if all(row[1] != type or abs(row[0] - time_s) > 0.01 for row in rows.values() if row[2] != "suggested"):
                rows[self.next_id] = [time_s, type, "suggested"]
                self.next_id += 1
        self.states[self.now + 1 :] = [(rows, spans)]
        self.now = self.first = self.now + 1

    def undo(self):
        self.now = max(self.now - 1, self.first)

    def redo(self):
        self.now = min(self.now + 1, len(self.states) - 1)

    def refuses(self, op, id):
        status = self.states[self.now][0][id][2]
        return status == "added" and op in ("accept", "reject") or status == "rejected" and op in ("move", "relabel")


STEPS = st.lists(
    st.tuples(
        st.sampled_from("add add move relabel delete accept reject review undo undo redo suggest".split()),
        st.integers(0, 30),
        TIMES,
        st.sampled_from(NAMES),
    ),
    max_size=40,
)


def plain_rows(log):
    return {row.id: [row.time_s, row.type, row.status] for row in log.rows()}


@settings(max_examples=40)
@given(steps=STEPS)
def test_any_edits_and_undos_equal_a_plain_list_of_states_and_the_log_read_again(steps, tmp_path_factory):
    log, model = AnnotationLog(tmp_path_factory.mktemp("log") / "log.jsonl", RECORDING, NAMES), Model()
    for op, pick, time_s, type in steps:
        rows = model.states[model.now][0]
        id = sorted(rows)[pick % len(rows)] if rows else None
        if op in ("undo", "redo"):
            getattr(log, op)(), getattr(model, op)()
        elif op == "suggest":
            log.suggest(TABLES[pick % 2]), model.suggest(TABLES[pick % 2])
        elif op == "add":
            assert log.add(time_s, type) == model.next_id
            model.edit(op, time_s=time_s, type=type)
        elif op == "review":
            log.review(time_s, time_s + 1.0)
            model.edit(op, start_s=time_s, stop_s=min(time_s + 1.0, RECORDING.duration_s))
        elif id is not None:
            change = {"move": {"time_s": time_s}, "relabel": {"type": type}}.get(op, {})
            if model.refuses(op, id):
                with pytest.raises(OptionError, match="added by hand|was rejected"):
                    getattr(log, op)(id, **change)
            else:
                getattr(log, op)(id, **change)
                model.edit(op, id, **change)
        rows, spans = model.states[model.now]
        assert plain_rows(log) == rows
        assert sum(log.reviewed_s[:, 1] - log.reviewed_s[:, 0]) == pytest.approx(covered(spans))
    copy = log.path.with_name("copy.jsonl")
    if log.path.exists():  # something was edited
        shutil.copy(log.path, copy)
    again = AnnotationLog(copy, RECORDING, NAMES)
    assert state(again) == state(log)
    # It goes on where the first one was, with the same past.
    while log.undo() is not None:
        assert again.undo() is not None and plain_rows(again) == plain_rows(log)


def covered(spans, step_s=0.0005):
    """Seconds that spans cover, by ticking off samples."""
    ticked = np.zeros(round(RECORDING.duration_s / step_s), bool)
    for start, stop in spans:
        ticked[round(start / step_s) : round(stop / step_s)] = True
    return ticked.sum() * step_s


def test_a_log_cut_off_at_any_byte_gives_a_state_that_there_was(log, tmp_path):
    edits = [lambda: log.suggest(SUGGESTED), lambda: log.accept(0), lambda: log.add(5.0, "clap"), log.undo]
    states = [state(log)] + [(edit(), state(log))[1] for edit in edits]
    content = log.path.read_bytes()
    torn = tmp_path / "torn.jsonl"
    for size in range(len(content) + 1):
        torn.write_bytes(content[:size])
        # A line counts once all of it is there; only its line break may be missing.
        n_whole = content[: size + 1].count(b"\n")
        is_torn = b"\n" not in content[max(size - 1, 0) : size + 1] and size > 0
        with pytest.warns(UserWarning, match="last line is torn") if is_torn else nullcontext():
            again = AnnotationLog(torn, RECORDING, NAMES)
        assert state(again) == states[max(n_whole - 1, 0)]
        # The next edit begins a line of its own, and nothing warns any more.
        again.add(7.0, "bell")
        assert state(AnnotationLog(torn)) == state(again)


def test_a_log_of_an_earlier_version_is_read(log):
    log.suggest(SUGGESTED), log.accept(0)
    log.path.write_text(log.path.read_text().replace('"suggest"', '"propose"'))
    again = AnnotationLog(log.path)
    assert state(again) == state(log)
    assert again.reject(1).after.status == "rejected" and len(AnnotationLog(log.path)) == 4


def test_every_edit_is_durable_one_line_before_it_counts(log, monkeypatch):
    synced = []
    real = os.fsync
    monkeypatch.setattr(os, "fsync", lambda number: synced.append(real(number)))
    id = log.add(1.0, "bell")
    log.move(id, np.float64(1.5))
    log.undo()
    assert len(synced) == 3
    lines = [json.loads(line) for line in log.path.read_text().splitlines()[1:]]
    assert [line["op"] for line in lines] == ["add", "move", "undo"] and all("at" in line for line in lines)

    def full(number):
        raise OSError("no space left")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="no space"):
        log.delete(id)
    assert log[id].time_s == 1.0


def test_an_edit_that_changes_nothing_leaves_no_line(log):
    id = log.add(1.0, "bell")
    size = log.path.stat().st_size
    log.move(id, 1.0), log.relabel(id, "bell")
    assert log.redo() is None and log.path.stat().st_size == size and log.counts() == {"add": 1}
    log.undo()
    assert log.undo() is None and log.counts() == {}


def test_events_hold_what_was_accepted_or_added_and_are_complete_where_reviewed_and_decided(log, tmp_path):
    log.suggest(SUGGESTED)
    log.accept(0), log.reject(1)
    added = log.add(6.25025, "clap")
    log.review(0.5, 3.5), log.review(3.5, 5.0)
    events = log.events()
    assert events.onset_s.tolist() == [1.0, 6.25025] and events.type_names == ["bell", "clap"] and events.names == NAMES
    np.testing.assert_allclose(
        events.complete_spans_s, [[0.5, 3 - UNDECIDED_S], [3 + UNDECIDED_S, 4 - UNDECIDED_S], [4 + UNDECIDED_S, 5.0]]
    )
    log.move(2, 3.001), log.reject(3)
    assert log[2].status == "accepted"
    np.testing.assert_allclose(log.events().complete_spans_s, [[0.5, 5.0]])
    path = tmp_path / "events.tsv"
    log.save(path)
    again = read_events(path, names=NAMES)
    np.testing.assert_allclose(again.onset_s, [1.0, 3.001, 6.25025], atol=1e-6)
    np.testing.assert_array_equal(again.labelled_spans, log.events().labelled_spans)
    log.delete(added)
    log.save(path)
    assert len(read_events(path)) == 2
    # Without a review nothing is complete: missing labels mean nothing in training.
    log.undo(), log.undo(), log.undo(), log.undo(), log.undo()
    assert len(log.events()) == 2 and log.events().labelled_spans.shape == (0, 2)


def test_suggestions_come_least_certain_first_and_are_not_repeated_once_decided(log):
    assert log.suggest(SUGGESTED) == 4
    assert [row.id for row in log.suggestions()] == [3, 1, 2, 0]  # no score, 0.55, 0.2, 0.9
    log.accept(1), log.reject(2)
    moved = Events.from_seconds([1.0, 2.004, 3.0, 3.0, 9.0], ["bell", "clap", "bell", "clap", "bell"], RATE, NAMES)
    assert log.suggest(SUGGESTED) == 0 and len(log.suggestions()) == 2, "the same table again changes nothing"
    assert log.suggest(moved) == 3  # the clap at 2 s and the bell at 3 s were decided
    assert [(row.time_s, row.type) for row in log.suggestions()] == [(1.0, "bell"), (3.0, "clap"), (9.0, "bell")]
    assert log.undo() is None, "undo would bring back suggestions that are gone"
    assert [row.status for row in log.rows()].count("accepted") == 1


def test_wrong_edits_are_refused_and_leave_no_trace(log):
    id = log.add(1.0, "bell")
    size = log.path.stat().st_size
    for error, message, edit in (
        (UnitError, "samples, or milliseconds", lambda: log.add(1500.0, "bell")),
        (UnitError, "must be seconds", lambda: log.move(id, float("nan"))),
        (OptionError, "unknown event name 'bel'.*spelling", lambda: log.relabel(id, "bel")),
        (OptionError, "no annotation 9", lambda: log.delete(9)),
        (OptionError, "added by hand", lambda: log.accept(id)),
        (UnitError, "begin before it ends", lambda: log.review(3.0, 2.0)),
        (OptionError, "must be Events", lambda: log.suggest([1.0])),
        (OptionError, "unknown event name 'drum'", lambda: log.suggest(Events.from_seconds([1.0], ["drum"], RATE))),
    ):
        with pytest.raises(error, match=message):
            edit()
    assert log.path.stat().st_size == size and len(log.rows()) == 1 and log.counts() == {"add": 1}


OPEN = '{"op": "open", "format": %s, "names": ["a"], "sampling_rate_hz": 2000, "n_samples": %s}'
SUGGEST = '{"op": "suggest", "id": 1, "time_s": [1.0], "type": %s, "score": ["x"], "offered": 0}'


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"op": "explode"}', "unknown operation 'explode'"),
        ('{"op": [1]}', "unknown operation"),
        ('{"op": "add", "id": 1}', "'add' must have the fields"),
        ('{"op": "add", "id": 7, "time_s": 1.0, "type": "bell"}', ".*the next id is 1"),
        ('{"op": "move", "id": [0], "time_s": 1.0}', "'move' cannot be done"),
        ('{"op": "move", "id": 0, "time_s": 1e9}', ".*must be seconds"),
        (SUGGEST % "[]", "'suggest' cannot be done"),
        (SUGGEST % '["bell"]', "'suggest' cannot be done"),
        ('{"op": "redo"}', ".*nothing to redo"),
        (OPEN % (1, 9), "a log begins"),
        ("[1, 2]", "no object"),
        ("{", "no object"),
        ("[" * 100_000, "no object"),
        ('{"op": %s}' % ("[" * 100_000), "no object"),
        ('{"op": {"a": 1}}', "unknown operation"),
        ('{"op": "add", "id": 1, "time_s": [1.0], "type": "bell"}', ".*must be seconds"),
        ('{"op": "add", "id": 1, "time_s": 1.0, "type": ["bell"]}', "'add' cannot be done"),
        ('{"op": "relabel", "id": 0, "type": {"a": []}}', "'relabel' cannot be done"),
        ('{"op": "delete", "id": {}}', "'delete' cannot be done"),
        ('{"op": "review", "id": 1, "start_s": "a", "stop_s": []}', "'review' cannot be done"),
        ('{"op": "suggest", "id": 1, "time_s": 1, "type": null, "score": {}, "offered": []}', "'suggest' cannot"),
    ],
)
def test_a_damaged_or_foreign_line_is_refused_with_its_number(log, line, message):
    log.add(1.0, "bell")
    log.path.write_text(log.path.read_text() + line + "\n")
    with pytest.raises(DataError, match=f"line 3: {message}"):
        AnnotationLog(log.path)


@pytest.mark.parametrize("field", ["names", "sampling_rate_hz", "n_samples"])
@pytest.mark.parametrize("value", [None, "a", -1, [[1]], [{}], {}, 1e400], ids=str)
def test_a_first_line_with_odd_values_is_refused(tmp_path, field, value):
    path = tmp_path / "log.jsonl"
    path.write_text(json.dumps(json.loads(OPEN % (1, 9)) | {field: value}) + "\n", encoding="utf-8")
    with pytest.raises(DataError, match="line 1"):
        AnnotationLog(path)


def test_a_log_of_something_else_is_refused(log, tmp_path):
    log.add(1.0, "bell")
    new, foreign = tmp_path / "none.jsonl", tmp_path / "other.jsonl"
    for error, message, arguments in (
        (OptionError, "another log", (log.path, RECORDING, ["bell"])),
        (UnitError, "another recording", (log.path, Recording(np.zeros((99, 1)), RATE))),
        (OptionError, "is a new log", (new, RECORDING)),
        (OptionError, "must be a list", (new, RECORDING, "bell")),
    ):
        with pytest.raises(error, match=message):
            AnnotationLog(*arguments)
    for line, message in {
        '{"a": 1}': "no annotation log",
        OPEN % (2, 9): "reads format 1",
        OPEN % (1, "Infinity"): "cannot be done",
    }.items():
        foreign.write_text(line + "\n")
        with pytest.raises(DataError, match=message):
            AnnotationLog(foreign)
    assert not new.exists()


def test_two_programs_do_not_write_over_each_other(log):
    log.add(0.5, "bell")
    other = AnnotationLog(log.path)
    other.add(1.0, "bell")
    with pytest.raises(DataError, match="changed by another program"):
        log.add(2.0, "clap")
    assert len(log) == 1 and len(AnnotationLog(log.path)) == 2


def test_two_programs_do_not_begin_the_same_log(log):
    AnnotationLog(log.path, RECORDING, NAMES).add(1.0, "bell")
    with pytest.raises(DataError, match="changed by another program"):
        log.add(2.0, "clap")
    assert len(AnnotationLog(log.path)) == 1


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such lock")
def test_a_program_waits_until_the_other_has_written(log):
    import fcntl

    log.add(1.0, "bell")
    line = log.path.read_bytes().splitlines(keepends=True)[-1].replace(b'"id": 0', b'"id": 1')
    refused = []

    def edit():
        try:
            log.add(2.0, "clap")
        except DataError as error:
            refused.append(str(error))

    with log.path.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        writer = threading.Thread(target=edit)
        writer.start()
        writer.join(0.1)
        assert writer.is_alive()
        file.write(line)
    writer.join(10)
    assert "changed by another program" in refused[0] and len(AnnotationLog(log.path)) == 2


def test_looking_writes_nothing(log, tmp_path):
    log.suggest(SUGGESTED, wait=True)
    assert not log.path.exists() and len(log.suggestions()) == 4
    log.accept(0)
    for rest in (b'{"op": "un', b'{"op": "undo"}'):  # torn, and without its line break
        log.path.write_bytes(log.path.read_bytes() + rest)
        content = log.path.read_bytes()
        with pytest.warns(UserWarning, match="torn") if rest.endswith(b"n") else nullcontext():
            again = AnnotationLog(log.path, RECORDING, NAMES)
        state(again)
        assert log.path.read_bytes() == content
        again.add(5.0, "bell")
        assert state(AnnotationLog(log.path)) == state(again)


def noise(seed, n_samples=300_000, n_channels=2):
    return np.random.default_rng(seed).standard_normal((n_samples, n_channels)).astype(np.float32)


@pytest.mark.parametrize(
    "other",
    [noise(2), noise(1)[::-1], -noise(1), noise(1)[:, :1], noise(1)[:, ::-1], np.full_like(noise(1), np.nan)],
    ids=["another", "reversed", "negative", "a channel", "exchanged", "missing"],
)
def test_another_recording_of_the_same_length_is_refused(tmp_path, other):
    path = tmp_path / "log.jsonl"
    AnnotationLog(path, Recording(noise(1), RATE), NAMES).add(1.0, "bell")
    with pytest.raises(DataError, match="other samples"):
        AnnotationLog(path, Recording(other, RATE))
    lines = path.read_text(encoding="utf-8").splitlines()
    begin = {name: value for name, value in json.loads(lines[0]).items() if name != "fingerprint"}
    path.write_text("\n".join([json.dumps(begin), *lines[1:], ""]), encoding="utf-8")
    assert len(AnnotationLog(path, Recording(other, RATE))) == 1, "the way out, and logs of earlier versions"


@pytest.mark.parametrize("stored", ["double", "file", "calibrated copy"])
def test_the_same_recording_is_known_again(tmp_path, stored):
    recording = Recording(noise(1), RATE)
    recording.signal[1000:1010] = np.nan
    log = AnnotationLog(tmp_path / "log.jsonl", recording, NAMES)
    log.add(1.0, "bell")
    if stored == "double":
        again = Recording(recording.signal.astype(float), RATE)
    elif stored == "file":
        np.save(tmp_path / "night.npy", recording.signal)
        again = read_recording(tmp_path / "night.npy", RATE)
    else:
        again = Recording(np.asfortranarray(recording.signal), RATE, name="other", units="g")
    assert len(AnnotationLog(log.path, again, NAMES)) == 1


def test_a_table_that_was_not_saved_from_this_log_stays(log, tmp_path):
    labels, empty, text = (tmp_path / name for name in ("labels.tsv", "empty.tsv", "notes.txt"))
    write_events(SUGGESTED, labels)
    write_events(SUGGESTED[:0], empty)
    text.write_text("mine", encoding="utf-8")
    log.suggest(SUGGESTED)
    for path in (labels, empty, text, log.path):
        content = path.read_bytes()
        with pytest.raises(OptionError, match="another path"):
            log.save(path)
        assert path.read_bytes() == content
    # What this log saved is replaced, also in a later session; until somebody else changes it.
    own = tmp_path / "own.tsv"
    log.save(own)
    again = AnnotationLog(log.path)
    again.accept(0)
    again.save(own)
    again.undo()
    again.save(own)
    assert len(read_events(own)) == 0 and again.counts() == {}
    write_events(SUGGESTED, own)
    with pytest.raises(OptionError, match="changed since"):
        again.save(own)
