"""Several sensors, each at a rate and on a clock of its own, read as one recording.

One clock, that of the first stream, is common. Each stream is read where that clock says, as the band-limited signal
that its samples stand for: at a higher rate it gains nothing, at a lower one it loses what that cannot show, which is
said. So templates, networks and the refractory rule see all streams at matching times, and evidence adds up over them;
a stream that is missing for a while (NaN, ended early) takes away its own evidence only.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC

import numpy as np

from .errors import DataError, OptionError, ShapeError, require, require_known, require_number, require_rate
from .recording import BLOCK_SAMPLES, REACH, Recording, windowed_sinc

# Samples by which a place may be off: clocks of files are rounded to microseconds.
ROUNDING = 1e-3
# A stream that has at least twice so many samples in one of the common clock is thinned first, and keeps at least so
# many. The filter for it reaches so many thinned samples to either side, and lets 1e-4 of what lies above pass.
LEAST_STEP, THIN_REACH, KAISER = 2.0, 8, 8.0
# A stream shows nothing above half its rate. There it gets white noise, of so much of its own noise, so that it can be
# whitened at the common rate; and the samples that are drawn together, whatever is read.
BLANK, BLANK_SAMPLES = 3e-3, 65_536
# Evenly spaced stretches of a stream, and samples of each, that say its deviation.
LOOKS, LOOK_SAMPLES = 50, 512


@dataclass(frozen=True)
class Clock:
    """The clock of a stream: what happens at ``t`` seconds of the common clock is found at ``t (1 + skew) + offset_s``.

    ``offset_sd_s`` and ``skew_sd`` are standard errors, where the clock was estimated; ``middle_s`` is when it is known
    best, in the middle of what it was estimated from.

    >>> round(float(Clock(0.3, 200e-6).at(100.0)), 6)
    100.32
    """

    offset_s: float = 0.0
    skew: float = 0.0
    offset_sd_s: float = float("nan")
    skew_sd: float = float("nan")
    middle_s: float = float("nan")

    def __post_init__(self):
        require_number(-1e9, 1e9, offset_s=self.offset_s)
        require_number(-0.5, 1.0, skew=self.skew)

    @staticmethod
    def from_markers(common_s, own_s) -> "Clock":
        """The clock on which moments of the common clock are found at ``own_s``: a line through both, by least squares.

        Parameters
        ----------
        common_s, own_s : (n,) seconds of the same markers (a knock, a flash, a pulse on both devices), in pairs. One
            says an offset alone, three or more say standard errors too

        Raises
        ------
        ShapeError, DataError : not as many in both, times that are not finite, all at one moment

        Examples
        --------
        >>> print(Clock.from_markers([0.0, 100.0, 200.0], [0.3, 100.3201, 200.3401]))
        +300.02 ms (± 0.037), +200.5 ppm (± 0.29)
        """
        from scipy.stats import linregress

        try:
            common, own = (np.atleast_1d(np.asarray(times, dtype=float)) for times in (common_s, own_s))
        except (TypeError, ValueError) as error:
            raise DataError(f"times of markers must be finite numbers of seconds: {error}") from None
        message = f"markers come in pairs, got {common.shape} and {own.shape} times"
        require(common.shape == own.shape and common.ndim == 1 and len(own) > 0, ShapeError, message)
        require(np.isfinite([common, own]).all(), DataError, "times of markers must be finite numbers of seconds")
        if len(common) == 1:
            return Clock(float(own[0] - common[0]))
        require(np.ptp(common) > 0, DataError, "all markers stand at one moment: one would say as much")
        line = linregress(common, own - common)
        errors = (line.intercept_stderr, line.stderr) if len(common) > 2 else (np.nan, np.nan)
        return Clock(*map(float, (line.intercept, line.slope, *errors, common.mean())))

    def sd_at(self, time_s):
        """Standard error of `at` in seconds; NaN where the clock was not estimated."""
        least = np.maximum(self.offset_sd_s**2 - (self.middle_s * self.skew_sd) ** 2, 0.0)
        return np.sqrt(least + (np.subtract(time_s, self.middle_s) * self.skew_sd) ** 2)

    def at(self, time_s):
        """Seconds on this clock at seconds of the common one."""
        return np.multiply(time_s, 1 + self.skew) + self.offset_s

    def common(self, own_s):
        """Seconds on the common clock at seconds of this one."""
        return np.subtract(own_s, self.offset_s) / (1 + self.skew)

    def __str__(self):
        ms, ppm = (
            np.format_float_positional(error, 2, fractional=False, trim="-")
            for error in (1e3 * self.offset_sd_s, 1e6 * self.skew_sd)
        )
        return f"{1e3 * self.offset_s:+.2f} ms (± {ms}), {1e6 * self.skew:+.1f} ppm (± {ppm})"


def join_streams(
    streams: Mapping[str, Recording], clocks: Mapping[str, Clock] | None = None, sampling_rate_hz: float | None = None
) -> Recording:
    """Several streams as one recording, computed when it is read.

    Parameters
    ----------
    streams : recordings by name; the first one's clock is the common one. Where both say when they began
        (``start_time``), a stream begins so much later or earlier; where not, with the first
    clocks : of streams whose clocks differ from it, by name (`evlib.detection.clocks.stream_clocks` estimates them)
    sampling_rate_hz : the common rate; default: that of the fastest stream. A lower one saves time, and loses what
        faster streams show above half of it

    Returns
    -------
    Recording with channels ``stream.channel`` in their units, as long as the longest stream; NaN where one has no
    samples

    Raises
    ------
    OptionError : no streams, clocks of streams that there are not
    DataError : a stream that shares no moment with the first

    Examples
    --------
    >>> frame = Recording(np.random.default_rng(0).normal(size=(2000, 2)), 2000.0, ("x", "y"), "m/s2")
    >>> load = Recording(np.ones((100, 1)), 100.0, ("weight",), "N")
    >>> both = join_streams({"frame": frame, "load": load})
    >>> both.channels, both.units, both.sampling_rate_hz
    (('frame.x', 'frame.y', 'load.weight'), ('m/s2', 'm/s2', 'N'), 2000.0)
    >>> bool(np.isfinite(both.read()).all())
    True
    """
    require(isinstance(streams, Mapping) and len(streams), OptionError, "streams must be recordings by name, got none")
    wrong = [str(name) for name, stream in streams.items() if not isinstance(stream, Recording)]
    require(not wrong, OptionError, f"streams must be recordings by name; {', '.join(wrong)} is none")
    dotted = [name for name in streams if not isinstance(name, str) or not name or "." in name]
    require(not dotted, OptionError, f"a stream is named by a text without dots, got {dotted}")
    clocks = dict(clocks or {})
    require_known(clocks, streams, "the streams", "clock")
    fastest = max(stream.sampling_rate_hz for stream in streams.values())
    rate = fastest if sampling_rate_hz is None else require_rate(sampling_rate_hz)
    if faster := [name for name, stream in streams.items() if stream.sampling_rate_hz > rate]:
        text = "of %s only what lies below %g Hz is read, at %g Hz"
        logging.getLogger(__name__).warning(text, ", ".join(faster), rate / 2, rate)
    first = next(iter(streams.values()))
    of_samples = {name: _of_samples(clocks.get(name, Clock()), stream, first) for name, stream in streams.items()}
    ends_s = {name: clock.common([0.0, streams[name].duration_s]) for name, clock in of_samples.items()}
    start_s, stop_s = next(iter(ends_s.values()))
    strange = [name for name, (low, high) in ends_s.items() if high <= max(start_s, 0) or low >= stop_s]
    message = f"{', '.join(strange)}: no sample in the time of {next(iter(streams))}; are clocks and start times right?"
    require(not strange, DataError, message)
    n_samples = max(1, round(float(max(high for _, high in ends_s.values())) * rate))
    parts = [Resampled(stream, of_samples[name], rate, n_samples) for name, stream in streams.items()]
    channels = tuple(f"{name}.{channel}" for name, stream in streams.items() for channel in stream.channels)
    units = tuple(unit for stream in streams.values() for unit in stream.units)
    return Recording(Joined(parts), rate, channels, units, " + ".join(streams), first.start_time)


def _of_samples(clock, stream, first):
    """The clock of the samples of a stream: seconds from its first one, and not from when its device began."""
    if None in (stream.start_time, first.start_time):
        return clock
    # What has no zone is UTC.
    own, common = (
        start if start.tzinfo else start.replace(tzinfo=UTC) for start in (stream.start_time, first.start_time)
    )
    return replace(clock, offset_s=clock.offset_s - (own - common).total_seconds())


def stream_groups(recording: Recording) -> dict[str, tuple]:
    """Stream -> numbers of its channels, of a recording of `join_streams`.

    >>> stream_groups(Recording(np.zeros((9, 3)), 100.0, ("frame.x", "frame.y", "load.weight")))
    {'frame': (0, 1), 'load': (2,)}
    """
    names = [channel.split(".", 1)[0] for channel in recording.channels]
    return {name: tuple(k for k, one in enumerate(names) if one == name) for name in dict.fromkeys(names)}


class Joined:
    """Signals of one rate side by side, computed when sliced."""

    def __init__(self, parts):
        self.parts = parts
        self.shape, self.ndim = (parts[0].shape[0], sum(part.shape[1] for part in parts)), 2
        self.dtype = np.dtype(np.float32)

    def __getitem__(self, rows):
        return np.concatenate([part[rows] for part in self.parts], axis=1)

    def __array__(self, dtype=None, copy=None):
        return np.asarray(self[:], dtype=dtype)


class Resampled:
    """A stream at another rate and on another clock, computed when sliced; NaN beyond its ends."""

    def __init__(self, stream: Recording, clock: Clock, rate: float, n_samples: int):
        self.stream, self.clock, self.rate = stream, clock, rate
        self.shape, self.ndim, self.dtype = (n_samples, stream.n_channels), 2, np.dtype(np.float32)
        # Samples of the stream in a sample of the common clock.
        self.step = stream.sampling_rate_hz * (1 + clock.skew) / rate
        # A much faster stream is first thinned to every so many samples: then few of them make one here.
        self.thin = max(1, int(self.step / LEAST_STEP))
        self.blank = self._deviation() * BLANK if self.step < 1 else np.zeros(stream.n_channels)

    def _deviation(self):
        """(channels,) deviation of the noise, from the steps between samples: slow sways of the sensor do not count."""
        length = min(LOOK_SAMPLES, self.stream.n_samples)
        starts = np.linspace(0, self.stream.n_samples - length, LOOKS).astype(int)
        looks = np.stack([self.stream.read(start, start + length, np.float64) for start in np.unique(starts)])
        steps = np.diff(looks, axis=1)
        seen = np.isfinite(steps)
        square = np.where(seen, steps, 0.0) ** 2
        mean = square.sum(axis=1) / np.maximum(seen.sum(axis=1), 1)
        some = seen.any(axis=1)
        return np.array(
            [np.sqrt(np.median(own[ok]) / 2) if ok.any() else 0.0 for own, ok in zip(mean.T, some.T, strict=True)]
        )

    def __getitem__(self, rows):
        start, stop, _ = rows.indices(self.shape[0])
        block = np.empty((max(stop - start, 0), self.shape[1]), dtype=self.dtype)
        size = BLOCK_SAMPLES // 16
        for first in range(start, stop, size):
            some = slice(first, min(first + size, stop))
            block[some.start - start : some.stop - start] = self._at(some) + self._blank(some)
        return block

    def _at(self, rows):
        """The band-limited signal at some samples of the common clock."""
        thin, n = self.thin, self.stream.n_samples
        place = np.arange(rows.start, rows.stop) * self.step + self.clock.offset_s * self.stream.sampling_rate_hz
        # A sample stands for the time up to the next one.
        beyond = (place < -ROUNDING) | (place >= n)
        place, n = place / thin, -(-n // thin)
        whole = np.floor(place).astype(np.int64)
        # Below the lower one of both rates nothing is lost.
        cut = min(1.0, thin / self.step)
        reach = int(np.ceil(REACH / cut))
        low, high = (int(np.clip(edge, 0, n)) for edge in (whole[0] - reach + 1, whole[-1] + reach + 1))
        if high <= low or beyond.all():
            return np.full((len(place), self.shape[1]), np.nan)
        signal = self._thinned(low, high)
        near = np.arange(1 - reach, reach + 1)
        at = np.clip(whole[:, None] + near - low, 0, high - low - 1)  # the ends go on as they are
        away = (near - (place - whole)[:, None]) * cut
        weight = windowed_sinc(away)
        weight /= weight.sum(axis=1, keepdims=True)
        values = np.einsum("nk,nkc->nc", weight, signal[at])
        values[beyond] = np.nan
        return values

    def _thinned(self, low, high):
        """Samples [low, high) of the thinned stream: every ``thin``-th, of what lies below half of that rate."""
        if self.thin == 1:
            return self.stream.read(low, high, np.float64)
        from scipy.signal import firwin, upfirdn

        n, around = self.stream.n_samples, THIN_REACH * self.thin
        low_pass = firwin(2 * around + 1, 1 / self.thin, window=("kaiser", KAISER))
        first, stop = low * self.thin - around, (high - 1) * self.thin + around + 1
        signal = self.stream.read(max(first, 0), min(stop, n), np.float64)
        signal = np.pad(signal, ((max(-first, 0), max(stop - n, 0)), (0, 0)), mode="edge")  # the ends go on
        return upfirdn(low_pass, signal, 1, self.thin, axis=0)[2 * THIN_REACH :][: high - low]

    def _blank(self, rows):
        """Noise above half the rate of the stream, the same at a sample whatever is read with it."""
        if not self.blank.any():
            return 0.0
        parts = []
        for number in range(rows.start // BLANK_SAMPLES, (rows.stop - 1) // BLANK_SAMPLES + 1):
            rng = np.random.default_rng([number, self.shape[1]])
            parts.append(rng.standard_normal((BLANK_SAMPLES, self.shape[1]), dtype=np.float32))
        first = rows.start - rows.start // BLANK_SAMPLES * BLANK_SAMPLES
        return np.concatenate(parts)[first : first + rows.stop - rows.start] * self.blank

    def __array__(self, dtype=None, copy=None):
        return np.asarray(self[:], dtype=dtype)
