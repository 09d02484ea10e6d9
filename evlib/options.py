"""Checks of options that many functions take: whole numbers, probabilities and short spans of time."""

import math
import numbers

from .errors import OptionError


def check_whole(least, **values):
    """Refuse what is no whole number of at least ``least``.

    >>> check_whole(1, batch_size=0)
    Traceback (most recent call last):
    ...
    evlib.errors.OptionError: batch_size must be a whole number of at least 1, got 0
    """
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < least:
            raise OptionError(f"{name} must be a whole number of at least {least}, got {value!r}")


def check_list(**values):
    """Refuse one text where a list of them is wanted: it would be taken letter by letter.

    >>> check_list(labels="walk")
    Traceback (most recent call last):
    ...
    evlib.errors.OptionError: labels must be a list, got the text 'walk' (put it in a list)
    """
    for name, value in values.items():
        if isinstance(value, str | bytes):
            raise OptionError(f"{name} must be a list, got the text {value!r} (put it in a list)")


def log_odds_of(probability, name):
    """The log odds of a probability strictly between 0 and 1.

    >>> log_odds_of(0.5, "threshold")
    0.0
    """
    if isinstance(probability, bool) or not isinstance(probability, numbers.Real) or not 0 < probability < 1:
        raise OptionError(f"{name} is a probability strictly between 0 and 1, got {probability!r} (percent, or log odds?)")
    return math.log(probability / (1 - probability))


def check_short(longest_s=1.0, **values_s):
    """Refuse what is no number of seconds above 0 and up to ``longest_s``.

    >>> check_short(event_s=40)
    Traceback (most recent call last):
    ...
    evlib.errors.OptionError: event_s must be seconds between 0 and 1, got 40 (did you pass milliseconds?)
    """
    for name, value in values_s.items():
        if not (isinstance(value, numbers.Real) and 0 < value <= longest_s):
            raise OptionError(f"{name} must be seconds between 0 and {longest_s:g}, got {value!r} (did you pass milliseconds?)")
