"""Whitening: the one preprocessing step, the same call in training, detection and streaming.

Each channel passes through a zero-phase filter that makes its noise white with standard deviation 1: slow sway and
1/f noise vanish, and a template score has the same meaning on every recording. Time, channels and length stay as they
are, and no event moves in time.

Source: the whitened matched filter, e.g. Kay, Fundamentals of Statistical Signal Processing II (1998), ch. 4.
"""

import warnings
from dataclasses import dataclass, replace

import numpy as np
import scipy
from scipy.ndimage import maximum_filter1d

from ..signals.clock import n_frames
from ..signals.errors import DataError, ShapeError, require, require_rate
from ..signals.gaps import Normal, bridge, normal_of, read_bridged, read_segments, seen_around
from ..signals.recording import Recording
from .equalize import NO_LEVEL, context_samples, equalize, frame_samples, learn_limits, level_around, unlimited

# Length of the segments whose spectra are averaged, in seconds: it resolves the spectrum to about 1 Hz.
SEGMENT_S = 1.0
# Length of the filter to either side, in seconds; what it needs beyond the ends of a recording is mirrored.
REACH_S = 0.25
# Most segments in one estimate, spread evenly over the recordings; more change the median spectrum very little.
MAX_SEGMENTS = 600
# So many times the amplitude of labelled events (looked for so many seconds before and after the label), and that one
# sample in twenty exceeds, is no event; so many seconds around it are a gap.
WILD_TIMES, BEFORE_S, AFTER_S, WILD_S = 10.0, 0.1, 1.0, 0.005
# Moments at which the noise of a recording is looked at, and the least share of known samples around them.
MOMENTS, KNOWN_SHARE = 64, 0.9
# Seconds of signal that ordinary power is learned from.
LIMIT_S = 300.0
# A segment with so many times less power than half of those of its recording says nothing of the noise: a gain was
# turned down.
QUIETER = 3.0
# Least noise power at a frequency as a share of the channel's median: below it, the filter would amplify rounding.
FLOOR = 1e-6


@dataclass(frozen=True, eq=False)
class Whitener:
    """A zero-phase whitening filter for every channel.

    ``taps`` (C, 2 * reach + 1); ``center`` (C,) is subtracted first, so that a large offset costs no precision; ``psd``
    (C, F) is the noise spectrum that the filter was designed for, where it is known; ``change`` is the mean absolute
    change of its logarithm, in the worst channel, against the whitener that it refines; ``normal`` tells gaps from
    signal (default: only missing values are gaps); what is beyond ``limits`` (3, C) is another noise than in training
    (`evlib.templates.equalize`; with two rows, nothing is too quiet), what is above ``loudest`` (C,) is no event
    (default: infinite).

    Raises
    ------
    ShapeError, DataError, UnitError : arrays that do not belong together, values that are not finite, no rate
    """

    taps: np.ndarray
    center: np.ndarray
    sampling_rate_hz: float
    psd: np.ndarray = None  # type: ignore[assignment]
    change: float = np.inf
    normal: Normal = None  # type: ignore[assignment]
    limits: np.ndarray = None  # type: ignore[assignment]
    loudest: np.ndarray = None  # type: ignore[assignment]

    def __post_init__(self):
        default = {"normal": Normal.unknown(len(self.taps)), "limits": unlimited(len(self.taps))}
        default["loudest"] = np.full(len(self.taps), np.inf)
        vars(self).update({name: value for name, value in default.items() if getattr(self, name) is None})
        require_rate(self.sampling_rate_hz)
        if np.shape(self.limits) == (2, len(self.taps)):
            vars(self).update(limits=np.vstack([self.limits, np.full(len(self.taps), NO_LEVEL)]))
        # Bounds are infinite where nothing is known.
        bounds = {"normal.step": self.normal.step, "normal.still": self.normal.still, "loudest": self.loudest}
        shapes = {"center": (n := len(self.taps),), **dict.fromkeys(bounds, (n,)), "limits": (3, n)}
        arrays = bounds | {"center": self.center, "limits": self.limits}
        for name, shape in shapes.items():
            require(
                np.shape(arrays[name]) == shape, ShapeError, f"{name} must be {shape}, got {np.shape(arrays[name])}"
            )
        message = f"taps must be (channels, an odd number), got {np.shape(self.taps)}"
        require(np.ndim(self.taps) == 2 and n and self.taps.shape[1] % 2, ShapeError, message)
        finite = np.isfinite(self.taps).all() and np.isfinite(self.center).all()
        message = "taps and center must be finite, bounds above 0"
        require(finite and all((np.asarray(b) > 0).all() for b in (*bounds.values(), self.limits)), DataError, message)

    @property
    def reach(self) -> int:
        """How many samples to either side one output sample depends on."""
        return self.taps.shape[1] // 2

    @property
    def context(self) -> int:
        """How many samples of a recording to either side of a piece are read for it."""
        of_level = context_samples(self.sampling_rate_hz) + 2 * self.reach + frame_samples(self.sampling_rate_hz)
        even = np.isfinite(self.limits[:2]).any()
        return (of_level if even else 0) + self.reach + seen_around(self.normal, self.reach)

    def __call__(self, recording: Recording, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Whitened samples [start, stop) of a recording, (stop - start, C) float32, 0 in gaps.

        The values do not depend on the piece that is asked for: neighbours are read from the recording, and only beyond
        its two ends is the signal mirrored.

        Raises
        ------
        ShapeError : another number of channels than the filter was made for
        """
        n = recording.n_samples
        if recording.n_channels != len(self.taps):
            raise ShapeError(
                f"the recording has {recording.n_channels} channels, the detector was trained on {len(self.taps)}"
            )
        stop = n if stop is None else min(stop, n)
        if not np.isfinite(self.limits[:2]).any():
            return self._filtered(recording, start, stop)
        rate = self.sampling_rate_hz
        hop, context = frame_samples(rate) // 2, context_samples(rate) + 2 * self.reach
        low, high = max(start - context, 0) // hop * hop, min(stop + context, n)
        out = equalize(self._filtered(recording, low, high), self.limits, rate)
        wild = np.abs(out) > self.loudest
        if wild.any():
            wild = maximum_filter1d(wild, 2 * int(WILD_S * rate) + 1, axis=0)
            out = equalize(self._filtered(recording, low, high, wild), self.limits, rate)
            out[wild | (np.abs(out) > self.loudest)] = 0
        return out[start - low : stop - low]

    def _filtered(self, recording, start, stop, wild=None):
        """Whitened samples; where they are ``wild`` (stop - start, C) the recording is bridged like a gap."""
        n, reach = recording.n_samples, self.reach
        low, high = start - reach, stop + reach
        # At an end of the recording, so much is read as its drift is seen in.
        first, last = max(min(low, n - reach) if high > n else low, 0), min(max(high, reach) if low < 0 else high, n)
        signal, gaps = read_bridged(recording, first, last, self.normal, reach)
        gaps = gaps[start - first : stop - first]
        if wild is not None:
            gaps |= wild
            every = np.zeros(signal.shape, dtype=bool)
            every[start - first : stop - first] = gaps
            signal = bridge(signal, every, reach)
        beyond = ((max(-low, 0), max(high - n, 0)), (0, 0))
        signal = _extended(signal - self.center, beyond, reach if n > reach else 0)
        signal = signal[max(low, 0) - first :][: high - low]
        out = scipy.signal.oaconvolve(signal, self.taps.T, mode="valid", axes=0)[: stop - start].astype(np.float32)
        out[gaps] = 0
        return out

    def noise_levels(self, recording: Recording) -> tuple[np.ndarray, np.ndarray]:
        """Moments spread over a recording, (k,) seconds, and the power of each channel's noise there, (k, C): 1 is that
        of the spectrum that the filter was designed for, NaN is a gap."""
        rate, n = self.sampling_rate_hz, recording.n_samples
        length = min(context_samples(rate), n)
        starts = np.unique(np.linspace(0, n - length, min(MOMENTS, 1 + 2 * (n // length))).astype(int))
        levels = []
        for start in starts.tolist():
            piece = self._filtered(recording, start, start + length)
            known = (piece != 0).mean(axis=0) > KNOWN_SHARE
            levels.append(np.where(known, level_around(piece, rate), np.nan))
        return (starts + length / 2) / rate, np.array(levels)

    def filter_templates(self, templates: np.ndarray) -> np.ndarray:
        """Pass templates (E, L, C) through the filter, same length: keep a margin of quiet samples around them."""
        return scipy.signal.oaconvolve(templates, self.taps.T[None], mode="same", axes=1)


def _extended(signal, beyond, reach):
    """A signal (n, C) continued beyond its ends: mirrored about the line of its drift there, which goes on."""
    if not reach:
        return np.pad(signal, beyond, mode="wrap")
    out = np.pad(signal, beyond, mode="reflect")
    for n, end, new in zip(beyond[0], (signal, signal[::-1]), (out, out[::-1]), strict=True):
        if n:
            half = reach // 2
            slope = (np.median(end[half : 2 * half], axis=0) - np.median(end[:half], axis=0)) / half
            new[:n] += 2 * slope * np.arange(-n, 0)[:, None]
    return out


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
    DataError : a channel that is constant, or has gaps everywhere
    """
    normal = normal_of(recordings)
    psd, center = estimate_psd(recordings, normal)
    return replace(design_whitener(psd, recordings[0].sampling_rate_hz, center), normal=normal)


def tell_apart(whitener: Whitener, recordings: list[Recording], labels: list) -> Whitener:
    """The whitener with limits beyond which something is neither noise nor one of the labelled events.

    ``labels`` are Events of each recording.
    """
    normal = whitener.normal.with_events(recordings, labels)
    fields = whitener.taps, whitener.center, whitener.sampling_rate_hz, whitener.psd, whitener.change
    whitener = Whitener(*fields, normal=normal)
    # Most of what is labelled, where recordings are long.
    longest = int(LIMIT_S * whitener.sampling_rate_hz)
    signals = [whitener(recording, 0, longest) for recording in recordings]
    labels = [table.within(0, longest) for table in labels]
    whitener = replace(whitener, limits=learn_limits(signals, labels, whitener.sampling_rate_hz))
    return replace(whitener, loudest=_loudest(signals, labels))


def _loudest(signals: list[np.ndarray], labels: list) -> np.ndarray:
    """(C,) amplitude in whitened signals (n, C) that no event has: far above what one sample in twenty exceeds, and
    what one labelled event in ten exceeds; ``labels`` are Events of each signal."""
    rate, peaks = labels[0].sampling_rate_hz, []
    for signal, table in zip(signals, labels, strict=True):
        for start in (table.sample - int(BEFORE_S * rate))[:: max(1, len(table) // MAX_SEGMENTS)]:
            event = signal[max(start, 0) : start + int((BEFORE_S + AFTER_S) * rate)]
            peaks.append(np.abs(event).max(axis=0, initial=0.0))
    common = np.quantile(np.abs(np.concatenate(signals)), 0.95, axis=0)
    return WILD_TIMES * (np.maximum(common, np.quantile(peaks, 0.9, axis=0)) if peaks else np.full_like(common, np.inf))


def refine_whitener(whitener: Whitener, residuals: list[np.ndarray]) -> Whitener:
    """Correct a whitener by the spectrum of the whitened signals (n, C) without their events.

    Strong or dense events are part of every segment: the first estimate counts them as noise and suppresses their band.
    The spectrum of the residual shows by how much.
    """
    rate = whitener.sampling_rate_hz
    # A signal is exactly 0 in its gaps.
    known = [Recording(np.where(residual == 0, np.nan, residual), rate) for residual in residuals]
    left, _ = estimate_psd(known, Normal.unknown(len(whitener.taps)))
    n = max(left.shape[1], whitener.psd.shape[1])
    refined = design_whitener(
        np.exp(on_grid(np.log(whitener.psd), n) + on_grid(np.log(left), n)), rate, whitener.center
    )
    return replace(
        refined,
        normal=whitener.normal,
        limits=whitener.limits,
        loudest=whitener.loudest,
        change=float(np.abs(np.log(left)).mean(axis=1).max()),
    )


def estimate_psd(recordings: list[Recording], normal: Normal) -> tuple[np.ndarray, np.ndarray]:
    """Noise spectrum (C, F) by Welch's method with the median over segments, and the middle of each channel (C,).

    Segments of which gaps are more than a small share do not count.

    Raises
    ------
    DataError : a channel that is constant, or has gaps everywhere
    """
    signal, known, chosen = read_segments(recordings, SEGMENT_S, MAX_SEGMENTS, normal)
    middles = np.where(known, np.median(signal, axis=1), np.nan)
    spectra = scipy.signal.periodogram(signal, window="hann", detrend="linear", axis=1)[1] / 2
    spectra[np.broadcast_to(~known[:, None], spectra.shape)] = np.nan
    spectra = _without_quiet(spectra, np.array([k for k, _ in chosen]))
    used = np.isfinite(middles).sum(axis=0)
    if (used == 0).any():
        names = ", ".join(np.array(recordings[0].channels)[used == 0])
        raise DataError(f"channel {names} is constant or missing: leave it out (evlib.validate lists such channels)")
    # The median of a chi-square variable with two degrees of freedom is log(2) of its mean.
    psd = np.where(used > 2, np.nanmedian(spectra, axis=0) / np.log(2), np.nanmean(spectra, axis=0))
    psd[0], psd[-1] = psd[1], psd[-2]  # these two have one degree of freedom only
    smooth = np.exp(_smooth(np.log(np.maximum(psd, np.finfo(float).tiny))))
    return smooth.T, np.nanmedian(middles, axis=0)


def _without_quiet(spectra, owner):
    """Spectra (n, F, C) without those of segments in which a channel has far less noise than in most others of their
    recording, of which ``owner`` (n,) is the number."""
    level = np.empty((len(spectra), spectra.shape[2]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a channel without any spectrum
        for k in np.unique(owner):
            own = np.nanmedian(spectra[owner == k] / np.nanmedian(spectra[owner == k], axis=0), axis=1)
            level[owner == k] = own / np.nanmedian(own, axis=0)
    return np.where((level < 1 / QUIETER)[:, None], np.nan, spectra)


def _smooth(values):
    """Running mean over rows with a width that grows with the row, (F, C) -> (F, C)."""
    n, row = len(values), np.arange(len(values))
    half = np.minimum(1 + row // 40, n_frames(n, 40))
    total = np.concatenate([np.zeros((1, values.shape[1])), np.cumsum(values, axis=0)])
    low, high = np.maximum(row - half, 0), np.minimum(row + half + 1, n)
    return (total[high] - total[low]) / (high - low)[:, None]
