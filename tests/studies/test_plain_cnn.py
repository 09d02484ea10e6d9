"""The plain CNN of the studies: good enough to be a fair comparison, and honest about what it was told."""

from dataclasses import replace

import numpy as np
import pytest

from evlib.scoring.segments import compare_segments
from evlib.signals.calls import make_calls
from evlib.signals.errors import DataError, OptionError
from evlib.signals.recording import Recording
from evlib.studies.plain_cnn import UNKNOWN, _classes, plain_cnn_events


@pytest.fixture(scope="module")
def calls():
    """A recording whose first half is labelled."""
    recording, events = make_calls(2, 60.0, snr_db=10.0, mean_interval_s=0.5, seed=1)
    half = recording.n_samples // 2
    labels = replace(events[events.sample < half], labelled_spans=np.array([[0, half]]))
    return recording, events, labels


def test_it_finds_the_other_half(calls):
    recording, events, labels = calls
    found = plain_cnn_events(recording, labels, hop=20, n_steps=100)
    behind = [table[table.onset_s > recording.duration_s / 2] for table in (events, found)]
    assert compare_segments(*behind, iou=0.5)["event_f1"] > 0.8
    again = plain_cnn_events(recording, labels, hop=20, n_steps=100)
    assert np.array_equal(again.sample, found.sample)


def test_many_channels_are_read_as_they_are(calls):
    """A channel for each kind, 1 inside of its events."""
    recording, events, _ = calls
    signal = np.random.default_rng(0).normal(0, 0.1, (6000, 2)).astype(np.float32)
    for start, lasts, kind in zip(events.onset_s, events.duration_s, events.type, strict=True):
        signal[int(start * 100) : int((start + lasts) * 100), kind] += 1
    labels = replace(events, labelled_spans=np.array([[0, recording.n_samples]]))
    found = plain_cnn_events(Recording(signal, 100.0), labels, hop=1, n_steps=60)
    assert compare_segments(events, found, iou=0.7)["event_f1"] > 0.9


def test_only_labelled_spans_say_that_there_is_nothing(calls):
    recording, _, labels = calls
    step_s = 0.005
    known = _classes(labels, 12_000, step_s).numpy()
    unknown = _classes(replace(labels, labelled_spans=np.zeros((0, 2), int)), 12_000, step_s).numpy()
    assert (known[6000:] == UNKNOWN).mean() > 0.97 and (known[:6000] != UNKNOWN).all()
    assert set(unknown) == {UNKNOWN, 0, 1}
    with pytest.raises(DataError, match="no labelled event"):
        plain_cnn_events(recording, labels[:0], hop=20)
    for wrong, error in (({"hop": 0}, OptionError), ({"hop": 10**9}, OptionError), ({"n_steps": 0}, OptionError)):
        with pytest.raises(error, match=next(iter(wrong))):
            plain_cnn_events(recording, labels, **({"hop": 20} | wrong))
    with pytest.raises(DataError, match="needs a duration"):
        plain_cnn_events(recording, replace(labels, duration_s=np.full(len(labels), np.nan)), hop=20)
