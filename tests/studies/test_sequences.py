"""Sequences: padding that changes nothing, known numbers of parameters, training that keeps the best."""

import numpy as np
import pytest
import torch

from evlib.signals.errors import DataError, OptionError, ShapeError
from evlib.studies.sequences import (
    HeartRateLSTM,
    LSTMClassifier,
    SimilarLengths,
    TimeLSTM,
    collate_sequences,
    predict_sequences,
    sequence_items,
    sequence_losses,
    train_sequences,
)
from evlib.training.checkpoints import load_checkpoint

LENGTHS = (3, 9, 6, 9)
PAIR = [np.zeros((2, 3))] * 2


def inputs(width, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.standard_normal((n, width)).astype(np.float32) for n in LENGTHS]


def count(model):
    return sum(parameter.numel() for parameter in model.parameters())


def studies():
    """Each kind of study: a small model, and a batch for it."""
    torch.manual_seed(0)
    times = [np.sort(np.random.default_rng(k).choice(784, n, replace=False)) for k, n in enumerate(LENGTHS)]
    values = [x.sum(1) for x in inputs(11)]
    yield "heart rate", HeartRateLSTM(hidden_size=8, center=3.0, scale=2.0), sequence_items(inputs(11), values)
    for both in (False, True):
        yield f"audio {both}", LSTMClassifier(5, 8, 2, 4, bidirectional=both), sequence_items(inputs(5), [0, 1, 2, 3])
    for name in ("none", "intensity", "table", "sincos", "lete", "kan_mammote"):
        asked = {"top": 4} if name == "kan_mammote" else {}  # every expert, so that every one learns
        model = TimeLSTM(name, hidden_size=8, size=8, num_classes=4, **asked)
        yield name, model, sequence_items(inputs(1), [3, 1, 2, 0], times)


STUDIES = [pytest.param(model, items, id=name) for name, model, items in studies()]


def test_models_have_the_shapes_and_parameters_of_the_originals():
    audio = LSTMClassifier(input_size=40, hidden_size=128, num_layers=2, num_classes=10)
    assert audio(torch.randn(16, 100, 40)).shape == (16, 10)
    assert HeartRateLSTM(11, 128, 2, 0.3, False)(torch.randn(3, 500, 11)).shape == (3, 500, 1)
    assert count(HeartRateLSTM()) == 204_417
    assert count(HeartRateLSTM(3, 64, dropout=0.2)) == 51_009
    assert count(audio) == 228_042 and count(LSTMClassifier(40, 128, 2, 14)) == 228_302
    assert [count(TimeLSTM(name)) for name in ("table", "sincos", "lete")] == [241_418, 216_330, 221_370]


@pytest.mark.parametrize(("model", "items"), STUDIES)
def test_padding_changes_nothing(model, items):
    """Neither what stands behind the end, nor how far away the end of the batch is, nor who else is in it."""
    model.eval()
    batch = collate_sequences(items)
    loss = sequence_losses(model, torch.nn.functional.cross_entropy, batch)["total_loss"][0]
    noisy = {name: value.clone() for name, value in batch.items()}
    behind = torch.arange(max(LENGTHS)) >= batch["lengths"][:, None]
    for name in {"input", "times", "target"} & noisy.keys():
        if noisy[name].ndim > 1:
            noisy[name][behind] = 77.0
    same = sequence_losses(model, torch.nn.CrossEntropyLoss(), noisy)["total_loss"][0]
    assert same.item() == pytest.approx(loss.item(), abs=1e-6)
    together = predict_sequences(model, items)
    for item, answer in zip(items, together, strict=True):
        assert np.allclose(predict_sequences(model, [item])[0], answer, atol=1e-5)


@pytest.mark.parametrize(("model", "items"), STUDIES)
def test_a_gradient_reaches_every_parameter(model, items):
    model.train()
    losses = sequence_losses(model, torch.nn.CrossEntropyLoss(), collate_sequences(items))
    losses["total_loss"][0].backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name
    model.zero_grad()


@pytest.mark.parametrize(("model", "items"), STUDIES[::2])
def test_training_keeps_the_best_and_is_the_same_again(model, items, tmp_path):
    state = {name: value.clone() for name, value in model.state_dict().items()}
    answers = []
    for folder in (tmp_path, None):
        model.load_state_dict(state)
        options = {"lr": 0.03, "max_epochs": 30, "batch_size": 2, "patience": 30}
        trained, history = train_sequences(model, items, list(items), save_dir=folder, **options)
        answers.append(predict_sequences(trained, items))
    least = min(epoch["val_total_loss"] for epoch in history)
    assert least < 0.9 * history[0]["val_total_loss"]
    assert all(np.array_equal(a, b) for a, b in zip(*answers, strict=True))
    rebuilt, checkpoint = load_checkpoint(tmp_path / "best_model.pth")
    assert type(rebuilt) is type(model) and checkpoint["val_loss"] == pytest.approx(least)
    assert all(np.allclose(a, b, atol=1e-6) for a, b in zip(predict_sequences(rebuilt, items), answers[0], strict=True))


def test_class_weights_are_used():
    items = sequence_items([np.zeros((4, 2))] * 10, [0] * 8 + [1] * 2)
    shares = []
    for weights in (None, [1, 4]):
        torch.manual_seed(0)
        model = LSTMClassifier(2, 4, 1, 2, 0.0)
        train_sequences(model, items, list(items), lr=0.05, max_epochs=40, class_weights=weights)
        logits = predict_sequences(model, items)[0]
        shares.append(1 / (1 + np.exp(logits[0] - logits[1])))
    assert shares == pytest.approx([0.2, 0.5], abs=0.05)


def test_starts_from_the_mean():
    model = HeartRateLSTM(center=148.0, scale=18.0).eval()
    answer = predict_sequences(model, sequence_items([np.zeros((5, 11))], [np.full(5, 150.0)]))[0]
    assert answer.shape == (5,) and np.abs(answer - 148).max() < 18


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        (([], []), ShapeError, "one of each"),
        (([np.zeros((3, 2))], [0, 1]), ShapeError, "one of each"),
        (([np.zeros((0, 2))], [0]), ShapeError, "sequence 0"),
        (([np.zeros((3, 2)), np.zeros((3, 4))], [0, 1]), ShapeError, "sequence 1"),
        (([np.zeros((3, 2))], [np.zeros(4)]), ShapeError, "sequence 0"),
        (([np.zeros((3, 2))], [0], [np.zeros(2)]), ShapeError, "sequence 0"),
        (([np.full((3, 2), np.nan)], [0]), DataError, "NaN"),
        ((PAIR, [0.9, 1.7]), DataError, "class of sequence 0 must be a whole number"),
        ((PAIR, [0, -1]), DataError, "class of sequence 1 must be a whole number"),
        ((PAIR, [np.zeros((2, 1))] * 2), ShapeError, "a class or values"),
        ((PAIR, [0, np.zeros(2)]), ShapeError, "a class or values"),
        ((PAIR, [0, 1], [1.6e9 + np.arange(2)] * 2), DataError, "subtract its start"),
        ((PAIR, [0, 1], [np.array([0, 1e39])] * 2), DataError, "more than 1e38"),
        ((PAIR, [0, 1], [0, 1]), ShapeError, r"times \(steps,\)"),
    ],
)
def test_bad_sequences(arguments, error, words):
    with pytest.raises(error, match=words):
        sequence_items(*arguments)


def test_bad_options_of_models():
    with pytest.raises(OptionError, match="time_embedding must be one of none, intensity"):
        TimeLSTM("rope")
    for model, sizes in ((LSTMClassifier, (3, 8, 1)), (TimeLSTM, ())):
        with pytest.raises(OptionError, match="num_classes"):
            model(*sizes, num_classes=1)


@pytest.mark.parametrize("batch_size", [1, 3, 40])
def test_losses_of_an_epoch_do_not_depend_on_the_size_of_batches(batch_size):
    """Steps of workouts and weights of classes count alike, however they are dealt out to batches."""
    rng = np.random.default_rng(3)
    inputs = [rng.standard_normal((n, 3)) for n in rng.integers(1, 60, 12)]
    torch.manual_seed(0)
    values = [60 + 50 * rng.random(len(one)) for one in inputs]
    holes = [np.where(np.arange(len(one)) % 4 == 2, np.nan, one) for one in values]
    for model, targets, weights in (
        (HeartRateLSTM(3, 4, 1, 0.0), values, None),
        (HeartRateLSTM(3, 4, 1, 0.0), holes, None),
        (LSTMClassifier(3, 4, 1, 2, 0.0), [0] * 10 + [1] * 2, [0.1, 3.0]),
    ):
        items = sequence_items(inputs, targets)
        loss_fn = torch.nn.CrossEntropyLoss(None if weights is None else torch.tensor(weights))
        whole = sequence_losses(model.eval(), loss_fn, collate_sequences(items))["total_loss"][0].item()
        # A rate of nothing: the loss of validation is that of the model as it is.
        options = {"lr": 0.0, "max_epochs": 1, "batch_size": batch_size, "class_weights": weights}
        _, history = train_sequences(model, items, items, **options)
        assert history[0]["val_total_loss"] == pytest.approx(whole, rel=1e-5)


def test_steps_without_a_target_change_neither_loss_nor_gradient():
    items = sequence_items([np.ones((6, 3)), np.ones((4, 3))], [[1.0, np.nan, 2.0, np.nan, np.nan, 4.0], [3.0] * 4])
    model = HeartRateLSTM(3, 4, 1, 0.0)
    batch = collate_sequences(items)
    losses = sequence_losses(model, None, batch)
    output, known = (
        model(batch["input"], batch["lengths"])[..., 0],
        [(0, 0), (0, 2), (0, 5), *((1, k) for k in range(4))],
    )
    expected = torch.stack([(output[i, j] - batch["target"][i, j]) ** 2 for i, j in known]).mean()
    loss, weight = losses["total_loss"]
    assert loss.item() == pytest.approx(expected.item()) and weight == len(known)
    loss.backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())
    with pytest.raises(DataError, match="no target"):
        sequence_items([np.ones((2, 3))], [[np.nan, np.nan]])
    with pytest.raises(DataError, match="infinity"):
        sequence_items([np.ones((2, 3))], [[np.inf, np.nan]])


def test_every_model_sees_the_same_batches():
    batches = [list(SimilarLengths(range(1, 50), 4, 3, seed=seed)) for seed in (1, 1, 2)]
    assert batches[0] == batches[1] != batches[2]
    assert sorted(sum(batches[0], [])) == list(range(49)) and len(batches[0]) == 13


def test_every_training_item_is_augmented_in_each_epoch():
    items, seen = sequence_items([np.full((2, 3), float(k)) for k in range(4)], [0, 1, 0, 1]), []

    def augment(item):
        seen.append(int(item["input"][0, 0]))
        return item | {"input": item["input"].repeat(2, 1)}

    model = LSTMClassifier(3, 4, 1, 2, 0.0)
    train_sequences(model, items, items, batch_size=2, max_epochs=3, augment=augment)
    assert [sorted(seen[k : k + 4]) for k in (0, 4, 8)] == [[0, 1, 2, 3]] * 3 and len(seen) == 12


def test_training_needs_sequences_and_whole_numbers():
    items = sequence_items([np.zeros((2, 3))], [0])
    model = LSTMClassifier(3, 4, 1, 2)
    with pytest.raises(DataError, match="got 1 and 0"):
        train_sequences(model, items, [])
    for option in ({"batch_size": 0}, {"n_sorted": 0}, {"patience": 2.5}, {"plateau_epochs": -1}, {"seed": 0.5}):
        with pytest.raises(OptionError, match=next(iter(option))):
            train_sequences(model, items, items, **option)
