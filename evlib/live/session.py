"""A live signal from its source to its outputs, with an account of what was lost, which survives a kill.

All that a session needs to go on stands in one folder:

| file | holds |
| --- | --- |
| ``events.jsonl`` | the journal: every event once, with a number, before any output gets it |
| ``ledger.jsonl`` | gaps, spans in which nothing could be seen, losses of the source, lag, unusual noise, restarts |
| ``state.npz`` | the state of the detector, a few seconds old |
| ``spool.bin`` | the samples since that state: a restart takes them again, and finds the same events again |
| ``output-...`` | how far each output was told |
"""

import collections
import logging
import math
import struct
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from ..detection.detector import Detector
from ..signals.atomic import lock, replace_file
from ..signals.errors import (
    DataError,
    OptionError,
    UnitError,
    WriteError,
    require_choice,
    require_instance,
    require_positive,
)
from ..signals.events import Events
from ..signals.files import read_recording
from ..signals.logs import AppendOnlyLog
from .frames import FORMATS
from .outputs import Delivery, open_output
from .sources import PIECE_S, Source, open_source, short_hash
from .streaming import BLOCK_S, StreamingDetector

SAVE_S = 10.0  # seconds between two states
LAG_ALARM_S = 1.0  # seconds behind real time that are worth a warning
MOST_SAMPLES = 1 << 20  # of a piece
NOISE_S = 60.0  # seconds of signal between two looks at its noise
COUNT_S = 1.0  # least seconds between two lines of the ledger about losses of the source
# Minutes in which the earliest arrival is what "in time" means: clocks of a sensor and a computer drift apart.
LAG_MINUTES = 10
RECENT_EVENTS = 1000  # events that a session keeps for those who look at it
FINISH_S = 10.0  # seconds that outputs get for what is left when the signal ends
# A record of the spool: its first sample, samples, whether all are lost (then none follow), the source's counter
# (-1: none), and when they were heard.
RECORD = struct.Struct("<QI?qd")


class Session:
    """Detection in a live signal that is told to outputs, and goes on after a kill.

    Parameters
    ----------
    detector : from :func:`evlib.fit` or :func:`evlib.load_detector`
    source : from :func:`open_source`
    folder : where the session keeps what it needs to go on; one session at a time
    outputs : addresses, see :func:`open_output`
    lag_alarm_s : seconds behind real time from which a warning is given
    options : of :class:`StreamingDetector`

    Raises
    ------
    UnitError, ShapeError : a source of another rate, or with channels that do not fit
    OptionError : a folder of another detector, of a signal that has ended, or in use

    Examples
    --------
    >>> import evlib, tempfile
    >>> from evlib.live.sources import Replay
    >>> recording, reference = evlib.make_recording(duration_s=30.0, seed=1)
    >>> detector = evlib.fit([(recording, reference)], method="matched_filter", progress=False)
    >>> folder = Path(tempfile.mkdtemp())
    >>> Session(detector, Replay(recording), folder).run()
    >>> len(read_journal(folder)) == len(evlib.detect(detector, recording))
    True
    """

    def __init__(
        self,
        detector: Detector,
        source: Source,
        folder: str | Path,
        outputs=(),
        lag_alarm_s: float = LAG_ALARM_S,
        **options,
    ):
        require_positive(lag_alarm_s=lag_alarm_s)
        self._rate, own = detector.sampling_rate_hz, source.sampling_rate_hz
        if own is not None and not math.isclose(own, self._rate, rel_tol=1e-4):
            raise UnitError(f"the source has {own:g} samples per second, the detector {self._rate:g}")
        for name in ("channels", "units"):
            if getattr(source, name) is not None and options.get(name) is None:
                options[name] = getattr(source, name)
        self.stream = StreamingDetector(detector, **options)
        self.channels, self.units = (options.get(name) or getattr(detector, name) for name in ("channels", "units"))
        self.folder, self._source, self.lag_alarm_s = Path(folder), source, lag_alarm_s
        if self.folder.is_file():
            raise OptionError(f"{folder} is a file; a session needs a folder")
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock = open(self.folder / "lock", "ab")
        try:
            lock(self._lock, wait=False)
        except OSError:
            raise OptionError(f"{folder} is in use by another session; choose another folder") from None
        self._journal, self._ledger = (AppendOnlyLog(self.folder / name) for name in ("events.jsonl", "ledger.jsonl"))
        if any(line.get("what") == "end" for line in self._ledger.lines[-1:]):
            raise OptionError(f"the signal in {folder} has ended; choose another folder for a new one")
        spans = [line["stop"] for line in self._ledger.lines if line.get("what") == "unseen"]
        self._accounted = max(spans, default=0)  # samples up to which unseen spans stand in the ledger
        if not all({"id", "onset", "trial_type", "sample"} <= line.keys() for line in self._journal.lines):
            raise DataError(f"{self._journal.path} holds lines that are no events")
        self._known = self._journal.lines  # events that stand in the journal, and will be found again
        self._told, self.ended = len(self._known), False  # ended: the signal has, not only this session
        self._counted: tuple[float, dict[str, int]] = 0.0, {}
        self._saved = self._taken = time.monotonic()
        self._lag, self._stop, self.late = Lag(), threading.Event(), False
        said = [line["what"] for line in self._ledger.lines if str(line.get("what")).startswith("noise")]
        self.noisy = said[-1:] == ["noise"]
        self.recent: collections.deque = collections.deque(self._journal.lines[-RECENT_EVENTS:], RECENT_EVENTS)
        self.gaps: collections.deque = collections.deque(maxlen=RECENT_EVENTS)
        self.watch: Callable[[int, np.ndarray], None] | None = None  # called with each block, to look at the signal
        new = not (self.folder / "state.npz").exists()
        if new and self._journal.lines:
            raise OptionError(f"{folder} holds events but no state.npz to go on from; choose another folder")
        for path in outputs:
            if new and path != "-" and Path(path).is_file() and Path(path).stat().st_size:
                raise OptionError(f"{path} is there already; a new session does not write to it. Choose another name")
        self._deliveries = [
            Delivery(text, self._journal.path, open_output(text), self.folder / f"output-{short_hash(text)}")
            for text in outputs
        ]
        self._spool = Spool(self.folder / "spool.bin", self.stream.n_channels)
        self._start(new)

    def run(self) -> None:
        """Detect until the signal ends, or `stop` is called; then another session can go on where this one stopped."""
        for delivery in self._deliveries:
            delivery.start()
        # After an error or an interrupt the last state and the spool count: what is in memory may be torn.
        whole = False
        try:
            for block in self._source.blocks(self.stream.n_samples):
                if len(block):
                    self._take(block)
                    continue
                self._look_at_the_clock()
                if self._stop.is_set():
                    break
            else:
                self.ended = True
                self._tell(self.stream.flush())
            self._count(time.monotonic())
            whole = True
        finally:
            self._close(whole)

    def stop(self) -> None:
        """End `run` soon, from another thread or a signal handler; the signal has not ended."""
        self._stop.set()

    def status(self) -> dict:
        """How it stands: seconds of signal, seconds behind, events, what the source lost, events not yet delivered."""
        size = self._journal.path.stat().st_size if self._journal.path.exists() else 0
        return {
            "signal_s": self.stream.n_samples / self._rate,
            "lag_s": self._lag.behind_s,
            "events": self._told,
            "hasty": self.stream.hasty,
            "counts": vars(self._source.counts) if self._source.counts else {},
            "undelivered_bytes": [size - delivery.delivered for delivery in self._deliveries],
        }

    def _start(self, new):
        """Go on where the last session stopped: its state, then the samples that came since."""
        if not any(line.get("what") == "start" for line in self._ledger.lines):
            names = list(self.stream.detector.names)
            self._ledger.append({"what": "start", "names": names, "sampling_rate_hz": self._rate})
        if not new:
            values = self._saved_values()
            self.stream.restore(values)
            known, counter = int(values["known"]), int(values["counter"])
            if known > self._told:
                text = f"events.jsonl in {self.folder} has {self._told} lines, and had {known}: was it edited?"
                raise DataError(f"{text} Choose another folder")
            self._known = self._known[known:]
            self._source.counter = None if counter < 0 else counter
            self._source.heard = float(values["heard"]) or None
        saved = self.stream.n_samples
        for start, block, counter, heard in self._spool.records():
            ahead = self.stream.n_samples - start
            if 0 <= ahead < len(block):
                self._tell(self.stream.push(block[ahead:]))
                self._source.counter, self._source.heard = counter, heard
        if not new:
            taken = self.stream.n_samples - saved
            self._ledger.append({"what": "restart", "sample": self.stream.n_samples, "from_spool": taken})
        self._save()

    def _saved_values(self):
        path = self.folder / "state.npz"
        try:
            with np.load(path, allow_pickle=False) as state:
                values = dict(state)
        except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
            raise DataError(f"{path} is damaged: {error}") from error
        if not {"known", "counter", "heard"} <= values.keys():
            raise DataError(f"{path} is no state of a session")
        return values

    def _take(self, block):
        """Samples that came."""
        self._taken = time.monotonic()
        step = min(max(1, round(PIECE_S * self._rate)), MOST_SAMPLES)
        for first in range(0, len(block), step):
            piece = block[first : first + step]
            if not self._source.replays:
                self._spool.append(self.stream.n_samples, piece, self._source.counter, self._source.heard)
            if self.watch is not None:
                self.watch(self.stream.n_samples, piece)
            before = self.stream.n_samples
            self._tell(self.stream.push(piece))
            if before // (NOISE_S * self._rate) < self.stream.n_samples // (NOISE_S * self._rate):
                self._look_at_the_noise()

    def _look_at_the_noise(self):
        """Say once that the noise is unusual, and once that it is as it was."""
        problems = self.stream.noise_problems()
        if bool(problems) != self.noisy:
            self.noisy = bool(problems)
            what = {"what": "noise", "problems": problems} if problems else {"what": "noise as usual"}
            self._ledger.append({**what, "sample": self.stream.n_samples})
            for text in problems:
                logging.getLogger(__name__).warning("at %.0f s: %s", self.stream.n_samples / self._rate, text)

    def _tell(self, events):
        """Write events into the journal, but for those that a restart finds again, and wake the outputs."""
        lines: list[dict] = []
        for row in range(len(events)):
            line = _line(self._told + len(lines), events, row, self.stream.n_samples)
            if not self._is_known(line):
                lines.append(line)
        for number, line in enumerate(lines, start=1):
            self._journal.append(line, wait=number < len(lines))
        self._told += len(lines)
        self.recent.extend(lines)
        for delivery in self._deliveries if lines else ():
            delivery.wake()
        if self._known:  # what is not found again where all is decided
            self._known = [line for line in self._known if line["sample"] >= self.stream.decided_samples - 1]
        # A span that reaches the edge of the search may go on.
        while self.stream.unseen and (self.ended or self.stream.unseen[0][1] < self.stream.decided_samples):
            self._account(*self.stream.unseen.pop(0))

    def _is_known(self, line):
        """Whether a restart finds an event of the journal again: its type at its time. Where samples were lost,
        within its refractory period will do, and the ledger notes it."""
        name = line["trial_type"]
        period = self.stream.detector.refractory_s.get(name) or 0.0
        for reach in (1 / self._rate, period):
            for k, known in enumerate(self._known):
                if known["trial_type"] == name and abs(known["onset"] - line["onset"]) < reach:
                    if reach == period:
                        self._ledger.append({"what": "found otherwise", "was": known["id"], "is": line})
                    del self._known[k]
                    return True
        return False

    def _account(self, start, stop):
        if stop > self._accounted:
            self._accounted, start_s, stop_s = stop, start / self._rate, stop / self._rate
            line = {"what": "unseen", "start": start, "stop": stop, "start_s": start_s, "stop_s": stop_s}
            self._ledger.append(line)
            self.gaps.append((start_s, stop_s))

    def _look_at_the_clock(self):
        """What is due: the state, the ledger, a warning that the reader falls behind."""
        self._source.taken()
        now = time.monotonic()
        if self._source.speed:
            signal_s = self.stream.n_samples / self._rate / self._source.speed
            silent_s = now - self._taken
            self._alarm(self._lag.update(now, signal_s) if signal_s else silent_s, silent_s)
        if now - self._counted[0] > COUNT_S:
            self._count(now)
        if now - self._saved > SAVE_S:
            self._save()
        if any(delivery.reader_left for delivery in self._deliveries):
            self.stop()

    def _alarm(self, behind_s, silent_s):
        """Say once that samples come late, and why; and once that they are in time again."""
        if (behind_s > self.lag_alarm_s) == self.late:
            return
        self.late = not self.late
        what = ("silent" if silent_s > behind_s / 2 else "behind") if self.late else "in time"
        self._ledger.append({"what": what, "lag_s": behind_s, "sample": self.stream.n_samples})
        why = {"silent": "nothing comes from the source", "behind": "this machine or the line is too slow"}
        if self.late:
            logging.getLogger(__name__).warning("%.1f s behind real time: %s", behind_s, why[what])

    def _count(self, now):
        """A line in the ledger where something more was lost, or decided in haste."""
        counts = vars(self._source.counts) if self._source.counts else {}
        losses = {name: n for name, n in counts.items() if name != "records"} | {"hasty": self.stream.hasty}
        if any(n != self._counted[1].get(name, 0) for name, n in losses.items()):
            self._ledger.append({"what": "losses", "sample": self.stream.n_samples, **losses})
        self._counted = now, losses

    def _save(self):
        counter, heard = self._source.counter, self._source.heard
        values = self.stream.state() | {
            "known": self._told - len(self._known),
            "counter": -1 if counter is None else counter,
            "heard": heard or 0.0,
        }
        with replace_file(self.folder / "state.npz") as path, open(path, "wb") as file:
            np.savez(file, **values)
        self._spool.clear()
        self._saved = time.monotonic()

    def _close(self, whole):
        """Keep what is there, and let the outputs have the rest."""
        try:
            if whole and self.ended:
                self._ledger.append({"what": "end", "sample": self.stream.n_samples, "events": self._told})
            elif whole:
                self._save()
                self._source.taken()
            for delivery in self._deliveries if self.ended else ():
                while not self._stop.is_set() and not delivery.finish(0.2) and delivery.waits:
                    pass  # a slow reader gets all, unless somebody stops this
            late = [d.name for d in self._deliveries if not d.finish(FINISH_S) and not d.reader_left]
            if late and whole:
                text = f"not all events were delivered; they stand in {self._journal.path}"
                raise WriteError(f"{', '.join(late)}: {text}")
        finally:
            self._spool.close()
            self._lock.close()


class Spool:
    """Samples since the last state, in a file that a kill can only cut."""

    def __init__(self, path: Path, n_channels: int):
        self._path, self._n_channels = path, n_channels
        self._file = open(path, "ab")

    def append(self, start: int, block: np.ndarray, counter: int | None, heard: float | None) -> None:
        """Keep samples from ``start`` on."""
        lost = bool(np.isnan(block).all())
        header = RECORD.pack(start, len(block), lost, -1 if counter is None else counter, heard or 0.0)
        self._file.write(header if lost else header + np.ascontiguousarray(block, dtype="<f4").tobytes())
        self._file.flush()

    def records(self) -> Iterator[tuple[int, np.ndarray, int | None, float | None]]:
        """Start, samples, counter and time of each record, but for one that is cut."""
        with open(self._path, "rb") as file:
            while len(header := file.read(RECORD.size)) == RECORD.size:
                start, n, lost, counter, heard = RECORD.unpack(header)
                if n > MOST_SAMPLES:
                    raise DataError(f"{self._path} is damaged: a record of {n} samples")
                data = b"" if lost else file.read(4 * n * self._n_channels)
                if not lost and len(data) < 4 * n * self._n_channels:
                    return
                shape = (n, self._n_channels)
                block = np.full(shape, np.nan, np.float32) if lost else np.frombuffer(data, "<f4").reshape(shape)
                yield start, block, None if counter < 0 else counter, heard or None

    def clear(self) -> None:
        """All is in the state now."""
        self._file.truncate(0)

    def close(self) -> None:
        """No more is kept."""
        self._file.close()


class Lag:
    """How far a reader is behind real time: how much later samples come than at best in the last ten minutes.

    >>> lag = Lag()
    >>> [lag.update(now, signal_s) for now, signal_s in [(100.0, 0.0), (101.0, 1.0), (104.0, 1.5)]]
    [0.0, 0.0, 2.5]
    """

    def __init__(self):
        self._best: collections.OrderedDict[int, float] = collections.OrderedDict()
        self.behind_s = 0.0

    def update(self, now: float, signal_s: float) -> float:
        """Seconds behind, at the time ``now`` with ``signal_s`` seconds of signal taken."""
        minute, offset = int(now // 60), now - signal_s
        self._best[minute] = min(offset, self._best.get(minute, offset))
        while len(self._best) > LAG_MINUTES:
            self._best.popitem(last=False)
        self.behind_s = offset - min(self._best.values())
        return self.behind_s


def open_session(
    detector: Detector,
    source: str,
    state: str | Path,
    outputs=(),
    channels=None,
    units=None,
    format: str = "packets",
    scale=1.0,
    speed: float = 0.0,
    lag_alarm_s: float = LAG_ALARM_S,
    give_up_s: float | None = None,
    block_s: float = BLOCK_S,
    look_ahead_s: float | None = None,
    limit_s: float | None = None,
    match_channels: str = "name",
    adapt: bool = False,
    read=read_recording,
) -> Session:
    """A session from addresses; its `Session.run` detects until the signal ends.

    Parameters
    ----------
    detector : from :func:`evlib.fit` or :func:`evlib.load_detector`
    source : see :func:`open_source`
    state : folder where the session keeps what it needs to go on
    outputs : addresses, see :func:`open_output`
    channels : names of the channels that come, in their order; default: those of the source, or of the detector
    units : their units, one word for all or one for each; default: those of the source, or of the detector
    format : packets, packets-float32, int16, float32 or text: how samples stand in the bytes
    scale : what a number of the wire is multiplied with
    speed : of a recording that is replayed, times real time; 0: as fast as can be
    lag_alarm_s : seconds behind real time from which a warning is given
    give_up_s : end the signal after so many seconds without data; default: wait for ever
    block_s : seconds that are searched at a time
    look_ahead_s : wait only so many seconds after a block, at some cost in accuracy; default: for all that decides
    limit_s : decide in haste what has waited for so many seconds for the refractory rule; default: ten of the longest
        periods, or 0 with ``look_ahead_s``
    match_channels : "name": channels are found by their names; "position" where they have other names
    adapt : templates follow slow changes of what events look like
    """
    require_instance(Detector, "from fit or load_detector", detector=detector)
    n_channels = len(channels or detector.channels or detector.whitener.taps)
    rate = detector.sampling_rate_hz
    require_choice(FORMATS, format=format)
    opened = open_source(source, FORMATS[format](n_channels), rate, scale, speed, give_up_s, read)
    options = {"channels": channels, "units": units, "block_s": block_s, "look_ahead_s": look_ahead_s}
    options |= {"limit_s": limit_s, "match_channels": match_channels, "adapt": adapt}
    return Session(detector, opened, state, outputs, lag_alarm_s, **options)


def _line(number, events, row, n_samples):
    """An event as an object of JSON: its number, columns as in an event table, and how long it waited."""
    line = {
        "id": number,
        "onset": float(events.onset_s[row]),
        "trial_type": events.names[events.type[row]],
        "sample": int(events.sample[row]),
        "fraction": float(events.fraction[row]),
        "score": float(events.score[row]),
        "sigma_s": float(events.sigma_s[row]),
        "waited_s": n_samples / events.sampling_rate_hz - float(events.onset_s[row]),
    }
    return {name: value for name, value in line.items() if value == value}  # NaN is no JSON


def read_journal(folder: str | Path) -> Events:
    """The events of a session so far, or of one that has ended, in order of time.

    Raises
    ------
    DataError : no folder of a session, or a damaged one
    """
    journal, ledger = (AppendOnlyLog(Path(folder) / name).lines for name in ("events.jsonl", "ledger.jsonl"))
    try:
        start = next(line for line in ledger if line.get("what") == "start")
        names, rate = start["names"], start["sampling_rate_hz"]
        onset = [line["sample"] / rate + line["fraction"] / rate for line in journal]
        score, sigma_s = ([line.get(name, np.nan) for line in journal] for name in ("score", "sigma_s"))
        return Events.from_seconds(onset, [line["trial_type"] for line in journal], rate, names, score, sigma_s)
    except (StopIteration, KeyError, TypeError, ValueError) as error:
        raise DataError(f"{folder} is no folder of a session, or damaged: {error!r}") from error
