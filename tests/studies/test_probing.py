"""Probes: labels are drawn fairly, a readable kind is read, noise is not, and the baselines know what they must."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from evlib import Events, make_recording, write_events, write_recording
from evlib.networks.encoders import LSTMEncoder
from evlib.signals.errors import OptionError
from evlib.studies import probing


def planted(rng, n, noise=0.3, length=60, kinds=4):
    """Windows with one of a few random shapes of 20 samples in the middle."""
    shapes = np.random.default_rng(0).normal(size=(kinds, 20, 2))
    type = rng.permutation(np.arange(n) % kinds)
    windows = noise * rng.normal(size=(n, length, 2))
    windows[:, 20:40] += shapes[type]
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


@pytest.mark.parametrize("all_frames", [False, True])
def test_encoding_is_that_of_the_encoder_in_evaluation_mode(rng, all_frames):
    encoder = LSTMEncoder(3, hidden_size=4, dropout=0.5).train()
    windows = rng.normal(size=(probing.BATCH + 5, 40, 3)).astype(np.float32)
    features = probing.encode_windows(encoder, windows, all_frames)
    assert encoder.training
    with torch.inference_mode():
        states = encoder.eval()(torch.from_numpy(windows)).numpy()
    np.testing.assert_allclose(features, states.reshape(len(states), -1) if all_frames else states.mean(1), atol=1e-6)


def test_methods_read_what_is_there_and_nothing_else(rng):
    (train, train_type), (test, test_type) = planted(rng, 80), planted(rng, 200)
    for method in (probing.probe, probing.match_snippets):
        assert (method(train, train_type, test) == test_type).mean() > 0.95
    noise = rng.normal(size=(280, 120))
    assert (probing.probe(noise[:80], train_type, noise[80:]) == test_type).mean() < 0.45
    assert set(probing.match_snippets(train, 10 * train_type + 5, train)) == {5, 15, 25, 35}, "any names of types"


def test_encoder_meets_every_baseline_with_the_same_labels(rng, monkeypatch):
    sets = planted(rng, 80), planted(rng, 40)
    study = probing.WindowStudy(None, tuple("abcd"), planted(rng, 300)[0], None, *sets, slice(15, 45))
    seen, true_probe = [], probing.probe

    def spy(known, type, new):
        seen.append(type.tolist())
        return true_probe(known, type, new)

    monkeypatch.setattr(probing, "probe", spy)
    # An untrained encoder in the place of the pretrained one is no better than itself.
    blank = probing.reinitialised(LSTMEncoder(2, hidden_size=4))
    table = probing.probe_encoder(blank, study, (1, 5), (0, 1))
    assert list(table.columns) == ["method", "labels_per_type", "seed", "accuracy"] and len(table) == 7 * 2 * 2
    assert [len(type) for type in seen] == [4] * 12 + [20] * 12, "six probes see each of four draws"
    assert all(seen[k] == seen[k - k % 6] for k in range(24))
    mean = table.groupby(["method", "labels_per_type"]).accuracy.mean()
    assert mean["matched filter", 5] == 1.0 and mean["samples", 5] > 0.9 and mean["principal components", 5] > 0.5
    for how in ("mean state", "all states"):
        for sentence in probing.describe_difference(table, f"pretrained, {how}", f"untrained, {how}"):
            assert "does not clearly differ from" in sentence and "+0 to +0 points" in sentence
    alone = replace(study, train=(sets[0][0], np.zeros(80, int)))
    with pytest.raises(OptionError, match="at least two types"):
        probing.probe_encoder(blank, alone)


@given(n=st.integers(2, 12), seed=st.integers(0, 50))
def test_nearest_neighbour_equals_brute_force(n, seed):
    x = np.random.default_rng(seed).normal(size=(n, 3))
    for i, found in enumerate(probing.nearest_neighbour(x)):
        cosine = [-np.inf if i == j else x[i] @ x[j] / np.linalg.norm(x[i]) / np.linalg.norm(x[j]) for j in range(n)]
        assert found == np.argmax(cosine)


def test_halves_of_a_recording_of_your_own(tmp_path):
    recording, events = make_recording(duration_s=40.0, seed=3)
    write_recording(recording, tmp_path / "own.npz")
    write_events(events, tmp_path / "own.tsv")
    study = probing.window_study(str(tmp_path / "own.npz"), str(tmp_path / "own.tsv"), n_windows=64)
    assert study.recording.duration_s == 20.0 and study.names == events.names
    counts = [len(types) for _, types in (study.train, study.test)]
    assert all(len(events) / 2 - 16 <= count <= len(events) / 2 + 16 for count in counts), counts
