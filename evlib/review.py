"""Every event and what came of it, one row each, and where to look next.

Outcomes are those of `evlib.compare`: a hit is one row with the times of both tables, a miss has no estimated time, a
false alarm no reference time. Where nothing can be judged (one table only, or outside of the labelled spans) the outcome
is "not_judged".
"""

from dataclasses import replace

import numpy as np

from .errors import OptionError
from .matching import match_events, on_one_clock
from .metrics import compare
from .refractory import find_violations, per_type_values

OUTCOMES = ("hit", "miss", "false_alarm", "not_judged")
KINDS = ("event", "error", "least_certain", "refractory", "disagreement")


def review(reference=None, estimated=None, tolerance_s=0.005, refractory_s=None, threshold=0.5):
    """A pandas table of all events in the order of their time.

    Parameters
    ----------
    reference, estimated : Events, at least one of them
    tolerance_s : seconds, inclusive
    refractory_s : the rule that events may break: seconds for all types, or a dict name -> seconds
    threshold : probability from which an event is kept, for all types or a dict name -> probability

    Returns
    -------
    table with the columns ``time_s`` (the reference's, where there is one), ``type``, ``outcome``, ``reference_s``,
    ``estimated_s``, ``dt_ms`` (estimated minus reference), ``score``, ``certainty`` (log odds between score and threshold),
    ``other`` (the type that the other table has at that time instead, "" without), ``gap_s`` (to the event of the same type
    before, where it is closer than the refractory period). NaN where a number is unknown.

    Raises
    ------
    OptionError : neither table, no name in common, names that ``refractory_s`` or ``threshold`` lack
    UnitError : a tolerance or a period that is no number of seconds

    Examples
    --------
    >>> from evlib.events import Events
    >>> reference = Events.from_seconds([1.0, 2.0], ["a", "b"], 2000)
    >>> estimated = Events.from_seconds([1.001, 2.0], ["a", "a"], 2000, names=("a", "b"), score=[0.9, 0.6])
    >>> review(reference, estimated)[["time_s", "type", "outcome", "score", "other"]]
       time_s type      outcome  score other
    0     1.0    a          hit    0.9
    1     2.0    b         miss    NaN     a
    2     2.0    a  false_alarm    0.6     b
    """
    import pandas as pd

    if reference is None and estimated is None:
        raise OptionError("there is nothing to review: pass reference, estimated, or both")
    judged = reference is not None and estimated is not None
    reference = replace(estimated[:0], complete_spans=None) if reference is None else reference
    estimated = replace(reference[:0], complete_spans=None) if estimated is None else estimated
    reference, estimated = on_one_clock(reference, estimated)
    partner, outcome, alarm_outcome = _outcomes(reference, estimated, tolerance_s, judged)
    alone = np.flatnonzero(~np.isin(np.arange(len(estimated)), partner))
    # Rows: all reference events, then the estimates that answer none of them.
    row_of_reference = np.r_[np.arange(len(reference)), np.full(len(alone), -1)]
    row_of_estimate = np.r_[partner, alone]
    columns = {
        "reference_s": _taken(reference.onset_s, row_of_reference),
        "estimated_s": _taken(estimated.onset_s, row_of_estimate),
        "score": _taken(estimated.score, row_of_estimate),
        "gap_s": _taken(_gaps(estimated, refractory_s), row_of_estimate),
    }
    own_gap = _taken(_gaps(reference, refractory_s), row_of_reference)
    columns["gap_s"] = np.where(np.isnan(columns["gap_s"]), own_gap, columns["gap_s"])
    type = np.r_[reference.type, estimated.type[alone]]
    names = np.array([*reference.names, ""], dtype=object)
    table = pd.DataFrame(columns)
    table.insert(0, "time_s", table["reference_s"].fillna(table["estimated_s"]))
    table.insert(1, "type", names[type])
    table.insert(2, "outcome", np.r_[outcome, alarm_outcome[alone]].astype(object))
    table.insert(5, "dt_ms", 1e3 * (table["estimated_s"] - table["reference_s"]))
    limit = np.clip(per_type_values(threshold, reference.names, "threshold"), 1e-12, 1 - 1e-12)[type]
    score = np.clip(columns["score"], 1e-12, 1 - 1e-12)
    table["certainty"] = np.abs(np.log(score / (1 - score)) - np.log(limit / (1 - limit)))
    table["other"] = names[_other_type(table, reference, estimated, row_of_reference, row_of_estimate, tolerance_s)]
    return table.sort_values("time_s", kind="stable", ignore_index=True)


def rows_of_kind(table, kind, shown=None):
    """Rows of a `review` that one may want to look at, (n,) integers in the order in which to do so.

    Parameters
    ----------
    kind : "event" (all), "error" (miss or false alarm), "refractory" (too close to the one before), "disagreement" (right
        time, other type; the reference's side), all by time; or "least_certain" (score closest to the threshold first)
    shown : (n_rows,) booleans, the rows to choose among
    """
    if kind not in KINDS:
        raise OptionError(f"kind must be one of {', '.join(KINDS)}; got {kind!r} (a spelling slip?)")
    wanted = {
        "event": lambda: np.ones(len(table), dtype=bool),
        "error": lambda: table["outcome"].isin(["miss", "false_alarm"]).to_numpy(),
        "least_certain": lambda: table["certainty"].notna().to_numpy(),
        "refractory": lambda: table["gap_s"].notna().to_numpy(),
        "disagreement": lambda: ((table["other"] != "") & table["reference_s"].notna()).to_numpy(),
    }[kind]()
    rows = np.flatnonzero(wanted if shown is None else wanted & shown)
    if kind == "least_certain":
        rows = rows[np.argsort(table["certainty"].to_numpy()[rows], kind="stable")]
    return rows


def _outcomes(reference, estimated, tolerance_s, judged):
    """Row of the estimate that answers each reference event (-1: none), and the outcomes of both tables."""
    partner = np.full(len(reference), -1)
    outcomes = [np.full(len(events), "not_judged", dtype=object) for events in (reference, estimated)]
    # compare leaves out what cannot be judged: sigma_s carries the row numbers through it.
    tagged = [replace(events, sigma_s=np.arange(len(events))) for events in (reference, estimated)]
    comparison = compare(*tagged, tolerance_s)
    if judged:
        r, e = (events.sigma_s.astype(int) for events in (comparison.reference, comparison.estimated))
        outcomes[0][r], outcomes[1][e] = comparison.reference_outcome, comparison.estimated_outcome
        partner[r[comparison.pairs[:, 0]]] = e[comparison.pairs[:, 1]]
    return partner, *outcomes


def _gaps(events, refractory_s):
    """(n,) seconds to the event of the same type before, where that breaks the rule, else NaN."""
    gap_s = np.full(len(events), np.nan)
    if refractory_s is not None and len(events):
        pairs, gaps = find_violations(events, refractory_s)
        gap_s[pairs[:, 1]] = gaps
    return gap_s


def _other_type(table, reference, estimated, row_of_reference, row_of_estimate, tolerance_s):
    """(n,) the type of the other table at the time of each error; -1 without."""
    other = np.full(len(table), -1)
    misses = np.flatnonzero(table["outcome"] == "miss")
    alarms = np.flatnonzero(table["outcome"] == "false_alarm")
    if len(misses) and len(alarms):
        missed, false = reference[row_of_reference[misses]], estimated[row_of_estimate[alarms]]
        pairs, _ = match_events(missed, false, tolerance_s, ignore_type=True)
        other[misses[pairs[:, 0]]] = false.type[pairs[:, 1]]
        other[alarms[pairs[:, 1]]] = missed.type[pairs[:, 0]]
    return other


def _taken(values, rows):
    """``values[rows]``, NaN where the row is -1."""
    return np.append(np.asarray(values, dtype=float), np.nan)[rows]
