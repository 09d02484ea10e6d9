"""Several streams: evidence adds up, clocks are found from common events, what one does not see costs its evidence."""

import numpy as np
import pytest
from required import some_slow

import evlib
from evlib.detection.clocks import _common_events, stream_clocks
from evlib.live.streaming import StreamingDetector
from evlib.signals.errors import DataError, OptionError
from evlib.signals.joined import Clock, Resampled, join_streams
from evlib.signals.recording import Recording
from evlib.signals.synthetic import make_recording, make_templates

# Rate and channels of each stream, and the refractory period: few kinds that come often.
RATES = {"frame": (1000.0, 3), "floor": (500.0, 2), "load": (200.0, 2)}
SNR = 5.0


def simulated(seed, duration_s=60.0):
    """Three sensors that see the same events, each in noise of its own and alone at an SNR of 5."""
    streams, events = {}, None
    for k, (name, (rate, channels)) in enumerate(RATES.items()):
        templates = make_templates(5, channels, rate, seed=40 + k)
        options = {"amplitude_spread": 0.0, "transients_per_s": 0.0, "schedule": "poisson", "refractory_s": 0.5}
        options |= {"mean_interval_s": 1.0, "sampling_rate_hz": rate, "seed": seed, "noise_seed": 100 * seed + k}
        streams[name], own = make_recording(templates, duration_s, SNR, **options)
        events = own if events is None else events
    return streams, events


def reclocked(stream, clock):
    """The stream as a sensor with another clock records it."""
    back = Clock(-clock.offset_s / (1 + clock.skew), 1 / (1 + clock.skew) - 1)
    signal = Resampled(stream, back, stream.sampling_rate_hz, stream.n_samples)[0 : stream.n_samples]
    return Recording(signal, stream.sampling_rate_hz, stream.channels)


@pytest.fixture(scope="module")
def learned():
    streams, events = simulated(1, 100.0)
    options = {"method": "matched_filter", "refractory_s": 0.5, "progress": False}
    alone, together = ([(join_streams(some), events)] for some in ({"frame": streams["frame"]}, streams))
    return evlib.fit(alone, **options), evlib.fit(together, **options)


@pytest.fixture(scope="module")
def judged():
    return simulated(2)


def f1(events, found):
    return evlib.compare(events, found, tolerance_s=0.005).f1


def test_evidence_adds_up(learned, judged):
    """Three sensors together against one alone, and against one at the sum of their signal-to-noise ratios."""
    single, fused = learned
    streams, events = judged
    alone = f1(events, evlib.detect(single, join_streams({"frame": streams["frame"]})))
    together = f1(events, evlib.detect(fused, join_streams(streams)))
    assert alone < 0.97 and together > alone + 0.02
    assert together > 0.98, "one sensor at an SNR of 8.7 is at 1.00"


@pytest.mark.parametrize(
    "clock", [Clock(0.3, 200e-6), *(pytest.param(one, marks=pytest.mark.slow) for one in (Clock(-0.7, -2e-3), Clock()))]
)
def test_clocks_are_found_from_common_events(learned, judged, clock):
    _, fused = learned
    streams, events = judged
    moved = streams | {"floor": reclocked(streams["floor"], clock)}
    found = stream_clocks(fused, join_streams(moved))
    assert set(found) == {"floor", "load"}
    assert found["floor"].offset_s == pytest.approx(clock.offset_s, abs=1e-3)
    assert found["floor"].skew == pytest.approx(clock.skew, abs=5e-6)
    for name, true in (("floor", clock), ("load", Clock())):
        assert abs(found[name].offset_s - true.offset_s) < 6 * found[name].offset_sd_s + 3e-4
        assert abs(found[name].skew - true.skew) < 6 * found[name].skew_sd
    before = f1(events, evlib.detect(fused, join_streams(streams)))
    assert f1(events, evlib.detect(fused, join_streams(moved, found))) > before - 0.02


@pytest.mark.parametrize("name", some_slow(list(RATES), "load"))
def test_a_stream_that_is_missing_for_a_while_costs_its_evidence_only(learned, judged, name):
    _, fused = learned
    streams, events = judged
    lost, rate = streams[name].read().copy(), streams[name].sampling_rate_hz
    lost[int(20 * rate) : int(40 * rate)] = np.nan
    whole = evlib.detect(fused, join_streams(streams))
    found = evlib.detect(fused, join_streams(streams | {name: Recording(lost, rate, streams[name].channels)}))
    inside = [table[(table.onset_s > 20) & (table.onset_s < 40)] for table in (events, found)]
    assert f1(*inside) > 0.9
    far = [table[(table.onset_s < 19) | (table.onset_s > 41)] for table in (whole, found)]
    assert np.array_equal(far[0].type, far[1].type)
    np.testing.assert_allclose(far[0].onset_s, far[1].onset_s, atol=1e-4)


@pytest.mark.slow
def test_where_a_stream_begins_changes_nothing(learned, judged):
    """A stream that was switched on two seconds before the others, by a clock that says so."""
    _, fused = learned
    streams, _ = judged
    early = np.concatenate([np.full((1000, 2), np.nan), streams["floor"].read()])
    moved = streams | {"floor": Recording(early, 500.0, streams["floor"].channels)}
    before = evlib.detect(fused, join_streams(streams))
    after = evlib.detect(fused, join_streams(moved, {"floor": Clock(2.0)}))
    assert np.array_equal(before.type, after.type)
    np.testing.assert_allclose(after.onset_s, before.onset_s, atol=1e-4)


def test_streaming_equals_batch(learned, judged):
    _, fused = learned
    streams, _ = judged
    joined = join_streams(streams)
    live, parts = StreamingDetector(fused), []
    for start in range(0, joined.n_samples, 7001):
        parts.append(live.push(joined.read(start, min(start + 7001, joined.n_samples))))
    parts.append(live.flush())
    found, wanted = evlib.Events.concatenate(parts), evlib.detect(fused, joined)
    assert np.array_equal(found.type, wanted.type)
    np.testing.assert_allclose(found.onset_s, wanted.onset_s, atol=1e-5)


def test_streams_without_common_events_are_not_put_on_one_clock(learned, judged):
    single, fused = learned
    streams, _ = judged
    others, _ = simulated(5)
    with pytest.raises(DataError, match="floor and frame have too few events in common"):
        stream_clocks(fused, join_streams(streams | {"floor": others["floor"]}))
    with pytest.raises(OptionError, match="several streams"):
        stream_clocks(single, join_streams({"frame": streams["frame"]}))


@pytest.mark.parametrize("apart_s", [0.3, 5.0, 60.0])
@pytest.mark.parametrize("share", [1.0, 0.5])
def test_a_line_is_found_however_rare_events_are(apart_s, share):
    """Half of the events of each stream are missed, as many false ones are found."""
    rng = np.random.default_rng(0)
    time = np.cumsum(rng.exponential(apart_s, 300)) + 17.0
    kind = rng.integers(0, 4, 300)
    tables = []
    for clock in (Clock(), Clock(-2.2, 3e-4)):
        some = rng.random(300) < share
        false = rng.uniform(time[0], time[-1], round(300 * (1 - share)))
        found = np.r_[clock.at(time[some]) + rng.normal(0, 2e-4, some.sum()), false]
        table = np.column_stack([found, np.r_[kind[some], rng.integers(0, 4, len(false))]])
        tables.append(table[np.argsort(table[:, 0])])
    found = Clock.from_markers(*_common_events(*tables))
    assert abs(found.offset_s + 2.2) < max(5 * found.offset_sd_s, 1e-4)
    assert abs(found.skew - 3e-4) < 5 * found.skew_sd < 1e-5
    assert _common_events(tables[0], np.column_stack([np.sort(rng.uniform(time[0], time[-1], 300)), kind])) is None
    assert _common_events(tables[0][:5], tables[1]) is None and _common_events(np.zeros((20, 2)), tables[1]) is None
