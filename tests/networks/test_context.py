"""The context network: its features against brute force, its skip path, padding, gradients, learning."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import evlib
from evlib.detection.rhythm import doubted_share
from evlib.networks.context import (
    N_FEATURES,
    OWN_FEATURES,
    RHYTHM_BINS,
    RHYTHM_RANGE_S,
    ContextLSTM,
    context_features,
    relative_evidence,
)
from evlib.signals.errors import OptionError
from evlib.signals.synthetic import make_templates
from evlib.templates.hybrid import Examples
from evlib.templates.pursue import Candidates
from evlib.training.context import as_sequence, in_crops, sequence_loss

RATE = 2000.0


def random_candidates(rng, n=40, n_types=3, span_s=20.0):
    time = np.sort(rng.uniform(0, span_s * RATE, n))
    llr, zeros = rng.normal(8, 6, n), np.zeros(n)
    return Candidates(time, rng.integers(0, n_types, n), llr, llr, llr, zeros + 1.0, zeros)


def brute_force_rhythm(found, prior):
    """Histograms of time differences, pair by pair."""
    out = np.zeros((len(found), 4, RHYTHM_BINS))
    low, high = np.log(RHYTHM_RANGE_S)
    probability = 1 / (1 + np.exp(-(found.llr - prior)))
    for i in range(len(found)):
        for j in range(len(found)):
            gap = (found.time[i] - found.time[j]) / RATE
            if i == j or abs(gap) >= RHYTHM_RANGE_S[1]:
                continue
            channel = (found.type[i] != found.type[j]) + (0 if j < i else 2)
            position = (np.log(max(abs(gap), 1e-4)) - low) / (high - low) * (RHYTHM_BINS - 1)
            share = max(0.0, 1 - abs(position)) if position > 0 else 1.0
            weights = np.maximum(0, 1 - np.abs(np.arange(RHYTHM_BINS) - position))
            weights[0] = share
            out[i, channel] += weights * (probability[j] if probability[j] > 1e-3 else 0)
    return out.reshape(len(found), -1)


@pytest.mark.parametrize("seed", range(3))
def test_rhythm_equals_brute_force(seed):
    found = random_candidates(np.random.default_rng(seed))
    features = context_features(found, RATE, 8.0)
    assert features.shape == (40, N_FEATURES)
    np.testing.assert_allclose(features[:, OWN_FEATURES:], brute_force_rhythm(found, 8.0), atol=2e-3)


def test_features_do_not_depend_on_where_the_recording_begins(rng):
    found = random_candidates(rng)
    shifted = context_features(found.shift(12345), RATE, 8.0)
    np.testing.assert_allclose(shifted, context_features(found, RATE, 8.0), atol=1e-4)
    assert context_features(random_candidates(rng)[:0], RATE, 8.0).shape == (0, N_FEATURES)


def test_evidence_keeps_its_order_and_its_middle():
    llr = np.linspace(-500, 500, 2001)
    evidence = relative_evidence(llr, 8.0)
    assert (np.diff(evidence) > 0).all() and np.abs(evidence).max() < 100
    near = np.abs(llr - 8) < 20
    np.testing.assert_allclose(evidence[near], llr[near] - 8, rtol=1e-6)


def trained_a_little(network, batch, steps, learning_rate=1e-2):
    optimizer = torch.optim.Adam(network.parameters(), learning_rate)
    losses = []
    for _ in range(steps):
        loss = sequence_loss(network, batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def batch_of(rng, n=60):
    found = random_candidates(rng, n)
    target = rng.integers(0, 2, n).astype(np.float32)
    examples = Examples(found, target, np.ones(n, np.float32), np.zeros(3), np.full(n, np.nan))
    return in_crops(as_sequence(examples, RATE, 8.0))


def test_overfits_one_batch_and_every_parameter_learns(rng):
    network = ContextLSTM(3, hidden_size=16, dropout=0.0)
    losses = trained_a_little(network, batch_of(rng), 60)
    assert losses[-1] < losses[0] / 5
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())


def test_padding_changes_nothing(rng):
    network, batch = ContextLSTM(3, hidden_size=8, dropout=0.0), batch_of(rng)
    trained_a_little(network, batch, 3)
    network.eval()
    padded = {name: torch.cat([value, 0 * value[:, :9]], 1) for name, value in batch.items() if name != "lengths"}
    padded["features"][:, 60:], padded["llr"][:, 60:] = 1e3, -1e3
    padded["lengths"] = batch["lengths"]
    inputs = ("features", "llr", "type", "lengths")
    plain, with_garbage = (network(*(b[name] for name in inputs)) for b in (batch, padded))
    torch.testing.assert_close(plain, with_garbage[:, :60])
    torch.testing.assert_close(sequence_loss(network, batch), sequence_loss(network, padded))


def test_unknown_truth_has_no_weight(rng):
    batch = batch_of(rng)
    network = ContextLSTM(3, hidden_size=8).eval()
    batch["weight"][:, 30:] = 0
    before = sequence_loss(network, batch)
    batch["target"][:, 30:] = 1 - batch["target"][:, 30:]
    assert torch.equal(before, sequence_loss(network, batch))


@pytest.mark.parametrize("name", ["none", "intensity", "table", "sincos", "lete"])
def test_embedded_times_are_sums_over_neighbours(rng, name):
    """The embedding of the histograms is the sum of the embeddings of their bins, and all of it learns."""
    network = ContextLSTM(3, hidden_size=8, time_embedding=name, time_size=4).eval()
    batch = batch_of(rng)
    features = batch["features"]
    seen = []
    network.project.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    loss = sequence_loss(network, batch)
    bins = network.time(torch.arange(56.0)[None], torch.ones(1, 56, 1))[0]
    wanted = sum(features[0, 5, 8 + 56 + k] * bins[k] for k in range(56))
    torch.testing.assert_close(seen[0][0, 5, 8 + 4 : 8 + 8], wanted, rtol=1e-4, atol=1e-5)
    torch.nn.init.normal_(network.head[-1].weight)
    sequence_loss(network, batch).backward()
    assert loss.isfinite() and all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.time.parameters())
    rebuilt = ContextLSTM(**network.config).eval()
    rebuilt.load_state_dict(network.state_dict())
    inputs = (features, batch["llr"], batch["type"], batch["lengths"])
    assert torch.equal(rebuilt(*inputs), network(*inputs))


@pytest.mark.parametrize(("name", "words"), [("kan_mammote", "reads a sequence of events"), ("clock", "one of none")])
def test_names_that_embed_no_single_time_are_refused(name, words):
    with pytest.raises(OptionError, match=words):
        ContextLSTM(3, time_embedding=name)


@pytest.mark.parametrize(("veto", "boost"), [(0.0, 0.0), (1.0, 3.0), (8.0, 0.5)])
def test_what_context_may_change_is_bounded(veto, boost):
    """With any weights, evidence loses at most the veto and gains at most the boost."""
    network = ContextLSTM(3, hidden_size=8).eval()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=2.0)
    network.limit(veto, boost)
    features, llr = 5 * torch.randn(2, 40, N_FEATURES), 20 * torch.randn(2, 40)
    change = network(features, llr, torch.randint(3, (2, 40))) - llr
    assert -veto - 1e-4 <= change.min() and change.max() <= boost + 1e-4
    assert (change == 0).all() if veto == 0 else change.min() <= -veto / 2 and change.max() >= boost / 2


def doubting(shift):
    """A context network that adds one number to all evidence."""
    network = ContextLSTM(2, hidden_size=8).eval()
    torch.nn.init.constant_(network.head[-1].bias, shift)
    return network


@pytest.mark.slow
@pytest.mark.parametrize(("shift", "strange"), [(-1.0, True), (1.0, False)])
def test_a_rhythm_in_which_context_doubts_what_is_clear_is_decided_by_evidence_and_said_so(shift, strange, caplog):
    templates = make_templates(2, seed=0)
    made = evlib.make_recording(templates, 120.0, snr=6.0, seed=1)
    plain = evlib.fit([(made.recording, made.events)], method="matched_filter", progress=False)
    doubtful = replace(plain, network=doubting(shift), most_doubted=0.5)
    candidates = plain.candidates(made.recording)
    evidence, odds = plain.log_odds(candidates), doubtful.log_odds(candidates)
    assert not caplog.records  # only detection says so: training looks at strange rhythms on purpose
    clear = (evidence > 3) & (evidence < 20)
    # A part of 20 s is judged by what came before it, by itself, and by the next 5 s.
    time_s = candidates.time / RATE
    known = time_s // 20.0 * 20.0 + 25.0 > time_s[clear][24]
    assert 0 < known.sum() < len(candidates)
    np.testing.assert_allclose(odds[clear & ~known], evidence[clear & ~known] + shift, atol=1e-4)
    np.testing.assert_allclose(odds[clear & known], evidence[clear & known] + (0 if strange else shift), atol=1e-4)
    found = evlib.detect(doubtful, made.recording)
    assert strange == ("the rhythm is not one of the training recordings: context doubts up to 100 %" in caplog.text)
    if strange:
        late = int(candidates.time[known].min()) + 4000, made.recording.n_samples
        assert np.array_equal(
            found.within(*late).time_samples, evlib.detect(plain, made.recording).within(*late).time_samples
        )
    assert replace(doubtful, most_doubted=1.0).log_odds(candidates)[clear] == pytest.approx(
        evidence[clear] + shift, abs=1e-4
    )


def test_few_clear_events_do_not_show_a_rhythm():
    evidence = np.full(24, 5.0)
    assert doubted_share(evidence, evidence - 1) == 0 and doubted_share(np.full(25, 5.0), np.full(25, 4.0)) == 1
    assert doubted_share(np.full(100, 30.0), np.zeros(100)) == 0  # certain ones lose nothing that matters
