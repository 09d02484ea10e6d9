"""A detector on recordings that are not as they should be: channels, units, gains, noise, gaps and glitches."""

import re

import numpy as np
import pytest
from required import some_slow

import evlib

RATE, N = 2000, 60_000
GAP = slice(20_000, 30_000)
OPTIONS = {"method": "matched_filter", "progress": False}


@pytest.fixture(scope="module")
def pairs():
    return [evlib.make_recording(duration_s=N / RATE, seed=seed) for seed in (1, 2)]


@pytest.fixture(scope="module")
def detector(pairs):
    return evlib.fit([tuple(pairs[0])], **OPTIONS)


def hum(amplitude):
    return amplitude * np.sin(2 * np.pi * 50 * np.arange(N) / RATE)[:, None]


def changed(signal, rows, change):
    signal = signal.astype(float)
    signal[rows] = change(signal[rows])
    return signal


NOISE = np.random.default_rng(0).standard_normal((N, 6))
HALF = slice(30_000, 31_000)
TIME = np.arange(4000)[:, None] / RATE
RING = 500 * np.exp(-TIME / 0.2) * np.sin(2 * np.pi * 80 * TIME)
# What was done to the signal, and the F1 that is left where it can be seen.
SPOILED = {
    "one spike": (lambda x: changed(x, 30_000, lambda v: v + 300), 0.99),
    "a spike in one channel": (lambda x: changed(x, (30_000, 2), lambda v: v - 1000), 0.99),
    "a burst of 50 ms": (lambda x: changed(x, slice(30_000, 30_100), lambda v: v + 300 * NOISE[:100]), 0.99),
    "half a second of noise in a channel": (lambda x: changed(x, (HALF, 3), lambda v: v + 100 * NOISE[:1000, 0]), 0.98),
    "another level from here on": (lambda x: changed(x, slice(30_000, None), lambda v: v + 300), 0.99),
    "a box of 100 ms": (lambda x: changed(x, slice(30_000, 30_200), lambda v: v - 100), 0.98),
    "a bump of 200 ms": (lambda x: changed(x, (slice(30_000, 30_400), 0), lambda v: v + 1000 * np.hanning(400)), 0.97),
    "something that rings": (lambda x: changed(x, slice(30_000, 34_000), lambda v: v + RING), 0.96),
    "gain x10 for ten seconds": (lambda x: changed(x, slice(20_000, 40_000), lambda v: 10 * v), 0.97),
    "strong hum": (lambda x: x + hum(100.0), 0.97),
    "gain x3": (lambda x: 3 * x, 0.97),
    "gain x0.5": (lambda x: 0.5 * x, 0.98),
    "gain x0.5 half way": (lambda x: changed(x, slice(30_000, None), lambda v: 0.5 * v), 0.98),
    "a channel of noise": (lambda x: changed(x, (slice(None), 2), lambda v: 100 * NOISE[:, 0]), 0.97),
    "a dead channel": (lambda x: changed(x, (slice(None), 1), lambda v: 0 * v), 0.9),
    "hum that rises": (lambda x: x + hum(np.linspace(0, 5, N)[:, None]), 0.97),
    "a drift": (lambda x: x + 5.0 * np.arange(N)[:, None], 0.99),
    "a large offset": (lambda x: x.astype(float) + 1e8, 0.97),
}


@pytest.mark.parametrize("kind", SPOILED)
def test_what_can_be_seen_is_found(detector, pairs, kind):
    spoil, least = SPOILED[kind]
    recording, reference = pairs[1]
    found = evlib.detect(detector, evlib.Recording(spoil(recording.read()), RATE))
    assert evlib.compare(reference, found).f1 >= least


FILLED = {
    "zeros": lambda x: 0 * x,
    "a line": lambda x: np.linspace(x[0], x[-1], len(x)),
    "the last value": lambda x: 0 * x + x[0],
    "NaN": lambda x: x * np.nan,
}


@pytest.mark.parametrize("kind", some_slow(FILLED, "zeros", "NaN"))
def test_gaps_cost_only_themselves_in_detection_and_in_training(detector, pairs, kind, caplog):
    (first, labels), (second, reference) = pairs
    seen = reference[(reference.sample < GAP.start) | (reference.sample >= GAP.stop)]
    with_gap = [evlib.Recording(changed(r.read(), GAP, FILLED[kind]), RATE) for r in (first, second)]
    found = evlib.detect(detector, with_gap[1])
    assert not ((found.sample >= GAP.start) & (found.sample < GAP.stop)).any()
    assert evlib.compare(seen, found).f1 >= 0.99
    taught = evlib.fit([(with_gap[0], labels)], **OPTIONS)
    assert evlib.compare(reference, evlib.detect(taught, second)).f1 >= 0.98
    assert "recording 0 has gaps (missing or constant samples) of 5.000 s" in caplog.text


@pytest.mark.slow
def test_less_noise_with_events_as_loud_hides_none(detector):
    quiet = evlib.make_recording(duration_s=20, seed=4, snr=24, noise_std=0.5)
    assert evlib.compare(quiet.events, evlib.detect(detector, quiet.recording)).f1 > 0.99


def test_training_survives_a_spike_a_burst_and_a_noisier_recording(pairs):
    (first, labels), (second, reference) = pairs
    signal = changed(first.read(), slice(30_000, 30_100), lambda v: v + 300 * NOISE[:100])
    signal[10_000] += 1000
    third, more = evlib.make_recording(duration_s=N / RATE, seed=3)
    noisy = evlib.Recording(third.read() + 2 * NOISE, RATE)
    taught = evlib.fit([(evlib.Recording(signal, RATE), labels), (noisy, more)], **OPTIONS)
    assert evlib.compare(reference, evlib.detect(taught, second)).f1 >= 0.97


TAUGHT = {
    "half a second of noise in a channel": lambda x: changed(x, (HALF, 3), lambda v: v + 100 * NOISE[:1000, 0]),
    "another level from here on": lambda x: changed(x, slice(30_000, None), lambda v: v + 300),
    "a third at ten times the gain": lambda x: changed(x, slice(20_000, 40_000), lambda v: 10 * v),
    "a third at half the gain": lambda x: changed(x, slice(20_000, 40_000), lambda v: v / 2),
    "a third filled with noise": lambda x: changed(x, slice(20_000, 40_000), lambda v: 10 * NOISE[: len(v)]),
    "strong hum": lambda x: x + hum(100.0),
}


@pytest.mark.parametrize("kind", some_slow(TAUGHT, "strong hum", "a third at ten times the gain"))
def test_a_spoiled_recording_still_teaches(pairs, kind):
    (first, labels), (second, reference) = pairs
    taught = evlib.fit([(evlib.Recording(TAUGHT[kind](first.read()), RATE), labels)], **OPTIONS)
    assert evlib.compare(reference, evlib.detect(taught, second)).f1 >= 0.96


def test_an_event_at_the_first_sample_is_found(detector):
    found = 0
    for seed in range(10, 18):
        recording, events = evlib.make_recording(duration_s=2.0, seed=seed)
        at = events.sample[seed % len(events)]
        cut = evlib.Recording(recording.read()[at:], RATE, recording.channels)
        found += (np.abs(evlib.detect(detector, cut).sample) <= 5).any()
    assert found >= 7


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (
            lambda x: changed(x, slice(20_000, 40_000), lambda v: 10 * v),
            "channels ch1, .*: noise is 10 times the usual",
        ),
        (lambda x: 0.3 * x, "channels ch1, .*: noise is 0.3 times that of the training"),
        (lambda x: changed(x, (GAP, 4), lambda v: v * np.nan), "channel ch5: .* hold no measurement"),
    ],
)
def test_unusual_noise_is_said(detector, pairs, spoil, words, caplog):
    evlib.detect(detector, pairs[1].recording)
    assert not caplog.text
    spoiled = evlib.Recording(spoil(pairs[1].recording.read()), RATE)
    evlib.detect(detector, spoiled)
    assert re.search(words, caplog.text)
    assert re.search(words, str(evlib.validate(spoiled, detector=detector)))


def test_recordings_with_other_noise_are_noticed_in_training(pairs, caplog):
    (first, labels), (second, reference) = pairs
    evlib.fit([(first, labels), (evlib.Recording(5 * second.read(), RATE), reference)], **OPTIONS)
    assert "noise differs by a factor of up to 5" in caplog.text


def test_what_a_person_marks_as_bad_is_left_out(detector, pairs):
    (first, labels), (second, reference) = pairs
    spans_s = [(3.0, 8.0), (20.0, 21.0)]
    found = evlib.detect(detector, second.mark_bad(spans_s))
    inside = np.any([(found.onset_s >= a) & (found.onset_s < b) for a, b in spans_s], axis=0)
    assert len(found) > 100 and not inside.any()
    taught = evlib.fit([(first.mark_bad(spans_s), labels)], **OPTIONS)
    assert evlib.compare(reference, evlib.detect(taught, second)).f1 >= 0.98


def test_channels_and_units_are_those_of_the_training(pairs):
    (first, labels), (second, reference) = pairs
    names, order = ("ax", "ay", "az", "bx", "by", "bz"), [2, 0, 1, 5, 4, 3]
    named = evlib.Recording(first.read(), RATE, names, "m/s2")
    other = evlib.Recording(second.read()[:, order] / 9.80665, RATE, [names[k] for k in order], "g")
    detector = evlib.fit([(named, labels), (other, reference)], **OPTIONS)
    assert evlib.compare(reference, evlib.detect(detector, other)).f1 >= 0.99
    renamed = evlib.Recording(second.read(), RATE, [*"uvwxyz"], "m/s2")
    with pytest.raises(evlib.EvlibError, match='match_channels="position"'):
        evlib.detect(detector, renamed)
    assert evlib.compare(reference, evlib.detect(detector, renamed, match_channels="position")).f1 >= 0.99
    with pytest.raises(evlib.EvlibError, match="cannot convert 'V' to 'm/s2'"):
        evlib.detect(detector, evlib.Recording(second.read(), RATE, names, "V"))


def test_a_saved_detector_keeps_what_it_knows_of_gaps(detector, pairs, tmp_path):
    detector.save(tmp_path / "d.ckpt")
    signal = changed(pairs[1].recording.read(), GAP, FILLED["zeros"])
    signal[5000] += 300
    spoiled = evlib.Recording(signal, RATE)
    one, two = (evlib.detect(d, spoiled) for d in (detector, evlib.load_detector(tmp_path / "d.ckpt")))
    assert np.array_equal(one.time_samples, two.time_samples) and np.array_equal(one.score, two.score)
