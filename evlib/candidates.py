"""Candidates: everything in a recording that might be an event, by matching pursuit with a template bank.

Events that stand out are explained first: where a template's log-likelihood ratio is the greatest of all types and
of all times nearby, its event is put there (at a time finer than a sample) and its share of every type's score is
taken away, so that an event is not taken for a second one of a similar kind, and overlapping events come apart. What
then remains gives the doubtful candidates. Where an event looks like no template, ever more of them would explain it and
each other: a crowd is the limit, and there the pursuit gives up, so that work is linear in the length of the recording
whatever is in it. Signals pass through in blocks: memory does not grow with the recording except for the candidates
themselves.

Source: greedy template matching as in spike sorting (Pachitariu et al. 2016; Yger et al. 2018), here with a Gaussian
prior on the amplitude and sub-sample subtraction from tabulated overlaps.
"""

from dataclasses import dataclass, fields, replace

import numpy as np
from scipy.ndimage import maximum_filter1d

from .repicking import CROWD, PORTION, n_near, repick
from .templates import nearest_step, refine_peak

# An event is explained away when its log-likelihood ratio exceeds this; noise reaches it about once in 20 s and type.
CERTAIN = 6.0
# Below this a candidate is not worth a look: its posterior odds are under one in a hundred even in strict rhythm.
DOUBTFUL = 3.0
# Another type counts as an alternative to an explained event when it explains this share of it.
ALTERNATIVE_SHARE = 0.5
# A round explains one event in two template lengths; where templates are long and events dense, many are needed.
ROUNDS = 40
# Peaks of one type are compared with what is around them one by one while that reads each sample this often at most.
DENSE = 4
# At least so much at a time, and so many template lengths, lest a block be little beside what it sees of its neighbours.
BLOCK_SAMPLES, BLOCK_LENGTHS = 1 << 17, 32


@dataclass(frozen=True, eq=False)
class Candidates:
    """Possible events sorted by time; every field is an (n,) array.

    ``time`` samples (float), ``type``, ``llr`` log-likelihood ratio given the explained events around it, ``alone`` the
    same without them, ``margin`` by how much ``alone`` beats the best other type at the place, ``amplitude`` (1 is a
    mean event), ``misfit`` standardised energy that is left where the event is taken away, ``frame`` the logit of a frame
    network, 0 where there is none.
    """

    time: np.ndarray
    type: np.ndarray
    llr: np.ndarray
    alone: np.ndarray
    margin: np.ndarray
    amplitude: np.ndarray
    misfit: np.ndarray
    frame: np.ndarray = None

    def __post_init__(self):
        if self.frame is None:
            object.__setattr__(self, "frame", np.zeros(len(self.time)))

    def __len__(self):
        return len(self.time)

    def __getitem__(self, rows) -> "Candidates":
        return Candidates(*(getattr(self, field.name)[rows] for field in fields(self)))

    def shift(self, n_samples) -> "Candidates":
        """All times moved."""
        return replace(self, time=self.time + n_samples)

    @staticmethod
    def concatenate(parts) -> "Candidates":
        """Join and sort by time."""
        parts = list(parts)
        joined = Candidates(*(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(Candidates)))
        return joined[np.lexsort((joined.type, joined.time))]


def find_candidates(bank, read, n_samples, block=None, advance=None) -> Candidates:
    """Candidates of a whole recording, block by block.

    Parameters
    ----------
    bank : TemplateBank
    read : (start, stop) -> whitened signal (stop - start, C)
    block : samples at a time, by default as many as are quick; the same candidates come out for any value, because each block
        sees enough of its neighbours to decide alike; inside of a crowd, see `crowded_share`, a few may differ
    advance : called with the number of samples done, for a progress bar
    """
    halo = 16 * bank.length
    block = max(BLOCK_SAMPLES, BLOCK_LENGTHS * bank.length) if block is None else block
    none = np.zeros(0)
    parts = [Candidates(none, none.astype(np.int64), none, none, none, none, none)]
    for start in range(0, n_samples, block):
        stop = min(start + block, n_samples)
        low, high = max(start - halo, 0), min(stop + halo, n_samples)
        found = explain(bank, read(low, high))[0].shift(low)
        # A time just before `start` rounds to it: blocks share no candidate and lose none.
        parts.append(
            found[(found.time >= start - 0.5) & (found.time < stop - 0.5)]
            if stop < n_samples
            else found[found.time >= start - 0.5]
        )
        if advance is not None:
            advance(stop - start)
    return Candidates.concatenate(parts)


def explain(bank, whitened):
    """Candidates in one piece of whitened signal (n, C), and what is left of the signal without the explained events."""
    score = bank.scores(whitened)
    time, type, peak, score = repick(bank, whitened, score, *_pursue(bank, score))
    amplitude = bank.amplitude(peak, type)
    residual = whitened - bank.render(len(whitened), time, type, amplitude)
    llr = bank.log_likelihood_ratio(peak, type)
    margin, alternatives = _alternatives(bank, score, time, type, amplitude, llr)
    doubtful = _doubtful(bank, score)
    energy = np.r_[0.0, np.cumsum((residual.astype(np.float64) ** 2).sum(1))]
    explained = Candidates(time, type, llr, llr, margin, amplitude, _misfit(bank, energy, time, 0.0, whitened.shape))
    weak_peak = doubtful[2]
    weak_llr = bank.log_likelihood_ratio(weak_peak, doubtful[1])
    weak_misfit = _misfit(bank, energy, doubtful[0], weak_peak**2, whitened.shape)
    weak_amplitude = bank.amplitude(weak_peak, doubtful[1])
    weak = Candidates(doubtful[0], doubtful[1], weak_llr, weak_llr, weak_llr, weak_amplitude, weak_misfit)
    return Candidates.concatenate([explained, weak, alternatives]), residual


def _misfit(bank, energy, time, own, shape):
    """Energy of the residual under a template, less what noise has, in standard deviations of noise."""
    n, channels = shape
    start = np.clip(np.floor(time).astype(int) - bank.before, 0, n)
    stop = np.clip(start + bank.length, 0, n)
    return (energy[stop] - energy[start] - own - (stop - start) * channels) / np.sqrt(2.0 * bank.length * channels)


def _pursue(bank, score):
    """Explain events round by round; ``score`` (n, E) is left without them. Returns time, type, peak score.

    Where a crowd has been explained the pursuit gives up: within half a template length nothing more is explained.
    """
    n, length = len(score), bank.length
    lags = np.arange(-(length - 1), length)
    times, types, peaks = [np.zeros(0)], [np.zeros(0, np.int64)], [np.zeros(0)]
    llr = bank.log_likelihood_ratio(score)
    best, given_up, explained = llr.max(axis=1), np.zeros(n, bool), np.zeros(0)
    for _ in range(ROUNDS):
        lead = (best > CERTAIN) & (best == maximum_filter1d(best, 2 * length + 1, mode="constant", cval=-np.inf))
        sample = np.flatnonzero(lead[1:-1]) + 1
        if len(sample) == 0:
            break
        crowded = n_near(sample, explained, length) >= CROWD
        if crowded.any():
            given_up |= _covered(sample[crowded] - length // 2, sample[crowded] + length // 2 + 1, n)
            best[given_up] = -np.inf
            sample = sample[~crowded]
        sample, type = _decide_type(bank, llr, sample)
        offset, peak = refine_peak(*(score[sample + step, type].astype(np.float64) for step in (-1, 0, 1)))
        amplitude = bank.amplitude(peak, type) * bank.norm[type]
        place, step = nearest_step(sample + offset)
        index = place[:, None] + lags
        inside = (index >= 0) & (index < n)
        # Leaders lie about a template or more apart, so the reach of every third one touches no other.
        for part in (slice(0, None, 3), slice(1, None, 3), slice(2, None, 3)):
            rows, keep = index[part], inside[part]
            share = bank.overlap[type[part], step[part]] * amplitude[part, None, None].astype(np.float32)
            touched = rows[keep]
            score[touched] -= share[keep]
            llr[touched] = bank.log_likelihood_ratio(score[touched])
            best[touched] = np.where(given_up[touched], -np.inf, llr[touched].max(axis=1))
        explained = np.sort(np.r_[explained, sample + offset])
        times.append(sample + offset)
        types.append(type)
        peaks.append(peak)
    return np.concatenate(times), np.concatenate(types), np.concatenate(peaks)


def _covered(start, stop, n):
    """(n,) which samples lie in any of the stretches [start, stop)."""
    step = np.bincount(np.clip(start, 0, n), minlength=n + 1) - np.bincount(np.clip(stop, 0, n), minlength=n + 1)
    return np.cumsum(step[:n]) > 0


def crowded_share(bank, candidates, n_samples):
    """Share of a recording in which templates do not fit: crowds of certain events lie there, which explain each other.

    There the pursuit gave up: one real event may stand as many, and others may be missing.
    """
    time = candidates.time[(candidates.llr > CERTAIN) & (candidates.llr == candidates.alone)]
    crowd = time[n_near(time, time, bank.length) >= CROWD]
    middle = np.floor(crowd + 0.5).astype(int)
    reach = bank.length // 2
    return float(_covered(middle - reach, middle + reach + 1, n_samples).mean()) if n_samples else 0.0


def _decide_type(bank, llr, sample):
    """Which type it is that leads at each sample, and its own best sample nearby.

    Where events vary in shape, a small lead in evidence means little and the more frequent type is taken.
    """
    type = llr[sample].argmax(axis=1)
    if bank.trust >= 1 or len(bank.names) == 1:
        return sample, type
    reach = bank.reach
    index = np.clip(sample[:, None] + np.arange(-reach, reach + 1), 1, len(llr) - 2)
    near = llr[index]  # (n, lags, E)
    lag, best = near.argmax(axis=1), near.max(axis=1)
    value = bank.trust * (best - bank.log_rate) + bank.log_rate
    value[best <= CERTAIN] = -np.inf
    type = value.argmax(axis=1)
    return index[np.arange(len(sample)), lag[np.arange(len(sample)), type]], type


def _alternatives(bank, score, time, type, amplitude, llr):
    """Other types at explained events: the lead over the best (n,), and those that come close, as candidates."""
    portion = max(1, PORTION // ((2 * bank.reach + 1) * len(bank.names)))
    none = np.zeros(0)
    margins, found = [none], [Candidates(none, none.astype(np.int64), *[none] * 5)]
    for start in range(0, len(time), portion):
        rows = slice(start, start + portion)
        margin, some = _alternatives_of(bank, score, time[rows], type[rows], amplitude[rows], llr[rows])
        margins.append(margin)
        found.append(some)
    return np.concatenate(margins), Candidates.concatenate(found)


def _alternatives_of(bank, score, time, type, amplitude, llr):
    """The same for a few events, in one array."""
    sample, step = nearest_step(time)
    reach = bank.reach
    lags = np.arange(-reach, reach + 1)
    index = np.clip(sample[:, None] + lags, 0, len(score) - 1)
    share = bank.overlap[type[:, None], step[:, None], bank.length - 1 + lags] * (amplitude * bank.norm[type])[:, None, None]
    own = bank.log_likelihood_ratio((score[index] + share).astype(np.float32))  # (n, lags, E) without the explained event
    own[np.arange(len(time)), :, type] = -np.inf
    own[(sample[:, None] + lags < 0) | (sample[:, None] + lags >= len(score))] = -np.inf
    lag = own.argmax(axis=1)
    alone = np.take_along_axis(own, lag[:, None], axis=1)[:, 0].astype(np.float64)
    weighed = bank.trust * (alone - bank.log_rate) + bank.log_rate
    lead = bank.trust * (llr - bank.log_rate[type]) + bank.log_rate[type]
    margin = np.minimum(lead - weighed.max(axis=1, initial=-np.inf), llr)
    row, other = np.nonzero((alone > DOUBTFUL) & (alone > ALTERNATIVE_SHARE * llr[:, None]))
    at = lag[row, other]
    with_it = bank.log_likelihood_ratio(score[index[row, at], other], other).astype(np.float64)
    value = alone[row, other]
    zeros = np.zeros(len(row))
    behind = weighed[row, other] - lead[row]
    found = Candidates(sample[row] + lags[at].astype(float), other, with_it, value, behind, zeros + 1.0, zeros)
    return margin, found


def _doubtful(bank, score):
    """Peaks of what is left, per type: time, type, peak score."""
    llr = bank.log_likelihood_ratio(score)
    reach = bank.reach
    # Only the few peaks over the limit are looked at: a maximum filter over all types would cost more than all else.
    peak = (llr[1:-1] > DOUBTFUL) & (llr[1:-1] >= llr[:-2]) & (llr[1:-1] >= llr[2:])
    sample, type = np.nonzero(peak)
    sample += 1
    top = np.zeros(len(sample), bool)
    lags = np.arange(-reach, reach + 1)
    for e in np.unique(type):
        rows, own = np.flatnonzero(type == e), llr[:, e]
        if len(rows) * len(lags) <= DENSE * len(own):
            index = np.clip(sample[rows, None] + lags, 0, len(own) - 1)
            highest = own[index].max(axis=1, initial=-np.inf)
        else:
            highest = maximum_filter1d(own, len(lags), mode="nearest")[sample[rows]]
        top[rows] = own[sample[rows]] >= highest
    sample, type = sample[top], type[top]
    offset, peak = refine_peak(*(score[sample + step, type].astype(np.float64) for step in (-1, 0, 1)))
    return sample + offset, type, peak
