"""Names of files that come from other files."""

import contextlib
from pathlib import Path, PureWindowsPath

from .errors import DataError


def path_inside(folder: str | Path, name) -> Path:
    """The path of a file that a manifest names, relative to its own folder.

    Raises
    ------
    DataError : no name, an absolute one, one with ``..``, a link that leads out of the folder

    Examples
    --------
    >>> path_inside("clips", "../secret.wav")
    Traceback (most recent call last):
    ...
    evlib.signals.errors.DataError: '../secret.wav' leads out of the folder clips: name files inside of it
    """
    if not (isinstance(name, str) and name.strip() and name.isprintable()):
        raise DataError(f"a file in {folder} needs a name of printable characters, got {name!r}")
    parts = PureWindowsPath(name)  # knows both kinds of slashes, and drives
    path, inside = Path(folder) / name, False
    if not parts.anchor and ".." not in parts.parts:
        with contextlib.suppress(OSError, RuntimeError):  # links in a circle
            inside = path.resolve().is_relative_to(Path(folder).resolve())
    if not inside:
        raise DataError(f"{name!r} leads out of the folder {folder}: name files inside of it")
    return path
