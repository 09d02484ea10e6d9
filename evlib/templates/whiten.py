"""Whitening: the one preprocessing step, the same call in training, detection and streaming.

Each channel passes through a zero-phase filter that makes its noise white with standard deviation 1: slow sway and
1/f noise vanish, and a template score has the same meaning on every recording. (batch, time, channels) stays as it
is; one sample in is one sample out, and nothing moves in time.

Source: the whitened matched filter, e.g. Kay, Fundamentals of Statistical Signal Processing II (1998), ch. 4.
"""

from dataclasses import dataclass, replace

import numpy as np

from ..signals.clock import n_frames
from ..signals.errors import DataError, ShapeError
from ..signals.recording import Recording

# The spectrum is resolved to about 1 Hz, which takes segments of one second.
SEGMENT_S = 1.0
# The filter reaches this far to either side; what it needs beyond the ends of a recording is mirrored.
REACH_S = 0.25
MAX_SEGMENTS = 600
# No channel is amplified at a frequency where its noise lies this far below its median: that would only be rounding.
FLOOR = 1e-6


@dataclass(frozen=True, eq=False)
class Whitener:
    """A zero-phase whitening filter for every channel.

    ``taps`` (C, 2 * reach + 1), ``center`` (C,) is subtracted first, so that a large offset costs no precision; ``psd``
    (C, F) is the noise spectrum that it was designed for, where known, and ``change`` by how much its logarithm
    differs, on average over the worst channel, from that of the whitener which it refines.
    """

    taps: np.ndarray
    center: np.ndarray
    sampling_rate_hz: float
    psd: np.ndarray = None
    change: float = np.inf

    @property
    def reach(self):
        """How many samples to either side one output sample depends on."""
        return self.taps.shape[1] // 2

    def __call__(self, recording, start=0, stop=None):
        """Whitened samples [start, stop) of a recording, (stop - start, C) float32.

        The same values come out whatever piece is asked for: neighbours are read from the recording, and only
        beyond its two ends is the signal mirrored.
        """
        from scipy.signal import oaconvolve

        n = recording.n_samples
        if recording.n_channels != len(self.taps):
            raise ShapeError(
                f"the recording has {recording.n_channels} channels, the detector was trained on {len(self.taps)}"
            )
        stop = n if stop is None else min(stop, n)
        low, high = start - self.reach, stop + self.reach
        signal = recording.read(max(low, 0), min(high, n)).astype(np.float64) - self.center
        if not np.isfinite(signal).all():
            first = max(low, 0) + int(np.argmax(~np.isfinite(signal).all(axis=1)))
            raise DataError(
                f"the recording holds NaN or infinite values, first at sample {first} "
                f"({first / recording.sampling_rate_hz:.3f} s); cut them out or fill them before detecting "
                "(evlib.validate lists them)"
            )
        signal = np.pad(
            signal, ((max(-low, 0), max(high - n, 0)), (0, 0)), mode="reflect" if n > self.reach else "wrap"
        )
        return oaconvolve(signal, self.taps.T, mode="valid", axes=0)[: stop - start].astype(np.float32)

    def filter_templates(self, templates):
        """Pass templates (E, L, C) through the filter, same length: keep a margin of quiet samples around them."""
        from scipy.signal import oaconvolve

        return oaconvolve(templates, self.taps.T[None], mode="same", axes=1)


def design_whitener(psd, sampling_rate_hz, center=None) -> Whitener:
    """The filter 1 / sqrt(psd), as a finite zero-phase response that blocks a constant.

    ``psd`` (C, F): two-sided noise spectrum on F equally spaced frequencies from 0 to half the rate, in units in which
    white noise of standard deviation 1 has the value 1 everywhere.
    """
    psd = np.atleast_2d(np.asarray(psd, dtype=np.float64))
    floor = FLOOR * np.median(psd, axis=1, keepdims=True)
    if not (np.isfinite(psd).all() and (floor > 0).all()):
        raise DataError("the noise spectrum must be finite and positive: is a channel constant? (evlib.validate tells)")
    reach = max(4, int(REACH_S * sampling_rate_hz))
    n = 8 * 2 ** int(np.ceil(np.log2(2 * reach + 1)))
    grid = np.linspace(0, 1, n // 2 + 1)
    own = np.linspace(0, 1, psd.shape[1])
    gain = np.stack([np.interp(grid, own, 1 / np.sqrt(np.maximum(p, f))) for p, f in zip(psd, floor, strict=True)])
    response = np.fft.irfft(gain, n, axis=1)[:, np.arange(-reach, reach + 1)]
    taper = np.hanning(2 * reach + 3)[1:-1]
    taps = response * taper
    taps -= taper * (taps.sum(axis=1, keepdims=True) / taper.sum())
    center = np.zeros(len(taps)) if center is None else np.asarray(center, dtype=np.float64)
    return Whitener(taps, center, float(sampling_rate_hz), psd)


def estimate_whitener(recordings) -> Whitener:
    """Learn the noise of recordings, events and all: the median over segments forgives a part of the events."""
    psd, center = estimate_psd(recordings)
    return design_whitener(psd, recordings[0].sampling_rate_hz, center)


def refine_whitener(whitener, residuals) -> Whitener:
    """Correct a whitener by what is left of the whitened signals (n, C) when the events are taken away.

    Strong or dense events are part of every segment: the first estimate takes them for noise and filters their own band
    out. The spectrum of the residual says by how much.
    """
    rate = whitener.sampling_rate_hz
    left, _ = estimate_psd([Recording(residual, rate) for residual in residuals])
    grid = np.linspace(0, 1, max(left.shape[1], whitener.psd.shape[1]))
    log_psd = sum(
        np.stack([np.interp(grid, np.linspace(0, 1, psd.shape[1]), np.log(channel)) for channel in psd])
        for psd in (whitener.psd, left)
    )
    refined = design_whitener(np.exp(log_psd), rate, whitener.center)
    return replace(refined, change=float(np.abs(np.log(left)).mean(axis=1).max()))


def estimate_psd(recordings):
    """Noise spectrum (C, F) by Welch's method with the median over segments, and the middle of each channel (C,)."""
    from scipy.signal import periodogram

    rate = recordings[0].sampling_rate_hz
    length = int(min(max(16, 2 ** round(np.log2(SEGMENT_S * rate))), min(r.n_samples for r in recordings)))
    starts = [(k, s) for k, r in enumerate(recordings) for s in range(0, r.n_samples - length + 1, max(1, length // 2))]
    chosen = np.unique(np.linspace(0, len(starts) - 1, min(MAX_SEGMENTS, len(starts))).astype(int))
    spectra, middles, swings = [], [], []
    for k, start in (starts[i] for i in chosen):
        segment = recordings[k].read(start, start + length).astype(np.float64)
        if not np.isfinite(segment).all():
            raise DataError(
                f"recording {recordings[k].name or k} holds NaN or infinite values near {start / rate:.2f} s; "
                "cut them out or fill them before training (evlib.validate lists them)"
            )
        middles.append(np.median(segment, axis=0))
        swings.append(np.ptp(segment, axis=0))
        spectra.append(periodogram(segment, window="hann", detrend="linear", axis=0)[1] / 2)
    spectra = np.array(spectra)
    # Told by the values: the spectrum of a constant is rounding, not nothing.
    constant = np.flatnonzero(np.median(swings, axis=0) <= 0)
    if len(constant):
        names = ", ".join(recordings[0].channels[c] for c in constant)
        raise DataError(f"channel {names} is constant: leave it out (evlib.validate tells)")
    # The median of a chi-square variable with two degrees of freedom is log(2) of its mean.
    psd = np.median(spectra, axis=0) / np.log(2) if len(spectra) > 2 else spectra.mean(axis=0)
    psd[0], psd[-1] = psd[1], psd[-2]  # one degree of freedom only
    smooth = np.exp(_smooth_log(np.log(np.maximum(psd, np.finfo(float).tiny))))
    return smooth.T, np.median(middles, axis=0)


def _smooth_log(values):
    """Running mean over rows with a width that grows with the row, (F, C) -> (F, C)."""
    n = len(values)
    half = np.minimum(1 + np.arange(n) // 40, n_frames(n, 40))
    total = np.concatenate([np.zeros((1, values.shape[1])), np.cumsum(values, axis=0)])
    low, high = np.maximum(np.arange(n) - half, 0), np.minimum(np.arange(n) + half + 1, n)
    return (total[high] - total[low]) / (high - low)[:, None]
