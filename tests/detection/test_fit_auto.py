"""The methods that hear the signal itself, and the choice among all: what data carry, what is kept of it, and files."""

import numpy as np
import pytest
import torch

import evlib
from evlib.detection.fusion import weigh
from evlib.signals.errors import OptionError
from evlib.signals.synthetic import make_templates
from evlib.training import frames as frame_training

RATE, KINDS = 400.0, ("high", "low")


def bursts(seed, seconds=60.0, n=60):
    """Noise bursts whose shape is new each time: what stays is their band, which no template can hold."""
    rng = np.random.default_rng(seed)
    signal = 0.2 * rng.standard_normal((int(seconds * RATE), 2))
    onset = np.sort(rng.choice(np.arange(1.0, seconds - 1.0, 0.7), n, replace=False)) + rng.uniform(0, 0.1, n)
    type = rng.integers(0, 2, n)
    decay = np.exp(-np.arange(80) / 20)[:, None]
    for time, kind in zip(onset, type, strict=True):
        wave = rng.standard_normal((81, 2))
        wave = (np.diff(wave, axis=0) if kind == 0 else 0.5 * np.cumsum(wave, axis=0)[1:]) * decay
        start = int(round(time * RATE))
        signal[start : start + 80] += wave
    return evlib.Recording(signal, RATE), evlib.Events.from_seconds(onset, type, RATE, KINDS)


@pytest.fixture(scope="module")
def data():
    return [bursts(seed) for seed in range(6)]


@pytest.fixture(scope="module")
def detector(data):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(frame_training, "EPOCH_FRAMES", 16_384)
        return evlib.fit(data[:5], refractory_s=0.3, hidden_size=16, max_epochs=10, progress=False)


def test_where_shapes_vary_the_signal_is_read_itself(detector, data):
    table = {row["method"]: row["f1"] for row in detector.metadata["compared"]}
    (kept,) = [row["method"] for row in detector.metadata["compared"] if row["kept"]]
    assert detector.method in ("frames", "fusion") and kept in (
        "frames",
        "fusion with matched_filter",
        "fusion with lstm",
    )
    assert {"frames", "matched_filter"} < set(table)
    assert table["frames"] > table["matched_filter"] + 0.2
    recording, reference = data[5]
    report = evlib.compare(reference, evlib.detect(detector, recording), 0.02, 0.3)
    assert report.f1 > 0.8 and report.refractory_violations()["estimated"] == 0
    for name in table:
        assert name in repr(detector)


def test_a_file_rebuilds_it(detector, data, tmp_path):
    detector.save(tmp_path / "auto.ckpt")
    again = evlib.load_detector(tmp_path / "auto.ckpt")
    first, second = (evlib.detect(d, data[5][0]) for d in (detector, again))
    assert repr(again) == repr(detector) and again.metadata == detector.metadata
    np.testing.assert_array_equal(first.time_samples, second.time_samples)
    np.testing.assert_array_equal(first.score, second.score)


@pytest.mark.parametrize("block_s", [1.0, 7.0])
def test_blocks_change_nothing(detector, data, block_s):
    first, second = (evlib.detect(detector, data[5][0], block_s=s) for s in (60.0, block_s))
    assert first.type.tolist() == second.type.tolist()
    np.testing.assert_allclose(first.time_samples, second.time_samples, atol=0.01)


def test_the_weights_are_what_is_decided_by(detector, data):
    found = detector.candidates(data[5][0])
    odds = np.zeros(len(found)) if not detector.hears_templates else detector.template_odds(found)
    np.testing.assert_allclose(detector.log_odds(found), weigh(detector.weights, odds, found.frame))


def test_fixed_shapes_stay_with_their_templates():
    """A few labels of a simulated frame: nothing is learned from the signal itself, and the table says so."""
    simulation = evlib.make_recording(make_templates(4, seed=1), 40.0, seed=1)
    options = {"labels_per_type": 3, "max_epochs": 1, "hidden_size": 8, "progress": False}
    detector = evlib.fit([tuple(simulation)], **options)
    assert detector.method in ("lstm", "matched_filter") and detector.frames is None
    assert {row["method"] for row in detector.metadata["compared"]} == {"lstm", "matched_filter"}


def test_frames_and_fusion_by_name(monkeypatch):
    monkeypatch.setattr(frame_training, "EPOCH_FRAMES", 2048)
    simulation = evlib.make_recording(make_templates(3, seed=1), 40.0, seed=1)
    options = {"max_epochs": 1, "hidden_size": 8, "progress": False}
    frames = evlib.fit([tuple(simulation)], "frames", **options)
    assert frames.method == "frames" and frames.network is None and not frames.hears_templates
    again = evlib.fit([tuple(simulation)], "frames", **options)
    for a, b in zip(frames.frames.state_dict().values(), again.frames.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    fusion = evlib.fit([tuple(simulation)], "fusion", **options)
    assert fusion.frames is not None and fusion.network is not None
    # A network that has seen forty batches knows nothing yet: the templates decide.
    test = evlib.make_recording(make_templates(3, seed=1), 40.0, seed=2)
    assert evlib.compare(test.events, evlib.detect(fusion, test.recording)).f1 > 0.95


def test_what_is_gone_is_named(data):
    with pytest.raises(OptionError, match="method='frames', which learns from labelled events as they were recorded"):
        evlib.fit(data[:1], "classifier")
    with pytest.raises(OptionError, match=r"method must be one of \('auto', "):
        evlib.fit(data[:1], "magic")
