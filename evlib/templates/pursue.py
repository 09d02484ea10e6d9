"""Candidates: everything in a recording that might be an event, by matching pursuit with a template bank.

Events that stand out are explained first: where a template's log-likelihood ratio is the greatest of all types and
of all times nearby, its event is put there (at a time finer than a sample) and its share of every type's score is
taken away, so that an event is not taken for a second one of a similar kind, and overlapping events come apart. What
then remains gives the doubtful candidates. Where an event looks like no template, ever more of them would explain it
and each other: a crowd is the limit, and there the pursuit gives up, so that work is linear in the length of the
recording whatever is in it. Signals pass through in blocks: memory does not grow with the recording except for the
candidates themselves.

Source: greedy template matching as in spike sorting (Pachitariu et al. 2016; Yger et al. 2018), here with a Gaussian
prior on the amplitude and sub-sample subtraction from tabulated overlaps.
"""

from dataclasses import dataclass, fields, replace

import numpy as np
from scipy.ndimage import maximum_filter1d

from .bank import nearest_step, refine_peak

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
# At least so much at a time, and so many template lengths, lest a block be little beside what it sees of its
# neighbours.
BLOCK_SAMPLES, BLOCK_LENGTHS = 1 << 17, 32


@dataclass(frozen=True, eq=False)
class Candidates:
    """Possible events sorted by time; every field is an (n,) array.

    ``time`` samples (float), ``type``, ``llr`` log-likelihood ratio given the explained events around it, ``alone`` the
    same without them, ``margin`` by how much ``alone`` beats the best other type at the place, ``amplitude`` (1 is a
    mean event), ``misfit`` standardised energy that is left where the event is taken away, ``frame`` the logit of a
    frame network, 0 where there is none.
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
        joined = Candidates(
            *(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(Candidates))
        )
        return joined[np.lexsort((joined.type, joined.time))]


def find_candidates(bank, read, n_samples, block=None, advance=None) -> Candidates:
    """Candidates of a whole recording, block by block.

    Parameters
    ----------
    bank : TemplateBank
    read : (start, stop) -> whitened signal (stop - start, C)
    block : samples at a time, by default as many as are quick; the same candidates come out for any value, because each
        block sees enough of its neighbours to decide alike; inside of a crowd, see `crowded_share`, a few may differ
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
    """Candidates in one piece of whitened signal (n, C), and what is left of the signal without the explained
    events."""
    score = bank.scores(whitened)
    time, type, peak, score = refine_times(bank, whitened, score, *_pursue(bank, score))
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
    share = (
        bank.overlap[type[:, None], step[:, None], bank.length - 1 + lags]
        * (amplitude * bank.norm[type])[:, None, None]
    )
    own = bank.log_likelihood_ratio(
        (score[index] + share).astype(np.float32)
    )  # (n, lags, E) without the explained event
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


# --- Re-picking: events that a matching pursuit explained, put at a better time nearby once their neighbours are kn


# Overlaps are tabulated in steps of a part of a sample: amplitudes of events that nearly coincide change reluctantly.
RIDGE = 0.05
# An event keeps its place unless this share of it is its own, not to be explained by its neighbours, here and there.
ALONE = 0.5
# An event moves only for as much log-likelihood as makes a candidate certain.
GAIN = 6.0
# So many other places are weighed for each event.
PLACES = 4
# Rounds of moves; in each, the event with the greatest gain of its surroundings moves.
REFINING_ROUNDS = 40
# So many explained events within a template length on either side are a crowd: templates that explain each other, not
# events. Sixty ringing events that each begin in the ring of nine others come to 10.
CROWD = 16
# Numbers in the largest array of a profile (16 MB): events are weighed in portions of as many as that allows.
PORTION = 1 << 21


def n_near(time, other, reach):
    """(N,) how many of the sorted times ``other`` lie at most ``reach`` away from each time."""
    return np.searchsorted(other, time + reach, side="right") - np.searchsorted(other, time - reach)


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
    time, type, peak, score : as they are after the last move, events sorted by time
    """
    order = np.lexsort((type, time))
    time, type, peak = time[order], type[order], peak[order]
    height = bank.amplitude(peak, type) * bank.norm[type]
    fixed = n_near(time, time, bank.length) >= CROWD
    weigh = ~fixed  # events to be weighed in this round
    left = None  # of the signal without the events; not known before the first move
    for _ in range(REFINING_ROUNDS):
        rows = np.flatnonzero(weigh)
        gain, place, best, adapt = _proposals(bank, score, time, type, height, rows)
        hopeful = np.flatnonzero(gain > GAIN)
        # Of events whose neighbours overlap, one moves at a time.
        rival, valid = _within(time[rows], time[rows[hopeful]], 4 * bank.length)
        movers = hopeful[gain[hopeful] >= np.where(valid, gain[rival], 0).max(axis=1, initial=0)]
        if len(movers) == 0:
            break
        if left is None:
            left = whitened - bank.render(len(whitened), time, type, height / bank.norm[type])
        row, owner, change = (np.concatenate(values) for values in zip(*(adapt(k) for k in movers), strict=True))
        new_time, new_height = time.copy(), height.copy()
        new_time[rows[movers]], new_height[rows[movers]] = place[movers], best[movers]
        np.add.at(new_height, row, change)
        owner = np.r_[rows[movers], rows[owner]]
        changed = np.r_[rows[movers], row]
        after = _without(bank, left, time, type, height, new_time, new_height, np.unique(changed))
        # What the table of overlaps promised is not always so: then the event stays where it is, for good.
        worse = _is_worse(bank, left, after, time, type, height, new_height, rows[movers], changed, owner)
        if worse.any():
            fixed[rows[movers[worse]]] = True
            undo = changed[np.isin(owner, rows[movers[worse]])]
            new_time[undo], new_height[undo] = time[undo], height[undo]
            changed = np.setdiff1d(changed, undo)
            after = _without(bank, left, time, type, height, new_time, new_height, changed)
        touched = np.unique(changed)
        near = np.sort(np.r_[time[touched], new_time[touched]])
        time, height, left = new_time, new_height, after
        if len(touched):
            score = bank.scores(left)
            peak[touched] = _own_score(bank, score, time[touched], type[touched], height[touched], reach=0)[0][:, 0]
        # Others have the places, the neighbours and the scores that they had.
        weigh = n_near(time, near, 3 * bank.length + bank.reach) > 0
        weigh[rows[hopeful]] = True
        weigh &= ~fixed
        order = np.lexsort((type, time))
        time, type, peak, height, weigh, fixed = (values[order] for values in (time, type, peak, height, weigh, fixed))
    if left is not None:
        score = bank.scores(whitened - bank.render(len(whitened), time, type, bank.amplitude(peak, type)))
    return time, type, peak, score


def _proposals(bank, score, time, type, height, rows):
    """Where each of some events (R,) would go: its gain, its place and its height there, (R,) each.

    And a function that gives of row k the neighbours, k itself and the change of their heights, (K,) each.
    """
    gain, place, best, portions = np.zeros(len(rows)), np.zeros(len(rows)), np.zeros(len(rows)), []
    widest = int(n_near(time[rows], time, 2 * bank.length).max(initial=1))
    step = max(1, PORTION // widest**2)
    for start in range(0, len(rows), step):
        part = rows[start : start + step]
        places, own = _places(bank, score, time[part], type[part], height[part])
        evidence, heights, neighbour, change = _profile(bank, score, time, type, height, places, own, part)
        choice, here = evidence.argmax(axis=1), np.arange(len(part))
        gain[start : start + step] = evidence[here, choice] - evidence[:, 0]
        place[start : start + step], best[start : start + step] = places[here, choice], heights[here, choice]
        portions.append((neighbour, change[here, :, choice]))

    def adapt(k):
        neighbour, change = (values[k % step] for values in portions[k // step])
        some = change != 0
        return neighbour[some], np.full(some.sum(), k), change[some]

    return gain, place, best, adapt


def _without(bank, left, time, type, height, new_time, new_height, changed):
    """What is left of the signal once the ``changed`` events have their new times and heights, (n, C)."""
    both = np.r_[time[changed], new_time[changed]], np.r_[type[changed], type[changed]]
    return left + bank.render(len(left), *both, np.r_[height[changed], -new_height[changed]] / bank.norm[both[1]])


def _is_worse(bank, before, after, time, type, height, new_height, movers, changed, owner):
    """Which movers make their surroundings less likely: energy that is left, and improbable heights."""
    difference = np.square(after, dtype=np.float64).sum(1) - np.square(before, dtype=np.float64).sum(1)
    total = np.r_[0.0, np.cumsum(difference)]
    reach = 3 * bank.length + bank.reach
    low, high = (np.clip(np.floor(time[movers] + r).astype(int), 0, len(before)) for r in (-reach, reach))
    norm = bank.norm[type[changed]]
    unlikely = (new_height[changed] - norm) ** 2 - (height[changed] - norm) ** 2
    unlikely = np.bincount(owner, unlikely * _precision(bank, type[changed]), len(time))[movers]
    return total[high] - total[low] + unlikely > 0


def _precision(bank, type):
    """Of the normal distribution of heights about their mean, the norm of the type."""
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
    reach = bank.reach
    own, sample = _own_score(bank, score, time, type, height, reach)
    place = sample[:, None] + np.arange(-reach, reach + 1)
    peak = np.pad((own[:, 1:-1] > own[:, :-2]) & (own[:, 1:-1] >= own[:, 2:]), ((0, 0), (1, 1)))
    peak &= (place > 0) & (place < len(score) - 1)
    peak[:, reach - 1 : reach + 2] = False
    lag = np.argsort(np.where(peak, -own, np.inf), axis=1)[:, :PLACES].clip(1, 2 * reach - 1)
    lag = np.concatenate([np.full((len(time), 1), reach), lag], axis=1)
    offset, value = refine_peak(*(np.take_along_axis(own, lag + k, axis=1) for k in (-1, 0, 1)))
    at = np.take_along_axis(place, lag, axis=1) + offset
    at[:, 0] = time
    value[:, 1:][~np.take_along_axis(peak, lag[:, 1:], axis=1)] = 0
    return at, value


def _profile(bank, score, time, type, height, places, own, rows=None):
    """Log-likelihood of each event at its places, (N, P), its height there, its neighbours (N, K) and the change of
    theirs.

    The change is (N, K, P): what the neighbours' heights gain when the event is at a place. ``rows``: of these events
    only, by default of all.
    """
    rows = np.arange(len(time)) if rows is None else rows
    neighbour, valid = _within(time, time[rows], 2 * bank.length)
    valid &= neighbour != rows[:, None]
    near_time, near_type = time[neighbour], type[neighbour]
    overlap = _overlap(bank, places[:, None], type[rows, None, None], near_time[:, :, None], near_type[:, :, None])
    overlap[~valid] = 0
    gram = _gram(bank, time, type, neighbour, valid)
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
    free = (denominator > ALONE) & (denominator[:, :1] > ALONE)
    best = numerator / np.where(free, denominator, 1)
    return (
        np.where(free, 0.5 * np.maximum(numerator, 0) * best, 0),
        best,
        neighbour,
        (alone - shared * best[:, None]) * valid[:, :, None],
    )


def _gram(bank, time, type, neighbour, valid):
    """Overlaps of the neighbours (N, K) of each event with each other, (N, K, K)."""
    low, high = int(neighbour.min(initial=len(time))), int(neighbour.max(initial=-1)) + 1
    time, type, neighbour = time[low:high], type[low:high], neighbour - low
    # Each pair is looked up once, in a table of the events that overlap with each, though many share it.
    other, _ = _within(time, time, bank.length)
    pairs = _overlap(bank, time[:, None], type[:, None], time[other], type[other])
    column = neighbour[:, None] - other[:, 0][neighbour][:, :, None]
    inside = (column >= 0) & (column < pairs.shape[1]) & valid[:, :, None] & valid[:, None]
    return np.where(inside, pairs[neighbour[:, :, None], np.where(inside, column, 0)], 0)


def _within(time, middle, reach):
    """Which of the sorted times are at most ``reach`` away from each of (N,), as rows (N, K), and which of them are
    meant."""
    first, last = np.searchsorted(time, middle - reach), np.searchsorted(time, middle + reach, side="right")
    index = first[:, None] + np.arange((last - first).max(initial=0))
    return np.minimum(index, max(len(time) - 1, 0)), index < last[:, None]


def _overlap(bank, time, type, other_time, other_type):
    """Score of the other events' unit templates at their times in unit events (arrays that broadcast)."""
    lag, step = nearest_step(time - other_time)
    inside = np.abs(lag) < bank.length
    return np.where(inside, bank.overlap[type, step, np.where(inside, bank.length - 1 - lag, 0), other_type], 0)
