"""Files and folders are replaced as a whole, whatever happens on the way."""

import contextlib
import os
import signal
import stat
import subprocess
import sys
import threading

import numpy as np
import pytest

from evlib.signals.atomic import ASIDE, replace_file, replace_folder, sweep
from evlib.signals.errors import EvlibError, WriteError
from evlib.signals.files import write_recording
from evlib.signals.recording import Recording

posix = pytest.mark.skipif(sys.platform == "win32", reason="permissions, links and signals of POSIX")


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def write(path, text):
    with replace_file(path) as temporary:
        temporary.write_text(text)


def write_folder(path, *files):
    with replace_folder(path) as temporary:
        for name in files:
            (temporary / name).touch()


def killed(code, *arguments):
    """Run code in another process that kills itself."""
    done = subprocess.run([sys.executable, "-c", KILL + code, *map(str, arguments)], capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr


KILL = """
import os, signal, sys
from evlib.signals import atomic
from evlib.signals.atomic import replace_file, replace_folder
def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)
path = sys.argv[1]
"""
IN_A_FILE = "with replace_file(path) as new:\n    new.write_text('half'); die()"
IN_A_FOLDER = "with replace_folder(path) as new:\n    (new / 'half').touch(); die()"
# The second renaming of a folder, or the removal of the old one, never comes.
BETWEEN = """
first = os.replace
def rename(old, new):
    first(old, new)
    die()
os.replace = rename
with replace_folder(path) as new:
    (new / "new").touch()
"""
BEHIND = """
atomic._settle = die
with replace_folder(path) as new:
    (new / "new").touch()
"""


def test_a_new_file_and_a_new_folder_with_all_their_parents(tmp_path):
    write(tmp_path / "a" / "b" / "text.txt", "new")
    write_folder(tmp_path / "c" / "d", "x")
    assert (tmp_path / "a" / "b" / "text.txt").read_text() == "new" and names(tmp_path / "c" / "d") == ["x"]
    assert names(tmp_path / "a" / "b") == ["text.txt"] and names(tmp_path / "c") == ["d"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, OSError])
def test_an_error_while_writing_leaves_the_old_ones(error, tmp_path):
    write(tmp_path / "file", "old")
    write_folder(tmp_path / "folder", "old")
    with pytest.raises(error), replace_file(tmp_path / "file") as temporary:
        temporary.write_text("half")
        raise error("power cut")
    with pytest.raises(error), replace_folder(tmp_path / "folder") as temporary:
        (temporary / "half").touch()
        raise error("power cut")
    assert (tmp_path / "file").read_text() == "old" and names(tmp_path / "folder") == ["old"]
    assert names(tmp_path) == ["file", "folder"]


@pytest.mark.parametrize("failing", [1, 2])
def test_a_folder_that_cannot_be_moved_stays(failing, tmp_path, monkeypatch):
    write_folder(tmp_path / "folder", "old")
    calls, rename = [], os.replace

    def replace(old, new):
        calls.append(old)
        if len(calls) == failing:
            raise OSError("busy")
        rename(old, new)

    monkeypatch.setattr(os, "replace", replace)
    with pytest.raises(WriteError, match="folder was not written, what was there still is: busy"):
        write_folder(tmp_path / "folder", "new")
    assert names(tmp_path / "folder") == ["old"] and names(tmp_path) == ["folder"]


@posix
@pytest.mark.parametrize("code", [IN_A_FILE, IN_A_FOLDER, BETWEEN, BEHIND])
@pytest.mark.parametrize("next_use", ["the same", "another file", "another folder", "sweep"])
def test_what_a_killed_process_left_is_put_back_or_swept(code, next_use, tmp_path):
    path = tmp_path / "kept"
    if code == IN_A_FILE:
        write(path, "old")
    else:
        write_folder(path, "old")
    killed(code, path)
    assert any(name.startswith(ASIDE) for name in names(tmp_path))
    assert path.exists() == (code != BETWEEN)
    if next_use == "the same":
        write(path, "next") if code == IN_A_FILE else write_folder(path, "next")
        assert path.read_text() == "next" if code == IN_A_FILE else names(path) == ["next"]
        assert names(tmp_path) == ["kept"]
        return
    {"another file": lambda: write(tmp_path / "other", ""), "sweep": lambda: sweep(tmp_path)}.get(
        next_use, lambda: write_folder(tmp_path / "other", "x")
    )()
    assert names(tmp_path) == ["kept"] + (["other"] if next_use.startswith("another") else [])
    assert path.read_text() == "old" if code == IN_A_FILE else names(path) == (["new"] if code == BEHIND else ["old"])


def test_a_writer_at_work_is_not_swept(tmp_path):
    """In this process or in another."""
    code = "from evlib.signals.atomic import sweep; import pathlib, sys; sweep(pathlib.Path(sys.argv[1]))"
    with replace_file(tmp_path / "one") as one, replace_folder(tmp_path / "two") as two:
        one.write_text("1")
        write(tmp_path / "three", "3")
        sweep(tmp_path)
        subprocess.run([sys.executable, "-c", code, tmp_path], check=True)
        (two / "2").touch()
    assert names(tmp_path) == ["one", "three", "two"] and names(tmp_path / "two") == ["2"]


def test_many_writers_of_one_file_leave_one_whole_file(tmp_path):
    def work(k):
        for _ in range(10):
            write(tmp_path / "shared", str(k) * 10_000)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    text = (tmp_path / "shared").read_text()
    assert len(text) == 10_000 and len(set(text)) == 1 and names(tmp_path) == ["shared"]


def test_foreign_hidden_files_are_left_alone(tmp_path):
    for name in (".evlib", ".shared.x.npz", "evlib-1"):
        (tmp_path / name).touch()
    (tmp_path / ".evlib-own").mkdir()
    write(tmp_path / "a", "")
    assert names(tmp_path) == [".evlib", ".evlib-own", ".shared.x.npz", "a", "evlib-1"]


@posix
@pytest.mark.parametrize("mode", [0o600, 0o640, 0o664, 0o755])
def test_permissions_are_kept(mode, tmp_path):
    write(tmp_path / "file", "old")
    write_folder(tmp_path / "folder", "old")
    for name, own in (("file", mode), ("folder", mode | 0o700)):
        (tmp_path / name).chmod(own)
        write(tmp_path / name, "new") if name == "file" else write_folder(tmp_path / name, "new")
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == own


@posix
def test_a_new_file_has_the_permissions_of_any_new_file(tmp_path):
    before = os.umask(0o027)
    try:
        write(tmp_path / "file", "new")
        write_folder(tmp_path / "folder", "new")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o640
    assert stat.S_IMODE((tmp_path / "folder").stat().st_mode) == 0o750


@posix
@pytest.mark.parametrize("dangling", [False, True])
def test_a_link_stays_a_link_to_what_is_replaced(dangling, tmp_path):
    (tmp_path / "disk").mkdir()
    if not dangling:
        (tmp_path / "disk" / "file").write_text("old")
        (tmp_path / "disk" / "folder").mkdir()
    for name in ("file", "folder"):
        (tmp_path / name).symlink_to(f"disk/{name}")
    write(tmp_path / "file", "new")
    write_folder(tmp_path / "folder", "new")
    assert (tmp_path / "file").is_symlink() and (tmp_path / "disk" / "file").read_text() == "new"
    assert (tmp_path / "folder").is_symlink() and names(tmp_path / "disk" / "folder") == ["new"]
    assert names(tmp_path / "disk") == ["file", "folder"]


@posix
def test_a_device_and_a_pipe_are_written_to_and_stay(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    read = []
    reader = threading.Thread(target=lambda: read.append((tmp_path / "pipe").read_text()))
    reader.start()
    write(tmp_path / "pipe", "news")
    reader.join()
    assert read == ["news"] and stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)
    write("/dev/null", "news")
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


@posix
@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_what_is_write_protected_is_refused(tmp_path):
    write(tmp_path / "file", "old")
    (tmp_path / "file").chmod(0o444)
    with pytest.raises(WriteError, match="write-protected"):
        write(tmp_path / "file", "new")


@contextlib.contextmanager
def full_disk(n_bytes):
    """No file can grow beyond some bytes; a write then fails as on a full disk."""
    import resource

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@posix
def test_a_full_disk_leaves_the_old_file_and_says_so(tmp_path):
    write(tmp_path / "file", "old")
    with pytest.raises(WriteError, match="file was not written, what was there still is: .*too large"), full_disk(999):
        write(tmp_path / "file", "new" * 1000)
    assert (tmp_path / "file").read_text() == "old" and names(tmp_path) == ["file"]
    assert issubclass(WriteError, OSError) and issubclass(WriteError, EvlibError)


@posix
@pytest.mark.parametrize("kind", [".npz", ".h5", ".csv", ".parquet", ".wav", ".edf"])
def test_a_recording_on_a_full_disk_leaves_the_old_one(kind, tmp_path):
    recording, path = Recording(np.random.default_rng(0).normal(size=(4000, 3)), 2000), tmp_path / f"x{kind}"
    write_recording(recording, path)
    before = path.read_bytes()
    with pytest.raises(WriteError, match="what was there still is"), full_disk(9999):
        write_recording(recording, path)
    assert path.read_bytes() == before and names(tmp_path) == [path.name]


def test_a_folder_in_place_of_a_file_is_refused(tmp_path):
    write_folder(tmp_path / "d.ckpt", "x")
    with pytest.raises(WriteError, match="it is a folder"):
        write(tmp_path / "d.ckpt", "new")
    assert names(tmp_path / "d.ckpt") == ["x"] and names(tmp_path) == ["d.ckpt"]
