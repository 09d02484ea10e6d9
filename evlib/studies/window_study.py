"""The windows that notebooks 03 pretrain on and probe with: of a simulation, or of a recording of your own."""

from dataclasses import dataclass

import numpy as np

from ..detection.pretrain import cut_windows
from ..signals.events import read_events
from ..signals.files import read_recording
from ..signals.recording import Recording
from ..signals.synthetic import make_recording, make_templates
from ..templates.whiten import estimate_whitener
from .probing import event_windows


@dataclass(frozen=True, eq=False)
class WindowStudy:
    """Whitened windows to pretrain on and to probe with, of one recording to learn from and another one to judge.

    ``recording`` the one to learn from; ``names`` of its types; ``unlabelled`` and ``held_out`` (N, time, C) windows
    most of which lie around a peak of energy, those of the held-out stretches apart; ``train`` and ``test`` pairs of
    windows (N, time, C), each of which ends with one event, and types (N,); ``event`` the slice of the event.
    """

    recording: Recording
    names: tuple
    unlabelled: np.ndarray
    held_out: np.ndarray
    train: tuple
    test: tuple
    event: slice

    @property
    def rate(self):
        """Sampling rate, Hz."""
        return self.recording.sampling_rate_hz

    @property
    def channels(self):
        """Names of the channels."""
        return self.recording.channels


def window_study(
    recording: str = "",
    events: str = "",
    *,
    snr: float = 12.0,
    train_s: float = 300.0,
    test_s: float = 150.0,
    event_s: float = 0.04,
    window_s: float = 0.06,
    n_windows: int = 4096,
    seed: int = 0,
) -> WindowStudy:
    """Windows of a simulation, or of the halves of a recording of your own.

    Parameters
    ----------
    recording, events : paths of a recording and its events; empty for a simulation
    snr, train_s, test_s : of the simulation: its signal-to-noise ratio, seconds to learn from and to judge
    event_s, window_s : about how long an event and a window are, seconds
    n_windows : unlabelled windows
    seed : of the simulation and of the windows

    >>> study = window_study(train_s=20.0, test_s=20.0, n_windows=64)
    >>> study.unlabelled.shape[1:], study.test[0].shape[1:], study.event
    ((120, 6), (120, 6), slice(40, 120, None))
    """
    if recording:
        whole = read_recording(recording)
        table, half = read_events(events, whole.sampling_rate_hz), whole.n_samples // 2
        half_s = whole.duration_s / 2
        later = table.within(half, whole.n_samples).shift(-half)
        pairs = [(whole.between(0, half_s), table.within(0, half)), (whole.between(half_s), later)]
    else:
        templates = make_templates(seed=seed)
        lengths = {1000 + seed: train_s, 2000 + seed: test_s}
        pairs = [tuple(make_recording(templates, s, snr=snr, seed=draw)) for draw, s in lengths.items()]
    learn, rate = pairs[0][0], pairs[0][0].sampling_rate_hz
    whitener, length = estimate_whitener([learn]), round(window_s * rate)
    before = length - round(event_s * rate)
    unlabelled, held_out = cut_windows([whitener(learn)], length, n_windows, seed)
    train, test = (event_windows(whitener(one), labels, before, length) for one, labels in pairs)
    return WindowStudy(learn, pairs[0][1].names, unlabelled, held_out, train, test, slice(before, length))
