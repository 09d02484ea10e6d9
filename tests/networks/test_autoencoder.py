"""The autoencoders: shapes, padding, draws."""

import pytest
import torch

from evlib.networks.classifier import LSTMEventClassifier
from evlib.networks.losses import AutoencoderLoss, VariationalAutoencoderLoss
from evlib.networks.pretext import LSTMAutoencoder, VariationalLSTMAutoencoder
from evlib.signals.errors import DataError, OptionError, ShapeError

MODELS = [LSTMAutoencoder, VariationalLSTMAutoencoder]
both = pytest.mark.parametrize("kind", MODELS)


def make(kind, **options):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return kind(**{"hidden_size": 16, "latent_size": 8, **options})


def make_loss(kind, **options):
    return AutoencoderLoss() if kind is LSTMAutoencoder else VariationalAutoencoderLoss(warmup_steps=0, **options)


def windows(batch=3, time=105, channels=6, seed=0):
    return torch.randn(batch, time, channels, generator=torch.Generator().manual_seed(seed))


def test_the_original_s_form_has_the_original_s_parameters():
    model = LSTMAutoencoder(timing_resolution_samples=1)
    assert sum(parameter.numel() for parameter in model.parameters()) == 824_262
    variational = VariationalLSTMAutoencoder(timing_resolution_samples=1)
    assert sum(parameter.numel() for parameter in variational.parameters()) == 824_262 + 256 * 64 + 64


@both
def test_the_encoder_is_the_classifier_s(kind):
    model, classifier = kind(), LSTMEventClassifier()
    assert type(model.encoder) is type(classifier.encoder) and model.encoder.config == classifier.encoder.config
    shapes = [{name: w.shape for name, w in m.encoder.state_dict().items()} for m in (model, classifier)]
    assert shapes[0] == shapes[1]


@both
@pytest.mark.parametrize("options", [{}, {"timing_resolution_samples": 1}, {"bidirectional": False, "num_layers": 1}])
def test_shapes_keys_and_config(kind, options):
    model = make(kind, input_size=3, **options)
    out = model(windows(channels=3))
    assert out["reconstruction"].shape == (3, 105, 3) and out["latent"].shape == (3, 8)
    extra = {"mu", "logvar"} if kind is VariationalLSTMAutoencoder else set()
    assert set(out) == {"reconstruction", "latent"} | extra
    again = kind(**model.config)
    again.load_state_dict(model.state_dict())
    assert again.config == model.config


@both
def test_encode_and_decode_are_the_two_halves_of_forward(kind):
    model, x = make(kind).eval(), windows()
    out, code = model(x), model.encode(x)
    latent = code if kind is LSTMAutoencoder else code[2]
    torch.testing.assert_close(latent, out["latent"], rtol=0, atol=0)
    torch.testing.assert_close(model.decode(latent, 105), out["reconstruction"], rtol=0, atol=0)
    # The decoder writes forwards: a shorter window is the beginning of a longer one.
    torch.testing.assert_close(model.decode(latent, 47), out["reconstruction"][:, :47])


@both
def test_padding_changes_nothing(kind):
    """Not what stands there, not how much of it there is, neither the outputs nor the losses nor the gradients."""
    model, x, lengths = make(kind).eval(), windows(), torch.tensor([105, 61, 30])
    padding = torch.arange(105) >= lengths[:, None]
    loss_fn = make_loss(kind)
    results = []
    for filling in (0.0, 1e6, torch.nan):
        filled = x.masked_fill(padding[..., None], filling)
        model.zero_grad()
        out = model(filled, lengths)
        losses = loss_fn(out, filled, lengths)
        losses["total_loss"].backward()
        results.append([*out.values(), *losses.values(), *(p.grad for p in model.parameters() if p.grad is not None)])
        assert (out["reconstruction"][padding] == 0).all()
    for other in results[1:]:
        for clean, dirty in zip(results[0], other, strict=True):
            torch.testing.assert_close(dirty, clean, rtol=0, atol=0)
    alone = model(x[2:, :30])
    for name, value in model(x, lengths).items():
        torch.testing.assert_close(value[2:, :30] if name == "reconstruction" else value[2:], alone[name])


def test_every_parameter_gets_a_gradient():
    for kind in MODELS:
        model, x = make(kind), windows()
        make_loss(kind)(model(x), x)["total_loss"].backward()
        assert all(p.grad is not None and p.grad.isfinite().all() and p.grad.any() for p in model.parameters())


@both
def test_one_batch_is_overfitted(kind):
    t = torch.arange(60) / 60
    x = torch.stack([torch.sin(2 * torch.pi * k * t) for k in (1, 2, 3)])[..., None]
    model = make(kind, input_size=1, hidden_size=32, dropout=0.0)
    loss_fn = make_loss(kind, kl_weight=1e-4)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for _ in range(250):
            optimizer.zero_grad()
            loss_fn(model(x), x)["total_loss"].backward()
            optimizer.step()
    error = loss_fn(model.eval()(x), x)["reconstruction_loss"]
    assert error < 0.05 * x.square().mean()


def test_the_variational_draw_comes_from_the_generator_and_evaluation_draws_nothing():
    model, x = make(VariationalLSTMAutoencoder, dropout=0.0), windows()
    state = torch.get_rng_state()
    draws = [model(x, generator=torch.Generator().manual_seed(seed))["latent"] for seed in (1, 1, 2)]
    assert torch.equal(draws[0], draws[1]) and not torch.equal(draws[0], draws[2])
    model.eval()
    out = model(x)
    assert torch.equal(out["latent"], out["mu"])
    assert torch.equal(torch.get_rng_state(), state)


def test_the_variational_draw_has_the_mean_and_variance_it_says():
    model, x = make(VariationalLSTMAutoencoder, dropout=0.0), windows(1).expand(4000, -1, -1)[:, :20]
    with torch.no_grad():
        model.to_logvar.bias += 1.0
        mu, logvar, latent = model.encode(x, generator=torch.Generator().manual_seed(0))
    z = (latent - mu) / (logvar / 2).exp()
    assert z.mean(0).abs().max() < 0.1 and (z.std(0) - 1).abs().max() < 0.1


@both
def test_encoder_weights_are_a_copy(kind):
    model = make(kind)
    weights = model.get_encoder_weights()
    assert weights.keys() == model.encoder.state_dict().keys()
    weights["recurrent.bias_ih_l0"] += 1
    assert not torch.equal(weights["recurrent.bias_ih_l0"], model.encoder.state_dict()["recurrent.bias_ih_l0"])


@both
def test_what_cannot_work_is_refused(kind):
    with pytest.raises(OptionError, match="latent_size"):
        kind(latent_size=0)
    with pytest.raises(OptionError, match="hidden_size"):
        kind(hidden_size=0)
    model = make(kind)
    with pytest.raises(ShapeError, match="transposed"):
        model(windows().transpose(1, 2))
    with pytest.raises(DataError, match="NaN"):
        model(windows() * torch.nan)
    with pytest.raises(ShapeError, match="latent must have shape"):
        model.decode(torch.zeros(2, 7), 10)
    with pytest.raises(OptionError, match="n_samples"):
        model.decode(torch.zeros(2, 8), 0)
