"""Template banks against brute force: correlation, rendering, overlaps, evidence, averages and their shrinkage."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from planted import BEFORE, LENGTH, RATE, make_bank, make_templates, plant
from scipy.integrate import quad
from scipy.stats import norm

from evlib.signals.errors import OptionError
from evlib.templates.bank import (
    FFT_LENGTH,
    SUBSAMPLES,
    TemplateBank,
    average_snippets,
    correlate_snippets,
    cut_snippets,
    refine_peak,
    shrink_templates,
)

TEMPLATES = make_templates(seed=1)


@pytest.fixture(scope="module")
def bank():
    return make_bank(TEMPLATES, 15.0)


@pytest.mark.parametrize("n", [0, 1, 5, FFT_LENGTH - 8, FFT_LENGTH - 7, 2 * FFT_LENGTH + 17])
@pytest.mark.parametrize("length", [9, 40_000])
def test_scores_are_correlations(rng, n, length):
    """Also for a template of more samples than the usual transform has."""
    bank = TemplateBank(rng.standard_normal((2, length, 2)), 4, ("a", "b"))
    signal = rng.standard_normal((n, 2)).astype(np.float32)
    padded = np.pad(signal, ((4, length - 5), (0, 0))) if n else np.zeros((length - 1, 2))
    expected = [
        sum(np.correlate(*pair, "valid") for pair in zip(padded.T, shape.T, strict=True)) for shape in bank.shapes
    ]
    scores = bank.scores(signal)
    assert np.allclose(scores, np.stack(expected, axis=1)[:n], atol=1e-4) and scores.dtype == np.float32


def test_rendering_is_a_fourier_shift(rng):
    """Against a shift of the whole signal, for a template that the sampling rate can carry."""
    time = np.arange(64)[:, None] - 32.0
    smooth = np.exp(-0.5 * (time / 5) ** 2) * np.cos(time * [0.3, 0.9])
    bank = TemplateBank(smooth[None], 20, ("a",))
    for onset in (150.0, 150.25, 150.4999, 150.5, 150.75, 151.0):
        canvas = np.zeros((400, 2))
        canvas[130:194] = smooth
        turn = np.exp(-2j * np.pi * np.fft.rfftfreq(400) * (onset - 150))[:, None]
        expected = np.fft.irfft(np.fft.rfft(canvas, axis=0) * turn, 400, axis=0)
        assert np.allclose(bank.render(400, np.array([onset]), np.array([0]), np.ones(1)), expected, atol=1e-4)


@pytest.mark.parametrize("portion", [3000, 1 << 21])
def test_renders_add_up_and_are_cut_at_the_ends(bank, rng, monkeypatch, portion):
    monkeypatch.setattr("evlib.templates.bank.PORTION", portion)
    time, type, amplitude = rng.uniform(-60, 660, 40), rng.integers(0, 16, 40), rng.uniform(0.5, 2, 40)
    together = bank.render(600, time, type, amplitude)
    wide = sum(bank.render(1600, time[k : k + 1] + 500, type[k : k + 1], amplitude[k : k + 1]) for k in range(40))
    assert np.allclose(together, wide[500:1100], atol=1e-4)
    assert bank.render(600, np.zeros(0), np.zeros(0, int), np.zeros(0)).shape == (600, 6)


def test_overlaps_are_the_scores_of_rendered_events(bank):
    length, centre = bank.length, 700
    lags = np.arange(-(length - 1), length)
    for kind in (0, 7, 15):
        for k in range(SUBSAMPLES):
            onset = np.array([centre + k / SUBSAMPLES - 0.5])
            signal = bank.render(1400, onset, np.array([kind]), 1 / bank.norm[[kind]])
            score = bank.scores(signal)[centre + lags]
            assert np.abs(bank.overlap[kind, k] - score).max() < 0.02


def test_similarity(bank):
    similarity = bank.similarity()
    assert np.allclose(np.diag(similarity), 1, atol=1e-5) and np.allclose(similarity, similarity.T, atol=1e-5)
    assert (similarity <= 1 + 1e-5).all()
    twins = TemplateBank(np.concatenate([bank.templates[:1], 3 * bank.templates[:1]]), BEFORE, ("a", "b"))
    assert np.allclose(twins.similarity(), 1, atol=1e-5)


@pytest.mark.parametrize("spread", [0.1, 0.25])
@pytest.mark.parametrize("amplitude", [4.0, 15.0])
def test_evidence_is_the_integral_over_the_amplitude(spread, amplitude):
    bank = make_bank(TEMPLATES, amplitude, amplitude_spread=spread)
    expected = bank.norm[3]
    for score in expected * np.array([0.9, 1.0, 1.3]):
        likelihood, _ = quad(
            lambda a, s=score: norm.pdf(s, a * expected, 1) * norm.pdf(a, 1, spread),
            1 - 8 * spread,
            1 + 8 * spread,
            epsabs=0,
        )
        ratio = np.log(likelihood) - norm.logpdf(score)
        assert bank.log_likelihood_ratio(np.array([score]), np.array([3]))[0] == pytest.approx(ratio, rel=1e-4)


def test_evidence_grows_up_to_the_expected_score_and_counts_rates(bank):
    score = np.linspace(-5, 15, 200)[:, None] * np.ones(16, np.float32)
    evidence = bank.log_likelihood_ratio(score)
    assert (evidence[score[:, 0] <= 0] < 0).all() and (evidence[-1] > 50).all()
    assert (np.diff(evidence[score[:, 0] > 0], axis=0) > -1e-3).all()
    rare = make_bank(TEMPLATES, 15.0, log_rate=np.linspace(-2, 2, 16))
    assert np.allclose(rare.log_likelihood_ratio(score) - evidence, np.linspace(-2, 2, 16), atol=1e-4)
    kinds = np.arange(16)
    assert np.allclose(bank.log_likelihood_ratio(score[150], kinds), evidence[150])
    # One that is far too weak to be this event never counts for it.
    assert (bank.log_likelihood_ratio(0.2 * bank.norm) <= 0).all()


def test_the_most_probable_amplitude(bank):
    grid = np.linspace(0.3, 2, 20001)
    for score in (10.0, 15.0, 22.0):
        posterior = norm.logpdf(score, grid * bank.norm[2], 1) + norm.logpdf(grid, 1, bank.amplitude_spread)
        assert bank.amplitude(np.array([score]), np.array([2]))[0] == pytest.approx(grid[posterior.argmax()], abs=1e-3)


def test_timing_information_is_the_energy_of_the_derivative(bank):
    step, time_s = 1e-3, (np.arange(LENGTH) - BEFORE) / RATE
    information = np.zeros(16)
    for phase in np.arange(4) / 4:
        at = np.tile(time_s + phase / RATE, (16, 1))
        slope = (TEMPLATES(np.arange(16), at + step / RATE) - TEMPLATES(np.arange(16), at - step / RATE)) / (2 * step)
        information += ((15 * slope) ** 2).sum((1, 2)) / 4
    assert np.allclose(bank.timing_information, information, rtol=0.04)


@given(st.lists(st.floats(-3, 3), min_size=16, max_size=16))
@settings(max_examples=20)
def test_a_bank_is_moved_by_exactly_so_much(bank, shift):
    moved = bank.shifted(np.array(shift))
    time_s = (np.arange(LENGTH) - BEFORE - np.array(shift)[:, None]) / RATE
    exact = 15 * TEMPLATES(np.arange(16), time_s)
    assert (np.linalg.norm(moved.templates - exact, axis=(1, 2)) < 0.05 * 15).all()
    assert moved.names == bank.names and moved.before == bank.before


@given(st.floats(100, 200), st.integers(0, 15))
@settings(max_examples=30)
def test_snippets_are_put_back_on_whole_samples(bank, onset, kind):
    signal = plant(TEMPLATES, [onset], [kind], 15.0, 500)
    snippet = cut_snippets(signal, np.array([onset]), BEFORE, LENGTH)[0]
    assert np.linalg.norm(snippet - bank.templates[kind]) < 0.05 * bank.norm[kind]


@pytest.mark.parametrize("portion", [60, 1 << 21])
def test_snippets_at_whole_samples_are_the_signal_itself(rng, monkeypatch, portion):
    monkeypatch.setattr("evlib.templates.bank.PORTION", portion)
    signal = rng.standard_normal((100, 2)).astype(np.float32)
    snippets = cut_snippets(signal, np.array([30.0, -2.0, 95.0]), 5, 20)
    padded = np.pad(signal, ((50, 50), (0, 0)))
    for snippet, at in zip(snippets, (30, -2, 95), strict=True):
        assert np.allclose(snippet, padded[at + 45 : at + 65], atol=1e-5)
    assert cut_snippets(signal, np.zeros(0), 5, 20).shape == (0, 20, 2)


def test_averages_are_weighted_means(rng):
    snippets, type, weight = rng.standard_normal((40, 7, 2)), rng.integers(0, 3, 40), rng.uniform(0.1, 1, 40)
    mean, worth = average_snippets(snippets, type, weight, 4)
    for kind in range(3):
        own = type == kind
        assert np.allclose(mean[kind], np.average(snippets[own], axis=0, weights=weight[own]))
        assert worth[kind] == pytest.approx(weight[own].sum() ** 2 / (weight[own] ** 2).sum())
    assert (mean[3] == 0).all() and worth[3] == 0


@pytest.mark.parametrize("worth", [1, 3, 10])
def test_shrinkage_takes_noise_away(bank, rng, worth):
    noisy = bank.templates + rng.standard_normal((5, *bank.templates.shape)) / np.sqrt(worth)
    shrunk = np.stack([shrink_templates(each, np.full(16, worth)) for each in noisy])
    assert ((shrunk - bank.templates) ** 2).sum() < 0.7 * ((noisy - bank.templates) ** 2).sum()


def test_shrinkage_leaves_what_has_no_noise_and_removes_what_is_nothing_else(bank, rng):
    assert np.allclose(shrink_templates(bank.templates, np.full(16, 1e12)), bank.templates, atol=1e-3)
    noise = rng.standard_normal(bank.templates.shape) / 2
    assert (shrink_templates(noise, np.full(16, 4)) ** 2).sum() < 0.1 * (noise**2).sum()
    # A type without a snippet stays empty and changes no other.
    mean, worth = bank.templates.copy(), np.full(16, 5.0)
    mean[3], worth[3] = 0, 0
    with_it, without = shrink_templates(mean, worth), shrink_templates(np.delete(mean, 3, 0), np.delete(worth, 3))
    assert (with_it[3] == 0).all() and np.allclose(np.delete(with_it, 3, 0), without)


@pytest.mark.parametrize("length", [5, 27, 28, 29, 130])
def test_shrinkage_keeps_any_length(rng, length):
    templates = rng.standard_normal((2, length, 1))
    assert np.allclose(shrink_templates(templates, np.full(2, 1e12)), templates, atol=1e-6)


def test_a_bank_must_fit_its_names():
    with pytest.raises(OptionError, match=r"templates must have shape \(2 types, L, C\)"):
        TemplateBank(np.zeros((3, 10, 1)), 0, ("a", "b"))


@given(st.floats(-0.5, 0.5), st.floats(0.1, 100), st.floats(-1e3, 1e3))
def test_a_parabola_is_refined_exactly(vertex, curvature, height):
    values = height - curvature * (np.array([-1.0, 0.0, 1.0]) - vertex) ** 2
    assert refine_peak(values, 1) == pytest.approx((vertex, height), abs=1e-8)
    assert refine_peak(np.array([1.0, 1.0, 3.0]), 1) == (0, 1)  # no peak


@pytest.mark.parametrize("portion", [1, 500, 1 << 21])
def test_correlation_is_the_sum_at_every_lag(rng, monkeypatch, portion):
    monkeypatch.setattr("evlib.templates.bank.PORTION", portion)
    pieces, templates = rng.standard_normal((7, 40, 2)).astype(np.float32), rng.standard_normal((3, 31, 2))
    owner = rng.integers(0, 3, 7)
    expected = np.stack([np.einsum("nlc,elc->ne", pieces[:, k : k + 31], templates) for k in range(10)], axis=1)
    every, own = (list(correlate_snippets(pieces, templates, rows)) for rows in (None, owner))
    assert np.allclose(np.concatenate([scores for _, scores in every]), expected, atol=1e-5)
    assert np.allclose(np.concatenate([scores for _, scores in own]), expected[np.arange(7), :, owner], atol=1e-5)
