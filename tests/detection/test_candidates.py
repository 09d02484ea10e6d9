"""Candidates of networks on continuous signal: each onset once, wherever it lies and whatever the tile or block; and
joined with candidates of templates."""

import numpy as np
import pytest
import torch
from torch import nn

from evlib.detection import candidates as scanning
from evlib.detection.candidates import (
    LEAST_LOGIT,
    LEAST_PROBABILITY,
    NO_CANDIDATE,
    frame_candidates,
    join,
    weigh,
    window_candidates,
)
from evlib.networks.classifier import EventOutput, LSTMEventClassifier, pick_times
from evlib.templates.pursue import Candidates

WINDOW, HOP = 40, 4


class WindowMarkers(nn.Module):
    """An oracle: type e is present where channel e is not 0, at that sample, with that value as log odds."""

    timing_resolution_samples = 1

    def forward(self, x):
        assert x.shape[1] == WINDOW and x.dtype == torch.float32
        found, value = x.abs() > 0, x.sum(1)
        return EventOutput(torch.where(found.any(1), value, -20.0), torch.where(found, 100.0, -100.0))

    def times(self, output):
        return pick_times(output.timing_logits, 1)


class FrameMarkers(nn.Module):
    """The same, frame by frame: log odds are -20 where there is no marker."""

    resolution = HOP

    def forward(self, x):
        n = -(-x.shape[1] // HOP) * HOP
        frames = nn.functional.pad(x, (0, 0, 0, n - x.shape[1])).view(1, -1, HOP, x.shape[2])
        logits = frames.sum(2)
        place = (frames != 0).float().argmax(2)
        return torch.where(logits != 0, logits, -20.0), torch.where(logits != 0, (place - (HOP - 1) / 2) / HOP, 0.0)


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch):
    monkeypatch.setattr(scanning, "TILE_FRAMES", 16)
    monkeypatch.setattr(scanning, "HALO_FRAMES", 4)


def markers(n_samples, places, n_types=2):
    """Signal (n, E) with markers (type, time, log odds)."""
    signal = np.zeros((n_samples, n_types), np.float32)
    for type, time, value in places:
        signal[time, type] = value
    return signal


def in_windows(signal, model=None, **options):
    model = WindowMarkers() if model is None else model
    return window_candidates(model, lambda a, b: signal[a:b], len(signal), WINDOW, **options)


def in_frames(signal, **options):
    return frame_candidates(FrameMarkers(), lambda a, b: signal[a:b], len(signal), **options)


@pytest.mark.parametrize("search", [in_windows, lambda signal: in_frames(signal)[0]], ids=["windows", "frames"])
@pytest.mark.parametrize("n_samples", [1, 7, 40, 64, 65, 203])
def test_every_onset_is_found_once_wherever_it_lies(search, n_samples):
    """Also at both ends of the recording, and in a recording shorter than a window or a tile."""
    for time in range(0, n_samples, 3):
        found = search(markers(n_samples, [(1, time, 3.0)]))
        assert found.type.tolist() == [1] and found.llr.tolist() == found.llr_isolated.tolist() == [3.0]
        assert found.time == pytest.approx([time], abs=1e-4)


@pytest.mark.parametrize("batch", [1, 3, 256])
def test_batches_and_neighbours_change_nothing(rng, monkeypatch, batch):
    """And no more is read at a time than a batch of windows."""
    monkeypatch.setattr(scanning, "BATCH", batch)
    time = 3 + np.cumsum(rng.integers(WINDOW, 2 * WINDOW, 200))
    type = rng.integers(3, size=200)
    close = [(0, time[-1] + 60, 3.0), (1, time[-1] + 60, 3.0), (2, time[-1] + 61, 3.0)]
    places, spans = [*zip(type, time, np.full(200, 3.0), strict=True), *close], []
    signal = markers(time[-1] + 105, places, 3)

    def read(start, stop):
        spans.append((start, stop))
        return signal[start:stop]

    found = window_candidates(WindowMarkers(), read, len(signal), WINDOW)
    assert list(zip(found.type, found.time, found.llr, strict=True)) == places
    assert min(spans)[0] == 0 and max(spans)[1] == len(signal)
    assert max(stop - start for start, stop in spans) <= (batch + 1) * WINDOW // 2


def test_improbable_types_are_no_candidates():
    limit = np.log(LEAST_PROBABILITY)
    assert len(in_windows(markers(200, [(0, 100, limit + 0.01)]))) == 1
    assert len(in_windows(markers(200, [(0, 100, limit - 0.01)]))) == 0


def test_a_network_is_run_for_evaluation_and_keeps_its_mode(rng):
    model = LSTMEventClassifier(3, 8, 1, num_events=4, timing_resolution_samples=5, dropout=0.5)
    signal = rng.standard_normal((1511, 3)).astype(np.float32)
    evaluated, training = in_windows(signal, model.eval()), in_windows(signal, model.train())
    assert model.training and len(training) > 0 and np.array_equal(training.llr, evaluated.llr)


def test_of_neighbouring_frames_the_greatest_is_the_peak():
    found, _ = in_frames(markers(200, [(0, 64, 1.0), (0, 68, 3.0), (0, 120, 2.0)]))
    assert found.frame.tolist() == [3.0, 2.0]
    found, _ = in_frames(markers(200, [(0, 60, 2.0), (0, 64, 2.0)]))  # equal, and a tile ends between them
    assert found.frame.tolist() == [2.0]


def candidates(time, type, llr):
    time, llr = np.array(time, float), np.array(llr, float)
    return Candidates(time, np.array(type), llr, llr, llr, np.ones(len(time)), np.zeros(len(time)), llr)


def test_the_logits_at_given_times():
    places = [(0, time, 1.0 + time / 100) for time in range(10, 300, 40)]
    beside = candidates(np.arange(0, 303, 7), np.zeros(44, int), np.ones(44))
    _, logit = in_frames(markers(304, places), beside=beside)
    for time, value in zip(beside.time, logit, strict=True):
        near = [v for _, at, v in places if at // HOP == time // HOP]
        assert value == pytest.approx(max(near, default=LEAST_LOGIT))


@pytest.mark.parametrize(("exact", "time"), [(3, 100), (2.9, 103), (-1, 103)])
def test_pairs_become_one_candidate_whose_log_odds_are_added(exact, time):
    templates = candidates([100, 200, 300], [0, 0, 1], [5, 6, 7])
    peaks = candidates([103, 250, 301], [0, 0, 0], [1, 2, 3])
    found = join(templates, peaks, np.array([-1.0, -2.0, -3.0]), ("a", "b"), 1000.0, 5, exact)
    assert found.time.tolist() == [time, 200, 250, 300, 301]
    assert found.type.tolist() == [0, 0, 0, 1, 0]
    assert found.frame.tolist() == [1, -2, 2, -3, 3]
    assert found.llr.tolist() == [5, 6, -np.inf, 7, -np.inf]
    odds = weigh((1.0, 2.0, -1.0), found.llr, found.frame)
    assert odds.tolist() == [5 + 2 - 1, 6 - 4 - 1, NO_CANDIDATE + 4 - 1, 7 - 6 - 1, NO_CANDIDATE + 6 - 1]
