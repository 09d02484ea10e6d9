"""Suggestions hold more than detections, a click becomes an event at its onset, differences add up, labels train."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from evlib.detection.detector import detect
from evlib.detection.fit import fit
from evlib.detection.oracle import oracle_detector
from evlib.inspection.annotate import LEAST_PROBABILITY, AnnotationSession, diff_events, refine_onset, suggest
from evlib.scoring.comparison import compare
from evlib.scoring.matching import match_events
from evlib.scoring.refractory import find_violations
from evlib.signals.errors import DataError, OptionError, UnitError
from evlib.signals.events import Events
from evlib.signals.recording import Recording
from evlib.signals.synthetic import make_recording, make_templates


@pytest.fixture(scope="module")
def weak():
    """Events that are hard to see, and the detector that knows their templates."""
    simulation = make_recording(duration_s=40.0, snr=6.0, seed=3)
    return simulation, oracle_detector(simulation)


@pytest.fixture(scope="module")
def clear():
    simulation = make_recording(duration_s=20.0, snr=15.0, seed=4, transients_per_s=0.0)
    return simulation, oracle_detector(simulation)


def test_suggestions_are_the_detections_and_the_doubtful_beside_them(weak):
    simulation, detector = weak
    detected = detect(detector, simulation.recording)
    suggested = suggest(detector, simulation.recording)
    pairs, dt = match_events(detected, suggested, 0.0)
    assert len(pairs) == len(detected) and (dt == 0).all(), "every detection is suggested"
    assert len(find_violations(suggested, detector.refractory_s)[0]) == 0
    extra = np.ones(len(suggested), bool)
    extra[pairs[:, 1]] = False
    assert extra.any() and (suggested.score[extra] >= LEAST_PROBABILITY).all()
    # The misses of a strict detector are among them: that is what suggestions are for.
    strict = replace(detector, thresholds=detector.thresholds + 2)
    tables = (find(strict, simulation.recording) for find in (detect, suggest))
    recall = [compare(simulation.events, table, 0.005).recall for table in tables]
    assert recall[1] > recall[0] + 0.01


def test_without_a_refractory_rule_an_event_is_still_suggested_once(weak):
    simulation, detector = weak
    free = replace(detector, refractory_s=dict.fromkeys(detector.names, 0.0))
    suggested = suggest(free, simulation.recording)
    gap_s = [np.diff(suggested.onset_s[suggested.type == k]).min(initial=1) for k in range(len(suggested.names))]
    assert min(gap_s) > 0.001


def test_a_click_near_an_event_becomes_its_onset(clear, rng):
    simulation, detector = clear
    onset_s, names = simulation.events.onset_s, simulation.events.type_names
    rows = np.arange(2, len(onset_s), 9)
    for row in rows:
        click = onset_s[row] + rng.uniform(-0.008, 0.008)
        time_s, type, score = refine_onset(detector, simulation.recording, click)
        assert type == names[row] and abs(time_s - onset_s[row]) < 3e-4 and score > 6
        assert refine_onset(detector, simulation.recording, click, type)[0] == time_s


def test_of_several_candidates_in_reach_the_clearest_is_taken(weak):
    simulation, detector = weak
    candidates = detector.candidates(simulation.recording)
    rate, crowded = simulation.recording.sampling_rate_hz, 0
    for time_s in np.arange(2.0, 38.0, 1.1):
        near = np.flatnonzero(np.abs(candidates.time / rate - time_s) <= 0.2)
        if len(near) < 2:
            continue
        crowded += 1
        best = near[candidates.llr_isolated[near].argmax()]
        found = refine_onset(detector, simulation.recording, time_s, reach_s=0.2)
        assert found[:2] == (
            pytest.approx(candidates.time[best] / rate, abs=1e-6),
            detector.names[candidates.type[best]],
        )
    assert crowded > 10


def test_where_nothing_happened_the_highest_template_score_in_reach_is_taken(clear):
    simulation, detector = clear
    onset_s = simulation.events.onset_s
    gap = np.argmax(np.diff(onset_s))
    middle = (onset_s[gap] + onset_s[gap + 1]) / 2
    name = simulation.events.names[3]
    time_s, type, score = refine_onset(detector, simulation.recording, middle, name, reach_s=0.01)
    scores = detector.bank.scores(detector.whitener(simulation.recording))[:, 3]
    ratio = detector.bank.log_likelihood_ratio(scores, 3)
    rate = simulation.recording.sampling_rate_hz
    near = np.arange(int(np.ceil((middle - 0.01) * rate)), int((middle + 0.01) * rate) + 1)
    assert type == name and score < 3
    assert abs(time_s * rate - near[ratio[near].argmax()]) <= 0.5


@pytest.mark.parametrize("time_s", [0.0, 0.001, 19.9999, 20.0])
def test_a_click_at_an_end_stays_inside_of_the_recording(clear, time_s):
    simulation, detector = clear
    refined = refine_onset(detector, simulation.recording, time_s, simulation.events.names[0])[0]
    assert abs(refined - time_s) <= 0.021 and 0 <= refined < simulation.recording.duration_s


def test_what_cannot_be_refined_or_suggested_is_refused(clear):
    simulation, detector = clear
    recording = simulation.recording
    with pytest.raises(UnitError, match="milliseconds"):
        refine_onset(detector, recording, 1500.0)
    with pytest.raises(UnitError, match="reach_s must be seconds"):
        refine_onset(detector, recording, 1.0, reach_s=20)
    with pytest.raises(OptionError, match="unknown event name 'bell'"):
        refine_onset(detector, recording, 1.0, "bell")
    with pytest.raises(UnitError, match="resample"):
        refine_onset(detector, Recording(recording.signal, 1000.0), 1.0)
    with pytest.raises(OptionError, match="percent"):
        suggest(detector, recording, least_probability=10)


@st.composite
def tables(draw):
    time = draw(st.lists(st.integers(0, 400), max_size=15))
    type = draw(st.lists(st.integers(0, 1), min_size=len(time), max_size=len(time)))
    return Events(np.array(time, int), np.zeros(len(time)), np.array(type, int), ("a", "b"), 2000.0)


def key(events):
    return sorted(zip(events.sample.tolist(), events.type.tolist(), strict=True))


def table(samples, types):
    return Events(np.array(samples), np.zeros(len(samples)), np.array(types), ("a", "b"), 2000.0)


@settings(max_examples=60)
@given(before=tables(), after=tables())
@example(table([127, 139], [0, 1]), table([135, 137], [1, 0]))  # two kinds change places
def test_differences_add_up_and_turn_round(before, after):
    change = diff_events(before, after)
    kept = zip(np.rint(change.before_s * 2000).astype(int).tolist(), change.after.type.tolist(), strict=True)
    assert key(before) == sorted([*key(change.lost), *kept])
    assert key(after) == sorted(key(change.gained) + key(change.after))
    np.testing.assert_allclose(change.after.onset_s - change.before_s, change.moved_s, atol=1e-12)
    assert (np.abs(change.moved_s) <= 0.005 + 1e-9).all() and ((np.abs(change.moved_s) >= 5e-4) == change.moved).all()
    back = diff_events(after, before)
    assert (len(back.gained), len(back.lost), len(back.after)) == (
        len(change.lost),
        len(change.gained),
        len(change.after),
    )
    assert change.to_frame()[["gained", "kept"]].to_numpy().sum() == len(after)
    same = diff_events(before, before)
    assert len(same.gained) + len(same.lost) + same.moved.sum() == 0


@pytest.fixture(scope="module")
def simulation():
    return make_recording(make_templates(4, 3, seed=2), duration_s=40.0, snr=14.0, seed=2, transients_per_s=0.0)


@pytest.fixture(scope="module")
def detector(simulation):
    return oracle_detector(simulation)


@pytest.fixture
def session(simulation, detector, tmp_path):
    return AnnotationSession(simulation.recording, detector, log=tmp_path / "log.jsonl")


def test_a_new_log_begins_with_suggestions_and_an_old_one_goes_on(session, simulation, detector):
    assert len(session.log.suggestions()) >= len(detect(detector, simulation.recording))
    session.log.accept(session.log.suggestions()[0].id)
    again = AnnotationSession(simulation.recording, detector, log=session.log.path)
    assert again.log.rows() == session.log.rows()
    assert again.log.undo() is not None, "opening a log again leaves its past alone"


def test_a_click_accepts_what_is_suggested_there_and_adds_what_is_not(session, simulation):
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


def test_moving_refines_and_relabelling_asks_the_detector(session, simulation):
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


def test_deleting_a_suggestion_rejects_it_so_that_it_does_not_come_back(session, detector):
    row = session.log.suggestions()[-1]
    session.delete(row.id)
    assert session.log[row.id].status == "rejected"
    added = session.add(row.time_s + 0.06, row.type, exact=True)[0]
    session.delete(added.id)
    with pytest.raises(OptionError, match="no annotation"):
        session.log[added.id]


def test_corrected_labels_train_a_better_detector_and_its_differences_are_returned(simulation, tmp_path):
    events, recording = simulation.events, simulation.recording
    rate = recording.sampling_rate_hz
    poor = replace(events, labelled_spans=np.array([[0, int(8 * rate)]])).within(0, int(8 * rate))
    poor = poor[poor.type != 3]  # nobody told this detector of the last kind
    old = fit([(recording, poor)], "matched_filter", progress=False)
    session = AnnotationSession(recording, old, log=tmp_path / "log.jsonl", names=events.names)
    # An annotator who knows: every true event is accepted where it is suggested, else added; all else is rejected.
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
