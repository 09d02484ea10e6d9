"""Audio clips: log-mel features, speech mixed into noise at a stated ratio, and manifests that say which clip is what.

A manifest is a table (CSV or JSON) with one row a clip: ``path``, ``label``, ``group`` (what must not be on two sides of a
split: a recording situation, a speaker), and for mixtures ``noise_path`` and ``snr_db``. So a mixture is the same every time.
"""

from pathlib import Path

import numpy as np
from scipy.signal import ShortTimeFFT, get_window, resample_poly

from .errors import DataError, ShapeError, require_extra

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
    """A manifest of a folder with one subfolder a class, as HEAR-DS; ``group`` tells the situation from a file's name."""
    import pandas as pd

    paths = sorted(path.relative_to(folder) for path in Path(folder).glob("*/*.wav"))
    if not paths:
        raise DataError(f"{folder} has no subfolders with .wav files")
    return pd.DataFrame([(str(path), path.parent.name, group(path.stem)) for path in paths], columns=["path", "label", "group"])


def manifest_of_esc(folder):
    """A manifest of a folder as ESC-50's: ``meta/esc50.csv`` beside ``audio/``; the source recording is the group."""
    import pandas as pd

    try:
        table = pd.read_csv(Path(folder) / "meta" / "esc50.csv")
        table = table.assign(path="audio/" + table.filename, label=table.category, group=table.src_file)
    except (OSError, ValueError, AttributeError) as error:
        raise DataError(f"{folder} holds no meta/esc50.csv with filename, category, src_file and fold: {error}") from error
    return table[["path", "label", "group", "fold"]]
