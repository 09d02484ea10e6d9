"""Single events, types that look alike, and relative timing."""

import numpy as np
import pytest
import scipy.fft
from hypothesis import given
from hypothesis import strategies as st
from planted import BEFORE, LENGTH, RATE, make_bank, make_templates, plant, schedule, table

from evlib.signals.errors import DataError, ShapeError
from evlib.signals.recording import Recording
from evlib.templates.bank import TemplateBank, cut_snippets
from evlib.templates.waveforms import (
    channel_delays,
    channel_times,
    inter_event_intervals,
    read_snippets,
    similar_templates,
    subtract_template,
)


def test_only_what_is_around_events_is_read(rng):
    """And it equals what is cut out of the whole signal."""
    signal, read = rng.standard_normal((200_000, 2)).astype(np.float32), []
    time = np.r_[rng.uniform(0, 200_000, 40), 3.2, 199_990.7]

    def whitener(recording, start, stop):
        read.append(stop - start)
        return recording.read(start, stop)

    found = read_snippets(whitener, Recording(signal, RATE), time, 20, 90)
    assert found.shape == (42, 90, 2) and sum(read) < 42 * 200
    assert np.allclose(found, cut_snippets(signal, time, 20, 90), atol=1e-5)
    assert read_snippets(whitener, Recording(signal, RATE), [], 20, 90).shape == (0, 90, 2)


def test_an_event_without_its_template_is_noise(rng):
    templates = make_templates(1, 3, RATE, seed=3)
    bank = make_bank(templates)
    signal = plant(templates, [500.0, 1500.0], [0, 0], [15.0, 30.0], 2500)
    pieces = cut_snippets(signal, np.array([500.0, 1500.0]), BEFORE, LENGTH)
    assert np.abs(pieces).max() > 1
    assert np.abs(subtract_template(pieces, bank.templates[0])).max() < 1e-3


def test_the_stated_chance_is_what_noise_does(rng):
    shape = np.r_[np.zeros(4), [3.0, -2.0, 4.0, 1.0], np.zeros(4)]
    other = shape + np.r_[np.zeros(4), [0.9, 1.1, 0.0, -0.8], np.zeros(4)]
    bank = TemplateBank(np.stack([shape, other])[:, :, None], 0, ("a", "b"))
    first = next(pair for pair in similar_templates(bank) if pair.name == "a")
    noisy = shape + rng.standard_normal((40_000, len(shape)))
    evidence = bank.log_likelihood_ratio((noisy @ bank.shapes[:, :, 0].T).astype(np.float32))
    assert 0.1 < first.chance < 0.4
    assert np.mean(evidence[:, 1] > evidence[:, 0]) == pytest.approx(first.chance, abs=0.02)


def test_the_worst_pair_comes_first_and_unlike_types_are_left_out():
    shapes = np.zeros((4, 9, 1))
    shapes[0, [2, 5], 0], shapes[1, [2, 5], 0] = [3, 2], [3, 2.1]
    shapes[2, [2, 4], 0], shapes[3, [1, 7, 8], 0] = [3, 2], [40, -40, 40]
    pairs = similar_templates(TemplateBank(shapes, 0, tuple("abcd")))
    assert {pairs[0].name, pairs[0].other} == {"a", "b"} and all(pair.chance >= 0.01 for pair in pairs)
    assert all("d" not in (pair.name, pair.other) for pair in pairs)
    assert [pair.chance for pair in pairs] == sorted((pair.chance for pair in pairs), reverse=True)


def moved(waves, shift):
    """Waves (L, C), each channel moved later by its shift in samples, which may be fractions."""
    n = len(waves)
    spectrum = scipy.fft.rfft(np.pad(waves, ((n, 2 * n), (0, 0))), axis=0)
    turn = np.exp(-2j * np.pi * scipy.fft.rfftfreq(4 * n)[:, None] * np.asarray(shift))
    return scipy.fft.irfft(spectrum * turn, 4 * n, axis=0)[n : 2 * n]


def shapes(seed=0, n_channels=6):
    """(L, C) templates of one type, whose channels all begin together."""
    templates = make_templates(1, n_channels, RATE, seed=seed)
    templates.delay_s[:] = 0
    return templates.sampled(RATE, 0.02, 0.06)[0]


def cut(bank, signal, time, reach=8):
    return cut_snippets(signal, np.asarray(time), bank.before + reach, bank.length + 2 * reach)


def relative(shift, delays):
    return np.asarray(shift) - np.asarray(shift) @ delays.weight


@given(st.lists(st.floats(-8, 8), min_size=2, max_size=5))
def test_the_rise_moves_with_the_channel(shift):
    wave = shapes(1, 1)
    waves = np.repeat(wave, len(shift), axis=1)
    found = channel_delays(moved(waves, shift)[None], RATE)
    assert np.abs(found.delay_s * RATE - relative(shift, found)).max() < 0.05


def test_rises_of_different_waveforms_agree_with_the_true_delays_to_about_half_a_sample():
    errors = []
    for seed in range(20):
        templates = make_templates(1, 6, RATE, seed=seed)
        delays = channel_delays(templates.sampled(RATE, 0.02, 0.06), RATE)
        errors.append(delays.delay_s * RATE - relative(templates.delay_s[0] * RATE, delays))
    assert np.median(np.abs(np.concatenate(errors))) < 0.7


def test_intervals_hold_the_truth_and_shrink_with_more_events(rng):
    reference, inside, widths = shapes(2), [], {}
    loud = reference / np.sqrt((reference**2).sum(0)) * 40
    for n_events in (10, 90):
        for _ in range(12):
            shift = rng.uniform(-5, 5, 6)
            delays = channel_delays(moved(loud, shift) + rng.standard_normal((n_events, *loud.shape)), RATE)
            true = channel_delays(moved(loud, shift)[None], RATE).delay_s
            inside.append((delays.low_s <= true) & (true <= delays.high_s))
            widths.setdefault(n_events, []).append(np.median(delays.high_s - delays.low_s))
    assert np.mean(inside) > 0.8
    assert 2 < np.mean(widths[10]) / np.mean(widths[90]) < 4.5


def test_a_silent_channel_has_no_delay_and_one_event_no_interval():
    waves = shapes()
    assert np.isnan(channel_delays(waves[None], RATE).low_s).all()
    waves[:, 2] = 0
    delays = channel_delays(np.repeat(waves[None], 3, axis=0), RATE)
    assert np.flatnonzero(np.isnan(delays.delay_s)).tolist() == [2]
    assert delays.weight[2] == 0 and np.isclose(delays.weight.sum(), 1)
    assert np.isnan(delays.low_s[2]) and np.isfinite(np.delete(delays.low_s, 2)).all()


@pytest.mark.parametrize(
    ("snippets", "error", "words"),
    [
        (np.zeros((5, 3)), ShapeError, "one event\\? add an axis"),
        (np.zeros((0, 5, 3)), DataError, "no events"),
        (np.zeros((2, 5, 3)), DataError, "no signal"),
        (np.full((2, 5, 3), np.nan), DataError, "finite"),
    ],
)
def test_what_cannot_be_is_refused(snippets, error, words):
    with pytest.raises(error, match=words):
        channel_delays(snippets, RATE)


def test_each_channel_dates_events_by_itself(rng):
    templates = make_templates(2, 3, RATE, seed=4)
    bank = make_bank(templates, amplitude=40.0)
    time, type, n = schedule(rng, 40, 2)
    late = np.array([0.0, 1.3, -2.2])
    signal = plant(templates, time, type, 40.0, n)
    signal = np.stack([moved(signal[:, [c]], late[c])[:, 0] for c in range(3)], axis=1)
    signal += rng.standard_normal(signal.shape)
    pieces = cut(bank, signal.astype(np.float32), time)
    found = channel_times(bank, pieces, type)
    assert found.shape == (40, 3)
    assert np.abs(np.nanmedian(found, axis=0) - late).max() < 0.15
    # A channel that a kind hardly reaches says nothing.
    bank.templates[1, :, 2] *= 1e-3
    assert np.isnan(channel_times(bank, pieces, type)[type == 1, 2]).all()


def test_a_time_out_of_reach_is_not_invented(rng):
    templates = make_templates(1, 2, RATE, seed=4)
    bank = make_bank(templates, amplitude=40.0)
    signal = plant(templates, [500.0], [0], 40.0, 1000)
    near, far = (channel_times(bank, cut(bank, signal, [500.0 + off], reach=4), np.array([0])) for off in (2, 9))
    assert np.allclose(near, -2, atol=0.1)
    assert np.isnan(far).all()
    with pytest.raises(ShapeError, match="longer than the templates"):
        channel_times(bank, cut(bank, signal, [500.0], reach=0), np.array([0]))


@given(st.lists(st.integers(0, 2), max_size=12))
def test_time_to_the_next_kind_agrees_with_looking(types):
    events = table(np.arange(len(types)) * 7.25, types, ("a", "b", "c"))
    expected = []
    for i, kind in enumerate(types):
        j = next((j for j in range(i + 1, len(types)) if types[j] != kind), None)
        if j is not None:
            expected.append((kind, types[j], (j - i) * 7.25 / RATE))
    before, after, interval_s = inter_event_intervals(events)
    assert [*zip(before, after, strict=True)] == [row[:2] for row in expected]
    assert np.allclose(interval_s, [row[2] for row in expected])
