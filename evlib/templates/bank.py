"""Templates: what each kind of event looks like in whitened signal, learned from labels and from detections.

Conventions: whitened signal (n, C) with unit white noise; templates (E, L, C) cover samples [onset - before,
onset - before + L). The score of a template at time t is the correlation of its unit-energy shape with the signal
when the onset is put at t: no flip, peak at the onset. In noise the score is N(0, 1), at an event of amplitude a it is
N(a * norm, 1).
"""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import scipy.fft

from ..signals.errors import OptionError
from ..signals.recording import add_windows, cut

# Positions inside a sample at which overlaps of templates are tabulated; finer steps change nothing measurable.
SUBSAMPLES = 8
# Scores are computed in blocks of so many samples, or of so many template lengths where these are more.
FFT_LENGTH, FFT_TEMPLATES = 1 << 15, 4
# Numbers in the largest array while snippets are moved or added to a signal (32 MB).
PORTION = 1 << 22
# An event is never weaker than this share of its kind's mean.
MIN_AMPLITUDE = 0.05
# Margin in samples around a snippet, so that moving it by a fraction of a sample wraps nothing in.
MARGIN = 8


@dataclass(frozen=True, eq=False)
class TemplateBank:
    """Whitened templates (E, L, C) of E kinds of events, with the spread of their amplitude.

    ``before``: samples of the template ahead of the onset; ``amplitude_spread``: standard deviation of an event's
    amplitude, whose mean is 1; ``log_rate`` (E,): log of how often each type happens relative to the mean of all types,
    which decides between look-alikes (default: all alike); ``trust`` in (0, 1]: what a difference in evidence between
    two types is worth. It is 1 where events differ from their template by noise alone, and less where they vary in
    shape.

    >>> bank = TemplateBank(np.eye(3)[:, :, None], before=0, names=("a", "b", "c"))
    >>> bank.scores(np.array([[0.0], [0.0], [2.0], [0.0]], dtype=np.float32)).argmax(axis=0)
    array([2, 1, 0])
    """

    templates: np.ndarray
    before: int
    names: tuple
    amplitude_spread: float = 0.25
    log_rate: np.ndarray = None
    trust: float = 1.0

    def __post_init__(self):
        rate = np.zeros(len(self.names)) if self.log_rate is None else self.log_rate
        object.__setattr__(self, "log_rate", np.asarray(rate, dtype=np.float32))
        templates = np.asarray(self.templates, dtype=np.float32)
        if templates.ndim != 3 or len(templates) != len(self.names):
            raise OptionError(f"templates must have shape ({len(self.names)} types, L, C), got {templates.shape}")
        object.__setattr__(self, "templates", templates)

    @property
    def known_names(self):
        """Names of the kinds that have a template at all: an event of them stands out from noise."""
        return tuple(name for name, norm in zip(self.names, self.norm, strict=True) if norm > 1)

    @property
    def length(self):
        """L, samples in a template."""
        return self.templates.shape[1]

    @property
    def reach(self):
        """Samples either way within which peaks of a score may belong to one event."""
        return max(2, self.length // 8)

    @cached_property
    def norm(self):
        """(E,) square root of the energy: the score that an event of amplitude 1 reaches, its signal-to-noise ratio."""
        return np.maximum(np.sqrt((self.templates.astype(np.float64) ** 2).sum((1, 2))), 1e-6)

    @cached_property
    def shapes(self):
        """(E, L, C) templates of unit energy."""
        return (self.templates / self.norm[:, None, None]).astype(np.float32)

    @cached_property
    def timing_information(self):
        """(E,) Fisher information per squared amplitude about the onset, per squared sample."""
        spectrum, frequency = (
            scipy.fft.rfft(self.templates, 4 * self.length, axis=1),
            scipy.fft.rfftfreq(4 * self.length),
        )
        energy = 2 * (np.abs(spectrum) ** 2).sum(2) / (4 * self.length)
        return np.maximum((energy * (2 * np.pi * frequency) ** 2).sum(1), 1e-9)

    @cached_property
    def overlap(self):
        """(E, SUBSAMPLES, 2L - 1, E) score of each template, at each lag, in a unit event of another type.

        Row k of the second axis is an event (k / SUBSAMPLES - 0.5) samples behind lag 0, which is index L - 1.
        """
        length = self.length
        n = scipy.fft.next_fast_len(2 * length + 32, real=True)
        spectra, frequency = scipy.fft.rfft(self.shapes, n, axis=1), scipy.fft.rfftfreq(n)
        lags = np.arange(-(length - 1), length)
        table = np.empty((len(self.names), SUBSAMPLES, 2 * length - 1, len(self.names)), np.float32)
        for k in range(SUBSAMPLES):
            moved = spectra * np.exp(-2j * np.pi * frequency * (k / SUBSAMPLES - 0.5))[:, None]
            for e in range(len(self.names)):
                product = np.einsum("fc,gfc->fg", moved[e], np.conj(spectra))
                table[e, k] = scipy.fft.irfft(product, n, axis=0)[lags % n]
        return table

    @cached_property
    def _fft_length(self):
        return max(FFT_LENGTH, scipy.fft.next_fast_len(FFT_TEMPLATES * self.length, real=True))

    @cached_property
    def _kernels(self):
        spectra = np.conj(scipy.fft.rfft(self.shapes, self._fft_length, axis=1)).astype(np.complex64)
        return np.ascontiguousarray(spectra.transpose(1, 2, 0))  # (F, C, E)

    def scores(self, whitened):
        """Template scores for an onset at every sample, (n, C) -> (n, E) float32, by overlap-save convolution."""
        n, block_length = len(whitened), self._fft_length
        step = block_length - self.length + 1
        padded = np.pad(whitened.astype(np.float32, copy=False), ((self.before, block_length), (0, 0)))
        out = np.empty((n, len(self.names)), np.float32)
        for start in range(0, n, step):
            block = scipy.fft.rfft(padded[start : start + block_length], axis=0)
            product = np.matmul(block[:, None, :], self._kernels)[:, 0]
            out[start : start + step] = scipy.fft.irfft(product, block_length, axis=0)[: min(step, n - start)]
        return out

    def log_likelihood_ratio(self, score, type=slice(None)):
        """How much better an event explains a score than noise does, amplitude N(1, spread^2) integrated out.

        ``score`` (..., E), or (n,) with ``type`` (n,). A score far over the expected one counts less again: it is
        another thing than this event. So is one more than three standard deviations too weak: however little it looks
        like noise, it never counts for the event.
        """
        norm = self.norm[type].astype(np.float32)
        variance = 1 + (self.amplitude_spread * norm) ** 2
        evidence = 0.5 * score**2 - 0.5 * (score - norm) ** 2 / variance - 0.5 * np.log(variance)
        too_weak = score < np.maximum(norm - 3 * np.sqrt(variance), MIN_AMPLITUDE * norm)
        return np.where(too_weak, np.minimum(evidence, 0), evidence) + self.log_rate[type]

    def amplitude(self, score, type):
        """The most probable amplitude given a score (n,) of a ``type`` (n,); 1 is the mean event."""
        norm = self.norm[type]
        variance = (self.amplitude_spread * norm) ** 2
        return (score * variance + norm) / (variance + 1) / norm

    def render(self, n_samples, time_samples, type, amplitude):
        """What these events add to whitened signal, (n_samples, C) float32; times need not be whole samples."""
        out = np.zeros((n_samples, self.templates.shape[2]), np.float32)
        padded = np.pad(self.templates, ((0, 0), (MARGIN, MARGIN), (0, 0)))
        n = scipy.fft.next_fast_len(padded.shape[1] + 16, real=True)
        spectra, frequency = scipy.fft.rfft(padded, n, axis=1), scipy.fft.rfftfreq(n).astype(np.float32)
        sample = np.floor(np.asarray(time_samples) + 0.5).astype(int)
        fraction = (time_samples - sample).astype(np.float32)
        portion = _portion(n * out.shape[1])
        for start in range(0, len(sample), portion):
            rows = slice(start, start + portion)
            turn = np.exp(-2j * np.pi * frequency * fraction[rows, None])[:, :, None]
            wave = scipy.fft.irfft(spectra[type[rows]] * turn, n, axis=1)[:, : padded.shape[1]]
            wave *= np.asarray(amplitude, dtype=np.float32)[rows, None, None]
            add_windows(out, sample[rows] - self.before - MARGIN, wave)
        return out

    def similarity(self):
        """(E, E) greatest score of one unit template in another at any lag: 1 on the diagonal, near 1 for
        look-alikes."""
        return self.overlap[:, SUBSAMPLES // 2].max(axis=1)

    def shifted(self, shift_samples):
        """The bank with each template (E,) moved later inside its window, to move its onset."""
        n = scipy.fft.next_fast_len(self.length + 64, real=True)
        turn = np.exp(-2j * np.pi * scipy.fft.rfftfreq(n) * np.asarray(shift_samples)[:, None])
        moved = scipy.fft.irfft(scipy.fft.rfft(self.templates, n, axis=1) * turn[:, :, None], n, axis=1)
        return replace(self, templates=moved[:, : self.length])


def refine_peak(before, peak, after):
    """Vertex of the parabola through three samples: (offset in [-0.5, 0.5], height)."""
    curvature = before - 2 * peak + after
    safe = np.where(curvature < 0, curvature, -1.0)
    offset = np.where(curvature < 0, np.clip(0.5 * (before - after) / safe, -0.5, 0.5), 0.0)
    return offset, peak - 0.25 * (before - after) * offset


def nearest_step(time):
    """Times in samples as (sample, row of ``TemplateBank.overlap``)."""
    sample = np.floor(time + 0.5).astype(int)
    step = np.floor((time - sample + 0.5) * SUBSAMPLES + 0.5).astype(int)
    return sample + (step == SUBSAMPLES), step % SUBSAMPLES


def cut_snippets(whitened, time_samples, before, length):
    """Pieces of signal with the onset moved onto a whole sample, (N, length, C); the signal is 0 beyond its ends."""
    times, channels = np.asarray(time_samples), whitened.shape[1]
    out = np.empty((len(times), length, channels), np.float32)
    wide = length + 2 * MARGIN
    n = scipy.fft.next_fast_len(wide + 16, real=True)
    frequency = scipy.fft.rfftfreq(n)[:, None]
    portion = _portion(n * channels)
    for start in range(0, len(times), portion):
        rows = slice(start, start + portion)
        sample = np.floor(times[rows] + 0.5).astype(int)
        fraction = times[rows] - sample
        raw = cut(whitened, sample - before - MARGIN, wide)
        turn = np.exp(2j * np.pi * frequency * fraction[:, None, None])
        moved = scipy.fft.irfft(scipy.fft.rfft(raw, n, axis=1) * turn, n, axis=1)
        out[rows] = moved[:, MARGIN : MARGIN + length]
    return out


def correlate_snippets(pieces, templates, owner=None):
    """Scores of templates (E, L, C) at every lag inside of pieces (N, L + lags - 1, C): portions of rows, as they come.

    Yields (rows, scores): scores (rows, lags, E), or (rows, lags) of template ``owner`` (N,) alone.
    """
    lags = pieces.shape[1] - templates.shape[1] + 1
    n = scipy.fft.next_fast_len(pieces.shape[1], real=True)
    spectra = np.conj(scipy.fft.rfft(templates.astype(np.float64), n, axis=1))
    portion = _portion(n * max(templates.shape[0] if owner is None else 1, templates.shape[2]))
    for start in range(0, len(pieces), portion):
        rows = slice(start, min(start + portion, len(pieces)))
        spectrum = scipy.fft.rfft(pieces[rows].astype(np.float64), n, axis=1)
        if owner is None:
            product = np.einsum("nfc,efc->nfe", spectrum, spectra, optimize=True)
        else:
            product = (spectrum * spectra[owner[rows]]).sum(2)
        yield rows, scipy.fft.irfft(product, n, axis=1)[:, :lags]


def _portion(numbers):
    """How many rows of so many numbers each are handled at a time."""
    return max(1, PORTION // numbers)


def average_snippets(snippets, type, weight, n_types):
    """Weighted mean snippet of each type, (E, L, C), and the number of snippets it is worth, (E,)."""
    length, channels = snippets.shape[1:]
    share = np.zeros((n_types, len(type)))
    share[type, np.arange(len(type))] = weight
    total = share @ snippets.reshape(len(snippets), -1)
    count, square = share.sum(1), (share**2).sum(1)
    worth = np.divide(count**2, square, out=np.zeros(n_types), where=square > 0)
    mean = total / np.maximum(count, 1e-12)[:, None]
    return mean.reshape(n_types, length, channels), worth


def shrink_templates(mean, worth, block=28):
    """Wiener shrinkage: keep of an average what stands out of its own noise, (E, L, C) -> (E, L, C).

    An average of ``worth`` snippets carries white noise of variance 1 / worth. In half-overlapping sine-windowed
    blocks of ``block`` samples the power at each frequency is pooled over types and channels, which know the band and
    the decay of events far better than one average does; every coefficient is scaled by
    signal power / (signal power + noise power).
    """
    block = max(4, min(block, mean.shape[1]) // 2 * 2)
    window = np.sin(np.pi * (np.arange(block) + 0.5) / block)[None, :, None]
    tail = -mean.shape[1] % (block // 2)
    padded = np.pad(mean, ((0, 0), (block, block + tail), (0, 0)))
    out = np.zeros_like(padded)
    noise = (window**2).sum() / np.maximum(worth, 1e-12)[:, None, None]
    known = worth > 0
    for start in range(0, padded.shape[1] - block + 1, block // 2):
        rows = slice(start, start + block)
        spectrum = np.fft.rfft(padded[:, rows] * window, axis=1)
        power = np.maximum((np.abs(spectrum[known]) ** 2 - noise[known]).mean((0, 2), keepdims=True), 0)
        out[:, rows] += np.fft.irfft(spectrum * (power / (power + noise)), block, axis=1) * window
    return out[:, block : block + mean.shape[1]]
