"""Published activity data in the session format: UCI HAR, PAMAP2, WISDM (2019) and MotionSense, from their raw files.

``convert("uci_har", raw_folder, folder)`` reads the files as their authors publish them and writes a folder of
sessions. Accelerations are in m/s2, angular velocities in rad/s, and each person is a group.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.constants import g as GRAVITY  # standard gravity in m/s2, the unit of UCI HAR and MotionSense

from ..signals.errors import DataError, OptionError, require, require_choice
from ..signals.recording import Recording
from .sessions import Channel, Session, SessionSet, write_sessions

# Rate in Hz that both sensors of WISDM are interpolated to; the phones sampled at about this rate.
WISDM_RATE_HZ = 20.0
# A longer gap in seconds between two samples of WISDM starts a new session.
MAX_GAP_S = 1.0


@dataclass(frozen=True)
class RawSource:
    """How one published data set is read.

    ``channels``: name -> description; ``labels``: code in the files -> activity; ``read``: raw folder -> a generator of
    (file, session id, code of the activity, person, signal (n, channels)).
    """

    description: str
    sampling_rate_hz: float
    channels: dict
    labels: dict
    read: Callable
    may_be_missing: bool = False

    def sessions(self, folder: Path):
        """The sessions in a folder of raw files, one after the other."""
        for path, session_id, code, person, signal in self.read(folder):
            if code not in self.labels:
                shown = repr(code) if isinstance(code, str) else f"{code:g}"
                raise DataError(f"{path} has an activity {shown}; known are {', '.join(map(str, self.labels))}")
            recording = Recording(signal, self.sampling_rate_hz, tuple(self.channels))
            yield Session(session_id, recording, (self.labels[code],), f"person {person}")


def convert(kind: str, raw_folder: str | Path, folder: str | Path) -> SessionSet:
    """Write a published data set as a folder of sessions.

    Parameters
    ----------
    kind : "uci_har", "pamap2", "wisdm" or "motionsense"
    raw_folder : the unpacked files of its authors
    folder : where the sessions go; replaced if it holds sessions

    Raises
    ------
    OptionError : an unknown kind; a folder that is or contains that of the raw files
    DataError : files that are missing or damaged
    """
    require_choice(SOURCES, kind=kind)
    source, raw_folder = SOURCES[kind], Path(raw_folder)
    if not raw_folder.is_dir():
        raise DataError(f"there is no folder {raw_folder}")
    if raw_folder.resolve().is_relative_to(Path(folder).resolve()):
        raise OptionError(f"sessions in {folder} would replace the raw files in {raw_folder}: name another folder")
    rate, missing = source.sampling_rate_hz, source.may_be_missing
    channels = tuple(Channel(name, words, rate, missing) for name, words in source.channels.items())
    return write_sessions(folder, kind, source.description, channels, source.sessions(raw_folder))


# What each kind of sensor measures.
SENSORS = {
    "acc": "acceleration with gravity of {} in m/s2",
    "gyro": "angular velocity of {} in rad/s",
    "mag": "magnetic field at {} in microtesla",
    "gravity": "direction of gravity seen by {} in m/s2",
}


def _channels(name, place, *sensors):
    """Names and descriptions of three channels for each sensor at one place."""
    words = {sensor: SENSORS[sensor].format(place) for sensor in sensors}
    return {f"{name}_{sensor}_{axis}": f"{words[sensor]}, {axis} axis" for sensor in sensors for axis in "xyz"}


def _labels(codes, words):
    return dict(zip(codes, words.split(", "), strict=True))


def _files(folder, pattern):
    found = sorted(folder.glob(pattern))
    if not found:
        raise DataError(f"there is no file {pattern} in {folder} (another folder of the archive?)")
    return found


def _table(path, n_columns, finite=0, dtype=np.float64, header=None, **options):
    """A pandas table of a text file; ``finite``: how many of its first columns must hold finite numbers."""
    import pandas as pd

    try:
        # NaN is a word in these files: an empty field is a line that was cut.
        missing = {"keep_default_na": False, "na_values": ["NaN"], "index_col": False, "encoding": "utf-8"}
        table = pd.read_csv(path, header=header, **missing, **options).astype(dtype)
    except (OSError, KeyError, ValueError, OverflowError) as error:  # the errors of pandas are ValueErrors
        raise DataError(f"{path} cannot be read as a table of numbers: {error}") from error
    require(table.shape[1] == n_columns, DataError, f"{path} must have {n_columns} columns, got {table.shape[1]}")
    message = f"{path} holds NaN or infinity in its first {finite} columns"
    require(np.isfinite(table.iloc[:, :finite]).all(axis=None), DataError, message)
    return table


def _read_uci_har(folder):
    """Windows of 2.56 s with half overlap, each a session: ``train/Inertial Signals/total_acc_x_train.txt`` etc."""
    for part in ("train", "test"):
        place = folder / part
        files = [f"{sensor}_{axis}_{part}.txt" for sensor in ("total_acc", "body_gyro") for axis in "xyz"]
        signals = [_table(place / "Inertial Signals" / file, 128, sep=r"\s+").to_numpy() for file in files]
        code, person = (_table(place / f"{name}_{part}.txt", 1, 1)[0].to_numpy() for name in ("y", "subject"))
        if len(set(map(len, (*signals, code, person)))) != 1:
            raise DataError(f"the files in {place} have different numbers of rows")
        for k, window in enumerate(np.stack(signals, 2) * np.repeat([GRAVITY, 1.0], 3)):
            yield place / f"y_{part}.txt", f"{part}_{k:05d}", code[k], int(person[k]), window


def _read_pamap2(folder):
    """``Protocol/subject101.dat`` etc.: each stretch of one activity is a session; missing values stay NaN."""
    # Of the 17 columns of each sensor: acceleration (16 g), angular velocity, magnetic field.
    columns = [3 + 17 * sensor + k for sensor in range(3) for k in (1, 2, 3, 7, 8, 9, 10, 11, 12)]
    for path in _files(folder, "**/subject*.dat"):
        rows = _table(path, 54, 2, sep=" ").to_numpy()
        # A new stretch begins where the activity changes or the clock (0.01 s) jumps.
        jump = np.abs(np.diff(rows[:, 0]) - 0.01) > 0.005
        for k, stretch in enumerate(np.split(rows, np.flatnonzero(jump | (np.diff(rows[:, 1]) != 0)) + 1)):
            code = stretch[0, 1]
            if code == 0 or len(stretch) < 100:
                continue  # a transition between activities, or less than a second
            # The folders Protocol and Optional each hold a file of the same name for one person.
            session_id = "_".join((*path.relative_to(folder).parts[:-1], path.stem, f"{k:03d}"))
            yield path, session_id, code, path.stem.removeprefix("subject"), stretch[:, columns]


def _read_wisdm(folder):
    """``phone/accel/data_1600_accel_phone.txt`` and the gyroscope's, interpolated to one clock of 20 Hz."""
    for path in _files(folder, "**/phone/accel/data_*_accel_phone.txt"):
        person = path.stem.split("_")[1]
        accel, gyro = map(_wisdm_activities, (path, path.parents[1] / "gyro" / f"data_{person}_gyro_phone.txt"))
        for code in sorted(accel.keys() & gyro.keys()):
            for k, signal in enumerate(_one_clock(accel[code], gyro[code])):
                yield path, f"{person}_{code}_{k}", code, person, signal


def _wisdm_activities(path):
    """Activity -> (n, 4) seconds and three axes by time; a line is ``1600,A,252207666810782,-0.3,8.7,1.0;``."""
    dtype = {0: np.int64, 1: str, 2: np.int64} | dict.fromkeys((3, 4, 5), np.float64)
    table = _table(path, 6, dtype=dtype, comment=";").drop_duplicates([1, 2]).sort_values(2)
    table[2] *= 1e-9
    return {code: rows[[2, 3, 4, 5]].to_numpy() for code, rows in table.groupby(1)}


def _one_clock(*tables):
    """(n, 6) signals at 20 Hz of the spans in which neither clock has a gap, by linear interpolation."""
    spans = [(max(table[0, 0] for table in tables), min(table[-1, 0] for table in tables))]
    for table in tables:
        gap = np.flatnonzero(np.diff(table[:, 0]) > MAX_GAP_S)
        for before, after in zip(table[gap, 0], table[gap + 1, 0], strict=True):
            spans = [piece for low, high in spans for piece in ((low, min(high, before)), (max(low, after), high))]
    for low, high in spans:
        if high - low >= MAX_GAP_S:
            grid = low + np.arange(int((high - low) * WISDM_RATE_HZ)) / WISDM_RATE_HZ
            yield np.stack([np.interp(grid, table[:, 0], table[:, k]) for table in tables for k in (1, 2, 3)], 1)


def _read_motionsense(folder):
    """``A_DeviceMotion_data/dws_1/sub_1.csv``: acceleration is the sum of gravity and the user's, in m/s2."""
    sensors = ("gravity", "userAcceleration", "rotationRate")
    columns = [f"attitude.{angle}" for angle in ("roll", "pitch", "yaw")]
    columns += [f"{sensor}.{axis}" for sensor in sensors for axis in "xyz"]
    for path in _files(folder, "**/sub_*.csv"):
        table = _table(path, len(columns), header=0, usecols=columns)[columns]
        angles, gravity, user, rotation = np.split(table.to_numpy(), 4, axis=1)
        signal = np.hstack([(gravity + user) * GRAVITY, rotation, gravity * GRAVITY, angles])
        trial = path.parent.name
        yield path, f"{trial}_{path.stem}", trial.split("_")[0], path.stem.removeprefix("sub_"), signal


POCKET = "a phone in the front pocket"
ATTITUDE = {f"pocket_{angle}": f"{angle} angle of {POCKET} in rad" for angle in ("roll", "pitch", "yaw")}
SOURCES = {
    "uci_har": RawSource(
        "Six activities of 30 people with a phone at the waist.",
        50.0,
        _channels("waist", "a phone at the waist", "acc", "gyro"),
        _labels(range(1, 7), "walking, walking upstairs, walking downstairs, sitting, standing, laying"),
        _read_uci_har,
    ),
    "pamap2": RawSource(
        "Eighteen activities of 9 people, sensors at wrist, chest and ankle.",
        100.0,
        _channels("hand", "the dominant wrist", "acc", "gyro", "mag")
        | _channels("chest", "the chest", "acc", "gyro", "mag")
        | _channels("ankle", "the ankle", "acc", "gyro", "mag"),
        _labels(
            (1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 12, 13, 16, 17, 18, 19, 20, 24),
            "lying, sitting, standing, walking, running, cycling, nordic walking, watching television, computer work, "
            "car driving, ascending stairs, descending stairs, vacuum cleaning, ironing, folding laundry, "
            "house cleaning, playing soccer, rope jumping",
        ),
        _read_pamap2,
        may_be_missing=True,
    ),
    "wisdm": RawSource(
        "Eighteen activities of 51 people with a phone in the pocket.",
        WISDM_RATE_HZ,
        _channels("pocket", "a phone in the pocket", "acc", "gyro"),
        _labels(
            "ABCDEFGHIJKLMOPQRS",
            "walking, jogging, stairs, sitting, standing, typing, brushing teeth, eating soup, eating chips, "
            "eating pasta, drinking, eating a sandwich, kicking a ball, playing catch, basketball dribbling, writing, "
            "clapping, folding clothes",
        ),
        _read_wisdm,
    ),
    "motionsense": RawSource(
        "Six activities of 24 people, phone in the front pocket.",
        50.0,
        _channels("pocket", POCKET, "acc", "gyro", "gravity") | ATTITUDE,
        _labels(
            ("dws", "ups", "wlk", "jog", "sit", "std"),
            "walking downstairs, walking upstairs, walking, jogging, sitting, standing",
        ),
        _read_motionsense,
    ),
}
