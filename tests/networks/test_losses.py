"""Losses against their definitions: masked means, windows, autoencoders, contrast."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from evlib.networks.losses import (
    AutoencoderLoss,
    EventSpecificLoss,
    EventTimingLoss,
    MaskedMSELoss,
    VariationalAutoencoderLoss,
    masked_mean,
    masked_mse,
    nt_xent,
)
from evlib.signals.errors import DataError, OptionError, ShapeError

NAN = float("nan")


def perfect_logits(timings, frames=20, resolution=10, sigma=5.0):
    """(batch, frames, events): the log of the loss's own target."""
    centres = torch.arange(frames) * resolution + (resolution - 1) / 2
    return -0.5 * ((centres[:, None] - timings[:, None]) / sigma) ** 2


def test_masked_mean_and_mse_agree_with_numpy(rng):
    predicted, target, mask = rng.normal(size=(4, 5)), rng.normal(size=(4, 5)), rng.random((4, 5)) < 0.5
    tensors = torch.tensor(predicted), torch.tensor(target), torch.tensor(mask)
    assert masked_mean(tensors[0], tensors[2]).item() == pytest.approx(predicted[mask].mean())
    assert masked_mse(*tensors).item() == pytest.approx(((predicted - target)[mask] ** 2).mean())
    assert MaskedMSELoss()(*tensors[:2], tensors[2].double()) == masked_mse(*tensors)


@pytest.mark.parametrize(("mask", "gradient"), [([True, False], [2.0, 0.0]), ([False, False], [0.0, 0.0])])
def test_masked_nan_reaches_neither_the_loss_nor_the_gradient(mask, gradient):
    x, mask = torch.ones(2, requires_grad=True), torch.tensor(mask)
    loss = masked_mse(x, torch.tensor([0.0, NAN]), mask)
    loss.backward()
    assert loss.item() == gradient[0] / 2 and x.grad.tolist() == gradient
    assert masked_mean(torch.full((2,), NAN), torch.zeros(2, dtype=torch.bool)) == 0


@pytest.mark.parametrize("time", [44.5, 47.0, 49.5, 0.0, 199.0])
def test_defect_8_perfect_logits_give_no_timing_loss_and_those_of_half_a_ms_later_do(time):
    perfect = perfect_logits(torch.tensor([[time, 0.0]]))
    events, labels = torch.zeros(1, 2), torch.tensor([[1.0, 0.0]])
    at_time, later = (
        EventTimingLoss()(events, perfect, labels, torch.tensor([[t, NAN]]))["timing_loss"] for t in (time, time + 1)
    )
    assert at_time.abs() < 1e-6 < 1e-3 < later


def test_timing_loss_is_the_divergence_from_a_gaussian(rng):
    logits = rng.normal(size=20)
    centres = np.arange(20) * 10 + 4.5
    target = np.exp(-0.5 * ((centres - 63.2) / 8) ** 2)
    target /= target.sum()
    predicted = np.exp(logits) / np.exp(logits).sum()
    want = (target * np.log(target / predicted)).sum()
    loss_fn = EventTimingLoss(sigma_samples=8)
    got = loss_fn(
        torch.zeros(1, 1), torch.tensor(logits)[None, :, None].float(), torch.ones(1, 1), torch.tensor([[63.2]])
    )
    assert got["timing_loss"].item() == pytest.approx(want, rel=1e-4)


def test_event_loss_counts_known_labels_only():
    logits = torch.tensor([[2.0, -1.0, 50.0]], requires_grad=True)
    labels, timings = torch.tensor([[1.0, 0.0, NAN]]), torch.full((1, 3), NAN)
    loss = EventTimingLoss()(logits, torch.zeros(1, 20, 3), labels, timings)
    want = np.mean([np.log1p(np.exp(-2.0)), np.log1p(np.exp(-1.0))])
    assert loss["event_loss"].item() == pytest.approx(want, rel=1e-5)
    loss["total_loss"].backward()
    assert logits.grad[0, 2] == 0 and logits.grad.isfinite().all()


@pytest.mark.parametrize("labels", [torch.zeros(2, 3), torch.full((2, 3), NAN), torch.ones(2, 3)])
def test_no_known_time_gives_a_finite_zero_timing_loss(labels):
    logits = torch.randn(2, 20, 3, requires_grad=True)
    losses = EventTimingLoss()(torch.zeros(2, 3), logits, labels, torch.full((2, 3), NAN))
    losses["total_loss"].backward()
    assert losses["timing_loss"].item() == 0 and losses["total_loss"].isfinite()
    assert logits.grad.isfinite().all()


def test_defect_5_padding_changes_no_loss():
    events, logits = torch.randn(1, 3), torch.randn(1, 12, 3)
    labels, timings = torch.tensor([[1.0, 0.0, 1.0]]), torch.tensor([[33.0, NAN, 118.0]])
    loss_fn = EventTimingLoss()
    alone = loss_fn(events, logits, labels, timings)
    padded = torch.cat([logits, torch.full((1, 8, 3), -torch.inf)], 1).requires_grad_()
    together = loss_fn(events, padded, labels, timings)
    torch.testing.assert_close(together, alone)
    together["total_loss"].backward()
    assert padded.grad.isfinite().all() and (padded.grad[:, 12:] == 0).all()


def test_defect_4_refractory_term_is_zero_for_one_peak_and_positive_for_two():
    labels, timings, events = torch.zeros(1, 1), torch.full((1, 1), NAN), torch.full((1, 1), 8.0)

    def penalty(logits, **options):
        return EventTimingLoss(**options)(events, logits, labels, timings)["refractory_loss"].item()

    for time in (45.0, 99.5, 132.0):
        assert penalty(perfect_logits(torch.tensor([[time]]))) == pytest.approx(0, abs=1e-5)
    two = torch.logaddexp(perfect_logits(torch.tensor([[45.0]])), perfect_logits(torch.tensor([[132.0]])))
    assert penalty(two) > 1e-3
    assert EventTimingLoss()(events, two, labels, timings, apply_refractory=False)["refractory_loss"] == 0
    assert penalty(two, refractory_period_samples=50) < 1e-5 < penalty(two, refractory_period_samples=150)


def test_defect_4_refractory_term_does_not_repeat_the_timing_loss():
    logits = perfect_logits(torch.tensor([[45.0]]))
    losses = EventTimingLoss()(torch.full((1, 1), 8.0), logits, torch.ones(1, 1), torch.tensor([[150.0]]))
    assert losses["timing_loss"] > 1 and losses["refractory_loss"] < 1e-5


def test_defect_4_descending_the_refractory_term_leaves_one_peak():
    strong, weak = perfect_logits(torch.tensor([[45.0]])), perfect_logits(torch.tensor([[132.0]])) - 0.5
    logits = torch.logaddexp(strong, weak).requires_grad_()
    loss_fn, arguments = EventTimingLoss(), (torch.zeros(1, 1), torch.full((1, 1), NAN))
    before = loss_fn(torch.full((1, 1), 8.0), logits, *arguments)["refractory_loss"]
    before.backward()
    assert logits.grad[0, 4, 0] < 0 < logits.grad[0, 13, 0]


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (EventTimingLoss, {"event_weight": -1, "sigma_samples": 0, "timing_resolution_samples": 0}),
        (EventSpecificLoss, {"template_weight": -1, "temperature": 0, "refractory_weight": -1}),
        (VariationalAutoencoderLoss, {"recon_weight": -1, "kl_weight": -0.1, "warmup_steps": -1}),
    ],
)
def test_impossible_options_are_refused(kind, options):
    for option, value in options.items():
        with pytest.raises(OptionError, match=f"{option} must be"):
            kind(**{option: value})


TABLE, LOGITS = torch.zeros(2, 3), torch.zeros(2, 20, 3)


@pytest.mark.parametrize(
    ("loss", "arguments", "error", "words"),
    [
        (
            EventTimingLoss(),
            (TABLE, LOGITS.transpose(1, 2), TABLE, TABLE),
            ShapeError,
            r"must have shape \(2, frames, 3\)",
        ),
        (EventTimingLoss(), (TABLE, LOGITS, TABLE, TABLE[:1]), ShapeError, "event_timings must have shape"),
        (EventTimingLoss(), (TABLE, LOGITS * NAN, TABLE, TABLE), DataError, "diverged"),
        (EventTimingLoss(), (TABLE, LOGITS - torch.inf, TABLE, TABLE), DataError, "no frame"),
        (AutoencoderLoss(), ({"reconstruction": LOGITS[:1]}, LOGITS), ShapeError, "reconstruction must have shape"),
        (EventSpecificLoss(), (TABLE, LOGITS, None, TABLE, TABLE), ShapeError, "a model without templates"),
        (
            EventSpecificLoss(),
            (TABLE, LOGITS, LOGITS[..., :1], TABLE, TABLE),
            ShapeError,
            "template_scores must have shape",
        ),
        (nt_xent, (torch.ones(1, 3), torch.ones(1, 3)), ShapeError, "drop_last"),
        (nt_xent, (torch.ones(4, 3), torch.ones(3, 3)), ShapeError, r"z2 must have shape \(4, 3\)"),
        (nt_xent, (TABLE, TABLE, 0), OptionError, "temperature"),
        (nt_xent, (TABLE * NAN, TABLE), DataError, "diverged"),
        (nt_xent, (TABLE, TABLE, 0.1, torch.zeros(2)), ShapeError, "items of at least 2 sources"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(loss, arguments, error, words):
    with pytest.raises(error, match=words):
        loss(*arguments)


# --- templates


def test_template_loss_wants_the_peak_at_the_onset():
    def template_loss(peak, onset):
        scores = torch.zeros(1, 100, 1)
        scores[0, peak] = 0.8
        zeros = torch.zeros(1, 1), torch.zeros(1, 10, 1)
        return EventSpecificLoss()(*zeros, scores, torch.ones(1, 1), torch.tensor([[onset]]))["template_loss"].item()

    assert template_loss(40, 40.0) < template_loss(41, 40.0)
    assert template_loss(40, 40.0) < template_loss(40, 40.5) < template_loss(40, 41.0)


def test_unknown_times_and_absent_types_have_no_template_loss():
    scores = torch.randn(2, 50, 2, requires_grad=True)
    labels, timings = torch.tensor([[0.0, 1.0], [NAN, 1.0]]), torch.tensor([[10.0, NAN], [3.0, 70.0]])
    losses = EventSpecificLoss()(torch.zeros(2, 2), torch.zeros(2, 5, 2), scores, labels, timings)
    losses["total_loss"].backward()
    assert losses["template_loss"] == 0 and losses["total_loss"].isfinite() and not scores.grad.any()


def test_the_total_is_the_weighted_sum():
    weights = {"event_weight": 0.3, "timing_weight": 0.7, "template_weight": 2.0, "refractory_weight": 0.5}
    logits = torch.randn(3, 2), torch.randn(3, 10, 2), torch.randn(3, 100, 2)
    losses = EventSpecificLoss(**weights)(*logits, torch.ones(3, 2), torch.full((3, 2), 40.0))
    parts = sum(weight * losses[name.replace("_weight", "_loss")] for name, weight in weights.items())
    torch.testing.assert_close(losses["total_loss"], parts)


# --- autoencoders ------------------------------------------------------------------------------------------------


def gaussian_output(rng, batch=3, time=7, channels=2, latent=4):
    values = {name: torch.tensor(rng.normal(size=(batch, latent))) for name in ("mu", "logvar")}
    return {"reconstruction": torch.tensor(rng.normal(size=(batch, time, channels))), **values}


def test_autoencoder_loss_is_the_mean_over_what_is_not_padding(rng):
    output, x, lengths = gaussian_output(rng), torch.tensor(rng.normal(size=(3, 7, 2))), torch.tensor([7, 1, 4])
    squares = [((output["reconstruction"][i, :n] - x[i, :n]) ** 2).flatten() for i, n in enumerate(lengths)]
    want = torch.cat(squares).mean()
    losses = AutoencoderLoss()(output, x, lengths)
    assert losses.keys() == {"total_loss", "reconstruction_loss"}
    torch.testing.assert_close(losses["total_loss"], want)
    torch.testing.assert_close(VariationalAutoencoderLoss()(output, x, lengths)["reconstruction_loss"], want)
    torch.testing.assert_close(
        AutoencoderLoss()(output, x)["total_loss"], (output["reconstruction"] - x).square().mean()
    )


def test_defect_2_divergence_agrees_with_torch_and_both_terms_are_divided_by_one_count(rng):
    output, x, lengths = gaussian_output(rng), torch.tensor(rng.normal(size=(3, 7, 2))), torch.tensor([7, 1, 4])
    loss_fn = VariationalAutoencoderLoss(recon_weight=2.0, kl_weight=0.5, warmup_steps=0)
    losses = loss_fn(output, x, lengths)
    normal = torch.distributions.Normal
    posterior = normal(output["mu"].float(), (output["logvar"].float() / 2).exp())
    divergence = torch.distributions.kl_divergence(posterior, normal(0.0, 1.0)).sum()
    torch.testing.assert_close(losses["kl_loss"], divergence / (12 * 2))
    want = 2 * losses["reconstruction_loss"] + 0.5 * losses["kl_loss"]
    torch.testing.assert_close(losses["total_loss"], want)
    torch.testing.assert_close(losses["full_loss"], want)


def test_the_divergence_warms_up_in_training_steps_only(rng):
    output, x = gaussian_output(rng), torch.zeros(3, 7, 2)
    loss_fn = VariationalAutoencoderLoss(kl_weight=0.4, warmup_steps=4)
    betas = []
    for step in range(6):
        losses = loss_fn(output, x)
        betas.append(((losses["total_loss"] - losses["reconstruction_loss"]) / losses["kl_loss"]).item())
        torch.testing.assert_close(losses["full_loss"], losses["reconstruction_loss"] + 0.4 * losses["kl_loss"])
        if step == 1:
            loss_fn.eval()
            loss_fn(output, x)
            loss_fn.train()
    assert betas == pytest.approx([0, 0.1, 0.2, 0.3, 0.4, 0.4], abs=1e-6)
    again = VariationalAutoencoderLoss(kl_weight=0.4, warmup_steps=4)
    again.load_state_dict(loss_fn.state_dict())
    assert again.beta == loss_fn.beta == 0.4


def test_active_units_counts_the_latent_dimensions_in_use():
    x = torch.zeros(4, 5, 1)
    mu = torch.zeros(4, 3)
    mu[:, 0], mu[:, 1] = torch.tensor([-1.0, 1.0, -1.0, 1.0]), torch.tensor([0.0, 0.01, 0.0, 0.01])
    output = {"reconstruction": x, "mu": mu, "logvar": torch.zeros(4, 3)}
    loss_fn = VariationalAutoencoderLoss()
    assert loss_fn(output, x)["active_units"] == 1
    collapsed = {**output, "mu": torch.full((4, 3), 5.0)}
    assert loss_fn(collapsed, x)["active_units"] == 0, "far from the prior, but the same for all"
    assert "active_units" not in loss_fn({name: value[:1] for name, value in output.items()}, x[:1])


# --- contrastive -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [2, 5, 64])
@pytest.mark.parametrize("temperature", [0.05, 0.5])
def test_equal_embeddings_cost_the_logarithm_of_the_others_and_orthogonal_ones_nothing(n, temperature):
    assert nt_xent(torch.ones(n, 3), torch.ones(n, 3), temperature).item() == pytest.approx(np.log(2 * n - 1), rel=1e-6)
    assert nt_xent(torch.eye(n), torch.eye(n), 0.05 * temperature).item() == pytest.approx(0, abs=1e-6)


def test_nt_xent_is_safe_at_extreme_values():
    z1 = torch.tensor([[1e20, 0.0], [0.0, 1e-20], [0.0, 0.0]], requires_grad=True)
    loss = nt_xent(z1, -z1.detach().roll(1, 0), temperature=1e-3)
    loss.backward()
    assert loss.isfinite() and z1.grad.isfinite().all()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        z = torch.randn(6, 4)
        mixed = nt_xent(z, z.flip(1))
    torch.testing.assert_close(mixed, nt_xent(z, z.flip(1)), rtol=0, atol=0)


@given(st.integers(2, 6), st.integers(1, 4), st.integers(0, 100))
@settings(max_examples=30, deadline=None)
def test_nt_xent_agrees_with_a_loop_that_leaves_out_items_of_one_source(n_sources, each, seed):
    source = torch.arange(n_sources).repeat_interleave(each)
    z1, z2 = torch.tensor(np.random.default_rng(seed).normal(size=(2, len(source), 5)))
    z, origin, n = torch.nn.functional.normalize(torch.cat([z1, z2]), dim=1), source.repeat(2), len(source)
    losses = []
    for i in range(2 * n):
        partner = (i + n) % (2 * n)
        others = [j for j in range(2 * n) if origin[j] != origin[i]] + [partner]
        scores = torch.stack([z[i] @ z[j] / 0.2 for j in others])
        losses.append(torch.logsumexp(scores, 0) - z[i] @ z[partner] / 0.2)
    torch.testing.assert_close(nt_xent(z1, z2, 0.2, source if each > 1 else None), torch.stack(losses).mean())
