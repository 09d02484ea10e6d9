"""Event tables: what they keep, what they refuse, and that a file gives back what was written."""

import warnings

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from evlib.signals.errors import DataError, OptionError, ShapeError, UnitError
from evlib.signals.events import SPAN_TYPE, Events, read_events, write_events

RATES = [2000.0, 360.0, 204.8, 44100.0]
tmp_ok = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
name = st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=8).filter(
    lambda text: text not in {"n/a", SPAN_TYPE}
)

extra_name = st.sampled_from(["value", "HED", "response time (s)", "Größe"])
extra_text = st.sampled_from(["n/a", "NaN", "007", "1.50", 'say "ah"', "a, b", "#7", "'", "Größe ²", '"'])


@st.composite
def tables(draw, rates=RATES):
    names = tuple(draw(st.lists(name, min_size=1, max_size=4, unique=True)))
    n = draw(st.integers(0, 12))

    def column(element):
        return np.array(draw(st.lists(element, min_size=n, max_size=n)))

    starts = draw(st.none() | st.lists(st.tuples(st.integers(0, 10**8), st.integers(1, 10**6)), max_size=4))
    spans = (
        None
        if starts is None
        else np.array([(start, start + length) for start, length in starts], dtype=int).reshape(-1, 2)
    )
    return Events(
        column(st.integers(-100, 10**8)).astype(int),
        column(st.floats(-0.5, 0.5, exclude_max=True) | st.just(0.0)).astype(float),
        column(st.integers(0, len(names) - 1)).astype(int),
        names,
        draw(st.sampled_from(rates)),
        duration_s=column(st.floats(0, 1e6) | st.just(np.nan)).astype(float),
        extra={key: column(extra_text).tolist() for key in draw(st.lists(extra_name, max_size=2, unique=True))},
        score=column(st.floats(0, 1) | st.just(np.nan)).astype(float),
        sigma_s=column(st.floats(0, 1) | st.just(np.nan)).astype(float),
        labelled_spans=spans,
    )


@tmp_ok
@given(events=tables())
def test_a_file_gives_back_what_was_written(events, tmp_path):
    path = tmp_path / "events.tsv"
    write_events(events, path)
    assert read_events(path).names == tuple(sorted(set(events.type_names))), "those that occur"
    again = read_events(path, names=events.names)
    spans = events.labelled_spans
    if len(events) or spans is not None:
        assert again.sampling_rate_hz == events.sampling_rate_hz
    # Two times within a microsecond of one sample may change places; otherwise every row is the same.
    microsecond = 1e-6 * events.sampling_rate_hz
    order, order_again = (
        np.lexsort((table.duration_s, table.sigma_s, table.score, table.type, table.sample))
        for table in (events, again)
    )
    np.testing.assert_array_equal(again.duration_s[order_again], events.duration_s[order])
    assert list(again.extra) == list(events.extra)
    np.testing.assert_array_equal(again.sample[order_again], events.sample[order])
    np.testing.assert_array_equal(again.type[order_again], events.type[order])
    np.testing.assert_array_equal(again.score[order_again], events.score[order])
    np.testing.assert_array_equal(again.sigma_s[order_again], events.sigma_s[order])
    np.testing.assert_allclose(np.sort(again.time_samples), np.sort(events.time_samples), atol=microsecond)
    if spans is None:
        assert again.labelled_spans is None
    else:
        np.testing.assert_array_equal(again.labelled_spans, spans)


@given(tables(), st.sampled_from(RATES))
def test_another_clock_and_back(events, rate):
    """Either way costs at most a billionth of a sample of the clock that is reached."""
    there, billionth = events.at_rate(rate), 1.1e-9
    np.testing.assert_allclose(there.onset_s, events.onset_s, rtol=1e-15, atol=billionth / rate)
    back = there.at_rate(events.sampling_rate_hz)
    np.testing.assert_array_equal(np.sort(back.type), np.sort(events.type))
    lost = billionth * (1 + events.sampling_rate_hz / rate)
    np.testing.assert_allclose(back.sample - events.sample + back.fraction, events.fraction, atol=lost)
    whole = events.fraction == 0
    np.testing.assert_array_equal(back.fraction[whole], 0)


def test_an_empty_span_says_that_nothing_is_labelled(tmp_path):
    none = np.zeros((0, 2), dtype=int)
    events = Events([5], [0.0], [0], ["a"], 2000, labelled_spans=none)
    write_events(events, tmp_path / "events.tsv")
    again = read_events(tmp_path / "events.tsv")
    assert again.labelled_spans.shape == (0, 2)
    assert not again.is_labelled([0, 5, 100]).any()
    assert events.at_rate(360).labelled_spans.shape == (0, 2)


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(1, 10)), max_size=6), st.integers(0, 30), st.integers(31, 70))
def test_spans_against_a_boolean_mask(spans, start, stop):
    events = Events(
        np.arange(70), np.zeros(70), np.zeros(70, int), ["a"], 100, labelled_spans=[(a, a + n) for a, n in spans]
    )
    mask = np.zeros(100, dtype=bool)
    for a, n in spans:
        mask[a : a + n] = True
    np.testing.assert_array_equal(events.is_labelled(np.arange(-5, 100)), np.r_[np.zeros(5, bool), mask])
    part = events.within(start, stop).shift(-start)
    np.testing.assert_array_equal(part.is_labelled(np.arange(stop - start)), mask[start:stop])
    np.testing.assert_array_equal(part.sample, np.arange(min(stop, 70) - start))


def test_rows_are_sorted_and_fractions_carried():
    events = Events([10, 3], [0.75, -0.5], [0, 1], ["a", "b"], 2000)
    assert events.sample.tolist() == [3, 11]
    assert events.fraction.tolist() == [-0.5, -0.25]
    assert events.type_names == ["b", "a"]


def test_names_can_be_widened_and_not_narrowed():
    events = Events.from_seconds([1, 2], ["b", "a"], 2000)
    wide = events.with_names(["c", "b", "a"])
    assert wide.type_names == events.type_names
    with pytest.raises(OptionError, match="unknown event name 'a'"):
        events.with_names(["b"])


def test_joining():
    a, b = (Events.from_seconds([t], ["x"], 100, complete_spans_s=[[t, t + 1]]) for t in (1, 2))
    both = Events.concatenate([b, a])
    assert both.onset_s.tolist() == [1, 2]
    np.testing.assert_array_equal(both.labelled_spans, [[100, 300]])
    with pytest.raises(OptionError, match="no tables"):
        Events.concatenate([])
    with pytest.raises(OptionError, match="share their names"):
        Events.concatenate([a, b.at_rate(200)])


@pytest.mark.parametrize(
    ("error", "words", "changes"),
    [
        (UnitError, "seconds", {"sample": [0.5, 1.5]}),
        (ShapeError, "shape", {"type": [0]}),
        (DataError, "finite", {"fraction": [np.nan, 0.0]}),
        (OptionError, "differ", {"names": ["a", "a"]}),
        (OptionError, "cannot name", {"names": ["a", SPAN_TYPE]}),
        (OptionError, "missing value", {"names": ["a", "n/a"]}),
        (OptionError, "the text 'ab'", {"names": "ab"}),
        (OptionError, "to index", {"type": [0, 2]}),
        (UnitError, "positive", {"sampling_rate_hz": 0}),
        (UnitError, "integer samples", {"labelled_spans": [[0.5, 1.5]]}),
        (ShapeError, r"\(k, 2\)", {"labelled_spans": [1, 2, 3]}),
        (DataError, "end after", {"labelled_spans": [[5, 5]]}),
    ],
)
def test_refusals(error, words, changes):
    good = {"sample": [1, 2], "fraction": [0.0, 0.0], "type": [0, 1], "names": ["a", "b"], "sampling_rate_hz": 2000}
    with pytest.raises(error, match=words):
        Events(**(good | changes))


@pytest.mark.parametrize(
    ("error", "words", "arguments"),
    [
        (DataError, "finite", {"onset_s": [np.nan]}),
        (OptionError, "unknown event name 'a'", {"names": ["A"]}),
        (DataError, "end after", {"complete_spans_s": [[2, 1]]}),
        (DataError, "finite", {"complete_spans_s": [[0, np.nan]]}),
        (ShapeError, r"\(k, 2\)", {"complete_spans_s": [[0, 1, 2], [3, 4, 5]]}),
    ],
)
def test_refusals_of_seconds(error, words, arguments):
    good = {"onset_s": [1.0], "type": ["a"], "sampling_rate_hz": 2000}
    with pytest.raises(error, match=words):
        Events.from_seconds(**(good | arguments))


HEADER = "onset\tduration\ttrial_type\tsample\tsampling_rate_hz\n"


@pytest.mark.parametrize(
    ("error", "words", "text"),
    [
        (DataError, "not a readable event table", ""),
        (DataError, "lacks the column onset", "duration\ttrial_type\n0\ta\n"),
        (DataError, "tab-separated", "onset duration trial_type\n1 0 a\n"),
        (DataError, "line 3: onset is 'soon'", "onset\ttrial_type\n1\ta\nsoon\ta\n"),
        (DataError, "line 2: an event needs", "onset\ttrial_type\nn/a\ta\n"),
        (DataError, "line 2: an event needs", "onset\ttrial_type\ninf\ta\n"),
        (DataError, "line 2: an event needs", "onset\ttrial_type\n1.0\tn/a\n"),
        (DataError, "several sampling rates", HEADER + "1\t0\ta\t2000\t2000\n1\t0\ta\t360\t360\n"),
        (DataError, "sample 2000.0, but the column sample says 1234", HEADER + "1\t0\ta\t1234\t2000\n"),
        (UnitError, "events.tsv: sampling_rate_hz must be", HEADER + "1\t0\ta\t2000\t-2000\n"),
        (DataError, "needs a duration", HEADER + "1\tn/a\tlabelled_span\t2000\t2000\n"),
        (DataError, "end after", HEADER + "1\t-2\tlabelled_span\t2000\t2000\n"),
        (DataError, "not a readable event table", "\x00\xff\x00"),
    ],
)
def test_files_that_are_refused(error, words, text, tmp_path):
    path = tmp_path / "events.tsv"
    path.write_bytes(text.encode("latin1"))
    with pytest.raises(error, match=words) as caught:
        read_events(path)
    assert str(path) in str(caught.value)


def test_a_missing_file(tmp_path):
    with pytest.raises(DataError, match="no event table"):
        read_events(tmp_path / "none.tsv")


def test_a_name_in_a_file_that_is_not_known(tmp_path):
    write_events(Events.from_seconds([1], ["beat"], 360), tmp_path / "events.tsv")
    with pytest.raises(OptionError, match="unknown event name 'beat'; known: Beat"):
        read_events(tmp_path / "events.tsv", names=["Beat"])


def test_a_file_of_another_program_lands_on_whole_samples(tmp_path):
    path = tmp_path / "events.tsv"
    sample = np.array([77, 370, 662])
    path.write_text("onset\ttrial_type\tsample\n" + "".join(f"{s / 360:.6f}\tN\t{s}\n" for s in sample))
    events = read_events(path, sampling_rate_hz=360)
    assert events.sample.tolist() == sample.tolist()
    assert not events.fraction.any()


def test_numbers_are_names_too(tmp_path):
    write_events(Events.from_seconds([1, 2], ["1", "nan"], 100), tmp_path / "events.tsv")
    assert read_events(tmp_path / "events.tsv").names == ("1", "nan")


@pytest.mark.parametrize(
    "make",
    [
        lambda: Events.from_seconds([1e13], ["a"], 2000),
        lambda: Events.from_seconds([-1e13], ["a"], 2000),
        lambda: Events.from_seconds([1e9], ["a"], 1e9),
        lambda: Events.from_seconds([1.0], ["a"], 100, complete_spans_s=[[0, 1e18]]),
        lambda: Events([2**62], [0.0], [0], ["a"], 100),
        lambda: Events([0], [1e18], [0], ["a"], 100),
        lambda: Events([0], [0.0], [0], ["a"], 100, labelled_spans=[[0, 2**60]]),
        lambda: Events([2**50], [0.0], [0], ["a"], 100).at_rate(1e6),
        lambda: Events([0], [0.0], [0], ["a"], 100, labelled_spans=[[0, 2**50]]).at_rate(1e6),
        lambda: Events([0], [0.0], [0], ["a"], 100).shift(2**60),
    ],
)
def test_times_that_cannot_be_counted_are_refused(make):
    with pytest.raises(UnitError, match="more than can be counted"):
        make()


@pytest.mark.parametrize("row", ["1e13\t0\ta", "-1e13\t0\ta", "1e300\t0\ta", "0\t1e13\tlabelled_span"])
def test_times_in_files_that_cannot_be_counted_are_refused(row, tmp_path):
    (tmp_path / "events.tsv").write_text(f"onset\tduration\ttrial_type\n{row}\n")
    with pytest.raises(UnitError, match="events.tsv: .* more than can be counted"):
        read_events(tmp_path / "events.tsv")


MARKS = 'onset\tduration\ttrial_type\tvalue\tresponse\n1\t0.25\t step \t007\tn/a\n2\tn/a\tstep\t8\t"a ""b"""\n'


def write(path, text):
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def test_durations_and_other_columns_are_kept(tmp_path):
    events = read_events(write(tmp_path / "a.tsv", MARKS), 100)
    assert events.names == ("step",)
    np.testing.assert_array_equal(events.duration_s, [0.25, np.nan])
    write_events(events, tmp_path / "b.tsv")
    again = read_events(tmp_path / "b.tsv")
    np.testing.assert_array_equal(again.duration_s, events.duration_s)
    for table in (events, again, again.shift(5).at_rate(360)):
        assert {name: list(column) for name, column in table.extra.items()} == {
            "value": ["007", "8"],
            "response": ["n/a", 'a "b"'],
        }


def test_rows_keep_their_other_columns():
    events = Events([3, 1, 2], np.zeros(3), [0, 0, 0], ["a"], 100, duration_s=[3, 1, 2], extra={"k": ["3", "1", "2"]})
    assert list(events.extra["k"]) == ["1", "2", "3"]
    late = events.within(2, 9)
    assert (list(late.extra["k"]), list(late.duration_s)) == (["2", "3"], [2, 3])
    plain = Events([0], [0.0], [0], ["a"], 100)
    both = Events.concatenate([late, plain])
    assert (list(both.extra["k"]), list(both.duration_s)) == (["n/a", "2", "3"], [0, 2, 3])
    assert both.to_frame()["k"].tolist() == ["n/a", "2", "3"]


@pytest.mark.parametrize(
    ("error", "words", "changes"),
    [
        (DataError, "cannot last", {"duration_s": [-1, 0]}),
        (DataError, "cannot last", {"duration_s": [np.inf, 0]}),
        (ShapeError, "'k' has", {"extra": {"k": ["one"]}}),
        (DataError, "control characters", {"extra": {"k": ["one", "t\two"]}}),
        (OptionError, "cannot name a further column", {"extra": {"onset": ["1", "2"]}}),
        (OptionError, "cannot name a further column", {"extra": {"a\tb": ["1", "2"]}}),
        (OptionError, "control characters", {"names": ["a", "b\x1b[2J"]}),
    ],
)
def test_other_columns_that_are_refused(error, words, changes):
    good = {"sample": [1, 2], "fraction": [0.0, 0.0], "type": [0, 1], "names": ["a", "b"], "sampling_rate_hz": 2000}
    with pytest.raises(error, match=words):
        Events(**(good | changes))


def test_types_from_another_column(tmp_path):
    events = read_events(write(tmp_path / "a.tsv", MARKS), type_column="value")
    assert (events.type_names, list(events.extra["original_trial_type"])) == (["007", "8"], ["step", "step"])
    with pytest.raises(DataError, match="type_column"):
        read_events(write(tmp_path / "b.tsv", "onset\tduration\tvalue\n1\t0\t3\n"))


LINES = ["onset\tduration\ttrial_type", *(f"{k}\t0\tstep" for k in range(1, 5))]


@pytest.mark.parametrize("line", range(1, 5))
@pytest.mark.parametrize(
    ("words", "damage"),
    [
        ("line {} has 4 fields", lambda line: line + "\tx"),
        ("line {} has 2 fields", lambda line: line.rpartition("\t")[0]),
        ("line {}: a quote", lambda line: line.replace("step", '"step')),
        ("line {} has the control", lambda line: line.replace("st", "s\x1b")),
        ("line {} has the control", lambda line: line.replace("st", "s\x00")),
        ("line {} has the control", lambda line: line.replace("st", "s\x7f")),
    ],
)
def test_a_damaged_line_is_named(words, damage, line, tmp_path):
    lines = LINES.copy()
    lines[line] = damage(lines[line])
    with pytest.raises(DataError, match=words.format(line + 1)):
        read_events(write(tmp_path / "events.tsv", "\n".join(lines)))


def test_rows_with_one_more_field_than_the_names_are_refused(tmp_path):
    with pytest.raises(DataError, match="4 fields, the table has 3"):
        read_events(write(tmp_path / "events.tsv", "\n".join(LINES[:1] + [line + "\t7" for line in LINES[1:]])))


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("sep", ["\t", ";", ","])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
def test_the_same_events_as_other_programs_write_them(newline, sep, encoding, tmp_path):
    text = newline.join([f"onset{sep} trial_type", f'1.5{sep}"Größe"', f"2{sep} Größe "])
    path = write(tmp_path / "events.csv", text.encode(encoding))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        events = read_events(path)
    assert (events.onset_s.tolist(), events.type_names) == ([1.5, 2.0], ["Größe", "Größe"])


@pytest.mark.parametrize("sep", [";", "\t"])
@pytest.mark.parametrize("name", ["e.csv", "e.tsv"])
def test_decimal_commas_of_event_tables(sep, name, tmp_path):
    lines = ["onset;duration;trial_type;note", "1,5;0,25;a;x.y", "12,125;0;b;z"]
    (tmp_path / name).write_text("\n".join(lines).replace(";", sep), encoding="utf-8")
    events = read_events(tmp_path / name)
    assert events.onset_s.tolist() == [1.5, 12.125] and events.duration_s.tolist() == [0.25, 0]
    for onset in ("1,234", "1,234.5"):  # thousands?
        (tmp_path / name).write_text(f"onset{sep}trial_type\n{onset}{sep}a\n", encoding="utf-8")
        with pytest.raises(DataError, match="not a number"):
            read_events(tmp_path / name)


def test_messages_about_event_tables_name_options_that_there_are(tmp_path):
    (tmp_path / "e.tsv").write_text("onset\tduration\ttrial_type\tvalue\n1\t0\tn/a\t5\n", encoding="utf-8")
    with pytest.raises(DataError, match="type_column= is one of 'value'"):
        read_events(tmp_path / "e.tsv")
    (tmp_path / "e.tsv").write_text("onset\ttrial_type\n1\ta\tx\n", encoding="utf-8")
    with pytest.raises(DataError, match="line 2 has 3 fields") as error:
        read_events(tmp_path / "e.tsv")
    assert "decimal=" not in str(error.value)


def test_what_labelled_spans_lose_is_said(tmp_path):
    rows = "onset\tduration\ttrial_type\tnote\n0\t5\tlabelled_span\tours\n1\t0\ta\tq\n"
    (tmp_path / "e.tsv").write_text(rows, encoding="utf-8")
    with pytest.warns(UserWarning, match="columns note"):
        events = read_events(tmp_path / "e.tsv")
    write_events(events, tmp_path / "again.tsv")
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # n/a stands there
        assert read_events(tmp_path / "again.tsv").extra["note"].tolist() == ["q"]
