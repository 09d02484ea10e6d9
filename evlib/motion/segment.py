"""Segmentation: which activity from when to when in a continuous session.

Overlapping patches of a pretrained encoder are frames, a few in a second. Convolutions over frames read some seconds
around each; what comes out is decoded into segments, none of them shorter than its activity lasts.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..networks.classifier import evaluating
from ..networks.seeds import seeded
from ..networks.transformer import DualBranchEncoder, join_batches, patch_samples
from ..signals.errors import DataError, OptionError, require, require_int
from ..signals.events import Events
from ..signals.gaps import bridge, long_runs, runs
from ..signals.recording import Recording, as_list, check_alike, cut
from ..training.checkpoints import save_checkpoint
from ..training.loop import train_one_cycle
from ..training.windows import Windows
from .sessions import Session
from .train import OVERLAP, MotionModel, read_motion_model
from .units import standard_session
from .windows import cut_sessions

# Frames that are read together: 11 seconds where a patch has 1.28.
FRAMES = 32
# Contexts that are read at a time, which bounds memory.
CONTEXTS_AT_ONCE = 64
# Width of the convolutions over frames, and the distance of what each of them reads: in all 15 frames.
WIDTH, DILATIONS = 64, (1, 2, 4)
# Epochs, contexts in a batch and highest learning rate.
EPOCHS, BATCH, LR = 20, 16, 1e-3
# A segment lasts at least this share of the shortest one that was labelled for its activity.
SHORTEST = 0.5
# Frames without a label, which the loss leaves out.
UNLABELLED = -1


class SegmentationNetwork(nn.Module):
    """A `DualBranchEncoder` with convolutions over its patches.

    Parameters
    ----------
    n_channels, n_kinds : channels, and kinds of activity that a frame may show
    encoder : options of `DualBranchEncoder`

    Examples
    --------
    >>> from evlib.networks.transformer import make_batch
    >>> network = SegmentationNetwork(6, 3, d_model=16, num_heads=2, num_layers=1, text_size=8)
    >>> network(make_batch(torch.zeros(2, 100, 6), 50.0, 0.5, torch.zeros(6, 8))).shape
    torch.Size([2, 4, 3])
    """

    def __init__(self, n_channels: int, n_kinds: int, **encoder):
        super().__init__()
        require_int(1, n_channels=n_channels, n_kinds=n_kinds)
        self.encoder = DualBranchEncoder(**encoder)
        self.config = self.encoder.config | {"n_channels": int(n_channels), "n_kinds": int(n_kinds)}
        self.narrow = nn.Linear(n_channels * self.encoder.output_size, WIDTH)
        self.around = nn.ModuleList(nn.Conv1d(WIDTH, WIDTH, 3, padding=step, dilation=step) for step in DILATIONS)
        self.head = nn.Linear(WIDTH, n_kinds)

    def forward(self, batch: dict) -> Tensor:
        """A batch of `evlib.networks.transformer.make_batch` -> logits (batch, patches, kinds)."""
        x = self.narrow(self.encoder(batch).flatten(2)).transpose(1, 2)
        for convolution in self.around:
            x = x + convolution(F.gelu(x))
        return self.head(F.gelu(x).transpose(1, 2))


@dataclass(frozen=True, eq=False)
class Segmenter:
    """Finds activities in sessions; made by `fit_segmenter`.

    Attributes
    ----------
    model : network, patches and text encoder
    labels : names of the activities; a further kind of the network, if it has one, is none of them
    channels, units : of the sessions it has learned from
    least_s : (labels,) seconds that an activity lasts at least
    """

    model: MotionModel
    labels: tuple
    channels: tuple
    units: tuple
    least_s: tuple

    def __post_init__(self):
        config = self.model.model.config
        fits = len(self.channels) == len(self.units) == config["n_channels"]
        fits &= len(self.labels) == len(self.least_s) and config["n_kinds"] - len(self.labels) in (0, 1)
        fits = fits and np.isfinite(self.least_s).all() and min(self.least_s) >= 0
        require(fits, DataError, f"names and durations do not fit a network with {config}: {self.labels}")

    def probabilities(self, recording: Recording) -> list[tuple[np.ndarray, np.ndarray]]:
        """For each part between gaps the times of its frames (n,), in seconds, and the probability of each kind
        (n, kinds)."""
        return [(part.times_s, probability) for part, probability in self._read(self._standard(recording))]

    def segment(self, recording: Recording) -> Events:
        """Activities with onset, duration and the mean probability as score; none where samples are missing.

        Raises
        ------
        ShapeError, UnitError : channels or units that are not those of the training
        """
        recording = self._standard(recording)
        rows = []
        for part, probability in self._read(recording):
            hop_s = part.hop / recording.sampling_rate_hz
            least = np.ones(probability.shape[1], dtype=int)
            least[: len(self.labels)] = np.maximum(1, np.floor(np.array(self.least_s) / hop_s))
            kind = decode_segments(np.log(np.maximum(probability, np.finfo(float).tiny)), least)
            edge = np.flatnonzero(np.diff(kind)) + 1
            start, stop = np.r_[0, edge], np.r_[edge, len(kind)]
            # A segment reaches half-way to the frames beside it, the first and the last one to the ends of the part.
            between = np.r_[part.start / recording.sampling_rate_hz, part.times_s[1:] - hop_s / 2]
            between = np.r_[between, part.stop / recording.sampling_rate_hz]
            for a, b in zip(start, stop, strict=True):
                if kind[a] < len(self.labels):
                    rows.append((between[a], between[b], kind[a], probability[a:b, kind[a]].mean()))
        onset, end, kind, score = np.array(rows, dtype=float).reshape(-1, 4).T
        rate = recording.sampling_rate_hz
        return Events.from_seconds(onset, kind.astype(int), rate, self.labels, score, duration_s=end - onset)

    def _standard(self, recording):
        """With the channels and units of the training."""
        what = "the segmenter"
        return standard_session(recording.like(self.channels, None, what)).like(self.channels, self.units, what)

    def _read(self, recording):
        """Each part between gaps and the probabilities of its frames (n, kinds)."""
        for part in _parts(recording, self.model.patch_s):
            total = np.zeros((part.n_frames, self.model.model.config["n_kinds"]))
            weight = np.zeros(part.n_frames)
            # What lies in the middle of a context is seen with all that is around it.
            inner = np.minimum(np.arange(FRAMES), np.arange(FRAMES)[::-1]) + 1.0
            for first, windows in part.contexts(recording):
                with evaluating(self.model.model):
                    logits = torch.cat([self.model.model(batch) for batch in self.model.patches(windows, OVERLAP)])
                frame = first[:, None] + np.arange(FRAMES)
                known = frame < part.n_frames
                share = np.broadcast_to(inner, frame.shape)[known]
                np.add.at(total, frame[known], share[:, None] * logits.softmax(-1).numpy()[known])
                np.add.at(weight, frame[known], share)
            yield part, total / weight[:, None]

    def save(self, path: str | Path):
        """Write the segmenter; `load_segmenter` reads it."""
        more: dict[str, Any] = {name: list(getattr(self, name)) for name in ("labels", "channels", "units", "least_s")}
        save_checkpoint(path, self.model.model, self.model.metadata, patch_s=self.model.patch_s, **more)


def load_segmenter(path: str | Path, text=None) -> Segmenter:
    """Read what `Segmenter.save` has written; ``text``: the text encoder, by default the one of training.

    Raises
    ------
    DataError : no such file, or one that does not hold a segmenter
    """
    model, content = read_motion_model(path, text, kinds=("SegmentationNetwork",), what="segmenter")
    try:
        model = replace(model, patch_s=float(content["patch_s"]))
        labels, channels, units = (tuple(map(str, content[name])) for name in ("labels", "channels", "units"))
        return Segmenter(model, labels, channels, units, tuple(map(float, content["least_s"])))
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path} holds no segmenter, as Segmenter.save writes it: {error}") from error


def fit_segmenter(
    start: MotionModel,
    recordings: Recording | Sequence[Recording],
    events: Events | Sequence[Events],
    *,
    least_s: float | None = None,
    seed: int = 0,
    progress: bool = False,
) -> Segmenter:
    """Learn which activity goes on when, from sessions with activities that have durations.

    Time that no activity covers shows none of them; time outside of ``events.labelled_spans`` is not learned from.

    Parameters
    ----------
    start : pretrained (`pretrain_motion`, `fit_motion`); its encoder is trained further, a copy of it
    recordings, events : one session or a list of them, with the same channels
    least_s : seconds that an activity lasts at least. Default: half of the shortest one that was labelled, for each
    seed : of the new weights and of batches
    progress : show a progress bar

    Raises
    ------
    DataError : events without durations, or that overlap: one activity at a time is told
    ShapeError, UnitError : sessions of different channels or units

    Examples
    --------
    >>> from evlib.motion.train import pretrain_motion
    >>> from evlib.motion.windows import join_windows, make_motion
    >>> windows = make_motion(n_people=2, windows_per_activity=4, activities=("walking", "lying"))
    >>> start = pretrain_motion([windows], [windows], patch_s=0.64, size="nano", max_epochs=1)
    >>> session, activities = join_windows(windows)
    >>> segmenter = fit_segmenter(start, session, activities)
    >>> segmenter.segment(session).type_names
    ['walking', 'lying', 'walking', 'lying']
    """
    sessions = check_alike(list(map(standard_session, as_list(recordings))))
    tables = [events] if isinstance(events, Events) else list(events)
    message = f"a table of events for each recording is wanted, got {len(tables)} for {len(sessions)}"
    require(len(tables) == len(sessions), OptionError, message)
    require(isinstance(start.patch_s, float | int), OptionError, "frames need patches of one length: patch_s a number")
    labels = tuple(dict.fromkeys(name for table in tables for name in table.type_names))
    require(labels, DataError, "no activity in any of the tables of events")
    tables = [_checked(table, labels) for table in tables]
    batches, targets = [], []
    for session, table in zip(sessions, tables, strict=True):
        for part in _parts(session, start.patch_s):
            known = np.r_[_kinds_at(table, part.times_s, len(labels)), np.full(FRAMES, UNLABELLED)]
            for first, windows in part.contexts(session):
                batches += list(start.patches(windows, OVERLAP))
                targets.append(known[first[:, None] + np.arange(FRAMES)])
    require(len(batches), DataError, f"no session is as long as a patch of {start.patch_s:g} s")
    batch: dict[str, Any] = join_batches(batches) | {"target": torch.from_numpy(np.concatenate(targets))}
    batch = {name: values[(batch["target"] >= 0).any(1)] for name, values in batch.items()}
    n_kinds = len(labels) + int((batch["target"] == len(labels)).any())
    with seeded(seed):
        network = SegmentationNetwork(sessions[0].n_channels, n_kinds, **start.encoder.config)
    network.encoder.load_state_dict(start.encoder.state_dict())

    def losses(network, batch):
        logits = network(batch).transpose(1, 2)
        return {"total_loss": F.cross_entropy(logits, batch["target"], ignore_index=UNLABELLED)}

    history = train_one_cycle(network, losses, batch, EPOCHS, BATCH, LR, seed, progress)
    shortest = [min(np.concatenate([one.duration_s[one.type == k] for one in tables])) for k in range(len(labels))]
    least = [SHORTEST * one if least_s is None else least_s for one in shortest]
    metadata = {"text_encoder": start.text.name, "seed": seed}
    model = replace(start, model=network.eval(), history=history, metadata=metadata)
    return Segmenter(model, labels, sessions[0].channels, sessions[0].units, tuple(map(float, least)))


def sliding_segments(
    score: Callable[[Windows], np.ndarray], session: Recording, labels, window_s: float, hop_s=0.32, least_s=0.0
) -> Events:
    """Activities of a classifier of windows that slides over a session without gaps, a rival of `Segmenter.segment`.

    Parameters
    ----------
    score : gives the (windows, labels) log probabilities of some windows, as `ActivityClassifier.scores`
    session, labels : recording; names in the order of the scores
    window_s, hop_s : seconds of a window, whose label counts around its middle, and from one to the next
    least_s : seconds that a segment lasts at least
    """
    log_p = score(cut_sessions("session", [Session("all", session)], window_s, hop_s))
    kind = decode_segments(log_p, np.full(log_p.shape[1], max(1, int(least_s / hop_s))))
    edge = np.flatnonzero(np.diff(kind)) + 1
    times = np.r_[0.0, window_s / 2 + (edge - 0.5) * hop_s, session.duration_s]
    rate, duration_s = session.sampling_rate_hz, np.diff(times)
    return Events.from_seconds(times[:-1], kind[np.r_[0, edge]], rate, tuple(labels), duration_s=duration_s)


def decode_segments(log_p: np.ndarray, least: np.ndarray) -> np.ndarray:
    """(n,) the most likely kind of each frame where no kind lasts less than its least number of frames.

    Parameters
    ----------
    log_p : (n, kinds) log probabilities
    least : (kinds,) integers above 0; no more than n counts

    Examples
    --------
    >>> log_p = np.log([[0.9, 0.1], [0.9, 0.1], [0.4, 0.6], [0.9, 0.1]])
    >>> decode_segments(log_p, np.array([1, 1])), decode_segments(log_p, np.array([1, 2]))
    (array([0, 0, 1, 0]), array([0, 0, 0, 0]))
    """
    n, kinds = log_p.shape
    least, own = np.minimum(least, n), np.arange(kinds)
    until = np.concatenate([np.zeros((1, kinds)), np.cumsum(log_p, axis=0)])
    # The best score of the first t frames whose last segment is of each kind, and of any kind; whether it is as short
    # as it may be.
    best, top, short = np.full((n + 1, kinds), -np.inf), np.full(n + 1, -np.inf), np.zeros((n + 1, kinds), dtype=bool)
    top[0] = 0.0
    for t in range(1, n + 1):
        begin = t - least
        before = np.where(begin >= 0, top[np.maximum(begin, 0)], -np.inf)
        fresh, longer = before + until[t] - until[np.maximum(begin, 0), own], best[t - 1] + log_p[t - 1]
        short[t], best[t] = fresh > longer, np.maximum(fresh, longer)
        top[t] = best[t].max()
    kind = np.zeros(n, dtype=int)
    t, k = n, int(best[n].argmax())
    while t > 0:
        length = least[k] if short[t, k] else 1
        kind[t - length : t] = k
        ended, t = short[t, k], t - length
        k = int(best[t].argmax()) if ended else k
    return kind


@dataclass(frozen=True)
class _Part:
    """A part of a recording between gaps, in samples, and its frames."""

    start: int
    stop: int
    length: int  # of a patch
    hop: int
    rate: float
    gaps: np.ndarray = field(repr=False)

    @property
    def n_frames(self):
        return (self.stop - self.start - self.length) // self.hop + 1

    @property
    def times_s(self):
        """The middle of each frame."""
        return (self.start + np.arange(self.n_frames) * self.hop + self.length / 2) / self.rate

    def contexts(self, recording) -> Iterator[tuple[np.ndarray, Windows]]:
        """First frames of contexts that overlap by half, and their windows, some at a time."""
        last = max(self.n_frames - FRAMES, 0)
        first = np.unique(np.r_[np.arange(0, last + 1, FRAMES // 2), last])
        length = self.length + (FRAMES - 1) * self.hop
        for some in np.split(first, range(CONTEXTS_AT_ONCE, len(first), CONTEXTS_AT_ONCE)):
            at = self.start + some[0] * self.hop
            end = min(self.start + some[-1] * self.hop + length, self.stop)
            signal = bridge(recording.read(at, end), self.gaps[at:end], length)
            # A part that is shorter than a context goes on as it ends.
            signal = np.pad(signal, ((0, max(length - len(signal), 0)), (0, 0)), mode="edge")
            x = cut(signal, (some - some[0]) * self.hop, length)
            yield some, Windows(recording.name or "session", x, self.rate, recording.channels)


def _parts(recording, patch_s):
    """The parts between samples that are missing in all channels for the length of a patch."""
    gaps = np.concatenate([~np.isfinite(block) for _, block in recording.blocks()])
    rate = recording.sampling_rate_hz
    length = patch_samples(patch_s, rate)
    seen = ~long_runs(gaps.all(axis=1), length)
    hop = max(length // OVERLAP, 1)
    return [_Part(a, b, length, hop, rate, gaps) for a, b in zip(*runs(seen), strict=True) if b - a >= length]


def _checked(table, labels):
    """Events as kinds of ``labels``; refused if they do not last, or overlap."""
    message = "activities need durations above 0 (a column `duration`, in seconds)"
    require((table.duration_s > 0).all(), DataError, message)
    ends = table.onset_s + table.duration_s
    late = np.flatnonzero(table.onset_s[1:] < ends[:-1] - 1 / table.sampling_rate_hz)
    if len(late):
        one, other = table.type_names[late[0]], table.type_names[late[0] + 1]
        where = f"{other!r} at {table.onset_s[late[0] + 1]:g} s begins before {one!r} ends"
        raise DataError(f"activities must not overlap, as one at a time is told: {where}")
    kind = [labels.index(name) for name in table.type_names]
    return replace(table, type=np.array(kind, dtype=int), names=labels)


def _kinds_at(table, times_s, nothing):
    """The kind that goes on at some times, ``nothing`` where there is none, `UNLABELLED` where nobody looked."""
    if not len(table):
        kind = np.full(len(times_s), nothing)
    else:
        row = np.maximum(np.searchsorted(table.onset_s, times_s, side="right") - 1, 0)
        goes_on = (times_s >= table.onset_s[row]) & (times_s < table.onset_s[row] + table.duration_s[row])
        kind = np.where(goes_on, table.type[row], nothing)
    looked = table.is_labelled(np.round(times_s * table.sampling_rate_hz).astype(np.int64))
    return np.where(looked, kind, UNLABELLED)
