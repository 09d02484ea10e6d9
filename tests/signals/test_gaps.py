"""Gaps: what holds no measurement is found, whoever filled it, and what a sensor does by itself is left."""

import numpy as np
import pytest

from evlib.signals.gaps import (
    Normal,
    bridge,
    find_gaps,
    gap_blocks,
    inside,
    learn_normal,
    read_bridged,
    repeats,
    runs,
)
from evlib.signals.recording import Recording
from evlib.signals.validate import validate

RATE = 2000.0
FILLED = {
    "zeros": lambda x: 0 * x,
    "a value": lambda x: 0 * x + 3.25,
    "the last value": lambda x: 0 * x + x[0],
    "a line": lambda x: np.linspace(x[0], x[-1], len(x)),
    "NaN": lambda x: x * np.nan,
    "infinity": lambda x: x + np.inf,
}


@pytest.fixture(scope="module")
def noise():
    rng = np.random.default_rng(0)
    return (9.81 + rng.standard_normal((20_000, 2))).astype(np.float32)


@pytest.fixture(scope="module")
def normal(noise):
    return learn_normal(list(noise.astype(float).reshape(20, 1000, 2)), RATE, np.finfo(np.float32).eps)


@pytest.mark.parametrize("length", [12, 100, 5000])
@pytest.mark.parametrize("kind", FILLED)
def test_whatever_a_stretch_was_filled_with_it_is_a_gap(noise, normal, kind, length):
    signal = noise.copy()
    signal[4000 : 4000 + length, 1] = FILLED[kind](signal[4000 : 4000 + length, 1])
    bridged, gaps = read_bridged(Recording(signal, RATE), 3000, 12_000, normal, 500)
    found = np.flatnonzero(gaps[:, 1]) + 3000
    assert not gaps[:, 0].any() and abs(found[0] - 4000) <= 1 and abs(found[-1] - (3999 + length)) <= 1
    assert len(found) == found[-1] - found[0] + 1 and np.isfinite(bridged).all()
    assert np.abs(bridged - 9.81).max() < 6


@pytest.mark.parametrize("length", [1, 2, 4])
def test_spikes_are_gaps_and_loud_events_are_not(noise, normal, length):
    signal = noise.astype(float)
    signal[5000 : 5000 + length] += 300.0
    assert np.flatnonzero(find_gaps(signal, normal, RATE).all(axis=1)).tolist() == list(range(5000, 5000 + length))
    loud = noise.astype(float)
    loud[5000:5080] += 300 * np.random.default_rng(1).standard_normal((80, 2))
    assert not find_gaps(loud, normal, RATE).any()


def test_a_sensor_that_is_silent_by_nature_has_no_gaps_there():
    """A force plate: exactly zero while the foot is in the air."""
    steps = np.tile(np.r_[np.zeros(700), np.hanning(500)], 20)[:, None]
    normal = learn_normal(list(steps.reshape(24, 1000, 1)), RATE)
    assert not find_gaps(steps, normal, RATE).any()


def test_coarse_integers_are_no_gaps():
    counts = np.round(0.4 * np.random.default_rng(0).standard_normal((20_000, 1)))
    normal = learn_normal(list(counts.reshape(20, 1000, 1)), RATE)
    assert not find_gaps(counts, normal, RATE).any()


def test_labelled_events_are_no_spikes():
    from evlib.signals.events import Events

    signal = np.random.default_rng(0).standard_normal((20_000, 1))
    at = np.arange(500, 20_000, 4000)
    signal[at] += 100.0
    recording, labels = Recording(signal, RATE), Events.from_seconds(at / RATE, ["click"] * len(at), RATE)
    normal = learn_normal(list(signal.reshape(20, 1000, 1)), RATE)
    assert find_gaps(signal, normal, RATE).any()
    assert not find_gaps(signal, normal.with_events([recording], [labels]), RATE).any()


@pytest.mark.parametrize("pieces", [[0, 20_000], [0, 3999, 4000, 4001, 20_000], list(range(0, 20_001, 1250))])
def test_what_is_a_gap_does_not_depend_on_the_piece_that_is_read(noise, normal, pieces):
    signal = noise.copy()
    for start, length in ((0, 50), (4000, 300), (9000, 3000), (15_000, 1), (19_900, 100)):
        signal[start : start + length] = 0
    whole, gaps = read_bridged(Recording(signal, RATE), 0, 20_000, normal, 500)
    parts = [
        read_bridged(Recording(signal, RATE), *part, normal, 500) for part in zip(pieces, pieces[1:], strict=False)
    ]
    assert np.array_equal(np.concatenate([g for _, g in parts]), gaps)
    # Far inside of a long gap nothing is seen of what bridges it.
    near = ~gaps.all(axis=1)
    assert np.array_equal(np.concatenate([x for x, _ in parts])[near], whole[near])


def test_only_missing_values_are_gaps_where_nothing_is_known():
    signal = np.zeros((100, 1))
    signal[40] = np.nan
    assert np.flatnonzero(find_gaps(signal, Normal.unknown(1), RATE)).tolist() == [40]
    assert (bridge(np.full((9, 1), np.nan), np.ones((9, 1), bool), 3) == 0).all(), "nothing is known of the channel"


def test_inside_agrees_with_a_loop(rng):
    start = rng.integers(0, 100, 12)
    stop, time = start + rng.integers(0, 20, 12), rng.uniform(0, 120, 200)
    brute = [any(a <= t < b for a, b in zip(start, stop, strict=True)) for t in time]
    assert inside(time, start, stop).tolist() == brute
    assert not inside(time, start[:0], stop[:0]).any()


@pytest.mark.parametrize("apart", [250, 500, 1000, 30_000])
@pytest.mark.parametrize("width", [1, 3])
def test_spikes_that_come_again_and_again_are_no_signal(apart, width):
    noise = np.random.default_rng(0).normal(size=(60_000, 2))
    signal, at = noise.copy(), np.add.outer(np.arange(100, 60_000, apart), np.arange(width)).ravel()
    signal[at, 0] += 200
    _, _, gaps = zip(*gap_blocks(Recording(signal, 2000)), strict=True)
    np.testing.assert_array_equal(np.flatnonzero(np.concatenate(gaps)[:, 0]), at)
    assert not np.concatenate(gaps)[:, 1].any()


def test_a_buffer_stored_twice_is_seen_by_its_samples(rng):
    signal = rng.normal(size=(20_000, 3))
    for start, stop, length in ((1000, 1040, 40), (5000, 9000, 512)):
        signal[stop : stop + length] = signal[start : start + length]
    start, stop = runs(repeats(signal))
    np.testing.assert_array_equal(start, [1040, 9000])
    np.testing.assert_array_equal(stop, [1080, 9512])
    # Steps of a coarse converter at rest, a stretch filled with one value, and one channel alone come again by nature.
    at_rest = np.cumsum(rng.random((60_000, 1)) < 0.02, axis=0) % 3
    assert not repeats(at_rest.astype(float)).any()
    coarse = rng.integers(0, 2, (60_000, 2)).astype(float)
    coarse[3000:3500] = np.nan
    coarse[9000:9100, 1] = coarse[8000:8100, 1]
    assert not repeats(coarse).any()


def test_validate_names_a_buffer_stored_twice(rng):
    signal = rng.normal(size=(20_000, 3))
    signal[9000:9512] = signal[5000:5512]
    (problem,) = validate(Recording(signal, 2000)).problems
    assert (
        "0.256 s of signal in 1 stretches is exactly as before" in problem.message and "4.500000 s" in problem.message
    )
