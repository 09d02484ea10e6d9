"""The event browser without a browser: everything that its buttons do, and what it sends to the canvas."""

import json
from dataclasses import replace

import numpy as np
import pytest
from planted import make_bank, make_templates, plant, schedule

from evlib.detection.detector import Detector, detect
from evlib.inspection.browser import MANY_MARKS, EventBrowser
from evlib.inspection.keys import BROWSER_KEYS
from evlib.inspection.signal_view import SignalView
from evlib.signals.errors import DataError, OptionError, ShapeError, UnitError
from evlib.signals.events import Events
from evlib.signals.recording import Recording
from evlib.templates.whiten import Whitener

RATE = 2000.0
NAMES = ("bell_1", "bell_2", "clap")


def noise(duration_s=60, n_channels=2):
    signal = np.random.default_rng(0).standard_normal((int(RATE * duration_s), n_channels)).astype(np.float32)
    return Recording(signal, RATE, units="m/s2", name="noise <1>")


RECORDING = noise()
REFERENCE = Events.from_seconds(
    [5, 10, 20, 30, 30.5, 50], ["bell_1", "bell_2", "clap", "bell_1", "bell_1", "clap"], RATE, NAMES
)
# A hit, a disagreement at 10 s, a hit, a miss at 30 s, a hit and its double, a false alarm, a miss at 50 s.
ESTIMATED = Events.from_seconds(
    [5.001, 10.002, 20.0, 30.5, 30.9, 40.0],
    ["bell_1", "clap", "clap", "bell_1", "bell_1", "bell_2"],
    RATE,
    NAMES,
    score=[0.99, 0.8, 0.51, 0.95, 0.6, 0.7],
)


@pytest.fixture
def browser():
    return EventBrowser(RECORDING, REFERENCE, ESTIMATED, refractory_s={"default": None, "bell_1": 0.45})


def times(browser, kind, step="next"):
    """Where all jumps of one kind lead."""
    out = []
    while (row := getattr(browser, step)(kind)) is not None:
        start_s, stop_s = browser.signal.view
        assert start_s <= row["time_s"] <= stop_s
        marks = {mark["id"]: mark for mark in browser.signal.marks}
        assert marks[browser.signal.selected]["time_s"] == pytest.approx(row["time_s"])
        out.append(row["time_s"])
    return out


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("event", [5, 10, 10.002, 20, 30, 30.5, 30.9, 40, 50]),
        ("error", [10, 10.002, 30, 30.9, 40, 50]),
        ("least_certain", [20, 30.9, 40, 10.002, 30.5, 5]),
        ("refractory", [30.9]),
        ("disagreement", [10]),
    ],
)
def test_jumps_go_through_all_events_of_a_kind_and_back(browser, kind, expected):
    assert times(browser, kind) == pytest.approx(expected)
    last = browser.current
    assert browser.signal.message.startswith("no ") and browser.current == last
    assert times(browser, kind, "previous") == pytest.approx(expected[-2::-1])


def test_a_jump_begins_where_the_view_is_once_it_has_left_the_event(browser):
    browser.next("error")
    browser.signal.show(35, 45)
    assert browser.next("error")["time_s"] == 40
    browser.signal.show(22, 32)
    assert browser.previous("event")["time_s"] == 30.9


def test_filters_rule_marks_jumps_and_counts(browser):
    browser.filter(types="bell_1", outcomes=["miss", "false_alarm"])
    assert times(browser, "event") == pytest.approx([30, 30.9])
    assert browser.count("event") == len(browser.shown) == 2
    browser.signal.show(0, 60)
    assert [(m["time_s"], m["label"], m["kind"]) for m in browser.signal.marks] == [
        (30.0, "bell_1", "reference"),
        (30.9, "bell_1", "estimated"),
    ]
    browser.filter(score=(0.0, 0.65))
    assert browser.shown["score"].dropna().tolist() == [0.51, 0.6] and browser.shown["score"].isna().sum() == 3
    browser.filter()
    assert len(browser.shown) == len(browser.table) == 9
    # The buttons say the same as the method.
    toggle = browser._outcomes["hit"]
    assert toggle.description == "● hit 3"
    toggle.value = False
    assert set(browser.shown["outcome"]) == {"miss", "false_alarm"} and browser.count("error") == 6


def test_marks_show_outcome_by_colour_and_both_times_of_a_hit(browser):
    browser.signal.show(0, 60)
    hit = [mark for mark in browser.signal.marks if mark["id"] // 2 == 0]
    assert [(mark["kind"], mark["time_s"]) for mark in hit] == [("reference", 5.0), ("estimated", 5.001)]
    colours = {mark["note"]: mark["colour"] for mark in browser.signal.marks}
    assert len(set(colours.values())) == len(colours) == 3
    shapes = {mark["note"]: mark["shape"] for mark in browser.signal.marks}
    assert shapes == {"hit": "o", "miss": "v", "false alarm": "X"}
    assert [entry[::2] for entry in browser.signal.legend] == [("hit 3", "o"), ("miss 3", "v"), ("false alarm 3", "X")]
    assert len(browser.signal.landmarks) == 6
    json.dumps([browser.signal.marks, browser.signal.landmarks, browser.signal.legend], allow_nan=False)


def test_keys_buttons_and_clicks_do_what_the_methods_do(browser):
    for n, (key, kind) in enumerate(BROWSER_KEYS.items()):
        browser.signal.pressed = {"key": key, "count": n}
        assert browser.signal.message.startswith(f"{kind.replace('_', ' ')} 1 of")
        browser.current = -1
        browser.signal.show(0, 10)
    browser._next["error"].click()
    assert browser.table.iloc[browser.current]["time_s"] == 10
    mark = next(mark for mark in browser.signal.marks if mark["label"] == "bell_1" and mark["kind"] == "estimated")
    browser.signal.selected = mark["id"]
    assert browser.current == 0 and "bell_1" in browser._line.value and "+1.000 ms" in browser._line.value


def test_many_events_are_thinned_out_and_no_outcome_is_lost():
    rng = np.random.default_rng(1)
    reference = Events.from_seconds(np.sort(rng.uniform(0, 60, 5000)), rng.integers(0, 3, 5000), RATE, NAMES)
    browser = EventBrowser(RECORDING, reference, replace(reference, score=rng.random(5000))[rng.random(5000) < 0.9])
    browser.go_to(2345)
    browser.signal.show(0, 60)
    assert len(browser.signal.marks) < 8 * MANY_MARKS
    assert {mark["note"] for mark in browser.signal.marks} == set(browser.table["outcome"].str.replace("_", " "))
    assert browser.signal.selected in {mark["id"] for mark in browser.signal.marks}


@pytest.fixture(scope="module")
def detected():
    rng = np.random.default_rng(3)
    templates = make_templates(4, 3, RATE, seed=1)
    time, type, n = schedule(rng, 40, 4)
    taps = np.zeros((3, 101))
    taps[:, 50] = 1
    bank = make_bank(templates, 12.0)
    detector = Detector(Whitener(taps, np.zeros(3), RATE), bank, np.zeros(4), dict.fromkeys(bank.names, 0.1), -3.0)
    recording = Recording(plant(templates, time, type, 12.0, n, rng), RATE)
    return detector, recording, Events.from_seconds(time / RATE, type, RATE, bank.names)


def test_a_detector_draws_its_candidates_and_detects_where_nothing_is_given(detected):
    detector, recording, truth = detected
    browser = EventBrowser(recording, truth, detector=detector, view_s=2)
    found = detect(detector, recording)
    assert browser.table["estimated_s"].dropna().tolist() == sorted(found.onset_s)
    passing = [stem["time_s"] for stem in browser.signal.scores if stem["value"] >= 0]
    start_s, stop_s = browser.signal.view
    inside = found.onset_s[(found.onset_s >= start_s) & (found.onset_s <= stop_s)]
    assert set(np.round(inside, 6)) <= set(np.round(passing, 6))
    browser.filter(types=[truth.names[0]])
    assert {stem["label"] for stem in browser.signal.scores} <= {truth.names[0]}
    browser.signal.show(0, recording.duration_s)
    assert browser.signal.score_label and len(browser._rule) == len(browser.names)


def test_the_static_figure_shows_the_view(browser):
    bundle = browser._repr_mimebundle_()
    assert {"image/png", "text/plain", "application/vnd.jupyter.widget-view+json"} <= set(bundle)
    browser.next("error")
    axes = browser.figure().axes
    low, high = axes[1].get_xlim()
    assert low == pytest.approx(browser.signal.view[0], abs=0.1) and high == pytest.approx(
        browser.signal.view[1], abs=0.1
    )
    assert [label.get_text() for label in axes[0].get_yticklabels()] == ["reference", "estimated"]
    assert "bell_2" in [text.get_text() for text in axes[0].texts]


def test_one_table_alone_can_be_browsed():
    browser = EventBrowser(RECORDING, estimated=ESTIMATED)
    assert [row["name"] for row in browser.signal.rows] == ["estimated"]
    assert browser.next("event")["outcome"] == "not_judged" and browser.next("error") is None
    assert len(EventBrowser(RECORDING, REFERENCE).table) == 6
    empty = EventBrowser(RECORDING, REFERENCE, ESTIMATED[:0])
    assert empty.count("error") == 6 and EventBrowser(RECORDING, ESTIMATED[:0]).next() is None


def test_what_cannot_be_browsed_is_refused(browser, detected):
    with pytest.raises(OptionError, match="nothing to browse"):
        EventBrowser(RECORDING)
    with pytest.raises(UnitError, match="samples for seconds"):
        EventBrowser(RECORDING, Events.from_seconds([5000.0], ["bell_1"], RATE))
    with pytest.raises((ShapeError, DataError, UnitError), match="channels"):
        EventBrowser(RECORDING, REFERENCE, ESTIMATED, detected[0])
    with pytest.raises(OptionError, match="bell_9.*known: bell_1"):
        browser.filter(types=["bell_9"])
    with pytest.raises(OptionError, match="unknown outcome 'wrong'"):
        browser.filter(outcomes="wrong")
    with pytest.raises(OptionError, match="None stands for all"):
        browser.filter(types=[])
    with pytest.raises(OptionError, match="range of probabilities"):
        browser.filter(score=(50, 100))
    with pytest.raises(OptionError, match="kind must be one of"):
        browser.next("mistake")
    with pytest.raises(OptionError, match="row must be one of the 9"):
        browser.go_to(99)


def test_a_signal_view_stays_within_the_recording_and_sends_what_it_shows():
    view = SignalView(RECORDING, view_s=4)
    assert view.view == (0, 4) and view.channels == ["ch1", "ch2"] and view.units == ["m/s2", "m/s2"]
    for asked, got in (((58, 62), (56, 60)), ((-5, 500), (0, 60)), ((3, 3.0001), (2.99605, 3.00405))):
        view.show(*asked)
        assert view.view == pytest.approx(got)
    view.show(10, 11)
    first_s, step_s, bins = view.grid
    sent = np.frombuffer(view.data, "<f4").reshape(2, 2, bins)
    start = round(first_s * RATE)
    step = round(step_s * RATE)
    piece = RECORDING.signal[start : start + step * bins].reshape(bins, step, 2)
    np.testing.assert_array_equal(sent, np.stack([piece.min(1).T, piece.max(1).T]))
    view.set_highpass(20)
    assert np.frombuffer(view.data, "<f4").size == 4 * view.grid[2] and view.half[0] < 4
    for part in ((70, 80), (5, 5), (np.nan, 1), (-3, -1)):
        with pytest.raises(OptionError, match="nothing to show"):
            view.show(*part)
