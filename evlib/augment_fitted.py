"""Augmentations made of recordings: their background, the spectrum of their noise, their bursts and how strong they are."""

from dataclasses import dataclass, field

import numpy as np
import torch

from .augment import Augmentation, check_range, draw, fast_length, normal, spectral_noise, take_steps, uniform
from .errors import DataError, OptionError, ShapeError
from .recording import BLOCK_SAMPLES, Recording
from .timebase import distance_to_nearest, duration_to_samples
from .whitening import estimate_psd, estimate_whitener

MAX_SNIPPETS = 256
# The standard deviation of a normal distribution is this many median absolute deviations.
MAD_TO_STD = 1.4826


@dataclass(frozen=True, eq=False)
class RecordedBackground(Augmentation):
    """Add a random piece of recorded background to each sequence.

    Parameters
    ----------
    signals : recordings, or arrays (samples, channels), without events: an event in a background has no label. The
        median of each channel is taken off. They are held in memory.
    gain : what a piece is multiplied with; a pair is drawn from for each sequence

    Raises
    ------
    ShapeError : no signal, unequal channels; when called, other channels than the batch, or none as long as its windows
    DataError : NaN or infinity

    Examples
    --------
    >>> hum = np.sin(2 * np.pi * 50 * np.arange(4000) / 2000)[:, None]
    >>> RecordedBackground([hum], gain=(0.0, 1.0))(torch.zeros(8, 500, 1), torch.Generator().manual_seed(0)).shape
    torch.Size([8, 500, 1])
    """

    signals: tuple
    gain: float | tuple = 1.0
    _samples: torch.Tensor = field(init=False, repr=False)
    _lengths: torch.Tensor = field(init=False, repr=False)

    def __post_init__(self):
        check_range("gain", self.gain)
        signals = [s.read() if isinstance(s, Recording) else np.asarray(s, dtype=np.float32) for s in self.signals]
        if not signals or any(s.ndim != 2 or 0 in s.shape or s.shape[1] != signals[0].shape[-1] for s in signals):
            shapes = [s.shape for s in signals]
            raise ShapeError(f"signals must be a list of (samples, channels) with the same channels, got shapes {shapes}")
        if not all(np.isfinite(s).all() for s in signals):
            raise DataError("the backgrounds hold NaN or infinity: cut such samples out first")
        samples = torch.from_numpy(np.concatenate([s - np.median(s, axis=0) for s in signals]))
        vars(self).update(signals=tuple(self.signals), _samples=samples, _lengths=torch.tensor([len(s) for s in signals]))

    def apply(self, batch, generator):
        size, time, channels = batch.x.shape
        if channels != self._samples.shape[1]:
            raise ShapeError(f"the backgrounds have {self._samples.shape[1]} channels, the input has {channels}")
        starts = (self._lengths - time + 1).clamp(min=0).to(batch.x.device)
        if not starts.any():
            raise ShapeError(f"the input has {time} samples, the longest background only {int(self._lengths.max())}")
        # Every possible place is as likely as any other: longer signals are taken from more often.
        last = starts.cumsum(0)
        place = (uniform((size,), batch.x, generator, torch.float64) * last[-1]).long()
        signal = torch.searchsorted(last, place, right=True)
        before = (self._lengths.cumsum(0) - self._lengths).to(place)
        start = place - (last - starts)[signal] + before[signal]
        index = start[:, None] + torch.arange(time, device=place.device)
        pieces = take_steps(self._samples[None], index.cpu().view(1, -1)).to(batch.x).view(batch.x.shape)
        return batch.with_signal(batch.x + draw(self.gain, (size, 1, 1), batch.x, generator) * pieces)


@dataclass(frozen=True, eq=False)
class DataDrivenAugmentation(Augmentation):
    """What is learned from recordings: noise of their spectrum, gains of their spread, bursts cut out of them.

    Make it with `fit`. It works in the unit of the recordings: augment first, normalise afterwards.

    Parameters
    ----------
    noise_psd : (channels, frequencies), two-sided, white noise of standard deviation 1 is 1 everywhere
    gain_spread : standard deviation of the logarithm of a burst's amplitude
    snippets : (n, samples, channels) bursts, tapered to 0 at both ends
    snippets_per_sample : how often they come
    sampling_rate_hz : of the recordings
    maybe_events : the snippets were cut out without knowing the events: some may be events
    noise : standard deviation of the added noise, relative to that of the recordings; a pair is drawn from per sequence
    gain : the logarithm of the gain of a sequence has this times ``gain_spread`` as its standard deviation
    transients : snippets come this many times as often as in the recordings

    Raises
    ------
    ShapeError : when called, other channels than the recordings'
    OptionError : when called, labelled windows and snippets that may be events, whose labels they would belie

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
    noise: float | tuple = (0.0, 0.5)
    gain: float = 1.0
    transients: float = 1.0

    def __post_init__(self):
        check_range("noise", self.noise)
        check_range("gain", self.gain, 0, 10)
        check_range("transients", self.transients, 0, 100)

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
        if not recordings or len({r.n_channels for r in recordings}) > 1:
            raise ShapeError(f"fit wants recordings with the same channels, got {recordings}")
        rates = {r.sampling_rate_hz for r in recordings}
        if len(rates) > 1:
            raise OptionError(f"all recordings must have one rate, got {sorted(rates)} Hz (recording.resample changes it)")
        if events is not None and len(events) != len(recordings):
            raise ShapeError(f"events must hold one table for each of {len(recordings)} recordings, got {len(events)}")
        check_range("snippet_s", snippet_s, 1e-9)
        check_range("threshold", threshold)
        rate = recordings[0].sampling_rate_hz
        length = max(8, duration_to_samples(snippet_s, rate))
        if min(r.n_samples for r in recordings) < 4 * length:
            raise ShapeError(f"every recording must be longer than 4 snippets of {length} samples (snippet_s is in seconds)")
        whitener = estimate_whitener(recordings)
        amplitudes, snippets, searched = [], [], 0
        for k, recording in enumerate(recordings):
            peaks, amplitude = find_bursts(recording, whitener, length, threshold)
            amplitudes.append(amplitude)
            if events is not None:
                table = events[k].at_rate(rate)
                peaks = peaks[_unexplained(peaks, table, length, recording.n_samples)]
                searched += int(table.is_labelled(np.arange(recording.n_samples)).sum())
            else:
                searched += recording.n_samples
            snippets += [(recording, peak - length // 2) for peak in peaks]
        amplitude = np.log(np.concatenate(amplitudes))
        spread = MAD_TO_STD * np.median(np.abs(amplitude - np.median(amplitude))) if len(amplitude) > 1 else 0.0
        # An even choice over the recordings, in which weak bursts are as frequent as they are.
        chosen = np.unique(np.linspace(0, len(snippets) - 1, min(MAX_SNIPPETS, len(snippets))).astype(int))
        cut = [_cut_snippet(*snippets[i], length) for i in chosen]
        cut = np.array(cut, dtype=np.float32).reshape(-1, length, recordings[0].n_channels)
        psd, _ = estimate_psd(recordings)
        return cls(psd, float(spread), cut, len(snippets) / max(searched, 1), rate, events is None, **settings)

    def apply(self, batch, generator):
        x = batch.x
        if x.shape[2] != len(self.noise_psd):
            raise ShapeError(f"the recordings had {len(self.noise_psd)} channels, the input has {x.shape[2]}")
        planting = bool(self.transients and len(self.snippets))
        if planting and self.maybe_events and batch.labels is not None and not batch.labels.isnan().all():
            raise OptionError(
                "the snippets may be events, which the labels of this batch would not tell: fit with events=..., or set "
                "transients=0 for labelled windows"
            )
        gain = (self.gain * self.gain_spread * normal((len(x), 1, 1), x, generator)).exp()
        level = draw(self.noise, (len(x), 1, 1), x, generator)
        x = x * gain + level * self.make_noise(x, generator)
        return batch.with_signal(x + self.make_transients(batch, generator) if planting else x)

    def make_noise(self, x, generator):
        """Noise like that of the recordings, shaped as ``x`` (batch, time, channels)."""
        # Not below the spectrum's own resolution, so that a narrow hum is neither missed nor widened in a short window.
        own = self.noise_psd.shape[1]
        frequencies = max(own, fast_length(-(-x.shape[1] // 2)) + 1)
        psd = self.noise_psd
        if frequencies > own:
            grid = np.linspace(0, 1, frequencies)
            psd = np.stack([np.interp(grid, np.linspace(0, 1, own), channel) for channel in psd])
        return spectral_noise(torch.as_tensor(psd), x.shape, x, generator)

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
