"""Tests of significance: uniform p-values where nothing is different, small ones where something is."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import kstest

from evlib.scoring.statistics import compare_methods, grouped_interval, holm, mcnemar
from evlib.signals.errors import OptionError, ShapeError


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


def test_intervals_cover_and_grow_with_groups():
    rng = np.random.default_rng(2)
    covered = 0
    for seed in range(200):
        low, high = grouped_interval(rng.normal(5, 2, 40), n=500, seed=seed)
        covered += low <= 5 <= high
    assert 0.88 <= covered / 200 <= 0.99
    users = np.repeat(np.arange(10), 50)
    values = rng.normal(0, 1, 10)[users] + 0.1 * rng.standard_normal(500)
    widths = [np.ptp(grouped_interval(values, groups)) for groups in (None, users)]
    assert widths[1] > 3 * widths[0]


def test_bad_comparisons():
    with pytest.raises(OptionError, match="5 seeds"):
        compare_methods(pd.DataFrame({"a": [1.0, 2.0], "b": [1.0, 3.0]}))
    with pytest.raises(ShapeError, match="same items"):
        mcnemar([True], [True, False])
