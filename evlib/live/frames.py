"""Wire formats: bytes, cut anywhere, become blocks (n, channels) of float32.

A parser has ``push(data) -> blocks``, ``flush() -> blocks`` at the end of a connection, and ``counts``. What a format
shows to be lost is a block of NaN, so that the samples that follow keep their time.
"""

import base64
import binascii
import struct
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..signals.errors import require_choice, require_int

DTYPES = {"int16": "<i2", "float32": "<f4"}
MAGIC = b"EVL1"  # a packet: this, then the counter (uint32) and the number of records (uint16), little endian
HEADER = struct.Struct("<4sIH")
COUNTERS = 2**32  # where the counter starts again at 0
TEXT_RECORDS = 10  # records in a line of text
LONGEST_LINE = 65536  # bytes; what is longer without an end is no line
MOST_REPEATED = 1000  # repeated packets one after another; what repeats more is a logger that counts anew
MOST_BYTES = 1 << 24  # of lost packets; what misses more is a restart, and the clock tells how much
# A packet among the first so many, which is late by more than a repeated one is: a logger that began anew.
YOUNG, LATE = 100, 20


@dataclass
class Counts:
    """What a parser saw. ``torn`` counts damaged or incomplete pieces, ``records`` and ``lost`` count samples.

    ``repeated`` counts packets that came twice or too late, ``reordered`` those that came after a later one, and
    ``restarts`` jumps of the counter that are too long to be a loss: what is missing there only the clock tells.
    """

    records: int = 0
    torn: int = 0
    repeated: int = 0
    reordered: int = 0
    lost: int = 0
    restarts: int = 0


class Frames:
    """What all parsers share: bytes that wait for the rest of their record, and the end of a connection.

    ``counter`` is that of the next packet, None where there is none. A format that has one calls ``missing()``, where
    it was set, for the number of samples that are lost by the clock where the counter starts anew. ``redelivered`` says
    that old packets may come again: then only many of them are a logger that counts anew. Numbers are multiplied with
    ``scale``.
    """

    def __init__(self, n_channels: int, dtype: str = "int16", window: int = 0, most_lost: int = 10_000):
        require_int(1, n_channels=n_channels, most_lost=most_lost)
        require_int(0, window=window)
        require_choice(DTYPES, dtype=dtype)
        self.n_channels, self.dtype = n_channels, np.dtype(DTYPES[dtype])
        self.window, self.most_lost, self.counts = window, most_lost, Counts()
        self.counter: int | None = None
        self.missing: Callable[[], int] = int
        self.redelivered, self.scale = False, np.float32(1)
        self._rest, self._late = b"", 0
        self._held: dict[int, np.ndarray] = {}  # blocks by their distance from the next counter

    def push(self, data: bytes) -> list[np.ndarray]:
        """The blocks (n, channels) that are complete and in order now."""
        raise NotImplementedError

    def flush(self) -> list[np.ndarray]:
        """The end of a connection: what was held back; an incomplete record is dropped and counted."""
        self.counts.torn += bool(self._rest)
        self._rest = b""
        return self._ready(0)

    def _block(self, data):
        block = np.frombuffer(data, self.dtype).reshape(-1, self.n_channels).astype(np.float32) * self.scale
        self.counts.records += len(block)
        return block

    @property
    def waits(self) -> bool:
        """Whether something that came has not been given out yet."""
        return bool(self._held or self._rest)

    def lost(self, n: int) -> list[np.ndarray]:
        """NaN for n samples, as one block that takes no memory."""
        self.counts.lost += max(0, n)
        return [np.broadcast_to(np.float32(np.nan), (n, self.n_channels))] if n > 0 else []

    def _in_order(self, counter, data):
        """The blocks that are complete and in order with this one, whose counter is given."""
        out = []
        if self.counter is None:
            self.counter = counter
        ahead = (counter - self.counter + COUNTERS // 2) % COUNTERS - COUNTERS // 2
        late = ahead < 0 or ahead in self._held
        self._late = self._late + 1 if late else 0
        anew = counter < YOUNG and ahead < -LATE and not self.redelivered
        far = abs(ahead) > self.most_lost or abs(ahead) * len(data) > MOST_BYTES
        if far or self._late > MOST_REPEATED or anew:
            out = self._ready(0) + self.lost(self.missing())
            self.counts.restarts += 1
            self.counter, self._late, ahead, late = counter, 0, 0, False
        if late:
            self.counts.repeated += 1
            return out
        self.counts.reordered += any(held > ahead for held in self._held)
        self._held[ahead] = self._block(data)
        return out + self._ready(self.window)

    def _ready(self, window):
        out = []
        while self._held and (0 in self._held or len(self._held) > window):
            first = min(self._held)
            block = self._held.pop(first)
            out += [*self.lost(first * len(block)), block]
            self.counter = (self.counter + first + 1) % COUNTERS
            self._held = {ahead - first - 1: held for ahead, held in self._held.items()}
        return out


class RawFrames(Frames):
    """Interleaved numbers without a header: only a record that is incomplete at the end can be seen.

    >>> frames = RawFrames(2, "int16")
    >>> [block.tolist() for block in frames.push(bytes([1, 0, 2, 0, 3]))], frames.flush(), frames.counts.torn
    ([[[1.0, 2.0]]], [], 1)
    """

    def push(self, data: bytes) -> list[np.ndarray]:
        """The records (n, channels) that are complete now."""
        data = self._rest + data
        whole = len(data) - len(data) % (self.n_channels * self.dtype.itemsize)
        self._rest = data[whole:]
        return [self._block(data[:whole])] if whole else []


class PacketFrames(Frames):
    """Packets with a counter (see ``MAGIC``), so that loss, repetition and order are seen.

    All packets of a connection hold equally many records: a lost one counts as the one after it. ``window`` is how many
    packets are held back while an earlier one may still come; a jump of more than ``most_lost`` is a restart.

    >>> frames = PacketFrames(1, window=0)
    >>> for counter in (7, 9):
    ...     print([block.tolist() for block in frames.push(HEADER.pack(MAGIC, counter, 1) + bytes([counter, 0]))])
    [[[7.0]]]
    [[[nan]], [[9.0]]]
    >>> frames.counts.lost
    1
    """

    def __init__(self, n_channels: int, dtype: str = "int16", window: int = 4, most_lost: int = 10_000):
        super().__init__(n_channels, dtype, window, most_lost)
        self._records, self._astray = 0, False  # in a packet, once one has come; between packets

    def flush(self) -> list[np.ndarray]:
        """The end of a connection: what was held back; the next one may have other packets."""
        self._records = 0
        return super().flush()

    def push(self, data: bytes) -> list[np.ndarray]:
        """The records of the packets that are complete and in order now; what is between packets is counted."""
        data, at, blocks = self._rest + data, 0, []
        while len(data) - at >= HEADER.size:
            magic, counter, n = HEADER.unpack_from(data, at)
            if magic != MAGIC:  # go on at the next packet; its first bytes may be the last ones here
                found = data.find(MAGIC, at + 1)
                at = found if found >= 0 else len(data) - len(MAGIC) + 1
                self.counts.torn += not self._astray
                self._astray = True
                if found < 0:
                    break
                continue
            self._astray = False
            self._records = self._records or n
            if n != self._records or not n:
                self.counts.torn += 1
                at += len(MAGIC)
                continue
            stop = at + HEADER.size + n * self.n_channels * self.dtype.itemsize
            if stop > len(data):
                break
            blocks += self._in_order(counter, data[at + HEADER.size : stop])
            at = stop
        self._rest = data[at:]
        return blocks


class TextFrames(Frames):
    """Lines of base64, each 10 records of int16, optionally ``counter:base64``: what a small logger sends.

    >>> frames = TextFrames(1)
    >>> [block.shape for block in frames.push(b"0:" + base64.b64encode(bytes(20)) + b"\\nnonsense\\n")]
    [(10, 1)]
    >>> frames.counts.torn
    1
    """

    def __init__(self, n_channels: int = 6, window: int = 4, most_lost: int = 10_000):
        super().__init__(n_channels, "int16", window, most_lost)

    def push(self, data: bytes) -> list[np.ndarray]:
        """The records (n, channels) of the lines that are complete now; a damaged line is counted and left out."""
        *lines, rest = (self._rest + data).split(b"\n")
        blocks = [block for line in lines if line.strip() for block in self._line(line.strip())]
        self.counts.torn += len(rest) > LONGEST_LINE
        self._rest = rest if len(rest) <= LONGEST_LINE else b""
        return blocks

    def _line(self, line):
        counter, colon, text = line.rpartition(b":")
        try:
            data = base64.b64decode(text, validate=True)
        except binascii.Error:
            data = b""
        if len(data) != 2 * TEXT_RECORDS * self.n_channels or (colon and not counter.isdigit()):
            self.counts.torn += 1
            return []
        return self._in_order(int(counter[-10:]) % COUNTERS, data) if colon else [self._block(data)]


# By name, for a number of channels.
FORMATS: dict[str, Callable[[int], Frames]] = {
    "packets": PacketFrames,
    "packets-float32": lambda n_channels: PacketFrames(n_channels, "float32"),
    "int16": RawFrames,
    "float32": lambda n_channels: RawFrames(n_channels, "float32"),
    "text": TextFrames,
}
