"""Damaged files: a short run of `tools/fuzz.py` over every reader, and proof that it sees what it looks for."""

import os
import random
import signal
import subprocess
import sys
from types import SimpleNamespace

import pytest

from evlib.motion.converters import SOURCES
from evlib.signals import labels
from evlib.signals.errors import DataError
from evlib.signals.files import FORMATS


@pytest.fixture(scope="module")
def fuzz(repository):
    sys.path.insert(0, str(repository / "tools"))
    import fuzz

    return fuzz


def test_damaged_files_bring_out_nothing_but_errors_of_evlib(repository):
    command = [sys.executable, "tools/fuzz.py", "--mutants", "120"]
    done = subprocess.run(command, cwd=repository, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]


def test_every_registered_format_has_a_reader(fuzz):
    """A new format needs a line in tools/fuzz_readers.py, which writes a sound file."""
    assert {*FORMATS, *SOURCES} <= set(fuzz.READERS)
    import fuzz_readers

    assert set(fuzz_readers.EVENTS.values()) == set(labels.FORMATS)


def test_the_same_seed_makes_the_same_mutants(fuzz):
    content = b'{"a": [1, 2.5, "x"], "b": null}'
    first, second, other = (
        [fuzz.mutate(content, random.Random(f"{k} {seed}")) for k in range(99)] for seed in (0, 0, 1)
    )
    assert first == second != other and len(set(first)) > 50
    assert sum(one != content for one in first) > 90


def hang(path):
    while True:
        pass


FAULTS = {
    "FOREIGN": lambda path: {}["key"],
    "HANG": hang,
    "CRASH": lambda path: os.kill(os.getpid(), signal.SIGKILL),
    "MEMORY": lambda path: bytearray(2**33),
    "INCONSISTENT": lambda path: (_ for _ in ()).throw(AssertionError("shapes")),
    "MESSAGE": lambda path: (_ for _ in ()).throw(DataError("")),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_every_kind_of_fault_is_noticed(fuzz, monkeypatch, fault):
    """A reader that does not like what is no longer sound; the mutants after it are read by a new process."""
    sound = b"sound " * 9

    def make(folder):
        (folder / "a.txt").write_bytes(sound)
        return folder / "a.txt"

    def read(path):
        if path.read_bytes() != sound:
            FAULTS[fault](path)

    monkeypatch.setitem(fuzz.READERS, "faulty", SimpleNamespace(make=make, read=read))
    monkeypatch.setattr(fuzz, "SECONDS", 0.3)
    (job,) = fuzz.run(["faulty"], 2)
    assert job.counts == {fault: 2} and [number for _, number, *_ in job.found] == [0, 1]
