"""Matching: which estimated event answers which reference event, the same rule for every score in evlib.

Per event type, one to one, among pairs with |dt| <= tolerance (inclusive, compared in whole samples): the most matches
first, then the least total |dt|. Times are compared on the clock of the estimated events.
"""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.sparse import csr_array
from scipy.sparse.csgraph import min_weight_full_bipartite_matching

from ..signals.clock import tolerance_to_samples
from ..signals.errors import OptionError, require_choice, require_tolerance
from ..signals.events import Events

# Cells of a cost matrix, 32 MB; a larger one is solved as a sparse matrix.
LARGE_BLOCK = 4_000_000


def on_one_clock(reference: Events, estimated: Events) -> tuple:
    """Both tables on the clock of ``estimated``, their types indexed into the union of their names (the reference's
    first).

    Raises
    ------
    OptionError : both name their types, and not one name is shared
    """
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
    UnitError : a tolerance that is negative or looks like milliseconds
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

    # Reference event r may pair with the estimated events first[r] .. stop[r] - 1: one edge for each.
    first = np.searchsorted(est.key, ref.key - tolerance, side="left")
    stop = np.searchsorted(est.key, ref.key + tolerance, side="right")
    near = np.flatnonzero(stop > first)
    first, stop = first[near], stop[near]
    n_edges = stop - first
    rows = np.repeat(near, n_edges)
    columns = np.arange(n_edges.sum()) - np.repeat(np.cumsum(n_edges) - n_edges - first, n_edges)
    rank = np.argsort(np.argsort(-est.score, kind="stable")).astype(float)
    cost = np.abs(dt(rows, columns)) if prefer == "time" else rank[columns]
    # first and stop never decrease, so a block ends where the next event's choices begin behind all earlier ones.
    block = np.cumsum(np.r_[False, first[1:] >= stop[:-1]]) if len(near) else near
    edge_block = np.repeat(block, n_edges)
    size = np.bincount(edge_block)
    matched = (size == 1)[edge_block] if len(size) else np.zeros(0, dtype=bool)
    begins = np.cumsum(size) - size
    for begin, end in zip(begins[size > 1], (begins + size)[size > 1], strict=True):
        edges = slice(begin, end)
        matched[edges] = _assign(rows[edges] - rows[begin], columns[edges] - columns[begin], cost[edges])
    rows, columns = rows[matched], columns[matched]
    pairs = np.column_stack([ref.row[rows], est.row[columns]])
    order = np.lexsort((pairs[:, 1], pairs[:, 0]))
    return pairs[order], dt(rows, columns)[order]


def _assign(i, j, cost):
    """Which of the edges (i, j) are in the assignment with the most edges, and of these the least total cost."""
    n, m = i[-1] + 1, j.max() + 1
    # A missing edge costs more than any full sum of edges.
    price = (cost.max() + 1.0) * (min(n, m) + 1)
    if n * m <= LARGE_BLOCK:
        costs = np.full((n, m), price)
        costs[i, j] = cost
        a, b = linear_sum_assignment(costs)
    else:
        # Each row may also take a column of its own at that price; costs are raised by one, as the solver drops zeros.
        cells = np.r_[cost + 1.0, np.full(n, price + 1.0)], (np.r_[i, np.arange(n)], np.r_[j, m + np.arange(n)])
        a, b = min_weight_full_bipartite_matching(csr_array(cells, shape=(n, m + n)))
    partner = np.full(n, -1)
    partner[a] = b
    return partner[i] == j


def _on_a_line(reference, estimated, tolerance, ignore_type):
    """Both tables sorted by one integer key in which events of different types are never within the tolerance."""
    samples = np.concatenate([reference.sample, estimated.sample])
    stride = 0 if ignore_type or not len(samples) else np.ptp(samples) + tolerance + 1
    tables = []
    for events in (reference, estimated):
        key = events.sample + stride * events.type
        order = np.lexsort((events.fraction, key))
        columns = {"key": key, "row": events.sigma_s.astype(int)}
        columns |= {name: getattr(events, name) for name in ("sample", "fraction", "score")}
        tables.append(SimpleNamespace(**{name: column[order] for name, column in columns.items()}))
    return tables
