"""The command line does what the Python functions do, with the same defaults, and refuses in one line."""

import inspect
import json
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

import evlib
from evlib import cli
from evlib.live.session import open_session
from evlib.signals.synthetic import make_templates
from evlib.training.checkpoints import save_checkpoint

RATE = 2000.0
# Arguments of the Python functions that a command does not have.
NOT_OPTIONS = {
    "open_session": {"detector", "source", "state", "outputs", "read"},
    "fit": {"pairs"},
    "pretrain": {"recordings", "whitened"},
    "discover": {"recordings"},
    "detect": {"detector", "recording"},
    "compare": {"reference", "estimated"},
    "validate": {"recording", "events"},
    "make_recording": {*cli.DETAILS, "schedule_options"},
    "write_events": {"events", "path"},
    "run_notebooks": {"notebooks", "parameters"},
}
# The least that each command accepts, and the function behind it.
COMMANDS = {
    "pretrain": (["pretrain", "a.npz", "-o", "a.enc"], evlib.pretrain),
    "discover": (["discover", "a.npz", "-o", "a.tsv"], evlib.discover),
    "fit": (["fit", "a.npz", "a.tsv", "-o", "a.ckpt"], evlib.fit),
    "detect": (["detect", "a.ckpt", "a.npz"], evlib.detect),
    "stream": (["stream", "a.ckpt", "-"], open_session),
    "score": (["score", "a.tsv", "b.tsv"], evlib.compare),
    "validate": (["validate", "a.npz"], evlib.validate),
    "simulate": (["simulate", "-o", "a"], evlib.make_recording),
    "convert": (["convert", "a.tsv", "a.txt"], evlib.write_events),
    "run": (["run", "a.ipynb"], evlib.workbook.run_notebooks),
}


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    """simulate, fit, detect: the folder with what they wrote."""
    folder = tmp_path_factory.mktemp("cli")
    for day, seed in (("day1", 1), ("day2", 2)):
        assert cli.main(["simulate", "-o", str(folder / day), "--duration-s", "30", "--seed", str(seed)]) == 0
    day1, day2 = folder / "day1", folder / "day2"
    arguments = ["--method", "matched_filter", "--refractory-s", "2", "--quiet"]
    files = [f"{day1}/recording.npz", f"{day1}/events.tsv", "-o", f"{folder}/bells.ckpt"]
    assert cli.main(["fit", *files, *arguments]) == 0
    files = [f"{folder}/bells.ckpt", f"{day2}/recording.npz", "-o", f"{day2}/estimated.tsv"]
    assert cli.main(["detect", *files, "--quiet"]) == 0
    return folder


def refusal(capsys, *arguments):
    """The one line in which a command refuses; it exits with 2 and prints no result."""
    capsys.readouterr()
    assert cli.main([str(argument) for argument in arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("evlib: error: ") and err.endswith("\n") and err.count("\n") == 1
    assert "Traceback" not in err and "usage" not in err
    return err


@pytest.mark.parametrize("command", COMMANDS)
def test_options_are_the_arguments_of_the_python_function(command, capsys):
    arguments, function = COMMANDS[command]
    options = vars(cli.make_parser(command).parse_args(arguments))
    parameters = inspect.signature(function).parameters
    for name in set(parameters) - NOT_OPTIONS[function.__name__] - {"progress", "sampling_rate_hz"}:
        value = tuple(options[name]) if name == "unlabelled" else options[name]
        assert value == parameters[name].default and type(value) is type(parameters[name].default), name
    assert options.get("progress", True) is True  # the command line shows what happens unless told not to
    with pytest.raises(SystemExit) as stop:
        cli.main([command, "--help"])
    help = capsys.readouterr().out
    assert stop.value.code == 0 and f"usage: evlib {command}" in help
    in_milliseconds = [name[:-1] + "ms" for name in cli.IN_MILLISECONDS if name in options]
    assert all(f"--{name.replace('_', '-')} " in help for name in in_milliseconds)


def test_the_methods_and_schedules_offered_are_those_that_exist():
    from evlib.detection.fit import METHODS
    from evlib.signals.synthetic import SCHEDULES

    for command, name, values in (("fit", "method", METHODS), ("simulate", "schedule", SCHEDULES)):
        parse = cli.make_parser(command).parse_args
        assert [vars(parse([*COMMANDS[command][0], f"--{name}", value]))[name] for value in values] == list(values)


def test_simulate_writes_what_make_recording_makes(session):
    recording, events = evlib.make_recording(make_templates(seed=0), duration_s=30.0, seed=1)
    written = evlib.read_recording(session / "day1/recording.npz")
    assert np.array_equal(written.read(), recording.read()) and written.sampling_rate_hz == RATE
    table = evlib.read_events(session / "day1/events.tsv", names=events.names)
    assert np.array_equal(table.sample, events.sample) and np.array_equal(table.type, events.type)
    assert np.abs(table.time_samples - events.time_samples).max() < 0.002  # a file holds microseconds


def test_the_same_events_as_in_python(session):
    pair = evlib.read_recording(session / "day1/recording.npz"), evlib.read_events(session / "day1/events.tsv")
    detector = evlib.fit([pair], method="matched_filter", refractory_s=2.0, progress=False)
    expected = evlib.detect(detector, evlib.read_recording(session / "day2/recording.npz"))
    found = evlib.read_events(session / "day2/estimated.tsv", names=expected.names)
    assert len(found) == len(expected) > 50
    assert np.array_equal(found.sample, expected.sample) and np.array_equal(found.type, expected.type)
    np.testing.assert_allclose(found.time_samples, expected.time_samples, atol=0.002)
    np.testing.assert_allclose(found.score, expected.score)
    np.testing.assert_allclose(found.sigma_s, expected.sigma_s)


def test_detect_without_an_output_prints_the_same_table(session, capsys):
    capsys.readouterr()
    assert cli.main(["detect", f"{session}/bells.ckpt", f"{session}/day2/recording.npz", "--quiet"]) == 0
    assert capsys.readouterr().out == (session / "day2/estimated.tsv").read_text()


def test_score_as_text_and_as_json(session, capsys):
    files = [f"{session}/day2/events.tsv", f"{session}/day2/estimated.tsv"]
    expected = evlib.compare(*map(evlib.read_events, files), tolerance_s=0.01, refractory_s=2.0, duration_s=30.0)
    options = ["--tolerance-ms", "10", "--refractory-s", "2", "--duration-s", "30"]
    capsys.readouterr()
    assert cli.main(["score", *files, *options]) == 0
    assert capsys.readouterr().out == f"{expected}\n"
    assert cli.main(["score", *files, *options, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report == json.loads(json.dumps(expected.summary()))
    assert report["tolerance_ms"] == 10 and report["f1"] > 0.9 and report["refractory_violations"]["estimated"] == 0


def test_a_higher_threshold_keeps_fewer_events_of_the_types_it_names(session, tmp_path):
    before = evlib.read_events(session / "day2/estimated.tsv")
    kind = before.names[3]
    threshold = f"{kind}=0.999999999999"
    arguments = ["detect", session / "bells.ckpt", session / "day2/recording.npz", "-o", tmp_path / "few.tsv"]
    assert cli.main([*map(str, arguments), "--threshold", threshold, "--block-s", "7", "--quiet"]) == 0
    detector = evlib.load_detector(session / "bells.ckpt")
    recording = evlib.read_recording(session / "day2/recording.npz")
    expected = evlib.detect(detector, recording, {kind: 0.999999999999})
    after = evlib.read_events(tmp_path / "few.tsv", names=expected.names)
    assert np.array_equal(after.sample, expected.sample) and np.array_equal(after.type, expected.type)


def test_periods_labels_and_templates_reach_fit(session, tmp_path, capsys):
    day1 = session / "day1"
    names = evlib.read_events(day1 / "events.tsv").names
    files = [f"{day1}/recording.npz", f"{day1}/events.tsv", "-o", f"{tmp_path}/a.ckpt"]
    options = "--method matched_filter --labels-per-type 3 --template-ms 10 60 --seed 5 --self-train --quiet".split()
    options += ["--refractory-s", f"{names[0]}=0.5,default=1", "--unlabelled", f"{session}/day2/recording.npz"]
    assert cli.main(["fit", *files, *options]) == 0
    detector = evlib.load_detector(tmp_path / "a.ckpt")
    assert capsys.readouterr().out == f"{detector}\n"
    assert detector.refractory_s == {name: 0.5 if name == names[0] else 1.0 for name in names}
    assert [detector.metadata[name] for name in ("labels_per_type", "self_train", "seed")] == [3, True, 5]
    assert set(detector.metadata["n_labelled"].values()) == {3}
    assert detector.metadata["duration_s"] == 60  # both recordings
    assert (detector.bank.before, detector.bank.length) == (20, 141)


def test_a_rate_changes_only_when_asked_by_name(session, tmp_path, capsys):
    slow = evlib.read_recording(session / "day2/recording.npz").resample(1600)
    evlib.write_recording(slow, tmp_path / "slow.npz")
    arguments = ["detect", session / "bells.ckpt", tmp_path / "slow.npz", "-o", tmp_path / "slow.tsv", "--quiet"]
    assert "1600 Hz" in refusal(capsys, *arguments)
    assert not (tmp_path / "slow.tsv").exists()
    assert cli.main([*map(str, arguments), "--resample"]) == 0
    reference = evlib.read_events(session / "day2/events.tsv")
    assert evlib.compare(reference, evlib.read_events(tmp_path / "slow.tsv")).f1 > 0.8


def test_a_recording_without_a_rate_needs_one(session, tmp_path, capsys):
    np.save(tmp_path / "bare.npy", evlib.read_recording(session / "day2/recording.npz").read())
    arguments = ["detect", session / "bells.ckpt", tmp_path / "bare.npy", "-o", tmp_path / "bare.tsv", "--quiet"]
    assert "does not tell its sampling rate" in refusal(capsys, *arguments)
    assert cli.main([*map(str, arguments), "--sampling-rate-hz", "2000"]) == 0
    assert (tmp_path / "bare.tsv").read_text() == (session / "day2/estimated.tsv").read_text()


def test_validate_asks_a_detector(session, capsys):
    arguments = ["validate", f"{session}/day1/recording.npz", "--detector", f"{session}/bells.ckpt"]
    assert cli.main(arguments) == 0 and "no problems found" in capsys.readouterr().out
    evlib.write_recording(evlib.Recording(np.random.default_rng(0).normal(size=(9999, 5)), 2000), session / "five.npz")
    assert cli.main(["validate", f"{session}/five.npz", *arguments[2:]]) == 1
    assert "error: detector: the detector is for 6 channels" in capsys.readouterr().out


@pytest.mark.parametrize("ending", ["tsv", "txt", "TextGrid", "eaf"])
def test_detections_do_not_replace_labels(session, tmp_path, capsys, ending):
    labels, found = tmp_path / f"labels.{ending}", tmp_path / "found.tsv"
    assert cli.main(["convert", f"{session}/day2/events.tsv", str(labels)]) == 0
    before = labels.read_bytes()
    detect = ["detect", f"{session}/bells.ckpt", f"{session}/day2/recording.npz", "--quiet", "-o"]
    assert "labels without scores, which may be yours" in refusal(capsys, *detect, labels)
    assert "labels without scores" in refusal(capsys, "discover", detect[2], "-o", labels)
    assert labels.read_bytes() == before
    assert [cli.main([*detect, str(found)]) for _ in range(2)] == [0, 0]  # its own table is written anew


def test_an_example_does_not_replace_a_recording(tmp_path, capsys):
    assert cli.main(["example", "bells", "-o", str(tmp_path)]) == 0
    assert "is there already" in refusal(capsys, "example", "bells", "-o", tmp_path)


def test_fit_learns_the_types_that_are_named(three_kinds, tmp_path, capsys):
    fit = ["fit", f"{three_kinds}/recording.npz", f"{three_kinds}/events.tsv", "-o", f"{tmp_path}/a.ckpt", "--quiet"]
    known = evlib.read_events(three_kinds / "events.tsv").names
    assert cli.main([*fit, "--method", "matched_filter", "--types", *known[:2]]) == 0
    assert evlib.load_detector(tmp_path / "a.ckpt").names == known[:2]
    assert "unknown event name 'bell' in --types" in refusal(capsys, *fit, "--types", "bell")


def test_validate_says_what_is_wrong_and_exits_with_1(session, tmp_path, capsys):
    capsys.readouterr()
    good = ["validate", f"{session}/day1/recording.npz", f"{session}/day1/events.tsv", "--refractory-s", "2"]
    assert cli.main([*good, "--n-channels", "6"]) == 0
    read, table, said = capsys.readouterr().out.splitlines()
    assert read.startswith("Recording(recording: 60000 samples") and table.startswith("Events(")
    assert said == "no problems found"
    assert cli.main([*good, "--names", "event_00", "event_01", "--n-channels", "5"]) == 1
    out = capsys.readouterr().out
    assert "5 channels were expected, 6 came" in out and "unknown event name 'event_02'" in out
    late = evlib.Events.from_seconds([1.0, 31.0], ["event_00"] * 2, RATE)
    evlib.write_events(late, tmp_path / "late.tsv")
    assert cli.main(["validate", f"{session}/day1/recording.npz", str(tmp_path / "late.tsv")]) == 1
    assert "outside of the signal" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("fit {day}/nosuch.npz {day}/events.tsv -o {new}", "no recording at"),
        ("fit {day}/recording.npz {day}/nosuch.tsv -o {new}", "no event table at"),
        ("fit {day}/recording.npz -o {new}", "each followed by its event table"),
        ("fit {day}/recording.npz {day}/events.tsv", "-o/--output"),
        ("fit {day}/recording.npz {day}/events.tsv -o {day}", "is a folder"),
        ("fit {day}/recording.npz {day}/events.tsv -o {new} --method svm", "invalid choice: 'svm'"),
        ("fit {day}/recording.npz {day}/events.tsv -o {new} --meth lstm", "unrecognized arguments"),
        (
            "fit {day}/recording.npz {day}/events.tsv -o {new} --refractory-s bell=1,default=2",
            "unknown event name 'bell' in refractory_s",
        ),
        ("fit {day}/recording.npz {day}/events.tsv -o {new} --refractory-s two", "must be a number, or NAME=NUMBER"),
        ("fit {day}/recording.npz {day}/events.tsv -o {new} --refractory-s default=1,default=2", "each name once"),
        ("detect {day}/nosuch.ckpt {day}/recording.npz", "no detector at"),
        ("detect {day}/events.tsv {day}/recording.npz", "not a detector"),
        ("detect {ckpt} {day}/recording.npz --sampling-rate-hz 1000", "the file says 2000 Hz"),
        ("detect {ckpt} {day}/recording.npz --threshold 50", "between 0 and 1, got 50"),
        ("detect {ckpt} {day}/recording.npz -o {day}/events.tsv/new.tsv --quiet", "events.tsv"),
        ("score {day}/events.tsv {day}/nosuch.tsv", "no event table at"),
        ("score {day}/events.tsv {day}/events.tsv --tolerance-ms five", "invalid milliseconds value: 'five'"),
        ("fit {day}/recording.npz {day}/events.tsv -o {new} --method lstm --pretrain masked", "has no encoder"),
        ("pretrain {day}/recording.npz", "-o/--output"),
        ("pretrain {day}/recording.npz -o {new} --pretext magic", "invalid choice: 'magic'"),
        ("pretrain {day}/recording.npz -o {new} --resume --n-windows 64 --quiet", "--resume needs save_dir"),
        ("discover nosuch.npz -o {new}.tsv", "no recording at"),
        (
            "discover {day}/recording.npz -o {new}.tsv --event-ms 40000 --quiet",
            "no event of that length recurs in 30 s",
        ),
        ("discover {day}/recording.npz {day}/recording.npz -o {new}", "unrecognized arguments"),
        ("run nosuch.ipynb", "no notebook at nosuch.ipynb"),
        ("run a.ipynb --params {day} -p seed 1", "not both"),
        ("nosuch", "invalid choice: 'nosuch'"),
        # The files of a command in the wrong order, or without their ending.
        ("fit {day}/events.tsv {day}/recording.npz -o {new}", "it is a table of events, not a recording"),
        ("fit {day}/recording.npz {day}/recording.npz -o {new}", "(a recording? it comes before its labels)"),
        ("validate {day}/recording", "(did you mean {day}/recording.npz?)"),
        ("validate {day}/recording.npz --detector {day}/events.tsv", "not a detector"),
        # Before the work: the recording is not there either.
        ("detect {ckpt} nosuch.npz -o {new}.png", "labels of an unknown kind"),
        ("discover nosuch.npz -o {new}.png", "labels of an unknown kind"),
        # Options as they are called here, not as arguments of Python.
        ("detect {ckpt} {day}/recording.npz --sampling-rate-hz 1000", "but --sampling-rate-hz 1000 was passed"),
        ("validate {day}/events.csv", "pass --sampling-rate-hz"),
        ("validate {day}/uneven.csv", "; --regrid interpolates"),
        ("validate {day}/uneven.csv --time-column Zeit", "--time-column Zeit is no column"),
        ("detect {ckpt} {day}/slow.npz", "if resampling is wanted, say so: --resample"),
        ("", "required: COMMAND"),
    ],
)
def test_bad_input_is_refused_in_one_line(session, tmp_path, capsys, arguments, words):
    places = {"day": session / "day1", "ckpt": session / "bells.ckpt", "new": tmp_path / "new"}
    (session / "day1/events.csv").write_text("x\n1\n2\n")
    (session / "day1/uneven.csv").write_text("time,x\n0,1\n0.1,2\n0.5,3\n")
    evlib.write_recording(evlib.Recording(np.ones((99, 6)), 100), session / "day1/slow.npz")
    assert words.format(**places) in refusal(capsys, *arguments.format(**places).split())
    assert not (tmp_path / "new").exists()


def test_a_process_of_its_own(session, tmp_path):
    """The module runs as a program, with results and errors on their own streams."""
    run = [sys.executable, "-m", "evlib.cli", "score", f"{session}/day2/events.tsv"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    good = subprocess.run(
        [*run, f"{session}/day2/estimated.tsv", "--json"], capture_output=True, text=True, env=environment
    )
    assert (good.returncode, good.stderr) == (0, "") and json.loads(good.stdout)["f1"] > 0.9
    bad = subprocess.run([*run, "nosuch.tsv"], capture_output=True, text=True, env=environment)
    assert (bad.returncode, bad.stdout, bad.stderr) == (2, "", "evlib: error: no event table at nosuch.tsv\n")


def test_help_imports_nothing_heavy():
    code = "import sys, evlib.cli as c\ntry: c.main(['--help'])\nexcept SystemExit: pass\n" + (
        "print(sorted({'torch', 'scipy', 'pandas', 'lightning_fabric', 'tqdm'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("[]\n")


@pytest.fixture(scope="module")
def three_kinds(tmp_path_factory):
    """A small recording of three kinds with its events, and an encoder that ``evlib pretrain`` made of it."""
    folder = tmp_path_factory.mktemp("pretrain")
    recording, events = evlib.make_recording(make_templates(3, seed=1), 20.0, snr=20.0, seed=1)
    evlib.write_recording(recording, folder / "recording.npz")
    evlib.write_events(events, folder / "events.tsv")
    options = "--hidden-size 8 --n-windows 160 --window-ms 50 --max-epochs 1 --seed 2 --quiet".split()
    assert cli.main(["pretrain", f"{folder}/recording.npz", "-o", f"{folder}/a.enc", *options]) == 0
    return folder


@pytest.fixture
def few_steps(monkeypatch):
    monkeypatch.setattr("evlib.training.frames.EPOCH_FRAMES", 2048)


def test_pretrain_writes_the_encoder_that_python_makes(three_kinds):
    recording = evlib.read_recording(three_kinds / "recording.npz")
    options = {"hidden_size": 8, "n_windows": 160, "window_s": 0.05, "max_epochs": 1, "seed": 2, "progress": False}
    expected = evlib.pretrain([recording], **options)
    encoder, metadata = evlib.load_encoder(three_kinds / "a.enc")
    assert metadata == expected.metadata
    assert metadata["pretext"] == "contrastive" and metadata["seed"] == 2 and metadata["sampling_rate_hz"] == RATE
    for name, value in expected.encoder.state_dict().items():
        assert torch.equal(encoder.state_dict()[name], value)


def test_discover_writes_the_events_that_python_finds(three_kinds, tmp_path, capsys):
    arguments = ["discover", three_kinds / "recording.npz", "-o", tmp_path / "kinds.tsv", "--n-types", "2", "--quiet"]
    assert cli.main([str(argument) for argument in arguments]) == 0
    found = evlib.discover([evlib.read_recording(three_kinds / "recording.npz")], n_types=2, progress=False)
    assert capsys.readouterr().out == f"{found}\n"
    expected, written = found.events[0], evlib.read_events(tmp_path / "kinds.tsv")
    assert len(written) == len(expected) > 10 and set(written.names) == {"kind_01", "kind_02"}
    written = evlib.read_events(tmp_path / "kinds.tsv", names=expected.names)
    assert np.array_equal(written.sample, expected.sample) and np.array_equal(written.type, expected.type)
    np.testing.assert_allclose(written.score, expected.score)


@pytest.mark.slow
def test_fit_takes_the_encoder_that_pretrain_wrote(three_kinds, tmp_path, few_steps):
    fit = ["fit", f"{three_kinds}/recording.npz", f"{three_kinds}/events.tsv", "-o", f"{tmp_path}/a.ckpt"]
    options = ["--pretrain", f"{three_kinds}/a.enc", *"--method frames --freeze-encoder --max-epochs 1 --quiet".split()]
    assert cli.main([*fit, *options]) == 0
    detector = evlib.load_detector(tmp_path / "a.ckpt")
    encoder, metadata = evlib.load_encoder(three_kinds / "a.enc")
    assert detector.method == "frames" and detector.metadata["freeze_encoder"] is True
    assert detector.metadata["pretext"] == metadata
    for name, value in encoder.state_dict().items():
        assert torch.equal(detector.frames.encoder.state_dict()[name], value)


def test_units_in_the_names_of_options_are_believed(tmp_path, capsys):
    evlib.write_events(evlib.Events.from_seconds([1.0, 9.0], ["bell", "bell"], 2000), tmp_path / "a.tsv")
    evlib.write_events(evlib.Events.from_seconds([3.5, 9.0], ["Bell", "bell"], 2000), tmp_path / "b.tsv")
    assert cli.main(["score", f"{tmp_path}/a.tsv", f"{tmp_path}/a.tsv", "--tolerance-ms", "3000"]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("F1 1.000 at 3000 ms") and err == ""
    assert cli.main(["score", f"{tmp_path}/a.tsv", f"{tmp_path}/b.tsv"]) == 0
    assert capsys.readouterr().err.startswith("evlib: warning: 'bell' and 'Bell' count as two kinds of events")


def test_convert_recordings(tmp_path, capsys):
    recording, _ = evlib.make_recording(duration_s=2.0)
    evlib.write_recording(recording, tmp_path / "a.npz")
    for one, two in (("a.npz", "b.h5"), ("b.h5", "c.csv"), ("c.csv", "d.parquet"), ("d.parquet", "e.npz")):
        assert cli.main(["convert", str(tmp_path / one), str(tmp_path / two)]) == 0
    np.testing.assert_allclose(evlib.read_recording(tmp_path / "e.npz").read(), recording.read(), atol=1e-6)
    assert cli.main(["convert", str(tmp_path / "a.npz"), str(tmp_path / "a.npz")]) == 2


def test_no_command_writes_over_what_it_reads_or_over_another_kind_of_file(tmp_path, capsys):
    folder, run = tmp_path / "day", lambda *words: cli.main([*map(str, words)])
    assert run("simulate", "-o", folder, "--duration-s", "10") == 0
    recording, events = folder / "recording.npz", folder / "events.tsv"
    (tmp_path / "link.npz").symlink_to(recording)
    os.link(recording, tmp_path / "hard.npz")
    options = ("--method", "matched_filter", "--quiet")
    assert run("fit", recording, events, "-o", tmp_path / "d.ckpt", *options) == 0
    before = {path: path.read_bytes() for path in (recording, events, tmp_path / "d.ckpt")}
    for words in (
        ("simulate", "-o", folder),
        ("fit", recording, events, "-o", events, *options),
        ("fit", recording, events, "-o", tmp_path / "link.npz", *options),
        ("detect", tmp_path / "d.ckpt", recording, "-o", tmp_path / "hard.npz"),
        ("detect", tmp_path / "d.ckpt", recording, "-o", folder / "../day/recording.npz"),
        ("detect", tmp_path / "d.ckpt", recording, "-o", tmp_path / "d.ckpt"),
        ("discover", recording, "-o", tmp_path / "d.ckpt", "--quiet"),
        ("discover", recording, "-o", events, "--quiet"),  # labels of one's own
        ("detect", tmp_path / "d.ckpt", recording, "-o", events),
    ):
        assert run(*words) == 2, words
    assert {path: path.read_bytes() for path in before} == before
    assert run("detect", tmp_path / "d.ckpt", recording, "-o", tmp_path / "e.tsv") == 0
    assert run("detect", tmp_path / "d.ckpt", recording, "-o", tmp_path / "e.tsv") == 0  # one's own result is replaced
    with pytest.raises(evlib.EvlibError, match="is there already and a Detector"):
        save_checkpoint(tmp_path / "d.ckpt", evlib.LSTMEventClassifier(hidden_size=8))
    (tmp_path / "notes.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(evlib.EvlibError, match="is there already and no model but: text"):
        evlib.load_detector(tmp_path / "d.ckpt").save(tmp_path / "notes.txt")


@pytest.mark.parametrize("text", ["night #2.npz", "[2024] x.npz", "yes", "null", "1e3", "a: b"])
def test_a_parameter_that_is_text_is_taken_as_it_stands(text):
    assert cli._value("recording_path", text, "night.npz") == cli._value("recording_path", text, None) == text
    assert cli._value("snr", "12.5", 6.0) == 12.5
    with pytest.raises(evlib.EvlibError, match="-p snr .*YAML"):
        cli._value("snr", "[12", 6.0)


def test_a_table_on_standard_output_is_utf8_whatever_the_terminal_is(tmp_path, capfdbinary):
    recording, events = evlib.make_recording(duration_s=8.0, seed=1)
    events = replace(events, names=tuple(f"Glöckchen {name}" for name in events.names))
    evlib.fit([(recording, events)], method="matched_filter", progress=False).save(tmp_path / "d.ckpt")
    evlib.write_recording(recording, tmp_path / "r.npz")
    command = [sys.executable, "-m", "evlib.cli", "detect", "d.ckpt", "r.npz", "--quiet"]
    environment = os.environ | {"PYTHONIOENCODING": "cp437", "PYTHONUTF8": "0", "LC_ALL": "C"}
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, env=environment, timeout=120)
    assert done.returncode == 0 and b"\r" not in done.stdout and "Glöckchen".encode() in done.stdout


def test_names_that_the_terminal_cannot_show_are_escaped(tmp_path):
    events = evlib.Events.from_seconds([1.0, 2.0], ["Glöckchen", "鐘"], 100)
    evlib.write_events(events, tmp_path / "e.tsv")
    environment = os.environ | {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0", "LC_ALL": "C"}
    command = [sys.executable, "-m", "evlib.cli", "score", "e.tsv", "e.tsv"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, env=environment, timeout=120)
    assert done.returncode == 0 and b"\\u9418" in done.stdout


def test_a_closed_standard_output_is_no_error(monkeypatch, tmp_path):
    evlib.write_events(evlib.Events.from_seconds([1.0], ["a"], 100), tmp_path / "e.tsv")
    monkeypatch.setattr(sys, "stdout", None)
    assert cli.main(["score", str(tmp_path / "e.tsv"), str(tmp_path / "e.tsv")]) == 0


SLIPS = {
    "path": lambda recording, events: evlib.read_recording(5),
    "path of labels": lambda recording, events: evlib.read_events(None),
    "path to write": lambda recording, events: evlib.write_recording(recording, 5),
    "path of labels to write": lambda recording, events: evlib.write_events(events, 5),
    "spans": lambda recording, events: recording.mark_bad([[1, "x"]]),
    "seconds": lambda recording, events: recording.between("a"),
    "channels": lambda recording, events: recording.select(None),
    "channels of another": lambda recording, events: recording.like(5),
    "names of channels": lambda recording, events: evlib.Recording(np.zeros((9, 2)), 2000, 5),
    "units": lambda recording, events: evlib.Recording(np.zeros((9, 2)), 2000, units=5),
    "types": lambda recording, events: events.select(5),
    "samples": lambda recording, events: events.within(None, 7),
    "whole samples": lambda recording, events: events.shift("a"),
    "names": lambda recording, events: evlib.validate(recording, events, names=5),
    "number of channels": lambda recording, events: evlib.validate(recording, n_channels="6"),
    "onsets": lambda recording, events: evlib.Events.from_seconds("x", ["a"], 2000),
}


@pytest.mark.parametrize("slip", SLIPS)
def test_values_of_another_kind_are_refused_by_name(slip):
    recording = evlib.Recording(np.zeros((9, 2)), 2000)
    with pytest.raises(evlib.EvlibError, match="must be|path of a file"):
        SLIPS[slip](recording, evlib.Events.from_seconds([0.001], ["a"], 2000))


def test_a_type_is_chosen_by_its_whole_name():
    events = evlib.Events.from_seconds([1.0, 2.0], ["bell", "bell 1"], 2000)
    assert events.select("bell 1").names == ("bell 1",)


@pytest.mark.parametrize("slip", [None, "night.npz", 5, object(), [None]])
def test_slips_at_the_doors_are_evlibs_errors(slip, tmp_path):
    recording, events = evlib.make_recording(duration_s=8.0, seed=1)
    detector = evlib.fit([(recording, events)], method="matched_filter", progress=False)
    for call in (
        lambda: evlib.fit(slip),
        lambda: evlib.detect(detector, slip),
        lambda: evlib.detect(slip, recording),
        lambda: evlib.detect(recording, detector),
        lambda: evlib.compare(events, slip),
        lambda: evlib.discover(slip),
        lambda: evlib.pretrain(slip),
        lambda: evlib.write_recording(slip, tmp_path / "a.npz"),
        lambda: evlib.write_events(slip, tmp_path / "a.tsv"),
        lambda: evlib.validate(recording, detector=slip or 0),
    ):
        with pytest.raises(evlib.EvlibError):
            call()


def test_export_writes_a_folder_that_detects_the_same(session, capsys):
    from evlib.detection.export import load_exported

    capsys.readouterr()
    assert cli.main(["export", f"{session}/bells.ckpt", "-o", f"{session}/bells"]) == 0
    written = [line.rpartition("/")[2] for line in capsys.readouterr().out.splitlines()]
    assert written == ["README.md", "detector.ckpt", "model.safetensors"]
    recording = evlib.read_recording(session / "day2" / "recording.npz")
    estimated = evlib.detect(load_exported(session / "bells"), recording)
    assert len(estimated) == len(evlib.read_events(session / "day2" / "estimated.tsv"))
    assert "is there already and no exported detector" in refusal(
        capsys, "export", f"{session}/bells.ckpt", "-o", session
    )
