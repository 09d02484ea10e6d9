"""Training the frame network on labelled events as they were recorded.

The network learns from random crops of whitened recordings, some seconds long: half of them lie around a label (each
type equally often), half anywhere. Each frame and type has a weight. It is 1 where the truth is known: in completely
labelled spans; outside of them at a labelled event, within a refractory period of it (no other event of its type), and
at the same moment (no event of another type). It is small in unlabelled frames, where an event is only unlikely.
Targets are bumps; they begin wide, and those of each type shrink during training to the scatter of its labels about the
network's peaks. For augmentation crops are played faster or slower, channels are mixed and dropped, and two crops are
added: the sum has the events of both.
"""

from dataclasses import dataclass, field

import numpy as np
import torch
from torch.nn import functional as F

from ..networks.classifier import evaluating
from ..networks.encoders import parameter_groups, transfer_encoder
from ..networks.frames import FrameNetwork
from ..networks.seeds import seeded
from ..signals.clock import nearest
from ..signals.streams import stream
from .loop import train

# Labelled events in a crop, on average, and bounds of its length in frames (2.5 and 10 s at 200 frames a second), and
# crops in a batch. Where labels are dense, short crops allow more steps in the same time; rare events need context.
CROP_EVENTS, CROP_FRAMES, BATCH = 4, (512, 2048), 8
# A crop is at least this many times as long as the longest event: what is before and behind it is seen too.
CROP_LENGTHS = 2
# Number of epochs, and of frames in an epoch for each crop of a batch: the shorter the crops, the more steps.
EPOCHS, EPOCH_FRAMES = 28, 40_960
LEARNING_RATE, WEIGHT_DECAY = 4e-3, 1e-2
# Learning rate of a pretrained encoder, relative to that of the layers on top of it.
ENCODER_LR_FACTOR = 0.3
# Standard deviation of the bump around a label: its least value in frames; its first value in multiples of the scatter
# of the labels about the templates, at most a share of the refractory period and a number of seconds.
NARROWEST_FRAMES, JITTERS, WIDEST_SHARE, WIDEST_S = 1.5, 4.0, 0.05, 0.1
# It shrinks from this share of the epochs on, to this multiple of the scatter of the labels about the network's peaks,
# at most by this factor an epoch.
SHRINK_FROM, SCATTERS, SHRINK_BY = 0.1, 2.0, 0.6
# The scatter is estimated from peaks of at least this log odds, and from at least this number of labels of a type.
SURE_LOGIT, FEWEST_LABELS = 0.0, 5
# Weight of frames in which an event begins: only one frame in hundreds is one.
POSITIVE_WEIGHT = 5.0
# The offset is learned where the bump is at least this high, with this weight in the loss; it is clipped to this number
# of widths of the bump.
OFFSET_WITHIN, OFFSET_WEIGHT, FARTHEST_OFFSET = 0.1, 0.1, 3.0
# Weight of a frame without labels as one without an event; and where a teacher, too, found no event there.
UNLABELLED, LOOKED_THROUGH = 0.1, 0.5
# Share of crops around a label, of crops that are played at another speed and the largest logarithm of that speed, and
# of sums of two crops.
SHARE_AROUND_LABELS, SHARE_WARPED, WARP, SHARE_HYBRID = 0.5, 0.5, 0.1, 0.1
# Range of the logarithm of the gain of the second crop of a sum.
HYBRID_LOG_GAIN = (-0.7, 0.7)
# Share of crops that are spliced from stretches of two crops and of noise, so that the past does not predict what comes
# next. Range of the frames in a stretch, range of the logarithm of the noise (whitened noise has 1), and the number of
# frames around a splice with weight 0, as an event may be cut off there.
SHARE_SPLICED, STRETCH_FRAMES, LOG_NOISE, SPLICE_FRAMES = 0.1, (32, 512), (-3.0, 0.0), 10
# Standard deviation of the logarithm of channel gains and of the mixing of channels; probability that one is dropped.
CHANNEL_GAIN, CHANNEL_MIX, CHANNEL_DROPOUT = 0.3, 0.2, 0.1


@dataclass(frozen=True, eq=False)
class FrameLabels:
    """The labels of one whitened recording.

    ``signal`` (n, C); events by ``time`` (samples, sorted) and ``type``; ``spans`` (k, 2) that are labelled completely
    and ``hidden`` (m, 2) that are not learned from, in samples; ``apart`` (E,) the refractory period of each type in
    samples; ``elsewhere``: weight of frames without labels, of 1; ``length`` (n,) samples that each event lasts, 0 or
    NaN where that is not known: where any is, the network also learns where events end.
    """

    signal: np.ndarray
    time: np.ndarray
    type: np.ndarray
    spans: np.ndarray
    apart: np.ndarray
    hidden: np.ndarray = field(default_factory=lambda: np.zeros((0, 2)))
    elsewhere: float = UNLABELLED
    length: np.ndarray | None = None

    @property
    def lasts(self) -> np.ndarray:
        """(n,) samples that each event lasts, 0 where that is not known."""
        return np.zeros(len(self.time)) if self.length is None else np.nan_to_num(self.length)


class FrameCrops(torch.utils.data.IterableDataset):
    """Batches of random crops, ``n_batches`` an epoch, drawn from the seed and the epoch.

    Its columns are the types, and where events last, as many again: the end of an event is learned as an event of its
    own. ``sigma`` is the width of each column's bumps in frames; before each epoch ``shrink`` (epoch, sigma) gives the
    next one.
    """

    def __init__(self, parts, resolution, sigma, seed, augment=True, n_batches=None, shrink=None):
        self.parts, self.resolution, self.seed, self.augment, self.shrink = parts, resolution, seed, augment, shrink
        self.epoch, self.n_types = 0, len(parts[0].apart)
        self.sigma = np.broadcast_to(np.asarray(sigma, float), max(np.size(sigma), self.n_types))
        longest = longest_events(parts) if len(self.sigma) > self.n_types else ()
        self.moments, self.endless = zip(*(_moments(part, longest) for part in parts), strict=True)
        sizes = np.array([len(part.signal) for part in parts], float)
        self.share = sizes / sizes.sum()
        apart = sizes.sum() / resolution / max(sum(len(part.time) for part in parts), 1)
        wanted = max(CROP_EVENTS * apart, CROP_LENGTHS * max(longest, default=0) / resolution)
        frames = min(int(np.clip(wanted, *CROP_FRAMES)), -(-int(sizes.max()) // resolution))
        self.length, self.n_batches = frames * resolution, n_batches or max(EPOCH_FRAMES // frames, 1)
        self.owner = np.concatenate([np.full(len(part.time), k) for k, part in enumerate(parts)])
        self.time = np.concatenate([part.time for part in parts])
        type = np.concatenate([part.type for part in parts])
        self.chance = 1 / np.bincount(type, minlength=self.n_types)[type] if len(type) else np.zeros(0)
        self.chance = self.chance / max(self.chance.sum(), 1e-12)

    def __len__(self):
        return self.n_batches

    def set_epoch(self, epoch):
        self.epoch = epoch
        if self.shrink is not None:
            self.sigma = self.shrink(epoch, self.sigma)

    def __iter__(self):
        rng = stream("frame crops", self.seed, self.epoch)
        for _ in range(self.n_batches):
            crops = [self._crop(rng) for _ in range(BATCH)]
            yield {name: torch.from_numpy(np.stack([crop[name] for crop in crops])) for name in crops[0]}

    def _crop(self, rng):
        crop = self._cut(rng)
        if self.augment:
            if rng.random() < SHARE_HYBRID:
                crop = self._sum(crop, self._cut(rng), rng)
            if rng.random() < SHARE_SPLICED:
                crop = self._splice(crop, self._cut(rng), rng)
            n_channels = crop[0].shape[1]
            mix = np.diag(np.exp(CHANNEL_GAIN * rng.standard_normal(n_channels)))
            if n_channels > 1:
                mix += CHANNEL_MIX * rng.standard_normal(mix.shape) / np.sqrt(n_channels)
                if rng.random() < CHANNEL_DROPOUT:
                    mix[:, rng.integers(n_channels)] = 0
            crop = crop[0] @ mix.astype(np.float32), *crop[1:]
        return dict(zip(("input", "target", "offset", "weight"), crop, strict=True))

    def _sum(self, crop, other, rng):
        """Both crops at once, the second one louder or softer."""
        (signal, target, offset, weight), (added, target2, offset2, weight2) = crop, other
        highest = np.maximum(target, target2)
        # An event in either is one in the sum; that there is none is only known where it is known of both.
        weight = np.where(highest > OFFSET_WITHIN, np.maximum(weight, weight2), np.minimum(weight, weight2))
        signal = signal + np.float32(np.exp(rng.uniform(*HYBRID_LOG_GAIN))) * added
        return signal, highest, np.where(target2 > target, offset2, offset), weight

    def _splice(self, crop, other, rng):
        """Stretches of one crop, of another and of noise, one after the other in any order."""
        n, size = len(crop[1]), int(np.exp(rng.uniform(*np.log(STRETCH_FRAMES))))
        place = rng.integers(size) + np.arange(n)
        source = rng.integers(3, size=place[-1] // size + 1)[place // size][:, None]
        near = min(SPLICE_FRAMES, size // 4)
        cut = (place % size < near) | (place % size >= size - near)
        noise = np.exp(rng.uniform(*LOG_NOISE)) * rng.standard_normal(crop[0].shape)
        none = np.zeros_like(crop[1])
        kinds = np.repeat(source, self.resolution, 0), source, source, source
        parts = zip(kinds, crop, other, (noise, none, none, none + 1), strict=True)
        signal, target, offset, weight = (np.choose(kind, values).astype(np.float32) for kind, *values in parts)
        return signal, target, offset, weight * ~cut[:, None]

    def _cut(self, rng):
        """Signal (length, C), targets, offsets and weights (frames, E) of a random crop."""
        n, speed = self.length, 1.0
        if self.augment and rng.random() < SHARE_WARPED:
            speed = float(np.exp(rng.uniform(-WARP, WARP)))
        if len(self.time) and rng.random() < SHARE_AROUND_LABELS:
            row = rng.choice(len(self.time), p=self.chance)
            number, start = self.owner[row], self.time[row] - rng.uniform(0.05, 0.95) * n * speed
            part = self.parts[number]
        else:
            number = rng.choice(len(self.parts), p=self.share)
            part = self.parts[number]
            start = rng.uniform(-0.25 * n, max(len(part.signal) - 0.75 * n, 1))
        start = int(np.clip(start, -n // 2, max(len(part.signal) - n // 2, 0)))
        place = start + speed * np.arange(n)
        inside = (place >= 0) & (place <= len(part.signal) - 1)
        low = np.clip(place.astype(int), 0, len(part.signal) - 1)
        signal = part.signal[low]
        if speed != 1.0:
            share = (place - low)[:, None].astype(np.float32)
            signal = signal + share * (part.signal[np.minimum(low + 1, len(part.signal) - 1)] - signal)
        signal[~inside] = 0
        middle = (self.resolution - 1) / 2
        frame_place = place[:: self.resolution] + speed * middle
        known = within(frame_place, part.spans)[:, None]
        seen = ((frame_place >= 0) & (frame_place < len(part.signal)) & ~within(frame_place, part.hidden))[:, None]
        # The nearest beginning and end of an event of each type to each frame, in frames of the crop.
        distance = np.full((len(frame_place), len(self.sigma)), np.inf)
        for k, times in enumerate(self.moments[number]):
            if len(times):
                distance[:, k] = nearest(frame_place, times) - frame_place
        samples = np.abs(distance)
        distance /= speed * self.resolution
        target = np.exp(-0.5 * np.minimum(np.abs(distance) / self.sigma, 10) ** 2).astype(np.float32)
        target[target < 1e-3] = 0
        # A label also excludes others: none of its type within a refractory period, no other type at the same moment.
        certain = known | (samples < np.resize(part.apart, len(self.sigma)))
        begun = target[:, : self.n_types].max(1, keepdims=True) > 0.5
        certain[:, : self.n_types] |= begun
        weight = np.where(certain, 1.0, part.elsewhere) * seen
        for k, spans in enumerate(self.endless[number], self.n_types):
            weight[within(frame_place, spans), k] = 0
        reach = FARTHEST_OFFSET * self.sigma
        return signal, target, np.clip(distance, -reach, reach).astype(np.float32), weight.astype(np.float32)


def longest_events(parts) -> tuple:
    """Samples that the longest event of each type lasts, 0 where none is known to last; () if none of any type is."""
    lasts, type = (np.concatenate([getattr(part, name) for part in parts]) for name in ("lasts", "type"))
    longest = tuple(lasts[type == k].max(initial=0.0) for k in range(len(parts[0].apart)))
    return longest if any(longest) else ()


def _moments(part, longest):
    """The times of each column, and for each type the spans (m, 2) in which it may end unnoticed: behind events that
    last nobody knows how long."""
    own = [part.type == k for k in range(len(part.apart))]
    columns, endless = [part.time[rows] for rows in own], []
    for rows, most in zip(own, longest, strict=False):
        known = rows & (part.lasts > 0)
        columns.append(np.sort((part.time + part.lasts)[known]))
        unknown = part.time[rows & ~known][:, None] + [0.0, most]
        endless.append(unknown if most else np.array([[-np.inf, np.inf]]))
    return columns, endless


def within(place, spans):
    """(n,) booleans: which places lie in one of the spans (k, 2), which may overlap.

    >>> within(np.arange(5), np.array([[1, 3], [0, 2]]))
    array([ True,  True,  True, False, False])
    """
    begun, ended = (np.searchsorted(np.sort(edge), place, side="right") for edge in np.transpose(spans))
    return begun > ended


class FrameLoss(torch.nn.Module):
    """Weighted cross-entropy of every frame and type, and the error of the offset where an event begins nearby."""

    def forward(self, logits, offsets, target, offset, weight):
        positive = torch.tensor(POSITIVE_WEIGHT, device=logits.device)
        each = F.binary_cross_entropy_with_logits(logits, target, reduction="none", pos_weight=positive)
        event = (each * weight).sum() / weight.amax(-1).sum().clamp(min=1)
        near = (target > OFFSET_WITHIN) * weight
        time = (F.smooth_l1_loss(offsets, offset, reduction="none") * near).sum() / near.sum().clamp(min=1)
        return {"total_loss": event + OFFSET_WEIGHT * time, "event_loss": event, "time_loss": time}


def first_sigma(apart_samples, jitter_samples, resolution, rate):
    """(n,) the widths that bumps begin with, in frames: no bump reaches the next event of its column."""
    narrowest = NARROWEST_FRAMES * resolution
    widest = np.clip(WIDEST_SHARE * apart_samples, narrowest, max(WIDEST_S * rate, narrowest))
    return np.clip(JITTERS * jitter_samples, narrowest, widest) / resolution


def scatter_frames(network, crops, sigma):
    """(E,) robust standard deviation of the network's peaks about the labels, in frames; NaN for too few labels."""
    errors = [[] for _ in sigma]
    with evaluating(network):
        for batch in crops:
            logits, offsets = network(batch["input"])
            label = (batch["target"] > F.pad(batch["target"], (0, 0, 1, 0))[:, :-1]) & (batch["weight"] > 0)
            label &= batch["target"] >= F.pad(batch["target"], (0, 0, 0, 1))[:, 1:]
            for k, width in enumerate(sigma):
                reach = int(np.ceil(2 * width))
                row, frame = label[:, :, k].nonzero(as_tuple=True)
                near = (frame[:, None] + torch.arange(-reach, reach + 1)).clamp(0, logits.shape[1] - 1)
                around = logits[row[:, None], near, k]
                peak = near.gather(1, around.argmax(1, keepdim=True))[:, 0]
                time = peak + offsets[row, peak, k] - frame - batch["offset"][row, frame, k]
                errors[k].append(time[around.amax(1) > SURE_LOGIT])
    errors = [torch.cat(values).abs() for values in errors]
    return np.array([values.median().item() / 0.6745 if len(values) >= FEWEST_LABELS else np.nan for values in errors])


def train_frames(
    parts,
    development,
    resolution,
    rate,
    jitter_samples,
    *,
    hidden_size=48,
    encoder=None,
    freeze=False,
    seed=0,
    max_epochs=EPOCHS,
    progress=True,
):
    """Train a frame network; it ends with the weights of the last epoch.

    Parameters
    ----------
    parts, development : lists of FrameLabels; the second may be empty, its loss is only reported
    resolution : samples in a frame
    rate : Hz
    jitter_samples : standard deviation of the labels about the templates
    encoder : a pretrained FrameEncoder to start from
    freeze : do not train the encoder

    Returns
    -------
    FrameNetwork (in eval mode), with twice as many columns as types where labels last: beginnings, then ends; history;
    widths of the bumps of beginnings at last (E,) in frames
    """
    n_columns = len(parts[0].apart) * (2 if longest_events(parts) else 1)
    sigma = first_sigma(np.resize(parts[0].apart, n_columns), jitter_samples, resolution, rate)
    hidden_size = hidden_size if encoder is None else encoder.config["hidden_size"]
    with seeded(seed):
        network = FrameNetwork(parts[0].signal.shape[1], n_columns, hidden_size, resolution)
    if encoder is None:
        groups = network.parameters()
    else:
        transfer_encoder(encoder, network)
        network.encoder.requires_grad_(not freeze)
        groups = parameter_groups(network, LEARNING_RATE, ENCODER_LR_FACTOR)
    optimizer = torch.optim.AdamW(groups, LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    peaks = [group["lr"] for group in optimizer.param_groups]
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, peaks, total_steps=max_epochs + 1)

    # Training labels are memorised after a while: the scatter of the labels is measured on development labels.
    unseen = [part for part in development if len(part.time)]

    def shrink(epoch, sigma):
        if epoch < SHRINK_FROM * max_epochs:
            return sigma
        crops = FrameCrops(unseen or parts, resolution, sigma, seed, augment=False, n_batches=3)
        wanted = np.maximum(SCATTERS * scatter_frames(network, crops, sigma), NARROWEST_FRAMES)
        return np.where(np.isnan(wanted), sigma, np.clip(wanted, SHRINK_BY * sigma, sigma))

    crops = FrameCrops(parts, resolution, sigma, seed, shrink=shrink)
    crops_loader, development_loader = torch.utils.data.DataLoader(crops, batch_size=None), None
    if development:
        held_out = list(FrameCrops(development, resolution, sigma, seed, augment=False, n_batches=4))
        development_loader = torch.utils.data.DataLoader(held_out, batch_size=None)
    loss = FrameLoss()
    history = train(
        network,
        lambda network, batch: loss(*network(batch["input"]), batch["target"], batch["offset"], batch["weight"]),
        crops_loader,
        development_loader,
        optimizer,
        num_epochs=max_epochs,
        scheduler=schedule,
        keep_best=False,
        progress=progress,
        seed=seed,
    )
    network.encoder.requires_grad_(True)
    return network.eval(), history, crops.sigma[: len(parts[0].apart)]
