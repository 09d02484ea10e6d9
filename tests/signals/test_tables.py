"""Tables as other programs write them: time columns, separators, lines before the table, jittered clocks."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import pytest
from scipy.io import savemat

from evlib.cli import main
from evlib.signals.errors import DataError, EvlibError, OptionError, UnitError
from evlib.signals.files import read_recording
from evlib.signals.times import is_time

N, RATE = 300, 100.0
SIGNAL = np.random.default_rng(0).normal(size=(N, 2)).round(6)
TIME_S = np.arange(N) / RATE
NEW_YEAR = datetime(2024, 1, 1, tzinfo=UTC).timestamp()


def rows(time, sep=",", decimal=".", signal=SIGNAL):
    lines = [sep.join([str(t), *map(str, values)]) for t, values in zip(time, signal, strict=True)]
    return [line.replace(".", decimal) for line in lines]


def table(tmp_path, *lines, name="a.csv", newline="\n", encoding="utf-8"):
    path = tmp_path / name
    path.write_bytes(newline.join(lines).encode(encoding))
    return path


def check(recording, rate=RATE, signal=SIGNAL):
    assert recording.sampling_rate_hz == pytest.approx(rate, rel=1e-9)
    np.testing.assert_allclose(recording.read(dtype=float), signal, atol=1e-3)


def iso(k):
    return (datetime(2024, 1, 1) + timedelta(seconds=k / RATE)).isoformat(sep=" ", timespec="milliseconds")


STAMPS = {
    "time": TIME_S, "Time (s)": TIME_S, "timestamp": TIME_S, "# time": TIME_S, "seconds_elapsed": TIME_S, "t": TIME_S,
    "TIME [s]": TIME_S, "elapsedTime": TIME_S, "Time since start in s": TIME_S, "Timestamp (ms)": 1e3 * TIME_S,
    "time_ms": 1e3 * TIME_S, "Time [ms]": 1e3 * TIME_S, "t_us": (1e6 * TIME_S).astype(int),
    "timestamp_ns": [f"{int(NEW_YEAR)}{int(k * 1e7):09}" for k in range(100)],
    "datetime": [iso(k) for k in range(N)],
    "Timestamp": [iso(k).replace(" ", "T") + "Z" for k in range(N)], "date time": [iso(k) for k in range(N)],
    "Unix time": [f"{NEW_YEAR + k / RATE:.3f}" for k in range(N)],
    "Local Time": [f"13/05/2024 12:00:0{k / RATE:.3f}" for k in range(N)],
    "time of day": [f"12:00:0{k / RATE:.3f}" for k in range(N)],
}  # fmt: skip


@pytest.mark.parametrize("name", list(STAMPS))
def test_time_columns_are_found_and_checked_even_where_the_rate_is_given(name, tmp_path):
    stamps = list(STAMPS[name])
    n = len(stamps)
    lines = rows(stamps, signal=SIGNAL[:n])
    path = table(tmp_path, f"{name},x,y", *lines)
    for given in (None, RATE):
        recording = read_recording(path, given)
        assert recording.channels == ("x", "y")
        check(recording, signal=SIGNAL[:n])
    path = table(tmp_path, f"{name},x,y", *lines[:40], *lines[60:])  # a hole
    for given in (None, RATE):
        with pytest.raises(DataError, match="regrid=True"):
            read_recording(path, given)
    with pytest.raises(UnitError, match="time_unit"):
        read_recording(table(tmp_path, f"{name},x,y", *lines), 250)
    with pytest.warns(UserWarning, match="1 gaps"):
        again = read_recording(table(tmp_path, f"{name},x,y", *lines[:40], *lines[60:]), regrid=True)
    expected = SIGNAL[:n].copy()
    expected[40:60] = np.nan
    check(again, signal=expected)


def _store(path, signal, **more):
    """Arrays in a file of any kind."""
    if path.suffix == ".npz":
        np.savez(path, signal=signal, **more)
    elif path.suffix == ".mat":
        savemat(path, {"signal": signal, **more})
    elif path.suffix == ".h5":
        with pytest.importorskip("h5py").File(path, "w") as file:
            file.update({"signal": signal, **more})
    else:
        group = pytest.importorskip("zarr").open_group(path, mode="w")
        for name, values in {"signal": signal, **more}.items():
            (group if np.ndim(values) else group.attrs)[name] = values


@pytest.mark.parametrize("kind", [".npz", ".h5", ".zarr", ".mat"])
@pytest.mark.parametrize(("name", "scale"), [("time", 1), ("t_ms", 1e3), ("Timestamps (us)", 1e6)])
def test_an_array_of_times_beside_a_signal_is_its_clock(kind, name, scale, tmp_path):
    rows, path = np.r_[:100, 130:N], tmp_path / f"a{kind}"
    _store(path, SIGNAL, **{name: scale * TIME_S})
    check(read_recording(path))
    with pytest.raises(UnitError, match="100 Hz"):
        read_recording(path, 200.0)
    _store(path, SIGNAL[rows], **{name: scale * TIME_S[rows]})
    for given in (None, RATE):
        with pytest.raises(DataError, match="largest gap is 0.31 s.*regrid=True"):
            read_recording(path, given)
    with pytest.warns(UserWarning, match="1 gaps"):
        again = read_recording(path, regrid=True)
    expected = SIGNAL.copy()
    expected[100:130] = np.nan
    check(again, signal=expected)


@pytest.mark.parametrize("kind", [".npz", ".h5", ".zarr", ".mat"])
@pytest.mark.parametrize("name", ["fs", "sfreq", "sampling_rate"])
def test_a_rate_by_another_name_is_not_overruled(kind, name, tmp_path):
    _store(tmp_path / f"a{kind}", SIGNAL, **{name: RATE})
    check(read_recording(tmp_path / f"a{kind}"))
    with pytest.raises(UnitError, match="the file says 100 Hz"):
        read_recording(tmp_path / f"a{kind}", 200.0)


@pytest.mark.parametrize("name", ["clock", "Sample Index", "seq", "recorded_at", "Uhr", "x"])
@pytest.mark.parametrize("unit", ["s", "samples"])
def test_a_clock_or_counter_by_any_name_is_noticed(name, unit, tmp_path):
    stamps = np.arange(N) if unit == "samples" else TIME_S
    path, lines = tmp_path / "a.csv", rows(stamps)
    table(tmp_path, f"{name},x1,y1", *lines)
    with pytest.raises(UnitError, match=f"time_column='{name}'"):
        read_recording(path)
    with pytest.warns(UserWarning, match="rises by"):
        assert read_recording(path, RATE).n_channels == 3
    check(read_recording(path, RATE, time_column=name, time_unit=unit))
    table(tmp_path, f"{name},x1,y1", *lines[:100], *lines[130:])
    with pytest.raises(DataError, match="after row 100.*time_unit"):
        read_recording(path, RATE)
    with pytest.warns(UserWarning, match="1 gaps"):
        again = read_recording(path, RATE, time_column=name, time_unit=unit, regrid=True)
    assert np.isnan(again.read()[100:130]).all() and again.n_samples == N


def test_a_channel_that_rises_now_and_then_is_no_clock(tmp_path, recwarn):
    distance = np.cumsum(np.random.default_rng(0).gamma(2.0, size=N)).round(3)
    assert read_recording(table(tmp_path, "distance,x,y", *rows(distance)), RATE).n_channels == 3
    assert not recwarn.list


def test_times_of_day_go_on_past_midnight(tmp_path):
    stamps = [
        (datetime(2024, 1, 1, 23, 59, 59) + timedelta(seconds=k / RATE)).strftime("%H:%M:%S.%f") for k in range(N)
    ]
    check(read_recording(table(tmp_path, "time,x,y", *rows(stamps))))


@pytest.mark.parametrize(("unit", "first"), [("ns", 123_456 * 10**9), ("us", 5 * 10**11), ("ms", 2 * 10**11)])
def test_the_unit_that_is_proposed_gives_a_plausible_rate(unit, first, tmp_path):
    step = round({"ns": 1e9, "us": 1e6, "ms": 1e3}[unit] / RATE)
    path = table(tmp_path, "time,x,y", *rows(first + step * np.arange(N)))
    with pytest.raises(UnitError, match=f"time_unit='{unit}'"):
        read_recording(path)
    check(read_recording(path, time_unit=unit))


def test_a_clock_that_began_in_another_year_tells_no_date(tmp_path):
    assert read_recording(table(tmp_path, "time,x,y", *rows(3.8e9 + TIME_S))).start_time is None


def test_names_that_are_no_time():
    for name in (
        "temperature",
        "x",
        "timer",
        "T1",
        "acc_t",
        "ms",
        "m",
        "dt_signal",
        "lifetime index",
        "Time-of-flight",
    ):
        assert not is_time(name), name


@pytest.mark.parametrize(("unit", "scale"), [("ms", 1e3), ("us", 1e6), ("ns", 1e9)])
@pytest.mark.parametrize("start_s", [0.0, NEW_YEAR])
def test_stamps_that_are_no_seconds_ask_for_their_unit(unit, scale, start_s, tmp_path):
    stamps = [int(start_s * scale) + round(k * scale / RATE) for k in range(N)]
    path = table(tmp_path, "time,x,y", *rows(stamps))
    with pytest.raises(UnitError, match="time_unit"):
        read_recording(path)
    with pytest.raises(UnitError, match="time_unit"):
        read_recording(path, RATE)
    recording = read_recording(path, time_unit=unit)
    check(recording)
    assert (recording.start_time is None) == (start_s == 0)
    if start_s:
        assert recording.start_time == datetime.fromtimestamp(NEW_YEAR, UTC)


@pytest.mark.parametrize("kind", ["dates", "seconds", "named", "zones", "steps", "holes", "levels"])
def test_the_index_of_a_parquet_table(kind, tmp_path):
    frame, path = pd.DataFrame(SIGNAL, columns=["x", "y"]), tmp_path / "a.parquet"
    frame.index = {
        "dates": pd.date_range("2024-01-01", periods=N, freq="10ms"),
        "zones": pd.date_range("2024-01-01", periods=N, freq="10ms", tz="Europe/Berlin", name="when"),
        "steps": pd.to_timedelta(TIME_S, unit="s"),
        "seconds": pd.Index(TIME_S),
        "named": pd.Index(np.arange(N) * 10, name="time_ms"),
        "holes": pd.Index(np.r_[: N - 1, N + 7]),
        "levels": pd.MultiIndex.from_arrays([np.arange(N), np.arange(N)]),
    }[kind]
    frame.to_parquet(path)
    if kind in ("holes", "levels"):
        with pytest.raises(DataError, match="column|reset_index"):
            read_recording(path, RATE)
        return
    check(read_recording(path))
    frame.drop(frame.index[100:140]).to_parquet(path)
    with pytest.raises(DataError, match="not uniform"):
        read_recording(path, RATE)


@pytest.mark.parametrize("options", [False, True])
@pytest.mark.parametrize(("sep", "decimal"), [(",", "."), (";", "."), (";", ","), ("\t", "."), ("\t", ",")])
@pytest.mark.parametrize("preamble", [[], ["Recorder 7", "", "Rate, nominal: 100"], ["# a;b", "# c,d\te", "#"]])
def test_layouts(preamble, sep, decimal, options, tmp_path):
    lines = [*preamble, sep.join(["Time (s)", '"a (m/s²)"', " b "]), *rows(TIME_S, sep, decimal)]
    chosen = dict(sep=sep, decimal=decimal, skip_rows=len(preamble)) if options else {}
    for newline, encoding in (("\r\n", "utf-8-sig"), ("\n", "utf-16")):
        recording = read_recording(table(tmp_path, *lines, newline=newline, encoding=encoding), **chosen)
        check(recording)
        assert (recording.channels, recording.units) == (("a (m/s²)", "b"), ("m/s2", ""))


def test_another_encoding_is_said(tmp_path):
    with pytest.warns(UserWarning, match="Windows-1252"):
        recording = read_recording(
            table(tmp_path, "Größe,y", *rows(SIGNAL[:, 0], signal=SIGNAL[:, 1:]), encoding="cp1252"), 9
        )
    assert recording.channels == ("Größe", "y")


ACTIGRAPH = """------------ Data File Created By ActiGraph GT3X+ ActiLife v6.13.3 date format M/d/yyyy at 100 Hz -----
Serial Number: CLE2B1
Start Time 09:00:00
Start Date 5/1/2024
Epoch Period (hh:mm:ss) 00:00:00
Download Time 10:00:00
Download Date 5/2/2024
Current Memory Address: 0
Current Battery Voltage: 4.2     Mode = 12
--------------------------------------------------""".split("\n")


@pytest.mark.parametrize("header", [["Accelerometer X,Accelerometer Y"], []])
def test_actigraph(header, tmp_path):
    lines = [",".join(map(str, values)) for values in SIGNAL]
    recording = read_recording(table(tmp_path, *ACTIGRAPH, *header, *lines))
    check(recording)
    assert recording.start_time == datetime(2024, 5, 1, 9)
    assert recording.channels == (("Accelerometer X", "Accelerometer Y") if header else ("ch1", "ch2"))
    stamps = [f"5/1/2024 09:00:0{k / RATE:.3f}" for k in range(N)]
    recording = read_recording(table(tmp_path, *ACTIGRAPH, "Timestamp,X,Y", *rows(stamps)))
    check(recording)
    assert recording.start_time == datetime(2024, 5, 1, 9)


def test_axivity_and_geneactiv(tmp_path):
    recording = read_recording(table(tmp_path, *rows([iso(k) for k in range(N)])))
    check(recording)
    assert (recording.channels, recording.start_time) == (("ch1", "ch2"), datetime(2024, 1, 1))
    top = ["Device Type,GENEActiv", "Measurement Frequency,100 Hz", "Start Time,2024-01-01 00:00:00:000", "", "", ""]
    stamps = [iso(k)[:-4] + ":" + iso(k)[-3:] for k in range(N)]
    recording = read_recording(table(tmp_path, *top, *rows(stamps)))
    check(recording)
    assert recording.start_time == datetime(2024, 1, 1)


def test_sensor_logger(tmp_path):
    lines = [
        f"{int(NEW_YEAR)}{k * 10_000_000:09},{line}" for k, line in zip(range(100), rows(TIME_S)[:100], strict=True)
    ]
    recording = read_recording(table(tmp_path, "time,seconds_elapsed,z,y", *lines))
    check(recording, signal=SIGNAL[:100])
    assert recording.start_time == datetime.fromtimestamp(NEW_YEAR, UTC)


@pytest.mark.parametrize("kind", ["jitter", "wander", "drift"])
def test_regridding_finds_the_signal_again(kind, tmp_path):
    n, rng = 2000, np.random.default_rng(3)
    time_s = np.arange(n) / RATE
    if kind == "jitter":
        time_s = time_s + rng.uniform(-1e-3, 1e-3, n)
    elif kind == "wander":  # the rate swings by 2 %
        time_s = time_s + 0.02 * 5 / (2 * np.pi) * np.sin(2 * np.pi * time_s / 5)
    else:
        time_s = time_s * (1 + 1e-4 * time_s)
    true = np.sin(2 * np.pi * time_s[:, None] * [1.0, 2.0])
    keep = np.r_[0:700, 900:n]
    path = table(tmp_path, "time,x,y", *rows([f"{t:.9f}" for t in time_s[keep]], signal=true[keep]))
    with pytest.raises(DataError, match="regrid=True"):
        read_recording(path)
    with pytest.warns(UserWarning, match=r"moved by up to .* ms.*1 gaps of together [12]"):
        recording = read_recording(path, RATE if kind == "drift" else None, regrid=True)
    assert recording.sampling_rate_hz == RATE
    time = time_s[0] + np.arange(recording.n_samples) / RATE
    signal, gap = recording.read(), np.isnan(recording.read()).all(axis=1)
    np.testing.assert_allclose(gap.sum() / RATE, time_s[900] - time_s[699], atol=0.03)
    assert not gap[time < time_s[699]].any()
    np.testing.assert_allclose(signal[~gap], np.sin(2 * np.pi * time[~gap, None] * [1.0, 2.0]), atol=0.04)


def test_clocks_that_regridding_cannot_mend(tmp_path):
    good = [f"{t:.2f}" for t in TIME_S]
    with pytest.raises(DataError, match="goes back"):
        read_recording(table(tmp_path, "time,x,y", *rows([*good[:50], *good[:250]])), regrid=True)
    with pytest.raises(DataError, match="too coarse"):
        read_recording(table(tmp_path, "time,x,y", *rows([int(t) for t in TIME_S])), regrid=True)
    with pytest.raises(DataError, match="gap of 1e"):
        read_recording(table(tmp_path, "time,x,y", *rows([*good[:299], "1e10"])), regrid=True)
    with pytest.warns(UserWarning, match="of 1 repeated stamps"):
        check(read_recording(table(tmp_path, "time,x,y", *rows([*good[:50], *good[49:299]])), regrid=True),
              signal=np.delete(SIGNAL, 50, axis=0))  # fmt: skip


@pytest.mark.parametrize(
    ("error", "words", "options"),
    [
        (OptionError, "sep must be one character", {"sep": "::"}),
        (OptionError, "decimal must be", {"decimal": "'"}),
        (OptionError, "cannot both be", {"decimal": ",", "sep": ","}),
        (OptionError, "skip_rows must be", {"skip_rows": -1}),
        (DataError, "has 301 lines", {"skip_rows": 400}),
        (OptionError, "is no column", {"time_column": "clock"}),
        (OptionError, "time_unit must be one of", {"time_unit": "years"}),
    ],
)
def test_options_that_are_refused(error, words, options, tmp_path):
    path = table(tmp_path, "time,x,y", *rows(TIME_S))
    with pytest.raises(error, match=words):
        read_recording(path, **options)
    np.savez(tmp_path / "a.npz", signal=SIGNAL, sampling_rate_hz=RATE)
    with pytest.raises(OptionError, match="cannot be chosen for .npz"):
        read_recording(tmp_path / "a.npz", sep=";")


@pytest.mark.parametrize("sep", [",", ";", "\t"])
@pytest.mark.parametrize(
    "damage",
    [
        lambda line: line + "9,9;9\t9",
        lambda line: line[:4],
        lambda line: '"' + line,
        lambda line: "",
        lambda line: "\x00" + line,
    ],
)
@pytest.mark.parametrize("line", [1, 150, 299])
def test_a_damaged_line_of_a_recording_is_named(line, damage, sep, tmp_path):
    lines = [sep.join(["time", "x", "y"]), *rows(TIME_S, sep)]
    lines[line] = damage(lines[line])
    with pytest.raises(EvlibError, match=f"line {line + 1}\\b"):
        read_recording(table(tmp_path, *lines))


def test_the_command_line_reads_the_same(tmp_path, capsys):
    path = table(tmp_path, "made by hand", "clock;x;y", *rows(1e3 * TIME_S + 1, ";", ","))
    command = ["validate", str(path), "--time-column", "clock"]
    assert main(command) == 2
    assert "--time-unit" in capsys.readouterr().err
    assert main([*command, "--time-unit", "ms", "--sep", ";", "--decimal", ",", "--skip-rows", "1"]) in (0, 1)


def test_offsets_that_change_with_daylight_saving(tmp_path):
    stamps = [f"2024-10-27T0{2 - (k > 90)}:59:5{k / RATE:.2f}+0{2 - (k > 90)}:00" for k in range(N)]
    check(read_recording(table(tmp_path, "time,x,y", *rows(stamps))))
