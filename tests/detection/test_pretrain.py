"""Pretraining: which windows are cut, each pretext teaches its encoder, what is kept of it, one clear refusal each."""

import random

import numpy as np
import pytest
import torch
from required import some_slow

import evlib
from evlib.detection.prepare import held_out_parts
from evlib.detection.pretrain import (
    PRETEXTS,
    WINDOW_MODELS,
    check_encoder,
    cut_windows,
    frame_samples,
    pretrain,
    pretrain_windows,
)
from evlib.networks.encoders import LSTMEncoder
from evlib.networks.frames import FrameEncoder
from evlib.networks.pretext import PRETEXT_MODELS
from evlib.signals.errors import DataError, OptionError, ShapeError, UnitError
from evlib.signals.synthetic import make_templates
from evlib.training.checkpoints import load_encoder, save_encoder

RATE, WINDOW = 2000.0, 100
TINY = {
    pretrain: {"hidden_size": 8, "n_windows": 256, "window_s": 0.25, "progress": False},
    pretrain_windows: {"hidden_size": 8, "n_windows": 160, "window_s": 0.05, "progress": False},
}
FAMILIES = list(TINY)
RUNS = some_slow(
    [(family, pretext) for family in FAMILIES for pretext in PRETEXTS],
    *((pretrain, pretext) for pretext in ("contrastive", "masked")),
    (pretrain_windows, "variational"),
)
# The smallest variational autoencoder learns nothing in an epoch, and says so.
pytestmark = pytest.mark.filterwarnings("ignore:the posterior has collapsed")


@pytest.fixture(scope="module")
def recording():
    return evlib.make_recording(make_templates(3, seed=1), 20.0, snr=20.0, seed=1).recording


@pytest.fixture(scope="module", params=RUNS, ids=lambda p: p[0].__name__ + p[1])
def made(request, recording):
    family, pretext = request.param
    return family, family([recording], pretext, seed=4, max_epochs=2, **TINY[family])


def same_weights(first, second):
    first, second = first.state_dict(), second.state_dict()
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def counted(n_samples, first=0, bursts=(), seed=0):
    """Signal whose first channel holds the sample number; noise on the second, with bursts."""
    noise = np.random.default_rng(seed).standard_normal(n_samples)
    for burst in bursts:
        noise[burst : burst + 20] *= 30
    return np.column_stack([(first + np.arange(n_samples)) * 1e-6, noise]).astype(np.float32)


def starts_of(windows):
    return np.rint(windows[:, 0, 0].astype(np.float64) * 1e6).astype(int)


def test_windows_are_stretches_of_the_signal_and_never_touch_the_held_out_tenths():
    signal = counted(20_000, bursts=range(300, 19_000, 400))
    train, development = cut_windows([signal], WINDOW, 4000, 7)
    held, covered = np.zeros(len(signal), bool), []
    for low, high in held_out_parts([len(signal)], 0)[0]:
        held[low:high] = True
    for windows in (train, development):
        assert windows.shape[1:] == (WINDOW, 2) and windows.dtype == np.float32
        rows = starts_of(windows)[:, None] + np.arange(WINDOW)
        assert np.array_equal(windows, signal[rows])
        covered.append(np.isin(np.arange(len(signal)), rows))
    assert held.sum() == 4000 and not covered[0][held].any() and not covered[1][~held].any()
    assert covered[0][~held].mean() > 0.5 and covered[1][held].mean() > 0.5
    again, other = (cut_windows([signal], WINDOW, 4000, seed) for seed in (7, 8))
    assert np.array_equal(again[0], train) and np.array_equal(again[1], development)
    assert not np.array_equal(starts_of(other[0])[:50], starts_of(train)[:50])


def test_many_windows_lie_where_there_is_energy_and_some_anywhere():
    bursts = np.arange(700, 19_000, 2000)
    train, _ = cut_windows([counted(20_000, bursts=bursts)], WINDOW, 4000, 1)
    middle = starts_of(train)[:, None] + WINDOW / 2
    near = np.abs(middle - (bursts + 10)) < WINDOW / 2
    assert len(bursts) * WINDOW / 20_000 < 0.06 and 0.4 < near.any(1).mean() < 0.95
    # A burst is not always at the same place of its window.
    assert (bursts + 10 - starts_of(train)[:, None])[near].std() > 3


def test_recordings_give_windows_by_their_length():
    signals = [counted(20_000, seed=1), counted(60_000, first=100_000, seed=2)]
    parts = cut_windows(signals, WINDOW, 2000, 0)
    assert 0.68 < (starts_of(parts[0]) >= 100_000).mean() < 0.82
    assert 0.4 < (starts_of(parts[1]) >= 100_000).mean() < 1
    assert 1900 < sum(map(len, parts)) <= 2000  # all but those that straddle a border
    few = cut_windows([counted(2000)], WINDOW, 4000, 0)
    assert sum(map(len, few)) <= 80  # a short recording gives fewer, not the same again and again


def test_an_encoder_says_where_it_comes_from_and_is_saved_whole(made, recording, tmp_path):
    family, made = made
    metadata, tiny = made.metadata, TINY[family]
    expected = {"sampling_rate_hz": RATE, "seed": 4, "duration_s": 20.0, "window_s": tiny["window_s"], "epochs": 2}
    assert expected.items() <= metadata.items() and len(metadata["data_hash"]) == 16 and len(made.history) == 2
    assert metadata["channels"] == list(recording.channels) and metadata["units"] == list(recording.units)
    assert made.encoder.config["hidden_size"] == 8 and made.encoder.config["resolution"] == 10
    assert not made.encoder.training and all(np.isfinite(row["val_total_loss"]) for row in made.history)
    assert repr(made) == f"Pretrained({metadata['pretext']}, hidden size 8, 20 s, 2 epochs)"
    made.save(tmp_path / "a.enc")
    encoder, read = load_encoder(tmp_path / "a.enc")
    assert read == metadata and same_weights(encoder, made.encoder)
    x = torch.randn(3, 90, 6, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(encoder(x), made.encoder(x))
    assert [path.name for path in tmp_path.iterdir()] == ["a.enc"]


def test_same_seed_same_encoder_and_no_global_state(made, recording):
    family, made = made
    before, python = torch.random.get_rng_state(), random.getstate()
    again = family([recording], made.metadata["pretext"], seed=4, max_epochs=2, **TINY[family])
    assert torch.equal(before, torch.random.get_rng_state()) and python == random.getstate()
    assert same_weights(again.model, made.model) and again.metadata == made.metadata
    other = family([recording], made.metadata["pretext"], seed=5, max_epochs=1, **TINY[family])
    assert not same_weights(other.model, made.model) and other.metadata["data_hash"] != made.metadata["data_hash"]


def test_a_run_that_was_cut_off_goes_on_as_if_nothing_had_happened(made, recording, tmp_path):
    family, made = made
    run = {"seed": 4, "max_epochs": 2, "save_dir": tmp_path, "resume": True, **TINY[family]}
    for _ in range(2):
        again = family([recording], made.metadata["pretext"], **run)
        assert same_weights(again.model, made.model) and again.metadata == made.metadata
        assert [row["val_total_loss"] for row in again.history] == [row["val_total_loss"] for row in made.history]
        (tmp_path / "checkpoint_epoch_2.pth").unlink()
        assert (tmp_path / "checkpoint_epoch_1.pth").is_file()  # the second time goes on from here
    # Only this run goes on, and none begins anew in its folder.
    best, other = (tmp_path / "best_model.pth").read_bytes(), evlib.Recording(recording.read()[::-1], RATE)
    for recordings, change in (([other], {}), ([recording], {"seed": 5}), ([recording], {"n_windows": 40})):
        with pytest.raises(OptionError, match="had other settings: .*training data"):
            family(recordings, made.metadata["pretext"], **run | change)
    with pytest.raises(OptionError, match="a new one needs another folder"):
        family([recording], made.metadata["pretext"], **run | {"resume": False})
    assert (tmp_path / "best_model.pth").read_bytes() == best


def test_what_is_to_be_rebuilt_does_not_move_with_the_gain():
    model, x = PRETEXT_MODELS["masked"](3, 8, 5), torch.randn(2, 400, 3)
    torch.testing.assert_close(model.targets(x), model.targets(100 * x), atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize(("family", "pretext"), [(pretrain, p) for p in PRETEXTS] + [(pretrain_windows, "autoencoder")])
def test_pretexts_teach_the_encoder(recording, family, pretext):
    made = family([recording], pretext, seed=4, max_epochs=6, **TINY[family])
    kind = FrameEncoder if family is pretrain else type(WINDOW_MODELS[pretext]().encoder)
    assert isinstance(made.encoder, kind)
    losses = [row["val_total_loss"] for row in made.history]
    assert min(losses) < (0.97 if family is pretrain else 0.9999) * losses[0]


def test_another_rate_has_frames_as_long():
    slow = evlib.make_recording(make_templates(2, sampling_rate_hz=500.0), 20.0, sampling_rate_hz=500.0).recording
    made = pretrain_windows([slow, slow], max_epochs=1, **TINY[pretrain_windows] | {"window_s": 0.2})
    assert made.metadata["sampling_rate_hz"] == 500.0 and made.metadata["duration_s"] == 40.0
    assert made.encoder.config["resolution"] == frame_samples(500.0) == 2
    assert frame_samples(50.0) == 1


def test_short_recordings_have_short_windows():
    short = evlib.make_recording(duration_s=20.0).recording
    encoder = pretrain([short], "masked", hidden_size=4, max_epochs=1, progress=False)
    assert 0 < encoder.metadata["window_s"] < 4


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"pretext": "magic"}, "pretext must be one of autoencoder, variational, contrastive, masked; got 'magic'"),
        ({"max_epochs": 1.5}, "max_epochs must be a whole number of at least 1, got 1.5"),
        ({"hidden_size": 0}, "hidden_size"),
        ({"n_windows": 0}, "n_windows must be a whole number of at least 8"),
        ({"seed": -1}, "seed must be a whole number of at least 0, got -1"),
        ({"window_s": 0}, "window_s must be a positive number of seconds, got 0"),
        ({"window_s": "long"}, "window_s"),
        ({"resume": True}, "resume=True needs save_dir"),
    ],
)
def test_bad_options_are_refused(recording, family, options, words):
    with pytest.raises(OptionError, match=words):
        family([recording], **TINY[family] | {"max_epochs": 1} | options)


def spoiled(name, recording):
    signal = recording.read().copy()
    if name == "constant":
        signal[:, 3] = 7.0
    first = evlib.Recording(signal[: {"short": 1000, "brief": 2000}.get(name)], RATE)
    others = {"slow": [recording.resample(1000.0)], "narrow": [evlib.Recording(signal[:, :4], RATE)]}
    return [] if name == "none" else [first, *others.get(name, [])]


@pytest.mark.parametrize(
    ("name", "window_s", "error", "words"),
    [
        ("constant", 0.05, DataError, "ch4 is constant"),
        ("short", 0.05, DataError, r"0\.500 s is too short"),
        ("brief", 0.15, DataError, "both are needed"),
        ("brief", 2.0, DataError, "a recording of 1 s is shorter than a window of 2 s"),
        ("whole", 5.0, DataError, "20 s of recordings give .* and 0 held-out ones"),
        ("slow", 0.05, UnitError, "one rate"),
        ("narrow", 0.05, ShapeError, "is for 6 channels, the recording has 4"),
        ("none", 0.05, OptionError, "at least one recording"),
    ],
)
def test_recordings_that_cannot_be_used_are_refused(recording, name, window_s, error, words):
    with pytest.raises(error, match=words):
        pretrain(spoiled(name, recording), max_epochs=1, **TINY[pretrain] | {"window_s": window_s})


def test_a_file_that_holds_no_such_encoder_is_refused(recording, tmp_path):
    save_encoder(tmp_path / "good", FrameEncoder(6, 8, 10), {"pretext": "autoencoder", "sampling_rate_hz": RATE})
    assert check_encoder(tmp_path / "good", [recording])[0].encoder.config["hidden_size"] == 8
    save_encoder(tmp_path / "bare", FrameEncoder(6, 8, 10), {"pretext": "autoencoder"})
    save_encoder(tmp_path / "windows", LSTMEncoder(6, 8), {"sampling_rate_hz": RATE})
    (tmp_path / "cut").write_bytes((tmp_path / "good").read_bytes()[:500])
    content, taps = torch.load(tmp_path / "good", weights_only=True), {"taps": torch.zeros(6, 9)}
    torch.save(content | {"whitener": taps}, tmp_path / "half")
    torch.save(content | {"whitener": taps | {"center": torch.zeros(4), "sampling_rate_hz": RATE}}, tmp_path / "odd")
    for name, error, words in (
        ("bare", UnitError, "the encoder is for nan Hz"),
        ("windows", OptionError, "fit needs the encoder of a frame network"),
        ("cut", DataError, "cut"),
        ("half", DataError, "whitener in .*half is damaged"),
        ("odd", DataError, "whitener in .*odd is damaged"),
    ):
        with pytest.raises(error, match=words):
            check_encoder(tmp_path / name, [recording])
