"""Which labels are development data: whole recordings, blocks of time, or single labels, and never the last of a
kind."""

import numpy as np
import pytest

import evlib
from evlib.detection.prepare import FEW_LABELS, add_events, held_out_parts, prepare

RATE, NAMES = 100.0, ("a", "b")


def recording(seconds=60.0, seed=0):
    return evlib.Recording(np.random.default_rng(seed).standard_normal((int(seconds * RATE), 2)), RATE)


def labels(times, type=None, spans=None):
    type = np.zeros(len(times), int) if type is None else type
    return evlib.Events.from_seconds(times, type, RATE, NAMES, complete_spans_s=spans)


def spread(n, seconds=60.0):
    """Times all over a recording, none in the same place for two kinds."""
    return np.linspace(0.5, seconds - 0.5, n)


def split(pairs, **options):
    return prepare(pairs, (), options.pop("labels_per_type", None), options.pop("seed", 0), 0.5)


def everything(tables):
    return sum(len(table) for table in tables)


@pytest.mark.parametrize(
    ("events", "words"),
    [
        (labels(spread(50)), "no label of 'b'"),
        (labels(np.r_[spread(49), 59.9], [0, 1] * 24 + [0, 0]), "1 intervals of 'a' are shorter than the refractory"),
        (labels(np.r_[spread(49), 59.9], [0] * 49 + [1]), "recording 0: one label of 'b'"),
        (labels(spread(14, 10.0), [0, 1] * 7), "recording 0: no label from 9.5 to 60 s"),
    ],
)
def test_doubts_about_labels_are_logged(caplog, events, words):
    split([(recording(), labels(spread(50), [0, 1] * 25, spans=[(0, 60)]))])
    assert not caplog.records
    split([(recording(), events)])
    assert words in caplog.text and len(caplog.records) == 1


def test_several_recordings_are_held_out_as_wholes():
    pairs = [(recording(seed=k), labels(spread(10))) for k in range(11)]
    data = split(pairs)
    held = [k for k, table in enumerate(data.development) if len(table)]
    assert len(held) == 2 and everything(data.train) == 90 and everything(data.development) == 20
    for k, (train, development) in enumerate(zip(data.train, data.development, strict=True)):
        assert (len(train) == 0 and len(train.labelled_spans) == 0) == (k in held)
        assert (len(development.labelled_spans) > 0) == (k in held)
    assert [len(t) for t in split(pairs).development] == [len(t) for t in data.development]
    assert any(
        [len(t) for t in split(pairs, seed=s).development] != [len(t) for t in data.development] for s in range(1, 5)
    )


def test_of_few_recordings_blocks_of_time_are_held_out():
    pairs = [(recording(seed=k), labels(spread(40))) for k in range(2)]
    data = split(pairs)
    for train, development in zip(data.train, data.development, strict=True):
        assert development.labelled_spans.tolist() == held_out_parts([6000], 0)[0].tolist()
        assert len(train) + len(development) == 40 and not train.is_labelled(development.sample).any()
        assert development.is_labelled(development.sample).all() and train.is_labelled(train.sample).all()


def test_recordings_of_one_kind_each_are_not_held_out():
    """Bells that were recorded one by one: without its recording a bell would not be known."""
    names = [f"bell {k}" for k in range(10)]
    times = np.linspace(0.5, 7.5, 10)
    pairs = [(recording(8.0, seed=k), evlib.Events.from_seconds(times, [names[k]] * 10, RATE)) for k in range(10)]
    data = split(pairs)
    assert all(len(train) == 8 and len(held) == 2 for train, held in zip(data.train, data.development, strict=True))


def test_a_kind_with_few_labels_keeps_them_all():
    times, rare = spread(40), np.array([20.0, 50.0])  # in the held-out tenths
    pairs = [(recording(), labels(np.r_[times, rare], np.r_[np.zeros(40, int), 1, 1]))]
    data = split(pairs)
    assert data.train[0].counts()[1] == 2 and data.development[0].counts()[1] == 0
    assert not data.development[0].is_labelled((rare * RATE).astype(int)).any()


def test_where_nothing_is_labelled_completely_single_labels_are_held_out():
    spans = np.zeros((0, 2))
    pairs = [(recording(), labels(spread(24), np.arange(24) % 2, spans))]
    data = split(pairs)
    assert data.development[0].counts().tolist() == [2, 2] and len(data.development[0].labelled_spans) == 0
    assert data.train[0].counts().tolist() == [12, 12]  # templates learn from all
    (seen,) = data.signal_train
    assert seen.counts().tolist() == [10, 10]
    assert not np.isin(seen.time_samples, data.development[0].time_samples).any()
    few = split(pairs, labels_per_type=FEW_LABELS - 1)
    assert everything(few.development) == 0 and everything(few.train) == 2 * (FEW_LABELS - 1)


def test_beside_labelled_spans_single_labels_are_held_out_too():
    """Of the labels behind a complete span one in five of each kind, and of the span its blocks."""
    pairs = [(recording(), labels(spread(60), np.arange(60) % 2, np.array([[0.0, 30.0]])))]
    data = split(pairs)
    held, span = data.development[0], 30 * RATE
    outside = held.sample >= span
    assert held[outside].counts().tolist() == [3, 3] and held[~outside].is_labelled(held.sample[~outside]).all()
    assert (~outside).sum() > 3 and len(held.labelled_spans) == 1
    (seen,) = data.signal_train
    assert not np.isin(seen.time_samples, held.time_samples).any() and len(seen) + len(held) == 60


@pytest.mark.parametrize("n_recordings", [1, 3, 5, 12])
@pytest.mark.parametrize("n_labels", [1, 4, 5, 30])
def test_no_label_is_lost_and_none_is_on_both_sides(n_recordings, n_labels):
    pairs = [(recording(seed=k), labels(spread(n_labels), np.arange(n_labels) % 2)) for k in range(n_recordings)]
    data = split(pairs)
    assert everything(data.train) + everything(data.development) == n_recordings * n_labels
    counts, trained = (sum(t.counts() for t in tables) for tables in ([p[1] for p in pairs], data.train))
    assert (trained[counts > 0] > 0).all() and (trained[counts < FEW_LABELS] == counts[counts < FEW_LABELS]).all()


@pytest.mark.parametrize("apart", [0.0, 0.4])
def test_a_table_joined_twice_teaches_once(apart, caplog):
    once = labels(spread(24), np.arange(24) % 2)
    times = np.r_[once.onset_s, once.onset_s + apart / RATE, np.full(10_000, 20.0)]
    data = split([(recording(), labels(times, np.r_[once.type, once.type, np.zeros(10_000, int)]))])
    assert "10023 labels stand less than a sample after another" in caplog.text
    kept = np.sort(np.concatenate([data.train[0].time_samples, data.development[0].time_samples]))
    np.testing.assert_allclose(kept, np.sort(np.r_[once.time_samples, 20.0 * RATE]))
    caplog.clear()
    split([(recording(), once)])
    assert not caplog.text


def test_of_long_recordings_without_labels_pieces_are_spread_evenly(monkeypatch, caplog):
    (recording, events), *others = [evlib.make_recording(duration_s=40.0, seed=k) for k in range(3)]
    unlabelled = [other for other, _ in others]
    whole = prepare([(recording, events)], unlabelled)
    assert [one.n_samples for one in whole.recordings] == [80_000] * 3 and not caplog.records
    monkeypatch.setattr("evlib.detection.prepare.MOST_UNLABELLED", 6 * 2000 * 20)  # a quarter of it
    monkeypatch.setattr("evlib.detection.prepare.PIECE_S", 5.0)
    data = prepare([(recording, events)], unlabelled)
    assert data.recordings[0].n_samples == 80_000 and len(data.recordings) == len(data.train) == 1 + 4
    assert sum(one.n_samples for one in data.recordings[1:]) == 20 * 2000
    for piece, (k, start) in zip(data.recordings[1:], [(0, 0), (0, 50_000), (1, 20_000), (1, 70_000)], strict=True):
        np.testing.assert_array_equal(piece.read(), unlabelled[k].read(start, start + 10_000))
    assert "0.0 h are learned from, 4 pieces spread evenly" in caplog.text
    options = {"max_epochs": 1, "hidden_size": 8, "n_windows": 64, "progress": False}
    assert evlib.pretrain(unlabelled, "masked", **options).metadata["duration_s"] == 20.0


def test_added_events_leave_the_durations_of_labels():
    labelled = evlib.Events.from_seconds([1.0, 2.0], [0, 1], RATE, NAMES, duration_s=[0.5, 0.25])
    more = add_events(labelled, np.array([300.0]), 1)
    assert more.duration_s[:2].tolist() == [0.5, 0.25] and np.isnan(more.duration_s[2]) and len(more) == 3
