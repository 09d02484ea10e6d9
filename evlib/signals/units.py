"""Units of measured quantities: which can be converted into each other, and by which factor."""

import re

import numpy as np

from .errors import UnitError

# Units of one quantity each, in terms of the first one. A capital makes another unit: G is gauss.
QUANTITIES = (
    {
        "m/s2": 1.0,
        "cm/s2": 0.01,
        "mm/s2": 0.001,
        "ft/s2": 0.3048,
        "g": 9.80665,
        "mg": 9.80665e-3,
        "ug": 9.80665e-6,
    },  # fmt: skip
    {"rad/s": 1.0, "deg/s": np.pi / 180, "mrad/s": 1e-3, "mdeg/s": np.pi / 180e3, "rpm": np.pi / 30},
    {"m/s": 1.0, "cm/s": 0.01, "mm/s": 0.001, "um/s": 1e-6, "nm/s": 1e-9, "km/h": 1 / 3.6},
    {"m": 1.0, "km": 1000.0, "cm": 0.01, "mm": 0.001, "um": 1e-6, "nm": 1e-9},
    {"V": 1.0, "mV": 1e-3, "uV": 1e-6, "nV": 1e-9},
    {"A": 1.0, "mA": 1e-3, "uA": 1e-6},
    {"T": 1.0, "mT": 1e-3, "uT": 1e-6, "nT": 1e-9, "G": 1e-4, "mG": 1e-7},
    {"Pa": 1.0, "hPa": 100.0, "kPa": 1000.0, "mbar": 100.0, "bar": 1e5},
    {"N": 1.0, "kN": 1000.0, "mN": 1e-3},
    {"s": 1.0, "ms": 1e-3, "us": 1e-6},
)
# Other ways to write them, in lower case and without blanks.
SPELLINGS = {
    "g0": "g",
    "gn": "g",
    "g_n": "g",
    "gs": "g",
    "dps": "deg/s",
    "gal": "cm/s2",
    "volt": "V",
    "volts": "V",
    "microvolts": "uV",
    "gauss": "G",
    "tesla": "T",
}
# What is written in several ways within a unit; the order matters.
WITHIN = (
    (r"\s+", " "),
    ("[µμ]", "u"),
    (r"²|⁻²|\^|\*\*", lambda sign: {"²": "2", "⁻²": "-2"}.get(sign[0], "")),
    ("⁻¹", "-1"),
    (r"°|\bdeg(?:ree)?s?\b", "deg"),
    (r"\brad(?:ian)?s?\b", "rad"),
    (r"\bsec(?:ond)?s?", "s"),
    (r" ?/ ?s ?/ ?s$", "/s2"),
    (r"(?<=[a-z])[ .·*]?s-([12])$", lambda power: "/s" + power[1].replace("1", "")),
    (r" ?/ ?\(?s\)?", "/s"),
)


def conversion_factor(unit: str, wanted: str) -> float:
    """By which number values in ``unit`` are multiplied to be in ``wanted``; 1 where one of the two is not known ("").

    Raises
    ------
    UnitError : units of different quantities, or units that are not known and differ

    >>> conversion_factor("g", "m/s^2")
    9.80665
    """
    here, there = _standard(unit), _standard(wanted)
    if not here or not there or here == there:
        return 1.0
    for factors in QUANTITIES:
        if here in factors and there in factors:
            return factors[here] / factors[there]
    raise UnitError(f"cannot convert {unit!r} to {wanted!r}")


def unit_in_brackets(name: str) -> str:
    """The unit at the end of a name; "" where there is none that is known.

    >>> unit_in_brackets("Acceleration x (m/s^2)"), unit_in_brackets("gyro [dps]"), unit_in_brackets("x (left)")
    ('m/s2', 'deg/s', '')
    """
    found = re.search(r"[(\[]([^()\[\]]+)[)\]]\s*$", name)
    unit = _standard(found[1]) if found else ""
    return unit if any(unit in factors for factors in QUANTITIES) else ""


def _standard(unit):
    """A unit as it is written in `QUANTITIES`."""
    text = unit.strip()
    for pattern, plain in WITHIN:
        text = re.sub(pattern, plain, text)
    return SPELLINGS.get(text, SPELLINGS.get(text.lower(), text))
