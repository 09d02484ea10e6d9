"""Template discovery: which types of events recur in recordings, without a single label.

Moments of high energy in the whitened signal are cut out, compared with each other at every lag and clustered; two
moments closer than the refractory period cannot be of one type. Clusters are averaged into templates, matching pursuit
with them explains the recordings (overlapping events come apart there), and everything it finds is averaged again until
the types are stable. What the templates leave unexplained is searched once more for types that were missed.

Source: spike sorting by clustering and template matching, e.g. Quiroga et al. 2004 and Yger et al. 2018; here with
agglomerative clustering (average linkage) under cannot-link constraints. A type that was found has no name until a
label gives it one, and is called a kind.
"""

from dataclasses import dataclass, replace

import numpy as np
import scipy
from scipy.ndimage import maximum_filter1d
from scipy.special import expit
from tqdm.auto import tqdm

from ..scoring.refractory import decode_refractory
from ..signals.clock import distance_to_nearest, duration_to_samples, rows_within, split_time
from ..signals.errors import DataError, OptionError, require_int, require_seconds
from ..signals.events import Events
from ..signals.recording import as_list, check_alike, cut
from ..signals.refractory import Refractory
from ..signals.streams import stream
from .bank import TemplateBank
from .learn import PRIOR_LOGIT, choose_window, learn_templates
from .pursue import explain, find_candidates
from .whiten import Whitener, estimate_whitener, refine_whitener

# A peak of energy is a moment from this many standard deviations over its background on.
NOVELTY = 3.0
# Most moments that are compared with each other: the cost grows with the square.
MAX_MOMENTS = 2000
# Two kinds whose templates have at least this similarity at some lag are one kind.
SAME_KIND = 0.8
# Least number of events of a kind: what happens less often does not recur.
MIN_EVENTS = 4
# Number of moments whose similarity to unrelated ones is measured: the null distribution of similarity.
CHANCE_ROWS = 500
# Rounds of averaging and detecting in a search, and searches: the second looks at what the first left unexplained.
ROUNDS, SEARCHES = 4, 2
# Seconds of signal, from the beginning, from which the noise is estimated again without its events.
WHITENING_S = 300.0
# Least distance, in seconds, that a label may have from the time origin of the kind that it names.
LEAST_REACH_S = 0.02


@dataclass(frozen=True, eq=False)
class Discovery:
    """Recurring kinds of events found without labels.

    ``bank`` holds a template for each kind (``kind_01`` is the most frequent), ``events`` one Events table for each
    recording with what was found, ``whitener`` the filter in whose output the templates live. The time origin of a kind
    is arbitrary until a label fixes it (:meth:`name`).
    """

    bank: TemplateBank
    events: list
    whitener: Whitener

    def __repr__(self):
        counts = ", ".join(f"{name} {n}" for name, n in zip(self.names, self.counts(), strict=True))
        return f"Discovery({len(self.names)} kinds: {counts})"

    @property
    def names(self) -> tuple:
        """Names of the kinds."""
        return self.bank.names

    def counts(self) -> np.ndarray:
        """(K,) events found of each kind."""
        return sum(table.counts() for table in self.events)

    def name(self, labels: list[Events]) -> tuple[np.ndarray, np.ndarray]:
        """Which kind is which labelled type, from as little as one label each.

        Parameters
        ----------
        labels : list of Events, one for each recording that was searched, or for the first of them; a label may be
            half a template, at least 20 ms, from the time origin of its kind

        Returns
        -------
        kind : (E,) row of the bank for each labelled type, -1 for a type that matches no kind
        offset : (E,) samples from the kind's time origin to the label
        """
        reach = max(LEAST_REACH_S * labels[0].sampling_rate_hz, self.bank.length / 2)
        votes, pairs = np.zeros((len(labels[0].names), len(self.names))), []
        for table, found in zip(labels, self.events, strict=False):
            rows, valid = rows_within(found.time_samples, table.time_samples, reach)
            label, row = np.nonzero(valid)[0], rows[valid]
            np.add.at(votes, (table.type[label], found.type[row]), found.score[row])
            pairs.append((table.type[label], found.type[row], table.time_samples[label] - found.time_samples[row]))
        type, own, distance = map(np.concatenate, zip(*pairs, strict=True))
        kind, offset = np.full(len(votes), -1), np.zeros(len(votes))
        for e, k in zip(*scipy.optimize.linear_sum_assignment(-votes), strict=True):
            if votes[e, k] > 0:
                kind[e], offset[e] = k, np.median(distance[(type == e) & (own == k)])
        return kind, offset


def discover(
    recordings,
    n_types: int | None = None,
    refractory_s: float = 2.0,
    event_s: float = 0.04,
    seed: int = 0,
    progress: bool = True,
) -> Discovery:
    """Find the kinds of events that recur in unlabelled recordings.

    Parameters
    ----------
    recordings : Recording, or list of them with one rate and the same channels
    n_types : how many kinds to keep, the most frequent first; default: all that recur
    refractory_s : the least time between two events of one kind
    event_s : about how long an event is
    seed : which moments are compared when there are very many
    progress : show a progress bar

    Returns
    -------
    Discovery

    Raises
    ------
    DataError : nothing recurs; a recording too short
    OptionError : an option out of range
    UnitError, ShapeError : recordings of different rates or channels

    Examples
    --------
    >>> import evlib
    >>> simulation = evlib.make_recording(evlib.signals.synthetic.make_templates(n_types=3), duration_s=40.0, snr=20.0)
    >>> found = discover([simulation.recording], progress=False)
    >>> len(found.names)
    3
    """
    recordings = as_list(recordings)
    recordings = check_alike(recordings)
    rate = recordings[0].sampling_rate_hz
    require_int(1, **({} if n_types is None else {"n_types": n_types}))
    require_int(0, seed=seed)
    require_seconds(event_s=event_s)
    total_s = sum(recording.duration_s for recording in recordings)
    if 2 * event_s > total_s:
        raise OptionError(f"event_s={event_s:g}: no event of that length recurs in {total_s:g} s (milliseconds?)")
    if not (isinstance(refractory_s, (int, float)) and 0 <= refractory_s < np.inf):
        raise OptionError(
            "refractory_s must not be negative, and one number for all kinds (they have no names yet); got "
            f"{refractory_s!r}"
        )
    with tqdm(total=2 * SEARCHES * (ROUNDS + 1), desc="discover", unit="step", disable=not progress) as bar:
        options = {"refractory_s": refractory_s, "event_s": event_s, "seed": seed, "advance": bar.update}
        whitener = estimate_whitener(recordings)
        # The first estimate counts recurring events as noise: find them in the beginning, and estimate without them.
        part = [whitener(recording, 0, int(WHITENING_S * rate / len(recordings))) for recording in recordings]
        try:
            bank, _ = discover_in(part, rate, **options)
            whitener = refine_whitener(whitener, [explain(bank, signal)[1] for signal in part])
        except DataError:  # the beginning may be too short, and the whole recording may not
            pass
        bar.n = bar.total // 2
        bank, events = discover_in([whitener(recording) for recording in recordings], rate, n_types, **options)
        bar.update(bar.total - bar.n)
    return Discovery(bank, events, whitener)


def discover_in(signals, rate, n_types=None, refractory_s=2.0, event_s=0.04, seed=0, advance=lambda steps: None):
    """Kinds in whitened signals (n, C): the bank, and one table of events for each signal."""
    width = max(4, duration_to_samples(event_s, rate))
    rng = stream("discovery", seed)
    bank, tables = None, [_table(np.zeros(0), np.zeros(0, int), 0, rate) for _ in signals]
    for _ in range(SEARCHES):
        residuals = signals if bank is None else [_unexplained(bank, signal, rate, refractory_s) for signal in signals]
        fresh = _search(residuals, rate, width, rng)
        advance(1)
        if fresh is None:
            break
        bank, tables = _settle(signals, list(map(_join, tables, fresh)), rate, refractory_s, advance)
        if bank is None:
            break
    if bank is None:
        raise DataError(
            f"nothing of about {event_s:g} s recurs often enough in {sum(map(len, signals)) / rate:.0f} s of signal to "
            "be a kind of event (another event_s, or more signal?)"
        )
    return _select(bank, tables, np.argsort(-sum(table.counts() for table in tables), kind="stable")[:n_types])


def _search(signals, rate, width, rng):
    """Tables of moments that recur, a type for each cluster, aligned within it; None where nothing recurs."""
    step = max(1, width // 96)  # comparing needs no finer grid
    half, gain = width // step, np.ones(width + 1)
    for _ in range(2):
        filtered = [_filter(signal, gain)[::step] for signal in signals]
        moments = [energy_peaks(signal, half) for signal in filtered]
        gain = _event_band(signals, [sample * step for sample in moments], width)
    owner = np.repeat(np.arange(len(signals)), [len(sample) for sample in moments])
    sample = np.concatenate(moments)
    if len(sample) > MAX_MOMENTS:
        chosen = np.sort(rng.choice(len(sample), MAX_MOMENTS, replace=False))
        owner, sample = owner[chosen], sample[chosen]
    if len(sample) < MIN_EVENTS:
        return None
    wide = np.concatenate([cut(part, sample[owner == k] - half, 2 * half) for k, part in enumerate(filtered)])
    similarity, lag = _compare(wide, wide, half)
    # Either of the two may be the one that moves.
    turn = similarity.T > similarity
    similarity[turn], lag[turn] = similarity.T[turn], -lag.T[turn]
    cluster = _cluster(similarity, _chance(wide, half))
    size = np.bincount(cluster)
    kept = np.argsort(-size, kind="stable")[: int((size >= MIN_EVENTS).sum())]
    if len(kept) == 0:
        return None
    time, type = sample * step, np.full(len(sample), -1)
    for number, c in enumerate(kept):
        rows = np.flatnonzero(cluster == c)
        centre = rows[similarity[np.ix_(rows, rows)].sum(axis=1).argmax()]
        time[rows] += lag[centre, rows] * step
        type[rows] = number
    own = [(owner == k) & (type >= 0) & (time >= 0) & (time < len(signal) - 1) for k, signal in enumerate(signals)]
    return [_table(time[rows], type[rows], len(kept), rate) for rows in own]


def _filter(signal, gain):
    """The part of a signal (n, C) in the band of the events, by a zero-phase filter of ``gain`` (F,)."""
    taps = np.fft.fftshift(np.fft.irfft(gain))
    taps = (taps * np.hanning(len(taps) + 2)[1:-1]).astype(np.float32)
    return scipy.signal.oaconvolve(signal, taps[1:, None], mode="same", axes=0)


def energy_peaks(signal: np.ndarray, width: int) -> np.ndarray:
    """Samples where the energy of (n, C), averaged over about ``width`` samples, peaks above its background."""
    window = np.hanning(width + 2)[1:-1]
    energy = np.convolve((signal.astype(np.float64) ** 2).sum(1), window / window.sum(), mode="same")
    middle = np.median(energy)
    spread = np.median(np.abs(energy - middle)[energy <= middle]) / 0.6745
    top = (energy == maximum_filter1d(energy, width | 1)) & (energy > middle + NOVELTY * spread)
    top[:width] = top[-width:] = False
    return np.flatnonzero(top)


def _event_band(signals, moments, width):
    """Wiener gain (width + 1,): share of events in the power at each frequency, over all moments and channels."""
    power, count = np.zeros(width + 1), 0
    window = np.hanning(2 * width + 2)[1:-1, None]
    for signal, sample in zip(signals, moments, strict=True):
        sample = sample[(sample >= width) & (sample < len(signal) - width)]
        pieces = cut(signal, sample - width, 2 * width) * window
        power += (np.abs(np.fft.rfft(pieces, axis=1)) ** 2).sum((0, 2))
        count += len(sample) * signal.shape[1]
    power /= max(count, 1) * (window**2).sum()
    return np.maximum(power - 1, 0) / np.maximum(power, 1e-12)


def _chance(wide, width):
    """Similarity of moments that have nothing in common, (rows, N).

    Noise played backwards is noise of the same spectrum, with the same peak of energy in its middle, but an event is
    another event, unless it is the same backwards; then its negative is not.
    """
    rows, backwards = wide[:: max(1, len(wide) // CHANCE_ROWS)], np.ascontiguousarray(wide[:, ::-1])
    similarities = (_compare(rows, sign * backwards, width)[0] for sign in (1, -1))
    return min(similarities, key=lambda similarity: _nearest(similarity).max())


def _compare(wide, others, width):
    """Greatest correlation of moments with others at any lag up to half a width, (N, M), and that lag.

    ``lag[i, j]``: what to add to the time of j for it to look like i.
    """

    def unit_windows(moments, shift):
        first = width - width // 2 + shift
        flat = moments[:, first : first + width].reshape(len(moments), -1)
        return flat / np.linalg.norm(flat, axis=1, keepdims=True)

    middle, reach = unit_windows(wide, 0), width // 2
    best, lag = np.full((len(wide), len(others)), -1, np.float32), np.zeros((len(wide), len(others)), int)
    for shift in range(-reach, reach + 1):
        value = middle @ unit_windows(others, shift).T
        better = value > best
        best[better] = value[better]
        lag[better] = shift
    return best, lag


def _cluster(similarity, chance):
    """Cluster numbers (N,) by average linkage, cut between the similarity of neighbours and of unrelated moments.

    Where neighbours are no more alike than unrelated moments, every moment is a cluster of its own.
    """
    from sklearn.cluster import AgglomerativeClustering

    n = len(similarity)
    alike = np.quantile(_nearest(similarity - 2 * np.eye(n, dtype=np.float32)), 0.75)
    if alike < _nearest(chance).max():
        return np.arange(n)
    distance = np.clip(1 - similarity, 0, None)
    np.fill_diagonal(distance, 0)
    limit = 1 - (alike + np.median(chance)) / 2
    model = AgglomerativeClustering(None, metric="precomputed", linkage="average", distance_threshold=limit)
    return model.fit_predict(distance)


def _nearest(similarity):
    """Mean similarity of each row to its nearest neighbours, as many as make a kind."""
    return np.sort(similarity, axis=1)[:, -min(MIN_EVENTS, similarity.shape[1] - 1) :].mean(axis=1)


def _settle(signals, tables, rate, refractory_s, advance):
    """Average, detect, drop duplicates and what does not recur, until the kinds are stable: bank and tables, or None
    twice."""
    for _ in range(ROUNDS):
        window = choose_window(signals, tables)
        bank, _ = learn_templates(signals, tables, *window, rounds=2, scale_evidence=False)
        tables = [find_kinds(bank, signal, rate, refractory_s) for signal in signals]
        keep = _kinds_to_keep(bank, tables, refractory_s * rate)
        if len(keep) == 0:
            return None, None
        if len(keep) < len(bank.names):
            bank, tables = _select(bank, tables, keep)
        advance(1)
    return bank, tables


def find_kinds(bank: TemplateBank, signal: np.ndarray, rate: float, refractory_s) -> Events:
    """What the templates find in one whitened signal, in the best choice that the refractory period allows."""
    found = _decoded(bank, signal, rate, refractory_s)
    found = found[(found.time >= 0) & (found.time < len(signal) - 1)]
    return _table(found.time, found.type, len(bank.names), rate, expit(found.llr - PRIOR_LOGIT))


def _decoded(bank, signal, rate, refractory_s):
    """The candidates behind :func:`find_kinds`."""
    found = find_candidates(bank, signal)
    found = found[(found.margin > 0) & (found.llr > PRIOR_LOGIT)]
    period = Refractory(refractory_s, bank.names).samples(rate)
    return found[decode_refractory(found.time, found.type, found.llr - PRIOR_LOGIT, period)]


def _unexplained(bank, signal, rate, refractory_s):
    """The signal without what was found. What its refractory period forbids a kind stays, to be found as another's."""
    found = _decoded(bank, signal, rate, refractory_s)
    return signal - bank.render(len(signal), found.time, found.type, found.amplitude)


def _kinds_to_keep(bank, tables, period):
    """Kinds that happen often enough and do not duplicate a more frequent one."""
    counts, similarity = sum(table.counts() for table in tables), bank.similarity()
    keep = []
    for k in np.argsort(-counts, kind="stable"):
        alike = [j for j in keep if similarity[j, k] > SAME_KIND]
        if counts[k] >= MIN_EVENTS and all(_is_other_kind(tables, j, k, period, bank.length) for j in alike):
            keep.append(int(k))
    return np.array(keep, dtype=int)


def _is_other_kind(tables, first, second, period, length):
    """Whether events of two kinds come closer to each other than one kind's events may."""
    times = [[table.time_samples[table.type == kind] for kind in (first, second)] for table in tables]
    gap = np.concatenate([distance_to_nearest(two, one) for one, two in times if len(one)] or [np.zeros(0)])
    return ((gap > length) & (gap < 0.9 * period)).sum() > 0.2 * max(len(gap), 1)


def _kind_names(n_kinds):
    return tuple(f"kind_{k + 1:02d}" for k in range(n_kinds))


def _table(time, type, n_kinds, rate, score=None):
    """Events of kinds, nothing labelled completely."""
    spans = np.zeros((0, 2), dtype=np.int64)
    return Events(*split_time(time), type, _kind_names(n_kinds), rate, score=score, labelled_spans=spans)


def _select(bank, tables, kinds):
    """Bank and tables with these kinds only, named in this order."""
    names, place = _kind_names(len(kinds)), np.full(len(bank.names), -1)
    place[kinds] = np.arange(len(kinds))
    chosen = replace(bank, templates=bank.templates[kinds], names=names, log_rate=bank.log_rate[kinds])
    kept = [table[place[table.type] >= 0] for table in tables]
    return chosen, [replace(table, type=place[table.type], names=names) for table in kept]


def _join(old, new):
    """Two tables with different kinds as one."""
    time = np.r_[old.time_samples, new.time_samples]
    type = np.r_[old.type, new.type + len(old.names)]
    return _table(time, type, len(old.names) + len(new.names), old.sampling_rate_hz)
