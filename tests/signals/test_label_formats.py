"""Labels of other programs come back as they were written; what a format cannot hold is said."""

import warnings
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import evlib
from evlib import cli
from evlib.signals import files
from evlib.signals.errors import DataError, EvlibError, MissingExtraError, OptionError
from evlib.signals.events import Events
from evlib.signals.labels import FORMATS, from_mne, read_events, to_mne, write_events

START = "2026-05-01T12:00:00+02:00"
# A file of each format, and names that it can hold.
FILES = {
    "bids": ("a.tsv", ("bell", 'ü, "x" <&>')),
    "audacity": ("a.txt", ("bell", 'ü, "x" <&>')),
    "raven": ("a.selections.txt", ("bell", 'ü, "x" <&>')),
    "elan": ("a.eaf", ("bell", 'ü, "x" <&>')),
    "textgrid": ("a.TextGrid", ("bell", 'ü, "x" <&> ! 1')),
    "wfdb": ("a.atr", ("N", 'ü, "x" <&>')),
    "edf": ("a.edf", ("bell", 'ü, "x" <&>')),
    "mne csv": ("a_annot.csv", ("bell", 'ü, "x" <&>')),
    "mne txt": ("a_annot.txt", ("bell", 'ü, "x" <&>')),
    "quakeml": ("a.qml", ("P", 'ü, "x" <&>')),
    "lowndes": ("a.lowndes", ("bell_01", "bell_12")),
}
MILLISECONDS, NO_SPANS = {"elan", "lowndes"}, {"wfdb", "quakeml", "lowndes"}
few = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=6)


def quietly(function, *arguments, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return function(*arguments, **options)


def test_each_format_is_tried():
    assert {name.split()[0] for name in FILES} == set(FORMATS)


@pytest.mark.parametrize("name", FILES)
@few
@given(
    sample=st.lists(st.integers(0, 30_000), min_size=1, max_size=12),
    seed=st.integers(0, 100),
    rate=st.sampled_from([204.8, 360.0, 2000.0, 44_100.0]),
    spans=st.sampled_from([None, [[0, 4000], [9000, 10_001]], np.zeros((0, 2), int)]),
)
def test_a_file_gives_back_what_was_written(name, sample, seed, rate, spans, tmp_path):
    file, names = FILES[name]
    rate = 360.0 if name in MILLISECONDS else rate  # a sample is longer than a millisecond
    # No note at sample 0, no pause of 32 s.
    sample = [1 + at % 11_000 if name in NO_SPANS else at for at in sample]
    spans = None if name in NO_SPANS else spans
    type = np.random.default_rng(seed).integers(0, 2, len(sample))
    events = Events(sample, np.zeros(len(sample)), type, names, rate, labelled_spans=spans)
    quietly(write_events, events, tmp_path / file, start_time=START)
    again = read_events(tmp_path / file, sampling_rate_hz=rate, names=names, start_time=START)
    order = np.lexsort((again.type, again.sample))
    np.testing.assert_array_equal(again.sample[order], events.sample)
    np.testing.assert_array_equal(again.type[order], events.type)
    assert np.abs(again.fraction).max() < (0.2 if name in MILLISECONDS else 1e-9)
    assert (again.labelled_spans is None) == (spans is None)
    if spans is not None:
        np.testing.assert_array_equal(again.labelled_spans, events.labelled_spans)


@pytest.mark.parametrize("name", FILES)
def test_what_came_from_another_format_is_read_from_a_bids_table(name, tmp_path):
    file, names = FILES[name]
    events = Events([360, 720], [0.0, 0.0], [0, 1], names, 360)
    quietly(write_events, events, tmp_path / file, start_time=START)
    first = read_events(tmp_path / file, start_time=START)
    for table in ("b.tsv", "b.csv", "b.txt"):
        write_events(first, tmp_path / table, format="bids")
        again = read_events(tmp_path / table)
        assert again.type_names == first.type_names and list(again.extra) == list(first.extra)


def test_an_error_is_not_its_own_cause(tmp_path):
    path = tmp_path / "a.selections.txt"
    write_events(Events([5], [0.0], [0], ("a",), 2000), path)
    path.write_text(path.read_text().replace("\t5\t", "\tfive\t"))
    with pytest.raises(DataError, match="sample is 'five', not a number") as raised:
        read_events(path)
    assert raised.value.__cause__ is not raised.value


@pytest.mark.parametrize("name", ["bids", "raven"])
def test_scores_are_kept_where_they_can_be(name, tmp_path, recwarn):
    events = Events([5, 9], [0.25, 0.0], [0, 1], ("a", "b"), 2000, [0.5, np.nan], [1e-4, 2e-4])
    write_events(events, tmp_path / FILES[name][0])
    again = read_events(tmp_path / FILES[name][0])
    assert again.sampling_rate_hz == 2000 and not list(recwarn)
    np.testing.assert_array_equal(again.score, events.score)
    np.testing.assert_array_equal(again.sigma_s, events.sigma_s)
    np.testing.assert_allclose(again.time_samples, events.time_samples, atol=2e-3)


@pytest.mark.parametrize("name", [name for name in FILES if name not in ("bids", "raven")])
def test_what_is_lost_is_said(name, tmp_path):
    file, names = FILES[name]
    events = Events([5], [0.25], [0], names, 2000, score=[0.5])
    wanted = {"wfdb": "no scores, no fractions", "elan": "times to 0.001 s .moved by up to 0.000375"}
    with pytest.warns(UserWarning, match=wanted.get(name, "no scores, no sampling rate")) as caught:
        write_events(events, tmp_path / file, start_time=START)
    assert caught[0].filename == __file__
    if name in NO_SPANS:
        with pytest.raises(DataError, match="holds no labelled spans"):
            write_events(replace(events, labelled_spans=[[0, 10]]), tmp_path / "new.x", name, START)
        assert not (tmp_path / "new.x").exists()


@pytest.mark.parametrize(
    ("file", "events", "words"),
    [
        ("a.eaf", Events([-1], [0.0], [0], ["a"], 100), "before 0 s"),
        ("a_annot.txt", Events([1], [0.0], [0], ["\u4e2d"], 100), "cannot be written as mne"),
        ("a.atr", Events([-1], [0.0], [0], ["N"], 100), "none before"),
        ("a.atr", Events([1], [0.0], [0], ["x" * 400], 100), "cannot|not written"),
        ("a.lowndes", Events([1], [0.0], [0], ["step"], 100), "bell_01 to bell_16, not 'step'"),
        ("a.lowndes", Events([0, 3300], [0.0, 0.0], [0, 0], ["bell_01"], 100), "no pause"),
    ],
)
def test_what_cannot_be_held_is_refused_and_the_old_file_stays(file, events, words, tmp_path):
    (tmp_path / file).write_text("old")
    with pytest.raises(DataError, match=words):
        quietly(write_events, events, tmp_path / file)
    assert (tmp_path / file).read_text() == "old"


@pytest.mark.parametrize("name", FILES)
def test_damaged_files_give_errors_of_evlib(name, tmp_path):
    file, names = FILES[name]
    events = Events([5, 900, 2000], np.zeros(3), [0, 1, 0], names, 360)
    quietly(write_events, events, tmp_path / file, start_time=START)
    whole, rng = (tmp_path / file).read_bytes(), np.random.default_rng(0)
    for k in range(40):
        data = bytearray(whole[: int(rng.integers(0, len(whole)))] if k % 2 else whole)
        for place in rng.integers(0, max(len(data), 1), 3 if data else 0):
            data[place] = rng.integers(0, 256)
        (tmp_path / file).write_bytes(bytes(data))
        try:
            quietly(read_events, tmp_path / file, sampling_rate_hz=360, start_time=START)
        except EvlibError as error:
            assert file in str(error)


BOMB = (
    '<?xml version="1.0"?><!DOCTYPE d [<!ENTITY a "aaaa"><!ENTITY b SYSTEM "file:///etc/passwd">]>'
    "<ANNOTATION_DOCUMENT><TIER>&b;</TIER></ANNOTATION_DOCUMENT>"
)


@pytest.mark.parametrize(
    ("file", "text", "words"),
    [
        ("a.eaf", BOMB, "document type"),
        ("a.qml", BOMB, "document type"),
        ("a.eaf", "<html/>", "holds an ANNOTATION_DOCUMENT"),
        ("a.txt", "1.0\n", "with tabs between"),
        ("a.txt", "2.0\t1.0\tx\n", "ends before it begins"),
        ("a.txt", "nan\t1.0\tx\n", "'nan' is not a number"),
        ("a.txt", "1e13\t1e13\tx\n", "more than can be counted"),
        ("a.selections.txt", "Selection\tBegin Time (s)\n1\t0.5\n", "type_column"),
        ("a.lowndes", "H 1 0X0000\nH Z 0X0100\n", "line 2"),
        ("a.TextGrid", 'File type = "ooTextFile"\nObject class = "TextGrid"\n0 1 <exists> 1 "TextTier"', "truncated"),
        ("a.xyz", "", "labels of an unknown kind"),
    ],
)
def test_what_is_no_label_file_is_refused(file, text, words, tmp_path):
    (tmp_path / file).write_text(text)
    with pytest.raises(EvlibError, match=words) as caught:
        read_events(tmp_path / file, start_time=START)
    assert file in str(caught.value)


# ---- files as other programs write them ------------------------------------------------------------------------------


def test_a_textgrid_in_the_long_form_of_praat(tmp_path):
    text = """File type = "ooTextFile"\nObject class = "TextGrid"\n\nxmin = 0\nxmax = 2.5\n
tiers? <exists>\nsize = 2\nitem []:\n    item [1]:\n        class = "IntervalTier"\n        name = "words 1"
        xmin = 0\n        xmax = 2.5
        intervals: size = 2\n        intervals [1]:
            xmin = 0\n            xmax = 1.25\n            text = ""
        intervals [2]:\n            xmin = 1.25\n            xmax = 2.5\n            text = "say ""it"" "
    item [2]:\n        class = "TextTier"\n        name = "clicks"\n        xmin = 0\n        xmax = 2.5
        points: size = 1\n        points [1]:\n            number = 0.5\n            mark = ""\n"""
    for encoding in ("utf-8", "utf-16", "utf-8-sig"):
        (tmp_path / "a.TextGrid").write_bytes(text.encode(encoding))
        events = read_events(tmp_path / "a.TextGrid", sampling_rate_hz=2000)
        assert events.type_names == ["clicks", 'say "it"'] and events.sample.tolist() == [1000, 2500]
    assert read_events(tmp_path / "a.TextGrid", type_column="tier").type_names == ["clicks", "words 1"]


def test_text_files_are_told_by_what_they_hold(tmp_path):
    path = tmp_path / "labels.txt"
    for text in (
        "0.5\t0.5\tbell\n\\\t100\t200\n",
        "0,5\t0,7\tbell\n",
        "# MNE-Annotations\n# onset, duration, description\n0.5, 0.0, bell\n",
        "onset\tduration\ttrial_type\n0.5\t0\tbell\n",
        "Selection\tView\tBegin Time (s)\tEnd Time (s)\tSpecies\n1\tWaveform 1\t0.5\t0.6\tbell\n"
        "1\tSpectrogram 1\t0.5\t0.6\tbell\n",
    ):
        path.write_text(text)
        events = read_events(path, sampling_rate_hz=2000)
        assert events.type_names == ["bell"] and events.sample.tolist() == [1000]


def test_codes_in_another_column(tmp_path):
    (tmp_path / "a.tsv").write_text("onset\tduration\tvalue\n0.5\t0\t3\n0.7\t0\t12 \n")
    assert read_events(tmp_path / "a.tsv", type_column="value").type_names == ["3", "12"]
    with pytest.raises(DataError, match="lacks the column code"):
        read_events(tmp_path / "a.tsv", type_column="code")


def test_mne_reads_and_writes_the_same(tmp_path):
    mne = pytest.importorskip("mne")
    events = Events([77, 370, 662], np.zeros(3), [0, 1, 0], ("a, b", "ü"), 360, labelled_spans=[[0, 720]])
    there = to_mne(events)
    back = from_mne(there, 360)
    np.testing.assert_array_equal(back.sample, events.sample)
    np.testing.assert_array_equal(back.labelled_spans, events.labelled_spans)
    quietly(write_events, events, tmp_path / "a_annot.csv")
    read = mne.read_annotations(tmp_path / "a_annot.csv")
    np.testing.assert_allclose(read.onset, there.onset, atol=1e-6)
    assert list(read.description) == list(there.description)
    there.save(tmp_path / "b_annot.txt", verbose=False)
    np.testing.assert_array_equal(read_events(tmp_path / "b_annot.txt", 360).sample, events.sample)


def test_labels_never_replace_the_signals_of_an_edf_file(tmp_path):
    edfio = pytest.importorskip("edfio")
    edfio.Edf([edfio.EdfSignal(np.arange(100.0), 100)]).write(tmp_path / "night.edf")
    before = (tmp_path / "night.edf").read_bytes()
    with pytest.raises(DataError, match="holds signals"):
        write_events(Events.from_seconds([0.5], ["a"], 100), tmp_path / "night.edf")
    assert (tmp_path / "night.edf").read_bytes() == before


def test_lowndes_stamps_wrap_and_go_back(tmp_path):
    (tmp_path / "a.lowndes").write_text("#. FirstBlowMs: 1980\nH 1 0Xff00\nH 2 0X0010\nH T 0Xfff0\nB E 0X0200\n")
    events = read_events(tmp_path / "a.lowndes", sampling_rate_hz=1000)
    assert events.type_names == ["bell_01", "bell_12", "bell_02", "bell_11"]
    assert events.sample.tolist() == [1980, 1980 + 0xF0, 1980 + 0x110, 1980 + 0x300]


@pytest.mark.parametrize("name", ["audacity", "raven", "elan", "textgrid", "edf", "mne csv"])
def test_durations_are_kept(name, tmp_path):
    file, names = FILES[name]
    events = Events([10, 20, 90], np.zeros(3), [0, 0, 1], names, 100, duration_s=[0.5, 0.25, 0.0])
    quietly(write_events, events, tmp_path / file)
    again = read_events(tmp_path / file, 100)
    np.testing.assert_array_equal(again.sample, events.sample)
    np.testing.assert_allclose(again.duration_s, events.duration_s, atol=1e-6)


def test_dates_need_a_start(tmp_path):
    quietly(write_events, Events.from_seconds([0.5], ["P"], 100), tmp_path / "a.qml", start_time=START)
    with pytest.raises(DataError, match="start_time"):
        read_events(tmp_path / "a.qml")
    assert read_events(tmp_path / "a.qml", 100, start_time="2026-05-01T09:59:59").sample.tolist() == [150]
    with pytest.raises(OptionError, match="date and time"):
        read_events(tmp_path / "a.qml", start_time="yesterday")


def test_files_know_the_endings_of_labels():
    endings = {"." + ending.rpartition(".")[2] for kind in FORMATS.values() for ending in kind.endings}
    assert endings == {*files.LABELS, *files.LABELS_TOO}


@given(st.lists(st.floats(-0.5, 0.499), min_size=1, max_size=5))
def test_wfdb_takes_the_nearest_sample(tmp_path_factory, fractions):
    path = tmp_path_factory.mktemp("wfdb") / "a.atr"
    sample = 360 * np.arange(1, len(fractions) + 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        write_events(Events(sample, np.array(fractions), np.zeros(len(sample), int), ("N",), 360.0), path)
    assert np.array_equal(read_events(path).sample, sample)


@pytest.mark.parametrize("module", ["wfdb", "obspy", "edfio"])
def test_a_missing_package_is_named(module, tmp_path, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, module, None)
    file = tmp_path / {"wfdb": "a.atr", "obspy": "a.qml", "edfio": "a.edf"}[module]
    file.write_text("<q/>")
    with pytest.raises(MissingExtraError, match=r"evlib\[formats\]"):
        read_events(file, start_time=START)


def test_convert(tmp_path, capsys):
    evlib.write_events(Events.from_seconds([0.5, 1.0], ["bell", "clap"], 2000), tmp_path / "a.tsv")
    assert cli.main(["convert", f"{tmp_path}/a.tsv", f"{tmp_path}/a.TextGrid"]) == 0
    assert "no sampling rate" in capsys.readouterr().err
    assert cli.main(["convert", f"{tmp_path}/a.TextGrid", f"{tmp_path}/b.tsv", "--sampling-rate-hz", "2000"]) == 0
    first, second = (read_events(tmp_path / name) for name in ("a.tsv", "b.tsv"))
    assert first.sample.tolist() == second.sample.tolist() and first.type_names == second.type_names
    assert second.extra["tier"].tolist() == ["bell", "clap"]
    assert cli.main(["convert", f"{tmp_path}/a.tsv", f"{tmp_path}/a.tsv"]) == 2


@pytest.mark.parametrize(
    "name", ["audacity.txt", "raven.txt", "elan.eaf", "textgrid.TextGrid", "wfdb.atr", "mne.txt", "quakeml.xml"]
)
def test_labels_are_written_over_nothing_but_labels_of_their_format(name, tmp_path):
    path, options = tmp_path / name, {"format": name.partition(".")[0], "start_time": "2024-01-01T00:00:00"}
    events = Events.from_seconds([1.0, 2.0], ["a", "b"], 1000)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(2):
            write_events(events, path, **options)
        for content in (b"my notes", b"<notes/>", b"a,b\n1,2\n", bytes(range(1, 99))):
            path.write_bytes(content)
            with pytest.raises(DataError, match="is there already"):
                write_events(events, path, **options)
            assert path.read_bytes() == content
