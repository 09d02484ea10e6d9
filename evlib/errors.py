"""The errors that evlib raises: one family, so that ``except EvlibError`` catches every refusal.

Each message names the argument, says what was wanted and what came, and guesses the likely slip.
"""

import importlib


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
