"""The session format: a folder of independent motion recordings with activity labels, checked strictly.

::

    manifest.json                     dataset_name, description, channels [{name, description, sampling_rate_hz}]
    labels.json                       {session id: [label, ...]}, every session once, always a list
    groups.json                       {session id: person}: optional, for splits that keep people apart
    sessions/<session id>/data.parquet

A table's first column is ``timestamp_sec`` (seconds from 0.0, one uniform rate); every other column is a channel of the
manifest, of which a session may lack some. A channel with ``"may_be_missing": true`` in the manifest may hold NaN.
Parquet needs the extra ``data``.
"""

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from ..signals.errors import DataError, OptionError, UnitError, require_extra
from ..signals.files import replace_folder
from ..signals.recording import Recording
from ..signals.validate import Problem, ValidationReport

TIME = "timestamp_sec"
# Steps of the clock may differ by this share from the manifest's rate, and the first sample from 0 by so many seconds.
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
    """One recording with its labels and the group (person) it belongs to, which may be empty."""

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
    def ids(self):
        """The sessions' names, sorted."""
        return sorted(self.labels)

    @property
    def descriptions(self):
        """What each channel measures, by its name."""
        return {channel.name: channel.description for channel in self.channels}

    def read(self, session_id, fill=True):
        """One `Session`; with ``fill``, NaN becomes the last value before it, the first one after it, or 0.

        Raises
        ------
        DataError : a session that is not there, or that breaks the format
        """
        if session_id not in self.labels:
            raise DataError(
                f"{self.name} has no session {session_id!r}; it has {len(self.ids)}, as {', '.join(self.ids[:3])}"
            )
        table, problems = _read_table(self.folder, session_id, self.channels)
        ValidationReport(tuple(problems)).raise_if_errors()
        channels = table.column_names[1:]
        signal = np.stack([table[name].to_numpy() for name in channels], 1).astype(np.float32)
        rate = next(channel.sampling_rate_hz for channel in self.channels if channel.name == channels[0])
        recording = Recording(fill_gaps(signal) if fill else signal, rate, tuple(channels), name=session_id)
        return Session(session_id, recording, self.labels[session_id], self.groups.get(session_id, ""))

    def load(self, ids=None, progress=False):
        """List of sessions, all or those named."""
        from tqdm.auto import tqdm

        return [
            self.read(name) for name in tqdm(self.ids if ids is None else ids, desc=self.name, disable=not progress)
        ]


def fill_gaps(signal):
    """(n, C): NaN becomes the last value before it, at the beginning the first one after it, and 0 in an empty channel.

    >>> fill_gaps(np.array([[np.nan], [1.0], [np.nan]])).ravel().tolist()
    [1.0, 1.0, 1.0]
    """
    import pandas as pd

    return pd.DataFrame(signal).ffill().bfill().fillna(0).to_numpy()


def open_sessions(folder) -> SessionSet:
    """Open a folder of sessions; its manifest, labels and folders are checked, signals when they are read.

    Raises
    ------
    DataError : what is missing or breaks the format, all of it at once
    """
    opened, problems = _open(Path(folder))
    ValidationReport(tuple(problems)).raise_if_errors()
    return opened


def validate_sessions(folder, known_labels=None, progress=False) -> ValidationReport:
    """Everything in a folder of sessions that breaks the format, signals included.

    Parameters
    ----------
    folder : where manifest.json lies
    known_labels : the labels that there may be; None for any
    progress : show a progress bar
    """
    from tqdm.auto import tqdm

    folder = Path(folder)
    opened, problems = _open(folder)
    if opened is None:
        return ValidationReport(tuple(problems))
    if known_labels is not None:
        for session_id, labels in opened.labels.items():
            if unknown := sorted(set(labels) - set(known_labels)):
                message = f"unknown label {', '.join(map(repr, unknown))} of {session_id!r}; known are {', '.join(known_labels)}"
                problems.append(Problem("error", "labels.json", message))
    for session_id in tqdm(opened.ids, desc=opened.name, disable=not progress):
        if (folder / "sessions" / session_id).is_dir():
            problems += _read_table(folder, session_id, opened.channels)[1]
    return ValidationReport(tuple(problems))


def write_sessions(folder, name, description, channels, sessions: Iterable[Session]):
    """Write a folder of sessions; a crash, or anything that breaks the format, leaves an older folder as it was.

    Parameters
    ----------
    folder : replaced if sessions are what it holds
    name, description : of the data set
    channels : list of `Channel`
    sessions : any iterable of `Session`; channels in the order of the manifest, names without ``/``

    Raises
    ------
    DataError : no session, a name twice, channels that the manifest does not have, whatever else breaks the format
    UnitError : another rate than the channel's
    OptionError : a name that is no folder's; a folder that holds something else, which is not replaced
    """
    parquet, arrow = require_extra("pyarrow.parquet", "data"), require_extra("pyarrow", "data")
    _check_replaceable(Path(folder))
    by_name = {channel.name: channel for channel in channels}
    labels, groups = {}, {}
    with replace_folder(folder) as new:
        for session in sessions:
            _check_session(session, by_name, labels)
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
        entries = [
            {"name": c.name, "description": c.description, "sampling_rate_hz": float(c.sampling_rate_hz)}
            | ({"may_be_missing": True} if c.may_be_missing else {})
            for c in channels
        ]
        files = {"manifest": {"dataset_name": name, "description": description, "channels": entries}, "labels": labels}
        for file, content in (files | ({"groups": groups} if groups else {})).items():
            (new / f"{file}.json").write_text(json.dumps(content, indent=1), encoding="utf-8")
        opened = open_sessions(new)
    return replace(opened, folder=Path(folder))


def _check_replaceable(folder):
    """Only an empty folder or one of sessions gives way to another: what else it holds would be lost."""
    others = {"manifest.json", "labels.json", "groups.json", "sessions"}
    if folder.is_dir():
        found = {path.name for path in folder.iterdir()}
        if not found or ("manifest.json" in found and found <= others):
            return
        held = ", ".join(sorted(found - others)[:3]) or "no manifest.json"
        raise OptionError(
            f"{folder} holds {held}, which would be lost: name a new folder, or one that holds nothing but sessions"
        )
    if folder.exists():
        raise OptionError(f"{folder} is a file: sessions need a folder")


def _check_session(session, by_name, labels):
    name = session.id
    if not _names_a_folder(name):
        raise OptionError(f"a session's id names its folder, got {name!r}")
    if name in labels:
        raise DataError(f"two sessions are called {name!r}")
    if isinstance(session.labels, str):
        raise DataError(f"the labels of {name!r} must be a list of words, got {session.labels!r}")
    if unknown := set(session.recording.channels) - set(by_name):
        raise DataError(f"{name!r} has channels that the manifest lacks: {', '.join(sorted(unknown))}")
    for channel in session.recording.channels:
        if by_name[channel].sampling_rate_hz != session.recording.sampling_rate_hz:
            raise UnitError(
                f"{name!r} has {session.recording.sampling_rate_hz:g} Hz, {channel} "
                f"{by_name[channel].sampling_rate_hz:g} Hz"
            )


def _names_a_folder(name):
    """Whether an id is one folder's name and no way out of it."""
    return (
        isinstance(name, str)
        and name.isprintable()
        and 0 < len(name) < 200
        and name == Path(name).name
        and name != ".."
    )


def _open(folder):
    """The set, None if it cannot be opened, and what is wrong with all but the signals."""
    problems = []

    def wrong(where, message):
        problems.append(Problem("error", where, message))

    manifest, labels = (_read_json(folder / name, wrong) for name in ("manifest.json", "labels.json"))
    groups = _read_json(folder / "groups.json", wrong) if (folder / "groups.json").is_file() else {}
    if None in (manifest, labels, groups):
        return None, problems
    for name in ("dataset_name", "description"):
        if not isinstance(manifest.get(name), str) or not manifest[name].strip():
            wrong("manifest.json", f"{name} must be a text, got {manifest.get(name)!r}")
    channels = _channels(manifest.get("channels"), wrong)
    for session_id, words in labels.items():
        if not _names_a_folder(session_id):
            wrong("labels.json", f"a session's id names its folder, got {session_id!r}")
        if not isinstance(words, list) or not all(isinstance(word, str) and word for word in words):
            wrong("labels.json", f"the labels of {session_id!r} must be a list of words, got {words!r}")
    if not all(isinstance(group, str) for group in groups.values()):
        wrong("groups.json", "every group must be a text")
    place = folder / "sessions"
    folders = {path.name for path in place.iterdir() if path.is_dir()} if place.is_dir() else set()
    for message, ids in (
        ("labelled sessions without a folder", set(labels) - folders),
        ("sessions without an entry in labels.json", folders - set(labels)),
    ):
        if ids:
            wrong("sessions", f"{len(ids)} {message}, as {', '.join(sorted(ids)[:3])}")
    if not folders:
        wrong("sessions", "there is no session")
    if extra := set(groups) - set(labels):
        wrong(
            "groups.json", f"{len(extra)} groups of sessions that are not labelled, as {', '.join(sorted(extra)[:3])}"
        )
    if channels is None or any(problem.where == "labels.json" for problem in problems):
        return None, problems
    labels = {session_id: tuple(words) for session_id, words in labels.items()}
    name, description = str(manifest.get("dataset_name")), str(manifest.get("description"))
    return SessionSet(folder, name, description, channels, labels, dict(groups)), problems


def _read_json(path, wrong):
    """The dict in a file, or None and a problem."""

    def once(pairs):
        if twice := [name for name, n in Counter(name for name, _ in pairs).items() if n > 1]:
            raise ValueError(f"{', '.join(map(repr, twice))} stands there twice")
        return dict(pairs)

    try:
        content = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=once)
    except (OSError, ValueError, RecursionError) as error:
        wrong(path.name, f"cannot be read: {error}")
        return None
    if not isinstance(content, dict):
        wrong(path.name, f"must hold a JSON object, got a {type(content).__name__}")
        return None
    return content


def _channels(entries, wrong):
    """The manifest's channels, or None and problems."""
    if not isinstance(entries, list) or not entries or not all(isinstance(entry, dict) for entry in entries):
        wrong("manifest.json", "channels must be a list of {name, description, sampling_rate_hz}")
        return None
    channels, before = [], set()
    for entry in entries:
        name, rate = entry.get("name"), entry.get("sampling_rate_hz")
        if not isinstance(name, str) or not name or name in before or name == TIME:
            wrong("manifest.json", f"each channel needs a name of its own, got {name!r}")
            continue
        before.add(name)
        if not isinstance(entry.get("description"), str) or not entry["description"].strip():
            wrong("manifest.json", f"channel {name} needs a description")
        if not isinstance(entry.get("may_be_missing", False), bool):
            wrong(
                "manifest.json",
                f"may_be_missing of channel {name} must be true or false, got {entry['may_be_missing']!r}",
            )
        if isinstance(rate, bool) or not isinstance(rate, int | float) or not 0 < rate < 1e9:
            wrong("manifest.json", f"channel {name} needs a sampling_rate_hz above 0, got {rate!r}")
            continue
        channels.append(Channel(name, str(entry.get("description")), float(rate), entry.get("may_be_missing") is True))
    return tuple(channels) if len(channels) == len(entries) else None


def _read_table(folder, session_id, channels):
    """The table of a session (None if there is none to read) and what is wrong with it."""
    parquet = require_extra("pyarrow.parquet", "data")
    where, problems = f"sessions/{session_id}", []

    def wrong(message):
        problems.append(Problem("error", where, message))
        return None, problems

    try:
        table = parquet.ParquetFile(folder / "sessions" / session_id / "data.parquet").read()
    except (OSError, ValueError, TypeError) as error:  # what pyarrow raises is one of them
        return wrong(f"data.parquet cannot be read: {error}")
    names, known = table.column_names, {channel.name: channel for channel in channels}
    if not names or names[0] != TIME:
        return wrong(f"the first column must be {TIME}, got {', '.join(names[:3]) or 'none'}")
    if unknown := [name for name in names[1:] if name not in known]:
        wrong(f"columns that the manifest does not have: {', '.join(unknown[:5])}")
    if len(names) < 2 or len(set(names)) < len(names):
        wrong("there must be channels beside the time, none of them twice")
    if problems:
        return None, problems
    rates = {known[name].sampling_rate_hz for name in names[1:]}
    if len(rates) > 1:
        return wrong(
            f"its channels have different rates, {', '.join(f'{rate:g}' for rate in sorted(rates))} Hz: resample them"
        )
    if lost := [name for name in names if str(table.schema.field(name).type) not in ("float", "double", "halffloat")]:
        return wrong(f"columns must hold floats: {', '.join(lost)}")
    if table.num_rows < 2:
        return wrong(f"a session needs at least 2 samples, got {table.num_rows}")
    _check_clock(table[TIME].to_numpy(), rates.pop(), wrong)
    for name in names[1:]:
        values = table[name].to_numpy()
        lost = ~np.isfinite(values)
        if np.isinf(values).any() or (lost.any() and not known[name].may_be_missing):
            at = int(np.flatnonzero(lost)[0])
            wrong(f"channel {name}: {int(lost.sum())} values are NaN or infinite, the first in row {at}")
    return table, problems


def _check_clock(time, rate, wrong):
    if not np.isfinite(time).all():
        return wrong(f"{TIME} holds NaN or infinity")
    step = np.diff(time)
    if (step <= 0).any():
        at = int(np.flatnonzero(step <= 0)[0]) + 1
        return wrong(
            f"{TIME} must increase strictly; row {at} ({time[at]:g} s) follows {time[at - 1]:g} s (not sorted?)"
        )
    if abs(time[0]) > START_TOLERANCE_S:
        wrong(f"{TIME} must begin at 0.0, got {time[0]:g}")
    off = np.abs(step * rate - 1) > CLOCK_TOLERANCE
    if off.any():
        at = int(np.flatnonzero(off)[0])
        seen = (
            f"{1 / np.median(step):.4g} Hz in the median"
            if off.mean() > 0.5
            else f"a step of {step[at]:g} s at row {at}"
        )
        wrong(f"the manifest says {rate:g} Hz, {TIME} has {seen} ({int(off.sum())} of {len(step)} steps differ)")
    return None
