"""The classifier of clips: better than its parts with other speakers, whole on disk, clear about slips."""

import json

import numpy as np
import pytest
import torch

from evlib.signals.errors import DataError, OptionError, ShapeError
from evlib.studies.audio import log_mel
from evlib.studies.clips import ClipClassifier, class_codes, fit_clip_classifier
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

    def features():
        return [log_mel(clip(label, rng, rng.uniform(0.1, 0.4)), **FEATURES) for label in labels]

    return [(features(), labels) for _ in range(3)]


@pytest.fixture(scope="module")
def trained(parts):
    options = {"hidden_size": 8, "num_layers": 1, "dropout": 0.0}
    options |= {"lr": 0.02, "max_epochs": 40, "batch_size": 8, "patience": 15}
    return fit_clip_classifier(*parts[0], features=FEATURES, validation=parts[1], **options)


def test_learns_and_scores(trained, parts):
    scores = trained.evaluate(*parts[2])
    assert scores["accuracy"] > 0.9 and 0 < len(trained.history) <= 40
    assert scores["accuracy"] == (trained.predict(parts[2][0]) == parts[2][1]).mean()
    confusion = np.array(scores["confusion"])
    assert scores["classes"] == ["high", "low", "noise"]
    assert confusion.sum(1).tolist() == [8, 14, 4] and scores["accuracy"] == confusion.trace() / confusion.sum()
    recall = confusion.diagonal() / confusion.sum(1)
    assert scores["recall"] == pytest.approx(np.average(recall, weights=confusion.sum(1)))
    assert json.loads(json.dumps(scores)) == scores


def test_comes_back_from_its_folder_and_reads_files(trained, tmp_path):
    soundfile = pytest.importorskip("soundfile")
    trained.save(tmp_path, seed=3)
    model = ClipClassifier.load(tmp_path)
    assert load(tmp_path / "best_model.pth")["metadata"] == {"seed": 3}
    signal = clip("high", np.random.default_rng(5), 0.5)
    alone = trained.probabilities([log_mel(signal, **FEATURES)])[0]
    soundfile.write(tmp_path / "mono.wav", signal, RATE, subtype="FLOAT")
    soundfile.write(tmp_path / "stereo.wav", np.stack([signal] * 2, axis=1), RATE, subtype="FLOAT")
    faster = np.interp(np.arange(2 * len(signal)) / 2, np.arange(len(signal)), signal)
    soundfile.write(tmp_path / "faster.wav", faster, 2 * RATE)
    for name in ("mono", "stereo"):
        answer = model.classify_file(tmp_path / f"{name}.wav")
        assert next(iter(answer)) == "high" and np.allclose([answer[one] for one in model.classes], alone, atol=1e-4)
    assert next(iter(model.classify_file(tmp_path / "faster.wav"))) == "high"
    with pytest.raises(DataError, match="cannot read the clip"):
        model.classify_file(tmp_path / "best_model.pth")
    with pytest.raises(DataError, match="features alone"):
        ClipClassifier(model.model, CLASSES, model.mean, model.scale).classify_file(tmp_path / "mono.wav")


def test_unknown_and_missing_classes(trained, parts):
    with pytest.raises(DataError, match="unknown class hum; the classes are low, high, noise"):
        class_codes(["low", "hum"], CLASSES)
    with pytest.raises(DataError, match="unknown class"):
        trained.evaluate(parts[0][0][:1], ["hum"])
    clips, labels = parts[0]
    with pytest.raises(DataError, match="unknown class bell"):
        fit_clip_classifier(clips, labels, validation=(clips[:1], ["bell"]))
    with pytest.raises(DataError, match="two classes at least are wanted, all are low"):
        fit_clip_classifier(clips[:5], labels[:5])
    with pytest.raises(DataError, match="unknown class hum"):
        fit_clip_classifier(clips, labels, class_weights={"hum": 2.0})
    with pytest.raises(DataError, match="each class is wanted in two groups at least"):
        fit_clip_classifier(clips, labels, groups=labels)
    with pytest.raises(DataError, match="two groups at least"):
        fit_clip_classifier(clips, labels, groups=["one"] * len(clips))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"scale": None}, "must hold classes, mean, scale, features, linear, gains"),
        ({"linear": torch.zeros(24, 3)}, "linear must be"),
        ({"gains": [1.0, float("nan")]}, "gains two"),
        ({"gains": [1.0]}, "gains two"),
        ({"gains": ["a", "b"]}, "must hold"),
        ({"classes": "abc"}, "list of 3 names"),
        ({"classes": ["a", "a", "b"]}, "a name of its own"),
        ({"classes": [1, 2, 3]}, "list of 3 names"),
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
    model = trained
    good = {"classes": list(CLASSES), "mean": torch.zeros(12), "scale": torch.ones(12), "features": FEATURES}
    good |= {"linear": torch.zeros(25, 3), "gains": [1.0, 1.0]}
    more = {name: value for name, value in (good | change).items() if value is not None}
    save_checkpoint(tmp_path / "best_model.pth", model.model, **more)
    with pytest.raises(DataError, match=words):
        ClipClassifier.load(tmp_path)


def test_clips_of_another_width_and_classes_that_do_not_fit_are_refused(trained, parts):
    model, clips = trained, parts[2][0]
    for wrong in ([clips[0][:, :1]], [clips[0], clips[1][:, :5]], [clips[0][:, 0]], []):
        with pytest.raises(ShapeError, match="12 bands"):
            model.probabilities(wrong)
    with pytest.raises(ShapeError, match="one label for each clip"):
        model.evaluate(clips, ["low"])
    with pytest.raises(OptionError, match="log_mel"):
        fit_clip_classifier(*parts[0], features=FEATURES | {"n_mel": 12})


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (lambda clips, labels: ((clips, labels), (clips, labels), CLASSES), "must be a list of features"),
        (lambda clips, labels: (clips[0], labels), "must be a list of features"),
        (lambda clips, labels: ([], []), "must be a list of features"),
        (lambda clips, labels: (clips, "low"), "must be a list of names"),
        (lambda clips, labels: (clips, labels[1:]), "got 26 clips, 25 labels"),
        (lambda clips, labels: (clips, labels, labels[1:]), "one group for each clip"),
        (lambda clips, labels: ([*clips[1:], clips[0][:, :5]], labels), "12 bands each"),
    ],
)
def test_slips_are_named_in_a_line(parts, arguments, words):
    with pytest.raises(ShapeError, match=words) as found:
        fit_clip_classifier(*arguments(*parts[0]))
    assert len(str(found.value)) < 200


def test_messages_stay_short_however_many_names_there_are():
    with pytest.raises(DataError) as found:
        class_codes([f"{k:0100d}" for k in range(5000)], ["a", "b"])
    assert len(str(found.value)) < 1500


def spoken(voice, rng, n_frames=30):
    """A rising or a falling sound, seen through a voice: a spectrum that is all its own, louder than what is said."""
    rising, at = rng.random() < 0.5, np.linspace(2, 9, n_frames)
    band = at if rising else at[::-1]
    said = 2 * np.exp(-0.5 * (np.arange(12) - band[:, None]) ** 2)
    return said + voice + 0.3 * rng.standard_normal((n_frames, 12)), "rise" if rising else "fall"


def test_what_is_said_is_told_from_who_says_it():
    """The mean spectrum tells nothing here but the voice; with voices that were never heard the network must do it."""
    rng = np.random.default_rng(1)
    voices = 3 * rng.standard_normal((6, 12))
    clips, labels = zip(*(spoken(voices[k % 6], rng) for k in range(240)), strict=True)
    group = np.arange(240) % 6
    known = np.flatnonzero(group < 5)
    model = fit_clip_classifier(
        [clips[k] for k in known], [labels[k] for k in known], group[known], hidden_size=8, num_layers=1, lr=0.02
    )
    new = np.flatnonzero(group == 5)
    assert model.evaluate([clips[k] for k in new], [labels[k] for k in new])["accuracy"] > 0.95
    assert model.gains[1] > 0


def test_where_the_mean_spectrum_says_all_the_classifier_is_as_good_as_it():
    """The order of the frames is noise: the network learns nothing that holds, and does no harm."""
    rng = np.random.default_rng(2)
    means = {"a": np.zeros(6), "b": np.eye(6)[0]}
    labels = np.repeat(["a", "b"], 60)
    clips = [means[label] + rng.standard_normal((15, 6)) for label in labels]
    train, test = np.arange(0, 120, 2), np.arange(1, 120, 2)
    model = fit_clip_classifier([clips[k] for k in train], labels[train], hidden_size=8, max_epochs=5)
    assert model.evaluate([clips[k] for k in test], labels[test])["accuracy"] > 0.9


def test_silence_around_a_clip_changes_nothing(trained, parts):
    quiet = np.full((40, 12), np.log(1e-10))
    alone, padded = (
        trained.probabilities(clips) for clips in (parts[2][0], [np.r_[quiet, c, quiet] for c in parts[2][0]])
    )
    np.testing.assert_allclose(alone, padded, atol=1e-6)


def test_no_folder_and_another_model(tmp_path):
    with pytest.raises(DataError, match="no classifier of clips"):
        ClipClassifier.load(tmp_path)
    save_checkpoint(tmp_path / "best_model.pth", HeartRateLSTM())
    with pytest.raises(DataError, match="holds a HeartRateLSTM"):
        ClipClassifier.load(tmp_path)
