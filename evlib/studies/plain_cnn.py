"""A plain convolutional network that says of each frame which kind of event it lies in: what anybody would try first.

It is what studies compare evlib's own methods with: log energies, dilated convolutions, cross-entropy, and runs of
frames of one class as events. It knows no onsets, no refractory rule, no thresholds.
"""

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from ..networks.seeds import seeded
from ..signals.errors import DataError, require, require_int, require_number
from ..signals.events import Events
from ..signals.recording import Recording

WIDTH, LAYERS, DROPOUT = 48, 4, 0.2
CROP_FRAMES, BATCH, LEARNING_RATE, WEIGHT_DECAY = 256, 16, 3e-3, 1e-2
# Frames of unknown class, as cross-entropy leaves them out.
UNKNOWN = -100
# A run counts as an event if it is at least this share of the shortest labelled event of its kind.
SHORTEST_SHARE = 0.5


def plain_cnn_events(recording: Recording, labels: Events, hop: int, n_steps: int = 600, seed: int = 0) -> Events:
    """Learn from the labelled part of a recording, and find events that last in all of it.

    Parameters
    ----------
    recording : of one channel, whose spectra of ``4 * hop`` samples are read, or of many channels, which are read as
        they are
    labels : with durations; what is in no event counts as none in ``labelled_spans`` only
    hop : samples in a frame
    n_steps : of training, on 16 crops of 256 frames each

    Returns
    -------
    Events with durations

    Raises
    ------
    DataError : no label, labels without a duration
    OptionError : no steps, frames too long for the recording

    Examples
    --------
    >>> from evlib.signals.calls import make_calls
    >>> recording, events = make_calls(2, 20.0, snr_db=10.0)
    >>> plain_cnn_events(recording, events, hop=40, n_steps=2).names
    ('call_00', 'call_01')
    """
    require(len(labels), DataError, "there is no labelled event to learn from")
    require((labels.duration_s > 0).all(), DataError, "every label needs a duration: classes of frames are learned")
    require_int(1, n_steps=n_steps, hop=hop)
    require_number(1, recording.n_samples // 8, hop=hop)
    rate, names = recording.sampling_rate_hz, labels.names
    x, step_s = _features(recording, hop), hop / rate
    model = _train(x, _classes(labels, x.shape[1], step_s), len(names), n_steps, seed)
    with torch.no_grad():
        best = model(x[None])[0].argmax(0).numpy()
    edges = np.flatnonzero(np.diff(best, prepend=-1, append=-1))
    start, length, kind = edges[:-1], np.diff(edges), best[edges[:-1]]
    lasts_s = [labels.duration_s[labels.type == k] for k in range(len(names))]
    shortest_s = np.array([values.min(initial=np.inf) for values in lasts_s] + [np.inf])
    kept = length * step_s >= SHORTEST_SHARE * shortest_s[kind]
    return Events.from_seconds(start[kept] * step_s, kind[kept], rate, names, duration_s=length[kept] * step_s)


def _features(recording, hop):
    """(bands, frames) standardised."""
    signal = torch.tensor(np.nan_to_num(recording.read().T))
    if len(signal) == 1:
        window = torch.hann_window(4 * hop)
        signal = torch.stft(signal[0], 4 * hop, hop, window=window, return_complex=True).abs().square().log1p()
    else:
        signal = signal[:, ::hop]
    return (signal - signal.mean(1, keepdim=True)) / signal.std()


def _classes(labels, n, step_s):
    """(n,) the kind of each frame, the last class for none."""
    known = labels.is_labelled((np.arange(n) * step_s * labels.sampling_rate_hz).astype(np.int64))
    classes = np.where(known, len(labels.names), UNKNOWN)
    for onset_s, lasts_s, kind in zip(labels.onset_s, labels.duration_s, labels.type, strict=True):
        classes[int(onset_s / step_s) : int((onset_s + lasts_s) / step_s) + 1] = kind
    return torch.tensor(classes)


def _train(x, classes, n_kinds, n_steps, seed):
    """The network, after steps on random crops of what is known."""
    rng, sizes, layers = np.random.default_rng(seed), [len(x)] + [WIDTH] * LAYERS, []
    known = int((classes != UNKNOWN).nonzero().max()) + 1
    length = min(CROP_FRAMES, known)
    with seeded(seed):
        for k, (before, after) in enumerate(zip(sizes[:-1], sizes[1:], strict=True)):
            layers += [nn.Conv1d(before, after, 5, padding=2 * 2**k, dilation=2**k), nn.BatchNorm1d(after), nn.GELU()]
        model = nn.Sequential(*layers, nn.Dropout(DROPOUT), nn.Conv1d(WIDTH, n_kinds + 1, 1))
        optimizer = torch.optim.AdamW(model.parameters(), LEARNING_RATE, weight_decay=WEIGHT_DECAY)
        for _ in range(n_steps):
            starts = rng.integers(0, known - length + 1, BATCH)
            batch, truth = (torch.stack([part[..., s : s + length] for s in starts]) for part in (x, classes))
            loss = F.cross_entropy(model(batch), truth)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return model.eval()
