"""Wire formats: the cut of the bytes never matters; loss, repetition and order are counted exactly."""

import base64

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evlib.live.frames import COUNTERS, HEADER, MAGIC, PacketFrames, RawFrames, TextFrames

SIGNAL = np.arange(20 * 10 * 2, dtype="<i2").reshape(20, 10, 2)  # packets, records, channels


def packet(k, counter):
    return HEADER.pack(MAGIC, counter % COUNTERS, 10) + SIGNAL[k].tobytes()


def line(k, counter):
    return b"%d:" % (counter % COUNTERS) + base64.b64encode(SIGNAL[k].tobytes()) + b"\n"


FORMATS = [(PacketFrames, packet), (TextFrames, line)]


def parse(frames, pieces):
    blocks = [block for piece in pieces for block in frames.push(piece)] + frames.flush()
    return np.concatenate([np.empty((0, frames.n_channels), np.float32), *blocks])


@given(cuts=st.lists(st.integers(0, 900)), kind=st.sampled_from(["raw", "packets", "text"]))
def test_any_cut_of_the_bytes_gives_the_same_samples(cuts, kind):
    frames = {"raw": RawFrames, "packets": PacketFrames, "text": TextFrames}[kind](2)
    write = {"raw": lambda k, _: SIGNAL[k].tobytes(), "packets": packet, "text": line}[kind]
    data = b"".join(write(k, COUNTERS - 5 + k) for k in range(20))  # the counter starts again at 0
    ends = [0, *sorted(cuts), len(data)]
    found = parse(frames, [data[a:b] for a, b in zip(ends, ends[1:], strict=False)])
    np.testing.assert_array_equal(found, SIGNAL.reshape(-1, 2))
    assert (frames.counts.records, frames.counts.torn, frames.counts.lost) == (200, 0, 0)


@pytest.mark.parametrize("kind, write", FORMATS)
@given(lost=st.sets(st.integers(1, 18)), repeated=st.sets(st.integers(0, 19)))
def test_lost_packets_are_nan_and_repeated_ones_are_dropped(kind, write, lost, repeated):
    sent = [k for k in range(20) if k not in lost for _ in range(1 + (k in repeated))]
    frames = kind(2)
    found = parse(frames, [write(k, k) for k in sent])
    wanted = SIGNAL.astype(np.float32)
    wanted[sorted(lost)] = np.nan
    np.testing.assert_array_equal(found, wanted.reshape(-1, 2))
    assert (frames.counts.lost, frames.counts.repeated) == (10 * len(lost), len(repeated - lost))


@pytest.mark.parametrize("kind, write", FORMATS)
@given(first=st.integers(1, 18))
def test_swapped_packets_are_put_in_order(kind, write, first):
    order = list(range(20))
    order[first], order[first + 1] = order[first + 1], order[first]
    frames = kind(2)
    np.testing.assert_array_equal(parse(frames, [write(k, k) for k in order]), SIGNAL.reshape(-1, 2))
    assert (frames.counts.reordered, frames.counts.lost) == (1, 0)


@pytest.mark.parametrize("kind, write", FORMATS)
def test_torn_pieces_and_restarts_are_counted_and_survived(kind, write):
    frames = kind(2)
    found = parse(frames, [write(0, 0), b"junk in between\n", write(1, 1), write(2, 10**6), write(3, 10**6 + 1)[:-9]])
    np.testing.assert_array_equal(found, SIGNAL[:3].reshape(-1, 2))
    assert (frames.counts.torn, frames.counts.restarts) == (2, 1)


@pytest.mark.parametrize("kind, write", FORMATS)
def test_a_logger_that_counts_from_0_again_is_heard_and_the_clock_tells_what_is_missing(kind, write):
    frames = kind(2, window=0)
    frames.missing = lambda: 7
    frames.redelivered = True  # else the first packet that is young shows it
    data = [write(k % 20, 5000 + k) for k in range(20)] + [write(k % 20, k) for k in range(1100)]
    found = parse(frames, data)
    assert (frames.counts.repeated, frames.counts.restarts, frames.counts.lost) == (1000, 1, 7)
    assert len(found) == 200 + 7 + 10 * 100 and np.isnan(found[200:207]).all() and not np.isnan(found[207:]).any()


@pytest.mark.parametrize("kind, write", FORMATS)
def test_a_young_packet_shows_a_logger_that_began_anew(kind, write):
    frames = kind(2, window=0)
    frames.missing = lambda: 7
    found = parse(frames, [write(k % 20, 400 + k) for k in range(20)] + [write(k, k) for k in range(20)])
    assert (frames.counts.repeated, frames.counts.restarts, frames.counts.lost, len(found)) == (0, 1, 7, 407)


def test_a_packet_of_another_size_is_damage_and_takes_no_memory():
    frames = PacketFrames(2, window=0)
    found = parse(frames, [packet(0, 0), HEADER.pack(MAGIC, 9000, 65535), packet(1, 1)])
    np.testing.assert_array_equal(found, SIGNAL[:2].reshape(-1, 2))
    assert frames.counts.torn >= 1 and frames.counts.lost == 0
