"""Augmentations that move the labels with the signal.

Each is a small frozen object, called with a batch and a ``torch.Generator``. A batch is what `collate_fn_supervised`
makes (``input`` (batch, time, channels), and where there are any ``lengths``, ``event_labels``, ``event_timings``;
other keys pass through), or only the tensor, or one sequence (time, channels). Every sequence gets draws of its own,
all of them at once. Padding stays zero and is never looked at; nothing is changed in place. A generator on the CPU
gives the same draws whatever the device.

First come the augmentations of values, then those that move a signal in time and the times of its events with it, then
the views of the original and the augmentation that is learned from recordings.
"""

import math
import numbers
from dataclasses import dataclass, field, fields
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from ..signals.clock import distance_to_nearest, duration_to_samples
from ..signals.errors import (
    DataError,
    OptionError,
    ShapeError,
    require,
    require_choice,
    require_instance,
    require_int,
    require_number,
)
from ..signals.recording import BLOCK_SAMPLES, Recording
from ..templates.whiten import estimate_whitener, on_grid


class Batch(NamedTuple):
    """A checked batch, as an augmentation's ``apply`` sees it: lengths are there, what is behind them is zero."""

    x: torch.Tensor
    lengths: torch.Tensor
    labels: torch.Tensor | None = None
    timings: torch.Tensor | None = None

    def with_signal(self, x):
        """The same batch with another signal, padding zero again."""
        time = x.shape[1]
        if bool((self.lengths < time).any()):
            x = x.masked_fill((torch.arange(time, device=x.device) >= self.lengths[:, None])[..., None], 0)
        return self._replace(x=x)

    def with_events_at(self, timings, lossy):
        """The same batch with events at new times; those outside of their sequence are dropped.

        A label says whether the *time* of an event lies in the window, so a dropped event has label 0, and time NaN.
        The label is NaN where the time was not known and samples were lost (``lossy`` (batch,) bool), perhaps those of
        the event.
        """
        if self.labels is None:
            return self
        gone = (timings < 0) | (timings >= self.lengths[:, None])
        unsure = timings.isnan() & lossy[:, None]
        present = self.labels == 1
        labels = self.labels.masked_fill(present & gone, 0).masked_fill(present & unsure, torch.nan)
        return self._replace(labels=labels, timings=timings.masked_fill(gone, torch.nan))

    def rows(self, chosen):
        """The batch of some of the sequences."""
        return Batch(*(None if field is None else field[chosen] for field in self))

    def with_rows(self, chosen, other):
        """The same batch with some of the sequences replaced."""
        return Batch(*(None if f is None else f.index_copy(0, chosen, g) for f, g in zip(self, other, strict=True)))


def setting(default, low=0.0, high=math.inf):
    """A field of an augmentation: a number in [low, high], or a pair (least, most) that is drawn from per sequence."""
    return field(default=default, metadata={"low": low, "high": high})


def count(default, least):
    """A field of an augmentation: a whole number of at least ``least``."""
    return field(default=default, metadata={"least": least})


class Augmentation:
    """What can be called with a batch and a generator; a subclass writes ``apply(batch, generator)`` for a `Batch`.

    A subclass is a frozen dataclass. Its fields made by `setting` and `count` are checked when it is made.

    Raises
    ------
    ShapeError : axes or lengths that do not fit
    DataError : not floats, NaN or infinity in front of the end of a sequence
    OptionError : a setting outside of its range or that the batch does not allow, no ``torch.Generator``
    """

    def __post_init__(self):
        for one in fields(self):
            value, bounds = getattr(self, one.name), one.metadata
            if "least" in bounds:
                require_int(bounds["least"], **{one.name: value})
            elif bounds:
                check_range(one.name, value, **bounds)

    def __call__(self, batch, generator):
        require_instance(torch.Generator, "make one by torch.Generator().manual_seed(0)", generator=generator)
        if torch.is_tensor(batch) and batch.ndim == 2:
            return self(batch[None], generator)[0]
        after = self.apply(_open(batch), generator)
        if not isinstance(batch, dict):
            return after.x
        events = {} if after.labels is None else {"event_labels": after.labels, "event_timings": after.timings}
        return {**batch, "input": after.x, "lengths": after.lengths, **events}

    def apply(self, batch, generator):
        raise NotImplementedError


def _open(batch):
    """Check what came in, once, and make a `Batch` of it."""
    batch = batch if isinstance(batch, dict) else {"input": batch}
    x = batch.get("input")
    message = f"the input must be a float32 or float64 tensor, got {getattr(x, 'dtype', type(x).__name__)}"
    require(torch.is_tensor(x) and x.dtype in (torch.float32, torch.float64), DataError, message)
    message = f"the input must have shape (batch, time, channels) without an empty axis, got {tuple(x.shape)}"
    require(x.ndim == 3 and 0 not in x.shape, ShapeError, message)
    size, time, _ = x.shape
    lengths = torch.as_tensor(batch.get("lengths", torch.full((size,), time)), device=x.device)
    whole = lengths.shape == (size,) and not lengths.is_floating_point()
    message = f"lengths must be {size} integers in 1..{time}, one for each sequence, got {lengths.tolist()}"
    require(whole and lengths.min() >= 1 and lengths.max() <= time, ShapeError, message)
    events = [batch.get("event_labels"), batch.get("event_timings")]
    message = "event_labels and event_timings come together (NaN where a time is not known)"
    require((events[0] is None) == (events[1] is None), ShapeError, message)
    for name, table in zip(("event_labels", "event_timings"), events, strict=True):
        if table is not None:
            floats = torch.is_tensor(table) and table.is_floating_point() and table.ndim == 2
            got = getattr(table, "shape", type(table).__name__)
            require(floats, ShapeError, f"{name} must be a float tensor (batch, events), got {got}")
            wanted = (size, events[0].shape[1])
            require(table.shape == wanted, ShapeError, f"{name} must have shape {wanted}, got {tuple(table.shape)}")
    opened = Batch(x, lengths.long(), *events).with_signal(x)
    # The sum is infinite or NaN if any value is, and ten times cheaper than to look at each.
    finite = opened.x.sum().isfinite() or opened.x.isfinite().all()
    message = "the input holds NaN or infinity: fill or cut out such samples first (evlib.validate shows where)"
    require(finite, DataError, message)
    return opened


def check_range(name, value, low=0.0, high=math.inf):
    """Refuse what is neither a finite number in [low, high] nor a pair (least, most) of them."""
    pair = value if isinstance(value, (tuple, list)) else (value, value)
    numeric = len(pair) == 2 and all(isinstance(v, numbers.Real) and math.isfinite(v) for v in pair)
    message = f"{name} must be a number in [{low:g}, {high:g}] or a pair (least, most) of them, got {value!r}"
    require(numeric and low <= pair[0] <= pair[1] <= high, OptionError, message)


def uniform(shape, x, generator, dtype=None):
    """Draws from [0, 1) on the device of ``x``."""
    dtype = dtype or x.dtype
    return torch.rand(shape, generator=generator, device=generator.device, dtype=dtype).to(x.device)


def normal(shape, x, generator):
    """Standard normal draws on the device of ``x``."""
    return torch.randn(shape, generator=generator, device=generator.device, dtype=x.dtype).to(x.device)


def draw(value, shape, x, generator):
    """``value`` itself, or uniform draws where it is a pair (least, most)."""
    if not isinstance(value, (tuple, list)):
        return x.new_full(shape, value)
    return value[0] + (value[1] - value[0]) * uniform(shape, x, generator)


def take_steps(x, index):
    """(batch, steps, channels): for every sequence the samples at ``index`` (batch, steps)."""
    size, time, channels = x.shape
    rows = index + time * torch.arange(size, device=x.device)[:, None]
    return x.reshape(-1, channels).index_select(0, rows.flatten()).view(size, -1, channels)


@dataclass(frozen=True)
class Compose(Augmentation):
    """One augmentation after the other, each on a random part of the sequences.

    Parameters
    ----------
    augmentations : in the order in which they are applied
    probabilities : that a sequence gets the augmentation, one number for all or one for each

    Raises
    ------
    OptionError : something else than augmentations, a probability outside [0, 1]

    Examples
    --------
    >>> augment = Compose([Gain(), WhiteNoise(0.05), ChannelDropout(0.1)], probabilities=[1.0, 0.8, 0.3])
    >>> augment(torch.zeros(4, 200, 6), torch.Generator().manual_seed(0)).shape
    torch.Size([4, 200, 6])
    """

    augmentations: tuple
    probabilities: float | tuple = 1.0

    def __post_init__(self):
        augmentations = tuple(self.augmentations)
        n, single = len(augmentations), isinstance(self.probabilities, numbers.Real)
        probabilities = (self.probabilities,) * n if single else tuple(self.probabilities)
        for one in augmentations:
            message = f"augmentations must be Augmentation objects, got {one!r} (a class without brackets?)"
            require(isinstance(one, Augmentation), OptionError, message)
        message = f"want one probability for each of {n} augmentations, got {len(probabilities)}"
        require(len(probabilities) == n, OptionError, message)
        require_number(0, 1, **{f"probabilities[{k}]": p for k, p in enumerate(probabilities)})
        vars(self).update(augmentations=augmentations, probabilities=probabilities)

    def apply(self, batch, generator):
        for augmentation, probability in zip(self.augmentations, self.probabilities, strict=True):
            if probability == 1:
                batch = augmentation.apply(batch, generator)
                continue
            chosen = (uniform(len(batch.x), batch.x, generator) < probability).nonzero().squeeze(1)
            if len(chosen):
                batch = batch.with_rows(chosen, augmentation.apply(batch.rows(chosen), generator))
        return batch


@dataclass(frozen=True)
class WhiteNoise(Augmentation):
    """Add white noise of standard deviation ``std``, in the signal's unit; a pair is drawn from for each sequence.

    >>> WhiteNoise(0.1)(torch.zeros(8, 500, 6), torch.Generator().manual_seed(0)).std()
    tensor(0.100...)
    """

    std: float | tuple = setting(0.01)

    def apply(self, batch, generator):
        x = batch.x
        return batch.with_signal(x + draw(self.std, (len(x), 1, 1), x, generator) * normal(x.shape, x, generator))


@dataclass(frozen=True)
class Gain(Augmentation):
    """Multiply by ``factor``, drawn for each sequence, or for each of its channels.

    >>> Gain((0.5, 2.0))(torch.ones(1, 2, 2), torch.Generator().manual_seed(0)).unique()
    tensor([1.2444])
    """

    factor: float | tuple = setting((0.8, 1.2))
    per_channel: bool = False

    def apply(self, batch, generator):
        shape = (len(batch.x), 1, batch.x.shape[2] if self.per_channel else 1)
        return batch._replace(x=batch.x * draw(self.factor, shape, batch.x, generator))


@dataclass(frozen=True)
class ChannelDropout(Augmentation):
    """Set each channel to zero with ``probability``; at least one is kept.

    >>> ChannelDropout(0.5)(torch.ones(1, 1, 6), torch.Generator().manual_seed(0))
    tensor([[[0., 1., 0., 0., 0., 1.]]])
    """

    probability: float | tuple = setting(0.1, 0, 1)

    def apply(self, batch, generator):
        u = uniform((len(batch.x), 1, batch.x.shape[2]), batch.x, generator)
        keep = (u >= draw(self.probability, (len(u), 1, 1), u, generator)) | (u == u.amax(2, keepdim=True))
        return batch._replace(x=batch.x * keep)


@dataclass(frozen=True)
class Saturation(Augmentation):
    """Clip each channel at ``level`` times its largest absolute value in the sequence, as a sensor at its limit does.

    >>> Saturation(0.5)(torch.tensor([[[1.0], [-4.0], [3.0]]]), torch.Generator().manual_seed(0)).flatten()
    tensor([ 1., -2.,  2.])
    """

    level: float | tuple = setting((0.5, 1.0), 0, 1)

    def apply(self, batch, generator):
        most = batch.x.abs().amax(1, keepdim=True)
        most = most * draw(self.level, (len(batch.x), 1, batch.x.shape[2]), batch.x, generator)
        return batch._replace(x=torch.minimum(torch.maximum(batch.x, -most), most))


@dataclass(frozen=True)
class Slower(Augmentation):
    """What a sensor of a lower rate shows: a value every ``step`` samples, joined by lines.

    A value is the mean over a ``share`` of the step, at least a sample: 1 filters as a good sensor does, 0 as one that
    only looks from time to time, in which what is fast seems slow.

    >>> signal = torch.tensor([0.0, 2.0, 0.0, 2.0, 0.0, 2.0]).view(1, 6, 1)
    >>> Slower(2.0, 1.0)(signal, torch.Generator().manual_seed(0)).flatten()
    tensor([1., 1., 1., 1., 1., 1.])
    """

    step: float | tuple = setting((1.0, 5.0), 1, 1000)
    share: float | tuple = setting((0.0, 1.0), 0, 1)

    def apply(self, batch, generator):
        x, last = batch.x, batch.lengths[:, None].double()
        step = draw(self.step, (len(x), 1), x.double(), generator)
        half = (step * draw(self.share, (len(x), 1), x.double(), generator)).clamp(min=1.0) / 2
        # The integral of the signal up to each sample: a mean is a difference of two of its values.
        integral = F.pad(x.double().cumsum(1), (0, 0, 1, 0))
        k = (torch.arange(x.shape[1], device=x.device) + 0.5) / step - 0.5

        def value(number):
            """The value of step ``number`` (batch, time), of what lies inside of the sequence."""
            centre = (number.clamp(min=0).minimum((last / step).ceil() - 1) + 0.5) * step
            centre = centre.minimum(last - 0.5)
            edges = [edge.clamp(min=0).minimum(last) for edge in (centre - half, centre + half)]
            first, second = (interpolate(integral, edge, batch.lengths + 1) for edge in edges)
            return (second - first) / (edges[1] - edges[0])[..., None]

        between = (k - k.floor())[..., None]
        slow = (1 - between) * value(k.floor()) + between * value(k.floor() + 1)
        return batch.with_signal(slow.to(x.dtype))


@dataclass(frozen=True)
class MagnitudeWarp(Augmentation):
    """Multiply each channel by a smooth curve through ``knots`` random gains in [1 - strength, 1 + strength].

    >>> MagnitudeWarp(0.2)(torch.ones(2, 500, 6), torch.Generator().manual_seed(0)).shape
    torch.Size([2, 500, 6])
    """

    strength: float | tuple = setting(0.2, 0, 1)
    knots: int = count(5, 2)

    def apply(self, batch, generator):
        size, time, channels = batch.x.shape
        strength = draw(self.strength, (size, 1, 1), batch.x, generator)
        gains = 1 + strength * (2 * uniform((size, self.knots, channels), batch.x, generator) - 1)
        position = torch.linspace(0, self.knots - 1, time, dtype=gains.dtype, device=gains.device)
        distance = (position[:, None] - torch.arange(self.knots, device=gains.device)).abs().clamp(max=1)
        # Raised cosines: smooth, they add up to 1, and never leave the range of the knots.
        curve = (0.5 + 0.5 * (math.pi * distance).cos()) @ gains
        return batch._replace(x=batch.x * curve)


@dataclass(frozen=True)
class Rotation(Augmentation):
    """Rotate three-axis sensors: a sensor that was mounted another way.

    Each sequence and each sensor gets a matrix of its own, uniform over all rotations. Lengths of vectors are kept;
    what only the direction shows (gravity, the axis that an event moves) is lost.

    Parameters
    ----------
    triads : three channels for each sensor; all other channels stay as they are
    one_per_location : the location of each triad: triads at one location (accelerometer and gyroscope in one case) turn
        together. None: each by itself

    Raises
    ------
    OptionError : not three channels, a channel twice, not one location for each triad
    ShapeError : a channel that the batch does not have

    Examples
    --------
    >>> rotate = Rotation(((0, 1, 2), (3, 4, 5)), one_per_location=("wrist", "wrist"))
    >>> turned = rotate(torch.ones(2, 1, 6), torch.Generator().manual_seed(0))
    >>> turned.square().sum(2), bool((turned[..., :3] == turned[..., 3:]).all())
    (tensor([[6.0000], [6.0000]]), True)
    """

    triads: tuple = ((0, 1, 2), (3, 4, 5))
    one_per_location: tuple | None = None

    def __post_init__(self):
        triads = tuple(tuple(triad) for triad in self.triads)
        flat = [channel for triad in triads for channel in triad]
        fits = all(len(triad) == 3 for triad in triads) and len(set(flat)) == len(flat)
        require(fits, OptionError, f"each triad must name three channels, none of them twice, got {triads}")
        fits = all(isinstance(channel, numbers.Integral) and channel >= 0 for channel in flat)
        require(fits, OptionError, f"triads must hold channel numbers from 0, got {triads}")
        locations = tuple(range(len(triads))) if self.one_per_location is None else tuple(self.one_per_location)
        message = f"one_per_location must name a location for each of {len(triads)} triads, got {locations}"
        require(len(locations) == len(triads), OptionError, message)
        vars(self).update(triads=triads, one_per_location=locations)

    def apply(self, batch, generator):
        size, _, channels = batch.x.shape
        if not self.triads:
            return batch
        message = f"triads {self.triads} name channels outside of the input's {channels} (numbers start at 0)"
        require(max(map(max, self.triads)) < channels, ShapeError, message)
        names = sorted(set(self.one_per_location), key=self.one_per_location.index)
        place = [names.index(location) for location in self.one_per_location]
        axes = torch.tensor(self.triads, device=batch.x.device)
        matrix = torch.eye(channels, dtype=batch.x.dtype, device=batch.x.device).repeat(size, 1, 1)
        turns = random_rotations((size, len(names)), batch.x, generator)
        matrix[:, axes[:, :, None], axes[:, None, :]] = turns[:, place]
        return batch._replace(x=batch.x @ matrix.mT)


def random_rotations(shape, x, generator):
    """(*shape, 3, 3) rotations, uniform over SO(3): a normal quaternion has no preferred direction."""
    w, a, b, c = F.normalize(normal((*shape, 4), x, generator), dim=-1).unbind(-1)
    rows = [
        *(1 - 2 * (b * b + c * c), 2 * (a * b - c * w), 2 * (a * c + b * w)),
        *(2 * (a * b + c * w), 1 - 2 * (a * a + c * c), 2 * (b * c - a * w)),
        *(2 * (a * c - b * w), 2 * (b * c + a * w), 1 - 2 * (a * a + b * b)),
    ]
    return torch.stack(rows, -1).view(*shape, 3, 3)


# --- Time: the signal moves, and the times and labels of its events with it.


@dataclass(frozen=True)
class TimeShift(Augmentation):
    """Shift each sequence by a whole number of samples, to either side.

    Parameters
    ----------
    max_samples : the largest shift, shorter than the shortest sequence
    fill : vacated samples repeat the last value there is ("edge"), or are 0 ("zero")

    Raises
    ------
    OptionError : an unknown fill, a shift as long as a sequence

    Examples
    --------
    >>> one = torch.ones(1, 1)
    >>> batch = {"input": torch.arange(5.0)[None, :, None], "event_labels": one, "event_timings": one}
    >>> moved = TimeShift(3)(batch, torch.Generator().manual_seed(0))
    >>> moved["input"].flatten(), moved["event_timings"]
    (tensor([0., 0., 0., 0., 1.]), tensor([[4.]]))
    """

    max_samples: int = count(10, 0)
    fill: str = "edge"

    def __post_init__(self):
        super().__post_init__()
        require_choice(("edge", "zero"), fill=self.fill)

    def apply(self, batch, generator):
        x, lengths = batch.x, batch.lengths
        empties = f"a shift of up to max_samples={self.max_samples} empties a sequence of {int(lengths.min())} samples"
        message = f"{empties} (max_samples counts samples, not milliseconds)"
        require(self.max_samples < lengths.min(), OptionError, message)
        u = uniform((len(x),), x, generator, torch.float64)
        shift = (u * (2 * self.max_samples + 1)).long() - int(self.max_samples)
        source = torch.arange(x.shape[1], device=x.device) - shift[:, None]
        last = lengths[:, None] - 1
        moved = take_steps(x, source.clamp(min=0).minimum(last))
        if self.fill == "zero":
            moved = moved.masked_fill(((source < 0) | (source > last))[..., None], 0)
        timings = None if batch.timings is None else batch.timings + shift[:, None]
        return batch.with_signal(moved).with_events_at(timings, shift != 0)


@dataclass(frozen=True)
class Crop(Augmentation):
    """Keep a random piece of each sequence, moved to its beginning; the rest is zero padding behind a shorter length.

    Parameters
    ----------
    keep : the part of the samples that is kept, in (0, 1]; a pair is drawn from for each sequence

    Examples
    --------
    >>> batch = {"input": torch.ones(1, 10, 1), "event_labels": torch.ones(1, 2)}
    >>> batch["event_timings"] = torch.tensor([[0.0, 7.0]])
    >>> cropped = Crop(0.5)(batch, torch.Generator().manual_seed(0))
    >>> cropped["lengths"], cropped["event_labels"], cropped["event_timings"]
    (tensor([5]), tensor([[0., 1.]]), tensor([[nan, 2.]]))
    """

    keep: float | tuple = setting(0.9, 1e-6, 1)

    def apply(self, batch, generator):
        x, lengths = batch.x, batch.lengths
        keep = draw(self.keep, (len(x),), x.double(), generator)
        kept = (keep * lengths).round().long().clamp(min=1)
        start = (uniform((len(x),), x, generator, torch.float64) * (lengths - kept + 1)).long()
        source = start[:, None] + torch.arange(x.shape[1], device=x.device)
        moved = take_steps(x, source.minimum(lengths[:, None] - 1))
        timings = None if batch.timings is None else batch.timings - start[:, None]
        cropped = batch._replace(lengths=kept).with_signal(moved)
        return cropped.with_events_at(timings, kept < lengths)


@dataclass(frozen=True)
class TimeWarp(Augmentation):
    """Run through each sequence at a changing speed; both ends stay where they are, and no event is lost.

    The speed is a broken line through ``knots`` random speeds in [1 - stretch, 1 + stretch], scaled to end on time. It
    is positive, so time never runs backwards, and its integral is smooth with an inverse in closed form: the times
    of events move exactly as the signal does. Between samples the signal is a cubic (Catmull-Rom), which damps what
    lies above a quarter of the sampling rate.

    Parameters
    ----------
    stretch : in [0, 1)
    knots : speeds in a sequence, its ends included

    Examples
    --------
    >>> batch = {"input": torch.zeros(1, 200, 1), "event_labels": torch.ones(1, 1)}
    >>> batch["event_timings"] = torch.full((1, 1), 80.0)
    >>> TimeWarp(0.2)(batch, torch.Generator().manual_seed(0))["event_timings"]
    tensor([[78.84...]])
    """

    stretch: float | tuple = setting(0.1, 0, 0.99)
    knots: int = count(5, 2)

    def apply(self, batch, generator):
        x, lengths = batch.x, batch.lengths
        u = uniform((len(x), int(self.knots)), x, generator, torch.float64)
        stretch = draw(self.stretch, (len(x), 1), u, generator)
        warp = WarpMap(1 + stretch * (2 * u - 1), lengths - 1)
        steps = torch.arange(x.shape[1], device=x.device, dtype=torch.float64).expand(len(x), -1)
        warped = batch.with_signal(interpolate(x, warp.source(steps), lengths))
        timings = None if batch.timings is None else warp.target(batch.timings.double()).to(batch.timings.dtype)
        return warped.with_events_at(timings, torch.zeros_like(lengths, dtype=torch.bool))


@dataclass(frozen=True)
class Resample(Augmentation):
    """Run through each sequence faster or slower: at ``factor`` times the speed; behind the end the last value is
    repeated.

    >>> one = torch.ones(1, 1)
    >>> batch = {"input": torch.arange(5.0)[None, :, None], "event_labels": one, "event_timings": one}
    >>> slow = Resample(0.5)(batch, torch.Generator().manual_seed(0))
    >>> slow["input"].flatten(), slow["event_timings"]
    (tensor([0.0000, 0.4375, 1.0000, 1.5000, 2.0000]), tensor([[2.]]))
    """

    factor: float | tuple = setting((0.95, 1.05), 0.1, 10)

    def apply(self, batch, generator):
        x, lengths = batch.x, batch.lengths
        factor = draw(self.factor, (len(x), 1), x.double(), generator)
        position = factor * torch.arange(x.shape[1], device=x.device)
        moved = batch.with_signal(interpolate(x, position.minimum(lengths[:, None] - 1.0), lengths))
        timings = None if batch.timings is None else (batch.timings / factor).to(batch.timings.dtype)
        return moved.with_events_at(timings, factor[:, 0] > 1)


class WarpMap:
    """Monotone maps of [0, span] onto itself, whose derivatives run through ``speeds`` (batch, knots) in equal steps.

    In the piece behind knot k the map is a parabola: where it is after d samples, reached_k + v_k d + (v_k+1 - v_k) d²
    / 2h.
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
        return self.reached.gather(1, k) + distance * (
            self.speeds.gather(1, k) + self.slopes.gather(1, k) * distance / 2
        )

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
        [square - (cube + f) / 2, 1.5 * cube - 2.5 * square + 1, 2 * square - 1.5 * cube + f / 2, (cube - square) / 2],
        -1,
    )
    # A weighted sum of four rows in one pass over memory.
    mixed = F.embedding_bag(
        rows.view(-1, 4), x.reshape(-1, channels), per_sample_weights=weights.view(-1, 4), mode="sum"
    )
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


# --- Learned from recordings: the spectrum of their noise, their bursts and how strong these are.


# Bursts that are kept, of all that are found: enough that a network does not learn them by heart.
MAX_SNIPPETS = 256
# The standard deviation of a normal distribution is this many median absolute deviations.
MAD_TO_STD = 1.4826


@dataclass(frozen=True, eq=False)
class DataDrivenAugmentation(Augmentation):
    """What is learned from recordings: noise of their spectrum, gains of their spread, bursts cut out of them.

    Make it with `fit`. It works in the unit of the recordings: augment first, normalise afterwards.

    Parameters
    ----------
    noise_psd : (channels, frequencies), two-sided, white noise of standard deviation 1 is 1 everywhere
    gain_spread : standard deviation of the logarithm of a burst's amplitude
    snippets : (n, samples, channels) bursts, tapered to 0 at both ends
    snippets_per_sample : their mean number per sample
    sampling_rate_hz : of the recordings
    maybe_events : the snippets were cut out without knowing the events: some may be events
    noise : standard deviation of the added noise, relative to that of the recordings; a pair is drawn from per sequence
    gain : the logarithm of the gain of a sequence has this times ``gain_spread`` as its standard deviation
    transients : snippets come this many times as often as in the recordings

    Raises
    ------
    ShapeError : when called, other channels than the recordings'
    OptionError : when called, labelled windows and snippets that may be events without a label

    Examples
    --------
    >>> recording = Recording(np.random.default_rng(0).normal(size=(20_000, 6)), 2000)
    >>> augment = DataDrivenAugmentation.fit([recording], noise=(0.0, 1.0))
    >>> augment(torch.zeros(4, 2000, 6), torch.Generator().manual_seed(0)).shape
    torch.Size([4, 2000, 6])
    """

    noise_psd: np.ndarray
    gain_spread: float
    snippets: np.ndarray
    snippets_per_sample: float
    sampling_rate_hz: float
    maybe_events: bool = True
    noise: float | tuple = setting((0.0, 0.5))
    gain: float = setting(1.0, 0, 10)
    transients: float = setting(1.0, 0, 100)

    @classmethod
    def fit(cls, recordings, events=None, snippet_s=0.05, threshold=8.0, **settings) -> "DataDrivenAugmentation":
        """Learn from recordings, labelled or not.

        A burst is a peak of the whitened energy in ``snippet_s`` that stands out of its median by ``threshold`` robust
        standard deviations. Fewer than two bursts give no spread of gains. The noise spectrum is a median over seconds:
        it forgives bursts in less than about a third of them, and takes denser ones for a part of the noise.

        Parameters
        ----------
        recordings : list of `Recording`, same rate and channels
        events : list of `Events`, one table for each recording, an empty one where nothing happens. Bursts near an
            event, or outside of the labelled spans, are then no snippets. None: bursts may be events.
        snippet_s : length of a snippet, at least that of an event
        threshold : see above
        settings : ``noise``, ``gain``, ``transients``

        Raises
        ------
        ShapeError : not one table of events for each recording, unequal channels, a recording shorter than a snippet
        OptionError : recordings of unequal rates
        DataError : NaN, infinity or a constant channel in a recording
        """
        recordings = [recordings] if isinstance(recordings, Recording) else list(recordings)
        n, rates = len(recordings), {r.sampling_rate_hz for r in recordings}
        message = f"fit wants recordings with the same channels, got {recordings}"
        require(len({r.n_channels for r in recordings}) == 1, ShapeError, message)
        message = f"all recordings must have one rate, got {sorted(rates)} Hz (recording.resample changes it)"
        require(len(rates) == 1, OptionError, message)
        if events is not None:
            message = f"events must hold one table for each of {n} recordings, got {len(events)}"
            require(len(events) == n, ShapeError, message)
        check_range("snippet_s", snippet_s, 1e-9)
        check_range("threshold", threshold)
        rate = recordings[0].sampling_rate_hz
        length = max(8, duration_to_samples(snippet_s, rate))
        message = f"every recording must be longer than 4 snippets of {length} samples (snippet_s is in seconds)"
        require(min(r.n_samples for r in recordings) >= 4 * length, ShapeError, message)
        whitener = estimate_whitener(recordings)
        amplitudes, snippets, searched = [], [], 0
        for k, recording in enumerate(recordings):
            peaks, amplitude = find_bursts(recording, whitener, length, threshold)
            amplitudes.append(amplitude)
            labelled = recording.n_samples
            if events is not None:
                table = events[k].at_rate(rate)
                peaks = peaks[_unexplained(peaks, table, length, recording.n_samples)]
                labelled = int(table.is_labelled(np.arange(recording.n_samples)).sum())
            searched += labelled
            snippets += [(recording, peak - length // 2) for peak in peaks]
        amplitude = np.log(np.concatenate(amplitudes))
        spread = MAD_TO_STD * np.median(np.abs(amplitude - np.median(amplitude))) if len(amplitude) > 1 else 0.0
        # An even choice over the recordings, in which weak bursts are as frequent as they are.
        chosen = np.unique(np.linspace(0, len(snippets) - 1, min(MAX_SNIPPETS, len(snippets))).astype(int))
        pieces = [_cut_snippet(snippets[i][0], snippets[i][1], length) for i in chosen]
        cut = np.array(pieces, dtype=np.float32).reshape(-1, length, recordings[0].n_channels)
        often = len(snippets) / max(searched, 1)
        return cls(whitener.psd, float(spread), cut, often, rate, events is None, **settings)

    def apply(self, batch, generator):
        x = batch.x
        message = f"the recordings had {len(self.noise_psd)} channels, the input has {x.shape[2]}"
        require(x.shape[2] == len(self.noise_psd), ShapeError, message)
        planting = bool(self.transients and len(self.snippets))
        labelled = batch.labels is not None and not batch.labels.isnan().all()
        message = "the snippets may be events, which the labels of this batch do not hold: fit with events=..., or set "
        message += "transients=0 for labelled windows"
        require(not (planting and self.maybe_events and labelled), OptionError, message)
        gain = (self.gain * self.gain_spread * normal((len(x), 1, 1), x, generator)).exp()
        level = draw(self.noise, (len(x), 1, 1), x, generator)
        x = x * gain + level * self.make_noise(x, generator)
        return batch.with_signal(x + self.make_transients(batch, generator) if planting else x)

    def make_noise(self, x, generator):
        """Gaussian noise with the spectrum of the recordings, shaped as ``x`` (batch, time, channels)."""
        from scipy.fft import next_fast_len

        # Not below the spectrum's own resolution, so that a narrow hum is neither missed nor widened in a short window.
        frequencies = max(self.noise_psd.shape[1], next_fast_len(-(-x.shape[1] // 2), real=True) + 1)
        psd = torch.as_tensor(on_grid(self.noise_psd, frequencies))
        parts = normal((len(x), x.shape[2], frequencies, 2), x, generator)
        spectrum = torch.view_as_complex(parts * (psd / 2).sqrt().to(x)[..., None])
        return torch.fft.irfft(spectrum, 2 * (frequencies - 1), norm="ortho")[..., : x.shape[1]].transpose(1, 2)

    def make_transients(self, batch, generator):
        """(batch, time, channels) zeros with snippets at random places, those across an end cut off."""
        x, lengths = batch.x, batch.lengths
        size, time, channels = x.shape
        n, length = self.snippets.shape[:2]
        places = lengths + length - 1
        expected = self.transients * self.snippets_per_sample * places[:, None].double()
        # Many slots of which few are taken: nearly a Poisson process.
        slots = int(np.ceil(2 * float(expected.max())))
        taken = uniform((size, slots), x, generator, torch.float64) < expected / slots
        which = (uniform((size, slots), x, generator, torch.float64) * n).long()
        start = (uniform((size, slots), x, generator, torch.float64) * places[:, None]).long() - (length - 1)
        sequence, slot = taken.nonzero(as_tuple=True)
        step = start[sequence, slot][:, None] + torch.arange(length, device=x.device)
        values = torch.as_tensor(self.snippets)[which[sequence, slot].cpu()].to(x)
        values = values * ((step >= 0) & (step < time))[..., None]
        rows = step.clamp(0, time - 1) + time * sequence[:, None]
        planted = x.new_zeros(size * time, channels).index_add_(0, rows.flatten(), values.view(-1, channels))
        return planted.view(x.shape)


def find_bursts(recording, whitener, length, threshold):
    """Sample numbers of the peaks of whitened energy in a Hann window of ``length`` samples, and their amplitudes."""
    from scipy.ndimage import convolve1d
    from scipy.signal import find_peaks

    n = recording.n_samples
    blocks = [whitener(recording, start, min(start + BLOCK_SAMPLES, n)) for start in range(0, n, BLOCK_SAMPLES)]
    power = np.concatenate([np.square(block).sum(axis=1) for block in blocks])
    energy = convolve1d(power, np.hanning(length + 2)[1:-1], mode="constant")
    middle = np.median(energy)
    spread = MAD_TO_STD * np.median(np.abs(energy - middle))
    peaks, _ = find_peaks(energy, height=middle + threshold * spread, distance=length)
    peaks = peaks[(peaks >= length // 2) & (peaks < n - length)]
    return peaks, np.sqrt(energy[peaks] - middle)


def _unexplained(peaks, events, length, n_samples):
    """Which bursts are known not to be events: their snippet touches none, and was labelled completely."""
    distance = distance_to_nearest(peaks, events.time_samples)
    # An event is up to a snippet long, on either side of its time.
    reach = length + length // 2
    ends = [np.clip(peaks + side, 0, n_samples - 1) for side in (-reach, reach)]
    return (distance > reach) & events.is_labelled(ends[0]) & events.is_labelled(ends[1])


def _cut_snippet(recording, start, length):
    """(length, channels): a piece of a recording, its slope taken off, faded in and out."""
    from scipy.signal import detrend
    from scipy.signal.windows import tukey

    piece = recording.read(int(start), int(start) + length).astype(np.float64)
    return detrend(piece, axis=0) * tukey(length, 0.5)[:, None]
