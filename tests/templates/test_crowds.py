"""Crowds: where templates explain each other the pursuit gives up, in bounded work, and says so."""

import logging

import numpy as np
import pytest
from planted import LENGTH, make_bank, make_templates, plant, schedule

import evlib
from evlib.templates import pursue as candidates
from evlib.templates import pursue as repicking
from evlib.templates.bank import PORTION, TemplateBank, correlate_snippets, cut_snippets
from evlib.templates.learn import _best_fit
from evlib.templates.pursue import CERTAIN, CROWD, crowded_share, explain, find_candidates, n_near

TEMPLATES = make_templates(seed=1)
KINDS = ("tone", "bursts", "loud")


@pytest.fixture(scope="module")
def bank():
    return make_bank(TEMPLATES, 15.0, amplitude_spread=0.5)


def strange(kind, n, seed=0):
    """Signal that is no event: one loud oscillation, bursts of noise, or noise all along."""
    rng = np.random.default_rng(seed)
    noise = rng.standard_normal((n, 6)).astype(np.float32)
    if kind == "tone":
        return noise + 60 * np.sin(0.35 * np.arange(n) + rng.uniform(0, 6))[:, None].astype(np.float32)
    loud = np.arange(n) % (6 * LENGTH) < 3 * LENGTH if kind == "bursts" else np.ones(n, bool)
    return noise * np.where(loud, 20, 1)[:, None].astype(np.float32)


@pytest.mark.parametrize("kind", KINDS)
def test_no_more_than_a_crowd_is_explained_in_a_template_length(bank, kind, monkeypatch):
    """And no event is weighed against more than a bounded number of neighbours."""
    widest, profile = [0], repicking._profile

    def watched(*arguments):
        out = profile(*arguments)
        widest.append(out[2].shape[1])
        return out

    monkeypatch.setattr(repicking, "_profile", watched)
    time, type, peak = candidates._pursue(bank, bank.scores(strange(kind, 40 * LENGTH)))
    time = np.sort(time)
    first = np.searchsorted(time, time - bank.length)
    assert (np.arange(1, len(time) + 1) - first).max() <= CROWD + 2
    found, residual = explain(bank, strange(kind, 40 * LENGTH))
    assert max(widest) <= 4 * (CROWD + 2) and np.isfinite(residual).all()
    assert len(found) <= 40 * LENGTH


@pytest.mark.parametrize("kind", KINDS)
def test_work_grows_with_the_recording_alone(bank, kind, monkeypatch):
    """Counted in events explained and in events weighed, not in seconds."""
    weighed, proposals = [], repicking._best_moves

    def watched(bank, score, time, type, height, rows):
        weighed.append(len(rows))
        return proposals(bank, score, time, type, height, rows)

    monkeypatch.setattr(repicking, "_best_moves", watched)
    work = []
    for n in (50 * LENGTH, 200 * LENGTH):
        weighed.clear()
        found, _ = explain(bank, strange(kind, n))
        work.append((len(found), sum(weighed)))
    assert work[1][0] <= 4.5 * work[0][0] and work[1][1] <= 6 * work[0][1] + 200


@pytest.mark.parametrize("kind", KINDS)
def test_blocks_give_up_alike(bank, kind):
    """The same events beside a crowd, and nearly the same candidates in it, where rounding decides between equals."""
    rng = np.random.default_rng(3)
    time, type, n = schedule(rng, 60, 16)
    fine = plant(TEMPLATES, time, type, 15.0, n, rng)
    signal = np.concatenate([fine, strange(kind, 60 * LENGTH), fine])
    whole, parts = (find_candidates(bank, lambda a, b: signal[a:b], len(signal), block=size) for size in (10**6, 5000))
    near = (np.abs(whole.time[:, None] - parts.time) < 0.05) & (whole.type[:, None] == parts.type)
    assert near.any(1).mean() > 0.9 and near.any(0).mean() > 0.9
    for each, met in ((whole, near.any(1)), (parts, near.any(0))):
        beside = (each.time < n - 4 * LENGTH) | (each.time > len(signal) - n + 4 * LENGTH)
        assert met[beside & (each.llr > CERTAIN)].all()


def test_events_outside_of_a_crowd_are_found_as_ever(bank):
    """A loud tone does not cost the events that lie well beside it."""
    rng = np.random.default_rng(5)
    time, type, n = schedule(rng, 60, 16)
    signal = plant(TEMPLATES, time, type, 15.0, n, rng)
    alone, _ = explain(bank, signal)
    tone = strange("tone", 20 * LENGTH) - strange("loud", 20 * LENGTH) / 20
    found, _ = explain(bank, np.concatenate([signal, np.zeros((30 * LENGTH, 6), np.float32), tone]))
    for each in (alone, found):
        sure = each[(each.llr > CERTAIN) & (each.margin > 0) & (each.time < n)]
        assert ((np.abs(sure.time[:, None] - time) < 2) & (sure.type[:, None] == type)).any(0).mean() > 0.95


def test_the_share_without_fit_is_told(bank):
    rng = np.random.default_rng(6)
    time, type, n = schedule(rng, 100, 16)
    fine, _ = explain(bank, plant(TEMPLATES, time, type, 15.0, n, rng))
    assert crowded_share(bank, fine, n) == 0
    assert crowded_share(bank, fine[:0], n) == crowded_share(bank, fine[:0], 0) == 0
    signal = strange("tone", 100 * LENGTH)
    signal[: 60 * LENGTH] = rng.standard_normal((60 * LENGTH, 6))
    found, _ = explain(bank, signal)
    assert crowded_share(bank, found, len(signal)) == pytest.approx(0.4, abs=0.05)


def test_fit_says_where_templates_do_not_fit(caplog):
    simulation = evlib.make_recording(duration_s=8.0, seed=1)
    recording, events = simulation.recording, simulation.events
    rate, names = recording.sampling_rate_hz, recording.channels
    for loud in (False, True):
        signal = recording.read(0, recording.n_samples).astype(np.float64)
        if loud:
            rng, size = np.random.default_rng(0), signal.std(0)
            signal[-int(2 * rate) :] += 100 * size * rng.standard_normal((int(2 * rate), signal.shape[1]))
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            pair = evlib.Recording(signal, rate, names), events
            detector = evlib.fit([pair], method="matched_filter", progress=False)
        assert ("templates do not fit" in caplog.text) == loud
        assert (detector.metadata["crowded_share"] > 0.01) == loud


def test_covered_against_brute_force(rng):
    for _ in range(50):
        sample, reach = rng.integers(-5, 30, 4), rng.integers(0, 5)
        expected = (np.abs(np.arange(25)[:, None] - sample) <= reach).any(1)
        assert candidates._covered(sample, reach, 25).tolist() == expected.tolist()


def test_neighbours_are_counted_at_both_ends(rng):
    times, other = rng.integers(0, 40, 20).astype(float), np.sort(rng.integers(0, 40, 30).astype(float))
    assert n_near(times, other, 3).tolist() == (np.abs(times[:, None] - other) <= 3).sum(1).tolist()


@pytest.mark.parametrize("portion", [1, 500, PORTION])
def test_correlation_is_the_sum_at_every_lag(rng, monkeypatch, portion):
    monkeypatch.setattr("evlib.templates.bank.PORTION", portion)
    pieces, templates = rng.standard_normal((7, 40, 2)).astype(np.float32), rng.standard_normal((3, 31, 2))
    owner = rng.integers(0, 3, 7)
    expected = np.stack([np.einsum("nlc,elc->ne", pieces[:, k : k + 31], templates) for k in range(10)], axis=1)
    done = 0
    for rows, scores in correlate_snippets(pieces, templates):
        assert np.allclose(scores, expected[rows], atol=1e-5)
        done += len(scores)
    assert done == 7
    for rows, scores in correlate_snippets(pieces, templates, owner):
        assert np.allclose(scores, expected[np.arange(7)[rows], :, owner[rows]], atol=1e-5)


def test_portions_change_no_snippet_and_no_rendering(bank, rng, monkeypatch):
    signal, time = rng.standard_normal((3000, 6)).astype(np.float32), rng.uniform(-50, 3050, 40)
    type, amplitude = rng.integers(0, 16, 40), rng.uniform(0.5, 2, 40)
    before = cut_snippets(signal, time, 10, 60), bank.render(3000, time, type, amplitude)
    monkeypatch.setattr("evlib.templates.bank.PORTION", 3000)
    after = cut_snippets(signal, time, 10, 60), bank.render(3000, time, type, amplitude)
    for one, other in zip(before, after, strict=True):
        assert np.allclose(one, other, atol=1e-5)


def test_templates_longer_than_a_transform_give_the_same_scores(rng):
    """Scores by the definition, for a template of more samples than the usual transform has."""
    template = rng.standard_normal((1, 40_000, 1))
    long = TemplateBank(template, 100, ("a",))
    signal = rng.standard_normal((50_000, 1)).astype(np.float32)
    score = long.scores(signal)
    for at in (0, 100, 9000):
        piece = np.zeros(40_000)
        piece[max(0, 100 - at) :] = signal[max(0, at - 100) : at - 100 + 40_000, 0]
        assert score[at, 0] == pytest.approx(piece @ long.shapes[0, :, 0], abs=1e-2)


def test_a_shift_is_the_best_lag(bank, rng):

    time, type, n = schedule(rng, 30, 16)
    signal = plant(TEMPLATES, time, type, 15.0, n)
    off = rng.uniform(-3, 3, len(time))
    pieces = cut_snippets(signal, time + off, bank.before + 8, bank.length + 16)
    move, _ = _best_fit(bank, pieces, np.zeros(len(time)), type, 1e3)
    assert np.allclose(np.sort(move), np.sort(-off), atol=0.2)
