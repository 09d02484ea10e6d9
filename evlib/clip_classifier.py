"""A classifier of audio clips: trained on features and class names, kept as a folder, asked about a file or a whole split.

The folder holds ``best_model.pth`` (weights) and ``metadata.json`` (classes, standardisation, features, whatever was added).
"""

import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support
from sklearn.preprocessing import StandardScaler
from sklearn.utils.class_weight import compute_class_weight

from .audio import log_mel, read_clip
from .checkpoints import load_checkpoint, save_checkpoint
from .errors import DataError, OptionError, ShapeError
from .files import replace_file
from .models.sequence import LSTMClassifier
from .sequences import predict_sequences, sequence_items, train_sequences

METADATA = ("classes", "mean", "scale", "features")


def class_codes(labels, classes):
    """The place of each label in ``classes``, (n,) int; an unknown one is refused, it is never class 0."""
    labels, place = list(labels), {str(name): code for code, name in enumerate(classes)}
    if len(place) != len(classes):
        raise DataError(f"each class must have a name of its own, got {', '.join(map(str, classes))}")
    if unknown := {str(label) for label in labels} - place.keys():
        raise DataError(f"unknown class {', '.join(sorted(unknown))}; the classes are {', '.join(place)}")
    return np.array([place[str(label)] for label in labels], dtype=int)


@dataclass
class ClipClassifier:
    """A trained model with the names of its classes and the standardisation of its inputs.

    Attributes
    ----------
    model : `LSTMClassifier`
    classes : names, in the order of the model's logits
    mean, scale : (n_features,) of the training frames
    features : options of `evlib.audio.log_mel`, ``sampling_rate_hz`` among them; empty if clips only come as features
    """

    model: LSTMClassifier
    classes: tuple
    mean: np.ndarray
    scale: np.ndarray
    features: dict = field(default_factory=dict)

    def __post_init__(self):
        if isinstance(self.classes, str):
            raise DataError(f"classes must be a list of names, got {self.classes!r}")
        self.classes, width = tuple(self.classes), self.model.encoder.input_size
        self.mean, self.scale = np.asarray(self.mean, dtype=float), np.asarray(self.scale, dtype=float)
        class_codes(self.classes, self.classes)
        if not all(isinstance(name, str) for name in self.classes) or len(self.classes) != self.model.config["num_classes"]:
            raise DataError(f"the model wants {self.model.config['num_classes']} names of classes, got {self.classes}")
        if not self.mean.shape == self.scale.shape == (width,) or not np.isfinite([self.mean, self.scale]).all():
            raise DataError(f"mean and scale must be {width} finite numbers each")
        if not (self.scale > 0).all():
            raise DataError("scale must be above 0")
        check_features(self.features, width)

    def probabilities(self, clips):
        """(n, classes) for a list of clips as features (frames, n_features)."""
        items = _items(clips, np.zeros(len(clips), int), self.mean, self.scale)
        return torch.tensor(np.array(predict_sequences(self.model, items))).softmax(-1).numpy()

    def classify_file(self, path):
        """Probabilities of an audio file of any rate and number of channels, as a dict by class, likeliest first."""
        if not self.features:
            raise DataError("the classifier was trained on features alone: it cannot know how to compute them from a file")
        signal = read_clip({"path": Path(path).name}, Path(path).parent, self.features["sampling_rate_hz"])
        probability = self.probabilities([log_mel(signal, **self.features)])[0]
        return {self.classes[k]: float(probability[k]) for k in np.argsort(-probability)}

    def evaluate(self, clips, labels):
        """Scores of a split as plain numbers: accuracy, weighted precision, recall and F1, confusion matrix (rows: truth)."""
        if len(clips) != len(labels):
            raise ShapeError(f"one label for each clip, got {len(clips)} clips and {len(labels)} labels")
        codes, said = class_codes(labels, self.classes), self.probabilities(clips).argmax(1)
        weighted = precision_recall_fscore_support(codes, said, average="weighted", zero_division=0)[:3]
        return {
            "accuracy": float((codes == said).mean()),
            **dict(zip(("precision", "recall", "f1"), map(float, weighted), strict=True)),
            "classes": list(self.classes),
            "confusion": confusion_matrix(codes, said, labels=range(len(self.classes))).tolist(),
        }

    def save(self, folder, **more):
        """Write weights and metadata; ``more`` (seed, losses, hyper-parameters) must be plain JSON under names of its own."""
        if taken := more.keys() & set(METADATA):
            raise OptionError(f"{', '.join(sorted(taken))} is what the classifier itself writes; choose another name")
        metadata = {"classes": list(self.classes), "mean": self.mean.tolist(), "scale": self.scale.tolist()}
        content = json.dumps(metadata | {"features": self.features} | more, indent=1)
        save_checkpoint(Path(folder) / "best_model.pth", self.model, None, epoch=0, global_step=0)
        with replace_file(Path(folder) / "metadata.json") as path:
            path.write_text(content)

    @classmethod
    def load(cls, folder):
        """Read a folder written by `save`."""
        model, _ = load_checkpoint(Path(folder) / "best_model.pth")
        if not isinstance(model, LSTMClassifier):
            raise DataError(f"{folder}/best_model.pth holds a {type(model).__name__}, not an LSTMClassifier")
        try:
            metadata = json.loads((Path(folder) / "metadata.json").read_text())
            return cls(model, *(metadata[name] for name in METADATA))
        except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
            raise DataError(f"{folder}/metadata.json must hold {', '.join(METADATA)} of these weights: {error}") from error


def check_features(features, width):
    """Refuse what are no options of `log_mel`, or make another number of features; none at all are allowed."""
    try:
        rate = features.get("sampling_rate_hz", 0)
        made = log_mel(np.zeros(1), **features).shape[1] if features and 1 <= rate <= 1e6 else 0
    except (AttributeError, TypeError, ValueError) as error:
        raise OptionError(f"features must be options of evlib.audio.log_mel: {error}") from error
    if features and made != width:
        raise OptionError(f"features must name a sampling_rate_hz up to 1 MHz and make {width} bands as the clips: {features}")


def fit_clip_classifier(
    train, validation, classes, features=None, hidden_size=128, num_layers=2, dropout=0.3, pooling="last", seed=0, **training
):
    """Train a `ClipClassifier`; rare classes weigh more, and the epoch with the least validation loss is kept.

    Parameters
    ----------
    train, validation : (clips, labels); clips are features (frames, n_features), labels are among ``classes``
    features : options of `evlib.audio.log_mel` with which the clips were made
    hidden_size, num_layers, dropout, pooling : of the `LSTMClassifier`
    training : options of `evlib.sequences.train_sequences`

    Returns
    -------
    ClipClassifier, history
    """
    codes, features = class_codes(train[1], classes), dict(features or {})
    _check_clips(train[0])
    check_features(features, np.shape(train[0][0])[-1])
    if missing := set(range(len(classes))) - set(codes.tolist()):
        raise DataError(f"no training clip of class {', '.join(str(classes[code]) for code in sorted(missing))}")
    scaler = StandardScaler().fit(np.concatenate(train[0]))
    parts = [_items(clips, class_codes(labels, classes), scaler.mean_, scaler.scale_) for clips, labels in (train, validation)]
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        model = LSTMClassifier(len(scaler.mean_), hidden_size, num_layers, len(classes), dropout, pooling=pooling)
    weights = compute_class_weight("balanced", classes=np.arange(len(classes)), y=codes)
    training = {"weight_decay": 1e-5, "patience": 5} | training
    model, history = train_sequences(model, *parts, class_weights=weights, seed=seed, **training)
    return ClipClassifier(model, tuple(map(str, classes)), scaler.mean_, scaler.scale_, features), history


def _check_clips(clips, width=None):
    shapes = {np.shape(clip)[1:] for clip in clips} | (set() if width is None else {(width,)})
    if len(clips) == 0 or len(shapes) != 1 or len(next(iter(shapes))) != 1:
        raise ShapeError(f"clips must be features (frames, bands) with {width or 'as many'} bands each, got {sorted(shapes)}")


def _items(clips, codes, mean, scale):
    _check_clips(clips, len(mean))
    return sequence_items([(clip - mean) / scale for clip in clips], codes)
