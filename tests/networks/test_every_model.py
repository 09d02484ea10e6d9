"""Promises that every model of signals keeps: padding, gradients, rebuilding from its arguments, refusals, learning."""

import numpy as np
import pytest
import torch

from evlib.networks.classifier import EventOutput, LSTMEventClassifier
from evlib.networks.encoders import LSTMEncoder
from evlib.networks.event_specific import EventSpecificClassifier
from evlib.networks.frames import FrameEncoder, FrameNetwork
from evlib.networks.losses import AutoencoderLoss, VariationalAutoencoderLoss, nt_xent
from evlib.networks.pretext import ContrastiveLSTM, LSTMAutoencoder, VariationalLSTMAutoencoder
from evlib.networks.transformer import PatchFrameEncoder
from evlib.signals.errors import DataError, OptionError, ShapeError

SMALL = {"hidden_size": 8, "num_layers": 2}
MODELS = {
    "lstm": (LSTMEncoder, SMALL),
    "samples": (LSTMEncoder, SMALL | {"resolution": 1, "num_layers": 3}),
    "forwards": (LSTMEncoder, SMALL | {"bidirectional": False}),
    "gru": (LSTMEncoder, SMALL | {"cell": "gru"}),
    "patches": (PatchFrameEncoder, SMALL),
    "frames": (FrameEncoder, {"hidden_size": 8}),
    "frame network": (FrameNetwork, {"hidden_size": 8, "num_events": 3}),
    "classifier": (LSTMEventClassifier, SMALL | {"num_events": 3}),
    "dual-branch": (LSTMEventClassifier, SMALL | {"num_events": 3, "encoder": "dual-branch"}),
    "event-specific": (EventSpecificClassifier, SMALL | {"num_events": 3, "template_length": 20}),
    "autoencoder": (LSTMAutoencoder, SMALL | {"latent_size": 4}),
    "variational": (VariationalLSTMAutoencoder, SMALL | {"latent_size": 4}),
    "contrastive": (ContrastiveLSTM, SMALL | {"projection_size": 4}),
}
every_model = pytest.mark.parametrize("name", MODELS)
LENGTHS = torch.tensor([200, 137, 10])
PADDING = (torch.arange(200) >= LENGTHS[:, None])[..., None]


def make(name, **options):
    kind, own = MODELS[name]
    return kind(**{"input_size": 6, "dropout": 0.0} | own | options) if name != "frames" else kind(6, **own)


def outputs(model, x, lengths=None):
    out = model(x, x, lengths, lengths) if isinstance(model, ContrastiveLSTM) else model(x, lengths)
    values = out.values() if isinstance(out, dict) else [out] if torch.is_tensor(out) else out
    return [value for value in values if value is not None]


@every_model
def test_padding_changes_nothing(name):
    """Neither its values, in outputs and gradients, nor its amount: each sequence alone has the same outputs."""
    model, x = make(name).eval(), torch.randn(3, 200, 6)
    results = []
    for garbage in (0.0, 1e6, torch.nan):
        model.zero_grad()
        values = outputs(model, x.masked_fill(PADDING, garbage), LENGTHS)
        sum(value[value.isfinite()].square().sum() for value in values).backward()
        results.append(values + [p.grad for p in model.parameters() if p.grad is not None])
    for other in results[1:]:
        torch.testing.assert_close(other, results[0], rtol=0, atol=0)
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
    for i, length in enumerate(LENGTHS):
        for together, alone in zip(values, outputs(model, x[i : i + 1, :length]), strict=True):
            torch.testing.assert_close(together[i : i + 1, : alone.shape[1]], alone, rtol=1e-3, atol=1e-4)
            behind = together[i, alone.shape[1] :]
            assert (behind == 0).all() or behind.isneginf().all() or name == "frame network"


@every_model
def test_gradients_reach_every_parameter(name):
    model = make(name).train()
    sum((value * torch.randn_like(value)).sum() for value in outputs(model, torch.randn(3, 200, 6))).backward()
    still = {parameter for parameter, value in model.named_parameters() if value.grad is None or not value.grad.any()}
    # Nothing is hidden here, and the last layer of a channel's code begins at zero.
    code = {"mask_token", "channel_code.mlp.0.weight", "channel_code.mlp.0.bias"}
    assert {parameter.split("patches.")[-1] for parameter in still} == (
        code if name in ("patches", "dual-branch") else set()
    )


@every_model
def test_arguments_rebuild_the_model(name):
    model = make(name, input_size=np.int64(6)) if name != "frames" else make(name)
    assert all(type(value) in (int, float, bool, str) for value in model.config.values())
    again = type(model)(**model.config)
    again.load_state_dict(model.state_dict())
    x = torch.randn(2, 105, 6)
    assert again.config == model.config
    torch.testing.assert_close(outputs(again.eval(), x), outputs(model.eval(), x), rtol=0, atol=0)


@every_model
def test_batches_and_options_that_cannot_be_used_are_refused(name):
    model, x = make(name), torch.randn(2, 50, 6)
    with pytest.raises(ShapeError, match="transposed"):
        outputs(model, x.transpose(1, 2))
    with pytest.raises(DataError, match="NaN or infinity"):
        outputs(model, x * torch.nan)
    for wrong in ({"hidden_size": 0}, {"input_size": 2.5}, {"dropout": 1.0}):
        if name == "frames" and "dropout" in wrong:
            continue
        with pytest.raises(OptionError, match=f"{next(iter(wrong))} must be"):
            MODELS[name][0](**{"input_size": 6} | MODELS[name][1] | wrong)


@pytest.mark.parametrize("name", ["autoencoder", "variational", "contrastive", "classifier", "dual-branch"])
def test_one_batch_is_overfitted(name):
    model, kinds = make(name, hidden_size=32, num_layers=1), torch.eye(3)
    x = torch.randn(3, 60, 6) if "latent_size" not in MODELS[name][1] else torch.linspace(0, 6, 60).sin()[None, :, None]
    x = x.expand(3, 60, 6) * torch.arange(1, 4)[:, None, None]
    reconstruction = VariationalAutoencoderLoss(kl_weight=1e-4, warmup_steps=0)

    def loss():
        out = model(x, x.flip(1)) if name == "contrastive" else model(x)
        if name == "contrastive":
            return nt_xent(out.z1, out.z2)
        if isinstance(out, EventOutput):
            return torch.nn.functional.binary_cross_entropy_with_logits(out.event_logits, kinds)
        return (reconstruction if name == "variational" else AutoencoderLoss())(out, x)["total_loss"]

    optimizer, first = torch.optim.Adam(model.parameters(), 5e-3), loss().item()
    for _ in range(150):
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()
    assert loss() < 0.1 * first
