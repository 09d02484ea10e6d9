"""Encoders: recurrent networks against packed sequences, masks, pooling, and the transfer of weights."""

import numpy as np
import pytest
import torch
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from evlib.networks.classifier import LSTMEventClassifier
from evlib.networks.encoders import (
    LSTMEncoder,
    check_batch,
    frame_mask,
    parameter_groups,
    pool_frames,
    run_recurrent,
    transfer_encoder,
)
from evlib.networks.pretext import ContrastiveLSTM, LSTMAutoencoder, VariationalLSTMAutoencoder
from evlib.signals.errors import DataError, OptionError, ShapeError

PRETEXTS = [LSTMAutoencoder, VariationalLSTMAutoencoder, ContrastiveLSTM]
LENGTHS = torch.tensor([200, 137, 10])


@pytest.mark.parametrize("cell", ["lstm", "gru"])
@pytest.mark.parametrize(("resolution", "frames"), [(1, 105), (10, 11), (105, 1), (200, 1)])
def test_an_encoder_gives_one_vector_for_each_frame(cell, resolution, frames):
    for bidirectional, features in ((True, 16), (False, 8)):
        encoder = LSTMEncoder(6, 8, bidirectional=bidirectional, resolution=resolution, cell=cell)
        assert encoder(torch.zeros(2, 105, 6)).shape == (2, frames, features) and encoder.output_size == features


@pytest.mark.parametrize("kind", [torch.nn.LSTM, torch.nn.GRU])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("layers", [1, 3])
def test_recurrent_networks_read_padded_sequences_as_packed_ones(kind, bidirectional, layers):
    x = torch.randn(3, 200, 6, dtype=torch.float64)
    network = kind(6, 5, layers, batch_first=True, bidirectional=bidirectional).double()
    packed = pack_padded_sequence(x, LENGTHS, batch_first=True, enforce_sorted=False)
    wanted = pad_packed_sequence(network(packed)[0], batch_first=True, total_length=200)[0]
    states = run_recurrent(
        network, x.masked_fill((torch.arange(200) >= LENGTHS[:, None])[..., None], torch.nan), LENGTHS
    )
    torch.testing.assert_close(states, wanted)
    torch.testing.assert_close(
        *(torch.autograd.grad(s.sin().sum(), list(network.parameters())) for s in (states, wanted))
    )


def test_dropout_between_layers_follows_the_mode():
    network, x = torch.nn.LSTM(6, 5, 2, batch_first=True, dropout=0.5), torch.randn(3, 200, 6)
    first, second = (run_recurrent(network, x, LENGTHS) for _ in range(2))
    assert not torch.equal(first, second)
    torch.testing.assert_close(*(run_recurrent(network.eval(), x, LENGTHS) for _ in range(2)))


def test_pooling_agrees_with_each_sequence_alone():
    mask, frames = frame_mask(LENGTHS, 200, 10), torch.randn(3, 20, 4)
    assert mask.sum(1).tolist() == [20, 14, 1]
    for i, n in enumerate(mask.sum(1).tolist()):
        torch.testing.assert_close(pool_frames(frames, mask)[i], frames[i, :n].mean(0))
    for way in ("both", -1):
        with pytest.raises(OptionError, match="bidirectional must be one of"):
            LSTMEncoder(3, 8, bidirectional=way)
    with pytest.raises(OptionError, match="cell must be one of lstm, gru"):
        LSTMEncoder(6, cell="rnn")


@pytest.mark.parametrize(
    ("x", "lengths", "error", "words"),
    [
        (torch.zeros(50, 6), None, ShapeError, "without an empty axis"),
        (torch.zeros(2, 6, 50), None, ShapeError, "transposed"),
        (torch.zeros(2, 50, 4), None, ShapeError, "6 channels"),
        (torch.zeros(2, 50, 6), [0, 50], ShapeError, "1..50 samples, got 0..50"),
        (torch.zeros(2, 50, 6), [50, 51], ShapeError, "1..50 samples, got 50..51"),
        (torch.zeros(2, 50, 6), [50], ShapeError, "2 integers"),
        (torch.zeros(2, 50, 6), [0.5, 1.0], ShapeError, "2 integers"),
        (np.zeros((2, 50, 6)), None, DataError, "float tensor, got float64"),
        (torch.zeros(2, 50, 6, dtype=int), None, DataError, "float tensor"),
        (torch.zeros(2, 50, 6) / 0, None, DataError, "NaN or infinity"),
    ],
)
def test_batches_that_cannot_be_used_are_refused(x, lengths, error, words):
    with pytest.raises(error, match=words):
        check_batch(x, 6, None if lengths is None else torch.tensor(lengths))


# --- transfer


def make(kind=LSTMEventClassifier, **options):
    return kind(**{"hidden_size": 16} | options)


def weights(model):
    return {name: weight.clone() for name, weight in model.state_dict().items()}


@pytest.mark.parametrize("kind", PRETEXTS)
@pytest.mark.parametrize("options", [{}, {"timing_resolution_samples": 1, "num_layers": 1, "bidirectional": False}])
def test_every_tensor_of_the_encoder_and_nothing_else_is_loaded(kind, options):
    source, target = make(kind, dropout=0.0, **options), make(dropout=0.5, **options)  # dropout may differ
    before = weights(target)
    report = source.transfer_encoder_to_classifier(target)
    for name, weight in target.state_dict().items():
        loaded = name.startswith("encoder.")
        assert torch.equal(weight, source.state_dict()[name] if loaded else before[name])
        assert not loaded or not torch.equal(weight, before[name])
    head, *tensors = report.splitlines()
    n_parameters = sum(p.numel() for p in target.encoder.parameters())
    assert head == f"{kind.__name__} -> LSTMEventClassifier: {len(tensors)} tensors, {n_parameters:,} parameters"
    assert [line.split()[0] for line in tensors] == list(source.encoder.state_dict())
    with torch.no_grad():  # copied, not shared
        source.encoder.recurrent.bias_ih_l0 += 1
    assert not torch.equal(source.encoder.recurrent.bias_ih_l0, target.encoder.recurrent.bias_ih_l0)


def poison(encoder):
    with torch.no_grad():
        encoder.recurrent.bias_ih_l1[3] = torch.nan


@pytest.mark.parametrize(
    ("options", "change", "error", "words"),
    [
        ({"hidden_size": 8}, None, OptionError, "hidden_size is 8 in the source but 16 in the target"),
        ({"bidirectional": False}, None, OptionError, "bidirectional is False in the source but True"),
        ({}, lambda e: setattr(e, "extra", torch.nn.Linear(1, 1)), ShapeError, "float32 .* but missing in the target"),
        ({}, lambda e: e.double(), ShapeError, "framing.0.weight is float64"),
        (
            {},
            lambda e: setattr(e.framing, "0", torch.nn.Linear(3, 16)),
            ShapeError,
            r"\(16, 3\) in the source but float32",
        ),
        ({}, poison, DataError, "recurrent.bias_ih_l1 of the source is not finite"),
    ],
)
def test_a_mismatch_is_refused_by_name_and_nothing_is_loaded(options, change, error, words):
    source, target = make(LSTMAutoencoder, **options), make()
    if change:
        change(source.encoder)
    before = weights(target)
    with pytest.raises(error, match=words):
        source.transfer_encoder_to_classifier(target)
    assert all(torch.equal(weight, before[name]) for name, weight in target.state_dict().items())


def test_models_without_an_encoder_or_with_another_one_are_refused():
    for source, words in (
        (torch.nn.Linear(1, 1), "Linear has no encoder"),
        (LSTMEncoder(6, 16, cell="gru"), "cell is 'gru'"),
        (type("Other", (LSTMEncoder,), {})(6, 16), "Other cannot be loaded into a LSTMEncoder"),
    ):
        with pytest.raises(OptionError, match=words):
            transfer_encoder(source, make())


def test_groups_hold_each_parameter_once_and_the_encoder_learns_more_slowly():
    model = make()
    heads, encoder = parameter_groups(model, 1.0, encoder_lr_factor=0.5)
    assert (heads["lr"], encoder["lr"]) == (1.0, 0.5)
    assert {*map(id, encoder["params"])} == {*map(id, model.encoder.parameters())}
    assert sorted(map(id, heads["params"] + encoder["params"])) == sorted(map(id, model.parameters()))
