"""Probes: labels are drawn fairly, a readable kind is read, noise is not, and the baselines know what they must."""

from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from evlib import Events
from evlib.networks.encoders import LSTMEncoder
from evlib.signals.errors import OptionError, ShapeError
from evlib.studies import probing


def planted(rng, n, noise=0.3, shift=0, length=60, kinds=4):
    """Windows with one of a few random shapes of 20 samples, in the middle or up to ``shift`` away from it."""
    shapes = np.random.default_rng(0).normal(size=(kinds, 20, 2))
    type = rng.permutation(np.arange(n) % kinds)
    windows = noise * rng.normal(size=(n, length, 2))
    for k, start in enumerate(20 + rng.integers(-shift, shift + 1, n)):
        windows[k, start : start + 20] += shapes[type[k]]
    return windows, type


@given(counts=st.lists(st.integers(1, 9), min_size=2, max_size=5), seed=st.integers(0, 9))
def test_draws_hold_equal_numbers_and_grow(counts, seed):
    type = np.random.default_rng(seed).permutation(np.arange(len(counts)).repeat(counts))
    before = set()
    for n in range(1, min(counts) + 1):
        rows = probing.draw_labels(type, n, seed)
        assert np.bincount(type[rows]).tolist() == [n] * len(counts)
        assert before < set(rows.tolist())
        before = set(rows.tolist())
    for wrong in (0, min(counts) + 1):
        with pytest.raises(OptionError, match=f"rarest type.*1..{min(counts)}|1..{min(counts)}.*rarest type"):
            probing.draw_labels(type, wrong, seed)
    type = np.zeros(1000, int)
    assert not np.array_equal(probing.draw_labels(type, 10, seed), probing.draw_labels(type, 10, seed + 1))


@pytest.mark.parametrize("pooling", ["mean", "max", "last", "none"])
def test_encoding_is_that_of_the_encoder_in_evaluation_mode(rng, pooling):
    encoder = LSTMEncoder(3, hidden_size=4, dropout=0.5).train()
    windows = rng.normal(size=(probing.BATCH + 5, 40, 3)).astype(np.float32)
    features = probing.encode_windows(encoder, windows, pooling)
    assert encoder.training
    with torch.inference_mode():
        states = encoder.eval()(torch.from_numpy(windows)).numpy()
    flat = states.reshape(len(states), -1)
    wanted = {"mean": states.mean(1), "max": states.max(1), "last": states[:, -1], "none": flat}[pooling]
    np.testing.assert_allclose(features, wanted, atol=1e-6)


def test_matched_filter_knows_the_kind_wherever_the_event_lies(rng):
    train, train_type = planted(rng, 40)
    exact, exact_type = planted(rng, 80)
    moved, moved_type = planted(rng, 80, shift=10)
    assert (probing.match_snippets(train, train_type, exact) == exact_type).all()
    assert (probing.match_snippets(train, train_type, moved) == moved_type).mean() < 0.8
    assert (probing.match_snippets(train, train_type, moved, reach=10) == moved_type).mean() > 0.95
    assert set(probing.match_snippets(train, 10 * train_type + 5, train)) == {5, 15, 25, 35}, "any names of types"


def test_probe_reads_what_is_there_and_nothing_else(rng):
    train, train_type = planted(rng, 80)
    test, test_type = planted(rng, 200)
    assert (probing.probe(train, train_type, test) == test_type).mean() > 0.95
    noise = rng.normal(size=(280, 120))
    assert (probing.probe(noise[:80], train_type, noise[80:]) == test_type).mean() < 0.45


def test_comparison_gives_every_method_the_same_labels(rng):
    train, train_type = planted(rng, 80)
    test, test_type = planted(rng, 40)
    seen = {}

    def spy(name, x, type, other):
        seen.setdefault(name, []).append((x[:, 0, 0].tolist(), type.tolist()))
        return np.zeros(len(other), int)

    spies = {name: partial(spy, name) for name in ("a", "b")}
    options = {"labels_per_type": (1, 3), "seeds": (0, 1), "methods": spies}
    table = probing.compare_probes(dict.fromkeys(("a", "b", "linear"), (train, test)), train_type, test_type, **options)
    assert seen["a"] == seen["b"] and len(seen["a"]) == 4
    assert [len(type) for _, type in seen["a"]] == [4, 4, 12, 12]
    assert list(table.columns) == ["method", "labels_per_type", "seed", "accuracy"] and len(table) == 12
    assert table[table.method == "a"].accuracy.tolist() == [0.25] * 4  # ten of forty are of type 0
    assert (table[table.method == "linear"].accuracy > 0.25).all()


def test_event_windows_hold_the_event_at_one_place(rng):
    signal = np.zeros((400, 2), np.float32)
    events = Events.from_seconds([0.003, 0.05, 0.1604, 0.395], [0, 1, 0, 1], 1000.0)
    signal[[50, 160]] = 1
    windows, type = probing.event_windows(signal, events, 5, 20)
    assert windows.shape == (2, 20, 2) and type.tolist() == [1, 0]
    # The second event lies between two samples, and is moved onto one.
    assert windows[0, :, 0].argmax() == windows[1, :, 0].argmax() == 5
    assert windows[0, 5, 0] == pytest.approx(1, abs=1e-5) and windows[1, 5, 0] < 0.95


def test_untrained_encoder_has_the_architecture_and_none_of_the_weights():
    encoder = LSTMEncoder(3, hidden_size=4, num_layers=1, resolution=5)
    state = torch.random.get_rng_state()
    blank, again, other = (probing.reinitialised(encoder, seed) for seed in (0, 0, 1))
    assert torch.equal(state, torch.random.get_rng_state())
    assert blank.config == encoder.config
    weight = "recurrent.weight_hh_l0"
    assert torch.equal(blank.state_dict()[weight], again.state_dict()[weight])
    assert not any(torch.equal(blank.state_dict()[weight], e.state_dict()[weight]) for e in (encoder, other))


def test_encoder_meets_every_baseline_with_the_same_labels(rng):
    train, test = planted(rng, 80), planted(rng, 40)
    options = (train, test, slice(15, 45), (1, 5), (0, 1))
    table = probing.probe_encoder(LSTMEncoder(2, hidden_size=4), planted(rng, 300)[0], *options)
    mean = table.groupby(["method", "labels_per_type"]).accuracy.mean()
    assert len(table) == 7 * 2 * 2
    assert mean["matched filter", 5] == 1.0 and mean["samples", 5] > 0.9 and mean["principal components", 5] > 0.5
    # An untrained encoder in the place of the pretrained one is no better than itself.
    blank = probing.reinitialised(LSTMEncoder(2, hidden_size=4))
    table = probing.probe_encoder(blank, train[0], *options)
    for how in ("mean state", "all states"):
        for sentence in probing.describe_difference(table, f"pretrained, {how}", f"untrained, {how}"):
            assert "does not clearly differ from" in sentence and "+0 to +0 points" in sentence


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=4))
def test_verdict_follows_from_every_draw(pairs):
    rows = [(m, 5, k, v / 10) for k, pair in enumerate(pairs) for m, v in zip("ab", pair, strict=True)]
    table = pd.DataFrame(rows, columns=["method", "labels_per_type", "seed", "accuracy"])
    (sentence,) = probing.describe_difference(table, "a", "b")
    better, worse = all(a > b for a, b in pairs), all(a < b for a, b in pairs)
    assert ("a beats b" in sentence, "a is below b" in sentence) == (better, worse)
    assert ("a does not clearly differ from b" in sentence) == (not better and not worse)
    with pytest.raises(OptionError, match="unknown method 'c' in the table"):
        probing.describe_difference(table, "c", "b")


@given(n=st.integers(2, 12), k=st.integers(1, 11), seed=st.integers(0, 50))
def test_neighbours_equal_brute_force(n, k, seed):
    x = np.random.default_rng(seed).normal(size=(n, 3))
    if k >= n:
        with pytest.raises(ShapeError, match="more than k"):
            probing.nearest_neighbours(x, k)
        return
    found = probing.nearest_neighbours(x, k)
    assert found.shape == (n, k)
    for i in range(n):
        cosine = [-np.inf if i == j else x[i] @ x[j] / np.linalg.norm(x[i]) / np.linalg.norm(x[j]) for j in range(n)]
        assert found[i].tolist() == np.argsort(cosine)[::-1][:k].tolist()


def test_what_does_not_fit_is_refused(rng):
    x, type = planted(rng, 8)
    with pytest.raises(OptionError, match="mean, max, last"):
        probing.encode_windows(LSTMEncoder(2, hidden_size=4), x, "median")
    with pytest.raises(ShapeError, match="8 rows"):
        probing.probe(x, type[:5], x)
    with pytest.raises(ShapeError, match="same features"):
        probing.probe(x, type, x[:, :30])
    with pytest.raises(OptionError, match="at least two"):
        probing.probe(x, np.zeros(8, int), x)
    with pytest.raises(ShapeError, match="events, time, channels"):
        probing.match_snippets(x[:, :, 0], type, x[:, :, 0])
    with pytest.raises(OptionError, match="half a window"):
        probing.match_snippets(x, type, x, reach=30)
    with pytest.raises(OptionError, match="unknown representation 'c'"):
        probing.compare_probes({"a": (x, x)}, type, type, methods={"c": probing.probe})
    with pytest.raises(ShapeError, match="'a' has 8 training and 7 test rows"):
        probing.compare_probes({"a": (x, x[:7])}, type, type, labels_per_type=(1,))
