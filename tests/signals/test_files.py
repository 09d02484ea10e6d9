"""Files: every format gives back what was written; damaged and hostile ones are refused; a crash loses nothing."""

import json
import os
import pickle
import sys
import tracemalloc
import wave
from datetime import datetime, timedelta, timezone

import h5py
import numpy as np
import pandas as pd
import pytest
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.io import wavfile

from evlib.signals.errors import DataError, EvlibError, MissingExtraError, UnitError
from evlib.signals.files import read_recording, write_recording
from evlib.signals.recording import Recording

FORMATS = [".npz", ".npy", ".h5", ".zarr"]
quick = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=12)
shapes = st.tuples(st.integers(4, 40), st.integers(1, 4))
dtypes = st.sampled_from(["float32", "float64", "int16", "int32", "uint8"])
signals = dtypes.flatmap(lambda dtype: hnp.arrays(dtype, shapes))


def noise(n_samples=1000, n_channels=3, seed=0):
    return np.random.default_rng(seed).normal(size=(n_samples, n_channels)).astype(np.float32)


START = datetime(2024, 5, 1, 12, 0, 0, 250_000, timezone(timedelta(hours=2)))


def store(path, signal, rate=2000.0, channels=None, units=""):
    """A file of each kind, as other programs write it; .npz by evlib."""
    recording = Recording(signal, rate, channels, units, start_time=START)
    about = {"sampling_rate_hz": rate, "channels": list(recording.channels), "units": list(recording.units)}
    about["start_time"] = START.isoformat()
    if path.suffix == ".npz":
        write_recording(recording, path)
    elif path.suffix == ".npy":
        np.save(path, signal)
        path.with_suffix(".json").write_text(json.dumps(about), encoding="utf-8")
    elif path.suffix == ".h5":
        with h5py.File(path, "w") as file:
            file["signal"] = signal
            file["signal"].attrs.update(about)
    elif path.suffix == ".zarr":
        zarr.create_array(path, data=signal, overwrite=True).attrs.update(about)
    elif path.suffix == ".wav":
        wavfile.write(path, int(rate), signal)


@pytest.mark.parametrize("kind", FORMATS)
@quick
@given(signal=signals, rate=st.sampled_from([2000.0, 360.0, 204.8, 44100.0, 1999.987]))
def test_what_was_written_is_read(kind, signal, rate, tmp_path):
    path = tmp_path / f"night{kind}"
    names = [f"axis {k}" for k in range(signal.shape[1])]
    store(path, signal, rate, names, "µV")
    again = read_recording(path)
    assert np.asarray(again.signal).dtype == signal.dtype
    np.testing.assert_array_equal(np.asarray(again.signal), signal)
    assert (again.sampling_rate_hz, again.name, again.start_time) == (rate, "night", START)
    assert (again.channels, again.units) == (tuple(names), ("µV",) * len(names))


@pytest.mark.parametrize("kind", [".csv", ".tsv", ".parquet"])
@quick
@given(
    signal=hnp.arrays("float64", shapes, elements=st.floats(-1e300, 1e300)),
    rate=st.sampled_from([2000.0, 360.0, 204.8]),
)
def test_round_trip_of_tables(kind, signal, rate, tmp_path):
    table = pd.DataFrame(signal, columns=[f"c{k}" for k in range(signal.shape[1])])
    table.insert(1, "Time_s", 3.5 + np.arange(len(signal)) / rate)
    path = tmp_path / f"a{kind}"
    if kind == ".parquet":
        table.to_parquet(path)
    else:
        table.to_csv(path, sep="," if kind == ".csv" else "\t", index=False)
    again = read_recording(path)
    np.testing.assert_array_equal(again.signal, signal)
    assert again.sampling_rate_hz == rate
    assert again.channels == tuple(f"c{k}" for k in range(signal.shape[1]))


@pytest.mark.parametrize(("width", "dtype", "zero"), [(1, "u1", 128), (2, "<i2", 0), (3, None, 0), (4, "<i4", 0)])
def test_integers_in_wav_are_scaled(width, dtype, zero, tmp_path):
    full = 2 ** (8 * width - 1)
    values = np.array([-full, -full // 2, 0, full // 2, full - 1])
    raw = (
        b"".join(int(v).to_bytes(3, "little", signed=True) for v in values)
        if dtype is None
        else (values + zero).astype(dtype)
    )
    with wave.open(str(tmp_path / "a.wav"), "wb") as file:
        file.setparams((1, width, 8000, 0, "NONE", ""))
        file.writeframes(bytes(raw))
    recording = read_recording(tmp_path / "a.wav")
    assert recording.sampling_rate_hz == 8000
    np.testing.assert_allclose(recording.read()[:, 0], values / full, atol=1e-7)
    np.testing.assert_array_equal(recording.between(1 / 8000, 3 / 8000).read(), recording.read(1, 3))


def test_h5_in_the_other_layout(tmp_path):
    with h5py.File(tmp_path / "a.hdf5", "w") as file:
        file["signal"] = noise(50, 1)[:, 0]
        file["sampling_rate_hz"] = 360.0
        file["channels"] = ["MLII"]
    recording = read_recording(tmp_path / "a.hdf5")
    assert (recording.shape, recording.sampling_rate_hz, recording.channels) == ((50, 1), 360.0, ("MLII",))
    np.testing.assert_array_equal(recording.read(10, 20), noise(50, 1)[10:20])


def test_zarr_group(tmp_path):
    group = zarr.open_group(tmp_path / "a.zarr", mode="w")
    group.create_array("signal", data=noise())
    group.attrs.update(sampling_rate_hz=204.8, units="g")
    recording = read_recording(tmp_path / "a.zarr", channels=["x", "y", "z"])
    assert (recording.sampling_rate_hz, recording.units, recording.channels) == (204.8, ("g",) * 3, ("x", "y", "z"))


def test_a_huge_file_is_not_read(tmp_path):
    path = tmp_path / "huge.npy"
    with open(path, "wb") as file:  # a sparse file of 240 GB
        np.lib.format.write_array_header_2_0(file, {"descr": "<f4", "fortran_order": False, "shape": (10**10, 6)})
        file.truncate(file.tell() + 24 * 10**10)
    tracemalloc.start()
    block = read_recording(path, 2000).between(1e6, 2e6).read(10**9, 10**9 + 1000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert block.shape == (1000, 6)
    assert peak < 10e6


class Bomb:
    """Unpickling it makes a folder."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_a_hostile_file_runs_nothing(tmp_path):
    bomb = np.array([Bomb(tmp_path / "boom")] * 3, dtype=object)
    np.savez(tmp_path / "a.npz", signal=bomb, sampling_rate_hz=2000)
    np.savez(tmp_path / "b.npz", signal=noise(), sampling_rate_hz=2000, channels=bomb)
    np.save(tmp_path / "c.npy", bomb, allow_pickle=True)
    for name in ("d.npz", "e.npy", "f.csv", "g.wav"):
        (tmp_path / name).write_bytes(pickle.dumps(bomb))
    for name in ("a.npz", "b.npz", "c.npy", "d.npz", "e.npy", "f.csv", "g.wav"):
        with pytest.raises(EvlibError, match=name):
            read_recording(tmp_path / name, 2000)
    assert not (tmp_path / "boom").exists()


@pytest.mark.parametrize("where", ["compressor", "filters"])
def test_a_hostile_zarr_runs_nothing(where, tmp_path):
    folder = tmp_path / "a.zarr"
    folder.mkdir()
    about = {"zarr_format": 2, "shape": [10, 2], "chunks": [10, 2], "fill_value": 0, "order": "C", "dtype": "<f4"}
    about |= {"compressor": None, "filters": None}
    codec = {"id": "pickle", "protocol": 5}
    (folder / ".zarray").write_text(json.dumps(about | {where: codec if where == "compressor" else [codec]}))
    (folder / "0.0").write_bytes(pickle.dumps(Bomb(tmp_path / "boom")))
    with pytest.raises(DataError, match="a.zarr"):
        read_recording(folder, 2000).read()
    assert not (tmp_path / "boom").exists()


@pytest.mark.parametrize("kind", [*FORMATS[:3], ".wav", ".csv"])
def test_truncated_files_are_refused_or_read_in_words(kind, tmp_path):
    """Whatever the place of the cut: a clear error with the path, never a bare exception of some library."""
    whole, path = tmp_path / f"whole{kind}", tmp_path / f"cut{kind}"
    if kind == ".csv":
        whole.write_text("time,x\n" + "".join(f"{k / 100},{k}\n" for k in range(100)))
    else:
        store(whole, noise(200))
        (tmp_path / "cut.json").write_text('{"sampling_rate_hz": 2000}')
    content = whole.read_bytes()
    refused = 0
    for cut in np.linspace(0, len(content) - 1, 25).astype(int):
        path.write_bytes(content[:cut])
        try:
            read_recording(path).read()
        except EvlibError as error:
            assert path.name in str(error)
            refused += 1
    assert refused >= (1 if kind == ".csv" else 24)


@quick
@given(at=st.lists(st.integers(0, 1000), min_size=1, max_size=5), value=st.integers(0, 255))
@pytest.mark.parametrize("kind", [".npz", ".npy", ".h5", ".wav"])
def test_damaged_files_never_break_out(kind, at, value, tmp_path):
    path = tmp_path / f"a{kind}"
    path.unlink(missing_ok=True)
    store(path, noise(60))
    assert np.array_equal(read_recording(path).read(), noise(60))
    content = bytearray(path.read_bytes())
    for k in at:
        content[k % len(content)] = value
    path.write_bytes(bytes(content))
    try:
        assert read_recording(path).read().ndim == 2
    except EvlibError as error:
        assert path.name in str(error)


@pytest.mark.parametrize(
    ("path", "hint"),
    [
        ("rec100", r"did you mean .*rec100\.hea\?"),  # WFDB's own way to name a record
        ("rec100.dat", r"did you mean .*rec100\.hea\?"),
        ("rec100.edf", r"no recording .*did you mean .*rec100\.hea\?"),
        ("log [1]/Acc", r"did you mean .*Acc\.csv\?"),
        ("log [1]", r"did you mean .*Acc\.csv, .*Gyr\.csv\?"),
        ("lone.atr", "labels\\? they come after their recording"),
        ("labels.TextGrid", "labels\\? they come after their recording"),
        ("events.tsv", "a table of events, not a recording"),
    ],
)
def test_a_path_that_is_no_recording_leads_to_one(tmp_path, path, hint):
    (tmp_path / "log [1]").mkdir()
    for name in ("rec100.hea", "rec100.dat", "log [1]/Acc.csv", "log [1]/Gyr.csv", "lone.atr", "labels.TextGrid"):
        (tmp_path / name).touch()
    (tmp_path / "events.tsv").write_text("onset\tduration\ttrial_type\n1\t0\tbell\n2\t0\tbell\n")
    with pytest.raises(DataError, match=hint):
        read_recording(tmp_path / path)


def test_missing_unknown_and_empty_files(tmp_path):
    with pytest.raises(DataError, match=r"no recording at .*night\.npz"):
        read_recording(tmp_path / "night.npz")
    with pytest.raises(DataError, match=r"night\.xyz: unknown kind of file '\.xyz'"):
        read_recording(tmp_path / "night.xyz")
    with pytest.raises(DataError, match=r"cannot be written as '\.flac', only as \.npz"):
        write_recording(Recording(noise(), 2000), tmp_path / "night.flac")
    for kind in (".npz", ".npy", ".csv", ".wav", ".h5"):
        (tmp_path / f"empty{kind}").touch()
        with pytest.raises(DataError, match=f"empty{kind}"):
            read_recording(tmp_path / f"empty{kind}", 2000)
    (tmp_path / "a.zarr").mkdir()
    with pytest.raises(DataError, match=r"a\.zarr"):
        read_recording(tmp_path / "a.zarr", 2000)
    np.savez(tmp_path / "none.npz", signal=np.zeros((0, 6)), sampling_rate_hz=2000)
    with pytest.raises(DataError, match="none.npz: signal is empty"):
        read_recording(tmp_path / "none.npz")


def test_rates_of_files(tmp_path):
    np.savez(tmp_path / "a.npz", signal=noise(), sampling_rate_hz=2000)
    assert read_recording(tmp_path / "a.npz", 2000).sampling_rate_hz == 2000
    with pytest.raises(UnitError, match="the file says 2000 Hz, but sampling_rate_hz=1000"):
        read_recording(tmp_path / "a.npz", 1000)
    np.savez(tmp_path / "b.npz", signal=noise())
    np.save(tmp_path / "b.npy", noise())
    for name in ("b.npz", "b.npy"):
        with pytest.raises(UnitError, match="pass sampling_rate_hz"):
            read_recording(tmp_path / name)
        assert read_recording(tmp_path / name, 360).sampling_rate_hz == 360
    np.savez(tmp_path / "c.npz", x=noise(), sampling_rate_hz=2000)
    with pytest.raises(DataError, match=r"no array named 'signal', only \['sampling_rate_hz', 'x'\]"):
        read_recording(tmp_path / "c.npz")
    np.savez(tmp_path / "d.npz", signal=noise(), sampling_rate_hz=[1, 2])
    with pytest.raises(DataError, match="d.npz"):
        read_recording(tmp_path / "d.npz")
    (tmp_path / "b.json").write_text("[]")
    with pytest.raises(DataError, match="must hold an object"):
        read_recording(tmp_path / "b.npy", 360)


@pytest.mark.parametrize(
    ("error", "words", "text"),
    [
        (DataError, "not uniform.*largest gap is 0.03 s after 0.02 s", "time,x\n0,1\n0.01,2\n0.02,3\n0.05,4\n0.06,5\n"),
        (DataError, "must rise", "time,x\n0,1\n0.01,2\n0.01,3\n"),
        (DataError, "finite times", "time,x\n0,1\n,2\n0.02,3\n"),
        (DataError, "column 'x', row 2: 'two' is not a number", "time,x\n0,1\n0.01,two\n"),
        (DataError, "name every column", "0,1\n0.01,2\n"),
        (DataError, "name every column", ",time,x\n0,0,1\n1,0.01,2\n"),
        (DataError, "only one column can be the time", "time,t,x\n0,0,1\n1,1,2\n"),
        (DataError, "a.csv", "time,x\n0,1,5\n0.01,2,5\n"),
        (DataError, "empty", "time\n0\n0.01\n"),
        (UnitError, "does not tell its sampling rate", "x,y\n0,1\n0.01,2\n"),
    ],
)
def test_tables_that_are_refused(error, words, text, tmp_path):
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(error, match=words) as caught:
        read_recording(tmp_path / "a.csv")
    assert "a.csv" in str(caught.value)


def test_a_table_without_time_takes_the_rate_and_keeps_gaps(tmp_path):
    (tmp_path / "a.csv").write_text("x, y\n1,2\n3,\n5,6\n")
    recording = read_recording(tmp_path / "a.csv", 50, units="g")
    np.testing.assert_array_equal(recording.read(), [[1, 2], [3, np.nan], [5, 6]])
    assert (recording.channels, recording.units, recording.sampling_rate_hz) == (("x", "y"), ("g", "g"), 50)


def test_a_missing_package_names_the_extra(tmp_path, monkeypatch):
    for module, name, extra in (
        ("pyarrow", "a.parquet", "data"),
        ("h5py", "a.h5", "data"),
        ("zarr", "a.zarr", "scale"),
    ):
        monkeypatch.setitem(sys.modules, module, None)
        (tmp_path / name).touch()
        with pytest.raises(MissingExtraError, match=rf"evlib\[{extra}\]"):
            read_recording(tmp_path / name, 2000)


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.npz"
    store(path, noise())

    class Broken:
        shape, dtype, ndim = (1000, 6), np.dtype("int16"), 2

        def __getitem__(self, rows):
            raise OSError("disk gone")

    with pytest.raises(DataError, match="disk gone"):
        write_recording(Recording(Broken(), 2000), path)
    np.testing.assert_array_equal(read_recording(path).read(), noise())
    assert [file.name for file in tmp_path.iterdir()] == ["a.npz"]


@pytest.mark.parametrize("kind", [".npz", ".h5", ".zarr", ".csv", ".tsv", ".parquet", ".wav", ".edf"])
def test_what_is_written_is_read_again_and_losses_are_said(kind, tmp_path, recwarn):
    start = datetime(2024, 5, 1, 12, 0, 7)
    recording = Recording(noise().round(3), 200, ["ax", "ay", "az"], "g", start_time=start)
    write_recording(recording, tmp_path / f"x{kind}")
    again, lost = read_recording(tmp_path / f"x{kind}"), " ".join(str(w.message) for w in recwarn)
    np.testing.assert_allclose(again.read(), recording.read(), atol=2e-4 if kind == ".edf" else 1e-6)
    assert again.sampling_rate_hz == pytest.approx(200)
    for name in ("channels", "units", "start_time"):
        assert (getattr(again, name) == getattr(recording, name)) != (name in lost)


@quick
@given(signal=signals, block=st.integers(3, 9))
def test_a_zarr_store_gives_back_every_number_type(signal, block, tmp_path):
    with pytest.MonkeyPatch.context() as patch:  # several files, the last one not full
        patch.setattr("evlib.signals.files.CHUNK_SAMPLES", block)
        patch.setattr("evlib.signals.files.BLOCK_SAMPLES", 2 * block)
        write_recording(Recording(signal, 360), path := tmp_path / "x.zarr")
    again = read_recording(path)
    assert again.signal.dtype == signal.dtype and len(list(path.glob("c/*/0"))) <= -(-len(signal) // (2 * block))
    np.testing.assert_array_equal(np.asarray(again.signal), signal)


def test_a_flipped_bit_in_a_zarr_store_is_an_error_and_a_lost_file_a_gap(tmp_path, monkeypatch):
    monkeypatch.setattr("evlib.signals.files.CHUNK_SAMPLES", 100)
    monkeypatch.setattr("evlib.signals.files.BLOCK_SAMPLES", 400)
    write_recording(Recording(noise(1000), 2000), path := tmp_path / "x.zarr")
    assert json.loads((path / "zarr.json").read_text())["zarr_format"] == 3
    shard, rng = path / "c" / "1" / "0", np.random.default_rng(0)
    sound = shard.read_bytes()
    for at in rng.integers(len(sound), size=40).tolist():
        flipped = bytearray(sound)
        flipped[at] ^= 1 << rng.integers(8)
        shard.write_bytes(flipped)
        with pytest.raises(DataError, match=r"x\.zarr: samples \[0, 1000\) cannot be read .*checksum"):
            read_recording(path).read()
    shard.write_bytes(sound[:-9])
    with pytest.raises(DataError, match=r"x\.zarr"):
        read_recording(path).read(400, 401)
    shard.unlink()
    lost = np.isnan(read_recording(path).read())
    assert lost[400:800].all() and not lost[:400].any() and not lost[800:].any()


def test_a_zarr_store_is_written_in_bounded_memory(tmp_path, monkeypatch):
    monkeypatch.setattr("evlib.signals.files.CHUNK_SAMPLES", 2**10)
    monkeypatch.setattr("evlib.signals.files.BLOCK_SAMPLES", 2**12)
    np.save(tmp_path / "long.npy", noise(2**20))  # 12 MB
    recording = read_recording(tmp_path / "long.npy", 2000)
    write_recording(recording.between(0, 1), tmp_path / "warm.zarr")
    tracemalloc.start()
    try:
        write_recording(recording, tmp_path / "long.zarr")
        assert tracemalloc.get_traced_memory()[1] < 2e6
    finally:
        tracemalloc.stop()
    np.testing.assert_array_equal(read_recording(tmp_path / "long.zarr").read(2**19), noise(2**20)[2**19 :])


def test_a_parquet_file_of_endless_equal_rows_is_refused_before_it_is_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr("evlib.signals.files.MOST_VALUES", 10**5)
    path, zeros = tmp_path / "a.parquet", np.zeros((400_000, 3))
    pd.DataFrame(zeros, columns=list("xyz")).to_parquet(path)
    with pytest.raises(DataError, match="promises 400000 rows of 3 columns"):
        read_recording(path, 2000)
    noise = np.random.default_rng(0).integers(-100, 100, zeros.shape)
    pd.DataFrame(noise, columns=list("xyz")).to_parquet(path)
    assert read_recording(path, 2000).shape == zeros.shape


@pytest.mark.parametrize("kind", [".npz", ".h5", ".csv", ".tsv", ".parquet", ".edf", ".wav"])
def test_a_recording_is_written_over_nothing_but_a_recording(kind, tmp_path):
    recording, path = Recording(noise(2000), 2000), tmp_path / f"x{kind}"
    path.touch()  # of an empty file nothing is lost
    for _ in range(2):  # nor of a recording
        write_recording(recording, path)
    for content in (b"name,phone\nbob,1\n", b"\x89HDF\r\n\x1a\n" + bytes(99), b"PAR1" + bytes(99)):
        path.write_bytes(content)
        with pytest.raises(DataError, match="is there already and no recording"):
            write_recording(recording, path)
        assert path.read_bytes() == content


def test_what_stands_beside_a_recording_is_not_lost(tmp_path):
    recording = Recording(noise(2000), 2000)
    np.savez(tmp_path / "x.npz", signal=noise(), sampling_rate_hz=2000, mine=np.arange(3))
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["signal"], file["sampling_rate_hz"], file["mine"] = noise(), 2000, np.arange(3)
    edfio = pytest.importorskip("edfio")
    signal = edfio.EdfSignal(noise(2000, 1)[:, 0].astype(float), 2000)
    edfio.Edf([signal], annotations=[edfio.EdfAnnotation(0.5, None, "mine")]).write(tmp_path / "x.edf")
    for path in tmp_path.iterdir():
        before = path.read_bytes()
        with pytest.raises(DataError, match="holds (mine|annotations) too"):
            write_recording(recording, path)
        assert path.read_bytes() == before
    write_recording(recording, tmp_path / "x.zarr")
    write_recording(recording, tmp_path / "x.zarr")
    (tmp_path / "x.zarr" / "mine").touch()
    (tmp_path / "folder.zarr").mkdir()
    (tmp_path / "folder.zarr" / "mine").touch()
    for path, message in ((tmp_path / "x.zarr", "holds mine too"), (tmp_path / "folder.zarr", "no recording")):
        with pytest.raises(DataError, match=message):
            write_recording(recording, path)
        assert (path / "mine").exists()
