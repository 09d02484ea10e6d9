"""Matching against brute force."""

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evlib.scoring import matching
from evlib.scoring.matching import match_events
from evlib.signals.errors import DataError, OptionError, UnitError, UnitWarning
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


def test_many_events_at_one_time_take_little_memory():
    import tracemalloc

    rng = np.random.default_rng(0)
    n, fraction = 3000, rng.uniform(-0.5, 0.5, (2, 3000))
    columns = np.full(n, 5), np.zeros(n, int), ("a",), RATE
    reference, estimated = (Events(columns[0], f, *columns[1:]) for f in fraction)
    tracemalloc.start()
    pairs, dt = match_events(reference, estimated, 0.005)
    assert tracemalloc.get_traced_memory()[1] < 20e6, "two bits for each of 9 million pairs"
    tracemalloc.stop()
    assert len(pairs) == n
    # All can pair, so the best is in order.
    np.testing.assert_allclose(np.abs(dt).sum(), np.abs(np.sort(fraction[0]) - np.sort(fraction[1])).sum())
    with pytest.MonkeyPatch.context() as patch, pytest.raises(DataError, match="9e.06 pairs of events"):
        patch.setattr(matching, "MOST_PAIRS", 1_000_000)
        match_events(reference, estimated, 0.005)


@pytest.mark.parametrize("prefer", ["time", "score"])
@pytest.mark.parametrize("seed", range(5))
def test_matching_equals_linear_assignment(prefer, seed):
    from scipy.optimize import linear_sum_assignment

    rng = np.random.default_rng(seed)
    n, m, reach = 60, 80, 8
    reference, estimated = (
        Events(rng.integers(0, 300, k), rng.uniform(-0.5, 0.5, k), rng.integers(0, 2, k), NAMES, RATE, rng.random(k))
        for k in (n, m)
    )
    pairs, dt = match_events(reference, estimated, reach / RATE, prefer=prefer)
    cost = np.abs(reference.time_samples[:, None] - estimated.time_samples)
    if prefer == "score":
        cost = np.broadcast_to(np.argsort(np.argsort(-estimated.score)), cost.shape).astype(float)
    near = np.abs(reference.sample[:, None] - estimated.sample) <= reach
    near &= reference.type[:, None] == estimated.type
    price = np.where(near, cost, 1e6)
    rows, columns = linear_sum_assignment(price)
    paired = near[rows, columns]
    assert len(pairs) == paired.sum() > 30
    assert cost[tuple(pairs.T)].sum() == pytest.approx(cost[rows, columns][paired].sum())


def test_times_far_apart_and_many_types_do_not_overflow():
    names = [f"kind {k}" for k in range(2000)]
    late = Events([0, 2**53 - 1] * 1000, np.zeros(2000), np.arange(2000), names, RATE)
    pairs, dt = match_events(late, late, 0.001)
    assert len(pairs) == 2000 and not dt.any()


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
        (UnitError, ">= 0", {"tolerance_s": np.inf}),
        (UnitError, "more than can be counted", {"tolerance_s": 1e15}),
        (UnitError, ">= 0", {"tolerance_s": -0.001}),
        (UnitError, ">= 0", {"tolerance_s": np.nan}),
        (UnitError, "must be a number", {"tolerance_s": "5 ms"}),
        (OptionError, "prefer", {"tolerance_s": 0.005, "prefer": "best"}),
    ],
)
def test_refusals(error, words, options):
    with pytest.raises(error, match=words):
        match_events(table([(1, 0, 0)]), table([(1, 0, 0)]), **options)


def test_a_long_tolerance_is_used_and_warned_of():
    with pytest.warns(UnitWarning, match="did you pass milliseconds") as caught:
        pairs, _ = match_events(table([(1, 0, 0)]), table([(2001, 0, 0)]), 3.0)
    assert len(pairs) == 1
    assert caught[0].filename == __file__, "the line that called evlib"
