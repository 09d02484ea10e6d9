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
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..signals.atomic import replace_folder, sweep
from ..signals.clock import uniform_rate
from ..signals.errors import DataError, EvlibError, OptionError, require, require_extra, require_list, require_positive
from ..signals.gaps import long_runs
from ..signals.paths import path_inside
from ..signals.recording import Recording
from ..signals.validate import Problem, ValidationReport

# Name of the column with the time of each sample in seconds.
TIME = "timestamp_sec"
# Seconds that the first sample may lie away from 0: what rounding of printed times amounts to.
START_TOLERANCE_S = 1e-6
# Seconds over which the last value stands for a missing one: a few packets that a radio lost.
HOLD_S = 0.1
# Most values of a table: 18 hours of 20 channels at 100 Hz, one GB. A damaged file may claim more than memory holds.
MAX_VALUES = 2**27


@dataclass(frozen=True)
class Channel:
    """A channel of a data set: its name in the tables, what it measures in words, its rate, whether it may hold NaN.

    Raises
    ------
    DataError, OptionError : no name or description, a rate that is no number above 0
    """

    name: str
    description: str
    sampling_rate_hz: float
    may_be_missing: bool = False

    def __post_init__(self):
        name, missing = self.name, self.may_be_missing
        require(_is_text(name) and name != TIME, DataError, f"each channel needs a name of its own, got {name!r}")
        require(_is_text(self.description), DataError, f"channel {name} needs a description")
        require_positive(**{f"sampling_rate_hz of channel {name}": self.sampling_rate_hz})
        message = f"may_be_missing of channel {name} must be true or false, got {missing!r}"
        require(isinstance(missing, bool), DataError, message)


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

    def read(self, session_id: str) -> Session:
        """One session. Up to `HOLD_S` of missing values are replaced by the last value before them, at the beginning
        by the first one after them; longer holes stay NaN.

        Raises
        ------
        DataError : an unknown session, or one that breaks the format
        """
        if session_id not in self.labels:
            known = ", ".join(self.ids[:3])
            raise DataError(f"{self.name} has no session {session_id!r}; it has {len(self.ids)}, as {known}")
        try:
            table = _read_table(self.folder, session_id, self.channels).drop(columns=TIME)
        except DataError as error:
            raise DataError(f"sessions/{session_id}: {error}") from error
        rate = next(channel.sampling_rate_hz for channel in self.channels if channel.name in table)
        held = table.ffill().bfill()
        for name, values in table.items():
            held.loc[long_runs(values.isna().to_numpy(), HOLD_S * rate), name] = np.nan
        recording = Recording(held.to_numpy(np.float32), rate, tuple(table), name=session_id)
        return Session(session_id, recording, self.labels[session_id], self.groups.get(session_id, ""))

    def load(self) -> list[Session]:
        """All sessions."""
        return list(map(self.read, self.ids))


def open_sessions(folder: str | Path) -> SessionSet:
    """Open a folder of sessions. Manifest, labels and folders are checked at once, signals when they are read.

    Raises
    ------
    DataError : everything that is missing or breaks the format
    """
    folder = Path(folder)
    if not folder.exists():  # a process may have been killed while it replaced the folder
        sweep(folder.parent)
    opened, problems = _open(folder)
    ValidationReport(tuple(problems)).raise_if_errors()
    return opened


def validate_sessions(folder: str | Path) -> ValidationReport:
    """What breaks the format in a folder of sessions: everything in manifest and labels, and the first slip of each
    session; signals are read once the rest is sound."""
    opened, problems = _open(Path(folder))
    for session_id in () if problems else opened.ids:
        try:
            _read_table(opened.folder, session_id, opened.channels)
        except DataError as error:
            problems.append(Problem("error", f"sessions/{session_id}", str(error)))
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
            require(_names_a_folder(session.id), OptionError, f"a session's id names its folder, got {session.id!r}")
            require(session.id not in labels, DataError, f"two sessions are called {session.id!r}")
            require_list(labels=session.labels)
            recording = session.recording
            columns = {TIME: np.arange(recording.n_samples) / recording.sampling_rate_hz}
            columns |= dict(zip(recording.channels, recording.read().T, strict=True))
            place = new / "sessions" / session.id
            place.mkdir(parents=True)
            parquet.write_table(arrow.table(columns), place / "data.parquet")
            labels[session.id] = list(session.labels)
            groups |= {session.id: session.group} if session.group else {}
        entries = [vars(channel) | {"sampling_rate_hz": float(channel.sampling_rate_hz)} for channel in channels]
        about = {"dataset_name": name, "description": description, "channels": entries}
        for file, content in {"manifest": about, "labels": labels, "groups": groups}.items():
            (new / f"{file}.json").write_text(json.dumps(content, indent=1), encoding="utf-8")
        validate_sessions(new).raise_if_errors()
    return open_sessions(folder)


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


def _names_a_folder(name):
    """Whether an id is the name of one folder and no path out of it."""
    plain = _is_text(name) and len(name) < 200
    return plain and name == Path(name).name and name != ".."


def _is_text(value):
    return isinstance(value, str) and value.isprintable() and bool(value.strip())


def _open(folder):
    """The set, and no problem; or None, and all problems but those of the signals."""
    problems = []

    def check(where, holds, message):
        if not holds:
            problems.append(Problem("error", where, message))

    manifest, labels, groups = (_read_json(folder / f"{name}.json", check) for name in ("manifest", "labels", "groups"))
    if problems:
        return None, problems
    for key in ("dataset_name", "description"):
        check("manifest.json", _is_text(manifest.get(key)), f"{key} must be a text, got {manifest.get(key)!r}")
    channels = _channels(manifest.get("channels"), check)
    for name, words in labels.items():
        check("labels.json", _names_a_folder(name), f"a session's id names its folder, got {name!r}")
        listed = isinstance(words, list) and all(map(_is_text, words))
        check("labels.json", listed, f"the labels of {name!r} must be a list of words, got {words!r}")
    check("groups.json", all(map(_is_text, groups.values())), "every group must be a text")
    folders = {path.name for path in folder.glob("sessions/*") if path.is_dir()}
    check("sessions", folders, "there is no session")
    for where, ids, known, message in (
        ("sessions", labels, folders, "labelled sessions without a folder"),
        ("sessions", folders, labels, "sessions without an entry in labels.json"),
        ("groups.json", groups, labels, "groups of sessions that are not labelled"),
    ):
        lost = sorted(set(ids) - set(known))
        check(where, not lost, f"{len(lost)} {message}, as {', '.join(lost[:3])}")
    if problems:
        return None, problems
    labels = {name: tuple(words) for name, words in labels.items()}
    return SessionSet(folder, manifest["dataset_name"], manifest["description"], channels, labels, groups), []


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
    channels = []
    for entry in entries if listed else ():
        words = [entry.get(key) for key in ("name", "description", "sampling_rate_hz")]
        try:
            channels.append(Channel(*words, entry.get("may_be_missing", False)))
        except EvlibError as error:
            check("manifest.json", False, str(error))
    for name, n in Counter(channel.name for channel in channels).items():
        check("manifest.json", n == 1, f"each channel needs a name of its own, got {name!r} twice")
    return tuple(channels)


def _read_table(folder, session_id, channels):
    """The pandas table of a session; a DataError says what is wrong with it."""
    parquet = require_extra("pyarrow.parquet", "data")
    try:
        file = parquet.ParquetFile(path_inside(folder, f"sessions/{session_id}/data.parquet"))
        n_rows, n_columns = file.metadata.num_rows, file.metadata.num_columns
        require(n_rows * n_columns <= MAX_VALUES, DataError, f"{n_rows} rows of {n_columns} columns are no session")
        table = file.read().to_pandas(ignore_metadata=True)
    except Exception as error:  # a parser of a damaged file may raise anything
        raise DataError(f"data.parquet cannot be read: {error}") from error
    known, names = {channel.name: channel for channel in channels}, list(table)
    first = ", ".join(names[:3]) or "none"
    require(names[:1] == [TIME], DataError, f"the first column must be {TIME}, got {first}")
    unknown = [name for name in names[1:] if name not in known]
    require(not unknown, DataError, f"columns that the manifest does not have: {', '.join(unknown[:5])}")
    message = "there must be channels beside the time, none of them twice"
    require(len(set(names)) == len(names) > 1, DataError, message)
    other = [name for name, kind in table.dtypes.items() if kind.kind != "f"]
    require(not other, DataError, f"columns must hold floats: {', '.join(other)}")
    rates = sorted({known[name].sampling_rate_hz for name in names[1:]})
    message = f"its channels have different rates, {', '.join(f'{rate:g}' for rate in rates)} Hz: resample them"
    require(len(rates) == 1, DataError, message)
    time = table[TIME].to_numpy(np.float64)
    try:
        uniform_rate(time, rates[0])
    except EvlibError as error:
        raise DataError(f"{TIME} does not fit the manifest, which says {rates[0]:g} Hz: {error}") from error
    require(abs(time[0]) <= START_TOLERANCE_S, DataError, f"{TIME} must begin at 0.0, got {time[0]:g}")
    for name in names[1:]:
        lost = np.isinf(table[name]) if known[name].may_be_missing else ~np.isfinite(table[name])
        message = f"channel {name}: {lost.sum()} values are NaN or infinite, the first in row {lost.argmax()}"
        require(not lost.any(), DataError, message)
    return table
