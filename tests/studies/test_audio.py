"""Audio: mel power against a plain transform, mixtures at their ratio, manifests."""

import json

import numpy as np
import pandas as pd
import pytest

from evlib.signals.errors import DataError, OptionError, ShapeError
from evlib.studies.audio import (
    log_mel,
    mel_filters,
    mix_at_snr,
    read_clip,
    read_manifest,
)


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
