"""Learning templates: from exact labels, from labels by hand, and on from what nobody labelled."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from planted import BEFORE, LENGTH, RATE, make_bank, make_templates, plant, schedule, table

from evlib.signals.errors import DataError
from evlib.templates.learn import choose_window, learn_templates, nearest_label, self_train
from evlib.templates.pursue import Candidates

N_TYPES = 6
TEMPLATES = make_templates(N_TYPES, seed=1)
NAMES = TEMPLATES.names
NOTHING_COMPLETE = np.zeros((0, 2), dtype=int)


def scene(seed, n_events, amplitude, gap=300):
    """Signal, times and types of events in white noise."""
    rng = np.random.default_rng(seed)
    time, type, n = schedule(rng, n_events, N_TYPES, gap)
    return plant(TEMPLATES, time, type, amplitude, n, rng), time, type


def cosine(bank, truth):
    return (bank.shapes * truth.shapes).sum((1, 2))


def onset_shift(bank, truth):
    """(E,) how many samples later than the true ones the templates lie, finer than a sample."""
    fine = np.arange(-80, 81) / 20
    moved = np.stack([truth.shifted(np.full(N_TYPES, shift)).shapes for shift in fine])
    return fine[np.einsum("selc,elc->se", moved, bank.shapes).argmax(0)]


@pytest.fixture(scope="module")
def truth():
    return make_bank(TEMPLATES, 20.0)


@pytest.fixture(scope="module")
def labelled():
    """A clean scene with exact labels, and the same labels given by hand to 2 ms."""
    signal, time, type = scene(0, 180, 20.0)
    blur = np.random.default_rng(7).normal(0, 0.002 * RATE, len(time))
    return signal, table(time, type, NAMES), table(time + blur, type, NAMES)


def test_exact_labels_give_the_templates(labelled, truth):
    signal, exact, _ = labelled
    bank, jitter = learn_templates([signal], [exact], BEFORE, LENGTH)
    assert jitter < 0.5
    assert cosine(bank, truth).min() > 0.98
    assert np.abs(onset_shift(bank, truth)).max() <= 0.1
    assert np.allclose(bank.norm, truth.norm, rtol=0.06)
    assert 0.15 <= bank.amplitude_spread < 0.2 and bank.evidence_scale > 0.9
    assert np.allclose(bank.log_rate, 0, atol=1e-6)


def test_labels_by_hand_are_aligned(labelled, truth):
    """Events move together; their labels, on average over each type, remain the origin of time."""
    signal, exact, blurred = labelled
    aligned, jitter = learn_templates([signal], [blurred], BEFORE, LENGTH)
    plain, _ = learn_templates([signal], [blurred], BEFORE, LENGTH, rounds=1)
    assert jitter == pytest.approx(4.0, rel=0.35)
    assert (aligned.norm > plain.norm).all()
    late = np.bincount(exact.type, blurred.time_samples - exact.time_samples) / exact.counts()
    assert np.abs(onset_shift(aligned, truth) + late).max() < 0.3
    back = aligned.shifted(-onset_shift(aligned, truth))
    assert cosine(back, truth).min() > 0.95 > cosine(plain, truth).mean()


def test_shrinkage_helps_where_labels_are_few(truth):
    signal, time, type = scene(1, 3 * N_TYPES, 10.0)
    labels = table(time, type, NAMES)
    shrunk, plain = (learn_templates([signal], [labels], BEFORE, LENGTH, shrink=s)[0] for s in (True, False))
    assert (cosine(shrunk, truth) > cosine(plain, truth)).all()


def test_rates_and_spread_are_learned(rng):
    """Rates only from spans that were labelled completely."""
    type = rng.permutation(np.repeat(np.arange(N_TYPES), [5, 10, 20, 40, 40, 65]))
    time, _, n = schedule(rng, len(type), N_TYPES)
    signal = plant(TEMPLATES, time, type, 20.0 * rng.normal(1, 0.3, len(type)), n, rng)
    bank, _ = learn_templates([signal], [table(time, type, NAMES)], BEFORE, LENGTH)
    assert bank.amplitude_spread == pytest.approx(0.3, rel=0.2)
    assert np.allclose(bank.log_rate, np.log((np.bincount(type) + 0.5) / 30.5), atol=1e-5)
    picked = table(time, type, NAMES, labelled_spans=NOTHING_COMPLETE)
    assert (learn_templates([signal], [picked], BEFORE, LENGTH)[0].log_rate == 0).all()


def test_several_recordings_are_one_set_of_labels(labelled):
    signal, exact, _ = labelled
    cut = int(exact.sample[90]) - 150
    parts = [exact.within(0, cut), exact.within(cut, len(signal)).shift(-cut)]
    whole = learn_templates([signal], [exact], BEFORE, LENGTH, rounds=1)[0]
    pieces = learn_templates([signal[:cut], signal[cut:]], parts, BEFORE, LENGTH, rounds=1)[0]
    assert np.allclose(whole.templates, pieces.templates, atol=0.05)


def test_a_type_without_labels_stays_empty(labelled):
    signal, exact, _ = labelled
    bank, _ = learn_templates([signal], [exact[exact.type != 2]], BEFORE, LENGTH)
    assert (bank.templates[2] == 0).all() and np.isfinite(bank.templates).all()
    with pytest.raises(DataError, match="not one labelled event"):
        learn_templates([signal], [exact[:0]], BEFORE, LENGTH)


@pytest.mark.parametrize("n_events", [12, 60, 300])
def test_the_window_covers_events_and_no_neighbours(n_events):
    """A kind that follows 150 ms behind another one, always, is no part of it."""
    rng = np.random.default_rng(n_events)
    time = 800 + 900.0 * np.arange(n_events // 2)
    time, type = np.r_[time, time + 300], np.repeat([0, 1], n_events // 2)
    signal = plant(TEMPLATES, time, type, 20.0, int(time.max()) + 800, rng)
    before, length = choose_window([signal], [table(time, type, NAMES)])
    # Events reach from -5 to 45 ms, nearly all of their energy from -5 to 20.
    assert 6 <= before <= 30
    assert 36 <= length - before <= 110
    energy = TEMPLATES.sampled(RATE, before / RATE, (length - before) / RATE)[:2] ** 2
    assert energy.sum((1, 2)).min() > 0.93


def test_the_window_follows_labels_that_lie_beside_the_onset(labelled):
    signal, exact, _ = labelled
    before, length = choose_window([signal], [exact])
    late, same = choose_window([signal], [table(exact.time_samples + 20, exact.type, NAMES)])
    assert abs(late - before - 20) <= 2 and abs(same - length) <= 3


def test_self_training_learns_from_what_is_not_labelled(truth):
    """At a low signal-to-noise ratio, from three labels a type; the onset stays where it was labelled."""
    signal, time, type = scene(2, 360, 8.0, gap=250)
    everything = table(time, type, NAMES)
    rank = np.array([(everything.type[:k] == kind).sum() for k, kind in enumerate(everything.type)])
    few = replace(everything[rank < 3], labelled_spans=NOTHING_COMPLETE)
    weak = replace(truth, templates=truth.templates * 0.4)
    start, _ = learn_templates([signal], [few], BEFORE, LENGTH)
    steps = []
    trained = self_train(start, [signal], [few], progress=lambda: steps.append(1))
    assert len(steps) == 5
    before, after = cosine(start, weak), cosine(trained, weak)
    assert after.mean() > before.mean() + 0.05 and after.min() > 0.85
    assert np.abs(onset_shift(trained, weak)).max() <= 1.0


def test_self_training_believes_complete_labels(labelled, truth):
    """Where labelling is complete, a detection that nobody labelled is no event: nothing is learned from it."""
    signal, exact, _ = labelled
    kept = exact[exact.type != 1]
    start = replace(truth, templates=truth.templates + np.random.default_rng(0).normal(0, 0.3, truth.templates.shape))
    trained = self_train(start, [signal], [kept], rounds=1, shrink=False)
    assert np.allclose(trained.templates[1], start.templates[1], atol=1e-5)
    assert cosine(trained, truth)[0] > cosine(start, truth)[0]
    open_ = self_train(start, [signal], [replace(kept, labelled_spans=NOTHING_COMPLETE)], rounds=1, shrink=False)
    assert cosine(open_, truth)[1] > cosine(start, truth)[1] + 0.02


@given(
    st.lists(st.tuples(st.integers(0, 60), st.integers(0, 1), st.integers(0, 5)), max_size=14),
    st.lists(st.tuples(st.integers(0, 60), st.integers(0, 1)), max_size=8),
    st.integers(0, 12),
)
def test_nearest_label_against_brute_force(rows, marks, reach):
    """Each label in turn takes the best candidate in reach, the earlier at a tie; a taken one is lost to later
    labels."""
    rows.sort()
    time, type, llr = np.array(rows, dtype=float).reshape(-1, 3).T
    found = Candidates(time, type.astype(int), llr, *np.zeros((4, len(rows))))
    labels = table([m[0] for m in marks], np.array([m[1] for m in marks], dtype=int), ("a", "b"))
    expected, taken = set(), set()
    for k in range(len(labels)):
        near = [i for i in range(len(rows)) if type[i] == labels.type[k] and abs(time[i] - labels.sample[k]) <= reach]
        best = max(near, key=lambda i: llr[i], default=None)
        if best is not None and best not in taken:
            taken.add(best)
            expected.add((best, k))
    row, label, distance = nearest_label(found, labels, reach)
    assert set(zip(row.tolist(), label.tolist(), strict=True)) == expected
    assert np.array_equal(distance, time[row] - labels.time_samples[label])
