"""The contrastive model."""

import pytest
import torch

from evlib.networks.classifier import LSTMEventClassifier
from evlib.networks.losses import nt_xent
from evlib.networks.pretext import ContrastiveLSTM
from evlib.signals.errors import OptionError, ShapeError


def make(**options):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return ContrastiveLSTM(**{"hidden_size": 16, "projection_size": 8, **options})


def windows(batch=4, time=105, channels=6, seed=0):
    return torch.randn(batch, time, channels, generator=torch.Generator().manual_seed(seed))


def test_the_original_s_form_has_the_original_s_parameters():
    model = ContrastiveLSTM(timing_resolution_samples=1)
    assert sum(parameter.numel() for parameter in model.parameters()) == 616_768


def test_the_encoder_is_the_classifier_s():
    model, classifier = ContrastiveLSTM(), LSTMEventClassifier()
    assert model.encoder.config == classifier.encoder.config
    assert {n: w.shape for n, w in model.encoder.state_dict().items()} == {
        n: w.shape for n, w in classifier.encoder.state_dict().items()
    }


def test_output_unpacks_in_the_original_s_order():
    model = make().eval()
    x1, x2 = windows(), windows(time=80, seed=1)
    out = model(x1, x2)
    z1, h1, z2, h2 = out
    assert z1 is out.z1 and h1 is out.h1 and z2 is out.z2 and h2 is out.h2
    assert z1.shape == z2.shape == (4, 8) and h1.shape == h2.shape == (4, 32)
    torch.testing.assert_close(torch.stack([z1, z2]).norm(dim=-1), torch.ones(2, 4))
    torch.testing.assert_close(h2, model.get_embeddings(x2), rtol=0, atol=0)
    swapped = model(x2, x1)
    torch.testing.assert_close(swapped.z1, z2, rtol=0, atol=0)


def test_padding_changes_nothing():
    model = make().eval()
    lengths1, lengths2 = torch.tensor([105, 61, 30, 99]), torch.tensor([70, 105, 104, 10])
    results = []
    for filling in (0.0, 1e6, torch.nan):
        views = [
            x.masked_fill((torch.arange(105) >= lengths[:, None])[..., None], filling)
            for x, lengths in ((windows(), lengths1), (windows(seed=1), lengths2))
        ]
        out = model(*views, lengths1, lengths2)
        results.append([*out, nt_xent(out.z1, out.z2)])
    for other in results[1:]:
        for clean, dirty in zip(results[0], other, strict=True):
            torch.testing.assert_close(dirty, clean, rtol=0, atol=0)
    torch.testing.assert_close(results[0][1][2:3], model.get_embeddings(windows()[2:3, :30]))


def test_every_parameter_gets_a_gradient_and_a_batch_is_overfitted():
    model, x = make(dropout=0.0), windows(8)
    noise = 0.3 * windows(8, seed=1)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        z1, _, z2, _ = model(x, x + noise)
        losses.append(nt_xent(z1, z2, model.temperature))
        losses[-1].backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
        optimizer.step()
    assert all(p.grad.any() for p in model.parameters())
    assert losses[-1] < 0.05 < losses[0]


def test_config_rebuilds_the_model():
    model = make(temperature=0.2, bidirectional=False)
    again = ContrastiveLSTM(**model.config)
    again.load_state_dict(model.state_dict())
    assert again.config == model.config and again.temperature == 0.2


def test_what_cannot_work_is_refused():
    with pytest.raises(OptionError, match="projection_size"):
        ContrastiveLSTM(projection_size=0)
    with pytest.raises(OptionError, match="temperature"):
        ContrastiveLSTM(temperature=0)
    with pytest.raises(ShapeError, match="6 channels"):
        make()(windows(), windows(channels=5))
