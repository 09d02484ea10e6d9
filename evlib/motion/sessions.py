"""The session format: a folder of independent motion recordings with activity labels, checked strictly.

::

    manifest.json                     dataset_name, description, channels [{name, description, sampling_rate_hz}]
    labels.json                       {session id: [label, ...]}: every session once, always a list
    groups.json                       {session id: person}: optional, for splits by person
    sessions/<session id>/data.parquet

The first column of a table is ``timestamp_sec`` (seconds from 0.0 at one uniform rate). Every other column is a channel
of the manifest; a session may lack some of them. A channel with ``"may_be_missing": true`` in the manifest may hold
NaN. Parquet needs the extra ``data``.
"""

import json
import numbers
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from ..signals.errors import DataError, OptionError, require_extra
from ..signals.files import replace_folder
from ..signals.recording import Recording
from ..signals.validate import Problem, ValidationReport

# Name of the column with the time of each sample in seconds.
TIME = "timestamp_sec"
# Relative deviation from the manifest's rate that a step of the clock may have, and seconds that the first sample may
# lie away from 0: what rounding of printed times amounts to.
CLOCK_TOLERANCE, START_TOLERANCE_S = 0.01, 1e-6


@dataclass(frozen=True)
class Channel:
    """A channel of a data set: its name in the tables, what it measures in words, its rate."""

    name: str
    description: str
    sampling_rate_hz: float
    may_be_missing: bool = False


@dataclass(frozen=True, eq=False)
class Session:
    """One recording with its labels and the group (person) that it belongs to, which may be empty."""

    id: str
    recording: Recording
    labels: tuple = ()
    group: str = ""


@dataclass(frozen=True, eq=False)
class SessionSet:
    """A folder of sessions, opened by `open_sessions`; signals are read when asked for."""

    folder: Path
    name: str
    description: str
    channels: tuple
    labels: dict
    groups: dict = field(default_factory=dict)

    def __repr__(self):
        return f"SessionSet({self.name}: {len(self.ids)} sessions, {len(self.channels)} channels)"

    @property
    def ids(self) -> list[str]:
        """The names of the sessions, sorted."""
        return sorted(self.labels)

    @property
    def descriptions(self) -> dict:
        """What each channel measures, by its name."""
        return {channel.name: channel.description for channel in self.channels}

    def read(self, session_id: str, fill: bool = True) -> Session:
        """One session; ``fill`` replaces NaN by the last value before it, else the first after it, else 0.

        Raises
        ------
        DataError : an unknown session, or one that breaks the format
        """
        if session_id not in self.labels:
            known = ", ".join(self.ids[:3])
            raise DataError(f"{self.name} has no session {session_id!r}; it has {len(self.ids)}, as {known}")
        table, problems = _read_table(self.folder, session_id, self.channels)
        ValidationReport(tuple(problems)).raise_if_errors()
        channels = tuple(table.column_names[1:])
        signal = np.stack([table[name].to_numpy() for name in channels], 1).astype(np.float32)
        rate = next(channel.sampling_rate_hz for channel in self.channels if channel.name == channels[0])
        recording = Recording(fill_gaps(signal) if fill else signal, rate, channels, name=session_id)
        return Session(session_id, recording, self.labels[session_id], self.groups.get(session_id, ""))

    def load(self, ids: Iterable[str] | None = None, progress: bool = False) -> list[Session]:
        """All sessions, or those named in ``ids``."""
        from tqdm.auto import tqdm

        ids = self.ids if ids is None else ids
        return [self.read(name) for name in tqdm(ids, desc=self.name, disable=not progress)]


def fill_gaps(signal: np.ndarray) -> np.ndarray:
    """(n, C): NaN becomes the last value before it, at the beginning the first one after it, and 0 in an empty channel.

    >>> fill_gaps(np.array([[np.nan], [1.0], [np.nan]])).ravel().tolist()
    [1.0, 1.0, 1.0]
    """
    import pandas as pd

    return pd.DataFrame(signal).ffill().bfill().fillna(0).to_numpy()


def open_sessions(folder: str | Path) -> SessionSet:
    """Open a folder of sessions. Manifest, labels and folders are checked at once, signals when they are read.

    Raises
    ------
    DataError : everything that is missing or breaks the format
    """
    opened, problems = _open(Path(folder))
    ValidationReport(tuple(problems)).raise_if_errors()
    return opened


def validate_sessions(
    folder: str | Path, known_labels: Sequence[str] | None = None, progress: bool = False
) -> ValidationReport:
    """Everything that breaks the format in a folder of sessions; signals are read once manifest and labels are sound.

    Parameters
    ----------
    folder : where manifest.json lies
    known_labels : the labels that are allowed; None for any
    progress : show a progress bar
    """
    from tqdm.auto import tqdm

    folder = Path(folder)
    opened, problems = _open(folder)
    for session_id in tqdm(opened.ids if opened else (), disable=not progress):
        if known_labels is not None and (unknown := set(opened.labels[session_id]) - set(known_labels)):
            words, known = ", ".join(map(repr, sorted(unknown))), ", ".join(known_labels)
            message = f"unknown label {words} of {session_id!r}; known are {known}"
            problems.append(Problem("error", "labels.json", message))
        if (folder / "sessions" / session_id).is_dir():
            problems += _read_table(folder, session_id, opened.channels)[1]
    return ValidationReport(tuple(problems))


def write_sessions(
    folder: str | Path, name: str, description: str, channels: Sequence[Channel], sessions: Iterable[Session]
) -> SessionSet:
    """Write a folder of sessions; after a crash or an error an older folder is as it was.

    Parameters
    ----------
    folder : replaced if it holds nothing but sessions
    name, description : of the data set
    channels : list of `Channel`
    sessions : any iterable of `Session`; channels in the order of the manifest, names without ``/``

    Raises
    ------
    DataError : no session, a name twice, another rate than the manifest's, whatever else breaks the format
    OptionError : a name that no folder can have; a folder that holds something else, which is not replaced
    """
    parquet, arrow = require_extra("pyarrow.parquet", "data"), require_extra("pyarrow", "data")
    _check_replaceable(Path(folder))
    labels: dict[str, list[str]] = {}
    groups: dict[str, str] = {}
    with replace_folder(folder) as new:
        for session in sessions:
            _check_session(session, labels)
            recording = session.recording
            columns = {TIME: np.arange(recording.n_samples) / recording.sampling_rate_hz}
            columns |= dict(zip(recording.channels, recording.read().T, strict=True))
            place = new / "sessions" / session.id
            place.mkdir(parents=True)
            parquet.write_table(arrow.table(columns), place / "data.parquet")
            ValidationReport(tuple(_read_table(new, session.id, channels)[1])).raise_if_errors()
            labels[session.id] = list(session.labels)
            groups |= {session.id: session.group} if session.group else {}
        if not labels:
            raise DataError("no session to write")
        entries = [vars(channel) | {"sampling_rate_hz": float(channel.sampling_rate_hz)} for channel in channels]
        entries = [{key: value for key, value in entry.items() if value is not False} for entry in entries]
        files = {"manifest": {"dataset_name": name, "description": description, "channels": entries}, "labels": labels}
        for file, content in (files | ({"groups": groups} if groups else {})).items():
            (new / f"{file}.json").write_text(json.dumps(content, indent=1), encoding="utf-8")
        opened = open_sessions(new)
    return replace(opened, folder=Path(folder))


def _check_replaceable(folder):
    """Refuse to replace anything but an empty folder or one of sessions."""
    if folder.is_dir():
        found = {path.name for path in folder.iterdir()}
        others = found - {"manifest.json", "labels.json", "groups.json", "sessions"}
        if others or (found and "manifest.json" not in found):
            held = ", ".join(sorted(others)[:3]) or "no manifest.json"
            hint = "name a new folder, or one that holds nothing but sessions"
            raise OptionError(f"{folder} holds {held}, which would be lost: {hint}")
    elif folder.exists():
        raise OptionError(f"{folder} is a file: sessions need a folder")


def _check_session(session, labels):
    """Refuse a session that has no place in the folder; ``labels`` are those of the sessions before it."""
    name = session.id
    if not _names_a_folder(name):
        raise OptionError(f"a session's id names its folder, got {name!r}")
    if name in labels:
        raise DataError(f"two sessions are called {name!r}")
    if isinstance(session.labels, str):
        raise DataError(f"the labels of {name!r} must be a list of words, got {session.labels!r}")


def _names_a_folder(name):
    """Whether an id is the name of one folder and no path out of it."""
    plain = _is_text(name) and name.isprintable() and len(name) < 200
    return plain and name == Path(name).name and name != ".."


def _is_text(value):
    return isinstance(value, str) and bool(value.strip())


def _open(folder):
    """The set, None if manifest or labels are broken, and all problems but those of the signals."""
    problems = []

    def check(where, holds, message):
        if not holds:
            problems.append(Problem("error", where, message))

    manifest, labels, groups = (_read_json(folder / f"{name}.json", check) for name in ("manifest", "labels", "groups"))
    for key in ("dataset_name", "description") if manifest is not None else ():
        check("manifest.json", _is_text(manifest.get(key)), f"{key} must be a text, got {manifest.get(key)!r}")
    channels = [] if manifest is None else _channels(manifest.get("channels"), check)
    for name, words in (labels or {}).items():
        check("labels.json", _names_a_folder(name), f"a session's id names its folder, got {name!r}")
        listed = isinstance(words, list) and all(isinstance(word, str) and word for word in words)
        check("labels.json", listed, f"the labels of {name!r} must be a list of words, got {words!r}")
    if problems:
        return None, problems
    check("groups.json", all(isinstance(group, str) for group in groups.values()), "every group must be a text")
    place = folder / "sessions"
    folders = {path.name for path in place.iterdir() if path.is_dir()} if place.is_dir() else set()
    check("sessions", folders, "there is no session")
    for where, ids, known, message in (
        ("sessions", labels, folders, "labelled sessions without a folder"),
        ("sessions", folders, labels, "sessions without an entry in labels.json"),
        ("groups.json", groups, labels, "groups of sessions that are not labelled"),
    ):
        lost = sorted(set(ids) - set(known))
        check(where, not lost, f"{len(lost)} {message}, as {', '.join(lost[:3])}")
    labels = {name: tuple(words) for name, words in labels.items()}
    opened = SessionSet(folder, manifest["dataset_name"], manifest["description"], channels, labels, groups)
    return opened, problems


def _read_json(path, check):
    """The dict in a file; None and a problem if it holds none. Without groups.json there are no groups."""

    def once(pairs):
        if twice := [name for name, n in Counter(name for name, _ in pairs).items() if n > 1]:
            raise ValueError(f"{', '.join(map(repr, twice))} stands there twice")
        return dict(pairs)

    if path.name == "groups.json" and not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=once)
    except (OSError, ValueError, RecursionError) as error:
        return check(path.name, False, f"cannot be read: {error}")
    check(path.name, isinstance(content, dict), f"must hold a JSON object, got a {type(content).__name__}")
    return content if isinstance(content, dict) else None


def _channels(entries, check):
    """The channels of the manifest as `Channel` objects."""
    listed = isinstance(entries, list) and entries and all(isinstance(entry, dict) for entry in entries)
    check("manifest.json", listed, "channels must be a list of {name, description, sampling_rate_hz}")
    channels, before = [], {TIME}
    for entry in entries if listed else ():
        name, description, rate = (entry.get(key) for key in ("name", "description", "sampling_rate_hz"))
        missing = entry.get("may_be_missing", False)
        real = isinstance(rate, numbers.Real) and not isinstance(rate, bool)
        for holds, message in (
            (_is_text(name) and name not in before, f"each channel needs a name of its own, got {name!r}"),
            (_is_text(description), f"channel {name} needs a description"),
            (real and 0 < rate < 1e9, f"channel {name} needs a sampling_rate_hz above 0, got {rate!r}"),
            (isinstance(missing, bool), f"may_be_missing of channel {name} must be true or false, got {missing!r}"),
        ):
            check("manifest.json", holds, message)
        before |= {str(name)}
        channels.append(Channel(name, description, rate, missing))
    return tuple(channels)


def _read_table(folder, session_id, channels):
    """The table of a session, None if it cannot be read, and a list of problems."""
    parquet = require_extra("pyarrow.parquet", "data")
    table = None
    try:
        table = parquet.ParquetFile(folder / "sessions" / session_id / "data.parquet").read()
    except (OSError, ValueError, TypeError) as error:  # the errors of pyarrow are among them
        messages = [f"data.parquet cannot be read: {error}"]
    else:
        messages = _table_problems(table, {channel.name: channel for channel in channels})
    return table, [Problem("error", f"sessions/{session_id}", message) for message in messages]


def _table_problems(table, known):
    """What is wrong with the table of a session, as messages; ``known``: the channels of the manifest by name."""
    names = table.column_names
    if names[:1] != [TIME]:
        yield f"the first column must be {TIME}, got {', '.join(names[:3]) or 'none'}"
        return
    unknown, channels = [name for name in names[1:] if name not in known], names[1:]
    if unknown:
        yield f"columns that the manifest does not have: {', '.join(unknown[:5])}"
    if not channels or len(set(names)) < len(names):
        yield "there must be channels beside the time, none of them twice"
    elif not unknown:
        rates = sorted({known[name].sampling_rate_hz for name in channels})
        kinds = {name: str(table.schema.field(name).type) for name in names}
        other = [name for name, kind in kinds.items() if kind not in ("float", "double", "halffloat")]
        if len(rates) > 1:
            yield f"its channels have different rates, {', '.join(f'{rate:g}' for rate in rates)} Hz: resample them"
        elif other:
            yield f"columns must hold floats: {', '.join(other)}"
        elif table.num_rows < 2:
            yield f"a session needs at least 2 samples, got {table.num_rows}"
        else:
            yield from _clock_problems(table[TIME].to_numpy(), rates[0])
            for name in channels:
                values = table[name].to_numpy()
                lost = np.isinf(values) if known[name].may_be_missing else ~np.isfinite(values)
                if lost.any():
                    yield f"channel {name}: {lost.sum()} values are NaN or infinite, the first in row {lost.argmax()}"


def _clock_problems(time, rate):
    """What is wrong with the times of a session, as messages."""
    if not np.isfinite(time).all():
        yield f"{TIME} holds NaN or infinity"
        return
    step = np.diff(time)
    if (step <= 0).any():
        k = int((step <= 0).argmax())
        yield f"{TIME} must increase strictly; row {k + 1} ({time[k + 1]:g} s) follows {time[k]:g} s (not sorted?)"
        return
    if abs(time[0]) > START_TOLERANCE_S:
        yield f"{TIME} must begin at 0.0, got {time[0]:g}"
    off = np.abs(step * rate - 1) > CLOCK_TOLERANCE
    if off.any():
        typical, k = f"{1 / np.median(step):.4g} Hz in the median", int(off.argmax())
        seen = typical if off.mean() > 0.5 else f"a step of {step[k]:g} s at row {k}"
        yield f"the manifest says {rate:g} Hz, {TIME} has {seen} ({off.sum()} of {len(step)} steps differ)"
