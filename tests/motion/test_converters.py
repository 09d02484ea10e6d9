"""Converters of published data: small folders laid out as their authors lay them out."""

import numpy as np
import pandas as pd
import pytest

from evlib.motion.converters import GRAVITY, convert
from evlib.motion.sessions import validate_sessions
from evlib.signals.errors import DataError, OptionError

RNG = np.random.default_rng(0)


def uci_har(folder):
    """Two training windows and one test window; values are 100 * sensor + window + sample / 1000."""
    for part, n in (("train", 2), ("test", 1)):
        (folder / part / "Inertial Signals").mkdir(parents=True)
        for k, sensor in enumerate(f"{s}_{a}" for s in ("total_acc", "body_gyro", "body_acc") for a in "xyz"):
            rows = 100 * k + np.arange(n)[:, None] + np.arange(128) / 1000
            np.savetxt(folder / part / "Inertial Signals" / f"{sensor}_{part}.txt", rows)
        (folder / part / f"y_{part}.txt").write_text("\n".join(map(str, [5, 2][:n])))
        (folder / part / f"subject_{part}.txt").write_text("\n".join(map(str, [1, 30][:n])))


def test_uci_har(tmp_path):
    uci_har(tmp_path / "raw")
    opened = convert("uci_har", tmp_path / "raw", tmp_path / "out")
    assert opened.ids == ["test_00000", "train_00000", "train_00001"] and validate_sessions(opened.folder).ok
    second = opened.read("train_00001")
    assert (second.labels, second.group) == (("walking upstairs",), "person 30")
    expected = 100 * np.arange(6) + 1 + np.arange(128)[:, None] / 1000
    expected[:, :3] *= GRAVITY
    np.testing.assert_allclose(second.recording.read(), expected, rtol=1e-6)
    assert second.recording.sampling_rate_hz == 50.0 and second.recording.channels[3] == "waist_gyro_x"


def pamap2(folder, seconds=5):
    """Walking, a transition, sitting with a lost sensor; column k holds k."""
    (folder / "Protocol").mkdir(parents=True)
    n = 100 * seconds
    rows = np.tile(np.arange(54.0), (3 * n, 1))
    rows[:, 0] = 8.38 + np.arange(3 * n) / 100
    rows[:, 1] = np.repeat([4, 0, 2], n)
    rows[2 * n + 3, 4:20] = np.nan
    np.savetxt(folder / "Protocol" / "subject101.dat", rows, fmt="%.6g")


def test_pamap2(tmp_path):
    pamap2(tmp_path / "raw")
    opened = convert("pamap2", tmp_path / "raw", tmp_path / "out")
    assert [opened.read(name).labels for name in opened.ids] == [("walking",), ("sitting",)], "transitions are left out"
    assert validate_sessions(opened.folder).ok and len(opened.channels) == 27
    sitting = opened.read(opened.ids[1])
    assert sitting.group == "person 101" and sitting.recording.n_samples == 500
    # Of the hand: acceleration in columns 5-7 (counted from 1), rotation 11-13, field 14-16.
    assert sitting.recording.read()[0, :9].tolist() == [4, 5, 6, 10, 11, 12, 13, 14, 15]
    written = pd.read_parquet(opened.folder / "sessions" / sitting.id / "data.parquet").to_numpy()[3, 1:]
    assert np.isnan(written[:9]).all() and not np.isnan(written[9:]).any()


def test_a_person_may_have_a_file_in_each_of_two_folders(tmp_path):
    pamap2(tmp_path / "raw")
    (tmp_path / "raw" / "Protocol").rename(tmp_path / "raw" / "Optional")
    pamap2(tmp_path / "raw")
    opened = convert("pamap2", tmp_path / "raw", tmp_path / "out")
    assert len(opened.ids) == 4 and set(opened.groups.values()) == {"person 101"}


def test_raw_files_are_never_replaced(tmp_path):
    pamap2(tmp_path / "raw")
    for place in (tmp_path / "raw", tmp_path):
        with pytest.raises(OptionError, match="would replace the raw files"):
            convert("pamap2", tmp_path / "raw" / "Protocol" if place != tmp_path else tmp_path / "raw", place)
    assert (tmp_path / "raw" / "Protocol" / "subject101.dat").is_file()


def wisdm(folder, jitter_s=0.004):
    """One person walks for 5 s; the clocks of the two sensors differ, and the accelerometer pauses for two seconds."""
    for sensor, offset, step in (("accel", 0.0, 0.05), ("gyro", 0.013, 0.051)):
        place = folder / "raw" / "phone" / sensor
        place.mkdir(parents=True)
        time = offset + step * np.arange(140) + RNG.uniform(-jitter_s, jitter_s, 140)
        time[70:] += 2.0 if sensor == "accel" else 0.0
        lines = [f"1600,A,{int((1000 + t) * 1e9)},{t:.6f},{2 * t:.6f},{np.sin(t):.6f};" for t in time]
        (place / f"data_1600_{sensor}_phone.txt").write_text("\n".join(lines[::-1]))  # not sorted


def test_wisdm(tmp_path):
    wisdm(tmp_path)
    opened = convert("wisdm", tmp_path, tmp_path / "out")
    assert len(opened.ids) == 2, "the pause parts two sessions"
    assert validate_sessions(opened.folder).ok
    for name in opened.ids:
        session = opened.read(name)
        x = session.recording.read()
        assert session.labels == ("walking",) and session.recording.sampling_rate_hz == 20.0
        # Both clocks say the time in their first channel: on one grid they are equal, and grow by a step of it.
        np.testing.assert_allclose(x[:, 0], x[:, 3], atol=1e-3)
        np.testing.assert_allclose(np.diff(x[:, 0]), 0.05, atol=1e-3)
        np.testing.assert_allclose(x[:, 1], 2 * x[:, 0], atol=1e-3)


def motionsense(folder):
    header = ["", "attitude.roll", "attitude.pitch", "attitude.yaw"]
    header += [f"{sensor}.{axis}" for sensor in ("gravity", "rotationRate", "userAcceleration") for axis in "xyz"]
    for trial in ("dws_1", "sit_5"):
        place = folder / "A_DeviceMotion_data" / trial
        place.mkdir(parents=True)
        rows = [",".join(map(str, [i, 1, 2, 3, 0.1, 0.2, 0.3, 7, 8, 9, 1.1, 1.2, 1.3])) for i in range(60)]
        (place / "sub_7.csv").write_text("\n".join([",".join(header), *rows]))


def test_motionsense(tmp_path):
    motionsense(tmp_path / "raw")
    opened = convert("motionsense", tmp_path / "raw", tmp_path / "out")
    assert opened.ids == ["dws_1_sub_7", "sit_5_sub_7"] and validate_sessions(opened.folder).ok
    session = opened.read("dws_1_sub_7")
    assert (session.labels, session.group) == (("walking downstairs",), "person 7")
    acceleration, gravity = np.array([1.2, 1.4, 1.6]) * GRAVITY, np.array([0.1, 0.2, 0.3]) * GRAVITY
    expected = [*acceleration, 7, 8, 9, *gravity, 1, 2, 3]
    np.testing.assert_allclose(session.recording.read()[5], expected, rtol=1e-6)


@pytest.mark.parametrize("make", [uci_har, pamap2, wisdm, motionsense], ids=lambda make: make.__name__)
def test_a_damaged_raw_file_is_named(tmp_path, make):
    raw = tmp_path / "raw folder"
    make(raw)
    victim = sorted(path for path in raw.rglob("*") if path.is_file() and "body_acc" not in path.name)[0]
    victim.write_text("this, is; not a table\n1 2 3")
    with pytest.raises(DataError, match=victim.name.replace(".", r"\.")):
        convert(make.__name__, raw, tmp_path / "out")
    assert not (tmp_path / "out").exists(), "nothing half written is left"


@pytest.mark.parametrize("make", [uci_har, pamap2, wisdm, motionsense], ids=lambda make: make.__name__)
def test_a_line_that_was_cut_is_named(tmp_path, make):
    """Its lost fields are no missing values of the sensor."""
    raw = tmp_path / "raw"
    make(raw)
    pattern = {"uci_har": "**/body_gyro*", "motionsense": "**/sub_*"}.get(make.__name__, "**/*1[06]?*")
    victim = sorted(path for path in raw.glob(pattern) if path.is_file())[0]
    victim.write_text(victim.read_text()[: -len(victim.read_text().splitlines()[-1]) // 2])
    with pytest.raises(DataError, match=victim.name.replace(".", r"\.")):
        convert(make.__name__, raw, tmp_path / "out")


def test_unknown_kinds_folders_and_activities(tmp_path):
    with pytest.raises(OptionError, match="kind must be one of uci_har"):
        convert("uci-har", tmp_path, tmp_path / "out")
    with pytest.raises(DataError, match="no folder"):
        convert("uci_har", tmp_path / "nowhere", tmp_path / "out")
    with pytest.raises(DataError, match="another folder of the archive"):
        convert("pamap2", tmp_path, tmp_path / "out")
    uci_har(tmp_path / "raw")
    (tmp_path / "raw" / "train" / "y_train.txt").write_text("5\n9")
    with pytest.raises(DataError, match="activity 9; known are 1, 2"):
        convert("uci_har", tmp_path / "raw", tmp_path / "out")
