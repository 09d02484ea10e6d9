"""The session format: what is written comes back, and each way of breaking a folder is named."""

import json

import numpy as np
import pandas as pd
import pytest

from evlib import Recording
from evlib.motion.sessions import Channel, Session, open_sessions, validate_sessions, write_sessions
from evlib.motion.windows import cut_sessions
from evlib.signals.errors import DataError, OptionError

RATE = 50.0
NAMES = ("waist_acc_x", "waist_acc_y", "waist_acc_z")
CHANNELS = [Channel(name, f"acceleration, {name[-1]} axis", RATE) for name in NAMES]


def some_sessions(n=3, samples=60, seed=0):
    rng = np.random.default_rng(seed)
    labels = ("walking", "sitting", "lying")
    return [
        Session(f"s{k}", Recording(rng.normal(size=(samples + k, 3)), RATE, NAMES), (labels[k % 3],), f"person {k % 2}")
        for k in range(n)
    ]


@pytest.fixture
def folder(tmp_path):
    write_sessions(tmp_path / "set", "set", "Three people.", CHANNELS, some_sessions())
    return tmp_path / "set"


def table_of(folder, name="s1"):
    return pd.read_parquet(folder / "sessions" / name / "data.parquet")


def put_table(folder, table, name="s1"):
    table.to_parquet(folder / "sessions" / name / "data.parquet", index=False)


def test_what_is_written_comes_back(folder):
    opened = open_sessions(folder)
    assert opened.ids == ["s0", "s1", "s2"] and opened.name == "set"
    for written in some_sessions():
        read = opened.read(written.id)
        np.testing.assert_array_equal(read.recording.read(), written.recording.read())
        assert read.recording.channels == NAMES and read.recording.sampling_rate_hz == RATE
        assert (read.labels, read.group) == (written.labels, written.group)
    assert validate_sessions(folder).ok
    assert opened.descriptions["waist_acc_x"] == "acceleration, x axis" and len(opened.load()) == 3


@pytest.mark.parametrize(
    ("mutate", "words"),
    [
        (lambda t: t.rename(columns={"waist_acc_z": "other"}), "columns that the manifest does not have: other"),
        (
            lambda t: t.assign(timestamp_sec=2.5 * t.timestamp_sec),
            "the manifest, which says 50 Hz: the time column says 20 Hz",
        ),
        (
            lambda t: t.assign(waist_acc_y=t.waist_acc_y.where(t.index != 7)),
            "waist_acc_y: 1 values are NaN or infinite, the first in row 7",
        ),
        (
            lambda t: t.iloc[[*range(10), 11, 10, *range(12, len(t))]],
            "the time column must rise; after 0.22 s (row 11)",
        ),
        (lambda t: t.assign(timestamp_sec=t.timestamp_sec + 0.5), "must begin at 0.0, got 0.5"),
        (lambda t: t.assign(waist_acc_x=1), "columns must hold floats: waist_acc_x"),
        (lambda t: t[:1], "two or more finite times"),
        (lambda t: t.drop(index=[20, 21]), "the largest gap is 0.06 s after 0.38 s (row 20)"),
        (lambda t: t[[*NAMES, "timestamp_sec"]], "the first column must be timestamp_sec"),
        (lambda t: t[["timestamp_sec"]], "there must be channels beside the time"),
    ],
)
def test_a_mutated_table_is_named(folder, mutate, words):
    put_table(folder, mutate(table_of(folder)))
    report = validate_sessions(folder)
    assert len(report.errors) == 1 and report.errors[0].where == "sessions/s1", str(report)
    assert words in report.errors[0].message
    with pytest.raises(DataError, match="sessions/s1"):
        open_sessions(folder).read("s1")
    assert open_sessions(folder).read("s0").recording.n_samples == 60, "the other sessions can still be read"


def change_json(folder, name, change):
    path = folder / name
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("labels.json", lambda c: c.update(s1="walking"), "the labels of 's1' must be a list of words, got 'walking'"),
        ("labels.json", lambda c: c.pop("s1"), "1 sessions without an entry in labels.json, as s1"),
        ("labels.json", lambda c: c.update(s9=["walking"]), "1 labelled sessions without a folder, as s9"),
        ("manifest.json", lambda c: c.pop("channels"), "channels must be a list"),
        ("manifest.json", lambda c: c["channels"][0].pop("description"), "waist_acc_x needs a description"),
        ("manifest.json", lambda c: c["channels"][0].update(sampling_rate_hz="50"), "a positive number, got '50'"),
        (
            "manifest.json",
            lambda c: c["channels"][0].update(may_be_missing="true"),
            "must be true or false, got 'true'",
        ),
        ("manifest.json", lambda c: c["channels"][0].update(name="waist_acc_y"), "a name of its own"),
        ("manifest.json", lambda c: c.update(description=" "), "description must be a text"),
        ("labels.json", lambda c: c.update({"../s1": []}), "names its folder, got '../s1'"),
        ("groups.json", lambda c: c.update(s9="someone"), "1 groups of sessions that are not labelled"),
        ("groups.json", lambda c: c.update(s1=3), "every group must be a text"),
        ("labels.json", lambda c: c.update(s1=["a\x1b[2J"]), "must be a list of words"),
        ("manifest.json", lambda c: c["channels"][0].update(name="a\x07b"), "each channel needs a name"),
    ],
)
def test_a_mutated_json_file_is_named(folder, name, change, words):
    change_json(folder, name, change)
    report = validate_sessions(folder)
    assert not report.ok and words in str(report)
    with pytest.raises(DataError):
        open_sessions(folder)


@pytest.mark.parametrize("what", ["sessions/s1", "sessions/s1/data.parquet"])
def test_links_out_of_the_folder_are_refused(folder, what):
    (folder / what).rename(folder.parent / "elsewhere")
    (folder / what).symlink_to(folder.parent / "elsewhere")
    assert "leads out of the folder" in str(validate_sessions(folder))
    with pytest.raises(DataError, match="leads out of the folder"):
        open_sessions(folder).read("s1")


def test_a_table_that_claims_more_rows_than_memory_holds_is_refused(folder):
    zeros = pd.DataFrame(np.zeros((2**20, 129)), columns=["timestamp_sec", *(f"c{k}" for k in range(128))])
    put_table(folder, zeros)
    assert "1048576 rows of 129 columns are no session" in str(validate_sessions(folder))


@pytest.mark.parametrize("name", ["manifest.json", "labels.json", "sessions/s1/data.parquet"])
@pytest.mark.parametrize("damage", ["missing", "truncated", "noise"])
def test_a_damaged_file_is_named(folder, name, damage):
    path = folder / name
    content = path.read_bytes()
    path.unlink()
    if damage != "missing":
        path.write_bytes(content[: len(content) // 2] if damage == "truncated" else bytes(range(256)) * 4)
    report = validate_sessions(folder)
    assert not report.ok and "cannot be read" in str(report)


def test_missing_values_are_allowed_where_the_manifest_says_so(tmp_path):
    signal = np.tile(np.arange(20.0)[:, None], 2)
    signal[[0, 5, 6, 7, 8, 9], 0] = signal[[2, 3, 4, 5, 6, 7, 19], 1] = np.nan
    channels = [Channel(name, "x axis", RATE, may_be_missing=True) for name in NAMES[:2]]
    session = Session("a", Recording(signal, RATE, NAMES[:2]))
    opened = write_sessions(tmp_path / "set", "set", "One.", channels, [session])
    assert validate_sessions(opened.folder).ok
    # At 50 Hz, five samples are a tenth of a second.
    held = signal.copy()
    held[0, 0], held[5:10, 0], held[19, 1] = 1.0, 4.0, 18.0
    np.testing.assert_array_equal(opened.read("a").recording.read(), held)


def test_windows_with_a_hole_are_left_out():
    sessions = some_sessions(2, samples=100)
    sessions[0].recording.signal[30:45, 1] = np.nan
    windows = cut_sessions("set", sessions, 0.5)
    assert windows.sources.tolist() == ["s0"] * 3 + ["s1"] * 4
    np.testing.assert_array_equal(windows.x[1], sessions[0].recording.read(50, 75))
    sessions[0].recording.signal[:, 2] = np.nan
    with pytest.raises(DataError, match="every window of 0.5 s has a missing value"):
        cut_sessions("set", sessions[:1], 0.5)


def test_what_cannot_be_written_is_refused_and_an_older_folder_stays(folder):
    before = sorted(path.read_bytes() for path in folder.rglob("*.json"))
    recording = Recording(np.ones((10, 1)), RATE, NAMES[:1])
    refused = [
        (OptionError, "names its folder", [Session("../evil", recording)]),
        (DataError, "two sessions", [Session("a", recording), Session("a", recording)]),
        (OptionError, "labels must be a list, got the text 'walking'", [Session("a", recording, "walking")]),
        (DataError, "does not have: ecg", [Session("a", Recording(np.ones((10, 1)), RATE, ("ecg",)))]),
        (
            DataError,
            "says 50 Hz: the time column says 20 Hz",
            [Session("a", Recording(np.ones((10, 1)), 20.0, NAMES[:1]))],
        ),
        (DataError, "there is no session", []),
    ]
    for error, words, sessions in refused:
        with pytest.raises(error, match=words):
            write_sessions(folder, "set", "Three people.", CHANNELS, sessions)
    sound = [Session("a", recording, ("walking",))]
    breaking = [
        ("two or more finite times", CHANNELS, [Session("a", Recording(np.ones((1, 1)), RATE, NAMES[:1]))]),
        ("a name of its own", [CHANNELS[0], CHANNELS[0]], sound),
        ("must be a list of words", CHANNELS, [Session("a", recording, ("",))]),
        ("every group must be a text", CHANNELS, [Session("a", recording, ("walking",), 3)]),
    ]
    for words, channels, sessions in breaking:
        with pytest.raises(DataError, match=words):
            write_sessions(folder, "set", "Three people.", channels, sessions)
    with pytest.raises(DataError, match="needs a description"):
        Channel(NAMES[0], "", RATE)
    assert sorted(path.read_bytes() for path in folder.rglob("*.json")) == before
    with pytest.raises(DataError, match="no session 'x'"):
        open_sessions(folder).read("x")


def test_a_folder_that_a_killed_process_had_moved_aside_is_put_back_at_reading(folder, tmp_path):
    aside = tmp_path / ".evlib-killed"
    (aside / "new" / "set").mkdir(parents=True)
    (aside / "lock").touch()
    (aside / "old").mkdir()
    folder.rename(aside / "old" / "set")
    assert open_sessions(folder).ids == ["s0", "s1", "s2"] and list(tmp_path.iterdir()) == [folder]


def test_only_sessions_give_way_to_sessions(folder, tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("years")
    for place in (tmp_path / "thesis", tmp_path / "thesis" / "chapter.txt", tmp_path):
        with pytest.raises(OptionError, match=r"which would be lost|is a file"):
            write_sessions(place, "set", "Three people.", CHANNELS, some_sessions())
    assert (tmp_path / "thesis" / "chapter.txt").read_text() == "years"
    assert len(write_sessions(folder, "set", "One.", CHANNELS, some_sessions(1)).ids) == 1


def test_all_problems_of_manifest_and_labels_are_listed_at_once(folder):
    labels = folder / "labels.json"
    labels.write_text(labels.read_text().replace('"s1"', '"s9"'))
    change_json(folder, "manifest.json", lambda c: c["channels"][0].pop("description"))
    words = (
        "needs a description",
        "labelled sessions without a folder, as s9",
        "without an entry in labels.json, as s1",
    )
    assert all(one in str(validate_sessions(folder)) for one in words)
    labels.write_text(labels.read_text().replace('"s9"', '"s0"'))
    assert "'s0' stands there twice" in str(validate_sessions(folder))
