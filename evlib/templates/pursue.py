"""Candidates: everything in a recording that might be an event, by matching pursuit with a template bank.

Events that stand out are explained first: where a template's log-likelihood ratio is the greatest of all types and
of all times nearby, its event is put there (at a time finer than a sample) and its share of every type's score is
taken away, so that an event is not taken for a second one of a similar type, and overlapping events come apart.
Explained events then move to a better time nearby where that makes the signal likelier, given their neighbours. What
remains gives the doubtful candidates. Where an event looks like no template, ever more of them would explain it and
each other: such a crowd has a limit, at which the pursuit gives up, so that work is linear in the length of the
recording whatever is in it. Signals pass through in blocks: memory does not grow with the recording except for the
candidates themselves.

Source: greedy template matching as in spike sorting (Pachitariu et al. 2016; Yger et al. 2018), here with a Gaussian
prior on the amplitude and sub-sample subtraction from tabulated overlaps.
"""

from dataclasses import dataclass, fields, replace

import numpy as np
from scipy.ndimage import maximum_filter1d

from ..signals.clock import rows_within
from ..signals.gaps import covered, runs
from ..signals.recording import cut
from .bank import MARGIN, correlate_snippets, nearest_step, portions, refine_peak

# An event is explained away when its log-likelihood ratio exceeds this; noise reaches it about once in 20 s and type.
CERTAIN = 6.0
# Least log-likelihood ratio of a candidate: below it, posterior odds stay under 1 % even in the strictest rhythm.
DOUBTFUL = 3.0
# Another type is an alternative to an explained event when its evidence is at least this share of the event's.
ALTERNATIVE_SHARE = 0.5
# Most rounds of explaining. A round explains one event in two template lengths; long templates and dense events need
# many.
ROUNDS = 40
# Least samples of a block, and least template lengths: a block is long beside what it sees of its neighbours.
BLOCK_SAMPLES, BLOCK_LENGTHS = 1 << 18, 32
# Samples of silence beyond the ends of a recording.
EDGE = 2
# Template lengths that a block sees of its neighbours.
HALO_LENGTHS = 16
# Explained events within a template length on either side from which on they are a crowd: templates that explain each
# other, not events. Sixty ringing events that each begin in the ring of nine others come to 10.
CROWD = 16
# Added to the energy of a unit template: overlaps are tabulated in steps of a part of a sample, so amplitudes of events
# that nearly coincide are kept from growing against each other.
RIDGE = 0.05
# An event keeps its time unless at least this share of it cannot be explained by its neighbours, before and after.
OWN_SHARE = 0.5
# Log-likelihood that a move must gain, as much as makes a candidate certain.
GAIN = 6.0
# Where less than this share of a template's energy is seen, what is seen counts as this share.
LEAST_SEEN = 0.1
# All is seen, of all types at all times.
ALL = np.ones((1, 1), np.float32)
# Other times that are tried for each event.
PLACES = 4
# Most rounds of moves; in each, of events that overlap the one with the greatest gain moves.
REFINING_ROUNDS = 40


@dataclass(frozen=True, eq=False)
class Candidates:
    """Possible events sorted by time; every field is an (n,) array.

    Parameters
    ----------
    time : samples (float)
    type : integers
    llr : log-likelihood ratio, event against noise, given the explained events around it
    llr_isolated : the same without the explained events; default: ``llr``
    margin : by how much ``llr_isolated`` exceeds that of the best other type at the place; default: ``llr``
    amplitude : 1 is a mean event, the default
    misfit : standardised energy that is left where the event is taken away; default: 0
    frame : logit of a frame network; default: 0
    length : samples that the event lasts; default: NaN, not known
    """

    time: np.ndarray
    type: np.ndarray
    llr: np.ndarray
    llr_isolated: np.ndarray = None  # type: ignore[assignment]
    margin: np.ndarray = None  # type: ignore[assignment]
    amplitude: np.ndarray = None  # type: ignore[assignment]
    misfit: np.ndarray = None  # type: ignore[assignment]
    frame: np.ndarray = None  # type: ignore[assignment]
    length: np.ndarray = None  # type: ignore[assignment]

    def __post_init__(self):
        zero = np.zeros(len(self.time))
        default = {"llr_isolated": self.llr, "margin": self.llr, "amplitude": zero + 1, "misfit": zero, "frame": zero}
        default["length"] = zero + np.nan
        vars(self).update({name: value for name, value in default.items() if getattr(self, name) is None})

    def __len__(self):
        return len(self.time)

    def __getitem__(self, rows) -> "Candidates":
        return Candidates(*(getattr(self, field.name)[rows] for field in fields(self)))

    @property
    def is_explained(self) -> np.ndarray:
        """(n,) which are certain events, explained before what is doubtful."""
        return (self.llr > CERTAIN) & (self.llr == self.llr_isolated)

    def shift(self, n_samples: float) -> "Candidates":
        """All times moved."""
        return replace(self, time=self.time + n_samples)

    @staticmethod
    def empty() -> "Candidates":
        """No candidate."""
        return Candidates(np.zeros(0), np.zeros(0, np.int64), np.zeros(0))

    @staticmethod
    def concatenate(parts) -> "Candidates":
        """Join tables and sort by time."""
        parts = [Candidates.empty(), *parts]
        columns = [[getattr(part, field.name) for part in parts] for field in fields(Candidates)]
        joined = Candidates(*map(np.concatenate, columns))
        return joined[np.lexsort((joined.type, joined.time))]


def find_candidates(bank, whitened, block=None) -> Candidates:
    """Candidates of whitened signal (n, C), block by block.

    Parameters
    ----------
    bank : TemplateBank
    whitened : (n, C) signal
    block : samples at a time, by default as many as are quick; the same candidates come out for any value, because each
        block sees enough of its neighbours to decide alike; inside of a crowd, see `crowded_share`, a few may differ
    """
    n, halo = len(whitened), HALO_LENGTHS * bank.length
    block = max(BLOCK_SAMPLES, BLOCK_LENGTHS * bank.length) if block is None else block
    parts = []
    for start in range(0, n, block):
        stop = min(start + block, n)
        low, high = max(start - halo, 0), min(stop + halo, n)
        # Silence beyond the ends of the recording: an event may begin at the first sample.
        ends = EDGE * (low == 0), EDGE * (high == n)
        found = explain(bank, np.pad(whitened[low:high], (ends, (0, 0))))[0].shift(low - ends[0])
        # A time just before `start` rounds to it: blocks share no candidate and lose none.
        parts.append(found[(found.time >= start - 0.5) & (found.time < stop - 0.5)])
    return Candidates.concatenate(parts)


def explain(bank, whitened):
    """Candidates in one piece of whitened signal (n, C), and the signal without the explained events, (n, C).

    Where some channels are exactly 0 they were not seen: scores are those of what was seen, with the noise of a whole
    template, and events are expected to be weaker.
    """
    hidden = whitened == 0
    hidden &= ~hidden.all(axis=1, keepdims=True)
    seen = _seen(bank, hidden) if hidden.any() else ALL
    score = bank.scores(whitened) / seen
    time, type, peak, moved = refine_times(bank, whitened, score, *_pursue(bank, score, seen, hidden))
    own = _at(seen, time, type)
    amplitude = bank.amplitude(peak, type, own)
    residual = whitened - bank.render(len(whitened), time, type, amplitude)
    residual[hidden] = 0
    if moved or hidden.any():
        again = bank.scores(residual) / seen
        # What is hidden changes nothing far away from it: blocks of any size have the same candidates.
        score = again if moved else np.where((seen < 1).any(axis=1, keepdims=True), again, score)
    energy = np.r_[0.0, np.cumsum((residual.astype(np.float64) ** 2).sum(1))]
    misfit = _misfit(bank, energy, time, 0.0)
    fits = bank.fits(misfit, amplitude, type)
    time, type, peak, own, amplitude, misfit = (v[fits] for v in (time, type, peak, own, amplitude, misfit))
    llr = bank.log_likelihood_ratio(peak, type, own)
    margin, alternatives = _alternatives(bank, score, seen, time, type, amplitude, llr)
    explained = Candidates(time, type, llr, None, margin, amplitude, misfit)
    time, type, peak = _doubtful(bank, score, seen)
    own = _at(seen, time, type)
    llr, misfit = bank.log_likelihood_ratio(peak, type, own), _misfit(bank, energy, time, peak**2)
    doubtful = Candidates(time, type, llr, amplitude=bank.amplitude(peak, type, own), misfit=misfit)
    doubtful = doubtful[bank.fits(misfit, doubtful.amplitude, type)]
    return Candidates.concatenate([explained, doubtful, alternatives]), residual


def _seen(bank, hidden):
    """(n, E) square root of the share of each template's energy that is seen at an onset at each sample; ``hidden`` (n,
    C) : which samples are not."""
    energy = replace(bank, templates=bank.shapes**2)
    share = 1 - energy.scores(hidden) * energy.norm.astype(np.float32)
    start, stop = np.add(runs(hidden.any(axis=1)), bank.before)
    near = covered(start - bank.length + 1, stop, len(hidden))  # elsewhere all is seen, but for rounding
    return np.where(near[:, None], np.sqrt(np.clip(share, LEAST_SEEN, 1)), np.float32(1))


def _seen_share(bank, hidden, sample, offset, type, amplitude):
    """Scores (N, 2L - 1, E) in what is seen of events ``offset`` (N,) behind ``sample`` (N,), at each lag."""
    out = np.empty((len(sample), 2 * bank.length - 1, len(bank.names)), np.float32)
    pad = bank.length - 1
    for some in portions(len(sample), 3 * bank.length * (hidden.shape[1] + len(bank.names))):
        waves = bank.waves(type[some], offset[some], amplitude[some])
        waves *= cut(~hidden, sample[some] - bank.before - MARGIN, waves.shape[1])
        waves = np.pad(waves, ((0, 0), (pad, pad), (0, 0)))
        for rows, score in correlate_snippets(waves, bank.shapes):
            out[some][rows] = score[:, MARGIN : MARGIN + out.shape[1]]
    return out


def _at(seen, time, type):
    """What is seen (n, E) of events of some types at some times, of which all is seen where it is (1, 1)."""
    n, n_types = seen.shape
    return seen[np.clip(np.rint(time).astype(int), 0, n - 1), np.minimum(type, n_types - 1)]


def _evidence(bank, score, seen):
    """Log-likelihood ratios of scores (n, E); at most samples all is seen."""
    hazy = (seen < 1).any(axis=1)
    if hazy.all():
        return bank.log_likelihood_ratio(score, seen=seen)
    llr = bank.log_likelihood_ratio(score)
    if hazy.any():
        llr[hazy] = bank.log_likelihood_ratio(score[hazy], seen=seen[hazy])
    return llr


def _misfit(bank, energy, time, own):
    """Energy of the residual under a template beyond that of noise and of the event's ``own``, in standard deviations.

    ``energy`` (n + 1,): of the residual up to each sample
    """
    n, channels = len(energy) - 1, bank.templates.shape[2]
    start = np.clip(np.floor(time).astype(int) - bank.before, 0, n)
    stop = np.clip(start + bank.length, 0, n)
    return (energy[stop] - energy[start] - own - (stop - start) * channels) / np.sqrt(2.0 * bank.length * channels)


def _pursue(bank, score, seen=ALL, hidden=None):
    """Explain events round by round; ``score`` (n, E) is left without them. Returns time, type, peak score.

    Where a crowd has been explained the pursuit gives up: within half a template length nothing more is explained.
    Where some is ``hidden`` (n, C), overlaps are those of what is seen.
    """
    n, length = len(score), bank.length
    hazy = np.broadcast_to((seen < 1).any(axis=1), n)
    lags = np.arange(-(length - 1), length)
    found = [(np.zeros(0), np.zeros(0, np.int64), np.zeros(0))]
    llr = _evidence(bank, score, seen)
    best, given_up, explained = llr.max(axis=1), np.zeros(n, bool), np.zeros(0)
    for _ in range(ROUNDS):
        lead = (best > CERTAIN) & (best == maximum_filter1d(best, 2 * length + 1, mode="constant", cval=-np.inf))
        sample = np.flatnonzero(lead[1:-1]) + 1
        if len(sample) == 0:
            break
        crowded = n_near(sample, explained, length) >= CROWD
        if crowded.any():
            given_up |= covered(sample[crowded] - length // 2, sample[crowded] + length // 2 + 1, n)
            best[given_up] = -np.inf
            sample = sample[~crowded]
        sample, type = _decide_type(bank, llr, sample)
        offset, peak = refine_peak(score, sample, type)
        own = _at(seen, sample, type)
        amplitude = bank.amplitude(peak, type, own)
        explained = np.sort(np.r_[explained, sample + offset])
        found.append((sample + offset, type, peak))
        height = (amplitude * bank.norm[type])[:, None, None].astype(np.float32)
        place, step = nearest_step(sample + offset)
        index = place[:, None] + lags
        inside = (index >= 0) & (index < n)
        partly = hazy[np.clip(index, 0, n - 1)].any(axis=1)
        # Leaders lie about a template or more apart, so the reach of every third one touches no other.
        for part in (slice(first, None, 3) for first in range(3)):
            share, some = bank.overlap[type[part], step[part]] * height[part], partly[part]
            if some.any():
                own = (values[part][some] for values in (place, sample + offset - place, type, amplitude))
                share[some] = _seen_share(bank, hidden, *own) / seen[np.clip(index[part][some], 0, n - 1)]
            keep = inside[part]
            touched = index[part][keep]
            score[touched] -= share[keep]
            llr[touched] = _evidence(bank, score[touched], seen if len(seen) == 1 else seen[touched])
            best[touched] = np.where(given_up[touched], -np.inf, llr[touched].max(axis=1))
    return [np.concatenate(column) for column in zip(*found, strict=True)]


def n_near(time, other, reach):
    """(N,) how many of the sorted times ``other`` lie at most ``reach`` away from each time."""
    return np.searchsorted(other, time + reach, side="right") - np.searchsorted(other, time - reach)


def crowded_share(bank, candidates: Candidates, n_samples: int) -> float:
    """Share of a recording in which templates do not fit: crowds of certain events that explain each other.

    There the pursuit gave up: one real event may appear as many, and others may be missing.
    """
    time = candidates.time[candidates.is_explained]
    crowd = np.floor(time[n_near(time, time, bank.length) >= CROWD] + 0.5).astype(int)
    reach = bank.length // 2
    return float(covered(crowd - reach, crowd + reach + 1, n_samples).mean()) if n_samples else 0.0


def _decide_type(bank, llr, sample):
    """Which type it is that leads at each sample, and its own best sample nearby.

    Where events vary in shape, a small lead in evidence means little and the more frequent type is taken.
    """
    if bank.evidence_scale >= 1 or len(bank.names) == 1:
        return sample, llr[sample].argmax(axis=1)
    index = np.clip(sample[:, None] + np.arange(-bank.reach, bank.reach + 1), 1, len(llr) - 2)
    near, rows = llr[index], np.arange(len(sample))  # (n, lags, E)
    best = near.max(axis=1)
    type = np.where(best <= CERTAIN, -np.inf, bank.scaled(best)).argmax(axis=1)
    return index[rows, near.argmax(axis=1)[rows, type]], type


def _alternatives(bank, score, seen, time, type, amplitude, llr):
    """Other types at explained events: the lead over the best (n,), and those that come close, as candidates."""
    lags = np.arange(-bank.reach, bank.reach + 1)
    height, lead = amplitude * bank.norm[type] * _at(seen, time, type), bank.scaled(llr, type)
    height = height[:, None, None]
    margin, found = np.zeros(len(time)), []
    for some in portions(len(time), len(lags) * len(bank.names)):
        sample, step = nearest_step(time[some])
        place = sample[:, None] + lags
        index = np.clip(place, 0, len(score) - 1)
        share = bank.overlap[type[some, None], step[:, None], bank.length - 1 + lags] * height[some]
        # (n, lags, E) without the explained event
        near = seen[index] if len(seen) > 1 else seen
        isolated = bank.log_likelihood_ratio((score[index] + share).astype(np.float32), seen=near)
        isolated[np.arange(len(sample)), :, type[some]] = -np.inf
        isolated[place != index] = -np.inf
        lag, best = isolated.argmax(axis=1), isolated.max(axis=1).astype(np.float64)
        behind = bank.scaled(best) - lead[some, None]
        margin[some] = np.minimum(-behind.max(axis=1, initial=-np.inf), llr[some])
        row, other = np.nonzero((best > DOUBTFUL) & (best > ALTERNATIVE_SHARE * llr[some, None]))
        at = lag[row, other]
        own = _at(seen, index[row, at], other)
        given = bank.log_likelihood_ratio(score[index[row, at], other], other, own).astype(np.float64)
        found.append(
            Candidates((sample[row] + lags[at]).astype(float), other, given, best[row, other], behind[row, other])
        )
    return margin, Candidates.concatenate(found)


def _doubtful(bank, score, seen):
    """Peaks of each type in what is left: time, type, peak score."""
    llr = _evidence(bank, score, seen)
    sample, type = np.nonzero(llr[1:-1] > DOUBTFUL)
    sample += 1
    # Few samples are doubtful, and few of them are peaks: only there the whole neighbourhood is looked at.
    for reach in (1, bank.reach):
        index = np.clip(sample[:, None] + np.arange(-reach, reach + 1), 0, len(llr) - 1)
        peak = llr[sample, type] == llr[index, type[:, None]].max(axis=1, initial=-np.inf)
        sample, type = sample[peak], type[peak]
    offset, peak = refine_peak(score, sample, type)
    return sample + offset, type, peak


# --- Better times for explained events, once their neighbours are known


def refine_times(bank, whitened, score, time, type, peak):
    """Move explained events to their next best time nearby where that makes the signal likelier.

    Parameters
    ----------
    bank : TemplateBank
    whitened : (n, C) signal
    score : (n, E) template scores of the signal without the events
    time, type, peak : (N,) samples, type and template score of the events

    Returns
    -------
    time, type, peak : as they are after the last move, events sorted by time
    moved : whether any event has moved: then ``score`` no longer holds
    """
    order = np.lexsort((type, time))
    time, type, peak = time[order], type[order], peak[order]
    height = bank.amplitude(peak, type) * bank.norm[type]
    fixed = n_near(time, time, bank.length) >= CROWD
    open_ = ~fixed  # events that may move in this round
    left = None  # the signal without the events; computed before the first move
    for _ in range(REFINING_ROUNDS):
        rows = np.flatnonzero(open_)
        gain = _gains(bank, score, time, type, height, rows)
        hopeful = np.flatnonzero(gain > GAIN)
        # Of events whose neighbours overlap, one moves at a time.
        rival, valid = rows_within(time[rows], time[rows[hopeful]], 4 * bank.length)
        own = rows[hopeful[gain[hopeful] >= np.where(valid, gain[rival], 0).max(axis=1, initial=0)]]
        if len(own) == 0:
            break
        if left is None:
            left = whitened - bank.render(len(whitened), time, type, height / bank.norm[type])
        new_time, new_height, mover = _moved(bank, score, time, type, height, own)
        after = _left_after(bank, left, time, type, height, new_time, new_height)
        # The table of overlaps is not exact: an event that made the signal less likely goes back, and stays for good.
        worse = own[_is_worse(bank, left, after, time, type, height, new_height, own, mover)]
        if len(worse):
            fixed[worse] = True
            back = np.isin(mover, worse)
            new_time[back], new_height[back], mover[back] = time[back], height[back], -1
            after = _left_after(bank, left, time, type, height, new_time, new_height)
        changed = np.flatnonzero(mover >= 0)
        near = np.sort(np.r_[time[changed], new_time[changed]])
        time, height, left = new_time, new_height, after
        if len(changed):
            score = bank.scores(left)
            peak[changed] = _own_score(bank, score, time[changed], type[changed], height[changed], reach=0)[0][:, 0]
        # All other events have the places, the neighbours and the scores that they had.
        open_ = n_near(time, near, 3 * bank.length + bank.reach) > 0
        open_[rows[hopeful]] = True
        open_ &= ~fixed
        order = np.lexsort((type, time))
        time, type, peak, height, open_, fixed = (v[order] for v in (time, type, peak, height, open_, fixed))
    return time, type, peak, left is not None


def _gains(bank, score, time, type, height, rows):
    """By how much the best other place of each of the events ``rows`` makes the signal likelier, 0 where none does."""
    gain = np.zeros(len(rows))
    widest = int(n_near(time[rows], time, 2 * bank.length).max(initial=1))
    for some in portions(len(rows), widest**2):
        evidence = _profile(bank, score, time, type, height, rows[some])[1]
        gain[some] = evidence.max(axis=1) - evidence[:, 0]
    return gain


def _moved(bank, score, time, type, height, own):
    """Times and heights once the events ``own`` are at their best places; which of these events changed each, or -1."""
    places, evidence, heights, neighbour, change = _profile(bank, score, time, type, height, own)
    choice, here = evidence.argmax(axis=1), np.arange(len(own))
    new_time, new_height, mover = time.copy(), height.copy(), np.full(len(time), -1)
    number, column = np.nonzero(change[here, :, choice])
    beside = neighbour[number, column]
    new_height[beside] += change[number, column, choice[number]]
    mover[beside] = own[number]
    new_time[own], new_height[own], mover[own] = places[here, choice], heights[here, choice], own
    return new_time, new_height, mover


def _left_after(bank, left, time, type, height, new_time, new_height):
    """The signal without events, (n, C), once they have their new times and heights."""
    changed = (new_time != time) | (new_height != height)
    times, types = np.r_[time[changed], new_time[changed]], np.r_[type[changed], type[changed]]
    heights = np.r_[height[changed], -new_height[changed]]
    return left + bank.render(len(left), times, types, heights / bank.norm[types])


def _is_worse(bank, before, after, time, type, height, new_height, own, mover):
    """Which of the moved events ``own`` make their surroundings less likely: by the energy that is left, and by
    improbable heights of those that they changed."""
    difference = np.square(after, dtype=np.float64).sum(1) - np.square(before, dtype=np.float64).sum(1)
    total = np.r_[0.0, np.cumsum(difference)]
    reach = 3 * bank.length + bank.reach
    low, high = (np.clip(np.floor(time[own] + r).astype(int), 0, len(before)) for r in (-reach, reach))
    norm, changed = bank.norm[type], mover >= 0
    unlikely = ((new_height - norm) ** 2 - (height - norm) ** 2) * _precision(bank, type)
    unlikely = np.bincount(mover[changed], unlikely[changed], len(time))[own]
    return total[high] - total[low] + unlikely > 0


def _precision(bank, type):
    """Inverse variance of the normal distribution of heights about their mean, the norm of the type."""
    return 1 / np.maximum(bank.amplitude_spread * bank.norm[type], 1) ** 2


def _own_score(bank, score, time, type, height, reach):
    """Score of each event's own type around it with the event put back, (N, 2 reach + 1), and its nearest sample."""
    sample, step = nearest_step(time)
    lags = np.arange(-reach, reach + 1)
    share = bank.overlap[type[:, None], step[:, None], bank.length - 1 + lags, type[:, None]]
    index = np.clip(sample[:, None] + lags, 0, len(score) - 1)
    return score[index, type[:, None]] + share * height[:, None], sample


def _places(bank, score, time, type, height):
    """Where each event is and the greatest other peaks of its own score nearby: times and scores, (N, 1 + PLACES)."""
    reach, rows = bank.reach, np.arange(len(time))[:, None]
    own, sample = _own_score(bank, score, time, type, height, reach)
    place = sample[:, None] + np.arange(-reach, reach + 1)
    peak = np.pad((own[:, 1:-1] > own[:, :-2]) & (own[:, 1:-1] >= own[:, 2:]), ((0, 0), (1, 1)))
    peak &= (place > 0) & (place < len(score) - 1)
    peak[:, reach - 1 : reach + 2] = False
    lag = np.argsort(np.where(peak, -own, np.inf), axis=1)[:, :PLACES].clip(1, 2 * reach - 1)
    lag = np.concatenate([np.full((len(time), 1), reach), lag], axis=1)
    offset, value = refine_peak(own.T, lag, rows)
    at = place[rows, lag] + offset
    at[:, 0] = time
    value[:, 1:][~peak[rows, lag[:, 1:]]] = 0
    return at, value


def _profile(bank, score, time, type, height, rows):
    """Places of each of the events ``rows``, its log-likelihood and its height there, (N, P) each.

    Heights are the most probable ones, of the event and of its neighbours together. Also returns the neighbours, (N,
    K), and by how much their heights change when the event is at a place, (N, K, P).
    """
    places, own = _places(bank, score, time[rows], type[rows], height[rows])
    neighbour, valid = rows_within(time, time[rows], 2 * bank.length)
    valid &= neighbour != rows[:, None]
    near_time, near_type = time[neighbour], type[neighbour]
    overlap = _overlap(bank, places[:, None], type[rows, None, None], near_time[:, :, None], near_type[:, :, None])
    overlap[~valid] = 0
    gram = _overlap(bank, near_time[:, :, None], near_type[:, :, None], near_time[:, None], near_type[:, None])
    gram[~(valid[:, :, None] & valid[:, None])] = 0
    precision = _precision(bank, type)
    diagonal = np.arange(neighbour.shape[1])
    gram[:, diagonal, diagonal] = 1 + RIDGE + precision[neighbour]
    # Slope of the posterior over the neighbours' heights once the event is taken away.
    at = np.clip(nearest_step(near_time)[0], 0, len(score) - 1)
    slope = score[at, near_type] + precision[neighbour] * (bank.norm[near_type] - height[neighbour])
    slope = np.where(valid, slope + overlap[:, :, 0] * height[rows, None], 0)
    solved = np.linalg.solve(gram, np.concatenate([slope[:, :, None], overlap], axis=2))
    alone, shared = solved[:, :, :1], solved[:, :, 1:]
    precision = precision[rows]
    numerator = own + (RIDGE * height[rows] + precision * bank.norm[type[rows]])[:, None] - (overlap * alone).sum(1)
    denominator = 1 + RIDGE + precision[:, None] - (overlap * shared).sum(1)
    free = (denominator > OWN_SHARE) & (denominator[:, :1] > OWN_SHARE)
    best = numerator / np.where(free, denominator, 1)
    evidence = np.where(free, 0.5 * np.maximum(numerator, 0) * best, 0)
    return places, evidence, best, neighbour, (alone - shared * best[:, None]) * valid[:, :, None]


def _overlap(bank, time, type, other_time, other_type):
    """Score of the other events' unit templates at their times in unit events (arrays that broadcast)."""
    lag, step = nearest_step(time - other_time)
    inside = np.abs(lag) < bank.length
    return np.where(inside, bank.overlap[type, step, np.where(inside, bank.length - 1 - lag, 0), other_type], 0)
