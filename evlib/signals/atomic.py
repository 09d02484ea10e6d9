"""Files and folders are replaced as a whole: until the new ones stand, the old ones stay, whatever happens."""

import contextlib
import os
import shutil
import sys
import tempfile
import zipfile
from pathlib import Path

from .errors import DataError, EvlibError, WriteError

# What is being written stands in a folder with such a name beside its place. Its file ``lock`` is locked while the
# process runs; ``new`` holds what is written, ``old`` the folder that makes room for it.
ASIDE = ".evlib-"


@contextlib.contextmanager
def replace_file(path: str | Path):
    """Give the path of a temporary file; when the block ends well, it takes the place of ``path``.

    An error or a crash inside of the block leaves the old file as it was. A symbolic link stays one, its target is
    replaced; permissions are kept. Of several hard links, the others keep the old content. A device or a pipe is
    written to directly.

    Raises
    ------
    WriteError : a full disk, a write-protected file or folder, a folder in its place
    """
    path = Path(os.path.realpath(path))
    with _old_stays(path):
        if path.exists() and not (path.is_file() or path.is_dir()):
            yield path
            return
        if path.exists() and (path.is_dir() or not os.access(path, os.W_OK)):
            raise PermissionError("it is a folder" if path.is_dir() else "it is write-protected")
        with _aside(path.parent) as aside:
            new = aside / "new" / path.name
            yield new
            with new.open("rb+") as file:
                os.fsync(file.fileno())  # a disk may say only now that it is full
            if path.exists():
                shutil.copymode(path, new)
            os.replace(new, path)


@contextlib.contextmanager
def replace_folder(path: str | Path):
    """Give the path of a temporary folder; when the block ends well, it takes the place of ``path``.

    A folder cannot be swapped in one step: the old one is moved aside first, and removed once the new one stands. After
    a crash between the two, `sweep` puts it back.

    Raises
    ------
    WriteError : a full disk, a write-protected folder
    """
    path = Path(os.path.realpath(path))
    with _old_stays(path), _aside(path.parent) as aside:
        new, old = aside / "new" / path.name, aside / "old" / path.name
        new.mkdir()
        yield new
        if path.exists():
            shutil.copymode(path, new)
            old.parent.mkdir()
            os.replace(path, old)
        os.replace(new, path)


def sweep(folder: Path) -> None:
    """Remove what killed processes left in a folder; what they had moved aside goes back to its place."""
    for aside in folder.glob(f"{ASIDE}*"):
        with contextlib.suppress(OSError):
            with (aside / "lock").open("rb+") as file:
                lock(file, wait=False)  # an OSError says that its process still runs
                dead = (aside / "new").exists()
            if dead:
                _settle(aside)


@contextlib.contextmanager
def _aside(folder):
    """A new locked folder inside of ``folder``, with a folder ``new``."""
    folder.mkdir(parents=True, exist_ok=True)
    sweep(folder)
    aside = Path(tempfile.mkdtemp(prefix=ASIDE, dir=folder))
    try:
        with (aside / "lock").open("wb") as file:
            with contextlib.suppress(OSError):  # a file system without locks
                lock(file, wait=True)
            (aside / "new").mkdir()
            yield aside
    finally:
        _settle(aside)


def _settle(aside):
    for old in (aside / "old").glob("*"):
        if not (aside.parent / old.name).exists():
            os.replace(old, aside.parent / old.name)
    shutil.rmtree(aside, ignore_errors=True)


@contextlib.contextmanager
def _old_stays(path):
    try:
        yield
    except OSError as error:
        if isinstance(error, EvlibError):
            raise
        raise WriteError(f"{path} was not written, what was there still is: {error}") from error


if sys.platform == "win32":
    import msvcrt

    def lock(file, wait: bool) -> None:
        """Lock an open file until it is closed; an OSError says that another process has it, where we do not wait."""
        msvcrt.locking(file.fileno(), msvcrt.LK_LOCK if wait else msvcrt.LK_NBLCK, 1)
else:
    import fcntl

    def lock(file, wait: bool) -> None:
        """Lock an open file until it is closed; an OSError says that another process has it, where we do not wait."""
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))


def kind_of(path: str | Path) -> str:
    """What a file holds, by a first look: "recording" (.npz), "model", "events", another word, or "" for nothing."""
    with open(path, "rb") as file:
        head = file.read(4096)
    if head.startswith(b"PK"):
        try:
            with zipfile.ZipFile(path) as archive:
                names = archive.namelist()
        except (OSError, ValueError, zipfile.BadZipFile):
            return "damaged archive"
        if any(name.endswith("data.pkl") for name in names):
            return "model"
        return "recording" if names and all(name.endswith(".npy") for name in names) else "archive"
    if b"\0" in head:
        return "binary file"
    return ("events" if b"onset" in head.partition(b"\n")[0] else "text") if head.strip() else ""


def require_replaceable(path: str | Path, kind: str) -> None:
    """Refuse to write over a file that holds another ``kind`` (see `kind_of`): a slip would lose it.

    Raises
    ------
    DataError
    """
    found = kind_of(path) if Path(path).is_file() else ""
    if found not in ("", kind):
        raise DataError(f"{path} is there already and no {kind} but: {found}. Choose another name, or remove it")
