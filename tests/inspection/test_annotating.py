"""A session: clicks become events at onsets, nothing is there twice, and corrected labels train a better detector."""

from dataclasses import replace

import numpy as np
import pytest

from evlib.detection.detector import detect
from evlib.detection.fit import fit
from evlib.detection.oracle import oracle_detector
from evlib.inspection.annotate import AnnotationSession
from evlib.scoring.comparison import compare
from evlib.signals.errors import DataError, OptionError, UnitError
from evlib.signals.recording import Recording
from evlib.signals.synthetic import make_recording, make_templates


@pytest.fixture(scope="module")
def simulation():
    return make_recording(make_templates(4, 3, seed=2), duration_s=40.0, snr=14.0, seed=2, transients_per_s=0.0)


@pytest.fixture(scope="module")
def detector(simulation):
    return oracle_detector(simulation)


@pytest.fixture
def session(simulation, detector, tmp_path):
    return AnnotationSession(simulation.recording, detector, log=tmp_path / "log.jsonl")


def test_a_new_log_begins_with_proposals_and_an_old_one_goes_on(session, simulation, detector):
    assert len(session.log.suggestions()) >= len(detect(detector, simulation.recording))
    session.log.accept(session.log.suggestions()[0].id)
    again = AnnotationSession(simulation.recording, detector, log=session.log.path)
    assert again.log.rows() == session.log.rows()
    assert again.log.undo() is not None, "opening a log again leaves its past alone"


def test_a_click_accepts_what_is_proposed_there_and_adds_what_is_not(session, simulation):
    onset_s, name = simulation.events.onset_s[10], simulation.events.type_names[10]
    n = len(session.log.rows())
    row, score = session.add(onset_s + 0.004)
    assert (row.type, row.status) == (name, "accepted") and abs(row.time_s - onset_s) < 5e-4 and score > 6
    assert len(session.log.rows()) == n
    with pytest.raises(OptionError, match="is there already"):
        session.add(onset_s - 0.003, name)
    session.log.reject(row.id)
    assert session.add(onset_s, name)[0] == row
    # Exactly where it was put, and not what the detector would say.
    other = next(other for other in simulation.events.names if other != name)
    row, score = session.add(onset_s + 0.03, other, exact=True)
    assert (row.time_s, row.type, row.status, score) == (onset_s + 0.03, other, "added", None)
    found = session.add(simulation.events.onset_s[20] + 0.002, exact=True)
    assert found[0].type == simulation.events.type_names[20] and found[1] > 6


def test_moving_snaps_and_relabelling_asks_the_detector(session, simulation):
    onset_s, name = simulation.events.onset_s[7], simulation.events.type_names[7]
    other = next(other for other in simulation.events.names if other != name)
    id = session.add(onset_s + 0.2, other, exact=True)[0].id
    assert session.relabel(id, name).after.type == name
    edit = session.move(id, onset_s + 0.006)
    assert abs(edit.after.time_s - onset_s) < 5e-4
    session.relabel(id, other)
    assert session.relabel(id).after.type == name
    assert session.move(id, -5.0, exact=True).after.time_s == 0.0
    last_s = (simulation.recording.n_samples - 1) / simulation.recording.sampling_rate_hz
    assert session.move(id, 1e6, exact=True).after.time_s == last_s


def test_a_stretch_is_complete_only_when_all_in_it_is_decided(session):
    with pytest.raises(OptionError, match="undecided: accept or reject"):
        session.review(5.0, 9.0)
    for row in session.log.suggestions():
        if 5.0 <= row.time_s < 9.0:
            session.log.accept(row.id)
    session.review(5.0, 9.0)
    np.testing.assert_allclose(session.log.events().complete_spans_s, [[5.0, 9.0]])


def test_deleting_a_proposal_rejects_it_so_that_it_does_not_come_back(session, detector):
    row = session.log.suggestions()[-1]
    session.delete(row.id)
    assert session.log[row.id].status == "rejected"
    added = session.add(row.time_s + 0.06, row.type, exact=True)[0]
    session.delete(added.id)
    with pytest.raises(OptionError, match="no annotation"):
        session.log[added.id]


def test_events_too_close_for_their_kind_are_counted(session):
    assert session.violations() == 0
    session.add(0.05, session.log.names[0], exact=True), session.add(0.15, session.log.names[0], exact=True)
    assert session.violations() == 1


def test_corrected_labels_train_a_better_detector_and_its_changes_are_told(simulation, tmp_path):
    events, recording = simulation.events, simulation.recording
    rate = recording.sampling_rate_hz
    poor = replace(events, labelled_spans=np.array([[0, int(8 * rate)]])).within(0, int(8 * rate))
    poor = poor[poor.type != 3]  # nobody told this detector of the last kind
    old = fit([(recording, poor)], "matched_filter", progress=False)
    session = AnnotationSession(recording, old, log=tmp_path / "log.jsonl", names=events.names)
    # An annotator who knows: every true event is accepted where it is proposed, else added; all else is rejected.
    for row in session.log.suggestions():
        near = np.abs(events.onset_s - row.time_s) < 0.005
        right = any(name == row.type for name, here in zip(events.type_names, near, strict=True) if here)
        session.log.accept(row.id) if right else session.log.reject(row.id)
    for onset_s, name in zip(events.onset_s, events.type_names, strict=True):
        if onset_s < 20 and not any(
            row.type == name and abs(row.time_s - onset_s) < 0.005 for row in session.log.rows()
        ):
            session.add(onset_s, name, exact=True)
    session.review(0.0, 20.0)
    assert session.unlearnable() == []
    before = compare(events, detect(old, recording).with_names(events.names))
    change = session.fine_tune()
    after = compare(events, detect(session.detector, recording))
    assert session.detector is not old and session.detector.method == "matched_filter"
    assert after.f1 > before.f1 and after.f1 > 0.9
    assert events.names[3] in change.gained.type_names and len(change.after) + len(change.gained) == after.n_estimated
    # What was decided is not asked again.
    decided = [row for row in session.log.rows() if row.status != "suggested"]
    for row in session.log.suggestions():
        assert all(row.type != other.type or abs(row.time_s - other.time_s) > 0.01 for other in decided)


def test_kinds_without_a_label_are_learned_from_what_the_old_detector_finds(simulation, detector, tmp_path):
    """Two labels of two kinds: fine-tuning on them alone would forget all others."""
    events, recording = simulation.events, simulation.recording
    session = AnnotationSession(recording, detector, suggestions=events[:0], log=tmp_path / "log.jsonl")
    for name in events.names[:2]:
        for onset_s in events.onset_s[events.type == events.names.index(name)][:2]:
            session.add(onset_s, name)
    assert session.unlearnable() == [] and session.unlearnable("frames") == list(events.names[2:])
    session.fine_tune("matched_filter", self_train=True)
    report = compare(events, detect(session.detector, recording))
    assert session.detector.metadata["pretrain"] == "detector"
    assert report.f1 > 0.9 and (report.per_type()["recall"] > 0.8).all()


def test_without_a_detector_everything_is_by_hand(simulation, tmp_path):
    recording, events = simulation.recording, simulation.events
    session = AnnotationSession(recording, log=tmp_path / "log.jsonl", names=events.names)
    with pytest.raises(OptionError, match="choose one"):
        session.add(1.0)
    with pytest.raises(DataError, match="not one labelled event"):
        session.fine_tune("matched_filter")
    for onset_s, name in zip(events.onset_s[:60], events.type_names[:60], strict=True):
        session.add(onset_s, name)
    session.review(0.0, events.onset_s[60])
    change = session.fine_tune("matched_filter")
    assert len(change.lost) == 0 and len(change.gained) > 0.8 * len(events)
    assert session.add(events.onset_s[70] + 0.003)[0].type == events.type_names[70]


def test_a_session_that_makes_no_sense_is_refused(simulation, detector, tmp_path):
    recording = simulation.recording
    with pytest.raises(OptionError, match="needs the recording and the names"):
        AnnotationSession(recording, log=tmp_path / "log.jsonl")
    with pytest.raises(UnitError, match="resample"):
        AnnotationSession(Recording(recording.signal, 1000.0), detector, log=tmp_path / "log.jsonl")
    with pytest.raises(OptionError, match="names lacks event_00, event_01"):
        AnnotationSession(recording, detector, log=tmp_path / "log.jsonl", names=["bell"])
    assert not (tmp_path / "log.jsonl").exists()
