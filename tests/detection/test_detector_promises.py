"""What a detector promises whatever its method: invariance, reproducibility, safe files, one clear refusal each."""

import os
import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch

import evlib
from evlib.detection.development import Judged, timing_scale
from evlib.detection.oracle import oracle_detector
from evlib.scoring.refractory import find_violations
from evlib.signals.errors import DataError, OptionError, ShapeError, UnitError
from evlib.signals.synthetic import cramer_rao_bound_s, make_templates
from evlib.templates.hybrid import Examples
from evlib.templates.pursue import Candidates

RATE = 2000.0


@pytest.fixture(scope="module")
def simulations():
    templates = make_templates(6, seed=4)
    return [evlib.make_recording(templates, 40.0, snr=11.0, seed=seed) for seed in (1, 2)]


@pytest.fixture(scope="module", params=["matched_filter", "lstm"])
def detector(request, simulations):
    options = {} if request.param == "matched_filter" else {"hidden_size": 16, "max_epochs": 2}
    return evlib.fit([tuple(simulations[0])], method=request.param, seed=3, progress=False, **options)


@pytest.fixture(scope="module")
def estimated(detector, simulations):
    return evlib.detect(detector, simulations[1].recording)


def same_events(first, second, tolerance_samples=0.01):
    assert first.type.tolist() == second.type.tolist()
    np.testing.assert_allclose(first.time_samples, second.time_samples, atol=tolerance_samples)


def test_finds_the_events_in_time(estimated, simulations):
    report = evlib.compare(simulations[1].events, estimated)
    assert report.f1 > 0.97
    assert report.timing()["rmse_ms"] < 0.3
    assert ((estimated.score > 0) & (estimated.score < 1 + 1e-12)).all()
    assert (estimated.sigma_s > 0).all()


def test_stated_times_and_scores_can_be_believed(detector, estimated, simulations):
    stated = evlib.compare(simulations[1].events, estimated).calibration()
    # Of some 120 hits: three standard deviations of a share are 0.13 and 0.06.
    assert stated["coverage_68"] == pytest.approx(0.683, abs=0.13)
    assert stated["coverage_95"] == pytest.approx(0.95, abs=0.06)
    assert stated["ece"] < 0.03


def test_the_stated_sigma_follows_the_errors_of_development_data(detector):
    """Errors twice as large as the bound: stated times are twice as doubtful."""
    candidates = sure_candidates(detector, n=400)
    error = 2 * detector.timing_bound(candidates) * np.random.default_rng(0).standard_normal(len(candidates))
    examples = Examples(candidates, np.ones(400), np.ones(400), np.zeros(6), error)
    assert timing_scale(detector, Judged([], [examples], [])) == pytest.approx(2, rel=0.12)
    few = Examples(candidates[:10], np.ones(10), np.ones(10), np.zeros(6), error[:10])
    assert timing_scale(detector, Judged([], [few], [])) == 1.0  # too few to tell


def sure_candidates(detector, n):
    """Sure candidates of all types."""
    type, ones = np.arange(n) % len(detector.names), np.ones(n)
    return Candidates(1000.0 * np.arange(n), type, 200 * ones, 200 * ones, 200 * ones, ones, 0 * ones)


@pytest.mark.parametrize("offset", [1, 2, 3, 5, 7, 9])
def test_start_offset_changes_nothing(detector, estimated, simulations, offset):
    recording = simulations[1].recording
    moved = evlib.detect(detector, evlib.Recording(recording.read(offset), RATE)).shift(offset)
    inside = slice(1000, recording.n_samples - 1000)
    same_events(estimated.within(inside.start, inside.stop), moved.within(inside.start, inside.stop))


@pytest.mark.parametrize("block_s", [1.7, 5.0, 13.3])
def test_block_size_changes_nothing(detector, estimated, simulations, block_s):
    same_events(estimated, evlib.detect(detector, simulations[1].recording, block_s=block_s))


def test_windows_of_the_network_change_nothing(detector, simulations, monkeypatch):
    found = detector.candidates(simulations[1].recording)
    whole = detector.log_odds(found)
    monkeypatch.setattr("evlib.detection.detector.WINDOW_CANDIDATES", 100)
    monkeypatch.setattr("evlib.detection.detector.HALO_CANDIDATES", 200)
    np.testing.assert_allclose(detector.log_odds(found), whole, atol=2e-3)


def test_refractory_rule_holds_at_any_threshold(detector, simulations):
    for threshold in (0.001, 0.2, 0.999):
        found = evlib.detect(detector, simulations[1].recording, threshold=threshold)
        pairs, _ = find_violations(found, 2.0)
        assert len(found) and len(pairs) == 0


def test_gain_and_offset_of_the_signal_do_not_matter(simulations):
    recording, events = simulations[0]
    plain = evlib.detect(
        evlib.fit([(recording, events)], method="matched_filter", progress=False), simulations[1].recording
    )
    volts = [evlib.Recording(s.recording.read().astype(np.float64) * 1e-6 + 3.0, RATE) for s in simulations]
    scaled = evlib.detect(evlib.fit([(volts[0], events)], method="matched_filter", progress=False), volts[1])
    report = evlib.compare(plain, scaled, tolerance_s=0.001)
    assert report.f1 > 0.99  # float32 of 3.0 +- 1e-5 keeps two digits of the signal


def test_same_seed_same_detector_and_no_global_state(simulations):
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    options = {"method": "lstm", "seed": 1, "hidden_size": 8, "max_epochs": 1, "labels_per_type": 5, "progress": False}
    first, second = (evlib.fit([tuple(simulations[0])], **options) for _ in range(2))
    assert torch.equal(before, torch.random.get_rng_state())
    np.testing.assert_array_equal(first.thresholds, second.thresholds)
    np.testing.assert_array_equal(first.bank.templates, second.bank.templates)
    for a, b in zip(first.network.state_dict().values(), second.network.state_dict().values(), strict=True):
        assert torch.equal(a, b)


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


def test_development_blocks_are_held_out(simulations):
    recording, events = simulations[0]
    metadata = evlib.fit([(recording, events)], method="matched_filter", progress=False).metadata
    edges = np.linspace(0, recording.n_samples, 11).astype(int)
    held = sum(int(((events.sample >= edges[k]) & (events.sample < edges[k + 1])).sum()) for k in (3, 8))
    assert sum(metadata["n_labelled"].values()) == len(events) - held
    assert metadata["development_events"] == held


def test_self_training_uses_unlabelled_signal():
    templates = make_templates(6, seed=9)
    train, test = (evlib.make_recording(templates, 90.0, snr=6.0, seed=seed) for seed in (1, 2))
    f1 = {}
    for self_train in (False, True):
        options = {"method": "matched_filter", "labels_per_type": 3, "self_train": self_train, "progress": False}
        detector = evlib.fit([tuple(train)], **options)
        f1[self_train] = evlib.compare(test.events, evlib.detect(detector, test.recording)).f1
    assert f1[True] > f1[False]


def test_strong_events_do_not_spoil_the_noise_estimate():
    templates = make_templates(6, seed=3)
    train, test = (evlib.make_recording(templates, 40.0, snr=300.0, seed=seed) for seed in (1, 2))
    detector = evlib.fit([tuple(train)], method="matched_filter", progress=False)
    assert evlib.compare(test.events, evlib.detect(detector, test.recording)).f1 > 0.99


def test_oracle_is_near_the_cramer_rao_bound(simulations):
    train, test = simulations
    report = evlib.compare(test.events, evlib.detect(oracle_detector(train), test.recording))
    bound_ms = 1e3 * np.sqrt(np.mean(cramer_rao_bound_s(test) ** 2))
    assert report.f1 > 0.97
    assert 0.9 * bound_ms < report.timing()["rmse_ms"] < 2 * bound_ms


def test_saved_detector_finds_the_same(detector, estimated, simulations, tmp_path):
    detector.save(tmp_path / "d.ckpt")
    again = evlib.load_detector(tmp_path / "d.ckpt")
    same_events(estimated, evlib.detect(again, simulations[1].recording), 1e-6)
    assert again.metadata == detector.metadata
    assert [p.name for p in tmp_path.iterdir()] == ["d.ckpt"]  # nothing half written lies around


class Hostile:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def damaged(kind, detector, tmp_path):
    path = tmp_path / "bad.ckpt"
    detector.save(path)
    content = path.read_bytes()
    if kind == "truncated":
        path.write_bytes(content[: len(content) // 2])
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "pickle":
        path.write_bytes(pickle.dumps(Hostile(tmp_path / "owned")))
    elif kind == "torch pickle":
        torch.save({"kind": "evlib detector", "format": 1, "x": Hostile(tmp_path / "owned")}, path)
    elif kind == "another checkpoint":
        torch.save({"model_state_dict": {}}, path)
    elif kind == "future format":
        torch.save({"kind": "evlib detector", "format": 99}, path)
    elif kind == "missing parts":
        torch.save({"kind": "evlib detector", "format": 1, "tensors": {}}, path)
    return path


@pytest.mark.parametrize(
    "kind", ["truncated", "empty", "pickle", "torch pickle", "another checkpoint", "future format", "missing parts"]
)
def test_damaged_or_hostile_files_are_refused(kind, detector, tmp_path):
    with pytest.raises(DataError, match=r"bad\.ckpt"):
        evlib.load_detector(damaged(kind, detector, tmp_path))
    assert not (tmp_path / "owned").exists()


def with_nan(recording):
    signal = recording.read().copy()
    signal[5000, 2] = np.nan
    return evlib.Recording(signal, RATE)


@pytest.mark.parametrize(
    ("recording", "error", "words"),
    [
        (lambda r: evlib.Recording(r.read(), 1000.0), UnitError, "1000 Hz.*2000 Hz.*resample"),
        (lambda r: evlib.Recording(r.read()[:, :5], RATE), ShapeError, "5 channels.*6"),
        (with_nan, DataError, "NaN.*sample 5000"),
    ],
)
def test_recordings_that_do_not_fit_are_refused(detector, simulations, recording, error, words):
    with pytest.raises(error, match=words):
        evlib.detect(detector, recording(simulations[1].recording))


@pytest.mark.parametrize("threshold", [0, 1, 50, -0.1, "high", True, {"event_99": 0.5}, float("nan")])
def test_bad_thresholds_are_refused(detector, simulations, threshold):
    with pytest.raises(OptionError, match="threshold"):
        evlib.detect(detector, simulations[1].recording, threshold=threshold)


def spoiled(name, simulations):
    recording, events = simulations[0]
    constant = recording.read().copy()
    constant[:, 3] = 7.0
    late = evlib.Events.from_seconds([1.0, 99.0], ["event_00", "event_00"], RATE)
    return {
        "empty list": [],
        "bare pair": (recording, events),
        "swapped": [(events, recording)],
        "outside": [(recording, late)],
        "no rows": [(recording, evlib.Events.empty(("a",), RATE))],
        "nan": [(with_nan(recording), events)],
        "constant": [(evlib.Recording(constant, RATE), events)],
        "two rates": [(recording, events), (recording.resample(1000.0), events)],
        "short": [(recording.between(0, 0.5), events.within(0, 900))],
    }[name]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("empty list", "at least one"),
        ("bare pair", "list of"),
        ("swapped", "list of"),
        ("outside", "1 labels lie outside.*99.000 s"),
        ("no rows", "not one labelled event"),
        ("nan", "NaN"),
        ("constant", "ch4 is constant"),
        ("two rates", "one rate"),
        ("short", "too short"),
    ],
)
def test_training_data_that_cannot_be_used_are_refused(simulations, name, words):
    with pytest.raises(evlib.EvlibError, match=words):
        evlib.fit(spoiled(name, simulations), method="matched_filter", progress=False)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"method": "magic"}, "method"),
        ({"labels_per_type": 0}, "labels_per_type"),
        ({"labels_per_type": 2.5}, "labels_per_type"),
        ({"refractory_s": -1.0}, "refractory"),
        ({"refractory_s": {"nobody": 1.0}}, "nobody"),
        ({"seed": -1}, "seed"),
        ({"hidden_size": 0}, "hidden_size"),
        ({"max_epochs": 0}, "max_epochs"),
        ({"tolerance_s": 5.0}, "milliseconds"),
        ({"template_s": (30, 30)}, "template_s"),
    ],
)
def test_bad_options_are_refused(simulations, options, words):
    with pytest.raises(evlib.EvlibError, match=words):
        evlib.fit([tuple(simulations[0])], progress=False, **options)


def test_a_type_without_labels_is_never_found(simulations):
    recording, events = simulations[0]
    more = events.with_names((*events.names, "never"))
    found = evlib.detect(evlib.fit([(recording, more)], method="matched_filter", progress=False), recording)
    assert "never" in found.names and "never" not in found.type_names
    assert len(found) > 0.9 * len(events)
