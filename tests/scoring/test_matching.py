"""Matching against brute force."""

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evlib.scoring import matching
from evlib.scoring.matching import match_events
from evlib.signals.errors import OptionError, UnitError
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


def test_pairs_are_rows_of_what_was_passed_in():
    # Another order of names and another clock: rows that coincide sort differently inside.
    reference = Events.from_seconds([1.0, 1.0, 2.0], ["a", "b", "a"], 1e6, names=("a", "b"))
    estimated = Events.from_seconds([1.0, 1.0, 2.0], ["a", "b", "a"], RATE, names=("b", "a"))
    pairs, dt = match_events(reference, estimated, 0.0)
    assert len(pairs) == 3 and not dt.any()
    assert [reference.type_names[r] for r, _ in pairs] == [estimated.type_names[e] for _, e in pairs]


def test_most_matches_come_before_the_nearest():
    reference, estimated = table([(0, 0, 0), (10, 0, 0)]), table([(9, 0, 0), (18, 0, 0)])
    pairs, dt = match_events(reference, estimated, 0.009)
    assert pairs.tolist() == [[0, 0], [1, 1]] and dt.tolist() == [9, 8], "the nearest pair alone would leave one match"


@given(ROWS, ROWS, st.randoms(use_true_random=False))
def test_one_pairing_serves_every_threshold(ref, est, random):
    scores = np.array([random.randint(0, 4) / 4 for _ in est])
    reference, estimated = table(ref), table(est, scores)
    pairs, _ = match_events(reference, estimated, 0.006, prefer="score")
    for threshold in np.unique(scores):
        above = estimated.score >= threshold
        assert above[pairs[:, 1]].sum() == len(match_events(reference, estimated[above], 0.006)[0])


@pytest.mark.parametrize(
    ("error", "words", "options"),
    [
        (UnitError, "did you pass milliseconds", {"tolerance_s": 5}),
        (UnitError, ">= 0", {"tolerance_s": -0.001}),
        (UnitError, ">= 0", {"tolerance_s": np.nan}),
        (UnitError, "must be a number", {"tolerance_s": "5 ms"}),
        (OptionError, "prefer", {"tolerance_s": 0.005, "prefer": "best"}),
    ],
)
def test_refusals(error, words, options):
    with pytest.raises(error, match=words):
        match_events(table([(1, 0, 0)]), table([(1, 0, 0)]), **options)
