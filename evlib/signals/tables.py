r"""Text tables: one guarded reader of CSV and TSV, for recordings and for events.

A table is a line of names and then lines with as many fields. Lines that are longer or shorter, quotes without an end
and control characters are refused with the number of the line: a parser that recovers would shift or lose values.
Lines before the table, the separator and a decimal comma are found where only one answer fits.
"""

import csv
import io
import re
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from .errors import DataError, OptionError, warn

# Separators that are looked for, the likeliest first.
SEPARATORS = ("\t", ";", ",")
# Lines that are looked at to find the separator and where the table begins; a table has at least so many alike.
LOOK, ALIKE = 400, 3
NO_TEXT = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\x80-\x9f]")
NUMBER = re.compile(r"\s*[+-]?(\d+[.,]?\d*|[.,]\d+)([eE][+-]?\d+)?\s*|\s*[+-]?(nan|inf|n/a|na|null)?\s*", re.IGNORECASE)
STAMP = re.compile(
    r"\s*(\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}[ T]\s*)?\d{1,2}:\d{2}(:\d{2}([.,:]\d+)?)?\s*(Z|[AP]M|[+-]\d\d:?\d\d)?\s*",
    re.I,
)
# What loggers write before their tables.
RATE = re.compile(
    r"\bat (\d+(?:\.\d+)?) ?Hz|(?:sampl\w*|measurement)[ _]*(?:rate|freq\w*)[^\d\n]*(\d+(?:\.\d+)?)(?! ?kHz)", re.I
)
START_DATE = re.compile(r"start date\W+(\d+)/(\d+)/(\d{4})", re.I)
START_TIME = re.compile(r"start time\W+(\d{1,2}:\d\d:\d\d(?:\.\d+)?)\W*$", re.I | re.M)
START = re.compile(r"start[ _]?(?:time|date)?\W+(\d{4})-(\d\d)-(\d\d)[ T](\d\d:\d\d:\d\d(?:[.:,]\d+)?)", re.I)


class Table(NamedTuple):
    """A pandas table of text or numbers, the lines before it, and the number of its first row in the file."""

    frame: Any
    preamble: tuple
    first_line: int


def read_table(path: Path, sep: str | None = None, decimal: str | None = None, skip_rows: int | None = None, **options):
    r"""Read a text table with a line of names; ``options`` are those of ``pandas.read_csv``.

    Parameters
    ----------
    sep : the separator, one character; without it a tab, a semicolon or a comma, whichever fits all lines
    decimal : "." or ","; without it a comma where numbers have one and no other separator fits
    skip_rows : lines before the line of names; without it they are found

    Raises
    ------
    DataError : lines that do not fit the names, quotes without an end, control characters, names that repeat
    OptionError : an impossible option

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "a.csv"
    >>> _ = path.write_text("Rate: 50 Hz\n\ntime;x\n0;1,5\n0,02;2,5\n0,04;3\n")
    >>> table = read_table(path)
    >>> table.frame.x.tolist(), table.preamble
    ([1.5, 2.5, 3.0], ('Rate: 50 Hz', ''))
    """
    import pandas as pd

    sep = {"tab": "\t", r"\t": "\t"}.get(sep, sep) if isinstance(sep, str) else sep
    if sep is not None and not (isinstance(sep, str) and len(sep) == 1 and sep not in '"\n\r'):
        raise OptionError(f"sep must be one character, got {sep!r}")
    if decimal not in (None, ".", ","):
        raise OptionError(f"decimal must be '.' or ',', got {decimal!r}")
    if sep is not None and sep == decimal:
        raise OptionError(f"sep and decimal cannot both be {sep!r}")
    if skip_rows is not None and not (isinstance(skip_rows, int) and skip_rows >= 0):
        raise OptionError(f"skip_rows must be a whole number of at least 0, got {skip_rows!r}")
    lines = re.split("\r\n|\n|\r", _text_of(path))
    while lines and not lines[-1].strip():
        lines.pop()
    at, sep, header = _begin(lines, path.suffix.lower(), sep, skip_rows)
    names = [name.strip() for name in _fields(lines[at], sep, at)] if header else None
    body = lines[at + header :]
    first_line = at + header + 1
    n = len(names) if names is not None else len(_fields(body[0], sep, at))
    for k, line in enumerate(body):
        found = line.count(sep) + 1 if '"' not in line else len(_fields(line, sep, k + first_line - 1))
        if found != n or not line.strip(" "):
            raise DataError(
                f"line {k + first_line} has {found if line.strip() else 0} fields, the table has {n} columns "
                "(cut off, another separator, a decimal comma? see sep=, decimal= and skip_rows=)"
            )
    if names is None:  # a logger that writes stamps and values without names
        names = ["time"] * bool(STAMP.fullmatch(_fields(body[0], sep, at)[0]))
        names += [f"ch{k + 1}" for k in range(n - len(names))]
    elif n > 1 and names[-1] == "" and all(line.rstrip().endswith(sep.strip()) for line in body) and sep.strip():
        names, body = names[:-1], [line.rstrip()[:-1] for line in body]  # every line ends with a separator
    if any(NUMBER.fullmatch(name) for name in names):  # an empty one too
        hint = "(no header, an index column, another separator? see sep= and skip_rows=)"
        raise DataError(f"the first line must name every column, got {names} {hint}")
    if len(set(names)) < len(names):
        raise DataError(f"names of columns must differ from each other, got {names}")
    decimal = decimal or _decimal(body[:LOOK], sep)
    text = io.StringIO("\n".join([sep.join(map(str, range(len(names)))), *body]))
    settings = {"skipinitialspace": True, "skip_blank_lines": False} | options
    frame = pd.read_csv(text, sep=sep, header=0, names=names, index_col=False, decimal=decimal, **settings)
    return Table(frame, tuple(lines[:at]), first_line)


def _text_of(path):
    """The text of a file."""
    content = Path(path).read_bytes()
    encoding = "utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError:
        if b"\x00" in content:
            raise DataError("this is no text (zero bytes)") from None
        try:
            text = content.decode("cp1252")
        except UnicodeDecodeError as error:
            raise DataError(f"this is no text in UTF-8: {error}; save it as UTF-8") from None
        warn(f"{path}: not in UTF-8; read as Windows-1252 (save it as UTF-8 if names look wrong)")
    bad = NO_TEXT.search(text)
    if bad:
        line = text.count("\n", 0, bad.start()) + 1
        raise DataError(f"line {line} has the control character {bad[0]!r}: a damaged file?")
    if not text.strip():
        raise DataError("the file is empty")
    return text


def _fields(line, sep, k):
    """The fields of a line; a quote ends in the line in which it begins."""
    if '"' not in line:
        return line.split(sep)
    try:
        return next(csv.reader([line], delimiter=sep, strict=True, skipinitialspace=True))
    except csv.Error as error:
        raise DataError(f'line {k + 1}: a quote (") without its end: {line[:60]!r} ({error})') from None


def _is_data(fields):
    """Are these the values of a row, and not names?"""
    return any(f.strip() for f in fields) and all(NUMBER.fullmatch(f) or STAMP.fullmatch(f) for f in fields)


def _begin(lines, suffix, sep, skip_rows):
    """The line of names, the separator, and whether there are names at all."""
    if skip_rows is not None:
        if skip_rows >= len(lines):
            raise DataError(f"skip_rows={skip_rows}, but the file has {len(lines)} lines")
        sep = sep or _separator(lines[skip_rows : skip_rows + LOOK], suffix)
        return skip_rows, sep, True
    look = lines[:LOOK]
    own = sep or _separator(look, suffix)
    if own and len({_count(line, own) for line in look}) == 1:
        fields = [_fields(line, own, k) for k, line in enumerate(look[:ALIKE])]
        stamped = STAMP.fullmatch(fields[0][0]) and _is_data(fields[0])
        return 0, own, not stamped
    for candidate in (sep,) if sep else SEPARATORS:
        counts = [_count(line, candidate) for line in look]
        if counts[-1] < 2 and not sep:
            continue
        at = len(look)
        while at and counts[at - 1] == counts[-1] and _is_data(_fields(look[at - 1], candidate, at - 1)):
            at -= 1
        if len(look) - at < ALIKE or at == 0:
            continue
        if any(counts[k] == counts[-1] and _is_data(_fields(look[k], candidate, k)) for k in range(at - 1)):
            continue  # a damaged line within a table
        if counts[at - 1] == counts[-1]:
            return at - 1, candidate, True
        stamped = STAMP.fullmatch(_fields(look[at], candidate, at)[0])
        if at >= ALIKE and (stamped or not look[at - 1].strip(" -_=#*")):
            return at, candidate, False
    return 0, own or {".tsv": "\t"}.get(suffix, ","), True


def _count(line, sep):
    if '"' not in line:
        return line.count(sep) + 1
    try:
        return len(_fields(line, sep, 0))
    except DataError:
        return 0


def _separator(lines, suffix):
    """The separator by which all lines have as many fields, two or more; None where none fits."""
    usual = {".csv": ",", ".tsv": "\t"}.get(suffix, ",")
    fits = [s for s in SEPARATORS if len(counts := {_count(line, s) for line in lines}) == 1 and counts.pop() > 1]
    return (
        usual
        if usual in fits
        else fits[0]
        if fits
        else usual
        if not any(s in lines[0] for s in SEPARATORS)
        else next((s for s in (usual, *SEPARATORS) if s in lines[0]), usual)
    )


def _decimal(lines, sep):
    """A comma where numbers have one and none has a point."""
    if sep == ",":
        return "."
    fields = [field.strip() for line in lines for field in line.replace('"', "").split(sep)]
    numbers = [field for field in fields if NUMBER.fullmatch(field)]
    return "," if any("," in n for n in numbers) and not any("." in n for n in numbers) else "."


def about_preamble(lines) -> dict:
    """The rate and the start that the lines before a table tell, where they do.

    >>> about_preamble(["date format M/d/yyyy at 30 Hz", "Start Time 09:00:00", "Start Date 5/1/2024"])
    {'sampling_rate_hz': 30.0, 'start_time': '2024-05-01T09:00:00'}
    """
    text, about = "\n".join(lines), {}
    rate = RATE.search(text)
    if rate:
        about["sampling_rate_hz"] = float(rate[1] or rate[2])
    date, time = START_DATE.search(text), START_TIME.search(text)
    if date and time:
        first, second, year = map(int, date.groups())
        month, day = (second, first) if re.search(r"date format d", text, re.I) else (first, second)
        about["start_time"] = _iso(year, month, day, time[1])
    whole = START.search(text)
    if whole:
        year, month, day = map(int, whole.groups()[:3])
        about["start_time"] = _iso(year, month, day, re.sub(r"(:\d\d)[:,](\d+)$", r"\1.\2", whole[4]))
    return {key: value for key, value in about.items() if value is not None}


def _iso(year, month, day, time):
    try:
        return datetime.fromisoformat(f"{year:04}-{month:02}-{day:02}T{time:0>8}").isoformat()
    except ValueError:
        return None
