"""Periods by name, and neighbours that are closer than their period against brute force."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evlib.signals.errors import OptionError, ShapeError, UnitError, UnitWarning
from evlib.signals.events import Events
from evlib.signals.refractory import Refractory

NAMES, RATE = ("a", "b"), 2000
ROWS = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 1)), max_size=10)


@given(ROWS, st.tuples(st.integers(0, 12), st.integers(0, 12)))
def test_violations_are_the_close_neighbours(rows, period):
    sample, kind = np.array(rows, dtype=int).reshape(-1, 2).T
    events = Events(sample, np.zeros(len(rows)), kind, NAMES, RATE)
    pairs, gap_s = Refractory([p / RATE for p in period], NAMES).violations(events)
    expected = [
        (i, j)
        for kind in (0, 1)
        for i, j in zip(np.flatnonzero(events.type == kind), np.flatnonzero(events.type == kind)[1:], strict=False)
        if events.sample[j] - events.sample[i] < period[kind]
    ]
    assert pairs.tolist() == [list(pair) for pair in expected]
    np.testing.assert_allclose(gap_s, np.diff(events.sample[pairs], axis=1)[:, 0] / RATE)


@pytest.mark.parametrize(
    ("refractory_s", "rate", "samples"),
    [
        ({"a": None, "default": 2.0}, RATE, [0, 4000]),
        ({"a": 0.5, "b": 0.25}, RATE, [1000, 500]),
        (0.0025, 360, [1, 1]),
        ([1.0, 0.0], RATE, [2000, 0]),
        (None, RATE, [0, 0]),
    ],
)
def test_periods_in_samples(refractory_s, rate, samples):
    refractory = Refractory(refractory_s, NAMES)
    assert refractory.samples(rate).tolist() == samples
    assert refractory.by_name(rate) == {name: n / rate for name, n in zip(NAMES, samples, strict=True)}


@pytest.mark.parametrize(
    ("error", "words", "refractory_s"),
    [
        (OptionError, "unknown event name 'c' in refractory_s; known: a, b", {"c": 1.0, "default": 1}),
        (OptionError, "lacks b", {"a": 1.0}),
        (UnitError, "negative", -1),
        (OptionError, "finite", np.nan),
        (OptionError, "must be a number", "2 s"),
        (ShapeError, "each of the 2 types", [1.0, 2.0, 3.0]),
    ],
)
def test_refusals(error, words, refractory_s):
    with pytest.raises(error, match=words):
        Refractory(refractory_s, NAMES)


def test_a_long_period_is_used_and_warned_of():
    with pytest.warns(UnitWarning, match="refractory_s is in seconds, got 4000"):
        assert Refractory(4000, NAMES).period_s.tolist() == [4000, 4000]
