"""Long signals for the eye: the least and greatest value per pixel column, an hour as fast as a second.

An `Overview` reads the recording once, block by block, and keeps the extremes of every 64 samples (and of every 256,
1024, ...). A wide view is taken from these, a narrow one from the recording itself. Both are exact: each bin of a view
holds the extremes of exactly its samples, so no spike is lost and none is moved. Values that are not finite are left
out; a bin that has no other is NaN.
"""

from dataclasses import dataclass

import numpy as np
from scipy.signal import butter, sosfiltfilt

from ..signals.errors import OptionError, UnitError
from ..signals.recording import Recording

# Samples per bin of the finest kept extremes, and how many bins of one level make a bin of the next.
BASE_SAMPLES, LEVEL_FACTOR = 64, 4
# Samples that are read at a time.
BLOCK_SAMPLES = 1 << 15
# The response of the high-pass filter has decayed to 1e-7 after this many periods of its corner frequency.
HALO_PERIODS = 4
# The scale is measured on this many pieces of this many samples.
SCALE_PIECES, SCALE_SAMPLES = 24, 4096


def check_part(start_s: float, stop_s: float, duration_s: float) -> None:
    """Refuse a part that holds no sample of a recording of ``duration_s`` seconds."""
    if not (np.isfinite([start_s, stop_s]).all() and start_s < stop_s and start_s < duration_s and stop_s > 0):
        raise OptionError(
            f"nothing to show from {start_s:g} s to {stop_s:g} s: the recording lasts {duration_s:g} s (samples?)"
        )


@dataclass(frozen=True, eq=False)
class View:
    """Part of a signal in bins of ``step`` samples, the first at sample ``first``; ``low``, ``high`` are (C, bins)."""

    first: int
    step: int
    low: np.ndarray
    high: np.ndarray
    sampling_rate_hz: float

    @property
    def n_bins(self) -> int:
        """Number of bins."""
        return self.low.shape[1]

    @property
    def start_s(self) -> np.ndarray:
        """(bins,) the time of the first sample of each bin, seconds."""
        return (self.first + self.step * np.arange(self.n_bins)) / self.sampling_rate_hz


class Overview:
    """A recording that can be looked at from any distance.

    Parameters
    ----------
    recording : Recording, in memory or on disk
    highpass_hz : remove slower parts, such as a sway that hides the events; a Butterworth filter of order 2, run
        forwards and backwards, which moves nothing in time

    Raises
    ------
    UnitError : a corner frequency that is not between 0 and half the sampling rate

    Examples
    --------
    >>> signal = np.zeros((400_000, 1))
    >>> signal[123_456] = 1
    >>> view = Overview(Recording(signal, 2000)).view(0, 200, bins=1000)
    >>> view.low.shape, view.step, round(float(view.start_s[view.high[0] == 1][0]), 3)
    ((1, 893), 448, 61.6)
    """

    def __init__(self, recording: Recording, highpass_hz: float | None = None):
        rate = recording.sampling_rate_hz
        if highpass_hz is not None and not 0 < highpass_hz < rate / 2:
            raise UnitError(
                f"highpass_hz must be a frequency in Hz between 0 and {rate / 2:g}, half the rate; "
                f"got {highpass_hz!r} (None shows the signal as it is)"
            )
        self.recording, self.highpass_hz = recording, highpass_hz
        # Samples on either side of a piece that its filtered values depend on.
        self._halo = 0 if highpass_hz is None else int(np.ceil(HALO_PERIODS * rate / highpass_hz))
        self._filter = None if highpass_hz is None else butter(2, highpass_hz, "highpass", fs=rate, output="sos")
        self._levels: list | None = None

    def read(self, start: int, stop: int) -> np.ndarray:
        """Samples [start, stop) as shown, (C, stop - start) float32; a sample has the same value in every piece."""
        low, high = max(start - self._halo, 0), min(stop + self._halo, self.recording.n_samples)
        block = np.ascontiguousarray(self.recording.read(low, high).T)
        missing = ~np.isfinite(block)
        if self._filter is not None:
            # Straight lines across gaps, so that these do not ring in the filter.
            index = np.arange(high - low)
            for values, gap in zip(block, missing, strict=True):
                if gap.any():
                    values[gap] = 0.0 if gap.all() else np.interp(index[gap], index[~gap], values[~gap])
            block = sosfiltfilt(self._filter, block, padlen=min(self._halo, high - low - 1)).astype(np.float32)
        block[missing] = np.nan
        return block[:, start - low : stop - low]

    def view(self, start_s: float, stop_s: float, bins: int = 1000) -> View:
        """The part from ``start_s`` to ``stop_s`` in at most ``bins`` bins.

        It may begin up to a bin earlier and end up to a bin later.

        Raises
        ------
        OptionError : fewer than two bins, or a part that holds no sample of the recording
        """
        rate, n = self.recording.sampling_rate_hz, self.recording.n_samples
        if bins < 2:
            raise OptionError(f"bins must be at least 2, got {bins}")
        check_part(start_s, stop_s, n / rate)
        # Seconds times a rate may miss a whole sample by a rounding error; a millionth of a sample is none.
        first, last = np.floor(round(start_s * rate, 6)), np.ceil(round(stop_s * rate, 6))
        start, stop = max(int(first), 0), min(int(last), n)
        # One bin is kept for a beginning between two bins.
        step = -(-(stop - start) // (int(bins) - 1))
        unit = 1
        if step >= BASE_SAMPLES:
            levels = self.build()
            # Bins of four units or more lose little when they are rounded up to whole units.
            fine = [k for k in range(len(levels)) if 4 * BASE_SAMPLES * LEVEL_FACTOR**k <= step]
            level = max(fine, default=0)
            unit = BASE_SAMPLES * LEVEL_FACTOR**level
            step = unit * -(-step // unit)
        # Bins begin at multiples of their length, so that a spike does not flicker while the view is dragged.
        first, last = start // step * step, min(-(-stop // step) * step, n)
        if unit == 1:
            low = high = self.read(first, last)
        else:
            low, high = (extreme[:, first // unit : -(-last // unit)] for extreme in levels[level])
        low, high = _binned(low, high, step // unit)
        return View(first, step, low, high, rate)

    def build(self, progress: bool = False) -> list:
        """Read the recording once, for views of more than 64 samples a bin; later calls only return the levels."""
        if self._levels is not None:
            return self._levels
        from tqdm.auto import trange

        n = self.recording.n_samples
        # Whole bins, and blocks that are long beside the signal that the filter needs around them.
        size = -(-max(BLOCK_SAMPLES, 8 * self._halo) // BASE_SAMPLES) * BASE_SAMPLES
        parts = []
        for start in trange(0, n, size, unit="block", desc="overview", disable=not progress, leave=False):
            block = self.read(start, min(start + size, n))
            parts.append(_binned(block, block, BASE_SAMPLES))
        levels = [tuple(np.concatenate(extreme, axis=1) for extreme in zip(*parts, strict=True))]
        while levels[-1][0].shape[1] > 4 * BASE_SAMPLES:
            low, high = levels[-1]
            levels.append(_binned(low, high, LEVEL_FACTOR))
        self._levels = levels
        return levels

    def scale(self, start: int = 0, stop: int | None = None) -> np.ndarray:
        """(C,) half the height that holds 99.9 % of the values in samples [start, stop); channels of one unit share it.

        It is measured on pieces that are spread evenly.
        """
        stop = self.recording.n_samples if stop is None else stop
        length = min(SCALE_SAMPLES, stop - start)
        starts = np.unique(np.linspace(start, stop - length, SCALE_PIECES).astype(int))
        half = np.zeros(self.recording.n_channels)
        pieces = [self.read(first, first + length) for first in starts]
        for c, values in enumerate(zip(*pieces, strict=True)):
            finite = [piece[np.isfinite(piece)] for piece in values]
            deviation = [np.abs(piece - np.median(piece)) for piece in finite if len(piece)]
            half[c] = np.quantile(np.concatenate(deviation), 0.999) if deviation else 0.0
        units = np.array(self.recording.units)
        half = np.array([half[units == unit].max() for unit in units])
        return np.where(half > 0, half, 1.0)


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
