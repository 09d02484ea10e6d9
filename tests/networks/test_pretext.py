"""Pretext models: the forms of the original, draws of the variational ones, views, and the models on frames."""

import pytest
import torch

from evlib.networks.classifier import LSTMEventClassifier
from evlib.networks.frames import FrameNetwork
from evlib.networks.pretext import (
    PRETEXT_MODELS,
    ContrastiveLSTM,
    LSTMAutoencoder,
    VariationalLSTMAutoencoder,
    draw_latent,
    view,
)
from evlib.signals.errors import OptionError, ShapeError

SIZES = {LSTMAutoencoder: 824_262, VariationalLSTMAutoencoder: 824_262 + 256 * 64 + 64, ContrastiveLSTM: 616_768}
both = pytest.mark.parametrize("kind", [LSTMAutoencoder, VariationalLSTMAutoencoder])


@pytest.mark.parametrize("kind", SIZES)
def test_the_original_s_form_has_the_original_s_parameters_and_the_encoder_is_the_classifier_s(kind):
    model = kind(timing_resolution_samples=1)
    assert sum(parameter.numel() for parameter in model.parameters()) == SIZES[kind]
    assert model.encoder.config == LSTMEventClassifier(timing_resolution_samples=1).encoder.config


@both
@pytest.mark.parametrize("options", [{}, {"timing_resolution_samples": 1}, {"bidirectional": False, "num_layers": 1}])
def test_encode_and_decode_are_the_two_halves_of_forward(kind, options):
    model, x = kind(input_size=3, hidden_size=8, latent_size=4, **options).eval(), torch.randn(3, 105, 3)
    out, latent = model(x), model.encode(x)
    if kind is VariationalLSTMAutoencoder:
        mu, _, latent = latent
        assert set(out) == {"reconstruction", "latent", "mu", "logvar"} and torch.equal(latent, mu)
    torch.testing.assert_close(latent, out["latent"], rtol=0, atol=0)
    torch.testing.assert_close(model.decode(latent, 105), out["reconstruction"], rtol=0, atol=0)
    # The decoder runs forwards: a shorter window is the beginning of a longer one.
    torch.testing.assert_close(model.decode(latent, 47), out["reconstruction"][:, :47])
    with pytest.raises(ShapeError, match=r"latent must have shape \(batch, 4\)"):
        model.decode(torch.zeros(2, 7), 10)
    with pytest.raises(OptionError, match="seq_len"):
        model.decode(torch.zeros(2, 4), 0)


def test_the_latent_vector_is_drawn_in_training_only():
    model, x = VariationalLSTMAutoencoder(hidden_size=8, dropout=0.0), torch.randn(3, 105, 6)
    assert not torch.equal(model(x)["latent"], model(x)["latent"])
    state = torch.get_rng_state()
    assert torch.equal(model.eval()(x)["latent"], model(x)["mu"])
    assert torch.equal(torch.get_rng_state(), state)


def test_a_draw_has_its_mean_and_variance():
    mean, log_variance = torch.tensor([3.0, -1.0]).expand(4000, 2), torch.tensor([1.0, -2.0]).expand(4000, 2)
    z = (draw_latent(mean, log_variance) - mean) / (log_variance / 2).exp()
    assert z.mean(0).abs().max() < 0.1 and (z.std(0) - 1).abs().max() < 0.1


def test_contrastive_outputs_unpack_in_the_original_s_order():
    model = ContrastiveLSTM(hidden_size=16, projection_size=8).eval()
    x1, x2 = torch.randn(4, 105, 6), torch.randn(4, 80, 6)
    z1, h1, z2, h2 = out = model(x1, x2)
    assert z1 is out.z1 and h1 is out.h1 and z2 is out.z2 and h2 is out.h2
    assert z1.shape == z2.shape == (4, 8) and h1.shape == h2.shape == (4, 32)
    torch.testing.assert_close(torch.stack([z1, z2]).norm(dim=-1), torch.ones(2, 4))
    torch.testing.assert_close(h2, model.encoder.pooled(x2), rtol=0, atol=0)
    torch.testing.assert_close(model(x2, x1).z1, z2, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("kind", "option"),
    [(LSTMAutoencoder, "latent_size"), (ContrastiveLSTM, "projection_size"), (ContrastiveLSTM, "temperature")],
)
def test_impossible_options_are_refused(kind, option):
    with pytest.raises(OptionError, match=option):
        kind(**{option: 0})


# --- on frames


@pytest.mark.parametrize("name", PRETEXT_MODELS)
@pytest.mark.parametrize("time", [40, 403, 1600])
def test_every_pretext_on_frames_has_a_loss_that_reaches_every_parameter(name, time):
    model = PRETEXT_MODELS[name](3, hidden_size=8, resolution=5)
    losses = model.losses(torch.randn(4, time, 3))
    losses["total_loss"].backward()
    assert all(value.isfinite() for value in losses.values()) and losses["total_loss"] > 0
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in model.parameters())
    FrameNetwork(3, 2, 8, 5).encoder.load_state_dict(model.encoder.state_dict())


def test_views_differ_in_gain_noise_and_silent_channels():
    x = torch.randn(200, 50, 4)
    one, other = view(x), view(x)
    assert one.shape == x.shape and not torch.equal(one, other)
    correlation = torch.nn.functional.cosine_similarity(one.flatten(1), x.flatten(1))
    assert 0.5 < correlation.mean() < 0.99
    mono = view(torch.ones(100, 10, 1))
    assert (mono.mean(1) > 0.1).float().mean() > 0.95, "a single channel is never silent"
