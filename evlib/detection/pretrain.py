"""Pretraining: what encoders can learn from recordings without labels.

Windows of whitened signal train a pretext model, and its encoder is what remains. `pretrain` makes the encoder of the
frame network, from windows of some seconds with `evlib.networks.pretext.PRETEXT_MODELS`. `pretrain_windows` makes those
of the original window models, from windows that hold single events with ``WINDOW_MODELS``. Most windows lie around a
peak of energy and the rest anywhere, because little can be learned from noise alone. One in five recordings is
development data; of fewer recordings, windows in held-out tenths are.
"""

import hashlib
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

from ..networks.frames import FrameEncoder
from ..networks.losses import AutoencoderLoss, VariationalAutoencoderLoss, nt_xent
from ..networks.pretext import (
    PRETEXT_MODELS,
    ContrastiveLSTM,
    LSTMAutoencoder,
    MaskedPatchModel,
    VariationalLSTMAutoencoder,
)
from ..networks.seeds import seeded
from ..networks.threads import few_threads
from ..networks.transformer import HashedWords, PatchFrameEncoder, frame_channels
from ..signals.clock import duration_to_samples
from ..signals.errors import DataError, OptionError, require_choice, require_int, require_seconds
from ..signals.recording import Recording, as_list, check_alike, cut, numbered, require_rate_of
from ..signals.streams import stream
from ..templates.discover import energy_peaks
from ..templates.whiten import Whitener, estimate_whitener
from ..training.augment import ChannelDropout, Compose, Gain, TimeShift, WhiteNoise
from ..training.checkpoints import load_pretrained, save_encoder
from ..training.data import ContrastiveDataset, collate_fn_contrastive
from ..training.loop import contrastive_losses, train, unsupervised_losses
from ..training.masked import MaskedPretextLoss, fit_patches, masked_losses
from ..training.windows import Windows
from .prepare import ONE_IN, held_out_parts, spread_pieces

PRETEXTS = tuple(PRETEXT_MODELS)
WINDOW_MODELS = {
    "autoencoder": LSTMAutoencoder,
    "variational": VariationalLSTMAutoencoder,
    "contrastive": ContrastiveLSTM,
    "masked": MaskedPatchModel,
}
PATIENCE_EPOCHS = 5
# Seconds in a frame of an encoder; times within a frame are read from its states. A frame of the frame network has at
# least four samples: slowly sampled events are slow, and single samples would see too little of them.
FRAME_S, LEAST_FRAME_SAMPLES = 0.005, 4
# Seconds: in longer windows the encoding mixes many events.
LONG_WINDOW_S = 10.0
# Of the frame network's encoder: learning rate, windows in a batch.
FRAME_LEARNING_RATE, FRAME_BATCH = 2e-3, 16
# Frames of its windows (4 s at 2000 Hz), so that the surroundings of events are learned too; but at most these shares
# of a recording: of few recordings a held-out tenth must have room for some windows, of several the shortest one.
WINDOW_FRAMES, SHARE_OF_FEW, SHARE_OF_SEVERAL = 800, 1 / 30, 1 / 2
# Of the encoders of window models: learning rates of LSTMs and of the masked transformer, windows in a batch.
LEARNING_RATE, MASKED_LEARNING_RATE, BATCH = 5e-3, 6e-3, 64
# The transformer has one block: attention over all frames and channels is slow on a CPU.
MASKED_BLOCKS = 1
# Standard deviations of the noise that is added to masked windows, where that of a recording is 1: clearer windows
# teach sooner.
MASKED_NOISE = (0.3, 1.0)
# Two views of one window: what a sensor may do to an event without making it another.
VIEWS = Compose((Gain((0.7, 1.4)), TimeShift(4), ChannelDropout(0.1), WhiteNoise(0.5)))
# Two views of a window share only this many principal components: views that share their noise would be matched by it.
SHARED_COMPONENTS = 32
# Share of the windows around a peak of energy, and how far the peak is from their middle at most, in windows.
SHARE_AT_PEAKS, OFF_CENTRE = 0.8, 0.1


@dataclass(frozen=True, eq=False)
class Pretrained:
    """An encoder that was pretrained, and where it comes from.

    ``encoder`` : a FrameEncoder (of windows an LSTMEncoder, or a PatchFrameEncoder for "masked"); ``model`` : the whole
    pretext model; ``history`` : the losses of each epoch; ``metadata`` : rate, channels, units, pretext, seed and data
    hash; ``whitener`` : of the signals that it was trained on, where known. :meth:`save` keeps encoder, metadata and
    whitener.
    """

    encoder: torch.nn.Module
    model: torch.nn.Module | None
    history: list
    metadata: dict
    whitener: Whitener | None = None

    def __repr__(self):
        kind = f"{self.metadata['pretext']}, hidden size {self.encoder.config['hidden_size']}"
        return f"Pretrained({kind}, {self.metadata['duration_s']:g} s, {len(self.history)} epochs)"

    def save(self, path: str | Path) -> None:
        """Write encoder, metadata and whitener; :func:`evlib.load_encoder` reads the first two."""
        save_encoder(path, self.encoder, self.metadata, self.whitener)


def pretrain(
    recordings: list[Recording],
    pretext: str = "contrastive",
    *,
    whitened: list | None = None,
    seed: int = 0,
    hidden_size: int = 48,
    window_s: float | None = None,
    n_windows: int = 2048,
    max_epochs: int = 20,
    progress: bool = True,
    log_dir: str | Path | None = None,
    save_dir: str | Path | None = None,
    resume: bool = False,
) -> Pretrained:
    """Pretrain the encoder of a frame network on recordings without labels.

    Parameters
    ----------
    recordings : list of Recording with one rate and the same channels; of more than 45 minutes of six channels
        at 2000 Hz, pieces that are spread evenly
    pretext : "autoencoder", "variational", "contrastive" or "masked"
    whitened : their signals, list of (n, C), where they are whitened already
    seed : of weights, windows and views
    hidden_size : features of a frame in each half of the encoder
    window_s : length of a window, up to ten seconds; short ones hold single events; default: 800 frames of the network
        (four seconds at 2000 Hz), less where recordings are short
    n_windows : windows in an epoch, fewer when the recordings are short
    max_epochs : at most; five epochs without a better development loss end the training
    progress : show a progress bar
    log_dir : TensorBoard's logs; default: beside the checkpoints, if those are kept
    save_dir : folder for checkpoints of each epoch, without those of another run; default: none are kept
    resume : go on from the latest checkpoint in ``save_dir``, of a run with the same recordings and options

    Raises
    ------
    OptionError, DataError, UnitError, ShapeError : see the messages

    Examples
    --------
    >>> import evlib
    >>> recording = evlib.make_recording(duration_s=20.0).recording
    >>> options = {"n_windows": 64, "window_s": 0.25, "hidden_size": 8, "max_epochs": 1, "progress": False}
    >>> pretrain([recording], "masked", **options).metadata["pretext"]
    'masked'
    """
    run = {"max_epochs": max_epochs, "progress": progress, "log_dir": log_dir, "save_dir": save_dir, "resume": resume}
    return _pretrain(_train_frames, recordings, pretext, hidden_size, window_s, n_windows, whitened, seed, **run)


def pretrain_windows(
    recordings: list[Recording],
    pretext: str = "autoencoder",
    *,
    hidden_size: int = 64,
    window_s: float = 0.06,
    n_windows: int = 4096,
    **options,
) -> Pretrained:
    """Pretrain the encoder of a window model on recordings without labels.

    Parameters
    ----------
    recordings : list of Recording with one rate and the same channels
    pretext : "autoencoder", "variational", "contrastive" or "masked" (a transformer over frames and channels, whose
        training is not ended early: for long it learns nothing, and then much)
    hidden_size : units of the encoder in each direction
    window_s : length of a window; 0.06 s holds one event and little else
    n_windows : windows in an epoch, fewer when the recordings are short
    options : ``whitened``, ``seed``, ``max_epochs``, ``progress``, ``log_dir``, ``save_dir``, ``resume``, as in
        :func:`pretrain`

    Raises
    ------
    OptionError, DataError, UnitError, ShapeError : see the messages

    Examples
    --------
    >>> import evlib
    >>> recording = evlib.make_recording(duration_s=10.0).recording
    >>> pretrain_windows([recording], n_windows=64, hidden_size=8, max_epochs=1, progress=False).metadata["pretext"]
    'autoencoder'
    """
    train_encoder = _train_masked if pretext == "masked" else _train_windows
    return _pretrain(train_encoder, recordings, pretext, hidden_size, window_s, n_windows, **options)


def _pretrain(
    train_encoder, recordings, pretext, hidden_size, window_s, n_windows, whitened=None, seed=0, max_epochs=20, **run
):
    """Check what every pretraining is asked for, whiten, cut windows, and train."""
    recordings = as_list(recordings)
    recordings = check_alike(recordings)
    recordings = spread_pieces(recordings) if whitened is None else recordings
    rate = recordings[0].sampling_rate_hz
    require_choice(PRETEXTS, pretext=pretext)
    require_int(0, seed=seed)
    require_int(1, hidden_size=hidden_size, max_epochs=max_epochs)
    require_int(8, n_windows=n_windows)
    window_s = default_window_s(recordings) if window_s is None else window_s
    require_seconds(LONG_WINDOW_S, window_s=window_s)
    signals, whitener = whitened, None
    if whitened is None:
        whitener = estimate_whitener(recordings)
        signals = [whitener(recording) for recording in recordings]
    window, shortest = max(8, duration_to_samples(window_s, rate)), min(map(len, signals))
    if shortest <= window:
        raise DataError(f"a recording of {shortest / rate:g} s is shorter than a window of {window_s:g} s")
    windows, held_out = cut_windows(signals, window, n_windows, seed)
    if 0 in (len(windows), len(held_out)):
        raise DataError(
            f"{sum(map(len, signals)) / rate:g} s of recordings give {len(windows)} windows of {window_s:g} s to train "
            f"on and {len(held_out)} held-out ones; both are needed (more signal, more windows or shorter ones?)"
        )
    with few_threads():
        run |= {"max_epochs": max_epochs, "seed": seed}
        encoder, model, history = train_encoder(pretext, windows, held_out, rate, hidden_size, **run)
    first = recordings[0]
    metadata = {
        "pretext": pretext,
        "sampling_rate_hz": rate,
        "channels": list(first.channels),
        "units": list(first.units),
        "window_s": float(window_s),
        "seed": int(seed),
        "duration_s": float(sum(recording.duration_s for recording in recordings)),
        "data_hash": hashlib.sha256(windows.tobytes()).hexdigest()[:16],
        "epochs": len(history),
    }
    return Pretrained(encoder, model, history, metadata, whitener)


def _train_frames(pretext, windows, held_out, rate, hidden_size, *, seed, **run):
    """Encoder, pretext model and history of a frame network's encoder."""
    with seeded(seed):
        model = PRETEXT_MODELS[pretext](windows.shape[2], hidden_size, network_resolution(rate))
    optimizer = torch.optim.AdamW(model.parameters(), FRAME_LEARNING_RATE)
    sets = torch.from_numpy(windows), torch.from_numpy(held_out)
    run |= {"seed": seed, "judge_last": True}
    return _fit(model, lambda model, batch: model.losses(batch), sets, FRAME_BATCH, optimizer, **run)


def _train_windows(pretext, windows, held_out, rate, hidden_size, *, seed, max_epochs, **run):
    """Encoder, pretext model and history of an LSTM that reads windows."""
    with seeded(seed):
        # No dropout: noise is new in every window, and nothing can be learned by heart.
        options = {"dropout": 0.0, "timing_resolution_samples": frame_samples(rate)}
        model = WINDOW_MODELS[pretext](windows.shape[2], hidden_size, **options)
    optimizer = torch.optim.Adam(model.parameters(), LEARNING_RATE)
    run |= {"seed": seed, "max_epochs": max_epochs}
    if pretext == "contrastive":
        losses, run["loss_fn"] = contrastive_losses, partial(nt_xent, temperature=model.temperature)
        one, other = shared_part(windows, held_out)
        sets = ContrastiveDataset(one, VIEWS, seed=seed), ContrastiveDataset(other, VIEWS, seed=seed, train=False)
        run["collate_fn"] = collate_fn_contrastive
    else:
        losses, sets = unsupervised_losses, (torch.from_numpy(windows), torch.from_numpy(held_out))
        warmup_steps = max_epochs * len(windows) // BATCH // 4
        variational = VariationalAutoencoderLoss(warmup_steps=warmup_steps)
        run["loss_fn"] = AutoencoderLoss() if pretext == "autoencoder" else variational
    return _fit(model, lambda model, batch: losses(model, run["loss_fn"], batch), sets, BATCH, optimizer, **run)


def _fit(
    model, losses, sets, batch, optimizer, *, max_epochs, collate_fn=None, judge_last=False, resume=False, **options
):
    """Encoder, model and history of a training that keeps the best epoch.

    ``sets`` : to train on and to judge by; ``judge_last`` : a last batch that is not full counts in the latter
    """
    loaders = [
        torch.utils.data.DataLoader(part, min(batch, len(part)), shuffle=shuffle, collate_fn=collate_fn, drop_last=drop)
        for part, shuffle, drop in zip(sets, (True, False), (True, not judge_last), strict=True)
    ]
    options |= {"num_epochs": max_epochs, "patience": PATIENCE_EPOCHS, "save_freq": 1, "resume_from": resume}
    options["run_options"] = {}  # data and models say all
    return model.encoder, model, train(model, losses, *loaders, optimizer, **options)


def _train_masked(pretext, windows, held_out, rate, hidden_size, *, seed, **run):
    """Encoder, pretext model and history of a transformer over frames and channels."""
    n_channels, frame = windows.shape[2], max(2, frame_samples(rate))
    with seeded(seed):  # its weights are replaced by those of the trained model
        encoder = PatchFrameEncoder(n_channels, hidden_size, MASKED_BLOCKS, dropout=0.0, resolution=frame)
    # What recurs is shown under fresh noise, and only what recurs is to be rebuilt: noise cannot be predicted.
    channels = frame_channels(n_channels)
    sets = [[Windows("recordings", part, rate, channels)] for part in shared_part(windows, held_out)]
    batches = {
        "mask_ratio": 0.5,
        "strength": "none",
        "patch_samples": frame,
        "normalise": False,
        "noise": MASKED_NOISE,
        "view": False,
    }
    model, history, _ = fit_patches(
        masked_losses,
        lambda: MaskedPatchModel(**encoder.patches.config),
        MaskedPretextLoss(contrastive_weight=0.0, parts={"shape": 1.0}),
        *sets,
        frame / rate,
        HashedWords(),
        batches,
        {},
        lr=MASKED_LEARNING_RATE,
        batch_size=BATCH,
        seed=seed,
        **run,
    )
    encoder.patches = model.encoder
    return encoder.eval(), model, history


def frame_samples(rate: float) -> int:
    """Samples in a frame of a window model's encoder: 5 ms."""
    return max(1, round(FRAME_S * rate))


def network_resolution(rate: float) -> int:
    """Samples in a frame of the frame network.

    >>> network_resolution(100.0), network_resolution(2000.0)
    (4, 10)
    """
    return max(LEAST_FRAME_SAMPLES, frame_samples(rate))


def default_window_s(recordings) -> float:
    """Seconds in a window of the frame network's encoder, for recordings of one rate."""
    rate, durations = recordings[0].sampling_rate_hz, [recording.duration_s for recording in recordings]
    room = SHARE_OF_FEW * max(durations) if len(recordings) < ONE_IN else SHARE_OF_SEVERAL * min(durations)
    return min(WINDOW_FRAMES * network_resolution(rate) / rate, room, LONG_WINDOW_S)


def cut_windows(signals, window: int, n_windows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Windows (N, window, C) of whitened signals to train on, and held-out ones; those that lie in both are left out.

    ``signals`` : list of (n, C); ``window`` : samples; ``n_windows`` : in all, fewer where signals are short
    """
    rng, lengths = stream("pretraining windows", seed), list(map(len, signals))
    parts = []
    for signal, spans in zip(signals, held_out_parts(lengths, seed), strict=True):
        n = min(n_windows * len(signal) // sum(lengths), max(8, 4 * len(signal) // window))
        n_near, reach = round(SHARE_AT_PEAKS * n), round(OFF_CENTRE * window)
        peaks = energy_peaks(signal, 2 * window // 3)
        middle = rng.choice(peaks, n_near) + rng.integers(-reach, reach + 1, n_near) if len(peaks) else peaks
        anywhere = rng.integers(0, len(signal) - window, n - len(middle))
        start = np.clip(np.r_[middle - window // 2, anywhere], 0, len(signal) - window)[:, None]
        inside = ((start >= spans[:, 0]) & (start + window <= spans[:, 1])).any(1)
        touching = ((start < spans[:, 1]) & (start + window > spans[:, 0])).any(1)
        parts.append([cut(signal, start[rows, 0], window) for rows in (~touching, inside)])
    train, development = zip(*parts, strict=True)
    return np.concatenate(train), np.concatenate(development)


def shared_part(train: np.ndarray, development: np.ndarray) -> list:
    """Windows (N, time, C) rebuilt from the first principal components of those to train on: what recurs, and little of
    the noise."""
    from sklearn.decomposition import PCA

    flat = train.reshape(len(train), -1)
    pca = PCA(min(SHARED_COMPONENTS, *flat.shape), random_state=0).fit(flat)
    return [pca.inverse_transform(pca.transform(w.reshape(len(w), -1))).reshape(w.shape) for w in (train, development)]


def check_encoder(pretrain, recordings) -> tuple["str | Pretrained", list]:
    """What ``fit(pretrain=...)`` names: a pretext, or an encoder as Pretrained; and the recordings as it reads them."""
    if isinstance(pretrain, str) and pretrain in PRETEXTS:
        return pretrain, recordings
    if isinstance(pretrain, str | Path) and Path(pretrain).is_file():
        encoder, metadata, whitener = load_pretrained(pretrain)
        pretrain = Pretrained(encoder, None, [], metadata, whitener)
    if not isinstance(pretrain, Pretrained):
        raise OptionError(
            f"pretrain must be one of {', '.join(PRETEXTS)}, discovery, the path of an encoder, or what evlib.pretrain "
            f"or evlib.discover returns; got {pretrain!r}"
        )
    if not isinstance(pretrain.encoder, FrameEncoder):
        raise OptionError(
            "fit needs the encoder of a frame network, as evlib.pretrain makes it; got a "
            f"{type(pretrain.encoder).__name__}"
        )
    rate, hint = pretrain.metadata.get("sampling_rate_hz") or np.nan, "pretrain on recordings like these"
    require_rate_of(recordings[0], rate, "the encoder", hint)
    channels = pretrain.metadata.get("channels") or numbered(pretrain.encoder.input_size)
    return pretrain, [r.like(channels, pretrain.metadata.get("units"), "the encoder") for r in recordings]
