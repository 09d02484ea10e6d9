"""Time columns: which column of a table is the time, in which unit, and stamps onto a uniform grid.

A wrong guess here is silent: seconds for milliseconds make a recording of another rate. Where a name, an option or the
stamps themselves do not settle it, the error names the option that does.
"""

import re
from datetime import datetime, timedelta

import numpy as np

from .clock import CLOCK_TOLERANCE_SAMPLES, uniform_rate
from .errors import DataError, EvlibError, OptionError, UnitError, require_choice, warn

# Units of time in seconds, and how they are written.
UNITS_S = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9, "min": 60.0, "h": 3600.0, "d": 86400.0}
SPELLINGS = {
    "s": "s sec secs second seconds",
    "ms": "ms msec msecs millis millisecond milliseconds",
    "us": "us µs μs usec usecs micros microsecond microseconds",
    "ns": "ns nsec nanos nanosecond nanoseconds",
    "min": "min mins minute minutes",
    "h": "h hr hour hours",
    "d": "day days",
}
UNIT_OF = {word: unit for unit, words in SPELLINGS.items() for word in words.split()}
# A name is that of a time when all its words are here or units, and it is one of the first kind or a whole unit.
TIMES = {"time", "times", "timestamp", "timestamps", "datetime", "t", "stamp", "elapsed", "date", "zeit"}
TIMES |= {"unixtime", "epoch", "unixtimestamp", "localtime", "utctime", "systemtime", "uptime"}
BESIDE = {
    "utc",
    "gmt",
    "local",
    "unix",
    "system",
    "sample",
    "sensor",
    "device",
    "recording",
    "relative",
    "rel",
    "since",
}
BESIDE |= {
    "start",
    "iso",
    "iso8601",
    "in",
    "of",
    "day",
    "the",
    "logging",
    "host",
    "gps",
    "from",
    "abs",
    "absolute",
    "rec",
}
# Numbers from which on stamps are a date after 1973, in seconds and in smaller units.
EPOCH_S, EPOCHS = 1e8, (("ns", 1e17), ("us", 1e14), ("ms", 1e11))
# Rates (Hz) that nobody samples at: seconds taken for another unit. They are believed where the unit was said.
RATES = (1.0, 1e6)
# Times since 1970 in seconds from here on count from another year.
LATEST_S = 3e9
# A column of at least so many rows that rises in each, mostly by steps equal to so much, is a clock or a counter.
COUNTED, SAME_STEP, MOSTLY = 20, 0.1, 0.9
# Steps longer than so many usual ones are gaps; a grid is at most so much longer than the table.
GAP_STEPS, LONGEST_GRID = 2.5, 50
# Formats of local times beside ISO 8601; where the day and the month can be exchanged, only differences are kept.
DAYS = ("%m/%d/%Y", "%d/%m/%Y", "%d.%m.%Y", "%Y/%m/%d", "%d-%m-%Y")
FORMATS = [f"{day} {time}" for day in DAYS for time in ("%H:%M:%S.%f", "%I:%M:%S.%f %p")]


def is_time(name: str) -> bool:
    """Is this the name of a column that holds the time?

    >>> [is_time(name) for name in ("Time (s)", "# time", "seconds_elapsed", "time_ms", "temperature", "x (s)")]
    [True, True, True, True, False, False]
    """
    words = _words(name)
    seconds = len(words) == 1 and words[0] in UNIT_OF and len(words[0]) > 2
    return seconds or bool(TIMES & set(words)) and all(w in TIMES or w in BESIDE or w in UNIT_OF for w in words)


def unit_of(name: str) -> str | None:
    """The unit that the name of a time column tells, or None.

    >>> unit_of("Time (s)"), unit_of("time_ms"), unit_of("timestamp")
    ('s', 'ms', None)
    """
    units = [UNIT_OF[word] for word in _words(name) if word in UNIT_OF and word != "day"]
    return units[-1] if units else None


def _words(name):
    words = re.sub(r"([a-zµμ])([A-Z])", r"\1 \2", str(name))  # elapsedTime
    return re.findall(r"iso8601|[^\W\d_]+|\d+", words.lower())


def seconds_of(
    column, name: str, time_unit: str | None, given: float | None = None
) -> tuple[np.ndarray, datetime | None, bool]:
    """Seconds (n,) from a column of stamps, their date where they tell one, and whether their unit was said; ``given``:
    the rate, for a counter of samples.

    Raises
    ------
    DataError : text that is no time, missing stamps
    UnitError : numbers that look like a date in another unit than seconds
    """
    import pandas as pd

    if column.dtype.kind not in "iufbmM" and not isinstance(column.dtype, pd.DatetimeTZDtype):
        numbers = pd.to_numeric(column, errors="coerce")
        column = _dates(column, name) if numbers.isna().all() else numbers
    if column.isna().any():
        row = int(np.argmax(column.isna())) + 1
        raise DataError(f"the time column {name!r} needs finite times, row {row} has none (see time_column=)")
    if column.dtype.kind == "m":
        return column.dt.total_seconds().to_numpy(), None, True
    if column.dtype.kind == "M" or isinstance(column.dtype, pd.DatetimeTZDtype):
        first = column.iloc[0]
        return (column - first).dt.total_seconds().to_numpy(), first.to_pydatetime(warn=False), True
    values = column.to_numpy()
    if values.dtype.kind not in "iu":
        values = values.astype(np.float64)
    if not len(values) or not np.isfinite(values.astype(np.float64)).all():
        raise DataError("the time column must hold two or more finite times in seconds")
    unit = time_unit or unit_of(name)
    first = float(values[0])
    if unit is None:
        step = float(np.median(np.abs(np.diff(values.astype(np.float64))))) if len(values) > 1 else 0.0
        for epoch, least in EPOCHS:
            if first >= least:
                likely = [
                    u for u in (epoch, "ms", "us", "ns") if RATES[0] <= 1 / max(step * UNITS_S[u], 1e-99) <= RATES[1]
                ]
                epoch = (likely or [epoch])[0]
                raise UnitError(
                    f"stamps in {name!r} such as {values[0]} look like a clock in {epoch}, not like seconds; pass "
                    f"time_unit={epoch!r}"
                )
    if unit == "samples" and given is None:
        raise OptionError('time_unit="samples" needs sampling_rate_hz=')
    scale = 1 / given if unit == "samples" and given else UNITS_S[unit or "s"]
    start = None
    if EPOCH_S <= first * scale < LATEST_S:
        start = datetime.fromisoformat("1970-01-01T00:00:00+00:00") + timedelta(seconds=first * scale)
        values = values - values[0]  # in integers where they are: nanoseconds of a date are more than a float holds
    return values.astype(np.float64) * scale, start, unit is not None


def _dates(column, name):
    """Dates and times from text."""
    import pandas as pd

    text = column.astype(str).str.strip().str.replace(r"(\d:\d\d:\d\d)[:,](\d+)", r"\1.\2", regex=True)
    text = text.mask(column.isna())
    if text.str.fullmatch(r"\d{1,3}:\d\d:\d\d(\.\d+)?").all():
        times = pd.to_timedelta(text)
        return times + pd.to_timedelta((times.diff() < -timedelta(hours=12)).cumsum(), unit="D")  # past midnight
    fits: list = []
    for utc in (False, True):  # offsets may change with daylight saving
        try:
            return pd.to_datetime(text, format="ISO8601", utc=utc)
        except (ValueError, TypeError):
            continue
    # A whole second has no decimals in some exports.
    padded = text.str.replace(r"(\d:\d\d:\d\d)(?![.\d])", r"\1.0", regex=True)
    for form in FORMATS:
        try:
            fits.append(pd.to_datetime(padded, format=form))
        except (ValueError, TypeError):
            continue
    if not fits:
        bad = column.iloc[0]
        raise DataError(
            f"the time column {name!r} holds {bad!r}: no number, and no date and time such as 2024-05-01 12:00:00.25"
        )
    if len(fits) > 1 and (fits[0] - fits[0].iloc[0]).equals(fits[1] - fits[1].iloc[0]) and not fits[0].equals(fits[1]):
        return fits[0] - fits[0].iloc[0]  # 05/01: May or January? The differences are the same
    return fits[0]


def start_of(column, name: str) -> datetime | None:
    """The date of the first of the stamps beside the time, or None."""
    first = column.iloc[0] if len(column) else None
    unit = next((unit for unit, least in EPOCHS if isinstance(first, int | float | np.number) and first >= least), None)
    try:
        return seconds_of(column.iloc[:1], name, unit)[1]
    except EvlibError:
        return None


def choose_time(frame, time_column: str | None) -> str | None:
    """The name of the time column of a table; None where there is none. Errors name the candidates."""
    names = list(frame)
    if time_column is not None:
        if time_column not in names:
            raise OptionError(f"time_column={time_column!r} is no column, there are {names}")
        return time_column
    found = [name for name in names if is_time(name)]
    if len(found) == 2:  # a date beside the seconds since the start, as phones write them
        elapsed = [name for name in found if "elapsed" in _words(name) or "relative" in _words(name)]
        if len(elapsed) == 1:
            return elapsed[0]
    if len(found) > 1:
        raise DataError(f"only one column can be the time, got {found} of {names}: pass time_column=")
    return found[0] if found else None


def refuse_unnamed_clock(frame, rate: float | None) -> None:
    """Refuse a table without a time column in which another column is one: it may have gaps.

    Raises
    ------
    UnitError : there is no rate either
    DataError : the steps of the column are equal but for gaps
    """
    for name in frame:
        values = frame[name].to_numpy(dtype=np.float64)
        step = np.diff(values)
        if len(step) < COUNTED or not (step > 0).all():
            continue
        if rate is None:
            raise UnitError(
                f"the file does not tell its sampling rate; column {name!r} rises in every row: if it is the time, "
                f"pass time_column={name!r}, otherwise sampling_rate_hz="
            )
        usual = float(np.median(step))
        if (np.abs(step - usual) <= SAME_STEP * usual).mean() < MOSTLY:
            continue
        k = int(np.argmax(step))
        if step[k] > GAP_STEPS * usual:
            raise DataError(
                f"column {name!r} rises by {usual:g} from row to row, but by {step[k]:g} after row {k + 1}: a clock or "
                f"a counter, and rows are missing? Pass time_column={name!r} with its time_unit= ('samples' for a "
                "counter) and regrid=True, or leave the column out of the file"
            )
        warn(f"column {name!r} rises by {usual:g} from row to row; it is read as a channel (a clock? see time_column=)")


def by_stamps(column, name: str, signal, given, time_unit=None, regrid=False) -> tuple[np.ndarray, dict]:
    """A signal (n, C) on the clock of its stamps (n,), and what they tell of rate and start."""
    time_s, start_time, said = seconds_of(column, name, time_unit, given)
    if regrid:
        signal, rate = onto_grid(time_s, np.asarray(signal).reshape(len(time_s), -1), name, said, given)
    else:
        rate = checked_rate(time_s, name, said, given)
    return signal, {"sampling_rate_hz": rate} | ({"start_time": start_time} if start_time else {})


def by_times_beside(signal, beside: dict, given, time_column=None, time_unit=None, regrid=False):
    """As `by_stamps` where one of the arrays ``beside`` a stored signal (n, C) holds its times (n,)."""
    import pandas as pd

    require_time_unit(time_unit)
    fits = {name: values for name, values in beside.items() if values.shape == signal.shape[:1] != ()}
    time = choose_time(fits, time_column)
    if time is not None:
        return by_stamps(pd.Series(np.asarray(fits[time])), time, signal, given, time_unit, regrid)
    if regrid or time_unit:
        raise OptionError(f"no array beside the signal is its time, there are {list(beside)}; pass time_column=")
    return signal, {}


def checked_rate(time_s, name: str, said: bool, given: float | None) -> float:
    """The rate (Hz) of uniform stamps (n,); an absurd one is refused where the unit is only a guess."""
    try:
        rate = uniform_rate(time_s, given)
    except DataError as error:
        raise DataError(f"{error} (column {name!r}; regrid=True interpolates onto a uniform clock)") from None
    except UnitError as error:
        raise UnitError(f"{error} (column {name!r}; time_unit= says in which unit it is)") from None
    _refuse_absurd(rate, name, said, given)
    return rate


def _refuse_absurd(rate, name, said, given):
    if not said and given is None and not RATES[0] <= rate <= RATES[1]:
        units = "'s', 'ms', 'us', 'ns'"
        raise UnitError(f"{name!r} taken as seconds gives {rate:.3g} Hz; pass time_unit= (one of {units}, ...)")


def onto_grid(time_s, values, name: str, said: bool, given: float | None) -> tuple[np.ndarray, float]:
    """Values (n, C) at jittered stamps (n,), interpolated onto a uniform clock; NaN in gaps.

    Returns
    -------
    values : (m, C) on the grid
    rate : of the grid, Hz: ``given``, or the round number next to the mean rate outside of gaps

    Examples
    --------
    >>> import warnings
    >>> with warnings.catch_warnings():
    ...     warnings.simplefilter("ignore")
    ...     grid, rate = onto_grid(np.array([0, 0.9, 2.1, 3, 7]), np.arange(5.0)[:, None], "t", True, 1.0)
    >>> grid[:, 0].round(2).tolist()
    [0.0, 1.08, 1.92, 3.0, nan, nan, nan, 4.0]
    """
    step = np.diff(time_s)
    if (step < 0).any():
        k = int(np.argmax(step < 0))
        raise DataError(
            f"the time column {name!r} goes back from {time_s[k]:g} s to {time_s[k + 1]:g} s (row {k + 2}): "
            "sort the rows, or cut the file there"
        )
    keep = np.r_[True, step > 0]
    if (~keep).sum() > 0.05 * len(keep):
        raise DataError(
            f"the time column {name!r} repeats stamps in {(~keep).sum()} of {len(keep)} rows: too coarse for a "
            "clock (leave the column out and pass sampling_rate_hz=)"
        )
    repeated, time_s, values = int((~keep).sum()), time_s[keep], np.asarray(values, dtype=np.float64)[keep]
    step = np.diff(time_s)
    if len(time_s) < 2:
        raise DataError("the time column must hold two or more different times")
    gap = step > GAP_STEPS * np.median(step)
    rate = given or _round_rate((~gap).sum() / step[~gap].sum())
    usual = 1 / np.median(step)
    if given and not 0.5 < usual / given < 2:
        raise UnitError(
            f"the time column {name!r} says about {usual:.4g} Hz, but sampling_rate_hz={given:g} was passed "
            "(time_unit= says in which unit it is)"
        )
    _refuse_absurd(rate, name, said, given)
    place = (time_s - time_s[0]) * rate
    n = place[-1] + 1
    if n > LONGEST_GRID * len(time_s):
        k = int(np.argmax(step))
        raise DataError(
            f"a gap of {step[k]:g} s after {time_s[k] - time_s[0]:g} s (row {k + 1}) is longer than a grid may "
            "be: cut the file there"
        )
    grid = np.arange(int(n + 1e-6))
    out = np.column_stack([np.interp(grid, place, column) for column in values.T])
    slack = CLOCK_TOLERANCE_SAMPLES
    before = np.clip(np.searchsorted(place, grid, side="right") - 1, 0, len(gap) - 1)
    out[gap[before] & (grid > place[before] + slack) & (grid < place[before + 1] - slack)] = np.nan
    largest = float(np.abs(place - np.rint(place)).max() / rate)
    away = np.abs(np.diff(place)[~gap] - 1).max()
    text = (
        f"regrid: {len(place)} rows onto {len(grid)} samples of {rate:g} Hz; "
        f"stamps moved by up to {1e3 * largest:.3g} ms, steps differ by up to {100 * away:.2g} % from 1/{rate:g} s"
    )
    if gap.any():
        text += f"; {gap.sum()} gaps of together {step[gap].sum():.4g} s are NaN"
    if repeated:
        text += f"; of {repeated} repeated stamps the first is kept"
    warn(text)
    return out, rate


def _round_rate(rate):
    """The roundest rate within 0.2 % of this one.

    >>> _round_rate(99.9), _round_rate(127.9), _round_rate(102.4)
    (100.0, 128.0, 102.4)
    """
    for decimals in range(-int(np.floor(np.log10(rate))), 4 - int(np.floor(np.log10(rate)))):
        if abs(round(rate, decimals) / rate - 1) <= 0.002:
            return float(round(rate, decimals))
    return float(rate)


def require_time_unit(time_unit) -> None:
    """Refuse an unknown unit of time."""
    if time_unit is not None:
        require_choice((*UNITS_S, "samples"), time_unit=time_unit)
