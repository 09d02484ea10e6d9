"""Windows of motion recordings: what models of motion learn from and are asked about."""

from collections import Counter
from dataclasses import dataclass

import numpy as np

from ..signals.clock import duration_to_samples
from ..signals.errors import DataError, OptionError, require_int, require_rate
from ..signals.recording import cut
from ..training.windows import MotionWindows


def cut_sessions(name, sessions, window_s, stride_s=None, descriptions=None):
    """Windows of a list of `evlib.motion.sessions.Session`: the channels that all of them have, whole windows only.

    Parameters
    ----------
    name : of the data set
    sessions : list of Session of one rate; the first label of each counts
    window_s, stride_s : seconds of a window, and from one to the next (default: ``window_s``)
    descriptions : dict of channel name -> words

    Raises
    ------
    DataError : different rates, no channel in common, no session as long as a window
    """
    if not window_s > 0 or not (stride_s is None or stride_s > 0):
        raise OptionError(f"window_s and stride_s must be seconds above 0, got {window_s!r} and {stride_s!r}")
    if twice := [name for name, n in Counter(session.id for session in sessions).items() if n > 1]:
        raise DataError(f"{name}: two sessions are called {', '.join(twice)}")
    if bare := [session.id for session in sessions if not session.labels] if any(s.labels for s in sessions) else []:
        raise DataError(
            f"{name}: {len(bare)} sessions have no label while others have, as {bare[0]}: leave out one kind"
        )
    rates = {session.recording.sampling_rate_hz for session in sessions}
    if len(rates) != 1:
        raise DataError(f"{name}: sessions of one rate are wanted, got {sorted(rates) or 'no session'}: resample them")
    rate = rates.pop()
    channels = [
        c for c in sessions[0].recording.channels if all(c in session.recording.channels for session in sessions)
    ]
    length = duration_to_samples(window_s, rate)
    step = length if stride_s is None else duration_to_samples(stride_s, rate)
    pieces, fields = [], []
    for session in sessions:
        if (n := session.recording.n_samples) < length:
            continue
        columns = [session.recording.channels.index(channel) for channel in channels]
        signal = session.recording.read()[:, columns]
        start = np.arange(0, n - length + 1, step)
        pieces.append(cut(signal, start, length))
        fields += [(session.labels[0] if session.labels else "", session.group, session.id)] * len(start)
    if not pieces or not channels:
        raise DataError(
            f"{name}: no session is as long as a window of {window_s:g} s, or they have no channel in common"
        )
    labels, groups, sources = map(np.array, zip(*fields, strict=True))
    words = descriptions or {}
    texts = tuple(words.get(channel, channel.replace("_", " ")) for channel in channels)
    known = [values if (values != "").any() else () for values in (labels, groups)]
    return MotionWindows(name, np.concatenate(pieces), rate, tuple(channels), texts, *known, sources)


# --- Simulated people with motion sensors: activities as posture, rhythm and impact, with gravity in the accelerati


GRAVITY = 9.80665
HARMONICS = 4


@dataclass(frozen=True)
class Activity:
    """How an activity moves: tilt (degrees), steps per second, acceleration (m/s2), rotation (rad/s), sharpness of
    impacts."""

    tilt_deg: float
    step_hz: float = 0.0
    acceleration: float = 0.0
    rotation: float = 0.0
    impact: float = 0.0


ACTIVITIES = {
    "walking": Activity(5, 1.9, 2.2, 0.6, 0.5),
    "walking upstairs": Activity(14, 1.5, 1.8, 0.9, 0.3),
    "walking downstairs": Activity(3, 2.0, 3.0, 0.8, 0.9),
    "running": Activity(10, 2.8, 8.0, 1.6, 0.8),
    "jumping": Activity(4, 1.6, 11.0, 0.7, 1.0),
    "cycling": Activity(35, 1.3, 1.2, 1.8, 0.1),
    "sitting": Activity(28),
    "standing": Activity(4),
    "lying": Activity(88),
}
# A place on the body: its share of acceleration and of rotation, and how gravity lies there when standing (degrees).
PLACES = {"waist": (1.0, 1.0, 0.0), "wrist": (0.7, 2.5, 60.0), "ankle": (1.8, 2.0, 10.0), "chest": (0.9, 0.7, 5.0)}


def make_motion(
    name="phone",
    n_people=8,
    windows_per_activity=12,
    activities=tuple(ACTIVITIES),
    places=("waist",),
    magnetometer=False,
    sampling_rate_hz=50.0,
    window_s=2.56,
    seed=0,
) -> MotionWindows:
    """Labelled windows of simulated people.

    Parameters
    ----------
    name : of the data set
    n_people, windows_per_activity : each person does each activity, in so many windows
    activities, places : names out of ``ACTIVITIES`` and ``PLACES``
    magnetometer : three more channels for each place (9 instead of 6), the earth's field in units of its strength
    sampling_rate_hz, window_s : of the windows
    seed : of people and windows

    Raises
    ------
    OptionError : unknown names, numbers below 1

    Examples
    --------
    >>> make_motion(n_people=2, windows_per_activity=1)
    MotionWindows(phone: 18 windows of 2.56 s, 6 channels, 50 Hz, 9 activities)
    """
    require_int(1, n_people=n_people, windows_per_activity=windows_per_activity)
    require_int(0, seed=seed)
    for what, names, known in (("activities", activities, ACTIVITIES), ("places", places, PLACES)):
        if not names or set(names) - set(known):
            raise OptionError(f"{what} must be among {', '.join(known)}; got {', '.join(names) or 'none'}")
    rate, rng = require_rate(sampling_rate_hz), np.random.default_rng([20, seed])
    time = np.arange(round(window_s * rate)) / rate
    person, kind = np.meshgrid(np.arange(n_people), np.arange(len(activities)), indexing="ij")
    person, kind = person.ravel().repeat(windows_per_activity), kind.ravel().repeat(windows_per_activity)
    moves = np.array([list(vars(ACTIVITIES[activity]).values()) for activity in activities])[kind]  # (windows, 5)
    # A person's own tempo, strength and tilt, and how askew the sensors sit; each window differs a little again.
    factor = np.exp(rng.normal(0, [0.08, 0.2, 0.2], (n_people, 3)))[person] * np.exp(
        rng.normal(0, 0.04, (len(kind), 3))
    )
    lean = rng.normal(0, 4, n_people)[person] + rng.normal(0, 2, len(kind))
    askew = rng.normal(0, 6, (n_people, len(places), 2))[person]
    phase = rng.uniform(0, 2 * np.pi, (len(kind), 1))
    step = 2 * np.pi * moves[:, 1:2] * factor[:, :1] * time + phase
    signals = []
    for k, place in enumerate(places):
        share, turn, rest = PLACES[place]
        tilt = np.radians(moves[:, 0] + lean + rest + askew[:, k, 0])[:, None]
        side = np.radians(askew[:, k, 1])[:, None]
        bounce = share * moves[:, 2:3] * factor[:, 1:2] * _beat(step, moves[:, 4:5])
        sway = 0.4 * share * moves[:, 2:3] * factor[:, 1:2] * np.sin(step / 2)
        down = np.stack([np.cos(tilt) * np.cos(side), np.sin(tilt) * np.cos(side), np.sin(side)], -1)
        acceleration = (GRAVITY + bounce)[..., None] * down
        acceleration[..., 2] += sway
        # Half a stride turns one way, the other half the other way.
        turning = turn * moves[:, 3:4] * factor[:, 2:3]
        rotation = turning[..., None] * np.stack([np.sin(step / 2), np.sin(step + 0.7), 0.5 * np.cos(step / 2)], -1)
        signals += [
            acceleration + rng.normal(0, 0.15, acceleration.shape),
            rotation + rng.normal(0, 0.04, rotation.shape),
        ]
        if magnetometer:
            north = np.stack([np.sin(tilt), np.cos(tilt), 0.3 * np.cos(tilt)], -1) + np.zeros_like(rotation)
            signals.append(north + rng.normal(0, 0.03, rotation.shape))
    sensors = {"acc": "acceleration with gravity", "gyro": "angular velocity"} | (
        {"mag": "magnetic field"} if magnetometer else {}
    )
    channels = tuple(f"{place}_{sensor}_{axis}" for place in places for sensor in sensors for axis in "xyz")
    words = tuple(
        f"{sensors[sensor]} of the {place}, {axis} axis" for place in places for sensor in sensors for axis in "xyz"
    )
    labels, people = np.array(activities)[kind], np.array([f"{name} person {p}" for p in person])
    return MotionWindows(name, np.concatenate(signals, 2), rate, channels, words, labels, people)


def _beat(step, impact):
    """A rhythm with the amplitude 1: a sine when ``impact`` is 0, ever sharper strikes with more of it."""
    order = np.arange(1, HARMONICS + 1)
    weight = impact[..., None] ** (order - 1)
    wave = (weight * np.cos(order * step[..., None])).sum(-1)
    return wave / weight.sum(-1)
