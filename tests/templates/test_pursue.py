"""Candidates: every planted event once, at its time and of its type, however the recording is cut."""

from dataclasses import replace

import numpy as np
import pytest
from planted import BEFORE, LENGTH, make_bank, make_templates, near, plant, schedule

from evlib.templates import pursue
from evlib.templates.bank import TemplateBank, nearest_step
from evlib.templates.pursue import (
    CERTAIN,
    CROWD,
    Candidates,
    crowded_share,
    explain,
    find_candidates,
    refine_times,
)

TEMPLATES = make_templates(seed=1)
FIELDS = ("time", "llr", "llr_isolated", "margin", "amplitude", "misfit")
KINDS = ("tone", "bursts", "loud")
RINGING, RINGING_BEFORE = 800, 8


def sure(found):
    """What is certainly an event, and of no other type."""
    return found[(found.llr > CERTAIN) & (found.margin > 0)]


def compare(found, time, type, reach):
    """Errors of the times of those found, and how many are missing and too many."""
    pairs = near(found, time, type, reach)
    assert pairs.sum(0).max(initial=0) <= 1 and pairs.sum(1).max(initial=0) <= 1
    row, truth = np.nonzero(pairs)
    return found.time[row] - time[truth], len(time) - len(truth), len(found) - len(row)


@pytest.fixture(scope="module")
def bank():
    return make_bank(TEMPLATES, 15.0, amplitude_spread=0.1)


@pytest.fixture(scope="module")
def mixture(bank):
    """Half a minute of events in noise that overlap in any way, and what was found."""
    rng = np.random.default_rng(3)
    n = 60_000
    time, type = np.sort(rng.uniform(300, n - 300, 250)), rng.integers(0, 16, 250)
    signal = plant(TEMPLATES, time, type, 15.0 * np.exp(0.1 * rng.standard_normal(250)), n, rng)
    return signal, find_candidates(bank, signal)


def test_events_are_found_once_with_their_time_and_type(bank, rng):
    time, type, n = schedule(rng, 160, 16)
    amplitude = 20.0 * np.exp(0.1 * rng.uniform(-2, 2, 160))
    strong = make_bank(TEMPLATES, 20.0, amplitude_spread=0.1)
    found = sure(find_candidates(strong, plant(TEMPLATES, time, type, amplitude, n, rng)))
    errors, missing, extra = compare(found, time, type, 2.0)
    assert missing == 0 and extra <= 1
    bound = 1 / np.sqrt(strong.timing_information.mean())
    assert errors.std() < 1.5 * bound < 0.3 and abs(errors.mean()) < 0.3 * bound
    nearest = np.abs(found.time[:, None] - time).argmin(1)
    assert np.abs(found.amplitude - amplitude[nearest] / 20).std() < 0.1


@pytest.mark.parametrize("distance_ms", [5, 20])
def test_overlapping_events_come_apart(distance_ms):
    """Pairs of different types, the second 5-30 ms behind the first: both are found."""
    rng = np.random.default_rng(distance_ms)
    first, type, n = schedule(rng, 120, 16, gap=500)
    other = (type + rng.integers(1, 16, 120)) % 16
    time = np.r_[first, first + distance_ms * 2.0 + rng.uniform(-0.5, 0.5, 120)]
    type = np.r_[type, other]
    bank = make_bank(TEMPLATES, 20.0, amplitude_spread=0.1)
    found = sure(find_candidates(bank, plant(TEMPLATES, time, type, 20.0, n, rng)))
    errors, missing, extra = compare(found, time, type, 3.0)
    assert missing <= 0.02 * len(time) and extra <= 0.02 * len(time)
    assert np.median(np.abs(errors)) < 0.2


def test_look_alikes_do_not_double_events(bank, rng):
    """A type that is another one in all but a tenth: each event counts for the right one, and once."""
    similar = bank.templates.copy()
    similar[1] = 0.93 * bank.templates[0] + np.sqrt(1 - 0.93**2) * bank.templates[1]
    twins = TemplateBank(similar, BEFORE, bank.names, 0.1)
    assert twins.similarity()[0, 1] > 0.9
    time, type, n = schedule(rng, 120, 2)
    signal = rng.standard_normal((n, 6)).astype(np.float32) + twins.render(n, time, type, np.ones(120))
    every = find_candidates(twins, signal)
    errors, missing, extra = compare(sure(every), time, type, 2.0)
    assert missing <= 2 and extra <= 2
    # The other type stands by as an alternative, behind the one that explains more.
    alternatives = every[(every.margin < 0) & (every.llr_isolated > CERTAIN)]
    nearest = np.abs(alternatives.time[:, None] - time).argmin(1)
    assert len(alternatives) > 100 and np.mean(alternatives.type == 1 - type[nearest]) > 0.95
    assert (alternatives.llr < alternatives.llr_isolated).all()


def test_what_is_explained_is_gone(bank, mixture):
    signal, _ = mixture
    found, residual = explain(bank, signal)
    assert residual.shape == signal.shape
    assert residual.std() == pytest.approx(1, abs=0.05) and signal.std() > 1.07
    fine = sure(found)
    assert abs(np.median(fine.misfit)) < 1.5
    doubled = bank.scores(residual)
    assert np.mean(bank.log_likelihood_ratio(doubled).max(1) > CERTAIN) < 1e-3


def test_what_no_template_explains_has_a_misfit(bank, rng):
    """A burst of another shape leaves energy behind."""
    stranger = make_templates(1, seed=77)
    time = 400 + 500.0 * np.arange(40)
    own = sure(find_candidates(bank, plant(TEMPLATES, time, np.arange(40) % 16, 15.0, 21_000, rng)))
    strange = find_candidates(bank, plant(stranger, time, np.zeros(40, int), 40.0, 21_000, rng))
    strange = strange[strange.llr > CERTAIN]
    assert np.median(own.misfit) < 2 and len(strange) > 0
    assert np.median(strange.misfit) > 5


@pytest.mark.parametrize("block", [4 * LENGTH, 4096])
def test_blocks_of_any_size_give_the_same_candidates(bank, mixture, block):
    signal, whole = mixture
    found = find_candidates(bank, signal, block=block)
    assert len(found) == len(whole) and np.array_equal(found.type, whole.type)
    for field in FIELDS:
        assert np.allclose(getattr(found, field), getattr(whole, field), rtol=1e-3, atol=1e-3), field


def test_evidence_is_that_of_the_channels_that_are_seen(bank, rng):
    """Half of the channels hidden: events are found with the evidence of the rest, and nothing is invented there."""
    time, type, n = schedule(rng, 100, 16)
    signal = plant(TEMPLATES, time, type, np.full(100, 15.0), n, rng)
    half = signal.shape[1] // 2
    signal[n // 4 :, :half] = 0
    found, residual = explain(bank, signal)
    _, missing, extra = compare(sure(found), time, type, 2.0)
    assert missing <= 2 and extra <= 2
    assert (residual[n // 4 :, :half] == 0).all()


def test_shares_in_what_is_seen_are_scores_of_it(bank, rng):
    """At the ends of the signal and beyond any hidden sample too."""
    n, lags = 3000, np.arange(1 - LENGTH, LENGTH)
    hidden = np.repeat(rng.random((n // 30, 6)) < 0.3, 30, axis=0)
    sample, offset, type = np.array([3, 700, 1500, n - 5]), np.array([0.3, -0.4, 0.0, 0.5]), np.array([0, 3, 7, 9])
    shares = pursue._seen_share(bank, hidden, sample, offset, type, amplitude := np.array([1.0, 2.0, 0.5, 3.0]))
    for k in range(4):
        alone = bank.render(n, (sample + offset)[k : k + 1], type[k : k + 1], amplitude[k : k + 1])
        at = sample[k] + lags
        inside = (at >= 0) & (at < n)
        alone[hidden] = 0
        np.testing.assert_allclose(shares[k][inside], bank.scores(alone)[at[inside]], atol=0.01)


@pytest.mark.parametrize("n", [0, 1, 2, 3, LENGTH, 5000])
def test_nothing_gives_nothing_and_short_recordings_pass(bank, rng, n):
    assert len(find_candidates(bank, np.zeros((n, 6), np.float32))) == 0
    found = find_candidates(bank, (30 * rng.standard_normal((min(n, LENGTH), 6))).astype(np.float32))
    assert ((found.time >= -0.5) & (found.time < n - 0.5)).all()


def test_alternatives_lie_inside_of_the_recording(bank):
    rng = np.random.default_rng(4)
    similar = bank.templates.copy()
    similar[1] = 0.95 * np.roll(similar[0], 6, axis=0) + 0.05 * similar[2]  # a look-alike that starts 3 ms later
    twins = TemplateBank(similar, BEFORE, bank.names, 0.25)
    for at in rng.uniform(0, 20, 20):
        events = np.array([at, 299 - at]), np.array([0, 1]), np.full(2, 2.0)
        found = find_candidates(twins, twins.render(300, *events) + rng.standard_normal((300, 6)).astype(np.float32))
        assert ((found.time >= -0.5) & (found.time < 299.5)).all()


def test_tables_are_sorted_and_moved():
    columns = [np.array([5.0, 3.0, 5.0]), np.array([1, 0, 0]), np.arange(3.0)]
    joined = Candidates.concatenate([Candidates(*(c[:1] for c in columns)), Candidates(*(c[1:] for c in columns))])
    assert joined.time.tolist() == [3, 5, 5] and joined.type.tolist() == [0, 0, 1]
    assert joined.llr.tolist() == joined.llr_isolated.tolist() == joined.margin.tolist() == [1, 2, 0]
    assert joined.shift(-2).time.tolist() == [1, 3, 3] and len(joined[joined.time > 4]) == 2


# --- Crowds: where templates explain each other the pursuit gives up, in bounded work, and reports it


@pytest.fixture(scope="module")
def wide_bank():
    return make_bank(TEMPLATES, 15.0, amplitude_spread=0.5)


def strange(kind, n, seed=0):
    """Signal that is no event: one loud oscillation, bursts of noise, or noise all along."""
    rng = np.random.default_rng(seed)
    noise = rng.standard_normal((n, 6)).astype(np.float32)
    if kind == "tone":
        return noise + 60 * np.sin(0.35 * np.arange(n) + rng.uniform(0, 6))[:, None].astype(np.float32)
    loud = np.arange(n) % (6 * LENGTH) < 3 * LENGTH if kind == "bursts" else np.ones(n, bool)
    return noise * np.where(loud, 20, 1)[:, None].astype(np.float32)


@pytest.mark.parametrize("kind", KINDS)
def test_a_crowd_has_a_limit_and_work_grows_with_the_recording_alone(wide_bank, kind, monkeypatch):
    """Counted in events explained and in events weighed, not in seconds."""
    time = np.sort(pursue._pursue(wide_bank, wide_bank.scores(strange(kind, 40 * LENGTH)))[0])
    first = np.searchsorted(time, time - wide_bank.length)
    assert (np.arange(1, len(time) + 1) - first).max() <= CROWD + 2
    weighed, gains, work = [], pursue._gains, []
    monkeypatch.setattr(pursue, "_gains", lambda *args: (weighed.append(len(args[-1])), gains(*args))[1])
    for n in (50 * LENGTH, 200 * LENGTH):
        weighed.clear()
        found, residual = explain(wide_bank, strange(kind, n))
        work.append((len(found), sum(weighed)))
        assert np.isfinite(residual).all()
    assert work[1][0] <= 4.5 * work[0][0] and work[1][1] <= 6 * work[0][1] + 200


@pytest.mark.parametrize("kind", KINDS)
def test_blocks_give_up_alike(wide_bank, kind):
    """The same events beside a crowd, and nearly the same candidates in it, where rounding decides between equals."""
    rng = np.random.default_rng(3)
    time, type, n = schedule(rng, 60, 16)
    fine = plant(TEMPLATES, time, type, 15.0, n, rng)
    signal = np.concatenate([fine, strange(kind, 60 * LENGTH), fine])
    whole, parts = (find_candidates(wide_bank, signal, block=size) for size in (10**6, 5000))
    same = near(whole, parts.time, parts.type, 0.05)
    assert same.any(1).mean() > 0.9 and same.any(0).mean() > 0.9
    for each, met in ((whole, same.any(1)), (parts, same.any(0))):
        beside = (each.time < n - 4 * LENGTH) | (each.time > len(signal) - n + 4 * LENGTH)
        assert met[beside & (each.llr > CERTAIN)].all()


def test_the_share_without_fit_is_measured(wide_bank):
    rng = np.random.default_rng(6)
    time, type, n = schedule(rng, 100, 16)
    fine, _ = explain(wide_bank, plant(TEMPLATES, time, type, 15.0, n, rng))
    assert crowded_share(wide_bank, fine, n) == 0
    assert crowded_share(wide_bank, fine[:0], n) == crowded_share(wide_bank, fine[:0], 0) == 0
    signal = strange("tone", 100 * LENGTH)
    signal[: 60 * LENGTH] = rng.standard_normal((60 * LENGTH, 6))
    found, _ = explain(wide_bank, signal)
    assert crowded_share(wide_bank, found, len(signal)) == pytest.approx(0.4, abs=0.05)


def test_what_explains_little_of_something_loud_is_no_candidate(wide_bank):
    rng = np.random.default_rng(7)
    time, type, n = schedule(rng, 60, 16)
    signal = plant(TEMPLATES, time, type, 15.0, n, rng)
    strict = replace(wide_bank, most_unexplained=5.0)
    assert len(explain(strict, signal)[0]) == len(explain(wide_bank, signal)[0])  # ordinary events fit
    loud = slice(n // 2, n // 2 + 200)
    signal[loud] += 60 * np.sin(0.35 * np.arange(200))[:, None]
    clear = [
        (found.llr > 20) & (found.time > loud.start) & (found.time < loud.stop - LENGTH)
        for found in (explain(bank, signal)[0] for bank in (wide_bank, strict))
    ]
    assert clear[0].any() and not clear[1].any()


# --- Better times: ringing events come to their places


@pytest.fixture(scope="module")
def ringing():
    """Three kinds that ring: each of two partials a beat apart, so that a period on they look much like themselves."""
    t = np.arange(RINGING - RINGING_BEFORE)
    templates = np.zeros((3, RINGING, 1))
    for kind, (low, high) in enumerate([(0.031, 0.047), (0.0335, 0.0445), (0.029, 0.051)]):
        wave = np.sin(2 * np.pi * low * t) + 0.8 * np.sin(2 * np.pi * high * t + 1)
        templates[kind, RINGING_BEFORE:, 0] = wave * np.exp(-t / 350) * (1 - np.exp(-t / 3))
    templates *= 60 / np.sqrt((templates**2).sum((1, 2)))[:, None, None]
    return TemplateBank(templates, RINGING_BEFORE, ("a", "b", "c"), amplitude_spread=0.2)


def ring(bank, rng, n_events=60, gap=170):
    """Events in each other's ring: time, type, signal."""
    time = 1000 + np.cumsum(gap + rng.uniform(0, 60, n_events))
    type = np.arange(n_events) % 3
    n = int(time[-1]) + 2000
    signal = bank.render(n, time, type, 1 + 0.2 * rng.standard_normal(n_events))
    return time, type, signal + rng.standard_normal(signal.shape).astype(np.float32)


def posterior(bank, signal, time, type):
    """Log posterior of events, the greatest over all amplitudes, by least squares on the rendered signals."""
    pairs = zip(time, type, strict=True)
    waves = np.stack([bank.render(len(signal), np.r_[t], np.r_[k], np.ones(1)).ravel() for t, k in pairs])
    waves = waves.astype(float) / bank.norm[type][:, None]
    weight = 1 / (bank.amplitude_spread * bank.norm[type]) ** 2
    mean, data = bank.norm[type], signal.ravel().astype(float)
    height = np.linalg.solve(waves @ waves.T + np.diag(weight), waves @ data + weight * mean)
    left = data - height @ waves
    return -0.5 * left @ left - 0.5 * (weight * (height - mean) ** 2).sum(), height


def n_missed(found, time, type):
    """How many events have no detection of their type within two samples."""
    return int((~near(found[found.llr > CERTAIN], time, type, 2).any(0)).sum())


def test_events_in_each_others_ring_come_to_their_places(ringing, monkeypatch):
    """The pursuit alone puts some a period away; afterwards most of these are where they were."""
    touches = [ring(ringing, np.random.default_rng(seed)) for seed in range(12)]
    after = [n_missed(explain(ringing, signal)[0], time, type) for time, type, signal in touches]
    monkeypatch.setattr(pursue, "REFINING_ROUNDS", 0)
    before = [n_missed(explain(ringing, signal)[0], time, type) for time, type, signal in touches]
    assert sum(before) >= 30 and sum(after) <= sum(before) // 3


@pytest.mark.parametrize("seed", range(6))
def test_gain_is_the_gain_of_the_posterior(ringing, seed, monkeypatch):
    """Against least squares over all amplitudes, for an event a period from its place among four neighbours."""
    monkeypatch.setattr(pursue, "RIDGE", 1e-6)
    time, type, signal = ring(ringing, np.random.default_rng(seed), 5)
    wrong = np.round(time) + 26.0 * np.eye(5)[1]  # where overlaps and scores are tabulated
    before, height = posterior(ringing, signal, wrong, type)
    score = ringing.scores(signal - ringing.render(len(signal), wrong, type, height / ringing.norm[type]))
    places, evidence, *_ = pursue._profile(ringing, score, wrong, type, height, np.arange(5))
    for place, gain in zip(places[1, 1:], evidence[1, 1:] - evidence[1, 0], strict=True):
        expected = posterior(ringing, signal, np.r_[wrong[0], place, wrong[2:]], type)[0] - before
        assert gain == pytest.approx(expected, abs=0.02 * abs(expected) + 5)


def test_it_never_makes_the_signal_less_likely(ringing, rng):
    time, type, signal = ring(ringing, rng, 12)
    wrong = time + rng.choice([0.0, 26.0, -26.0], 12)
    height = posterior(ringing, signal, wrong, type)[1]
    left = signal - ringing.render(len(signal), wrong, type, height / ringing.norm[type])
    peak = height + ringing.scores(left)[nearest_step(wrong)[0], type]
    new_time, new_type, _, _ = refine_times(ringing, signal, ringing.scores(left), wrong, type, peak)
    before, after = posterior(ringing, signal, wrong, type)[0], posterior(ringing, signal, new_time, new_type)[0]
    assert after > before + 100 and (np.diff(new_time) > 0).all()


def test_events_on_top_of_each_other_stay_finite(ringing, rng):
    """Explained twice at one time, or half a sample beside: amplitudes that nothing tells apart must not run away."""
    time, type, signal = ring(ringing, rng, 20)
    doubled = np.r_[time, time[::3], time[1::3] + 0.4], np.r_[type, type[::3], type[1::3]]
    peak = np.r_[ringing.norm[type], np.full(len(doubled[0]) - 20, 40.0)]
    amplitude = ringing.amplitude(peak, doubled[1])
    score = ringing.scores(signal - ringing.render(len(signal), *doubled, amplitude))
    _, _, peak, _ = refine_times(ringing, signal, score, *doubled, peak)
    assert np.isfinite(peak).all() and np.abs(peak).max() < 5 * ringing.norm.max()


def test_nothing_to_move_leaves_all_as_it_is(ringing):
    score, signal = np.zeros((4000, 3), np.float32), ringing.render(4000, np.r_[2000.25], np.r_[1], np.ones(1))
    for time in (np.zeros(0), np.r_[2000.25]):
        type = np.ones(len(time), int)
        *events, moved = refine_times(ringing, signal, score, time, type, ringing.norm[type])
        assert not moved and np.array_equal(events, [time, type, ringing.norm[type]])


def test_ringing_blocks_decide_alike(ringing):
    _, _, signal = ring(ringing, np.random.default_rng(2), 150)
    whole, parts = (find_candidates(ringing, signal, block=size) for size in (10**6, 7000))
    whole, parts = (found[found.llr > CERTAIN] for found in (whole, parts))
    assert np.array_equal(whole.type, parts.type) and np.allclose(whole.time, parts.time, atol=1e-3)
