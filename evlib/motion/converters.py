"""Published activity data in the session format: UCI HAR, PAMAP2, WISDM (2019) and MotionSense, from their raw files.

``convert("uci_har", raw_folder, folder)`` reads the files as their authors give them and writes a folder of sessions.
Accelerations become m/s2, angular velocities rad/s; persons become groups.
"""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..signals.errors import DataError, OptionError
from ..signals.recording import Recording
from .sessions import Channel, Session, SessionSet, write_sessions

GRAVITY = 9.80665
WISDM_RATE_HZ = 20.0
# A gap in WISDM's clock that is longer begins a new session.
LONGEST_GAP_S = 1.0


@dataclass(frozen=True)
class RawSource:
    """How one published data set is read: its description, channels and a function raw folder -> sessions."""

    description: str
    channels: tuple
    read: object


def convert(kind, raw_folder, folder) -> SessionSet:
    """Write a published data set as a folder of sessions.

    Parameters
    ----------
    kind : "uci_har", "pamap2", "wisdm" or "motionsense"
    raw_folder : the unpacked files of its authors
    folder : where the sessions go; replaced if it holds sessions

    Raises
    ------
    OptionError : an unknown kind; a folder that is or holds that of the raw files
    DataError : files that are missing, or do not hold what they should
    """
    if kind not in SOURCES:
        raise OptionError(f"kind must be one of {', '.join(SOURCES)}, got {kind!r}")
    source, raw_folder = SOURCES[kind], Path(raw_folder)
    if not raw_folder.is_dir():
        raise DataError(f"there is no folder {raw_folder}")
    raw, new = raw_folder.resolve(), Path(folder).resolve()
    if raw.is_relative_to(new):
        raise OptionError(
            f"sessions in {folder} would take the place of the raw files in {raw_folder}: name another folder"
        )
    return write_sessions(folder, kind, source.description, source.channels, source.read(raw_folder))


def _axes(name, words, rate, missing=False):
    """Three channels of a sensor."""
    return tuple(Channel(f"{name}_{axis}", f"{words}, {axis} axis", rate, missing) for axis in "xyz")


def _table(path, columns, **options):
    """A table of numbers as float64 (rows, columns)."""
    import pandas as pd

    try:
        values = pd.read_csv(path, header=None, dtype=np.float64, **options).to_numpy()
    except (OSError, ValueError) as error:  # pandas' own errors are ValueErrors
        raise DataError(f"{path} cannot be read as a table of numbers: {error}") from error
    if values.shape[1] != columns:
        raise DataError(f"{path} must have {columns} columns, got {values.shape[1]}")
    return values


def _files(folder, pattern):
    found = sorted(folder.glob(pattern))
    if not found:
        raise DataError(f"there is no file {pattern} in {folder} (another folder of the archive?)")
    return found


def _code(path, code, names):
    if code not in names:
        shown = repr(code) if isinstance(code, str) else f"{code:g}"
        raise DataError(f"{path} has an activity {shown}; known are {', '.join(map(str, names))}")
    return names[code]


UCI_LABELS = dict(enumerate(("walking", "walking upstairs", "walking downstairs", "sitting", "standing", "laying"), 1))
UCI_CHANNELS = (
    *_axes("waist_acc", "acceleration with gravity of a phone at the waist in m/s2", 50.0),
    *_axes("waist_gyro", "angular velocity of a phone at the waist in rad/s", 50.0),
)


def _read_uci_har(folder):
    """Windows of 2.56 s, half overlapping, each a session; ``train/Inertial Signals/total_acc_x_train.txt`` and so
    on."""
    for part in ("train", "test"):
        place = folder / part
        files = [f"{sensor}_{axis}_{part}.txt" for sensor in ("total_acc", "body_gyro") for axis in "xyz"]
        signals = [_table(place / "Inertial Signals" / file, 128, sep=r"\s+") for file in files]
        label, subject = (_table(place / f"{what}_{part}.txt", 1, sep=r"\s+").ravel() for what in ("y", "subject"))
        if len({len(rows) for rows in (*signals, label, subject)}) != 1:
            raise DataError(f"the files in {place} have different numbers of rows")
        windows = np.stack(signals, 2) * np.repeat([GRAVITY, 1.0], 3)
        names = tuple(channel.name for channel in UCI_CHANNELS)
        if not np.isfinite(subject).all():
            raise DataError(f"{place / f'subject_{part}.txt'} holds NaN or infinity")
        for i, window in enumerate(windows):
            word = _code(place / f"y_{part}.txt", label[i], UCI_LABELS)
            yield Session(f"{part}_{i:05d}", Recording(window, 50.0, names), (word,), f"person {int(subject[i])}")


PAMAP2_LABELS = {
    1: "lying",
    2: "sitting",
    3: "standing",
    4: "walking",
    5: "running",
    6: "cycling",
    7: "nordic walking",
    9: "watching television",
    10: "computer work",
    11: "car driving",
    12: "ascending stairs",
    13: "descending stairs",
    16: "vacuum cleaning",
    17: "ironing",
    18: "folding laundry",
    19: "house cleaning",
    20: "playing soccer",
    24: "rope jumping",
}
PAMAP2_PLACES = {"hand": "the dominant wrist", "chest": "the chest", "ankle": "the ankle"}
PAMAP2_CHANNELS = tuple(
    channel
    for place, words in PAMAP2_PLACES.items()
    for channel in (
        *_axes(f"{place}_acc", f"acceleration with gravity of {words} in m/s2", 100.0, True),
        *_axes(f"{place}_gyro", f"angular velocity of {words} in rad/s", 100.0, True),
        *_axes(f"{place}_mag", f"magnetic field at {words} in microtesla", 100.0, True),
    )
)


def _read_pamap2(folder):
    """``Protocol/subject101.dat`` and so on: each stretch of one activity is a session; missing values stay NaN."""
    # Of each sensor's 17 columns: acceleration (16 g), angular velocity, magnetic field.
    columns = [3 + 17 * sensor + k for sensor in range(3) for k in (1, 2, 3, 7, 8, 9, 10, 11, 12)]
    names = tuple(channel.name for channel in PAMAP2_CHANNELS)
    for path in _files(folder, "**/subject*.dat"):
        rows = _table(path, 54, sep=" ")
        time, code = rows[:, :2].T
        if not np.isfinite(rows[:, :2]).all():
            raise DataError(f"{path} holds NaN or infinity among its time stamps and activities (columns 1 and 2)")
        # A new stretch begins where the activity changes or the clock (0.01 s) jumps.
        cuts = np.flatnonzero((np.diff(code) != 0) | (np.abs(np.diff(time) - 0.01) > 0.005)) + 1
        for k, rows_of in enumerate(np.split(np.arange(len(rows)), cuts)):
            if code[rows_of[0]] == 0 or len(rows_of) < 100:
                continue  # transitions, and less than a second
            word = _code(path, code[rows_of[0]], PAMAP2_LABELS)
            recording = Recording(rows[rows_of][:, columns], 100.0, names)
            # A person's file in Protocol and another in Optional have the same name.
            name = "_".join((*path.relative_to(folder).parts[:-1], path.stem, f"{k:03d}"))
            yield Session(name, recording, (word,), f"person {path.stem.removeprefix('subject')}")


WISDM_LABELS = {
    "A": "walking",
    "B": "jogging",
    "C": "stairs",
    "D": "sitting",
    "E": "standing",
    "F": "typing",
    "G": "brushing teeth",
    "H": "eating soup",
    "I": "eating chips",
    "J": "eating pasta",
    "K": "drinking",
    "L": "eating a sandwich",
    "M": "kicking a ball",
    "O": "playing catch",
    "P": "basketball dribbling",
    "Q": "writing",
    "R": "clapping",
    "S": "folding clothes",
}
WISDM_CHANNELS = (
    *_axes("pocket_acc", "acceleration with gravity of a phone in the pocket in m/s2", WISDM_RATE_HZ),
    *_axes("pocket_gyro", "angular velocity of a phone in the pocket in rad/s", WISDM_RATE_HZ),
)


def _read_wisdm(folder):
    """``phone/accel/data_1600_accel_phone.txt`` and the gyroscope's: both clocks are brought onto one grid of 20 Hz."""
    names = tuple(channel.name for channel in WISDM_CHANNELS)
    for path in _files(folder, "**/phone/accel/data_*_accel_phone.txt"):
        person = path.stem.split("_")[1]
        other = path.parents[1] / "gyro" / f"data_{person}_gyro_phone.txt"
        accel, gyro = _wisdm_lines(path), _wisdm_lines(other)
        for code in sorted(accel.keys() & gyro.keys()):
            word = _code(path, code, WISDM_LABELS)
            for k, signal in enumerate(_on_one_grid(accel[code], gyro[code])):
                yield Session(
                    f"{person}_{code}_{k}", Recording(signal, WISDM_RATE_HZ, names), (word,), f"person {person}"
                )


def _wisdm_lines(path):
    """Activity -> (n, 4): seconds, sorted and each once, and axes; lines are
    ``1600,A,252207666810782,-0.36,8.79,1.05;``."""
    try:
        lines = path.read_text(encoding="utf-8").split(";")
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    rows = {}
    for line in filter(None, map(str.strip, lines)):
        match = re.fullmatch(r"\d+,([A-Z]),(\d+),([^,]+),([^,]+),([^,]+)", line)
        try:
            rows.setdefault(match[1], []).append([int(match[2]) * 1e-9, *map(float, match.groups()[2:])])
        except (TypeError, ValueError) as error:
            raise DataError(f"{path}: {line!r} is not person,activity,nanoseconds,x,y,z;") from error
    tables = {code: np.array(values) for code, values in rows.items()}
    return {code: table[np.unique(table[:, 0], return_index=True)[1]] for code, table in tables.items()}


def _on_one_grid(*tables):
    """(n, 6) signals at 20 Hz of the spans in which no clock has a gap, by linear interpolation."""
    spans = [(max(table[0, 0] for table in tables), min(table[-1, 0] for table in tables))]
    for table in tables:
        gap = np.flatnonzero(np.diff(table[:, 0]) > LONGEST_GAP_S)
        for before, after in zip(table[gap, 0], table[gap + 1, 0], strict=True):
            spans = [piece for low, high in spans for piece in ((low, min(high, before)), (max(low, after), high))]
            spans = [(low, high) for low, high in spans if high > low]
    for low, high in spans:
        if high - low < LONGEST_GAP_S:
            continue
        grid = low + np.arange(int((high - low) * WISDM_RATE_HZ)) / WISDM_RATE_HZ
        yield np.stack([np.interp(grid, table[:, 0], table[:, k]) for table in tables for k in (1, 2, 3)], 1)


MOTIONSENSE_LABELS = {
    "dws": "walking downstairs",
    "ups": "walking upstairs",
    "wlk": "walking",
    "jog": "jogging",
    "sit": "sitting",
    "std": "standing",
}
MOTIONSENSE_CHANNELS = (
    *_axes("pocket_acc", "acceleration with gravity of a phone in the front pocket in m/s2", 50.0),
    *_axes("pocket_gyro", "angular velocity of a phone in the front pocket in rad/s", 50.0),
    *_axes("pocket_gravity", "direction of gravity seen by a phone in the front pocket in m/s2", 50.0),
    Channel("pocket_roll", "roll angle of a phone in the front pocket in rad", 50.0),
    Channel("pocket_pitch", "pitch angle of a phone in the front pocket in rad", 50.0),
    Channel("pocket_yaw", "yaw angle of a phone in the front pocket in rad", 50.0),
)


def _read_motionsense(folder):
    """``A_DeviceMotion_data/dws_1/sub_1.csv``: acceleration is gravity and the user's together, in m/s2."""
    import pandas as pd

    names = tuple(channel.name for channel in MOTIONSENSE_CHANNELS)
    angles = ["attitude.roll", "attitude.pitch", "attitude.yaw"]
    gravity, user, rate = (
        [f"{what}.{axis}" for axis in "xyz"] for what in ("gravity", "userAcceleration", "rotationRate")
    )
    for path in _files(folder, "**/sub_*.csv"):
        try:
            table = pd.read_csv(path)[[*angles, *gravity, *rate, *user]].astype(np.float64)
        except (OSError, KeyError, ValueError) as error:
            raise DataError(f"{path} is no DeviceMotion table: {error}") from error
        down = table[gravity].to_numpy()
        signal = np.hstack([(down + table[user].to_numpy()) * GRAVITY, table[rate], down * GRAVITY, table[angles]])
        trial, person = path.parent.name, path.stem.removeprefix("sub_")
        word = _code(path, trial.split("_")[0], MOTIONSENSE_LABELS)
        yield Session(f"{trial}_{path.stem}", Recording(signal, 50.0, names), (word,), f"person {person}")


SOURCES = {
    "uci_har": RawSource("Six activities of 30 people with a phone at the waist.", UCI_CHANNELS, _read_uci_har),
    "pamap2": RawSource(
        "Eighteen activities of 9 people, sensors at wrist, chest and ankle.", PAMAP2_CHANNELS, _read_pamap2
    ),
    "wisdm": RawSource("Eighteen activities of 51 people with a phone in the pocket.", WISDM_CHANNELS, _read_wisdm),
    "motionsense": RawSource(
        "Six activities of 24 people, phone in the front pocket.", MOTIONSENSE_CHANNELS, _read_motionsense
    ),
}
