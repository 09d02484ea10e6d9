"""Pretraining: what the encoder of the frame network can learn from recordings without labels.

Windows of some seconds of whitened signal train a pretext model (`evlib.networks.pretext`): an autoencoder, a
variational one, a contrastive or a masked model. Its encoder is what remains. One in five recordings is development
data, of fewer recordings held-out tenths are.
"""

from pathlib import Path

import torch

from ..networks.frames import FrameEncoder
from ..networks.pretext import PRETEXT_MODELS
from ..signals.errors import OptionError, ShapeError, UnitError
from ..training import loop
from ..training.checkpoints import latest_checkpoint, load_pretrained
from .prepare import ONE_IN
from .pretrain_windows import (
    LONGEST_WINDOW_S,
    PATIENCE_EPOCHS,
    Pretrained,
    check_resume,
    frame_samples,
    windows_to_learn,
)

PRETEXTS = tuple(PRETEXT_MODELS)
LEARNING_RATE, BATCH = 2e-3, 16
# Frames of a window (4 s at 2000 Hz): what lies around an event is to be learned too. At most these shares of a
# recording: of few recordings a held-out tenth must have room for some windows, of several the shortest one.
WINDOW_FRAMES, SHARE_OF_FEW, SHARE_OF_SEVERAL = 800, 1 / 30, 1 / 2
# A frame of the frame network is 5 ms, but at least so many samples: who samples slowly looks for slow events, and
# frames of single samples would see too little of them.
LEAST_FRAME_SAMPLES = 4


def network_resolution(rate):
    """Samples in a frame of the frame network.

    >>> network_resolution(100.0), network_resolution(2000.0)
    (4, 10)
    """
    return max(LEAST_FRAME_SAMPLES, frame_samples(rate))


def default_window_s(recordings):
    """Seconds in a window for recordings of one rate."""
    rate, durations = recordings[0].sampling_rate_hz, [recording.duration_s for recording in recordings]
    room = SHARE_OF_FEW * max(durations) if len(recordings) < ONE_IN else SHARE_OF_SEVERAL * min(durations)
    return min(WINDOW_FRAMES * network_resolution(rate) / rate, room, LONGEST_WINDOW_S)


def pretrain(
    recordings,
    pretext="contrastive",
    *,
    whitened=None,
    seed=0,
    hidden_size=48,
    window_s=None,
    n_windows=2048,
    max_epochs=20,
    progress=True,
    log_dir=None,
    save_dir=None,
    resume=False,
) -> Pretrained:
    """Pretrain the encoder of a frame network on recordings without labels.

    Parameters
    ----------
    recordings : list of Recording with one rate and the same channels
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
    save_dir : checkpoints of each epoch; default: none are kept
    resume : go on from the latest checkpoint in ``save_dir``

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
    check_resume(resume, save_dir)
    window_s = default_window_s if window_s is None else window_s
    windows = windows_to_learn(
        recordings, pretext, PRETEXTS, whitened, seed, hidden_size, window_s, n_windows, max_epochs
    )
    train, development = windows.train, windows.development
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = PRETEXT_MODELS[pretext](train.shape[2], hidden_size, network_resolution(windows.rate))
    optimizer = torch.optim.AdamW(model.parameters(), LEARNING_RATE)
    batch = min(BATCH, len(train))
    loaders = [
        torch.utils.data.DataLoader(torch.from_numpy(windows), batch, shuffle=shuffle, drop_last=shuffle)
        for windows, shuffle in ((train, True), (development, False))
    ]
    history = loop.train(
        model,
        lambda model, batch: model.losses(batch),
        *loaders,
        optimizer,
        num_epochs=max_epochs,
        patience=PATIENCE_EPOCHS,
        save_dir=save_dir,
        save_freq=1,
        resume_from=latest_checkpoint(save_dir) if resume else None,
        log_dir=log_dir,
        progress=progress,
        seed=seed,
    )
    return Pretrained(model.encoder, model, history, windows.metadata(pretext, seed, history), windows.whitener)


def check_encoder(pretrain, recordings):
    """What ``fit(pretrain=...)`` names: a pretext, or an encoder as Pretrained, checked against the recordings."""
    if isinstance(pretrain, str) and pretrain in PRETEXTS:
        return pretrain
    if isinstance(pretrain, str | Path):
        encoder, metadata, whitener = load_pretrained(pretrain)
        pretrain = Pretrained(encoder, None, [], metadata, whitener)
    if isinstance(pretrain, Pretrained) and not isinstance(pretrain.encoder, FrameEncoder):
        raise OptionError(
            "fit needs the encoder of a frame network, as evlib.pretrain makes it; got a "
            f"{type(pretrain.encoder).__name__}"
        )
    if not isinstance(pretrain, Pretrained):
        raise OptionError(
            f"pretrain must be one of {', '.join(PRETEXTS)}, discovery, a path, or what evlib.pretrain or "
            "evlib.discover "
            f"returns; got a {type(pretrain).__name__}"
        )
    rate, here = pretrain.metadata.get("sampling_rate_hz"), recordings[0].sampling_rate_hz
    if rate != here:
        raise UnitError(
            f"the encoder was pretrained at {rate} Hz, the recordings have {here:g} Hz; "
            "resample the recordings, or pretrain on recordings like these"
        )
    n_channels = pretrain.encoder.input_size
    if n_channels != recordings[0].n_channels:
        raise ShapeError(f"the encoder reads {n_channels} channels, the recordings have {recordings[0].n_channels}")
    return pretrain


def encoder_for(wanted, signals, recordings, seed, hidden_size, progress):
    """The encoder that ``fit(pretrain=...)`` names, and its metadata: trained now, or checked against the
    recordings."""
    found = check_encoder(wanted, recordings)
    if isinstance(found, str):
        found = pretrain(recordings, found, whitened=signals, seed=seed, hidden_size=hidden_size, progress=progress)
    return found.encoder, found.metadata
