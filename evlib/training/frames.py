"""Training the frame network on labelled events as they were recorded.

Crops of whitened recordings of some seconds, half of them around a label (all types alike often), half anywhere. What
is known of a frame and a type has a weight: in completely labelled spans everything; outside of them a labelled event,
that no other of its type begins within the refractory period, and that no other type begins in the very same moment.
The rest is unlabelled: that nothing happens there is only likely. Targets are bumps, wide at first; while training goes
on, the bumps of each type shrink to what its labels scatter about the network's peaks. Crops are played faster or
slower, their channels are mixed and left out, and two crops are laid over each other: the sum has the events of both.
"""

from dataclasses import dataclass, field

import numpy as np
import torch
from torch.nn import functional as F

from ..networks.classifier import evaluating
from ..networks.encoders import parameter_groups, transfer_encoder
from ..networks.frames import FrameNetwork
from ..signals.clock import nearest
from ..signals.streams import stream
from .loop import train

# A crop holds about so many labelled events, but frames within these bounds (2.5 and 10 s at 200 frames a second):
# short crops allow more steps in the same time, which dense labels are worth; rare events need their surroundings.
CROP_EVENTS, CROP_FRAMES, BATCH = 4, (512, 2048), 8
# An epoch goes through so many frames in each place of the batch: the shorter the crops, the more steps.
EPOCHS, EPOCH_FRAMES = 28, 40_960
LEARNING_RATE, WEIGHT_DECAY = 4e-3, 1e-2
# A pretrained encoder learns more slowly than what stands on it.
ENCODER_LR_FACTOR = 0.3
# Standard deviation of the bump around a label: frames at least; at first so many times the scatter of labels that
# templates see, and a share of the refractory period and a time at most.
NARROWEST_FRAMES, JITTERS, WIDEST_SHARE, WIDEST_S = 1.5, 4.0, 0.05, 0.1
# From this share of the epochs on it shrinks, to so many times the scatter of the labels, by so much an epoch at most.
SHRINK_FROM, SCATTERS, SHRINK_BY = 0.1, 2.0, 0.6
# Labels whose peak has at least this log odds tell of scatter; fewer than so many of a type do not.
SURE_LOGIT, TELLING = 0.0, 5
# One frame in hundreds begins an event: those weigh more.
POSITIVE_WEIGHT = 5.0
# The offset counts where the bump is at least so high, and its loss so much; it goes so many widths of the bump far.
OFFSET_WITHIN, OFFSET_WEIGHT, FARTHEST_OFFSET = 0.1, 0.1, 3.0
# How much it counts that nothing is known to begin in a frame without labels, and where a teacher has looked.
UNLABELLED, LOOKED_THROUGH = 0.1, 0.5
# Share of crops around a label, of crops that are played at another speed (and the spread of its logarithm), of sums of
# two.
SHARE_AROUND_LABELS, SHARE_WARPED, WARP, SHARE_HYBRID = 0.5, 0.5, 0.1, 0.1
# Loudness of a second crop to the first, in log amplitude.
HYBRID_LOG_GAIN = (-0.7, 0.7)
# Share of crops that are spliced from stretches of two crops and of noise: what happened before tells nothing then of
# what comes. Frames in a stretch, logarithm of the noise (whitened noise has 1), and frames around a splice, where an
# event may be cut off, that are not learned from.
SHARE_SPLICED, STRETCH_FRAMES, LOG_NOISE, SPLICE_FRAMES = 0.1, (32, 512), (-3.0, 0.0), 10
# Spread of the logarithm of channel gains, of the parts that channels take from each other, and how often one is
# silent.
CHANNEL_GAIN, CHANNEL_MIX, CHANNEL_DROPOUT = 0.3, 0.2, 0.1


@dataclass(frozen=True, eq=False)
class FrameLabels:
    """What is known of one whitened recording.

    ``signal`` (n, C); events by ``time`` (samples, sorted) and ``type``; ``spans`` (k, 2) labelled completely,
    ``hidden`` (m, 2) that must not be learned from, in samples; ``apart`` (E,) samples: no two events of a type begin
    closer; ``elsewhere``: how much it counts, of 1, that nothing is known to begin in a frame without labels.
    """

    signal: np.ndarray
    time: np.ndarray
    type: np.ndarray
    spans: np.ndarray
    apart: np.ndarray
    hidden: np.ndarray = field(default_factory=lambda: np.zeros((0, 2)))
    elsewhere: float = UNLABELLED


class FrameCrops(torch.utils.data.IterableDataset):
    """Batches of random crops, ``n_batches`` an epoch; they follow from the seed, the epoch and the widths of targets.

    ``sigma`` (E,) is the width of each type's bumps in frames; before each epoch ``shrink`` (epoch, sigma) gives the
    next one.
    """

    def __init__(self, parts, resolution, sigma, seed, augment=True, n_batches=None, shrink=None):
        self.parts, self.resolution, self.seed, self.augment, self.shrink = parts, resolution, seed, augment, shrink
        self.epoch, self.n_types = 0, len(parts[0].apart)
        self.sigma = np.broadcast_to(np.asarray(sigma, float), self.n_types)
        sizes = np.array([len(part.signal) for part in parts], float)
        self.share = sizes / sizes.sum()
        apart = sizes.sum() / resolution / max(sum(len(part.time) for part in parts), 1)
        frames = min(int(np.clip(CROP_EVENTS * apart, *CROP_FRAMES)), -(-int(sizes.max()) // resolution))
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
        signal, target, offset, weight = self._cut(rng)
        if not self.augment:
            return {"input": signal, "target": target, "offset": offset, "weight": weight}
        if rng.random() < SHARE_HYBRID:
            other = self._cut(rng)
            signal = signal + np.float32(np.exp(rng.uniform(*HYBRID_LOG_GAIN))) * other[0]
            offset = np.where(other[1] > target, other[2], offset)
            # Where either holds an event the sum does; that there is none takes both to be known.
            known = np.where(
                np.maximum(target, other[1]) > OFFSET_WITHIN, np.maximum(weight, other[3]), np.minimum(weight, other[3])
            )
            target, weight = np.maximum(target, other[1]), known
        if rng.random() < SHARE_SPLICED:
            signal, target, offset, weight = self._splice((signal, target, offset, weight), self._cut(rng), rng)
        n_channels = signal.shape[1]
        mix = np.diag(np.exp(CHANNEL_GAIN * rng.standard_normal(n_channels)))
        if n_channels > 1:
            mix += CHANNEL_MIX * rng.standard_normal(mix.shape) / np.sqrt(n_channels)
            if rng.random() < CHANNEL_DROPOUT:
                mix[:, rng.integers(n_channels)] = 0
        return {"input": signal @ mix.astype(np.float32), "target": target, "offset": offset, "weight": weight}

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
            part, start = self.parts[self.owner[row]], self.time[row] - rng.uniform(0.05, 0.95) * n * speed
        else:
            part = self.parts[rng.choice(len(self.parts), p=self.share)]
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
        # The nearest event of each type to each frame, in frames of the crop.
        distance = np.full((len(frame_place), self.n_types), np.inf)
        for k in np.unique(part.type):
            distance[:, k] = nearest(frame_place, part.time[part.type == k]) - frame_place
        samples = np.abs(distance)
        distance /= speed * self.resolution
        target = np.exp(-0.5 * np.minimum(np.abs(distance) / self.sigma, 10) ** 2).astype(np.float32)
        target[target < 1e-3] = 0
        # What a label says beyond itself: none of its type nearby, no other type in the same moment.
        certain = known | (samples < part.apart) | (target.max(1, keepdims=True) > 0.5)
        weight = np.where(certain, 1.0, part.elsewhere) * seen
        reach = FARTHEST_OFFSET * self.sigma
        return signal, target, np.clip(distance, -reach, reach).astype(np.float32), weight.astype(np.float32)


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
    """(E,) the widths that bumps begin with, in frames: no bump reaches the next event of its type."""
    narrowest = NARROWEST_FRAMES * resolution
    widest = np.clip(WIDEST_SHARE * apart_samples, narrowest, max(WIDEST_S * rate, narrowest))
    return np.clip(JITTERS * jitter_samples, narrowest, widest) / resolution


def scatter_frames(network, crops, sigma):
    """(E,) how far the network's peaks lie from labels in frames (standard deviation, robust); NaN where too few
    tell."""
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
    return np.array([values.median().item() / 0.6745 if len(values) >= TELLING else np.nan for values in errors])


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
    """Train a frame network; it keeps the weights of the last epoch.

    Parameters
    ----------
    parts, development : lists of FrameLabels; the second may be empty, its loss is only told
    resolution : samples in a frame
    rate : Hz
    jitter_samples : standard deviation of labels as templates see it
    encoder : a pretrained FrameEncoder to start from
    freeze : keep it as it is (a probe)

    Returns
    -------
    FrameNetwork (in eval mode), history, widths of the bumps at the end (E,) in frames
    """
    sigma = first_sigma(parts[0].apart, jitter_samples, resolution, rate)
    hidden_size = hidden_size if encoder is None else encoder.config["hidden_size"]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = FrameNetwork(parts[0].signal.shape[1], len(parts[0].apart), hidden_size, resolution)
    if encoder is None:
        groups = network.parameters()
    else:
        transfer_encoder(encoder, network)
        groups = parameter_groups(network, LEARNING_RATE, ENCODER_LR_FACTOR)
    optimizer = torch.optim.AdamW(groups, LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    peaks = [group["lr"] for group in optimizer.param_groups]
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, peaks, total_steps=max_epochs + 1)

    # Training labels are learned by heart after a while: those that are not trained on tell better how labels scatter.
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
    if encoder is not None and freeze:
        network.encoder.requires_grad_(False)
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
    return network.eval(), history, crops.sigma
