"""Writing files so that nothing is ever half written."""

import contextlib
import os
import tempfile
from pathlib import Path


@contextlib.contextmanager
def replace_file(path):
    """Give the path of a temporary file beside ``path``; when the block ends well, it takes its place.

    A crash inside of the block leaves the old file as it was.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}.", suffix=path.suffix)
    os.close(handle)
    try:
        yield Path(temporary)
        # mkstemp makes a private file: give it the permissions that a new file would have.
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def replace_folder(path):
    """Give the path of a temporary folder beside ``path``; when the block ends well, it takes its place.

    A folder cannot be swapped in one step: the old one steps aside first, and is removed once the new one stands.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.stem}.") as aside:
        new, old = Path(aside) / "new", Path(aside) / "old"
        new.mkdir()
        yield new
        if path.exists():
            os.replace(path, old)
        try:
            os.replace(new, path)
        except BaseException:
            if old.exists():
                os.replace(old, path)
            raise
