"""Detection of a folder: nothing stops it, nothing is done twice, and the result is the same however it is made."""

import os
import signal
import threading
import time
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

import evlib
from evlib import cli
from evlib.detection.archive import detect_all, list_recordings
from evlib.detection.cluster import run_tasks
from evlib.signals.errors import DataError, OptionError


@pytest.fixture(scope="module")
def bells():
    """A recording of 30 s, and a detector of it."""
    recording, reference = evlib.make_recording(duration_s=30.0, seed=1)
    return recording, evlib.fit([(recording, reference)], method="matched_filter", progress=False)


@pytest.fixture
def nights(bells, tmp_path):
    """A folder of recordings of several kinds, one of them damaged, and other files."""
    recording, _ = bells
    folder = tmp_path / "nights"
    for k, name in enumerate(["a.npz", "b/a.zarr", "b/c.npz", "d.tsv"]):
        (folder / name).parent.mkdir(exist_ok=True, parents=True)
        evlib.write_recording(recording.between(2 * k, 2 * k + 4), folder / name)
    np.save(folder / "e.npy", np.zeros((20, 6)))
    (folder / "e.json").write_text("{}")
    (folder / "f.npz").write_bytes(b"PK damaged")
    (folder / "events.tsv").write_text("onset\tduration\ttrial_type\n1\t0\tbell\n")
    (folder / "notes.txt").write_text("rain")
    (folder / ".hidden.npz").touch()
    return folder


NAMES = ("a.npz", "b/a.zarr", "b/c.npz", "d.tsv")


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_each_recording_has_what_detect_finds_and_what_failed_is_named(bells, nights, tmp_path):
    archive = detect_all(bells[1], nights, tmp_path / "found")
    assert archive.names == NAMES and archive.n_new == 4 and set(archive.failed) == {"e.npy", "f.npz"}
    assert "does not tell its sampling rate" in archive.failed["e.npy"] and "f.npz" in archive.failed["f.npz"]
    assert "4 recordings, 4 of them new, 2 failed)\n  e.npy: UnitError" in repr(archive)
    every = pd.read_parquet(tmp_path / "found" / "events")
    table = pd.read_csv(tmp_path / "found" / "events.tsv", sep="\t")
    for name in NAMES:
        wanted = evlib.detect(bells[1], evlib.read_recording(nights / name))
        found = archive.read(name)
        np.testing.assert_array_equal(found.sample, wanted.sample)
        np.testing.assert_array_equal(found.type, wanted.type)
        assert found.names == wanted.names and len(wanted) == (every.recording == name).sum() > 0
        np.testing.assert_array_equal(table[table.recording == name]["sample"], wanted.sample)
    report = pd.read_csv(tmp_path / "found" / "recordings.tsv", sep="\t", index_col="recording")
    assert report.index.tolist() == [*NAMES, "e.npy", "f.npz"] and report.duration_s[:4].tolist() == [4.0] * 4
    assert report.problem.notna().tolist() == [False] * 4 + [True] * 2
    with pytest.raises(DataError, match="no detections at .*f.npz"):
        archive.read("f.npz")


def test_a_second_call_does_only_what_is_missing(bells, nights, tmp_path):
    recording, detector = bells
    out = tmp_path / "found"
    detect_all(detector, nights, out)
    before = contents(out)
    assert detect_all(detector, nights, out).n_new == 0 and contents(out) == before
    (out / "events" / "a.npz.parquet").unlink()
    (out / "events" / "b" / "c.npz.parquet").write_bytes(b"half")
    os.utime(nights / "b" / "a.zarr" / "zarr.json")
    (nights / "f.npz").unlink()
    evlib.write_recording(recording.between(0, 4), nights / "f.npz")  # was damaged, is whole
    (nights / "d.tsv").write_text("time\tx\n0\tdamaged\n")
    again = detect_all(detector, nights, out)
    assert again.n_new == 4 and set(again.failed) == {"d.tsv", "e.npy"} and "f.npz" in again.names
    assert not (out / "events" / "d.tsv.parquet").exists() and "d.tsv" not in again.names
    assert (out / "events" / "a.npz.parquet").read_bytes() == before["events/a.npz.parquet"]
    # What is archived elsewhere stays found.
    (nights / "a.npz").unlink()
    assert "a.npz" in detect_all(detector, nights, out).names


def test_files_of_one_recording_belong_together_and_others_do_not(tmp_path):
    for name in ("2024.01.npz", "2024.02.npz", "x.hea", "x.dat"):
        (tmp_path / name).write_bytes(b"1234")
    (tmp_path / "far").symlink_to(tmp_path)
    (tmp_path / "gone.csv").symlink_to(tmp_path / "nowhere.csv")
    found = list_recordings(tmp_path)
    assert {name: state[:2] for name, state in found.items()} == {
        "2024.01.npz": [1, 4],
        "2024.02.npz": [1, 4],
        "gone.csv": [0, 0],
        "x.hea": [2, 8],
    }


def test_what_does_not_go_together_is_refused(bells, nights, tmp_path):
    recording, detector = bells
    detect_all(detector, nights, tmp_path / "found", pattern="a.*")
    for other, options in ((replace(detector, thresholds=detector.thresholds + 1), {}), (detector, {"threshold": 0.9})):
        with pytest.raises(OptionError, match="found holds detections of"):
            detect_all(other, nights, tmp_path / "found", **options)
    with pytest.raises(OptionError, match="must lie outside of"):
        detect_all(detector, nights, nights / "b")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").touch()
    with pytest.raises(OptionError, match="holds thesis.tex: choose a new folder"):
        detect_all(detector, nights, tmp_path / "mine")
    with pytest.raises(DataError, match="no recording in .* named like '\\*.wav'"):
        detect_all(detector, nights, tmp_path / "none", pattern="*.wav")
    with pytest.raises(DataError, match="no folder of recordings"):
        detect_all(detector, tmp_path / "nowhere", tmp_path / "none")
    with pytest.raises(OptionError, match="no scheduler answers"):
        detect_all(detector, nights, tmp_path / "none", dask="nonsense://x")
    assert recording.n_channels == 6


def test_what_was_unusual_is_told_for_each_recording(bells, tmp_path):
    recording, detector = bells
    loud = recording.read() + np.random.default_rng(0).normal(size=recording.shape) * 30 * recording.read().std(axis=0)
    (tmp_path / "in").mkdir()
    evlib.write_recording(replace(recording, signal=loud), tmp_path / "in" / "loud.npz")
    evlib.write_recording(recording, tmp_path / "in" / "quiet.npz")
    detect_all(detector, tmp_path / "in", tmp_path / "found")
    notes = pd.read_csv(tmp_path / "found" / "recordings.tsv", sep="\t").notes
    assert "noise" in notes[0] and pd.isna(notes[1])


def test_the_command_line_names_what_failed_and_exits_with_2(bells, nights, tmp_path, capsys):
    bells[1].save(tmp_path / "bells.ckpt")
    arguments = ["detect", str(tmp_path / "bells.ckpt"), str(nights)]
    assert cli.main(arguments) == 2 and "-o FOLDER" in capsys.readouterr().err
    assert cli.main([*arguments, "-o", str(tmp_path / "found"), "--quiet"]) == 2
    assert "f.npz: DataError" in capsys.readouterr().out
    detect_all(bells[1], nights, tmp_path / "found")  # Python and the command line mean the same
    for name in ("e.npy", "f.npz"):
        (nights / name).unlink()
    assert cli.main([*arguments, "-o", str(tmp_path / "found"), "--quiet"]) == 0
    assert cli.main([*arguments[:2], str(nights / "a.npz"), "--dask", "2"]) == 2


# ---- several processes ----------------------------------------------------------------------------------------------


def work(task):
    """Leave a trace; fail, or kill this process the first time."""
    folder, what = task
    with (folder / f"{what}.runs").open("a") as file:
        file.write("x")
    if what == "bad":
        raise ValueError("no good")
    if what == "deadly" and (folder / "deadly.runs").stat().st_size == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return what


@pytest.mark.skipif(os.name == "nt", reason="kills a process")
def test_a_killed_worker_loses_nothing_and_a_failed_task_stops_nothing(tmp_path):
    tasks = [(tmp_path, what) for what in ("deadly", "bad", *map(str, range(20)))]
    done = {task[1]: (result, problem) for task, result, problem in run_tasks(work, tasks, dask=2)}
    assert done.pop("bad") == (None, "ValueError: no good") and len(done) == 21
    assert all(outcome == (what, "") for what, outcome in done.items())
    runs = {path.stem: path.stat().st_size for path in tmp_path.glob("*.runs")}
    assert runs.pop("deadly") == 2 and sum(runs.values()) <= 21 + 1  # the tasks that ran then: one on each worker


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="kills a process")
def test_two_hundred_recordings_on_two_workers_of_which_one_is_killed(bells, tmp_path):
    from distributed import LocalCluster

    recording, detector = bells
    folder = tmp_path / "in"
    folder.mkdir()
    for k in range(200):
        evlib.write_recording(recording.between(0.1 * k, 0.1 * k + 2), folder / f"{k:03d}.npz")
    (folder / "100.npz").write_bytes((folder / "100.npz").read_bytes()[:5000])
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
        parts, victims = tmp_path / "cluster" / "events", [nanny.pid for nanny in cluster.workers.values()]

        def kill():
            while len(list(parts.glob("*.parquet"))) < 20:
                time.sleep(0.05)
            os.kill(victims[0], signal.SIGKILL)

        threading.Thread(target=kill, daemon=True).start()
        archive = detect_all(detector, folder, tmp_path / "cluster", dask=cluster.scheduler_address)
    assert len(archive.names) == archive.n_new == 199 and list(archive.failed) == ["100.npz"]
    detect_all(detector, folder, tmp_path / "serial")
    assert contents(tmp_path / "cluster") == contents(tmp_path / "serial")
    assert detect_all(detector, folder, tmp_path / "cluster").n_new == 0
