"""Peaks of a frame network in a whole recording: every one once, wherever it lies, and joined with what templates
found."""

import numpy as np
import pytest
import torch
from torch import nn

from evlib.detection import detector as frame_detection
from evlib.detection.detector import LEAST_LOGIT, frame_candidates
from evlib.detection.fusion import UNSEEN, join, learn_scale, weigh
from evlib.templates.pursue import Candidates

HOP = 4


class ReadsMarkers(nn.Module):
    """An oracle: type e has the log odds that stand on channel e, in the frame of the marker; nothing is -20."""

    resolution = HOP

    def forward(self, x):
        n = -(-x.shape[1] // HOP) * HOP
        frames = nn.functional.pad(x, (0, 0, 0, n - x.shape[1])).view(1, -1, HOP, x.shape[2])
        logits = frames.sum(2)
        place = (frames != 0).float().argmax(2)
        return torch.where(logits != 0, logits, -20.0), torch.where(logits != 0, (place - (HOP - 1) / 2) / HOP, 0.0)


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch):
    monkeypatch.setattr(frame_detection, "TILE_FRAMES", 16)
    monkeypatch.setattr(frame_detection, "HALO_FRAMES", 4)


def search(places, n, **options):
    signal = np.zeros((n, 2), np.float32)
    for type, time, value in places:
        signal[time, type] = value
    return frame_candidates(ReadsMarkers(), lambda a, b: signal[a:b], n, **options)


@pytest.mark.parametrize("n", [1, 7, 64, 65, 203, 256])
def test_every_event_is_found_once_wherever_it_lies(n):
    for time in range(0, n, 3):
        found, _ = search([(1, time, 3.0)], n)
        assert (
            found.type.tolist() == [1]
            and found.time == pytest.approx([time], abs=1e-4)
            and found.frame.tolist() == [3.0]
        )


def test_of_neighbours_the_greater_is_the_peak():
    found, _ = search([(0, 64, 1.0), (0, 68, 3.0), (0, 120, 2.0)], 200)
    assert found.frame.tolist() == [3.0, 2.0]
    found, _ = search([(0, 60, 2.0), (0, 64, 2.0)], 200)  # equal, and a tile ends between them
    assert found.frame.tolist() == [2.0]


def candidates(time, type, llr):
    time, llr = np.array(time, float), np.array(llr, float)
    return Candidates(time, np.array(type), llr, llr, llr, np.ones(len(time)), np.zeros(len(time)), llr)


def test_what_the_network_says_at_given_times():
    places = [(0, time, 1.0 + time / 100) for time in range(10, 300, 40)]
    beside = candidates(np.arange(0, 303, 7), np.zeros(44, int), np.ones(44))
    _, logit = search(places, 304, beside=beside)
    for time, value in zip(beside.time, logit, strict=True):
        near = [v for _, at, v in places if at // HOP == time // HOP]
        assert value == pytest.approx(max(near, default=LEAST_LOGIT))


@pytest.mark.parametrize(("exact", "time"), [(3, 100), (2.9, 103), (-1, 103)])
def test_pairs_become_one_candidate(exact, time):
    templates = candidates([100, 200, 300], [0, 0, 1], [5, 6, 7])
    peaks = candidates([103, 250, 301], [0, 0, 0], [1, 2, 3])
    found = join(templates, peaks, np.array([-1.0, -2.0, -3.0]), ("a", "b"), 1000.0, 5, exact)
    assert found.time.tolist() == [time, 200, 250, 300, 301]
    assert found.type.tolist() == [0, 0, 0, 1, 0]
    assert found.frame.tolist() == [1, -2, 2, -3, 3]
    assert found.llr.tolist() == [5, 6, -np.inf, 7, -np.inf]
    odds = weigh((1.0, 2.0, -1.0), found.llr, found.frame)
    assert odds.tolist() == [5 + 2 - 1, 6 - 4 - 1, UNSEEN + 4 - 1, 7 - 6 - 1, UNSEEN + 6 - 1]


def test_log_odds_are_made_true():
    rng = np.random.default_rng(0)
    odds = 3 * rng.standard_normal(20_000)
    target = (rng.random(20_000) < 1 / (1 + np.exp(1 - 0.5 * odds))).astype(float)
    known = (rng.random(20_000) < 0.8).astype(float)
    slope, offset = learn_scale(odds, np.where(known, target, 1.0), known)
    assert slope == pytest.approx(0.5, abs=0.03) and offset == pytest.approx(-1, abs=0.06)
    assert learn_scale(odds, np.ones(20_000), known) == (1.0, 0.0)  # nothing to tell apart
    assert learn_scale(-odds, target, known) == (1.0, 0.0)  # a witness that speaks against itself
