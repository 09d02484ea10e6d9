"""validate names every planted fault, and finds none in good data."""

import re
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evlib.detection.prepare import _on_clock
from evlib.signals.errors import DataError, OptionError, UnitError
from evlib.signals.events import Events
from evlib.signals.recording import Recording
from evlib.signals.validate import CLIP_RUN_SAMPLES, CLIP_TOTAL_SAMPLES, validate

RATE = 2000


def noise(n_samples=20_000, n_channels=3):
    return np.random.default_rng(0).normal(size=(n_samples, n_channels)).astype(np.float32)


def beats(onset_s, type="a", rate=RATE, **options):
    onset_s = np.atleast_1d(onset_s)
    return Events.from_seconds(onset_s, [type] * len(onset_s), rate, **options)


@pytest.mark.parametrize("duration_s", [41.0, 491.0])
@pytest.mark.parametrize("regular", [True, False])
def test_signal_that_nobody_looked_at_is_named(duration_s, regular):
    rng, n = np.random.default_rng(1), 40
    onset_s = np.arange(n) + 0.5 if regular else np.sort(rng.uniform(0, 40, n))
    labels = beats(onset_s + (duration_s - 41.0), rate=100)  # the stretch lies at the end, or at the beginning
    recording = Recording(rng.normal(size=(int(100 * duration_s), 1)), 100)
    found = [problem.message for problem in validate(recording, labels).warnings]
    assert ["no label from 0 to 45" in text for text in found] == [True] * (duration_s == 491)
    labelled = beats(onset_s, rate=100, complete_spans_s=[(0.0, 40.0)])
    assert not validate(recording, labelled).problems


def test_a_note_among_the_labels_is_named():
    types = ["Recording starts", *["a"] * 16]
    labels = Events.from_seconds([0.2, *np.arange(1.0, 9.0, 0.5)], types, RATE)
    report = validate(Recording(noise(), RATE), labels)
    assert [problem.message.partition(" (")[0] for problem in report.warnings] == ["one label of 'Recording starts'"]
    assert not validate(Recording(noise(), RATE), labels.select(["a"])).problems


def test_durations_longer_than_the_recording_are_named():
    """Milliseconds for seconds; one that is cut off by the end is no slip."""
    lasts = np.array([0.3, 900.0, 400.0, 9.9])
    labels = beats([1.0, 3.0, 5.0, 9.0], duration_s=lasts)
    (problem,) = validate(Recording(noise(), RATE), labels).warnings
    assert problem.message.startswith(
        "2 labels last longer than the whole recording, the first is 'a' at 3 s, with 900"
    )
    assert not validate(Recording(noise(), RATE), beats([1.0, 9.0], duration_s=[0.3, 9.9])).problems


def test_good_data_has_no_problems():
    report = validate(
        Recording(noise(), RATE),
        beats([1.0, 3.0, 5.0]),
        sampling_rate_hz=RATE,
        names=["a", "b"],
        refractory_s=2.0,
        n_channels=3,
    )
    assert report.ok
    assert report.problems == ()
    assert str(report) == "no problems found"
    assert "no problems" in report._repr_html_()
    assert report.raise_if_errors() is report
    assert report.to_frame().empty


def changed(rows, channel, value, dtype=np.float32):
    signal = noise().astype(dtype)
    signal[rows, channel] = value
    return Recording(signal, RATE)


def clipped(sign):
    wave = 3 * np.sin(2 * np.pi * 23 * np.arange(600_000) / RATE)
    signal = noise(600_000) * 0.1
    signal[:, 1] = sign * np.minimum(signal[:, 1] + np.minimum(wave, 2.0), 1.5)
    return Recording(signal, RATE)


def added(rows, channel, value):
    signal = noise().astype(float)
    signal[rows, channel] += value
    return Recording(signal, RATE)


def tone(hz):
    return np.sin(2 * np.pi * hz * np.arange(20_000) / RATE)


def louder(times):
    """Noise of twenty seconds of which one channel changes its gain for six."""
    signal = noise(40_000)
    signal[16_000:28_000, 1] *= times
    return signal


GOOD = Recording(noise(), RATE)
NAN, FILLED = [18001, 18007, 19999], slice(4000, 5000)


@pytest.mark.parametrize(
    ("severity", "words", "arguments"),
    [
        ("warning", "ch2: 3 values are missing.* 9.000500 s .sample 18001", {"recording": changed(NAN, 1, np.nan)}),
        ("warning", "ch2: 3 values are missing.* 9.000500 s", {"recording": changed(NAN, 1, -np.inf)}),
        ("warning", "ch3: 1 spikes.*sample 7", {"recording": changed(7, 2, 1e300, float)}),
        ("error", "ch1: it has no value at all", {"recording": changed(slice(None), 0, np.nan)}),
        ("warning", "ch2: it does not change.* 0.5 s in 1 .*sample 4000", {"recording": changed(FILLED, 1, 0.0)}),
        ("warning", "ch2: it does not change.*0.5 s in 1", {"recording": changed(FILLED, 1, np.linspace(0, 1, 1000))}),
        ("warning", "ch3: 1 spikes.* 3.500000 s", {"recording": changed(slice(7000, 7002), 2, 300.0)}),
        ("warning", "ch1: 1 bursts or jumps", {"recording": added(slice(9000, None), 0, 100.0)}),
        ("warning", "ch2: hum of mains at 50 Hz.*1.4", {"recording": added(slice(None), 1, 2 * tone(50.0))}),
        ("warning", "ch3: hum of mains at 60 Hz", {"recording": added(slice(None), 2, tone(60.0))}),
        ("warning", "ch1: drift of ", {"recording": added(slice(None), 0, 0.1 * np.arange(20_000))}),
        ("warning", "ch2: noise is 10 times the usual", {"recording": Recording(louder(10.0), RATE)}),
        ("warning", "ch2: noise is 0.1", {"recording": Recording(louder(0.1), RATE)}),
        ("error", "ch2: constant: every value is 1000 ", {"recording": changed(slice(None), 1, 1000.0)}),
        ("warning", "ch2: looks clipped: .*largest value 1.5 in runs of 5", {"recording": clipped(1)}),
        ("warning", "ch2: looks clipped: .*smallest value -1.5 in runs of 5", {"recording": clipped(-1)}),
        ("warning", "different scales.*deviation of ch3", {"recording": Recording(noise() * [1, 1, 1e5], RATE)}),
        (
            "error",
            "wrong rate: 360 Hz was expected, 2000 Hz came.*resample.360",
            {"recording": GOOD, "sampling_rate_hz": 360},
        ),
        ("error", "6 channels were expected, 3 came", {"recording": GOOD, "n_channels": 6}),
        (
            "error",
            "unknown event name 'a' .2 events.; known: b, c",
            {"events": Events.from_seconds([1, 2, 3], ["b", "a", "a"], RATE), "names": ["b", "c"]},
        ),
        (
            "error",
            "2 of 5 events lie outside of the signal .0 to 10 s.; .*'a' at 10.000000 s",
            {"recording": GOOD, "events": beats([1, 2, 9.9995, 10.0, 11.0])},
        ),
        ("error", "1 of 2 events .*before 0 s", {"events": beats([-1, 2])}),
        (
            "error",
            "3 of 3.*samples, not seconds: divide them by 2000",
            {"recording": GOOD, "events": beats([2000.0, 5000.0, 9000.0])},
        ),
        (
            "warning",
            "seconds taken for samples",
            {"recording": GOOD, "events": Events([1, 3, 5], np.zeros(3), np.zeros(3, int), ["a"], RATE)},
        ),
        ("warning", "made at 360 Hz.*2000 Hz", {"recording": GOOD, "events": beats([1, 2], rate=360)}),
        (
            "error",
            "labelled spans: 1 of 2.*9.000000 to 12.000000 s",
            {"recording": GOOD, "events": beats([1, 2], complete_spans_s=[[0, 3], [9, 12]])},
        ),
        (
            "error",
            "2 events 'a' occur twice.*first at 3.000000 s",
            {"events": Events.from_seconds([1, 1, 2, 3, 3, 3], ["a", "b", "a", "a", "a", "a"], RATE)},
        ),
    ],
)
def test_each_fault_is_named(severity, words, arguments):
    report = validate(**arguments)
    assert [problem.severity for problem in report.problems] == [severity], str(report)
    assert re.search(words, str(report)), str(report)
    assert report.ok == (severity == "warning")


@pytest.mark.parametrize(
    "arguments",
    [
        {"recording": Recording(np.sin(0.06 * np.arange(20_000)) + 0.01 * noise(20_000, 1)[:, 0], RATE)},
        {"recording": Recording(noise() * [1, 30, 300] + [1e4, 0, 0], RATE)},
        {"recording": Recording(noise().astype(float) * [1, 1, 100] + [1e5, 0, 0], RATE)},  # an offset hides no spread
        {"recording": GOOD, "events": beats([1, 2], rate=1e6)},
        {"recording": GOOD, "events": beats([1, 2], complete_spans_s=[[0, 10]])},
        {"events": beats([1], names=["a", "unused"]), "names": ["a"]},
        {"events": beats([0, 2]), "refractory_s": {"a": 2.0, "c": 9.0}, "names": ["a", "c"]},
        {"events": beats([0, 2]), "refractory_s": {"default": 2.0}},
    ],
)
def test_what_is_right_is_not_called_a_fault(arguments):
    assert validate(**arguments).problems == ()


@given(st.lists(st.tuples(st.integers(0, 12), st.integers(1, 4)), min_size=1, max_size=8))
def test_clipped_samples_are_those_of_long_runs(runs):
    """Runs at the largest value, 1, with other values, that do not repeat, between them."""
    signal = np.concatenate([np.r_[np.ones(n), np.random.default_rng(n).uniform(-1, 0, gap)] for n, gap in runs])
    report, clipped = validate(Recording(signal, RATE)), sum(n for n, _ in runs if n >= CLIP_RUN_SAMPLES)
    assert bool(report.warnings) == (clipped >= CLIP_TOTAL_SAMPLES)
    assert clipped < CLIP_TOTAL_SAMPLES or f"{clipped} samples in all" in str(report)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4000), st.integers(0, 2)), max_size=30, unique=True), st.floats(0.001, 1.5))
def test_refractory_violations_against_brute_force(rows, period_s):
    events = Events([row[0] for row in rows], np.zeros(len(rows)), [row[1] for row in rows], ["a", "b", "c"], RATE)
    report = validate(events=events, refractory_s={"a": period_s, "b": 2 * period_s})
    expected = {}
    for k, period in ((0, period_s), (1, 2 * period_s)):
        times = sorted(row[0] / RATE for row in rows if row[1] == k)
        gaps = [late - early for early, late in zip(times, times[1:], strict=False)]
        period = np.ceil(period * RATE - 1e-6) / RATE  # a period is a whole number of samples
        short = [gap for gap in gaps if gap < period - 1.1e-6]
        if short:
            expected["abc"[k]] = (len(short), min(short))
    problems = [problem for problem in report.problems if "refractory period" in problem.message]
    counts = np.bincount([row[1] for row in rows], minlength=3)
    is_note = counts.max() >= 10 and (counts == 1).any()  # a kind with a single label is another warning
    assert len(problems) == len(expected) and len(report.problems) == len(expected) + is_note
    for problem, (name, (count, least_s)) in zip(problems, expected.items(), strict=True):
        assert problem.severity == "warning"
        assert f"{count} intervals between events '{name}'" in problem.message
        assert f"the closest pair is {least_s:.6f} s apart" in problem.message


def test_exactly_the_refractory_period_is_allowed_however_late():
    sample = 4000 * np.arange(5) + 10**9
    assert (
        validate(events=Events(sample, np.full(5, 0.3), np.zeros(5, int), ["a"], RATE), refractory_s=2.0).problems == ()
    )


def test_all_is_reported_at_once():
    signal = noise()
    signal[5, 0] = np.nan
    report = validate(Recording(signal, RATE), beats([1, 1.5, 20]), sampling_rate_hz=360, refractory_s=2.0)
    assert (len(report.errors), len(report.warnings), len(report.to_frame())) == (2, 2, 4)
    assert report.to_frame()["severity"].tolist() == [problem.severity for problem in report.problems]
    assert "<table" in report._repr_html_()
    with pytest.raises(DataError, match="wrong rate.*; events: 1 of 3 events"):
        report.raise_if_errors()


@pytest.mark.parametrize(
    ("error", "words", "arguments"),
    [
        (OptionError, "needs a recording", {}),
        (OptionError, "must be Recording, got ndarray", {"recording": np.zeros((5, 2))}),
        (OptionError, "must be Events, got list", {"events": [1, 2]}),
        (OptionError, "unknown event name .A. in refractory_s", {"events": beats([1]), "refractory_s": {"A": 1}}),
        (UnitError, "positive", {"recording": Recording(noise(), RATE), "sampling_rate_hz": -5}),
    ],
)
def test_refusals(error, words, arguments):
    with pytest.raises(error, match=words):
        validate(**arguments)


def test_memory_does_not_grow_with_the_signal():
    class Long:
        shape, dtype = (8_000_000, 2), np.dtype("float64")

        def __getitem__(self, rows):
            return np.random.default_rng(rows.start).standard_normal((rows.stop - rows.start, 2))

    tracemalloc.start()
    report = validate(Recording(Long(), RATE))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert report.problems == ()
    assert peak < 90e6  # the signal has 128 MB


@pytest.mark.parametrize(("old", "new"), [(100, 30), (2000, 360), (44100, 8000), (100, 33.3), (360, 2000)])
def test_a_label_on_the_last_sample_lies_inside_at_any_rate(old, new):
    signal = np.random.default_rng(0).normal(size=(10 * old, 2))
    recording = Recording(signal, old)
    events = Events.from_seconds([0.0, (10 * old - 1) / old], ["a", "b"], old, complete_spans_s=[[0, 10]])
    moved = recording.resample(new)
    for labels in (events, events.at_rate(new)):
        assert not validate(moved, labels).errors
        on_clock = _on_clock(labels, moved, 0, ("a", "b"))
        late_samples = moved.n_samples - 1 - on_clock.sample[-1]
        assert 0 <= late_samples <= max(0, new / old) and on_clock.is_labelled(on_clock.sample).all()
    late = Events.from_seconds([moved.duration_s], ["a"], 1e6)
    assert "outside of the signal" in str(validate(moved, late))
    with pytest.raises(DataError, match="outside of recording"):
        _on_clock(late, moved, 0, ("a",))
    behind = Events.from_seconds([1.0], ["a"], 1e6, complete_spans_s=[[0, moved.duration_s + 2 / new]])
    assert "outside of the signal" in str(validate(moved, behind))


def test_names_that_command_the_terminal_are_shown():
    names = ("a\x1b[2J", "b\u202e")
    recording = Recording(np.ones((4000, 2)), 2000, names, name="n\x07ight")
    shown = f"{validate(recording)} {recording!r}"
    with pytest.warns(UserWarning, match="by position") as caught:
        recording.like(("ch1", "ch2"))
    shown += str(caught[0].message)
    assert "\\x1b[2J" in shown and "\\x07" in shown and not set("\x1b\x07\u202e") & set(shown)


def test_what_is_said_of_all_channels_is_said_once():
    signal = np.random.default_rng(0).normal(size=(20_000, 8))
    signal[3000:5000] = 0
    report = validate(Recording(signal, RATE))
    assert len(report.problems) == 8
    (line,) = str(report).splitlines()
    assert line.startswith("warning: channels ch1, ch2, ch3, ch4, ch5, ch6 and 2 more: it does not change")
    signal[3000:5000, 1] = 0.1
    assert len(str(validate(Recording(signal[:, :2], RATE))).splitlines()) == 1


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_values_that_cannot_be_squared_stop_nothing():
    signal = np.random.default_rng(0).normal(size=(20_000, 2)) * (1e300, 1.0)
    assert validate(Recording(signal, RATE)) is not None


def test_a_rate_that_no_sensor_has_is_refused():
    for rate in (1e11, 1e-300):
        with pytest.raises(UnitError, match="must be a positive number in Hz, 1e-09 to 1e"):
            Recording(np.zeros((10, 1)), rate)
