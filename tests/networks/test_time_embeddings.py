"""Time embeddings: every time its own vector, formulas against their definitions, a mixture that is balanced."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from evlib.networks.time_embeddings import (
    KMOTE,
    DeltaTimeStateSpace,
    LeTE,
    SinCosEmbedding,
    balance_loss,
    cubic_splines,
    make_time_embedding,
)
from evlib.signals.errors import DataError, OptionError

TIMED = ("table", "sincos", "lete", "kan_mammote")
PIXELS = torch.arange(784.0)[None]


def vectors(embedding, times=PIXELS):
    """(times, size), each time on its own: the state space has a memory."""
    with torch.no_grad():
        embedded = embedding.eval()(times.reshape(-1, 1), torch.ones(times.numel(), 1, 1))
    return (embedded[0] if isinstance(embedded, tuple) else embedded)[:, 0]


@pytest.mark.parametrize("name", TIMED)
def test_distinct_times_have_distinct_vectors(name):
    embedded = vectors(make_time_embedding(name))
    assert embedded.shape == (784, 32)
    distance = torch.cdist(embedded, embedded, compute_mode="donot_use_mm_for_euclid_dist") + 1e9 * torch.eye(784)
    assert distance.min() > 1e-6
    # More than one direction: a normalised line would have a single one.
    singular = torch.linalg.svdvals(embedded - embedded.mean(0))
    assert (singular > 0.01 * singular[0]).sum() >= 2


@pytest.mark.parametrize("name", ("none", "intensity"))
def test_controls_know_no_time(name):
    embedded = vectors(make_time_embedding(name))
    assert torch.equal(embedded, embedded[:1].expand_as(embedded))


def test_sines_by_hand():
    t = SinCosEmbedding(32, time_scale=0.1)(torch.tensor([[70.0]]))[0, 0]
    for i in range(16):
        angle = 7 * math.exp(-i * math.log(1e4) / 16)
        assert t[2 * i].item() == pytest.approx(math.sin(angle), abs=1e-5)
        assert t[2 * i + 1].item() == pytest.approx(math.cos(angle), abs=1e-5)


@given(st.floats(-1.6, 1.6), st.integers(3, 9))
def test_splines_against_the_recursion(x, grid):
    """Cox and de Boor's recursion on knots that go on beyond the interval."""
    width = 2 / grid
    knots = -1 + width * np.arange(-3, grid + 4)
    basis = ((knots[:-1] <= x) & (x < knots[1:])).astype(float)
    for k in range(1, 4):
        left = (x - knots[: -k - 1]) / (knots[k:-1] - knots[: -k - 1])
        right = (knots[k + 1 :] - x) / (knots[k + 1 :] - knots[1:-k])
        basis = left * basis[:-1] + right * basis[1:]
    assert cubic_splines(torch.tensor(x, dtype=torch.float64), grid).numpy() == pytest.approx(basis, abs=1e-6)


@pytest.mark.parametrize("p", [0.25, 0.5, 0.75])
def test_lete_shares(p):
    embedding = LeTE(16, p=p)
    assert embedding(PIXELS).shape == (1, 784, 16) and embedding.constant.numel() == int(16 * p)
    plain = LeTE(16, p=p, layer_norm=False, scale=False)
    assert sum(q.numel() for q in embedding.parameters()) - sum(q.numel() for q in plain.parameters()) == 3 * 16


def test_slopes_learn_at_their_rate():
    times, moved = torch.rand(1, 50) * 784, {}
    for rate in (1.0, 0.001, 0.0):
        torch.manual_seed(0)
        embedding = LeTE(8, time_scale=1.0, slope_rate=rate)
        first = embedding(times).detach()
        optimizer = torch.optim.Adam(embedding.parameters(), lr=0.01)
        embedding(times).sin().sum().backward()
        optimizer.step()
        slope = torch.cat(list(embedding.slope)).detach() * (rate or 1.0)
        moved[rate] = (slope - torch.cat([10 ** -torch.linspace(0, 9, 4)] * 2)).abs().max().item(), first
    assert moved[1.0][0] == pytest.approx(0.01, rel=0.01) and moved[0.001][0] == pytest.approx(1e-5, rel=0.1)
    assert moved[0.0][0] == 0
    torch.testing.assert_close(moved[1.0][1], moved[0.001][1], rtol=1e-3, atol=1e-3)
    for rate in (-1.0, 1e-5, 2.0, float("nan")):
        with pytest.raises(OptionError, match="slope_rate"):
            LeTE(8, slope_rate=rate)


def test_options_and_times_that_do_not_fit():
    for name, options, words in (
        ("sincos", {"size": 5}, "even"),
        ("lete", {"p": 1.5}, "p must be a number between 0 and 1"),
        ("table", {"size": 1}, "size must be a whole number"),
        ("lete", {"size": 8.0}, "size must be a whole number"),
    ):
        with pytest.raises(OptionError, match=words):
            make_time_embedding(name, **options)
    for time in (784.0, -1.0, float("nan")):
        with pytest.raises(DataError, match="times from 0 to 783"):
            make_time_embedding("table")(torch.tensor([[time]]))


def test_the_mixture_uses_the_two_likeliest_experts():
    torch.manual_seed(1)
    mixture = KMOTE(8, top=2).eval()
    embedded, probability = mixture(PIXELS)
    assert probability.shape == (1, 784, 4) and torch.allclose(probability.sum(-1), torch.ones(1, 784))
    assert torch.allclose(embedded.mean(-1), torch.zeros(1, 784), atol=1e-5)  # normalised
    for weight in mixture.weight:
        before = mixture(PIXELS)[0]
        with torch.no_grad():
            weight.add_(1.0 + torch.rand_like(weight))
        changed = ((mixture(PIXELS)[0] - before).abs() > 1e-4).any(-1)[0]
        index = next(i for i, other in enumerate(mixture.weight) if other is weight)
        asked = (probability[0].topk(2).indices == index).any(-1)
        assert torch.equal(changed, asked) or not asked.any() and not changed.any()


def test_balance_is_zero_when_all_are_used_equally_and_log_n_when_one_is():
    mask = torch.tensor([[True, True, False]])
    one = torch.nn.functional.one_hot(torch.zeros(1, 3, dtype=torch.long), 4).float()
    assert balance_loss(one, mask).item() == pytest.approx(math.log(4), abs=1e-5)
    padded = one.clone()
    padded[0, 2] = torch.tensor([0.0, 0.0, 0.0, 1.0])
    assert balance_loss(padded, mask).item() == pytest.approx(math.log(4), abs=1e-5)
    even = torch.tensor([[[1.0, 0, 0, 0], [0, 1.0, 0, 0], [0, 0, 1.0, 0], [0, 0, 0, 1.0]]])
    assert balance_loss(even, torch.ones(1, 4, dtype=torch.bool)).item() == pytest.approx(0, abs=1e-5)


def test_the_state_space_remembers_and_does_not_foresee():
    torch.manual_seed(0)
    model = DeltaTimeStateSpace(8).eval()
    times = torch.sort(torch.rand(1, 20) * 784).values
    features = torch.ones(1, 20, 1)
    before = model(times, features)[0]
    other = features.clone()
    other[0, 10] = 3.0
    change = (model(times, other)[0] - before).abs().amax(-1)[0]
    assert (change[:10] == 0).all() and (change[10:13] > 1e-6).all()
