"""What a detector promises whatever its method: invariance, reproducibility, safe files, one clear refusal each."""

import os
import pickle
from dataclasses import FrozenInstanceError

import numpy as np
import pytest
import torch
from required import some_slow

import evlib
from evlib.networks.event_specific import EventSpecificClassifier
from evlib.scoring.refractory import find_violations
from evlib.signals.errors import DataError, OptionError, ShapeError, UnitError
from evlib.signals.synthetic import make_templates
from evlib.training import event_specific as event_specific_training
from evlib.training import frames as frame_training

RATE = 2000.0
OPTIONS = {
    "matched_filter": {},
    "lstm": {"hidden_size": 16, "max_epochs": 2},
    "fusion": {"hidden_size": 8, "max_epochs": 1},
    "event_specific": {"hidden_size": 8, "max_epochs": 4},
}


@pytest.fixture(scope="module")
def simulations():
    templates = make_templates(3, seed=4)
    return [evlib.make_recording(templates, 40.0, snr=13.0, seed=seed) for seed in (1, 2)]


@pytest.fixture(scope="module", params=some_slow(OPTIONS, "matched_filter", "lstm"))
def detector(request, simulations):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(event_specific_training, "N_WINDOWS", 768)
        patch.setattr(event_specific_training, "N_DEVELOPMENT_WINDOWS", 128)
        patch.setattr(frame_training, "EPOCH_FRAMES", 2048)
        return evlib.fit([tuple(simulations[0])], request.param, seed=3, progress=False, **OPTIONS[request.param])


@pytest.fixture(scope="module")
def plain(simulations):
    return evlib.fit([tuple(simulations[0])], "matched_filter", seed=3, progress=False)


@pytest.fixture(scope="module")
def estimated(detector, simulations):
    return evlib.detect(detector, simulations[1].recording)


def same_events(first, second, tolerance_samples=0.01):
    assert first.type.tolist() == second.type.tolist()
    np.testing.assert_allclose(first.time_samples, second.time_samples, atol=tolerance_samples)


def test_finds_the_events_in_time(detector, estimated, simulations):
    report, timing = (result := evlib.compare(simulations[1].events, estimated)), result.timing()
    assert report.f1 > (0.9 if detector.method == "event_specific" else 0.97)
    assert timing["rmse_ms"] < 0.3 and abs(timing["bias_ms"]) < 0.1
    assert ((estimated.score > 0) & (estimated.score < 1 + 1e-12)).all()
    assert (estimated.sigma_s > 0).all()


def test_stated_times_and_scores_can_be_believed(detector, estimated, simulations):
    stated = evlib.compare(simulations[1].events, estimated).calibration()
    # Of some 60 hits: three standard deviations of a share are 0.18 and 0.085.
    assert stated["coverage_68"] == pytest.approx(0.683, abs=0.18)
    assert stated["coverage_95"] == pytest.approx(0.95, abs=0.085)
    # Windows teach other odds than those of candidates, and the network of frames has hardly learned here.
    assert stated["ece"] < {"event_specific": 0.1, "fusion": 0.2}.get(detector.method, 0.03)


def test_start_offset_changes_nothing(detector, estimated, simulations):
    if detector.classifier is not None or detector.frames is not None:
        return  # windows and frames begin at multiples of their hop
    recording = simulations[1].recording
    for offset in (1, 2, 3, 5, 9):
        moved = evlib.detect(detector, evlib.Recording(recording.read(offset), RATE)).shift(offset)
        inside = 1000, recording.n_samples - 1000
        same_events(estimated.within(*inside), moved.within(*inside))


@pytest.mark.parametrize("block_s", [1.7, 13.3])
def test_block_size_changes_nothing(detector, estimated, simulations, block_s):
    same_events(estimated, evlib.detect(detector, simulations[1].recording, block_s=block_s))


def test_events_judged_while_the_search_goes_on_are_those_of_all_candidates(detector, estimated, simulations):
    whole = detector.decode(detector.candidates(simulations[1].recording))
    assert np.array_equal(whole.time_samples, estimated.time_samples) and np.array_equal(whole.score, estimated.score)


def test_a_part_has_the_candidates_of_the_whole(detector, simulations):
    recording = simulations[1].recording
    whole, start = detector.candidates(recording), -(-20_000 // detector.grid_samples) * detector.grid_samples
    stop = min(start + max(20_000, detector.grid_samples), recording.n_samples)
    part = detector.candidates(recording, start, stop)
    inside = whole[(whole.time >= start - 0.5) & ((whole.time < stop - 0.5) | (stop == recording.n_samples))]
    assert part.type.tolist() == inside.type.tolist() and len(part) > 10
    np.testing.assert_allclose(part.time, inside.time, atol=0.01)


def test_parts_of_the_candidates_change_nothing(detector, simulations, monkeypatch):
    found = detector.candidates(simulations[1].recording)
    whole = detector.log_odds(found)
    monkeypatch.setattr("evlib.detection.rhythm.PART_S", 7.0)
    monkeypatch.setattr("evlib.detection.rhythm.HALO_S", 10.0)
    np.testing.assert_allclose(detector.log_odds(found), whole, atol=0.02)


def test_refractory_rule_holds_at_any_threshold(detector, simulations):
    for threshold in (0.001, 0.2, 0.999):
        found = evlib.detect(detector, simulations[1].recording, threshold=threshold)
        assert len(find_violations(found, 2.0)[0]) == 0
        assert len(found) or threshold > 0.2


def test_a_saved_detector_finds_the_same(detector, estimated, simulations, tmp_path):
    detector.save(tmp_path / "d.ckpt")
    again = evlib.load_detector(tmp_path / "d.ckpt")
    found = evlib.detect(again, simulations[1].recording)
    assert np.array_equal(found.time_samples, estimated.time_samples) and np.array_equal(found.score, estimated.score)
    assert again.metadata == detector.metadata and repr(again) == repr(detector) and again.method == detector.method
    assert [p.name for p in tmp_path.iterdir()] == ["d.ckpt"]  # nothing half written lies around


def test_a_detector_does_not_change(plain):
    with pytest.raises(FrozenInstanceError):
        plain.thresholds = np.zeros(3)


def test_an_event_specific_model_keeps_the_templates_of_its_types(detector, simulations):
    if detector.classifier is None:
        return
    assert isinstance(detector.classifier, EventSpecificClassifier) and detector.calibration != (1.0, 0.0)
    bank = detector.classifier.template_bank
    learned = bank.apply_delays().detach().numpy().transpose(0, 2, 1)
    before_s = (bank.before + bank.max_delay_samples) / RATE
    true = simulations[0].templates.sampled(RATE, before_s, learned.shape[1] / RATE - before_s)
    true = detector.whitener.filter_templates(true)[:, : learned.shape[1]]
    assert min(np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in zip(learned, true, strict=True)) > 0.95


def test_gain_and_offset_of_the_signal_do_not_matter(plain, simulations):
    volts = [evlib.Recording(s.recording.read().astype(np.float64) * 1e-6 + 3.0, RATE) for s in simulations]
    scaled = evlib.fit([(volts[0], simulations[0].events)], "matched_filter", progress=False)
    found = [evlib.detect(plain, simulations[1].recording), evlib.detect(scaled, volts[1])]
    assert evlib.compare(*found, tolerance_s=0.001).f1 > 0.99  # float32 of 3.0 +- 1e-5 keeps two digits of the signal


def test_strong_events_do_not_spoil_the_noise_estimate():
    templates = make_templates(6, seed=3)
    train, test = (evlib.make_recording(templates, 40.0, snr=300.0, seed=seed) for seed in (1, 2))
    detector = evlib.fit([tuple(train)], method="matched_filter", progress=False)
    assert evlib.compare(test.events, evlib.detect(detector, test.recording)).f1 > 0.99


class Hostile:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


DAMAGE = {
    "truncated": lambda path, hostile: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "empty": lambda path, hostile: path.write_bytes(b""),
    "pickle": lambda path, hostile: path.write_bytes(pickle.dumps(hostile)),
    "torch pickle": lambda path, hostile: change(path, metadata=hostile),
    "another checkpoint": lambda path, hostile: change(path, model_class="LSTMEventClassifier"),
    "future format": lambda path, hostile: change(path, format=99),
    "missing parts": lambda path, hostile: change(path, model_state_dict={}),
    "another network": lambda path, hostile: change(path, frames={"config": {"magic": 1}, "state": {}}),
    "no such file": lambda path, hostile: path.unlink(),
}


def change(path, **parts):
    torch.save(torch.load(path, weights_only=True) | parts, path)


@pytest.mark.parametrize("kind", DAMAGE)
def test_damaged_or_hostile_files_are_refused(kind, plain, tmp_path):
    plain.save(tmp_path / "bad.ckpt")
    DAMAGE[kind](tmp_path / "bad.ckpt", Hostile(tmp_path / "owned"))
    with pytest.raises(DataError, match=r"bad\.ckpt"):
        evlib.load_detector(tmp_path / "bad.ckpt")
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize(
    ("recording", "error", "words"),
    [
        (lambda r: evlib.Recording(r.read(), 1000.0), UnitError, "2000 Hz.*1000 Hz.*resample"),
        (lambda r: evlib.Recording(r.read()[:, :5], RATE), ShapeError, "6 channels.*5"),
    ],
)
def test_recordings_that_do_not_fit_are_refused(plain, simulations, recording, error, words):
    with pytest.raises(error, match=words):
        evlib.detect(plain, recording(simulations[1].recording))


@pytest.mark.parametrize("threshold", [0, 1, 50, -0.1, "high", True, {"event_99": 0.5}, float("nan")])
def test_bad_thresholds_are_refused(plain, simulations, threshold):
    with pytest.raises(OptionError, match="threshold"):
        evlib.detect(plain, simulations[1].recording, threshold=threshold)


@pytest.mark.parametrize("block_s", [0, -1.0, float("nan")])
def test_bad_blocks_are_refused(plain, simulations, block_s):
    with pytest.raises(OptionError, match="block_s"):
        evlib.detect(plain, simulations[1].recording, block_s=block_s)


RECORDING, EVENTS = evlib.Recording(np.zeros((100, 1)), 100), evlib.Events.from_seconds([0.5], ["a"], 100)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: evlib.detect("a.ckpt", RECORDING), "detector must be Detector, got str"),
        (lambda: evlib.detect(RECORDING, "a.ckpt"), "detector must be Detector, got Recording"),
        (lambda: evlib.validate("a.npz"), "recording must be Recording, got str (evlib.read_recording reads a file)"),
        (lambda: evlib.validate(RECORDING, "a.tsv"), "events must be Events, got str (evlib.read_events"),
        (lambda: evlib.compare("a.tsv", EVENTS), "reference must be Events, got str"),
        (lambda: evlib.compare(EVENTS, RECORDING), "estimated must be Events, got Recording"),
        (lambda: evlib.EventBrowser("a.npz", EVENTS), "recording must be Recording, got str"),
        (lambda: evlib.EventBrowser(RECORDING, "a.tsv"), "reference must be Events, got str"),
        (lambda: evlib.Annotator("a.npz", names=["a"]), "recording must be Recording, got str"),
        (lambda: evlib.Annotator(RECORDING, "a.ckpt"), "detector must be Detector, got str"),
        (lambda: evlib.ThresholdExplorer("a.ckpt", RECORDING, EVENTS), "detector must be Detector, got str"),
        (lambda: evlib.write_events("a.tsv", EVENTS), "events must be Events, got str"),
        (lambda: evlib.write_recording("a.npz", RECORDING), "recording must be Recording, got str"),
        (lambda: evlib.fit([("a.npz", "a.tsv")]), "got (str, str)"),
        (lambda: evlib.fit([(EVENTS, RECORDING)]), "got (Events, Recording)"),
        (lambda: evlib.fit((RECORDING, EVENTS)), "got Recording"),
    ],
)
def test_paths_and_swapped_arguments_are_refused_by_name(call, words):
    with pytest.raises(evlib.EvlibError) as error:
        call()
    assert words in str(error.value)
