"""Audio clips: log-mel features, speech mixed into noise at a stated ratio, and manifests that say which clip is what.

A manifest is a table (CSV or JSON) with one row a clip: ``path``, ``label``, ``group`` (what must not be on two sides
of a split: a recording situation, a speaker), and for mixtures ``noise_path`` and ``snr_db``. So a mixture is the same
every time.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from scipy.signal import ShortTimeFFT, get_window, resample_poly
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support
from sklearn.preprocessing import StandardScaler
from sklearn.utils.class_weight import compute_class_weight

from ..signals.errors import DataError, OptionError, ShapeError, require_extra
from ..signals.files import replace_file
from ..training.checkpoints import load_checkpoint, save_checkpoint
from .sequences import LSTMClassifier, predict_sequences, sequence_items, train_sequences

POWER_FLOOR = 1e-10


def mel_filters(n_mels, n_fft, sampling_rate_hz, low_hz=0.0, high_hz=None):
    """(n_mels, n_fft // 2 + 1) triangles of equal area, evenly spaced in mel (2595 log10(1 + f / 700)).

    >>> mel_filters(40, 1024, 16_000).shape
    (40, 513)
    """
    high_hz = sampling_rate_hz / 2 if high_hz is None else high_hz
    mel = np.linspace(*(2595 * np.log10(1 + np.array([low_hz, high_hz]) / 700)), n_mels + 2)
    edge = 700 * (10 ** (mel / 2595) - 1)
    frequency = np.fft.rfftfreq(n_fft, 1 / sampling_rate_hz)
    rising = (frequency - edge[:-2, None]) / (edge[1:-1] - edge[:-2])[:, None]
    falling = (edge[2:, None] - frequency) / (edge[2:] - edge[1:-1])[:, None]
    return np.maximum(np.minimum(rising, falling), 0) * (2 / (edge[2:] - edge[:-2]))[:, None]


def log_mel(signal, sampling_rate_hz, n_fft=1024, window=640, hop=320, n_mels=40, same_level=False):
    """Natural log of the mel power of a clip, (n,) or (n, channels) -> (frames, n_mels) float32, mean of the channels.

    The defaults are 40 ms every 20 ms at 16 kHz; frames are centred on multiples of ``hop``, n // hop + 1 of them. With
    ``same_level`` a clip is divided by its root mean square first, so that its loudness tells nothing.

    Raises
    ------
    ShapeError, DataError : another number of axes, an empty clip, values that are not finite

    Examples
    --------
    >>> log_mel(np.zeros(160_000), 16_000).shape
    (501, 40)
    """
    signal = np.asarray(signal, dtype=np.float64)
    if signal.ndim not in (1, 2) or len(signal) == 0:
        raise ShapeError(f"a clip has shape (samples,) or (samples, channels) with samples, got {signal.shape}")
    if not np.isfinite(signal).all():
        raise DataError("the clip holds NaN or infinity")
    channels = signal.reshape(len(signal), -1).T
    if same_level:
        channels = channels / max(np.sqrt((channels**2).mean()), POWER_FLOOR)
    # Short clips are lengthened by silence to one window, which the transform needs.
    channels = np.pad(channels, ((0, 0), (0, max(0, window - len(signal)))))
    transform = ShortTimeFFT(get_window("hann", window), hop, sampling_rate_hz, mfft=n_fft)
    power = np.abs(transform.stft(channels, 0, len(signal) // hop + 1)) ** 2
    mel = mel_filters(n_mels, n_fft, sampling_rate_hz) @ power
    return np.log(mel + POWER_FLOOR).mean(0).T.astype(np.float32)


def mix_at_snr(speech, noise, snr_db):
    """Speech with noise so loud that their powers have the ratio ``snr_db``; divided by its peak where that exceeds 1.

    >>> mixture = mix_at_snr(np.array([0.1, -0.1]), np.array([0.5, 0.5]), 0.0)
    >>> mixture.round(3)
    array([0.2, 0. ])
    """
    speech, noise = np.asarray(speech, dtype=float), np.asarray(noise, dtype=float)
    if speech.shape != noise.shape:
        raise ShapeError(f"speech and noise must have one shape, got {speech.shape} and {noise.shape}")
    level, noise_level = (np.sqrt((part**2).mean()) for part in (speech, noise))
    if not (level > 0 and noise_level > 0):
        raise DataError("speech or noise is silent: no ratio can be reached")
    mixture = speech + noise * level / (noise_level * 10 ** (snr_db / 20))
    return mixture / max(1.0, np.abs(mixture).max())


def read_manifest(path):
    """A manifest as a table; its paths are relative to the folder that it lies in.

    Raises
    ------
    DataError : not a CSV or JSON table, a column that is missing, a clip named twice
    """
    import pandas as pd

    path = Path(path)
    try:
        table = pd.read_json(path) if path.suffix == ".json" else pd.read_csv(path)
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is no manifest (a CSV or JSON table of clips): {error}") from error
    if missing := {"path", "label", "group"} - set(table):
        raise DataError(f"{path} must have the columns path, label and group; {', '.join(sorted(missing))} is missing")
    if table.duplicated([name for name in ("path", "noise_path", "snr_db") if name in table]).any():
        raise DataError(f"{path} names a clip twice")
    return table


def read_clip(row, folder, sampling_rate_hz):
    """The signal (n, channels) of a row of a manifest at a rate, mixed with its noise if it has one."""
    soundfile = require_extra("soundfile", "data")

    def read(name):
        try:
            signal, rate = soundfile.read(Path(folder) / name, always_2d=True)
        except (OSError, RuntimeError) as error:
            raise DataError(f"cannot read the clip {Path(folder) / name}: {error}") from error
        return resample_poly(signal, int(sampling_rate_hz), int(rate)) if rate != sampling_rate_hz else signal

    signal = read(row["path"])
    if not isinstance(row.get("noise_path"), str):
        return signal
    noise = read(row["noise_path"])
    return mix_at_snr(signal, noise[np.arange(len(signal)) % len(noise)], row["snr_db"])


def manifest_of_folders(folder, group=lambda name: name.rsplit("_", 1)[0]):
    """A manifest of a folder with one subfolder a class, as HEAR-DS; ``group`` tells the situation from a file's
    name."""
    import pandas as pd

    paths = sorted(path.relative_to(folder) for path in Path(folder).glob("*/*.wav"))
    if not paths:
        raise DataError(f"{folder} has no subfolders with .wav files")
    return pd.DataFrame(
        [(str(path), path.parent.name, group(path.stem)) for path in paths], columns=["path", "label", "group"]
    )


def manifest_of_esc(folder):
    """A manifest of a folder as ESC-50's: ``meta/esc50.csv`` beside ``audio/``; the source recording is the group."""
    import pandas as pd

    try:
        table = pd.read_csv(Path(folder) / "meta" / "esc50.csv")
        table = table.assign(path="audio/" + table.filename, label=table.category, group=table.src_file)
    except (OSError, ValueError, AttributeError) as error:
        raise DataError(
            f"{folder} holds no meta/esc50.csv with filename, category, src_file and fold: {error}"
        ) from error
    return table[["path", "label", "group", "fold"]]


# --- A classifier of audio clips: trained on features and class names, kept as a folder, asked about a file or a wh


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
    features : options of `evlib.studies.audio.log_mel`, ``sampling_rate_hz`` among them; empty if clips only come as
        features
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
        if (
            not all(isinstance(name, str) for name in self.classes)
            or len(self.classes) != self.model.config["num_classes"]
        ):
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
            raise DataError(
                "the classifier was trained on features alone: it cannot know how to compute them from a file"
            )
        signal = read_clip({"path": Path(path).name}, Path(path).parent, self.features["sampling_rate_hz"])
        probability = self.probabilities([log_mel(signal, **self.features)])[0]
        return {self.classes[k]: float(probability[k]) for k in np.argsort(-probability)}

    def evaluate(self, clips, labels):
        """Scores of a split as plain numbers: accuracy, weighted precision, recall and F1, confusion matrix (rows:
        truth)."""
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
        """Write weights and metadata; ``more`` (seed, losses, hyper-parameters) must be plain JSON under names of its
        own."""
        if taken := more.keys() & set(METADATA):
            raise OptionError(f"{', '.join(sorted(taken))} is what the classifier itself writes; choose another name")
        metadata = {"classes": list(self.classes), "mean": self.mean.tolist(), "scale": self.scale.tolist()}
        content = json.dumps(metadata | {"features": self.features} | more, indent=1)
        save_checkpoint(Path(folder) / "best_model.pth", self.model)
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
            raise DataError(
                f"{folder}/metadata.json must hold {', '.join(METADATA)} of these weights: {error}"
            ) from error


def check_features(features, width):
    """Refuse what are no options of `log_mel`, or make another number of features; none at all are allowed."""
    try:
        rate = features.get("sampling_rate_hz", 0)
        made = log_mel(np.zeros(1), **features).shape[1] if features and 1 <= rate <= 1e6 else 0
    except (AttributeError, TypeError, ValueError) as error:
        raise OptionError(f"features must be options of evlib.studies.audio.log_mel: {error}") from error
    if features and made != width:
        raise OptionError(
            f"features must name a sampling_rate_hz up to 1 MHz and make {width} bands as the clips: {features}"
        )


def fit_clip_classifier(
    train,
    validation,
    classes,
    features=None,
    hidden_size=128,
    num_layers=2,
    dropout=0.3,
    pooling="last",
    seed=0,
    **training,
):
    """Train a `ClipClassifier`; rare classes weigh more, and the epoch with the least validation loss is kept.

    Parameters
    ----------
    train, validation : (clips, labels); clips are features (frames, n_features), labels are among ``classes``
    features : options of `evlib.studies.audio.log_mel` with which the clips were made
    hidden_size, num_layers, dropout, pooling : of the `LSTMClassifier`
    training : options of `evlib.studies.sequences.train_sequences`

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
    parts = [
        _items(clips, class_codes(labels, classes), scaler.mean_, scaler.scale_)
        for clips, labels in (train, validation)
    ]
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
        raise ShapeError(
            f"clips must be features (frames, bands) with {width or 'as many'} bands each, got {sorted(shapes)}"
        )


def _items(clips, codes, mean, scale):
    _check_clips(clips, len(mean))
    return sequence_items([(clip - mean) / scale for clip in clips], codes)
