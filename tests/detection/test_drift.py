"""Templates follow events that slowly change, stay where nothing drifts, and a recording's drift is said."""

from dataclasses import replace

import numpy as np
import pytest
from planted import RATE, make_bank, make_templates, plant, schedule

import evlib
from evlib.detection.drift import template_drift
from evlib.detection.oracle import oracle_detector
from evlib.networks.frames import FrameNetwork
from evlib.signals.clock import split_time
from evlib.signals.errors import OptionError
from evlib.signals.recording import Recording
from evlib.templates import drift
from evlib.templates.drift import DriftingTemplates
from evlib.templates.hybrid import HybridRecordings
from evlib.templates.pursue import explain
from evlib.templates.whiten import design_whitener

MINUTES = 4


@pytest.fixture
def brisk(monkeypatch):
    """Templates follow in minutes, not in hours."""
    monkeypatch.setattr(drift, "STRETCH_S", 20.0)
    monkeypatch.setattr(drift, "MEMORY_S", 40.0)


@pytest.fixture(scope="module")
def simulation():
    return evlib.make_recording(make_templates(4, seed=2), 60.0 * MINUTES, seed=5)


@pytest.fixture(scope="module")
def detector(simulation):
    """Of whitened signal."""
    return replace(oracle_detector(simulation), whitener=design_whitener(np.ones((6, 9)), RATE))


@pytest.fixture(scope="module")
def hybrid(simulation, detector):
    """The recording's own background, events of the templates that turn into those of a sensor that was turned, and
    when they are."""
    white = oracle_detector(simulation).whitener(simulation.recording)
    (piece,) = HybridRecordings(detector.bank, [white], [simulation.events], np.full(4, 2 * RATE)).pieces
    background, time, type = piece.background, piece.time, piece.type
    n, turned = len(background), replace(detector.bank, templates=np.roll(detector.bank.templates, 1, axis=2))
    amplitude = np.exp(0.2 * np.random.default_rng(0).standard_normal(len(time)))
    share = np.clip(time / n, 0, 1)
    signal = background + detector.bank.render(n, time, type, amplitude * (1 - share))
    signal += turned.render(n, time, type, amplitude * share)
    return Recording(signal, RATE), evlib.Events(*split_time(time), type, detector.names, RATE)


def last_part(events):
    return events.within(int(60 * (MINUTES - 1) * RATE), int(60 * MINUTES * RATE))


def test_hybrid_truth_with_drift(hybrid, detector, brisk):
    recording, truth = hybrid
    plain, adapted = (evlib.detect(detector, recording, adapt=adapt) for adapt in (False, True))
    before, after = (evlib.compare(last_part(truth), last_part(found)) for found in (plain, adapted))
    assert before.f1 < 0.6 < 0.97 < after.f1
    assert after.timing()["rmse_ms"] < 0.5
    same = evlib.detect(detector, recording, adapt=True, block_s=7.0)
    assert same.type.tolist() == adapted.type.tolist()
    np.testing.assert_allclose(same.time_samples, adapted.time_samples, atol=0.01)


def test_where_nothing_drifts_templates_stay(brisk):
    rng, templates = np.random.default_rng(1), make_templates(3, seed=1)
    bank = make_bank(templates)
    time, type, n = schedule(rng, 400, 3)
    signal = plant(templates, time, type, 15.0, n, rng)
    found, _ = explain(bank, signal)
    drifting = DriftingTemplates(bank, RATE)
    stop = n // drifting.stretch * drifting.stretch
    drifting.note(signal, 0, found, 0, stop)
    assert stop > 0 and drifting.weight.min() > 10
    assert drifting.bank is bank and drifting.share() < 0.002


def test_what_is_hidden_is_no_example():
    rng, templates = np.random.default_rng(1), make_templates(3, seed=1)
    bank = make_bank(templates)
    time, type, n = schedule(rng, 100, 3)
    signal = plant(templates, time, type, 15.0, n, rng)
    signal[:, 2] = 0
    drifting = DriftingTemplates(bank, RATE)
    drifting.note(signal, 0, explain(bank, signal)[0], 0, n)
    assert not drifting.weight.any() and not drifting.moves().any() and drifting.share() == 0


def test_a_state_goes_on(hybrid, detector, brisk):
    recording, _ = hybrid
    whole, first = detector.drifting_templates(), detector.drifting_templates()
    half = 2 * whole.stretch
    for drifting in (whole, first):
        for start in (0, whole.stretch):
            detector.search(recording, start, start + whole.stretch, drifting)
    second = detector.drifting_templates()
    second.restore(first.state())
    for drifting in (whole, second):
        detector.search(recording, half, half + whole.stretch, drifting)
    assert (whole.bank.templates == second.bank.templates).all() and whole.share() == second.share() > 0.01
    assert (first.bank.templates != second.bank.templates).any(), "a state is a copy"


def test_drift_is_said(hybrid, simulation, detector):
    recording, truth = hybrid
    found = template_drift(detector, recording)
    assert (np.diff(found.share[:3]) > 0.03).all() and found.share[0] < 0.05
    report = evlib.validate(recording, truth, detector=detector)
    assert any("otherwise than in training" in problem.message for problem in report.problems)
    assert not oracle_detector(simulation).drift_problems(simulation.recording)


def test_a_network_alone_has_no_templates_that_could_follow(detector, hybrid):
    without = replace(detector, frames=FrameNetwork(6, 4), weights=(0.0, 1.0, 0.0))
    with pytest.raises(OptionError, match="frames has no templates"):
        evlib.detect(without, hybrid[0], adapt=True)
    assert template_drift(without, hybrid[0]) is None
