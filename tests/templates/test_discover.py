"""Discovery: the kinds that recur, no others, whatever the recordings; names and times from very few labels."""

import itertools

import numpy as np
import planted
import pytest
from hypothesis import given
from hypothesis import strategies as st

import evlib
from evlib.scoring.refractory import find_violations
from evlib.signals.errors import DataError, OptionError, UnitError
from evlib.signals.synthetic import add_events, coloured_noise, make_templates
from evlib.templates import discover as discovery
from evlib.templates.bank import TemplateBank
from evlib.templates.discover import Discovery

RATE = 2000.0


def found_in(*recordings, **options):
    return evlib.discover(list(recordings), progress=False, **options)


def noise(seed, duration_s=20.0):
    """Noise without any event, (n, 6)."""
    return coloured_noise(int(duration_s * RATE), 6, RATE, np.random.default_rng(seed))


def with_events(signal, templates, time_s, type, amplitude=15.0):
    """A recording of the signal with events in it, and the table of them."""
    order = np.argsort(time_s)
    table = evlib.Events.from_seconds(np.asarray(time_s)[order], np.asarray(type)[order], RATE, templates.names)
    add_events(signal, templates, table.type, table.time_samples, np.full(len(table), amplitude), RATE)
    return evlib.Recording(signal.astype(np.float32), RATE), table


def named(found, labels):
    """What was found under the names, and with the time origin, of the labels."""
    kind, offset = found.name(labels)
    type = np.full(len(found.names) + 1, -1)
    type[kind[kind >= 0]] = np.flatnonzero(kind >= 0)
    out = []
    for events in found.events:
        own, rate = type[events.type], events.sampling_rate_hz
        time = (events.time_samples + offset[own])[own >= 0]
        out.append(evlib.Events.from_seconds(time / rate, own[own >= 0], rate, labels[0].names))
    return out


def name_kinds(labels, events):
    """By templates so short that labels may be 20 ms away."""
    bank = TemplateBank(np.zeros((len(events.names), 40, 1)), 0, events.names)
    return Discovery(bank, [events], None).name([labels])


@pytest.fixture(scope="module")
def simulation():
    return evlib.make_recording(make_templates(4, seed=2), 40.0, snr=15.0, seed=2)


@pytest.fixture(scope="module")
def found(simulation):
    return found_in(simulation.recording)


@pytest.fixture(scope="module")
def uneven():
    """Three kinds that happen 24, 14 and 7 times."""
    templates = make_templates(3, seed=5)
    time, type = 0.5 + np.arange(45) * 0.8, np.array([1] * 24 + [2] * 14 + [0] * 7)
    rest = np.random.default_rng(3).permutation(45)
    return with_events(noise(6, 38.0), templates, time + np.random.default_rng(1).uniform(0, 0.1, 45), type[rest])


def test_finds_the_kinds_with_their_events(found, simulation):
    """Two labels of each kind name it as well as all do."""
    events, counts = simulation.events, found.counts()
    assert len(found.names) == 4 and counts.sum() == pytest.approx(len(events), abs=2)
    assert repr(found).startswith(f"Discovery(4 kinds: kind_01 {counts[0]}, kind_02 {counts[1]}, ")
    few = events[np.concatenate([np.flatnonzero(events.type == e)[:2] for e in range(4)])]
    for labels in (events, few):
        report = evlib.compare(events, *named(found, [labels]), tolerance_s=0.002)
        assert (report.per_type()["f1"] >= 0.95).all()


@pytest.mark.parametrize(("n_types", "seed"), [(1, 4), (3, 2), (4, 1)])
def test_as_many_kinds_as_there_are(n_types, seed):
    simulation = evlib.make_recording(make_templates(n_types, seed=seed), 30.0, snr=15.0, seed=seed)
    found = found_in(simulation.recording)
    assert len(found.names) == n_types
    assert evlib.compare(simulation.events, *named(found, [simulation.events])).f1 >= 0.95


def test_overlapping_events_come_apart():
    """Of three kinds two lie on each other every other time, 8 to 20 ms apart."""
    rng, start = np.random.default_rng(4), 0.5 + 2.6 * np.arange(14)
    second = start + np.where(np.arange(14) % 2, rng.uniform(0.008, 0.02, 14), 0.5)
    time_s = np.concatenate([start, second, start + 1.4])
    recording, events = with_events(noise(4, 38.0), make_templates(3, seed=1), time_s, np.repeat(np.arange(3), 14))
    found = found_in(recording, n_types=3)
    assert evlib.compare(events, *named(found, [events])).f1 >= 0.95


@pytest.mark.parametrize("seed", [0, 1])
def test_noise_alone_holds_no_kind(seed):
    with pytest.raises(DataError, match=r"nothing of about 0\.04 s recurs often enough in 20 s"):
        found_in(evlib.Recording(noise(seed).astype(np.float32), RATE))


def test_what_never_recurs_is_no_kind():
    """Forty events as strong as any, each of its own shape."""
    time_s = 0.5 + np.arange(40) * 0.7 + np.random.default_rng(1).uniform(0, 0.2, 40)
    recording, _ = with_events(noise(1, 30.0), make_templates(40, seed=1), time_s, np.arange(40))
    with pytest.raises(DataError, match="recurs"):
        found_in(recording)


def test_several_recordings_share_their_kinds():
    templates = make_templates(3, seed=2)
    parts = [evlib.make_recording(templates, 15.0 + 10 * k, snr=15.0, seed=8 + k) for k in range(2)]
    found = found_in(*(part.recording for part in parts))
    assert len(found.names) == 3 and len(found.events) == 2
    for part, table in zip(parts, named(found, [part.events for part in parts]), strict=True):
        assert evlib.compare(part.events, table).f1 >= 0.95
    # Labels of the first recording name what is in the second.
    first_only = named(found, [parts[0].events])
    assert evlib.compare(parts[1].events, first_only[1]).f1 >= 0.95


@pytest.mark.parametrize(("rate", "event_s"), [(400.0, 0.2), (1000.0, 0.08)])
def test_slower_events_at_lower_rates(rate, event_s):
    templates = make_templates(3, sampling_rate_hz=rate, seed=1)
    simulation = evlib.make_recording(templates, 60.0, 15.0, "poisson", 1, rate, mean_interval_s=4.0)
    found = found_in(simulation.recording, n_types=3, event_s=event_s)
    tables = named(found, [simulation.events])
    assert evlib.compare(simulation.events, *tables, tolerance_s=0.01).f1 >= 0.95


def test_the_most_frequent_kinds_come_first_and_are_kept(uneven):
    recording, events = uneven
    found, some = (found_in(recording, n_types=n_types, refractory_s=0.5) for n_types in (None, 2))
    assert found.names[:3] == ("kind_01", "kind_02", "kind_03") and found.counts()[:3].tolist() == [24, 14, 7]
    assert (np.diff(found.counts()) <= 0).all()
    assert found.name([events])[0].tolist() == [2, 0, 1]
    assert some.names == ("kind_01", "kind_02") and some.counts().tolist() == [24, 14]
    assert np.array_equal(some.bank.templates, found.bank.templates[:2])
    assert some.name([events])[0].tolist() == [-1, 0, 1]  # nothing stands for the rarest


@pytest.mark.slow
def test_the_seed_decides_which_moments_are_compared(simulation, monkeypatch):
    monkeypatch.setattr(discovery, "MAX_MOMENTS", 60)
    first, second = (found_in(simulation.recording, seed=5) for _ in range(2))
    assert np.array_equal(first.bank.templates, second.bank.templates)
    assert np.array_equal(first.events[0].time_samples, second.events[0].time_samples)
    assert evlib.compare(simulation.events, *named(first, [simulation.events])).f1 >= 0.95


def test_only_one_event_of_a_kind_in_a_refractory_period():
    """A kind that comes each second, against the rule of two: the rule holds in what is returned."""
    templates, time_s = make_templates(1, seed=3), 0.5 + np.arange(28) * 1.0
    recording, events = with_events(noise(1, 30.0), templates, time_s, np.zeros(28, int))
    for refractory_s in (0.5, 2.0):
        found = found_in(recording, refractory_s=refractory_s, n_types=1)
        (table,) = found.events
        assert table.labelled_spans.shape == (0, 2)
        assert len(find_violations(table, refractory_s)[0]) == 0
        assert len(table) == 28 if refractory_s == 0.5 else len(table) <= 14
        assert ((table.score > 0.5) & (table.score <= 1)).all()


@given(st.integers(1, 4), st.integers(1, 4), st.integers(0, 2**31))
def test_no_other_naming_gets_more_votes(n_types, n_kinds, seed):
    """Against every one-to-one naming there is."""
    rng = np.random.default_rng(seed)
    time, kind_time = np.sort(rng.uniform(100, 2000, 12)), np.sort(rng.uniform(100, 2000, 25))
    labels = planted.table(time, rng.integers(n_types, size=12), tuple(f"e{k}" for k in range(n_types)))
    names = tuple(f"kind_{k + 1:02d}" for k in range(n_kinds))
    found = planted.table(kind_time, rng.integers(n_kinds, size=25), names, score=rng.uniform(0.1, 1, 25))
    kind, offset = name_kinds(labels, found)
    votes = np.zeros((n_types, n_types + n_kinds))
    near = np.abs(labels.time_samples[:, None] - found.time_samples) <= 0.02 * RATE
    for label, row in np.argwhere(near):
        votes[labels.type[label], found.type[row]] += found.score[row]
    types = np.arange(n_types)
    best = max(votes[types, list(order)].sum() for order in itertools.permutations(range(n_types + n_kinds), n_types))
    has_kind = np.flatnonzero(kind >= 0)
    assert len(set(kind[has_kind])) == len(has_kind)  # no kind has two names
    assert votes[has_kind, kind[has_kind]].sum() == pytest.approx(best)
    assert (votes[has_kind, kind[has_kind]] > 0).all()
    assert (np.abs(offset) <= 0.02 * RATE).all() and (offset[kind < 0] == 0).all()


def test_offsets_are_samples_from_the_kind_to_the_label():
    """Their median: one wild label does not move them."""
    time, type = 500.0 + 700 * np.arange(15), np.arange(15) % 3
    labels = planted.table(time + np.r_[9.0, np.zeros(14)], type, ("a", "b", "c"))
    shift, kind_of = np.array([-17.25, 0.0, 22.5]), np.array([2, 0, 1])
    rows = type != 1  # nothing was found of "b"
    own, names = (time - shift[type])[rows], ("kind_01", "kind_02", "kind_03")
    found = planted.table(own, kind_of[type][rows], names, score=np.ones(rows.sum()))
    kind, offset = name_kinds(labels, found)
    assert kind.tolist() == [2, -1, 1] and offset.tolist() == [-17.25, 0.0, 22.5]


@pytest.mark.parametrize(("stop_s", "words"), [(0.5, r"0\.500 s is too short"), (1.2, "nothing of about .* recurs")])
def test_too_little_signal_is_refused(simulation, stop_s, words):
    with pytest.raises(DataError, match=words):
        found_in(simulation.recording.between(0, stop_s))


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"n_types": 0}, OptionError, "n_types must be a whole number"),
        ({"event_s": 40}, OptionError, "no event of that length recurs in .*milliseconds"),
        ({"event_s": float("nan")}, OptionError, "event_s"),
        ({"seed": -1}, OptionError, "seed must be a whole number"),
        ({"refractory_s": {"a": 2.0}}, OptionError, "one number for all kinds"),
        ({"refractory_s": -1}, OptionError, "refractory_s must not be negative"),
    ],
)
def test_bad_options_are_refused(simulation, options, error, words):
    with pytest.raises(error, match=words):
        found_in(simulation.recording, **options)


def test_recordings_that_differ_are_refused(simulation):
    recording = simulation.recording
    with pytest.raises(UnitError, match="for 2000 Hz, the recording has 1000 Hz.*one rate"):
        found_in(recording, recording.resample(1000.0))
    with pytest.raises(OptionError, match="at least one recording"):
        evlib.discover([], progress=False)
