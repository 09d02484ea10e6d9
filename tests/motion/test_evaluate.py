"""Scores over explicit classes, labels drawn alike for all, features against plain NumPy, zero-shot with a made-up
model."""

import numpy as np
import pytest

from evlib.motion import classify
from evlib.motion import evaluate as evaluation
from evlib.motion.train import pretrain_motion
from evlib.motion.windows import make_motion
from evlib.networks.transformer import SIZES, HashedWords
from evlib.signals.errors import DataError, OptionError

KINDS = ("walking", "running", "sitting")


def people(seed=0, **options):
    return make_motion(**{"n_people": 3, "windows_per_activity": 6, "activities": KINDS, "seed": seed} | options)


def test_macro_f1_has_a_term_for_every_class():
    perfect = evaluation.class_scores(["a", "b"], ["a", "b"], ["a", "b"])
    absent = evaluation.class_scores(["a", "b"], ["a", "b"], ["a", "b", "c"])
    assert perfect == {"accuracy": 1.0, "macro_f1": 1.0} and absent["macro_f1"] == pytest.approx(2 / 3)
    invented = evaluation.class_scores(["a", "a"], ["a", "z"], ["a", "b"])
    assert invented["accuracy"] == 0.5 and invented["macro_f1"] == pytest.approx((2 / 3 + 0) / 2)


def test_labels_are_drawn_alike_and_a_smaller_share_is_a_part_of_a_greater_one():
    labels = np.repeat(["a", "b", "c"], [100, 60, 40])
    one, ten = evaluation.draw_labelled(labels, 0.01, seed=4), evaluation.draw_labelled(labels, 0.1, seed=4)
    assert len(one) == 3 and len(ten) == 18 and set(one) <= set(ten)
    assert sorted(labels[ten]) == sorted(np.repeat(["a", "b", "c"], 6))
    assert not np.array_equal(ten, evaluation.draw_labelled(labels, 0.1, seed=5))
    for wrong in (0, 1.5, -0.1):
        with pytest.raises(OptionError, match="share"):
            evaluation.draw_labelled(labels, wrong)


def test_features_made_by_hand():
    some = people()
    features = evaluation.motion_features(some)
    x = some.x[5].astype(float)
    assert features.shape[0] == len(some) and np.isfinite(features).all()
    np.testing.assert_allclose(features[5, :6], x.mean(0))
    np.testing.assert_allclose(features[5, 6:12], x.std(0))
    np.testing.assert_allclose(features[5, -15:], np.corrcoef(x.T)[np.triu_indices(6, 1)], atol=1e-9)
    still = some[:2]
    vars(still)["x"] = np.full_like(still.x, 3.0)
    assert np.isfinite(evaluation.motion_features(still)).all(), "a constant channel has no correlation: no error"
    assert np.isfinite(evaluation.motion_features(some.with_channels(some.channels[:1]))).all()


@pytest.mark.slow
def test_random_convolutions_are_those_of_their_seed():
    pytest.importorskip("pyts", reason="extra rocket")
    train, test = people(), people(1)
    first, second = (evaluation.rocket_features(train, test, n_kernels=20) for _ in range(2))
    assert first[0].shape == (54, 240) and first[1].shape == (54, 240) and np.array_equal(first[1], second[1])


@pytest.fixture
def model(monkeypatch):
    monkeypatch.setitem(SIZES, "nano", {"d_model": 16, "num_heads": 2, "num_layers": 1})
    monkeypatch.setattr(classify, "EPOCHS", 3)
    return pretrain_motion([people()], [people(1)], 0.64, text=HashedWords(), max_epochs=1, contrastive_weight=0.0)


def test_every_method_has_a_row_at_every_share_and_seed(model):
    methods = [name for name in evaluation.METHODS if "ROCKET" not in name]
    shares, seeds = (0.06, 0.5), (0, 1)
    table = evaluation.label_efficiency(people(), people(2), [model, model], shares, seeds, methods, progress=False)
    assert len(table) == len(methods) * 4 and table.macro_f1.between(0, 1).all()
    assert table.groupby("share").n_labels.unique().map(list).to_dict() == {0.06: [3], 0.5: [27]}
    by_method = table[table.share == 0.5].groupby("method").accuracy.mean()
    assert by_method["features, random forest"] > 0.8 and by_method[evaluation.PROBE] > 0.6, "chance is a third"
    with pytest.raises(OptionError, match="unknown method .magic."):
        evaluation.label_efficiency(people(), people(2), [model], (0.5,), (0,), ["magic"])
    with pytest.raises(OptionError, match="a model for each of 2 seeds"):
        evaluation.label_efficiency(people(), people(2), [model], (0.5,), (0, 1))


def test_windows_to_judge_are_like_those_learnt_from(model):
    learn, other = people(), people(2)
    swapped = other.with_channels(other.channels[::-1])
    fast = people(2, sampling_rate_hz=100.0)
    for judge, words in ((swapped, "channels"), (fast, "sampling_rate_hz"), (other[:0], "labels")):
        with pytest.raises(DataError, match=words):
            evaluation.label_efficiency(learn, judge, [model], (0.5,), (0,), [evaluation.PROBE], progress=False)


class Knows:
    """A model that is given its scores: windows x labels, by the label's name."""

    def __init__(self, favourite):
        self.favourite = favourite

    def scores(self, windows, labels):
        return np.array([[float(name == self.favourite[str(kind)]) for name in labels] for kind in windows.labels])


def test_zero_shot_closed_and_open_sets():
    some = people()
    words = {"walking": "walking", "running": "running", "sitting": "walking"}
    _, scores = evaluation.zero_shot(Knows(words), some)
    assert scores["accuracy"] == pytest.approx(2 / 3) and scores["chance"] == pytest.approx(1 / 3)
    bank = ["walk", "run", "being seated", "swimming"]
    words = {"walking": "walk", "running": "run", "sitting": "swimming"}
    predicted, scores = evaluation.zero_shot(Knows(words), some, bank)
    assert scores["accuracy"] == pytest.approx(2 / 3) and scores["chance"] == 0.25, "synonyms count, strangers do not"
    assert set(predicted) == {"walk", "run", "swimming"}
    meals = make_motion(n_people=1, activities=("walking", "sitting"))
    vars(meals)["labels"] = np.where(meals.labels == "walking", "eating soup", "eating chips")
    knows = Knows(dict.fromkeys(meals.labels, "eating"))
    _, scores = evaluation.zero_shot(knows, meals, ["eating", "swimming"])
    assert scores["accuracy"] == 1.0 and scores["chance"] == 0.5, "one word for what both of two labels mean"
    with pytest.raises(OptionError, match="must be a list"):
        evaluation.zero_shot(Knows({}), some, "walking")
    with pytest.raises(DataError, match="windows with labels"):
        evaluation.zero_shot(Knows({}), make_motion(n_people=1)[:0])
