"""Files: recordings in every format are read, and written in some.

What the file of a recording holds, by its ending (channel names and units may be given anew when reading, the rate only
where the file has none):

* ``.npz``: an array ``signal``, and ``sampling_rate_hz``, ``channels``, ``units``, ``start_time`` (ISO 8601); an array
  of times beside it is checked, here and in the other files of arrays
* ``.npy``: the signal, memory-mapped; beside it a ``.json`` with the others
* ``.csv``, ``.tsv``, ``.parquet``: a column for each channel and, if there is one, a uniform time
* ``.h5``, ``.hdf5``, ``.zarr``: a dataset or array ``signal``; the others as attributes, or as arrays beside it
* ``.wav``, ``.flac``, ``.ogg``: signal and rate; integers are scaled to [-1, 1)
* ``.edf``, ``.bdf``, ``.hea`` (WFDB), ``.vhdr`` (BrainVision), ``.mseed``, ``.sac``, ``.tdms``, ``.xdf``, ``.mat``:
  what these formats say of rate, channels, units and start (`evlib.signals.formats`)
"""

import glob
import inspect
import json
import math
import os
import warnings
from collections import ChainMap
from datetime import datetime
from pathlib import Path

import numpy as np

from .atomic import replace_file, replace_folder
from .errors import (
    DataError,
    EvlibError,
    MissingExtraError,
    OptionError,
    UnitError,
    path_of,
    require_extra,
    require_instance,
    require_rate,
)
from .formats import RATE_NAMES, READERS, open_hdf5, own_arrays
from .recording import BLOCK_SAMPLES, Recording, StoredSignal, numbered
from .tables import about_preamble, read_table
from .times import by_stamps, by_times_beside, choose_time, is_time, refuse_unnamed_clock, require_time_unit, start_of
from .units import unit_in_brackets

# Codecs that only unpack numbers.
CODECS = ("blosc", "zstd", "gzip", "zlib", "lz4", "bz2", "lzma", "delta", "shuffle", "transpose", "crc32c", "sharding")
# A Parquet file packs equal values tightly; one that promises more than these is damaged, or meant to fill the memory.
MOST_VALUES, VALUES_PER_BYTE = 10**8, 100
ABOUT = ("sampling_rate_hz", "channels", "units", "start_time")
# Samples that a Zarr store packs and checks together (8 s at 2000 Hz); BLOCK_SAMPLES stand in one file.
CHUNK_SAMPLES = 2**14


def read_recording(
    path: str | Path,
    sampling_rate_hz: float | None = None,
    channels=None,
    units=None,
    sep: str | None = None,
    decimal: str | None = None,
    skip_rows: int | None = None,
    time_column: str | None = None,
    time_unit: str | None = None,
    regrid: bool = False,
    stream: str | None = None,
) -> Recording:
    """Read a recording from a file; the top of `evlib.signals.files` says what each kind of file holds.

    Parameters
    ----------
    path : .npz, .npy, .csv, .tsv, .parquet, .h5, .hdf5, .zarr; of other tools .wav, .flac, .ogg, .edf, .bdf, .hea (of a
        WFDB record), .vhdr, .mseed, .sac, .tdms, .xdf, .mat
    sampling_rate_hz : needed where the file does not hold it; refused where the file holds another one
    channels, units : used instead of those in the file
    sep : separator of a text table; without it a tab, a semicolon or a comma, whichever fits all lines
    decimal : "." or "," in the numbers of a text table; without it a comma where only that fits
    skip_rows : lines of a text table before the line of names; without it they are found
    time_column : column of a table, or array beside the signal, that is the time, where its name does not tell
    time_unit : unit of the numbers in it: "s", "ms", "us", "ns", "min", "h", "d", or "samples" for a counter
    regrid : interpolate the rows onto a uniform clock; gaps become NaN, and a warning says what moved
    stream : of a file that holds several streams, rates, groups or arrays, the name of the one that is read

    Raises
    ------
    DataError : the file is missing, truncated, of an unknown kind, holds Python objects, or its time column is not
        uniform
    UnitError : no rate, or one that contradicts the file's; stamps whose unit is not clear
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
    path = path_of(path)
    kind = path.suffix.lower()
    if kind not in FORMATS:
        known = f"a recording can be read from {', '.join(FORMATS)}"
        raise DataError(f"{path}: unknown kind of file {kind!r}{_likely(path)}; {known}")
    if not path.exists():
        raise DataError(f"no recording at {path}{_likely(path)}")
    given = None if sampling_rate_hz is None else require_rate(sampling_rate_hz)
    options: dict = {"sep": sep, "decimal": decimal, "skip_rows": skip_rows, "time_column": time_column}
    options |= {"time_unit": time_unit, "regrid": regrid or None, "stream": stream}
    options = {name: value for name, value in options.items() if value is not None}
    unfit = sorted(set(options) - set(inspect.signature(FORMATS[kind]).parameters))
    if unfit:
        raise OptionError(f"{path}: {', '.join(unfit)} cannot be chosen for {kind} files")
    try:
        signal, *sources = FORMATS[kind](path, given, **options)
        about = ChainMap(*sources)  # of several places, the first that names the rate, channels or units
        rate = _agreed_rate(given, _stored_rate(about))
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


def _stored_rate(about):
    """The rate that a file tells, by one of its usual names; None where it does not."""
    names = [name for name in RATE_NAMES if name in about]
    usual = [name for name in names if name == ABOUT[0] or math.prod(getattr(about[name], "shape", ())) == 1]
    return about[usual[0]] if usual else None


def _likely(path):
    """What may be meant by a path that is no recording: a file in that folder or of that name, or labels."""
    name = path.stem if path.suffix.lower() in FORMATS or path.is_file() else path.name
    places = path.iterdir() if path.is_dir() else path.parent.glob(glob.escape(name) + ".*")
    near = sorted(str(place) for place in places if place.suffix.lower() in FORMATS and place != path)
    if near:
        return f" (did you mean {', '.join(near[:3])}{', ...' if len(near) > 3 else ''}?)"
    return " (labels? they come after their recording)" if path.suffix.lower() in LABELS else ""


def _agreed_rate(given, stored):
    if stored is None and given is None:
        raise UnitError("the file does not tell its sampling rate; pass sampling_rate_hz=")
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


def _read_npz(path, given, time_column=None, time_unit=None, regrid=False):
    with np.load(path, allow_pickle=False) as arrays:
        signal = _plain(arrays, "signal")
        about = {key: _plain(arrays, key) for key in (*ABOUT, *RATE_NAMES) if key in arrays}
        beside = {key: _plain(arrays, key) for key in arrays if key == time_column or is_time(key)}
    return _timed(signal, (about,), beside, given, time_column, time_unit, regrid)


def _plain(arrays, name):
    """An array of numbers or texts; one of Python objects is not unpacked."""
    if name == "signal":
        _signal_of(dict.fromkeys(arrays))
    try:
        return arrays[name]
    except ValueError as error:
        if "allow_pickle" not in str(error):
            raise
        raise DataError(
            f"its array {name!r} holds Python objects, which are not read: store numbers or texts"
        ) from None


def _read_npy(path, given):
    sidecar = path.with_suffix(".json")
    about = json.loads(sidecar.read_text(encoding="utf-8")) if sidecar.exists() else {}
    if not isinstance(about, dict):
        raise DataError(f"{sidecar.name} must hold an object with {', '.join(ABOUT)}")
    return np.load(path, mmap_mode="r", allow_pickle=False), about


def _read_csv(path, given, sep=None, decimal=None, skip_rows=None, time_column=None, time_unit=None, regrid=False):
    table = read_table(path, sep, decimal, skip_rows)
    return _from_table(table.frame, given, time_column, time_unit, regrid, table.preamble)


def _read_parquet(path, given, time_column=None, time_unit=None, regrid=False):
    require_extra("pyarrow", "data")
    import pandas as pd
    from pyarrow.parquet import read_metadata

    n_rows, n_columns = (said := read_metadata(path)).num_rows, said.num_columns
    if n_rows * n_columns > MOST_VALUES + VALUES_PER_BYTE * path.stat().st_size:
        raise DataError(f"its header promises {n_rows} rows of {n_columns} columns, far more than such a file can hold")
    frame = pd.read_parquet(path, engine="pyarrow")
    index = frame.index
    if isinstance(index, pd.MultiIndex):
        raise DataError(f"the table has an index of several levels, {list(index.names)}; store it by reset_index()")
    stamps = isinstance(index, pd.DatetimeIndex | pd.TimedeltaIndex) or index.dtype.kind == "f"
    if stamps or (index.name is not None and (index.name == time_column or is_time(index.name))):
        frame = frame.rename_axis("time" if index.name is None else str(index.name)).reset_index()
        time_column = time_column or str(frame.columns[0])
    elif index.dtype.kind in "iu" and len(index) > 1 and (np.diff(index.to_numpy()) != 1).any():
        raise DataError("the numbers of the rows (the index of the table) have gaps: store the time as a column")
    return _from_table(frame, given, time_column, time_unit, regrid)


def _from_table(frame, given, time_column, time_unit, regrid, preamble=()):
    """Signal, and what a table says of it: a column for each channel and, if it is there, one for the time."""
    require_time_unit(time_unit)
    frame.columns = names = [str(name).strip() for name in frame.columns]
    if len(set(names)) < len(names):
        raise DataError(f"names of columns must differ from each other, got {names}")
    time = choose_time(frame, time_column)
    if time is None and (regrid or time_unit):
        raise OptionError(f"no column of {names} is the time; pass time_column=")
    if {"onset", "trial_type"} <= set(names):
        raise DataError("it is a table of events, not a recording (labels come after their recording)")
    others = [name for name in names if name != time and is_time(name)]
    channels = [name for name in names if name != time and name not in others]
    for name in channels:
        _require_numbers(frame[name], name)
    about = about_preamble(preamble) | {"channels": channels}
    units = [unit_in_brackets(name) for name in channels]
    about |= {"units": units} if any(units) else {}
    signal = frame[channels].to_numpy()
    if time is None:
        refuse_unnamed_clock(frame[channels], given or about.get("sampling_rate_hz"))
        return signal, about
    given = given or (about.get("sampling_rate_hz") if regrid else None)
    signal, clock = by_stamps(frame[time], time, signal, given, time_unit, regrid)
    starts = [start for name in others if (start := start_of(frame[name], name))]
    return signal, clock, {"start_time": starts[0]} if starts else {}, about


def _require_numbers(column, name):
    import pandas as pd

    if getattr(column.dtype, "kind", "O") in "iufb":
        return
    if not len(column):
        raise DataError("the table has no rows")
    bad = int(np.argmax(pd.to_numeric(column, errors="coerce").isna() & column.notna()))
    raise DataError(
        f"column {name!r}, row {bad + 1}: {column.iloc[bad]!r} is not a number (see sep=, decimal=, skip_rows=)"
    )


def _read_hdf5(path, given, time_column=None, time_unit=None, regrid=False):
    h5py = require_extra("h5py", "data")
    file = open_hdf5(path)
    if not isinstance(file.get("signal", getlink=True), h5py.HardLink | None):
        raise DataError("its 'signal' is a link to another place, which is not followed: copy the data into the file")
    signal = _signal_of(file)
    if isinstance(signal, h5py.Dataset) and (signal.is_virtual or signal.external):
        raise DataError("its 'signal' is stored in other files, which are not read: copy the data into the file")
    own = own_arrays(file)
    about = signal.attrs, file.attrs, own
    return _timed(signal, about, own, given, time_column, time_unit, regrid)


def _read_zarr(path, given, time_column=None, time_unit=None, regrid=False):
    zarr = require_extra("zarr", "scale")
    for folder, folders, names in os.walk(path):
        for name in folders + names:
            if os.path.islink(os.path.join(folder, name)):
                raise DataError(f"{name!r} in it is a link, which is not followed: copy the data into the folder")
    node = zarr.open(path, mode="r")
    signal = node if hasattr(node, "shape") else _signal_of(node)
    codecs = [*(signal.compressors or ()), *(signal.filters or ())]
    for codec in codecs:
        name = getattr(codec, "codec_id", type(codec).__name__.removesuffix("Codec").lower())
        if name not in CODECS:
            raise DataError(f"it is packed with {name!r}, which is not read; use one of {', '.join(CODECS)}")
    beside = {} if node is signal else dict(node.arrays())
    return _timed(signal, (signal.attrs, node.attrs, beside), beside, given, time_column, time_unit, regrid)


def _timed(signal, about, beside, given, *options):
    """What a reader of arrays returns: an array of times ``beside`` the signal is its clock."""
    stored = _stored_rate(ChainMap(*about)) if given is None else given
    rate = None if stored is None else require_rate(np.asarray(stored).item())
    signal, clock = by_times_beside(signal, beside, rate, *options)
    return signal, clock, *about


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
    **READERS,
}


def write_recording(recording: Recording, path: str | Path) -> None:
    """Write a recording; the old file is replaced once the new one is whole.

    ``.npz`` keeps everything, in the signal's own number type; ``.h5`` and ``.zarr`` too, block by block, so that the
    signal may be larger than memory. ``.zarr`` is compressed, and has checksums: a bit that is not as it was written is
    an error when it is read, a file that is lost a gap. ``.csv``, ``.tsv`` and ``.parquet`` get a column ``time`` in
    seconds, ``.wav`` numbers of 32 bits and ``.edf`` of 16: a warning says what a format loses.

    Raises
    ------
    DataError : another kind of file, or a recording that the format cannot hold
    """
    require_instance(Recording, "write_recording(recording, path)", recording=recording)
    path = path_of(path)
    if path.suffix.lower() not in WRITERS:
        raise DataError(f"{path}: a recording cannot be written as {path.suffix!r}, only as {', '.join(WRITERS)}")
    write, lost = WRITERS[path.suffix.lower()]
    if any(path.iterdir()) if path.is_dir() else path.is_file() and path.stat().st_size:
        _require_recording(path)
    if lost := [name for name in lost if _says(recording, name)]:
        warnings.warn(f"{path.name}: {path.suffix} files do not hold {', '.join(lost)}", stacklevel=2)
    with (replace_folder if write is _write_zarr else replace_file)(path) as temporary:
        write(recording, temporary)


def _require_recording(path):
    """Refuse to write over what is no recording, or holds something beside it: a slip would lose it."""
    found, kind = [], path.suffix.lower()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            read_recording(path)
            if kind == ".npz":
                found = list(np.load(path))
            elif kind == ".h5":
                with open_hdf5(path) as file:
                    found = list(file)
            elif kind == ".zarr":
                found = sorted({place.name for place in path.iterdir()} - {"zarr.json", "c"})
            elif kind == ".edf":
                found = ["annotations"] * bool(require_extra("edfio", "formats").read_edf(path).annotations)
    except EvlibError as error:
        raise DataError(
            f"{path} is there already and no recording: choose another name, or remove it ({error})"
        ) from None
    if more := sorted(set(found) - {"signal", *ABOUT}):
        raise DataError(f"{path} is there already and holds {', '.join(more)} too: choose another name, or remove it")


def _says(recording, name):
    """Whether a recording has something to say of channels, units or its start."""
    return {"channels": recording.channels != numbered(recording.n_channels), "units": any(recording.units)}.get(
        name, recording.start_time is not None
    )


def _about(recording):
    start_time = recording.start_time
    about = {"sampling_rate_hz": recording.sampling_rate_hz, "channels": recording.channels, "units": recording.units}
    return about | ({"start_time": start_time.isoformat()} if start_time else {})


def _write_npz(recording, path):
    np.savez(path, signal=np.asarray(recording.signal), **_about(recording))


def _write_hdf5(recording, path):
    try:
        with require_extra("h5py", "data").File(path, "w") as file:
            signal = file.create_dataset("signal", recording.shape, recording.signal.dtype)
            _fill(signal, recording)
            signal.attrs.update(_about(recording))
    except RuntimeError as error:  # of a full disk, when the file is closed
        raise OSError(error) from error


def _write_zarr(recording, path):
    zarr, codecs = require_extra("zarr", "scale"), require_extra("zarr.codecs", "scale")
    (n_samples, n_channels), dtype = recording.shape, recording.signal.dtype
    signal = zarr.create_array(
        path,
        shape=(n_samples, n_channels),
        dtype=dtype,
        chunks=(CHUNK_SAMPLES, n_channels),
        shards=(BLOCK_SAMPLES, n_channels),
        compressors=[codecs.ZstdCodec(), codecs.Crc32cCodec()],
        fill_value=np.nan if dtype.kind == "f" else 0,
        attributes=_about(recording),
        zarr_format=3,
        overwrite=True,
    )
    _fill(signal, recording)


def _fill(stored, recording):
    """Copy the signal of a recording into an array on disk, block by block."""
    for start in range(0, recording.n_samples, BLOCK_SAMPLES):
        stop = min(start + BLOCK_SAMPLES, recording.n_samples)
        stored[start:stop] = np.asarray(recording.signal[start:stop])


def _write_table(recording, path):
    import pandas as pd

    frame = pd.DataFrame(np.asarray(recording.signal), columns=list(recording.channels))
    frame.insert(0, "time", np.arange(recording.n_samples) / recording.sampling_rate_hz)
    if path.suffix == ".parquet":
        require_extra("pyarrow", "data")
        frame.to_parquet(path, index=False)
    else:
        frame.to_csv(path, sep="," if path.suffix == ".csv" else "\t", index=False, lineterminator="\n")


def _write_wav(recording, path):
    from scipy.io import wavfile

    rate = round(recording.sampling_rate_hz)
    if rate != recording.sampling_rate_hz:
        raise DataError(f"a WAV file holds a whole rate, not {recording.sampling_rate_hz:g} Hz; resample({rate}) first")
    wavfile.write(path, rate, recording.read())


def _write_edf(recording, path):
    edfio, signal = require_extra("edfio", "formats"), recording.read(dtype=np.float64)
    if not np.isfinite(signal).all():
        raise DataError("an EDF file cannot hold missing values; split_at_gaps first")
    names = zip(recording.channels, recording.units, signal.T, strict=True)
    rate, start = recording.sampling_rate_hz, recording.start_time
    signals = [edfio.EdfSignal(x.copy(), rate, label=name, physical_dimension=unit) for name, unit, x in names]
    file = edfio.Edf(signals)
    if start is not None:
        file.startdate, file.starttime = start.date(), start.time().replace(tzinfo=None)
    file.write(path)


# Ending of a file -> how it is written, and what it does not hold.
WRITERS: dict = {
    ".npz": (_write_npz, ()),
    ".h5": (_write_hdf5, ()),
    ".zarr": (_write_zarr, ()),
    ".csv": (_write_table, ("units", "start_time")),
    ".tsv": (_write_table, ("units", "start_time")),
    ".parquet": (_write_table, ("units", "start_time")),
    ".wav": (_write_wav, ("channels", "units", "start_time")),
    ".edf": (_write_edf, ()),
}
# Endings that labels have too, and those that only labels have.
LABELS_TOO = (".csv", ".tsv", ".edf")
LABELS = (".txt", ".eaf", ".textgrid", ".atr", ".qrs", ".ann", ".ecg", ".qml", ".quakeml", ".xml", ".lowndes")
