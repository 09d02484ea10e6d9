"""Fit with the event-specific model: it detects in continuous signal, keeps its templates, and is saved whole."""

import numpy as np
import pytest

import evlib
from evlib.networks.event_specific import EventSpecificClassifier
from evlib.signals.errors import OptionError
from evlib.signals.synthetic import make_templates
from evlib.training import event_specific as classifier_training

RATE = 2000.0


@pytest.fixture(scope="module")
def simulations():
    templates = make_templates(2, seed=1)
    return [evlib.make_recording(templates, 40.0, 15.0, seed=seed) for seed in (1, 2)]


@pytest.fixture(scope="module")
def detector(simulations):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(classifier_training, "N_WINDOWS", 512)
        patch.setattr(classifier_training, "N_DEVELOPMENT_WINDOWS", 128)
        options = {"method": "event_specific", "hidden_size": 8, "max_epochs": 4, "progress": False}
        return evlib.fit([tuple(simulations[0])], **options)


@pytest.fixture(scope="module")
def estimated(detector, simulations):
    return evlib.detect(detector, simulations[1].recording)


def test_it_finds_the_events_to_a_fraction_of_a_sample(detector, estimated, simulations):
    report = evlib.compare(simulations[1].events, estimated)
    assert detector.method == "event_specific" and report.f1 > 0.9
    timing = report.timing()
    assert timing["rmse_ms"] < 0.25 and abs(timing["bias_ms"]) < 0.1  # half a sample, and a fifth of one


def test_its_templates_stay_those_of_the_kinds(detector, simulations):
    bank = detector.classifier.template_bank
    learned = bank.apply_delays().detach().numpy().transpose(0, 2, 1)
    before_s = (bank.before + bank.max_delay_samples) / RATE
    true = simulations[0].templates.sampled(RATE, before_s, learned.shape[1] / RATE - before_s)
    true = detector.whitener.filter_templates(true)[:, : learned.shape[1]]
    for e in range(2):
        assert np.corrcoef(learned[e].ravel(), true[e].ravel())[0, 1] > 0.95


def test_a_saved_model_finds_exactly_the_same(detector, estimated, simulations, tmp_path):
    detector.save(tmp_path / "detector.ckpt")
    again = evlib.load_detector(tmp_path / "detector.ckpt")
    assert isinstance(again.classifier, EventSpecificClassifier) and again.method == "event_specific"
    found = evlib.detect(again, simulations[1].recording)
    np.testing.assert_array_equal(found.time_samples, estimated.time_samples)
    np.testing.assert_array_equal(found.score, estimated.score)


@pytest.mark.parametrize("block_s", [1.7, 13.3])
def test_block_size_changes_nothing(detector, estimated, simulations, block_s):
    found = evlib.detect(detector, simulations[1].recording, block_s=block_s)
    assert found.type.tolist() == estimated.type.tolist()
    np.testing.assert_allclose(found.time_samples, estimated.time_samples, atol=0.01)


def test_it_takes_no_encoder(simulations):
    with pytest.raises(OptionError, match='use method="frames"'):
        evlib.fit([tuple(simulations[0])], method="event_specific", pretrain="autoencoder", progress=False)


def test_its_probabilities_can_be_believed(detector, simulations):
    """Windows teach a classifier other odds than those of its candidates; a fit on development data mends that."""
    found = evlib.detect(detector, simulations[1].recording, threshold=0.02)
    stated = evlib.compare(simulations[1].events, found).calibration()
    assert stated["ece"] < 0.1
    assert detector.calibration != (1.0, 0.0)
