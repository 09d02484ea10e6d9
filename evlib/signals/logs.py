"""Logs of JSON lines that survive a crash.

A line counts once it is on disk, line break included. A crash can damage only the last line: it never counted, and is
left out with a warning when the log is read again. Reading writes nothing: the file is made, or its damaged end cut
off, by the first line that is appended.
"""

import json
import os
import sys
import warnings
from datetime import UTC, datetime
from pathlib import Path

from .atomic import lock
from .errors import DataError


class AppendOnlyLog:
    """Lines of JSON objects in a file, read when it is opened; ``lines`` holds those that were there then.

    >>> import tempfile
    >>> log = AppendOnlyLog(tempfile.mkdtemp() + "/log.jsonl")
    >>> log.append({"op": "add", "time_s": 1.5})
    >>> [line["time_s"] for line in AppendOnlyLog(log.path).lines]
    [1.5]
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        content = self.path.read_bytes() if self.path.exists() else b""
        # Bytes that were read; how many of them are whole lines; what the next append writes before its line.
        self._size, self._whole, self._pending = len(content), len(content), b""
        rest = content[content.rfind(b"\n") + 1 :]
        if rest and _json_object(rest) is not None:  # an editor left out the last line break
            self._pending = b"\n"
        elif rest:
            warnings.warn(
                f"{self.path}: the last line is torn and left out (a crash while it was written?)", stacklevel=3
            )
            self._whole -= len(rest)
        self.lines = [_json_object(line) for line in content[: self._whole].splitlines()]
        if None in self.lines:
            number = self.lines.index(None) + 1
            raise DataError(f"{self.path}, line {number}: no object of JSON (edited by hand, or another kind of file?)")

    def append(self, line: dict, wait: bool = False) -> None:
        """Write one line, with the time of writing under "at"; it is on disk when this returns.

        With ``wait`` it is written together with the next line.
        """
        line = line | {"at": datetime.now(UTC).isoformat(timespec="milliseconds")}
        # JSON knows no numbers of NumPy: these become Python's.
        content = self._pending + json.dumps(line, default=lambda value: value.item()).encode() + b"\n"
        if wait:
            self._pending = content
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("ab") as file:
            if sys.platform != "win32":  # which has no lock on a whole file
                lock(file, wait=True)
            if file.seek(0, os.SEEK_END) != self._size:
                raise DataError(f"{self.path} was changed by another program since it was read; open it again")
            file.truncate(self._whole)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        self._size = self._whole = self._whole + len(content)
        self._pending = b""


def _json_object(line):
    """The dict of a line, None where it holds none."""
    try:
        values = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return values if isinstance(values, dict) else None
