"""Data sets: what was written is read, by split; whatever is not as it was written is named."""

import json
from dataclasses import replace

import numpy as np
import pytest

import evlib
from evlib import cli
from evlib.signals.dataset import open_dataset, validate_dataset, write_dataset
from evlib.signals.errors import DataError, EvlibError, OptionError
from evlib.signals.paths import sha256_of


@pytest.fixture(scope="module")
def parts():
    """(name, recording, events, split) of four recordings."""
    splits = {"a": "train", "b": "train", "c": "test", "d": "train"}
    made = {name: evlib.make_recording(duration_s=15.0, seed=k) for k, name in enumerate(splits)}
    return [(name, m.recording, None if name == "d" else m.events, splits[name]) for name, m in made.items()]


@pytest.fixture
def data(parts, tmp_path):
    return write_dataset(tmp_path / "bells", iter(parts), "bells", "a bell frame", "simulated")


def edit(data, change):
    """dataset.json after a change."""
    path = data.folder / "dataset.json"
    about = json.loads(path.read_text())
    change(about)
    path.write_text(json.dumps(about))


def test_what_was_written_is_read_by_split(parts, data):
    assert repr(data) == "DataSet(bells: 4 recordings; test: 1, train: 3)" and data.names == ("a", "b", "c", "d")
    for name, recording, events, _ in parts:
        again, labels = data.read(name)
        np.testing.assert_array_equal(again.read(), recording.read())
        assert (again.channels, again.units) == (recording.channels, recording.units)
        assert (labels is None) == (events is None) and (labels is None or len(labels) == len(events))
    assert [recording.name for recording, _ in data.pairs("train")] == ["a", "b"] and len(data.pairs("test")) == 1
    assert [recording.name for recording in data.unlabelled("train")] == ["d"]
    assert validate_dataset(data.folder).ok
    with pytest.raises(OptionError, match="no split 'dev'; there are test, train"):
        data.pairs("dev")
    with pytest.raises(DataError, match="no recording 'z'"):
        data.read("z")


def test_files_that_are_not_as_they_were_written_are_named(data):
    shard = data.folder / "a.zarr" / "c" / "0" / "0"
    shard.write_bytes(shard.read_bytes()[:-1] + b"x")
    with (data.folder / "b.tsv").open("a") as file:
        file.write("1.0\t0\tghost\t2000\t2000\tn/a\tn/a\n")
    (data.folder / "c.tsv").unlink()
    found = [(one.where, one.message) for one in validate_dataset(data.folder).errors]
    for where, words in (
        ("a", "a.zarr is not the file"),
        ("a", "checksum"),
        ("b", "b.tsv is not"),
        ("c", "c.tsv is lost"),
    ):
        assert any(where == place and words in message for place, message in found), words


def test_one_recording_in_two_splits_is_an_error(data):
    def copy(about):
        about["recordings"]["e"] = about["recordings"]["c"] | {"split": "train"}

    edit(data, copy)
    assert "is the same recording as c, which is in another split" in str(validate_dataset(data.folder))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda about: about.update(format="zip"), "format 'evlib data set 1'"),
        (lambda about: about.pop("units"), "must hold channels, .*units"),
        (lambda about: about.update(mine=1), "must hold .*, got .*mine"),
        (lambda about: about.update(channels="x"), "channels must be a list of texts"),
        (lambda about: about.update(sampling_rate_hz="fast"), "sampling_rate_hz must be"),
        (lambda about: about.update(recordings={}), "at least one entry"),
        (lambda about: about["recordings"]["a"].update(recording="../a.zarr"), "'a': '../a.zarr' leads out of"),
        (lambda about: about["recordings"]["a"].update(events=3), "'a': a file in .* needs a name"),
        (lambda about: about["recordings"]["a"].update(split=""), "'a': split must be a word"),
        (lambda about: about["recordings"]["a"].update(sha256={}), "'a': sha256 must give the digest of a.zarr, a.tsv"),
        (lambda about: about["recordings"].update(a=[]), "'a': must be an object with events"),
    ],
)
def test_a_manifest_that_breaks_the_format_is_refused(data, change, words):
    edit(data, change)
    with pytest.raises(DataError, match=f"dataset.json: .*{words}"):
        open_dataset(data.folder)
    assert not validate_dataset(data.folder).ok


def test_a_manifest_that_contradicts_its_recordings_is_refused(data):
    edit(data, lambda about: about.update(sampling_rate_hz=1000))
    with pytest.raises(DataError, match="a: sampling_rate_hz is 2000.0, dataset.json says 1000"):
        open_dataset(data.folder).read("a")
    (data.folder / "dataset.json").write_text('{"format": 1, "format": 2}')
    with pytest.raises(DataError, match="'format' stands there twice"):
        open_dataset(data.folder)
    with pytest.raises(DataError, match="no data set: there is no dataset.json"):
        open_dataset(data.folder / "a.zarr")


def test_what_cannot_be_a_data_set_is_not_written(parts, tmp_path):
    (name, recording, events, split), *_ = parts
    other = replace(recording, sampling_rate_hz=1000)
    for items in ([], [parts[0], parts[0]], [("../x", recording, None, "train")], [(name, recording, events, "")]):
        with pytest.raises(EvlibError):
            write_dataset(tmp_path / "new", items, "x")
    with pytest.raises(EvlibError, match="one rate"):
        write_dataset(tmp_path / "new", [parts[0], ("slow", other, None, "train")], "x")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(OptionError, match="is there already"):
        write_dataset(tmp_path, parts, "x")


def test_a_digest_of_a_folder_counts_names_and_contents(tmp_path):
    (tmp_path / "x").mkdir()
    digests = {sha256_of(tmp_path)}
    for name, content in (("a", "1"), ("a", "2"), ("x/a", "2")):
        (tmp_path / name).write_text(content)
        digests.add(sha256_of(tmp_path))
    (tmp_path / "a").rename(tmp_path / "b")
    assert len(digests | {sha256_of(tmp_path)}) == 5


def test_the_command_line_fits_and_validates_a_data_set(parts, data, tmp_path, capsys):
    options = ["--method", "matched_filter", "--quiet"]
    assert cli.main(["fit", str(data.folder), "-o", str(tmp_path / "set.ckpt"), *options]) == 0
    files = [str(data.folder / name) for name in ("a.zarr", "a.tsv", "b.zarr", "b.tsv")]
    more = ["--unlabelled", str(data.folder / "d.zarr")]
    assert cli.main(["fit", *files, "-o", str(tmp_path / "files.ckpt"), *options, *more]) == 0
    first, second = (evlib.load_detector(tmp_path / f"{name}.ckpt") for name in ("set", "files"))
    np.testing.assert_array_equal(first.bank.templates, second.bank.templates)
    assert cli.main(["validate", str(data.folder)]) == 0 and "no problems found" in capsys.readouterr().out
    (data.folder / "a.tsv").unlink()
    assert cli.main(["validate", str(data.folder)]) == 1 and "error: a: a.tsv is lost" in capsys.readouterr().out
