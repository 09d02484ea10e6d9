"""Windows of motion sensors: cut from sessions, or of simulated people."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
from scipy.constants import g as GRAVITY  # standard gravity in m/s2

from ..signals.clock import duration_to_samples
from ..signals.errors import DataError, require, require_int, require_known, require_positive, require_rate
from ..signals.events import Events
from ..signals.recording import Recording, cut
from ..signals.streams import stream
from ..training.windows import Windows
from .sessions import Session


def cut_sessions(
    name: str, sessions: list[Session], window_s: float, stride_s: float | None = None, descriptions: dict | None = None
) -> Windows:
    """Whole windows of sessions, with the channels that all sessions have; a window with a missing value is left out.

    Parameters
    ----------
    name : of the data set
    sessions : list of Session of one rate; the first label of each counts
    window_s, stride_s : seconds of a window, and from one to the next (default: ``window_s``)
    descriptions : dict of channel name -> words

    Raises
    ------
    DataError : different rates, no channel in common, no session as long as a window, missing values in every window
    """
    stride_s = window_s if stride_s is None else stride_s
    require_positive(window_s=window_s, stride_s=stride_s)
    rates, ids = {session.recording.sampling_rate_hz for session in sessions}, Counter(one.id for one in sessions)
    if twice := [one for one, n in ids.items() if n > 1]:
        raise DataError(f"{name}: two sessions are called {', '.join(twice)}")
    bare = [session.id for session in sessions if not session.labels]
    if 0 < len(bare) < len(sessions):
        hint = f"as {bare[0]}: leave out the one or the other"
        raise DataError(f"{name}: {len(bare)} sessions have no label while others have, {hint}")
    if len(rates) != 1:
        raise DataError(f"{name}: sessions of one rate are wanted, got {sorted(rates) or 'no session'}: resample them")
    rate = rates.pop()
    shared = set.intersection(*(set(session.recording.channels) for session in sessions))
    channels = [channel for channel in sessions[0].recording.channels if channel in shared]
    length, step = (duration_to_samples(seconds, rate) for seconds in (window_s, stride_s))
    sessions = [session for session in sessions if session.recording.n_samples >= length]
    if not sessions or not channels:
        reason = f"no session is as long as a window of {window_s:g} s, or they have no channel in common"
        raise DataError(f"{name}: {reason}")
    pieces, rows = [], []
    for session in sessions:
        signal = session.recording.read()[:, [session.recording.channels.index(channel) for channel in channels]]
        windows = cut(signal, np.arange(0, len(signal) - length + 1, step), length)
        pieces.append(windows[np.isfinite(windows).all(axis=(1, 2))])
        label = session.labels[0] if session.labels else ""
        rows += [(label, session.group, session.id)] * len(pieces[-1])
    if not rows:
        raise DataError(f"{name}: every window of {window_s:g} s has a missing value in some channel")
    labels, groups, sources = map(np.array, zip(*rows, strict=True))
    labels, groups = (values if (values != "").any() else values[:0] for values in (labels, groups))
    words = descriptions or {}
    texts = tuple(words.get(channel, channel.replace("_", " ")) for channel in channels)
    return Windows(name, np.concatenate(pieces), rate, tuple(channels), texts, labels, groups, sources)


def join_windows(windows: Windows, seed: int | None = None) -> tuple[Recording, Events]:
    """One session from windows laid one behind the other, and its activities with their durations.

    Windows of one label that follow one another are one activity. A ``seed`` shuffles them: two to eight windows of one
    activity, then of another one.

    >>> some = make_motion(n_people=1, windows_per_activity=2, activities=("walking", "lying"))
    >>> session, activities = join_windows(some)
    >>> session.duration_s, activities.type_names, activities.duration_s
    (10.24, ['walking', 'lying'], array([5.12, 5.12]))
    """
    require(len(windows) == len(windows.labels), DataError, f"{windows.name}: windows with labels are wanted")
    if seed is not None:
        windows = windows[_in_runs(windows.labels, stream("sessions from windows", seed))]
    units = windows.units or ""
    session = Recording(np.concatenate(windows.x), windows.sampling_rate_hz, windows.channels, units, name=windows.name)
    first = np.flatnonzero(np.r_[True, windows.labels[1:] != windows.labels[:-1]])
    edges = np.r_[first, len(windows)] * windows.x.shape[1] / windows.sampling_rate_hz
    labels = windows.labels[first].astype(str)
    activities = Events.from_seconds(edges[:-1], labels, windows.sampling_rate_hz, duration_s=np.diff(edges))
    return session, activities


def _in_runs(labels, rng):
    """All rows in random order, in runs of two to eight of one label; the last ones may be shorter, or longer."""
    left = {name: list(rng.permutation(np.flatnonzero(labels == name))) for name in np.unique(labels)}
    order: list = []
    while any(left.values()):
        ready = [name for name in left if left[name]]
        others = [name for name in ready if not order or labels[order[-1]] != name]
        name, count = rng.choice(others or ready), int(rng.integers(2, 9))
        order, left[name] = order + left[name][:count], left[name][count:]
    return np.array(order)


# Harmonics of a simulated step; more change nothing that a rate of 50 Hz shows.
HARMONICS = 4
# How simulated activities move: tilt of the body in degrees, steps per second, acceleration in m/s2, rotation in rad/s,
# and how sharp the impacts are (0 to 1).
ACTIVITIES = {
    "walking": (5, 1.9, 2.2, 0.6, 0.5),
    "walking upstairs": (14, 1.5, 1.8, 0.9, 0.3),
    "walking downstairs": (3, 2.0, 3.0, 0.8, 0.9),
    "running": (10, 2.8, 8.0, 1.6, 0.8),
    "jumping": (4, 1.6, 11.0, 0.7, 1.0),
    "cycling": (35, 1.3, 1.2, 1.8, 0.1),
    "sitting": (28, 0.0, 0.0, 0.0, 0.0),
    "standing": (4, 0.0, 0.0, 0.0, 0.0),
    "lying": (88, 0.0, 0.0, 0.0, 0.0),
}
# Place on the body -> its share of acceleration and of rotation, and the tilt of the sensor when standing in degrees.
PLACES = {"waist": (1.0, 1.0, 0.0), "wrist": (0.7, 2.5, 60.0), "ankle": (1.8, 2.0, 10.0), "chest": (0.9, 0.7, 5.0)}


def make_motion(
    name: str = "phone",
    n_people: int = 8,
    windows_per_activity: int = 12,
    activities: Sequence[str] = tuple(ACTIVITIES),
    places: Sequence[str] = ("waist",),
    magnetometer: bool = False,
    sampling_rate_hz: float = 50.0,
    window_s: float = 2.56,
    seed: int = 0,
) -> Windows:
    """Labelled windows of simulated people.

    Parameters
    ----------
    name : of the data set
    n_people : number of people, each of whom does each activity
    windows_per_activity : number of windows of each activity of a person
    activities, places : names out of ``ACTIVITIES`` and ``PLACES``
    magnetometer : three more channels for each place (9 instead of 6): the earth's magnetic field, whose strength is 1
    sampling_rate_hz, window_s : of the windows
    seed : of people and windows

    Raises
    ------
    OptionError : unknown names, numbers below 1

    Examples
    --------
    >>> make_motion(n_people=2, windows_per_activity=1)
    Windows(phone: 18 windows of 2.56 s, 6 channels, 50 Hz, 9 activities)
    """
    require_int(1, n_people=n_people, windows_per_activity=windows_per_activity)
    require_int(1, activities=len(activities), places=len(places))
    require_int(0, seed=seed)
    require_known(activities, ACTIVITIES, what="activity")
    require_known(places, PLACES, what="place")
    rate, rng = require_rate(sampling_rate_hz), stream("simulated motion", seed)
    time = np.arange(round(window_s * rate)) / rate
    grid = np.meshgrid(np.arange(n_people), np.arange(len(activities)), indexing="ij")
    person, kind = (values.ravel().repeat(windows_per_activity) for values in grid)
    moves = np.array([ACTIVITIES[activity] for activity in activities])
    tilt_deg, step_hz, strength, rotation, impact = moves[kind].T[..., None]  # (windows, 1) each
    # A person's own tempo, strength and tilt, and how askew the sensor sits; windows of a person differ a little too.
    factor = np.exp(rng.normal(0, [0.08, 0.2, 0.2], (n_people, 3)))[person]
    tempo, force, turn = (factor * np.exp(rng.normal(0, 0.04, (len(kind), 3)))).T[..., None]
    lean = (rng.normal(0, 4, n_people)[person] + rng.normal(0, 2, len(kind)))[:, None]
    askew = rng.normal(0, 6, (n_people, len(places), 2))[person]
    phase = rng.uniform(0, 2 * np.pi, (len(kind), 1))
    step = 2 * np.pi * step_hz * tempo * time + phase
    signals = []
    for k, place in enumerate(places):
        share, share_turn, rest = PLACES[place]
        tilt = np.radians(tilt_deg + lean + rest + askew[:, k, :1])
        side = np.radians(askew[:, k, 1:])
        bounce = share * strength * force * _beat(step, impact)
        down = np.stack([np.cos(tilt) * np.cos(side), np.sin(tilt) * np.cos(side), np.sin(side)], -1)
        acceleration = (GRAVITY + bounce)[..., None] * down
        acceleration[..., 2] += 0.4 * share * strength * force * np.sin(step / 2)
        # Half a stride turns one way, the other half the other way.
        stride = np.stack([np.sin(step / 2), np.sin(step + 0.7), 0.5 * np.cos(step / 2)], -1)
        turning = (share_turn * rotation * turn)[..., None] * stride
        signals.append(acceleration + rng.normal(0, 0.15, acceleration.shape))
        signals.append(turning + rng.normal(0, 0.04, turning.shape))
        if magnetometer:
            north = np.stack([np.sin(tilt), np.cos(tilt), 0.3 * np.cos(tilt)], -1)
            signals.append(north + rng.normal(0, 0.03, turning.shape))
    sensors = {"acc": "acceleration with gravity", "gyro": "angular velocity"}
    sensors |= {"mag": "magnetic field"} if magnetometer else {}
    names = {
        f"{place}_{sensor}_{axis}": f"{words} of the {place}, {axis} axis"
        for place in places
        for sensor, words in sensors.items()
        for axis in "xyz"
    }
    labels, people = np.array(activities)[kind], np.array([f"{name} person {p}" for p in person])
    return Windows(name, np.concatenate(signals, 2), rate, tuple(names), tuple(names.values()), labels, people)


def _beat(step, impact):
    """A rhythm of amplitude 1: a sine where ``impact`` is 0, sharper strikes the larger it is."""
    order = np.arange(1, HARMONICS + 1)
    weight = impact[..., None] ** (order - 1)
    return (weight * np.cos(order * step[..., None])).sum(-1) / weight.sum(-1)
