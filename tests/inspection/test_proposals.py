"""Proposals hold more than detections, a snapped click is the event, and changes add up."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from evlib.detection.detector import detect
from evlib.detection.oracle import oracle_detector
from evlib.inspection.annotate import LEAST_PROBABILITY, diff_events, refine_onset, suggest
from evlib.scoring.comparison import compare
from evlib.scoring.matching import match_events
from evlib.scoring.refractory import find_violations
from evlib.signals.errors import OptionError, UnitError
from evlib.signals.events import Events
from evlib.signals.recording import Recording
from evlib.signals.synthetic import make_recording


@pytest.fixture(scope="module")
def weak():
    """Events that are hard to see, and the detector that knows their templates."""
    simulation = make_recording(duration_s=40.0, snr=6.0, seed=3)
    return simulation, oracle_detector(simulation)


@pytest.fixture(scope="module")
def clear():
    simulation = make_recording(duration_s=20.0, snr=15.0, seed=4, transients_per_s=0.0)
    return simulation, oracle_detector(simulation)


def test_proposals_are_the_detections_and_the_doubtful_beside_them(weak):
    simulation, detector = weak
    detected = detect(detector, simulation.recording)
    proposed = suggest(detector, simulation.recording)
    pairs, dt = match_events(detected, proposed, 0.0)
    assert len(pairs) == len(detected) and (dt == 0).all(), "every detection is proposed"
    assert len(find_violations(proposed, detector.refractory_s)[0]) == 0
    extra = np.ones(len(proposed), bool)
    extra[pairs[:, 1]] = False
    assert extra.any() and (proposed.score[extra] >= LEAST_PROBABILITY).all()
    # The misses of a strict detector are among them: that is what proposals are for.
    strict = replace(detector, thresholds=detector.thresholds + 2)
    tables = (find(strict, simulation.recording) for find in (detect, suggest))
    recall = [compare(simulation.events, table, 0.005).recall for table in tables]
    assert recall[1] > recall[0] + 0.01


def test_without_a_refractory_rule_an_event_is_still_proposed_once(weak):
    simulation, detector = weak
    free = replace(detector, refractory_s=dict.fromkeys(detector.names, 0.0))
    proposed = suggest(free, simulation.recording)
    gap_s = [np.diff(proposed.onset_s[proposed.type == k]).min(initial=1) for k in range(len(proposed.names))]
    assert min(gap_s) > 0.001


def test_a_click_near_an_event_snaps_onto_it(clear, rng):
    simulation, detector = clear
    onset_s, names = simulation.events.onset_s, simulation.events.type_names
    rows = np.arange(2, len(onset_s), 9)
    for row in rows:
        click = onset_s[row] + rng.uniform(-0.008, 0.008)
        time_s, type, score = refine_onset(detector, simulation.recording, click)
        assert type == names[row] and abs(time_s - onset_s[row]) < 3e-4 and score > 6
        assert refine_onset(detector, simulation.recording, click, type)[0] == time_s


def test_snapping_finds_what_detection_finds(weak):
    simulation, detector = weak
    detected = detect(detector, simulation.recording)
    for row in range(3, len(detected), 25):
        name, onset_s = detected.type_names[row], detected.onset_s[row]
        assert refine_onset(detector, simulation.recording, onset_s + 0.001, name, reach_s=0.003)[0] == pytest.approx(
            onset_s, abs=1e-6
        )


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
    snapped = refine_onset(detector, simulation.recording, time_s, simulation.events.names[0])[0]
    assert abs(snapped - time_s) <= 0.021 and 0 <= snapped < simulation.recording.duration_s


def test_what_cannot_be_snapped_or_proposed_is_refused(clear):
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


@pytest.mark.parametrize("moved_s", [-1.0, float("nan")])
def test_a_move_has_a_size(moved_s):
    with pytest.raises(OptionError, match="moved_s"):
        diff_events(table([1], [0]), table([1], [0]), moved_s=moved_s)


@settings(max_examples=60)
@given(before=tables(), after=tables())
@example(table([127, 139], [0, 1]), table([135, 137], [1, 0]))  # two kinds change places
def test_changes_add_up_and_turn_round(before, after):
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
