"""The refractory rule on streams: a decoder for scored candidates, and the enforcer for presence and timing per block.

`StreamingDecoder` gives the optimal answer of `evlib.refractory.decode_events` with a short delay;
`RefractoryPeriodEnforcer` decides at once, so what it has let through earlier is final.
"""

import bisect

import numpy as np

from .errors import DataError, OptionError, ShapeError, UnitError
from .events import Events
from .refractory import Schedule, decode_refractory, per_type_values, refractory_samples
from .timebase import SLACK_SAMPLES, check_rate


class StreamingDecoder:
    """`decode_events` for candidates that arrive bit by bit: the same events, each as soon as it is final.

    An event is final once no later candidate can change it. A stretch of one period without a candidate ends every
    doubt; where candidates leave no such gap it takes longer the denser they are (random scores, 2 candidates per
    period: in the median 1.2 periods; 10: 3.6; 40: 11), so a threshold shortens the delay. Types are decided apart
    from each other: events of different types may come out of order in time.

    Parameters
    ----------
    names, sampling_rate_hz : of the candidates to come
    refractory_s : see `refractory_samples`
    threshold : score that a candidate must exceed; a number, a dict by name, or one per type

    Examples
    --------
    >>> decoder = StreamingDecoder(("bell",), refractory_s=2.0, sampling_rate_hz=2000)
    >>> block = Events.from_seconds([0.0, 0.5], ["bell", "bell"], 2000, score=[0.4, 0.9])
    >>> len(decoder.push(block, up_to_sample=2000)), decoder.flush().onset_s
    (0, array([0.5]))
    """

    def __init__(self, names, refractory_s, sampling_rate_hz, threshold=0.0):
        self._none = Events.empty(names, sampling_rate_hz)
        self.names, self.sampling_rate_hz = self._none.names, self._none.sampling_rate_hz
        self.period_samples = refractory_samples(refractory_s, self.names, self.sampling_rate_hz)
        self.threshold = per_type_values(threshold, self.names, "threshold", missing=0.0)
        self.reset()

    def reset(self):
        """Forget everything: the next candidate starts a new recording."""
        self._schedules = [Schedule(period) for period in self.period_samples]
        self._ahead = self._none
        self._up_to = -np.inf

    def push(self, candidates, up_to_sample):
        """Take candidates and return the Events that are final.

        ``up_to_sample`` promises that every later candidate has ``sample >= up_to_sample``; candidates beyond it wait.
        Candidates before the last promise, or a promise that goes back, are refused.
        """
        if candidates.names != self.names or candidates.sampling_rate_hz != self.sampling_rate_hz:
            raise OptionError("candidates must have the decoder's names and rate; call with_names and at_rate first")
        if not up_to_sample >= self._up_to or (candidates.sample < self._up_to).any():
            raise DataError(f"candidates before sample {self._up_to:g} were promised to be complete (blocks out of order?)")
        if not np.isfinite(candidates.score).all():
            raise DataError("candidates need finite scores; found NaN or infinity")
        waiting = Events.concatenate([self._ahead, candidates])
        ready = waiting.sample < up_to_sample
        self._ahead, self._up_to = waiting[~ready], up_to_sample
        weight = waiting.score - self.threshold[waiting.type]
        time, final = waiting.time_samples, []
        for kind, schedule in enumerate(self._schedules):
            rows = np.flatnonzero(ready & (waiting.type == kind) & (weight > 0))
            columns = (waiting.sample, waiting.fraction, waiting.type, waiting.score, waiting.sigma_s)
            schedule.extend(time[rows].tolist(), weight[rows].tolist(), zip(*(c[rows].tolist() for c in columns), strict=True))
            final += schedule.settle(up_to_sample - 0.5)  # a fraction may lie half a sample before its sample
        if not final:
            return self._none
        sample, fraction, kind, score, sigma_s = zip(*final, strict=True)
        return Events(sample, fraction, kind, self.names, self.sampling_rate_hz, score, sigma_s)

    def flush(self):
        """The events still waiting, decided as if nothing follows; then start anew."""
        final = self.push(self._none, np.inf)
        self.reset()
        return final


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

    def __init__(self, num_events=16, refractory_period_samples=4000, sample_rate=2000):
        self.num_events = int(num_events)
        period = np.asarray(refractory_period_samples)
        if not np.issubdtype(period.dtype, np.integer) or period.shape not in ((), (self.num_events,)):
            raise UnitError(
                f"refractory_period_samples must be an integer or one for each of {self.num_events} types, "
                f"got {refractory_period_samples!r} (were seconds passed?)"
            )
        if (period < 0).any():
            raise UnitError(f"refractory_period_samples must not be negative, got {refractory_period_samples!r}")
        self.refractory_period_samples = np.broadcast_to(period, (self.num_events,)).copy()
        self.sample_rate = check_rate(sample_rate, "sample_rate")
        self.reset()

    def reset(self):
        """Forget all earlier events."""
        self._kept = [[] for _ in range(self.num_events)]  # sorted global times of each type

    def enforce(self, detected_events, event_timings, probs=None, global_offset=0):
        """Apply the rule to one block.

        Parameters
        ----------
        detected_events : (E,) flags 0 or 1
        event_timings : (E,) samples from the start of the block, read where the flag is 1
        probs : (E,); accepted for symmetry with `enforce_batch`: one event per type leaves nothing to weigh
        global_offset : first sample of the block

        Returns
        -------
        events : (E,) flags, 0 where rejected
        timings : (E,) floats, NaN wherever the flag is 0
        """
        for name, values in {"detected_events": detected_events, "event_timings": event_timings, "probs": probs}.items():
            if np.shape(values) != (self.num_events,) and (name != "probs" or probs is not None):
                shape = tuple(np.shape(values))
                raise ShapeError(f"{name} must have shape ({self.num_events},), got {shape} (for several blocks: enforce_batch)")
        one_block = [values[None] if hasattr(values, "ndim") else [values] for values in (detected_events, event_timings)]
        flags, timings = self.enforce_batch(*one_block, sequence_lengths=[0], global_offset=global_offset)
        return flags[0], timings[0]

    def enforce_batch(self, detected_events, event_timings, sequence_lengths, probs=None, global_offset=0):
        """Apply the rule to consecutive blocks at once; block b starts at ``global_offset + sum(sequence_lengths[:b])``.

        Parameters
        ----------
        detected_events, event_timings : (B, E) as in `enforce`
        sequence_lengths : (B,) samples
        probs : (B, E); with them the events kept within the batch have the greatest total probability, without them
            the earlier of two events stays
        global_offset : first sample of the first block

        Returns
        -------
        events, timings : (B, E) as in `enforce`
        """
        flags, timings = _array(detected_events), _array(event_timings)
        weight = np.ones_like(flags) if probs is None else _array(probs)
        lengths = _array(sequence_lengths)
        if flags.ndim != 2 or flags.shape[1] != self.num_events:
            raise ShapeError(f"detected_events must have shape (batch, {self.num_events}), got {flags.shape}")
        if timings.shape != flags.shape or weight.shape != flags.shape:
            raise ShapeError(f"timings and probs must have shape {flags.shape}; got {timings.shape} and {weight.shape}")
        if lengths.shape != flags.shape[:1]:
            raise ShapeError(f"sequence_lengths must have shape {flags.shape[:1]}, one length per block; got {lengths.shape}")
        if not np.isin(flags, (0, 1)).all():
            raise OptionError("detected_events must hold flags 0 and 1 (probabilities? compare them with a threshold first)")
        block, kind = np.nonzero(flags)
        if not (np.isfinite(timings[block, kind]).all() and np.isfinite(weight[block, kind]).all()):
            raise DataError("timings and probs must be finite where an event is detected")
        start = float(global_offset) + np.cumsum(lengths) - lengths
        time = start[block] + timings[block, kind]
        free = np.array([self._is_free(k, t) for k, t in zip(kind, time, strict=True)], dtype=bool)
        block, kind, time = block[free], kind[free], time[free]
        keep, _ = decode_refractory(time, kind, weight[block, kind], self.refractory_period_samples)
        for k, t in zip(kind[keep], time[keep], strict=True):
            bisect.insort(self._kept[k], t)
        flags_out, timings_out = np.zeros_like(flags), np.full_like(timings, np.nan)
        flags_out[block[keep], kind[keep]] = 1
        timings_out[block[keep], kind[keep]] = timings[block[keep], kind[keep]]
        return _like(detected_events, flags_out), _like(event_timings, timings_out, floating=True)

    def _is_free(self, kind, time):
        """No kept event of this type lies within a period, before or after."""
        kept = self._kept[kind]
        k = bisect.bisect_left(kept, time)
        period = self.refractory_period_samples[kind] - SLACK_SAMPLES
        return all(abs(time - other) >= period for other in kept[max(k - 1, 0) : k + 1])


def _array(values):
    """A float64 array from an array, a list or a tensor on any device."""
    return (values.detach().cpu().double().numpy() if hasattr(values, "detach") else np.asarray(values, dtype=np.float64)).copy()


def _like(given, array, floating=False):
    """``array`` as the kind of thing that was given; integers become float64 where NaN must fit."""
    if hasattr(given, "detach"):
        return (given if given.is_floating_point() or not floating else given.double()).new_tensor(array)
    dtype = np.asarray(given).dtype
    return array if floating and not np.issubdtype(dtype, np.floating) else array.astype(dtype)
