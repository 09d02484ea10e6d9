"""Pretraining the encoder of the frame network: each pretext teaches it, and what is kept of it."""

import os

import numpy as np
import pytest
import torch

import evlib
from evlib.detection.pretrain import PRETEXTS, check_encoder, encoder_for, pretrain
from evlib.detection.pretrain_windows import Pretrained
from evlib.networks.encoders import LSTMEncoder
from evlib.networks.frames import FrameEncoder
from evlib.networks.pretext import PRETEXT_MODELS
from evlib.signals.errors import DataError, OptionError, ShapeError, UnitError
from evlib.signals.synthetic import make_templates
from evlib.training.checkpoints import load_encoder, load_pretrained, save_encoder

RATE = 2000.0
TINY = {"hidden_size": 8, "n_windows": 256, "window_s": 0.25, "progress": False}


@pytest.fixture(scope="module")
def recording():
    return evlib.make_recording(make_templates(3, seed=1), 20.0, snr=20.0, seed=1).recording


def same_weights(first, second):
    first, second = first.state_dict(), second.state_dict()
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("pretext", PRETEXTS)
def test_each_pretext_learns_and_leaves_a_frame_encoder(recording, pretext, tmp_path):
    before = torch.random.get_rng_state()
    made = pretrain([recording], pretext, seed=4, max_epochs=6, **TINY)
    assert torch.equal(before, torch.random.get_rng_state())
    assert isinstance(made.encoder, FrameEncoder) and made.encoder.resolution == 10
    losses = [row["val_total_loss"] for row in made.history]
    assert min(losses) < 0.97 * losses[0]
    assert same_weights(pretrain([recording], pretext, seed=4, max_epochs=6, **TINY).encoder, made.encoder)
    made.save(tmp_path / "a.enc")
    encoder, metadata = load_encoder(tmp_path / "a.enc")
    assert same_weights(encoder, made.encoder) and metadata == made.metadata and metadata["pretext"] == pretext


@pytest.mark.parametrize("pretext", PRETEXTS)
@pytest.mark.parametrize("time", [200, 400, 803])
def test_gradients_reach_the_whole_encoder_whatever_the_length(pretext, time):
    torch.manual_seed(0)
    model = PRETEXT_MODELS[pretext](3, 8, 5)
    model.losses(torch.randn(4, time, 3))["total_loss"].backward()
    still = [
        name for name, value in model.encoder.named_parameters() if value.grad is None or not value.grad.abs().sum() > 0
    ]
    assert not still


def test_what_is_to_be_told_does_not_move_with_the_gain():
    model, x = PRETEXT_MODELS["masked"](3, 8, 5), torch.randn(2, 400, 3)
    torch.testing.assert_close(model.targets(x), model.targets(100 * x), atol=1e-3, rtol=1e-3)


def test_a_run_that_was_cut_off_goes_on(recording, tmp_path):
    whole = pretrain([recording], "autoencoder", max_epochs=3, save_dir=tmp_path / "whole", **TINY)
    pretrain([recording], "autoencoder", max_epochs=1, save_dir=tmp_path / "parts", **TINY)
    resumed = pretrain([recording], "autoencoder", max_epochs=3, save_dir=tmp_path / "parts", resume=True, **TINY)
    assert same_weights(whole.encoder, resumed.encoder) and resumed.history == whole.history


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"pretext": "magic"}, "pretext must be one of autoencoder, variational, contrastive, masked, got 'magic'"),
        ({"window_s": 4000}, "window_s must be seconds between 0 and 10, got 4000"),
        ({"n_windows": 0}, "n_windows must be a whole number of at least 8"),
        ({"resume": True}, "resume=True needs save_dir"),
    ],
)
def test_options_that_cannot_be_are_refused(recording, options, words):
    with pytest.raises(OptionError, match=words):
        pretrain([recording], **TINY | options)


def test_recordings_that_are_too_short_are_refused():
    short = evlib.Recording(np.random.default_rng(0).standard_normal((3000, 2)), RATE)
    with pytest.raises(DataError, match="is shorter than a window of 4 s"):
        pretrain([short], **TINY | {"window_s": 4.0})


def test_an_encoder_of_windows_is_refused():
    made = Pretrained(LSTMEncoder(6, 8), None, [], {"sampling_rate_hz": RATE})
    recording = evlib.Recording(np.zeros((4000, 6)), RATE)
    with pytest.raises(OptionError, match="fit needs the encoder of a frame network"):
        encoder_for(made, None, [recording], 0, 8, False)


class Hostile:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def tampered(kind, path, folder):
    content = torch.load(path, weights_only=True)
    if kind == "truncated":
        path.write_bytes(path.read_bytes()[:500])
    elif kind == "hostile":
        torch.save(content | {"metadata": Hostile(folder / "ran")}, path)
    elif kind == "a weight is missing":
        content["model_state_dict"].popitem()
        torch.save(content, path)
    elif kind == "another size":
        torch.save(content | {"config": content["config"] | {"hidden_size": 16}}, path)
    elif kind == "no metadata":
        del content["metadata"]
        torch.save(content, path)
    elif kind == "another class":
        torch.save(content | {"model_class": "os.system"}, path)
    elif kind == "later format":
        torch.save(content | {"format": 99}, path)


TAMPERED = [
    "truncated",
    "hostile",
    "a weight is missing",
    "another size",
    "no metadata",
    "another class",
    "later format",
]


@pytest.mark.parametrize("kind", TAMPERED)
def test_a_tampered_file_is_refused(recording, tmp_path, kind):
    path = tmp_path / "bad.enc"
    save_encoder(path, FrameEncoder(6, 8, 10), {"sampling_rate_hz": RATE, "pretext": "autoencoder"})
    load_encoder(path)
    tampered(kind, path, tmp_path)
    with pytest.raises(DataError, match=r"bad\.enc"):
        encoder_for(str(path), None, [recording], 0, 8, False)
    assert not (tmp_path / "ran").exists()


def test_an_encoder_must_fit_the_recordings(recording, tmp_path):
    def encoder(path, encoder=None, **metadata):
        save_encoder(tmp_path / path, encoder or FrameEncoder(6, 8, 10), {"pretext": "autoencoder"} | metadata)
        return tmp_path / path

    found, metadata = encoder_for(encoder("good", sampling_rate_hz=RATE), None, [recording], 0, 8, False)
    assert found.config["hidden_size"] == 8 and metadata["pretext"] == "autoencoder"
    with pytest.raises(UnitError, match="pretrained at 500.* Hz, the recordings have 2000 Hz"):
        encoder_for(encoder("slow", sampling_rate_hz=500.0), None, [recording], 0, 8, False)
    with pytest.raises(UnitError, match="pretrained at None Hz"):
        encoder_for(encoder("bare"), None, [recording], 0, 8, False)
    with pytest.raises(ShapeError, match="reads 4 channels, the recordings have 6"):
        encoder_for(encoder("four", FrameEncoder(4, 8), sampling_rate_hz=RATE), None, [recording], 0, 8, False)
    with pytest.raises(DataError, match="nosuch"):
        encoder_for(tmp_path / "nosuch", None, [recording], 0, 8, False)
    for wrong in (3, FrameEncoder(6, 8), ["autoencoder"]):
        with pytest.raises(OptionError, match="pretrain must be one of .*, a path, or what evlib.pretrain"):
            encoder_for(wrong, None, [recording], 0, 8, False)


def test_the_whitener_is_kept_beside_the_weights_bit_for_bit(recording, tmp_path):
    options = TINY | {"n_windows": 64, "max_epochs": 1}
    made = pretrain([recording], "masked", **options)
    made.save(tmp_path / "a.enc")
    read = check_encoder(tmp_path / "a.enc", [recording])
    for name in ("taps", "center"):
        kept, before = getattr(read.whitener, name), getattr(made.whitener, name)
        assert kept.dtype == before.dtype and np.array_equal(kept, before)
    assert read.whitener.sampling_rate_hz == RATE
    assert np.array_equal(read.whitener(recording, 500, 900), made.whitener(recording, 500, 900))
    # Signals that come whitened do not say by what.
    assert pretrain([recording], "masked", whitened=[made.whitener(recording)], **options).whitener is None


def test_a_file_may_lack_a_whitener_and_a_damaged_one_is_refused(tmp_path):
    save_encoder(tmp_path / "bare.enc", FrameEncoder(6, 8), {"sampling_rate_hz": RATE})
    assert load_pretrained(tmp_path / "bare.enc")[2] is None
    content = torch.load(tmp_path / "bare.enc", weights_only=True)
    for wrong in (
        {"taps": torch.zeros(6, 9)},
        {"taps": torch.zeros(6, 9), "center": torch.zeros(4), "sampling_rate_hz": RATE},
    ):
        torch.save(content | {"whitener": wrong}, tmp_path / "bad.enc")
        with pytest.raises(DataError, match=r"whitener in .*bad\.enc is damaged"):
            load_pretrained(tmp_path / "bad.enc")


def test_short_recordings_have_short_windows():
    short = evlib.make_recording(duration_s=20.0).recording
    encoder = pretrain([short], "masked", hidden_size=4, max_epochs=1, progress=False)
    assert 0 < encoder.metadata["window_s"] < 4
