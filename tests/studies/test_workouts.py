"""Workouts: inputs against brute force and blind to the heart rate, scores against their formulas, files of every
format."""

import datetime
import gzip
import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evlib.signals.errors import DataError, OptionError, ShapeError
from evlib.studies.workouts import (
    FEATURES,
    heart_rate_scores,
    quality_problems,
    read_activity,
    read_endomondo,
    regular_steps,
    workout_features,
)


def table(n=400, step_s=2.0, seed=0):
    rng = np.random.default_rng(seed)
    heart = 140 + np.cumsum(rng.standard_normal(n))
    speed, altitude = 10 + rng.standard_normal(n), 50 + np.cumsum(rng.standard_normal(n))
    columns = {"time_s": np.arange(n) * step_s, "heart_rate_bpm": heart, "speed_kmh": speed, "altitude_m": altitude}
    return pd.DataFrame(columns)


@given(st.integers(1, 80), st.integers(0, 99))
def test_features_are_what_their_names_say(n, seed):
    workout = table(n, seed=seed)
    speed, altitude = workout.speed_kmh.tolist(), workout.altitude_m.tolist()
    features = workout_features(speed, altitude, "female")
    assert features.shape == (n, len(FEATURES)) == (n, 11)
    for i in range(n):
        expected = [
            speed[i],
            altitude[i],
            0.0,
            speed[max(i - 2, 0)],
            speed[max(i - 5, 0)],
            altitude[max(i - 30, 0)],
            speed[i] - speed[max(i - 1, 0)],
            altitude[i] - altitude[max(i - 1, 0)],
            np.mean(speed[max(i - 9, 0) : i + 1]),
            np.mean(speed[max(i - 29, 0) : i + 1]),
            sum(max(b - a, 0) for a, b in zip(altitude[:i], altitude[1 : i + 1], strict=True)),
        ]
        assert features[i] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        (([1.0, 2.0], [1.0]), ShapeError, "one value a step"),
        (([], []), ShapeError, "one value a step"),
        (([1.0, np.nan], [1.0, 2.0]), DataError, "NaN"),
        (([1.0], [1.0], "f"), OptionError, "gender must be one of male, female"),
    ],
)
def test_bad_inputs_of_features(arguments, error, words):
    with pytest.raises(error, match=words):
        workout_features(*arguments)


def test_regular_steps_keep_means_and_fill_gaps():
    workout = table(400, 1.0)
    regular = regular_steps(workout, 5.0)
    assert len(regular) == 80 and regular.time_s.diff().dropna().eq(5.0).all()
    assert regular.heart_rate_bpm.iloc[3] == pytest.approx(workout.heart_rate_bpm[15:20].mean())
    holes = workout.drop(range(100, 200)).assign(altitude_m=lambda t: t.altitude_m.where(t.index != 5))
    filled = regular_steps(holes, 5.0)
    assert len(filled) == 80 and np.isfinite(filled.to_numpy()).all()
    left, right = filled.heart_rate_bpm[19], filled.heart_rate_bpm[40]
    assert np.allclose(filled.heart_rate_bpm[19:41], np.linspace(left, right, 22))
    with pytest.raises(DataError, match="altitude_m is missing"):
        regular_steps(workout.drop(columns="altitude_m"), 5.0)
    with pytest.raises(DataError, match="backwards"):
        regular_steps(workout[::-1], 5.0)
    with pytest.raises(OptionError, match="step_s must be a positive number"):
        regular_steps(workout, 0)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t[:49], "fewer than 50 steps"),
        (lambda t: t[:60].assign(time_s=lambda u: u.time_s / 2), "shorter than five minutes"),
        (lambda t: t.assign(time_s=t.time_s + 400 * (t.index > 70)), "gap"),
        (lambda t: t.assign(altitude_m=t.altitude_m.where(t.index != 9)), "missing"),
        (lambda t: t.assign(heart_rate_bpm=t.heart_rate_bpm - 130), "outside 30-220"),
        (lambda t: t.assign(heart_rate_bpm=t.heart_rate_bpm + 45 * (t.index == 30)), "jumps"),
        (lambda t: t.assign(heart_rate_bpm=t.heart_rate_bpm.where(t.index % 100 < 80, 140.0)), "stays the same"),
        (lambda t: t.assign(speed_kmh=t.speed_kmh + 20 * (t.index == 7)), "25 km/h"),
    ],
)
def test_quality_rules(change, words):
    assert quality_problems(table()) == []
    found = quality_problems(change(table()))
    assert any(words in problem for problem in found), found


def test_scores_are_pooled_over_steps():
    rng = np.random.default_rng(0)
    reference = [130 + 10 * rng.standard_normal(n) for n in (5, 50, 500)]
    predicted = [part + 4 * rng.standard_normal(len(part)) for part in reference]
    scores = heart_rate_scores(predicted, reference, users=["a", "a", "b"])
    guess, truth = np.concatenate(predicted), np.concatenate(reference)
    assert scores["mae"] == pytest.approx(np.abs(guess - truth).mean())
    assert scores["rmse"] == pytest.approx(np.sqrt(((guess - truth) ** 2).mean()))
    assert scores["r2"] == pytest.approx(1 - ((guess - truth) ** 2).sum() / ((truth - truth.mean()) ** 2).sum())
    assert scores["mae_by_user"]["b"] == pytest.approx(np.abs(predicted[2] - reference[2]).mean())
    assert scores["count_by_step"].tolist() == [3] * 5 + [2] * 45 + [1] * 450
    assert scores["mae_by_step"][400] == pytest.approx(abs(predicted[2][400] - reference[2][400]))
    assert (scores["count_by_step"] * scores["mae_by_step"]).sum() / len(truth) == pytest.approx(scores["mae"])
    whole = heart_rate_scores([guess], [truth])
    assert whole["rmse"] == pytest.approx(scores["rmse"]) and whole["mae_by_user"] == {"0": pytest.approx(whole["mae"])}
    mean = heart_rate_scores([np.full(len(truth), truth.mean())], [truth])
    assert mean["r2"] == pytest.approx(0) and np.isnan(mean["slope"])
    with pytest.raises(ShapeError, match="same lengths"):
        heart_rate_scores(predicted[:2], reference)


def test_zones_end_at_shares_of_the_greatest_rate():
    truth = [np.array([113.9, 114.1, 132.0, 133.1, 153.0, 171.5])]
    shifted = [truth[0] + 0.2]
    assert heart_rate_scores(truth, truth)["zone_accuracy"] == 1
    assert heart_rate_scores(shifted, truth)["zone_accuracy"] == pytest.approx(5 / 6)
    assert heart_rate_scores(shifted, truth, max_bpm=150.0)["zone_accuracy"] == 1


def test_endomondo_lines(tmp_path):
    lines = [
        {"id": i, "userId": 7, "sport": "run", "gender": "male", "speed": [9.0, 9.5], "altitude": [1.0, 2.0],
         "heart_rate": [100, 101], "timestamp": [1000 + i, 1008 + i]} for i in range(2)
    ]  # fmt: skip
    text = "\n\n".join(json.dumps(line) for line in lines)
    (tmp_path / "runs.json").write_text(text)
    with gzip.open(tmp_path / "runs.json.gz", "wt") as file:
        file.write(text)
    (tmp_path / "published.json").write_text("\n".join(map(str, lines)))  # Python's quotes
    for name in ("runs.json", "runs.json.gz", "published.json"):
        first, second = read_endomondo(tmp_path / name)
        assert first["userId"] == 7 and second["id"] == 1
        assert second["table"].time_s.tolist() == [0, 8] and second["table"].speed_kmh.tolist() == [9.0, 9.5]
    for slip in ({"speed": [1.0]}, {"altitude": "high"}, {"timestamp": []}):
        (tmp_path / "bad.json").write_text(text + "\n" + json.dumps(lines[0] | slip))
        with pytest.raises(DataError, match="line 4 is no workout"):
            list(read_endomondo(tmp_path / "bad.json"))
    hostile = ["{", "[" * 10_000, "-" * 20_000 + "1", "__import__('os').abort()", "{'id': 1}", "7"]
    hostile += [str(lines[0] | {"timestamp": times}) for times in ([5, 1], [1e999, 1], [10**400, 1], b"12", 3)]
    for content in hostile:
        (tmp_path / "bad.json").write_text(content + "\n" + str(lines[0] | {"sport": "men's run"}))
        with pytest.raises(DataError, match="line 1 is no workout"):
            list(read_endomondo(tmp_path / "bad.json"))
        (left,) = read_endomondo(tmp_path / "bad.json", skip_bad=True)
        assert left["sport"] == "men's run"
    (tmp_path / "slow.json").write_text(str({key: value for key, value in lines[0].items() if key != "speed"}))
    assert "speed_kmh" not in next(read_endomondo(tmp_path / "slow.json"))["table"]
    content = (tmp_path / "runs.json.gz").read_bytes()
    for broken in (content[:40], content[:12] + b"\xff" * 28 + content[40:]):
        (tmp_path / "bad.json.gz").write_bytes(broken)
        with pytest.raises(DataError, match="cannot be read"):
            list(read_endomondo(tmp_path / "bad.json.gz"))
    with pytest.raises(DataError, match="cannot be read"):
        list(read_endomondo(tmp_path / "none.json"))


# Metres in a degree of longitude at 52 degrees north.
LON_M = 6_371_000 * np.pi / 180 * np.cos(np.radians(52))
TCX = """<?xml version="1.0"?>
<TrainingCenterDatabase xmlns="http://www.garmin.com/xmlschemas/TrainingCenterDatabase/v2">
<Activities><Activity Sport="Running"><Id>2020-01-01T10:00:00Z</Id><Lap StartTime="2020-01-01T10:00:00Z">
<TotalTimeSeconds>20</TotalTimeSeconds><DistanceMeters>60</DistanceMeters>
<Calories>1</Calories><Intensity>Active</Intensity>
<TriggerMethod>Manual</TriggerMethod><Track>{points}</Track></Lap></Activity></Activities></TrainingCenterDatabase>"""
TCX_POINT = """<Trackpoint><Time>2020-01-01T10:00:{second:02d}Z</Time><AltitudeMeters>{altitude}</AltitudeMeters>
<DistanceMeters>{distance}</DistanceMeters><HeartRateBpm><Value>{heart}</Value></HeartRateBpm></Trackpoint>"""
GPX = """<?xml version="1.0"?><gpx version="1.1" creator="t" xmlns="http://www.topografix.com/GPX/1/1"
xmlns:g="http://www.garmin.com/xmlschemas/TrackPointExtension/v1">
<trk><type>running</type><trkseg>{points}</trkseg></trk></gpx>"""
GPX_POINT = """<trkpt lat="52.0"
lon="{lon}"><ele>{altitude}</ele><time>2020-01-01T10:00:{second:02d}Z</time><extensions>
<g:TrackPointExtension><g:hr>{heart}</g:hr></g:TrackPointExtension></extensions></trkpt>"""


def assert_fifteen_seconds(workout):
    assert workout.time_s.tolist() == [0, 5, 10, 15] and workout.heart_rate_bpm.tolist() == [100, 101, 102, 103]
    assert workout.altitude_m.tolist() == [10, 11, 12, 13]
    assert workout.speed_kmh[1:].tolist() == pytest.approx([10.8] * 3)


def test_tcx_and_gpx(tmp_path):
    pytest.importorskip("activity_parser")
    points = [
        {"second": 5 * i, "altitude": 10.0 + i, "distance": 15.0 * i, "heart": 100 + i, "lon": 1 + 15 * i / LON_M}
        for i in range(4)
    ]
    (tmp_path / "run.tcx").write_text(TCX.format(points="".join(TCX_POINT.format(**p) for p in points)))
    (tmp_path / "run.gpx").write_text(GPX.format(points="".join(GPX_POINT.format(**p) for p in points)))
    for name in ("run.tcx", "run.gpx"):
        assert_fifteen_seconds(read_activity(tmp_path / name))
    (tmp_path / "no_heart.tcx").write_text((tmp_path / "run.tcx").read_text().replace("HeartRateBpm", "Nothing"))
    with pytest.raises(DataError, match="no heart_rate"):
        read_activity(tmp_path / "no_heart.tcx")
    for name, content in {"cut.tcx": TCX[:200], "noise.fit": "abc", "run.doc": "abc"}.items():
        (tmp_path / name).write_text(content)
        with pytest.raises(DataError, match="cannot be read as a TCX, GPX or FIT file|holds no heart_rate"):
            read_activity(tmp_path / name)


@pytest.mark.parametrize("measured", ["speed", "distance", "both"])
def test_fit(tmp_path, measured):
    """A file written by the maker of the format, with speed in metres a second and heights above -500 m."""
    pytest.importorskip("activity_parser")
    sdk = pytest.importorskip("garmin_fit_sdk")
    start = datetime.datetime(2020, 1, 1, 10, tzinfo=datetime.UTC)
    encoder = sdk.Encoder()
    ids = {"type": "activity", "manufacturer": "development", "product": 0, "serial_number": 1, "time_created": start}
    encoder.write_mesg({"mesg_num": sdk.Profile["mesg_num"]["FILE_ID"], **ids})
    for i in range(4):
        record = {"timestamp": start + datetime.timedelta(seconds=5 * i), "heart_rate": 100 + i, "altitude": 10.0 + i}
        record |= {} if measured == "distance" else {"speed": 3.0}
        record |= {} if measured == "speed" else {"distance": 15.0 * i}
        encoder.write_mesg({"mesg_num": sdk.Profile["mesg_num"]["RECORD"], **record})
    (tmp_path / "run.fit").write_bytes(encoder.close())
    assert_fifteen_seconds(read_activity(tmp_path / "run.fit"))
    (tmp_path / "cut.fit").write_bytes((tmp_path / "run.fit").read_bytes()[:40])
    with pytest.raises(DataError, match="cannot be read as a TCX, GPX or FIT file"):
        read_activity(tmp_path / "cut.fit")
