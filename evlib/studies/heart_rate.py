"""Heart rate from speed and altitude: a model that is fitted on some people's workouts and asked about others'.

The inputs are efforts as a body feels them: speed, climb and descent, each filtered with the time constants of a heart,
from rest at the start; and speed relative to the person's own, for ten km/h cost one person more than another. Nothing
depends on how high a place lies, and what nobody ran in training is taken for the nearest that somebody did. A ridge
regression predicts from them, and an LSTM corrects it, by as much as helps people who were held out.
"""

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.signal import lfilter
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV, GroupKFold

from ..networks.seeds import seeded
from ..signals.errors import DataError, ShapeError, require, require_int, require_positive
from ..training.checkpoints import load_checkpoint, save_checkpoint
from .sequences import HeartRateLSTM, predict_sequences, sequence_items, train_sequences
from .workouts import regular_steps

# Time constants in seconds: the heart follows an effort in about half a minute, recovers in some minutes; 0 is now.
TIME_CONSTANTS_S = (0.0, 30.0, 90.0, 300.0)
# Altitudes are averaged over this long, in seconds: those of watches jump by metres.
ALTITUDE_S = 20.0
# A person's own speed is the mean since the start, and before it counts as much of a common one, in seconds and km/h.
OWN_SPEED_S, COMMON_SPEED_KMH = 300.0, 9.0
# Seconds of a warming up, and of a workout over which the heart rate drifts upwards.
WARM_UP_S, LONG_S = 120.0, 7200.0
# Inputs count up to so many standard deviations of training from their mean.
REACH = 3.0
# A workout is unlike those of training where more than this share of an input lies beyond.
STRANGE_SHARE = 0.2
# Heart rates in beats per minute that are answered.
POSSIBLE_BPM = (30.0, 220.0)
# Strengths of the ridge that are tried.
RIDGES = tuple(10.0**k for k in range(6))
# Parts of the people that are held out in turn: to choose the ridge, and one of them to correct it.
N_PARTS = 5
# Training of the network, options of `train_sequences`: it is small, and people are few.
TRAINING = {"lr": 3e-3, "weight_decay": 1e-4, "batch_size": 4, "max_epochs": 30, "patience": 8}
INPUTS = tuple(
    f"{name}_{tau:g}s" for name in ("speed", "relative_speed", "climb", "descent") for tau in TIME_CONSTANTS_S
) + ("warming_up", "elapsed")


def effort_features(workout) -> np.ndarray:
    """The inputs of a `HeartRateModel`, (n, 18) in the order of `INPUTS`, none of later steps.

    Where the speed is not known, the person is taken to rest; where no altitude is, the ground to be flat.

    Parameters
    ----------
    workout : a table of `regular_steps`

    Raises
    ------
    DataError : fewer than two steps, no speed at all

    >>> import pandas as pd
    >>> time_s = np.arange(0.0, 600.0, 5.0)
    >>> run = pd.DataFrame({"time_s": time_s, "speed_kmh": 10.0, "altitude_m": 400.0})
    >>> effort_features(run)[[0, -1], INPUTS.index("speed_90s")].round(1)  # km/h, felt with the delay of a heart
    array([ 0.5, 10. ])
    """
    require(len(workout) > 1, DataError, "a workout of fewer than two steps has no efforts")
    time, speed, altitude = (workout[name].to_numpy(dtype=float) for name in ("time_s", "speed_kmh", "altitude_m"))
    require(np.isfinite(speed).any(), DataError, "there is no speed in the workout: a heart rate needs an effort")
    step_s, speed = time[1] - time[0], np.nan_to_num(speed)
    known = np.flatnonzero(np.isfinite(altitude))
    level = np.interp(np.arange(len(time)), known, altitude[known]) if len(known) else np.zeros(len(time))
    rise_kmh = np.diff(_follow(level, ALTITUDE_S, step_s, level[0]), prepend=level[0]) / step_s * 3.6
    since = time - time[0]
    own = (OWN_SPEED_S * COMMON_SPEED_KMH + step_s * np.cumsum(speed)) / (OWN_SPEED_S + since + step_s)
    efforts = speed, speed / np.maximum(own, 1.0), np.maximum(rise_kmh, 0), np.maximum(-rise_kmh, 0)
    columns = [_follow(effort, tau, step_s) for effort in efforts for tau in TIME_CONSTANTS_S]
    return np.stack([*columns, np.exp(-since / WARM_UP_S), np.minimum(since / LONG_S, 1.0)], axis=1)


def _follow(values, tau_s, step_s, start=0.0):
    """The values (n,) as a first-order system with a time constant follows them from ``start``."""
    kept = np.exp(-step_s / tau_s) if tau_s else 0.0
    return lfilter([1 - kept], [1, -kept], values, zi=[kept * start])[0]


@dataclass(frozen=True, eq=False)
class HeartRateModel:
    """Heart rate at every step of a workout, from speed and altitude; made by `fit_heart_rate`.

    Parameters
    ----------
    network : `HeartRateLSTM` that corrects the ridge
    mean, scale : (18,) of the inputs in training; the scale of those that are not used is infinite
    weights, offset : (18,) and a number: the ridge on standardised inputs, in beats per minute
    gain : share of the correction that helps people who were held out; 0: it does not
    step_s : seconds of a step

    Raises
    ------
    DataError : values that do not fit together or are not finite
    """

    network: HeartRateLSTM
    mean: np.ndarray
    scale: np.ndarray
    weights: np.ndarray
    offset: float
    gain: float
    step_s: float

    def __post_init__(self):
        vectors = [np.asarray(values, dtype=float) for values in (self.mean, self.weights, self.scale)]
        fits = all(values.shape == (len(INPUTS),) for values in vectors) and np.isfinite(vectors[:2]).all()
        require(fits and (vectors[2] > 0).all(), DataError, f"mean, weights and scale must be {len(INPUTS)} numbers")
        require(np.isfinite([self.offset, self.gain]).all(), DataError, "offset and gain must be numbers")
        require_positive(step_s=self.step_s)

    def predict(self, workout):
        """The heart rate at every step: a pandas table with ``time_s`` and ``heart_rate_bpm``.

        A heart rate in the workout is not used. Where the speed is not known, neither is the answer: NaN. What goes
        beyond the efforts of training is taken for the nearest of them, and said where it is much.

        Parameters
        ----------
        workout : a table with the columns of `evlib.studies.workouts.COLUMNS`, as `read_activity` reads it

        Raises
        ------
        DataError : no workout, see `regular_steps`; no speed
        """
        steps = regular_steps(_with_heart_rate(workout), self.step_s)
        inputs = effort_features(steps)
        beyond = np.abs((inputs - self.mean) / self.scale) > REACH
        if (share := beyond.mean(axis=0)).max() > STRANGE_SHARE:
            text = "%s lies beyond what was trained on in %.0f %% of the steps: the nearest of it is taken"
            logging.getLogger(__name__).warning(text, INPUTS[share.argmax()], 100 * share.max())
        bpm = np.clip(self._heart_rates([inputs])[0], *POSSIBLE_BPM)
        return steps[["time_s"]].assign(heart_rate_bpm=np.where(steps.speed_kmh.notna(), bpm, np.nan))

    def adapted(self, workouts) -> "HeartRateModel":
        """The model for one person, of whom the heart rate in some workouts is known: its level is moved to theirs.

        Raises
        ------
        DataError : no step with a heart rate
        """
        steps = [regular_steps(workout, self.step_s) for workout in workouts]
        answers = self._heart_rates(list(map(effort_features, steps)))
        error = np.concatenate([_known(one) - bpm for one, bpm in zip(steps, answers, strict=True)])
        require(np.isfinite(error).any(), DataError, "no step of these workouts has a heart rate")
        return replace(self, offset=self.offset + float(np.nanmean(error)))

    def _heart_rates(self, inputs):
        """(n,) beats per minute for the inputs (n, 18) of each workout."""
        scaled = list(map(self._scaled, inputs))
        correction = predict_sequences(self.network, sequence_items(scaled, [np.zeros(len(x)) for x in scaled]))
        return [x @ self.weights + self.offset + self.gain * more for x, more in zip(scaled, correction, strict=True)]

    def _scaled(self, features):
        return np.clip((features - self.mean) / self.scale, -REACH, REACH)

    def save(self, path: str | Path, **metadata) -> None:
        """Write one file that `load_heart_rate` reads; ``metadata``: plain values such as the seed."""
        vectors = {name: torch.from_numpy(np.array(getattr(self, name))) for name in ("mean", "scale", "weights")}
        numbers = {name: float(getattr(self, name)) for name in ("offset", "gain", "step_s")}
        save_checkpoint(path, self.network, metadata, heart_rate=vectors | numbers)


def load_heart_rate(path: str | Path) -> HeartRateModel:
    """Read a file of `HeartRateModel.save`.

    Raises
    ------
    DataError : no file, a damaged one, one that holds something else
    """
    network, content = load_checkpoint(path, kinds=("HeartRateLSTM",), what="heart-rate model")
    try:
        values: dict[str, Any] = {k: v.numpy() if torch.is_tensor(v) else v for k, v in content["heart_rate"].items()}
        return HeartRateModel(network, **values)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise DataError(f"{path} is an incomplete or damaged heart-rate model: {error}") from error


def fit_heart_rate(
    workouts, users=None, step_s: float = 5.0, hidden_size: int = 32, seed: int = 0, **training
) -> HeartRateModel:
    """Fit a model on workouts in which the heart rate is known.

    People are held out, not steps: in turn to choose the strength of the ridge, and a fifth of them to stop the network
    and to say how much its correction is worth.

    Parameters
    ----------
    workouts : tables with the columns of `evlib.studies.workouts.COLUMNS`, as `read_activity` reads them
    users : whose each is. Speeds in km/h are an input where all are of one person, and where they help people who were
        held out; default: nothing is known about whose they are, and only speeds relative to the person's own count
    step_s : seconds of a step
    hidden_size : LSTM units of a layer
    seed : of weights, dropout and batches, and of who is held out
    training : options of `train_sequences`

    Raises
    ------
    DataError : workouts of fewer than two people, none with a heart rate, tables that are none
    ShapeError : not one user for each workout

    Examples
    --------
    >>> import pandas as pd
    >>> rng, time_s = np.random.default_rng(0), np.arange(0.0, 900.0, 5.0)
    >>> runs = []
    >>> for _ in range(6):
    ...     speed = np.repeat(rng.uniform(6, 14, 9), 20)
    ...     runs.append(pd.DataFrame({"time_s": time_s, "speed_kmh": speed, "altitude_m": 0.0}))
    ...     runs[-1]["heart_rate_bpm"] = 80 + 6 * effort_features(runs[-1])[:, INPUTS.index("speed_30s")]
    >>> model = fit_heart_rate(runs[:5], hidden_size=4, max_epochs=1)
    >>> bool(np.abs(model.predict(runs[5]).heart_rate_bpm - runs[5].heart_rate_bpm).mean() < 2)
    True
    """
    require_int(0, seed=seed)
    steps = [regular_steps(workout, step_s) for workout in workouts]
    one_person = users is not None and len(np.unique(users)) == 1
    persons = np.arange(len(steps)) if users is None or one_person else np.asarray(users)
    require(len(persons) == len(steps), ShapeError, f"got {len(persons)} users of {len(steps)} workouts")
    of_use = np.array([np.isfinite(_known(one)).any() for one in steps], dtype=bool)
    people = np.unique(persons[of_use])
    message = f"the heart rate of {len(people)} people (or workouts of one) is known, of three at least it is wanted"
    require(len(people) > 2, DataError, message)

    rows = np.flatnonzero(of_use)
    inputs, truth, persons = [effort_features(steps[k]) for k in rows], [_known(steps[k]) for k in rows], persons[rows]
    examples = np.concatenate(inputs)[np.isfinite(np.concatenate(truth))]
    mean, scale = examples.mean(axis=0), examples.std(axis=0)
    scale[scale == 0] = np.inf
    with seeded(seed):
        network = HeartRateLSTM(len(INPUTS), hidden_size)
    model = HeartRateModel(network, mean, scale, np.zeros(len(INPUTS)), 0.0, 0.0, float(step_s))
    if not one_person:
        relative = replace(model, scale=np.where([name.startswith("speed") for name in INPUTS], np.inf, scale))
        (_, error), (_, without) = (_fit_ridge(one, inputs, truth, persons) for one in (model, relative))
        model = model if users is not None and error < without else relative

    held_out = np.isin(persons, np.random.default_rng(seed).permutation(people)[: max(1, len(people) // N_PARTS)])
    parts = np.flatnonzero(~held_out), np.flatnonzero(held_out)
    known_first = _fit_ridge(model, [inputs[k] for k in parts[0]], [truth[k] for k in parts[0]], persons[parts[0]])[0]
    network, gain = _fit_correction(known_first, inputs, truth, parts, hidden_size, seed, training)
    return replace(_fit_ridge(model, inputs, truth, persons)[0], network=network, gain=gain)


def _fit_ridge(model, inputs, truth, persons):
    """The model with a ridge, and its mean absolute error on people held out in turn, who choose its strength."""
    bpm, person = np.concatenate(truth), np.repeat(persons, list(map(len, truth)))
    known = np.isfinite(bpm)
    folds = GroupKFold(min(N_PARTS, len(np.unique(persons))))
    search = GridSearchCV(Ridge(), {"alpha": RIDGES}, cv=folds, scoring="neg_mean_absolute_error")
    search.fit(model._scaled(np.concatenate(inputs))[known], bpm[known], groups=person[known])
    found = search.best_estimator_
    return replace(model, weights=found.coef_, offset=float(found.intercept_)), -search.best_score_


def _fit_correction(model, inputs, truth, parts, hidden_size, seed, training):
    """A network that learns what the model leaves of some workouts, and the share of its answer that is right about
    the others, of which neither has seen anything."""
    left = [bpm - one for bpm, one in zip(truth, model._heart_rates(inputs), strict=True)]
    spread = float(np.nanstd(np.concatenate([left[k] for k in parts[0]])))
    with seeded(seed):
        network = HeartRateLSTM(len(INPUTS), hidden_size, scale=max(spread, 1e-3))
    items = [sequence_items([model._scaled(inputs[k]) for k in rows], [left[k] for k in rows]) for rows in parts]
    network, _ = train_sequences(network, *items, seed=seed, **TRAINING | training)
    guess, wanted = np.concatenate(predict_sequences(network, items[1])), np.concatenate([left[k] for k in parts[1]])
    known = np.isfinite(wanted)
    gain = guess[known] @ wanted[known] / max(guess[known] @ guess[known], 1e-9)
    return network, float(np.clip(gain, 0.0, 1.0))


def _known(workout):
    """(n,) heart rates of regular steps, NaN where heart rate or speed was not measured."""
    return workout.heart_rate_bpm.where(workout.speed_kmh.notna()).to_numpy(dtype=float)


def _with_heart_rate(workout):
    return workout if "heart_rate_bpm" in workout else workout.assign(heart_rate_bpm=np.nan)
