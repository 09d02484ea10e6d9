"""Audio clips: manifests, log-mel features, speech mixed into noise at a stated ratio, and a classifier of clips.

A manifest is a table (CSV or JSON) with one row a clip: ``path``, ``label``, ``group`` (a speaker or place, which must
not be on both sides of a split), and for mixtures ``noise_path`` and ``snr_db``, so that a mixture is the same each
time.
"""

import json
import warnings
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from scipy.signal import ShortTimeFFT, get_window, resample_poly
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support
from sklearn.preprocessing import StandardScaler
from sklearn.utils.class_weight import compute_class_weight

from ..networks.seeds import seeded
from ..signals.clock import rate_ratio
from ..signals.errors import (
    DataError,
    MissingExtraError,
    OptionError,
    ShapeError,
    require,
    require_extra,
    require_number,
)
from ..signals.files import FORMATS, read_recording
from ..signals.paths import path_inside
from ..training.checkpoints import load_checkpoint, save_checkpoint
from .sequences import LSTMClassifier, predict_sequences, sequence_items, train_sequences

# Power added before the logarithm, so that silence has one: far below the noise of any 16-bit recording.
POWER_FLOOR = 1e-10
# Columns of a manifest that hold text.
TEXTS = ("path", "label", "group", "noise_path")
# Ratios in dB beyond which a mixture in double precision holds one of its parts alone.
MAX_SNR_DB = 150
# Rates of sound, and the most values of a clip: 23 minutes of one channel at 48 kHz, half a GB.
CLIP_RATES_HZ, MAX_CLIP_VALUES = (1_000, 1_000_000), 2**26
# The file in the folder of a classifier.
MODEL_FILE = "best_model.pth"


def mel_filters(n_mels: int, n_fft: int, sampling_rate_hz: float) -> np.ndarray:
    """(n_mels, n_fft // 2 + 1) triangles of equal area, evenly spaced in mel, 2595 log10(1 + f / 700), from 0 to half
    the rate.

    >>> mel_filters(40, 1024, 16_000).shape
    (40, 513)
    """
    mel = np.linspace(0, 2595 * np.log10(1 + sampling_rate_hz / 2 / 700), n_mels + 2)
    edge = 700 * (10 ** (mel / 2595) - 1)
    frequency = np.fft.rfftfreq(n_fft, 1 / sampling_rate_hz)
    rising = (frequency - edge[:-2, None]) / (edge[1:-1] - edge[:-2])[:, None]
    falling = (edge[2:, None] - frequency) / (edge[2:] - edge[1:-1])[:, None]
    return np.maximum(np.minimum(rising, falling), 0) * (2 / (edge[2:] - edge[:-2]))[:, None]


def log_mel(
    signal: np.ndarray,
    sampling_rate_hz: float,
    n_fft: int = 1024,
    window: int = 640,
    hop: int = 320,
    n_mels: int = 40,
    same_level: bool = False,
) -> np.ndarray:
    """Natural log of the mel power of a clip, (n,) or (n, channels) -> (frames, n_mels) float32, mean of the channels.

    The defaults are windows of 40 ms every 20 ms at 16 kHz. Frames are centred on multiples of ``hop``, n // hop + 1 of
    them. ``same_level`` divides a clip by its root mean square first, so that its loudness carries no information.

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
    # The transform needs one window at least: short clips are padded with silence.
    channels = np.pad(channels, ((0, 0), (0, max(0, window - len(signal)))))
    transform = ShortTimeFFT(get_window("hann", window), hop, sampling_rate_hz, mfft=n_fft)
    power = np.abs(transform.stft(channels, 0, len(signal) // hop + 1)) ** 2
    mel = mel_filters(n_mels, n_fft, sampling_rate_hz) @ power
    return np.log(mel + POWER_FLOOR).mean(0).T.astype(np.float32)


def mix_at_snr(speech: np.ndarray, noise: np.ndarray, snr_db: float) -> np.ndarray:
    """Speech plus noise at a ratio of powers of ``snr_db``; divided by its peak where that exceeds 1.

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


def read_manifest(path: str | Path):
    """A manifest as a pandas table; its paths are relative to the folder of the manifest, and stay inside of it.

    Labels and groups are texts, as they stand in the file.

    Raises
    ------
    DataError : not a CSV or JSON table; a missing column or entry; a path that leads out of the folder; noise without
        its ratio; a clip named twice
    """
    import pandas as pd

    path = Path(path)
    try:
        if path.suffix.lower() == ".json":
            table = pd.DataFrame(json.loads(path.read_text(encoding="utf-8")))
        else:
            with warnings.catch_warnings():
                warnings.simplefilter("error", pd.errors.ParserWarning)  # a line that is longer than the header
                options = {"encoding": "utf-8", "index_col": False, "compression": None, "keep_default_na": False}
                table = pd.read_csv(path, dtype=str, **options)
            for name in table.columns.difference(TEXTS):
                values = pd.to_numeric(table[name], errors="coerce")
                table[name] = values if (values.notna() | (table[name] == "")).all() else table[name]
    except (OSError, ValueError, TypeError, AttributeError, RecursionError, pd.errors.ParserWarning) as error:
        raise DataError(f"{path} is no manifest (a CSV or JSON table of clips): {error}") from error
    if missing := {"path", "label", "group"} - set(table):
        raise DataError(f"{path} must have the columns path, label and group; {', '.join(sorted(missing))} is missing")
    require(len(table), DataError, f"{path} names no clip")
    table = table.reset_index(drop=True)
    try:
        for name in table.columns.intersection(TEXTS):
            table[name] = pd.Series([_entry(name, value, k) for k, value in enumerate(table[name])], dtype=object)
        if "noise_path" in table:
            noisy, ratio = table.noise_path.notna(), table.get("snr_db", pd.Series(np.nan, table.index))
            table["snr_db"] = pd.to_numeric(ratio.where(ratio.map(np.isscalar)), errors="coerce")
            bad = noisy & ~table.snr_db.between(-MAX_SNR_DB, MAX_SNR_DB)
            message = f"row {bad.argmax() + 1}: noise needs an snr_db between -{MAX_SNR_DB} and {MAX_SNR_DB}"
            require(not bad.any(), DataError, message)
        for name in table.columns.intersection(("path", "noise_path")):
            for one in table[name].dropna().unique():
                path_inside(path.parent, one)
    except DataError as error:
        raise DataError(f"{path}, {error}") from error
    if table.duplicated([name for name in ("path", "noise_path", "snr_db") if name in table]).any():
        raise DataError(f"{path} names a clip twice")
    return table


def _entry(name, value, k):
    """A text of row ``k`` of a manifest; None where a clip has no noise."""
    if name == "noise_path" and (value is None or value != value or value == ""):
        return None
    known = isinstance(value, str | int) and not isinstance(value, bool) and str(value).strip()
    require(known, DataError, f"row {k + 1}: {name} must be a text, got {value!r}")
    return str(value).strip()


def read_clip(row, folder: str | Path, sampling_rate_hz: float) -> np.ndarray:
    """The signal (n, channels) of a row of a manifest at a rate, mixed with its noise if it has one.

    Raises
    ------
    DataError : a file that is missing, damaged, of more than 67 million values, of a rate below 1 kHz or
        above 1 MHz; one that lies outside of the folder; a ratio that is no number
    """
    require_number(*CLIP_RATES_HZ, sampling_rate_hz=sampling_rate_hz)

    def read(name):
        path = path_inside(folder, name)
        try:
            signal, rate = _read_sound(path, sampling_rate_hz)
        except MissingExtraError:
            raise
        except (OSError, RuntimeError, ValueError) as error:
            raise DataError(f"cannot read the clip {path}: {error}") from error
        ratio = rate_ratio(rate, sampling_rate_hz)
        require(ratio, DataError, f"the clip {path} cannot be resampled from {rate} to {sampling_rate_hz} Hz")
        return resample_poly(signal, *ratio) if ratio != (1, 1) else signal

    signal = read(row.get("path"))
    if not isinstance(row.get("noise_path"), str):
        return signal
    snr_db = row.get("snr_db")
    require_number(-MAX_SNR_DB, MAX_SNR_DB, snr_db=snr_db)
    return mix_at_snr(signal, np.resize(read(row["noise_path"]), signal.shape), snr_db)


def _read_sound(path, wanted_hz):
    """Signal (n, channels) and rate of a file: a recording that evlib reads, or any other kind of sound file."""

    def check(n, channels, rate):
        size = n * channels * max(1, wanted_hz / rate)
        fits = 0 < size <= MAX_CLIP_VALUES and CLIP_RATES_HZ[0] <= rate <= CLIP_RATES_HZ[1]
        require(fits, DataError, f"{n} samples of {channels} channels at {rate:.10g} Hz are no clip")

    if path.suffix.lower() in FORMATS:
        recording = read_recording(path)
        check(*recording.shape, recording.sampling_rate_hz)
        return recording.read(dtype=np.float64), recording.sampling_rate_hz
    with require_extra("soundfile", "data").SoundFile(path) as file:
        check(file.frames, file.channels, file.samplerate)
        signal = file.read(always_2d=True)
        require(len(signal) == file.frames, DataError, f"it says {file.frames} samples and holds {len(signal)}")
        return signal, file.samplerate


def class_codes(labels, classes) -> np.ndarray:
    """(n,) index of each label in ``classes``; an unknown label is an error."""
    labels, code = list(labels), {str(name): k for k, name in enumerate(classes)}
    if len(code) != len(classes):
        raise DataError(f"each class must have a name of its own, got {', '.join(map(str, classes))}")
    if unknown := {str(label) for label in labels} - code.keys():
        raise DataError(f"unknown class {', '.join(sorted(unknown))}; the classes are {', '.join(code)}")
    return np.array([code[str(label)] for label in labels], dtype=int)


@dataclass
class ClipClassifier:
    """A trained network with the names of its classes and the standardisation of its inputs.

    Attributes
    ----------
    model : `LSTMClassifier`
    classes : names, in the order of the network's logits
    mean, scale : (n_features,) mean and standard deviation of the training frames
    features : options of `log_mel`, ``sampling_rate_hz`` among them; empty if clips only come as features

    Raises
    ------
    DataError : another number of classes than the network's, a name twice, a mean or scale that does not fit
    OptionError : features that are no options of `log_mel`, or make another number of bands
    """

    model: LSTMClassifier
    classes: tuple
    mean: np.ndarray
    scale: np.ndarray
    features: dict = field(default_factory=dict)

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
        try:
            rate = self.features.get("sampling_rate_hz", 0)
            bands = log_mel(np.zeros(1), **self.features).shape[1] if self.features and 1 <= rate <= 1e6 else 0
        except (AttributeError, TypeError, ValueError) as error:
            raise OptionError(f"features must be options of evlib.studies.audio.log_mel: {error}") from error
        if self.features and bands != width:
            wanted = f"name a sampling_rate_hz up to 1 MHz and make {width} bands as the clips"
            raise OptionError(f"features must {wanted}: {self.features}")

    def _items(self, clips: list[np.ndarray], codes) -> list[dict]:
        """Clips as features and the index of the class of each, as standardised items for `train_sequences`."""
        _check_width(clips, len(self.mean))
        return sequence_items([(clip - self.mean) / self.scale for clip in clips], codes)

    def probabilities(self, clips: list[np.ndarray]) -> np.ndarray:
        """(n, classes) for a list of clips as features (frames, n_features)."""
        items = self._items(clips, np.zeros(len(clips), int))
        return torch.tensor(np.array(predict_sequences(self.model, items))).softmax(-1).numpy()

    def classify_file(self, path: str | Path) -> dict:
        """Class -> probability for an audio file of any rate and number of channels, the most likely class first."""
        if not self.features:
            raise DataError("the classifier was trained on features alone: it does not know how to compute them")
        signal = read_clip({"path": Path(path).name}, Path(path).parent, self.features["sampling_rate_hz"])
        probability = self.probabilities([log_mel(signal, **self.features)])[0]
        return {self.classes[k]: float(probability[k]) for k in np.argsort(-probability)}

    def evaluate(self, clips: list[np.ndarray], labels) -> dict:
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
        scaling = {"mean": torch.from_numpy(self.mean), "scale": torch.from_numpy(self.scale)}
        more = {"classes": list(self.classes), "features": self.features} | scaling
        save_checkpoint(Path(folder) / MODEL_FILE, self.model, metadata, **more)

    @classmethod
    def load(cls, folder: str | Path) -> "ClipClassifier":
        """Read a folder written by `save`."""
        path = Path(folder) / MODEL_FILE
        model, content = load_checkpoint(path, kinds=("LSTMClassifier",), what="classifier of clips")
        try:
            return cls(model, *(content[name] for name in ("classes", "mean", "scale", "features")))
        except (ValueError, TypeError, KeyError) as error:
            raise DataError(f"{path} must hold classes, mean, scale and features of its weights: {error}") from error


def _check_width(clips, width):
    shapes = {np.shape(clip)[1:] for clip in clips}
    if shapes != {(width,)}:
        raise ShapeError(f"clips must be features (frames, bands) with {width} bands each, got {sorted(shapes)}")


def fit_clip_classifier(
    train,
    validation,
    classes,
    features: dict | None = None,
    hidden_size: int = 128,
    num_layers: int = 2,
    dropout: float = 0.3,
    pooling: str = "last",
    seed: int = 0,
    **training,
) -> tuple[ClipClassifier, list[dict]]:
    """Train a `ClipClassifier`. Rare classes have a larger weight; the epoch with the lowest validation loss is kept.

    Parameters
    ----------
    train, validation : (clips, labels); clips are features (frames, n_features), labels are among ``classes``
    features : options of `log_mel` with which the clips were made
    hidden_size, num_layers, dropout, pooling : of the `LSTMClassifier`
    seed : of weights, dropout and batches
    training : options of `evlib.studies.sequences.train_sequences`

    Returns
    -------
    ClipClassifier, history
    """
    codes = class_codes(train[1], classes)
    if missing := [str(name) for k, name in enumerate(classes) if k not in codes]:
        raise DataError(f"no training clip of class {', '.join(missing)}")
    width = np.shape(train[0][0])[-1]
    _check_width(train[0], width)
    scaler = StandardScaler().fit(np.concatenate(train[0]))
    with seeded(seed):
        model = LSTMClassifier(width, hidden_size, num_layers, len(classes), dropout, pooling=pooling)
    classifier = ClipClassifier(model, tuple(map(str, classes)), scaler.mean_, scaler.scale_, dict(features or {}))
    parts = [classifier._items(clips, class_codes(labels, classes)) for clips, labels in (train, validation)]
    weights = compute_class_weight("balanced", classes=np.arange(len(classes)), y=codes)
    training = {"weight_decay": 1e-5, "patience": 5} | training
    _, history = train_sequences(model, *parts, class_weights=weights, seed=seed, **training)
    return classifier, history
