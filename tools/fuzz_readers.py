"""The readers of evlib with a small sound file for each, and what must hold of all that they return.

A new format in a registry of evlib needs a line in `RECORDINGS`, a function that writes a sound file, or in `EVENTS`.
"""

import datetime
import functools
import gzip
import json
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from foreign import WRITERS

import evlib
from evlib.detection.detector import detect, load_detector
from evlib.inspection.annotations import AnnotationLog
from evlib.motion import converters
from evlib.motion.align import TextAlignedModel
from evlib.motion.anomaly import fit_anomaly, load_anomaly
from evlib.motion.classify import fit_classifier, load_classifier
from evlib.motion.segment import fit_segmenter, load_segmenter
from evlib.motion.sessions import Channel, Session, open_sessions, validate_sessions, write_sessions
from evlib.motion.train import MotionModel, load_motion_model, pretrain_motion
from evlib.motion.windows import cut_sessions, join_windows, make_motion
from evlib.motion.words import text_encoder
from evlib.networks.context import ContextLSTM
from evlib.networks.encoders import LSTMEncoder
from evlib.networks.frames import FrameNetwork
from evlib.signals.events import Events
from evlib.signals.files import read_recording, write_recording
from evlib.signals.labels import FORMATS, read_events, write_events
from evlib.signals.recording import Recording
from evlib.studies import audio, clips, workouts
from evlib.studies.heart_rate import fit_heart_rate, load_heart_rate
from evlib.studies.sequences import HeartRateLSTM, LSTMClassifier
from evlib.training import checkpoints, loop
from evlib.workbook import _chosen_parameters, notebook_parameters

RATE = 200.0
SIGNAL = np.random.default_rng(0).normal(size=(400, 3)).astype(np.float32)
NAMES = ("x", "y", "z")
RECORDING = Recording(SIGNAL, RATE, NAMES, "g")
# Names of bells, which every format of labels holds.
TABLE = Events.from_seconds(
    [0.1, 0.5, 1.25], ["bell_01", "bell_02", "bell_01"], RATE, score=[0.5, 0.9, 1.0], complete_spans_s=[[0, 2]]
)
# Of formats with dates, the date of the first sample.
START = "2026-05-01T12:00:00+00:00"
# Most values of a signal that are looked at.
LOOKED_AT = 10**6


@dataclass(frozen=True)
class Reader:
    """``make(folder)`` writes a sound file and returns its path, ``read(path)`` reads it and checks what it got."""

    make: Callable
    read: Callable


# ---- recordings -----------------------------------------------------------------------------------------------------


def read_signal(path):
    """A recording, whose shape, names and rate must fit each other, and which can be read and checked."""
    recording = read_recording(path)
    n, width = recording.shape
    assert n > 0 and len(recording.channels) == len(recording.units) == width == len(set(recording.channels))
    assert 0 < recording.sampling_rate_hz < np.inf
    part = recording.read(0, min(n, max(LOOKED_AT // width, 1)))
    assert part.shape[1] == width and part.dtype == np.float32
    if n * width <= LOOKED_AT:
        evlib.validate(recording)


def _table(path):
    columns = {"time": np.arange(len(SIGNAL)) / RATE} | dict(zip(NAMES, SIGNAL.T, strict=True))
    table = pd.DataFrame(columns)
    if path.suffix == ".parquet":
        table.to_parquet(path)
    else:
        table.round(5).to_csv(path, sep="," if path.suffix == ".csv" else "\t", index=False)


def _about():
    return {"sampling_rate_hz": RATE, "channels": list(NAMES), "units": ["g"] * 3}


def _npy(path):
    np.save(path, SIGNAL)
    path.with_suffix(".json").write_text(json.dumps(_about()))


def _hdf5(path):
    import h5py

    with h5py.File(path, "w") as file:
        file["signal"] = SIGNAL
        file["signal"].attrs.update(_about())


def _zarr(path):
    import zarr

    zarr.create_array(path, data=SIGNAL, chunks=(100, 3)).attrs.update(_about())


# Ending of a recording -> a function that writes a sound one.
RECORDINGS = {
    ".npz": lambda path: write_recording(RECORDING, path),
    ".npy": _npy,
    ".csv": _table,
    ".tsv": _table,
    ".parquet": _table,
    ".h5": _hdf5,
    ".hdf5": _hdf5,
    ".zarr": _zarr,
    **WRITERS,
}


# ---- events ---------------------------------------------------------------------------------------------------------


def read_table(path):
    """Events, whose columns must fit each other, and which come back from a file of evlib."""
    events = read_events(path, start_time=START)
    assert all(len(getattr(events, name)) == len(events) for name in ("fraction", "type", "score", "sigma_s"))
    assert np.isfinite(events.onset_s).all() and (np.diff(events.time_samples) >= 0).all()
    assert not len(events) or 0 <= events.type.min() <= events.type.max() < len(events.names)
    write_events(events, path.parent / "again.tsv")
    again = read_events(path.parent / "again.tsv")
    assert again.type_names == events.type_names
    np.testing.assert_array_equal(again.sample, events.sample)


def _labels(path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what a format cannot hold
        spans = TABLE.labelled_spans if "labelled spans" not in FORMATS[EVENTS[path.name]].lacks else None
        write_events(replace(TABLE, labelled_spans=spans), path, start_time=START)


# Name of a file with labels -> its format.
EVENTS = {
    "e.tsv": "bids",
    "e.csv": "bids",
    "e.txt": "audacity",
    "e.selections.txt": "raven",
    "e.eaf": "elan",
    "e.TextGrid": "textgrid",
    "e.atr": "wfdb",
    "e.edf": "edf",
    "e_annot.csv": "mne",
    "e_annot.txt": "mne",
    "e.qml": "quakeml",
    "e.lowndes": "lowndes",
}


# ---- sessions, clips and workouts -----------------------------------------------------------------------------------


def _sessions(folder):
    channels = [Channel(name, f"acceleration along {name}", RATE, may_be_missing=True) for name in NAMES]
    sessions = [Session(f"s{k}", RECORDING, ("walking",), f"person {k}") for k in range(2)]
    return write_sessions(folder / "set", "set", "Two people.", channels, sessions).folder


def read_sessions(path):
    """All sessions, cut to windows."""
    validate_sessions(path)
    opened = open_sessions(path)
    windows = cut_sessions(opened.name, opened.load(), 0.25, descriptions=opened.descriptions)
    assert windows.x.ndim == 3 and np.isfinite(windows.x).all() and len(windows.x) == len(windows.sources)


def _uci_har(folder):
    for part, n in (("train", 2), ("test", 1)):
        place = folder / "raw" / part / "Inertial Signals"
        place.mkdir(parents=True)
        for sensor in (f"{sensor}_{axis}" for sensor in ("total_acc", "body_gyro") for axis in "xyz"):
            np.savetxt(place / f"{sensor}_{part}.txt", np.zeros((n, 128)), fmt="%.1f")
        (place.parent / f"y_{part}.txt").write_text("5\n2\n"[: 2 * n])
        (place.parent / f"subject_{part}.txt").write_text("1\n30\n"[: 2 * n])
    return folder / "raw"


def _pamap2(folder):
    rows = np.tile(np.arange(54.0), (220, 1))
    rows[:, 0], rows[:, 1], rows[3, 4:20] = np.arange(220) / 100, np.repeat([4, 2], 110), np.nan
    (folder / "raw" / "Protocol").mkdir(parents=True)
    pd.DataFrame(rows).to_csv(folder / "raw/Protocol/subject101.dat", sep=" ", header=False, index=False, na_rep="NaN")
    return folder / "raw"


def _wisdm(folder):
    for sensor in ("accel", "gyro"):
        place = folder / "raw" / "phone" / sensor
        place.mkdir(parents=True)
        lines = [f"1600,A,{10**12 + 5 * 10**7 * k},{k / 9:.3f},1.0,-2.5;" for k in range(60)]
        (place / f"data_1600_{sensor}_phone.txt").write_text("\n".join(lines))
    return folder / "raw"


def _motionsense(folder):
    names = [f"attitude.{angle}" for angle in ("roll", "pitch", "yaw")]
    names += [f"{sensor}.{axis}" for sensor in ("gravity", "rotationRate", "userAcceleration") for axis in "xyz"]
    place = folder / "raw" / "A_DeviceMotion_data" / "dws_1"
    place.mkdir(parents=True)
    pd.DataFrame(np.ones((60, 12)), columns=names).to_csv(place / "sub_7.csv")
    return folder / "raw"


def _converted(kind):
    def read(path):
        read_sessions(converters.convert(kind, path, path.parent / "out").folder)

    return read


def _manifest(ending):
    def make(folder):
        import soundfile

        for name in ("a.wav", "b.wav"):
            soundfile.write(folder / name, SIGNAL[:, :1] / 9, 8000)
        row = {"path": "a.wav", "label": "car", "group": "01", "noise_path": "b.wav", "snr_db": 3.0, "fold": 1}
        table = pd.DataFrame([row, row | {"path": "b.wav", "noise_path": None, "snr_db": None}])
        path = folder / f"clips{ending}"
        table.to_csv(path, index=False) if ending == ".csv" else table.to_json(path, orient="records")
        return path

    return make


def read_clips(path):
    """A manifest, and the features of its clips."""
    for row in audio.read_manifest(path).to_dict("records"):
        assert all(isinstance(row[name], str) for name in ("path", "label", "group"))
        signal = audio.read_clip(row, path.parent, 16_000)
        assert np.isfinite(audio.log_mel(signal, 16_000)).all()


def _points(one, start, end):
    def make(path):
        values = [dict(s=k, alt=10 + k, m=3 * k, bpm=100 + k, lon=1 + k / 20_000) for k in range(20)]
        path.write_text(start + "\n".join(one.format(**row) for row in values) + end)

    return make


_tcx = _points(
    "<Trackpoint><Time>2020-01-01T10:00:{s:02d}Z</Time><AltitudeMeters>{alt}</AltitudeMeters><DistanceMeters>{m}"
    "</DistanceMeters><HeartRateBpm><Value>{bpm}</Value></HeartRateBpm></Trackpoint>",
    '<?xml version="1.0"?>\n<TrainingCenterDatabase xmlns="http://www.garmin.com/xmlschemas/TrainingCenterDatabase/v2">'
    '<Activities><Activity Sport="Running"><Id>2020-01-01T10:00:00Z</Id><Lap StartTime="2020-01-01T10:00:00Z">'
    "<TotalTimeSeconds>20</TotalTimeSeconds><Track>",
    "</Track></Lap></Activity></Activities></TrainingCenterDatabase>",
)
_gpx = _points(
    '<trkpt lat="52.0" lon="{lon}"><ele>{alt}</ele><time>2020-01-01T10:00:{s:02d}Z</time><extensions>'
    "<g:TrackPointExtension><g:hr>{bpm}</g:hr></g:TrackPointExtension></extensions></trkpt>",
    '<?xml version="1.0"?>\n<gpx version="1.1" creator="t" xmlns="http://www.topografix.com/GPX/1/1" '
    'xmlns:g="http://www.garmin.com/xmlschemas/TrackPointExtension/v1"><trk><trkseg>',
    "</trkseg></trk></gpx>",
)


def _fit(path):
    import garmin_fit_sdk as sdk

    start, encoder = datetime.datetime(2020, 1, 1, 10, tzinfo=datetime.UTC), sdk.Encoder()
    file = {"type": "activity", "manufacturer": "development", "product": 0, "serial_number": 1, "time_created": start}
    encoder.write_mesg({"mesg_num": sdk.Profile["mesg_num"]["FILE_ID"], **file})
    for k in range(20):
        at = {"timestamp": start + datetime.timedelta(seconds=k), "heart_rate": 100 + k, "altitude": 10.0, "speed": 3.0}
        encoder.write_mesg({"mesg_num": sdk.Profile["mesg_num"]["RECORD"], **at})
    path.write_bytes(encoder.close())


def _zipped(write):
    def make(path):
        write(path)
        path.write_bytes(gzip.compress(path.read_bytes()))

    return make


def _check_workout(table):
    """A table of a workout, at regular steps and as features."""
    for name, (least, most) in workouts.POSSIBLE.items():
        assert name not in table or table[name].dropna().between(least, most).all()
    workouts.quality_problems(table)
    steps = workouts.regular_steps(table, 1.0)
    features = workouts.workout_features(steps.speed_kmh, steps.altitude_m)
    assert np.isfinite(features).all() and len(features) == len(steps)


def _endomondo(path):
    run = {"id": 1, "userId": 7, "sport": "run", "gender": "male", "timestamp": list(range(1000, 1080, 8))}
    run |= {"heart_rate": [100] * 10, "altitude": [1.0] * 10, "speed": [9.5] * 10}
    path.write_text(json.dumps(run) + "\n" + str(run | {"id": 2}))


def read_endomondo(path):
    """All workouts of a file, with and without bad lines."""
    list(workouts.read_endomondo(path, skip_bad=True))
    for workout in workouts.read_endomondo(path):
        _check_workout(workout["table"])


# ---- models, logs, runs, parameters ---------------------------------------------------------------------------------


def open_model(path):
    """What a model file holds, and a function that writes it anew."""
    content = torch.load(path, map_location="cpu", weights_only=True)

    def seal(changed):
        kind, config = changed.pop("model_class"), changed.pop("config", None)
        checkpoints.save(path, kind, config, changed.pop("model_state_dict"), changed.pop("metadata", None), **changed)

    return content, seal


def _detector(**networks):
    def make(folder):
        signal, at = np.random.default_rng(0).normal(size=(4000, 2)), np.arange(100, 3900, 70)
        for k, sample in enumerate(at):
            signal[sample : sample + 8] += 9 * np.hanning(8)[:, None] * [1, (-1) ** k]
        events = Events.from_seconds(at / RATE, [("a", "b")[k % 2] for k in range(len(at))], RATE)
        how = {"method": "matched_filter", "refractory_s": 0.1, "progress": False}
        detector = evlib.fit([(Recording(signal, RATE, ("x", "y"), "g"), events)], **how)
        replace(detector, **{name: network().eval() for name, network in networks.items()}).save(folder / "a.ckpt")
        return folder / "a.ckpt"

    return make


def read_detector(path):
    """A detector, which must detect."""
    detector = load_detector(path)
    shape = (min(int(0.5 * detector.sampling_rate_hz), 10**5), len(detector.channels))
    assert shape[1] <= 10**5, shape
    signal = np.random.default_rng(0).normal(size=shape)
    found = detect(detector, Recording(signal, detector.sampling_rate_hz, detector.channels, detector.units))
    assert np.isfinite(found.onset_s).all() and np.isfinite(found.score).all()
    str(detector)


def _encoder(folder):
    checkpoints.save_encoder(folder / "a.pth", LSTMEncoder(3, 4, 1), {"pretext": "autoencoder", "seed": 0})
    return folder / "a.pth"


def read_encoder(path):
    """An encoder, which must encode."""
    encoder, _ = evlib.load_encoder(path)
    assert encoder(torch.zeros(1, 20, encoder.config["input_size"])).isfinite().all()


def _checkpoint(folder):
    model = HeartRateLSTM(3, 4, 1)
    _train(model, save_dir=folder / "run", save_freq=1)
    return folder / "run" / "checkpoint_epoch_1.pth"


def _train(model, **options):
    batches = [{"input": torch.ones(2, 5, 3), "target": torch.zeros(2, 5)}]

    def losses(model, batch):
        return {"total_loss": (model(batch["input"])[..., 0] - batch["target"]).square().mean()}

    optimizer = torch.optim.Adam(model.parameters())
    return loop.train(model, losses, batches, None, optimizer, num_epochs=1, progress=False, **options)


def read_checkpoint(path):
    """A model, which must predict, and a training that goes on."""
    model, _ = checkpoints.load_checkpoint(path, kinds=("HeartRateLSTM",))
    assert model(torch.zeros(1, 5, model.config["input_size"])).isfinite().all()
    _train(HeartRateLSTM(3, 4, 1), resume_from=path)


def _clip_classifier(folder):
    features = {"sampling_rate_hz": 8000, "n_fft": 256, "window": 200, "hop": 100, "n_mels": 6}
    model = LSTMClassifier(6, 4, 1, 2)
    clips.ClipClassifier(model, ("a", "b"), np.zeros(6), np.ones(6), features).save(folder, seed=0)
    return folder


def read_clip_classifier(path):
    """A classifier of clips, which must classify."""
    classifier = clips.ClipClassifier.load(path)
    probability = classifier.probabilities([audio.log_mel(SIGNAL[:, 0], **classifier.features)])
    assert probability.shape == (1, len(classifier.classes)) and np.isfinite(probability).all()


def _motion_model(folder):
    model = TextAlignedModel(d_model=16, num_heads=2, num_layers=1)
    MotionModel(model, 0.64, text_encoder("hashed words"), [], {"text_encoder": "hashed words"}).save(folder / "a.pth")
    return folder / "a.pth"


def read_motion_model(path):
    """A model of motion, which must recognise."""
    windows = make_motion(n_people=1, windows_per_activity=1, activities=("walking", "sitting"))
    assert np.isfinite(load_motion_model(path).scores(windows, ["walking"])).all()


@functools.cache
def _motion_start():
    """A pretrained encoder, and the windows that it has learned from."""
    windows = make_motion(n_people=5, windows_per_activity=6, activities=("walking", "sitting"))
    size = {"size": "nano", "text": text_encoder("hashed words"), "contrastive_weight": 0.0}
    return pretrain_motion([windows], [windows], 1.28, max_epochs=1, **size), windows


def _saved(fit):
    """Write what ``fit`` makes of a pretrained encoder and windows; as safetensors if the name says so."""

    def make(folder, ending=".pth"):
        fit(*_motion_start()).save(folder / "a.pth")
        if ending == ".safetensors":
            checkpoints.write_safetensors(checkpoints.load(folder / "a.pth"), folder / "a.safetensors")
        return folder / f"a{ending}"

    return make


def read_classifier(path):
    """A classifier of activities, which must classify."""
    classifier = load_classifier(path)
    assert np.isfinite(classifier.scores(_motion_start()[1][:3])).all()


def read_segmenter(path):
    """A segmenter, which must segment."""
    segmenter = load_segmenter(path)
    found = segmenter.segment(join_windows(_motion_start()[1][:4])[0])
    assert (found.duration_s > 0).all() and set(found.type_names) <= set(segmenter.labels)


def read_anomaly(path):
    """A detector of anomalies, which must judge."""
    assert np.isfinite(load_anomaly(path).scores(_motion_start()[1][:3])).all()


def _heart_rate_model(folder):
    time_s = np.arange(0.0, 600.0, 5.0)
    speeds = [8 + 2 * k + 3 * np.sin(time_s / 60 + k) for k in range(3)]
    more = {"time_s": time_s, "altitude_m": 0.0}
    runs = [pd.DataFrame(more | {"speed_kmh": one, "heart_rate_bpm": 80 + 6 * one}) for one in speeds]
    fit_heart_rate(runs, max_epochs=1).save(folder / "a.pth")
    return folder / "a.pth"


def read_heart_rate_model(path):
    """A model of heart rates, whose answers must be possible ones."""
    run = pd.DataFrame({"time_s": np.arange(0.0, 300.0, 5.0), "speed_kmh": 10.0, "altitude_m": 0.0})
    answer = load_heart_rate(path).predict(run).heart_rate_bpm.dropna()
    assert answer.between(30, 220).all()


def _log(folder):
    log = AnnotationLog(folder / "a.jsonl", RECORDING, ["a", "b", *TABLE.names])
    log.suggest(TABLE)
    log.accept(0), log.move(1, 0.6), log.review(0.0, 1.0), log.relabel(log.add(1.5, "a"), "b"), log.undo()
    return log.path


def read_log(path):
    """A log of annotations, its events, and one more edit."""
    log = AnnotationLog(path)
    events = log.events()
    assert len(events) == sum(row.is_event for row in log.rows())
    log.counts(), log.undo(), log.suggestions()


def _notebook(folder):
    import nbformat

    cell = nbformat.v4.new_code_cell("seed: int = 0  # of weights\nname: str = 'x'", metadata={"tags": ["parameters"]})
    kernel = {"kernelspec": {"name": "python3", "language": "python", "display_name": "Python 3"}}
    nbformat.write(nbformat.v4.new_notebook(cells=[cell], metadata=kernel), folder / "a.ipynb")
    (folder / "a.yaml").write_text("seed: 3\nname: some text\n")
    return folder / "a.ipynb"


def read_parameters(path):
    """The parameters of a notebook, and those of its file of the full run."""
    notebook_parameters(path)
    _chosen_parameters([path], path.parent)


def _file(name, write):
    """``make`` of a reader of one file."""

    def make(folder):
        write(folder / name)
        return folder / name

    return make


READERS = {
    **{ending: Reader(_file(f"night{ending}", write), read_signal) for ending, write in RECORDINGS.items()},
    **{f"events {name[1:]}": Reader(_file(name, _labels), read_table) for name in EVENTS},
    "sessions": Reader(_sessions, read_sessions),
    **{
        kind: Reader(make, _converted(kind))
        for kind, make in zip(converters.SOURCES, (_uci_har, _pamap2, _wisdm, _motionsense), strict=True)
    },
    **{f"manifest {ending}": Reader(_manifest(ending), read_clips) for ending in (".csv", ".json")},
    **{
        f"workout {ending}": Reader(
            _file(f"run{ending}", write), lambda path: _check_workout(workouts.read_activity(path))
        )
        for ending, write in {".tcx": _tcx, ".gpx": _gpx, ".fit": _fit, ".tcx.gz": _zipped(_tcx)}.items()
    },
    "endomondo .json": Reader(_file("runs.json", _endomondo), read_endomondo),
    "endomondo .json.gz": Reader(_file("runs.json.gz", _zipped(_endomondo)), read_endomondo),
    "detector": Reader(_detector(), read_detector),
    "detector, networks": Reader(
        _detector(network=lambda: ContextLSTM(2, 4), frames=lambda: FrameNetwork(2, 2, 4)), read_detector
    ),
    "encoder": Reader(_encoder, read_encoder),
    "checkpoint": Reader(_checkpoint, read_checkpoint),
    "clip classifier": Reader(_clip_classifier, read_clip_classifier),
    "motion model": Reader(_motion_model, read_motion_model),
    "motion classifier": Reader(_saved(fit_classifier), read_classifier),
    "motion classifier .safetensors": Reader(
        functools.partial(_saved(fit_classifier), ending=".safetensors"), read_classifier
    ),
    "segmenter": Reader(_saved(lambda start, windows: fit_segmenter(start, *join_windows(windows))), read_segmenter),
    "anomaly detector": Reader(
        _saved(lambda start, windows: fit_anomaly(start, windows, false_alarm_rate=0.2)), read_anomaly
    ),
    "heart-rate model": Reader(_heart_rate_model, read_heart_rate_model),
    "annotation log": Reader(_log, read_log),
    "notebook": Reader(_notebook, read_parameters),
}
