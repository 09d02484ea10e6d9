"""Handing encoders on: all tensors or none; freezing, learning rates, unfreezing."""

import pytest
import torch

from evlib.networks.classifier import LSTMEventClassifier
from evlib.networks.encoders import (
    LSTMEncoder,
    encoder_layers,
    freeze_encoder,
    parameter_groups,
    transfer_encoder,
    unfreeze_encoder,
)
from evlib.networks.pretext import ContrastiveLSTM, LSTMAutoencoder, VariationalLSTMAutoencoder
from evlib.signals.errors import DataError, OptionError, ShapeError

PRETEXTS = [LSTMAutoencoder, VariationalLSTMAutoencoder, ContrastiveLSTM]


def make(kind=LSTMEventClassifier, seed=0, **options):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return kind(**{"hidden_size": 16, **options})


def weights(model):
    return {name: weight.clone() for name, weight in model.state_dict().items()}


@pytest.mark.parametrize("kind", PRETEXTS)
@pytest.mark.parametrize("options", [{}, {"timing_resolution_samples": 1, "num_layers": 1, "bidirectional": False}])
def test_every_tensor_of_the_encoder_and_nothing_else_is_loaded(kind, options):
    source, target = make(kind, 1, **options), make(seed=2, **options)
    before = weights(target)
    report = source.transfer_encoder_to_classifier(target)
    for name, weight in target.state_dict().items():
        if name.startswith("encoder."):
            assert torch.equal(weight, source.state_dict()[name]) and not torch.equal(weight, before[name])
        else:
            assert torch.equal(weight, before[name])
    assert report.tensors.keys() == source.encoder.state_dict().keys()
    assert report.n_parameters == sum(p.numel() for p in target.encoder.parameters())
    assert (report.source, report.target) == (kind.__name__, "LSTMEventClassifier")
    assert f"{report.n_parameters:,} parameters" in str(report) and "recurrent.weight_ih_l0" in str(report)
    x = torch.randn(2, 50, 6, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(source.eval().encoder(x), target.eval().encoder(x), rtol=0, atol=0)


def test_the_weights_are_copied_not_shared():
    source, target = make(LSTMAutoencoder), make()
    source.transfer_encoder_to_classifier(target)
    with torch.no_grad():
        source.encoder.recurrent.bias_ih_l0 += 1
    assert not torch.equal(source.encoder.recurrent.bias_ih_l0, target.encoder.recurrent.bias_ih_l0)


@pytest.mark.parametrize("kind", PRETEXTS)
@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"hidden_size": 8}, "hidden_size is 8 in the source but 16 in the target"),
        ({"num_layers": 3}, "num_layers is 3 in the source but 2"),
        ({"num_layers": 1}, "num_layers is 1 in the source but 2"),
        ({"input_size": 5}, "input_size is 5 in the source but 6"),
        ({"timing_resolution_samples": 5}, "resolution is 5 in the source but 10"),
        ({"bidirectional": False}, "bidirectional is False in the source but True"),
    ],
)
def test_a_mismatch_is_refused_by_name_and_nothing_is_loaded(kind, options, words):
    target = make(seed=2)
    before = weights(target)
    with pytest.raises(OptionError, match=words):
        make(kind, 1, **options).transfer_encoder_to_classifier(target)
    for name, weight in target.state_dict().items():
        assert torch.equal(weight, before[name])


def test_tensors_that_differ_though_the_arguments_agree_are_refused():
    target = make(seed=2)
    before = weights(target)
    for change, words in [
        (lambda e: setattr(e, "extra", torch.nn.Linear(1, 1)), "extra.weight is float32 .* but missing in the target"),
        (lambda e: e.double(), "framing.0.weight is float64"),
        (
            lambda e: setattr(e.framing, "0", torch.nn.Linear(3, 16)),
            r"float32 \(16, 3\) in the source but float32 \(16, 60\)",
        ),
    ]:
        source = make(LSTMAutoencoder, 1)
        change(source.encoder)
        with pytest.raises(ShapeError, match=words):
            source.transfer_encoder_to_classifier(target)
    source = make(LSTMAutoencoder, 1)
    with torch.no_grad():
        source.encoder.recurrent.bias_ih_l1[3] = torch.nan
    with pytest.raises(DataError, match="recurrent.bias_ih_l1 of the source is not finite"):
        source.transfer_encoder_to_classifier(target)
    for name, weight in target.state_dict().items():
        assert torch.equal(weight, before[name])


def test_what_has_no_encoder_or_another_one_is_refused():
    with pytest.raises(OptionError, match="Linear has no encoder"):
        transfer_encoder(torch.nn.Linear(1, 1), make())
    with pytest.raises(OptionError, match="cell is 'gru'"):
        transfer_encoder(LSTMEncoder(6, 16, cell="gru"), make())

    class Other(LSTMEncoder):
        pass

    with pytest.raises(OptionError, match="Other cannot be loaded into a LSTMEncoder"):
        transfer_encoder(Other(6, 16), make())


def test_dropout_may_differ():
    transfer_encoder(make(LSTMAutoencoder, dropout=0.0), make(dropout=0.5))


# --- what comes after --------------------------------------------------------------------------------------------


def test_freezing_and_unfreezing_touch_the_encoder_only():
    model = make()
    freeze_encoder(model)
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    assert frozen == {name for name, _ in model.named_parameters() if name.startswith("encoder.")}
    unfreeze_encoder(model)
    assert all(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize("options", [{}, {"num_layers": 3, "bidirectional": False}, {"timing_resolution_samples": 1}])
def test_layers_and_groups_hold_each_parameter_once(options):
    model = make(**options)
    layers = encoder_layers(model)
    assert sorted(map(id, sum(layers, []))) == sorted(map(id, model.encoder.parameters()))
    groups = parameter_groups(model, 1.0, encoder_lr_factor=0.5, layer_decay=0.1)
    everything = [id(parameter) for group in groups for parameter in group["params"]]
    assert sorted(everything) == sorted(map(id, model.parameters()))
    assert [group["lr"] for group in groups] == pytest.approx([1.0] + [0.5 * 0.1**i for i in range(len(layers))])
    # From output to input: the last layer reads the states of the one below, the lowest reads the samples.
    top = {id(parameter) for name, parameter in model.encoder.recurrent.named_parameters() if f"l{len(layers)}" in name}
    assert top <= {id(parameter) for parameter in layers[0]}


def test_discriminative_rates_reach_the_steps():
    """With plain gradient descent the step is rate x gradient: halving a rate halves the step."""
    x, steps = torch.randn(2, 50, 6, generator=torch.Generator().manual_seed(0)), {}
    for factor in (1.0, 0.25):
        model = make(dropout=0.0)
        before = weights(model)
        optimizer = torch.optim.SGD(parameter_groups(model, 0.1, encoder_lr_factor=factor, layer_decay=0.5))
        model(x).event_logits.square().sum().backward()
        optimizer.step()
        steps[factor] = {name: weight - before[name] for name, weight in model.state_dict().items()}
    for name, step in steps[1.0].items():
        want = 0.25 * step if name.startswith("encoder.") else step
        torch.testing.assert_close(steps[0.25][name], want, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("options", [{"lr": 0}, {"lr": 1, "encoder_lr_factor": 0}, {"lr": 1, "layer_decay": -1}])
def test_rates_that_are_not_positive_are_refused(options):
    with pytest.raises(OptionError, match="must be positive"):
        parameter_groups(make(), **options)
