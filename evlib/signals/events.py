"""Events: a sorted, checked table of when which kind of event happened.

One row is one event: integer ``sample`` plus ``fraction`` (samples, [-0.5, 0.5)), ``type`` (index into
``names``), ``score`` (higher is surer; NaN for a reference) and ``sigma_s`` (predicted standard
deviation of the time, seconds; NaN where unknown), ``duration_s`` (seconds; 0 for a moment). ``extra`` holds further
columns of a file, as text. ``labelled_spans`` says where the labelling is
complete: None means the whole recording; outside of the spans a missing label means nothing.

On disk, events are a BIDS-like ``events.tsv``: ``onset`` and ``duration`` in seconds, ``trial_type``, then
``sample``, ``sampling_rate_hz``, ``score`` and ``sigma_s`` where known. Rows whose ``trial_type`` is
``labelled_span`` are not events: they are the spans that were labelled completely.
"""

import re
import unicodedata
from dataclasses import dataclass, field, replace
from itertools import combinations
from pathlib import Path

import numpy as np

from .atomic import replace_file, require_replaceable
from .clock import (
    MICROSECOND_CLOCK_HZ,
    MOST_SAMPLES,
    SLACK_SAMPLES,
    change_clock,
    require_countable,
    seconds_to_samples,
    split_time,
)
from .errors import (
    DataError,
    EvlibError,
    OptionError,
    ShapeError,
    UnitError,
    float_array,
    path_of,
    require_int,
    require_known,
    require_list,
    require_number,
    require_rate,
    warn,
)
from .tables import read_table
from .text import plain_name

# The trial_type of a row that is no event but a span that was labelled completely.
SPAN_TYPE = "labelled_span"
# What stands for "no value" in a trial_type.
NO_VALUE = "n/a"
MISSING = {"", NO_VALUE}
COLUMNS = ["onset", "duration", "trial_type", "sample", "sampling_rate_hz", "score", "sigma_s"]
# Arrays of a table, with the type of their numbers.
ARRAYS = {
    "sample": np.int64,
    "fraction": np.float64,
    "type": np.int64,
    "score": np.float64,
    "sigma_s": np.float64,
    "duration_s": np.float64,
}
# A number with commas that may stand between thousands or before decimals.
THOUSANDS = r"[+-]?\d{1,3}(,\d{3})+"
# Fractions smaller than this many samples are rounding left over from a file's six decimals.
SNAP_SAMPLES = 1e-9


@dataclass(frozen=True, eq=False)
class Events:
    """A sorted table of events on one clock.

    Parameters
    ----------
    sample, fraction : (n,) integer and float arrays: the time is ``(sample + fraction) / sampling_rate_hz``
    type : (n,) integer array, index into ``names``
    names : event names, one for each type that may occur
    sampling_rate_hz : the clock
    score, sigma_s : (n,) floats, NaN where unknown
    duration_s : (n,) floats, seconds; 0 without it, NaN where a file says n/a
    labelled_spans : (k, 2) integer [first sample, one past the last) where the labelling is complete;
        None for the whole recording
    extra : further columns as text, a mapping of names to (n,) values; written as they are

    Raises
    ------
    ShapeError, UnitError, OptionError, DataError : columns of unequal length, times that are not finite,
        types outside ``names``, names that repeat

    Examples
    --------
    >>> events = Events.from_seconds([2.0, 1.0], ["b", "a"], sampling_rate_hz=2000)
    >>> events.onset_s
    array([1., 2.])
    >>> events.type_names
    ['a', 'b']
    """

    sample: np.ndarray
    fraction: np.ndarray
    type: np.ndarray
    names: tuple
    sampling_rate_hz: float
    score: np.ndarray = None  # type: ignore[assignment]
    sigma_s: np.ndarray = None  # type: ignore[assignment]
    labelled_spans: np.ndarray | None = None
    duration_s: np.ndarray = None  # type: ignore[assignment]
    extra: dict = field(default_factory=dict)

    def __post_init__(self):
        n = len(np.atleast_1d(self.sample))
        arrays = {}
        for name, dtype in ARRAYS.items():
            value = getattr(self, name)
            array = np.atleast_1d(np.full(n, 0.0 if name == "duration_s" else np.nan) if value is None else value)
            if array.shape != (n,):
                raise ShapeError(f"columns of Events must have shape ({n},) like `sample`; {name!r} has {array.shape}")
            if dtype is np.int64 and array.size and array.dtype.kind not in "iu":
                hint = "(seconds? use Events.from_seconds)"
                raise UnitError(f"column {name!r} of Events must hold integers, got {array.dtype} {hint}")
            arrays[name] = array.astype(dtype)
        if (arrays["duration_s"] < 0).any() or np.isinf(arrays["duration_s"]).any():
            raise DataError(f"an event cannot last {arrays['duration_s'].min():g} to {arrays['duration_s'].max():g} s")
        if not np.isfinite(arrays["fraction"]).all():
            raise DataError("the times of events must be finite; found NaN or infinity")
        names, type = _checked_names(self.names), arrays["type"]
        if n and (type.min() < 0 or type.max() >= len(names)):
            raise OptionError(f"event types must be 0..{len(names) - 1}, to index {names}; got {np.unique(type)}")
        # A fraction outside [-0.5, 0.5) moves into the sample, so that equal times have equal rows.
        carry, arrays["fraction"] = split_time(arrays["fraction"])
        require_countable(self.sample if n else 0)
        arrays["sample"] += carry
        order = np.lexsort((type, arrays["fraction"], arrays["sample"]))
        vars(self).update({name: array[order] for name, array in arrays.items()}, names=names)
        vars(self).update(extra=_checked_extra(self.extra, n, order))
        vars(self).update(sampling_rate_hz=require_rate(self.sampling_rate_hz))
        if self.labelled_spans is not None:
            vars(self).update(labelled_spans=_merged_spans(self.labelled_spans))

    @classmethod
    def from_seconds(
        cls,
        onset_s,
        type,
        sampling_rate_hz: float,
        names=None,
        score=None,
        sigma_s=None,
        complete_spans_s=None,
        duration_s=None,
    ) -> "Events":
        """Build from times in seconds; ``type`` holds event names, or indices into ``names``.

        Without ``names`` the names are those that occur, sorted.
        """
        rate = require_rate(sampling_rate_hz)
        onset_s = np.atleast_1d(float_array("onset_s", onset_s))
        if not np.isfinite(onset_s).all():
            raise DataError("onset_s must be finite; found NaN or infinity")
        type = np.atleast_1d(np.asarray(type))
        if type.size == 0:
            type, names = np.zeros(0, dtype=np.int64), () if names is None else names
        elif type.dtype.kind in "OUST":
            type, names = _indices([str(label) for label in type], names)
        elif names is None:
            names = tuple(f"event_{k}" for k in range(int(type.max()) + 1))
        spans = None if complete_spans_s is None else _spans_to_samples(complete_spans_s, rate)
        sample, fraction = seconds_to_samples(onset_s, rate)
        return cls(sample, fraction, type, names, rate, score, sigma_s, spans, duration_s)

    @classmethod
    def empty(cls, names, sampling_rate_hz: float) -> "Events":
        """A table without rows."""
        none = np.zeros(0, dtype=np.int64)
        return cls(none, none.astype(float), none, names, sampling_rate_hz)

    @staticmethod
    def concatenate(tables) -> "Events":
        """Join tables on one clock with the same names; labelled spans are joined too."""
        tables = list(tables)
        if not tables:
            raise OptionError("there are no tables to join")
        if len({(table.names, table.sampling_rate_hz) for table in tables}) > 1:
            raise OptionError("tables must share their names and sampling rate; call at_rate and with_names first")
        columns = {name: np.concatenate([getattr(table, name) for table in tables]) for name in ARRAYS}
        names = dict.fromkeys(name for table in tables for name in table.extra)
        extra = {
            name: np.concatenate([table.extra.get(name, np.full(len(table), NO_VALUE, object)) for table in tables])
            for name in names
        }
        spans = [table.labelled_spans for table in tables]
        whole = any(span is None for span in spans)
        return replace(tables[0], **columns, extra=extra, labelled_spans=None if whole else np.concatenate(spans))

    def __len__(self):
        return len(self.sample)

    def __getitem__(self, rows) -> "Events":
        """Select rows by a boolean mask, an index array or a slice."""
        rows = [rows] if np.isscalar(rows) else rows
        extra = {name: column[rows] for name, column in self.extra.items()}
        return replace(self, extra=extra, **{name: getattr(self, name)[rows] for name in ARRAYS})

    def __repr__(self):
        spans = "" if self.labelled_spans is None else f", {len(self.labelled_spans)} labelled spans"
        return f"Events({len(self)} events, {len(self.names)} types, {self.sampling_rate_hz:g} Hz{spans})"

    @property
    def time_samples(self) -> np.ndarray:
        """(n,) float times in samples of this table's clock."""
        return self.sample + self.fraction

    @property
    def onset_s(self) -> np.ndarray:
        """(n,) float times in seconds."""
        return self.time_samples / self.sampling_rate_hz

    @property
    def type_names(self) -> list:
        """The name of every row's type."""
        return [self.names[k] for k in self.type]

    @property
    def complete_spans_s(self) -> np.ndarray | None:
        """(k, 2) labelled spans in seconds, or None for the whole recording."""
        return None if self.labelled_spans is None else self.labelled_spans / self.sampling_rate_hz

    def counts(self) -> np.ndarray:
        """Number of events of each type, (len(names),) integers."""
        return np.bincount(self.type, minlength=len(self.names))

    def at_rate(self, sampling_rate_hz: float) -> "Events":
        """The same times on another clock, to a billionth of its samples."""
        rate = require_rate(sampling_rate_hz)
        if rate == self.sampling_rate_hz:
            return self
        sample, fraction = change_clock(self.sample, self.fraction, self.sampling_rate_hz, rate)
        # Times that came through six decimals land on whole samples again.
        on_file_clock = self.sampling_rate_hz == MICROSECOND_CLOCK_HZ
        near = np.abs(fraction) < (0.6 * rate / MICROSECOND_CLOCK_HZ if on_file_clock else SNAP_SAMPLES)
        fraction = np.where(near, 0.0, fraction)
        spans = None
        if self.labelled_spans is not None:
            spans = _spans_to_samples(self.complete_spans_s, rate)
            # An event that rounding moves to the end of its span stays within it.
            inside = np.unique(sample[self.is_labelled(self.sample)])
            spans = np.concatenate([spans, np.column_stack([inside, inside + 1])])
        return replace(self, sample=sample, fraction=fraction, sampling_rate_hz=rate, labelled_spans=spans)

    def with_names(self, names) -> "Events":
        """The same events indexed into ``names``; refuses when an event's name is not among them."""
        names = _checked_names(names)
        if names == self.names:
            return self
        present, index = np.unique(self.type), np.zeros(len(self.names), dtype=np.int64)
        index[present], _ = _indices([self.names[k] for k in present], names)
        return replace(self, type=index[self.type], names=names)

    def select(self, names) -> "Events":
        """The events of some types; spans stay as they are.

        >>> Events.from_seconds([1.0, 2.0, 3.0], ["a", "note", "b"], 2000).select(["a", "b"]).type_names
        ['a', 'b']
        """
        names = _checked_names((names,) if isinstance(names, str) else names)
        require_known(names, self.names, "select")
        kept = [name for name in self.names if name in names]
        return self[np.isin(self.type, [self.names.index(name) for name in kept])].with_names(kept)

    def within(self, start: int, stop: int) -> "Events":
        """The events with start <= sample < stop (samples), on the same clock; spans are cut to it."""
        require_number(-MOST_SAMPLES, MOST_SAMPLES, start=start, stop=stop)
        events = self[(self.sample >= start) & (self.sample < stop)]
        if self.labelled_spans is None:
            return events
        spans = np.clip(self.labelled_spans, start, stop)
        return replace(events, labelled_spans=spans[spans[:, 1] > spans[:, 0]])

    def shift(self, n_samples: int) -> "Events":
        """All times and spans moved by a whole number of samples."""
        require_int(-MOST_SAMPLES, n_samples=n_samples)
        spans = None if self.labelled_spans is None else self.labelled_spans + int(n_samples)
        return replace(self, sample=self.sample + int(n_samples), labelled_spans=spans)

    def is_labelled(self, sample) -> np.ndarray:
        """(m,) booleans: does each sample (m,) lie in a completely labelled span?"""
        sample = np.asarray(sample)
        if self.labelled_spans is None or len(self.labelled_spans) == 0:
            return np.full(sample.shape, self.labelled_spans is None)
        k = np.searchsorted(self.labelled_spans[:, 0], sample, side="right") - 1
        return (k >= 0) & (sample < self.labelled_spans[np.maximum(k, 0), 1])

    def covers(self, events: "Events") -> np.ndarray:
        """(len(events),) booleans: does each of the ``events``, on any clock, lie in a completely labelled span?

        Judged on the clock of this table, on which its spans are exact.
        """
        clocks = events.sampling_rate_hz, self.sampling_rate_hz
        return self.is_labelled(change_clock(events.sample, events.fraction, *clocks)[0])

    def to_frame(self):
        """A pandas table with the columns of an events file, plus ``fraction``."""
        import pandas as pd

        columns = {"onset": self.onset_s, "duration": self.duration_s, "trial_type": self.type_names}
        columns |= {name: getattr(self, name) for name in ("sample", "fraction", "score", "sigma_s")}
        return pd.DataFrame(columns | self.extra)


def _checked_extra(extra, n, order):
    """Further columns: text of one line, in the order of the rows."""
    checked = {}
    for name, column in extra.items():
        if name in (*COLUMNS, "fraction") or not (isinstance(name, str) and name.strip() and name.isprintable()):
            raise OptionError(f"{name!r} cannot name a further column of Events")
        text = np.array([NO_VALUE if value is None else str(value) for value in column], dtype=object)
        if text.shape != (n,):
            raise ShapeError(f"columns of Events must have shape ({n},) like `sample`; extra {name!r} has {text.shape}")
        for value in text:
            if _is_control(value):
                raise DataError(f"column {name!r}: {value!r} has control characters; a table cannot hold it")
        checked[name] = text[order]
    return checked


def _is_control(text):
    return any(unicodedata.category(letter) in ("Cc", "Zl", "Zp") for letter in text)


def _checked_names(names):
    """Event names as a tuple; each may stand in an event file."""
    require_list(names=names)
    names = tuple(str(name) for name in names)
    if len(set(names)) != len(names):
        raise OptionError(f"event names must differ from each other, got {names}")
    if SPAN_TYPE in names:
        raise OptionError(f"{SPAN_TYPE!r} marks labelled spans in event files and cannot name an event")
    for name in filter(_is_control, names):
        raise OptionError(f"the event name {name!r} has control characters")
    for name in MISSING & set(names):
        raise OptionError(f"an event cannot be named {name!r}: in a file that means a missing value")
    return names


def warn_of_near_names(tables) -> None:
    """Warn of names that differ only in case, blanks or the form of Unicode, unless two or more tables agree on them.

    >>> import warnings
    >>> with warnings.catch_warnings(record=True) as caught:
    ...     warn_of_near_names([Events.empty(["Bell"], 100), Events.empty(["bell "], 100)])
    >>> print(caught[0].message)
    'Bell' and 'bell ' count as two kinds of events; they differ only in case, blanks or the form of Unicode
    """
    written: dict = {}
    for name in dict.fromkeys(name for table in tables for name in table.names):
        written.setdefault(plain_name(name), []).append(name)
    for names in written.values():
        for a, b in combinations(names, 2):
            if len(tables) < 2 or not all({a, b} <= set(table.names) for table in tables):
                differ = "they differ only in case, blanks or the form of Unicode"
                warn(f"{a!r} and {b!r} count as two kinds of events; {differ}")


def _indices(labels, names):
    """Indices of ``labels`` in ``names``, and the names: without them those that occur, sorted."""
    names = tuple(sorted(set(labels))) if names is None else _checked_names(names)
    require_known(labels, names)
    lookup = {name: k for k, name in enumerate(names)}
    return np.array([lookup[label] for label in labels], dtype=np.int64), names


def _as_spans(spans):
    """(k, 2) finite numbers."""
    spans = np.asarray(spans)
    if spans.size == 0:
        return np.zeros((0, 2), dtype=np.int64)
    if spans.ndim != 2 or spans.shape[1] != 2:
        raise ShapeError(f"labelled spans must have shape (k, 2), [start, stop); got {spans.shape}")
    if not np.isfinite(spans).all() or (spans[:, 1] < spans[:, 0]).any():
        raise DataError("every labelled span must have finite times and end after it starts")
    return spans


def _spans_to_samples(spans_s, sampling_rate_hz):
    """(k, 2) spans in seconds to whole samples; those too short to hold one sample are left out."""
    spans, _ = split_time(_as_spans(spans_s) * sampling_rate_hz)
    return spans[spans[:, 1] > spans[:, 0]]


def _merged_spans(spans):
    """Sorted, merged (k, 2) integer spans."""
    spans = _as_spans(spans)
    if not np.issubdtype(spans.dtype, np.integer):
        raise UnitError("labelled_spans must hold integer samples (were seconds passed? use Events.from_seconds)")
    if (spans[:, 1] == spans[:, 0]).any():
        raise DataError("every labelled span must end after it starts")
    require_countable(spans)
    if not len(spans):
        return spans
    spans = spans[np.argsort(spans[:, 0], kind="stable")].astype(np.int64)
    first = np.r_[True, spans[1:, 0] > np.maximum.accumulate(spans[:, 1])[:-1]]
    return np.column_stack([spans[first, 0], np.maximum.reduceat(spans[:, 1], np.flatnonzero(first))])


# ---- files ----------------------------------------------------------------------------------------------------------


def read_events(
    path: str | Path, sampling_rate_hz: float | None = None, names=None, type_column: str = "trial_type"
) -> Events:
    """Read a BIDS-like ``events.tsv`` (or .csv).

    Parameters
    ----------
    path : a table with the columns ``onset`` (seconds) and ``trial_type``; ``score``, ``sigma_s`` and
        ``sampling_rate_hz`` are read where they stand, other columns become ``extra``
    sampling_rate_hz : put the events on this clock; without it the file's own, or else microseconds
        (every function of evlib moves events to the clock of the recording they are used with)
    names : the event names to index into; without it those in the file, sorted
    type_column : the column with the event names, such as "value"; then ``trial_type`` is kept in ``extra`` as
        ``original_trial_type``

    Raises
    ------
    DataError : the file is missing, has no such columns, or holds times that are no numbers
    OptionError : a name in the file is not among ``names``
    """
    path = path_of(path)
    if not path.is_file():
        raise DataError(f"no event table at {path}")
    table = _read_table(path, type_column)
    try:
        events = events_of(table, names)
    except EvlibError as error:
        raise type(error)(f"{path}: {error}") from error
    return events if sampling_rate_hz is None else events.at_rate(sampling_rate_hz)


def events_of(table, names=None) -> Events:
    """Events from a pandas table with the columns of an events file, which `checked_table` has checked."""
    rates = table["sampling_rate_hz"].dropna().unique() if "sampling_rate_hz" in table else []
    if len(rates) > 1:
        raise DataError(f"there are several sampling rates: {sorted(rates)}")
    is_span = (table["trial_type"] == SPAN_TYPE).to_numpy()
    rows, spans = table[~is_span], table[is_span]
    rate = require_rate(rates[0]) if len(rates) else MICROSECOND_CLOCK_HZ
    kinds, names = _indices(rows["trial_type"].tolist(), names)
    columns = {name: rows[name].to_numpy(float) for name in ("score", "sigma_s") if name in rows}
    columns["duration_s"] = rows["duration"].to_numpy(float) if "duration" in rows else None
    columns["extra"] = {name: rows[name].to_numpy() for name in rows if name not in COLUMNS}
    lost = [name for name in columns["extra"] if not spans[name].isin([*MISSING, None]).all()]
    if lost:
        warn(f"columns {', '.join(lost)}: what they say of labelled spans is not kept")
    columns["labelled_spans"] = _file_spans(spans, rate) if is_span.any() else None
    sample, fraction = _file_times(rows, rate)
    return Events(sample, fraction, kinds, names, rate, **columns)


def _read_table(path, type_column):
    """The columns of an event file, numbers as numbers, text without blanks around it."""
    try:
        table, _, first_line = read_table(path, dtype=str, keep_default_na=False)
    except (ValueError, UnicodeDecodeError) as error:
        reason = re.sub(" see sep=[^)]*", "", str(error))  # options of recordings
        raise DataError(f"{path} is not a readable event table: {reason}") from error
    absent = sorted({"onset", type_column} - set(table.columns))
    if absent:
        has = f"it has {list(table.columns)} (is it tab-separated, with a header of onset, duration, trial_type?)"
        raise DataError(f"{path} lacks the column {' and '.join(absent)}; {has}; type_column= names that of the types")
    if type_column != "trial_type":
        table = table.rename(columns={"trial_type": "original_trial_type"}).rename(columns={type_column: "trial_type"})
    table = table.apply(lambda column: column.str.strip())
    table["trial_type"] = table["trial_type"].mask(table["trial_type"].isin(MISSING))
    numbers = [name for name in COLUMNS if name in table and name != "trial_type"]
    for column in numbers:
        table[column] = table[column].mask(table[column].isin([*MISSING, "nan", "NaN"]))
    texts = [text for column in numbers for text in table[column].dropna()]
    commas = [text for text in texts if "," in text]
    if not any("." in text for text in texts) and not all(re.fullmatch(THOUSANDS, text) for text in commas):
        table[numbers] = table[numbers].apply(lambda column: column.str.replace(",", "."))
    return checked_table(table, path, first_line)


def checked_table(table, path, first_line: int = 1):
    """A table with its numbers as numbers, or an error that names the line."""
    import pandas as pd

    for column in [name for name in COLUMNS if name in table and name != "trial_type"]:
        numbers = pd.to_numeric(table[column], errors="coerce")
        for bad in np.flatnonzero(numbers.isna() & table[column].notna()):
            raise DataError(f"{path}, line {bad + first_line}: {column} is {table[column].iloc[bad]!r}, not a number")
        table[column] = numbers
    for bad in np.flatnonzero(~np.isfinite(table["onset"].to_numpy(float)) | table["trial_type"].isna()):
        others = [repr(name) for name in table if name not in COLUMNS]
        hint = f" (types in another column? type_column= is one of {', '.join(others)})" if others else ""
        wanted = "an event needs a finite onset in seconds and a trial_type"
        raise DataError(f"{path}, line {bad + first_line}: {wanted}{hint}")
    return table


def _file_samples(rows):
    """(n,) samples as a file states them, NaN where it does not.

    Alone they mean nothing, next to a rate they are exact.
    """
    stated = "sample" in rows and "sampling_rate_hz" in rows
    return rows["sample"].to_numpy(float) if stated else np.full(len(rows), np.nan)


def _file_times(rows, rate):
    """Integer samples and fractions out of the rows of a file: ``sample`` is exact, ``onset`` good to a microsecond."""
    onset_s, stated = rows["onset"].to_numpy(float), _file_samples(rows)
    blur = 0.6 * rate / MICROSECOND_CLOCK_HZ + SLACK_SAMPLES
    time = onset_s * rate
    for k in np.flatnonzero(np.abs(time - stated) > 1 + blur):
        hint = "(remove that column if the onsets are right)"
        at = f"onset {onset_s[k]:.6f} s at {rate:g} Hz is sample {time[k]:.1f}"
        raise DataError(f"{at}, but the column sample says {stated[k]:.0f} {hint}")
    sample, fraction = split_time(time)
    if rate == MICROSECOND_CLOCK_HZ:
        return sample, fraction
    # Six decimals move a time next to the middle between two samples across it.
    known = np.abs(time - stated) <= 0.5 + blur
    sample = np.where(known, np.nan_to_num(stated), sample).astype(np.int64)
    fraction = np.clip(time - sample, -0.5, np.nextafter(0.5, 0))
    return sample, np.where(np.abs(fraction) < blur, 0.0, fraction)


def _file_spans(rows, rate):
    """(k, 2) labelled spans in samples out of the rows of a file; an empty one says that nothing is labelled."""
    if "duration" not in rows or rows["duration"].isna().any():
        raise DataError(f"every {SPAN_TYPE} needs a duration in seconds")
    start = np.where(np.isnan(_file_samples(rows)), rows["onset"].to_numpy(float), _file_samples(rows) / rate)
    return _spans_to_samples(np.column_stack([start, start + rows["duration"].to_numpy(float)]), rate)


def write_events(events: Events, path: str | Path) -> None:
    """Write a BIDS-like ``events.tsv``; the file is replaced only once it is whole.

    Reading it back gives the same samples, names that occur, scores, durations, further columns and spans; fractions to
    a microsecond.
    """
    require_replaceable(path, "events")
    table = table_of(events)
    table = table.assign(onset=[f"{onset:.6f}" for onset in table["onset"]])
    with replace_file(path) as temporary:
        table.to_csv(temporary, sep="\t", index=False, na_rep="n/a", lineterminator="\n")


def table_of(events: Events):
    """A pandas table with the columns of an events file: a row for each labelled span and each event."""
    import pandas as pd

    table, rate = events.to_frame(), events.sampling_rate_hz
    if events.labelled_spans is not None:
        # One empty span says that nothing is labelled completely; no span at all would mean that everything is.
        spans = events.labelled_spans if len(events.labelled_spans) else np.zeros((1, 2), dtype=np.int64)
        columns = {"onset": spans[:, 0] / rate, "duration": np.diff(spans)[:, 0] / rate, "sample": spans[:, 0]}
        rows = pd.DataFrame(columns).assign(trial_type=SPAN_TYPE)
        table = pd.concat([rows, table]) if len(table) else rows
    table = table.assign(sampling_rate_hz=rate)
    return table.reindex(columns=[*COLUMNS, *events.extra]).astype({"sample": "Int64"})
