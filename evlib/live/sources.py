"""Where a live signal comes from: blocks (n, channels), with NaN for what is known to be lost.

A source has ``blocks()``, a generator that ends where the signal does. It yields an empty block after all samples that
came together, and at least twice a second, so that its reader can look at the clock. ``taken`` tells it that all it has
yielded is safe.
"""

import contextlib
import hashlib
import logging
import os
import queue
import select
import socket
import sys
import time
from collections.abc import Callable, Iterator
from urllib.parse import parse_qs, urlsplit

import numpy as np

from ..signals.errors import DataError, OptionError, UnitError, require_extra, require_positive
from ..signals.files import read_recording
from ..signals.recording import Recording
from .frames import Counts, Frames, TextFrames

BEAT_S = 0.25  # seconds that a source waits for data before it yields an empty block
READ_BYTES = 65536  # of a connection at a time
RETRY_S = 0.1, 5.0  # seconds until a lost connection is tried again: at first, and at most (it doubles)
PIECE_S = 10.0  # seconds of a gap that are given at a time
# A format is not what comes where so many bytes hold no sample, or so many pieces are damaged: that is said once.
STRANGE_BYTES, STRANGE_PIECES = 100_000, 20
REPLAY_S = 0.25  # seconds of a recording that is replayed at a time
# Seconds that a time stamp of Lab Streaming Layer may jump without a loss: jitter of a sender is some milliseconds.
JITTER_S = 0.02


class Source:
    """A signal that is still coming. ``channels``, ``units`` and ``sampling_rate_hz`` are None where it does not say.

    ``counter`` is where its own count stands, None without one; ``heard`` is the time of its last sample (seconds of
    `time.time`). A reader that starts again sets both to what they were. One that ``replays`` starts at any sample.
    """

    channels: tuple[str, ...] | None = None
    units: tuple[str, ...] | str | None = None
    sampling_rate_hz: float | None = None
    replays = False
    speed = 1.0  # times real time; 0: there is no time that it should come at
    counts: Counts | None = None

    def __init__(self):
        self.counter: int | None = None
        self.heard: float | None = None

    def blocks(self, start: int = 0) -> Iterator[np.ndarray]:
        """Blocks (n, channels) from sample ``start`` on where the source ``replays``."""
        raise NotImplementedError

    def taken(self) -> None:
        """All blocks so far are safe: the sender may forget them."""

    def _gap(self, n, n_channels, rate):
        """Blocks of NaN for n samples, and empty ones between; ``heard`` moves on, so that a stop loses nothing."""
        piece = max(1, round(PIECE_S * rate))
        for start in range(0, n, piece):
            length = min(piece, n - start)
            if self.heard is not None:
                self.heard += length / rate
            yield np.broadcast_to(np.float32(np.nan), (length, n_channels))
            yield np.empty((0, n_channels), np.float32)


class ByteSource(Source):
    """Bytes of a connection in one of the formats of `evlib.live.frames`; a lost one is opened again.

    Parameters
    ----------
    name : what it is called in messages
    connect : opens a connection: an object with ``read() -> bytes``, None where nothing came within BEAT_S and empty at
        the end, ``taken()`` and ``close()``
    frames : the parser
    sampling_rate_hz : tells how much is lost while there is no connection, where the format has no counter
    scale : a number, or one for each channel, that makes numbers of the wire a measurement
    again : open a connection that has ended again
    give_up_s : end the signal after so many seconds without data; None: never
    """

    def __init__(
        self, name: str, connect, frames: Frames, sampling_rate_hz: float, scale=1.0, again=True, give_up_s=None
    ):
        super().__init__()
        self._name, self._connect, self._frames, self._again, self._give_up_s = name, connect, frames, again, give_up_s
        self._rate = sampling_rate_hz
        self._connection: Connection | MqttMessages | None = None
        scale = np.asarray(scale, dtype=np.float32)
        if scale.ndim and scale.shape != (frames.n_channels,) or not (np.isfinite(scale) & (scale != 0)).all():
            raise OptionError(
                f"scale must be a number other than 0, or one for each of {frames.n_channels} channels; got {scale}"
            )
        frames.scale, self._unread, self._said = scale, 0, False
        self.counts = frames.counts
        frames.missing = self._missing

    def blocks(self, start: int = 0) -> Iterator[np.ndarray]:
        """Blocks from the first byte that comes on."""
        self._frames.counter = self.counter
        began, wait_s = time.monotonic(), RETRY_S[0]
        empty = np.empty((0, self._frames.n_channels), np.float32)
        while True:
            try:
                self._connection = connection = self._connect()
                unheard = True
                while (data := connection.read()) != b"":
                    if data is not None:
                        began, wait_s = time.monotonic(), RETRY_S[0]
                        yield from self._parsed(data, unheard)
                        unheard = False
                    elif self._give_up_s is not None and time.monotonic() - began > self._give_up_s:
                        return
                    yield empty
            except OSError as error:
                if wait_s == RETRY_S[0]:  # once, however often it is tried
                    logging.getLogger(__name__).warning("%s: no connection: %s; it is tried again", self._name, error)
            finally:
                if self._connection is not None:
                    self._connection.close()
                    self._connection = None
            held = self._frames.flush()
            self.counter = self._frames.counter  # with what was held, as with all blocks
            yield from held
            if not self._again or (self._give_up_s is not None and time.monotonic() - began > self._give_up_s):
                return
            until = time.monotonic() + wait_s
            while time.monotonic() < until:
                time.sleep(min(BEAT_S, wait_s))
                yield empty
            wait_s = min(2 * wait_s, RETRY_S[1])

    def _parsed(self, data, unheard):
        blocks = self._frames.push(data)
        self._unread = 0 if blocks else self._unread + len(data)
        if not self._said and (self._unread > STRANGE_BYTES or self._frames.counts.torn > STRANGE_PIECES):
            self._said = True
            text = "%s: %d damaged pieces, %d bytes without a sample: another format, or number of channels?"
            logging.getLogger(__name__).warning(text, self._name, self._frames.counts.torn, self._unread)
        if not blocks:
            return
        now = time.time()
        if unheard and self.counter is None:  # no counter so far: the clock tells what is lost
            blocks = self._frames.lost(self._missing() - len(blocks[0])) + blocks
        long = [k for k, block in enumerate(blocks) if not block.strides[0] and len(block) > PIECE_S * self._rate]
        if long:  # nobody counts in a long gap: where it is cut short, the clock tells the rest
            self.counter, (before, (gap, *blocks)) = None, (blocks[: long[-1]], blocks[long[-1] :])
            if before:
                yield np.concatenate(before)
            yield from self._gap(*gap.shape, self._rate)
        self.counter, self.heard = self._frames.counter, now
        yield np.concatenate(blocks)

    def _missing(self):
        return 0 if self.heard is None else max(0, round((time.time() - self.heard) * self._rate))

    def taken(self) -> None:
        if self._connection is not None and not self._frames.waits:
            self._connection.taken()


class Connection:
    """Bytes of a file descriptor, socket or serial line."""

    def __init__(self, wait, read, close):
        self._wait, self._read, self.close = wait, read, close

    def read(self) -> bytes | None:
        """Bytes that are there; None where none came within BEAT_S, empty at the end."""
        return self._read() if self._wait() else None

    def taken(self) -> None:
        """Nothing to say to the sender."""


def standard_input() -> Connection:
    """Bytes that are piped in."""
    descriptor = sys.stdin.fileno()
    return Connection(_ready(descriptor), lambda: os.read(descriptor, READ_BYTES), lambda: None)


def tcp(host: str, port: int) -> Connection:
    """Bytes of a TCP server."""
    line = socket.create_connection((host, port), timeout=5.0)
    return Connection(_ready(line), lambda: line.recv(READ_BYTES), line.close)


def serial(device: str, baud: int) -> Connection:
    """Bytes of a serial line (extra ``live``)."""
    line = require_extra("serial", "live").Serial(device, baud, timeout=BEAT_S, exclusive=True)
    return Connection(lambda: True, lambda: line.read(line.in_waiting or 1) or None, line.close)


def _ready(descriptor):
    return lambda: select.select([descriptor], [], [], BEAT_S)[0]


class MqttMessages:
    """Payloads of the messages of an MQTT topic (extra ``live``), each acknowledged once it is safe.

    The broker keeps the session of ``client_id``, and with it the messages that come while nobody listens.
    """

    def __init__(self, host: str, port: int, topic: str, client_id: str, qos: int = 1, between: bytes = b""):
        mqtt = require_extra("paho.mqtt.client", "live")
        self._messages: queue.SimpleQueue = queue.SimpleQueue()
        self._unacknowledged: list = []
        self._between = between  # what stands between payloads: a line break, where they are lines
        self._client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id, clean_session=False, manual_ack=True)
        self._client.reconnect_delay_set(1, int(RETRY_S[1]))
        self._client.on_connect = lambda client, *_: client.subscribe(topic, qos)
        self._client.on_message = lambda _client, _data, message: self._messages.put(message)
        self._client.connect(host, port)  # an OSError where there is no broker; a lost one is found again by itself
        self._client.loop_start()

    def read(self) -> bytes | None:
        """The payloads that are there, as one; None where none came within BEAT_S."""
        payloads: list[bytes] = []
        with contextlib.suppress(queue.Empty):
            while sum(map(len, payloads)) < READ_BYTES:
                message = self._messages.get(timeout=0 if payloads else BEAT_S)
                self._unacknowledged.append((message.mid, message.qos))
                payloads.append(message.payload)
        return self._between.join([*payloads, b""]) or None

    def taken(self) -> None:
        """Acknowledge what was read."""
        while self._unacknowledged:
            self._client.ack(*self._unacknowledged.pop(0))

    def close(self) -> None:
        """Leave; the broker keeps what comes from now on."""
        self._client.loop_stop()
        self._client.disconnect()


class LslSource(Source):
    """A stream of Lab Streaming Layer (extra ``live``), found by its name; losses show in its time stamps."""

    def __init__(self, name: str, find_s: float = 30.0, give_up_s=None):
        super().__init__()
        pylsl = require_extra("pylsl", "live")
        found = pylsl.resolve_byprop("name", name, timeout=find_s)
        if not found:
            raise DataError(f"no stream named {name!r} of Lab Streaming Layer came within {find_s:g} s")
        self._inlet = pylsl.StreamInlet(
            found[0], processing_flags=pylsl.proc_clocksync | pylsl.proc_monotonize, as_numpy=True
        )
        info = self._inlet.info(timeout=find_s)
        if info.channel_format() == pylsl.cf_string:
            raise DataError(f"the stream {name!r} holds texts, not numbers")
        if not info.nominal_srate():
            raise UnitError(f"the stream {name!r} has no regular sampling rate")
        self._rate, self._give_up_s = info.nominal_srate(), give_up_s
        self.sampling_rate_hz = self._rate
        self.channels = tuple(info.get_channel_labels() or ()) or None
        units = info.get_channel_units() or ()
        self.units = tuple(units) if units and all(units) else None
        self._n_channels = info.channel_count()
        self._clock = pylsl.local_clock

    def blocks(self, start: int = 0) -> Iterator[np.ndarray]:
        """Blocks from now on."""
        rate, stamp, heard = self._rate, None, time.monotonic()
        if self.heard is not None:  # where the reader stopped, on the clock of time stamps
            stamp = self._clock() - (time.time() - self.heard)
        while self._give_up_s is None or time.monotonic() - heard < self._give_up_s:
            block, stamps = self._inlet.pull_chunk(timeout=BEAT_S, max_samples=int(rate), min_samples=1)
            block = np.asarray(block, dtype=np.float32).reshape(-1, self._n_channels)
            if len(block):
                heard = time.monotonic()
                before = np.concatenate([[stamps[0] - 1 / rate if stamp is None else stamp], stamps[:-1]])
                missing = (stamps - before) * rate - 1
                jumps = missing > JITTER_S * rate
                starts = np.unique([0, *np.flatnonzero(jumps)])
                for first, last in zip(starts, [*starts[1:], len(block)], strict=True):
                    if jumps[first]:
                        yield from self._gap(round(missing[first]), self._n_channels, rate)
                    yield block[first:last]
                stamp, self.heard = stamps[-1], time.time()
            yield block[:0]


class Replay(Source):
    """A recording as if it came now, ``speed`` times as fast; 0: as fast as it is read."""

    replays = True

    def __init__(self, recording: Recording, speed: float = 0.0):
        super().__init__()
        if speed:
            require_positive(speed=speed)
        self._recording, self.speed = recording, speed
        self.channels, self.units = recording.channels, recording.units
        self.sampling_rate_hz = recording.sampling_rate_hz

    def blocks(self, start: int = 0) -> Iterator[np.ndarray]:
        """Blocks from sample ``start`` on."""
        rate, began = self._recording.sampling_rate_hz, time.monotonic()
        step = max(1, round(REPLAY_S * rate))
        for first in range(start, self._recording.n_samples, step):
            last = min(first + step, self._recording.n_samples)
            if self.speed:
                due = began + (last - start) / rate / self.speed
                while (wait := due - time.monotonic()) > 0:
                    time.sleep(min(wait, BEAT_S))
                    yield np.empty((0, self._recording.n_channels), np.float32)
            yield self._recording.read(first, last)
            yield np.empty((0, self._recording.n_channels), np.float32)


def open_source(
    text: str,
    frames: Frames,
    sampling_rate_hz: float,
    scale=1.0,
    speed: float = 0.0,
    give_up_s: float | None = None,
    read: Callable[[str], Recording] = read_recording,
) -> Source:
    """A source from its address.

    ============================== =====================================================================
    ``-``                          bytes of standard input, read by ``frames``
    ``tcp://HOST:PORT``            those of a TCP server
    ``serial:DEVICE?baud=115200``  those of a serial line
    ``mqtt://HOST:PORT/TOPIC``     those of the messages of an MQTT topic; ``?qos=2``, ``?client=NAME``
    ``lsl:NAME``                   a stream of Lab Streaming Layer
    a file                         a recording, replayed ``speed`` times as fast as it came
    ============================== =====================================================================

    Raises
    ------
    OptionError, MissingExtraError : an address that cannot be understood, a package that is not installed
    """
    scheme, more = address(text)
    if scheme == "lsl":
        return LslSource(more["path"], give_up_s=give_up_s)
    if scheme == "file":
        return Replay(read(text), speed)
    host, port = more["host"], more["port"]
    client = "evlib-" + short_hash(text)  # the same after a restart
    topic = (
        more["path"],
        more.get("client", client),
        int(more.get("qos", 1)),
        b"\n" * isinstance(frames, TextFrames),
    )
    connect: dict[str, Callable] = {
        "-": standard_input,
        "tcp": lambda: tcp(host, port),
        "serial": lambda: serial(more["path"], int(more.get("baud", 115200))),
        "mqtt": lambda: MqttMessages(host, port or 1883, *topic),
    }
    if scheme in ("serial", "mqtt"):  # a package that is missing is said now
        require_extra({"serial": "serial", "mqtt": "paho.mqtt.client"}[scheme], "live")
    frames.redelivered = scheme == "mqtt"
    return ByteSource(text, connect[scheme], frames, sampling_rate_hz, scale, scheme != "-", give_up_s)


def short_hash(text: str) -> str:
    """A name for an address."""
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def address(text: str) -> tuple[str, dict]:
    """The scheme of an address ("file" for a path) and its parts: host, port, path and options.

    >>> address("mqtt://broker:1884/frame/3?qos=2")
    ('mqtt', {'host': 'broker', 'port': 1884, 'path': 'frame/3', 'qos': '2'})
    >>> address("night.zarr")[0], address("lsl:Bell frame")[1]["path"], address("serial:/dev/ttyUSB0")[1]["path"]
    ('file', 'Bell frame', '/dev/ttyUSB0')
    """
    if text == "-":
        return "-", {"host": None, "port": None, "path": ""}
    scheme, colon, rest = text.partition(":")
    if not colon or scheme not in ("tcp", "serial", "mqtt", "lsl"):
        if "://" in text:
            raise OptionError(f"{text!r} is no source or output: tcp://, mqtt://, serial:, lsl:, - or a file")
        return "file", {"host": None, "port": None, "path": text}
    try:
        parts = urlsplit(text if scheme in ("tcp", "mqtt") else "")
        port, host = parts.port, parts.hostname
    except ValueError as error:
        raise OptionError(f"{text!r}: {error}") from None
    path, _, query = (parts.path.lstrip("/"), "", parts.query) if parts.scheme else rest.partition("?")
    if scheme == "tcp" and (not host or not port) or scheme == "mqtt" and not (host and path) or not (host or path):
        wanted = {"tcp": "tcp://HOST:PORT", "mqtt": "mqtt://HOST[:PORT]/TOPIC"}.get(scheme, f"{scheme}:NAME")
        raise OptionError(f"{text!r} must be {wanted}")
    options = {name: values[-1] for name, values in parse_qs(query).items()}
    for name in ("qos", "baud"):
        if name in options and not options[name].isdecimal():
            raise OptionError(f"{text!r}: {name} must be a whole number, got {options[name]!r}")
    return scheme, {"host": host, "port": port, "path": path} | options
