"""Augmentations that move the labels with the signal.

Each is a small frozen object, called with a batch and a ``torch.Generator``. A batch is what `collate_fn_supervised`
makes (``input`` (batch, time, channels), and where there are any ``lengths``, ``event_labels``, ``event_timings``; other
keys pass through), or only the tensor, or one sequence (time, channels). Every sequence gets draws of its own, all of
them at once. Padding stays zero and is never looked at; nothing is changed in place. A generator on the CPU gives the
same draws whatever the device.

Those that move a signal in time are in `evlib.augment_time`, those learned from recordings in `evlib.augment_fitted`.
"""

import math
import numbers
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F

from .errors import DataError, OptionError, ShapeError
from .options import check_whole


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

    def with_events_at(self, timings, lossy, event_samples=0):
        """The same batch with events at new times; those outside of their sequence are dropped.

        A label says whether the *time* of an event lies in the window, so a dropped event has label 0, and time NaN. NaN is
        the honest label in two cases: the event still shows, because its time is less than ``event_samples`` outside;
        or its time was not known, and samples were lost (``lossy`` (batch,) bool), maybe the event among them.
        """
        if self.labels is None:
            return self
        lengths = self.lengths[:, None]
        gone = (timings < 0) | (timings >= lengths)
        unsure = (gone & (timings > -event_samples) & (timings < lengths - 1 + event_samples)) | (
            timings.isnan() & lossy[:, None]
        )
        present = self.labels == 1
        labels = self.labels.masked_fill(present & gone, 0).masked_fill(present & unsure, torch.nan)
        return self._replace(labels=labels, timings=timings.masked_fill(gone, torch.nan))

    def rows(self, chosen):
        """The batch of some of the sequences."""
        return Batch(*(None if field is None else field[chosen] for field in self))

    def with_rows(self, chosen, other):
        """The same batch with some of the sequences replaced."""
        return Batch(*(None if f is None else f.index_copy(0, chosen, g) for f, g in zip(self, other, strict=True)))


class Augmentation:
    """What can be called with a batch and a generator; a subclass writes ``apply(batch, generator)`` for a `Batch`.

    Raises
    ------
    ShapeError : axes or lengths that do not fit
    DataError : not floats, NaN or infinity in front of the end of a sequence
    OptionError : a setting that the batch does not allow, no ``torch.Generator``
    """

    def __call__(self, batch, generator):
        if not isinstance(generator, torch.Generator):
            raise OptionError(f"pass a torch.Generator, as torch.Generator().manual_seed(0), got {type(generator).__name__}")
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
    if not torch.is_tensor(x) or x.dtype not in (torch.float32, torch.float64):
        raise DataError(f"the input must be a float32 or float64 tensor, got {getattr(x, 'dtype', type(x).__name__)}")
    if x.ndim != 3 or 0 in x.shape:
        raise ShapeError(f"the input must have shape (batch, time, channels) without an empty axis, got {tuple(x.shape)}")
    size, time, _ = x.shape
    lengths = torch.as_tensor(batch.get("lengths", torch.full((size,), time)), device=x.device)
    if lengths.shape != (size,) or lengths.is_floating_point() or lengths.min() < 1 or lengths.max() > time:
        raise ShapeError(f"lengths must be {size} integers in 1..{time}, one for each sequence, got {lengths.tolist()}")
    events = [batch.get("event_labels"), batch.get("event_timings")]
    if (events[0] is None) != (events[1] is None):
        raise ShapeError("event_labels and event_timings come together (NaN where a time is not known)")
    for name, table in zip(("event_labels", "event_timings"), events, strict=True):
        if table is not None and (not torch.is_tensor(table) or not table.is_floating_point() or table.ndim != 2):
            raise ShapeError(
                f"{name} must be a float tensor (batch, events), got {getattr(table, 'shape', type(table).__name__)}"
            )
        if table is not None and table.shape != (size, events[0].shape[1]):
            raise ShapeError(f"{name} must have shape {(size, events[0].shape[1])}, got {tuple(table.shape)}")
    opened = Batch(x, lengths.long(), *events)
    opened = opened.with_signal(x)
    # The sum is infinite or NaN if any value is, and ten times cheaper than to look at each.
    if not opened.x.sum().isfinite() and not opened.x.isfinite().all():
        raise DataError("the input holds NaN or infinity: fill or cut out such samples first (evlib.validate shows where)")
    return opened


def check_range(name, value, low=0.0, high=math.inf):
    """Refuse what is neither a finite number in [low, high] nor a pair (least, most) of them."""
    pair = value if isinstance(value, (tuple, list)) else (value, value)
    numeric = len(pair) == 2 and all(isinstance(v, numbers.Real) and math.isfinite(v) for v in pair)
    if not numeric or not low <= pair[0] <= pair[1] <= high:
        raise OptionError(f"{name} must be a number in [{low:g}, {high:g}] or a pair (least, most) of them, got {value!r}")


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


def spectral_noise(psd, shape, x, generator):
    """Gaussian noise (batch, time, channels) with the spectrum ``psd``.

    ``psd`` (channels or 1, F): two-sided, on F equally spaced frequencies from 0 to half the rate, in units in which white
    noise of standard deviation 1 has the value 1; ``time`` is at most 2 (F - 1).
    """
    size, time, channels = shape
    frequencies = psd.shape[-1]
    parts = normal((size, channels, frequencies, 2), x, generator)
    spectrum = torch.view_as_complex(parts * (psd / 2).sqrt().to(x)[..., None])
    return torch.fft.irfft(spectrum, 2 * (frequencies - 1), norm="ortho")[..., :time].transpose(1, 2)


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
        single = isinstance(self.probabilities, numbers.Real)
        probabilities = (self.probabilities,) * len(augmentations) if single else tuple(self.probabilities)
        for augmentation in augmentations:
            if not isinstance(augmentation, Augmentation):
                raise OptionError(f"augmentations must be Augmentation objects, got {augmentation!r} (a class without brackets?)")
        if len(probabilities) != len(augmentations):
            raise OptionError(f"want one probability for each of {len(augmentations)} augmentations, got {len(probabilities)}")
        for p in probabilities:
            if not (isinstance(p, numbers.Real) and 0 <= p <= 1):
                raise OptionError(f"probabilities must lie in [0, 1], got {p!r}")
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

    std: float | tuple = 0.01

    def __post_init__(self):
        check_range("std", self.std)

    def apply(self, batch, generator):
        x = batch.x
        return batch.with_signal(x + draw(self.std, (len(x), 1, 1), x, generator) * normal(x.shape, x, generator))


@dataclass(frozen=True)
class PinkNoise(Augmentation):
    """Add noise whose power falls as 1 / f ** ``exponent``: slow drifts more than fast ones.

    ``std`` is its standard deviation over twice the window, whose slowest half-wave is a drift through the window.

    >>> PinkNoise(0.1)(torch.zeros(8, 500, 6), torch.Generator().manual_seed(0)).shape
    torch.Size([8, 500, 6])
    """

    std: float | tuple = 0.01
    exponent: float = 1.0

    def __post_init__(self):
        check_range("std", self.std)
        check_range("exponent", self.exponent, 0, 4)

    def apply(self, batch, generator):
        x = batch.x
        # Twice the window: the noise is periodic, and its end must not join its beginning inside of the window.
        n = 2 * fast_length(x.shape[1])
        frequency = torch.arange(n // 2 + 1, dtype=torch.float64).clamp(min=1)
        psd = frequency.pow(-self.exponent)
        psd[0] = 0
        psd *= n / (2 * psd[1:-1].sum() + psd[-1])
        noise = spectral_noise(psd[None], x.shape, x, generator)
        return batch.with_signal(x + draw(self.std, (len(x), 1, 1), x, generator) * noise)


def fast_length(n):
    """The least length of at least ``n`` samples that a Fourier transform is fast for."""
    from scipy.fft import next_fast_len

    return next_fast_len(int(n), real=True)


@dataclass(frozen=True)
class Gain(Augmentation):
    """Multiply by ``factor``, drawn for each sequence, or for each of its channels.

    >>> Gain((0.5, 2.0))(torch.ones(1, 2, 2), torch.Generator().manual_seed(0)).unique()
    tensor([1.2444])
    """

    factor: float | tuple = (0.8, 1.2)
    per_channel: bool = False

    def __post_init__(self):
        check_range("factor", self.factor)

    def apply(self, batch, generator):
        shape = (len(batch.x), 1, batch.x.shape[2] if self.per_channel else 1)
        return batch._replace(x=batch.x * draw(self.factor, shape, batch.x, generator))


@dataclass(frozen=True)
class ChannelDropout(Augmentation):
    """Set each channel to zero with ``probability``; at least one is kept.

    >>> ChannelDropout(0.5)(torch.ones(1, 1, 6), torch.Generator().manual_seed(0))
    tensor([[[0., 1., 0., 0., 0., 1.]]])
    """

    probability: float = 0.1

    def __post_init__(self):
        if not (isinstance(self.probability, numbers.Real) and 0 <= self.probability <= 1):
            raise OptionError(f"probability must lie in [0, 1], got {self.probability!r}")

    def apply(self, batch, generator):
        u = uniform((len(batch.x), 1, batch.x.shape[2]), batch.x, generator)
        keep = (u >= self.probability) | (u == u.amax(2, keepdim=True))
        return batch._replace(x=batch.x * keep)


@dataclass(frozen=True)
class MagnitudeWarp(Augmentation):
    """Multiply each channel by a smooth curve through ``knots`` random gains in [1 - strength, 1 + strength].

    >>> MagnitudeWarp(0.2)(torch.ones(2, 500, 6), torch.Generator().manual_seed(0)).shape
    torch.Size([2, 500, 6])
    """

    strength: float = 0.2
    knots: int = 5

    def __post_init__(self):
        check_range("strength", self.strength, 0, 1)
        check_whole(2, knots=self.knots)

    def apply(self, batch, generator):
        size, time, channels = batch.x.shape
        gains = 1 + self.strength * (2 * uniform((size, self.knots, channels), batch.x, generator) - 1)
        position = torch.linspace(0, self.knots - 1, time, dtype=gains.dtype, device=gains.device)
        distance = (position[:, None] - torch.arange(self.knots, device=gains.device)).abs().clamp(max=1)
        # Raised cosines: smooth, they add up to 1, and never leave the range of the knots.
        curve = (0.5 + 0.5 * (math.pi * distance).cos()) @ gains
        return batch._replace(x=batch.x * curve)


@dataclass(frozen=True)
class Rotation(Augmentation):
    """Rotate three-axis sensors: a sensor that was mounted another way.

    Each sequence and each sensor gets a matrix of its own, uniform over all rotations. Lengths of vectors are kept; what
    only the direction tells (gravity, which axis an event moves) is not.

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
    one_per_location: tuple = None

    def __post_init__(self):
        triads = tuple(tuple(triad) for triad in self.triads)
        flat = [channel for triad in triads for channel in triad]
        if any(len(triad) != 3 for triad in triads) or len(set(flat)) != len(flat):
            raise OptionError(f"each triad must name three channels, none of them twice, got {triads}")
        if any(not isinstance(channel, numbers.Integral) or channel < 0 for channel in flat):
            raise OptionError(f"triads must hold channel numbers from 0, got {triads}")
        locations = tuple(range(len(triads))) if self.one_per_location is None else tuple(self.one_per_location)
        if len(locations) != len(triads):
            raise OptionError(f"one_per_location must name a location for each of {len(triads)} triads, got {locations}")
        vars(self).update(triads=triads, one_per_location=locations)

    def apply(self, batch, generator):
        size, _, channels = batch.x.shape
        if not self.triads:
            return batch
        if max(map(max, self.triads)) >= channels:
            raise ShapeError(f"triads {self.triads} name channels outside of the input's {channels} (numbers start at 0)")
        names = sorted(set(self.one_per_location), key=self.one_per_location.index)
        place = [names.index(location) for location in self.one_per_location]
        axes = torch.tensor(self.triads, device=batch.x.device)
        matrix = torch.eye(channels, dtype=batch.x.dtype, device=batch.x.device).repeat(size, 1, 1)
        matrix[:, axes[:, :, None], axes[:, None, :]] = random_rotations((size, len(names)), batch.x, generator)[:, place]
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
