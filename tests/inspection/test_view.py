"""Views of long signals: each bin holds exactly the extremes of its samples, whatever the distance."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scipy.signal import butter, sosfiltfilt

from evlib.inspection.view import BASE_SAMPLES, Overview
from evlib.signals.errors import OptionError, UnitError
from evlib.signals.recording import Recording

RATE = 2000.0


def noise(n_samples, n_channels=2, seed=0, **options):
    signal = np.random.default_rng(seed).standard_normal((n_samples, n_channels)).astype(np.float32)
    return Recording(signal, RATE, **options)


LONG = noise(150_001)
OVERVIEW = Overview(LONG)


def expected(view, signal):
    """Extremes of each bin of a view, one by one."""
    pieces = [signal[view.first + k * view.step : view.first + (k + 1) * view.step] for k in range(view.n_bins)]
    return np.array([p.min(axis=0) for p in pieces]).T, np.array([p.max(axis=0) for p in pieces]).T


@example(start=1001, length=1, bins=3)  # 1001 / 2000 * 2000 is less than 1001
@example(start=2041, length=2, bins=2)
@given(start=st.integers(0, 150_000), length=st.integers(1, 150_001), bins=st.integers(2, 700))
def test_a_view_is_exact_at_every_distance(start, length, bins):
    stop = min(start + length, LONG.n_samples)
    view = OVERVIEW.view(start / RATE, stop / RATE, bins)
    assert view.n_bins <= bins
    # It covers what was asked for, and at most a bin more on either side.
    assert start - view.step < view.first <= start
    assert (
        stop <= view.first + view.n_bins * view.step < stop + view.step
        or view.first + view.n_bins * view.step > LONG.n_samples
    )
    low, high = expected(view, LONG.signal)
    np.testing.assert_array_equal(view.low, low)
    np.testing.assert_array_equal(view.high, high)


def test_a_spike_keeps_its_bin_while_the_view_moves():
    views = [OVERVIEW.view(start_s, start_s + 30.0, 300) for start_s in (1.0, 1.01, 1.02, 3.3)]
    assert len({view.step for view in views}) == 1 and all(view.first % view.step == 0 for view in views)


class Counting:
    """A stored signal that counts what is read of it."""

    def __init__(self, signal):
        self.signal, self.shape, self.dtype, self.read, self.largest = signal, signal.shape, signal.dtype, 0, 0

    def __getitem__(self, rows):
        piece = self.signal[rows]
        self.read += len(piece)
        self.largest = max(self.largest, len(piece))
        return piece


def test_the_recording_is_read_once_in_blocks_and_a_close_view_reads_only_itself():
    stored = Counting(LONG.signal)
    overview = Overview(Recording(stored, RATE))
    overview.view(0, 60.0, 300)
    assert stored.read == LONG.n_samples and stored.largest < LONG.n_samples / 3
    overview.view(5.0, 70.0, 300)
    assert stored.read == LONG.n_samples
    view = overview.view(10.0, 11.0, 300)
    assert stored.read - LONG.n_samples == view.n_bins * view.step < 2200


@pytest.mark.parametrize("highpass_hz", [2.0, 20.0, 300.0])
def test_a_highpass_of_pieces_is_that_of_the_whole_and_moves_nothing(highpass_hz):
    n = 40_000
    time_s = np.arange(n) / RATE
    signal = 100 + 30 * np.sin(2 * np.pi * 0.3 * time_s)[:, None] + noise(n).signal
    overview = Overview(Recording(signal, RATE), highpass_hz)
    whole = sosfiltfilt(butter(2, highpass_hz, "highpass", fs=RATE, output="sos"), signal, axis=0).T
    middle = slice(8000, 32_000)
    # Digital and analogue Butterworth filters differ close to half the rate.
    tolerance = 0.02 if highpass_hz < 100 else 0.4
    assert np.abs(overview.read(0, n)[:, middle] - whole[:, middle]).max() < tolerance
    pieces = np.concatenate([overview.read(a, min(a + 7001, n)) for a in range(0, n, 7001)], axis=1)
    assert np.abs(pieces - overview.read(0, n)).max() < 0.02
    wide = overview.view(0, n / RATE, 200)
    low, high = expected(wide, overview.read(0, n).T)
    np.testing.assert_allclose(wide.low, low, atol=0.02)
    np.testing.assert_allclose(wide.high, high, atol=0.02)
    assert wide.step >= BASE_SAMPLES


@pytest.mark.parametrize("highpass_hz", [None, 20.0])
def test_what_is_missing_stays_missing_and_hides_nothing_else(highpass_hz):
    signal = noise(30_000).signal.copy()
    signal[10_000:10_800, 0], signal[12_345, 1] = np.nan, np.inf
    overview = Overview(Recording(signal, RATE), highpass_hz)
    shown = overview.read(9000, 13_000)
    assert (
        np.isnan(shown[0, 1000:1800]).all()
        and np.isfinite(shown[0, :1000]).all()
        and np.isfinite(shown[0, 1800:]).all()
    )
    assert np.flatnonzero(np.isnan(shown[1])).tolist() == [3345]
    wide = overview.view(0, 15.0, 150)
    empty = np.isnan(wide.low)
    assert 0 < empty[0].sum() <= 4 and not empty[1].any() and (empty == np.isnan(wide.high)).all()


def test_the_scale_holds_nearly_all_values_and_is_one_for_each_unit():
    signal = noise(50_000, 3).signal * [1, 10, 5] + [1000, 0, 0]
    half = Overview(Recording(signal, RATE, units=("m/s2", "m/s2", "V"))).scale()
    assert half[0] == half[1] == pytest.approx(33, rel=0.1) and half[2] == pytest.approx(16.5, rel=0.1)
    assert Overview(Recording(np.zeros((500, 2)), RATE)).scale().tolist() == [1, 1]


def test_what_cannot_be_shown_is_refused():
    for highpass_hz in (0, -1, 1000, 2000):
        with pytest.raises(UnitError, match="half the rate"):
            Overview(LONG, highpass_hz)
    for part in ((80, 90), (-2, -1), (2, 1), (np.nan, 3)):
        with pytest.raises(OptionError, match="nothing to show"):
            OVERVIEW.view(*part)
    with pytest.raises(OptionError, match="at least 2"):
        OVERVIEW.view(0, 1, bins=1)
