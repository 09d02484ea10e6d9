"""A journal: an append-only file of JSON lines that survives a crash.

A line counts once it is on disk, line break and all. A crash can tear only the last one: it never counted, and is cut
off with a warning when the journal is read again.
"""

import json
import os
import warnings
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from .errors import DataError


class Journal:
    """Lines of JSON objects in a file, read when it is opened; ``lines`` holds what was there then.

    >>> import tempfile
    >>> journal = Journal(tempfile.mkdtemp() + "/journal.jsonl")
    >>> journal.append({"op": "add", "time_s": 1.5})
    >>> [line["time_s"] for line in Journal(journal.path).lines]
    [1.5]
    """

    def __init__(self, path):
        self.path = Path(path)
        self.lines, self._size = [], 0
        if self.path.exists():
            content = self._repaired(self.path.read_bytes())
            self._size = len(content)
            self.lines = [self._parsed(number, line) for number, line in enumerate(content.splitlines(), start=1)]

    def append(self, line):
        """Write one line, with the time of writing under "at"; it is on disk when this returns."""
        content = json.dumps({name: _plain(value) for name, value in line.items()} | {"at": _now()}).encode() + b"\n"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("ab") as file:
            if file.tell() != self._size:
                raise DataError(f"{self.path} was changed by another program since it was read; open it again")
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        self._size += len(content)

    def _repaired(self, content):
        """The content with its last line whole: cut off where it was torn, ended where an editor left out the line break."""
        whole, rest = content[: content.rfind(b"\n") + 1], content[content.rfind(b"\n") + 1 :]
        if not rest:
            return content
        if _is_object(rest):
            whole = content + b"\n"
        else:
            warnings.warn(f"{self.path}: the last line is torn and left out (a crash while it was written?)", stacklevel=4)
        with self.path.open("r+b") as file:
            file.truncate(len(whole))
            file.seek(min(len(content), len(whole)))
            file.write(whole[file.tell() :])
        return whole

    def _parsed(self, number, line):
        try:
            values = json.loads(line)
        except ValueError:
            values = None
        if not isinstance(values, dict):
            raise DataError(f"{self.path}, line {number}: no object of JSON (edited by hand, or another kind of file?)")
        return values


def _is_object(line):
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False


def _plain(value):
    """NumPy's numbers as Python's, which JSON knows."""
    return value.item() if isinstance(value, np.generic) else value


def _now():
    return datetime.now(UTC).isoformat(timespec="milliseconds")
