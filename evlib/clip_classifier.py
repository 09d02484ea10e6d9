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
from .errors import DataError
from .files import replace_file
from .models.sequence import LSTMClassifier
from .sequences import predict_sequences, sequence_items, train_sequences

METADATA = ("classes", "mean", "scale", "features")


def class_codes(labels, classes):
    """The place of each label in ``classes``, (n,) int; an unknown one is refused, it is never class 0."""
    place = {name: code for code, name in enumerate(classes)}
    if unknown := {str(label) for label in labels} - place.keys():
        raise DataError(f"unknown class {', '.join(sorted(unknown))}; the classes are {', '.join(classes)}")
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

    def probabilities(self, clips):
        """(n, classes) for a list of clips as features (frames, n_features)."""
        items = _items(clips, np.zeros(len(clips), int), self.mean, self.scale)
        return torch.tensor(np.array(predict_sequences(self.model, items))).softmax(-1).numpy()

    def classify_file(self, path):
        """Probabilities of an audio file of any rate and number of channels, as a dict by class, likeliest first."""
        if "sampling_rate_hz" not in self.features:
            raise DataError("the classifier was trained on features alone: it cannot know how to compute them from a file")
        signal = read_clip({"path": Path(path).name}, Path(path).parent, self.features["sampling_rate_hz"])
        probability = self.probabilities([log_mel(signal, **self.features)])[0]
        return {self.classes[k]: float(probability[k]) for k in np.argsort(-probability)}

    def evaluate(self, clips, labels):
        """Scores of a split as plain numbers: accuracy, weighted precision, recall and F1, confusion matrix (rows: truth)."""
        codes, said = class_codes(labels, self.classes), self.probabilities(clips).argmax(1)
        weighted = precision_recall_fscore_support(codes, said, average="weighted", zero_division=0)[:3]
        return {
            "accuracy": float((codes == said).mean()),
            **dict(zip(("precision", "recall", "f1"), map(float, weighted), strict=True)),
            "classes": list(self.classes),
            "confusion": confusion_matrix(codes, said, labels=range(len(self.classes))).tolist(),
        }

    def save(self, folder, **more):
        """Write weights and metadata; ``more`` (seed, losses, hyper-parameters) must be plain JSON."""
        metadata = {"classes": list(self.classes), "mean": self.mean.tolist(), "scale": self.scale.tolist()}
        content = json.dumps(metadata | {"features": self.features} | more, indent=1)
        save_checkpoint(Path(folder) / "best_model.pth", self.model, None, epoch=0, global_step=0)
        with replace_file(Path(folder) / "metadata.json") as path:
            path.write_text(content)

    @classmethod
    def load(cls, folder):
        """Read a folder written by `save`."""
        model, _ = load_checkpoint(Path(folder) / "best_model.pth")
        try:
            metadata = json.loads((Path(folder) / "metadata.json").read_text())
            classes, mean, scale, features = (metadata[name] for name in METADATA)
            mean, scale = np.asarray(mean, dtype=float), np.asarray(scale, dtype=float)
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise DataError(f"{folder}/metadata.json must hold {', '.join(METADATA)}: {error!r}") from error
        widths = {model.encoder.input_size, *mean.shape, *scale.shape} if isinstance(model, LSTMClassifier) else set()
        if len(widths) != 1 or model.config["num_classes"] != len(classes) or not isinstance(features, dict):
            raise DataError(f"weights and metadata in {folder} do not belong together")
        return cls(model, tuple(classes), mean, scale, features)


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
    codes = class_codes(train[1], classes)
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
    return ClipClassifier(model, tuple(map(str, classes)), scaler.mean_, scaler.scale_, dict(features or {})), history


def _items(clips, codes, mean, scale):
    return sequence_items([(clip - mean) / scale for clip in clips], codes)
