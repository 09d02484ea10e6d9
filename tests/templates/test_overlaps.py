"""Templates of events that overlap, by least squares: exact where nothing else is there, the mean where nothing
overlaps."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from planted import BEFORE, LENGTH, make_bank, make_templates, plant, table

from evlib.templates.bank import TemplateBank, average_snippets, cut_snippets
from evlib.templates.learn import learn_templates
from evlib.templates.overlaps import can_separate, separate_templates

N_TYPES = 4
TEMPLATES = make_templates(N_TYPES, seed=3)
TRUTH = make_bank(TEMPLATES, 20.0)


def rounds(rng, n_rows, gap, jitter):
    """Kinds one after the other, always in the same order: times, types, and the length of a signal for them."""
    time = 400 + gap * np.arange(n_rows * N_TYPES) + jitter * rng.standard_normal(n_rows * N_TYPES)
    return time, np.arange(len(time)) % N_TYPES, int(time.max()) + 400


def rendered(time, type, amplitude, n, rng=None):
    """What the true bank makes of these events, in noise of standard deviation 1 if there is an ``rng``."""
    noise = 0 if rng is None else rng.standard_normal((n, TEMPLATES.n_channels))
    return (TRUTH.render(n, time, type, amplitude) + noise).astype(np.float32)


def separate(signal, time, type, amplitude):
    """From two recordings, of which the second is empty."""
    events = ([column, column[:0]] for column in (time, type, amplitude))
    return separate_templates([signal, signal[:400]], *events, N_TYPES, BEFORE, LENGTH)


@given(seed=st.integers(0, 1000), gap=st.integers(LENGTH + 1, 400))
@settings(max_examples=20, deadline=None)
def test_where_nothing_overlaps_it_is_the_mean(seed, gap):
    rng = np.random.default_rng(seed)
    time, type, n = rounds(rng, 5, gap, 0.0)
    signal = rendered(time, type, np.ones(len(time)), n, rng)
    mean, worth = average_snippets(cut_snippets(signal, time, BEFORE, LENGTH), type, np.ones(len(type)), N_TYPES)
    found, same_worth = separate(signal, time, type, np.ones(len(type)))
    assert np.allclose(found, mean, atol=1e-5) and (same_worth == worth).all()


@given(seed=st.integers(0, 1000), gap=st.floats(40, 100))
@settings(max_examples=20, deadline=None)
def test_without_noise_overlapping_events_give_their_templates(seed, gap):
    """The mean of such events is far off: each has two or three others in its window, in the same order every time."""
    rng = np.random.default_rng(seed)
    time, type, n = rounds(rng, 40, gap, 12.0)
    amplitude = np.exp(0.2 * rng.standard_normal(len(time)))
    signal = rendered(time, type, amplitude, n)
    found, _ = separate(signal, time, type, amplitude)
    mean, _ = average_snippets(cut_snippets(signal, time, BEFORE, LENGTH), type, np.ones(len(type)), N_TYPES)
    size = np.sqrt((TRUTH.templates**2).sum())
    error, error_of_mean = (np.sqrt(((got - TRUTH.templates) ** 2).sum()) / size for got in (found, mean))
    assert error < 0.05
    assert error < 0.2 * error_of_mean


def test_it_is_the_least_squares_solution():
    """Beside it every other set of templates explains the signal worse."""
    rng = np.random.default_rng(0)
    time, type, n = rounds(rng, 20, 70.0, 10.0)
    ones = np.ones(len(time))
    signal = rendered(time, type, ones, n, rng)
    found, _ = separate(signal, time, type, ones)

    def unexplained(templates):
        bank = TemplateBank(templates, BEFORE, TEMPLATES.names)
        return float(((signal - bank.render(n, time, type, ones)) ** 2).sum())

    best = unexplained(found)
    for seed in range(5):
        change = np.random.default_rng(seed).standard_normal(found.shape) * 0.2
        assert unexplained(found + change) > best
    assert best < unexplained(TRUTH.templates)


def test_kinds_that_cannot_be_told_apart_share_what_they_explain():
    """The second follows the first at the same distance each time: any share fits, and the signal is explained all the
    same."""
    rng = np.random.default_rng(1)
    start = 400 + 500.0 * np.arange(20)
    time, type = np.r_[start, start + 60], np.repeat([0, 1], 20)
    n = int(time.max()) + 400
    signal = rendered(time, type, np.ones(40), n, rng)
    found, worth = separate(signal, time, type, np.ones(40))
    assert np.isfinite(found).all() and (worth == [20, 20, 0, 0]).all() and (found[2:] == 0).all()
    left = signal - TemplateBank(found, BEFORE, TEMPLATES.names).render(n, time, type, np.ones(40))
    assert left.std() == pytest.approx(1.0, abs=0.02)


def test_templates_learned_in_rounds_are_those_of_single_events():
    """Labels by hand, amplitudes that vary, three events in a window, hardly out of step: nothing is learned of the
    order.

    Means of these snippets reach a cosine of 0.82 to 0.92 and times that are three samples off.
    """
    rng = np.random.default_rng(3)
    time, type, n = rounds(rng, 60, 60.0, 2.0)
    signal = plant(TEMPLATES, time, type, 20.0 * np.exp(0.2 * rng.standard_normal(len(time))), n, rng)
    labels = table(time + rng.normal(0, 0.5, len(time)), type, TEMPLATES.names)
    bank, _ = learn_templates([signal], [labels], BEFORE, LENGTH)
    assert (bank.shapes * TRUTH.shapes).sum((1, 2)).min() > 0.98
    assert bank.evidence_scale > 0.9 and bank.amplitude_spread < 0.3


def test_only_overlaps_with_enough_signal_are_separated():
    """Sixteen templates of half a second from eight seconds would explain the noise too."""
    time, type = 500.0 * np.arange(40), np.arange(40) % 8
    long, short = np.zeros((20_000, 1)), np.zeros((9000, 1))
    assert can_separate([long], [time], [type], 600)
    assert not can_separate([long], [time], [type], 400)  # they do not overlap
    assert not can_separate([short], [time[:16]], [type[:16]], 600)
    assert not can_separate([long], [time[:1]], [type[:1]], 600)
