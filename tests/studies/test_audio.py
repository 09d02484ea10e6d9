"""Audio: mel power against a plain transform, mixtures at their ratio, manifests, classifiers that come back from
disk."""

import json

import numpy as np
import pandas as pd
import pytest
import torch

from evlib.signals.errors import DataError, OptionError, ShapeError
from evlib.studies.audio import (
    ClipClassifier,
    class_codes,
    fit_clip_classifier,
    log_mel,
    mel_filters,
    mix_at_snr,
    read_clip,
    read_manifest,
)
from evlib.studies.sequences import HeartRateLSTM
from evlib.training.checkpoints import load, save_checkpoint


def test_a_tone_lies_in_its_band():
    rate, t = 16_000, np.arange(16_000) / 16_000
    centers = np.linspace(0, 2595 * np.log10(1 + 8000 / 700), 42)[1:-1]
    for hz in (200.0, 1000.0, 4000.0):
        features = log_mel(np.sin(2 * np.pi * hz * t), rate)
        band = np.abs(centers - 2595 * np.log10(1 + hz / 700)).argmin()
        assert abs(int(features[20:30].mean(0).argmax()) - band) <= 1


def test_frames_are_those_of_a_plain_transform(rng):
    signal, rate, hop = rng.standard_normal(4000), 16_000, 320
    features = log_mel(signal, rate)
    assert features.shape == (4000 // hop + 1, 40) and features.dtype == np.float32
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(640) / 640)
    padded = np.pad(signal, 320)
    power = np.stack([np.abs(np.fft.rfft(padded[k * hop : k * hop + 640] * window, 1024)) ** 2 for k in range(13)])
    assert np.allclose(features[:13], np.log(power @ mel_filters(40, 1024, rate).T + 1e-10), atol=1e-4)


@pytest.mark.parametrize("shape", [(160_000,), (160_000, 1), (160_000, 3)])
def test_channels_are_averaged(shape, rng):
    signal = rng.standard_normal(shape)
    features = log_mel(signal, 16_000)
    assert features.shape == (501, 40)
    each = [log_mel(channel, 16_000) for channel in signal.reshape(len(signal), -1).T]
    assert np.allclose(features, np.mean(each, axis=0), atol=1e-4)


def test_loudness_is_an_offset_that_one_level_takes_away(rng):
    signal = rng.standard_normal((8000, 2))
    assert np.allclose(log_mel(10 * signal, 16_000) - log_mel(signal, 16_000), 2 * np.log(10), atol=1e-3)
    assert np.allclose(*(log_mel(gain * signal, 16_000, same_level=True) for gain in (0.01, 7.0)), atol=1e-4)
    assert np.isfinite(log_mel(0 * signal, 16_000, same_level=True)).all()


def test_bad_clips():
    with pytest.raises(ShapeError, match="samples, channels"):
        log_mel(np.zeros((2, 3, 4)), 16_000)
    with pytest.raises(ShapeError, match="with samples"):
        log_mel(np.zeros(0), 16_000)
    with pytest.raises(DataError, match="NaN"):
        log_mel(np.array([1.0, np.nan]), 16_000)
    assert log_mel(np.ones(10), 16_000).shape == (1, 40)


@pytest.mark.parametrize("snr_db", [-21.0, 0.0, 21.0])
def test_mixtures_have_their_ratio(snr_db, rng):
    speech, noise = 0.01 * rng.standard_normal((8000, 2)), rng.standard_normal((8000, 2))
    mixture = mix_at_snr(speech, noise, snr_db)
    left = mixture - speech
    if np.abs(mixture).max() < 1:
        assert 10 * np.log10((speech**2).mean() / (left**2).mean()) == pytest.approx(snr_db)
    loud = mix_at_snr(50 * speech, noise, snr_db)
    assert np.abs(loud).max() == pytest.approx(1) or np.abs(loud).max() < 1
    with pytest.raises(DataError, match="silent"):
        mix_at_snr(0 * speech, noise, snr_db)
    with pytest.raises(ShapeError, match="one shape"):
        mix_at_snr(speech[:5], noise, snr_db)


@pytest.fixture
def clips(tmp_path, rng):
    soundfile = pytest.importorskip("soundfile")
    for scene in ("car", "street"):
        (tmp_path / scene).mkdir()
        soundfile.write(tmp_path / scene / f"{scene}_01_0.wav", 0.1 * rng.standard_normal((4000, 2)), 8000)
    return tmp_path


def test_clips_are_read_at_the_wanted_rate(clips):
    row = {"path": "car/car_01_0.wav"}
    assert read_clip(row, clips, 8000).shape == (4000, 2) and read_clip(row, clips, 16_000).shape == (8000, 2)
    content = (clips / "car" / "car_01_0.wav").read_bytes()
    (clips / "car" / "noise.wav").write_bytes(b"RIFF")
    (clips / "car" / "cut.wav").write_bytes(content[: len(content) // 2])
    sound = np.random.default_rng(0).normal(size=9000) / 9
    pytest.importorskip("soundfile").write(clips / "car" / "other.flac", sound, 8000)
    (clips / "car" / "other.flac").write_bytes((clips / "car" / "other.flac").read_bytes()[:-900])
    for name in ("car/noise.wav", "car/missing.wav", "car/cut.wav", "car/other.flac"):
        with pytest.raises(DataError, match="cannot read the clip"):
            read_clip({"path": name}, clips, 8000)


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "FLOAT", "PCM_U8"])
def test_clips_are_what_soundfile_reads(clips, rng, subtype):
    soundfile = pytest.importorskip("soundfile")
    for name in ("a.wav",) if subtype in ("FLOAT", "PCM_U8") else ("a.wav", "a.flac"):
        soundfile.write(clips / name, rng.uniform(-0.9, 0.9, (300, 2)), 8000, subtype=subtype)
        expected = soundfile.read(clips / name, always_2d=True)[0]
        np.testing.assert_allclose(read_clip({"path": name}, clips, 8000), expected, atol=1e-9)


def test_manifests_freeze_mixtures(clips):
    row = {"path": "car/car_01_0.wav", "label": "car", "group": "01"}
    row |= {"noise_path": "street/street_01_0.wav", "snr_db": 3}
    rows = [row, row | {"snr_db": -3}, row | {"noise_path": None, "snr_db": None}]
    pd.DataFrame(rows).to_csv(clips / "clips.csv", index=False)
    (clips / "clips.json").write_text(json.dumps(rows))
    for name in ("clips.csv", "clips.json"):
        table = read_manifest(clips / name)
        mixed = [read_clip(one, clips, 8000) for _, one in table.iterrows()]
        assert np.array_equal(mixed[0], read_clip(table.iloc[0], clips, 8000))
        noise = [(part - mixed[2]).std() for part in mixed[:2]]
        assert 20 * np.log10(noise[1] / noise[0]) == pytest.approx(6, abs=0.01)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("clips.csv", "path,label\na.wav,x\n", "group is missing"),
        ("clips.csv", "path,label,group\na.wav,x,1\na.wav,x,1\n", "twice"),
        ("clips.csv", "", "no manifest"),
        ("clips.csv", "path,label,group,noise_path,snr_db\n", "names no clip"),
        ("clips.json", "[]", "must have the columns"),
        ("clips.json", "{", "no manifest"),
        ("missing.csv", None, "no manifest"),
        ("clips.csv", "path,label,group\na.wav,x,1,2\n", "no manifest"),
        ("clips.csv", 'path,label,group\n"a.wav,x,1\nb.wav,y,2\n', "no manifest"),
        ("clips.csv", "path,label,group\na.wav,,1\n", "row 1: label must be a text, got ''"),
        ("clips.csv", "path,label,group,noise_path\na.wav,x,1,b.wav\n", "row 1: noise needs an snr_db"),
        ("clips.csv", "path,label,group,noise_path,snr_db\na.wav,x,1,b.wav,loud\n", "row 1: noise needs an snr_db"),
        ("clips.csv", "path,label,group,noise_path,snr_db\na.wav,x,1,b.wav,1e9\n", "row 1: noise needs an snr_db"),
        ("clips.json", "[" * 100_000, "no manifest"),
        ("clips.json", "3", "no manifest"),
        ("clips.json", '{"path": 3}', "no manifest"),
        ("clips.json", "[[1, 2, 3]]", "must have the columns"),
        ("clips.json", '[{"path": ["a.wav"], "label": "x", "group": 1}]', "row 1: path must be a text"),
        ("clips.json", '[{"path": "a.wav", "label": {"b": 1}, "group": 1}]', "row 1: label must be a text"),
        ("clips.json", '[{"path": "a.wav", "label": "x", "group": null}]', "row 1: group must be a text"),
        ("clips.json", '[{"path": "a.wav", "label": "x", "group": 1}, {"label": "y", "group": 1}]', "row 2: path"),
        (
            "clips.json",
            '[{"path": "a.wav", "label": "x", "group": 1, "noise_path": "b.wav", "snr_db": [1]}]',
            "row 1: noise needs an snr_db",
        ),
    ],
)
def test_bad_manifests(tmp_path, name, content, words):
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=words):
        read_manifest(tmp_path / name)


def test_labels_are_texts_as_they_stand(tmp_path):
    (tmp_path / "clips.csv").write_text("path,label,group,fold\na.wav,NA,007,1\nb.wav, 3 ,7,2\n")
    (tmp_path / "clips.json").write_text(json.dumps({"path": ["a", "b"], "label": [3, "NA"], "group": ["007", 7]}))
    table = read_manifest(tmp_path / "clips.csv")
    assert table.label.tolist() == ["NA", "3"] and table.group.tolist() == ["007", "7"] and table.fold.sum() == 3
    assert read_manifest(tmp_path / "clips.json").label.tolist() == ["3", "NA"]


@pytest.mark.parametrize(
    "name", ["../out.wav", "{out}", "car/../../out.wav", "C:\\out.wav", "..\\out.wav", "link.wav", "to/out.wav"]
)
@pytest.mark.parametrize("column", ["path", "noise_path"])
def test_files_outside_of_the_folder_are_refused(clips, tmp_path_factory, name, column):
    outside = tmp_path_factory.mktemp("outside")
    (clips / "car" / "car_01_0.wav").rename(outside / "out.wav")
    (clips / "link.wav").symlink_to(outside / "out.wav")
    (clips / "to").symlink_to(outside)
    row = {"path": "street/street_01_0.wav", "label": "x", "group": 1, "snr_db": 3.0}
    row[column] = name.format(out=outside / "out.wav")
    for file in ("clips.csv", "clips.json"):
        frame = pd.DataFrame([row])
        frame.to_csv(clips / file, index=False) if file == "clips.csv" else frame.to_json(
            clips / file, orient="records"
        )
        with pytest.raises(DataError, match="leads out of the folder"):
            read_manifest(clips / file)
    with pytest.raises(DataError, match="leads out of the folder"):
        read_clip(row, clips, 8000)


def test_links_within_the_folder_are_followed(clips):
    (clips / "link.wav").symlink_to("car/car_01_0.wav")
    assert np.array_equal(
        read_clip({"path": "link.wav"}, clips, 8000), read_clip({"path": "car/car_01_0.wav"}, clips, 8000)
    )


@pytest.mark.parametrize("row", [{}, {"path": None}, {"path": 3}, {"path": " "}, {"path": "a\0b"}])
def test_rows_without_a_path(clips, row):
    with pytest.raises(DataError, match="needs a name"):
        read_clip(row, clips, 8000)


def test_rates_and_ratios_that_are_none(clips):
    good = {"path": "car/car_01_0.wav", "noise_path": "street/street_01_0.wav"}
    for snr_db in (None, "3", np.nan, np.inf, 1e9):
        with pytest.raises(OptionError, match="snr_db"):
            read_clip(good | {"snr_db": snr_db}, clips, 8000)
    for rate in (0, 3, 1e9, "8000", np.nan):
        with pytest.raises(OptionError, match="sampling_rate_hz"):
            read_clip(good, clips, rate)
    assert len(read_clip({"path": good["path"]}, clips, 2756.25)) == -(-4000 * 441 // 1280)
    soundfile = pytest.importorskip("soundfile")
    for name, hz in (("slow.wav", 20), ("fast.flac", 655_350), ("fast.wav", 2**31 - 1)):
        soundfile.write(clips / name, np.zeros(100), hz)
    for name, words in (("slow.wav", "100 samples of 1 channels at 20 Hz are no clip"), ("fast.wav", "cannot read")):
        with pytest.raises(DataError, match=words):
            read_clip({"path": name}, clips, 8000)
    assert len(read_clip({"path": "fast.flac"}, clips, 8000)) == 2


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


def test_comes_back_from_its_folder_and_reads_files(trained, tmp_path):
    soundfile = pytest.importorskip("soundfile")
    trained[0].save(tmp_path, seed=3)
    model = ClipClassifier.load(tmp_path)
    assert load(tmp_path / "best_model.pth")["metadata"] == {"seed": 3}
    signal = clip("high", np.random.default_rng(5), 0.5)
    alone = trained[0].probabilities([log_mel(signal, **FEATURES)])[0]
    soundfile.write(tmp_path / "mono.wav", signal, RATE, subtype="FLOAT")
    soundfile.write(tmp_path / "stereo.wav", np.stack([signal] * 2, axis=1), RATE, subtype="FLOAT")
    faster = np.interp(np.arange(2 * len(signal)) / 2, np.arange(len(signal)), signal)
    soundfile.write(tmp_path / "faster.wav", faster, 2 * RATE)
    for name in ("mono", "stereo"):
        answer = model.classify_file(tmp_path / f"{name}.wav")
        assert next(iter(answer)) == "high" and np.allclose([answer[one] for one in CLASSES], alone, atol=1e-4)
    assert next(iter(model.classify_file(tmp_path / "faster.wav"))) == "high"
    with pytest.raises(DataError, match="cannot read the clip"):
        model.classify_file(tmp_path / "best_model.pth")
    with pytest.raises(DataError, match="features alone"):
        ClipClassifier(model.model, CLASSES, model.mean, model.scale).classify_file(tmp_path / "mono.wav")


def test_unknown_and_missing_classes(trained, parts):
    with pytest.raises(DataError, match="unknown class hum; the classes are low, high, noise"):
        class_codes(["low", "hum"], CLASSES)
    with pytest.raises(DataError, match="unknown class"):
        trained[0].evaluate(parts[0][0][:1], ["hum"])
    with pytest.raises(DataError, match="no training clip of class bell"):
        fit_clip_classifier(*parts[:2], (*CLASSES, "bell"))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"scale": None}, "must hold classes, mean, scale and features"),
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
