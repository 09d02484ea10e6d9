"""A live signal gives the events of the whole recording, however it is cut; and goes on from a saved state."""

import numpy as np
import pytest
from required import some_slow

import evlib
from evlib.live.streaming import StreamingDetector
from evlib.scoring.refractory import find_violations
from evlib.signals.errors import OptionError, ShapeError
from evlib.signals.events import Events
from evlib.signals.synthetic import make_templates
from evlib.templates import drift
from evlib.training import frames as frame_training

OPTIONS = {
    "matched_filter": {},
    "lstm": {"hidden_size": 8, "max_epochs": 1},
    "fusion": {"hidden_size": 8, "max_epochs": 1},
}


@pytest.fixture(scope="module")
def simulations():
    return [evlib.make_recording(make_templates(3, seed=4), 60.0, snr=8.0, seed=seed) for seed in (1, 2)]


@pytest.fixture(scope="module", params=some_slow(OPTIONS, "matched_filter", "lstm"))
def detector(request, simulations):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(frame_training, "EPOCH_FRAMES", 2048)
        return evlib.fit([tuple(simulations[0])], request.param, seed=3, progress=False, **OPTIONS[request.param])


def blocks(signal, seed, most=9000):
    rng, at = np.random.default_rng(seed), 0
    while at < len(signal):
        n = int(rng.integers(0, most))
        yield signal[at : at + n]
        at += n


def in_order(parts):
    events = Events.concatenate(parts)
    return events[np.lexsort((events.type, events.time_samples))]


def same(first, second):
    assert first.type.tolist() == second.type.tolist() and len(first) > 10
    np.testing.assert_allclose(first.time_samples, second.time_samples, atol=0.01)
    np.testing.assert_allclose(first.score, second.score, atol=1e-3)


@pytest.mark.parametrize("seed", range(3))
def test_any_blocks_give_the_events_of_the_whole(detector, simulations, seed):
    """With a gap in the signal, within the stated time, and with a state that is taken and restored on the way."""
    signal = simulations[1].recording.read()
    signal[50_000:56_000] = np.nan
    signal[90_000:90_003, 2] = np.nan  # of one channel: it changes nothing far away
    whole = evlib.detect(detector, evlib.Recording(signal, 2000.0, simulations[1].recording.channels))
    stream, parts = StreamingDetector(detector), []
    for k, block in enumerate(blocks(signal, seed)):
        found = stream.push(block)
        assert (found.time_samples < stream.decided_samples + 1).all()
        late = stream.n_samples - len(block) - found.time_samples
        assert (late <= stream.latency_s * 2000).all()
        parts.append(found)
        if k % 5 == 2:
            state, stream = stream.state(), StreamingDetector(detector)
            stream.restore(state)
    unseen = list(stream.unseen)
    events = in_order([*parts, stream.flush()])
    same(events, whole)
    assert unseen == [(50_000, 56_000)]
    assert not len(events.within(50_010, 55_990))


def test_templates_that_drift_are_followed_alike(detector, simulations, monkeypatch):
    monkeypatch.setattr(drift, "STRETCH_S", 15.0)
    monkeypatch.setattr(drift, "LEAST_MOVE", 0.0)
    signal = simulations[1].recording.read()
    signal[:, :3] *= np.linspace(1.0, 2.0, len(signal), dtype=np.float32)[:, None]
    whole = evlib.detect(detector, evlib.Recording(signal, 2000.0, simulations[1].recording.channels), adapt=True)
    stream, parts = StreamingDetector(detector, adapt=True), []
    for k, block in enumerate(blocks(signal, 7, 30_000)):
        parts.append(stream.push(block))
        if k % 2:
            state, stream = stream.state(), StreamingDetector(detector, adapt=True)
            stream.restore(state)
    events = in_order([*parts, stream.flush()])
    same(events, whole)
    plain = evlib.detect(detector, evlib.Recording(signal, 2000.0, simulations[1].recording.channels))
    assert len(plain) != len(whole) or (plain.time_samples != whole.time_samples).any()


def test_look_ahead_bounds_the_latency_and_costs_little(detector, simulations):
    if detector.frames is not None:
        return
    recording, reference = simulations[1].recording, simulations[1].events
    stream, parts = StreamingDetector(detector, block_s=0.5, look_ahead_s=0.1), []
    for block in blocks(recording.read(), 0, 3000):
        parts.append(stream.push(block))
        assert (stream.n_samples - len(block) - parts[-1].time_samples <= 0.6 * 2000 + 1).all()
    events = in_order([*parts, stream.flush()])
    assert evlib.compare(reference, events).f1 > evlib.compare(reference, evlib.detect(detector, recording)).f1 - 0.1
    assert not len(find_violations(events, 2.0)[0])


def test_what_does_not_fit_is_refused(detector, simulations):
    stream = StreamingDetector(detector)
    with pytest.raises(ShapeError, match="transposed"):
        stream.push(np.zeros((6, 100)))
    with pytest.raises(OptionError, match="other options"):
        StreamingDetector(detector, block_s=2.0).restore(stream.state())
