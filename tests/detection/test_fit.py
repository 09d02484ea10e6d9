"""Fit: which data and options it takes, what it learns from labels, and which method it chooses."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import evlib
from evlib.signals.errors import OptionError
from evlib.signals.synthetic import make_templates
from evlib.training import frames as frame_training

RATE, KINDS = 2000.0, ("high", "low")


@pytest.fixture(scope="module")
def simulations():
    templates = make_templates(6, seed=4)
    return [evlib.make_recording(templates, 40.0, snr=11.0, seed=seed) for seed in (1, 2)]


@pytest.mark.parametrize(
    ("method", "network"), [("lstm", "network"), pytest.param("frames", "frames", marks=pytest.mark.slow)]
)
def test_same_seed_same_detector_and_no_global_state(simulations, monkeypatch, method, network):
    monkeypatch.setattr(frame_training, "EPOCH_FRAMES", 2048)
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    options = {"method": method, "seed": 1, "hidden_size": 8, "max_epochs": 1, "labels_per_type": 5, "progress": False}
    first, second = (evlib.fit([tuple(simulations[0])], **options) for _ in range(2))
    assert torch.equal(before, torch.random.get_rng_state())
    np.testing.assert_array_equal(first.thresholds, second.thresholds)
    np.testing.assert_array_equal(first.bank.templates, second.bank.templates)
    weights = [getattr(detector, network).state_dict().values() for detector in (first, second)]
    assert all(torch.equal(a, b) for a, b in zip(*weights, strict=True))
    assert first.method == method and first.uses_templates == (method == "lstm")


def test_labels_per_type_leaves_the_rest_unlabelled(simulations):
    detector = evlib.fit([tuple(simulations[0])], method="matched_filter", labels_per_type=4, seed=2, progress=False)
    assert set(detector.metadata["n_labelled"].values()) == {4}
    found = evlib.detect(detector, simulations[0].recording)
    assert evlib.compare(simulations[0].events, found).recall > 0.9


def test_outside_of_labelled_spans_nothing_is_assumed(simulations):
    recording, events = simulations[0]
    half = recording.n_samples // 2
    partial = replace(events.within(0, half), labelled_spans=np.array([[0, half]]))
    detector = evlib.fit([(recording, partial)], method="matched_filter", progress=False)
    found = evlib.detect(detector, recording)
    assert evlib.compare(events, found).f1 > 0.95
    judged = evlib.compare(partial, found)
    assert judged.n_estimated < len(found)  # what lies outside is no false alarm
    assert judged.precision > 0.95


@pytest.mark.slow
def test_self_training_uses_unlabelled_signal():
    templates = make_templates(6, seed=9)
    train, test = (evlib.make_recording(templates, 90.0, snr=6.0, seed=seed) for seed in (1, 2))
    f1 = {}
    for self_train in (False, True):
        options = {"method": "matched_filter", "labels_per_type": 3, "self_train": self_train, "progress": False}
        detector = evlib.fit([tuple(train)], **options)
        f1[self_train] = evlib.compare(test.events, evlib.detect(detector, test.recording)).f1
    assert f1[True] > f1[False]


def test_a_type_without_labels_is_never_found(simulations):
    recording, events = simulations[0]
    more = events.with_names((*events.names, "never"))
    found = evlib.detect(evlib.fit([(recording, more)], method="matched_filter", progress=False), recording)
    assert "never" in found.names and "never" not in found.type_names
    assert len(found) > 0.9 * len(events)


def spoiled(name, recording, events):
    signal = recording.read().copy()
    if name == "constant":
        signal[:, 3] = 7.0
    late = evlib.Events.from_seconds([1.0, 99.0], ["event_00", "event_00"], RATE)
    return {
        "empty list": [],
        "bare pair": (recording, events),
        "swapped": [(events, recording)],
        "outside": [(recording, late)],
        "no rows": [(recording, evlib.Events.empty(("a",), RATE))],
        "no names": [(recording, evlib.Events.empty((), RATE))],
        "two rates": [(recording, events), (recording.resample(1000.0), events)],
        "short": [(recording.between(0, 0.5), events.within(0, 900))],
    }.get(name, [(evlib.Recording(signal, RATE), events)])


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("empty list", "at least one"),
        ("bare pair", "list of"),
        ("swapped", "list of"),
        ("outside", "1 labels lie outside.*99.000 s"),
        ("no rows", "not one labelled event"),
        ("no names", "name no event types"),
        ("constant", "ch4 is constant"),
        ("two rates", "one rate"),
        ("short", "too short"),
    ],
)
def test_training_data_that_cannot_be_used_are_refused(simulations, name, words):
    with pytest.raises(evlib.EvlibError, match=words):
        evlib.fit(spoiled(name, *simulations[0]), method="matched_filter", progress=False)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"method": "magic"}, "method must be one of auto, .*; got 'magic'"),
        ({"labels_per_type": 0}, "labels_per_type"),
        ({"labels_per_type": 2.5}, "labels_per_type"),
        ({"refractory_s": -1.0}, "refractory"),
        ({"refractory_s": {"nobody": 1.0}}, "nobody"),
        ({"seed": -1}, "seed"),
        ({"hidden_size": 0}, "hidden_size"),
        ({"max_epochs": 0}, "max_epochs"),
        ({"tolerance_s": 0}, "tolerance_s must be a positive number of seconds"),
        ({"template_s": (300, 300)}, "template_s"),
        ({"template_s": 0.1}, "template_s"),
    ],
)
def test_bad_options_are_refused(simulations, options, words):
    with pytest.raises(OptionError if "refractory_s" not in options else evlib.EvlibError, match=words):
        evlib.fit([tuple(simulations[0])], progress=False, **options)


def bursts(seed, seconds=60.0, n=60, rate=400.0):
    """Noise bursts whose shape is new each time: what stays is their band, which no template can hold."""
    rng = np.random.default_rng(seed)
    signal = 0.2 * rng.standard_normal((int(seconds * rate), 2))
    onset = np.sort(rng.choice(np.arange(1.0, seconds - 1.0, 0.7), n, replace=False)) + rng.uniform(0, 0.1, n)
    type = rng.integers(0, 2, n)
    decay = np.exp(-np.arange(80) / 20)[:, None]
    for time, kind in zip(onset, type, strict=True):
        wave = rng.standard_normal((81, 2))
        wave = (np.diff(wave, axis=0) if kind == 0 else 0.5 * np.cumsum(wave, axis=0)[1:]) * decay
        start = int(round(time * rate))
        signal[start : start + 80] += wave
    return evlib.Recording(signal, rate), evlib.Events.from_seconds(onset, type, rate, KINDS)


@pytest.mark.slow
def test_where_shapes_vary_the_signal_is_read_itself(monkeypatch):
    data = [bursts(seed) for seed in range(6)]
    monkeypatch.setattr(frame_training, "EPOCH_FRAMES", 16_384)
    detector = evlib.fit(data[:5], refractory_s=0.3, hidden_size=16, max_epochs=10, progress=False)
    table = {row["method"]: row["f1"] for row in detector.metadata["compared"]}
    (kept,) = [row["method"] for row in detector.metadata["compared"] if row["kept"]]
    assert detector.method == kept.split()[0] and detector.method in ("frames", "fusion")
    assert {"frames", "matched_filter"} < set(table)
    assert table["frames"] > table["matched_filter"] + 0.2
    recording, reference = data[5]
    found = evlib.detect(detector, recording)
    report = evlib.compare(reference, found, 0.02, 0.3)
    assert report.f1 > 0.8 and report.refractory_violations()["estimated"] == 0
    assert all(name in repr(detector) for name in table)


@pytest.mark.slow
def test_fixed_shapes_stay_with_their_templates():
    """A few labels of a simulated frame: nothing is learned from the signal itself, and the table says so."""
    simulation = evlib.make_recording(make_templates(4, seed=1), 40.0, seed=1)
    options = {"labels_per_type": 3, "max_epochs": 1, "hidden_size": 8, "progress": False}
    detector = evlib.fit([tuple(simulation)], **options)
    assert detector.method in ("lstm", "matched_filter") and detector.frames is None
    assert {row["method"] for row in detector.metadata["compared"]} == {"lstm", "matched_filter"}
