"""Noise of a recording that is not that of the training recordings, in words."""

import warnings

import numpy as np

from ..signals.text import printable

# A standard deviation that differs by more than this factor is worth a word: another gain, another place of the sensor.
DIFFERENT = 2.0
# Share of a recording with unusual noise that is worth a word.
SHARE = 0.01


def usual_noise(moments: list) -> list:
    """The power of each channel's noise in the quietest and in the noisiest of the training recordings, [[C], [C]].

    ``moments`` : `Whitener.noise_levels` of each recording
    """
    levels = [_middle(levels) for _, levels in moments]
    return [np.min(levels, axis=0).tolist(), np.max(levels, axis=0).tolist()]


def noise_problems(moments: tuple, channels, limits: np.ndarray, usual=None) -> list[str]:
    """What is unusual in the noise of a recording, in sentences.

    ``moments`` : `Whitener.noise_levels` of the recording; ``limits`` (C,) : the most that is usual; ``usual`` : from
    `usual_noise`; default: the recording is one of them
    """
    time_s, levels = moments
    missing, loud = np.isnan(levels), levels > limits
    found = []
    for unusual, text in (
        (
            missing,
            "{share:.0%} of the recording hold no measurement (missing, constant, wild), first about {time:.1f} s",
        ),
        (
            loud,
            "noise is {much:.2g} times the usual in {share:.0%} of the recording, first about {time:.1f} s (a gain, a "
            "loose sensor, interference?); it counts less there",
        ),
    ):
        share = unusual.mean(axis=0)
        if (share > SHARE).any():
            k = share.argmax()
            much = np.sqrt(np.median(levels[unusual[:, k], k]))
            text = text.format(share=share[k], time=time_s[unusual[:, k].argmax()], much=much)
            found.append(f"{_named(channels, share > SHARE)}: {text}")
    if usual is not None:
        least, most = np.array(usual)
        level = np.where(loud.mean(axis=0) > 0.5, least, _middle(levels))  # said already
        ratio = np.sqrt(np.where(level > most, level / most, np.minimum(level / least, 1.0)))
        different = (ratio > DIFFERENT) | (ratio < 1 / DIFFERENT)
        if different.any():
            times = f"noise is {ratio[different][0]:.2g} times that of the training recordings"
            found.append(f"{_named(channels, different)}: {times} (another gain, unit or place of the sensor?)")
    return found


def different_noise(usual, channels) -> list[str]:
    """Which channels have very different noise in the training recordings; ``usual`` : from `usual_noise`."""
    ratio = np.sqrt(np.divide(*usual[::-1]))
    if (ratio <= DIFFERENT).all():
        return []
    times = f"noise differs by a factor of up to {ratio.max():.2g} between the recordings"
    return [f"{_named(channels, ratio > DIFFERENT)}: {times} (another gain, unit or place of the sensor?)"]


def _named(channels, which):
    """Some channels in words."""
    names = [channel for channel, chosen in zip(channels, which, strict=True) if chosen]
    return printable(f"channel{'s' * (len(names) > 1)} {', '.join(names[:6])}{', ...' * (len(names) > 6)}")


def _middle(levels):
    """(C,) median over moments; 1 where a channel has no signal at all."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a channel that is a gap
        return np.nan_to_num(np.maximum(np.nanmedian(levels, axis=0), 1e-12), nan=1.0)
