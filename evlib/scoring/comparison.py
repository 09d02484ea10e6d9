"""How well estimated events agree with reference events: counts, timing, and a table of every event with its outcome.

Precision, recall and F1 follow from the one-to-one matching of `evlib.scoring.matching`. Only what was labelled is
judged: where the reference has ``labelled_spans``, reference events outside of them are left out, and so are the
estimates there, unless such an estimate answers a judged event just inside. An estimate inside a span that answers a
labelled event just outside is right, but not judged either.

A ratio with nothing to divide by (no reference event: recall; no estimate: precision) is NaN, in summaries None.
"""

import json
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from scipy.special import logit

from ..signals.errors import OptionError, UnitError, require_choice, require_instance, require_tolerance
from ..signals.events import Events
from ..signals.refractory import Refractory, per_type_values
from . import statistics as stats
from .matching import match_events, on_one_clock

# Tolerances of the report, from 1 to 20 ms.
REPORT_TOLERANCES_S = (0.001, 0.0025, 0.005, 0.01, 0.02)
COUNTS = ("n_reference", "n_estimated", "tp", "fp", "fn")
RATIOS = ("precision", "recall", "f1")
OUTCOMES = ("hit", "miss", "false_alarm", "not_judged")
TABLE = "time_s type outcome reference_s estimated_s dt_ms score gap_s certainty other".split()
KINDS = ("event", "error", "least_certain", "refractory", "disagreement")


def compare(
    reference: Events, estimated: Events, tolerance_s: float = 0.005, refractory_s=None, duration_s: float | None = None
) -> "Comparison":
    """Judge estimated events against reference events.

    Parameters
    ----------
    reference, estimated : Events; names are united, times are compared on the clock of ``estimated``
    tolerance_s : seconds, inclusive
    refractory_s : when given, violations of the rule are counted in both tables: seconds for all types, or a dict
        name -> seconds
    duration_s : length of the recording, for false alarms per hour; not needed where the reference has
        ``labelled_spans``

    Raises
    ------
    UnitError : a tolerance or duration that is negative
    OptionError : no event name in common

    Examples
    --------
    >>> reference = Events.from_seconds([1.0, 2.0], ["bell", "bell"], sampling_rate_hz=2000)
    >>> estimated = Events.from_seconds([1.001, 3.0], ["bell", "bell"], sampling_rate_hz=2000)
    >>> report = compare(reference, estimated, tolerance_s=0.005, duration_s=36.0)
    >>> report.f1, report.false_alarms_per_hour
    (0.5, 100.0)
    """
    require_instance(Events, "use read_events or Events.from_seconds", reference=reference, estimated=estimated)
    tolerance_s = require_tolerance(tolerance_s)
    if duration_s is not None and not (np.isfinite(duration_s) and duration_s > 0):
        raise UnitError(f"duration_s must be a positive number of seconds, got {duration_s!r}")
    spans = reference  # on their own clock
    everything = reference, estimated = on_one_clock(reference, estimated)
    labelled = spans.covers(reference)
    pairs, dt_samples = match_events(reference[labelled], estimated, tolerance_s)
    judged = spans.covers(estimated)
    judged[pairs[:, 1]] = False
    if not labelled.all():
        answers_outside, _ = match_events(reference[~labelled], estimated[judged], tolerance_s)
        judged[np.flatnonzero(judged)[answers_outside[:, 1]]] = False
    judged[pairs[:, 1]] = True
    pairs[:, 1] = (np.cumsum(judged) - 1)[pairs[:, 1]]
    dt_s = dt_samples / estimated.sampling_rate_hz
    tables = reference[labelled], estimated[judged]
    return Comparison(*tables, tolerance_s, pairs, dt_s, refractory_s, duration_s, everything, (labelled, judged))


@dataclass(frozen=True, eq=False, repr=False)
class Comparison:
    """The outcome of `compare`, event by event and in numbers.

    Attributes
    ----------
    reference, estimated : the judged Events, on one clock and with one set of names
    tolerance_s : seconds
    pairs : (m, 2) rows of ``reference`` and ``estimated`` that answer each other
    dt_s : (m,) estimated minus reference, seconds
    refractory_s, duration_s : as given to `compare`
    everything : both tables before anything was left out
    judged : for each of them, which of its rows are judged, booleans
    """

    reference: Events
    estimated: Events
    tolerance_s: float
    pairs: np.ndarray
    dt_s: np.ndarray
    refractory_s: object
    duration_s: float | None
    everything: tuple[Events, Events]
    judged: tuple[np.ndarray, np.ndarray]

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
        return stats.ratio(self.tp, self.n_estimated)

    @property
    def recall(self) -> float:
        return stats.ratio(self.tp, self.n_reference)

    @property
    def f1(self) -> float:
        """Over all events together (micro)."""
        return stats.ratio(2 * self.tp, self.n_reference + self.n_estimated)

    @property
    def macro_f1(self) -> float:
        """Mean F1 of the types that occur in either table."""
        return float(self.per_type()["f1"].dropna().mean())

    @property
    def reference_outcome(self) -> np.ndarray:
        """(n_reference,) "hit" or "miss"."""
        return np.where(np.isin(np.arange(self.n_reference), self.pairs[:, 0]), "hit", "miss")

    @property
    def estimated_outcome(self) -> np.ndarray:
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
        return stats.ratio(self.fp, self.hours)

    @property
    def _hit_type(self):
        """(m,) the type of every pair."""
        return self.reference.type[self.pairs[:, 0]]

    def refractory_violations(self) -> dict | None:
        """Number of neighbours that are closer than their period, {"reference": n, "estimated": n}; None without a
        rule.

        All events that were passed in count, judged or not.
        """
        if self.refractory_s is None:
            return None
        n = (len(Refractory(self.refractory_s, events.names).violations(events)[0]) for events in self.everything)
        return dict(zip(("reference", "estimated"), n, strict=True))

    # ---- timing and calibration -------------------------------------------------------------------------------------

    def timing(self) -> dict:
        """Timing of the matched events: bias (signed median), MAD, RMSE, 95th percentile of |dt|, shares within 1, 2.5
        and 5 ms.

        ``without_type_medians`` holds the same after each type's own median was taken away.
        """
        shift = stats.median_per_type(self.dt_s, self._hit_type, len(self.reference.names))[self._hit_type]
        return {
            **stats.timing_statistics(self.dt_s),
            "without_type_medians": stats.timing_statistics(self.dt_s - shift),
        }

    def without_bias(self, search_s: float = 0.02) -> "Comparison":
        """Compare again after taking from each type its median error, found among matches within ``search_s``.

        A constant lateness close to the tolerance costs most matches; what remains here is the scatter.
        """
        reference, estimated = self.everything
        wide = self.at(search_s)
        shift = stats.median_per_type(wide.dt_s, wide._hit_type, len(reference.names)) * estimated.sampling_rate_hz
        moved = replace(estimated, fraction=estimated.fraction - shift[estimated.type])
        return compare(reference, moved, self.tolerance_s, self.refractory_s, self.duration_s)

    def calibration(self, n_bins: int = 10) -> dict:
        """Whether stated probabilities and standard deviations can be believed.

        Returns
        -------
        dict : of `evlib.scoring.statistics.reliability`, over all judged estimates (detect with a low threshold to see
            the doubtful ones too); ``coverage_68`` and ``coverage_95``, the shares of hits within 1 and 1.96 stated
            standard deviations, NaN where none were stated
        """
        sigma = self.estimated.sigma_s[self.pairs[:, 1]]
        within = stats.coverage(self.dt_s, sigma) if np.isfinite(sigma).all() else (np.nan, np.nan)
        result = stats.reliability(self.estimated.score, self.estimated_outcome == "hit", n_bins)
        return result | dict(zip(("coverage_68", "coverage_95"), within, strict=True))

    # ---- other tolerances and thresholds ----------------------------------------------------------------------------

    def at(self, tolerance_s: float) -> "Comparison":
        """The same events judged at another tolerance."""
        return compare(*self.everything, tolerance_s, self.refractory_s, self.duration_s)

    def at_tolerances(self, tolerances_s=REPORT_TOLERANCES_S):
        """Table of precision, recall and F1, one row per tolerance."""
        import pandas as pd

        reports = [self.at(tolerance_s) for tolerance_s in tolerances_s]
        columns = (*RATIOS, "tp", "fp", "fn")
        index = pd.Index([1e3 * t for t in tolerances_s], name="tolerance_ms")
        return pd.DataFrame({name: [getattr(r, name) for r in reports] for name in columns}, index=index)

    def _wrong_type(self):
        """(k, 2) rows of missed events and of false alarms at their time, which have another type."""
        missed = np.flatnonzero(self.reference_outcome == "miss")
        alarms = np.flatnonzero(self.estimated_outcome == "false_alarm")
        tables = self.reference[missed], self.estimated[alarms]
        pairs, _ = match_events(*tables, self.tolerance_s, ignore_type=True)
        return np.column_stack([missed[pairs[:, 0]], alarms[pairs[:, 1]]])

    def average_precision(self) -> dict:
        """Area under the precision-recall curve of each type, {name: value}; NaN without reference events or scores."""
        return {name: stats.average_precision(*self._score_curve(k)) for k, name in enumerate(self.reference.names)}

    def recall_at_false_alarms(self, rates_per_hour=(1, 10)) -> dict:
        """Recall at the lowest common threshold with at most this many false alarms per hour, {rate: recall}.

        NaN when the judged time or the scores are unknown.
        """
        tp, n_estimated, n_reference = self._score_curve()
        if not np.isfinite(self.hours) or tp is None:
            return dict.fromkeys(rates_per_hour, np.nan)
        most = {r: tp.max(where=n_estimated - tp <= r * self.hours, initial=0) for r in rates_per_hour}
        return {rate: stats.ratio(int(hits), n_reference) for rate, hits in most.items()}

    @cached_property
    def _score_hit(self):
        """(n_estimated,) booleans, the hits of the pairing that prefers high scores.

        It holds the most possible matches at every threshold at once (the sets of estimates that can be matched form a
        matroid, and the best score is taken first), so one matching serves all thresholds.
        """
        pairs, _ = match_events(self.reference, self.estimated, self.tolerance_s, prefer="score")
        return np.isin(np.arange(self.n_estimated), pairs[:, 1])

    def _score_curve(self, type=None):
        """Hits and estimates as the threshold falls over the scores, and reference events, of one type or of all."""
        own = [slice(None) if type is None else events.type == type for events in (self.reference, self.estimated)]
        score, hit = self.estimated.score[own[1]], self._score_hit[own[1]]
        return *stats.threshold_curve(score, hit), len(self.reference.type[own[0]])

    # ---- reports ----------------------------------------------------------------------------------------------------

    def per_type(self):
        """Table with one row per type: counts, precision, recall, F1, average precision and timing."""
        import pandas as pd

        n_reference, n_estimated = self.reference.counts(), self.estimated.counts()
        hits = np.bincount(self._hit_type, minlength=len(n_reference))
        timing = [stats.timing_statistics(self.dt_s[self._hit_type == k]) for k in range(len(self.reference.names))]
        columns = {
            "n_reference": n_reference,
            "n_estimated": n_estimated,
            "tp": hits,
            "fp": n_estimated - hits,
            "fn": n_reference - hits,
            "precision": stats.ratio(hits, n_estimated),
            "recall": stats.ratio(hits, n_reference),
            "f1": stats.ratio(2 * hits, n_reference + n_estimated),
            "average_precision": list(self.average_precision().values()),
            **{name: [row[name] for row in timing] for name in ("bias_ms", "mad_ms", "rmse_ms")},
        }
        return pd.DataFrame(columns, index=pd.Index(self.reference.names, name="type"))

    def table(self, threshold=0.5):
        """A pandas table of all events in the order of their time, judged or not.

        Parameters
        ----------
        threshold : probability from which an event is kept, for all types or a dict name -> probability

        Returns
        -------
        table with the columns ``time_s`` (the reference's, where there is one), ``type``, ``outcome`` (hit, miss,
        false_alarm, not_judged), ``reference_s``, ``estimated_s``, ``dt_ms`` (estimated minus reference), ``score``,
        ``gap_s`` (to the event of the same type before, where it is closer than the refractory period), ``certainty``
        (log odds between score and threshold), ``other`` (the type that the other table has at that time instead, ""
        without). NaN where a number is unknown.

        Examples
        --------
        >>> reference = Events.from_seconds([1.0, 2.0], ["a", "b"], 2000)
        >>> estimated = Events.from_seconds([1.001, 2.0], ["a", "a"], 2000, names=("a", "b"), score=[0.9, 0.6])
        >>> compare(reference, estimated).table()[["time_s", "type", "outcome", "score", "other"]]
           time_s type      outcome  score other
        0     1.0    a          hit    0.9
        1     2.0    b         miss    NaN     a
        2     2.0    a  false_alarm    0.6     b
        """
        import pandas as pd

        names = np.array(self.reference.names, dtype=object)
        limits = per_type_values(threshold, names, "threshold")
        reference, estimated = (
            pd.DataFrame(
                {
                    "type": names[events.type],
                    "outcome": "not_judged",
                    f"{side}_s": events.onset_s,
                    "gap_s": self._gaps(events),
                    "limit": limits[events.type],
                    "other": "",
                }
            )
            for side, events in zip(("reference", "estimated"), self.everything, strict=True)
        )
        r, e = (np.flatnonzero(rows) for rows in self.judged)
        reference.loc[r, "outcome"], estimated.loc[e, "outcome"] = self.reference_outcome, self.estimated_outcome
        missed, alarms = self._wrong_type().T
        reference.loc[r[missed], "other"] = names[self.estimated.type[alarms]]
        estimated.loc[e[alarms], "other"] = names[self.reference.type[missed]]
        # An estimate stands in the row of the reference event that it answers; those that answer none come behind.
        row = len(reference) + np.arange(len(estimated))
        row[e[self.pairs[:, 1]]] = r[self.pairs[:, 0]]
        table = estimated.assign(score=self.everything[1].score).set_axis(row).combine_first(reference)
        score, limit = (logit(table[name].clip(1e-12, 1 - 1e-12)) for name in ("score", "limit"))
        table = table.assign(
            time_s=table["reference_s"].fillna(table["estimated_s"]),
            dt_ms=1e3 * (table["estimated_s"] - table["reference_s"]),
            certainty=(score - limit).abs(),
        )
        return table[TABLE].sort_values("time_s", kind="stable", ignore_index=True)

    def _gaps(self, events):
        """(n,) seconds to the event of the same type before, where that breaks the refractory rule, else NaN."""
        gap_s = np.full(len(events), np.nan)
        pairs, gaps = Refractory(self.refractory_s, events.names).violations(events)
        gap_s[pairs[:, 1]] = gaps
        return gap_s

    def summary(self) -> dict:
        """The whole report as plain numbers that ``json.dumps`` takes; None where a number is unknown."""
        unbiased = self.without_bias()
        average_precision = [value for value in self.average_precision().values() if np.isfinite(value)]
        names = (*COUNTS, *RATIOS, "macro_f1", "false_alarms_per_hour")
        report = {
            "tolerance_ms": 1e3 * self.tolerance_s,
            **{name: getattr(self, name) for name in names},
            "mean_average_precision": np.mean(average_precision) if average_precision else np.nan,
            "recall_at_false_alarms_per_hour": self.recall_at_false_alarms(),
            "timing": self.timing(),
            "without_bias": {name: getattr(unbiased, name) for name in RATIOS},
            "at_tolerances": self.at_tolerances().reset_index().to_dict("records"),
            "refractory_violations": self.refractory_violations(),
            "per_type": self.per_type().to_dict("index"),
        }
        text = json.dumps(report, default=lambda x: x.tolist())  # NumPy numbers
        return json.loads(text, parse_constant=lambda _: None)

    def __repr__(self):
        counts = f"{self.n_reference} reference, {self.n_estimated} estimated"
        return f"Comparison(F1 {self.f1:.3f} at {1e3 * self.tolerance_s:g} ms, {counts})"

    def _headlines(self):
        ratios = f"(precision {self.precision:.3f}, recall {self.recall:.3f})"
        counts = f"{self.tp} hits, {self.fn} missed, {self.fp} false alarms"
        lines = [
            f"F1 {self.f1:.3f} at {1e3 * self.tolerance_s:g} ms {ratios}: {counts}",
            "timing of the hits: bias {bias_ms:+.2f} ms, MAD {mad_ms:.2f} ms, RMSE {rmse_ms:.2f} ms, "
            "95 % within {p95_ms:.2f} ms".format(**self.timing()),
        ]
        if np.isfinite(self.hours):
            lines.append(f"false alarms: {self.false_alarms_per_hour:.3g} per hour, over {self.hours:.3g} h")
        if self.refractory_s is not None:
            violations = ", ".join(f"{n} in {k}" for k, n in self.refractory_violations().items())
            lines.append(f"refractory violations: {violations}")
        return lines

    def __str__(self):
        return "\n".join([*self._headlines(), "", self.per_type().to_string(float_format="{:.3f}".format)])

    def _repr_html_(self):
        return f"<p>{'<br>'.join(self._headlines())}</p>{self.per_type().to_html(float_format='{:.3f}'.format)}"

    def plot(self):
        """F1 of each type beside a histogram of the signed timing errors, in a new figure; returns the two axes."""
        import matplotlib.pyplot as plt

        _, ax = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
        (left, right), names, tolerance_ms = ax, self.reference.names, 1e3 * self.tolerance_s
        left.bar(names, self.per_type()["f1"].fillna(0), label="one type")
        left.axhline(self.f1, color="black", linestyle="--", label=f"all events: {self.f1:.3f}")
        left.set(ylim=(0, 1.05), xlabel="event type", ylabel=f"F1 at {tolerance_ms:g} ms")
        left.tick_params(axis="x", rotation=90 if len(names) > 6 else 0)
        left.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
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


# ---- tables of events -----------------------------------------------------------------------------------------------


def event_table(
    reference: Events | None = None,
    estimated: Events | None = None,
    tolerance_s=0.005,
    refractory_s=None,
    threshold=0.5,
):
    """`Comparison.table` where one of the two tables may be missing; then no event is judged.

    Raises
    ------
    OptionError : neither table, no name in common, names that ``refractory_s`` or ``threshold`` lack
    UnitError : a tolerance or a period that is no number of seconds
    """
    nothing = np.zeros((0, 2), dtype=np.int64)  # spans in which labelling is complete
    if reference is not None and estimated is None:
        reference, estimated = replace(reference, labelled_spans=nothing), reference[:0]
    elif reference is None and estimated is not None:
        reference = replace(estimated[:0], labelled_spans=nothing)
    if reference is None or estimated is None:
        raise OptionError("there are no events: pass reference, estimated, or both")
    return compare(reference, estimated, tolerance_s, refractory_s).table(threshold)


def rows_of_kind(table, kind: str, shown=None) -> np.ndarray:
    """Rows of a `Comparison.table` that one may want to look at, (n,) integers in the order in which to do so.

    Parameters
    ----------
    kind : "event" (all), "error" (miss or false alarm), "refractory" (too close to the one before), "disagreement"
        (right time, other type; the reference's side), all by time; or "least_certain" (score closest to the threshold
        first)
    shown : (n_rows,) booleans, the rows to choose among
    """
    require_choice(KINDS, kind=kind)
    wanted = {
        "event": table["time_s"].notna(),
        "error": table["outcome"].isin(["miss", "false_alarm"]),
        "least_certain": table["certainty"].notna(),
        "refractory": table["gap_s"].notna(),
        "disagreement": (table["other"] != "") & table["reference_s"].notna(),
    }[kind].to_numpy()
    rows = np.flatnonzero(wanted if shown is None else wanted & shown)
    if kind == "least_certain":
        rows = rows[np.argsort(table["certainty"].to_numpy()[rows], kind="stable")]
    return rows
