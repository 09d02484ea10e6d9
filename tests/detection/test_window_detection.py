"""Window classifiers on continuous signal: the tiling reports every onset once, wherever it lies and whatever the
block."""

import numpy as np
import pytest
import torch
from torch import nn

from evlib.detection.detector import LEAST_PROBABILITY, window_candidates
from evlib.networks.classifier import EventOutput, LSTMEventClassifier, pick_times

WINDOW = 40


class ReadsMarkers(nn.Module):
    """An oracle: type e is present where channel e is not 0, at that sample, with that value as log odds."""

    timing_resolution_samples = 1

    def forward(self, x):
        assert x.shape[1] == WINDOW and x.dtype == torch.float32
        found, value = x.abs() > 0, x.sum(1)
        return EventOutput(torch.where(found.any(1), value, -20.0), torch.where(found, 100.0, -100.0))

    def times(self, output):
        return pick_times(output.timing_logits, 1)


def markers(n_samples, places, n_types=2, value=3.0):
    """Signal (n, E) with a marker of type k at each of its places."""
    signal = np.zeros((n_samples, n_types), np.float32)
    for type, time in places:
        signal[time, type] = value
    return signal


def search(signal, model=None, window=WINDOW, **options):
    model = ReadsMarkers() if model is None else model
    return window_candidates(model, lambda a, b: signal[a:b], len(signal), window, **options)


def pairs(found):
    return list(zip(found.time.tolist(), found.type.tolist(), strict=True))


@pytest.mark.parametrize("n_samples", [1, 7, 39, 40, 41, 120, 203])
def test_every_onset_is_reported_exactly_once_wherever_it_lies(n_samples):
    """Also at both ends of the recording, and in a recording shorter than a window."""
    for place in range(n_samples):
        assert pairs(search(markers(n_samples, [(1, place)]))) == [(place, 1)]


@pytest.mark.parametrize("block", [1, WINDOW // 2, 57, 100, 1 << 17])
def test_blocks_change_nothing(rng, block):
    time = 3 + np.cumsum(rng.integers(WINDOW, 2 * WINDOW, 200))
    type = rng.integers(3, size=200)
    signal = markers(time[-1] + 5, zip(type, time, strict=True), 3)
    expected = list(zip(time.tolist(), type.tolist(), strict=True))
    assert pairs(search(signal, block=block)) == expected


def test_types_do_not_disturb_each_other():
    places = [(0, 100), (1, 100), (2, 101), (3, 119), (4, 80)]
    assert pairs(search(markers(200, places, 5))) == sorted((time, type) for type, time in places)


def test_memory_is_bounded_and_progress_adds_up(rng):
    signal, spans, done = markers(5003, [(0, 2500)]), [], []

    def read(start, stop):
        spans.append((start, stop))
        return signal[start:stop]

    found = window_candidates(ReadsMarkers(), read, len(signal), WINDOW, block=500, advance=done.append)
    assert pairs(found) == [(2500, 0)]
    assert min(start for start, _ in spans) == 0 and max(stop for _, stop in spans) == len(signal)
    assert max(stop - start for start, stop in spans) <= 500 + WINDOW
    assert sum(done) == len(signal) and min(done) > 0


def test_answers_that_are_not_worth_a_look_are_left_out():
    limit = np.log(LEAST_PROBABILITY)
    assert pairs(search(markers(200, [(0, 100)], value=limit + 0.01))) == [(100, 0)]
    assert len(search(markers(200, [(0, 100)], value=limit - 0.01))) == 0


def test_log_odds_are_those_of_the_model():
    found = search(markers(200, [(0, 50), (1, 120)], value=2.5))
    assert found.llr.tolist() == found.llr_isolated.tolist() == [2.5, 2.5]
    assert found.amplitude.tolist() == [1.0, 1.0]


@pytest.fixture(scope="module")
def classifier():
    torch.manual_seed(0)
    return LSTMEventClassifier(3, 8, 1, num_events=4, timing_resolution_samples=5).eval()


def brute_force(model, signal, window):
    """One window after the other, zeros around the recording."""
    found = []
    padded = np.pad(signal, ((window, 2 * window), (0, 0)))
    for start in range(-window // 4, len(signal) - window // 4, window // 2):
        with torch.no_grad():
            output = model(torch.from_numpy(padded[start + window : start + 2 * window])[None])
        time = pick_times(output.timing_logits, model.timing_resolution_samples)[0].numpy()
        for type, logit in enumerate(output.event_logits[0].numpy()):
            place = start + float(time[type])
            if window / 4 <= time[type] < 3 * window / 4 and logit > np.log(0.01) and 0 <= place <= len(signal) - 1:
                found.append((place, type, float(logit)))
    return np.array(sorted(found))


@pytest.mark.parametrize("n_samples", [13, 40, 1500, 1511])
@pytest.mark.parametrize("block", [60, 1 << 17])
def test_a_real_network_gives_what_brute_force_gives(classifier, rng, n_samples, block):
    signal = rng.standard_normal((n_samples, 3)).astype(np.float32)
    expected = brute_force(classifier, signal, WINDOW)
    found = search(signal, classifier, block=block)
    assert len(found) == len(expected) > 0
    np.testing.assert_allclose(np.column_stack([found.time, found.type, found.llr]), expected, atol=1e-4)


def test_the_model_keeps_its_mode_and_its_batch_changes_nothing(classifier, rng, monkeypatch):
    signal = rng.standard_normal((2000, 3)).astype(np.float32)
    whole = search(signal, classifier)
    monkeypatch.setattr("evlib.detection.detector.BATCH", 7)
    classifier.train()
    parts = search(signal, classifier)
    assert classifier.training
    classifier.eval()
    np.testing.assert_allclose(parts.time, whole.time, atol=1e-4)
    np.testing.assert_allclose(parts.llr, whole.llr, atol=1e-5)
