"""Matching: which estimated event answers which reference event, the same rule for every score in evlib.

Per event type, one to one, among pairs with |dt| <= tolerance (inclusive, compared in whole samples): the most matches
first, then the least total |dt|. Times are compared on the clock of the estimated events.
"""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np

from ..signals.clock import tolerance_to_samples
from ..signals.errors import DataError, OptionError, require_choice, require_tolerance
from ..signals.events import Events, warn_of_near_names

# So many pairs of events within the tolerance take about 100 MB and five seconds.
MOST_PAIRS = 400_000_000


def on_one_clock(reference: Events, estimated: Events) -> tuple:
    """Both tables on the clock of ``estimated``, their types indexed into the union of their names (the reference's
    first).

    Raises
    ------
    OptionError : both name their types, and not one name is shared
    """
    warn_of_near_names((reference, estimated))
    if reference.names and estimated.names and not set(reference.names) & set(estimated.names):
        both = f"reference names {', '.join(reference.names)}, estimated names {', '.join(estimated.names)}"
        raise OptionError(f"{both}: no name in common (of one study? a fit with labels names discovered kinds)")
    names = reference.names + tuple(name for name in estimated.names if name not in reference.names)
    return reference.at_rate(estimated.sampling_rate_hz).with_names(names), estimated.with_names(names)


def match_events(
    reference: Events, estimated: Events, tolerance_s: float, ignore_type: bool = False, prefer: str = "time"
) -> tuple:
    """Pair reference and estimated events one to one.

    Parameters
    ----------
    reference, estimated : Events, on any clocks and with any names that overlap
    tolerance_s : seconds, inclusive
    ignore_type : pair events of different types too
    prefer : of all pairings with the most matches, the one with the least total |dt| ("time"), or the one that answers
        with the estimates of highest score ("score": raising a threshold then leaves a pairing with the most matches)

    Returns
    -------
    pairs : (m, 2) rows of ``reference`` and ``estimated``, sorted
    dt_samples : (m,) floats, estimated minus reference, in samples of the estimated clock

    Raises
    ------
    UnitError : a tolerance that is negative
    DataError : too many events at one time
    OptionError : no event name in common, an unknown ``prefer``

    Examples
    --------
    >>> reference = Events.from_seconds([1.0, 2.0], ["bell", "bell"], 2000)
    >>> estimated = Events.from_seconds([1.005, 1.5], ["bell", "bell"], 2000)
    >>> match_events(reference, estimated, tolerance_s=0.005)
    (array([[0, 0]]), array([10.]))
    """
    tolerance = tolerance_to_samples(require_tolerance(tolerance_s), estimated.sampling_rate_hz)
    require_choice(("time", "score"), prefer=prefer)
    # Another clock or another order of names may reorder rows that coincide: sigma_s carries the caller's row numbers.
    tagged = [replace(events, sigma_s=np.arange(len(events))) for events in (reference, estimated)]
    reference, estimated = on_one_clock(*tagged)
    ref, est = _on_a_line(reference, estimated, tolerance, ignore_type)

    def dt(r, e):
        return est.sample[e] - ref.sample[r] + (est.fraction[e] - ref.fraction[r])

    # Reference event r may pair with the estimated events first[r] .. stop[r] - 1.
    first = np.searchsorted(est.key, ref.key - tolerance, side="left")
    stop = np.searchsorted(est.key, ref.key + tolerance, side="right")
    near = np.flatnonzero(stop > first)
    n_pairs = int((stop - first).sum())
    if n_pairs > MOST_PAIRS:
        crowd = f"{n_pairs:.2g} pairs of events lie within {tolerance_s:g} s, more than can be compared"
        raise DataError(f"{crowd} (many events at one time, or too long a tolerance?)")
    if prefer == "score":
        rank = np.argsort(np.argsort(-est.score, kind="stable")).astype(float)

    def cost(r):
        choices = slice(first[r], stop[r])
        return np.abs(dt(r, choices)) if prefer == "time" else rank[choices]

    most = tolerance + 2.0 if prefer == "time" else len(est.row)
    # first and stop never decrease, so a block ends where the next event's choices begin behind all earlier ones.
    partner = first[near]
    begins = np.flatnonzero(np.r_[True, partner[1:] >= stop[near][:-1]]) if len(near) else near
    size = np.add.reduceat(stop[near] - partner, begins) if len(near) else near
    ends = np.r_[begins[1:], len(near)]
    for begin, end in zip(begins[size > 1], ends[size > 1], strict=True):
        partner[begin:end] = _assign(near[begin:end], first, stop, cost, most)
    rows, columns = near[partner >= 0], partner[partner >= 0]
    pairs = np.column_stack([ref.row[rows], est.row[columns]])
    order = np.lexsort((pairs[:, 1], pairs[:, 0]))
    return pairs[order], dt(rows, columns)[order]


def _assign(rows, first, stop, cost, most):
    """The partner of each of the ``rows``, -1 without: the most pairs, and of these the least total cost.

    Row r may pair with the columns first[r] .. stop[r] - 1; cost(r) holds what each costs, less than ``most``. Rows and
    columns are sorted, so crossing pairs can be exchanged at no cost. What is left is dynamic programming, with two
    bits of memory for each possible pair.
    """
    left, right = first[rows[0]], stop[rows[-1]]
    best = np.zeros(right - left + 1)  # the least cost so far, with the columns before each
    bonus, reached, bits = most * (min(len(rows), right - left) + 1), 0, []
    for r in rows:
        a, b = first[r] - left, stop[r] - left
        best[reached + 1 : b + 1], reached = best[reached], b
        old = best[a : b + 1].copy()
        best[a + 1 : b + 1] = np.minimum(old[1:], old[:-1] + cost(r) - bonus)
        best[a : b + 1] = np.minimum.accumulate(best[a : b + 1])
        bits.append([np.packbits(best[a + 1 : b + 1] < than) for than in (old[1:], best[a:b])])
    partner, end = np.full(len(rows), -1), reached
    for k in reversed(range(len(rows))):
        a = first[rows[k]] - left
        n = min(end, stop[rows[k]] - left) - a
        if n > 0:
            gained, falls = (np.unpackbits(packed, count=n) for packed in bits[k])
            if gained[-1]:
                end = a + np.flatnonzero(falls)[-1]
                partner[k] = left + end
    return partner


def _on_a_line(reference, estimated, tolerance, ignore_type):
    """Both tables sorted by one integer key in which events of different types are never within the tolerance."""
    samples, place = np.unique(np.concatenate([reference.sample, estimated.sample]), return_inverse=True)
    # Distances beyond the tolerance all count as one sample more than it, so that the key stays small.
    line = np.r_[0, np.minimum(np.diff(samples), tolerance + 1).cumsum()]
    stride = 0 if ignore_type else line[-1] + tolerance + 1
    tables = []
    for events, own in zip((reference, estimated), np.split(place, [len(reference)]), strict=True):
        key = line[own] + stride * events.type
        order = np.lexsort((events.fraction, key))
        columns = {"key": key, "row": events.sigma_s.astype(int)}
        columns |= {name: getattr(events, name) for name in ("sample", "fraction", "score")}
        tables.append(SimpleNamespace(**{name: column[order] for name, column in columns.items()}))
    return tables
