"""The window classifier: its output, times finer than a frame, decisions; and inference with it."""

import numpy as np
import pytest
import torch

from evlib.detection.detector import batch_inference, detect_events_from_sequence
from evlib.networks.classifier import LSTMEventClassifier, pick_times
from evlib.signals.errors import DataError, OptionError, ShapeError

LENGTHS = torch.tensor([200, 137, 10])


@pytest.fixture
def model():
    return LSTMEventClassifier(hidden_size=16, num_events=3)


@pytest.fixture
def x():
    return torch.randn(3, 200, 6)


def test_one_sample_frames_give_the_original_parameter_count():
    model = LSTMEventClassifier(timing_resolution_samples=1)
    parts = (model.encoder, model.attention, model.event_head, model.timing_head, model)
    counts = [sum(parameter.numel() for parameter in part.parameters()) for part in parts]
    assert counts == [534_528, 263_168, 34_960, 34_960, 867_616]


def test_defect_1_one_output_read_by_attribute_key_and_unpacking(model, x):
    out = model.eval()(x, LENGTHS)
    event_logits, timing_logits, template_scores = out
    assert out["event_logits"] is event_logits is out.event_logits and out["timing_logits"] is timing_logits
    assert template_scores is None and out["template_scores"] is None
    assert event_logits.shape == (3, 3) and timing_logits.shape == (3, 20, 3)
    torch.testing.assert_close(out["event_probs"], event_logits.sigmoid())
    torch.testing.assert_close(out.timing_probs.sum(1), torch.ones(3, 3))
    assert (out.timing_probs[1, 14:] == 0).all(), "padding"
    assert dict(out).keys() >= {"timing_logits", "event_probs", "timing_probs"} and "lengths" not in out
    with pytest.raises(KeyError, match="an EventOutput has event_logits"):
        out["logits"]


def test_defect_6_attention_is_on_frames_and_its_weights_only_on_demand(model, x):
    assert model.eval()(x, LENGTHS).attention_weights is None
    weights = model(x, LENGTHS, need_weights=True).attention_weights
    torch.testing.assert_close(weights.sum(-1), torch.ones(3, 20))
    assert weights.shape == (3, 20, 20) and (weights[1, :, 14:] == 0).all()


def test_embeddings_leave_padding_out_and_freezing_leaves_the_heads(model, x):
    embedded = model.eval().get_embeddings(x, LENGTHS)
    torch.testing.assert_close(embedded[1], model.get_embeddings(x[1:2, :137])[0], rtol=1e-4, atol=1e-5)
    model.freeze_backbone()
    trainable = {name.split(".")[0] for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert trainable == {"event_head", "timing_head"}
    model.unfreeze_backbone()
    assert all(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("hidden_size", 6, "multiple of 8"),
        ("num_events", 0, "least 1"),
        ("refractory_period_samples", -1, "least 0"),
    ],
)
def test_impossible_models_are_refused(option, value, words):
    with pytest.raises(OptionError, match=f"{option} .*{words}"):
        LSTMEventClassifier(**{option: value})


def gaussian_logits(times, frames, resolution, sigma=5.0):
    """(n, frames, 1): the logits for which the timing loss is 0."""
    centres = torch.arange(frames) * resolution + (resolution - 1) / 2
    return (-0.5 * ((centres - times[:, None]) / sigma) ** 2)[..., None]


@pytest.mark.parametrize("resolution", [1, 10])
def test_perfect_logits_give_the_time_finer_than_a_frame(resolution):
    times = torch.arange(60, 140, 0.25)
    error = pick_times(gaussian_logits(times, 200 // resolution, resolution), resolution)[:, 0] - times
    assert error.abs().max() < 0.25 and error.mean().abs() < 0.01
    centres = torch.arange(6, 14) * 10 + (resolution - 1) / 2
    at_centres = pick_times(gaussian_logits(centres, 200 // resolution, resolution), resolution)[:, 0]
    torch.testing.assert_close(at_centres, centres, rtol=0, atol=1e-3)


def test_defect_7_a_bimodal_distribution_gives_a_mode_not_the_midpoint():
    first, second = (gaussian_logits(torch.tensor([time]), 20, 10) for time in (44.5, 154.5))
    assert pick_times(torch.logaddexp(first, second + np.log(0.9)), 10).item() == pytest.approx(44.5, abs=0.1)


def test_decisions_keep_to_the_window_and_leave_the_mode_of_the_model(model, x):
    model.train()
    model.attention.eval()
    detections, timings, probs = model.predict_events(x, threshold=[0.0, 1.0, 0.0], lengths=LENGTHS)
    assert model.training and model.encoder.training and not model.attention.training
    assert detections.tolist() == [[1, 0, 1]] * 3 and (timings.isnan() == (detections == 0)).all()
    found = timings[:, [0, 2]]
    assert ((found >= 0) & (found <= LENGTHS[:, None] - 1)).all(), "never from padding"
    assert not probs.requires_grad and torch.equal(probs, model.predict_events(x, lengths=LENGTHS)[2])


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
def test_bad_thresholds_are_refused(model, x, threshold, words):
    with pytest.raises(OptionError, match=words):
        model.predict_events(x, threshold=threshold)


@pytest.mark.parametrize("period", [4000, 50])  # sequences may be longer than the refractory period
def test_defect_5_batch_inference_equals_one_by_one(x, period):
    model = LSTMEventClassifier(hidden_size=16, num_events=3, refractory_period_samples=period)
    sequences = [x[i, :length].numpy() for i, length in enumerate(LENGTHS.tolist())]
    together = batch_inference(model, sequences, batch_size=2, threshold=0.4)
    for i, sequence in enumerate(sequences):
        for name, value in detect_events_from_sequence(model, sequence, threshold=0.4).items():
            np.testing.assert_allclose(together[name][i], value, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(
    ("sequences", "options", "error", "words"),
    [
        ([np.zeros((6, 100))], {}, ShapeError, "transposed"),
        ([np.zeros(100)], {}, ShapeError, r"\(time, 6\), got \(100,\)"),
        ([], {}, ShapeError, "sequences is empty"),
        ([np.full((100, 6), np.nan)], {}, DataError, "NaN or infinity"),
        ([[["a"] * 6]], {}, DataError, "array of numbers"),
        ([np.zeros((100, 6))], {"batch_size": 0}, OptionError, "batch_size"),
    ],
)
def test_sequences_that_cannot_be_used_are_refused(model, sequences, options, error, words):
    with pytest.raises(error, match=words):
        batch_inference(model, sequences, **options)
