"""The event-specific architecture: scores peak at onsets, delays learn, nothing is dead, padding changes nothing."""

import numpy as np
import pytest
import torch

import evlib
from evlib.networks.classifier import EventOutput
from evlib.networks.event_specific import refine_times
from evlib.signals.errors import OptionError, ShapeError

FEATURES, LENGTH, EVENTS = 6, 40, 5


def damped(delay=0.0, seed=0):
    """(events, features, length) damped vibrations that begin smoothly, moved later by ``delay`` (events, features)."""
    rng = np.random.default_rng(seed)
    frequency, phase = rng.uniform(0.03, 0.12, (EVENTS, FEATURES, 1)), rng.uniform(0, 6.28, (EVENTS, FEATURES, 1))
    t = np.arange(LENGTH) - np.broadcast_to(np.asarray(delay, float), (EVENTS, FEATURES))[..., None] - 4
    wave = np.exp(-0.5 * ((t - 10) / 5) ** 2) * np.sin(2 * np.pi * frequency * t + phase)
    return torch.from_numpy(wave).float()


def bank_with(templates, **options):
    bank = evlib.EventTemplateBank(EVENTS, FEATURES, LENGTH, **options)
    bank.load_templates(templates.transpose(1, 2))
    return bank


def planted(templates, onset, n=200, noise=0.0, seed=0):
    """(events, n, features): a recording for each type, with its event at ``onset``."""
    x = noise * torch.randn(EVENTS, n, FEATURES, generator=torch.Generator().manual_seed(seed))
    for e in range(EVENTS):
        x[e, onset : onset + LENGTH] += templates[e].T[: n - onset]
    return x


# --- template bank


@pytest.mark.parametrize("onset", [0, 1, 57, 159])
def test_the_score_of_every_type_peaks_at_its_onset(onset):
    templates = damped()
    scores = bank_with(templates)(planted(templates, onset)).detach()
    for e in range(EVENTS):
        assert scores[e, :, e].argmax() == onset
        assert scores[e, onset].argmax() == e
        assert scores[e, onset, e] == pytest.approx(1, abs=1e-4)
    assert scores.abs().max() <= 1 + 1e-5


def test_the_score_is_a_correlation_by_brute_force():
    bank = evlib.EventTemplateBank(2, 3, 12, max_delay_samples=2)
    x = torch.randn(1, 50, 3, generator=torch.Generator().manual_seed(1))
    kernel = bank.apply_delays().detach()  # (2, 3, 16), the onset at 2
    padded = torch.cat([torch.zeros(2, 3), x[0], torch.zeros(16, 3)])
    for t in range(50):
        piece = padded[t : t + 16].T
        wanted = (kernel * piece).sum((1, 2)) / (kernel.square().sum((1, 2)).sqrt() * piece.square().sum().sqrt())
        assert torch.allclose(bank(x)[0, t], wanted, atol=1e-5)
    assert (bank(torch.zeros(1, 100, 3)) == 0).all(), "silence"


@pytest.mark.parametrize("delay", [0.0, 3.0, -2.0, 0.5, -1.3])
def test_a_delay_moves_a_template_by_fractions_of_a_sample(delay):
    bank = bank_with(damped())
    with torch.no_grad():
        bank.onset_delays.fill_(delay)
    reach = bank.max_delay_samples
    assert torch.allclose(bank.apply_delays()[:, :, reach : reach + LENGTH], damped(delay), atol=0.02)


def test_delays_are_learned_to_a_quarter_of_a_sample():
    """The shapes are known, when each channel begins is not: gradients of the score at the onset find it."""
    rng = np.random.default_rng(3)
    true = rng.uniform(-4, 4, (EVENTS, FEATURES))
    x = planted(damped(true), 60, noise=0.02)
    bank = bank_with(damped())
    optimizer = torch.optim.Adam([bank.onset_delays], 0.1)
    criterion = evlib.EventSpecificLoss()
    labels, timings = torch.eye(EVENTS), torch.full((EVENTS, EVENTS), 60.0)
    for _ in range(300):
        optimizer.zero_grad()
        loss = criterion(torch.zeros(EVENTS, EVENTS), torch.zeros(EVENTS, 20, EVENTS), bank(x), labels, timings)[
            "template_loss"
        ]
        loss.backward()
        optimizer.step()
    assert np.abs(bank.onset_delays.detach().numpy() - true).max() < 0.25


def test_delays_of_many_oscillations_are_found_and_then_learned():
    """Far off, training alone stops at the nearest oscillation; a search over all lags starts it at the right one."""
    rng = np.random.default_rng(4)
    true = rng.uniform(-9.5, 9.5, (EVENTS, FEATURES))
    bank = bank_with(damped())
    with torch.no_grad():
        bank.onset_delays.copy_(torch.from_numpy(true))
        snippets = bank.apply_delays().transpose(1, 2) + 0.01 * torch.randn(EVENTS, LENGTH + 20, FEATURES)
    bank.onset_delays.data.zero_()
    bank.find_delays(snippets)
    assert np.abs(bank.onset_delays.detach().numpy() - true).max() < 0.25
    with pytest.raises(ShapeError, match="snippets must have shape"):
        bank.find_delays(snippets[:, 1:])


def test_templates_of_a_bank_are_taken_over():
    bank = evlib.EventTemplateBank(2, 3, 10)
    bank.load_templates(np.ones((2, 7, 3)))
    assert bank.templates[:, :, :7].eq(1).all() and bank.templates[:, :, 7:].eq(0).all()
    with pytest.raises(ShapeError, match=r"templates must have shape \(2, length, 3\)"):
        bank.load_templates(np.ones((2, 3, 7)))


# --- paths and heads


def test_grouped_paths_are_separate_paths():
    """What one type's filters are changes nothing for the others, and each equals three plain convolutions."""
    cnn, x = evlib.EventSpecificCNN(3, 2, 4), torch.randn(2, 70, 2)
    features, shared = cnn(x)
    signal = x.transpose(1, 2)
    for e in range(3):
        rows = slice(4 * e, 4 * e + 4)
        h = torch.relu(torch.conv1d(signal, cnn.onset.weight[rows], cnn.onset.bias[rows], padding=5))
        h = torch.relu(torch.conv1d(h, cnn.shape.weight[rows], cnn.shape.bias[rows], padding=10))
        h = torch.relu(torch.conv1d(h, cnn.pattern.weight[rows], cnn.pattern.bias[rows], padding=20))
        assert torch.allclose(features[:, :, e], h.transpose(1, 2), atol=1e-5)
    assert shared.shape == (2, 70, 4)
    assert evlib.EventSpecificCNN(3, 2, 4, use_shared=False)(x)[1] is None


@pytest.mark.parametrize(("n", "stride"), [(100, 10), (105, 10), (9, 10), (50, 3)])
def test_strided_paths_have_a_feature_a_frame(n, stride):
    features, shared = evlib.EventSpecificCNN(2, 3, 4, stride=stride)(torch.randn(1, n, 3))
    assert features.shape == (1, -(-n // stride), 2, 4) and shared.shape == (1, n, 4)


def test_heads_are_as_many_as_types_and_independent():
    heads = evlib.EventSpecificTimingHeads(num_events=3, hidden_size=8, dropout=0.0)
    x = torch.randn(2, 12, 8)
    before = heads(x)
    with torch.no_grad():
        heads.qkv_weight[1] += 1
        heads.last_weight[1] += 1
    after = heads(x)
    assert torch.equal(before[..., [0, 2]], after[..., [0, 2]]) and not torch.allclose(before[..., 1], after[..., 1])


def test_heads_have_the_parameters_of_the_original():
    assert sum(p.numel() for p in evlib.EventSpecificTimingHeads(16, 256).parameters()) == 16 * 296_193


def test_absent_types_are_masked():
    heads, x = evlib.EventSpecificTimingHeads(2, 8), torch.randn(1, 5, 8)
    assert (heads(x, torch.tensor([[True, False]]))[..., 1] == -1e9).all()
    with pytest.raises(ShapeError, match="event_mask"):
        heads(x, torch.ones(1, 3))
    with pytest.raises(ShapeError, match="features must have"):
        heads(torch.randn(1, 5, 7))
    with pytest.raises(OptionError, match="multiple of 4"):
        evlib.EventSpecificTimingHeads(2, 10)


# --- the whole model


@pytest.fixture
def model():
    return evlib.EventSpecificClassifier(hidden_size=8, num_events=3, template_length=20).eval()


def test_it_answers_like_every_event_model(model):
    out = model(torch.randn(2, 105, 6))
    assert isinstance(out, EventOutput) and torch.allclose(out.timing_probs.sum(1), torch.ones(2, 3))
    detections, timings, probs = model.predict_events(torch.randn(2, 105, 6), threshold=0.0)
    assert detections.eq(1).all() and timings.isfinite().all() and probs.shape == (2, 3)
    result = evlib.detect_events_from_sequence(model, np.random.default_rng(0).normal(size=(105, 6)), threshold=0.0)
    assert result["event_timings"].shape == (3,)


@pytest.mark.parametrize("true", [40.0, 40.3, 59.9])
def test_times_are_repicked_between_samples(true):
    t = torch.arange(100.0)
    scores = torch.exp(-0.5 * ((t - true) / 6) ** 2)[None, :, None]
    for coarse in (true - 9, true + 9):
        assert refine_times(scores, torch.tensor([[coarse]]), 12).item() == pytest.approx(true, abs=0.01)


def test_repicking_stays_inside_and_looks_no_farther_than_its_reach():
    scores = torch.zeros(1, 30, 2)
    scores[0, 0, 0] = scores[0, 29, 1] = 1.0
    assert refine_times(scores, torch.tensor([[2.0, 27.0]]), 5).tolist() == [[0.0, 29.0]]
    far = refine_times(scores, torch.tensor([[20.0, 10.0]]), 5)
    assert (far - torch.tensor([[20.0, 10.0]])).abs().max() <= 5
