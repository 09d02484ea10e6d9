"""Pretraining: which windows are cut, what a metadata says, the same seed the same encoder, and one clear refusal
each."""

import random

import numpy as np
import pytest
import torch

import evlib
from evlib.detection import pretrain_windows as window_pretraining
from evlib.detection.prepare import held_out_spans
from evlib.detection.pretrain_windows import PRETEXTS, cut_windows, frame_samples, pretrain_windows
from evlib.motion import train as motion_training
from evlib.signals.errors import DataError, OptionError, ShapeError, UnitError
from evlib.signals.synthetic import make_templates

RATE = 2000.0
WINDOW = 100
TINY = {"hidden_size": 8, "n_windows": 160, "window_s": 0.05, "progress": False}
# The smallest variational autoencoder learns nothing in an epoch, and says so.
pytestmark = pytest.mark.filterwarnings("ignore:the posterior has collapsed")


@pytest.fixture(scope="module")
def recording():
    return evlib.make_recording(make_templates(3, seed=1), 20.0, snr=20.0, seed=1).recording


@pytest.fixture(scope="module", params=PRETEXTS)
def made(request, recording):
    return pretrain_windows([recording], request.param, seed=4, max_epochs=2, **TINY)


def weights(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


def same_weights(first, second):
    first, second = (module if isinstance(module, dict) else module.state_dict() for module in (first, second))
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def counted(n_samples, first=0, bursts=(), seed=0):
    """Signal whose first channel tells the sample number; noise on the second, with bursts."""
    noise = np.random.default_rng(seed).standard_normal(n_samples)
    for burst in bursts:
        noise[burst : burst + 20] *= 30
    return np.column_stack([(first + np.arange(n_samples)) * 1e-6, noise]).astype(np.float32)


def starts_of(windows):
    return np.rint(windows[:, 0, 0].astype(np.float64) * 1e6).astype(int)


def covered(windows, n_samples):
    """How many of the windows hold each sample."""
    count = np.zeros(n_samples, int)
    np.add.at(count, starts_of(windows)[:, None] + np.arange(windows.shape[1]), 1)
    return count


@pytest.fixture(scope="module")
def cut():
    signal = counted(20_000, bursts=range(300, 19_000, 400))
    return signal, cut_windows([signal], RATE, WINDOW, 4000, 7)


def test_windows_are_stretches_of_the_signal(cut):
    signal, (train, development) = cut
    for windows in (train, development):
        assert windows.shape[1:] == (WINDOW, 2) and windows.dtype == np.float32 and len(windows) > 50
        for window, start in zip(windows, starts_of(windows), strict=True):
            assert np.array_equal(window, signal[start : start + WINDOW])


def test_training_windows_never_touch_the_held_out_tenths(cut):
    signal, (train, development) = cut
    held = np.zeros(len(signal), bool)
    for low, high in held_out_spans(len(signal)):
        held[low:high] = True
    assert held.sum() == 4000
    used, judged = covered(train, len(signal)), covered(development, len(signal))
    assert (used[held] == 0).all() and (judged[~held] == 0).all()
    assert (used[~held] > 0).mean() > 0.5 and (judged[held] > 0).mean() > 0.5


def test_many_windows_lie_where_there_is_energy_and_some_anywhere():
    bursts = np.arange(700, 19_000, 2000)
    train, _ = cut_windows([counted(20_000, bursts=bursts)], RATE, WINDOW, 4000, 1)
    middle = starts_of(train)[:, None] + WINDOW / 2
    near = (np.abs(middle - (bursts + 10)) < WINDOW / 2).any(1).mean()
    anywhere = len(bursts) * WINDOW / 20_000
    assert anywhere < 0.06 and 0.4 < near < 0.95
    # A burst is not always at the same place of its window.
    place = (bursts + 10 - starts_of(train)[:, None])[np.abs(middle - (bursts + 10)) < WINDOW / 2]
    assert place.std() > 3


def test_the_seed_decides_which_windows(cut):
    signal, (train, development) = cut
    again = cut_windows([signal], RATE, WINDOW, 4000, 7)
    assert np.array_equal(again[0], train) and np.array_equal(again[1], development)
    assert not np.array_equal(starts_of(cut_windows([signal], RATE, WINDOW, 4000, 8)[0])[:50], starts_of(train)[:50])


def test_recordings_give_windows_by_their_length():
    signals = [counted(20_000, seed=1), counted(60_000, first=100_000, seed=2)]
    parts = cut_windows(signals, RATE, WINDOW, 2000, 0)
    assert 0.68 < (starts_of(parts[0]) >= 100_000).mean() < 0.82
    assert 0.4 < (starts_of(parts[1]) >= 100_000).mean() < 1
    held = np.concatenate([held_out_spans(20_000), 100_000 + held_out_spans(60_000)])
    start = starts_of(parts[0])
    assert not ((start[:, None] < held[:, 1]) & (start[:, None] + WINDOW > held[:, 0])).any()
    assert 1900 < sum(map(len, parts)) <= 2000  # all but those that straddle a border
    few = cut_windows([counted(2000)], RATE, WINDOW, 4000, 0)
    assert sum(map(len, few)) <= 80  # a short recording gives fewer, not the same again and again


def test_a_card_says_where_the_encoder_comes_from(made, recording):
    metadata = made.metadata
    assert metadata["pretext"] in PRETEXTS and metadata["sampling_rate_hz"] == RATE and metadata["seed"] == 4
    assert metadata["channels"] == list(recording.channels) and metadata["units"] == list(recording.units)
    assert (
        metadata["duration_s"] == 20.0 and metadata["window_s"] == 0.05 and metadata["epochs"] == len(made.history) == 2
    )
    assert len(metadata["data_hash"]) == 16
    inside = made.encoder.patches if metadata["pretext"] == "masked" else made.encoder
    assert type(made.model) is PRETEXTS[metadata["pretext"]] and inside is made.model.encoder
    assert made.encoder.config["hidden_size"] == 8 and made.encoder.config["resolution"] == frame_samples(RATE) == 10
    assert not made.encoder.training
    assert repr(made) == f"Pretrained({metadata['pretext']}, hidden size 8, 20 s, 2 epochs)"
    assert all(np.isfinite(row["val_total_loss"]) for row in made.history)


def test_a_saved_encoder_is_the_same(made, tmp_path):
    made.save(tmp_path / "a.enc")
    encoder, metadata = evlib.load_encoder(tmp_path / "a.enc")
    assert metadata == made.metadata
    assert same_weights(encoder, made.encoder)
    x = torch.randn(3, 90, 6, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(encoder(x), made.encoder(x))
    assert [path.name for path in tmp_path.iterdir()] == ["a.enc"]


def test_same_seed_same_encoder_and_no_global_state(made, recording):
    torch.manual_seed(9)
    random.seed(9)
    before, python = torch.random.get_rng_state(), random.getstate()
    again = pretrain_windows([recording], made.metadata["pretext"], seed=4, max_epochs=2, **TINY)
    assert torch.equal(before, torch.random.get_rng_state()) and python == random.getstate()
    assert same_weights(again.model, made.model) and again.metadata == made.metadata
    other = pretrain_windows([recording], made.metadata["pretext"], seed=5, max_epochs=1, **TINY)
    assert not same_weights(other.model, made.model) and other.metadata["data_hash"] != made.metadata["data_hash"]


def test_training_changes_the_encoder_for_the_better(recording):
    made = pretrain_windows([recording], "autoencoder", seed=4, max_epochs=8, **TINY)
    with torch.random.fork_rng():
        torch.manual_seed(4)
        fresh = PRETEXTS["autoencoder"](6, 8, timing_resolution_samples=10)
    assert not same_weights(made.encoder, fresh.encoder)
    loss = [row["val_total_loss"] for row in made.history]
    assert min(loss[4:]) < loss[0]


class CutOff(Exception):
    """What stops a run in the middle of an epoch."""


def cut_off_after(kind, n_items):
    """A data set that gives up after so many items."""

    class Failing(kind):
        left = n_items

        def __getitem__(self, index):
            type(self).left -= 1
            if type(self).left < 0:
                raise CutOff
            return super().__getitem__(index)

    return Failing


def test_a_run_that_was_cut_off_goes_on_as_if_nothing_had_happened(recording, tmp_path, monkeypatch, made):
    pretext = made.metadata["pretext"]
    options = {"seed": 4, "max_epochs": 4, **TINY}
    # A masked model draws whole batches, the others windows.
    places = {
        "contrastive": (window_pretraining, "ContrastiveDataset", 330),
        "masked": (motion_training, "MotionBatches", 7),
    }
    home, name, cut = places.get(pretext, (window_pretraining, "UnsupervisedDataset", 330))
    kind, limits = getattr(home, name), {"whole": 10_000, "cut off": cut, "resumed": 10_000}
    sets = {run: cut_off_after(kind, limit) for run, limit in limits.items()}
    monkeypatch.setattr(home, name, sets["whole"])
    whole = pretrain_windows([recording], pretext, save_dir=tmp_path / "whole", **options)
    monkeypatch.setattr(home, name, sets["cut off"])
    with pytest.raises(CutOff):
        pretrain_windows([recording], pretext, save_dir=tmp_path / "parts", **options)
    done = sorted(path.name for path in (tmp_path / "parts").glob("checkpoint_epoch_*.pth"))
    assert 1 <= len(done) < 4
    monkeypatch.setattr(home, name, sets["resumed"])
    resumed = pretrain_windows([recording], pretext, save_dir=tmp_path / "parts", resume=True, **options)
    assert sets["resumed"].left > sets["whole"].left  # it did not begin again
    assert same_weights(resumed.model, whole.model)
    assert resumed.metadata == whole.metadata
    assert [row["val_total_loss"] for row in resumed.history] == [row["val_total_loss"] for row in whole.history]


def test_resuming_where_nothing_was_begun_begins(recording, tmp_path, made):
    pretext = made.metadata["pretext"]
    again = pretrain_windows([recording], pretext, seed=4, max_epochs=2, save_dir=tmp_path / "new", resume=True, **TINY)
    assert same_weights(again.model, made.model)


def test_logs_are_kept_where_asked(recording, tmp_path):
    pretrain_windows([recording], max_epochs=1, log_dir=tmp_path / "logs", **TINY)
    assert any((tmp_path / "logs").rglob("events.out.tfevents*"))


def test_several_recordings(recording):
    made = pretrain_windows([recording, recording.between(0, 10)], max_epochs=1, **TINY)
    assert made.metadata["duration_s"] == 30.0


def test_another_rate_has_frames_as_long():
    slow = evlib.make_recording(make_templates(2, sampling_rate_hz=500.0), 20.0, sampling_rate_hz=500.0).recording
    made = pretrain_windows([slow], max_epochs=1, **TINY | {"window_s": 0.2})
    assert made.metadata["sampling_rate_hz"] == 500.0
    assert made.encoder.config["resolution"] == frame_samples(500.0) == 2
    assert frame_samples(50.0) == 1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"pretext": "magic"}, "pretext must be one of autoencoder, variational, contrastive, masked, got 'magic'"),
        ({"max_epochs": 0}, "max_epochs must be a whole number of at least 1, got 0"),
        ({"max_epochs": 1.5}, "max_epochs.*1.5"),
        ({"hidden_size": 0}, "hidden_size"),
        ({"hidden_size": 2.5}, "hidden_size.*2.5"),
        ({"n_windows": 0}, "n_windows must be a whole number of at least 8"),
        ({"n_windows": True}, "n_windows"),
        ({"seed": -1}, "seed must be a whole number of at least 0, got -1"),
        ({"window_s": 0}, "window_s"),
        ({"window_s": 50}, "did you pass milliseconds"),
        ({"window_s": float("nan")}, "window_s"),
        ({"window_s": "long"}, "window_s"),
        ({"resume": True}, "resume=True needs save_dir"),
    ],
)
def test_bad_options_are_refused(recording, options, words):
    with pytest.raises(OptionError, match=words):
        pretrain_windows([recording], **TINY | {"max_epochs": 1} | options)


def spoiled(name, recording):
    signal = recording.read().copy()
    if name == "nan":
        signal[5000, 2] = np.nan
    elif name == "constant":
        signal[:, 3] = 7.0
    elif name == "short":
        signal = signal[:1000]
    elif name == "brief":
        signal = signal[:2000]
    return evlib.Recording(signal, RATE)


@pytest.mark.parametrize(
    ("name", "window_s", "words"),
    [
        ("nan", 0.05, "recording 0 holds NaN"),
        ("constant", 0.05, "ch4 is constant"),
        ("short", 0.05, r"0\.500 s is too short"),
        ("brief", 0.15, "both are needed"),
        ("brief", 2.0, "a recording of 1 s is shorter than a window of 2 s"),
        ("whole", 5.0, "20 s of recordings give .* and 0 held-out ones"),
    ],
)
def test_recordings_that_cannot_be_used_are_refused(recording, name, window_s, words):
    with pytest.raises(DataError, match=words):
        pretrain_windows([spoiled(name, recording)], max_epochs=1, **TINY | {"window_s": window_s})


def test_recordings_that_differ_are_refused(recording):
    with pytest.raises(UnitError, match="one rate"):
        pretrain_windows([recording, recording.resample(1000.0)], max_epochs=1, **TINY)
    with pytest.raises(ShapeError, match="same channels"):
        pretrain_windows([recording, evlib.Recording(recording.read()[:, :4], RATE)], max_epochs=1, **TINY)
    with pytest.raises(OptionError, match="at least one recording"):
        pretrain_windows([], max_epochs=1, **TINY)
