"""Thresholds tried out on candidates agree with detecting anew."""

from dataclasses import replace

import numpy as np
import pytest
from planted import RATE

import evlib
from evlib.scoring.thresholds import ThresholdSweep
from evlib.signals.errors import DataError, OptionError
from evlib.signals.synthetic import make_templates


@pytest.fixture(scope="module")
def development():
    """A baseline detector of three kinds, and a recording with its labels that it was not trained on."""
    templates = make_templates(3, seed=2)
    train, test = (evlib.make_recording(templates, 30.0, snr=6.0, seed=seed) for seed in (0, 1))
    return evlib.fit([tuple(train)], method="matched_filter", progress=False), test.recording, test.events


@pytest.fixture(scope="module")
def tuning(development):
    return ThresholdSweep(*development)


def test_every_choice_agrees_with_detecting_anew(development, tuning):
    detector, recording, reference = development
    for threshold, period, tolerance_s in ((0.2, 2.0, 0.005), (0.9, 0.5, 0.001)):
        logit = np.log(threshold / (1 - threshold))
        periods = dict.fromkeys(detector.names, period)
        found = evlib.detect(replace(detector, refractory_s=periods), recording, threshold)
        expected = evlib.compare(reference, found, tolerance_s)
        report = tuning.compare(np.full(3, logit), periods, tolerance_s)
        assert (report.tp, report.fp, report.fn) == (expected.tp, expected.fp, expected.fn)
        assert report.hours == pytest.approx(30 / 3600)
        assert report.refractory_violations()["estimated"] == 0


def test_the_curve_of_a_type_holds_what_each_threshold_gives(tuning, development):
    detector = development[0]
    thresholds, precision, recall = tuning.curve(1, detector.refractory_s, 0.005)
    for k in (0, len(thresholds) // 2, len(thresholds) - 1):
        row = tuning.compare(np.full(3, thresholds[k]), detector.refractory_s, 0.005).per_type().iloc[1]
        assert (row.precision, row.recall) == pytest.approx((precision[k], recall[k]), nan_ok=True)
    assert (np.diff(recall) <= 0.2).all() and recall[0] > recall[-1]
    best = tuning.best_threshold(1, detector.refractory_s, 0.005)
    f1 = [
        tuning.compare(np.full(3, t), detector.refractory_s, 0.005).per_type().f1.iloc[1] for t in (best, *thresholds)
    ]
    assert f1[0] >= np.nanmax(f1) - 0.02


def test_candidates_at_labels_are_events(tuning, development):
    reference = development[2]
    for e in range(3):
        time = tuning.candidates.time[tuning.candidates.type == e]
        label = reference.time_samples[reference.type == e]
        expected = np.abs(time[:, None] - label).min(axis=1) <= 0.002 * RATE + 0.5
        assert np.array_equal(tuning.is_event(e, 0.002), expected)


def test_what_cannot_be_is_refused(development):
    detector, recording, reference = development
    with pytest.raises(DataError, match="no events"):
        ThresholdSweep(detector, recording, reference[:0])
    stranger = evlib.Events.from_seconds([1.0], ["whistle"], RATE)
    with pytest.raises(OptionError, match="whistle"):
        ThresholdSweep(detector, recording, stranger)
