"""Single events, cut out of a recording and laid over each other: what a template is the mean of."""

import numpy as np

from .templates import cut_snippets

# Events closer than this are read together, which is faster; but no more than so much signal at a time.
TOGETHER_S, LONGEST_S = 2.0, 60.0


def read_snippets(whitener, recording, time_samples, before, length):
    """Pieces of whitened signal around events, the onset of each moved onto a whole sample.

    Parameters
    ----------
    whitener : Whitener
    recording : Recording; only what is around the events is read
    time_samples : (N,) floats, rising
    before, length : samples ahead of the onset, and in all

    Returns
    -------
    (N, length, C) float32; 0 beyond the ends of the recording
    """
    time = np.asarray(time_samples, dtype=np.float64)
    rate, n = recording.sampling_rate_hz, recording.n_samples
    groups = [[]]
    for row, at in enumerate(time):
        group = groups[-1]
        if group and (at - time[group[-1]] > TOGETHER_S * rate or at - time[group[0]] > LONGEST_S * rate):
            groups.append([])
        groups[-1].append(row)
    out = np.zeros((len(time), length, recording.n_channels), np.float32)
    for group in groups if len(time) else []:
        # A margin, so that moving by a fraction of a sample sees the same neighbours whatever is read together.
        first = max(int(time[group[0]]) - before - 16, 0)
        stop = min(int(time[group[-1]]) + length - before + 16, n)
        if stop > first:
            out[group] = cut_snippets(whitener(recording, first, stop), time[group] - first, before, length)
    return out


def subtract_template(snippets, template):
    """What is left of snippets (N, L, C) without the template (L, C), each with the amplitude that fits it best."""
    amplitude = np.einsum("nlc,lc->n", snippets, template) / max(float((template**2).sum()), 1e-12)
    return snippets - amplitude[:, None, None] * template
