"""Recordings as other tools write them, by their libraries or byte by byte."""

import datetime
import struct

import numpy as np
from scipy.io import savemat, wavfile

RATE, N = 200.0, 1000
SIGNAL = np.random.default_rng(0).normal(size=(N, 2)).round(4)
START = datetime.datetime(2024, 5, 1, 12, 0, 7)
NAMES, UNITS = ["ax", "ay"], ["m/s2", "m/s2"]


def write_edf(path):
    import edfio

    kind, write = (edfio.BdfSignal, "write") if path.suffix == ".bdf" else (edfio.EdfSignal, "write")
    signals = [kind(SIGNAL[:, k].copy(), RATE, label=NAMES[k], physical_dimension="m/s2") for k in range(2)]
    file = (edfio.Bdf if path.suffix == ".bdf" else edfio.Edf)(signals)
    file.startdate, file.starttime = START.date(), START.time()
    getattr(file, write)(path)


def write_wfdb(path):
    import wfdb

    how = {"fs": RATE, "units": UNITS, "sig_name": NAMES, "fmt": ["24", "24"], "base_datetime": START}
    wfdb.wrsamp(path.stem, p_signal=SIGNAL, write_dir=str(path.parent), **how)


def write_brainvision(path):
    SIGNAL.astype("<f4").tofile(path.with_suffix(".eeg"))
    path.with_suffix(".vmrk").write_text(
        "Brain Vision Data Exchange Marker File, Version 1.0\n[Common Infos]\nCodepage=UTF-8\n[Marker Infos]\n"
        "Mk1=New Segment,,1,1,0,20240501120007000000\n",
        encoding="utf-8",
    )
    path.write_text(
        "Brain Vision Data Exchange Header File Version 1.0\n[Common Infos]\nCodepage=UTF-8\n"
        f"DataFile={path.stem}.eeg\nMarkerFile={path.stem}.vmrk\nDataFormat=BINARY\nDataOrientation=MULTIPLEXED\n"
        f"NumberOfChannels=2\nSamplingInterval={1e6 / RATE:g}\n[Binary Infos]\nBinaryFormat=IEEE_FLOAT_32\n"
        "[Channel Infos]\nCh1=ax,,1,mV\nCh2=ay,,1,mV\n",
        encoding="utf-8",
    )


def write_seismic(path):
    import obspy

    about = {"sampling_rate": RATE, "starttime": obspy.UTCDateTime(START), "network": "X", "station": "Y"}
    traces = [obspy.Trace(SIGNAL[:, k].copy(), header=about | {"channel": f"HH{'ZN'[k]}"}) for k in range(2)]
    if path.suffix == ".sac":
        traces[0].write(str(path), format="SAC")
    else:
        obspy.Stream(traces).write(str(path), format="MSEED")


def write_tdms(path):
    from nptdms import ChannelObject, TdmsWriter

    about = {"wf_increment": 1 / RATE, "wf_start_time": np.datetime64(START), "unit_string": "m/s2"}
    with TdmsWriter(path) as writer:
        writer.write_segment([ChannelObject("bell", NAMES[k], SIGNAL[:, k], about) for k in range(2)])


def xdf_chunk(tag, content):
    return b"\x04" + struct.pack("<IH", len(content) + 2, tag) + content


def xdf_stream(number, name, stamps, values):
    rows = "".join(f"<channel><label>{n}</label><unit>m/s2</unit></channel>" for n in NAMES)
    header = (
        f"<?xml version='1.0'?><info><name>{name}</name><type>acc</type><channel_count>2</channel_count>"
        f"<nominal_srate>{RATE:g}</nominal_srate><channel_format>double64</channel_format>"
        f"<created_at>0</created_at><desc><channels>{rows}</channels></desc></info>"
    )
    samples = b"".join(b"\x08" + struct.pack("<ddd", t, *row) for t, row in zip(stamps, values, strict=True))
    content = struct.pack("<I", number) + b"\x04" + struct.pack("<I", len(values)) + samples
    footer = f"<?xml version='1.0'?><info><first_timestamp>{stamps[0]}</first_timestamp></info>"
    parts = [
        (2, struct.pack("<I", number) + header.encode()),
        (3, content),
        (6, struct.pack("<I", number) + footer.encode()),
    ]
    return b"".join(xdf_chunk(*part) for part in parts)


STAMPS = np.arange(N) / RATE + 5


def write_xdf(path, streams=1, stamps=STAMPS):
    start = xdf_chunk(1, b"<?xml version='1.0'?><info><version>1.0</version></info>")
    bodies = [xdf_stream(k + 1, f"sensor {k}", stamps, SIGNAL) for k in range(streams)]
    path.write_bytes(b"XDF:" + start + b"".join(bodies))


def write_flac(path):
    import soundfile

    soundfile.write(path, SIGNAL / 8, int(RATE) * 40)


def write_mat(path, **more):
    savemat(path, {"signal": SIGNAL, "fs": RATE, "channels": np.array(NAMES, dtype=object), "units": UNITS} | more)


WRITERS = {
    ".edf": write_edf,
    ".bdf": write_edf,
    ".hea": write_wfdb,
    ".vhdr": write_brainvision,
    ".mseed": write_seismic,
    ".sac": write_seismic,
    ".tdms": write_tdms,
    ".xdf": write_xdf,
    ".flac": write_flac,
    ".ogg": write_flac,
    ".wav": lambda path: wavfile.write(path, int(RATE), SIGNAL.astype(np.float32)),
    ".mat": write_mat,
}
