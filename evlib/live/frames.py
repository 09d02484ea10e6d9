"""Wire formats: bytes, cut anywhere, become blocks (n, channels) of float32.

A parser has ``push(data) -> block``, ``flush() -> block`` at the end of a connection, and ``counts``. What a format
shows to be lost is NaN in the block, so that the samples that follow keep their time.
"""

import base64
import binascii
import struct
from dataclasses import dataclass

import numpy as np

from ..signals.errors import require_choice, require_int

DTYPES = {"int16": "<i2", "float32": "<f4"}
MAGIC = b"EVL1"  # a packet: this, then the counter (uint32) and the number of records (uint16), little endian
HEADER = struct.Struct("<4sIH")
COUNTERS = 2**32  # where the counter starts again at 0
TEXT_RECORDS = 10  # records in a line of text
LONGEST_LINE = 65536  # bytes; what is longer without an end is no line


@dataclass
class Counts:
    """What a parser saw. ``torn`` counts damaged or incomplete pieces, ``records`` and ``lost`` count samples.

    ``repeated`` counts packets that came twice or too late, ``reordered`` those that came after a later one, and
    ``restarts`` jumps of the counter that are too long to be a loss: how much is missing there is not known.
    """

    records: int = 0
    torn: int = 0
    repeated: int = 0
    reordered: int = 0
    lost: int = 0
    restarts: int = 0


class RawFrames:
    """Interleaved numbers without a header: only a record that is incomplete at the end can be seen.

    >>> frames = RawFrames(2, "int16")
    >>> frames.push(bytes([1, 0, 2, 0, 3])).tolist(), frames.flush().shape, frames.counts.torn
    ([[1.0, 2.0]], (0, 2), 1)
    """

    def __init__(self, n_channels: int, dtype: str = "int16"):
        require_int(1, n_channels=n_channels)
        require_choice(DTYPES, dtype=dtype)
        self.n_channels, self.dtype = n_channels, np.dtype(DTYPES[dtype])
        self.counts, self._rest = Counts(), b""

    def push(self, data: bytes) -> np.ndarray:
        """The records (n, channels) that are complete now."""
        data = self._rest + data
        whole = len(data) - len(data) % (self.n_channels * self.dtype.itemsize)
        self._rest = data[whole:]
        self.counts.records += whole // (self.n_channels * self.dtype.itemsize)
        return _block(data[:whole], self.dtype, self.n_channels)

    def flush(self) -> np.ndarray:
        """The end of a connection: an incomplete record is dropped and counted."""
        self.counts.torn += bool(self._rest)
        self._rest = b""
        return np.empty((0, self.n_channels), np.float32)


class PacketFrames:
    """Packets with a counter (see ``MAGIC``), so that loss, repetition and order are seen.

    All packets of a stream hold equally many records: a lost one counts as the one after it. ``window`` is how many
    packets are held back while an earlier one may still come; a jump of more than ``most_lost`` is a restart.

    >>> frames = PacketFrames(1, window=0)
    >>> for counter in (7, 9):
    ...     print(frames.push(HEADER.pack(MAGIC, counter, 1) + bytes([counter, 0])).tolist())
    [[7.0]]
    [[nan], [9.0]]
    >>> frames.counts.lost
    1
    """

    def __init__(self, n_channels: int, dtype: str = "int16", window: int = 4, most_lost: int = 10_000):
        require_int(1, n_channels=n_channels, most_lost=most_lost)
        require_int(0, window=window)
        require_choice(DTYPES, dtype=dtype)
        self.n_channels, self.dtype = n_channels, np.dtype(DTYPES[dtype])
        self.counts, self._rest = Counts(), b""
        self._order = _Order(self.counts, n_channels, window, most_lost)

    def push(self, data: bytes) -> np.ndarray:
        """The records (n, channels) that are complete and in order now."""
        data, at, blocks = self._rest + data, 0, []
        while len(data) - at >= HEADER.size:
            magic, counter, n = HEADER.unpack_from(data, at)
            if magic != MAGIC:  # go on at the next packet; its first bytes may be the last ones here
                found = data.find(MAGIC, at + 1)
                at = found if found >= 0 else len(data) - len(MAGIC) + 1
                self.counts.torn += found >= 0
                if found < 0:
                    break
                continue
            stop = at + HEADER.size + n * self.n_channels * self.dtype.itemsize
            if stop > len(data):
                break
            blocks += self._order.push(counter, _block(data[at + HEADER.size : stop], self.dtype, self.n_channels))
            at = stop
        self._rest = data[at:]
        return _joined(blocks, self.n_channels)

    def flush(self) -> np.ndarray:
        """The end of a connection: what was held back; an incomplete packet is dropped and counted."""
        self.counts.torn += bool(self._rest)
        self._rest = b""
        return _joined(self._order.flush(), self.n_channels)


class TextFrames:
    """Lines of base64, each 10 records of int16, optionally ``counter:base64``: what a small logger sends.

    >>> frames = TextFrames(1)
    >>> frames.push(b"0:" + base64.b64encode(bytes(20)) + b"\\nnonsense\\n").shape, frames.counts.torn
    ((10, 1), 1)
    """

    def __init__(self, n_channels: int = 6, window: int = 4, most_lost: int = 10_000):
        require_int(1, n_channels=n_channels, most_lost=most_lost)
        require_int(0, window=window)
        self.n_channels, self.counts, self._rest = n_channels, Counts(), b""
        self._order = _Order(self.counts, n_channels, window, most_lost)

    def push(self, data: bytes) -> np.ndarray:
        """The records (n, channels) of the lines that are complete now; a damaged line is counted and left out."""
        *lines, rest = (self._rest + data).split(b"\n")
        blocks = [block for line in lines if line.strip() for block in self._line(line.strip())]
        self.counts.torn += len(rest) > LONGEST_LINE
        self._rest = rest if len(rest) <= LONGEST_LINE else b""
        return _joined(blocks, self.n_channels)

    def _line(self, line):
        counter, colon, text = line.rpartition(b":")
        try:
            data = base64.b64decode(text, validate=True)
        except binascii.Error:
            data = b""
        if len(data) != 2 * TEXT_RECORDS * self.n_channels or (colon and not counter.isdigit()):
            self.counts.torn += 1
            return []
        block = _block(data, np.dtype("<i2"), self.n_channels)
        if colon:
            return self._order.push(int(counter[-10:]) % COUNTERS, block)
        self.counts.records += len(block)
        return [block]

    def flush(self) -> np.ndarray:
        """The end of a connection: what was held back; an incomplete line is dropped and counted."""
        self.counts.torn += bool(self._rest)
        self._rest = b""
        return _joined(self._order.flush(), self.n_channels)


class _Order:
    """Blocks in the order of their counters; NaN for those that never came."""

    def __init__(self, counts, n_channels, window, most_lost):
        self.counts, self.n_channels, self.window, self.most_lost = counts, n_channels, window, most_lost
        self._next, self._held = None, {}  # blocks by their distance from the next counter

    def push(self, counter, block):
        out = []
        if self._next is None:
            self._next = counter
        ahead = (counter - self._next + COUNTERS // 2) % COUNTERS - COUNTERS // 2
        if abs(ahead) > self.most_lost:
            out = self.flush()
            self.counts.restarts += 1
            self._next, ahead = counter, 0
        if ahead < 0 or ahead in self._held:
            self.counts.repeated += 1
            return out
        self.counts.reordered += any(held > ahead for held in self._held)
        self._held[ahead] = block
        return out + self._ready(self.window)

    def flush(self):
        return self._ready(0)

    def _ready(self, window):
        out = []
        while self._held and (0 in self._held or len(self._held) > window):
            first = min(self._held)
            block = self._held.pop(first)
            lost = first * len(block)
            out += [np.full((lost, self.n_channels), np.nan, np.float32)] * (lost > 0) + [block]
            self.counts.lost += lost
            self.counts.records += len(block)
            self._next = (self._next + first + 1) % COUNTERS
            self._held = {ahead - first - 1: held for ahead, held in self._held.items()}
        return out


def _block(data, dtype, n_channels):
    return np.frombuffer(data, dtype).reshape(-1, n_channels).astype(np.float32)


def _joined(blocks, n_channels):
    return np.concatenate([np.empty((0, n_channels), np.float32), *blocks])
