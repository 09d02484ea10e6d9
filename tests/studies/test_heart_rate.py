"""Heart rate: efforts by brute force, a model that holds for other people, files that are whole."""

import logging

import numpy as np
import pandas as pd
import pytest
import torch

from evlib.signals.errors import DataError, OptionError, ShapeError
from evlib.studies.heart_rate import (
    INPUTS,
    TIME_CONSTANTS_S,
    HeartRateModel,
    effort_features,
    fit_heart_rate,
    load_heart_rate,
)
from evlib.studies.sequences import HeartRateLSTM
from evlib.training.checkpoints import load_checkpoint, save_checkpoint

SMALL = {"hidden_size": 4, "max_epochs": 2}


def workout(seed, pace=1.0, minutes=12, step_s=5.0, rest=85.0, height=0.0):
    """A run whose heart rate follows speed and climb with a delay of 40 s; the effort is relative to the own pace."""
    rng = np.random.default_rng(seed)
    n = int(minutes * 60 / step_s)
    effort = np.repeat(rng.uniform(0.5, 1.5, n // 20 + 1), 20)[:n]
    climb = np.repeat(rng.uniform(-0.4, 0.4, n // 30 + 1), 30)[:n]
    heart, bpm = np.empty(n), rest
    for k in range(n):
        bpm += (rest + 60 * effort[k] + 30 * max(climb[k], 0) - bpm) * (1 - np.exp(-step_s / 40))
        heart[k] = bpm
    columns = {"time_s": np.arange(n) * step_s, "heart_rate_bpm": heart + rng.normal(0, 1, n)}
    columns |= {"speed_kmh": 10 * pace * effort, "altitude_m": height + np.cumsum(climb) * step_s}
    return pd.DataFrame(columns)


@pytest.fixture(scope="module")
def model():
    return fit_heart_rate([workout(seed) for seed in range(8)], seed=1, **SMALL)


def error(model, run):
    return float((model.predict(run).heart_rate_bpm - run.heart_rate_bpm).abs().mean())


def test_efforts_equal_brute_force():
    run = workout(3, minutes=6)
    features = effort_features(run)
    assert features.shape == (len(run), len(INPUTS))
    for name, values in (("speed", run.speed_kmh), ("climb", None)):
        for tau in TIME_CONSTANTS_S:
            column = features[:, INPUTS.index(f"{name}_{tau:g}s")]
            effort = features[:, INPUTS.index("climb_0s")] if values is None else values
            felt = 0.0
            for k, now in enumerate(effort):
                felt += (now - felt) * (1 - np.exp(-5.0 / tau) if tau else 1.0)
                assert column[k] == pytest.approx(felt)
    assert (features[:, INPUTS.index("climb_0s")] >= 0).all() and (features[:, INPUTS.index("descent_0s")] >= 0).all()


def test_no_input_knows_the_future_the_heart_rate_or_the_height_of_the_place():
    run = workout(4)
    features = effort_features(run)
    later = run.assign(speed_kmh=run.speed_kmh.where(run.index < 80, 3.0), heart_rate_bpm=np.nan)
    np.testing.assert_array_equal(effort_features(later)[:80], features[:80])
    np.testing.assert_allclose(effort_features(run.assign(altitude_m=run.altitude_m + 3000)), features, atol=1e-6)


def test_without_altitude_the_ground_is_flat_and_without_speed_there_is_no_answer(model):
    run = workout(5)
    flat = effort_features(run.assign(altitude_m=np.nan))
    np.testing.assert_allclose(flat, effort_features(run.assign(altitude_m=7.0)))
    with pytest.raises(DataError, match="there is no speed"):
        model.predict(run.assign(speed_kmh=np.nan))
    paused = run.assign(speed_kmh=run.speed_kmh.where(~run.index.isin(range(40, 80))))
    answer = model.predict(paused).heart_rate_bpm
    assert answer[40:80].isna().all() and answer.drop(range(40, 80)).notna().all()


def test_the_heart_rate_of_other_people_is_predicted_whatever_their_pace_and_place(model):
    level = np.concatenate([workout(seed).heart_rate_bpm for seed in range(8)]).mean()
    for pace, height, share in ((1.0, 0.0, 0.4), (0.75, 0.0, 0.8), (1.3, 2500.0, 0.95)):
        runs = [workout(seed, pace, height=height) for seed in range(20, 26)]
        by_level = np.mean([(run.heart_rate_bpm - level).abs().mean() for run in runs])
        assert np.mean([error(model, run) for run in runs]) < share * by_level


def test_speeds_in_km_h_count_where_they_are_of_use():
    """Of one person they are; of people whose paces differ by half, and whose hearts do not, they are not."""
    used = [name.startswith("speed") for name in INPUTS]
    people = [workout(seed, pace) for seed, pace in enumerate(np.linspace(0.6, 1.6, 8))]
    one = fit_heart_rate(people, users=["me"] * 8, **SMALL)
    others = [fit_heart_rate(people, users=users, **SMALL) for users in (list("abcdefgh"), None)]
    assert np.isfinite(one.scale[used]).all() and all(np.isinf(model.scale[used]).all() for model in others)


def test_a_heart_rate_is_one_and_the_unknown_is_said(model, caplog):
    run = workout(6)
    with caplog.at_level(logging.WARNING):
        assert error(model, run) < 15 and not caplog.records
        climbing = run.assign(altitude_m=np.arange(len(run)) * 200.0, speed_kmh=run.speed_kmh * 20)
        answer = model.predict(climbing).heart_rate_bpm
    assert answer.between(30, 220).all()
    assert "lies beyond what was trained on" in caplog.text and "climb" in caplog.text


def test_a_person_with_another_heart_is_adapted_to(model):
    runs = [workout(seed, rest=110.0) for seed in range(30, 34)]
    before = np.mean([error(model, run) for run in runs[1:]])
    after = np.mean([error(model.adapted(runs[:1]), run) for run in runs[1:]])
    assert before > 20 and after < 10
    with pytest.raises(DataError, match="no step of these workouts has a heart rate"):
        model.adapted([runs[0].assign(heart_rate_bpm=np.nan)])


def test_the_correction_never_counts_more_than_it_helps(model):
    assert 0 <= model.gain <= 1


def test_a_heart_rate_that_was_not_measured_is_never_learned_from():
    runs = [workout(seed) for seed in range(8)]
    holes = [run.assign(heart_rate_bpm=run.heart_rate_bpm.where((run.index < 60) | (run.index > 110))) for run in runs]
    nonsense = [run.assign(speed_kmh=run.speed_kmh.where(run.index.isin(range(60, 111)) == 0)) for run in runs]
    for run in nonsense:
        run.loc[60:110, "heart_rate_bpm"] = 215.0
    first, second = (fit_heart_rate(some, **SMALL) for some in (holes, nonsense))
    assert abs(first.offset - second.offset) < 6


def test_a_model_comes_back_from_its_file(model, tmp_path):
    model.save(tmp_path / "heart.pth", seed=1)
    again, run = load_heart_rate(tmp_path / "heart.pth"), workout(7)
    pd.testing.assert_frame_equal(again.predict(run), model.predict(run))
    with pytest.raises(DataError, match="no heart-rate model at"):
        load_heart_rate(tmp_path / "none.pth")
    save_checkpoint(tmp_path / "bare.pth", model.network)
    with pytest.raises(DataError, match="incomplete or damaged heart-rate model"):
        load_heart_rate(tmp_path / "bare.pth")


@pytest.mark.parametrize(
    "change",
    [
        {"mean": torch.zeros(3)},
        {"weights": torch.full((18,), torch.nan)},
        {"scale": torch.zeros(18)},
        {"offset": float("nan")},
        {"gain": "a"},
        {"step_s": 0.0},
        {"more": 1},
    ],
)
def test_damaged_files_are_refused(model, tmp_path, change):
    model.save(tmp_path / "good.pth")
    network, content = load_checkpoint(tmp_path / "good.pth")
    save_checkpoint(tmp_path / "bad.pth", network, heart_rate=content["heart_rate"] | change)
    with pytest.raises(DataError, match="incomplete or damaged heart-rate model"):
        load_heart_rate(tmp_path / "bad.pth")


def test_slips_are_named():
    runs = [workout(seed) for seed in range(4)]
    with pytest.raises(ShapeError, match="got 3 users of 4 workouts"):
        fit_heart_rate(runs, users=["a", "b", "c"])
    with pytest.raises(DataError, match="of 2 people .* is known"):
        fit_heart_rate(runs, users=["a", "a", "b", "b"])
    with pytest.raises(DataError, match="of 0 people .* is known"):
        fit_heart_rate([run.assign(heart_rate_bpm=np.nan) for run in runs])
    with pytest.raises(DataError, match="altitude_m is missing .a column of NaN says"):
        fit_heart_rate([run.drop(columns="altitude_m") for run in runs])
    with pytest.raises(OptionError, match="step_s"):
        fit_heart_rate(runs, step_s=0)
    network = HeartRateLSTM(len(INPUTS), 4)
    with pytest.raises(DataError, match="must be 18 numbers"):
        HeartRateModel(network, np.zeros(18), np.zeros(18), np.zeros(18), 0.0, 0.0, 5.0)
