"""Files of models: what is not as it was written is refused, and what cannot be true too, before memory is taken."""

import functools
import os
import pickle
import tempfile
import time
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

import evlib
from evlib import LSTMClassifier, LSTMEventClassifier
from evlib.detection.detector import Detector
from evlib.motion.align import TextAlignedModel
from evlib.motion.train import MotionModel, load_motion_model
from evlib.networks.context import ContextLSTM
from evlib.networks.encoders import LSTMEncoder
from evlib.networks.event_specific import EventSpecificClassifier
from evlib.networks.frames import FrameEncoder, FrameNetwork
from evlib.networks.pretext import MaskedPatchModel
from evlib.networks.transformer import HashedWords, PatchFrameEncoder
from evlib.signals.errors import DataError, EvlibError, WriteError
from evlib.signals.gaps import Normal
from evlib.studies.clips import ClipClassifier
from evlib.studies.sequences import HeartRateLSTM, TimeLSTM
from evlib.templates.bank import TemplateBank
from evlib.templates.whiten import Whitener
from evlib.training.checkpoints import load_checkpoint, load_pretrained, save_checkpoint, save_encoder

RNG = np.random.default_rng(0)
PATCHES = {"d_model": 8, "num_heads": 2, "num_layers": 1}


def whitener(channels=3):
    normal = Normal(np.array([1.0, 2.0, np.inf])[:channels], np.full(channels, np.inf))
    return Whitener(RNG.normal(size=(channels, 9)), np.zeros(channels), 100.0, normal=normal)


def detector(**parts):
    bank = TemplateBank(RNG.normal(size=(2, 20, 3)), before=5, names=("bell", "clap"))
    refractory = {"bell": 2.0, "clap": 0.5}
    return Detector(whitener(), bank, np.zeros(2), refractory, 6.0, channels=("x", "y", "z"), units=("",) * 3, **parts)


def save_clips(path):
    model = LSTMClassifier(4, 8, 1, 2)
    ClipClassifier(model, ("bell", "clap"), np.zeros(4), np.ones(4)).save(path.parent)
    (path.parent / "best_model.pth").rename(path)


def load_clips(path):
    folder = path.parent / "clips"
    folder.mkdir(exist_ok=True)
    (folder / "best_model.pth").write_bytes(path.read_bytes())
    return ClipClassifier.load(folder)


NETWORKS = {
    "network": lambda: ContextLSTM(2, 8),
    "frames": lambda: FrameNetwork(3, 2, 8),
    "classifier": lambda: EventSpecificClassifier(3, 8, 1, 2, template_length=20),
}
# Kind of file -> how one is written and read.
KINDS = {
    "detector": (lambda path: detector(network=NETWORKS["network"]()).save(path), evlib.load_detector),
    "checkpoint": (lambda path: save_checkpoint(path, LSTMEventClassifier(3, 8, 1, 2)), load_checkpoint),
    "encoder": (
        lambda path: save_encoder(path, FrameEncoder(3, 8), {"pretext": "masked"}, whitener()),
        load_pretrained,
    ),
    "motion": (
        lambda path: MotionModel(
            MaskedPatchModel(**PATCHES), 0.5, HashedWords(), [], {"text_encoder": "hashed words"}
        ).save(path),
        load_motion_model,
    ),
    "clips": (save_clips, load_clips),
}


@functools.cache
def bytes_of(kind):
    with tempfile.TemporaryDirectory() as folder:
        KINDS[kind][0](Path(folder) / "model.pth")
        return (Path(folder) / "model.pth").read_bytes()


@pytest.fixture(params=KINDS)
def written(request, tmp_path):
    """A file of each kind: its path, its bytes, how it is read."""
    path = tmp_path / "files" / "model.pth"
    path.parent.mkdir()
    path.write_bytes(bytes_of(request.param))
    return path, path.read_bytes(), KINDS[request.param][1]


def changed(path, content):
    path.write_bytes(content)
    return path


def rewritten(path, content, **parts):
    """A file as torch writes it, without the checksum of evlib."""
    torch.save(content | parts, path)
    return path


def test_a_single_flipped_bit_is_refused_anywhere(written):
    path, whole, load = written
    load(path)
    ends = np.r_[0:40, len(whole) - 100 : len(whole)]
    for place in np.r_[ends, RNG.integers(0, len(whole), 60)]:
        bad = bytearray(whole)
        bad[place] ^= 1 << RNG.integers(8)
        with pytest.raises(DataError, match=r"model\.pth"):
            load(changed(path, bytes(bad)))


def test_whatever_is_cut_off_or_added_is_refused(written):
    path, whole, load = written
    for n in (0, 1, 22, 64, 86, len(whole) // 2, len(whole) - 1):
        for bad in (whole[: len(whole) - n] if n else whole + b"\0", whole[n:] if n else b"\0" + whole):
            with pytest.raises(DataError, match=r"model\.pth"):
                load(changed(path, bad))


def test_reading_moves_no_global_generator_and_writes_nothing(written):
    path, whole, load = written
    torch.manual_seed(5)
    states = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    before = {file: file.stat().st_mtime_ns for file in path.parent.iterdir() if file.is_file()}
    load(path)
    assert torch.equal(states[0], torch.get_rng_state()) and np.array_equal(states[1], np.random.get_state()[1])  # noqa: NPY002
    assert {file: file.stat().st_mtime_ns for file in path.parent.iterdir() if file.is_file()} == before
    assert torch.load(path, weights_only=True)["format"] == 3, "and torch reads them as they are"


class Hostile:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def nested(depth=200):
    value = []
    for _ in range(depth):
        value = [value]
    return value


def shared():
    """A list that is short in memory and endless to print."""
    value = ["x"]
    for _ in range(100):
        value = [value, value]
    return value


ODD = [
    None,
    "a",
    -1,
    0,
    1.5,
    10**9,
    10**30,
    float("nan"),
    [1],
    {"a": 1},
    nested(),
    shared(),
    torch.zeros(2),
    True,
    b"a",
]


def test_odd_values_are_refused_at_once(written):
    """Or change nothing that is read."""
    path, _, load = written
    content, start = torch.load(path, weights_only=True), time.monotonic()
    config = content["config"]
    files = [{"config": config | {name: value}} for name in [*config, 5, "self", "extra"] for value in ODD]
    files += [{key: value} for key in content for value in ODD]
    for parts in files[:: len(files) // 50]:  # their number is no multiple of that of the values
        rewritten(path, content, **parts)
        try:
            load(path)
        except EvlibError as error:
            assert "model.pth" in str(error) and len(str(error)) < 3000
        else:
            assert not parts.keys() & {"model_state_dict", "model_class"}
    assert time.monotonic() - start < 60


def test_weights_that_are_not_finite_or_have_another_shape_are_refused(written):
    path, _, load = written
    content = torch.load(path, weights_only=True)
    # Of BatchNorm's counter torch does without.
    names = [name for name in content["model_state_dict"] if not name.endswith("num_batches_tracked")]
    state = {name: content["model_state_dict"][name] for name in names}
    names = names[:: max(1, len(names) // 3)]
    bad = [state | {name: state[name].new_zeros(7, *state[name].shape)} for name in names]
    bad += [state | {name: state[name].reshape(-1)[:0]} for name in names]
    bad += [state | {name: state[name] * torch.nan} for name in names]
    bad += [{other: value for other, value in state.items() if other != name} for name in names]
    for weights in bad:
        rewritten(path, content, model_state_dict=weights)
        with pytest.raises(DataError, match=r"model\.pth"):
            load(path)
    load(rewritten(path, content))


def test_hostile_files_run_nothing_and_take_no_memory(written, tmp_path):
    path, _, load = written
    content, trace = torch.load(path, weights_only=True), tmp_path / "owned"
    for key in [*content, "more"]:
        rewritten(path, content, **{key: Hostile(trace)})
        with pytest.raises(DataError, match="might run code"):
            load(path)
    with pytest.raises(DataError, match=r"model\.pth"):
        load(changed(path, pickle.dumps(Hostile(trace))))
    assert not trace.exists()
    # A tensor that claims more values than are stored; an archive that unpacks to more than it is.
    name = next(iter(content["model_state_dict"]))
    rewritten(path, content, model_state_dict={name: torch.zeros(1).expand(10**6, 10**6)})
    with pytest.raises(DataError, match="not all values"):
        load(path)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(10**8))
    tracemalloc.start()
    with pytest.raises(DataError, match="compressed"):
        load(path)
    assert tracemalloc.get_traced_memory()[1] < 1e7
    tracemalloc.stop()
    # Lists in lists, deeper than functions may call each other.
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02" + b"]" * 20_000 + b"a" * 19_999 + b".")
        archive.writestr("archive/version", b"3")
    with pytest.raises(DataError, match="must hold a dictionary, got a list"):
        load(path)


BAD_DETECTORS = {
    "taps": [torch.zeros(3, 8), torch.zeros(2, 9), torch.zeros(9), torch.full((3, 9), torch.nan)],
    "center": [torch.zeros(2), torch.tensor([0, 0, torch.inf])],
    "step": [torch.zeros(3), torch.ones(2), torch.tensor([1, torch.nan, 1])],
    "still": [-torch.ones(3), torch.ones(3, 1)],
    "limits": [torch.ones(3), torch.full((2, 3), torch.nan), torch.zeros(2, 3)],
    "loudest": [torch.ones(4), torch.tensor([1, 1, -torch.inf])],
    "templates": [
        torch.zeros(2, 0, 3),
        torch.zeros(2, 20, 2),
        torch.zeros(3, 20, 3),
        torch.full((2, 20, 3), torch.inf),
    ],
    "log_rate": [torch.zeros(3), torch.tensor([0, torch.nan]), torch.zeros(())],
    "thresholds": [torch.zeros(3), torch.tensor([0, torch.nan]), torch.zeros(2, 1), torch.zeros(2, dtype=torch.long)],
}
BAD_VALUES = {
    "channels": [["x", "y"], ["x", "y", 3], "xyz"],
    "units": [["", ""], 5],
    "refractory_s": [{"bell": 2.0}, {"bell": 2.0, "clap": float("nan")}, {"bell": 2.0, "clap": -1.0}, "a"],
    "prior_logit": [float("nan"), float("inf"), "a", None],
    "timing_error_s": [-1.0, float("nan"), "a"],
    "timing_scale": [-1.0, float("inf")],
    "calibration": [[1.0], [1.0, float("nan")], ["a", 1.0], 5],
    "weights": [[1.0, 0.0], [1.0, 0.0, "a"], [0.0, 1.0, 0.0], None],
    "same_event_s": [-1.0, None],
    "exact_s": [float("nan")],
    "most_doubted": [-0.1, "a"],
    "classifier_window": [-1, 1.5, "a"],
    "metadata": [None, [1]],
}
BAD_BANKS = {
    "before": [-1, 21, 1.5, "a", 10**12],
    "names": [["bell"], ["bell", "bell"], ["bell", 5], "ab", 5],
    "amplitude_spread": [-1.0, float("nan"), "a"],
    "evidence_scale": [-0.1, 1.1, None],
    "sampling_rate_hz": [0.0, -1.0, float("inf"), "fast", None],
}


@pytest.mark.parametrize(
    ("where", "name", "values"),
    [
        *(("model_state_dict", *item) for item in BAD_DETECTORS.items()),
        *(("", *item) for item in BAD_VALUES.items()),
        *(("config", *item) for item in BAD_BANKS.items()),
    ],
)
def test_a_detector_that_cannot_be_is_refused(where, name, values, tmp_path):
    path = tmp_path / "d.ckpt"
    detector().save(path)
    content = torch.load(path, weights_only=True)
    for value in values:
        rewritten(path, content, **({where: content[where] | {name: value}} if where else {name: value}))
        with pytest.raises(DataError, match=r"d\.ckpt is an incomplete or damaged detector"):
            evlib.load_detector(path)
    assert evlib.load_detector(rewritten(path, content)).names == ("bell", "clap"), "unchanged it is read"


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_of_other_types_or_channels_are_refused(name, tmp_path):
    path = tmp_path / "d.ckpt"
    detector(**{name: NETWORKS[name]()}).save(path)
    assert getattr(evlib.load_detector(path), name) is not None
    content = torch.load(path, weights_only=True)
    for change in ({"num_events": 3}, {"input_size": 4}):
        if change.keys() <= content[name]["config"].keys():
            other = type(NETWORKS[name]())(**content[name]["config"] | change)
            rewritten(path, content, **{name: {"config": other.config, "state": other.state_dict()}})
            with pytest.raises(DataError, match="the templates have"):
                evlib.load_detector(path)
    rewritten(path, content, **{name: {"config": {}, "state": {}, "kinds": ["os"], "path": "x"}})
    with pytest.raises(DataError, match=r"d\.ckpt"):
        evlib.load_detector(path)


MODELS = {
    "LSTMEncoder": lambda: LSTMEncoder(3, 8),
    "PatchFrameEncoder": lambda: PatchFrameEncoder(3, 8, 1),
    "FrameNetwork": NETWORKS["frames"],
    "EventSpecificClassifier": NETWORKS["classifier"],
    "ContextLSTM": lambda: ContextLSTM(2, 8, time_embedding="lete"),
    "LSTMEventClassifier": lambda: LSTMEventClassifier(3, 8, 1, 2, encoder="dual-branch"),
    "LSTMAutoencoder": lambda: evlib.LSTMAutoencoder(3, 8, 1, 4),
    "VariationalLSTMAutoencoder": lambda: evlib.VariationalLSTMAutoencoder(3, 8, 1, 4),
    "ContrastiveLSTM": lambda: evlib.ContrastiveLSTM(3, 8, 1, 4),
    "MaskedPatchModel": lambda: MaskedPatchModel(**PATCHES),
    "TextAlignedModel": lambda: TextAlignedModel(**PATCHES),
    "HeartRateLSTM": lambda: HeartRateLSTM(3, 8, 1),
    "LSTMClassifier": lambda: LSTMClassifier(3, 8, 1, 2),
    "TimeLSTM": lambda: TimeLSTM("table", 8, 1, size=4),
    "TimeLSTM of many": lambda: TimeLSTM("kan_mammote", 8, 1, size=8),
}
HUGE = {"num_layers": 10**6, "hidden_size": 10**9, "input_size": 10**9, "num_events": 10**9, "d_model": 8 * 10**8}
HUGE |= {"resolution": 10**9, "timing_resolution_samples": 10**9, "patch_samples": 10**9, "size": 10**9}
HUGE |= {"template_length": 10**9, "latent_size": 10**9, "projection_size": 10**9, "num_classes": 10**9}


@pytest.mark.parametrize("name", MODELS)
def test_every_model_comes_back_and_sizes_that_are_not_stored_are_refused_at_once(name, tmp_path):
    path, model = tmp_path / "m.pth", MODELS[name]()
    save_checkpoint(path, model)
    again, content = load_checkpoint(path)
    assert type(again) is type(model) and again.config == model.config and not again.training
    for key, value in model.state_dict().items():
        assert torch.equal(again.state_dict()[key], value)
    start = time.monotonic()
    tracemalloc.start()
    for key in HUGE.keys() & content["config"].keys():
        torch.save(content | {"config": content["config"] | {key: HUGE[key]}}, path)
        with pytest.raises(DataError, match="do not fit"):
            load_checkpoint(path)
    assert tracemalloc.get_traced_memory()[1] < 1e8
    tracemalloc.stop()
    assert time.monotonic() - start < 5


@pytest.mark.parametrize(
    "save", [lambda path: detector().save(path), lambda path: save_checkpoint(path, LSTMEncoder(3, 8))]
)
def test_a_full_disk_leaves_the_old_model(save, tmp_path):
    resource = pytest.importorskip("resource")
    path = tmp_path / "d.ckpt"
    save(path)
    before, limits = path.read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limits[1]))
    try:
        with pytest.raises(WriteError, match=r"d\.ckpt was not written, what was there still is"):
            save(path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("value", [{1, 2}, np.zeros(3), object(), print])
def test_what_could_not_be_read_again_is_not_written(value, tmp_path):
    with pytest.raises(EvlibError, match="no plain value"):
        detector(metadata={"odd": [value]}).save(tmp_path / "d.ckpt")
    assert not list(tmp_path.iterdir())
