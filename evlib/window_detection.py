"""Continuous detection with a window classifier: windows that overlap by half, each answering for its middle.

Presence x softmax-over-time is exact where a type occurs at most once, so a window is short. An event whose onset lies
in the middle half of a window is that window's to report; the halves tile the recording, and what two neighbours
report twice is left to the refractory rule. Windows start at whole multiples of the hop from the start of the recording.
"""

import numpy as np
import torch

from .candidates import Candidates
from .event_output import evaluating

BATCH = 256
# Probability below which a window's answer is not worth a look.
LEAST_PROBABILITY = 0.001


def window_candidates(model, read, n_samples, window, block=1 << 17, advance=None) -> Candidates:
    """The most likely occurrence of each type in each window, as candidates with log odds.

    Parameters
    ----------
    model : an event model on whitened signal
    read : (start, stop) -> whitened signal (stop - start, C)
    n_samples : of the recording
    window : samples in a window, a multiple of 4
    block : samples in memory at a time; changes nothing in the result
    advance : called with the number of samples that are done
    """
    hop = window // 2
    # The first window begins before the recording, so that its middle covers the first samples.
    starts = np.arange(-window // 4, n_samples - window // 4, hop)
    per_block = max(1, block // hop)
    parts = []
    for first in range(0, len(starts), per_block):
        mine = starts[first : first + per_block]
        low, high = int(mine[0]), int(mine[-1]) + window
        signal = read(max(low, 0), min(high, n_samples))
        signal = np.pad(signal, ((max(-low, 0), max(high - n_samples, 0)), (0, 0)))
        windows = np.lib.stride_tricks.sliding_window_view(signal, window, axis=0)[::hop].transpose(0, 2, 1)
        for k in range(0, len(windows), BATCH):
            parts.append(_answers(model, windows[k : k + BATCH].copy(), mine[k : k + BATCH], window))
        if advance is not None:
            advance(min(int(mine[-1]) + window // 4 + hop, n_samples) - (int(mine[0]) + window // 4))
    found = Candidates.concatenate(parts)
    return found[(found.time >= 0) & (found.time <= n_samples - 1)]


def _answers(model, windows, starts, window):
    """Candidates of some windows (N, window, C) that begin at ``starts``: onsets in the middle half only."""
    with evaluating(model):
        output = model(torch.from_numpy(windows))
        time = model.times(output).numpy().astype(np.float64)
    logit = output.event_logits.numpy().astype(np.float64)
    keep = (time >= window / 4) & (time < 3 * window / 4) & (logit > np.log(LEAST_PROBABILITY))
    row, type = np.nonzero(keep)
    value = logit[row, type]
    zeros = np.zeros(len(row))
    return Candidates(time[row, type] + starts[row], type, value, value, value, zeros + 1.0, zeros)
