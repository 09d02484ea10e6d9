"""Template banks: what each type of event looks like in whitened signal, and how snippets of signal are cut and
averaged.

Conventions: whitened signal (n, C) with unit white noise; templates (E, L, C) cover samples [onset - before,
onset - before + L). The score of a template at time t is the correlation of its unit-energy shape with the signal
when the onset is put at t: no flip, peak at the onset. In noise the score is N(0, 1), at an event of amplitude a it is
N(a * norm, 1).
"""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import scipy.fft

from ..signals.clock import split_time
from ..signals.errors import OptionError, require, require_int, require_number
from ..signals.recording import add_windows, cut

# Positions inside a sample at which overlaps of templates are tabulated; finer steps change no result.
SUBSAMPLES = 8
# Scores are computed in blocks of this many samples, or of this many template lengths where these are more.
FFT_LENGTH, FFT_TEMPLATES = 1 << 15, 4
# Numbers in the largest array of a calculation that goes through events in portions (16 MB).
PORTION = 1 << 21
# An event is never weaker than this share of its type's mean.
MIN_AMPLITUDE = 0.05
# Where the energy that is left around an event exceeds that of noise by so many standard deviations, something else is
# loud.
LOUD = 20.0
# Samples of margin around a snippet: moving it by a fraction of a sample wraps nothing from one end to the other.
MARGIN = 8


@dataclass(frozen=True, eq=False)
class TemplateBank:
    """Whitened templates (E, L, C) of E types of events, with the spread of their amplitude.

    Parameters
    ----------
    templates : (E, L, C), an event of mean amplitude of each type
    before : samples of the template ahead of the onset
    names : of the types
    amplitude_spread : standard deviation of an event's amplitude, whose mean is 1
    log_rate : (E,) log of how often each type happens relative to the mean of all types, which decides between similar
        types; default: all equally often
    evidence_scale : in (0, 1], by which a difference in evidence between two types is multiplied: 1 where events differ
        from their template by noise alone, less where they vary in shape
    most_unexplained : where more energy than this, times the energy of an event, is left around it, it is no event

    Raises
    ------
    OptionError : templates that do not fit the names, a name twice, values that are not finite or out of range

    Examples
    --------
    >>> bank = TemplateBank(np.eye(3)[:, :, None], before=0, names=("a", "b", "c"))
    >>> bank.scores(np.array([[0.0], [0.0], [2.0], [0.0]], dtype=np.float32)).argmax(axis=0)
    array([2, 1, 0])
    """

    templates: np.ndarray
    before: int
    names: tuple
    amplitude_spread: float = 0.25
    log_rate: np.ndarray = None  # type: ignore[assignment]
    evidence_scale: float = 1.0
    most_unexplained: float = np.inf

    def __post_init__(self):
        rate = np.zeros(len(self.names)) if self.log_rate is None else self.log_rate
        templates = np.asarray(self.templates, dtype=np.float32)
        if templates.ndim != 3 or len(templates) != len(self.names):
            raise OptionError(f"templates must have shape ({len(self.names)} types, L, C), got {templates.shape}")
        vars(self).update(templates=templates, log_rate=np.asarray(rate, dtype=np.float32))
        message = f"each type must have a name of its own, got {self.names}"
        require(len({*self.names}) == len(self.names), OptionError, message)
        require(self.log_rate.shape == (len(self.names),), OptionError, "log_rate must be one number for each type")
        finite = np.isfinite(templates).all() and np.isfinite(self.log_rate).all()
        require(finite and templates.size, OptionError, "templates and log_rate must be finite, and some numbers")
        require_number(0, self.length, before=self.before)
        require_int(0, before=self.before)
        require_number(0, amplitude_spread=self.amplitude_spread)
        require_number(0, 1, evidence_scale=self.evidence_scale)
        require(
            self.most_unexplained > 0, OptionError, f"most_unexplained must be positive, got {self.most_unexplained}"
        )

    @property
    def known_names(self) -> tuple:
        """Names of the types that have a template: their events stand out from noise."""
        return tuple(name for name, norm in zip(self.names, self.norm, strict=True) if norm > 1)

    @property
    def length(self) -> int:
        """L, samples in a template."""
        return self.templates.shape[1]

    @property
    def reach(self) -> int:
        """Samples either way within which peaks of a score may belong to one event."""
        return max(2, self.length // 8)

    @cached_property
    def norm(self) -> np.ndarray:
        """(E,) square root of the energy: the score that an event of amplitude 1 reaches, its signal-to-noise ratio."""
        return np.maximum(np.sqrt((self.templates.astype(np.float64) ** 2).sum((1, 2))), 1e-6)

    @cached_property
    def shapes(self) -> np.ndarray:
        """(E, L, C) templates of unit energy."""
        return (self.templates / self.norm[:, None, None]).astype(np.float32)

    @cached_property
    def timing_information(self) -> np.ndarray:
        """(E,) Fisher information per squared amplitude about the onset, per squared sample."""
        n = 4 * self.length
        energy = 2 * (np.abs(scipy.fft.rfft(self.templates, n, axis=1)) ** 2).sum(2) / n
        return np.maximum((energy * (2 * np.pi * scipy.fft.rfftfreq(n)) ** 2).sum(1), 1e-9)

    @cached_property
    def overlap(self) -> np.ndarray:
        """(E, SUBSAMPLES, 2L - 1, E) score of each template, at each lag, in a unit event of another type.

        Row k of the second axis is an event (k / SUBSAMPLES - 0.5) samples behind lag 0, which is index L - 1.
        """
        n, n_types = scipy.fft.next_fast_len(2 * self.length + 32, real=True), len(self.names)
        spectra = scipy.fft.rfft(self.shapes, n, axis=1)
        delays, conjugate = _delays(n, np.arange(SUBSAMPLES) / SUBSAMPLES - 0.5), np.conj(spectra)
        lags = np.arange(-(self.length - 1), self.length) % n
        table = np.empty((n_types, SUBSAMPLES, len(lags), n_types), np.float32)
        for e, k in np.ndindex(n_types, SUBSAMPLES):
            product = np.einsum("fc,gfc->fg", spectra[e] * delays[k], conjugate)
            table[e, k] = scipy.fft.irfft(product, n, axis=0)[lags]
        return table

    @cached_property
    def _spectra(self):
        """Length of the Fourier transform of a template with its margins, and the transformed templates (E, F, C)."""
        n = scipy.fft.next_fast_len(self.length + 2 * MARGIN + 16, real=True)
        return n, scipy.fft.rfft(np.pad(self.templates, ((0, 0), (MARGIN, MARGIN), (0, 0))), n, axis=1)

    @cached_property
    def _kernels(self):
        """Length of the Fourier transform of a block, and the transformed templates (F, C, E)."""
        n = max(FFT_LENGTH, scipy.fft.next_fast_len(FFT_TEMPLATES * self.length, real=True))
        spectra = np.conj(scipy.fft.rfft(self.shapes, n, axis=1)).astype(np.complex64)
        return n, np.ascontiguousarray(spectra.transpose(1, 2, 0))

    def scores(self, whitened: np.ndarray) -> np.ndarray:
        """Template scores for an onset at every sample, (n, C) -> (n, E) float32, by overlap-save convolution."""
        n, (block_length, kernels) = len(whitened), self._kernels
        step = block_length - self.length + 1
        padded = np.pad(whitened.astype(np.float32, copy=False), ((self.before, block_length), (0, 0)))
        out = np.empty((n, len(self.names)), np.float32)
        for start in range(0, n, step):
            block = scipy.fft.rfft(padded[start : start + block_length], axis=0)
            product = np.matmul(block[:, None, :], kernels)[:, 0]
            out[start : start + step] = scipy.fft.irfft(product, block_length, axis=0)[: min(step, n - start)]
        return out

    def own_scores(self, snippets: np.ndarray, type: np.ndarray) -> np.ndarray:
        """Score of each snippet's (N, L, C) own ``type`` (N,), (N,)."""
        return np.einsum("nlc,nlc->n", snippets, self.shapes[type])

    def log_likelihood_ratio(self, score: np.ndarray, type=slice(None), seen=1.0) -> np.ndarray:
        """How much better an event explains a score than noise does, integrated over the amplitude, N(1, spread^2).

        ``score`` (..., E), or (n,) with ``type`` (n,). A score far above the expected one counts less again: it is not
        this event. A score more than three standard deviations too weak never counts for the event, however unlikely
        noise is. ``seen`` : square root of the share of the template's energy that is seen, one for each score.
        """
        norm = (self.norm[type] * seen).astype(np.float32)
        variance = 1 + (self.amplitude_spread * norm) ** 2
        # score^2 / 2 - (score - norm)^2 / (2 variance) - log(variance) / 2, as a parabola: few passes over large arrays
        square, constant = 0.5 - 0.5 / variance, -0.5 * norm**2 / variance - 0.5 * np.log(variance)
        evidence = (square * score + norm / variance) * score + constant
        too_weak = score < np.maximum(norm - 3 * np.sqrt(variance), MIN_AMPLITUDE * norm)
        return np.minimum(evidence, np.where(too_weak, np.float32(0), np.float32(np.inf))) + self.log_rate[type]

    def scaled(self, llr: np.ndarray, type=slice(None)) -> np.ndarray:
        """Log-likelihood ratios, (..., E) or (n,) with ``type`` (n,), as types are compared by: ``evidence_scale``
        times the evidence, and the rate in full."""
        return self.evidence_scale * (llr - self.log_rate[type]) + self.log_rate[type]

    def amplitude(self, score: np.ndarray, type: np.ndarray, seen=1.0) -> np.ndarray:
        """The most probable amplitude given a score (n,) of a ``type`` (n,); 1 is the mean event. ``seen`` : as in
        `log_likelihood_ratio`."""
        norm = self.norm[type] * seen
        variance = (self.amplitude_spread * norm) ** 2
        return (score * variance + norm) / (variance + 1) / norm

    def unexplained(self, misfit: np.ndarray, amplitude: np.ndarray, type: np.ndarray, loud=LOUD) -> np.ndarray:
        """Energy around events (n,) that no event explains, as a share of their own; 0 where nothing else is loud.

        ``misfit`` : that energy beyond the energy of noise, in standard deviations of the latter; ``loud`` : from how
        many on something is loud
        """
        energy = np.where(misfit > loud, misfit, 0.0) * np.sqrt(2.0 * self.length * self.templates.shape[2])
        return energy / (amplitude * self.norm[type]) ** 2

    def fits(self, misfit: np.ndarray, amplitude: np.ndarray, type: np.ndarray) -> np.ndarray:
        """Which events (n,) explain enough of what is there: not a glitch, of which a template explains a little."""
        return self.unexplained(misfit, amplitude, type) <= self.most_unexplained

    def render(self, n_samples: int, time_samples, type: np.ndarray, amplitude: np.ndarray) -> np.ndarray:
        """What these events add to whitened signal, (n_samples, C) float32; times need not be whole samples."""
        out = np.zeros((n_samples, self.templates.shape[2]), np.float32)
        sample, fraction = split_time(time_samples)
        amplitude = np.asarray(amplitude, dtype=np.float32)
        for rows in portions(len(sample), (self.length + 2 * MARGIN) * out.shape[1]):
            waves = self.waves(type[rows], fraction[rows], amplitude[rows])
            add_windows(out, sample[rows] - self.before - MARGIN, waves)
        return out

    def waves(self, type: np.ndarray, fraction: np.ndarray, amplitude: np.ndarray) -> np.ndarray:
        """Events (N,) whose onset is a ``fraction`` of a sample behind sample ``before + MARGIN``, (N, L + 2 MARGIN, C)
        float32."""
        n, spectra = self._spectra
        delays = _delays(n, np.asarray(fraction, dtype=np.float32))
        waves = scipy.fft.irfft(spectra[type] * delays, n, axis=1)[:, : self.length + 2 * MARGIN]
        return waves * np.asarray(amplitude, dtype=np.float32)[:, None, None]

    def similarity(self) -> np.ndarray:
        """(E, E) greatest score of one unit template in another at any lag: 1 on the diagonal, near 1 where types look
        alike."""
        return self.overlap[:, SUBSAMPLES // 2].max(axis=1)

    def shifted(self, shift_samples) -> "TemplateBank":
        """The bank with each template (E,) moved later inside its window, to move its onset."""
        n = scipy.fft.next_fast_len(self.length + 64, real=True)
        spectra = scipy.fft.rfft(self.templates, n, axis=1) * _delays(n, shift_samples)
        return replace(self, templates=scipy.fft.irfft(spectra, n, axis=1)[:, : self.length])


def _delays(n, samples):
    """Factors (N, F, 1) that move spectra (N, F, C) of ``n`` samples later by ``samples`` (N,), which may be
    fractions; single precision where they are."""
    samples = np.asarray(samples)
    frequency = scipy.fft.rfftfreq(n).astype(np.result_type(samples, np.float32))
    return np.exp(-2j * np.pi * frequency * samples[:, None])[:, :, None]


def portions(n_rows, numbers):
    """Slices that go through rows of ``numbers`` numbers each, ``PORTION`` numbers at a time."""
    step = max(1, PORTION // numbers)
    return [slice(start, min(start + step, n_rows)) for start in range(0, n_rows, step)]


def refine_peak(values: np.ndarray, index, *others):
    """Vertex of the parabola through ``values[index, *others]`` and its two neighbours along the first axis.

    Returns the offset from ``index`` in [-0.5, 0.5], 0 where there is no peak, and the height.

    >>> refine_peak(np.array([0.0, 3.0, 4.0, 1.0]), np.array([2]))
    (array([-0.25]), array([4.125]))
    """
    before, peak, after = (values[(index + step, *others)].astype(np.float64) for step in (-1, 0, 1))
    curvature = before - 2 * peak + after
    safe = np.where(curvature < 0, curvature, -1.0)
    offset = np.where(curvature < 0, np.clip(0.5 * (before - after) / safe, -0.5, 0.5), 0.0)
    return offset, peak - 0.25 * (before - after) * offset


def nearest_step(time):
    """Times in samples as (sample, row of ``TemplateBank.overlap``)."""
    return np.divmod(np.floor((time + 0.5) * SUBSAMPLES + 0.5).astype(int), SUBSAMPLES)


def cut_snippets(whitened: np.ndarray, time_samples, before: int, length: int) -> np.ndarray:
    """Pieces of signal with the onset moved onto a whole sample, (N, length, C); the signal is 0 beyond its ends."""
    sample, fraction = split_time(time_samples)
    out = np.empty((len(sample), length, whitened.shape[1]), np.float32)
    wide = length + 2 * MARGIN
    n = scipy.fft.next_fast_len(wide + 16, real=True)
    for rows in portions(len(sample), n * whitened.shape[1]):
        spectra = scipy.fft.rfft(cut(whitened, sample[rows] - before - MARGIN, wide), n, axis=1)
        moved = scipy.fft.irfft(spectra * _delays(n, -fraction[rows]), n, axis=1)
        out[rows] = moved[:, MARGIN : MARGIN + length]
    return out


def cut_all(signals, times, before, length):
    """Snippets of several signals, each with its own ``times``, as :func:`cut_snippets` cuts them, (N, length, C)."""
    pieces = [cut_snippets(signal, time, before, length) for signal, time in zip(signals, times, strict=True)]
    return np.concatenate(pieces)


def correlate_snippets(pieces, templates, owner=None):
    """Scores of templates (E, L, C) at every lag inside of pieces (N, L + lags - 1, C), one portion of rows at a time.

    Yields (rows, scores): scores (rows, lags, E), or (rows, lags) of template ``owner`` (N,) alone.
    """
    lags = pieces.shape[1] - templates.shape[1] + 1
    n = scipy.fft.next_fast_len(pieces.shape[1], real=True)
    spectra = np.conj(scipy.fft.rfft(templates.astype(np.float64), n, axis=1))
    for rows in portions(len(pieces), n * max(templates.shape[0] if owner is None else 1, templates.shape[2])):
        spectrum = scipy.fft.rfft(pieces[rows].astype(np.float64), n, axis=1)
        if owner is None:
            product = np.einsum("nfc,efc->nfe", spectrum, spectra, optimize=True)
        else:
            product = (spectrum * spectra[owner[rows]]).sum(2)
        yield rows, scipy.fft.irfft(product, n, axis=1)[:, :lags]


def correlate_own(pieces: np.ndarray, templates: np.ndarray, owner) -> np.ndarray:
    """Scores of template ``owner`` (N,) at every lag inside of each piece, as of :func:`correlate_snippets`, (N,
    lags)."""
    parts = [np.zeros((0, pieces.shape[1] - templates.shape[1] + 1))]
    return np.concatenate(parts + [score for _, score in correlate_snippets(pieces, templates, owner)])


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
    """Wiener shrinkage: keep the part of an average that stands out of its own noise, (E, L, C) -> (E, L, C).

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
