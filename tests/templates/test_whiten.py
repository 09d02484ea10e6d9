"""Whitening: white out of coloured, nothing moves in time, any piece equals the whole."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import welch

from evlib.signals.errors import DataError, ShapeError
from evlib.signals.recording import Recording
from evlib.signals.synthetic import coloured_noise, make_recording, make_templates, noise_spectrum
from evlib.templates.whiten import design_whitener, estimate_whitener, refine_whitener

RATE = 2000.0


@pytest.fixture(scope="module")
def noise():
    """A minute of noise alone, far from zero and with another size on each channel."""
    signal = coloured_noise(120_000, 3, RATE, np.random.default_rng(0)) * [1.0, 30.0, 1e-3] + [0.0, 1e3, -5.0]
    return Recording(signal.astype(np.float32), RATE, channels=("x", "y", "z"))


@pytest.fixture(scope="module")
def whitener(noise):
    return estimate_whitener([noise])


def without_gaps(whitener):
    """For signals without noise: what stands still, or is one sample long, is no gap."""
    return replace(whitener, normal=None)


@pytest.fixture(scope="module")
def white(whitener, noise):
    return whitener(noise)


def test_noise_becomes_white(whitener, white):
    assert white.shape == (120_000, 3) and white.dtype == np.float32
    assert np.abs(white[1000:-1000].mean(0)).max() < 0.01
    assert np.allclose(white.std(0), 1, atol=0.03)
    frequency, psd = welch(white, RATE, nperseg=2048, axis=0)
    band = np.digitize(frequency, np.linspace(5, 1000, 33))
    flat = np.array([psd[band == k].mean(0) for k in range(1, 33)]) * RATE / 2
    assert np.abs(flat - 1).max() < 0.15


def test_the_true_spectrum_whitens_too():
    frequency = np.linspace(0, RATE / 2, 4097)
    known = design_whitener(np.tile(noise_spectrum(frequency, RATE), (2, 1)), RATE)
    signal = coloured_noise(60_000, 2, RATE, np.random.default_rng(2))
    assert np.allclose(known(Recording(signal, RATE)).std(0), 1, atol=0.02)


@pytest.mark.parametrize("rate", [100.0, 360.0, 44100.0])
def test_other_rates(rate):
    signal = coloured_noise(int(20 * rate), 2, rate, np.random.default_rng(2))
    white = estimate_whitener([Recording(signal, rate)])(Recording(signal, rate))
    assert np.allclose(white.std(0), 1, atol=0.1)


def test_a_constant_is_blocked(whitener):
    assert np.abs(whitener.taps.sum(1)).max() < 1e-9 * np.abs(whitener.taps).max()
    offset = Recording(np.tile(whitener.center + [5.0, 1e5, -3.0], (3000, 1)), RATE)
    assert np.abs(whitener(offset)).max() < 1e-3


@given(st.integers(0, 2999))
@settings(max_examples=25)
def test_an_impulse_stays_where_it_is(whitener, at):
    signal = np.tile(whitener.center, (3000, 1))
    signal[at] += [1.0, 30.0, 1e-3]
    out = without_gaps(whitener)(Recording(signal, RATE)).astype(float)
    assert (np.abs(out).argmax(axis=0) == at).all()
    # Zero phase: the response is symmetric about the impulse, so no time has a bias.
    reach = min(at, 2999 - at, whitener.reach)
    if whitener.reach < at < 2999 - whitener.reach:
        piece = out[at - reach : at + reach + 1]
        assert np.allclose(piece, piece[::-1], atol=1e-5 * np.abs(piece).max())
    assert np.allclose(whitener.taps, whitener.taps[:, ::-1], atol=1e-12 * np.abs(whitener.taps).max())


@given(st.sampled_from([10, 499, 500, 501, 502, 700, 1001, 9000]), st.floats(0, 1), st.floats(0, 1))
@settings(max_examples=60)
def test_any_piece_equals_the_whole(whitener, noise, n, one, other):
    """Also of a recording shorter than the filter."""
    recording, (start, stop) = Recording(noise.read(0, n), RATE), np.sort([int(one * n), int(other * n)])
    whole, piece = whitener(recording), whitener(recording, start, stop)
    assert whole.shape == (n, 3) and np.isfinite(whole).all()
    assert np.allclose(piece, whole[start:stop], rtol=1e-5, atol=1e-5)


def test_beyond_its_ends_a_recording_is_mirrored_about_its_drift(whitener, noise, white):
    signal = noise.read(0, 4000).astype(float)
    mirrored = np.pad(signal, ((whitener.reach, 0), (0, 0)), mode="reflect") - whitener.center
    half = whitener.reach // 2
    slope = (np.median(signal[half : 2 * half], axis=0) - np.median(signal[:half], axis=0)) / half
    mirrored[: whitener.reach] += 2 * slope * np.arange(-whitener.reach, 0)[:, None]
    direct = np.array(
        [[np.dot(mirrored[t : t + 2 * whitener.reach + 1, c], whitener.taps[c]) for c in range(3)] for t in range(20)]
    )
    assert np.allclose(white[:20], direct, rtol=1e-4, atol=1e-4)


def test_what_cannot_be_whitened_is_refused(whitener, noise):
    constant = noise.read(0, 8000)
    constant[:, 2] = -1.2345e5
    with pytest.raises(ShapeError, match="the recording has 2 channels, the detector was trained on 3"):
        whitener(Recording(np.zeros((4000, 2)), RATE))
    with pytest.raises(DataError, match="channel z is constant"):
        estimate_whitener([Recording(constant, RATE, channels=("x", "y", "z"))])
    for psd in (np.zeros((1, 9)), np.full((1, 9), np.nan)):
        with pytest.raises(DataError, match="noise spectrum must be finite and positive"):
            design_whitener(psd, RATE)


def seen_through(whitener, templates):
    """Templates as the filter passes them, one row of unit energy each."""
    wide = whitener.filter_templates(templates.sampled(RATE, 0.3, 0.3)).reshape(templates.n_types, -1)
    return wide / np.linalg.norm(wide, axis=1, keepdims=True)


def test_events_change_the_whitener_little():
    templates = make_templates(seed=1)
    quiet, busy = (
        make_recording(templates, 60.0, snr=snr, seed=1, transients_per_s=0).recording for snr in (1e-3, 12.0)
    )
    alone, among = (estimate_whitener([recording]) for recording in (quiet, busy))
    cosine = (seen_through(alone, templates) * seen_through(among, templates)).sum(1)
    assert cosine.min() > 0.97
    assert np.allclose(among(quiet).std(0), 1, atol=0.12)


def test_refining_leaves_a_right_whitener_and_mends_a_wrong_one(whitener, noise, white):
    again = refine_whitener(whitener, [white])
    assert again.change < 0.1
    # Designed for white noise of standard deviation 2: the residual is neither white nor of size 1.
    wrong = design_whitener(np.full((3, 1001), 4.0), RATE)
    coloured = np.random.default_rng(3).standard_normal((60_000, 3))
    coloured = Recording(coloured[1:] + 0.8 * coloured[:-1], RATE)
    right = refine_whitener(wrong, [wrong(coloured)])
    assert right.change > 0.5
    out = right(coloured)
    assert np.allclose(out.std(0), 1, atol=0.03)
    assert np.abs((out[1:] * out[:-1]).mean(0)).max() < 0.05  # neighbours no longer agree
    assert refine_whitener(right, [out]).change < 0.1


def test_templates_pass_as_signals_do(whitener):
    templates = np.zeros((2, 3000, 3))
    templates[0, 1500:1540] = np.random.default_rng(0).standard_normal((40, 3))
    templates[1, 1400] = 1.0
    direct = without_gaps(whitener)(Recording(templates[0] + whitener.center, RATE))
    assert np.allclose(whitener.filter_templates(templates)[0], direct, rtol=1e-3, atol=1e-3 * np.abs(direct).max())
