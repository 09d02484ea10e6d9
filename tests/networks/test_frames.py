"""The frame network: one answer for each frame, gains that cancel, levels and filters against their definitions."""

import numpy as np
import pytest
import torch

from evlib.networks.frames import LEVEL_FRAMES, STRETCH, FrameNetwork, band_filters, local_mean


@pytest.mark.parametrize("resolution", [1, 2, 10, 80])
@pytest.mark.parametrize("time", [1, 79, 400])
def test_one_answer_for_each_frame(resolution, time):
    logits, offsets = FrameNetwork(2, 4, hidden_size=4, resolution=resolution).eval()(torch.zeros(1, time, 2))
    assert logits.shape == offsets.shape == (1, -(-time // resolution), 4)
    assert logits.isfinite().all() and offsets.isfinite().all()  # in digital silence too


@pytest.mark.parametrize("gain", [torch.tensor(1e-3), torch.tensor([1e3, 1.0, 0.01])], ids=["all", "each"])
def test_the_gain_of_a_sensor_cancels(gain):
    network, signal = FrameNetwork(3, 2, hidden_size=8, resolution=5).eval(), torch.randn(2, 403, 3)
    torch.testing.assert_close(network(signal), network(signal * gain), rtol=1e-3, atol=1e-3)


def test_the_level_is_the_mean_of_valid_stretches_nearby():
    valid = torch.rand(2, 1000) > 0.3
    values = torch.randn(2, 1000).masked_fill(~valid, 0)
    mean, reach = local_mean(values, valid), LEVEL_FRAMES // STRETCH
    for row, frame in [(0, 0), (0, 499), (1, 640), (1, 999)]:
        near = slice(max(frame // STRETCH - reach, 0) * STRETCH, (frame // STRETCH + reach + 1) * STRETCH)
        assert mean[row, frame] == pytest.approx(values[row, near][valid[row, near]].mean().item(), abs=1e-5)
    assert (local_mean(torch.zeros(1, 9), torch.zeros(1, 9, dtype=torch.bool)) == 0).all()


def test_band_filters_keep_the_level_of_white_noise():
    energy = (band_filters(64)[:, 0] ** 2).sum(1).view(-1, 2).mean(1)
    np.testing.assert_allclose(energy, 1.0, rtol=0.05)


def test_a_frozen_encoder_stays_as_it_is():
    network, signal = FrameNetwork(3, 2, hidden_size=8, resolution=5), torch.randn(2, 403, 3)
    network.encoder.requires_grad_(False)
    before = {name: value.clone() for name, value in network.encoder.state_dict().items()}
    network.train()(signal)
    assert all(torch.equal(value, before[name]) for name, value in network.encoder.state_dict().items())
    network.encoder.requires_grad_(True)
    network.train()(signal)
    assert not torch.equal(network.encoder.front.norm.running_mean, before["front.norm.running_mean"])
