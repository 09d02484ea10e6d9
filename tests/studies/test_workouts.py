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
        (([np.nan, np.nan], [1.0, 2.0]), DataError, "no value at all"),
        (([1.0, np.inf], [1.0, 2.0]), DataError, "infinity"),
        (([1.0], [1.0], "f"), OptionError, "gender must be one of male, female"),
    ],
)
def test_bad_inputs_of_features(arguments, error, words):
    with pytest.raises(error, match=words):
        workout_features(*arguments)


def test_features_hold_the_last_value_over_a_hole():
    speed, altitude = np.array([np.nan, 10.0, np.nan, 12.0, np.nan]), np.arange(5.0)
    features = workout_features(speed, altitude)
    assert np.array_equal(features, workout_features([10.0, 10.0, 10.0, 12.0, 12.0], altitude))


def test_regular_steps_keep_means():
    workout = table(400, 1.0)
    regular = regular_steps(workout, 5.0)
    assert len(regular) == 80 and regular.time_s.diff().dropna().eq(5.0).all()
    assert regular.heart_rate_bpm.iloc[3] == pytest.approx(workout.heart_rate_bpm[15:20].mean())
    with pytest.raises(DataError, match="altitude_m is missing"):
        regular_steps(workout.drop(columns="altitude_m"), 5.0)
    with pytest.raises(DataError, match="backwards"):
        regular_steps(workout[::-1], 5.0)
    with pytest.raises(OptionError, match="step_s must be a positive number"):
        regular_steps(workout, 0)


@given(st.integers(1, 99), st.integers(0, 60), st.sampled_from(["heart_rate_bpm", "speed_kmh", "altitude_m"]))
def test_short_holes_are_bridged_and_long_ones_stay(n, max_gap_s, column):
    """Of one column alone: the others were measured, and nothing of theirs changes."""
    workout = table(200, 1.0)
    holes = workout.assign(**{column: workout[column].where(~workout.index.isin(range(50, 50 + n)))})
    filled, whole = regular_steps(holes, 1.0, max_gap_s), regular_steps(workout, 1.0, max_gap_s)
    pd.testing.assert_frame_equal(filled.drop(columns=column), whole.drop(columns=column))
    line = np.linspace(workout[column][49], workout[column][50 + n], n + 2)[1:-1]
    inside = filled[column][50 : 50 + n]
    assert inside.isna().all() if n > max_gap_s else np.allclose(inside, line)
    assert filled[column].drop(inside.index).notna().all()


def test_a_pause_is_a_hole_in_every_column_and_the_ends_are_never_made_up():
    workout = table(300, 1.0).drop(range(100, 200))
    workout.loc[:10, "heart_rate_bpm"] = workout.loc[290:, "heart_rate_bpm"] = np.nan
    regular = regular_steps(workout, 1.0)
    assert np.flatnonzero(regular.speed_kmh.isna()).tolist() == list(range(100, 200))
    assert np.flatnonzero(regular.heart_rate_bpm.isna()).tolist() == [*range(11), *range(100, 200), *range(290, 300)]


@pytest.mark.parametrize("gap_s", [1e7, 1e10, 1e300])
def test_a_gap_of_years_is_refused_before_it_takes_memory(gap_s):
    workout = table(100, 1.0)
    workout.loc[60:, "time_s"] += gap_s
    with pytest.raises(DataError, match=r"longest gap is 1e\+\d+ s, after row 59: cut it there"):
        regular_steps(workout, 1.0)


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
        (lambda t: t.assign(speed_kmh=t.speed_kmh - 4260 * (t.index == 7)), "speed below 0"),
        (lambda t: t.assign(altitude_m=t.altitude_m + 1e4 * (t.index == 7)), "not on earth"),
        (lambda t: t.assign(time_s=t.time_s.where(t.index != 7)), "times are missing"),
        (lambda t: t.assign(time_s=t.time_s - 30 * (t.index == 7)), "run backwards"),
        (lambda t: t.drop(columns="speed_kmh"), "there is no speed_kmh"),
    ],
)
def test_quality_rules(change, words):
    assert quality_problems(table()) == []
    found = quality_problems(change(table()))
    assert any(words in problem for problem in found), found


def test_a_ride_is_not_judged_by_the_rule_for_runners():
    ride = table().assign(speed_kmh=32.0)
    assert any("25 km/h" in problem for problem in quality_problems(ride)) and not quality_problems(ride, "cycling")
    with pytest.raises(OptionError, match="sport must be one of running, cycling"):
        quality_problems(ride, "swimming")


def test_a_long_gap_is_seen_at_regular_steps_too():
    workout = table(2000, 1.0).drop(range(500, 1000))
    for one in (workout, regular_steps(workout, 5.0)):
        assert "a gap of more than five minutes" in quality_problems(one)


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


def test_scores_leave_out_steps_without_a_heart_rate():
    rng = np.random.default_rng(0)
    reference = [130 + 10 * rng.standard_normal(n) for n in (9, 20)]
    predicted = [part + rng.standard_normal(len(part)) for part in reference]
    holes = [np.r_[part, np.nan] for part in reference]
    scores = heart_rate_scores([np.r_[part, 500.0] for part in predicted], holes)
    whole = heart_rate_scores(predicted, reference)
    assert all(scores[name] == pytest.approx(value) for name, value in whole.items() if np.isscalar(value))
    assert scores["count_by_step"].tolist() == [2] * 9 + [1] * 11
    with pytest.raises(DataError, match="no step of the reference"):
        heart_rate_scores([np.ones(3)], [np.full(3, np.nan)])
    with pytest.raises(DataError, match="not finite"):
        heart_rate_scores([np.array([np.nan])], [np.ones(1)])


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
    hostile += [str(lines[0] | {"heart_rate": values}) for values in (["100", "101"], [{}, 1], [[1], [2]])]
    hostile += ["[" + "1," * 2**21]
    for content in hostile:
        (tmp_path / "bad.json").write_text(content + "\n" + str(lines[0] | {"sport": "men's run"}))
        with pytest.raises(DataError, match="line 1 is no workout"):
            list(read_endomondo(tmp_path / "bad.json"))
        (left,) = read_endomondo(tmp_path / "bad.json", skip_bad=True)
        assert left["sport"] == "men's run"
    (tmp_path / "slow.json").write_text(str({key: value for key, value in lines[0].items() if key != "speed"}))
    assert "speed_kmh" not in next(read_endomondo(tmp_path / "slow.json"))["table"]
    odd = lines[0] | {"heart_rate": [None, 101], "speed": [9.0, -4260.0], "altitude": [1.0, 1e9]}
    (tmp_path / "odd.json").write_text(json.dumps(odd))
    with pytest.warns(UserWarning, match="line 1: 1 of 2 values of (speed_kmh|altitude_m)"):
        (workout,) = read_endomondo(tmp_path / "odd.json")
    assert workout["table"].isna().sum().tolist() == [0, 1, 1, 1]
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


def points(n=4):
    rows = [{"second": 5 * i, "altitude": 10.0 + i, "distance": 15.0 * i, "heart": 100 + i} for i in range(n)]
    return [row | {"lon": 1 + row["distance"] / LON_M} for row in rows]


def xml(kind, rows):
    """The text of a file; a field of a row that is None is left out."""
    whole, one = (TCX, TCX_POINT) if kind == "tcx" else (GPX, GPX_POINT)
    text = whole.format(points="".join(one.format(**row) for row in rows))
    for tag in ("AltitudeMeters", "DistanceMeters", "HeartRateBpm><Value", "ele", "g:hr", "Time", "time"):
        end = "".join(f"</{part.strip('<>')}>" for part in reversed(tag.split(">")))
        text = text.replace(f"<{tag}>None{end}", "")
    return text


def read(folder, text, name="run.tcx"):
    (folder / name).write_text(text)
    return read_activity(folder / name)


def test_tcx_and_gpx(tmp_path):
    pytest.importorskip("activity_parser")
    for kind in ("tcx", "gpx"):
        text = xml(kind, points())
        assert_fifteen_seconds(read(tmp_path, text, f"run.{kind}"))
        assert_fifteen_seconds(read(tmp_path, "\n  " + text + "\n", f"run.{kind}"))
        (tmp_path / f"run.{kind}.gz").write_bytes(gzip.compress(text.encode()))
        assert_fifteen_seconds(read_activity(tmp_path / f"run.{kind}.gz"))
    with pytest.warns(UserWarning, match="holds no heart_rate_bpm"):
        without = read(tmp_path, xml("tcx", points()).replace("HeartRateBpm", "Nothing"))
    assert without.heart_rate_bpm.isna().all() and without.altitude_m.notna().all()
    for name, content in {"noise.fit": "abc", "run.doc": "abc", "none.tcx": "", "empty.gpx": "<gpx/>"}.items():
        with pytest.raises(DataError, match="cannot be read as a TCX, GPX or FIT file|holds no track points"):
            read(tmp_path, content, name)


@pytest.mark.parametrize("kind", ["tcx", "gpx"])
def test_a_cut_file_is_refused_wherever_it_is_cut(tmp_path, kind):
    pytest.importorskip("activity_parser")
    text = xml(kind, points())
    for n in range(0, len(text), 37):
        with pytest.raises(DataError, match="cannot be read"):
            read(tmp_path, text[:n], f"run.{kind}")
    zipped = gzip.compress(text.encode())
    for content in (zipped[:-9], zipped[:-5] + bytes([zipped[-5] ^ 1]) + zipped[-4:]):
        (tmp_path / f"run.{kind}.gz").write_bytes(content)
        with pytest.raises(DataError, match="cannot be read"):
            read_activity(tmp_path / f"run.{kind}.gz")


def test_speed_from_every_second_distance(tmp_path):
    """Constant speed stays what it is, however few rows say where the runner was; no heart rate is made up."""
    pytest.importorskip("activity_parser")
    rows = [row | ({} if i % 2 == 0 else {"distance": None, "heart": None}) for i, row in enumerate(points(11))]
    workout = read(tmp_path, xml("tcx", rows))
    assert workout.speed_kmh.tolist() == pytest.approx([10.8] * 11)
    assert workout.heart_rate_bpm.isna().tolist() == [False, True] * 5 + [False]
    far = [row | ({} if i in (0, 1, 9, 10) else {"distance": None}) for i, row in enumerate(points(11))]
    assert read(tmp_path, xml("tcx", far)).speed_kmh.isna().tolist() == [False] * 2 + [True] * 8 + [False]
    ends = [row | ({} if 3 <= i <= 7 else {"distance": None}) for i, row in enumerate(points(11))]
    assert read(tmp_path, xml("tcx", ends)).speed_kmh.isna().tolist() == [True] * 3 + [False] * 5 + [True] * 3


def test_across_the_date_line_nobody_runs_around_the_earth(tmp_path):
    pytest.importorskip("activity_parser")
    rows = [row | {"lon": (row["lon"] + 178.9998 + 180) % 360 - 180} for row in points()]
    assert rows[0]["lon"] > 0 > rows[-1]["lon"]
    assert read(tmp_path, xml("gpx", rows), "run.gpx").speed_kmh.tolist() == pytest.approx([10.8] * 4, rel=1e-6)


@pytest.mark.parametrize(
    ("kind", "field", "value", "column"),
    [
        ("tcx", "distance", -5000.0, "speed_kmh"),
        ("tcx", "distance", "9e99", "speed_kmh"),
        ("tcx", "heart", 0, "heart_rate_bpm"),
        ("tcx", "heart", "inf", "heart_rate_bpm"),
        ("tcx", "altitude", 1e6, "altitude_m"),
        ("gpx", "lon", 400.0, "longitude"),
        ("gpx", "lon", -1.0, "speed_kmh"),
        ("gpx", "heart", -5, "heart_rate_bpm"),
    ],
)
def test_impossible_values_become_holes_with_a_warning(tmp_path, kind, field, value, column):
    pytest.importorskip("activity_parser")
    rows = points(9)
    rows[4][field] = value
    with pytest.warns(UserWarning, match=f"values of {column}, the first .* become NaN"):
        workout = read(tmp_path, xml(kind, rows), f"run.{kind}")
    assert workout.isna().to_numpy().sum() <= 2 and len(workout) == 9
    assert workout.speed_kmh.dropna().between(0, 200).all() and workout.heart_rate_bpm.dropna().between(20, 250).all()


@pytest.mark.parametrize("kind", ["tcx", "gpx"])
@pytest.mark.parametrize(("field", "column"), [("heart", "heart_rate"), ("altitude", "altitude")])
def test_text_where_a_number_belongs(tmp_path, kind, field, column):
    pytest.importorskip("activity_parser")
    rows = points()
    rows[2][field] = "fast"
    with pytest.raises(DataError, match=rf"run.{kind}: {column} of row 2 is \['fast'\], not a number"):
        read(tmp_path, xml(kind, rows), f"run.{kind}")


@pytest.mark.parametrize("kind", ["tcx", "gpx"])
def test_times_that_are_missing_or_run_backwards(tmp_path, kind):
    pytest.importorskip("activity_parser")
    name, tag = f"run.{kind}", "Time" if kind == "tcx" else "time"
    text = xml(kind, points())
    stamp = f"<{tag}>2020-01-01T10:00:10Z</{tag}>"
    for change in ("", f"<{tag}>noon</{tag}>"):
        with pytest.warns(UserWarning, match="1 of 4 points have no readable time"):
            assert read(tmp_path, text.replace(stamp, change), name).time_s.tolist() == [0, 5, 15]
    with pytest.raises(DataError, match="backwards: after 5 s .row 1. comes -3600 s"):
        read(tmp_path, text.replace(stamp, stamp.replace("10:00:10", "09:00:00")), name)
    without = xml(kind, points()).replace(f"<{tag}>", "<x>").replace(f"</{tag}>", "</x>")
    with pytest.raises(DataError, match="none of its 4 points has a time .a planned route"):
        read(tmp_path, without, name)


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
    content = (tmp_path / "run.fit").read_bytes()
    flipped = [bytearray(content) for _ in range(0, len(content), 5)]
    for k, one in enumerate(flipped):
        one[5 * k] ^= 1 << k % 8
    for damaged in (*flipped, content[:40], content[:-1], b""):
        (tmp_path / "bad.fit").write_bytes(damaged)
        with pytest.raises(DataError, match="cannot be read as a TCX, GPX or FIT file"):
            read_activity(tmp_path / "bad.fit")
