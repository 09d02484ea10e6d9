"""Audio clips: manifests, log-mel features, and speech mixed into noise at a stated ratio.

A manifest is a table (CSV or JSON) with one row a clip: ``path``, ``label``, ``group`` (a speaker or place, which must
not be on both sides of a split), and for mixtures ``noise_path`` and ``snr_db``, so that a mixture is the same each
time.
"""

import json
import warnings
from pathlib import Path

import numpy as np
from scipy.signal import ShortTimeFFT, get_window, resample_poly

from ..signals.clock import rate_ratio
from ..signals.errors import (
    DataError,
    MissingExtraError,
    ShapeError,
    require,
    require_extra,
    require_number,
)
from ..signals.files import FORMATS, read_recording
from ..signals.paths import path_inside

# Power added before the logarithm, so that silence has one: far below the noise of any 16-bit recording.
POWER_FLOOR = 1e-10
# Columns of a manifest that hold text.
TEXTS = ("path", "label", "group", "noise_path")
# Ratios in dB beyond which a mixture in double precision holds one of its parts alone.
MAX_SNR_DB = 150
# Rates of sound, and the most values of a clip: 23 minutes of one channel at 48 kHz, half a GB.
CLIP_RATES_HZ, MAX_CLIP_VALUES = (1_000, 1_000_000), 2**26


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
