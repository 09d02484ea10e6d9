"""Recordings in the formats of other tools, each by the library that knows it (extra ``formats``).

A reader is a function of a path, of the rate that was passed or None, and, where a file holds several streams, of the
name of one. It returns the signal (n_samples, n_channels) and a mapping that may hold rate, channels, units and start
time. Gaps are NaN. What a file holds of several rates or streams is not mixed: the error lists them.
"""

import datetime
import io
import mmap
import os
import struct
import warnings
import zlib

import numpy as np

from .errors import DataError, OptionError, require, require_extra
from .paths import path_inside
from .recording import StoredSignal
from .times import by_times_beside, is_time

# Names that a file may give its sampling rate.
RATE_NAMES = ("sampling_rate_hz", "sampling_rate", "fs", "Fs", "FS", "sfreq", "srate", "rate")
# A program that does not know the length of a WAV file yet writes 0 or this much and more.
UNKNOWN_SIZE = 0x7FFF0000
# A packed element of a MATLAB 5 file may hold so many bytes, and 100 times its own: noise packs less, zeros more.
UNPACKED = 10**8
# Types of elements of a MATLAB 5 file: numbers, texts, arrays (made of elements) and packed elements.
MATLAB_KINDS, MATLAB_MATRIX, MATLAB_PACKED = {*range(1, 8), 9, *range(12, 19)}, 14, 15
# The heaps of an HDF5 file are looked for in so many bytes at its begin and end, where texts about its arrays lie.
HEAPS_WITHIN = 2**26
# Most bytes of a page of an Ogg file, and the bit in its header that says that it is the last.
OGG_PAGE, LAST_PAGE = 65_307, 4
# Bytes of a sample in the formats of WFDB that do not pack several into one number.
WFDB_BYTES = {"8": 1, "16": 2, "24": 3, "32": 4, "61": 2, "80": 1, "160": 2, "212": 1.5}
# A stream that says nothing for so many seconds, and so many samples, has paused.
PAUSE_S, PAUSE_SAMPLES = 0.1, 5
# Channels that begin at times this many samples apart, beyond whole samples, are not on one clock.
SAME_CLOCK = 0.25


def read_wav(path, given=None):
    """RIFF or RF64: the chunk with the samples decides how many there are, whatever the header says."""
    size = path.stat().st_size
    with open(path, "rb") as file:
        head = file.read(12)
        if len(head) < 12 or head[:4] not in (b"RIFF", b"RF64", b"RIFX") or head[8:] != b"WAVE":
            raise DataError("it does not begin like a WAV file")
        order = ">" if head[:4] == b"RIFX" else "<"
        layout, long_size = None, None
        while len(chunk := file.read(8)) == 8:
            name, length = chunk[:4], struct.unpack(order + "I", chunk[4:])[0]
            if name == b"ds64":
                long_size = struct.unpack(order + "8xQ", file.read(16))[0]
                length -= 16
            elif name == b"fmt ":
                layout = _wav_layout(file.read(length), order)
                length = 0
            elif name == b"data":
                break
            file.seek(length + length % 2, 1)
        else:
            raise DataError("there are no samples in it (no chunk named 'data'; cut off?)")
        if layout is None:
            raise DataError("there is no chunk named 'fmt ' before the samples")
        start, left = file.tell(), size - file.tell()
    rate, n_channels, dtype, width = layout
    length = long_size if long_size is not None and length == 0xFFFFFFFF else length
    if length == 0 < left or length > max(left, UNKNOWN_SIZE):
        warnings.warn(f"{path.name}: the header does not tell its length; read to the end of the file", stacklevel=3)
        length = left
    if length > left:
        raise DataError(f"truncated: {length} bytes of samples were announced, {left} are there")
    if length % (n_channels * width):
        warnings.warn(f"{path.name}: the last sample is cut off and left out", stacklevel=3)
    if behind := _behind(path, start + length + length % 2, order):
        warnings.warn(
            f"{path.name}: {behind} bytes behind the announced samples are no chunks and left out; if they are samples "
            "too (a recorder that did not finish its header), sox --ignore-length IN OUT saves them",
            stacklevel=3,
        )
    elif struct.unpack(order + "I", head[4:8])[0] not in (size - 8, 0xFFFFFFFF) and head[:4] != b"RF64":
        warnings.warn(f"{path.name}: the header tells another length than the file has", stacklevel=3)
    n = length // (n_channels * width)
    if n == 0:
        raise DataError("there are no samples in it")
    if width == 3:
        raw = np.fromfile(path, np.uint8, n * n_channels * 3, offset=start).reshape(n, n_channels, 3)
        wide = np.zeros((n, n_channels, 4), np.uint8)
        wide[..., 1:] = raw if order == "<" else raw[..., ::-1]
        signal = wide.view("<i4")[..., 0]
    else:
        signal = np.memmap(path, dtype, "r", start, (n, n_channels))
    if signal.dtype.kind != "f":
        half = 2 ** (8 * signal.dtype.itemsize - 1)
        signal = StoredSignal(signal, offset=half if signal.dtype.kind == "u" else 0, gain=1 / half)
    return signal, {"sampling_rate_hz": rate}


def _behind(path, start, order):
    """How many bytes from ``start`` on are not chunks."""
    with open(path, "rb") as file:
        left = file.seek(0, io.SEEK_END) - start
        while left >= 8:
            file.seek(-left, io.SEEK_END)
            name, length = struct.unpack(order + "4sI", file.read(8))
            length += 8 + length % 2
            if not (name.isascii() and name.decode().isprintable()) or name == b"data" or length > left + 1:
                return left
            left -= length
    return left if left > 1 else 0


def _wav_layout(chunk, order):
    """Rate, number of channels, type of the numbers, bytes of each; of samples that are not compressed."""
    if len(chunk) < 16:
        raise DataError("its chunk named 'fmt ' is cut off")
    code, n_channels, rate, _, align, bits = struct.unpack(order + "HHIIHH", chunk[:16])
    if code == 0xFFFE and len(chunk) >= 26:
        code = struct.unpack(order + "H", chunk[24:26])[0]
    width = align // max(n_channels, 1)
    kinds = {(1, 1): "u1", (1, 2): "i2", (1, 3): "i4", (1, 4): "i4", (1, 8): "i8", (3, 4): "f4", (3, 8): "f8"}
    if n_channels == 0 or align % n_channels or (code, width) not in kinds:
        raise DataError(
            f"samples of kind {code} with {bits} bits in {width} bytes, {n_channels} channels, are not read; write "
            "plain ones (sox IN -e signed -b 16 OUT)"
        )
    return rate, n_channels, np.dtype(order + kinds[code, width]), width


def read_sound(path, given=None):
    """FLAC and Ogg."""
    soundfile = require_extra("soundfile", "formats")
    if soundfile.info(str(path)).frames > 10_000 * path.stat().st_size:
        raise DataError(
            "its header does not tell its length (recorded through a pipe?), which is needed; write it anew, by "
            "flac --decode, sox or ffmpeg"
        )
    signal, rate = soundfile.read(path, dtype="float32", always_2d=True)
    if path.suffix.lower() == ".ogg":
        with path.open("rb") as file:
            file.seek(-min(path.stat().st_size, OGG_PAGE), os.SEEK_END)
            page = file.read().rpartition(b"OggS")[2]
        sizes = page[23 : 23 + page[22]] if len(page) > 22 else b""
        if not page[1:2] or not page[1] & LAST_PAGE or len(page) < 23 + len(sizes) + sum(sizes):
            raise DataError("truncated: its last page is missing")
    return signal, {"sampling_rate_hz": rate}


def read_edf(path, given=None, stream=None):
    """EDF, EDF+ and BDF; annotations are events (`evlib.read_events`)."""
    edfio = require_extra("edfio", "formats")
    file = (edfio.read_bdf if path.suffix.lower() == ".bdf" else edfio.read_edf)(path)
    signals = [(s.label, s.sampling_frequency, s) for s in file.signals]
    chosen = _of_one_rate(signals, stream)
    try:
        start = datetime.datetime.combine(file.startdate, file.starttime)
    except Exception:  # an anonymised date
        start = None
    about = {"sampling_rate_hz": chosen[0].sampling_frequency, "channels": _unique([s.label for s in chosen])}
    about |= {"units": [s.physical_dimension.strip() for s in chosen], "start_time": start}
    return _with_pauses(file, np.stack([s.data for s in chosen], axis=1), about["sampling_rate_hz"]), about


def _with_pauses(file, signal, rate):
    """The signal (n, C) of an EDF+ file with NaN where its data records say that it paused (EDF+D)."""
    if file.is_continuous:
        return signal
    from edfio.edf import _get_data_record_onset

    clock = file._timekeeping_signal
    records = clock.digital.reshape(-1, clock._bytes_per_data_record)
    at = np.array([float(_get_data_record_onset(record)) for record in records])
    first, length = np.rint((at - at[0]) * rate).astype(np.int64), len(signal) // len(at)
    n = int(first.max()) + length
    if (np.diff(first) < length).any() or n > 10 * len(signal) + 1e7:
        raise DataError("its data records overlap, or lie far apart: split it (EDFbrowser: convert EDF+D to EDF+C)")
    out = np.full((n, signal.shape[1]), np.nan)
    for start, block in zip(first, np.split(signal, len(at)), strict=True):
        out[start : start + length] = block
    return out


def _of_one_rate(signals, stream):
    """The signals (label, rate, signal) of one rate, of a label if ``stream`` is one; an error lists what there is."""
    if stream is not None:
        signals = [s for s in signals if stream in (s[0], f"{s[1]:g} Hz")] or _refuse_stream(
            stream, [s[0] for s in signals] + sorted({f"{s[1]:g} Hz" for s in signals})
        )
    if not signals:
        raise DataError("there is no signal in it")
    rates = {rate for _, rate, _ in signals}
    if len(rates) > 1:
        listed = "; ".join(f"{rate:g} Hz: {', '.join(n for n, r, _ in signals if r == rate)}" for rate in sorted(rates))
        raise DataError(f'its signals have several rates: {listed}. Choose by stream="{max(rates):g} Hz" or by a name')
    return [signal for _, _, signal in signals]


def _refuse_stream(stream, known):
    raise OptionError(f"there is no stream {stream!r}; there are {', '.join(map(repr, dict.fromkeys(known)))}")


def _unique(names):
    """Names that differ from each other."""
    names, seen = [str(name).strip() or "ch" for name in names], {}
    for k, name in enumerate(names):
        seen[name] = seen.get(name, 0) + 1
        names[k] = name if seen[name] == 1 else f"{name} {seen[name]}"
    return names


def read_wfdb(path, given=None):
    """WFDB records, by their header ``.hea``; invalid samples are NaN."""
    wfdb = require_extra("wfdb", "formats")
    header = wfdb.rdheader(str(path.with_suffix("")))
    for name in {name for name in getattr(header, "file_name", None) or [] if name}:
        if not path_inside(path.parent, name).exists():
            raise DataError(f"the header names the file {name!r}, which is not there")
    if len(set(getattr(header, "samps_per_frame", None) or [1])) > 1:
        raise DataError("its signals have several rates; split them with the tools of WFDB (xform)")
    record = wfdb.rdrecord(str(path.with_suffix("")))
    if set(record.fmt or []) <= set(WFDB_BYTES):
        stored = sum(WFDB_BYTES[kind] for kind in record.fmt) * record.sig_len
        files = {name: (path.parent / name).stat().st_size for name in record.file_name}
        if (behind := sum(files.values()) - sum(record.byte_offset[0] or 0 for _ in files) - stored) > 1:
            warnings.warn(f"{path.name}: {behind:.0f} bytes behind the announced samples are left out", stacklevel=3)
    about = {"sampling_rate_hz": record.fs, "channels": _unique(record.sig_name), "units": list(record.units)}
    return record.p_signal, about | {"start_time": record.base_datetime}


def read_brainvision(path, given=None):
    """BrainVision, by its header ``.vhdr``; in volts."""
    mne = require_extra("mne", "formats")
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        key, _, name = line.partition("=")
        if key.strip() in ("DataFile", "MarkerFile"):
            path_inside(path.parent, name.strip().replace("$b", path.stem))
    raw = mne.io.read_raw_brainvision(path, preload=True, verbose="error")
    units = [
        unit if not str(unit).endswith("V") else "V" for unit in (raw._orig_units.get(n, "") for n in raw.ch_names)
    ]
    about = {"sampling_rate_hz": raw.info["sfreq"], "channels": raw.ch_names, "units": units}
    return raw.get_data().T, about | {"start_time": raw.info["meas_date"]}


def read_seismic(path, given=None, stream=None):
    """miniSEED and SAC: a channel for each trace, NaN between its parts."""
    obspy = require_extra("obspy", "formats")
    traces = obspy.read(str(path))
    traces = obspy.Stream([trace for trace in traces if len(trace)])
    chosen = _of_one_rate([(trace.id, trace.stats.sampling_rate, trace) for trace in traces], stream)
    rate = chosen[0].stats.sampling_rate
    start = min(trace.stats.starttime for trace in chosen)
    names = list(dict.fromkeys(trace.id for trace in chosen))
    at = np.array([(trace.stats.starttime - start) * rate for trace in chosen])
    if np.abs(at - np.rint(at)).max() > SAME_CLOCK:
        raise DataError("its traces begin at fractions of a sample from each other; interpolate them in obspy first")
    n = int(max(round(first) + len(trace) for first, trace in zip(at, chosen, strict=True)))
    if n * len(names) > 10 * sum(map(len, chosen)) + 1e7:
        raise DataError(f"its traces are spread over {n / rate:g} s and mostly missing; split them in obspy first")
    signal = np.full((n, len(names)), np.nan)
    for first, trace in zip(at, chosen, strict=True):
        data = np.ma.filled(np.ma.asarray(trace.data, dtype=np.float64), np.nan)
        place = signal[round(first) : round(first) + len(data), names.index(trace.id)]
        if twice := int((np.isfinite(place) & (place != data)).sum()):
            warnings.warn(
                f"{trace.id}: {twice} samples are there twice with other values; the later part counts", stacklevel=3
            )
        place[:] = data
    start_time = start.datetime.replace(tzinfo=datetime.UTC)
    return signal, {"sampling_rate_hz": rate, "channels": names, "start_time": start_time}


def read_tdms(path, given=None, stream=None):
    """TDMS: the channels of one group, whose waveform properties tell the rate."""
    nptdms = require_extra("nptdms", "formats")
    # In memory no more can be asked for than there is, whatever lengths a damaged file announces.
    content, size = path.read_bytes(), path.stat().st_size
    with nptdms.TdmsFile.open(io.BytesIO(content)) as opened:  # nothing but the lengths is read
        if (n := sum(len(c) for group in opened.groups() for c in group.channels())) > size:
            raise DataError(f"damaged: {n} samples were announced in {size} bytes")
    file = nptdms.TdmsFile.read(io.BytesIO(content))
    groups = {group.name: [c for c in group.channels() if len(c)] for group in file.groups()}
    groups = {name: channels for name, channels in groups.items() if channels}
    chosen = _one_stream(groups, stream)
    lengths, steps = {len(c) for c in chosen}, {c.properties.get("wf_increment") for c in chosen}
    if len(lengths) > 1 or len(steps) > 1:
        raise DataError(f"its channels differ in length {sorted(lengths)} or rate; pass one group as stream=")
    step, start = steps.pop(), chosen[0].properties.get("wf_start_time")
    about = {"channels": _unique([c.name for c in chosen])} | ({"sampling_rate_hz": 1 / step} if step else {})
    about["units"] = [str(c.properties.get("unit_string", "")) for c in chosen]
    if start is not None:
        about["start_time"] = np.datetime64(start, "us").astype(datetime.datetime).replace(tzinfo=datetime.UTC)
    return np.stack([np.asarray(c[:], dtype=np.float64) for c in chosen], axis=1), about


def _one_stream(streams, stream):
    if stream is None and len(streams) != 1:
        listed = ", ".join(map(repr, streams)) or "none"
        raise DataError(f"it holds {len(streams)} streams, one is read at a time: pass stream=, one of {listed}")
    if stream is not None and stream not in streams:
        _refuse_stream(stream, streams)
    return streams[stream] if stream is not None else next(iter(streams.values()))


def read_xdf(path, given=None, stream=None):
    """XDF: one stream of numbers, on its clock as corrected by the offsets that were recorded; NaN where it paused."""
    pyxdf = require_extra("pyxdf", "formats")
    breaks = {"jitter_break_threshold_seconds": PAUSE_S, "jitter_break_threshold_samples": PAUSE_SAMPLES}
    found, _ = pyxdf.load_xdf(str(path), verbose=False, **breaks)
    streams = {}
    for one in found:
        info = one["info"]
        values = np.asarray(one["time_series"]) if not isinstance(one["time_series"], list) else np.zeros(0)
        if float(info["nominal_srate"][0]) > 0 and values.ndim == 2 and len(values) > 1 and values.dtype.kind in "iuf":
            streams[info["name"][0]] = info, values, np.asarray(one["time_stamps"], dtype=np.float64)
    info, values, stamps = _one_stream(streams, stream)
    rate = float(info["nominal_srate"][0])
    place = (stamps - stamps[0]) * rate
    if (np.diff(place) <= 0).any() or place[-1] > 10 * len(place) + 1e6:
        raise DataError("its time stamps run backwards or over years")
    grid = np.arange(int(np.rint(place[-1])) + 1)
    after = np.clip(np.searchsorted(place, grid), 1, len(place) - 1)
    signal = np.stack([np.interp(grid, place, column) for column in values.T.astype(np.float64)], axis=1)
    signal[place[after] - place[after - 1] > 2.5] = np.nan
    details = ((info.get("desc") or [None])[0] or {}).get("channels") or [None]
    rows = (details[0] or {}).get("channel", []) if isinstance(details[0], dict) else []
    about = {"sampling_rate_hz": rate}
    if len(rows) == values.shape[1]:
        about["channels"] = _unique([(row.get("label") or ["ch"])[0] for row in rows])
        about["units"] = [(row.get("unit") or [""])[0] or "" for row in rows]
    return signal, about


def open_hdf5(path):
    """An HDF5 file, open for reading (extra ``data``)."""
    h5py = require_extra("h5py", "data")
    _require_sound_heaps(path)
    return h5py.File(path, "r")


def _require_sound_heaps(path):
    """Refuse an HDF5 file with an object of size 0 in a heap of texts: the library would step over it for ever.

    A heap (signature GCOL, size) is a row of objects (index, count, size, padded to 8 bytes); in the size of object 0,
    the free space, its header counts. [HDF5 File Format Specification 3.0, III.E]
    """
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        tail = max(HEAPS_WITHIN, len(data) - HEAPS_WITHIN)
        for begin, end in ((0, HEAPS_WITHIN), (tail, len(data))):
            while (begin := data.find(b"GCOL\x01\0\0\0", begin, end)) >= 0:
                stop = begin + 8
                size = int.from_bytes(data[stop : stop + 8], "little")
                at, stop = begin + 16, min(begin + size, len(data))
                while at + 16 <= stop:
                    index, size = struct.unpack_from("<H6xQ", data, at)
                    step = size if index == 0 else 16 + -(-size // 8) * 8
                    require(0 < step <= stop - at, DataError, "damaged: an object of its heap has an impossible size")
                    at += step
                begin += 8


def own_arrays(file) -> dict:
    """The arrays of an HDF5 file that lie in it; links, and arrays that are stored in other files, are left out."""
    import h5py

    names = [name for name in file if isinstance(file.get(name, getlink=True), h5py.HardLink)]
    arrays = {name: node for name in names if isinstance(node := file[name], h5py.Dataset)}
    return {name: node for name, node in arrays.items() if not (node.is_virtual or node.external)}


def _require_sound_matlab(path):
    """Refuse a MATLAB 5 file whose elements do not fit into it: scipy believes what they say of type and size."""
    data = path.read_bytes()
    if data[124:128] not in (b"\x00\x01IM", b"\x01\x00MI"):  # another version
        return
    order, parts = "<" if data[126:128] == b"IM" else ">", [memoryview(data)[128:]]
    while parts:
        part, at = parts.pop(), 0
        while at + 8 <= len(part):
            kind, size = struct.unpack_from(order + "II", part, at)
            short = kind >> 16  # up to four bytes lie in the tag itself
            kind, size, begin = (kind & 0xFFFF, short, at + 4) if short else (kind, size, at + 8)
            if kind not in MATLAB_KINDS or begin + size > len(part) or short > 4:
                raise DataError("damaged: it has an element of an unknown type, or larger than the file")
            inside = part[begin : begin + size]
            if kind == MATLAB_PACKED:
                unpacked = (stream := zlib.decompressobj()).decompress(inside, UNPACKED + 100 * size)
                require(stream.eof, DataError, "damaged: a packed element is cut short, or far too large for its file")
                parts.append(memoryview(unpacked))
            elif kind == MATLAB_MATRIX:
                parts.append(inside)
            at = begin + size if kind == MATLAB_PACKED else at + 8 if short else begin + -(-size // 8) * 8


def read_matlab(path, given=None, stream=None, time_column=None, time_unit=None, regrid=False):
    """MATLAB, versions 5 and 7.3: the array ``signal``, or the one that ``stream`` names, or the only large one."""
    from scipy.io import loadmat

    _require_sound_matlab(path)
    try:
        values = {name: value for name, value in loadmat(path).items() if not name.startswith("__")}
    except NotImplementedError:  # version 7.3 is HDF5, whose arrays are transposed
        with open_hdf5(path) as file:
            kept = own_arrays(file)
            if len(kept) < len(file) and all(node.size == 1 for node in kept.values()):
                raise DataError("its arrays lie in other files, which are not read: copy the data in") from None
            values = {
                name: "".join(map(chr, node[()].ravel())) if node.attrs.get("MATLAB_class") == b"char" else node[()].T
                for name, node in kept.items()
            }
    arrays = {n: v for n, v in values.items() if isinstance(v, np.ndarray) and v.dtype.kind in "iuf" and v.size > 1}
    beside = {n: v.ravel() for n, v in arrays.items() if n == time_column or is_time(n) and max(v.shape) == v.size}
    streams = {n: v for n, v in arrays.items() if n not in beside or n == stream}
    signal = _one_stream(streams, stream or ("signal" if "signal" in arrays else None))
    signal = signal.T if signal.ndim == 2 and signal.shape[0] < signal.shape[1] else signal
    rate = next((float(np.ravel(values[n])[0]) for n in RATE_NAMES if n in values and np.size(values[n]) == 1), None)
    about = {} if rate is None else {"sampling_rate_hz": rate}
    signal, clock = by_times_beside(signal, beside, given or rate, time_column, time_unit, regrid)
    for name in ("channels", "units"):
        texts = [str(np.ravel(text)[0]) for text in np.ravel(values.get(name, []))] if name in values else []
        if len(texts) == (signal.shape[1] if signal.ndim == 2 else 1):
            about[name] = texts
    return signal, clock, about


# Ending of a file -> how it is read.
READERS = {
    ".wav": read_wav,
    ".flac": read_sound,
    ".ogg": read_sound,
    ".edf": read_edf,
    ".bdf": read_edf,
    ".hea": read_wfdb,
    ".vhdr": read_brainvision,
    ".mseed": read_seismic,
    ".sac": read_seismic,
    ".tdms": read_tdms,
    ".xdf": read_xdf,
    ".mat": read_matlab,
}
