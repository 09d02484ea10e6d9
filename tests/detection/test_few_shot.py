"""The first examples are labelled, the rest is judged: what is learned from, what is judged, and how well."""

from dataclasses import replace

import numpy as np
import pytest

from evlib.detection.few_shot import few_shot
from evlib.signals.errors import DataError, OptionError
from evlib.signals.synthetic import make_recording, make_templates

OPTIONS = {"method": "matched_filter", "refractory_s": 0.5, "progress": False}


@pytest.fixture(scope="module")
def simulated():
    """Four kinds; those of a kind last equally long, but for a little."""
    templates = make_templates(4, 3, 1000.0, seed=2)
    options = {"sampling_rate_hz": 1000.0, "refractory_s": 0.5, "schedule": "poisson", "mean_interval_s": 1.5}
    recording, events = make_recording(templates, 60.0, seed=3, **options)
    rng = np.random.default_rng(0)
    return recording, replace(events, duration_s=0.02 * (1 + events.type) * rng.uniform(0.9, 1.1, len(events)))


@pytest.fixture(scope="module")
def result(simulated):
    return few_shot(*simulated, **OPTIONS)


def test_the_first_five_of_each_kind_are_learned_from_and_the_rest_is_found(simulated, result):
    _, events = simulated
    for k, name in enumerate(events.names):
        mine = events.select([name])
        assert np.array_equal(result.shots[result.shots.type == k].onset_s, mine.onset_s[:5])
    assert result.start_s >= (result.shots.onset_s + result.shots.duration_s).max()
    assert result.reference.onset_s.min() > result.start_s and result.found.onset_s.min() > result.start_s
    assert np.array_equal(result.reference.onset_s, events.onset_s[events.onset_s > result.start_s])
    assert result.by_onset.f1 > 0.97


def test_what_is_found_lasts_as_long_as_the_examples(result):
    for k in range(4):
        median, _ = result.detector.durations[k]
        np.testing.assert_allclose(result.found.duration_s[result.found.type == k], median)
        assert median == pytest.approx(np.median(result.shots.duration_s[result.shots.type == k]), rel=0.1)
    assert result.by_overlap["event_f1"] > 0.97
    assert result.by_overlap["hits"] <= result.by_onset.tp


def test_later_labels_teach_nothing(simulated, result):
    """Without most of the labels behind the examples the same is found."""
    recording, events = simulated
    early = (events.onset_s <= result.start_s) | (np.arange(len(events)) % 7 == 0)
    again = few_shot(recording, events[early], **OPTIONS)
    assert np.array_equal(again.found.type, result.found.type)
    assert np.array_equal(again.found.onset_s, result.found.onset_s)
    assert again.by_onset.f1 < result.by_onset.f1, "but less of it is right"


def test_moments_have_no_overlap_and_rare_kinds_are_left_out(simulated):
    recording, events = simulated
    rare = np.flatnonzero(events.type == 3)[5:]
    some = np.delete(np.arange(len(events)), rare)
    found = few_shot(recording, replace(events[some], duration_s=np.zeros(len(some))), **OPTIONS)
    assert found.by_overlap is None and found.reference.names == events.names[:3]
    for wrong, error, message in ((9999, DataError, "more than 9999 times"), (0, OptionError, "n_shots")):
        with pytest.raises(error, match=message):
            few_shot(recording, events, wrong)
