"""What is wrong with a recording or an event table, in clear words.

``validate`` looks at everything and reports it all at once, instead of stopping at the first problem. The signal is
read block by block, in memory that does not grow with its length. An *error* makes training or scoring wrong; a
*warning* asks for a look.
"""

from dataclasses import dataclass

import numpy as np

from .clock import MICROSECOND_CLOCK_HZ, SLACK_SAMPLES
from .errors import DataError, OptionError, require_rate
from .events import Events
from .recording import Recording

# A channel clips where it stays at its extreme value for at least this many samples in a row...
CLIP_RUN_SAMPLES = 5
# ... and for at least this many samples in all such runs.
CLIP_TOTAL_SAMPLES = 10
# Standard deviations of channels that differ by more than this factor are likely a slip of the unit.
SCALE_RATIO = 1e3
# Event files carry six decimals: two times may have moved towards each other by this much.
FILE_BLUR_S = 1.1e-6


@dataclass(frozen=True)
class Problem:
    """One finding: ``severity`` ("error" or "warning"), ``where`` it is, and the ``message`` that explains it."""

    severity: str
    where: str
    message: str

    def __str__(self):
        return f"{self.severity}: {self.where}: {self.message}"


@dataclass(frozen=True)
class ValidationReport:
    """The findings of :func:`validate`; ``ok`` when none of them is an error."""

    problems: tuple = ()

    @property
    def errors(self):
        """The problems that make training or scoring wrong."""
        return [problem for problem in self.problems if problem.severity == "error"]

    @property
    def warnings(self):
        """The problems that ask for a look."""
        return [problem for problem in self.problems if problem.severity == "warning"]

    @property
    def ok(self):
        """True without errors; there may be warnings."""
        return not self.errors

    def to_frame(self):
        """A pandas table with a row for each problem."""
        import pandas as pd

        rows = [(problem.severity, problem.where, problem.message) for problem in self.problems]
        return pd.DataFrame(rows, columns=["severity", "where", "message"])

    def raise_if_errors(self):
        """Raise one DataError with the messages of all errors, or return the report."""
        if self.errors:
            raise DataError("; ".join(f"{problem.where}: {problem.message}" for problem in self.errors))
        return self

    def __str__(self):
        return "\n".join(map(str, self.problems)) or "no problems found"

    def _repr_html_(self):
        import pandas as pd

        if not self.problems:
            return "<p>no problems found</p>"
        with pd.option_context("display.max_colwidth", None):
            return self.to_frame().to_html(index=False)


def validate(
    recording=None, events=None, *, sampling_rate_hz=None, names=None, refractory_s=None, n_channels=None
) -> ValidationReport:
    """Look for everything that is wrong with a recording, an event table, or the two together.

    Parameters
    ----------
    recording : a Recording, or None
    events : its Events, or None
    sampling_rate_hz, n_channels : what the recording should have (a detector's, say)
    names : the event names that are known
    refractory_s : the least time between two events of a type, seconds: one number, or a dict by event name

    Returns
    -------
    ValidationReport
        Errors: another rate or number of channels, NaN or infinity, a constant channel, unknown names, events or
        labelled spans outside of the signal, events that occur twice. Warnings: clipping, channels on very
        different scales, a table from another clock, intervals shorter than the refractory period.

    Examples
    --------
    >>> signal = np.random.default_rng(0).normal(size=(4000, 2))
    >>> signal[100:103, 1] = np.nan
    >>> print(validate(Recording(signal, 2000), Events.from_seconds([1.0, 2.5], ["a", "a"], 2000)))
    error: channel ch2: 3 values are NaN, the first at 0.050000 s (sample 100)
    error: events: 1 of 2 events lie outside of the signal (0 to 2 s); the first is 'a' at 2.500000 s
    """
    if recording is None and events is None:
        raise OptionError("validate needs a recording, events, or both")
    if recording is not None and not isinstance(recording, Recording):
        raise OptionError(
            f"recording must be a Recording, got {type(recording).__name__}; write Recording(signal, sampling_rate_hz)"
        )
    if events is not None and not isinstance(events, Events):
        raise OptionError(f"events must be Events, got {type(events).__name__}; use read_events or Events.from_seconds")
    problems = []
    if recording is not None:
        expected = None if sampling_rate_hz is None else require_rate(sampling_rate_hz)
        problems += _check_format(recording, expected, n_channels)
        problems += _check_signal(recording)
    if events is not None:
        problems += _check_names(events, names)
        problems += _check_clock(recording, events)
        if recording is not None:
            events = events.at_rate(recording.sampling_rate_hz)
        problems += _check_bounds(recording, events)
        problems += _check_intervals(events, _periods(refractory_s, events.names, names))
    return ValidationReport(tuple(problems))


def _check_format(recording, sampling_rate_hz, n_channels):
    if sampling_rate_hz is not None and recording.sampling_rate_hz != sampling_rate_hz:
        yield Problem(
            "error",
            "recording",
            f"wrong rate: {sampling_rate_hz:g} Hz was expected, {recording.sampling_rate_hz:g} Hz came "
            f"(if that is meant, call recording.resample({sampling_rate_hz:g}))",
        )
    if n_channels is not None and recording.n_channels != n_channels:
        yield Problem("error", "recording", f"{n_channels} channels were expected, {recording.n_channels} came")


class _ChannelSums:
    """Per-channel facts of a signal, gathered block by block; each array is (n_channels,)."""

    def __init__(self, n_channels):
        self.n_nan, self.n_infinite, self.first_bad = (np.zeros(n_channels, dtype=np.int64) for _ in range(3))
        self.n, self.total, self.squares, self.centre = (np.zeros(n_channels) for _ in range(4))
        self.low, self.high = np.full(n_channels, np.inf), np.full(n_channels, -np.inf)

    def add(self, start, block):
        finite = np.isfinite(block)
        if not finite.all():
            fresh = (self.n_nan + self.n_infinite == 0) & ~finite.all(axis=0)
            self.first_bad[fresh] = start + np.argmin(finite[:, fresh], axis=0)
            nan = np.isnan(block).sum(axis=0)
            self.n_nan += nan
            self.n_infinite += (~finite).sum(axis=0) - nan
        self.low = np.minimum(self.low, block.min(axis=0, where=finite, initial=np.inf))
        self.high = np.maximum(self.high, block.max(axis=0, where=finite, initial=-np.inf))
        # Sums around a value of the channel itself: a large offset does not swallow the spread.
        unset = (self.n == 0) & finite.any(axis=0)
        self.centre[unset] = block[np.argmax(finite, axis=0), np.arange(block.shape[1])][unset]
        centred = np.where(finite, block - self.centre, 0.0)
        self.n += finite.sum(axis=0)
        self.total += centred.sum(axis=0)
        self.squares += np.einsum("tc,tc->c", centred, centred)

    @property
    def std(self):
        n = np.maximum(self.n, 1)
        return np.sqrt(np.maximum(self.squares / n - (self.total / n) ** 2, 0.0))


def _check_signal(recording):
    sums = _ChannelSums(recording.n_channels)
    for start, block in recording.blocks():
        sums.add(start, block)
    for k, channel in enumerate(recording.channels):
        for count, what in ((sums.n_nan[k], "NaN"), (sums.n_infinite[k], "infinite (for float32)")):
            if count:
                first = sums.first_bad[k]
                yield Problem(
                    "error",
                    f"channel {channel}",
                    f"{count} value{'s are' if count > 1 else ' is'} {what}, "
                    f"the first{' bad one' if sums.n_nan[k] and sums.n_infinite[k] else ''} "
                    f"at {first / recording.sampling_rate_hz:.6f} s (sample {first})",
                )
    constant = (sums.low == sums.high) & (recording.n_samples > 1)
    for k in np.flatnonzero(constant):
        message = f"constant: every value is {sums.low[k]:g} (not connected?); leave the channel out"
        yield Problem("error", f"channel {recording.channels[k]}", message)
    yield from _check_scales(recording, sums.std, constant)
    yield from _check_clipping(recording, sums, constant)


def _check_scales(recording, std, constant):
    std = np.where(constant | (std == 0), np.nan, std)
    if np.isfinite(std).sum() < 2:
        return
    least, most = np.nanargmin(std), np.nanargmax(std)
    if std[most] > SCALE_RATIO * std[least]:
        yield Problem(
            "warning",
            "recording",
            f"channels are on very different scales: the standard deviation of {recording.channels[most]} is "
            f"{std[most]:.3g}, that of {recording.channels[least]} {std[least]:.3g} (different units?)",
        )


def _check_clipping(recording, sums, constant):
    """Second pass: long runs of samples that stay at the largest or the smallest value of their channel."""
    rails = {"largest": sums.high, "smallest": sums.low}
    # (rail, channel): length of the run that is open, of the longest run, and of all long runs together
    still, longest, together = (np.zeros((2, recording.n_channels), dtype=np.int64) for _ in range(3))
    for _, block in recording.blocks():
        for r, value in enumerate(rails.values()):
            for k in range(recording.n_channels):
                closed, still[r, k] = _run_lengths(block[:, k] == value[k], still[r, k])
                longest[r, k] = max(longest[r, k], closed.max(initial=0))
                together[r, k] += closed[closed >= CLIP_RUN_SAMPLES].sum()
    longest = np.maximum(longest, still)
    together += np.where(still >= CLIP_RUN_SAMPLES, still, 0)
    for r, (rail, value) in enumerate(rails.items()):
        for k in np.flatnonzero((together[r] >= CLIP_TOTAL_SAMPLES) & ~constant):
            yield Problem(
                "warning",
                f"channel {recording.channels[k]}",
                f"looks clipped: it stays at its {rail} value {value[k]:g} for up to {longest[r, k]} samples in a row, "
                f"{together[r, k]} samples in all",
            )


def _run_lengths(flags, still):
    """Lengths of the runs of True that end within ``flags`` (n,), and of the one that is open at its end.

    ``still`` is the length of the run that was open before.
    """
    if not flags.any():
        return np.array([still], dtype=np.int64), 0
    edges = np.flatnonzero(np.diff(flags, prepend=False, append=False))
    lengths = edges[1::2] - edges[::2]
    if flags[0]:
        lengths[0] += still
    else:
        lengths = np.r_[still, lengths]
    return (lengths[:-1], lengths[-1]) if flags[-1] else (lengths, 0)


def _check_names(events, names):
    if names is None:
        return
    known = {names} if isinstance(names, str) else set(names)
    for k in np.flatnonzero(events.counts()):
        if events.names[k] not in known:
            message = f"unknown event name {events.names[k]!r} ({events.counts()[k]} events)"
            yield Problem(
                "error", "events", f"{message}; known: {', '.join(sorted(known)) or 'none'} (a spelling slip?)"
            )


def _check_clock(recording, events):
    if recording is None or events.sampling_rate_hz in (recording.sampling_rate_hz, MICROSECOND_CLOCK_HZ):
        return
    yield Problem(
        "warning",
        "events",
        f"the table was made at {events.sampling_rate_hz:g} Hz, the recording is at {recording.sampling_rate_hz:g} Hz "
        "(another version of the recording?)",
    )


def _check_bounds(recording, events):
    rate = events.sampling_rate_hz
    n_samples = np.inf if recording is None else recording.n_samples
    outside = np.flatnonzero((events.sample < 0) | (events.sample >= n_samples))
    if len(outside):
        extent = f"0 to {n_samples / rate:g} s" if recording is not None else "before 0 s"
        message = (
            f"{len(outside)} of {len(events)} events lie outside of the signal ({extent}); "
            f"the first is {events.names[events.type[outside[0]]]!r} at {events.onset_s[outside[0]]:.6f} s"
        )
        # Samples taken for seconds: far too late, and all of them would fit if they were samples.
        if recording is not None and events.sample[0] >= 0 and 10 * n_samples / rate < events.onset_s[-1] < n_samples:
            message += f"; all fit if the onsets are samples, not seconds: divide them by {rate:g}"
        yield Problem("error", "events", message)
    elif recording is not None and len(events) > 1 and 0 < events.sample[-1] < n_samples / rate < n_samples:
        message = f"all events lie in the first {events.onset_s[-1]:.3g} s of {n_samples / rate:g} s: were seconds taken for samples?"
        yield Problem("warning", "events", message)
    if events.labelled_spans is not None:
        spans = events.labelled_spans
        outside = np.flatnonzero((spans[:, 0] < 0) | (spans[:, 1] > n_samples))
        if len(outside):
            start, stop = spans[outside[0]] / rate
            message = f"{len(outside)} of {len(spans)} lie outside of the signal; the first goes from {start:.6f} to {stop:.6f} s"
            yield Problem("error", "labelled spans", message)


def _periods(refractory_s, own_names, names):
    """(n_types,) refractory periods in seconds, 0 where there is none."""
    if isinstance(refractory_s, dict):
        unknown = set(refractory_s) - set(own_names) - set(() if names is None else names)
        if unknown:
            raise OptionError(
                f"refractory_s has periods for unknown events {sorted(unknown)}; known: {', '.join(own_names)}"
            )
        periods = [refractory_s.get(name, 0.0) for name in own_names]
    else:
        periods = [0.0 if refractory_s is None else refractory_s] * len(own_names)
    periods = np.array(periods, dtype=np.float64)
    if not (np.isfinite(periods) & (periods >= 0)).all():
        raise OptionError(f"refractory_s must be seconds of 0 or more, got {refractory_s!r}")
    return periods


def _check_intervals(events, period_s):
    """Doubles, and intervals below the refractory period, between neighbours of one type."""
    order = np.lexsort((events.fraction, events.sample, events.type))
    sample, fraction, type = events.sample[order], events.fraction[order], events.type[order]
    # The difference of integers and of fractions apart: exact however late the events are.
    gap_samples = np.diff(sample) + np.diff(fraction)
    same_type = np.diff(type) == 0
    blur = max(SLACK_SAMPLES, FILE_BLUR_S * events.sampling_rate_hz)
    double = same_type & (gap_samples <= min(blur, 0.5))
    short = same_type & ~double & (gap_samples < period_s[type[1:]] * events.sampling_rate_hz - blur)
    onset_s = (sample + fraction) / events.sampling_rate_hz
    for k in np.unique(type[1:][double]):
        rows = np.flatnonzero(double & (type[1:] == k))
        message = f"{len(rows)} events {events.names[k]!r} occur twice at the same time; the first at {onset_s[rows[0]]:.6f} s"
        yield Problem("error", "events", message)
    for k in np.unique(type[1:][short]):
        rows = np.flatnonzero(short & (type[1:] == k))
        closest = rows[np.argmin(gap_samples[rows])]
        yield Problem(
            "warning",
            "events",
            f"{len(rows)} intervals between events {events.names[k]!r} are shorter than the refractory period of "
            f"{period_s[k]:g} s; the closest pair is {gap_samples[closest] / events.sampling_rate_hz:.6f} s apart, "
            f"at {onset_s[closest]:.6f} s and {onset_s[closest + 1]:.6f} s",
        )
