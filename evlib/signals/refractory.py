"""Refractory periods: the shortest time between two events of one type, and which events break it.

A period is given in seconds and becomes whole samples, rounded up. A gap of exactly the period is allowed; 0 or None
means that a type has no such rule.
"""

import numpy as np

from .clock import SLACK_SAMPLES, duration_to_samples
from .errors import OptionError, ShapeError, UnitError, require_known, require_rate, warn_if_long
from .events import Events

# A longer period, in seconds, was probably given in samples or milliseconds.
USUAL_PERIOD_S = 3600


def per_type_values(value, names, argument: str, missing=None) -> np.ndarray:
    """(E,) one finite number per type, from a number, a dict (name -> number, "default" for the rest) or (E,) numbers.

    ``missing`` stands for None.

    >>> per_type_values({"step": 0.3, "default": 0.5}, ("step", "jump"), "threshold")
    array([0.3, 0.5])
    """
    given = value
    if isinstance(value, dict):
        require_known(set(value) - {"default"}, names, argument)
        absent = ", ".join(name for name in names if name not in value)
        if absent and "default" not in value:
            raise OptionError(f"{argument} lacks {absent}; give every type a value, or one under the key 'default'")
        value = [value.get(name, value.get("default")) for name in names]
    numbers = [missing if v is None else v for v in (value if np.ndim(value) else [value])]
    try:
        values = np.asarray(numbers, dtype=np.float64)
    except (TypeError, ValueError):
        wanted = "a number, a dict by event name, or one number per type"
        raise OptionError(f"{argument} must be {wanted}; got {given!r}") from None
    if np.ndim(value) and values.shape != (len(names),):
        wanted = f"one number or one for each of the {len(names)} types"
        raise ShapeError(f"{argument} must be {wanted}; got shape {values.shape}")
    if not np.isfinite(values).all():
        raise OptionError(f"{argument} must be finite, got {given!r}")
    return np.broadcast_to(values, (len(names),)).copy()


def intervals(events: Events):
    """Pairs of neighbours of one type: rows (m, 2), earlier and later, and the samples between them (m,)."""
    rows = np.lexsort((events.fraction, events.sample, events.type))
    # The difference of integers and of fractions apart: exact however late the events are.
    gap = np.diff(events.sample[rows]) + np.diff(events.fraction[rows])
    same = np.flatnonzero(np.diff(events.type[rows]) == 0)
    return np.column_stack([rows[same], rows[same + 1]]), gap[same]


class Refractory:
    """The refractory period of every type.

    Parameters
    ----------
    refractory_s : seconds; a number, None, a dict (name -> seconds, "default" for the rest), or one number per type
    names : (E,) event names

    Attributes
    ----------
    period_s : (E,) seconds, 0 where there is no rule

    Raises
    ------
    OptionError : an unknown name, a type without a value, a value that is not finite
    UnitError : a negative period

    Examples
    --------
    >>> refractory = Refractory({"clap": 0.25, "default": 2.0}, ("clap", "bell"))
    >>> refractory.samples(2000)
    array([ 500, 4000])
    >>> events = Events.from_seconds([0.0, 1.9995, 4.0], ["bell"] * 3, 2000, names=("clap", "bell"))
    >>> refractory.violations(events)
    (array([[0, 1]]), array([1.9995]))
    """

    def __init__(self, refractory_s, names):
        self.names = tuple(names)
        self.period_s = per_type_values(refractory_s, self.names, "refractory_s", missing=0.0)
        if (self.period_s < 0).any():
            raise UnitError(f"refractory_s must not be negative, got {refractory_s!r}")
        warn_if_long(USUAL_PERIOD_S, refractory_s=self.period_s.max(initial=0.0))

    def samples(self, sampling_rate_hz: float) -> np.ndarray:
        """(E,) periods in whole samples, rounded up; 0 where there is no rule."""
        rate = require_rate(sampling_rate_hz)
        return np.array([duration_to_samples(period, rate) for period in self.period_s], dtype=np.int64)

    def by_name(self, sampling_rate_hz: float) -> dict:
        """Event name -> seconds, rounded up to whole samples."""
        return {
            name: float(n / sampling_rate_hz)
            for name, n in zip(self.names, self.samples(sampling_rate_hz), strict=True)
        }

    def violations(self, events: Events, slack_samples: float = SLACK_SAMPLES):
        """Neighbours of one type that are closer than their period, by more than a rounding error ``slack_samples``.

        Returns
        -------
        pairs : (m, 2) rows of ``events``, earlier and later
        gap_s : (m,) seconds between them
        """
        pairs, gap = intervals(events)
        close = gap < self.samples(events.sampling_rate_hz)[events.type[pairs[:, 1]]] - slack_samples
        return pairs[close], gap[close] / events.sampling_rate_hz
