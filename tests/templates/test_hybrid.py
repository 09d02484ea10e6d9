"""Hybrid recordings: what a draw calls true was planted, and only what cannot be known has no weight."""

from dataclasses import replace

import numpy as np
import pytest
from planted import RATE, make_bank, make_templates, near, plant, schedule, table

from evlib.signals.events import Events
from evlib.templates.hybrid import (
    ISOLATED_S,
    MATCH_S,
    RHYTHMS,
    HybridRecordings,
    _surrogate,
    label_examples,
    new_rhythm,
    one_at_a_time,
)
from evlib.templates.learn import PRIOR_LOGIT
from evlib.templates.pursue import Candidates, find_candidates

N_TYPES = 5
TEMPLATES = make_templates(N_TYPES, seed=1)
NAMES = TEMPLATES.names
NOTHING_COMPLETE = np.zeros((0, 2), dtype=int)


@pytest.fixture(scope="module")
def bank():
    return make_bank(TEMPLATES, 18.0, amplitude_spread=0.1)


@pytest.fixture(scope="module")
def scene():
    rng = np.random.default_rng(1)
    time, type, n = schedule(rng, 100, N_TYPES)
    signal = plant(TEMPLATES, time, type, 18.0 * np.exp(0.1 * rng.uniform(-2, 2, 100)), n, rng)
    return signal, table(time, type, NAMES)


def hybrid(bank, signal, labels):
    return HybridRecordings(bank, [signal], [labels], np.zeros(N_TYPES))


def test_the_background_is_what_is_left_without_the_events(bank, scene):
    signal, labels = scene
    recordings = hybrid(bank, signal, labels)
    (piece,) = recordings.pieces
    assert len(piece.time) == 100
    assert np.abs(np.sort(piece.time) - labels.time_samples).max() < 2
    assert piece.background.std() == pytest.approx(1, abs=0.03)
    assert np.abs(bank.scores(piece.background)).max() < 8


@pytest.mark.parametrize("own_background", [0.0, 1.0])
def test_targets_are_the_planted_events(bank, scene, own_background, monkeypatch):
    monkeypatch.setattr("evlib.templates.hybrid.OWN_BACKGROUND", own_background)
    recordings = hybrid(bank, *scene)
    for seed in range(3):  # the same seed gives the same recording
        examples = recordings.draw(np.random.default_rng(seed))
        _, truth, _ = recordings.mix(np.random.default_rng(seed))
        found, true = examples.candidates, examples.target == 1
        pairs = near(found, truth.time_samples, truth.type, MATCH_S * RATE)
        assert pairs[true].any(1).all()
        # Of every planted event at most one candidate is true: the one with the most evidence.
        assert pairs[true].sum(0).max() <= 1
        for pair in pairs.T[pairs.any(0)]:
            assert true[np.flatnonzero(pair)[found.llr[pair].argmax()]]
        assert np.array_equal(examples.n_missed, np.bincount(truth.type[~pairs.any(0)], minlength=N_TYPES))
        assert examples.target.sum() + examples.n_missed.sum() == len(truth)
        assert examples.n_missed.sum() <= 2 and true.sum() > 90
        assert (examples.weight == 1).all()  # everything was labelled: there is no doubt


def test_rhythm_and_order_are_kept(bank, scene):
    """Events are moved together and played faster or slower; none changes its type."""
    recordings, tempos = hybrid(bank, *scene), []
    (piece,) = recordings.pieces
    for seed in range(6):
        _, truth, _ = recordings.mix(np.random.default_rng(seed))
        own = piece.time[: len(truth)]
        assert np.array_equal(truth.type, piece.type[: len(truth)])
        slope, start = np.polyfit(own, truth.time_samples, 1)
        assert np.allclose(truth.time_samples, start + slope * own, atol=1e-6) and 0 <= start <= RATE
        tempos.append(slope)
    assert 0.9 < min(tempos) < max(tempos) < 1.1 and np.std(tempos) > 0.005


def test_only_doubtful_places_have_no_weight(monkeypatch):
    """Weak events that nobody labelled may hide in the recording's own background, and only there."""
    rng = np.random.default_rng(4)
    time, type, n = schedule(rng, 100, N_TYPES)
    weak = np.arange(100) % 4 == 0
    signal = plant(TEMPLATES, time, type, np.where(weak, 4.8, 18.0), n, rng)
    labels = table(time[~weak], type[~weak], NAMES, labelled_spans=NOTHING_COMPLETE)
    bank = make_bank(TEMPLATES, 18.0, amplitude_spread=0.25)
    recordings = hybrid(bank, signal, labels)
    for seed in range(3):
        monkeypatch.setattr("evlib.templates.hybrid.OWN_BACKGROUND", 1.0)
        examples = recordings.draw(np.random.default_rng(seed))
        unknown = examples.weight == 0
        _, _, doubtful = recordings.mix(np.random.default_rng(seed))
        assert 0 < unknown.sum() <= len(doubtful)
        assert (examples.target[unknown] == 0).all()
        assert near(examples.candidates[unknown], doubtful.time_samples, doubtful.type, 20).any(1).all()
        monkeypatch.setattr("evlib.templates.hybrid.OWN_BACKGROUND", 0.0)
        assert (recordings.draw(np.random.default_rng(seed)).weight == 1).all()


def test_labels_decide_where_they_are_complete(bank, scene):
    """A strong detection is planted again where nothing is labelled, not where labelling says there is none."""
    signal, labels = scene
    half = len(signal) // 2
    few = labels[np.arange(100) % 2 == 0]
    nowhere = hybrid(bank, signal, replace(few, labelled_spans=NOTHING_COMPLETE)).pieces[0]
    everywhere = hybrid(bank, signal, few).pieces[0]
    first = hybrid(bank, signal, replace(few, labelled_spans=np.array([[0, half]]))).pieces[0]
    assert len(nowhere.time) == 100 and len(everywhere.time) == 50
    assert len(first.time) == (few.sample < half).sum() + (labels.sample >= half).sum()


def test_long_recordings_are_cut_into_pieces(bank, scene):
    signal, labels = scene
    times = 35
    long = np.tile(signal, (times, 1))
    joined = Events.concatenate(labels.shift(k * len(signal)) for k in range(times))
    pieces = hybrid(bank, long, joined).pieces
    assert len(pieces) == round(len(long) / RATE / 300) == 2
    assert sum(len(piece.background) for piece in pieces) == len(long)
    assert sum(len(piece.time) for piece in pieces) == pytest.approx(100 * times, abs=3)


@pytest.mark.parametrize("n", [4096, 4097])
def test_a_surrogate_has_the_spectrum_and_nothing_else(n, rng):
    background = np.cumsum(rng.standard_normal((n, 3)), axis=0).astype(np.float32) * [1, 5, 0.1]
    other = _surrogate(background, rng)
    a, b = (np.abs(np.fft.rfft(x, axis=0))[1:-1] for x in (background, other))
    assert np.allclose(a, b, rtol=1e-2, atol=1e-3 * a.max(0))
    left, right = (np.diff(x, axis=0) for x in (background, other))
    assert (np.abs([np.corrcoef(left[:, c], right[:, c])[0, 1] for c in range(3)]) < 0.1).all()


def test_how_events_vary_is_kept_only_where_they_do(bank, scene):
    """Events that differ from their template by noise alone plant no variation; those that vary in shape do."""
    signal, labels = scene
    assert (hybrid(bank, signal, labels).pieces[0].variation == 0).mean() > 0.9
    rng = np.random.default_rng(3)
    strange = make_templates(100, seed=50)
    varied = signal + plant(strange, labels.time_samples, rng.permutation(100), 14.0, len(signal))
    variation = hybrid(bank, varied, labels).pieces[0].variation
    energy = (variation.astype(float) ** 2).sum((1, 2))
    assert np.median(energy) > 100 and len(energy) > 95


def test_examples_outside_of_complete_spans_count_only_where_labelled():
    time, type = np.array([100.0, 200, 300, 400, 500]), np.array([0, 1, 0, 0, 1])
    found = Candidates(time, type, np.full(5, 9.0), *np.zeros((4, 5)))
    labels = table(
        [101.0, 201.5, 350, 402, 900], [0, 0, 1, 0, 1], ("a", "b"), labelled_spans=np.array([[150, 250], [390, 401]])
    )
    examples = label_examples(found, labels, 5)
    assert examples.target.tolist() == [1, 0, 0, 1, 0]
    # 100: labelled; 200: another type in a complete span; 300 and 500: nobody looked; 400: labelled.
    assert examples.weight.tolist() == [1, 1, 0, 1, 0]
    assert examples.n_missed.tolist() == [1, 2]
    everywhere = label_examples(found, replace(labels, labelled_spans=None), 5)
    assert (everywhere.weight == 1).all() and np.array_equal(everywhere.target, examples.target)


@pytest.mark.parametrize("rhythm", RHYTHMS)
def test_new_rhythms_are_what_they_are_called(rhythm):
    rng, rate, n, apart = np.random.default_rng(0), 1000.0, 120_000, np.array([2000.0, 500.0, 2000.0])
    time = np.arange(500.0, n, 700.0)
    type = np.resize([0, 2], len(time))  # kind 1 was never found
    strange, kinds = new_rhythm(rhythm, time, type, n, rate, apart, rng)
    assert len(strange) == len(kinds) and set(kinds) <= {0, 2}
    assert (np.diff(strange) >= 0).all() and (strange >= 0).all() and (strange < n).all()
    for kind in set(kinds):
        assert np.diff(strange[kinds == kind]).min(initial=np.inf) >= apart[kind]
    if rhythm == "isolated":
        assert np.diff(strange).min() >= 0.7 * rate
    if rhythm == "missing":
        assert set(strange) <= set(time)
    if rhythm == "poisson":
        assert np.std(np.diff(strange)) > 0.3 * np.mean(np.diff(strange))


def test_events_one_at_a_time_are_the_recorded_ones_without_their_neighbours():
    """Three kinds in rounds, each in the next one's window: cut out and set apart, every event is its own kind
    alone."""
    known, rng = make_bank(TEMPLATES, 18.0), np.random.default_rng(5)
    time = 400 + 60.0 * np.arange(120) + rng.normal(0, 5, 120)
    type = np.arange(120) % N_TYPES
    signal = plant(TEMPLATES, time, type, 18.0 * np.exp(0.1 * rng.standard_normal(120)), int(time.max()) + 400, rng)
    events = table(time, type, NAMES)
    out, alone = one_at_a_time(known, signal, events[:40], events[40:], rng)
    assert (alone.type == type[:40]).all() and (alone.labelled_spans == [[0, len(out)]]).all()
    gaps = np.diff(alone.time_samples) - known.length
    assert gaps.min() >= ISOLATED_S[0] * RATE - 1 and gaps.max() <= ISOLATED_S[1] * RATE + 1
    left = out - known.render(len(out), alone.time_samples, alone.type, np.ones(40))
    assert out.std() > left.std() and left.std() == pytest.approx(1.0, abs=0.02)
    found = find_candidates(known, out)
    examples = label_examples(found[found.llr > PRIOR_LOGIT], alone, MATCH_S * RATE)
    assert examples.n_missed.sum() == 0 and examples.target.all()
