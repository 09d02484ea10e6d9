"""Whitening: the one preprocessing step, the same call in training, detection and streaming.

Each channel passes through a zero-phase filter that makes its noise white with standard deviation 1: slow sway and
1/f noise vanish, and a template score has the same meaning on every recording. Time, channels and length stay as they
are, and no event moves in time.

Source: the whitened matched filter, e.g. Kay, Fundamentals of Statistical Signal Processing II (1998), ch. 4.
"""

from dataclasses import dataclass, replace

import numpy as np
import scipy

from ..signals.clock import n_frames
from ..signals.errors import DataError, ShapeError
from ..signals.recording import Recording

# Length of the segments whose spectra are averaged, in seconds: it resolves the spectrum to about 1 Hz.
SEGMENT_S = 1.0
# Length of the filter to either side, in seconds; what it needs beyond the ends of a recording is mirrored.
REACH_S = 0.25
# Most segments in one estimate, spread evenly over the recordings; more change the median spectrum very little.
MAX_SEGMENTS = 600
# Least noise power at a frequency as a share of the channel's median: below it, the filter would amplify rounding.
FLOOR = 1e-6


@dataclass(frozen=True, eq=False)
class Whitener:
    """A zero-phase whitening filter for every channel.

    ``taps`` (C, 2 * reach + 1); ``center`` (C,) is subtracted first, so that a large offset costs no precision; ``psd``
    (C, F) is the noise spectrum that the filter was designed for, where it is known; ``change`` is the mean absolute
    change of its logarithm, in the worst channel, against the whitener that it refines.
    """

    taps: np.ndarray
    center: np.ndarray
    sampling_rate_hz: float
    psd: np.ndarray = None  # type: ignore[assignment]
    change: float = np.inf

    @property
    def reach(self) -> int:
        """How many samples to either side one output sample depends on."""
        return self.taps.shape[1] // 2

    def __call__(self, recording: Recording, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Whitened samples [start, stop) of a recording, (stop - start, C) float32.

        The values do not depend on the piece that is asked for: neighbours are read from the recording, and only beyond
        its two ends is the signal mirrored.

        Raises
        ------
        ShapeError : another number of channels than the filter was made for
        DataError : NaN or infinite values
        """
        n = recording.n_samples
        if recording.n_channels != len(self.taps):
            raise ShapeError(
                f"the recording has {recording.n_channels} channels, the detector was trained on {len(self.taps)}"
            )
        stop = n if stop is None else min(stop, n)
        low, high = start - self.reach, stop + self.reach
        beyond = ((max(-low, 0), max(high - n, 0)), (0, 0))
        signal = _read_finite(recording, max(low, 0), min(high, n)) - self.center
        signal = np.pad(signal, beyond, mode="reflect" if n > self.reach else "wrap")
        return scipy.signal.oaconvolve(signal, self.taps.T, mode="valid", axes=0)[: stop - start].astype(np.float32)

    def filter_templates(self, templates: np.ndarray) -> np.ndarray:
        """Pass templates (E, L, C) through the filter, same length: keep a margin of quiet samples around them."""
        return scipy.signal.oaconvolve(templates, self.taps.T[None], mode="same", axes=1)


def _read_finite(recording, start, stop, what="the recording"):
    """Samples [start, stop) of a recording in double precision, or an error where one is not finite."""
    signal = recording.read(start, stop).astype(np.float64)
    if not np.isfinite(signal).all():
        first = start + int(np.argmin(np.isfinite(signal).all(axis=1)))
        raise DataError(
            f"{what} holds NaN or infinite values, first at sample {first} "
            f"({first / recording.sampling_rate_hz:.3f} s); cut them out or fill them (evlib.validate lists them)"
        )
    return signal


def design_whitener(psd: np.ndarray, sampling_rate_hz: float, center=None) -> Whitener:
    """The filter 1 / sqrt(psd), as a finite zero-phase response that blocks a constant.

    Parameters
    ----------
    psd : (C, F) two-sided noise spectrum on F equally spaced frequencies from 0 to half the rate, in units in which
        white noise of standard deviation 1 has the value 1 everywhere
    sampling_rate_hz : of the recordings
    center : (C,) the middle of each channel; default: 0

    Raises
    ------
    DataError : a spectrum that is not finite or nowhere positive
    """
    psd = np.atleast_2d(np.asarray(psd, dtype=np.float64))
    floor = FLOOR * np.median(psd, axis=1, keepdims=True)
    if not (np.isfinite(psd).all() and (floor > 0).all()):
        raise DataError(
            "the noise spectrum must be finite and positive: is a channel constant? (evlib.validate lists them)"
        )
    reach = max(4, int(REACH_S * sampling_rate_hz))
    n = 8 * 2 ** int(np.ceil(np.log2(2 * reach + 1)))
    gain = on_grid(1 / np.sqrt(np.maximum(psd, floor)), n // 2 + 1)
    response = np.fft.irfft(gain, n, axis=1)[:, np.arange(-reach, reach + 1)]
    taper = np.hanning(2 * reach + 3)[1:-1]
    taps = response * taper
    taps -= taper * (taps.sum(axis=1, keepdims=True) / taper.sum())
    center = np.zeros(len(taps)) if center is None else np.asarray(center, dtype=np.float64)
    return Whitener(taps, center, float(sampling_rate_hz), psd)


def on_grid(spectrum: np.ndarray, n: int) -> np.ndarray:
    """A spectrum (C, F) interpolated to n equally spaced frequencies, (C, n)."""
    grid, own = np.linspace(0, 1, n), np.linspace(0, 1, spectrum.shape[1])
    return np.stack([np.interp(grid, own, channel) for channel in spectrum])


def estimate_whitener(recordings: list[Recording]) -> Whitener:
    """Learn the noise of recordings that hold events: the median over segments is robust against some of them.

    Raises
    ------
    DataError : NaN or infinite values, a constant channel
    """
    psd, center = estimate_psd(recordings)
    return design_whitener(psd, recordings[0].sampling_rate_hz, center)


def refine_whitener(whitener: Whitener, residuals: list[np.ndarray]) -> Whitener:
    """Correct a whitener by the spectrum of the whitened signals (n, C) without their events.

    Strong or dense events are part of every segment: the first estimate counts them as noise and suppresses their band.
    The spectrum of the residual shows by how much.
    """
    rate = whitener.sampling_rate_hz
    left, _ = estimate_psd([Recording(residual, rate) for residual in residuals])
    n = max(left.shape[1], whitener.psd.shape[1])
    refined = design_whitener(
        np.exp(on_grid(np.log(whitener.psd), n) + on_grid(np.log(left), n)), rate, whitener.center
    )
    return replace(refined, change=float(np.abs(np.log(left)).mean(axis=1).max()))


def estimate_psd(recordings: list[Recording]) -> tuple[np.ndarray, np.ndarray]:
    """Noise spectrum (C, F) by Welch's method with the median over segments, and the middle of each channel (C,)."""
    rate = recordings[0].sampling_rate_hz
    length = int(min(max(16, 2 ** round(np.log2(SEGMENT_S * rate))), min(r.n_samples for r in recordings)))
    starts = [(k, s) for k, r in enumerate(recordings) for s in range(0, r.n_samples - length + 1, max(1, length // 2))]
    chosen = np.unique(np.linspace(0, len(starts) - 1, min(MAX_SEGMENTS, len(starts))).astype(int))
    spectra, middles, ranges = [], [], []
    for k, start in (starts[i] for i in chosen):
        segment = _read_finite(recordings[k], start, start + length, f"recording {recordings[k].name or k}")
        middles.append(np.median(segment, axis=0))
        ranges.append(np.ptp(segment, axis=0))
        spectra.append(scipy.signal.periodogram(segment, window="hann", detrend="linear", axis=0)[1] / 2)
    # Judged by the values: rounding gives even a constant some spectrum.
    constant = np.flatnonzero(np.median(ranges, axis=0) <= 0)
    if len(constant):
        names = ", ".join(np.array(recordings[0].channels)[constant])
        raise DataError(f"channel {names} is constant: leave it out (evlib.validate lists such channels)")
    # The median of a chi-square variable with two degrees of freedom is log(2) of its mean.
    psd = np.median(spectra, axis=0) / np.log(2) if len(spectra) > 2 else np.mean(spectra, axis=0)
    psd[0], psd[-1] = psd[1], psd[-2]  # these two have one degree of freedom only
    smooth = np.exp(_smooth(np.log(np.maximum(psd, np.finfo(float).tiny))))
    return smooth.T, np.median(middles, axis=0)


def _smooth(values):
    """Running mean over rows with a width that grows with the row, (F, C) -> (F, C)."""
    n, row = len(values), np.arange(len(values))
    half = np.minimum(1 + row // 40, n_frames(n, 40))
    total = np.concatenate([np.zeros((1, values.shape[1])), np.cumsum(values, axis=0)])
    low, high = np.maximum(row - half, 0), np.minimum(row + half + 1, n)
    return (total[high] - total[low]) / (high - low)[:, None]
