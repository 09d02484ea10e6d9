"""Waveforms of single events: cut out of a recording and laid over each other, types that look alike, relative timing.

The timing is that between the channels that one type of event reaches, and between the events themselves.
"""

from dataclasses import dataclass

import numpy as np
import scipy.fft
from scipy.special import ndtr

from ..signals.errors import DataError, ShapeError, require_rate
from ..signals.events import Events
from ..signals.recording import Recording
from .bank import TemplateBank, correlate_own, cut_snippets, refine_peak
from .whiten import Whitener

# Extra samples read on either side: moving an event by a fraction of a sample sees its neighbours.
MARGIN = 16
# Envelopes are evaluated this many times in a sample, and interpolated between.
STEPS = 8
# An onset is where the envelope first reaches this share of its maximum.
RISE = 0.5
# Draws of the bootstrap, and its quantiles: intervals of 95 %.
DRAWS, INTERVAL = 200, (0.025, 0.975)
# Types that noise mistakes for each other less often than this do not look alike.
LEAST_CHANCE = 0.01
# Least signal-to-noise ratio of an event in a channel that dates it.
AUDIBLE = 3.0


def read_snippets(whitener: Whitener, recording: Recording, time_samples, before: int, length: int) -> np.ndarray:
    """Pieces of whitened signal around events, the onset of each moved onto a whole sample.

    Parameters
    ----------
    whitener : Whitener
    recording : Recording; only what is around the events is read
    time_samples : (N,) floats
    before, length : samples ahead of the onset, and in all

    Returns
    -------
    (N, length, C) float32; 0 beyond the ends of the recording
    """
    time = np.asarray(time_samples, dtype=np.float64)
    out = np.zeros((len(time), length, recording.n_channels), np.float32)
    for k, at in enumerate(time):
        first, stop = max(int(at) - before - MARGIN, 0), min(int(at) - before + length + MARGIN, recording.n_samples)
        if stop > first:
            out[k] = cut_snippets(whitener(recording, first, stop), [at - first], before, length)[0]
    return out


def subtract_template(snippets: np.ndarray, template: np.ndarray) -> np.ndarray:
    """What is left of snippets (N, L, C) without the template (L, C), each with the amplitude that fits it best."""
    amplitude = np.einsum("nlc,lc->n", snippets, template) / max(float((template**2).sum()), 1e-12)
    return snippets - amplitude[:, None, None] * template


@dataclass(frozen=True)
class LookAlike:
    """Two types that look alike: ``similarity`` (1: the same), and the ``chance`` that noise makes one of type ``name``
    look like the ``other``."""

    name: str
    other: str
    similarity: float
    chance: float

    def __str__(self):
        share = f"{100 * self.chance:.2g} %" if self.chance < 0.1 else f"{100 * self.chance:.0f} %"
        words = f"similarity {self.similarity:.2f}, noise alone mistakes {share} of them"
        return f"{self.name} looks like {self.other}: {words}"


def similar_templates(bank: TemplateBank) -> list[LookAlike]:
    """Pairs of types that are mistaken for each other with a chance of at least 1 %, the worst first.

    Both types are put where they are most alike, and an event of mean size is judged as the bank judges it, size
    included: the difference in evidence is on average D and scatters, through noise alone, with a standard deviation S;
    the event is mistaken with a chance of Phi(-D / S).

    Examples
    --------
    >>> from evlib.templates.bank import TemplateBank
    >>> shapes = np.array([[[3.0], [0.0], [4.0]], [[3.0], [1.0], [4.0]], [[0.0], [90.0], [0.0]]])
    >>> for pair in similar_templates(TemplateBank(shapes, 0, ("heel", "toe", "clap"))):
    ...     print(pair)
    toe looks like heel: similarity 0.98, noise alone mistakes 31 % of them
    heel looks like toe: similarity 0.98, noise alone mistakes 31 % of them
    """
    similarity, norm = np.clip(bank.similarity(), -1, 1).astype(np.float64), bank.norm
    score = similarity * norm[:, None]  # of type b (columns) in an event of type a (rows)
    own = bank.log_likelihood_ratio(norm.astype(np.float32))
    lead = own[:, None] - bank.log_likelihood_ratio(score.astype(np.float32))
    # Derivative of the evidence by the score, for type b and for a itself.
    slope = score - (score - norm) / (1 + (bank.amplitude_spread * norm) ** 2)
    scatter = np.sqrt(np.maximum(slope**2 + norm[:, None] ** 2 - 2 * similarity * slope * norm[:, None], 1e-12))
    chance = ndtr(-lead / scatter)
    np.fill_diagonal(chance, 0)
    pairs = np.argwhere(chance >= LEAST_CHANCE)
    worst_first = pairs[np.argsort(-chance[tuple(pairs.T)], kind="stable")]
    return [LookAlike(bank.names[a], bank.names[b], similarity[a, b], chance[a, b]) for a, b in worst_first]


@dataclass(frozen=True)
class ChannelDelays:
    """Delays of the channels (C,), seconds, with 95 % intervals; a channel without signal is NaN.

    ``weight`` (C,): share of each channel in the energy. ``common_s``: the common onset, the mean of the channels with
    these weights, in seconds after the first sample of the snippets.
    """

    delay_s: np.ndarray
    low_s: np.ndarray
    high_s: np.ndarray
    weight: np.ndarray
    common_s: float
    n_events: int


def channel_delays(snippets, sampling_rate_hz: float) -> ChannelDelays:
    """When each channel receives an event of one type, relative to the common onset.

    The onset in a channel is where the envelope of the mean snippet first reaches half of its maximum. Intervals come
    from means of as many events, drawn with replacement; one event alone has none (NaN).

    Parameters
    ----------
    snippets : (N, L, C) pieces of signal, aligned events of one type
    sampling_rate_hz : their rate

    Raises
    ------
    ShapeError, UnitError, DataError : arrays that do not fit, a rate that is none, no event or no signal at all

    Examples
    --------
    >>> wave = np.sin(np.arange(40) / 3) * np.exp(-np.arange(40) / 9)
    >>> early, late = np.pad(wave, (10, 14)), np.pad(wave, (14, 10))
    >>> delays = channel_delays(np.stack([early, late], axis=1)[None], sampling_rate_hz=2000.0)
    >>> (1e3 * delays.delay_s).round(2)
    array([-1.,  1.])
    """
    rate = require_rate(sampling_rate_hz)
    snippets = np.asarray(snippets, dtype=np.float64)
    if snippets.ndim != 3 or min(snippets.shape[1:]) == 0:
        raise ShapeError(f"snippets must be (events, samples, channels), got {snippets.shape} (one event? add an axis)")
    if len(snippets) == 0:
        raise DataError("there are no events to take delays from")
    if not np.isfinite(snippets).all():
        raise DataError("snippets must be finite; found NaN or infinity")
    mean = snippets.mean(axis=0)
    energy = (mean**2).sum(axis=0)
    if not energy.any():
        raise DataError("there is no signal in the snippets: their mean is 0 in every channel")
    weight = energy / energy.sum()
    time = _rises(mean[None])[0]
    common = np.nansum(weight * time)
    low = high = np.full(len(time), np.nan)
    if (n := len(snippets)) > 1:
        share = np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), DRAWS) / n
        drawn = _rises((share @ snippets.reshape(n, -1)).reshape(DRAWS, *mean.shape))
        drawn = drawn - np.nansum(weight * drawn, axis=1, keepdims=True)
        low, high = np.quantile(drawn, INTERVAL, axis=0) / rate
    return ChannelDelays((time - common) / rate, low, high, weight, float(common / rate), n)


def _rises(waves):
    """(B, C) times in samples at which the envelopes of waves (B, L, C) first reach half of their maximum."""
    length = waves.shape[1]
    n = scipy.fft.next_fast_len(length + 32, real=True)
    spectrum = scipy.fft.rfft(waves, n, axis=1)
    spectrum[:, 0] /= 2
    # Half of a spectrum, filled up with zeros, is the analytic signal in finer steps.
    envelope = np.abs(scipy.fft.ifft(spectrum, n * STEPS, axis=1))[:, : (length - 1) * STEPS + 1]
    level = RISE * envelope.max(axis=1)
    at = (envelope >= level[:, None]).argmax(axis=1)
    before = np.maximum(at - 1, 0)
    high, low = (np.take_along_axis(envelope, k[:, None], axis=1)[:, 0] for k in (at, before))
    step = np.divide(level - low, high - low, out=np.ones_like(level), where=high > low)
    return np.where(level > 0, (before + np.where(at > 0, step, 0)) / STEPS, np.nan)


def channel_times(bank: TemplateBank, pieces: np.ndarray, type) -> np.ndarray:
    """When an event happened by each channel alone, relative to the time found by all of them.

    Parameters
    ----------
    bank : TemplateBank
    pieces : (N, L + 2 * reach, C) pieces of whitened signal, each with the time found at sample ``bank.before +
        reach``; ``reach`` >= 1 are the samples to either side in which a channel may look
    type : (N,) integers

    Returns
    -------
    (N, C) samples, later is positive; NaN where the channel has too little of this type, or nothing within reach

    Raises
    ------
    ShapeError : pieces no longer than the templates
    """
    pieces, type = np.asarray(pieces), np.asarray(type)
    reach = (pieces.shape[1] - bank.length) // 2
    if reach < 1:
        raise ShapeError(f"pieces must be longer than the templates, {bank.length} samples, got {pieces.shape}")
    out, rows = np.full((len(pieces), pieces.shape[2]), np.nan), np.arange(len(pieces))
    audible = np.sqrt((bank.templates.astype(np.float64) ** 2).sum(axis=1)) >= AUDIBLE  # (E, C)
    for c in range(out.shape[1]):
        score = correlate_own(pieces[:, :, [c]], bank.templates[:, :, [c]], type)
        best = score.argmax(axis=1)
        inside = np.clip(best, 1, 2 * reach - 1)
        offset, peak = refine_peak(score.T, inside, rows)
        found = (best == inside) & (peak > 0) & audible[type, c]
        out[found, c] = (inside + offset - reach)[found]
    return out


def inter_event_intervals(events: Events) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """From each event to the next one of another type.

    Returns
    -------
    before, after : (n,) types
    interval_s : (n,) seconds; events after which no other type comes are left out

    Examples
    --------
    >>> from evlib.signals.events import Events
    >>> events = Events.from_seconds([1.0, 1.5, 2.25], ["heel", "heel", "toe"], 2000)
    >>> inter_event_intervals(events)
    (array([0, 0]), array([1, 1]), array([1.25, 0.75]))
    """
    changes = np.flatnonzero(np.diff(events.type)) + 1
    rows = np.arange(changes.max(initial=0))
    after = changes[np.searchsorted(changes, rows, side="right")]
    return events.type[rows], events.type[after], events.onset_s[after] - events.onset_s[rows]
