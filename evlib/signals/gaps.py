"""Gaps: samples of a channel that hold no measurement, whatever the file says.

Missing values (NaN, infinite), stretches that somebody filled (with zeros, with the last value, with a straight line;
a lost chunk reads as zeros), and spikes of a few samples, farther from their neighbours than the signal ever moves.
Where a channel jumps to another level and stays there, the jump is taken away. What a sensor does by itself is learned
from the recording: the exact silence of some sensors is no gap.
"""

import warnings
from dataclasses import dataclass

import numpy as np

# What is normal is learned from so many segments of so many seconds.
SEGMENTS, SEGMENT_S = 64, 1.0
# A segment with more than this share of gaps in a channel says nothing of it.
GAP_SHARE = 0.1
# Samples that are read at a time.
BLOCK_SAMPLES = 2**16
# A sensor with noise does not stay on one straight line for this many seconds, nor for so many samples.
STILL_S, STILL_SAMPLES = 0.005, 9
# A channel that does so in this share of the segments in which it moves, and in so many, does so by nature.
NATURAL_SHARE, NATURAL_SEGMENTS = 0.25, 6
# The step from one sample to the next that one in a thousand exceeds, of all or in nine of ten segments, times this, is
# more than the signal ever does: bursts are in few segments, spikes are few samples. So is what one in a hundred
# exceeds, times this: spikes may come again and again.
STEP_QUANTILE, STEP_SEGMENTS, STEP_TIMES = 0.999, 0.9, 6.0
OFTEN_QUANTILE, OFTEN_TIMES = 0.99, 30.0
# A line bends by no more than this share of that step from sample to sample: rounding of what was interpolated.
STRAIGHT = 1e-5
# A spike ends after this many seconds, at least one sample and at most so many; more jumps within this many samples are
# a loud event.
SPIKE_S, SPIKE_SAMPLES, SPIKE_APART = 0.002, 4, 20
# The level before and after a jump is the median of so many seconds, at least as many samples.
LEVEL_S, LEVEL_SAMPLES = 0.01, 8
# So many samples (a power of two) that come again exactly, in all channels, were stored twice. Half of them change: of
# a sensor at rest, a few steps come again by chance.
REPEAT_SAMPLES = 32
# Labelled events, of which so many are looked at, are no spikes: their surroundings (seconds on either side) may have
# steps of twice what 90 % of them have.
LABELS, AROUND_S, LABEL_QUANTILE, LABEL_TIMES = 200, 0.025, 0.9, 2.0


@dataclass(frozen=True, eq=False)
class Normal:
    """What a sensor does by itself.

    ``step`` (C,): the largest plausible difference of two samples; ``still`` (C,): samples on a straight line from
    which on they are no measurement.
    """

    step: np.ndarray
    still: np.ndarray

    @staticmethod
    def unknown(n_channels: int) -> "Normal":
        """Nothing but missing values is a gap."""
        return Normal(np.full(n_channels, np.inf), np.full(n_channels, np.inf))

    def with_events(self, recordings, tables) -> "Normal":
        """With steps as large as those of labelled events, a table for each recording."""
        at = [(k, sample) for k, table in enumerate(tables) for sample in table.sample]
        steps = []
        for k, sample in (at[i] for i in np.unique(np.linspace(0, len(at) - 1, min(LABELS, len(at))).astype(int))):
            recording = recordings[k]
            reach = max(int(AROUND_S * recording.sampling_rate_hz), SPIKE_SAMPLES)
            low, high = max(sample - reach, 0), min(sample + reach, recording.n_samples)
            with np.errstate(invalid="ignore", over="ignore"):  # infinite values
                steps.append(np.abs(np.diff(recording.read(low, high, np.float64), axis=0)).max(axis=0, initial=0.0))
        if not steps:
            return self
        steps = LABEL_TIMES * np.quantile(np.nan_to_num(steps), LABEL_QUANTILE, axis=0)
        return Normal(np.maximum(self.step, steps), self.still)


def learn_normal(segments: list[np.ndarray], rate: float, eps: float = 0.0) -> Normal:
    """What is normal in some segments (n, C) of recordings, a few of which may hold gaps.

    >>> noise = np.random.default_rng(0).normal(size=(10, 200, 1))
    >>> learn_normal(list(noise), 1000.0).still
    array([9.])
    """
    least = max(STILL_SAMPLES, int(STILL_S * rate))
    with np.errstate(invalid="ignore", over="ignore"):  # infinite values
        steps = np.abs(np.diff(np.stack(segments), axis=1))
    steps[steps == 0] = np.nan
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a channel that never moves
        of_all = np.nanquantile(steps, STEP_QUANTILE, axis=(0, 1))
        of_most = np.nanquantile(np.nanquantile(steps, STEP_QUANTILE, axis=1), STEP_SEGMENTS, axis=0)
        often = np.nanquantile(steps, OFTEN_QUANTILE, axis=(0, 1))
    step = np.fmin(STEP_TIMES * np.fmin(of_all, of_most), OFTEN_TIMES * often)
    step = np.nan_to_num(step, nan=np.inf)
    still = np.stack([on_a_line(segment, least, eps, step) for segment in segments])
    moving = ~still.all(axis=1)
    n_still = (moving & still.any(axis=1)).sum(axis=0)
    natural = (n_still > NATURAL_SHARE * moving.sum(axis=0)) & (n_still >= NATURAL_SEGMENTS)
    return Normal(step, np.where(natural, np.inf, float(least)))


def on_a_line(signal: np.ndarray, least, eps: float = 0.0, step=0.0) -> np.ndarray:
    """(n, C) which samples of a signal (n, C) lie in a run of at least ``least`` (C,) on one straight line.

    ``eps`` : relative rounding error of the values; ``step`` (C,) : the largest plausible step, of which a small share
    is rounding too; NaN interrupts a run

    >>> on_a_line(np.array([[5.0], [1.0], [1.0], [1.0], [7.0]]), 3)[:, 0]
    array([False,  True,  True,  True, False])
    """
    flags = np.zeros(signal.shape, dtype=bool)
    least = np.broadcast_to(np.asarray(least, dtype=float), signal.shape[1:])
    with np.errstate(invalid="ignore", over="ignore"):
        rounded = np.maximum(4 * eps * np.abs(signal[1:-1]), STRAIGHT * np.where(np.isfinite(step), step, 0.0))
        straight = np.abs(signal[:-2] - 2 * signal[1:-1] + signal[2:]) <= rounded
    for channel in np.flatnonzero(np.isfinite(least) & straight.any(axis=0)):
        start, stop = runs(straight[:, channel])
        long = stop - start >= least[channel] - 2
        flags[:, channel] = covered(start[long], stop[long] + 2, len(signal))
    return flags


def runs(flags: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where flags (n,) are set: first samples and the samples behind the last ones, (k,) each.

    >>> runs(np.array([True, False, True, True]))
    (array([0, 2]), array([1, 4]))
    """
    edges = np.flatnonzero(np.diff(np.r_[False, flags, False]))
    return edges[::2], edges[1::2]


def repeats(signal: np.ndarray) -> np.ndarray:
    """(n,) which samples of a signal (n, C), float64, come after the same ones in all channels: a buffer stored twice.

    >>> signal = np.random.default_rng(0).normal(size=(500, 2))
    >>> signal[200:300] = signal[100:200]
    >>> [part.tolist() for part in runs(repeats(signal))]
    [[200], [300]]
    """
    n, n_channels = signal.shape
    if n < 2 * REPEAT_SAMPLES:
        return np.zeros(n, dtype=bool)
    numbers = np.random.default_rng(0).integers(2**63, size=n_channels + 1, dtype=np.uint64) | np.uint64(1)
    bits = np.ascontiguousarray(signal + 0.0).view(np.uint64)
    # Small whole numbers differ in their highest bits only, which a product loses.
    code = ((bits ^ (bits >> np.uint64(32))) * numbers[:-1]).sum(axis=1)
    code ^= code >> np.uint64(29)
    moves = np.cumsum(np.r_[False, code[1:] != code[:-1]])
    length, factor = 1, numbers[-1:]
    while length < REPEAT_SAMPLES:  # the code of a piece is made of those of its halves, modulo 2^64
        code = code[:-length] * factor + code[length:]
        length, factor = 2 * length, factor * factor
    order = np.argsort(code, kind="stable")
    later = order[1:][code[order[1:]] == code[order[:-1]]]
    later = later[moves[later + length - 1] - moves[later] >= length // 2]
    return covered(later, later + length, n)


def covered(start, stop, n: int) -> np.ndarray:
    """(n,) which samples lie in one of the spans [start, stop), which may overlap.

    >>> covered([1, 2], [3, 4], 5)
    array([False,  True,  True,  True, False])
    """
    start, stop = (np.bincount(np.clip(edge, 0, n), minlength=n + 1) for edge in (start, stop))
    return np.cumsum(start - stop)[:n] > 0


def long_runs(flags: np.ndarray, most: float) -> np.ndarray:
    """(n,) which flags (n,) lie in a run of more than ``most``.

    >>> long_runs(np.array([True, False, True, True]), 1)
    array([False, False,  True,  True])
    """
    start, stop = runs(flags)
    long = stop - start > most
    return covered(start[long], stop[long], len(flags))


def inside(time: np.ndarray, start: np.ndarray, stop: np.ndarray) -> np.ndarray:
    """(n,) which times lie in one of the spans [start, stop), which may overlap.

    >>> inside(np.array([0.5, 2.0, 3.0]), np.array([2, 0]), np.array([3, 1]))
    array([ True,  True, False])
    """
    order = np.argsort(start, kind="stable")
    furthest = np.r_[-np.inf, np.maximum.accumulate(np.asarray(stop)[order])]
    return time < furthest[np.searchsorted(np.asarray(start)[order], time, side="right")]


def silent(whitened: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """First samples of the gaps in whitened signal (n, C), and the samples behind their ends, (k,) each: there all
    channels are exactly 0.
    """
    return runs((whitened == 0).all(axis=1))


def spikes(signal: np.ndarray, step: np.ndarray, most: int = SPIKE_SAMPLES) -> np.ndarray:
    """(n, C) which samples leave their neighbours by more than ``step`` (C,), and are back after at most ``most``.

    >>> spikes(np.array([0.0, 0, 0, 9, 0, 0, 0])[:, None], np.array([5.0]))[:, 0]
    array([False, False, False,  True, False, False, False])
    """
    flags = np.zeros(signal.shape, dtype=bool)
    for channel, start, stop in _jumps(signal, step):
        short = (stop > start) & (stop - start <= most)
        flags[:, channel] = covered(start[short] + 1, stop[short] + 1, len(signal))
    return flags


def bursts(signal: np.ndarray, step: np.ndarray) -> np.ndarray:
    """(n, C) where a group of jumps by more than ``step`` (C,) begins that is no spike: a burst, or another level."""
    flags = np.zeros(signal.shape, dtype=bool)
    for channel, start, stop in _jumps(signal, step):
        flags[start[(stop == start) | (stop - start > SPIKE_SAMPLES)] + 1, channel] = True
    return flags


def _jumps(signal, step):
    """Of each channel that jumps by more than ``step`` (C,): its number, and the samples before the first and the last
    jump of each group of jumps, (k,) each."""
    with np.errstate(invalid="ignore", over="ignore"):
        jumps = np.abs(np.diff(signal, axis=0)) > step
    for channel in np.flatnonzero(jumps.any(axis=0)):
        at = np.flatnonzero(jumps[:, channel])
        first = np.r_[True, np.diff(at) > SPIKE_APART]
        yield channel, at[first], at[np.r_[first[1:], True]]


def without_shifts(signal: np.ndarray, step: np.ndarray, rate: float) -> np.ndarray:
    """The signal (n, C) where a channel that jumps by more than ``step`` (C,) and stays at its new level goes on at the
    old one.

    >>> signal = np.r_[np.zeros(20), np.full(20, 9.0)][:, None]
    >>> float(np.ptp(without_shifts(signal, np.array([5.0]), 100.0)))
    0.0
    """
    out, reach = signal, np.arange(max(LEVEL_SAMPLES, min(int(LEVEL_S * rate), len(signal))))
    for channel, start, stop in _jumps(signal, step):
        value = signal[:, channel]
        before = np.median(value[np.maximum(start[:, None] - reach, 0)], axis=1)
        after = np.median(value[np.minimum(stop[:, None] + 1 + reach, len(value) - 1)], axis=1)
        is_shift = (np.abs(after - before) > step[channel]) & (stop - start < len(reach))  # a longer one is a burst
        shift = np.where(is_shift, after - before, 0.0)
        if is_shift.any():
            out = signal.copy() if out is signal else out
            for first, last in zip(start[is_shift], stop[is_shift], strict=True):
                out[first : last + 2, channel] = np.linspace(value[first], value[last + 1], last + 2 - first)
            at = np.zeros(len(value))
            at[stop + 1] = shift
            out[:, channel] -= np.cumsum(at)
    return out


def find_gaps(signal: np.ndarray, normal: Normal, rate: float, eps: float = 0.0) -> np.ndarray:
    """(n, C) which samples of a signal (n, C) hold no measurement."""
    most = int(np.clip(SPIKE_S * rate, 1, SPIKE_SAMPLES))
    still = on_a_line(signal, normal.still, eps, normal.step)
    return ~np.isfinite(signal) | still | spikes(signal, normal.step, most)


def bridge(signal: np.ndarray, gaps: np.ndarray, reach: int) -> np.ndarray:
    """The signal (n, C) with straight lines over its ``gaps`` (n, C); over a gap of more than twice ``reach`` samples
    each half keeps the value at its end. A channel without a sample is 0.

    >>> signal, gaps = np.array([1.0, 9, 9, 4])[:, None], np.array([False, True, True, False])[:, None]
    >>> bridge(signal, gaps, 3)[:, 0]
    array([1., 2., 3., 4.])
    """
    out = np.array(signal, dtype=np.float64)
    for channel in np.flatnonzero(gaps.any(axis=0)):
        start, stop = runs(gaps[:, channel])
        known = np.flatnonzero(~gaps[:, channel])
        if not len(known):
            out[:, channel] = 0.0
            continue
        rows = np.flatnonzero(gaps[:, channel])
        filled = np.interp(rows, known, out[known, channel])
        long = np.flatnonzero(stop - start > 2 * reach)
        for k in long:
            middle = (start[k] + stop[k]) // 2
            inside = (rows >= start[k]) & (rows < stop[k])
            left, right = out[max(start[k] - 1, known[0]), channel], out[min(stop[k], known[-1]), channel]
            filled[inside] = np.where(rows[inside] < middle, left, right)
        out[rows, channel] = filled
    return out


def rounding(recording) -> float:
    """Relative rounding error of the values of a recording; 0 for integers."""
    return float(np.finfo(recording.signal.dtype).eps) if recording.signal.dtype.kind == "f" else 0.0


def segments(recordings: list, length_s: float, most: int) -> tuple[list, int]:
    """Half-overlapping segments spread over all recordings of one rate, at most so many: number of the recording and
    first sample of each, and their length, a power of two."""
    rate = recordings[0].sampling_rate_hz
    length = int(min(max(16, 2 ** round(np.log2(length_s * rate))), min(r.n_samples for r in recordings)))
    starts = [(k, s) for k, r in enumerate(recordings) for s in range(0, r.n_samples - length + 1, max(1, length // 2))]
    chosen = np.unique(np.linspace(0, len(starts) - 1, min(most, len(starts))).astype(int))
    return [starts[i] for i in chosen], length


def normal_of(recordings: list) -> Normal:
    """What is normal in recordings of one rate."""
    chosen, length = segments(recordings, SEGMENT_S, SEGMENTS)
    read = [recordings[k].read(start, start + length, np.float64) for k, start in chosen]
    return learn_normal(read, recordings[0].sampling_rate_hz, max(map(rounding, recordings)))


def seen_around(normal: Normal, reach: int) -> int:
    """How many samples to either side of a piece say what its gaps are, and bridge them."""
    still = normal.still[np.isfinite(normal.still)].max(initial=0)
    return 2 * reach + int(still) + SPIKE_APART + SPIKE_SAMPLES


def _read_around(recording, start, stop, normal, reach):
    """Samples [start - context, stop + context), which of them are gaps, and the rows of [start, stop) in them: what is
    a gap does not depend on the piece that is asked for."""
    context = seen_around(normal, reach)
    low, high = max(start - context, 0), min(stop + context, recording.n_samples)
    signal = recording.read(low, high, np.float64)
    gaps = find_gaps(signal, normal, recording.sampling_rate_hz, rounding(recording))
    return signal, gaps, slice(start - low, stop - low)


def read_bridged(recording, start: int, stop: int, normal: Normal, reach: int) -> tuple[np.ndarray, np.ndarray]:
    """Samples [start, stop) of a recording with its gaps bridged, (n, C) float64, and which are gaps, (n, C)."""
    signal, gaps, rows = _read_around(recording, start, stop, normal, reach)
    if gaps.any():
        signal = bridge(signal, gaps, reach)
    signal = without_shifts(signal, normal.step, recording.sampling_rate_hz)
    return signal[rows], gaps[rows]


def read_segments(recordings: list, length_s: float, most: int, normal: Normal):
    """Segments spread over recordings (see `segments`), bridged: signals (n, length, C), which of them say something of
    their channel (n, C), and number of the recording and first sample of each."""
    chosen, length = segments(recordings, length_s, most)
    read = [read_bridged(recordings[k], start, start + length, normal, length) for k, start in chosen]
    signal, gaps = map(np.stack, zip(*read, strict=True))
    # Judged by the values: rounding gives even a constant some spectrum.
    known = (gaps.mean(axis=1) <= GAP_SHARE) & (np.ptp(signal, axis=1) > 0)
    return signal, known, chosen


def gap_blocks(recording, normal: Normal | None = None):
    """Yield (first sample, signal (n, C) float64, which samples are gaps (n, C)) of one block of a recording after the
    other."""
    normal = normal_of([recording]) if normal is None else normal
    for start in range(0, recording.n_samples, BLOCK_SAMPLES):
        stop = min(start + BLOCK_SAMPLES, recording.n_samples)
        signal, gaps, rows = _read_around(recording, start, stop, normal, 0)
        yield start, signal[rows], gaps[rows]


def gap_spans(recording, least: float) -> tuple[np.ndarray, np.ndarray]:
    """First samples of the gaps of at least so many samples in all channels, and the samples behind them, (k,) each."""
    blocks = [(start + np.array(runs(gaps.all(axis=1)))) for start, _, gaps in gap_blocks(recording)]
    start, stop = np.concatenate(blocks, axis=1)
    # A gap may go on over the edge of a block.
    apart = start[1:] > stop[:-1]
    start, stop = start[np.r_[True, apart][: len(start)]], stop[np.r_[apart, True][: len(stop)]]
    long = stop - start >= least
    return start[long], stop[long]
