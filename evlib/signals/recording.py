"""Recordings: a signal (n_samples, n_channels) with its rate, channel names and units.

The signal may be an array or live on disk (memory-mapped, HDF5, zarr): nothing here reads more of it than is
asked for. ``read`` gives float32; a missing value stays NaN, and :func:`evlib.validate` says where. The rate
of a recording never changes on its own: :meth:`Recording.resample` is the only way.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import numpy as np

from .clock import rate_ratio, seconds_to_samples
from .errors import (
    DataError,
    EvlibError,
    OptionError,
    ShapeError,
    UnitError,
    float_array,
    require,
    require_choice,
    require_int,
    require_known,
    require_list,
    require_positive,
    require_rate,
    warn,
)
from .gaps import covered, gap_spans
from .text import plain_name, printable
from .units import conversion_factor

# Samples that are read, copied or checked at a time: 6 MB a block for six channels.
BLOCK_SAMPLES = 2**18


@dataclass(frozen=True, eq=False)
class Recording:
    """A multichannel signal on one uniform clock; sample 0 is at 0 s.

    Parameters
    ----------
    signal : (n_samples, n_channels) numbers: an array, a memory map, an HDF5 dataset or a zarr array;
        (n_samples,) becomes one channel
    sampling_rate_hz : samples per second
    channels : a name for each channel; without it ch1, ch2, ...
    units : a unit for each channel, or one for all
    name : shown in tables and figures
    start_time : date and time of sample 0, a datetime or text in ISO 8601; None where it is unknown

    Raises
    ------
    ShapeError : not (n_samples, n_channels), or names and units that do not fit the channels
    UnitError : a rate that is not a positive number
    OptionError : channel names that repeat, a start time that is no date and time
    DataError : no samples at all, or values that are not real numbers

    Examples
    --------
    >>> recording = Recording(np.zeros((4000, 2)), sampling_rate_hz=2000, units="m/s2")
    >>> recording
    Recording(4000 samples, 2 channels, 2000 Hz, 2 s)
    >>> recording.channels, recording.units
    (('ch1', 'ch2'), ('m/s2', 'm/s2'))
    >>> recording.read(10, 15).shape
    (5, 2)
    """

    signal: Any
    sampling_rate_hz: float
    channels: Any = None
    units: tuple | str = ""
    name: str = ""
    start_time: datetime | None = None

    def __post_init__(self):
        signal = _checked_signal(self.signal)
        n_channels = signal.shape[1]
        channels = numbered(n_channels) if self.channels is None else _labels("channels", self.channels)
        units = (self.units,) * n_channels if isinstance(self.units, str) else _labels("units", self.units)
        for what, labels in (("channels", channels), ("units", units)):
            if len(labels) != n_channels:
                wanted = f"the {n_channels} channels of the signal {signal.shape}"
                raise ShapeError(f"{what} must name {wanted}, got {labels}")
        if len(set(channels)) != n_channels:
            raise OptionError(f"channel names must differ from each other, got {channels}")
        rate, start_time = require_rate(self.sampling_rate_hz), _date_and_time(self.start_time)
        vars(self).update(signal=signal, sampling_rate_hz=rate, channels=channels, units=units, start_time=start_time)

    def __repr__(self):
        name = f"{self.name}: " if self.name else ""
        size = f"{self.n_samples} samples, {self.n_channels} channels"
        return printable(f"Recording({name}{size}, {self.sampling_rate_hz:g} Hz, {self.duration_s:g} s)")

    @property
    def shape(self) -> tuple:
        """(n_samples, n_channels)."""
        return tuple(self.signal.shape)

    @property
    def n_samples(self) -> int:
        """Number of samples of each channel."""
        return self.shape[0]

    @property
    def n_channels(self) -> int:
        """Number of channels."""
        return self.shape[1]

    @property
    def duration_s(self) -> float:
        """The length in seconds."""
        return self.n_samples / self.sampling_rate_hz

    def read(self, start: int = 0, stop: int | None = None, dtype: Any = np.float32) -> np.ndarray:
        """Samples [start, stop) as a new array (stop - start, n_channels); only they are read from disk."""
        stop = self.n_samples if stop is None else stop
        if not (isinstance(start, int | np.integer) and isinstance(stop, int | np.integer)):
            raise UnitError(f"read takes whole samples, got {start!r} and {stop!r} (seconds? use between)")
        if not 0 <= start <= stop <= self.n_samples:
            raise ShapeError(f"samples [{start}, {stop}) do not lie within the signal's {self.n_samples} samples")
        # A float64 that is too large for float32 becomes infinite, and validate reports it.
        with np.errstate(over="ignore"):
            return np.array(self.signal[start:stop], dtype=dtype)

    def between(self, start_s: float, stop_s: float | None = None) -> "Recording":
        """The part from ``start_s`` to ``stop_s``, without reading it; times are rounded to the nearest sample.

        The first sample of the part is at 0 s again, its ``start_time`` is later: move events along with
        ``events.within(start, stop).shift(-start)``.
        """
        stop_s = self.duration_s if stop_s is None else stop_s
        start, stop = seconds_to_samples(float_array("start_s, stop_s", [start_s, stop_s]), self.sampling_rate_hz)[0]
        if not 0 <= start < stop <= self.n_samples:
            recorded = f"the {self.duration_s:g} s recorded"
            raise UnitError(f"{start_s} s to {stop_s} s is no part of {recorded} (were samples passed?)")
        whole = isinstance(self.signal, np.ndarray)
        signal = self.signal[start:stop] if whole else StoredSignal(self.signal, int(start), int(stop))
        start_time = self.start_time and self.start_time + timedelta(seconds=start / self.sampling_rate_hz)
        return self._with(signal=signal, start_time=start_time)

    def select(self, channels) -> "Recording":
        """Some channels, by name or by number, in this order, without reading them.

        >>> Recording(np.ones((9, 3)), 100, ["x", "y", "z"]).select(["z", 0]).channels
        ('z', 'x')
        """
        index = self._numbers(channels, "select")
        return self._columns(index, np.ones(len(index)), [self.units[k] for k in index])

    def like(
        self, channels, units=None, what: str = "the other recording", match_channels: str = "name"
    ) -> "Recording":
        """The recording with the channels and units of another one, in its order, without reading it.

        Parameters
        ----------
        channels, units : of the other one; an unknown unit ("") fits any
        what : the other one, for errors
        match_channels : "name", or "position" for channels that have other names but mean the same. Where one of the
            two has no names (ch1, ch2, ...) position counts too, with a warning. Case, blanks and underscores do not
            matter

        Raises
        ------
        ShapeError : channels that are missing
        UnitError : units that cannot be converted

        Examples
        --------
        >>> recording = Recording(np.array([[1.0, 2.0], [3.0, 4.0]]), 100, ["y", "x"], "g")
        >>> recording.like(("x", "y"), ("m/s2", "m/s2")).read(0, 1)
        array([[19.6133 ,  9.80665]], dtype=float32)
        """
        require_choice(("name", "position"), match_channels=match_channels)
        require_list(channels=channels)
        channels, n_channels = tuple(channels), len(channels)
        unnamed = any(names == numbered(len(names)) for names in (channels, self.channels))
        plain = [plain_name(name) for name in self.channels]
        if set(channels) <= set(self.channels) and match_channels == "name":
            index = [self.channels.index(channel) for channel in channels]
        elif match_channels == "name" and all(plain.count(plain_name(channel)) == 1 for channel in channels):
            index = [plain.index(plain_name(channel)) for channel in channels]
        elif self.n_channels == n_channels and (unnamed or match_channels == "position"):
            index = list(range(n_channels))
            if channels != self.channels:
                pairs = zip(self.channels, channels, strict=True)
                warn("channels by position: " + ", ".join(f"{own!r} is read as {other!r}" for own, other in pairs))
        else:
            missing = ", ".join(name for name in channels if name not in self.channels)
            names = f"{', '.join(self.channels)} and not {missing}" if not unnamed else f"{self.n_channels}"
            hint = '(other names for the same, in the same order? match_channels="position")'
            hint = hint if self.n_channels == n_channels else f"({self.n_channels} in all)"
            raise ShapeError(f"{what} is for {n_channels} channels, the recording has {names} {hint}")
        wanted, factors = ("",) * n_channels if units is None else tuple(units), []
        for channel, number, unit in zip(channels, index, wanted, strict=True):
            try:
                factors.append(conversion_factor(self.units[number], unit))
            except UnitError as error:
                raise UnitError(
                    f"channel {channel}: {what} is in {unit!r}, the recording in another unit: {error}"
                ) from None
        found = [unit or self.units[number] for unit, number in zip(wanted, index, strict=True)]
        if index == list(range(self.n_channels)) and set(factors) <= {1.0} and channels == self.channels:
            return self if tuple(found) == self.units else self._with(units=tuple(found))
        return self._columns(index, np.array(factors), found)._with(channels=channels)

    def mark_bad(self, spans_s, channels=None) -> "Recording":
        """The recording with NaN in some spans: training, detection and the browser leave them out.

        Parameters
        ----------
        spans_s : (k, 2) first and last moment of each span, seconds
        channels : names or numbers; default: all

        Examples
        --------
        >>> recording = Recording(np.ones((5, 2)), 1).mark_bad([(1, 3)], channels="ch2")
        >>> recording.read()[:, 1]
        array([ 1., nan, nan,  1.,  1.], dtype=float32)
        """
        spans = float_array("spans_s", spans_s)
        if spans.shape[1:] != (2,) or not (np.isfinite(spans).all() and (spans[:, 0] < spans[:, 1]).all()):
            raise ShapeError(f"spans_s must be (first, last) seconds of each span, got {spans_s!r} (one? [(1.0, 2.0)])")
        if len(spans) and (spans.max() <= 0 or spans.min() >= self.duration_s):
            raise UnitError(f"no span lies in the {self.duration_s:g} s recorded (were samples passed?)")
        index = range(self.n_channels) if channels is None else self._numbers(channels, "mark_bad")
        spans = np.clip(seconds_to_samples(spans, self.sampling_rate_hz)[0], 0, self.n_samples)
        return self._with(signal=Masked(self.signal, spans, index))

    def align_clocks(self, channels, time_s, lag_s) -> "Recording":
        """The recording with some channels, which were recorded on another clock, put on that of the others.

        What happens at ``time_s`` is found in ``channels`` at ``time_s + lag_s``. Values between samples are those of a
        band-limited signal, computed when they are read; beyond the ends they are NaN.

        Parameters
        ----------
        channels : names or numbers
        time_s, lag_s : (k,) seconds, times rising; the lag is a line between them, and goes on beyond them

        Raises
        ------
        ShapeError : times and lags that do not belong together or do not rise

        Examples
        --------
        >>> signal = np.sin(np.arange(200) / 10)[:, None]
        >>> late = Recording(np.hstack([signal, np.roll(signal, 5, axis=0)]), 100)
        >>> even = late.align_clocks("ch2", [0.0], [0.05]).read(50, 150)
        >>> bool(np.abs(even[:, 0] - even[:, 1]).max() < 1e-3)
        True
        """
        time_s, lag_s = float_array("time_s", time_s), float_array("lag_s", lag_s)
        good = time_s.ndim == 1 and time_s.shape == lag_s.shape and len(time_s) and (np.diff(time_s) > 0).all()
        message = f"time_s must rise, with a lag for each time, got shapes {time_s.shape} and {lag_s.shape}"
        require(bool(good) and bool(np.isfinite([time_s, lag_s]).all()), ShapeError, message)
        knots = time_s * self.sampling_rate_hz, lag_s * self.sampling_rate_hz
        return self._with(signal=Shifted(self.signal, self._numbers(channels, "align_clocks"), *knots))

    def split_at_gaps(self, events=None, gap_s: float = 1.0) -> list:
        """The parts between gaps, without reading them: a gap is missing or does not change for ``gap_s`` seconds in
        every channel.

        Parts of less than ``gap_s`` are left out. With the ``events`` of the recording: (part, its events) pairs.

        >>> signal = np.random.default_rng(0).normal(size=(600, 2))
        >>> signal[200:400] = 0
        >>> [part.name for part in Recording(signal, 100, name="night").split_at_gaps()]
        ['night 0 s', 'night 4 s']
        """
        require_positive(gap_s=gap_s)
        starts, stops = gap_spans(self, least=gap_s * self.sampling_rate_hz)
        edges = np.column_stack([np.r_[0, stops], np.r_[starts, self.n_samples]])
        parts = []
        for start, stop in edges[edges[:, 1] - edges[:, 0] >= gap_s * self.sampling_rate_hz]:
            part = self.between(*(np.array([start, stop]) / self.sampling_rate_hz))
            part = part._with(name=f"{self.name} {start / self.sampling_rate_hz:g} s".strip())
            if events is None:
                parts.append(part)
            else:
                own = events.at_rate(self.sampling_rate_hz).within(int(start), int(stop))
                parts.append((part, own.shift(-int(start))))
        return parts

    def resample(self, sampling_rate_hz: float) -> "Recording":
        """The recording at another rate, filtered without delay: sample 0 and every event keep their times.

        The polyphase filter works on the whole signal in memory; a NaN spreads over its length.

        >>> Recording(np.ones(2000), 2000).resample(204.8).shape
        (205, 1)
        """
        from scipy.signal import resample_poly

        rate = require_rate(sampling_rate_hz)
        if rate == self.sampling_rate_hz:
            return self
        ratio = rate_ratio(self.sampling_rate_hz, rate)
        if ratio is None or max(ratio) > 100_000:
            rates = f"{self.sampling_rate_hz} Hz to {rate} Hz"
            raise UnitError(f"cannot resample {rates}: their ratio is not one of small integers")
        # Both ends continue as they are: a constant offset makes no edge.
        return self._with(signal=resample_poly(self.read(), *ratio, axis=0, padtype="edge"), sampling_rate_hz=rate)

    def blocks(self, size: int = BLOCK_SAMPLES):
        """Yield ``(start, block)`` for consecutive blocks of at most ``size`` samples, each read only then."""
        require_int(1, size=size)
        for start in range(0, self.n_samples, int(size)):
            yield start, self.read(start, min(start + int(size), self.n_samples))

    def _numbers(self, channels, where):
        """Numbers of channels that are given by name or number."""
        chosen = [channels] if isinstance(channels, str | int) else channels
        require_list(channels=chosen)
        chosen = list(chosen)
        require_known([c for c in chosen if isinstance(c, str)], self.channels, where, "channel")
        index = [self.channels.index(c) if isinstance(c, str) else c for c in chosen]
        for number in index:
            require_int(-self.n_channels, channel=number)
            require(number < self.n_channels, OptionError, f"there are {self.n_channels} channels, got number {number}")
        index = [number % self.n_channels for number in index]
        if not index or len(set(index)) < len(index):
            raise OptionError(f"{where} takes different channels, at least one; got {chosen}")
        return index

    def _columns(self, index, factors, units):
        """Some columns times factors."""
        changes = {"channels": tuple(self.channels[k] for k in index), "units": tuple(units)}
        if isinstance(self.signal, np.ndarray) and set(factors) <= {1.0}:
            return self._with(signal=self.signal[:, index], **changes)
        return self._with(signal=Columns(self.signal, index, factors), **changes)

    def _with(self, **changes):
        """A recording with other fields that need no check: a short part may have fewer samples than channels."""
        other = object.__new__(Recording)
        vars(other).update(vars(self) | changes)
        return other


class StoredSignal:
    """Samples [start, stop) of a stored signal as (n_samples, n_channels) floats, read when sliced."""

    source = ""  # the file, for errors

    def __init__(self, stored, start=0, stop=None, offset=0, gain=None):
        self.stored, self.start, self.offset, self.gain = stored, start, offset, gain
        stop = stored.shape[0] if stop is None else stop
        self.shape = (stop - start, stored.shape[1] if len(stored.shape) > 1 else 1)
        self.ndim = 2
        self.dtype = np.dtype(stored.dtype if gain is None else np.float32)

    def __getitem__(self, rows):
        start, stop, _ = rows.indices(self.shape[0])
        try:
            block = np.asarray(self.stored[self.start + start : self.start + stop])
        except EvlibError:  # from the signal this is a part of
            raise
        except Exception as error:  # whatever a storage library raises for a damaged chunk
            where = self.source or self.stored
            raise DataError(f"{where}: samples [{start}, {stop}) cannot be read (a damaged file?): {error}") from error
        block = block.reshape(stop - start, self.shape[1])
        return block if self.gain is None else (block.astype(np.float32) - self.offset) * np.float32(self.gain)

    def __array__(self, dtype=None, copy=None):
        return np.asarray(self[:], dtype=dtype)


class Columns:
    """Some columns of a signal times factors, computed when sliced."""

    def __init__(self, signal, index, factors):
        self.signal, self.index, self.factors = signal, list(index), np.asarray(factors)
        self.shape, self.ndim = (signal.shape[0], len(self.index)), 2
        self.dtype = signal.dtype if set(factors) <= {1.0} else np.result_type(signal.dtype, np.float32)

    def __getitem__(self, rows):
        block = np.asarray(self.signal[rows])[:, self.index]
        return (
            block
            if block.dtype == self.dtype and set(self.factors) <= {1.0}
            else (block * self.factors).astype(self.dtype)
        )

    def __array__(self, dtype=None, copy=None):
        return np.asarray(self[:], dtype=dtype)


class Masked:
    """A signal with NaN in some columns of the spans (k, 2), in samples, computed when sliced."""

    def __init__(self, signal, spans, index):
        self.signal, self.spans, self.index = signal, spans, list(index)
        self.shape, self.ndim, self.dtype = signal.shape, 2, np.result_type(signal.dtype, np.float32)

    def __getitem__(self, rows):
        start, stop, _ = rows.indices(self.shape[0])
        block = np.array(self.signal[start:stop], dtype=self.dtype)
        block[np.ix_(covered(*(self.spans - start).T, len(block)), self.index)] = np.nan
        return block

    def __array__(self, dtype=None, copy=None):
        return np.asarray(self[:], dtype=dtype)


# Samples to either side that a value between two samples is made of.
REACH = 24


def windowed_sinc(away: np.ndarray) -> np.ndarray:
    """The share that samples have in a value of the band-limited signal, by how many samples they are ``away``.

    >>> windowed_sinc(np.array([0.0, 0.5, 1.0])).round(3)
    array([1.   , 0.636, 0.   ])
    """
    return np.sinc(away) * np.cos(np.pi / 2 * np.clip(away / REACH, -1, 1)) ** 2


class Shifted:
    """A signal with some columns at other times: at sample t, that at t + lag, where the lag is a line between knots
    (``time``, ``lag``), in samples; computed when sliced."""

    def __init__(self, signal, index, time, lag):
        self.signal, self.index, self.time, self.lag = signal, list(index), time, lag
        self.shape, self.ndim, self.dtype = signal.shape, 2, np.result_type(signal.dtype, np.float32)

    def __getitem__(self, rows):
        start, stop, _ = rows.indices(self.shape[0])
        block = np.array(self.signal[start:stop], dtype=self.dtype)
        own = np.arange(start, stop, dtype=np.float64)
        if not len(own):
            return block
        own += self._lag(own)
        whole, reach, n = np.floor(own).astype(int), np.arange(1 - REACH, REACH + 1), self.shape[0]
        low, high = (int(np.clip(edge, 0, n)) for edge in (whole.min() - REACH, whole.max() + REACH + 1))
        signal = np.full((high - low + 1, len(self.index)), np.nan)  # the last row: beyond the ends
        if high > low:
            signal[:-1] = np.asarray(self.signal[low:high])[:, self.index]
        middle = np.nanmedian(signal[:-1], axis=0) if np.isfinite(signal).any() else 0.0
        for first in range(0, len(own), BLOCK_SAMPLES // 16):
            some = slice(first, first + BLOCK_SAMPLES // 16)
            away = reach - (own[some] - whole[some])[:, None]
            weight = windowed_sinc(away)
            at = whole[some, None] + reach
            at = np.where((at >= low) & (at < high), at - low, -1)
            block[some, self.index] = np.einsum("nk,nkc->nc", weight, signal[at] - middle) + middle
        return block

    def _lag(self, at):
        """The lag at some times, which goes on along the first and the last line."""
        lag = np.interp(at, self.time, self.lag)
        if len(self.time) > 1:
            slope = np.diff(self.lag)[[0, -1]] / np.diff(self.time)[[0, -1]]
            lag += slope[0] * np.minimum(at - self.time[0], 0) + slope[1] * np.maximum(at - self.time[-1], 0)
        return lag

    def __array__(self, dtype=None, copy=None):
        return np.asarray(self[:], dtype=dtype)


def numbered(n_channels):
    """The names of channels that nobody named."""
    return tuple(f"ch{k + 1}" for k in range(n_channels))


def _labels(what, labels):
    labels = (labels,) if isinstance(labels, str) else labels
    require_list(**{what: labels})
    return tuple(map(str, labels))


def _date_and_time(value):
    if value is None or isinstance(value, datetime):
        return value
    try:
        return datetime.fromisoformat(value)
    except (TypeError, ValueError):
        wanted = "a datetime or text such as 2024-05-01T12:00:00+02:00"
        raise OptionError(f"start_time must be {wanted}, got {value!r}") from None


def _checked_signal(signal):
    """(n_samples, n_channels) real numbers, or an error; nothing of a stored signal is read."""
    if isinstance(signal, np.ma.MaskedArray):
        signal = signal.astype(np.float64).filled(np.nan)
    elif not isinstance(getattr(signal, "dtype", None), np.dtype) or hasattr(signal, "to_numpy"):
        try:
            signal = np.asarray(signal)
        except (ValueError, TypeError) as error:
            kind = type(signal).__name__
            raise ShapeError(f"signal must be an array (n_samples, n_channels), got {kind}: {error}") from error
    shape = tuple(signal.shape)
    wanted = f"signal must have shape (n_samples, n_channels), got {shape}"
    if signal.dtype.kind not in "iufb":
        raise DataError(f"signal must hold real numbers, got values of type {signal.dtype}")
    if len(shape) not in (1, 2):
        raise ShapeError(f"{wanted} (one recording at a time, no batch)")
    if 0 in shape:
        raise DataError(f"signal is empty: it has shape {shape}")
    if len(shape) == 2 and shape[1] > shape[0]:
        raise ShapeError(f"{wanted}: transposed? (more channels than samples) store or pass signal.T")
    if not isinstance(signal, np.ndarray | StoredSignal):
        return StoredSignal(signal)
    return signal[:, None] if len(shape) == 1 else signal


def cut(signal: np.ndarray, starts, length: int) -> np.ndarray:
    """Windows (N, length, C) of a signal (n, C) that begin at samples ``starts`` (N,); 0 beyond the ends of the signal.

    >>> cut(np.arange(1, 5), [1, 3], 3)
    array([[2, 3, 4],
           [4, 0, 0]])
    """
    index = np.asarray(starts, dtype=np.int64)[:, None] + np.arange(length)
    inside = (index >= 0) & (index < len(signal))
    if inside.all():
        return signal[index]
    windows = signal[np.clip(index, 0, len(signal) - 1)]
    windows[~inside] = 0
    return windows


def add_windows(signal: np.ndarray, starts, windows: np.ndarray):
    """Add windows (N, length, C) to a signal (n, C) in place, each from its start (N,) on; the opposite of :func:`cut`.

    >>> signal = np.zeros((4, 1))
    >>> add_windows(signal, [-1, 1, 2], np.ones((3, 3, 1)))
    >>> signal[:, 0]
    array([1., 2., 2., 2.])
    """
    index = np.asarray(starts, dtype=np.int64)[:, None] + np.arange(windows.shape[1])
    inside = (index >= 0) & (index < len(signal))
    index = index[inside]
    # One channel at a time: adding up numbers is many times faster than adding up rows.
    for channel in range(signal.shape[1]):
        np.add.at(signal[:, channel], index, windows[:, :, channel][inside].astype(signal.dtype, copy=False))


def as_list(recordings) -> list:
    """A list of recordings; a single one makes a list of one."""
    if isinstance(recordings, Recording):
        return [recordings]
    require_list(recordings=recordings)
    return list(recordings)


def check_alike(recordings, match_channels: str = "name") -> list:
    """Recordings that can be learned from together, with the channels and units of the first one; refuses others.

    ``match_channels`` : see :meth:`Recording.like`
    """
    if not recordings:
        raise OptionError("at least one recording is needed, got an empty list")
    for recording in recordings:
        if not isinstance(recording, Recording):
            raise OptionError(f"recordings must be a list of Recording, got a {type(recording).__name__} in it")
    first, what = recordings[0], "what is learned from the first recording"
    rate = first.sampling_rate_hz
    hint = f"all recordings must have one rate (use recording.resample({rate:g}))"
    for recording in recordings:
        require_rate_of(recording, rate, what, hint)
        if recording.duration_s < 1.0:
            found = f"a recording of {recording.duration_s:.3f} s"
            raise DataError(f"{found} is too short to learn from; at least 1 s is needed")
    return [recording.like(first.channels, first.units, what, match_channels) for recording in recordings]


def require_rate_of(recording: Recording, rate: float, what: str, hint: str) -> None:
    """Refuse a recording with another rate than ``what`` was made for; ``hint``: what to do.

    >>> require_rate_of(Recording(np.zeros((9, 2)), 100), 200.0, "the detector", "choose another one")
    Traceback (most recent call last):
    ...
    evlib.signals.errors.UnitError: the detector is for 200 Hz, the recording has 100 Hz; choose another one
    """
    here = recording.sampling_rate_hz
    if here != rate:
        raise UnitError(f"{what} is for {rate:g} Hz, the recording has {here:g} Hz; {hint}")
