"""Noise that changes is brought back; ordinary signal passes bit for bit."""

import numpy as np
import pytest

from evlib.signals.events import Events
from evlib.templates.equalize import LEFT_LEVEL, equalize, frame_samples, learn_limits, unlimited

RATE, N = 2000.0, 60_000
CHANGE = slice(24_000, 44_000)
# Where the median over the frames around a moment has the change on one side only.
INSIDE = slice(28_000, 40_000)


@pytest.fixture(scope="module")
def white():
    return np.random.default_rng(0).standard_normal((N, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def limits(white):
    onset_s = np.arange(1.0, 29.0, 0.7)
    return learn_limits([white], [Events.from_seconds(onset_s, ["a"] * len(onset_s), RATE)], RATE)


def test_ordinary_noise_passes_bit_for_bit(white, limits):
    other = np.random.default_rng(1).standard_normal((N, 3)).astype(np.float32)
    assert equalize(white, limits, RATE) is white and equalize(other, limits, RATE) is other
    assert equalize(100 * other, unlimited(3), RATE) is not white
    assert np.array_equal(equalize(100 * other, unlimited(3), RATE), 100 * other)


@pytest.mark.parametrize("gain", [3.0, 10.0, 1000.0])
def test_a_gain_that_rises_for_a_while_is_taken_back(white, limits, gain):
    loud = white.copy()
    loud[CHANGE, 1] *= gain
    even = equalize(loud, limits, RATE)
    assert np.array_equal(even[:, [0, 2]], white[:, [0, 2]])
    assert even[INSIDE, 1].std() == pytest.approx(np.sqrt(LEFT_LEVEL), rel=0.1)
    assert np.corrcoef(even[INSIDE, 1], white[INSIDE, 1])[0, 1] > 0.99
    assert np.allclose(even[:20_000, 1], white[:20_000, 1], atol=1e-4)


@pytest.mark.parametrize("gain", [0.5, 0.1])
def test_a_gain_that_falls_for_a_while_is_taken_back_and_a_dead_channel_stays(white, limits, gain):
    quiet = white.copy()
    quiet[CHANGE] *= [1.0, gain, 1e-4]
    even = equalize(quiet, limits, RATE)
    assert np.allclose(even[INSIDE][:, [0, 2]], quiet[INSIDE][:, [0, 2]], atol=1e-4)
    assert np.allclose(even[INSIDE, 1].std(), 1, rtol=0.1)
    assert np.corrcoef(even[INSIDE, 1], white[INSIDE, 1])[0, 1] > 0.99
    quiet = white.copy()
    quiet[CHANGE] *= gain
    quiet[30_000:30_100] = 0
    assert (equalize(quiet, limits, RATE)[30_000:30_100] == 0).all(), "a gap stays one"
    quiet = white.copy()
    quiet[:, 1] = np.where(np.arange(N) % 1000 < 700, 0.0, white[:, 1])
    assert equalize(quiet, limits, RATE) is quiet, "many gaps are no gain"


@pytest.mark.parametrize("frequency", [50.0, 50.7, 333.0])
def test_hum_is_taken_out_and_the_rest_stays(white, limits, frequency):
    hum = 10 * np.sin(2 * np.pi * frequency * np.arange(N) / RATE)[:, None]
    even = equalize((white + hum).astype(np.float32), limits, RATE)
    assert np.corrcoef(even[INSIDE].ravel(), white[INSIDE].ravel())[0, 1] > 0.95
    assert abs((even[INSIDE] * hum[INSIDE]).mean() / (hum[INSIDE] ** 2).mean()) < 0.03


def test_how_far_labelled_events_rise_is_ordinary(white):
    """Bells that ring for a second are no hum, and shaking that lasts is no gain."""
    ring = white.copy()
    at = np.arange(4000, N - 4000, 9000)
    for start in at:
        time = np.arange(3000) / RATE
        ring[start : start + 3000] += (60 * np.exp(-3 * time) * np.sin(2 * np.pi * 400 * time))[:, None]
    labels = Events.from_seconds(at / RATE, ["bell"] * len(at), RATE)
    assert np.array_equal(equalize(ring, learn_limits([ring], [labels], RATE), RATE), ring)


def test_of_two_recordings_the_quieter_one_says_what_is_ordinary(white):
    labels = Events.from_seconds(np.arange(1.0, 29.0), ["a"] * 28, RATE)
    both = learn_limits([white, 5 * white], [labels, labels], RATE)
    assert np.allclose(both, learn_limits([white], [labels], RATE), rtol=0.5)
    assert np.isinf(learn_limits([white], [labels[:0]], RATE)[:2]).all(), "nothing is known without labels"


def test_a_part_that_begins_on_the_grid_equals_the_whole(white, limits):
    loud = white.copy()
    loud[CHANGE] *= 10
    hop, whole = frame_samples(RATE) // 2, equalize(loud, limits, RATE)
    start, margin = 80 * hop, 10 * frame_samples(RATE)
    part = equalize(loud[start:], limits, RATE)
    assert np.allclose(part[margin:], whole[start + margin :], atol=1e-4)
