"""The review of events: one row each, with the outcome that `compare` gives, and what a detector sees around it."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from planted import make_bank, make_templates, plant, schedule

from evlib.detection.detector import Detector
from evlib.inspection.browser import CandidateTrace
from evlib.scoring.comparison import KINDS, compare, review, rows_of_kind
from evlib.scoring.refractory import find_violations
from evlib.signals.errors import OptionError, UnitError
from evlib.signals.events import Events
from evlib.signals.recording import Recording
from evlib.templates.whiten import Whitener

RATE = 2000.0
NAMES = ("a", "b", "c")
tables = st.lists(st.tuples(st.integers(0, 400), st.integers(0, 2), st.floats(0, 1)), max_size=25)


def events(rows, spans=None):
    time, type, score = (np.array(column) for column in zip(*rows, strict=True)) if rows else (np.zeros(0, int),) * 3
    return Events(
        10 * time, np.zeros(len(rows)), type.astype(int), NAMES, RATE, score.astype(float), labelled_spans=spans
    )


@given(tables, tables, st.sampled_from([None, [[0, 2000]], [[500, 900], [3000, 4100]], np.zeros((0, 2), int)]))
def test_counts_are_those_of_compare_and_no_event_is_lost_or_doubled(first, second, spans):
    reference, estimated = events(first, spans), events(second)
    table, comparison = review(reference, estimated, 0.01, refractory_s=0.05), compare(reference, estimated, 0.01)
    counts = table["outcome"].value_counts()
    assert [counts.get(k, 0) for k in ("hit", "miss", "false_alarm")] == [comparison.tp, comparison.fn, comparison.fp]
    for column, whole in (("reference_s", reference), ("estimated_s", estimated)):
        np.testing.assert_array_equal(np.sort(table[column].dropna()), np.sort(whole.onset_s))
    hits = table[table["outcome"] == "hit"]
    np.testing.assert_allclose(np.sort(hits["dt_ms"]), np.sort(1e3 * comparison.dt_s), atol=1e-9)
    assert (np.diff(table["time_s"]) >= 0).all()
    # Estimates that are too close are marked, one by one; a reference event is where no estimate speaks for it.
    alone = table["reference_s"].isna()
    late = set(find_violations(estimated, 0.05)[0][:, 1])
    assert table.loc[table["estimated_s"].notna() & alone, "gap_s"].notna().sum() <= len(late)
    assert len(rows_of_kind(table, "error")) == comparison.fn + comparison.fp
    assert (table.loc[table["other"] != "", "type"] != table.loc[table["other"] != "", "other"]).all()


def test_disagreements_pair_the_two_names_of_one_time():
    reference = Events.from_seconds([1.0, 2.0, 3.0], ["a", "b", "c"], RATE, NAMES)
    estimated = Events.from_seconds([1.002, 2.001, 3.1], ["b", "b", "a"], RATE, NAMES, score=[0.9, 0.6, 0.55])
    table = review(reference, estimated, 0.005)
    assert table["outcome"].tolist() == ["miss", "false_alarm", "hit", "miss", "false_alarm"]
    assert table["other"].tolist() == ["b", "a", "", "", ""]
    assert rows_of_kind(table, "disagreement").tolist() == [0]
    assert rows_of_kind(table, "least_certain").tolist() == [4, 2, 1]
    assert rows_of_kind(table, "least_certain", table["outcome"].to_numpy() == "hit").tolist() == [2]
    # What is uncertain depends on the threshold of the type.
    strict = review(reference, estimated, 0.005, threshold={"b": 0.9, "default": 0.1})
    assert rows_of_kind(strict, "least_certain").tolist() == [1, 2, 4]


def test_refractory_violations_tell_the_gap_to_the_one_before():
    estimated = Events.from_seconds([1.0, 1.5, 4.0, 4.2], ["a", "a", "a", "b"], RATE, NAMES)
    table = review(None, estimated, refractory_s={"default": None, "a": 2.0})
    assert rows_of_kind(table, "refractory").tolist() == [1] and table["gap_s"][1] == pytest.approx(0.5)
    assert set(table["outcome"]) == {"not_judged"} and len(rows_of_kind(table, "error")) == 0
    assert len(rows_of_kind(review(None, estimated), "refractory")) == 0


def test_one_table_alone_is_not_judged_and_labels_outside_of_spans_neither():
    reference = Events.from_seconds([1.0, 3.0], ["a", "a"], RATE, NAMES, complete_spans_s=[[0, 2]])
    assert review(reference)["outcome"].tolist() == ["not_judged"] * 2
    table = review(reference, replace(reference[:0], labelled_spans=None))
    assert table["outcome"].tolist() == ["miss", "not_judged"]


def test_what_cannot_be_reviewed_is_refused():
    table = events([(1, 0, 0.5)])
    with pytest.raises(OptionError, match="nothing to review"):
        review()
    with pytest.raises(OptionError, match="kind must be one of event, error"):
        rows_of_kind(review(table), "mistake")
    with pytest.raises(OptionError, match="no name in common"):
        review(table, Events.from_seconds([1.0], ["z"], RATE))
    with pytest.raises(UnitError, match="milliseconds"):
        review(table, table, tolerance_s=5)
    assert all(len(rows_of_kind(review(table), kind)) <= 1 for kind in KINDS)


@pytest.fixture(scope="module")
def searched():
    """A detector, a recording of 35 s, and the candidates of a search through the whole of it."""
    rng = np.random.default_rng(3)
    templates = make_templates(4, 3, RATE, seed=1)
    time, type, n = schedule(rng, 200, 4, gap=310)
    signal = plant(templates, time, type, 9.0, n, rng)
    bank = make_bank(templates, 9.0)
    taps = np.zeros((3, 101))
    taps[:, 50] = 1
    detector = Detector(Whitener(taps, np.zeros(3), RATE), bank, np.array([0.0, 1, 2, 3]), {}, -3.0)
    recording = Recording(signal, RATE)
    return detector, recording, detector.candidates(recording)


def test_candidates_in_view_are_those_of_a_search_through_all(searched, monkeypatch):
    detector, recording, all_of_them = searched
    monkeypatch.setattr("evlib.inspection.browser.MAX_TILES", 3)
    trace = CandidateTrace(detector, recording)
    time_s = all_of_them.time / RATE
    for start_s, stop_s in (
        (0.0, 3.0),
        (8.0, 24.0),
        (9.99, 10.01),
        (30.0, recording.duration_s),
        (0.0, recording.duration_s),
    ):
        inside = (time_s >= start_s) & (time_s <= stop_s)
        found_s, type, rise = trace.between(start_s, stop_s)
        np.testing.assert_allclose(found_s, time_s[inside], atol=1e-6)
        np.testing.assert_array_equal(type, all_of_them.type[inside])
        expected = all_of_them.llr[inside] + 3.0 - detector.thresholds[type]
        np.testing.assert_allclose(rise, expected, atol=1e-3)
        assert len(trace._tiles) <= 4
    with pytest.raises(UnitError, match="resample"):
        CandidateTrace(detector, Recording(recording.signal, 1000))
