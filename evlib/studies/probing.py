"""Probes: how well the type of an event can be read from a representation, with how many labels.

Windows are (N, time, C) with one event in each, all at the same place; a representation of them is (N, features). A
linear probe shows what a classifier could use without training the encoder. Two baselines see the same labels: a probe
on principal components of the samples, and averaged snippets, compared as a matched filter does.
"""

import itertools

import numpy as np
import torch
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.metrics.pairwise import cosine_similarity
from torch import nn

from ..networks.classifier import evaluating
from ..networks.encoders import Encoder, pool_frames
from ..scoring.statistics import draw_rows
from ..signals.errors import OptionError, ShapeError, require_known
from ..signals.events import Events
from ..signals.streams import stream
from ..templates.bank import TemplateBank, average_snippets, cut_snippets, shrink_templates

# Windows that are encoded at a time, which bounds memory.
BATCH = 512
# Principal components: as many as the latent vector of an autoencoder has numbers.
N_COMPONENTS = 64


def event_windows(whitened: np.ndarray, events: Events, before: int, length: int) -> tuple[np.ndarray, np.ndarray]:
    """A window (length, C) for each event, from ``before`` samples ahead of it, and the types of the events.

    Events whose window would not fit into the signal are left out.

    >>> windows, type = event_windows(np.zeros((100, 6)), Events.from_seconds([0.03, 0.095], [0, 1], 1000.0), 10, 20)
    >>> windows.shape, type
    ((1, 20, 6), array([0]))
    """
    time = events.time_samples
    whole = (time >= before) & (time + length - before <= len(whitened))
    return cut_snippets(whitened, time[whole], before, length), events.type[whole]


def reinitialised(encoder: Encoder, seed: int = 0) -> Encoder:
    """An encoder of the same architecture with random weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return type(encoder)(**encoder.config)


def encode_windows(encoder: nn.Module, windows: np.ndarray, pooling: str = "mean") -> np.ndarray:
    """States of an encoder in evaluation mode; the encoder's mode is put back.

    Parameters
    ----------
    encoder : LSTMEncoder or PatchFrameEncoder
    windows : (N, time, C) array
    pooling : "mean", "max" or "last" over the frames, or "none": the states of all frames side by side

    Returns
    -------
    (N, features) float32 array

    >>> from evlib.networks.encoders import LSTMEncoder
    >>> encode_windows(LSTMEncoder(6, hidden_size=8), np.zeros((3, 200, 6)), "none").shape
    (3, 320)
    """
    x = torch.as_tensor(np.asarray(windows, dtype=np.float32))
    with evaluating(encoder):
        states = torch.cat([encoder(part) for part in x.split(BATCH)])
    if pooling == "none":
        return states.flatten(1).numpy()
    return pool_frames(states, torch.ones(states.shape[:2], dtype=torch.bool), pooling).numpy()


def draw_labels(type: np.ndarray, labels_per_type: int, seed: int = 0) -> np.ndarray:
    """``labels_per_type`` random rows of each type; a smaller draw with the same seed is part of a larger one.

    >>> draw_labels(np.array([0, 0, 0, 1, 1]), 2).shape
    (4,)
    """
    type = np.asarray(type)
    rarest = np.unique(type, return_counts=True)[1].min(initial=len(type))
    if not 1 <= labels_per_type <= rarest:
        wanted = f"1..{rarest}, the events of the rarest type"
        raise OptionError(f"labels_per_type must lie in {wanted}, got {labels_per_type!r}")
    return draw_rows(type, labels_per_type, stream("labels of probes", seed))


def probe(train: np.ndarray, train_type: np.ndarray, test: np.ndarray) -> np.ndarray:
    """Types of ``test`` predicted by logistic regression on features that share one scale.

    A scale for each feature, from a few labelled rows, would be mostly noise.

    Parameters
    ----------
    train, test : (N, ...) and (M, ...) features; further axes are flattened
    train_type : (N,) integers

    Returns
    -------
    (M,) integers
    """
    train, train_type, test = _checked(train, train_type, test)
    train, test = train.reshape(len(train), -1), test.reshape(len(test), -1)
    mean, scale = train.mean(axis=0), max(train.std(), np.finfo(np.float32).tiny)
    model = LogisticRegression(max_iter=500).fit((train - mean) / scale, train_type)
    return model.predict((test - mean) / scale)


def match_snippets(train: np.ndarray, train_type: np.ndarray, test: np.ndarray, reach: int = 0) -> np.ndarray:
    """Types of ``test`` predicted by a matched filter from averaged snippets: the average that fits a window best.

    Parameters
    ----------
    train, test : (N, time, C) and (M, time, C) whitened windows; the events of ``train`` at the same place
    train_type : (N,) integers
    reach : samples by which an event in ``test`` may lie elsewhere; averages are compared at each lag

    Returns
    -------
    (M,) integers

    >>> windows = np.eye(2)[:, :, None] * 9
    >>> match_snippets(windows, np.array([0, 1]), windows)
    array([0, 1])
    """
    train, train_type, test = _checked(train, train_type, test)
    if train.ndim != 3:
        raise ShapeError(f"windows must be (events, time, channels), got {train.shape}")
    time = train.shape[1]
    if not 0 <= reach < time / 2:
        raise OptionError(f"reach must lie between 0 and less than half a window of {time} samples, got {reach}")
    kinds, index = np.unique(train_type, return_inverse=True)
    length = time - 2 * reach
    mean, worth = average_snippets(train[:, reach : reach + length], index, np.ones(len(index)), len(kinds))
    bank = TemplateBank(shrink_templates(mean, worth), before=0, names=tuple(kinds.tolist()))
    lags = [np.einsum("mlc,elc->me", test[:, k : k + length], bank.shapes, optimize=True) for k in range(2 * reach + 1)]
    return kinds[np.max([bank.log_likelihood_ratio(lag) for lag in lags], axis=0).argmax(axis=1)]


def compare_probes(representations, train_type, test_type, labels_per_type=(1, 5, 20), seeds=(0, 1, 2), methods=None):
    """Accuracy of the predicted types, for each representation, number of labels and draw of labels.

    All representations see the same labelled events in each draw.

    Parameters
    ----------
    representations : dict of name to (train, test), features of all training and test events
    train_type, test_type : (N,) and (M,) integers
    labels_per_type : labelled training events of each type
    seeds : one draw of labels each
    methods : dict of name to a function (train, train_type, test) -> types; default: `probe`

    Returns
    -------
    pandas table : method, labels_per_type, seed, accuracy

    Raises
    ------
    OptionError : more labels than the rarest type has events; a method for an unknown representation
    ShapeError : features and types of different lengths

    Examples
    --------
    >>> x, type = np.eye(2).repeat(4, axis=0), np.arange(2).repeat(4)
    >>> compare_probes({"exact": (x, x)}, type, type, labels_per_type=(1,), seeds=(0,)).accuracy.tolist()
    [1.0]
    """
    import pandas as pd

    methods = methods or {}
    require_known(methods, representations, "methods", "representation")
    train_type, test_type = np.asarray(train_type), np.asarray(test_type)
    for name, (train, test) in representations.items():
        if len(train) != len(train_type) or len(test) != len(test_type):
            got = f"{len(train)} training and {len(test)} test rows for {len(train_type)} and {len(test_type)} types"
            raise ShapeError(f"{name!r} has {got}")
    rows = []
    for n, seed in itertools.product(labels_per_type, seeds):
        chosen = draw_labels(train_type, n, seed)
        for name, (train, test) in representations.items():
            predicted = methods.get(name, probe)(train[chosen], train_type[chosen], test)
            rows.append((name, n, seed, float(np.mean(predicted == test_type))))
    return pd.DataFrame(rows, columns=["method", "labels_per_type", "seed", "accuracy"])


def probe_encoder(encoder, unlabelled, train, test, event, labels_per_type=(1, 5, 20), seeds=(0, 1, 2)):
    """A pretrained encoder compared with methods that need no pretraining and see the same labels.

    The encoder and an untrained one of the same architecture are read in two ways: the mean of their states over a
    window, and the states of all frames. Linear probes read them, the samples and their principal components; averaged
    snippets are compared as a matched filter does.

    Parameters
    ----------
    encoder : LSTMEncoder or PatchFrameEncoder
    unlabelled : (M, time, C) windows for the principal components: those of the encoder, for a fair comparison
    train, test : pairs of windows (N, time, C) and types (N,), as from `event_windows`; labels are drawn from ``train``
    event : slice of a window's samples that the snippets are cut to
    labels_per_type, seeds : as in `compare_probes`

    Returns
    -------
    pandas table as that of `compare_probes`
    """
    (train, train_type), (test, test_type) = train, test
    flat = unlabelled.reshape(len(unlabelled), -1)
    components = PCA(min(N_COMPONENTS, *flat.shape), random_state=0).fit(flat)
    representations = {
        f"{name}, {how}": [encode_windows(one, x, pooling) for x in (train, test)]
        for name, one in (("pretrained", encoder), ("untrained", reinitialised(encoder)))
        for how, pooling in (("mean state", "mean"), ("all states", "none"))
    }
    representations["principal components"] = [components.transform(x.reshape(len(x), -1)) for x in (train, test)]
    representations["samples"] = train, test
    representations["matched filter"] = train[:, event], test[:, event]
    methods = {"matched filter": match_snippets}
    return compare_probes(representations, train_type, test_type, labels_per_type, seeds, methods)


def describe_difference(table, method: str, rival: str) -> list[str]:
    """For each number of labels a sentence: is ``method`` better than ``rival`` in every draw, in none, or in some?

    >>> import pandas as pd
    >>> rows = [("a", 5, 0, 0.8), ("b", 5, 0, 0.7), ("a", 5, 1, 0.9), ("b", 5, 1, 0.6)]
    >>> table = pd.DataFrame(rows, columns=["method", "labels_per_type", "seed", "accuracy"])
    >>> describe_difference(table, "a", "b")
    ['5 labels per type: a beats b, 85 % against 65 % (+10 to +30 points in 2 draws of labels)']
    """
    wide = 100 * table.pivot_table(index=["labels_per_type", "seed"], columns="method", values="accuracy")
    require_known((method, rival), list(wide), "the table", "method")
    sentences = []
    for n, rows in wide.groupby(level="labels_per_type"):
        gain = rows[method] - rows[rival]
        words = "beats" if gain.min() > 0 else "is below" if gain.max() < 0 else "does not clearly differ from"
        means = f"{rows[method].mean():.0f} % against {rows[rival].mean():.0f} %"
        spread = f"{gain.min():+.0f} to {gain.max():+.0f} points in {len(rows)} draws of labels"
        sentences.append(f"{n} labels per type: {method} {words} {rival}, {means} ({spread})")
    return sentences


def nearest_neighbours(features: np.ndarray, k: int = 1) -> np.ndarray:
    """(N, k) rows with the largest cosine similarity to each row, the nearest first.

    >>> nearest_neighbours(np.array([[1.0, 0.0], [2.0, 0.1], [0.0, 1.0]])).ravel()
    array([1, 0, 1])
    """
    features = np.asarray(features, dtype=np.float64)
    if features.ndim != 2 or not 1 <= k < len(features):
        raise ShapeError(f"features must be (rows, features) with more than k = {k} rows, got {features.shape}")
    similarity = cosine_similarity(features)
    np.fill_diagonal(similarity, -np.inf)
    return np.argsort(-similarity, axis=1, kind="stable")[:, :k]


def _checked(train, train_type, test):
    """Arrays of features and types that belong together."""
    train, train_type, test = np.asarray(train), np.asarray(train_type), np.asarray(test)
    if train_type.shape != (len(train),):
        raise ShapeError(f"train has {len(train)} rows, train_type has shape {train_type.shape}")
    if train.shape[1:] != test.shape[1:]:
        raise ShapeError(f"train and test must have the same features, got {train.shape[1:]} and {test.shape[1:]}")
    if len(np.unique(train_type)) < 2:
        raise OptionError("a probe needs labels of at least two types")
    return train, train_type, test
