"""Where the events of a live signal go, as lines of JSON.

What is told stands in a journal first. A thread for each output brings its lines there and remembers how far it came,
so that a slow, full or dead output neither holds up the detection nor loses an event.
"""

import logging
import os
import socket
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..signals.errors import DataError, OptionError, require_extra
from .sources import address

WAIT_S = 0.5, 10.0  # seconds until an output that failed is tried again: at first, and at most (it doubles)
CONFIRM_S = 10.0  # seconds until a broker that does not confirm a message counts as failed
CHUNK_BYTES = 1 << 16  # of the journal at a time


class Delivery(threading.Thread):
    """Brings the lines of a journal to one output, from where it stopped the last time.

    Parameters
    ----------
    name : what it is called in messages
    journal : file of lines; may not exist yet
    send : takes a list of lines (bytes); an OSError: try again later
    place : file that remembers how many bytes of the journal were delivered
    """

    def __init__(self, name: str, journal: Path, send: Callable[[list[bytes]], None], place: Path):
        super().__init__(name=name, daemon=True)
        self._journal, self._send, self._place = journal, send, place
        self._news, self._ended = threading.Condition(), False
        self.failed: OSError | None = None
        self.reader_left = False
        try:
            self.delivered = int(place.read_bytes() or 0) if place.exists() else 0
        except ValueError:
            raise DataError(f"{place} is damaged: it says how many bytes of the journal were delivered") from None

    def run(self) -> None:
        """Deliver until `finish` was called and nothing is left, or the reader of a pipe has left."""
        wait_s = WAIT_S[0]
        while True:
            with self._news:
                ended = self._ended
                lines = self._next_lines()
                if not lines:
                    if ended:
                        return
                    self._news.wait(1.0)
                    continue
            try:
                self._send(lines)
            except BrokenPipeError:
                self.reader_left = True
                return
            except OSError as error:
                if self.failed is None:
                    logging.getLogger(__name__).warning("%s: %s; events wait in the journal", self.name, error)
                self.failed = error
                with self._news:
                    if self._ended:
                        return
                    self._news.wait(wait_s)
                wait_s = min(2 * wait_s, WAIT_S[1])
                continue
            self.failed, wait_s = None, WAIT_S[0]
            self.delivered += sum(map(len, lines))
            # Written in place: after a kill between the two, an event comes twice, with the same id.
            with open(self._place, "r+b" if self._place.exists() else "wb") as file:
                file.write(b"%020d" % self.delivered)

    def _next_lines(self):
        if not self._journal.exists():
            return []
        with self._journal.open("rb") as file:
            file.seek(self.delivered)
            chunk = file.read(CHUNK_BYTES)
        return chunk[: chunk.rfind(b"\n") + 1].splitlines(keepends=True)

    @property
    def waits(self) -> bool:
        """Whether it is still at work on what it was given, without an error."""
        return self.is_alive() and self.failed is None

    def wake(self) -> None:
        """There is something new in the journal."""
        with self._news:
            self._news.notify()

    def finish(self, wait_s: float | None = None) -> bool:
        """Deliver what is left, and stop; False where that failed, or took longer than ``wait_s``."""
        with self._news:
            self._ended = True
            self._news.notify()
        self.join(wait_s)
        return not self.is_alive() and self.failed is None and not self.reader_left


def open_output(text: str) -> Callable[[list[bytes]], None]:
    """What sends lines of JSON to an address: ``-`` (standard output), a file, ``tcp://HOST:PORT``,
    ``mqtt://HOST:PORT/TOPIC`` (a message for each event), or ``lsl:NAME`` (an outlet of texts).

    Raises
    ------
    OptionError, MissingExtraError : an address that cannot be understood, a package that is not installed
    """
    scheme, more = address(text)
    if scheme == "serial":
        raise OptionError(f"{text!r}: events are not written to a serial line; use -, a file, tcp, mqtt or lsl")
    if scheme == "-":
        return _to_standard_output
    if scheme == "file":
        return ToFile(Path(text))
    if scheme == "tcp":
        return ToTcp(more["host"], more["port"])
    if scheme == "mqtt":
        return ToMqtt(more["host"], more["port"] or 1883, more["path"], int(more.get("qos", 1)))
    return ToLsl(more["path"])


def _to_standard_output(lines):
    data = b"".join(lines)
    while data:  # without a buffer of Python's: a reader that does not read must not hinder the end of the process
        data = data[os.write(sys.stdout.fileno(), data) :]


class ToFile:
    """Appends to a file. It holds each line once, even after a kill: those that it ends with are not written again."""

    def __init__(self, path: Path):
        self._path, self._first = path, True
        path.parent.mkdir(parents=True, exist_ok=True)
        open(path, "ab").close()  # an OSError now where it cannot be written

    def __call__(self, lines: list[bytes]) -> None:
        with open(self._path, "a+b") as file:
            if self._first:  # a kill may have come between writing and remembering, or within a line
                file.seek(max(0, file.seek(0, os.SEEK_END) - CHUNK_BYTES))
                end = file.read()
                file.truncate(file.tell() - len(end) + end.rfind(b"\n") + 1)
                written = set(end.splitlines(keepends=True))
                lines = [line for line in lines if line not in written]
            file.writelines(lines)
        self._first = False


class ToTcp:
    """A connection to a server that reads lines."""

    def __init__(self, host: str, port: int):
        self._to = (host, port)
        self._line: socket.socket | None = None

    def __call__(self, lines: list[bytes]) -> None:
        try:
            self._line = line = self._line or socket.create_connection(self._to, timeout=5.0)
            line.sendall(b"".join(lines))
        except OSError as error:
            if self._line is not None:
                self._line.close()
            self._line = None
            raise ConnectionError(f"{error}") from error  # a broken pipe, too, is tried again


class ToMqtt:
    """A message for each event (extra ``live``), of quality 1 or 2: it counts as sent when the broker says so."""

    def __init__(self, host: str, port: int, topic: str, qos: int = 1):
        self._mqtt = require_extra("paho.mqtt.client", "live")
        self._to, self._topic, self._qos = (host, port), topic, max(1, qos)
        self._client: Any = None
        self._received: set[int] = set()  # numbers of messages that the broker has
        self._sent: dict[bytes, int] = {}  # and of those that were given to the client

    def __call__(self, lines: list[bytes]) -> None:
        if self._client is None:
            client = self._mqtt.Client(self._mqtt.CallbackAPIVersion.VERSION2)
            client.on_publish = lambda _client, _data, number, *_: self._received.add(number)
            client.connect(*self._to)
            client.loop_start()
            self._client = client
        for line in lines:
            if line not in self._sent:
                self._sent[line] = self._client.publish(self._topic, line.rstrip(b"\n"), self._qos).mid
        until = time.monotonic() + CONFIRM_S
        while not self._received.issuperset(self._sent.values()):
            if time.monotonic() > until:  # a client keeps what it has while there is no broker, and sends it then
                raise TimeoutError("the broker has not confirmed the messages yet")
            time.sleep(0.01)
        self._received -= set(self._sent.values())
        self._sent = {}


class ToLsl:
    """An outlet of Lab Streaming Layer (extra ``live``): markers, each the JSON of an event."""

    def __init__(self, name: str):
        pylsl = require_extra("pylsl", "live")
        info = pylsl.StreamInfo(name, "Markers", 1, pylsl.IRREGULAR_RATE, pylsl.cf_string, f"evlib {name}")
        self._outlet = pylsl.StreamOutlet(info)

    def __call__(self, lines: list[bytes]) -> None:
        for line in lines:
            self._outlet.push_sample([line.decode().rstrip()])
