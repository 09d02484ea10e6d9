"""Writing files so that nothing is ever half written."""

import contextlib
import json
import os
import tempfile
import warnings
from pathlib import Path

import numpy as np

from .clock import uniform_rate
from .errors import DataError, EvlibError, MissingExtraError, UnitError, require_extra, require_rate
from .recording import BLOCK_SAMPLES, Recording, StoredSignal


@contextlib.contextmanager
def replace_file(path):
    """Give the path of a temporary file beside ``path``; when the block ends well, it takes its place.

    A crash inside of the block leaves the old file as it was.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}.", suffix=path.suffix)
    os.close(handle)
    try:
        yield Path(temporary)
        # mkstemp makes a private file: give it the permissions that a new file would have.
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def replace_folder(path):
    """Give the path of a temporary folder beside ``path``; when the block ends well, it takes its place.

    A folder cannot be swapped in one step: the old one steps aside first, and is removed once the new one stands.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.stem}.") as aside:
        new, old = Path(aside) / "new", Path(aside) / "old"
        new.mkdir()
        yield new
        if path.exists():
            os.replace(path, old)
        try:
            os.replace(new, path)
        except BaseException:
            if old.exists():
                os.replace(old, path)
            raise


# --- Recordings in files: what is read, what is written.


TIME_COLUMNS = ("time", "time_s", "t")


def read_recording(path, sampling_rate_hz=None, channels=None, units=None) -> Recording:
    """Read a recording from a file; the table at the top of this module says what each kind of file holds.

    Parameters
    ----------
    path : .npz, .npy, .csv, .tsv, .parquet, .h5, .hdf5, .wav or .zarr
    sampling_rate_hz : needed where the file does not tell it; refused where the file tells another one
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
    if kind not in READERS:
        raise DataError(f"{path}: unknown kind of file {kind!r}; a recording can be read from {', '.join(READERS)}")
    if not path.exists():
        raise DataError(f"no recording at {path}")
    given = None if sampling_rate_hz is None else require_rate(sampling_rate_hz)
    try:
        signal, known = READERS[kind](path, given)
        rate = _agreed_rate(given, known.get("sampling_rate_hz"))
        channels = known.get("channels") if channels is None else channels
        units = known.get("units", "") if units is None else units
        recording = Recording(signal, rate, channels, units, name=path.stem)
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
        raise UnitError(
            f"the file says {stored:g} Hz, but sampling_rate_hz={given:g} was passed; only Recording.resample "
            "changes a rate"
        )
    return stored


def _text(values):
    """Names as they come from a file: one or many, bytes or str."""
    values = [value.decode() if isinstance(value, bytes) else str(value) for value in np.atleast_1d(values).tolist()]
    return values[0] if len(values) == 1 else tuple(values)


def _known(*sources):
    """Rate, channel names and units out of the first of some mappings that has them."""
    known = {}
    for key in ("sampling_rate_hz", "channels", "units"):
        source = next((source for source in sources if key in source), None)
        if source is not None:
            value = source[key]
            value = value[()] if hasattr(value, "shape") else value
            known[key] = value if key == "sampling_rate_hz" else _text(value)
    return known


def _need_signal(source):
    """``source["signal"]``, or an error that says what there is instead."""
    if "signal" not in source:
        raise DataError(f"there is no array named 'signal', only {sorted(source)}")
    return source["signal"]


def _read_npz(path, given):
    with np.load(path, allow_pickle=False) as arrays:
        return _need_signal(arrays), _known(arrays)


def _read_npy(path, given):
    sidecar = path.with_suffix(".json")
    known = json.loads(sidecar.read_text(encoding="utf-8")) if sidecar.exists() else {}
    if not isinstance(known, dict):
        raise DataError(f"{sidecar.name} must hold an object with sampling_rate_hz, channels, units")
    return np.load(path, mmap_mode="r", allow_pickle=False), _known(known)


def _read_csv(path, given):
    import pandas as pd

    with warnings.catch_warnings():
        # Longer lines than the header would lose values, or shift them by a column.
        warnings.simplefilter("error", pd.errors.ParserWarning)
        separator = "," if path.suffix.lower() == ".csv" else "\t"
        table = pd.read_csv(path, sep=separator, index_col=False, skipinitialspace=True)
    return _from_table(table, given)


def _read_parquet(path, given):
    require_extra("pyarrow", "data")
    import pandas as pd

    return _from_table(pd.read_parquet(path, engine="pyarrow"), given)


def _from_table(table, given):
    """Signal and rate of a table with a column for each channel and, if it is there, one for the time in seconds."""
    import pandas as pd

    names = [str(name).strip() for name in table.columns]
    no_header = pd.to_numeric(pd.Series(names, dtype=object), errors="coerce").notna().any()
    if no_header or any(name.startswith("Unnamed:") for name in names):
        raise DataError(
            f"the first line must name every column, got {names} (no header, an index column, another separator?)"
        )
    for name, column in zip(names, table.columns, strict=True):
        if getattr(table[column].dtype, "kind", "O") not in "iufb":
            bad = int(np.argmax(pd.to_numeric(table[column], errors="coerce").isna() & table[column].notna()))
            raise DataError(f"column {name!r}, row {bad + 1}: {table[column].iloc[bad]!r} is not a number")
    is_time = np.array([name.lower() in TIME_COLUMNS for name in names])
    if is_time.sum() > 1:
        raise DataError(f"only one column can be the time, got {names}")
    known = {"channels": [name for name in names if name.lower() not in TIME_COLUMNS]}
    if is_time.any():
        known["sampling_rate_hz"] = uniform_rate(table.loc[:, is_time].to_numpy(np.float64)[:, 0], given)
    return table.loc[:, ~is_time].to_numpy(), known


def _read_hdf5(path, given):
    file = require_extra("h5py", "data").File(path, "r")
    signal = _need_signal(file)
    return signal, _known(signal.attrs, file.attrs, file)


def _read_zarr(path, given):
    node = require_extra("zarr", "scale").open(path, mode="r")
    is_array = hasattr(node, "shape")
    signal = node if is_array else _need_signal(node)
    return signal, _known(signal.attrs, node.attrs, {} if is_array else node)


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
    if signal.dtype.kind == "f":
        return signal, {"sampling_rate_hz": rate}
    half = 2 ** (8 * signal.dtype.itemsize - 1)
    return StoredSignal(signal, offset=half if signal.dtype.kind == "u" else 0, gain=1 / half), {
        "sampling_rate_hz": rate
    }


READERS = {
    ".npz": _read_npz,
    ".npy": _read_npy,
    ".csv": _read_csv,
    ".tsv": _read_csv,
    ".parquet": _read_parquet,
    ".h5": _read_hdf5,
    ".hdf5": _read_hdf5,
    ".wav": _read_wav,
    ".zarr": _read_zarr,
}


def write_recording(recording, path):
    """Write a recording as .npz, .npy (with its .json), .h5, .zarr or .wav, in the signal's own number type.

    The old file is replaced only once the new one is whole. A .wav holds float32, needs a rate of whole Hz and
    keeps neither channel names nor units.

    Raises
    ------
    DataError, UnitError, MissingExtraError : another kind of file, a .wav at a rate that is not whole, a package is
        missing
    """
    path = Path(path)
    kind = path.suffix.lower()
    channels, units = list(recording.channels), list(recording.units)
    about = {"sampling_rate_hz": recording.sampling_rate_hz, "channels": channels, "units": units}
    layout = {"shape": recording.shape, "dtype": np.dtype(recording.signal.dtype)}
    chunks = (min(recording.n_samples, 2**15), recording.n_channels)
    if kind == ".npz":
        with replace_file(path) as temporary:
            np.savez(temporary, signal=np.asarray(recording.signal), **about)
    elif kind == ".npy":
        with contextlib.ExitStack() as both:
            sidecar = both.enter_context(replace_file(path.with_suffix(".json")))
            temporary = both.enter_context(replace_file(path))
            sidecar.write_text(json.dumps(about, indent=1), encoding="utf-8")
            _copy(recording, np.lib.format.open_memmap(temporary, mode="w+", **layout))
    elif kind in (".h5", ".hdf5"):
        h5py = require_extra("h5py", "data")
        with replace_file(path) as temporary, h5py.File(temporary, "w") as file:
            stored = file.create_dataset("signal", chunks=chunks, **layout)
            _copy(recording, stored)
            stored.attrs.update(about)
    elif kind == ".zarr":
        zarr = require_extra("zarr", "scale")
        with replace_folder(path) as temporary:
            stored = zarr.create_array(temporary, chunks=chunks, **layout)
            _copy(recording, stored)
            stored.attrs.update(about)
    elif kind == ".wav":
        from scipy.io import wavfile

        if recording.sampling_rate_hz % 1:
            raise UnitError(
                f"a .wav file needs a rate of whole Hz, got {recording.sampling_rate_hz}; write .npy or .npz"
            )
        with replace_file(path) as temporary:
            wavfile.write(temporary, int(recording.sampling_rate_hz), recording.read())
    else:
        raise DataError(f"{path}: a recording cannot be written as {kind!r}; known are .npz, .npy, .h5, .zarr, .wav")


def _copy(recording, target):
    """Copy block by block, so that a signal larger than memory can be written."""
    for start in range(0, recording.n_samples, BLOCK_SAMPLES):
        target[start : start + BLOCK_SAMPLES] = recording.signal[start : start + BLOCK_SAMPLES]
