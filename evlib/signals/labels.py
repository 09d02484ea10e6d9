"""Labels of other programs: event tables in every format are read and written.

A format is known by its name or by the ending of a file; ``.txt`` is told by what stands in it. Every format names the
type of an event by a text and its time in seconds; `write_events` warns of what a format cannot hold, and reads what it
wrote to see that it is the same.
"""

import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from . import events as bids
from .atomic import replace_file
from .errors import DataError, EvlibError, OptionError, path_of, require_choice, require_extra, require_instance, warn
from .events import SPAN_TYPE, Events
from .files import FORMATS as RECORDINGS

# Larger files of labels, in bytes, are something else.
MOST_BYTES = 200_000_000
# The type of a label without a text.
UNNAMED = "label"
# Columns in which Raven's users name what they select.
RAVEN_TYPES = ("Annotation", "annotation", "Species", "species", "Label", "label", "Type", "type", "Call Type", "Tags")
BELLS = "1234567890ETABCD"
# Where MNE's dates begin if none is known.
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
NUMBER = re.compile(r"[+-]?([0-9]+[.,]?[0-9]*|[.,][0-9]+)([eE][+-]?[0-9]+)?")


@dataclass(frozen=True)
class LabelFormat:
    """How labels are read, (path, options) -> table, and written, (table, path, options).

    ``lacks`` : what it cannot hold: scores, durations, sampling rate, labelled spans, fractions of a sample
    ``step_s`` : what times are rounded to
    """

    read: Callable
    write: Callable
    endings: tuple
    lacks: tuple = ("scores", "sampling rate")
    step_s: float = 0.0


def read_events(
    path: str | Path,
    sampling_rate_hz: float | None = None,
    names=None,
    format: str | None = None,
    type_column: str | None = None,
    start_time: str | None = None,
) -> Events:
    """Read labels: a BIDS ``events.tsv``, or a file of another program (`evlib.signals.labels.FORMATS`).

    Parameters
    ----------
    path : for "bids" a table with the columns ``onset`` (seconds) and ``trial_type``; ``score``, ``sigma_s`` and
        ``sampling_rate_hz`` are read where they stand
    sampling_rate_hz : put the events on this clock; without it the file's own, or else microseconds
        (every function of evlib moves events to the clock of the recording they are used with)
    names : the event names to index into; without it those in the file, sorted
    format : audacity, bids, edf, elan, lowndes, mne, quakeml, raven, textgrid or wfdb; default: by the file
    type_column : where the types stand, if not in the usual place: a column of Raven, ``tier`` (ELAN, Praat),
        ``aux_note`` (WFDB)
    start_time : ISO date and time, UTC unless it says otherwise, of the first sample, for files with dates

    Raises
    ------
    DataError : the file is missing, damaged, of an unknown kind, or holds times that are no numbers
    OptionError : a name in the file is not among ``names``, an unknown format or column
    MissingExtraError : the format needs an optional package

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "labels.txt"
    >>> _ = path.write_text("1.5\\t1.5\\tbell\\n2.25\\t2.5\\tclap\\n")
    >>> read_events(path, sampling_rate_hz=2000).type_names
    ['bell', 'clap']
    """
    path = path_of(path)
    if not path.is_file():
        raise DataError(f"no event table at {path}")
    name = format_of(path, format, reading=True)
    if name == "bids":
        return bids.read_events(path, sampling_rate_hz, names, type_column or "trial_type")
    table = _read(name, path, {"rate": sampling_rate_hz, "type_column": type_column, "start": _start(start_time)})
    try:
        events = bids.events_of(table, names)
    except EvlibError as error:
        raise type(error)(f"{path}: {error}") from error
    return events if sampling_rate_hz is None else events.at_rate(sampling_rate_hz)


def write_events(events: Events, path: str | Path, format: str | None = None, start_time: str | None = None) -> None:
    """Write labels: a BIDS ``events.tsv``, or a file for another program; it is replaced once the new one is whole.

    What is written is read again first. Scores, the sampling rate, fractions and times finer than a format's are lost
    with a warning; labelled spans are not lost, as without them everything would count as labelled.

    Parameters
    ----------
    format : as in `read_events`; default: by the ending
    start_time : ISO date and time of the first sample, for formats with dates (QuakeML)

    Raises
    ------
    DataError : the format cannot hold a name, a time or the labelled spans; another kind of file stands there
    OptionError : an unknown format or ending
    """
    require_instance(Events, "write_events(events, path)", events=events)
    path = path_of(path)
    name = format_of(path, format)
    if name == "bids":
        return bids.write_events(events, path)
    kind, rate = FORMATS[name], events.sampling_rate_hz
    table = bids.table_of(events).fillna({"duration": 0.0})
    if events.labelled_spans is not None and "labelled spans" in kind.lacks:
        raise DataError(
            f"{path}: {name} holds no labelled spans, and without them all would count as labelled; use .tsv"
        )
    options = {"rate": None, "sampling_rate_hz": rate, "type_column": None, "start": _start(start_time)}
    with replace_file(path) as temporary:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of the libraries
                kind.write(table, temporary, options | {"old": path})
            again = _read(name, temporary, options)
        except EvlibError as error:
            raise type(error)(f"{path} was not written: {error}") from error
        except OSError:
            raise
        except Exception as error:
            raise DataError(f"{path}: these events cannot be written as {name}: {error}") from error
        _check_same(table, again, kind.step_s or (1 / rate if "fractions of a sample" in kind.lacks else 0), path, name)
        if path.is_file() and path.stat().st_size and name != "edf":  # its writer looks itself
            _require_labels(path, name, options)
    lost = {
        "scores": np.isfinite(events.score).any() or np.isfinite(events.sigma_s).any(),
        "sampling rate": True,
        "fractions of a sample": events.fraction.any(),
        "durations": (events.duration_s > 0).any(),
    }
    lost_here = [f"no {what}" for what in kind.lacks if lost.get(what)]
    if events.extra and name != "raven":
        lost_here.append(f"no columns {', '.join(events.extra)}")
    if kind.step_s:
        moved_s = np.abs(np.sort(again["onset"].to_numpy(float)) - np.sort(table["onset"].to_numpy(float))).max(
            initial=0
        )
        lost_here += [f"times to {kind.step_s:g} s (moved by up to {moved_s:.6f} s)"] if moved_s > 1e-6 else []
    if lost_here:
        warn(f"{path}: {name} holds {', '.join(lost_here)}; read it with sampling_rate_hz={rate:g}, or keep a .tsv too")


def _require_labels(path, name, options):
    """Refuse to write over a file that holds no labels of this format: a slip would lose it."""
    try:
        _read(name, path, options)
    except EvlibError as error:
        message = f"{path} is there already and holds no labels of {name}: choose another name, or remove it ({error})"
        raise DataError(message) from None


def _check_same(table, again, step_s, path, name):
    """Refuse to write what does not come back."""
    types = [sorted(frame["trial_type"].astype(str)) for frame in (table, again)]
    if types[0] != types[1]:
        lost = sorted(set(types[0]) - set(types[1])) or sorted(set(types[1]) - set(types[0])) or ["(their number)"]
        raise DataError(f"{path} was not written: {name} cannot hold the names {', '.join(map(repr, lost[:5]))}")
    times = [np.sort(frame["onset"].to_numpy(float)) for frame in (table, again)]
    away_s = np.abs(times[0] - times[1])
    if (away_s > 0.51 * step_s + 1e-6).any():
        raise DataError(f"{path} was not written: {name} cannot hold the time {times[0][np.argmax(away_s)]:.6f} s")


def format_of(path: Path, format: str | None = None, reading: bool = False) -> str:
    """The name of the format of a path, by its ending; where it is read, by its content too.

    >>> format_of(Path("night.TextGrid"))
    'textgrid'
    """
    if format is not None:
        require_choice(FORMATS, format=format)
        return format
    own = path.name.lower()
    fits = [(len(ending), name) for name, kind in FORMATS.items() for ending in kind.endings if own.endswith(ending)]
    if not fits:
        swapped = " (a recording? it comes before its labels)" if path.suffix.lower() in RECORDINGS else ""
        raise OptionError(f"{path}: labels of an unknown kind{swapped}; pass format=, one of {', '.join(FORMATS)}")
    name = max(fits)[1]
    return _by_content(path, name) if reading and path.suffix.lower() in (".txt", ".csv", ".tsv") else name


def _by_content(path, name):
    """What a text file holds; ``name`` where that does not tell."""
    with path.open("rb") as file:
        head = file.read(4096).decode("utf-8", "replace").lstrip("\ufeff")
    if re.match(r"onset\b.*\btrial_type\b", head):  # whatever further columns it brought from elsewhere
        return "bids"
    if head.startswith("# MNE-Annotations") or re.match(r"onset,duration,description\b", head):
        return "mne"
    if "Begin Time (s)" in head.split("\n")[0]:
        return "raven"
    if head.startswith("#. ") or re.match(r"[HB] \S 0[xX]", head):
        return "lowndes"
    return "bids" if path.suffix.lower() == ".txt" and head.startswith("onset\t") else name


def _read(name, path, options):
    """The table that a reader gives, checked; errors name the file."""
    try:
        if path.stat().st_size > MOST_BYTES:
            raise DataError(f"more than {MOST_BYTES:g} bytes are no labels")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", category=DeprecationWarning)
            table = FORMATS[name].read(path, options)
        if len(table) and (table["duration"].to_numpy(float) < 0).any():
            raise DataError(f"label {int((table['duration'].to_numpy(float) < 0).argmax()) + 1} ends before it begins")
        return bids.checked_table(_with_types(table, options["type_column"]), path)
    except EvlibError as error:
        if str(error).startswith(str(path)):
            raise
        raise type(error)(f"{path}: {error}") from error
    except RecursionError:
        raise DataError(f"{path} is nested too deeply") from None
    except Exception as error:  # a parser of a damaged file may raise anything
        raise DataError(f"{path} cannot be read as {name} (truncated, or another format?): {error}") from error


def _with_types(table, column):
    if column is not None:
        if column not in table:
            raise OptionError(f"there is no column {column!r}, only {', '.join(map(str, table))}")
        types = table[column].astype(str).str.strip().where(table[column].notna())
        if "trial_type" in table:
            types = types.where(table["trial_type"] != SPAN_TYPE, SPAN_TYPE)
        table = table.assign(trial_type=types)
    return table


def _table(rows, *more):
    """A table of (onset, duration, trial_type, ...)."""
    import pandas as pd

    table = pd.DataFrame(rows, columns=["onset", "duration", "trial_type", *more])
    return table.assign(trial_type=[str(name).strip() or UNNAMED for name in table["trial_type"]])


def _number(text):
    if not NUMBER.fullmatch(text.strip()):
        raise DataError(f"{text[:40]!r} is not a number")
    return float(text.replace(",", "."))


def _text(path):
    data = path.read_bytes()
    wide = data[:2] in (b"\xff\xfe", b"\xfe\xff")
    return data.decode("utf-16" if wide else "utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")


def _write_text(path, lines):
    path.write_bytes("".join(f"{line}\n" for line in lines).encode("utf-8"))


def _text_table(path, separator):
    import io

    import pandas as pd

    with warnings.catch_warnings():
        warnings.simplefilter("error", pd.errors.ParserWarning)
        text = io.StringIO(_text(path))
        return pd.read_csv(text, sep=separator, index_col=False, dtype=str, keep_default_na=False, quoting=3)


def _start(start_time):
    if start_time is None:
        return None
    try:
        start = datetime.fromisoformat(str(start_time))
    except ValueError:
        raise OptionError(
            f"start_time must be a date and time such as 2026-05-01T12:00:00, got {start_time!r}"
        ) from None
    return start if start.tzinfo else start.replace(tzinfo=UTC)


def _since(start, moment, path):
    """Seconds from ``start`` to a moment; what has no zone is UTC."""
    if start is None:
        raise DataError(f"{path.name} holds dates: pass start_time=, the date and time of the recording's first sample")
    return ((moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - start).total_seconds()


# ---- Audacity, Raven, Lowndes: lines of text -------------------------------------------------------------------------


def _read_audacity(path, options):
    rows = []
    for k, line in enumerate(_text(path).split("\n"), 1):
        if not line.strip() or line.startswith("\\"):  # the second line of a label has frequencies
            continue
        parts = line.split("\t")
        if len(parts) not in (2, 3):
            raise DataError(f"line {k}: a label is start, end and a text, with tabs between; got {line[:60]!r}")
        start, stop = map(_number, parts[:2])
        rows.append((start, stop - start, "".join(parts[2:])))
    return _table(rows)


def _write_audacity(table, path, options):
    rows = table[["onset", "duration", "trial_type"]].itertuples(index=False)
    _write_text(path, (f"{start:.9f}\t{start + duration:.9f}\t{name}" for start, duration, name in rows))


def _read_raven(path, options):
    table = _text_table(path, "\t")
    if "Begin Time (s)" not in table:
        raise DataError(f"a selection table has a column 'Begin Time (s)', this one has {list(table)}")
    kind = options["type_column"] or next((column for column in RAVEN_TYPES if column in table), None)
    if kind is None or kind not in table:
        raise DataError(f"which column holds the types? pass type_column=, one of {list(table)}")
    if "Selection" in table:  # a selection stands once for each view
        table = table.drop_duplicates(["Selection", "Begin Time (s)", kind])
    start = np.array([_number(text) for text in table["Begin Time (s)"]], dtype=float)
    stop = np.array([_number(text) for text in table["End Time (s)"]]) if "End Time (s)" in table else start
    columns = {
        "onset": start,
        "duration": stop - start,
        "trial_type": [name.strip() or UNNAMED for name in table[kind]],
    }
    numbers = {name: table[name].replace({"n/a": np.nan, "": np.nan}) for name in bids.COLUMNS if name in table}
    return table.assign(**numbers | columns).reset_index(drop=True)


def _write_raven(table, path, options):
    n, rate = np.arange(1, len(table) + 1), options["sampling_rate_hz"]
    start, stop = table["onset"], table["onset"] + table["duration"]
    columns = {
        "Selection": n,
        "View": "Waveform 1",
        "Channel": 1,
        "Begin Time (s)": [f"{time:.9f}" for time in start],
        "End Time (s)": [f"{time:.9f}" for time in stop],
        "Low Freq (Hz)": 0,
        "High Freq (Hz)": rate / 2,
        "Annotation": table["trial_type"],
    }
    more = {name: table[name] for name in table if name not in (*columns, "onset", "duration", "trial_type")}
    frame = table.assign(**columns)[list(columns)].assign(**more).replace({np.nan: "n/a"})
    rows = [list(frame), *frame.astype(str).to_numpy().tolist()]
    _write_text(path, ("\t".join(row) for row in rows))


def _read_lowndes(path, options):
    first_s, rows, clock, last = 0.0, [], 0, None
    for k, line in enumerate(_text(path).split("\n"), 1):
        if line.startswith("#"):
            if line.startswith("#. FirstBlowMs:"):
                first_s = _number(line.partition(":")[2]) / 1e3
            continue
        if not line.strip():
            continue
        blow = re.fullmatch(r"([HB])\s+(\S)\s+0[xX]([0-9a-fA-F]{1,4})\s*", line)
        if not blow or blow[2] not in BELLS + "O":
            raise DataError(f"line {k}: a blow is H or B, a bell and a time such as 0X01F4; got {line[:60]!r}")
        stated = int(blow[3], 16)
        # Stamps are modulo 65,536 ms; a blow a little out of order goes back.
        clock, last = clock + (0 if last is None else (stated - last + 2**15) % 2**16 - 2**15), stated
        bell = BELLS.replace("0", "O").index(blow[2].replace("0", "O")) + 1
        rows.append((first_s + clock / 1e3, 0.0, f"bell_{bell:02d}", blow[1]))
    return _table(rows, "stroke")


def _write_lowndes(table, path, options):
    known = {f"bell_{k:02d}": letter for k, letter in enumerate(BELLS.replace("0", "O"), 1)}
    table = table.sort_values("onset", kind="stable")
    if strange := sorted(set(table["trial_type"]) - set(known)):
        raise DataError(f"Lowndes files know bell_01 to bell_16, not {', '.join(map(repr, strange[:5]))}")
    time = np.rint(1e3 * table["onset"].to_numpy(float)).astype(np.int64)
    if (np.diff(time) >= 2**15).any():
        raise DataError("Lowndes files hold no pause of 32.768 s or more")
    first = int(time[0]) if len(time) else 0
    lines, blows = ["#. Lowndes: Version 2", f"#. FirstBlowMs: {first}"], dict.fromkeys(known, 0)
    for moment, bell in zip(time - first, table["trial_type"], strict=True):
        lines.append(f"{'HB'[blows[bell] % 2]} {known[bell]} 0X{moment % 2**16:04x}")
        blows[bell] += 1
    _write_text(path, lines)


# ---- ELAN and Praat: tiers -------------------------------------------------------------------------------------------


class _NoDoctype(ElementTree.TreeBuilder):
    def doctype(self, name, pubid, system):
        raise DataError("a document type, and with it entities, is not read from XML files")


def _xml(path):
    return ElementTree.fromstring(path.read_bytes(), parser=ElementTree.XMLParser(target=_NoDoctype()))


def _read_elan(path, options):
    root, rows, left_out = _xml(path), [], 0
    if root.tag != "ANNOTATION_DOCUMENT":
        raise DataError(f"an ELAN file holds an ANNOTATION_DOCUMENT, this is a {root.tag!r}")
    header = root.find("HEADER")
    if header is not None and header.get("TIME_UNITS", "milliseconds") != "milliseconds":
        raise DataError(f"times are in {header.get('TIME_UNITS')}, only milliseconds are read")
    slots = {slot.get("TIME_SLOT_ID"): slot.get("TIME_VALUE") for slot in root.iter("TIME_SLOT")}
    for tier in root.iter("TIER"):
        for note in tier.iter("ALIGNABLE_ANNOTATION"):
            start, stop = (slots[note.get(f"TIME_SLOT_REF{k}")] for k in (1, 2))
            if start is None or stop is None:
                left_out += 1
                continue
            own = tier.get("TIER_ID", "")
            name = (note.findtext("ANNOTATION_VALUE") or "").strip() or own
            length = _number(stop) - _number(start)
            rows.append((_number(start) / 1e3, 0.0 if length == 1 else length / 1e3, name, own))  # 1 ms is a moment
        left_out += sum(1 for _ in tier.iter("REF_ANNOTATION"))
    if left_out:
        warn(f"{path}: {left_out} annotations have no times of their own and are left out")
    return _table(rows, "tier")


def _tiers(table, start, stop):
    """[(type, rows)]: rows of one type, none of which overlap, as a tier wants them."""
    tiers: list = []
    for name, own in table.groupby("trial_type", sort=True):
        layers: list = []
        for row in own.index[np.argsort(start[own.index], kind="stable")]:
            layer = next((layer for layer in layers if start[row] >= stop[layer[-1]] > start[layer[-1]]), None)
            layer = layer or next((layer for layer in layers if start[row] > stop[layer[-1]]), None)
            layer.append(row) if layer else layers.append([row])
        tiers += [(name, layer) for layer in layers]
    return tiers


def _write_elan(table, path, options):
    table = table.reset_index(drop=True)
    start = np.rint(1e3 * table["onset"].to_numpy(float)).astype(np.int64)
    stop = np.maximum(np.rint(1e3 * (table["onset"] + table["duration"]).to_numpy(float)).astype(np.int64), start + 1)
    if (start < 0).any():
        raise DataError("ELAN knows no times before 0 s")
    root = ElementTree.Element(
        "ANNOTATION_DOCUMENT", AUTHOR="", DATE="1970-01-01T00:00:00Z", FORMAT="3.0", VERSION="3.0"
    )
    ElementTree.SubElement(root, "HEADER", MEDIA_FILE="", TIME_UNITS="milliseconds")
    order, used = ElementTree.SubElement(root, "TIME_ORDER"), set()
    for row in range(len(table)):
        for slot, value in ((2 * row + 1, start[row]), (2 * row + 2, stop[row])):
            ElementTree.SubElement(order, "TIME_SLOT", TIME_SLOT_ID=f"ts{slot}", TIME_VALUE=str(value))
    for name, rows in _tiers(table, start, stop):
        own = next(text for k in range(len(table) + 2) if (text := f"{name} ({k})" if k else name) not in used)
        used.add(own)
        tier = ElementTree.SubElement(root, "TIER", LINGUISTIC_TYPE_REF="default-lt", TIER_ID=own)
        for row in rows:
            times = {"TIME_SLOT_REF1": f"ts{2 * row + 1}", "TIME_SLOT_REF2": f"ts{2 * row + 2}"}
            note = ElementTree.SubElement(tier, "ANNOTATION")
            note = ElementTree.SubElement(note, "ALIGNABLE_ANNOTATION", ANNOTATION_ID=f"a{row + 1}", **times)
            ElementTree.SubElement(note, "ANNOTATION_VALUE").text = name
    ElementTree.SubElement(root, "LINGUISTIC_TYPE", LINGUISTIC_TYPE_ID="default-lt", TIME_ALIGNABLE="true")
    ElementTree.ElementTree(root).write(path, encoding="utf-8", xml_declaration=True)


def _read_textgrid(path, options):
    # All but texts in quotes, numbers that stand alone and <exists> is a comment, in the long and in the short form.
    tokens = (found[0] for found in re.finditer(r'"(?:[^"]|"")*"|![^\n]*|[^\s"]+', _text(path)))
    values = (token for token in tokens if token[0] == '"' or token == "<exists>" or NUMBER.fullmatch(token))

    def text():
        token = next(values)
        if token[0] != '"':
            raise DataError(f"a text was expected, {token[:40]!r} came")
        return token[1:-1].replace('""', '"')

    try:
        if (text(), text()) != ("ooTextFile", "TextGrid"):
            raise DataError("this is no TextGrid saved as text")
        _number(next(values)), _number(next(values))
        rows: list = []
        if next(values) == "<exists>":
            for _ in range(int(_number(next(values)))):
                kind, own = text(), text()
                if kind not in ("IntervalTier", "TextTier"):
                    raise DataError(f"a tier of the unknown kind {kind[:40]!r}")
                _number(next(values)), _number(next(values))
                for _ in range(int(_number(next(values)))):
                    start = _number(next(values))
                    stop = _number(next(values)) if kind == "IntervalTier" else start
                    name = text().strip()
                    if name or kind == "TextTier":  # intervals without a text fill a tier
                        rows.append((start, stop - start, name or own, own))
    except StopIteration:
        raise DataError("the file ends in the middle of a tier (truncated?)") from None
    return _table(rows, "tier")


def _write_textgrid(table, path, options):
    table = table.reset_index(drop=True)
    start = table["onset"].to_numpy(float)
    stop = start + table["duration"].to_numpy(float)
    low, high = float(start.min(initial=0.0)), float(stop.max(initial=1e-3))

    def quoted(name):
        return '"' + name.replace('"', '""') + '"'

    is_point = stop <= start
    tiers = [(True, *tier) for tier in _tiers(table[is_point], start, stop)]
    tiers += [(False, *tier) for tier in _tiers(table[~is_point], start, stop)]
    lines = ['File type = "ooTextFile"', 'Object class = "TextGrid"', "", f"{low!r}", f"{high!r}"]
    lines += ["<exists>", str(len(tiers))]
    for points, name, rows in tiers:
        if points:
            items = [f"{start[row]:.12f}\n{quoted(name)}" for row in rows]
        else:
            items, end = [], low
            for row in rows:
                items += [f'{end:.12f}\n{start[row]:.12f}\n""'] if start[row] > end else []
                items, end = [*items, f"{start[row]:.12f}\n{stop[row]:.12f}\n{quoted(name)}"], stop[row]
            items += [f'{end:.12f}\n{high:.12f}\n""'] if high > end else []
        kind = '"TextTier"' if points else '"IntervalTier"'
        lines += [kind, quoted(name), f"{low!r}", f"{high!r}", str(len(items)), *items]
    _write_text(path, lines)


# ---- WFDB, EDF+, MNE, QuakeML: by their own libraries ----------------------------------------------------------------


def _read_wfdb(path, options):
    wfdb = require_extra("wfdb", "formats")
    from wfdb.io.annotation import proc_ann_bytes, rx_fs

    # Notes that begin with ## are the file's header; wfdb does not return from one that is damaged.
    data = np.frombuffer(path.read_bytes(), dtype="<u1")
    header = [note for note in proc_ann_bytes(data.reshape(-1, 2), None)[-1] if note.startswith("## ")]
    rest = [note for note in header if not rx_fs.search(note)]
    if len(header) - len(rest) > 1 or rest not in ([], ["## annotation type definitions", "## end of definitions"]):
        raise DataError(f"its header is damaged: {header[:5]}")
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        notes = wfdb.rdann(str(path.with_suffix("")), path.suffix[1:])
    rate = notes.fs or options["rate"]
    if not rate:
        raise OptionError("neither this file nor a header beside it holds the sampling rate; pass sampling_rate_hz=")
    auxiliary = [str(text).strip("\0 ") for text in notes.aux_note]
    names = [text if mark == '"' and text else mark for mark, text in zip(notes.symbol, auxiliary, strict=True)]
    if (np.diff(notes.sample) < 0).any():
        raise DataError("the annotations are not in the order of time (damaged?)")
    table = _table([(sample / rate, 0.0, name) for sample, name in zip(notes.sample, names, strict=True)])
    return table.assign(sample=notes.sample, sampling_rate_hz=float(rate), aux_note=auxiliary)


def _write_wfdb(table, path, options):
    wfdb = require_extra("wfdb", "formats")
    from wfdb.io.annotation import ann_label_table

    marks, sample = set(ann_label_table["symbol"]) - {'"', " "}, table["sample"].to_numpy(np.int64)
    if not len(table) or sample.min() < 0:
        raise DataError("a WFDB file holds at least one annotation, and none before the first sample")
    names = table["trial_type"].tolist()
    symbols = [name if name in marks else '"' for name in names]
    notes = ["" if name in marks else name for name in names]
    if any(note and not at for note, at in zip(notes, sample, strict=True)):
        raise DataError("a WFDB note at sample 0 belongs to the header, so that only standard symbols can stand there")
    place = {"write_dir": str(path.parent), "fs": options["sampling_rate_hz"]}
    wfdb.wrann("labels", "tmp", sample, symbol=symbols, aux_note=notes, **place)
    (path.parent / "labels.tmp").replace(path)


def _read_edf(path, options):
    notes = require_extra("edfio", "formats").read_edf(path, lazy_load_data=True).annotations
    return _table([(note.onset, note.duration or 0.0, note.text) for note in notes])


def _write_edf(table, path, options):
    edfio, old = require_extra("edfio", "formats"), options["old"]
    if old.exists() and edfio.read_edf(old, lazy_load_data=True).num_signals:
        raise DataError("the EDF file there holds signals, which would be lost; write to another file")
    rows = table[["onset", "duration", "trial_type"]].itertuples(index=False)
    notes = [edfio.EdfAnnotation(round(float(start), 9), float(duration), name) for start, duration, name in rows]
    edfio.Edf([], annotations=notes).write(path)


def _read_mne(path, options):
    start, text = options["start"], path.read_bytes()
    try:
        text = text.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = text.decode("latin-1")  # MNE's own .txt
    if not text.startswith("#"):
        table = _text_table_of(text)
        onset = [_mne_onset(value, start, path) for value in table["onset"]]
        duration = [_number(value) for value in table["duration"]]
        return table.assign(
            onset=onset, duration=duration, trial_type=[n.strip() or UNNAMED for n in table["description"]]
        )
    shift, rows = 0.0, []
    for k, line in enumerate(text.splitlines(), 1):
        if line.startswith("#"):
            if "orig_time" in line and start is not None:
                shift = _since(start, datetime.fromisoformat(line.partition(":")[2].strip()), path)
            columns = [name.strip() for name in line[1:].split(",")]
            continue
        parts = line.split(",", 2)
        if len(parts) < 3:
            raise DataError(f"line {k}: an annotation is onset, duration and description; got {line[:60]!r}")
        more = len(columns) - 3
        name = parts[2].rsplit(",", more)[0] if more > 0 else parts[2]
        rows.append((_number(parts[0]) + shift, _number(parts[1]), name))
    return _table(rows)


def _text_table_of(text):
    import io

    import pandas as pd

    return pd.read_csv(io.StringIO(text), dtype=str, keep_default_na=False, index_col=False)


def _mne_onset(value, start, path):
    """Seconds, from a number or from a date; without one of its own MNE counts from 1970."""
    if NUMBER.fullmatch(value):
        return _number(value)
    moment = datetime.fromisoformat(value)
    return _since(EPOCH if moment.year == 1970 else start, moment, path)


def _write_mne(table, path, options):
    rows = table[["onset", "duration", "trial_type"]]
    if path.suffix.lower() == ".csv":
        moments = [(options["start"] or EPOCH) + timedelta(seconds=onset) for onset in rows["onset"]]
        date = [moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S.%f") for moment in moments]
        frame = rows.assign(onset=date).rename(columns={"trial_type": "description"})
        frame.to_csv(path, index=False, lineterminator="\n")
        return
    lines = ["# MNE-Annotations", "# onset, duration, description"]
    lines += [
        f"{start!r}, {duration!r}, {name}" for start, duration, name in rows.astype(object).itertuples(index=False)
    ]
    path.write_bytes("".join(f"{line}\n" for line in lines).encode("latin-1"))


def from_mne(annotations, sampling_rate_hz: float | None = None, names=None) -> Events:
    """Events of ``mne.Annotations``: each onset in seconds, each description a type.

    >>> from types import SimpleNamespace
    >>> from_mne(SimpleNamespace(onset=[0.5], duration=[0.0], description=["blink"]), 1000).type_names
    ['blink']
    """
    rows = zip(annotations.onset, annotations.duration, annotations.description, strict=True)
    events = bids.events_of(bids.checked_table(_table(list(rows)), Path("annotations")), names)
    return events if sampling_rate_hz is None else events.at_rate(sampling_rate_hz)


def to_mne(events: Events):
    """``mne.Annotations`` of events and of labelled spans; needs the package mne."""
    table = bids.table_of(events)
    columns = (table[name].to_numpy() for name in ("onset", "duration", "trial_type"))
    return require_extra("mne", "formats").Annotations(*columns)


def _read_quakeml(path, options):
    _xml(path)
    catalogue = require_extra("obspy", "formats").read_events(str(path), format="QUAKEML")
    rows = []
    for pick in (pick for event in catalogue for pick in event.picks):
        if pick.time is None:
            raise DataError("a pick has no time (damaged?)")
        since = _since(options["start"], pick.time.datetime, path)
        sigma = pick.time_errors.uncertainty if pick.time_errors else None
        rows.append((since, 0.0, pick.phase_hint or "", np.nan if sigma is None else sigma))
    return _table(rows, "sigma_s")


def _write_quakeml(table, path, options):
    obspy = require_extra("obspy", "formats")
    from obspy.core import event as quake

    if options["start"] is None:
        raise OptionError("picks are dates: pass start_time=, the date and time of the recording's first sample")
    picks = []
    for row in table.itertuples(index=False):
        time = obspy.UTCDateTime((options["start"] + timedelta(seconds=row.onset)).astimezone(UTC))
        errors = {} if np.isnan(row.sigma_s) else {"time_errors": quake.QuantityError(uncertainty=row.sigma_s)}
        where = quake.WaveformStreamID(network_code="XX", station_code="EVLIB")
        picks.append(quake.Pick(time=time, phase_hint=row.trial_type, waveform_id=where, **errors))
    quake.Catalog([quake.Event(picks=picks)]).write(str(path), format="QUAKEML")


# Name of a format -> how it is read and written. Of several endings that fit, the longest counts.
FORMATS = {
    "bids": LabelFormat(bids.read_events, bids.write_events, (".tsv", ".csv"), ()),
    "audacity": LabelFormat(_read_audacity, _write_audacity, (".txt",)),
    "raven": LabelFormat(_read_raven, _write_raven, (".selections.txt",), ()),
    "elan": LabelFormat(_read_elan, _write_elan, (".eaf",), step_s=1e-3),
    "textgrid": LabelFormat(_read_textgrid, _write_textgrid, (".textgrid",)),
    "wfdb": LabelFormat(
        _read_wfdb,
        _write_wfdb,
        (".atr", ".qrs", ".ann", ".ecg"),
        ("scores", "durations", "fractions of a sample", "labelled spans"),
    ),
    "edf": LabelFormat(_read_edf, _write_edf, (".edf",)),
    "mne": LabelFormat(_read_mne, _write_mne, ("annot.csv", "annot.txt")),
    "quakeml": LabelFormat(
        _read_quakeml,
        _write_quakeml,
        (".qml", ".quakeml", ".xml"),
        ("scores", "durations", "sampling rate", "labelled spans"),
    ),
    "lowndes": LabelFormat(
        _read_lowndes,
        _write_lowndes,
        (".lowndes", ".lowndes.txt", ".lo.txt"),
        ("scores", "durations", "sampling rate", "labelled spans"),
        step_s=1e-3,
    ),
}
