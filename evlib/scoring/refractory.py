"""Decoding under the refractory rule: two events of one type are at least a period apart.

Choosing among candidates is weighted interval scheduling: of all subsets that keep the rule, take the one with the
greatest total score. Taking the first lets a weak early candidate suppress the true event; taking the highest can
suppress two good events for one that is slightly better. Dynamic programming does neither, and needs O(n log n).
(J. Kleinberg and E. Tardos, Algorithm Design, 2005, section 6.1; here with intervals of equal length per type.)

The periods themselves are in `evlib.signals.refractory`. Here are the decoder, the same for candidates that arrive
block by block (`StreamingDecoder`), what the original event classifier does to presence and time per block, and
a penalty for training.
"""

import bisect

import numpy as np

from ..signals.clock import SLACK_SAMPLES
from ..signals.errors import DataError, OptionError, ShapeError, UnitError, require_number, require_rate
from ..signals.events import Events
from ..signals.refractory import Refractory, per_type_values


def find_violations(events: Events, refractory_s):
    """Neighbours of one type that are closer than their period.

    Returns
    -------
    pairs : (m, 2) rows of ``events``, earlier and later
    gap_s : (m,) seconds between them

    Examples
    --------
    >>> events = Events.from_seconds([0.0, 1.9995, 4.0], ["bell"] * 3, sampling_rate_hz=2000)
    >>> find_violations(events, 2.0)
    (array([[0, 1]]), array([1.9995]))
    """
    return Refractory(refractory_s, events.names).violations(events)


# What a schedule holds of each candidate, beside its row.
SCHEDULE = ("time", "weight", "before", "taken", "best")
# The columns of a row.
COLUMNS = ("sample", "fraction", "type", "score", "sigma_s", "duration_s")


class Schedule:
    """The dynamic programme for one type: it takes candidates one after another and drops what is decided for good.

    Node k stands for "the first k waiting candidates have been decided"; ``best[k]`` is the greatest total there.
    Candidate k leads from node ``before[k]`` to node k + 1 when ``taken[k]``, otherwise node k leads there.
    """

    def __init__(self, period):
        self.period = float(period)
        self.hasty = 0  # events that were kept in haste
        self._start_anew(-np.inf)

    def _start_anew(self, barred):
        """Without candidates; those before the time ``barred`` are too close to what was kept in haste."""
        self.barred = barred
        self.time, self.weight, self.row, self.before, self.taken, self.best = [], [], [], [], [], [0.0]

    def extend(self, time, weight, row):
        """Add candidates, sorted by time, none earlier than those already here; ``settle`` returns their ``row``."""
        known = len(self.time)
        self.time.extend(time)
        self.weight.extend(weight)
        self.row.extend(row)
        # Number of candidates that end a period before each new one; without a rule (period 0) all before it.
        start = np.asarray(time, dtype=np.float64) - self.period + SLACK_SAMPLES
        before = np.searchsorted(self.time, start, side="right")
        before = np.minimum(before, np.arange(known, len(self.time)))
        before = np.where(np.asarray(time) < self.barred, -1, before).tolist()
        best, taken = self.best, self.taken
        # A recurrence over plain floats, 10 million candidates a second: numpy scalars here would be ten times slower.
        for k, (node, w) in enumerate(zip(before, weight, strict=True), start=known):
            if node < 0:  # barred
                taken.append(False)
                best.append(best[k])
                continue
            if node == k:  # a gap of a period: sums start afresh, so what came long before cannot touch a tie
                best[k] = 0.0
            total = best[node] + w
            taken.append(total > best[k])  # strictly: of two equal choices the earlier candidate stays
            best.append(total if total > best[k] else best[k])
        self.before.extend(before)

    def settle(self, up_to=np.inf, oldest=-np.inf):
        """The rows kept for good, given that every further candidate comes at ``up_to`` or later.

        A further candidate continues from one of the last nodes. Where the best paths of all of these meet, the past
        is decided: whatever comes, the answer up to that node stays the same. What would wait although it is before
        ``oldest`` is decided in haste, as if nothing followed.
        """
        first = int(np.searchsorted(self.time, up_to - self.period + SLACK_SAMPLES, side="right"))
        paths = [self._path_from(node) for node in range(first, len(self.time) + 1)]
        meeting = max(set(paths[0]).intersection(*paths[1:]))
        if meeting < np.searchsorted(self.time, oldest):
            return self._settle_in_haste(paths[-1], oldest)
        kept = [self.row[node - 1] for node in paths[0][::-1] if 0 < node <= meeting and self.taken[node - 1]]
        for name in ("time", "weight", "row", "taken", "best"):
            setattr(self, name, getattr(self, name)[meeting:])
        self.before = [node - meeting for node in self.before[meeting:]]
        return kept

    def _settle_in_haste(self, path, oldest):
        """The rows on a path that come before ``oldest``; what waits is decided anew beside them."""
        kept = [node - 1 for node in path[::-1] if node and self.taken[node - 1] and self.time[node - 1] < oldest]
        rows, later = [self.row[k] for k in kept], int(np.searchsorted(self.time, oldest))
        waiting = self.time[later:], self.weight[later:], self.row[later:]
        self.hasty += len(kept)
        self._start_anew(self.time[kept[-1]] + self.period - SLACK_SAMPLES if kept else self.barred)
        self.extend(*waiting)
        return rows

    def _path_from(self, node):
        """The nodes that lead to this one, itself first."""
        path = [node]
        while node:
            node = self.before[node - 1] if self.taken[node - 1] else node - 1
            path.append(node)
        return path


def decode_refractory(time, type, score, period) -> np.ndarray:
    """Of each type, the candidates with the greatest total score that keep the refractory rule.

    Parameters
    ----------
    time : (n,) samples, any order, fractions allowed
    type : (n,) integers in 0..E-1
    score : (n,) finite numbers; only candidates with a positive score are kept
    period : samples, one number or (E,)

    Returns
    -------
    keep : (n,) booleans; of equally good choices the earlier candidates are kept

    Raises
    ------
    ShapeError, DataError, OptionError : arrays of unequal shape, values that are not finite, negative types

    Examples
    --------
    >>> decode_refractory([0, 3999, 4000], [0, 0, 0], [0.5, 0.9, 0.6], period=4000)
    array([ True, False,  True])
    """
    time, score = np.asarray(time, dtype=np.float64), np.asarray(score, dtype=np.float64)
    type = np.asarray(type, dtype=np.int64) if np.size(type) else np.zeros(0, dtype=np.int64)
    if not time.shape == type.shape == score.shape or time.ndim != 1:
        shapes = f"{time.shape}, {type.shape}, {score.shape}"
        raise ShapeError(f"time, type and score must share one shape (n,); got {shapes}")
    if not (np.isfinite(time).all() and np.isfinite(score).all()):
        raise DataError("candidates need finite times and scores; found NaN or infinity (a reference has no scores)")
    if type.min(initial=0) < 0:
        raise OptionError(f"types must be 0..E-1, got {type.min()}")
    n_types, period = int(type.max(initial=-1)) + 1, np.asarray(period, dtype=np.float64)
    if period.ndim > 1 or (period.ndim and len(period) < n_types):
        raise ShapeError(f"period must be one number or one for each of {n_types} types, got shape {period.shape}")
    keep = np.zeros(len(time), dtype=bool)
    order = np.lexsort((time, type))
    order = order[score[order] > 0]
    for kind in np.unique(type[order]):
        rows = order[type[order] == kind]
        schedule = Schedule(period[kind] if period.ndim else period)
        schedule.extend(time[rows].tolist(), score[rows].tolist(), rows.tolist())
        keep[schedule.settle()] = True
    return keep


class StreamingDecoder:
    """`decode_refractory` for events that arrive block by block: the same choice, each event as soon as it is final.

    An event is final once no later candidate can change it. After one period without a candidate everything before is
    final; where candidates are denser it takes longer (random scores: in the median 1.2 periods with 2 candidates per
    period, 3.6 with 10, 11 with 40), and a threshold shortens the delay. Types are decided apart from each other:
    events of different types may come out of order in time.

    Parameters
    ----------
    names, sampling_rate_hz : of the candidates to come
    refractory_s : see `evlib.signals.refractory.Refractory`
    threshold : score that a candidate must exceed; a number, a dict by name, or one per type
    limit_s : what has waited for so many seconds is decided in haste, by what is known; default: nothing is

    Attributes
    ----------
    hasty : events that were kept in haste
    up_to_sample : the last promise

    Examples
    --------
    >>> decoder = StreamingDecoder(("bell",), refractory_s=2.0, sampling_rate_hz=2000)
    >>> block = Events.from_seconds([0.0, 0.5], ["bell", "bell"], 2000, score=[0.4, 0.9])
    >>> len(decoder.push(block, up_to_sample=2000)), decoder.flush().onset_s
    (0, array([0.5]))
    """

    def __init__(self, names, refractory_s, sampling_rate_hz: float, threshold=0.0, limit_s: float | None = None):
        self._none = Events.empty(names, sampling_rate_hz)
        self.names, self.sampling_rate_hz = self._none.names, self._none.sampling_rate_hz
        self.period_samples = Refractory(refractory_s, self.names).samples(self.sampling_rate_hz)
        self.threshold = per_type_values(threshold, self.names, "threshold", missing=0.0)
        require_number(limit_s=0.0 if limit_s is None else limit_s)
        self.limit_samples = np.inf if limit_s is None else limit_s * self.sampling_rate_hz
        self.reset()

    @property
    def hasty(self) -> int:
        """Events that were kept in haste."""
        return sum(schedule.hasty for schedule in self._schedules)

    @property
    def decided_samples(self) -> float:
        """No event before this sample will come any more."""
        waiting = [schedule.time[0] for schedule in self._schedules if schedule.time]
        return min([self.up_to_sample, *waiting])

    def state(self) -> dict:
        """All that `restore` needs to go on: numbers and arrays."""
        out = {"up_to": self.up_to_sample, "ahead": _columns(self._ahead)}
        for k, schedule in enumerate(self._schedules):
            rows = np.array(schedule.row, dtype=np.float64).reshape(-1, len(COLUMNS))
            lists = {name: np.array(getattr(schedule, name)) for name in SCHEDULE}
            out |= {f"{k}.{name}": value for name, value in (lists | {"row": rows}).items()}
            out |= {f"{k}.barred": schedule.barred, f"{k}.hasty": schedule.hasty}
        return out

    def restore(self, state) -> None:
        """Go on where `state` was taken."""
        self.reset()
        self.up_to_sample, self._ahead = float(state["up_to"]), self._events(state["ahead"])
        for k, schedule in enumerate(self._schedules):
            for name in SCHEDULE:
                setattr(schedule, name, np.asarray(state[f"{k}.{name}"]).tolist())
            schedule.row = list(map(tuple, np.asarray(state[f"{k}.row"]).tolist()))
            schedule.barred, schedule.hasty = float(state[f"{k}.barred"]), int(state[f"{k}.hasty"])

    def _events(self, rows):
        """Events from rows (n, 5) of sample, fraction, type, score and sigma_s."""
        sample, fraction, type, *rest = np.asarray(rows, dtype=np.float64).reshape(-1, len(COLUMNS)).T
        whole = sample.astype(np.int64), fraction, type.astype(np.int64)
        values = dict(zip(COLUMNS[3:], rest, strict=True))
        return Events(*whole, self.names, self.sampling_rate_hz, **values)

    def reset(self) -> None:
        """Forget everything: the next candidate starts a new recording."""
        self._schedules = [Schedule(period) for period in self.period_samples]
        self._ahead, self.up_to_sample = self._none, -np.inf

    def push(self, candidates: Events, up_to_sample: float) -> Events:
        """Take candidates and return the Events that are final.

        ``up_to_sample`` promises that every later candidate has ``sample >= up_to_sample``; candidates beyond it wait.
        Candidates before the last promise, or a promise that goes back, are refused.
        """
        if candidates.names != self.names or candidates.sampling_rate_hz != self.sampling_rate_hz:
            raise OptionError("candidates must have the decoder's names and rate; call with_names and at_rate first")
        if not up_to_sample >= self.up_to_sample or (candidates.sample < self.up_to_sample).any():
            done = f"{self.up_to_sample:g}"
            raise DataError(f"candidates before sample {done} were promised to be complete (blocks out of order?)")
        if not np.isfinite(candidates.score).all():
            raise DataError("candidates need finite scores; found NaN or infinity")
        waiting = Events.concatenate([self._ahead, candidates])
        ready = waiting.sample < up_to_sample
        self._ahead, self.up_to_sample = waiting[~ready], up_to_sample
        weight = waiting.score - self.threshold[waiting.type]
        rows_of, time, final = _columns(waiting), waiting.time_samples, []
        for kind, schedule in enumerate(self._schedules):
            rows = np.flatnonzero(ready & (waiting.type == kind) & (weight > 0))
            schedule.extend(time[rows].tolist(), weight[rows].tolist(), map(tuple, rows_of[rows].tolist()))
            # A fraction may lie half a sample before its sample.
            final += schedule.settle(up_to_sample - 0.5, up_to_sample - self.limit_samples)
        return self._events(final)

    def flush(self) -> Events:
        """The events still waiting, decided as if nothing follows; then start anew."""
        final = self.push(self._none, np.inf)
        self.reset()
        return final


def _columns(events):
    """(n, 5) sample, fraction, type, score and sigma_s."""
    return np.column_stack([getattr(events, name) for name in COLUMNS]).astype(float)


class RefractoryPeriodEnforcer:
    """Drop events that come within the refractory period of an event of the same type, block by block.

    A block holds at most one event per type: a flag and a time in samples from the start of the block. An event at
    ``g = global_offset + time`` stays if it is at least a period away from every event that was let through before,
    in whichever order the blocks come. What was let through is final: a surer event in a later block does not
    displace it (use `StreamingDecoder` for that). numpy arrays or torch tensors in, the same kind out.

    Parameters
    ----------
    num_events : number of types E
    refractory_period_samples : one integer or (E,)
    sample_rate : Hz; kept for reference, all times are samples

    Examples
    --------
    >>> enforcer = RefractoryPeriodEnforcer(num_events=2)
    >>> enforcer.enforce(np.array([1, 0]), np.array([100.0, 0.0]))
    (array([1, 0]), array([100.,  nan]))
    >>> enforcer.enforce(np.array([1, 1]), np.array([50.0, 60.0]), global_offset=2000)
    (array([0, 1]), array([nan, 60.]))
    """

    def __init__(self, num_events: int = 16, refractory_period_samples=4000, sample_rate: float = 2000):
        self.num_events = int(num_events)
        period = np.asarray(refractory_period_samples)
        if not np.issubdtype(period.dtype, np.integer) or period.shape not in ((), (self.num_events,)):
            wanted = f"an integer or one for each of {self.num_events} types"
            raise UnitError(f"refractory_period_samples must be {wanted}, got {period!r} (were seconds passed?)")
        if (period < 0).any():
            raise UnitError(f"refractory_period_samples must not be negative, got {period!r}")
        self.refractory_period_samples = np.broadcast_to(period, (self.num_events,)).copy()
        self.sample_rate = require_rate(sample_rate, "sample_rate")
        self.reset()

    def reset(self) -> None:
        """Forget all earlier events."""
        self._kept: list = [[] for _ in range(self.num_events)]  # sorted global times of each type

    def enforce(self, detected_events, event_timings, probs=None, global_offset=0):
        """Apply the rule to one block.

        Parameters
        ----------
        detected_events : (E,) flags 0 or 1
        event_timings : (E,) samples from the start of the block, read where the flag is 1
        probs : (E,) as in the original; not read: of one event a type there is nothing to choose from
        global_offset : first sample of the block

        Returns
        -------
        events : (E,) flags, 0 where rejected
        timings : (E,) floats, NaN wherever the flag is 0
        """
        flags, timings = _array(detected_events), _array(event_timings)
        for values in (flags, timings):
            if values.shape != (self.num_events,):
                raise ShapeError(f"flags and timings must have shape ({self.num_events},), got {values.shape}")
        if not np.isin(flags, (0, 1)).all():
            raise OptionError("detected_events must be 0 or 1 (probabilities? compare them with a threshold first)")
        if not np.isfinite(timings[flags == 1]).all():
            raise DataError("timings must be finite where an event is detected")
        for kind in np.flatnonzero(flags):
            kept, time = self._kept[kind], global_offset + timings[kind]
            place, period = bisect.bisect(kept, time), self.refractory_period_samples[kind] - SLACK_SAMPLES
            if all(abs(time - other) >= period for other in kept[max(place - 1, 0) : place + 1]):
                kept.insert(place, time)
            else:
                flags[kind] = 0
        timings[flags == 0] = np.nan
        return _like(detected_events, flags), _like(event_timings, timings, floating=True)

    def enforce_batch(self, detected_events, event_timings, sequence_lengths, probs=None, global_offset=0):
        """Apply the rule to blocks (B, E) that follow each other, of ``sequence_lengths`` (B,) samples.

        The other arguments and the results are those of `enforce`, one row a block.

        >>> enforcer = RefractoryPeriodEnforcer(num_events=1)
        >>> enforcer.enforce_batch(np.array([[1], [1]]), np.array([[100.0], [50.0]]), [2000, 2000])[0].ravel()
        array([1, 0])
        """
        lengths = _array(sequence_lengths)
        if not lengths.shape == np.shape(detected_events)[:1] == np.shape(event_timings)[:1]:
            shapes = f"{np.shape(detected_events)}, {np.shape(event_timings)} and {lengths.shape}"
            raise ShapeError(f"a batch has flags and timings (B, E) and B lengths, got {shapes}")
        starts = global_offset + np.r_[0, np.cumsum(lengths)[:-1]]
        flags, timings = _array(detected_events), _array(event_timings)
        for row, start in enumerate(starts):
            flags[row], timings[row] = self.enforce(flags[row], timings[row], global_offset=start)
        return _like(detected_events, flags), _like(event_timings, timings, floating=True)


def non_maximum_suppression(event_probs, event_timings, threshold=0.5, nms_threshold=50):
    """The surest time of each type in a window, where it is surer than a threshold.

    Parameters
    ----------
    event_probs : (time, E) probability of each type at each step
    event_timings : (time, E) the time in samples for which each of them stands
    threshold : least probability, itself excluded
    nms_threshold : as in the original; not read: of one time a type there is nothing to suppress

    Returns
    -------
    events, timings, probs : (E,) flags 0 or 1; times, NaN where there is none; probabilities, 0 where there is none

    Raises
    ------
    ShapeError, DataError, OptionError : tables that are not alike, probabilities outside [0, 1], another threshold

    Examples
    --------
    >>> probs = np.array([[0.1, 0.2], [0.9, 0.1], [0.7, 0.0]])
    >>> non_maximum_suppression(probs, np.array([[0], [10], [20]]) + np.zeros(2))
    (array([1., 0.]), array([10., nan]), array([0.9, 0. ]))
    """
    require_number(0, 1, threshold=threshold)
    probs, timings = _array(event_probs), _array(event_timings)
    if probs.ndim != 2 or len(probs) == 0 or probs.shape != timings.shape:
        raise ShapeError(f"probabilities and times must both have shape (time, E), got {probs.shape}, {timings.shape}")
    if not ((probs >= 0) & (probs <= 1)).all():
        raise DataError("event_probs must lie in [0, 1] (logits? take their sigmoid first)")
    best = probs.argmax(0), np.arange(probs.shape[1])
    found = probs[best] > threshold
    answers = found.astype(float), np.where(found, timings[best], np.nan), np.where(found, probs[best], 0.0)
    return tuple(_like(event_timings, answer, floating=True) for answer in answers)


def _array(values):
    """A new float64 array from an array, a list or a tensor on any device."""
    values = values.detach().cpu().double().numpy() if hasattr(values, "detach") else values
    return np.array(values, dtype=np.float64)


def _like(given, array, floating=False):
    """``array`` as the kind of thing that was given; integers become float64 where NaN must fit."""
    if hasattr(given, "detach"):
        return (given if given.is_floating_point() or not floating else given.double()).new_tensor(array)
    dtype = np.asarray(given).dtype
    return array if floating and not np.issubdtype(dtype, np.floating) else array.astype(dtype)


def refractory_penalty(rates, period_frames, mask=None):
    """How strongly per-frame event rates break the refractory rule; differentiable.

    For each type, the sum over all ordered pairs of frames 0 < |i - j| < period of ``rates[i] * rates[j]``, then the
    mean over batch and types. With rates read as expected events per frame it is about twice the expected number of
    pairs that break the rule. A single spike costs nothing, however high.

    Parameters
    ----------
    rates : (B, T, E) torch tensor of floats >= 0
    period_frames : frames, one integer or (E,)
    mask : (B, T) booleans, False where frames are padding

    Returns
    -------
    scalar tensor, in float32 at least

    Examples
    --------
    >>> import torch
    >>> rates = torch.zeros(1, 500, 1)
    >>> rates[0, [0, 399], 0] = 1.0
    >>> refractory_penalty(rates, 400).item(), refractory_penalty(rates, 399).item()
    (2.0, 0.0)
    """
    import torch

    if rates.ndim != 3 or not rates.is_floating_point():
        raise ShapeError(f"rates must be floats (batch, frames, types), got {rates.dtype} {tuple(rates.shape)}")
    n_batch, n_frames, n_types = rates.shape
    period = torch.as_tensor(period_frames, device=rates.device)
    if period.is_floating_point() or period.numel() not in (1, n_types) or (period < 0).any():
        wanted = f"one integer >= 0 or one for each of {n_types} types"
        raise OptionError(f"period_frames must be {wanted}, got {period_frames!r}")
    if mask is not None:
        if mask.shape != rates.shape[:2]:
            raise ShapeError(f"mask must have shape {(n_batch, n_frames)} like rates, got {tuple(mask.shape)}")
        rates = rates.masked_fill(~mask.bool().unsqueeze(-1), 0.0)
    if rates.dtype in (torch.float16, torch.bfloat16):
        rates = rates.float()  # running sums over thousands of frames
    # Each pair once: frame i with the sum over the period - 1 frames before it, from running sums, O(T).
    before = torch.nn.functional.pad(rates.cumsum(dim=1), (0, 0, 1, 0))
    frames = torch.arange(n_frames, device=rates.device).unsqueeze(-1)
    first = (frames - period.reshape(1, -1).clamp(min=1) + 1).clamp(min=0).expand(n_frames, n_types)
    recent = before[:, :-1] - before.gather(1, first.expand(n_batch, n_frames, n_types))
    return 2 * (rates * recent).sum(dim=1).mean()
