"""Intervals and probabilities that mean what they say; p-values that are uniform where nothing is different."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import bootstrap, kstest

from evlib.scoring.statistics import bootstrap_interval, compare_methods, coverage, holm, mcnemar, reliability
from evlib.signals.errors import DataError, OptionError, ShapeError


def test_intervals_are_those_of_scipy_and_grow_with_groups():
    rng = np.random.default_rng(2)
    values = rng.normal(5, 2, 40)
    scipys = bootstrap((values,), np.mean, n_resamples=2000, method="percentile", random_state=np.random.default_rng(0))
    assert bootstrap_interval(values) == pytest.approx(tuple(scipys.confidence_interval))
    users = np.repeat(np.arange(10), 50)
    values = rng.normal(0, 1, 10)[users] + 0.1 * rng.standard_normal(500)
    widths = [np.ptp(bootstrap_interval(values, groups)) for groups in (None, users)]
    assert widths[1] > 3 * widths[0]


def test_intervals_cover_the_mean():
    rng, covered = np.random.default_rng(2), 0
    for seed in range(200):
        low, high = bootstrap_interval(rng.normal(5, 2, 40), n=500, seed=seed)
        covered += low <= 5 <= high
    assert 0.88 <= covered / 200 <= 0.99


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


def test_p_values_are_uniform_when_methods_are_equal():
    rng = np.random.default_rng(0)
    paired = [compare_methods(pd.DataFrame(rng.standard_normal((5, 2)), columns=["a", "b"])).p[0] for _ in range(1000)]
    assert kstest(paired, "uniform").pvalue > 1e-3
    # An exact test on counts is cautious: it says "below 5 %" at most that often.
    items = [mcnemar(*(rng.random((2, 300)) < 0.9)) for _ in range(400)]
    assert np.mean(np.array(items) < 0.05) <= 0.07


def test_a_better_method_is_found():
    rng = np.random.default_rng(1)
    base = rng.standard_normal(6)
    table = compare_methods(pd.DataFrame({"a": base, "b": base + 1 + 0.1 * rng.standard_normal(6), "c": base}))
    row = table.set_index(["method", "rival"])
    assert row.p_holm["a", "b"] < 0.01 and row.difference["a", "b"] == pytest.approx(-1, abs=0.1)
    assert row.p_holm["a", "c"] == 1 and len(table) == 3
    assert mcnemar(np.arange(100) < 90, np.arange(100) < 70) < 1e-4


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_by_its_steps(p):
    adjusted = holm(p)
    ranked = sorted(range(len(p)), key=lambda i: p[i])
    greatest = 0.0
    for rank, i in enumerate(ranked):
        greatest = max(greatest, min(1.0, (len(p) - rank) * p[i]))
        assert adjusted[i] == pytest.approx(greatest)


def test_refusals():
    with pytest.raises(DataError, match="at least one value"):
        bootstrap_interval([])
    with pytest.raises(OptionError, match="per cent"):
        bootstrap_interval([1.0], level=95)
    with pytest.raises(OptionError, match="5 seeds"):
        compare_methods(pd.DataFrame({"a": [1.0, 2.0], "b": [1.0, 3.0]}))
    with pytest.raises(ShapeError, match="same items"):
        mcnemar([True], [True, False])
