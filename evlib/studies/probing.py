"""Probes: how well the type of an event can be read from a representation, with how many labels.

`window_study` makes the windows that notebooks 03 pretrain on and probe with. Windows of probes are (N, time, C) with
one event in each, all at the same place; a representation of them is (N, features). A linear probe shows what a
classifier could use without training the encoder. Two baselines see the same labels: a probe on principal components of
the samples, and averaged snippets, compared as a matched filter does.
"""

import itertools
from dataclasses import dataclass

import numpy as np
import torch
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.metrics.pairwise import cosine_similarity

from ..detection.pretrain import cut_windows
from ..networks.classifier import evaluating
from ..networks.encoders import Encoder
from ..networks.seeds import seeded
from ..scoring.statistics import draw_rows
from ..signals.errors import OptionError, require, require_known
from ..signals.events import Events, read_events
from ..signals.files import read_recording
from ..signals.recording import Recording
from ..signals.streams import stream
from ..signals.synthetic import make_recording, make_templates
from ..templates.bank import TemplateBank, average_snippets, cut_snippets, shrink_templates
from ..templates.whiten import estimate_whitener

# Windows that are encoded at a time, which bounds memory.
BATCH = 512
# Principal components: as many as the latent vector of an autoencoder has numbers.
N_COMPONENTS = 64


@dataclass(frozen=True, eq=False)
class WindowStudy:
    """Whitened windows to pretrain on and to probe with, of one recording to learn from and another one to judge.

    ``recording`` the one to learn from; ``names`` of its types; ``unlabelled`` and ``held_out`` (N, time, C) windows
    most of which lie around a peak of energy, those of the held-out stretches apart; ``train`` and ``test`` pairs of
    windows (N, time, C), each of which ends with one event, and types (N,); ``event`` the slice of the event.
    """

    recording: Recording
    names: tuple
    unlabelled: np.ndarray
    held_out: np.ndarray
    train: tuple
    test: tuple
    event: slice


def window_study(
    recording: str = "",
    events: str = "",
    *,
    snr: float = 12.0,
    train_s: float = 300.0,
    test_s: float = 150.0,
    event_s: float = 0.04,
    window_s: float = 0.06,
    n_windows: int = 4096,
    seed: int = 0,
) -> WindowStudy:
    """Windows of a simulation, or of the halves of a recording of your own.

    Parameters
    ----------
    recording, events : paths of a recording and its events; empty for a simulation
    snr, train_s, test_s : of the simulation: its signal-to-noise ratio, seconds to learn from and to judge
    event_s, window_s : about how long an event and a window are, seconds
    n_windows : unlabelled windows
    seed : of the simulation and of the windows

    >>> study = window_study(train_s=20.0, test_s=20.0, n_windows=64)
    >>> study.unlabelled.shape[1:], study.test[0].shape[1:], study.event
    ((120, 6), (120, 6), slice(40, 120, None))
    """
    if recording:
        whole = read_recording(recording)
        table, half = read_events(events, whole.sampling_rate_hz), whole.n_samples // 2
        half_s = whole.duration_s / 2
        later = table.within(half, whole.n_samples).shift(-half)
        pairs = [(whole.between(0, half_s), table.within(0, half)), (whole.between(half_s), later)]
    else:
        templates = make_templates(seed=seed)
        lengths = {1000 + seed: train_s, 2000 + seed: test_s}
        pairs = [tuple(make_recording(templates, s, snr=snr, seed=draw)) for draw, s in lengths.items()]
    learn, rate = pairs[0][0], pairs[0][0].sampling_rate_hz
    whitener, length = estimate_whitener([learn]), round(window_s * rate)
    before = length - round(event_s * rate)
    unlabelled, held_out = cut_windows([whitener(learn)], length, n_windows, seed)
    train, test = (event_windows(whitener(one), labels, before, length) for one, labels in pairs)
    return WindowStudy(learn, pairs[0][1].names, unlabelled, held_out, train, test, slice(before, length))


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
    with seeded(seed):
        return type(encoder)(**encoder.config)


def encode_windows(encoder: Encoder, windows: np.ndarray, all_frames: bool = False) -> np.ndarray:
    """States of an encoder in evaluation mode; the encoder's mode is put back.

    Parameters
    ----------
    encoder : LSTMEncoder or PatchFrameEncoder
    windows : (N, time, C) array
    all_frames : the states of all frames side by side, instead of their mean

    Returns
    -------
    (N, features) float32 array

    >>> from evlib.networks.encoders import LSTMEncoder
    >>> encode_windows(LSTMEncoder(6, hidden_size=8), np.zeros((3, 200, 6)), all_frames=True).shape
    (3, 320)
    """
    parts = torch.as_tensor(np.asarray(windows, dtype=np.float32)).split(BATCH)
    with evaluating(encoder):
        return torch.cat([encoder(x).flatten(1) if all_frames else encoder.pooled(x) for x in parts]).numpy()


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
    """Types (M,) of ``test`` predicted by logistic regression on features that share one scale.

    A scale for each feature, from a few labelled rows, would be mostly noise.

    Parameters
    ----------
    train, test : (N, ...) and (M, ...) features; further axes are flattened
    train_type : (N,) integers, at least two kinds
    """
    train, test = train.reshape(len(train), -1), test.reshape(len(test), -1)
    mean, scale = train.mean(axis=0), max(train.std(), np.finfo(np.float32).tiny)
    model = LogisticRegression(max_iter=500).fit((train - mean) / scale, train_type)
    return model.predict((test - mean) / scale)


def match_snippets(train: np.ndarray, train_type: np.ndarray, test: np.ndarray) -> np.ndarray:
    """Types (M,) of ``test`` predicted by a matched filter from averaged snippets: the average that fits a window best.

    Parameters
    ----------
    train, test : (N, time, C) and (M, time, C) whitened windows, all events at the same place
    train_type : (N,) integers

    >>> windows = np.eye(2)[:, :, None] * 9
    >>> match_snippets(windows, np.array([0, 1]), windows)
    array([0, 1])
    """
    kinds, index = np.unique(train_type, return_inverse=True)
    mean, worth = average_snippets(train, index, np.ones(len(index)), len(kinds))
    bank = TemplateBank(shrink_templates(mean, worth), before=0, names=tuple(kinds.tolist()))
    match = np.einsum("mlc,elc->me", test, bank.shapes, optimize=True)
    return kinds[bank.log_likelihood_ratio(match).argmax(axis=1)]


def probe_encoder(encoder: Encoder, study: WindowStudy, labels_per_type=(1, 5, 20), seeds=(0, 1, 2)):
    """A pretrained encoder compared with methods that need no pretraining and see the same labels.

    The encoder and an untrained one of the same architecture are read in two ways: the mean of their states over a
    window, and the states of all frames. Linear probes read them, the samples and their principal components; averaged
    snippets are compared as a matched filter does.

    Parameters
    ----------
    encoder : LSTMEncoder or PatchFrameEncoder
    study : principal components are those of its unlabelled windows, for a fair comparison; labels are drawn from its
        ``train``
    labels_per_type : labelled training events of each type
    seeds : one draw of labels each

    Returns
    -------
    pandas table : method, labels_per_type, seed, accuracy

    Raises
    ------
    OptionError : more labels than the rarest type has events, a single type
    """
    import pandas as pd

    (train, train_type), (test, test_type) = study.train, study.test
    require(len(np.unique(train_type)) > 1, OptionError, "a probe needs labels of at least two types")
    flat = study.unlabelled.reshape(len(study.unlabelled), -1)
    components = PCA(min(N_COMPONENTS, *flat.shape), random_state=0).fit(flat)
    features = {
        f"{name}, {how}": [encode_windows(one, x, how == "all states") for x in (train, test)]
        for name, one in (("pretrained", encoder), ("untrained", reinitialised(encoder)))
        for how in ("mean state", "all states")
    }
    features["principal components"] = [components.transform(x.reshape(len(x), -1)) for x in (train, test)]
    features["samples"] = [train, test]
    features["matched filter"] = [train[:, study.event], test[:, study.event]]
    rows = []
    for n, seed in itertools.product(labels_per_type, seeds):
        chosen = draw_labels(train_type, n, seed)
        for name, (known, new) in features.items():
            predict = match_snippets if name == "matched filter" else probe
            predicted = predict(known[chosen], train_type[chosen], new)
            rows.append((name, n, seed, float(np.mean(predicted == test_type))))
    return pd.DataFrame(rows, columns=["method", "labels_per_type", "seed", "accuracy"])


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


def nearest_neighbour(features: np.ndarray) -> np.ndarray:
    """(N,) the other row with the largest cosine similarity to each row of (N, features).

    >>> nearest_neighbour(np.array([[1.0, 0.0], [2.0, 0.1], [0.0, 1.0]]))
    array([1, 0, 1])
    """
    similarity = cosine_similarity(np.asarray(features, dtype=np.float64))
    np.fill_diagonal(similarity, -np.inf)
    return similarity.argmax(axis=1)
