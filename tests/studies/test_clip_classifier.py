"""Classifiers of clips: what is written is what is read, files of any form, unknown names, folders that were tampered
with."""

import json

import numpy as np
import pytest
import torch

from evlib.signals.errors import DataError, OptionError, ShapeError
from evlib.studies.audio import ClipClassifier, class_codes, fit_clip_classifier, log_mel
from evlib.studies.sequences import HeartRateLSTM
from evlib.training.checkpoints import load, save_checkpoint

RATE = 8000
FEATURES = {"sampling_rate_hz": RATE, "n_fft": 256, "window": 200, "hop": 100, "n_mels": 12}
CLASSES = ("low", "high", "noise")


def clip(label, rng, seconds=0.3):
    """A deep or a high tone in noise, or noise alone."""
    t = np.arange(int(seconds * RATE)) / RATE
    tone = {"low": np.sin(2 * np.pi * 300 * t), "high": np.sin(2 * np.pi * 2000 * t), "noise": 0 * t}[label]
    return rng.uniform(0.1, 0.5) * tone + 0.1 * rng.standard_normal(len(t))


@pytest.fixture(scope="module")
def parts():
    rng = np.random.default_rng(0)
    labels = np.repeat(CLASSES, (14, 8, 4))
    return [
        ([log_mel(clip(label, rng, rng.uniform(0.1, 0.4)), **FEATURES) for label in labels], labels) for _ in range(3)
    ]


@pytest.fixture(scope="module")
def trained(parts):
    options = {
        "hidden_size": 8,
        "num_layers": 1,
        "lr": 0.02,
        "max_epochs": 40,
        "batch_size": 8,
        "dropout": 0.0,
        "patience": 15,
    }
    return fit_clip_classifier(*parts[:2], CLASSES, FEATURES, **options)


def test_learns_and_scores(trained, parts):
    model, history = trained
    scores = model.evaluate(*parts[2])
    assert scores["accuracy"] > 0.9 and len(history) <= 40
    confusion = np.array(scores["confusion"])
    assert confusion.sum(1).tolist() == [14, 8, 4] and scores["accuracy"] == confusion.trace() / confusion.sum()
    recall = confusion.diagonal() / confusion.sum(1)
    assert scores["recall"] == pytest.approx(np.average(recall, weights=confusion.sum(1)))
    assert json.loads(json.dumps(scores)) == scores


@pytest.mark.parametrize("n", [1, 2, 3])
def test_each_clip_gets_the_same_answer_in_every_batch(trained, parts, n):
    model, clips = trained[0], parts[2][0]
    together = model.probabilities(clips[:n])
    assert together.shape == (n, 3) and np.allclose(together.sum(1), 1)
    assert np.allclose(together, np.concatenate([model.probabilities([one]) for one in clips[:n]]), atol=1e-5)


def test_comes_back_from_its_folder_and_reads_files(trained, tmp_path):
    soundfile = pytest.importorskip("soundfile")
    trained[0].save(tmp_path, seed=3)
    model = ClipClassifier.load(tmp_path)
    assert load(tmp_path / "best_model.pth")["metadata"] == {"seed": 3}
    signal = clip("high", np.random.default_rng(5), 0.5)
    alone = trained[0].probabilities([log_mel(signal, **FEATURES)])[0]
    soundfile.write(tmp_path / "mono.wav", signal, RATE, subtype="FLOAT")
    soundfile.write(tmp_path / "stereo.wav", np.stack([signal] * 2, axis=1), RATE, subtype="FLOAT")
    soundfile.write(
        tmp_path / "faster.wav", np.interp(np.arange(2 * len(signal)) / 2, np.arange(len(signal)), signal), 2 * RATE
    )
    for name in ("mono", "stereo"):
        answer = model.classify_file(tmp_path / f"{name}.wav")
        assert next(iter(answer)) == "high" and np.allclose([answer[one] for one in CLASSES], alone, atol=1e-4)
    assert next(iter(model.classify_file(tmp_path / "faster.wav"))) == "high"
    with pytest.raises(DataError, match="cannot read the clip"):
        model.classify_file(tmp_path / "best_model.pth")


def test_unknown_and_missing_classes(trained, parts):
    with pytest.raises(DataError, match="unknown class hum; the classes are low, high, noise"):
        class_codes(["low", "hum"], CLASSES)
    with pytest.raises(DataError, match="unknown class"):
        trained[0].evaluate(parts[0][0][:1], ["hum"])
    with pytest.raises(DataError, match="no training clip of class bell"):
        fit_clip_classifier(*parts[:2], (*CLASSES, "bell"))


def test_features_alone_classify_no_file(trained, tmp_path):
    model = ClipClassifier(trained[0].model, CLASSES, trained[0].mean, trained[0].scale)
    with pytest.raises(DataError, match="features alone"):
        model.classify_file(tmp_path / "clip.wav")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"scale": None}, "must hold classes, mean, scale and features"),
        ({"classes": ["a", "b"]}, "list of 3 names"),
        ({"classes": "abc"}, "list of 3 names"),
        ({"classes": ["a", "a", "b"]}, "a name of its own"),
        ({"classes": [1, 2, 3]}, "list of 3 names"),
        ({"mean": torch.zeros(13)}, "12 finite numbers"),
        ({"mean": torch.zeros(1, 12)}, "12 finite numbers"),
        ({"scale": torch.full((12,), torch.nan)}, "12 finite numbers"),
        ({"scale": torch.full((12,), -1.0)}, "above 0"),
        ({"mean": ["a"] * 12}, "must hold"),
        ({"features": 3}, "options of evlib.studies.audio.log_mel"),
        ({"features": FEATURES | {"sampling_rate_hz": 1e12}}, "up to 1 MHz"),
        ({"features": FEATURES | {"sampling_rate_hz": "8000"}}, "options of"),
        ({"features": FEATURES | {"n_mels": 13}}, "make 12 bands"),
        ({"features": FEATURES | {"n_mel": 12}}, "options of"),
    ],
)
def test_files_that_do_not_fit_their_weights_are_refused(trained, tmp_path, change, words):
    model = trained[0]
    good = {"classes": list(CLASSES), "mean": torch.zeros(12), "scale": torch.ones(12), "features": FEATURES}
    more = {name: value for name, value in (good | change).items() if value is not None}
    save_checkpoint(tmp_path / "best_model.pth", model.model, **more)
    with pytest.raises(DataError, match=words):
        ClipClassifier.load(tmp_path)


def test_clips_of_another_width_and_classes_that_do_not_fit_are_refused(trained, parts):
    model, clips = trained[0], parts[2][0]
    for wrong in ([clips[0][:, :1]], [clips[0], clips[1][:, :5]], [clips[0][:, 0]], []):
        with pytest.raises(ShapeError, match="12 bands"):
            model.probabilities(wrong)
    with pytest.raises(ShapeError, match="one label for each clip"):
        model.evaluate(clips, ["low"])
    with pytest.raises(OptionError, match="log_mel"):
        fit_clip_classifier(*parts[:2], CLASSES, FEATURES | {"n_mel": 12})
    with pytest.raises(DataError, match="a name of its own"):
        fit_clip_classifier(*parts[:2], ("low", "high", "noise", "low"))


def test_no_folder_and_another_model(tmp_path):
    with pytest.raises(DataError, match="no classifier of clips"):
        ClipClassifier.load(tmp_path)
    save_checkpoint(tmp_path / "best_model.pth", HeartRateLSTM())
    with pytest.raises(DataError, match="holds a HeartRateLSTM"):
        ClipClassifier.load(tmp_path)
