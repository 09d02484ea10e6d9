"""Pretraining on short windows: what the encoders of the original models can learn from single events without labels.

The frame network has an encoder of its own, see `evlib.detection.pretrain`. Here windows of whitened signal, most of
them around a peak of its energy and the rest anywhere (noise alone teaches little), train an autoencoder, a variational
autoencoder, a contrastive or a masked model; its encoder is what remains. One in five recordings is development data;
of fewer recordings, every window that touches held-out tenths is.
"""

import functools
import hashlib
from dataclasses import dataclass

import numpy as np
import torch

from ..networks.losses import AutoencoderLoss, VariationalAutoencoderLoss, nt_xent
from ..networks.pretext import ContrastiveLSTM, LSTMAutoencoder, MaskedPatchModel, VariationalLSTMAutoencoder
from ..networks.threads import few_threads
from ..networks.transformer import HashedWords, PatchFrameEncoder, frame_channels
from ..signals.clock import duration_to_samples
from ..signals.errors import DataError, OptionError, require_int, require_seconds
from ..signals.recording import as_list, check_alike, cut
from ..templates.discover import energy_peaks
from ..templates.whiten import Whitener, estimate_whitener
from ..training import loop
from ..training.augment import ChannelDropout, Compose, Gain, TimeShift, WhiteNoise
from ..training.checkpoints import latest_checkpoint, save_encoder
from ..training.data import ContrastiveDataset, UnsupervisedDataset, collate_fn_contrastive, collate_fn_unsupervised
from ..training.masked import MaskedPretextLoss, fit_patches, masked_losses
from ..training.windows import MotionWindows
from .prepare import held_out_parts

PRETEXTS = {
    "autoencoder": LSTMAutoencoder,
    "variational": VariationalLSTMAutoencoder,
    "contrastive": ContrastiveLSTM,
    "masked": MaskedPatchModel,
}
LEARNING_RATE, MASKED_LEARNING_RATE = 5e-3, 6e-3
PATIENCE_EPOCHS = 5
# Standard deviations of the noise that masked windows are shown under; that of a recording is 1, and clearer ones teach
# sooner.
MASKED_NOISE = (0.3, 1.0)
# Of the transformer: attention over every frame and channel takes a CPU long enough in one.
MASKED_BLOCKS = 1
BATCH = 64
# A frame of the encoder; finer times come out of its states.
FRAME_S = 0.005
# Longer windows hold many events: what an encoder learns of them is no longer about one.
LONGEST_WINDOW_S = 10.0
# Two views of one window: what a sensor may do to an event without making it another.
VIEWS = Compose([Gain((0.7, 1.4)), TimeShift(4), ChannelDropout(0.1), WhiteNoise(0.5)])
# Views that share their noise are matched by it, event or not: only so many principal components of a window are
# shared.
SHARED_COMPONENTS = 32
# So many windows lie around a peak of energy, which is so far from their middle at most, in parts of a window.
SHARE_AT_PEAKS = 0.8
OFF_CENTRE = 0.1


@dataclass(frozen=True, eq=False)
class Pretrained:
    """An encoder that has seen recordings, and where it comes from.

    ``encoder`` a FrameEncoder (of windows an LSTMEncoder, or of masked ones a PatchFrameEncoder); ``model`` the whole
    pretext model; ``history`` the losses of each epoch; ``metadata`` rate, channels, units, pretext, seed and data
    hash; ``whitener`` what it has heard them through, where known. :meth:`save` keeps encoder, metadata and whitener.
    """

    encoder: torch.nn.Module
    model: torch.nn.Module
    history: list
    metadata: dict
    whitener: Whitener = None

    def __repr__(self):
        size = self.encoder.config["hidden_size"]
        return f"Pretrained({self.metadata['pretext']}, hidden size {size}, {self.metadata['duration_s']:g} s, {len(self.history)} epochs)"

    def save(self, path):
        """Write encoder, metadata and whitener; :func:`evlib.load_encoder` reads the first two."""
        save_encoder(path, self.encoder, self.metadata, self.whitener)


def pretrain_windows(
    recordings,
    pretext="autoencoder",
    *,
    whitened=None,
    seed=0,
    hidden_size=64,
    window_s=0.06,
    n_windows=4096,
    max_epochs=20,
    progress=True,
    log_dir=None,
    save_dir=None,
    resume=False,
) -> Pretrained:
    """Pretrain an encoder on recordings without labels.

    Parameters
    ----------
    recordings : list of Recording with one rate and the same channels
    pretext : "autoencoder", "variational", "contrastive" or "masked" (a transformer over frames and channels)
    whitened : their signals, list of (n, C), where they are whitened already
    seed : of weights, windows and views
    hidden_size : units of the encoder in each direction
    window_s : length of a window; 0.06 s holds one event and little else
    n_windows : windows in an epoch, fewer when the recordings are short
    max_epochs : at most; five epochs without a better development loss end the training, but not that of a masked
        model, which learns nothing for long and then much
    progress : show a progress bar
    log_dir : TensorBoard's logs; default: beside the checkpoints, if those are kept
    save_dir : checkpoints of each epoch; default: none are kept
    resume : go on from the latest checkpoint in ``save_dir``

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
    check_resume(resume, save_dir)
    windows = windows_to_learn(
        recordings, pretext, PRETEXTS, whitened, seed, hidden_size, window_s, n_windows, max_epochs
    )
    options = {"save_dir": save_dir, "log_dir": log_dir, "progress": progress, "resume": resume}
    fit_pretext = fit_masked if pretext == "masked" else fit_windows
    with few_threads():
        encoder, model, history = fit_pretext(
            pretext, windows.train, windows.development, windows.rate, hidden_size, max_epochs, seed, **options
        )
    return Pretrained(encoder, model, history, windows.metadata(pretext, seed, history), windows.whitener)


@dataclass(frozen=True, eq=False)
class LearningWindows:
    """Checked recordings, the windows (N, time, C) that were cut of them, ``rate`` in Hz, and the ``whitener`` if it is
    new."""

    recordings: list
    rate: float
    window_s: float
    train: np.ndarray
    development: np.ndarray
    whitener: Whitener = None

    def metadata(self, pretext, seed, history):
        """Where an encoder comes from that learned from these windows."""
        first = self.recordings[0]
        return {
            "pretext": pretext,
            "sampling_rate_hz": self.rate,
            "channels": list(first.channels),
            "units": list(first.units),
            "window_s": float(self.window_s),
            "seed": int(seed),
            "duration_s": float(sum(recording.duration_s for recording in self.recordings)),
            "data_hash": hashlib.sha256(self.train.tobytes()).hexdigest()[:16],
            "epochs": len(history),
        }


def check_resume(resume, save_dir):
    """Refuse to go on with a run that kept nothing."""
    if resume and save_dir is None:
        raise OptionError("resume=True needs save_dir, the folder with the checkpoints of the run that was cut off")


def windows_to_learn(
    recordings, pretext, pretexts, whitened, seed, hidden_size, window_s, n_windows, max_epochs
) -> LearningWindows:
    """Check what every pretraining is asked for, whiten, and cut the windows; arguments as in `pretrain_windows`.

    ``window_s`` may be a function of the checked recordings that gives it.
    """
    recordings = as_list(recordings)
    check_alike(recordings)
    if pretext not in pretexts:
        raise OptionError(f"pretext must be one of {', '.join(pretexts)}, got {pretext!r}")
    require_int(0, seed=seed)
    require_int(1, hidden_size=hidden_size, max_epochs=max_epochs)
    require_int(8, n_windows=n_windows)
    window_s = window_s(recordings) if callable(window_s) else window_s
    require_seconds(LONGEST_WINDOW_S, window_s=window_s)
    signals, whitener = whitened, None
    if whitened is None:
        whitener = estimate_whitener(recordings)
        signals = [whitener(recording) for recording in recordings]
    rate = recordings[0].sampling_rate_hz
    window = max(8, duration_to_samples(window_s, rate))
    if min(map(len, signals)) <= window:
        raise DataError(
            f"a recording of {min(map(len, signals)) / rate:g} s is shorter than a window of {window_s:g} s"
        )
    train, development = cut_windows(signals, rate, window, n_windows, seed)
    if 0 in (len(train), len(development)):
        raise DataError(
            f"{sum(map(len, signals)) / rate:g} s of recordings give {len(train)} windows of {window_s:g} s to "
            "train on and "
            f"{len(development)} held-out ones; both are needed (more signal, more windows or shorter ones?)"
        )
    return LearningWindows(recordings, rate, window_s, train, development, whitener)


def fit_windows(
    pretext, train, development, rate, hidden_size, max_epochs, seed, *, save_dir, log_dir, progress, resume
):
    """Encoder, pretext model and history of an LSTM trained on windows (N, time, C)."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        # Noise is new in every window, there is nothing to learn by heart: dropout would only slow it down.
        model = PRETEXTS[pretext](
            train.shape[2], hidden_size, dropout=0.0, timing_resolution_samples=frame_samples(rate)
        )
    optimizer = torch.optim.Adam(model.parameters(), LEARNING_RATE)
    if pretext == "contrastive":
        losses, loss = loop.contrastive_losses, functools.partial(nt_xent, temperature=model.temperature)
        shared = shared_part(train, development)
        sets = [ContrastiveDataset(w, VIEWS, seed=seed, train=t) for w, t in zip(shared, (True, False), strict=True)]
        collate = collate_fn_contrastive
    else:
        steps = max_epochs * len(train) // BATCH
        loss = AutoencoderLoss() if pretext == "autoencoder" else VariationalAutoencoderLoss(warmup_steps=steps // 4)
        losses = loop.unsupervised_losses
        sets, collate = [UnsupervisedDataset(train), UnsupervisedDataset(development)], collate_fn_unsupervised
    loaders = [
        torch.utils.data.DataLoader(part, BATCH, shuffle=shuffle, collate_fn=collate, drop_last=len(part) > BATCH)
        for part, shuffle in zip(sets, (True, False), strict=True)
    ]
    history = loop.train(
        model,
        lambda model, batch: losses(model, loss, batch),
        *loaders,
        optimizer,
        num_epochs=max_epochs,
        loss_fn=loss,
        patience=PATIENCE_EPOCHS,
        save_dir=save_dir,
        save_freq=1,
        resume_from=latest_checkpoint(save_dir) if resume else None,
        log_dir=log_dir,
        progress=progress,
        seed=seed,
    )
    return model.encoder, model, history


def fit_masked(pretext, train, development, rate, hidden_size, max_epochs, seed, **options):
    """Encoder, pretext model and history of a transformer over frames and channels, trained on windows (N, time, C)."""
    n_channels, frame = train.shape[2], max(2, frame_samples(rate))
    with torch.random.fork_rng():  # its weights are those of the model in a moment
        encoder = PatchFrameEncoder(n_channels, hidden_size, MASKED_BLOCKS, dropout=0.0, resolution=frame)

    def build():
        return MaskedPatchModel(**encoder.patches.config)

    channels = frame_channels(n_channels)
    # What recurs is shown under fresh noise, and only it is to be told: noise can be neither told nor told apart.
    sets = [[MotionWindows("recordings", windows, rate, channels)] for windows in shared_part(train, development)]
    loss = MaskedPretextLoss(contrastive_weight=0.0, parts={"shape": 1.0})
    batches = {
        "mask_ratio": 0.5,
        "strength": "none",
        "patch_samples": frame,
        "normalise": False,
        "noise": MASKED_NOISE,
        "view": False,
    }
    schedule = {
        "lr": MASKED_LEARNING_RATE,
        "max_epochs": max_epochs,
        "seed": seed,
        "batch_size": BATCH,
    }
    model, history, _ = fit_patches(
        masked_losses, build, loss, *sets, frame / rate, HashedWords(), batches, {}, **schedule, **options
    )
    encoder.patches = model.encoder
    return encoder.eval(), model, history


def frame_samples(rate):
    """Samples in a frame of the encoder: 5 ms."""
    return max(1, round(FRAME_S * rate))


def cut_windows(signals, rate, window, n_windows, seed):
    """Training and development windows (N, window, C) of whitened signals: most around peaks of energy, some
    anywhere."""
    rng = np.random.default_rng([14, seed])
    owner, start, total = [], [], sum(map(len, signals))
    for k, signal in enumerate(signals):
        n = min(n_windows * len(signal) // total, max(8, 4 * len(signal) // window))
        peaks, n_near, reach = (
            energy_peaks(signal, 2 * window // 3),
            round(SHARE_AT_PEAKS * n),
            round(OFF_CENTRE * window),
        )
        middle = rng.choice(peaks, n_near) + rng.integers(-reach, reach + 1, n_near) if len(peaks) else peaks
        near = middle - window // 2
        at = np.r_[near, rng.integers(0, len(signal) - window, n - len(near))]
        start.append(np.clip(at, 0, len(signal) - window))
        owner.append(np.full(len(at), k))
    start, owner = np.concatenate(start), np.concatenate(owner)
    windows = np.empty((len(start), window, signals[0].shape[1]), np.float32)
    held, apart = np.zeros(len(start), bool), np.zeros(len(start), bool)
    for k, (signal, spans) in enumerate(zip(signals, held_out_parts(list(map(len, signals)), seed), strict=True)):
        mine = owner == k
        windows[mine] = cut(signal, start[mine], window)
        for low, high in spans:
            held[mine] |= (start[mine] >= low) & (start[mine] + window <= high)
            apart[mine] |= (start[mine] < high) & (start[mine] + window > low)
    return windows[~apart], windows[held]


def shared_part(train, development):
    """Windows (N, time, C) rebuilt from their first principal components: what recurs, and little of the noise."""
    from sklearn.decomposition import PCA

    flat = train.reshape(len(train), -1)
    pca = PCA(min(SHARED_COMPONENTS, *flat.shape), random_state=0).fit(flat)
    return [pca.inverse_transform(pca.transform(w.reshape(len(w), -1))).reshape(w.shape) for w in (train, development)]
