"""How well estimated events agree with reference events: counts, timing, and what a threshold would change.

Precision, recall and F1 follow from the one-to-one matching of `evlib.scoring.matching`. Only what was labelled is
judged: where the reference has ``labelled_spans``, reference events outside of them are left out, and so are the
estimates there, unless such an estimate answers a judged event just inside. An estimate inside a span that answers a
labelled event just outside is right, but not judged either.

A ratio with nothing to divide by (no reference event: recall; no estimate: precision) is NaN, in summaries None.
"""

from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from ..signals.errors import OptionError, UnitError, require_tolerance
from ..signals.events import Events
from .matching import match_events, on_one_clock
from .refractory import find_violations, per_type_values
from .statistics import (
    average_precision,
    bootstrap_interval,
    coverage,
    median_per_type,
    plain,
    ratio,
    reliability,
    threshold_curve,
    timing_statistics,
)

__all__ = ["Comparison", "bootstrap_interval", "compare", "match_events"]

REPORT_TOLERANCES_S = (0.001, 0.0025, 0.005, 0.01, 0.02)


def compare(reference, estimated, tolerance_s=0.005, refractory_s=None, duration_s=None) -> "Comparison":
    """Judge estimated events against reference events.

    Parameters
    ----------
    reference, estimated : Events; names are united, times are compared on the clock of ``estimated``
    tolerance_s : seconds, inclusive
    refractory_s : when given, violations of the rule are counted in both tables (see `evlib.scoring.refractory`)
    duration_s : length of the recording, for false alarms per hour; not needed where the reference has
        ``labelled_spans``

    Raises
    ------
    UnitError : a tolerance or duration that is negative, or a tolerance that looks like milliseconds
    OptionError : no event name in common

    Examples
    --------
    >>> reference = Events.from_seconds([1.0, 2.0], ["bell", "bell"], sampling_rate_hz=2000)
    >>> estimated = Events.from_seconds([1.001, 3.0], ["bell", "bell"], sampling_rate_hz=2000)
    >>> report = compare(reference, estimated, tolerance_s=0.005, duration_s=36.0)
    >>> report.f1, report.false_alarms_per_hour
    (0.5, 100.0)
    """
    tolerance_s = require_tolerance(tolerance_s)
    if duration_s is not None and not (np.isfinite(duration_s) and duration_s > 0):
        raise UnitError(f"duration_s must be a positive number of seconds, got {duration_s!r}")
    everything = reference, estimated = on_one_clock(reference, estimated)
    labelled = reference.is_labelled(reference.sample)
    pairs, dt_samples = match_events(reference[labelled], estimated, tolerance_s)
    judged = reference.is_labelled(estimated.sample)
    judged[pairs[:, 1]] = False
    if not labelled.all():
        answers_outside, _ = match_events(reference[~labelled], estimated[judged], tolerance_s)
        judged[np.flatnonzero(judged)[answers_outside[:, 1]]] = False
    judged[pairs[:, 1]] = True
    pairs[:, 1] = (np.cumsum(judged) - 1)[pairs[:, 1]]
    dt_s = dt_samples / estimated.sampling_rate_hz
    return Comparison(
        reference[labelled], estimated[judged], tolerance_s, pairs, dt_s, refractory_s, duration_s, everything
    )


@dataclass(frozen=True, eq=False, repr=False)
class Comparison:
    """The outcome of `compare`, event by event and in numbers.

    Attributes
    ----------
    reference, estimated : the judged Events, on one clock and with one set of names
    tolerance_s : seconds
    pairs : (m, 2) rows of ``reference`` and ``estimated`` that answer each other
    dt_s : (m,) estimated minus reference, seconds
    """

    reference: Events
    estimated: Events
    tolerance_s: float
    pairs: np.ndarray
    dt_s: np.ndarray
    refractory_s: object = None
    duration_s: float = None
    everything: tuple = field(default=None)  # both tables before judging, to judge again at another tolerance

    # ---- counts -----------------------------------------------------------------------------------------------------

    @property
    def n_reference(self) -> int:
        return len(self.reference)

    @property
    def n_estimated(self) -> int:
        return len(self.estimated)

    @property
    def tp(self) -> int:
        return len(self.pairs)

    @property
    def fn(self) -> int:
        return self.n_reference - self.tp

    @property
    def fp(self) -> int:
        return self.n_estimated - self.tp

    @property
    def precision(self) -> float:
        return ratio(self.tp, self.n_estimated)

    @property
    def recall(self) -> float:
        return ratio(self.tp, self.n_reference)

    @property
    def f1(self) -> float:
        """Over all events together (micro)."""
        return ratio(2 * self.tp, self.n_reference + self.n_estimated)

    @property
    def macro_f1(self) -> float:
        """Mean F1 of the types that occur in either table."""
        f1 = ratio(2 * self._counts()[2], self._counts()[0] + self._counts()[1])
        return float(np.mean(f1[np.isfinite(f1)])) if np.isfinite(f1).any() else np.nan

    @property
    def reference_outcome(self):
        """(n_reference,) "hit" or "miss"."""
        return np.where(np.isin(np.arange(self.n_reference), self.pairs[:, 0]), "hit", "miss")

    @property
    def estimated_outcome(self):
        """(n_estimated,) "hit" or "false_alarm"."""
        return np.where(np.isin(np.arange(self.n_estimated), self.pairs[:, 1]), "hit", "false_alarm")

    @property
    def hours(self) -> float:
        """Judged time: the labelled spans, or else the duration that was given; NaN when neither is known."""
        spans_s = self.reference.complete_spans_s
        if spans_s is not None:
            return float(np.diff(spans_s, axis=1).sum()) / 3600
        return np.nan if self.duration_s is None else self.duration_s / 3600

    @property
    def false_alarms_per_hour(self) -> float:
        return ratio(self.fp, self.hours)

    def _counts(self):
        """Reference events, estimated events and hits of each type, three (E,) arrays."""
        hits = np.bincount(self.reference.type[self.pairs[:, 0]], minlength=len(self.reference.names))
        return self.reference.counts(), self.estimated.counts(), hits

    def refractory_violations(self):
        """How many neighbours are closer than their period, {"reference": n, "estimated": n}; None without a rule.

        All events that were passed in count, judged or not.
        """
        if self.refractory_s is None:
            return None
        names = ("reference", "estimated")
        return {n: len(find_violations(e, self.refractory_s)[0]) for n, e in zip(names, self.everything, strict=True)}

    # ---- timing -----------------------------------------------------------------------------------------------------

    def timing(self):
        """Timing of the matched events: bias (signed median), MAD, RMSE, 95th percentile of |dt|, shares within 1, 2.5,
        5 ms.

        ``without_type_medians`` holds the same after each type's own median was taken away.
        """
        type = self.reference.type[self.pairs[:, 0]]
        shift = median_per_type(self.dt_s, type, len(self.reference.names))
        return {**timing_statistics(self.dt_s), "without_type_medians": timing_statistics(self.dt_s - shift[type])}

    def without_bias(self, search_s=0.02) -> "Comparison":
        """Compare again after taking from each type its median error, found among matches within ``search_s``.

        A constant lateness close to the tolerance costs most matches; what remains here is the scatter.
        """
        reference, estimated = self.everything
        wide = self.at(search_s)
        type = wide.reference.type[wide.pairs[:, 0]]
        shift = median_per_type(wide.dt_s, type, len(reference.names)) * estimated.sampling_rate_hz
        moved = replace(estimated, fraction=estimated.fraction - shift[estimated.type])
        return compare(reference, moved, self.tolerance_s, self.refractory_s, self.duration_s)

    # ---- calibration ------------------------------------------------------------------------------------------------

    def calibration(self, n_bins=10):
        """Whether stated probabilities and standard deviations can be believed.

        Returns
        -------
        dict : of `evlib.scoring.statistics.reliability`, over all judged estimates (detect with a low threshold to see
            the doubtful
        ones too); ``coverage_68`` and ``coverage_95``, the shares of hits within 1 and 1.96 stated standard deviations,
        NaN where none were stated
        """
        hit = self.estimated_outcome == "hit"
        sigma = self.estimated.sigma_s[self.pairs[:, 1]]
        known = len(sigma) and np.isfinite(sigma).all()
        within = coverage(self.dt_s, sigma) if known else (np.nan, np.nan)
        return reliability(self.estimated.score, hit, n_bins) | dict(
            zip(("coverage_68", "coverage_95"), within, strict=True)
        )

    # ---- other tolerances and thresholds ----------------------------------------------------------------------------

    def at(self, tolerance_s) -> "Comparison":
        """The same events judged at another tolerance."""
        return compare(*self.everything, tolerance_s, self.refractory_s, self.duration_s)

    def at_tolerances(self, tolerances_s=REPORT_TOLERANCES_S):
        """Table of precision, recall and F1, one row per tolerance."""
        import pandas as pd

        rows = [self.at(tolerance_s) for tolerance_s in tolerances_s]
        columns = {
            name: [getattr(row, name) for row in rows] for name in ("precision", "recall", "f1", "tp", "fp", "fn")
        }
        return pd.DataFrame(columns, index=pd.Index([1e3 * t for t in tolerances_s], name="tolerance_ms"))

    def confusion(self, tolerance_s=0.05):
        """Right time, wrong type: a table of reference type (rows) by estimated type (columns).

        Events of one type are paired first, what is left is paired whatever its type. The last column counts missed
        events, the last row false alarms.
        """
        import pandas as pd

        near = self.at(tolerance_s)
        reference, estimated = near.reference, near.estimated
        left_r = np.flatnonzero(near.reference_outcome == "miss")
        left_e = np.flatnonzero(near.estimated_outcome == "false_alarm")
        wrong, _ = match_events(reference[left_r], estimated[left_e], tolerance_s, ignore_type=True)
        pairs = np.concatenate([near.pairs, np.column_stack([left_r[wrong[:, 0]], left_e[wrong[:, 1]]])])
        n = len(reference.names)
        table = np.zeros((n + 1, n + 1), dtype=np.int64)
        np.add.at(table, (reference.type[pairs[:, 0]], estimated.type[pairs[:, 1]]), 1)
        table[:n, n] = reference.counts() - table[:n].sum(axis=1)
        table[n, :n] = estimated.counts() - table[:n, :n].sum(axis=0)
        return pd.DataFrame(
            table,
            index=pd.Index([*reference.names, "(false alarm)"], name="reference"),
            columns=pd.Index([*reference.names, "(missed)"], name="estimated"),
        )

    def average_precision(self):
        """Area under the precision-recall curve of each type, {name: value}; NaN without reference events or scores."""
        curves = self._score_curves()
        return {name: average_precision(*curves(k)) for k, name in enumerate(self.reference.names)}

    def recall_at_false_alarms(self, rates_per_hour=(1, 10)):
        """Recall at the lowest common threshold with at most so many false alarms per hour, {rate: recall}.

        NaN when the judged time or the scores are unknown.
        """
        tp, n_estimated, n_reference = self._score_curves()(None)
        if not np.isfinite(self.hours) or tp is None:
            return dict.fromkeys(rates_per_hour, np.nan)
        false_alarms = n_estimated - tp
        return {
            rate: ratio(int(tp.max(where=false_alarms <= rate * self.hours, initial=0)), n_reference)
            for rate in rates_per_hour
        }

    @cached_property
    def _score_hit(self):
        """(n_estimated,) bool, the hits of the pairing that prefers high scores."""
        pairs, _ = match_events(self.reference, self.estimated, self.tolerance_s, prefer="score")
        return np.isin(np.arange(self.n_estimated), pairs[:, 1])

    def _score_curves(self):
        """A function: type (None: all) -> (hits, estimates, reference events) as the threshold falls over the scores.

        The pairing that prefers high scores holds the most possible matches at every threshold at once (the sets of
        estimates that can be matched form a matroid, and the best score is taken first), so one matching serves all.
        """
        hit = self._score_hit

        def curve(kind):
            rows = slice(None) if kind is None else self.estimated.type == kind
            n_reference = self.n_reference if kind is None else int((self.reference.type == kind).sum())
            return *threshold_curve(self.estimated.score[rows], hit[rows]), n_reference

        return curve

    # ---- reports ----------------------------------------------------------------------------------------------------

    def per_type(self):
        """Table with one row per type: counts, precision, recall, F1, average precision and timing."""
        import pandas as pd

        n_reference, n_estimated, hits = self._counts()
        type = self.reference.type[self.pairs[:, 0]]
        timing = [timing_statistics(self.dt_s[type == kind]) for kind in range(len(self.reference.names))]
        columns = {
            "n_reference": n_reference,
            "n_estimated": n_estimated,
            "tp": hits,
            "fp": n_estimated - hits,
            "fn": n_reference - hits,
            "precision": ratio(hits, n_estimated),
            "recall": ratio(hits, n_reference),
            "f1": ratio(2 * hits, n_reference + n_estimated),
            "average_precision": list(self.average_precision().values()),
            **{name: [row[name] for row in timing] for name in ("bias_ms", "mad_ms", "rmse_ms")},
        }
        return pd.DataFrame(columns, index=pd.Index(self.reference.names, name="type"))

    def to_frame(self):
        """Table with one row per reference event or false alarm: ``onset_s``, ``type``, ``outcome``, ``dt_ms``,
        ``score``.

        ``outcome`` is hit, miss or false_alarm; ``onset_s`` is the reference's, or the estimate's for a false alarm.
        """
        import pandas as pd

        dt_ms, score = np.full(self.n_reference, np.nan), np.full(self.n_reference, np.nan)
        dt_ms[self.pairs[:, 0]] = 1e3 * self.dt_s
        score[self.pairs[:, 0]] = self.estimated.score[self.pairs[:, 1]]
        alarms = self.estimated[self.estimated_outcome == "false_alarm"]
        columns = {
            "onset_s": np.r_[self.reference.onset_s, alarms.onset_s],
            "type": self.reference.type_names + alarms.type_names,
            "outcome": [*self.reference_outcome, *["false_alarm"] * len(alarms)],
            "dt_ms": np.r_[dt_ms, np.full(len(alarms), np.nan)],
            "score": np.r_[score, alarms.score],
        }
        return pd.DataFrame(columns).sort_values("onset_s", kind="stable", ignore_index=True)

    def summary(self):
        """The whole report as plain numbers that ``json.dumps`` takes; None where a number is unknown."""
        unbiased = self.without_bias()
        names = (
            "n_reference",
            "n_estimated",
            "tp",
            "fp",
            "fn",
            "precision",
            "recall",
            "f1",
            "macro_f1",
            "false_alarms_per_hour",
        )
        report = {"tolerance_ms": 1e3 * self.tolerance_s, **{name: getattr(self, name) for name in names}}
        average_precision = [value for value in self.average_precision().values() if np.isfinite(value)]
        report |= {
            "mean_average_precision": np.mean(average_precision) if average_precision else np.nan,
            "recall_at_false_alarms_per_hour": {str(k): v for k, v in self.recall_at_false_alarms().items()},
            "timing": self.timing(),
            "without_bias": {name: getattr(unbiased, name) for name in ("precision", "recall", "f1")},
            "at_tolerances": self.at_tolerances().reset_index().to_dict("records"),
            "refractory_violations": self.refractory_violations(),
            "per_type": self.per_type().to_dict("index"),
        }
        return plain(report)

    def __repr__(self):
        counts = f"{self.n_reference} reference, {self.n_estimated} estimated"
        return f"Comparison(F1 {self.f1:.3f} at {1e3 * self.tolerance_s:g} ms, {counts})"

    def _headlines(self):
        timing = self.timing()
        lines = [
            f"F1 {self.f1:.3f} at {1e3 * self.tolerance_s:g} ms (precision {self.precision:.3f}, recall "
            f"{self.recall:.3f}): "
            f"{self.tp} hits, {self.fn} missed, {self.fp} false alarms",
            f"timing of the hits: bias {timing['bias_ms']:+.2f} ms, MAD {timing['mad_ms']:.2f} ms, "
            f"RMSE {timing['rmse_ms']:.2f} ms, 95 % within {timing['p95_ms']:.2f} ms",
        ]
        if np.isfinite(self.hours):
            lines.append(f"false alarms: {self.false_alarms_per_hour:.3g} per hour, over {self.hours:.3g} h")
        if self.refractory_s is not None:
            lines.append(
                "refractory violations: " + ", ".join(f"{n} in {k}" for k, n in self.refractory_violations().items())
            )
        return lines

    def __str__(self):
        return "\n".join([*self._headlines(), "", self.per_type().to_string(float_format="{:.3f}".format)])

    def _repr_html_(self):
        return f"<p>{'<br>'.join(self._headlines())}</p>{self.per_type().to_html(float_format='{:.3f}'.format)}"

    def plot(self, ax=None):
        """F1 of each type beside a histogram of the signed timing errors.

        ``ax`` : two matplotlib axes, or None for a new figure; returns the two axes.
        """
        import matplotlib.pyplot as plt

        if ax is None:
            _, ax = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
        if np.shape(ax) != (2,):
            raise OptionError("ax must be two axes, for example those of plt.subplots(1, 2)")
        left, right = ax
        n_reference, n_estimated, hits = self._counts()
        left.bar(self.reference.names, np.nan_to_num(ratio(2 * hits, n_reference + n_estimated)), label="one type")
        left.axhline(self.f1, color="black", linestyle="--", label=f"all events: {self.f1:.3f}")
        left.set(ylim=(0, 1.05), xlabel="event type", ylabel=f"F1 at {1e3 * self.tolerance_s:g} ms")
        left.tick_params(axis="x", rotation=90 if len(self.reference.names) > 6 else 0)
        left.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
        tolerance_ms = 1e3 * self.tolerance_s
        # Matched in whole samples, a hit may lie a fraction beyond the tolerance: it counts in the outer bin.
        dt_ms = np.clip(1e3 * self.dt_s, -tolerance_ms, tolerance_ms)
        right.hist(dt_ms, bins=np.linspace(-tolerance_ms, tolerance_ms, 42) if tolerance_ms else 1, label="hits")
        right.axvline(0, color="black", linewidth=0.8)
        if self.tp:
            bias_ms = self.timing()["bias_ms"]
            right.axvline(bias_ms, color="tab:red", linestyle="--", label=f"median {bias_ms:+.2f} ms")
        right.set(xlabel="estimated - reference (ms)", ylabel="events")
        right.legend(loc="upper right")
        return ax


# --- Every event and what came of it, one row each, and where to look next.


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
    ``estimated_s``, ``dt_ms`` (estimated minus reference), ``score``, ``certainty`` (log odds between score and
    threshold), ``other`` (the type that the other table has at that time instead, "" without), ``gap_s`` (to the event
    of the same type before, where it is closer than the refractory period). NaN where a number is unknown.

    Raises
    ------
    OptionError : neither table, no name in common, names that ``refractory_s`` or ``threshold`` lack
    UnitError : a tolerance or a period that is no number of seconds

    Examples
    --------
    >>> from evlib.signals.events import Events
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
    reference = replace(estimated[:0], labelled_spans=None) if reference is None else reference
    estimated = replace(reference[:0], labelled_spans=None) if estimated is None else estimated
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
    kind : "event" (all), "error" (miss or false alarm), "refractory" (too close to the one before), "disagreement"
        (right time, other type; the reference's side), all by time; or "least_certain" (score closest to the threshold
        first)
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
