"""Crops of recordings for the frame network: targets move with the signal, weights say what is known."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from evlib.training import frames as frame_training
from evlib.training.frames import UNLABELLED, FrameCrops, FrameLabels, FrameLoss, train_frames

N, TYPES, HOP, RATE, SIGMA = 30_000, 2, 10, 2000.0, 1.5
TIME, TYPE = np.array([3000.0, 9004.0, 9000.0 + 8000, 25_000.3]), np.array([0, 1, 0, 1])


def labels(spans=((0, N),), hidden=(), time=TIME, type=TYPE, apart=1000.0):
    """An impulse on channel e wherever type e begins, nothing else."""
    signal = np.zeros((N, TYPES), np.float32)
    signal[np.round(time).astype(int), type] = 1
    spans, hidden = (np.array(values, float).reshape(-1, 2) for values in (spans, hidden))
    return FrameLabels(signal, time, type, spans, np.full(TYPES, apart), hidden)


def crops(parts, n=40, **options):
    data = FrameCrops(parts, HOP, SIGMA, 0, **options)
    rng = np.random.default_rng(0)
    return [data._crop(rng) for _ in range(n)]


@pytest.fixture
def plain(monkeypatch):
    """No mixing of channels and no sums of crops: what an impulse is stays clear."""
    for name in ("CHANNEL_GAIN", "CHANNEL_MIX", "CHANNEL_DROPOUT", "SHARE_HYBRID", "SHARE_SPLICED"):
        monkeypatch.setattr(frame_training, name, 0.0)


@pytest.mark.parametrize("augment", [False, True])
def test_targets_stand_where_the_signal_says(plain, augment):
    seen = 0
    for crop in crops([labels()], augment=augment):
        for type in range(TYPES):
            for frame in np.flatnonzero(crop["target"][:, type] > 0.99 * np.exp(-0.125 / SIGMA**2)):
                at = (frame + 0.5 + crop["offset"][frame, type]) * HOP - 0.5
                near = crop["input"][max(int(at) - 2, 0) : int(at) + 4, type]
                assert near.sum() > 0.4 and crop["weight"][frame, type] == 1
                seen += 1
        # An impulse without a target would be a lost label.
        for at, type in zip(*np.nonzero(crop["input"] > 0.4), strict=True):
            assert crop["target"][at // HOP, type] > 0.5
    assert seen > 20


def test_ends_are_learned_as_events_of_their_own(plain):
    """A column of ends stands where events end; behind an event that lasts nobody knows how long it teaches nothing."""
    length = np.array([500.0, 900.0, np.nan, 0.0])
    part = replace(labels(type=np.array([0, 1, 0, 0])), length=length)
    data = FrameCrops([part], HOP, np.full(2 * TYPES, SIGMA), 0, augment=False)
    rng, seen = np.random.default_rng(0), np.zeros(2)
    for crop in (data._crop(rng) for _ in range(60)):
        target, weight = crop["target"], crop["weight"]
        for at, type in zip(*np.nonzero(crop["input"] > 0.4), strict=True):
            for reach in (500, 900):
                if (end := (at + reach) // HOP) < len(target) and target[end, TYPES + type] > 0.9:
                    seen[type] += 1
        # Type 0 has two events whose end is not known: over as many samples as its longest event lasts.
        hidden = np.flatnonzero(weight[:, TYPES] == 0)
        assert (weight[:, :TYPES] > 0).sum() >= (weight[:, TYPES:] > 0).sum()
        assert not target[hidden, TYPES].any() and len(hidden) <= 2 * (500 // HOP + 1) + (weight[:, 0] == 0).sum()
    assert (seen > 5).all()


def test_types_whose_ends_are_never_known_teach_no_ends(plain):
    part = replace(labels(), length=np.array([500.0, 0.0, 500.0, np.nan]))
    for crop in crops_of(part, n=20):
        assert not crop["weight"][:, TYPES + 1].any() and crop["weight"][:, TYPES].any()


def crops_of(part, n):
    data, rng = FrameCrops([part], HOP, np.full(2 * TYPES, SIGMA), 0, augment=False), np.random.default_rng(1)
    return [data._crop(rng) for _ in range(n)]


def test_weights_say_what_is_known(plain):
    unlabelled = labels(spans=(), hidden=[(24_000, 26_000)])
    for crop in crops([unlabelled], augment=False):
        weight, target = crop["weight"], crop["target"]
        assert set(np.unique(weight)) <= {np.float32(0), np.float32(UNLABELLED), np.float32(1)}
        for type in range(TYPES):
            for frame in np.flatnonzero(target[:, type] > 0.9):
                if weight[frame].max() == 0:
                    continue  # hidden
                assert (weight[frame] == 1).all()  # no other type in the same moment
                own = weight[max(frame - 50, 0) : frame + 50, type]
                assert (own == 1).all()  # none of its type within half of the refractory period
                assert (weight[max(frame - 50, 0) : frame + 50, 1 - type] == np.float32(UNLABELLED)).any()
    for crop in crops([labels()], augment=False):
        assert set(np.unique(crop["weight"])) <= {np.float32(0), np.float32(1)}


def test_hidden_spans_teach_nothing(plain):
    for crop in crops([labels(hidden=[(0, N)])]):
        assert (crop["weight"] == 0).all()


def test_a_sum_of_two_crops_has_the_events_of_both(monkeypatch):
    for name in ("CHANNEL_GAIN", "CHANNEL_MIX", "CHANNEL_DROPOUT", "SHARE_WARPED", "SHARE_SPLICED"):
        monkeypatch.setattr(frame_training, name, 0.0)
    monkeypatch.setattr(frame_training, "SHARE_HYBRID", 1.0)
    for crop in crops([labels()]):
        for at, type in zip(*np.nonzero(crop["input"] > 0.4), strict=True):
            assert crop["target"][at // HOP, type] > 0.5


def test_a_splice_holds_whole_events_and_noise_and_leaves_its_seams_open(monkeypatch, plain):
    monkeypatch.setattr(frame_training, "SHARE_SPLICED", 1.0)
    monkeypatch.setattr(frame_training, "SHARE_WARPED", 0.0)
    monkeypatch.setattr(frame_training, "LOG_NOISE", (-7.0, -6.0))
    events = noise = 0
    for crop in crops([labels()]):
        for at, type in zip(*np.nonzero(crop["input"] > 0.4), strict=True):
            assert crop["target"][at // HOP, type] > 0.5 or crop["weight"][at // HOP, type] == 0
        for frame, type in zip(*np.nonzero((crop["target"] > 0.9) & (crop["weight"] > 0)), strict=True):
            assert crop["input"][max(frame - 1, 0) * HOP : (frame + 2) * HOP, type].max() > 0.4
            events += 1
        noise += (crop["weight"] == 0).any() and (crop["target"].max() == 0)
    assert events > 5 and noise


def test_an_epoch_follows_from_seed_and_number():
    first, second = (FrameCrops([labels()], HOP, SIGMA, 3, n_batches=2) for _ in range(2))
    second.set_epoch(1)
    batches = [list(first), list(first), list(second)]
    assert all(torch.equal(a["input"], b["input"]) for a, b in zip(batches[0], batches[1], strict=True))
    assert not torch.equal(batches[0][0]["input"], batches[2][0]["input"])


def test_rare_types_are_drawn_as_often_as_frequent_ones(plain):
    time = np.r_[np.linspace(1000, 29_000, 57), 15_250.0]
    data = FrameCrops([labels(time=time, type=np.r_[np.zeros(57, int), 1])], HOP, SIGMA, 0)
    assert data.chance[-1] == pytest.approx(0.5)


def test_the_loss_is_least_where_it_should_be():
    target = torch.tensor([[[0.0], [1.0], [0.0]]])
    offset, weight = torch.zeros(1, 3, 1), torch.ones(1, 3, 1)
    right = FrameLoss()(torch.where(target > 0, 9.0, -9.0), offset, target, offset, weight)
    wrong = FrameLoss()(torch.where(target > 0, -9.0, 9.0), offset + 1, target, offset, weight)
    assert right["total_loss"] < 0.01 < 1 < wrong["total_loss"] and wrong["time_loss"] > right["time_loss"]
    unknown = FrameLoss()(torch.where(target > 0, -9.0, 9.0), offset, target, offset, torch.zeros_like(weight))
    assert unknown["event_loss"] == 0


@pytest.mark.slow
def test_training_learns_bursts_and_repeats_itself(monkeypatch):
    monkeypatch.setattr(frame_training, "EPOCH_FRAMES", 10_240)
    rng = np.random.default_rng(0)
    time = np.sort(rng.choice(np.arange(500, N - 500, 400), 40, replace=False)).astype(float)
    type = rng.integers(0, 2, 40)
    signal = 0.3 * rng.standard_normal((N, 2)).astype(np.float32)
    for at, kind in zip(time.astype(int), type, strict=True):
        signal[at : at + 60] += 2 * np.sin(2 * np.pi * (0.05, 0.2)[kind] * np.arange(60))[:, None].astype(np.float32)
    part = FrameLabels(signal, time, type, np.array([[0, N]]), np.full(2, 100.0))
    options = {"hidden_size": 8, "max_epochs": 8, "progress": False}
    network, history, sigma = train_frames([part], [part], HOP, RATE, 1.0, **options)
    again, _, _ = train_frames([part], [part], HOP, RATE, 1.0, **options)
    assert (sigma >= frame_training.NARROWEST_FRAMES).all()
    assert history[-1]["train_total_loss"] < 0.7 * history[0]["train_total_loss"]
    assert all(
        torch.equal(a, b) for a, b in zip(network.state_dict().values(), again.state_dict().values(), strict=True)
    )
