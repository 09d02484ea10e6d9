"""Seconds, samples and frames: the only place in evlib where a time is rounded.

Outside, times are seconds from the first sample of a recording. Inside, a time is an integer
``sample`` plus a ``fraction`` in [-0.5, 0.5): no precision is lost however long the recording is.
A frame is a block of ``resolution`` samples; frame f covers samples [f * resolution, (f + 1) * resolution).
"""

from fractions import Fraction

import numpy as np

from .errors import DataError, UnitError

# An onset in a file carries six decimals; a file without a sampling rate is read on this clock.
MICROSECOND_CLOCK_HZ = 1e6
# Rounding slack in samples: 0.005 s * 2000 Hz must be 10 samples, not 9.999999.
SLACK_SAMPLES = 1e-6
# Up to here a float tells every sample from the next.
MOST_SAMPLES = 2**53
# A time stamp may lie this far from a uniform clock; one lost sample moves some stamp by at least half a sample.
CLOCK_TOLERANCE_SAMPLES = 0.25


def require_countable(samples) -> None:
    """Refuse numbers of samples that neither an integer nor a float counts one by one.

    >>> require_countable([1e19])
    Traceback (most recent call last):
    ...
    evlib.signals.errors.UnitError: 1e+19 samples are more than can be counted (samples or a date taken for seconds?)
    """
    samples = np.asarray(samples)
    if samples.size and max(samples.max(), -samples.min()) > MOST_SAMPLES:
        most = float(np.abs(samples.astype(float)).max())
        raise UnitError(f"{most:g} samples are more than can be counted (samples or a date taken for seconds?)")


def split_time(time_samples) -> tuple[np.ndarray, np.ndarray]:
    """Split times in samples into (integer sample, fraction in [-0.5, 0.5)).

    >>> split_time([10.25, 10.5])
    (array([10, 11]), array([ 0.25, -0.5 ]))
    """
    time_samples = np.asarray(time_samples, dtype=np.float64)
    # Rounding before adding: floor(t + 0.5) would take the number just below 0.5 for 1.
    sample = np.rint(time_samples)
    sample += time_samples - sample == 0.5
    require_countable(sample)
    return sample.astype(np.int64), time_samples - sample


def distance_to_nearest(time, others) -> np.ndarray:
    """(n,) distance of each time from the nearest of the ``others`` (m,), which are sorted; infinite without one.

    >>> distance_to_nearest(np.array([1.0, 9.0]), np.array([2.0, 5.0]))
    array([1., 4.])
    """
    return np.abs(time - nearest(time, others))


def distance_to_own(time, type, others, their_type) -> np.ndarray:
    """(n,) distance of each time from the nearest of the ``others`` (m,) of its own type, in any order; infinite
    without one.

    >>> distance_to_own(np.array([1.0, 9.0, 4.0]), np.array([0, 0, 1]), np.array([5.0, 2.0]), np.array([0, 0]))
    array([ 1.,  4., inf])
    """
    distance = np.full(len(time), np.inf)
    for kind in np.unique(their_type):
        own = type == kind
        distance[own] = distance_to_nearest(time[own], np.sort(others[their_type == kind]))
    return distance


def nearest(time, others) -> np.ndarray:
    """(n,) the nearest of the ``others`` (m,), which are sorted, to each time; infinity where there is none.

    >>> nearest(np.array([1.0, 9.0]), np.array([2.0, 5.0]))
    array([2., 5.])
    """
    if len(others) == 0:
        return np.full(len(time), np.inf)
    after = np.searchsorted(others, time)
    before, after = others[np.maximum(after - 1, 0)], others[np.minimum(after, len(others) - 1)]
    return np.where(np.abs(time - before) < np.abs(time - after), before, after)


def rows_within(times, middle, reach) -> tuple[np.ndarray, np.ndarray]:
    """Which of the sorted ``times`` (n,) lie at most ``reach`` from each ``middle`` (N,).

    Returns
    -------
    rows : (N, K) rows of ``times``, K the most that any has
    valid : (N, K) booleans; where False, the row only fills the table

    >>> rows_within(np.array([1.0, 2.0, 9.0]), np.array([1.5, 8.0]), 1)
    (array([[0, 1],
           [2, 2]]), array([[ True,  True],
           [ True, False]]))
    """
    first, last = np.searchsorted(times, middle - reach), np.searchsorted(times, middle + reach, side="right")
    rows = first[:, None] + np.arange((last - first).max(initial=0))
    return np.minimum(rows, max(len(times) - 1, 0)), rows < last[:, None]


def seconds_to_samples(time_s, sampling_rate_hz: float) -> tuple[np.ndarray, np.ndarray]:
    """Split times in seconds into (integer sample, fraction) at a rate."""
    return split_time(np.asarray(time_s, dtype=np.float64) * sampling_rate_hz)


def rate_ratio(old_hz: float, new_hz: float) -> tuple | None:
    """``new_hz / old_hz`` as a fraction (numerator, denominator) of integers, or None where there is no short one.

    >>> rate_ratio(2000, 204.8)
    (64, 625)
    """
    ratio = Fraction(new_hz).limit_denominator(10**6) / Fraction(old_hz).limit_denominator(10**6)
    exact = abs(float(ratio) * old_hz / new_hz - 1) < 1e-15
    return (ratio.numerator, ratio.denominator) if exact else None


def change_clock(sample, fraction, old_hz: float, new_hz: float) -> tuple[np.ndarray, np.ndarray]:
    """The same times on another clock, as (integer sample, fraction).

    The integer part is scaled in integers where the ratio of the rates is a fraction, so that a time loses nothing
    however late it is.

    >>> change_clock([10_000_000_000], [0.0], 2000, 204.8)
    (array([1024000000]), array([0.]))
    """
    sample, fraction = np.asarray(sample, dtype=np.int64), np.asarray(fraction, dtype=np.float64)
    factor = new_hz / old_hz
    up, down = rate_ratio(old_hz, new_hz) or (0, 0)
    if not up or np.abs(sample).max(initial=0) > 2**62 // up:
        return split_time(sample * factor + fraction * factor)
    whole, rest = np.divmod(sample * up, down)
    carry, fraction = split_time(rest / down + fraction * factor)
    return whole + carry, fraction


def uniform_rate(time_s, given: float | None = None) -> float:
    """The rate in Hz of uniform time stamps (n,) in seconds; a clock with gaps or a drift is refused.

    >>> uniform_rate([0.0, 0.0028, 0.0056, 0.0083, 0.0111])
    360.0
    """
    time_s = np.asarray(time_s, dtype=np.float64)
    if len(time_s) < 2 or not np.isfinite(time_s).all():
        raise DataError("the time column must hold two or more finite times in seconds")
    n, step_s = len(time_s) - 1, np.diff(time_s)
    if step_s.min() <= 0:
        k = int(np.argmin(step_s))
        raise DataError(f"the time column must rise; after {time_s[k]:g} s (row {k + 1}) comes {time_s[k + 1]:g} s")
    rate = float(n / (time_s[-1] - time_s[0]))

    def deviation_samples(rate):
        return np.abs((time_s - time_s[0]) * rate - np.arange(n + 1)).max()

    noise = deviation_samples(rate)
    if noise > CLOCK_TOLERANCE_SAMPLES:
        k = int(np.argmax(step_s))
        away = f"stamps lie up to {noise:.3g} samples from a clock of {rate:.6g} Hz"
        gap = f"the largest gap is {step_s[k]:.6g} s after {time_s[k]:g} s (row {k + 1})"
        usual = f"the usual step {np.median(step_s):.6g} s"
        raise DataError(f"the time column is not uniform: {away}; {gap}, {usual}")
    if given is not None:
        if deviation_samples(given) > CLOCK_TOLERANCE_SAMPLES:
            passed = f"sampling_rate_hz={given:g} was passed (times in seconds?)"
            raise UnitError(f"the time column says {rate:.6g} Hz, but {passed}")
        return given
    # Stamps with few decimals blur the rate: take the roundest one that they cannot tell apart.
    for decimals in range(7):
        round_rate = round(rate, decimals)
        if round_rate > 0 and abs(round_rate / rate - 1) * n <= 2 * noise + 1e-9 * n:
            return round_rate
    return rate


def tolerance_to_samples(tolerance_s: float, sampling_rate_hz: float) -> int:
    """The largest whole number of samples that is not longer than ``tolerance_s`` (inclusive rule).

    >>> tolerance_to_samples(0.005, 2000)
    10
    """
    samples = np.floor(tolerance_s * sampling_rate_hz + SLACK_SAMPLES)
    require_countable(samples)
    return int(samples)


def duration_to_samples(duration_s: float, sampling_rate_hz: float) -> int:
    """The least whole number of samples that lasts at least ``duration_s``.

    >>> duration_to_samples(2.0, 2000)
    4000
    """
    samples = np.ceil(duration_s * sampling_rate_hz - SLACK_SAMPLES)
    require_countable(samples)
    return int(samples)


def n_frames(n_samples: int, resolution: int) -> int:
    """Number of frames of ``resolution`` samples that cover ``n_samples`` (the last may be partly empty).

    >>> n_frames(2001, 10)
    201
    """
    return (n_samples + resolution - 1) // resolution
