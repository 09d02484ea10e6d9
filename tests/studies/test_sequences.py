"""Sequences: padding that changes nothing, known numbers of parameters, training that keeps the best, images as
events."""

import copy
import gzip
import itertools
import struct

import numpy as np
import pytest
import torch

from evlib.signals.errors import DataError, OptionError, ShapeError
from evlib.studies.sequences import (
    AugmentedSequences,
    HeartRateLSTM,
    LSTMClassifier,
    SimilarLengths,
    TimeLSTM,
    collate_sequences,
    image_events,
    predict_sequences,
    read_idx,
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


@pytest.mark.parametrize(
    ("model", "items"), [study for study in STUDIES if study.id in ("heart rate", "audio True", "lete")]
)
def test_one_batch_is_overfitted(model, items):
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model, batch = copy.deepcopy(model).train(), collate_sequences(items)
        for dropout in (part for part in model.modules() if isinstance(part, (torch.nn.Dropout, torch.nn.LSTM))):
            setattr(dropout, "p" if isinstance(dropout, torch.nn.Dropout) else "dropout", 0.0)
        optimizer, losses = torch.optim.Adam(model.parameters(), lr=0.02), []
        for _ in range(300):
            optimizer.zero_grad()
            losses.append(sequence_losses(model, torch.nn.CrossEntropyLoss(), batch)["total_loss"][0])
            losses[-1].backward()
            optimizer.step()
    assert losses[-1] < 0.02 * losses[0]


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


def test_the_best_is_not_the_last():
    """Trained on noise, a network gets worse on other noise: the weights that come back are those from before."""
    rng = np.random.default_rng(0)
    train, other = ([rng.standard_normal((6, 3)) for _ in range(40)] for _ in range(2))
    sets = [sequence_items(part, rng.integers(0, 2, 40)) for part in (train, other)]
    torch.manual_seed(0)
    model, history = train_sequences(LSTMClassifier(3, 32, 1, 2, 0.0), *sets, lr=0.02, max_epochs=25, patience=25)
    losses = [epoch["val_total_loss"] for epoch in history]
    assert losses[-1] > 1.2 * min(losses)
    loss = sequence_losses(model, torch.nn.CrossEntropyLoss(), collate_sequences(sets[1]))["total_loss"][0].item()
    assert loss == pytest.approx(min(losses), rel=0.01)


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
    with pytest.raises(OptionError, match="num_classes"):
        LSTMClassifier(3, 8, 1, 1)
    with pytest.raises(OptionError, match="cell"):
        HeartRateLSTM(cell="rnn")
    with pytest.raises(ShapeError, match="11 channels"):
        HeartRateLSTM()(torch.zeros(2, 11, 30))


@pytest.mark.parametrize("batch_size", [1, 3, 40])
def test_losses_of_an_epoch_do_not_depend_on_the_size_of_batches(batch_size):
    """Steps of workouts and weights of classes count alike, however they are dealt out to batches."""
    rng = np.random.default_rng(3)
    inputs = [rng.standard_normal((n, 3)) for n in rng.integers(1, 60, 12)]
    torch.manual_seed(0)
    for model, targets, weights in (
        (HeartRateLSTM(3, 4, 1, 0.0), [60 + 50 * rng.random(len(one)) for one in inputs], None),
        (LSTMClassifier(3, 4, 1, 2, 0.0), [0] * 10 + [1] * 2, [0.1, 3.0]),
    ):
        items = sequence_items(inputs, targets)
        loss_fn = torch.nn.CrossEntropyLoss(None if weights is None else torch.tensor(weights))
        whole = sequence_losses(model.eval(), loss_fn, collate_sequences(items))["total_loss"][0].item()
        # A rate of nothing: the loss of validation is that of the model as it is.
        options = {"lr": 0.0, "max_epochs": 1, "batch_size": batch_size, "class_weights": weights}
        _, history = train_sequences(model, items, items, **options)
        assert history[0]["val_total_loss"] == pytest.approx(whole, rel=1e-5)


def test_every_model_sees_the_same_batches():
    batches = [list(SimilarLengths(range(1, 50), 4, 3, seed=seed)) for seed in (1, 1, 2)]
    assert batches[0] == batches[1] != batches[2]
    assert sorted(sum(batches[0], [])) == list(range(49)) and len(batches[0]) == 13


def test_training_needs_sequences_and_whole_numbers():
    items = sequence_items([np.zeros((2, 3))], [0])
    model = LSTMClassifier(3, 4, 1, 2)
    with pytest.raises(DataError, match="got 1 and 0"):
        train_sequences(model, items, [])
    for option in ({"batch_size": 0}, {"n_sorted": 0}, {"patience": 2.5}, {"plateau_epochs": -1}, {"seed": 0.5}):
        with pytest.raises(OptionError, match=next(iter(option))):
            train_sequences(model, items, items, **option)


def test_events_are_the_bright_pixels(rng):
    images = rng.integers(0, 256, (30, 7, 5)).astype(np.uint8)
    images[3] = 0
    times, features = image_events(images, 0.9)
    for image, time, feature in zip(images, times, features, strict=True):
        pixels = image.ravel() / 255
        expected = [place for place, value in enumerate(pixels) if value > 0.9] or [0]
        assert time.tolist() == expected and feature.tolist() == [[pixels[place]] for place in expected]
    again, _ = image_events(images / 255, 0.9)
    assert all(np.array_equal(a, b) for a, b in zip(times, again, strict=True))


def test_idx_files(tmp_path, rng):
    images = rng.integers(0, 256, (5, 3, 4)).astype(np.uint8)
    content = struct.pack(">HBB3I", 0, 8, 3, 5, 3, 4) + images.tobytes()
    (tmp_path / "images-idx3-ubyte").write_bytes(content)
    (tmp_path / "images-idx3-ubyte.gz").write_bytes(gzip.compress(content))
    for path in tmp_path.iterdir():
        assert np.array_equal(read_idx(path), images)
    broken = {"long": content + b"0", "float": b"\0\0\x0d" + content[3:], "short": b"\0", "text": b"hello world"}
    broken |= {"cut": content[:-1], "cut.gz": gzip.compress(content)[:-9]}
    for name, bad in broken.items():
        (tmp_path / name).write_bytes(bad)
    for name in (*broken, "missing"):
        with pytest.raises(DataError, match="no IDX file"):
            read_idx(tmp_path / name)


def test_mnist(data_home):
    images = read_idx(data_home / "mnist_t10k" / "t10k-images-idx3-ubyte.gz")
    labels = read_idx(data_home / "mnist_t10k" / "t10k-labels-idx1-ubyte.gz")
    counts = np.array([980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009])
    assert images.shape == (10_000, 28, 28) and np.array_equal(np.bincount(labels), counts)
    times, _ = image_events(images)
    lengths = np.array([len(time) for time in times])
    assert 40 < lengths.mean() < 90 and lengths.min() >= 1


def test_varied_events_are_events_of_the_moved_image(rng):
    images = np.zeros((20, 6, 7))
    images[:, 2:4, 2:5] = rng.choice([0.0, 1.0], (20, 2, 3))
    images[:, 2, 3] = 1.0
    times, features = image_events(images, 0.5)
    varied = AugmentedSequences(sequence_items(features, list(range(20)), times), (6, 7), shift=2, thinning=0.0)
    moves = set()
    for k in [*range(20)] * 5:
        item = varied[k]
        drawn = np.zeros(42)
        drawn[item["times"].long().numpy()] = 1
        every = itertools.product(range(-2, 3), repeat=2)
        fits = [move for move in every if np.array_equal(np.roll(images[k], move, (0, 1)).ravel(), drawn)]
        assert fits and item["target"] == k and len(item["input"]) == len(item["times"])
        moves |= set(fits)
    assert len(moves) == 25
    assert [len(item["times"]) for item in varied] == [len(one) for one in times]  # as they are


def test_thinning_leaves_a_share_and_never_nothing():
    n = 4000
    items = sequence_items([np.ones((n, 1)), np.ones((1, 1))], [0, 1], [np.arange(n), np.array([3])])
    varied = AugmentedSequences(items, (80, 50), shift=0, thinning=0.5)
    shares = np.array([len(varied[0]["times"]) / n for _ in range(200)])
    assert 0.48 < shares.min() < 0.55 and 0.95 < shares.max() <= 1.0 and shares.mean() == pytest.approx(0.75, abs=0.04)
    assert all(len(varied[1]["times"]) == 1 for _ in range(50))
    assert (varied[0]["times"].diff() > 0).all()
    again = (AugmentedSequences(items, (80, 50), seed=4) for _ in range(2))
    assert torch.equal(*(one[0]["times"] for one in again))


@pytest.mark.parametrize("options", [{"shift": -1}, {"shift": 6}, {"thinning": 1.0}, {"thinning": -0.1}])
def test_bad_variations(options):
    with pytest.raises(OptionError, match=r"shift must (lie in 0..5|be a whole number of at least 0)"):
        AugmentedSequences([], (6, 7), **options)


def test_bad_images():
    with pytest.raises(ShapeError, match="height, width"):
        image_events(np.zeros((3, 4)))
    with pytest.raises(DataError, match="0..1 or be unsigned"):
        image_events(np.full((1, 2, 2), 255.0))
    with pytest.raises(OptionError, match="threshold"):
        image_events(np.zeros((1, 2, 2)), threshold=90)
    with pytest.raises(ShapeError, match=r"outside of images of shape \(4, 8\)"):
        AugmentedSequences(sequence_items([np.ones((1, 1))], [0], [np.array([63])]), (4, 8))
    with pytest.raises(ShapeError, match="without an empty axis"):
        image_events(np.zeros((0, 8, 8)))
