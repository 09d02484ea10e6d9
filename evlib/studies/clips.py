"""A classifier of audio clips: a linear model of the mean spectrum, and an LSTM that reads the clip frame by frame.

What a clip sounds like on average depends on the voice, the room and the microphone, and says much where those are the
same. The LSTM reads each clip relative to its own mean spectrum, which it takes from there to other voices and rooms.
How much each of them counts is chosen on clips of other speakers or places than those of training, so that together
they are no worse there than the linear model alone.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.preprocessing import StandardScaler
from sklearn.utils.class_weight import compute_sample_weight

from ..networks.seeds import seeded
from ..signals.errors import DataError, OptionError, ShapeError, require
from ..training.checkpoints import load_checkpoint, save_checkpoint
from ..training.linear import linear_logits, linear_weights, logistic_regression
from .audio import log_mel, read_clip
from .sequences import LSTMClassifier, predict_sequences, sequence_items, train_sequences

# The file in the folder of a classifier.
MODEL_FILE = "best_model.pth"
# Frames whose mean log power is this far below the loudest frame of their clip, 60 dB, are silence and are not read.
SILENCE = 6 * np.log(10)
# A clip whose spectrum differs by less than this from its mean, in log power, does not change.
STEADY = 1e-3
# One in so many groups is held out.
N_PARTS = 5
# Training of the network, options of `train_sequences`.
TRAINING = {"weight_decay": 1e-5, "patience": 6, "max_epochs": 30, "batch_size": 16}


def class_codes(labels, classes) -> np.ndarray:
    """(n,) index of each label in ``classes``; an unknown label is an error."""
    labels, code = list(labels), {str(name): k for k, name in enumerate(classes)}
    if len(code) != len(classes):
        raise DataError(f"each class must have a name of its own, got {_few(classes)}")
    if unknown := {str(label) for label in labels} - code.keys():
        raise DataError(f"unknown class {_few(sorted(unknown))}; the classes are {_few(code)}")
    return np.array([code[str(label)] for label in labels], dtype=int)


def _few(names):
    """Some names as a text, however many and however long they are."""
    names = [str(name)[:40] for name in names]
    return ", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "")


@dataclass
class ClipClassifier:
    """A trained classifier with all that it needs to read a file; made by `fit_clip_classifier`.

    Attributes
    ----------
    model : `LSTMClassifier`, reads the frames of a clip relative to its mean spectrum
    classes : names, in the order of the logits
    mean, scale : (n_features,) mean and standard deviation of what the network reads in training
    features : options of `log_mel`, ``sampling_rate_hz`` among them; empty if clips only come as features
    linear : (2 * n_features + 1, classes) weights of the linear model: for mean and standard deviation of the frames,
        and a constant; default: 0
    gains : of the linear model and of the network in the logits
    history : of the training of the network; empty where it was read from a file

    Raises
    ------
    DataError : another number of classes than the network's, a name twice, values that do not fit
    OptionError : features that are no options of `log_mel`, or make another number of bands
    """

    model: LSTMClassifier
    classes: tuple
    mean: np.ndarray
    scale: np.ndarray
    features: dict = field(default_factory=dict)
    linear: np.ndarray | None = None
    gains: tuple = (0.0, 1.0)
    history: list = field(default_factory=list, repr=False)

    def __post_init__(self):
        width, n_classes = self.model.encoder.input_size, self.model.config["num_classes"]
        named = isinstance(self.classes, tuple | list) and all(isinstance(name, str) for name in self.classes)
        if not named or len(self.classes) != n_classes:
            raise DataError(f"the model wants a list of {n_classes} names of classes, got {self.classes!r}")
        class_codes(self.classes, self.classes)
        self.classes = tuple(self.classes)
        self.mean, self.scale = np.asarray(self.mean, dtype=float), np.asarray(self.scale, dtype=float)
        fits = self.mean.shape == self.scale.shape == (width,) and np.isfinite([self.mean, self.scale]).all()
        if not (fits and (self.scale > 0).all()):
            raise DataError(f"mean and scale must be {width} finite numbers each, those of scale above 0")
        shape = 2 * width + 1, n_classes
        self.linear = np.zeros(shape) if self.linear is None else np.asarray(self.linear, dtype=float)
        self.gains = tuple(map(float, self.gains))
        numbers = self.linear.shape == shape and np.isfinite(self.linear).all() and np.isfinite(self.gains).all()
        require(numbers and len(self.gains) == 2, DataError, f"linear must be {shape} numbers, gains two")
        try:
            rate = self.features.get("sampling_rate_hz", 0)
            bands = log_mel(np.zeros(1), **self.features).shape[1] if self.features and 1 <= rate <= 1e6 else 0
        except (AttributeError, TypeError, ValueError) as error:
            raise OptionError(f"features must be options of evlib.studies.audio.log_mel: {error}") from error
        if self.features and bands != width:
            wanted = f"name a sampling_rate_hz up to 1 MHz and make {width} bands as the clips"
            raise OptionError(f"features must {wanted}: {self.features}")

    def probabilities(self, clips: Sequence[np.ndarray]) -> np.ndarray:
        """(n, classes) for clips as features (frames, n_features)."""
        clips = _audible(clips, len(self.mean))
        network = np.array(predict_sequences(self.model, self._items(clips, np.zeros(len(clips), int))))
        return softmax(self.gains[0] * self._by_spectrum(clips) + self.gains[1] * network, axis=1)

    def predict(self, clips: Sequence[np.ndarray]) -> np.ndarray:
        """(n,) the most likely class of each clip."""
        return np.array(self.classes)[self.probabilities(clips).argmax(axis=1)]

    def _items(self, clips, codes) -> list[dict]:
        """Audible clips relative to their mean spectrum, with the index of the class of each, for `train_sequences`."""
        return sequence_items([(_relative(clip) - self.mean) / self.scale for clip in clips], codes)

    def _by_spectrum(self, clips):
        """(n, classes) logits of the linear model of audible clips."""
        return linear_logits(_summary(clips), self.linear)

    def classify_file(self, path: str | Path) -> dict:
        """Class -> probability for an audio file of any rate and number of channels, the most likely class first."""
        if not self.features:
            raise DataError("the classifier was trained on features alone: it does not know how to compute them")
        signal = read_clip({"path": Path(path).name}, Path(path).parent, self.features["sampling_rate_hz"])
        probability = self.probabilities([log_mel(signal, **self.features)])[0]
        return {self.classes[k]: float(probability[k]) for k in np.argsort(-probability)}

    def evaluate(self, clips: Sequence[np.ndarray], labels) -> dict:
        """Accuracy, weighted precision, recall and F1, and the confusion matrix (rows: truth), as plain numbers."""
        if len(clips) != len(labels):
            raise ShapeError(f"one label for each clip, got {len(clips)} clips and {len(labels)} labels")
        codes, predicted = class_codes(labels, self.classes), self.probabilities(clips).argmax(1)
        weighted = precision_recall_fscore_support(codes, predicted, average="weighted", zero_division=0)[:3]
        return {
            "accuracy": float((codes == predicted).mean()),
            **dict(zip(("precision", "recall", "f1"), map(float, weighted), strict=True)),
            "classes": list(self.classes),
            "confusion": confusion_matrix(codes, predicted, labels=range(len(self.classes))).tolist(),
        }

    def save(self, folder: str | Path, **metadata):
        """Write ``best_model.pth`` with network, classes and features; ``metadata``: plain values such as the seed."""
        arrays = {name: torch.from_numpy(getattr(self, name)) for name in ("mean", "scale", "linear")}
        more = {"classes": list(self.classes), "features": self.features, "gains": list(self.gains)} | arrays
        save_checkpoint(Path(folder) / MODEL_FILE, self.model, metadata, **more)

    @classmethod
    def load(cls, folder: str | Path) -> "ClipClassifier":
        """Read a folder written by `save`, or the file in it."""
        path = Path(folder) if Path(folder).is_file() else Path(folder) / MODEL_FILE
        model, content = load_checkpoint(path, kinds=("LSTMClassifier",), what="classifier of clips")
        names = ("classes", "mean", "scale", "features", "linear", "gains")
        try:
            return cls(model, **{name: content[name] for name in names})
        except (ValueError, TypeError, KeyError) as error:
            raise DataError(f"{path} must hold {', '.join(names)} of its weights: {error}") from error


def fit_clip_classifier(
    clips: Sequence[np.ndarray],
    labels: Sequence,
    groups: Sequence | None = None,
    features: dict | None = None,
    validation: tuple | None = None,
    class_weights: dict | str | None = "balanced",
    hidden_size: int = 64,
    num_layers: int = 2,
    dropout: float = 0.3,
    pooling: str = "mean",
    seed: int = 0,
    **training,
) -> ClipClassifier:
    """Train a `ClipClassifier`: the linear model, then the network, then how much each of them counts.

    Parameters
    ----------
    clips : features (frames, n_features) of each, as `evlib.studies.audio.log_mel` makes them
    labels : the class of each clip
    groups : the speaker, place or recording of each clip; a fifth of them is held out, to stop the network and to weigh
        it against the linear model. Default: clips are held out, which says nothing about other speakers
    features : options of `log_mel` with which the clips were made; with them, files can be classified
    validation : (clips, labels) that are held out instead
    class_weights : "balanced": rare classes have a larger weight; or class -> weight; None: all clips are alike
    hidden_size, num_layers, dropout, pooling : of the `LSTMClassifier`
    seed : of weights, dropout and batches, and of what is held out
    training : options of `evlib.studies.sequences.train_sequences`

    Raises
    ------
    ShapeError : no clips as features, not one label and group for each
    DataError : fewer than two classes, nothing that could be held out
    OptionError : features or options that there are not, a class weight of an unknown class

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> clips = [rng.normal(size=(20, 5)) + 3 * (k % 2) * np.eye(5)[0] for k in range(30)]
    >>> model = fit_clip_classifier(clips, ["low", "high"] * 15, hidden_size=4, max_epochs=1)
    >>> model.predict(clips[:3]).tolist()
    ['low', 'high', 'low']
    """
    _check_clips(clips, labels, "clips")
    classes = tuple(sorted({str(label) for label in labels}))
    require(len(classes) > 1, DataError, f"clips of two classes at least are wanted, all are {_few(classes)}")
    if validation is None:
        kept, held = _hold_out(labels, np.arange(len(clips)) if groups is None else groups, seed)
        validation = [clips[k] for k in held], [labels[k] for k in held]
        clips, labels = [clips[k] for k in kept], [labels[k] for k in kept]
    require(len(validation) == 2, ShapeError, "validation must be a pair of clips and their labels")
    held_clips, held_labels = validation
    _check_clips(held_clips, held_labels, "validation clips")
    width = np.shape(clips[0])[-1]
    sounds = [_audible(some, width) for some in (clips, held_clips)]
    codes = [class_codes(some, classes) for some in (labels, held_labels)]
    if missing := [name for k, name in enumerate(classes) if k not in codes[0]]:
        raise DataError(f"no training clip of class {_few(missing)}")
    if isinstance(class_weights, dict):
        class_weights = {int(class_codes([name], classes)[0]): weight for name, weight in class_weights.items()}
    # Of each clip; of each class it is that of its clips.
    weights = [compute_sample_weight(class_weights, some) for some in codes]
    of_class = np.array([weights[0][codes[0] == k][0] for k in range(len(classes))])

    scaler = StandardScaler().fit(np.concatenate([_relative(clip) for clip in sounds[0]]))
    with seeded(seed):
        model = LSTMClassifier(width, hidden_size, num_layers, len(classes), dropout, pooling=pooling)
    classifier = ClipClassifier(model, classes, scaler.mean_, scaler.scale_, dict(features or {}))
    parts = [classifier._items(*part) for part in zip(sounds, codes, strict=True)]
    _, history = train_sequences(model, *parts, class_weights=of_class, seed=seed, **TRAINING | training)
    classifier.linear = _logistic(sounds[0], codes[0], weights[0])
    logits = classifier._by_spectrum(sounds[1]), np.array(predict_sequences(model, parts[1]))
    classifier.gains = _gains(*logits, codes[1], weights[1])
    # What was held out has said its word: now the linear model may learn from it too.
    classifier.linear = _logistic(sounds[0] + sounds[1], np.concatenate(codes), np.concatenate(weights))
    classifier.history = history
    return classifier


def _check_clips(clips, labels, what):
    """Refuse what is not a list of features with a label for each."""
    several = isinstance(clips, list | tuple | np.ndarray) and len(clips) > 0
    fits = several and all(getattr(clip, "ndim", 0) == 2 and len(clip) for clip in clips)
    message = f"{what} must be a list of features (frames, bands), one array for each clip, as log_mel makes them"
    require(fits, ShapeError, message)
    require(np.ndim(labels) == 1, ShapeError, f"the labels of {what} must be a list of names, one for each clip")
    message = f"one label for each clip, got {len(clips)} {what}, {len(labels)} labels"
    require(len(clips) == len(labels), ShapeError, message)


def _hold_out(labels, groups, seed):
    """Rows to train on, and rows of other groups that hold about a fifth of each class."""
    require(
        np.shape(groups) == np.shape(labels), ShapeError, f"one group for each clip, got {len(groups)} of {len(labels)}"
    )
    labels, groups = np.array(list(map(str, labels))), np.array(list(map(str, groups)))
    n_parts = min(N_PARTS, len(np.unique(groups)), int(np.unique(labels, return_counts=True)[1].max()))
    require(n_parts > 1, DataError, "two groups at least are wanted, one of them is held out")
    splits = StratifiedGroupKFold(n_parts, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of rare classes; what matters is checked here
        for kept, held in splits.split(labels, labels, groups):
            if len(held) and set(labels[kept]) == set(labels):
                return kept, held
    raise DataError("each class is wanted in two groups at least: whichever group is held out, a class is missing")


def _logistic(clips, codes, weights):
    """Weights of the linear model, (2 * n_features + 1, classes)."""
    return linear_weights(logistic_regression().fit(_summary(clips), codes, logisticregression__sample_weight=weights))


def _gains(linear, network, codes, weights):
    """By how much each logit counts, where the cross-entropy of held-out clips is least: two numbers, none below 0."""

    def cross_entropy(gains):
        log_p = log_softmax(gains[0] * linear + gains[1] * network, axis=1)
        return -np.average(log_p[np.arange(len(codes)), codes], weights=weights)

    # From the linear model alone, so that no result is worse than that.
    found = minimize(cross_entropy, (1.0, 0.0), method="L-BFGS-B", bounds=[(0.0, None)] * 2)
    return tuple(map(float, found.x))


def _audible(clips, width):
    """The frames of each clip (frames, width) that are no silence."""
    shapes = {np.shape(clip)[1:] for clip in clips}
    if shapes != {(width,)}:
        raise ShapeError(f"clips must be features (frames, bands) with {width} bands each, got {sorted(shapes)}")
    loud = [np.mean(clip, axis=1) for clip in clips]
    return [clip[level >= level.max() - SILENCE] for clip, level in zip(clips, loud, strict=True)]


def _relative(clip):
    """A clip relative to its mean spectrum and in units of how much it changes."""
    change = clip - clip.mean(axis=0)
    return change / max(float(change.std()), STEADY)


def _summary(clips):
    """(n, 2 * n_features) mean and standard deviation of the frames of each clip."""
    return np.stack([np.r_[clip.mean(axis=0), clip.std(axis=0)] for clip in clips])
