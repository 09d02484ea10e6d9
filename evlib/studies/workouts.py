"""Workouts: heart rate, speed, altitude and gender, from files to the inputs and scores of a network.

A workout is a table with the columns of `COLUMNS`, one row a step. The inputs of a model use neither the heart rate nor
later steps, so they can be computed while somebody runs.
"""

import ast
import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ..signals.errors import DataError, ShapeError, require_choice, require_extra, require_positive

# Columns of a workout, with their units.
COLUMNS = ("time_s", "heart_rate_bpm", "speed_kmh", "altitude_m")
# The inputs of a heart-rate model; lags and windows are numbers of steps.
FEATURES = (
    *("speed", "altitude", "gender", "speed_lag_2", "speed_lag_5", "altitude_lag_30", "speed_derivative"),
    *("altitude_derivative", "rolling_speed_10", "rolling_speed_30", "cumulative_elevation_gain"),
)
# Upper bounds of all heart-rate zones but the last, as shares of the maximal heart rate.
ZONES = (0.6, 0.7, 0.8, 0.9)


def workout_features(speed_kmh, altitude_m, gender: str = "male") -> np.ndarray:
    """The inputs of a heart-rate model, (n, 11) in the order of `FEATURES`.

    A lag that reaches beyond the beginning takes the first value; a window there is shorter.

    Parameters
    ----------
    speed_kmh, altitude_m : (n,) one value a step
    gender : "male" or "female"

    Raises
    ------
    ShapeError, DataError, OptionError : lengths that differ, values that are not finite, another gender

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
    if not (np.isfinite(speed).all() and np.isfinite(altitude).all()):
        raise DataError("speed or altitude holds NaN or infinity: fill the gaps first (regular_steps does)")
    require_choice(("male", "female"), gender=gender)
    step, total = np.arange(len(speed)), np.r_[0.0, np.cumsum(speed)]

    def lag(x, n):
        return x[np.maximum(step - n, 0)]

    def rolling(n):
        first = np.maximum(step + 1 - n, 0)
        return (total[step + 1] - total[first]) / (step + 1 - first)

    climb, male = altitude - lag(altitude, 1), np.full(len(speed), float(gender == "male"))
    columns = [speed, altitude, male, lag(speed, 2), lag(speed, 5), lag(altitude, 30), speed - lag(speed, 1), climb]
    return np.stack([*columns, rolling(10), rolling(30), np.cumsum(np.maximum(climb, 0))], axis=1)


def regular_steps(workout, step_s: float):
    """A workout at regular times, each value the mean over its step; gaps are filled by linear interpolation.

    Raises
    ------
    DataError : a missing column, times that are not finite or run backwards
    OptionError : a step that is not above 0

    >>> import pandas as pd
    >>> table = pd.DataFrame({"time_s": [0, 1, 4, 5], "heart_rate_bpm": [90, 92, 98, 100]})
    >>> table = table.assign(speed_kmh=9.0, altitude_m=5.0)
    >>> regular_steps(table, 2.0).heart_rate_bpm.tolist()
    [91.0, 95.0, 99.0]
    """
    if missing := [name for name in COLUMNS if name not in workout]:
        raise DataError(f"a workout has the columns {', '.join(COLUMNS)}; {', '.join(missing)} is missing")
    require_positive(step_s=step_s)
    time = workout.time_s.to_numpy(dtype=float)
    if len(time) == 0 or not np.isfinite(time).all() or (np.diff(time) < 0).any():
        raise DataError("time_s must be finite and must not run backwards")
    step = np.floor((time - time[0]) / step_s).astype(int)
    means = workout[list(COLUMNS[1:])].groupby(step).mean().reindex(range(step[-1] + 1))
    means.insert(0, "time_s", np.arange(len(means)) * float(step_s))
    return means.interpolate(limit_direction="both")


def quality_problems(workout) -> list[str]:
    """What is wrong with a workout, in words."""
    time, heart = workout.time_s.to_numpy(dtype=float), workout.heart_rate_bpm.to_numpy(dtype=float)
    changes = np.flatnonzero(np.diff(heart, prepend=np.nan, append=np.nan) != 0)
    checks = {
        "fewer than 50 steps": len(time) < 50,
        "shorter than five minutes": len(time) == 0 or time[-1] - time[0] < 300,
        "a gap of more than five minutes": np.diff(time).max(initial=0) > 300,
        "values are missing": workout[list(COLUMNS)].isna().to_numpy().any(),
        "a heart rate outside 30-220 BPM": ((heart < 30) | (heart > 220)).any(),
        "a heart rate that jumps by more than 40 BPM": np.abs(np.diff(heart)).max(initial=0) > 40,
        "a heart rate that stays the same for 20 steps": np.diff(changes).max(initial=0) >= 20,
        "a speed over 25 km/h": (workout.speed_kmh > 25).any(),
    }
    return [words for words, wrong in checks.items() if wrong]


def heart_rate_scores(predicted, reference, users=None, max_bpm: float = 190.0) -> dict:
    """Scores over the steps of all workouts together.

    Parameters
    ----------
    predicted, reference : list of (n,) arrays in BPM: the valid steps of each workout
    users : the user of each workout; by default each workout is a user of its own
    max_bpm : maximal heart rate; the zones end at 60, 70, 80 and 90 % of it

    Returns
    -------
    dict : ``mae``, ``rmse``, ``r2``, ``zone_accuracy``, ``slope`` (of the reference on the prediction, 1 is
        calibrated), ``mae_by_step`` and ``count_by_step`` (longest,), ``mae_by_user``

    Raises
    ------
    ShapeError : workouts of different lengths
    """
    lengths = [len(part) for part in reference]
    if [len(part) for part in predicted] != lengths:
        raise ShapeError("predicted and reference must be workouts of the same lengths")
    guess, truth = np.concatenate(predicted), np.concatenate(reference)
    error, step = np.abs(guess - truth), np.concatenate([np.arange(n) for n in lengths])
    zone, zone_guess = (np.searchsorted(np.asarray(ZONES) * max_bpm, bpm, side="right") for bpm in (truth, guess))
    count, users = np.bincount(step), range(len(reference)) if users is None else users
    names, user = np.unique(np.repeat(np.asarray(users, dtype=str), lengths), return_inverse=True)
    return {
        "mae": float(error.mean()),
        "rmse": float(np.sqrt((error**2).mean())),
        "r2": float(1 - (error**2).mean() / truth.var()),
        "zone_accuracy": float((zone == zone_guess).mean()),
        "slope": float(np.polyfit(guess, truth, 1)[0]) if np.ptp(guess) > 0 else float("nan"),
        "mae_by_step": np.bincount(step, error) / count,
        "count_by_step": count,
        "mae_by_user": dict(zip(names.tolist(), np.bincount(user, error) / np.bincount(user), strict=True)),
    }


# The errors of a line that holds no workout; a nested or very long one exhausts the parser.
BAD_LINE = (ValueError, KeyError, TypeError, SyntaxError, OverflowError, RecursionError, MemoryError)


def read_endomondo(path: str | Path, skip_bad: bool = False) -> Iterator[dict]:
    """The workouts of a file with the lines of Endomondo (gzipped or not), one after the other.

    A line is JSON or, as in the published files, a Python literal; neither can run code. A workout is a dict with its
    ``table``, ``id``, ``userId``, ``sport`` and ``gender``. Where no speed was recorded, the column is missing.

    Parameters
    ----------
    path : the file
    skip_bad : leave out lines that hold no workout; False raises a DataError that names the first one
    """
    try:
        with (gzip.open if str(path).endswith(".gz") else open)(path, "rt", encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                try:
                    if line.strip():
                        yield _endomondo_workout(line.strip())
                except BAD_LINE as error:
                    if not skip_bad:
                        reason = f"{type(error).__name__} {error}"
                        raise DataError(f"{path}: line {number} is no workout: {reason}") from error
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read, or is truncated: {error}") from error


def _endomondo_workout(line):
    import pandas as pd

    try:
        row = json.loads(line)
    except ValueError:
        row = ast.literal_eval(line)
    names = {"time_s": "timestamp", "heart_rate_bpm": "heart_rate", "speed_kmh": "speed", "altitude_m": "altitude"}
    columns = {column: row[name] for column, name in names.items() if name in row or name != "speed"}
    if not all(isinstance(values, list) and len(values) == len(row["timestamp"]) > 0 for values in columns.values()):
        raise ValueError("timestamp, heart_rate, altitude and speed must be lists of one length")
    table = pd.DataFrame({column: np.array(values, dtype=float) for column, values in columns.items()})
    table["time_s"] -= table.time_s[0]
    if not (np.isfinite(table.time_s).all() and (table.time_s.diff()[1:] >= 0).all()):
        raise ValueError("times must be finite and must not go backwards")
    return {key: row[key] for key in ("id", "userId", "sport", "gender")} | {"table": table}


def read_activity(path: str | Path):
    """The workout in a TCX, GPX or FIT file (gzipped or not) as a pandas table.

    Where the file holds no speed, it is computed from distances or positions.

    Raises
    ------
    DataError : a file that cannot be read, or holds no heart rate, altitude or speed
    MissingExtraError : the extra ``studies`` is not installed
    """
    parser = require_extra("activity_parser", "studies")
    try:
        records = parser.ActivityParser().parse(str(path))[0]
    except (parser.ParseError, ValueError, OSError) as error:
        raise DataError(f"{path} cannot be read as a TCX, GPX or FIT file: {error}") from error
    missing = [name for name in ("heart_rate", "altitude") if name not in records]
    missing += ["speed"] if records.columns.intersection(["speed", "distance", "longitude"]).empty else []
    if missing:
        raise DataError(f"{path} holds no {', no '.join(missing)}")
    if "speed" not in records:
        if "distance" in records:
            km = records.distance.diff()
        else:  # on a sphere with the earth's radius of 6371 km
            latitude, longitude = (np.radians(records[name]) for name in ("latitude", "longitude"))
            across = np.cos(latitude) * np.cos(latitude.shift()) * np.sin(longitude.diff() / 2) ** 2
            km = 2 * 6371 * np.arcsin(np.sqrt(np.sin(latitude.diff() / 2) ** 2 + across))
        records["speed"] = km * 3600 / records.index.to_series().diff().dt.total_seconds()
    names = {"heart_rate": "heart_rate_bpm", "speed": "speed_kmh", "altitude": "altitude_m"}
    table = records.rename(columns=names)[list(names.values())].astype(float)
    return table.set_axis((table.index - table.index[0]).total_seconds()).rename_axis("time_s").reset_index()
