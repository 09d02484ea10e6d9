"""Long signals for the eye: the least and greatest value per pixel column, from an hour as fast as from a second.

A `Overview` reads the recording once, block by block, and keeps the extremes of every 64 samples (and of every 256,
1024, ...). A wide view comes from these, a narrow one from the recording itself. Both are exact: each bin of a view
holds the extremes of exactly its samples, so no spike is lost and none is moved. Values that are not finite are left
out; a bin that has no other is NaN.
"""

from dataclasses import dataclass

import numpy as np

from ..signals.errors import OptionError, UnitError

BASE_SAMPLES = 64
LEVEL_FACTOR = 4
BLOCK_SAMPLES = 1 << 15
# The high-pass filter forgets within this many periods of its corner (to 1e-7).
HALO_PERIODS = 4
SCALE_PIECES, SCALE_SAMPLES = 24, 4096


@dataclass(frozen=True, eq=False)
class View:
    """Part of a signal in bins of ``step`` samples, the first at sample ``first``; ``low``, ``high`` are (C, bins)."""

    first: int
    step: int
    low: np.ndarray
    high: np.ndarray
    sampling_rate_hz: float

    @property
    def n_bins(self):
        """How many bins there are."""
        return self.low.shape[1]

    @property
    def start_s(self):
        """(bins,) the time of the first sample of each bin, seconds."""
        return (self.first + self.step * np.arange(self.n_bins)) / self.sampling_rate_hz


class Overview:
    """A recording that can be looked at from any distance.

    Parameters
    ----------
    recording : Recording, in memory or on disk
    highpass_hz : leave out what is slower, such as a sway that hides the events; the filter moves nothing in time

    Raises
    ------
    UnitError : a corner that is not between 0 and half the sampling rate

    Examples
    --------
    >>> from evlib.signals.recording import Recording
    >>> signal = np.zeros((400_000, 1))
    >>> signal[123_456] = 1
    >>> view = Overview(Recording(signal, 2000)).view(0, 200, bins=1000)
    >>> view.low.shape, view.step, round(float(view.start_s[view.high[0] == 1][0]), 3)
    ((1, 893), 448, 61.6)
    """

    def __init__(self, recording, highpass_hz=None):
        if highpass_hz is not None and not 0 < highpass_hz < recording.sampling_rate_hz / 2:
            raise UnitError(
                f"highpass_hz must be a frequency in Hz between 0 and {recording.sampling_rate_hz / 2:g}, half "
                "the rate; "
                f"got {highpass_hz!r} (None shows the signal as it is)"
            )
        self.recording, self.highpass_hz = recording, highpass_hz
        self._levels = None

    def read(self, start, stop):
        """Samples [start, stop) as shown, (C, stop - start) float32; the same values whatever piece is asked for."""
        if self.highpass_hz is None:
            block = np.ascontiguousarray(self.recording.read(start, stop).T)
            block[~np.isfinite(block)] = np.nan
            return block
        return self._highpassed(start, stop)

    def view(self, start_s, stop_s, bins=1000) -> View:
        """The part from ``start_s`` to ``stop_s`` in at most ``bins`` bins; it may begin up to a bin earlier and end
        later.

        Raises
        ------
        OptionError : no bins, or a part that holds no sample of the recording
        """
        rate, n = self.recording.sampling_rate_hz, self.recording.n_samples
        if bins < 2:
            raise OptionError(f"bins must be at least 2, got {bins}")
        if not (np.isfinite([start_s, stop_s]).all() and start_s < stop_s and start_s * rate < n and stop_s > 0):
            raise OptionError(
                f"nothing to show from {start_s} s to {stop_s} s: the recording lasts from 0 to {n / rate:g} s "
                "(samples?)"
            )
        start, stop = max(int(np.floor(start_s * rate)), 0), min(int(np.ceil(stop_s * rate)), n)
        # One bin is kept for a beginning between two bins.
        step = -(-(stop - start) // (int(bins) - 1))
        unit = 1
        if step >= BASE_SAMPLES:
            self.build()
            # Bins of four units or more lose little when they are rounded up to whole units.
            fine = [k for k in range(len(self._levels)) if 4 * BASE_SAMPLES * LEVEL_FACTOR**k <= step]
            level = max(fine, default=0)
            unit = BASE_SAMPLES * LEVEL_FACTOR**level
            step = unit * -(-step // unit)
        # Bins begin at multiples of their length, so that a spike does not flicker while the view is dragged.
        first, last = start // step * step, min(-(-stop // step) * step, n)
        if unit == 1:
            low = high = self.read(first, last)
        else:
            low, high = (extreme[:, first // unit : -(-last // unit)] for extreme in self._levels[level])
        return View(first, step, *_binned(low, high, step // unit), rate)

    def build(self, progress=False):
        """Read the recording once, for views of more than 64 samples a bin; later calls do nothing."""
        if self._levels is not None:
            return
        from tqdm.auto import tqdm

        n = self.recording.n_samples
        # With its neighbours on both sides, a block has a length of which Fourier transforms are fast.
        length = max(BLOCK_SAMPLES, 1 << (8 * self._halo).bit_length())
        size = (length - 2 * self._halo) // BASE_SAMPLES * BASE_SAMPLES
        parts = []
        with tqdm(total=n, unit="sample", unit_scale=True, desc="overview", disable=not progress, leave=False) as bar:
            for start in range(0, n, size):
                block = self.read(start, min(start + size, n))
                parts.append(_binned(block, block, BASE_SAMPLES))
                bar.update(block.shape[1])
        levels = [tuple(np.concatenate(extreme, axis=1) for extreme in zip(*parts, strict=True))]
        while levels[-1][0].shape[1] > 4 * BASE_SAMPLES:
            levels.append(_binned(*levels[-1], LEVEL_FACTOR))
        self._levels = levels

    def scale(self):
        """(C,) half the height that holds 99.9 % of the values, from pieces spread over the recording; one for each
        unit."""
        n, length = self.recording.n_samples, min(SCALE_SAMPLES, self.recording.n_samples)
        starts = np.unique(np.linspace(0, n - length, SCALE_PIECES).astype(int))
        half = np.zeros(self.recording.n_channels)
        pieces = [self.read(start, start + length) for start in starts]
        for c, values in enumerate(zip(*pieces, strict=True)):
            values = np.concatenate(
                [v - np.median(v) for v in (v[np.isfinite(v)] for v in values) if len(v)] or [np.zeros(1)]
            )
            half[c] = np.quantile(np.abs(values), 0.999)
        units = self.recording.units
        half = np.array([max(h for h, other in zip(half, units, strict=True) if other == unit) for unit in units])
        return np.where(half > 0, half, 1.0)

    @property
    def _halo(self):
        """Samples on either side of a piece that its filtered values depend on."""
        if self.highpass_hz is None:
            return 0
        return int(np.ceil(HALO_PERIODS * self.recording.sampling_rate_hz / self.highpass_hz))

    def _highpassed(self, start, stop):
        """A Butterworth high-pass of order 2 passed forwards and backwards, by its response to each frequency."""
        from scipy.fft import irfft, next_fast_len, rfft, rfftfreq

        recording, halo = self.recording, self._halo
        low, high = start - halo, stop + halo
        block = np.ascontiguousarray(recording.read(max(low, 0), min(high, recording.n_samples)).T)
        missing = ~np.isfinite(block)
        if missing.any():
            _fill(block, missing)
        # A constant offset would be a step at both ends: it goes first, and the rest is mirrored there.
        block -= block.mean(axis=1, keepdims=True)
        length = next_fast_len(high - low, real=True)
        pad = (max(-low, 0), max(high - recording.n_samples, 0) + length - (high - low))
        if any(pad):
            block = np.pad(block, ((0, 0), pad), mode="symmetric")
        frequency = rfftfreq(length, 1 / recording.sampling_rate_hz)
        gain = frequency**4 / (frequency**4 + self.highpass_hz**4)
        spectrum = rfft(block, axis=1)
        spectrum *= gain.astype(np.float32)
        out = irfft(spectrum, length, axis=1)[:, halo : halo + stop - start]
        if missing.any():
            offset = start - max(low, 0)
            out[missing[:, offset : offset + stop - start]] = np.nan
        return out


def _binned(low, high, size):
    """Least and greatest of every ``size`` columns of (C, n); the last bin may have fewer. NaN is left out."""
    if size == 1:
        return low, high
    n = low.shape[1]
    whole = n // size * size
    out = []
    for extreme, values in ((np.fmin, low), (np.fmax, high)):
        binned = extreme.reduce(values[:, :whole].reshape(len(values), -1, size), axis=2)
        rest = [extreme.reduce(values[:, whole:], axis=1)[:, None]] if n > whole else []
        out.append(np.concatenate([binned, *rest], axis=1))
    return tuple(out)


def _fill(block, missing):
    """Gaps bridged by straight lines, so that they do not ring in the filter."""
    index = np.arange(block.shape[1])
    for values, gap in zip(block, missing, strict=True):
        values[gap] = np.interp(index[gap], index[~gap], values[~gap]) if not gap.all() else 0.0
