"""Fit with what was learned without labels: discovered kinds, pretrained encoders, and the frame network that takes
them."""

from pathlib import Path

import numpy as np
import pytest
import torch

import evlib
from evlib.signals.errors import OptionError, ShapeError, UnitError
from evlib.signals.synthetic import make_templates
from evlib.training import frames as frame_training

RATE = 2000.0
# An encoder, and a frame network around it, as small as they can be.
TINY = {"hidden_size": 8, "max_epochs": 2, "progress": False}


@pytest.fixture(autouse=True, scope="module")
def few_steps():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(frame_training, "EPOCH_FRAMES", 3072)
        yield


def simulate(n_types, duration_s, snr, **options):
    templates = make_templates(n_types, seed=options.pop("templates_seed", 1))
    return [evlib.make_recording(templates, duration_s, snr, seed=seed, **options) for seed in (1, 2)]


@pytest.fixture(scope="module")
def short():
    return simulate(2, 20.0, 20.0)


@pytest.fixture(scope="module")
def quiet():
    """Four kinds near the noise: too faint for a template from one label."""
    return simulate(4, 50.0, 8.0, templates_seed=3)


@pytest.fixture(scope="module")
def pretrained(short):
    return evlib.pretrain(
        [short[0].recording], "masked", seed=3, hidden_size=8, n_windows=64, window_s=0.25, max_epochs=1, progress=False
    )


@pytest.fixture(scope="module")
def old(short):
    """A detector of both kinds."""
    return evlib.fit([tuple(short[0])], "matched_filter", progress=False)


def f1(detector, simulation):
    return evlib.compare(simulation.events, evlib.detect(detector, simulation.recording)).f1


def weights(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


def same_weights(first, second):
    first, second = (module if isinstance(module, dict) else module.state_dict() for module in (first, second))
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.slow
def test_discovery_needs_one_label_for_each_kind(quiet):
    """The label names the kind; its other events, which nobody labelled, make the template."""
    plain, discovered, found_before = (
        evlib.fit([tuple(quiet[0])], "matched_filter", labels_per_type=1, pretrain=pretrain, progress=False)
        for pretrain in (None, "discovery", evlib.discover([quiet[0].recording], progress=False))
    )
    assert set(discovered.metadata["n_labelled"].values()) == {1}
    assert discovered.metadata["pretrain"] == found_before.metadata["pretrain"] == "discovery"
    assert plain.metadata["pretrain"] is None and discovered.names == quiet[0].events.names
    assert f1(discovered, quiet[1]) > 0.9 and f1(found_before, quiet[1]) > 0.9
    assert f1(discovered, quiet[1]) >= f1(plain, quiet[1])


def test_discovery_does_no_harm_where_all_is_labelled(short, old):
    discovered = evlib.fit([tuple(short[0])], "matched_filter", pretrain="discovery", progress=False)
    assert f1(discovered, short[1]) >= f1(old, short[1]) - 0.02


def test_a_pretrained_encoder_starts_the_frame_network_with_its_whitener(short, pretrained, tmp_path):
    """The object and its file are the same start, whatever hidden_size says; fit leaves the object as it was."""
    before = weights(pretrained.encoder)
    pretrained.save(tmp_path / "a.enc")
    made = [
        evlib.fit([tuple(short[0])], "frames", pretrain=start, **TINY | {"hidden_size": 32})
        for start in (pretrained, str(tmp_path / "a.enc"))
    ]
    for detector in made:
        assert detector.method == "frames" and detector.frames.config["hidden_size"] == 8
        assert detector.metadata["pretrain"] == "masked" and detector.metadata["pretext"] == pretrained.metadata
        assert not detector.metadata["freeze_encoder"]
        assert same_weights(detector.frames, made[0].frames)
        assert np.array_equal(detector.thresholds, made[0].thresholds)
        for name in ("taps", "center"):
            assert np.array_equal(getattr(detector.whitener, name), getattr(pretrained.whitener, name))
    assert same_weights(pretrained.encoder, before)
    assert not same_weights(made[0].frames.encoder, before)


@pytest.mark.slow
def test_a_frozen_encoder_stays_as_it_is(short, pretrained):
    detector = evlib.fit(
        [tuple(short[0])], "frames", pretrain=pretrained, freeze_encoder=True, **TINY | {"max_epochs": 8}
    )
    assert same_weights(detector.frames.encoder, pretrained.encoder)
    assert detector.metadata["freeze_encoder"] is True
    # What stands on it has learned.
    losses = [row["train_total_loss"] for row in detector.metadata["history"]]
    assert losses[-1] < losses[0]


def test_pretraining_inside_of_fit(short, monkeypatch):
    def few(*arguments, **options):
        return evlib.pretrain(*arguments, **options | {"n_windows": 64, "window_s": 0.25, "max_epochs": 1})

    pretext = "contrastive"
    monkeypatch.setattr("evlib.detection.methods.pretrain", few)
    detector = evlib.fit(
        [tuple(short[0])], "frames", pretrain=pretext, labels_per_type=3, unlabelled=[short[1].recording], **TINY
    )
    assert detector.metadata["pretrain"] == detector.metadata["pretext"]["pretext"] == pretext
    assert detector.metadata["pretext"]["duration_s"] == 40.0  # it saw the unlabelled recording too
    assert detector.frames.config["hidden_size"] == 8


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"method": "lstm", "pretrain": "autoencoder"}, "method='lstm' .* has no encoder of the signal"),
        ({"method": "matched_filter", "pretrain": "contrastive"}, "method='matched_filter' .* has no encoder"),
        ({"method": "frames", "freeze_encoder": True}, "freeze_encoder=True needs a pretrained encoder"),
        ({"freeze_encoder": True}, "freeze_encoder=True needs"),
        ({"pretrain": "discovery", "freeze_encoder": True}, "freeze_encoder=True needs"),
        ({"pretrain": "nosuch.enc"}, "pretrain must be one of autoencoder, .*got 'nosuch.enc'"),
        ({"pretrain": "Autoencoder"}, "pretrain must be one of"),
        ({"method": "event_specific", "pretrain": "autoencoder"}, 'use method="frames"'),
        ({"pretrain": Path("nosuch.enc")}, "pretrain must be one of autoencoder, .*nosuch.enc"),
        ({"pretrain": 3}, "pretrain must be one of .*got 3"),
    ],
)
def test_contradictions_are_refused_before_any_work(short, monkeypatch, options, words):
    monkeypatch.setattr("evlib.detection.templates.estimate_whitener", None)
    with pytest.raises(OptionError, match=words):
        evlib.fit([tuple(short[0])], **TINY | options)


def test_a_detector_teaches_the_kinds_that_have_no_label(short, old):
    """With labels of one kind alone, the other is learned from what the old detector finds; labels win where there are
    any."""
    (recording, events), test = short
    first = evlib.Events.from_seconds(
        events.onset_s[events.type == 0][:3], ["event_00"] * 3, RATE, events.names, complete_spans_s=[]
    )
    forgetful = evlib.fit([(recording, first)], "matched_filter", progress=False)
    taught = evlib.fit([(recording, first)], "matched_filter", pretrain=old, progress=False)
    recall = [
        evlib.compare(test.events, evlib.detect(d, test.recording)).per_type()["recall"].to_list()
        for d in (forgetful, taught)
    ]
    assert recall[0][1] == 0 and min(recall[1]) > 0.9
    assert taught.metadata["pretrain"] == "detector"


@pytest.mark.parametrize("what", ["encoder", "discovery", "detector"])
def test_what_was_learned_from_other_recordings_is_refused_before_any_work(short, pretrained, old, monkeypatch, what):
    recording, events = short[0]
    found = evlib.discover(recording, progress=False) if what == "discovery" else None
    start = {"encoder": pretrained, "discovery": found, "detector": old}[what]
    monkeypatch.setattr("evlib.detection.templates.estimate_whitener", None)
    narrow = evlib.Recording(recording.read()[:, :5], RATE)
    for other, error, words in (
        (recording.resample(1000.0), UnitError, f"the {what} is for 2000 Hz, the recording has 1000 Hz"),
        (narrow, ShapeError, f"the {what} is for 6 channels, the recording has 5"),
    ):
        with pytest.raises(error, match=words):
            evlib.fit([(other, events)], pretrain=start, **TINY)


def test_a_detector_of_other_kinds_is_refused(short, old):
    recording, events = short[0]
    renamed = evlib.Events.from_seconds(events.onset_s, ["a"] * len(events), RATE)
    with pytest.raises(OptionError, match="the detector to start from knows event_00, event_01, the labels name a"):
        evlib.fit([(recording, renamed)], pretrain=old, **TINY)
