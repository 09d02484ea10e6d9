"""Noise that changes: a gain that is turned, a channel that gets noisy, mains hum that comes and goes.

Whitened noise has power 1 at every frequency. Where the level of a channel around a moment is far above what the
training recordings have, the channel is attenuated; where it is far below, the channel is amplified; where single
frequencies stand out, they are attenuated alike. Events of a sensor with another gain then look as they did, and
evidence in more noise counts less. Ordinary signal passes bit for bit.
"""

import numpy as np
import scipy.fft
from scipy.ndimage import maximum_filter1d, median_filter, uniform_filter1d

# Seconds in a frame; frames overlap by half. Levels are medians over so many frames to either side.
FRAME_S, MEDIAN_FRAMES = 0.25, 8
# The least level and power that are not ordinary, and how many times those of training they are; ordinary is what this
# share of the labelled events have.
LEAST_LEVEL, LEVEL_TIMES = 2.5, 1.5
LEAST_POWER, POWER_TIMES = 8.0, 2.0
# A strange level and a loud power are brought to these, not to 1: where noise rises and events do not, they keep most
# of their size.
LEFT_LEVEL, LEFT_POWER = 1.5, 3.0
# A level is quiet below the least that one in a hundred frames of training has, divided by this, and below this share
# of that of noise. It is brought to 1: where noise is less and events are as loud, they grow, and none is lost.
# What is fainter by so many times is no signal (a dead channel); so large a share of gaps makes a level low by itself.
QUIET_TIMES, QUIET_LEVEL, FAINT, GAP_SHARE = 1.5, 0.4, 1000.0, 0.02
SHARE = 0.95
# No level is below this.
NO_LEVEL = 1e-12
# An event rings for so many seconds, which are compared with the quietest tenth of so many seconds before and after
# them; so many events are looked at.
RING_S, AROUND_S, QUIET, EVENTS = 2.0, 4.0, 0.1, 300
# Power of a loud frequency that leaks into this many others, from here on.
LEAKED, LEAK_BINS = 2.0, 16


def frame_samples(rate: float) -> int:
    """Samples in a frame, even.

    >>> frame_samples(2000.0)
    500
    """
    return 2 * max(8, round(FRAME_S * rate / 2))


def context_samples(rate: float) -> int:
    """How many samples to either side the level around a sample depends on."""
    return (MEDIAN_FRAMES + 2) * frame_samples(rate)


def _window(length):
    """Half a wave of unit energy: applied twice, the squares of overlapping frames add up to a constant."""
    window = np.sin(np.pi * (np.arange(length) + 0.5) / length)
    return (window / np.sqrt((window**2).sum())).astype(np.float32)


def _spectra(whitened, length):
    """Fourier transform (n_frames, F, C) of each frame of signal (n, C), its power, which is 1 in the median of noise,
    and the level of each frame (n_frames, C): the median over frequencies, median over the frames around it. The first
    frame begins half a frame before the signal, which is mirrored there, so that two frames hold each sample."""
    hop = length // 2
    mode = "reflect" if len(whitened) > 2 * hop else "constant"
    whitened = np.pad(whitened, ((hop, 2 * hop - len(whitened) % hop), (0, 0)), mode=mode)
    frames = np.lib.stride_tricks.sliding_window_view(whitened, length, axis=0)[:: length // 2]
    spectra = scipy.fft.rfft(frames * _window(length), axis=2).transpose(0, 2, 1)
    power = (spectra.real**2 + spectra.imag**2) / np.float32(np.log(2))
    level = median_filter(np.median(power[:, 1:-1], axis=1), (2 * MEDIAN_FRAMES + 1, 1), mode="nearest")
    return spectra, power, level


def level_around(whitened: np.ndarray, rate: float) -> np.ndarray:
    """Level of each channel (C,) in the middle of a piece of whitened signal (n, C) of `context_samples` or more."""
    level = _spectra(whitened, frame_samples(rate))[2]
    return level[len(level) // 2]


def learn_limits(signals: list[np.ndarray], labels: list, rate: float) -> np.ndarray:
    """Greatest ordinary level, greatest ordinary power at a frequency, and least ordinary level, (3, C), in whitened
    signals (n, C).

    How far an event rises above the quiet moments around it is ordinary, whatever the noise of the recording is;
    ``labels`` are Events of each signal.
    """
    length, rises, quiet, least = frame_samples(rate), [], [], []
    hop = length // 2
    for signal, table in zip(signals, labels, strict=True):
        if len(signal) < length or not len(table):
            continue
        _, power, level = _spectra(signal, length)
        least.append(np.quantile(level, 0.01, axis=0))
        power = median_filter(power, (2 * MEDIAN_FRAMES + 1, 1, 1), mode="nearest")
        measures = np.stack([level, power.max(axis=1)], axis=1)  # (n_frames, 2, C)
        quiet.append(np.median(measures, axis=0))
        for sample in table.sample[:: max(1, len(table) // EVENTS)]:
            edges = np.array([-AROUND_S, -FRAME_S, RING_S, RING_S + AROUND_S])
            edges = np.clip((sample + edges * rate) // hop, 0, len(measures)).astype(int)
            before, event, after = (
                measures[low:high] for low, high in zip(edges[:-1], edges[1:] + [0, 1, 0], strict=True)
            )
            # A change of noise has a loud side, an event has none.
            quiet_sides = [np.quantile(side, QUIET, axis=0) for side in (before, after) if len(side)]
            around = np.max(quiet_sides or [measures.min(axis=0)], axis=0)
            rises.append(event.max(axis=0, initial=0.0) / np.maximum(around, 1e-6))
    if not rises:
        return unlimited(signals[0].shape[1])
    # Of two recordings the quieter one decides.
    usual = np.quantile(rises, SHARE, axis=0) * np.quantile(quiet, 0.5, axis=0, method="lower")
    greatest = np.maximum(usual * [[LEVEL_TIMES], [POWER_TIMES]], [[LEAST_LEVEL], [LEAST_POWER]])
    return np.vstack([greatest, np.clip(np.min(least, axis=0) / QUIET_TIMES, NO_LEVEL, QUIET_LEVEL)])


def unlimited(n_channels: int) -> np.ndarray:
    """Everything is ordinary."""
    return np.repeat([[np.inf], [np.inf], [NO_LEVEL]], n_channels, axis=1)


def equalize(whitened: np.ndarray, limits: np.ndarray, rate: float) -> np.ndarray:
    """Whitened signal (n, C) with extraordinary levels and powers brought back.

    The signal begins at a multiple of half a frame of the recording.
    """
    length = frame_samples(rate)
    hop = length // 2
    spectra, power, level = _spectra(whitened, length)
    strange, quiet = level > limits[0], level < limits[2]
    if quiet.any():
        quiet &= (level > limits[2] / FAINT) & ~_in_gaps(whitened, length)
    level = np.where(strange, level / np.minimum(limits[0], LEFT_LEVEL), np.where(quiet, level, 1.0))
    strange, level = strange | quiet, level.astype(np.float32)
    loud = _is_loud(power / level[:, None], limits[1])
    if not (strange.any() or loud.any()):
        return whitened
    out = np.zeros((hop * (len(power) + 1), whitened.shape[1]))
    median = np.ones_like(power)
    for channel in np.flatnonzero(loud.any(axis=(0, 1))):
        around = median_filter(
            power[:, :, channel] / level[:, None, channel], (2 * MEDIAN_FRAMES + 1, 1), mode="nearest"
        )
        leaking = (around > LEAKED) & maximum_filter1d(loud[:, :, channel], 2 * LEAK_BINS + 1, axis=1)
        median[:, :, channel] = np.where(loud[:, :, channel] | leaking, np.maximum(around / LEFT_POWER, 1.0), 1.0)
    touched = np.flatnonzero(strange.any(axis=0) | loud.any(axis=(0, 1)))
    for channel in touched:
        gain = 1 / np.sqrt(level[:, None, channel] * median[:, :, channel])
        frames = scipy.fft.irfft(spectra[:, :, channel] * gain, length, axis=1) * _window(length) * (length / 2)
        out[:-hop, channel] += frames[:, :hop].ravel()
        out[hop:, channel] += frames[:, hop:].ravel()
    even = whitened.copy()
    even[:, touched] = out[hop : hop + len(whitened), touched]
    even[whitened == 0] = 0  # a gap stays one
    return even


def _in_gaps(whitened, length):
    """(n_frames, C) where gaps, in which a signal is exactly 0, are a large share of the frames of a level."""
    hop = length // 2
    known = np.pad((whitened != 0).astype(np.float32), ((hop, 2 * hop - len(whitened) % hop), (0, 0)), mode="edge")
    known = uniform_filter1d(known, (2 * MEDIAN_FRAMES + 1) * hop, axis=0)
    return known[hop::hop][: len(known) // hop - 1] < 1 - GAP_SHARE


def _is_loud(power, limit):
    """(n_frames, F, C) where the median over frames is above the limit; beyond the ends nothing is."""
    above, width = power > limit, 2 * MEDIAN_FRAMES + 1
    loud = np.zeros_like(above)
    often = above.sum(axis=0) > MEDIAN_FRAMES
    count = np.pad(above[:, often], ((MEDIAN_FRAMES + 1, MEDIAN_FRAMES), (0, 0))).cumsum(axis=0)
    loud[:, often] = count[width:] - count[:-width] > MEDIAN_FRAMES
    loud[:, [0, -1]] = loud[:, [1, -2]]  # these two have one degree of freedom only
    return loud
