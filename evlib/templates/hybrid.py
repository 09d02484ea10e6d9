"""Hybrid recordings: unlimited training recordings with exact truth, made from one of which little is labelled.

The events that were found are taken out of the whitened signal; what remains is background. A hybrid recording plants
the templates again, in the order and rhythm that was found (moved, played faster or slower) with new amplitudes, into
background: the recording's own, turned by a random time, or noise of the same spectrum with random phases, in which
no overlooked event hides. Another day has another rhythm, so some hybrid recordings plant the events in a rhythm that
was not found. Of every candidate in a hybrid recording it is known whether it is true.

Source: hybrid recordings as spike sorters are validated on, e.g. Rossant et al., Nature Neuroscience 19 (2016).
"""

from dataclasses import dataclass

import numpy as np
import scipy.fft

from ..signals.clock import distance_to_nearest, distance_to_own, split_time
from ..signals.events import Events
from ..signals.recording import add_windows
from .bank import cut_snippets
from .learn import PRIOR_LOGIT, nearest_label
from .overlaps import cut_apart
from .pursue import Candidates, crowded_share, explain, find_candidates

# Longer signals are cut into pieces of about this many seconds, one piece for each hybrid recording.
PIECE_S = 300.0
# How far a candidate may be from the planted event that it detects, in seconds.
MATCH_S = 0.005
# Spread of the logarithm of the tempo at which a found rhythm is played.
TEMPO_SPREAD = 0.03
# Rhythms that were not found, see `new_rhythm`.
RHYTHMS = ("tempo", "poisson", "isolated", "swapped", "missing")
# Of these: greatest change of the logarithm of the tempo; seconds between isolated events; longest mean wait for the
# next event of a type, in seconds; probability that a type is missing.
NEW_TEMPO, ISOLATED_S, LONGEST_WAIT_S, SHARE_MISSING = 0.5, (0.7, 3.0), 8.0, 0.4
# Share of hybrid recordings that keep the recording's own background.
OWN_BACKGROUND = 1 / 3
# A candidate of the background with a lower log-likelihood ratio is noise; a higher one may be an overlooked event.
OVERLOOKED_LLR = 4.0


@dataclass(frozen=True, eq=False)
class Examples:
    """Candidates with their truth: ``target`` (n,) 1 for a true event, ``weight`` (n,) 0 where the truth is unknown.

    ``n_missed``: (E,) true events that no candidate detects; ``error`` (n,) samples from the true time, NaN without
    one; ``complete``: there are stretches in which every event is labelled.
    """

    candidates: Candidates
    target: np.ndarray
    weight: np.ndarray
    n_missed: np.ndarray
    error: np.ndarray
    complete: bool = True


def label_examples(candidates: Candidates, labels: Events, match_samples: float, apart_samples=None) -> Examples:
    """Compare candidates with labels: which are true, and of which it cannot be known.

    In completely labelled spans everything is known. Elsewhere a labelled event implies that no other of its type
    begins within the refractory period, ``apart_samples`` (E,), and none of another type at the same moment; everything
    else has weight 0.
    """
    row, label, distance = nearest_label(candidates, labels, match_samples)
    target, error = np.zeros(len(candidates), np.float32), np.full(len(candidates), np.nan)
    target[row], error[row] = 1.0, distance
    known = labels.is_labelled(split_time(candidates.time)[0])
    if apart_samples is not None:
        known = known | (distance_to_nearest(candidates.time, labels.time_samples) <= match_samples)
        own = distance_to_own(candidates.time, candidates.type, labels.time_samples, labels.type)
        known |= own < np.asarray(apart_samples)[candidates.type]
    weight = np.maximum(known, target).astype(np.float32)
    missed = np.bincount(np.delete(labels.type, label), minlength=len(labels.names))
    complete = labels.labelled_spans is None or len(labels.labelled_spans) > 0
    return Examples(candidates, target, weight, missed, error, complete)


@dataclass(frozen=True, eq=False)
class Piece:
    """A recording taken apart: background (n, C), events (time, type), doubtful Candidates, and how each event differs
    from its template, ``variation`` (N, L, C)."""

    background: np.ndarray
    time: np.ndarray
    type: np.ndarray
    doubtful: Candidates
    variation: np.ndarray


class HybridRecordings:
    """Makes hybrid recordings from whitened signals, what is labelled in them and what was found in them.

    Parameters
    ----------
    bank : TemplateBank
    signals : whitened recordings, (n, C) each
    labels : Events of each, with ``labelled_spans``; elsewhere what is likelier an event than not is one
    apart_samples : (E,) refractory periods, which new rhythms keep too

    Attributes
    ----------
    pieces : list of Piece
    crowded_share : share of the recordings in which templates do not fit
    """

    def __init__(self, bank, signals, labels, apart_samples):
        self.bank, self.rate, self.apart = bank, labels[0].sampling_rate_hz, apart_samples
        self.pieces, crowded = [], 0.0
        for signal, table in zip(signals, labels, strict=True):
            edges = np.linspace(0, len(signal), max(1, round(len(signal) / int(PIECE_S * self.rate))) + 1).astype(int)
            for start, stop in zip(edges[:-1], edges[1:], strict=True):
                own = table.within(start, stop).shift(-start)
                piece, share = self._take_apart(signal[start:stop], own)
                self.pieces.append(piece)
                crowded += share * (stop - start)
        self.crowded_share = float(crowded / max(sum(map(len, signals)), 1))

    def _take_apart(self, signal, labels):
        """A Piece of a signal, and the share of it in which templates do not fit."""
        found, _ = explain(self.bank, signal)
        row, _, _ = nearest_label(found, labels, MATCH_S * 4 * self.rate)
        labelled = labels.is_labelled(split_time(found.time)[0])
        is_event = ~labelled & (found.llr > PRIOR_LOGIT) & (found.margin > 0)
        is_event[row] = True
        events = found[is_event]
        background = signal - self.bank.render(len(signal), events.time, events.type, events.amplitude)
        doubtful = found[~is_event & ~labelled & (found.llr > OVERLOOKED_LLR)]
        piece = Piece(background, events.time, events.type, doubtful, self._variation(background, events))
        return piece, crowded_share(self.bank, found, len(signal))

    def _variation(self, background, events):
        """How events differ from their template, (N, L, C): what is left of each beyond its share of noise."""
        left = cut_snippets(background, events.time, self.bank.before, self.bank.length)
        energy, n_types = (left.astype(np.float64) ** 2).mean((1, 2)), len(self.bank.names)
        count = np.maximum(np.bincount(events.type, minlength=n_types), 1)
        mean = np.bincount(events.type, energy, n_types) / count
        # Noise alone leaves 1 on average, up to chance; only what is clearly more is variation.
        chance = 3 * np.sqrt(2 / (count * left[0].size)) if len(left) else np.inf
        share = np.where(mean > 1 + chance, 1 - 1 / np.maximum(mean, 1), 0.0)
        return left * np.sqrt(share[events.type])[:, None, None].astype(np.float32)

    def enough(self, number: int) -> int:
        """How many hybrid recordings replace ``number`` of full length: more where recordings are short."""
        longest = max(len(piece.background) for piece in self.pieces) / self.rate
        return number * int(np.clip(PIECE_S / longest, 1, 4))

    @property
    def rhythms(self) -> tuple:
        """The rhythms that a network of context learns from: found ones (False) and new ones (True).

        Types that look alike may differ in their rhythm alone, as early heart beats are: in a new rhythm their names
        would be random, and nothing could be learned.
        """
        return (False, True) if self.bank.evidence_scale >= 1 else (False,)

    def draw(self, rng, candidates_of=None, strange: bool = False) -> Examples:
        """Candidates of one hybrid recording with their truth.

        ``candidates_of``: signal -> Candidates, default: those of the templates; ``strange``: in a rhythm that was not
        found
        """
        signal, truth, overlooked = self.mix(rng, RHYTHMS[rng.integers(len(RHYTHMS))] if strange else None)
        candidates = find_candidates(self.bank, signal) if candidates_of is None else candidates_of(signal)
        examples = label_examples(candidates, truth, MATCH_S * self.rate)
        # Where the background had a doubtful candidate before, one that is not planted is not counted as an error.
        row, _, _ = nearest_label(candidates, overlooked, MATCH_S * 2 * self.rate)
        examples.weight[row] = examples.target[row]
        return examples

    def mix(self, rng, rhythm: str | None = None):
        """One hybrid recording of one piece: whitened signal (n, C), the events in it, and what its background may
        hide.

        ``rhythm``: one of ``RHYTHMS``; None for the one that was found
        """
        piece = self.pieces[rng.integers(len(self.pieces))]
        n, type = len(piece.background), piece.type
        turn = int(rng.integers(n))
        own = rng.random() < OWN_BACKGROUND
        signal = np.roll(piece.background, turn, axis=0) if own else _surrogate(piece.background, rng)
        time = piece.time * np.exp(rng.normal(0, TEMPO_SPREAD)) + rng.uniform(0, self.rate)
        if rhythm is not None and len(time):
            time, type = new_rhythm(rhythm, time, type, n, self.rate, self.apart, rng)
        keep = time < n - self.bank.length
        time, type = time[keep], type[keep]
        donor = _donors(type, piece.type, rng)
        spread = self.bank.amplitude_spread
        amplitude = np.exp(spread * rng.standard_normal(len(time)) - 0.5 * spread**2)
        signal = signal + self.bank.render(n, time, type, amplitude)
        # Each event also differs from its template as another of its type did, with either sign.
        variation = piece.variation[donor] * rng.choice([-1.0, 1.0], (len(time), 1, 1))
        add_windows(signal, split_time(time)[0] - self.bank.before, variation)
        doubtful = piece.doubtful if own else piece.doubtful[:0]
        return signal, self._events(time, type), self._events((doubtful.time + turn) % n, doubtful.type)

    def _events(self, time, type):
        return Events(*split_time(time), type, self.bank.names, self.rate)


def one_at_a_time(bank, signal, wanted: Events, others: Events, rng):
    """Recorded events cut out of their neighbours and set into white noise one by one: whitened signal (n, C), Events.

    ``bank`` explains the neighbours; ``wanted``, ``others``: Events of ``signal``, whitened (n, C).
    """
    time, type = (np.concatenate([getattr(e, name) for e in (wanted, others)]) for name in ("time_samples", "type"))
    amplitude = np.ones(len(time))
    for _ in range(2):
        pieces = cut_apart(bank, signal, time, type, amplitude)
        amplitude = bank.amplitude(bank.own_scores(pieces, type), type)
    gaps = (bank.length + rng.uniform(*ISOLATED_S, len(wanted)) * wanted.sampling_rate_hz).astype(int)
    sample = np.cumsum(gaps)
    out = rng.standard_normal((sample[-1] + bank.length + gaps[0], signal.shape[1])).astype(np.float32)
    out[sample[:, None] + np.arange(bank.length) - bank.before] = pieces[: len(wanted)]
    whole, none = np.array([[0, len(out)]]), np.zeros(len(sample))
    return out, Events(sample, none, wanted.type, wanted.names, wanted.sampling_rate_hz, labelled_spans=whole)


def new_rhythm(rhythm: str, time, type, n: int, rate: float, apart, rng):
    """Times (m,) and types of events in another rhythm than the one found, of types that were found; sorted by time.

    Parameters
    ----------
    rhythm : "tempo" (faster or slower), "poisson" (each type on its own), "isolated" (one event at a time), "swapped"
        (types change places) or "missing" (some types do not happen)
    time, type : (k,) what was found, in samples
    n, rate, apart : samples in the hybrid recording, Hz, refractory periods (E,) in samples
    """
    kinds = np.unique(type)
    if rhythm == "tempo":
        time = time * np.exp(rng.uniform(-NEW_TEMPO, NEW_TEMPO))
    elif rhythm == "swapped":
        type = rng.permutation(kinds)[np.searchsorted(kinds, type)]
    elif rhythm == "missing":
        kept = np.isin(type, kinds[rng.random(len(kinds)) >= SHARE_MISSING])
        time, type = time[kept], type[kept]
    elif rhythm == "isolated":
        time = np.cumsum(rng.uniform(*ISOLATED_S, int(n / (ISOLATED_S[0] * rate)) + 1)) * rate
        type = rng.choice(kinds, len(time))
    else:
        wait = rng.uniform(0.2, 1.0, len(kinds)) * LONGEST_WAIT_S * rate
        count = int(n / max((apart[kinds] + wait).min() / 2, 1)) + 1
        gaps = apart[kinds, None] + rng.exponential(1.0, (len(kinds), count)) * wait[:, None]
        time, type = np.cumsum(gaps, axis=1).ravel() - 0.5 * rate, np.repeat(kinds, count)
    order = np.argsort(time, kind="stable")
    order = order[(time[order] >= 0) & (time[order] < n)]
    time, type = time[order], type[order]
    # Of events that another tempo or another name brings too close to the one before, the later is left out.
    keep = np.ones(len(time), bool)
    for kind in kinds:
        rows = np.flatnonzero(type == kind)
        keep[rows[1:][np.diff(time[rows]) < apart[kind]]] = False
    return time[keep], type[keep]


def _donors(type, found, rng):
    """(n,) for every event a random one of the same type among those that were ``found``."""
    donor = np.empty(len(type), dtype=np.int64)
    for e in np.unique(type):
        rows = type == e
        donor[rows] = rng.choice(np.flatnonzero(found == e), rows.sum())
    return donor


def _surrogate(background, rng):
    """Noise with the power spectrum of the background, channel by channel, and random phases."""
    n = len(background)
    spectrum = np.abs(scipy.fft.rfft(background, axis=0))
    phase = rng.uniform(0, 2 * np.pi, spectrum.shape)
    return scipy.fft.irfft(spectrum * np.exp(1j * phase), n, axis=0).astype(np.float32)
