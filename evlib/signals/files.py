"""Files: recordings in every format are read, and written as ``.npz``.

What the file of a recording holds, by its ending (channel names and units may be given anew when reading, the rate only
where the file has none):

* ``.npz``: an array ``signal``, and ``sampling_rate_hz``, ``channels``, ``units``, ``start_time`` (ISO 8601)
* ``.npy``: the signal, memory-mapped; beside it a ``.json`` with the others
* ``.csv``, ``.tsv``, ``.parquet``: a column for each channel and, if there is one, a uniform ``time`` in seconds
* ``.h5``, ``.hdf5``, ``.zarr``: a dataset or array ``signal``; the others as attributes, or as arrays beside it
* ``.wav``: signal and rate; integers are scaled to [-1, 1)
"""

import contextlib
import json
import warnings
from collections import ChainMap
from datetime import datetime
from pathlib import Path, PureWindowsPath

import numpy as np

from .atomic import replace_file
from .clock import uniform_rate
from .errors import DataError, EvlibError, MissingExtraError, UnitError, require_extra, require_rate
from .recording import Recording, StoredSignal


def path_inside(folder: str | Path, name) -> Path:
    """The path of a file that a manifest names, relative to its own folder.

    Raises
    ------
    DataError : no name, an absolute one, one with ``..``, a link that leads out of the folder

    Examples
    --------
    >>> path_inside("clips", "../secret.wav")
    Traceback (most recent call last):
    ...
    evlib.signals.errors.DataError: '../secret.wav' leads out of the folder clips: name files inside of it
    """
    if not (isinstance(name, str) and name.strip() and name.isprintable()):
        raise DataError(f"a file in {folder} needs a name of printable characters, got {name!r}")
    parts = PureWindowsPath(name)  # knows both kinds of slashes, and drives
    path, inside = Path(folder) / name, False
    if not parts.anchor and ".." not in parts.parts:
        with contextlib.suppress(OSError, RuntimeError):  # links in a circle
            inside = path.resolve().is_relative_to(Path(folder).resolve())
    if not inside:
        raise DataError(f"{name!r} leads out of the folder {folder}: name files inside of it")
    return path


# Columns of a table that hold the time.
TIME_COLUMNS = ("time", "time_s", "t")
ABOUT = ("sampling_rate_hz", "channels", "units", "start_time")


def read_recording(path: str | Path, sampling_rate_hz: float | None = None, channels=None, units=None) -> Recording:
    """Read a recording from a file; the top of `evlib.signals.files` says what each kind of file holds.

    Parameters
    ----------
    path : .npz, .npy, .csv, .tsv, .parquet, .h5, .hdf5, .wav or .zarr
    sampling_rate_hz : needed where the file does not hold it; refused where the file holds another one
    channels, units : used instead of those in the file

    Raises
    ------
    DataError : the file is missing, truncated, of an unknown kind, holds Python objects, or its time column is not
        uniform
    UnitError : no rate, or one that contradicts the file's
    ShapeError, OptionError : as for :class:`Recording`
    MissingExtraError : the format needs an optional package

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "night.npz"
    >>> np.savez(path, signal=np.zeros((4000, 6)), sampling_rate_hz=2000)
    >>> read_recording(path)
    Recording(night: 4000 samples, 6 channels, 2000 Hz, 2 s)
    """
    path = Path(path)
    kind = path.suffix.lower()
    if kind not in FORMATS:
        raise DataError(f"{path}: unknown kind of file {kind!r}; a recording can be read from {', '.join(FORMATS)}")
    if not path.exists():
        raise DataError(f"no recording at {path}")
    given = None if sampling_rate_hz is None else require_rate(sampling_rate_hz)
    try:
        signal, *sources = FORMATS[kind](path, given)
        about = ChainMap(*sources)  # of several places, the first that names the rate, channels or units
        rate = _agreed_rate(given, about.get("sampling_rate_hz"))
        channels = _text(about["channels"]) if channels is None and "channels" in about else channels
        units = _text(about.get("units", "")) if units is None else units
        start_time = about.get("start_time")
        start_time = start_time if start_time is None or isinstance(start_time, datetime) else _text(start_time)
        recording = Recording(signal, rate, channels, units, path.stem, start_time)
    except MissingExtraError:
        raise
    except EvlibError as error:
        raise type(error)(f"{path}: {error}") from error
    except Exception as error:  # a parser of a damaged file may raise anything
        raise DataError(f"{path} cannot be read as {kind} (truncated, or another kind of file?): {error}") from error
    if isinstance(recording.signal, StoredSignal):
        recording.signal.source = str(path)
    return recording


def _agreed_rate(given, stored):
    if stored is None and given is None:
        raise UnitError("the file does not tell its sampling rate; pass sampling_rate_hz=...")
    if stored is None:
        return given
    stored = require_rate(np.asarray(stored).item())
    if given is not None and abs(given / stored - 1) > 1e-6:
        passed = f"sampling_rate_hz={given:g} was passed; only Recording.resample changes a rate"
        raise UnitError(f"the file says {stored:g} Hz, but {passed}")
    return stored


def _text(values):
    """Names as they come from a file: one or many, bytes or str."""
    values = [value.decode() if isinstance(value, bytes) else str(value) for value in np.atleast_1d(values).tolist()]
    return values[0] if len(values) == 1 else tuple(values)


def _signal_of(source):
    """``source["signal"]``, or an error that says what there is instead."""
    if "signal" not in source:
        raise DataError(f"there is no array named 'signal', only {sorted(source)}")
    return source["signal"]


# ---- readers: (path, rate that was passed or None) -> signal, and mappings that may hold rate, channels and units ---


def _read_npz(path, given):
    with np.load(path, allow_pickle=False) as arrays:
        return _signal_of(arrays), {key: arrays[key] for key in ABOUT if key in arrays}


def _read_npy(path, given):
    sidecar = path.with_suffix(".json")
    about = json.loads(sidecar.read_text(encoding="utf-8")) if sidecar.exists() else {}
    if not isinstance(about, dict):
        raise DataError(f"{sidecar.name} must hold an object with {', '.join(ABOUT)}")
    return np.load(path, mmap_mode="r", allow_pickle=False), about


def _read_csv(path, given):
    import pandas as pd

    with warnings.catch_warnings():
        # Longer lines than the header would lose values, or shift them by a column.
        warnings.simplefilter("error", pd.errors.ParserWarning)
        separator = "," if path.suffix.lower() == ".csv" else "\t"
        return _from_table(pd.read_csv(path, sep=separator, index_col=False, skipinitialspace=True), given)


def _read_parquet(path, given):
    require_extra("pyarrow", "data")
    import pandas as pd

    return _from_table(pd.read_parquet(path, engine="pyarrow"), given)


def _from_table(table, given):
    """Signal and rate of a table with a column for each channel and, if it is there, one for the time in seconds."""
    import pandas as pd

    table.columns = names = [str(name).strip() for name in table.columns]
    numbers = pd.to_numeric(pd.Series(names, dtype=object), errors="coerce")
    if numbers.notna().any() or any(name.startswith("Unnamed:") for name in names):
        hint = "(no header, an index column, another separator?)"
        raise DataError(f"the first line must name every column, got {names} {hint}")
    for name, column in table.items():
        if getattr(column.dtype, "kind", "O") not in "iufb":
            bad = int(np.argmax(pd.to_numeric(column, errors="coerce").isna() & column.notna()))
            raise DataError(f"column {name!r}, row {bad + 1}: {column.iloc[bad]!r} is not a number")
    is_time = np.array([name.lower() in TIME_COLUMNS for name in names])
    if is_time.sum() > 1:
        raise DataError(f"only one column can be the time, got {names}")
    about = {"channels": [name for name in names if name.lower() not in TIME_COLUMNS]}
    if is_time.any():
        about["sampling_rate_hz"] = uniform_rate(table.loc[:, is_time].to_numpy(np.float64)[:, 0], given)
    return table.loc[:, ~is_time].to_numpy(), about


def _read_hdf5(path, given):
    file = require_extra("h5py", "data").File(path, "r")
    signal = _signal_of(file)
    return signal, signal.attrs, file.attrs, file


def _read_zarr(path, given):
    node = require_extra("zarr", "scale").open(path, mode="r")
    if hasattr(node, "shape"):
        return node, node.attrs
    signal = _signal_of(node)
    return signal, signal.attrs, node.attrs, node


def _read_wav(path, given):
    from scipy.io import wavfile

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", wavfile.WavFileWarning)  # unknown chunks do no harm, a missing end does
        warnings.filterwarnings("error", "Reached EOF", wavfile.WavFileWarning)
        try:
            rate, signal = wavfile.read(path, mmap=True)
        except ValueError as error:
            if "byte container" not in str(error):
                raise
            rate, signal = wavfile.read(path)  # 24 bits have no memory map
    if signal.dtype.kind != "f":
        half = 2 ** (8 * signal.dtype.itemsize - 1)
        signal = StoredSignal(signal, offset=half if signal.dtype.kind == "u" else 0, gain=1 / half)
    return signal, {"sampling_rate_hz": rate}


# Ending of a file -> how it is read.
FORMATS = {
    ".npz": _read_npz,
    ".npy": _read_npy,
    ".csv": _read_csv,
    ".tsv": _read_csv,
    ".parquet": _read_parquet,
    ".h5": _read_hdf5,
    ".hdf5": _read_hdf5,
    ".zarr": _read_zarr,
    ".wav": _read_wav,
}


def write_recording(recording: Recording, path: str | Path) -> None:
    """Write a recording as .npz, in the signal's own number type; the old file is replaced once the new one is whole.

    Raises
    ------
    DataError : another kind of file
    """
    path = Path(path)
    if path.suffix != ".npz":
        raise DataError(f"{path}: a recording cannot be written as {path.suffix!r}, only as '.npz'")
    about = {key: getattr(recording, key) for key in ABOUT}
    start_time = about.pop("start_time")
    about |= {"start_time": start_time.isoformat()} if start_time else {}
    with replace_file(path) as temporary:
        np.savez(temporary, signal=np.asarray(recording.signal), **about)
