"""Batches of patches: drawn alike from one seed, development batches that stay, rotations of SO(3), neighbours."""

import numpy as np
import pytest
import torch

from evlib.motion.labels import label_words
from evlib.networks.transformer import HashedWords
from evlib.signals.errors import DataError, OptionError
from evlib.training.batches import MotionBatches, motion_views
from evlib.training.windows import Windows

SIX = tuple(f"waist_{sensor}_{axis}" for sensor in ("acc", "gyro") for axis in "xyz")


TEXT = HashedWords()


def windows(name="a", n=20, channels=SIX, time=100, seed=0, **fields):
    return Windows(name, np.random.default_rng(seed).normal(size=(n, time, len(channels))), 50.0, channels, **fields)


def batches(sets, **options):
    return MotionBatches(sets, TEXT, **{"patch_s": 0.5, "batch_size": 4} | options)


def test_sensors_of_one_place_turn_together_and_what_is_no_sensor_stays():
    channels = (*SIX, *(f"wrist_acc_{a}" for a in "xyz"), "waist_temperature")
    x = torch.randn(40, 50, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x = torch.cat([x, x, x, x[..., :1]], -1)
    turned = motion_views("none", channels, 50, rotate=True)(x, torch.Generator().manual_seed(1))
    acc, gyro, wrist = turned[..., :9].split(3, -1)
    torch.testing.assert_close(acc, gyro)
    torch.testing.assert_close(acc.norm(dim=-1), x[..., :3].norm(dim=-1))
    assert (acc - wrist).abs().amax((1, 2)).min() > 1e-3 and torch.equal(turned[..., 9], x[..., 9])


def test_strengths():
    x = torch.randn(8, 100, 6, generator=torch.Generator().manual_seed(0))
    for name in ("none", "weak", "strong", "mixed"):
        changed = motion_views(name, SIX, 100)(x, torch.Generator().manual_seed(1))
        assert torch.equal(changed, x) == (name == "none")
    with pytest.raises(OptionError, match="strength must be one of none, weak, strong, mixed"):
        motion_views("harsh", SIX, 100)


def test_batches_follow_from_seed_epoch_and_number_alone():
    one, other = (batches([windows(), windows("b", 30, seed=1)], mask_ratio=0.5, seed=3) for _ in range(2))
    one.set_epoch(2)
    for k in range(len(other)):
        other[k]  # another history
    other.set_epoch(2)
    for k in range(len(one)):
        a, b = one[k], other[k]
        assert a["set_name"] == b["set_name"]
        assert all(torch.equal(a[name], b[name]) for name in ("input", "hidden", "dropped", "source"))
        assert torch.equal(a["view"]["input"], b["view"]["input"]) and not torch.equal(a["view"]["input"], a["input"])
    one.set_epoch(3)
    assert not torch.equal(one[0]["hidden"], other[0]["hidden"]) or one[0]["set_name"] != other[0]["set_name"]


def test_development_batches_are_the_same_in_every_epoch_and_hold_each_window_once():
    some = batches([windows(n=21), windows("b", 9, seed=1)], mask_ratio=0.5, train=False)
    first = [some[k] for k in range(len(some))]
    some.set_epoch(7)
    assert all(torch.equal(a["view"]["input"], some[k]["view"]["input"]) for k, a in enumerate(first))
    held = {name: sorted(torch.cat([b["source"] for b in first if b["set_name"] == name]).tolist()) for name in "ab"}
    assert held == {"a": list(range(21)), "b": list(range(9))}, "and no batch is a single window"
    assert min(len(b["source"]) for b in first) >= 2
    assert not torch.equal(first[0]["view"]["input"], first[0]["input"]), "the other view is another view here too"


def test_the_other_view_is_of_a_neighbour_in_the_same_run():
    one = windows(n=12, groups=np.repeat(["ann", "bob"], 6))
    options = {"mask_ratio": 0.5, "strength": "none", "seed": 3}
    alone, drawn = (batches([one], neighbours=n, **options) for n in (0, 2))
    patches = {row: batches([one[[row, row]]], **options)[0]["truth"]["input"][0] for row in range(len(one))}

    def rows(inputs):
        return [next(row for row, truth in patches.items() if torch.equal(truth, x)) for x in inputs]

    steps = set()
    for index in range(len(drawn)):
        near = rows(drawn[index]["view"]["input"])
        mine = rows(drawn[index]["truth"]["input"])
        assert [row // 6 for row in near] == [row // 6 for row in mine], "of the same person"
        steps |= {b - a for a, b in zip(mine, near, strict=True)}
        assert rows(alone[index]["view"]["input"]) == rows(alone[index]["truth"]["input"])
    assert steps <= {-2, -1, 0, 1, 2} and len(steps) >= 3
    with pytest.raises(OptionError, match="neighbours"):
        batches([one], neighbours=-1, **options)


def test_temperature_sampling_goes_with_the_root_of_the_size():
    sets = [windows("small", 16), windows("large", 1600)]
    counts = {"small": 0, "large": 0}
    some = batches(sets, batch_size=16)
    for epoch in range(20):
        some.set_epoch(epoch)
        for k, _ in some._batches():
            counts[sets[k].name] += 1
    share = counts["small"] / sum(counts.values())
    assert share == pytest.approx(4 / (4 + 40), abs=0.02), "16 ** 0.5 against 1600 ** 0.5"


def test_an_epoch_visits_the_windows_of_a_set_alike():
    some = batches([windows(n=40)], batch_size=8)
    seen = np.bincount(np.concatenate([rows for _, rows in some._batches()]), minlength=40)
    assert (seen == 1).all()


def test_words_are_synonyms_of_the_label_most_of_the_time():
    from evlib.motion.labels import group_codes, paraphrases

    some = batches([windows(n=400, labels=np.repeat(["laying", "walking"], 200))], batch_size=100, words=label_words)
    batch = some[0]
    ways = {label: TEXT(paraphrases(label)) for label in ("laying", "walking")}
    own = TEXT(["laying", "walking"])
    itself = 0
    for said, plain, group in zip(batch["text"], batch["label_text"], batch["group"], strict=True):
        label = "laying" if torch.equal(plain, own[0]) else "walking"
        assert group == group_codes([label])[0]
        assert (ways[label] - said).abs().amax(1).min() == 0 or torch.equal(said, plain)
        itself += torch.equal(said, plain)
    assert 10 < itself < 40, "about a fifth, and those draws that hit the label"
    held = batches([windows(labels=["laying"] * 20)], words=label_words, train=False)[0]
    assert torch.equal(held["text"], held["label_text"])


def test_random_patch_lengths_are_those_asked_for():
    some = batches([windows(n=200, time=200)], patch_s=(0.5, 1.0, 0.25))
    assert {some[k]["input"].shape[1] for k in range(len(some))} == {8, 5, 4}
    assert batches([windows(time=200)], patch_s={"a": (0.5, 1.0, 0.25)}, train=False)[0]["input"].shape[1] == 5
    seconds = "must be seconds"
    wrong = [(3.0, "longer than the windows"), (None, seconds), ((1.0, 0.5, 0.1), seconds), ({"b": 1}, "data set 'a'")]
    for patch_s, words in (*wrong, (0.04, "more than 48")):
        with pytest.raises(OptionError, match=words):
            batches([windows()], patch_s=patch_s)


def test_sets_that_cannot_be_drawn_from_are_refused():
    for sets, words in (
        ([], "list of Windows"),
        ([windows(n=1)], "at least 2 windows"),
        ([windows(), windows()], "two data sets are called a"),
    ):
        with pytest.raises(DataError, match=words):
            batches(sets)
    with pytest.raises(DataError, match="every data set needs labels"):
        batches([windows()], words=label_words)
