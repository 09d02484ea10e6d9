"""Re-picking: a profile likelihood equal to brute force, and events in each other's ring that come to their places."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evlib.templates import pursue as repicking
from evlib.templates.bank import SUBSAMPLES, TemplateBank, nearest_step
from evlib.templates.pursue import CERTAIN, explain, find_candidates, refine_times

LENGTH, BEFORE = 800, 8


@pytest.fixture(scope="module")
def ringing():
    """Three kinds that ring: each of two partials a beat apart, so that a period on they look much like themselves."""
    t = np.arange(LENGTH - BEFORE)
    templates = np.zeros((3, LENGTH, 1))
    for kind, (low, high) in enumerate([(0.031, 0.047), (0.0335, 0.0445), (0.029, 0.051)]):
        wave = np.sin(2 * np.pi * low * t) + 0.8 * np.sin(2 * np.pi * high * t + 1)
        templates[kind, BEFORE:, 0] = wave * np.exp(-t / 350) * (1 - np.exp(-t / 3))
    templates *= 60 / np.sqrt((templates**2).sum((1, 2)))[:, None, None]
    return TemplateBank(templates, BEFORE, ("a", "b", "c"), amplitude_spread=0.2)


def ring(bank, rng, n_events=60, gap=170):
    """Events in each other's ring: time, type, signal."""
    time = 1000 + np.cumsum(gap + rng.uniform(0, 60, n_events))
    type = np.arange(n_events) % 3
    n = int(time[-1]) + 2000
    signal = bank.render(n, time, type, 1 + 0.2 * rng.standard_normal(n_events))
    return time, type, signal + rng.standard_normal(signal.shape).astype(np.float32)


def posterior(bank, signal, time, type):
    """Log posterior of events, the greatest over all amplitudes, by least squares on the rendered signals."""
    waves = np.stack(
        [bank.render(len(signal), np.r_[t], np.r_[k], np.ones(1)).ravel() for t, k in zip(time, type, strict=True)]
    )
    waves = waves.astype(float) / bank.norm[type][:, None]
    weight = 1 / (bank.amplitude_spread * bank.norm[type]) ** 2
    mean, data = bank.norm[type], signal.ravel().astype(float)
    height = np.linalg.solve(waves @ waves.T + np.diag(weight), waves @ data + weight * mean)
    left = data - height @ waves
    return -0.5 * left @ left - 0.5 * (weight * (height - mean) ** 2).sum(), height


def errors(found, time, type):
    """Of the events, those without a detection of their kind within two samples."""
    near = (np.abs(found.time[:, None] - time) < 2) & (found.type[:, None] == type) & (found.llr > CERTAIN)[:, None]
    return int((~near.any(0)).sum())


def test_events_in_each_others_ring_come_to_their_places(ringing, monkeypatch):
    """The pursuit alone puts some a period away; afterwards most of these are where they were."""
    touches = [ring(ringing, np.random.default_rng(seed)) for seed in range(12)]
    after = [errors(explain(ringing, signal)[0], time, type) for time, type, signal in touches]
    monkeypatch.setattr(repicking, "REFINING_ROUNDS", 0)
    before = [errors(explain(ringing, signal)[0], time, type) for time, type, signal in touches]
    assert sum(before) >= 30 and sum(after) <= sum(before) // 3


@pytest.mark.parametrize("seed", range(6))
def test_gain_is_the_gain_of_the_posterior(ringing, seed, monkeypatch):
    """Against least squares over all amplitudes, for an event a period from its place among four neighbours."""
    monkeypatch.setattr(repicking, "RIDGE", 1e-6)
    rng = np.random.default_rng(seed)
    time, type, signal = ring(ringing, rng, 5)
    time = np.round(time)  # where overlaps and scores are tabulated
    signal = ringing.render(len(signal), time, type, 1 + 0.1 * rng.standard_normal(5))
    wrong = time.copy()
    wrong[1] += 26.0
    _, height = posterior(ringing, signal, wrong, type)
    height *= 1 + 0.1 * rng.standard_normal(5)  # nor need the amplitudes be at their best
    score = ringing.scores(signal - ringing.render(len(signal), wrong, type, height / ringing.norm[type]))
    places, own = repicking._places(ringing, score, wrong, type, height)
    evidence, best, neighbour, change = repicking._profile(
        ringing, score, wrong, type, height, places, own, np.arange(5)
    )
    for place in range(1, places.shape[1]):
        moved = wrong.copy()
        moved[1] = places[1, place]
        expected, heights = posterior(ringing, signal, moved, type)
        gain = expected - posterior(ringing, signal, wrong, type)[0]
        assert evidence[1, place] - evidence[1, 0] == pytest.approx(gain, abs=0.02 * abs(gain) + 5)
        assert best[1, place] == pytest.approx(heights[1], abs=1)
        others = neighbour[1] != 1
        assert height[neighbour[1]][others] + change[1, others, place] == pytest.approx(
            heights[neighbour[1]][others], abs=1
        )


def test_it_never_makes_the_signal_less_likely(ringing, rng):
    time, type, signal = ring(ringing, rng, 12)
    wrong = time + rng.choice([0.0, 26.0, -26.0], 12)
    height = posterior(ringing, signal, wrong, type)[1]
    left = signal - ringing.render(len(signal), wrong, type, height / ringing.norm[type])
    peak = height + ringing.scores(left)[nearest_step(wrong)[0], type]
    new_time, new_type, _, _ = refine_times(ringing, signal, ringing.scores(left), wrong, type, peak)
    before, after = posterior(ringing, signal, wrong, type)[0], posterior(ringing, signal, new_time, new_type)[0]
    assert after > before + 100 and (np.diff(new_time) > 0).all()


def test_score_and_peaks_belong_to_the_events_returned(ringing):
    time, type, signal = ring(ringing, np.random.default_rng(1))
    shifted = time.copy()
    shifted[::7] += 26.0
    height = posterior(ringing, signal, shifted, type)[1]
    left = signal - ringing.render(len(signal), shifted, type, height / ringing.norm[type])
    peak = height + ringing.scores(left)[nearest_step(shifted)[0], type]
    time, type, peak, score = refine_times(ringing, signal, ringing.scores(left), shifted, type, peak)
    amplitude = ringing.amplitude(peak, type)
    again = ringing.scores(signal - ringing.render(len(signal), time, type, amplitude))
    assert np.allclose(again, score, atol=1e-3)
    # A peak is the amplitude of its event with what is left there.
    at = nearest_step(time)[0]
    assert peak == pytest.approx(amplitude * ringing.norm[type] + score[at, type], abs=2)


def test_events_on_top_of_each_other_stay_finite(ringing, rng):
    """Explained twice at one time, or half a sample beside: amplitudes that nothing tells apart must not run away."""
    time, type, signal = ring(ringing, rng, 20)
    doubled = np.r_[time, time[::3], time[1::3] + 0.4], np.r_[type, type[::3], type[1::3]]
    peak = np.r_[ringing.norm[type], np.full(len(doubled[0]) - 20, 40.0)]
    amplitude = ringing.amplitude(peak, doubled[1])
    score = ringing.scores(signal - ringing.render(len(signal), *doubled, amplitude))
    _, _, peak, score = refine_times(ringing, signal, score, *doubled, peak)
    assert np.isfinite(score).all() and np.abs(peak).max() < 5 * ringing.norm.max()


def test_nothing_to_move_leaves_all_as_it_is(ringing):
    score = np.zeros((4000, 3), np.float32)
    none = np.zeros(0), np.zeros(0, np.int64), np.zeros(0)
    time, type, peak, left = refine_times(ringing, np.zeros((4000, 1), np.float32), score, *none)
    assert len(time) == len(type) == len(peak) == 0 and left is score
    alone = np.r_[2000.25], np.r_[1], ringing.norm[1:2]
    signal = ringing.render(4000, *alone[:2], np.ones(1))
    time, type, peak, left = refine_times(ringing, signal, score, *alone)
    assert (time, type, peak) == (alone[0], alone[1], alone[2]) and left is score


@pytest.mark.parametrize("block", [20_000, 7000])
def test_blocks_decide_alike(ringing, block):
    _, _, signal = ring(ringing, np.random.default_rng(2), 150)
    whole, parts = (
        find_candidates(ringing, lambda a, b: signal[a:b], len(signal), block=size) for size in (10**6, block)
    )
    whole, parts = (found[found.llr > CERTAIN] for found in (whole, parts))
    assert np.array_equal(whole.type, parts.type) and np.allclose(whole.time, parts.time, atol=1e-3)


@given(st.floats(-1e5, 1e5))
def test_the_nearest_step_is_nearest(time):
    sample, step = nearest_step(np.float64(time))
    assert 0 <= step < SUBSAMPLES
    assert abs(sample + step / SUBSAMPLES - 0.5 - time) <= 0.5 / SUBSAMPLES + 1e-9
