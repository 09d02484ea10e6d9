"""Re-mixing: unlimited training recordings with exact truth, made from one recording of which little is labelled.

The events that were found are taken out of the whitened signal; what remains is background. A re-mix plants the
templates again, in the order and rhythm that was found (moved, played faster or slower) with new amplitudes, into
background: the recording's own, turned by a random time, or noise of the same spectrum with random phases, in which
no overlooked event hides. Another day has another rhythm: a strange re-mix plants them in one that was not found.
Candidates of a re-mix know whether they are true.
"""

from dataclasses import dataclass

import numpy as np
import scipy.fft

from ..signals.clock import distance_to_nearest, distance_to_own, split_time
from ..signals.events import Events
from ..signals.recording import add_windows
from .bank import cut_snippets
from .learn import nearest_label
from .overlaps import cut_apart
from .pursue import Candidates, crowded_share, explain, find_candidates

# Longer signals are cut into pieces of this length, one piece a re-mix.
PIECE_S = 300.0
# How far a candidate may be from the planted event that it stands for.
MATCH_S = 0.005
TEMPO_SPREAD = 0.03
# Strange rhythms: another tempo (spread of its logarithm), kinds on their own or each event alone (seconds between
# events, and between events of a kind beyond its refractory period), kinds that change places, kinds that are missing
# (share).
RHYTHMS = ("tempo", "poisson", "isolated", "swapped", "missing")
STRANGE_TEMPO, ALONE_S, LONGEST_WAIT_S, SHARE_MISSING = 0.5, (0.7, 3.0), 8.0, 0.4
# A candidate of the background with less than this was noise; with more it may be an overlooked event.
OVERLOOKED_LLR = 4.0


@dataclass(frozen=True, eq=False)
class Examples:
    """Candidates with their truth: ``target`` (n,) 1 for a true event, ``weight`` (n,) 0 where the truth is unknown.

    ``n_missed``: (E,) true events that no candidate stands for; ``error`` (n,) samples from the true time, NaN without
    one; ``complete``: there are stretches in which every event is labelled.
    """

    candidates: Candidates
    target: np.ndarray
    weight: np.ndarray
    n_missed: np.ndarray
    error: np.ndarray
    complete: bool = True


def label_examples(candidates, labels, match_samples, apart_samples=None):
    """Compare candidates with labels: which are true, which cannot be known.

    In completely labelled spans everything is known. Elsewhere a labelled event says that no other of its type begins
    within the refractory period, ``apart_samples`` (E,), and none of another type in the same moment; everything else
    has weight 0.
    """
    row, label, distance = nearest_label(candidates, labels, match_samples)
    target, error = np.zeros(len(candidates), np.float32), np.full(len(candidates), np.nan)
    target[row], error[row] = 1.0, distance
    known = labels.is_labelled(np.floor(candidates.time + 0.5).astype(int))
    if apart_samples is not None:
        known = known | (distance_to_nearest(candidates.time, np.sort(labels.time_samples)) <= match_samples)
        own = distance_to_own(candidates.time, candidates.type, labels.time_samples, labels.type)
        known |= own < np.asarray(apart_samples)[candidates.type]
    weight = np.maximum(known, target).astype(np.float32)
    missed = np.bincount(np.delete(labels.type, label), minlength=len(labels.names))
    complete = labels.labelled_spans is None or len(labels.labelled_spans) > 0
    return Examples(candidates, target, weight, missed, error, complete)


@dataclass(frozen=True, eq=False)
class Piece:
    """A recording taken apart: background (n, C), events (time, type), doubtful Candidates, variation (N, L, C)."""

    background: np.ndarray
    time: np.ndarray
    type: np.ndarray
    doubtful: Candidates
    variation: np.ndarray


class HybridRecordings:
    """Makes re-mixes from whitened signals, what is labelled in them and what was found in them.

    Parameters
    ----------
    bank : TemplateBank
    signals : whitened recordings, (n, C) each
    labels : Events of each, with ``labelled_spans``
    prior_logit : a candidate with a greater llr is taken for an event where nothing is labelled
    own_background : share of re-mixes that keep the recording's own background
    apart_samples : (E,) refractory periods, which strange rhythms keep too
    """

    def __init__(self, bank, signals, labels, prior_logit, rate, own_background=1 / 3, apart_samples=None):
        self.bank, self.rate, self.own_background = bank, rate, own_background
        self.apart = np.zeros(len(bank.names)) if apart_samples is None else apart_samples
        self.pieces, crowded = [], []
        length = int(PIECE_S * rate)
        for signal, table in zip(signals, labels, strict=True):
            n_pieces = max(1, round(len(signal) / length))
            edges = np.linspace(0, len(signal), n_pieces + 1).astype(int)
            for start, stop in zip(edges[:-1], edges[1:], strict=True):
                piece, share = self._take_apart(
                    signal[start:stop], table.within(start, stop).shift(-start), prior_logit
                )
                self.pieces.append(piece)
                crowded.append(share * (stop - start))
        # Share of the recordings in which templates do not fit.
        self.crowded_share = float(sum(crowded) / max(sum(map(len, signals)), 1))

    def _take_apart(self, signal, labels, prior_logit):
        """Background and the events that were in it, and the share in which templates do not fit."""
        found, _ = explain(self.bank, signal)
        row, label, _ = nearest_label(found, labels, MATCH_S * 4 * self.rate)
        labelled = labels.is_labelled(np.floor(found.time + 0.5).astype(int))
        is_event = ~labelled & (found.llr > prior_logit) & (found.margin > 0)
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
        # Noise alone leaves 1 on average, give or take this much; only what is clearly more is variation.
        luck = 3 * np.sqrt(2 / (count * left[0].size)) if len(left) else np.inf
        share = np.where(mean > 1 + luck, 1 - 1 / np.maximum(mean, 1), 0.0)
        return left * np.sqrt(share[events.type])[:, None, None].astype(np.float32)

    def enough(self, number):
        """How many re-mixes to draw in place of ``number`` of full length: more where recordings are short."""
        longest = max(len(piece.background) for piece in self.pieces) / self.rate
        return number * int(np.clip(PIECE_S / longest, 1, 4))

    @property
    def rhythms(self):
        """Which re-mixes a network of context learns from: found rhythms (False) and strange ones (True).

        Kinds that look alike are told apart by their rhythm alone, as early heart beats are: in any other they would be
        named at random, and nothing could be learned.
        """
        return (False, True) if self.bank.trust >= 1 else (False,)

    def draw(self, rng, find=None, strange=False) -> Examples:
        """Candidates of one re-mix with their truth; ``find`` (signal -> Candidates) finds them, default: the
        templates."""
        signal, truth, overlooked = self.mix(rng, RHYTHMS[rng.integers(len(RHYTHMS))] if strange else None)
        find = (
            (lambda signal: find_candidates(self.bank, lambda a, b: signal[a:b], len(signal))) if find is None else find
        )
        examples = label_examples(find(signal), truth, MATCH_S * self.rate)
        # A candidate where the background had one before is nobody's mistake.
        row, _, _ = nearest_label(examples.candidates, overlooked, MATCH_S * 2 * self.rate)
        examples.weight[row] = examples.target[row]
        return examples

    def mix(self, rng, rhythm=None):
        """One re-mix of one piece: whitened signal (n, C), the events in it, and what the background may hide.

        ``rhythm``: one of ``RHYTHMS``; None for the one that was found
        """
        piece = self.pieces[rng.integers(len(self.pieces))]
        background, time, type = piece.background, piece.time, piece.type
        n = len(background)
        turn = int(rng.integers(n))
        own = rng.random() < self.own_background
        signal = np.roll(background, turn, axis=0) if own else _surrogate(background, rng)
        tempo = np.exp(rng.normal(0, TEMPO_SPREAD))
        time = time * tempo + rng.uniform(0, self.rate)
        if rhythm is not None and len(time):
            time, type = strange_rhythm(rhythm, time, type, n, self.rate, self.apart, rng)
        keep = time < n - self.bank.length
        time, type = time[keep], type[keep]
        donor = _donors(type, piece.type, rng)
        spread = self.bank.amplitude_spread
        amplitude = np.exp(spread * rng.standard_normal(len(time)) - 0.5 * spread**2)
        signal = signal + self.bank.render(n, time, type, amplitude)
        self._vary(signal, time, piece.variation[donor] * rng.choice([-1.0, 1.0], (len(time), 1, 1)))
        doubtful = piece.doubtful if own else piece.doubtful[:0]
        return signal, self._events(time, type), self._events((doubtful.time + turn) % n, doubtful.type)

    def _events(self, time, type):
        return Events(*split_time(time), type, self.bank.names, self.rate)

    def _vary(self, signal, time, variation):
        """Add to each planted event how another of its type differed from the template."""
        add_windows(signal, np.floor(time + 0.5).astype(int) - self.bank.before, variation)


def one_at_a_time(bank, signal, wanted, others, rng):
    """Recorded events cut out of their neighbours and set into white noise one by one: whitened signal (n, C), and
    Events.

    ``bank`` knows what neighbours look like; ``wanted``, ``others``: Events of ``signal``, whitened (n, C).
    """
    time, type = (np.concatenate([getattr(e, name) for e in (wanted, others)]) for name in ("time_samples", "type"))
    amplitude = np.ones(len(time))
    for _ in range(2):
        pieces = cut_apart(bank, signal, time, type, amplitude)
        amplitude = bank.amplitude(np.einsum("nlc,nlc->n", pieces, bank.shapes[type]), type)
    gaps = (bank.length + rng.uniform(*ALONE_S, len(wanted)) * wanted.sampling_rate_hz).astype(int)
    sample = np.cumsum(gaps)
    out = rng.standard_normal((sample[-1] + bank.length + gaps[0], signal.shape[1])).astype(np.float32)
    out[sample[:, None] + np.arange(bank.length) - bank.before] = pieces[: len(wanted)]
    whole = np.array([[0, len(out)]])
    columns = (sample, np.zeros(len(sample)), wanted.type)
    return out, Events(*columns, wanted.names, wanted.sampling_rate_hz, labelled_spans=whole)


def strange_rhythm(rhythm, time, type, n, rate, apart, rng):
    """Times (m,) and types of events in another rhythm than the one found, of kinds that were found; sorted by time.

    Parameters
    ----------
    rhythm : "tempo" (faster or slower), "poisson" (each kind on its own), "isolated" (one event at a time), "swapped"
        (kinds change places) or "missing" (some kinds do not happen)
    time, type : (k,) what was found, in samples
    n, rate, apart : samples in the re-mix, Hz, refractory periods (E,) in samples
    """
    kinds = np.unique(type)
    if rhythm == "tempo":
        time = time * np.exp(rng.uniform(-STRANGE_TEMPO, STRANGE_TEMPO))
    elif rhythm == "swapped":
        type = rng.permutation(kinds)[np.searchsorted(kinds, type)]
    elif rhythm == "missing":
        kept = np.isin(type, kinds[rng.random(len(kinds)) >= SHARE_MISSING])
        time, type = time[kept], type[kept]
    elif rhythm == "isolated":
        time = np.cumsum(rng.uniform(*ALONE_S, int(n / (ALONE_S[0] * rate)) + 1)) * rate
        type = rng.choice(kinds, len(time))
    else:
        wait = rng.uniform(0.2, 1.0, len(kinds)) * LONGEST_WAIT_S * rate
        count = int(n / max((apart[kinds] + wait).min() / 2, 1)) + 1
        gaps = apart[kinds, None] + rng.exponential(1.0, (len(kinds), count)) * wait[:, None]
        time, type = np.cumsum(gaps, axis=1).ravel() - 0.5 * rate, np.repeat(kinds, count)
    order = np.argsort(time, kind="stable")
    time, type = time[order], type[order]
    inside = (time >= 0) & (time < n)
    time, type = time[inside], type[inside]
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
