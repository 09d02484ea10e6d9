"""Give damaged files to every reader of evlib: nothing but its own errors may come out.

    python tools/fuzz.py                                    # 10,000 mutants, a table (make fuzz)
    python tools/fuzz.py --mutants 500 --readers .csv .edf  # of these readers alone
    python tools/fuzz.py --readers .csv --only 17 --keep .  # one mutant again; its files are kept

A mutant is a small sound file with a few slips: flipped bits, cut, doubled or exchanged pieces, replaced numbers, keys
and values, also inside of zipped files. The same seed makes the same mutants. Each reader runs in a process of its own,
so that a crash, ten seconds without an answer or two gigabytes of memory are noticed. What is read all the same must be
consistent. `tools/fuzz_readers.py` holds the readers.
"""

import argparse
import contextlib
import gzip
import io
import json
import math
import multiprocessing
import os
import random
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
import zipfile
from collections import Counter
from multiprocessing.connection import wait
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parent))

from fuzz_readers import READERS, open_model  # noqa: E402

from evlib.signals.errors import EvlibError  # noqa: E402

# Seconds and bytes that a reader may take (one that ignores the alarm is ended after three times the seconds), and the
# seconds in which a sound file must be made.
SECONDS, MEMORY, MAKING = 10, 2 * 2**30, 300
# What a number, and any value, is replaced by.
NUMBERS = "0 -1 1 nan NaN inf -inf 1e308 -1e308 1e400 1e13 -1e13 99999999999999999999 0x10 1,5 abc true null".split()
VALUES = (None, True, 0, -1, 2**63, 10**30, 1e308, -1e-308, math.nan, math.inf)
VALUES += ("", "x", "$x_{$", "\x1b[2J", "1", [], {}, [[]], {"a": 1})
# Numbers in binary headers: sizes, counts, offsets.
WORDS = (0, 1, 2, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 2**63 - 1, 2**64 - 1)
# Bytes from the start of a file among which half of the slips lie: its header.
HEADER = 256


def mutate(content: bytes, rng: random.Random) -> bytes:
    """The content of a file with a few slips."""
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        ways = [bytes_slip]
        if content[:4] == b"PK\x03\x04":
            ways += [zip_slip]
        elif content[:2] == b"\x1f\x8b":
            ways += [gzip_slip]
        else:
            with contextlib.suppress(UnicodeDecodeError):
                ways += [text_slip, text_slip, line_slip] if content.decode().count("\0") == 0 else []
            with contextlib.suppress(ValueError, RecursionError):
                ways += [json_slip] * 3 if json.loads(content) is not None else []
        try:
            content = rng.choice(ways)(content, rng)
        except Exception:  # an earlier slip has closed that way
            content = bytes_slip(content, rng)
    return content


def bytes_slip(content, rng):
    """Bits, bytes and pieces."""
    data, n = bytearray(content), len(content)
    if not n:
        return rng.randbytes(rng.randrange(1, 50))
    at = rng.randrange(min(n, HEADER) if rng.random() < 0.5 else n)
    length = rng.choice((1, 2, 4, 8, 16, rng.randrange(1, n + 1)))
    other = rng.randrange(n)
    match rng.randrange(9):
        case 0:
            data[at] ^= 1 << rng.randrange(8)
        case 1:
            for _ in range(rng.choice((2, 8, 32))):
                data[rng.randrange(n)] ^= 1 << rng.randrange(8)
        case 2:
            size = rng.choice((1, 2, 4, 8))
            word = (rng.choice(WORDS) % 256**size).to_bytes(size, rng.choice(("little", "big")))
            data[at : at + size] = word
        case 3:
            del data[at:]
        case 4:
            del data[at : at + length]
        case 5:
            data[at:at] = rng.randbytes(min(length, 64))
        case 6:
            data[at:at] = data[other : other + length]
        case 7:
            first, second = sorted((at, other))
            length = min(length, max(second - first, 1))
            data[first : first + length], data[second : second + length] = (
                data[second : second + length],
                data[first : first + length],
            )
        case 8:
            data[at : at + length] = bytes([rng.choice((0, 255, 32))]) * len(data[at : at + length])
    return bytes(data)


def text_slip(content, rng):
    """A number or a word becomes another one, or nothing."""
    text = content.decode()
    what = r"[-+]?\d+(\.\d*)?([eE][-+]?\d+)?" if rng.random() < 0.6 else r"[^\W\d]+|[^\w\s]"
    found = list(re.finditer(what, text))
    if not found:
        return bytes_slip(content, rng)
    one, another = rng.choice(found), rng.choice(found)
    new = another[0] if rng.random() < 0.2 else rng.choice((*NUMBERS, "", "-" + one[0], one[0] * 2, "é", "\x00"))
    return (text[: one.start()] + new + text[one.end() :]).encode()


def line_slip(content, rng):
    """A line is lost, doubled, moved, or torn in two."""
    lines = content.splitlines(keepends=True)
    at, other = rng.randrange(len(lines) + 1), rng.randrange(len(lines) + 1)
    match rng.randrange(4):
        case 0:
            del lines[at : at + rng.choice((1, 1, 5))]
        case 1:
            lines[at:at] = lines[other : other + rng.choice((1, 1, 5))]
        case 2:
            random.Random(rng.random()).shuffle(lines)
        case 3:
            lines[at : at + 1] = [part for line in lines[at : at + 1] for part in (line[: len(line) // 2], b"\n")]
    return b"".join(lines)


def json_slip(content, rng):
    """A value of JSON is replaced, a key lost, added or renamed."""
    return json.dumps(value_slip(json.loads(content), rng), ensure_ascii=rng.random() < 0.5).encode()


def value_slip(value, rng):
    """A nested value with one slip somewhere."""
    if isinstance(value, dict | list) and value and rng.random() < 0.85:
        keys = list(value) if isinstance(value, dict) else range(len(value))
        key, value = rng.choice(keys), value.copy()
        match rng.randrange(8):
            case 0:
                value.pop(key)
            case 1 if isinstance(value, dict):
                value[rng.choice((*map(str, VALUES[-8:]), "another"))] = value.pop(key)
            case 2 if isinstance(value, list):
                value.insert(key, rng.choice((*VALUES, *value)))
            case 3:
                value[key] = value[rng.choice(keys)]
            case _:
                value[key] = value_slip(value[key], rng)
        return value
    if isinstance(value, int | float) and rng.random() < 0.5:
        return rng.choice((value + 1, -value, value * 1000, float(value), str(value)))
    return rng.choice(VALUES)


def zip_slip(content, rng):
    """A slip inside of a member of a zipped file, with the right checksum; or a member is lost."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = [(name, archive.read(name)) for name in archive.namelist()]
    if not members:
        return bytes_slip(content, rng)
    at, new = rng.randrange(len(members)), io.BytesIO()
    name, inside = members[at]
    members[at : at + 1] = [] if rng.random() < 0.1 else [(name, mutate(inside, rng))]
    with zipfile.ZipFile(new, "w") as archive:
        for name, inside in members:
            archive.writestr(name, inside)
    return new.getvalue()


def gzip_slip(content, rng):
    """A slip inside of a gzipped file, with the right checksum."""
    return gzip.compress(mutate(gzip.decompress(content), rng))


def make_mutant(root: Path, rng: random.Random):
    """Slips in one of the files under a folder; models are also changed inside and sealed again."""
    path = rng.choice(sorted(one for one in root.rglob("*") if one.is_file()))
    if path.suffix in (".pth", ".ckpt") and rng.random() < 0.6:
        content, seal = open_model(path)
        with contextlib.suppress(Exception):  # some values cannot be written, which is no fault of a reader
            seal(tensor_slip(content, rng))
            return
    path.write_bytes(mutate(path.read_bytes(), rng))


def tensor_slip(value, rng):
    """`value_slip` for what holds tensors: one of them may change its values, shape or type."""
    import torch

    if isinstance(value, torch.Tensor):
        match rng.randrange(6):
            case 0:
                return value.double() * rng.choice((math.nan, math.inf, 1e30, -1.0, 0.0))
            case 1:
                return value[None]
            case 2:
                return value.flatten()[:-1]
            case 3:
                return value.to(rng.choice((torch.int64, torch.float16, torch.complex64, torch.bool, torch.float64)))
            case 4:
                return value.transpose(0, -1) if value.ndim else value
            case 5:
                return rng.choice(VALUES)
    if isinstance(value, dict | list) and value and rng.random() < 0.9:
        keys = list(value) if isinstance(value, dict) else range(len(value))
        key, value = rng.choice(keys), value.copy()
        value[key] = tensor_slip(value[key], rng)
        return value
    return value_slip(value, rng)


class TooSlow(BaseException):
    """The alarm rang: no reader catches it."""


def memory_was_short(error):
    """Whether a MemoryError stands behind an error."""
    while error is not None:
        if isinstance(error, MemoryError):
            return True
        error = error.__cause__ or error.__context__
    return False


def verdict(read, path, seconds=None):
    """What a reader makes of a path: "read", "refused", or what is wrong; and details."""
    signal.setitimer(signal.ITIMER_REAL, seconds or SECONDS)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            read(path)
        return "read", ""
    except EvlibError as error:
        words = str(error)
        if memory_was_short(error):
            return "MEMORY", words
        strange = not words or any(not (letter.isprintable() or letter in "\n\t") for letter in words)
        return ("MESSAGE", repr(words)) if strange else ("refused", words)
    except TooSlow:
        return "HANG", traceback.format_exc(limit=-3)
    except AssertionError as error:
        return "INCONSISTENT", f"{error} {traceback.extract_tb(error.__traceback__)[-1].line}"
    except BaseException as error:
        places = [f"{Path(f.filename).name}:{f.lineno}" for f in traceback.extract_tb(error.__traceback__)[-4:]]
        return "MEMORY" if memory_was_short(error) else "FOREIGN", f"{type(error).__name__}: {error} at {places}"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def work(name, seed, numbers, keep, connection):
    """Read mutants of one reader, in a process of its own; sends the number, verdict and details of each."""
    reader = READERS[name]
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1), os.dup2(silence, 2)
    signal.signal(signal.SIGALRM, ring)
    with tempfile.TemporaryDirectory(prefix="fuzz") as folder:
        sound = Path(folder) / "sound"
        sound.mkdir()
        try:
            target = reader.make(sound).relative_to(sound)
            copy = Path(folder) / "copy"
            shutil.copytree(sound, copy)
            outcome, details = verdict(reader.read, copy / target, MAKING)  # packages are imported on the way
        except Exception:
            outcome, details = "SEED", traceback.format_exc()
        if outcome != "read":
            connection.send((-1, "SEED", f"{outcome} {details}"))
            return
        connection.send((-1, "ready", ""))
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
        for number in numbers:
            rng = random.Random(f"{seed} {name} {number}")
            mutant = Path(folder) / "mutant"
            shutil.rmtree(mutant, ignore_errors=True)
            shutil.copytree(sound, mutant)
            make_mutant(mutant, rng)
            if keep:
                shutil.copytree(mutant, Path(keep) / f"{name.strip('.')}_{number}", dirs_exist_ok=True)
            connection.send((number, *verdict(reader.read, mutant / target)))
        connection.send((-1, "peak", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss))


def ring(*_):
    """The handler of the alarm."""
    raise TooSlow


class Job:
    """The mutants of one reader, in processes one after the other."""

    def __init__(self, name, seed, numbers, keep=None):
        self.name, self.seed, self.left, self.keep = name, seed, list(numbers), keep
        self.counts, self.found, self.peak, self.seconds = Counter(), [], 0, 0.0

    def start(self):
        """A process for the mutants that are left."""
        context = multiprocessing.get_context("fork")
        self.connection, theirs = context.Pipe(duplex=False)
        self.process = context.Process(target=work, args=(self.name, self.seed, self.left.copy(), self.keep, theirs))
        self.process.start()
        theirs.close()
        self.begun, self.made = time.monotonic(), False
        self.deadline = self.begun + MAKING

    def receive(self):
        """Note a message; returns whether the process goes on."""
        try:
            number, outcome, details = self.connection.recv()
        except EOFError:
            return self.ended("CRASH")
        self.deadline, self.made = time.monotonic() + 3 * SECONDS, True
        if number >= 0:
            self.note(number, outcome, details)
        elif outcome == "SEED":
            self.not_made(details)
        elif outcome == "peak":
            self.peak = max(self.peak, details)
        return True

    def not_made(self, details):
        """There is no sound file to damage."""
        self.left = []
        self.counts["SEED"] += 1
        self.found.append((self.name, -1, "SEED", details))

    def note(self, number, outcome, details):
        """Count the verdict on a mutant."""
        self.left.remove(number)
        self.counts[outcome] += 1
        if outcome not in ("read", "refused"):
            self.found.append((self.name, number, outcome, details))

    def ended(self, why):
        """The process is over, by itself or because it did not answer; returns False."""
        if why == "HANG":
            self.process.kill()
        self.process.join()
        self.seconds += time.monotonic() - self.begun
        if not self.made:
            self.not_made(f"{why}, exit code {self.process.exitcode}")
        elif self.left:
            self.note(self.left[0], why, f"exit code {self.process.exitcode}")
        return False


def run(names, mutants, seed=0, processes=2, only=None, keep=None):
    """Jobs of readers, done: ``mutants`` in all, dealt out evenly."""
    each = -(-mutants // len(names))
    jobs = [Job(name, seed, range(each) if only is None else [only], keep) for name in names]
    waiting, running = jobs[::-1], []
    while waiting or running:
        while waiting and len(running) < processes:
            running.append(waiting.pop())
            running[-1].start()
        ready = wait([job.connection for job in running], timeout=1)
        for job in running.copy():
            if job.connection in ready:
                on = job.receive()
            else:
                on = time.monotonic() < job.deadline or job.ended("HANG")
            if not on:
                running.remove(job)
                if job.left:
                    waiting.append(job)
    return jobs


def main(arguments=None):
    """Print a table; the exit code is 1 if anything but evlib's own errors came out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mutants", type=int, default=10_000, help="how many in all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--readers", nargs="+", default=list(READERS), choices=list(READERS), metavar="NAME")
    parser.add_argument("--only", type=int, help="the number of one mutant")
    parser.add_argument("--keep", help="folder for the mutants")
    parser.add_argument("--processes", type=int, default=2)
    chosen = parser.parse_args(arguments)
    jobs = run(chosen.readers, chosen.mutants, chosen.seed, chosen.processes, chosen.only, chosen.keep)
    bad = sorted({outcome for job in jobs for outcome in job.counts} - {"read", "refused"})
    print(
        f"{'reader':28}{'mutants':>8}{'read':>7}{'refused':>9}" + "".join(f"{one:>14}" for one in bad) + "   MB     s"
    )
    for job in jobs:
        row = f"{job.name:28}{job.counts.total():8}{job.counts['read']:7}{job.counts['refused']:9}"
        print(row + "".join(f"{job.counts[one] or '':>14}" for one in bad) + f"{job.peak >> 10:5}{job.seconds:6.1f}")
    for name, number, outcome, details in (row for job in jobs for row in job.found):
        print(f"\n{name} {number} {outcome}: {details[:1500]}")
    total, wrong = sum(job.counts.total() for job in jobs), sum(len(job.found) for job in jobs)
    print(f"\n{total:,} mutants over {len(jobs)} readers, {wrong} findings")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
