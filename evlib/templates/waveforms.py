"""Single events, cut out of a recording and laid over each other: what a template is the mean of."""

from dataclasses import dataclass

import numpy as np
import scipy.fft
from scipy.special import ndtr

from ..signals.errors import DataError, OptionError, ShapeError, require_int, require_rate
from .bank import cut_snippets, refine_peak

# Events closer than this are read together, which is faster; but no more than so much signal at a time.
TOGETHER_S, LONGEST_S = 2.0, 60.0


def read_snippets(whitener, recording, time_samples, before, length):
    """Pieces of whitened signal around events, the onset of each moved onto a whole sample.

    Parameters
    ----------
    whitener : Whitener
    recording : Recording; only what is around the events is read
    time_samples : (N,) floats, rising
    before, length : samples ahead of the onset, and in all

    Returns
    -------
    (N, length, C) float32; 0 beyond the ends of the recording
    """
    time = np.asarray(time_samples, dtype=np.float64)
    rate, n = recording.sampling_rate_hz, recording.n_samples
    groups = [[]]
    for row, at in enumerate(time):
        group = groups[-1]
        if group and (at - time[group[-1]] > TOGETHER_S * rate or at - time[group[0]] > LONGEST_S * rate):
            groups.append([])
        groups[-1].append(row)
    out = np.zeros((len(time), length, recording.n_channels), np.float32)
    for group in groups if len(time) else []:
        # A margin, so that moving by a fraction of a sample sees the same neighbours whatever is read together.
        first = max(int(time[group[0]]) - before - 16, 0)
        stop = min(int(time[group[-1]]) + length - before + 16, n)
        if stop > first:
            out[group] = cut_snippets(whitener(recording, first, stop), time[group] - first, before, length)
    return out


def subtract_template(snippets, template):
    """What is left of snippets (N, L, C) without the template (L, C), each with the amplitude that fits it best."""
    amplitude = np.einsum("nlc,lc->n", snippets, template) / max(float((template**2).sum()), 1e-12)
    return snippets - amplitude[:, None, None] * template


# --- Which kinds of events look alike: pairs of templates that noise can mistake for each other.


@dataclass(frozen=True)
class LookAlike:
    """Two kinds: their similarity (1: the same), and the chance that noise makes one of the first look like the
    second."""

    name: str
    other: str
    similarity: float
    chance: float

    def __str__(self):
        share = f"{100 * self.chance:.2g} %" if self.chance < 0.1 else f"{100 * self.chance:.0f} %"
        return f"{self.name} looks like {self.other}: similarity {self.similarity:.2f}, noise alone mistakes {share} of them"


def similar_templates(bank, least_chance=0.01):
    """Pairs of kinds that are mistaken for each other, the worst first.

    Both kinds are put where they are most alike, and an event of mean size is judged as the bank judges it, size
    included: the difference in evidence is on average D and scatters, through noise alone, with a standard deviation S;
    the event is mistaken with a chance of Phi(-D / S).

    Parameters
    ----------
    bank : TemplateBank
    least_chance : 0 < p < 0.5; pairs below are left out

    Returns
    -------
    list of LookAlike

    Examples
    --------
    >>> from evlib.templates.bank import TemplateBank
    >>> shapes = np.array([[[3.0], [0.0], [4.0]], [[3.0], [1.0], [4.0]], [[0.0], [90.0], [0.0]]])
    >>> for pair in similar_templates(TemplateBank(shapes, 0, ("heel", "toe", "clap"))):
    ...     print(pair)
    toe looks like heel: similarity 0.98, noise alone mistakes 31 % of them
    heel looks like toe: similarity 0.98, noise alone mistakes 31 % of them
    """
    if not (isinstance(least_chance, (int, float)) and 0 < least_chance < 0.5):
        raise OptionError(f"least_chance must be a probability between 0 and 0.5, got {least_chance!r} (percent?)")
    similarity = np.clip(bank.similarity(), -1, 1).astype(np.float64)
    norm = bank.norm
    score = similarity * norm[:, None]  # of kind b (columns) in an event of kind a (rows)
    own = bank.log_likelihood_ratio(norm.astype(np.float32))
    lead = own[:, None] - bank.log_likelihood_ratio(score.astype(np.float32))
    # How evidence answers to a small change of the score, for kind b and for a itself.
    slope = score - (score - norm) / (1 + (bank.amplitude_spread * norm) ** 2)
    scatter = np.sqrt(np.maximum(slope**2 + norm[:, None] ** 2 - 2 * similarity * slope * norm[:, None], 1e-12))
    chance = ndtr(-lead / scatter)
    np.fill_diagonal(chance, 0)
    first, second = np.nonzero(chance >= least_chance)
    order = np.argsort(-chance[first, second], kind="stable")
    names = bank.names
    return [
        LookAlike(names[a], names[b], float(similarity[a, b]), float(chance[a, b]))
        for a, b in zip(first[order], second[order], strict=True)
    ]


# --- Relative timing: between the channels that one kind of event reaches, and between the events themselves.


# Envelopes and correlations are looked at in steps of this part of a sample, and interpolated between.
STEPS = 8
RISE = 0.5
INTERVAL = (0.025, 0.975)
# A channel in which an event has less than this signal-to-noise ratio cannot date it.
AUDIBLE = 3.0


@dataclass(frozen=True)
class ChannelDelays:
    """Delays of the channels (C,), seconds, with 95 % intervals; a channel without signal is NaN.

    ``common_s``: the common onset, seconds after the first sample of the snippets (with a reference: later than it).
    ``weight`` (C,): share of each channel in the energy, and so in the common onset.
    """

    delay_s: np.ndarray
    low_s: np.ndarray
    high_s: np.ndarray
    weight: np.ndarray
    common_s: float
    n_events: int


def channel_delays(snippets, sampling_rate_hz, reference=None, n_bootstrap=200, seed=0) -> ChannelDelays:
    """When each channel gets an event of one kind, relative to the common onset.

    Parameters
    ----------
    snippets : (N, L, C) pieces of signal, aligned events of one kind
    sampling_rate_hz : their rate
    reference : (L, C) or None; see the head of this file
    n_bootstrap : means of N events drawn with replacement, from which the intervals come; one event has none (NaN)
    seed : of these draws

    Raises
    ------
    ShapeError, OptionError, DataError : arrays that do not fit, numbers that cannot be, no event or no signal at all

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
    require_int(1, n_bootstrap=n_bootstrap)
    mean = snippets.mean(axis=0)
    energy = (mean**2).sum(axis=0)
    if not energy.any():
        raise DataError("there is no signal in the snippets: their mean is 0 in every channel")
    if reference is None:
        find = _rises
    else:
        reference = np.asarray(reference, dtype=np.float64)
        if reference.shape != mean.shape:
            raise ShapeError(f"reference must have the shape of one snippet, {mean.shape}, got {reference.shape}")

        def find(waves):
            return _lags(waves, reference)

    weight = energy / energy.sum()
    time = find(mean[None])[0]
    known = np.isfinite(time)
    weight = np.where(known, weight, 0) / weight[known].sum()
    common = weight[known] @ time[known]
    low = high = np.full(len(time), np.nan)
    if len(snippets) > 1:
        rng = np.random.default_rng(seed)
        share = rng.multinomial(len(snippets), np.full(len(snippets), 1 / len(snippets)), n_bootstrap) / len(snippets)
        drawn = find((share @ snippets.reshape(len(snippets), -1)).reshape(n_bootstrap, *mean.shape))
        drawn = drawn - (drawn[:, known] @ weight[known])[:, None]
        low, high = np.quantile(drawn, INTERVAL, axis=0) / rate
    delay = (time - common) / rate
    return ChannelDelays(delay, low, high, weight, float(common / rate), len(snippets))


def _rises(waves):
    """(B, C) times in samples at which the envelopes of waves (B, L, C) first reach half of their greatest value."""
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


def _lags(waves, reference):
    """(B, C) lags in samples, within half a snippet, at which waves (B, L, C) correlate best with the reference (L,
    C)."""
    length = waves.shape[1]
    n = scipy.fft.next_fast_len(2 * length, real=True)
    product = scipy.fft.rfft(waves, n, axis=1) * np.conj(scipy.fft.rfft(reference, n, axis=0))
    correlation = scipy.fft.irfft(product, n * STEPS, axis=1)
    reach = length // 2 * STEPS
    correlation = np.concatenate([correlation[:, -reach:], correlation[:, : reach + 1]], axis=1)
    best = np.clip(correlation.argmax(axis=1), 1, 2 * reach - 1)
    around = (np.take_along_axis(correlation, (best + k)[:, None], axis=1)[:, 0] for k in (-1, 0, 1))
    offset, _ = refine_peak(*around)
    lag = (best + np.clip(offset, -0.5, 0.5) - reach) / STEPS
    return np.where(np.abs(correlation).max(axis=1) > 0, lag, np.nan)


def channel_times(bank, pieces, type):
    """When each channel alone says that an event happened, relative to the time found by all of them.

    Parameters
    ----------
    bank : TemplateBank
    pieces : (N, L + 2 * reach, C) pieces of whitened signal, each with the time found at sample ``bank.before +
        reach``; ``reach`` >= 1 are the samples to either side in which a channel may look
    type : (N,) integers

    Returns
    -------
    (N, C) samples, later is positive; NaN where the channel has too little of this kind, or nothing within reach
    """
    reach = (np.shape(pieces)[1] - bank.length) // 2
    if reach < 1:
        raise ShapeError(f"pieces must be longer than the templates, {bank.length} samples, got {np.shape(pieces)}")
    out = np.full((len(pieces), pieces.shape[2]), np.nan)
    audible = np.sqrt((bank.templates.astype(np.float64) ** 2).sum(axis=1)) >= AUDIBLE  # (E, C)
    for e in np.unique(type):
        rows = np.flatnonzero(np.asarray(type) == e)
        windows = np.lib.stride_tricks.sliding_window_view(pieces[rows], bank.length, axis=1)  # (N, lags, C, L)
        score = np.einsum("ntcl,lc->ntc", windows, bank.templates[e], optimize=True)
        best = score.argmax(axis=1)
        inside = np.clip(best, 1, 2 * reach - 1)
        around = (np.take_along_axis(score, (inside + k)[:, None], axis=1)[:, 0] for k in (-1, 0, 1))
        offset, peak = refine_peak(*around)
        found = (best == inside) & (peak > 0) & audible[e]
        out[rows] = np.where(found, inside + offset - reach, np.nan)
    return out


def inter_event_intervals(events):
    """From each event to the next one of another kind.

    Returns
    -------
    before, after : (n,) types
    interval_s : (n,) seconds; events after which no other kind comes are left out

    Examples
    --------
    >>> from evlib.signals.events import Events
    >>> events = Events.from_seconds([1.0, 1.5, 2.25], ["heel", "heel", "toe"], 2000)
    >>> inter_event_intervals(events)
    (array([0, 0]), array([1, 1]), array([1.25, 0.75]))
    """
    n = len(events)
    changes = np.flatnonzero(np.diff(events.type)) + 1
    following = np.searchsorted(changes, np.arange(n), side="right")
    rows = np.flatnonzero(following < len(changes))
    after = changes[following[rows]]
    return events.type[rows], events.type[after], events.onset_s[after] - events.onset_s[rows]
