"""Windows with and without labels, and the synthetic ones."""

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from evlib.signals.errors import DataError, OptionError, ShapeError
from evlib.training.augment import TemporalAugmentation
from evlib.training.data import (
    ContrastiveDataset,
    EventDataset,
    SyntheticEventDataset,
    UnsupervisedDataset,
    collate_fn_contrastive,
    collate_fn_supervised,
    collate_fn_unsupervised,
    event_shapes,
)


def test_items_and_batches_have_the_documented_keys():
    dataset = EventDataset(np.ones((3, 50, 6)), np.eye(3), np.full((3, 3), 20))
    item = dataset[1]
    assert set(item) == {"input", "event_labels", "event_timings", "length"}
    assert item["input"].dtype == torch.float32 and item["input"].shape == (50, 6) and item["length"] == 50
    batch = next(iter(DataLoader(dataset, batch_size=3, collate_fn=collate_fn_supervised)))
    assert {name: tuple(value.shape) for name, value in batch.items()} == {
        "input": (3, 50, 6), "lengths": (3,), "event_labels": (3, 3), "event_timings": (3, 3),
    }  # fmt: skip


def test_defect_5_windows_of_different_lengths_are_padded_and_say_so():
    windows = [np.full((length, 2), length, dtype=float) for length in (5, 9, 7)]
    dataset = EventDataset(windows, np.zeros((3, 1)), np.full((3, 1), np.nan))
    batch = collate_fn_supervised([dataset[i] for i in range(3)])
    assert batch["lengths"].tolist() == [5, 9, 7]
    for window, padded in zip(windows, batch["input"].numpy(), strict=True):
        np.testing.assert_array_equal(padded[: len(window)], window)
        assert (padded[len(window) :] == 0).all()


def test_lengths_cut_padding_that_is_already_there():
    data = np.full((2, 10, 1), np.nan)
    data[0, :4], data[1, :10] = 1, 2
    dataset = EventDataset(data, np.ones((2, 1)), np.array([[3.0], [9.0]]), lengths=[4, 10])
    assert [len(dataset[i]["input"]) for i in range(2)] == [4, 10]


def test_items_do_not_share_memory_with_the_data():
    dataset = EventDataset(np.zeros((1, 5, 1), dtype=np.float32), [[0]], [[0]])
    dataset[0]["input"] += 1
    assert (dataset[0]["input"] == 0).all()


@pytest.mark.parametrize(
    ("error", "words", "change"),
    [
        (ShapeError, "data is empty", {"data": np.zeros((0, 50, 6))}),
        (ShapeError, r"each window must have shape", {"data": np.zeros((2, 50))}),
        (ShapeError, "window 1 has", {"data": [np.zeros((50, 6)), np.zeros((50, 5))]}),
        (DataError, "window 0 of data holds NaN", {"data": np.full((2, 50, 6), np.nan)}),
        (ShapeError, "with 2 windows", {"event_labels": np.zeros((3, 4))}),
        (ShapeError, "must be alike", {"event_timings": np.zeros((2, 3))}),
        (DataError, "0, 1, or NaN", {"event_labels": np.full((2, 4), 3)}),
        (DataError, "outside of its 50", {"event_labels": np.ones((2, 4)), "event_timings": np.full((2, 4), 50)}),
        (DataError, "not milliseconds", {"event_labels": np.ones((2, 4)), "event_timings": np.full((2, 4), -1)}),
        (ShapeError, "2 integers", {"lengths": [50]}),
        (ShapeError, "between 1 and", {"lengths": [50, 51]}),
    ],
)
def test_data_that_cannot_be_used_is_refused(error, words, change):
    tables = {"event_labels": np.zeros((2, 4)), "event_timings": np.zeros((2, 4))}
    with pytest.raises(error, match=words):
        EventDataset(**{"data": np.zeros((2, 50, 6))} | tables | change)


def test_times_of_absent_and_unknown_events_are_not_read():
    dataset = EventDataset(np.zeros((1, 50, 1)), [[0, np.nan, 1]], [[-1, 9999, np.nan]])
    assert dataset[0]["event_labels"].isnan().tolist() == [False, True, False]


# --- without labels ----------------------------------------------------------------------------------------------


def test_unlabelled_windows_are_bare_tensors():
    data = np.arange(24, dtype=float).reshape(3, 4, 2)
    dataset = UnsupervisedDataset(data)
    assert torch.equal(dataset[1], torch.tensor(data[1], dtype=torch.float32))
    assert next(iter(DataLoader(dataset, batch_size=3))).shape == (3, 4, 2)
    dataset[0].add_(1)
    assert dataset[0][0, 0] == 0, "items do not share memory with the data"


def test_unlabelled_windows_of_different_lengths_are_padded_and_say_so():
    dataset = UnsupervisedDataset([np.ones((5, 2)), np.ones((9, 2))], lengths=[5, 7])
    batch = next(iter(DataLoader(dataset, batch_size=2, collate_fn=collate_fn_unsupervised)))
    assert batch["lengths"].tolist() == [5, 7] and batch["input"].shape == (2, 7, 2)
    assert batch["input"][0].sum() == 10


def noise(x, generator=None):
    return x + torch.randn(x.shape, generator=generator)


def global_noise(x):
    return x + torch.randn(x.shape)


@pytest.mark.parametrize("augmentation", [noise, global_noise, TemporalAugmentation.random_augment])
@pytest.mark.parametrize("train", [True, False])
def test_two_views_differ_and_follow_from_seed_epoch_and_item(augmentation, train):
    data = np.random.default_rng(0).normal(size=(4, 40, 2))
    state = torch.get_rng_state()
    views = {}
    for seed in (0, 1):
        dataset = ContrastiveDataset(data, augmentation, seed=seed, train=train)
        for epoch in (0, 1):
            dataset.set_epoch(epoch)
            for item in (3, 0, 1, 2):
                first, second = dataset[item]
                assert not torch.equal(first, second)
                views[seed, epoch, item] = torch.stack([first, second])
    again = ContrastiveDataset(data, augmentation, seed=1, train=train)
    again.set_epoch(1)
    assert torch.equal(torch.stack(again[2]), views[1, 1, 2]), "whatever was drawn before"
    assert torch.equal(torch.stack(again[-2]), views[1, 1, 2])
    distinct = {tuple(view.flatten().tolist()) for view in views.values()}
    # In validation the epoch changes nothing.
    assert len(distinct) == (16 if train else 8)
    assert torch.equal(state, torch.get_rng_state())


def test_views_of_different_lengths_are_padded_and_say_so():
    def crop(x, generator):
        return x[: int(torch.randint(3, 6, (), generator=generator))]

    dataset = ContrastiveDataset(np.ones((8, 10, 2)), crop, lengths=[10] * 7 + [3], seed=2)
    views = [dataset[i] for i in range(7)]
    view1, view2, lengths1, lengths2 = collate_fn_contrastive(views)
    for k, (view, lengths) in enumerate([(view1, lengths1), (view2, lengths2)]):
        assert lengths.tolist() == [len(pair[k]) for pair in views]
        assert view.shape == (7, int(lengths.max()), 2)
        assert torch.equal(view.sum((1, 2)), 2.0 * lengths), "zeros behind the end"
    with pytest.raises(DataError, match="same view of window 7"):
        dataset[7]


def test_an_augmentation_that_draws_nothing_is_refused():
    with pytest.raises(DataError, match="draws? nothing"):
        ContrastiveDataset(np.ones((2, 10, 2)), lambda x: 2 * x)[0]


# --- synthetic ---------------------------------------------------------------------------------------------------


def test_defect_13_splits_differ_and_each_is_repeatable():
    states = np.random.get_state()[1].copy(), torch.get_rng_state()  # noqa: NPY002
    train, again, val, other = (
        SyntheticEventDataset(20, 200, seed=seed, split=split)
        for seed, split in [(0, "train"), (0, "train"), (0, "val"), (1, "train")]
    )
    np.testing.assert_array_equal(train.data, again.data)
    np.testing.assert_array_equal(train.event_timings, again.event_timings)
    for different in (val, other):
        assert not np.array_equal(train.event_labels, different.event_labels)
        assert not np.allclose(train.data, different.data)
    assert np.array_equal(states[0], np.random.get_state()[1])  # noqa: NPY002
    assert torch.equal(states[1], torch.get_rng_state())


def test_shapes_are_the_original_sines():
    shape = event_shapes()[7]
    wave = 0.5 * np.sin(2 * np.pi * 8 * np.arange(50) / 50)
    np.testing.assert_allclose(shape[:, 1], wave, atol=1e-6)
    np.testing.assert_allclose(shape[:, 2], wave, atol=1e-6)
    assert (shape[:, [0, 3, 4, 5]] == 0).all()


@pytest.mark.parametrize("split", ["train", "val"])
def test_defect_14_shapes_are_equal_in_every_split_and_overlapping_events_add_up(split):
    dataset = SyntheticEventDataset(5, 100, noise_std=0.0, event_probability=1.0, split=split)
    want = np.zeros((5, 150, 6))
    for window, timings in zip(want, dataset.event_timings.astype(int), strict=True):
        for kind, start in enumerate(timings):
            window[start : start + 50] += event_shapes()[kind]
    np.testing.assert_allclose(np.array(dataset.data), want[:, :100], atol=1e-5)


def test_synthetic_times_keep_the_margin_and_labels_their_probability():
    dataset = SyntheticEventDataset(300, 200, event_probability=0.3)
    timings = dataset.event_timings[dataset.event_labels == 1]
    assert timings.min() >= 50 and timings.max() < 150
    assert np.isnan(dataset.event_timings[dataset.event_labels == 0]).all()
    assert dataset.event_labels.mean() == pytest.approx(0.3, abs=0.03)


@pytest.mark.parametrize(
    "options", [{"num_samples": 0}, {"seq_len": 40}, {"event_probability": 1.5}, {"noise_std": -1}]
)
def test_impossible_synthetic_windows_are_refused(options):
    with pytest.raises(OptionError, match="at least|event_probability"):
        SyntheticEventDataset(**options)
