"""The frame network: masks, invariances, and that everything in it learns."""

import numpy as np
import pytest
import torch

from evlib.networks.encoders import encoder_layers, freeze_encoder, unfreeze_encoder
from evlib.networks.frames import LEVEL_FRAMES, STRETCH, FrameEncoder, FrameNetwork, band_filters, local_mean
from evlib.signals.errors import OptionError, ShapeError


@pytest.fixture
def network():
    torch.manual_seed(0)
    return FrameNetwork(3, 2, hidden_size=8, resolution=5).eval()


@pytest.fixture
def signal():
    return torch.randn(2, 403, 3, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("resolution", [1, 2, 10, 80])
@pytest.mark.parametrize("time", [1, 79, 400])
def test_one_answer_for_each_frame(resolution, time):
    logits, offsets = FrameNetwork(2, 4, hidden_size=4, resolution=resolution).eval()(torch.zeros(1, time, 2))
    assert logits.shape == offsets.shape == (1, -(-time // resolution), 4)
    assert logits.isfinite().all() and offsets.isfinite().all()  # digital silence too


def test_what_stands_behind_the_end_changes_nothing(network, signal):
    lengths = torch.tensor([200, 403])
    clean = signal.clone()
    clean[0, 200:] = 0
    garbage = clean.clone()
    garbage[0, 200:] = 1e6
    for one, other in zip(network(clean, lengths), network(garbage, lengths), strict=True):
        assert torch.equal(one, other)
    alone = network(signal[:1, :200])
    for one, other in zip(network(garbage, lengths), alone, strict=True):
        torch.testing.assert_close(one[:1, :40], other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("gain", [torch.tensor(1e-3), torch.tensor([1e3, 1.0, 0.01])], ids=["all", "each"])
def test_the_gain_of_a_sensor_cancels(network, signal, gain):
    for one, other in zip(network(signal), network(signal * gain), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3)


def test_the_level_is_the_mean_of_valid_stretches_nearby():
    generator = torch.Generator().manual_seed(0)
    values, valid = torch.randn(2, 1000, generator=generator), torch.rand(2, 1000, generator=generator) > 0.3
    values = values.masked_fill(~valid, 0)
    mean, reach = local_mean(values, valid), LEVEL_FRAMES // STRETCH
    for row, frame in [(0, 0), (0, 499), (1, 640), (1, 999)]:
        near = slice(max(frame // STRETCH - reach, 0) * STRETCH, (frame // STRETCH + reach + 1) * STRETCH)
        assert mean[row, frame] == pytest.approx(values[row, near][valid[row, near]].mean().item(), abs=1e-5)
    assert (local_mean(torch.zeros(1, 9), torch.zeros(1, 9, dtype=torch.bool)) == 0).all()


def test_band_filters_keep_the_level_of_white_noise():
    filters = band_filters(64)[:, 0]
    energy = (filters**2).sum(1).view(-1, 2).mean(1)
    np.testing.assert_allclose(energy, 1.0, rtol=0.05)


def test_gradients_reach_every_parameter(signal):
    network = FrameNetwork(3, 2, hidden_size=8, resolution=5)
    logits, offsets = network(signal)
    (logits.square().mean() + offsets.square().mean()).backward()
    still = [name for name, value in network.named_parameters() if value.grad is None or not value.grad.abs().sum() > 0]
    assert not still


def test_layers_hold_every_parameter_of_the_encoder_once():
    encoder = FrameEncoder(3, 8, 5)
    ids = [id(parameter) for layer in encoder_layers(encoder) for parameter in layer]
    assert len(ids) == len(set(ids)) and set(ids) == {id(parameter) for parameter in encoder.parameters()}


def test_a_frozen_encoder_stays_as_it_is(signal):
    network = FrameNetwork(3, 2, hidden_size=8, resolution=5)
    freeze_encoder(network)
    before = {name: value.clone() for name, value in network.encoder.state_dict().items()}
    network.train()(signal)
    assert all(torch.equal(value, before[name]) for name, value in network.encoder.state_dict().items())
    unfreeze_encoder(network)
    network.train()(signal)
    assert not torch.equal(network.encoder.front.norm.running_mean, before["front.norm.running_mean"])


def test_what_cannot_be_is_refused():
    with pytest.raises(OptionError, match="num_events must be a whole number of at least 1"):
        FrameNetwork(3, 0)
    with pytest.raises(OptionError, match="dropout must lie in"):
        FrameNetwork(3, 2, dropout=1.0)
    with pytest.raises(ShapeError, match="must have 3 channels"):
        FrameNetwork(3, 2)(torch.zeros(1, 100, 2))
