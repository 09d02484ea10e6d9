"""Candidates: every planted event once, at its time and of its type, however the recording is cut."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from planted import BEFORE, LENGTH, make_bank, make_templates, plant, schedule

from evlib.templates.bank import TemplateBank, refine_peak
from evlib.templates.pursue import CERTAIN, Candidates, explain, find_candidates

TEMPLATES = make_templates(seed=1)
FIELDS = ("time", "llr", "llr_isolated", "margin", "amplitude", "misfit")


def search(bank, signal, **options):
    return find_candidates(bank, lambda start, stop: signal[start:stop], len(signal), **options)


def sure(found):
    """What is certainly an event, and of no other type."""
    return found[(found.llr > CERTAIN) & (found.margin > 0)]


def compare(found, time, type, reach):
    """Errors of the times of those found, and how many are missing and too many."""
    pairs = (np.abs(found.time[:, None] - time) <= reach) & (found.type[:, None] == type)
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
    return signal, search(bank, signal)


def test_events_are_found_once_with_their_time_and_type(bank, rng):
    time, type, n = schedule(rng, 160, 16)
    amplitude = 20.0 * np.exp(0.1 * rng.uniform(-2, 2, 160))
    strong = make_bank(TEMPLATES, 20.0, amplitude_spread=0.1)
    found = sure(search(strong, plant(TEMPLATES, time, type, amplitude, n, rng)))
    errors, missing, extra = compare(found, time, type, 2.0)
    assert missing == 0 and extra <= 1
    bound = 1 / np.sqrt(strong.timing_information.mean())
    assert errors.std() < 1.5 * bound < 0.3 and abs(errors.mean()) < 0.3 * bound
    nearest = np.abs(found.time[:, None] - time).argmin(1)
    assert np.abs(found.amplitude - amplitude[nearest] / 20).std() < 0.1


def test_without_noise_everything_is_exact(bank):
    time, type, n = schedule(np.random.default_rng(2), 64, 16)
    found = sure(search(bank, plant(TEMPLATES, time, type, 15.0, n)))
    errors, missing, extra = compare(found, time, type, 1.0)
    assert missing == extra == 0
    assert np.abs(errors).max() < 0.1
    assert np.allclose(found.amplitude, 1, atol=0.05)
    assert np.allclose(found.llr, bank.log_likelihood_ratio(bank.norm)[found.type], rtol=0.1)


@pytest.mark.parametrize("distance_ms", [5, 10, 20, 30])
def test_overlapping_events_come_apart(distance_ms):
    """Pairs of different types, the second 5-30 ms behind the first: both are found."""
    rng = np.random.default_rng(distance_ms)
    first, type, n = schedule(rng, 120, 16, gap=500)
    other = (type + rng.integers(1, 16, 120)) % 16
    time = np.r_[first, first + distance_ms * 2.0 + rng.uniform(-0.5, 0.5, 120)]
    type = np.r_[type, other]
    bank = make_bank(TEMPLATES, 20.0, amplitude_spread=0.1)
    found = sure(search(bank, plant(TEMPLATES, time, type, 20.0, n, rng)))
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
    every = search(twins, signal)
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


def test_misfit_tells_a_stranger(bank, rng):
    """A burst that no template explains leaves energy behind."""
    stranger = make_templates(1, seed=77)
    time = 400 + 500.0 * np.arange(40)
    own = sure(search(bank, plant(TEMPLATES, time, np.arange(40) % 16, 15.0, 21_000, rng)))
    strange = search(bank, plant(stranger, time, np.zeros(40, int), 40.0, 21_000, rng))
    strange = strange[strange.llr > CERTAIN]
    assert np.median(own.misfit) < 2 and len(strange) > 0
    assert np.median(strange.misfit) > 5


@pytest.mark.parametrize("block", [4 * LENGTH, 1000, 4096, 59_999])
def test_blocks_of_any_size_give_the_same_candidates(bank, mixture, block):
    signal, whole = mixture
    done = []
    found = search(bank, signal, block=block, advance=done.append)
    assert sum(done) == len(signal)
    assert len(found) == len(whole) and np.array_equal(found.type, whole.type)
    for field in FIELDS:
        assert np.allclose(getattr(found, field), getattr(whole, field), rtol=1e-3, atol=1e-3), field


@pytest.mark.parametrize("dropped", range(10))
def test_the_start_of_a_recording_does_not_matter(bank, mixture, dropped):
    signal, whole = (part[:20_000] for part in (mixture[0], mixture[1][mixture[1].time < 17_000]))
    found = search(bank, signal[dropped:]).shift(dropped)
    inside = [part[(part.time > 3000) & (part.time < 17_000)] for part in (found, whole)]
    assert len(inside[0]) == len(inside[1]) > 50 and np.array_equal(inside[0].type, inside[1].type)
    for field in FIELDS:
        assert np.allclose(getattr(inside[0], field), getattr(inside[1], field), rtol=1e-3, atol=1e-3), field


def test_noise_alone_gives_few_candidates(bank):
    signal = np.random.default_rng(8).standard_normal((240_000, 6)).astype(np.float32)
    found = search(bank, signal)
    certain = (found.llr > CERTAIN).sum()
    assert certain <= 16 * 120 / 20  # once in 20 s and type
    assert (found.llr[found.llr_isolated == found.llr] > 0).all()


def test_nothing_gives_nothing(bank):
    silence = np.zeros((5000, 6), np.float32)
    assert len(search(bank, silence)) == 0
    assert len(search(bank, silence[:0])) == 0 and len(search(bank, silence[:1])) == 0
    _, residual = explain(bank, silence)
    assert (residual == 0).all()


@pytest.mark.parametrize("n", [1, 2, 3, 50, LENGTH, 2 * LENGTH])
def test_short_recordings_pass(bank, rng, n):
    found = search(bank, (30 * rng.standard_normal((n, 6))).astype(np.float32))
    assert ((found.time >= -0.5) & (found.time < n - 0.5)).all()


def test_times_lie_inside_of_the_recording(bank):
    """Events that are cut at the ends, and alternatives to them."""
    for shift in range(0, 40, 3):
        signal = plant(TEMPLATES, [20.0, 700.0], [3, 5], 60.0, 740)[shift : 740 - shift]
        found = search(bank, signal)
        assert ((found.time >= -0.5) & (found.time < len(signal) - 0.5)).all()


def test_alternatives_lie_inside_of_the_recording(bank):
    rng = np.random.default_rng(4)
    similar = bank.templates.copy()
    similar[1] = 0.95 * np.roll(similar[0], 6, axis=0) + 0.05 * similar[2]  # a look-alike that starts 3 ms later
    twins = TemplateBank(similar, BEFORE, bank.names, 0.25)
    for at in rng.uniform(0, 20, 20):
        events = np.array([at, 299 - at]), np.array([0, 1]), np.full(2, 2.0)
        found = search(twins, twins.render(300, *events) + rng.standard_normal((300, 6)).astype(np.float32))
        assert ((found.time >= -0.5) & (found.time < 299.5)).all()


@given(st.floats(-0.5, 0.5), st.floats(0.1, 100), st.floats(-1e3, 1e3))
def test_a_parabola_is_refined_exactly(vertex, curvature, height):
    values = height - curvature * (np.array([-1.0, 0.0, 1.0]) - vertex) ** 2
    offset, peak = refine_peak(values, 1)
    assert offset == pytest.approx(vertex, abs=1e-8) and peak == pytest.approx(height, abs=1e-8)


def test_what_is_no_peak_is_not_refined():
    offset, height = refine_peak(np.array([[1.0, 0.0, 2.0], [1.0, 0.0, 1.0], [1.0, 1.0, 0.0]]), 1, np.arange(3))
    assert (np.abs(offset) <= 0.5).all() and np.isfinite(height).all()
    flat, level = refine_peak(np.array([[1.0, 1.0], [1.0, 1.0], [1.0, 3.0]]), 1, np.arange(2))
    assert flat.tolist() == [0, 0] and level.tolist() == [1, 1]


def test_tables_are_sorted_and_moved():
    columns = [np.array([5.0, 3.0, 5.0]), np.array([1, 0, 0]), *np.arange(15.0).reshape(5, 3)]
    table = Candidates.concatenate([Candidates(*(c[:1] for c in columns)), Candidates(*(c[1:] for c in columns))])
    assert table.time.tolist() == [3, 5, 5] and table.type.tolist() == [0, 0, 1] and table.llr.tolist() == [1, 2, 0]
    assert table.shift(-2).time.tolist() == [1, 3, 3] and len(table[table.time > 4]) == 2
