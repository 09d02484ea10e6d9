"""Relative timing: between the channels that one kind of event reaches, and between the events themselves.

When does a channel get its event? Its waveform differs from the other channels', so that no common shape can be
laid over both. Two definitions hold all the same:

* with a ``reference``, the same shapes without delays: the lag at which the channel correlates best with its reference;
* without one: the *rise*, the moment at which the envelope first reaches half of its largest value. It moves with the
  channel exactly, sample by sample; between channels whose envelopes differ it is good to about half a sample.

Delays are relative to the common onset, the mean over channels weighted by their energy.
"""

from dataclasses import dataclass

import numpy as np
import scipy.fft

from .errors import DataError, ShapeError
from .options import check_whole
from .templates import refine_peak
from .timebase import check_rate

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
    rate = check_rate(sampling_rate_hz)
    snippets = np.asarray(snippets, dtype=np.float64)
    if snippets.ndim != 3 or min(snippets.shape[1:]) == 0:
        raise ShapeError(f"snippets must be (events, samples, channels), got {snippets.shape} (one event? add an axis)")
    if len(snippets) == 0:
        raise DataError("there are no events to take delays from")
    if not np.isfinite(snippets).all():
        raise DataError("snippets must be finite; found NaN or infinity")
    check_whole(1, n_bootstrap=n_bootstrap)
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
    """(B, C) lags in samples, within half a snippet, at which waves (B, L, C) correlate best with the reference (L, C)."""
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
    pieces : (N, L + 2 * reach, C) pieces of whitened signal, each with the time found at sample ``bank.before + reach``;
        ``reach`` >= 1 are the samples to either side in which a channel may look
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


def time_to_next_kind(events):
    """From each event to the next one of another kind.

    Returns
    -------
    before, after : (n,) types
    interval_s : (n,) seconds; events after which no other kind comes are left out

    Examples
    --------
    >>> from evlib.events import Events
    >>> events = Events.from_seconds([1.0, 1.5, 2.25], ["heel", "heel", "toe"], 2000)
    >>> time_to_next_kind(events)
    (array([0, 0]), array([1, 1]), array([1.25, 0.75]))
    """
    n = len(events)
    changes = np.flatnonzero(np.diff(events.type)) + 1
    following = np.searchsorted(changes, np.arange(n), side="right")
    rows = np.flatnonzero(following < len(changes))
    after = changes[following[rows]]
    return events.type[rows], events.type[after], events.onset_s[after] - events.onset_s[rows]
