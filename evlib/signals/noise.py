"""What is wrong with the noise of a recording by itself: mains hum, drift, noise that changes."""

import numpy as np
import scipy.signal
from scipy.ndimage import median_filter

from .gaps import Normal, read_segments

# Segments that are looked at, and their length in seconds: hum stands out of frequencies 1 Hz apart.
SEGMENTS, SEGMENT_S = 100, 2.0
# Frequencies of mains in Hz; hum has so many times the power of frequencies within so many Hz around it, in one segment
# of five or more.
MAINS_HZ, HUM_TIMES, AROUND_HZ, OFTEN = (50.0, 60.0), 20.0, 8.0, 0.8
# A middle that moves over the recording by so many times what is within one segment is drift.
DRIFT_TIMES = 20.0
# The least change from sample to sample in a piece of so many seconds is noise without events; it changes where five
# seconds (the middle of some segments) have more or less than so many times the usual.
PIECE_S, NEIGHBOURS, CHANGE = 0.05, 3, 2.0
# Larger values cannot be squared; whoever looks at them sees that they are no measurements.
MOST = 1e100


def noise_problems(recording, normal: Normal) -> list[tuple[str, str]]:
    """(where, what) of everything that is found, one for each channel and kind; ``normal`` : of the recording."""
    rate = recording.sampling_rate_hz
    signal, known, chosen = read_segments([recording], SEGMENT_S, SEGMENTS, normal)
    time_s = np.array([start + signal.shape[1] / 2 for _, start in chosen]) / rate
    found = []
    for k, channel in enumerate(recording.channels):
        own = signal[known[:, k], :, k], time_s[known[:, k]]
        if len(own[1]) > 4 and np.abs(own[0]).max() < MOST:
            texts = *_hum(*own, rate), *_drift(*own), *_change(*own, rate)
            found += [(f"channel {channel}", text) for text in texts]
    return found


def _hum(signal, time_s, rate):
    frequency, power = scipy.signal.periodogram(signal, rate, "hann", detrend="linear")
    power = np.quantile(power, OFTEN, axis=0)
    for mains in MAINS_HZ:
        apart = np.abs(frequency - mains)
        around = power[(apart > 2.0) & (apart <= AROUND_HZ)]
        if mains < rate / 2 and len(around) > 8 and power[apart <= 1.0].max() > HUM_TIMES * np.median(around):
            size = np.sqrt(power[apart <= 1.0].sum() * frequency[1])
            yield f"hum of mains at {mains:g} Hz, standard deviation {size:.3g}; it is filtered out"


def _drift(signal, time_s):
    slope, middle = np.polyfit(time_s, np.median(signal, axis=1), 1)
    moved = slope * np.ptp(time_s)
    within = np.median(scipy.signal.detrend(signal).std(axis=1))
    apart = np.std(np.median(signal, axis=1) - slope * time_s)
    if abs(moved) > DRIFT_TIMES * max(within, apart):
        yield f"drift of {moved:.3g} over the recording; it is filtered out"


def _change(signal, time_s, rate):
    size = max(4, round(PIECE_S * rate))
    steps = np.abs(np.diff(signal))
    pieces = np.median(steps[:, : steps.shape[1] // size * size].reshape(len(signal), -1, size), axis=2)
    level = median_filter(np.quantile(pieces, 0.1, axis=1), 2 * NEIGHBOURS + 1, mode="nearest")
    usual = np.median(level)
    for unusual, extreme in ((level > CHANGE * usual, level.max()), (level * CHANGE < usual, level.min())):
        if unusual.any() and usual > 0:
            where = f"in {unusual.mean():.0%} of the recording, first about {time_s[unusual.argmax()]:.1f} s"
            yield f"noise is {extreme / usual:.2g} times the usual {where}"
