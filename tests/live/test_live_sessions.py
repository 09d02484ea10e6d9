"""`evlib stream` end to end, with real lines, brokers and layers: cut, killed and started again, it loses nothing."""

import base64
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from required import missing

import evlib
from evlib.live import session as sessions
from evlib.live.frames import HEADER, MAGIC, TEXT_RECORDS
from evlib.live.session import Lag, Session, Spool, open_session, read_journal
from evlib.live.sources import Replay, Source, address
from evlib.signals.errors import DataError, OptionError, UnitError
from evlib.signals.synthetic import make_templates

SCALE = 1 / 256  # of the numbers of 16 bits on the wire


@pytest.fixture(scope="module")
def simulations():
    return [evlib.make_recording(make_templates(3, seed=4), 40.0, snr=8.0, seed=seed) for seed in (1, 2)]


@pytest.fixture(scope="module")
def detector(simulations):
    return evlib.fit([tuple(simulations[0])], "matched_filter", seed=3, progress=False)


@pytest.fixture(scope="module")
def saved(detector, tmp_path_factory):
    path = tmp_path_factory.mktemp("detector") / "detector.ckpt"
    detector.save(path)
    return path


@pytest.fixture(scope="module")
def wire(simulations):
    """A signal as whole numbers of 16 bits, as sensors send it."""
    return np.clip(np.round(simulations[1].recording.read() / SCALE), -32768, 32767).astype("<i2")


@pytest.fixture(scope="module")
def whole(detector, wire):
    """The events of the whole signal."""
    return evlib.detect(detector, evlib.Recording(wire.astype(np.float32) * SCALE, 2000.0, detector.channels))


def packets(wire, first=0):
    return [
        HEADER.pack(MAGIC, first + k, TEXT_RECORDS) + wire[TEXT_RECORDS * k : TEXT_RECORDS * (k + 1)].tobytes()
        for k in range(len(wire) // TEXT_RECORDS)
    ]


def same(found, whole, outside=()):
    """Equal events outside of spans of seconds, and none that stands there twice."""
    for start, stop in outside:
        found, whole = (e[(e.onset_s < start) | (e.onset_s > stop)] for e in (found, whole))
    assert len(found) == len(whole) > 40
    assert found.type_names == whole.type_names
    np.testing.assert_allclose(found.time_samples, whole.time_samples, atol=0.01)


def ledger(folder, what):
    lines = [json.loads(line) for line in (folder / "ledger.jsonl").read_text().splitlines()]
    return [line for line in lines if line["what"] == what]


class Server:
    """A TCP server that sends pieces to whoever connects, one connection after another."""

    def __init__(self, *connections):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"tcp://127.0.0.1:{self.listener.getsockname()[1]}"
        self.received = b""
        self.thread = threading.Thread(target=self.serve, args=[connections], daemon=True)
        self.thread.start()

    def serve(self, connections):
        for pieces in connections:
            line, _ = self.listener.accept()
            with line:
                for piece in pieces:
                    line.sendall(piece)
        self.listener.close()


def test_packets_over_tcp_with_a_lost_connection_and_a_gap(detector, wire, whole, tmp_path):
    """The line is cut inside of a packet; 400 packets (2 s) never come; the events outside are those of the whole."""
    data = packets(wire)
    server = Server([b"".join(data[:3000])[:-5]], [b"".join(data[3400:])])
    session = open_session(detector, server.address, tmp_path, scale=SCALE, give_up_s=0.5)
    session.run()
    assert session.status()["counts"] | {"records": 0} == dict(
        records=0, torn=1, repeated=0, reordered=0, lost=4010, restarts=0
    )
    found = read_journal(tmp_path)
    same(found, whole, [(14.9, 17.1)])
    (gap,) = ledger(tmp_path, "unseen")
    assert (gap["start"], gap["stop"]) == (29_990, 34_000)
    assert not len(found.within(29_990, 34_000))
    assert ledger(tmp_path, "losses")[-1]["lost"] == 4010 and ledger(tmp_path, "end")


def test_numbers_without_a_counter_get_a_gap_by_the_clock(detector, wire, tmp_path):
    server = Server([wire[:20_000].tobytes()], [wire[20_000:40_000].tobytes()])
    session = open_session(detector, server.address, tmp_path, format="int16", scale=SCALE, give_up_s=0.5)
    session.run()
    lost = session.status()["counts"]["lost"]
    assert session.status()["signal_s"] == pytest.approx(20 + lost / 2000)
    assert lost < 10_000  # the line was away for a moment


def test_lines_of_text_over_a_serial_line(detector, wire, whole, tmp_path):
    pytest.importorskip("serial")
    master, slave = os.openpty()
    path = os.ttyname(slave)
    session = open_session(detector, f"serial:{path}?baud=921600", tmp_path, format="text", scale=SCALE, give_up_s=1.0)

    def send():
        time.sleep(0.5)
        for k, piece in enumerate(wire.reshape(-1, TEXT_RECORDS, 6)):
            os.write(master, b"%d:" % k + base64.b64encode(piece.tobytes()) + b"\r\n")

    threading.Thread(target=send, daemon=True).start()
    session.run()
    same(read_journal(tmp_path), whole)
    os.close(master), os.close(slave)


def evlib_stream(saved, *arguments, **options):
    return subprocess.Popen([sys.executable, "-m", "evlib.cli", "stream", saved, *map(str, arguments)], **options)


def test_killed_and_started_again_nothing_is_lost_or_doubled(saved, detector, wire, whole, tmp_path):
    """Standard input comes from a program that goes on while nobody listens: those samples are a gap, no others."""
    data, cut, folder, output = packets(wire), 4000, tmp_path / "state", tmp_path / "found.jsonl"
    arguments = ["-", "-o", output, "--state", folder, "--scale", SCALE]
    first = evlib_stream(saved, *arguments, stdin=subprocess.PIPE)
    first.stdin.write(b"".join(data[:cut]))
    first.stdin.flush()
    wait_for(lambda: taken(folder) == 40_000)
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    before = read_journal(folder)
    assert 5 < len(before) < len(whole)
    second = evlib_stream(saved, *arguments, stdin=subprocess.PIPE)
    second.communicate(b"".join(data[cut + 200 :]))
    assert second.returncode == 0
    same(read_journal(folder), whole, [(19.9, 21.1)])
    (restart,), (gap,) = ledger(folder, "restart"), ledger(folder, "unseen")
    assert restart["sample"] == restart["from_spool"] == 40_000
    assert (gap["start"], gap["stop"]) == (40_000, 42_000)
    assert not ledger(folder, "found otherwise")
    ids = [json.loads(line)["id"] for line in output.read_text().splitlines()]
    assert ids == list(range(len(ids))) and len(ids) == len(read_journal(folder))


@pytest.mark.parametrize("seed", range(3))
def test_stops_anywhere_go_on_as_if_nothing_had_been(detector, wire, whole, tmp_path, seed):
    """A crash is one of a hundred pushes that raises; what was received is not asked for again."""
    rng, sent, recording = np.random.default_rng(seed), 0, wire.astype(np.float32) * SCALE

    class Crash(Exception):
        pass

    class Line(Source):
        def blocks(self, start=0):
            nonlocal sent
            while sent < len(recording):
                n = int(rng.integers(1, 3000))
                block, sent = recording[sent : sent + n], sent + n
                yield block
                if rng.random() < 0.2:
                    yield recording[:0]
                if rng.random() < 0.1:
                    raise Crash

    ended = False
    while not ended:
        session = Session(detector, Line(), tmp_path)
        session._saved -= rng.integers(0, 12)  # seconds: so that states are as old as it happens
        with contextlib.suppress(Crash):
            session.run()
        ended = session.ended
    same(read_journal(tmp_path), whole)
    assert not ledger(tmp_path, "found otherwise")


def test_a_slow_reader_gets_every_event_and_a_dead_output_is_made_up_for(saved, wire, whole, tmp_path):
    """Nobody reads standard output until the signal has ended; a server for events is there only the second time."""
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    listener.close()
    folder = tmp_path / "state"
    arguments = ["-", "-o", "-", "-o", f"tcp://127.0.0.1:{port}", "--state", folder, "--scale", SCALE]
    first = evlib_stream(saved, *arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    first.stdin.write(b"".join(packets(wire[:40_000])))
    first.stdin.flush()
    wait_for(lambda: taken(folder) == 40_000)
    first.terminate()  # the signal has not ended
    told = first.stdout.read()
    first.wait()
    assert len(told.splitlines()) == len(read_journal(folder))
    received = []

    def serve():
        with socket.create_server(("127.0.0.1", port)) as server:
            line, _ = server.accept()
            with line:
                while data := line.recv(4096):
                    received.append(data)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    second = evlib_stream(saved, *arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    told += second.communicate(b"".join(packets(wire[40_000:], first=4000)))[0]
    thread.join(10)
    journal = [json.loads(line)["id"] for line in (folder / "events.jsonl").read_text().splitlines()]
    assert [json.loads(line)["id"] for line in told.splitlines()] == journal
    assert [json.loads(line)["id"] for line in b"".join(received).splitlines()] == journal
    same(read_journal(folder), whole)


def taken(folder):
    """Samples that a session has in its state and its spool."""
    if not (folder / "state.npz").exists():
        return 0
    with np.load(folder / "state.npz") as state:
        ends = [int(state["n_samples"])]
    return max(ends + [start + len(block) for start, block, *_ in Spool(folder / "spool.bin", 6).records()])


def wait_for(condition, seconds=60.0):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it did not happen"
        time.sleep(0.05)


class Broker:
    """Debian's mosquitto on a port of its own, which keeps what it has when it is stopped."""

    def __init__(self, folder):
        program = shutil.which("mosquitto") or shutil.which("/usr/sbin/mosquitto")
        self.program = program or missing("mosquitto", "install mosquitto to run this test")
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.configuration = folder / "mosquitto.conf"
        self.configuration.write_text(
            f"listener {self.port} 127.0.0.1\nallow_anonymous true\npersistence true\n"
            f"persistence_location {folder}/\nmax_queued_messages 0\nuser root\n"
        )
        self.start()

    def start(self):
        log = subprocess.DEVNULL
        self.process = subprocess.Popen([self.program, "-c", self.configuration], stdout=log, stderr=log)
        wait_for(lambda: _answers(self.port))

    def stop(self):
        self.process.terminate()
        self.process.wait()


def _answers(port):
    with socket.socket() as line:
        return line.connect_ex(("127.0.0.1", port)) == 0


def test_mqtt_with_a_broker_that_is_killed_and_a_stream_that_is_killed(saved, wire, whole, tmp_path):
    """Samples and events over one broker, which is stopped and started again in the middle; then the stream is killed,
    and while it is away its messages wait at the broker. Nothing is lost, and each event comes once."""
    mqtt = pytest.importorskip("paho.mqtt.client")
    broker, folder = Broker(tmp_path), tmp_path / "state"
    received = {}
    listener = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, "listener", clean_session=False)
    listener.on_connect = lambda client, *_: client.subscribe("events", 1)
    listener.on_message = lambda _c, _d, message: received.setdefault(json.loads(message.payload)["id"], message)
    logger = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2)
    for client in (listener, logger):
        client.reconnect_delay_set(1, 1)
        client.connect("127.0.0.1", broker.port)
        client.loop_start()
    host = f"mqtt://127.0.0.1:{broker.port}"
    arguments = [f"{host}/frame?qos=1", "-o", f"{host}/events", "--state", folder, "--scale", SCALE]
    stream = evlib_stream(saved, *arguments)
    data = [b"".join(packets(wire[k : k + 200], k // 10)) for k in range(0, len(wire), 200)]
    sent = []

    def send(first, last):
        sent.extend(logger.publish("frame", piece, 1) for piece in data[first:last])

    try:
        wait_for((folder / "ledger.jsonl").exists)
        time.sleep(2.0)  # subscribed
        send(0, 150)
        wait_for(lambda: taken(folder) == 30_000)
        broker.stop()
        send(150, 200)  # the logger's client keeps them
        broker.start()
        wait_for(lambda: taken(folder) == 40_000)
        stream.kill()
        stream.wait()
        send(200, 300)
        wait_for(lambda: all(message.is_published() for message in sent if message.rc == 0))
        stream = evlib_stream(saved, *arguments, "--give-up-s", "3")
        send(300, len(data))
        assert stream.wait(60) == 0
        found = read_journal(folder)
        same(found, whole)
        assert not ledger(folder, "unseen")
        wait_for(lambda: len(received) == len(found))
    finally:
        stream.kill()
        for client in (listener, logger):
            client.loop_stop()
        broker.stop()


def test_lab_streaming_layer_with_samples_that_never_come(detector, wire, whole, tmp_path):
    """An outlet whose time stamps jump by 1.5 s where 3,000 samples are missing; events go to another outlet."""
    pylsl = pytest.importorskip("pylsl")
    name = f"frame-{os.getpid()}"
    info = pylsl.StreamInfo(name, "Accelerometer", 6, 2000.0, pylsl.cf_float32, name)
    info.set_channel_labels(list(detector.channels))
    outlet, began = pylsl.StreamOutlet(info), pylsl.local_clock()
    signal = wire.astype(np.float32) * SCALE
    session = open_session(detector, f"lsl:{name}", tmp_path, [f"lsl:{name}-events"], give_up_s=2.0)
    runner = threading.Thread(target=session.run)
    runner.start()
    events = pylsl.StreamInlet(pylsl.resolve_byprop("name", f"{name}-events", timeout=20)[0])
    events.open_stream(timeout=10)
    assert outlet.wait_for_consumers(20)
    for start in range(0, len(signal), 1000):
        if not 30_000 <= start < 33_000:
            # A chunk has the time of its last sample.
            outlet.push_chunk(signal[start : start + 1000].copy(), began + (start + 999) / 2000.0)
    runner.join(60)
    found = read_journal(tmp_path)
    same(found, whole, [(14.9, 16.6)])
    (gap,) = ledger(tmp_path, "unseen")
    assert (gap["start"], gap["stop"]) == (30_000, 33_000)
    told = events.pull_chunk(timeout=2.0, max_samples=10_000)[0]
    assert [json.loads(text)["id"] for (text,) in told] == list(range(len(found)))


def test_lag_is_what_comes_later_than_at_best():
    lag = Lag()
    for second in range(900):  # the clock of the sensor is slow by 100 ppm: no lag
        assert lag.update(1000.0 + second * 1.0001, second) < 0.1
    assert lag.update(1903.0, 899.0) == pytest.approx(4.0, abs=0.1)


def test_a_reader_that_falls_behind_says_so_once(detector, wire, tmp_path, caplog):
    class Slow(Source):
        def blocks(self, start=0):
            for wait_s in (0.0, 0.0, 0.4, 0.0):
                time.sleep(wait_s)
                yield wire[:400].astype(np.float32)
                yield np.zeros((0, 6), np.float32)

    Session(detector, Slow(), tmp_path, lag_alarm_s=0.15).run()
    (line,) = ledger(tmp_path, "behind")
    assert 0.2 < line["lag_s"] < 5.0
    assert "behind real time" in caplog.text


def test_unusual_noise_is_said_once_and_when_it_is_over(detector, wire, tmp_path, monkeypatch):
    monkeypatch.setattr(sessions, "NOISE_S", 4.0)
    signal = np.concatenate([wire, wire]).astype(np.float32) * SCALE
    signal[60_000:110_000, 1] += np.random.default_rng(0).normal(0, 20 * signal[:, 1].std(), 50_000)
    recording = evlib.Recording(signal, 2000.0, detector.channels)
    first = Session(detector, Replay(recording), tmp_path)
    first.watch = lambda sample, block: first.stop() if sample > 80_000 else None
    first.run()
    assert not first.ended
    Session(detector, Replay(recording), tmp_path).run()  # what was said is not said again
    (line,), (over,) = ledger(tmp_path, "noise"), ledger(tmp_path, "noise as usual")
    assert 60_000 < line["sample"] < 90_000 and detector.channels[1] in line["problems"][0]
    assert 110_000 < over["sample"] < 150_000


def test_what_cannot_be_is_refused(detector, simulations, tmp_path):
    replay = Replay(simulations[1].recording)
    Session(detector, replay, tmp_path / "over").run()
    with pytest.raises(OptionError, match="has ended"):
        Session(detector, replay, tmp_path / "over")
    session = Session(detector, replay, tmp_path / "used")
    with pytest.raises(OptionError, match="in use"):
        Session(detector, replay, tmp_path / "used")
    session._close(True)
    with pytest.raises(OptionError, match="other options"):
        Session(detector, replay, tmp_path / "used", block_s=1.0)
    (tmp_path / "used" / "state.npz").write_bytes(b"nonsense")
    with pytest.raises(DataError, match="damaged"):
        Session(detector, replay, tmp_path / "used")
    with pytest.raises(UnitError, match="1000 samples per second"):
        Session(detector, Replay(simulations[1].recording.resample(1000.0)), tmp_path / "rate")
    with pytest.raises(DataError, match="no folder of a session"):
        read_journal(tmp_path / "nothing")
    for text in ("tcp://host", "mqtt://host:1883", "udp://host:1", "lsl:", "serial:", "mqtt://h/t?qos=high"):
        with pytest.raises(OptionError):
            address(text)


def test_a_full_disk_loses_no_event(detector, simulations, whole, tmp_path):
    """The journal cannot be written for once: the session ends, and the next one tells the event that failed."""
    recording = simulations[1].recording
    session, failed = Session(detector, Replay(recording), tmp_path), []
    append = session._journal.append

    def full(line, wait=False):
        if line["id"] == 7 and not failed:
            failed.append(line)
            raise OSError(28, "No space left on device")
        append(line, wait)

    session._journal.append = full
    with pytest.raises(OSError, match="No space"):
        session.run()
    Session(detector, Replay(recording), tmp_path).run()
    same(read_journal(tmp_path), evlib.detect(detector, recording))
    assert failed and not ledger(tmp_path, "found otherwise")


def test_a_long_gap_by_the_clock_can_be_stopped_and_goes_on(detector, wire, tmp_path):
    server = Server([wire[:2000].tobytes()], [wire[2000:4000].tobytes()])
    session = open_session(detector, server.address, tmp_path, format="int16", scale=SCALE, give_up_s=0.5)
    session._source.heard = began = time.time() - 300.0
    session.watch = lambda start, _: start > 60_000 and session.stop()
    session.run()
    assert 30 < session.status()["signal_s"] < 100
    session = open_session(detector, server.address, tmp_path, format="int16", scale=SCALE, give_up_s=0.5)
    went_on = time.time()
    session.run()
    assert session.status()["signal_s"] == pytest.approx(went_on - began, abs=5.0)
    assert session.ended and not len(read_journal(tmp_path).within(2000, 590_000))


def stopped_half_way(detector, data, folder, *outputs):
    """A session that was stopped after 27 s, without a state of its end."""
    server = Server([b"".join(data)])
    session = open_session(detector, server.address, folder, outputs, scale=SCALE, give_up_s=9.0)
    session._save = lambda: None
    session.watch = lambda start, _: start > 54_000 and session.stop()
    session.run()


def test_events_that_the_journal_lacks_are_told_whatever_became_of_the_samples(detector, wire, whole, tmp_path):
    """The power goes: what was received is lost but for a third, only the journal was on disk."""
    data = packets(wire)
    stopped_half_way(detector, data[:6000], tmp_path)
    assert len(read_journal(tmp_path)) > 5
    spool = (tmp_path / "spool.bin").read_bytes()
    (tmp_path / "spool.bin").write_bytes(spool[: len(spool) // 3])
    server = Server([b"".join(data[6000:])])
    open_session(detector, server.address, tmp_path, scale=SCALE, give_up_s=0.3).run()
    same_late, late = (events.within(62_000, 80_000) for events in (whole, read_journal(tmp_path)))
    assert late.type_names == same_late.type_names and len(late) > 5
    ids = [json.loads(line)["id"] for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    assert ids == list(range(len(ids)))


@pytest.mark.parametrize(
    ("name", "content", "error"),
    [
        ("state.npz", None, OptionError),
        ("spool.bin", b"\0" * 8 + b"\xff\xff\xff\x7f\1" + b"\0" * 16, DataError),
        ("events.jsonl", b'{"id": 0}\n', DataError),
        ("output-", b"nonsense", DataError),
    ],
)
def test_a_damaged_folder_is_refused(detector, wire, tmp_path, name, content, error):
    folder, output = tmp_path / "state", str(tmp_path / "found.jsonl")
    stopped_half_way(detector, packets(wire)[:6000], folder, output)
    (path,) = folder.glob(f"{name}*")
    path.unlink() if content is None else path.write_bytes(content)
    with pytest.raises(error):
        open_session(detector, "tcp://127.0.0.1:9", folder, [output], scale=SCALE)
