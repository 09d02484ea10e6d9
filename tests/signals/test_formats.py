"""Recordings of other tools: what their libraries wrote is read; damaged files are refused."""

import struct
import time
import wave

import numpy as np
import pytest
import scipy.io.wavfile
from foreign import (
    NAMES,
    RATE,
    SIGNAL,
    STAMPS,
    START,
    UNITS,
    WRITERS,
    N,
    write_brainvision,
    write_mat,
    write_wfdb,
    write_xdf,
)

from evlib.signals.errors import DataError, EvlibError, OptionError
from evlib.signals.files import read_recording
from evlib.signals.formats import READERS
from evlib.signals.recording import Recording

# How far values may be from those written: the steps of the format, or of its compression.
STEP = {
    ".edf": 2e-4,
    ".bdf": 1e-6,
    ".hea": 1e-5,
    ".vhdr": 1e-6,
    ".flac": 1e-4,
    ".ogg": None,
    ".wav": 1e-6,
    ".sac": 1e-6,
}


def test_each_format_has_a_writer():
    assert set(WRITERS) == set(READERS)


@pytest.mark.parametrize("kind", WRITERS)
def test_what_their_library_wrote_is_read(kind, tmp_path):
    path = tmp_path / f"night{kind}"
    WRITERS[kind](path)
    recording = read_recording(path)
    sound = kind in (".flac", ".ogg")
    assert recording.sampling_rate_hz == pytest.approx(RATE * (40 if sound else 1))
    columns = SIGNAL[:, :1] if kind == ".sac" else SIGNAL / 8 if sound else SIGNAL * (1e-3 if kind == ".vhdr" else 1)
    assert recording.shape == columns.shape
    if STEP.get(kind, 1e-12):
        np.testing.assert_allclose(recording.read(dtype=float), columns, atol=STEP.get(kind, 1e-12))
    if kind in (".edf", ".bdf", ".hea", ".tdms", ".xdf", ".mat"):
        assert (list(recording.channels), list(recording.units)) == (NAMES, UNITS)
    if kind in (".edf", ".bdf", ".hea", ".tdms", ".vhdr", ".mseed", ".sac"):
        assert recording.start_time.replace(tzinfo=None) == START


@pytest.mark.parametrize("kind", WRITERS)
def test_cut_and_damaged_files_are_refused_or_read_whole(kind, tmp_path):
    """Whatever happens to a file, there is a recording of numbers or an error of evlib, soon."""
    sound = tmp_path / f"night{kind}"
    WRITERS[kind](sound)
    data, rng = sound.read_bytes(), np.random.default_rng(0)
    damaged = [data[: int(len(data) * share)] for share in (0, 0.01, 0.1, 0.5, 0.9, 0.999)]
    for at in rng.integers(0, min(len(data), 2000), 25):
        damaged.append(data[:at] + bytes([data[at] ^ 1 << int(rng.integers(8))]) + data[at + 1 :])
    begin, refused = time.process_time(), 0
    for content in damaged:
        sound.write_bytes(content)
        try:
            recording = read_recording(sound)
            assert np.asarray(recording.read()).dtype.kind == "f" and recording.n_samples <= 100 * N
        except EvlibError as error:
            refused += 1
            assert sound.name in str(error)
    assert refused >= (1 if kind == ".hea" else 2)
    assert time.process_time() - begin < 60


@pytest.mark.parametrize("kind", ["ogg", "flac", "wav"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
def test_a_sound_that_is_cut_short_is_refused(kind, share, tmp_path):
    import soundfile

    path = tmp_path / f"a.{kind}"
    soundfile.write(path, np.random.default_rng(0).normal(scale=0.1, size=(160_000, 2)), 8000)
    assert read_recording(path).n_samples == 160_000
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    with pytest.raises(DataError, match=f"a.{kind}.*truncated"):
        read_recording(path)


def test_gaps_between_traces_are_missing_values(tmp_path):
    import obspy

    begin, parts = obspy.UTCDateTime(START), []
    for first, last in ((0, 400), (600, 1000)):
        about = {"sampling_rate": RATE, "starttime": begin + first / RATE, "channel": "HHZ"}
        parts.append(obspy.Trace(SIGNAL[first:last, 0].copy(), header=about))
    obspy.Stream(parts).write(str(tmp_path / "x.mseed"), format="MSEED")
    signal = read_recording(tmp_path / "x.mseed").read(dtype=float)[:, 0]
    assert np.isnan(signal[400:600]).all() and np.isfinite(signal).sum() == 800
    np.testing.assert_array_equal(signal[600:], SIGNAL[600:, 0])


def test_a_pause_of_a_stream_is_missing_values(tmp_path):
    stamps = STAMPS + 2.0 * (np.arange(N) >= 600)
    write_xdf(tmp_path / "x.xdf", stamps=stamps)
    signal = read_recording(tmp_path / "x.xdf").read(dtype=float)
    assert signal.shape == (N + 400, 2) and np.isnan(signal[:, 0]).sum() in range(395, 402)
    np.testing.assert_allclose(signal[1010:], SIGNAL[610:], atol=1e-6)


def test_one_of_several_streams_is_chosen_by_name(tmp_path):
    write_xdf(tmp_path / "x.xdf", streams=2)
    with pytest.raises(DataError, match="2 streams.*stream=.*'sensor 0', 'sensor 1'"):
        read_recording(tmp_path / "x.xdf")
    assert read_recording(tmp_path / "x.xdf", stream="sensor 1").n_samples == N
    write_mat(tmp_path / "x.mat", other=SIGNAL)
    assert read_recording(tmp_path / "x.mat", stream="other").shape == SIGNAL.shape
    with pytest.raises(OptionError, match="no stream 'third'"):
        read_recording(tmp_path / "x.mat", stream="third")
    np.save(tmp_path / "x.npy", SIGNAL)
    with pytest.raises(OptionError, match="stream cannot be chosen for .npy"):
        read_recording(tmp_path / "x.npy", 100, stream="a")


def test_signals_of_several_rates_are_not_mixed(tmp_path):
    import edfio

    signals = [edfio.EdfSignal(SIGNAL[: N // step, 0].copy(), RATE / step, label=f"s{step}") for step in (1, 2)]
    edfio.Edf(signals).write(tmp_path / "x.edf")
    with pytest.raises(DataError, match="several rates: 100 Hz: s2; 200 Hz: s1. Choose"):
        read_recording(tmp_path / "x.edf")
    assert read_recording(tmp_path / "x.edf", stream="s2").sampling_rate_hz == 100


def test_matlab_7_3(tmp_path):
    import h5py

    with h5py.File(tmp_path / "x.mat", "w", userblock_size=512) as file:
        file["data"], file["Fs"] = SIGNAL.T, [[RATE]]
    with open(tmp_path / "x.mat", "r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM")
    recording = read_recording(tmp_path / "x.mat")
    np.testing.assert_array_equal(recording.read(dtype=float), SIGNAL)
    assert recording.sampling_rate_hz == RATE


@pytest.mark.parametrize("riff", [0, 0xFFFFFFFF, 10, 10**6])
@pytest.mark.parametrize("data", [None, 0, 0xFFFFFFFF])
def test_the_samples_of_a_wav_file_decide_over_its_header(riff, data, tmp_path):
    path = tmp_path / "x.wav"
    with wave.open(str(path), "wb") as file:
        file.setnchannels(2), file.setsampwidth(2), file.setframerate(200)
        file.writeframes((SIGNAL * 3000).astype("<i2").tobytes())
    raw = bytearray(path.read_bytes())
    raw[4:8] = struct.pack("<I", riff)
    if data is not None:
        raw[40:44] = struct.pack("<I", data)
    path.write_bytes(raw)
    if riff == 0xFFFFFFFF and data is None:
        signal = read_recording(path).read()
    else:
        with pytest.warns(UserWarning, match="header"):
            signal = read_recording(path).read()
    np.testing.assert_array_equal(signal, (SIGNAL * 3000).astype("<i2").astype(np.float32) / 2**15)


@pytest.mark.parametrize("size", [0x7FFFF000, 0x80000000, 0xFFFFF000])  # of sox, arecord and others, into a pipe
def test_a_wav_file_of_a_pipe_is_read_to_its_end(size, tmp_path):
    scipy.io.wavfile.write(tmp_path / "x.wav", 200, SIGNAL.astype(np.float32))
    raw = bytearray((tmp_path / "x.wav").read_bytes())
    at = raw.index(b"data") + 4
    raw[at : at + 4] = struct.pack("<I", size)
    (tmp_path / "x.wav").write_bytes(raw)
    with pytest.warns(UserWarning, match="does not tell its length"):
        assert read_recording(tmp_path / "x.wav").n_samples == len(SIGNAL)


@pytest.mark.parametrize(("announced", "behind"), [(200, 400), (0.5, 0), (1.0, 30)])  # bytes, or a share
def test_bytes_behind_the_samples_of_a_wav_file_are_said(announced, behind, tmp_path, recwarn):
    scipy.io.wavfile.write(tmp_path / "x.wav", 200, (SIGNAL * 3000).astype("<i2"))
    raw = bytearray((tmp_path / "x.wav").read_bytes())
    length = len(raw) - 44
    shorter = announced if announced > 1 else int(announced * length)
    raw[40:44] = struct.pack("<I", shorter)
    raw += b"\x01" * (behind - behind % 2)
    raw[4:8] = struct.pack("<I", len(raw) - 8)
    (tmp_path / "x.wav").write_bytes(raw)
    assert read_recording(tmp_path / "x.wav").n_samples == shorter // 4
    assert "sox --ignore-length" in str(recwarn.pop(UserWarning).message)


def test_chunks_behind_the_samples_of_a_wav_file_are_sound(tmp_path, recwarn):
    scipy.io.wavfile.write(tmp_path / "x.wav", 200, (SIGNAL * 3000).astype("<i2"))
    raw = bytearray((tmp_path / "x.wav").read_bytes()) + b"LIST\3\0\0\0abc\0id3 \2\0\0\0xy"
    raw[4:8] = struct.pack("<I", len(raw) - 8)
    (tmp_path / "x.wav").write_bytes(raw)
    assert read_recording(tmp_path / "x.wav").n_samples == len(SIGNAL)
    assert not recwarn.list


def test_a_flac_file_of_a_pipe_names_the_way_out(tmp_path):
    pytest.importorskip("soundfile").write(tmp_path / "x.flac", np.clip(SIGNAL / 9, -1, 1), 200)
    raw = bytearray((tmp_path / "x.flac").read_bytes())
    raw[21] &= 0xF0
    raw[22:26] = bytes(4)  # the number of samples
    (tmp_path / "x.flac").write_bytes(raw)
    with pytest.raises(DataError, match="write it anew"):
        read_recording(tmp_path / "x.flac")


def test_names_that_lead_out_of_the_folder_are_refused(tmp_path):
    write_wfdb(tmp_path / "x.hea")
    header = (tmp_path / "x.hea").read_text(encoding="utf-8")
    (tmp_path / "x.hea").write_text(header.replace("x.dat", "../x.dat"), encoding="utf-8")
    write_brainvision(tmp_path / "y.vhdr")
    header = (tmp_path / "y.vhdr").read_text(encoding="utf-8")
    (tmp_path / "y.vhdr").write_text(header.replace("y.eeg", "../y.eeg"), encoding="utf-8")
    for name in ("x.hea", "y.vhdr"):
        with pytest.raises(DataError, match="leads out of the folder|invalid syntax"):
            read_recording(tmp_path / name)


@pytest.mark.parametrize("n_texts", [0, 1, 3, 600])
@pytest.mark.parametrize(("index", "size"), [(0, 0), (0, 2**63), (1, 2**64 - 16), (1, 2**40)])
def test_heaps_of_hdf5_that_are_stepped_over_for_ever_are_refused(tmp_path, n_texts, index, size):
    import h5py

    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as file:
        file["signal"] = np.ones((N, 2))
        file["signal"].attrs["sampling_rate_hz"] = RATE
        for i in range(n_texts):
            file["signal"].attrs[f"text {i}"] = "a text of some length " * (i + 1)
        file["signal"].attrs["channels"] = ["x", "y"]
    assert read_recording(path).channels == ("x", "y")
    data = bytearray(path.read_bytes())
    at = data.rindex(b"GCOL") + 16
    data[at : at + 16] = struct.pack("<H6xQ", index, size)
    path.write_bytes(data)
    with pytest.raises(DataError, match="impossible size"):
        read_recording(path)


def test_hdf5_and_zarr_read_no_other_place(tmp_path):
    import h5py
    import zarr

    with h5py.File(tmp_path / "secret.h5", "w") as file:
        file["signal"] = SIGNAL
    np.save(tmp_path / "raw.bin", SIGNAL)
    layout = h5py.VirtualLayout((N, 2), float)
    layout[:] = h5py.VirtualSource(str(tmp_path / "secret.h5"), "signal", shape=(N, 2))
    with h5py.File(tmp_path / "link.h5", "w") as file:
        file["signal"] = h5py.ExternalLink(str(tmp_path / "secret.h5"), "/signal")
    with h5py.File(tmp_path / "virtual.h5", "w") as file:
        file.create_virtual_dataset("signal", layout)
    with h5py.File(tmp_path / "outside.h5", "w") as file:
        external = [(str(tmp_path / "raw.bin"), 128, N * 16)]
        file.create_dataset("signal", (N, 2), float, external=external)
    zarr.create_array(tmp_path / "x.zarr", data=SIGNAL)
    (tmp_path / "x.zarr" / "c" / "9").symlink_to(tmp_path / "raw.bin")
    for name in ("link.h5", "virtual.h5", "outside.h5", "x.zarr"):
        with pytest.raises(DataError, match="link|other files"):
            read_recording(tmp_path / name, 100)


def test_a_lost_chunk_is_a_gap(tmp_path):
    import zarr

    from evlib.signals.gaps import gap_spans

    array = zarr.create_array(tmp_path / "x.zarr", data=SIGNAL, chunks=(200, 2))
    array.attrs["sampling_rate_hz"] = RATE
    (tmp_path / "x.zarr" / "c" / "2" / "0").unlink()
    starts, stops = gap_spans(read_recording(tmp_path / "x.zarr"), 50)
    assert abs(starts[0] - 400) <= 1 and abs(stops[0] - 600) <= 1 and len(starts) == 1


def test_an_array_of_objects_is_named(tmp_path):
    np.savez(tmp_path / "x.npz", signal=SIGNAL, sampling_rate_hz=RATE, channels=np.array(["a", None], dtype=object))
    with pytest.raises(DataError, match="'channels' holds Python objects"):
        read_recording(tmp_path / "x.npz")
    assert Recording(SIGNAL, RATE).n_channels == 2


@pytest.mark.parametrize("place", ["virtual", "link", "storage"])
def test_matlab_7_3_reads_no_other_file(place, tmp_path):
    import h5py

    with h5py.File(tmp_path / "secret.h5", "w") as file:
        file["signal"] = SIGNAL.T
    with h5py.File(tmp_path / "x.mat", "w", userblock_size=512) as file:
        file["Fs"] = RATE
        if place == "virtual":
            layout = h5py.VirtualLayout(SIGNAL.T.shape, "f8")
            layout[:] = h5py.VirtualSource(str(tmp_path / "secret.h5"), "signal", SIGNAL.T.shape)
            file.create_virtual_dataset("signal", layout)
        elif place == "link":
            file["signal"] = h5py.ExternalLink("secret.h5", "/signal")
        else:
            elsewhere = [(str(tmp_path / "secret.h5"), 0, h5py.h5f.UNLIMITED)]
            file.create_dataset("signal", (2, 100), "f8", external=elsewhere)
    with open(tmp_path / "x.mat", "r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM")
    with pytest.raises(DataError, match="other files"):
        read_recording(tmp_path / "x.mat")


@pytest.mark.parametrize("pause_s", [0, 1, 30])
def test_pauses_of_edf_files_are_gaps(pause_s, tmp_path):
    edfio = pytest.importorskip("edfio")
    x = np.random.default_rng(0).normal(size=1000)
    note = edfio.EdfAnnotation(1, None, "note")
    edfio.Edf([edfio.EdfSignal(x.copy(), 100, label="x")], annotations=[note]).write(tmp_path / "x.edf")
    raw = (tmp_path / "x.edf").read_bytes().replace(b"EDF+C", b"EDF+D")
    for k in range(9, 5, -1):
        raw = raw.replace(b"+%d\x14\x14\x00" % k + b"\x00" * 4, (b"+%d\x14\x14" % (k + pause_s)).ljust(9, b"\x00"))
    (tmp_path / "x.edf").write_bytes(raw)
    again = read_recording(tmp_path / "x.edf").read(dtype=float)[:, 0]
    assert len(again) == 1000 + 100 * pause_s
    np.testing.assert_allclose(np.delete(again, slice(600, 600 + 100 * pause_s)), x, atol=1e-3)
    assert np.isnan(again[600 : 600 + 100 * pause_s]).all()


def test_traces_that_contradict_each_other_are_said(tmp_path):
    obspy = pytest.importorskip("obspy")
    header = {"sampling_rate": 100.0, "starttime": obspy.UTCDateTime(2024, 1, 1)}
    parts = [obspy.Trace(np.ones(500)), obspy.Trace(np.full(500, 2.0))]
    for k, part in enumerate(parts):
        part.stats.update(header | {"starttime": header["starttime"] + 4 * k})
    obspy.Stream(parts).write(str(tmp_path / "x.mseed"), format="MSEED")
    with pytest.warns(UserWarning, match="100 samples are there twice"):
        assert read_recording(tmp_path / "x.mseed").n_samples == 900


def test_samples_behind_those_of_a_wfdb_header_are_said(tmp_path):
    write_wfdb(tmp_path / "x.hea")
    raw = (tmp_path / "x.dat").read_bytes()
    (tmp_path / "x.dat").write_bytes(raw + raw)
    with pytest.warns(UserWarning, match=f"{len(raw)} bytes behind"):
        assert read_recording(tmp_path / "x.hea").n_samples == N


@pytest.mark.parametrize("packed", [False, True])
def test_a_matlab_file_whose_elements_do_not_fit_is_refused_before_scipy_believes_it(packed, tmp_path, monkeypatch):
    import scipy.io

    path, names = tmp_path / "a.mat", np.array(["x", "second"], dtype=object)
    more = {"s": {"x": [1, 2], "y": "text"}, "empty": np.array([]), "i": np.int8(3)}
    scipy.io.savemat(path, {"signal": SIGNAL[:, :2], "fs": RATE, "channels": names} | more, do_compression=packed)
    assert read_recording(path).shape == (N, 2)
    data = path.read_bytes()
    for at, value in ((128, 77), (132, 2**31)):  # the type of the first element, and its size
        path.write_bytes(data[:at] + value.to_bytes(4, "little") + data[at + 4 :])
        with pytest.raises(DataError, match="a.mat.*element of an unknown type, or larger than the file"):
            read_recording(path)
    if packed:
        monkeypatch.setattr("evlib.signals.formats.UNPACKED", 1000)
        scipy.io.savemat(path, {"signal": np.zeros((200_000, 2))}, do_compression=True)
        with pytest.raises(DataError, match="far too large"):
            read_recording(path, 100)
