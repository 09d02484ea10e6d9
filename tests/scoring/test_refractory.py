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
    decode_events,
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
    keep, by = decode_refractory(events.time_samples, events.type, events.score, period)
    for kind in (0, 1):
        of_kind = events.type == kind
        total = events.score[keep & of_kind].sum()
        assert total == best_total(events.sample[of_kind], events.score[of_kind], period[kind])
        assert (np.diff(events.sample[keep & of_kind]) >= period[kind]).all()
    assert (events.score[keep] > 0).all()
    # Everything positive is either kept or names a kept event of its type within the period.
    lost = ~keep & (events.score > 0)
    assert ((by >= 0) == lost).all()
    assert keep[by[lost]].all() and (events.type[by[lost]] == events.type[lost]).all()
    assert (np.abs(events.sample[by[lost]] - events.sample[lost]) < np.array(period)[events.type[lost]]).all()


@given(CANDIDATES, PERIODS, st.lists(st.integers(0, 45), max_size=8), st.floats(-0.5, 0.49))
def test_any_chunking_gives_the_answer_of_one_piece(rows, period, cuts, fraction):
    events = table(rows, fraction)
    period_s = dict(zip(NAMES, (p / RATE for p in period), strict=True))
    whole, _ = decode_events(events, period_s, threshold={"a": 0.25, "default": 0})
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
    whole, _ = decode_events(events, 0.2)
    assert len(delays) + len(decoder.flush()) == len(whole)
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


def test_ties_keep_the_earlier_and_equal_gaps_are_allowed():
    assert decode_refractory([0, 3999, 4000], [0] * 3, [1, 1, 1], 4000)[0].tolist() == [True, False, True]
    assert decode_refractory([0, 3999], [0] * 2, [1, 1], 4000)[0].tolist() == [True, False]
    assert decode_refractory([0.3, 4000.3, 8000.3], [0] * 3, [1, 1, 1], 4000)[0].all(), (
        "rounding of fractions is no violation"
    )


def test_decoded_events_and_log(rng):
    n = 300
    events = Events.from_seconds(
        rng.uniform(0, 60, n), rng.integers(0, 2, n), RATE, names=NAMES, score=rng.random(n), sigma_s=rng.random(n)
    )
    kept, log = decode_events(events, {"a": 2.0, "b": 0.5}, threshold=0.3)
    assert len(find_violations(events, {"a": 2.0, "b": 0.5})[0]) > 0
    assert len(find_violations(kept, {"a": 2.0, "b": 0.5})[0]) == 0
    assert len(kept) + len(log) == (events.score > 0.3).sum()
    np.testing.assert_allclose(kept.onset_s[log["kept_row"]], log["kept_onset_s"])
    period = log["type"].map({"a": 2.0, "b": 0.5})
    assert (np.abs(log["onset_s"] - log["kept_onset_s"]) < period).all()
    assert set(zip(kept.onset_s, kept.sigma_s, strict=True)) <= set(zip(events.onset_s, events.sigma_s, strict=True))
    assert len(decode_events(events[:0], 2.0)[0]) == 0 and len(decode_events(events[:0], 2.0)[1]) == 0


def test_decoding_refuses_candidates_it_cannot_weigh():
    with pytest.raises(DataError, match="a reference has no scores"):
        decode_events(Events.from_seconds([1.0], ["a"], RATE), 2.0)
    with pytest.raises(ShapeError, match="share one shape"):
        decode_refractory([1.0, 2.0], [0], [1.0], 10)
    with pytest.raises(ShapeError, match="period must be one number"):
        decode_refractory([1.0, 2.0], [0, 2], [1.0, 1.0], [10, 10])
    with pytest.raises(OptionError, match="types must be"):
        decode_refractory([1.0], [-1], [1.0], 10)


# ---- the enforcer ----------------------------------------------------------------------------------------------------


def test_enforcer_keeps_rejects_keeps():
    enforcer = RefractoryPeriodEnforcer(num_events=1)
    outcome = [enforcer.enforce(np.array([1.0]), np.array([0.0]), global_offset=g) for g in (0, 3999, 4000)]
    assert [events.item() for events, _ in outcome] == [1, 0, 1]
    assert [np.isnan(timings.item()) for _, timings in outcome] == [False, True, False]


def test_enforcer_carries_over_and_resets():
    enforcer = RefractoryPeriodEnforcer(num_events=2, refractory_period_samples=np.array([4000, 100]))
    flags, timings = np.array([1, 1]), np.array([1900.0, 1900.0])
    assert enforcer.enforce(flags, timings)[0].tolist() == [1, 1]
    events, times = enforcer.enforce(flags, np.array([150.0, 150.0]), probs=np.array([0.9, 0.9]), global_offset=2000)
    assert events.tolist() == [0, 1] and np.isnan(times[0]) and times[1] == 150.0
    enforcer.reset()
    assert enforcer.enforce(flags, timings, global_offset=2000)[0].tolist() == [1, 1]


def test_enforcer_takes_blocks_in_any_order():
    enforcer = RefractoryPeriodEnforcer(num_events=1)
    one = np.array([1])
    assert enforcer.enforce(one, np.array([0.0]), global_offset=10_000)[0] == 1
    assert enforcer.enforce(one, np.array([0.0]), global_offset=6_001)[0] == 0, "too close before a later event"
    assert enforcer.enforce(one, np.array([0.0]), global_offset=6_000)[0] == 1
    assert enforcer.enforce(one, np.array([0.0]), global_offset=13_999)[0] == 0


def test_enforcer_returns_what_it_was_given():
    enforcer = RefractoryPeriodEnforcer(num_events=2)
    flags, timings = enforcer.enforce(torch.tensor([1.0, 0.0]), torch.tensor([10, 20]))
    assert flags.dtype == torch.float32 and flags.tolist() == [1, 0]
    assert timings.dtype == torch.float64 and timings[0] == 10 and timings[1].isnan(), "NaN does not fit into integers"
    flags, timings = RefractoryPeriodEnforcer(2).enforce([True, False], [10, 20])
    assert flags.tolist() == [True, False] and timings[0] == 10.0
    given = np.array([7.0, 8.0], dtype=np.float32)
    assert RefractoryPeriodEnforcer(2).enforce(np.array([1, 1]), given)[1].dtype == np.float32


@given(
    st.lists(st.tuples(st.integers(0, 20), st.integers(1, 8)), min_size=1, max_size=7),
    st.integers(0, 15),
    st.integers(0, 60),
)
def test_enforced_batch_is_optimal_beside_what_was_kept(rows, period, earlier):
    timings, eighths = np.array(rows, dtype=float).T[:, :, None]
    lengths = np.arange(len(rows)) + 3
    time = (np.cumsum(lengths) - lengths + 100)[:, None] + timings
    enforcer = RefractoryPeriodEnforcer(num_events=1, refractory_period_samples=period)
    enforcer.enforce(np.array([1]), np.array([earlier + 80.0]))
    flags, out = enforcer.enforce_batch(np.ones_like(timings), timings, lengths, probs=eighths / 8, global_offset=100)
    free = np.abs(time - earlier - 80) >= period
    assert (eighths * flags).sum() == best_total(time[free], eighths[free], period)
    assert not (flags.astype(bool) & ~free).any()
    np.testing.assert_array_equal(np.isnan(out), flags == 0)
    # Without probabilities: the first to come, by time.
    first = RefractoryPeriodEnforcer(num_events=1, refractory_period_samples=period)
    flags, _ = first.enforce_batch(np.ones_like(timings), timings, lengths)
    kept = []
    for t in np.sort(time[:, 0]):
        kept += [t] if not kept or t - kept[-1] >= period else []
    np.testing.assert_array_equal(np.sort(time[flags == 1]), kept)


def test_enforcer_refuses_what_is_no_event():
    enforcer = RefractoryPeriodEnforcer(num_events=2)
    with pytest.raises(OptionError, match="threshold first"):
        enforcer.enforce(np.array([0.7, 0.2]), np.array([1.0, 2.0]))
    with pytest.raises(DataError, match="finite"):
        enforcer.enforce(np.array([1, 0]), np.array([np.nan, 2.0]))
    with pytest.raises(ShapeError, match="enforce_batch"):
        enforcer.enforce(np.ones((3, 2)), np.ones((3, 2)))
    with pytest.raises(ShapeError, match="one length per block"):
        enforcer.enforce_batch(np.ones((3, 2)), np.ones((3, 2)), [5, 5])
    with pytest.raises(UnitError, match="seconds"):
        RefractoryPeriodEnforcer(refractory_period_samples=2.0)
    with pytest.raises(UnitError, match="negative"):
        RefractoryPeriodEnforcer(refractory_period_samples=-1)


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


def test_penalty_refuses_wrong_shapes():
    with pytest.raises(ShapeError, match="batch, frames, types"):
        refractory_penalty(torch.zeros(5, 3), 4)
    with pytest.raises(OptionError, match="one integer"):
        refractory_penalty(torch.zeros(1, 5, 3), 0.5)
    with pytest.raises(ShapeError, match="mask must have shape"):
        refractory_penalty(torch.zeros(1, 5, 3), 4, mask=torch.ones(1, 4))
