"""Suggestions hold more than detections, a click becomes an event at its onset, differences add up, labels train."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from evlib.detection.detector import detect
from evlib.detection.fit import fit
from evlib.detection.oracle import oracle_detector
from evlib.inspection.annotate import LEAST_PROBABILITY, diff_events, fine_tune, refine_onset, suggest
from evlib.inspection.annotations import AnnotationLog
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


def test_what_cannot_be_refined_is_refused(clear):
    simulation, detector = clear
    recording = simulation.recording
    for error, message, arguments in (
        (UnitError, "milliseconds", (recording, 1500.0)),
        (OptionError, "reach_s must be a positive number of seconds", (recording, 1.0, None, 0)),
        (OptionError, "unknown event name 'bell'", (recording, 1.0, "bell")),
        (UnitError, "resample", (Recording(recording.signal, 1000.0), 1.0)),
    ):
        with pytest.raises(error, match=message):
            refine_onset(detector, *arguments)


def table(samples, types):
    return Events(np.array(samples, int), np.zeros(len(samples)), np.array(types, int), ("a", "b"), 2000.0)


TABLES = st.lists(st.tuples(st.integers(0, 400), st.integers(0, 1)), max_size=15).map(
    lambda rows: table([sample for sample, _ in rows], [type for _, type in rows])
)


def rows(*tables):
    return Counter(row for events in tables for row in zip(events.sample.tolist(), events.type.tolist(), strict=True))


@settings(max_examples=60)
@given(before=TABLES, after=TABLES)
@example(table([127, 139], [0, 1]), table([135, 137], [1, 0]))  # two kinds change places
def test_differences_add_up_and_turn_round(before, after):
    change, back, same = diff_events(before, after), diff_events(after, before), diff_events(before, before)
    earlier = rows(before) - rows(change.lost)
    assert rows(after) == rows(change.gained, change.kept) and rows(change.moved) <= rows(change.kept)
    assert rows(change.lost) <= rows(before) and earlier.total() == len(change.kept)
    shift = change.kept.sample.sum() - sum(sample * n for (sample, _), n in earlier.items())
    assert len(change.moved) == len(change.moved_s) and change.moved_s.sum() * 2000 == pytest.approx(shift)
    size_s = np.abs(change.moved_s)
    assert ((size_s >= 5e-4) & (size_s <= 0.005 + 1e-9)).all()
    assert [len(e) for e in (back.lost, back.gained, back.kept)] == [
        len(e) for e in (change.gained, change.lost, change.kept)
    ]
    assert len(same.gained) + len(same.lost) + len(same.moved) == 0


@pytest.fixture(scope="module")
def simulation():
    return make_recording(make_templates(4, 3, seed=2), duration_s=40.0, snr=14.0, seed=2, transients_per_s=0.0)


@pytest.fixture
def log(simulation, tmp_path):
    return AnnotationLog(tmp_path / "log.jsonl", simulation.recording, simulation.events.names)


def test_corrected_labels_train_a_better_detector_and_its_differences_are_returned(simulation, log):
    recording, events = simulation
    rate = recording.sampling_rate_hz
    poor = replace(events, labelled_spans=np.array([[0, int(8 * rate)]])).within(0, int(8 * rate))
    poor = poor[poor.type != 3]  # nobody told this detector of the last kind
    old = fit([(recording, poor)], "matched_filter", progress=False)
    # An annotator who knows: every true event is accepted where it is suggested, else added; all else is rejected.
    log.suggest(suggest(old, recording))
    truth = list(zip(events.onset_s, events.type_names, strict=True))
    for row in log.suggestions():
        right = any(name == row.type and abs(onset_s - row.time_s) < 0.005 for onset_s, name in truth)
        log.accept(row.id) if right else log.reject(row.id)
    for onset_s, name in truth:
        if onset_s < 20 and not any(row.type == name and abs(row.time_s - onset_s) < 0.005 for row in log.rows()):
            log.add(onset_s, name)
    log.review(0.0, 20.0)
    before = compare(events, detect(old, recording).with_names(events.names))
    new, change = fine_tune(recording, log, old)
    after = compare(events, detect(new, recording))
    assert new.method == "matched_filter" and after.f1 > max(before.f1, 0.9) and change.forgotten == ()
    assert events.names[3] in change.gained.type_names and len(change.kept) + len(change.gained) == after.n_estimated
    # What was decided is not asked again.
    decided = [row for row in log.rows() if row.status != "suggested"]
    for row in log.suggestions():
        assert all(row.type != other.type or abs(row.time_s - other.time_s) > 0.01 for other in decided)


def test_kinds_without_a_label_are_learned_from_what_the_old_detector_finds(simulation, log, monkeypatch):
    """Two labels of two kinds: fine-tuning on them alone would forget all others."""
    recording, events = simulation
    for name in events.names[:2]:
        for onset_s in events.onset_s[events.type == events.names.index(name)][:2]:
            log.add(onset_s, name)
    old = oracle_detector(simulation)
    new, change = fine_tune(recording, log, old, "matched_filter", self_train=True)
    report = compare(events, detect(new, recording))
    assert new.metadata["pretrain"] == "detector" and change.forgotten == ()
    assert report.f1 > 0.9 and (report.per_type()["recall"] > 0.8).all()
    # A network that reads the signal itself takes no teacher.
    asked = []
    monkeypatch.setattr("evlib.detection.fit.fit", lambda *given, **options: asked.append((given, options)) or old)
    assert fine_tune(recording, log, old, "frames")[1].forgotten == events.names[2:]
    assert asked[0][0][1] == "frames" and asked[0][1]["pretrain"] is None


def test_without_a_detector_labels_by_hand_train_one(simulation, log):
    recording, events = simulation
    with pytest.raises(DataError, match="not one labelled event"):
        fine_tune(recording, log, method="matched_filter")
    for onset_s, name in zip(events.onset_s[:60], events.type_names[:60], strict=True):
        log.add(onset_s, name)
    log.review(0.0, events.onset_s[60])
    new, change = fine_tune(recording, log, method="matched_filter")
    assert len(change.lost) == 0 and len(change.gained) > 0.8 * len(events)
    assert refine_onset(new, recording, events.onset_s[70] + 0.003)[1] == events.type_names[70]
