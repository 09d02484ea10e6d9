"""Matching against brute force, and what every report must satisfy."""

import json
from itertools import permutations

import matplotlib.pyplot as plt
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from evlib.scoring import matching
from evlib.scoring.comparison import compare
from evlib.scoring.matching import match_events
from evlib.scoring.statistics import bootstrap_interval, coverage, reliability
from evlib.signals.errors import DataError, OptionError, UnitError
from evlib.signals.events import Events

NAMES = ("a", "b")
RATE = 1000
ROWS = st.lists(st.tuples(st.integers(0, 30), st.sampled_from([-0.5, -0.25, 0.0, 0.25]), st.integers(0, 1)), max_size=6)
TOLERANCES = st.integers(0, 12).map(lambda samples: samples / RATE)


def table(rows, scores=None, names=NAMES, **options):
    sample, fraction, kind = np.array(rows, dtype=float).reshape(-1, 3).T
    return Events(sample.astype(int), fraction, kind.astype(int), names, RATE, score=scores, **options)


def best_pairing(reference, estimated, tolerance, ignore_type=False):
    """(most matches, least total |dt|) by trying every order."""
    best = (0, 0.0)
    few, many = (reference, estimated) if len(reference) <= len(estimated) else (estimated, reference)
    for order in permutations(range(len(many)), len(few)):
        order = np.array(order, dtype=int)
        fits = np.abs(many.sample[order] - few.sample) <= tolerance
        fits &= ignore_type | (many.type[order] == few.type)
        total = np.abs(many.time_samples[order] - few.time_samples)[fits].sum()
        best = max(best, (int(fits.sum()), -total))
    return best[0], -best[1]


@given(ROWS, ROWS, TOLERANCES, st.booleans())
def test_matching_equals_brute_force(ref, est, tolerance_s, ignore_type):
    reference, estimated = table(ref), table(est)
    pairs, dt = match_events(reference, estimated, tolerance_s, ignore_type)
    n, total = best_pairing(reference, estimated, round(tolerance_s * RATE), ignore_type)
    assert len(pairs) == n and np.abs(dt).sum() == pytest.approx(total)
    assert len(set(pairs[:, 0])) == len(set(pairs[:, 1])) == n, "one to one"
    r, e = pairs.T
    np.testing.assert_allclose(dt, estimated.time_samples[e] - reference.time_samples[r])
    assert ignore_type or (reference.type[r] == estimated.type[e]).all()


@given(ROWS, ROWS, TOLERANCES)
def test_the_sparse_solver_gives_the_same(ref, est, tolerance_s):
    dense = match_events(table(ref), table(est), tolerance_s)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(matching, "LARGE_BLOCK", 0)
        sparse = match_events(table(ref), table(est), tolerance_s)
    assert len(sparse[0]) == len(dense[0]) and np.abs(sparse[1]).sum() == pytest.approx(np.abs(dense[1]).sum())


@given(ROWS, ROWS, TOLERANCES)
def test_counts_add_up_and_swap(ref, est, tolerance_s):
    forth, back = compare(table(ref), table(est), tolerance_s), compare(table(est), table(ref), tolerance_s)
    assert forth.tp + forth.fn == len(ref) and forth.tp + forth.fp == len(est)
    assert (forth.tp, forth.fn, forth.fp) == (back.tp, back.fp, back.fn)
    np.testing.assert_equal((forth.precision, forth.recall, forth.f1), (back.recall, back.precision, back.f1))
    assert not forth.f1 > 1
    counts = forth.to_frame()["outcome"].value_counts()
    assert [counts.get(k, 0) for k in ("hit", "miss", "false_alarm")] == [forth.tp, forth.fn, forth.fp]
    per_type = forth.per_type()
    assert per_type[["tp", "fp", "fn"]].sum().tolist() == [forth.tp, forth.fp, forth.fn]


@given(ROWS, ROWS)
def test_a_wider_tolerance_never_loses_a_match(ref, est):
    counts = compare(table(ref), table(est)).at_tolerances([k / RATE for k in range(12)])
    assert (np.diff(counts["tp"]) >= 0).all() and (np.diff(counts["fp"]) <= 0).all()


def test_pairs_are_rows_of_what_was_passed_in():
    # Another order of names and another clock: rows that coincide sort differently inside.
    reference = Events.from_seconds([1.0, 1.0, 2.0], ["a", "b", "a"], 1e6, names=("a", "b"))
    estimated = Events.from_seconds([1.0, 1.0, 2.0], ["a", "b", "a"], RATE, names=("b", "a"))
    pairs, dt = match_events(reference, estimated, 0.0)
    assert len(pairs) == 3 and not dt.any()
    assert [reference.type_names[r] for r, _ in pairs] == [estimated.type_names[e] for _, e in pairs]


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


def test_perfect_predictions_score_one_at_tolerance_zero():
    events = table([(1, 0.25, 0), (1, 0.25, 1), (9, 0, 0)])
    report = compare(events, events, tolerance_s=0)
    assert report.f1 == report.macro_f1 == 1.0 and report.timing()["rmse_ms"] == 0.0


def test_most_matches_come_before_the_nearest():
    reference, estimated = table([(0, 0, 0), (10, 0, 0)]), table([(9, 0, 0), (18, 0, 0)])
    pairs, dt = match_events(reference, estimated, 0.009)
    assert pairs.tolist() == [[0, 0], [1, 1]] and dt.tolist() == [9, 8], "the nearest pair alone would leave one match"


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


def test_refusals():
    events = table([(1, 0, 0)])
    with pytest.raises(UnitError, match="did you pass milliseconds"):
        compare(events, events, tolerance_s=5)
    with pytest.raises(UnitError, match=">= 0"):
        compare(events, events, tolerance_s=-0.001)
    with pytest.raises(UnitError, match=">= 0"):
        match_events(events, events, np.nan)
    with pytest.raises(UnitError, match="must be a number"):
        match_events(events, events, "5 ms")
    with pytest.raises(UnitError, match="duration_s"):
        compare(events, events, duration_s=0)
    with pytest.raises(OptionError, match="no name in common"):
        compare(events, table([(1, 0, 0)], names=("x", "y")))
    with pytest.raises(OptionError, match="prefer"):
        match_events(events, events, 0.005, prefer="best")


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


def test_right_time_wrong_type_is_a_confusion():
    reference = table([(0, 0, 0), (3, 0, 1), (500, 0, 0), (900, 0, 1)])
    estimated = table([(2, 0, 0), (1, 0, 1), (530, 0, 1), (2000, 0, 0)])
    # The first two are swapped in time, not in type.
    expected = [[1, 1, 0], [0, 1, 1], [1, 0, 0]]
    table_ = compare(reference, estimated).confusion()
    assert table_.to_numpy().tolist() == expected
    assert table_.index[-1] == "(false alarm)" and table_.columns[-1] == "(missed)"


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


@given(ROWS, ROWS, st.randoms(use_true_random=False))
def test_one_pairing_serves_every_threshold(ref, est, random):
    scores = np.array([random.randint(0, 4) / 4 for _ in est])
    reference, estimated = table(ref), table(est, scores)
    pairs, _ = match_events(reference, estimated, 0.006, prefer="score")
    for threshold in np.unique(scores):
        above = estimated.score >= threshold
        assert above[pairs[:, 1]].sum() == len(match_events(reference, estimated[above], 0.006)[0])


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


def test_frame_holds_one_row_per_event():
    reference = table([(10, 0, 0), (50, 0, 1)])
    frame = compare(reference, table([(12, 0, 0), (30, 0, 1)], scores=[0.5, 0.25])).to_frame()
    assert frame["outcome"].tolist() == ["hit", "false_alarm", "miss"] and frame["type"].tolist() == ["a", "b", "b"]
    assert frame["dt_ms"].iloc[0] == 2.0 and frame["dt_ms"].iloc[1:].isna().all()
    assert frame["score"].iloc[:2].tolist() == [0.5, 0.25]


@pytest.mark.parametrize("n", [0, 30])
def test_plot_draws_labelled_axes(rng, n):
    rows = np.column_stack([np.arange(n) * 100, np.zeros(n), rng.integers(0, 2, n)])
    left, right = compare(table(rows), table(rows + [2, 0, 0] if n else rows)).plot()
    assert left.get_ylabel() == "F1 at 5 ms" and "(ms)" in right.get_xlabel()
    assert sum(bar.get_height() for bar in right.patches) == n
    with pytest.raises(OptionError, match="two axes"):
        compare(table(rows), table(rows)).plot(ax=left)
    plt.close("all")


def test_bootstrap_covers_the_mean_and_repeats(rng):
    inside = 0
    for k in range(60):
        low, high = bootstrap_interval(rng.normal(0, 1, 25), n=300, seed=k)
        inside += low <= 0 <= high
    assert inside >= 50
    values = [{"tp": 3}, {"tp": 9}, {"tp": 4}]

    def total(rows):
        return sum(row["tp"] for row in rows)

    assert bootstrap_interval(values, total, n=100) == bootstrap_interval(values, total, n=100)
    with pytest.raises(DataError, match="at least one recording"):
        bootstrap_interval([])
    with pytest.raises(OptionError, match="per cent"):
        bootstrap_interval([1.0], level=95)


# ---- calibration ----------------------------------------------------------------------------------------------------


def test_scores_that_mean_what_they_say_are_calibrated():
    rng = np.random.default_rng(0)
    score = rng.random(40_000)
    honest = reliability(score, rng.random(40_000) < score)
    boastful = reliability(score, rng.random(40_000) < score**2)
    assert honest["ece"] < 0.01 and boastful["ece"] == pytest.approx(1 / 6, abs=0.01)  # the mean of p - p^2
    assert honest["brier"] == pytest.approx(1 / 6, abs=0.01)  # the mean of p (1 - p)
    assert honest["n"].sum() == 40_000
    assert np.abs(honest["stated"] - honest["observed"]).max() < 0.03


def test_reliability_by_brute_force_and_at_its_edges():
    score, hit = np.array([0.0, 0.05, 0.5, 1.0, 1.0]), np.array([False, True, True, True, False])
    result = reliability(score, hit, n_bins=2)
    assert result["n"].tolist() == [2, 3] and result["observed"].tolist() == [0.5, pytest.approx(2 / 3)]
    assert result["ece"] == pytest.approx((2 * (0.5 - 0.025) + 3 * (2.5 / 3 - 2 / 3)) / 5)
    nothing = reliability(np.zeros(0), np.zeros(0, bool))
    assert np.isnan(nothing["ece"]) and np.isnan(nothing["brier"]) and nothing["n"].sum() == 0
    for wrong in ([1.2], [np.nan], [-0.1]):
        with pytest.raises(DataError, match="scores must be probabilities"):
            reliability(np.array(wrong), np.array([True]))


def test_coverage_of_stated_times():
    rng = np.random.default_rng(1)
    sigma = rng.uniform(0.5, 2, 20_000)
    error = sigma * rng.standard_normal(20_000)
    assert coverage(error, sigma) == (pytest.approx(0.683, abs=0.01), pytest.approx(0.95, abs=0.01))
    assert coverage(error, 2 * sigma)[0] == pytest.approx(0.954, abs=0.01)
    assert np.isnan(coverage(np.zeros(0), np.zeros(0))).all()


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
