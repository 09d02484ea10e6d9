"""The errors that evlib raises: one family, so that ``except EvlibError`` catches every refusal.

Each message names the argument, says what was wanted and what came, and guesses the likely slip.
"""

import importlib
import math
import numbers


class EvlibError(ValueError):
    """Something that a caller passed in cannot be used."""


class ShapeError(EvlibError):
    """An array has the wrong number of axes, or axes of the wrong length."""


class UnitError(EvlibError):
    """A rate, a time or a unit does not fit: seconds for samples, 360 Hz for 2000 Hz."""


class OptionError(EvlibError):
    """An option has an unknown name, an impossible value, or contradicts another one."""


class DataError(EvlibError):
    """A file or the values in it cannot be used: missing, truncated, not finite, hostile."""


class MissingExtraError(EvlibError, ImportError):
    """An optional package is needed; the message names the extra that brings it."""


def require_extra(module, extra):
    """Import ``module``, or say which extra of evlib brings it.

    >>> require_extra("json", "data").__name__
    'json'
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.split(".")[0]
        raise MissingExtraError(
            f"this needs the package {package!r}, which is not installed; install it with pip install 'evlib[{extra}]'"
        ) from error


# --- Checks of options that many functions take: whole numbers, probabilities and short spans of time.


def require_int(least, **values):
    """Refuse what is no whole number of at least ``least``.

    >>> require_int(1, batch_size=0)
    Traceback (most recent call last):
    ...
    evlib.signals.errors.OptionError: batch_size must be a whole number of at least 1, got 0
    """
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < least:
            raise OptionError(f"{name} must be a whole number of at least {least}, got {value!r}")


def check_list(**values):
    """Refuse one text where a list of them is wanted: it would be taken letter by letter.

    >>> check_list(labels="walk")
    Traceback (most recent call last):
    ...
    evlib.signals.errors.OptionError: labels must be a list, got the text 'walk' (put it in a list)
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
        raise OptionError(
            f"{name} is a probability strictly between 0 and 1, got {probability!r} (percent, or log odds?)"
        )
    return math.log(probability / (1 - probability))


def check_short(longest_s=1.0, **values_s):
    """Refuse what is no number of seconds above 0 and up to ``longest_s``.

    >>> check_short(event_s=40)
    Traceback (most recent call last):
    ...
    evlib.signals.errors.OptionError: event_s must be seconds between 0 and 1, got 40 (did you pass milliseconds?)
    """
    for name, value in values_s.items():
        if not (isinstance(value, numbers.Real) and 0 < value <= longest_s):
            raise OptionError(
                f"{name} must be seconds between 0 and {longest_s:g}, got {value!r} (did you pass milliseconds?)"
            )
