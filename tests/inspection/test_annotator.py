"""The annotator without a browser: what buttons, keys and the mouse do, and what is shown of it."""

import numpy as np
import pytest

from evlib.detection.detector import detect
from evlib.detection.oracle import oracle_detector
from evlib.inspection.annotations import AnnotationLog
from evlib.inspection.annotator import ANNOTATION_COLOURS, CHANGE_ID, Annotator
from evlib.signals.errors import OptionError, UnitError
from evlib.signals.events import Events, read_events, write_events
from evlib.signals.recording import Recording
from evlib.signals.synthetic import make_recording, make_templates

RATE, NAMES = 2000.0, ("bell", "clap")
SUGGESTED = Events.from_seconds(
    [1.0, 2.0, 3.0, 11.0], ["bell", "clap", "bell", "clap"], RATE, NAMES, score=[0.9, 0.55, 0.2, 0.7]
)


@pytest.fixture
def plain(tmp_path, rng):
    """No detector: suggestions come from somewhere else."""
    recording = Recording(rng.standard_normal((40_000, 2)).astype(np.float32), RATE, units="g")
    return Annotator(recording, suggestions=SUGGESTED, log=tmp_path / "log.jsonl")


@pytest.fixture(scope="module")
def simulation():
    return make_recording(make_templates(4, 3, seed=2), duration_s=30.0, snr=14.0, seed=2, transients_per_s=0.0)


@pytest.fixture(scope="module")
def detector(simulation):
    return oracle_detector(simulation)


@pytest.fixture
def aided(simulation, detector, tmp_path):
    return Annotator(simulation.recording, detector, log=tmp_path / "log.jsonl", highpass_hz=20, view_s=3.0)


def click(annotator, name):
    annotator.buttons[name].click()


def marks(annotator):
    return {mark["id"]: mark for mark in annotator.signal.marks}


def test_suggestions_are_gone_through_in_order_of_uncertainty(plain):
    order = [1, 3, 2, 0]  # 0.55, 0.7, 0.2, 0.9
    assert [row.id for row in plain.annotations.suggestions()] == order and plain.signal.selected == 1
    assert "clap at 2.0000 s, suggested, probability 0.55" == plain.signal.message
    for id in [*order[1:], order[0]]:
        click(plain, "next")
        assert plain.signal.selected == id
        start, stop = plain.signal.view
        assert start < plain.annotations[id].time_s < stop
    click(plain, "previous")
    assert plain.signal.selected == 0


def test_accept_and_reject_go_on_to_the_next_and_undo_comes_back(plain):
    click(plain, "accept")
    assert plain.annotations[1].status == "accepted" and plain.signal.selected == 3
    click(plain, "reject")
    assert plain.annotations[3].status == "rejected" and plain.signal.selected == 2
    assert marks(plain)[1]["kind"] == "reference" and marks(plain)[1]["colour"] == ANNOTATION_COLOURS["event"]
    assert "2 undecided" in plain.status.value and "1 rejected" in plain.status.value
    click(plain, "undo")
    assert plain.annotations[3].status == "suggested" and plain.signal.selected == 3
    assert "Undone: reject clap" in plain.message.value
    click(plain, "redo")
    assert plain.annotations[3].status == "rejected"
    plain.select(0), click(plain, "accept"), plain.select(2), click(plain, "accept")
    assert plain.next() is None and "Every suggestion is decided" in plain.message.value


def test_the_mouse_adds_and_moves_and_the_keys_do_what_the_buttons_do(plain):
    plain.kind.value = "clap"
    plain.signal.clicked = {"time_s": 1.5, "channel": 0, "shift": False, "count": 1}
    added = plain.annotations[plain.signal.selected]
    assert (added.time_s, added.type, added.status) == (1.5, "clap", "added")
    plain.signal.dragged = {"id": added.id, "time_s": 1.75}
    assert plain.annotations[added.id].time_s == 1.75 and "+250.00 ms" in plain.message.value
    plain.kind.value = "bell"
    for count, (key, expected) in enumerate([("l", "bell"), ("u", "clap"), ("y", "bell")]):
        plain.signal.pressed = {"key": key, "count": count}
        assert plain.annotations[added.id].type == expected
    plain.signal.pressed = {"key": "Backspace", "count": 9}
    assert added.id not in {row.id for row in plain.annotations.rows()}
    assert plain.signal.message == "", "what is gone is not described"
    plain.signal.pressed = {"key": "z", "count": 10}
    assert len(plain.annotations.rows()) == 4


def test_a_refused_drag_puts_the_mark_back(plain):
    sent = []
    plain.signal.observe(lambda change: sent.append(change["new"]), "marks")
    plain.select(3), plain.reject()
    plain.signal.show(9.0, 12.0)
    sent.clear()
    plain.signal.dragged = {"id": 3, "time_s": 11.5}
    assert "was rejected" in plain.message.value and plain.annotations[3].time_s == 11.0
    assert sent[0] == [] and [mark["time_s"] for mark in sent[-1] if mark["id"] == 3] == [11.0]


def test_what_cannot_be_done_is_said_and_changes_nothing(plain):
    plain.signal.selected = -1
    plain.signal.show(0.0, 4.0)
    for name, message in {
        **dict.fromkeys(("accept", "reject", "delete", "relabel"), "select an annotation first"),
        "next_change": "nothing has changed: fine-tune first",
        "review": "3 suggestions from 0.00 s to 4.00 s are undecided",
        "fine_tune": "not one labelled event",
    }.items():
        click(plain, name)
        assert message in plain.message.value and plain.message.warning
    click(plain, "undo")
    assert "nothing to undo" in plain.message.value
    assert plain.buttons["fine_tune"].description == "fine-tune now" and not plain.buttons["fine_tune"].disabled
    assert plain.annotations.counts() == {}
    plain.add(5.0, "bell")
    for message, act in {
        "no annotation 99": lambda: plain.select(99),
        "choose one": lambda: plain.add(1.5),
        "is there already": lambda: plain.add(5.004, "bell"),
    }.items():
        with pytest.raises(OptionError, match=message):
            act()
    assert plain.annotations.counts() == {"add": 1}


def test_accept_all_review_and_save(plain, tmp_path):
    plain.signal.show(0.0, 4.0)
    click(plain, "accept_in_view"), click(plain, "review"), click(plain, "save_events")
    events = read_events(tmp_path / "log.tsv", names=NAMES)
    assert events.onset_s.tolist() == [1.0, 2.0, 3.0]
    np.testing.assert_allclose(events.complete_spans_s, [[0.0, 4.0]])
    assert AnnotationLog(plain.annotations.path).counts() == {"accept": 3, "review": 1}
    assert plain.save_events(tmp_path / "other.tsv").exists()
    click(plain, "undo")
    assert "Undone: 0.00 s to 4.00 s" in plain.message.value


def test_a_click_moves_to_the_onset_and_finds_the_type(aided, simulation):
    assert (aided.kind.index, aided.kind.label, aided._type()) == (0, "(best match)", None)
    onset_s, name = simulation.events.onset_s[12], simulation.events.type_names[12]
    other = next(other for other in simulation.events.names if other != name)
    n = len(aided.annotations)
    aided.signal.show(onset_s - 1, onset_s + 1)
    aided.signal.clicked = {"time_s": onset_s + 0.006, "channel": 1, "shift": False, "count": 1}
    row = aided.annotations[aided.signal.selected]
    assert (row.type, row.status) == (name, "accepted") and abs(row.time_s - onset_s) < 5e-4
    assert len(aided.annotations) == n, "what is suggested there is accepted"
    aided.annotations.reject(row.id)
    assert aided.add(onset_s, name) == row, "what was rejected there is accepted too"
    aided.signal.dragged = {"id": row.id, "time_s": onset_s - 0.007}
    assert abs(aided.annotations[row.id].time_s - onset_s) < 5e-4
    # Exactly where it was put, and not what the detector would say.
    aided.kind.value = other
    aided.signal.clicked = {"time_s": onset_s + 0.11, "channel": 1, "shift": True, "count": 2}
    added = aided.annotations[aided.signal.selected]
    assert (added.time_s, added.type, added.status) == (onset_s + 0.11, other, "added")
    assert aided.add(simulation.events.onset_s[20] + 0.002, exact=True).type == simulation.events.type_names[20]
    aided.refining.value = False
    aided.signal.dragged = {"id": row.id, "time_s": onset_s - 0.008}
    assert aided.annotations[row.id].time_s == onset_s - 0.008
    last_s = (simulation.recording.n_samples - 1) / simulation.recording.sampling_rate_hz
    assert [aided.move(added.id, time_s).time_s for time_s in (-5.0, 1e6)] == [0.0, last_s]
    # The type in the list, or what the detector says.
    aided.select(row.id)
    assert aided.relabel().type == other
    aided.kind.index = 0
    assert aided.relabel().type == name


def test_a_new_log_begins_with_suggestions_and_an_old_one_goes_on(aided, simulation, detector):
    assert len(aided.annotations.suggestions()) >= len(detect(detector, simulation.recording))
    aided.accept()
    deleted = aided.annotations.suggestions()[-1]
    aided.select(deleted.id), aided.delete()
    assert aided.annotations[deleted.id].status == "rejected", "it would be suggested again"
    again = Annotator(simulation.recording, detector, log=aided.annotations.path)
    assert again.annotations.rows() == aided.annotations.rows()
    assert again.undo() is not None, "opening a log again leaves its past alone"


def test_what_makes_no_sense_together_is_refused(simulation, detector, tmp_path):
    path, recording = tmp_path / "log.jsonl", simulation.recording
    for error, message, signal, helper, names in (
        (OptionError, "needs the recording and the names", recording, None, None),
        (UnitError, "resample", Recording(recording.signal, 1000.0), detector, None),
        (OptionError, "names lacks event_00, event_01", recording, detector, ["bell"]),
    ):
        with pytest.raises(error, match=message):
            Annotator(signal, helper, log=path, names=names)
    assert not path.exists()


def test_fine_tuning_shows_what_changed(aided, simulation):
    # All suggestions but those of one kind are right, says this annotator.
    gone = simulation.events.names[2]
    for row in aided.annotations.suggestions():
        aided.annotations.reject(row.id) if row.type == gone else aided.annotations.accept(row.id)
    click(aided, "fine_tune")
    assert set(aided.changes.lost.type_names) >= {gone} and gone not in aided.changes.kept.type_names
    assert "have no label" in aided.report.value and gone in aided.report.value
    assert aided.signal.rows[-1]["name"] == "fine-tuned" and "Fine-tuned" in aided.message.value
    number = len(aided.changes.gained) + len(aided.changes.lost) + len(aided.changes.moved)
    seen = [aided.next_change() for _ in range(number)]
    assert seen == sorted(seen) and len(set(seen)) == number and aided.next_change() == seen[0]
    seen = [aided.next_change()[0] for _ in range(3)]
    start, stop = aided.signal.view
    assert start < seen[-1] < stop
    changed = [mark for id, mark in marks(aided).items() if id >= CHANGE_ID]
    assert changed and {mark["note"] for mark in changed} <= {"gained", "lost", "moved"}
    aided.signal.dragged = {"id": changed[0]["id"], "time_s": 1.0}
    assert "is a detection" in aided.message.value
    aided.signal.selected = changed[0]["id"]
    click(aided, "delete")
    assert "select an annotation first" in aided.message.value


def test_only_marks_near_the_view_are_sent(tmp_path):
    n = 20_000
    onset_s = np.arange(n) * 0.05 + 0.01
    table = Events.from_seconds(onset_s, np.zeros(n, int), RATE, NAMES, score=np.full(n, 0.5))
    recording = Recording(np.zeros((2_001_000, 1), np.float32), RATE)
    annotator = Annotator(recording, suggestions=table, log=tmp_path / "log.jsonl", view_s=10.0)
    for start in (0.0, 300.0, 304.0, 500.0):
        annotator.signal.show(start, start + 10.0)
        times = [mark["time_s"] for mark in annotator.signal.marks]
        inside = onset_s[(onset_s >= start) & (onset_s <= start + 10.0)]
        assert set(inside.round(6)) <= set(np.round(times, 6)) and len(times) < 700
    assert len(annotator.signal.landmarks) <= 1500


def test_the_static_figure_shows_the_view(plain):
    bundle = plain._repr_mimebundle_()
    assert {"application/vnd.jupyter.widget-view+json", "image/png"} <= set(bundle)
    before = plain.png()
    plain.accept()
    plain.annotations.accept(0), plain.annotations.reject(2)
    plain.signal.show(0.0, 4.0)
    plain.review()
    assert plain.png() != before
    marks, signal = plain.figure().axes
    assert {text.get_text() for text in marks.texts} == {"bell", "clap"} and len(signal.patches) == 1
    colours = [line.get_color() for line in signal.lines]
    assert colours.count(ANNOTATION_COLOURS["event"]) == 2 and colours.count(ANNOTATION_COLOURS["rejected"]) == 1
    assert signal.get_xlim() == pytest.approx((0.0, 4.0)) and signal.get_xlabel() == "time (s)"


def test_looking_at_a_recording_leaves_no_file_and_labels_beside_the_log_are_not_emptied(plain, tmp_path):
    assert not any(tmp_path.iterdir()) and len(plain.annotations.suggestions()) == 4
    write_events(SUGGESTED, plain.events_path)
    click(plain, "save_events")
    assert "choose another path" in plain.message.value and len(read_events(plain.events_path)) == 4
    with pytest.raises(OptionError, match="was not saved from"):
        plain.save_events()
    assert plain.save_events(tmp_path / "corrected.tsv").exists()
    # Suggestions were written with the first edit, also for whoever opens the log without them.
    assert len(Annotator(plain.recording, log=plain.annotations.path).annotations.suggestions()) == 4
