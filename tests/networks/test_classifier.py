"""The window classifier, its encoder and inference with it."""

import numpy as np
import pytest
import torch
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from evlib.detection.detector import batch_inference, detect_events_from_sequence
from evlib.networks.classifier import EventOutput, LSTMEventClassifier, pick_times
from evlib.networks.encoders import LSTMEncoder, check_batch, frame_mask, length_mask, pool_frames, run_recurrent
from evlib.signals.errors import DataError, OptionError, ShapeError


@pytest.fixture
def model():
    torch.manual_seed(0)
    return LSTMEventClassifier(hidden_size=16, num_events=3)


@pytest.fixture
def batch():
    """Three sequences of 200, 137 and 10 samples, padded to 200 with zeros."""
    generator = torch.Generator().manual_seed(1)
    lengths = torch.tensor([200, 137, 10])
    x = torch.randn(3, 200, 6, generator=generator)
    return x.masked_fill(~length_mask(lengths, 200)[..., None], 0), lengths


def with_garbage(x, lengths, value):
    return x.masked_fill(~length_mask(lengths, x.shape[1])[..., None], value)


# --- encoder -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cell", ["lstm", "gru"])
@pytest.mark.parametrize(("resolution", "frames"), [(1, 105), (10, 11), (105, 1), (200, 1)])
def test_encoder_gives_one_vector_for_each_started_frame(cell, resolution, frames):
    encoder = LSTMEncoder(6, 8, resolution=resolution, cell=cell)
    assert encoder(torch.zeros(2, 105, 6)).shape == (2, frames, 16)
    assert LSTMEncoder(6, 8, bidirectional=False, resolution=resolution, cell=cell).output_size == 8


@pytest.mark.parametrize("resolution", [1, 10])
def test_defect_5_padding_reaches_the_encoder_in_no_direction(batch, resolution):
    x, lengths = batch
    encoder = LSTMEncoder(6, 8, resolution=resolution).eval()
    padded = encoder(with_garbage(x, lengths, torch.nan), lengths)
    for i, length in enumerate(lengths.tolist()):
        alone = encoder(x[i : i + 1, :length])
        torch.testing.assert_close(padded[i, : alone.shape[1]], alone[0], rtol=1e-5, atol=1e-6)
        assert (padded[i, alone.shape[1] :] == 0).all()


@pytest.mark.parametrize("kind", [torch.nn.LSTM, torch.nn.GRU])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("layers", [1, 3])
def test_recurrent_networks_read_padded_sequences_as_packed_ones(batch, kind, bidirectional, layers):
    x, lengths = batch
    network = kind(6, 5, layers, batch_first=True, bidirectional=bidirectional).double()
    packed = pack_padded_sequence(x.double(), lengths, batch_first=True, enforce_sorted=False)
    wanted = pad_packed_sequence(network(packed)[0], batch_first=True, total_length=200)[0]
    states = run_recurrent(network, with_garbage(x, lengths, torch.nan).double(), lengths)
    torch.testing.assert_close(states, wanted)
    gradients = [torch.autograd.grad(out.sin().sum(), list(network.parameters())) for out in (states, wanted)]
    torch.testing.assert_close(*gradients)


def test_networks_and_lengths_that_do_not_fit_are_refused(batch):
    x, lengths = batch
    plain = {"batch_first": True}
    for network in (torch.nn.RNN(6, 5, **plain), torch.nn.LSTM(6, 5), torch.nn.LSTM(6, 5, bias=False, **plain)):
        with pytest.raises(OptionError, match="LSTM or GRU"):
            run_recurrent(network, x, lengths)
    with pytest.raises(OptionError, match="no projections"):
        run_recurrent(torch.nn.LSTM(6, 5, proj_size=2, **plain), x, lengths)
    for wrong in ([201, 5, 5], [0, 5, 5], [5, 5]):
        with pytest.raises(ShapeError, match="3 whole numbers in 1..200"):
            run_recurrent(torch.nn.LSTM(6, 5, **plain), x, torch.tensor(wrong))


def test_dropout_between_layers_follows_the_mode(batch):
    network = torch.nn.LSTM(6, 5, 2, batch_first=True, dropout=0.5)
    first, second = (run_recurrent(network, *batch) for _ in range(2))
    assert not torch.equal(first, second)
    torch.testing.assert_close(*(run_recurrent(network.eval(), *batch) for _ in range(2)))


def test_pooling_agrees_with_each_sequence_alone(batch):
    x, lengths = batch
    mask = frame_mask(lengths, 200, 10)
    frames = torch.randn(3, 20, 4, generator=torch.Generator().manual_seed(0))
    assert mask.sum(1).tolist() == [20, 14, 1]
    for i, n in enumerate(mask.sum(1).tolist()):
        torch.testing.assert_close(pool_frames(frames, mask, "mean")[i], frames[i, :n].mean(0))
        torch.testing.assert_close(pool_frames(frames, mask, "max")[i], frames[i, :n].max(0).values)
        torch.testing.assert_close(pool_frames(frames, mask, "last")[i], frames[i, n - 1])
    with pytest.raises(OptionError, match="how must be one of mean, max, last"):
        pool_frames(frames, mask, "median")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"cell": "rnn"}, "cell must be one of"),
        ({"dropout": 1.0}, "dropout"),
        ({"resolution": 0}, "resolution"),
        ({"hidden_size": 2.5}, "whole"),
    ],
)
def test_encoder_refuses_impossible_options(options, words):
    with pytest.raises(OptionError, match=words):
        LSTMEncoder(6, **options)


def test_inputs_that_cannot_be_used_are_refused():
    x = torch.zeros(2, 50, 6)
    with pytest.raises(ShapeError, match="without an empty axis"):
        check_batch(x[0], 6)
    with pytest.raises(ShapeError, match="transposed"):
        check_batch(x.transpose(1, 2), 6)
    with pytest.raises(ShapeError, match="6 channels"):
        check_batch(x[..., :4], 6)
    with pytest.raises(ShapeError, match="1..50 samples, got 0..50"):
        check_batch(x, 6, torch.tensor([0, 50]))
    with pytest.raises(ShapeError, match="2 integers"):
        check_batch(x, 6, torch.tensor([50]))
    with pytest.raises(ShapeError, match="2 integers"):
        check_batch(x, 6, torch.tensor([0.5, 1.0]))
    with pytest.raises(DataError, match="float tensor"):
        check_batch(np.zeros((2, 50, 6)), 6)
    x[1, 40] = torch.nan
    with pytest.raises(DataError, match="NaN or infinity"):
        check_batch(x, 6)
    assert check_batch(x, 6, torch.tensor([50, 40])).tolist() == [50, 40]


# --- model -------------------------------------------------------------------------------------------------------


def test_one_sample_frames_give_the_original_parameter_count():
    model = LSTMEventClassifier(timing_resolution_samples=1)

    def count(module):
        return sum(parameter.numel() for parameter in module.parameters())

    parts = [count(part) for part in (model.encoder, model.attention, model.event_head, model.timing_head)]
    assert parts == [534_528, 263_168, 34_960, 34_960]
    assert count(model) == 867_616


def test_defect_1_one_output_read_by_attribute_key_and_unpacking(model, batch):
    out = model.eval()(*batch)
    event_logits, timing_logits, template_scores = out
    assert out["event_logits"] is event_logits is out.event_logits
    assert out["timing_logits"] is timing_logits
    assert template_scores is None and out["template_scores"] is None
    assert event_logits.shape == (3, 3) and timing_logits.shape == (3, 20, 3)
    torch.testing.assert_close(out["event_probs"], event_logits.sigmoid())
    torch.testing.assert_close(out.timing_probs.sum(1), torch.ones(3, 3))
    assert set(dict(out)) >= {"hidden_states", "attention_weights"}
    assert "event_probs" in out and "lengths" not in out
    with pytest.raises(KeyError, match="an EventOutput has event_logits"):
        out["logits"]


def test_defect_5_padding_changes_no_output(model, batch):
    x, lengths = batch
    model.eval()
    for garbage in (1e6, torch.nan):
        out = model(with_garbage(x, lengths, garbage), lengths)
        for i, length in enumerate(lengths.tolist()):
            alone = model(x[i : i + 1, :length])
            frames = alone.timing_logits.shape[1]
            torch.testing.assert_close(out.event_logits[i], alone.event_logits[0], rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(out.timing_logits[i, :frames], alone.timing_logits[0], rtol=1e-4, atol=1e-5)
            assert out.timing_logits[i, frames:].isneginf().all()
            assert (out.timing_probs[i, frames:] == 0).all()
    torch.testing.assert_close(
        model.get_embeddings(x, lengths)[1], model.get_embeddings(x[1:2, :137])[0], rtol=1e-4, atol=1e-5
    )


def test_defect_6_attention_is_on_frames_and_its_weights_only_on_demand(model, batch):
    x, lengths = batch
    model.eval()
    assert model(x, lengths).attention_weights is None
    weights = model(x, lengths, need_weights=True).attention_weights
    assert weights.shape == (3, 20, 20)
    torch.testing.assert_close(weights.sum(-1), torch.ones(3, 20))
    assert (weights[1, :, 14:] == 0).all()


def test_every_parameter_gets_a_gradient(model, batch):
    out = model(*batch)
    (out.event_logits.sum() + out.timing_probs.square().sum()).backward()
    without = [
        name for name, parameter in model.named_parameters() if parameter.grad is None or not parameter.grad.any()
    ]
    assert set(without) <= {"timing_head.4.bias"}, "a softmax does not see a constant; nothing else may stand still"
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


def test_freezing_leaves_the_heads_alone(model):
    model.freeze_backbone()
    trainable = {name.split(".")[0] for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert trainable == {"event_head", "timing_head"}
    model.unfreeze_backbone()
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_config_rebuilds_the_model():
    model = LSTMEventClassifier(np.int64(4), 8, 1, 2, 0.1, True, 5, 100)
    twin = LSTMEventClassifier(**model.config)
    twin.load_state_dict(model.state_dict())
    assert twin.config == model.config
    assert all(type(value) in (int, float, bool, str) for value in model.config.values())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"hidden_size": 6}, "multiple of 8"),
        ({"num_events": 0}, "num_events"),
        ({"refractory_period_samples": -1}, "refractory_period"),
    ],
)
def test_impossible_models_are_refused(options, words):
    with pytest.raises(OptionError, match=words):
        LSTMEventClassifier(**options)


# --- times -------------------------------------------------------------------------------------------------------


def gaussian_logits(times, frames, resolution, sigma=5.0):
    """(n, frames, 1): the logits of the loss's perfect answer."""
    centres = torch.arange(frames) * resolution + (resolution - 1) / 2
    return (-0.5 * ((centres - times[:, None]) / sigma) ** 2)[..., None]


@pytest.mark.parametrize("resolution", [1, 10])
def test_perfect_logits_give_the_time_finer_than_a_frame(resolution):
    times = torch.arange(60, 140, 0.25)
    error = pick_times(gaussian_logits(times, 200 // resolution, resolution), resolution)[:, 0] - times
    assert error.abs().max() < 0.25
    assert error.mean().abs() < 0.01
    centres = torch.arange(5, 15) * resolution + (resolution - 1) / 2 + (50 if resolution == 1 else 0)
    at_centres = pick_times(gaussian_logits(centres, 200 // resolution, resolution), resolution)[:, 0]
    torch.testing.assert_close(at_centres, centres, rtol=0, atol=1e-3)


def test_defect_7_a_bimodal_distribution_gives_a_mode_not_the_midpoint():
    logits = torch.logaddexp(
        gaussian_logits(torch.tensor([44.5]), 20, 10), gaussian_logits(torch.tensor([154.5]), 20, 10) + np.log(0.9)
    )
    assert pick_times(logits, 10).item() == pytest.approx(44.5, abs=0.1)


def test_a_time_is_never_picked_from_padding(model, batch):
    x, lengths = batch
    _, timings, _ = model.predict_events(x, threshold=0.0, lengths=lengths)
    assert ((timings >= 0) & (timings <= lengths[:, None] - 1)).all()


def test_predictions_are_masked_and_the_mode_of_the_model_is_kept(model, batch):
    x, lengths = batch
    model.train()
    model.attention.eval()
    detections, timings, probs = model.predict_events(x, threshold=[0.0, 1.0, 0.5], lengths=lengths)
    assert model.training and model.encoder.training and not model.attention.training
    assert detections[:, 0].tolist() == [1, 1, 1] and detections[:, 1].tolist() == [0, 0, 0]
    assert (timings.isnan() == (detections == 0)).all()
    assert not probs.requires_grad
    again = model.predict_events(x, lengths=lengths)[2]
    torch.testing.assert_close(probs, again, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("threshold", "words"),
    [
        (50, "percentage"),
        (-0.1, "probability"),
        (float("nan"), "probability"),
        ("high", "probability"),
        ([0.5] * 4, "each of 3"),
    ],
)
def test_bad_thresholds_are_refused(model, batch, threshold, words):
    with pytest.raises(OptionError, match=words):
        model.predict_events(batch[0], threshold=threshold)


# --- inference ---------------------------------------------------------------------------------------------------


def test_defect_5_batch_inference_equals_one_by_one(model, batch):
    x, lengths = batch
    sequences = [x[i, :length].numpy() for i, length in enumerate(lengths.tolist())]
    together = batch_inference(model, sequences, batch_size=2, threshold=0.4)
    for i, sequence in enumerate(sequences):
        alone = detect_events_from_sequence(model, sequence, threshold=0.4)
        for name, value in alone.items():
            assert value.shape == (3,)
            np.testing.assert_allclose(together[name][i], value, rtol=1e-4, atol=1e-3)


def test_sequences_longer_than_the_refractory_period_are_allowed(batch):
    model = LSTMEventClassifier(hidden_size=8, num_events=2, refractory_period_samples=50)
    results = detect_events_from_sequence(model, batch[0][0], threshold=0.0, device="cpu")
    assert results["detected_events"].tolist() == [1, 1]


def test_sequences_that_cannot_be_used_are_refused(model):
    with pytest.raises(ShapeError, match="transposed"):
        detect_events_from_sequence(model, np.zeros((6, 100)))
    with pytest.raises(ShapeError, match=r"\(time, 6\), got \(100,\)"):
        detect_events_from_sequence(model, np.zeros(100))
    with pytest.raises(ShapeError, match="sequences is empty"):
        batch_inference(model, [])
    with pytest.raises(DataError, match="NaN or infinity"):
        detect_events_from_sequence(model, np.full((100, 6), np.nan))
    with pytest.raises(DataError, match="array of numbers"):
        detect_events_from_sequence(model, [["a"] * 6])
    with pytest.raises(OptionError, match="percentage"):
        detect_events_from_sequence(model, np.zeros((100, 6)), threshold=50)
    with pytest.raises(OptionError, match="batch_size"):
        batch_inference(model, np.zeros((1, 100, 6)), batch_size=0)


def test_an_output_needs_no_templates():
    out = EventOutput(torch.zeros(1, 2), torch.zeros(1, 4, 2), torch.ones(1, 40, 2))
    assert [part.shape[0] for part in out] == [1, 1, 1]
