"""What every report must satisfy, and the table of every event with its outcome."""

import json
import re
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from evlib.scoring.comparison import KINDS, compare, event_table, rows_of_kind
from evlib.scoring.refractory import find_violations
from evlib.signals.errors import OptionError, UnitError
from evlib.signals.events import Events

NAMES = ("a", "b")
RATE = 1000
ROWS = st.lists(st.tuples(st.integers(0, 30), st.sampled_from([-0.5, -0.25, 0.0, 0.25]), st.integers(0, 1)), max_size=6)
TOLERANCES = st.integers(0, 12).map(lambda samples: samples / RATE)


def table(rows, scores=None, names=NAMES, **options):
    sample, fraction, kind = np.array(rows, dtype=float).reshape(-1, 3).T
    return Events(sample.astype(int), fraction, kind.astype(int), names, RATE, score=scores, **options)


@given(ROWS, ROWS, TOLERANCES)
def test_counts_add_up_and_swap(ref, est, tolerance_s):
    forth, back = compare(table(ref), table(est), tolerance_s), compare(table(est), table(ref), tolerance_s)
    assert forth.tp + forth.fn == len(ref) and forth.tp + forth.fp == len(est)
    assert (forth.tp, forth.fn, forth.fp) == (back.tp, back.fp, back.fn)
    np.testing.assert_equal((forth.precision, forth.recall, forth.f1), (back.recall, back.precision, back.f1))
    assert not forth.f1 > 1
    counts = forth.table()["outcome"].value_counts()
    assert [counts.get(k, 0) for k in ("hit", "miss", "false_alarm")] == [forth.tp, forth.fn, forth.fp]
    per_type = forth.per_type()
    assert per_type[["tp", "fp", "fn"]].sum().tolist() == [forth.tp, forth.fp, forth.fn]


def test_row_order_does_not_matter(rng):
    rows = np.column_stack([rng.integers(0, 3000, 200), np.zeros(200), rng.integers(0, 2, 200)])
    other = rows + np.column_stack([rng.integers(-8, 9, 200), np.zeros(200), np.zeros(200)])
    scores = rng.random(200)
    mixed = rng.permutation(200)
    one, two = (
        compare(table(rows), table(other, scores)),
        compare(table(rows[mixed]), table(other[mixed], scores[mixed])),
    )
    assert one.summary() == two.summary()


@pytest.mark.parametrize("lateness", [5, -5])
def test_lateness_of_exactly_the_tolerance_still_matches(rng, lateness):
    sample = np.sort(rng.choice(10**6, 500, replace=False))
    reference = table(np.column_stack([sample, np.zeros(500), np.zeros(500)]))
    assert compare(reference, reference.shift(lateness), 0.005).f1 == 1.0
    report = compare(reference, reference.shift(2 * lateness), 0.005)
    assert report.recall < 0.1 and report.without_bias().recall == 1.0


def test_microsecond_clock_against_samples(rng):
    onset_s = np.sort(rng.uniform(0, 100, 50))
    reference = Events.from_seconds(onset_s, ["a"] * 50, 1e6)
    estimated = Events.from_seconds(np.round(onset_s * RATE) / RATE, ["a"] * 50, RATE)
    report = compare(reference, estimated, tolerance_s=0.0)
    assert report.f1 == 1.0 and report.timing()["p95_ms"] <= 0.5


def test_only_labelled_spans_are_judged():
    spans = np.array([[100, 200], [300, 400]])
    reference = table([(50, 0, 0), (101, 0, 0), (199, 0, 0), (202, 0, 1), (250, 0, 0)], labelled_spans=spans)
    #                 far outside | answers 101 | false alarm | answers 202, just outside | outside
    estimated = table([(20, 0, 0), (98, 0, 0), (150, 0, 0), (198, 0, 1), (260, 0, 0)])
    report = compare(reference, estimated, tolerance_s=0.005)
    assert (report.n_reference, report.tp, report.fn, report.fp) == (2, 1, 1, 1)
    assert report.estimated.sample.tolist() == [98, 150]
    assert report.estimated_outcome.tolist() == ["hit", "false_alarm"] and report.reference_outcome.tolist() == [
        "hit",
        "miss",
    ]
    assert report.hours == pytest.approx(0.2 / 3600) and report.false_alarms_per_hour == pytest.approx(3600 / 0.2)


def test_spans_over_everything_change_nothing(rng):
    rows = np.column_stack([rng.integers(0, 1000, 60), np.zeros(60), rng.integers(0, 2, 60)])
    estimated = table(rows + [3, 0, 0])
    one = compare(table(rows), estimated, duration_s=3.0)
    two = compare(table(rows, labelled_spans=np.array([[-1000, 1000 + RATE]])), estimated)
    assert one.hours == two.hours and one.summary() == two.summary()


def test_nothing_to_find_and_nothing_found():
    some, none = table([(1, 0, 0), (5, 0, 1)], scores=[0.5, 0.6]), Events.empty(NAMES, RATE)
    assert np.isnan(compare(none, none).f1) and np.isnan(compare(none, none).macro_f1)
    missed, invented = compare(some, none, duration_s=3600), compare(none, some, duration_s=3600)
    assert missed.recall == missed.f1 == 0.0 and np.isnan(missed.precision)
    assert invented.precision == invented.f1 == 0.0 and invented.false_alarms_per_hour == 2
    for report in (compare(none, none), missed, invented):
        assert json.loads(json.dumps(report.summary(), allow_nan=False))["tp"] == 0
        assert "F1" in str(report) and "<table" in report._repr_html_()


def test_names_are_united():
    report = compare(table([(1, 0, 0), (9, 0, 1)], names=("a", "b")), table([(1, 0, 1), (20, 0, 0)], names=("c", "a")))
    assert report.per_type().index.tolist() == ["a", "b", "c"]
    assert report.per_type()[["tp", "fp", "fn"]].to_numpy().tolist() == [[1, 0, 0], [0, 0, 1], [0, 1, 0]]
    assert report.macro_f1 == pytest.approx(1 / 3)


def test_timing_statistics_with_and_without_the_bias_of_each_type(rng):
    n = 400
    sample, kind = np.arange(n) * 100, np.arange(n) % 2
    error = np.where(kind == 0, 3.0, -2.0) + rng.normal(0, 0.5, n)
    reference = Events(sample, np.zeros(n), kind, NAMES, RATE)
    report = compare(reference, Events(sample, error, kind, NAMES, RATE), tolerance_s=0.01)
    timing = report.timing()
    assert timing["n"] == n and timing["rmse_ms"] == pytest.approx(np.sqrt(np.mean(error**2)))
    assert timing["bias_ms"] == pytest.approx(np.median(error))
    assert timing["mad_ms"] == pytest.approx(np.median(np.abs(error - np.median(error))))
    assert timing["p95_ms"] == pytest.approx(np.quantile(np.abs(error), 0.95))
    assert timing["share_within_2.5_ms"] == pytest.approx(np.mean(np.abs(error) <= 2.5))
    assert timing["without_type_medians"]["rmse_ms"] == pytest.approx(0.5, rel=0.15)
    assert report.per_type()["bias_ms"].tolist() == pytest.approx([3.0, -2.0], abs=0.1)


def test_average_precision_equals_the_library_when_every_event_has_one_candidate(rng):
    n = 300
    sample = np.arange(n) * 100
    is_event = rng.random(n) < 0.4
    score = np.round(rng.normal(is_event, 1.0), 1)  # with ties
    rows = np.column_stack([sample, np.zeros(n), np.zeros(n)])
    report = compare(table(rows[is_event]), table(rows, score))
    assert report.average_precision()["a"] == pytest.approx(average_precision_score(is_event, score))
    assert np.isnan(report.average_precision()["b"])
    assert np.isnan(compare(table(rows), table(rows)).average_precision()["a"]), "without scores there is no curve"


def test_recall_at_false_alarms(rng):
    rows = np.array([(100 * k, 0, 0) for k in range(10)])
    scores = [0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.05]
    reference = table(rows[[0, 1, 3, 5, 9]])  # in falling score: hit hit miss hit miss hit miss miss miss hit
    report = compare(reference, table(rows, scores), duration_s=3600)
    assert report.recall_at_false_alarms((0, 1, 2, 5)) == {0: 0.4, 1: 0.6, 2: 0.8, 5: 1.0}
    assert np.isnan(compare(reference, table(rows, scores)).recall_at_false_alarms()[1]), "the duration is unknown"


def test_refractory_violations_are_counted():
    events = table([(0, 0, 0), (500, 0, 0), (600, 0, 1)])
    assert compare(events, events[[0]], refractory_s=1.0).refractory_violations() == {"reference": 1, "estimated": 0}
    assert compare(events, events).refractory_violations() is None
    assert "1 in reference" in str(compare(events, events[[0]], refractory_s=1.0))


@pytest.mark.parametrize("n", [0, 30])
def test_plot_draws_labelled_axes(rng, n):
    rows = np.column_stack([np.arange(n) * 100, np.zeros(n), rng.integers(0, 2, n)])
    left, right = compare(table(rows), table(rows + [2, 0, 0] if n else rows)).plot()
    assert left.get_ylabel() == "F1 at 5 ms" and "(ms)" in right.get_xlabel()
    assert sum(bar.get_height() for bar in right.patches) == n
    plt.close("all")


def test_a_comparison_knows_its_calibration():
    reference = table([(10, 0, 0), (50, 0, 0)])
    estimated = table(
        [(11, 0, 0), (50, 0, 0), (90, 0, 0)], scores=[0.9, 0.8, 0.2], sigma_s=np.array([0.0006, 0.001, 0.001])
    )
    result = compare(reference, estimated).calibration(n_bins=2)
    assert result["n"].tolist() == [1, 2] and result["observed"].tolist() == [0.0, 1.0]
    assert (result["coverage_68"], result["coverage_95"]) == (0.5, 1.0)
    unknown = compare(reference, table([(10, 0, 0)], scores=[0.5])).calibration()
    assert np.isnan(unknown["coverage_68"])


def test_refusals():
    events = table([(1, 0, 0)])
    with pytest.raises(UnitError, match="duration_s"):
        compare(events, events, duration_s=0)
    with pytest.raises(OptionError, match="no name in common"):
        compare(events, table([(1, 0, 0)], names=("x", "y")))
    with pytest.raises(OptionError, match="there are no events"):
        event_table()
    with pytest.raises(OptionError, match="kind must be one of event, error"):
        rows_of_kind(event_table(events), "mistake")


# ---- the table of events ---------------------------------------------------------------------------------------------

SCORED = st.lists(st.tuples(st.integers(0, 400), st.integers(0, 1), st.floats(0, 1)), max_size=25)


@given(SCORED, SCORED, st.sampled_from([None, [[0, 2000]], [[500, 900], [3000, 4100]], np.zeros((0, 2), int)]))
def test_no_event_is_lost_or_doubled_in_the_table(first, second, spans):
    reference, estimated = (
        table([(10 * time, 0, type) for time, type, _ in rows], [score for *_, score in rows], labelled_spans=s)
        for rows, s in ((first, spans), (second, None))
    )
    comparison = compare(reference, estimated, 0.01, refractory_s=0.05)
    events = comparison.table()
    counts = events["outcome"].value_counts()
    assert [counts.get(k, 0) for k in ("hit", "miss", "false_alarm")] == [comparison.tp, comparison.fn, comparison.fp]
    for column, whole in (("reference_s", reference), ("estimated_s", estimated)):
        np.testing.assert_array_equal(np.sort(events[column].dropna()), np.sort(whole.onset_s))
    hits = events[events["outcome"] == "hit"]
    np.testing.assert_allclose(np.sort(hits["dt_ms"]), np.sort(1e3 * comparison.dt_s), atol=1e-9)
    assert (np.diff(events["time_s"]) >= 0).all()
    # Estimates that are too close are marked, one by one; a reference event is where no estimate answers it.
    late = set(find_violations(estimated, 0.05)[0][:, 1])
    assert events.loc[events["reference_s"].isna(), "gap_s"].notna().sum() <= len(late)
    assert len(rows_of_kind(events, "error")) == comparison.fn + comparison.fp
    assert (events["type"] != events["other"]).all()


def test_disagreements_pair_the_two_names_of_one_time():
    reference = Events.from_seconds([1.0, 2.0, 3.0], ["a", "b", "a"], RATE, NAMES)
    estimated = Events.from_seconds([1.002, 2.001, 3.1], ["b", "b", "a"], RATE, NAMES, score=[0.9, 0.6, 0.55])
    events = compare(reference, estimated).table()
    assert events["outcome"].tolist() == ["miss", "false_alarm", "hit", "miss", "false_alarm"]
    assert events["other"].tolist() == ["b", "a", "", "", ""]
    assert rows_of_kind(events, "disagreement").tolist() == [0]
    assert rows_of_kind(events, "least_certain").tolist() == [4, 2, 1]
    assert rows_of_kind(events, "least_certain", events["outcome"].to_numpy() == "hit").tolist() == [2]
    # What is uncertain depends on the threshold of the type.
    strict = compare(reference, estimated).table(threshold={"b": 0.9, "default": 0.1})
    assert rows_of_kind(strict, "least_certain").tolist() == [1, 2, 4]


def test_violations_show_the_gap_to_the_event_before():
    estimated = Events.from_seconds([1.0, 1.5, 4.0, 4.2], ["a", "a", "a", "b"], RATE, NAMES)
    events = event_table(None, estimated, refractory_s={"default": None, "a": 2.0})
    assert rows_of_kind(events, "refractory").tolist() == [1] and events["gap_s"][1] == pytest.approx(0.5)
    assert set(events["outcome"]) == {"not_judged"} and len(rows_of_kind(events, "error")) == 0
    assert len(rows_of_kind(event_table(None, estimated), "refractory")) == 0


def test_one_table_alone_is_not_judged_and_labels_outside_of_spans_neither():
    reference = Events.from_seconds([1.0, 3.0], ["a", "a"], RATE, NAMES, complete_spans_s=[[0, 2]])
    assert event_table(reference)["outcome"].tolist() == ["not_judged"] * 2
    nothing_found = event_table(reference, replace(reference[:0], labelled_spans=None))
    assert nothing_found["outcome"].tolist() == ["miss", "not_judged"]
    assert all(len(rows_of_kind(event_table(reference[:1]), kind)) <= 1 for kind in KINDS)


# ---- what is said ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("other", ["Bell", "bell ", " bell", "BELL", "ｂｅｌｌ", "bell\u200b", "bell\u00a0"])
def test_nearly_equal_names_are_said(other):
    reference, estimated = (Events.from_seconds([1, 2], [name, "step"], 100) for name in ("bell", other))
    with pytest.warns(UserWarning, match=re.escape(f"'bell' and {other!r} count as two kinds")):
        assert compare(reference, estimated).tp == 1


@pytest.mark.parametrize(
    ("first", "second"),
    [(["A", "a"], ["A", "a"]), (["step 1"], ["step 2"]), (["1 2"], ["12"]), (["e\u0301"], ["e"])],
)
def test_other_names_are_not(first, second, recwarn):
    names = ("common", *first), ("common", *second)
    compare(*(Events.from_seconds(range(len(n)), n, 100) for n in names))
    assert not list(recwarn)


@given(
    st.lists(st.tuples(st.integers(0, 200), st.integers(1, 40)), max_size=4),
    st.lists(st.integers(0, 300), min_size=1, max_size=20, unique=True),
    st.sampled_from([30.0, 33.3, 100.0, 7.0, 2000.0]),
)
def test_what_is_judged_does_not_depend_on_the_clock_of_the_estimates(spans, sample, rate):
    none = np.zeros(len(sample))
    spans = np.array([(a, a + n) for a, n in spans], int).reshape(-1, 2)
    events = Events(sample, none, none.astype(int), ["a"], 100, labelled_spans=spans)
    report = compare(events, replace(events, labelled_spans=None).at_rate(rate), 0.0)
    assert report.n_reference == report.n_estimated == events.is_labelled(np.array(sample)).sum()
    moved = events.at_rate(rate)
    assert moved.is_labelled(moved.sample).sum() >= report.n_reference, "what lies within a span stays within it"
