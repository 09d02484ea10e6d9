"""The errors that evlib raises, and the checks of arguments that many functions share.

All errors are one family: ``except EvlibError`` catches every refusal. A message names the argument, says what was
wanted and what came, and guesses the likely mistake. A ``require_...`` function takes the values under the names of
the arguments and returns nothing, except where its docstring says so.
"""

import importlib
import math
import numbers
import os
import sys
import warnings
from pathlib import Path

import numpy as np

from .text import printable

# No sensor is sampled more slowly (once in 30 years) or faster; a file that says so is damaged.
LEAST_HZ, MOST_HZ = 1e-9, 1e9


class EvlibError(ValueError):
    r"""Something that a caller passed in cannot be used.

    A message may quote a file. Characters that would move a terminal's cursor are shown, not sent.

    >>> print(EvlibError("no event name: \x1b[2J"))
    no event name: \x1b[2J
    """

    def __str__(self):
        return printable(super().__str__())


class ShapeError(EvlibError):
    """An array has the wrong number of axes, or axes of the wrong length."""


class UnitError(EvlibError):
    """A rate, a time or a unit does not fit: seconds for samples, 360 Hz for 2000 Hz."""


class OptionError(EvlibError):
    """An option has an unknown name, an impossible value, or contradicts another one."""


class DataError(EvlibError):
    """A file or the values in it cannot be used: missing, truncated, not finite, hostile."""


class WriteError(EvlibError, OSError):
    """A file could not be written: the disk is full, the folder is write-protected; what was there before still is."""


class UnitWarning(UserWarning):
    """A value is possible and unusual: milliseconds where seconds were wanted?"""


class MissingExtraError(EvlibError, ImportError):
    """An optional package is needed; the message names the extra that installs it."""


def require_extra(module: str, extra: str):
    """Import and return ``module``; if it is missing, the error names the extra of evlib that installs it.

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


def require(condition, error: type[EvlibError], message: str) -> None:
    """Raise an error with a message unless a condition holds.

    >>> require(2 > 3, ShapeError, "too small")
    Traceback (most recent call last):
    ...
    evlib.signals.errors.ShapeError: too small
    """
    if not condition:
        raise error(message)


def _refuse(values, fits, wanted, hint=""):
    """Refuse each of the ``values``, by name, that does not fit."""
    for name, value in values.items():
        if not fits(value):
            raise OptionError(f"{name} must be {wanted}, got {value!r}{hint}")


def _is_number(value):
    return isinstance(value, numbers.Real) and math.isfinite(value)


def require_int(least: int, **values) -> None:
    """Refuse anything but whole numbers of at least ``least``.

    >>> require_int(1, batch_size=0)
    Traceback (most recent call last):
    ...
    evlib.signals.errors.OptionError: batch_size must be a whole number of at least 1, got 0
    """

    def fits(value):
        return isinstance(value, numbers.Integral) and not isinstance(value, bool) and value >= least

    _refuse(values, fits, f"a whole number of at least {least}")


def require_number(least: float = 0.0, most: float = math.inf, **values) -> None:
    """Refuse anything but finite numbers in [least, most].

    >>> require_number(0, 1, share=1.5)
    Traceback (most recent call last):
    ...
    evlib.signals.errors.OptionError: share must be a number between 0 and 1, got 1.5
    """
    wanted = f"a number of at least {least:g}" if most == math.inf else f"a number between {least:g} and {most:g}"
    _refuse(values, lambda value: _is_number(value) and least <= value <= most, wanted)


def require_positive(**values) -> None:
    """Refuse anything but finite numbers above 0.

    >>> require_positive(duration_s=0)
    Traceback (most recent call last):
    ...
    evlib.signals.errors.OptionError: duration_s must be a positive number, got 0
    """
    _refuse(values, lambda value: _is_number(value) and value > 0, "a positive number")


def require_seconds(usual_s: float = 1.0, **values_s) -> None:
    """Refuse anything but positive numbers of seconds; warn of more than ``usual_s``.

    >>> require_seconds(event_s=0)
    Traceback (most recent call last):
    ...
    evlib.signals.errors.OptionError: event_s must be a positive number of seconds, got 0
    """
    _refuse(values_s, lambda value: _is_number(value) and value > 0, "a positive number of seconds")
    warn_if_long(usual_s, **values_s)


def warn_if_long(usual_s: float, **values_s) -> None:
    """Warn of times that are longer than usual; the warning points to the code that called evlib."""
    for name, value in values_s.items():
        if value > usual_s:
            usual = f"up to {usual_s:g} s is usual (did you pass milliseconds?)"
            warn(f"{name} is in seconds, got {value:g}; {usual}", UnitWarning)


def warn(text: str, category: type[Warning] = UserWarning) -> None:
    """Warn the code that called evlib: the warning names its line, not one of evlib."""
    level, frame = 1, sys._getframe()
    while frame.f_back and Path(frame.f_code.co_filename).is_relative_to(Path(__file__).parents[1]):
        level, frame = level + 1, frame.f_back
    warnings.warn(printable(text), category, stacklevel=level)


def _number_in(unit, name, value):
    try:
        return float(value)
    except (TypeError, ValueError):
        raise UnitError(f"{name} must be a number in {unit}, got {value!r}") from None


def require_tolerance(tolerance_s) -> float:
    """Return a tolerance as a float; refuse what is no number of seconds >= 0, warn of more than a second."""
    tolerance = _number_in("seconds", "tolerance_s", tolerance_s)
    if not 0 <= tolerance < math.inf:
        raise UnitError(f"tolerance_s must be a number of seconds >= 0, got {tolerance_s!r}")
    warn_if_long(1.0, tolerance_s=tolerance)
    return tolerance


def require_rate(sampling_rate_hz, name: str = "sampling_rate_hz") -> float:
    """Return a rate in Hz as a float; refuse what is no positive number, or no sensor's."""
    rate = _number_in("Hz", name, sampling_rate_hz)
    if not LEAST_HZ <= rate <= MOST_HZ:
        limits = f"{LEAST_HZ:g} to {MOST_HZ:g}"
        raise UnitError(f"{name} must be a positive number in Hz, {limits}, got {sampling_rate_hz!r}")
    return rate


def require_choice(choices, **values) -> None:
    """Refuse what is not among ``choices``.

    >>> require_choice(("time", "score"), prefer="size")
    Traceback (most recent call last):
    ...
    evlib.signals.errors.OptionError: prefer must be one of time, score; got 'size' (a spelling mistake?)
    """
    for name, value in values.items():
        if value not in tuple(choices):
            wanted = ", ".join(map(str, choices))
            raise OptionError(f"{name} must be one of {wanted}; got {value!r} (a spelling mistake?)")


def require_known(names, known, argument: str = "", what: str = "event name") -> None:
    """Refuse ``names`` that are not among the ``known`` ones; ``argument`` is where they were given.

    >>> require_known(["bel"], ["bell", "clap"], "threshold")
    Traceback (most recent call last):
    ...
    evlib.signals.errors.OptionError: unknown event name 'bel' in threshold; known: bell, clap (a spelling mistake?)
    """
    unknown = ", ".join(map(repr, sorted(set(map(str, names)) - set(known))))
    if unknown:
        where, known = f" in {argument}" if argument else "", ", ".join(map(str, known)) or "none"
        raise OptionError(f"unknown {what} {unknown}{where}; known: {known} (a spelling mistake?)")


# What makes one of these from a file.
FROM_FILES = {"Recording": "read_recording", "Events": "read_events", "Detector": "load_detector"}


def require_instance(kind: type, hint: str = "", **values) -> None:
    """Refuse what is no ``kind``; ``hint`` says how to make one.

    >>> require_instance(dict, "write dict(...)", refractory_s=2)
    Traceback (most recent call last):
    ...
    evlib.signals.errors.OptionError: refractory_s must be dict, got int (write dict(...))
    """
    if not hint and kind.__name__ in FROM_FILES:
        hint = f"evlib.{FROM_FILES[kind.__name__]} reads a file"
    for name, value in values.items():
        if not isinstance(value, kind):
            hint = f" ({hint})" if hint else ""
            raise OptionError(f"{name} must be {kind.__name__}, got {type(value).__name__}{hint}")


def require_list(**values) -> None:
    """Refuse what is no list: one text would be read letter by letter.

    >>> require_list(labels="walk")
    Traceback (most recent call last):
    ...
    evlib.signals.errors.OptionError: labels must be a list, got the text 'walk' (put it in a list)
    """
    for name, value in values.items():
        if isinstance(value, str | bytes):
            raise OptionError(f"{name} must be a list, got the text {value!r} (put it in a list)")
        if not hasattr(value, "__iter__"):
            raise OptionError(f"{name} must be a list, got {value!r}")


def path_of(path) -> Path:
    """A path, from text or a path.

    >>> path_of(5)
    Traceback (most recent call last):
    ...
    evlib.signals.errors.OptionError: the path of a file is wanted, got int
    """
    if not isinstance(path, str | os.PathLike):
        raise OptionError(f"the path of a file is wanted, got {type(path).__name__}")
    return Path(path)


def float_array(name: str, values) -> np.ndarray:
    """An array of float64, or an error that names the argument.

    >>> float_array("onset_s", ["one"])
    Traceback (most recent call last):
    ...
    evlib.signals.errors.OptionError: onset_s must be numbers, got ['one']
    """
    try:
        return np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        raise OptionError(f"{name} must be numbers, got {str(values)[:60]}") from None


def log_odds_of(probability: float, name: str) -> float:
    """The log odds of a probability; refuse what does not lie strictly between 0 and 1.

    >>> log_odds_of(0.5, "threshold")
    0.0
    """
    if isinstance(probability, bool) or not _is_number(probability) or not 0 < probability < 1:
        raise OptionError(
            f"{name} is a probability strictly between 0 and 1, got {probability!r} (percent, or log odds?)"
        )
    return math.log(probability / (1 - probability))
