"""Augmentations that move a signal in time, and the times and labels of its events with it.

An event whose time leaves its sequence is dropped: label 0 and time NaN, as in any window cut beside an event. Where that
would be a guess, the label is NaN, which no loss counts (see `Batch.with_events_at`).
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from .augment import Augmentation, Compose, Gain, WhiteNoise, check_range, draw, take_steps, uniform
from .errors import OptionError
from .options import check_whole

FILLS = ("edge", "zero")


@dataclass(frozen=True)
class TimeShift(Augmentation):
    """Shift each sequence by a whole number of samples, to either side.

    Parameters
    ----------
    max_samples : the largest shift, shorter than the shortest sequence
    fill : vacated samples repeat the last value there is ("edge"), or are 0 ("zero")
    event_samples : how far an event shows beyond its time; one whose time leaves the window while it still shows gets
        the label NaN, as neither 0 nor 1 is true of that window

    Raises
    ------
    OptionError : an unknown fill, a shift as long as a sequence

    Examples
    --------
    >>> batch = {"input": torch.arange(5.0)[None, :, None], "event_labels": torch.ones(1, 1), "event_timings": torch.ones(1, 1)}
    >>> moved = TimeShift(3)(batch, torch.Generator().manual_seed(0))
    >>> moved["input"].flatten(), moved["event_timings"]
    (tensor([0., 0., 0., 0., 1.]), tensor([[4.]]))
    """

    max_samples: int = 10
    fill: str = "edge"
    event_samples: float = 0

    def __post_init__(self):
        check_whole(0, max_samples=self.max_samples)
        check_range("event_samples", self.event_samples)
        if self.fill not in FILLS:
            raise OptionError(f"fill must be one of {', '.join(FILLS)}, got {self.fill!r}")

    def apply(self, batch, generator):
        x, lengths = batch.x, batch.lengths
        if self.max_samples >= lengths.min():
            raise OptionError(
                f"a shift of up to max_samples={self.max_samples} empties a sequence of {int(lengths.min())} samples "
                "(max_samples counts samples, not milliseconds)"
            )
        u = uniform((len(x),), x, generator, torch.float64)
        shift = (u * (2 * self.max_samples + 1)).long() - int(self.max_samples)
        source = torch.arange(x.shape[1], device=x.device) - shift[:, None]
        last = lengths[:, None] - 1
        moved = take_steps(x, source.clamp(min=0).minimum(last))
        if self.fill == "zero":
            moved = moved.masked_fill(((source < 0) | (source > last))[..., None], 0)
        timings = None if batch.timings is None else batch.timings + shift[:, None]
        return batch.with_signal(moved).with_events_at(timings, shift != 0, self.event_samples)


@dataclass(frozen=True)
class Crop(Augmentation):
    """Keep a random piece of each sequence, moved to its beginning; the rest is zero padding behind a shorter length.

    Parameters
    ----------
    keep : the part of the samples that is kept, in (0, 1]; a pair is drawn from for each sequence
    event_samples : as in `TimeShift`

    Examples
    --------
    >>> batch = {"input": torch.ones(1, 10, 1), "event_labels": torch.ones(1, 2), "event_timings": torch.tensor([[0.0, 7.0]])}
    >>> cropped = Crop(0.5)(batch, torch.Generator().manual_seed(0))
    >>> cropped["lengths"], cropped["event_labels"], cropped["event_timings"]
    (tensor([5]), tensor([[0., 1.]]), tensor([[nan, 2.]]))
    """

    keep: float | tuple = 0.9
    event_samples: float = 0

    def __post_init__(self):
        check_range("keep", self.keep, 1e-6, 1)
        check_range("event_samples", self.event_samples)

    def apply(self, batch, generator):
        x, lengths = batch.x, batch.lengths
        keep = draw(self.keep, (len(x),), x.double(), generator)
        kept = (keep * lengths).round().long().clamp(min=1)
        start = (uniform((len(x),), x, generator, torch.float64) * (lengths - kept + 1)).long()
        source = start[:, None] + torch.arange(x.shape[1], device=x.device)
        moved = take_steps(x, source.minimum(lengths[:, None] - 1))
        timings = None if batch.timings is None else batch.timings - start[:, None]
        cropped = batch._replace(lengths=kept).with_signal(moved)
        return cropped.with_events_at(timings, kept < lengths, self.event_samples)


@dataclass(frozen=True)
class TimeWarp(Augmentation):
    """Run through each sequence at a changing speed; both ends stay where they are, and no event is lost.

    The speed is a broken line through ``knots`` random speeds in [1 - stretch, 1 + stretch], scaled to end on time. It is
    positive, so time never runs backwards, and its integral is smooth with an inverse in closed form: the times
    of events move exactly as the signal does. Between samples the signal is a cubic (Catmull-Rom), which damps what
    lies above a quarter of the sampling rate.

    Parameters
    ----------
    stretch : in [0, 1)
    knots : speeds in a sequence, its ends included

    Examples
    --------
    >>> batch = {"input": torch.zeros(1, 200, 1), "event_labels": torch.ones(1, 1), "event_timings": torch.full((1, 1), 80.0)}
    >>> TimeWarp(0.2)(batch, torch.Generator().manual_seed(0))["event_timings"]
    tensor([[78.84...]])
    """

    stretch: float = 0.1
    knots: int = 5

    def __post_init__(self):
        check_range("stretch", self.stretch, 0, 0.99)
        check_whole(2, knots=self.knots)

    def apply(self, batch, generator):
        x, lengths = batch.x, batch.lengths
        u = uniform((len(x), int(self.knots)), x, generator, torch.float64)
        warp = WarpMap(1 + self.stretch * (2 * u - 1), lengths - 1)
        steps = torch.arange(x.shape[1], device=x.device, dtype=torch.float64).expand(len(x), -1)
        warped = batch.with_signal(interpolate(x, warp.source(steps), lengths))
        timings = None if batch.timings is None else warp.target(batch.timings.double()).to(batch.timings.dtype)
        return warped.with_events_at(timings, torch.zeros_like(lengths, dtype=torch.bool))


@dataclass(frozen=True)
class Resample(Augmentation):
    """Run through each sequence faster or slower: at ``factor`` times the speed; behind the end the last value is repeated.

    >>> batch = {"input": torch.arange(5.0)[None, :, None], "event_labels": torch.ones(1, 1), "event_timings": torch.ones(1, 1)}
    >>> slow = Resample(0.5)(batch, torch.Generator().manual_seed(0))
    >>> slow["input"].flatten(), slow["event_timings"]
    (tensor([0.0000, 0.4375, 1.0000, 1.5000, 2.0000]), tensor([[2.]]))
    """

    factor: float | tuple = (0.95, 1.05)
    event_samples: float = 0

    def __post_init__(self):
        check_range("factor", self.factor, 0.1, 10)
        check_range("event_samples", self.event_samples)

    def apply(self, batch, generator):
        x, lengths = batch.x, batch.lengths
        factor = draw(self.factor, (len(x), 1), x.double(), generator)
        position = factor * torch.arange(x.shape[1], device=x.device)
        moved = batch.with_signal(interpolate(x, position.minimum(lengths[:, None] - 1.0), lengths))
        timings = None if batch.timings is None else (batch.timings / factor).to(batch.timings.dtype)
        return moved.with_events_at(timings, factor[:, 0] > 1, self.event_samples)


class WarpMap:
    """Monotone maps of [0, span] onto itself, whose derivatives run through ``speeds`` (batch, knots) in equal steps.

    In the piece behind knot k the map is a parabola: where it is after d samples, reached_k + v_k d + (v_k+1 - v_k) d² / 2h.
    """

    def __init__(self, speeds, span):
        self.span = span[:, None].double()
        middle = (speeds[:, 1:] + speeds[:, :-1]) / 2
        scale = 1 / middle.mean(1, keepdim=True)
        self.step = (self.span / middle.shape[1]).clamp(min=1e-9)  # a sequence of one sample has no span
        self.speeds = speeds * scale
        self.slopes = self.speeds.diff(dim=1) / self.step
        self.reached = F.pad((middle * scale).cumsum(1) * self.step, (1, 0))

    def source(self, target):
        """(batch, n): the time in the old signal that comes to stand at ``target`` in the new one."""
        inside = target.clamp(min=0).minimum(self.span)
        k = (inside / self.step).long().clamp(max=self.slopes.shape[1] - 1)
        distance = inside - k * self.step
        return self.reached.gather(1, k) + distance * (self.speeds.gather(1, k) + self.slopes.gather(1, k) * distance / 2)

    def target(self, source):
        """(batch, n): where the time ``source`` of the old signal goes; NaN stays NaN, times beyond the ends stay."""
        inside = source.clamp(min=0).minimum(self.span)
        k = (torch.searchsorted(self.reached, inside.contiguous(), right=True) - 1).clamp(0, self.slopes.shape[1] - 1)
        rest, speed = inside - self.reached.gather(1, k), self.speeds.gather(1, k)
        # The root of the parabola, in the form that is stable for slopes near 0.
        root = (speed.square() + 2 * self.slopes.gather(1, k) * rest).clamp(min=0).sqrt()
        return k * self.step + 2 * rest / (speed + root) + (source - inside)


def interpolate(x, position, lengths):
    """(batch, n, channels): the signals between their samples, at ``position`` (batch, n) in [0, length - 1]."""
    size, time, channels = x.shape
    before = position.floor()
    f = (position - before).to(x.dtype)
    steps = before.long()[..., None] + torch.arange(-1, 3, device=x.device)
    steps = steps.clamp(min=0).minimum(lengths[:, None, None] - 1)
    rows = steps + time * torch.arange(size, device=x.device)[:, None, None]
    square, cube = f * f, f * f * f
    weights = torch.stack(
        [square - (cube + f) / 2, 1.5 * cube - 2.5 * square + 1, 2 * square - 1.5 * cube + f / 2, (cube - square) / 2], -1
    )
    # A weighted sum of four rows in one pass over memory.
    mixed = F.embedding_bag(rows.view(-1, 4), x.reshape(-1, channels), per_sample_weights=weights.view(-1, 4), mode="sum")
    return mixed.view(size, -1, channels)


class TemporalAugmentation:
    """Views of unlabelled sequences for contrastive pretraining, under the names of the original.

    Each takes one sequence (time, channels) or a batch of them, tensor or array, and returns the same kind. Without a
    ``generator`` the draws differ from call to call; the global generator is never used.

    >>> view = TemporalAugmentation.random_augment(np.zeros((200, 6)), torch.Generator().manual_seed(0))
    >>> view.shape
    (200, 6)
    """

    @staticmethod
    def add_noise(x, noise_std=0.01, generator=None):
        """Add white noise."""
        return _augment(WhiteNoise(noise_std), x, generator)

    @staticmethod
    def scale(x, scale_range=(0.8, 1.2), generator=None):
        """Multiply all channels by one random factor."""
        return _augment(Gain(tuple(scale_range)), x, generator)

    @staticmethod
    def temporal_crop(x, crop_ratio=0.9, generator=None):
        """A random piece, zeros behind it."""
        return _augment(Crop(crop_ratio), x, generator)

    @staticmethod
    def temporal_shift(x, max_shift=10, generator=None):
        """Shift by up to ``max_shift`` samples to either side, zeros in the vacated ones."""
        return _augment(TimeShift(max_shift, fill="zero"), x, generator)

    @staticmethod
    def random_augment(x, generator=None):
        """One or two of noise 0.01, scale 0.9 to 1.1, crop 0.95 and shift 5, in random order."""
        generator = _generator(generator)
        kinds = (WhiteNoise(0.01), Gain((0.9, 1.1)), Crop(0.95), TimeShift(5, fill="zero"))
        draws = torch.rand(len(kinds) + 1, generator=generator, device=generator.device)
        chosen = draws[1:].argsort()[: 1 + int(draws[0] < 0.5)]
        return _augment(Compose([kinds[k] for k in chosen.tolist()]), x, generator)


def _generator(generator):
    if generator is None:
        generator = torch.Generator()
        generator.seed()
    return generator


def _augment(augmentation, x, generator):
    """Call an augmentation with tensors or arrays."""
    if torch.is_tensor(x):
        return augmentation(x, _generator(generator))
    return augmentation(torch.tensor(np.asarray(x)), _generator(generator)).numpy()
