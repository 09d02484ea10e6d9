"""Workouts: heart rate, speed, altitude and gender, from files to the inputs and scores of a network.

A workout is a table with the columns of `COLUMNS`, one row a step; NaN is a hole, a value that was not measured. The
inputs of a model use neither the heart rate nor later steps, so they can be computed while somebody runs.
"""

import ast
import gzip
import io
import itertools
import json
import numbers
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ..signals.errors import (
    DataError,
    EvlibError,
    ShapeError,
    require,
    require_choice,
    require_extra,
    require_number,
    require_positive,
)
from ..signals.gaps import long_runs

# Columns of a workout, with their units.
COLUMNS = ("time_s", "heart_rate_bpm", "speed_kmh", "altitude_m")
# What a body, a vehicle without a motor and the surface of the earth allow; other values in a file are slips.
POSSIBLE = {
    "heart_rate_bpm": (20, 250),
    "speed_kmh": (0, 200),
    "altitude_m": (-500, 9000),
    "latitude": (-90, 90),
    "longitude": (-180, 180),
}
# Speeds in km/h beyond which something else is moving.
FASTEST_KMH = {"running": 25, "cycling": 100}
# Seconds without a value over which one is interpolated: devices that save memory leave out less, a strap that fell off
# is missing for longer.
MAX_GAP_S = 30.0
# Steps of a workout (eleven days of seconds), bytes of a file once unzipped, characters of a line; what is longer is a
# slip.
MAX_STEPS, MAX_BYTES, MAX_LINE = 1_000_000, 100 * 2**20, 2**22
# The inputs of a heart-rate model; lags and windows are numbers of steps.
FEATURES = (
    *("speed", "altitude", "gender", "speed_lag_2", "speed_lag_5", "altitude_lag_30", "speed_derivative"),
    *("altitude_derivative", "rolling_speed_10", "rolling_speed_30", "cumulative_elevation_gain"),
)
# Upper bounds of all heart-rate zones but the last, as shares of the maximal heart rate.
ZONES = (0.6, 0.7, 0.8, 0.9)


def workout_features(speed_kmh, altitude_m, gender: str = "male") -> np.ndarray:
    """The inputs of a heart-rate model, (n, 11) in the order of `FEATURES`.

    A lag that reaches beyond the beginning takes the first value; a window there is shorter. In a hole the last value
    before it stands, at the beginning the first one after it: leave such steps out of training and scores.

    Parameters
    ----------
    speed_kmh, altitude_m : (n,) one value a step, NaN where there is none
    gender : "male" or "female"

    Raises
    ------
    ShapeError, DataError, OptionError : lengths that differ, infinite values or no value at all, another gender

    Examples
    --------
    >>> features = workout_features([10.0, 12.0, 11.0], [100.0, 102.0, 101.0])
    >>> features[:, FEATURES.index("cumulative_elevation_gain")]
    array([0., 2., 2.])
    """
    speed, altitude = np.asarray(speed_kmh, dtype=float), np.asarray(altitude_m, dtype=float)
    if speed.ndim != 1 or speed.shape != altitude.shape or len(speed) == 0:
        shapes = f"{speed.shape} and {altitude.shape}"
        raise ShapeError(f"speed and altitude must be one value a step each, got shapes {shapes}")
    require_choice(("male", "female"), gender=gender)
    speed, altitude = (_held(values, name) for name, values in (("speed", speed), ("altitude", altitude)))
    step, total = np.arange(len(speed)), np.r_[0.0, np.cumsum(speed)]

    def lag(x, n):
        return x[np.maximum(step - n, 0)]

    def rolling(n):
        first = np.maximum(step + 1 - n, 0)
        return (total[step + 1] - total[first]) / (step + 1 - first)

    climb, male = altitude - lag(altitude, 1), np.full(len(speed), float(gender == "male"))
    columns = [speed, altitude, male, lag(speed, 2), lag(speed, 5), lag(altitude, 30), speed - lag(speed, 1), climb]
    return np.stack([*columns, rolling(10), rolling(30), np.cumsum(np.maximum(climb, 0))], axis=1)


def _held(values, name):
    """The values (n,), each hole with the last one before it, else the first after it."""
    known = np.flatnonzero(~np.isnan(values))
    require(len(known) and not np.isinf(values).any(), DataError, f"{name} holds infinity, or no value at all")
    return values[known[np.maximum(np.searchsorted(known, np.arange(len(values)), side="right") - 1, 0)]]


def regular_steps(workout, step_s: float, max_gap_s: float = MAX_GAP_S):
    """A workout at regular times, each value the mean over its step.

    Columns are interpolated one by one over gaps of up to ``max_gap_s`` seconds between two values. Longer gaps stay
    NaN, and so do the two ends: no heart rate is invented where the strap was off.

    Raises
    ------
    DataError : a missing column, times that are not finite or run backwards, a workout of more than a million steps
    OptionError : a step that is not above 0, a negative gap

    >>> import pandas as pd
    >>> table = pd.DataFrame({"time_s": [0, 1, 4, 5], "heart_rate_bpm": [90, 92, 98, 100]})
    >>> table = table.assign(speed_kmh=9.0, altitude_m=5.0)
    >>> regular_steps(table, 2.0).heart_rate_bpm.tolist()
    [91.0, 95.0, 99.0]
    """
    if missing := [name for name in COLUMNS if name not in workout]:
        hint = "a column of NaN says that it was not measured"
        raise DataError(f"a workout has the columns {', '.join(COLUMNS)}; {', '.join(missing)} is missing ({hint})")
    require_positive(step_s=step_s)
    require_number(max_gap_s=max_gap_s)
    time = workout.time_s.to_numpy(dtype=float)
    _check_times(time)
    if (time[-1] - time[0]) / step_s >= MAX_STEPS:
        k = np.diff(time).argmax()
        gap = f"its longest gap is {time[k + 1] - time[k]:g} s, after row {k}"
        raise DataError(f"a workout of {time[-1] - time[0]:g} s is more than {MAX_STEPS:,} steps; {gap}: cut it there")
    step = np.floor((time - time[0]) / step_s).astype(int)
    means = workout[list(COLUMNS[1:])].groupby(step).mean().reindex(range(step[-1] + 1))
    filled = means.interpolate(limit_area="inside")
    for name, values in means.items():
        filled.loc[long_runs(values.isna().to_numpy(), max_gap_s / step_s), name] = np.nan
    filled.insert(0, "time_s", np.arange(len(means)) * float(step_s))
    return filled


def _check_times(time):
    """Refuse times (n,) in seconds that are no clock of a workout."""
    if len(time) == 0 or not np.isfinite(time).all():
        raise DataError("a workout needs times, and they must be finite")
    if (np.diff(time) < 0).any():
        k, hint = np.diff(time).argmin(), "two workouts in one, or a damaged file?"
        raise DataError(f"times run backwards: after {time[k]:g} s (row {k}) comes {time[k + 1]:g} s ({hint})")


def quality_problems(workout, sport: str = "running") -> list[str]:
    """What is wrong with a workout, in words; an empty list if it has all columns and nothing is.

    ``sport`` : "running" or "cycling", which says what is too fast
    """
    require_choice(tuple(FASTEST_KMH), sport=sport)
    if absent := [name for name in COLUMNS if name not in workout]:
        return [f"values are missing: there is no {', '.join(absent)}"]
    time, heart = workout.time_s.to_numpy(dtype=float), workout.heart_rate_bpm.to_numpy(dtype=float)
    changes = np.flatnonzero(np.diff(heart, prepend=np.nan, append=np.nan) != 0)
    measured, fastest = workout[list(COLUMNS[1:])].notna().any(axis=1).to_numpy(), FASTEST_KMH[sport]
    checks = {
        "fewer than 50 steps": len(time) < 50,
        "shorter than five minutes": len(time) == 0 or time[-1] - time[0] < 300,
        "times are missing or run backwards": not (np.diff(time) >= 0).all(),
        "a gap of more than five minutes": np.diff(time[measured]).max(initial=0) > 300,
        "values are missing": workout[list(COLUMNS)].isna().to_numpy().any(),
        "a heart rate outside 30-220 BPM": ((heart < 30) | (heart > 220)).any(),
        "a heart rate that jumps by more than 40 BPM": np.abs(np.diff(heart)).max(initial=0) > 40,
        "a heart rate that stays the same for 20 steps": np.diff(changes).max(initial=0) >= 20,
        f"a speed below 0 or over {fastest} km/h": ((workout.speed_kmh < 0) | (workout.speed_kmh > fastest)).any(),
        "an altitude that is not on earth": (~workout.altitude_m.dropna().between(*POSSIBLE["altitude_m"])).any(),
    }
    return [words for words, wrong in checks.items() if wrong]


def heart_rate_scores(predicted, reference, users=None, max_bpm: float = 190.0) -> dict:
    """Scores over the steps of all workouts together; steps whose reference is NaN do not count.

    Parameters
    ----------
    predicted, reference : list of (n,) arrays in BPM: the steps of each workout
    users : the user of each workout; by default each workout is a user of its own
    max_bpm : maximal heart rate; the zones end at 60, 70, 80 and 90 % of it

    Returns
    -------
    dict : ``mae``, ``rmse``, ``r2``, ``zone_accuracy``, ``slope`` (of the reference on the prediction, 1 is
        calibrated), ``mae_by_step`` and ``count_by_step`` (longest,), ``mae_by_user``

    Raises
    ------
    ShapeError : workouts of different lengths
    DataError : no step with a reference, a prediction that is not finite
    """
    lengths = [len(part) for part in reference]
    if [len(part) for part in predicted] != lengths:
        raise ShapeError("predicted and reference must be workouts of the same lengths")
    measured = [np.isfinite(part) for part in reference]
    predicted, reference, steps = (
        [np.asarray(part)[known] for part, known in zip(parts, measured, strict=True)]
        for parts in (predicted, reference, map(np.arange, lengths))
    )
    lengths = list(map(len, reference))
    require(sum(lengths), DataError, "no step of the reference holds a heart rate")
    guess, truth, step = map(np.concatenate, (predicted, reference, steps))
    require(np.isfinite(guess).all(), DataError, "a prediction is not finite")
    error = np.abs(guess - truth)
    zone, zone_guess = (np.searchsorted(np.asarray(ZONES) * max_bpm, bpm, side="right") for bpm in (truth, guess))
    count, users = np.bincount(step), range(len(reference)) if users is None else users
    names, user = np.unique(np.repeat(np.asarray(users, dtype=str), lengths), return_inverse=True)
    return {
        "mae": float(error.mean()),
        "rmse": float(np.sqrt((error**2).mean())),
        "r2": float(1 - (error**2).mean() / truth.var()),
        "zone_accuracy": float((zone == zone_guess).mean()),
        "slope": float(np.polyfit(guess, truth, 1)[0]) if np.ptp(guess) > 0 else float("nan"),
        "mae_by_step": np.bincount(step, error) / np.where(count, count, np.nan),
        "count_by_step": count,
        "mae_by_user": dict(zip(names.tolist(), np.bincount(user, error) / np.bincount(user), strict=True)),
    }


# The errors of a line that holds no workout; a nested or very long one exhausts the parser.
BAD_LINE = (ValueError, KeyError, TypeError, SyntaxError, OverflowError, RecursionError, MemoryError)


def read_endomondo(path: str | Path, skip_bad: bool = False) -> Iterator[dict]:
    """The workouts of a file with the lines of Endomondo (gzipped or not), one after the other.

    A line is JSON or, as in the published files, a Python literal; neither can run code. A workout is a dict with its
    ``table``, ``id``, ``userId``, ``sport`` and ``gender``. Where no speed was recorded, the column is missing. Values
    that are not possible become NaN, with a warning.

    Parameters
    ----------
    path : the file
    skip_bad : leave out lines that hold no workout; False raises a DataError that names the first one
    """
    try:
        with (gzip.open if str(path).endswith(".gz") else open)(path, "rt", encoding="utf-8") as file:
            for number in itertools.count(1):
                if not (line := file.readline(MAX_LINE)):
                    return
                try:
                    require(len(line) < MAX_LINE, DataError, f"it is longer than {MAX_LINE:,} characters")
                    if line.strip():
                        yield _endomondo_workout(line.strip(), f"{path}, line {number}")
                except BAD_LINE as error:
                    if not skip_bad:
                        reason = f"{type(error).__name__} {error}"
                        raise DataError(f"{path}: line {number} is no workout: {reason}") from error
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read, or is truncated: {error}") from error


def _endomondo_workout(line, where):
    import pandas as pd

    try:
        row = json.loads(line)
    except ValueError:
        row = ast.literal_eval(line)
    names = {"time_s": "timestamp", "heart_rate_bpm": "heart_rate", "speed_kmh": "speed", "altitude_m": "altitude"}
    columns = {column: row[name] for column, name in names.items() if name in row or name != "speed"}
    if not all(isinstance(values, list) and len(values) == len(row["timestamp"]) > 0 for values in columns.values()):
        raise ValueError("timestamp, heart_rate, altitude and speed must be lists of one length")
    if not all(value is None or isinstance(value, numbers.Real) for values in columns.values() for value in values):
        raise ValueError("timestamp, heart_rate, altitude and speed must be numbers")
    table = pd.DataFrame({column: np.array(values, dtype=float) for column, values in columns.items()})
    table["time_s"] -= table.time_s[0]
    _check_times(table.time_s.to_numpy())
    return {key: row[key] for key in ("id", "userId", "sport", "gender")} | {"table": _possible(table, where)}


def _possible(table, where):
    """The table with NaN where a value is impossible, and a warning that says how many there are."""
    for name in table.columns.intersection(POSSIBLE):
        least, most = POSSIBLE[name]
        if (wrong := ~table[name].between(least, most) & table[name].notna()).any():
            k, n = wrong.to_numpy().argmax(), wrong.sum()
            found = f"{n} of {len(table)} values of {name}, the first {table[name].iloc[k]:g} in row {k}"
            text = f"{where}: {found}, do not lie between {least} and {most} and become NaN"
            warnings.warn(text, stacklevel=4)
            table = table.assign(**{name: table[name].mask(wrong)})
    return table


def read_activity(path: str | Path):
    """The workout in a TCX, GPX or FIT file (gzipped or not) as a pandas table with the columns of `COLUMNS`.

    Where the file holds no speed, it is the mean speed between two known distances or positions. A value that a row of
    the file does not have is NaN. With a warning, a heart rate or altitude that no row has becomes NaN, so do values
    that are not possible, as a speed of -4260 km/h, and points without a time are left out. `regular_steps`
    interpolates what may be interpolated.

    Raises
    ------
    DataError : a file that is damaged, truncated or of another kind; no times, or times that run backwards; no speed
    MissingExtraError : the extra ``studies`` is not installed
    """
    require_extra("activity_parser", "studies")
    try:
        return _activity(Path(path))
    except EvlibError as error:
        raise type(error)(f"{path}: {error}") from error
    except Exception as error:  # a parser of a damaged file may raise anything
        hint = "damaged, truncated, or another kind of file?"
        raise DataError(f"{path} cannot be read as a TCX, GPX or FIT file ({hint}): {error}") from error


def _activity(path):
    import activity_parser
    import pandas as pd

    zipped, kind = (
        path.suffix.lower() == ".gz",
        path.with_suffix("").suffix if path.suffix.lower() == ".gz" else path.suffix,
    )
    with (gzip.open if zipped else open)(path, "rb") as file:
        content = file.read(MAX_BYTES + 1)
    require(len(content) <= MAX_BYTES, DataError, f"more than {MAX_BYTES >> 20} MB are no workout")
    if kind.lower() in (".tcx", ".gpx"):
        content = content.strip()  # some programs begin with an empty line, which is no XML
        _check_points(content)
    parser = activity_parser.ActivityParser(check_crc=True, strict_xml=True)
    records = parser.parse(io.BytesIO(content), kind)[0]
    require(len(records), DataError, "there is no point with a time")
    for name, column in records.items():
        if column.dtype.kind not in "iuf":
            bad = pd.to_numeric(column, errors="coerce").isna() & column.notna()
            message = f"{name} of row {bad.to_numpy().argmax()} is {column[bad].iloc[:1].tolist()}, not a number"
            require(not bad.any(), DataError, message)
    names = {"heart_rate": "heart_rate_bpm", "speed": "speed_kmh", "altitude": "altitude_m"}
    table = _possible(records.rename(columns=names).astype(float), "the file").dropna(axis=1, how="all")
    measured = [name for name in ("speed_kmh", "distance", "longitude") if name in table]
    fast = measured and ("longitude" != measured[0] or "latitude" in table)
    require(fast, DataError, "it holds no speed, distance or position (was that sensor off?)")
    for name in ("heart_rate_bpm", "altitude_m"):
        if name not in table:
            warnings.warn(f"the file holds no {name} (was that sensor off?), which becomes NaN", stacklevel=4)
            table = table.assign(**{name: np.nan})
    time = (table.index - table.index[0]).total_seconds().to_numpy()
    _check_times(time)
    if "speed_kmh" not in table:
        table = _possible(table.assign(speed_kmh=_speed(table, time)), "computed from distances or positions")
    return table[list(COLUMNS[1:])].set_axis(time).rename_axis("time_s").reset_index()


def _check_points(content):
    """Refuse XML that is not whole or holds no times; warn of points without one."""
    import pandas as pd
    from lxml import etree

    points = list(etree.fromstring(content).iter("{*}Trackpoint", "{*}trkpt"))
    times = [point.findtext("{*}Time", point.findtext("{*}time")) for point in points]
    require(points, DataError, "it holds no track points")
    lost = int(pd.isna(pd.to_datetime(times, errors="coerce", utc=True, format="ISO8601")).sum())
    if lost == len(points):
        hint = "a planned route, or an export without times? Export the recorded activity, as TCX or FIT"
        raise DataError(f"none of its {len(points)} points has a time ({hint})")
    if lost:
        warnings.warn(f"{lost} of {len(points)} points have no readable time and are left out", stacklevel=5)


def _speed(table, time):
    """(n,) km/h at each row: the mean speed between the two known places around it, NaN where they are far apart in
    time."""
    places = ["distance"] if "distance" in table else ["latitude", "longitude"]
    known = np.flatnonzero(table[places].notna().all(axis=1))
    require(len(known) > 1, DataError, "fewer than two points have a distance or a position")
    if places == ["distance"]:
        km = np.diff(table.distance.to_numpy()[known])
    else:  # on a sphere with the earth's radius of 6371 km
        latitude, longitude = np.radians(table[places].to_numpy()[known]).T
        across = np.cos(latitude[1:]) * np.cos(latitude[:-1]) * np.sin(np.diff(longitude) / 2) ** 2
        km = 2 * 6371 * np.arcsin(np.sqrt(np.sin(np.diff(latitude) / 2) ** 2 + across))
    seconds = np.diff(time[known])
    speed = np.where(seconds <= MAX_GAP_S, km * 3600 / seconds, np.nan)
    interval = np.maximum(np.searchsorted(known, np.arange(len(time))), 1) - 1
    inside = (np.arange(len(time)) >= known[0]) & (np.arange(len(time)) <= known[-1])
    return np.where(inside, speed[np.minimum(interval, len(speed) - 1)], np.nan)
