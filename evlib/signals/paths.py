"""Files that other files name: that they lie inside, and are what was written."""

import contextlib
import hashlib
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


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, or of the names and contents of all files in a folder."""
    if path.is_file():
        with path.open("rb") as content:
            return hashlib.file_digest(content, "sha256").hexdigest()
    digest = hashlib.sha256()
    for file in sorted(place.relative_to(path).as_posix() for place in path.rglob("*") if place.is_file()):
        digest.update(f"{file}\0{sha256_of(path / file)}\n".encode())
    return digest.hexdigest()
