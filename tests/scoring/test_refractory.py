"""The refractory rule against brute force, in one piece and in pieces."""

from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from evlib.scoring.refractory import (
    RefractoryPeriodEnforcer,
    StreamingDecoder,
    decode_refractory,
    find_violations,
    refractory_penalty,
)
from evlib.signals.errors import DataError, OptionError, ShapeError, UnitError
from evlib.signals.events import Events

NAMES = ("a", "b")
RATE = 2000
# Scores are eighths, so that sums are exact and ties are common.
CANDIDATES = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 1), st.integers(-2, 8)), max_size=10)
PERIODS = st.tuples(st.integers(0, 12), st.integers(0, 12))


def table(rows, fractions=0.0):
    sample, kind, eighths = np.array(rows, dtype=int).reshape(-1, 3).T
    return Events(sample, np.full(len(sample), fractions), kind, NAMES, RATE, score=eighths / 8)


def best_total(time, score, period):
    """Greatest total of all subsets that keep the rule."""
    best = 0.0
    for size in range(1, len(time) + 1):
        for rows in combinations(range(len(time)), size):
            if all(abs(time[i] - time[j]) >= period for i, j in combinations(rows, 2)):
                best = max(best, sum(score[i] for i in rows))
    return best


@given(CANDIDATES, PERIODS)
def test_decoding_is_as_good_as_the_best_of_all_subsets(rows, period):
    events = table(rows)
    keep = decode_refractory(events.time_samples, events.type, events.score, period)
    for kind in (0, 1):
        of_kind = events.type == kind
        total = events.score[keep & of_kind].sum()
        assert total == best_total(events.sample[of_kind], events.score[of_kind], period[kind])
    assert (events.score[keep] > 0).all()
    period_s = [p / RATE for p in period]
    assert len(find_violations(events[keep], period_s)[0]) == 0


@given(CANDIDATES, PERIODS, st.lists(st.integers(0, 45), max_size=8), st.floats(-0.5, 0.49))
def test_any_chunking_gives_the_answer_of_one_piece(rows, period, cuts, fraction):
    events = table(rows, fraction)
    period_s = dict(zip(NAMES, (p / RATE for p in period), strict=True))
    over = events.score - np.where(events.type == 0, 0.25, 0)
    whole = events[decode_refractory(events.time_samples, events.type, over, period)]
    decoder = StreamingDecoder(NAMES, period_s, RATE, threshold={"a": 0.25, "default": 0})
    cuts = sorted(cuts)
    parts = [decoder.push(events.within(a, b), b) for a, b in zip([-1, *cuts], cuts, strict=False)]
    parts.append(decoder.push(events.within(cuts[-1] if cuts else -1, 100), 50))
    parts.append(decoder.flush())
    joined = Events.concatenate(parts)
    for column in ("sample", "fraction", "type", "score"):
        np.testing.assert_array_equal(getattr(joined, column), getattr(whole, column))


def test_streaming_decides_soon_and_holds_little(rng):
    n, period = 4000, 400  # two candidates in every period, and seldom a gap of one
    sample = np.sort(rng.choice(200 * n, n, replace=False))
    events = Events(sample, np.zeros(n), np.zeros(n, int), ("a",), RATE, score=rng.random(n))
    decoder, delays = StreamingDecoder(("a",), 0.2, RATE), []
    for start in range(0, 200 * n, 1000):
        final = decoder.push(events.within(start, start + 1000), start + 1000)
        delays.extend(start + 1000 - final.sample)
        assert len(decoder._schedules[0].time) < 60
    assert len(delays) + len(decoder.flush()) == decode_refractory(sample, events.type, events.score, period).sum()
    assert np.median(delays) < 3 * period and max(delays) < 15 * period


def test_streaming_keeps_what_lies_beyond_the_promise_and_starts_anew_after_flush():
    decoder = StreamingDecoder(NAMES, 1.0, RATE)
    early = decoder.push(table([(100, 0, 4), (5000, 0, 4)]), 4000)
    assert early.sample.tolist() == [100] and decoder.flush().sample.tolist() == [5000]
    assert len(decoder.push(table([(0, 0, 4)]), 10)) + len(decoder.flush()) == 1


def test_streaming_refuses_what_breaks_the_promise():
    decoder = StreamingDecoder(NAMES, 1.0, RATE)
    decoder.push(table([]), 1000)
    with pytest.raises(DataError, match="out of order"):
        decoder.push(table([(999, 0, 1)]), 2000)
    with pytest.raises(DataError, match="out of order"):
        decoder.push(table([]), 500)
    with pytest.raises(OptionError, match="with_names"):
        decoder.push(Events.empty(("x",), RATE), 3000)
    with pytest.raises(DataError, match="finite scores"):
        decoder.push(Events.from_seconds([1.0], ["a"], RATE, names=NAMES), 3000)


@pytest.mark.parametrize(
    ("time", "keep"),
    [
        ([0, 3999, 4000], [True, False, True]),  # a gap of the period is allowed
        ([0, 3999], [True, False]),  # of equal choices the earlier
        ([0.3, 4000.3, 8000.3], [True, True, True]),  # rounding of fractions is no violation
    ],
)
def test_ties_keep_the_earlier_and_equal_gaps_are_allowed(time, keep):
    assert decode_refractory(time, [0] * len(time), [1] * len(time), 4000).tolist() == keep


@pytest.mark.parametrize(
    ("error", "words", "time", "type", "period"),
    [
        (DataError, "a reference has no scores", [np.nan], [0], 10),
        (ShapeError, "share one shape", [1.0, 2.0], [0], 10),
        (ShapeError, "period must be one number", [1.0], [2], [10, 10]),
        (OptionError, "types must be", [1.0], [-1], 10),
    ],
)
def test_decoding_refuses_candidates_it_cannot_weigh(error, words, time, type, period):
    with pytest.raises(error, match=words):
        decode_refractory(time, type, [1.0], period)


# ---- the enforcer ----------------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 1)), max_size=8), PERIODS)
def test_enforcer_lets_through_what_is_far_from_all_before_in_any_order(rows, period):
    enforcer, kept = RefractoryPeriodEnforcer(2, np.array(period)), []
    for time, kind in rows:
        free = all(abs(time - other) >= period[kind] for other, its_kind in kept if its_kind == kind)
        kept += [(time, kind)] if free else []
        flags, timings = enforcer.enforce(np.eye(2)[kind], np.full(2, 10.0), global_offset=time - 10)
        assert flags[kind] == free and flags[1 - kind] == 0
        np.testing.assert_array_equal(timings, np.where(flags, 10.0, np.nan))
    enforcer.reset()
    assert enforcer.enforce(np.ones(2), np.zeros(2))[0].all()


def test_enforcer_returns_what_it_was_given():
    enforcer = RefractoryPeriodEnforcer(num_events=2)
    flags, timings = enforcer.enforce(torch.tensor([1.0, 0.0]), torch.tensor([10, 20]))
    assert flags.dtype == torch.float32 and flags.tolist() == [1, 0]
    assert timings.dtype == torch.float64 and timings[0] == 10 and timings[1].isnan(), "NaN does not fit into integers"
    flags, timings = RefractoryPeriodEnforcer(2).enforce([True, False], [10, 20])
    assert flags.tolist() == [True, False] and timings[0] == 10.0
    given = np.array([7.0, 8.0], dtype=np.float32)
    assert RefractoryPeriodEnforcer(2).enforce(np.array([1, 1]), given)[1].dtype == np.float32


@pytest.mark.parametrize(
    ("error", "words", "flags", "timings"),
    [
        (OptionError, "threshold first", [0.7, 0.2], [1.0, 2.0]),
        (DataError, "finite", [1, 0], [np.nan, 2.0]),
        (ShapeError, r"shape \(2,\)", np.ones((3, 2)), np.ones((3, 2))),
    ],
)
def test_enforcer_refuses_what_is_no_event(error, words, flags, timings):
    with pytest.raises(error, match=words):
        RefractoryPeriodEnforcer(num_events=2).enforce(flags, timings)
    with pytest.raises(ShapeError, match="B lengths"):
        RefractoryPeriodEnforcer(num_events=2).enforce_batch(np.ones((3, 2)), np.ones((3, 2)), [2000])


@pytest.mark.parametrize(("period", "words"), [(2.0, "seconds"), (-1, "negative")])
def test_enforcer_refuses_periods_that_are_no_samples(period, words):
    with pytest.raises(UnitError, match=words):
        RefractoryPeriodEnforcer(refractory_period_samples=period)


# ---- the penalty -----------------------------------------------------------------------------------------------------


def pairwise(rates, period):
    """The definition, with a frames x frames matrix."""
    frames = torch.arange(rates.shape[1])
    distance = (frames[:, None] - frames).abs()
    close = torch.stack([(distance > 0) & (distance < p) for p in period]).to(rates)
    return torch.einsum("bte,ets,bse->be", rates, close, rates).mean()


@pytest.mark.parametrize("period", [[1, 2, 5], [0, 13, 100]])
def test_penalty_and_gradient_equal_the_definition(period):
    rates = torch.rand(2, 12, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True)
    mask = torch.arange(12) < torch.tensor([[12], [7]])
    fast = refractory_penalty(rates, torch.tensor(period), mask)
    slow = pairwise(rates * mask[..., None], period)
    torch.testing.assert_close(fast, slow)
    torch.testing.assert_close(*(torch.autograd.grad(value, rates)[0] for value in (fast, slow)))


def test_penalty_is_zero_for_one_spike_and_ignores_padding():
    rates = torch.zeros(1, 1000, 2)
    rates[0, 500] = 3.0
    assert refractory_penalty(rates, 400) == 0
    rates[0, 600, 1] = 2.0
    assert refractory_penalty(rates, 400) == 2 * 3 * 2 / 2
    assert refractory_penalty(rates, 400, mask=torch.arange(1000)[None] < 600) == 0


@pytest.mark.parametrize(
    ("error", "words", "shape", "arguments"),
    [
        (ShapeError, "batch, frames, types", (5, 3), (4,)),
        (OptionError, "one integer", (1, 5, 3), (0.5,)),
        (ShapeError, "mask must have shape", (1, 5, 3), (4, torch.ones(1, 4))),
    ],
)
def test_penalty_refuses_wrong_shapes(error, words, shape, arguments):
    with pytest.raises(error, match=words):
        refractory_penalty(torch.zeros(shape), *arguments)
