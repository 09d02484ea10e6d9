"""What is wrong with a recording or an event table, in clear words.

``validate`` looks at everything and reports it all at once, instead of stopping at the first problem. The signal is
read block by block, in memory that does not grow with its length. An *error* makes training or scoring wrong; a
*warning* asks for a look.
"""

from dataclasses import dataclass

import numpy as np

from .clock import MICROSECOND_CLOCK_HZ, SLACK_SAMPLES
from .errors import (
    DataError,
    EvlibError,
    OptionError,
    require,
    require_instance,
    require_int,
    require_list,
    require_rate,
)
from .events import Events
from .gaps import bursts, gap_blocks, normal_of, repeats, runs, spikes
from .noise import noise_problems
from .recording import Recording
from .refractory import Refractory, intervals
from .text import printable

# A channel clips where it stays at its extreme value for at least this many samples in a row...
CLIP_RUN_SAMPLES = 5
# ... and for at least this many samples in all such runs.
CLIP_TOTAL_SAMPLES = 10
# Standard deviations of channels that differ by more than this factor are likely in different units.
SCALE_RATIO = 1e3
# What a channel may hold in place of measurements (`evlib.signals.gaps`).
GAPS = (
    "{n} values are missing (NaN or infinite) and left out",
    "{times} spikes of a few samples are left out (a glitch of the sensor?)",
    "it does not change, or goes along a line, for {s} in {times} stretches (filled gaps?), which are left out",
    "{times} bursts or jumps to another level, far larger than the steps of the signal",
)
# Of the channels of which the same is said, a report names so many.
MOST_NAMED = 6
# Beside a type with at least this many labels, a type with one may be a note of the program that wrote the file.
MANY_LABELS = 10
# Event files carry six decimals: two times, in seconds, may have moved towards each other by this much.
FILE_BLUR_S = 1.1e-6


@dataclass(frozen=True)
class Problem:
    """One finding: ``severity`` ("error" or "warning"), ``where`` it is, and the ``message`` that explains it."""

    severity: str
    where: str
    message: str

    def __str__(self):
        return printable(f"{self.severity}: {self.where}: {self.message}")


@dataclass(frozen=True)
class ValidationReport:
    """The findings of :func:`validate`; ``ok`` when none of them is an error."""

    problems: tuple = ()

    @property
    def errors(self) -> list:
        """The problems that make training or scoring wrong."""
        return [problem for problem in self.problems if problem.severity == "error"]

    @property
    def warnings(self) -> list:
        """The problems that ask for a look."""
        return [problem for problem in self.problems if problem.severity == "warning"]

    @property
    def ok(self) -> bool:
        """True without errors; there may be warnings."""
        return not self.errors

    def to_frame(self):
        """A pandas table with a row for each problem."""
        import pandas as pd

        return pd.DataFrame(self.problems, columns=["severity", "where", "message"])

    def raise_if_errors(self) -> "ValidationReport":
        """Raise one DataError with the messages of all errors, or return the report."""
        if self.errors:
            raise DataError("; ".join(f"{problem.where}: {problem.message}" for problem in self.errors))
        return self

    def __str__(self):
        alike: dict = {}
        for one in self.problems:
            alike.setdefault((one.severity, one.message), []).append(one.where)
        return "\n".join(str(Problem(*_together(*key, places))) for key, places in alike.items()) or "no problems found"

    def _repr_html_(self):
        import pandas as pd

        with pd.option_context("display.max_colwidth", None):
            return self.to_frame().to_html(index=False) if self.problems else "<p>no problems found</p>"


def validate(
    recording: Recording | None = None,
    events: Events | None = None,
    *,
    sampling_rate_hz: float | None = None,
    names=None,
    refractory_s=None,
    n_channels: int | None = None,
    detector=None,
) -> ValidationReport:
    """Look for everything that is wrong with a recording, an event table, or the two together.

    Parameters
    ----------
    recording : a Recording, or None
    events : its Events, or None
    sampling_rate_hz, n_channels : what the recording should have (a detector's, say)
    names : the event names that are known
    detector : a Detector that is to read the recording: do rate, channels, units and noise fit?
    refractory_s : the least time between two events of a type, seconds: one number, or a dict by event name (types
        that it leaves out have no rule)

    Returns
    -------
    ValidationReport
        Errors: another rate or number of channels, a constant channel, unknown names, events or labelled spans outside
        of the signal, events that occur twice. Warnings: gaps (missing values, filled stretches, spikes), mains hum,
        drift, noise that changes, clipping, channels on very different scales, a table from another clock, intervals
        shorter than the refractory period.

    Examples
    --------
    >>> signal = np.random.default_rng(0).normal(size=(4000, 2))
    >>> signal[100:103, 1] = np.nan
    >>> print(validate(Recording(signal, 2000), Events.from_seconds([1.0, 2.5], ["a", "a"], 2000)))
    warning: channel ch2: 3 values are missing (NaN or infinite) and left out, the first at 0.050000 s (sample 100)
    error: events: 1 of 2 events lie outside of the signal (0 to 2 s); the first is 'a' at 2.500000 s
    """
    if recording is None and events is None:
        raise OptionError("validate needs a recording, events, or both")
    found: list = []  # (severity, where, message)
    if recording is not None:
        require_instance(Recording, recording=recording)
        found += _check_format(recording, sampling_rate_hz, n_channels)
        normal = normal_of([recording])
        found += _check_signal(recording, normal)
        found += [("warning", where, message) for where, message in noise_problems(recording, normal)]
        found += _check_detector(recording, detector)
    if events is not None:
        require_instance(Events, events=events)
        names = (names,) if isinstance(names, str) else names
        require_list(names=() if names is None else names)
        found += _check_names(events, names)
        found += [("warning", "events", text) for text in label_doubts(events, recording)]
        found += _check_clock(recording, events)
        found += _check_spans(recording, events)
        events = events if recording is None else events.at_rate(recording.sampling_rate_hz)
        found += _check_bounds(recording, events)
        if isinstance(refractory_s, dict):
            absent = set(names or ()) - set(events.names)
            refractory_s = {"default": None} | {k: v for k, v in refractory_s.items() if k not in absent}
        found += _check_intervals(events, Refractory(refractory_s, events.names))
    return ValidationReport(tuple(Problem(*problem) for problem in found))


def _together(severity, message, places):
    """One line of what is said of several channels."""
    more = f" and {len(places) - MOST_NAMED} more" if len(places) > MOST_NAMED else ""
    first, *others = places[:MOST_NAMED]
    where = ", ".join([first, *(place.removeprefix("channel ") for place in others)]) + more
    return severity, where.replace("channel ", "channels ", 1) if others else where, message


def _check_format(recording, sampling_rate_hz, n_channels):
    rate = recording.sampling_rate_hz
    if sampling_rate_hz is not None and rate != require_rate(sampling_rate_hz):
        hint = f"(if that is meant, call recording.resample({sampling_rate_hz:g}))"
        yield "error", "recording", f"wrong rate: {sampling_rate_hz:g} Hz was expected, {rate:g} Hz came {hint}"
    if n_channels is not None:
        require_int(1, n_channels=n_channels)
        if recording.n_channels != n_channels:
            yield "error", "recording", f"{n_channels} channels were expected, {recording.n_channels} came"


def _check_detector(recording, detector):
    if detector is not None:
        require(hasattr(detector, "noise_problems"), OptionError, f"detector must be a Detector, got {detector!r}")
        try:
            for problems in (detector.noise_problems, detector.clock_problems, detector.drift_problems):
                yield from (("warning", "detector", text) for text in problems(recording))
        except EvlibError as error:
            yield "error", "detector", str(error)


def _check_signal(recording, normal):
    n_channels, rate = recording.n_channels, recording.sampling_rate_hz
    # Of each kind of gap in each channel: samples, groups of samples, the first one.
    counts, groups, first = (np.zeros((len(GAPS), n_channels), dtype=np.int64) for _ in range(3))
    n, total, squares = np.zeros((3, n_channels))
    twice = []
    low = high = centre = np.full(n_channels, np.nan)
    for start, block, gaps in gap_blocks(recording, normal):
        missing, spiky = ~np.isfinite(block), spikes(block, normal.step)
        kinds = (
            missing,
            spiky & ~missing,
            gaps & ~missing & ~spiky,
            bursts(np.where(missing, np.nan, block), normal.step),
        )
        for k, flags in enumerate(kinds):
            fresh = flags.any(axis=0) & (counts[k] == 0)
            first[k, fresh] = start + np.argmax(flags[:, fresh], axis=0)
            counts[k] += flags.sum(axis=0)
            groups[k] += (np.diff(flags, axis=0, prepend=False) & flags).sum(axis=0)
        twice += [start + part for part in np.transpose(runs(repeats(block)))]
        missing |= spiky
        block[missing] = np.nan
        low, high = np.fmin(low, np.fmin.reduce(block)), np.fmax(high, np.fmax.reduce(block))
        # Sums around a value of the channel itself: a large offset does not swallow the spread.
        centre = np.where(np.isnan(centre), low, centre)
        centred = np.where(missing, 0.0, block - centre)
        n, total, squares = n + (~missing).sum(axis=0), total + centred.sum(axis=0), squares + (centred**2).sum(axis=0)
    std = np.sqrt(np.maximum(squares / np.maximum(n, 1) - (total / np.maximum(n, 1)) ** 2, 0.0))
    constant = (low == high) & (recording.n_samples > 1)
    for k in range(n_channels):
        where = f"channel {recording.channels[k]}"
        if n[k] == 0:
            yield "error", where, "it has no value at all; leave the channel out (recording.select)"
        elif constant[k]:
            yield "error", where, f"constant: every value is {low[k]:g} (not connected?); leave the channel out"
        else:
            for what, count, times, sample in zip(GAPS, counts[:, k], groups[:, k], first[:, k], strict=True):
                if count:
                    found = what.format(n=count, times=times, s=f"{count / rate:.6g} s")
                    yield "warning", where, f"{found}, the first at {sample / rate:.6f} s (sample {sample})"
    if twice:
        s, at = f"{np.diff(twice).sum() / rate:.6g} s", twice[0][0]
        what = f"{s} of signal in {len(twice)} stretches is exactly as before, in all channels (a buffer stored twice?)"
        yield "warning", "recording", f"{what}, the first at {at / rate:.6f} s (sample {at})"
    std = np.where(constant | (std == 0), np.nan, std)
    if np.isfinite(std).sum() > 1 and np.nanmax(std) > SCALE_RATIO * np.nanmin(std):
        most, least = (f"{recording.channels[k]} is {std[k]:.3g}" for k in (np.nanargmax(std), np.nanargmin(std)))
        stds = f"the standard deviation of {most}, that of {least}"
        yield "warning", "recording", f"channels are on very different scales: {stds} (different units?)"
    if not constant.all():
        low, high = np.where(constant, np.nan, (low, high))
        yield from _check_clipping(recording, {"largest": high, "smallest": low})


def _check_clipping(recording, rails):
    """Second pass: long runs of samples at the largest or the smallest value (n_channels,) of their channel."""
    from scipy.ndimage import binary_opening

    clipped = np.zeros((len(rails), recording.n_channels), dtype=np.int64)
    for _, block in recording.blocks():
        at_rail = block.T == np.stack(list(rails.values()))[:, :, None]
        for k in zip(*np.nonzero(at_rail.any(axis=2)), strict=True):
            clipped[k] += binary_opening(at_rail[k], np.ones(CLIP_RUN_SAMPLES)).sum()  # samples in runs of that many
    for r, k in zip(*np.nonzero(clipped >= CLIP_TOTAL_SAMPLES), strict=True):
        rail, value = list(rails.items())[r]
        runs = f"in runs of {CLIP_RUN_SAMPLES} samples or more, {clipped[r, k]} samples in all"
        message = f"looks clipped: it stays at its {rail} value {value[k]:g} {runs}"
        yield "warning", f"channel {recording.channels[k]}", message


def problem_spans(recording: Recording) -> dict:
    """Where a recording holds no measurement, for a figure: "gap" (missing, filled, dead, spikes) and "clipped" (runs
    at the extreme value of the channel), each (k, 3): first and last second, number of the channel.

    >>> signal = np.clip(np.random.default_rng(0).normal(size=(4000, 1)), -3, 3)
    >>> signal[1000:1100], signal[2000:2020] = np.nan, 3
    >>> spans = problem_spans(Recording(signal, 1000))
    >>> spans["gap"].tolist(), spans["clipped"].tolist()
    ([[1.0, 1.1, 0.0]], [[2.0, 2.02, 0.0]])
    """
    low = high = np.full(recording.n_channels, np.nan)
    for _, block in recording.blocks():
        block[~np.isfinite(block)] = np.nan
        low, high = np.fmin(low, np.fmin.reduce(block)), np.fmax(high, np.fmax.reduce(block))
    found: dict = {"gap": [], "clipped": []}
    for start, block, gaps in gap_blocks(recording):
        block = block.astype(np.float32)
        at_rail = ((block == low) | (block == high)) & (low < high)
        for kind, flags in (("gap", gaps & ~at_rail), ("clipped", at_rail)):
            for channel in range(recording.n_channels):
                first, stop = runs(flags[:, channel])
                long = (stop - first >= CLIP_RUN_SAMPLES) | (kind == "gap")
                found[kind] += [(start + a, start + b, channel) for a, b in zip(first[long], stop[long], strict=True)]
    rate = np.array([recording.sampling_rate_hz, recording.sampling_rate_hz, 1.0])
    return {kind: np.array(spans, dtype=float).reshape(-1, 3) / rate for kind, spans in found.items()}


def _check_names(events, names):
    for name, count in zip(events.names, events.counts(), strict=True):
        if names is not None and count and name not in names:
            known = ", ".join(sorted(names)) or "none"
            message = f"unknown event name {name!r} ({count} events); known: {known} (a spelling mistake?)"
            yield "error", "events", message


def label_doubts(events, recording=None):
    """What may be wrong with labels (texts): a type that is a note, signal that nobody looked at."""
    counts = events.counts()
    if counts.max(initial=0) >= MANY_LABELS and (counts == 1).any():
        notes = ", ".join(repr(events.names[k]) for k in np.flatnonzero(counts == 1))
        yield f"one label of {notes} (a note of the recording program?); events.select(names) keeps the other types"
    endless = np.flatnonzero(np.nan_to_num(events.duration_s) > (np.inf if recording is None else recording.duration_s))
    if len(endless):
        first = f"{events.type_names[endless[0]]!r} at {events.onset_s[endless[0]]:.6g} s"
        yield (
            f"{len(endless)} labels last longer than the whole recording, the first is {first}, with "
            f"{events.duration_s[endless[0]]:.6g} s (durations in milliseconds or samples?)"
        )
    if recording is not None and events.labelled_spans is None and len(events) >= MANY_LABELS:
        edges_s = np.r_[0.0, events.onset_s, recording.duration_s]
        gaps_s, k = np.diff(edges_s), np.argmax(np.diff(edges_s))
        usual_s = (recording.duration_s - gaps_s[k]) / len(events)
        # A fifth of the recording, and so long as one in e^5 tables of random times has it.
        if gaps_s[k] > max(recording.duration_s / 5, usual_s * (np.log(len(events)) + 5)):
            stretch = (
                f"no label from {edges_s[k]:.6g} to {edges_s[k + 1]:.6g} s, where one every {usual_s:.3g} s is usual"
            )
            yield f"{stretch}; this counts as free of events. Nobody looked there? Rows of type labelled_span say where"


def _check_clock(recording, events):
    own = events.sampling_rate_hz
    if recording is not None and own not in (recording.sampling_rate_hz, MICROSECOND_CLOCK_HZ):
        rates = f"the table was made at {own:g} Hz, the recording is at {recording.sampling_rate_hz:g} Hz"
        yield "warning", "events", f"{rates} (another version of the recording?)"


def _check_bounds(recording, events):
    rate, onset_s = events.sampling_rate_hz, events.onset_s
    n_samples = np.inf if recording is None else recording.n_samples
    duration_s = n_samples / rate
    outside = np.flatnonzero((events.sample < 0) | (events.time_samples >= n_samples))
    if len(outside):
        extent = "before 0 s" if recording is None else f"0 to {duration_s:g} s"
        first = f"{events.type_names[outside[0]]!r} at {onset_s[outside[0]]:.6f} s"
        message = f"{len(outside)} of {len(events)} events lie outside of the signal ({extent}); the first is {first}"
        # Samples taken for seconds: far too late, and all of them would fit if they were samples.
        if events.sample[0] >= 0 and 10 * duration_s < onset_s[-1] < n_samples:
            message += f"; all fit if the onsets are samples, not seconds: divide them by {rate:g}"
        yield "error", "events", message
    elif recording is not None and len(events) > 1 and 0 < events.sample[-1] < duration_s < n_samples:
        message = (
            f"all events lie in the first {onset_s[-1]:.3g} s of {duration_s:g} s: were seconds taken for samples?"
        )
        yield "warning", "events", message


def _check_spans(recording, events):
    """Labelled spans may end one sample behind the recording, where another clock had rounded them."""
    spans_s = np.zeros((0, 2)) if events.labelled_spans is None else events.complete_spans_s
    most_s = np.inf if recording is None else (recording.n_samples + 1 + SLACK_SAMPLES) / recording.sampling_rate_hz
    outside = np.flatnonzero((spans_s[:, 0] < 0) | (spans_s[:, 1] > most_s))
    if len(outside):
        first = "the first goes from {:.6f} to {:.6f} s".format(*spans_s[outside[0]])
        yield "error", "labelled spans", f"{len(outside)} of {len(spans_s)} lie outside of the signal; {first}"


def _check_intervals(events, refractory):
    """Doubles, and intervals below the refractory period, between neighbours of one type."""
    rate, onset_s = events.sampling_rate_hz, events.onset_s
    blur = max(SLACK_SAMPLES, FILE_BLUR_S * rate)
    pairs, gap = intervals(events)
    doubles = pairs[gap <= min(blur, 0.5)]
    pairs, gap_s = refractory.violations(events, blur)
    short = gap_s * rate > min(blur, 0.5)
    pairs, gap_s = pairs[short], gap_s[short]
    for k, name in enumerate(events.names):
        own = doubles[events.type[doubles[:, 0]] == k]
        if len(own):
            first = f"the first at {onset_s[own[0, 0]]:.6f} s"
            yield "error", "events", f"{len(own)} events {name!r} occur twice at the same time; {first}"
    for k, name in enumerate(events.names):
        own = np.flatnonzero(events.type[pairs[:, 0]] == k)
        if len(own):
            closest = own[np.argmin(gap_s[own])]
            at = "{:.6f} s and {:.6f} s".format(*onset_s[pairs[closest]])
            short = f"shorter than the refractory period of {refractory.period_s[k]:g} s"
            message = f"{len(own)} intervals between events {name!r} are {short}"
            yield "warning", "events", f"{message}; the closest pair is {gap_s[closest]:.6f} s apart, at {at}"
