"""Audio: mel power against a plain transform, mixtures at their ratio, manifests and folders of every form."""

import json

import numpy as np
import pandas as pd
import pytest

from evlib.signals.errors import DataError, ShapeError
from evlib.studies.audio import (
    log_mel,
    manifest_of_esc,
    manifest_of_folders,
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


@pytest.mark.parametrize("shape", [(160_000,), (160_000, 1), (160_000, 2), (160_000, 3)])
def test_channels_are_averaged(shape, rng):
    signal = rng.standard_normal(shape)
    features = log_mel(signal, 16_000)
    assert features.shape == (501, 40)
    each = [log_mel(channel, 16_000) for channel in signal.reshape(len(signal), -1).T]
    assert np.allclose(features, np.mean(each, axis=0), atol=1e-4)


def test_loudness_is_an_offset(rng):
    signal = rng.standard_normal(8000)
    assert np.allclose(log_mel(10 * signal, 16_000) - log_mel(signal, 16_000), 2 * np.log(10), atol=1e-3)


def test_one_level_makes_loudness_tell_nothing(rng):
    signal = rng.standard_normal((8000, 2))
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
    left = mixture - speech if np.abs(mixture).max() < 1 else None
    if left is not None:
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
        for situation in ("01", "02"):
            for cut in range(2):
                soundfile.write(
                    tmp_path / scene / f"{scene}_{situation}_{cut}.wav", 0.1 * rng.standard_normal((4000, 2)), 8000
                )
    return tmp_path


def test_folders_of_scenes(clips):
    table = manifest_of_folders(clips)
    assert len(table) == 8 and set(table.label) == {"car", "street"}
    assert table.group.nunique() == 4 and table.groupby("group").size().eq(2).all()
    assert read_clip(table.iloc[0], clips, 8000).shape == (4000, 2)
    assert read_clip(table.iloc[0], clips, 16_000).shape == (8000, 2)
    with pytest.raises(DataError, match="no subfolders"):
        manifest_of_folders(clips / "car")


def test_esc_folder(clips):
    (clips / "meta").mkdir()
    rows = [("a.wav", "dog", 100, 1), ("b.wav", "rain", 200, 2)]
    pd.DataFrame(rows, columns=["filename", "category", "src_file", "fold"]).to_csv(
        clips / "meta" / "esc50.csv", index=False
    )
    table = manifest_of_esc(clips)
    assert table.path.tolist() == ["audio/a.wav", "audio/b.wav"] and table.fold.tolist() == [1, 2]
    assert table.group.tolist() == [100, 200]
    pd.DataFrame(rows).to_csv(clips / "meta" / "esc50.csv", index=False)
    with pytest.raises(DataError, match="esc50.csv"):
        manifest_of_esc(clips)


def test_manifests_freeze_mixtures(clips):
    row = {
        "path": "car/car_01_0.wav",
        "label": "car",
        "group": "01",
        "noise_path": "street/street_01_0.wav",
        "snr_db": 3,
    }
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
    ("content", "words"),
    [
        ("path,label\na.wav,x\n", "group is missing"),
        ("path,label,group\na.wav,x,1\na.wav,x,1\n", "twice"),
        ("", "no manifest"),
    ],
)
def test_bad_manifests(tmp_path, content, words):
    (tmp_path / "clips.csv").write_text(content)
    with pytest.raises(DataError, match=words):
        read_manifest(tmp_path / "clips.csv")
    (tmp_path / "clips.json").write_text("{")
    for name in ("clips.json", "nothing.csv"):
        with pytest.raises(DataError, match="no manifest"):
            read_manifest(tmp_path / name)


def test_clips_that_are_none(clips):
    (clips / "car" / "noise.wav").write_bytes(b"RIFF")
    for name in ("car/noise.wav", "car/nothing.wav"):
        with pytest.raises(DataError, match="cannot read the clip"):
            read_clip({"path": name}, clips, 8000)
